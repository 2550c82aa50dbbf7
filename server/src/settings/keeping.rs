//! `checkpoints:` - where and how often the state is kept, and how many of them stay.
//!
//! *In*: the section. *Out*: [`Keeping`]. *Never*: less than two checkpoints, where there are any.

use std::time::Duration;

use super::Base;
use super::read::{Report, Section, duration, whole};

/// `checkpoints:` settings.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// How often; zero: never.
    pub every: Duration,
    /// How many stay, at least 2: the newest may turn out to be damaged.
    pub keep: usize,
    /// A folder or `s3://bucket/prefix`; `None`: `checkpoints` in the data folder.
    pub place: Option<String>,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { every: Duration::from_secs(30), keep: 3, place: None }
    }
}

impl Keeping {
    /// Reads the section.
    pub(super) fn read(root: &mut Section<'_>, base: &Base, report: &mut Report) -> Self {
        let known = Self::default();
        let mut section = root.section("checkpoints", report);
        let every = |text: &str| match text {
            "0" => Some(Duration::ZERO),
            text => duration(text).filter(|every| *every >= Duration::from_secs(1)),
        };
        let keep =
            |text: &str| whole(text).and_then(|n| usize::try_from(n).ok()).filter(|n| (2..=100).contains(n));
        let keeping = Self {
            every: section.value(
                "every",
                ("30s", known.every),
                "a duration of at least 1s, or 0",
                every,
                report,
            ),
            keep: section.value("keep", ("3", known.keep), "a whole number from 2 to 100", keep, report),
            place: section.place("place", base, report),
        };
        section.done(report);
        keeping
    }
}
