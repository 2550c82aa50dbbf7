//! Admit: a decoded row is enriched, checked by its rules, deduplicated; or refused with its reasons.
//!
//! *In*: [`EventBatch`]es of one partition. *Out*: [`AdmittedBatch`]es (schema `Event::admitted`),
//! refusals, duplicates, counts. *Never*: a row in two of those places or in none.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use contracts::batch::{
    Change, ChangeOp, Decided, EventBatch, MAX_REFUSED_PAYLOAD, Partition, Payloads, Reason, Refused,
    Verdicts,
};
use contracts::catalog::{Event, Severity};

use crate::eval::{Compiled, PlanError};

pub mod dedupe;
pub mod stored;
#[cfg(test)]
mod tests;

use dedupe::{Dedupe, IdHash};

/// Rows that passed; `batch.columns` has the schema `Event::admitted`.
#[derive(Debug, Clone)]
pub struct AdmittedBatch {
    /// Where the rows came from.
    pub partition: Arc<Partition>,
    /// The rows.
    pub batch: EventBatch,
}

/// What admit made of a batch.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Rows that passed, in order.
    pub admitted: Option<EventBatch>,
    /// Rows that did not, with their reasons.
    pub refused: Vec<Refused>,
    /// Offset and part of rows seen before.
    pub duplicates: Vec<(i64, u32)>,
    /// Admitted rows that broke a rule of severity warning.
    pub warned: u64,
}

/// The admit step of one event type on one worker.
#[derive(Debug)]
pub struct Admit {
    event: Arc<Event>,
    schema: SchemaRef,
    enrich: Vec<(String, Compiled)>,
    rules: Vec<(String, Severity, Compiled)>,
    dedupe: Dedupe,
}

impl Admit {
    /// Compiles the event's expressions; `ids` hashes the ids.
    pub fn new(event: Arc<Event>, ids: Arc<IdHash>) -> Result<Self, (String, PlanError)> {
        let plan =
            |typed: &contracts::expr::Typed| Compiled::new(typed).map_err(|error| (typed.sql.clone(), error));
        let enrich = event
            .enrich
            .iter()
            .map(|computed| Ok((computed.name.clone(), plan(&computed.expr)?)))
            .collect::<Result<_, _>>()?;
        let rules = event
            .rules
            .iter()
            .map(|rule| Ok((rule.name.clone(), rule.severity, plan(&rule.check)?)))
            .collect::<Result<_, _>>()?;
        let schema = event.admitted.clone();
        let dedupe = Dedupe::new(event.dedupe, ids);
        Ok(Self { event, schema, enrich, rules, dedupe })
    }

    /// Runs a batch through enrich, rules and dedupe. Rows of which it is `decided` whether they are duplicates are what
    /// they were.
    pub fn admit(&mut self, partition: &Partition, batch: EventBatch, decided: Option<&Decided>) -> Outcome {
        let rows = batch.columns.num_rows();
        let mut verdict = Verdict::new(rows);
        verdict.exempt(batch.changes.as_deref());
        let columns = self.enriched(&batch.columns, &mut verdict);
        self.check_rules(&columns, &mut verdict);
        let mut outcome = Outcome::default();
        let first = batch.offsets.first().copied().unwrap_or(i64::MAX);
        let known = decided
            .and_then(|decided| decided.verdicts(partition, first).filter(|_| decided.knows(&self.event)));
        self.drop_duplicates(&batch, known.as_ref(), &mut verdict, &mut outcome);
        outcome.warned = verdict.warned();
        if verdict.anything() {
            outcome.refused = self.refuse(partition, &batch, &verdict);
        }
        outcome.admitted = keep(batch, columns, &verdict.pass);
        outcome
    }

    /// Forgets ids received before `floor` minus the dedupe horizon; a bounded step per call.
    pub fn age(&mut self, floor: i64) {
        self.dedupe.age(floor);
    }

    /// The memory of ids.
    pub fn dedupe(&mut self) -> &mut Dedupe {
        &mut self.dedupe
    }

    fn enriched(&self, decoded: &RecordBatch, verdict: &mut Verdict) -> RecordBatch {
        let mut columns: Vec<ArrayRef> = decoded.columns().to_vec();
        let mut batch = decoded.clone();
        for (name, expr) in &self.enrich {
            let evaluated = expr.evaluate(&batch);
            for (row, message) in evaluated.errors {
                verdict.refuse(row, "evaluation", name, format!("{name} cannot be computed: {message}"));
            }
            columns.push(verdict.computed(evaluated.values));
            let fields = self.schema.fields().iter().take(columns.len()).cloned();
            let schema = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
            batch = with_columns(schema, &columns);
        }
        batch
    }

    fn check_rules(&self, columns: &RecordBatch, verdict: &mut Verdict) {
        for (name, severity, rule) in &self.rules {
            let (holds, errors) = rule.evaluate_bool(columns);
            for (row, message) in &errors {
                let message = format!("rule {name} cannot be evaluated: {message}");
                verdict.refuse(*row, "evaluation", "", message);
            }
            if holds.null_count() == 0 && holds.false_count() == 0 {
                continue;
            }
            let broken = (0..holds.len()).filter(|row| holds.is_valid(*row) && !holds.value(*row));
            for row in broken {
                match severity {
                    Severity::Warning => verdict.warn(row),
                    Severity::Error => {
                        let message = format!("rule {name} does not hold");
                        verdict.refuse(row, &format!("rule:{name}"), "", message);
                    }
                }
            }
        }
    }

    fn drop_duplicates(
        &mut self,
        batch: &EventBatch,
        known: Option<&Verdicts<'_>>,
        verdict: &mut Verdict,
        outcome: &mut Outcome,
    ) {
        // A version of a row is no repetition of the one before it; what is delivered twice converges.
        if self.event.dedupe == 0 || batch.changes.is_some() {
            return;
        }
        for row in 0..verdict.pass.len() {
            if !verdict.pass[row] || batch.ids.is_null(row) {
                continue;
            }
            let place = (batch.offsets[row], batch.parts[row]);
            // It is remembered in any case: rows that come later are judged by it.
            let seen = self.dedupe.seen(batch.ids.value(row), batch.received[row]);
            if known.and_then(|known| known.was_dropped(place.0, place.1)).unwrap_or(seen) {
                verdict.pass[row] = false;
                outcome.duplicates.push(place);
            }
        }
    }

    fn refuse(&self, partition: &Partition, batch: &EventBatch, verdict: &Verdict) -> Vec<Refused> {
        let row = |(row, reasons): (usize, &Vec<Reason>)| {
            let payload = batch.payloads.get(row);
            Refused {
                partition: partition.clone(),
                offset: batch.offsets[row],
                part: batch.parts[row],
                received: batch.received[row],
                event_type: Some(self.event.head.name.clone()),
                event_id: batch.ids.is_valid(row).then(|| batch.ids.value(row).to_owned()),
                payload: payload.slice(..payload.len().min(MAX_REFUSED_PAYLOAD)),
                headers: batch.payloads.headers(batch.offsets[row]),
                reasons: reasons.clone(),
            }
        };
        verdict.refused.iter().map(|(index, reasons)| row((*index, reasons))).collect()
    }
}

/// What is known of each row so far.
struct Verdict {
    pass: Vec<bool>,
    refused: std::collections::BTreeMap<usize, Vec<Reason>>,
    warned: std::collections::BTreeSet<usize>,
    /// True where a row has columns: false for the end of a row of a change stream, which nothing computed
    /// is said of and no rule holds up. `None`: all have.
    whole: Option<BooleanArray>,
}

impl Verdict {
    fn new(rows: usize) -> Self {
        let (refused, warned) = Default::default();
        Self { pass: vec![true; rows], refused, warned, whole: None }
    }

    /// Takes note of the rows that only end others.
    fn exempt(&mut self, changes: Option<&[Change]>) {
        let ends = |change: &Change| change.op != ChangeOp::Upsert;
        if let Some(changes) = changes.filter(|changes| changes.iter().any(ends)) {
            self.whole = Some(changes.iter().map(|change| Some(!ends(change))).collect());
        }
    }

    fn is_whole(&self, row: usize) -> bool {
        self.whole.as_ref().is_none_or(|whole| whole.value(row))
    }

    /// A computed column, null where the row has no columns to compute from.
    fn computed(&self, values: ArrayRef) -> ArrayRef {
        match &self.whole {
            Some(whole) => {
                let ends = arrow::compute::not(whole).expect("a mask without nulls has an opposite");
                arrow::compute::nullif(&values, &ends).expect("the mask has one entry per row")
            }
            None => values,
        }
    }

    fn refuse(&mut self, row: usize, code: &str, path: &str, message: String) {
        if !self.is_whole(row) {
            return;
        }
        self.pass[row] = false;
        let reason = Reason { code: code.to_owned(), path: path.to_owned(), message };
        self.refused.entry(row).or_default().push(reason);
    }

    fn warn(&mut self, row: usize) {
        if !self.is_whole(row) {
            return;
        }
        self.warned.insert(row);
    }

    fn warned(&self) -> u64 {
        self.warned.iter().filter(|row| self.pass[**row]).count() as u64
    }

    fn anything(&self) -> bool {
        !self.refused.is_empty()
    }
}

fn with_columns(schema: SchemaRef, columns: &[ArrayRef]) -> RecordBatch {
    RecordBatch::try_new(schema, columns.to_vec())
        .expect("enrich expressions have the types the catalog derived from them")
}

/// The rows that passed; the batch itself when all did.
fn keep(batch: EventBatch, columns: RecordBatch, pass: &[bool]) -> Option<EventBatch> {
    let passed = pass.iter().filter(|pass| **pass).count();
    if passed == 0 {
        return None;
    }
    if passed == pass.len() {
        return Some(EventBatch { columns, ..batch });
    }
    Some(select(&EventBatch { columns, ..batch }, pass))
}

/// The rows of `batch` whose `pass` is true.
pub fn select(batch: &EventBatch, pass: &[bool]) -> EventBatch {
    let mask = BooleanArray::from(pass.to_vec());
    let some = |index: usize| pass[index];
    let ids = arrow::compute::filter(&batch.ids, &mask).expect("the mask has one entry per row");
    EventBatch {
        event: batch.event,
        columns: filter_record_batch(&batch.columns, &mask).expect("the mask has one entry per row"),
        ids: ids.as_string::<i32>().clone(),
        offsets: pick(&batch.offsets, some),
        parts: pick(&batch.parts, some),
        received: pick(&batch.received, some),
        payloads: Payloads {
            bytes: batch.payloads.bytes.clone(),
            ranges: pick(&batch.payloads.ranges, some),
            headers: batch.payloads.headers.clone(),
        },
        changes: batch.changes.as_ref().map(|changes| pick(changes, some)),
    }
}

fn pick<T: Copy>(values: &[T], keep: impl Fn(usize) -> bool) -> Vec<T> {
    values.iter().enumerate().filter(|(index, _)| keep(*index)).map(|(_, v)| *v).collect()
}

/// Event times of a batch, microseconds.
pub fn event_times(columns: &RecordBatch) -> Int64Array {
    let time = columns.column_by_name("time").expect("every event batch has a column `time`");
    let time = time.as_primitive::<TimestampMicrosecondType>();
    Int64Array::new(time.values().clone(), None)
}

/// Splits a batch into the rows before `now` and the rows that must wait for the clock.
pub fn split_future(batch: EventBatch, now: i64) -> (Option<EventBatch>, Option<EventBatch>) {
    let times = event_times(&batch.columns);
    if times.values().iter().all(|time| *time < now) {
        return (Some(batch), None);
    }
    let past: Vec<bool> = times.values().iter().map(|time| *time < now).collect();
    let future: Vec<bool> = past.iter().map(|past| !past).collect();
    let part = |mask: &[bool]| mask.contains(&true).then(|| select(&batch, mask));
    (part(&past), part(&future))
}

/// Ids of a batch that nobody reads.
pub fn no_ids(rows: usize) -> StringArray {
    StringArray::new_null(rows)
}
