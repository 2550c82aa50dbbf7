//! The thread that writes checkpoints, beside the ticks.
//!
//! *In*: snapshots: roots of persistent maps, nothing copied. *Out*: blobs of what changed, and a manifest once all of
//! them are durable and the gate is open. *Never*: a wait of a worker; a record that is lost because a file could
//! not be written: the next checkpoint writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use contracts::Catalog;
use contracts::batch::Partition;
use crossbeam_channel::{Receiver, Sender, bounded};
use operators::admit::dedupe::{Secret, sort_ids, still_remembered};
use operators::admit::stored::put_rows;
use operators::state::{Loose, SHARDS, Sections, StateError, Table};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::blob::{self, Blob};
use super::manifest::{self, BlobRef, Chain, Counted, FORMAT, Manifest, Stand};
use super::{CheckpointError, Checkpoints, Gate, Health, Offsets, Vault, VaultError, Written, prune};
use crate::clock::monotonic;
use crate::worker::Rowset;

/// Snapshots that may wait for the thread.
const WAITING: usize = 2;
/// How long a checkpoint waits for its gate; the next one takes its place then.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same for a checkpoint that somebody waits for: the process wants to end.
const PATIENCE_ASKED: Duration = Duration::from_secs(5);
/// The gate is asked this often whether the engine ends meanwhile.
const SLICE: Duration = Duration::from_millis(50);
/// A table is written whole again when it has more files than this, or changes make up more than half of it.
const MOST_FILES: usize = 16;
/// So many files of ids of about one size become one.
const MERGED: usize = 8;

/// What one worker cut.
#[derive(Default)]
pub(crate) struct WorkerCut {
    /// Keyed state by name.
    pub(crate) tables: Vec<(String, Box<dyn Table>)>,
    /// State that belongs to no key, by name.
    pub(crate) loose: Vec<(String, Box<dyn Loose>)>,
    /// Admitted rows ahead of the clock.
    pub(crate) held: Vec<Arc<Rowset>>,
}

impl std::fmt::Debug for WorkerCut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WorkerCut({} tables)", self.tables.len())
    }
}

/// The state at the end of a tick.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) tick: u64,
    pub(crate) now: i64,
    /// No row still to come was received before this.
    pub(crate) floor: i64,
    pub(crate) partitions: Vec<Stand>,
    pub(crate) counters: Vec<Counted>,
    pub(crate) workers: Vec<WorkerCut>,
    /// Whoever waits for it.
    pub(crate) reply: Option<Sender<Result<Written, CheckpointError>>>,
}

/// State that belongs to no key, as it lies in its file: by name, one per worker that wrote.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Rest {
    pub(super) loose: BTreeMap<String, Vec<Vec<u8>>>,
    pub(super) held: Vec<Vec<u8>>,
}

/// Name of the table of what belongs to no key.
pub(super) const REST: &str = "rest";

/// The thread, as the engine sees it.
#[derive(Debug)]
pub(crate) struct Writer {
    snapshots: Sender<Snapshot>,
    busy: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// The next cut must hold everything.
    wants_all: Arc<AtomicBool>,
    health: Arc<Mutex<Health>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread; `last` is the checkpoint that the engine began with.
    pub(crate) fn start(
        catalog: &Arc<Catalog>,
        settings: &Checkpoints,
        secret: Secret,
        last: Option<Manifest>,
    ) -> std::io::Result<Self> {
        let (snapshots, receiver) = bounded(WAITING);
        let (busy, stop, wants_all, health) = Default::default();
        let mut thread = Thread {
            catalog: Arc::clone(catalog),
            vault: Arc::clone(&settings.vault),
            gate: Arc::clone(&settings.gate),
            keep: settings.keep.max(1),
            secret,
            last_id: None,
            chains: last.map(|last| last.chains).unwrap_or_default(),
            owed: BTreeMap::new(),
            whole: BTreeSet::new(),
            files: 0,
            bytes: 0,
            rows: 0,
            stop: Arc::clone(&stop),
            wants_all: Arc::clone(&wants_all),
        };
        let (shared, told) = (Arc::clone(&busy), Arc::clone(&health));
        let thread = std::thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || thread.run(&receiver, &shared, &told))?;
        Ok(Self { snapshots, busy, stop, wants_all, health, thread: Mutex::new(Some(thread)) })
    }

    /// Whether one is being written.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Whether the next cut must hold everything; then it is asked for.
    pub(crate) fn wants_all(&self) -> bool {
        self.wants_all.swap(false, Ordering::AcqRel)
    }

    /// How they are doing.
    pub(crate) fn health(&self) -> Health {
        self.health.lock().clone()
    }

    /// Hands a snapshot over. Waits only for who asks for more of them than can be written.
    pub(crate) fn hand_over(&self, snapshot: Snapshot) {
        self.busy.store(true, Ordering::Release);
        if let Err(refused) = self.snapshots.send(snapshot)
            && let Some(reply) = refused.into_inner().reply
        {
            // The thread has panicked; whoever asked may have given up waiting.
            let _ = reply.send(Err(CheckpointError::Stopped));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let (closed, _) = bounded(0);
        self.snapshots = closed;
        if let Some(thread) = self.thread.lock().take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

struct Thread {
    catalog: Arc<Catalog>,
    vault: Arc<dyn Vault>,
    gate: Arc<dyn Gate>,
    keep: usize,
    secret: Secret,
    /// `None`: the files have to be looked at.
    last_id: Option<u64>,
    /// The files of each table that are durable.
    chains: BTreeMap<String, Chain>,
    /// Ids that could not be written yet.
    owed: BTreeMap<String, Vec<Box<dyn Table>>>,
    /// Tables whose changes could not be written.
    whole: BTreeSet<String>,
    /// Written for the checkpoint at hand.
    files: usize,
    bytes: u64,
    rows: u64,
    stop: Arc<AtomicBool>,
    wants_all: Arc<AtomicBool>,
}

impl Thread {
    fn run(&mut self, snapshots: &Receiver<Snapshot>, busy: &AtomicBool, health: &Mutex<Health>) {
        while let Ok(mut snapshot) = snapshots.recv() {
            let started = monotonic();
            let reply = snapshot.reply.take();
            let patience = if reply.is_some() { PATIENCE_ASKED } else { PATIENCE };
            let done = self.write(snapshot, patience);
            let mut told = health.lock();
            told.took = started.elapsed();
            match &done {
                Ok(written) => {
                    told.written += 1;
                    told.newest = Some(written.clone());
                    told.error = None;
                }
                // Waiting is no failure.
                Err(CheckpointError::Gate) => {}
                Err(error) => {
                    told.failed += 1;
                    told.error = Some(error.to_string());
                    tracing::error!(%error, "no checkpoint; the ones before it still count");
                }
            }
            drop(told);
            busy.store(!snapshots.is_empty(), Ordering::Release);
            if let Some(reply) = reply {
                // Whoever asked may have given up waiting.
                let _ = reply.send(done);
            }
        }
    }

    fn write(&mut self, snapshot: Snapshot, patience: Duration) -> Result<Written, CheckpointError> {
        (self.files, self.bytes, self.rows) = (0, 0, 0);
        let Snapshot { tick, now, floor, partitions, counters, workers, .. } = snapshot;
        let count = workers.len();
        let Gathered { tables, rest, latest, mut problem } = gather(workers, now);
        let id = match self.next_id() {
            Ok(id) => id,
            Err(error) => {
                tables.into_iter().for_each(|(name, tables)| self.owe(name, tables));
                return Err(error.into());
            }
        };
        // Every table is tried: what one cannot write must not make the others start anew.
        for (name, tables) in tables {
            if let Err(error) = self.table(id, &name, tables, floor) {
                problem = problem.or(Some(error));
            }
        }
        if let Some(problem) = problem {
            // Perhaps somebody else has taken the names.
            self.last_id = None;
            return Err(problem);
        }
        let mut bytes = Vec::new();
        operators::state::put(&rest, &mut bytes).map_err(|error| state_error(REST, error))?;
        let mut sections = Sections::default();
        sections.bytes[0] = bytes;
        let rest = self.blob(id, REST, &sections, 0)?;
        let manifest = Manifest {
            format: FORMAT,
            id,
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            tick,
            now,
            admitted_until: latest,
            workers: count,
            catalog: self.catalog.hash.clone(),
            contracts: manifest::contracts_of(&self.catalog),
            secret: self.secret.clone(),
            proof: self.secret.proof(),
            partitions,
            counters,
            chains: self.chains.clone(),
            rest,
        };
        self.publish(&manifest, patience)
    }

    /// A number that no file has; its names are taken from here on, whatever becomes of it.
    fn next_id(&mut self) -> Result<u64, VaultError> {
        let last = match self.last_id {
            Some(last) => last,
            None => self.newest_id()?,
        };
        self.last_id = Some(last + 1);
        Ok(last + 1)
    }

    /// Keeps what could not be written for the next time.
    fn owe(&mut self, name: String, tables: Vec<Box<dyn Table>>) {
        match tables.iter().any(|table| table.is_log()) {
            true => self.owed.entry(name).or_default().extend(tables),
            false => {
                self.whole.insert(name);
            }
        }
    }

    /// Writes the manifest, once it may count.
    fn publish(&mut self, manifest: &Manifest, patience: Duration) -> Result<Written, CheckpointError> {
        faults::point("checkpoint.before_gate");
        let offsets: Offsets = manifest
            .partitions
            .iter()
            .map(|stand| (Partition::clone(&stand.partition), stand.next))
            .collect();
        let mut left = patience;
        while !self.gate.may_publish(&offsets, SLICE) {
            left = left.saturating_sub(SLICE);
            if left.is_zero() || self.stop.load(Ordering::Acquire) {
                return Err(CheckpointError::Gate);
            }
        }
        faults::point("checkpoint.before_manifest");
        let bytes = manifest.bytes().map_err(|error| state_error("manifest", StateError::Write(error)))?;
        self.vault.put(&manifest::name(manifest.id), &[&bytes])?;
        faults::point("checkpoint.after_manifest");
        if let Err(error) = prune::prune(self.vault.as_ref(), self.keep) {
            tracing::warn!(%error, "old checkpoints are not removed");
        }
        Ok(Written {
            id: manifest.id,
            tick: manifest.tick,
            now: manifest.now,
            offsets,
            bytes: self.bytes + bytes.len() as u64,
            files: self.files + 1,
            rows: self.rows,
        })
    }

    /// The greatest number that any file has.
    fn newest_id(&self) -> Result<u64, VaultError> {
        let stored = self.vault.list()?;
        let number = |name: &str| manifest::number(name).or_else(|| manifest::blob_number(name));
        Ok(stored.iter().filter_map(|stored| number(&stored.name)).max().unwrap_or(0))
    }

    /// Writes what is new of a table.
    fn table(
        &mut self,
        id: u64,
        name: &str,
        tables: Vec<Box<dyn Table>>,
        floor: i64,
    ) -> Result<(), CheckpointError> {
        if tables.iter().any(|table| table.is_log()) {
            return self.log(id, name, tables, floor);
        }
        let chain = self.chains.get(name).map(Vec::as_slice).unwrap_or_default();
        let whole_bytes = chain.first().map_or(0, |first| first.bytes);
        let changes: u64 = chain.iter().skip(1).map(|blob| blob.bytes).sum();
        let whole = self.whole.contains(name)
            || tables.iter().any(|table| table.is_whole())
            || chain.is_empty()
            || chain.len() > MOST_FILES
            || changes > whole_bytes / 2;
        let mut sections = Sections::default();
        let written = tables.iter().try_for_each(|table| table.write(whole, &mut sections));
        // From here on changes are noted anew: should this fail, those noted so far are gone.
        self.whole.insert(name.to_owned());
        written.map_err(|error| state_error(name, error))?;
        let count = sections.count();
        if count > 0 && (whole || !faults::bug("forget_changes")) {
            let blob = self.blob(id, name, &sections, 0)?;
            faults::point("checkpoint.between_blobs");
            let chain = self.chains.entry(name.to_owned()).or_default();
            if whole {
                chain.clear();
            }
            chain.push(blob);
        } else if whole {
            self.chains.remove(name);
        }
        self.whole.remove(name);
        Ok(())
    }

    /// Adds ids to those that are there, forgets files that are too old, and puts small ones together.
    fn log(
        &mut self,
        id: u64,
        name: &str,
        tables: Vec<Box<dyn Table>>,
        floor: i64,
    ) -> Result<(), CheckpointError> {
        let whole = tables.iter().any(|table| table.is_whole());
        let mut owed = self.owed.remove(name).unwrap_or_default();
        if whole {
            self.chains.remove(name);
            owed.clear();
        }
        owed.extend(tables);
        let mut sections = Sections::default();
        let written = owed.iter().try_for_each(|table| table.write(true, &mut sections));
        let written = written.map_err(|error| state_error(name, error));
        let blob = match written {
            Ok(()) if sections.count() == 0 => Ok(None),
            Ok(()) => self.blob(id, name, &sections, 0).map(Some).map_err(CheckpointError::from),
            Err(error) => Err(error),
        };
        match blob {
            Ok(blob) => self.chains.entry(name.to_owned()).or_default().extend(blob),
            Err(error) => {
                self.owed.insert(name.to_owned(), owed);
                return Err(error);
            }
        }
        let event = name.strip_prefix("ids/").and_then(|name| name.strip_suffix("/ids"));
        let event = event.and_then(|event| self.catalog.event_index(event));
        let horizon = event.map_or(i64::MAX, |event| self.catalog.events[event].dedupe);
        self.merge(id, name, floor.saturating_sub(horizon))
    }

    /// Puts the newest files of a log together while there are many of one size.
    fn merge(&mut self, id: u64, name: &str, least: i64) -> Result<(), CheckpointError> {
        loop {
            let Some(chain) = self.chains.get(name) else { return Ok(()) };
            let Some(level) = chain.last().map(|last| last.level) else { return Ok(()) };
            let many = chain.iter().rev().take_while(|blob| blob.level == level).count();
            if many < MERGED {
                return Ok(());
            }
            let first = chain.len() - many;
            let mut sections = Sections::default();
            for blob in &chain[first..] {
                let read = read_blob(self.vault.as_ref(), blob, name);
                let read = read.map_err(|error| {
                    // A damaged file is of no use to anybody: the workers know all ids themselves.
                    self.wants_all.store(true, Ordering::Release);
                    CheckpointError::Vault(VaultError::Io(error))
                })?;
                for shard in 0..SHARDS {
                    for records in still_remembered(read.section(shard), least) {
                        sections.bytes[shard].extend(records.as_flattened());
                        sections.rows[shard] += u32::try_from(records.len()).unwrap_or(u32::MAX);
                    }
                }
            }
            sections.bytes.iter_mut().for_each(|section| sort_ids(section));
            let merged = match sections.count() {
                0 => None,
                _ => Some(self.blob(id, name, &sections, level + 1)?),
            };
            let chain = self.chains.entry(name.to_owned()).or_default();
            chain.truncate(first);
            chain.extend(merged);
        }
    }

    fn blob(&mut self, id: u64, table: &str, sections: &Sections, level: u32) -> Result<BlobRef, VaultError> {
        let head = blob::head(id, table, sections);
        let mut parts: Vec<&[u8]> = vec![&head];
        parts.extend(sections.bytes.iter().filter(|bytes| !bytes.is_empty()).map(Vec::as_slice));
        let sum = blob::checksum(&parts);
        let tail = sum.to_le_bytes();
        parts.push(&tail);
        self.files += 1;
        let name = manifest::blob_name(id, self.files);
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        self.vault.put(&name, &parts)?;
        self.bytes += bytes;
        self.rows += sections.count();
        Ok(BlobRef { name, bytes, checksum: format!("{sum:016x}"), rows: sections.count(), level })
    }
}

/// The cuts of all workers, put together.
struct Gathered {
    tables: BTreeMap<String, Vec<Box<dyn Table>>>,
    rest: Rest,
    /// The latest event there is.
    latest: i64,
    problem: Option<CheckpointError>,
}

fn gather(workers: Vec<WorkerCut>, now: i64) -> Gathered {
    let mut all = Gathered { tables: BTreeMap::new(), rest: Rest::default(), latest: now, problem: None };
    for cut in workers {
        for (name, table) in cut.tables {
            all.tables.entry(name).or_default().push(table);
        }
        for (name, loose) in cut.loose {
            match loose.write() {
                Ok(bytes) => all.rest.loose.entry(name).or_default().push(bytes),
                Err(error) => all.problem = Some(state_error(&name, error)),
            }
        }
        for rows in cut.held {
            let (partition, batch) = rows.as_ref();
            let times = operators::admit::event_times(&batch.columns);
            all.latest = times.values().iter().copied().fold(all.latest, i64::max);
            let mut bytes = Vec::new();
            if let Err(error) = put_rows(partition, batch, &mut bytes) {
                all.problem = Some(state_error("held", error));
            }
            all.rest.held.push(bytes);
        }
    }
    all
}

/// Reads a file and checks it; the error names it and says what is wrong.
pub(super) fn read_blob(vault: &dyn Vault, blob: &BlobRef, table: &str) -> Result<Blob, String> {
    let bytes = vault.get(&blob.name).map_err(|error| error.to_string())?;
    let wrong = |problem: String| format!("{}: {problem}", blob.name);
    if bytes.len() as u64 != blob.bytes {
        return Err(wrong(format!("it has {} bytes, not {}", bytes.len(), blob.bytes)));
    }
    let tail = bytes.last_chunk::<8>().map(|tail| format!("{:016x}", u64::from_le_bytes(*tail)));
    if tail.as_ref() != Some(&blob.checksum) {
        return Err(wrong("it is not the file that the checkpoint was made of".to_owned()));
    }
    Blob::of(bytes, table).map_err(wrong)
}

fn state_error(table: &str, error: StateError) -> CheckpointError {
    CheckpointError::State { table: table.to_owned(), error }
}
