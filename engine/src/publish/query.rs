//! Questions, answers, and questions that cannot be answered.
//!
//! *In*: names as the caller wrote them. *Out*: plain data. *Never*: how an answer looks on the wire.

use contracts::value::Value;

/// A question about a metric.
#[derive(Debug, Clone, Default)]
pub struct MetricQuery {
    /// Window name; default: the metric's first.
    pub window: Option<String>,
    /// Measures by name, hidden ones allowed; default: all visible.
    pub measures: Option<Vec<String>>,
    /// Dimensions to group by.
    pub by: Vec<String>,
    /// SQL condition over the dimensions.
    pub filter: Option<String>,
    /// Exclusive end in event time; default: the published instant.
    pub as_of: Option<i64>,
}

/// An answer; rows are sorted by their dimension values.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Window name.
    pub window: String,
    /// Start of the window; `None` for `all` and for sessions (see the rows).
    pub start: Option<i64>,
    /// Exclusive end of the window; `None` for `all` and for sessions.
    pub end: Option<i64>,
    /// The instant answered: events with time < `as_of` count.
    pub as_of: i64,
    /// No further event is expected to change it (end + lateness have passed, sources caught up).
    pub complete: bool,
    /// The first visible measure over all rows (ignoring `by`, respecting the filter).
    pub value: Value,
    /// Name of the level that holds, if the metric has levels.
    pub level: Option<String>,
    /// Names of the dimension cells of each row.
    pub dimensions: Vec<String>,
    /// Names of the measure cells of each row.
    pub measures: Vec<String>,
    /// Without `by` exactly one.
    pub rows: Vec<Row>,
}

/// One row of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Dimension values, in order of [`Answer::dimensions`].
    pub key: Vec<Value>,
    /// Measure values, in order of [`Answer::measures`].
    pub values: Vec<Value>,
    /// For session windows: start and end of this row's session.
    pub session: Option<(i64, i64)>,
}

/// The newest event that moved something.
#[derive(Debug, Clone, Copy)]
pub struct Newest {
    /// Event time.
    pub time: i64,
    /// Received time.
    pub received: i64,
}

/// The live row of an entity.
#[derive(Debug, Clone)]
pub struct EntityRow {
    /// Field name to value, contract order.
    pub fields: Vec<(String, Value)>,
    /// Latest event time that touched it.
    pub last_time: i64,
    /// Number of events behind it.
    pub events: u64,
}

/// A question that cannot be answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueryError {
    /// A name that the metric does not have.
    #[error("{what} `{found}` is not one of: {}", allowed.join(", "))]
    Unknown {
        /// `window`, `measure`, `dimension`.
        what: &'static str,
        /// As asked.
        found: String,
        /// What there is.
        allowed: Vec<String>,
    },
    /// `as_of` outside of what is kept.
    #[error("as_of {found} is outside of what is kept: {from} to {to}")]
    AsOf {
        /// RFC 3339.
        found: String,
        /// RFC 3339.
        from: String,
        /// RFC 3339.
        to: String,
    },
    /// A `where` that is not a condition over the dimensions.
    #[error("where: {0}")]
    Filter(String),
    /// A series of too many points or a step of 0.
    #[error("series: {0}")]
    Series(String),
}
