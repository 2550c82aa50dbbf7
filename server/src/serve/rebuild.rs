//! What a change of contracts begins with: what is kept of the running engine's state, and what is read again.
//!
//! *In*: the running engine, the contracts that are to answer. *Out*: the state of both, put together at one place; at a
//! start, the contracts of the newest checkpoint, so that they answer meanwhile. *Never*: a row of the running engine
//! lost; dead letters of contracts that did not change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use connectors::receive::SourceStatus;
use contracts::batch::Partition;
use contracts::{Catalog, Effect, StatePlan};
use engine::checkpoint::{Base, CheckpointError, Offsets, Parts};
use engine::{Beside, Engine, Options, Published, TickHook, TickOutcome};
use serde::Serialize;

use super::{Contracts, Shared};
use crate::app::Live;
use crate::backfill::Reading;
use crate::checkpoints::{Kept, Pinned};
use crate::cli::exit::{Exit, Failure};
use crate::history::History;
use crate::pace::Pace;
use crate::reload::{far_enough, nobody_reads, tell_unread};
use crate::settings::Settings;
use crate::sources::{Begin, Generation, TABLE};

/// How often an engine that reads history is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Between two log lines.
const EVERY: Duration = Duration::from_secs(5);

/// What is being built while other contracts answer; shown by `/readyz?verbose`.
#[derive(Debug, Clone, Serialize)]
pub struct Building {
    /// Hash of the contracts that will answer.
    pub contracts: String,
    /// Hash of those that answer meanwhile.
    pub answering: String,
    /// What is going on: `keeping`, `history`, `catching_up`.
    pub phase: &'static str,
    /// What becomes of the state of each contract, those that are kept left out.
    pub state: BTreeMap<String, Effect>,
    /// How many contracts keep their state.
    pub kept: usize,
}

impl Building {
    /// What going from `running` to `new` does, before it begins; the log says so.
    pub(crate) fn new(running: &Catalog, new: &Catalog) -> Self {
        let mut state = BTreeMap::new();
        let mut kept = 0;
        for (kind, name, effect) in StatePlan::new(running, new).contracts(new) {
            match effect {
                Effect::Keep => kept += 1,
                effect => drop(state.insert(format!("{} {name}", kind.name().to_lowercase()), effect)),
            }
        }
        let of = |wanted: Effect| -> String {
            let names = state.iter().filter(|(_, effect)| **effect == wanted).map(|(name, _)| name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let (rebuild, replay) = (of(Effect::Rebuild), of(Effect::Replay));
        tracing::info!(kept, rebuild, replay, "state: kept contracts, those made again, those read again");
        let (contracts, answering) = (new.hash.clone(), running.hash.clone());
        Self { contracts, answering, phase: "keeping", state, kept }
    }
}

/// What an engine of changed contracts begins with.
pub(crate) enum Begun {
    /// State of the running engine and of history; the files are held until it is read.
    Parts(Box<Parts>, Pinned),
    /// Nothing: why.
    Everything(String),
    /// Something else is wanted.
    GivenUp,
}

/// Dead letters of the contracts that are read again, and of no others: they have theirs.
struct Refusals {
    app: Arc<crate::app::App>,
    replayed: BTreeSet<String>,
}

impl TickHook for Refusals {
    fn tick(&self, _published: &Arc<Published>, mut outcome: TickOutcome) {
        let replayed = |name: &String| self.replayed.contains(name);
        outcome.refused.retain(|row| row.event_type.as_ref().is_some_and(replayed));
        self.app.dead.record(outcome.refused);
    }
}

/// The contracts that answer first: those of the newest checkpoint, if the `configured` ones are others. True: the
/// configured ones are to be built.
pub(super) fn answering(
    configured: Contracts,
    history: &History,
    settings: &Settings,
) -> Result<(Contracts, bool), Failure> {
    // What a process that was killed has left.
    Kept::clear(&settings.data)?;
    let newest = Kept::newest(&settings.data, &settings.checkpoints)?;
    let Some(base) = newest.filter(|base| base.catalog() != configured.catalog.hash) else {
        return Ok((configured, false));
    };
    let texts = history.texts(base.catalog());
    let loaded = texts.as_ref().map(|texts| contracts::load(texts));
    match (texts, loaded) {
        (Some(texts), Some(loaded)) if !loaded.has_errors() && loaded.catalog.hash == base.catalog() => {
            tracing::warn!(
                answering = loaded.catalog.hash,
                building = configured.catalog.hash,
                "contracts have changed since the newest checkpoint: those of the checkpoint answer while the new ones are \
                 built"
            );
            Ok((Contracts { catalog: Arc::new(loaded.catalog), texts }, true))
        }
        (texts, _) => {
            let why = if texts.is_some() { "no longer mean the same" } else { "are not known any more" };
            tracing::warn!(
                "the contracts of the newest checkpoint {why}: nothing answers while state is read again"
            );
            Ok((configured, false))
        }
    }
}

impl Shared {
    /// Gathers what an engine of `contracts` begins with, while `running` answers. `enough` says when something else is
    /// wanted.
    pub(crate) fn begin_change(
        &self,
        contracts: &Contracts,
        running: &Live,
        enough: &dyn Fn() -> bool,
    ) -> Result<Begun, Failure> {
        let Some(kept) = &self.checkpoints else {
            return Ok(Begun::Everything("checkpoints are off".to_owned()));
        };
        let id = loop {
            match running.engine.checkpoint() {
                Ok(written) => break written.id,
                Err(CheckpointError::Gate) if !enough() => {
                    tracing::info!("the change of contracts waits until the lake has what was taken");
                }
                Err(CheckpointError::Gate) => return Ok(Begun::GivenUp),
                Err(error) => return Ok(Begun::Everything(error.to_string())),
            }
        };
        let (base, pinned) = match kept.base(id) {
            Ok(held) => held,
            Err(error) => return Ok(Begun::Everything(error.to_string())),
        };
        let new = &contracts.catalog;
        let plan = StatePlan::new(&running.catalog, new);
        let again = match plan.history(new) {
            None => None,
            Some(history) => {
                self.app.building(|building| building.phase = "history");
                match self.read_history(&base, &plan, new, history, enough)? {
                    None => return Ok(Begun::GivenUp),
                    again => again,
                }
            }
        };
        self.app.building(|building| building.phase = "catching_up");
        Ok(Begun::Parts(Box::new(Parts { base, again, plan }), pinned))
    }

    /// Up to where the lake has rows of `wanted` sources, as of the start.
    pub(crate) fn in_lake(&self, wanted: impl Fn(&str) -> bool) -> Offsets {
        let lake = self.app.lake.iter().flat_map(|lake| &lake.reached().0);
        let lake = lake.filter(|(partition, _)| wanted(&partition.source));
        lake.map(|(partition, next)| (partition.clone(), *next)).collect()
    }

    /// Lets go of what was only for a change.
    pub(crate) fn end_change(&self) {
        if let Err(failure) = Kept::clear(&self.settings.data) {
            tracing::warn!(error = failure.message, "files of the change of contracts are left behind");
        }
    }

    /// Makes state from history, up to where `base` stands; `None`: something else is wanted.
    fn read_history(
        &self,
        base: &Base,
        plan: &StatePlan,
        new: &Catalog,
        history: contracts::History,
        enough: &dyn Fn() -> bool,
    ) -> Result<Option<Base>, Failure> {
        let failed = |error: String| Failure::new(Exit::Config, format!("the change of contracts: {error}"));
        let vault = Kept::beside(&self.settings.data)?;
        let again = new.events.iter().zip(&plan.events).filter(|(_, effect)| **effect == Effect::Replay);
        let replayed = again.map(|(event, _)| event.head.name.clone()).collect();
        let hook = Arc::new(Refusals { app: self.app.clone(), replayed });
        let options = Options {
            workers: self.settings.workers,
            keys_per_metric: self.settings.limits.keys_per_metric,
            clock: engine::Clock::Wall,
        };
        let sources: BTreeSet<String> = self.settings.sources.iter().map(|s| s.name.clone()).collect();
        let mut until = base.offsets();
        until.retain(|partition, _| sources.contains(&*partition.source));
        // What the settings do not name any more comes from the lake alone, all of it.
        let unnamed = self.in_lake(|source| !sources.contains(source));
        let beside = Beside { base: base.clone(), vault: vault.clone(), sources, events: history.events };
        let engine = Engine::start_beside(history.catalog.clone(), &options, hook, beside)
            .map_err(|error| failed(error.to_string()))?;
        self.repeat(&engine, &Offsets::new());
        let generation = Generation::start(
            &self.settings.sources,
            &self.logs,
            &history.catalog,
            &self.settings.limits,
            Begin {
                from: Offsets::new(),
                history: self.history(Reading::Everything, &Offsets::new()),
                earliest: false,
                pace: Arc::new(Pace::new(self.settings.limits.backfill)),
                reached: Offsets::new(),
                marks: self.settings.data.join("topics"),
            },
            engine.sender(),
            &self.closed,
        )?;
        self.app.backfills.set_behind(generation.probes());
        let running = || self.app.sources();
        let wanted = Wanted { until: &until, unnamed: &unnamed };
        let reached = reach(&engine, &generation, wanted, &running, &|| enough() || self.stopping());
        self.app.backfills.set_behind(Vec::new());
        let written = reached.then(|| engine.checkpoint());
        generation.stop();
        engine.stop();
        let Some(written) = written else { return Ok(None) };
        let written = written.map_err(|error| failed(error.to_string()))?;
        Base::read(&vault, written.id).map(Some).map_err(|error| failed(error.to_string()))
    }
}

/// How far history goes.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// Of what sources read.
    until: &'a Offsets,
    /// Of what only the lake has.
    unnamed: &'a Offsets,
}

/// Waits until everything that is wanted and all tables have been read; false when something else is wanted.
fn reach(
    engine: &Engine,
    generation: &Generation,
    Wanted { until, unnamed }: Wanted<'_>,
    running: &dyn Fn() -> Vec<SourceStatus>,
    enough: &dyn Fn() -> bool,
) -> bool {
    let reader = engine.reader();
    let mut told = Instant::now();
    while !enough() {
        // What was handed over is published before it is looked at: first the statuses, then the tick.
        let statuses = generation.statuses();
        engine.flush();
        let reached = reader.load();
        let tables = statuses.iter().filter(|status| status.name.starts_with(TABLE));
        let running = running();
        let unread = |partition: &Partition| nobody_reads(partition, &statuses, &running);
        let mut wanted = until.iter();
        let there = wanted.all(|(p, next)| far_enough(&reached, p, *next, &statuses) || unread(p));
        let read = |(p, next): (&Partition, &i64)| reached.offsets.get(p).is_some_and(|at| at.next >= *next);
        let there = there && unnamed.iter().all(read);
        if there && tables.into_iter().all(|table| table.caught_up || table.last_error.is_some()) {
            tell_unread(&reached, until.keys().filter(|p| unread(p)));
            return true;
        }
        if told.elapsed() > EVERY {
            told = Instant::now();
            tracing::info!("history: {}", super::progress::line(&statuses));
        }
        // Waiting for real sources.
        std::thread::sleep(LOOK);
    }
    false
}
