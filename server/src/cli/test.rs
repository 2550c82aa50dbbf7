//! `streamgauge test [PATH]`: the contracts' own tests, through the real decoder and engine.
//!
//! *In*: contracts with `tests:`. *Out*: passed and failed tests, with what was expected and what came.
//! *Never*: a mock, the machine's clock (each test's `at` is now).

pub mod compare;
pub mod junit;
pub mod run;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use contracts::Catalog;
use contracts::catalog::Status;
use serde::Serialize;
use serde_json::json;

use super::exit::{Exit, Failure, Outcome, io};
use super::files::{self, plural};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  streamgauge test\n  streamgauge test contracts/ -k late\n  streamgauge test pack:commerce --junit report.xml"
)]
pub struct Args {
    /// Folders, files or pack:NAME; default: what streamgauge.yaml names
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Only tests whose metric or name contains this
    #[arg(short = 'k', value_name = "NAME")]
    only: Option<String>,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What became of one test.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Metric whose contract holds the test.
    pub metric: String,
    /// Name of the test.
    pub name: String,
    /// File of the contract.
    pub file: String,
    /// Line of the test.
    pub line: usize,
    /// All expectations held.
    pub passed: bool,
    /// What did not hold, line by line.
    pub differences: Vec<String>,
    /// Events that were refused or dropped, for the reader of a failure.
    pub notes: Vec<String>,
    /// Wall time.
    pub seconds: f64,
}

/// Runs the tests; 1 when one fails.
pub fn run(args: Args) -> Outcome {
    let sources = files::from_arguments(&args.paths)?;
    let (catalog, _) = files::catalog(&sources)?;
    let verdicts = run_all(&catalog, args.only.as_deref(), |verdict| {
        if !args.json {
            show(verdict);
        }
    })?;
    if let Some(path) = &args.junit {
        std::fs::write(path, junit::report(&verdicts))
            .map_err(|error| io(Exit::Failed, "write", path, &error))?;
    }
    let failed = verdicts.iter().filter(|v| !v.passed).count();
    if args.json {
        super::out::json(&json!({
            "passed": verdicts.len() - failed,
            "failed": failed,
            "tests": verdicts,
        }));
    } else if verdicts.is_empty() {
        crate::say!("no tests: add `tests:` to a metric");
    } else {
        crate::say!("{} passed, {failed} failed", plural(verdicts.len() - failed, "test"));
    }
    Ok(if failed == 0 { Exit::Ok } else { Exit::Failed })
}

/// Runs every test whose metric or name contains `only`; `done` sees each as it ends.
pub fn run_all(
    catalog: &Arc<Catalog>,
    only: Option<&str>,
    mut done: impl FnMut(&Verdict),
) -> Result<Vec<Verdict>, Failure> {
    let mut verdicts = Vec::new();
    for (index, metric) in catalog.metrics.iter().enumerate() {
        if matches!(metric.head.status, Status::Draft | Status::Retired) {
            continue;
        }
        for test in &metric.tests {
            let wanted = only.is_none_or(|text| metric.head.name.contains(text) || test.name.contains(text));
            if !wanted {
                continue;
            }
            let started = Instant::now();
            let result = run::one(catalog, index, test)?;
            let verdict = Verdict {
                metric: metric.head.name.clone(),
                name: test.name.clone(),
                file: metric.head.file.clone(),
                line: test.line,
                passed: result.differences.is_empty(),
                differences: result.differences,
                notes: result.notes,
                seconds: started.elapsed().as_secs_f64(),
            };
            done(&verdict);
            verdicts.push(verdict);
        }
    }
    Ok(verdicts)
}

fn show(verdict: &Verdict) {
    let Verdict { metric, name, file, line, .. } = verdict;
    if verdict.passed {
        crate::say!("ok    {metric}: {name}");
        return;
    }
    crate::say!("FAIL  {metric}: {name}  ({file}:{line})");
    for difference in &verdict.differences {
        crate::say!("        {difference}");
    }
    for note in &verdict.notes {
        crate::say!("      note: {note}");
    }
}
