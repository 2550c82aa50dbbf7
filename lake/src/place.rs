//! A place for whole files: a folder of this machine, or a bucket of an object store.
//!
//! *In*: bytes under a name below the place's root. *Out*: the same bytes, once they are safe: a folder's file has been
//! synced under its final name, and so has its directory; a bucket has answered. *Never*: a file that is seen half
//! written, a name that leads out of the root, success of a write whose `fsync` failed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::buffered::BufWriter;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tokio::io::AsyncWriteExt;

/// Files being written end so; what a crash leaves behind is swept by age.
const UNFINISHED: &str = ".unfinished";

/// Where files are.
#[derive(Debug, Clone)]
pub enum Place {
    /// A folder; made when the first file is written.
    Folder(PathBuf),
    /// A bucket, and the prefix of all names in it (without a slash at either end; may be empty).
    Bucket {
        /// The client.
        store: Arc<AmazonS3>,
        /// `s3://bucket`.
        url: String,
        /// Before every name.
        prefix: String,
    },
}

/// A file, as a listing tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name below the root, with `/`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was last written.
    pub modified: SystemTime,
}

/// Why the place did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There is no such file.
    #[error("{0}: there is no such file")]
    Missing(String),
    /// There is one already.
    #[error("{0}: there is a file of this name already")]
    Exists(String),
    /// The name is not below the root.
    #[error("{name}: not inside {root}; the lake reads and writes there only")]
    Outside {
        /// The name.
        name: String,
        /// The root.
        root: String,
    },
    /// The address of a place cannot be used.
    #[error("`{address}` is no place for files: {message}; allowed are a folder or s3://bucket/prefix")]
    Address {
        /// As given.
        address: String,
        /// What is wrong with it.
        message: String,
    },
    /// The system failed.
    #[error("{name}: {source}")]
    Io {
        /// The file.
        name: String,
        /// The system's words.
        source: io::Error,
    },
    /// The object store failed.
    #[error("{name}: {source}")]
    Store {
        /// The file.
        name: String,
        /// The store's words.
        source: object_store::Error,
    },
}

impl PlaceError {
    fn io(name: &str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing(name.to_owned()),
            io::ErrorKind::AlreadyExists => Self::Exists(name.to_owned()),
            _ => Self::Io { name: name.to_owned(), source },
        }
    }

    fn store(name: &str, source: object_store::Error) -> Self {
        match source {
            object_store::Error::NotFound { .. } => Self::Missing(name.to_owned()),
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
                Self::Exists(name.to_owned())
            }
            source => Self::Store { name: name.to_owned(), source },
        }
    }
}

impl Place {
    /// The place at `address`: `s3://bucket/prefix` (credentials, region and endpoint from the environment:
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`), or a folder.
    ///
    /// # Errors
    /// When the address has another scheme, or the environment is not enough.
    pub fn open(address: &str) -> Result<Self, PlaceError> {
        let wrong = |message: String| PlaceError::Address { address: address.to_owned(), message };
        if let Some(rest) = address.strip_prefix("s3://").or_else(|| address.strip_prefix("s3a://")) {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(wrong("there is no bucket".to_owned()));
            }
            let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build();
            let store = Arc::new(store.map_err(|error| wrong(error.to_string()))?);
            let prefix = prefix.trim_matches('/').to_owned();
            return Ok(Self::Bucket { store, url: format!("s3://{bucket}"), prefix });
        }
        let folder = address.strip_prefix("file://").unwrap_or(address);
        if let Some((scheme, _)) = folder.split_once("://") {
            return Err(wrong(format!("`{scheme}` is not known")));
        }
        let folder = std::path::absolute(folder).map_err(|error| wrong(error.to_string()))?;
        Ok(Self::Folder(folder))
    }

    /// The root as other programs know it: `file:///data/lake`, `s3://bucket/prefix`.
    pub fn url(&self) -> String {
        match self {
            Self::Folder(folder) => format!("file://{}", folder.display()),
            Self::Bucket { url, prefix, .. } if prefix.is_empty() => url.clone(),
            Self::Bucket { url, prefix, .. } => format!("{url}/{prefix}"),
        }
    }

    /// The name below the root of a file given by its whole address.
    ///
    /// # Errors
    /// When it is not below the root.
    pub fn name_of(&self, address: &str) -> Result<String, PlaceError> {
        let root = self.url();
        let outside = || PlaceError::Outside { name: address.to_owned(), root: root.clone() };
        let rest = match self {
            Self::Folder(folder) => {
                let path = address.strip_prefix("file://").or_else(|| address.strip_prefix("file:"));
                let path = Path::new(path.unwrap_or(address));
                path.strip_prefix(folder).ok().and_then(Path::to_str)
            }
            Self::Bucket { .. } => {
                let same = address.strip_prefix("s3a://").map(|rest| format!("s3://{rest}"));
                let same = same.as_deref().unwrap_or(address);
                return below(same, &root).map(str::to_owned).ok_or_else(outside);
            }
        };
        rest.filter(|rest| plain(rest)).map(str::to_owned).ok_or_else(outside)
    }

    /// Writes a file, in place of one of the same name.
    ///
    /// # Errors
    /// When it is not certain that the bytes are safe.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<(), PlaceError> {
        self.check(name)?;
        match self {
            Self::Folder(folder) => {
                let mut file = Unfinished::new(folder, name)?;
                file.write(&bytes)?;
                file.finish(true)
            }
            Self::Bucket { store, .. } => {
                let done = store.put(&self.key(name), bytes.into()).await;
                done.map(drop).map_err(|error| PlaceError::store(name, error))
            }
        }
    }

    /// Writes a file that must not be there yet: of several that try, one succeeds.
    ///
    /// # Errors
    /// [`PlaceError::Exists`], and when it is not certain that the bytes are safe.
    pub async fn put_new(&self, name: &str, bytes: Bytes) -> Result<(), PlaceError> {
        self.check(name)?;
        match self {
            Self::Folder(folder) => {
                let mut file = Unfinished::new(folder, name)?;
                file.write(&bytes)?;
                file.finish(false)
            }
            Self::Bucket { store, .. } => {
                let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                let done = store.put_opts(&self.key(name), bytes.into(), create).await;
                done.map(drop).map_err(|error| PlaceError::store(name, error))
            }
        }
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// [`PlaceError::Missing`], and what reading may meet.
    pub async fn get(&self, name: &str) -> Result<Bytes, PlaceError> {
        self.check(name)?;
        match self {
            Self::Folder(folder) => {
                fs::read(folder.join(name)).map(Bytes::from).map_err(|error| PlaceError::io(name, error))
            }
            Self::Bucket { store, .. } => {
                let failed = |error| PlaceError::store(name, error);
                store.get(&self.key(name)).await.map_err(failed)?.bytes().await.map_err(failed)
            }
        }
    }

    /// Some bytes of a file.
    ///
    /// # Errors
    /// As [`Place::get`]; the file may be shorter.
    pub async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, PlaceError> {
        self.check(name)?;
        match self {
            Self::Folder(folder) => {
                read_range(&folder.join(name), range).map_err(|error| PlaceError::io(name, error))
            }
            Self::Bucket { store, .. } => {
                store.get_range(&self.key(name), range).await.map_err(|error| PlaceError::store(name, error))
            }
        }
    }

    /// Bytes of a file.
    ///
    /// # Errors
    /// [`PlaceError::Missing`], and what looking may meet.
    pub async fn size(&self, name: &str) -> Result<u64, PlaceError> {
        self.check(name)?;
        match self {
            Self::Folder(folder) => {
                fs::metadata(folder.join(name)).map(|m| m.len()).map_err(|error| PlaceError::io(name, error))
            }
            Self::Bucket { store, .. } => {
                let head = store.head(&self.key(name)).await;
                head.map(|meta| meta.size).map_err(|error| PlaceError::store(name, error))
            }
        }
    }

    /// Removes a file; it is no error when it is not there.
    ///
    /// # Errors
    /// What removing may meet.
    pub async fn delete(&self, name: &str) -> Result<(), PlaceError> {
        self.check(name)?;
        let done = match self {
            Self::Folder(folder) => {
                fs::remove_file(folder.join(name)).map_err(|error| PlaceError::io(name, error))
            }
            Self::Bucket { store, .. } => {
                store.delete(&self.key(name)).await.map_err(|error| PlaceError::store(name, error))
            }
        };
        match done {
            Err(PlaceError::Missing(_)) => Ok(()),
            done => done,
        }
    }

    /// All files below `under` (a name; empty: the root), in no order. Files being written are among them.
    ///
    /// # Errors
    /// What listing may meet.
    pub async fn list(&self, under: &str) -> Result<Vec<Listed>, PlaceError> {
        self.check(under)?;
        match self {
            Self::Folder(folder) => {
                let mut found = Vec::new();
                let start = folder.join(under);
                walk(folder, &start, &mut found).map_err(|error| PlaceError::io(under, error))?;
                Ok(found)
            }
            Self::Bucket { store, prefix, .. } => {
                let key = self.key(under);
                let within = (!key.as_ref().is_empty()).then_some(&key);
                let all = store.list(within).try_collect::<Vec<_>>().await;
                let all = all.map_err(|error| PlaceError::store(under, error))?;
                let listed = |meta: object_store::ObjectMeta| {
                    let name = below(meta.location.as_ref(), prefix)?.to_owned();
                    Some(Listed { name, size: meta.size, modified: meta.last_modified.into() })
                };
                Ok(all.into_iter().filter_map(listed).collect())
            }
        }
    }

    /// A file that is written piece by piece, and is there when it is finished.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn writer(&self, name: &str) -> Result<Writer, PlaceError> {
        self.check(name)?;
        match self {
            Self::Folder(folder) => Ok(Writer::Folder(Some(Unfinished::new(folder, name)?))),
            Self::Bucket { store, .. } => {
                let store: Arc<dyn ObjectStore> = Arc::<AmazonS3>::clone(store);
                Ok(Writer::Bucket(name.to_owned(), BufWriter::new(store, self.key(name))))
            }
        }
    }

    fn key(&self, name: &str) -> object_store::path::Path {
        match self {
            Self::Bucket { prefix, .. } if !prefix.is_empty() => {
                object_store::path::Path::from(format!("{prefix}/{name}"))
            }
            _ => object_store::path::Path::from(name),
        }
    }

    fn check(&self, name: &str) -> Result<(), PlaceError> {
        if plain(name) {
            return Ok(());
        }
        Err(PlaceError::Outside { name: name.to_owned(), root: self.url() })
    }
}

/// A file on its way.
#[derive(Debug)]
pub enum Writer {
    /// In a folder, under another name; `None` once it is finished.
    Folder(Option<Unfinished>),
    /// In a bucket: its name, and what has not been sent.
    Bucket(String, BufWriter),
}

impl Writer {
    /// Appends.
    ///
    /// # Errors
    /// When the bytes were not taken; the file cannot be finished then.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), PlaceError> {
        match self {
            Self::Folder(Some(file)) => file.write(&bytes),
            Self::Folder(None) => Err(finished("a file")),
            Self::Bucket(name, writer) => {
                writer.put(bytes).await.map_err(|error| PlaceError::io(name, error.into()))
            }
        }
    }

    /// The file is whole: makes it safe and visible.
    ///
    /// # Errors
    /// When that is not certain.
    pub async fn finish(&mut self) -> Result<(), PlaceError> {
        match self {
            Self::Folder(file) => file.take().ok_or_else(|| finished("a file"))?.finish(true),
            Self::Bucket(name, writer) => {
                writer.shutdown().await.map_err(|error| PlaceError::io(name, error))
            }
        }
    }
}

fn finished(name: &str) -> PlaceError {
    PlaceError::io(name, io::Error::other("it is finished already"))
}

/// A file of a folder under a name of its own, until it is whole. Dropped before that, it is removed.
#[derive(Debug)]
pub struct Unfinished {
    file: File,
    own: PathBuf,
    path: PathBuf,
    name: String,
    /// An earlier write or sync failed: what the system has of the file is not known.
    broken: bool,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Unfinished {
    fn new(folder: &Path, name: &str) -> Result<Self, PlaceError> {
        let path = folder.join(name);
        let failed = |error| PlaceError::io(name, error);
        make_folders(path.parent().unwrap_or(folder)).map_err(failed)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let own = format!("{}.{}-{number}{UNFINISHED}", path.display(), std::process::id());
        let own = PathBuf::from(own);
        let file = File::create(&own).map_err(failed)?;
        Ok(Self { file, own, path, name: name.to_owned(), broken: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PlaceError> {
        self.unbroken()?;
        let done = self.file.write_all(bytes);
        self.broken = done.is_err();
        done.map_err(|error| PlaceError::io(&self.name, error))
    }

    fn finish(self, replace: bool) -> Result<(), PlaceError> {
        self.unbroken()?;
        let failed = |error| PlaceError::io(&self.name, error);
        faults::point("lake.before_sync");
        // A sync that fails once may succeed the next time without the bytes being there: never asked twice.
        if !faults::bug("unsynced_lake") {
            self.file.sync_all().map_err(failed)?;
        }
        faults::point("lake.before_name");
        match replace {
            true => fs::rename(&self.own, &self.path),
            false => fs::hard_link(&self.own, &self.path),
        }
        .map_err(failed)?;
        faults::point("lake.after_name");
        sync_folder(self.path.parent().unwrap_or(Path::new("/"))).map_err(failed)
    }

    fn unbroken(&self) -> Result<(), PlaceError> {
        match self.broken {
            true => Err(PlaceError::io(&self.name, io::Error::other("an earlier write failed"))),
            false => Ok(()),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename there is nothing of that name; what stays is swept.
        let _ = fs::remove_file(&self.own);
    }
}

/// Whether a file name is that of a file being written.
pub fn is_unfinished(name: &str) -> bool {
    name.ends_with(UNFINISHED)
}

/// A new folder is safe when its parent has been synced.
fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folders(parent)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => folder.parent().map_or(Ok(()), sync_folder),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn read_range(path: &Path, range: Range<u64>) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    // What a damaged footer asks for must not become an allocation.
    if range.start > range.end || range.end > size {
        let message = format!("bytes {} to {} of {size}", range.start, range.end);
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(io::Error::other)?];
    file.read_exact(&mut bytes)?;
    Ok(bytes.into())
}

fn walk(root: &Path, at: &Path, found: &mut Vec<Listed>) -> io::Result<()> {
    let entries = match fs::read_dir(at) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let meta = match entry.metadata() {
            // It went away in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            meta => meta?,
        };
        if meta.is_dir() {
            walk(root, &entry.path(), found)?;
        } else if let Some(name) = entry.path().strip_prefix(root).ok().and_then(Path::to_str) {
            found.push(Listed { name: name.to_owned(), size: meta.len(), modified: meta.modified()? });
        }
    }
    Ok(())
}

/// What is left of `address` below `root`.
fn below<'a>(address: &'a str, root: &str) -> Option<&'a str> {
    if root.is_empty() {
        return Some(address).filter(|rest| plain(rest));
    }
    address.strip_prefix(root)?.strip_prefix('/').filter(|rest| plain(rest))
}

/// A name of plain parts: nothing absolute, no `..`.
fn plain(name: &str) -> bool {
    !name.contains('\0') && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path().join("a/b").to_str().unwrap()).unwrap();
        (dir, place)
    }

    #[tokio::test]
    async fn a_file_is_there_when_it_is_whole() {
        let (_dir, place) = folder();
        assert!(place.list("").await.unwrap().is_empty(), "a place without a folder is empty");
        let mut writer = place.writer("x/y.parquet").unwrap();
        writer.write(Bytes::from_static(b"hel")).await.unwrap();
        assert!(matches!(place.get("x/y.parquet").await, Err(PlaceError::Missing(_))));
        writer.write(Bytes::from_static(b"lo")).await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(place.get("x/y.parquet").await.unwrap(), "hello");
        assert_eq!(place.get_range("x/y.parquet", 1..3).await.unwrap(), "el");
        assert!(place.get_range("x/y.parquet", 1..u64::MAX).await.is_err());
        assert_eq!(place.size("x/y.parquet").await.unwrap(), 5);
        let listed = place.list("x").await.unwrap();
        assert_eq!(listed.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["x/y.parquet"]);
        drop(place.writer("x/z").unwrap());
        assert_eq!(place.list("").await.unwrap().len(), 1, "what is given up leaves nothing");
        place.delete("x/y.parquet").await.unwrap();
        place.delete("x/y.parquet").await.unwrap();
    }

    #[tokio::test]
    async fn of_several_that_create_one_succeeds() {
        let (_dir, place) = folder();
        place.put_new("m", Bytes::from_static(b"1")).await.unwrap();
        assert!(matches!(place.put_new("m", Bytes::from_static(b"2")).await, Err(PlaceError::Exists(_))));
        assert_eq!(place.get("m").await.unwrap(), "1");
        place.put("m", Bytes::from_static(b"3")).await.unwrap();
        assert_eq!(place.get("m").await.unwrap(), "3");
        assert_eq!(place.list("").await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn nothing_outside_is_touched() {
        let (dir, place) = folder();
        for name in ["../c", "/etc/passwd", "x/../../c", "x\0y"] {
            assert!(matches!(place.get(name).await, Err(PlaceError::Outside { .. })), "{name}");
        }
        let root = dir.path().join("a/b");
        let inside = format!("file://{}/t/1.parquet", root.display());
        assert_eq!(place.name_of(&inside).unwrap(), "t/1.parquet");
        assert!(place.name_of("file:///etc/passwd").is_err());
        assert!(place.name_of(&format!("file://{}/../c", root.display())).is_err());
        assert!(Place::open("gs://bucket").unwrap_err().to_string().contains("`gs` is not known"));
    }
}
