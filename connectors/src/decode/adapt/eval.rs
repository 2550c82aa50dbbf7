//! Values out of a delivery.
//!
//! *In*: a body, its headers, an expression. *Out*: a JSON value; null is "nothing". *Never*: an error: what
//! cannot be read as wanted stays as it was found, and the contract of the event refuses it by name.

use std::borrow::Cow;

use contracts::value::time::format_timestamp;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::path::{Path, Root};
use super::spec::{Adapter, Clause, Expr, Rule, Test, When};
use crate::decode::time;

/// Rules may call each other's `let` this deep.
const MAX_DEPTH: u32 = 32;

/// One delivery being read.
#[derive(Clone, Copy)]
pub(super) struct Delivery<'a> {
    adapter: &'a Adapter,
    body: &'a Value,
    item: &'a Value,
    headers: &'a [(&'a str, &'a [u8])],
    received: i64,
    /// The fields made so far, for [`Expr::Versioned`].
    made: Option<&'a Map<String, Value>>,
    depth: u32,
}

impl<'a> Delivery<'a> {
    pub(super) fn new(
        adapter: &'a Adapter,
        body: &'a Value,
        headers: &'a [(&'a str, &'a [u8])],
        received: i64,
    ) -> Self {
        Self { adapter, body, item: &Value::Null, headers, received, made: None, depth: 0 }
    }

    /// Adds the events that `rule` makes of the delivery.
    pub(super) fn emit(&self, rule: &'a Rule, events: &mut Vec<Map<String, Value>>) {
        let Some(each) = &rule.each else {
            events.push(self.event(rule));
            return;
        };
        let list = self.path(each);
        for item in list.as_array().into_iter().flatten() {
            let of_item = Delivery { item, ..*self };
            if of_item.holds(&rule.only) {
                events.push(of_item.event(rule));
            }
            if events.len() > super::MAX_EVENTS {
                return;
            }
        }
    }

    fn event(&self, rule: &'a Rule) -> Map<String, Value> {
        let mut made = Map::new();
        made.insert("event_type".to_owned(), Value::from(rule.emit.as_str()));
        let versioned = |expr: &Expr| matches!(expr, Expr::Versioned(_));
        for (name, expr) in &rule.fields {
            // The place of a versioned one is kept for when all others are known.
            let value = if versioned(expr) { Value::Null } else { self.value(expr).into_owned() };
            if versioned(expr) || !value.is_null() {
                made.insert(name.clone(), value);
            }
        }
        for (name, expr) in rule.fields.iter().filter(|(_, expr)| versioned(expr)) {
            let value = Delivery { made: Some(&made), ..*self }.value(expr).into_owned();
            made.insert(name.clone(), value);
        }
        made.retain(|_, value| !value.is_null());
        made
    }

    /// Whether any of the alternatives holds with all of its clauses.
    pub(super) fn holds(&self, when: &'a When) -> bool {
        when.0.is_empty() || when.0.iter().any(|all| all.iter().all(|clause| self.clause(clause)))
    }

    fn clause(&self, clause: &'a Clause) -> bool {
        let value = self.value(&clause.of);
        let any = |test: &dyn Fn(&str) -> bool| texts(&value).iter().any(|text| test(text));
        match &clause.test {
            Test::OneOf(words) => any(&|text| words.iter().any(|word| word == text)),
            Test::NoneOf(words) => !any(&|text| words.iter().any(|word| word == text)),
            Test::Present(wanted) => is_there(&value) == *wanted,
            Test::Matches(regex) => any(&|text| regex.is_match(text)),
        }
    }

    /// The text of a value; nothing for nothing, lists and objects.
    pub(super) fn text(&self, expr: &'a Expr) -> Option<String> {
        text(&self.value(expr)).map(Cow::into_owned)
    }

    fn path(&self, path: &'a Path) -> Cow<'a, Value> {
        match &path.root {
            Root::Body => path.find(self.body),
            Root::Item => path.find(self.item),
            Root::Received => Cow::Owned(Value::from(format_timestamp(self.received))),
            Root::Header(name) => Cow::Owned(match super::header(self.headers, name) {
                Some(value) => Value::from(String::from_utf8_lossy(value)),
                None => Value::Null,
            }),
        }
    }

    fn value(&self, expr: &'a Expr) -> Cow<'a, Value> {
        if self.depth > MAX_DEPTH {
            return Cow::Owned(Value::Null);
        }
        let inner = Delivery { depth: self.depth + 1, ..*self };
        let owned = match expr {
            Expr::Const(value) => return Cow::Borrowed(value),
            Expr::Path(path) => return self.path(path),
            Expr::Let(index) => return inner.value(&self.adapter.lets[*index]),
            Expr::First(all) => return inner.first(all),
            Expr::Time(of) => instant(inner.value(of)),
            Expr::Match { regex, of } => captured(regex, &inner.value(of)),
            Expr::Has { regex, of } => {
                Value::from(texts(&inner.value(of)).iter().any(|text| regex.is_match(text)))
            }
            Expr::Lower(of) => match inner.value(of).as_ref() {
                Value::String(text) => Value::from(text.to_lowercase()),
                other => other.clone(),
            },
            Expr::Map { of, table, otherwise } => return inner.mapped(of, table, otherwise.as_deref()),
            Expr::Join { parts, with } => inner.joined(parts, with),
            Expr::List { parts, without } => inner.list(parts, without.as_deref()),
            Expr::Number(of) => {
                inner.text(of).and_then(|text| text.parse::<i64>().ok()).map_or(Value::Null, Value::from)
            }
            Expr::Same(parts) => inner.same(parts),
            Expr::If { when, then, otherwise } => match (self.holds(when), otherwise) {
                (true, _) => return inner.value(then),
                (false, Some(otherwise)) => return inner.value(otherwise),
                (false, None) => Value::Null,
            },
            Expr::Sum(parts) => {
                inner.numbers(parts).map_or(Value::Null, |n| Value::from(n.iter().sum::<i64>()))
            }
            Expr::Minus(parts) => match inner.numbers(parts).as_deref() {
                Some([first, rest @ ..]) => {
                    Value::from(rest.iter().fold(*first, |left, right| left.saturating_sub(*right)))
                }
                _ => Value::Null,
            },
            Expr::Pad { of, to } => {
                inner.text(of).map_or(Value::Null, |text| Value::from(format!("{text:0>to$}")))
            }
            Expr::Versioned(of) => inner.versioned(of),
            Expr::Native(native) => (native.run)(self.body),
        };
        Cow::Owned(owned)
    }

    fn first(&self, all: &'a [Expr]) -> Cow<'a, Value> {
        all.iter()
            .map(|expr| self.value(expr))
            .find(|value| is_there(value))
            .unwrap_or(Cow::Owned(Value::Null))
    }

    fn mapped(
        &self,
        of: &'a Expr,
        table: &'a [(String, Value)],
        otherwise: Option<&'a Expr>,
    ) -> Cow<'a, Value> {
        let value = self.value(of);
        let Some(text) = text(&value) else { return Cow::Owned(Value::Null) };
        if let Some((_, value)) = table.iter().find(|(key, _)| key.eq_ignore_ascii_case(&text)) {
            return Cow::Borrowed(value);
        }
        otherwise.map_or(Cow::Owned(Value::Null), |expr| self.value(expr))
    }

    fn joined(&self, parts: &'a [Expr], with: &str) -> Value {
        let texts: Option<Vec<String>> = parts.iter().map(|part| self.text(part)).collect();
        texts.map_or(Value::Null, |texts| Value::from(texts.join(with)))
    }

    fn list(&self, parts: &'a [Expr], without: Option<&'a Expr>) -> Value {
        let out = without.map_or(Value::Null, |expr| self.value(expr).into_owned());
        let mut items = Vec::new();
        for part in parts {
            match self.value(part).into_owned() {
                Value::Null => {}
                Value::Array(more) => {
                    items.extend(more.into_iter().filter(|item| !item.is_null() && *item != out))
                }
                item if item == out => {}
                item => items.push(item),
            }
        }
        Value::Array(items)
    }

    fn same(&self, parts: &'a [Expr]) -> Value {
        let texts: Option<Vec<String>> = parts.iter().map(|part| self.text(part)).collect();
        texts.map_or(Value::Null, |texts| Value::from(texts.windows(2).all(|pair| pair[0] == pair[1])))
    }

    fn numbers(&self, parts: &'a [Expr]) -> Option<Vec<i64>> {
        parts.iter().map(|part| self.value(part).as_i64()).collect()
    }

    /// The text, `@`, and a digest of all fields made so far: the same content has the same id, whatever
    /// delivery brought it, and other content has another.
    fn versioned(&self, of: &'a Expr) -> Value {
        let (Some(text), Some(made)) = (self.text(of), self.made) else { return Value::Null };
        let mut fields: Vec<(&String, &Value)> = made.iter().filter(|(_, value)| !value.is_null()).collect();
        fields.sort_unstable_by_key(|(name, _)| *name);
        let mut digest = Sha256::new();
        for (name, value) in fields {
            digest.update(name.as_bytes());
            digest.update(b"\0");
            digest.update(value.to_string().as_bytes());
            digest.update(b"\0");
        }
        let hex: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Value::from(format!("{text}@{hex}"))
    }
}

/// Neither null nor an empty text.
fn is_there(value: &Value) -> bool {
    !matches!(value, Value::Null) && value.as_str() != Some("")
}

/// The text of a string, number or boolean.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) if !text.is_empty() => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
        _ => None,
    }
}

/// The texts of a list, or the one of anything else.
fn texts(value: &Value) -> Vec<Cow<'_, str>> {
    match value {
        Value::Array(items) => items.iter().filter_map(text).collect(),
        value => text(value).into_iter().collect(),
    }
}

/// The first group of the first match (the whole match of an expression without groups).
fn captured(regex: &regex::Regex, value: &Value) -> Value {
    let found = texts(value).iter().find_map(|text| {
        let groups = regex.captures(text)?;
        let group = groups.iter().skip(1).flatten().next().or_else(|| groups.get(0))?;
        Some(group.as_str().to_owned())
    });
    found.map_or(Value::Null, Value::from)
}

/// RFC 3339 of the times that tools write: RFC 3339 itself, `2021-04-28 21:50:00 +0200`, `2016-08-12
/// 15:23:28 UTC`, integers (or their text) in seconds, milliseconds, microseconds or nanoseconds since 1970,
/// told by their size. Anything else stays as it is.
fn instant(value: Cow<'_, Value>) -> Value {
    let micros = match value.as_ref() {
        // What tools write for "never".
        Value::Number(number) if number.as_f64() == Some(0.0) => return Value::Null,
        Value::Number(number) => match number.as_i64() {
            Some(number) => by_size(number),
            None => number.as_f64().and_then(fraction),
        },
        Value::String(text) => match text.parse::<i64>() {
            Ok(number) => by_size(number),
            Err(_) => written(text),
        },
        _ => None,
    };
    micros.map_or_else(|| value.into_owned(), |micros| Value::from(format_timestamp(micros)))
}

fn written(text: &str) -> Option<i64> {
    let text = text.trim();
    let text = text.strip_suffix(" UTC").or_else(|| text.strip_suffix(" Z")).unwrap_or(text);
    let (head, tail) = text.split_at_checked(19)?;
    // An offset may stand apart.
    time::instant([head, &tail.replace(' ', "")].concat().as_bytes())
}

/// 10^11 seconds are the year 5138, 10^11 milliseconds are 1973: no tool means either.
fn by_size(number: i64) -> Option<i64> {
    const LIMIT: u64 = 100_000_000_000;
    let size = number.unsigned_abs();
    let micros = match size {
        _ if size < LIMIT => number.checked_mul(1_000_000)?,
        _ if size < LIMIT * 1_000 => number.checked_mul(1_000)?,
        _ if size < LIMIT * 1_000_000 => number,
        _ => number / 1_000,
    };
    time::millis(micros.div_euclid(1_000)).map(|_| micros)
}

/// Seconds with a fraction.
fn fraction(seconds: f64) -> Option<i64> {
    let fits = seconds.is_finite() && seconds.abs() < 100_000_000_000.0;
    fits.then_some((seconds * 1_000_000.0).round() as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_times_that_tools_write() {
        let at = |value: Value| instant(Cow::Owned(value));
        for written in [
            json!("2021-04-28T19:50:00Z"),
            json!("2021-04-28 21:50:00 +0200"),
            json!("2021-04-28 19:50:00 UTC"),
            json!("2021-04-28T21:50:00.000+0200"),
            json!("2021-04-28T15:50:00-04:00"),
            json!(1_619_639_400),
            json!("1619639400"),
            json!(1_619_639_400_000_i64),
            json!(1_619_639_400_000_000_i64),
            json!(1_619_639_400_000_000_000_i64),
            json!(1_619_639_400.0),
        ] {
            assert_eq!(at(written.clone()), "2021-04-28T19:50:00Z", "{written}");
        }
        for other in [json!("yesterday"), json!(true), json!(null), json!({}), json!(1e300)] {
            assert_eq!(at(other.clone()), other);
        }
        assert_eq!(at(json!(0)), Value::Null);
    }
}
