//! The memory of ids.
//!
//! *In*: an id and when its row was received. *Out*: whether an admitted row with that id was received
//! within the horizon. *Never*: a wall clock (a replay decides as the first run did), unkeyed hashes
//! (ids are hostile input).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use ahash::RandomState;

/// Tables by the top bits of the hash, so that ageing and growing touch one small table at a time.
const TABLES: usize = 256;

/// Ids with the time they were last admitted.
#[derive(Debug)]
pub struct Dedupe {
    horizon: i64,
    keys: [RandomState; 2],
    tables: Vec<HashMap<u128, i64, BuildHasherDefault<Folded>>>,
    /// Next table to age, and the floor reached when the round started.
    hand: usize,
    aged_to: i64,
}

impl Dedupe {
    /// Remembers ids for `horizon` microseconds of received time.
    pub fn new(horizon: i64) -> Self {
        let tables = std::iter::repeat_with(HashMap::default).take(TABLES).collect();
        let keys = [RandomState::new(), RandomState::new()];
        Self { horizon, keys, tables, hand: 0, aged_to: i64::MIN }
    }

    /// Whether `id` was received within the horizon of `received`; remembers it if not.
    pub fn seen(&mut self, id: &str, received: i64) -> bool {
        let [high, low] = &self.keys;
        let hash = u128::from(high.hash_one(id)) << 64 | u128::from(low.hash_one(id));
        let table = &mut self.tables[(hash >> 120) as usize];
        match table.get_mut(&hash) {
            Some(before) if received.abs_diff(*before) <= self.horizon.unsigned_abs() => true,
            Some(before) => {
                *before = received;
                false
            }
            None => {
                table.insert(hash, received);
                false
            }
        }
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

    #[test]
    fn remembers_for_the_horizon() {
        let mut dedupe = Dedupe::new(10);
        assert!(!dedupe.seen("a", 100));
        assert!(dedupe.seen("a", 110));
        assert!(dedupe.seen("a", 90), "arrival order does not matter");
        assert!(!dedupe.seen("a", 111));
        assert!(!dedupe.seen("b", 111));
        assert_eq!(dedupe.len(), 2);
    }

    #[test]
    fn forgets_what_cannot_come_again() {
        let mut dedupe = Dedupe::new(80);
        (0..1000).for_each(|i| assert!(!dedupe.seen(&i.to_string(), i)));
        for floor in [1000, 1001] {
            (0..TABLES).for_each(|_| dedupe.age(floor));
        }
        assert_eq!(dedupe.len(), 80);
        assert!(dedupe.seen("999", 1000));
    }
}
