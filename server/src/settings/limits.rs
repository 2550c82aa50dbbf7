//! `limits:` - how much one process takes before it says no.
//!
//! *In*: the section. *Out*: [`Limits`]. *Never*: a limit of 0 where that would stop everything.

use connectors::store::dead_letters::Limits as DeadLimits;

use super::read::{Report, Section, bytes, duration, whole};

/// `limits:` settings.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Greatest body of a request, bytes; longer ones are answered 413.
    pub body: u64,
    /// Greatest number of different dimension combinations a metric keeps.
    pub keys_per_metric: usize,
    /// Resident memory, bytes, above which sources wait.
    pub memory: u64,
    /// Rows per second that a generation which catches up beside a running one reads, on top of those that arrive
    /// meanwhile; 0: no bound.
    pub backfill: u64,
    /// Bytes of the embedded log of one source.
    pub log: u64,
    /// Bounds of the dead letters.
    pub dead: DeadLimits,
}

impl Limits {
    /// Reads the section.
    pub fn read(root: &mut Section<'_>, report: &mut Report) -> Self {
        let mut section = root.section("limits", report);
        // Where the operating system does not tell, only a written limit holds.
        let most = crate::serve::memory::machine().map_or(u64::MAX, |all| all / 4 * 3);
        let dead = read_dead(&mut section, report);
        let limits = Self {
            dead,
            body: section.value("body", ("1MiB", 1 << 20), "a size such as 1MiB", bytes, report),
            keys_per_metric: section.value(
                "keys_per_metric",
                ("1_000_000", 1_000_000),
                "a whole number above 0",
                |text| whole(text).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0),
                report,
            ),
            memory: section.value(
                "memory",
                ("3/4 of the machine", most),
                "a size such as 1GiB",
                bytes,
                report,
            ),
            backfill: section.value(
                "backfill",
                ("100_000", 100_000),
                "a whole number of rows per second, or 0",
                whole,
                report,
            ),
            log: section.value("log", ("8GiB", 8 << 30), "a size such as 8GiB", bytes, report),
        };
        section.done(report);
        limits
    }
}

fn read_dead(section: &mut Section<'_>, report: &mut Report) -> DeadLimits {
    let known = DeadLimits::default();
    let count = |text: &str| whole(text).filter(|n| *n > 0);
    DeadLimits {
        max_bytes: section.value(
            "dead_letters",
            ("1GiB", known.max_bytes),
            "a size such as 1GiB",
            bytes,
            report,
        ),
        max_age: section.value(
            "dead_letters_age",
            ("30d", known.max_age),
            "a duration such as 30d",
            duration,
            report,
        ),
        max_count: section.value(
            "dead_letters_count",
            ("100_000", known.max_count),
            "a whole number above 0",
            count,
            report,
        ),
    }
}
