//! The thread that writes refused rows, many at once.
//!
//! *In*: rows. *Out*: rows on disk and in the index. *Never*: more rows than the limits allow, for
//! longer than one commit.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use contracts::batch::Refused;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use redb::Database;

use super::index::{Index, Key};
use super::table::{self, Tables};
use super::{DeadLetter, Limits, Shared};

/// Rows are gathered this long before a commit.
const GATHER: Duration = Duration::from_millis(50);
/// A commit is due at this many bytes.
const COMMIT_BYTES: usize = 8 << 20;
/// How often age is looked at while nothing comes.
const IDLE: Duration = Duration::from_secs(30);
/// How soon a batch is tried again when the disk fails.
const RETRY: Duration = Duration::from_millis(500);

pub(super) enum Message {
    Record(Vec<Refused>),
    Flush(Sender<()>),
}

/// Bytes a row takes of the queue.
pub(super) fn weight(row: &Refused) -> usize {
    let reasons: usize = row.reasons.iter().map(|r| 64 + r.message.len() + r.path.len()).sum();
    let headers: usize = row.headers.iter().map(|(name, value)| 64 + name.len() + value.len()).sum();
    256 + row.payload.len() + headers + reasons
}

pub(super) fn run(shared: &Shared, queue: &Receiver<Message>) {
    loop {
        let mut rows = Vec::new();
        let mut flushes = Vec::new();
        let mut bytes = 0;
        let mut take = |message, rows: &mut Vec<Refused>| match message {
            Message::Record(more) => {
                bytes += more.iter().map(weight).sum::<usize>();
                rows.extend(more);
                bytes < COMMIT_BYTES
            }
            Message::Flush(done) => {
                flushes.push(done);
                false
            }
        };
        let mut open = true;
        match queue.recv_timeout(IDLE) {
            Ok(first) => {
                let until = Instant::now() + GATHER;
                let mut more = take(first, &mut rows);
                while more {
                    match queue.recv_deadline(until) {
                        Ok(next) => more = take(next, &mut rows),
                        Err(error) => {
                            open = error == RecvTimeoutError::Timeout;
                            break;
                        }
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        write(shared, rows, open);
        shared.queued.fetch_sub(bytes, Ordering::AcqRel);
        for done in flushes {
            let _ = done.send(());
        }
    }
}

/// Writes a batch. A disk that fails is tried again until it takes it, or the process ends: then the rows are counted,
/// and no checkpoint stands beyond them.
fn write(shared: &Shared, rows: Vec<Refused>, may_wait: bool) {
    let now = (shared.clock)();
    if rows.is_empty() && !expired(shared, now) {
        return;
    }
    let mut told = false;
    loop {
        let alone = shared.changing.lock();
        let done = shared.db.revive().and_then(|_| {
            let index = &mut *shared.index.lock();
            let plan = Plan::new(index, &shared.limits, now);
            shared.db.with(|db| plan.write(db, &rows))
        });
        match done {
            Ok(changes) => {
                changes.apply(&mut shared.index.lock());
                *shared.trouble.lock() = None;
                return;
            }
            Err(error) => {
                shared.db.close();
                drop(alone);
                let words = super::open_error(shared.db.path(), error);
                if !told {
                    tracing::error!(error = %words, "dead letters cannot be written");
                    told = true;
                }
                *shared.trouble.lock() = Some(words.to_string());
                if !may_wait || shared.closing.load(Ordering::Acquire) {
                    shared.overflowed.fetch_add(rows.len() as u64, Ordering::Relaxed);
                    return;
                }
                std::thread::sleep(RETRY);
            }
        }
    }
}

fn expired(shared: &Shared, now: i64) -> bool {
    let oldest = shared.index.lock().oldest().next().map(|((received, _), _)| received);
    oldest.is_some_and(|at| now.saturating_sub(at) > max_age(&shared.limits))
}

fn max_age(limits: &Limits) -> i64 {
    i64::try_from(limits.max_age.as_micros()).unwrap_or(i64::MAX)
}

/// What a commit does to the index once it is on disk.
#[derive(Default)]
struct Changes {
    removed: Vec<Key>,
    added: Vec<(Key, DeadLetter, u64)>,
    dropped: u64,
}

impl Changes {
    fn apply(self, index: &mut Index) {
        for key in self.removed {
            index.remove(key);
        }
        for (key, letter, fingerprint) in self.added {
            index.insert(key, &letter, fingerprint);
        }
        index.dropped = self.dropped;
    }
}

struct Plan<'a> {
    index: &'a Index,
    limits: &'a Limits,
    now: i64,
}

impl<'a> Plan<'a> {
    fn new(index: &'a Index, limits: &'a Limits, now: i64) -> Self {
        Self { index, limits, now }
    }

    fn write(&self, db: &Database, rows: &[Refused]) -> Result<Changes, redb::Error> {
        let txn = db.begin_write()?;
        let mut tables = Tables::open(&txn)?;
        let mut changes = Changes { dropped: self.index.dropped, ..Changes::default() };
        let mut fresh: HashMap<u64, usize> = HashMap::new();
        let oldest = self.now.saturating_sub(max_age(self.limits));
        for row in rows {
            let id = table::id_of(row);
            let print = table::fingerprint(&row.payload);
            let known = self.index.key(id).filter(|key| !changes.removed.contains(key));
            let same = match (fresh.get(&id), known) {
                (Some(i), _) => changes.added[*i].2 == print,
                (None, Some(key)) => self.index.fingerprint(key) == Some(print),
                (None, None) => false,
            };
            if same || tables.was_dropped(row)? {
                continue;
            }
            if row.received < oldest {
                tables.skip(row)?;
                changes.dropped += 1;
                continue;
            }
            if let Some(key) = known {
                tables.remove(key)?; // the source was replaced: another row at the same position
                changes.removed.push(key);
            }
            let key = (row.received, id);
            if let Some(i) = fresh.get(&id) {
                tables.remove(changes.added[*i].0)?;
            }
            let letter = tables.insert(key, row.clone(), print)?;
            match fresh.get(&id) {
                Some(i) => changes.added[*i] = (key, letter, print),
                None => {
                    fresh.insert(id, changes.added.len());
                    changes.added.push((key, letter, print));
                }
            }
        }
        self.make_room(&mut tables, &mut changes, oldest)?;
        drop(tables);
        faults::point("dead.before_sync");
        txn.commit()?;
        faults::point("dead.after_sync");
        Ok(changes)
    }

    /// Drops the oldest rows until the limits hold.
    fn make_room(
        &self,
        tables: &mut Tables<'_>,
        changes: &mut Changes,
        oldest: i64,
    ) -> Result<(), redb::Error> {
        let replaced = changes.removed.len() as u64;
        let added_bytes: u64 = changes.added.iter().map(|(_, letter, _)| letter.payload_len).sum();
        let mut count = self.index.len() - replaced + changes.added.len() as u64;
        let mut bytes = self.index.bytes + added_bytes;
        // Old and new rows by age; the new ones are usually the newest.
        let kept = self.index.oldest().filter(|(key, _)| !changes.removed.contains(key));
        let mut dropped: HashSet<Key> = HashSet::new();
        let mut new: Vec<(Key, u64)> =
            changes.added.iter().map(|(key, l, _)| (*key, l.payload_len)).collect();
        new.sort_unstable();
        let over = |count: u64, bytes: u64, at: i64| {
            count > self.limits.max_count || bytes > self.limits.max_bytes || at < oldest
        };
        let mut new = new.into_iter().peekable();
        let mut kept = kept.peekable();
        loop {
            let next = match (kept.peek(), new.peek()) {
                (Some(a), Some(b)) if a.0 <= b.0 => kept.next(),
                (_, Some(_)) => new.next(),
                (_, None) => kept.next(),
            };
            let Some((key, len)) = next.filter(|(key, _)| over(count, bytes, key.0)) else { break };
            count -= 1;
            bytes = bytes.saturating_sub(len);
            dropped.insert(key);
        }
        for key in &dropped {
            tables.drop_row(*key)?;
        }
        changes.dropped += dropped.len() as u64;
        changes.added.retain(|(key, _, _)| !dropped.contains(key));
        changes.removed.extend(dropped);
        tables.set_dropped(changes.dropped)
    }
}
