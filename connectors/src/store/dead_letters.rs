//! Refused rows, kept to be looked at, corrected and replayed.
//!
//! *In*: [`Refused`] rows of decode and admit. *Out*: pages, details, counts. *Never*: the same row
//! twice (a restart reads the sources again), a dropped row that comes back, more than the limits
//! allow, a wait on the thread that records.
//!
//! Rows lie in redb; a small index of all of them (status, reasons, type, source) is kept in memory,
//! so that filters and counts need no reading. `index` is that index, `table` the rows on disk,
//! `writer` the thread that commits.

mod index;
mod table;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use contracts::batch::{HeaderList, Partition, Reason, Refused};
use crossbeam_channel::{Sender, bounded, unbounded};
use parking_lot::Mutex;

use self::index::Index;
use self::writer::Message;
use super::file::{self, Handle, OpenError};
use crate::receive::Clock;

/// Bounds of the store; beyond them the oldest rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of payloads.
    pub max_bytes: u64,
    /// Age by received time.
    pub max_age: Duration,
    /// Number of rows (each takes about 150 bytes of memory).
    pub max_count: u64,
}

impl Default for Limits {
    /// 1 GiB, 30 days, 100,000 rows.
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_age: Duration::from_secs(30 * 24 * 3600), max_count: 100_000 }
    }
}

/// With so many bytes waiting to be written the sources are to pause: what is on its way then still comes, nothing is
/// left out.
const MANY_BYTES: usize = 32 << 20;

/// What has been done about a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing yet, or a replay that was refused again.
    Failed,
    /// Corrected and admitted.
    Replayed,
    /// Put aside by a person.
    Dismissed,
}

/// A refused row as it is kept.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DeadLetter {
    /// Stable short text made from the row's position.
    pub id: String,
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
    /// Headers that carry a part of the event (CloudEvents in binary mode): a replay needs them.
    #[serde(skip)]
    pub headers: HeaderList,
    /// At least one.
    pub reasons: Vec<Reason>,
    /// What has been done about it.
    pub status: Status,
    /// Replays tried.
    pub retry_count: u32,
    /// Microseconds since the Unix epoch.
    pub last_retried_at: Option<i64>,
    /// What was said at the last change of status.
    pub note: Option<String>,
    /// Length of the payload in bytes.
    pub payload_len: u64,
    /// The payload; only from [`DeadLetters::get`].
    #[serde(skip)]
    pub payload: Option<Bytes>,
}

/// Which rows to list; `None` means all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// A reason code; matches rows that have it among their reasons.
    pub reason: Option<String>,
    /// An event type.
    pub event_type: Option<String>,
    /// A source name.
    pub source: Option<String>,
    /// A status.
    pub status: Option<Status>,
}

/// Counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Rows kept.
    pub total: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Rows per status.
    pub by_status: std::collections::BTreeMap<Status, u64>,
    /// Rows per reason code (a row with two reasons counts in both).
    pub by_reason: std::collections::BTreeMap<String, u64>,
    /// Rows received in the last 24 hours.
    pub last_24h: u64,
    /// Rows per hour of the last 24 hours, oldest first: (start of the hour in microseconds, rows).
    pub trend: Vec<(i64, u64)>,
    /// Rows dropped because of the limits, ever.
    pub dropped: u64,
    /// Rows that were not on disk when the process ended; they are met again when the sources are read again.
    pub overflowed: u64,
}

/// Why the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterError {
    /// Another process has it open.
    #[error("{path}: another process has the dead letters open; stop it, or use another `data` folder")]
    Locked {
        /// The store's file.
        path: PathBuf,
    },
    /// It is there but cannot be read.
    #[error(
        "{path}: the dead letters cannot be read: {message}. Nothing was changed. Restore the file from a backup, or move it away to start without them"
    )]
    Corrupted {
        /// The store's file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The system failed.
    #[error("{path}: {message}")]
    Io {
        /// The store's file.
        path: PathBuf,
        /// The system's words.
        message: String,
    },
    /// No such row (any more).
    #[error("there is no dead letter `{0}`")]
    Unknown(String),
}

fn open_error(path: &Path, error: OpenError) -> DeadLetterError {
    let path = path.to_path_buf();
    match error {
        OpenError::Locked => DeadLetterError::Locked { path },
        OpenError::Corrupted(message) => DeadLetterError::Corrupted { path, message },
        OpenError::Io(message) => DeadLetterError::Io { path, message },
    }
}

struct Shared {
    db: Handle,
    limits: Limits,
    clock: Clock,
    /// One change at a time, from its transaction to the index.
    changing: Mutex<()>,
    index: Mutex<Index>,
    queued: AtomicUsize,
    overflowed: AtomicU64,
    /// Why the last attempt to write failed.
    trouble: Mutex<Option<String>>,
    closing: AtomicBool,
}

/// The store of refused rows. Dropping it writes what waits.
pub struct DeadLetters {
    shared: Arc<Shared>,
    queue: Option<Sender<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeadLetters({})", self.shared.db.path().display())
    }
}

impl DeadLetters {
    /// Opens the store at `path`, or makes it where there is no file.
    pub fn open(path: &Path, limits: Limits, clock: Clock) -> Result<DeadLetters, DeadLetterError> {
        let wrong = |e| open_error(path, e);
        let db = Handle::new(path, file::open_or_create(path, table::create).map_err(wrong)?);
        let index = db.with(table::load).map_err(wrong)?;
        let index = index.map_err(|message| wrong(OpenError::Corrupted(message)))?;
        let shared = Arc::new(Shared {
            db,
            limits,
            clock,
            changing: Mutex::new(()),
            index: Mutex::new(index),
            queued: AtomicUsize::new(0),
            overflowed: AtomicU64::new(0),
            trouble: Mutex::default(),
            closing: AtomicBool::new(false),
        });
        // Bounded by bytes, not by count.
        let (queue, waiting) = unbounded();
        let theirs = shared.clone();
        let thread = std::thread::Builder::new().name("dead-letters".into());
        let thread = thread.spawn(move || writer::run(&theirs, &waiting)).map_err(|e| wrong(e.into()))?;
        Ok(DeadLetters { shared, queue: Some(queue), thread: Some(thread) })
    }

    /// Keeps refused rows: on disk within a second, or as soon as the disk takes them; never waiting. A row whose position is known with
    /// the same payload is left as it is.
    pub fn record(&self, mut rows: Vec<Refused>) {
        if faults::bug("dead_letter_dropped") {
            rows.pop();
        }
        if rows.is_empty() {
            return;
        }
        let bytes = rows.iter().map(writer::weight).sum();
        self.shared.queued.fetch_add(bytes, Ordering::AcqRel);
        self.send(Message::Record(rows));
    }

    /// So much waits for the disk that sources should pause.
    pub fn is_full(&self) -> bool {
        self.shared.queued.load(Ordering::Acquire) > MANY_BYTES
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        self.shared.db.path()
    }

    /// Why nothing can be written now.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().clone()
    }

    /// Returns once everything recorded before is on disk.
    pub fn flush(&self) {
        let (done, wait) = bounded(1);
        self.send(Message::Flush(done));
        let _ = wait.recv();
    }

    /// The same for at most `most`; whether everything is on disk.
    pub fn flush_for(&self, most: Duration) -> bool {
        let (done, wait) = bounded(1);
        self.send(Message::Flush(done));
        wait.recv_timeout(most).is_ok()
    }

    /// The row that was refused at a position, with its payload.
    pub fn at(&self, partition: &Partition, offset: i64, part: u32) -> Result<DeadLetter, DeadLetterError> {
        self.get(&format_id(table::id_at(partition, offset, part)))
    }

    /// Page `page` (from 1) of the matching rows, newest first, and how many match.
    pub fn list(
        &self,
        filter: &Filter,
        page: u64,
        page_size: u64,
    ) -> Result<(Vec<DeadLetter>, u64), DeadLetterError> {
        let (keys, total) = self.shared.index.lock().page(filter, page, page_size);
        let rows = self.with(|db| table::heads(db, &keys))?;
        Ok((rows, total))
    }

    /// One row with its payload.
    pub fn get(&self, id: &str) -> Result<DeadLetter, DeadLetterError> {
        let unknown = || DeadLetterError::Unknown(id.into());
        let number = parse_id(id).ok_or_else(unknown)?;
        let key = self.shared.index.lock().key(number).ok_or_else(unknown)?;
        self.with(|db| table::letter(db, key))?.ok_or_else(unknown)
    }

    /// Counts, as of now.
    pub fn stats(&self) -> Stats {
        let now = (self.shared.clock)();
        let mut stats = self.shared.index.lock().stats(now);
        stats.overflowed = self.shared.overflowed.load(Ordering::Relaxed);
        stats
    }

    /// Notes that a corrected version was admitted.
    pub fn mark_replayed(&self, id: &str, note: &str) -> Result<DeadLetter, DeadLetterError> {
        self.change(id, Status::Replayed, true, note)
    }

    /// Notes that a replay was tried and refused again.
    pub fn mark_still_refused(&self, id: &str, note: &str) -> Result<DeadLetter, DeadLetterError> {
        self.change(id, Status::Failed, true, note)
    }

    /// Puts a row aside.
    pub fn dismiss(&self, id: &str) -> Result<DeadLetter, DeadLetterError> {
        self.change(id, Status::Dismissed, false, "")
    }

    /// Changes a row; on disk when this returns.
    fn change(
        &self,
        id: &str,
        status: Status,
        retried: bool,
        note: &str,
    ) -> Result<DeadLetter, DeadLetterError> {
        let unknown = || DeadLetterError::Unknown(id.into());
        let number = parse_id(id).ok_or_else(unknown)?;
        let _alone = self.shared.changing.lock();
        let key = self.shared.index.lock().key(number).ok_or_else(unknown)?;
        let at = retried.then(|| (self.shared.clock)());
        let changed = self.with(|db| {
            table::change(db, key, |letter| {
                letter.status = status;
                if at.is_some() {
                    letter.retry_count = letter.retry_count.saturating_add(1);
                    letter.last_retried_at = at;
                }
                letter.note = (!note.is_empty()).then(|| note.to_owned());
            })
        })?;
        let letter = changed.ok_or_else(unknown)?;
        self.shared.index.lock().set_status(key, status);
        Ok(letter)
    }

    fn with<T>(
        &self,
        run: impl FnOnce(&redb::Database) -> Result<T, redb::Error>,
    ) -> Result<T, DeadLetterError> {
        self.shared.db.with(run).map_err(|e| open_error(self.shared.db.path(), e))
    }

    fn send(&self, message: Message) {
        let queue = self.queue.as_ref().expect("the queue is there until drop");
        let _ = queue.send(message); // the thread ends only after this end is dropped
    }
}

impl Drop for DeadLetters {
    fn drop(&mut self) {
        // A disk that takes nothing is not waited for.
        self.shared.closing.store(true, Ordering::Release);
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `dl_` and 16 hex digits.
fn format_id(id: u64) -> String {
    format!("dl_{id:016x}")
}

fn parse_id(text: &str) -> Option<u64> {
    let hex = text.strip_prefix("dl_").filter(|hex| hex.len() == 16)?;
    u64::from_str_radix(hex, 16).ok()
}

#[cfg(test)]
mod tests;
