//! A newer version of a row replaces the one before.
//!
//! *In*: versions of the rows of one part (or of an entity's change streams), a tick at a time. *Out*: the row that was (-1) and the row that is (+1).
//! *Never*: an older version in place of a newer one.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::HashMap;
use contracts::value::Value;
use serde::{Deserialize, Serialize};

use super::PartRow;
use crate::fold::panes::Key;
use crate::state::Keyed;

mod stored;

/// Where a version stands: later in its stream is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// When the source committed it, microseconds; compared between streams only.
    pub at: i64,
    /// Hash of its partition.
    pub stream: u64,
    /// Offset in the partition.
    pub offset: i64,
    /// Index inside the record.
    pub part: u32,
}

impl Place {
    /// Whether this is newer than `other`: by offset in the same partition, by time between partitions.
    pub(super) fn after(&self, other: &Self) -> bool {
        if self.stream == other.stream {
            return (self.offset, self.part) > (other.offset, other.part);
        }
        (self.at, self.stream) > (other.at, other.stream)
    }
}

/// One message about rows.
#[derive(Debug)]
pub enum Version<R = Arc<PartRow>> {
    /// The row that the key names is this one from an instant on, or gone.
    Of(Key, Place, i64, Option<R>),
    /// All rows committed before whose names begin with the value are gone from an instant on.
    Truncate(Value, Place, i64),
}

impl<R> Version<R> {
    fn place(&self) -> Place {
        match self {
            Self::Of(_, place, ..) | Self::Truncate(_, place, _) => *place,
        }
    }

    /// In the order of their streams.
    pub(super) fn sort(versions: &mut [Self]) {
        versions.sort_by_key(|version| {
            let place = version.place();
            (place.stream, place.offset, place.part)
        });
    }
}

/// How long a row that is gone is remembered, microseconds: events ahead of the clock wait, so an older version
/// can arrive after a newer one, but by no more than decode lets them be ahead.
const REMEMBER: i64 = 6 * 60 * 1_000_000;

/// The newest version of a row, and where it stands; `None`: the row is gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Newest<R> {
    place: Place,
    row: Option<R>,
}

/// The last truncate per first value of names and stream.
type Truncates = HashMap<(Value, u64), Place>;

/// The current rows on one worker.
#[derive(Debug)]
pub struct Versions<R = Arc<PartRow>> {
    rows: Keyed<Key, Newest<R>>,
    gone: VecDeque<(i64, Key)>,
    /// A slower partition may still bring older rows.
    truncates: Truncates,
    max_keys: usize,
    /// Versions dropped because there were `max_keys` rows.
    pub lost: u64,
}

impl<R: Clone + PartialEq> Versions<R> {
    /// No rows yet.
    pub fn new(max_keys: usize) -> Self {
        Self {
            rows: Keyed::default(),
            gone: VecDeque::new(),
            truncates: HashMap::default(),
            max_keys,
            lost: 0,
        }
    }

    /// Rows remembered.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Applies the versions of a tick; `give` is called with each change.
    pub fn apply(&mut self, now: i64, mut versions: Vec<Version<R>>, mut give: impl FnMut(R, i64)) {
        Version::sort(&mut versions);
        for version in versions {
            match version {
                Version::Of(key, place, _, row) => self.replace(now, key, place, row, &mut give),
                Version::Truncate(family, place, _) => self.truncate(now, &family, place, &mut give),
            }
        }
    }

    fn replace(&mut self, now: i64, key: Key, place: Place, row: Option<R>, give: &mut impl FnMut(R, i64)) {
        let row = row.filter(|_| !self.truncated(&key, &place));
        let full = self.rows.len() >= self.max_keys;
        if self.rows.get(&key).is_some_and(|known| !place.after(&known.place)) {
            return;
        }
        match self.rows.get_mut(&key) {
            Some(known) => {
                known.place = place;
                if known.row != row {
                    known.row.take().into_iter().for_each(|old| give(old, -1));
                    row.iter().for_each(|row| give(row.clone(), 1));
                    known.row = row.clone();
                }
            }
            None if full => {
                self.lost += 1;
                return;
            }
            None => {
                row.iter().for_each(|row| give(row.clone(), 1));
                self.rows.insert(key.clone(), Newest { place, row: row.clone() });
            }
        }
        if row.is_none() {
            self.gone.push_back((now.saturating_add(REMEMBER), key));
        }
    }

    fn truncate(&mut self, now: i64, family: &Value, place: Place, give: &mut impl FnMut(R, i64)) {
        let last = self.truncates.entry((family.clone(), place.stream)).or_insert(place);
        if place.after(last) {
            *last = place;
        }
        let ends = |(key, known): &(&Key, &Newest<R>)| {
            key.values.first() == Some(family) && place.after(&known.place) && known.row.is_some()
        };
        let keys: Vec<Key> = self.rows.iter().filter(ends).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let Some(known) = self.rows.get_mut(&key) else { continue };
            known.row.take().into_iter().for_each(|row| give(row, -1));
            known.place = place;
            self.gone.push_back((now.saturating_add(REMEMBER), key));
        }
    }

    /// Whether a truncate came after the version of `key` at `place`.
    fn truncated(&self, key: &Key, place: &Place) -> bool {
        let mut truncates = self.truncates.iter();
        truncates.any(|((family, _), last)| key.values.first() == Some(family) && last.after(place))
    }

    /// Forgets rows that have been gone for long enough.
    pub fn turn(&mut self, now: i64) {
        while let Some((until, key)) = self.gone.front() {
            if *until > now {
                return;
            }
            if self.rows.get(key).is_some_and(|known| known.row.is_none()) {
                self.rows.remove(key);
            }
            self.gone.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: i64) -> Option<Arc<PartRow>> {
        Some(Arc::new(PartRow { time: n, id: None, event: 0, origin: None, cells: [Value::Int(n)].into() }))
    }

    fn of(offset: i64, row: Option<Arc<PartRow>>) -> Version {
        let place = Place { at: offset, stream: 1, offset, part: 0 };
        Version::Of(Key::new([Value::Int(7)].into_iter()), place, offset, row)
    }

    fn told(versions: &mut Versions, now: i64, given: Vec<Version>) -> Vec<(i64, i64)> {
        let mut out = Vec::new();
        versions.apply(now, given, |row, weight| out.push((row.time, weight)));
        out
    }

    #[test]
    fn the_newest_version_counts() {
        let mut versions = Versions::new(10);
        assert_eq!(told(&mut versions, 0, vec![of(2, row(2)), of(1, row(1))]), [(1, 1), (1, -1), (2, 1)]);
        assert_eq!(told(&mut versions, 0, vec![of(1, row(1))]), [], "older");
        assert_eq!(told(&mut versions, 0, vec![of(3, row(2))]), [], "the same again");
        assert_eq!(told(&mut versions, 0, vec![of(5, None)]), [(2, -1)]);
        assert_eq!(told(&mut versions, 0, vec![of(4, row(4))]), [], "older than its deletion");
        versions.turn(REMEMBER);
        assert!(versions.is_empty());
        assert_eq!(told(&mut versions, 0, vec![of(6, row(6))]), [(6, 1)]);
    }

    #[test]
    fn a_truncate_takes_what_was_before_it() {
        let mut versions = Versions::new(10);
        told(&mut versions, 0, vec![of(1, row(1))]);
        let truncate = Version::Truncate(Value::Int(7), Place { at: 1, stream: 1, offset: 2, part: 0 }, 1);
        assert_eq!(told(&mut versions, 0, vec![truncate]), [(1, -1)]);
        assert_eq!(told(&mut versions, 0, vec![of(3, row(3))]), [(3, 1)]);
        let elsewhere = Version::Truncate(Value::Int(7), Place { at: 2, stream: 9, offset: 99, part: 0 }, 2);
        assert_eq!(told(&mut versions, 0, vec![elsewhere]), [], "committed after it");
        assert_eq!(told(&mut versions, 0, vec![of(2, row(2))]), [], "older than both");
    }
}
