//! Shipped sets: which deployment was the first to contain a commit, resolved.
//!
//! *In*: lowered metrics. *Out*: plain data. *Never*: text that still has to be parsed.

use super::{Micros, Part};

/// `ships:` of a join: the partner of a row is, per line, the first deployment whose commit has the row's commit
/// among its ancestors.
#[derive(Debug, Clone)]
pub struct Ships {
    /// `(part, cell)` of the row: its commits, all text. The first that a line ships counts there.
    pub commits: Vec<(usize, usize)>,
    /// Cell of the added part: the commit that it runs, text.
    pub head: usize,
    /// Cells of the added part: its line within the graph.
    pub line: Vec<usize>,
    /// Where parents of commits come from.
    pub history: Vec<History>,
    /// What the first deployment of a line ships.
    pub cold_start: ColdStart,
}

/// An alias whose rows tell parents of commits.
#[derive(Debug, Clone)]
pub struct History {
    /// Its rows: cells, then lists.
    pub part: Part,
    /// Cells that name the graph, in the order of the step's equalities.
    pub graph: Vec<usize>,
    /// What a row says.
    pub kind: HistoryKind,
}

/// What a row of history says; all are cells of its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryKind {
    /// The commit `sha` has `parents` (a list).
    Parents {
        /// The commit.
        sha: usize,
        /// A list of text.
        parents: usize,
    },
    /// Each of `commits` (a list, oldest first) contains the one before it, the first one contains `before`.
    Chain {
        /// What was there before.
        before: Option<usize>,
        /// A list of text.
        commits: usize,
    },
}

/// `cold_start:`: which of its commits the first deployment of a line ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColdStart {
    /// None.
    Skip,
    /// All.
    All,
    /// Those at most so much older than it.
    Within(Micros),
}
