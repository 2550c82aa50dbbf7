//! Shipped sets: the labelled graph beside a recomputation of all sets after each tick.
//!
//! *In*: how many commits. *Out*: facts (commits, edges, deployments) per CPU-second of each, and their quotient.
//! *Never*: a round in which the two disagree.
//!
//! The work: a history in which every tenth commit is a merge, a deployment after every 20 commits in one of five lines,
//! every eighth fact late by up to 2,000 facts, 1,000 facts a tick. Ours gets hashes and cells as contracts make
//! them. The recomputation gets integers: for each deployment all ancestors of its commit less those of the one before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contracts::catalog::{ColdStart, Missing, Order, Pick, Ships, Step};
use contracts::value::Value;
use operators::fold::panes::Key;
use operators::relate::ships::{Edge, ShipsState};
use operators::relate::step::Input;
use operators::relate::{PartRow, Row};
use serde::{Deserialize, Serialize};

use crate::process;
use crate::{Error, Machine, Spread};

/// Facts per tick.
const TICK: usize = 1_000;
/// Commits between deployments.
const EVERY: u32 = 20;
const LINES: u32 = 5;
/// Facts that a late one may be late by.
const LATE: u64 = 2_000;
/// However far apart.
const EVER: i64 = i64::MAX / 8;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Commits.
    pub commits: u32,
    /// Rounds; each runs both.
    pub rounds: usize,
    /// Seed of the history.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// Commits, edges and deployments.
    pub facts: usize,
    /// Pairs of commit and deployment at the end, the same for both.
    pub shipped: i64,
    /// Facts per CPU-second of the labelled graph.
    pub ours: Spread,
    /// Facts per CPU-second of the recomputation after each tick.
    pub naive: Spread,
    /// The quotient, round by round.
    pub ratio: Spread,
}

#[derive(Debug, Clone, Copy)]
enum Fact {
    Commit(u32),
    Edge(u32, u32),
    Deploy { head: u32, line: u32 },
}

/// Facts in order of arrival.
fn facts(options: &Options) -> Vec<Fact> {
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let mut facts: Vec<(u64, Fact)> = Vec::new();
    let mut add = |rng: &mut fastrand::Rng, fact: Fact| {
        let late = if rng.u32(..8) == 0 { rng.u64(..LATE) } else { 0 };
        facts.push((facts.len() as u64 + late, fact));
    };
    for commit in 0..options.commits {
        add(&mut rng, Fact::Commit(commit));
        if commit > 0 {
            let near = rng.u32(..3).min(commit - 1);
            add(&mut rng, Fact::Edge(commit, commit - 1 - near));
        }
        if commit > 50 && rng.u32(..10) == 0 {
            let other = commit - 1 - rng.u32(..50);
            add(&mut rng, Fact::Edge(commit, other));
        }
        if commit % EVERY == EVERY - 1 {
            let line = rng.u32(..LINES);
            add(&mut rng, Fact::Deploy { head: commit, line });
        }
    }
    facts.sort_by_key(|(at, _)| *at);
    facts.into_iter().map(|(_, fact)| fact).collect()
}

/// Runs both programs, round by round.
///
/// # Errors
/// When the two disagree.
pub fn run(options: &Options) -> Result<Report, Error> {
    let facts = facts(options);
    let (mut ours, mut naive, mut ratio, mut shipped) = (vec![], vec![], vec![], 0);
    let per_second = |cpu: Duration| facts.len() as f64 / cpu.as_secs_f64();
    for _ in 0..options.rounds.max(1) {
        let (mine, my_pairs) = process::measured(|| run_ours(&facts));
        let (theirs, their_pairs) = process::measured(|| run_naive(&facts));
        if my_pairs != their_pairs {
            let message =
                format!("ours shipped {my_pairs:?} (pairs, times), the recomputation {their_pairs:?}");
            return Err(Error::Differs { program: "ships".to_owned(), differences: vec![message] });
        }
        shipped = my_pairs.0;
        ours.push(per_second(mine));
        naive.push(per_second(theirs));
        ratio.push(theirs.as_secs_f64() / mine.as_secs_f64());
    }
    Ok(Report {
        machine: Machine::here(),
        facts: facts.len(),
        shipped,
        ours: Spread::of(ours),
        naive: Spread::of(naive),
        ratio: Spread::of(ratio),
    })
}

/// As long as a hash of Git.
fn sha(commit: u32) -> Arc<str> {
    format!("{commit:040x}").into()
}

fn input(fact: Fact) -> Input {
    let key = Key::new([Value::Text("acme/shop".into())].into_iter());
    match fact {
        Fact::Commit(commit) => {
            let time = i64::from(commit);
            let part =
                PartRow { time, id: None, event: 0, origin: None, cells: [Value::Text(sha(commit))].into() };
            Input::Left(Some(key), Row { time, id: None, parts: vec![Some(Arc::new(part))] }, 1)
        }
        Fact::Edge(commit, parent) => {
            let edges: Arc<[Edge]> = [(sha(commit), sha(parent))].into();
            Input::Edges(key, i64::from(commit), edges, 1)
        }
        Fact::Deploy { head, line } => {
            let cells: Arc<[Value]> = [Value::Text(sha(head)), Value::Int(line.into())].into();
            Input::Right(
                key,
                Arc::new(PartRow { time: i64::from(head), id: None, event: 1, origin: None, cells }),
                1,
            )
        }
    }
}

/// Pairs, and the sum of the times of their deployments.
type Pairs = (i64, i64);

fn run_ours(facts: &[Fact]) -> Pairs {
    let ships = Ships {
        commits: vec![(0, 0)],
        head: 0,
        line: vec![1],
        history: Vec::new(),
        cold_start: ColdStart::All,
    };
    let step = Step {
        name: "commit to deployment".to_owned(),
        from: Some(0),
        left: Vec::new(),
        right: Vec::new(),
        pick: Pick::First,
        order: Order::Any,
        strict: false,
        within: Some(EVER),
        valid_to: None,
        missing: Missing::Wait,
        ships: None,
    };
    let mut state = ShipsState::new(step, ships, EVER, usize::MAX);
    let mut pairs = (0, 0);
    for tick in facts.chunks(TICK) {
        state.apply(tick.iter().map(|fact| input(*fact)).collect(), |row, weight| {
            let deployed = row.parts[1].as_ref().map_or(0, |deployment| deployment.time);
            pairs = (pairs.0 + weight, pairs.1 + weight * deployed);
        });
    }
    pairs
}

fn run_naive(facts: &[Fact]) -> Pairs {
    let commits = facts.iter().filter(|fact| matches!(fact, Fact::Commit(_))).count();
    let mut parents: Vec<Vec<u32>> = vec![Vec::new(); commits];
    let mut told = vec![false; commits];
    let mut lines: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut pairs = (0, 0);
    for tick in facts.chunks(TICK) {
        for fact in tick {
            match *fact {
                Fact::Commit(commit) => told[commit as usize] = true,
                Fact::Edge(commit, parent) => parents[commit as usize].push(parent),
                Fact::Deploy { head, line } => lines.entry(line).or_default().push(head),
            }
        }
        pairs = (0, 0);
        for heads in lines.values_mut() {
            heads.sort_unstable(); // They are deployed in order of their commits.
            let mut counted = vec![false; commits];
            let mut before = vec![false; commits];
            for head in heads.iter() {
                let all = ancestors(*head, &parents);
                for commit in 0..commits {
                    if all[commit] && !before[commit] && !counted[commit] && told[commit] {
                        counted[commit] = true;
                        pairs = (pairs.0 + 1, pairs.1 + i64::from(*head));
                    }
                }
                before = all;
            }
        }
    }
    pairs
}

fn ancestors(head: u32, parents: &[Vec<u32>]) -> Vec<bool> {
    let mut found = vec![false; parents.len()];
    let mut stack = vec![head];
    while let Some(commit) = stack.pop() {
        if !std::mem::replace(&mut found[commit as usize], true) {
            stack.extend(&parents[commit as usize]);
        }
    }
    found
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let spread = |s: &Spread| format!("{:.0} ({:.0}-{:.0})", s.median, s.min, s.max);
        writeln!(f, "ships: {} facts, {} shipped, ticks of {TICK}", self.facts, self.shipped)?;
        writeln!(f, "  ours                       {} facts/CPU-s", spread(&self.ours))?;
        writeln!(f, "  recomputed after each tick {} facts/CPU-s", spread(&self.naive))?;
        let Spread { min, median, max } = self.ratio;
        writeln!(f, "  ours / recomputed          {median:.1} ({min:.1}-{max:.1})")?;
        write!(f, "  {}", self.machine.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ship_the_same() {
        let report = run(&Options { commits: 2_000, rounds: 1, seed: 7 }).unwrap();
        assert!(report.shipped > 5_000, "{report}");
    }
}
