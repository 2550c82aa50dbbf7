//! Between rows and sequences: rows become stays, spans become a batch.
//!
//! *In*: whole rows, spans with the rows that opened them. *Out*: stays by key; [`Changes`] over the sequence's schema.
//! *Never*: a row without a key that is not counted as lost.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, StructArray};
use arrow::datatypes::DataType;
use contracts::catalog::{SPAN, SPAN_KIND, Sequence};
use contracts::expr::Typed;
use contracts::value::{Value, to_arrow};

use super::sequence::{Span, Stay};
use super::{RelationPlan, Row};
use crate::entity::Changes;
use crate::eval::{Compiled, PlanError};
use crate::fold::group::Lost;
use crate::fold::panes::Key;

/// A sequence compiled.
#[derive(Debug)]
pub struct SequencePlan {
    /// The contract's.
    pub sequence: Sequence,
    key: Compiled,
    state: Option<Compiled>,
    start: Option<Compiled>,
    end: Option<Compiled>,
}

impl SequencePlan {
    pub(super) fn new(sequence: &Sequence) -> Result<Self, (String, PlanError)> {
        let plan = |typed: &Typed| Compiled::new(typed).map_err(|error| (typed.sql.clone(), error));
        let maybe = |typed: &Option<Typed>| typed.as_ref().map(plan).transpose();
        Ok(Self {
            key: plan(&sequence.key)?,
            state: maybe(&sequence.state)?,
            start: maybe(&sequence.start)?,
            end: maybe(&sequence.end)?,
            sequence: sequence.clone(),
        })
    }
}

impl RelationPlan {
    /// What whole rows say about their keys: `give` gets the key, the stay and the weight.
    pub fn stays(&self, rows: &[(Row, i64)], lost: &mut Lost, mut give: impl FnMut(Key, Arc<Stay>, i64)) {
        let Some(plan) = &self.sequence else { return };
        let batch = self.changes(rows).batch;
        let mut failed = vec![false; rows.len()];
        let mut value = |compiled: &Compiled| {
            let evaluated = compiled.evaluate(&batch);
            evaluated.errors.iter().for_each(|(row, _)| failed[*row] = true);
            evaluated.values
        };
        let keys = value(&plan.key);
        let states = plan.state.as_ref().map(&mut value);
        let mut condition = |compiled: &Compiled| {
            let (holds, errors) = compiled.evaluate_bool(&batch);
            errors.iter().for_each(|(row, _)| failed[*row] = true);
            holds
        };
        let starts = plan.start.as_ref().map(&mut condition);
        let ends = plan.end.as_ref().map(&mut condition);
        let holds = |column: &Option<BooleanArray>, row: usize, otherwise: bool| {
            column.as_ref().map_or(otherwise, |column| column.is_valid(row) && column.value(row))
        };
        for (number, (row, weight)) in rows.iter().enumerate() {
            let key = Value::from_arrow(keys.as_ref(), number);
            let state =
                states.as_ref().map_or(Value::Null, |states| Value::from_arrow(states.as_ref(), number));
            let (start, end) = (holds(&starts, number, true), holds(&ends, number, false));
            let reason = match (failed[number], key.is_null()) {
                (true, _) => Some("evaluation"),
                (false, true) => Some("no_key"),
                _ if states.is_some() && state.is_null() && !end => Some("no_state"),
                _ => None,
            };
            match reason {
                Some(reason) if *weight > 0 => *lost.entry(reason).or_default() += 1,
                Some(_) => {}
                None => {
                    let stay = Arc::new(Stay { row: row.clone(), state, start, end });
                    give(Key::new(std::iter::once(key)), stay, *weight);
                }
            }
        }
    }

    /// A batch of the spans, in order, each with the row that opened it.
    pub fn span_changes(&self, spans: &[(Row, Span, i64)]) -> Option<Changes> {
        let schema = &self.sequence.as_ref()?.sequence.schema;
        let rows: Vec<(Row, i64)> = spans.iter().map(|(row, _, weight)| (row.clone(), *weight)).collect();
        let before = self.changes(&rows);
        let instant = |time: Option<i64>| time.map_or(Value::Null, Value::Timestamp);
        let cell = |name: &str, span: &Span| match name {
            SPAN_KIND => Value::Int(i64::from(span.kind)),
            "key" => span.key.clone(),
            "state" => span.state.clone(),
            "next" => span.next.clone(),
            "start" => instant(span.start),
            "end" => instant(span.end),
            "dwell" => span.dwell().map_or(Value::Null, Value::Duration),
            "entered" => instant(span.entered),
            _ => instant(span.done),
        };
        let column = |name: &str| -> Option<ArrayRef> {
            if name == SPAN {
                let DataType::Struct(fields) = schema.field_with_name(SPAN).ok()?.data_type() else {
                    return None;
                };
                let columns = fields.iter().map(|field| {
                    let values: Vec<Value> =
                        spans.iter().map(|(_, span, _)| cell(field.name(), span)).collect();
                    to_arrow(&values, field.data_type()).ok()
                });
                return Some(Arc::new(StructArray::new(
                    fields.clone(),
                    columns.collect::<Option<_>>()?,
                    None,
                )));
            }
            if name == "time" {
                let times: Vec<Value> =
                    spans.iter().map(|(_, span, _)| Value::Timestamp(span.time)).collect();
                return to_arrow(&times, schema.field_with_name("time").ok()?.data_type()).ok();
            }
            before.batch.column_by_name(name).cloned()
        };
        let columns: Option<Vec<ArrayRef>> =
            schema.fields().iter().map(|field| column(field.name())).collect();
        Some(Changes {
            batch: RecordBatch::try_new(Arc::clone(schema), columns?).ok()?,
            weights: spans.iter().map(|(_, _, weight)| *weight).collect(),
            keys: spans.iter().map(|(row, _, _)| row.id.as_deref()).collect::<StringArray>(),
        })
    }
}
