//! The newest admitted rows, for `/v1/stream/events` and `streamgauge tap`.
//!
//! *In*: admitted batches of a tick. *Out*: numbered rows that a reader takes at its own pace.
//! *Never*: a wait for a slow reader (it is told how many rows it missed), more than
//! [`MAX_ROWS`] rows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use contracts::Catalog;
use engine::Admitted;
use parking_lot::Mutex;

/// Rows that a reconnecting reader can still get.
pub(crate) const MAX_ROWS: u64 = 65_536;

/// Batches kept, whatever their size: a trickle of one-row batches must not pin many buffers.
const MAX_BATCHES: usize = 16_384;

/// The engine hands admitted rows over for this long after the last reader left, so that a reader
/// who reconnects misses nothing.
pub(crate) const LINGER: Duration = Duration::from_secs(120);

/// The ring.
#[derive(Debug)]
pub(crate) struct Ring {
    inner: Mutex<Inner>,
    readers: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    batches: VecDeque<Kept>,
    /// Number of the next row.
    next: u64,
    rows: u64,
    left: Option<Instant>,
}

/// A batch in the ring.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// Number of its first row.
    pub(crate) first: u64,
    /// The contracts it was admitted by.
    pub(crate) catalog: Arc<Catalog>,
    /// Its rows.
    pub(crate) admitted: Arc<Admitted>,
}

impl Kept {
    /// Number after its last row.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.admitted.batch.columns.num_rows() as u64
    }
}

/// What a reader finds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Rows that were dropped before the reader came for them.
    pub(crate) missed: u64,
    /// Batches that hold rows from the reader's position on.
    pub(crate) batches: Vec<Kept>,
}

impl Ring {
    pub(crate) fn new() -> Arc<Ring> {
        Arc::new(Ring { inner: Mutex::default(), readers: AtomicUsize::new(0) })
    }

    /// Takes the admitted rows of a tick.
    pub(crate) fn push(&self, catalog: &Arc<Catalog>, admitted: Vec<Admitted>) {
        let mut inner = self.inner.lock();
        for admitted in admitted {
            let rows = admitted.batch.columns.num_rows() as u64;
            if rows == 0 {
                continue;
            }
            let first = inner.next;
            inner.next += rows;
            inner.rows += rows;
            inner.batches.push_back(Kept { first, catalog: catalog.clone(), admitted: Arc::new(admitted) });
            while inner.batches.len() > 1 && (inner.rows > MAX_ROWS || inner.batches.len() > MAX_BATCHES) {
                if let Some(dropped) = inner.batches.pop_front() {
                    inner.rows -= dropped.end() - dropped.first;
                }
            }
        }
    }

    /// Number the next row will have.
    pub(crate) fn next(&self) -> u64 {
        self.inner.lock().next
    }

    /// At most `batches` batches with rows from number `from` on.
    pub(crate) fn since(&self, from: u64, batches: usize) -> Found {
        let inner = self.inner.lock();
        let oldest = inner.batches.front().map_or(inner.next, |b| b.first);
        let start = inner.batches.partition_point(|b| b.end() <= from);
        Found {
            missed: oldest.saturating_sub(from),
            batches: inner.batches.iter().skip(start).take(batches).cloned().collect(),
        }
    }

    /// A reader came.
    pub(crate) fn enter(self: &Arc<Self>) -> Reading {
        self.readers.fetch_add(1, Ordering::AcqRel);
        self.inner.lock().left = None;
        Reading(self.clone())
    }

    /// Somebody reads, or may come back.
    pub(crate) fn wanted(&self) -> bool {
        if self.readers.load(Ordering::Acquire) > 0 {
            return true;
        }
        self.inner.lock().left.is_some_and(|left| left.elapsed() < LINGER)
    }

    /// Drops what is kept (nobody reads any more).
    pub(crate) fn clear(&self) {
        let mut inner = self.inner.lock();
        if inner.batches.is_empty() {
            return;
        }
        inner.batches.clear();
        inner.rows = 0;
        // Rows admitted from now on are not handed over: this number stands for them, so that a
        // reader who comes back is told.
        inner.next += 1;
    }
}

/// A reader of the ring, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Reading(Arc<Ring>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.inner.lock().left = Some(Instant::now());
        self.0.readers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use contracts::batch::{EventBatch, Partition, Payloads};

    use super::*;

    fn admitted(rows: usize) -> Vec<Admitted> {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![0; rows]));
        vec![Admitted {
            partition: Partition { source: "push".into(), topic: "log".into(), number: 0 },
            batch: EventBatch {
                event: 0,
                columns: RecordBatch::try_from_iter([("n", numbers)]).unwrap(),
                ids: StringArray::new_null(rows),
                offsets: vec![0; rows],
                parts: vec![0; rows],
                received: vec![0; rows],
                payloads: Payloads::default(),
                changes: None,
            },
        }]
    }

    #[test]
    fn a_slow_reader_is_told_what_it_missed() {
        let ring = Ring::new();
        let catalog = Arc::new(Catalog::default());
        for _ in 0..20 {
            ring.push(&catalog, admitted(4_096));
        }
        let found = ring.since(0, 100);
        assert_eq!(found.missed, 4 * 4_096, "16 batches fit");
        assert_eq!(found.batches.len(), 16);
        let newest = ring.since(ring.next() - 1, 100);
        assert_eq!((newest.missed, newest.batches.len()), (0, 1));
        assert!(ring.since(ring.next(), 100).batches.is_empty());
    }

    #[test]
    fn rows_that_were_not_handed_over_count_as_missed() {
        let ring = Ring::new();
        let catalog = Arc::new(Catalog::default());
        ring.push(&catalog, admitted(3));
        let seen = ring.next();
        ring.clear();
        ring.push(&catalog, admitted(2));
        let found = ring.since(seen, 100);
        assert_eq!((found.missed, found.batches.len()), (1, 1));
    }

    #[test]
    fn wanted_while_somebody_reads_and_a_while_after() {
        let ring = Ring::new();
        assert!(!ring.wanted());
        let reading = ring.enter();
        assert!(ring.wanted());
        drop(reading);
        assert!(ring.wanted(), "a reader may come back");
    }
}
