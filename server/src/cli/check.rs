//! `streamgauge check [PATH..]`: every mistake of every contract in one run.
//!
//! *In*: paths or packs. *Out*: every mistake with its place, or what the contracts hold. *Never*: a stop at
//! the first mistake.

use contracts::diagnostic::Diagnostic;
use serde_json::json;

use super::exit::{Exit, Outcome, diagnostics};
use super::files::{self, plural};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  streamgauge check\n  streamgauge check contracts/ pack:commerce\n  streamgauge check orders.yaml --json"
)]
pub struct Args {
    /// Folders, files or pack:NAME, checked together; default: what streamgauge.yaml names
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Checks; 78 when there are mistakes.
pub fn run(args: Args) -> Outcome {
    let sources = files::from_arguments(&args.paths)?;
    let loaded = contracts::load(&sources);
    let errors = loaded.diagnostics.iter().filter(|d| d.is_error()).count();
    let warnings = loaded.diagnostics.len() - errors;
    let exit = if errors == 0 { Exit::Ok } else { Exit::Config };
    let catalog = &loaded.catalog;
    if args.json {
        super::out::json(&json!({
            "ok": errors == 0,
            "files": sources.iter().map(|f| &f.path).collect::<Vec<_>>(),
            "events": catalog.events.len(),
            "entities": catalog.entities.len(),
            "tables": catalog.tables.len(),
            "metrics": catalog.metrics.len(),
            "hash": catalog.hash,
            "errors": errors,
            "warnings": warnings,
            "diagnostics": loaded.diagnostics,
        }));
        return Ok(exit);
    }
    let (bad, mild): (Vec<Diagnostic>, Vec<Diagnostic>) =
        loaded.diagnostics.into_iter().partition(Diagnostic::is_error);
    diagnostics(&mild, &sources);
    diagnostics(&bad, &sources);
    if errors > 0 {
        eprintln!("{}", files::summary(errors, sources.len()));
        return Ok(exit);
    }
    crate::say!(
        "{} checked: {}, {}, {}, {}; no mistakes{}",
        plural(sources.len(), "file"),
        plural(catalog.events.len(), "event"),
        entities(catalog.entities.len()),
        plural(catalog.tables.len(), "table"),
        plural(catalog.metrics.len(), "metric"),
        if warnings == 0 { String::new() } else { format!(", {}", plural(warnings, "warning")) },
    );
    if sources.is_empty() {
        eprintln!("warning: no contract files were found");
    }
    Ok(exit)
}

fn entities(count: usize) -> String {
    if count == 1 { "1 entity".into() } else { format!("{count} entities") }
}
