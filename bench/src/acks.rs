//! Acknowledgements: from a push being due to its answer, which comes once it is on disk; then the end, and the next start.
//!
//! *In*: requests per second. *Out*: HDR percentiles beside those of one synced write of the same disk, seconds to end, and
//! what the next start read again. *Never*: a latency counted from when a request was really sent; a report when the numbers
//! after the restart are not those of what was acknowledged.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::answers::Cell;
use crate::freshness::serve::{Server, agent, push};
use crate::freshness::{self, Road, watch};
use crate::stats::{Latency, Recorder};
use crate::w1::W2;
use crate::{Error, Machine};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Synced writes before the load, and as many after it.
const SYNCS: u32 = 250;

/// How to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The binary that has `serve`.
    pub binary: PathBuf,
    /// Requests per second, each with one event.
    pub rate: u32,
    /// How long.
    pub seconds: u32,
    /// Connections, each with one request at a time.
    pub connections: u32,
    /// Where data goes; `None`: the system's folder for temporary files.
    pub folder: Option<PathBuf>,
    /// Set by another thread to end early.
    pub stop: Arc<AtomicBool>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// Requests per second.
    pub rate: u32,
    /// Connections.
    pub connections: u32,
    /// Due until acknowledged, milliseconds.
    pub acknowledged: Latency,
    /// One write of the same bytes and its `fdatasync`, on the same disk, by one thread, while nothing else runs.
    pub synced: Latency,
    /// p99 of `acknowledged` by p99 of `synced`.
    pub ratio: f64,
    /// From SIGTERM right after the last answer to the end of the process.
    pub end_seconds: f64,
    /// From the start of the next process until it answers with all events.
    pub start_seconds: f64,
    /// Records that it had to read again.
    pub read_again: u64,
}

/// Measures.
///
/// # Errors
/// The server cannot be started or does not end; the answers of the next start are wrong.
pub fn run(options: &Options) -> Result<Report, Error> {
    if !(1..=100_000).contains(&options.rate) || options.seconds == 0 || options.connections == 0 {
        return Err(Error::Usage(
            "a rate from 1 to 100000, and at least one second and connection".to_owned(),
        ));
    }
    let place = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new().prefix("streamgauge-acks-").tempdir_in(&place);
    let folder = folder.map_err(Error::file("make a folder in", &place))?;
    let as_pushed = freshness::Options {
        road: Road::Push,
        stop: Arc::clone(&options.stop),
        ..freshness::Options::new(options.binary.clone())
    };
    let (bodies, truth) = bodies(options);
    let server = Server::start(&as_pushed, None, folder.path())?;
    push(&agent(PATIENCE), &events_url(&server), &bodies[0])?;
    watch::wait_for(&server, 1, &as_pushed)?;
    let mut synced = Recorder::default();
    sync(folder.path(), &bodies[0], &mut synced)?;
    let acknowledged = load(options, &server, &bodies[1..])?;
    let end_seconds = server.end()?.as_secs_f64();
    sync(folder.path(), &bodies[0], &mut synced)?;
    let began = Instant::now();
    let server = Server::start(&as_pushed, None, folder.path())?;
    watch::wait_for(&server, bodies.len() as u64, &as_pushed)?;
    let start_seconds = began.elapsed().as_secs_f64();
    server.check(&truth)?;
    let (acknowledged, synced) = (acknowledged.summary(), synced.summary());
    Ok(Report {
        machine: Machine::here(),
        rate: options.rate,
        connections: options.connections,
        ratio: acknowledged.p99 / synced.p99,
        acknowledged,
        synced,
        end_seconds,
        start_seconds,
        read_again: read_again(&server)?,
    })
}

/// The first one is for the warm-up.
fn bodies(options: &Options) -> (Vec<Vec<u8>>, BTreeMap<&'static str, Cell>) {
    let (mut events, mut truth) = (W2::new(1), BTreeMap::<_, Cell>::new());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    let body = |number: u64| {
        let event = events.at(now);
        truth.entry(event.region).or_default().add(event.cents, event.good_status());
        let mut body = Vec::with_capacity(300);
        event.write(Some(number), &mut body);
        body
    };
    let bodies = (0..=u64::from(options.rate) * u64::from(options.seconds)).map(body).collect();
    (bodies, truth)
}

/// Each connection sends every n-th request when it is due, or at once when that is past.
fn load(options: &Options, server: &Server, bodies: &[Vec<u8>]) -> Result<Recorder, Error> {
    let start = Instant::now() + Duration::from_millis(100);
    let due = |number: usize| start + Duration::from_secs(1) * number as u32 / options.rate;
    let (connections, url) = (options.connections as usize, events_url(server));
    let one = |first: usize| -> Result<Recorder, Error> {
        let (mut latencies, agent) = (Recorder::default(), agent(PATIENCE));
        for number in (first..bodies.len()).step_by(connections) {
            if options.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            std::thread::sleep(due(number).saturating_duration_since(Instant::now()));
            push(&agent, &url, &bodies[number])?;
            latencies.add(due(number).elapsed());
        }
        Ok(latencies)
    };
    std::thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> = (0..connections).map(|first| scope.spawn(move || one(first))).collect();
        let mut all = Recorder::default();
        for thread in threads {
            let latencies = thread.join().map_err(|_| Error::Engine("a sender panicked".to_owned()))?;
            all.merge(&latencies?);
        }
        Ok(all)
    })
}

/// Acknowledged when the events are on disk, without waiting for their tick.
fn events_url(server: &Server) -> String {
    format!("{}/v1/events?wait=0", server.url())
}

/// What the disk alone takes.
fn sync(folder: &Path, bytes: &[u8], latencies: &mut Recorder) -> Result<(), Error> {
    let path = folder.join("synced");
    let failed = |error| Error::file("write", &path)(error);
    let mut file = std::fs::File::options().create(true).append(true).open(&path).map_err(failed)?;
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(bytes).and_then(|()| file.sync_data()).map_err(failed)?;
        latencies.add(began.elapsed());
    }
    Ok(())
}

fn read_again(server: &Server) -> Result<u64, Error> {
    let url = format!("{}/readyz?verbose", server.url());
    let lost = |error: ureq::Error| Error::Unreachable(format!("{url}: {error}"));
    let answer: serde_json::Value =
        agent(PATIENCE).get(&url).call().map_err(lost)?.body_mut().read_json().map_err(lost)?;
    answer["sources"][0]["behind_at_start"]
        .as_u64()
        .ok_or_else(|| Error::Unreachable(format!("{url}: it does not say `behind_at_start`")))
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = |l: &Latency| {
            format!("p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.1} ms", l.p50, l.p99, l.p999, l.max)
        };
        let Self { rate, connections, acknowledged, synced, ratio, .. } = self;
        writeln!(f, "acks: {} requests at {rate}/s on {connections} connections", acknowledged.count)?;
        writeln!(f, "  due to acknowledged  {}", line(acknowledged))?;
        writeln!(f, "  one synced write     {}", line(synced))?;
        writeln!(f, "  p99 by p99           {ratio:.1} x")?;
        writeln!(f, "  SIGTERM to the end   {:.2} s", self.end_seconds)?;
        writeln!(
            f,
            "  the next start       {:.2} s, {} records read again",
            self.start_seconds, self.read_again
        )?;
        write!(f, "  {}", self.machine.line())
    }
}
