//! Which rows count: refused with reasons, duplicate, or admitted.
//!
//! *In*: records as received, in arrival order. *Out*: one [`Fate`] per event. *Never*: a clock; only
//! event time and received time decide.

use std::collections::{BTreeMap, BTreeSet};

use super::contract::{Contracts, Event, Field, Ty};
use super::eval::Env;
use super::json::Json;
use super::num::Rat;
use super::val::Val;
use super::zone::{MINUTE, parse_date, parse_instant};

/// A record as it came.
#[derive(Debug, Clone)]
pub struct Raw {
    /// Which partition.
    pub partition: usize,
    /// Where in it.
    pub offset: i64,
    /// When, microseconds since the epoch.
    pub received: i64,
    /// The bytes.
    pub payload: Vec<u8>,
    /// The record's key, where it has one.
    pub key: Option<Vec<u8>>,
    /// The event type of a Debezium topic; none: an event with the envelope of the source.
    pub table: Option<String>,
}

/// Where an envelope keeps its parts; top-level keys.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Envelope {
    pub id: String,
    pub kind: String,
    pub time: String,
}

/// What became of an event.
#[derive(Debug, Clone)]
pub enum Fate {
    /// Counted.
    Admitted(Admitted),
    /// Dropped: other rows with its id count in its place.
    Duplicate {
        /// Event type.
        event: String,
    },
    /// An empty record: no event by design.
    Skipped,
    /// Refused.
    Refused {
        /// Event type, where it could be read.
        event: Option<String>,
        /// Reason codes that must be told.
        reasons: BTreeSet<String>,
        /// Reason codes of later steps, which may be told too.
        more: BTreeSet<String>,
    },
}

impl Fate {
    /// The same, with reasons that may be told too.
    pub(super) fn with_more(self, told: BTreeSet<String>) -> Fate {
        match self {
            Fate::Refused { event, reasons, mut more } => {
                more.extend(told);
                Fate::Refused { event, reasons, more }
            }
            other => other,
        }
    }
}

/// What a row of a changelog does to the row of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ChangeOp {
    Upsert,
    Delete,
    Truncate,
}

/// A change, and when it was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Change {
    pub op: ChangeOp,
    pub at: i64,
}

/// An admitted row.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Partition, offset, which event of its record.
    pub place: (usize, i64, u32),
    /// Of a changelog: what it does.
    pub change: Option<Change>,
    /// Event type.
    pub event: String,
    /// Event time.
    pub time: i64,
    /// Dedupe key and tie-break.
    pub id: Option<String>,
    /// When it was received.
    pub received: i64,
    /// Fields, `time`, enrich columns.
    pub cols: BTreeMap<String, Val>,
    /// It broke a rule of severity warning.
    pub warned: bool,
}

/// Admits records one after the other.
#[derive(Debug)]
pub struct Gate<'a> {
    contracts: &'a Contracts,
    envelope: &'a Envelope,
    /// Received times of rows that passed all checks, by event type and id.
    seen: BTreeMap<(String, String), Vec<i64>>,
    /// What rows of change streams said last.
    said: super::change::Said,
}

impl<'a> Gate<'a> {
    /// Nothing seen yet.
    pub fn new(contracts: &'a Contracts, envelope: &'a Envelope) -> Gate<'a> {
        Gate { contracts, envelope, seen: BTreeMap::new(), said: BTreeMap::new() }
    }

    /// The fates of a record's events: several when it holds an array.
    pub fn record(&mut self, raw: &Raw) -> Vec<Fate> {
        if let Some(name) = &raw.table {
            return super::change::debezium(self.contracts, name, raw, &mut self.said);
        }
        if raw.payload.is_empty() {
            return vec![super::change::tombstone(self.contracts, raw)];
        }
        match Json::parse(&raw.payload) {
            None => vec![refused(None, ["malformed_json"], [])],
            Some(Json::Arr(items)) => {
                items.iter().enumerate().map(|(part, item)| self.event(item, raw, part as u32)).collect()
            }
            Some(json) => vec![self.event(&json, raw, 0)],
        }
    }

    fn event(&mut self, json: &Json, raw: &Raw, part: u32) -> Fate {
        let received = raw.received;
        if !matches!(json, Json::Obj(_)) {
            return refused(None, ["malformed_json"], []);
        }
        let kind = match json.at(std::slice::from_ref(&self.envelope.kind)) {
            Some(Json::Str(kind)) => kind.clone(),
            None => return refused(None, ["missing"], []),
            Some(_) => return refused(None, ["wrong_type"], []),
        };
        let Some(event) = self.contracts.event(&kind) else {
            return refused(Some(kind), ["unknown_event_type"], []);
        };
        if let (true, Some(Json::Str(op))) = (event.changelog, json.at(&["op".to_string()]))
            && op == "d"
        {
            let at = json.at(std::slice::from_ref(&self.envelope.time)).and_then(|at| typed(at, &Ty::Ts));
            let at = if let Some(Val::Ts(at)) = at { at } else { received };
            return super::change::gone(event, json, raw, part, at);
        }
        let mut reasons = BTreeSet::new();
        let Some(mut cols) = fields(event, json, &mut reasons) else {
            return refused(None, ["malformed_json"], []).with_more(reasons);
        };
        let time = self.time(event, json, &cols, &mut reasons);
        if let (true, Some(time)) = (event.changelog, time) {
            return super::change::upsert(event, json, raw, part, time, received);
        }
        let id = self.id(event, json, &cols);
        let warned = match judge(event, &mut cols, time, received, reasons) {
            Ok(warned) => warned,
            Err(fate) => return fate,
        };
        let time = time.expect("a row without a time is refused");
        if self.is_duplicate(event, id.as_deref(), received) {
            return Fate::Duplicate { event: kind };
        }
        let place = (raw.partition, raw.offset, part);
        Fate::Admitted(Admitted { place, change: None, event: kind, time, id, received, cols, warned })
    }

    /// The event time; without one a reason is told.
    fn time(
        &self,
        event: &Event,
        json: &Json,
        cols: &BTreeMap<String, Val>,
        reasons: &mut BTreeSet<String>,
    ) -> Option<i64> {
        if let Some(name) = &event.time {
            let field = event.fields.iter().find(|field| field.name == *name).expect("`time` names a field");
            match &cols[name] {
                Val::Ts(time) => return Some(*time),
                // Refused for its value already; an absent one falls back to the envelope's.
                _ if json.at(&field.path).is_some() => return None,
                _ => {}
            }
        }
        let Some(value) = json.at(std::slice::from_ref(&self.envelope.time)) else {
            reasons.insert("missing".to_string());
            return None;
        };
        match typed(value, &Ty::Ts) {
            Some(Val::Ts(time)) => Some(time),
            _ => {
                reasons.insert("wrong_type".to_string());
                None
            }
        }
    }

    fn id(&self, event: &Event, json: &Json, cols: &BTreeMap<String, Val>) -> Option<String> {
        match event.id.as_ref().and_then(|name| cols.get(name)) {
            Some(Val::Text(id)) => Some(id.clone()),
            Some(Val::Int(id)) => Some(id.to_string()),
            _ => match json.at(std::slice::from_ref(&self.envelope.id)) {
                Some(Json::Str(id)) => Some(id.clone()),
                _ => None,
            },
        }
    }

    /// Can no more rows of that id be more than `dedupe` apart with this one than without it?
    fn is_duplicate(&mut self, event: &Event, id: Option<&str>, received: i64) -> bool {
        let (Some(id), true) = (id, event.dedupe > 0) else { return false };
        let seen = self.seen.entry((event.name.clone(), id.to_string())).or_default();
        let before = most_apart(seen, event.dedupe);
        seen.push(received);
        most_apart(seen, event.dedupe) == before
    }
}

/// How many of these instants can be chosen so that all are more than `apart` apart.
fn most_apart(times: &[i64], apart: i64) -> usize {
    let mut times = times.to_vec();
    times.sort_unstable();
    // The most that can be chosen of the first ones so that the last of them is chosen.
    let mut ending: Vec<usize> = Vec::new();
    for (i, time) in times.iter().enumerate() {
        let before = (0..i).filter(|&j| time - times[j] > apart).map(|j| ending[j]);
        ending.push(1 + before.max().unwrap_or(0));
    }
    ending.into_iter().max().unwrap_or(0)
}

/// The declared columns; none when one is there twice.
pub fn fields(event: &Event, json: &Json, reasons: &mut BTreeSet<String>) -> Option<BTreeMap<String, Val>> {
    let mut cols = BTreeMap::new();
    for field in &event.fields {
        if json.duplicated(&field.path) {
            reasons.insert("malformed_json".to_string());
        }
        let value = read(json.at(&field.path), field, reasons);
        cols.insert(field.name.clone(), value);
    }
    (!reasons.contains("malformed_json")).then_some(cols)
}

/// Time, computed columns and rules, after `reasons` were found in the fields. Whether a warning holds, or
/// how the row was refused.
pub fn judge(
    event: &Event,
    cols: &mut BTreeMap<String, Val>,
    time: Option<i64>,
    received: i64,
    reasons: BTreeSet<String>,
) -> Result<bool, Fate> {
    let kind = Some(event.name.clone());
    let late = late_reason(time, received);
    let Some(time) = time.filter(|_| reasons.is_empty()) else {
        return Err(Fate::Refused { event: kind, reasons, more: late });
    };
    if !late.is_empty() {
        let more = run(event, cols, time).0;
        return Err(Fate::Refused { event: kind, reasons: late, more });
    }
    let (reasons, warned) = run(event, cols, time);
    if reasons.is_empty() {
        return Ok(warned);
    }
    let (reasons, more) = if reasons.contains("evaluation") {
        (BTreeSet::from(["evaluation".to_string()]), reasons)
    } else {
        (reasons, BTreeSet::new())
    };
    Err(Fate::Refused { event: kind, reasons, more })
}

pub(super) fn refused<const N: usize, const M: usize>(
    event: Option<String>,
    reasons: [&str; N],
    more: [&str; M],
) -> Fate {
    Fate::Refused {
        event,
        reasons: reasons.into_iter().map(str::to_string).collect(),
        more: more.into_iter().map(str::to_string).collect(),
    }
}

fn late_reason(time: Option<i64>, received: i64) -> BTreeSet<String> {
    time.filter(|time| time - received > 5 * MINUTE)
        .map(|_| "time_in_future".to_string())
        .into_iter()
        .collect()
}

/// Enrich columns, then rules. Reason codes, and whether a warning holds.
fn run(event: &Event, cols: &mut BTreeMap<String, Val>, time: i64) -> (BTreeSet<String>, bool) {
    let mut reasons = BTreeSet::new();
    let mut warned = false;
    if event.time.as_deref() != Some("time") {
        cols.insert("time".to_string(), Val::Ts(time));
    }
    for (name, ex) in &event.enrich {
        let value = Env::plain(cols).eval(ex).unwrap_or_else(|_| {
            reasons.insert("evaluation".to_string());
            Val::Null
        });
        cols.insert(name.clone(), value);
    }
    for (name, check, refuses) in &event.rules {
        match Env::plain(cols).eval(check) {
            Ok(Val::Bool(false)) if *refuses => {
                reasons.insert(format!("rule:{name}"));
            }
            Ok(Val::Bool(false)) => warned = true,
            Ok(_) => {}
            Err(_) => {
                reasons.insert("evaluation".to_string());
            }
        }
    }
    (reasons, warned)
}

/// The value of a field; what is wrong with it goes to `reasons`.
fn read(json: Option<&Json>, field: &Field, reasons: &mut BTreeSet<String>) -> Val {
    let Some(json) = json.filter(|json| **json != Json::Null) else {
        let value = field.default.clone().unwrap_or(Val::Null);
        if field.required && value.is_null() {
            reasons.insert("missing".to_string());
        }
        return value;
    };
    let value = match (&field.ty, json) {
        (Ty::List(item), Json::Arr(items)) => {
            let items = items.iter().map(|json| read(Some(json), item, reasons)).collect();
            Val::List(items)
        }
        (Ty::Struct(fields), Json::Obj(_)) => {
            let mut entries = Vec::new();
            for field in fields {
                entries.push((field.name.clone(), read(json.at(&field.path), field, reasons)));
            }
            Val::Obj(entries)
        }
        (ty, json) => match typed(json, ty) {
            Some(value) => value,
            None => {
                reasons.insert("wrong_type".to_string());
                return Val::Null;
            }
        },
    };
    check(&value, field, reasons);
    value
}

/// A scalar in its declared type.
pub(super) fn typed(json: &Json, ty: &Ty) -> Option<Val> {
    match (ty, json) {
        (Ty::Text, Json::Str(text)) => Some(Val::Text(text.clone())),
        (Ty::Bool, Json::Bool(v)) => Some(Val::Bool(*v)),
        (Ty::Int, Json::Num(text)) if !text.contains(['.', 'e', 'E']) => text.parse().ok().map(Val::Int),
        (Ty::Float, Json::Num(text)) => text.parse().ok().map(Val::Float),
        (Ty::Dec(p, s), Json::Num(text) | Json::Str(text)) => {
            let unscaled = i128::try_from(Rat::parse(text)?.exact(*s)?).ok()?;
            (unscaled.unsigned_abs() < 10u128.pow(u32::from(*p))).then_some(Val::Dec(unscaled, *s))
        }
        (Ty::Ts, Json::Str(text)) => parse_instant(text).map(Val::Ts),
        (Ty::Ts, Json::Num(text)) if !text.contains(['.', 'e', 'E']) => {
            text.parse::<i64>().ok()?.checked_mul(1000).map(Val::Ts)
        }
        (Ty::Date, Json::Str(text)) => parse_date(text).map(Val::Date),
        (Ty::Json, json) => Some(Val::Text(format!("{json:?}"))),
        _ => None,
    }
}

fn check(value: &Val, field: &Field, reasons: &mut BTreeSet<String>) {
    let mut fail = |code: &str| {
        reasons.insert(code.to_string());
    };
    if field.min.as_ref().is_some_and(|min| value < min) {
        fail("min");
    }
    if field.max.as_ref().is_some_and(|max| value > max) {
        fail("max");
    }
    let length = match value {
        Val::Text(text) => Some(text.chars().count()),
        Val::List(items) => Some(items.len()),
        _ => None,
    };
    if let (Some(length), Some(min)) = (length, field.min_length)
        && length < min
    {
        fail("min_length");
    }
    if let (Some(length), Some(max)) = (length, field.max_length)
        && length > max
    {
        fail("max_length");
    }
    if let Val::Text(text) = value {
        if field.one_of.as_ref().is_some_and(|allowed| !allowed.contains(text)) {
            fail("not_in_enum");
        }
        if field.pattern.as_ref().is_some_and(|pattern| !pattern.is_match(text)) {
            fail("pattern");
        }
    }
}
