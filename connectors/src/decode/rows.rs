//! The rows of one event type.
//!
//! *In*: the raw values of one event and its envelope. *Out*: a row in every column, or the reasons why
//! not and no trace in any column. *Never*: half a row.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use contracts::batch::{Change, EventBatch, Headers, Payloads, Reason};
use contracts::catalog::{Event, Field};

use super::cells::Texts;
use super::column::{Column, instants};
use super::raw::Raw;
use super::reason::{Path, Row};
use super::time;
use super::walk::Walker;

pub(super) mod change;
mod recheck;

/// How far the event time may be ahead of the received time, microseconds. Clocks differ; an event from
/// further ahead would open windows that nothing closes.
pub(super) const MAX_AHEAD: i64 = 5 * 60 * 1_000_000;

/// What the envelope says of one event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope<'a> {
    pub(super) event_type: Raw<'a>,
    pub(super) id: Raw<'a>,
    pub(super) time: Raw<'a>,
    pub(super) tenant: Raw<'a>,
}

/// Where an event came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) offset: i64,
    pub(super) part: u32,
    pub(super) received: i64,
}

/// Paths of the envelope, for messages.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) event_type: String,
    pub(super) id: String,
    pub(super) time: String,
}

/// See the module's words.
#[derive(Debug)]
pub(super) struct Rows {
    event: usize,
    contract: Arc<Event>,
    fields: Vec<FieldRows>,
    /// Index of the field that is the event time.
    time_field: Option<usize>,
    /// Index of the field that is the dedupe id.
    id_field: Option<usize>,
    /// Indexes of the fields that are the key.
    key_fields: Arc<[usize]>,
    /// The carrier of a table's rows.
    of_table: bool,
    time: Vec<i64>,
    ids: Texts,
    offsets: Vec<i64>,
    parts: Vec<u32>,
    received: Vec<i64>,
    ranges: Vec<(u32, u32)>,
    /// Of a change stream: what each row does.
    changes: Vec<Change>,
}

#[derive(Debug)]
struct FieldRows {
    path: String,
    column: Column,
}

impl Rows {
    pub(super) fn new(event: usize, contract: Arc<Event>, walker: &mut Walker) -> Self {
        let fields = contract
            .fields
            .iter()
            .map(|field| FieldRows { path: field.path.join("."), column: Column::of(field, walker) });
        let fields = fields.collect();
        let position = |name: &String| contract.fields.iter().position(|f| f.name == *name);
        let index = |name: &Option<String>| name.as_ref().and_then(position);
        Self {
            event,
            fields,
            time_field: index(&contract.time),
            id_field: index(&contract.id),
            key_fields: contract.key.iter().filter_map(position).collect(),
            of_table: contract.head.name.starts_with(&contracts::catalog::table_event("")),
            contract,
            time: Vec::new(),
            ids: Texts::new(),
            offsets: Vec::new(),
            parts: Vec::new(),
            received: Vec::new(),
            ranges: Vec::new(),
            changes: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// The raw id of an event: its field, else the envelope's.
    #[inline]
    pub(super) fn id<'a>(&self, cells: impl Fn(usize) -> Raw<'a>, envelope: &Envelope<'a>) -> Raw<'a> {
        let field = if self.contract.changelog { self.key_fields.first().copied() } else { self.id_field };
        match field.map(cells) {
            Some(raw) if !raw.is_nothing() => raw,
            _ => envelope.id,
        }
    }

    /// Adds one event; `cells(i)` is the raw value of field i. On reasons nothing was added.
    pub(super) fn push<'a>(
        &mut self,
        cells: impl Fn(usize) -> Raw<'a>,
        envelope: &Envelope<'a>,
        names: &Names,
        origin: &Origin,
        walker: &mut Walker,
    ) -> Result<(), Vec<Reason>> {
        let mut row = Row { reasons: Vec::new(), hide: false, nested: walker };
        for (i, (rows, field)) in self.fields.iter_mut().zip(&self.contract.fields).enumerate() {
            rows.push(cells(i), field, &mut row);
        }
        self.push_time(envelope, names, origin, &mut row);
        if self.contract.needs_id {
            let of_field = self.id_field.map(&cells).unwrap_or(Raw::Absent);
            self.push_id(of_field, envelope, names, &mut row);
        }
        if row.reasons.is_empty() {
            self.offsets.push(origin.offset);
            self.parts.push(origin.part);
            self.received.push(origin.received);
            return Ok(());
        }
        let reasons = row.reasons;
        self.take_back();
        Err(reasons)
    }

    /// Where the payload of the row just added is.
    pub(super) fn payload(&mut self, range: (u32, u32)) {
        self.ranges.push(range);
    }

    #[cold]
    fn take_back(&mut self) {
        let len = self.len();
        for field in &mut self.fields {
            field.column.truncate(len);
        }
        self.time.truncate(len);
        self.ids.truncate(len);
    }

    fn push_time(&mut self, envelope: &Envelope<'_>, names: &Names, origin: &Origin, row: &mut Row<'_>) {
        row.hide = false;
        let before = row.reasons.len();
        let of_field = self.time_field.and_then(|i| self.fields[i].column.last_instant());
        let (micros, path) = match (of_field, self.time_field) {
            (Some(micros), Some(i)) => (Some(micros), &self.fields[i].path),
            (_, Some(i)) if row.reasons.iter().any(|r| r.path == self.fields[i].path) => (None, &names.time),
            // Rows of a table have no time of their own.
            (_, None) if self.of_table && envelope.time.is_nothing() => (Some(origin.received), &names.time),
            // The field is null: the envelope's time, where there is one.
            (_, Some(i)) if envelope.time.is_nothing() => {
                row.missing(&Path::Top(&self.fields[i].path), Raw::Absent);
                (None, &names.time)
            }
            _ => (envelope_time(envelope.time, names, row), &names.time),
        };
        if let Some(micros) = micros
            && micros > origin.received.saturating_add(MAX_AHEAD)
        {
            let message = format!(
                "found {}, more than 5 minutes after it was received ({})",
                time::show(micros),
                time::show(origin.received)
            );
            row.refuse("time_in_future", &Path::Top(path), message);
        }
        if row.reasons.len() == before
            && let (Some(i), Some(micros)) = (self.time_field, micros)
        {
            self.fields[i].column.fill_instant(micros);
        }
        self.time.push(micros.unwrap_or_default());
    }

    fn push_id(&mut self, of_field: Raw<'_>, envelope: &Envelope<'_>, names: &Names, row: &mut Row<'_>) {
        row.hide = self.id_field.is_some_and(|i| self.contract.fields[i].pii);
        let id = if of_field.is_nothing() { envelope.id } else { of_field };
        if id.is_nothing() {
            return self.ids.push_null();
        }
        match (id.id(), envelope.tenant.id()) {
            // The same id of two tenants is two events.
            (Some(id), Some(tenant)) => self.ids.push(&[&tenant, b"/".as_slice(), &id].concat()),
            (Some(id), None) => self.ids.push(&id),
            (None, _) => {
                self.ids.push_null();
                let path = match self.id_field {
                    Some(i) if !of_field.is_nothing() => &self.fields[i].path,
                    _ => &names.id,
                };
                if !row.reasons.iter().any(|reason| reason.path == *path) {
                    row.wrong_type(&Path::Top(path), "an id: a string or an integer", id);
                }
            }
        }
    }

    /// The rows as a batch over `bytes`; empty again.
    pub(super) fn take(&mut self, bytes: &Bytes, headers: Option<&Arc<Headers>>) -> EventBatch {
        let len = self.len();
        let schema = self.contract.decoded.clone();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for (rows, field) in self.fields.iter_mut().zip(schema.fields()) {
            columns.push(rows.column.take(field.data_type()));
        }
        let time = std::mem::replace(&mut self.time, Vec::with_capacity(len));
        if columns.len() < schema.fields().len() {
            columns.push(Arc::new(instants(time, None)));
        }
        let columns = RecordBatch::try_new(schema, columns)
            .expect("Event::decoded is the declared fields and the time");
        if !self.contract.needs_id && !self.contract.changelog {
            (0..len).for_each(|_| self.ids.push_null());
        }
        EventBatch {
            event: self.event,
            columns,
            ids: self.ids.take(),
            offsets: renew(&mut self.offsets),
            parts: renew(&mut self.parts),
            received: renew(&mut self.received),
            payloads: Payloads {
                bytes: bytes.clone(),
                ranges: renew(&mut self.ranges),
                headers: headers.cloned(),
            },
            changes: self.contract.changelog.then(|| renew(&mut self.changes)),
        }
    }
}

/// The full vector, leaving one of the same room.
fn renew<T>(full: &mut Vec<T>) -> Vec<T> {
    let room = Vec::with_capacity(full.len());
    std::mem::replace(full, room)
}

fn envelope_time(raw: Raw<'_>, names: &Names, row: &mut Row<'_>) -> Option<i64> {
    let at = Path::Top(&names.time);
    if raw.is_nothing() {
        row.missing(&at, raw);
        return None;
    }
    let micros = raw.instant();
    if micros.is_none() {
        row.wrong_type(&at, "RFC 3339 text or integer milliseconds since 1970, years 0 to 9999", raw);
    }
    micros
}

impl FieldRows {
    #[inline]
    fn push(&mut self, raw: Raw<'_>, field: &Field, row: &mut Row<'_>) {
        let at = Path::Top(&self.path);
        row.hide = field.pii;
        if raw.is_nothing() {
            match &field.default {
                Some(default) => return self.column.push_value(default),
                None if field.required => row.missing(&at, raw),
                None => {}
            }
            return self.column.push_null();
        }
        self.column.push(raw, &at, row);
    }
}
