//! Change events of Debezium: which row of which table became what.
//!
//! *In*: a record's JSON, with or without the `schema`/`payload` wrapper: the envelope (`before`, `after`,
//! `source`, `op`), or a row flattened by `ExtractNewRecordState`; its topic and Kafka key. *Out*: a
//! version of one row of a changelog event, its values in the contract's types. *Never*: a unit or an
//! encoding guessed from the size of a number; a before-image used but for the key of what is gone.
//!
//! `spec` is what the settings say, `schema` what a record's schema says, `value` reads a value by both,
//! `key` reads Kafka keys, `kept` knows large values that an update leaves out, `walks` finds the parts of a
//! record, `types` finds the contract, `take` makes rows.

mod kept;
mod key;
mod schema;
mod spec;
mod take;
mod types;
mod value;
mod walks;

pub(super) use schema::Shape;
pub use spec::{Debezium as DebeziumSpec, Decimals, Unit};
pub(super) use value::{shown, unscaled};

use contracts::batch::{ChangeOp, Reason};

use self::kept::Kept;
use self::schema::Cache;
use self::take::{Change, Op, take_by_key};
use self::types::Types;
use self::value::{Fault, Rules};
use self::walks::{Form, Parts, Walks};
use super::Decoder;
use super::json::twice;
use super::raw::Raw;
use super::reason::{malformed, reason};
use super::rows::{Envelope, Names, Origin, change::Version};
use super::sink::{Payload, Sink};

/// Topic and Kafka key of the record at hand, and what was learned from those before.
pub(super) struct Stream {
    topic: String,
    /// The event contract `cdc.<topic>`.
    event: Option<usize>,
    /// The event contract named as the schema of the record at hand.
    named: Option<usize>,
    key: Option<Vec<u8>>,
    types: Types,
    walks: Walks,
    shapes: Cache,
    kept: Kept,
    names: Names,
}

impl Stream {
    pub(super) fn new(catalog: &contracts::Catalog) -> Self {
        Self {
            topic: String::new(),
            event: None,
            named: None,
            key: None,
            types: Types::default(),
            walks: Walks::new(catalog),
            shapes: Cache::default(),
            kept: Kept::default(),
            names: Names {
                event_type: "source.table".to_owned(),
                id: "key".to_owned(),
                time: "source.ts_ms".to_owned(),
            },
        }
    }

    /// Remembers where the next record came from.
    pub(super) fn at(&mut self, catalog: &contracts::Catalog, topic: &str, key: Option<&[u8]>) {
        if self.topic != topic {
            topic.clone_into(&mut self.topic);
            self.event = self.types.by_topic(catalog, topic);
        }
        match (&mut self.key, key) {
            (Some(kept), Some(key)) => {
                kept.clear();
                kept.extend_from_slice(key);
            }
            (kept, key) => *kept = key.map(<[u8]>::to_vec),
        }
    }

    /// The event type `cdc.<topic>`, else that named as the record's schema, if there is one.
    pub(super) fn type_of_topic<'c>(&self, catalog: &'c contracts::Catalog) -> Option<&'c str> {
        Some(catalog.events[self.event.or(self.named)?].head.name.as_str())
    }

    /// Rows of this topic are known to come flattened.
    pub(super) fn is_flat(&self, topic: &str) -> bool {
        self.types.flat(topic)
    }

    pub(super) fn settle(&mut self) {
        self.walks.settle();
    }
}

/// Whether a record read by a schema of this name is a change event or a row of a change stream.
pub(super) fn expects_changes(decoder: &mut Decoder, name: Option<&str>) -> bool {
    let Decoder { spec, stream, sink, .. } = decoder;
    let catalog = sink.catalog();
    let stream = stream.get_or_insert_with(|| Box::new(Stream::new(catalog)));
    stream.named = name.and_then(|name| catalog.event_index(name));
    let fixed = spec.fixed_type.as_deref().and_then(|fixed| catalog.event_index(fixed));
    let known = fixed.or(stream.event).or(stream.named);
    // Debezium names the schema of its envelopes so.
    known.map_or_else(
        || name.is_some_and(|name| name.ends_with(".Envelope")),
        |event| sink.rows[event].changelog(),
    )
}

/// One change event as its connector wrote it.
pub(super) fn event(decoder: &mut Decoder, payload: Payload<'_>, origin: &Origin) {
    change(decoder, payload, origin, false);
}

/// One change event whose values are in the contract's own forms.
pub(super) fn canonical(decoder: &mut Decoder, payload: Payload<'_>, origin: &Origin) {
    change(decoder, payload, origin, true);
}

fn change(decoder: &mut Decoder, payload: Payload<'_>, origin: &Origin, canonical: bool) {
    let Decoder { spec, stream, sink, .. } = decoder;
    let stream = stream.get_or_insert_with(|| Box::new(Stream::new(sink.catalog())));
    let bytes = payload.bytes;
    let parts = match stream.walks.parts(bytes) {
        Ok(parts) => parts,
        Err(syntax) => return sink.refuse(origin, bytes, None, Raw::Absent, vec![malformed(syntax)]),
    };
    if parts.form == Form::Tombstone {
        return tombstone(decoder, payload, origin);
    }
    if let Some(name) = parts.twice {
        return twice(sink, name.to_owned(), origin, bytes);
    }
    let op = match operation(&parts) {
        Ok(Some(op)) => op,
        Ok(None) => return sink.skip(),
        Err(reason) => return sink.refuse(origin, bytes, None, Raw::Absent, vec![reason]),
    };
    let event = match types::event(
        sink,
        stream.event.or(stream.named),
        &stream.topic,
        &parts,
        spec.fixed_type.as_deref(),
    ) {
        Ok(event) => event,
        Err((found, reason)) => return sink.refuse(origin, bytes, found, Raw::Absent, vec![reason]),
    };
    if let Some(reason) = no_changelog(sink, event) {
        let event_type = Some(sink.catalog().events[event].head.name.clone());
        return sink.refuse(origin, bytes, event_type, Raw::Absent, vec![reason]);
    }
    if matches!(parts.form, Form::Flat) {
        stream.types.is_flat(&stream.topic);
    }
    let change = Change { event, op, parts, rules: Rules::new(&spec.debezium, parts.connector), canonical };
    change.take(stream, sink, origin, payload);
}

/// A tombstone: the end of a row where nothing else says so (upsert topics, flattened rows), else the
/// marker behind a delete that lets compaction forget it.
pub(super) fn tombstone(decoder: &mut Decoder, payload: Payload<'_>, origin: &Origin) {
    let Decoder { spec, stream, sink, .. } = decoder;
    let stream = stream.get_or_insert_with(|| Box::new(Stream::new(sink.catalog())));
    let fixed = spec.fixed_type.as_deref().and_then(|name| sink.catalog().event_index(name));
    let event = fixed.or(stream.event).filter(|event| sink.is_open(*event));
    let envelopes = spec.format == super::Format::Debezium && !stream.types.flat(&stream.topic);
    let (Some(event), Some(_), false) = (event, &stream.key, envelopes) else { return sink.skip() };
    if no_changelog(sink, event).is_some() {
        return sink.skip();
    }
    let at = origin.received;
    let version = Version { op: ChangeOp::Delete, at, time: at };
    let rules = Rules::new(&spec.debezium, Raw::Absent);
    take_by_key(stream, sink, event, &rules, &version, origin, payload);
}

/// Why change events cannot be of event `event`: its contract is no change stream.
fn no_changelog(sink: &Sink, event: usize) -> Option<Reason> {
    if sink.rows[event].changelog() {
        return None;
    }
    let name = &sink.catalog().events[event].head.name;
    let message = format!("`{name}` is no change stream: add `changelog: true` and a `key` to its contract");
    Some(reason("not_a_changelog", String::new(), message))
}

/// One version of a row that is no change event: its columns stand where the contract says.
#[expect(clippy::too_many_arguments, reason = "the parts of one event")]
pub(super) fn plain<'a>(
    sink: &mut Sink,
    event: usize,
    cells: impl Fn(usize) -> Raw<'a>,
    op: Raw<'a>,
    envelope: &Envelope<'a>,
    names: &Names,
    origin: &Origin,
    payload: Payload<'_>,
) {
    let mut reasons = Vec::new();
    let told = envelope.time.instant();
    if told.is_none() && !envelope.time.is_nothing() {
        let found = envelope.time.found();
        let message = format!("found {found}, expected RFC 3339 text or integer milliseconds since 1970");
        reasons.push(reason("wrong_type", names.time.clone(), message));
    }
    let at = told.unwrap_or(origin.received);
    let (op, time) = match op.text().as_deref() {
        None if op.is_nothing() => (ChangeOp::Upsert, at),
        Some(b"c" | b"u") => (ChangeOp::Upsert, at),
        Some(b"r") => (ChangeOp::Upsert, told.unwrap_or(0)),
        Some(b"d") => (ChangeOp::Delete, at),
        Some(b"t") => (ChangeOp::Truncate, at),
        _ => {
            let message = format!("found {}, allowed: c, r, u, d, t", op.found());
            reasons.push(reason("not_in_enum", "op".to_owned(), message));
            (ChangeOp::Upsert, at)
        }
    };
    let version = Version { op, at, time };
    sink.take_version(event, |i| Some(cells(i)), &version, reasons, names, origin, payload);
}

/// What an operation does; `None`: it is not about a row.
fn operation(parts: &Parts<'_>) -> Result<Option<Op>, Reason> {
    let name = match parts.form {
        Form::Flat => {
            if parts.deleted.text().is_some_and(|text| *text == *b"true")
                || matches!(parts.deleted, Raw::Bool(true))
            {
                return Ok(Some(Op::Delete));
            }
            if parts.op.is_nothing() {
                return Ok(Some(Op::Upsert { snapshot: false }));
            }
            "__op"
        }
        Form::Envelope | Form::Tombstone => "op",
    };
    match parts.op.text().as_deref() {
        Some(b"c" | b"u") => Ok(Some(Op::Upsert { snapshot: false })),
        Some(b"r") => Ok(Some(Op::Upsert { snapshot: true })),
        Some(b"d") => Ok(Some(Op::Delete)),
        Some(b"t") => Ok(Some(Op::Truncate)),
        Some(b"m") => Ok(None),
        _ if parts.op.is_nothing() => {
            let message = "the change event does not say its operation".to_owned();
            Err(reason("missing", name.to_owned(), message))
        }
        _ => {
            let message = format!("found {}, allowed: c, r, u, d, t, m", parts.op.found());
            Err(reason("not_in_enum", name.to_owned(), message))
        }
    }
}

impl Fault {
    /// The reason of a value at `path`.
    pub(super) fn reason(&self, path: String, raw: Raw<'_>, hide: bool) -> Reason {
        match self {
            Self::WrongType(expected) => {
                let found = if hide { "a hidden value".to_owned() } else { raw.found() };
                reason("wrong_type", path, format!("found {found}, expected {expected}"))
            }
            Self::Unavailable => {
                let message = "the source left out this large value because it did not change (PostgreSQL TOAST), and \
                               the version before it is not known: read the topic from its start, run `ALTER TABLE \
                               ... REPLICA IDENTITY FULL`, or leave the field out of the contract";
                reason("unavailable", path, message.to_owned())
            }
        }
    }
}
