//! Throughput: W1 from a file, each program in a process of its own, side by side.
//!
//! *In*: [`Options`]. *Out*: a [`Report`] with ratios to the limit program inside each round. *Never*: a
//! number of a program whose answers differ from the oracle.

mod child;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

pub use child::{Outcome, child};
#[cfg(test)]
pub(crate) use report::tests::report as tests_report;
pub use report::{Report, Round, Run, Summary};

use crate::error::Error;
use crate::machine::Machine;
use crate::w1::{self, Data};

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// The hand-written program that the others are measured by.
    Limit,
    /// The engine, one worker.
    Ours,
    /// Only receive and decode of the engine.
    Decode,
    /// The engine with one contract per event type, so that every event's type is read.
    Types,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Limit, Self::Ours, Self::Decode, Self::Types];

    /// Its name, as options and reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Ours => "ours",
            Self::Decode => "decode",
            Self::Types => "types",
        }
    }
}

impl std::str::FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<&str> = Self::ALL.iter().map(|p| p.name()).collect();
        let found = Self::ALL.into_iter().find(|program| program.name() == text);
        found.ok_or_else(|| format!("`{text}` is not one of {}", names.join(", ")))
    }
}

/// How to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The binary that has `bench throughput --child PROGRAM --file F --events N`.
    pub binary: PathBuf,
    /// Events of W1.
    pub events: u64,
    /// Rounds; each runs every program once.
    pub rounds: usize,
    /// Programs beside `limit` and `ours`.
    pub with: Vec<Program>,
    /// Where the file goes; default: shared memory.
    pub folder: Option<PathBuf>,
    /// Seed of the order of programs in each round.
    pub seed: u64,
    /// Set by another thread to end early.
    pub stop: Arc<AtomicBool>,
}

impl Options {
    /// A million events, five rounds.
    pub fn new(binary: PathBuf) -> Self {
        Self {
            binary,
            events: 1_000_000,
            rounds: 5,
            with: Vec::new(),
            folder: None,
            seed: 1,
            stop: Arc::default(),
        }
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Measures.
///
/// # Errors
/// A program cannot be run, or its answers are wrong.
pub fn run(options: &Options) -> Result<Report, Error> {
    if options.rounds == 0 {
        return Err(Error::Usage("at least one round is needed".to_owned()));
    }
    let bar = bar(options.events)?;
    let data = w1::make(options.events, options.folder.as_deref(), |index| {
        bar.set_position(index);
        !options.stopped()
    })?;
    bar.finish_and_clear();
    let mut programs = vec![Program::Limit, Program::Ours];
    programs.extend(&options.with);
    programs.sort_unstable();
    programs.dedup();
    let rounds = measure(options, &data, &programs)?;
    Ok(Report::new(&data, rounds, &programs, Machine::here()))
}

fn measure(options: &Options, data: &Data, programs: &[Program]) -> Result<Vec<Round>, Error> {
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let bar = bar((options.rounds * programs.len()) as u64)?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        let mut order = programs.to_vec();
        rng.shuffle(&mut order);
        let mut runs = Vec::new();
        for program in order {
            bar.set_message(format!("round {round} of {}: {}", options.rounds, program.name()));
            if options.stopped() {
                return Err(Error::Interrupted);
            }
            runs.push(child::measure(options, data, program)?);
            bar.inc(1);
        }
        rounds.push(Round::new(runs));
    }
    bar.finish_and_clear();
    Ok(rounds)
}

/// A bar on standard error; invisible where that is no terminal.
fn bar(length: u64) -> Result<ProgressBar, Error> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} ETA {eta}  {msg}");
    let style = style.map_err(|error| Error::Engine(error.to_string()))?;
    let bar = ProgressBar::new(length).with_style(style);
    bar.enable_steady_tick(Duration::from_secs(1));
    Ok(bar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_names() {
        for program in Program::ALL {
            assert_eq!(program.name().parse(), Ok(program));
        }
        assert!("x".parse::<Program>().unwrap_err().contains("limit, ours, decode, types"));
    }
}
