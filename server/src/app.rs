//! What all requests share: the live engine, the logs, the dead letters, the sources.
//!
//! *In*: the parts that start-up and contract reload hand over. *Out*: [`App`], one per process.
//! *Never*: a lock held across an await; a request that sees half a contract reload.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use connectors::receive::SourceStatus;
use connectors::receive::log::PushLog;
use connectors::store::dead_letters::DeadLetters;
use contracts::Catalog;
use engine::{Engine, Published, Reader};
use lake::LakeWriter;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::answer::CaughtUp;
use crate::backfill::Backfills;
use crate::error::Problem;
use crate::history::History;
use crate::hooks::Webhook;
use crate::pulse::{Hook, Pulse};
use crate::ring::Ring;
use crate::sampler::Sampled;
use crate::second::Keeper;
use crate::serve::pressure::Pressure;
use crate::serve::rebuild::Building;
use crate::telemetry::Telemetry;

/// What a request may take at most. From `limits:` and `server:` of the settings.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request body (`limits.body`).
    pub body: usize,
    /// How long POST `/v1/events` waits for the verdicts when the request does not say.
    pub push_wait: Duration,
    /// Longest `wait=` a request may ask for.
    pub max_wait: Duration,
    /// Rows of one answer when the request does not say.
    pub rows: usize,
    /// Most rows of one answer.
    pub max_rows: usize,
    /// Open event streams (SSE) at the same time.
    pub streams: usize,
    /// A request that has not begun its answer by then is answered 504.
    pub request: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body: 1 << 20,
            push_wait: Duration::from_secs(2),
            max_wait: Duration::from_secs(30),
            rows: 1_000,
            max_rows: 10_000,
            streams: 1_024,
            request: Duration::from_secs(60),
        }
    }
}

/// One generation of contracts with the engine that runs it.
pub struct Live {
    /// The contracts.
    pub catalog: Arc<Catalog>,
    /// Runs them. Stops when the last request that uses this generation is done.
    pub engine: Engine,
    /// Reads what the engine has published.
    pub reader: Reader,
    /// The hook that `engine` was started with, from [`App::hook`].
    pub hook: Arc<Hook>,
    /// 1 for the contracts of the start, one more per reload.
    pub generation: u64,
    /// Every contract file as it was loaded; the catalog's heads name these paths.
    pub texts: Vec<contracts::text::SourceFile>,
    /// The state that `engine` began with.
    pub restored: engine::checkpoint::Restored,
    /// What the engine before it decided, while that one answered.
    pub follows: Option<Arc<engine::Decisions>>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("generation", &self.generation)
            .field("catalog", &self.catalog.hash)
            .finish_non_exhaustive()
    }
}

/// Tells how a source is doing: `SourceProbe::new(move || receiver.status())`.
#[derive(Clone)]
pub struct SourceProbe(Arc<dyn Fn() -> SourceStatus + Send + Sync>);

impl SourceProbe {
    /// A probe from what it asks.
    pub fn new(status: impl Fn() -> SourceStatus + Send + Sync + 'static) -> SourceProbe {
        SourceProbe(Arc::new(status))
    }

    pub(crate) fn status(&self) -> SourceStatus {
        (self.0)()
    }
}

impl std::fmt::Debug for SourceProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.status().fmt(f)
    }
}

/// Shown on `/readyz`, `/v1/health` and the page: how the last contract reload went.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct ReloadState {
    /// Reloads that took effect.
    pub succeeded: u64,
    /// Reloads that were refused; the last good contracts stay.
    pub failed: u64,
    /// Why the last attempt was refused; `None` when it took effect.
    pub error: Option<String>,
    /// What is being built while other contracts answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub building: Option<Building>,
}

/// What start-up hands over.
#[derive(Debug)]
pub struct Parts {
    /// The embedded log of each `http` and `hook` source, by source name.
    pub logs: BTreeMap<String, Arc<PushLog>>,
    /// The sources of webhooks, by name; each has a log, too.
    pub hooks: BTreeMap<String, Arc<Webhook>>,
    /// Name of the source that takes events when the request does not say.
    pub default_source: Option<String>,
    /// Where refused rows are kept.
    pub dead: Arc<DeadLetters>,
    /// Where admitted rows go for good.
    pub lake: Option<Arc<LakeWriter>>,
    /// The contracts that have run.
    pub history: History,
    /// Limits of requests.
    pub limits: Limits,
    /// Effective settings without secrets, shown by `/readyz?verbose`.
    pub settings: serde_json::Value,
    /// Where the contracts come from, shown by `/readyz?verbose`.
    pub contracts: Vec<PathBuf>,
}

/// The shared state of a running server.
#[derive(Debug)]
pub struct App {
    live: ArcSwapOption<Live>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) logs: BTreeMap<String, Arc<PushLog>>,
    pub(crate) hooks: BTreeMap<String, Arc<Webhook>>,
    pub(crate) default_source: Option<String>,
    pub(crate) dead: Arc<DeadLetters>,
    pub(crate) history: History,
    sources: RwLock<Vec<SourceProbe>>,
    reload: RwLock<ReloadState>,
    pub(crate) backfills: Backfills,
    pub(crate) limits: Limits,
    pub(crate) settings: serde_json::Value,
    pub(crate) contracts: Vec<PathBuf>,
    pub(crate) telemetry: Telemetry,
    pub(crate) ring: Arc<Ring>,
    pub(crate) sampled: Sampled,
    pub(crate) lake: Option<Arc<LakeWriter>>,
    pub(crate) caught_up: CaughtUp,
    /// Why events are not taken for now.
    paused: RwLock<Vec<Pressure>>,
    settled: AtomicBool,
    draining: AtomicBool,
    swaps: AtomicU64,
    started: Instant,
    /// Milliseconds since the Unix epoch: makes stream ids of different runs differ.
    pub(crate) boot: u64,
    pub(crate) streams: Arc<tokio::sync::Semaphore>,
}

impl App {
    /// The state before any engine runs: reads answer 503 until [`App::swap`].
    ///
    /// # Errors
    /// `InvalidInput` when the default source has no log.
    pub fn new(parts: Parts) -> std::io::Result<Arc<App>> {
        // Nobody pushes unsigned events into a source of webhooks.
        let plain = || parts.logs.keys().find(|name| !parts.hooks.contains_key(*name)).cloned();
        let default_source = parts.default_source.or_else(plain);
        if let Some(name) = default_source.as_ref().filter(|name| !parts.logs.contains_key(*name)) {
            let message = format!("the default source `{name}` has no log");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, message));
        }
        let ring = Ring::new();
        Ok(Arc::new(App {
            live: ArcSwapOption::empty(),
            pulse: Pulse::new(parts.dead.clone(), ring.clone()),
            logs: parts.logs,
            hooks: parts.hooks,
            default_source,
            dead: parts.dead,
            history: parts.history,
            sources: RwLock::default(),
            reload: RwLock::default(),
            backfills: Backfills::default(),
            streams: Arc::new(tokio::sync::Semaphore::new(parts.limits.streams)),
            limits: parts.limits,
            settings: parts.settings,
            contracts: parts.contracts,
            telemetry: Telemetry::default(),
            ring,
            sampled: Sampled::default(),
            lake: parts.lake,
            caught_up: CaughtUp::default(),
            paused: RwLock::default(),
            settled: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            swaps: AtomicU64::new(0),
            started: Instant::now(),
            boot: u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0),
        }))
    }

    /// The hook for a new engine; give the same one to [`Engine::start`] and to [`Live`].
    pub fn hook(&self) -> Arc<Hook> {
        Hook::new(self.pulse.clone(), None, None)
    }

    /// The same, with a store that keeps what the engine admits (numbers can be recomputed), and the lake.
    pub fn hook_with(&self, keeper: Option<Keeper>) -> Arc<Hook> {
        Hook::new(self.pulse.clone(), keeper, self.lake.clone())
    }

    /// Makes `live` the one that answers. Returns the one before it, so that the caller can choose
    /// when its threads stop (dropping the last handle stops them).
    pub fn swap(&self, live: Live) -> Option<Arc<Live>> {
        live.engine.tap(self.ring.wanted() || live.hook.wants_rows());
        self.history.record(&live.texts, &live.catalog);
        // One engine at a time writes checkpoints: the one that answers.
        if let Some(before) = self.live.load_full() {
            before.engine.keep_checkpoints(false);
            before.hook.lead(false);
        }
        live.engine.keep_checkpoints(true);
        live.hook.lead(true);
        let before = self.live.swap(Some(Arc::new(live)));
        self.swaps.fetch_add(1, Ordering::Release);
        self.pulse.wake();
        before
    }

    /// Takes the engine out, for the end of the process: reads answer 503 afterwards.
    pub fn take(&self) -> Option<Arc<Live>> {
        let before = self.live.swap(None);
        self.pulse.wake();
        before
    }

    /// The generation that answers now, or a 503 problem while there is none yet.
    pub fn live(&self) -> Result<Arc<Live>, Problem> {
        self.live.load_full().ok_or_else(starting)
    }

    /// The newest tick, with its generation; a 503 problem before the first one.
    pub(crate) fn published(&self) -> Result<(Arc<Live>, Arc<Published>), Problem> {
        let live = self.live()?;
        let published = live.reader.load();
        if published.tick == 0 {
            return Err(starting());
        }
        Ok((live, published))
    }

    /// Wakes at every tick, swap and drain.
    pub(crate) fn ticks(&self) -> watch::Receiver<u64> {
        self.pulse.ticks.subscribe()
    }

    /// Number that changes with every swap.
    pub(crate) fn swaps(&self) -> u64 {
        self.swaps.load(Ordering::Acquire)
    }

    /// The generation part of stream ids: differs between reloads and between runs.
    pub(crate) fn generation_id(&self, live: &Live) -> u64 {
        self.boot.wrapping_mul(1_000).wrapping_add(live.generation)
    }

    /// Replaces the list of sources shown everywhere.
    pub fn set_sources(&self, sources: Vec<SourceProbe>) {
        *self.sources.write() = sources;
    }

    /// How the sources are doing now.
    pub fn sources(&self) -> Vec<SourceStatus> {
        let probes = self.sources.read().clone();
        probes.iter().map(|probe| probe.status()).collect()
    }

    /// Everything that was there when the process started is in `published`; until then no answer is complete, whatever
    /// the restored state knows of ends. Stays true.
    pub(crate) fn settled(&self, published: &Published) -> bool {
        if self.settled.load(Ordering::Relaxed) {
            return true;
        }
        let settled = self.sources().iter().all(|source| self.caught_up.check(source, Some(published)));
        self.settled.store(settled, Ordering::Relaxed);
        settled
    }

    /// Notes how a contract reload went: `Err` keeps the last good contracts.
    pub fn reloaded(&self, outcome: Result<(), String>) {
        let mut state = self.reload.write();
        state.building = None;
        match outcome {
            Ok(()) => {
                state.succeeded += 1;
                state.error = None;
            }
            Err(error) => {
                state.failed += 1;
                state.error = Some(error);
            }
        }
    }

    /// Notes what is being built, or that nothing is any more.
    pub(crate) fn builds(&self, building: Option<Building>) {
        self.reload.write().building = building;
    }

    /// Changes what is told of the build.
    pub(crate) fn building(&self, change: impl FnOnce(&mut Building)) {
        if let Some(building) = &mut self.reload.write().building {
            change(building);
        }
    }

    /// How reloads went.
    pub fn reload_state(&self) -> ReloadState {
        self.reload.read().clone()
    }

    /// Says why events are not taken for now; nothing: they are.
    pub fn pause(&self, why: Vec<Pressure>) {
        *self.paused.write() = why;
    }

    /// Why events are not taken for now.
    pub(crate) fn paused(&self) -> Vec<Pressure> {
        self.paused.read().clone()
    }

    /// From now on `/readyz` and pushes answer 503, and streams end with a `drain` event.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.pulse.wake();
    }

    /// [`App::drain`] was called.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns once the refused rows of all ticks so far are on disk, or the disk does not take them. Blocks the thread.
    pub fn flush_dead_letters(&self) {
        if !self.dead.flush_for(Duration::from_secs(5)) {
            tracing::warn!("refused rows could not be written; they are read again at the next start");
        }
    }

    /// Time since start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Turns the engine's hand-over of admitted rows on or off, as readers come and go.
    pub(crate) fn tune_tap(&self) {
        let wanted = self.ring.wanted();
        if let Some(live) = self.live.load_full() {
            live.engine.tap(wanted || live.hook.wants_rows());
        }
        if !wanted {
            self.ring.clear();
        }
    }
}

fn starting() -> Problem {
    Problem::unavailable("starting", "The engine is starting.", 1)
}

/// All routes, with their limits, headers, spans and counters.
pub fn router(app: Arc<App>) -> axum::Router {
    crate::answer::router(app)
}
