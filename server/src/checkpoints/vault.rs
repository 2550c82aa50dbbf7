//! Vaults: a folder or an object store, and files in them that must not go yet.
//!
//! *In*: the settings. *Out*: what an engine keeps its state in. *Never*: a file removed that somebody still reads.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use connectors::store::checkpoints::{Folder, FolderError};
use engine::checkpoint::{Stored, Vault, VaultError};
use parking_lot::Mutex;

use super::bucket::Bucket;
use crate::cli::exit::{Exit, Failure};
use crate::settings::Keeping;

/// The vault of a server.
#[derive(Debug)]
pub(super) struct Held {
    inner: Arc<dyn Vault>,
    /// They stay, whatever is pruned.
    pinned: Mutex<BTreeSet<String>>,
}

impl Held {
    /// The place of the settings, or a folder below `data`.
    pub(super) fn open(data: &Path, settings: &Keeping) -> Result<Arc<Self>, Failure> {
        let inner = match settings.place.as_deref() {
            Some(address) if address.contains("://") => Arc::new(Bucket::open(address).map_err(failed)?),
            Some(path) => folder(Path::new(path))?,
            None => folder(&data.join("checkpoints"))?,
        };
        Ok(Arc::new(Self { inner, pinned: Mutex::default() }))
    }

    /// Files that stay while the result is held.
    pub(super) fn pin(self: &Arc<Self>, files: Vec<String>) -> Pinned {
        self.pinned.lock().extend(files);
        Pinned(Arc::clone(self))
    }
}

/// Files that stay while this is held.
#[derive(Debug)]
pub struct Pinned(Arc<Held>);

impl Drop for Pinned {
    fn drop(&mut self) {
        // What was left because of it goes with the next checkpoint, or when it is old.
        self.0.pinned.lock().clear();
    }
}

impl Vault for Held {
    fn put(&self, name: &str, parts: &[&[u8]]) -> Result<(), VaultError> {
        self.inner.put(name, parts)
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, VaultError> {
        self.inner.get(name)
    }

    fn list(&self) -> Result<Vec<Stored>, VaultError> {
        self.inner.list()
    }

    fn delete(&self, name: &str) -> Result<(), VaultError> {
        if self.pinned.lock().contains(name) {
            return Ok(());
        }
        self.inner.delete(name)
    }
}

/// A folder as the engine sees it.
#[derive(Debug)]
struct FolderVault(Folder);

pub(super) fn folder(path: &Path) -> Result<Arc<dyn Vault>, Failure> {
    let folder = Folder::open(path).map_err(|error| failed(error.to_string()))?;
    Ok(Arc::new(FolderVault(folder)))
}

fn failed(error: String) -> Failure {
    Failure::new(Exit::Config, format!("the checkpoints: {error}"))
}

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
