//! Edges: rows that last, as the instants at which they begin and end.
//!
//! *In*: rows with a start and, once they are over, an end. *Out*: how many last at an instant, and for how long in a
//! window. *Never*: a sum over the rows that last: only beginnings and ends are counted, so a row may last for years.
//!
//! A row of weight w adds w at its start and takes w away at its end. With C(t) the sum of weights before t and S(t) the
//! sum of weight times instant, C(t) rows last at t, and the time spent before t is t * C(t) - S(t).

use std::sync::{Arc, LazyLock};

use contracts::catalog::Agg;
use contracts::value::Value;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::acc::weigh;

/// The edges of one fold in one pane, summed up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Sum of weights.
    pub count: i64,
    /// Sum of weight times instant, microseconds.
    pub moment: i128,
}

impl Edge {
    /// Adds an edge at `time`.
    pub fn add(&mut self, time: i64, weight: i64) {
        self.count += weight;
        self.moment += i128::from(time) * i128::from(weight);
    }

    /// Adds what another one sums up.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.moment += other.moment;
    }

    /// Time spent before `t`, microseconds.
    fn before(&self, t: i64) -> i128 {
        i128::from(t) * i128::from(self.count) - self.moment
    }

    fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// One [`Edge`] per fold; those that are not about lasting rows stay zero.
pub type Edges = Arc<[Edge]>;

/// The edges of one key. Most keys have none.
#[derive(Debug, Clone, Default)]
pub struct EdgeCell(Option<Box<Held>>);

#[derive(Debug, Clone, Default)]
struct Held {
    panes: OrdMap<i64, Edges>,
    /// Those older than retention.
    base: Option<Edges>,
    /// Times of rows, and the pane of their last end: rows that may last longer than their own pane is kept.
    rows: OrdMap<(i64, i64), i64>,
    /// The same by pane.
    ends: OrdMap<(i64, i64), i64>,
}

/// What a key without edges holds.
static NONE: LazyLock<Held> = LazyLock::new(Held::default);

fn merged(a: &Edges, b: &Edges) -> Edges {
    let mut sum: Vec<Edge> = a.to_vec();
    for (edge, more) in sum.iter_mut().zip(b.iter()) {
        edge.merge(more);
    }
    sum.into()
}

/// Whether beginnings and ends have taken each other back.
pub(super) fn is_zero(edges: &Edges) -> bool {
    edges.iter().all(Edge::is_zero)
}

/// `edges += more`.
pub(super) fn merge(edges: &mut Edges, more: &Edges) {
    *edges = merged(edges, more);
}

impl EdgeCell {
    /// From panes, what is older than retention, and rows remembered ([`EdgeCell::remembered`]).
    pub fn of(panes: OrdMap<i64, Edges>, base: Option<Edges>, rows: OrdMap<(i64, i64), i64>) -> Self {
        if panes.is_empty() && base.is_none() && rows.is_empty() {
            return Self(None);
        }
        let ends = rows.iter().map(|((time, until), weight)| ((*until, *time), *weight)).collect();
        Self(Some(Box::new(Held { panes, base, rows, ends })))
    }

    fn held(&self) -> &Held {
        self.0.as_deref().unwrap_or(&NONE)
    }

    /// Rows remembered by their time and the pane of their last end, with their weight.
    pub fn remembered(&self) -> &OrdMap<(i64, i64), i64> {
        &self.held().rows
    }

    /// Panes, and what is older than retention.
    pub fn parts(&self) -> (&OrdMap<i64, Edges>, &Option<Edges>) {
        let Held { panes, base, .. } = self.held();
        (panes, base)
    }

    /// Adds to a pane; one older than `oldest` counts for good.
    pub fn add(&mut self, pane: i64, oldest: i64, edges: &Edges) {
        let held = self.0.get_or_insert_default();
        if pane < oldest {
            return held.add_base(edges);
        }
        let sum = held.panes.get(&pane).map_or_else(|| Arc::clone(edges), |known| merged(known, edges));
        match is_zero(&sum) {
            true => held.panes.remove(&pane),
            false => held.panes.insert(pane, sum),
        };
    }

    /// Remembers rows by their times, weighed, until pane `until` is forgotten.
    pub fn remember(&mut self, until: i64, rows: &[(i64, i64)]) {
        let held = self.0.get_or_insert_default();
        for (time, weight) in rows {
            weigh(&mut held.rows, (*time, until), *weight);
            weigh(&mut held.ends, (until, *time), *weight);
        }
    }

    /// The least time of the rows remembered.
    pub fn first_row(&self) -> Option<i64> {
        self.held().rows.get_min().map(|((time, _), _)| *time)
    }

    /// Moves a pane to what is older than retention. `all`: rows that have ended still count.
    pub fn forget(&mut self, pane: i64, all: bool) {
        let Some(held) = &mut self.0 else { return };
        let gone: Vec<(i64, i64)> =
            held.ends.range((pane, i64::MIN)..=(pane, i64::MAX)).map(|(end, _)| *end).collect();
        for (until, time) in gone {
            held.ends.remove(&(until, time));
            held.rows.remove(&(time, until));
        }
        if let Some(edges) = held.panes.remove(&pane) {
            held.add_base(&edges);
        }
        // Of rows that are over, a window with a beginning sees nothing before it.
        if !all && held.base.as_ref().is_some_and(|base| base.iter().all(|edge| edge.count == 0)) {
            held.base = None;
        }
    }

    /// Whether nothing is left of all edges.
    pub fn is_empty(&self) -> bool {
        let Held { panes, base, rows, .. } = self.held();
        panes.is_empty() && base.is_none() && rows.is_empty()
    }

    /// The pane of the first edge; `None`: there is none, or it is older than retention.
    pub fn first(&self) -> Option<i64> {
        let Held { panes, base, .. } = self.held();
        match base {
            Some(_) => Some(i64::MIN),
            None => panes.get_min().map(|(pane, _)| *pane),
        }
    }

    /// Adds what lies before pane `to` to `sum`.
    pub fn sum(&self, to: i64, sum: &mut Vec<Edge>) {
        let Held { panes, base, .. } = self.held();
        for edges in base.iter().chain(panes.range(..to).map(|(_, edges)| edges)) {
            sum.resize(sum.len().max(edges.len()), Edge::default());
            for (edge, more) in sum.iter_mut().zip(edges.iter()) {
                edge.merge(more);
            }
        }
    }
}

impl Held {
    fn add_base(&mut self, edges: &Edges) {
        let base = self.base.as_ref().map_or_else(|| Arc::clone(edges), |base| merged(base, edges));
        self.base = (!is_zero(&base)).then_some(base);
    }
}

/// The edges before both ends of a window, per fold.
#[derive(Debug, Clone, Default)]
pub struct Lasting {
    /// Before its start; empty: it has none.
    pub start: Vec<Edge>,
    /// Before its end.
    pub end: Vec<Edge>,
}

impl Lasting {
    /// The answer cell of a fold; `start` is the window's, if it has one, `end` where the answer ends.
    pub fn finish(&self, agg: &Agg, fold: usize, start: Option<i64>, end: i64) -> Value {
        let at = |edges: &[Edge]| edges.get(fold).copied().unwrap_or_default();
        let ended = at(&self.end);
        if *agg == Agg::Concurrent {
            return Value::Int(ended.count);
        }
        let before = start.map_or(0, |start| at(&self.start).before(start));
        i64::try_from(ended.before(end) - before).map_or(Value::Null, Value::Duration)
    }

    /// Whether nothing lasts in a window that ends at `end`.
    pub fn is_nothing(&self, aggs: impl Iterator<Item = Agg>, start: Option<i64>, end: i64) -> bool {
        let mut folds = aggs.enumerate().filter(|(_, agg)| agg.is_span());
        folds.all(|(fold, _)| {
            let spent = self.finish(&Agg::DurationInState, fold, start, end);
            let count = self.finish(&Agg::Concurrent, fold, start, end);
            matches!((spent, count), (Value::Duration(0), Value::Int(0)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_clipped_to_the_window() {
        let mut cell = EdgeCell::default();
        let mut edge = |at: i64, weight: i64| {
            let mut edge = Edge::default();
            edge.add(at, weight);
            cell.add(at / 10, 2, &Edges::from([edge]));
        };
        // [5, 42) begins before retention, [33, ..) is open.
        edge(5, 1);
        edge(42, -1);
        edge(33, 1);
        let mut lasting = Lasting::default();
        cell.sum(3, &mut lasting.start);
        cell.sum(5, &mut lasting.end);
        assert_eq!(lasting.finish(&Agg::Concurrent, 0, Some(30), 50), Value::Int(1));
        assert_eq!(lasting.finish(&Agg::DurationInState, 0, Some(30), 50), Value::Duration(12 + 17));
        cell.forget(4, true);
        let mut all = Vec::new();
        cell.sum(i64::MAX, &mut all);
        assert_eq!(all, [Edge { count: 1, moment: 5 - 42 + 33 }]);
    }

    #[test]
    fn rows_are_known_until_their_end_is_forgotten() {
        let mut cell = EdgeCell::default();
        cell.remember(i64::MAX, &[(7, 1)]);
        cell.remember(4, &[(5, 1), (6, 2)]);
        assert_eq!(cell.first_row(), Some(5));
        cell.remember(4, &[(5, -1)]);
        assert_eq!(cell.first_row(), Some(6));
        cell.forget(4, false);
        assert_eq!(cell.first_row(), Some(7));
        assert!(!cell.is_empty());
        cell.remember(i64::MAX, &[(7, -1)]);
        assert!(cell.is_empty());
    }

    #[test]
    fn what_is_over_leaves_nothing_unless_everything_counts() {
        for all in [false, true] {
            let mut cell = EdgeCell::default();
            for (at, weight) in [(5, 1), (42, -1)] {
                let mut edge = Edge::default();
                edge.add(at, weight);
                cell.add(at / 10, 0, &Edges::from([edge]));
            }
            cell.forget(0, all);
            assert_eq!(cell.first(), Some(i64::MIN), "still lasting");
            cell.forget(4, all);
            assert_eq!(cell.is_empty(), !all);
        }
    }
}
