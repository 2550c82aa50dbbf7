//! One program in a process of its own.
//!
//! *In*: a program and a file. *Out*: its answers and what it cost, told by the child (nanoseconds) and
//! checked against the kernel's books (10 ms). *Never*: a cost without the start of the process.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::report::Run;
use super::{Options, Program};
use crate::answers::Groups;
use crate::error::Error;
use crate::ours::{self, Marks, Types};
use crate::w1::Data;
use crate::{limit, process};

/// What a child says: one line of JSON on its standard output.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// CPU seconds of the whole process, up to having the answers.
    pub cpu: f64,
    /// CPU seconds before the first byte was read.
    pub start: f64,
    /// CPU seconds between all events being visible and having the answers.
    pub answer: f64,
    /// Largest resident memory, bytes.
    pub peak_rss: Option<u64>,
    /// The answers; `None` for programs that have none.
    pub groups: Option<Groups>,
}

#[derive(Default)]
struct Clock {
    ready: Option<Duration>,
    visible: Option<Duration>,
}

impl Marks for Clock {
    fn ready(&mut self) {
        self.ready = Some(process::cpu());
    }
    fn visible(&mut self) {
        self.visible = Some(process::cpu());
    }
}

/// Runs a program in this process: what `bench throughput --child` does.
///
/// # Errors
/// The program fails.
pub fn child(program: Program, file: &Path, events: u64) -> Result<Outcome, Error> {
    let mut clock = Clock::default();
    let groups = match program {
        Program::Limit => {
            clock.ready();
            Some(limit::run(file)?)
        }
        Program::Ours => Some(ours::run(file, events, Types::One, 1, &mut clock)?),
        Program::Types => Some(ours::run(file, events, Types::Three, 1, &mut clock)?),
        Program::Decode => {
            ours::decode(file, events, &mut clock)?;
            None
        }
    };
    let cpu = process::cpu();
    Ok(Outcome {
        cpu: cpu.as_secs_f64(),
        start: clock.ready.unwrap_or_default().as_secs_f64(),
        answer: clock.visible.map_or(0.0, |visible| (cpu - visible).as_secs_f64()),
        peak_rss: process::peak_rss(None),
        groups,
    })
}

/// Starts a child, waits, checks its answers.
pub(super) fn measure(options: &Options, data: &Data, program: Program) -> Result<Run, Error> {
    let before = process::busy();
    let started = Instant::now();
    let child = Command::new(&options.binary)
        .args(["bench", "throughput", "--child", program.name(), "--events"])
        .arg(data.events.to_string())
        .arg("--file")
        .arg(&data.path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::file("start", &options.binary))?;
    let (text, books) =
        finish(child, program).map_err(|error| if options.stopped() { Error::Interrupted } else { error })?;
    let wall = started.elapsed();
    let outcome: Outcome = serde_json::from_str(&text)
        .map_err(|error| Error::Process(format!("{}: not the output of a child: {error}", program.name())))?;
    if let Some(groups) = &outcome.groups {
        let differences = data.oracle.differences(groups);
        if !differences.is_empty() {
            return Err(Error::Differs { program: program.name().to_owned(), differences });
        }
    }
    check(program, outcome.cpu, books)?;
    let (foreign, stolen) = others(before, outcome.cpu, wall);
    Ok(Run {
        program,
        cpu_seconds: outcome.cpu,
        start_seconds: outcome.start,
        answer_seconds: outcome.answer,
        wall_seconds: wall.as_secs_f64(),
        peak_rss: outcome.peak_rss,
        foreign_cores: foreign,
        stolen_cores: stolen,
    })
}

/// Its output and the CPU time in the kernel's books.
fn finish(mut child: Child, program: Program) -> Result<(String, Option<Duration>), Error> {
    let lost = |error: std::io::Error| Error::Process(format!("{}: {error}", program.name()));
    let mut text = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut text).map_err(lost)?;
    }
    let books = final_cpu(child.id());
    let status = child.wait().map_err(lost)?;
    if !status.success() {
        return Err(Error::Process(format!(
            "`bench throughput --child {}` ended with {status}",
            program.name()
        )));
    }
    Ok((text, books))
}

/// The CPU time of a process that has ended and not been waited for; `None` where `/proc` is missing.
fn final_cpu(pid: u32) -> Option<Duration> {
    loop {
        let stat = process::stat(pid)?;
        if stat.zombie {
            return Some(stat.cpu);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What the child says must be what the kernel says; the kernel also counts the end of the process.
fn check(program: Program, told: f64, books: Option<Duration>) -> Result<(), Error> {
    let Some(books) = books.map(|books| books.as_secs_f64()) else { return Ok(()) };
    // Two counters of 10 ms, and the tearing down of the process.
    if (books - told).abs() <= 0.05 + 0.05 * told {
        return Ok(());
    }
    Err(Error::Engine(format!("{}: says {told:.3} CPU-s, the kernel {books:.3}", program.name())))
}

/// Cores that others used, and cores that the machine did not get, meanwhile.
fn others(before: Option<process::Busy>, cpu: f64, wall: Duration) -> (Option<f64>, Option<f64>) {
    let (Some(was), Some(is)) = (before, process::busy()) else { return (None, None) };
    let seconds = wall.as_secs_f64().max(0.001);
    let used = is.used.saturating_sub(was.used).as_secs_f64();
    let stolen = is.stolen.saturating_sub(was.stolen).as_secs_f64();
    (Some((used - cpu).max(0.0) / seconds), Some(stolen / seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_tells_what_it_cost() {
        let data = crate::w1::make(30_000, None, |_| true).unwrap();
        for program in Program::ALL {
            let outcome = child(program, &data.path, data.events).unwrap();
            let text = serde_json::to_string(&outcome).unwrap();
            let outcome: Outcome = serde_json::from_str(&text).unwrap();
            assert!(outcome.cpu > outcome.start && outcome.answer >= 0.0, "{outcome:?}");
            if let Some(groups) = outcome.groups {
                assert_eq!(data.oracle.differences(&groups), Vec::<String>::new(), "{program:?}");
            }
        }
    }

    #[test]
    fn the_kernels_books_count() {
        assert!(check(Program::Ours, 1.0, Some(Duration::from_millis(1020))).is_ok());
        assert!(check(Program::Ours, 1.0, Some(Duration::from_millis(1500))).is_err());
        assert!(check(Program::Ours, 1.0, None).is_ok());
    }
}
