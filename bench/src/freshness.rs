//! Freshness: from the moment an event is due to the moment an HTTP reader sees it counted.
//!
//! *In*: [`Options`]. *Out*: a [`Report`] with HDR percentiles. *Never*: a latency counted from when an
//! event was really sent (a slow sender would hide it), an event left out of the score.
//!
//! The sender keeps to a schedule whether or not anybody keeps up. Events are counted by the metric
//! `seen`; event number n is visible when an answer says `seen >= n`, because one partition keeps order.

mod broker;
mod report;
mod schedule;
mod send;
pub(crate) mod serve;
pub(crate) mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) use report::tests::report as tests_report;
pub use report::{Report, Usage};

use crate::error::Error;
use crate::machine::Machine;
use broker::Broker;
use schedule::Schedule;
use send::{Sender, Sent};
use serve::Server;
use watch::Watched;

/// How events reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Road {
    /// Produced to Apache Kafka.
    Kafka,
    /// `POST /v1/events`, durable before it is acknowledged.
    Push,
}

impl Road {
    /// Its name, as options and reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Push => "push",
        }
    }
}

impl std::fmt::Display for Road {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Road {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "kafka" => Ok(Self::Kafka),
            "push" => Ok(Self::Push),
            _ => Err(format!("`{text}` is not one of kafka, push")),
        }
    }
}

/// How the reader sees the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reader {
    /// `GET /v1/metrics/{name}` on one kept connection, 1 ms between two requests.
    Poll,
    /// `GET /v1/metrics/{name}/stream`: server-sent events.
    Sse,
}

impl Reader {
    /// Its name, as options and reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Sse => "sse",
        }
    }
}

impl std::fmt::Display for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Reader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "poll" => Ok(Self::Poll),
            "sse" => Ok(Self::Sse),
            _ => Err(format!("`{text}` is not one of poll, sse")),
        }
    }
}

/// How to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The binary that has `serve`.
    pub binary: PathBuf,
    /// A running Kafka; without it one is started.
    pub brokers: Option<String>,
    /// The script that starts one; default: `scripts/kafka.sh` of this repository.
    pub kafka_script: Option<PathBuf>,
    /// How events reach the server.
    pub road: Road,
    /// How the reader sees the metric.
    pub reader: Reader,
    /// Events per second.
    pub rate: u32,
    /// How long.
    pub seconds: u32,
    /// Seconds before that at a tenth of the rate, which are not scored.
    pub warm_up: u32,
    /// Dataflow threads of the server.
    pub workers: usize,
    /// Set by another thread to end early.
    pub stop: Arc<AtomicBool>,
}

impl Options {
    /// 10,000 events a second through Kafka for 20 s, read by polling.
    pub fn new(binary: PathBuf) -> Self {
        Self {
            binary,
            brokers: None,
            kafka_script: None,
            road: Road::Kafka,
            reader: Reader::Poll,
            rate: 10_000,
            seconds: 20,
            warm_up: 10,
            workers: 1,
            stop: Arc::default(),
        }
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<(), Error> {
        if !(10..=1_000_000).contains(&self.rate) {
            return Err(Error::Usage(format!("{} events per second: from 10 to 1000000", self.rate)));
        }
        if self.seconds == 0 || self.seconds > 3600 || self.warm_up > 3600 {
            return Err(Error::Usage(
                "`seconds` and `warm-up` are at most an hour, and `seconds` at least 1".to_owned(),
            ));
        }
        Ok(())
    }
}

/// How long everything may take to start, and a straggler to show.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long Kafka may take to acknowledge the first event.
const FIRST: Duration = Duration::from_secs(20);
/// Without news for so long after the last event is due, the rest counts as missed.
const GRACE: Duration = Duration::from_secs(10);

/// The start of the schedule, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    instant: Instant,
    /// Milliseconds since the Unix epoch.
    wall: i64,
}

impl Start {
    /// A moment from now, so that all threads are there in time.
    fn soon() -> Self {
        let ahead = Duration::from_millis(100);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + ahead;
        Self { instant: Instant::now() + ahead, wall: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX) }
    }

    /// When tick `tick` is due.
    pub(crate) fn due(&self, tick: u64) -> Instant {
        self.instant + Duration::from_millis(tick)
    }
}

/// Measures.
///
/// # Errors
/// Kafka or the server cannot be started; the final answers are wrong.
pub fn run(options: &Options) -> Result<Report, Error> {
    options.check()?;
    let folder = tempfile::Builder::new()
        .prefix("streamgauge-freshness-")
        .tempdir()
        .map_err(Error::file("make a folder in", std::env::temp_dir()))?;
    let broker = match options.road {
        Road::Kafka => Some(Broker::start(options, folder.path())?),
        Road::Push => None,
    };
    let schedule = Schedule::new(options.rate, options.warm_up, options.seconds);
    let mut sender = Sender::new(broker.as_ref(), &schedule)?;
    // The first event makes the topic, so that the server finds it.
    sender.first(options)?;
    let server = Server::start(options, broker.as_ref(), folder.path())?;
    sender.server(&server)?;
    watch::wait_for(&server, 1, options)?;
    let measured = measure(options, &schedule, sender, &server, broker.as_ref())?;
    if measured.watched.seen >= schedule.events() {
        server.check(&measured.sent.truth)?;
    }
    Ok(report::make(options, &schedule, measured))
}

/// All that one run gives.
pub(crate) struct Measured {
    pub(crate) sent: Sent,
    pub(crate) watched: Watched,
    pub(crate) server: Usage,
    pub(crate) broker: Option<Usage>,
    pub(crate) machine: Machine,
}

fn measure(
    options: &Options,
    schedule: &Schedule,
    sender: Sender,
    server: &Server,
    broker: Option<&Broker>,
) -> Result<Measured, Error> {
    let start = Start::soon();
    let sending = AtomicBool::new(true);
    let meters = [Some(server.pid()), broker.and_then(Broker::pid)].map(|pid| pid.map(Meter::start));
    let (sent, watched) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch::watch(options, schedule, start, server, &sending));
        let sent = sender.run(options, schedule, start);
        sending.store(false, Ordering::Release);
        let watched = watcher.join();
        (sent, watched)
    });
    let watched = watched.map_err(|_| Error::Engine("the reader panicked".to_owned()))?;
    let [server, broker] = meters.map(|meter| meter.map(Meter::stop));
    Ok(Measured {
        sent: sent?,
        watched: watched?,
        server: server.unwrap_or_default(),
        broker,
        machine: Machine::here(),
    })
}

/// CPU use of a process between two moments.
struct Meter {
    pid: u32,
    began: Instant,
    cpu: Option<Duration>,
}

impl Meter {
    fn start(pid: u32) -> Self {
        Self { pid, began: Instant::now(), cpu: crate::process::stat(pid).map(|stat| stat.cpu) }
    }

    fn stop(self) -> Usage {
        let now = crate::process::stat(self.pid).map(|stat| stat.cpu);
        let used = now.zip(self.cpu).map(|(now, before)| now.saturating_sub(before).as_secs_f64());
        Usage {
            cores: used.map(|used| used / self.began.elapsed().as_secs_f64()),
            peak_rss: crate::process::peak_rss(Some(self.pid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let options = |rate, seconds| Options { rate, seconds, ..Options::new("x".into()) };
        assert!(options(10_000, 20).check().is_ok());
        for (rate, seconds) in [(9, 1), (1_000_001, 1), (10, 0), (10, 3601)] {
            assert!(matches!(options(rate, seconds).check(), Err(Error::Usage(_))));
        }
    }
}
