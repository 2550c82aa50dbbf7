//! Start to stop of a server process.
//!
//! *In*: settings. *Out*: a running [`Running`] server, an orderly end. *Never*: two processes on one
//! data folder, a start on contracts with mistakes, an acknowledged event forgotten at the end.

pub mod cgroup;
pub(crate) mod handover;
pub mod lock;
pub mod memory;
pub mod pressure;
pub mod progress;
pub(crate) mod rebuild;
mod signals;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::serve::ListenerExt;
use connectors::receive::{SourceStatus, wall_clock};
use connectors::store::dead_letters::DeadLetters;
use contracts::Catalog;
use contracts::diagnostic::{Diagnostic, render};
use contracts::text::SourceFile;
use engine::checkpoint::{CheckpointError, Offsets, Parts, Restored};
use engine::{Clock, Engine, EngineError, Options};
use lake::LakeWriter;
use parking_lot::Mutex;

use crate::app::{App, Limits, Live};
use crate::backfill::Reading;
use crate::checkpoints::Kept;
use crate::cli::exit::{Exit, Failure, Outcome, diagnostics};
use crate::cli::files;
use crate::cli::panic::HTTP_THREAD;
use crate::history::History;
use crate::lakepast;
use crate::pace::Pace;
use crate::pulse::Hook;
use crate::reload;
use crate::retention;
use crate::second::Keeper;
use crate::settings::{ContractSource, Settings};
use crate::sources::{self, Begin, Generation, Logs};

/// How long requests may take to finish at the end.
const GRACE: Duration = Duration::from_secs(10);

/// Contracts without mistakes, with their texts.
#[derive(Debug)]
pub struct Contracts {
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// The files it is made of.
    pub texts: Vec<SourceFile>,
}

/// What an engine begins with.
#[derive(Debug)]
pub enum Begins {
    /// The newest checkpoint, if there is one; everything is read otherwise.
    Newest,
    /// Nothing.
    Reading(Reading),
    /// State put together for a change of contracts.
    With(Box<Parts>),
}

/// What the threads of a server share.
#[derive(Debug)]
pub struct Shared {
    /// The state of the HTTP side.
    pub app: Arc<App>,
    settings: Settings,
    logs: Logs,
    /// `None`: the settings want none.
    checkpoints: Option<Kept>,
    generation: Mutex<Option<Generation>>,
    /// The memory limit is reached: receivers wait.
    closed: Arc<AtomicBool>,
    stopping: AtomicBool,
}

impl Shared {
    /// The process is on its way out.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Reads the contracts again; the error is all mistakes as text.
    pub fn load_contracts(&self) -> Result<Contracts, String> {
        let files = files::read_all(&self.settings.contracts).map_err(|failure| failure.message)?;
        let loaded = contracts::load(&files);
        if loaded.diagnostics.iter().any(Diagnostic::is_error) {
            return Err(render(&loaded.diagnostics));
        }
        Ok(Contracts { catalog: Arc::new(loaded.catalog), texts: files })
    }

    /// Starts an engine and receivers for `contracts`, beside whatever runs.
    /// Beside a running one it reads no faster than `limits.backfill`.
    pub fn start_generation(
        &self,
        contracts: Contracts,
        number: u64,
        begins: Begins,
    ) -> Result<(Live, Generation), Failure> {
        let Settings { data, audit, .. } = &self.settings;
        let keeper = Keeper::open(data, number, &contracts.catalog, audit)
            .map_err(|error| Failure::new(Exit::Config, format!("the kept events: {error}")))?;
        if let Some(lake) = &self.app.lake {
            lake.declare(&contracts.catalog)
                .map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
        }
        let hook = self.app.hook_with(keeper);
        let options = Options {
            workers: self.settings.workers,
            keys_per_metric: self.settings.limits.keys_per_metric,
            clock: Clock::Wall,
        };
        let (reading, parts) = match begins {
            Begins::Newest => (Reading::Everything, None),
            Begins::Reading(reading) => (reading, None),
            Begins::With(parts) => (Reading::Everything, Some(*parts)),
        };
        let first = number == 1;
        let (engine, restored) =
            self.start_engine(&contracts.catalog, options, hook.clone(), first, parts)?;
        let follows = match first {
            false => self.follow(&engine, &restored.offsets),
            true => {
                if self.reads_again(&restored.offsets) {
                    self.repeat(&engine, &restored.offsets);
                }
                None
            }
        };
        if let (Some(keeper), Some(_)) = (hook.keeper(), restored.id) {
            // What the state was made of before is not read again.
            keeper.begin(restored.admitted_until);
        }
        if hook.wants_rows() {
            // Before the first event: none may be missing.
            engine.tap(true);
            engine.flush();
        }
        let mut begin = Begin {
            from: restored.offsets.clone(),
            reached: match &self.app.lake {
                // Later generations read again what is kept, beside one that runs.
                Some(lake) if first => lake.reached().0.clone(),
                _ => Offsets::new(),
            },
            marks: data.join("topics"),
            history: self.history(reading, &restored.offsets),
            earliest: reading == Reading::Retained,
            pace: Arc::new(Pace::new(if first { 0 } else { self.settings.limits.backfill })),
        };
        retention::check_logs(&self.settings.sources, &self.logs, &begin.reached, &mut begin.from)?;
        let generation = Generation::start(
            &self.settings.sources,
            &self.logs,
            &contracts.catalog,
            &self.settings.limits,
            begin,
            engine.sender(),
            &self.closed,
        )?;
        let reader = engine.reader();
        let Contracts { catalog, texts } = contracts;
        let live = Live { catalog, engine, reader, hook, generation: number, texts, restored, follows };
        Ok((live, generation))
    }

    /// What the lake holds, for an engine that begins with nothing.
    fn history(&self, reading: Reading, from: &Offsets) -> Option<lakepast::History> {
        let lake = self.app.lake.as_ref().filter(|_| reading == Reading::Everything)?;
        let config = self.settings.lake.config(&self.settings.data)?;
        if !from.is_empty() {
            return None;
        }
        // What has been admitted is there then. What fails now is tried again by the lake itself.
        let _ = lake.flush();
        Some(lakepast::History::new(Arc::clone(lake), config))
    }

    /// Starts an engine; the first one with the state of the newest checkpoint.
    fn start_engine(
        &self,
        catalog: &Arc<Catalog>,
        options: Options,
        hook: Arc<Hook>,
        first: bool,
        parts: Option<Parts>,
    ) -> Result<(Engine, Restored), Failure> {
        let failed = |error: EngineError| Failure::new(Exit::Config, error.to_string());
        let Some(kept) = &self.checkpoints else {
            return Ok((Engine::start(catalog.clone(), options, hook).map_err(failed)?, Restored::default()));
        };
        let admitted = match &self.app.lake {
            Some(lake) if first => lake.reached().0.clone(),
            // Others follow the engine that runs.
            _ => Offsets::new(),
        };
        let settings = kept.of(&self.settings.sources, catalog, first, admitted);
        let (engine, restored) = match parts {
            Some(parts) => Engine::start_with(catalog.clone(), &options, hook, &settings, parts),
            None => Engine::start_from(catalog.clone(), options, hook, settings),
        }
        .map_err(failed)?;
        if let Some(id) = restored.id {
            let took = restored.took.as_secs_f64();
            tracing::info!(checkpoint = id, rows = restored.rows, seconds = took, "state restored");
        }
        if let Some(why) = &restored.rebuild {
            tracing::warn!(why, "the state is built anew: everything is read from the beginning");
        }
        Ok((engine, restored))
    }

    /// Puts `generation` in the place of the running one and returns that.
    pub fn replace_generation(&self, generation: Generation) -> Option<Generation> {
        self.app.set_sources(generation.probes());
        self.generation.lock().replace(generation)
    }

    /// The embedded logs.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Where checkpoints are; `None`: the settings want none.
    pub fn checkpoints(&self) -> Option<&Kept> {
        self.checkpoints.as_ref()
    }

    /// The embedded log of `source`.
    pub fn log(&self, source: &str) -> Option<Arc<connectors::receive::log::PushLog>> {
        self.logs.get(source).cloned()
    }

    /// How the sources of the running generation are doing.
    pub fn statuses(&self) -> Vec<SourceStatus> {
        self.generation.lock().as_ref().map(Generation::statuses).unwrap_or_default()
    }
}

/// A running server.
#[derive(Debug)]
pub struct Running {
    /// What its threads share.
    pub shared: Arc<Shared>,
    /// Where it listens.
    pub address: SocketAddr,
    http: Option<Http>,
    threads: Vec<JoinHandle<()>>,
    ends: crossbeam_channel::Receiver<Exit>,
    trigger: Option<reload::Trigger>,
    watcher: Option<notify_debouncer_mini::Debouncer<notify_debouncer_mini::notify::RecommendedWatcher>>,
    lock: lock::Lock,
}

#[derive(Debug)]
struct Http {
    runtime: tokio::runtime::Runtime,
    stop: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Starts everything. Returns as soon as HTTP answers; the sources are being read then.
    pub fn start(settings: Settings, effective: serde_json::Value) -> Result<Self, Failure> {
        let (trigger, triggers) = reload::trigger();
        // From before they are read on: no change is missed.
        let watcher = reload::watch(&settings.contracts, trigger.clone());
        let contracts = load(&settings.contracts)?;
        for (source, missing) in sources::without_contract(&settings.sources, &contracts.catalog) {
            tracing::warn!(
                source,
                missing = missing.join(", "),
                "no contract takes these events of webhooks: they will be refused; pack:delivery has them"
            );
        }
        let lock = lock::Lock::take(&settings.data)?;
        let logs = sources::open_logs(&settings)?;
        let history = History::open(&settings.data.join("contracts"));
        let (contracts, changed) = rebuild::answering(contracts, &history, &settings)?;
        let dead = DeadLetters::open(&settings.data.join("deadletter"), settings.limits.dead, wall_clock())
            .map_err(|error| Failure::new(Exit::Config, format!("the dead letters: {error}")))?;
        let dead = Arc::new(dead);
        let lake = start_lake(&settings, &contracts)?;
        let checkpoints = Kept::open(&settings.data, &settings.checkpoints, &dead, lake.clone())?;
        let app = App::new(crate::app::Parts {
            logs: logs.clone(),
            lake,
            hooks: sources::hooks(&settings.sources)?,
            default_source: sources::default_source(&settings.sources),
            dead,
            history,
            limits: Limits {
                body: usize::try_from(settings.limits.body).unwrap_or(usize::MAX),
                ..Limits::default()
            },
            settings: effective,
            contracts: contract_paths(&settings.contracts),
        })
        .map_err(|error| Failure::new(Exit::Bug, format!("cannot start a thread: {error}")))?;
        app.backfills.set_trigger(trigger.clone());
        let hangup = trigger.clone();
        let ends = signals::listen(move || hangup.pull("SIGHUP"))
            .map_err(|error| Failure::new(Exit::Bug, format!("cannot wait for signals: {error}")))?;
        let (http, address) = Http::start(settings.server.listen, app.clone())?;
        let shared = Arc::new(Shared {
            app,
            settings,
            logs,
            checkpoints,
            generation: Mutex::default(),
            closed: Arc::default(),
            stopping: AtomicBool::new(false),
        });
        let (live, generation) = shared.start_generation(contracts, 1, Begins::Newest)?;
        shared.replace_generation(generation);
        shared.app.swap(live);
        let mut running = Self {
            shared,
            address,
            http: Some(http),
            threads: Vec::new(),
            ends,
            trigger: Some(trigger.clone()),
            watcher,
            lock,
        };
        running.start_threads(triggers)?;
        if changed {
            trigger.pull("they have changed since the newest checkpoint");
        }
        Ok(running)
    }

    fn start_threads(&mut self, triggers: crossbeam_channel::Receiver<&'static str>) -> Result<(), Failure> {
        let shared = self.shared.clone();
        let limit = shared.settings.limits.memory;
        self.thread("monitor", move || pressure::watch(&shared, limit))?;
        let shared = self.shared.clone();
        self.thread("audit", move || {
            crate::sampler::run(&shared.app, shared.settings.audit, || shared.stopping());
        })?;
        let shared = self.shared.clone();
        self.thread("retention", move || retention::run(&shared))?;
        let shared = self.shared.clone();
        self.thread("reload", move || reload::run(&shared, &triggers))
    }

    fn thread(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        let handle = std::thread::Builder::new()
            .name(name.into())
            .spawn(body)
            .map_err(|error| Failure::new(Exit::Bug, format!("cannot start a thread: {error}")))?;
        self.threads.push(handle);
        Ok(())
    }

    /// `http://127.0.0.1:8080`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Have all sources read what was there at the start?
    pub fn caught_up(&self) -> bool {
        self.shared.statuses().iter().all(|s| s.caught_up)
    }

    /// Waits for SIGTERM or SIGINT; SIGHUP reloads.
    pub fn wait(&self) -> Exit {
        self.ends.recv().unwrap_or(Exit::Ok)
    }

    /// The same for at most `limit`; `None` when nobody wanted an end before.
    pub fn wait_for(&self, limit: Duration) -> Option<Exit> {
        self.ends.recv_timeout(limit).ok()
    }

    /// Stops intake, answers what is being asked, folds what was taken, and ends.
    pub fn stop(mut self) {
        let shared = self.shared.clone();
        shared.app.drain();
        tracing::info!("draining");
        if let Some(http) = self.http.take() {
            http.stop();
        }
        shared.stopping.store(true, Ordering::Release);
        self.watcher = None;
        // The reload thread ends when it is woken while the process stops, or its last trigger is gone.
        if let Some(trigger) = self.trigger.take() {
            trigger.pull("the end");
        }
        for thread in self.threads.drain(..) {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
        let generation = shared.generation.lock().take();
        if let Some(generation) = generation {
            generation.stop();
        }
        if let Some(live) = shared.app.take() {
            live.engine.flush();
            if let Some(lake) = &shared.app.lake
                && let Err(error) = lake.flush()
            {
                tracing::warn!(%error, "the lake does not have the last rows; they are read again at the next start");
            }
            keep(&live);
            drop(live);
        }
        shared.app.flush_dead_letters();
        self.lock.release();
        tracing::info!("stopped");
    }
}

/// The last checkpoint: the next start reads nothing again.
fn keep(live: &Live) {
    match live.engine.checkpoint() {
        Ok(written) => tracing::info!(checkpoint = written.id, bytes = written.bytes, "state kept"),
        Err(CheckpointError::Off) => {}
        Err(error) => {
            tracing::warn!(%error, "the next start reads again what came since the last checkpoint")
        }
    }
}

/// Contracts for the start; all mistakes are said, exit code 78.
pub fn load(contracts: &[ContractSource]) -> Result<Contracts, Failure> {
    let files = files::read_all(contracts)?;
    let (catalog, warnings) = files::catalog(&files)?;
    diagnostics(&warnings, &files);
    if files.is_empty() {
        tracing::warn!("no contract files were found: every event will be refused as unknown_event_type");
    } else if catalog.metrics.is_empty() {
        tracing::warn!("the contracts define no metric: events are taken, but there is nothing to ask for");
    }
    Ok(Contracts { catalog, texts: files })
}

fn start_lake(settings: &Settings, contracts: &Contracts) -> Result<Option<Arc<LakeWriter>>, Failure> {
    let Some(config) = settings.lake.config(&settings.data) else { return Ok(None) };
    let lake = LakeWriter::start(config, contracts.catalog.clone()).map_err(|error| {
        let exit = if error.is_passing() { Exit::Unreachable } else { Exit::Config };
        Failure::new(exit, error.to_string()).help("`lake: { catalog: none }` runs without a lake")
    })?;
    let sources = settings.sources.iter().map(|source| source.name.clone()).collect();
    Ok(Some(Arc::new(lake.reading(&sources))))
}

fn contract_paths(contracts: &[ContractSource]) -> Vec<PathBuf> {
    contracts
        .iter()
        .map(|source| match source {
            ContractSource::Path(path) => path.clone(),
            ContractSource::Pack(name) => PathBuf::from(format!("pack:{name}")),
        })
        .collect()
}

impl Http {
    fn start(listen: SocketAddr, app: Arc<App>) -> Result<(Self, SocketAddr), Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(HTTP_THREAD)
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Exit::Bug, format!("cannot start the HTTP threads: {error}")))?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(listen)).map_err(|error| {
            let failure = Failure::new(Exit::Config, format!("cannot listen on {listen}: {error}"));
            failure.help(
                "stop the other program, or choose another port: server.listen, STREAMGAUGE_SERVER__LISTEN",
            )
        })?;
        let address = listener
            .local_addr()
            .map_err(|error| Failure::new(Exit::Bug, format!("no address of {listen}: {error}")))?;
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        let router = crate::app::router(app);
        let task = runtime.spawn(async move {
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            // Small answers and SSE changes must not wait for acknowledgements (Nagle).
            let listener = listener.tap_io(|stream| {
                // A socket that refuses the option still works, only later.
                let _ = stream.set_nodelay(true);
            });
            let served = axum::serve(listener, service).with_graceful_shutdown(async move {
                // An error means that the other end is gone, which is an order to stop as well.
                let _ = stopped.wait_for(|stop| *stop).await;
            });
            if let Err(error) = served.await {
                tracing::error!(%error, "HTTP has stopped");
            }
        });
        Ok((Self { runtime, stop, task }, address))
    }

    fn stop(self) {
        let _ = self.stop.send(true);
        let finished = self.runtime.block_on(async { tokio::time::timeout(GRACE, self.task).await });
        if finished.is_err() {
            tracing::warn!("some requests were still open after {GRACE:?}");
        }
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

/// `streamgauge serve`: runs until told to stop.
pub fn run(settings: Settings, effective: serde_json::Value) -> Outcome {
    progress::log_to_stderr();
    let running = Running::start(settings, effective)?;
    crate::say!("streamgauge {} listens on {}", env!("CARGO_PKG_VERSION"), running.url());
    progress::show(&running);
    let exit = running.wait();
    running.stop();
    Ok(exit)
}
