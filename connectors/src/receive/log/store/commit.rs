//! The thread that commits: everything that waits, in one transaction, with one fsync.
//!
//! *In*: queued requests. *Out*: their offsets, after the fsync. *Never*: half a request.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use redb::{Database, ReadableDatabase, ReadableTable, Table};

use super::super::block::{self, LogRecord};
use super::super::idempotency::{ANSWERS, Answers, BY_TIME, Idempotent, Kept};
use super::{BLOCKS, Ends, Job, LogError, META, Shared, Waiting, open_error};

/// Bytes of one transaction, so that its memory and the wait of its first request stay small.
const COMMIT_BYTES: usize = 8 << 20;
/// Bytes of one block. The store hands out pages in powers of two; this just fits 64 KiB.
const BLOCK_BYTES: usize = (64 << 10) - 1024;
/// How often retention by age is looked at while nothing is appended.
const IDLE: Duration = Duration::from_secs(30);
/// How soon it is looked whether a disk that failed works again.
const AGAIN: Duration = Duration::from_secs(1);
/// Blocks that one commit drops at most, so that no commit gets slow.
const SWEEP: usize = 1024;

pub(super) fn run(shared: &Shared, queue: &Receiver<Waiting>) {
    loop {
        let mut jobs = Vec::new();
        // After a failure an empty commit finds out when the disk takes something again.
        let failing = shared.trouble.lock().is_some();
        match queue.recv_timeout(if failing { AGAIN } else { IDLE }) {
            Ok(first) => {
                let mut bytes = first.bytes;
                jobs.push(first);
                while let Some(next) = (bytes < COMMIT_BYTES).then(|| queue.try_recv().ok()).flatten() {
                    bytes += next.bytes;
                    jobs.push(next);
                }
            }
            Err(RecvTimeoutError::Timeout) if !failing && !shared.something_expired() => continue,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let bytes: usize = jobs.iter().map(|w| w.bytes).sum();
        shared.commit(jobs.into_iter().map(|w| w.job).collect());
        shared.queued.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// A request's result, to be told once the transaction is on disk.
enum Outcome {
    Appended(Range<i64>),
    Idempotent(Idempotent),
    Nothing,
}

impl Shared {
    /// The oldest block is older than `max_age`.
    fn something_expired(&self) -> bool {
        let oldest = self.with_db(|db| {
            let blocks = db.begin_read()?.open_table(BLOCKS)?;
            Ok(blocks.first()?.and_then(|(_, value)| block::received(value.value())))
        });
        let now = (self.options.clock)();
        matches!(oldest, Ok(Some(at)) if now.saturating_sub(at) > self.max_age())
    }

    fn max_age(&self) -> i64 {
        i64::try_from(self.options.max_age.as_micros()).unwrap_or(i64::MAX)
    }

    fn commit(&self, mut jobs: Vec<Job>) {
        let now = (self.options.clock)();
        let before = *self.ends.lock();
        let written = self.reopen_if_needed().and_then(|()| {
            let ends = *self.ends.lock();
            self.with_db(|db| write(db, &mut jobs, ends, now, self))
        });
        match written {
            Ok((ends, outcomes)) => {
                faults::point("log.before_answer");
                *self.ends.lock() = ends;
                *self.trouble.lock() = None;
                if ends.end != before.end {
                    self.appended.notify_all();
                }
                for (job, outcome) in jobs.into_iter().zip(outcomes) {
                    tell(job, outcome);
                }
            }
            Err(error) => {
                if self.trouble.lock().replace(error.to_string()).is_none() {
                    tracing::error!("append: {error}");
                }
                self.db.close();
                for job in jobs {
                    job.fail(error.clone());
                }
            }
        }
    }

    /// After a failed commit. What was failed may still have reached the disk: then it is in the log,
    /// unacknowledged, which is allowed.
    fn reopen_if_needed(&self) -> Result<(), LogError> {
        if self.db.revive().map_err(|e| open_error(self.db.path(), e))? {
            *self.ends.lock() = self.check(None)?;
        }
        Ok(())
    }
}

fn tell(job: Job, outcome: Outcome) {
    match (job, outcome) {
        (Job::Append { done, .. }, Outcome::Appended(range)) => done(Ok(range)),
        (Job::Idempotent { done, .. }, Outcome::Idempotent(what)) => done(Ok(what)),
        (job, _) => job.fail(LogError::Closed), // cannot be: outcomes are made per kind of job
    }
}

fn write(
    db: &Database,
    jobs: &mut [Job],
    ends: Ends,
    now: i64,
    shared: &Shared,
) -> Result<(Ends, Vec<Outcome>), redb::Error> {
    let mut txn = db.begin_write()?;
    if faults::bug("log_not_durable") {
        // It cannot fail: there are no savepoints.
        let _ = txn.set_durability(redb::Durability::None);
    }
    let mut appender = Appender {
        blocks: txn.open_table(BLOCKS)?,
        // The clock may go back; the log's does not.
        ends: Ends { received: ends.received.max(now), ..ends },
        open: Vec::new(),
        open_bytes: 0,
    };
    let mut answers = Answers { answers: txn.open_table(ANSWERS)?, by_time: txn.open_table(BY_TIME)? };
    let mut outcomes = Vec::with_capacity(jobs.len());
    let mut fresh: HashMap<String, Kept> = HashMap::new();
    for job in jobs {
        outcomes.push(match job {
            Job::Append { records, .. } => Outcome::Appended(appender.append(records)?),
            Job::Answer { key, answer } => {
                if let Some(kept) = answers.get(key, now)? {
                    answers.put(key, &Kept { answer: answer.clone(), ..kept })?;
                }
                Outcome::Nothing
            }
            Job::Sweep => Outcome::Nothing,
            Job::Idempotent { records, request, .. } => {
                let known = match fresh.get(&request.key) {
                    Some(kept) => Some(kept.clone()),
                    None => answers.get(&request.key, now)?,
                };
                Outcome::Idempotent(match known {
                    Some(kept) if kept.fingerprint == request.fingerprint => {
                        Idempotent::Repeated { answer: kept.answer }
                    }
                    Some(_) => Idempotent::OtherRequest,
                    None => {
                        let range = appender.append(records)?;
                        let make = std::mem::replace(&mut request.answer, Box::new(|_| bytes::Bytes::new()));
                        let answer = make(&range);
                        let kept = Kept { at: now, fingerprint: request.fingerprint, answer: answer.clone() };
                        if !faults::bug("forget_keys") {
                            answers.put(&request.key, &kept)?;
                        }
                        fresh.insert(request.key.clone(), kept);
                        Idempotent::Fresh { range, answer }
                    }
                })
            }
        });
    }
    answers.sweep(now)?;
    drop(answers);
    appender.close()?;
    appender.retain(now, shared)?;
    let ends = appender.ends;
    drop(appender);
    let mut meta = txn.open_table(META)?;
    for (key, value) in [("end", ends.end), ("bytes", ends.bytes), ("received", ends.received)] {
        meta.insert(key, value)?;
    }
    drop(meta);
    faults::point("log.before_sync");
    txn.commit()?;
    faults::point("log.after_sync");
    Ok((ends, outcomes))
}

/// Packs records into blocks and keeps count.
struct Appender<'a> {
    blocks: Table<'a, i64, &'static [u8]>,
    ends: Ends,
    /// Records of the block being filled; they are counted in `ends.end` already.
    open: Vec<LogRecord>,
    open_bytes: usize,
}

impl Appender<'_> {
    fn append(&mut self, records: &[LogRecord]) -> Result<Range<i64>, redb::Error> {
        let first = self.ends.end;
        for record in records {
            let bytes = record.stored_len();
            if !self.open.is_empty() && self.open_bytes + bytes > BLOCK_BYTES {
                self.close()?;
            }
            self.open.push(record.clone());
            self.open_bytes += bytes;
            self.ends.end += 1;
        }
        Ok(first..self.ends.end)
    }

    fn close(&mut self) -> Result<(), redb::Error> {
        let records = std::mem::take(&mut self.open);
        self.open_bytes = 0;
        if !records.is_empty() {
            let block = block::encode(&records, self.ends.received);
            let first = self.ends.end - records.len() as i64;
            self.ends.bytes += block.len() as i64;
            self.blocks.insert(first, &block[..])?;
        }
        Ok(())
    }

    /// Drops the oldest blocks that are too old or too much; the newest stays, and what is held.
    fn retain(&mut self, now: i64, shared: &Shared) -> Result<(), redb::Error> {
        let max_bytes = i64::try_from(shared.options.max_bytes).unwrap_or(i64::MAX);
        let max_age = shared.max_age();
        let hold = shared.hold.load(Ordering::Acquire);
        self.ends.held = false;
        for _ in 0..SWEEP {
            let Some((first, next, len, received)) = self.oldest()? else { break };
            let old = received.is_some_and(|at| now.saturating_sub(at) > max_age);
            let large = self.ends.bytes > max_bytes;
            if !large && !old {
                break;
            }
            if next > hold {
                self.ends.held = large;
                break;
            }
            self.blocks.remove(first)?;
            self.ends.bytes -= len;
        }
        self.ends.start = self.blocks.first()?.map_or(self.ends.end, |(key, _)| key.value());
        Ok(())
    }

    /// Offset, next block's offset, length and instant of the oldest block; `None` when it is the newest, too.
    fn oldest(&self) -> Result<Option<(i64, i64, i64, Option<i64>)>, redb::Error> {
        let mut blocks = self.blocks.iter()?;
        let (Some(oldest), Some(next)) = (blocks.next().transpose()?, blocks.next().transpose()?) else {
            return Ok(None);
        };
        let value = oldest.1.value();
        Ok(Some((oldest.0.value(), next.0.value(), value.len() as i64, block::received(value))))
    }
}
