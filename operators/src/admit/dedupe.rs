//! The memory of ids.
//!
//! *In*: an id and when its row was received. *Out*: whether the row is a duplicate. *Never*: a wall clock (a replay
//! decides as the first run did), an answer to "how many rows of an id count?" that depends on the order in which they
//! came, unkeyed hashes (ids are hostile input).
//!
//! Of the rows of one id as many count as can be chosen more than the horizon apart. That number never falls when a row
//! is added, and rises by one at most, so a row counts when it makes the number rise: whatever the order, the same
//! number has counted in the end (decision 0012). It is found from the left: the first row, then the first one beyond
//! the horizon of the one chosen last. What lies before the floor cannot change any more, so of it the last row chosen
//! is enough; in the order of receiving that is one instant per id.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use ahash::RandomState;
use serde::{Deserialize, Serialize};

use crate::state::SHARDS;

mod stored;

use stored::Unread;
pub use stored::{sort_ids, still_remembered};

/// Tables by shard, so that ageing and growing touch one small table at a time.
const TABLES: usize = SHARDS;
/// Ids of a checkpoint that are taken into their table at a call of [`Dedupe::age`].
const TAKEN: usize = if cfg!(test) { 2 } else { 8192 };

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

/// Instants remembered of one id. Of more, those that do not count are not remembered: only a row that comes in front
/// of them, out of order, could tell, and would be taken for a duplicate.
const SIGHTINGS: usize = 1024;

/// Ids with the times they were received.
#[derive(Debug)]
pub struct Dedupe {
    horizon: i64,
    keys: Arc<IdHash>,
    tables: Vec<Ages>,
    /// What is in a checkpoint's files and not in the tables yet, by shard.
    unread: Vec<Unread>,
    /// Next table to age, and the floor reached when the round started.
    hand: usize,
    aged_to: i64,
    /// No row that is still to come was received before this instant.
    floor: i64,
    /// Ids that came first since the last cut; `None`: nobody notes them.
    fresh: Option<Vec<(u128, i64)>>,
    /// Ids of several instants that changed since then.
    crowded: HashSet<u128, BuildHasherDefault<Folded>>,
    noted: bool,
}

/// Ids of one shard, by their hash.
type Ages = HashMap<u128, Sightings, BuildHasherDefault<Folded>>;

/// The number of the table of a hash: its shard.
fn place(hash: u128) -> usize {
    (hash >> 120) as usize
}

/// When the rows of one id were received. In the order of receiving, one instant is all.
#[derive(Debug, Clone)]
#[allow(clippy::box_collection)] // two words instead of three for each of the many ids that come once
enum Sightings {
    One(i64),
    /// Ascending, without equals.
    Many(Box<Vec<i64>>),
}

impl Dedupe {
    /// Remembers ids for `horizon` microseconds of received time.
    pub fn new(horizon: i64, keys: Arc<IdHash>) -> Self {
        let tables = std::iter::repeat_with(HashMap::default).take(TABLES).collect();
        let (aged_to, floor) = (i64::MIN, i64::MIN);
        let (unread, crowded) = Default::default();
        Self { horizon, keys, tables, unread, hand: 0, aged_to, floor, fresh: None, crowded, noted: false }
    }

    /// Whether a row of `id` is a duplicate; remembers it.
    pub fn seen(&mut self, id: &str, received: i64) -> bool {
        let hash = self.keys.hash(id);
        let table = &mut self.tables[place(hash)];
        let unread = self.unread.get(place(hash));
        let known = match table.entry(hash) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(place) => {
                unread.and_then(|unread| unread.find(hash)).map(|found| place.insert(found))
            }
        };
        match known {
            Some(known) => {
                let seen = known.add(received, self.horizon, self.floor);
                if self.fresh.is_some() && matches!(known, Sightings::Many(_)) {
                    self.crowded.insert(hash);
                }
                seen
            }
            None => {
                table.insert(hash, Sightings::One(received));
                if let Some(fresh) = &mut self.fresh {
                    fresh.push((hash, received));
                }
                false
            }
        }
    }

    /// Forgets what no row received at or after `floor` can repeat. One table per call; a round
    /// starts when the floor has moved by an eighth of the horizon. After a restart first what was not read yet is.
    pub fn age(&mut self, floor: i64) {
        self.floor = floor;
        while self.unread.pop_if(|unread| unread.is_empty()).is_some() {}
        let left = self.unread.len();
        if let Some(unread) = self.unread.last_mut() {
            unread.take(TAKEN, &mut self.tables[left - 1]);
            return;
        }
        if self.hand == 0 {
            if floor < self.aged_to.saturating_add(self.horizon / 8) {
                return;
            }
            self.aged_to = floor;
        }
        let (horizon, floor) = (self.horizon, self.floor);
        let table = &mut self.tables[self.hand];
        table.retain(|_, known| known.settle(horizon, floor));
        table.shrink_to(table.len() * 2);
        self.hand = (self.hand + 1) % TABLES;
    }
}

impl Sightings {
    fn times(&self) -> &[i64] {
        match self {
            Self::One(only) => std::slice::from_ref(only),
            Self::Many(times) => times,
        }
    }

    /// Adds a row; whether as many count as before.
    fn add(&mut self, received: i64, horizon: i64, floor: i64) -> bool {
        let times = match self {
            Self::One(known) if *known == received => return true,
            Self::One(known) => {
                *self = Self::Many(Box::new(vec![*known]));
                return self.add(received, horizon, floor);
            }
            Self::Many(times) => times,
        };
        let Err(mut place) = times.binary_search(&received) else { return true };
        if times.len() >= SIGHTINGS {
            settle(times, horizon, floor);
            place = times.partition_point(|time| *time < received);
        }
        let before = chosen(times, horizon).count();
        times.insert(place, received);
        let rises = chosen(times, horizon).count() > before;
        if times.len() > SIGHTINGS && !rises && chosen(times, horizon).all(|time| time != received) {
            times.remove(place);
        }
        !rises
    }

    /// Drops what cannot matter for rows received at or after `floor`; whether anything is left.
    fn settle(&mut self, horizon: i64, floor: i64) -> bool {
        let last = match self {
            Self::One(only) => *only,
            Self::Many(times) => {
                settle(times, horizon, floor);
                match times.as_slice() {
                    [] => return false,
                    [only] => *only,
                    _ => return true,
                }
            }
        };
        *self = Self::One(last);
        last >= floor.saturating_sub(horizon)
    }
}

/// The rows that are chosen, from the left.
fn chosen(times: &[i64], horizon: i64) -> impl Iterator<Item = i64> {
    let after = move |last: &i64| {
        let next = times.partition_point(|time| *time <= last.saturating_add(horizon));
        times.get(next).copied()
    };
    std::iter::successors(times.first().copied(), after)
}

/// Of the rows before `floor`, keeps the last one chosen, and that only while something can be within its horizon.
fn settle(times: &mut Vec<i64>, horizon: i64, floor: i64) {
    let settled = times.partition_point(|time| *time < floor);
    let Some(last) = chosen(&times[..settled], horizon).last() else { return };
    times.drain(..settled);
    if last >= floor.saturating_sub(horizon) {
        times.insert(0, last);
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

    fn dedupe(horizon: i64) -> Dedupe {
        Dedupe::new(horizon, Arc::new(IdHash::new(&Secret::new())))
    }

    fn remembered(dedupe: &Dedupe) -> usize {
        dedupe.tables.iter().map(HashMap::len).sum()
    }

    #[test]
    fn remembers_for_the_horizon() {
        let mut dedupe = dedupe(10);
        assert!(!dedupe.seen("a", 100));
        assert!(dedupe.seen("a", 110));
        assert!(!dedupe.seen("a", 111));
        assert!(dedupe.seen("a", 121));
        assert!(!dedupe.seen("b", 111));
        assert_eq!(remembered(&dedupe), 2);
    }

    /// As many of `times` as can be more than `horizon` apart, by trying all.
    fn most(times: &[i64], horizon: i64) -> usize {
        let sets = (0..1u32 << times.len()).map(|set| {
            let of = |i: &usize| set >> i & 1 == 1;
            let picked: Vec<i64> = (0..times.len()).filter(of).map(|i| times[i]).collect();
            let fits = (0..picked.len())
                .all(|i| picked[..i].iter().all(|other| picked[i].abs_diff(*other) > horizon as u64));
            if fits { picked.len() } else { 0 }
        });
        sets.max().unwrap_or(0)
    }

    #[test]
    fn three_copies_in_any_order_count_alike() {
        // A and C are more than the horizon apart, B is within reach of both.
        let (a, b, c) = (0, 9, 18);
        for order in [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
            let mut dedupe = dedupe(10);
            let counted = order.iter().filter(|received| !dedupe.seen("x", **received)).count();
            assert_eq!(counted, 2, "{order:?}");
        }
    }

    #[test]
    fn how_many_count_depends_on_no_order_and_no_ageing() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..3_000 {
            let horizon = rng.i64(0..12);
            let mut dedupe = dedupe(horizon);
            // Rows come out of order by 8 at most, and may be aged up to there at any time.
            let mut times: Vec<i64> = (0..rng.usize(1..11)).map(|_| rng.i64(0..50)).collect();
            let delays: Vec<i64> = times.iter().map(|time| time + rng.i64(0..8)).collect();
            let mut order: Vec<usize> = (0..times.len()).collect();
            order.sort_by_key(|row| delays[*row]);
            let mut counted = 0;
            for (done, row) in order.iter().enumerate() {
                counted += usize::from(!dedupe.seen("x", times[*row]));
                let floor = order[done + 1..].iter().map(|row| times[*row]).min();
                if let Some(floor) = floor.filter(|_| rng.bool()) {
                    dedupe.tables.iter_mut().for_each(|table| {
                        table.retain(|_, known| known.settle(horizon, floor));
                    });
                }
            }
            times.sort_unstable();
            assert_eq!(counted, most(&times, horizon), "{times:?} within {horizon}");
        }
    }

    #[test]
    fn a_flood_of_one_id_is_bounded() {
        let mut dedupe = dedupe(1_000_000);
        assert!(!dedupe.seen("a", 0));
        (1..5_000).for_each(|time| assert!(dedupe.seen("a", time)));
        let sightings = |dedupe: &Dedupe| {
            let all = dedupe.tables.iter().flat_map(HashMap::values);
            let len = all.map(|known| match known {
                Sightings::One(_) => 1,
                Sightings::Many(times) => times.len(),
            });
            len.sum::<usize>()
        };
        assert_eq!(sightings(&dedupe), SIGHTINGS);
        assert!(!dedupe.seen("a", 1_000_001), "what counts is remembered all the same");
        dedupe.age(4_000);
        (5_000..6_000).for_each(|time| assert!(dedupe.seen("a", time)));
        assert!(sightings(&dedupe) <= SIGHTINGS, "what is settled makes room");
    }

    #[test]
    fn forgets_what_cannot_come_again() {
        let mut dedupe = dedupe(80);
        (0..1000).for_each(|i| assert!(!dedupe.seen(&i.to_string(), i)));
        for floor in [1000, 1001] {
            (0..TABLES).for_each(|_| dedupe.age(floor));
        }
        assert_eq!(remembered(&dedupe), 80);
        assert!(dedupe.seen("999", 1000));
    }
}
