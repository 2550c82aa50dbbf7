//! The ledger: up to which offsets all tables are complete.
//!
//! *In*: the end of a round, when the last table has been committed. *Out*: numbered entries, of which the newest counts.
//! *Never*: two entries of one number: whoever comes second has a rival, and stops.
//!
//! A table without rows gets no commit in a round, so its own offsets tell nothing of how far it is complete; the
//! ledger does.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::offsets::Offsets;
use crate::store::place::{Place, PlaceError};

/// Entries that are kept.
const KEPT: u64 = 10;

/// One entry, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// From 1.
    pub(super) number: u64,
    /// The process that wrote it.
    pub(super) writer: Uuid,
    /// [`Offsets::to_text`]: everything below is in the lake.
    pub(super) offsets: String,
    /// The last commit of each table.
    pub(super) tables: BTreeMap<String, String>,
}

/// Why the ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum LedgerError {
    /// Another process has written an entry of this number.
    #[error("entry {number} of the ledger was written by another process ({writer})")]
    Fenced {
        /// Its number.
        number: u64,
        /// Who.
        writer: String,
    },
    /// An entry is damaged.
    #[error("{name}: {message}")]
    Damaged {
        /// Its file.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// The place.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// The ledger of a namespace.
#[derive(Debug)]
pub(super) struct Ledger {
    place: Place,
    folder: String,
    /// The newest entry; `None`: nothing was ever complete.
    pub(super) newest: Option<Entry>,
}

impl Ledger {
    /// Reads the newest entry.
    pub(super) async fn open(place: &Place, namespace: &str) -> Result<Self, LedgerError> {
        let folder = format!("{namespace}/_ledger");
        let mut ledger = Self { place: place.clone(), folder, newest: None };
        let newest = ledger.numbers().await?.last().copied();
        if let Some(number) = newest {
            ledger.newest = Some(ledger.read(number).await?);
        }
        Ok(ledger)
    }

    /// Offsets up to which all tables are complete.
    pub(super) fn complete(&self) -> Result<Offsets, LedgerError> {
        let Some(entry) = &self.newest else { return Ok(Offsets::default()) };
        let damaged = |message| LedgerError::Damaged { name: self.name(entry.number), message };
        Offsets::from_text(&entry.offsets).map_err(damaged)
    }

    /// Writes the next entry. May be called again after an error with the same content.
    pub(super) async fn write(
        &mut self,
        writer: Uuid,
        offsets: &Offsets,
        tables: BTreeMap<String, String>,
    ) -> Result<(), LedgerError> {
        let number = self.newest.as_ref().map_or(1, |entry| entry.number + 1);
        let entry = Entry { number, writer, offsets: offsets.to_text(), tables };
        let name = self.name(number);
        let damaged = |error: serde_json::Error| LedgerError::Damaged {
            name: name.clone(),
            message: error.to_string(),
        };
        let bytes = Bytes::from(serde_json::to_vec_pretty(&entry).map_err(damaged)?);
        match self.place.put_new(&name, bytes).await {
            Ok(()) => {}
            Err(PlaceError::Exists(_)) => {
                // Ours, when the answer to an earlier attempt was lost.
                let there = self.read(number).await?;
                if there != entry {
                    return Err(LedgerError::Fenced { number, writer: there.writer.to_string() });
                }
            }
            Err(error) => return Err(error.into()),
        }
        // A rival that was asleep for long may have found a number that was deleted since.
        if let Some(newer) = self.numbers().await?.last().copied().filter(|newest| *newest > number) {
            let there = self.read(newer).await?;
            return Err(LedgerError::Fenced { number: newer, writer: there.writer.to_string() });
        }
        self.newest = Some(entry);
        if let Some(old) = number.checked_sub(KEPT).filter(|old| *old > 0) {
            // One that stays is no harm.
            let _ = self.place.delete(&self.name(old)).await;
        }
        Ok(())
    }

    async fn read(&self, number: u64) -> Result<Entry, LedgerError> {
        let name = self.name(number);
        let bytes = self.place.get(&name).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| LedgerError::Damaged { name, message: error.to_string() })
    }

    async fn numbers(&self) -> Result<Vec<u64>, LedgerError> {
        let files = self.place.list(&self.folder).await?;
        let number = |name: &str| name.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
        let mut numbers: Vec<u64> = files.iter().filter_map(|file| number(&file.name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn name(&self, number: u64) -> String {
        format!("{}/{number:020}.json", self.folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_entry_per_number() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path().to_str().unwrap()).unwrap();
        let offsets = Offsets::from_text(r#"{"s":{"t":{"0":7}}}"#).unwrap();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut ours = Ledger::open(&place, "n").await.unwrap();
        assert_eq!(ours.complete().unwrap(), Offsets::default());
        let mut theirs = Ledger::open(&place, "n").await.unwrap();
        ours.write(one, &offsets, BTreeMap::new()).await.unwrap();
        let fenced = theirs.write(two, &offsets, BTreeMap::new()).await.unwrap_err();
        assert!(matches!(fenced, LedgerError::Fenced { number: 1, .. }), "{fenced}");
        let mut again = Ledger { newest: None, ..Ledger::open(&place, "n").await.unwrap() };
        again.write(one, &offsets, BTreeMap::new()).await.unwrap();
        for _ in 0..12 {
            ours.write(one, &offsets, BTreeMap::new()).await.unwrap();
        }
        let read = Ledger::open(&place, "n").await.unwrap();
        assert_eq!((read.newest.as_ref().unwrap().number, read.complete().unwrap()), (13, offsets));
        assert_eq!(read.numbers().await.unwrap().len(), 10);
    }
}
