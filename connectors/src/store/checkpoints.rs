//! A folder of files that appear whole and durable, or not at all.
//!
//! *In*: a name and bytes. *Out*: a file under that name that survives a power cut, once `put` has returned. *Never*: a
//! file in place of another; half a file under its name; a name outside of the folder.
//!
//! Bytes go to a file with another name, then to the disk; then the file gets its name, which goes to the disk with the
//! folder. Without the last step the name may be gone after a power cut, although the file is there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Names of files that are being written end with this.
const TEMPORARY: &str = ".tmp";

/// The folder does not do what it was asked; each tells the path and the system's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FolderError {
    /// There is a file of that name.
    #[error("{0}: there is such a file already")]
    Taken(PathBuf),
    /// There is no file of that name.
    #[error("{0}: there is no such file")]
    Missing(PathBuf),
    /// The name is no plain file name.
    #[error(
        "`{0}` is no name of a file: letters, digits, `-`, `_` and `.` are allowed, and it does not begin with `.`"
    )]
    Name(String),
    /// Anything else (disk full, permission, ...).
    #[error("{path}: {message}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// The system's words.
        message: String,
    },
}

/// A file of a [`Folder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// How long ago it was written; `None`: the machine's clock has gone back since.
    pub age: Option<Duration>,
}

/// A folder of durable files.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    next: AtomicU64,
}

impl Folder {
    /// Opens a folder, which is made where there is none. What a process that was killed has left half written goes.
    ///
    /// # Errors
    /// The folder cannot be made or not be read.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        fs::create_dir_all(path).map_err(|error| failed(path, &error))?;
        let folder = Self { path: path.to_path_buf(), next: AtomicU64::new(0) };
        for name in folder.names()? {
            if name.ends_with(TEMPORARY) {
                folder.remove(&path.join(name))?;
            }
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_folder(parent)?;
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file under a name that is free; it is durable once this returns.
    ///
    /// # Errors
    /// The name is taken or no name, or the disk does not take the bytes; then there is no such file.
    pub fn put(&self, name: &str, parts: &[&[u8]]) -> Result<(), FolderError> {
        let path = self.named(name)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path.join(format!("{name}.{}-{number}{TEMPORARY}", std::process::id()));
        let written = write(&temporary, parts).map_err(|error| failed(&temporary, &error));
        faults::point("checkpoint.before_name");
        // A link, not a renaming: that would put the file in place of one that is there.
        let named = written.and_then(|()| match fs::hard_link(&temporary, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(FolderError::Taken(path.clone()))
            }
            other => other.map_err(|error| failed(&path, &error)),
        });
        faults::point("checkpoint.after_name");
        let removed = self.remove(&temporary);
        named.and(removed)?;
        sync_folder(&self.path)
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn get(&self, name: &str) -> Result<Vec<u8>, FolderError> {
        let path = self.named(name)?;
        fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => FolderError::Missing(path),
            _ => failed(&path, &error),
        })
    }

    /// All files, in no order; not those that are being written.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, FolderError> {
        let entry = |name: String| {
            let written = fs::metadata(self.path.join(&name)).and_then(|meta| meta.modified());
            Entry { name, age: written.ok().and_then(|at| at.elapsed().ok()) }
        };
        Ok(self.names()?.into_iter().filter(|name| !name.ends_with(TEMPORARY)).map(entry).collect())
    }

    /// Removes a file, if there is one.
    ///
    /// # Errors
    /// It is there and stays.
    pub fn delete(&self, name: &str) -> Result<(), FolderError> {
        self.remove(&self.named(name)?)?;
        sync_folder(&self.path)
    }

    fn named(&self, name: &str) -> Result<PathBuf, FolderError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let fits = !name.is_empty() && !name.starts_with('.') && name.len() < 200 && name.bytes().all(plain);
        match fits && !name.ends_with(TEMPORARY) {
            true => Ok(self.path.join(name)),
            false => Err(FolderError::Name(name.to_owned())),
        }
    }

    fn names(&self) -> Result<Vec<String>, FolderError> {
        let wrong = |error: io::Error| failed(&self.path, &error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            if entry.file_type().is_ok_and(|kind| kind.is_file())
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn remove(&self, path: &Path) -> Result<(), FolderError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, &error)),
            _ => Ok(()),
        }
    }
}

fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = io::BufWriter::with_capacity(1 << 20, File::create_new(path)?);
    for part in parts {
        file.write_all(part)?;
        faults::point("checkpoint.mid_file");
    }
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    faults::point("checkpoint.before_sync");
    if faults::bug("unsynced_checkpoint") {
        return Ok(());
    }
    file.sync_all()
}

fn sync_folder(path: &Path) -> Result<(), FolderError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> FolderError {
    FolderError::Io { path: path.to_path_buf(), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_whole_or_not_there() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("checkpoints");
        let folder = Folder::open(&path).unwrap();
        folder.put("a.bin", &[b"one", b"", b"two"]).unwrap();
        assert_eq!(folder.get("a.bin").unwrap(), b"onetwo");
        assert_eq!(folder.put("a.bin", &[b"three"]), Err(FolderError::Taken(path.join("a.bin"))));
        assert_eq!(folder.get("a.bin").unwrap(), b"onetwo", "the first one stays");
        assert_eq!(folder.get("b.bin"), Err(FolderError::Missing(path.join("b.bin"))));
        // What a process that was killed has left.
        fs::write(path.join("c.bin.1-0.tmp"), b"half").unwrap();
        let names = |folder: &Folder| folder.list().unwrap().into_iter().map(|e| e.name).collect::<Vec<_>>();
        assert_eq!(names(&folder), ["a.bin"]);
        let folder = Folder::open(&path).unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        folder.delete("a.bin").unwrap();
        folder.delete("a.bin").unwrap();
        assert_eq!(names(&folder), Vec::<String>::new());
    }

    #[test]
    fn names_stay_in_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path()).unwrap();
        for name in ["", "..", "../x", "a/b", ".hidden", "a b", "x.tmp", "ä"] {
            assert_eq!(folder.put(name, &[b"x"]), Err(FolderError::Name(name.to_owned())), "{name}");
        }
    }
}
