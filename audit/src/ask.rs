//! What is asked, and what is answered.
//!
//! *In*: a question as the engine has answered it: the same metric, window, split, instant. *Out*: the number again,
//! and how it came about. *Never*: a guess; what is not covered is [`AuditError::NotRecomputed`].

use std::sync::Arc;

use contracts::Catalog;
use contracts::batch::Kept;
use contracts::value::Value;

use crate::stages::Work;

/// The events a number is recomputed from: all that were admitted up to the answer's tick.
pub type Events<'a> = &'a [Arc<Kept>];

/// A question, resolved: numbers are indexes into the metric's lists.
#[derive(Debug, Clone)]
pub struct Question {
    /// Index into [`Catalog::metrics`].
    pub metric: usize,
    /// Window.
    pub window: usize,
    /// Dimensions to split by.
    pub by: Vec<usize>,
    /// Measures that are compared, hidden ones too.
    pub measures: Vec<usize>,
    /// The measure whose events are shown; `None`: no samples, no counts.
    pub explain: Option<usize>,
    /// SQL condition over the dimensions.
    pub filter: Option<String>,
    /// The instant that was answered: events with time < `as_of` count.
    pub as_of: i64,
    /// The clock at the answer's tick.
    pub now: i64,
}

/// A number computed again.
#[derive(Debug, Clone, Default)]
pub struct Recomputed {
    /// The window; `None` for `all` and sessions.
    pub span: Option<(i64, i64)>,
    /// The first visible measure over all rows.
    pub value: Value,
    /// One per combination of dimension values; without `by` exactly one.
    pub rows: Vec<Row>,
    /// How many rows came how far.
    pub counts: Counts,
    /// Events behind the explained measure.
    pub samples: Vec<Sample>,
    /// Rows of the metric that the measure does not count, by reason.
    pub lost: Vec<Lost>,
    /// The statements that were run, as one `WITH`.
    pub sql: String,
}

/// One row of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Dimension values.
    pub key: Vec<Value>,
    /// One per [`Question::measures`].
    pub values: Vec<Value>,
    /// For sessions: start and end.
    pub session: Option<(i64, i64)>,
}

/// Rows of the window at each stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Admitted events of the aliases (for an entity: its rows).
    pub admitted: u64,
    /// Of them, those that the alias's `where` lets through.
    pub matched: u64,
    /// Joined rows; `None` without a join.
    pub joined: Option<u64>,
    /// Rows that the explained measure folds.
    pub counted: u64,
}

/// An event behind a number.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The event's id, or its place in its stream where it has none.
    pub id: String,
    /// Event time.
    pub time: i64,
    /// What it adds to the measure.
    pub value: Value,
    /// It is the one: at the quantile, the least, the last.
    pub is_it: bool,
}

/// Rows that are not counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Lost {
    /// `outside_window`, `evaluation`, `unmatched`, ...
    pub reason: String,
    /// How many.
    pub count: u64,
    /// Ids of the newest of them.
    pub samples: Vec<String>,
}

/// A number that cannot be recomputed.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It is of a kind that has no second truth (yet), or its events are gone.
    #[error("not recomputed: {0}")]
    NotRecomputed(String),
    /// DataFusion refuses a statement.
    #[error("`{sql}`: {message}")]
    Sql {
        /// The statement.
        sql: String,
        /// DataFusion's words.
        message: String,
    },
    /// A bug, or an instant beyond the calendar.
    #[error("{0}")]
    Inner(String),
}

impl AuditError {
    pub(crate) fn sql(sql: &str, error: &datafusion::error::DataFusionError) -> Self {
        Self::Sql { sql: sql.to_owned(), message: error.strip_backtrace() }
    }

    #[allow(clippy::needless_pass_by_value)] // for `map_err`
    pub(crate) fn arrow(error: arrow::error::ArrowError) -> Self {
        Self::Inner(error.to_string())
    }

    #[allow(clippy::needless_pass_by_value)] // for `map_err`
    pub(crate) fn time(error: jiff::Error) -> Self {
        Self::Inner(error.to_string())
    }
}

/// Computes an answer again from its events. Must not be called on a thread of a tokio runtime.
///
/// # Errors
/// [`AuditError::NotRecomputed`] for what has no second truth; the others are bugs, or a statement that needs too
/// much memory.
pub fn recompute(
    catalog: &Catalog,
    question: &Question,
    events: Events<'_>,
) -> Result<Recomputed, AuditError> {
    Work::new(catalog, question, events)?.answer()
}

/// The same for several questions about the same tick: the rows of a metric are made once for those that follow each
/// other.
///
/// # Errors
/// One per question, as of [`recompute`].
pub fn recompute_all(
    catalog: &Catalog,
    questions: &[Question],
    events: Events<'_>,
) -> Vec<Result<Recomputed, AuditError>> {
    let mut made = None;
    let again = |question| {
        let mut work = Work::new(catalog, question, events)?;
        work.made = made.take();
        let again = work.answer();
        made = work.made.take();
        again
    };
    questions.iter().map(again).collect()
}
