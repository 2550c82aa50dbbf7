//! What can go wrong with a benchmark.
//!
//! *In*: nothing. *Out*: [`Error`] with its [`Kind`], which decides the exit code. *Never*: a number.

use std::path::PathBuf;

/// A benchmark that has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option or an earlier report does not fit.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// Verb.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A process cannot be started or ended badly.
    #[error("{0}")]
    Process(String),
    /// Kafka or the server does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The answers are wrong: there is no number then.
    #[error("{program}: the answers differ from the oracle, so there is no number: {}", differences.join("; "))]
    Differs {
        /// Which program.
        program: String,
        /// The first differences.
        differences: Vec<String>,
    },
    /// Our contracts or the engine refuse to run.
    #[error("{0}")]
    Engine(String),
    /// The user wanted an end.
    #[error("interrupted")]
    Interrupted,
}

/// Kinds of errors, one per exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A wrong option.
    Usage,
    /// Something outside of us does not answer.
    Unreachable,
    /// The benchmark failed.
    Failed,
    /// Our own mistake.
    Bug,
    /// Interrupted.
    Interrupted,
}

impl Error {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Usage(_) => Kind::Usage,
            Self::Unreachable(_) => Kind::Unreachable,
            Self::File { .. } | Self::Process(_) | Self::Differs { .. } => Kind::Failed,
            Self::Engine(_) => Kind::Bug,
            Self::Interrupted => Kind::Interrupted,
        }
    }

    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
