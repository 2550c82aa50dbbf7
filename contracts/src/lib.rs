//! What users write: contracts in YAML become a typed, checked [`Catalog`].
//!
//! *In*: the text of contract files. *Out*: a [`Catalog`] the engine can run, or every mistake of
//! every file with file:line:column and a fix. *Never*: I/O, a clock, async, threads, timely.
//!
//! Modules in the order a contract meets them: text, shape, meaning, types, catalog.

pub mod diagnostic;
pub mod text;
pub mod yaml;

pub mod shape;

mod load;
mod lower;

pub mod diff;
mod keep;
pub mod pack;

pub mod duration;
pub mod expr;

pub mod catalog;
pub mod value;

pub mod batch;

pub mod guard;

pub use catalog::Catalog;
pub use diagnostic::{Diagnostic, Severity};
pub use diff::{Change, Class, Effect, diff};
pub use keep::{History, StatePlan};
pub use load::{Loaded, RESERVED, ROW_EVENT, load};
pub use pack::pack;
pub use shape::{Kind, json_schema, reference};
pub use text::SourceFile;
pub use value::{FieldType, Value, ValueType};
