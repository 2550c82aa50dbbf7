//! Errors of the lake, by name.
//!
//! *In*: what a catalog, a place or a table answered. *Out*: a [`LakeError`] that says what to do. *Never*: a stop that
//! could have been a wait.

use crate::commit::NotCommitted;
use crate::rounds::PlanError;

/// Why the lake cannot be used, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The catalog or the files cannot be reached, or answer with an error.
    #[error("lake_unreachable: {what}: {message}")]
    Unreachable {
        /// What was tried.
        what: String,
        /// The words of whoever answered.
        message: String,
    },
    /// A column has another type in the lake than in the contract.
    #[error(
        "lake_schema_conflict: {table}.{column} is `{there}` in the lake and `{here}` in the contract; give the field another name (`from:` keeps the place in the payload), or move the table away"
    )]
    Schema {
        /// Table.
        table: String,
        /// Column path.
        column: String,
        /// Type in the contract.
        here: String,
        /// Type in the lake.
        there: String,
    },
    /// An event has a field that the lake needs for itself.
    #[error(
        "lake_name_taken: {event} has a column `{column}`, which the lake adds itself; give it another name"
    )]
    Taken {
        /// Event type.
        event: String,
        /// Column.
        column: String,
    },
    /// Two contracts want one table.
    #[error(
        "lake_table_taken: the results of metric {metric} and something else are to go into the table `{table}`; name another one under `serve.lake.iceberg`"
    )]
    Shared {
        /// Table.
        table: String,
        /// Metric.
        metric: String,
    },
    /// Another process writes into this lake.
    #[error(
        "lake_fenced: {table}: another process has committed: {message}. Only one may write; this one stops. Stop the other, or start this one again to go on from there"
    )]
    Fenced {
        /// Table.
        table: String,
        /// What was found.
        message: String,
    },
    /// A file that a round had written is gone.
    #[error(
        "lake_file_missing: {table}: {file} is gone; round {round} needs it. Bring it back; it is not written again, because its rows were decided"
    )]
    FileMissing {
        /// Table.
        table: String,
        /// The file.
        file: String,
        /// Number of the round.
        round: u64,
    },
    /// A table is older than it was.
    #[error(
        "lake_rollback_detected: {table}: {message}. Rows that had been committed are missing. Bring the snapshot back (`rollback` in the tool that made it), or move the table away to write it again from the sources"
    )]
    RolledBack {
        /// Table.
        table: String,
        /// What was found.
        message: String,
    },
}

impl LakeError {
    /// Whether trying again may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    pub(crate) fn unreachable(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Unreachable { what: what.to_owned(), message: error.to_string() }
    }

    pub(crate) fn plan(error: PlanError) -> Self {
        match error {
            PlanError::Fenced { .. } => {
                Self::Fenced { table: "the plan of rounds".to_owned(), message: error.to_string() }
            }
            error => Self::unreachable("the plan of rounds", error),
        }
    }

    pub(crate) fn not_committed(table: &str, error: NotCommitted) -> Self {
        let table = table.to_owned();
        match error {
            NotCommitted::Fenced(message) => Self::Fenced { table, message },
            NotCommitted::RolledBack(message) => Self::RolledBack { table, message },
            NotCommitted::Failed(error) => Self::unreachable(&table, error),
        }
    }
}
