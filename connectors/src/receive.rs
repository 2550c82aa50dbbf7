//! receive: bytes are taken from Kafka, the embedded log or a file, decoded, and handed on.
//!
//! *In*: a source and the offsets to start from. *Out*: [`Chunk`]s on a bounded channel, and a
//! [`SourceStatus`] that anybody may read at any time. *Never*: a record that is passed over without
//! being counted, an unbounded queue, a panic because of input.
//!
//! Every receiver has one thread that reads and decodes. A full channel makes it wait
//! ([`State::Paused`]), which is how a busy engine slows its sources down.

pub mod file;
pub mod generator;
pub mod kafka;
pub mod log;
pub mod offsets;
pub mod past;
mod status;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use contracts::Catalog;
use contracts::batch::{Chunk, Partition};
use crossbeam_channel::{SendTimeoutError, Sender};

use crate::decode::{DecodeSpec, Decoder};

pub(crate) use status::StatusCell;
pub use status::{PartitionStatus, SourceStatus, State};

/// Where to go on reading: the next offset per partition.
pub type Offsets = BTreeMap<Partition, i64>;

/// Microseconds since the Unix epoch, now. Passed in, so that tests can stop it.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The machine's clock.
pub fn wall_clock() -> Clock {
    Arc::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
    })
}

/// A batch closes at this many records.
pub const BATCH_ROWS: usize = 4096;
/// A batch closes at this many payload bytes, so that large records do not pile up in memory.
pub const BATCH_BYTES: usize = 4 << 20;
/// A batch that is not full waits no longer than this for more.
pub const LINGER: Duration = Duration::from_millis(1);
/// How often a receiver that stands at the end of a partition says so, in microseconds.
pub(crate) const SETTLED_EVERY: i64 = 10_000_000;
/// How long a full channel is waited for before the source counts as paused.
pub(crate) const PAUSE_AFTER: Duration = Duration::from_millis(100);

/// What every receiver needs beside its own source.
#[derive(Clone)]
pub struct Feed {
    /// Source name of the settings; becomes [`Partition::source`].
    pub source: Arc<str>,
    /// Event contracts to decode for.
    pub catalog: Arc<Catalog>,
    /// Format, envelope and limits.
    pub decode: DecodeSpec,
    /// Where chunks go; bounded.
    pub chunks: Sender<Chunk>,
    /// Where "now" comes from.
    pub clock: Clock,
}

impl Feed {
    pub(crate) fn partition(&self, topic: &str, number: i32) -> Partition {
        Partition { source: self.source.clone(), topic: topic.into(), number }
    }
    pub(crate) fn decoder(&self) -> Decoder {
        Decoder::new(self.catalog.clone(), self.decode.clone())
    }
}

/// A source cannot be started because it is described wrongly. (What can pass, such as a broker that
/// does not answer, is not an error but a [`State`].)
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// A setting of the source is wrong.
    #[error("source `{source_name}`: {setting}: found `{found}`: {problem}")]
    Setting {
        /// Source name.
        source_name: String,
        /// Name of the setting.
        setting: String,
        /// The value as given.
        found: String,
        /// What is wrong, what is allowed.
        problem: String,
    },
    /// A file cannot be read.
    #[error("source `{source_name}`: cannot read `{path}`: {message}")]
    File {
        /// Source name.
        source_name: String,
        /// Path as given.
        path: String,
        /// The system's words.
        message: String,
    },
    /// No thread for the receiver.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A running receiver. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Receiver {
    status: Arc<StatusCell>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// How the source is doing; takes a short lock, never waits for I/O.
    pub fn status(&self) -> SourceStatus {
        self.status.snapshot()
    }
    /// Asks the receiver to end; it does so within about 100 ms (Kafka: up to a few seconds when no
    /// broker answers). Rows that were read but not yet taken by the engine are read again next time.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
    /// Waits until the receiver has ended: a file at its end, anything else after [`Receiver::stop`].
    pub fn join(mut self) -> SourceStatus {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // `run` catches panics itself
        }
        self.status.snapshot()
    }

    /// Runs `body` on a thread of its own. What `body` returns becomes the last state.
    pub(crate) fn spawn(
        kind: &'static str,
        feed: Feed,
        body: impl FnOnce(&Port) -> Result<(), Stop> + Send + 'static,
    ) -> Result<Receiver, ReceiveError> {
        let status = Arc::new(StatusCell::new(feed.source.to_string(), kind, feed.clock.clone()));
        let stop = Arc::new(AtomicBool::new(false));
        let port = Port { feed, status: status.clone(), stop: stop.clone() };
        let name = format!("receive-{}", port.feed.source);
        let thread = std::thread::Builder::new().name(name).spawn(move || run(&port, body))?;
        Ok(Receiver { status, stop, thread: Some(thread) })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Why a receiver's body ended before its input did.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It was asked to.
    Asked,
    /// The other end of the channel is gone.
    NobodyListens,
    /// It cannot go on.
    Failed(String),
}

fn run(port: &Port, body: impl FnOnce(&Port) -> Result<(), Stop>) {
    // A panic must not leave a status that says "running".
    let end = catch_unwind(AssertUnwindSafe(|| body(port)));
    let state = match end {
        Ok(Ok(()) | Err(Stop::Asked)) => State::Finished,
        Ok(Err(Stop::NobodyListens)) => State::Failed("the engine has stopped".into()),
        Ok(Err(Stop::Failed(message))) => State::Failed(message),
        Err(panic) => State::Failed(format!("internal error: {}", contracts::guard::text(&*panic))),
    };
    if let State::Failed(message) = &state {
        port.status.error(message.clone());
    }
    port.status.set_state(state);
}

/// A receiver's side of the world: where it sends, where it reports, when it must end.
pub(crate) struct Port {
    pub(crate) feed: Feed,
    pub(crate) status: Arc<StatusCell>,
    stop: Arc<AtomicBool>,
}

impl Port {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// A handle that tells other threads of this receiver to end, too.
    pub(crate) fn stop_flag(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// Hands `chunk` on, waiting while the engine is busy.
    pub(crate) fn deliver(&self, mut chunk: Chunk) -> Result<(), Stop> {
        let mut before = None;
        let started = Instant::now();
        loop {
            match self.offer(chunk, PAUSE_AFTER / 2)? {
                None => break,
                Some(back) => chunk = back,
            }
            if self.stopped() {
                return Err(Stop::Asked);
            }
            if before.is_none() && started.elapsed() >= PAUSE_AFTER {
                before = Some(self.status.replace_state(State::Paused));
            }
        }
        if let Some(state) = before {
            self.status.set_state(state);
        }
        Ok(())
    }

    /// Tries to hand `chunk` on within `wait`; gives it back when the channel stays full.
    pub(crate) fn offer(&self, chunk: Chunk, wait: Duration) -> Result<Option<Chunk>, Stop> {
        let (received, bytes) = (chunk.received, chunk.bytes);
        match self.feed.chunks.send_timeout(chunk, wait) {
            Ok(()) => {
                self.status.count(received, bytes);
                Ok(None)
            }
            Err(SendTimeoutError::Timeout(chunk)) => Ok(Some(chunk)),
            Err(SendTimeoutError::Disconnected(_)) => Err(Stop::NobodyListens),
        }
    }
}
