//! How a source is doing, for readiness, `/v1/health`, `/metrics` and the page.
//!
//! *In*: what a receiver reports. *Out*: a [`SourceStatus`]. *Never*: I/O under the lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use contracts::batch::Partition;
use parking_lot::Mutex;

use super::Clock;

/// What a source is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", content = "message", rename_all = "snake_case")]
pub enum State {
    /// Not connected (yet, or again); it retries by itself.
    #[default]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
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
    /// Records read since reading began.
    pub read: u64,
    /// Records read per second, over the last seconds.
    pub per_second: u64,
    /// Seconds until the end is reached, if everything goes on as in the last seconds; `None`: there is nothing to catch
    /// up with, the end is not known, or it does not come nearer.
    pub seconds_left: Option<u64>,
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
    speed: Speed,
    partitions: BTreeMap<Partition, PartitionStatus>,
    last_error: Option<(String, i64)>,
    total_bytes: Option<u64>,
}

impl Inner {
    fn lag(&self) -> Option<i64> {
        self.partitions.values().filter_map(|p| p.lag).reduce(i64::saturating_add)
    }
}

/// How fast a source has been read of late.
#[derive(Debug, Default)]
struct Speed {
    /// Records read.
    read: u64,
    /// When, how many had been read, how much was left (records; bytes of files); the oldest first.
    noted: VecDeque<(i64, u64, Option<i64>)>,
}

impl Speed {
    /// Between two notes, microseconds.
    const STEP: i64 = 500_000;
    /// What is older says nothing about now.
    const SPAN: i64 = 10_000_000;

    fn note(&mut self, now: i64, left: Option<i64>) {
        if self.noted.back().is_none_or(|(at, ..)| now.saturating_sub(*at) >= Self::STEP) {
            self.noted.push_back((now, self.read, left));
        }
        while self.noted.len() > 1 && now.saturating_sub(self.noted[0].0) > Self::SPAN {
            self.noted.pop_front();
        }
    }

    fn per_second(&self, now: i64) -> u64 {
        let Some((at, read, _)) = self.noted.front() else { return 0 };
        let micros = u64::try_from(now.saturating_sub(*at)).unwrap_or(0).max(1);
        if micros < Self::STEP.unsigned_abs() {
            return 0;
        }
        u64::try_from(u128::from(self.read - read) * 1_000_000 / u128::from(micros)).unwrap_or(u64::MAX)
    }

    fn seconds_left(&self, now: i64, left: Option<i64>) -> Option<u64> {
        // Before the first partition is known nothing is.
        let (at, before) = self.noted.iter().find_map(|(at, _, left)| left.map(|left| (*at, left)))?;
        let (left, micros) = (left?, now.saturating_sub(at));
        let nearer = before.saturating_sub(left);
        if nearer <= 0 || micros < Self::STEP {
            return None;
        }
        let seconds = i128::from(left) * i128::from(micros) / i128::from(nearer) / 1_000_000;
        u64::try_from(seconds).ok()
    }
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
            speed: Speed::default(),
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
        let now = (self.clock)();
        let mut inner = self.inner.lock();
        let partitions: Vec<_> = inner.partitions.values().cloned().collect();
        let known = inner.lag();
        let done = self.done_bytes.load(Ordering::Relaxed);
        let left = match inner.total_bytes {
            Some(total) => i64::try_from(total.saturating_sub(done)).ok(),
            None => known,
        };
        inner.speed.note(now, left);
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
            read: inner.speed.read,
            per_second: inner.speed.per_second(now),
            seconds_left: inner.speed.seconds_left(now, left).filter(|_| !inner.caught_up),
            lag: known,
            partitions,
            total_bytes: inner.total_bytes,
            done_bytes: done,
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
        let mut inner = self.inner.lock();
        inner.total_bytes = total;
        let left = total.map(|total| i64::try_from(total.saturating_sub(done)).unwrap_or(i64::MAX));
        inner.speed.note((self.clock)(), left);
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
        let before = inner.partitions.get(partition).map_or(next, |known| known.next);
        inner.speed.read += u64::try_from(next.saturating_sub(before)).unwrap_or(0);
        drop(inner);
        self.entry(partition, |p| {
            p.next = next;
            p.end = end;
            p.lag = end.map(|end| (end - next).max(0));
        });
        let mut inner = self.inner.lock();
        if inner.total_bytes.is_none() {
            let left = inner.lag();
            inner.speed.note((self.clock)(), left);
        }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use super::*;

    #[test]
    fn speed_and_time_left_are_those_of_the_last_seconds() {
        let now = Arc::new(AtomicI64::new(0));
        let clock = now.clone();
        let cell = StatusCell::new("s".into(), "log", Arc::new(move || clock.load(Ordering::Relaxed)));
        let partition = |number| Partition { source: "s".into(), topic: "t".into(), number };
        let at = |second: i64| now.store(second * 1_000_000, Ordering::Relaxed);
        let told = || {
            let status = cell.snapshot();
            (status.read, status.per_second, status.lag, status.seconds_left)
        };
        cell.partition(&partition(0), 100, Some(1_100));
        cell.partition(&partition(1), 0, Some(2_000));
        cell.set_state(State::CatchingUp);
        assert_eq!(told(), (0, 0, Some(3_000), None), "nothing is known yet");
        // 100 records a second are read, and 10 arrive.
        for second in 1..=20 {
            at(second);
            cell.partition(&partition(1), second * 100, Some(2_000 + second * 10));
        }
        // 3,000 + 200 - 2,000 are left, and are 90 fewer each second.
        assert_eq!(told(), (2_000, 100, Some(1_200), Some(13)));
        at(40);
        let (read, per_second, _, left) = told();
        assert_eq!((read, left), (2_000, None), "it does not come nearer");
        assert!(per_second < 100, "{per_second}");
        at(60);
        told();
        assert_eq!(told().1, 0);
        cell.partition(&partition(1), 2_200, Some(2_200));
        cell.set_state(State::Running);
        assert_eq!(told().3, None, "caught up");
    }
}
