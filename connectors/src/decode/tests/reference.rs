//! A second decoder, as plain as possible: `serde_json` for every question of structure, one value tree
//! per event, text in, text out.
//!
//! *In*: a record, the catalog of [`super::helper::commerce`], its envelope. *Out*: per event a row as
//! [`super::helper::row`] shows it and its id, or the reasons. *Never*: code of the real decoder.

use std::sync::LazyLock;

use contracts::Catalog;
use contracts::catalog::{Checks, Event, Field, NestedField};
use contracts::value::{FieldType, Value};
use regex::Regex;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::helper::NOW;

/// What became of one event.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Row { event: usize, row: String, id: Option<String> },
    Refused(String),
    Skipped,
}

struct Node {
    raw: String,
    is: Is,
}

enum Is {
    Null,
    Bool(bool),
    Number,
    Text(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        from.deserialize_map(Collect)
    }
}

fn node(raw: &RawValue) -> Node {
    let text = raw.get();
    let is = match text.as_bytes()[0] {
        b'n' => Is::Null,
        b't' => Is::Bool(true),
        b'f' => Is::Bool(false),
        b'"' => Is::Text(serde_json::from_str(text).unwrap()),
        b'[' => {
            let items: Vec<Box<RawValue>> = serde_json::from_str(text).unwrap();
            Is::Array(items.iter().map(|item| node(item)).collect())
        }
        b'{' => {
            let pairs: Pairs = serde_json::from_str(text).unwrap();
            Is::Object(pairs.0.into_iter().map(|(key, value)| (key, node(&value))).collect())
        }
        _ => Is::Number,
    };
    Node { raw: text.to_owned(), is }
}

/// All events of a record.
pub(super) fn decode(record: &[u8], catalog: &Catalog) -> Vec<Outcome> {
    let malformed = || vec![Outcome::Refused("malformed_json".to_owned())];
    if record.is_empty() {
        return vec![Outcome::Skipped];
    }
    if serde_json::from_slice::<serde_json::Value>(record).is_err() {
        return malformed();
    }
    let whole = node(&serde_json::from_slice::<Box<RawValue>>(record).unwrap());
    match &whole.is {
        Is::Object(_) => vec![event(&whole, catalog)],
        Is::Array(items) if items.is_empty() => vec![Outcome::Skipped],
        Is::Array(items) => items
            .iter()
            .map(|item| match item.is {
                Is::Object(_) => event(item, catalog),
                _ => malformed().remove(0),
            })
            .collect(),
        _ => malformed(),
    }
}

/// The node at a path, and whether one of its keys comes twice.
fn find<'n>(from: &'n Node, path: &[&str]) -> (Option<&'n Node>, bool) {
    let [key, rest @ ..] = path else { return (Some(from), false) };
    let Is::Object(pairs) = &from.is else { return (None, false) };
    let mut found = pairs.iter().filter(|(name, _)| name == key);
    let Some((_, first)) = found.next() else { return (None, false) };
    let twice = found.next().is_some();
    let (node, below) = find(first, rest);
    (node, twice || below)
}

fn some(node: Option<&Node>) -> Option<&Node> {
    node.filter(|node| !matches!(node.is, Is::Null))
}

fn event(of: &Node, catalog: &Catalog) -> Outcome {
    for key in ["event_type", "event_id", "timestamp"] {
        if find(of, &[key]).1 {
            return Outcome::Refused(format!("malformed_json {key}"));
        }
    }
    let name = match some(find(of, &["event_type"]).0) {
        None => return Outcome::Refused("missing event_type".to_owned()),
        Some(Node { is: Is::Text(text), .. }) => text,
        Some(_) => return Outcome::Refused("wrong_type event_type".to_owned()),
    };
    let Some(index) = catalog.events.iter().position(|event| event.head.name == *name) else {
        return Outcome::Refused("unknown_event_type event_type".to_owned());
    };
    let contract = &catalog.events[index];
    for field in &contract.fields {
        let path: Vec<&str> = field.path.iter().map(String::as_str).collect();
        if find(of, &path).1 {
            return Outcome::Refused(format!("malformed_json {}", field.path.join(".")));
        }
    }
    row(of, index, contract)
}

fn row(of: &Node, index: usize, contract: &Event) -> Outcome {
    let mut reasons = Vec::new();
    let mut cells = Vec::new();
    for field in &contract.fields {
        let path: Vec<&str> = field.path.iter().map(String::as_str).collect();
        let place = field.path.join(".");
        if let Some(cell) = top(some(find(of, &path).0), field, &place, &mut reasons) {
            cells.push(format!("{}={cell}", field.name));
        }
    }
    // Both contracts have their event time at `timestamp`.
    let time = some(find(of, &["timestamp"]).0);
    let declared = contract.time.is_some();
    match time.map(instant) {
        None if !declared => reasons.push("missing timestamp".to_owned()),
        Some(None) if !declared => reasons.push("wrong_type timestamp".to_owned()),
        None | Some(None) => {}
        Some(Some(micros)) => {
            if micros > NOW + 300_000_000 {
                reasons.push("time_in_future timestamp".to_owned());
            }
            cells.push(format!("time={micros}"));
        }
    }
    let id = match some(find(of, &["event_id"]).0) {
        None => None,
        Some(Node { is: Is::Text(text), .. }) => Some(text.clone()),
        Some(Node { is: Is::Number, raw }) if !raw.contains(['.', 'e', 'E']) => Some(raw.clone()),
        Some(_) => {
            if !declared {
                reasons.push("wrong_type event_id".to_owned());
            }
            None
        }
    };
    if reasons.is_empty() {
        Outcome::Row { event: index, row: cells.join(" "), id }
    } else {
        Outcome::Refused(reasons.join("; "))
    }
}

fn top(node: Option<&Node>, field: &Field, place: &str, reasons: &mut Vec<String>) -> Option<String> {
    let Some(node) = node else {
        return match &field.default {
            Some(Value::Text(text)) => Some(text.to_string()),
            Some(other) => panic!("no such default in the catalog: {other:?}"),
            None if field.required => {
                reasons.push(format!("missing {place}"));
                None
            }
            None => None,
        };
    };
    value(node, &field.ty, &field.checks, &field.nested, "", place, reasons)
}

fn value(
    node: &Node,
    ty: &FieldType,
    checks: &Checks,
    nested: &[NestedField],
    below: &str,
    place: &str,
    reasons: &mut Vec<String>,
) -> Option<String> {
    let wrong = |reasons: &mut Vec<String>| {
        reasons.push(format!("wrong_type {place}"));
        None
    };
    match (ty, &node.is) {
        (_, Is::Null) => None,
        (FieldType::Json, _) => Some(node.raw.clone()),
        (FieldType::String, Is::Text(text)) => {
            if checks.one_of.as_ref().is_some_and(|list| !list.contains(text)) {
                reasons.push(format!("not_in_enum {place}"));
            }
            static ORDER: LazyLock<Regex> = LazyLock::new(|| Regex::new("^ORD-[0-9]{8}-[0-9]{4,}$").unwrap());
            if checks.pattern.as_ref().is_some_and(|p| p == ORDER.as_str() && !ORDER.is_match(text)) {
                reasons.push(format!("pattern {place}"));
            }
            Some(text.clone())
        }
        (FieldType::Bool, Is::Bool(value)) => Some(value.to_string()),
        (FieldType::Int, Is::Number) => match node.raw.parse::<i64>() {
            Ok(value) => {
                bounds(value.into(), 0, checks, place, reasons);
                Some(value.to_string())
            }
            Err(_) => wrong(reasons),
        },
        (FieldType::Float, Is::Number) => {
            // serde_json rounds less well near the largest float and lets a few infinities through.
            let value: f64 = node.raw.parse().unwrap();
            if value.is_finite() { Some(format!("{value:?}")) } else { wrong(reasons) }
        }
        (FieldType::Decimal { precision, scale }, Is::Number | Is::Text(_)) => {
            let text = match &node.is {
                Is::Text(text) => text,
                _ => &node.raw,
            };
            match decimal(text, *precision as usize, *scale as usize) {
                Some(value) => {
                    bounds(value, *scale as usize, checks, place, reasons);
                    Some(value.to_string())
                }
                None => wrong(reasons),
            }
        }
        (FieldType::Timestamp, _) => match instant(node) {
            Some(micros) => Some(micros.to_string()),
            None => wrong(reasons),
        },
        (FieldType::Date, Is::Text(text)) if text.len() == 10 => match text.parse::<jiff::civil::Date>() {
            Ok(date) => {
                let epoch = jiff::civil::date(1970, 1, 1);
                Some((date - epoch).get_days().to_string())
            }
            Err(_) => wrong(reasons),
        },
        (FieldType::List(item), Is::Array(items)) => {
            let mut cells = Vec::new();
            for (i, node) in items.iter().enumerate() {
                let place = format!("{place}[{i}]");
                let cell = value(node, item, &Checks::default(), nested, below, &place, reasons);
                cells.push(cell.unwrap_or_else(|| "null".to_owned()));
            }
            if checks.max_length.is_some_and(|max| items.len() as u64 > max) {
                reasons.push(format!("max_length {place}"));
            }
            Some(format!("[{}]", cells.join(",")))
        }
        (FieldType::Struct(fields), Is::Object(_)) => {
            let mut cells = Vec::new();
            for (name, ty) in fields {
                let (below, place) = (format!("{below}.{name}"), format!("{place}.{name}"));
                let rule = nested.iter().find(|n| format!(".{}", n.path.join(".")) == below);
                let (found, twice) = find(node, &[name]);
                if twice {
                    reasons.push(format!("malformed_json {place}"));
                }
                let found = some(found);
                if found.is_none() && rule.is_some_and(|rule| rule.required) {
                    reasons.push(format!("missing {place}"));
                }
                let checks = rule.map(|rule| rule.checks.clone()).unwrap_or_default();
                let cell = found.and_then(|node| value(node, ty, &checks, nested, &below, &place, reasons));
                cells.push(format!("{name}:{}", cell.unwrap_or_else(|| "null".to_owned())));
            }
            Some(format!("{{{}}}", cells.join(",")))
        }
        _ => wrong(reasons),
    }
}

fn bounds(value: i128, scale: usize, checks: &Checks, place: &str, reasons: &mut Vec<String>) {
    let bound = |bound: &Option<Value>| match bound {
        Some(Value::Int(bound)) => Some(i128::from(*bound) * 10i128.pow(scale as u32)),
        Some(Value::Decimal(bound, has)) if *has as usize == scale => Some(*bound),
        None => None,
        Some(other) => panic!("no such bound in the catalog: {other:?}"),
    };
    if bound(&checks.min).is_some_and(|min| value < min) {
        reasons.push(format!("min {place}"));
    }
    if bound(&checks.max).is_some_and(|max| value > max) {
        reasons.push(format!("max {place}"));
    }
}

/// By moving the point in the text.
fn decimal(text: &str, precision: usize, scale: usize) -> Option<i128> {
    let number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit())
        && (serde_json::from_str::<IgnoredAny>(text).is_ok());
    if !number {
        return None;
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().unwrap_or(i64::MAX)),
        None => (text, 0),
    };
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.bytes().all(|b| b == b'0') {
        return Some(0);
    }
    let point = whole.len() as i64 + exponent.clamp(-5000, 5000);
    let (mut whole, mut fraction) = if point <= 0 {
        (String::new(), format!("{}{digits}", "0".repeat(-point as usize)))
    } else if point as usize >= digits.len() {
        (format!("{digits}{}", "0".repeat(point as usize - digits.len())), String::new())
    } else {
        let (whole, fraction) = digits.split_at(point as usize);
        (whole.to_owned(), fraction.to_owned())
    };
    whole = whole.trim_start_matches('0').to_owned();
    fraction = fraction.trim_end_matches('0').to_owned();
    if fraction.len() > scale || whole.len() > precision - scale {
        return None;
    }
    format!("{sign}{whole}{fraction:0<scale$}").parse().ok()
}

fn instant(node: &Node) -> Option<i64> {
    static RFC: LazyLock<Regex> = LazyLock::new(|| {
        let date = r"^([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})";
        Regex::new(&format!(r"{date}(?:\.([0-9]+))?(?:[Zz]|([+-])([0-9]{{2}}):?([0-9]{{2}})?)?$")).unwrap()
    });
    let micros = match &node.is {
        Is::Number => node.raw.parse::<i64>().ok()?.checked_mul(1000)?,
        Is::Text(text) => {
            let parts = RFC.captures(text)?;
            if text.ends_with(':') {
                return None;
            }
            let n = |i: usize| parts.get(i).map_or(0, |part| part.as_str().parse::<i16>().unwrap());
            let date = jiff::civil::Date::new(n(1), n(2) as i8, n(3) as i8).ok()?;
            if n(6) > 60 || n(9) > 23 || n(10) > 59 {
                return None;
            }
            let time = jiff::civil::Time::new(n(4) as i8, n(5) as i8, n(6).min(59) as i8, 0).ok()?;
            let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
            let utc = date.to_datetime(time).duration_since(epoch);
            let fraction = format!("{:0<6}", parts.get(7).map_or("", |part| part.as_str()));
            let east = i64::from(n(9)) * 3600 + i64::from(n(10)) * 60;
            let east = if parts.get(8).is_some_and(|sign| sign.as_str() == "-") { -east } else { east };
            (utc.as_secs() - east) * 1_000_000 + fraction[..6].parse::<i64>().unwrap()
        }
        _ => return None,
    };
    let year_zero: jiff::Timestamp = "0000-01-01T00:00:00Z".parse().unwrap();
    let year_10_000 = i64::from(365 * 10_000 + 2_425) * 86_400_000_000;
    let range = year_zero.as_microsecond()..year_zero.as_microsecond() + year_10_000;
    range.contains(&micros).then_some(micros)
}
