//! The tables of `enrich` as aliases.
//!
//! *In*: the document, the tables. *Out*: one [`Source`] per table and event type that brings its rows. *Never*: what else
//! those events carry.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field as ArrowField, Schema};

use crate::catalog::Input;
use crate::lower::metric::inputs::{Inputs, Source};
use crate::lower::{Cx, Lowered, World};
use crate::yaml::Node;

/// The tables of `enrich`, each as an alias of its name.
pub(super) fn read(cx: &mut Cx<'_>, node: &Node, world: &World) -> Inputs {
    let mut inputs = Inputs::none();
    inputs.typed = true;
    for entry in node.get("enrich").map(Node::entries).unwrap_or_default() {
        let Some(place) = entry.value.get("table") else { continue };
        let Some(name) = place.scalar() else { continue };
        inputs.aliases.push(entry.key.clone());
        let taken = node.get("events").is_some_and(|events| events.get(&entry.key).is_some());
        if taken || entry.key == "row" {
            let message = format!("`{}` is an alias already", entry.key);
            let diagnostic =
                cx.at("reserved_name", entry.key_span, message).fix("give the table another name here");
            cx.push(diagnostic);
            inputs.typed = false;
            continue;
        }
        let Some(table) = world.tables.iter().find(|table| table.item.head.name == name) else {
            inputs.typed = false;
            if !world.names.contains(&(crate::shape::Kind::Table, name.to_string())) {
                let names = world.names(crate::shape::Kind::Table);
                let message = format!("there is no table `{name}`");
                let diagnostic =
                    cx.at("unknown_table", place.span, message).names(name, names.iter().map(String::as_str));
                cx.push(diagnostic);
            }
            continue;
        };
        inputs.typed &= table.typed;
        for event in std::iter::once(table.item.event).chain(table.item.fed_by) {
            inputs.sources.push(table_source(&entry.key, table, event, world));
        }
    }
    for name in inputs.aliases.clone() {
        inputs.names.insert(name.clone(), inputs.columns_of(&name));
    }
    inputs
}

fn table_source(name: &str, table: &Lowered<crate::catalog::Table>, event: usize, world: &World) -> Source {
    let admitted = &world.events[event].item.admitted;
    let own = |field: &&Arc<ArrowField>| {
        table.item.fields.iter().any(|f| f.name == *field.name()) || field.name() == "time"
    };
    let schema = match event == table.item.event {
        true => Arc::clone(admitted),
        // What else the events carry is not the table's.
        false => Arc::new(Schema::new(admitted.fields().iter().filter(own).cloned().collect::<Vec<_>>())),
    };
    Source {
        alias: name.to_string(),
        input: Input::Event(event),
        schema,
        time: "time".to_string(),
        renames: BTreeMap::new(),
        parts: BTreeMap::new(),
    }
}
