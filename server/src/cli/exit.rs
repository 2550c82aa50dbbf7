//! How a command ends: the exit code and what is said on standard error.
//!
//! *In*: errors of the commands. *Out*: [`Exit`] codes as the documentation promises them.
//! *Never*: a code that is not in the list.

use std::io::IsTerminal;
use std::process::ExitCode;

use contracts::diagnostic::Diagnostic;
use contracts::text::SourceFile;

/// The exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Ok = 0,
    /// A test or a comparison failed, or the server refused the request.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A dependency (the server, Kafka) is unreachable.
    Unreachable = 69,
    /// Our bug.
    Bug = 70,
    /// Contracts or settings are wrong.
    Config = 78,
    /// Interrupted from the keyboard.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// A command that could not do its work.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// What happened; empty when everything has been said already.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Failure {
    /// A failure with a message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), help: None }
    }

    /// Everything has been said already.
    pub fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// What to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says it on standard error: fancy on a terminal, plain in a pipe.
    pub fn report(&self) {
        if self.message.is_empty() {
            return;
        }
        if std::io::stderr().is_terminal() {
            let mut diagnostic = miette::MietteDiagnostic::new(&self.message);
            diagnostic.help.clone_from(&self.help);
            eprintln!("{:?}", miette::Report::new(diagnostic));
            return;
        }
        eprintln!("error: {}", self.message);
        if let Some(help) = &self.help {
            eprintln!("  help: {help}");
        }
    }
}

/// What a command returns.
pub type Outcome = Result<Exit, Failure>;

/// An operating system error about a path: `cannot VERB PATH: ...`.
pub fn io(exit: Exit, what: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::new(exit, format!("cannot {what} {}: {error}", path.display()))
}

/// Says diagnostics on standard error: with the lines of their file on a terminal, plain in a pipe.
/// `files` are the texts the places are in.
pub fn diagnostics(diagnostics: &[Diagnostic], files: &[SourceFile]) {
    let fancy = std::io::stderr().is_terminal();
    for diagnostic in diagnostics {
        match files.iter().find(|f| f.path == diagnostic.file).filter(|_| fancy) {
            Some(file) => eprintln!("{:?}", diagnostic.report(file)),
            None => eprintln!("{diagnostic}"),
        }
    }
}
