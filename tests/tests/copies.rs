//! Copies of events: how many count depends on nothing but when they were received.
//!
//! *In*: rows with few ids, over several partitions that move on at different speeds, in ticks of any size. *Out*: the
//! same rows count, id by id, as the oracle counts in the order of receiving. *Never*: a partition whose received times
//! go back by more than the engine allows for.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use arrow::array::Array;
use tests::harness::{Rig, catalog, envelope};
use tests::oracle::Oracle;
use tests::oracle::admit::Raw;
use tests::oracle::zone::{HOUR, MINUTE};

/// 2026-03-02T00:00:00Z.
const START: i64 = 1_772_409_600_000_000;

fn contract(dedupe: &str) -> String {
    format!(
        "apiVersion: streamgauge/v1\nkind: Event\nname: visit\nversion: 1.0.0\ndedupe: {dedupe}\n\
         fields: {{ n: {{ type: int }} }}\n"
    )
}

fn row(partition: usize, offset: i64, received: i64, id: &str) -> Raw {
    let at = START / 1000;
    let payload = format!(r#"{{"type":"visit","event_id":"{id}","at":{at},"n":1}}"#).into_bytes();
    Raw { partition, offset, received, payload, key: None, table: None }
}

fn duplicates(rig: &Rig) -> u64 {
    *rig.told.duplicates.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rows that counted, by id.
fn counted(rig: &Rig) -> BTreeMap<String, u64> {
    let mut counted = BTreeMap::new();
    for kept in rig.told.kept.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        for row in 0..kept.batch.ids.len() {
            *counted.entry(kept.batch.ids.value(row).to_owned()).or_default() += 1;
        }
    }
    counted
}

/// A log that is read again brings many hours in one tick: what its first rows may repeat is not forgotten because
/// of its last.
#[test]
fn a_tick_forgets_nothing_that_its_own_rows_may_repeat() {
    const IDS: i64 = 3_000;
    let catalog = catalog(&contract("24h")).unwrap();
    for workers in [1, 2] {
        let mut rig = Rig::start(&catalog, workers, 1, &[], START + 50 * HOUR).unwrap();
        let of = |first: i64, at: i64| -> Vec<Raw> {
            (0..IDS).map(|n| row(0, first + n, START + at, &format!("e{n}"))).collect()
        };
        let (once, mut again) = (of(0, 0), of(IDS, HOUR));
        again.push(row(0, 2 * IDS, START + 45 * HOUR, "last"));
        rig.send(&once.iter().collect::<Vec<_>>());
        rig.published();
        rig.send(&again.iter().collect::<Vec<_>>());
        rig.published();
        assert_eq!(duplicates(&rig), IDS as u64);
        rig.stop();
    }
}

/// Rows of three partitions, each nearly in the order of receiving.
fn rows(rng: &mut fastrand::Rng) -> Vec<Vec<Raw>> {
    let of = |partition: usize, rng: &mut fastrand::Rng| {
        let mut at = START + rng.i64(0..HOUR);
        let rows = (0..rng.i64(20..80)).map(|offset| {
            at += rng.i64(0..40 * MINUTE);
            let id = format!("e{}", rng.u8(..12));
            row(partition, offset, at - rng.i64(0..5 * MINUTE), &id)
        });
        rows.collect::<Vec<Raw>>()
    };
    (0..3).map(|partition| of(partition, rng)).collect()
}

#[test]
fn the_pace_of_partitions_does_not_decide_what_counts() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let dedupe = ["10m", "1h", "5h", "24h"][rng.usize(..4)];
        let yaml = contract(dedupe);
        let all = rows(&mut rng);
        let now = START + 100 * HOUR;
        let mut told: Vec<(Raw, i64)> = all.iter().flatten().map(|raw| (raw.clone(), now)).collect();
        told.sort_by_key(|(raw, _)| raw.received);
        let oracle = Oracle::new(&yaml, &envelope(), &told, now);
        let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
        for row in &oracle.admitted {
            *wanted.entry(row.id.clone().expect("every row has an id")).or_default() += 1;
        }
        let workers = [1, 2, 4][(seed % 3) as usize];
        let mut rig = Rig::start(&catalog(&yaml).unwrap(), workers, 3, &[], now).unwrap();
        let mut rest: Vec<&[Raw]> = all.iter().map(Vec::as_slice).collect();
        while let Some(slowest) = rest.iter().flat_map(|rows| rows.iter()).map(|raw| raw.received).min() {
            let partition = rng.usize(..3);
            // One partition may be far ahead of the others, and come in ticks of many hours.
            let most = [1, 4, 30][rng.usize(..3)].min(rest[partition].len());
            let (sent, left) = rest[partition].split_at(most);
            rig.send(&sent.iter().collect::<Vec<_>>());
            rest[partition] = left;
            match rng.u8(..4) {
                0 => rig.settle(slowest - 6 * MINUTE),
                // Ages a table each, so that many are.
                1 => (0..rng.usize(..40)).for_each(|_| {
                    rig.published();
                }),
                _ => {}
            }
        }
        rig.published();
        assert_eq!(counted(&rig), wanted, "seed {seed}, dedupe {dedupe}");
        rig.stop();
    }
}
