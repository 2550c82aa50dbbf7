//! The only door to time.
//!
//! *In*: the [`Clock`] setting. *Out*: a "now" in microseconds since the Unix epoch that never goes back.
//! *Never*: read by operators; the instant of a tick is handed to them.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::api::Clock;

/// The engine's clock.
#[derive(Debug)]
pub(crate) struct Now {
    manual: bool,
    last: i64,
}

impl Now {
    pub(crate) fn new(clock: &Clock) -> Self {
        match clock {
            Clock::Wall => Self { manual: false, last: i64::MIN },
            Clock::Manual(start) => Self { manual: true, last: *start },
        }
    }

    /// Whether it only moves when set.
    pub(crate) fn is_manual(&self) -> bool {
        self.manual
    }

    /// Goes on from an earlier run's last instant.
    pub(crate) fn resume(&mut self, last: i64) {
        self.last = self.last.max(last);
    }

    /// Moves a manual clock forward.
    pub(crate) fn set(&mut self, now: i64) {
        self.last = self.last.max(now);
    }

    /// Microseconds since the Unix epoch, never less than before.
    pub(crate) fn read(&mut self) -> i64 {
        if !self.manual {
            self.last = self.last.max(wall());
        }
        self.last
    }
}

/// For measuring how long something takes; no answer depends on it.
#[allow(clippy::disallowed_methods)] // the one place that reads it
pub(crate) fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

#[allow(clippy::disallowed_methods)] // the one place that reads the machine's clock
fn wall() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}
