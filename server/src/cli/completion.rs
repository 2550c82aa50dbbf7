//! `streamgauge completion SHELL`.
//!
//! *In*: the name of a shell. *Out*: its completion script. *Never*: a file written.

use clap::CommandFactory;
use clap_complete::Shell;

use super::exit::{Exit, Outcome};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: streamgauge completion bash > ~/.local/share/bash-completion/completions/streamgauge"
)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub fn run(args: Args) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "streamgauge", &mut script);
    crate::say!("{}", String::from_utf8_lossy(&script).trim_end());
    Ok(Exit::Ok)
}
