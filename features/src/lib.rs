//! Nothing but a manifest: it gives every crate of the workspace the same features of shared
//! dependencies, so that `cargo build -p one` and `cargo build --workspace` share one build.
//!
//! *In*: nothing. *Out*: nothing. *Never*: code.
