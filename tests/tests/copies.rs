//! Copies of events: how many count depends on nothing but when they were received.
//!
//! *In*: rows with few ids, over several partitions that move on at different speeds, in ticks of any size. *Out*: the
//! same rows count, id by id, as the oracle counts in the order of receiving. *Never*: a partition whose received times
//! go back by more than the engine allows for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use arrow::array::Array;
use contracts::Catalog;
use contracts::batch::{Decided, Kept, Partition, Positions};
use engine::Decisions;
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

fn duplicates(rig: &Rig) -> usize {
    rig.told.duplicates.lock().unwrap_or_else(PoisonError::into_inner).len()
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
        assert_eq!(duplicates(&rig), IDS as usize);
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

/// How many rows of each id count, as the oracle finds in the order of receiving.
fn wanted(yaml: &str, all: &[Vec<Raw>], now: i64) -> BTreeMap<String, u64> {
    let mut told: Vec<(Raw, i64)> = all.iter().flatten().map(|raw| (raw.clone(), now)).collect();
    told.sort_by_key(|(raw, _)| raw.received);
    let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
    for row in &Oracle::new(yaml, &envelope(), &told, now).admitted {
        *wanted.entry(row.id.clone().expect("every row has an id")).or_default() += 1;
    }
    wanted
}

#[test]
fn the_pace_of_partitions_does_not_decide_what_counts() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let dedupe = ["10m", "1h", "5h", "24h"][rng.usize(..4)];
        let yaml = contract(dedupe);
        let all = rows(&mut rng);
        let now = START + 100 * HOUR;
        let wanted = wanted(&yaml, &all, now);
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

/// Partition and offset of the rows that counted.
fn places(rig: &Rig) -> BTreeSet<(i32, i64)> {
    let kept = rig.told.kept.lock().unwrap_or_else(PoisonError::into_inner);
    let of = |kept: &Arc<Kept>| {
        let number = kept.partition.number;
        kept.batch.offsets.iter().map(move |offset| (number, *offset)).collect::<Vec<_>>()
    };
    kept.iter().flat_map(of).collect()
}

/// Sends some rows of some partition that is not yet at `until`.
fn send_some(rig: &mut Rig, rng: &mut fastrand::Rng, all: &[Vec<Raw>], next: &mut [usize], until: &[usize]) {
    let open: Vec<usize> = (0..all.len()).filter(|partition| next[*partition] < until[*partition]).collect();
    let Some(partition) = rng.choice(open) else { return };
    let to = (next[partition] + rng.usize(1..8)).min(until[partition]);
    rig.send(&all[partition][next[partition]..to].iter().collect::<Vec<_>>());
    next[partition] = to;
}

fn states(catalog: &Catalog) -> BTreeMap<String, String> {
    catalog.events.iter().map(|event| (event.head.name.clone(), event.head.state.clone())).collect()
}

/// Which copies counted is repeated, although rows come in another order.
#[test]
fn what_was_decided_before_is_decided_again() {
    let mut others = 0;
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let yaml = contract(["10m", "1h", "5h", "24h"][rng.usize(..4)]);
        let (all, now, catalog) = (rows(&mut rng), START + 100 * HOUR, catalog(&yaml).unwrap());
        let ends: Vec<usize> = all.iter().map(Vec::len).collect();
        // So far the process before has come.
        let until: Vec<usize> = ends.iter().map(|end| rng.usize(..=*end)).collect();
        let run = |rng: &mut fastrand::Rng, decisions: Option<Arc<Decisions>>, until: &[usize]| {
            let mut rig = Rig::start(&catalog, [1, 2, 4][rng.usize(..3)], 3, &[], now).unwrap();
            decisions.iter().for_each(|decisions| rig.follow(decisions));
            let mut next = vec![0; 3];
            while next != until {
                send_some(&mut rig, rng, &all, &mut next, until);
                if rng.bool() {
                    rig.published();
                }
            }
            rig.published();
            (rig, next)
        };
        let (before, _) = run(&mut rng, None, &until);
        let decided = Decided {
            from: before.published().offsets.keys().map(|partition| (partition.clone(), 0)).collect(),
            until: before.published().offsets.iter().map(|(p, at)| (p.clone(), at.next)).collect(),
            dropped: positions(&before.told.duplicates.lock().unwrap()),
            events: states(&catalog),
        };
        let decisions = Arc::new(Decisions::of_the_past(decided));
        let (alone, _) = run(&mut rng, None, &until);
        let (mut again, mut next) = run(&mut rng, Some(decisions), &until);
        assert_eq!(places(&again), places(&before), "seed {seed}");
        others += usize::from(places(&alone) != places(&before));
        while next != ends {
            send_some(&mut again, &mut rng, &all, &mut next, &ends);
        }
        again.published();
        assert_eq!(counted(&again), wanted(&yaml, &all, now), "seed {seed}");
        [before, alone, again].into_iter().for_each(Rig::stop);
    }
    assert!(others > 10, "without being told other copies count: {others}");
}

fn positions(rows: &[(Partition, i64, u32)]) -> Positions {
    let mut positions = Positions::default();
    rows.iter().for_each(|(partition, offset, part)| positions.insert(partition, *offset, *part));
    positions
}

/// An engine that takes the place of another one never counts a copy that the other one does not, while both run; both
/// together count as many as one alone.
#[test]
fn one_engine_decides_and_the_other_follows() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let yaml = contract(["10m", "1h", "5h", "24h"][rng.usize(..4)]);
        let (all, now, catalog) = (rows(&mut rng), START + 100 * HOUR, catalog(&yaml).unwrap());
        let ends: Vec<usize> = all.iter().map(Vec::len).collect();
        let start = |workers| Rig::start(&catalog, workers, 3, &[], now).unwrap();
        let (mut leader, mut follower) = (start([1, 2][rng.usize(..2)]), start([1, 2][rng.usize(..2)]));
        let decisions = Arc::new(Decisions::of_a_leader(["test".to_owned()].into()));
        let from = leader.published().offsets.keys().map(|partition| (partition.clone(), 0)).collect();
        decisions.add(Decided { from, events: states(&catalog), ..Decided::default() });
        *leader.told.follower.lock().unwrap() = Some(Arc::clone(&decisions));
        leader.published();
        follower.follow(&decisions);
        let (mut ahead, mut behind) = (vec![0; 3], vec![0; 3]);
        for _ in 0..rng.usize(0..60) {
            match rng.bool() {
                true => send_some(&mut leader, &mut rng, &all, &mut ahead, &ends),
                false => send_some(&mut follower, &mut rng, &all, &mut behind, &ends),
            }
            if rng.u8(..3) == 0 {
                follower.published();
                leader.published();
                assert!(places(&follower).is_subset(&places(&leader)), "seed {seed}");
            }
        }
        leader.published();
        // It must have read what the leader has; it may have been handed more.
        let until: Vec<usize> = ahead.iter().zip(&behind).map(|(a, b)| *a.max(b)).collect();
        while behind != until {
            send_some(&mut follower, &mut rng, &all, &mut behind, &until);
        }
        follower.published();
        assert_eq!(places(&follower), places(&leader), "seed {seed}");
        decisions.end();
        follower.published();
        while behind != ends {
            send_some(&mut follower, &mut rng, &all, &mut behind, &ends);
        }
        follower.published();
        assert_eq!(counted(&follower), wanted(&yaml, &all, now), "seed {seed}");
        [leader, follower].into_iter().for_each(Rig::stop);
    }
}
