//! The rows of an entity as bytes, and back.
//!
//! *In*: rows with their history. *Out*: their records; from these the same rows on any number of workers.
//! *Never*: a row without the events that a correction may reach back to.

use serde::{Deserialize, Serialize};

use super::{EntityState, Row};
use crate::state::{Cut, Found, KeyedCut, Noted, State, StateError, Stored, put, take, take_record};

/// Name of the table.
const ROWS: &str = "rows";

impl Stored for Row {
    fn store(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        put(self, out)
    }

    fn load(from: &mut &[u8]) -> Result<Self, StateError> {
        take(from)
    }
}

/// What belongs to no row.
#[derive(Debug, Serialize, Deserialize)]
struct Rest {
    lost: u64,
}

impl State for EntityState {
    fn changed(&mut self) -> &mut dyn Noted {
        &mut self.changed
    }

    fn cut(&mut self) -> Cut {
        let rows = KeyedCut { map: self.rows.clone(), changed: self.changed.cut() };
        Cut { tables: vec![(ROWS, Box::new(rows))], loose: Box::new(Rest { lost: self.lost }) }
    }

    fn restore(&mut self, found: &Found<'_>) -> Result<(), StateError> {
        let fields = self.plan.entity.fields.len();
        for mut section in found.of(ROWS) {
            while !section.is_empty() {
                let (key, row) = take_record::<_, Row>(&mut section)?;
                match row {
                    Some(row) if row.folded.len() != fields => {
                        let message = format!("a row has {} fields, not {fields}", row.folded.len());
                        return Err(StateError::Read(message));
                    }
                    Some(row) => self.rows.insert(key, row.into()),
                    None => self.rows.remove(&key),
                };
            }
        }
        for rest in found.loose::<Rest>()?.into_iter().filter(|_| found.leads) {
            self.lost += rest.lost;
        }
        Ok(())
    }
}
