//! What an engine begins with: nothing, or the newest checkpoint.
//!
//! *In*: a plan, the settings of checkpoints. *Out*: workers with their state, and what the coordinator and the
//! publisher must know of the time before. *Never*: half a checkpoint.

use std::sync::Arc;

use operators::admit::dedupe::{IdHash, Secret};

use crate::api::{EngineError, Options};
use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::{Checkpoints, RestoreError, Restored, Writer, candidates, counters};
use crate::clock::monotonic;
use crate::coordinator::{Begin, Keeping};
use crate::plan::EnginePlan;
use crate::publish::Before;
use crate::resume::Resume;
use crate::worker::{Local, locals};

/// What an engine begins with.
pub(crate) struct Start {
    pub(crate) locals: Vec<Local>,
    pub(crate) begin: Begin,
    pub(crate) restored: Restored,
}

/// Makes the workers, and gives them the newest state there is.
pub(crate) fn start(
    plan: &Arc<EnginePlan>,
    options: &Options,
    checkpoints: Option<Checkpoints>,
) -> Result<Start, EngineError> {
    let Some(checkpoints) = checkpoints else {
        let (secret, restored) = (Secret::new(), Restored::default());
        let keeping = Keeping { writer: None, every: None, on: false, last: monotonic(), news: false };
        return assemble(
            empty(plan, options, &secret)?,
            Before::default(),
            &secret,
            keeping,
            restored,
            Resume::default(),
        );
    };
    let found = match checkpoints.restore {
        true => restore(plan, options, &checkpoints)?,
        false => Found::Nothing(Restored::default()),
    };
    let (mut locals, mut before, secret, restored, manifest) = match found {
        Found::State { locals, manifest, restored } => {
            let before = Before {
                tick: manifest.tick,
                now: manifest.now,
                partitions: manifest.partitions.clone(),
                counters: counters(&manifest),
            };
            (locals, before, manifest.secret.clone(), restored, Some(*manifest))
        }
        Found::Nothing(restored) => {
            let secret = Secret::new();
            (empty(plan, options, &secret)?, Before::default(), secret, restored, None)
        }
    };
    if let Some(sources) = &checkpoints.sources {
        before.partitions.retain(|stand| sources.contains(&*stand.partition.source));
    }
    locals.iter_mut().for_each(|local| local.note(checkpoints.restore));
    let writer = Writer::start(&plan.catalog, &checkpoints, secret.clone(), manifest)?;
    let keeping = Keeping {
        writer: Some(Arc::new(writer)),
        every: checkpoints.every,
        on: checkpoints.restore,
        last: monotonic(),
        news: false,
    };
    let resume = Resume::new(&checkpoints.resume_until, &restored.offsets);
    assemble(locals, before, &secret, keeping, restored, resume)
}

pub(crate) fn empty(
    plan: &Arc<EnginePlan>,
    options: &Options,
    secret: &Secret,
) -> Result<Vec<Local>, EngineError> {
    locals(plan, options, &Arc::new(IdHash::new(secret)))
}

pub(crate) fn assemble(
    locals: Vec<Local>,
    before: Before,
    secret: &Secret,
    keeping: Keeping,
    restored: Restored,
    resume: Resume,
) -> Result<Start, EngineError> {
    let ids = Arc::new(IdHash::new(secret));
    Ok(Start { locals, begin: Begin { before, ids, keeping, resume }, restored })
}

/// What a vault holds for these contracts.
enum Found {
    State { locals: Vec<Local>, manifest: Box<Manifest>, restored: Restored },
    Nothing(Restored),
}

/// Loads the newest checkpoint that is whole; those that are not are told of.
fn restore(plan: &Arc<EnginePlan>, options: &Options, settings: &Checkpoints) -> Result<Found, EngineError> {
    let vault = settings.vault.as_ref();
    let found = candidates(vault, &plan.catalog)?;
    let (mut skipped, any) = (found.skipped, !found.fits.is_empty());
    for problem in &skipped {
        tracing::error!(problem, "a checkpoint is damaged and passed over");
    }
    for candidate in found.fits {
        // Each attempt begins with nothing: half of another checkpoint must not stay.
        let mut locals = empty(plan, options, candidate.secret())?;
        match candidate.load(vault, &mut locals) {
            Ok((manifest, restored)) => {
                let restored = Restored { skipped, ..restored };
                return Ok(Found::State { locals, manifest: Box::new(manifest), restored });
            }
            Err(problem) => {
                tracing::error!(problem, "a checkpoint is damaged and passed over");
                skipped.push(problem);
            }
        }
    }
    if any {
        return Err(RestoreError::NoneReadable(skipped).into());
    }
    Ok(Found::Nothing(Restored { skipped, rebuild: found.rebuild, ..Restored::default() }))
}
