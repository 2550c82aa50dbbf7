//! State as bytes, and back: what operators hold is cut at a tick, written while they go on, and read again.
//!
//! *In*: the state of an operator at the end of a tick. *Out*: records by shard, which any number of workers can
//! share among them. *Never*: a cut that copies the state (only roots of persistent maps are taken); I/O.
//!
//! Keys are cut into [`SHARDS`] shards by their hash. A worker owns the shards that are its number modulo the
//! number of workers, so a restart with other workers only deals the shards anew.

mod keyed;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::sync::Mutex;

use contracts::guard::guarded;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::fold::group::Lost;
use crate::fold::panes::route_hash;

pub use keyed::{Changed, Keyed, KeyedCut};
pub(crate) use keyed::{deal, take_newest, take_record};

/// Shards of all keyed state; fixed, whatever the number of workers.
pub const SHARDS: usize = 256;

/// The shard of a hash.
pub fn shard_of(hash: u64) -> u8 {
    hash as u8
}

/// Something that belongs to a shard.
pub trait Sharded {
    /// Its shard: the same on every worker, in every run.
    fn shard(&self) -> u8;
}

impl Sharded for std::sync::Arc<str> {
    fn shard(&self) -> u8 {
        shard_of(route_hash(self))
    }
}

/// State cannot be written, or not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A value has no bytes.
    #[error("it cannot be written: {0}")]
    Write(String),
    /// The bytes are no such value.
    #[error("it cannot be read: {0}")]
    Read(String),
}

/// Adds a value to `out`.
pub fn put<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), StateError> {
    let written = postcard::to_extend(value, std::mem::take(out));
    *out = written.map_err(|error| StateError::Write(error.to_string()))?;
    Ok(())
}

/// Takes a value from the front of `from`.
pub fn take<T: DeserializeOwned>(from: &mut &[u8]) -> Result<T, StateError> {
    let (value, rest) = postcard::take_from_bytes(from).map_err(|e| StateError::Read(e.to_string()))?;
    *from = rest;
    Ok(value)
}

/// A value of keyed state, as it lies in a checkpoint.
pub trait Stored: Sized {
    /// Adds it to `out`.
    fn store(&self, out: &mut Vec<u8>) -> Result<(), StateError>;
    /// Takes it from the front of `from`.
    fn load(from: &mut &[u8]) -> Result<Self, StateError>;
}

/// Records by shard.
#[derive(Debug)]
pub struct Sections {
    /// The bytes of each shard.
    pub bytes: Vec<Vec<u8>>,
    /// The records of each shard.
    pub rows: Vec<u32>,
}

impl Default for Sections {
    fn default() -> Self {
        Self { bytes: vec![Vec::new(); SHARDS], rows: vec![0; SHARDS] }
    }
}

impl Sections {
    /// Adds a record to its shard.
    pub fn add(
        &mut self,
        shard: u8,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        self.rows[usize::from(shard)] += 1;
        write(&mut self.bytes[usize::from(shard)])
    }

    /// Records of all shards.
    pub fn count(&self) -> u64 {
        self.rows.iter().map(|rows| u64::from(*rows)).sum()
    }
}

/// Keyed state at one tick. It is written on another thread, while the operator goes on.
pub trait Table: Send {
    /// Whether all records must be written, because it is not known which changed.
    fn is_whole(&self) -> bool;
    /// Whether records only ever come: then what was written before stays as it is, and this is all there is to write.
    fn is_log(&self) -> bool {
        false
    }
    /// Writes the records that changed since the cut before, or all of them.
    fn write(&self, whole: bool, to: &mut Sections) -> Result<(), StateError>;
}

/// State of a worker that belongs to no key.
pub trait Loose: Send {
    /// Its bytes.
    fn write(&self) -> Result<Vec<u8>, StateError>;
}

impl<T: Serialize + Send> Loose for T {
    fn write(&self) -> Result<Vec<u8>, StateError> {
        let mut out = Vec::new();
        put(self, &mut out)?;
        Ok(out)
    }
}

/// What an operator's state is at the end of a tick.
pub struct Cut {
    /// Keyed state by what names it within the operator.
    pub tables: Vec<(&'static str, Box<dyn Table>)>,
    /// The rest.
    pub loose: Box<dyn Loose>,
}

impl std::fmt::Debug for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.tables.iter().map(|(name, _)| name)).finish()
    }
}

/// Notes which keys change.
pub trait Noted {
    /// There will be cuts: from the first one on changed keys are noted.
    fn note(&mut self);
    /// What is here is in a checkpoint already, or there is nothing: changed keys are noted from now on.
    fn loaded(&mut self);
    /// What was noted is of no use: the next cut holds everything.
    fn forget(&mut self);
}

impl<K: Clone + PartialEq> Noted for Changed<K> {
    fn note(&mut self) {
        Changed::note(self);
    }

    fn loaded(&mut self) {
        Changed::loaded(self);
    }

    fn forget(&mut self) {
        Changed::forget(self);
    }
}

/// The state of one operator on one worker.
pub trait State {
    /// What notes the changed keys.
    fn changed(&mut self) -> &mut dyn Noted;
    /// The state at the end of a tick.
    fn cut(&mut self) -> Cut;
    /// The state that cuts were made of; until now there is none.
    ///
    /// # Errors
    /// The bytes are no such state.
    fn restore(&mut self, found: &Found<'_>) -> Result<(), StateError>;
}

/// Records of one shard of a table, from one file.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// The shard.
    pub shard: u8,
    /// The records, one behind the other.
    pub bytes: &'a [u8],
}

/// The tables that an operator's state is made of, by what names them in [`Cut::tables`], with the loose state of
/// every worker there was.
#[derive(Debug, Default)]
pub struct Found<'a> {
    /// Sections of this worker's shards, the oldest first.
    pub tables: Vec<(&'a str, Section<'a>)>,
    /// One per worker that wrote.
    pub loose: Vec<&'a [u8]>,
    /// This worker takes what belongs to no key.
    pub leads: bool,
    /// The instant of the cut.
    pub now: i64,
    /// It is read in at most so many parts side by side.
    pub parts: usize,
}

impl<'a> Found<'a> {
    /// The sections of one table.
    pub fn sections<'b>(&'b self, name: &'b str) -> impl Iterator<Item = Section<'a>> + 'b {
        self.tables.iter().filter(move |(known, _)| *known == name).map(|(_, section)| *section)
    }

    /// The bytes of these.
    pub fn of<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'a [u8]> + 'b {
        self.sections(name).map(|section| section.bytes)
    }

    /// The loose state of every worker there was.
    pub fn loose<T: DeserializeOwned>(&self) -> Result<Vec<T>, StateError> {
        self.loose.iter().map(|bytes| take(&mut &**bytes)).collect()
    }
}

/// Reads each part in the same way, each on a thread of its own but for a single one.
///
/// # Errors
/// The first of a part's; a thread that could not be started. A panic is one, too: the checksums of files hold, so they
/// are ours, but no file may end the process.
pub fn side_by_side<P: Send, R: Send>(
    parts: Vec<P>,
    one: impl Fn(P) -> Result<R, StateError> + Sync,
) -> Result<Vec<R>, StateError> {
    let contradict = || Err(StateError::Read("its records contradict each other".to_owned()));
    let one = |part| guarded(|| one(part)).unwrap_or_else(|_| contradict());
    if parts.len() <= 1 {
        return parts.into_iter().map(one).collect();
    }
    let one = &one;
    std::thread::scope(|scope| {
        let start = |part| {
            let thread = std::thread::Builder::new().name("restore".to_owned());
            thread.spawn_scoped(scope, move || one(part))
        };
        let started: Vec<_> = parts.into_iter().map(start).collect();
        let ended = started.into_iter().map(|thread| {
            let thread = thread.map_err(|error| StateError::Read(format!("no thread: {error}")))?;
            thread.join().unwrap_or_else(|_| contradict())
        });
        // All are waited for, also after an error.
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}

/// Reasons are few and written in the code; more than this many in a file is no state of ours.
const MOST_REASONS: usize = 256;

/// Reads counts by reason: reasons live for ever, so each is made once.
pub fn lost<'de, D: Deserializer<'de>>(from: D) -> Result<Lost, D::Error> {
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let read = std::collections::BTreeMap::<String, u64>::deserialize(from)?;
    let mut known = KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut lost = Lost::new();
    for (reason, count) in read {
        let reason = match known.get(reason.as_str()) {
            Some(reason) => *reason,
            None if known.len() >= MOST_REASONS => {
                return Err(serde::de::Error::custom("more reasons than there are"));
            }
            None => {
                let reason: &'static str = Box::leak(reason.into_boxed_str());
                known.insert(reason);
                reason
            }
        };
        lost.insert(reason, count);
    }
    Ok(lost)
}

/// Adds counts up.
pub fn add_lost(sum: &mut Lost, more: &Lost) {
    for (reason, count) in more {
        *sum.entry(reason).or_default() += count;
    }
}
