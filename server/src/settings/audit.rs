//! `audit:` - the second truth: what is kept for it, and how often it looks by itself.
//!
//! *In*: the section. *Out*: [`Audit`]. *Never*: an audit that costs more than it says.

use std::time::Duration;

use super::read::{Report, Section, bytes, duration, whole};

/// `audit:` settings.
#[derive(Debug, Clone, Copy)]
pub struct Audit {
    /// How often numbers are compared.
    pub every: Duration,
    /// How many each time; 0: never.
    pub numbers: usize,
    /// Bytes of events in memory; 0: no events are kept, nothing can be recomputed.
    pub memory: u64,
    /// Bytes of events in files below `data`.
    pub disk: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self { every: Duration::from_secs(20), numbers: 3, memory: 64 << 20, disk: 2 << 30 }
    }
}

impl Audit {
    /// Reads the section.
    pub fn read(root: &mut Section<'_>, report: &mut Report) -> Self {
        let known = Self::default();
        let mut section = root.section("audit", report);
        let number = |text: &str| whole(text).and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= 1_000);
        let size = |text: &str| if text == "0" { Some(0) } else { bytes(text) };
        let audit = Self {
            every: section.value(
                "every",
                ("20s", known.every),
                "a duration of at least 1s",
                |text| duration(text).filter(|every| *every >= Duration::from_secs(1)),
                report,
            ),
            numbers: section.value(
                "numbers",
                ("3", known.numbers),
                "a whole number from 0 to 1000",
                number,
                report,
            ),
            memory: section.value(
                "memory",
                ("64MiB", known.memory),
                "a size such as 64MiB, or 0",
                size,
                report,
            ),
            disk: section.value("disk", ("2GiB", known.disk), "a size such as 2GiB, or 0", size, report),
        };
        section.done(report);
        audit
    }
}
