//! Contract reload: on SIGHUP and when contract files change.
//!
//! *In*: triggers. *Out*: a new generation of contracts, engine and receivers, swapped in once it has
//! read what the running one has; or the mistakes, with the running one left as it is.
//! *Never*: a moment without answers, a token that a client holds and the new state does not contain.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use connectors::receive::{PartitionStatus, SourceStatus, State};
use contracts::batch::Partition;
use crossbeam_channel::{Receiver as Channel, Sender};
use engine::Published;
use notify_debouncer_mini::notify::{RecommendedWatcher, RecursiveMode};
use notify_debouncer_mini::{DebounceEventResult, Debouncer, new_debouncer};

use crate::app::Live;
use crate::backfill::{self, Reading};
use crate::serve::handover::hand_over;
use crate::serve::rebuild::{Begun, Building};
use crate::serve::{Begins, Contracts, Shared};
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
            // As the operating system will name them in its events.
            ContractSource::Path(path) => std::path::absolute(path).ok(),
            ContractSource::Pack(_) => None,
        })
        .collect();
    if paths.is_empty() {
        return None;
    }
    let mut seen = Seen::default();
    paths.iter().for_each(|path| seen.remember(path, 0));
    let handler = move |events: DebounceEventResult| {
        // Every path of the batch is remembered, so no short cut with `any`.
        let changed = events.into_iter().flatten().filter(|event| seen.changed(&event.path)).count();
        if changed > 0 {
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

/// When and how long each contract file and folder was. Reading a file is an event for the operating
/// system, too: without this a reload would be the cause of the next one.
#[derive(Debug, Default)]
struct Seen {
    stamps: HashMap<PathBuf, Option<Stamp>>,
}

type Stamp = (std::time::SystemTime, u64);

impl Seen {
    /// Takes in what is there at the start.
    fn remember(&mut self, path: &Path, depth: usize) {
        const DEEPEST: usize = 16;
        self.stamps.insert(path.to_path_buf(), stamp(path));
        let Ok(entries) = std::fs::read_dir(path) else { return };
        for entry in entries.flatten().filter(|_| depth < DEEPEST) {
            self.remember(&entry.path(), depth + 1);
        }
    }

    /// Is `path` a contract file or a folder, and different from the last time?
    fn changed(&mut self, path: &Path) -> bool {
        let contract = path.extension().is_none_or(|e| e == "yaml" || e == "yml");
        let now = stamp(path);
        // What was never there and is not there now was an editor's temporary file.
        contract && self.stamps.insert(path.to_path_buf(), now).unwrap_or_default() != now
    }
}

/// Of a folder only whether it is there: what happens in it is told of its files.
fn stamp(path: &Path) -> Option<Stamp> {
    let data = std::fs::metadata(path).ok()?;
    if data.is_dir() {
        return Some((std::time::UNIX_EPOCH, 0));
    }
    Some((data.modified().ok()?, data.len()))
}

/// The reload thread: one reload after the other until the triggers are gone.
pub fn run(shared: &Arc<Shared>, triggers: &Channel<&'static str>) {
    while let Ok(why) = triggers.recv() {
        if shared.stopping() {
            return;
        }
        // A backfill that was asked for may have taken the place of another trigger.
        let changed = |contracts: &Contracts| {
            shared.app.live().is_ok_and(|running| running.catalog.hash != contracts.catalog.hash)
        };
        if why != backfill::WHY || shared.load_contracts().is_ok_and(|contracts| changed(&contracts)) {
            look_again(shared, triggers, why);
        }
        backfill::run(shared, triggers);
    }
}

fn look_again(shared: &Arc<Shared>, triggers: &Channel<&'static str>, why: &str) {
    tracing::info!(why, "reloading contracts");
    match reload(shared, triggers) {
        Ok(message) => tracing::info!("{message}"),
        Err(error) => {
            tracing::error!("contracts are not reloaded, the last good ones stay:\n{error}");
            shared.app.reloaded(Err(error));
        }
    }
}

/// One reload. The text says what happened; the error is the mistakes.
fn reload(shared: &Arc<Shared>, triggers: &Channel<&'static str>) -> Result<String, String> {
    let contracts = shared.load_contracts()?;
    let running = shared.app.live().map_err(|_| "the engine is not running".to_owned())?;
    if contracts.catalog.hash == running.catalog.hash {
        shared.app.reloaded(Ok(()));
        return Ok("contracts are unchanged in meaning".into());
    }
    let started = Instant::now();
    shared.app.builds(Some(Building::new(&running.catalog, &contracts.catalog)));
    let hash = contracts.catalog.hash.clone();
    let given_up = || shared.stopping() || other_contracts(shared, triggers, &hash);
    let next = begin(shared, contracts, &running, &given_up)?;
    drop(running);
    let Some(number) = next.and_then(|next| take_over(shared, next, given_up)) else {
        shared.app.builds(None);
        return Ok("given up for a newer change or the end of the process".into());
    };
    shared.app.reloaded(Ok(()));
    Ok(answers(number, started))
}

/// Something else is wanted than what is being built: then its turn comes next. A trigger for the same contracts is done
/// with by this build.
fn other_contracts(shared: &Shared, triggers: &Channel<&'static str>, building: &str) -> bool {
    let Ok(why) = triggers.try_recv() else { return false };
    if shared.load_contracts().is_ok_and(|contracts| contracts.catalog.hash == building) {
        tracing::info!(why, "these contracts are being built already");
        return false;
    }
    shared.app.backfills.pull(why);
    true
}

/// The end of a reload in words.
pub(crate) fn answers(generation: u64, started: Instant) -> String {
    let seconds = started.elapsed().as_secs_f64();
    format!("contracts of generation {generation} answer now, after {seconds:.1} s of reading")
}

/// Lets a generation beside the running one catch up and puts it in that one's place. `None`: `given_up` said so, or the
/// process ends.
pub(crate) fn take_over(
    shared: &Arc<Shared>,
    (live, generation): (Live, Generation),
    given_up: impl Fn() -> bool,
) -> Option<u64> {
    shared.app.backfills.set_behind(generation.probes());
    let caught_up = catch_up(shared, given_up, &live, &generation);
    shared.app.backfills.set_behind(Vec::new());
    if !caught_up {
        generation.stop();
        return None;
    }
    generation.pace().open();
    let number = live.generation;
    let old = shared.app.swap(live);
    if let Some(old) = &old {
        old.engine.retire();
    }
    let old_generation = shared.replace_generation(generation);
    if let Some(old_generation) = old_generation {
        old_generation.stop();
    }
    drop(old);
    Some(number)
}

/// Starts an engine of `contracts` with all state that may be kept, and the rest read again; `None`: something else is
/// wanted.
fn begin(
    shared: &Shared,
    contracts: Contracts,
    running: &Live,
    enough: &dyn Fn() -> bool,
) -> Result<Option<(Live, Generation)>, String> {
    let number = running.generation + 1;
    let begun = shared.begin_change(&contracts, running, enough).map_err(|failure| failure.message)?;
    let why = match begun {
        Begun::GivenUp => return Ok(None),
        Begun::Everything(why) => why,
        Begun::Parts(parts, pinned) => {
            let again = Contracts { catalog: contracts.catalog.clone(), texts: contracts.texts.clone() };
            let started = shared.start_generation(again, number, Begins::With(parts));
            drop(pinned);
            shared.end_change();
            match started {
                Ok(started) => return Ok(Some(started)),
                Err(failure) => failure.message,
            }
        }
    };
    tracing::warn!(why, "no state can be kept: everything is read from the beginning");
    shared.app.building(|building| building.phase = "catching_up");
    let started = shared.start_generation(contracts, number, Begins::Reading(Reading::Everything));
    started.map(Some).map_err(|failure| failure.message)
}

/// Waits until `live` contains all that the running engine contains; false when something else is
/// wanted meanwhile.
fn catch_up(shared: &Shared, given_up: impl Fn() -> bool, live: &Live, generation: &Generation) -> bool {
    let mut told = Instant::now();
    // It is behind the running one by a moment, always, for it follows it.
    let mut wanted = None;
    loop {
        if shared.stopping() || given_up() {
            return false;
        }
        let Ok(running) = shared.app.live() else { return false };
        let statuses = generation.statuses();
        let reached = live.reader.load();
        let sources = shared.app.sources();
        let has_all = |reached: &Published, wanted: &Published| has_all(shared, generation, reached, wanted);
        let before = wanted.replace(running.reader.load()).filter(|wanted| has_all(&reached, wanted));
        if let Some(before) = before
            && ready(&statuses, &sources)
            && hand_over(&running, live, has_all)
        {
            let in_lake = shared.in_lake(|_| true);
            let missing = |p: &&Partition| nobody_reads(p, &statuses, &sources) && !in_lake.contains_key(*p);
            tell_unread(&reached, before.offsets.keys().filter(missing));
            return true;
        }
        // What arrives meanwhile is read on top of the bound, else it might never be reached.
        generation.pace().live(sources.iter().map(|source| source.per_second).sum());
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            tracing::info!("{}", crate::serve::progress::line(&statuses));
        }
        // Waiting for real sources.
        std::thread::sleep(LOOK);
    }
}

/// Every partition of `wanted` is read as far, or there is nothing left to read in it.
fn has_all(shared: &Shared, generation: &Generation, reached: &Published, wanted: &Published) -> bool {
    let (statuses, sources) = (generation.statuses(), shared.app.sources());
    let mut wanted = wanted.offsets.iter();
    wanted.all(|(partition, progress)| {
        far_enough(reached, partition, progress.next, &statuses)
            || nobody_reads(partition, &statuses, &sources)
    })
}

/// A partition is read up to `next`, or there is nothing left to read in it.
pub(crate) fn far_enough(
    reached: &Published,
    partition: &Partition,
    next: i64,
    statuses: &[SourceStatus],
) -> bool {
    let far_enough = reached.offsets.get(partition).is_some_and(|p| p.next >= next);
    far_enough
        || of(partition, statuses).any(|s| {
            // Retention took what the running engine once read: it cannot be read again.
            let part = s.partitions.iter().find(|p| is(p, partition));
            part.is_some_and(|p| p.lag == Some(0) && !reached.offsets.contains_key(partition))
        })
}

/// A source, topic or partition that is not named any more, or is gone: nothing of it will come. What the running
/// receivers read is only not found yet.
pub(crate) fn nobody_reads(partition: &Partition, new: &[SourceStatus], running: &[SourceStatus]) -> bool {
    let reads = |s: &SourceStatus| s.partitions.iter().any(|p| is(p, partition));
    of(partition, new).all(|s| s.caught_up && !reads(s) && !of(partition, running).any(reads))
}

fn of<'a>(partition: &'a Partition, statuses: &'a [SourceStatus]) -> impl Iterator<Item = &'a SourceStatus> {
    statuses.iter().filter(|status| status.name == *partition.source)
}

fn is(status: &PartitionStatus, partition: &Partition) -> bool {
    status.topic == partition.topic && status.number == partition.number
}

/// Says which partitions were not waited for.
pub(crate) fn tell_unread<'a>(reached: &Published, unread: impl Iterator<Item = &'a Partition>) {
    for partition in unread.filter(|partition| !reached.offsets.contains_key(*partition)) {
        let Partition { source, topic, number } = partition;
        tracing::warn!(
            %source, %topic, number,
            "no source reads this partition any more: the change does not wait for it, and what is made again lacks what \
             only it had"
        );
    }
}

/// Every new receiver has read what was there, unless its twin of the running generation has not either, or waits
/// for the same thing.
fn ready(new: &[SourceStatus], running: &[SourceStatus]) -> bool {
    new.iter().all(|status| {
        let waits = matches!(status.state, State::Waiting(_));
        let no_worse = |twin: &SourceStatus| !twin.caught_up || (waits && twin.state == status.state);
        status.caught_up || running.iter().any(|twin| twin.name == status.name && no_worse(twin))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_no_change_writing_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut seen = Seen::default();
        seen.remember(folder.path(), 0);
        std::fs::read(&file).unwrap();
        assert!(!seen.changed(&file) && !seen.changed(folder.path()));
        std::fs::write(&file, "ab").unwrap();
        assert!(seen.changed(&file) && !seen.changed(&file));
        std::fs::remove_file(&file).unwrap();
        assert!(seen.changed(&file) && !seen.changed(&file));
        std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
        assert!(!seen.changed(&folder.path().join("notes.txt")));
        assert!(!seen.changed(&folder.path().join("sedX1y2")) && !seen.changed(folder.path()));
        std::fs::create_dir(folder.path().join("more")).unwrap();
        assert!(seen.changed(&folder.path().join("more")));
    }
}
