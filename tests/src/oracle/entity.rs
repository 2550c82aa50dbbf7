//! Live rows.
//!
//! *In*: admitted rows and an instant. *Out*: one row per key, as of the instant. *Never*: a row
//! carried over from an earlier answer.

use std::collections::{BTreeMap, BTreeSet};

use super::Oracle;
use super::admit::Admitted;
use super::contract::{Contracts, Entity, EntityField};
use super::eval::Env;
use super::fold::{Agg, Item, fold};
use super::sql::Ex;
use super::val::Val;

/// The row of one key.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityRow {
    /// Field to value, in contract order.
    pub fields: Vec<(String, Val)>,
    /// Earliest event time.
    pub first: i64,
    /// Latest event time.
    pub last: i64,
    /// Events behind it.
    pub events: u64,
}

/// All rows from the events with time < `t`; of a change stream, from the rows that it has now.
pub fn rows(oracle: &Oracle, entity: &Entity, t: i64) -> BTreeMap<String, EntityRow> {
    let mut by_key: BTreeMap<String, Vec<&Admitted>> = BTreeMap::new();
    let contracts = &oracle.contracts;
    let counts = |name: &String| {
        let event = contracts.event(name).expect("an event of the contracts");
        if event.changelog {
            super::rows::current(oracle, event, oracle.now)
        } else {
            (0..oracle.admitted.len()).filter(|&at| oracle.admitted[at].event == *name).collect()
        }
    };
    let known = entity.events.iter().flat_map(counts).map(|at| &oracle.admitted[at]);
    for row in known.filter(|row| row.time < t) {
        let key = Env::plain(&row.cols).eval(&entity.key).expect("a key has a value");
        let key = match key {
            Val::Null => continue,
            Val::Text(key) => key,
            Val::Int(key) => key.to_string(),
            other => panic!("{other} is no key"),
        };
        by_key.entry(key).or_default().push(row);
    }
    by_key.into_iter().map(|(key, rows)| (key, row(contracts, entity, &rows))).collect()
}

fn row(contracts: &Contracts, entity: &Entity, rows: &[&Admitted]) -> EntityRow {
    let times = rows.iter().map(|row| row.time);
    EntityRow {
        fields: entity.fields.iter().map(|f| (f.name.clone(), value(contracts, f, rows))).collect(),
        first: times.clone().min().expect("a key has rows"),
        last: times.max().expect("a key has rows"),
        events: rows.len() as u64,
    }
}

fn value(contracts: &Contracts, field: &EntityField, rows: &[&Admitted]) -> Val {
    let mut items = Vec::new();
    for row in rows {
        if field.events.as_ref().is_some_and(|events| !events.contains(&row.event)) {
            continue;
        }
        let value = match &field.ex {
            Some(ex) if !reads(contracts, &row.event, ex) => continue,
            Some(ex) => Env::plain(&row.cols).eval(ex).expect("a field has a value"),
            None => Val::Bool(true),
        };
        if !value.is_null() {
            items.push(Item { time: row.time, id: row.id.clone(), value });
        }
    }
    let agg = match field.fold.as_str() {
        "first" => Agg::First,
        "last" => Agg::Last,
        "count" => Agg::Count,
        "sum" => Agg::Sum,
        "min" => Agg::Min,
        "max" => Agg::Max,
        _ => {
            let set: BTreeSet<Val> = items.into_iter().map(|item| item.value).collect();
            return Val::List(set.into_iter().collect());
        }
    };
    fold(&agg, &items, true, None)
}

/// Does the event type have every column of the expression?
fn reads(contracts: &Contracts, event: &str, ex: &Ex) -> bool {
    let event = contracts.event(event).expect("an event of the contracts");
    let mut columns = Vec::new();
    ex.columns(&mut columns);
    columns.iter().all(|name| {
        name == "time"
            || event.fields.iter().any(|f| f.name == *name)
            || event.enrich.iter().any(|(n, _)| n == name)
    })
}
