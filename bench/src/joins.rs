//! Joins: our step beside differential-dataflow's join and reduce, on the same rows in the same ticks.
//!
//! *In*: how many rows. *Out*: rows per CPU-second of each, and their quotient. *Never*: a round in which the two
//! disagree.
//!
//! The work: for each change the first deployment of its key at most 90 days later (`order: after, pick: first`),
//! rows in random order, 1,000 rows a tick. differential-dataflow gets interned 64-bit keys and plain integers;
//! our step gets keys and cells as contracts make them.

use std::sync::Arc;
use std::time::Duration;

use contracts::catalog::{Missing, Order, Pick, Step};
use contracts::value::Value;
use differential_dataflow::input::InputSession;
use operators::fold::panes::Key;
use operators::relate::step::{Input, StepState};
use operators::relate::{PartRow, Row};
use serde::{Deserialize, Serialize};
use timely::dataflow::ProbeHandle;

use crate::process;
use crate::{Error, Machine, Spread};

/// Rows per tick.
const TICK: usize = 1_000;
/// 90 days in microseconds.
const WITHIN: i64 = 90 * 86_400_000_000;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rows in all, both sides.
    pub rows: usize,
    /// Rounds; each runs both.
    pub rounds: usize,
    /// Seed of the rows.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// Rows in all.
    pub rows: usize,
    /// Joined rows at the end, the same for both.
    pub joined: i64,
    /// Rows per CPU-second of our step.
    pub ours: Spread,
    /// Rows per CPU-second of differential-dataflow.
    pub differential: Spread,
    /// The quotient, round by round.
    pub ratio: Spread,
    /// CPU time of our step at 100,000 rows a second, as a share of one core.
    pub share: f64,
    /// Resident bytes per row held; of our step and of a hash map with the same rows by key.
    pub bytes_per_row: (u64, u64),
}

/// One row of the workload.
#[derive(Debug, Clone, Copy)]
struct Given {
    left: bool,
    key: u64,
    time: i64,
}

fn rows(options: &Options) -> Vec<Given> {
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let keys = (options.rows / 3).max(1) as u64;
    let row = |_| Given { left: rng.bool(), key: rng.u64(..keys), time: rng.i64(0..2 * WITHIN) };
    (0..options.rows).map(row).collect()
}

/// Runs both programs, round by round.
///
/// # Errors
/// When the two disagree.
pub fn run(options: &Options) -> Result<Report, Error> {
    let rows = rows(options);
    // First, while the memory of the process holds nothing that could be used again.
    let bytes_per_row = bytes_per_row(&rows);
    let (mut ours, mut differential, mut ratio, mut joined) = (vec![], vec![], vec![], 0);
    let per_second = |cpu: Duration| options.rows as f64 / cpu.as_secs_f64();
    for _ in 0..options.rounds.max(1) {
        let (mine, my_joined) = process::measured(|| run_ours(&rows));
        let (theirs, their_joined) = process::measured(|| run_differential(&rows));
        if my_joined != their_joined {
            return Err(Error::Differs {
                program: "joins".to_owned(),
                differences: vec![format!(
                    "ours joined {my_joined} rows, differential-dataflow {their_joined}"
                )],
            });
        }
        joined = my_joined;
        ours.push(per_second(mine));
        differential.push(per_second(theirs));
        ratio.push(theirs.as_secs_f64() / mine.as_secs_f64());
    }
    let ours = Spread::of(ours);
    Ok(Report {
        machine: Machine::here(),
        rows: options.rows,
        joined,
        share: 100_000.0 / ours.median,
        ours,
        differential: Spread::of(differential),
        ratio: Spread::of(ratio),
        bytes_per_row,
    })
}

fn bytes_per_row(rows: &[Given]) -> (u64, u64) {
    let (plain, _map) = process::held(|| {
        let mut map = ahash::HashMap::<Key, Vec<Arc<PartRow>>>::default();
        for (id, given) in rows.iter().enumerate() {
            let (key, row) = part(given, id as i64);
            map.entry(key).or_default().push(row);
        }
        map
    });
    let (ours, _state) = process::held(|| fold(rows));
    let each = |bytes: u64| bytes / rows.len().max(1) as u64;
    (each(ours), each(plain))
}

/// A row and its key.
fn part(given: &Given, id: i64) -> (Key, Arc<PartRow>) {
    let cells: Arc<[Value]> = [Value::Int(given.key as i64), Value::Int(id)].into();
    let key = Key::new([Value::Int(given.key as i64)].into_iter());
    (key, Arc::new(PartRow { time: given.time, id: None, event: 0, origin: None, cells }))
}

fn run_ours(rows: &[Given]) -> i64 {
    fold(rows).1
}

/// The step after all rows, and how many are joined.
fn fold(rows: &[Given]) -> (StepState, i64) {
    let step = Step {
        name: "change to deployment".to_owned(),
        from: Some(0),
        left: vec![(0, 0)],
        right: vec![0],
        pick: Pick::First,
        order: Order::After,
        strict: false,
        within: Some(WITHIN),
        valid_to: None,
        missing: Missing::Wait,
        ships: None,
    };
    let mut state = StepState::new(step, i64::MAX / 4, usize::MAX);
    let mut joined = 0;
    for (number, tick) in rows.chunks(TICK).enumerate() {
        let inputs = tick.iter().enumerate().map(|(index, given)| {
            let (key, row) = part(given, (number * TICK + index) as i64);
            match given.left {
                true => Input::Left(Some(key), Row { time: given.time, id: None, parts: vec![Some(row)] }, 1),
                false => Input::Right(key, row, 1),
            }
        });
        state.apply(inputs.collect(), |_, weight| joined += weight);
    }
    (state, joined)
}

fn run_differential(rows: &[Given]) -> i64 {
    let rows = rows.to_vec();
    timely::execute_directly(move |worker| {
        let joined = std::rc::Rc::new(std::cell::Cell::new(0_i64));
        let told = std::rc::Rc::clone(&joined);
        let (mut left, mut right) =
            (InputSession::<u64, (u64, (i64, u64)), isize>::new(), InputSession::new());
        let probe = ProbeHandle::new();
        worker.dataflow::<u64, _, _>(|scope| {
            let changes = left.to_collection(scope);
            let deployments = right.to_collection(scope);
            changes
                .join_map(deployments, |key, change, deployment: &(i64, u64)| ((*key, *change), *deployment))
                .filter(|((_, change), deployment)| {
                    change.0 <= deployment.0 && deployment.0 <= change.0 + WITHIN
                })
                .reduce(|_, input, output| output.push((*input[0].0, 1)))
                .inspect(move |(_, _, change)| told.set(told.get() + *change as i64))
                .probe_with(&probe);
        });
        for (number, tick) in rows.chunks(TICK).enumerate() {
            for (index, given) in tick.iter().enumerate() {
                let row = (given.key, (given.time, (number * TICK + index) as u64));
                if given.left {
                    left.insert(row)
                } else {
                    right.insert(row)
                };
            }
            let next = number as u64 + 1;
            left.advance_to(next);
            right.advance_to(next);
            left.flush();
            right.flush();
            while probe.less_than(&next) {
                worker.step();
            }
        }
        joined.get()
    })
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let spread = |s: &Spread| format!("{:.2} ({:.2}-{:.2})", s.median / 1e6, s.min / 1e6, s.max / 1e6);
        writeln!(f, "joins: {} rows, {} joined, ticks of {TICK}", self.rows, self.joined)?;
        writeln!(f, "  ours                  {} M rows/CPU-s", spread(&self.ours))?;
        writeln!(f, "  differential-dataflow {} M rows/CPU-s", spread(&self.differential))?;
        let Spread { min, median, max } = self.ratio;
        writeln!(f, "  ours / differential   {median:.2} ({min:.2}-{max:.2})")?;
        writeln!(f, "  100,000 rows/s take   {:.0} % of one core", self.share * 100.0)?;
        let (ours, plain) = self.bytes_per_row;
        writeln!(f, "  memory per row held   {ours} bytes, {plain} in a hash map")?;
        write!(f, "  {}", self.machine.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_join_the_same_rows() {
        let report = run(&Options { rows: 5_000, rounds: 1, seed: 7 }).unwrap();
        assert!(report.joined > 500, "{report}");
    }
}
