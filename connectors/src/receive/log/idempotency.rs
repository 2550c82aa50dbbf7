//! Answers to requests that carried an `Idempotency-Key`, so that a repeated request gets the same
//! answer and appends nothing.
//!
//! *In*: a key, a fingerprint of the request, the answer. *Out*: the earlier answer, or the news that
//! the key was used for another request. *Never*: an answer without its records on disk, or records
//! without their answer: both are written in one transaction.

use std::ops::Range;

use bytes::Bytes;
use redb::{ReadableTable, ReadableTableMetadata, Table, TableDefinition};

use super::store::LogError;

/// How long answers are kept.
pub(super) const KEEP_MICROS: i64 = 24 * 3600 * 1_000_000;
/// At most this many answers are kept; beyond it the oldest goes.
const MAX_KEYS: u64 = 100_000;
/// Longest key.
pub(super) const MAX_KEY: usize = 255;
/// How many expired answers one commit removes at most, so that no commit gets slow.
const SWEEP: usize = 1000;

/// Key -> time (`i64` LE), fingerprint (32 bytes), answer.
pub(super) const ANSWERS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("idempotency");
/// (time, key): oldest first.
pub(super) const BY_TIME: TableDefinition<'static, (i64, &str), ()> =
    TableDefinition::new("idempotency_by_time");

/// A request with an `Idempotency-Key`.
pub struct IdempotentRequest {
    /// The key, 1 to 255 bytes; the caller adds tenant and path to it, if answers differ by them.
    pub key: String,
    /// SHA-256 of what makes two requests the same (usually the body).
    pub fingerprint: [u8; 32],
    /// Makes the answer from the offsets of the appended records. Runs on the log's thread.
    pub answer: Box<dyn FnOnce(&Range<i64>) -> Bytes + Send>,
}

/// What became of a request with an `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idempotent {
    /// The key was new: records and answer are on disk.
    Fresh {
        /// Offsets of the records.
        range: Range<i64>,
        /// The answer that a repeated request will get.
        answer: Bytes,
    },
    /// The same request came before: nothing was appended.
    Repeated {
        /// The answer given then.
        answer: Bytes,
    },
    /// The key was used for another request: nothing was appended.
    OtherRequest,
}

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) at: i64,
    pub(super) fingerprint: [u8; 32],
    pub(super) answer: Bytes,
}

impl Kept {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let at = i64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
        let fingerprint = bytes.get(8..40)?.try_into().ok()?;
        Some(Self { at, fingerprint, answer: Bytes::copy_from_slice(&bytes[40..]) })
    }
    fn encode(&self) -> Vec<u8> {
        [&self.at.to_le_bytes()[..], &self.fingerprint, &self.answer].concat()
    }
}

/// Both tables, open for writing.
pub(super) struct Answers<'a> {
    pub(super) answers: Table<'a, &'static str, &'static [u8]>,
    pub(super) by_time: Table<'a, (i64, &'static str), ()>,
}

impl Answers<'_> {
    pub(super) fn get(&self, key: &str, now: i64) -> Result<Option<Kept>, redb::StorageError> {
        let found = self.answers.get(key)?.and_then(|v| Kept::decode(v.value()));
        Ok(found.filter(|kept| now - kept.at < KEEP_MICROS))
    }

    pub(super) fn put(&mut self, key: &str, kept: &Kept) -> Result<(), redb::StorageError> {
        let before = self.answers.insert(key, &kept.encode()[..])?.and_then(|v| Kept::decode(v.value()));
        if let Some(before) = before {
            self.by_time.remove((before.at, key))?;
        }
        self.by_time.insert((kept.at, key), ())?;
        Ok(())
    }

    /// Forgets what is too old or too much.
    pub(super) fn sweep(&mut self, now: i64) -> Result<(), redb::StorageError> {
        for _ in 0..SWEEP {
            let Some((at, key)) = self.by_time.first()?.map(|(k, _)| (k.value().0, k.value().1.to_owned()))
            else {
                break;
            };
            if now - at < KEEP_MICROS && self.answers.len()? <= MAX_KEYS {
                break;
            }
            self.by_time.remove((at, key.as_str()))?;
            self.answers.remove(key.as_str())?;
        }
        Ok(())
    }
}

pub(super) fn check_key(key: &str) -> Result<(), LogError> {
    if key.is_empty() || key.len() > MAX_KEY {
        let found = key.len();
        return Err(LogError::Key { found, allowed: MAX_KEY });
    }
    Ok(())
}
