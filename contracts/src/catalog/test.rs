//! Tests of a metric's contract, resolved.
//!
//! *In*: lowered metrics. *Out*: plain data. *Never*: running them.

use std::collections::BTreeMap;

use super::Micros;

/// One entry of `tests:`.
#[derive(Debug, Clone)]
pub struct Test {
    /// Name.
    pub name: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// Rows of tables, before all events.
    pub tables: Vec<Given>,
    /// Events in arrival order.
    pub given: Vec<Given>,
    /// The clock at the end: answers are as of this instant.
    pub at: Micros,
    /// Expected rows per window name.
    pub expect: BTreeMap<String, Vec<ExpectedRow>>,
    /// Expected refusals, by index into `given` (from 0) with the reason code, where stated.
    pub expect_refused: Option<Vec<ExpectedRefusal>>,
}

/// Paths of the envelope that test payloads carry: `(id, type, time)`. The keys begin with `$`, so
/// they never meet a declared field. Whoever runs tests decodes with this envelope.
pub const TEST_ENVELOPE: (&str, &str, &str) = ("$id", "$type", "$time");

/// Path of the operation in the payload of a change stream's test event: `c`, `u`, `d`, `r`, `t`.
pub const TEST_OP: &str = "$op";

/// One event of a test.
#[derive(Debug, Clone)]
pub struct Given {
    /// Event contract index.
    pub event: usize,
    /// The payload as a JSON object: declared fields at their payload paths (alias renames already
    /// undone) plus the three keys of the test envelope, always present: see [`TEST_ENVELOPE`].
    pub payload: serde_json::Value,
    /// Line in the file.
    pub line: usize,
}

/// One expected row: column name (dimension or measure) to expectation.
#[derive(Debug, Clone)]
pub struct ExpectedRow {
    /// Cells.
    pub cells: Vec<(String, Expected)>,
    /// Line in the file.
    pub line: usize,
}

/// An expected cell.
#[derive(Debug, Clone)]
pub enum Expected {
    /// Equal (numbers by value: `"110.00"` equals `110`).
    Equal(serde_json::Value),
    /// `{ near: x, within: 1% }`: within a relative distance (default 1 %).
    Near {
        /// Centre.
        value: f64,
        /// Relative tolerance.
        within: f64,
    },
}

/// One expected refusal.
#[derive(Debug, Clone)]
pub struct ExpectedRefusal {
    /// Index into `given`.
    pub given: usize,
    /// Reason code, where stated.
    pub reason: Option<String>,
}
