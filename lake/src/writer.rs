//! The thread that writes the lake.
//!
//! *In*: ticks, from threads that must not wait. *Out*: rounds; what is complete; whether sources should pause. *Never*: a
//! wait on the thread that offers; a round given up: after a passing error it is tried again until it succeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use contracts::Catalog;
use contracts::batch::{Decided, Partition};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use parking_lot::{Condvar, Mutex};

use super::{Cared, Fed, Lake, LakeConfig, LakeError, Offsets, batch_bytes, refused_bytes};

/// After an error a round is tried again so soon, then at twice the distance each time, up to [`LONGEST`].
const SOON: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

enum Message {
    /// With its bytes and rows.
    Tick(Arc<Catalog>, Fed, (usize, u64)),
    Declare(Arc<Catalog>, Sender<Result<(), LakeError>>),
    Round(Sender<Result<(), LakeError>>),
    Decided(Offsets, Sender<Result<Decided, LakeError>>),
}

/// How the lake is doing.
#[derive(Debug, Clone, Default)]
pub struct LakeStatus {
    /// Everything below is in the lake.
    pub complete: Offsets,
    /// Rounds that ended, since the start.
    pub rounds: u64,
    /// Rows committed since the start, refused ones included.
    pub rows: u64,
    /// Attempts that failed, since the start.
    pub failures: u64,
    /// Why the last attempt failed; `None` once one has succeeded.
    pub trouble: Option<String>,
    /// It has stopped for good, because of `trouble`.
    pub stopped: bool,
    /// Rows and bytes that wait.
    pub waiting_rows: u64,
    /// Bytes that wait.
    pub waiting_bytes: usize,
    /// What was done to look after tables.
    pub cared: Cared,
}

#[derive(Debug, Default)]
struct Shared {
    status: Mutex<LakeStatus>,
    /// `complete` has grown, or the lake has stopped.
    grown: Condvar,
    /// What the thread has not looked at yet.
    queued: Size,
    /// What it holds.
    held: Size,
    most_bytes: usize,
}

/// Bytes and rows.
#[derive(Debug, Default)]
struct Size {
    bytes: AtomicUsize,
    rows: AtomicU64,
}

impl Size {
    fn add(&self, (bytes, rows): (usize, u64)) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    fn take(&self, (bytes, rows): (usize, u64)) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.rows.fetch_sub(rows, Ordering::Relaxed);
    }

    fn set(&self, (bytes, rows): (usize, u64)) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.rows.store(rows, Ordering::Relaxed);
    }
}

impl Shared {
    fn hold(&self, lake: &Lake) {
        self.held.set(lake.waiting());
    }

    fn bytes(&self) -> usize {
        self.queued.bytes.load(Ordering::Relaxed) + self.held.bytes.load(Ordering::Relaxed)
    }

    fn rows(&self) -> u64 {
        self.queued.rows.load(Ordering::Relaxed) + self.held.rows.load(Ordering::Relaxed)
    }
}

/// A lake with its thread. Dropping it ends the thread after what was offered is committed, if that works at once.
#[derive(Debug)]
pub struct LakeWriter {
    shared: Arc<Shared>,
    messages: Option<Sender<Message>>,
    thread: Option<JoinHandle<()>>,
    /// Up to where it was complete at the start.
    reached: Offsets,
    /// The same, of partitions that are still read.
    told_up_to: BTreeMap<Partition, i64>,
}

impl LakeWriter {
    /// Opens the lake on a thread of its own.
    ///
    /// # Errors
    /// Those of [`Lake::open`]; the thread has ended then.
    pub fn start(config: LakeConfig, contracts: Arc<Catalog>) -> Result<Self, LakeError> {
        let shared = Arc::new(Shared { most_bytes: config.most_bytes, ..Shared::default() });
        let (messages, received) = unbounded();
        let (opened, open) = bounded(1);
        let own = Arc::clone(&shared);
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(opened.send(Err(LakeError::unreachable("a runtime", error)))),
            };
            match runtime.block_on(Lake::open(config, &contracts)) {
                Ok(lake) => {
                    if opened.send(Ok(lake.complete().clone())).is_ok() {
                        Running { lake, runtime, shared: own, since: None }.run(&received);
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        };
        let thread = std::thread::Builder::new().name("lake".to_owned()).spawn(run);
        let thread = thread.map_err(|error| LakeError::unreachable("a thread", error))?;
        let ended = |_| LakeError::unreachable("the lake", "its thread has ended");
        let complete = open.recv().map_err(ended)??;
        shared.status.lock().complete = complete.clone();
        let told_up_to = complete.0.clone();
        Ok(Self { shared, messages: Some(messages), thread: Some(thread), reached: complete, told_up_to })
    }

    /// Whether everything that was in the lake when it was opened has been read by now: only then metrics tell no less than
    /// they did. `read`: offsets of a tick.
    pub fn has_caught_up(&self, read: &Offsets) -> bool {
        self.told_up_to.iter().all(|(partition, next)| read.next(partition) >= *next)
    }

    /// Names the sources there are: nobody reads partitions of others any more.
    #[must_use]
    pub fn reading(mut self, sources: &BTreeSet<String>) -> Self {
        self.told_up_to.retain(|partition, _| sources.contains(&*partition.source));
        self
    }

    /// Up to where it was complete when it was opened: rows below must be admitted before any beyond.
    pub fn reached(&self) -> &Offsets {
        &self.reached
    }

    /// Takes what a tick brought. Does not wait.
    pub fn offer(&self, contracts: &Arc<Catalog>, mut fed: Fed) {
        // What they were made from is not stored, but would be held.
        fed.admitted.iter_mut().for_each(|(_, batch)| batch.payloads = Default::default());
        let rows = fed.admitted.iter().map(|(_, batch)| batch.columns.num_rows()).sum::<usize>();
        let rows = (rows + fed.refused.len()) as u64;
        let bytes = fed.admitted.iter().map(|(_, batch)| batch_bytes(batch)).sum::<usize>()
            + fed.refused.iter().map(refused_bytes).sum::<usize>();
        self.shared.queued.add((bytes, rows));
        self.send(Message::Tick(Arc::clone(contracts), fed, (bytes, rows)));
    }

    /// So much waits that sources should pause, or it has stopped.
    pub fn is_full(&self) -> bool {
        self.shared.bytes() > self.shared.most_bytes || self.shared.status.lock().stopped
    }

    /// Prepares tables for other contracts.
    ///
    /// # Errors
    /// A table that cannot take them.
    pub fn declare(&self, contracts: &Arc<Catalog>) -> Result<(), LakeError> {
        self.ask(|answer| Message::Declare(Arc::clone(contracts), answer))
    }

    /// Commits what has been offered, now; tried once.
    ///
    /// # Errors
    /// Those of [`Lake::round`].
    pub fn flush(&self) -> Result<(), LakeError> {
        self.ask(Message::Round)
    }

    /// Waits until everything below `offsets` is in the lake; `false` after `most`, or when the lake has stopped.
    pub fn wait_for(&self, offsets: &Offsets, most: Duration) -> bool {
        let deadline = now() + most;
        let mut status = self.shared.status.lock();
        while !status.complete.contains(offsets) && !status.stopped {
            if self.shared.grown.wait_until(&mut status, deadline).timed_out() {
                break;
            }
        }
        status.complete.contains(offsets)
    }

    /// How it is doing.
    pub fn status(&self) -> LakeStatus {
        let mut status = self.shared.status.lock().clone();
        (status.waiting_bytes, status.waiting_rows) = (self.shared.bytes(), self.shared.rows());
        status
    }

    fn send(&self, message: Message) {
        if let Some(messages) = &self.messages {
            // A lake that has stopped takes nothing more; its status says so.
            let _ = messages.send(message);
        }
    }

    /// Which rows were duplicates, of all that has been offered; of those before `since` nobody wants to know.
    ///
    /// # Errors
    /// Plans cannot be read.
    pub fn decided(&self, since: Offsets) -> Result<Decided, LakeError> {
        self.ask(|answer| Message::Decided(since, answer))
    }

    fn ask<T>(&self, message: impl FnOnce(Sender<Result<T, LakeError>>) -> Message) -> Result<T, LakeError> {
        let (answer, answered) = bounded(1);
        self.send(message(answer));
        let ended = |_| LakeError::unreachable("the lake", "its thread has ended");
        answered.recv().map_err(ended)?
    }
}

impl Drop for LakeWriter {
    fn drop(&mut self) {
        self.messages = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// The thread's own.
struct Running {
    lake: Lake,
    runtime: tokio::runtime::Runtime,
    shared: Arc<Shared>,
    /// When the oldest waiting row came.
    since: Option<Instant>,
}

impl Running {
    fn run(mut self, messages: &Receiver<Message>) {
        let (mut wait, mut again) = (SOON, None::<Instant>);
        // A test cannot wait for minutes.
        let often = faults::fails("lake.care_often");
        let every = if often { Duration::from_millis(500) } else { self.lake.config.care.every };
        let mut care = (!every.is_zero()).then(|| now() + every);
        loop {
            let due = again.or(self.since.map(|since| since + self.lake.config.commit_every));
            // A lake that has stopped does nothing more but say so.
            let stopped = self.shared.status.lock().stopped;
            let next = due.into_iter().chain(care).min().filter(|_| !stopped);
            let left = next.map_or(Duration::from_secs(3600), |next| next.saturating_duration_since(now()));
            match messages.recv_timeout(left) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
            while let Ok(message) = messages.try_recv() {
                self.take(message);
            }
            if self.shared.status.lock().stopped {
                continue;
            }
            let full = self.lake.waiting().0 > self.lake.config.commit_bytes && again.is_none();
            let due = again.or(self.since.map(|since| since + self.lake.config.commit_every));
            if full || due.is_some_and(|due| due <= now()) {
                match self.round() {
                    Ok(()) => (wait, again) = (SOON, None),
                    Err(_) => {
                        again = Some(now() + wait);
                        wait = (wait * 2).min(LONGEST);
                    }
                }
            }
            if care.is_some_and(|care| care <= now()) && again.is_none() {
                let cared = self.runtime.block_on(self.lake.care());
                self.shared.status.lock().cared = cared;
                care = Some(now() + every);
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Tick(contracts, fed, size) => {
                if !self.shared.status.lock().stopped {
                    // A window may be over although nothing came.
                    if !self.lake.fed.contains(&fed.offsets) || fed.state.is_some() {
                        self.since.get_or_insert_with(now);
                    }
                    self.lake.feed(&contracts, fed);
                    self.shared.hold(&self.lake);
                }
                // Only now: at no moment do rows seem to be nowhere.
                self.shared.queued.take(size);
            }
            Message::Declare(contracts, answer) => {
                let declared = self.runtime.block_on(self.lake.declare(&contracts));
                // Whoever asked may have given up.
                let _ = answer.send(declared);
            }
            Message::Decided(since, answer) => {
                let decided = self.runtime.block_on(self.lake.decided(&since));
                let _ = answer.send(decided);
            }
            Message::Round(answer) => {
                let done = self.round();
                let _ = answer.send(done);
            }
        }
    }

    fn round(&mut self) -> Result<(), LakeError> {
        let done = match faults::fails("lake.round") {
            true => Err(LakeError::unreachable("the lake", "a test says so")),
            false => self.runtime.block_on(self.lake.round()),
        };
        let mut status = self.shared.status.lock();
        match &done {
            Ok(rows) => {
                status.rounds += 1;
                status.rows += rows;
                status.trouble = None;
                self.since = None;
            }
            Err(error) => {
                status.failures += 1;
                status.trouble = Some(error.to_string());
                status.stopped = !error.is_passing();
                match error.is_passing() {
                    true => tracing::warn!(%error, "the lake has to wait"),
                    false => tracing::error!(%error, "the lake has stopped"),
                }
            }
        }
        status.complete = self.lake.complete().clone();
        drop(status);
        self.shared.hold(&self.lake);
        self.shared.grown.notify_all();
        done.map(drop)
    }

    /// What was offered is committed; what does not work now is read again from the sources at the next start.
    fn end(mut self) {
        if self.since.is_some() && !self.shared.status.lock().stopped {
            let _ = self.round();
        }
    }
}

/// Monotonic time is used only to space rounds; no row depends on it.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}
