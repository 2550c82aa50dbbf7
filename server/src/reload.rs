//! Contract reload: on SIGHUP and when contract files change.
//!
//! *In*: triggers. *Out*: a new generation of contracts, engine and receivers, swapped in once it has
//! read what the running one has; or the mistakes, with the running one left as it is.
//! *Never*: a moment without answers, a token that a client holds and the new state does not contain.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connectors::receive::SourceStatus;
use crossbeam_channel::{Receiver as Channel, Sender};
use engine::Published;
use notify_debouncer_mini::notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_mini::{DebounceEventResult, Debouncer, new_debouncer};

use crate::app::Live;
use crate::serve::Shared;
use crate::settings::ContractSource;
use crate::sources::Generation;

/// Editors write a file in several steps; all within this time are one change.
const SETTLE: Duration = Duration::from_millis(300);
/// How often a new generation is looked at while it catches up.
const LOOK: Duration = Duration::from_millis(20);

/// Asks for a reload.
#[derive(Debug, Clone)]
pub struct Trigger {
    to: Sender<&'static str>,
}

impl Trigger {
    /// `why` is for the log. A reload that is asked for already covers this one.
    pub fn pull(&self, why: &'static str) {
        let _ = self.to.try_send(why);
    }
}

/// A trigger and the end the reload thread listens on.
pub fn trigger() -> (Trigger, Channel<&'static str>) {
    let (to, from) = crossbeam_channel::bounded(1);
    (Trigger { to }, from)
}

/// Watches contract folders and files; keep the result alive.
pub fn watch(contracts: &[ContractSource], trigger: Trigger) -> Option<Debouncer<RecommendedWatcher>> {
    let paths: BTreeSet<PathBuf> = contracts
        .iter()
        .filter_map(|source| match source {
            ContractSource::Path(path) => Some(path.clone()),
            ContractSource::Pack(_) => None,
        })
        .collect();
    if paths.is_empty() {
        return None;
    }
    let handler = move |events: DebounceEventResult| {
        let contract = |path: &std::path::Path| path.extension().is_some_and(|e| e == "yaml" || e == "yml") || path.extension().is_none();
        if events.is_ok_and(|events| events.iter().any(|e| contract(&e.path))) {
            trigger.pull("a contract file changed");
        }
    };
    let mut debouncer = match new_debouncer(SETTLE, handler) {
        Ok(debouncer) => debouncer,
        Err(error) => {
            tracing::warn!(%error, "contract files are not watched; send SIGHUP to reload them");
            return None;
        }
    };
    for path in paths {
        // A file is watched through its folder: editors replace files by renaming.
        let folder = if path.is_file() { path.parent().map(PathBuf::from).unwrap_or_default() } else { path };
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        if let Err(error) = debouncer.watcher().watch(&folder, RecursiveMode::Recursive) {
            tracing::warn!(%error, folder = %folder.display(), "not watched; send SIGHUP to reload");
        }
    }
    Some(debouncer)
}

/// The reload thread: one reload after the other until the triggers are gone.
pub fn run(shared: &Arc<Shared>, triggers: &Channel<&'static str>) {
    while let Ok(why) = triggers.recv() {
        if shared.stopping() {
            return;
        }
        tracing::info!(why, "reloading contracts");
        match reload(shared, triggers) {
            Ok(message) => {
                shared.app.reloaded(Ok(()));
                tracing::info!("{message}");
            }
            Err(error) => {
                tracing::error!("contracts are not reloaded, the last good ones stay:\n{error}");
                shared.app.reloaded(Err(error));
            }
        }
    }
}

/// One reload. The text says what happened.
fn reload(shared: &Arc<Shared>, triggers: &Channel<&'static str>) -> Result<String, String> {
    let contracts = shared.load_contracts()?;
    let running = shared.app.live().map_err(|_| "the engine is not running".to_owned())?;
    if contracts.catalog.hash == running.catalog.hash {
        return Ok("contracts are unchanged in meaning".into());
    }
    let started = Instant::now();
    let (live, generation) =
        shared.start_generation(contracts, running.generation + 1).map_err(|failure| failure.message)?;
    drop(running);
    if !catch_up(shared, triggers, &live, &generation) {
        generation.stop();
        return Err("interrupted by a newer change or the end of the process".into());
    }
    let number = live.generation;
    let old = shared.app.swap(live);
    let old_generation = shared.replace_generation(generation);
    if let Some(old_generation) = old_generation {
        old_generation.stop();
    }
    drop(old);
    Ok(format!("contracts of generation {number} answer now, after {:.1} s of reading", started.elapsed().as_secs_f64()))
}

/// Waits until `live` contains all that the running engine contains; false when something else is
/// wanted meanwhile.
fn catch_up(shared: &Shared, triggers: &Channel<&'static str>, live: &Live, generation: &Generation) -> bool {
    let mut told = Instant::now();
    loop {
        if shared.stopping() {
            return false;
        }
        if !triggers.is_empty() {
            return false;
        }
        let Ok(running) = shared.app.live() else { return false };
        // The running one first: what it holds now is what the new one must reach.
        let wanted = running.reader.load();
        let statuses = generation.statuses();
        let reached = live.reader.load();
        if contains(&reached, &wanted, &statuses) && ready(&statuses, &shared.app.sources()) {
            return true;
        }
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            tracing::info!("{}", crate::serve::progress::line(&statuses));
        }
        // Waiting for real sources.
        std::thread::sleep(LOOK);
    }
}

/// Every partition of `wanted` is read as far, or there is nothing left to read in it.
fn contains(reached: &Published, wanted: &Published, statuses: &[SourceStatus]) -> bool {
    wanted.offsets.iter().all(|(partition, progress)| {
        let far_enough = reached.offsets.get(partition).is_some_and(|p| p.next >= progress.next);
        far_enough
            || statuses.iter().filter(|s| s.name == *partition.source).any(|s| {
                let part = s.partitions.iter().find(|p| p.topic == partition.topic && p.number == partition.number);
                // Retention took what the running engine once read: it cannot be read again.
                part.is_some_and(|p| p.lag == Some(0) && !reached.offsets.contains_key(partition))
            })
    })
}

/// Every new receiver has read what was there, unless its twin of the running generation has not either.
fn ready(new: &[SourceStatus], running: &[SourceStatus]) -> bool {
    new.iter().all(|status| {
        status.caught_up || running.iter().any(|twin| twin.name == status.name && !twin.caught_up)
    })
}
