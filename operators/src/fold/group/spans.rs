//! Rows that last, as changes of their groups.
//!
//! *In*: the rows of a batch, from and until when they last. *Out*: [`Delta`]s of beginnings and ends, and the times of
//! rows that are known by lasting alone once their own pane is gone. *Never*: an end ahead of the clock that counts
//! already: its change waits for its instant.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::HashMap;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::TimestampMicrosecondType;
use contracts::catalog::Input;

use super::super::edges::Edge;
use super::super::panes::{Key, Pane};
use super::super::plan::{FeedPlan, MetricPlan};
use super::{Codes, Delta, Groups, Inputs, Rows, SKIP};

/// A batch as `group` has understood it so far.
pub(super) struct Seen<'a> {
    pub(super) plan: &'a MetricPlan,
    pub(super) feed: &'a FeedPlan,
    pub(super) rows: Rows<'a>,
    pub(super) times: &'a Int64Array,
    pub(super) dimensions: &'a [Codes],
}

/// Keys by number.
#[derive(Default)]
struct Keys {
    known: HashMap<Vec<u32>, usize>,
    named: Vec<Key>,
}

impl Keys {
    fn of(&mut self, dimensions: &[Codes], row: usize) -> usize {
        let codes: Vec<u32> = dimensions.iter().map(|d| d.codes[row]).collect();
        *self.known.entry(codes).or_insert_with_key(|codes| {
            let values = codes.iter().zip(dimensions).map(|(c, d)| d.values[*c as usize].clone());
            self.named.push(Key::new(values));
            self.named.len() - 1
        })
    }
}

impl Seen<'_> {
    pub(super) fn deltas(&self, inputs: &Inputs, groups: &Groups) -> Vec<Delta> {
        let plan = self.plan;
        // The rows of a sequence begin and end before now; those of others may say what is still to come.
        let behind = self.is_behind();
        let mut keys = Keys::default();
        let mut found: BTreeMap<(usize, i64, i64), Vec<Edge>> = BTreeMap::new();
        // Until when a row lasts, for whichever fold it does so longest; `i64::MAX`: still.
        let mut until: BTreeMap<usize, i64> = BTreeMap::new();
        for (fold, (span, input)) in self.feed.spans.iter().zip(&self.feed.folds).enumerate() {
            let (Some((start, end)), Some((_, filter))) = (span, input) else { continue };
            let (starts, ends) =
                (start.evaluate(self.rows.batch).values, end.evaluate(self.rows.batch).values);
            let filter = filter.map(|filter| &inputs.filters[filter]);
            for row in (0..groups.of_row.len()).filter(|row| groups.of_row[*row] != SKIP) {
                let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
                let Some(from) = instant(&starts, row).filter(|_| passes) else { continue };
                let to = instant(&ends, row);
                if to.is_some_and(|to| to <= from) {
                    continue;
                }
                let key = keys.of(self.dimensions, row);
                let weight = self.weight(row);
                let mut add = |time: i64, weight: i64| {
                    let none = || vec![Edge::default(); plan.specs.len()];
                    let at = if behind { i64::MIN } else { time };
                    found.entry((key, plan.pane(time), at)).or_insert_with(none)[fold].add(time, weight);
                };
                add(from, weight);
                if let Some(to) = to {
                    add(to, -weight);
                }
                let last = until.entry(row).or_insert(i64::MIN);
                *last = (*last).max(to.unwrap_or(i64::MAX));
            }
        }
        let mut deltas = self.outlasting(until, &mut keys);
        deltas.extend(found.into_iter().map(|((key, pane, at), edges)| Delta {
            key: keys.named[key].clone(),
            pane,
            change: Pane::zero(&plan.specs),
            edges: Some(edges.into()),
            lasting: None,
            at,
        }));
        deltas
    }

    /// The times of rows that may last when their own panes are gone, or before they count themselves.
    fn outlasting(&self, until: BTreeMap<usize, i64>, keys: &mut Keys) -> Vec<Delta> {
        let plan = self.plan;
        if plan.metric.dimensions.is_empty() {
            return Vec::new();
        }
        let ahead = self.feed.moment.is_some() || matches!(self.feed.input, Input::Entity(_));
        let mut found: BTreeMap<(usize, i64), Vec<(i64, i64)>> = BTreeMap::new();
        for (row, until) in until {
            let time = self.times.value(row);
            let pane = if until == i64::MAX { i64::MAX } else { plan.pane(until) };
            if ahead || pane > plan.pane(time) {
                let key = keys.of(self.dimensions, row);
                found.entry((key, pane)).or_default().push((time, self.weight(row)));
            }
        }
        let delta = |((key, pane), times): ((usize, i64), Vec<(i64, i64)>)| Delta {
            key: keys.named[key].clone(),
            pane,
            change: Pane::zero(&plan.specs),
            edges: None,
            lasting: Some(Arc::from(times)),
            at: i64::MIN,
        };
        found.into_iter().map(delta).collect()
    }

    fn is_behind(&self) -> bool {
        let relations = &self.plan.metric.relations;
        matches!(self.feed.input, Input::Relation(number) if relations[number].sequence.is_some())
    }

    fn weight(&self, row: usize) -> i64 {
        self.rows.weights.map_or(1, |weights| weights[row])
    }
}

fn instant(column: &ArrayRef, row: usize) -> Option<i64> {
    let times = column.as_primitive_opt::<TimestampMicrosecondType>()?;
    times.is_valid(row).then(|| times.value(row))
}
