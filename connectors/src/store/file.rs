//! Opens redb files the way all our stores want it.
//!
//! *In*: a path. *Out*: an open database that no other process has open. *Never*: a new, empty
//! database in place of a file that is there.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use contracts::guard::guarded;
use parking_lot::RwLock;
use redb::{Builder, Database, DatabaseError, StorageError};

/// Memory for pages of one database.
const CACHE_BYTES: usize = 32 << 20;

/// Why a file cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// Another process (or another handle of this one) has it.
    Locked,
    /// It is there, but cannot be read.
    Corrupted(String),
    /// The system's words.
    Io(String),
}

impl From<redb::Error> for OpenError {
    fn from(error: redb::Error) -> Self {
        use redb::Error as E;
        match error {
            E::DatabaseAlreadyOpen => Self::Locked,
            E::Corrupted(message) => Self::Corrupted(message),
            E::UpgradeRequired(version) => {
                Self::Corrupted(format!("written in the old file format {version}"))
            }
            E::Io(error) if error.kind() == io::ErrorKind::InvalidData => Self::Corrupted(error.to_string()),
            E::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Corrupted("the file is shorter than it says".into())
            }
            E::PreviousIo => Self::Io("an earlier write failed".into()),
            E::TableDoesNotExist(_) | E::TableTypeMismatch { .. } | E::TypeDefinitionChanged { .. } => {
                Self::Corrupted(error.to_string())
            }
            other => Self::Io(other.to_string()),
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// A database that is opened anew after an I/O error (redb refuses everything after one).
pub(crate) struct Handle {
    path: PathBuf,
    /// `None` after an error, until [`Handle::revive`].
    db: RwLock<Option<Database>>,
}

impl Handle {
    pub(crate) fn new(path: &Path, db: Database) -> Self {
        Self { path: path.to_path_buf(), db: RwLock::new(Some(db)) }
    }
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
    /// Runs `run` on the database.
    pub(crate) fn with<T>(
        &self,
        run: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, OpenError> {
        let db = self.db.read();
        let db = db.as_ref().ok_or_else(|| OpenError::Io("is opened again after an error".into()))?;
        Ok(run(db)?)
    }
    /// Closes the database after a failed write.
    pub(crate) fn close(&self) {
        *self.db.write() = None;
    }
    /// Opens it again where it was closed; true if that was done now.
    pub(crate) fn revive(&self) -> Result<bool, OpenError> {
        let mut db = self.db.write();
        let closed = db.is_none();
        if closed {
            *db = Some(open(&self.path)?);
        }
        Ok(closed)
    }
}

/// Opens the database at `path`; where there is no file, makes one with `create`.
///
/// A new file appears under its name only once it is whole: a crash while it is made leaves nothing
/// that would later be taken for a damaged store.
pub(crate) fn open_or_create(
    path: &Path,
    create: impl FnOnce(&Database) -> Result<(), redb::Error>,
) -> Result<Database, OpenError> {
    if !path.try_exists()? {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let new = PathBuf::from(format!("{}.{}.tmp", path.display(), std::process::id()));
        let _ = fs::remove_file(&new);
        let made = make(&new, create);
        faults::point("store.before_name");
        let made = made.and_then(|()| match fs::hard_link(&new, path) {
            Err(_) if path.try_exists()? => Ok(()), // somebody was faster
            other => Ok(other?),
        });
        let _ = fs::remove_file(&new);
        made?;
        File::open(folder)?.sync_all()?;
    }
    let db = open(path)?;
    sweep(path);
    Ok(db)
}

/// Removes what processes have left that were killed while they made the file: it is there and ours.
fn sweep(path: &Path) {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    let number = |other: &str| {
        let number = other.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".tmp")?;
        number.parse::<u32>().ok()
    };
    let entries = path.parent().map(fs::read_dir).into_iter().flatten().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_str().and_then(number).is_some()) {
        // One that stays costs a little room and nothing else.
        let _ = fs::remove_file(entry.path());
    }
}

fn make(path: &Path, create: impl FnOnce(&Database) -> Result<(), redb::Error>) -> Result<(), OpenError> {
    let db = Builder::new().create(path).map_err(|e| OpenError::from(redb::Error::from(e)))?;
    create(&db)?;
    drop(db);
    File::open(path)?.sync_all()?;
    Ok(())
}

/// Opens the database at `path`, repairing it after a crash where needed.
fn open(path: &Path) -> Result<Database, OpenError> {
    let len = fs::metadata(path)?.len();
    if len == 0 {
        return Err(OpenError::Corrupted("the file is empty".into()));
    }
    // A damaged file may trip an assertion of the store; it is an error like any other.
    match guarded(|| Builder::new().set_cache_size(CACHE_BYTES).open(path)) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) if is_damage(&error) => {
            Err(OpenError::Corrupted(error.to_string()))
        }
        Ok(Err(error)) => Err(redb::Error::from(error).into()),
        Err(panic) => Err(OpenError::Corrupted(panic)),
    }
}

fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_has_left_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("push");
        for other in ["push.77.tmp", "push.x.tmp", "pusher.7.tmp"] {
            fs::write(folder.path().join(other), b"half").unwrap();
        }
        drop(open_or_create(&path, |_| Ok(())).unwrap());
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["push", "push.x.tmp", "pusher.7.tmp"]);
    }
}
