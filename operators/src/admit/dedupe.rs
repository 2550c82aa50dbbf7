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

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use ahash::RandomState;
use serde::{Deserialize, Serialize};

use crate::state::{self, Cut, Found, Noted, SHARDS, Sections, State, StateError, Table};

/// Tables by shard, so that ageing and growing touch one small table at a time.
const TABLES: usize = SHARDS;
/// Bytes of one record of a checkpoint: the hash, an instant, and whether it is the first one of the id.
const RECORD: usize = 25;
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

/// Instants remembered of one id. Of more, those that do not count are not remembered: only a row that comes in front
/// of them, out of order, could tell, and would be taken for a duplicate.
const SIGHTINGS: usize = 1024;

/// Ids with the times they were received.
#[derive(Debug)]
pub struct Dedupe {
    horizon: i64,
    keys: Arc<IdHash>,
    tables: Vec<Ages>,
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
        let crowded = HashSet::default();
        Self { horizon, keys, tables, hand: 0, aged_to, floor, fresh: None, crowded, noted: false }
    }

    /// Whether a row of `id` is a duplicate; remembers it.
    pub fn seen(&mut self, id: &str, received: i64) -> bool {
        let hash = self.keys.hash(id);
        let table = &mut self.tables[place(hash)];
        match table.get_mut(&hash) {
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

    /// Ids remembered.
    pub fn len(&self) -> usize {
        self.tables.iter().map(HashMap::len).sum()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what no row received at or after `floor` can repeat. One table per call; a round
    /// starts when the floor has moved by an eighth of the horizon.
    pub fn age(&mut self, floor: i64) {
        self.floor = floor;
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
        let crowded = std::mem::take(&mut self.crowded);
        let of = |hash: u128| Some((hash, self.tables[place(hash)].get(&hash)?.clone()));
        let ids = match self.fresh.take() {
            Some(fresh) => {
                let once = fresh.into_iter().map(|(hash, received)| (hash, Sightings::One(received)));
                once.chain(crowded.into_iter().filter_map(of)).collect()
            }
            None => self.tables.iter().flatten().map(|(hash, known)| (*hash, known.clone())).collect(),
        };
        self.fresh = self.noted.then(Vec::new);
        Cut { tables: vec![(IDS, Box::new(Ids { ids, whole }))], loose: Box::new(()) }
    }

    fn restore(&mut self, found: &Found<'_>) -> Result<(), StateError> {
        let mut of_tables: Vec<Vec<&[[u8; RECORD]]>> = vec![Vec::new(); TABLES];
        for section in found.of(IDS) {
            let (records, rest) = section.as_chunks::<RECORD>();
            if !rest.is_empty() {
                return Err(StateError::Read("ids end within a record".to_owned()));
            }
            if let Some(first) = records.first() {
                of_tables[place(read(first).0)].push(records);
            }
        }
        let mut parts: Vec<Vec<_>> = std::iter::repeat_with(Vec::new).take(found.parts.max(1)).collect();
        let count = parts.len();
        // Tables of a worker are a number of workers apart.
        let filled = self.tables.iter_mut().zip(of_tables).enumerate();
        for (n, (number, (table, sections))) in filled.filter(|(_, (_, s))| !s.is_empty()).enumerate() {
            parts[n % count].push((number, table, sections));
        }
        parts.retain(|part| !part.is_empty());
        let fill = |part: Vec<(usize, &mut Ages, Vec<&[[u8; RECORD]]>)>| {
            part.into_iter().try_for_each(|(number, table, sections)| restore_table(number, table, &sections))
        };
        state::side_by_side(parts, fill).map(drop)
    }
}

fn restore_table(number: usize, table: &mut Ages, sections: &[&[[u8; RECORD]]]) -> Result<(), StateError> {
    table.reserve(sections.iter().map(|records| records.len()).sum());
    for record in sections.iter().copied().flatten() {
        let (hash, received, first) = read(record);
        if place(hash) != number {
            return Err(StateError::Read("ids of several shards lie in one section".to_owned()));
        }
        if first {
            table.insert(hash, Sightings::One(received));
            continue;
        }
        match table.get_mut(&hash) {
            None => drop(table.insert(hash, Sightings::One(received))),
            Some(Sightings::Many(times)) => times.push(received),
            Some(known) => *known = Sightings::Many(Box::new([known.times(), &[received]].concat())),
        }
    }
    Ok(())
}

/// Ids of a cut with all their instants. Later ones take the place of earlier ones.
struct Ids {
    ids: Vec<(u128, Sightings)>,
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
        for (hash, known) in &self.ids {
            for (index, received) in known.times().iter().enumerate() {
                to.add((hash >> 120) as u8, |out| {
                    out.extend(hash.to_le_bytes());
                    out.extend(received.to_le_bytes());
                    out.push(u8::from(index == 0));
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}

/// Hash, instant, whether it is the first one of the id.
fn read(record: &[u8; RECORD]) -> (u128, i64, bool) {
    let (mut hash, mut received) = ([0; 16], [0; 8]);
    hash.copy_from_slice(&record[..16]);
    received.copy_from_slice(&record[16..24]);
    (u128::from_le_bytes(hash), i64::from_le_bytes(received), record[24] != 0)
}

/// The ids of a section of which an instant is at or after `least`, each with all its records.
pub fn still_remembered(section: &[u8], least: i64) -> impl Iterator<Item = &[[u8; RECORD]]> {
    let ids = section.as_chunks::<RECORD>().0.chunk_by(|_, next| !read(next).2);
    ids.filter(move |id| id.iter().any(|record| read(record).1 >= least))
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
        assert!(!dedupe.seen("a", 111));
        assert!(dedupe.seen("a", 121));
        assert!(!dedupe.seen("b", 111));
        assert_eq!(dedupe.len(), 2);
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
        assert_eq!(dedupe.len(), 80);
        assert!(dedupe.seen("999", 1000));
    }
}
