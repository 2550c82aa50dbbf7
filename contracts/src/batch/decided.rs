//! What was decided of rows when they were read first: which ones were duplicates.
//!
//! *In*: positions of rows that were dropped, and between which offsets that is known. *Out*: the verdict on a row that is
//! read again. *Never*: a verdict on a row that nobody has read, or that another contract has judged.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use roaring::RoaringTreemap;

use super::Partition;

/// Positions of rows: partition, offset, part. Offsets and parts that follow each other take next to no room.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Positions(BTreeMap<Partition, BTreeMap<u32, RoaringTreemap>>);

impl Positions {
    /// Adds a row; offsets are never negative.
    pub fn insert(&mut self, partition: &Partition, offset: i64, part: u32) {
        let Ok(offset) = u64::try_from(offset) else { return };
        if !self.0.contains_key(partition) {
            self.0.insert(partition.clone(), BTreeMap::new());
        }
        if let Some(parts) = self.0.get_mut(partition) {
            parts.entry(part).or_default().insert(offset);
        }
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (partition, parts) in &other.0 {
            for (part, offsets) in parts {
                *self.0.entry(partition.clone()).or_default().entry(*part).or_default() |= offsets;
            }
        }
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.0.values().flat_map(BTreeMap::values).map(RoaringTreemap::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Per partition and part the offsets, in the portable format of roaring bitmaps (64 bits).
    pub fn bitmaps(&self) -> impl Iterator<Item = (&Partition, u32, Vec<u8>)> {
        self.0.iter().flat_map(|(partition, parts)| {
            parts.iter().map(move |(part, offsets)| {
                let mut bytes = Vec::with_capacity(offsets.serialized_size());
                // A vector takes all that is written.
                let _ = offsets.serialize_into(&mut bytes);
                (partition, *part, bytes)
            })
        })
    }

    /// Adds what [`Positions::bitmaps`] gave.
    ///
    /// # Errors
    /// The bytes are no bitmap.
    pub fn add_bitmap(&mut self, partition: Partition, part: u32, bytes: &[u8]) -> io::Result<()> {
        let offsets = RoaringTreemap::deserialize_from(bytes)?;
        *self.0.entry(partition).or_default().entry(part).or_default() |= offsets;
        Ok(())
    }
}

/// Verdicts on all rows between two offsets of each partition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decided {
    /// Nothing is known of rows before; of a partition that is not named nothing at all.
    pub from: BTreeMap<Partition, i64>,
    /// Nothing is known of rows at or beyond; of a partition that is not named nothing at all.
    pub until: BTreeMap<Partition, i64>,
    /// The rows that were duplicates.
    pub dropped: Positions,
    /// The events whose rows were judged, each with [`crate::catalog::Head::state`] of its contract.
    pub events: BTreeMap<String, String>,
}

/// Verdicts on rows of one partition.
#[derive(Debug)]
pub struct Verdicts<'a> {
    known: Range<i64>,
    dropped: Option<&'a BTreeMap<u32, RoaringTreemap>>,
}

impl Verdicts<'_> {
    /// Whether a row was a duplicate; `None`: nobody has decided it.
    pub fn was_dropped(&self, offset: i64, part: u32) -> Option<bool> {
        let dropped = || Some(self.dropped?.get(&part)?.contains(u64::try_from(offset).ok()?));
        self.known.contains(&offset).then(|| dropped().unwrap_or(false))
    }
}

impl Decided {
    /// What is known of a partition from the row at `offset` on; `None`: nothing.
    pub fn verdicts(&self, partition: &Partition, offset: i64) -> Option<Verdicts<'_>> {
        let until = *self.until.get(partition).filter(|until| **until > offset)?;
        let known = *self.from.get(partition)?..until;
        Some(Verdicts { known, dropped: self.dropped.0.get(partition) })
    }

    /// Whether rows of the event were judged by the contract it has now.
    pub fn knows(&self, event: &crate::catalog::Event) -> bool {
        self.events.get(&event.head.name) == Some(&event.head.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32) -> Partition {
        Partition { source: "s".into(), topic: "t".into(), number }
    }

    #[test]
    fn positions_come_back_from_their_bitmaps() {
        let mut positions = Positions::default();
        for offset in [0, 5, 1 << 33] {
            positions.insert(&partition(0), offset, 0);
        }
        positions.insert(&partition(0), 5, 7);
        positions.insert(&partition(1), -1, 0);
        assert_eq!(positions.len(), 4);
        let mut again = Positions::default();
        for (partition, part, bytes) in positions.bitmaps() {
            again.add_bitmap(partition.clone(), part, &bytes).unwrap();
        }
        assert_eq!(again, positions);
        assert!(again.add_bitmap(partition(0), 0, b"no bitmap").is_err());
    }

    #[test]
    fn nothing_is_said_of_rows_nobody_has_read() {
        let mut decided = Decided {
            from: [(partition(0), 3), (partition(1), 0)].into(),
            until: [(partition(0), 6), (partition(1), 2), (partition(2), 1)].into(),
            ..Decided::default()
        };
        decided.dropped.insert(&partition(0), 4, 0);
        let verdict = |number, offset| decided.verdicts(&partition(number), offset)?.was_dropped(offset, 0);
        assert_eq!(
            [2, 3, 4, 5, 6].map(|at| verdict(0, at)),
            [None, Some(false), Some(true), Some(false), None]
        );
        assert_eq!([0, 1, 2].map(|at| verdict(1, at)), [Some(false), Some(false), None]);
        assert_eq!(verdict(2, 0), None);
    }
}
