//! The second truth: every number again, as SQL over the admitted events that are kept.
//!
//! *In*: a checked catalog, a question, kept events. *Out*: the number recomputed, the SQL that gave it, how many
//! rows came how far, the events behind it. *Never*: a line of code that the fold uses too; nothing of what is
//! here knows panes, wheels or accumulators. What cannot be recomputed is refused by name, not guessed.
//!
//! Modules in the order a question meets them: ask (what is asked, what is answered), eval (expressions over
//! events), rows (events become rows of the metric), entity and relate (rows that remember others), window (which
//! stretch of time), stages (from rows to counted rows, one SQL statement each), groups (from counted rows to groups), lasting (rows that last), aggs (one SQL expression per fold),
//! measure (measures from folds), samples (the events behind them), compare (do they agree). reach says which events a
//! question needs, sql is DataFusion.

mod aggs;
mod ask;
mod compare;
mod entity;
mod eval;
mod groups;
mod lasting;
mod measure;
mod numbers;
mod reach;
mod relate;
mod rows;
mod samples;
mod sql;
mod stages;
mod window;

pub use ask::{
    AuditError, Counts, Events, Lost, Question, Recomputed, Row, Sample, recompute, recompute_all,
};
pub use compare::{Served, ServedRow, disagreement};
pub use reach::{counted, kept, needs_from, reads};
