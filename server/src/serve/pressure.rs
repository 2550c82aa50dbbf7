//! The intake pauses while memory, the lake or the dead letters take no more, and goes on by itself.
//!
//! *In*: the memory of the process, the lake, the dead letters, the sources, every 100 ms. *Out*: the gate of the
//! receivers; why, for `/readyz` and for pushes, which are answered 503 meanwhile. *Never*: an event that was
//! acknowledged let go; a push refused that is stored all the same.

use std::sync::atomic::Ordering;
use std::time::Duration;

use connectors::receive::State;

use super::{Shared, memory};
use crate::app::App;
use crate::error::{Problem, ProblemItem, Result};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);
/// `Retry-After` where it is only a matter of speed, seconds.
const SOON: u64 = 1;
/// `Retry-After` where something is full, away or broken, seconds.
const LATER: u64 = 5;

/// Names of the reasons: stable, answers and self-metrics have them.
pub(crate) const REASONS: [&str; 4] = [MEMORY, LAKE, DEAD_LETTERS, SOURCE];
const MEMORY: &str = "memory_limit";
const LAKE: &str = "lake_full";
const DEAD_LETTERS: &str = "dead_letters_full";
const SOURCE: &str = "source_failed";

/// One reason why events are not taken for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pressure {
    /// Stable name: `memory_limit`, `lake_full`, `dead_letters_full`, `source_failed`.
    pub code: &'static str,
    /// What is the matter.
    pub message: String,
    /// What somebody can do about it.
    pub help: &'static str,
    /// Seconds after which to try again.
    pub retry_after: u64,
    /// The only source that it is about; `None`: all of them, and they wait.
    pub source: Option<String>,
}

impl Pressure {
    fn of_memory(limit: u64) -> Self {
        Self {
            code: MEMORY,
            message: format!("limits.memory is reached ({} MiB)", limit >> 20),
            help: "it goes on when memory falls; raise limits.memory, or give the machine or container more",
            retry_after: LATER,
            source: None,
        }
    }

    fn of_lake(app: &App) -> Option<Self> {
        let status = app.lake.as_ref().filter(|lake| lake.is_full())?.status();
        let (help, retry_after) = match (&status.trouble, status.stopped) {
            (_, true) => {
                ("the lake has stopped for good: mend what it says, then start the server again", LATER)
            }
            (Some(_), _) => ("the lake is tried again by itself, at least every 10 s", LATER),
            (None, _) => {
                ("it goes on when rows have been committed; lake.memory says how many may wait", SOON)
            }
        };
        let trouble = status.trouble.unwrap_or_else(|| "it is slower than the sources".to_owned());
        let message = format!("{} rows wait for the lake: {trouble}", status.waiting_rows);
        Some(Self { code: LAKE, message, help, retry_after, source: None })
    }

    fn of_dead_letters(app: &App) -> Option<Self> {
        app.dead.is_full().then(|| {
            let trouble = app.dead.trouble();
            let retry_after = if trouble.is_some() { LATER } else { SOON };
            let trouble = trouble.unwrap_or_else(|| "the disk is slow".to_owned());
            Self {
                code: DEAD_LETTERS,
                message: format!("refused events wait for the disk: {trouble}"),
                help: "make room on the disk of the data folder; it is tried again by itself",
                retry_after,
                source: None,
            }
        })
    }

    /// Of a log that nobody reads any more: what is pushed into it would be acknowledged and never counted.
    fn of_sources(app: &App) -> impl Iterator<Item = Self> {
        let of_source = |name: String, why: String| Self {
            code: SOURCE,
            message: format!("source `{name}` has stopped: {why}"),
            help: "what was acknowledged is in the log: mend what it says, then start the server again",
            retry_after: LATER,
            source: Some(name),
        };
        let sources = app.sources().into_iter().filter(|source| app.logs.contains_key(&source.name));
        sources.filter_map(move |source| match source.state {
            State::Failed(why) => Some(of_source(source.name, why)),
            _ => None,
        })
    }
}

/// Watches until the process ends.
pub(super) fn watch(shared: &Shared, limit: u64) {
    let app = &shared.app;
    let mut memory = memory::Watch::new(limit);
    let mut before = false;
    while !shared.stopping() {
        let over = memory.look();
        if over != before {
            before = over;
            memory.tell(over);
        }
        let mut why: Vec<Pressure> = over.then(|| Pressure::of_memory(limit)).into_iter().collect();
        why.extend(Pressure::of_lake(app));
        why.extend(Pressure::of_dead_letters(app));
        // First the pushes, then the sources: nothing is acknowledged into a log that is not read.
        let closed = !why.is_empty();
        why.extend(Pressure::of_sources(app));
        app.pause(why);
        shared.closed.store(closed, Ordering::Release);
        // Watching the real process.
        std::thread::sleep(LOOK);
    }
    // At the end chunks on their way must reach the engine: a closed gate would hold them for ever.
    shared.closed.store(false, Ordering::Release);
}

/// Whether a request may put events into the log of `source`. `always`: while it has room, and somebody reads it.
///
/// # Errors
/// 503 with the reasons; nothing may be stored then.
pub(crate) fn takes(app: &App, source: &str, always: bool) -> Result<()> {
    let mut why = app.paused();
    why.retain(|one| one.source.as_ref().map_or(!always, |of| of == source));
    let Some(longest) = why.iter().map(|one| one.retry_after).max() else { return Ok(()) };
    let told: Vec<&str> = why.iter().map(|one| one.message.as_str()).collect();
    let detail = format!(
        "Nothing of this request was stored, because no events are taken for now: {}. Send it again after the seconds of \
         Retry-After; /readyz says when it goes on.",
        told.join("; ")
    );
    let mut problem = Problem::unavailable("intake_paused", detail, longest);
    problem.errors = why.into_iter().map(item).collect();
    Err(problem)
}

fn item(one: Pressure) -> ProblemItem {
    let Pressure { code, message, help, source, .. } = one;
    let place = source.map_or_else(|| "intake".to_owned(), |source| format!("source {source}"));
    ProblemItem { place, code: code.into(), message, help: Some(help.into()), ..ProblemItem::default() }
}
