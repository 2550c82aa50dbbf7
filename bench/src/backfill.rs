//! Backfill: how fast history comes back, and what events that arrive meanwhile notice of it.
//!
//! *In*: events that only the lake has, a steady rate of pushes, a bound. *Out*: rows per second and CPU-second, latencies
//! before and during each backfill, and whether the bound held. *Never*: a report when an answer in between was wrong:
//! history that was not whole, a number that went back, a push of one's own that was not seen.
//!
//! The history is pushed to a source that the settings name no more afterwards, so that all of it comes from the lake.
//! `load` pushes and watches.

mod load;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::load::{Expected, Load};
use crate::answers::Cell;
use crate::freshness::serve::{METRIC, Server, agent, push, settings};
use crate::freshness::{self, Road, watch};
use crate::stats::Latency;
use crate::w1::W2;
use crate::{Error, Machine, process};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the lake may take to have everything, and a backfill to end.
const LONG: Duration = Duration::from_secs(3600);
/// Between two looks at a backfill.
const LOOK: Duration = Duration::from_millis(100);
/// Events of a request of history.
const BATCH: u64 = 1_000;
/// Connections that push history.
const CONNECTIONS: u64 = 4;
/// What may pass a bound at once: its burst (0.1 s), and chunks that are on their way (4,096 rows each).
const BURST: f64 = 0.1;
const CHUNKS: f64 = 3.0 * 4_096.0;

/// How to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The binary that has `serve` and `backfill`.
    pub binary: PathBuf,
    /// Events that only the lake has.
    pub events: u64,
    /// Events of each file.
    pub file_events: u64,
    /// Pushes per second meanwhile, each with one event.
    pub rate: u32,
    /// Rows per second of the bounded backfill from the lake, and events per second of the bounded one from a file.
    pub bound: u64,
    /// How long latencies are taken before each backfill.
    pub seconds: u32,
    /// Where data goes; `None`: the system's folder for temporary files.
    pub folder: Option<PathBuf>,
    /// Set by another thread to end early.
    pub stop: Arc<AtomicBool>,
}

/// Latencies of the pushes that are due in a span of time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Noticed {
    /// Due until acknowledged, milliseconds.
    pub acknowledged: Latency,
    /// Due until an answer counts it, milliseconds.
    pub visible: Latency,
}

/// One backfill.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// `lake` or `file`.
    pub from: String,
    /// Rows per second that it was bound to; 0: not at all.
    pub bound: u64,
    /// Rows read, those that arrived meanwhile included; of a file: events sent.
    pub rows: u64,
    /// From the wish to its end: until the new engine answers, or everything sent is in the numbers.
    pub seconds: f64,
    /// `rows` by `seconds`.
    pub per_second: f64,
    /// The most rows read within any second; 0 for files, whose sender does not tell.
    pub most_in_a_second: f64,
    /// CPU time of the server meanwhile, seconds.
    pub cpu_seconds: f64,
    /// In the seconds before it.
    pub before: Noticed,
    /// While it ran.
    pub during: Noticed,
    /// p99 of due to acknowledged during by before, and the same of due to visible.
    pub ratio: (f64, f64),
    /// Answers that were looked at meanwhile, all of them right.
    pub answers: u64,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// Events that only the lake has.
    pub events: u64,
    /// Pushes per second.
    pub rate: u32,
    /// Largest resident memory of the server: two engines at a time, bytes.
    pub memory: Option<u64>,
    /// The backfills in their order.
    pub runs: Vec<Run>,
}

type Truth = BTreeMap<&'static str, Cell>;

/// Measures.
///
/// # Errors
/// The server cannot be started or does not end; a backfill fails; an answer is wrong; a bound does not hold.
pub fn run(options: &Options) -> Result<Report, Error> {
    if !(1..=10_000).contains(&options.rate)
        || options.events == 0
        || options.seconds == 0
        || options.bound == 0
    {
        return Err(Error::Usage(
            "a rate from 1 to 10000, a bound above 0, at least one event and one second".to_owned(),
        ));
    }
    let place = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new().prefix("streamgauge-backfill-").tempdir_in(&place);
    let folder = folder.map_err(Error::file("make a folder in", &place))?;
    let bench = Bench {
        options,
        folder: folder.path(),
        as_pushed: freshness::Options {
            road: Road::Push,
            stop: Arc::clone(&options.stop),
            ..freshness::Options::new(options.binary.clone())
        },
    };
    let mut truth = Truth::new();
    let server = bench.start("history", 0)?;
    bench.history(&server, &mut truth)?;
    server.end()?;
    let (mut runs, mut memory) = (Vec::new(), None);
    for bound in [0, options.bound] {
        let server = bench.start("live", bound)?;
        watch::wait_for(&server, truth.values().map(Cell::events).sum(), &bench.as_pushed)?;
        runs.push(bench.read_lake(&server, bound, &mut truth)?);
        if bound > 0 {
            for bound in [0, bound] {
                runs.push(bench.send_file(&server, bound, &mut truth)?);
            }
        }
        memory = memory.max(process::peak_rss(Some(server.pid())));
        server.end()?;
    }
    let Options { events, rate, .. } = *options;
    Ok(Report { machine: Machine::here(), events, rate, memory, runs })
}

struct Bench<'a> {
    options: &'a Options,
    folder: &'a Path,
    as_pushed: freshness::Options,
}

impl Bench<'_> {
    /// A server whose only source has this name.
    fn start(&self, source: &str, bound: u64) -> Result<Server, Error> {
        let mut settings = settings(&self.as_pushed, None, self.folder);
        settings["sources"][0]["name"] = json!(source);
        settings["limits"] = json!({ "backfill": bound });
        settings["lake"] = json!({});
        Server::start_as(&self.as_pushed, &settings, self.folder)
    }

    fn stopped(&self) -> Result<(), Error> {
        if self.options.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Pushes the history, and waits until the lake has it.
    fn history(&self, server: &Server, truth: &mut Truth) -> Result<(), Error> {
        let mut bodies = Vec::new();
        for first in (0..self.options.events).step_by(BATCH as usize) {
            bodies.push(BATCH.min(self.options.events - first));
        }
        let url = format!("{}/v1/events?wait=0", server.url());
        let (mut events, now) = (W2::new(1), load::now());
        for some in bodies.chunks(CONNECTIONS as usize * 8) {
            self.stopped()?;
            let bodies: Vec<Vec<u8>> = some.iter().map(|n| body(&mut events, *n, now, truth)).collect();
            std::thread::scope(|scope| {
                let send = |first: usize| {
                    let (bodies, url, agent) = (&bodies, &url, agent(PATIENCE));
                    let mine = move || bodies.iter().skip(first).step_by(CONNECTIONS as usize);
                    scope.spawn(move || mine().try_for_each(|body| push(&agent, url, body)))
                };
                let threads: Vec<_> = (0..CONNECTIONS as usize).map(send).collect();
                threads.into_iter().try_for_each(joined)
            })?;
        }
        watch::wait_for(server, self.options.events, &self.as_pushed)?;
        let began = Instant::now();
        loop {
            self.stopped()?;
            let lake = get(server, "/readyz?verbose")?["lake"].clone();
            if lake["rows"].as_u64() >= Some(self.options.events) && lake["waiting_rows"] == 0 {
                return Ok(());
            }
            if began.elapsed() > LONG {
                return Err(Error::Unreachable(format!("the lake did not take everything: {lake}")));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn read_lake(&self, server: &Server, bound: u64, truth: &mut Truth) -> Result<Run, Error> {
        let expected = Expected::new(truth, 0);
        self.beside(server, ("lake", bound), expected, truth, || {
            let url = format!("{}/v1/backfill", server.url());
            let lost = |error: ureq::Error| Error::Unreachable(format!("{url}: {error}"));
            let began = Instant::now();
            agent(PATIENCE).post(&url).send_json(json!({ "from": "lake" })).map_err(lost)?;
            let mut read = vec![(began, 0)];
            loop {
                self.stopped()?;
                let told = get(server, "/v1/backfill")?;
                let catching = told["catching_up"].as_array().map(Vec::as_slice).unwrap_or_default();
                let rows = catching.iter().filter_map(|source| source["read"].as_u64()).sum::<u64>();
                read.extend((!catching.is_empty()).then(|| (Instant::now(), rows)));
                match told["backfill"]["state"].as_str() {
                    Some("waiting" | "running") => std::thread::sleep(LOOK),
                    Some("done") => break,
                    _ => return Err(Error::Process(format!("the backfill: {}", told["backfill"]))),
                }
                if began.elapsed() > LONG {
                    return Err(Error::Unreachable(format!("the backfill does not end: {told}")));
                }
            }
            let rows = read.iter().map(|(_, rows)| *rows).max().unwrap_or(0);
            self.held(bound, &read)?;
            // The last look may have missed the end.
            Ok((rows.max(self.options.events), most_in_a_second(&read)))
        })
    }

    /// An error if more rows were read in any span than the bound lets through.
    fn held(&self, bound: u64, read: &[(Instant, u64)]) -> Result<(), Error> {
        if bound == 0 {
            return Ok(());
        }
        // What arrives meanwhile is read on top; it is measured, so it may be told a little late.
        let rate = bound as f64 + 2.0 * f64::from(self.options.rate);
        for (at, (from, before)) in read.iter().enumerate() {
            for (to, after) in &read[at..] {
                let seconds = to.duration_since(*from).as_secs_f64() + BURST + LOOK.as_secs_f64();
                let (most, found) = (rate * seconds + CHUNKS, (after - before.min(after)) as f64);
                if found > most {
                    let words = format!("{found} rows within {seconds:.2} s at a bound of {bound} rows/s");
                    return Err(Error::Differs { program: "backfill".to_owned(), differences: vec![words] });
                }
            }
        }
        Ok(())
    }

    fn send_file(&self, server: &Server, bound: u64, truth: &mut Truth) -> Result<Run, Error> {
        let path = self.folder.join(format!("history-{bound}.ndjson"));
        let mut events = W2::new(10 + bound);
        let expected = Expected::new(truth, self.options.file_events);
        let mut text = body(&mut events, self.options.file_events, load::now(), truth);
        text.push(b'\n');
        std::fs::write(&path, text).map_err(Error::file("write", &path))?;
        self.beside(server, ("file", bound), expected, truth, || {
            let mut command = Command::new(&self.options.binary);
            command.arg("backfill").arg(&path).args(["--rate", &bound.to_string()]);
            command.args(["--json", "--url", server.url()]).stdin(Stdio::null());
            let output = command.output().map_err(Error::file("start", &self.options.binary))?;
            let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if !output.status.success() || told["accepted"].as_u64() != Some(self.options.file_events) {
                let words = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(Error::Process(format!("`backfill FILE`: {} {told} {words}", output.status)));
            }
            Ok((self.options.file_events, 0.0))
        })
    }

    /// One backfill beside live traffic, and what that noticed.
    fn beside(
        &self,
        server: &Server,
        (from, bound): (&str, u64),
        expected: Expected,
        truth: &mut Truth,
        backfill: impl FnOnce() -> Result<(u64, f64), Error>,
    ) -> Result<Run, Error> {
        let load = Load::new(self.options.rate, server.url(), METRIC, expected);
        let cpu = || process::stat(server.pid()).map_or(Duration::ZERO, |stat| stat.cpu);
        let (told, (began, ended), used) = std::thread::scope(|scope| {
            let threads = load.start(scope, &self.options.stop);
            // A moment to begin with is not scored.
            std::thread::sleep(load::WARM_UP + Duration::from_secs(u64::from(self.options.seconds)));
            let (began, before) = (Instant::now(), cpu());
            let told = backfill();
            let (ended, after) = (Instant::now(), cpu());
            // What is due at the end must have the time to show.
            load.end();
            for thread in threads {
                joined(thread)?;
            }
            told.map(|told| (told, (began, ended), after.saturating_sub(before)))
        })?;
        let (rows, most_in_a_second) = told;
        let (live, own) = load.sent(truth);
        watch::wait_for(server, truth.values().map(Cell::events).sum(), &self.as_pushed)?;
        server.check(truth)?;
        let noticed = |from, until| -> Noticed { load.noticed(from, until) };
        let (before, during) = (noticed(None, began), noticed(Some(began), ended));
        let seconds = (ended - began).as_secs_f64();
        let answers = load.answers();
        if answers == 0 || live == 0 || own == 0 {
            return Err(Error::Engine("nothing was watched during the backfill".to_owned()));
        }
        let ratio = |of: fn(&Noticed) -> f64| of(&during) / of(&before);
        Ok(Run {
            from: from.to_owned(),
            bound,
            rows,
            seconds,
            per_second: rows as f64 / seconds,
            most_in_a_second,
            cpu_seconds: used.as_secs_f64(),
            ratio: (ratio(|n| n.acknowledged.p99), ratio(|n| n.visible.p99)),
            before,
            during,
            answers,
        })
    }
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().map_err(|_| Error::Engine("a thread of the benchmark panicked".to_owned()))?
}

/// So many events as lines, counted.
fn body(events: &mut W2, count: u64, now: i64, truth: &mut Truth) -> Vec<u8> {
    let mut body = Vec::with_capacity(count as usize * 280);
    for number in 0..count {
        let event = events.at(now);
        truth.entry(event.region).or_default().add(event.cents, event.good_status());
        if number > 0 {
            body.push(b'\n');
        }
        event.write(Some(number), &mut body);
    }
    body
}

fn get(server: &Server, path: &str) -> Result<Value, Error> {
    let url = format!("{}{path}", server.url());
    let lost = |error: ureq::Error| Error::Unreachable(format!("{url}: {error}"));
    agent(PATIENCE).get(&url).call().map_err(lost)?.body_mut().read_json().map_err(lost)
}

/// The most rows within any second, by looks at how many were read.
fn most_in_a_second(read: &[(Instant, u64)]) -> f64 {
    let second = Duration::from_secs(1);
    let within = |at: usize| {
        let (from, before) = read[at];
        let last = read[at..].iter().take_while(|(to, _)| to.duration_since(from) <= second).last();
        last.map_or(0, |(_, after)| after.saturating_sub(before)) as f64
    };
    (0..read.len()).map(within).fold(0.0, f64::max)
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { events, rate, memory, runs, machine } = self;
        writeln!(f, "backfill: {events} events in the lake, {rate} pushes/s beside it")?;
        for run in runs {
            let bound =
                if run.bound == 0 { "no bound".to_owned() } else { format!("at most {}/s", run.bound) };
            writeln!(
                f,
                "  from {}, {bound}: {} rows in {:.1} s, {:.0} rows/s, {:.0} rows per CPU-second, most in a second {:.0}",
                run.from,
                run.rows,
                run.seconds,
                run.per_second,
                run.rows as f64 / run.cpu_seconds,
                run.most_in_a_second,
            )?;
            let line = |l: &Latency| format!("p50 {:.1} ms, p99 {:.1} ms, max {:.0} ms", l.p50, l.p99, l.max);
            let (before, during) = (&run.before, &run.during);
            writeln!(f, "    due to acknowledged  before: {}", line(&before.acknowledged))?;
            writeln!(
                f,
                "                         during: {}, p99 {:.1} x",
                line(&during.acknowledged),
                run.ratio.0
            )?;
            writeln!(f, "    due to visible       before: {}", line(&before.visible))?;
            writeln!(
                f,
                "                         during: {}, p99 {:.1} x",
                line(&during.visible),
                run.ratio.1
            )?;
            writeln!(f, "    {} answers looked at, all right", run.answers)?;
        }
        if let Some(memory) = memory {
            writeln!(f, "  most memory of the server {} MiB", memory >> 20)?;
        }
        write!(f, "  {}", machine.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_second() {
        let start = Instant::now();
        let at = |ms, rows| (start + Duration::from_millis(ms), rows);
        let read = [at(0, 0), at(500, 10), at(900, 400), at(1_400, 900), at(2_000, 950)];
        assert!((most_in_a_second(&read) - 890.0).abs() < 0.5, "{}", most_in_a_second(&read));
        assert!(most_in_a_second(&[]).abs() < 0.5);
    }
}
