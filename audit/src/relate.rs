//! Rows that remember others: joins, tables, change streams, as SQL over their parts.
//!
//! *In*: a relation of the metric, its events. *Out*: its rows. *Never*: arrival order; rows are made from everything
//! known now.
//!
//! part (events become rows of an alias or table) → step by step a statement that finds partners → rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use contracts::catalog::{Missing, Order, Pick, Relation, Step};

use crate::ask::{AuditError, Lost};
use crate::reach::is_alias;
use crate::rows::Source;
use crate::stages::{Work, instant};
use crate::window;

mod part;
mod sequence;
mod ships;
mod told;

use part::PartRows;

/// Ids shown per reason.
const IDS: usize = 5;

/// Rows as they grow: per row one position per part so far.
#[derive(Debug, Clone)]
struct Row {
    parts: Vec<Option<usize>>,
    time: i64,
    id: Option<String>,
}

/// The rows of a relation.
pub(crate) fn rows(work: &mut Work<'_>, number: usize) -> Result<Source, AuditError> {
    let relation = work.metric.relations[number].clone();
    // All fields by name: what is added to a relation must be looked at here.
    let Relation { schema: _, flat: _, parts, steps, sequence } = &relation;
    let mut made = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        made.push(part::rows(work, (number, index), part)?);
        let told = told::part(work.catalog, (number, index), part);
        work.sql.tell(&format!("part_{number}_{index}"), told);
    }
    count(work, &relation, &made)?;
    let first = &made[0];
    let mut rows: Vec<Row> = (0..first.len())
        .map(|row| Row { parts: vec![Some(row)], time: first.at[row], id: first.id(row) })
        .collect();
    for (index, step) in steps.iter().enumerate() {
        rows = match &step.ships {
            Some(ships) => ships::add(work, (number, index), (step, ships), rows, &made)?,
            None => add(work, (number, index), step, rows, &made)?,
        };
    }
    work.sql.tell(&format!("relation_{number}"), told::relation(number, &relation));
    let before = batch(&relation, &rows, &made)?;
    let Some(sequence) = sequence else { return Ok(before) };
    let times: Vec<i64> = rows.iter().map(|row| row.time).collect();
    // Rows are as late as their first part: what tables add comes and goes.
    let arrived: Vec<(u64, i64)> =
        rows.iter().map(|row| row.parts[0].map_or((0, i64::MIN), |at| made[0].arrived[at])).collect();
    let told = told::sequence(number, sequence);
    work.sql.tell(&format!("sequence_{number}"), told);
    sequence::rows(work, sequence, &before, (&times, &arrived))
}

/// Events of the window, and those that are rows of an alias.
fn count(work: &mut Work<'_>, relation: &Relation, made: &[PartRows]) -> Result<(), AuditError> {
    let kind = &work.metric.windows[work.question.window].kind;
    let span = window::span(kind, work.question.as_of)?;
    let inside =
        |at: i64| span.is_none_or(|(start, end)| start <= at && at < end) && at < work.question.as_of;
    let joins = relation.steps.iter().any(|step| step.missing == Missing::Wait);
    // Tables are looked up, their rows are no events of the number.
    let own = made.iter().enumerate().filter(|(i, _)| is_alias(relation, *i));
    let own: Vec<&PartRows> = own.map(|(_, part)| part).collect();
    let events: BTreeSet<(usize, &String)> = own
        .iter()
        .flat_map(|part| part.events.iter().filter(|(at, ..)| inside(*at)))
        .map(|e| (e.1, &e.2))
        .collect();
    let admitted = events.len() as u64;
    let matched: BTreeSet<&str> = own
        .iter()
        .flat_map(|part| {
            (0..part.len()).filter(|row| inside(part.at[*row])).map(|row| part.names[row].as_str())
        })
        .collect();
    let known = work.parts.unwrap_or((0, 0));
    work.parts = Some((known.0.max(admitted), known.1.max(matched.len() as u64)));
    work.joins |= joins;
    Ok(())
}

/// One step: partners by a statement over both sides.
fn add(
    work: &mut Work<'_>,
    (relation, index): (usize, usize),
    step: &Step,
    rows: Vec<Row>,
    made: &[PartRows],
) -> Result<Vec<Row>, AuditError> {
    let Step { name: _, from, left, right, pick, order, strict, within, valid_to, missing, ships: _ } = step;
    let partner = &made[index + 1];
    let place = format!("{relation}_{index}");
    let anchors: Vec<i64> = rows.iter().map(|row| anchor(row, *from, made)).collect();
    let right_keys = right.iter().map(|cell| partner.cell(*cell)).collect::<Result<Vec<_>, _>>()?;
    let left_keys = left.iter().zip(&right_keys).map(|((part, cell), other)| {
        let positions: Int64Array = rows.iter().map(|row| row.parts[*part].map(|at| at as i64)).collect();
        let column = take(&made[*part].cell(*cell)?, &positions, None).map_err(AuditError::arrow)?;
        cast(&column, other.data_type()).map_err(AuditError::arrow)
    });
    let left_keys = left_keys.collect::<Result<Vec<_>, _>>()?;
    let told = (told::left(relation, index, step), told::right(relation, index, step));
    work.sql.table(&format!("left_{place}"), side(&anchors, &left_keys, None)?, Some(told.0))?;
    let partners = partner_side(partner, &right_keys, *valid_to)?;
    work.sql.table(&format!("right_{place}"), partners, Some(told.1))?;
    let sql = statement(&place, right.len(), (*pick, *order, *strict), *within, valid_to.is_some());
    let found = work.sql.stage(&format!("pairs_{place}"), sql)?;
    let numbers = |name: &str| {
        let column = found.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
        column.map(|column| column.values().to_vec()).unwrap_or_default()
    };
    let (lefts, rights) = (numbers("l"), numbers("r"));
    let mut partners: Vec<Vec<usize>> = vec![Vec::new(); rows.len()];
    for (l, r) in lefts.iter().zip(&rights) {
        partners[*l as usize].push(*r as usize);
    }
    let mut longer = Vec::new();
    let mut lost: Vec<(&'static str, i64, String)> = Vec::new();
    for (row, partners) in rows.into_iter().zip(partners) {
        for r in &partners {
            longer.push(with(&row, Some(*r), *missing, partner));
        }
        if partners.is_empty() && *missing == Missing::Keep {
            longer.push(with(&row, None, *missing, partner));
        } else if partners.is_empty() {
            let at = anchor(&row, *from, made);
            let null = is_null(&row, left, made)?;
            let until =
                if *order == Order::Before { at } else { at.saturating_add(within.unwrap_or(i64::MAX)) };
            let reason = match missing {
                Missing::Wait if null || until < work.question.now => "unmatched",
                Missing::Wait => "waiting",
                Missing::Hold => "held",
                Missing::Fail => "failed",
                Missing::Drop | Missing::Keep => "missing",
            };
            lost.push((reason, row.time, name_of(&row, made)));
        }
    }
    for reason in lost.iter().map(|(reason, ..)| *reason).collect::<BTreeSet<_>>() {
        tell(work, reason, &lost);
    }
    Ok(longer)
}

fn tell(work: &mut Work<'_>, reason: &str, lost: &[(&'static str, i64, String)]) {
    let mut own: Vec<(i64, &String)> =
        lost.iter().filter(|(of, ..)| *of == reason).map(|(_, at, name)| (*at, name)).collect();
    own.sort();
    let samples: Vec<String> = own.iter().rev().take(IDS).map(|(_, name)| (*name).clone()).collect();
    match work.alone.iter_mut().find(|known| known.reason == reason) {
        Some(known) => known.count += own.len() as u64,
        None => work.alone.push(Lost { reason: reason.to_owned(), count: own.len() as u64, samples }),
    }
}

fn is_null(row: &Row, left: &[(usize, usize)], made: &[PartRows]) -> Result<bool, AuditError> {
    for (part, cell) in left {
        let Some(at) = row.parts[*part] else { return Ok(true) };
        if made[*part].cell(*cell)?.is_null(at) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The instant that partners are compared with.
fn anchor(row: &Row, from: Option<usize>, made: &[PartRows]) -> i64 {
    let own = from.and_then(|part| Some(made[part].at[row.parts[part]?]));
    own.unwrap_or(row.time)
}

fn with(row: &Row, partner: Option<usize>, missing: Missing, part: &PartRows) -> Row {
    let mut more = row.clone();
    if let (Missing::Wait, Some(at)) = (missing, partner) {
        more.time = more.time.max(part.at[at]);
        more.id = part.id(at);
    }
    more.parts.push(partner);
    more
}

/// The events of a row.
fn name_of(row: &Row, made: &[PartRows]) -> String {
    let names = row.parts.iter().zip(made).filter_map(|(at, part)| {
        let name = &part.names[(*at)?];
        (!part.is_table).then_some(name.as_str())
    });
    names.collect::<Vec<_>>().join(" + ")
}

fn side(
    anchors: &[i64],
    keys: &[ArrayRef],
    more: Option<Vec<(&str, ArrayRef)>>,
) -> Result<RecordBatch, AuditError> {
    let numbers: ArrayRef = Arc::new((0..anchors.len() as i64).collect::<Int64Array>());
    let times: ArrayRef = Arc::new(Int64Array::from(anchors.to_vec()));
    let mut columns = vec![("n".to_owned(), numbers), ("at".to_owned(), times)];
    columns.extend(keys.iter().enumerate().map(|(k, column)| (format!("k{k}"), Arc::clone(column))));
    columns.extend(more.into_iter().flatten().map(|(name, column)| (name.to_owned(), column)));
    let fields = columns.iter().map(|(name, column)| Field::new(name, column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(anchors.len()));
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(AuditError::arrow)
}

fn partner_side(
    part: &PartRows,
    keys: &[ArrayRef],
    valid_to: Option<usize>,
) -> Result<RecordBatch, AuditError> {
    let ids: ArrayRef = Arc::new((0..part.len()).map(|row| part.id(row)).collect::<StringArray>());
    let ties: ArrayRef = Arc::new(Int64Array::from(part.ties()));
    let mut more = vec![("id", ids), ("tie", ties)];
    if let Some(cell) = valid_to {
        more.push(("until", part::micros(&part.cell(cell)?)?));
    }
    side(&part.at, keys, Some(more))
}

fn statement(
    place: &str,
    keys: usize,
    (pick, order, strict): (Pick, Order, bool),
    within: Option<i64>,
    valid_to: bool,
) -> String {
    let mut on: Vec<String> = (0..keys).map(|k| format!("l.k{k} = r.k{k}")).collect();
    let (after, before) = ("r.at >= l.at".to_owned(), "r.at <= l.at".to_owned());
    let reach = within.unwrap_or(0);
    let (upto, from) = (format!("r.at <= l.at + {reach}"), format!("r.at >= l.at - {reach}"));
    match (order, within) {
        (Order::After, Some(_)) => on.extend([after, upto]),
        (Order::After, None) => on.push(after),
        (Order::Before, Some(_)) => on.extend([from, before]),
        (Order::Before, None) => on.push(before),
        (Order::Any, Some(_)) => on.extend([from, upto]),
        (Order::Any, None) => {}
    }
    if strict {
        on.push("r.at <> l.at".to_owned());
    }
    if valid_to {
        on.push("(r.until IS NULL OR r.until > l.at)".to_owned());
    }
    let order = match pick {
        Pick::First => "r.at, r.id NULLS FIRST, r.tie",
        Pick::Last | Pick::Each => "r.at DESC, r.id DESC NULLS LAST, r.tie DESC",
    };
    let pairs = format!(
        "SELECT l.n AS l, r.n AS r,\n  \
         CAST(ROW_NUMBER() OVER (PARTITION BY l.n ORDER BY {order}) AS BIGINT) AS place\n\
         FROM left_{place} AS l JOIN right_{place} AS r\n  ON {}",
        on.join("\n  AND ")
    );
    match pick {
        Pick::Each => pairs,
        Pick::First | Pick::Last => format!("SELECT l, r FROM (\n{pairs}\n) WHERE place = 1"),
    }
}

/// Rows as the metric's expressions see them.
fn batch(relation: &Relation, rows: &[Row], made: &[PartRows]) -> Result<Source, AuditError> {
    let schema = &relation.schema;
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (index, part) in relation.parts.iter().enumerate() {
        let positions: Int64Array = rows.iter().map(|row| row.parts[index].map(|at| at as i64)).collect();
        let column = |cell: usize, ty: &DataType| {
            let column = take(&made[index].cell(cell)?, &positions, None).map_err(AuditError::arrow)?;
            cast(&column, ty).map_err(AuditError::arrow)
        };
        let flat = relation.flat && index == 0;
        let cells = part.fields.iter().enumerate().filter(|(_, field)| !flat || field.name() != "time");
        let cells = cells.map(|(cell, field)| column(cell, field.data_type()));
        let cells = cells.collect::<Result<Vec<_>, _>>()?;
        if flat {
            columns.extend(cells);
            continue;
        }
        let there = NullBuffer::from_iter(rows.iter().map(|row| row.parts[index].is_some()));
        columns.push(match part.fields.is_empty() {
            true => Arc::new(StructArray::new_empty_fields(rows.len(), Some(there))),
            false => Arc::new(
                StructArray::try_new(part.fields.clone(), cells, Some(there)).map_err(AuditError::arrow)?,
            ),
        });
    }
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.time));
    let time_type = schema.field(columns.len()).data_type();
    columns.push(cast(&times.with_timezone("UTC"), time_type).map_err(AuditError::arrow)?);
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options);
    Ok(Source {
        batch: batch.map_err(AuditError::arrow)?,
        ids: rows.iter().map(|row| row.id.clone()).collect(),
        names: rows.iter().map(|row| Some(name_of(row, made))).collect(),
        received: None,
    })
}

/// A statement about rows before the clock.
fn before_now(work: &Work<'_>) -> String {
    format!("at < {}", instant(work.question.now))
}
