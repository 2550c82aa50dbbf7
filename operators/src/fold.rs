//! Fold: rows become keyed changes of panes, panes become windows.
//!
//! *In*: admitted batches and entity changes. *Out*: a [`panes::Shard`] per metric, shared with readers
//! without copying. *Never*: a result that depends on the order of rows, batches or workers.
//!
//! A row meets: `group` (per batch, before the exchange), `panes` (state, wheels), `finish`
//! (accumulator to answer cell). `acc` holds the accumulators, `wide` their exact arithmetic,
//! `ranks` the sketch of distinct values, `edges` what lasts, `window` the extents.

pub mod acc;
pub mod edges;
pub mod ranks;
pub mod wide;

pub mod window;

pub mod group;

pub mod panes;

pub mod finish;

pub mod plan;
