//! `tests:` of a metric: events in arrival order and the answers they must give.
//!
//! *In*: the document, its inputs and windows. *Out*: [`Test`]s whose payloads carry the test envelope. *Never*:
//! running them.

use serde_json::{Map, Value as Json};

use crate::catalog::{
    Event, Expected, ExpectedRefusal, ExpectedRow, Given, Input, Micros, TEST_ENVELOPE, TEST_OP, Test, Window,
};
use crate::duration::parse_share;
use crate::lower::{Cx, World};
use crate::shape::Kind;
use crate::value::{FieldType, Value, parse_timestamp};
use crate::yaml::{Entry, Node, Yaml};

use super::inputs::Inputs;

/// Reads all tests.
pub(super) fn read(
    cx: &mut Cx<'_>,
    node: &Node,
    world: &World,
    inputs: &Inputs,
    windows: &[Window],
) -> Vec<Test> {
    let columns: Vec<&str> = ["dimensions", "measures"]
        .iter()
        .filter_map(|key| node.get(key))
        .flat_map(Node::entries)
        .map(|entry| entry.key.as_str())
        .collect();
    let declared = node.get("tests").map(Node::items).unwrap_or_default();
    declared.iter().map(|test| one(cx, test, world, inputs, windows, &columns)).collect()
}

fn one(
    cx: &mut Cx<'_>,
    node: &Node,
    world: &World,
    inputs: &Inputs,
    windows: &[Window],
    columns: &[&str],
) -> Test {
    let at = node.get("at").map_or(0, |place| instant(cx, place));
    let mut given = Vec::new();
    for (index, item) in node.get("given").map(Node::items).unwrap_or_default().iter().enumerate() {
        let mut event = |entry: &Entry| given_event(cx, entry, world, inputs, at, index);
        match item.entries() {
            [entry] => given.extend(event(entry)),
            _ => {
                let diagnostic = cx
                    .at("exactly_one", item.span, "each of `given` is one event")
                    .found(item.shown())
                    .allowed("- alias: { field: value }");
                cx.push(diagnostic);
            }
        }
    }
    if let Some(entry) = node.entry("expect_alerts") {
        cx.idle(entry.key_span, "`expect_alerts`");
    }
    let tables = node.get("tables").map(|tables| rows_of_tables(cx, tables, world, at)).unwrap_or_default();
    let mut expect = std::collections::BTreeMap::new();
    for entry in node.get("expect").map(Node::entries).unwrap_or_default() {
        if !windows.iter().any(|window| window.name == entry.key) {
            let names = windows.iter().map(|window| window.name.as_str());
            let message = format!("there is no window `{}`", entry.key);
            let diagnostic = cx.at("unknown_name", entry.key_span, message).names(&entry.key, names);
            cx.push(diagnostic);
            continue;
        }
        let rows = entry.value.items().iter().map(|row| expected_row(cx, row, columns)).collect();
        expect.insert(entry.key.clone(), rows);
    }
    let count = node.get("given").map_or(0, |given| given.items().len());
    Test {
        name: node.get("name").and_then(Node::scalar).unwrap_or_default().to_string(),
        line: node.span.line,
        tables,
        given,
        at,
        expect,
        expect_refused: node.get("expect_refused").map(|list| refusals(cx, list, count)),
    }
}

fn instant(cx: &mut Cx<'_>, place: &Node) -> Micros {
    match place.scalar().and_then(parse_timestamp) {
        Some(at) => at,
        None => {
            let diagnostic = cx
                .at("wrong_literal", place.span, "`at` is not an instant")
                .found(place.shown())
                .allowed("RFC 3339, e.g. \"2026-03-02T09:00:00Z\"");
            cx.push(diagnostic);
            0
        }
    }
}

/// `tables: { name: [rows] }` as events of the change streams that carry the tables.
fn rows_of_tables(cx: &mut Cx<'_>, tables: &Node, world: &World, at: Micros) -> Vec<Given> {
    let mut given = Vec::new();
    for entry in tables.entries() {
        let Some(table) = world.tables.iter().find(|table| table.item.head.name == entry.key) else {
            let names = world.names(Kind::Table);
            let message = format!("there is no table `{}`", entry.key);
            let names = names.iter().map(String::as_str);
            let diagnostic = cx.at("unknown_table", entry.key_span, message).names(&entry.key, names);
            cx.push(diagnostic);
            continue;
        };
        for row in entry.value.items() {
            let place = Entry { key: entry.key.clone(), key_span: row.span, value: row.clone() };
            given.extend(payload_of(cx, &place, world, table.item.event, &|_| None, at, given.len()));
        }
    }
    given
}

/// Which event type an entry of `given` is, and the alias whose renames it may use.
fn event_of(
    cx: &mut Cx<'_>,
    entry: &Entry,
    world: &World,
    inputs: &Inputs,
) -> Option<(usize, Option<usize>)> {
    let sources = inputs.of(&entry.key);
    let as_event = |source: usize| match inputs.sources[source].input {
        Input::Event(event) => Some((event, Some(source))),
        Input::Entity(_) | Input::Relation(_) => None,
    };
    let wanted = ["type", "event_type"].iter().find_map(|key| entry.value.get(key)?.scalar());
    let named =
        |(event, _): &(usize, Option<usize>)| wanted == Some(world.events[*event].item.head.name.as_str());
    let events: Vec<_> = sources.into_iter().filter_map(as_event).collect();
    if let Some(found) = events.iter().find(|pair| named(pair)).or(events.first()) {
        return Some(*found);
    }
    if let Some(event) = world.events.iter().position(|e| e.item.head.name == entry.key) {
        return Some((event, None));
    }
    if inputs.aliases.contains(&entry.key) && !inputs.typed {
        return None;
    }
    let mut names: Vec<&str> = inputs
        .sources
        .iter()
        .filter(|source| matches!(source.input, Input::Event(_)))
        .map(|source| source.alias.as_str())
        .collect();
    names.extend(world.events.iter().map(|e| e.item.head.name.as_str()));
    names.dedup();
    let message = format!("`{}` is neither an alias nor an event type", entry.key);
    let diagnostic = cx.at("unknown_event", entry.key_span, message).names(&entry.key, names);
    cx.push(diagnostic);
    None
}

fn given_event(
    cx: &mut Cx<'_>,
    entry: &Entry,
    world: &World,
    inputs: &Inputs,
    at: Micros,
    index: usize,
) -> Option<Given> {
    let (event_index, source) = event_of(cx, entry, world, inputs)?;
    let event = &world.events[event_index].item;
    let renamed = |key: &str| {
        let source = &inputs.sources[source?];
        if key == "time" && source.time != "time" {
            return payload_path(event, std::slice::from_ref(&source.time));
        }
        payload_path(event, source.renames.get(key)?)
    };
    payload_of(cx, entry, world, event_index, &renamed, at, index)
}

/// The payload of an event from its cells; `renamed` says where the alias's own names belong.
fn payload_of(
    cx: &mut Cx<'_>,
    entry: &Entry,
    world: &World,
    event_index: usize,
    renamed: &dyn Fn(&str) -> Option<Vec<String>>,
    at: Micros,
    index: usize,
) -> Option<Given> {
    let event = &world.events[event_index].item;
    let (id_key, type_key, time_key) = TEST_ENVELOPE;
    let mut payload = Map::new();
    payload.insert(type_key.to_string(), Json::String(event.head.name.clone()));
    for cell in entry.value.entries() {
        let path = renamed(&cell.key).or_else(|| place_of(event, &cell.key));
        match path {
            Some(path) => put(&mut payload, &path, cell.value.json()),
            None if matches!(cell.key.as_str(), "type" | "event_type") => {}
            None if !world.events[event_index].typed => {}
            None => {
                let names = event.fields.iter().map(|field| field.name.as_str());
                let message = format!("{} has no field `{}`", event.head.name, cell.key);
                let diagnostic = cx.at("unknown_name", cell.key_span, message).names(&cell.key, names);
                cx.push(diagnostic);
            }
        }
    }
    let id = generated_id(event, index);
    let time = Value::Timestamp(at.saturating_sub(1_000_000)).to_json(None);
    for (field, key, value) in [(&event.id, id_key, id), (&event.time, time_key, time)] {
        let path = match field {
            Some(name) => payload_path(event, std::slice::from_ref(name)),
            None => None,
        };
        let path = path.unwrap_or_else(|| vec![key.to_string()]);
        if get(&payload, &path).is_none() {
            put(&mut payload, &path, value);
        }
        if !payload.contains_key(key) {
            let copy = get(&payload, &path).cloned().unwrap_or(Json::Null);
            payload.insert(key.to_string(), copy);
        }
    }
    Some(Given { event: event_index, payload: Json::Object(payload), line: entry.key_span.line })
}

/// Where a key of a test's event belongs in the payload.
fn place_of(event: &Event, key: &str) -> Option<Vec<String>> {
    if let Some(field) = event.fields.iter().find(|field| field.name == key) {
        return Some(field.path.clone());
    }
    if key == "op" && event.changelog {
        return Some(vec![TEST_OP.to_string()]);
    }
    let (id_key, _, time_key) = TEST_ENVELOPE;
    let envelope = match key {
        "time" => Some((&event.time, time_key)),
        "event_id" | "id" => Some((&event.id, id_key)),
        _ => None,
    };
    if let Some((field, envelope)) = envelope {
        return Some(match field {
            Some(name) => payload_path(event, std::slice::from_ref(name))?,
            None => vec![envelope.to_string()],
        });
    }
    // The raw payload, as it comes.
    event.fields.iter().any(|field| field.path[0] == key).then(|| vec![key.to_string()])
}

/// The payload path of a column path.
fn payload_path(event: &Event, column: &[String]) -> Option<Vec<String>> {
    let field = event.fields.iter().find(|field| field.name == column[0])?;
    Some(field.path.iter().chain(&column[1..]).cloned().collect())
}

fn put(payload: &mut Map<String, Json>, path: &[String], value: Json) {
    match path {
        [] => {}
        [last] => {
            payload.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let inner = payload.entry(first.clone()).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

fn get<'a>(payload: &'a Map<String, Json>, path: &[String]) -> Option<&'a Json> {
    let (first, rest) = path.split_first()?;
    let value = payload.get(first)?;
    if rest.is_empty() { Some(value) } else { get(value.as_object()?, rest) }
}

/// An id no other event of the test has; an id that is written down, even as null, stays as it is.
fn generated_id(event: &Event, index: usize) -> Json {
    let id = event.fields.iter().find(|field| Some(&field.name) == event.id.as_ref());
    match id.map(|field| &field.ty) {
        Some(FieldType::Int) => Json::from(index),
        _ => Json::String(format!("00000000-0000-4000-8000-{index:012x}")),
    }
}

fn expected_row(cx: &mut Cx<'_>, row: &Node, columns: &[&str]) -> ExpectedRow {
    let mut cells = Vec::new();
    for entry in row.entries() {
        if !columns.contains(&entry.key.as_str()) {
            let message = format!("`{}` is neither a dimension nor a measure", entry.key);
            let diagnostic =
                cx.at("unknown_name", entry.key_span, message).names(&entry.key, columns.iter().copied());
            cx.push(diagnostic);
            continue;
        }
        if let Some(expected) = expected(cx, &entry.value) {
            cells.push((entry.key.clone(), expected));
        }
    }
    ExpectedRow { cells, line: row.span.line }
}

fn expected(cx: &mut Cx<'_>, node: &Node) -> Option<Expected> {
    let Yaml::Map(entries) = &node.value else { return Some(Expected::Equal(node.json())) };
    let near = node.get("near").and_then(Node::scalar).and_then(|text| text.parse::<f64>().ok());
    let within = match node.get("within") {
        Some(place) => place.scalar().and_then(parse_share),
        None => Some(0.01),
    };
    let known = entries.iter().all(|entry| matches!(entry.key.as_str(), "near" | "within"));
    match (near, within, known) {
        (Some(value), Some(within), true) => Some(Expected::Near { value, within }),
        _ => {
            let diagnostic = cx
                .at("wrong_literal", node.span, "this is not an expectation")
                .found(node.shown())
                .allowed("a value, or { near: 5400, within: 1% }");
            cx.push(diagnostic);
            None
        }
    }
}

fn refusals(cx: &mut Cx<'_>, list: &Node, count: usize) -> Vec<ExpectedRefusal> {
    let mut refusals = Vec::new();
    for item in list.items() {
        let place = item.get("given").unwrap_or(item);
        let Yaml::Int(index, _) = place.value else { continue };
        match usize::try_from(index).ok().filter(|index| *index < count) {
            Some(given) => refusals.push(ExpectedRefusal {
                given,
                reason: item.get("reason").and_then(Node::scalar).map(str::to_string),
            }),
            None => {
                let diagnostic = cx
                    .at("out_of_range", place.span, "there is no such event in `given`")
                    .found(place.shown())
                    .allowed(format!("0 to {}", count.saturating_sub(1)));
                cx.push(diagnostic);
            }
        }
    }
    refusals
}
