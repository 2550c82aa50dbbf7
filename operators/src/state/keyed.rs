//! A map by key that can be cut at any tick.
//!
//! *In*: changes of values. *Out*: the map as it was at a cut, and which keys changed since the one before.
//! *Never*: a copy of the map; a value that is changed while a cut holds it (it is copied first).

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

use imbl::shared_ptr::DefaultSharedPtr;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Section, Sections, Sharded, StateError, Stored, Table, put, take};

/// A persistent map.
type Map<K, V> = imbl::GenericHashMap<K, Arc<V>, ahash::RandomState, DefaultSharedPtr>;

/// Keys that changed since the last cut.
#[derive(Debug, Clone)]
pub struct Changed<K> {
    /// `None`: nobody noted them, all may have.
    keys: Option<Vec<K>>,
    noted: bool,
}

impl<K> Default for Changed<K> {
    fn default() -> Self {
        Self { keys: None, noted: false }
    }
}

impl<K: Clone + PartialEq> Changed<K> {
    /// There will be cuts: from the first one on changed keys are noted.
    pub fn note(&mut self) {
        self.noted = true;
    }

    /// What is here is in a checkpoint already: changed keys are noted from now on.
    pub fn loaded(&mut self) {
        self.noted = true;
        self.keys = Some(Vec::new());
    }

    /// What was noted is of no use: all may have changed.
    pub fn forget(&mut self) {
        self.keys = None;
    }

    /// A key changed; `held` is how many keys there are: noting more than that is no use.
    pub fn add(&mut self, key: &K, held: usize) {
        /// So many are noted in any case.
        const LEAST: usize = 4096;
        let Some(keys) = &mut self.keys else { return };
        if keys.last() == Some(key) {
            return;
        }
        match keys.len() < held.max(LEAST) * 2 {
            true => keys.push(key.clone()),
            false => self.keys = None,
        }
    }

    /// The keys that changed, for a cut; from here on they are noted anew. `None`: all may have.
    pub fn cut(&mut self) -> Option<Vec<K>> {
        match self.noted {
            true => self.keys.replace(Vec::new()),
            false => None,
        }
    }
}

/// A map by key that can be cut.
#[derive(Debug)]
pub struct Keyed<K, V> {
    map: Map<K, V>,
    changed: Changed<K>,
}

impl<K, V> Default for Keyed<K, V> {
    fn default() -> Self {
        Self {
            map: Map::with_hasher(ahash::RandomState::new()),
            changed: Changed { keys: None, noted: false },
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Keyed<K, V> {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Whether there is a value.
    pub fn contains(&self, key: &K) -> bool {
        self.map.contains_key(key)
    }

    /// A value.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key).map(Arc::as_ref)
    }

    /// A value, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let held = self.map.len();
        let value = self.map.get_mut(key)?;
        self.changed.add(key, held);
        Some(Arc::make_mut(value))
    }

    /// Puts a value.
    pub fn insert(&mut self, key: K, value: V) {
        self.changed.add(&key, self.map.len());
        self.map.insert(key, Arc::new(value));
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.map.remove(key)?;
        self.changed.add(key, self.map.len());
        Some(Arc::unwrap_or_clone(value))
    }

    /// Takes a value out that will be put back: its place in the map stays.
    pub fn borrow(&mut self, key: &K) -> V
    where
        V: Default,
    {
        match self.map.get_mut(key) {
            None => V::default(),
            Some(value) => match Arc::get_mut(value) {
                Some(value) => std::mem::take(value),
                None => V::clone(value),
            },
        }
    }

    /// Puts a borrowed value back; `None`: nothing is left of it.
    pub fn put_back(&mut self, key: K, value: Option<V>) {
        self.changed.add(&key, self.map.len());
        let Some(value) = value else {
            self.map.remove(&key);
            return;
        };
        match self.map.get_mut(&key) {
            None => {
                self.map.insert(key, Arc::new(value));
            }
            Some(known) => match Arc::get_mut(known) {
                Some(known) => *known = value,
                None => *known = Arc::new(value),
            },
        }
    }

    /// All keys and values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.map.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// Visits all values to complete what a checkpoint leaves out; that is no change.
    pub fn complete(&mut self, mut visit: impl FnMut(&K, &mut V)) {
        for (key, value) in self.map.iter_mut() {
            visit(key, Arc::make_mut(value));
        }
    }

    /// What notes the changed keys.
    pub fn changed(&mut self) -> &mut Changed<K> {
        &mut self.changed
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Keyed<K, V>
where
    K: Sharded + Serialize + DeserializeOwned + Send + Sync + 'static,
    V: Stored + Send + Sync + 'static,
{
    /// The map as it is, to be written by another thread.
    pub fn cut(&mut self) -> Box<dyn Table> {
        Box::new(KeyedCut { map: self.map.clone(), changed: self.changed.cut() })
    }

    /// Takes in what a cut wrote, the oldest first.
    pub fn load(&mut self, mut section: &[u8]) -> Result<(), StateError> {
        while !section.is_empty() {
            let (key, value) = take_record(&mut section)?;
            match value {
                Some(value) => self.map.insert(key, Arc::new(value)),
                None => self.map.remove(&key),
            };
        }
        Ok(())
    }
}

/// A map at one tick.
#[derive(Debug)]
pub struct KeyedCut<K, V, S = ahash::RandomState> {
    /// Everything.
    pub map: imbl::GenericHashMap<K, Arc<V>, S, DefaultSharedPtr>,
    /// Keys that changed since the cut before; `None`: all may have.
    pub changed: Option<Vec<K>>,
}

impl<K, V, S> Table for KeyedCut<K, V, S>
where
    K: Hash + Eq + Clone + Sharded + Serialize + Send + Sync,
    V: Stored + Send + Sync,
    S: std::hash::BuildHasher + Clone + Send + Sync,
{
    fn is_whole(&self) -> bool {
        self.changed.is_none()
    }

    fn write(&self, whole: bool, to: &mut Sections) -> Result<(), StateError> {
        match &self.changed {
            Some(changed) if !whole => {
                let mut told: ahash::HashSet<&K> = ahash::HashSet::default();
                for key in changed.iter().filter(|key| told.insert(key)) {
                    put_record(key, self.map.get(key).map(Arc::as_ref), to)?;
                }
            }
            _ => {
                for (key, value) in &self.map {
                    put_record(key, Some(value.as_ref()), to)?;
                }
            }
        }
        Ok(())
    }
}

/// The sections of one shard, the oldest file first.
pub(crate) type OfShard<'a> = Vec<&'a [u8]>;

/// Deals sections, the oldest file first, by shard to at most `parts`.
pub(crate) fn deal<'a>(sections: impl Iterator<Item = Section<'a>>, parts: usize) -> Vec<Vec<OfShard<'a>>> {
    let mut shards: BTreeMap<u8, OfShard<'a>> = BTreeMap::new();
    for section in sections {
        shards.entry(section.shard).or_default().push(section.bytes);
    }
    let each = shards.len().div_ceil(parts.max(1)).max(1);
    let shards: Vec<OfShard<'a>> = shards.into_values().collect();
    shards.chunks(each).map(<[_]>::to_vec).collect()
}

/// Hands over the newest value of each key, shard by shard. A map that is filled so is built once, not changed again and
/// again.
pub(crate) fn take_newest<K, V>(
    shards: Vec<OfShard<'_>>,
    mut found: impl FnMut(K, V),
) -> Result<(), StateError>
where
    K: Hash + Eq + Clone + DeserializeOwned,
    V: Stored,
{
    // Of one shard: few enough to be at hand.
    let mut newer: ahash::HashSet<K> = ahash::HashSet::default();
    for files in shards {
        newer.clear();
        for (number, mut section) in files.into_iter().enumerate().rev() {
            while !section.is_empty() {
                let (key, value) = take_record::<K, V>(&mut section)?;
                if newer.contains(&key) {
                    continue;
                }
                if number > 0 {
                    newer.insert(key.clone());
                }
                if let Some(value) = value {
                    found(key, value);
                }
            }
        }
    }
    Ok(())
}

/// Writes a key and its value; `None`: it is gone.
fn put_record<K: Sharded + Serialize, V: Stored>(
    key: &K,
    value: Option<&V>,
    to: &mut Sections,
) -> Result<(), StateError> {
    to.add(key.shard(), |out| {
        put(key, out)?;
        out.push(u8::from(value.is_some()));
        value.map_or(Ok(()), |value| value.store(out))
    })
}

/// Reads a key and its value.
pub(crate) fn take_record<K: DeserializeOwned, V: Stored>(
    from: &mut &[u8],
) -> Result<(K, Option<V>), StateError> {
    let key = take(from)?;
    let value = match take::<u8>(from)? {
        0 => None,
        1 => Some(V::load(from)?),
        other => return Err(StateError::Read(format!("{other} is neither 0 (gone) nor 1 (there)"))),
    };
    Ok((key, value))
}
