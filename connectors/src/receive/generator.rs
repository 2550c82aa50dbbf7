//! Commerce events with a known truth: what the demo, the benchmarks and the tests feed on.
//!
//! *In*: a seed, a rate, shares of trouble. *Out*: JSON events in the order they arrive, and a
//! [`Truth`] of what any right engine must answer. *Never*: a different stream for the same seed and
//! start, however the calls are cut; a look at the engine.
//!
//! Shoppers come at random; a session views pages, clicks, fills a cart, and sometimes orders; an
//! order is paid or not, amended, shipped, delivered or cancelled. On the way to us some events are
//! delayed by seconds (out of order) or minutes (late), some come twice, and some broken ones are
//! mixed in. `session` writes the scripts, `event` the JSON, `truth` keeps the books.

mod event;
mod session;
mod truth;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use fastrand::Rng;

use self::event::{Bad, Fact};
use self::truth::Books;

pub use self::truth::{Truth, format_cents};

/// What to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorSpec {
    /// Same seed and start, same events.
    pub seed: u64,
    /// Event time of the first session, microseconds since the Unix epoch. In the past: the first
    /// call yields the history up to now.
    pub start: i64,
    /// Mean events per second, all kinds together, once orders have had time to complete (minutes).
    pub events_per_second: f64,
    /// Share of events that arrive 1 to 30 minutes late.
    pub late: f64,
    /// Share of events that arrive 0.2 to 5 seconds late, after younger ones.
    pub out_of_order: f64,
    /// Share of events that arrive a second time, byte for byte, within a minute.
    pub duplicates: f64,
    /// Broken events mixed in, per good one.
    pub bad: f64,
}

impl GeneratorSpec {
    /// `events_per_second` events from `start` on with the usual troubles: 2 % late, 5 % out of order,
    /// 1 % twice, 1 % broken.
    pub fn new(seed: u64, start: i64, events_per_second: f64) -> Self {
        Self { seed, start, events_per_second, late: 0.02, out_of_order: 0.05, duplicates: 0.01, bad: 0.01 }
    }
}

/// Microseconds.
const SECOND: i64 = 1_000_000;

/// What happens at an instant.
#[derive(Debug)]
enum Step {
    /// A shopper comes.
    Session,
    /// An event arrives.
    Arrive(Box<Arrival>),
}

#[derive(Debug)]
struct Arrival {
    json: Bytes,
    what: What,
}

/// What an arriving event means for the truth.
#[derive(Debug, Clone)]
enum What {
    Good { fact: Fact, late: bool, out_of_order: bool },
    Duplicate,
    Bad(Bad),
}

#[derive(Debug)]
struct Due {
    at: i64,
    number: u64,
    step: Step,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A stream of commerce events. Memory is bounded by the events on their way and the orders under way.
#[derive(Debug)]
pub struct Generator {
    spec: GeneratorSpec,
    rng: Rng,
    queue: BinaryHeap<Reverse<Due>>,
    number: u64,
    shop: session::Shop,
    /// Mean microseconds between two shoppers.
    between: f64,
    books: Books,
}

impl Generator {
    /// A generator at its start. Shares are taken into 0..=1, the rate is at least 0.001.
    pub fn new(spec: GeneratorSpec) -> Self {
        let share = |x: f64| if x.is_finite() { x.clamp(0.0, 1.0) } else { 0.0 };
        let rate = spec.events_per_second;
        let spec = GeneratorSpec {
            late: share(spec.late),
            out_of_order: share(spec.out_of_order),
            duplicates: share(spec.duplicates),
            bad: share(spec.bad),
            events_per_second: if rate.is_finite() { rate.max(0.001) } else { 1.0 },
            ..spec
        };
        let per_session = mean_events() * (1.0 + spec.duplicates + spec.bad);
        let mut generator = Self {
            rng: Rng::with_seed(spec.seed),
            queue: BinaryHeap::new(),
            number: 0,
            shop: session::Shop::default(),
            between: per_session / spec.events_per_second * SECOND as f64,
            books: Books::default(),
            spec,
        };
        generator.push(generator.spec.start, Step::Session);
        generator
    }

    /// Every event that has arrived by `now` and was not returned before, in order of arrival.
    pub fn until(&mut self, now: i64) -> Vec<Bytes> {
        let mut out = Vec::new();
        while let Some((_, json)) = self.pop(now) {
            out.push(json);
        }
        out
    }

    /// The next `count` events with their arrival times, without waiting for any clock.
    pub fn take(&mut self, count: usize) -> Vec<(i64, Bytes)> {
        (0..count).map_while(|_| self.pop(i64::MAX)).collect()
    }

    /// What is true of the events returned so far.
    pub fn truth(&self) -> Truth {
        self.books.truth()
    }

    /// What is true of the orders created, the sessions started and the payments made in `[from, to)`
    /// (event time, microseconds; whole seconds), as far as events have been returned. Kept for 25
    /// hours of event time. `emitted`, `refused` and `duplicates` are not told by time and are 0.
    pub fn truth_between(&self, from: i64, to: i64) -> Truth {
        self.books.between(from, to)
    }

    fn pop(&mut self, now: i64) -> Option<(i64, Bytes)> {
        loop {
            let at = self.queue.peek().map(|Reverse(due)| due.at).filter(|at| *at <= now)?;
            let Reverse(due) = self.queue.pop()?;
            match due.step {
                Step::Session => self.begin_session(at),
                Step::Arrive(arrival) => {
                    self.books.arrived(&arrival.what);
                    return Some((at, arrival.json));
                }
            }
        }
    }

    fn push(&mut self, at: i64, step: Step) {
        self.queue.push(Reverse(Due { at, number: self.number, step }));
        self.number += 1;
    }

    fn begin_session(&mut self, at: i64) {
        let wait = -(1.0 - self.rng.f64()).ln() * self.between;
        self.push(at + (wait as i64).max(1), Step::Session);
        for fact in self.shop.session(&mut self.rng, at) {
            self.send(fact);
        }
    }

    /// Puts an event on its way, with what may happen to it.
    fn send(&mut self, fact: Fact) {
        self.books.expect(&fact);
        let id = format!("{:032x}", self.rng.u128(..));
        let json = event::json(&fact, &id);
        let mut at = fact.time + self.rng.i64(1_000..50_000);
        let (mut late, mut out_of_order) = (false, false);
        if self.rng.f64() < self.spec.late {
            late = true;
            at += self.rng.i64(60 * SECOND..1800 * SECOND);
        } else if self.rng.f64() < self.spec.out_of_order {
            out_of_order = true;
            at += self.rng.i64(SECOND / 5..5 * SECOND);
        }
        if self.rng.f64() < self.spec.bad {
            let bad = self.rng.choice(Bad::ALL).unwrap_or(Bad::Malformed);
            let id = format!("{:032x}", self.rng.u128(..));
            let json = event::bad_json(bad, &fact, &id, &mut self.rng);
            let when = at + self.rng.i64(0..SECOND);
            self.push(when, Step::Arrive(Box::new(Arrival { json, what: What::Bad(bad) })));
        }
        if self.rng.f64() < self.spec.duplicates {
            let again = at + self.rng.i64(SECOND / 10..60 * SECOND);
            let arrival = Arrival { json: json.clone(), what: What::Duplicate };
            self.push(again, Step::Arrive(Box::new(arrival)));
        }
        let what = What::Good { fact: Fact { id, ..fact }, late, out_of_order };
        self.push(at, Step::Arrive(Box::new(Arrival { json, what })));
    }
}

/// Mean good events per session, from a trial run of the same scripts.
fn mean_events() -> f64 {
    const SESSIONS: usize = 4000;
    let mut rng = Rng::with_seed(1);
    let mut shop = session::Shop::default();
    let events: usize = (0..SESSIONS).map(|_| shop.session(&mut rng, 0).len()).sum();
    events as f64 / SESSIONS as f64
}

#[cfg(test)]
mod tests;
