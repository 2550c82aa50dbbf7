//! What moves a metric: aliases of events, or an entity.
//!
//! *In*: `events`, `entity`, `where`. *Out*: one [`Source`] per (alias, event type). *Never*:
//! expressions, which `over` compiles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};

use crate::catalog::{Event, Head, Input};
use crate::expr::{self, Typed};
use crate::lower::{Cx, Dependency, World, one_or_many};
use crate::shape::Kind;
use crate::value::timestamp_type;
use crate::yaml::{Entry, Node};

/// One stream of rows into the metric.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) alias: String,
    pub(super) input: Input,
    pub(super) schema: SchemaRef,
    pub(super) time: String,
    /// New name to column path.
    pub(super) renames: BTreeMap<String, Vec<String>>,
    /// Name to the struct column that holds its columns.
    pub(super) parts: BTreeMap<String, String>,
}

/// All streams of rows.
pub(super) struct Inputs {
    pub(super) sources: Vec<Source>,
    /// Aliases in contract order.
    pub(super) aliases: Vec<String>,
    /// All columns are known: expressions can be type-checked.
    pub(super) typed: bool,
    /// Renames that do not resolve: reported where they stand, not again where they are used.
    pub(super) broken: BTreeSet<String>,
    /// Columns of every alias and table.
    pub(super) names: BTreeMap<String, Vec<(String, DataType)>>,
    /// The source of joined rows.
    pub(super) joined: Option<usize>,
    /// The sources are rows of a sequence (and those of aliases that measures name by `of`).
    pub(super) sequenced: bool,
}

impl Inputs {
    /// No source yet.
    pub(super) fn none() -> Self {
        Self {
            sources: Vec::new(),
            aliases: Vec::new(),
            typed: false,
            broken: BTreeSet::new(),
            names: BTreeMap::new(),
            joined: None,
            sequenced: false,
        }
    }

    /// The same names without sources.
    pub(super) fn clone_names(&self) -> Self {
        Self {
            sources: Vec::new(),
            aliases: self.aliases.clone(),
            typed: self.typed,
            broken: self.broken.clone(),
            names: self.names.clone(),
            joined: None,
            sequenced: false,
        }
    }

    /// Columns of one alias, over all its sources.
    pub(super) fn columns_of(&self, alias: &str) -> Vec<(String, DataType)> {
        let mut columns: Vec<(String, DataType)> = Vec::new();
        for source in self.sources.iter().filter(|source| source.alias == alias) {
            for (name, ty) in source.columns() {
                if !columns.iter().any(|(known, _)| *known == name) {
                    columns.push((name, ty));
                }
            }
        }
        columns
    }
}

/// Per source, the expression over it; `None`: not applied there.
pub(super) type PerSource = Vec<Option<Typed>>;

/// Reads `events` or `entity`.
pub(super) fn read(cx: &mut Cx<'_>, node: &Node, world: &World, head: &Head) -> Inputs {
    let (events, entity) = (node.entry("events"), node.entry("entity"));
    let mut inputs = Inputs { typed: true, ..Inputs::none() };
    match (events, entity) {
        (Some(events), None) => {
            if let Some(place) = node.entry("where") {
                let diagnostic = cx
                    .at("option_not_used", place.key_span, "`where` beside `events` selects nothing")
                    .fix("put it under the alias it is about, or under a measure");
                cx.push(diagnostic);
            }
            for entry in events.value.entries() {
                alias(cx, entry, world, head, &mut inputs);
            }
            if events.value.entries().is_empty() {
                let diagnostic = cx
                    .at("empty_contract", events.key_span, "nothing moves this metric")
                    .fix("name at least one alias: `events: { order: { type: order.created } }`");
                cx.push(diagnostic);
            }
        }
        (None, Some(entity)) => of_entity(cx, node, &entity.value, world, head, &mut inputs),
        (both, _) => {
            let span = both.map_or(node.span, |entry| entry.key_span);
            let message = "a metric has either `events` or `entity`";
            let found = if both.is_some() { "both" } else { "neither" };
            let diagnostic =
                cx.at("exactly_one", span, message).found(found).fix("keep the one whose rows are counted");
            cx.push(diagnostic);
            inputs.typed = false;
        }
    }
    inputs.typed &= !inputs.sources.is_empty();
    for alias in inputs.aliases.clone() {
        let columns = inputs.columns_of(&alias);
        inputs.names.insert(alias, columns);
    }
    inputs
}

fn alias(cx: &mut Cx<'_>, entry: &Entry, world: &World, head: &Head, inputs: &mut Inputs) {
    if entry.key == "row" {
        let diagnostic = cx
            .at("reserved_name", entry.key_span, "`row` stands for whichever event is applied")
            .fix("give the alias another name");
        cx.push(diagnostic);
    }
    inputs.aliases.push(entry.key.clone());
    let Some(types) = entry.value.get("type") else {
        inputs.typed = false;
        return;
    };
    let first = inputs.sources.len();
    let mut known = true;
    for name in one_or_many(types) {
        let Some(index) = cx.event(name, world) else {
            known = false;
            continue;
        };
        let lowered = &world.events[index];
        cx.depends(name.span, head.status, &world.event_dependency(index));
        known &= lowered.typed;
        if inputs.sources[first..].iter().any(|s| s.input == Input::Event(index)) {
            let message = format!("`{}` stands twice in `type`", name.shown());
            let diagnostic = cx.at("duplicate_value", name.span, message).fix("remove one of them");
            cx.push(diagnostic);
            continue;
        }
        inputs.sources.push(Source {
            alias: entry.key.clone(),
            input: Input::Event(index),
            schema: Arc::clone(&lowered.item.admitted),
            time: alias_time(cx, entry, &lowered.item),
            renames: BTreeMap::new(),
            parts: BTreeMap::new(),
        });
    }
    inputs.typed &= known;
    if known {
        let broken = renames(cx, &entry.value, world, &mut inputs.sources[first..]);
        inputs.broken.extend(broken);
    }
}

/// The column that is a row's time: `time`, unless the alias of a change stream names another.
fn alias_time(cx: &mut Cx<'_>, entry: &Entry, event: &Event) -> String {
    let Some(place) = entry.value.get("time") else { return "time".to_string() };
    time_column(cx, place, &event.admitted, true)
}

/// Resolves `fields: { new: path.of.old }` in every event type of the alias; the names that do not resolve.
fn renames(cx: &mut Cx<'_>, alias: &Node, world: &World, sources: &mut [Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for rename in alias.get("fields").map(Node::entries).unwrap_or_default() {
        let Some(path) = rename.value.scalar() else { continue };
        let mut found = false;
        for source in sources.iter_mut() {
            let Input::Event(index) = source.input else { continue };
            if let Some(target) = column_path(&world.events[index].item, path) {
                found = true;
                source.renames.insert(rename.key.clone(), target);
            }
        }
        if !found {
            let names: Vec<String> = sources
                .iter()
                .filter_map(|source| match source.input {
                    Input::Event(index) => Some(&world.events[index].item),
                    Input::Entity(_) | Input::Relation(_) => None,
                })
                .flat_map(known_paths)
                .collect();
            let message = format!("`{path}` is not a field of the event");
            let diagnostic = cx
                .at("unknown_name", rename.value.span, message)
                .names(path, names.iter().map(String::as_str));
            cx.push(diagnostic);
            broken.push(rename.key.clone());
        }
    }
    broken
}

/// The column (and struct fields below it) that a rename's path means: a column, a path into a struct column,
/// or the payload path of a declared field.
pub(super) fn column_path(event: &Event, path: &str) -> Option<Vec<String>> {
    let parts: Vec<String> = path.split('.').map(str::to_string).collect();
    if let Some(field) = event.fields.iter().find(|field| field.path == parts) {
        return Some(vec![field.name.clone()]);
    }
    type_at(&event.admitted, &parts).map(|_| parts)
}

fn known_paths(event: &Event) -> Vec<String> {
    let mut names: Vec<String> = event.admitted.fields().iter().map(|field| field.name().clone()).collect();
    names.extend(event.fields.iter().filter(|f| f.path.len() > 1).map(|f| f.path.join(".")));
    names
}

pub(super) fn type_at(schema: &SchemaRef, path: &[String]) -> Option<DataType> {
    let (first, rest) = path.split_first()?;
    let mut ty = schema.field_with_name(first).ok()?.data_type().clone();
    for name in rest {
        let DataType::Struct(fields) = &ty else { return None };
        ty = fields.find(name)?.1.data_type().clone();
    }
    Some(ty)
}

fn of_entity(cx: &mut Cx<'_>, node: &Node, place: &Node, world: &World, head: &Head, inputs: &mut Inputs) {
    let Some(name) = place.scalar() else { return };
    let Some(index) = world.entities.iter().position(|e| e.item.head.name == name) else {
        inputs.typed = false;
        if !world.names.contains(&(Kind::Entity, name.to_string())) {
            let names = world.names(Kind::Entity);
            let message = format!("there is no entity `{name}`");
            let diagnostic =
                cx.at("unknown_entity", place.span, message).names(name, names.iter().map(String::as_str));
            cx.push(diagnostic);
        }
        return;
    };
    let lowered = &world.entities[index];
    let entity = &lowered.item;
    cx.depends(
        place.span,
        head.status,
        &Dependency { kind: Kind::Entity, name, status: entity.head.status, sound: lowered.sound },
    );
    inputs.typed &= lowered.typed;
    let time = match node.get("time").and_then(|time| time.get("column")) {
        Some(column) => time_column(cx, column, &entity.schema, lowered.typed),
        None => "first_time".to_string(),
    };
    inputs.aliases.push(name.to_string());
    inputs.sources.push(Source {
        alias: name.to_string(),
        input: Input::Entity(index),
        schema: Arc::clone(&entity.schema),
        time,
        renames: BTreeMap::new(),
        parts: BTreeMap::new(),
    });
}

fn time_column(cx: &mut Cx<'_>, place: &Node, schema: &SchemaRef, typed: bool) -> String {
    let name = place.scalar().unwrap_or_default();
    let times: Vec<&str> = schema
        .fields()
        .iter()
        .filter(|field| *field.data_type() == timestamp_type())
        .map(|field| field.name().as_str())
        .collect();
    if typed && !times.contains(&name) {
        let message = format!("`{name}` is not a timestamp field");
        let diagnostic = cx.at("unknown_name", place.span, message).names(name, times);
        cx.push(diagnostic);
    }
    name.to_string()
}

/// The `(event type, field)` pairs of few values, as far as the metric of `node` tells: used bare as dimensions,
/// or compared with texts.
pub(crate) fn few_valued_columns(node: &Node) -> Vec<(String, String)> {
    let entries = |key: &str| node.get(key).map(Node::entries).unwrap_or_default();
    let mut paths: Vec<Vec<String>> = Vec::new();
    for dimension in entries("dimensions") {
        let from = dimension.value.get("from").and_then(Node::scalar).unwrap_or(&dimension.key);
        paths.push(match from.trim().split_once('.') {
            Some((alias, column)) => vec![alias.to_string(), column.to_string()],
            None => vec![from.trim().to_string()],
        });
    }
    let conditions = entries("events").iter().chain(entries("measures"));
    let texts = conditions.flat_map(|entry| [entry.value.get("where"), entry.value.get("value")]);
    paths.extend(texts.flatten().filter_map(Node::scalar).flat_map(expr::compared_with_texts));
    let mut columns = Vec::new();
    for path in &paths {
        let (alias, column) = match path.as_slice() {
            [alias, column] => (Some(alias).filter(|alias| *alias != "row"), column),
            [column] => (None, column),
            _ => continue,
        };
        for entry in entries("events").iter().filter(|entry| alias.is_none_or(|alias| *alias == entry.key)) {
            let renamed = entry.value.get("fields").and_then(|fields| fields.get(column));
            let column = renamed.and_then(Node::scalar).unwrap_or(column);
            for name in entry.value.get("type").map(one_or_many).unwrap_or_default() {
                if let Some(name) = name.scalar() {
                    columns.push((name.to_string(), column.to_string()));
                }
            }
        }
    }
    columns
}
