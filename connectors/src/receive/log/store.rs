//! Appends to the log and reads from it.
//!
//! *In*: records, many callers at once. *Out*: their offsets, once they are on disk; records by
//! offset. *Never*: a `done` before the fsync, a log opened by two processes, an empty log made in
//! place of one that cannot be read.
//!
//! The store is redb (copy-on-write B-trees, checksums, one fsync per commit). One thread commits:
//! everything that waits when it comes around goes into one transaction and shares its fsync.

mod commit;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Sender, unbounded};
use parking_lot::{Condvar, Mutex};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::block::{self, LogRecord, StoredRecord};
use super::idempotency::{self, ANSWERS, BY_TIME, Idempotent, IdempotentRequest, Kept};
use crate::receive::Clock;
use crate::store::file::{self, Handle, OpenError};

/// Offset of the first record of a block -> the block.
const BLOCKS: TableDefinition<'static, i64, &[u8]> = TableDefinition::new("blocks");
/// `end`, `bytes` (of all blocks), `received` (newest), `format`.
const META: TableDefinition<'static, &str, i64> = TableDefinition::new("meta");
/// `source`.
const NAMES: TableDefinition<'static, &str, &str> = TableDefinition::new("names");
/// Layout of the tables.
const FORMAT: i64 = 1;

/// Bounds of a log.
#[derive(Clone)]
pub struct LogOptions {
    /// Beyond this many bytes of blocks the oldest go (the newest block always stays). The file is
    /// up to twice as large.
    pub max_bytes: u64,
    /// Blocks older than this go.
    pub max_age: Duration,
    /// Bytes waiting to be committed; beyond it [`LogError::Full`].
    pub max_queue_bytes: usize,
    /// Where append times come from.
    pub clock: Clock,
}

impl LogOptions {
    /// 8 GiB, 30 days, 64 MiB waiting.
    pub fn new(clock: Clock) -> Self {
        let max_age = Duration::from_secs(30 * 24 * 3600);
        Self { max_bytes: 8 << 30, max_age, max_queue_bytes: 64 << 20, clock }
    }
}

/// Why the log did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// More is being pushed than the disk takes. Try again soon.
    #[error("the log is full: {waiting} bytes wait for the disk (at most {allowed}); try again")]
    Full {
        /// Bytes waiting.
        waiting: usize,
        /// `max_queue_bytes`.
        allowed: usize,
    },
    /// The log has its greatest size, and all of it may still have to be read again.
    #[error(
        "the log is full: {bytes} bytes (at most {allowed}), and the records from offset {start} on are still needed by a checkpoint or the lake; it goes on by itself once a newer checkpoint needs them no more"
    )]
    Needed {
        /// Bytes of its blocks.
        bytes: u64,
        /// `max_bytes`.
        allowed: u64,
        /// Oldest offset kept.
        start: i64,
    },
    /// Another process has the log open.
    #[error("{path}: another process has this log open; stop it, or use another `data` folder")]
    Locked {
        /// The log's file.
        path: PathBuf,
    },
    /// The file is there but is not a log that can be read.
    #[error(
        "{path}: the log cannot be read: {message}. Nothing was changed. Restore the file from a backup, or move it away to start without its events"
    )]
    Corrupted {
        /// The log's file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The log belongs to a source of another name.
    #[error(
        "{path}: this log belongs to source `{found}`, not to `{wanted}`; give the source its old name back, or move the file away"
    )]
    OtherSource {
        /// The log's file.
        path: PathBuf,
        /// Name in the file.
        found: String,
        /// Name in the settings.
        wanted: String,
    },
    /// The system failed (disk full, permission, ...). Appends are tried anew each time.
    #[error("{path}: {message}")]
    Io {
        /// The log's file.
        path: PathBuf,
        /// The system's words.
        message: String,
    },
    /// A record that does not fit.
    #[error("{0}")]
    TooLarge(String),
    /// An `Idempotency-Key` of wrong length.
    #[error("Idempotency-Key: found {found} bytes; 1 to {allowed} are allowed")]
    Key {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        allowed: usize,
    },
    /// An offset that retention has passed.
    #[error("offset {from} is gone: the log starts at {start}")]
    Gone {
        /// Offset asked for.
        from: i64,
        /// Oldest offset kept.
        start: i64,
    },
    /// An offset the log never had.
    #[error("offset {from} is beyond the log's end {end}: the log was replaced by another one")]
    BeyondEnd {
        /// Offset asked for.
        from: i64,
        /// The log's end.
        end: i64,
    },
    /// The log is being closed.
    #[error("the log is closed")]
    Closed,
}

type Done = Box<dyn FnOnce(Result<Range<i64>, LogError>) + Send>;
type IdempotentDone = Box<dyn FnOnce(Result<Idempotent, LogError>) + Send>;

/// One thing to do in the next commit.
enum Job {
    Append {
        records: Vec<LogRecord>,
        done: Done,
    },
    Idempotent {
        records: Vec<LogRecord>,
        request: IdempotentRequest,
        done: IdempotentDone,
    },
    Answer {
        key: String,
        answer: Bytes,
    },
    /// Only retention.
    Sweep,
}

/// A request, with the bytes it takes of the queue.
struct Waiting {
    job: Job,
    bytes: usize,
}

/// `start..end` of what is on disk.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    start: i64,
    end: i64,
    bytes: i64,
    received: i64,
    /// It is larger than it may be, because its oldest block is held.
    held: bool,
}

/// What callers and the committing thread share.
struct Shared {
    db: Handle,
    options: LogOptions,
    ends: Mutex<Ends>,
    appended: Condvar,
    queued: AtomicUsize,
    /// Records at or beyond this offset stay, however old or many.
    hold: AtomicI64,
    /// Why the last commit failed.
    trouble: Mutex<Option<String>>,
}

/// A durable, bounded log of records, numbered from 0 without gaps. Dropping it commits what waits.
pub struct PushLog {
    shared: Arc<Shared>,
    queue: Option<Sender<Waiting>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for PushLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PushLog({}, {}..{})", self.shared.db.path().display(), self.start(), self.end())
    }
}

impl PushLog {
    /// Opens the log of `source` at `path`, or makes it where there is no file.
    pub fn open(path: &Path, source: &str, options: LogOptions) -> Result<Arc<PushLog>, LogError> {
        let db =
            file::open_or_create(path, |db| create_tables(db, source)).map_err(|e| open_error(path, e))?;
        let shared = Shared {
            db: Handle::new(path, db),
            options,
            ends: Mutex::new(Ends::default()),
            appended: Condvar::new(),
            queued: AtomicUsize::new(0),
            hold: AtomicI64::new(i64::MAX),
            trouble: Mutex::default(),
        };
        *shared.ends.lock() = shared.check(Some(source))?;
        let shared = Arc::new(shared);
        // Bounded by bytes (`max_queue_bytes`), not by count.
        let (queue, waiting) = unbounded();
        let theirs = shared.clone();
        let thread = std::thread::Builder::new().name("push-log".into());
        let thread =
            thread.spawn(move || commit::run(&theirs, &waiting)).map_err(|e| open_error(path, e.into()))?;
        Ok(Arc::new(PushLog { shared, queue: Some(queue), thread: Some(thread) }))
    }

    /// Appends `records` in order, all or none. `done` is called once, on the log's own thread (so it
    /// must be quick): with their offsets after they are on disk, or with the error. A full queue is
    /// told at once, on the caller's thread.
    pub fn append(&self, records: Vec<LogRecord>, done: Done) {
        if let Err(error) = check_records(&records) {
            return done(Err(error));
        }
        let bytes = size(&records);
        match self.reserve(bytes) {
            Err(error) => done(Err(error)),
            Ok(()) => self.send(Waiting { job: Job::Append { records, done }, bytes }),
        }
    }

    /// As [`PushLog::append`], unless a request with the same key came in the last 24 hours: then
    /// nothing is appended, and the earlier answer is given.
    pub fn append_idempotent(
        &self,
        records: Vec<LogRecord>,
        request: IdempotentRequest,
        done: IdempotentDone,
    ) {
        let checked = idempotency::check_key(&request.key).and_then(|()| check_records(&records));
        let bytes = size(&records) + request.key.len();
        match checked.and_then(|()| self.reserve(bytes)) {
            Err(error) => done(Err(error)),
            Ok(()) => self.send(Waiting { job: Job::Idempotent { records, request, done }, bytes }),
        }
    }

    /// The answer kept for `key`, with the fingerprint of its request.
    pub fn idempotent_get(&self, key: &str) -> Result<Option<(Bytes, [u8; 32])>, LogError> {
        let now = (self.shared.options.clock)();
        let found = self.shared.with_db(|db| {
            let table = db.begin_read()?.open_table(ANSWERS)?;
            Ok(table.get(key)?.and_then(|v| Kept::decode(v.value())))
        })?;
        let fresh = found.filter(|kept| now - kept.at < idempotency::KEEP_MICROS);
        Ok(fresh.map(|kept| (kept.answer, kept.fingerprint)))
    }

    /// Replaces the answer kept for a key that [`PushLog::append_idempotent`] has written, when more
    /// became known later (how many were refused). Written with the next commit, best effort: after a
    /// crash the first answer stands.
    pub fn idempotent_put(&self, key: &str, answer: Bytes) -> Result<(), LogError> {
        let bytes = key.len() + answer.len();
        self.reserve(bytes)?;
        self.send(Waiting { job: Job::Answer { key: key.into(), answer }, bytes });
        Ok(())
    }

    /// Oldest offset kept (== `end` when nothing is kept).
    pub fn start(&self) -> i64 {
        self.shared.ends.lock().start
    }
    /// The offset the next record will get.
    pub fn end(&self) -> i64 {
        self.shared.ends.lock().end
    }
    /// Bytes of the kept blocks.
    pub fn bytes(&self) -> u64 {
        self.shared.ends.lock().bytes.unsigned_abs()
    }

    /// Keeps the records at or beyond `offset`, whatever age and size say; an older offset than before is allowed.
    /// Without this call nothing is held. A log that grows too large by it takes no more ([`LogError::Needed`]).
    pub fn hold(&self, offset: i64) {
        let before = self.shared.hold.swap(offset, Ordering::AcqRel);
        if before != offset && self.is_held() {
            self.send(Waiting { job: Job::Sweep, bytes: 0 });
        }
    }

    /// Why nothing can be appended now; looked at again every second.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().clone()
    }

    /// It takes no more until [`PushLog::hold`] lets go of some records.
    pub fn is_held(&self) -> bool {
        self.shared.ends.lock().held
    }

    /// Waits until there is a record at `offset`, at most `timeout`.
    pub fn wait(&self, offset: i64, timeout: Duration) {
        let mut ends = self.shared.ends.lock();
        if ends.end <= offset {
            self.shared.appended.wait_for(&mut ends, timeout);
        }
    }

    /// Records from offset `from` on: at least one if there is one, then up to about `max_bytes`.
    pub fn read(&self, from: i64, max_bytes: usize) -> Result<Vec<StoredRecord>, LogError> {
        let ends = *self.shared.ends.lock();
        if from >= ends.end {
            let beyond = from > ends.end;
            return if beyond { Err(LogError::BeyondEnd { from, end: ends.end }) } else { Ok(Vec::new()) };
        }
        if from < ends.start {
            return Err(LogError::Gone { from, start: ends.start });
        }
        let blocks = self.shared.with_db(|db| read_blocks(db, from, max_bytes))?;
        let mut out = Vec::new();
        let mut expected = None;
        for (first, bytes) in blocks {
            let records = block::decode(&bytes, first).map_err(|m| self.shared.corrupted(m))?;
            // Blocks follow each other without gaps; a missing one is damage, not retention.
            if expected.is_some_and(|e| e != first) {
                return Err(self.shared.corrupted(format!("block {first} follows a gap")));
            }
            expected = Some(first + records.len() as i64);
            // A commit can be seen before the end is moved: whoever read beyond the end would take this for another log.
            out.extend(records.into_iter().filter(|r| (from..ends.end).contains(&r.offset)));
        }
        match out.first() {
            Some(record) if record.offset == from => Ok(out),
            // Retention has run in between.
            _ if from < self.start() => Err(LogError::Gone { from, start: self.start() }),
            _ => Err(self.shared.corrupted(format!("offset {from} is missing"))),
        }
    }

    fn reserve(&self, bytes: usize) -> Result<(), LogError> {
        let ends = *self.shared.ends.lock();
        if ends.held {
            let (bytes, allowed) = (ends.bytes.unsigned_abs(), self.shared.options.max_bytes);
            return Err(LogError::Needed { bytes, allowed, start: ends.start });
        }
        let allowed = self.shared.options.max_queue_bytes;
        let before = self.shared.queued.fetch_add(bytes, Ordering::AcqRel);
        // One request alone may be larger than the queue; it only must not wait behind others.
        if before > 0 && before + bytes > allowed {
            self.shared.queued.fetch_sub(bytes, Ordering::AcqRel);
            return Err(LogError::Full { waiting: before, allowed });
        }
        Ok(())
    }

    fn send(&self, waiting: Waiting) {
        let queue = self.queue.as_ref().expect("the queue is there until drop");
        if let Err(failed) = queue.send(waiting) {
            failed.into_inner().job.fail(LogError::Closed);
        }
    }
}

impl Drop for PushLog {
    fn drop(&mut self) {
        drop(self.queue.take()); // the thread commits what waits, then ends
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Job {
    fn fail(self, error: LogError) {
        match self {
            Job::Append { done, .. } => done(Err(error)),
            Job::Idempotent { done, .. } => done(Err(error)),
            Job::Answer { .. } | Job::Sweep => {}
        }
    }
}

fn check_records(records: &[LogRecord]) -> Result<(), LogError> {
    records.iter().try_for_each(LogRecord::check).map_err(LogError::TooLarge)
}

fn size(records: &[LogRecord]) -> usize {
    records.iter().map(LogRecord::stored_len).sum()
}

/// Blocks as (first offset, bytes): the one that holds `from`, and those after it.
fn read_blocks(db: &Database, from: i64, max_bytes: usize) -> Result<Vec<(i64, Bytes)>, redb::Error> {
    let table = db.begin_read()?.open_table(BLOCKS)?;
    let first = table.range(..=from)?.next_back().transpose()?.map(|(key, _)| key.value());
    let mut out = Vec::new();
    let mut bytes = 0;
    for entry in table.range(first.unwrap_or(from)..)? {
        let (key, value) = entry?;
        let value = Bytes::copy_from_slice(value.value());
        bytes += value.len();
        out.push((key.value(), value));
        if bytes >= max_bytes {
            break;
        }
    }
    Ok(out)
}

fn create_tables(db: &Database, source: &str) -> Result<(), redb::Error> {
    let txn = db.begin_write()?;
    txn.open_table(BLOCKS)?;
    txn.open_table(ANSWERS)?;
    txn.open_table(BY_TIME)?;
    let mut meta = txn.open_table(META)?;
    for (key, value) in [("format", FORMAT), ("end", 0), ("bytes", 0), ("received", 0)] {
        meta.insert(key, value)?;
    }
    drop(meta);
    txn.open_table(NAMES)?.insert("source", source)?;
    txn.commit()?;
    Ok(())
}

fn open_error(path: &Path, error: OpenError) -> LogError {
    let path = path.to_path_buf();
    match error {
        OpenError::Locked => LogError::Locked { path },
        OpenError::Corrupted(message) => LogError::Corrupted { path, message },
        OpenError::Io(message) => LogError::Io { path, message },
    }
}

impl Shared {
    fn corrupted(&self, message: String) -> LogError {
        open_error(self.db.path(), OpenError::Corrupted(message))
    }

    fn with_db<T>(&self, run: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, LogError> {
        self.db.with(run).map_err(|e| open_error(self.db.path(), e))
    }

    /// Reads what the tables say of themselves. `source`: whose log it must be.
    fn check(&self, source: Option<&str>) -> Result<Ends, LogError> {
        let (format, end, bytes, received, name, start) = self.with_db(|db| {
            let txn = db.begin_read()?;
            let meta = txn.open_table(META)?;
            let number = |key: &str| Ok::<_, redb::Error>(meta.get(key)?.map(|v| v.value()));
            let name = txn.open_table(NAMES)?.get("source")?.map(|v| v.value().to_owned());
            let start = txn.open_table(BLOCKS)?.first()?.map(|(key, _)| key.value());
            Ok((number("format")?, number("end")?, number("bytes")?, number("received")?, name, start))
        })?;
        if format != Some(FORMAT) {
            let found = format.map_or("none".into(), |f| f.to_string());
            let message = format!("format {found} is not known to this program (it knows {FORMAT})");
            return Err(self.corrupted(message));
        }
        let found = name.unwrap_or_default();
        if let Some(wanted) = source.filter(|s| *s != found) {
            let (path, wanted) = (self.db.path().to_path_buf(), wanted.to_owned());
            return Err(LogError::OtherSource { path, found, wanted });
        }
        let end = end.ok_or_else(|| self.corrupted("its end is not written down".into()))?;
        let (bytes, received) = (bytes.unwrap_or(0), received.unwrap_or(0));
        // The next commit finds out whether it is held.
        Ok(Ends { start: start.unwrap_or(end), end, bytes, received, held: false })
    }
}

#[cfg(test)]
mod tests;
