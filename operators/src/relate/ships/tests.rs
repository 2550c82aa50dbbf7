//! The graph's labels against a recomputation from everything that holds now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contracts::catalog::{ColdStart, Missing, Order, Pick, Ships, Step};
use contracts::value::Value;

use super::{Edge, ShipsState};
use crate::fold::panes::Key;
use crate::relate::step::Input;
use crate::relate::{PartRow, Row};
use crate::state::tests::reborn;

const GRAPH: &str = "repo";

fn text(value: &str) -> Value {
    Value::Text(value.into())
}

fn ships(cold_start: ColdStart) -> Ships {
    Ships { commits: vec![(0, 0), (0, 1)], head: 0, line: vec![1], history: Vec::new(), cold_start }
}

fn state(cold_start: ColdStart, within: i64, retain: i64, most: usize) -> ShipsState {
    let step = Step {
        name: "commit to deploy".to_owned(),
        from: Some(0),
        left: Vec::new(),
        right: Vec::new(),
        pick: Pick::First,
        order: Order::Any,
        strict: false,
        within: Some(within),
        valid_to: None,
        missing: Missing::Wait,
        ships: None,
    };
    ShipsState::new(step, ships(cold_start), retain, most)
}

/// Something that is told and may be taken back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Fact {
    Edge(u32, u32, i64),
    Deploy { time: i64, id: u32, head: u32, line: u32 },
    Row { time: i64, id: u32, commit: u32, other: Option<u32> },
}

fn sha(commit: u32) -> Arc<str> {
    format!("c{commit}").into()
}

fn deployment(time: i64, id: u32, head: u32, line: u32) -> Arc<PartRow> {
    let cells = [Value::Text(sha(head)), text(&format!("line{line}"))];
    Arc::new(PartRow { time, id: Some(format!("d{id}").into()), event: 0, origin: None, cells: cells.into() })
}

fn row(time: i64, id: u32, commit: u32, other: Option<u32>) -> Row {
    let other = other.map_or(Value::Null, |other| Value::Text(sha(other)));
    let part = PartRow {
        time,
        id: Some(format!("r{id}").into()),
        event: 0,
        origin: None,
        cells: [Value::Text(sha(commit)), other].into(),
    };
    Row { time, id: part.id.clone(), parts: vec![Some(Arc::new(part))] }
}

fn input(fact: &Fact, weight: i64) -> Input {
    let key = Key::new([text(GRAPH)].into_iter());
    match *fact {
        Fact::Edge(commit, parent, time) => {
            let edges: Arc<[Edge]> = [(sha(commit), sha(parent))].into();
            Input::Edges(key, time, edges, weight)
        }
        Fact::Deploy { time, id, head, line } => Input::Right(key, deployment(time, id, head, line), weight),
        Fact::Row { time, id, commit, other } => Input::Left(Some(key), row(time, id, commit, other), weight),
    }
}

/// Joined rows with how often, and what is counted as lost: waiting and unmatched, cold start.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    rows: BTreeMap<(Row, Arc<PartRow>), i64>,
    alone: i64,
    cold: i64,
}

fn ancestors(head: u32, parents: &BTreeMap<u32, BTreeSet<u32>>) -> BTreeSet<u32> {
    let (mut found, mut stack) = (BTreeSet::new(), vec![head]);
    while let Some(commit) = stack.pop() {
        if found.insert(commit) {
            stack.extend(parents.get(&commit).into_iter().flatten());
        }
    }
    found
}

/// By the definition: each deployment less the one before it, the first that ships a commit counts.
fn naive(facts: &BTreeMap<Fact, i64>, cold_start: ColdStart, within: i64) -> Answer {
    let mut parents: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    let mut lines: BTreeMap<u32, BTreeSet<(Arc<PartRow>, u32)>> = BTreeMap::new();
    for fact in facts.keys() {
        match *fact {
            Fact::Edge(commit, parent, _) => {
                parents.entry(commit).or_default().insert(parent);
            }
            Fact::Deploy { time, id, head, line } => {
                lines.entry(line).or_default().insert((deployment(time, id, head, line), head));
            }
            Fact::Row { .. } => {}
        }
    }
    let mut shipped: Vec<Vec<(Arc<PartRow>, BTreeSet<u32>)>> = Vec::new();
    for line in lines.values() {
        let mut before = BTreeSet::new();
        let mut of_line = Vec::new();
        for (deployment, head) in line {
            let all = ancestors(*head, &parents);
            of_line.push((Arc::clone(deployment), all.difference(&before).copied().collect()));
            before = all;
        }
        shipped.push(of_line);
    }
    let mut answer = Answer::default();
    for (fact, weight) in facts {
        let Fact::Row { time, id, commit, other } = *fact else { continue };
        let (mut found, mut cold) = (0, 0);
        for line in &shipped {
            let by = |commit: u32| line.iter().position(|(_, set)| set.contains(&commit));
            let Some(at) = by(commit).or_else(|| by(other?)) else { continue };
            let partner = &line[at].0;
            let counts = match cold_start {
                ColdStart::All => true,
                ColdStart::Skip => at > 0,
                ColdStart::Within(most) => at > 0 || partner.time - time <= most,
            };
            if !counts {
                cold += weight;
            } else if (partner.time - time).abs() <= within {
                found += 1;
                let mut joined = row(time, id, commit, other);
                joined.time = time.max(partner.time);
                joined.id.clone_from(&partner.id);
                joined.parts.push(Some(Arc::clone(partner)));
                *answer.rows.entry((joined, Arc::clone(partner))).or_default() += weight;
            }
        }
        answer.cold += cold;
        if found == 0 && cold == 0 {
            answer.alone += weight;
        }
    }
    answer
}

/// What a state has told so far.
#[derive(Default)]
struct Told(BTreeMap<(Row, Arc<PartRow>), i64>);

impl Told {
    fn apply(&mut self, state: &mut ShipsState, inputs: Vec<Input>) {
        if inputs.len() % 3 == 1 && state.held() < 1_000 {
            let (step, ships) = (state.step.clone(), state.ships.clone());
            let mut other = ShipsState::new(step, ships, state.retain, state.max_held);
            let now = state.now;
            reborn(state, &mut other, now);
            assert_eq!(other.held(), state.held());
            *state = other;
        }
        let mut given: BTreeSet<Row> = BTreeSet::new();
        state.apply(inputs, |row, weight| {
            assert!(given.insert(row.clone()), "told twice in one tick: {row:?}");
            let partner = row.parts[1].clone().expect("a partner");
            *self.0.entry((row, partner)).or_default() += weight;
        });
        self.0.retain(|_, weight| *weight != 0);
        assert!(self.0.values().all(|weight| *weight > 0), "{:?}", self.0);
    }
}

fn check(state: &ShipsState, told: &Told, wanted: &Answer, place: &str) {
    assert_eq!(told.0, wanted.rows, "{place}");
    let alone = state.alone();
    assert_eq!((alone.waiting + alone.unmatched, alone.cold_start), (wanted.alone, wanted.cold), "{place}");
}

/// A fact of a graph of few commits: mostly from newer to older, sometimes a cycle.
fn fact(rng: &mut fastrand::Rng) -> Fact {
    const COMMITS: u32 = 14;
    let (time, commit) = (rng.i64(0..40), rng.u32(..COMMITS));
    match rng.u32(..10) {
        0..5 => {
            let parent =
                if rng.u32(..40) == 0 { rng.u32(..COMMITS) } else { commit.saturating_sub(rng.u32(1..4)) };
            Fact::Edge(commit, parent, rng.i64(0..2))
        }
        5..7 => Fact::Deploy { time, id: rng.u32(..3), head: commit, line: rng.u32(..3) },
        _ => {
            let other = (rng.u32(..4) == 0).then(|| rng.u32(..COMMITS));
            Fact::Row { time, id: rng.u32(..2), commit, other }
        }
    }
}

#[test]
fn what_is_told_is_what_holds_whatever_comes_and_goes() {
    let mut relabelled = 0;
    for seed in 0..3_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let cold_start = [ColdStart::Skip, ColdStart::All, ColdStart::Within(12)][rng.usize(..3)];
        let within = [8, 30, 1_000][rng.usize(..3)];
        let mut state = state(cold_start, within, 10_000, usize::MAX);
        state.turn(50);
        let mut facts: BTreeMap<Fact, i64> = BTreeMap::new();
        let mut told = Told::default();
        for tick in 0..rng.usize(1..12) {
            let mut inputs = Vec::new();
            for _ in 0..rng.usize(1..12) {
                if rng.u32(..3) == 0 && !facts.is_empty() {
                    let at = rng.usize(..facts.len());
                    let (fact, weight) = facts.iter().nth(at).map(|(f, w)| (f.clone(), *w)).expect("there");
                    inputs.push(input(&fact, -1));
                    if weight == 1 {
                        facts.remove(&fact)
                    } else {
                        facts.insert(fact, weight - 1)
                    };
                } else {
                    let fact = fact(&mut rng);
                    if matches!(fact, Fact::Edge(a, b, _) if a == b) {
                        continue;
                    }
                    inputs.push(input(&fact, 1));
                    *facts.entry(fact).or_default() += 1;
                }
            }
            rng.shuffle(&mut inputs);
            told.apply(&mut state, inputs);
            let wanted = naive(&facts, cold_start, within);
            relabelled += wanted.rows.len();
            check(&state, &told, &wanted, &format!("seed {seed} tick {tick}"));
        }
        let all = facts.iter().flat_map(|(fact, weight)| (0..*weight).map(|_| input(fact, -1))).collect();
        told.apply(&mut state, all);
        check(&state, &told, &Answer::default(), &format!("seed {seed} at the end"));
        // Lines stay known.
        assert!(state.held() <= 3, "seed {seed}: {} held", state.held());
    }
    assert!(relabelled > 8_000, "{relabelled}");
}

#[test]
fn any_order_and_any_cut_tell_the_same() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let facts: Vec<Fact> = (0..rng.usize(1..60)).map(|_| fact(&mut rng)).collect();
        let facts: Vec<Fact> =
            facts.into_iter().filter(|f| !matches!(f, Fact::Edge(a, b, _) if a == b)).collect();
        let mut all: BTreeMap<Fact, i64> = BTreeMap::new();
        facts.iter().for_each(|fact| *all.entry(fact.clone()).or_default() += 1);
        let wanted = naive(&all, ColdStart::Skip, 30);
        for _ in 0..3 {
            let mut order = facts.clone();
            rng.shuffle(&mut order);
            let mut state = state(ColdStart::Skip, 30, 10_000, usize::MAX);
            state.turn(50);
            let mut told = Told::default();
            while !order.is_empty() {
                let rest = order.split_off(rng.usize(1..=order.len()));
                told.apply(&mut state, order.iter().map(|fact| input(fact, 1)).collect());
                order = rest;
            }
            check(&state, &told, &wanted, &format!("seed {seed}"));
        }
    }
}

/// A year of a busy repository: what is held does not grow, and what lies within retention is exact.
#[test]
fn state_is_bounded_and_what_is_retained_is_exact() {
    const DAY: i64 = 1_000;
    for seed in 0..20 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (within, retain) = (10 * DAY, 10 * DAY);
        let mut state = state(ColdStart::Skip, within, retain, usize::MAX);
        let mut facts: BTreeMap<Fact, i64> = BTreeMap::new();
        let mut told = Told::default();
        let mut late: Vec<Fact> = Vec::new();
        let (mut main, mut next, mut most) = (0_u32, 1_u32, 0);
        for day in 0..365_i64 {
            let now = day * DAY;
            state.turn(now);
            let mut new = std::mem::take(&mut late);
            for number in 0..rng.i64(0..8) {
                let time = now + number;
                let (commit, id) = (next, next);
                next += 1;
                new.push(Fact::Edge(commit, main, time));
                if rng.u32(..4) == 0 {
                    new.push(Fact::Edge(commit, main.saturating_sub(rng.u32(1..6)), time));
                }
                new.push(Fact::Row { time, id, commit, other: None });
                main = commit;
            }
            if rng.u32(..2) == 0 {
                let (head, line) = (main.saturating_sub(rng.u32(..10)), rng.u32(..2));
                new.push(Fact::Deploy { time: now + 500, id: next, head, line });
            }
            new.retain(|fact| {
                let stays = rng.u32(..5) > 0;
                if !stays {
                    late.push(fact.clone());
                }
                stays
            });
            told.apply(&mut state, new.iter().map(|fact| input(fact, 1)).collect());
            facts.extend(new.into_iter().map(|fact| (fact, 1)));
            most = most.max(state.held());
            if day % 30 == 29 {
                let recent = |row: &Row| row.time >= now - retain;
                let mut wanted = naive(&facts, ColdStart::Skip, within).rows;
                let mut got = told.0.clone();
                wanted.retain(|(row, _), _| recent(row));
                got.retain(|(row, _), _| recent(row));
                assert_eq!(got, wanted, "seed {seed} day {day}");
            }
        }
        // Some 30 days of 3.5 commits, each with a row, a bit over one edge, two labels.
        assert!(most < 1_500, "seed {seed}: {most} held");
        assert!(facts.len() > 2_000 && state.lost.is_empty(), "{} {:?}", facts.len(), state.lost);
    }
}

#[test]
fn a_line_that_began_before_all_that_is_held_has_begun() {
    let mut state = state(ColdStart::Skip, 100, 100, usize::MAX);
    state.turn(10_000);
    let deploy = |time, id, head| Fact::Deploy { time, id, head, line: 0 };
    let mut told = Told::default();
    let rows = [Fact::Row { time: 9_950, id: 1, commit: 2, other: None }, Fact::Edge(2, 1, 9_950)];
    told.apply(&mut state, rows.iter().map(|fact| input(fact, 1)).collect());
    told.apply(&mut state, vec![input(&deploy(9_990, 2, 2), 1)]);
    assert!(told.0.is_empty());
    assert_eq!(state.alone().cold_start, 1);
    told.apply(&mut state, vec![input(&deploy(5, 1, 1), 1)]);
    assert_eq!((told.0.len(), state.alone().cold_start), (1, 0));
    assert_eq!(state.lost.get("beyond_retention"), Some(&1));
}

#[test]
fn what_does_not_fit_is_counted() {
    let mut state = state(ColdStart::All, 100, 100, 10);
    state.turn(50);
    let mut told = Told::default();
    for commit in 1..20 {
        told.apply(&mut state, vec![input(&Fact::Edge(commit, commit - 1, 0), 1)]);
    }
    assert!(state.held() <= 12, "{}", state.held());
    assert!(state.lost["join_overflow"] >= 10, "{:?}", state.lost);
}

/// Many commits in one line: a deployment in order visits what it ships, and nothing more.
#[test]
fn a_long_history_is_visited_once() {
    let mut state = state(ColdStart::All, 1_000_000, 1_000_000, usize::MAX);
    state.turn(50);
    let mut told = Told::default();
    let edges = (1..20_000).map(|commit| input(&Fact::Edge(commit, commit - 1, 0), 1));
    told.apply(&mut state, edges.collect());
    for head in 0..20_000 {
        told.apply(&mut state, vec![input(&Fact::Deploy { time: i64::from(head), id: 0, head, line: 0 }, 1)]);
    }
    // By visiting all ancestors of each it would be 2 * 10^8 steps: that would show.
    assert_eq!(state.held(), 20_000 + 19_999 + 20_000 + 20_000 + 1);
}
