//! Reading again what was admitted before a restart.
//!
//! *In*: chunks, and per partition the offset up to which its rows were admitted before. *Out*: the same rows, those
//! beyond such an offset only when all partitions have been read up to theirs. *Never*: a row twice or not at all.
//!
//! Which one of two duplicates counts depends on which partition is read first. What was admitted before must be
//! admitted again, so nothing new may come between.

mod follow;
mod line;

use std::collections::BTreeMap;
use std::sync::Arc;

use contracts::batch::{Chunk, EventBatch, Partition, Refused};
use operators::admit::select;

use crate::checkpoint::Offsets;

pub use follow::Decisions;
use follow::Follow;
pub(crate) use line::Line;

/// Rows that may wait; beyond them nothing waits any longer.
const MOST: u64 = 4_000_000;

/// What has still to be read again.
#[derive(Debug, Default)]
pub(crate) struct Resume {
    /// Partitions that are not there yet.
    until: BTreeMap<Partition, i64>,
    /// What lies beyond, in the order it came.
    waiting: Vec<Chunk>,
    rows: u64,
    /// Nothing beyond is wanted.
    line: Option<Line>,
    /// Another engine goes first.
    follow: Option<Follow>,
}

impl Resume {
    /// Everything before `until` is to be read again, from `from` on.
    pub(crate) fn new(until: &Offsets, from: &Offsets) -> Self {
        let ahead = |(partition, until): &(&Partition, &i64)| {
            from.get(*partition).copied().unwrap_or(0) < **until && !faults::bug("resume_unordered")
        };
        let until =
            until.iter().filter(ahead).map(|(partition, until)| (partition.clone(), *until)).collect();
        Self { until, ..Self::default() }
    }

    /// Only what lies before a line is wanted.
    pub(crate) fn before(line: Line) -> Self {
        Self { line: Some(line), ..Self::default() }
    }

    /// From now on another one has decided, or goes on deciding.
    pub(crate) fn follow(&mut self, decisions: &Arc<Decisions>) {
        if decisions.go_on() {
            self.follow = Some(Follow::new(Arc::clone(decisions)));
        }
    }

    /// So much waits that nothing more should be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.follow.as_ref().is_some_and(Follow::is_full)
    }

    /// What may be admitted now although nothing has come.
    pub(crate) fn turn(&mut self) -> Vec<Chunk> {
        let Some(follow) = &mut self.follow else { return Vec::new() };
        let (now, over) = follow.turn();
        if over {
            self.follow = None;
        }
        now
    }

    /// What may be admitted now that this has come.
    pub(crate) fn admit(&mut self, chunk: Chunk) -> Vec<Chunk> {
        if let Some(line) = &self.line {
            return vec![line.cut(chunk)];
        }
        if let Some(follow) = &mut self.follow {
            follow.wait(chunk);
            return self.turn();
        }
        if self.until.is_empty() && self.waiting.is_empty() {
            return vec![chunk];
        }
        let mut now = Vec::new();
        match self.until.get(&chunk.partition).copied() {
            Some(until) => {
                let reached = chunk.next_offset >= until;
                let (before, beyond) = split(chunk, until);
                now.push(before);
                if reached {
                    self.until.retain(|partition, _| *partition != now[0].partition);
                }
                beyond.into_iter().for_each(|chunk| self.wait(chunk));
            }
            None => self.wait(chunk),
        }
        if self.rows > MOST {
            let behind: Vec<String> =
                self.until.keys().map(|p| format!("{} {}[{}]", p.source, p.topic, p.number)).collect();
            tracing::error!(
                rows = self.rows,
                behind = behind.join(", "),
                "partitions stay behind what was admitted before the restart; the others go on without them, and which \
                 one of two duplicates counts may differ from before"
            );
            self.until.clear();
        }
        if self.until.is_empty() {
            self.rows = 0;
            now.append(&mut self.waiting);
        }
        now
    }

    fn wait(&mut self, chunk: Chunk) {
        self.rows += chunk.received;
        self.waiting.push(chunk);
    }
}

/// The part before an offset, and the rest if there is any.
fn split(chunk: Chunk, until: i64) -> (Chunk, Option<Chunk>) {
    let lies_beyond = |batch: &EventBatch| batch.offsets.last().is_some_and(|last| *last >= until);
    let beyond = chunk.next_offset > until
        && (chunk.batches.iter().any(lies_beyond) || chunk.refused.iter().any(|row| row.offset >= until));
    if !beyond {
        return (chunk, None);
    }
    let part = |batch: &EventBatch, beyond: bool| {
        let mask: Vec<bool> = batch.offsets.iter().map(|offset| (*offset >= until) == beyond).collect();
        mask.contains(&true).then(|| select(batch, &mask))
    };
    let batches = |beyond: bool| chunk.batches.iter().filter_map(|batch| part(batch, beyond)).collect();
    let (refused, refused_beyond): (Vec<Refused>, Vec<Refused>) =
        chunk.refused.iter().cloned().partition(|row| row.offset < until);
    let rows = |batches: &Vec<EventBatch>| batches.iter().map(|b| b.columns.num_rows() as u64).sum::<u64>();
    let (first, rest): (Vec<EventBatch>, Vec<EventBatch>) = (batches(false), batches(true));
    let beyond = Chunk {
        received: rows(&rest) + refused_beyond.len() as u64,
        batches: rest,
        refused: refused_beyond,
        skipped: 0,
        ..chunk.clone()
    };
    let before = Chunk {
        received: rows(&first) + refused.len() as u64 + chunk.skipped,
        next_offset: until,
        batches: first,
        refused,
        settled: None,
        ..chunk
    };
    (before, Some(beyond))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(number: i32, offsets: std::ops::Range<i64>) -> Chunk {
        let refused = |offset| Refused {
            partition: partition(number),
            offset,
            part: 0,
            received: 0,
            event_type: None,
            event_id: None,
            payload: Default::default(),
            headers: Default::default(),
            reasons: Vec::new(),
        };
        Chunk {
            partition: partition(number),
            next_offset: offsets.end,
            end_offset: None,
            settled: None,
            batches: Vec::new(),
            received: (offsets.end - offsets.start) as u64,
            refused: offsets.map(refused).collect(),
            skipped: 0,
            bytes: 0,
        }
    }

    fn partition(number: i32) -> Partition {
        Partition { source: "s".into(), topic: "t".into(), number }
    }

    fn told(chunks: &[Chunk]) -> Vec<(i32, Vec<i64>, i64)> {
        let one = |chunk: &Chunk| {
            let offsets: Vec<i64> = chunk.refused.iter().map(|row| row.offset).collect();
            assert_eq!(chunk.received, offsets.len() as u64);
            (chunk.partition.number, offsets, chunk.next_offset)
        };
        chunks.iter().map(one).collect()
    }

    #[test]
    fn what_lies_beyond_waits_for_all() {
        let until = [(partition(0), 5), (partition(1), 3), (partition(2), 9)].into();
        let from = [(partition(0), 2), (partition(2), 9)].into();
        let mut resume = Resume::new(&until, &from);
        assert_eq!(told(&resume.admit(chunk(0, 2..4))), [(0, vec![2, 3], 4)]);
        assert_eq!(told(&resume.admit(chunk(2, 9..10))), [], "has been read before, and is beyond");
        assert_eq!(told(&resume.admit(chunk(0, 4..7))), [(0, vec![4], 5)]);
        assert_eq!(told(&resume.admit(chunk(7, 0..1))), [], "a new partition waits, too");
        assert_eq!(told(&resume.admit(chunk(0, 7..8))), []);
        let all = [
            (1, vec![0, 1, 2], 3),
            (2, vec![9], 10),
            (0, vec![5, 6], 7),
            (7, vec![0], 1),
            (0, vec![7], 8),
            (1, vec![3], 4),
        ];
        let got = told(&resume.admit(chunk(1, 0..4)));
        assert_eq!(got.len(), all.len());
        assert!(all.iter().all(|one| got.contains(one)), "{got:?}");
        assert_eq!(told(&resume.admit(chunk(1, 4..5))), [(1, vec![4], 5)]);
    }
}
