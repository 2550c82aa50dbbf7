//! Paths into a delivery: `pull_request.head.sha`, `labels[].name`, `header.x-github-event`.
//!
//! *In*: the text of a path, once; a delivery, often. *Out*: what stands there. *Never*: a failure because
//! something is not there, a path taken apart twice.

use std::borrow::Cow;

use serde_json::Value;

/// Where a path starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Root {
    Body,
    /// The item of `each`.
    Item,
    /// A header, in lower case.
    Header(String),
    /// When the delivery was received.
    Received,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    /// From the end when negative.
    Index(i64),
    /// Every item.
    All,
    /// The first object in an object, whatever its key.
    Any,
}

/// See the module's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) root: Root,
    steps: Vec<Step>,
}

impl Path {
    /// Reads `a.b`, `a[0]`, `a[-1]`, `a[].b`, `'a key.with dots'.b`, `*.b`, `item.a`, `header.NAME`, `received`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("header.") {
            if name.is_empty() {
                return Err("a header needs a name, like `header.x-github-event`".to_owned());
            }
            return Ok(Self { root: Root::Header(name.to_ascii_lowercase()), steps: Vec::new() });
        }
        if text == "received" {
            return Ok(Self { root: Root::Received, steps: Vec::new() });
        }
        let mut steps = steps(text)?;
        let root = match steps.first() {
            Some(Step::Key(key)) if key == "item" => {
                steps.remove(0);
                Root::Item
            }
            _ => Root::Body,
        };
        Ok(Self { root, steps })
    }

    /// What stands there, below `from`; null when there is nothing. `[]` gives a list.
    pub(super) fn find<'a>(&self, from: &'a Value) -> Cow<'a, Value> {
        walk(&self.steps, from)
    }
}

fn steps(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = text;
    loop {
        rest = if let Some(quoted) = rest.strip_prefix('\'') {
            let (key, after) = quoted.split_once('\'').ok_or("a quote is not closed")?;
            steps.push(Step::Key(key.to_owned()));
            after
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (key, after) = rest.split_at(end);
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-$@:/".contains(c);
            if key == "*" {
                steps.push(Step::Any);
                rest = after;
                rest = match rest.strip_prefix('.') {
                    Some(after) => after,
                    None if rest.is_empty() => return Ok(steps),
                    None => return Err("after `*` a `.` is needed".to_owned()),
                };
                continue;
            }
            if key.is_empty() || !key.chars().all(plain) {
                return Err(format!(
                    "`{key}` is not a key: letters, digits, `_`, `-` stand plain, anything else in single quotes"
                ));
            }
            steps.push(Step::Key(key.to_owned()));
            after
        };
        while let Some(inside) = rest.strip_prefix('[') {
            let (index, after) = inside.split_once(']').ok_or("a `[` is not closed")?;
            steps.push(match index {
                "" => Step::All,
                index => Step::Index(index.parse().map_err(|_| format!("`[{index}]` is not an index"))?),
            });
            rest = after;
        }
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Ok(steps),
            None => return Err(format!("`{rest}` after a key: a `.` or `[` is needed")),
        }
    }
}

fn walk<'a>(steps: &[Step], from: &'a Value) -> Cow<'a, Value> {
    let mut at = from;
    for (i, step) in steps.iter().enumerate() {
        let next = match step {
            Step::Key(key) => at.get(key.as_str()),
            Step::Any => at.as_object().and_then(|map| map.values().find(|value| value.is_object())),
            Step::Index(index) => at.as_array().and_then(|items| {
                let index = if *index < 0 { items.len() as i64 + index } else { *index };
                usize::try_from(index).ok().and_then(|index| items.get(index))
            }),
            Step::All => {
                let Some(items) = at.as_array() else { return Cow::Owned(Value::Null) };
                let rest = &steps[i + 1..];
                let lists = rest.contains(&Step::All);
                let mut all = Vec::with_capacity(items.len());
                for item in items {
                    match walk(rest, item).into_owned() {
                        Value::Null => {}
                        // Lists of lists are laid out flat.
                        Value::Array(more) if lists => all.extend(more),
                        value => all.push(value),
                    }
                }
                return Cow::Owned(Value::Array(all));
            }
        };
        match next {
            Some(next) => at = next,
            None => return Cow::Owned(Value::Null),
        }
    }
    Cow::Borrowed(at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_keys_items_and_lists() {
        let body = json!({"a": {"b": [{"n": 1}, {"n": 2}, {}]}, "x.y": {"z": true}, "item": 1});
        let at = |text: &str| Path::parse(text).unwrap().find(&body).into_owned();
        assert_eq!(at("a.b[0].n"), json!(1));
        assert_eq!(at("a.b[-2].n"), json!(2));
        assert_eq!(at("a.b[].n"), json!([1, 2]));
        assert_eq!(at("'x.y'.z"), json!(true));
        assert_eq!(at("*.b[0].n"), json!(1));
        let nested = json!({"a": [{"b": [1, 2]}, {"b": [3]}, {}]});
        assert_eq!(Path::parse("a[].b[]").unwrap().find(&nested).into_owned(), json!([1, 2, 3]));
        assert_eq!(at("a.c.d"), Value::Null);
        assert_eq!(at("a.b[7]"), Value::Null);
        assert_eq!(Path::parse("item.a").unwrap().root, Root::Item);
        assert_eq!(Path::parse("header.X-Event").unwrap().root, Root::Header("x-event".into()));
    }

    #[test]
    fn mistakes_are_named() {
        for text in ["", "a..b", "a b", "a[x]", "a[0", "'a", "header.", "a]b"] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
    }
}
