//! Many cases, on all cores, one line from time to time.
//!
//! *In*: seeds, what to do with each. *Out*: the seeds that failed, in order. *Never*: a case that is passed over;
//! whoever stops a run is told where to go on.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::generate::{Case, FRESH, LATER, RELATED, RICH, SEQUENCED, SHIPPED, case};

/// Between two lines of a run.
const LINE: Duration = Duration::from_secs(10);

/// What is to be done.
pub struct Many<'a> {
    /// The seeds, in order.
    pub seeds: &'a [u64],
    /// Seeds in front that are golden: a run that goes on later does without them.
    pub golden: usize,
    /// The number (`START`) of the first seed behind them.
    pub start: u64,
    /// Failures after which the run gives up.
    pub patience: usize,
}

/// Where a run is.
#[derive(Default)]
struct Done {
    /// All seeds before this one are done.
    upto: usize,
    /// Done beyond it.
    beyond: BTreeSet<usize>,
    /// Places of the seeds that failed.
    failed: BTreeSet<usize>,
    /// When the last line was written.
    told: Option<Instant>,
}

impl Done {
    fn note(&mut self, index: usize, good: bool) {
        self.beyond.insert(index);
        while self.beyond.remove(&self.upto) {
            self.upto += 1;
        }
        if !good {
            self.failed.insert(index);
        }
    }
}

/// A number of the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Walks `count` random cases of each kind, from number `from` on, or the one that `SEED` names; then says what they were.
///
/// # Panics
/// Some fail.
pub fn each_kind(
    count: u64,
    from: u64,
    walk: impl Fn(&Case, &mut fastrand::Rng) -> Result<(), String>,
    told: impl FnOnce() -> String,
) {
    let kinds = [0, RICH, RELATED, SHIPPED, SEQUENCED, FRESH, LATER];
    let seeds = (from..from + count).flat_map(|n| kinds.map(|kind| kind + n));
    let seeds: Vec<u64> = number("SEED").map_or_else(|| seeds.collect(), |seed| vec![seed]);
    let mut failed: BTreeMap<u64, String> = BTreeMap::new();
    for seed in seeds {
        let mut rng = fastrand::Rng::with_seed(seed);
        let walked = catch_unwind(AssertUnwindSafe(|| walk(&case(seed), &mut rng)));
        if let Err(report) = walked.unwrap_or_else(|_| Err("a panic".to_owned())) {
            failed.insert(seed, report);
        }
    }
    eprintln!("{}", told());
    for (seed, report) in failed.iter().take(3) {
        eprintln!("seed {seed}: {report}");
    }
    assert!(failed.is_empty(), "{} seeds fail: {:?}", failed.len(), failed.keys());
}

impl Many<'_> {
    /// Runs `check` on each seed, `jobs` at a time. `Err`: the case fails, for a reason that was told.
    pub fn run(&self, jobs: usize, check: impl Fn(u64) -> Result<(), ()> + Sync) -> Vec<u64> {
        let (next, done, began) = (AtomicUsize::new(0), Mutex::new(Done::default()), Instant::now());
        let work = || loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(seed) = self.seeds.get(index) else { break };
            let good = check(*seed).is_ok();
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.note(index, good);
            if done.told.unwrap_or(began).elapsed() >= LINE {
                done.told = Some(Instant::now());
                eprintln!("{}", self.line(&done, began));
            }
            if done.failed.len() >= self.patience {
                next.store(self.seeds.len(), Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            (0..jobs.max(1)).for_each(|_| drop(scope.spawn(work)));
        });
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        eprintln!("{}", self.line(&done, began));
        done.failed.into_iter().map(|index| self.seeds[index]).collect()
    }

    /// How far, how fast, how long, and where to go on.
    fn line(&self, done: &Done, began: Instant) -> String {
        let all = self.seeds.len();
        let cases = done.upto + done.beyond.len();
        let speed = cases as f64 / began.elapsed().as_secs_f64().max(0.001);
        let left = Duration::from_secs_f64((all - cases) as f64 / speed.max(0.001));
        let resume = self.start + done.upto.saturating_sub(self.golden) as u64;
        format!(
            "{cases} of {all} cases, {} failed, {speed:.1} a second, {} minutes left; START={resume} goes on from here",
            done.failed.len(),
            left.as_secs().div_ceil(60),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_come_in_order_and_all_of_them() {
        let seeds: Vec<u64> = (100..400).collect();
        let many = Many { seeds: &seeds, golden: 0, start: 100, patience: usize::MAX };
        let failed = many.run(3, |seed| if seed % 50 == 0 { Err(()) } else { Ok(()) });
        assert_eq!(failed, [100, 150, 200, 250, 300, 350]);
        let many = Many { patience: 2, ..many };
        assert_eq!(many.run(1, |seed| if seed % 50 == 0 { Err(()) } else { Ok(()) }), [100, 150]);
    }

    #[test]
    fn a_run_goes_on_where_all_before_is_done() {
        let seeds: Vec<u64> = vec![7, 9, 1000, 1001, 1002, 1003];
        let many = Many { seeds: &seeds, golden: 2, start: 1000, patience: 1 };
        let mut done = Done::default();
        [0, 1, 2, 4].into_iter().for_each(|index| done.note(index, true));
        assert!(
            many.line(&done, Instant::now()).contains("START=1001 "),
            "{}",
            many.line(&done, Instant::now())
        );
        done.note(3, false);
        assert!(
            many.line(&done, Instant::now()).contains("1 failed"),
            "{}",
            many.line(&done, Instant::now())
        );
        assert!(
            many.line(&done, Instant::now()).contains("START=1003 "),
            "{}",
            many.line(&done, Instant::now())
        );
    }
}
