//! Plans of rounds: what a round is going to commit, decided before the first table is touched.
//!
//! *In*: the files of a round and the offsets they reach. *Out*: a numbered plan, made only if nobody has made one of that
//! number; the newest one when a lake is opened. *Never*: two plans of one number; a table commit without its plan.
//! Rules 1 to 3 of decision 0014.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::decided::Dropped;
use super::offsets::Offsets;
use crate::place::{Place, PlaceError};

/// Plans that are kept, the newest of them: for as long the copies of an id that did not count are known. They are listed
/// with each plan; object stores list a thousand names at once.
const KEPT: u64 = 900;

/// The last round that had rows for a table, as the table itself says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Number of the round.
    pub(super) round: u64,
    /// Its id.
    pub(super) id: Uuid,
}

/// What a round has for one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// The Iceberg table; `None`: there is none yet.
    pub(super) table: Option<Uuid>,
    /// What the table must say before the round; `None`: nothing of ours.
    pub(super) before: Option<Mark>,
    /// Data files, each as the iceberg crate writes one to JSON; none: the round leaves the table alone.
    pub(super) files: Vec<String>,
    /// Rows in them.
    pub(super) rows: u64,
}

/// A round, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// From 1.
    pub(super) number: u64,
    pub(super) id: Uuid,
    /// The process.
    pub(super) writer: Uuid,
    /// [`Offsets::to_text`] of the round before: its rows begin there.
    pub(super) from: String,
    /// Everything below is in the lake when the round is done.
    pub(super) to: String,
    /// All tables, those without rows, too.
    pub(super) tables: BTreeMap<String, Part>,
    /// Rows from `from` to `to` that were duplicates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) dropped: Vec<Dropped>,
    /// [`Offsets::to_text`] of the first rows of partitions that `from` does not name.
    #[serde(default)]
    pub(super) began: String,
    /// The events whose duplicates these are, each with what its contract means for state.
    #[serde(default)]
    pub(super) events: BTreeMap<String, String>,
}

impl Plan {
    pub(super) fn mark(&self) -> Mark {
        Mark { round: self.number, id: self.id }
    }
}

/// Why plans cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    /// Another process has made a plan of this number, or of a greater one.
    #[error("round {number} was planned by another process ({writer})")]
    Fenced {
        /// Its number.
        number: u64,
        /// Who.
        writer: String,
    },
    /// A plan is damaged.
    #[error("{name}: {message}")]
    Damaged {
        /// Its file.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// The place.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// The plans of a namespace.
#[derive(Debug)]
pub(super) struct Rounds {
    place: Place,
    folder: String,
}

impl Rounds {
    pub(super) fn new(place: &Place, namespace: &str) -> Self {
        Self { place: place.clone(), folder: format!("{namespace}/_rounds") }
    }

    /// The newest plan; `None`: there was never one.
    pub(super) async fn newest(&self) -> Result<Option<Plan>, PlanError> {
        match self.numbers().await?.last() {
            Some(number) => self.read(*number).await.map(Some),
            None => Ok(None),
        }
    }

    /// Plan `number`; `None`: there is none (any more).
    pub(super) async fn get(&self, number: u64) -> Result<Option<Plan>, PlanError> {
        match self.read(number).await {
            Ok(plan) => Ok(Some(plan)),
            Err(PlanError::Place(PlaceError::Missing(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes `plan` the newest. May be called again after an error with the same plan.
    pub(super) async fn write(&self, plan: &Plan) -> Result<(), PlanError> {
        let name = self.name(plan.number);
        let bytes = serde_json::to_vec(plan)
            .map_err(|error| PlanError::Damaged { name: name.clone(), message: error.to_string() })?;
        faults::point("lake.before_plan");
        match self.place.put_new(&name, Bytes::from(bytes)).await {
            Ok(()) => {}
            Err(PlaceError::Exists(_)) => {
                // Ours, when the answer to an earlier attempt was lost.
                let there = self.read(plan.number).await?;
                if there.id != plan.id {
                    return Err(fenced(&there));
                }
            }
            Err(error) => return Err(error.into()),
        }
        faults::point("lake.after_plan");
        // A rival that was asleep for long may have found a number that has been removed since.
        if let Some(newer) = self.numbers().await?.last().filter(|newest| **newest > plan.number) {
            return Err(fenced(&self.read(*newer).await?));
        }
        if let Some(old) = plan.number.checked_sub(KEPT).filter(|old| *old > 0) {
            // One that stays is no harm.
            let _ = self.place.delete(&self.name(old)).await;
        }
        Ok(())
    }

    async fn read(&self, number: u64) -> Result<Plan, PlanError> {
        let name = self.name(number);
        let bytes = self.place.get(&name).await?;
        let damaged = |error: serde_json::Error| PlanError::Damaged { name, message: error.to_string() };
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    async fn numbers(&self) -> Result<Vec<u64>, PlanError> {
        let files = self.place.list(&self.folder).await?;
        let number = |name: &str| name.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
        let mut numbers: Vec<u64> = files.iter().filter_map(|file| number(&file.name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn name(&self, number: u64) -> String {
        format!("{}/{number:020}.json", self.folder)
    }
}

/// Offsets of a plan.
pub(super) fn offsets(text: &str) -> Result<Offsets, PlanError> {
    let damaged = |message| PlanError::Damaged { name: "the offsets of a round".to_owned(), message };
    Offsets::from_text(text).map_err(damaged)
}

fn fenced(plan: &Plan) -> PlanError {
    PlanError::Fenced { number: plan.number, writer: plan.writer.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(number: u64, writer: u128) -> Plan {
        let (id, writer) = (Uuid::from_u128(writer << 64 | u128::from(number)), Uuid::from_u128(writer));
        let (from, to) = ("{}".to_owned(), "{}".to_owned());
        let (tables, dropped, began, events) = Default::default();
        Plan { number, id, writer, from, to, tables, dropped, began, events }
    }

    #[tokio::test]
    async fn one_plan_per_number() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path().to_str().unwrap()).unwrap();
        let rounds = Rounds::new(&place, "n");
        assert_eq!(rounds.newest().await.unwrap(), None);
        rounds.write(&plan(1, 1)).await.unwrap();
        rounds.write(&plan(1, 1)).await.unwrap();
        let rival = rounds.write(&plan(1, 2)).await.unwrap_err();
        assert!(matches!(rival, PlanError::Fenced { number: 1, .. }), "{rival}");
        for number in 2..=KEPT + 5 {
            rounds.write(&plan(number, 1)).await.unwrap();
        }
        let asleep = rounds.write(&plan(3, 2)).await.unwrap_err();
        assert!(matches!(asleep, PlanError::Fenced { number, .. } if number == KEPT + 5), "{asleep}");
        assert_eq!(rounds.newest().await.unwrap(), Some(plan(KEPT + 5, 1)));
        place.put("n/_rounds/00000000000000000999.json", Bytes::from_static(b"{")).await.unwrap();
        assert!(matches!(rounds.newest().await.unwrap_err(), PlanError::Damaged { .. }));
    }
}
