//! How fast a generation that catches up beside a running one may read.
//!
//! *In*: a rate, rows that want to pass. *Out*: their waits. *Never*: a wait once the generation answers, or while it
//! ends; a rate below that of the events that arrive meanwhile: it would never catch up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A waiting gate looks so often whether it may stop waiting.
const LOOK: Duration = Duration::from_millis(20);
/// What was not used for so long is lost: a burst after a pause is no longer than this.
const BURST_MICROS: u64 = 100_000;

/// A bound on rows per second, shared by whoever passes rows and whoever knows the circumstances.
#[derive(Debug)]
pub struct Pace {
    bucket: Mutex<Bucket>,
    /// Rows per second; 0: no bound.
    rate: u64,
    /// Rows per second that arrive meanwhile; they are read on top.
    live: AtomicU64,
    open: AtomicBool,
    started: Instant,
}

impl Pace {
    /// `rate` rows per second; 0: no bound.
    pub fn new(rate: u64) -> Self {
        Self {
            bucket: Mutex::default(),
            rate,
            live: AtomicU64::new(0),
            open: AtomicBool::new(rate == 0),
            started: Instant::now(),
        }
    }

    /// No bound from now on.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Whether there is no bound.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// So many rows per second arrive at the sources now.
    pub fn live(&self, rows: u64) {
        self.live.store(rows, Ordering::Relaxed);
    }

    /// Returns when `rows` more may have passed.
    pub fn pass(&self, rows: u64) {
        if self.is_open() {
            return;
        }
        let rate = self.rate.saturating_add(self.live.load(Ordering::Relaxed));
        let now = || u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let until = self.bucket.lock().take(rows, now(), rate);
        while !self.is_open() {
            let left = Duration::from_micros(until.saturating_sub(now()));
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

/// A token bucket that may be overdrawn: rows come in chunks larger than it.
#[derive(Debug, Default)]
struct Bucket {
    /// When what was taken has been paid for, microseconds.
    paid: u64,
}

impl Bucket {
    /// Takes `rows` at the instant `now`; they may pass at the instant returned.
    fn take(&mut self, rows: u64, now: u64, rate: u64) -> u64 {
        let at = self.paid.max(now.saturating_sub(BURST_MICROS));
        let price = u128::from(rows) * 1_000_000 / u128::from(rate.max(1));
        self.paid = at.saturating_add(u64::try_from(price).unwrap_or(u64::MAX));
        at.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_held_by_a_manual_clock() {
        // Chunks of all sizes at 1,000 rows/s, by a gate that waits as it is told.
        let (mut bucket, mut now, mut passed) = (Bucket::default(), 0, Vec::new());
        for round in 0..2_000_u64 {
            let rows = 1 + round * 7 % 97;
            now = bucket.take(rows, now, 1_000);
            passed.push((now, rows));
        }
        // In no second, wherever it begins, pass more than its rows, a burst and the chunk that overdraws.
        for (i, (from, _)) in passed.iter().enumerate() {
            let second: u64 =
                passed[i..].iter().take_while(|(at, _)| at - from < 1_000_000).map(|(_, rows)| rows).sum();
            assert!(second <= 1_000 + 100 + 97, "{second} rows in the second from {from}");
        }
        let all: u64 = passed.iter().map(|(_, rows)| rows).sum();
        let wanted = all * 1_000;
        assert!(now <= wanted && now + 300_000 > wanted, "{now} of {wanted} microseconds");
    }

    #[test]
    fn a_pause_gives_a_short_burst_only() {
        let mut bucket = Bucket::default();
        let start = 60_000_000;
        let at: Vec<u64> = (0..5).map(|_| bucket.take(50, start, 1_000)).collect();
        assert_eq!(at, [start, start, start, start + 50_000, start + 100_000]);
    }

    #[test]
    fn no_bound_and_an_open_gate_never_wait() {
        Pace::new(0).pass(u64::MAX);
        let pace = Pace::new(1);
        pace.open();
        pace.pass(u64::MAX);
        pace.pass(u64::MAX);
    }
}
