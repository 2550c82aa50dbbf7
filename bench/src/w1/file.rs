//! W1 as a file.
//!
//! *In*: how many events, where. *Out*: the file, its size, its true answers. *Never*: a file whose
//! checksum is not the published one.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{KNOWN, Known, MOST, Oracle, W1};
use crate::answers::Groups;
use crate::error::Error;

/// Bytes of one line at most, for the check that there is room.
const LINE: u64 = 285;
/// Memory of the machine as a folder: disks are not measured.
const SHARED_MEMORY: &str = "/dev/shm";

/// W1 on disk or in memory; removed when dropped.
#[derive(Debug)]
pub struct Data {
    /// The file.
    pub path: PathBuf,
    /// Its lines.
    pub events: u64,
    /// Its size.
    pub bytes: u64,
    /// The answer.
    pub oracle: Groups,
    /// Whether it lies in memory.
    pub in_memory: bool,
    _folder: TempDir,
}

/// Writes the first `events` events. Without `folder`: into shared memory where that has room, else into
/// the folder for temporary files.
///
/// # Errors
/// No room, or the generator does not make what it must.
pub fn make(events: u64, folder: Option<&Path>, mut step: impl FnMut(u64) -> bool) -> Result<Data, Error> {
    if !(1..=MOST).contains(&events) {
        return Err(Error::Usage(format!("{events} events: W1 has 1 to {MOST}")));
    }
    let shared = Path::new(SHARED_MEMORY);
    let (parent, in_memory) = match folder {
        Some(folder) => (folder.to_path_buf(), folder.starts_with(shared)),
        None if has_room(shared, events * LINE) => (shared.to_path_buf(), true),
        None => (std::env::temp_dir(), false),
    };
    let folder = tempfile::Builder::new()
        .prefix("streamgauge-w1-")
        .tempdir_in(&parent)
        .map_err(Error::file("make a folder in", &parent))?;
    let path = folder.path().join("w1.ndjson");
    let (bytes, oracle) = write(&path, events, &mut step)?;
    Ok(Data { path, events, bytes, oracle, in_memory, _folder: folder })
}

fn has_room(folder: &Path, bytes: u64) -> bool {
    // Room for the programs' own memory must remain, too.
    rustix::fs::statvfs(folder).is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) > 2 * bytes)
}

fn write(path: &Path, events: u64, step: &mut dyn FnMut(u64) -> bool) -> Result<(u64, Groups), Error> {
    let file = std::fs::File::create(path).map_err(Error::file("write", path))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let mut checks: Vec<Known> = KNOWN.into_iter().filter(|known| known.events <= events).rev().collect();
    let (mut hash, mut bytes, mut oracle) = (Sha256::new(), 0_u64, Oracle::default());
    let mut line = Vec::with_capacity(512);
    for (event, index) in W1::default().take(events as usize).zip(1_u64..) {
        line.clear();
        event.write(None, &mut line);
        line.push(b'\n');
        oracle.add(&event);
        bytes += line.len() as u64;
        file.write_all(&line).map_err(Error::file("write", path))?;
        if let Some(known) = checks.last().copied() {
            hash.update(&line);
            if known.events == index {
                checks.pop();
                verify(&known, bytes, &format!("{:x}", hash.clone().finalize()))?;
            }
        }
        if index % 65_536 == 0 && !step(index) {
            return Err(Error::Interrupted);
        }
    }
    file.flush().map_err(Error::file("write", path))?;
    let oracle = oracle.finish();
    match KNOWN.iter().find(|known| known.events == events) {
        Some(known) => verify_answer(known, &oracle).map(|()| (bytes, oracle)),
        None => Ok((bytes, oracle)),
    }
}

fn verify(known: &Known, bytes: u64, sha256: &str) -> Result<(), Error> {
    if (bytes, sha256) == (known.bytes, known.sha256) {
        return Ok(());
    }
    Err(Error::Engine(format!(
        "W1 is not what it must be after {} events: {bytes} bytes with SHA-256 {sha256}, not {} bytes with {}",
        known.events, known.bytes, known.sha256
    )))
}

fn verify_answer(known: &Known, oracle: &Groups) -> Result<(), Error> {
    let total = oracle.total();
    let found = (oracle.0.len(), total.revenue, total.n, total.bad_amount, total.bad_status);
    let wanted = (known.groups, known.revenue, known.n, known.bad_amount, known.bad_status);
    if found == wanted {
        return Ok(());
    }
    Err(Error::Engine(format!("the oracle of {} events says {found:?}, not {wanted:?}", known.events)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_file_is_as_published() {
        let mut steps = 0;
        let data = make(200_000, None, |_| {
            steps += 1;
            true
        })
        .unwrap();
        // `make` verifies the checksum and the totals; a few of them once more, by hand.
        assert_eq!((data.bytes, data.oracle.0.len(), steps), (54_905_044, 80, 3));
        assert_eq!(data.oracle.total().revenue, 4_913_056_718);
        assert_eq!(std::fs::metadata(&data.path).unwrap().len(), data.bytes);
        let path = data.path.clone();
        drop(data);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_asked_must_be_there() {
        assert!(matches!(make(0, None, |_| true), Err(Error::Usage(_))));
        assert!(matches!(make(MOST + 1, None, |_| true), Err(Error::Usage(_))));
        assert!(matches!(make(100_000, None, |_| false), Err(Error::Interrupted)));
        assert!(matches!(make(1, Some(Path::new("/no/such/folder")), |_| true), Err(Error::File { .. })));
    }
}
