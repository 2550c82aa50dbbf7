//! A vault in memory, and what can happen to one.
//!
//! *In*: files of checkpoints. *Out*: the same files, whole or damaged. *Never*: a file on a disk.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::checkpoint::{Stored, Vault, VaultError};

/// Files by name.
#[derive(Debug, Default)]
pub struct Memory {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Chance decides which files cannot be written; `None`: all can.
    fails: Mutex<Option<fastrand::Rng>>,
}

impl Memory {
    /// From now on every eighth file or so cannot be written; `None`: all can.
    pub fn fail(&self, seed: Option<u64>) {
        *self.fails.lock().unwrap_or_else(PoisonError::into_inner) = seed.map(fastrand::Rng::with_seed);
    }

    /// All files, to be looked at or damaged.
    pub fn files(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another vault with the same files.
    pub fn copy(&self) -> Self {
        Self { files: Mutex::new(self.files().clone()), fails: Mutex::default() }
    }
}

impl Vault for Memory {
    fn put(&self, name: &str, parts: &[&[u8]]) -> Result<(), VaultError> {
        let fails = self.fails.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(|rng| rng.u8(..8));
        if fails == Some(0) {
            return Err(VaultError::Io(format!("{name}: no space left")));
        }
        let mut files = self.files();
        if files.contains_key(name) {
            return Err(VaultError::Taken(name.to_owned()));
        }
        files.insert(name.to_owned(), parts.concat());
        Ok(())
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, VaultError> {
        self.files().get(name).cloned().ok_or_else(|| VaultError::Missing(name.to_owned()))
    }

    fn list(&self) -> Result<Vec<Stored>, VaultError> {
        Ok(self.files().keys().map(|name| Stored { name: name.clone(), age: None }).collect())
    }

    fn delete(&self, name: &str) -> Result<(), VaultError> {
        self.files().remove(name);
        Ok(())
    }
}
