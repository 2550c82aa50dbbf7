//! connectors

pub mod decode;
pub mod receive;
pub mod store;
