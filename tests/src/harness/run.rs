//! A random case through the engine, held against the oracle.
//!
//! *In*: a case and a road: workers, batch cuts, interleaving. *Out*: the differences. *Never*: a
//! difference that depends on timing, but for an engine that hangs; roads are seeded.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::Duration;

use crate::generate::twist::{Twist, twist};
use crate::generate::{Case, Segment, relates};
use crate::oracle::Oracle;
use crate::oracle::admit::Raw;
use crate::oracle::zone::MINUTE;

use super::compare::{compare, compare_far, reasons};
use super::{Rig, Saved, catalog, envelope, second};

/// How the records of a case reach the engine.
#[derive(Debug, Clone, Copy)]
pub struct Road {
    /// Timely workers.
    pub workers: usize,
    /// Seed of cuts and interleaving.
    pub seed: u64,
    /// Whether partitions interleave differently than they arrived.
    pub shuffle: bool,
    /// Whether answers are compared after every segment, or only after the last.
    pub every: bool,
    /// The engine starts when this segment begins; what came before reaches it from the log.
    pub resume: usize,
    /// How the facts are told.
    pub twist: Twist,
    /// Engines are lost on the way; others, with as many workers as chance will have it, go on from their last
    /// checkpoint.
    pub lost: bool,
}

/// The roads of a case: the worker counts 1, 2 and 4 take turns.
pub fn roads(seed: u64) -> Vec<Road> {
    let counts = [[1, 2], [2, 4], [4, 1]][(seed % 3) as usize];
    let straight = Road {
        workers: counts[0],
        seed,
        shuffle: false,
        every: true,
        resume: 0,
        twist: Twist::Plain,
        lost: false,
    };
    let other = Road { workers: counts[1], seed: seed ^ 0x5eed, shuffle: true, every: false, ..straight };
    let lost = Road { workers: 1 + (seed / 3 % 4) as usize, seed: seed ^ 0x1057, lost: true, ..straight };
    let mut roads = vec![straight, other];
    if relates(seed) {
        // Rows that relate must not depend on when an engine learned of them, nor on how often.
        roads[1] = Road { resume: (seed / 2 % 4) as usize, twist: Twist::of(seed), ..other };
    }
    // Numbers of one kind of case may all be odd.
    if (seed / 16).is_multiple_of(2) {
        roads.push(lost);
    }
    roads
}

/// Every way to tell a case: each twist it has and a restart, with each number of workers.
pub fn all_roads(seed: u64) -> Vec<Road> {
    let [straight, other] = [0, 1].map(|i| roads(seed)[i]);
    let mut all = Vec::new();
    for workers in [1, 2, 4] {
        all.push(Road { workers, ..straight });
        all.push(Road { workers, twist: Twist::Plain, resume: 0, ..other });
        all.push(Road { workers, lost: true, ..straight });
        if !relates(seed) {
            continue;
        }
        for (twist, resume) in [(Twist::Plain, 1), (Twist::Plain, 2), (Twist::Doubled, 0), (Twist::Noise, 3)]
        {
            all.push(Road { workers, twist, resume, ..other });
        }
        all.push(Road { workers, twist: Twist::Reversed, shuffle: false, ..other });
    }
    all
}

/// A case takes milliseconds; an engine that has not answered by then never will, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// All differences of a case on one road; empty when engine and oracle agree. A panic and an engine
/// that hangs are differences too.
pub fn differences(case: &Case, road: Road) -> Vec<String> {
    let (done, answer) = crossbeam_channel::bounded(1);
    let case = case.clone();
    let walk = move || {
        let found = catch_unwind(AssertUnwindSafe(|| run(&case, road)));
        let _ = done.send(match found {
            Ok(Ok(found)) => found,
            Ok(Err(message)) => vec![message],
            Err(panic) => vec![format!("panic: {}", panic_text(panic.as_ref()))],
        });
    };
    let thread = std::thread::Builder::new().name("case".to_string()).spawn(walk);
    thread.expect("a thread can be started");
    answer.recv_timeout(PATIENCE).unwrap_or_else(|_| vec![format!("hangs with {road:?}")])
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_string())).unwrap_or_default()
}

fn run(case: &Case, road: Road) -> Result<Vec<String>, String> {
    let catalog = catalog(&case.yaml)?;
    let case = twist(case, road.twist);
    let resume = road.resume.min(case.segments.iter().filter(|segment| !segment.far).count().max(1) - 1);
    let start = if resume == 0 { case.start } else { case.segments[resume].clock };
    let mut rig = Rig::start(&catalog, road.workers, case.partitions, &case.topics, start)?;
    let mut rng = fastrand::Rng::with_seed(road.seed);
    let mut arrived: Vec<(Raw, i64)> = Vec::new();
    let mut found = Vec::new();
    for (i, segment) in case.segments.iter().enumerate() {
        if segment.far {
            // What relates is let go once it is not retained: it must have met before, events ahead of the
            // clock included.
            rig.published();
            rig.clock(case.segments[i.max(1) - 1].clock.max(start) + 6 * MINUTE);
            rig.published();
        }
        let clock = segment.clock.max(start);
        rig.clock(clock);
        rig.expect(&segment.records);
        let chunks = chunks(segment, road, &mut rng);
        rig = match road.lost {
            true => lose(rig, &arrived, &chunks, clock, &mut rng)?,
            false => {
                chunks.iter().for_each(|chunk| rig.send(chunk));
                rig
            }
        };
        // Records of the segments to come may have been received before an engine that starts late did.
        rig.settle(segment.clock);
        arrived.extend(segment.records.iter().map(|raw| (raw.clone(), clock)));
        if i < resume || !road.every && i + 1 < case.segments.len() {
            continue;
        }
        let published = rig.published();
        let mut oracle = Oracle::new(&case.yaml, &envelope(), &arrived, segment.clock);
        found = if segment.far {
            compare_far(&oracle, &published)
        } else {
            compare(&mut oracle, &published, &segment.instants)
        };
        found.extend(reasons(&oracle, &rig.told));
        let questions = second::questions(case.seed);
        let is_last = case.segments[i + 1..].iter().all(|segment| segment.far);
        // What was kept is the harness's own where engines are lost.
        if found.is_empty()
            && !road.lost
            && questions > 0
            && !segment.far
            && (is_last || questions == usize::MAX)
        {
            let kept = rig.told.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut few = fastrand::Rng::with_seed(road.seed);
            found = second::differences(&published, &kept, &segment.instants, (questions, &mut few));
        }
        if !found.is_empty() {
            found.insert(0, format!("after segment {i} with {road:?}"));
            break;
        }
    }
    rig.stop();
    Ok(found)
}

/// Sends chunks; now and then the state is kept, and the engine lost: another one goes on from there.
fn lose(
    mut rig: Rig,
    arrived: &[(Raw, i64)],
    chunks: &[Vec<&Raw>],
    clock: i64,
    rng: &mut fastrand::Rng,
) -> Result<Rig, String> {
    let mut saved: Option<(usize, Saved)> = None;
    let mut next = 0;
    while next <= chunks.len() {
        if rng.u8(..4) == 0 {
            saved = Some((next, rig.checkpoint()?));
        }
        if rng.u8(..4) == 0
            && let Some((at, kept)) = saved.take()
        {
            let before: Vec<&Raw> =
                arrived.iter().map(|(raw, _)| raw).chain(chunks[..at].iter().flatten().copied()).collect();
            rig = rig.restart(rng.usize(1..=4), kept, &before)?;
            rig.clock(clock);
            next = at;
        }
        if let Some(chunk) = chunks.get(next) {
            rig.send(chunk);
        }
        next += 1;
    }
    Ok(rig)
}

/// The records of a segment in chunks of one partition each, in a random order of partitions that
/// keeps the order within each.
fn chunks<'a>(segment: &'a Segment, road: Road, rng: &mut fastrand::Rng) -> Vec<Vec<&'a Raw>> {
    let mut order: Vec<&Raw> = segment.records.iter().collect();
    if road.shuffle {
        let mut slots: Vec<usize> = order.iter().map(|raw| raw.partition).collect();
        rng.shuffle(&mut slots);
        let mut rest: Vec<&Raw> = order.clone();
        order = slots
            .into_iter()
            .map(|slot| {
                let at = rest.iter().position(|raw| raw.partition == slot).expect("one record per slot");
                rest.remove(at)
            })
            .collect();
    }
    let most = *[1, 3, 100].get(rng.usize(..3)).expect("three sizes");
    let mut chunks: Vec<Vec<&Raw>> = Vec::new();
    for raw in order {
        match chunks.last_mut() {
            Some(chunk) if chunk[0].partition == raw.partition && chunk.len() < most => chunk.push(raw),
            _ => chunks.push(vec![raw]),
        }
    }
    chunks
}
