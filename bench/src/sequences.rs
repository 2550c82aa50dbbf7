//! Sequences: the operator beside a hash map that only knows each key's last state.
//!
//! *In*: how many rows. *Out*: rows per CPU-second of each, their quotient, the share of a core at 100,000 rows/s.
//! *Never*: a round whose intervals are not those of the rows in order.
//!
//! The work: items that move through eight states, six moves each on average, 10,000 of them at a time, every eighth row
//! late by up to 2,000 rows, 1,000 rows a tick. The hash map gets the same rows in order, which is less work: it cannot
//! take a late one.

use std::sync::Arc;
use std::time::Duration;

use ahash::HashMap;
use contracts::catalog::SpanKind;
use contracts::value::Value;
use operators::fold::panes::Key;
use operators::relate::Row;
use operators::relate::sequence::{SequenceState, Stay};
use serde::{Deserialize, Serialize};

use crate::process;
use crate::{Error, Machine, Spread};

const TICK: usize = 1_000;
const STATES: [&str; 8] = ["backlog", "design", "doing", "review", "testing", "approval", "deploy", "done"];
const DONE: usize = STATES.len() - 1;
/// Items on their way at a time.
const ITEMS: usize = 10_000;
/// Rows that a late one may be late by.
const LATE: u64 = 2_000;
/// However long.
const EVER: i64 = i64::MAX / 8;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rows.
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
    /// Rows.
    pub rows: usize,
    /// Intervals that ended, the same for both.
    pub intervals: i64,
    /// Rows per CPU-second of the operator.
    pub ours: Spread,
    /// Rows per CPU-second of the hash map.
    pub plain: Spread,
    /// Ours by the hash map's, round by round.
    pub ratio: Spread,
    /// Share of one core that the operator takes at 100,000 rows/s.
    pub share_at_100k: Spread,
    /// Resident bytes per key with one open interval; of the operator and of a hash map with the same key.
    pub bytes_per_key: (u64, u64),
}

/// A move of an item.
#[derive(Debug, Clone, Copy)]
struct Move {
    item: u64,
    state: usize,
    at: i64,
}

/// Moves in order of time.
fn moves(options: &Options) -> Vec<Move> {
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let mut items: Vec<(u64, usize)> = (0..ITEMS as u64).map(|item| (item, 0)).collect();
    let mut next = ITEMS as u64;
    let move_one = |at: usize| {
        let slot = rng.usize(..items.len());
        let (item, state) = items[slot];
        let made = Move { item, state, at: at as i64 };
        items[slot] = match state {
            DONE => {
                next += 1;
                (next - 1, 0)
            }
            _ => (item, (state + rng.usize(1..3)).min(DONE)),
        };
        made
    };
    (0..options.rows).map(move_one).collect()
}

/// Runs both programs, round by round.
///
/// # Errors
/// When the two disagree.
pub fn run(options: &Options) -> Result<Report, Error> {
    // First, while the memory of the process holds nothing that could be used again.
    let bytes_per_key = bytes_per_key();
    let moves = moves(options);
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let late = |rng: &mut fastrand::Rng| if rng.u32(..8) == 0 { rng.u64(..LATE) } else { 0 };
    let mut arriving: Vec<(u64, Move)> =
        moves.iter().map(|made| (made.at.unsigned_abs() + late(&mut rng), *made)).collect();
    arriving.sort_by_key(|(at, _)| *at);
    let (mut ours, mut plain, mut ratio, mut share, mut intervals) = (vec![], vec![], vec![], vec![], 0);
    let per_second = |cpu: Duration| moves.len() as f64 / cpu.as_secs_f64();
    for _ in 0..options.rounds.max(1) {
        let rows: Vec<(Key, Arc<Stay>, i64)> = arriving.iter().map(|(_, made)| row(made)).collect();
        let (mine, my_sums) = process::measured(|| run_ours(rows));
        let (theirs, their_sums) = process::measured(|| run_plain(&moves));
        if my_sums != their_sums {
            let message =
                format!("ours ended {my_sums:?} (intervals, time in them), in order {their_sums:?}");
            return Err(Error::Differs { program: "sequences".to_owned(), differences: vec![message] });
        }
        intervals = my_sums.0;
        ours.push(per_second(mine));
        plain.push(per_second(theirs));
        ratio.push(theirs.as_secs_f64() / mine.as_secs_f64());
        share.push(100_000.0 / per_second(mine));
    }
    Ok(Report {
        machine: Machine::here(),
        rows: moves.len(),
        intervals,
        ours: Spread::of(ours),
        plain: Spread::of(plain),
        ratio: Spread::of(ratio),
        share_at_100k: Spread::of(share),
        bytes_per_key,
    })
}

/// Keys of [`bytes_per_key`].
const KEYS: u64 = 200_000;

fn bytes_per_key() -> (u64, u64) {
    let made = |item| Move { item, state: 2, at: item.cast_signed() };
    let (plain, _map) = process::held(|| {
        let of = |item| (row(&made(item)).0, (2_usize, item.cast_signed()));
        (0..KEYS).map(of).collect::<HashMap<Key, (usize, i64)>>()
    });
    let (ours, _state) = process::held(|| {
        let mut state = SequenceState::with(true, &[SpanKind::Interval], EVER, usize::MAX);
        for first in (0..KEYS).step_by(TICK) {
            let tick = (first..(first + TICK as u64).min(KEYS)).map(|item| row(&made(item)));
            state.apply(tick.collect(), |_, _, _| {});
        }
        state
    });
    (ours / KEYS, plain / KEYS)
}

fn row(made: &Move) -> (Key, Arc<Stay>, i64) {
    let id: Arc<str> = format!("{:016x}", made.at).into();
    let state = Value::Text(STATES[made.state].into());
    let row = Row { time: made.at, id: Some(id), parts: Vec::new() };
    let stay = Stay { row, state, start: made.state > 0, end: made.state == DONE };
    let key = Key::new(std::iter::once(Value::Text(format!("item-{}", made.item).into())));
    (key, Arc::new(stay), 1)
}

/// Intervals that ended, and the time spent in them.
fn run_ours(rows: Vec<(Key, Arc<Stay>, i64)>) -> (i64, i64) {
    let mut state = SequenceState::with(true, &[SpanKind::Interval], EVER, usize::MAX);
    let mut sums = (0, 0);
    let mut rows = rows.into_iter();
    loop {
        let tick: Vec<(Key, Arc<Stay>, i64)> = rows.by_ref().take(TICK).collect();
        if tick.is_empty() {
            return sums;
        }
        state.apply(tick, |_, span, weight| {
            if let Some(dwell) = span.dwell() {
                sums.0 += weight;
                sums.1 += weight * dwell;
            }
        });
    }
}

fn run_plain(moves: &[Move]) -> (i64, i64) {
    let mut last: HashMap<u64, (usize, i64)> = HashMap::default();
    let mut sums = (0, 0);
    for made in moves {
        let before = match made.state {
            DONE => last.remove(&made.item),
            state => last.insert(made.item, (state, made.at)),
        };
        if let Some((_, since)) = before {
            sums.0 += 1;
            sums.1 += made.at - since;
        }
    }
    sums
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let spread = |s: &Spread| format!("{:.0} ({:.0}-{:.0})", s.median, s.min, s.max);
        writeln!(f, "sequences: {} rows, {} intervals, ticks of {TICK}", self.rows, self.intervals)?;
        writeln!(f, "  ours                     {} rows/CPU-s", spread(&self.ours))?;
        writeln!(f, "  last state in a hash map {} rows/CPU-s", spread(&self.plain))?;
        let Spread { min, median, max } = self.ratio;
        writeln!(f, "  ours / hash map          {median:.3} ({min:.3}-{max:.3})")?;
        let share = |share: f64| share * 100.0;
        let Spread { min, median, max } = self.share_at_100k;
        let (median, min, max) = (share(median), share(min), share(max));
        let (ours, plain) = self.bytes_per_key;
        writeln!(f, "  at 100,000 rows/s        {median:.0} % of a core ({min:.0}-{max:.0})")?;
        writeln!(f, "  memory per key           {ours} bytes, {plain} in a hash map")?;
        write!(f, "  {}", self.machine.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_agree() {
        let report = run(&Options { rows: 20_000, rounds: 1, seed: 3 }).unwrap();
        assert!(report.intervals > 5_000, "{report}");
    }
}
