//! The keys of a sequence as bytes, and back.
//!
//! *In*: what is known of each key. *Out*: its record; from these the same keys on any number of workers. *Never*: a
//! row twice: what was told names the rows beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Held, SequenceState, Span, Stay};
use crate::fold::group::Lost;
use crate::fold::panes::Key;
use crate::state::{self, Cut, Found, Noted, State, StateError, Stored, add_lost, put, take};

/// Name of the table.
const KEYS: &str = "keys";

impl Stored for Held {
    fn store(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        put(&(self.entered, self.settled, self.until), out)?;
        put(&self.stays, out)?;
        // From 1; 0 is a row that is no longer held.
        let numbers: BTreeMap<&Arc<Stay>, usize> = self.stays.keys().zip(1..).collect();
        put(&self.told.len(), out)?;
        for (stay, span) in &self.told {
            match numbers.get(stay) {
                Some(number) => put(&(number, span), out)?,
                None => put(&(0_usize, span, stay), out)?,
            }
        }
        Ok(())
    }

    fn load(from: &mut &[u8]) -> Result<Self, StateError> {
        let (entered, settled, until) = take(from)?;
        let stays: BTreeMap<Arc<Stay>, i64> = take(from)?;
        let by_number: Vec<Arc<Stay>> = stays.keys().cloned().collect();
        let mut told = Vec::new();
        for _ in 0..take::<usize>(from)? {
            let (number, span): (usize, Span) = take(from)?;
            let stay = match number.checked_sub(1) {
                None => take(from)?,
                Some(at) => by_number
                    .get(at)
                    .cloned()
                    .ok_or_else(|| StateError::Read(format!("row {number} of {}", by_number.len())))?,
            };
            told.push((stay, span));
        }
        Ok(Self { stays, told, entered, settled, until })
    }
}

/// What belongs to no key.
#[derive(Debug, Serialize, Deserialize)]
struct Rest {
    #[serde(deserialize_with = "state::lost")]
    lost: Lost,
}

impl State for SequenceState {
    fn changed(&mut self) -> &mut dyn Noted {
        self.keys.changed()
    }

    fn cut(&mut self) -> Cut {
        let rest = Rest { lost: self.lost.clone() };
        Cut { tables: vec![(KEYS, self.keys.cut())], loose: Box::new(rest) }
    }

    fn restore(&mut self, found: &Found<'_>) -> Result<(), StateError> {
        for section in found.of(KEYS) {
            self.keys.load(section)?;
        }
        self.now = found.now;
        let mut gone: Vec<(i64, Key)> = Vec::new();
        for (key, held) in self.keys.iter() {
            self.held += held.stays.len();
            gone.extend(held.until.map(|until| (until, key.clone())));
            for stay in held.stays.keys() {
                let keys = self.ages.entry(stay.row.time.div_euclid(self.stretch)).or_default();
                if keys.last() != Some(key) {
                    keys.push(key.clone());
                }
            }
        }
        gone.sort_by_key(|(until, _)| *until);
        self.gone = gone.into();
        for rest in found.loose::<Rest>()?.into_iter().filter(|_| found.leads) {
            add_lost(&mut self.lost, &rest.lost);
        }
        Ok(())
    }
}
