//! Results of metrics as the lake gathers them: after every telling the newest row of each window that is over is what the
//! oracle says as of its end, and what an engine tells that was never asked before.
//!
//! *In*: random cases, told in pieces; engines that are lost, go back to a checkpoint, go over to other contracts. *Out*:
//! agreement. *Never*: a telling whose time decides what the rows are.

use std::sync::atomic::{AtomicUsize, Ordering};

use tests::generate::{Case, Segment};
use tests::harness::change::others;
use tests::harness::many::{each_kind, number};
use tests::harness::results::Ledger;
use tests::harness::{Rig, Saved, catalog, envelope};
use tests::oracle::Oracle;
use tests::oracle::admit::Raw;

/// Rows told, restarts, changes of contracts.
static DONE: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

fn done(what: usize, more: usize) {
    DONE[what].fetch_add(more, Ordering::Relaxed);
}

fn workers(rng: &mut fastrand::Rng) -> usize {
    [1, 2, 4][rng.usize(..3)]
}

/// Sends records one by one; tells, keeps the state, goes back to it as chance will have it.
fn send(
    mut rig: Rig,
    (before, records): (&[&Raw], &[Raw]),
    clock: i64,
    ledger: &mut Ledger,
    rng: &mut fastrand::Rng,
) -> Result<Rig, String> {
    let mut saved: Option<(usize, Saved)> = None;
    let (mut next, mut most) = (0, 0);
    while next < records.len() {
        rig.send(&[&records[next]]);
        next += 1;
        most = most.max(next);
        match rng.u8(..24) {
            // Nothing is told that the lake did not know already: it has read everything up to there again.
            0 | 1 if next == most => ledger.tell(&rig.published()),
            2 => saved = Some((next, rig.checkpoint()?)),
            3 => {
                let Some((at, kept)) = saved.take() else { continue };
                let known: Vec<&Raw> = before.iter().copied().chain(&records[..at]).collect();
                rig = rig.restart(workers(rng), kept, &known)?;
                rig.clock(clock);
                ledger.restart();
                next = at;
                done(1, 1);
            }
            _ => {}
        }
    }
    Ok(rig)
}

fn walk(case: &Case, rng: &mut fastrand::Rng) -> Result<(), String> {
    let segments: Vec<&Segment> = case.segments.iter().filter(|segment| !segment.far).collect();
    // Now and then other contracts come first.
    let change = (rng.u8(..3) == 0).then(|| rng.usize(..segments.len()));
    let start = change.map_or(case.start, |change| segments[change].clock);
    let first = change.map_or_else(|| case.yaml.clone(), |_| others(&case.yaml, rng));
    let told = |what: &str| format!("{what}, change in {change:?} from\n{first}\nto\n{}", case.yaml);
    let (old, new) = (catalog(&first)?, catalog(&case.yaml)?);
    let mut rig = Rig::start(&old, workers(rng), case.partitions, &case.topics, start)?;
    let mut ledger = Ledger::default();
    let mut arrived: Vec<(Raw, i64)> = Vec::new();
    let last = segments.len() - 1;
    for (number, segment) in segments.iter().enumerate() {
        let mut clock = segment.clock.max(start);
        rig.clock(clock);
        if rng.bool() {
            ledger.tell(&rig.published());
        }
        rig.expect(&segment.records);
        let before: Vec<Raw> = arrived.iter().map(|(raw, _)| raw.clone()).collect();
        let before: Vec<&Raw> = before.iter().collect();
        rig = send(rig, (&before, &segment.records), clock, &mut ledger, rng)?;
        rig.settle(segment.clock);
        arrived.extend(segment.records.iter().map(|raw| (raw.clone(), clock)));
        if change == Some(number) {
            let before: Vec<&Raw> = arrived.iter().map(|(raw, _)| raw).collect();
            let beyond = segments.get(number + 1).map(|next| next.records.as_slice()).unwrap_or_default();
            ledger.tell(&rig.published());
            rig = rig.change(&new, workers(rng), &before, beyond).map_err(|error| told(&error))?;
            ledger.restart();
            done(2, 1);
        }
        if change.is_some_and(|change| number < change) {
            continue;
        }
        let mut check = |rig: &Rig, clock: i64, what: &str| {
            let published = rig.published();
            ledger.tell(&published);
            let mut oracle = Oracle::new(&case.yaml, &envelope(), &arrived, clock);
            let found = ledger.differences(&mut oracle, &published, rng);
            if found.is_empty() { Ok(()) } else { Err(told(&format!("{what}:\n{}", found.join("\n")))) }
        };
        check(&rig, clock, &format!("after segment {number}"))?;
        if number == last {
            // The clock alone ends windows.
            for hours in [1, 30] {
                clock += hours * 3_600_000_000;
                rig.clock(clock);
                check(&rig, clock, &format!("{hours} h later"))?;
            }
        }
    }
    done(0, ledger.len());
    rig.stop();
    Ok(())
}

#[test]
fn rows_are_what_the_oracle_says_whenever_they_are_told() {
    let count = || DONE.each_ref().map(|counter| counter.load(Ordering::Relaxed));
    each_kind(number("RESULTS").unwrap_or(6), number("START").unwrap_or(6_000), walk, || {
        let [rows, restarts, changes] = count();
        format!(
            "{rows} rows of windows that are over, {restarts} engines lost, {changes} changes of contracts"
        )
    });
    assert!(count()[0] > 0);
}
