//! Where an engine's checkpoints lie, and when they count.
//!
//! *In*: the data folder, the dead letters, the lake. *Out*: what [`Engine::start_from`] wants. *Never*: a checkpoint that
//! counts before the rows before its offsets are in the lake and the refused ones on disk: they are not read again.
//!
//! [`Engine::start_from`]: engine::Engine::start_from

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use connectors::store::dead_letters::DeadLetters;
use contracts::Catalog;
use contracts::batch::Partition;
use engine::checkpoint::{Base, Checkpoints, Gate, Offsets, RestoreError, Vault, VaultError};
use lake::LakeWriter;

use crate::cli::exit::{Exit, Failure};
use crate::settings::{Keeping, Source};
use crate::sources::TABLE;

mod bucket;
mod vault;

pub use vault::Pinned;

use vault::Held;

/// The folder for state that is made beside the running engine.
const BESIDE: &str = "rebuild";

/// Refused rows are on disk first, and everything is in the lake.
#[derive(Debug)]
struct RowsFirst {
    dead: Arc<DeadLetters>,
    lake: Option<Arc<LakeWriter>>,
}

impl Gate for RowsFirst {
    fn may_publish(&self, offsets: &Offsets, patience: Duration) -> bool {
        // The tick has handed its rows over before its state was.
        if !self.dead.flush_for(patience) {
            return false;
        }
        let Some(lake) = self.lake.as_ref().filter(|_| !faults::bug("checkpoint_early")) else {
            return true;
        };
        let stored = offsets.iter().filter(|(partition, _)| !partition.source.starts_with(TABLE));
        let stored = lake::Offsets(stored.map(|(partition, next)| (partition.clone(), *next)).collect());
        // What fails now is tried again by the lake itself.
        if !lake.status().complete.contains(&stored) {
            let _ = lake.flush();
        }
        lake.wait_for(&stored, patience)
    }
}

/// The checkpoints of a server.
#[derive(Debug, Clone)]
pub struct Kept {
    vault: Arc<Held>,
    gate: Arc<RowsFirst>,
    every: Duration,
    keep: usize,
}

impl Kept {
    /// Opens the place of the settings, a folder below `data` if they name none; `None`: they want no checkpoints.
    ///
    /// # Errors
    /// The folder cannot be made or not be read, the object store not be reached.
    pub fn open(
        data: &Path,
        settings: &Keeping,
        dead: &Arc<DeadLetters>,
        lake: Option<Arc<LakeWriter>>,
    ) -> Result<Option<Self>, Failure> {
        if settings.every.is_zero() {
            return Ok(None);
        }
        Ok(Some(Self {
            vault: Held::open(data, settings)?,
            gate: Arc::new(RowsFirst { dead: Arc::clone(dead), lake }),
            every: settings.every,
            keep: settings.keep,
        }))
    }

    /// The newest checkpoint below `data`, as far as its manifest tells; `None`: there is none, or the settings want none.
    ///
    /// # Errors
    /// The folder cannot be made or not be read.
    pub fn newest(data: &Path, settings: &Keeping) -> Result<Option<Base>, Failure> {
        if settings.every.is_zero() {
            return Ok(None);
        }
        let vault: Arc<dyn Vault> = Held::open(data, settings)?;
        Base::newest(&vault).map_err(|error| Failure::new(Exit::Config, error.to_string()))
    }

    /// An empty place for state that is made beside the running engine; nothing in it outlives a process.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn beside(data: &Path) -> Result<Arc<dyn Vault>, Failure> {
        Self::clear(data)?;
        vault::folder(&data.join(BESIDE))
    }

    /// Removes what [`Kept::beside`] made, whoever left it.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub fn clear(data: &Path) -> Result<(), Failure> {
        let path = data.join(BESIDE);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(crate::cli::exit::io(Exit::Config, "empty", &path, &error))
            }
            _ => Ok(()),
        }
    }

    /// A checkpoint, whose files stay until the second of the pair is gone.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn base(&self, id: u64) -> Result<(Base, Pinned), RestoreError> {
        let base = Base::read(&(Arc::clone(&self.vault) as Arc<dyn Vault>), id)?;
        let pinned = self.vault.pin(base.files());
        Ok((base, pinned))
    }

    /// From where on the kept checkpoints would read again; `None`: from the beginning.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn needed(&self) -> Result<Option<Offsets>, VaultError> {
        engine::checkpoint::needed(self.vault.as_ref())
    }

    /// As an engine wants them; only the first one of a process begins with the newest checkpoint, the others take
    /// the place of one that runs. What has been `admitted` before is read again before anything beyond.
    pub fn of(&self, sources: &[Source], catalog: &Catalog, first: bool, admitted: Offsets) -> Checkpoints {
        let mut names: BTreeSet<String> = sources.iter().map(|source| source.name.clone()).collect();
        names.extend(catalog.tables.iter().map(|table| format!("{TABLE}{}", table.head.name)));
        // What nobody reads any more cannot be waited for.
        let is_read = |(partition, _): &(Partition, i64)| names.contains(&*partition.source);
        let resume_until = admitted.into_iter().filter(is_read).collect();
        Checkpoints {
            vault: Arc::clone(&self.vault) as Arc<dyn Vault>,
            every: Some(self.every),
            keep: self.keep,
            gate: Arc::clone(&self.gate) as Arc<dyn Gate>,
            restore: first,
            sources: Some(names),
            resume_until,
        }
    }
}
