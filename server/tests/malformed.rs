//! Broken and hostile input from end to end: every record ends in exactly one place and can be looked at there.
//!
//! *In*: `malformed/corpus.txt`, the Big List of Naughty Strings, a real server, `ingest` and a file source. *Out*:
//! counts that add up, dead letters with the bytes as they came, texts that come back as they went in. *Never*: what
//! decode's own tests have shown (`connectors/src/decode/tests/hostile.rs`) as the only check.
#![allow(clippy::disallowed_types)] // As in `http.rs`: a test reads its own short stream.
#![allow(clippy::unwrap_used)] // A test fails where it unwraps.

#[path = "malformed/corpus.rs"]
mod corpus;
#[path = "malformed/naughty.rs"]
mod naughty;
#[allow(dead_code)] // Shared with the tests of HTTP; each uses its part.
#[path = "http/site.rs"]
mod site;
mod support;
#[path = "support/tally.rs"]
mod tally;

const CONTRACTS: &str = include_str!("malformed/contracts.yaml");

/// However busy the machine is: what became of the events is waited for.
fn patient() -> server::Limits {
    server::Limits { push_wait: std::time::Duration::from_secs(30), ..server::Limits::default() }
}
