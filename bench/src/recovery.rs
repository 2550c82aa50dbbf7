//! Recovery: how long a checkpoint takes, what it does to ticks, and how long it takes to be back.
//!
//! *In*: events and keys. *Out*: seconds and bytes of checkpoints, of restarts, and ticks beside them. *Never*: a
//! restart whose numbers are not those of before.
//!
//! The work: orders of as many users as there are keys, each with an id that is remembered; a metric by user with two
//! windows. Files lie in a folder, each synced.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connectors::decode::{DecodeSpec, Decoder, Envelope, Record};
use connectors::store::checkpoints::{Folder, FolderError};
use contracts::batch::Partition;
use contracts::{Catalog, SourceFile};
use engine::checkpoint::{Checkpoints, Open, Restored, Stored, Vault, VaultError, Written};
use engine::{Clock, Engine, MetricQuery, NoHook, Options as EngineOptions};
use serde::{Deserialize, Serialize};

use crate::process;
use crate::{Error, Machine, Spread};

const CONTRACTS: &str = "
apiVersion: streamgauge/v1
kind: Event
name: order
version: 1.0.0
key: buyer
time: at
id: id
fields:
  id: { type: string, required: true }
  buyer: { type: string, required: true }
  at: { type: timestamp, required: true }
  amount: { type: \"decimal(18,2)\", required: true }
---
apiVersion: streamgauge/v1
kind: Metric
name: spend
version: 1.0.0
events: { o: { type: order } }
dimensions: { buyer: { from: buyer, max: 1000000 } }
measures: { orders: { agg: count }, amount: { agg: sum, of: o, value: amount } }
windows: { hour: { tumbling: 1h }, day: { sliding: 24h, every: 1h } }
retain: { live: 25h }
";

/// 2026-03-02T10:00:00Z.
const START: i64 = 1_772_445_600_000_000;
/// Two hours later: all events lie before it.
const NOW: i64 = START + 2 * 3_600_000_000;
/// Events of a chunk.
const CHUNK: u64 = 4_096;
/// Changed events between two checkpoints.
const MORE: u64 = 100_000;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Events, each with an id of its own.
    pub events: u64,
    /// Users.
    pub keys: u64,
    /// Restarts.
    pub rounds: usize,
    /// Dataflow threads.
    pub workers: usize,
}

/// What came of it. Times in seconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// Events.
    pub events: u64,
    /// Users.
    pub keys: u64,
    /// Dataflow threads.
    pub workers: usize,
    /// The first checkpoint: all state.
    pub whole_seconds: f64,
    /// Its bytes.
    pub whole_bytes: u64,
    /// A checkpoint after 100,000 more events.
    pub changes_seconds: f64,
    /// Its bytes.
    pub changes_bytes: u64,
    /// A tick of 4,096 events while nothing is written.
    pub tick_quiet: Spread,
    /// The same while a checkpoint is cut and written.
    pub tick_beside: Spread,
    /// From the start of an engine to its first published tick, with all state.
    pub restart: Spread,
    /// The first 100 ticks of 4,096 events after one.
    pub tick_after: Spread,
    /// Resident memory before the end, and right after a restart in the same process, bytes.
    pub memory: (u64, u64),
}

/// Runs it.
///
/// # Errors
/// The engine, the folder; numbers that a restart has changed.
pub fn run(options: &Options) -> Result<Report, Error> {
    let loaded = contracts::load(&[SourceFile::new("recovery.yaml", CONTRACTS)]);
    if loaded.has_errors() {
        return Err(Error::Engine(format!("{:?}", loaded.diagnostics)));
    }
    let catalog = Arc::new(loaded.catalog);
    let folder = tempfile::tempdir().map_err(|error| Error::Engine(error.to_string()))?;
    let mut feed = Feed::new(&catalog, options.keys);
    let (engine, _) = start(&catalog, options, folder.path())?;
    while feed.next < options.events {
        feed.send(&engine);
    }
    engine.flush();
    let quiet: Vec<f64> = (0..100).map(|_| feed.tick(&engine)).collect();
    let (whole, beside, whole_seconds) = beside(&engine, &mut feed)?;
    let until = feed.next + MORE;
    while feed.next < until {
        feed.send(&engine);
    }
    engine.flush();
    let started = Instant::now();
    let changes = engine.checkpoint().map_err(engine_error)?;
    let changes_seconds = started.elapsed().as_secs_f64();
    let wanted = total(&engine)?;
    let before = process::resident();
    engine.stop();
    let (mut restarts, mut ticks, mut after) = (Vec::new(), Vec::new(), 0);
    for _ in 0..options.rounds.max(1) {
        let started = Instant::now();
        let (engine, restored) = start(&catalog, options, folder.path())?;
        engine.flush();
        restarts.push(started.elapsed().as_secs_f64());
        after = process::resident();
        let got = total(&engine)?;
        if restored.id.is_none() || got != wanted {
            let differences = vec![format!("{got} after a restart, {wanted} before")];
            return Err(Error::Differs { program: "recovery".to_owned(), differences });
        }
        if ticks.is_empty() {
            ticks = (0..100).map(|_| feed.tick(&engine)).collect();
        }
        engine.stop();
    }
    Ok(Report {
        machine: Machine::here(),
        events: options.events,
        keys: options.keys,
        workers: options.workers,
        whole_seconds,
        whole_bytes: whole.bytes,
        changes_seconds,
        changes_bytes: changes.bytes,
        tick_quiet: Spread::of(quiet),
        tick_beside: Spread::of(beside),
        restart: Spread::of(restarts),
        tick_after: Spread::of(ticks),
        memory: (before, after),
    })
}

/// A checkpoint with ticks beside it.
fn beside(engine: &Engine, feed: &mut Feed) -> Result<(Written, Vec<f64>, f64), Error> {
    std::thread::scope(|scope| {
        let started = Instant::now();
        let writing = scope.spawn(move || (engine.checkpoint(), started.elapsed()));
        let mut ticks = Vec::new();
        while !writing.is_finished() || ticks.is_empty() {
            ticks.push(feed.tick(engine));
        }
        let (written, took) =
            writing.join().map_err(|_| Error::Engine("the writing thread panicked".to_owned()))?;
        Ok((written.map_err(engine_error)?, ticks, took.as_secs_f64()))
    })
}

fn start(catalog: &Arc<Catalog>, options: &Options, folder: &Path) -> Result<(Engine, Restored), Error> {
    let keys = usize::try_from(options.keys).unwrap_or(usize::MAX).saturating_mul(2);
    let clock = Clock::Manual(NOW);
    let settings = EngineOptions { workers: options.workers, keys_per_metric: keys, clock };
    let vault = Files(Folder::open(folder).map_err(engine_error)?);
    let checkpoints = Checkpoints {
        vault: Arc::new(vault),
        every: None,
        keep: 2,
        gate: Arc::new(Open),
        restore: true,
        sources: None,
        resume_until: Default::default(),
    };
    Engine::start_from(catalog.clone(), settings, Arc::new(NoHook), checkpoints).map_err(engine_error)
}

/// The sum over all users.
fn total(engine: &Engine) -> Result<String, Error> {
    let query = MetricQuery {
        window: Some("day".to_owned()),
        measures: None,
        by: Vec::new(),
        filter: None,
        as_of: None,
    };
    let answer = engine.reader().load().metric(0, &query).map_err(engine_error)?;
    Ok(format!("{:?}", answer.rows))
}

fn engine_error(error: impl std::fmt::Display) -> Error {
    Error::Engine(error.to_string())
}

/// Makes orders.
struct Feed {
    decoder: Decoder,
    partition: Partition,
    keys: u64,
    next: u64,
}

impl Feed {
    fn new(catalog: &Arc<Catalog>, keys: u64) -> Self {
        let envelope = Envelope { id: Some(vec!["id".to_owned()]), ..Envelope::default() };
        let spec = DecodeSpec { fixed_type: Some("order".to_owned()), envelope, ..DecodeSpec::default() };
        let partition = Partition { source: "bench".into(), topic: "orders".into(), number: 0 };
        Self { decoder: Decoder::new(catalog.clone(), spec), partition, keys, next: 0 }
    }

    /// Sends a chunk.
    fn send(&mut self, engine: &Engine) {
        for _ in 0..CHUNK {
            let n = self.next;
            // Spread over two hours and all users.
            let at = START + (n % 7_200) as i64 * 1_000_000;
            let buyer = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.keys;
            let value = format!(
                "{{\"id\":\"ord-{n:016x}\",\"buyer\":\"buyer-{buyer}\",\"at\":\"{}\",\"amount\":\"1.25\"}}",
                contracts::value::format_timestamp(at)
            );
            let record = Record { value: value.as_bytes(), offset: n as i64, received: NOW, headers: &[] };
            self.decoder.push(record);
            self.next += 1;
        }
        let chunk = self.decoder.finish(&self.partition, self.next as i64, None);
        // The engine lives as long as the measurement.
        let _ = engine.sender().send(chunk);
    }

    /// Sends a chunk and waits until it shows; seconds from the sending on.
    fn tick(&mut self, engine: &Engine) -> f64 {
        engine.flush();
        let made = Instant::now();
        self.send(engine);
        let sent: Duration = made.elapsed();
        engine.flush();
        made.elapsed().saturating_sub(sent).as_secs_f64()
    }
}

/// A folder as a vault.
#[derive(Debug)]
struct Files(Folder);

fn told(error: FolderError) -> VaultError {
    VaultError::Io(error.to_string())
}

impl Vault for Files {
    fn put(&self, name: &str, parts: &[&[u8]]) -> Result<(), VaultError> {
        self.0.put(name, parts).map_err(told)
    }
    fn get(&self, name: &str) -> Result<Vec<u8>, VaultError> {
        self.0.get(name).map_err(told)
    }
    fn list(&self) -> Result<Vec<Stored>, VaultError> {
        let all = self.0.list().map_err(told)?;
        Ok(all.into_iter().map(|entry| Stored { name: entry.name, age: entry.age }).collect())
    }
    fn delete(&self, name: &str) -> Result<(), VaultError> {
        self.0.delete(name).map_err(told)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |s: &Spread| format!("{:.1} ms ({:.1}-{:.1})", s.median * 1e3, s.min * 1e3, s.max * 1e3);
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        writeln!(f, "recovery: {} events, {} keys, {} workers", self.events, self.keys, self.workers)?;
        writeln!(f, "  whole checkpoint      {:.2} s, {:.1} MiB", self.whole_seconds, mib(self.whole_bytes))?;
        writeln!(
            f,
            "  after 100,000 events  {:.2} s, {:.1} MiB",
            self.changes_seconds,
            mib(self.changes_bytes)
        )?;
        writeln!(f, "  a tick, quiet         {}", ms(&self.tick_quiet))?;
        writeln!(f, "  beside a checkpoint   {}", ms(&self.tick_beside))?;
        writeln!(f, "  restart               {}", ms(&self.restart))?;
        writeln!(f, "  a tick right after it {}", ms(&self.tick_after))?;
        writeln!(
            f,
            "  memory                {:.0} MiB, after a restart {:.0} MiB",
            mib(self.memory.0),
            mib(self.memory.1)
        )?;
        write!(f, "  {}", self.machine.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_gives_the_same_numbers() {
        let report = run(&Options { events: 20_000, keys: 1_000, rounds: 2, workers: 2 }).unwrap();
        assert!(report.whole_bytes > report.changes_bytes / 10);
    }
}
