//! Sequences against a plain recomputation from the rows that are there.
//!
//! *In*: random rows in random order and cuts, taken back and given again. *Out*: the rows told add up to the naive ones.
//! *Never*: a look at the operator's state.

use std::collections::BTreeMap;

use super::*;
use crate::relate::Row;
use crate::state::tests::reborn;

fn sequence_state(by_state: bool, retain: i64) -> SequenceState {
    SequenceState::with(by_state, &SpanKind::ALL, retain, 1_000_000)
}

fn key(name: i64) -> Key {
    Key::new(std::iter::once(Value::Int(name)))
}

fn stay(time: i64, id: u64, state: Option<&str>, start: bool, end: bool) -> Arc<Stay> {
    let row = Row { time, id: Some(format!("e{id:04}").into()), parts: Vec::new() };
    Arc::new(Stay { row, state: state.map_or(Value::Null, |s| Value::Text(s.into())), start, end })
}

/// What a reader of the rules would list: `(kind, time, state, start, end, entered, done)`.
type Listed = (u8, i64, String, Option<i64>, Option<i64>, Option<i64>, Option<i64>);

/// By the words of the contract, one key at a time, looking at each instant's neighbours.
fn naive(rows: &[Arc<Stay>]) -> Vec<Listed> {
    let mut rows: Vec<&Arc<Stay>> = rows.iter().collect();
    rows.sort_by_key(|stay| (stay.row.time, stay.row.id.clone()));
    rows.retain(|stay| stay.end || !stay.state.is_null());
    let name = |stay: &Stay| format!("{:?}", stay.state);
    let mut listed = Vec::new();
    let enters = |stay: &&&Arc<Stay>| stay.start && !stay.end;
    let entered_at = rows.iter().find(enters).map(|stay| stay.row.time);
    let mut intervals = Vec::new();
    for (at, stay) in rows.iter().enumerate() {
        let same = at
            .checked_sub(1)
            .is_some_and(|before| !rows[before].end && !stay.end && rows[before].state == stay.state);
        if stay.end || same {
            continue;
        }
        let over = rows[at + 1..].iter().find(|later| later.end || later.state != stay.state);
        let end = over.map(|later| later.row.time);
        // Entered as far as known when the interval closed.
        let until = over.map_or(i64::MAX, |later| later.row.time);
        let until_id = over.and_then(|later| later.row.id.clone());
        let entered = rows
            .iter()
            .find(enters)
            .filter(|first| {
                (first.row.time, first.row.id.clone()) < (until, until_id.clone()) || over.is_none()
            })
            .map(|first| first.row.time)
            .or_else(|| over.filter(|later| !later.end && later.start).map(|later| later.row.time));
        intervals.push((stay.row.time, end, name(stay), entered));
    }
    for (start, end, state, entered) in &intervals {
        let time = end.unwrap_or(*start);
        listed.push((0, time, state.clone(), Some(*start), *end, *entered, None));
    }
    let run = rows.iter().rev().take_while(|stay| stay.end).last();
    if let Some(done) = run.map(|stay| stay.row.time) {
        listed.push((1, done, "Null".to_owned(), None, None, entered_at, Some(done)));
        for (start, end, state, _) in &intervals {
            let (Some(entered), Some(end)) = (entered_at, *end) else { continue };
            if end > entered {
                listed.push((
                    2,
                    done,
                    state.clone(),
                    Some((*start).max(entered)),
                    Some(end),
                    None,
                    Some(done),
                ));
            }
        }
    }
    listed
}

fn list(span: &Span) -> Listed {
    let entered = if span.kind == 2 { None } else { span.entered };
    let state = if span.kind == 1 { "Null".to_owned() } else { format!("{:?}", span.state) };
    (span.kind, span.time, state, span.start, span.end, entered, span.done)
}

#[test]
fn any_road_gives_what_the_rules_say() {
    const STATES: [Option<&str>; 4] = [Some("a"), Some("b"), Some("c"), None];
    for seed in 0..3_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut state = sequence_state(true, i64::MAX / 4);
        let mut there: BTreeMap<i64, Vec<Arc<Stay>>> = BTreeMap::new();
        let mut told: BTreeMap<(Value, Listed), i64> = BTreeMap::new();
        for tick in 0..rng.i64(1..12) {
            let mut batch = Vec::new();
            for n in 0..rng.u64(0..5) {
                let name = rng.i64(0..2);
                let rows = there.entry(name).or_default();
                if !rows.is_empty() && rng.u8(..4) == 0 {
                    let gone = rows.swap_remove(rng.usize(..rows.len()));
                    batch.push((key(name), gone, -1));
                    continue;
                }
                let end = rng.u8(..5) == 0;
                let said = if end { None } else { STATES[rng.usize(..4)] };
                let id = u64::try_from(tick).unwrap_or(0) * 10 + n;
                let made = stay(rng.i64(0..12), id, said, rng.u8(..3) > 0, end);
                rows.push(Arc::clone(&made));
                batch.push((key(name), made, 1));
            }
            rng.shuffle(&mut batch);
            state.turn(tick);
            if rng.u8(..3) == 0 {
                let mut other = sequence_state(true, i64::MAX / 4);
                reborn(&mut state, &mut other, tick);
                assert_eq!(other.held(), state.held());
                state = other;
            }
            state.apply(batch, |_, span, weight| {
                *told.entry((span.key.clone(), list(&span))).or_default() += weight;
            });
        }
        told.retain(|_, weight| *weight != 0);
        let mut wanted: BTreeMap<(Value, Listed), i64> = BTreeMap::new();
        for (name, rows) in &there {
            for row in naive(rows) {
                *wanted.entry((Value::Int(*name), row)).or_default() += 1;
            }
        }
        assert_eq!(told, wanted, "seed {seed}: {there:#?}");
    }
}

#[test]
fn without_states_intervals_are_open_or_not() {
    let mut state = sequence_state(false, 1_000);
    let mut told = Vec::new();
    let rows = [(1, true, false), (2, true, false), (5, false, true), (6, false, true), (9, true, true)];
    let rows = rows
        .iter()
        .enumerate()
        .map(|(id, (time, start, end))| (key(1), stay(*time, id as u64, None, *start, *end), 1));
    state.apply(rows.collect(), |_, span, weight| told.push((list(&span), weight)));
    let interval = |start, end: Option<i64>| {
        ((0, end.unwrap_or(start), "Null".to_owned(), Some(start), end, Some(1), None), 1)
    };
    assert_eq!(told, [interval(1, Some(5)), interval(9, None)]);
}

#[test]
fn what_is_done_for_long_is_let_go_and_what_is_open_is_not() {
    let mut state = sequence_state(true, 100);
    let done = [stay(1, 1, Some("a"), true, false), stay(5, 2, None, false, true)];
    let open = stay(2, 3, Some("a"), true, false);
    let rows = done.into_iter().map(|stay| (key(1), stay, 1)).chain([(key(2), open, 1)]);
    let mut told = Vec::new();
    state.apply(rows.collect(), |_, _, weight| told.push(weight));
    assert_eq!(told, [1, 1, 1, 1], "an interval, an item, what it passed; an open interval");
    state.turn(1_000);
    assert_eq!(state.held(), 1);
    let mut other = sequence_state(true, 100);
    reborn(&mut state, &mut other, 1_000);
    state = other;
    let late = (key(1), stay(3, 4, Some("b"), true, false), 1);
    let closing = (key(2), stay(900, 5, None, false, true), 1);
    let mut told = Vec::new();
    state.apply(vec![late, closing], |_, span, weight| told.push((span.kind, span.dwell(), weight)));
    told.sort();
    assert_eq!(told, [(0, None, -1), (0, Some(898), 1), (1, Some(898), 1), (2, Some(898), 1)]);
    assert_eq!(state.lost["beyond_retention"], 1);
    let mut other = sequence_state(true, 100);
    reborn(&mut state, &mut other, 1_000);
    state = other;
    state.turn(1_110);
    assert_eq!((state.held(), state.keys.len()), (0, 1), "only that the second key was there is known");
    state.turn(1_211);
    assert!(state.keys.is_empty());
}

#[test]
fn a_key_that_comes_back_long_after_it_was_done_begins_anew() {
    let rows = [
        stay(1, 1, Some("a"), true, false),
        stay(5, 2, None, false, true),
        stay(105, 3, Some("a"), true, false),
        stay(110, 4, None, false, true),
        stay(211, 5, Some("b"), true, false),
    ];
    let items = |state: &mut SequenceState, rows: &[Arc<Stay>]| {
        let mut told: BTreeMap<Listed, i64> = BTreeMap::new();
        for stay in rows {
            state.turn(stay.row.time);
            let rows = vec![(key(1), Arc::clone(stay), 1)];
            state.apply(rows, |_, span, weight| *told.entry(list(&span)).or_default() += weight);
        }
        told.retain(|_, weight| *weight != 0);
        told.into_keys().filter(|listed| listed.0 == 1).collect::<Vec<_>>()
    };
    let wanted = [(1, 110, "Null".to_owned(), None, None, Some(1), Some(110))];
    assert_eq!(items(&mut sequence_state(true, 100), &rows), wanted, "back within 100, then after 101");
    let late: Vec<Arc<Stay>> = rows.into_iter().rev().collect();
    assert_eq!(items(&mut sequence_state(true, 100), &late), wanted);
}
