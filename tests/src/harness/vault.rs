//! A vault in memory, and what can happen to one.
//!
//! *In*: files of checkpoints. *Out*: the same files, whole or damaged. *Never*: a file on a disk.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::checkpoint::{Stored, Vault, VaultError};

/// Files by name.
#[derive(Debug, Default)]
pub struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);

impl Memory {
    /// All files, to be looked at or damaged.
    pub fn files(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another vault with the same files.
    pub fn copy(&self) -> Self {
        Self(Mutex::new(self.files().clone()))
    }
}

impl Vault for Memory {
    fn put(&self, name: &str, parts: &[&[u8]]) -> Result<(), VaultError> {
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
