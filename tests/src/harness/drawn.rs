//! What random cases were made of, counted: a number of cases alone proves little.
//!
//! *In*: cases as they pass, the roads they took. *Out*: a table of counts per kind of case. *Never*: a count taken
//! from the engine; what became of an event is what the oracle says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::envelope;
use super::run::Road;
use crate::generate::twist::Twist;
use crate::generate::{Case, kind};
use crate::oracle::Oracle;
use crate::oracle::admit::{Admitted, ChangeOp, Fate};
use crate::oracle::relation::Table;
use crate::oracle::val::Val;

/// Columns of the table, in this order.
const COLUMNS: [&str; 19] = [
    "cases",
    "events",
    "insert",
    "update",
    "delete",
    "truncate",
    "late",
    "duplicate",
    "refused",
    "correction",
    "roads",
    "reordered",
    "reversed",
    "doubled",
    "noise",
    "restart",
    "1 worker",
    "2 workers",
    "4 workers",
];

/// Counts by kind of case, then by column.
static DRAWN: Mutex<BTreeMap<&'static str, BTreeMap<&'static str, u64>>> = Mutex::new(BTreeMap::new());

/// Counts a case that went these roads.
pub fn note(case: &Case, roads: &[Road]) {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut count = |column: &'static str, n: u64| *counts.entry(column).or_default() += n;
    count("cases", 1);
    events(case, &mut count);
    for road in roads {
        count("roads", 1);
        count("reordered", u64::from(road.shuffle));
        count("restart", u64::from(road.resume > 0));
        match road.twist {
            Twist::Plain => {}
            Twist::Doubled => count("doubled", 1),
            Twist::Noise => count("noise", 1),
            Twist::Reversed => count("reversed", 1),
        }
        match road.workers {
            1 => count("1 worker", 1),
            2 => count("2 workers", 1),
            _ => count("4 workers", 1),
        }
    }
    let mut drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    let of_kind = drawn.entry(kind(case.seed)).or_default();
    counts.into_iter().for_each(|(column, n)| *of_kind.entry(column).or_default() += n);
}

fn events(case: &Case, count: &mut impl FnMut(&'static str, u64)) {
    let records = case.segments.iter().flat_map(|s| s.records.iter().map(|raw| (raw.clone(), s.clock)));
    let now = case.segments.last().map_or(case.start, |segment| segment.clock);
    let oracle = Oracle::new(&case.yaml, &envelope(), &records.collect::<Vec<_>>(), now);
    let mut latest: BTreeMap<&str, i64> = BTreeMap::new();
    // Rows of change streams that are there.
    let mut there: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut versions = BTreeSet::new();
    for (_, _, fate) in &oracle.fates {
        count("events", 1);
        let row = match fate {
            Fate::Admitted(row) => row,
            Fate::Duplicate { .. } => {
                count("duplicate", 1);
                continue;
            }
            Fate::Refused { .. } => {
                count("refused", 1);
                continue;
            }
            Fate::Skipped => continue,
        };
        let latest = latest.entry(&row.event).or_insert(i64::MIN);
        count("late", u64::from(row.time < *latest));
        *latest = row.time.max(*latest);
        let who = (row.event.as_str(), row.id.as_deref().unwrap_or_default());
        match row.change.map(|change| change.op) {
            None => count("insert", 1),
            Some(ChangeOp::Upsert) => count(if there.insert(who) { "insert" } else { "update" }, 1),
            Some(ChangeOp::Delete) => {
                there.remove(&who);
                count("delete", 1);
            }
            Some(ChangeOp::Truncate) => {
                there.retain(|(event, _)| *event != row.event);
                count("truncate", 1);
            }
        }
        let tables = oracle.contracts.tables.iter().filter(|table| table.event.as_ref() == Some(&row.event));
        let known = tables.filter(|table| !versions.insert(version(table, row))).count();
        count("correction", known as u64);
    }
}

/// What names a version of a table's row: another of that name corrects it.
fn version(table: &Table, row: &Admitted) -> (String, String, String) {
    let cell = |name: &String| row.cols.get(name).map(Val::to_string).unwrap_or_default();
    let from = match (&table.valid_from, row.change) {
        (Some(name), _) => cell(name),
        (None, None) => row.time.to_string(),
        (None, Some(_)) => String::new(),
    };
    (table.name.clone(), cell(&table.key), from)
}

/// All that was counted, one line per kind of case.
pub fn table() -> String {
    let drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = format!("{:<16}", "drawn");
    COLUMNS.iter().for_each(|column| text += &format!(" {column:>10}"));
    for (kind, counts) in drawn.iter() {
        text += &format!("\n{kind:<16}");
        COLUMNS.iter().for_each(|c| text += &format!(" {:>10}", counts.get(c).copied().unwrap_or_default()));
    }
    text
}
