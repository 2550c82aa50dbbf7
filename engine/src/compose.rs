//! Engines of a change of contracts: one that reads history beside the running one, and one that takes both over.
//!
//! *In*: a checkpoint of the running engine, and what the change keeps. *Out*: what these engines begin with. *Never*: ids
//! hashed by another secret than the running engine's; a clock that is not that of the checkpoint.

use std::collections::BTreeSet;
use std::sync::Arc;

use contracts::Catalog;
use operators::admit::dedupe::Secret;

use crate::api::{Clock, EngineError, Options};
use crate::checkpoint::{Base, Checkpoints, Offsets, Open, Parts, RestoreError, Restored, Vault, Writer};
use crate::clock::monotonic;
use crate::coordinator::Keeping;
use crate::plan::EnginePlan;
use crate::publish::Before;
use crate::resume::{Line, Resume};
use crate::start::{Start, assemble, empty};

/// How an engine reads history: up to where `base` stands, and at its instant.
#[derive(Debug)]
pub struct Beside {
    /// The checkpoint of the running engine.
    pub base: Base,
    /// Where to keep what was made.
    pub vault: Arc<dyn Vault>,
    /// Sources that end where the checkpoint stands; others are read as they are.
    pub sources: BTreeSet<String>,
    /// Indexes of the events that are read.
    pub events: BTreeSet<usize>,
}

impl Beside {
    /// The clock of such an engine stands still.
    pub(crate) fn clock(&self) -> Clock {
        Clock::Manual(self.base.manifest.now)
    }

    pub(crate) fn start(self, plan: &Arc<EnginePlan>, options: &Options) -> Result<Start, EngineError> {
        let secret = self.base.secret().clone();
        let checkpoints = Checkpoints {
            vault: self.vault,
            every: None,
            keep: 1,
            gate: Arc::new(Open),
            restore: false,
            sources: None,
            resume_until: Offsets::new(),
        };
        let keeping = keeping(&plan.catalog, &checkpoints, &secret)?;
        let line = Line::new(self.base.offsets(), self.sources, self.events, Arc::clone(&plan.catalog));
        let locals = empty(plan, options, &secret)?;
        assemble(locals, Before::default(), &secret, keeping, Restored::default(), Resume::before(line))
    }
}

impl Parts {
    pub(crate) fn start(
        self,
        plan: &Arc<EnginePlan>,
        options: &Options,
        checkpoints: &Checkpoints,
    ) -> Result<Start, EngineError> {
        let secret = self.base.secret().clone();
        let mut locals = empty(plan, options, &secret)?;
        let restored = self.load(&plan.catalog, &mut locals);
        let restored = restored.map_err(|problem| RestoreError::NoneReadable(vec![problem]))?;
        locals.iter_mut().for_each(|local| local.note(false));
        let manifest = &self.base.manifest;
        let mut before = Before {
            tick: manifest.tick,
            now: manifest.now,
            partitions: manifest.partitions.clone(),
            counters: self.counters(&plan.catalog),
        };
        if let Some(sources) = &checkpoints.sources {
            before.partitions.retain(|stand| sources.contains(&*stand.partition.source));
        }
        let keeping = keeping(&plan.catalog, checkpoints, &secret)?;
        let resume = Resume::new(&checkpoints.resume_until, &restored.offsets);
        assemble(locals, before, &secret, keeping, restored, resume)
    }
}

/// Another engine still writes, so the first checkpoint will hold everything.
fn keeping(
    catalog: &Arc<Catalog>,
    checkpoints: &Checkpoints,
    secret: &Secret,
) -> Result<Keeping, EngineError> {
    let writer = Writer::start(catalog, checkpoints, secret.clone(), None)?;
    let writer = Some(Arc::new(writer));
    Ok(Keeping { writer, every: checkpoints.every, on: false, last: monotonic(), news: false })
}
