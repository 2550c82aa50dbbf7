//! What connectors hand to the engine: decoded rows in columns, and rows that could not be decoded.
//!
//! *In*: one poll of one partition of one source. *Out*: a [`Chunk`]. *Never*: a row that is in
//! neither `batches`, `refused` nor `skipped`: `received == rows in batches + refused + skipped`.

mod decided;
mod headers;
mod kept;

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use bytes::Bytes;

pub use decided::{Decided, Positions, Verdicts};
pub use headers::{HeaderList, Headers};
pub use kept::Kept;

/// One ordered stream of records: a Kafka partition, the embedded log, a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Partition {
    /// Source name of the settings (`orders`, `push`, ...).
    pub source: Arc<str>,
    /// Kafka topic, `log` for the embedded log, file path for files.
    pub topic: Arc<str>,
    /// Kafka partition number; 0 otherwise.
    pub number: i32,
}

/// Rows of one event type from one partition, in offset order.
///
/// All per-row vectors have `columns.num_rows()` elements.
#[derive(Debug, Clone)]
pub struct EventBatch {
    /// Index into [`crate::Catalog::events`].
    pub event: usize,
    /// Columns exactly as [`crate::catalog::Event::decoded`] says (declared fields, then `time`).
    /// Field checks (required, enum, pattern, min, max) have passed; rules have not run.
    pub columns: RecordBatch,
    /// The id of each row (text of the declared `id` field or of the envelope's id): dedupe key and
    /// tie-break of equal event times. Null: this row has no id and is never a duplicate. All null
    /// when [`crate::catalog::Event::needs_id`] is false.
    pub ids: StringArray,
    /// Offset of each row in its partition. One record can hold several events (a JSON array): they
    /// share the offset.
    pub offsets: Vec<i64>,
    /// Event index inside its record, 0 unless a record held several events.
    pub parts: Vec<u32>,
    /// When the record was received, microseconds since the Unix epoch: Kafka's record timestamp,
    /// the append time of the embedded log. The same on every replay; dedupe ages by it.
    pub received: Vec<i64>,
    /// The bytes each row came from, for dead letters and taps.
    pub payloads: Payloads,
    /// What each row does to the row of its key: `Some` exactly when
    /// [`crate::catalog::Event::changelog`] is set.
    pub changes: Option<Vec<Change>>,
}

/// What a row of a changelog event does to the row of its key.
///
/// Versions of one key are ordered by their position (partition, offset, part): a key lives in one
/// partition. There are no before-images: whoever folds keeps the current row per key itself, so a
/// version that is delivered again changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What it does.
    pub op: ChangeOp,
    /// When the source committed it, microseconds since the Unix epoch; the time of receiving where
    /// the source does not say.
    pub at: i64,
}

/// The three things a change can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeOp {
    /// The columns are the key's row from now on, whether or not it had one.
    Upsert,
    /// The key has no row from now on. Only the key column (and `time`) is set.
    Delete,
    /// No row of the event type that was committed before has a version any more. Only `time` is set.
    Truncate,
}

/// Slices of one shared buffer, one per row.
#[derive(Debug, Clone, Default)]
pub struct Payloads {
    /// The buffer.
    pub bytes: Bytes,
    /// `(start, end)` of each row in `bytes`.
    pub ranges: Vec<(u32, u32)>,
    /// Headers of those records that carry a part of their event in them; shared by all batches of a chunk.
    pub headers: Option<Arc<Headers>>,
}

impl Payloads {
    /// The headers of the record at `offset`.
    pub fn headers(&self, offset: i64) -> HeaderList {
        self.headers.as_ref().map(|headers| headers.get(offset)).unwrap_or_default()
    }

    /// The bytes of row `row`.
    pub fn get(&self, row: usize) -> Bytes {
        let (start, end) = self.ranges[row];
        self.bytes.slice(start as usize..end as usize)
    }
}

/// Why a row was refused. Several can hold at once; all are kept.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reason {
    /// Stable name: `malformed_json`, `unknown_event_type`, `missing`, `wrong_type`, `not_in_enum`,
    /// `pattern`, `min`, `max`, `rule:<name>`, `time_in_future`, `evaluation`, `oversize`, ...
    pub code: String,
    /// Where in the event: `items[2].quantity`; empty for the event as a whole.
    pub path: String,
    /// One sentence: what was found and what is allowed.
    pub message: String,
}

/// A row that was not admitted, with all that is needed to look at it, correct it and replay it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Refused {
    /// Where it came from.
    pub partition: Partition,
    /// Offset in the partition.
    pub offset: i64,
    /// Event index inside its record.
    pub part: u32,
    /// Microseconds since the Unix epoch.
    pub received: i64,
    /// The event's type, where it could be read.
    pub event_type: Option<String>,
    /// The event's id text, where it could be read.
    pub event_id: Option<String>,
    /// The bytes as they came (cut at [`MAX_REFUSED_PAYLOAD`]).
    pub payload: Bytes,
    /// Headers that a replay needs, because they carry a part of the event (CloudEvents in binary mode).
    #[serde(default)]
    pub headers: HeaderList,
    /// At least one.
    pub reasons: Vec<Reason>,
}

/// A refused payload longer than this is kept cut (16 MiB), so that one message cannot fill the store.
pub const MAX_REFUSED_PAYLOAD: usize = 16 << 20;

/// What one receive-and-decode step yields.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Which partition all rows are from.
    pub partition: Partition,
    /// The offset to resume from once this chunk is folded in.
    pub next_offset: i64,
    /// The partition's end as last known (exclusive), to tell how far behind we are.
    pub end_offset: Option<i64>,
    /// Every record of the partition that was received before this instant (microseconds since the Unix
    /// epoch) is in this chunk or an earlier one; `None` when the receiver cannot tell. Only a receiver that
    /// has just looked may say so: what it saw a while ago proves nothing about now.
    pub settled: Option<i64>,
    /// Decoded rows, one batch per event type (several are allowed).
    pub batches: Vec<EventBatch>,
    /// Rows refused by decode.
    pub refused: Vec<Refused>,
    /// Records that carry no event by design (Kafka tombstones on a non-changelog topic), counted.
    pub skipped: u64,
    /// Records and sub-events received in this chunk.
    pub received: u64,
    /// Bytes of payload, for the metrics of ourselves.
    pub bytes: u64,
}

impl Chunk {
    /// The chunk, saying that all records received before `instant` have been handed on.
    #[must_use]
    pub fn settled(self, instant: i64) -> Self {
        Self { settled: Some(instant), ..self }
    }
}
