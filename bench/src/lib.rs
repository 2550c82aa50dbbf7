//! Benchmarks: throughput against the limit of the machine, freshness through real Kafka.
//!
//! *In*: options of `streamgauge bench ...`. *Out*: reports as JSON, tables and text plots. *Never*: a
//! number whose answers differ from the oracle; a number of a development build without saying so.
//!
//! `w1` makes the events and knows the answers, `limit` is the program to beat, `ours` is the engine on
//! the same file; `throughput` runs them side by side in processes of their own. `freshness` sends events
//! to a running server on a schedule and watches when they show. `joins`, `ships`
//! and `sequences` measure one operator by itself, `recovery` checkpoints and restarts, `acks` durable pushes, `backfill` the
//! way back from the lake beside live traffic.

pub mod answers;
pub mod w1;

pub mod limit;
pub mod ours;

pub mod acks;
pub mod backfill;
pub mod freshness;
pub mod joins;
pub mod recovery;
pub mod sequences;
pub mod ships;
pub mod throughput;

pub mod compare;
mod error;
mod machine;
mod plot;
mod process;
mod stats;

pub use error::{Error, Kind};
pub use machine::Machine;
pub use stats::{Latency, Spread};
