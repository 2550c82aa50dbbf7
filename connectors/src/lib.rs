//! The rim: bytes in, rows out; refused rows kept.
//!
//! *In*: Kafka, the embedded log, files, a generator. *Out*: [`contracts::batch::Chunk`]s; dead letters on disk.
//! *Never*: async, the engine, an event acknowledged before it is on disk.
//!
//! Modules in the order of the journey.

pub mod decode;
pub mod receive;
pub mod store;
