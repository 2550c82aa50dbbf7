//! A version of a row holds until the next one.
//!
//! *In*: versions of the rows of one part, a tick at a time. *Out*: each version with the instant from which on it no
//! longer holds: what was told before (-1), what is so now (+1). *Never*: an older version where a newer one holds.
//!
//! At an instant the version holds that stands last in its stream among those whose time has come. So a version hides
//! every earlier one that is not before it in time, for ever: what is left of a key rises in place and time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ahash::HashMap;
use contracts::value::Value;

use super::PartRow;
use super::step::until;
use super::versions::{Place, Version, Versions};
use crate::fold::panes::Key;
use crate::state::{Keyed, State};

mod stored;

/// The rows of a part: the newest version of each, or all that still matter.
#[derive(Debug)]
pub enum Kept {
    /// Only the newest version counts.
    Newest(Versions),
    /// Every version counts.
    All(History),
}

impl Kept {
    /// No rows yet; `history` is [`contracts::catalog::Part::history`].
    pub fn new(history: Option<usize>, retain: i64, max_keys: usize) -> Self {
        match history {
            None => Self::Newest(Versions::new(max_keys)),
            Some(cell) => Self::All(History::new(cell, retain, max_keys)),
        }
    }

    /// Applies the versions of a tick; `give` is called with each change.
    pub fn apply(&mut self, now: i64, versions: Vec<Version>, give: impl FnMut(Arc<PartRow>, i64)) {
        match self {
            Self::Newest(newest) => newest.apply(now, versions, give),
            Self::All(history) => history.apply(versions, give),
        }
    }

    /// Forgets what can no longer matter.
    pub fn turn(&mut self, now: i64) {
        match self {
            Self::Newest(newest) => newest.turn(now),
            Self::All(history) => history.turn(now),
        }
    }

    /// Its state, to be cut and restored.
    pub fn state(&mut self) -> &mut dyn State {
        match self {
            Self::Newest(newest) => newest,
            Self::All(history) => history,
        }
    }

    /// Versions dropped because there were too many.
    pub fn lost(&self) -> u64 {
        match self {
            Self::Newest(newest) => newest.lost,
            Self::All(history) => history.lost,
        }
    }
}

/// One version: from when on it holds, and where it stands. `row: None`: the row is gone.
#[derive(Debug, Clone)]
struct Entry {
    place: Place,
    time: i64,
    row: Option<Arc<PartRow>>,
    /// What has been told of it.
    told: Option<Arc<PartRow>>,
}

/// Truncates of one stream by their place in it, with their instants.
type Truncates = BTreeMap<(i64, u32), (Place, i64)>;

/// The versions of the rows of one part on one worker.
#[derive(Debug)]
pub struct History {
    /// The cell that is filled.
    cell: usize,
    /// Per key, rising in place and time.
    rows: Keyed<Key, VecDeque<Entry>>,
    /// Entries of all keys.
    held: usize,
    /// Per first value of names and stream: a slower partition may still bring older rows.
    truncates: HashMap<(Value, u64), Truncates>,
    /// Keys with a version that ended, by when.
    ended: BTreeMap<i64, Vec<Key>>,
    retain: i64,
    max_held: usize,
    /// Versions dropped because there were too many.
    pub lost: u64,
}

impl History {
    /// No rows yet.
    pub fn new(cell: usize, retain: i64, max_held: usize) -> Self {
        Self {
            cell,
            rows: Keyed::default(),
            held: 0,
            truncates: HashMap::default(),
            ended: BTreeMap::new(),
            retain,
            max_held,
            lost: 0,
        }
    }

    /// Versions held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Applies the versions of a tick; `give` is called with each change.
    pub fn apply(&mut self, mut versions: Vec<Version>, mut give: impl FnMut(Arc<PartRow>, i64)) {
        Version::sort(&mut versions);
        for version in versions {
            match version {
                Version::Of(key, place, time, row) => {
                    if !self.rows.contains(&key) {
                        self.begin(&key);
                    }
                    self.insert(&key, Entry { place, time, row, told: None }, &mut give);
                    if self.rows.get(&key).is_some_and(VecDeque::is_empty) {
                        self.rows.remove(&key);
                    }
                }
                Version::Truncate(family, place, time) => self.truncate(&family, place, time, &mut give),
            }
        }
    }

    /// A new key, with the truncates that it may have been before.
    fn begin(&mut self, key: &Key) {
        let of_family = self.truncates.iter().filter(|((family, _), _)| key.values.first() == Some(family));
        let truncates: Vec<(Place, i64)> = of_family.flat_map(|(_, all)| all.values()).copied().collect();
        self.rows.insert(key.clone(), VecDeque::new());
        for (place, time) in truncates {
            self.insert(key, Entry { place, time, row: None, told: None }, &mut |_, _| {});
        }
    }

    fn truncate(
        &mut self,
        family: &Value,
        place: Place,
        time: i64,
        give: &mut impl FnMut(Arc<PartRow>, i64),
    ) {
        let known = self.truncates.entry((family.clone(), place.stream)).or_default();
        known.insert((place.offset, place.part), (place, time));
        let of_family = |key: &&Key| key.values.first() == Some(family);
        let keys: Vec<Key> = self.rows.iter().map(|(key, _)| key).filter(of_family).cloned().collect();
        for key in keys {
            self.insert(&key, Entry { place, time, row: None, told: None }, give);
        }
    }

    fn insert(&mut self, key: &Key, entry: Entry, give: &mut impl FnMut(Arc<PartRow>, i64)) {
        let full = self.held >= self.max_held;
        let Some(entries) = self.rows.get_mut(key) else { return };
        let mut at = entries.partition_point(|known| entry.place.after(&known.place));
        // Read again, or hidden by one that stands behind it.
        let next = entries.get(at);
        if next.is_some_and(|next| next.place == entry.place || next.time <= entry.time) {
            return;
        }
        if full && entry.row.is_some() {
            self.lost += 1;
            return;
        }
        while at > 0 && entries[at - 1].time >= entry.time {
            at -= 1;
            self.held -= 1;
            entries.remove(at).and_then(|hidden| hidden.told).into_iter().for_each(|row| give(row, -1));
        }
        let (time, gone) = (entry.time, entry.row.is_none());
        entries.insert(at, entry);
        self.held += 1;
        for at in at.saturating_sub(1)..=at {
            let end = entries.get(at + 1).map(|next| next.time);
            entries[at].tell(self.cell, end, give);
            if let Some(end) = end {
                self.ended.entry(end).or_default().push(key.clone());
            }
        }
        if gone {
            self.ended.entry(time).or_default().push(key.clone());
        }
    }

    /// Forgets versions that ended before all that is retained: no row asks for them any more.
    pub fn turn(&mut self, now: i64) {
        let bound = now.saturating_sub(self.retain);
        while let Some(entry) = self.ended.first_entry() {
            if *entry.key() > bound {
                break;
            }
            for key in entry.remove() {
                self.forget(&key, bound);
            }
        }
        for truncates in self.truncates.values_mut() {
            // The newest of those that are past stands for the ones before it.
            while truncates.values().nth(1).is_some_and(|(_, time)| *time <= bound) {
                truncates.pop_first();
            }
        }
    }

    fn forget(&mut self, key: &Key, bound: i64) {
        let Some(entries) = self.rows.get_mut(key) else { return };
        let before = entries.len();
        while entries.get(1).is_some_and(|next| next.time <= bound) {
            entries.pop_front();
        }
        if entries.front().is_some_and(|first| first.row.is_none() && first.time <= bound) {
            entries.pop_front();
        }
        self.held -= before - entries.len();
        if entries.is_empty() {
            self.rows.remove(key);
        }
    }
}

impl Entry {
    /// Tells the row with the instant from which on it no longer holds.
    fn tell(&mut self, cell: usize, end: Option<i64>, give: &mut impl FnMut(Arc<PartRow>, i64)) {
        let now = self.row.as_ref().map(|row| ending(row, cell, end));
        if now != self.told {
            self.told.take().into_iter().for_each(|row| give(row, -1));
            now.iter().for_each(|row| give(Arc::clone(row), 1));
            self.told = now;
        }
    }
}

/// The row with the end of its validity; what it says itself counts, too.
fn ending(row: &Arc<PartRow>, cell: usize, end: Option<i64>) -> Arc<PartRow> {
    let own = until(row, cell);
    let Some(end) = end.filter(|end| own.is_none_or(|own| *end < own)) else { return Arc::clone(row) };
    let mut cells: Vec<Value> = row.cells.to_vec();
    cells[cell] = Value::Timestamp(end);
    Arc::new(PartRow { cells: cells.into(), ..PartRow::clone(row) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn of(offset: i64, time: i64, says: Option<i64>) -> Version {
        let place = Place { at: offset, stream: 1, offset, part: 0 };
        let cells = |n| [Value::Int(n), Value::Null].into();
        let row = says.map(|n| Arc::new(PartRow { time, id: None, event: 0, origin: None, cells: cells(n) }));
        Version::Of(Key::new([Value::Int(7), Value::Int(1)].into_iter()), place, time, row)
    }

    /// What holds at each of some instants.
    #[derive(Default)]
    struct Told(Vec<(Arc<PartRow>, i64)>);

    impl Told {
        fn at(&self, time: i64) -> Vec<i64> {
            let holds = |row: &PartRow| row.time <= time && until(row, 1).is_none_or(|until| time < until);
            let mut found: BTreeMap<i64, i64> = BTreeMap::new();
            for (row, weight) in self.0.iter().filter(|(row, _)| holds(row)) {
                let Value::Int(n) = row.cells[0] else { panic!() };
                *found.entry(n).or_default() += weight;
            }
            found.into_iter().filter(|(_, weight)| *weight != 0).map(|(n, _)| n).collect()
        }
    }

    fn apply(history: &mut History, told: &mut Told, versions: Vec<Version>) {
        history.apply(versions, |row, weight| told.0.push((row, weight)));
    }

    #[test]
    fn a_version_holds_until_the_next() {
        let (mut history, mut told) = (History::new(1, DAY, 100), Told::default());
        apply(&mut history, &mut told, vec![of(1, 10, Some(1)), of(2, 20, Some(2)), of(3, 30, None)]);
        apply(&mut history, &mut told, vec![of(4, 40, Some(4)), of(2, 20, Some(2))]);
        let seen: Vec<Vec<i64>> = [5, 10, 19, 20, 29, 30, 39, 40, 99].map(|t| told.at(t)).into();
        let none = Vec::new;
        assert_eq!(seen, [none(), vec![1], vec![1], vec![2], vec![2], none(), none(), vec![4], vec![4]]);
        // A correction that reaches back hides what it is before in time.
        apply(&mut history, &mut told, vec![of(5, 15, Some(5))]);
        assert_eq!([12, 15, 25, 50].map(|t| told.at(t)), [vec![1], vec![5], vec![5], vec![5]]);
        assert_eq!(history.held(), 2);
    }

    #[test]
    fn every_order_of_arrival_ends_alike() {
        let facts = [(1, 10, Some(1)), (2, 30, Some(2)), (3, 20, Some(3)), (4, 20, None), (5, 25, Some(5))];
        let mut order = [0, 1, 2, 3, 4];
        for round in 0..120 {
            order.swap(round % 4, round % 4 + 1);
            let (mut history, mut told) = (History::new(1, DAY, 100), Told::default());
            for n in order {
                let (offset, time, says) = facts[n];
                apply(&mut history, &mut told, vec![of(offset, time, says)]);
            }
            let seen = [5, 10, 20, 25, 30].map(|t| told.at(t));
            assert_eq!(seen, [vec![], vec![1], vec![], vec![5], vec![5]], "{order:?}");
        }
    }

    #[test]
    fn a_truncate_ends_and_the_past_is_let_go() {
        let (mut history, mut told) = (History::new(1, DAY, 100), Told::default());
        let truncate = |offset, time| {
            let place = Place { at: offset, stream: 1, offset, part: 0 };
            Version::Truncate(Value::Int(7), place, time)
        };
        apply(&mut history, &mut told, vec![of(1, 10, Some(1)), truncate(2, 20), of(3, 30, Some(3))]);
        assert_eq!([15, 20, 35].map(|t| told.at(t)), [vec![1], vec![], vec![3]]);
        history.turn(DAY + 25);
        assert_eq!(history.held(), 1);
        apply(&mut history, &mut told, vec![truncate(4, 40)]);
        assert_eq!([35, 40].map(|t| told.at(t)), [vec![3], vec![]]);
        history.turn(DAY + 40);
        assert_eq!(history.held(), 0);
        let full = &mut History::new(1, DAY, 1);
        apply(full, &mut told, vec![of(1, 10, Some(1)), of(2, 20, Some(2))]);
        assert_eq!((full.held(), full.lost), (1, 1));
    }
}
