//! How one event type touches an entity's rows.
//!
//! *In*: batches of admitted events. *Out*: touches. *Never*: a touch of a row whose key or values cannot be computed.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use contracts::batch::EventBatch;
use contracts::catalog::EntityFeed;
use contracts::value::Value;

use super::{Moment, Touch};
use crate::admit::event_times;
use crate::eval::{Compiled, PlanError};

/// One feed compiled.
#[derive(Debug)]
pub(super) struct FeedPlan {
    pub(super) event: usize,
    pub(super) changelog: bool,
    key: Compiled,
    values: Vec<Option<Compiled>>,
}

impl FeedPlan {
    /// Compiles a feed; the error names the expression.
    pub(super) fn new(feed: &EntityFeed) -> Result<Self, (String, PlanError)> {
        let plan =
            |typed: &contracts::expr::Typed| Compiled::new(typed).map_err(|error| (typed.sql.clone(), error));
        let value = |v: &Option<contracts::expr::Typed>| v.as_ref().map(plan).transpose();
        Ok(Self {
            event: feed.event,
            changelog: feed.changelog,
            key: plan(&feed.key)?,
            values: feed.values.iter().map(value).collect::<Result<_, _>>()?,
        })
    }

    /// The touches of a batch; the result is how many rows touch nothing because they cannot be computed.
    pub(super) fn touches(&self, number: u32, batch: &EventBatch, out: &mut Vec<Touch>) -> u64 {
        let seen = Seen::new(self, batch);
        out.extend((0..batch.columns.num_rows()).filter_map(|row| seen.touch(number, batch, row)));
        seen.failed.len() as u64
    }
}

/// A batch as a feed sees it.
pub(super) struct Seen {
    keys: ArrayRef,
    values: Vec<Option<ArrayRef>>,
    times: Int64Array,
    /// Rows whose key or values cannot be computed.
    pub(super) failed: BTreeSet<usize>,
}

impl Seen {
    pub(super) fn new(feed: &FeedPlan, batch: &EventBatch) -> Self {
        let mut failed = BTreeSet::new();
        let mut evaluate = |compiled: &Compiled| {
            let evaluated = compiled.evaluate(&batch.columns);
            failed.extend(evaluated.errors.iter().map(|(row, _)| *row));
            evaluated.values
        };
        let keys = evaluate(&feed.key);
        let values = feed.values.iter().map(|value| value.as_ref().map(&mut evaluate)).collect();
        Self { keys, values, times: event_times(&batch.columns), failed }
    }

    /// What a row says about a row of the entity; `None`: nothing.
    pub(super) fn touch(&self, feed: u32, batch: &EventBatch, row: usize) -> Option<Touch> {
        if self.keys.is_null(row) || self.failed.contains(&row) {
            return None;
        }
        let cell = |column: &ArrayRef| Value::from_arrow(column.as_ref(), row);
        let moment = Moment {
            time: self.times.value(row),
            id: batch.ids.is_valid(row).then(|| Arc::from(batch.ids.value(row))),
            feed,
            values: self.values.iter().map(|v| v.as_ref().map(cell)).collect(),
        };
        let key = match cell(&self.keys) {
            Value::Text(text) => text,
            other => Arc::from(other.to_string()),
        };
        Some(Touch { key, moment, weight: 1 })
    }
}
