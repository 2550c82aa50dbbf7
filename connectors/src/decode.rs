//! Decode: bytes of records become columns.
//!
//! *In*: [`Record`]s of one partition in offset order: JSON with a declared envelope, CloudEvents 1.0
//! (structured, batch, binary), CSV lines, Arrow batches. *Out*: a [`Chunk`]: one Arrow batch per event
//! type with exactly the declared fields, and the refused events with all their reasons. *Never*: an
//! error or a panic for what a record holds: every event ends in exactly one of `batches`, `refused`,
//! `skipped`.
//!
//! Modules in the order a record meets them: `adapt` (deliveries of webhooks, which become canonical
//! events first), `cloudevents` (which of the forms is it), `plan` and `walk`
//! (where the wanted values stand, with `scan` for the grammar and `shapes` for what is expected),
//! `sink` and `rows` (which type, where it ends), `column`, `nested`, `check`, `raw` (what a value means).
//! `again` is for what was decoded before, under other contracts.

pub mod adapt;
mod again;
mod cells;
mod check;
mod cloudevents;
mod column;
mod debezium;
mod json;
mod nested;
mod number;
mod plan;
mod raw;
mod reason;
mod registry;
mod rows;
mod scan;
mod settings;
mod shapes;
mod sink;
mod table;
mod text;
mod time;
mod walk;
mod words;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::Bytes;
use contracts::batch::{Chunk, Partition};
use contracts::{Catalog, RESERVED};

use cloudevents::Form;
use plan::Plan;
use raw::Raw;
use rows::Origin;
use sink::{Payload, Sink};
use table::Table;

pub use again::Again;
pub use debezium::{DebeziumSpec, Decimals, Unit};
pub use registry::RegistrySpec;
pub use settings::{DecodeSpec, Envelope, Format};
pub use table::{HeaderError, csv_record_end};

/// One record of a partition.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its bytes; empty means "no event by design" (a Kafka tombstone).
    pub value: &'a [u8],
    /// Its offset in the partition.
    pub offset: i64,
    /// When it was received, microseconds since the Unix epoch.
    pub received: i64,
    /// Kafka or HTTP headers. They decide whether the record is a CloudEvent, whatever the format says.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// Turns records into [`Chunk`]s. One per partition: values of low-cardinality fields keep their codes
/// from chunk to chunk.
pub struct Decoder {
    spec: DecodeSpec,
    /// For JSON with the declared envelope.
    json: Plan,
    /// For structured CloudEvents; made when the first comes.
    structured: Option<Box<cloudevents::Structured>>,
    /// For the data of CloudEvents that carry it apart; made when the first comes.
    data: Option<Box<Plan>>,
    /// For CSV lines.
    csv: Option<Table>,
    /// For change events; made when the first comes.
    stream: Option<Box<debezium::Stream>>,
    /// For records in a registry's wire format.
    registry: Option<Box<registry::Registry>>,
    sink: Sink,
}

impl Decoder {
    /// A decoder for the events of `catalog`.
    pub fn new(catalog: Arc<Catalog>, spec: DecodeSpec) -> Self {
        let canonical = spec.adapter.is_some().then(adapt::envelope);
        let mut json = Plan::new(&catalog, canonical.as_ref().unwrap_or(&spec.envelope), None);
        json.want_op(&spec.op);
        let sink = Sink::new(catalog, spec.own_events);
        let registry = spec.registry.as_ref().map(|spec| Box::new(registry::Registry::new(spec)));
        Self { json, structured: None, data: None, csv: None, stream: None, registry, sink, spec }
    }

    /// A decoder for the lines of one CSV file with these column names; a nested path is written with
    /// dots (`address.city`). A cell is read as its field's type says; an empty one is null.
    ///
    /// # Errors
    /// Two columns of one name that a contract or the envelope wants.
    pub fn csv(
        catalog: Arc<Catalog>,
        spec: DecodeSpec,
        header: &[impl AsRef<str>],
    ) -> Result<Self, HeaderError> {
        let names: Vec<&str> = header.iter().map(AsRef::as_ref).collect();
        let table = Table::new(&catalog, &spec.envelope, &names)?;
        let spec = DecodeSpec { format: Format::Csv, ..spec };
        let mut decoder = Self::new(catalog, spec);
        decoder.csv = Some(table);
        Ok(decoder)
    }

    /// Takes one record. Never fails: what cannot be decoded is refused with its reasons.
    #[inline]
    pub fn push(&mut self, record: Record<'_>) {
        let origin = Origin { offset: record.offset, part: 0, received: record.received };
        self.record(record.value, &origin, record.headers, None);
    }

    /// Whether records must come with their topic and key ([`Self::push_keyed`]): change events of
    /// Debezium, and any source when a contract is a change stream.
    pub fn wants_keys(&self) -> bool {
        let catalog = self.sink.catalog();
        self.spec.format == Format::Debezium
            || self.spec.registry.is_some()
            || catalog.events.iter().any(|event| event.changelog && !event.head.name.starts_with(RESERVED))
    }

    /// Whether records may leave out what an earlier one of their key said: after a restart the earlier ones must be
    /// decoded again, if only for that.
    pub fn remembers(&self) -> bool {
        self.spec.format == Format::Debezium || self.spec.registry.is_some()
    }

    /// Fetches the schemas that a record and its key name, where they come from a registry. To be asked
    /// before [`Self::push_keyed`], again and again until it succeeds; quick when they are known.
    ///
    /// # Errors
    /// The registry does not answer: what to show people.
    pub fn prepare(&mut self, value: &[u8], key: Option<&[u8]>) -> Result<(), String> {
        match &mut self.registry {
            Some(registry) => {
                registry.prepare(value)?;
                key.map_or(Ok(()), |key| registry.prepare(key))
            }
            None => Ok(()),
        }
    }

    /// Takes one record of a Kafka topic with its key; an empty value is a tombstone. Of a change stream
    /// a tombstone ends the row of its key; of any other it is skipped.
    pub fn push_keyed(&mut self, record: Record<'_>, topic: &str, key: Option<&[u8]>) {
        let Self { stream, sink, registry, .. } = self;
        let key = key.map(|key| match registry {
            Some(registry) => registry.key(key),
            None => Cow::Borrowed(key),
        });
        let catalog = sink.catalog();
        let stream = stream.get_or_insert_with(|| Box::new(debezium::Stream::new(catalog)));
        stream.at(catalog, topic, key.as_deref());
        // A JSON converter may write a tombstone as `null`.
        let changes = self.spec.format == Format::Debezium || stream.type_of_topic(catalog).is_some();
        if record.value.is_empty() || (changes && record.value.trim_ascii() == b"null") {
            let origin = Origin { offset: record.offset, part: 0, received: record.received };
            return debezium::tombstone(self, Payload { bytes: &[], shared: None }, &origin);
        }
        self.push(record);
    }

    /// Makes `buffer` the buffer of the next chunk, so that [`Self::push_shared`] copies no payload.
    /// Works between chunks, up to 1 GiB; otherwise payloads are copied as by [`Self::push`].
    pub fn share(&mut self, buffer: &Bytes) {
        self.sink.share(buffer);
    }

    /// Takes the record at `range` of `buffer`, which was given to [`Self::share`].
    ///
    /// # Panics
    /// If `range` is outside of `buffer`.
    pub fn push_shared(&mut self, buffer: &Bytes, range: Range<usize>, offset: i64, received: i64) {
        let at = self.sink.shares(buffer).then_some(range.start);
        self.record(&buffer[range], &Origin { offset, part: 0, received }, &[], at);
    }

    /// Takes the rows of an Arrow batch (of a Parquet file) as events with offsets from `first_offset`
    /// on. Columns are found by their names, struct fields by dots; a cell is read as its field's type
    /// says. The payload of a row is its JSON.
    ///
    /// # Errors
    /// A column type that has no text form, two wanted columns of one name. Nothing was taken then.
    pub fn push_batch(
        &mut self,
        batch: &RecordBatch,
        first_offset: i64,
        received: i64,
    ) -> Result<(), ArrowError> {
        table::push_batch(self, batch, first_offset, received)
    }

    /// Events taken since the last [`Self::finish`].
    pub fn rows(&self) -> usize {
        self.sink.rows()
    }

    /// Bytes of the records taken since the last [`Self::finish`].
    pub fn payload_bytes(&self) -> usize {
        self.sink.bytes()
    }

    /// What was taken since the last time. `next_offset` is where to resume, `end_offset` the known end.
    pub fn finish(&mut self, partition: &Partition, next_offset: i64, end_offset: Option<i64>) -> Chunk {
        self.json.walker.settle();
        if let Some(structured) = &mut self.structured {
            structured.plan.walker.settle();
        }
        if let Some(data) = &mut self.data {
            data.walker.settle();
        }
        if let Some(stream) = &mut self.stream {
            stream.settle();
        }
        self.sink.finish(partition, next_offset, end_offset)
    }

    fn record(&mut self, value: &[u8], origin: &Origin, headers: &[(&str, &[u8])], shared: Option<usize>) {
        let payload = Payload { bytes: value, shared };
        let room = self.sink.admit(value.len());
        if value.is_empty() {
            return self.sink.skip();
        }
        if value.len() > self.spec.max_record_bytes || !room {
            self.sink.keep_headers(origin.offset, headers);
            return self.oversize(payload, origin, room);
        }
        if let Some(adapter) = self.spec.adapter.clone() {
            return adapt::delivery(self, &adapter, payload, origin, headers);
        }
        // No JSON begins with a zero byte.
        if self.registry.is_some() && value[0] == 0 {
            return registry::record(self, payload, origin);
        }
        if headers.is_empty() {
            match self.spec.format {
                Format::Json => json::record(self, payload, origin, json::event),
                Format::CloudEvents => json::record(self, payload, origin, cloudevents::structured),
                Format::Csv => table::line(self, payload, origin),
                Format::Avro | Format::Protobuf => registry::record(self, payload, origin),
                Format::Debezium => json::record(self, payload, origin, debezium::event),
            }
        } else {
            self.with_headers(headers, payload, origin);
        }
    }

    fn with_headers(&mut self, headers: &[(&str, &[u8])], payload: Payload<'_>, origin: &Origin) {
        let form = Form::by_headers(headers, &self.spec);
        if !matches!(form, Form::Json | Form::Csv | Form::Debezium) {
            self.sink.keep_headers(origin.offset, headers);
        }
        match form {
            Form::Json => json::record(self, payload, origin, json::event),
            Form::Structured => json::record(self, payload, origin, cloudevents::structured),
            Form::Binary(attributes) => cloudevents::binary(self, &attributes, payload, origin),
            Form::Unsupported(reason) => {
                self.sink.refuse(origin, payload.bytes, None, Raw::Absent, vec![reason]);
            }
            Form::Csv => table::line(self, payload, origin),
            Form::Registry => registry::record(self, payload, origin),
            Form::Debezium => json::record(self, payload, origin, debezium::event),
        }
    }

    #[cold]
    fn oversize(&mut self, payload: Payload<'_>, origin: &Origin, room: bool) {
        let most = self.spec.max_record_bytes;
        let message = if room {
            format!("the record has {} bytes, at most {most} are allowed", payload.bytes.len())
        } else {
            "one chunk takes at most 1 GiB".to_owned()
        };
        let reason = reason::reason("oversize", String::new(), message);
        self.sink.refuse(origin, payload.bytes, None, Raw::Absent, vec![reason]);
    }
}

/// Decodes one Arrow batch at once: [`Decoder::push_batch`] and [`Decoder::finish`] in one.
///
/// # Errors
/// As [`Decoder::push_batch`].
pub fn from_record_batch(
    catalog: Arc<Catalog>,
    spec: DecodeSpec,
    batch: &RecordBatch,
    partition: &Partition,
    first_offset: i64,
    received: i64,
) -> Result<Chunk, ArrowError> {
    let mut decoder = Decoder::new(catalog, spec);
    decoder.push_batch(batch, first_offset, received)?;
    Ok(decoder.finish(partition, first_offset + batch.num_rows() as i64, None))
}
