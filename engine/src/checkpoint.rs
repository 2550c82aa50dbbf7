//! Checkpoints: the state at a tick, kept so that a restart goes on from there.
//!
//! *In*: what all workers cut at the end of one tick, with its offsets. *Out*: blobs of state and, last, a manifest
//! that names them; at a start the newest one that is whole. *Never*: I/O (a [`Vault`] does it), a manifest
//! before its blobs, an empty start where checkpoints are there but cannot be read.
//!
//! `blob` is how state lies in a file, `manifest` what says which files belong together, `write` the thread that
//! writes, `prune` what it lets go, `restore` the way back, `parts` the way into changed contracts.

mod blob;
pub(crate) mod manifest;
mod parts;
mod prune;
mod restore;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use contracts::batch::Partition;

pub use parts::{Base, Parts};
pub use prune::needed;
pub use restore::{RestoreError, Restored};
pub(crate) use restore::{candidates, counters};
pub(crate) use write::{Snapshot, WorkerCut, Writer};

/// Next offset per partition.
pub type Offsets = BTreeMap<Partition, i64>;

/// Where checkpoints are kept. Names are file names: letters, digits, `-` and `.`.
pub trait Vault: Send + Sync + std::fmt::Debug {
    /// Stores something under a name that is free. It is durable, and whole, once this returns.
    ///
    /// # Errors
    /// [`VaultError::Taken`]: the name is not free.
    fn put(&self, name: &str, parts: &[&[u8]]) -> Result<(), VaultError>;
    /// What is stored under a name.
    ///
    /// # Errors
    /// [`VaultError::Missing`]: there is nothing.
    fn get(&self, name: &str) -> Result<Vec<u8>, VaultError>;
    /// Everything that is stored, in no order.
    ///
    /// # Errors
    /// The store does not answer.
    fn list(&self) -> Result<Vec<Stored>, VaultError>;
    /// Removes what is stored under a name, if there is something.
    ///
    /// # Errors
    /// The store does not answer.
    fn delete(&self, name: &str) -> Result<(), VaultError>;
}

/// Something in a [`Vault`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// How long ago it was stored, if that is known.
    pub age: Option<Duration>,
}

/// A [`Vault`] does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// Something is stored under this name already.
    #[error("{0}: there is such a file already")]
    Taken(String),
    /// Nothing is stored under this name.
    #[error("{0}: there is no such file")]
    Missing(String),
    /// The store's own words, with the name.
    #[error("{0}")]
    Io(String),
}

/// Says when a checkpoint may count: once everything before its offsets is kept elsewhere, too.
pub trait Gate: Send + Sync + std::fmt::Debug {
    /// Whether everything before `offsets` is kept; waits for it for `patience` at most.
    fn may_publish(&self, offsets: &Offsets, patience: Duration) -> bool;
}

/// Every checkpoint counts at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open;

impl Gate for Open {
    fn may_publish(&self, _offsets: &Offsets, _patience: Duration) -> bool {
        true
    }
}

/// How an engine keeps its state.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    /// Where.
    pub vault: Arc<dyn Vault>,
    /// How often, while there is something new; `None`: only when [`crate::Engine::checkpoint`] is called.
    pub every: Option<Duration>,
    /// So many are kept, at least 1.
    pub keep: usize,
    /// What must be kept elsewhere before a checkpoint counts.
    pub gate: Arc<dyn Gate>,
    /// Begin with the newest one. Otherwise nothing is read, and nothing written before
    /// [`crate::Engine::keep_checkpoints`]: another engine still writes there.
    pub restore: bool,
    /// Names of the sources there are: what others brought stays, but nobody waits for them. `None`: all.
    pub sources: Option<BTreeSet<String>>,
    /// Rows at or beyond these offsets wait until all of these partitions have been read up to them, so that what
    /// was admitted before is admitted again in the same way.
    pub resume_until: Offsets,
}

/// A checkpoint that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its number.
    pub id: u64,
    /// The tick whose state it is.
    pub tick: u64,
    /// The instant of the tick.
    pub now: i64,
    /// Where to go on reading.
    pub offsets: Offsets,
    /// Bytes written for it.
    pub bytes: u64,
    /// Files written for it.
    pub files: usize,
    /// Records written for it.
    pub rows: u64,
}

/// A checkpoint could not be written. The ones before it still count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The engine was started without.
    #[error("this engine keeps no checkpoints")]
    Off,
    /// The store.
    #[error("the checkpoint cannot be written: {0}")]
    Vault(#[from] VaultError),
    /// Some state.
    #[error("the checkpoint cannot be written: {table}: {error}")]
    State {
        /// Which.
        table: String,
        /// Why.
        error: operators::state::StateError,
    },
    /// The gate stayed shut.
    #[error("the checkpoint does not count yet: what lies before its offsets is not kept elsewhere")]
    Gate,
    /// The engine is ending, or broken.
    #[error("the engine has stopped")]
    Stopped,
}

/// How checkpoints are doing, for whoever watches.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// The newest one that counts.
    pub newest: Option<Written>,
    /// How many were written since the start.
    pub written: u64,
    /// How many attempts failed since the start.
    pub failed: u64,
    /// Why the last attempt failed; `None`: it did not.
    pub error: Option<String>,
    /// How long the last one took to be written.
    pub took: Duration,
}
