//! HTTP from the outside: a real engine, log and dead-letter store behind a real socket.
//!
//! *In*: small contracts. *Out*: what a client sees, one group of endpoints per file. *Never*: a
//! fixed port, a mock.

#![allow(clippy::disallowed_types)] // a test reads its own short stream
#![allow(clippy::unwrap_used)] // a test fails where it unwraps

#[path = "http/site.rs"]
mod site;

#[path = "http/contracts.rs"]
mod contracts_group;
#[path = "http/deadletter.rs"]
mod deadletter;
#[path = "http/docs.rs"]
mod docs;
#[path = "http/entity.rs"]
mod entity;
#[path = "http/events.rs"]
mod events;
#[path = "http/health.rs"]
mod health;
#[path = "http/metrics.rs"]
mod metrics;
#[path = "http/reload.rs"]
mod reload;
#[path = "http/streams.rs"]
mod streams;
#[path = "http/why.rs"]
mod why;
