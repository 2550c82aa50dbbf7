//! A change event becomes versions of rows.
//!
//! *In*: the parts of a change event, its contract. *Out*: one row, or two where an update moves a row to
//! another key. *Never*: a before-image used but for the key of what is gone.

use contracts::batch::ChangeOp;

use super::schema::Shape;
use super::value::{Cell, Rules};
use super::walks::{Form, Parts};
use super::{Stream, key};
use crate::decode::json::twice;
use crate::decode::raw::Raw;
use crate::decode::reason::{malformed, reason};
use crate::decode::rows::{Origin, change::Version};
use crate::decode::sink::{Payload, Sink};

/// Offset parts of the delete that an update of the key implies: beyond any index of a JSON array.
const OLD_KEY: u32 = 1 << 31;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Upsert { snapshot: bool },
    Delete,
    Truncate,
}

/// A change event taken apart.
pub(super) struct Change<'a> {
    pub(super) event: usize,
    pub(super) op: Op,
    pub(super) parts: Parts<'a>,
    pub(super) rules: Rules,
    /// The values are in the contract's own forms already.
    pub(super) canonical: bool,
}

impl<'a> Change<'a> {
    fn version(&self, origin: &Origin) -> Version {
        let at = self.parts.committed().unwrap_or(origin.received);
        let (op, time) = match self.op {
            // What was there before we came is not new business.
            Op::Upsert { snapshot: true } => (ChangeOp::Upsert, 0),
            Op::Upsert { snapshot: false } => (ChangeOp::Upsert, at),
            Op::Delete => (ChangeOp::Delete, at),
            Op::Truncate => (ChangeOp::Truncate, at),
        };
        Version { op, at, time }
    }

    pub(super) fn take(self, stream: &mut Stream, sink: &mut Sink, origin: &Origin, payload: Payload<'_>) {
        let version = self.version(origin);
        match self.op {
            Op::Truncate => {
                let none = |_: usize| None;
                sink.take_version(self.event, none, &version, Vec::new(), &stream.names, origin, payload);
            }
            Op::Delete => {
                let row =
                    if matches!(self.parts.form, Form::Flat) { self.parts.row } else { self.parts.before };
                let Some(key) = sink.rows[self.event].key_field() else {
                    return self.keyless(sink, origin, payload);
                };
                match row {
                    Raw::Object(bytes) if self.has_key(stream, bytes, key) => {
                        self.take_row(stream, sink, bytes, &version, origin, payload);
                    }
                    _ => take_by_key(stream, sink, self.event, &self.rules, &version, origin, payload),
                }
            }
            Op::Upsert { .. } => match self.parts.row {
                Raw::Object(bytes) => {
                    self.take_old_key(stream, sink, &version, origin, payload);
                    self.take_row(stream, sink, bytes, &version, origin, payload);
                }
                found => {
                    let message = format!("found {}, expected the row as an object", found.found());
                    let event_type = Some(sink.catalog().events[self.event].head.name.clone());
                    let reason = reason("missing", "after".to_owned(), message);
                    sink.refuse(origin, payload.bytes, event_type, Raw::Absent, vec![reason]);
                }
            },
        }
    }

    #[cold]
    fn keyless(&self, sink: &mut Sink, origin: &Origin, payload: Payload<'_>) {
        let event_type = Some(sink.catalog().events[self.event].head.name.clone());
        let message = "a change stream needs a key, and the contract names none".to_owned();
        let reason = reason("missing", String::new(), message);
        sink.refuse(origin, payload.bytes, event_type, Raw::Absent, vec![reason]);
    }

    fn has_key(&self, stream: &mut Stream, row: &[u8], key: usize) -> bool {
        let found = stream.walks.row(self.event, row);
        found.is_ok_and(|found| !stream.walks.field(self.event, found, key, row).is_nothing())
    }

    /// An update that moves a row to another key ends the row of the old one. Debezium itself sends a
    /// delete and an insert where the primary key changes; the contract's key may be another column.
    fn take_old_key(
        &self,
        stream: &mut Stream,
        sink: &mut Sink,
        version: &Version,
        origin: &Origin,
        payload: Payload<'_>,
    ) {
        let (Some(key), Raw::Object(before)) = (sink.rows[self.event].key_field(), self.parts.before) else {
            return;
        };
        let mut key_of = |row: &'a [u8]| {
            let found = stream.walks.row(self.event, row).ok()?;
            stream.walks.field(self.event, found, key, row).id().map(|id| id.into_owned())
        };
        let Raw::Object(row) = self.parts.row else { return };
        if let (Some(old), Some(new)) = (key_of(before), key_of(row))
            && old != new
        {
            let version = Version { op: ChangeOp::Delete, ..*version };
            let origin = Origin { part: origin.part | OLD_KEY, ..*origin };
            self.take_row(stream, sink, before, &version, &origin, payload);
        }
    }

    /// Converts a row's values and hands them on.
    fn take_row(
        &self,
        stream: &mut Stream,
        sink: &mut Sink,
        row: &[u8],
        version: &Version,
        origin: &Origin,
        payload: Payload<'_>,
    ) {
        let contract = sink.contract(self.event);
        let found = match stream.walks.row(self.event, row) {
            Ok(found) => found,
            // The record as a whole was walked before.
            Err(syntax) => {
                return sink.refuse(origin, payload.bytes, None, Raw::Absent, vec![malformed(syntax)]);
            }
        };
        if let Some(field) = stream.walks.field_twice(self.event, found) {
            return twice(sink, contract.fields[field].path.join("."), origin, payload.bytes);
        }
        let known = Shape::Canonical;
        let shapes = match self.parts.schema {
            _ if self.canonical => None,
            Raw::Object(schema) => {
                Some(stream.shapes.of(self.event, &contract, schema, matches!(self.parts.form, Form::Flat)))
            }
            _ => None,
        };
        let mut reasons = Vec::new();
        let key = sink.rows[self.event].key_field();
        let mut cells: Vec<Option<Cell<'_>>> = Vec::with_capacity(contract.fields.len());
        for (i, field) in contract.fields.iter().enumerate() {
            if version.op == ChangeOp::Delete && key != Some(i) {
                cells.push(None);
                continue;
            }
            let raw = stream.walks.field(self.event, found, i, row);
            let shape = match &shapes {
                Some(shapes) => &shapes[i],
                None if self.canonical => &known,
                None => &Shape::Unknown,
            };
            match self.rules.cell(raw, shape, &field.ty) {
                Ok(cell) => cells.push(Some(cell)),
                Err(fault) => {
                    reasons.push(fault.reason(field.path.join("."), raw, field.pii));
                    cells.push(None);
                }
            }
        }
        let cell = |i: usize| cells[i].as_ref().map(Cell::raw);
        sink.take_version(self.event, cell, version, reasons, &stream.names, origin, payload);
    }
}

/// The end of a row that only the Kafka key names.
pub(super) fn take_by_key(
    stream: &mut Stream,
    sink: &mut Sink,
    event: usize,
    rules: &Rules,
    version: &Version,
    origin: &Origin,
    payload: Payload<'_>,
) {
    let contract = sink.contract(event);
    let read = sink.rows[event].key_field().ok_or_else(|| {
        let message = "a change stream needs a key, and the contract names none".to_owned();
        reason("missing", String::new(), message)
    });
    let read = read.and_then(|field| {
        let cell = key::read(stream.key.as_deref(), &contract.fields[field], rules)?;
        Ok((field, cell))
    });
    match read {
        Ok((field, cell)) => {
            let cells = |i: usize| (i == field).then(|| cell.raw());
            sink.take_version(event, cells, version, Vec::new(), &stream.names, origin, payload);
        }
        Err(reason) => {
            let event_type = Some(contract.head.name.clone());
            sink.refuse(origin, payload.bytes, event_type, Raw::Absent, vec![reason]);
        }
    }
}
