//! Keys of groups, and which of them have a pane.
//!
//! *In*: the values of a group. *Out*: its key with the hash that routes it; the keys of a pane. *Never*: a hash that
//! depends on the worker, the process or the run.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use contracts::value::Value;
use serde::{Deserialize, Serialize};

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
