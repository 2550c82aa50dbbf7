//! The panes of one key by number: most keys have few, and a tree is large for these.
//!
//! *In*: panes by number. *Out*: the same, in order. *Never*: more than [`FEW`] panes that are copied with their cell.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::RangedIter;
use imbl::shared_ptr::DefaultSharedPtr;
use smallvec::SmallVec;

use super::Pane;

/// So many lie one behind the other; more in a tree, of which copies share their parts.
const FEW: usize = 8;

/// Panes by number.
#[derive(Debug, Clone)]
pub struct Panes(Held);

#[derive(Debug, Clone)]
enum Held {
    Few(SmallVec<[(i64, Arc<Pane>); 2]>),
    /// It stays a tree when panes are taken out.
    Many(OrdMap<i64, Arc<Pane>>),
}

impl Default for Panes {
    fn default() -> Self {
        Self(Held::Few(SmallVec::new()))
    }
}

impl Panes {
    /// Room for `count` panes.
    pub fn with_capacity(count: usize) -> Self {
        Self(Held::Few(SmallVec::with_capacity(count.min(FEW))))
    }

    /// Number of panes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Held::Few(few) => few.len(),
            Held::Many(many) => many.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A pane.
    pub fn get(&self, number: i64) -> Option<&Arc<Pane>> {
        match &self.0 {
            Held::Few(few) => place(few, number).ok().map(|place| &few[place].1),
            Held::Many(many) => many.get(&number),
        }
    }

    /// A pane, to be changed.
    pub fn get_mut(&mut self, number: i64) -> Option<&mut Arc<Pane>> {
        match &mut self.0 {
            Held::Few(few) => place(few, number).ok().map(|place| &mut few[place].1),
            Held::Many(many) => many.get_mut(&number),
        }
    }

    /// Puts a pane.
    pub fn insert(&mut self, number: i64, pane: Arc<Pane>) {
        match &mut self.0 {
            Held::Few(few) => match place(few, number) {
                Ok(place) => few[place].1 = pane,
                Err(place) if few.len() < FEW => few.insert(place, (number, pane)),
                Err(_) => {
                    let mut many: OrdMap<i64, Arc<Pane>> = few.drain(..).collect();
                    many.insert(number, pane);
                    self.0 = Held::Many(many);
                }
            },
            Held::Many(many) => drop(many.insert(number, pane)),
        }
    }

    /// Takes a pane out.
    pub fn remove(&mut self, number: i64) -> Option<Arc<Pane>> {
        match &mut self.0 {
            Held::Few(few) => place(few, number).ok().map(|place| few.remove(place).1),
            Held::Many(many) => many.remove(&number),
        }
    }

    /// Panes whose numbers lie in a range, ascending.
    pub fn range(&self, range: impl RangeBounds<i64>) -> Range<'_> {
        match &self.0 {
            Held::Few(few) => {
                let from = match range.start_bound() {
                    Bound::Unbounded => 0,
                    Bound::Included(from) => few.partition_point(|(number, _)| number < from),
                    Bound::Excluded(from) => few.partition_point(|(number, _)| number <= from),
                };
                let to = match range.end_bound() {
                    Bound::Unbounded => few.len(),
                    Bound::Included(to) => few.partition_point(|(number, _)| number <= to),
                    Bound::Excluded(to) => few.partition_point(|(number, _)| number < to),
                };
                Range::Few(few.get(from..to).unwrap_or_default().iter())
            }
            Held::Many(many) => Range::Many(many.range(range)),
        }
    }

    /// All panes, ascending.
    pub fn iter(&self) -> Range<'_> {
        self.range(..)
    }

    /// The numbers, ascending.
    pub fn keys(&self) -> impl Iterator<Item = i64> {
        self.iter().map(|(number, _)| number)
    }

    /// All panes, ascending, without their numbers.
    pub fn values(&self) -> impl Iterator<Item = &Arc<Pane>> {
        self.iter().map(|(_, pane)| pane)
    }

    /// The pane of the least number.
    pub fn first(&self) -> Option<(i64, &Arc<Pane>)> {
        self.iter().next()
    }

    /// The pane of the greatest number.
    pub fn last(&self) -> Option<(i64, &Arc<Pane>)> {
        match &self.0 {
            Held::Few(few) => few.last().map(|(number, pane)| (*number, pane)),
            Held::Many(many) => many.get_max().map(|(number, pane)| (*number, pane)),
        }
    }
}

fn place(few: &[(i64, Arc<Pane>)], number: i64) -> Result<usize, usize> {
    few.binary_search_by_key(&number, |(number, _)| *number)
}

/// Panes of a range, ascending.
#[derive(Debug)]
pub enum Range<'a> {
    /// One behind the other.
    Few(std::slice::Iter<'a, (i64, Arc<Pane>)>),
    /// Of a tree.
    Many(RangedIter<'a, i64, Arc<Pane>, DefaultSharedPtr>),
}

impl<'a> Iterator for Range<'a> {
    type Item = (i64, &'a Arc<Pane>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next().map(|(number, pane)| (*number, pane)),
            Self::Many(many) => many.next().map(|(number, pane)| (*number, pane)),
        }
    }
}

impl<'a> IntoIterator for &'a Panes {
    type Item = (i64, &'a Arc<Pane>);
    type IntoIter = Range<'a>;

    fn into_iter(self) -> Range<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Few or many, it answers as a map of the standard library does.
    #[test]
    fn panes_are_a_map_by_number() {
        let mut rng = fastrand::Rng::with_seed(5);
        let pane = |rows| Arc::new(Pane { rows, ..Pane::zero(&[]) });
        for round in 0..200 {
            let (mut panes, mut map) = (Panes::with_capacity(round % 12), BTreeMap::new());
            let span = rng.i64(1..40);
            for step in 0..100 {
                let number = rng.i64(-span..span);
                match rng.u8(0..5) {
                    0 => {
                        let gone = panes.remove(number).map(|pane| pane.rows);
                        assert_eq!(gone, map.remove(&number));
                    }
                    1 => {
                        if let Some(known) = panes.get_mut(number) {
                            *known = pane(step);
                            *map.get_mut(&number).unwrap() = step;
                        }
                    }
                    _ => {
                        panes.insert(number, pane(step));
                        map.insert(number, step);
                    }
                }
                let (a, b) = (rng.i64(-span..span), rng.i64(-span..span));
                let (from, to) = (a.min(b), a.max(b));
                let rows = |range: Range<'_>| -> Vec<_> { range.map(|(n, pane)| (n, pane.rows)).collect() };
                let wanted = |from: Bound<i64>, to: Bound<i64>| -> Vec<_> {
                    map.range((from, to)).map(|(n, rows)| (*n, *rows)).collect()
                };
                assert_eq!(rows(panes.iter()), wanted(Bound::Unbounded, Bound::Unbounded));
                assert_eq!(rows(panes.range(from..to)), wanted(Bound::Included(from), Bound::Excluded(to)));
                assert_eq!(rows(panes.range(from..=to)), wanted(Bound::Included(from), Bound::Included(to)));
                assert_eq!(rows(panes.range(from..)), wanted(Bound::Included(from), Bound::Unbounded));
                assert_eq!(rows(panes.range(..to)), wanted(Bound::Unbounded, Bound::Excluded(to)));
                assert_eq!(panes.len(), map.len());
                assert_eq!(panes.get(a).map(|pane| pane.rows), map.get(&a).copied());
                assert_eq!(panes.first().map(|(n, _)| n), map.first_key_value().map(|(n, _)| *n));
                assert_eq!(panes.last().map(|(n, _)| n), map.last_key_value().map(|(n, _)| *n));
            }
        }
    }
}
