//! Histories as bytes, and back.
//!
//! *In*: the versions of each key and the truncates. *Out*: their records; from these the same on any number of
//! workers. *Never*: what was told of a version: it follows from the version after it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Entry, History, PartRow, Place, Value};
use crate::state::{Cut, Found, Noted, State, StateError, Stored, put, take};

/// Name of the table.
const ROWS: &str = "rows";

impl Stored for VecDeque<Entry> {
    fn store(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        put(&self.len(), out)?;
        self.iter().try_for_each(|entry| put(&(&entry.place, entry.time, &entry.row), out))
    }

    fn load(from: &mut &[u8]) -> Result<Self, StateError> {
        let mut entries = VecDeque::new();
        for _ in 0..take::<usize>(from)? {
            let (place, time, row): (Place, i64, Option<Arc<PartRow>>) = take(from)?;
            entries.push_back(Entry { place, time, row, told: None });
        }
        Ok(entries)
    }
}

/// What belongs to no key.
#[derive(Debug, Serialize, Deserialize)]
struct Rest {
    truncates: Vec<((Value, u64), Vec<(Place, i64)>)>,
    lost: u64,
}

impl State for History {
    fn changed(&mut self) -> &mut dyn Noted {
        self.rows.changed()
    }

    fn cut(&mut self) -> Cut {
        let of_stream =
            |(of, all): (&(Value, u64), &super::Truncates)| (of.clone(), all.values().copied().collect());
        let rest = Rest { truncates: self.truncates.iter().map(of_stream).collect(), lost: self.lost };
        Cut { tables: vec![(ROWS, self.rows.cut())], loose: Box::new(rest) }
    }

    fn restore(&mut self, found: &Found<'_>) -> Result<(), StateError> {
        for section in found.of(ROWS) {
            self.rows.load(section)?;
        }
        let (cell, ended, held) = (self.cell, &mut self.ended, &mut self.held);
        let mut wrong = None;
        self.rows.complete(|key, entries| {
            *held += entries.len();
            for at in 0..entries.len() {
                let end = entries.get(at + 1).map(|next| next.time);
                let entry = &mut entries[at];
                if entry.row.as_ref().is_some_and(|row| row.cells.len() <= cell) {
                    wrong = Some(format!("a row has no cell {cell}"));
                    continue;
                }
                entry.tell(cell, end, &mut |_, _| {});
                let gone = entry.row.is_none().then_some(entry.time);
                for instant in end.into_iter().chain(gone) {
                    ended.entry(instant).or_default().push(key.clone());
                }
            }
        });
        if let Some(wrong) = wrong {
            return Err(StateError::Read(wrong));
        }
        for rest in found.loose::<Rest>()? {
            for (of, all) in rest.truncates {
                let known = self.truncates.entry(of).or_default();
                known.extend(all.into_iter().map(|(place, at)| ((place.offset, place.part), (place, at))));
            }
            self.lost += if found.leads { rest.lost } else { 0 };
        }
        Ok(())
    }
}
