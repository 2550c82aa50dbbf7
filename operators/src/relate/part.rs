//! A batch of admitted events becomes rows of a part.
//!
//! *In*: a batch, and the feeds of a part that read its event type. *Out*: messages: versions for change streams,
//! rows for all others. *Never*: an event that neither becomes a row nor is counted as lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, new_null_array};
use arrow::datatypes::{DataType, Date32Type, TimestampMicrosecondType};
use contracts::batch::{ChangeOp, EventBatch, Partition};
use contracts::catalog::PartFeed;
use contracts::expr::Typed;
use contracts::value::Value;

use super::versions::Place;
use super::{Message, Origin, PartRow, RelationPlan, key};
use crate::eval::{Compiled, PlanError};
use crate::fold::group::Lost;
use crate::fold::panes::{Key, route_hash};

/// One feed of a part compiled.
#[derive(Debug)]
pub struct FeedPlan {
    /// Index into the catalog's events.
    pub event: usize,
    filter: Option<Compiled>,
    cells: Vec<Compiled>,
    time: Option<Compiled>,
    identity: Vec<Compiled>,
    lists: Vec<Vec<String>>,
    /// First value of every name: rows of different event types are different rows.
    family: Value,
    /// The place of its event among those that the relation reads: the same whatever other events there are.
    rank: u32,
}

impl FeedPlan {
    /// `rank` is the place of its event among those that the relation reads, by name.
    pub(super) fn new(feed: &PartFeed, rank: usize) -> Result<Self, (String, PlanError)> {
        let plan = |typed: &Typed| Compiled::new(typed).map_err(|error| (typed.sql.clone(), error));
        Ok(Self {
            event: feed.event,
            filter: feed.filter.as_ref().map(plan).transpose()?,
            cells: feed.cells.iter().map(plan).collect::<Result<_, _>>()?,
            time: feed.time.as_ref().map(plan).transpose()?,
            identity: feed.identity.iter().map(plan).collect::<Result<_, _>>()?,
            lists: feed.lists.clone(),
            family: Value::Int(if feed.of_table { -1 } else { rank as i64 }),
            rank: rank as u32,
        })
    }
}

/// A batch as a feed sees it.
struct Seen {
    rank: u32,
    passes: Option<BooleanArray>,
    cells: Vec<ArrayRef>,
    times: Option<ArrayRef>,
    identity: Vec<ArrayRef>,
    failed: BTreeSet<usize>,
}

/// The column at a path; nulls where there is none.
fn list(batch: &EventBatch, path: &[String]) -> ArrayRef {
    let none = || new_null_array(&DataType::Null, batch.columns.num_rows());
    let Some((first, inner)) = path.split_first() else { return none() };
    let Some(column) = batch.columns.column_by_name(first) else { return none() };
    let below = |array: Option<ArrayRef>, name: &String| {
        let structs = array?;
        let structs = structs.as_struct_opt()?;
        // What an absent struct holds is absent.
        let inner = structs.column_by_name(name)?;
        let there = arrow::compute::is_not_null(structs).ok()?;
        arrow::compute::nullif(inner, &arrow::compute::not(&there).ok()?).ok()
    };
    inner.iter().fold(Some(Arc::clone(column)), below).unwrap_or_else(none)
}

impl Seen {
    fn new(feed: &FeedPlan, batch: &EventBatch) -> Self {
        let mut failed = BTreeSet::new();
        let mut evaluate = |compiled: &Compiled| {
            let evaluated = compiled.evaluate(&batch.columns);
            failed.extend(evaluated.errors.iter().map(|(row, _)| *row));
            evaluated.values
        };
        let own = feed.cells.iter().map(&mut evaluate);
        let cells =
            own.collect::<Vec<_>>().into_iter().chain(feed.lists.iter().map(|path| list(batch, path)));
        let cells = cells.collect();
        let times = feed.time.as_ref().map(&mut evaluate);
        let identity = feed.identity.iter().map(&mut evaluate).collect();
        let passes = feed.filter.as_ref().map(|filter| {
            let (passes, errors) = filter.evaluate_bool(&batch.columns);
            failed.extend(errors.iter().map(|(row, _)| *row));
            passes
        });
        Self { rank: feed.rank, passes, cells, times, identity, failed }
    }

    fn passes(&self, row: usize) -> bool {
        self.passes.as_ref().is_none_or(|passes| passes.is_valid(row) && passes.value(row))
    }

    /// The row's time; `None`: it has none.
    fn time(&self, row: usize) -> Option<i64> {
        const DAY: i64 = 86_400_000_000;
        let Some(times) = &self.times else { return Some(i64::MIN) };
        if let Some(times) = times.as_primitive_opt::<TimestampMicrosecondType>() {
            return times.is_valid(row).then(|| times.value(row));
        }
        let days = times.as_primitive_opt::<Date32Type>()?;
        days.is_valid(row).then(|| i64::from(days.value(row)) * DAY)
    }

    fn row(&self, batch: &EventBatch, row: usize, time: i64, origin: Option<Origin>) -> Arc<PartRow> {
        let cells = self.cells.iter().map(|column| Value::from_arrow(column.as_ref(), row)).collect();
        let id = batch.ids.is_valid(row).then(|| Arc::from(batch.ids.value(row)));
        Arc::new(PartRow { time, id, event: self.rank, origin, cells })
    }

    fn identity(&self, feed: &FeedPlan, row: usize) -> Option<Key> {
        let own = self.identity.iter().map(|column| Value::from_arrow(column.as_ref(), row));
        let cells: Vec<Value> = std::iter::once(feed.family.clone()).chain(own).collect();
        key(cells.iter())
    }
}

impl RelationPlan {
    /// The messages of a batch for the parts that its event type feeds; `workers` is how many there are.
    pub fn read(
        &self,
        partition: &Partition,
        batch: &EventBatch,
        workers: usize,
        lost: &mut Lost,
        mut give: impl FnMut(Message),
    ) {
        let partition = Arc::new(partition.clone());
        for (part, feeds) in self.parts.iter().enumerate() {
            for feed in feeds.iter().filter(|feed| feed.event == batch.event) {
                let seen = Seen::new(feed, batch);
                let stream = route_hash(&*partition);
                for row in 0..batch.columns.num_rows() {
                    let origin = origin(part, &partition, batch, row);
                    let result = if feed.identity.is_empty() {
                        self.plain(part, &seen, (batch, row, origin), &mut give)
                    } else {
                        let at = (batch, row, origin, stream);
                        version((part, feed), &seen, at, workers, &mut give)
                    };
                    if let Err(reason) = result {
                        *lost.entry(reason).or_default() += 1;
                    }
                }
            }
        }
    }

    /// An event that is a row of its own.
    fn plain(
        &self,
        part: usize,
        seen: &Seen,
        (batch, row, origin): (&EventBatch, usize, Option<Origin>),
        give: &mut impl FnMut(Message),
    ) -> Result<(), &'static str> {
        if seen.failed.contains(&row) {
            return Err("evaluation");
        }
        if !seen.passes(row) {
            return Ok(());
        }
        let time = seen.time(row).ok_or("no_time")?;
        let message = self.enter(part, seen.row(batch, row, time, origin), 1);
        message.into_iter().for_each(give);
        Ok(())
    }
}

/// An event that is a version of a row.
fn version(
    (part, feed): (usize, &FeedPlan),
    seen: &Seen,
    (batch, row, origin, stream): (&EventBatch, usize, Option<Origin>, u64),
    workers: usize,
    give: &mut impl FnMut(Message),
) -> Result<(), &'static str> {
    let change = batch.changes.as_ref().map(|changes| changes[row]);
    let place = Place {
        stream,
        offset: batch.offsets[row],
        part: batch.parts[row],
        at: change.map_or(batch.received[row], |change| change.at),
    };
    let op = change.map_or(ChangeOp::Upsert, |change| change.op);
    let time = seen.time(row);
    let since = time.unwrap_or(i64::MIN);
    if op == ChangeOp::Truncate {
        let family = || feed.family.clone();
        (0..workers as u64).for_each(|worker| {
            give(Message::Truncate { part, family: family(), worker, place, time: since })
        });
        return Ok(());
    }
    let identity = seen.identity(feed, row).ok_or("no_key")?;
    let failed = seen.failed.contains(&row);
    let whole = op == ChangeOp::Upsert && !failed && seen.passes(row);
    let state = time.filter(|_| whole).map(|time| seen.row(batch, row, time, origin));
    let lost = op == ChangeOp::Upsert && state.is_none();
    give(Message::Version { part, identity, place, time: since, row: state });
    match (failed, time) {
        (true, _) if lost => Err("evaluation"),
        (false, None) if lost => Err("no_time"),
        _ => Ok(()),
    }
}

/// What tells partners apart that are alike in time and id. Rows of change streams are known by their keys.
fn origin(part: usize, partition: &Arc<Partition>, batch: &EventBatch, row: usize) -> Option<Origin> {
    (part > 0 && batch.changes.is_none()).then(|| Origin {
        partition: Arc::clone(partition),
        offset: batch.offsets[row],
        part: batch.parts[row],
    })
}
