//! The current rows of change streams as bytes, and back.
//!
//! *In*: versions and truncates. *Out*: their records; from these the same on any number of workers. *Never*: a
//! truncate that only one worker remembers.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Newest, Place, REMEMBER, Value, Versions};
use crate::state::{Cut, Found, Noted, State, StateError, Stored, put, take};

/// Name of the table.
const ROWS: &str = "rows";

impl<R: Serialize + DeserializeOwned> Stored for Newest<R> {
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
    truncates: Vec<((Value, u64), Place)>,
    lost: u64,
}

impl<R> State for Versions<R>
where
    R: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    fn changed(&mut self) -> &mut dyn Noted {
        self.rows.changed()
    }

    fn cut(&mut self) -> Cut {
        let truncates = self.truncates.iter().map(|(of, place)| (of.clone(), *place)).collect();
        let rest = Rest { truncates, lost: self.lost };
        Cut { tables: vec![(ROWS, self.rows.cut())], loose: Box::new(rest) }
    }

    fn restore(&mut self, found: &Found<'_>) -> Result<(), StateError> {
        for section in found.of(ROWS) {
            self.rows.load(section)?;
        }
        let gone = self.rows.iter().filter(|(_, known)| known.row.is_none());
        // Remembered a little longer than without the restart.
        let until = found.now.saturating_add(REMEMBER);
        self.gone = gone.map(|(key, _)| (until, key.clone())).collect();
        for rest in found.loose::<Rest>()? {
            for (of, place) in rest.truncates {
                let last = self.truncates.entry(of).or_insert(place);
                if place.after(last) {
                    *last = place;
                }
            }
            self.lost += if found.leads { rest.lost } else { 0 };
        }
        Ok(())
    }
}
