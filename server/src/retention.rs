//! What the embedded logs must keep, and whether sources still hold what is needed of them.
//!
//! *In*: the checkpoints, how far the lake is complete. *Out*: from which offset on each log keeps its records; at a start,
//! a stop where records that are still needed are gone. *Never*: a record let go that the oldest kept checkpoint or the
//! lake would read again (rule 11 of decision 0014).

use std::time::Duration;

use connectors::receive::Offsets;
use connectors::receive::log::TOPIC;
use connectors::receive::offsets::Known;
use contracts::batch::Partition;
use engine::checkpoint::CheckpointError;

use crate::cli::exit::{Exit, Failure};
use crate::serve::Shared;
use crate::settings::Source;
use crate::sources::Logs;

/// How soon another checkpoint is tried.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked.
const EVERY: Duration = Duration::from_millis(200);

/// Where each log is read from; an error when records in between are gone, or when it is another log.
///
/// # Errors
/// `offset_gap`, `topic_regressed`.
pub(crate) fn check_logs(
    sources: &[Source],
    logs: &Logs,
    reached: &Offsets,
    from: &mut Offsets,
) -> Result<(), Failure> {
    for (name, log) in logs {
        let at = Partition { source: name.as_str().into(), topic: TOPIC.into(), number: 0 };
        let accepted = sources.iter().find(|source| source.name == *name);
        let accepted = accepted.map(|source| source.accept_loss.clone()).unwrap_or_default();
        let known = Known { reached: reached.clone(), accepted };
        let stands = known.stand(&at, from.get(&at).copied(), log.start(), log.end());
        let next = stands.map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
        if let Some(next) = next
            && let Some(before) = from.insert(at, next).filter(|before| *before != next)
        {
            tracing::warn!(
                source = name,
                before,
                next,
                lost = next - before,
                "a loss that the settings accept"
            );
        }
    }
    Ok(())
}

/// Tells the logs what may go, until the process stops.
pub(crate) fn run(shared: &Shared) {
    let (mut newest, mut needed, mut waited) = (None, None, Duration::ZERO);
    while !shared.stopping() {
        let live = shared.app.live().ok();
        let latest =
            live.as_ref().and_then(|live| live.engine.checkpoints()?.newest).map(|written| written.id);
        if needed.is_none() || latest != newest {
            newest = latest;
            needed = needed_by_checkpoints(shared);
        }
        if let Some(needed) = &needed {
            let complete = shared.app.lake.as_ref().map(|lake| lake.status().complete);
            for (name, log) in shared.logs() {
                let at = Partition { source: name.as_str().into(), topic: TOPIC.into(), number: 0 };
                let lake = complete.as_ref().map_or(i64::MAX, |complete| complete.next(&at).max(0));
                log.hold(needed.of(&at).min(lake));
            }
        }
        // Checkpoints are written when something new comes. Here nothing may come any more: a log is held by old ones, or
        // the disk did not take the last one.
        let held = shared.logs().values().any(|log| log.is_held());
        let failed = || live.as_ref()?.engine.checkpoints()?.error;
        waited += EVERY;
        if let Some(live) = live.as_ref().filter(|_| waited >= AGAIN && (held || failed().is_some())) {
            waited = Duration::ZERO;
            match live.engine.checkpoint() {
                Err(error) if held && error != CheckpointError::Off => {
                    tracing::warn!(%error, "a log is full of what checkpoints need, and no newer one can be written");
                }
                _ => {}
            }
        }
        // Watching the real process.
        std::thread::sleep(EVERY);
    }
}

/// What the kept checkpoints would read again.
enum Needed {
    Nothing,
    Everything,
    From(Offsets),
}

impl Needed {
    fn of(&self, at: &Partition) -> i64 {
        match self {
            Needed::Nothing => i64::MAX,
            Needed::Everything => 0,
            Needed::From(offsets) => offsets.get(at).copied().unwrap_or(0),
        }
    }
}

/// `None`: not known now.
fn needed_by_checkpoints(shared: &Shared) -> Option<Needed> {
    let Some(kept) = shared.checkpoints() else { return Some(Needed::Nothing) };
    match kept.needed() {
        Ok(None) => Some(Needed::Everything),
        Ok(Some(offsets)) => Some(Needed::From(offsets)),
        Err(error) => {
            tracing::warn!(%error, "the checkpoints cannot be read: the logs let nothing go");
            None
        }
    }
}
