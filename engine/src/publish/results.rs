//! What a metric says of windows that are over.
//!
//! *In*: a published tick, and an earlier one of the same engine. *Out*: the answers about windows that are over, but for
//! those that cannot have changed since. *Never*: an answer that differs from the one a reader of the tick is given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contracts::catalog::{Fold, MeasureKind, WindowKind};
use operators::fold::panes::Cell;

use super::{Answer, MetricQuery, Published};

/// Panes whose rows may differ.
enum Touched {
    All,
    These(BTreeSet<i64>),
}

impl Published {
    /// Answers about the windows of `metric` that are over (their end and the lateness have passed), hold rows or may
    /// have held some, and may differ from those at `before`; of all such windows without one. By all dimensions.
    /// Sliding windows and sessions are not among them, nor what reaches further back than the metric's history.
    pub fn closed(&self, metric: usize, before: Option<&Published>) -> Vec<Answer> {
        let plan = self.plan.metrics[metric].as_ref();
        let before = before.filter(|before| Arc::ptr_eq(&before.plan, &self.plan));
        let touched = before.map_or(Touched::All, |before| self.touched(metric, before));
        let panes = match &touched {
            Touched::All => self.panes(metric),
            Touched::These(panes) => panes.clone(),
        };
        let oldest = self.kept_from(metric);
        let by: Vec<String> = plan.metric.dimensions.iter().map(|dimension| dimension.name.clone()).collect();
        let mut answers = Vec::new();
        for (window, extent) in plan.metric.windows.iter().zip(&plan.extents) {
            if !ends(&window.kind) {
                continue;
            }
            let around = |instant: i64| extent.at(instant).map(|bounds| (bounds.start, bounds.end));
            let mut windows: BTreeMap<i64, i64> = panes
                .iter()
                .filter_map(|pane| around(pane.saturating_mul(plan.step).saturating_add(1)))
                .collect();
            if let Some(before) = before {
                let mut at = before.as_of.saturating_sub(plan.metric.lateness).max(oldest.saturating_add(1));
                while let Some((start, end)) = around(at).filter(|(_, end)| self.is_over(metric, *end)) {
                    if self.has_rows(metric, plan.pane(start), plan.pane(end)) {
                        windows.insert(start, end);
                    }
                    at = end.saturating_add(1);
                }
            }
            windows.retain(|start, end| *start >= oldest && self.is_over(metric, *end));
            for end in windows.into_values() {
                let (window, by) = (Some(window.name.clone()), by.clone());
                let query = MetricQuery { window, by, as_of: Some(end), ..MetricQuery::default() };
                // Only an instant that is not kept is refused.
                answers.extend(self.metric(metric, &query));
            }
        }
        answers
    }

    /// Windows of `metric` that begin earlier are not answered any more.
    pub fn kept_from(&self, metric: usize) -> i64 {
        let plan = self.plan.metrics[metric].as_ref();
        plan.oldest_pane(self.as_of).saturating_mul(plan.step)
    }

    fn is_over(&self, metric: usize, end: i64) -> bool {
        end.saturating_add(self.plan.metrics[metric].metric.lateness) <= self.as_of
    }

    fn cells(&self, metric: usize) -> impl Iterator<Item = &Arc<Cell>> {
        self.shards.iter().flat_map(move |shards| shards.metrics[metric].cells.values())
    }

    fn panes(&self, metric: usize) -> BTreeSet<i64> {
        self.cells(metric).flat_map(|cell| cell.panes.keys().copied()).collect()
    }

    fn has_rows(&self, metric: usize, from: i64, to: i64) -> bool {
        self.cells(metric).any(|cell| cell.panes.range(from..to).next().is_some())
    }

    /// Panes that are not what they were.
    fn touched(&self, metric: usize, before: &Published) -> Touched {
        if self.metric_revision(metric) == before.metric_revision(metric) {
            return Touched::These(BTreeSet::new());
        }
        if self.reaches_beyond(metric) || before.reaches_beyond(metric) {
            return Touched::All;
        }
        let mut touched = BTreeSet::new();
        for (now, then) in self.shards.iter().zip(&before.shards) {
            let (now, then) = (&now.metrics[metric].cells, &then.metrics[metric].cells);
            for (key, cell) in now {
                match then.get(key) {
                    Some(same) if Arc::ptr_eq(same, cell) => {}
                    Some(other) => differences(other, cell, &mut touched),
                    None => touched.extend(cell.panes.keys()),
                }
            }
            let gone = then.iter().filter(|(key, _)| !now.contains_key(*key));
            touched.extend(gone.flat_map(|(_, cell)| cell.panes.keys().copied()));
        }
        Touched::These(touched)
    }

    /// Whether rows of one pane may change what windows without it say: other windows are looked at, rows last, or values
    /// of a dimension give way to earlier ones.
    fn reaches_beyond(&self, metric: usize) -> bool {
        let contract = &self.plan.metrics[metric].metric;
        let other = |kind: &MeasureKind| matches!(kind, MeasureKind::Shift { .. } | MeasureKind::Over { .. });
        contract.measures.iter().any(|measure| other(&measure.kind))
            || contract.folds.iter().any(|Fold { agg, .. }| agg.is_span())
            || contract.dimensions.iter().enumerate().any(|(index, dimension)| {
                let values = self.shards.iter().flat_map(|shards| shards.metrics[metric].cells.keys());
                let mut seen = BTreeSet::new();
                let mut distinct = values.filter(|key| seen.insert(&key.values[index]));
                distinct.nth(dimension.max).is_some()
            })
    }
}

/// Whether windows of this kind come to an end and stay as they were.
fn ends(kind: &WindowKind) -> bool {
    matches!(kind, WindowKind::Tumbling { .. } | WindowKind::Days { .. } | WindowKind::ToDate { .. })
}

/// Numbers of the panes that two cells do not share.
fn differences(before: &Cell, now: &Cell, touched: &mut BTreeSet<i64>) {
    let shared = |one: &Cell, other: &Cell, into: &mut BTreeSet<i64>| {
        for (number, pane) in &one.panes {
            if other.panes.get(number).is_none_or(|same| !Arc::ptr_eq(same, pane)) {
                into.insert(*number);
            }
        }
    };
    shared(now, before, touched);
    shared(before, now, touched);
}
