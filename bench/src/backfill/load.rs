//! Live traffic beside a backfill: pushes that are due at a steady rate, and readers who believe nothing.
//!
//! *In*: a rate, what history must come to. *Out*: when each push was due, acknowledged, visible. *Never*: an answer that is
//! looked at and not held against what must be in it.
//!
//! Live events have a region of their own, and so has a thread that reads its own writes: of all other regions an answer
//! must say at any moment exactly what history comes to (while a file is sent: no less than before it, no more than after).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::Value;

use super::{Noticed, PATIENCE, Truth};
use crate::Error;
use crate::answers::Cell;
use crate::freshness::serve::agent;
use crate::stats::Recorder;
use crate::w1::{Event, W2};

/// Not scored.
pub(super) const WARM_UP: Duration = Duration::from_secs(1);
/// Regions of the live events, and of the one who reads what it wrote.
const LIVE: &str = "live";
const OWN: &str = "own";
/// Connections of the live events, each with one request at a time.
const CONNECTIONS: usize = 8;
/// Between two answers.
const POLL: Duration = Duration::from_millis(2);
/// Between two writes that are read back.
const WRITE: Duration = Duration::from_millis(100);
/// How long the last events may take to show.
const LAST: Duration = Duration::from_secs(30);

/// What answers must say of history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// Live events and writes that are there already.
    live: u64,
    own: u64,
    /// Least and greatest number of events of all other regions.
    history: (u64, u64),
    /// Revenue of all other regions in cents, where their number is known exactly.
    revenue: Option<i64>,
}

impl Expected {
    /// What is there, and `more` events that may come.
    pub(super) fn new(truth: &Truth, more: u64) -> Self {
        let of = |region: &str| truth.get(region).map_or(0, Cell::events);
        let others = || truth.iter().filter(|(region, _)| ![LIVE, OWN].contains(region));
        let events = others().map(|(_, cell)| cell.events()).sum::<u64>();
        let revenue = (more == 0).then(|| others().map(|(_, cell)| cell.revenue).sum());
        Self { live: of(LIVE), own: of(OWN), history: (events, events + more), revenue }
    }
}

/// A push: when it was due, and how long it took.
type Sample = (Instant, Duration);

/// The traffic of one backfill.
#[derive(Debug)]
pub(super) struct Load {
    rate: u32,
    events_url: String,
    answer_url: String,
    expected: Expected,
    start: Instant,
    ended: AtomicBool,
    /// Live pushes begun, and those that were due.
    begun: AtomicU64,
    /// Events of the live pushes and of the writer, counted before they are sent.
    cells: Mutex<BTreeMap<&'static str, Cell>>,
    acknowledged: Mutex<Vec<Sample>>,
    visible: Mutex<Vec<Sample>>,
    answers: AtomicU64,
}

impl Load {
    pub(super) fn new(rate: u32, url: &str, metric: &str, expected: Expected) -> Self {
        Self {
            rate,
            events_url: format!("{url}/v1/events?wait=0"),
            answer_url: format!("{url}/v1/metrics/{metric}?window=all&by=region&limit=1000"),
            expected,
            start: Instant::now() + Duration::from_millis(100),
            ended: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            cells: Mutex::default(),
            acknowledged: Mutex::default(),
            visible: Mutex::default(),
            answers: AtomicU64::new(0),
        }
    }

    /// Begins; the threads end after [`Load::end`].
    pub(super) fn start<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        stop: &'s AtomicBool,
    ) -> Vec<ScopedJoinHandle<'s, Result<(), Error>>> {
        let mut threads = Vec::new();
        for first in 0..CONNECTIONS {
            threads.push(scope.spawn(move || self.send(first, stop)));
        }
        threads.push(scope.spawn(move || self.watch(stop)));
        threads.push(scope.spawn(move || self.write(stop)));
        threads
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    fn due(&self, number: u64) -> Instant {
        self.start + Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX) / self.rate
    }

    fn over(&self, stop: &AtomicBool) -> Result<bool, Error> {
        if stop.load(Ordering::Relaxed) {
            Err(Error::Interrupted)
        } else {
            Ok(self.ended.load(Ordering::Acquire))
        }
    }

    fn body(&self, mut event: Event, region: &'static str) -> Vec<u8> {
        event.region = region;
        self.cells.lock().entry(region).or_default().add(event.cents, event.good_status());
        let mut body = Vec::with_capacity(300);
        event.write(None, &mut body);
        body
    }

    /// Each connection sends every n-th event when it is due, or at once when that is past.
    fn send(&self, first: usize, stop: &AtomicBool) -> Result<(), Error> {
        let agent = agent(PATIENCE);
        let mut events = W2::new(seed(first as u64));
        for number in (first as u64..).step_by(CONNECTIONS) {
            std::thread::sleep(self.due(number).saturating_duration_since(Instant::now()));
            if self.over(stop)? {
                break;
            }
            let body = self.body(events.at(now()), LIVE);
            self.begun.fetch_add(1, Ordering::SeqCst);
            pushed(&agent, &self.events_url, &body)?;
            self.acknowledged.lock().push((self.due(number), self.due(number).elapsed()));
        }
        Ok(())
    }

    /// Writes an event and reads it back, again and again: what is acknowledged is in every answer asked for after it.
    fn write(&self, stop: &AtomicBool) -> Result<(), Error> {
        let agent = agent(PATIENCE);
        let (mut events, mut written) = (W2::new(seed(CONNECTIONS as u64)), self.expected.own);
        while !self.over(stop)? {
            let body = self.body(events.at(now()), OWN);
            let told = pushed(&agent, &self.events_url, &body)?;
            written += 1;
            let token = told["token"].as_str().unwrap_or_default();
            let rows = self.ask(&agent, &format!("{}&after={token}&wait=10s", self.answer_url))?;
            if rows.own != written {
                return Err(wrong(format!(
                    "{written} were written and acknowledged, {} are counted",
                    rows.own
                )));
            }
            std::thread::sleep(WRITE);
        }
        Ok(())
    }

    /// Looks at answers until everything sent is visible.
    fn watch(&self, stop: &AtomicBool) -> Result<(), Error> {
        let agent = agent(PATIENCE);
        let mut last = Rows { live: self.expected.live, own: self.expected.own, history: 0, revenue: 0 };
        let mut ended = None;
        loop {
            let rows = self.ask(&agent, &self.answer_url)?;
            let now = Instant::now();
            self.check(&rows, &last)?;
            let seen = last.live - self.expected.live..rows.live - self.expected.live;
            let due = seen.map(|number| self.due(number));
            self.visible.lock().extend(due.map(|due| (due, now.saturating_duration_since(due))));
            last = rows;
            if self.over(stop)? {
                let ended = *ended.get_or_insert(now);
                let all = last.live - self.expected.live == self.begun.load(Ordering::SeqCst);
                // A push that was on its way when the end came is one more.
                if all && ended.elapsed() > Duration::from_secs(1) {
                    return Ok(());
                }
                if ended.elapsed() > LAST {
                    return Err(wrong(format!(
                        "{} live events do not show",
                        self.begun.load(Ordering::SeqCst)
                    )));
                }
            }
            std::thread::sleep(POLL);
        }
    }

    /// Nothing goes back, nothing is counted that was not sent, history is whole.
    fn check(&self, rows: &Rows, last: &Rows) -> Result<(), Error> {
        let sent = self.expected.live + self.begun.load(Ordering::SeqCst);
        if rows.live < last.live || rows.live > sent || rows.own < last.own {
            return Err(wrong(format!("after {last:?} came {rows:?}, {sent} live events had been sent")));
        }
        let (least, most) = self.expected.history;
        if rows.history < least.max(last.history) || rows.history > most {
            return Err(wrong(format!("history is {least} to {most} events: after {last:?} came {rows:?}")));
        }
        match self.expected.revenue {
            Some(revenue) if revenue != rows.revenue => {
                Err(wrong(format!("history comes to {revenue} cents: found {rows:?}")))
            }
            _ => Ok(()),
        }
    }

    fn ask(&self, agent: &ureq::Agent, url: &str) -> Result<Rows, Error> {
        let lost = |error: ureq::Error| Error::Unreachable(format!("{url}: {error}"));
        let mut response = agent.get(url).call().map_err(lost)?;
        let answer: Value = response.body_mut().read_json().map_err(lost)?;
        let rows = answer["rows"].as_array().ok_or_else(|| Error::Unreachable(format!("{url}: {answer}")))?;
        self.answers.fetch_add(1, Ordering::Relaxed);
        Ok(Rows::of(rows))
    }

    /// Adds what was sent to the truth; how many live events and writes.
    pub(super) fn sent(&self, truth: &mut Truth) -> (u64, u64) {
        let cells = self.cells.lock();
        for (region, cell) in cells.iter() {
            let all = truth.entry(*region).or_default();
            all.revenue += cell.revenue;
            all.n += cell.n;
            all.bad_amount += cell.bad_amount;
            all.bad_status += cell.bad_status;
        }
        let of = |region: &str| cells.get(region).map_or(0, Cell::events);
        (of(LIVE), of(OWN))
    }

    /// Answers looked at.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Latencies of what was due between two instants; `None`: from the end of the warm-up on.
    pub(super) fn noticed(&self, from: Option<Instant>, until: Instant) -> Noticed {
        let from = from.unwrap_or(self.start + WARM_UP);
        let of = |samples: &[Sample]| {
            let mut recorder = Recorder::default();
            let within = samples.iter().filter(|(due, _)| (from..until).contains(due));
            within.for_each(|(_, took)| recorder.add(*took));
            recorder.summary()
        };
        Noticed { acknowledged: of(&self.acknowledged.lock()), visible: of(&self.visible.lock()) }
    }
}

/// The numbers of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rows {
    live: u64,
    own: u64,
    history: u64,
    /// Cents.
    revenue: i64,
}

impl Rows {
    fn of(rows: &[Value]) -> Self {
        let mut all = Self { live: 0, own: 0, history: 0, revenue: 0 };
        for row in rows {
            let seen = row["seen"].as_u64().unwrap_or(0);
            match row["region"].as_str() {
                Some(LIVE) => all.live += seen,
                Some(OWN) => all.own += seen,
                _ => {
                    all.history += seen;
                    all.revenue += row["revenue"].as_str().and_then(cents).unwrap_or(0);
                }
            }
        }
        all
    }
}

/// `12.34` in cents.
fn cents(text: &str) -> Option<i64> {
    let (whole, hundredths) = text.split_once('.')?;
    Some(whole.parse::<i64>().ok()? * 100 + hundredths.parse::<i64>().ok()?)
}

/// Milliseconds since the Unix epoch.
pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// No two threads, and no two runs, draw the same ids.
fn seed(thread: u64) -> u64 {
    (now().unsigned_abs() << 8) + 1_000 + thread
}

/// Pushes an event: the answer, once it is on disk.
fn pushed(agent: &ureq::Agent, url: &str, body: &[u8]) -> Result<Value, Error> {
    let refused = |what: String| Error::Unreachable(format!("the server took no event: {what}"));
    let request = agent.post(url).content_type("application/x-ndjson");
    let mut answer = request.send(body).map_err(|error| refused(error.to_string()))?;
    let told: Value = answer.body_mut().read_json().map_err(|error| refused(error.to_string()))?;
    if answer.status() == 202 { Ok(told) } else { Err(refused(told.to_string())) }
}

fn wrong(words: String) -> Error {
    Error::Differs { program: "backfill".to_owned(), differences: vec![words] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn load(truth: &Truth) -> Load {
        Load::new(100, "http://nowhere", "m", Expected::new(truth, 0))
    }

    fn answer(live: u64, history: u64, revenue: &str) -> Rows {
        Rows::of(&[
            json!({ "region": "live", "seen": live, "revenue": "9.99" }),
            json!({ "region": "eu", "seen": history, "revenue": revenue }),
        ])
    }

    #[test]
    fn wrong_answers_are_told() {
        let eu = Cell { revenue: 1_050, n: 2, ..Cell::default() };
        let load = load(&Truth::from([("eu", eu)]));
        load.begun.store(5, Ordering::SeqCst);
        let good = answer(3, 2, "10.50");
        assert!(load.check(&good, &answer(3, 2, "10.50")).is_ok());
        assert!(load.check(&good, &answer(4, 2, "10.50")).is_err(), "it went back");
        assert!(load.check(&answer(6, 2, "10.50"), &good).is_err(), "more than was sent");
        assert!(load.check(&answer(3, 1, "10.50"), &good).is_err(), "a gap");
        assert!(load.check(&answer(3, 2, "10.51"), &good).is_err(), "another sum");
    }
}
