//! A value of a YAML document with its place.
//!
//! *In*: what the reader built. *Out*: typed access. *Never*: a number that lost the text it was written as.

use crate::text::Span;

/// One value with its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it is; for an alias, where the alias stands.
    pub span: Span,
    /// What it is.
    pub value: Yaml,
}

/// A value of the YAML core schema.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Yaml {
    Null,
    Bool(bool),
    /// With the text as written.
    Int(i64, String),
    /// With the text as written, so that nothing has to go through the float.
    Float(f64, String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// Where the key is.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl PartialEq for Node {
    /// Equal meaning; places do not count.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Node {
    /// The value under `key` of a map.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry under `key` of a map.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The entries of a map; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Yaml::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Yaml::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar as written (`0.50` stays `0.50`); `None` for null, lists and maps.
    pub fn scalar(&self) -> Option<&str> {
        match &self.value {
            Yaml::Text(text) | Yaml::Int(_, text) | Yaml::Float(_, text) => Some(text),
            Yaml::Bool(true) => Some("true"),
            Yaml::Bool(false) => Some("false"),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Yaml::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Yaml::Null => "null",
            Yaml::Bool(_) => "a boolean",
            Yaml::Int(..) => "an integer",
            Yaml::Float(..) => "a number",
            Yaml::Text(_) => "text",
            Yaml::List(_) => "a list",
            Yaml::Map(_) => "a mapping",
        }
    }

    /// The node for people, in one line.
    pub fn shown(&self) -> String {
        match &self.value {
            Yaml::Null => "null".to_string(),
            Yaml::List(items) => format!("a list of {}", items.len()),
            Yaml::Map(entries) if entries.is_empty() => "an empty mapping".to_string(),
            Yaml::Map(entries) => {
                let keys: Vec<&str> = entries.iter().map(|e| e.key.as_str()).collect();
                format!("a mapping with {}", keys.join(", "))
            }
            _ => self.scalar().unwrap_or_default().to_string(),
        }
    }

    /// The node as JSON; numbers keep their text's value, floats become JSON numbers.
    pub fn json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Yaml::Null => Json::Null,
            Yaml::Bool(v) => Json::Bool(*v),
            Yaml::Int(v, _) => Json::from(*v),
            Yaml::Float(v, _) => Json::from(*v),
            Yaml::Text(v) => Json::String(v.clone()),
            Yaml::List(items) => Json::Array(items.iter().map(Node::json).collect()),
            Yaml::Map(entries) => {
                Json::Object(entries.iter().map(|e| (e.key.clone(), e.value.json())).collect())
            }
        }
    }
}
