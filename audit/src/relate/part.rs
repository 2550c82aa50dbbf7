//! The rows of one alias or table.
//!
//! *In*: its events. *Out*: rows: every event that passes, or the newest version of each row of a change stream.
//! *Never*: an older version in place of a newer one.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use contracts::batch::{ChangeOp, Kept};
use contracts::catalog::{Part, PartFeed};
use contracts::value::Value;

use super::before_now;
use crate::ask::AuditError;
use crate::eval::{evaluate, holds};
use crate::stages::{Work, events_of};

/// Rows of a part.
#[derive(Debug, Default)]
pub(super) struct PartRows {
    /// One per cell; all rows.
    cells: Vec<ArrayRef>,
    /// Time of each row; the least instant for what holds since ever.
    pub(super) at: Vec<i64>,
    ids: Vec<Option<String>>,
    /// What to call each row.
    pub(super) names: Vec<String>,
    /// Where each row stands among those alike in time and id.
    places: Vec<(String, String, String, i32, i64, u32)>,
    /// The tick that admitted each row, and its clock.
    pub(super) arrived: Vec<(u64, i64)>,
    /// Event time, event type and name of every event, whether or not it is a row.
    pub(super) events: Vec<(i64, usize, String)>,
    /// Rows of a table.
    pub(super) is_table: bool,
}

impl PartRows {
    pub(super) fn len(&self) -> usize {
        self.at.len()
    }

    pub(super) fn id(&self, row: usize) -> Option<String> {
        self.ids[row].clone()
    }

    pub(super) fn cell(&self, cell: usize) -> Result<ArrayRef, AuditError> {
        let column = self.cells.get(cell).cloned();
        column.ok_or_else(|| AuditError::Inner("a cell that the part does not have".to_owned()))
    }

    /// The order of rows by where they stand.
    pub(super) fn ties(&self) -> Vec<i64> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by(|a, b| self.places[*a].cmp(&self.places[*b]));
        let mut ties = vec![0; self.len()];
        order.into_iter().enumerate().for_each(|(tie, row)| ties[row] = tie as i64);
        ties
    }
}

/// What one event type brings.
struct Brought {
    batch: RecordBatch,
    cells: Vec<ArrayRef>,
    /// Row of the part: it passes, has a time, and nothing failed.
    whole: Vec<bool>,
    at: Vec<i64>,
    names: StringArray,
    ids: StringArray,
    /// Event time.
    times: Vec<i64>,
    places: Vec<(String, String, String, i32, i64, u32)>,
    arrived: Vec<(u64, i64)>,
}

/// The rows of part `index` of relation `number`.
pub(super) fn rows(
    work: &mut Work<'_>,
    (number, index): (usize, usize),
    part: &Part,
) -> Result<PartRows, AuditError> {
    // All fields by name: what is added to a part must be looked at here.
    let Part { name: _, fields: _, feeds, history } = part;
    let mut all = PartRows { is_table: feeds.iter().any(|feed| feed.of_table), ..PartRows::default() };
    let mut columns: Vec<Vec<ArrayRef>> = Vec::new();
    for (turn, feed) in feeds.iter().enumerate() {
        let brought = bring(work, feed)?;
        let known = brought.times.iter().enumerate().filter(|(_, at)| **at < work.question.now);
        all.events.extend(known.map(|(row, at)| (*at, feed.event, brought.names.value(row).to_owned())));
        let place = format!("{number}_{index}_{turn}");
        let mut ends: Vec<Option<i64>> = Vec::new();
        let chosen = match (feed.identity.is_empty(), history) {
            (true, _) => (0..brought.whole.len())
                .filter(|row| brought.whole[*row] && brought.times[*row] < work.question.now)
                .collect(),
            (false, None) => newest(work, &place, feed, &brought)?,
            (false, Some(_)) => {
                let held;
                (held, ends) = every(work, &place, feed, &brought)?;
                held
            }
        };
        let positions = Int64Array::from(chosen.iter().map(|row| *row as i64).collect::<Vec<_>>());
        for (cell, column) in brought.cells.iter().enumerate() {
            if columns.len() <= cell {
                columns.push(Vec::new());
            }
            let mut column = take(column, &positions, None).map_err(AuditError::arrow)?;
            if *history == Some(cell) && !feed.identity.is_empty() {
                column = sooner(&column, &ends)?;
            }
            columns[cell].push(column);
        }
        for row in chosen {
            all.at.push(brought.at[row]);
            all.ids.push(brought.ids.is_valid(row).then(|| brought.ids.value(row).to_owned()));
            all.names.push(brought.names.value(row).to_owned());
            all.places.push(brought.places[row].clone());
            all.arrived.push(brought.arrived[row]);
        }
    }
    for parts in columns {
        // An event type that lacks the column brings nulls of no type.
        let typed = parts.iter().find(|part| *part.data_type() != DataType::Null).or(parts.first());
        let ty = typed.map_or(DataType::Null, |part| part.data_type().clone());
        let parts = parts.iter().map(|part| cast(part, &ty)).collect::<Result<Vec<_>, _>>();
        let parts = parts.map_err(AuditError::arrow)?;
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        all.cells.push(concat(&parts).map_err(AuditError::arrow)?);
    }
    Ok(all)
}

fn bring(work: &Work<'_>, feed: &PartFeed) -> Result<Brought, AuditError> {
    let PartFeed { event, filter, cells, time, identity: _, of_table: _, lists } = feed;
    let source = events_of(work.catalog, work.events, *event)?;
    let batch = source.batch;
    let rows = batch.num_rows();
    let mut whole = vec![true; rows];
    if let Some(filter) = filter {
        let (passes, failed) = holds(filter, &batch)?;
        whole.iter_mut().zip(passes.iter().zip(&failed)).for_each(|(whole, (passes, failed))| {
            *whole = *passes && !failed;
        });
    }
    let mut columns = Vec::new();
    for cell in cells {
        let evaluated = evaluate(cell, &batch)?;
        whole.iter_mut().zip(&evaluated.failed).for_each(|(whole, failed)| *whole &= !failed);
        columns.push(plain(&evaluated.values)?);
    }
    for path in lists {
        columns.push(list(&batch, path)?);
    }
    let mut at = vec![i64::MIN; rows];
    if let Some(time) = time {
        let evaluated = evaluate(time, &batch)?;
        let times = micros(&evaluated.values)?;
        let times = times.as_primitive::<Int64Type>();
        for row in 0..rows {
            whole[row] &= times.is_valid(row) && !evaluated.failed[row];
            at[row] = if times.is_valid(row) { times.value(row) } else { i64::MIN };
        }
    }
    let times = batch.column_by_name("time").map(micros).transpose()?;
    let times = times.map(|times| times.as_primitive::<Int64Type>().values().to_vec()).unwrap_or_default();
    let name = &work.catalog.events[*event].head.name;
    let kept = work.events.iter().filter(|kept| kept.batch.event == *event);
    let places = kept.flat_map(|kept| (0..kept.batch.offsets.len()).map(|row| place(name, kept, row)));
    let kept = work.events.iter().filter(|kept| kept.batch.event == *event);
    let arrived = kept.flat_map(|kept| vec![(kept.tick, kept.now); kept.batch.offsets.len()]);
    Ok(Brought {
        places: places.collect(),
        arrived: arrived.collect(),
        cells: columns,
        names: source.names,
        ids: source.ids,
        whole,
        at,
        times,
        batch,
    })
}

fn place(name: &str, kept: &Kept, row: usize) -> (String, String, String, i32, i64, u32) {
    let at = &kept.partition;
    let (offset, part) = (kept.batch.offsets[row], kept.batch.parts[row]);
    (name.to_owned(), at.source.to_string(), at.topic.to_string(), at.number, offset, part)
}

/// A column that is a list, by its path; nulls where there is none.
fn list(batch: &RecordBatch, path: &[String]) -> Result<ArrayRef, AuditError> {
    let none = || new_null_array(&DataType::Null, batch.num_rows());
    let Some((first, below)) = path.split_first() else { return Ok(none()) };
    let Some(column) = batch.column_by_name(first) else { return Ok(none()) };
    let mut column = Arc::clone(column);
    for name in below {
        let Some(structs) = column.as_struct_opt() else { return Ok(none()) };
        let Some(inner) = structs.column_by_name(name) else { return Ok(none()) };
        // What an absent struct holds is absent.
        let there: Int64Array =
            (0..structs.len()).map(|row| structs.is_valid(row).then_some(row as i64)).collect();
        column = take(inner, &there, None).map_err(AuditError::arrow)?;
    }
    Ok(column)
}

/// Text that is not interned: rows of several types come together.
fn plain(values: &ArrayRef) -> Result<ArrayRef, AuditError> {
    match values.data_type() {
        DataType::Dictionary(_, value) => cast(values, value).map_err(AuditError::arrow),
        _ => Ok(Arc::clone(values)),
    }
}

/// Instants and days as microseconds.
pub(super) fn micros(values: &ArrayRef) -> Result<ArrayRef, AuditError> {
    const DAY: i64 = 86_400_000_000;
    if values.as_primitive_opt::<TimestampMicrosecondType>().is_some() {
        return cast(values, &DataType::Int64).map_err(AuditError::arrow);
    }
    let days = cast(values, &DataType::Date32).and_then(|days| cast(&days, &DataType::Int64));
    let days = days.map_err(AuditError::arrow)?;
    let micros = days.as_primitive::<Int64Type>().iter().map(|day| Some(day? * DAY));
    Ok(Arc::new(micros.collect::<Int64Array>()))
}

/// The newest version of each row that is still there, as positions in what was brought.
fn newest(
    work: &mut Work<'_>,
    place: &str,
    feed: &PartFeed,
    brought: &Brought,
) -> Result<Vec<usize>, AuditError> {
    let versions = versions(work, feed, brought)?;
    let (table, newest) = (format!("versions_{place}"), format!("newest_{place}"));
    work.sql.table(&table, versions, None)?;
    let known = before_now(work);
    // In its partition the offset decides, between partitions the commit.
    let sql = format!(
        "SELECT * FROM (\n  SELECT *, ROW_NUMBER() OVER (PARTITION BY who ORDER BY committed DESC, stream DESC) AS last\n  \
         FROM (\n    SELECT *, ROW_NUMBER() OVER (PARTITION BY who, stream ORDER BY \"offset\" DESC, part DESC) AS own\n    \
         FROM {table} WHERE {known} AND op <> 'truncate' AND who IS NOT NULL\n  ) WHERE own = 1\n) WHERE last = 1"
    );
    work.sql.stage(&newest, sql)?;
    let sql = format!(
        "SELECT v.n AS n FROM {newest} AS v WHERE v.op = 'upsert' AND v.whole AND NOT EXISTS (\n  \
         SELECT 1 FROM {table} AS t WHERE t.op = 'truncate' AND t.{known}\n    AND ((t.stream = v.stream AND \
         (t.\"offset\" > v.\"offset\" OR (t.\"offset\" = v.\"offset\" AND t.part > v.part)))\n    \
         OR (t.stream <> v.stream AND t.committed >= v.committed))\n) ORDER BY n"
    );
    let rows = work.sql.stage(&format!("current_{place}"), sql)?;
    let numbers = rows.column_by_name("n").and_then(|column| column.as_primitive_opt::<Int64Type>());
    Ok(numbers.map(|numbers| numbers.values().iter().map(|n| *n as usize).collect()).unwrap_or_default())
}

/// Every version that holds at some instant, with the instant from which on it does not.
///
/// At an instant the version holds that is the newest of those whose time has come: one that is followed, in its
/// stream, by another with an earlier time never holds.
fn every(
    work: &mut Work<'_>,
    place: &str,
    feed: &PartFeed,
    brought: &Brought,
) -> Result<(Vec<usize>, Vec<Option<i64>>), AuditError> {
    let versions = versions(work, feed, brought)?;
    let table = format!("versions_{place}");
    work.sql.table(&table, versions, None)?;
    let known = before_now(work);
    let sql = format!(
        "SELECT v.n AS n, MIN(w.since) AS until\nFROM {table} AS v LEFT JOIN {table} AS w\n  \
         ON (w.op = 'truncate' OR w.who = v.who) AND w.{known}\n  \
         AND CASE WHEN w.stream <> v.stream THEN w.committed > v.committed\n    \
         ELSE w.\"offset\" > v.\"offset\" OR (w.\"offset\" = v.\"offset\" AND w.part > v.part) END\n\
         WHERE v.op = 'upsert' AND v.whole AND v.who IS NOT NULL AND v.{known}\n\
         GROUP BY v.n, v.since HAVING MIN(w.since) IS NULL OR MIN(w.since) > v.since ORDER BY v.n"
    );
    let rows = work.sql.stage(&format!("current_{place}"), sql)?;
    let column = |name: &str| {
        let column = rows.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
        column.ok_or_else(|| AuditError::Inner(format!("no column `{name}`")))
    };
    let numbers = column("n")?.values().iter().map(|n| *n as usize).collect();
    Ok((numbers, column("until")?.iter().collect()))
}

/// The end that a row tells of itself, or the one given where that is sooner.
fn sooner(own: &ArrayRef, ends: &[Option<i64>]) -> Result<ArrayRef, AuditError> {
    let own = match own.data_type() {
        DataType::Null => Arc::new(Int64Array::new_null(own.len())),
        _ => micros(own)?,
    };
    let own = own.as_primitive::<Int64Type>().iter();
    let ends = own.zip(ends).map(|(own, end)| own.into_iter().chain(*end).min());
    let ends: TimestampMicrosecondArray = ends.collect();
    Ok(Arc::new(ends.with_timezone("UTC")))
}

fn versions(work: &Work<'_>, feed: &PartFeed, brought: &Brought) -> Result<RecordBatch, AuditError> {
    let rows = brought.whole.len();
    let mut names: Vec<Option<String>> = vec![Some(String::new()); rows];
    for typed in &feed.identity {
        let evaluated = evaluate(typed, &brought.batch)?;
        for (row, name) in names.iter_mut().enumerate() {
            let value = Value::from_arrow(evaluated.values.as_ref(), row);
            let longer = name.take().filter(|_| !value.is_null() && !evaluated.failed[row]);
            *name = longer.map(|name| format!("{name}{}|", value.to_json(None)));
        }
    }
    let kept = || work.events.iter().filter(|kept| kept.batch.event == feed.event);
    let each = |read: &dyn Fn(&Kept, usize) -> i64| -> ArrayRef {
        let of =
            |kept: &Arc<Kept>| (0..kept.batch.offsets.len()).map(|row| read(kept, row)).collect::<Vec<i64>>();
        Arc::new(kept().flat_map(of).collect::<Int64Array>())
    };
    let op = |kept: &Kept, row: usize| match kept.batch.changes.as_ref().map(|changes| changes[row].op) {
        None | Some(ChangeOp::Upsert) => "upsert",
        Some(ChangeOp::Delete) => "delete",
        Some(ChangeOp::Truncate) => "truncate",
    };
    let ops = kept().flat_map(|kept| (0..kept.batch.offsets.len()).map(move |row| Some(op(kept, row))));
    let streams: StringArray =
        brought.places.iter().map(|p| Some(format!("{}/{}/{}", p.1, p.2, p.3))).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new((0..rows as i64).collect::<Int64Array>())),
        ("who", Arc::new(names.into_iter().collect::<StringArray>())),
        ("stream", Arc::new(streams)),
        ("offset", each(&|kept, row| kept.batch.offsets[row])),
        ("part", each(&|kept, row| i64::from(kept.batch.parts[row]))),
        (
            "committed",
            each(&|kept, row| {
                kept.batch.changes.as_ref().map_or(kept.batch.received[row], |changes| changes[row].at)
            }),
        ),
        ("at", Arc::new(Int64Array::from(brought.times.clone()))),
        ("since", Arc::new(Int64Array::from(brought.at.clone()))),
        ("op", Arc::new(ops.collect::<StringArray>())),
        ("whole", Arc::new(BooleanArray::from(brought.whole.clone()))),
    ];
    RecordBatch::try_from_iter(columns).map_err(AuditError::arrow)
}
