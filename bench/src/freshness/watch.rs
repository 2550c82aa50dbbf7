//! The reader: sees the metric over HTTP and scores every event.
//!
//! *In*: a running server, the schedule. *Out*: due-until-visible latencies, misses, and the floor that
//! HTTP itself has in the same run. *Never*: a sample for an answer that did not grow.

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::schedule::Schedule;
use super::serve::{METRIC, Server, agent};
use super::{GRACE, Options, PATIENCE, Reader, Start};
use crate::error::Error;
use crate::stats::Recorder;

/// Between two polls.
const POLL: Duration = Duration::from_millis(1);
/// Between two requests to `/livez`.
const FLOOR: Duration = Duration::from_millis(20);

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// Events counted by the last answer.
    pub(crate) seen: u64,
    /// Due until visible.
    pub(crate) visible: Recorder,
    /// Round trip of reading the metric (polling only).
    pub(crate) read: Recorder,
    /// Round trip of `/livez`, which does nothing.
    pub(crate) floor: Recorder,
    /// Answers that were looked at.
    pub(crate) answers: u64,
}

/// The part of an answer that is needed.
#[derive(Deserialize)]
struct Answer {
    value: Option<u64>,
}

/// Reads until every event is visible, or nothing has come for a while after the last.
pub(crate) fn watch(
    options: &Options,
    schedule: &Schedule,
    start: Start,
    server: &Server,
    sending: &AtomicBool,
) -> Result<Watched, Error> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let floor = scope.spawn(|| floor(server, &done));
        let mut score = Score { schedule, start, watched: Watched { seen: 1, ..Watched::default() } };
        let result = match options.reader {
            Reader::Poll => poll(options, server, sending, &mut score),
            Reader::Sse => stream(options, server, sending, &mut score),
        };
        done.store(true, Ordering::Release);
        let floor = floor.join().map_err(|_| Error::Engine("the reader of /livez panicked".to_owned()))?;
        result.map(|()| Watched { floor, ..score.watched })
    })
}

/// Waits until `count` events are visible.
pub(crate) fn wait_for(server: &Server, count: u64, options: &Options) -> Result<(), Error> {
    let agent = agent(PATIENCE);
    let url = metric_url(server);
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if options.stopped() {
            return Err(Error::Interrupted);
        }
        // The server may not be ready yet: asked again below.
        if ask(&agent, &url).is_ok_and(|seen| seen >= count) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Error::Unreachable(format!(
        "the server did not count the first event within a minute: {}",
        server.last_words()
    )))
}

struct Score<'a> {
    schedule: &'a Schedule,
    start: Start,
    watched: Watched,
}

impl Score<'_> {
    /// An answer that arrived at `now`.
    fn saw(&mut self, count: u64, now: Instant) {
        self.watched.answers += 1;
        for event in self.watched.seen.max(self.schedule.first_scored())..count {
            let due = self.start.due(self.schedule.tick_of(event));
            self.watched.visible.add(now.saturating_duration_since(due));
        }
        self.watched.seen = self.watched.seen.max(count);
    }

    fn complete(&self) -> bool {
        self.watched.seen >= self.schedule.events()
    }
}

/// When to give up: nothing new for [`GRACE`] since the sender ended.
struct Patience {
    seen: u64,
    since: Instant,
}

impl Patience {
    fn new() -> Self {
        Self { seen: 0, since: Instant::now() }
    }

    fn ends(&mut self, seen: u64, sending: &AtomicBool) -> bool {
        if seen > self.seen || sending.load(Ordering::Acquire) {
            *self = Self { seen, since: Instant::now() };
        }
        self.since.elapsed() > GRACE
    }
}

fn poll(
    options: &Options,
    server: &Server,
    sending: &AtomicBool,
    score: &mut Score<'_>,
) -> Result<(), Error> {
    let agent = agent(PATIENCE);
    let url = metric_url(server);
    let mut patience = Patience::new();
    while !score.complete() && !patience.ends(score.watched.seen, sending) {
        if options.stopped() {
            return Err(Error::Interrupted);
        }
        let asked = Instant::now();
        let count = ask(&agent, &url)?;
        let now = Instant::now();
        score.watched.read.add(now - asked);
        score.saw(count, now);
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn stream(
    options: &Options,
    server: &Server,
    sending: &AtomicBool,
    score: &mut Score<'_>,
) -> Result<(), Error> {
    let whole = Duration::from_secs(u64::from(options.warm_up + options.seconds)) + 2 * PATIENCE;
    let url = format!("{}/v1/metrics/{METRIC}/stream?window=all&every=0", server.url());
    let lost = |error: &dyn std::fmt::Display| Error::Unreachable(format!("{url}: {error}"));
    let response = agent(whole).get(&url).call().map_err(|error| lost(&error))?;
    if !response.status().is_success() {
        return Err(lost(&response.status()));
    }
    let mut lines = BufReader::new(response.into_body().into_reader());
    let mut patience = Patience::new();
    let mut line = String::new();
    while !score.complete() && !patience.ends(score.watched.seen, sending) {
        if options.stopped() {
            return Err(Error::Interrupted);
        }
        line.clear();
        // A quiet stream has a heartbeat, so this does not wait for ever.
        if lines.read_line(&mut line).map_err(|error| lost(&error))? == 0 {
            return Err(lost(&"the stream has ended"));
        }
        let now = Instant::now();
        if let Some(data) = line.strip_prefix("data:") {
            let answer: Answer = serde_json::from_str(data).map_err(|error| lost(&error))?;
            score.saw(answer.value.unwrap_or(0), now);
        }
    }
    Ok(())
}

/// Round trips to `/livez`.
fn floor(server: &Server, done: &AtomicBool) -> Recorder {
    let agent = agent(PATIENCE);
    let url = format!("{}/livez", server.url());
    let mut recorder = Recorder::default();
    while !done.load(Ordering::Acquire) {
        let asked = Instant::now();
        let answer = agent.get(&url).call().and_then(|mut response| response.body_mut().read_to_vec());
        if answer.is_ok() {
            recorder.add(asked.elapsed());
        }
        std::thread::sleep(FLOOR);
    }
    recorder
}

fn metric_url(server: &Server) -> String {
    format!("{}/v1/metrics/{METRIC}?window=all", server.url())
}

fn ask(agent: &ureq::Agent, url: &str) -> Result<u64, Error> {
    let lost = |error: ureq::Error| Error::Unreachable(format!("{url}: {error}"));
    let mut response = agent.get(url).call().map_err(lost)?;
    let status = response.status();
    let body = response.body_mut().read_to_vec().map_err(lost)?;
    if !status.is_success() {
        return Err(Error::Unreachable(format!("{url}: {status} {}", String::from_utf8_lossy(&body))));
    }
    let answer: Answer =
        serde_json::from_slice(&body).map_err(|e| Error::Unreachable(format!("{url}: {e}")))?;
    Ok(answer.value.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scored_event_is_scored_once() {
        let schedule = Schedule::new(1000, 1, 1); // 1 + 100 + 1000 events
        let start = Start { instant: Instant::now(), wall: 0 };
        let mut score =
            Score { schedule: &schedule, start, watched: Watched { seen: 1, ..Watched::default() } };
        for count in [1, 50, 50, 102, 90, 600, 1101] {
            score.saw(count, start.due(2000));
        }
        assert!(score.complete());
        assert_eq!((score.watched.visible.count(), score.watched.answers), (1000, 7));
        let summary = score.watched.visible.summary();
        assert!((summary.max - 1000.0).abs() < 1.0, "{summary:?}"); // the first one, due at 1000 ms
    }
}
