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

use connectors::store::checkpoints::{Folder, FolderError};
use connectors::store::dead_letters::DeadLetters;
use contracts::Catalog;
use contracts::batch::Partition;
use engine::checkpoint::{Checkpoints, Gate, Offsets, Stored, Vault, VaultError};
use lake::LakeWriter;

use crate::cli::exit::{Exit, Failure};
use crate::settings::{Keeping, Source};
use crate::sources::TABLE;

/// A folder as the engine sees it.
#[derive(Debug)]
struct FolderVault(Folder);

impl Vault for FolderVault {
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

fn told(error: FolderError) -> VaultError {
    match error {
        FolderError::Taken(path) => VaultError::Taken(path.display().to_string()),
        FolderError::Missing(path) => VaultError::Missing(path.display().to_string()),
        other => VaultError::Io(other.to_string()),
    }
}

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
        let Some(lake) = self.lake.as_ref().filter(|_| !lake::fault::bug("checkpoint_early")) else {
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
    vault: Arc<FolderVault>,
    gate: Arc<RowsFirst>,
    every: Duration,
    keep: usize,
}

impl Kept {
    /// Opens the folder below `data`; `None`: the settings want none.
    ///
    /// # Errors
    /// The folder cannot be made or not be read.
    pub fn open(
        data: &Path,
        settings: &Keeping,
        dead: &Arc<DeadLetters>,
        lake: Option<Arc<LakeWriter>>,
    ) -> Result<Option<Self>, Failure> {
        if settings.every.is_zero() {
            return Ok(None);
        }
        let folder = Folder::open(&data.join("checkpoints"))
            .map_err(|error| Failure::new(Exit::Config, format!("the checkpoints: {error}")))?;
        Ok(Some(Self {
            vault: Arc::new(FolderVault(folder)),
            gate: Arc::new(RowsFirst { dead: Arc::clone(dead), lake }),
            every: settings.every,
            keep: settings.keep,
        }))
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
