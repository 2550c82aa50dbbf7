//! Which contract a change event belongs to.
//!
//! *In*: the topic, the table of its source. *Out*: an index into the catalog's events. *Never*: a name
//! that two rules read differently: the first that names a contract holds.
//!
//! The settings' fixed type; then `cdc.<topic>`; then `cdc.<source.name>.<schema>.<table>` (topics that were
//! routed elsewhere); then `cdc.<schema>.<table>`. Where the source has no schema, its database stands there.

use std::collections::{HashMap, HashSet};

use contracts::Catalog;
use contracts::batch::Reason;

use super::walks::Parts;
use crate::decode::raw::Raw;
use crate::decode::reason::reason;
use crate::decode::sink::Sink;
use crate::decode::text::clip;

/// What is known of topics.
#[derive(Debug, Default)]
pub(super) struct Types {
    topics: HashMap<String, Option<usize>>,
    /// Topics whose rows come flattened.
    flat: HashSet<String>,
}

impl Types {
    /// The contract named after the topic.
    pub(super) fn by_topic(&mut self, catalog: &Catalog, topic: &str) -> Option<usize> {
        if let Some(known) = self.topics.get(topic) {
            return *known;
        }
        let found = catalog.event_index(&format!("cdc.{topic}"));
        self.topics.insert(topic.to_owned(), found);
        found
    }

    /// Rows of this topic are flattened: a tombstone is the only sign of a delete there.
    pub(super) fn is_flat(&mut self, topic: &str) {
        if !self.flat.contains(topic) {
            self.flat.insert(topic.to_owned());
        }
    }

    pub(super) fn flat(&self, topic: &str) -> bool {
        self.flat.contains(topic)
    }
}

/// The contract of a change event, or the name looked for and why there is none. `known` is `cdc.<topic>`.
pub(super) fn event(
    sink: &Sink,
    known: Option<usize>,
    topic: &str,
    parts: &Parts<'_>,
    fixed: Option<&str>,
) -> Result<usize, (Option<String>, Reason)> {
    let catalog = sink.catalog();
    let found = match (fixed, known) {
        (Some(fixed), _) => catalog.event_index(fixed).ok_or_else(|| vec![fixed.to_owned()]),
        (None, Some(event)) => Ok(event),
        (None, None) => by_source(catalog, topic, parts),
    };
    match found {
        Ok(event) if sink.is_open(event) => Ok(event),
        Ok(event) => {
            let name = catalog.events[event].head.name.clone();
            let message = format!("the contract of `{name}` is a draft or retired, or the engine's own");
            Err((Some(name), reason("unknown_event_type", String::new(), message)))
        }
        Err(names) => {
            let shown: Vec<String> =
                names.iter().map(|name| format!("`{}`", clip(name.as_bytes()))).collect();
            let message = match shown.as_slice() {
                [] => "the change event does not say of which table it is".to_owned(),
                _ => format!("no contract for this table: declare one of the events {}", shown.join(", ")),
            };
            let first = names.into_iter().next();
            Err((first, reason("unknown_event_type", String::new(), message)))
        }
    }
}

/// The contract named after the source's table, or all names that were tried.
fn by_source(catalog: &Catalog, topic: &str, parts: &Parts<'_>) -> Result<usize, Vec<String>> {
    let text = |raw: Raw<'_>| raw.text().map(|text| String::from_utf8_lossy(&text).into_owned());
    let mut names = if topic.is_empty() { Vec::new() } else { vec![format!("cdc.{topic}")] };
    if let (Some(table), Some(space)) =
        (text(parts.table), text(parts.schema_name).or_else(|| text(parts.database)))
    {
        if let Some(server) = text(parts.server) {
            names.push(format!("cdc.{server}.{space}.{table}"));
        }
        names.push(format!("cdc.{space}.{table}"));
    }
    names.dedup();
    names.iter().find_map(|name| catalog.event_index(name)).ok_or(names)
}
