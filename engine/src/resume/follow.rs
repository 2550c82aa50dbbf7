//! What somebody else has decided of the rows that an engine reads: the process before, or the engine that answers.
//!
//! *In*: verdicts on duplicates, and up to where they are known. *Out*: which rows may be admitted now. *Never*: a row admitted
//! by two engines that each decide alone: they could take different copies of one id, and both would be stored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contracts::batch::{Chunk, Decided, Partition};
use parking_lot::RwLock;

use super::{MOST, split};
use crate::checkpoint::Offsets;

/// Verdicts of another one on rows that are read again.
#[derive(Debug, Default)]
pub struct Decisions {
    decided: RwLock<Decided>,
    /// Sources it decides for; tables are read by each engine alone.
    sources: BTreeSet<String>,
    /// It decides on, so rows beyond wait.
    on: AtomicBool,
}

impl Decisions {
    /// Of a process that is gone.
    pub fn of_the_past(decided: Decided) -> Self {
        Self { decided: RwLock::new(decided), ..Self::default() }
    }

    /// Of an engine that goes on deciding for rows of `sources` until [`Decisions::end`].
    pub fn of_a_leader(sources: BTreeSet<String>) -> Self {
        Self { sources, on: AtomicBool::new(true), ..Self::default() }
    }

    /// Adds what is known from before.
    pub fn add(&self, before: Decided) {
        let mut decided = self.decided.write();
        let told = std::mem::replace(&mut *decided, before);
        advance(&mut decided.until, told.until);
        decided.dropped.extend(&told.dropped);
    }

    /// Takes what a tick of the leader decided: of everything before `offsets` it has dropped the `duplicates`.
    pub fn tell(
        &self,
        offsets: impl Iterator<Item = (Partition, i64)>,
        duplicates: &[(Partition, i64, u32)],
    ) {
        let mut decided = self.decided.write();
        let followed = |partition: &Partition| self.sources.contains(&*partition.source);
        for (partition, offset, part) in duplicates.iter().filter(|(partition, ..)| followed(partition)) {
            decided.dropped.insert(partition, *offset, *part);
        }
        advance(&mut decided.until, offsets.filter(|(partition, _)| followed(partition)).collect());
    }

    /// Nobody else decides any more.
    pub fn end(&self) {
        self.on.store(false, Ordering::Release);
    }

    /// The verdicts there are.
    pub(crate) fn read(&self) -> parking_lot::RwLockReadGuard<'_, Decided> {
        self.decided.read()
    }

    pub(super) fn go_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }
}

fn advance(until: &mut Offsets, by: Offsets) {
    for (partition, next) in by {
        let own = until.entry(partition).or_insert(next);
        *own = (*own).max(next);
    }
}

/// Chunks of an engine that follows another one.
#[derive(Debug)]
pub(super) struct Follow {
    decisions: Arc<Decisions>,
    waiting: BTreeMap<Partition, Waiting>,
    rows: u64,
}

/// Chunks of one partition.
#[derive(Debug, Default)]
struct Waiting {
    chunks: VecDeque<Chunk>,
    /// Where the first one was cut last.
    passed: Option<i64>,
}

impl Follow {
    pub(super) fn new(decisions: Arc<Decisions>) -> Self {
        Self { decisions, waiting: BTreeMap::new(), rows: 0 }
    }

    /// So much waits that nothing more should be taken.
    pub(super) fn is_full(&self) -> bool {
        self.rows > MOST && self.decisions.go_on()
    }

    pub(super) fn wait(&mut self, chunk: Chunk) {
        self.rows += chunk.received;
        match self.waiting.get_mut(&chunk.partition) {
            Some(waiting) => waiting.chunks.push_back(chunk),
            None => {
                let partition = chunk.partition.clone();
                self.waiting.insert(partition, Waiting { chunks: [chunk].into(), passed: None });
            }
        }
    }

    /// What may be admitted now; true: nothing waits any more, or ever will.
    pub(super) fn turn(&mut self) -> (Vec<Chunk>, bool) {
        let mut now = Vec::new();
        if !self.decisions.go_on() {
            let all = std::mem::take(&mut self.waiting).into_values();
            now.extend(all.flat_map(|waiting| waiting.chunks));
            return (now, true);
        }
        let decided = self.decisions.read();
        for (partition, waiting) in &mut self.waiting {
            if !self.decisions.sources.contains(&*partition.source) {
                now.extend(waiting.chunks.drain(..));
                continue;
            }
            let Some(until) = decided.until.get(partition).copied() else { continue };
            while waiting.chunks.front().is_some_and(|chunk| chunk.next_offset <= until) {
                now.extend(waiting.chunks.pop_front());
            }
            if waiting.passed.is_none_or(|passed| passed < until)
                && let Some(chunk) = waiting.chunks.pop_front()
            {
                let (before, beyond) = split(chunk, until);
                now.push(before);
                beyond.into_iter().for_each(|chunk| waiting.chunks.push_front(chunk));
                waiting.passed = Some(until);
            }
        }
        let passed: u64 = now.iter().map(|chunk| chunk.received).sum();
        self.rows = self.rows.saturating_sub(passed);
        (now, false)
    }
}
