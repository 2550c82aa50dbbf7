//! How a source is doing, for readiness, `/v1/health`, `/metrics` and the page.
//!
//! *In*: what a receiver reports. *Out*: a [`SourceStatus`]. *Never*: I/O under the lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use contracts::batch::Partition;
use parking_lot::Mutex;

use super::Clock;

/// What a source is doing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", content = "message", rename_all = "snake_case")]
pub enum State {
    /// Not connected (yet, or again); it retries by itself.
    Connecting,
    /// Reading what was there before it started.
    CatchingUp,
    /// Reading what arrives.
    Running,
    /// The engine is busy; nothing is lost, reading goes on when there is room.
    Paused,
    /// Something that the settings name is not there (yet), and what; the rest is read.
    Waiting(String),
    /// It cannot go on, wholly or for some partitions, and says why.
    Failed(String),
    /// The input ended or the receiver was stopped.
    Finished,
}

/// One partition of a source.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartitionStatus {
    /// Topic, `log`, or path.
    pub topic: Arc<str>,
    /// Partition number.
    pub number: i32,
    /// Next offset to be read.
    pub next: i64,
    /// Exclusive end as last known.
    pub end: Option<i64>,
    /// `end - next`.
    pub lag: Option<i64>,
    /// Why this partition is not read any more.
    pub halted: Option<String>,
}

/// How a source is doing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SourceStatus {
    /// Name in the settings.
    pub name: String,
    /// `kafka`, `log`, `file`, `generator`.
    pub kind: &'static str,
    /// What it is doing.
    #[serde(flatten)]
    pub state: State,
    /// Everything that was there at the start has been handed to the engine; stays true.
    pub caught_up: bool,
    /// Rows handed to the engine.
    pub received: u64,
    /// Payload bytes handed to the engine.
    pub bytes: u64,
    /// Errors so far.
    pub errors: u64,
    /// Records that were gone before they could be read (retention was faster).
    pub gap: u64,
    /// Records that were there and not read when reading began: what a restart reads again.
    pub behind_at_start: u64,
    /// Per partition, sorted.
    pub partitions: Vec<PartitionStatus>,
    /// Sum of the partitions' lags; `None` while nothing is known.
    pub lag: Option<i64>,
    /// Bytes of the input, where it has an end (files).
    pub total_bytes: Option<u64>,
    /// Bytes of the input read so far (files).
    pub done_bytes: u64,
    /// The last error.
    pub last_error: Option<String>,
    /// When, microseconds since the Unix epoch.
    pub last_error_at: Option<i64>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    caught_up: bool,
    errors: u64,
    gap: u64,
    behind_at_start: u64,
    partitions: BTreeMap<Partition, PartitionStatus>,
    last_error: Option<(String, i64)>,
    total_bytes: Option<u64>,
}

/// The receiver's side of a [`SourceStatus`].
pub(crate) struct StatusCell {
    name: String,
    kind: &'static str,
    clock: Clock,
    received: AtomicU64,
    bytes: AtomicU64,
    done_bytes: AtomicU64,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for StatusCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.snapshot().fmt(f)
    }
}

impl StatusCell {
    pub(crate) fn new(name: String, kind: &'static str, clock: Clock) -> Self {
        let inner = Inner {
            state: State::Connecting,
            caught_up: false,
            errors: 0,
            gap: 0,
            behind_at_start: 0,
            partitions: BTreeMap::new(),
            last_error: None,
            total_bytes: None,
        };
        Self {
            name,
            kind,
            clock,
            received: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            done_bytes: AtomicU64::new(0),
            inner: Mutex::new(inner),
        }
    }

    pub(crate) fn snapshot(&self) -> SourceStatus {
        let inner = self.inner.lock();
        let partitions: Vec<_> = inner.partitions.values().cloned().collect();
        let known = partitions.iter().filter_map(|p| p.lag).reduce(i64::saturating_add);
        SourceStatus {
            name: self.name.clone(),
            kind: self.kind,
            state: inner.state.clone(),
            caught_up: inner.caught_up,
            received: self.received.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            errors: inner.errors,
            gap: inner.gap,
            behind_at_start: inner.behind_at_start,
            lag: known,
            partitions,
            total_bytes: inner.total_bytes,
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            last_error: inner.last_error.as_ref().map(|(text, _)| text.clone()),
            last_error_at: inner.last_error.as_ref().map(|(_, at)| *at),
        }
    }

    pub(crate) fn set_state(&self, state: State) {
        self.replace_state(state);
    }

    /// Sets the state and returns the one before.
    pub(crate) fn replace_state(&self, state: State) -> State {
        let mut inner = self.inner.lock();
        inner.caught_up |= matches!(state, State::Running | State::Finished);
        let before = std::mem::replace(&mut inner.state, state.clone());
        drop(inner);
        if before != state {
            tracing::info!(source = self.name, kind = self.kind, state = ?state, "source state");
        }
        before
    }

    pub(crate) fn count(&self, received: u64, bytes: u64) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn progress(&self, done: u64, total: Option<u64>) {
        self.done_bytes.store(done, Ordering::Relaxed);
        self.inner.lock().total_bytes = total;
    }

    /// Counts an error and keeps its text; the same text in a row is logged once.
    pub(crate) fn error(&self, text: String) {
        let now = (self.clock)();
        let mut inner = self.inner.lock();
        inner.errors += 1;
        let new = inner.last_error.as_ref().is_none_or(|(last, _)| *last != text);
        inner.last_error = Some((text.clone(), now));
        drop(inner);
        if new {
            tracing::warn!(source = self.name, kind = self.kind, "{text}");
        }
    }

    pub(crate) fn add_gap(&self, records: u64) {
        self.inner.lock().gap += records;
    }

    pub(crate) fn partition(&self, partition: &Partition, next: i64, end: Option<i64>) {
        let mut inner = self.inner.lock();
        if !inner.partitions.contains_key(partition) {
            let behind = end.map_or(0, |end| end.saturating_sub(next));
            inner.behind_at_start += u64::try_from(behind).unwrap_or(0);
        }
        drop(inner);
        self.entry(partition, |p| {
            p.next = next;
            p.end = end;
            p.lag = end.map(|end| (end - next).max(0));
        });
    }

    pub(crate) fn halt(&self, partition: &Partition, why: String) {
        self.entry(partition, |p| p.halted = Some(why));
    }

    fn entry(&self, partition: &Partition, change: impl FnOnce(&mut PartitionStatus)) {
        let mut inner = self.inner.lock();
        if let Some(found) = inner.partitions.get_mut(partition) {
            return change(found);
        }
        let mut fresh = PartitionStatus {
            topic: partition.topic.clone(),
            number: partition.number,
            next: 0,
            end: None,
            lag: None,
            halted: None,
        };
        change(&mut fresh);
        inner.partitions.insert(partition.clone(), fresh);
    }
}
