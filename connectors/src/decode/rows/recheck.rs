//! Rows that an earlier contract took, held against the one of now.
//!
//! *In*: a batch in the columns of the contract of now, null where a row knows nothing of a field. *Out*: the rows it
//! takes, with its defaults, its event time and its ids; the others refused with all their reasons, without a payload.
//! *Never*: a row taken that decoding would refuse, as far as its columns tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::{filter, filter_record_batch, interleave};
use arrow::datatypes::{Date32Type, Int32Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use contracts::batch::{ChangeOp, EventBatch, Partition, Reason, Refused};
use contracts::value::FieldType;

use super::change::key_text;
use super::{MAX_AHEAD, Rows};
use crate::decode::column::instants;
use crate::decode::raw::Raw;
use crate::decode::reason::{Path, Row};
use crate::decode::time;
use crate::decode::walk::Walker;

/// Reasons by row.
type Reasons = BTreeMap<usize, Vec<Reason>>;

impl Rows {
    /// See the module's words. No rows may be on their way to a chunk.
    pub(in crate::decode) fn recheck(
        &mut self,
        partition: &Partition,
        batch: EventBatch,
        walker: &mut Walker,
    ) -> (EventBatch, Vec<Refused>) {
        let mut reasons = Reasons::new();
        let mut columns = batch.columns.columns().to_vec();
        let fields = self.fields.len();
        for (i, column) in columns.iter_mut().enumerate().take(fields) {
            self.recheck_field(i, &batch, column, &mut reasons, walker);
        }
        self.recheck_keys(&batch, &mut reasons, walker);
        self.retime(&batch, &mut columns, &mut reasons, walker);
        reasons.retain(|_, reasons| !reasons.is_empty());
        let ids = self.reread_ids(&batch);
        let columns = RecordBatch::try_new(batch.columns.schema(), columns)
            .expect("every column has its type and length as before");
        self.divided(partition, EventBatch { columns, ids, ..batch }, reasons)
    }

    /// Nulls become the default or are missing; values are checked.
    fn recheck_field(
        &mut self,
        i: usize,
        batch: &EventBatch,
        column: &mut ArrayRef,
        reasons: &mut Reasons,
        walker: &mut Walker,
    ) {
        let (rows, field) = (&mut self.fields[i], &self.contract.fields[i]);
        let mut refuse = |at: usize, tell: &mut dyn FnMut(&Path<'_>, &mut Row<'_>)| {
            let mut row = Row { reasons: Vec::new(), hide: field.pii, nested: walker };
            tell(&Path::Top(&rows.path), &mut row);
            if !row.reasons.is_empty() {
                reasons.entry(at).or_default().extend(row.reasons);
            }
        };
        // Of a delete and of a truncate no field is checked.
        let whole = |row: &usize| op(batch, *row) == ChangeOp::Upsert;
        let all = || (0..column.len()).filter(whole);
        if !rows.column.takes_all() {
            for at in all().filter(|row| !column.is_null(*row)) {
                refuse(at, &mut |path, row| rows.column.recheck(column, at, path, row));
            }
        }
        if column.null_count() == 0 {
            return;
        }
        if let Some(default) = &field.default {
            rows.column.push_value(default);
            let one = rows.column.take(column.data_type());
            let pick = |row| if column.is_null(row) && whole(&row) { (1, 0) } else { (0, row) };
            let picked: Vec<(usize, usize)> = (0..column.len()).map(pick).collect();
            *column =
                interleave(&[column.as_ref(), one.as_ref()], &picked).expect("both have the field's type");
        } else if field.required {
            for at in all().filter(|row| column.is_null(*row)) {
                refuse(at, &mut |path, row| row.missing(path, Raw::Absent));
            }
        }
    }

    /// The event time is that of the contract's field where it says one, else what it was.
    fn retime(
        &self,
        batch: &EventBatch,
        columns: &mut [ArrayRef],
        reasons: &mut Reasons,
        walker: &mut Walker,
    ) {
        // A field named `time` is the event time itself: then there is no other column.
        let (Some(field), Some(was)) = (self.time_field, batch.columns.columns().get(self.fields.len()))
        else {
            return;
        };
        let Some(said) = instants_of(&columns[field]) else { return };
        let was = was.as_primitive::<TimestampMicrosecondType>().values();
        let mut times = was.to_vec();
        for (at, said) in said.iter().enumerate().filter_map(|(at, said)| Some((at, (*said)?))) {
            let received = batch.received[at];
            times[at] = said;
            if said == was[at] || said <= received.saturating_add(MAX_AHEAD) {
                continue;
            }
            if op(batch, at) != ChangeOp::Upsert {
                // The end of a row is not put off because a clock is wrong.
                times[at] = received;
                continue;
            }
            let mut row = Row { reasons: Vec::new(), hide: false, nested: walker };
            let (said, received) = (time::show(said), time::show(received));
            let message = format!("found {said}, more than 5 minutes after it was received ({received})");
            row.refuse("time_in_future", &Path::Top(&self.fields[field].path), message);
            reasons.entry(at).or_default().extend(row.reasons);
        }
        if !self.contract.changelog && self.contract.fields[field].ty == FieldType::Timestamp {
            columns[field] = Arc::new(instants(times.clone(), None));
        }
        columns[self.fields.len()] = Arc::new(instants(times, None));
    }

    /// Of a change stream: rows that do not say whose version they are.
    fn recheck_keys(&self, batch: &EventBatch, reasons: &mut Reasons, walker: &mut Walker) {
        if !self.contract.changelog {
            return;
        }
        for field in self.key_fields.iter() {
            let (column, path) = (batch.columns.column(*field), &self.fields[*field].path);
            let named = |at: &usize| op(batch, *at) != ChangeOp::Truncate && column.is_null(*at);
            for at in (0..column.len()).filter(named) {
                let all = reasons.entry(at).or_default();
                if all.iter().all(|reason| reason.path != *path) {
                    let mut row = Row { reasons: Vec::new(), hide: false, nested: walker };
                    row.missing(&Path::Top(path), Raw::Absent);
                    all.extend(row.reasons);
                }
            }
        }
    }

    /// Ids as the contract of now reads them, where fields of text or integers say them; else what they were.
    fn reread_ids(&self, batch: &EventBatch) -> StringArray {
        let fields: &[usize] = match (self.contract.changelog, &self.id_field) {
            (true, _) => &self.key_fields,
            (false, Some(field)) if self.contract.needs_id => std::slice::from_ref(field),
            (false, _) => &[],
        };
        let plain =
            |field: &usize| matches!(self.contract.fields[*field].ty, FieldType::String | FieldType::Int);
        // Mostly nothing has changed, and ids are the texts of one field.
        let same = |field: &usize| batch.columns.column(*field).as_string_opt() == Some(&batch.ids);
        if fields.is_empty() || !fields.iter().all(plain) || (fields.len() == 1 && same(&fields[0])) {
            return batch.ids.clone();
        }
        let id = |at: usize| -> Option<String> {
            let was = batch.ids.is_valid(at).then(|| batch.ids.value(at));
            let part = |field: &usize| (*field, text_of(batch.columns.column(*field), at));
            let parts: Vec<(usize, Option<String>)> = fields.iter().map(part).collect();
            let of =
                |field| parts.iter().find(|(own, _)| *own == field).and_then(|(_, text)| text.as_deref());
            let said = key_text(fields, |field| of(field).map(|text| Raw::Cell(text.as_bytes())));
            let Some(said) = said.filter(|_| op(batch, at) != ChangeOp::Truncate) else {
                return was.map(str::to_owned);
            };
            let said = String::from_utf8_lossy(&said).into_owned();
            // Whose event it is may stand before it.
            let tenant = |was: &&str| was.strip_suffix(said.as_str()).is_some_and(|rest| rest.ends_with('/'));
            let whose = was.filter(|_| !self.contract.changelog).filter(tenant);
            Some(whose.map_or(said.clone(), str::to_owned))
        };
        (0..batch.ids.len()).map(id).collect()
    }

    /// The rows without reasons, and the others.
    fn divided(
        &self,
        partition: &Partition,
        mut batch: EventBatch,
        reasons: Reasons,
    ) -> (EventBatch, Vec<Refused>) {
        if reasons.is_empty() {
            return (batch, Vec::new());
        }
        let stays: BooleanArray =
            (0..batch.offsets.len()).map(|row| Some(!reasons.contains_key(&row))).collect();
        let refused = reasons.into_iter().map(|(row, reasons)| Refused {
            partition: partition.clone(),
            offset: batch.offsets[row],
            part: batch.parts[row],
            received: batch.received[row],
            event_type: Some(self.contract.head.name.clone()),
            event_id: batch.ids.is_valid(row).then(|| batch.ids.value(row).to_owned()),
            payload: Bytes::new(),
            headers: Vec::new(),
            reasons,
        });
        let refused: Vec<Refused> = refused.collect();
        let same = "a filter has a bit for each row";
        batch.columns = filter_record_batch(&batch.columns, &stays).expect(same);
        batch.ids = filter(&batch.ids, &stays).expect(same).as_string::<i32>().clone();
        retain(&mut batch.offsets, &stays);
        retain(&mut batch.parts, &stays);
        retain(&mut batch.received, &stays);
        retain(&mut batch.payloads.ranges, &stays);
        if let Some(changes) = &mut batch.changes {
            retain(changes, &stays);
        }
        (batch, refused)
    }
}

fn retain<T>(all: &mut Vec<T>, stays: &BooleanArray) {
    let mut row = 0..;
    all.retain(|_| row.next().is_some_and(|row| stays.value(row)));
}

/// What a row does; rows of an event that is no change stream are whole.
fn op(batch: &EventBatch, row: usize) -> ChangeOp {
    batch.changes.as_ref().map_or(ChangeOp::Upsert, |changes| changes[row].op)
}

/// A column of instants or days as microseconds.
fn instants_of(column: &ArrayRef) -> Option<Vec<Option<i64>>> {
    if let Some(instants) = column.as_primitive_opt::<TimestampMicrosecondType>() {
        return Some(instants.iter().collect());
    }
    let days = column.as_primitive_opt::<Date32Type>()?;
    Some(days.iter().map(|day| day.map(|day| i64::from(day) * 86_400_000_000)).collect())
}

/// A value of a column of text or integers as text.
fn text_of(column: &ArrayRef, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    if let Some(codes) = column.as_dictionary_opt::<Int32Type>() {
        return Some(codes.values().as_string::<i32>().value(codes.key(row)?).to_owned());
    }
    if let Some(numbers) = column.as_primitive_opt::<Int64Type>() {
        return Some(numbers.value(row).to_string());
    }
    column.as_string_opt::<i32>().map(|texts| texts.value(row).to_owned())
}
