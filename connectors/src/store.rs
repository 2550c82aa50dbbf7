//! store: what outlives the process: refused rows now, the lake later.
//!
//! *In*: rows and what became of them. *Out*: lists, payloads, counts. *Never*: a file that cannot be
//! read replaced by an empty one.

pub mod dead_letters;
pub mod events;
pub(crate) mod file;

pub use dead_letters::DeadLetters;
