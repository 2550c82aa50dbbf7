//! Rows of the same key become intervals.
//!
//! *In*: the rows of a relation, what they say about their keys. *Out*: intervals, keys that are done, intervals that
//! these have passed. *Never*: the order in which rows came.
//!
//! A key's rows in order of time and id are walked once: each one closes what is open, opens, or says nothing new.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StructArray};
use arrow::compute::take;
use arrow::datatypes::DataType;
use contracts::catalog::{SPAN, SPAN_KIND, Sequence, SpanKind};
use contracts::expr::Typed;
use contracts::value::{Value, to_arrow};

use super::tell;
use crate::ask::AuditError;
use crate::eval::{evaluate, holds};
use crate::rows::Source;
use crate::stages::Work;

/// Where a row stands among the rows of its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Stand {
    time: i64,
    id: Option<String>,
    row: usize,
}

/// What a row says.
#[derive(Debug, Clone)]
struct Said {
    state: Value,
    start: bool,
    end: bool,
}

/// From when to when a key was in a state; numbers are rows.
#[derive(Debug, Clone)]
struct Stay {
    opener: usize,
    state: Value,
    next: Value,
    start: i64,
    end: Option<i64>,
    /// When the key had entered by then.
    entered: Option<i64>,
}

/// A key's history.
#[derive(Debug, Default)]
struct History {
    stays: Vec<Stay>,
    entered: Option<i64>,
    /// When it was done, and the row that said so.
    done: Option<(i64, usize)>,
}

/// A row that comes out.
#[derive(Debug)]
struct Out {
    kind: SpanKind,
    /// The row whose columns it has.
    of: usize,
    time: i64,
    key: Value,
    stay: Option<Stay>,
    entered: Option<i64>,
    done: Option<i64>,
}

/// The intervals that rows make. `times` and `arrived` (tick, clock) are one per row.
pub(super) fn rows(
    work: &mut Work<'_>,
    sequence: &Sequence,
    before: &Source,
    (times, arrived): (&[i64], &[(u64, i64)]),
) -> Result<Source, AuditError> {
    // All fields by name: what is added to a sequence must be looked at here.
    let Sequence { schema: _, key, state, start, end, kinds } = sequence;
    let batch = &before.batch;
    let keys = evaluate(key, batch)?;
    let mut failed = keys.failed;
    let states = state.as_ref().map(|state| evaluate(state, batch)).transpose()?;
    let mut condition = |typed: &Option<Typed>, otherwise: bool| -> Result<Vec<bool>, AuditError> {
        let Some(typed) = typed else { return Ok(vec![otherwise; batch.num_rows()]) };
        let (holds, broken) = holds(typed, batch)?;
        failed.iter_mut().zip(broken).for_each(|(failed, broken)| *failed |= broken);
        Ok(holds)
    };
    let (starts, ends) = (condition(start, true)?, condition(end, false)?);
    if let Some(states) = &states {
        failed.iter_mut().zip(&states.failed).for_each(|(failed, broken)| *failed |= broken);
    }
    let mut by_key: BTreeMap<Value, BTreeMap<Stand, Said>> = BTreeMap::new();
    let mut lost: Vec<(&'static str, i64, String)> = Vec::new();
    for (row, time) in times.iter().enumerate() {
        let key = Value::from_arrow(keys.values.as_ref(), row);
        let state = states.as_ref().map_or(Value::Null, |s| Value::from_arrow(s.values.as_ref(), row));
        let reason = match () {
            () if failed[row] => "evaluation",
            () if key.is_null() => "no_key",
            () if states.is_some() && state.is_null() && !ends[row] => "no_state",
            () => {
                let id = before.ids.is_valid(row).then(|| before.ids.value(row).to_owned());
                let said = Said { state, start: starts[row], end: ends[row] };
                by_key.entry(key).or_default().insert(Stand { time: *time, id, row }, said);
                continue;
            }
        };
        lost.push((reason, *time, before.names.value(row).to_owned()));
    }
    for reason in ["evaluation", "no_key", "no_state"] {
        if lost.iter().any(|(of, ..)| *of == reason) {
            tell(work, reason, &lost);
        }
    }
    let mut out = Vec::new();
    for (key, stands) in by_key {
        in_time(&stands, arrived, work.metric.retain)?;
        for life in lives(&stands, states.is_some(), work.metric.retain) {
            told(&key, life, kinds, &mut out);
        }
    }
    source(sequence, before, &out)
}

/// What comes later than is retained finds its key's rows let go: then nothing tells what the number was made of.
fn in_time(stands: &BTreeMap<Stand, Said>, arrived: &[(u64, i64)], retain: i64) -> Result<(), AuditError> {
    let mut first_tick = u64::MAX;
    for stand in stands.keys().rev() {
        let (tick, clock) = arrived[stand.row];
        if tick > first_tick && stand.time < clock.saturating_sub(retain) {
            return Err(AuditError::NotRecomputed(
                "a row of a sequence came later than `retain.live` after its time".to_owned(),
            ));
        }
        first_tick = first_tick.min(tick);
    }
    Ok(())
}

/// A key that comes back more than `retain` after it was done begins a new life.
fn lives(stands: &BTreeMap<Stand, Said>, by_state: bool, retain: i64) -> Vec<History> {
    let mut lives = Vec::new();
    let mut history = History::default();
    let mut open: Option<(usize, i64, Value)> = None;
    for (stand, said) in stands {
        if said.end {
            let was_open = open.is_some();
            history.close(&mut open, Some(stand.time), Value::Null);
            if history.done.is_none() && (was_open || by_state) {
                history.done = Some((stand.time, stand.row));
            }
        }
        let opens = match by_state {
            true => !said.end && !said.state.is_null(),
            false => said.start && open.is_none(),
        };
        if !opens {
            continue;
        }
        if history.done.is_some_and(|(done, _)| stand.time.saturating_sub(done) > retain) {
            lives.push(std::mem::take(&mut history));
        }
        // It goes on: what was done is not.
        history.done = None;
        if said.start {
            history.entered.get_or_insert(stand.time);
        }
        if open.as_ref().is_none_or(|(_, _, state)| *state != said.state) {
            history.close(&mut open, Some(stand.time), said.state.clone());
            open = Some((stand.row, stand.time, said.state.clone()));
        }
    }
    history.close(&mut open, None, Value::Null);
    lives.push(history);
    lives
}

impl History {
    fn close(&mut self, open: &mut Option<(usize, i64, Value)>, end: Option<i64>, next: Value) {
        let Some((opener, start, state)) = open.take() else { return };
        self.stays.push(Stay { opener, state, next, start, end, entered: self.entered });
    }
}

/// The rows that a key makes, of the kinds that are read.
fn told(key: &Value, history: History, kinds: &[SpanKind], out: &mut Vec<Out>) {
    for kind in kinds {
        match (kind, history.done) {
            (SpanKind::Interval, _) => out.extend(history.stays.iter().map(|stay| Out {
                kind: *kind,
                of: stay.opener,
                time: stay.end.unwrap_or(stay.start),
                key: key.clone(),
                entered: stay.entered,
                done: None,
                stay: Some(stay.clone()),
            })),
            (SpanKind::Item, Some((done, by))) => out.push(Out {
                kind: *kind,
                of: by,
                time: done,
                key: key.clone(),
                entered: history.entered,
                done: Some(done),
                stay: None,
            }),
            (SpanKind::Passed, Some((done, _))) => {
                let Some(entered) = history.entered else { continue };
                let passed = history.stays.iter().filter(|stay| stay.end.is_some_and(|end| end > entered));
                out.extend(passed.map(|stay| Out {
                    kind: *kind,
                    of: stay.opener,
                    time: done,
                    key: key.clone(),
                    entered: stay.entered,
                    done: Some(done),
                    stay: Some(Stay { start: stay.start.max(entered), ..stay.clone() }),
                }));
            }
            (SpanKind::Item | SpanKind::Passed, None) => {}
        }
    }
}

impl Out {
    fn cell(&self, name: &str) -> Value {
        let stay = self.stay.as_ref();
        let instant = |at: Option<i64>| at.map_or(Value::Null, Value::Timestamp);
        match name {
            SPAN_KIND => Value::Int(self.kind as i64),
            "key" => self.key.clone(),
            "state" => stay.map_or(Value::Null, |stay| stay.state.clone()),
            "next" => stay.map_or(Value::Null, |stay| stay.next.clone()),
            "start" => instant(stay.map(|stay| stay.start)),
            "end" => instant(stay.and_then(|stay| stay.end)),
            "entered" => instant(self.entered),
            "done" => instant(self.done),
            _ => {
                let (from, to) = match stay {
                    Some(stay) => (Some(stay.start), stay.end),
                    None => (self.entered, self.done),
                };
                from.zip(to).map_or(Value::Null, |(from, to)| Value::Duration(to.saturating_sub(from)))
            }
        }
    }
}

fn source(sequence: &Sequence, before: &Source, out: &[Out]) -> Result<Source, AuditError> {
    let inner = |error: &dyn std::fmt::Display| AuditError::Inner(error.to_string());
    let positions: Int64Array = out.iter().map(|out| Some(out.of as i64)).collect();
    let made = |values: Vec<Value>, ty: &DataType| to_arrow(&values, ty).map_err(|error| inner(&error));
    let columns = sequence.schema.fields().iter().map(|field| -> Result<ArrayRef, AuditError> {
        match (field.name().as_str(), field.data_type()) {
            (SPAN, DataType::Struct(fields)) => {
                let cells = fields.iter().map(|field| {
                    made(out.iter().map(|out| out.cell(field.name())).collect(), field.data_type())
                });
                let cells = cells.collect::<Result<Vec<_>, _>>()?;
                let structs = StructArray::try_new(fields.clone(), cells, None);
                Ok(Arc::new(structs.map_err(AuditError::arrow)?))
            }
            ("time", ty) => made(out.iter().map(|out| Value::Timestamp(out.time)).collect(), ty),
            (name, _) => {
                let column =
                    before.batch.column_by_name(name).ok_or_else(|| inner(&format!("no `{name}`")))?;
                take(column, &positions, None).map_err(AuditError::arrow)
            }
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let batch = RecordBatch::try_new(Arc::clone(&sequence.schema), columns).map_err(AuditError::arrow)?;
    let text =
        |of: &arrow::array::StringArray, row: usize| of.is_valid(row).then(|| of.value(row).to_owned());
    Ok(Source {
        batch,
        ids: out.iter().map(|out| text(&before.ids, out.of)).collect(),
        names: out.iter().map(|out| text(&before.names, out.of)).collect(),
        received: None,
    })
}
