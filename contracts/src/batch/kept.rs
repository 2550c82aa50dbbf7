//! Admitted rows that are kept, so that a number can be computed again from its events.
//!
//! *In*: what a tick has admitted. *Out*: the same, with the tick. *Never*: payloads; only columns.

use std::sync::Arc;

use super::{EventBatch, Partition, Payloads};

/// Admitted rows of one event type and partition.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The tick that admitted them: whoever reads the state of an earlier tick must not see them.
    pub tick: u64,
    /// The clock at that tick, microseconds since the Unix epoch.
    pub now: i64,
    /// Where the rows came from.
    pub partition: Arc<Partition>,
    /// Columns as [`crate::catalog::Event::admitted`] says; no payloads.
    pub batch: EventBatch,
}

impl Kept {
    /// Rows that `tick` admitted at the instant `now`.
    pub fn new(tick: u64, now: i64, partition: Arc<Partition>, batch: EventBatch) -> Self {
        Self { tick, now, partition, batch: EventBatch { payloads: Payloads::default(), ..batch } }
    }

    /// Bytes in memory, about. Buffers shared with other batches count in full.
    pub fn bytes(&self) -> usize {
        let rows = self.batch.columns.num_rows();
        let ids = arrow::array::Array::get_array_memory_size(&self.batch.ids);
        self.batch.columns.get_array_memory_size() + ids + rows * 48
    }
}
