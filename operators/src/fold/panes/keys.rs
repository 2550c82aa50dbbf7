//! Keys of groups, and which of them have a pane.
//!
//! *In*: the values of a group. *Out*: its key with the hash that routes it, its place in a map; the keys of a pane.
//! *Never*: a route that depends on the worker, the process or the run; places in maps that somebody outside can foretell.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use contracts::value::Value;
use serde::{Deserialize, Serialize};

use crate::state::shard_of;

/// The dimension values of a group, in the metric's order, with their hash.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Key {
    hash: u64,
    /// The values.
    #[serde(deserialize_with = "contracts::value::stored::values")]
    pub values: Arc<[Value]>,
}

/// Fixed, so that all workers (and processes) route a key alike.
const ROUTE_SEEDS: (u64, u64, u64, u64) =
    (0x5eed_0001_7261_6465, 0x5eed_0002_6f72_6273, 0x5eed_0003_7374_7265, 0x5eed_0004_616d_6761);

/// Hash by which keys and ids are routed to workers.
pub fn route_hash(value: &impl Hash) -> u64 {
    let (a, b, c, d) = ROUTE_SEEDS;
    ahash::RandomState::with_seeds(a, b, c, d).hash_one(value)
}

impl Key {
    /// A key of these values.
    pub fn new(values: impl Iterator<Item = Value>) -> Self {
        let values: Arc<[Value]> = values.collect();
        Self { hash: route_hash(&values), values }
    }

    /// Where it is routed.
    pub fn hash64(&self) -> u64 {
        self.hash
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.values == other.values
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Places keys in a persistent map: those of a shard beside each other, so that a map that is filled shard by shard is
/// filled branch by branch, and else by a secret.
#[derive(Debug, Clone)]
pub struct ByShard {
    secret: u64,
}

impl Default for ByShard {
    fn default() -> Self {
        Self { secret: ahash::RandomState::new().hash_one(0) | 1 }
    }
}

impl BuildHasher for ByShard {
    type Hasher = Place;

    fn build_hasher(&self) -> Place {
        Place { secret: self.secret, hash: 0 }
    }
}

/// The place of one key.
#[derive(Debug)]
pub struct Place {
    secret: u64,
    hash: u64,
}

impl Hasher for Place {
    fn write(&mut self, bytes: &[u8]) {
        // A key is one number; this is for whatever else somebody may look up.
        bytes.iter().for_each(|byte| self.write_u64(self.hash.rotate_left(8) ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, hash: u64) {
        self.hash = hash;
    }

    /// The tree branches by the lowest bits first: those of the shard, mirrored, for the workers deal shards by their
    /// lowest bits.
    fn finish(&self) -> u64 {
        let product = u128::from(self.hash) * u128::from(self.secret);
        let mixed = (product >> 64) as u64 ^ product as u64;
        mixed << 8 | u64::from(shard_of(self.hash).reverse_bits())
    }
}

/// Keys that have a pane, by pane number.
pub(super) type ByPane = BTreeMap<i64, Keys>;

/// Keys that have a pane; one may be in both.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// As they came from a checkpoint: to make a set of all of them takes too long.
    pub(super) loaded: Vec<Key>,
    since: ahash::HashSet<Key>,
}

impl Keys {
    pub(super) fn insert(&mut self, key: Key) {
        self.since.insert(key);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.loaded.iter().chain(&self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Sharded;

    #[test]
    fn keys_of_a_shard_lie_beside_each_other() {
        let key = |n: i64| Key::new(std::iter::once(Value::Int(n)));
        let (hasher, other) = (ByShard::default(), ByShard::default());
        let place = |hasher: &ByShard, n: i64| hasher.hash_one(key(n)) as u32;
        let mut keys: Vec<i64> = (0..50_000).collect();
        // As the tree branches.
        keys.sort_by_key(|n| place(&hasher, *n).reverse_bits());
        let shards: Vec<u8> = keys.iter().map(|n| key(*n).shard()).collect();
        assert!(shards.is_sorted());
        let places: std::collections::HashSet<u32> = keys.iter().map(|n| place(&hasher, *n)).collect();
        // Of 2^32 places: about 0.3 meetings are to be expected.
        assert!(places.len() > 49_990, "{}", places.len());
        assert!(keys.iter().filter(|n| place(&hasher, **n) == place(&other, **n)).count() < 10);
    }
}
