//! How records lie on disk: blocks of records that were appended together.
//!
//! *In*: records. *Out*: bytes with a checksum, and back. *Never*: a record of a block whose checksum
//! does not hold.
//!
//! Layout, little endian: version `u8`, checksum `[u8; 8]` (first bytes of SHA-256 over all that
//! follows), received `i64`, count `u32`, then per record: number of headers `u16`, each as name
//! length `u16`, name, value length `u32`, value; then value length `u32`, value.

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// A record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// The event as it came.
    pub value: Bytes,
    /// Headers that decode may need (CloudEvents in binary mode); names in lower case.
    pub headers: Vec<(String, Bytes)>,
}

impl LogRecord {
    /// A record without headers.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: value.into(), headers: Vec::new() }
    }

    /// Bytes it takes on disk.
    pub(super) fn stored_len(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(n, v)| 6 + n.len() + v.len()).sum();
        6 + headers + self.value.len()
    }

    /// Whether its lengths fit the layout; else which part does not.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.value.len() > MAX_VALUE {
            return Err(format!("a record of {} bytes; at most {MAX_VALUE} are allowed", self.value.len()));
        }
        if self.headers.len() > usize::from(u16::MAX) {
            return Err(format!("{} headers; at most {} are allowed", self.headers.len(), u16::MAX));
        }
        for (name, value) in &self.headers {
            if name.len() > usize::from(u16::MAX) || value.len() > MAX_VALUE {
                return Err(format!("header `{:.40}` is too long", name));
            }
        }
        Ok(())
    }
}

/// Greatest record value (256 MiB): far above any sane event, far below the store's own 3 GiB.
const MAX_VALUE: usize = 256 << 20;

/// A record as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its place in the log, from 0, without gaps.
    pub offset: i64,
    /// When it was appended, microseconds since the Unix epoch; never smaller than the one before.
    pub received: i64,
    /// The event as it came.
    pub value: Bytes,
    /// Headers.
    pub headers: Vec<(String, Bytes)>,
}

const VERSION: u8 = 1;
const HEAD: usize = 1 + 8 + 8 + 4;

pub(super) fn encode(records: &[LogRecord], received: i64) -> Vec<u8> {
    let size: usize = records.iter().map(LogRecord::stored_len).sum();
    let mut out = Vec::with_capacity(HEAD + size);
    out.push(VERSION);
    out.extend([0; 8]);
    out.extend(received.to_le_bytes());
    out.extend(len32(records.len()));
    for record in records {
        out.extend((record.headers.len() as u16).to_le_bytes());
        for (name, value) in &record.headers {
            out.extend((name.len() as u16).to_le_bytes());
            out.extend(name.as_bytes());
            out.extend(len32(value.len()));
            out.extend(&value[..]);
        }
        out.extend(len32(record.value.len()));
        out.extend(&record.value[..]);
    }
    let sum = checksum(&out[9..]);
    out[1..9].copy_from_slice(&sum);
    out
}

/// Lengths were checked by [`LogRecord::check`]; a block holds far fewer than 2^32 records.
fn len32(len: usize) -> [u8; 4] {
    (len as u32).to_le_bytes()
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(bytes);
    let mut sum = [0; 8];
    sum.copy_from_slice(&digest[..8]);
    sum
}

/// The time a block was appended, without looking at its records.
pub(super) fn received(block: &[u8]) -> Option<i64> {
    Some(i64::from_le_bytes(block.get(9..17)?.try_into().ok()?))
}

/// The records of a block whose first record has offset `first`; values share the block's memory.
pub(super) fn decode(block: &Bytes, first: i64) -> Result<Vec<StoredRecord>, String> {
    let mut at = Cursor { block, at: 0 };
    match at.take(1)?[0] {
        VERSION => {}
        other => return Err(format!("block {first}: version {other} is not known to this program")),
    }
    let sum = at.take(8)?;
    if checksum(&block[9..])[..] != sum[..] {
        return Err(format!("block {first}: the checksum does not hold: the file was damaged"));
    }
    let received = at.number::<8>().map(i64::from_le_bytes)?;
    let count = at.len()?;
    let mut records = Vec::with_capacity(count.min(block.len()));
    for i in 0..count {
        let headers = at.number::<2>().map(u16::from_le_bytes)?;
        let mut list = Vec::with_capacity(usize::from(headers));
        for _ in 0..headers {
            let len = at.number::<2>().map(u16::from_le_bytes)?;
            let name = at.take(usize::from(len))?;
            let name = String::from_utf8(name.to_vec()).map_err(|_| at.short())?;
            let len = at.len()?;
            list.push((name, at.take(len)?));
        }
        let len = at.len()?;
        let value = at.take(len)?;
        records.push(StoredRecord { offset: first + i as i64, received, value, headers: list });
    }
    Ok(records)
}

struct Cursor<'a> {
    block: &'a Bytes,
    at: usize,
}

impl Cursor<'_> {
    fn short(&self) -> String {
        format!("a block ends or breaks at byte {}", self.at)
    }
    fn take(&mut self, len: usize) -> Result<Bytes, String> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.block.len());
        let end = end.ok_or_else(|| self.short())?;
        let bytes = self.block.slice(self.at..end);
        self.at = end;
        Ok(bytes)
    }
    fn number<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N)?;
        <[u8; N]>::try_from(&bytes[..]).map_err(|_| self.short())
    }
    fn len(&mut self) -> Result<usize, String> {
        self.number::<4>().map(|n| u32::from_le_bytes(n) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<LogRecord> {
        let header = ("ce-type".to_owned(), Bytes::from_static(b"order.created"));
        vec![
            LogRecord::new(&b"{}"[..]),
            LogRecord { value: Bytes::new(), headers: vec![header, ("x".into(), Bytes::new())] },
            LogRecord::new(vec![b'z'; 70_000]),
        ]
    }

    #[test]
    fn a_block_comes_back_as_it_went_in() {
        let block = Bytes::from(encode(&sample(), 42));
        let records = decode(&block, 7).unwrap();
        assert_eq!(received(&block), Some(42));
        assert_eq!(records.iter().map(|r| r.offset).collect::<Vec<_>>(), [7, 8, 9]);
        for (stored, record) in records.iter().zip(sample()) {
            assert_eq!(
                (stored.received, &stored.value, &stored.headers),
                (42, &record.value, &record.headers)
            );
        }
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_noticed() {
        let block = encode(&sample()[..2], 42);
        for i in 0..block.len() {
            let mut bad = block.clone();
            bad[i] ^= 0x10;
            assert!(decode(&Bytes::from(bad), 0).is_err(), "byte {i}");
            assert!(decode(&Bytes::from(block[..i].to_vec()), 0).is_err(), "cut at {i}");
        }
    }
}
