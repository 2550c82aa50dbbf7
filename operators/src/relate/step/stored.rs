//! The rows and partners of a step as bytes, and back.
//!
//! *In*: rows by key. *Out*: their records; from these the same rows on any number of workers. *Never*: a partner
//! twice: what was told of a row names the partners beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{Alone, Left, PartRow, Partners, Row, Rows, StepState, until};
use crate::fold::group::Lost;
use crate::state::{self, Cut, Found, Noted, State, StateError, Stored, add_lost, put, take};

/// Name of the table.
const KEYS: &str = "keys";

impl Stored for Rows {
    fn store(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        put(&self.right, out)?;
        // From 1; 0 is a partner that is no longer held.
        let mut first_at: BTreeMap<i64, usize> = BTreeMap::new();
        let mut next = 1;
        for (time, rights) in &self.right {
            first_at.insert(*time, next);
            next += rights.len();
        }
        put(&self.left.values().map(Vec::len).sum::<usize>(), out)?;
        for (anchor, left) in self.left.iter().flat_map(|(anchor, all)| all.iter().map(move |l| (anchor, l)))
        {
            put(&(anchor, &left.row, left.weight, left.told.0, left.told.1.len()), out)?;
            for (partner, weight) in &left.told.1 {
                let rights = self.right.get(&partner.time);
                let known = rights.and_then(|all| all.binary_search_by(|(row, _)| row.cmp(partner)).ok());
                match known.and_then(|at| Some(first_at.get(&partner.time)? + at)) {
                    Some(number) => put(&(number, weight), out)?,
                    None => put(&(0_usize, weight, partner), out)?,
                }
            }
        }
        Ok(())
    }

    fn load(from: &mut &[u8]) -> Result<Self, StateError> {
        let right: BTreeMap<i64, Vec<(Arc<PartRow>, i64)>> = take(from)?;
        let partners: Vec<Arc<PartRow>> = right.values().flatten().map(|(row, _)| Arc::clone(row)).collect();
        let mut left: BTreeMap<i64, Vec<Left>> = BTreeMap::new();
        for _ in 0..take::<usize>(from)? {
            let (anchor, row, weight, told_weight, count): (i64, Row, i64, i64, usize) = take(from)?;
            let mut told: Partners = Vec::new();
            for _ in 0..count {
                let (number, weight): (usize, i64) = take(from)?;
                let partner = match number.checked_sub(1) {
                    None => take(from)?,
                    Some(at) => partners
                        .get(at)
                        .cloned()
                        .ok_or_else(|| StateError::Read(format!("partner {number} of {}", partners.len())))?,
                };
                told.push((partner, weight));
            }
            left.entry(anchor).or_default().push(Left { row, weight, told: (told_weight, told) });
        }
        Ok(Self { left, right })
    }
}

/// What belongs to no key.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::relate) struct Rest {
    pub(in crate::relate) alone: Alone,
    pub(in crate::relate) deadlines: OrdMap<i64, i64>,
    #[serde(deserialize_with = "state::lost")]
    pub(in crate::relate) lost: Lost,
}

impl Rest {
    /// The numbers of all workers there were; none, where another worker takes them.
    pub(in crate::relate) fn sum(found: &Found<'_>) -> Result<Self, StateError> {
        let mut sum = Self { alone: Alone::default(), deadlines: OrdMap::new(), lost: Lost::new() };
        for rest in found.loose::<Self>()?.into_iter().filter(|_| found.leads) {
            sum.alone.unmatched += rest.alone.unmatched;
            sum.alone.missing += rest.alone.missing;
            sum.alone.cold_start += rest.alone.cold_start;
            for (deadline, waiting) in rest.deadlines {
                *sum.deadlines.entry(deadline).or_insert(0) += waiting;
            }
            add_lost(&mut sum.lost, &rest.lost);
        }
        Ok(sum)
    }
}

impl State for StepState {
    fn changed(&mut self) -> &mut dyn Noted {
        self.keys.changed()
    }

    fn cut(&mut self) -> Cut {
        let rest =
            Rest { alone: self.alone.clone(), deadlines: self.deadlines.clone(), lost: self.lost.clone() };
        Cut { tables: vec![(KEYS, self.keys.cut())], loose: Box::new(rest) }
    }

    fn restore(&mut self, found: &Found<'_>) -> Result<(), StateError> {
        for section in found.of(KEYS) {
            self.keys.load(section)?;
        }
        self.now = found.now;
        let mut ages: Vec<(i64, crate::fold::panes::Key)> = Vec::new();
        for (key, rows) in self.keys.iter() {
            let rights = rows.right.values().flatten();
            let ends = rights.map(|(row, _)| {
                let end = self.step.valid_to.and_then(|cell| until(row, cell));
                end.unwrap_or(row.time)
            });
            ages.extend(rows.left.keys().copied().chain(ends).map(|time| (time, key.clone())));
            let held = rows.left.values().map(Vec::len).sum::<usize>();
            self.held += held + rows.right.values().map(Vec::len).sum::<usize>();
        }
        ages.into_iter().for_each(|(time, key)| self.age(time, &key));
        let Rest { alone, deadlines, lost } = Rest::sum(found)?;
        (self.alone, self.deadlines, self.lost) = (alone, deadlines, lost);
        Ok(())
    }
}
