//! Two reports of the same benchmark.
//!
//! *In*: an earlier report (JSON) and a new one. *Out*: a [`Comparison`]: what changed, and whether
//! something got worse than noise explains. *Never*: a comparison of different workloads.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::stats::Latency;
use crate::{freshness, throughput};

/// One number of both reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What it is.
    pub name: String,
    /// In the earlier report.
    pub before: f64,
    /// Now.
    pub now: f64,
    /// Now / before at which it counts as worse.
    pub bound: f64,
    /// More is better (else less is).
    pub more_is_better: bool,
    /// Beyond the bound.
    pub worse: bool,
}

/// All numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// One per number.
    pub changes: Vec<Change>,
    /// Something is worse.
    pub worse: bool,
    /// What makes the comparison doubtful.
    pub notes: Vec<String>,
}

/// Ratios to the limit move by this much between runs of the same program on a shared machine.
const RATIO: f64 = 0.85;
/// Below this many milliseconds a percentile is the machine, not the engine.
const NOISE_MS: f64 = 20.0;

/// Reads an earlier report.
///
/// # Errors
/// It cannot be read, or is another kind of report.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read(path).map_err(Error::file("read", path))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::Usage(format!("{}: not a report of this benchmark: {error}", path.display())))
}

/// Whether a run with `options` can be compared with `before`: asked before time is spent on it.
///
/// # Errors
/// The workloads differ.
pub fn throughput_fits(before: &throughput::Report, options: &throughput::Options) -> Result<(), Error> {
    same("events", before.events, options.events)
}

/// The same for freshness.
///
/// # Errors
/// The workloads differ.
pub fn freshness_fits(before: &freshness::Report, options: &freshness::Options) -> Result<(), Error> {
    same("rate", before.rate, options.rate)?;
    same("path", before.road, options.road)?;
    same("reader", before.reader, options.reader)
}

/// Compares throughputs: the ratios to the limit, not the machines.
///
/// # Errors
/// The workloads differ.
pub fn throughput(before: &throughput::Report, now: &throughput::Report) -> Result<Comparison, Error> {
    same("events", before.events, now.events)?;
    let mut changes = Vec::new();
    for summary in now.summary.iter().filter(|s| s.program != throughput::Program::Limit) {
        let Some(old) = before.of(summary.program) else { continue };
        let name = summary.program.name();
        changes.push(Change::more(format!("{name} x limit"), old.ratio.median, summary.ratio.median, RATIO));
        if let Some((old, new)) = old.peak_rss.zip(summary.peak_rss) {
            changes.push(Change::less(
                format!("{name} peak RSS MB"),
                old as f64 / 1e6,
                new as f64 / 1e6,
                1.5,
            ));
        }
    }
    Ok(Comparison::new(changes, &before.machine, &now.machine))
}

/// Compares latencies.
///
/// # Errors
/// The workloads differ.
pub fn freshness(before: &freshness::Report, now: &freshness::Report) -> Result<Comparison, Error> {
    same("rate", before.rate, now.rate)?;
    same("path", before.road, now.road)?;
    same("reader", before.reader, now.reader)?;
    let mut changes = vec![Change::less("misses".to_owned(), before.misses as f64, now.misses as f64, 1.0)];
    let of = |name: &str, bound: f64, get: fn(&Latency) -> f64| {
        Change::less(format!("visible {name} ms"), get(&before.visible), get(&now.visible), bound)
    };
    changes.push(of("p50", 1.5, |l| l.p50));
    let mut p99 = of("p99", 2.0, |l| l.p99);
    p99.worse &= p99.now > NOISE_MS;
    changes.push(p99);
    Ok(Comparison::new(changes, &before.machine, &now.machine))
}

fn same<T: PartialEq + fmt::Display>(what: &str, before: T, now: T) -> Result<(), Error> {
    if before == now {
        return Ok(());
    }
    Err(Error::Usage(format!("the reports cannot be compared: {what} was {before} and is {now}")))
}

impl Change {
    fn more(name: String, before: f64, now: f64, bound: f64) -> Self {
        Self { name, before, now, bound, more_is_better: true, worse: now < before * bound }
    }

    fn less(name: String, before: f64, now: f64, bound: f64) -> Self {
        Self { name, before, now, bound, more_is_better: false, worse: now > before * bound }
    }
}

impl Comparison {
    fn new(changes: Vec<Change>, before: &crate::Machine, now: &crate::Machine) -> Self {
        let mut notes = Vec::new();
        if (&before.cpu, before.cores) != (&now.cpu, now.cores) {
            notes.push(format!("other machine: {} x {}", before.cores, before.cpu));
        }
        if before.build != now.build {
            notes.push(format!("other build: {}", before.build));
        }
        Self { worse: changes.iter().any(|change| change.worse), changes, notes }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:<20} {:>10} {:>10} {:>8}", "compared", "before", "now", "change")?;
        for change in &self.changes {
            let percent = match change.before.abs() > f64::EPSILON {
                true => format!("{:+.0} %", (change.now / change.before - 1.0) * 100.0),
                false => "-".to_owned(),
            };
            let verdict = if change.worse { "  WORSE" } else { "" };
            writeln!(
                f,
                "  {:<20} {:>10.2} {:>10.2} {percent:>8}{verdict}",
                change.name, change.before, change.now
            )?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        write!(f, "  {}", if self.worse { "worse than before, beyond noise" } else { "no worse than before" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_is_worse_beyond_noise() {
        let report = |ours| throughput::tests_report(ours);
        let same = throughput(&report(0.5), &report(0.55)).unwrap();
        assert!(!same.worse, "{same}");
        let slow = throughput(&report(0.5), &report(0.7)).unwrap();
        assert!(slow.worse && slow.to_string().contains("WORSE"), "{slow}");
    }

    #[test]
    fn staler_is_worse_beyond_noise() {
        let report = freshness::tests_report;
        assert!(!freshness(&report(2.0), &report(2.5)).unwrap().worse);
        assert!(freshness(&report(2.0), &report(3.5)).unwrap().worse);
        let other = freshness::Report { rate: 20, ..report(2.0) };
        let error = freshness(&report(2.0), &other).unwrap_err();
        assert_eq!(error.to_string(), "the reports cannot be compared: rate was 10 and is 20");
    }

    #[test]
    fn reports_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, serde_json::to_string(&freshness::tests_report(2.0)).unwrap()).unwrap();
        let back: freshness::Report = read(&path).unwrap();
        assert_eq!(back.events, 10);
        assert!(matches!(read::<throughput::Report>(&path), Err(Error::Usage(_))));
        assert!(matches!(read::<throughput::Report>(Path::new("/no/such")), Err(Error::File { .. })));
    }
}
