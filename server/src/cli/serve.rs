//! `streamgauge serve`.
//!
//! *In*: a settings file. *Out*: a server until it is told to stop. *Never*: a start with a mistake in the
//! settings or contracts.

use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure, Outcome, diagnostics, io};
use super::files::plural;
use crate::settings::{self, Settings};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every setting can be overridden: STREAMGAUGE_SERVER__LISTEN=127.0.0.1:9000 streamgauge serve\n\
    SIGHUP reloads the contracts; so does a change of their files. SIGTERM drains and stops."
)]
pub struct Args {
    /// Settings file
    #[arg(short, long, env = "STREAMGAUGE_CONFIG", default_value = settings::DEFAULT_FILE, value_name = "FILE")]
    config: PathBuf,
}

/// Runs until told to stop.
pub fn run(args: Args) -> Outcome {
    let (settings, effective) = read(&args.config)?;
    crate::serve::run(settings, effective)
}

/// Reads settings; says all mistakes and fails with 78.
pub fn settings(path: &Path) -> Result<Settings, Failure> {
    read(path).map(|(settings, _)| settings)
}

fn read(path: &Path) -> Result<(Settings, serde_json::Value), Failure> {
    let loaded = settings::load(path).map_err(|error| {
        let failure = io(Exit::Config, "read the settings", path, &error);
        failure.help("make a starter folder with `streamgauge init`, or name a file with -c; `streamgauge demo` needs none")
    })?;
    for notice in &loaded.notices {
        eprintln!("notice: {notice}");
    }
    let Some(settings) = loaded.settings else {
        diagnostics(&loaded.mistakes, &[loaded.file]);
        return Err(Failure::new(
            Exit::Config,
            format!("{} in the settings", plural(loaded.mistakes.len(), "mistake")),
        ));
    };
    let effective = serde_json::to_value(&loaded.effective).expect("settings have text keys");
    Ok((settings, effective))
}
