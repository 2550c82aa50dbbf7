//! A change event becomes versions of rows.
//!
//! *In*: the parts of a change event, its contract. *Out*: one row, or two where an update moves a row to
//! another key. *Never*: a before-image used but for the key of what is gone.

use contracts::batch::ChangeOp;
use contracts::catalog::Field;

use super::kept::{can_be_large, leaves_out};
use super::schema::Shape;
use super::value::{Cell, Rules, unavailable};
use super::walks::{Form, Parts};
use super::{Fault, Stream, key};
use crate::decode::json::twice;
use crate::decode::raw::Raw;
use crate::decode::reason::{malformed, reason};
use crate::decode::rows::Origin;
use crate::decode::rows::change::{Version, key_text};
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
                stream.kept.forget_all(self.event);
                let none = |_: usize| None;
                sink.take_version(self.event, none, &version, Vec::new(), &stream.names, origin, payload);
            }
            Op::Delete => {
                let row =
                    if matches!(self.parts.form, Form::Flat) { self.parts.row } else { self.parts.before };
                let keys = sink.rows[self.event].key_fields();
                if keys.is_empty() {
                    return self.keyless(sink, origin, payload);
                }
                match row {
                    Raw::Object(bytes) if self.key(stream, bytes, &keys).is_some() => {
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

    /// The text of a row's key; `None`: a part is missing.
    fn key(&self, stream: &mut Stream, row: &[u8], keys: &[usize]) -> Option<Vec<u8>> {
        let found = stream.walks.row(self.event, row).ok()?;
        let text = key_text(keys, |i| Some(stream.walks.field(self.event, found, i, row)))?;
        Some(text.into_owned())
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
        let (Raw::Object(before), Raw::Object(row)) = (self.parts.before, self.parts.row) else { return };
        let keys = sink.rows[self.event].key_fields();
        if let (Some(old), Some(new)) = (self.key(stream, before, &keys), self.key(stream, row, &keys))
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
        let shape = |i: usize| match &shapes {
            Some(shapes) => &shapes[i],
            None if self.canonical => &known,
            None => &Shape::Unknown,
        };
        let mut reasons = Vec::new();
        let keys = sink.rows[self.event].key_fields();
        let text = key_text(&keys, |i| Some(stream.walks.field(self.event, found, i, row)));
        let mut cells: Vec<Option<Cell<'_>>> = Vec::with_capacity(contract.fields.len());
        for (i, field) in contract.fields.iter().enumerate() {
            if version.op == ChangeOp::Delete && !keys.contains(&i) {
                cells.push(None);
                continue;
            }
            let raw = stream.walks.field(self.event, found, i, row);
            let before = || stream.kept.value(self.event, text.as_ref()?, i);
            let read = self.value(field, raw, shape(i), before);
            cells.push(
                read.map_err(|fault| reasons.push(fault.reason(field.path.join("."), raw, field.pii))).ok(),
            );
        }
        let cell = |i: usize| cells[i].as_ref().map(Cell::raw);
        sink.take_version(self.event, cell, version, reasons, &stream.names, origin, payload);
        drop(cells);
        let Some(key) = text.filter(|_| leaves_out(self.parts.connector)) else { return };
        if version.op == ChangeOp::Delete {
            return stream.kept.forget(self.event, &key);
        }
        let large = (0..contract.fields.len()).filter(|i| can_be_large(&contract.fields[*i].ty));
        let said = large.map(|i| (i, stream.walks.field(self.event, found, i, row)));
        stream.kept.learn(self.event, &key, said.filter(|(i, raw)| !unavailable(*raw, shape(*i))));
    }

    /// The value of a field; of one that was left out, what it said `before`.
    fn value<'r>(
        &self,
        field: &Field,
        raw: Raw<'r>,
        shape: &Shape,
        before: impl FnOnce() -> Option<Raw<'r>>,
    ) -> Result<Cell<'r>, Fault> {
        match self.rules.cell(raw, shape, &field.ty) {
            Err(Fault::Unavailable) => {
                let before = before().ok_or(Fault::Unavailable)?;
                self.rules.cell(before, shape, &field.ty).map_err(|_| Fault::Unavailable)
            }
            read => read,
        }
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
    let keys = sink.rows[event].key_fields();
    let part = |field: &usize| {
        let cell = key::read(stream.key.as_deref(), &contract.fields[*field], keys.len() == 1, rules)?;
        Ok((*field, cell))
    };
    let read: Result<Vec<(usize, Cell<'_>)>, _> = keys.iter().map(part).collect();
    match read {
        Ok(parts) => {
            let cells = |i: usize| parts.iter().find(|(field, _)| *field == i).map(|(_, cell)| cell.raw());
            if let Some(key) = key_text(&keys, cells) {
                stream.kept.forget(event, &key);
            }
            sink.take_version(event, cells, version, Vec::new(), &stream.names, origin, payload);
        }
        Err(reason) => {
            let event_type = Some(contract.head.name.clone());
            sink.refuse(origin, payload.bytes, event_type, Raw::Absent, vec![reason]);
        }
    }
}
