//! The engine as the rest of the program sees it.
//!
//! *In*: a catalog, options, chunks. *Out*: a running [`Engine`] and [`Reader`]s. *Never*: a call that blocks
//! a reader.

use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use contracts::Catalog;
use contracts::batch::{Chunk, EventBatch, Partition, Refused};
use crossbeam_channel::{Sender, bounded};

use crate::checkpoint::{
    CheckpointError, Checkpoints, Health, Parts, RestoreError, Restored, Writer, Written,
};
use crate::compose::Beside;
use crate::coordinator::{Control, Coordinator, Intake};
use crate::plan::EnginePlan;
use crate::publish::{Published, Publisher};
use crate::resume::Decisions;
use crate::start::{self, Start};
use crate::worker;

/// How an engine runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Timely worker threads, at least 1. Answers do not depend on it.
    pub workers: usize,
    /// `limits.keys_per_metric`.
    pub keys_per_metric: usize,
    /// Where "now" comes from.
    pub clock: Clock,
}

/// Where "now" comes from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's clock.
    Wall,
    /// Stands still until set: tests, `streamgauge test`, benchmarks on recorded events.
    Manual(i64),
}

/// Called once per tick, after the tick is visible. Must not block.
pub trait TickHook: Send + Sync {
    /// `published` already holds the tick's effects.
    fn tick(&self, published: &Arc<Published>, outcome: TickOutcome);
}

/// A hook for those who only read.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHook;

impl TickHook for NoHook {
    fn tick(&self, _published: &Arc<Published>, _outcome: TickOutcome) {}
}

/// What became of the rows of a tick, beside the state.
#[derive(Debug, Default)]
pub struct TickOutcome {
    /// Rows refused by decode or admit.
    pub refused: Vec<Refused>,
    /// Rows dropped as duplicates: partition, offset, part.
    pub duplicates: Vec<(Partition, i64, u32)>,
    /// Admitted rows, only while [`Engine::tap`] is on.
    pub admitted: Vec<Admitted>,
}

/// Admitted rows of one event type.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Partition the rows came from.
    pub partition: Partition,
    /// The decoded batch with the enrich columns added (schema `Event::admitted`).
    pub batch: EventBatch,
}

/// Chunks that may wait for the coordinator; beyond that, sources pause.
const CHUNKS_WAITING: usize = 64;

/// A running engine. Dropping it stops its threads.
pub struct Engine {
    writer: Option<Arc<Writer>>,
    chunks: Option<Sender<Chunk>>,
    control: Sender<Control>,
    live: Arc<ArcSwap<Published>>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("tick", &self.live.load().tick).finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the coordinator and the workers; nothing is kept when they end.
    pub fn start(
        catalog: Arc<Catalog>,
        options: Options,
        hook: Arc<dyn TickHook>,
    ) -> Result<Self, EngineError> {
        Self::run(catalog, &options, hook, None).map(|(engine, _)| engine)
    }

    /// The same, with the state of the newest checkpoint that fits the contracts and is whole. Sources are to go on at
    /// [`Restored::offsets`].
    ///
    /// # Errors
    /// As [`Engine::start`], and when checkpoints are there but none of them can be read.
    pub fn start_from(
        catalog: Arc<Catalog>,
        options: Options,
        hook: Arc<dyn TickHook>,
        checkpoints: Checkpoints,
    ) -> Result<(Self, Restored), EngineError> {
        Self::run(catalog, &options, hook, Some(checkpoints))
    }

    /// An engine that makes state from history, beside the one whose checkpoint it is given; see [`Engine::checkpoint`].
    /// Its clock stands at that checkpoint's instant.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_beside(
        catalog: Arc<Catalog>,
        options: &Options,
        hook: Arc<dyn TickHook>,
        beside: Beside,
    ) -> Result<Self, EngineError> {
        let plan = Arc::new(EnginePlan::new(catalog)?);
        let options = Options { clock: beside.clock(), ..options.clone() };
        let start = beside.start(&plan, &options)?;
        Self::begin(plan, &options, hook, start).map(|(engine, _)| engine)
    }

    /// An engine that goes on where another one stood, with what a change of its contracts keeps and what was made again.
    /// It writes no checkpoint before [`Engine::keep_checkpoints`]. Sources are to go on at [`Restored::offsets`].
    ///
    /// # Errors
    /// As [`Engine::start`], and when one of the parts cannot be read.
    pub fn start_with(
        catalog: Arc<Catalog>,
        options: &Options,
        hook: Arc<dyn TickHook>,
        checkpoints: &Checkpoints,
        parts: Parts,
    ) -> Result<(Self, Restored), EngineError> {
        let plan = Arc::new(EnginePlan::new(catalog)?);
        let start = parts.start(&plan, options, checkpoints)?;
        Self::begin(plan, options, hook, start)
    }

    fn run(
        catalog: Arc<Catalog>,
        options: &Options,
        hook: Arc<dyn TickHook>,
        checkpoints: Option<Checkpoints>,
    ) -> Result<(Self, Restored), EngineError> {
        let plan = Arc::new(EnginePlan::new(catalog)?);
        let start = start::start(&plan, options, checkpoints)?;
        Self::begin(plan, options, hook, start)
    }

    fn begin(
        plan: Arc<EnginePlan>,
        options: &Options,
        hook: Arc<dyn TickHook>,
        start: Start,
    ) -> Result<(Self, Restored), EngineError> {
        let Start { locals, begin, restored } = start;
        let writer = begin.keeping.writer.clone();
        let (workers, before) = (locals.len(), &begin.before);
        let publisher =
            Publisher::new(Arc::clone(&plan), workers, hook, &options.clock, before, writer.clone());
        let publisher = Arc::new(publisher);
        let (chunks, chunks_in) = bounded(CHUNKS_WAITING);
        let (control, control_in) = crossbeam_channel::unbounded();
        let (ticks, crew) = worker::start(locals, &publisher)?;
        let live = publisher.live();
        let coordinator = Coordinator::new(&options.clock, chunks_in, control_in, ticks, publisher, begin);
        let thread =
            std::thread::Builder::new().name("coordinator".to_owned()).spawn(move || coordinator.run())?;
        let threads = vec![thread, crew];
        Ok((Self { writer, chunks: Some(chunks), control, live, threads }, restored))
    }

    /// Keeps the state as it is after everything sent before the call; returns once it is durable and counts.
    ///
    /// # Errors
    /// See [`CheckpointError`]; the checkpoints before it still count.
    pub fn checkpoint(&self) -> Result<Written, CheckpointError> {
        if self.writer.is_none() {
            return Err(CheckpointError::Off);
        }
        let (done, wait) = bounded(1);
        self.control.send(Control::Checkpoint(done)).map_err(|_| CheckpointError::Stopped)?;
        wait.recv().map_err(|_| CheckpointError::Stopped)?
    }

    /// Whether checkpoints are written as [`Checkpoints::every`] says.
    pub fn keep_checkpoints(&self, on: bool) {
        // A coordinator that is gone writes none.
        let _ = self.control.send(Control::Keep(on));
    }

    /// How checkpoints are doing; `None`: this engine keeps none.
    pub fn checkpoints(&self) -> Option<Health> {
        self.writer.as_ref().map(|writer| writer.health())
    }

    /// Where connectors send chunks; bounded, so a full engine pauses its sources.
    pub fn sender(&self) -> Sender<Chunk> {
        self.chunks.clone().expect("the sender lives until the engine stops")
    }

    /// Wait-free access to the newest published state.
    pub fn reader(&self) -> Reader {
        Reader { live: Arc::clone(&self.live) }
    }

    /// Moves a manual clock forward and returns once a tick at that instant is visible. Everything sent
    /// before the call is visible too.
    pub fn set_clock(&self, now: i64) {
        self.ask(|done| Control::Clock(now, done));
    }

    /// Returns once everything sent before the call is visible.
    pub fn flush(&self) {
        self.ask(Control::Flush);
    }

    /// Turns `TickOutcome::admitted` on or off.
    pub fn tap(&self, on: bool) {
        // A coordinator that is gone has nothing to tap.
        let _ = self.control.send(Control::Tap(on));
    }

    /// Rows that come are judged as another one judged them, and wait for it where it goes on judging. To be called before
    /// the first row comes.
    pub fn follow(&self, decisions: &Arc<Decisions>) {
        self.ask(|done| Control::Follow(Arc::clone(decisions), done));
    }

    /// Takes nothing more from its sources, or goes on doing so; they wait meanwhile.
    pub fn hold(&self, on: bool) {
        // A coordinator that is gone takes nothing.
        let _ = self.control.send(Control::Intake(if on { Intake::Shut } else { Intake::Open }));
    }

    /// Throws away what still comes: another engine reads it. Its sources can be stopped then.
    pub fn retire(&self) {
        let _ = self.control.send(Control::Intake(Intake::Discard));
    }

    /// Whether its threads run; `false` after a panic in one of them.
    pub fn is_running(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Folds what has been sent, publishes it, stops the threads.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn ask(&self, control: impl FnOnce(Sender<()>) -> Control) {
        let (done, wait) = bounded(1);
        if self.control.send(control(done)).is_ok() {
            // An error means that the coordinator is gone: then nothing more becomes visible.
            let _ = wait.recv();
        }
    }

    fn shut_down(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        self.ask(Control::Stop);
        self.chunks = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an engine thread panicked");
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Wait-free read handle; cheap to clone.
#[derive(Clone)]
pub struct Reader {
    live: Arc<ArcSwap<Published>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("tick", &self.live.load().tick).finish_non_exhaustive()
    }
}

impl Reader {
    /// The newest whole tick.
    pub fn load(&self) -> Arc<Published> {
        self.live.load_full()
    }
}

/// The engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An expression of the catalog has no physical plan.
    #[error("{contract}: `{sql}` cannot be run: {message}")]
    Plan {
        /// Contract name.
        contract: String,
        /// Expression text.
        sql: String,
        /// DataFusion's words.
        message: String,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The state cannot be read.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The workers could not be started.
    #[error("cannot start the workers: {0}")]
    Workers(String),
}
