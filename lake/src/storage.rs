//! The lake's files for the iceberg crate: its storage trait on a [`Place`].
//!
//! *In*: whole addresses (`file:///…`, `s3://…`). *Out*: bytes. *Never*: an address outside the warehouse, whatever a
//! manifest says; a file that is acknowledged before it is safe.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::io::{
    FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig, StorageFactory,
};
use iceberg::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::place::{Place, PlaceError, Writer};

/// Makes the storage of one warehouse.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Warehouse {
    /// Address of the place.
    address: String,
    #[serde(skip)]
    place: OnceLock<Place>,
}

impl Warehouse {
    pub(super) fn new(place: Place) -> Self {
        Self { address: place.url(), place: OnceLock::from(place) }
    }

    fn place(&self) -> Result<&Place> {
        if let Some(place) = self.place.get() {
            return Ok(place);
        }
        let place = Place::open(&self.address).map_err(told)?;
        Ok(self.place.get_or_init(|| place))
    }

    fn at(&self, address: &str) -> Result<(&Place, String)> {
        let place = self.place()?;
        Ok((place, place.name_of(address).map_err(told)?))
    }
}

#[typetag::serde(name = "StreamgaugeWarehouse")]
impl StorageFactory for Warehouse {
    fn build(&self, _config: &StorageConfig) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
#[typetag::serde(name = "StreamgaugeStorage")]
impl Storage for Warehouse {
    async fn exists(&self, path: &str) -> Result<bool> {
        let (place, name) = self.at(path)?;
        match place.size(&name).await {
            Ok(_) => Ok(true),
            Err(PlaceError::Missing(_)) => Ok(false),
            Err(error) => Err(told(error)),
        }
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        let (place, name) = self.at(path)?;
        Ok(FileMetadata { size: place.size(&name).await.map_err(told)? })
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        let (place, name) = self.at(path)?;
        place.get(&name).await.map_err(told)
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        let (place, name) = self.at(path)?;
        Ok(Box::new(Reader { place: place.clone(), name }))
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<()> {
        let (place, name) = self.at(path)?;
        place.put(&name, bytes).await.map_err(told)
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        let (place, name) = self.at(path)?;
        Ok(Box::new(Output(place.writer(&name).map_err(told)?)))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        let (place, name) = self.at(path)?;
        place.delete(&name).await.map_err(told)
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        let (place, name) = self.at(path)?;
        for file in place.list(&name).await.map_err(told)? {
            place.delete(&file.name).await.map_err(told)?;
        }
        Ok(())
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> Result<()> {
        while let Some(path) = paths.next().await {
            self.delete(&path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

struct Reader {
    place: Place,
    name: String,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.place.get_range(&self.name, range).await.map_err(told)
    }
}

struct Output(Writer);

#[async_trait]
impl FileWrite for Output {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.0.write(bytes).await.map_err(told)
    }

    async fn close(&mut self) -> Result<()> {
        self.0.finish().await.map_err(told)
    }
}

fn told(error: PlaceError) -> Error {
    let kind = match error {
        PlaceError::Missing(_) | PlaceError::Outside { .. } => ErrorKind::DataInvalid,
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, error.to_string()).with_source(error)
}
