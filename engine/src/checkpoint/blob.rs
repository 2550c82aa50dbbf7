//! How state lies in a file.
//!
//! *In*: the records of one table by shard. *Out*: bytes that say what they are, how long and whether they are whole.
//! *Never*: a length that is believed before the checksum holds.
//!
//! `SGSTATE1`, number of the checkpoint, length of the table's name, the name; per shard its records and bytes; the
//! sections; the checksum (XXH64) of everything before it. Numbers are little-endian.

use operators::state::{SHARDS, Sections};
use twox_hash::XxHash64;

/// What every blob begins with; the digit is the version of this layout.
const MAGIC: &[u8; 8] = b"SGSTATE1";
/// Bytes of one entry of the table of shards.
const ENTRY: usize = 12;

/// The checksum of some parts, one behind the other.
pub(super) fn checksum(parts: &[&[u8]]) -> u64 {
    use std::hash::Hasher;
    let mut hash = XxHash64::with_seed(0);
    parts.iter().for_each(|part| hash.write(part));
    hash.finish()
}

/// The head of a blob.
pub(super) fn head(checkpoint: u64, table: &str, sections: &Sections) -> Vec<u8> {
    let mut head = Vec::with_capacity(MAGIC.len() + 12 + table.len() + SHARDS * ENTRY);
    head.extend(MAGIC);
    head.extend(checkpoint.to_le_bytes());
    head.extend(u32::try_from(table.len()).unwrap_or(u32::MAX).to_le_bytes());
    head.extend(table.as_bytes());
    for (bytes, rows) in sections.bytes.iter().zip(&sections.rows) {
        head.extend(rows.to_le_bytes());
        head.extend((bytes.len() as u64).to_le_bytes());
    }
    head
}

/// A blob that was read and is whole.
#[derive(Debug)]
pub(super) struct Blob {
    bytes: Vec<u8>,
    /// Where each section begins, and where the last one ends.
    bounds: Vec<usize>,
}

impl Blob {
    /// Checks what was read; the error says what is wrong with it.
    pub(super) fn of(bytes: Vec<u8>, table: &str) -> Result<Self, String> {
        let short = || format!("it ends after {} bytes", bytes.len());
        let body = bytes.len().checked_sub(8).ok_or_else(short)?;
        let said = number(&bytes, body).ok_or_else(short)?;
        let is = checksum(&[&bytes[..body]]);
        if said != is {
            return Err(format!("its checksum is {is:016x}, not {said:016x}"));
        }
        if !bytes.starts_with(MAGIC) {
            return Err("it does not begin as a file of state of this version".to_owned());
        }
        let mut at = MAGIC.len() + 8;
        let name = bytes.get(at..at + 4).ok_or_else(short)?;
        let name = u32::from_le_bytes(name.try_into().unwrap_or_default()) as usize;
        at += 4;
        let found = at.checked_add(name).and_then(|end| bytes.get(at..end)).ok_or_else(short)?;
        if found != table.as_bytes() {
            return Err(format!("it holds {}, not {table}", String::from_utf8_lossy(found)));
        }
        at += name;
        let mut bounds = vec![at + SHARDS * ENTRY];
        for shard in 0..SHARDS {
            let length = number(&bytes[..body], at + shard * ENTRY + 4).ok_or_else(short)?;
            let end = usize::try_from(length).ok().and_then(|length| bounds[shard].checked_add(length));
            bounds.push(end.filter(|end| *end <= body).ok_or_else(short)?);
        }
        if bounds[SHARDS] != body {
            return Err(format!("{} bytes lie behind its last section", body - bounds[SHARDS]));
        }
        Ok(Self { bytes, bounds })
    }

    /// The records of a shard.
    pub(super) fn section(&self, shard: usize) -> &[u8] {
        &self.bytes[self.bounds[shard]..self.bounds[shard + 1]]
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Vec<u8> {
        let mut sections = Sections::default();
        for (shard, text) in [(3, "abc"), (3, "d"), (255, "efg")] {
            sections
                .add(shard, |out| {
                    out.extend(text.as_bytes());
                    Ok(())
                })
                .unwrap();
        }
        let mut bytes = head(7, "cells/m", &sections);
        sections.bytes.iter().for_each(|section| bytes.extend(section));
        let sum = checksum(&[&bytes]);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    #[test]
    fn sections_come_back() {
        let blob = Blob::of(whole(), "cells/m").unwrap();
        assert_eq!(
            (blob.section(3), blob.section(255), blob.section(0)),
            (&b"abcd"[..], &b"efg"[..], &b""[..])
        );
        assert!(Blob::of(whole(), "cells/other").unwrap_err().contains("cells/m"));
    }

    #[test]
    fn damage_is_seen() {
        let bytes = whole();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(Blob::of(damaged, "cells/m").is_err(), "bit in byte {at}");
            assert!(Blob::of(bytes[..at].to_vec(), "cells/m").is_err(), "cut after {at}");
        }
        // A checksum that holds does not make lengths true.
        for at in 20..bytes.len() - 8 {
            let mut damaged = bytes.clone();
            damaged[at] = 0xff;
            let body = damaged.len() - 8;
            let sum = checksum(&[&damaged[..body]]);
            damaged[body..].copy_from_slice(&sum.to_le_bytes());
            let _ = Blob::of(damaged, "cells/m"); // no panic
        }
    }
}
