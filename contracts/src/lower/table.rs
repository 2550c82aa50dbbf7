//! `kind: Table` into the catalog.
//!
//! *In*: a table document. *Out*: [`Table`]. *Never*: its rows.

use crate::catalog::{Field, Table};
use crate::value::FieldType;
use crate::yaml::Node;

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
    if let Some(source) = node.get("source") {
        let given = ["file", "event", "http"].iter().filter(|key| source.get(key).is_some());
        if given.count() != 1 {
            let diagnostic = cx
                .at("exactly_one", source.span, "a table has exactly one source")
                .found(source.shown())
                .allowed("file, event or http");
            cx.push(diagnostic);
        }
        if let Some(event) = source.get("event") {
            cx.event(event, world);
        }
        let span = node.entry("source").map(|e| e.key_span).unwrap_or_default();
        cx.idle(span, "the source of a table");
    }
    let key = node.get("key").and_then(Node::scalar).unwrap_or_default().to_string();
    Lowered { item: Table { head, key, fields }, sound: cx.out.iter().all(|d| !d.is_error()), typed }
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
