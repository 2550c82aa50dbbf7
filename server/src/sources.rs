//! Receivers of one generation of contracts: started, watched, stopped together.
//!
//! *In*: sources of the settings, a catalog, the engine's channel. *Out*: running receivers and their
//! status. *Never*: an offset kept (checkpoints carry them), a chunk lost between a receiver and the engine while
//! they stop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use connectors::decode::{DecodeSpec, Envelope, Format};
use connectors::receive::file::FileSource;
use connectors::receive::kafka::{self, KafkaSource};
use connectors::receive::log::{self, LogOptions, PushLog};
use connectors::receive::offsets::Known;
use connectors::receive::past::Past;
use connectors::receive::table::TableFile;
use connectors::receive::{self, Feed, Offsets, Receiver, SourceStatus, State};
use contracts::Catalog;
use contracts::batch::Chunk;
use crossbeam_channel::{Receiver as Channel, RecvTimeoutError, Sender};

use crate::app::SourceProbe;
use crate::cli::exit::{Exit, Failure, io};
use crate::hooks::Webhook;
use crate::lakepast::History;
use crate::pace::Pace;
use crate::settings::{self, Settings, Source, Transport};

/// Chunks between the receivers and the gate: enough to overlap decode and fold, small enough that
/// receivers feel a busy engine.
const CHUNKS: usize = 8;

/// The embedded logs by source name.
pub type Logs = BTreeMap<String, Arc<PushLog>>;

/// Opens the log of each `http` and `hook` source below the data folder. They let nothing go before they are told to.
pub fn open_logs(settings: &Settings) -> Result<Logs, Failure> {
    let Settings { sources, data, .. } = settings;
    let folder = data.join("log");
    std::fs::create_dir_all(&folder).map_err(|error| io(Exit::Config, "make", &folder, &error))?;
    let options = LogOptions { max_bytes: settings.limits.log, ..LogOptions::new(receive::wall_clock()) };
    let mut logs = Logs::new();
    for source in sources.iter().filter(|s| matches!(s.transport, Transport::Http | Transport::Hook(_))) {
        let path = folder.join(&source.name);
        let log = PushLog::open(&path, &source.name, options.clone()).map_err(|error| {
            Failure::new(
                Exit::Config,
                format!("the log of source `{}` in {}: {error}", source.name, path.display()),
            )
        })?;
        log.hold(0);
        logs.insert(source.name.clone(), log);
    }
    Ok(logs)
}

/// The sources of webhooks, by name.
pub fn hooks(sources: &[Source]) -> Result<BTreeMap<String, Arc<Webhook>>, Failure> {
    let mut hooks = BTreeMap::new();
    for source in sources {
        if let Transport::Hook(settings) = &source.transport {
            let wrong = |problem| {
                Failure::new(Exit::Config, format!("the secret of source `{}`: {problem}", source.name))
            };
            hooks.insert(source.name.clone(), Arc::new(Webhook::new(settings).map_err(wrong)?));
        }
    }
    Ok(hooks)
}

/// What adapters make that no contract takes: every such event would be refused as `unknown_event_type`.
pub fn without_contract(sources: &[Source], catalog: &Catalog) -> Vec<(String, Vec<String>)> {
    let hooks = sources.iter().filter_map(|source| match &source.transport {
        Transport::Hook(hook) => Some((source.name.clone(), hook.adapter.as_ref()?)),
        _ => None,
    });
    let missing = hooks.map(|(name, adapter)| {
        let unknown = adapter.emits().into_iter().filter(|kind| catalog.event_index(kind).is_none());
        (name, unknown.map(str::to_owned).collect::<Vec<_>>())
    });
    missing.filter(|(_, missing)| !missing.is_empty()).collect()
}

/// The source that takes pushed events when a request names none: the first `http` one.
pub fn default_source(sources: &[Source]) -> Option<String> {
    sources.iter().find(|s| matches!(s.transport, Transport::Http)).map(|s| s.name.clone())
}

/// Before the name of a table that is read from a file, as a source.
pub(crate) const TABLE: &str = "table ";

/// Where the receivers of a generation begin, and how fast they read.
#[derive(Debug)]
pub struct Begin {
    /// Next offsets; a partition that is not named is read from the beginning of what is retained.
    pub from: Offsets,
    /// Read before what is retained; only with no offsets.
    pub history: Option<History>,
    /// Kafka is read from its oldest records, whatever `start` says.
    pub earliest: bool,
    /// The bound on rows per second.
    pub pace: Arc<Pace>,
    /// What the lake has of them: it was there once.
    pub reached: Offsets,
    /// Folder of what Kafka's topics are known by.
    pub marks: PathBuf,
}

/// The receivers of one engine, and the gate between them and it.
#[derive(Debug)]
pub struct Generation {
    receivers: Vec<Arc<Receiver>>,
    gate: Option<JoinHandle<()>>,
    pace: Arc<Pace>,
}

impl Generation {
    /// Starts reading.
    ///
    /// While `closed` is true nothing is handed to `engine`: receivers wait, nothing is lost.
    pub fn start(
        sources: &[Source],
        logs: &Logs,
        catalog: &Arc<Catalog>,
        limits: &settings::Limits,
        begin: Begin,
        engine: Sender<Chunk>,
        closed: &Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        std::fs::create_dir_all(&begin.marks)
            .map_err(|error| io(Exit::Config, "make", &begin.marks, &error))?;
        let pace = Arc::clone(&begin.pace);
        // What a bound holds back shall be seen as not yet read.
        let room = if pace.is_open() { CHUNKS } else { 1 };
        let (chunks, through) = crossbeam_channel::bounded(room);
        let closed = closed.clone();
        let history = begin.history.as_ref();
        if let Some(history) = history {
            announce(history, sources, &engine);
        }
        let own = pace.clone();
        let gate = std::thread::Builder::new()
            .name("gate".into())
            .spawn(move || gate(&through, &engine, &closed, &own))
            .map_err(|error| Failure::new(Exit::Bug, format!("cannot start a thread: {error}")))?;
        let mut generation = Self { receivers: Vec::new(), gate: Some(gate), pace };
        let wrong = |error: receive::ReceiveError| Failure::new(Exit::Config, error.to_string());
        let feed = |name: &str, decode: DecodeSpec| Feed {
            source: name.into(),
            catalog: catalog.clone(),
            decode,
            chunks: chunks.clone(),
            clock: receive::wall_clock(),
        };
        for source in sources {
            let feed = feed(&source.name, decode_spec(source, record_bytes(source, limits)));
            let past = history.filter(|history| history.sources().contains(&feed.source));
            let past = past.map(|history| history.of(&feed.source, catalog));
            let receiver = start_one(source, logs, &begin, past, feed).map_err(wrong)?;
            generation.receivers.push(Arc::new(receiver));
        }
        for name in history.into_iter().flat_map(|history| without_source(history, sources)) {
            let past = history.map(|history| history.of(&name, catalog));
            let receiver = past.map(|past| receive::past::start(past, feed(&name, DecodeSpec::default())));
            generation.receivers.extend(receiver.transpose().map_err(wrong)?.map(Arc::new));
        }
        for (table, file) in catalog.tables.iter().filter_map(|table| Some((table, table.file.as_ref()?))) {
            let file = TableFile {
                table: table.head.name.clone(),
                path: receive::table::beside(&table.head.file, file),
                every: table.every.and_then(|every| u64::try_from(every).ok()).map(Duration::from_micros),
            };
            let feed = feed(&format!("{TABLE}{}", table.head.name), DecodeSpec::default());
            let receiver = receive::table::start(file, feed).map_err(wrong)?;
            generation.receivers.push(Arc::new(receiver));
        }
        Ok(generation)
    }

    /// How fast it reads.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// How the sources are doing, in the order of the settings.
    pub fn statuses(&self) -> Vec<SourceStatus> {
        self.receivers.iter().map(|r| r.status()).collect()
    }

    /// The same for others to ask; after the end of the generation they tell the last that was known.
    pub fn probes(&self) -> Vec<SourceProbe> {
        let probe = |receiver: &Arc<Receiver>| {
            let (weak, last) = (Arc::downgrade(receiver), receiver.status());
            SourceProbe::new(move || weak.upgrade().map_or_else(|| last.clone(), |r| r.status()))
        };
        self.receivers.iter().map(probe).collect()
    }

    /// Stops reading, waits for the receivers and for the chunks on their way, at most [`PATIENCE`]: a
    /// client that says goodbye to a broker which is away may take for ever. Nothing is lost by leaving
    /// it behind, because what it holds is read again at the next start.
    pub fn stop(mut self) {
        self.pace.open();
        for receiver in &self.receivers {
            receiver.stop();
        }
        let deadline = Instant::now() + PATIENCE;
        let mut all = true;
        for receiver in self.receivers.drain(..) {
            let ended =
                wait(deadline, || matches!(receiver.status().state, State::Finished | State::Failed(_)));
            if ended {
                join(receiver);
            } else {
                let name = receiver.status().name;
                tracing::warn!(source = name, "the source does not end in time and is left behind");
                all = false;
            }
        }
        // The gate ends when the last receiver's sender is gone.
        if let Some(gate) = self.gate.take().filter(|gate| all || wait(deadline, || gate.is_finished())) {
            // A panic there has been reported by the panic hook.
            let _ = gate.join();
        }
    }
}

/// How long the sources may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

fn wait(deadline: Instant, done: impl Fn() -> bool) -> bool {
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Waits for a receiver that has ended; a probe may be asking it this very moment.
fn join(mut receiver: Arc<Receiver>) {
    loop {
        match Arc::try_unwrap(receiver) {
            Ok(receiver) => {
                receiver.join();
                return;
            }
            Err(back) => receiver = back,
        }
        std::thread::yield_now();
    }
}

/// Tells the engine of all partitions with a history, so that nothing is forgotten that their first records may repeat,
/// however long after the first of another source they come.
fn announce(history: &History, sources: &[Source], engine: &Sender<Chunk>) {
    let is_read =
        |name: &str| sources.iter().all(|s| s.name != name || !matches!(s.transport, Transport::File { .. }));
    for partition in history.partitions().into_iter().filter(|partition| is_read(&partition.source)) {
        // The engine is gone only when the process ends.
        let _ = engine.send(receive::past::standing(&partition, 0));
    }
}

/// Sources with a history that the settings do not name any more.
fn without_source(history: &History, sources: &[Source]) -> Vec<Arc<str>> {
    let known = |name: &Arc<str>| sources.iter().any(|source| source.name == **name);
    history.sources().into_iter().filter(|name| !known(name)).collect()
}

/// Hands chunks on while the door is open.
fn gate(chunks: &Channel<Chunk>, engine: &Sender<Chunk>, closed: &AtomicBool, pace: &Pace) {
    const LOOK: Duration = Duration::from_millis(50);
    loop {
        let chunk = match chunks.recv_timeout(Duration::from_secs(3600)) {
            Ok(chunk) => chunk,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        while closed.load(Ordering::Acquire) {
            // Waiting for memory to fall is what the gate is for.
            std::thread::sleep(LOOK);
        }
        pace.pass(chunk.received);
        // The engine is gone only when the process ends.
        if engine.send(chunk).is_err() {
            return;
        }
    }
}

/// A pushed record is at most a request body; a message of Kafka may be longer (its broker's limit rules).
fn record_bytes(source: &Source, limits: &settings::Limits) -> usize {
    const LONGEST: u64 = 16 << 20;
    let most = match source.transport {
        Transport::Http | Transport::Hook(_) => limits.body,
        Transport::File { .. } | Transport::Kafka(_) => limits.body.max(LONGEST),
    };
    usize::try_from(most).unwrap_or(usize::MAX)
}

fn start_one(
    source: &Source,
    logs: &Logs,
    begin: &Begin,
    past: Option<Box<dyn Past>>,
    feed: Feed,
) -> Result<Receiver, receive::ReceiveError> {
    match &source.transport {
        Transport::Http | Transport::Hook(_) => {
            let log = logs.get(&source.name).expect("open_logs opened one per http and hook source");
            match past {
                Some(past) => log::start_after(past, log, feed),
                None => log::start(log, &begin.from, feed),
            }
        }
        // The file is history itself.
        Transport::File { path } => {
            receive::file::start(FileSource::new(path.to_string_lossy()), &begin.from, feed)
        }
        Transport::Kafka(settings) => {
            let mut kafka = kafka_source(settings);
            kafka.known = Known { reached: begin.reached.clone(), accepted: source.accept_loss.clone() };
            kafka.marks = Some(begin.marks.join(format!("{}.json", source.name)));
            if begin.earliest {
                kafka.start = kafka::Start::Earliest;
            }
            match past {
                Some(past) => kafka::start_after(past, &kafka, feed),
                None => kafka::start(&kafka, &begin.from, feed),
            }
        }
    }
}

/// A Kafka source as its receiver wants it.
pub fn kafka_source(settings: &settings::Kafka) -> KafkaSource {
    let mut source = KafkaSource::new(settings.brokers.clone(), settings.topics.clone());
    source.start = match settings.start {
        settings::Start::Earliest => kafka::Start::Earliest,
        settings::Start::Latest => kafka::Start::Latest,
    };
    source.group = Some(settings.group.clone());
    source.options = settings.properties.iter().map(|(k, v)| (k.clone(), v.reveal().to_owned())).collect();
    source
}

/// How the bytes of a source become events. A record may be as long as a request body.
pub fn decode_spec(source: &Source, max_record_bytes: usize) -> DecodeSpec {
    let format = match source.format {
        settings::Format::CloudEvents => Format::CloudEvents,
        settings::Format::Json => Format::Json,
        settings::Format::Debezium => Format::Debezium,
        settings::Format::Avro => Format::Avro,
        settings::Format::Protobuf => Format::Protobuf,
    };
    let path = |text: &str| Some(text.split('.').map(str::to_owned).collect());
    let envelope = &source.envelope;
    let adapter = match &source.transport {
        Transport::Hook(hook) => hook.adapter.clone(),
        _ => None,
    };
    DecodeSpec {
        format,
        adapter,
        envelope: Envelope {
            id: path(&envelope.id),
            event_type: path(&envelope.event_type),
            time: path(&envelope.time),
            tenant: envelope.tenant.as_deref().and_then(path),
        },
        fixed_type: source.stream.event_type.clone(),
        op: envelope.op.as_deref().and_then(path),
        debezium: source.stream.debezium,
        registry: source.stream.registry.clone(),
        max_record_bytes,
        ..DecodeSpec::default()
    }
}
