//! What the tests share: the oracle, the generator, a harness around the engine.
//!
//! *In*: contracts and events, written or random. *Out*: answers of the oracle and of the engine, and
//! their differences. *Never*: a mock of the part under test.

pub mod generate;
pub mod harness;
pub mod oracle;
