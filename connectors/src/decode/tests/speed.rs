//! How fast W1 is decoded, beside a typed parse of all its fields by sonic-rs.
//!
//! `cargo test --release -p connectors --lib decode::tests::speed -- --ignored --nocapture`; `W1_EVENTS`
//! says how many events, 400,000 unless set.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use contracts::Catalog;
use contracts::catalog::{Checks, Event, Field};
use contracts::value::FieldType;
use serde::Deserialize;

use super::helper::*;
use crate::decode::{DecodeSpec, Decoder, Envelope};

/// All fields, borrowed: the limit program's struct.
#[derive(Deserialize)]
#[allow(dead_code)]
struct Typed<'a> {
    event_id: &'a str,
    event_type: &'a str,
    user_id: &'a str,
    region: &'a str,
    status: &'a str,
    amount: f64,
    currency: &'a str,
    ts: i64,
    created_at: &'a str,
    items: i64,
    source: &'a str,
}

struct Random(u64);

impl Random {
    fn n(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.n()) * u128::from(n)) >> 64) as u64
    }
}

const REGIONS: [&str; 20] = [
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "ca-central-1",
    "sa-east-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "eu-central-1",
    "eu-north-1",
    "eu-south-1",
    "me-south-1",
    "af-south-1",
    "ap-south-1",
    "ap-east-1",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-southeast-1",
    "ap-southeast-2",
];
const STATUS: [&str; 5] = ["pending", "confirmed", "shipped", "delivered", "cancelled"];
const TYPES: [&str; 3] = ["order.created", "order.updated", "order.paid"];
const CURRENCIES: [&str; 4] = ["USD", "EUR", "GBP", "JPY"];

/// The first `events` lines of W1 (seed 42).
fn w1(events: i64) -> String {
    let mut r = Random(42u64.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let t0 = 1_767_225_600_000i64;
    let mut text = String::new();
    for i in 0..events {
        let ts = t0.max(t0 + i - r.below(2000) as i64);
        let (id1, id2) = (r.n(), r.n());
        let user = r.below(10_000);
        let region = REGIONS[r.below(20) as usize];
        let bad = r.below(100);
        let status = if bad == 1 { "unknown" } else { STATUS[r.below(5) as usize] };
        let cents = r.below(49_900) + 100;
        let sign = if bad == 0 { "-" } else { "" };
        let kind = TYPES[r.below(3) as usize];
        let currency = CURRENCIES[r.below(4) as usize];
        let items = r.below(5) + 1;
        let at = jiff::Timestamp::from_millisecond(ts).unwrap();
        writeln!(
            text,
            "{{\"event_id\":\"{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}\",\"event_type\":\"{kind}\",\"user_id\":\"USR-{user:05}\",\"region\":\"{region}\",\"status\":\"{status}\",\"amount\":{sign}{}.{:02},\"currency\":\"{currency}\",\"ts\":{ts},\"created_at\":\"{at:.3}\",\"items\":{items},\"source\":\"checkout-service\"}}",
            id1 >> 32, (id1 >> 16) & 0xffff, id1 & 0xfff, (id2 >> 48) | 0x8000, id2 & 0xffff_ffff_ffff, cents / 100, cents % 100
        )
        .unwrap();
    }
    text
}

fn catalog(fields: Vec<Field>, ids: bool) -> Arc<Catalog> {
    let mut names = TYPES;
    names.sort_unstable();
    let of = |name: &str| {
        let mut event: Event = (*event(name, Some("ts"), None, fields.clone())).clone();
        event.needs_id = ids;
        Arc::new(event)
    };
    Arc::new(Catalog { events: names.iter().map(|name| of(name)).collect(), ..Catalog::default() })
}

fn four() -> Vec<Field> {
    let allowed = Checks { one_of: texts(&[&STATUS[..], &["unknown"]].concat()), ..Checks::default() };
    vec![
        field("region", FieldType::String).dictionary(),
        field("status", FieldType::String).dictionary().checks(allowed),
        field("amount", money()),
        field("ts", FieldType::Timestamp),
    ]
}

fn eleven() -> Vec<Field> {
    let mut fields = four();
    for name in ["event_id", "user_id"] {
        fields.push(field(name, FieldType::String));
    }
    for name in ["event_type", "currency", "source"] {
        fields.push(field(name, FieldType::String).dictionary());
    }
    fields.push(field("created_at", FieldType::Timestamp));
    fields.push(field("items", FieldType::Int));
    fields
}

fn decoder(fields: Vec<Field>, ids: bool) -> Decoder {
    let path = |key: &str| Some(vec![key.to_owned()]);
    let envelope = Envelope { id: path("event_id"), event_type: path("event_type"), ..Envelope::default() };
    Decoder::new(catalog(fields, ids), DecodeSpec { envelope, ..DecodeSpec::default() })
}

/// Nanoseconds of CPU per event: other processes do not count.
fn timed(events: i64, mut run: impl FnMut()) -> f64 {
    let start = on_cpu();
    run();
    (on_cpu() - start) / events as f64
}

/// Nanoseconds this thread has run.
fn on_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap()
}

/// A file cut into chunks, and the lines of each.
type Cut = Vec<(Bytes, Vec<std::ops::Range<usize>>)>;

fn cut(text: &str) -> Cut {
    const PER_CHUNK: usize = 4096;
    let lines: Vec<&str> = text.lines().collect();
    let chunk = |lines: &[&str]| {
        let mut at = 0;
        let ranges = lines.iter().map(|line| {
            at += line.len() + 1;
            at - line.len() - 1..at - 1
        });
        let ranges = ranges.collect();
        (Bytes::from(lines.join("\n")), ranges)
    };
    lines.chunks(PER_CHUNK).map(chunk).collect()
}

fn decode_all(decoder: &mut Decoder, chunks: &Cut, shared: bool) -> u64 {
    let mut rows = 0;
    for (buffer, lines) in chunks {
        if shared {
            decoder.share(buffer);
        }
        for (offset, line) in lines.iter().enumerate() {
            if shared {
                decoder.push_shared(buffer, line.clone(), offset as i64, i64::MAX);
            } else {
                push_at(decoder, &buffer[line.clone()], offset as i64);
            }
        }
        let chunk = decoder.finish(&partition(), 0, None);
        assert_eq!(chunk.refused.len(), 0, "{:?}", chunk.refused.first());
        rows += black_box(chunk).received;
    }
    rows
}

fn push_at(decoder: &mut Decoder, value: &[u8], offset: i64) {
    decoder.push(crate::decode::Record { value, offset, received: i64::MAX, headers: &[] });
}

#[test]
#[ignore = "measures; run in release"]
fn w1_against_sonic() {
    let events = std::env::var("W1_EVENTS").map_or(400_000, |n| n.parse().unwrap());
    let text = w1(events);
    let chunks = cut(&text);
    let mut best = [f64::MAX; 6];
    for _ in 0..7 {
        let sonic = timed(events, || {
            for line in text.lines() {
                let event: Typed<'_> = sonic_rs::from_str(line).unwrap();
                black_box(event);
            }
        });
        let mut runs = [sonic, 0.0, 0.0, 0.0, 0.0, 0.0];
        let cases = [
            (four(), false, true),
            (four(), true, true),
            (four(), true, false),
            (eleven(), true, true),
            (eleven(), true, false),
        ];
        for (i, (fields, ids, shared)) in cases.into_iter().enumerate() {
            let mut decoder = decoder(fields, ids);
            runs[i + 1] =
                timed(events, || assert_eq!(decode_all(&mut decoder, &chunks, shared), events as u64));
        }
        for (best, run) in best.iter_mut().zip(runs) {
            *best = best.min(run);
        }
    }
    let names = [
        "sonic-rs, 11 fields typed",
        "4 fields, shared",
        "4 fields + ids, shared",
        "4 fields + ids, copied",
        "11 fields + ids, shared",
        "11 fields + ids, copied",
    ];
    for (name, ns) in names.iter().zip(best) {
        println!("{name:28} {ns:7.1} ns/event {:5.2}x", best[0] / ns);
    }
}

#[test]
fn the_generator_is_w1() {
    let first = r#"{"event_id":"18d78b06-255e-4a1f-88c8-3129f00f4f29","event_type":"order.paid","user_id":"USR-05067","region":"eu-west-1","status":"delivered","amount":332.96,"currency":"GBP","ts":1767225600000,"created_at":"2026-01-01T00:00:00.000Z","items":1,"source":"checkout-service"}"#;
    let text = w1(1000);
    assert_eq!(text.lines().next(), Some(first));
    let mut decoder = decoder(eleven(), true);
    assert_eq!(decode_all(&mut decoder, &cut(&text), true), 1000);
}
