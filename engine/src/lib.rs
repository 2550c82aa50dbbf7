//! Compiles a catalog to a dataflow, runs it, keeps time, publishes.
//!
//! *In*: [`contracts::batch::Chunk`]s from connectors. *Out*: a [`Published`] state, swapped in whole
//! at each closed tick, and a [`TickOutcome`] per tick. *Never*: I/O, async, a wall clock outside
//! `clock.rs`, a YAML key.
//!
//! Modules in the order a chunk meets them.

mod plan;

mod clock;

mod resume;

mod coordinator;

mod worker;

mod publish;

pub mod checkpoint;

mod start;

mod compose;

mod api;

pub use api::*;
pub use compose::Beside;
pub use publish::{
    Answer, Counts, Ended, EntityRow, MetricQuery, Newest, Progress, Published, QueryError, Row,
};
pub use resume::Decisions;
