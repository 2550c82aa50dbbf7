//! Where every event of a chunk ends: in the rows of its type, or refused.
//!
//! *In*: events taken apart, their payloads. *Out*: a [`Chunk`]. *Never*: an event in two places or in
//! none; a payload copied twice.

use std::sync::Arc;

use bytes::Bytes;
use contracts::batch::{Chunk, EventBatch, Headers, MAX_REFUSED_PAYLOAD, Partition, Reason, Refused};
use contracts::catalog::{Event, Status};
use contracts::{Catalog, RESERVED};

use super::debezium;
use super::raw::Raw;
use super::reason::reason;
use super::rows::change::{Version, key_text};
use super::rows::{Envelope, Names, Origin, Rows};
use super::text::clip;
use super::walk::Walker;
use super::words::WordMap;

/// Most input one chunk takes: keeps every offset of its columns below 2^31. Callers cut far earlier.
const MAX_CHUNK_BYTES: usize = 1 << 30;

/// The bytes of one event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Payload<'a> {
    pub(super) bytes: &'a [u8],
    /// Where they are in the chunk's shared buffer.
    pub(super) shared: Option<usize>,
}

impl<'a> Payload<'a> {
    pub(super) fn part(self, start: usize, end: usize) -> Self {
        Self { bytes: &self.bytes[start..end], shared: self.shared.map(|at| at + start) }
    }
}

#[derive(Debug)]
enum Buffer {
    /// Payloads copied one behind the other.
    Arena(Vec<u8>),
    /// The input itself.
    Shared(Bytes),
}

struct Waiting {
    origin: Origin,
    event_type: Option<String>,
    event_id: Option<String>,
    payload: Bytes,
    reasons: Vec<Reason>,
}

/// See the module's words.
pub(super) struct Sink {
    catalog: Arc<Catalog>,
    /// Names of all event types; their numbers are catalog indexes.
    types: WordMap,
    /// By catalog index: events of the type may come from outside.
    open: Vec<bool>,
    /// By catalog index.
    pub(super) rows: Vec<Rows>,
    /// Walks objects inside of list and struct fields.
    nested: Walker,
    buffer: Buffer,
    headers: Headers,
    refused: Vec<Waiting>,
    skipped: u64,
    received: u64,
    bytes: usize,
}

impl Sink {
    /// With `own`, events that only the engine makes are taken, too.
    pub(super) fn new(catalog: Arc<Catalog>, own: bool) -> Self {
        let mut types = WordMap::new();
        let mut nested = Walker::new();
        let mut rows = Vec::with_capacity(catalog.events.len());
        for (index, event) in catalog.events.iter().enumerate() {
            types.add(event.head.name.as_bytes());
            rows.push(Rows::new(index, event.clone(), &mut nested));
        }
        let open = catalog.events.iter().map(|event| {
            let runs = matches!(event.head.status, Status::Active | Status::Deprecated);
            runs && (own || !event.head.name.starts_with(RESERVED))
        });
        Self {
            open: open.collect(),
            catalog,
            types,
            rows,
            nested,
            buffer: Buffer::Arena(Vec::new()),
            headers: Headers::default(),
            refused: Vec::new(),
            skipped: 0,
            received: 0,
            bytes: 0,
        }
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Events decoded or refused so far.
    pub(super) fn rows(&self) -> usize {
        self.received as usize
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Uses `bytes` as the chunk's buffer, if the chunk is still empty.
    pub(super) fn share(&mut self, bytes: &Bytes) {
        if self.received == 0 && bytes.len() <= MAX_CHUNK_BYTES {
            self.buffer = Buffer::Shared(bytes.clone());
        }
    }

    /// Whether payloads lie in `bytes` itself.
    pub(super) fn shares(&self, bytes: &Bytes) -> bool {
        matches!(&self.buffer, Buffer::Shared(own) if own.as_ptr() == bytes.as_ptr() && own.len() == bytes.len())
    }

    /// Remembers the headers of a record that carry a part of its event: without them it could not be replayed.
    pub(super) fn keep_headers(&mut self, offset: i64, headers: &[(&str, &[u8])]) {
        let kept = headers.iter().filter(|(name, _)| {
            let starts = |prefix: &str| name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
            starts("ce-") || starts("ce_") || name.eq_ignore_ascii_case("content-type")
        });
        self.headers.push(offset, kept.copied());
    }

    /// Remembers all of these headers of a delivery.
    pub(super) fn keep_delivery<'h>(
        &mut self,
        offset: i64,
        headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    ) {
        self.headers.push(offset, headers);
    }

    pub(super) fn skip(&mut self) {
        self.received += 1;
        self.skipped += 1;
    }

    /// Takes account of a record of `len` bytes; false when this chunk has no room for it.
    pub(super) fn admit(&mut self, len: usize) -> bool {
        let room = self.bytes + len <= MAX_CHUNK_BYTES;
        self.bytes = self.bytes.saturating_add(len);
        room
    }

    /// The contract of an event, by its type; `fixed` where the envelope has none.
    #[inline]
    pub(super) fn event(&self, raw: Raw<'_>, fixed: Option<&str>, names: &Names) -> Result<usize, Reason> {
        let text = match raw.text() {
            Some(text) => text,
            None if raw.is_nothing() => match fixed {
                Some(fixed) => fixed.as_bytes().into(),
                None => {
                    let message = "the event does not say its type".to_owned();
                    return Err(reason("missing", names.event_type.clone(), message));
                }
            },
            None => {
                let message = format!("found {}, expected the event's type as a string", raw.found());
                return Err(reason("wrong_type", names.event_type.clone(), message));
            }
        };
        match self.types.get(&text) {
            Some(event) if self.open[event as usize] => Ok(event as usize),
            found => Err(self.unknown(&text, found.is_some(), names)),
        }
    }

    #[cold]
    fn unknown(&self, text: &[u8], declared: bool, names: &Names) -> Reason {
        const SHOWN: usize = 20;
        let found = clip(text);
        if text.starts_with(RESERVED.as_bytes()) {
            let message =
                format!("`{found}` is no type for events from outside: the engine makes them itself");
            return reason("reserved_event_type", names.event_type.clone(), message);
        }
        if declared {
            let message = format!("the contract of `{found}` is a draft or retired");
            return reason("unknown_event_type", names.event_type.clone(), message);
        }
        let running: Vec<&str> = (0..self.rows.len())
            .filter(|event| self.open[*event])
            .map(|event| self.catalog.events[event].head.name.as_str())
            .collect();
        let more = running.len().saturating_sub(SHOWN);
        let mut message = format!(
            "no contract for `{found}`; there are: {}",
            running.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ")
        );
        if more > 0 {
            message += &format!(" and {more} more");
        }
        reason("unknown_event_type", names.event_type.clone(), message)
    }

    /// One event whose type is known; `cells(i)` is the raw value of field i.
    #[inline]
    pub(super) fn take<'a>(
        &mut self,
        event: usize,
        cells: impl Fn(usize) -> Raw<'a>,
        envelope: &Envelope<'a>,
        names: &Names,
        origin: &Origin,
        payload: Payload<'_>,
    ) {
        if self.rows[event].changelog() {
            return debezium::plain(self, event, cells, Raw::Absent, envelope, names, origin, payload);
        }
        match self.rows[event].push(&cells, envelope, names, origin, &mut self.nested) {
            Ok(()) => {
                self.received += 1;
                let range = self.keep(payload);
                self.rows[event].payload(range);
            }
            Err(reasons) => {
                let event_type = Some(self.catalog.events[event].head.name.clone());
                let id = self.rows[event].id(cells, envelope);
                self.refuse(origin, payload.bytes, event_type, id, reasons);
            }
        }
    }

    /// One version of a row of a changelog event; `cells(i)` is the raw value of field i, `None` where
    /// `reasons` speak of it.
    #[expect(clippy::too_many_arguments, reason = "the parts of one row")]
    pub(super) fn take_version<'a>(
        &mut self,
        event: usize,
        cells: impl Fn(usize) -> Option<Raw<'a>>,
        version: &Version,
        reasons: Vec<Reason>,
        names: &Names,
        origin: &Origin,
        payload: Payload<'_>,
    ) {
        match self.rows[event].push_version(&cells, version, reasons, names, origin, &mut self.nested) {
            Ok(()) => {
                self.received += 1;
                let range = self.keep(payload);
                self.rows[event].payload(range);
            }
            Err(reasons) => {
                let event_type = Some(self.catalog.events[event].head.name.clone());
                let id = key_text(&self.rows[event].key_fields(), cells);
                let id = id.as_deref().map_or(Raw::Absent, Raw::Cell);
                self.refuse(origin, payload.bytes, event_type, id, reasons);
            }
        }
    }

    /// Rows that were decoded before, held against their contract of now. Between chunks only.
    pub(super) fn recheck(&mut self, partition: &Partition, batch: EventBatch) -> (EventBatch, Vec<Refused>) {
        self.rows[batch.event].recheck(partition, batch, &mut self.nested)
    }

    /// Whether events of type `event` may come from outside and its contract runs.
    pub(super) fn is_open(&self, event: usize) -> bool {
        self.open[event]
    }

    /// The contract of event `event`.
    pub(super) fn contract(&self, event: usize) -> Arc<Event> {
        self.catalog.events[event].clone()
    }

    #[inline]
    fn keep(&mut self, payload: Payload<'_>) -> (u32, u32) {
        if let (Buffer::Shared(_), Some(at)) = (&self.buffer, payload.shared) {
            return (at as u32, (at + payload.bytes.len()) as u32);
        }
        let arena = match &mut self.buffer {
            Buffer::Arena(arena) => arena,
            // A record from elsewhere: from here on the chunk has a buffer of its own.
            Buffer::Shared(bytes) => {
                self.buffer = Buffer::Arena(bytes.to_vec());
                return self.keep(payload);
            }
        };
        let start = arena.len();
        arena.extend_from_slice(payload.bytes);
        (start as u32, arena.len() as u32)
    }

    /// One event that is not decoded.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        origin: &Origin,
        payload: &[u8],
        event_type: Option<String>,
        id: Raw<'_>,
        reasons: Vec<Reason>,
    ) {
        self.received += 1;
        let cut = &payload[..payload.len().min(MAX_REFUSED_PAYLOAD)];
        self.refused.push(Waiting {
            origin: *origin,
            event_type,
            event_id: id.id().map(|id| String::from_utf8_lossy(&id).into_owned()),
            payload: Bytes::copy_from_slice(cut),
            reasons,
        });
    }

    /// Everything since the last time.
    pub(super) fn finish(
        &mut self,
        partition: &Partition,
        next_offset: i64,
        end_offset: Option<i64>,
    ) -> Chunk {
        let bytes = match std::mem::replace(&mut self.buffer, Buffer::Arena(Vec::new())) {
            Buffer::Arena(arena) => {
                self.buffer = Buffer::Arena(Vec::with_capacity(arena.len()));
                Bytes::from(arena)
            }
            Buffer::Shared(bytes) => bytes,
        };
        let headers = Arc::new(std::mem::take(&mut self.headers));
        let some = (!headers.is_empty()).then_some(&headers);
        let rows = self.rows.iter_mut().filter(|rows| rows.len() > 0);
        let batches = rows.map(|rows| rows.take(&bytes, some)).collect();
        self.nested.settle();
        let refused = self.refused.drain(..).map(|waiting| Refused {
            partition: partition.clone(),
            offset: waiting.origin.offset,
            part: waiting.origin.part,
            received: waiting.origin.received,
            event_type: waiting.event_type,
            event_id: waiting.event_id,
            payload: waiting.payload,
            headers: headers.get(waiting.origin.offset),
            reasons: waiting.reasons,
        });
        Chunk {
            partition: partition.clone(),
            next_offset,
            end_offset,
            settled: None,
            batches,
            refused: refused.collect(),
            skipped: std::mem::take(&mut self.skipped),
            received: std::mem::take(&mut self.received),
            bytes: std::mem::take(&mut self.bytes) as u64,
        }
    }
}
