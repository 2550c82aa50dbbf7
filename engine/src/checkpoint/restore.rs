//! The way back: the newest checkpoint that is whole becomes the state of new workers.
//!
//! *In*: a vault, the contracts, workers without state. *Out*: workers with the state, and where to go on reading.
//! *Never*: a start from nothing where checkpoints are there and none can be read; a checkpoint that was passed over
//! without being told of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use contracts::Catalog;
use contracts::guard::guarded;
use operators::admit::stored::take_rows;
use operators::state::{Found, SHARDS, Section, StateError, side_by_side};
use parking_lot::Mutex;

use super::blob::Blob;
use super::manifest::{self, BlobRef, Manifest};
use super::write::{REST, Rest, read_blob};
use super::{Offsets, Vault, VaultError};
use crate::clock::monotonic;
use crate::worker::Local;

/// Threads that read files.
const READERS: usize = 2;

/// What an engine began with.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// The checkpoint; `None`: there was none for these contracts, everything is to be read from the beginning.
    pub id: Option<u64>,
    /// Where to go on reading.
    pub offsets: Offsets,
    /// The instant of the checkpoint.
    pub now: i64,
    /// No event in it is later than this.
    pub admitted_until: i64,
    /// Records read.
    pub rows: u64,
    /// How long it took.
    pub took: Duration,
    /// Checkpoints that were passed over because they are damaged: which, and what is wrong.
    pub skipped: Vec<String>,
    /// Why checkpoints that are whole are of no use here.
    pub rebuild: Option<String>,
}

/// An engine does not start, rather than start without its state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The store.
    #[error("the checkpoints cannot be read: {0}")]
    Vault(#[from] VaultError),
    /// Checkpoints are there, and none is whole.
    #[error(
        "no checkpoint can be read: {}. Nothing was changed. Restore their files from a backup, or move them away to \
         read everything again from the beginning",
        .0.join("; ")
    )]
    NoneReadable(Vec<String>),
}

/// A checkpoint that fits the contracts.
#[derive(Debug)]
pub(crate) struct Candidate(pub(super) Manifest);

/// What a vault has to offer, the newest first.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    pub(crate) fits: Vec<Candidate>,
    pub(crate) skipped: Vec<String>,
    pub(crate) rebuild: Option<String>,
}

/// Looks at the checkpoints of a vault.
pub(crate) fn candidates(vault: &dyn Vault, catalog: &Catalog) -> Result<Candidates, RestoreError> {
    let stored = vault.list()?;
    let mut ids: Vec<u64> = stored.iter().filter_map(|stored| manifest::number(&stored.name)).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let mut found = Candidates::default();
    if ids.is_empty() && !stored.is_empty() {
        // The first one was being written when the process ended, or somebody has removed them.
        found.rebuild = Some("files of state are there, but no checkpoint that names them".to_owned());
    }
    for id in ids {
        let name = manifest::name(id);
        let read = vault.get(&name).map_err(|error| error.to_string());
        match read.and_then(|bytes| Manifest::of(&bytes).map_err(|problem| format!("{name}: {problem}"))) {
            Err(problem) => found.skipped.push(problem),
            Ok(manifest) => match unfit(&manifest, catalog) {
                None => found.fits.push(Candidate(manifest)),
                Some(why) => found.rebuild = found.rebuild.or(Some(format!("{name}: {why}"))),
            },
        }
    }
    if found.fits.is_empty() && found.rebuild.is_none() && !found.skipped.is_empty() {
        return Err(RestoreError::NoneReadable(found.skipped));
    }
    Ok(found)
}

/// Why a checkpoint is of no use for these contracts.
fn unfit(manifest: &Manifest, catalog: &Catalog) -> Option<String> {
    if manifest.proof != manifest.secret.proof() {
        return Some("it was written on another kind of processor, keys would not be found".to_owned());
    }
    if manifest.catalog == catalog.hash {
        return None;
    }
    let now = manifest::contracts_of(catalog);
    let differs = |name: &&String| now.get(*name) != manifest.contracts.get(*name);
    let names: BTreeSet<&String> = now.keys().chain(manifest.contracts.keys()).filter(differs).collect();
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    Some(format!("the contracts have changed since: {}", names.join(", ")))
}

impl Candidate {
    /// The secret by which its ids are hashed.
    pub(crate) fn secret(&self) -> &operators::admit::dedupe::Secret {
        &self.0.secret
    }

    /// Gives its state to workers that have none; the error says which file is damaged, and how.
    pub(crate) fn load(
        self,
        vault: &dyn Vault,
        locals: &mut [Local],
    ) -> Result<(Manifest, Restored), String> {
        let started = monotonic();
        let manifest = self.0;
        let Loaded { rows, held, unknown } = load_states(vault, &manifest, locals, |_| true)?;
        if let Some(unknown) = unknown {
            return Err(format!("{}: it holds {unknown}, which nobody knows", manifest::name(manifest.id)));
        }
        let workers = locals.len();
        let events = locals[0].events();
        for (number, bytes) in held.iter().enumerate() {
            let rows = guarded(|| take_rows(&mut bytes.as_slice(), events));
            let rows = rows.unwrap_or_else(|panic| Err(StateError::Read(panic)));
            let (partition, batch) = rows.map_err(|error| format!("{}: {error}", manifest.rest.name))?;
            locals[number % workers].hold(&partition, batch);
        }
        faults::point("checkpoint.restored");
        let restored = Restored {
            id: Some(manifest.id),
            offsets: offsets(&manifest),
            now: manifest.now,
            admitted_until: manifest.admitted_until,
            rows,
            took: started.elapsed(),
            ..Restored::default()
        };
        Ok((manifest, restored))
    }
}

/// What was read of a checkpoint, beside the states that have it now.
pub(super) struct Loaded {
    /// Records.
    pub(super) rows: u64,
    /// Rows ahead of the clock.
    pub(super) held: Vec<Vec<u8>>,
    /// A table that belongs to no state, if there is one.
    unknown: Option<String>,
}

/// Gives workers the states whose names are `wanted`; the error says which file is damaged, and how.
pub(super) fn load_states(
    vault: &dyn Vault,
    manifest: &Manifest,
    locals: &mut [Local],
    wanted: impl Fn(&str) -> bool,
) -> Result<Loaded, String> {
    let rest = read_blob(vault, &manifest.rest, REST)?;
    let rest: Rest = operators::state::take(&mut rest.section(0))
        .map_err(|error| format!("{}: {error}", manifest.rest.name))?;
    let names: Vec<String> = locals[0].states().into_iter().map(|(name, _)| name).collect();
    let mut chains = manifest.chains.clone();
    let mut files: Vec<(usize, Vec<(String, BlobRef)>)> = Vec::new();
    for (number, name) in names.iter().enumerate().filter(|(_, name)| wanted(name)) {
        let of_state = |table: &&String| table.rsplit_once('/').is_some_and(|(state, _)| state == name);
        let tables: Vec<String> = chains.keys().filter(of_state).cloned().collect();
        let of_table = |table: String| {
            let blobs = chains.remove(&table).unwrap_or_default();
            blobs.into_iter().map(move |blob| (table.clone(), blob))
        };
        files.push((number, tables.into_iter().flat_map(of_table).collect()));
    }
    let rows = files.iter().flat_map(|(_, files)| files).map(|(_, blob)| blob.rows).sum();
    // While the first is read nobody has anything to do.
    files.sort_by_key(|(_, files)| files.iter().map(|(_, blob)| blob.bytes).sum::<u64>());
    let files = Mutex::new(files.into_iter());
    let next = || files.lock().next();
    std::thread::scope(|scope| {
        // The files of the next states are read while one is made.
        let (sender, ahead) = crossbeam_channel::bounded(0);
        for _ in 0..READERS {
            let (sender, next) = (sender.clone(), &next);
            let reader = std::thread::Builder::new().name("restore-read".to_owned());
            let reader = reader.spawn_scoped(scope, move || {
                while let Some((number, files)) = next() {
                    let read = |(table, blob): (String, BlobRef)| {
                        let read = read_blob(vault, &blob, &table)?;
                        Ok((table, read, blob))
                    };
                    let read: Result<Vec<_>, String> = files.into_iter().map(read).collect();
                    // Nobody wants it after an error.
                    if sender.send((number, read)).is_err() {
                        return;
                    }
                }
            });
            reader.map_err(|error| format!("no thread to read it: {error}"))?;
        }
        drop(sender);
        for (number, read) in ahead {
            let (name, mut blobs) = (&names[number], read?);
            if name.starts_with("ids/") && faults::bug("forget_ids") {
                blobs.clear();
            }
            faults::point("checkpoint.restoring");
            let loose = rest.loose.get(name).map(Vec::as_slice).unwrap_or_default();
            restore_state(locals, number, &blobs, loose, manifest.now).map_err(|error| {
                let files: Vec<&str> = blobs.iter().map(|(_, _, blob)| blob.name.as_str()).collect();
                format!("{name} in {}: {error}", files.join(", "))
            })?;
        }
        Ok(Loaded { rows, held: rest.held, unknown: chains.into_keys().next() })
    })
}

pub(super) fn offsets(manifest: &Manifest) -> Offsets {
    manifest.partitions.iter().map(|stand| (stand.partition.clone(), stand.next)).collect()
}

/// Gives each worker its shards of one state, all workers at once; what cores are left help.
fn restore_state(
    locals: &mut [Local],
    number: usize,
    blobs: &[(String, Blob, BlobRef)],
    loose: &[Vec<u8>],
    now: i64,
) -> Result<(), StateError> {
    let workers = locals.len();
    let parts = std::thread::available_parallelism().map_or(1, |cores| cores.get() / workers).max(1);
    let one = |(worker, local): (usize, &mut Local)| {
        let mut tables: Vec<(&str, Section<'_>)> = Vec::new();
        for (table, blob, _) in blobs {
            let section = |shard| Section { shard: shard as u8, bytes: blob.section(shard) };
            let own = (worker..SHARDS).step_by(workers).map(section);
            let short = table.rsplit('/').next().unwrap_or_default();
            tables.extend(own.filter(|section| !section.bytes.is_empty()).map(|section| (short, section)));
        }
        let loose = loose.iter().map(Vec::as_slice).collect();
        let found = Found { tables, loose, leads: worker == 0, now, parts };
        let (_, state) = local.states().into_iter().nth(number).expect("all workers have the same states");
        state.restore(&found)?;
        state.changed().loaded();
        Ok(())
    };
    side_by_side(locals.iter_mut().enumerate().collect(), one).map(drop)
}

/// Counters by source and event type.
pub(crate) fn counters(manifest: &Manifest) -> BTreeMap<(Arc<str>, String), crate::publish::Counts> {
    let counted = manifest.counters.iter();
    counted.map(|counted| ((Arc::clone(&counted.source), counted.event.clone()), counted.counts)).collect()
}
