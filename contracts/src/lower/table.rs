//! `kind: Table` into the catalog.
//!
//! *In*: a table document. *Out*: [`Table`]. *Never*: its rows.

use crate::catalog::{Event, Field, Head, Table, table_event};
use crate::value::FieldType;
use crate::yaml::Node;

use super::event::{TIME, decoded_schema};
use super::field::field;
use super::head::head;
use super::literal::with_article;
use super::{Cx, Lowered, World};

/// Lowers the table of `node`.
pub(crate) fn table(cx: &mut Cx<'_>, node: &Node, world: &World) -> Lowered<Table> {
    let head = head(cx, node);
    let entries = node.get("fields").map(Node::entries).unwrap_or_default();
    let fields: Vec<Field> = entries.iter().filter_map(|entry| field(cx, entry)).collect();
    let typed = fields.len() == entries.len();
    if typed {
        names_a_field(cx, node, "key", &fields, |_| true);
        names_a_field(cx, node, "valid_from", &fields, is_time);
        names_a_field(cx, node, "valid_to", &fields, is_time);
    }
    if fields.iter().any(|field| field.name == TIME) {
        let span = node.get("fields").and_then(|f| f.entry(TIME)).map(|e| e.key_span).unwrap_or_default();
        let diagnostic = cx
            .at("reserved_name", span, "`time` is the column of an event's time")
            .fix("rename the field and keep `from: time`");
        cx.push(diagnostic);
    }
    let fed_by = source(cx, node, &fields, world);
    if let Some(event) = fed_by.map(|event| &world.events[event].item).filter(|event| event.changelog) {
        change_stream(cx, node, &fields, event);
    }
    let text = |node: Option<&Node>| node.and_then(Node::scalar).map(str::to_string);
    let declared = node.get("source");
    let item = Table {
        key: text(node.get("key")).unwrap_or_default(),
        event: world.events.len(),
        fed_by,
        valid_from: text(node.get("valid_from")),
        valid_to: text(node.get("valid_to")),
        file: text(declared.and_then(|source| source.get("file"))),
        every: declared.and_then(|source| cx.duration(source, "every")),
        head,
        fields,
    };
    Lowered { item, sound: cx.out.iter().all(|d| !d.is_error()), typed }
}

/// The change stream that carries a table's rows when they come from a file or a test.
pub(crate) fn carrier(table: &Lowered<Table>) -> Lowered<Event> {
    let item = &table.item;
    let decoded = decoded_schema(&item.fields, None);
    let event = Event {
        head: Head { name: table_event(&item.head.name), ..item.head.clone() },
        key: vec![item.key.clone()],
        time: None,
        id: None,
        dedupe: 0,
        changelog: true,
        fields: item.fields.clone(),
        rules: Vec::new(),
        enrich: Vec::new(),
        admitted: decoded.clone(),
        decoded,
        needs_id: false,
    };
    Lowered { item: event, sound: table.sound, typed: table.typed }
}

/// Reads `source`; the event that feeds the table.
fn source(cx: &mut Cx<'_>, node: &Node, fields: &[Field], world: &World) -> Option<usize> {
    let source = node.get("source")?;
    let given = ["file", "event", "http"].iter().filter(|key| source.get(key).is_some());
    if given.count() != 1 {
        let diagnostic = cx
            .at("exactly_one", source.span, "a table has exactly one source")
            .found(source.shown())
            .allowed("file, event or http");
        cx.push(diagnostic);
    }
    if let Some(entry) = source.entry("http") {
        cx.idle(entry.key_span, "a table's `http`");
    }
    let place = source.get("event")?;
    let event = cx.event(place, world)?;
    let columns = &world.events[event].item.admitted;
    for field in fields.iter().filter(|field| columns.field_with_name(&field.name).is_err()) {
        let message = format!("`{}` has no column `{}`", place.shown(), field.name);
        let names = columns.fields().iter().map(|column| column.name().as_str());
        let diagnostic = cx.at("unknown_name", place.span, message).names(&field.name, names);
        cx.push(diagnostic.fix("declare the field in the event, or compute it under the event's `enrich`"));
    }
    Some(event)
}

/// A change stream names its rows: by the table's key, or by other fields where rows say from when on they hold.
fn change_stream(cx: &mut Cx<'_>, node: &Node, fields: &[Field], event: &Event) {
    let Some(place) = node.get("key").filter(|_| !event.key.is_empty()) else { return };
    let (name, named) = (&event.head.name, event.key.join("`, `"));
    let message = format!("the change stream `{name}` names its rows by `{named}`");
    let alike = event.key.len() == 1 && place.scalar() == event.key.first().map(String::as_str);
    if node.get("valid_from").is_none() && !alike {
        let since = "say by `valid_from` from when on a row holds";
        let fix = match &event.key[..] {
            [only] => format!("use `key: {only}`, or {since}"),
            _ => since.to_string(),
        };
        let diagnostic = cx.at("table_key", place.span, message).found(place.shown()).fix(fix);
        cx.push(diagnostic);
    } else if let Some(missing) = event.key.iter().find(|key| !fields.iter().any(|field| field.name == **key))
    {
        let message = format!("{message}, and `{missing}` is no field here");
        let diagnostic = cx.at("table_key", place.span, message).fix(format!("add `{missing}` to `fields`"));
        cx.push(diagnostic);
    }
}

fn is_time(ty: &FieldType) -> bool {
    matches!(ty, FieldType::Timestamp | FieldType::Date)
}

fn names_a_field(cx: &mut Cx<'_>, node: &Node, key: &str, fields: &[Field], takes: fn(&FieldType) -> bool) {
    let Some(place) = node.get(key) else { return };
    let Some(name) = place.scalar() else { return };
    let diagnostic = match fields.iter().find(|field| field.name == name) {
        Some(field) if takes(&field.ty) => return,
        Some(field) => {
            let message = format!("`{key}` names `{name}`, which is {}", with_article(&field.ty));
            cx.at("wrong_type", place.span, message).allowed("a timestamp or date field")
        }
        None => {
            let message = format!("`{key}` names `{name}`, which is not a field");
            let names = fields.iter().map(|field| field.name.as_str());
            cx.at("unknown_name", place.span, message).names(name, names)
        }
    };
    cx.push(diagnostic);
}
