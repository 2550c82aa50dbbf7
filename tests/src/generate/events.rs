//! Random events around an interesting instant.
//!
//! *In*: event models and a theme. *Out*: records in arrival order, in segments of the clock. *Never*:
//! duplicates whose fate depends on how partitions interleave; event times at the edge of retention.

#![allow(clippy::explicit_auto_deref)] // `pick` returns references to references; without it inference fails

use std::collections::BTreeSet;

use super::json::{object, string};
use super::{EventModel, Segment, Theme, chance, pick};
use crate::oracle::admit::Raw;
use crate::oracle::val::{decimal_text, instant};
use crate::oracle::zone::{DAY, HOUR, MINUTE, SECOND, date_text};

/// What has been sent, to be sent again.
struct Sent {
    model: usize,
    partition: usize,
    payload: String,
    time: i64,
    id: String,
}

struct Maker<'a> {
    rng: &'a mut fastrand::Rng,
    theme: &'a Theme,
    models: &'a [EventModel],
    partitions: usize,
    sent: Vec<Sent>,
    offsets: Vec<i64>,
    ids: usize,
    /// Ids that were sent to several partitions.
    crossed: BTreeSet<String>,
    /// Ids that were sent with several contents.
    varied: BTreeSet<String>,
}

/// The clock at the start, and what happens.
pub(super) fn segments(
    rng: &mut fastrand::Rng,
    theme: &Theme,
    models: &[EventModel],
    partitions: usize,
) -> (i64, Vec<Segment>) {
    let mut maker = Maker {
        rng,
        theme,
        models,
        partitions,
        sent: Vec::new(),
        offsets: vec![0; partitions],
        ids: 0,
        crossed: BTreeSet::new(),
        varied: BTreeSet::new(),
    };
    let start = theme.base - theme.span / 2 - maker.rng.i64(0..theme.span / 4 + 1);
    let mut now = start;
    let count = maker.rng.usize(1..5);
    let mut segments = Vec::new();
    for _ in 0..count {
        let records = maker.rng.usize(..=15);
        let mut received = Vec::new();
        for _ in 0..records {
            now += step(maker.rng, theme.span / (count * 8) as i64 + 1);
            received.push(now);
        }
        let records: Vec<Raw> = received.into_iter().map(|at| maker.record(at)).collect();
        now += step(maker.rng, theme.span / count as i64 / 2 + 1);
        let instants = maker.instants(start, now);
        segments.push(Segment { clock: now, records, instants, far: false });
    }
    if theme.rich && chance(maker.rng, 15) {
        let clock = now + maker.rng.i64(8 * DAY..400 * DAY);
        segments.push(Segment { clock, records: Vec::new(), instants: Vec::new(), far: true });
    }
    (start, segments)
}

/// How far received time moves on: often not at all.
pub(super) fn step(rng: &mut fastrand::Rng, most: i64) -> i64 {
    match rng.u8(..4) {
        0 => 0,
        1 => rng.i64(0..most.min(SECOND)),
        2 => rng.i64(0..most),
        _ => rng.i64(0..most) / SECOND * SECOND,
    }
}

impl Maker<'_> {
    /// Historical instants: event times, right after them, whole hours, anything.
    fn instants(&mut self, start: i64, now: i64) -> Vec<i64> {
        let mut all = Vec::new();
        for _ in 0..2 {
            let random = start + self.rng.i64(0..(now - start).max(1));
            let seen: Vec<i64> =
                self.sent.iter().map(|s| s.time).filter(|t| *t <= now && *t > start - DAY).collect();
            all.push(match self.rng.u8(..4) {
                0 if !seen.is_empty() => *pick(self.rng, &seen),
                1 if !seen.is_empty() => *pick(self.rng, &seen) + 1,
                2 => random.div_euclid(HOUR) * HOUR,
                _ => random,
            });
        }
        all
    }

    fn record(&mut self, received: i64) -> Raw {
        let mut partition = self.rng.usize(..self.partitions);
        let payload = match self.rng.u32(..100) {
            0..3 => self.broken(),
            3..7 => {
                let count = self.rng.usize(1..4);
                let events: Vec<String> = (0..count).map(|_| self.event(received, partition)).collect();
                format!("[{}]", events.join(", "))
            }
            7..17 if !self.sent.is_empty() => self.again(&mut partition),
            21..40 if self.theme.later && !self.sent.is_empty() => self.again(&mut partition),
            17..21 if self.theme.rich && !self.sent.is_empty() => self.namesake(&mut partition),
            _ => self.event(received, partition),
        };
        let offset = self.offsets[partition];
        self.offsets[partition] += 1 + i64::from(self.rng.u8(..10) == 0);
        Raw { partition, offset, received, payload: payload.into_bytes(), key: None, table: None }
    }

    /// Something sent before: the same bytes, or the same id with another content.
    fn again(&mut self, partition: &mut usize) -> String {
        let i = self.rng.usize(..self.sent.len());
        let model = self.sent[i].model;
        let id = self.sent[i].id.clone();
        *partition = self.sent[i].partition;
        // To another partition only the same bytes, and only where every copy is within reach of
        // every other: else the order of partitions would decide.
        // How many of them count depends on no order, but clocks go on between segments, so that events at the
        // edge of what is retained must not be told apart by which of the copies it is that counts.
        let reach = self.models[model].dedupe == DAY && self.theme.span <= 2 * HOUR || self.theme.later;
        if reach && !self.varied.contains(&id) && chance(self.rng, 50) {
            *partition = self.rng.usize(..self.partitions);
            self.crossed.insert(id);
            return self.sent[i].payload.clone();
        }
        if self.crossed.contains(&id) || chance(self.rng, 70) {
            return self.sent[i].payload.clone();
        }
        self.varied.insert(id.clone());
        self.event_with(model, &id, self.sent[i].time, *partition)
    }

    /// An event of any type with the id and time of one sent before: of another type no duplicate.
    fn namesake(&mut self, partition: &mut usize) -> String {
        let i = self.rng.usize(..self.sent.len());
        let (id, time) = (self.sent[i].id.clone(), self.sent[i].time);
        *partition = self.sent[i].partition;
        if self.crossed.contains(&id) {
            return self.sent[i].payload.clone();
        }
        self.varied.insert(id.clone());
        let model = self.rng.usize(..self.models.len());
        self.event_with(model, &id, time, *partition)
    }

    fn broken(&mut self) -> String {
        let texts = [
            "{",
            "",
            "nul",
            "{\"type\":\"visit\"",
            "{\"type\":\"visit\",}",
            "42",
            "\"text\"",
            "{\"type\":\"nobody\"}",
            "{}",
            "{\"type\":\"visit\"}",
            "{\"type\":\"shop.order\",\"qty\":01}",
            "[{\"type\":\"nobody\"}, 7]",
        ];
        (*pick(self.rng, &texts)).to_string()
    }

    fn event(&mut self, received: i64, partition: usize) -> String {
        let model = self.rng.usize(..self.models.len());
        let time = self.time(received);
        let id = format!("e{}", self.ids);
        self.ids += 1;
        self.event_with(model, &id, time, partition)
    }

    /// Event time: mostly a little before it was received.
    fn time(&mut self, received: i64) -> i64 {
        let seen: Vec<i64> =
            self.sent.iter().map(|s| s.time).filter(|t| *t <= received && *t > received - 2 * DAY).collect();
        match self.rng.u32(..100) {
            0..45 => received - self.rng.i64(0..self.theme.span / 10 + 1),
            45..55 => received - self.rng.i64(0..self.theme.span + 1),
            55..65 => received.div_euclid(MINUTE) * MINUTE,
            65..75 if !seen.is_empty() => *pick(self.rng, &seen),
            75..80 => self.theme.base.min(received) - i64::from(self.rng.u8(..2)),
            80..84 => received + 5 * MINUTE,
            84..87 => received + 5 * MINUTE + 1 + self.rng.i64(0..DAY * 400),
            87..92 => received + self.rng.i64(0..5 * MINUTE),
            92..97 => received - self.rng.i64(0..self.theme.late),
            97..99 => received - 5 * 366 * DAY - self.rng.i64(0..DAY),
            _ => received.div_euclid(HOUR) * HOUR,
        }
    }

    fn event_with(&mut self, model: usize, id: &str, time: i64, partition: usize) -> String {
        let event = &self.models[model];
        let mut members = vec![(vec!["type".to_string()], string(&event.name))];
        if chance(self.rng, 95) {
            members.push((vec!["event_id".to_string()], string(id)));
        }
        if !(event.time.is_none() && chance(self.rng, 2)) {
            members.push((vec!["at".to_string()], self.stamp(time)));
        }
        for i in 0..event.fields.len() {
            let field = &self.models[model].fields[i];
            let (kind, path, required) = (field.kind, field.path.clone(), field.required);
            let text = match kind {
                "id" => string(id),
                "time" => self.stamp(time),
                _ => self.value(kind, time),
            };
            let absent = if required || kind == "id" || kind == "time" { 2 } else { 10 };
            match self.rng.u32(..100) {
                n if n < absent => {}
                n if n < absent + 2 => members.push((path, "null".to_string())),
                97 => members.push((path, self.wrong(kind))),
                98 if chance(self.rng, 30) => {
                    members.push((path.clone(), text.clone()));
                    members.push((path, text));
                }
                _ => members.push((path, text)),
            }
        }
        if chance(self.rng, 10) {
            members.push((vec!["undeclared".to_string()], "{\"a\":[1,{\"b\":null}],\"a\":2}".to_string()));
        }
        let payload = object(self.rng, &members);
        self.sent.push(Sent { model, partition, payload: payload.clone(), time, id: id.to_string() });
        payload
    }

    /// An instant in one of the ways it can be written.
    fn stamp(&mut self, time: i64) -> String {
        let text = instant(time);
        match self.rng.u8(..8) {
            0 if time % 1000 == 0 => (time / 1000).to_string(),
            1 => string(text.trim_end_matches('Z')),
            2 => string(&format!("{}+02:00", instant(time + 2 * HOUR).trim_end_matches('Z'))),
            3 => string(&format!("{}-09:30", instant(time - 9 * HOUR - 30 * MINUTE).trim_end_matches('Z'))),
            4 if time % SECOND != 0 => {
                let micros = format!("{:06}", time.rem_euclid(SECOND));
                let whole = instant(time.div_euclid(SECOND) * SECOND);
                string(&format!("{}.{micros}789Z", whole.trim_end_matches('Z')))
            }
            _ => string(&text),
        }
    }

    /// A text of another type.
    fn wrong(&mut self, kind: &str) -> String {
        let texts: &[&str] = match kind {
            "region" | "user" | "status" | "id" => &["7", "true", "{}", "[\"eu\"]"],
            "qty" | "bonus" | "big" => &["1.0", "1e2", "\"5\"", "9223372036854775808", "true", "[]"],
            "score" => &["\"0.5\"", "false", "{}"],
            "price" | "fee" | "huge" => &[
                "\"abc\"",
                "1.0000001",
                "true",
                "\"\"",
                "\"100000000000000000000000000000000000000\"",
                "[1]",
            ],
            "flag" => &["0", "\"true\"", "{}"],
            "day" => &["\"2026-02-30\"", "20260101", "\"2026-1-1\"", "true"],
            "started" | "time" => &["\"yesterday\"", "1.5", "true", "\"2026-02-30T00:00:00Z\""],
            _ => &["7", "\"text\"", "true"],
        };
        (*pick(self.rng, texts)).to_string()
    }

    fn value(&mut self, kind: &str, time: i64) -> String {
        let rng = &mut *self.rng;
        match kind {
            "region" => string(*pick(rng, &["eu", "us", "asia", "eu", "us", "日本", "", "mars", "EU"])),
            "user" => {
                let n = rng.usize(..6);
                if chance(rng, 95) { string(&format!("u{n}")) } else { string("nobody 😀") }
            }
            "status" => string(*pick(
                rng,
                &["open", "closed", "open", "é", "in progress", "", "\"quoted\"\n", "averyverylongstatus"],
            )),
            "qty" => match rng.u8(..8) {
                0 => "0".to_string(),
                1 => rng.i64(-120..1100).to_string(),
                _ => rng.i64(1..12).to_string(),
            },
            "bonus" => rng.i64(-3..20).to_string(),
            "big" => pick(
                rng,
                &[
                    "9223372036854775807",
                    "-9223372036854775808",
                    "4611686018427387903",
                    "4611686018427387904",
                    "0",
                    "-7",
                    "12",
                ],
            )
            .to_string(),
            "score" => pick(
                rng,
                &[
                    "0.1",
                    "0.2",
                    "-4.75",
                    "1e3",
                    "123456.789",
                    "3",
                    "2.5E-3",
                    "1000000.25",
                    "0.30000000000000004",
                    "-101",
                ],
            )
            .to_string(),
            "price" => match rng.u8(..8) {
                0 => pick(rng, &["99999999.99", "\"-99999999.99\"", "0", "\"0.01\"", "1e2", "12.500"])
                    .to_string(),
                1 => format!("-{}", decimal_text(rng.i128(0..100_000), 2)),
                2 => string(&decimal_text(rng.i128(0..100_000), 2)),
                _ => decimal_text(rng.i128(0..30_000), 2),
            },
            "fee" => decimal_text(rng.i128(-50_000..20_000_000), 4),
            "huge" => string(*pick(
                rng,
                &[
                    "99999999999999999999999999999999.999999",
                    "-99999999999999999999999999999999.999999",
                    "0.000001",
                    "12345678901234567890.5",
                ],
            )),
            "flag" => rng.bool().to_string(),
            "day" => string(&date_text((time / DAY) as i32 - rng.i32(0..3))),
            "started" => {
                let back = match rng.u8(..4) {
                    0 => 0,
                    1 => rng.i64(0..3 * HOUR),
                    2 => -rng.i64(0..MINUTE),
                    // Some of it is planned.
                    _ if self.theme.later => rng.i64(-20..20) * self.theme.span / 20,
                    _ => rng.i64(0..20) * MINUTE,
                };
                self.stamp(time - back)
            }
            "items" => {
                let items = (0..rng.usize(..5)).map(|_| item(rng)).collect::<Vec<_>>();
                format!("[{}]", items.join(","))
            }
            "tags" => {
                let tags =
                    (0..rng.usize(..4)).map(|_| string(*pick(rng, &["a", "b", "ü"]))).collect::<Vec<_>>();
                format!("[{}]", tags.join(","))
            }
            _ => {
                let city = pick(rng, &["\"Riga\"", "\"Oslo\"", "null", "\"a far too long name\""]);
                format!("{{\"city\":{city},\"zip\":{}}}", rng.i64(0..99_999))
            }
        }
    }
}

fn item(rng: &mut fastrand::Rng) -> String {
    let q = if chance(rng, 95) { rng.i64(0..12).to_string() } else { "101".to_string() };
    let p = if chance(rng, 97) { decimal_text(rng.i128(0..5_000), 2) } else { "-10.01".to_string() };
    match rng.u8(..10) {
        0 => format!("{{\"q\":{q}}}"),
        1 => format!("{{\"p\":\"{p}\",\"q\":null}}"),
        _ => format!("{{\"q\":{q},\"p\":{p},\"product\":\"x\"}}"),
    }
}
