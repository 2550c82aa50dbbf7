//! Versions of rows: records of change streams.
//!
//! *In*: an upsert as a plain event, a Debezium envelope, a tombstone with its key. *Out*: fates whose
//! admitted rows say what they change. *Never*: a before-image, but for the key of a row that is gone.

use std::collections::{BTreeMap, BTreeSet};

use super::admit::{Admitted, Change, ChangeOp, Fate, Raw, fields, judge, refused, typed};
use super::contract::{Contracts, Event};
use super::json::Json;
use super::val::Val;
use super::zone::MINUTE;

/// The event type whose rows end by a tombstone in the partitions of plain events: that of their topic.
pub const PLAIN: &str = "cdc.t";

/// The part of the delete that goes before an update that moves a row to another key.
pub const OLD_KEY: u32 = 1 << 31;

/// What stands in place of a large value that an update left as it was.
pub const LEFT_OUT: &str = "__debezium_unavailable_value";

/// The values that rows said last, by event type and key.
pub type Said = BTreeMap<(String, Vec<Val>), BTreeMap<String, Json>>;

/// The end of a row: no value, but the key of a topic whose event is a changelog.
pub fn tombstone(contracts: &Contracts, raw: &Raw) -> Fate {
    let event = contracts.event(PLAIN).filter(|event| event.changelog);
    match (event, &raw.key) {
        (Some(event), Some(_)) => delete(event, &key_of_record(event, raw), raw, 0, raw.received),
        _ => Fate::Skipped,
    }
}

/// The fates of a Debezium record; `said` is what the records before it said.
pub fn debezium(contracts: &Contracts, name: &str, raw: &Raw, said: &mut Said) -> Vec<Fate> {
    if raw.payload.is_empty() {
        // The marker behind a delete.
        return vec![Fate::Skipped];
    }
    let Some(json) = Json::parse(&raw.payload) else { return vec![refused(None, ["malformed_json"], [])] };
    let body = match json.at(&path(&["payload"])) {
        Some(body @ Json::Obj(_)) if json.at(&path(&["op"])).is_none() => body,
        _ => &json,
    };
    let event = contracts.event(name).expect("the event of a topic");
    let at = committed(body).unwrap_or(raw.received);
    let (before, after) = (body.at(&path(&["before"])), body.at(&path(&["after"])));
    let Some(Json::Str(op)) = body.at(&path(&["op"])) else { panic!("a change says its `op`") };
    match op.as_str() {
        "m" => vec![Fate::Skipped],
        "t" => {
            let cols = event.fields.iter().map(|field| (field.name.clone(), Val::Null)).collect();
            let change = Change { op: ChangeOp::Truncate, at };
            vec![admitted(event, raw, 0, None, at.min(latest(raw)), cols, change)]
        }
        "d" => {
            let key = before.and_then(|row| key_in(event, row)).unwrap_or_else(|| key_of_record(event, raw));
            said.remove(&(name.to_string(), key.clone()));
            vec![delete(event, &key, raw, 0, at)]
        }
        _ => {
            let after = after.expect("an upsert has a row");
            // What was there before we came is not new business.
            let time = if op == "r" { 0 } else { at };
            let (after, whole) = filled(event, after, said);
            let fate = upsert(event, &after, raw, 0, time, at);
            let mut fates = match (whole, fate) {
                (true, fate) => vec![fate],
                (false, Fate::Refused { event, reasons, more }) => {
                    let told = reasons.into_iter().chain(more).collect();
                    vec![refused(event, ["unavailable"], []).with_more(told)]
                }
                (false, _) => vec![refused(Some(event.name.clone()), ["unavailable"], [])],
            };
            let old = before.and_then(|row| key_in(event, row));
            if let Some(old) = old.filter(|old| key_in(event, &after).is_some_and(|new| new != *old)) {
                said.remove(&(name.to_string(), old.clone()));
                fates.push(delete(event, &old, raw, OLD_KEY, at));
            }
            fates
        }
    }
}

/// The row with what it left out; false where nobody knows that.
fn filled(event: &Event, row: &Json, said: &mut Said) -> (Json, bool) {
    let Json::Obj(entries) = row else { panic!("a row is an object") };
    let key = key_in(event, row).expect("a row has a key");
    let before = said.entry((event.name.clone(), key)).or_default();
    let mut entries = entries.clone();
    entries.retain_mut(|(name, value)| {
        if *value != Json::Str(LEFT_OUT.to_string()) {
            before.insert(name.clone(), value.clone());
            return true;
        }
        match before.get(name) {
            Some(known) => {
                *value = known.clone();
                true
            }
            None => false,
        }
    });
    let Json::Obj(told) = row else { panic!("a row is an object") };
    let whole = entries.len() == told.len();
    (Json::Obj(entries), whole)
}

/// A version of a row: the columns of `json`, `time` where its own field says none.
pub fn upsert(event: &Event, json: &Json, raw: &Raw, part: u32, time: i64, at: i64) -> Fate {
    let mut reasons = BTreeSet::new();
    let Some(mut cols) = fields(event, json, &mut reasons) else {
        return refused(None, ["malformed_json"], []);
    };
    if event.key.iter().any(|key| cols[key].is_null()) {
        reasons.insert("missing".to_string());
    }
    let time = match event.time.as_ref().map(|name| &cols[name]) {
        Some(Val::Ts(time)) => *time,
        _ => time,
    };
    let warned = match judge(event, &mut cols, Some(time), raw.received, reasons) {
        Ok(warned) => warned,
        Err(fate) => return fate,
    };
    let id = text(&event.key.iter().map(|key| cols[key].clone()).collect::<Vec<_>>());
    let change = Change { op: ChangeOp::Upsert, at };
    match admitted(event, raw, part, id, time, cols, change) {
        Fate::Admitted(row) => Fate::Admitted(Admitted { warned, ..row }),
        other => other,
    }
}

/// The end of a row that a plain event tells by its `op`.
pub fn gone(event: &Event, json: &Json, raw: &Raw, part: u32, at: i64) -> Fate {
    match key_in(event, json) {
        Some(key) => delete(event, &key, raw, part, at),
        None => refused(Some(event.name.clone()), ["missing"], []),
    }
}

fn delete(event: &Event, key: &[Val], raw: &Raw, part: u32, at: i64) -> Fate {
    let id = text(key);
    let mut cols: BTreeMap<String, Val> =
        event.fields.iter().map(|field| (field.name.clone(), Val::Null)).collect();
    cols.extend(event.key.iter().cloned().zip(key.iter().cloned()));
    let change = Change { op: ChangeOp::Delete, at };
    // The end of a row is not put off because a clock is wrong.
    let time = if at > latest(raw) { raw.received } else { at };
    admitted(event, raw, part, id, time, cols, change)
}

fn admitted(
    event: &Event,
    raw: &Raw,
    part: u32,
    id: Option<String>,
    time: i64,
    cols: BTreeMap<String, Val>,
    change: Change,
) -> Fate {
    Fate::Admitted(Admitted {
        place: (raw.partition, raw.offset, part),
        change: Some(change),
        event: event.name.clone(),
        time,
        id,
        received: raw.received,
        cols,
        warned: false,
    })
}

fn latest(raw: &Raw) -> i64 {
    raw.received + 5 * MINUTE
}

/// When the source committed, as finely as it says.
fn committed(body: &Json) -> Option<i64> {
    let number = |name: &str| match body.at(&path(&["source", name])) {
        Some(Json::Num(text)) => text.parse::<i64>().ok(),
        _ => None,
    };
    number("ts_us").or_else(|| Some(number("ts_ms")? * 1000)).filter(|at| *at > 0)
}

fn path(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_string()).collect()
}

/// The key in a row; none where a part is missing.
fn key_in(event: &Event, row: &Json) -> Option<Vec<Val>> {
    let part = |name: &String| {
        let field = event.fields.iter().find(|field| field.name == *name).expect("the key is a field");
        typed(row.at(&field.path)?, &field.ty)
    };
    event.key.iter().map(part).collect()
}

/// The key of the record: an object with the key's columns, or the bare value.
fn key_of_record(event: &Event, raw: &Raw) -> Vec<Val> {
    let bytes = raw.key.as_deref().expect("a delete without a row has a key");
    let json = Json::parse(bytes).unwrap_or_else(|| Json::Str(String::from_utf8_lossy(bytes).into_owned()));
    let key = match &json {
        Json::Obj(_) => key_in(event, &json),
        plain => {
            let name = &event.key[0];
            let field = event.fields.iter().find(|field| field.name == *name).expect("the key is a field");
            typed(plain, &field.ty).map(|key| vec![key])
        }
    };
    key.expect("a key of the declared type")
}

/// Parts are divided by `|`; one that is in a part has a backslash before it, and so has a backslash.
fn text(key: &[Val]) -> Option<String> {
    let part = |part: &Val| match part {
        Val::Null => None,
        Val::Text(text) => Some(text.clone()),
        Val::Int(number) => Some(number.to_string()),
        other => panic!("{other} is no key"),
    };
    match key {
        [only] => part(only),
        several => {
            let parts: Option<Vec<String>> = several.iter().map(part).collect();
            Some(
                parts?
                    .iter()
                    .map(|part| part.replace('\\', "\\\\").replace('|', "\\|"))
                    .collect::<Vec<_>>()
                    .join("|"),
            )
        }
    }
}
