//! The result of a throughput benchmark.
//!
//! *In*: the runs. *Out*: JSON, a table, a plot. *Never*: a ratio of runs of different rounds.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Program;
use crate::machine::Machine;
use crate::plot::bar;
use crate::stats::Spread;
use crate::w1::Data;

/// One run of one program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// Which.
    pub program: Program,
    /// CPU seconds, user and system, of the whole process with its start.
    pub cpu_seconds: f64,
    /// Of these: before the first byte was read.
    pub start_seconds: f64,
    /// Of these: reading the answers back.
    pub answer_seconds: f64,
    /// Wall clock, start and end of the process included.
    pub wall_seconds: f64,
    /// Largest resident memory, bytes.
    pub peak_rss: Option<u64>,
    /// Cores that other processes used meanwhile.
    pub foreign_cores: Option<f64>,
    /// Cores that the host took away meanwhile.
    pub stolen_cores: Option<f64>,
}

/// One round: every program once, in a random order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Round {
    /// In the order they ran.
    pub runs: Vec<Run>,
    /// CPU seconds of the limit program / CPU seconds of a program: above 1 is faster than the limit.
    pub ratios: Vec<(Program, f64)>,
    /// Left out of the summary: the limit program was more than 10 % off its median.
    pub noisy: bool,
}

impl Round {
    pub(super) fn new(runs: Vec<Run>) -> Self {
        let limit = runs.iter().find(|run| run.program == Program::Limit).map_or(0.0, |run| run.cpu_seconds);
        let mut ratios: Vec<_> = runs.iter().map(|run| (run.program, limit / run.cpu_seconds)).collect();
        ratios.sort_unstable_by_key(|(program, _)| *program);
        Self { runs, ratios, noisy: false }
    }

    fn run(&self, program: Program) -> Option<&Run> {
        self.runs.iter().find(|run| run.program == program)
    }

    fn ratio(&self, program: Program) -> Option<f64> {
        self.ratios.iter().find(|(other, _)| *other == program).map(|(_, ratio)| *ratio)
    }
}

/// One program over the rounds that count.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// Which.
    pub program: Program,
    /// Ratio to the limit, of each round.
    pub ratio: Spread,
    /// CPU seconds.
    pub cpu_seconds: Spread,
    /// Events per CPU second, at the median.
    pub events_per_cpu_second: f64,
    /// The same without start and answers: what more events would cost.
    pub marginal_events_per_cpu_second: f64,
    /// Wall seconds, the best seen: it depends on who else runs.
    pub best_wall_seconds: f64,
    /// Largest resident memory of all runs, bytes.
    pub peak_rss: Option<u64>,
}

/// The result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// `throughput`.
    pub kind: String,
    /// Events of W1.
    pub events: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// The file was in memory, not on a disk.
    pub in_memory: bool,
    /// Groups of the answer; every program gave all of them right.
    pub groups: usize,
    /// Per program, `limit` first.
    pub summary: Vec<Summary>,
    /// All rounds.
    pub rounds: Vec<Round>,
    /// Where this was.
    pub machine: Machine,
}

/// A round is noisy when its limit program is this far off the median.
const NOISY: f64 = 0.10;

impl Report {
    pub(super) fn new(data: &Data, mut rounds: Vec<Round>, programs: &[Program], machine: Machine) -> Self {
        mark_noisy(&mut rounds);
        let summary = programs.iter().map(|program| summary(*program, &rounds, data.events)).collect();
        Self {
            kind: "throughput".to_owned(),
            events: data.events,
            bytes: data.bytes,
            in_memory: data.in_memory,
            groups: data.oracle.0.len(),
            summary,
            rounds,
            machine,
        }
    }

    /// The summary of a program.
    pub fn of(&self, program: Program) -> Option<&Summary> {
        self.summary.iter().find(|summary| summary.program == program)
    }
}

/// Marks rounds that the limit program shows to be disturbed, unless that were half of them.
fn mark_noisy(rounds: &mut [Round]) {
    let limits: Vec<f64> = rounds.iter().filter_map(|r| Some(r.run(Program::Limit)?.cpu_seconds)).collect();
    let median = Spread::of(limits).median;
    let noisy = |round: &Round| {
        round.run(Program::Limit).is_some_and(|limit| (limit.cpu_seconds / median - 1.0).abs() > NOISY)
    };
    if rounds.iter().filter(|round| noisy(round)).count() * 2 < rounds.len() {
        for round in rounds {
            round.noisy = noisy(round);
        }
    }
}

fn summary(program: Program, rounds: &[Round], events: u64) -> Summary {
    let counting = || rounds.iter().filter(|round| !round.noisy);
    let runs = || counting().filter_map(|round| round.run(program));
    let cpu_seconds = Spread::of(runs().map(|run| run.cpu_seconds));
    let work = Spread::of(runs().map(|run| run.cpu_seconds - run.start_seconds - run.answer_seconds));
    Summary {
        program,
        ratio: Spread::of(counting().filter_map(|round| round.ratio(program))),
        cpu_seconds,
        events_per_cpu_second: events as f64 / cpu_seconds.median,
        marginal_events_per_cpu_second: events as f64 / work.median,
        best_wall_seconds: Spread::of(runs().map(|run| run.wall_seconds)).min,
        peak_rss: rounds.iter().filter_map(|round| round.run(program)?.peak_rss).max(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.in_memory { "in memory" } else { "ON DISK: the disk is measured, too" };
        writeln!(
            f,
            "W1: {} events, {:.1} MB {place}; {} groups, all equal to the oracle\n",
            self.events,
            self.bytes as f64 / 1e6,
            self.groups
        )?;
        writeln!(
            f,
            "  program  x limit (min-max)       CPU-s (min-max)      M ev/CPU-s  marginal  peak RSS"
        )?;
        for s in &self.summary {
            let rss =
                s.peak_rss.map_or_else(|| "?".to_owned(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6));
            writeln!(
                f,
                "  {:<8} {:>5.2} ({:.2}-{:.2})  {:>9.3} ({:.3}-{:.3})  {:>10.2} {:>9.2}  {rss:>8}",
                s.program.name(),
                s.ratio.median,
                s.ratio.min,
                s.ratio.max,
                s.cpu_seconds.median,
                s.cpu_seconds.min,
                s.cpu_seconds.max,
                s.events_per_cpu_second / 1e6,
                s.marginal_events_per_cpu_second / 1e6,
            )?;
        }
        let most = self.summary.iter().map(|s| s.events_per_cpu_second).fold(0.0, f64::max);
        writeln!(f, "\n  events per CPU-second")?;
        for s in &self.summary {
            writeln!(f, "  {:<8} {}", s.program.name(), bar(s.events_per_cpu_second, most))?;
        }
        let noisy = self.rounds.iter().filter(|round| round.noisy).count();
        let foreign =
            Spread::of(self.rounds.iter().flat_map(|r| r.runs.iter().filter_map(|run| run.foreign_cores)));
        writeln!(
            f,
            "\n  {} rounds, {noisy} left out as noisy; others used {:.1} cores ({:.1}-{:.1}) meanwhile",
            self.rounds.len(),
            foreign.median,
            foreign.min,
            foreign.max
        )?;
        write!(f, "  {}", self.machine.line())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn run(program: Program, cpu_seconds: f64) -> Run {
        Run {
            program,
            cpu_seconds,
            start_seconds: 0.1,
            answer_seconds: 0.0,
            wall_seconds: 1.0,
            peak_rss: Some(20_000_000),
            foreign_cores: Some(0.5),
            stolen_cores: Some(0.0),
        }
    }

    pub(crate) fn report(ours: f64) -> Report {
        let data = crate::w1::make(10, None, |_| true).unwrap();
        let round =
            |limit: f64, ours: f64| Round::new(vec![run(Program::Ours, ours), run(Program::Limit, limit)]);
        let rounds = vec![round(1.0, ours), round(1.02, ours), round(2.0, ours)];
        Report::new(&data, rounds, &[Program::Limit, Program::Ours], Machine::here())
    }

    #[test]
    fn a_disturbed_round_is_left_out() {
        let report = report(0.5);
        assert_eq!(report.rounds.iter().map(|round| round.noisy).collect::<Vec<_>>(), [false, false, true]);
        let ours = report.of(Program::Ours).unwrap();
        assert!((ours.ratio.min - 2.0).abs() < 1e-9 && (ours.ratio.max - 2.04).abs() < 1e-9, "{ours:?}");
        assert!((ours.events_per_cpu_second - 20.0).abs() < 1e-9);
        assert!((ours.marginal_events_per_cpu_second - 25.0).abs() < 1e-9);
        let text = report.to_string();
        assert!(text.contains("3 rounds, 1 left out as noisy"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("  ours      2.02 (2.00-2.04)")), "{text}");
    }
}
