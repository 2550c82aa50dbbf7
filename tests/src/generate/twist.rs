//! The same facts told differently.
//!
//! *In*: a case of rows that relate. *Out*: a case whose last answers must be the same. *Never*: records
//! of a key in another order.

use std::collections::BTreeSet;

use super::{Case, Segment};
use crate::harness::envelope;
use crate::oracle::Oracle;
use crate::oracle::admit::Raw;
use crate::oracle::zone::HOUR;

/// How a case is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twist {
    /// As it happened.
    Plain,
    /// Every record again, right behind.
    Doubled,
    /// After every version of a row its end, and the version again.
    Noise,
    /// Events that are no versions of anything in reverse order, where all of it is within reach of dedupe.
    Reversed,
}

impl Twist {
    /// One of them, by seed.
    pub fn of(seed: u64) -> Twist {
        [Twist::Plain, Twist::Doubled, Twist::Plain, Twist::Noise, Twist::Reversed][(seed % 5) as usize]
    }
}

/// The case, twisted.
pub fn twist(case: &Case, twist: Twist) -> Case {
    // The end of a row after a version that was refused would end the one before.
    let counts = if twist == Twist::Noise { admitted(case) } else { BTreeSet::new() };
    let segments = case.segments.iter().map(|segment| {
        let records = match twist {
            Twist::Plain => return segment.clone(),
            Twist::Doubled => {
                segment.records.iter().flat_map(|raw| spaced(raw, vec![raw.clone(), raw.clone()])).collect()
            }
            Twist::Noise => {
                let told = |raw: &Raw| {
                    if counts.contains(&(raw.partition, raw.offset)) { again(raw) } else { vec![raw.clone()] }
                };
                segment.records.iter().flat_map(|raw| spaced(raw, told(raw))).collect()
            }
            Twist::Reversed => reversed(case, segment),
        };
        Segment { records, ..segment.clone() }
    });
    Case { segments: segments.collect(), ..case.clone() }
}

/// Partition and offset of the records that count.
fn admitted(case: &Case) -> BTreeSet<(usize, i64)> {
    let records = case.segments.iter().flat_map(|s| s.records.iter().map(|raw| (raw.clone(), s.clock)));
    let now = case.segments.last().map_or(case.start, |segment| segment.clock);
    let oracle = Oracle::new(&case.yaml, &envelope(), &records.collect::<Vec<_>>(), now);
    oracle.admitted.iter().map(|row| (row.place.0, row.place.1)).collect()
}

/// Records in place of one: offsets leave room for three.
fn spaced(raw: &Raw, records: Vec<Raw>) -> Vec<Raw> {
    let at = |(i, record): (usize, Raw)| Raw { offset: raw.offset * 3 + i as i64, ..record };
    records.into_iter().enumerate().map(at).collect()
}

/// An upsert, its end, the upsert again; anything else as it is.
fn again(raw: &Raw) -> Vec<Raw> {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(&raw.payload) else {
        return vec![raw.clone()];
    };
    let body = if json["payload"].is_object() { &json["payload"] } else { &json };
    let end = match &raw.table {
        // An update of the key ends another row, too.
        Some(_) if body["after"].is_object() && body["before"].is_null() => {
            let source = &body["source"];
            format!("{{\"before\":null,\"after\":null,\"source\":{source},\"op\":\"d\"}}")
        }
        None if body["type"] == crate::oracle::change::PLAIN && body["op"].is_null() => {
            let (at, id) = (&body["at"], &body["id"]);
            format!("{{\"type\":\"{}\",\"at\":{at},\"id\":{id},\"op\":\"d\"}}", crate::oracle::change::PLAIN)
        }
        _ => return vec![raw.clone()],
    };
    vec![raw.clone(), Raw { payload: end.into_bytes(), ..raw.clone() }, raw.clone()]
}

/// Within a partition, the events that are no versions change places.
fn reversed(case: &Case, segment: &Segment) -> Vec<Raw> {
    let all = case.segments.iter().flat_map(|s| &s.records).map(|raw| raw.received);
    let (Some(first), Some(last)) = (all.clone().min(), all.max()) else { return Vec::new() };
    let mut records = segment.records.clone();
    if last - first > 2 * HOUR {
        return records;
    }
    let free = |raw: &Raw| {
        let json = serde_json::from_slice::<serde_json::Value>(&raw.payload).unwrap_or_default();
        raw.table.is_none() && json["type"].as_str().is_some_and(|kind| kind.starts_with("dev."))
    };
    for partition in 0..case.partitions {
        let places: Vec<usize> =
            (0..records.len()).filter(|&i| records[i].partition == partition && free(&records[i])).collect();
        let told: Vec<Raw> = places.iter().rev().map(|&i| records[i].clone()).collect();
        for (&place, raw) in places.iter().zip(told) {
            records[place] = Raw { offset: records[place].offset, ..raw };
        }
    }
    records
}
