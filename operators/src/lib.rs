//! One dataflow operator per file, on Arrow batches and keyed updates.
//!
//! *In*: decoded batches. *Out*: admitted rows, keyed changes, folded state. *Never*: YAML, I/O, a
//! clock (the instant comes in as a parameter), an answer that depends on arrival order.
//!
//! Modules in the order a row meets them.

pub mod eval;

pub mod admit;

pub mod entity;

pub mod relate;

pub mod fold;

pub mod state;
