//! Rows that were decoded before, under contracts that may have been others.
//!
//! *In*: admitted rows as columns, refused rows with their payloads. *Out*: what the contracts of now make of them. *Never*:
//! a refused row that becomes more or fewer than one; a row of a change stream of which the ends were passed over.

use contracts::batch::{EventBatch, Partition, Reason, Refused};

use super::registry::id_of;
use super::rows::Origin;
use super::sink::Payload;
use super::{Decoder, Format, Record, debezium, json};

/// What became of a refused row.
#[derive(Debug)]
pub enum Again {
    /// It is admitted now.
    Taken(EventBatch),
    /// It stays refused, with the reasons of now where those can be told.
    Refused(Refused),
}

impl Decoder {
    /// Holds rows that were admitted before against their contract of now: what its fields ask for (`required`, `enum`,
    /// `min`, ...), defaults, event time and id. Those that it refuses come back without a payload.
    ///
    /// Between chunks only: nothing was taken since the last [`Self::finish`].
    pub fn recheck(&mut self, partition: &Partition, batch: EventBatch) -> (EventBatch, Vec<Refused>) {
        self.sink.recheck(partition, batch)
    }

    /// Decodes a refused row once more. Its Kafka key is not kept, so what only the key says is not known; schemas that its
    /// payload names must have been fetched ([`Self::prepare`]).
    ///
    /// Between chunks only, as [`Self::recheck`].
    pub fn again(&mut self, row: Refused) -> Again {
        if row.payload.is_empty() || row.payload.len() >= contracts::batch::MAX_REFUSED_PAYLOAD {
            return Again::Refused(row);
        }
        self.push_refused(&row);
        let mut decoded = self.finish(&row.partition, row.offset + 1, None);
        match (decoded.batches.as_mut_slice(), decoded.refused.as_mut_slice()) {
            ([batch], []) if batch.columns.num_rows() == 1 && !self.passed_over(&row, batch) => {
                batch.parts[0] = row.part;
                decoded.batches.pop().map_or(Again::Refused(row), Again::Taken)
            }
            // Of a record that needs its key the old reasons are the better ones.
            ([], [refused]) if !self.remembers() => {
                refused.part = row.part;
                decoded.refused.pop().map_or(Again::Refused(row), Again::Refused)
            }
            _ => Again::Refused(row),
        }
    }

    fn push_refused(&mut self, row: &Refused) {
        if self.wants_keys() {
            let Self { stream, sink, .. } = self;
            let stream = stream.get_or_insert_with(|| Box::new(debezium::Stream::new(sink.catalog())));
            stream.at(sink.catalog(), &row.partition.topic, None);
        }
        let in_wire_format = matches!(self.spec.format, Format::Avro | Format::Protobuf);
        if in_wire_format && id_of(&row.payload).is_none() {
            // It had been read by its schema before it was refused: this is the JSON that came of it.
            let event = match debezium::expects_changes(self, row.event_type.as_deref()) {
                true => debezium::canonical,
                false => json::event,
            };
            let payload = Payload { bytes: &row.payload, shared: None };
            let origin = Origin { offset: row.offset, part: 0, received: row.received };
            return json::record(self, payload, &origin, event);
        }
        let headers: Vec<(&str, &[u8])> =
            row.headers.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
        let (offset, received) = (row.offset, row.received);
        self.push(Record { value: &row.payload, offset, received, headers: &headers });
    }

    /// A version of a row whose type was not known when it came: then tombstones, the ends of such rows, were skipped, and
    /// without them the row would stay for ever. Envelopes of Debezium tell of an end by a record of its own.
    fn passed_over(&self, row: &Refused, batch: &EventBatch) -> bool {
        let unknown = |reason: &Reason| reason.code == "unknown_event_type";
        let envelopes = self.spec.format == Format::Debezium
            && self.stream.as_ref().is_none_or(|stream| !stream.is_flat(&row.partition.topic));
        batch.changes.is_some() && row.reasons.iter().any(unknown) && !envelopes
    }
}
