//! The memory of ids.
//!
//! *In*: an id and when its row was received. *Out*: whether an admitted row with that id was received
//! within the horizon. *Never*: a wall clock (a replay decides as the first run did), unkeyed hashes
//! (ids are hostile input).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use ahash::RandomState;
use serde::{Deserialize, Serialize};

use crate::state::{Cut, Found, Noted, SHARDS, Sections, State, StateError, Table};

/// Tables by shard, so that ageing and growing touch one small table at a time.
const TABLES: usize = SHARDS;
/// Bytes of one record of a checkpoint: the hash, the received time.
const RECORD: usize = 24;
/// Name of the table in checkpoints.
const IDS: &str = "ids";

/// The secret by which ids are hashed: one per engine, kept with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret([[u64; 4]; 2]);

impl Secret {
    /// A new one.
    pub fn new() -> Self {
        // A random state is keyed by the system's randomness; what it makes of numbers is as secret as its keys.
        let words = |_| std::array::from_fn(|n| RandomState::new().hash_one(n));
        Self(std::array::from_fn(words))
    }

    /// A number that is another one where hashes are: on another kind of processor, or by another version.
    pub fn proof(&self) -> u64 {
        IdHash::new(self).hash("streamgauge") as u64
    }
}

impl Default for Secret {
    fn default() -> Self {
        Self::new()
    }
}

/// Hashes ids.
#[derive(Debug, Clone)]
pub struct IdHash([RandomState; 2]);

impl IdHash {
    /// With this secret.
    pub fn new(secret: &Secret) -> Self {
        Self(secret.0.map(|[a, b, c, d]| RandomState::with_seeds(a, b, c, d)))
    }

    fn hash(&self, id: &str) -> u128 {
        let [high, low] = &self.0;
        u128::from(high.hash_one(id)) << 64 | u128::from(low.hash_one(id))
    }

    /// The shard of an id.
    pub fn shard(&self, id: &str) -> u8 {
        (self.0[0].hash_one(id) >> 56) as u8
    }
}

/// Ids with the time they were last admitted.
#[derive(Debug)]
pub struct Dedupe {
    horizon: i64,
    keys: Arc<IdHash>,
    tables: Vec<HashMap<u128, i64, BuildHasherDefault<Folded>>>,
    /// Next table to age, and the floor reached when the round started.
    hand: usize,
    aged_to: i64,
    /// What came since the last cut; `None`: nobody notes it.
    fresh: Option<Vec<(u128, i64)>>,
    noted: bool,
}

impl Dedupe {
    /// Remembers ids for `horizon` microseconds of received time.
    pub fn new(horizon: i64, keys: Arc<IdHash>) -> Self {
        let tables = std::iter::repeat_with(HashMap::default).take(TABLES).collect();
        Self { horizon, keys, tables, hand: 0, aged_to: i64::MIN, fresh: None, noted: false }
    }

    /// Whether `id` was received within the horizon of `received`; remembers it if not.
    pub fn seen(&mut self, id: &str, received: i64) -> bool {
        let hash = self.keys.hash(id);
        let table = &mut self.tables[(hash >> 120) as usize];
        match table.get_mut(&hash) {
            Some(before) if received.abs_diff(*before) <= self.horizon.unsigned_abs() => return true,
            Some(before) => *before = received,
            None => {
                table.insert(hash, received);
            }
        }
        if let Some(fresh) = &mut self.fresh {
            fresh.push((hash, received));
        }
        false
    }

    /// Ids remembered.
    pub fn len(&self) -> usize {
        self.tables.iter().map(HashMap::len).sum()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets ids that no row received at or after `floor` can repeat. One table per call; a round
    /// starts when the floor has moved by an eighth of the horizon.
    pub fn age(&mut self, floor: i64) {
        if self.hand == 0 {
            if floor < self.aged_to.saturating_add(self.horizon / 8) {
                return;
            }
            self.aged_to = floor;
        }
        let least = floor.saturating_sub(self.horizon);
        let table = &mut self.tables[self.hand];
        table.retain(|_, received| *received >= least);
        table.shrink_to(table.len() * 2);
        self.hand = (self.hand + 1) % TABLES;
    }
}

impl Noted for Dedupe {
    fn note(&mut self) {
        self.noted = true;
    }

    fn loaded(&mut self) {
        self.noted = true;
        self.fresh = Some(Vec::new());
    }

    fn forget(&mut self) {
        self.fresh = None;
    }
}

impl State for Dedupe {
    fn changed(&mut self) -> &mut dyn Noted {
        self
    }

    /// What came since the last cut; the first time all that is remembered.
    fn cut(&mut self) -> Cut {
        let whole = self.fresh.is_none();
        let ids = match self.fresh.take() {
            Some(fresh) => fresh,
            None => self.tables.iter().flatten().map(|(hash, received)| (*hash, *received)).collect(),
        };
        self.fresh = self.noted.then(Vec::new);
        Cut { tables: vec![(IDS, Box::new(Ids { ids, whole }))], loose: Box::new(()) }
    }

    fn restore(&mut self, found: &Found<'_>) -> Result<(), StateError> {
        for section in found.of(IDS) {
            let (records, rest) = section.as_chunks::<RECORD>();
            if !rest.is_empty() {
                return Err(StateError::Read("ids end within a record".to_owned()));
            }
            if let Some(first) = records.first() {
                self.tables[(read(first).0 >> 120) as usize].reserve(records.len());
            }
            for record in records {
                let (hash, received) = read(record);
                self.tables[(hash >> 120) as usize].insert(hash, received);
            }
        }
        Ok(())
    }
}

/// Ids of a cut. Later ones count.
struct Ids {
    ids: Vec<(u128, i64)>,
    whole: bool,
}

impl Table for Ids {
    fn is_whole(&self) -> bool {
        self.whole
    }

    fn is_log(&self) -> bool {
        true
    }

    fn write(&self, _whole: bool, to: &mut Sections) -> Result<(), StateError> {
        for (hash, received) in &self.ids {
            to.add((hash >> 120) as u8, |out| {
                out.extend(hash.to_le_bytes());
                out.extend(received.to_le_bytes());
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn read(record: &[u8; RECORD]) -> (u128, i64) {
    let (mut hash, mut received) = ([0; 16], [0; 8]);
    hash.copy_from_slice(&record[..16]);
    received.copy_from_slice(&record[16..]);
    (u128::from_le_bytes(hash), i64::from_le_bytes(received))
}

/// The records of a section that are received at or after `least`.
pub fn still_remembered(section: &[u8], least: i64) -> impl Iterator<Item = &[u8; RECORD]> {
    section.as_chunks::<RECORD>().0.iter().filter(move |record| read(record).1 >= least)
}

/// The keys are hashes already.
#[derive(Debug, Default, Clone, Copy)]
struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_ne_bytes(word);
        }
    }
    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dedupe(horizon: i64) -> Dedupe {
        Dedupe::new(horizon, Arc::new(IdHash::new(&Secret::new())))
    }

    #[test]
    fn remembers_for_the_horizon() {
        let mut dedupe = dedupe(10);
        assert!(!dedupe.seen("a", 100));
        assert!(dedupe.seen("a", 110));
        assert!(dedupe.seen("a", 90), "arrival order does not matter");
        assert!(!dedupe.seen("a", 111));
        assert!(!dedupe.seen("b", 111));
        assert_eq!(dedupe.len(), 2);
    }

    #[test]
    fn forgets_what_cannot_come_again() {
        let mut dedupe = dedupe(80);
        (0..1000).for_each(|i| assert!(!dedupe.seen(&i.to_string(), i)));
        for floor in [1000, 1001] {
            (0..TABLES).for_each(|_| dedupe.age(floor));
        }
        assert_eq!(dedupe.len(), 80);
        assert!(dedupe.seen("999", 1000));
    }
}
