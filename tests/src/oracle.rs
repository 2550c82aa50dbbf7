//! The naive oracle: every answer recomputed from the raw events, slowly and exactly.
//!
//! *In*: contract YAML and records in arrival order. *Out*: fates, counters, metrics at any instant,
//! entities. *Never*: a line of `contracts`, `operators` or `engine` logic: it is written from
//! docs/reference/semantics.md alone, so that a mistake on either side shows.
//!
//! Where that page is silent the oracle chooses; each choice is listed in [`CHOICES`].

pub mod admit;
pub mod change;
pub mod contract;
pub mod entity;
pub mod eval;
pub mod fold;
pub mod json;
pub mod metric;
pub mod num;
pub mod relation;
pub mod rows;
pub mod sequence;
pub mod ships;
pub mod sql;
pub mod val;
pub mod window;
pub mod yaml;
pub mod zone;

use std::collections::BTreeMap;

use admit::{Admitted, Envelope, Fate, Gate, Raw};
use contract::Contracts;
pub use metric::{Answer, View};
pub use val::Val;

/// How the oracle reads what semantics.md leaves open.
pub const CHOICES: &[&str] = &[
    "rows alike in event time and id: `first` takes the lesser value, `last` the greater; no id sorts before any id",
    "a null dimension value takes a place among the `max` like any other",
    "`first` and `last` of entity rows alike in time go by the key",
    "an event refused as malformed_json counts under no type, even if its type could be read",
    "an hour of `to_date: hour` is an hour at the offset in force: the repeated hour of autumn is two hours",
    "days of `tumbling: 14d` and longer multiples of 7 count from Monday 1969-12-29",
    "an operand of `ratio` and `expr` is the measure as shown: after `type` and `empty`",
    "AND, OR, CASE and coalesce evaluate from the left and stop as soon as the result is known",
    "a float division by zero fails like an integer one",
    "decimal division in expressions has the left scale plus 4 digits, cut; only `ratio` rounds",
    "reasons of later steps (time_in_future after field checks, rules after both) need not be told",
    "with `join`, the joined rows are rows of the metric even if no measure folds them",
    "a bare column name in a joined row is that of the one alias that has it",
    "a table is looked up for rows that have the alias or table its `match` names; for others it is null, whatever `missing` says",
    "a row whose side of a join's equality is null is unmatched at once",
    "`ships`: a deployment without a commit is none of its line; a null line is a line; cold start is asked before `within`",
    "partners alike in time and id go by event type, then by partition, offset and part; rows of change streams by their key alone",
    "a version of a table's change stream holds where it is the newest of those whose time has come; versions alike in time go by the key of the stream",
    "versions of a row come in the order of offsets, whatever their event times; a version ahead of the clock waits like any event",
    "rows of a change stream are not deduplicated, and their id is the text of their key",
    "the key of a row is one of its event type and partition: types under one alias do not share rows",
    "a truncate takes away what stands before it in its partition, and in others what was committed no later",
    "a version that is refused leaves the one before",
    "without a declared `valid_from`, a table's row is named by its key and the time of its event: history is kept",
    "a row of a table without a key, or whose declared `valid_from` is null, is none; a date means its midnight in UTC",
    "the newest of a table's rows of one name is the one with the greatest offset within a partition",
    "rows of a sequence, as joined rows, stand beside those of aliases that a measure is `of`; both are looked up",
    "a row that opened an interval names it, one that closed a key names its item; `first` and `last` go by their ids",
    "the row that closes an interval counts for `entered`, those after it at the same instant do not",
    "`valid_from` and `valid_to` both select before the greatest `valid_from` is taken; `as_of: now` looks at neither",
    "a Debezium snapshot (`r`) without a time of its own is at 1970-01-01",
    "an update of the key ends the row of the old key",
    "an entity folds the rows that its change streams have now, each as an event at the row's time with the key as its id; who has none left has no row",
    "a value that Debezium left out is what the record before it of that row in the partition said, refused or not",
];

/// Numbers of events by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Tally {
    pub received: u64,
    pub admitted: u64,
    pub refused: u64,
    pub duplicate: u64,
    pub warned: u64,
    pub skipped: u64,
}

/// Contracts and everything that was received.
pub struct Oracle {
    /// What it knows.
    pub contracts: Contracts,
    /// Fates in arrival order, with the record each belongs to.
    pub fates: Vec<(Raw, u32, Fate)>,
    /// Admitted rows in arrival order.
    pub admitted: Vec<Admitted>,
    /// The clock when each admitted row arrived: corrections reach back from there.
    pub clocks: Vec<i64>,
    /// The clock now.
    pub now: i64,
    /// Whether a metric over an entity, asked about the past, sees today's rows.
    pub entities_as_now: bool,
}

impl Oracle {
    /// Recomputes everything from `records`: arrival order, each with the clock it arrived at.
    pub fn new(yaml: &str, envelope: &Envelope, records: &[(Raw, i64)], now: i64) -> Oracle {
        let contracts = Contracts::read(yaml);
        let mut fates = Vec::new();
        let mut admitted = Vec::new();
        let mut clocks = Vec::new();
        let mut gate = Gate::new(&contracts, envelope);
        for (raw, clock) in records {
            for (part, fate) in gate.record(raw).into_iter().enumerate() {
                if let Fate::Admitted(row) = &fate {
                    admitted.push(row.clone());
                    clocks.push(*clock);
                }
                fates.push((raw.clone(), part as u32, fate));
            }
        }
        Oracle { contracts, fates, admitted, clocks, now, entities_as_now: false }
    }

    /// The instant whose entity rows a metric sees at `t`.
    fn entity_instant(&self, t: i64) -> i64 {
        if self.entities_as_now { self.now } else { t }
    }

    /// Counters by event type; refused events without a known type are under "".
    pub fn tallies(&self) -> BTreeMap<String, Tally> {
        let mut all: BTreeMap<String, Tally> = BTreeMap::new();
        for (_, _, fate) in &self.fates {
            let known = |name: &String| self.contracts.event(name).is_some();
            let name = match fate {
                Fate::Admitted(row) => row.event.clone(),
                Fate::Duplicate { event } => event.clone(),
                Fate::Skipped => String::new(),
                Fate::Refused { event, .. } => event.clone().filter(known).unwrap_or_default(),
            };
            let tally = all.entry(name).or_default();
            tally.received += 1;
            match fate {
                Fate::Admitted(row) => {
                    tally.admitted += 1;
                    tally.warned += u64::from(row.warned);
                }
                Fate::Duplicate { .. } => tally.duplicate += 1,
                Fate::Refused { .. } => tally.refused += 1,
                Fate::Skipped => tally.skipped += 1,
            }
        }
        all
    }

    /// The rows of an entity as of `t`.
    pub fn entity(&self, name: &str, t: i64) -> BTreeMap<String, entity::EntityRow> {
        let entity = self.contracts.entities.iter().find(|e| e.name == name).expect("an entity");
        entity::rows(self, entity, t)
    }
}

#[cfg(test)]
mod tests;
