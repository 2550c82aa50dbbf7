//! Rows of the same key become intervals, by the words of the rules.
//!
//! *In*: the rows of one alias, with tables beside them. *Out*: rows about intervals, about keys that are done, and about
//! what these have passed. *Never*: a walk from open to closed; each interval looks at the rows beside it.

use std::collections::BTreeMap;

use super::contract::{Lasting, Measure, MeasureKind};
use super::rows::Made;
use super::sql::{Ex, parse};
use super::val::Val;
use super::yaml::Node;

/// What the rows of a sequence are called.
pub const KINDS: [&str; 3] = ["interval", "item", "passed"];

/// `sequence` of a metric.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Sequence {
    pub of: String,
    pub key: Ex,
    pub state: Option<Ex>,
    pub start: Option<Ex>,
    pub end: Option<Ex>,
    /// The kinds of rows that some measure reads.
    pub kinds: Vec<&'static str>,
}

/// The sequence of a metric document.
pub fn sequence(doc: &Node) -> Option<Sequence> {
    let node = doc.get("sequence")?;
    let ex = |key: &str| node.str(key).map(parse);
    let only = || doc.entries("events").first().map(|(name, _)| name.clone());
    Some(Sequence {
        of: node.str("of").map(str::to_string).or_else(only).expect("an alias"),
        key: ex("key").expect("`key`"),
        state: ex("state"),
        start: ex("start"),
        end: ex("end"),
        kinds: Vec::new(),
    })
}

/// The kinds of rows that measures read.
pub fn kinds(measures: &[Measure]) -> Vec<&'static str> {
    let named = measures.iter().filter_map(|measure| match &measure.kind {
        MeasureKind::Fold { of, .. } | MeasureKind::Lasting(Lasting { of, .. }) => of.as_ref(),
        _ => None,
    });
    let named: Vec<&String> = named.flatten().collect();
    KINDS.into_iter().filter(|kind| named.iter().any(|name| name == kind)).collect()
}

/// What a row says about its key.
struct Says {
    /// The row, by its place in the key's history.
    row: usize,
    time: i64,
    /// The state it leads into; none: it ends what there is.
    into: Option<Val>,
    /// The key counts as entered from here on.
    start: bool,
}

/// An interval: what opens it and what closes it, by their places.
struct Interval {
    from: usize,
    to: Option<usize>,
}

/// The rows of a sequence.
pub fn spans(sequence: &Sequence, rows: Vec<Made>, lost: &mut BTreeMap<String, u64>) -> Vec<Made> {
    let mut keys: BTreeMap<Val, Vec<Made>> = BTreeMap::new();
    for row in rows {
        let value = |ex: &Ex| row.env().eval(ex).expect("a key and a state have a value");
        let key = value(&sequence.key);
        let ends = row.env().holds(sequence.end.as_ref()).expect("a condition") && sequence.end.is_some();
        let silent = sequence.state.as_ref().is_some_and(|state| value(state).is_null());
        let reason = match (key.is_null(), silent && !ends) {
            (true, _) => "no_key",
            (false, true) => "no_state",
            _ => {
                keys.entry(key).or_default().push(row);
                continue;
            }
        };
        *lost.entry(reason.to_string()).or_default() += 1;
    }
    keys.into_iter().flat_map(|(key, rows)| of_key(sequence, &key, rows)).collect()
}

/// What each row says, in order. Without `state` there is one state, that of being open.
fn said(sequence: &Sequence, rows: &[Made]) -> Vec<Says> {
    let mut all = Vec::new();
    for (row, made) in rows.iter().enumerate() {
        let holds = |ex: &Option<Ex>| made.env().holds(ex.as_ref()).expect("a condition has a value");
        let (start, end) = (holds(&sequence.start), sequence.end.is_some() && holds(&sequence.end));
        let says = |into: Option<Val>| Says { row, time: made.time, into, start };
        if end {
            all.push(says(None));
        }
        match &sequence.state {
            Some(state) if !end => {
                all.push(says(Some(made.env().eval(state).expect("a state has a value"))));
            }
            None if start => all.push(says(Some(Val::Null))),
            _ => {}
        }
    }
    all
}

fn of_key(sequence: &Sequence, key: &Val, mut rows: Vec<Made>) -> Vec<Made> {
    rows.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
    let said = said(sequence, &rows);
    let opens = |at: usize| said[at].into.is_some() && (at == 0 || said[at - 1].into != said[at].into);
    let from = (0..said.len()).filter(|at| opens(*at));
    let closes = |from: usize| (from + 1..said.len()).find(|to| said[*to].into != said[from].into);
    let intervals: Vec<Interval> = from.map(|from| Interval { from, to: closes(from) }).collect();
    let enters = |says: &&Says| says.into.is_some() && says.start;
    let entered = |until: usize| said[..until].iter().find(enters).map(|says| says.time);
    let ever = entered(said.len());
    let tail = said.iter().rev().take_while(|says| says.into.is_none()).count();
    let was_there = sequence.state.is_some() || tail < said.len();
    let done = said.get(said.len() - tail).filter(|_| was_there);
    let mut made = Vec::new();
    let mut add = |kind: &str, time: i64, by: usize, columns: Vec<(&str, Val)>| {
        if sequence.kinds.contains(&kind) {
            made.push(row(&rows[by], kind, time, columns));
        }
    };
    let moment = |at: Option<i64>| at.map_or(Val::Null, Val::Ts);
    let lasted =
        |from: Option<i64>, to: Option<i64>| from.zip(to).map_or(Val::Null, |(from, to)| Val::Dur(to - from));
    for Interval { from, to } in intervals {
        let (start, end) = (said[from].time, to.map(|to| said[to].time));
        let state = said[from].into.clone().unwrap_or(Val::Null);
        let next = to.and_then(|to| said[to].into.clone()).unwrap_or(Val::Null);
        let entered = to.map_or(ever, |to| entered(to + 1));
        let columns = |start: i64, done: Option<i64>| {
            vec![
                ("key", key.clone()),
                ("state", state.clone()),
                ("next", next.clone()),
                ("start", Val::Ts(start)),
                ("end", moment(end)),
                ("dwell", lasted(Some(start), end)),
                ("entered", moment(entered)),
                ("done", moment(done)),
            ]
        };
        add("interval", end.unwrap_or(start), said[from].row, columns(start, None));
        if let (Some(done), Some(ever), Some(end)) = (done, ever, end)
            && end > ever
        {
            add("passed", done.time, said[from].row, columns(start.max(ever), Some(done.time)));
        }
    }
    if let Some(done) = done {
        let columns = vec![
            ("key", key.clone()),
            ("entered", moment(ever)),
            ("done", Val::Ts(done.time)),
            ("dwell", lasted(ever, Some(done.time))),
        ];
        add("item", done.time, done.row, columns);
    }
    made
}

/// A row of a sequence, with all that the row behind it has.
fn row(by: &Made, kind: &str, time: i64, columns: Vec<(&str, Val)>) -> Made {
    let mut made = by.clone();
    made.alias = Some(kind.to_string());
    made.time = time;
    made.cols.insert("time".to_string(), Val::Ts(time));
    let own = columns.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    made.parts.insert(kind.to_string(), Val::Obj(own));
    made
}
