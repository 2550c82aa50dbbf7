//! What the settings say of change events whose records carry no schema.
//!
//! *In*: `debezium:` of a source. *Out*: [`Debezium`]. *Never*: a default for what only the connector's
//! settings can tell.

use serde::{Deserialize, Serialize};

/// `debezium:` of a source. Counts only where a record has no schema; a schema says it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debezium {
    /// The connector's `decimal.handling.mode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decimals: Option<Decimals>,
    /// The unit of timestamps that are integers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<Unit>,
}

/// How decimals are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decimals {
    /// Base64 of the big-endian two's complement bytes of the unscaled value.
    Precise,
    /// Decimal text.
    String,
    /// A JSON number that was a double.
    Double,
}

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// 1/1,000 s.
    Millis,
    /// 1/1,000,000 s.
    Micros,
    /// 1/1,000,000,000 s.
    Nanos,
}

impl Unit {
    /// `count` of this unit in whole microseconds, rounded towards the past.
    pub(in crate::decode) fn micros(self, count: i64) -> Option<i64> {
        match self {
            Self::Millis => count.checked_mul(1000),
            Self::Micros => Some(count),
            Self::Nanos => Some(count.div_euclid(1000)),
        }
    }
}
