//! Checkpoints in an object store.
//!
//! *In*: a place such as `s3://bucket/prefix`. *Out*: what an engine keeps its state in. *Never*: a file in place of another;
//! an error because the answer to our own request was lost.

use bytes::Bytes;
use engine::checkpoint::{Stored, Vault, VaultError};
use lake::place::{Place, PlaceError};
use tokio::runtime::{Builder, Runtime};

/// A place as the engine sees it. Its calls are made from threads without a runtime.
#[derive(Debug)]
pub(super) struct Bucket {
    place: Place,
    runtime: Runtime,
}

impl Bucket {
    /// # Errors
    /// In words: the address is none, or there is no thread to be had.
    pub(super) fn open(address: &str) -> Result<Self, String> {
        let place = Place::open(address).map_err(|error| error.to_string())?;
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let bucket = Self { place, runtime };
        // A store that cannot be reached is told at the start, not at the first checkpoint.
        bucket.list().map_err(|error| error.to_string())?;
        Ok(bucket)
    }
}

impl Vault for Bucket {
    fn put(&self, name: &str, parts: &[&[u8]]) -> Result<(), VaultError> {
        let bytes = Bytes::from(parts.concat());
        match self.runtime.block_on(self.place.put_new(name, bytes.clone())) {
            // A request that was made again after its answer was lost finds what it has written itself.
            Err(PlaceError::Exists(_)) if self.get(name)? == bytes => Ok(()),
            done => done.map_err(told),
        }
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, VaultError> {
        self.runtime.block_on(self.place.get(name)).map(Vec::from).map_err(told)
    }

    fn list(&self) -> Result<Vec<Stored>, VaultError> {
        let all = self.runtime.block_on(self.place.list("")).map_err(told)?;
        Ok(all
            .into_iter()
            .map(|file| Stored { age: file.modified.elapsed().ok(), name: file.name })
            .collect())
    }

    fn delete(&self, name: &str) -> Result<(), VaultError> {
        self.runtime.block_on(self.place.delete(name)).map_err(told)
    }
}

fn told(error: PlaceError) -> VaultError {
    match error {
        PlaceError::Exists(name) => VaultError::Taken(name),
        PlaceError::Missing(name) => VaultError::Missing(name),
        other => VaultError::Io(other.to_string()),
    }
}
