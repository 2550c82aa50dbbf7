//! The command line: one file per command.
//!
//! *In*: arguments. *Out*: standard output, messages on standard error, an exit code.
//! *Never*: work of its own; commands call the crates, or the HTTP API of a running server.

pub mod client;
pub mod exit;
pub mod files;
pub mod interrupt;
pub mod out;
pub mod panic;

pub mod backfill;
pub mod bench;
pub mod check;
pub mod completion;
pub mod demo;
pub mod diff;
pub mod doctor;
pub mod ingest;
pub mod init;
pub mod query;
pub mod schema;
pub mod serve;
pub mod tap;
pub mod test;
pub mod top;
pub mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use exit::{Exit, Outcome};

/// Live metrics from event streams: contracts in YAML in, right numbers over HTTP out.
#[derive(Debug, Parser)]
#[command(name = "streamgauge", version, max_term_width = 110, propagate_version = false)]
#[command(
    after_help = "Exit codes: 0 ok, 1 a test or comparison failed, 2 usage, 69 a dependency is unreachable, \
                        70 our bug, 78 contracts or settings are wrong, 130 interrupted."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on embedded defaults, with a generator whose truth is known
    Demo(demo::Args),
    /// Run the server
    Serve(serve::Args),
    /// Check contracts; show every mistake with its place and a fix
    Check(check::Args),
    /// Run the contracts' own tests through the real engine
    Test(test::Args),
    /// Say what a change of contracts means
    Diff(diff::Args),
    /// Make a starter folder that runs
    Init(init::Args),
    /// Send files of events to a running server
    Ingest(ingest::Args),
    /// Let a running server read history: the lake, what Kafka and the log keep, files
    Backfill(backfill::Args),
    /// Ask a running server for a metric
    Query(query::Args),
    /// Say how a number comes about, and whether its events agree
    Why(why::Args),
    /// Watch all metrics of a running server
    Top(top::Args),
    /// Watch the admitted events of a running server
    Tap(tap::Args),
    /// Show the effective settings with their origin; check what they need
    Doctor(doctor::Args),
    /// Measure throughput or freshness
    Bench(bench::Args),
    /// Print the completion script of a shell
    Completion(completion::Args),
    /// Print the JSON Schema of a kind of document
    Schema(schema::Args),
}

/// Runs the command of the process's arguments.
pub fn main() -> ExitCode {
    panic::install();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors: clap knows which goes where.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
        }
    };
    if !matches!(cli.command, Command::Serve(_) | Command::Demo(_) | Command::Bench(_)) {
        interrupt::install();
    }
    match run(cli.command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report();
            failure.exit.into()
        }
    }
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(args),
        Command::Test(args) => test::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Init(args) => init::run(args),
        Command::Ingest(args) => ingest::run(args),
        Command::Backfill(args) => backfill::run(args),
        Command::Query(args) => query::run(args),
        Command::Why(args) => why::run(args),
        Command::Top(args) => top::run(args),
        Command::Tap(args) => tap::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Completion(args) => completion::run(args),
        Command::Schema(args) => schema::run(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
