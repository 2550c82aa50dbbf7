//! `streamgauge bench throughput|freshness|acks|backfill|joins|ships|sequences|recovery`: measurements, side by side with what they are measured by.
//!
//! *In*: how long, how fast, an earlier report. *Out*: a table and a plot, or JSON; 1 when something got
//! worse. *Never*: a measurement of its own (the crate `bench` does that).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bench::acks;
use bench::backfill;
use bench::compare::{self, Comparison};
use bench::freshness::{self, Reader, Road};
use bench::joins;
use bench::recovery;
use bench::sequences;
use bench::ships;
use bench::throughput::{self, Program};
use serde::Serialize;
use serde_json::{Value, json};

use super::exit::{Exit, Failure, Outcome, io};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Events per CPU-second on workload W1, beside a hand-written program
    Throughput(Throughput),
    /// From an event being due to an HTTP reader seeing it counted
    Freshness(Freshness),
    /// From a push being due to its durable acknowledgement, beside one synced write; the end and the next start
    Acks(Acks),
    /// Rows per second of backfills from the lake and from files, and latencies of what arrives meanwhile
    Backfill(Backfill),
    /// Rows per CPU-second of a join, beside differential-dataflow
    Joins(Joins),
    /// Commits and deployments per CPU-second of shipped sets, beside a recomputation
    Ships(Ships),
    /// Rows per CPU-second of sequences, beside a hash map of last states
    Sequences(Sequences),
    /// Seconds of a checkpoint and of a restart, and ticks beside a checkpoint
    Recovery(Recovery),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  streamgauge bench acks\n  streamgauge bench acks --rate 5000 --connections 64"
)]
struct Acks {
    /// Requests per second, each with one event
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    rate: u32,
    /// How long, in seconds
    #[arg(long, default_value_t = 20, value_name = "N")]
    seconds: u32,
    /// Connections, each with one request at a time
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Where the server's data goes; default: the folder for temporary files
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    report: Report,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Four backfills, one after the other: from the lake without and with a bound, from a file the same.\n\n\
    Examples:\n  streamgauge bench backfill --out target/bench/backfill.json\n  streamgauge bench backfill --events 100000 --bound 20000"
)]
struct Backfill {
    /// Events that only the lake has
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    events: u64,
    /// Events of each file; default: a fifth of the events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    file_events: Option<u64>,
    /// Pushes per second meanwhile, each with one event
    #[arg(long, default_value_t = 100, value_name = "N")]
    rate: u32,
    /// Rows per second of the bounded ones
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    bound: u64,
    /// Seconds before each backfill, for comparison
    #[arg(long, default_value_t = 10, value_name = "N")]
    seconds: u32,
    /// Where the server's data goes; default: the folder for temporary files
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    report: Report,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  streamgauge bench recovery\n  streamgauge bench recovery --events 1000000 --keys 100000"
)]
struct Recovery {
    /// Events, each with an id of its own
    #[arg(long, default_value_t = 10_000_000, value_name = "N")]
    events: u64,
    /// Keys of the metric
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    keys: u64,
    /// Restarts
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,
    /// Dataflow threads
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
    #[command(flatten)]
    report: Report,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  streamgauge bench ships --commits 20000 --rounds 5")]
struct Ships {
    /// Commits of the history
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    commits: u32,
    /// Rounds; each runs both programs once
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,
    /// Seed of the history
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    report: Report,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  streamgauge bench sequences --rows 2000000 --rounds 5")]
struct Sequences {
    /// Moves of items
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    rows: usize,
    /// Rounds; each runs both programs once
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,
    /// Seed of the moves
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    report: Report,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  streamgauge bench joins --rows 2000000 --rounds 5")]
struct Joins {
    /// Rows of both sides
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    rows: usize,
    /// Rounds; each runs both programs once
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,
    /// Seed of the rows
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    report: Report,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  streamgauge bench throughput\n  streamgauge bench throughput --events 5000000 --rounds 7 --with decode,types --out now.json\n  streamgauge bench throughput --compare before.json"
)]
struct Throughput {
    /// Events of W1 (200000 and 5000000 have published checksums)
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    events: u64,
    /// Rounds; each runs every program once, in a random order
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,
    /// Further programs: decode, types
    #[arg(long, value_delimiter = ',', value_name = "PROGRAM")]
    with: Vec<Program>,
    /// Where the file of events goes; default: shared memory
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Seed of the order of programs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    result: Shown,
    /// Run this program in this process and tell what it cost
    #[arg(long, hide = true, requires = "file")]
    child: Option<Program>,
    /// The file for `--child`
    #[arg(long, hide = true)]
    file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --brokers, scripts/kafka.sh starts one. The server is this program, started on a temporary folder.\n\n\
    Examples:\n  streamgauge bench freshness\n  streamgauge bench freshness --rate 100000 --seconds 12\n  streamgauge bench freshness --path push --reader sse"
)]
struct Freshness {
    /// How events reach the server: kafka or push
    #[arg(long, default_value = "kafka", value_name = "PATH")]
    path: Road,
    /// How the metric is read: poll or sse
    #[arg(long, default_value = "poll", value_name = "READER")]
    reader: Reader,
    /// Events per second
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    rate: u32,
    /// How long, in seconds
    #[arg(long, default_value_t = 20, value_name = "N")]
    seconds: u32,
    /// Seconds before that at a tenth of the rate, not scored
    #[arg(long, default_value_t = 10, value_name = "N")]
    warm_up: u32,
    /// Dataflow threads of the server
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
    /// A running Kafka
    #[arg(long, value_name = "HOST:PORT")]
    brokers: Option<String>,
    /// The script that starts one
    #[arg(long, value_name = "FILE", conflicts_with = "brokers")]
    kafka_script: Option<PathBuf>,
    #[command(flatten)]
    result: Shown,
}

/// What becomes of the report.
#[derive(Debug, clap::Args)]
struct Shown {
    /// Compare with an earlier report; exit with 1 when it is worse beyond noise
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    #[command(flatten)]
    report: Report,
}

/// The report of a benchmark without a comparison: most are quotients already.
#[derive(Debug, clap::Args)]
struct Report {
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs a benchmark.
pub fn run(args: Args) -> Outcome {
    match args.what {
        What::Throughput(args) => throughput(args),
        What::Freshness(args) => freshness(args),
        What::Acks(args) => acks(args),
        What::Backfill(args) => backfill(args),
        What::Joins(args) => joins(args),
        What::Ships(args) => ships(args),
        What::Sequences(args) => sequences(args),
        What::Recovery(args) => recovery(args),
    }
}

fn acks(args: Acks) -> Outcome {
    let Acks { rate, seconds, connections, folder, report } = args;
    let options =
        acks::Options { binary: binary()?, rate, seconds, connections, folder, stop: interrupted()? };
    report.show(&acks::run(&options).map_err(failure)?, None)
}

fn backfill(args: Backfill) -> Outcome {
    let Backfill { events, file_events, rate, bound, seconds, folder, report } = args;
    let file_events = file_events.unwrap_or((events / 5).max(1));
    let (binary, stop) = (binary()?, interrupted()?);
    let options = backfill::Options { binary, events, file_events, rate, bound, seconds, folder, stop };
    report.show(&backfill::run(&options).map_err(failure)?, None)
}

fn joins(args: Joins) -> Outcome {
    let options = joins::Options { rows: args.rows, rounds: args.rounds, seed: args.seed };
    let report = joins::run(&options).map_err(failure)?;
    args.report.show(&report, None)
}

fn ships(args: Ships) -> Outcome {
    let options = ships::Options { commits: args.commits, rounds: args.rounds, seed: args.seed };
    let report = ships::run(&options).map_err(failure)?;
    args.report.show(&report, None)
}

fn sequences(args: Sequences) -> Outcome {
    let options = sequences::Options { rows: args.rows, rounds: args.rounds, seed: args.seed };
    let report = sequences::run(&options).map_err(failure)?;
    args.report.show(&report, None)
}

fn recovery(args: Recovery) -> Outcome {
    let Recovery { events, keys, rounds, workers, report: shown } = args;
    let options = recovery::Options { events, keys, rounds, workers: usize::from(workers) };
    let report = recovery::run(&options).map_err(failure)?;
    shown.show(&report, None)
}

fn throughput(args: Throughput) -> Outcome {
    if let (Some(program), Some(file)) = (args.child, &args.file) {
        let outcome = throughput::child(program, file, args.events).map_err(failure)?;
        crate::say!("{}", serde_json::to_string(&outcome).expect("text keys"));
        return Ok(Exit::Ok);
    }
    let before = args.result.before()?;
    let options = throughput::Options {
        events: args.events,
        rounds: args.rounds,
        with: args.with,
        folder: args.folder,
        seed: args.seed,
        stop: interrupted()?,
        ..throughput::Options::new(binary()?)
    };
    before.as_ref().map_or(Ok(()), |before| compare::throughput_fits(before, &options)).map_err(failure)?;
    let report = throughput::run(&options).map_err(failure)?;
    let comparison =
        before.map(|before| compare::throughput(&before, &report)).transpose().map_err(failure)?;
    args.result.report.show(&report, comparison.as_ref())
}

fn freshness(args: Freshness) -> Outcome {
    let before = args.result.before()?;
    let options = freshness::Options {
        road: args.path,
        reader: args.reader,
        rate: args.rate,
        seconds: args.seconds,
        warm_up: args.warm_up,
        workers: usize::from(args.workers),
        brokers: args.brokers,
        kafka_script: args.kafka_script,
        stop: interrupted()?,
        ..freshness::Options::new(binary()?)
    };
    before.as_ref().map_or(Ok(()), |before| compare::freshness_fits(before, &options)).map_err(failure)?;
    let report = freshness::run(&options).map_err(failure)?;
    let comparison =
        before.map(|before| compare::freshness(&before, &report)).transpose().map_err(failure)?;
    let exit = args.result.report.show(&report, comparison.as_ref())?;
    Ok(if report.misses > 0 { Exit::Failed } else { exit })
}

impl Shown {
    /// Read before anything runs, so that a wrong file costs no time.
    fn before<T: serde::de::DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        self.compare.as_deref().map(compare::read).transpose().map_err(failure)
    }
}

impl Report {
    fn show(
        &self,
        report: &(impl Serialize + std::fmt::Display),
        comparison: Option<&Comparison>,
    ) -> Outcome {
        let mut value: Value = serde_json::to_value(report).expect("reports have text keys");
        if let Some(path) = &self.out {
            write(path, &value)?;
        }
        if self.json {
            if let Some(comparison) = comparison {
                value["comparison"] = json!(comparison);
            }
            super::out::json(&value);
        } else {
            crate::say!("{report}");
            if let Some(comparison) = comparison {
                crate::say!("\n{comparison}");
            }
        }
        Ok(if comparison.is_some_and(|c| c.worse) { Exit::Failed } else { Exit::Ok })
    }
}

fn write(path: &Path, report: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(report).expect("text keys");
    std::fs::write(path, text + "\n").map_err(|error| io(Exit::Failed, "write", path, &error))
}

fn binary() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::new(Exit::Bug, format!("this program does not find itself: {error}")))
}

/// Becomes true at Ctrl-C or SIGTERM, so that the programs started here are ended in order.
fn interrupted() -> Result<Arc<AtomicBool>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    let bug = |error: std::io::Error| Failure::new(Exit::Bug, format!("cannot wait for signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(bug)?;
    let body = move || {
        runtime.block_on(async {
            let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => if interrupted.is_err() { return },
                _ = terminate.recv() => {}
            }
            set.store(true, Ordering::Relaxed);
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(body).map_err(bug)?;
    Ok(stop)
}

fn failure(error: bench::Error) -> Failure {
    let exit = match error.kind() {
        bench::Kind::Usage => Exit::Usage,
        bench::Kind::Unreachable => Exit::Unreachable,
        bench::Kind::Failed => Exit::Failed,
        bench::Kind::Bug => Exit::Bug,
        bench::Kind::Interrupted => Exit::Interrupted,
    };
    Failure::new(exit, error.to_string())
}
