//! How far history goes for an engine that makes state again beside a running one.
//!
//! *In*: chunks, and where the running engine stood when its state was cut. *Out*: the rows before that, of the events that
//! are wanted. *Never*: a row at or beyond the line, for whoever takes the state over reads on from there.

use std::collections::BTreeSet;
use std::sync::Arc;

use contracts::Catalog;
use contracts::batch::Chunk;

use super::split;
use crate::checkpoint::Offsets;

/// Where reading ends.
#[derive(Debug)]
pub(crate) struct Line {
    until: Offsets,
    /// Sources that the line is for; others (files of tables) are read as they are.
    sources: BTreeSet<String>,
    events: BTreeSet<usize>,
    catalog: Arc<Catalog>,
    /// Rows of no event are wanted, too: a metric counts all rows.
    all: bool,
}

impl Line {
    /// Rows of `events` before `until`.
    pub(crate) fn new(
        until: Offsets,
        sources: BTreeSet<String>,
        events: BTreeSet<usize>,
        catalog: Arc<Catalog>,
    ) -> Self {
        let all = catalog.event_index(contracts::ROW_EVENT).is_some_and(|rows| events.contains(&rows));
        Self { until, sources, events, catalog, all }
    }

    /// What is wanted of a chunk. It says how far the partition has been read, to the line at most.
    pub(super) fn cut(&self, chunk: Chunk) -> Chunk {
        let mut chunk = match self.sources.contains(&*chunk.partition.source) {
            true => {
                let until = self.until.get(&chunk.partition).copied().unwrap_or(0);
                split(chunk, until).0
            }
            false => chunk,
        };
        if self.all {
            return chunk;
        }
        chunk.batches.retain(|batch| self.events.contains(&batch.event));
        let wanted = |name: &String| self.catalog.event_index(name).is_some_and(|e| self.events.contains(&e));
        chunk.refused.retain(|row| row.event_type.as_ref().is_some_and(wanted));
        let rows: usize = chunk.batches.iter().map(|batch| batch.columns.num_rows()).sum();
        chunk.received = (rows + chunk.refused.len()) as u64;
        chunk.skipped = 0;
        chunk
    }
}
