//! Records of rows that relate: events that meet in time, versions of rows, facts of tables.
//!
//! *In*: models and a theme. *Out*: records in arrival order, in segments of the clock. *Never*: commit
//! times that go back; duplicates whose fate depends on how partitions interleave.

use std::collections::BTreeMap;

use super::super::events::step;
use super::super::json::string;
use super::super::{Segment, Theme};
use super::{Feed, Grid, Model, chance, pick, shipped, word};
use crate::oracle::admit::Raw;
use crate::oracle::val::{decimal_text, instant};
use crate::oracle::zone::{DAY, HOUR, MINUTE, date_text};

/// Members of an object as JSON texts.
type Row = Vec<(&'static str, String)>;

struct Maker<'a> {
    rng: &'a mut fastrand::Rng,
    theme: &'a Theme,
    grid: Grid,
    models: &'a [Model],
    partitions: usize,
    /// Topics of the partitions after `partitions`.
    topics: Vec<String>,
    offsets: Vec<i64>,
    ids: usize,
    /// The time of the last commit.
    committed: i64,
    /// Rows of change streams as they are: by model and key.
    live: BTreeMap<(usize, String), Row>,
    /// Plain events that were sent, to be sent again.
    sent: Vec<(usize, String)>,
    times: Vec<i64>,
}

/// Topics, the clock at the start, what happens.
pub(super) fn segments(
    rng: &mut fastrand::Rng,
    theme: &Theme,
    grid: Grid,
    models: &[Model],
    partitions: usize,
) -> (Vec<String>, i64, Vec<Segment>) {
    let mut topics = Vec::new();
    for model in models.iter().filter(|model| model.feed == Feed::Debezium) {
        for _ in 0..rng.usize(1..3) {
            topics.push(model.name.clone());
        }
    }
    let offsets = vec![0; partitions + topics.len()];
    let start = theme.base - theme.span / 2 - rng.i64(0..theme.span / 4 + 1);
    let mut maker = Maker {
        rng,
        theme,
        grid,
        models,
        partitions,
        topics,
        offsets,
        ids: 0,
        committed: 0,
        live: BTreeMap::new(),
        sent: Vec::new(),
        times: Vec::new(),
    };
    let mut now = start;
    let count = maker.rng.usize(1..5);
    let mut segments = Vec::new();
    for _ in 0..count {
        let mut records = Vec::new();
        for _ in 0..maker.rng.usize(..=30) {
            now += step(maker.rng, theme.span / (count * 10) as i64 + 1);
            maker.record(now, &mut records);
        }
        now += step(maker.rng, theme.span / count as i64 / 2 + 1);
        let instants = maker.instants(start, now);
        segments.push(Segment { clock: now, records, instants, far: false });
    }
    if chance(maker.rng, 15) {
        let clock = now + maker.rng.i64(8 * DAY..400 * DAY);
        segments.push(Segment { clock, records: Vec::new(), instants: Vec::new(), far: true });
    }
    (maker.topics, start, segments)
}

impl Maker<'_> {
    fn instants(&mut self, start: i64, now: i64) -> Vec<i64> {
        let random = start + self.rng.i64(0..(now - start).max(1));
        let seen: Vec<i64> = self.times.iter().copied().filter(|t| *t <= now && *t > start - DAY).collect();
        let first =
            if seen.is_empty() { random } else { *pick(self.rng, &seen) + i64::from(self.rng.bool()) };
        vec![first, if self.rng.bool() { random.div_euclid(HOUR) * HOUR } else { random }]
    }

    fn push(&mut self, partition: usize, raw: Raw, records: &mut Vec<Raw>) {
        let offset = self.offsets[partition];
        self.offsets[partition] += 1 + i64::from(self.rng.u8(..10) == 0);
        records.push(Raw { partition, offset, ..raw });
    }

    fn record(&mut self, received: i64, records: &mut Vec<Raw>) {
        let model = self.rng.usize(..self.models.len());
        match self.models[model].feed {
            Feed::Plain if chance(self.rng, 8) && !self.sent.is_empty() => {
                let (mut partition, payload) = pick(self.rng, &self.sent).clone();
                // Elsewhere only where every copy is within reach of every other.
                if self.theme.span <= 2 * HOUR {
                    partition = self.rng.usize(..self.partitions);
                }
                self.push(partition, raw(received, payload), records);
            }
            Feed::Plain => self.plain(model, received, records),
            Feed::Rows | Feed::Debezium => self.version(model, received, records),
        }
    }

    /// An event with the source's envelope.
    fn plain(&mut self, model: usize, received: i64, records: &mut Vec<Raw>) {
        let time = self.time(received);
        let row = self.row(model, time);
        let payload = self.payload(model, time, &row);
        // The rows of a table in order, as a changelog's: its key lives in one partition.
        let partition = match self.models[model].key.and_then(|key| value(&row, key)) {
            Some(key) => spread(&key, self.partitions),
            None => self.rng.usize(..self.partitions),
        };
        if self.models[model].key.is_none() {
            self.sent.push((partition, payload.clone()));
        }
        self.push(partition, raw(received, payload), records);
    }

    fn payload(&mut self, model: usize, time: i64, row: &Row) -> String {
        let id = format!("e{}", self.ids);
        self.ids += 1;
        let head = format!(
            "\"type\":{},\"event_id\":{},\"at\":{}",
            string(&self.models[model].name),
            string(&id),
            string(&instant(time))
        );
        format!(
            "{{{head}{}}}",
            row.iter().map(|(name, text)| format!(",\"{name}\":{text}")).collect::<String>()
        )
    }

    /// A version of a row: new, changed, gone, there again, all gone.
    fn version(&mut self, model: usize, received: i64, records: &mut Vec<Raw>) {
        let time = self.time(received);
        let number = self.rng.usize(..6);
        let numbers = self.models[model].fields.contains(&("id", "number"));
        let key = if numbers { number.to_string() } else { string(&format!("r{number}")) };
        let before = self.live.get(&(model, key.clone())).cloned();
        let what = self.rng.u32(..100);
        if what < 4 && self.models[model].feed == Feed::Debezium {
            self.live.retain(|(of, _), _| *of != model);
            return self.change(model, "t", &key, (None, None), received, records);
        }
        if what < 20 && before.is_some() || what < 7 {
            self.live.remove(&(model, key.clone()));
            return self.end(model, &key, before, received, records);
        }
        let row = self.changed(model, &key, before.as_ref(), time);
        if let Some(before) = before.as_ref().filter(|_| chance(self.rng, 5))
            && self.moves(model, &key, before, &row, received, records)
        {
            return;
        }
        self.live.insert((model, key.clone()), row.clone());
        if self.models[model].feed == Feed::Rows {
            let payload = self.payload(model, time, &row);
            let partition = spread(&key, self.partitions);
            return self.push(partition, raw(received, payload), records);
        }
        // A snapshot is told as read; without a time of its own it would lie before all that is retained.
        let op = match before {
            _ if self.models[model].timed && chance(self.rng, 10) => "r",
            Some(_) => "u",
            None => "c",
        };
        self.change(model, op, &key, (before, Some(row)), received, records);
    }

    /// An update of the key, where both keys are in one partition and the new one is free.
    fn moves(
        &mut self,
        model: usize,
        key: &str,
        before: &Row,
        row: &Row,
        received: i64,
        records: &mut Vec<Raw>,
    ) -> bool {
        let name = &self.models[model].name;
        let alone = self.topics.iter().filter(|topic| *topic == name).count() == 1;
        let new = if key.starts_with('"') { "\"r7\"" } else { "7" };
        if !alone || self.live.contains_key(&(model, new.to_string())) {
            return false;
        }
        let mut row = row.clone();
        row[0] = ("id", new.to_string());
        self.live.remove(&(model, key.to_string()));
        self.live.insert((model, new.to_string()), row.clone());
        self.change(model, "m", new, (Some(before.clone()), Some(row)), received, records);
        true
    }

    /// The row with some columns changed, or a new one.
    fn changed(&mut self, model: usize, key: &str, before: Option<&Row>, time: i64) -> Row {
        let mut row = self.row(model, time);
        row.retain(|(name, _)| *name != "id");
        if let Some(before) = before.filter(|_| chance(self.rng, 80)) {
            for (name, text) in &mut row {
                // A row mostly stays where it is in time.
                let percent = if *name == "created" { 20 } else { 40 };
                if !chance(self.rng, percent)
                    && let Some(old) = value(before, name)
                {
                    *text = old;
                }
            }
        }
        row.insert(0, ("id", key.to_string()));
        row
    }

    fn end(&mut self, model: usize, key: &str, before: Option<Row>, received: i64, records: &mut Vec<Raw>) {
        if self.models[model].feed == Feed::Debezium {
            return self.change(model, "d", key, (before, None), received, records);
        }
        let partition = spread(key, self.partitions);
        let raw = if chance(self.rng, 50) {
            let time = self.time(received);
            let row = vec![("op", string("d")), ("id", key.to_string())];
            raw(received, self.payload(model, time, &row))
        } else {
            Raw { key: Some(record_key(key)), ..raw(received, String::new()) }
        };
        self.push(partition, raw, records);
    }

    /// A Debezium envelope, perhaps with a tombstone behind it.
    fn change(
        &mut self,
        model: usize,
        op: &str,
        key: &str,
        (before, after): (Option<Row>, Option<Row>),
        received: i64,
        records: &mut Vec<Raw>,
    ) {
        self.committed = (self.committed + 1).max(received / 1000 - self.rng.i64(0..3));
        let object = |row: &Row| {
            let members: Vec<String> = row.iter().map(|(name, text)| format!("\"{name}\":{text}")).collect();
            format!("{{{}}}", members.join(","))
        };
        // REPLICA IDENTITY: default says nothing but the key, and that of deletes only.
        let full = chance(self.rng, 30);
        let key_only = vec![("id", key.to_string())];
        // A move tells the row as it was, or what of it the key is.
        let (op, moves) = if op == "m" { ("u", true) } else { (op, false) };
        let before = match (op, before) {
            ("u", Some(before)) if moves => {
                let key = before.iter().filter(|(name, _)| *name == "id").cloned().collect();
                object(if full { &before } else { &key })
            }
            ("u" | "d", Some(before)) if full => object(&before),
            ("d", _) if chance(self.rng, 80) => object(&key_only),
            _ => "null".to_string(),
        };
        let after = after.as_ref().map_or("null".to_string(), object);
        let micros = if chance(self.rng, 30) {
            format!(",\"ts_us\":{}", self.committed * 1000)
        } else {
            String::new()
        };
        let body = format!(
            "{{\"before\":{before},\"after\":{after},\"source\":{{\"connector\":\"postgresql\",\"name\":\"shop\",\
             \"schema\":\"public\",\"ts_ms\":{}{micros}}},\"op\":\"{op}\",\"ts_ms\":{}}}",
            self.committed,
            received / 1000
        );
        let body =
            if chance(self.rng, 20) { format!("{{\"schema\":null,\"payload\":{body}}}") } else { body };
        let name = &self.models[model].name;
        let all: Vec<usize> = (0..self.topics.len()).filter(|&i| self.topics[i] == *name).collect();
        let partition = self.partitions + all[spread(key, all.len())];
        let record = Raw { key: Some(record_key(key)), table: Some(name.clone()), ..raw(received, body) };
        self.push(partition, record.clone(), records);
        if op == "d" && chance(self.rng, 50) {
            self.push(partition, Raw { payload: Vec::new(), ..record }, records);
        }
    }

    /// Event time: on the grid, so that rows meet, and next to it.
    fn time(&mut self, received: i64) -> i64 {
        let step = self.grid.step;
        let time = match self.rng.u32(..100) {
            0..60 => (received.div_euclid(step) - self.rng.i64(0..5)) * step,
            60..75 if !self.times.is_empty() => *pick(self.rng, &self.times),
            75..82 if !self.times.is_empty() => {
                let near = *pick(self.rng, &self.times) + step * self.rng.i64(-3..4) + self.rng.i64(-1..2);
                near.min(received)
            }
            82..86 => received + self.rng.i64(0..5 * MINUTE),
            86..92 => received - self.rng.i64(0..self.theme.late),
            _ => received - self.rng.i64(0..self.theme.span / 8 + 1),
        };
        self.times.push(time);
        time
    }

    /// Values for the fields of a model.
    fn row(&mut self, model: usize, time: i64) -> Row {
        let fields = self.models[model].fields.clone();
        let mut row = Vec::new();
        for (name, kind) in fields {
            let absent = match kind {
                "id" | "number" => 0,
                "k1" | "k2" | "n" => 5,
                "created" => 0,
                "since" | "since_day" => 4,
                "until" | "until_day" => 50,
                _ => 8,
            };
            if chance(self.rng, absent) {
                if self.rng.bool() {
                    row.push((name, "null".to_string()));
                }
            } else {
                let text = match shipped::value(self.rng, kind, &row) {
                    Some(text) => text,
                    None => self.value(kind, time),
                };
                row.push((name, text));
            }
        }
        row
    }

    fn value(&mut self, kind: &str, time: i64) -> String {
        let rng = &mut *self.rng;
        let step = self.grid.step;
        match kind {
            "k1" => string(word(rng, &["a", "a", "a", "a", "b", "b", "c", "A"])),
            "k2" => string(word(rng, &["a", "a", "b", "x"])),
            "n" => rng.i64(0..3).to_string(),
            "id" | "number" => "null".to_string(),
            "region" => string(word(rng, &["eu", "us", "asia", "", "eu", "us", "mars"])),
            "qty" => match rng.u8(..12) {
                0 => "1001".to_string(),
                1 => rng.i64(-20..0).to_string(),
                _ => rng.i64(0..12).to_string(),
            },
            "price" => string(&decimal_text(rng.i128(-1_000..40_000), 2)),
            "score" => {
                word(rng, &["0.1", "0.2", "-4.75", "1e3", "3", "2.5E-3", "0.30000000000000004"]).to_string()
            }
            "flag" => rng.bool().to_string(),
            "day" => string(&date_text((time / DAY) as i32 - rng.i32(0..3))),
            "started" => string(&instant(time - rng.i64(0..20) * MINUTE)),
            "created" => string(&instant(time)),
            "since" => {
                let since = time.div_euclid(step) * step + step * rng.i64(-6..4);
                string(&instant(since))
            }
            "until" => {
                let until = time.div_euclid(step) * step + step * rng.i64(-2..12);
                string(&instant(until))
            }
            "since_day" => string(&date_text((time.div_euclid(DAY) + rng.i64(-2..2)) as i32)),
            "until_day" => string(&date_text((time.div_euclid(DAY) + rng.i64(-1..3)) as i32)),
            "team" => string(word(rng, &["a", "b", "x", "y"])),
            "weight" => rng.i64(1..9).to_string(),
            "org" => string(word(rng, &["north", "south"])),
            _ => string(&decimal_text(rng.i128(50..300), 2)),
        }
    }
}

fn raw(received: i64, payload: String) -> Raw {
    Raw { partition: 0, offset: 0, received, payload: payload.into_bytes(), key: None, table: None }
}

fn value(row: &Row, name: &str) -> Option<String> {
    row.iter().find(|(own, _)| *own == name).map(|(_, text)| text.clone())
}

/// The key of a record as connectors write it.
fn record_key(key: &str) -> Vec<u8> {
    format!("{{\"id\":{key}}}").into_bytes()
}

/// One of `count` partitions, the same for the same key.
fn spread(key: &str, count: usize) -> usize {
    key.bytes().map(usize::from).sum::<usize>() % count
}
