//! One process per data folder.
//!
//! *In*: the folder. *Out*: a lock that ends with the process, however it ends. *Never*: a stale lock
//! (the operating system holds it, not the file).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use crate::cli::exit::{Exit, Failure, io};

/// The lock.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Makes the folder where needed and takes its lock.
    pub fn take(folder: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder)
            .map_err(|error| io(Exit::Config, "make the data folder", folder, &error))?;
        let path = folder.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| io(Exit::Config, "write to the data folder", &path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message.
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() {
                    String::new()
                } else {
                    format!(" (process {})", holder.trim())
                };
                return Err(Failure::new(
                    Exit::Config,
                    format!("the data folder {} is in use by another streamgauge{holder}", folder.display()),
                )
                .help("stop that one, or give this one its own folder: `data:` in the settings, STREAMGAUGE_DATA"));
            }
            Err(TryLockError::Error(error)) => return Err(io(Exit::Config, "lock", &path, &error)),
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| io(Exit::Config, "write", &path, &error))?;
        Ok(Self { file })
    }

    /// Gives the folder free.
    pub fn release(&self) {
        // The end of the process does it anyway.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap();
        let failure = Lock::take(folder.path()).unwrap_err();
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.message.contains(&std::process::id().to_string()), "{}", failure.message);
        first.release();
        Lock::take(folder.path()).unwrap();
    }
}
