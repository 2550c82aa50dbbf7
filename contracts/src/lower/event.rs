//! `kind: Event` into the catalog.
//!
//! *In*: an event document. *Out*: [`Event`] with its schemas. *Never*: other contracts, except the set of
//! columns that metrics use as dimensions.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};

use crate::catalog::{Computed, Event, Field, Rule, Severity};
use crate::expr::Scope;
use crate::value::{FieldType, timestamp_type};
use crate::yaml::{Node, Yaml};

use super::field::field;
use super::head::head;
use super::literal::with_article;
use super::{Cx, Lowered, World, one_or_many};

/// Name of the event time column of every event.
pub(crate) const TIME: &str = "time";
const DAY: i64 = 86_400_000_000;

/// Lowers the event of `node`.
pub(crate) fn event(cx: &mut Cx<'_>, node: &Node, world: &World) -> Lowered<Event> {
    let head = head(cx, node);
    let entries = node.get("fields").map(Node::entries).unwrap_or_default();
    let lowered: Vec<Option<Field>> = entries.iter().map(|entry| field(cx, entry)).collect();
    let mut typed = lowered.iter().all(Option::is_some) && !entries.is_empty();
    let mut fields: Vec<Field> = lowered.into_iter().flatten().collect();
    if node.get("fields").is_some_and(|n| n.entries().is_empty() && n.value != Yaml::Null) {
        let span = node.get("fields").map(|n| n.span).unwrap_or_default();
        let diagnostic = cx
            .at("empty_contract", span, "an event without fields says nothing")
            .fix("declare at least one field");
        cx.push(diagnostic);
    }
    paths_differ(cx, node, &fields);
    let named = Named::read(cx, node, &fields, typed);
    for field in &mut fields {
        field.dictionary = interned(&head.name, field, &named, world);
    }
    reserved_time(cx, node, &fields, &named);
    let decoded = decoded_schema(&fields, named.time.as_deref());
    let (enrich, admitted, complete) = enrich(cx, node, &fields, &decoded, typed);
    typed &= complete;
    let rules = rules(cx, node, &admitted, typed);
    let changelog = matches!(node.get("changelog").map(|n| &n.value), Some(Yaml::Bool(true)));
    if changelog {
        change_stream(cx, node, &named);
    }
    // A version that comes again changes nothing by itself.
    let dedupe = if changelog { 0 } else { cx.duration(node, "dedupe").unwrap_or(DAY) };
    let item = Event {
        head,
        key: named.key,
        time: named.time,
        id: named.id,
        dedupe,
        fields,
        rules,
        enrich,
        decoded,
        admitted,
        changelog,
        needs_id: dedupe > 0 || changelog,
    };
    Lowered { item, sound: cx.out.iter().all(|d| !d.is_error()), typed }
}

/// The fields that `key`, `time` and `id` name.
struct Named {
    key: Vec<String>,
    time: Option<String>,
    id: Option<String>,
}

impl Named {
    fn read(cx: &mut Cx<'_>, node: &Node, fields: &[Field], typed: bool) -> Self {
        let plain = |ty: &FieldType| !matches!(ty, FieldType::List(_) | FieldType::Struct(_));
        let instant = |ty: &FieldType| *ty == FieldType::Timestamp;
        let known = Known { fields, typed };
        let mut key: Vec<String> = Vec::new();
        let place = node.get("key");
        for part in place.map(one_or_many).unwrap_or_default() {
            let Some(name) = known.field(cx, "key", part, plain, "a plain field") else { continue };
            if key.contains(&name) {
                let message = format!("`{name}` stands twice in `key`");
                let diagnostic = cx.at("duplicate_value", part.span, message).fix("remove one of them");
                cx.push(diagnostic);
                continue;
            }
            key.push(name);
        }
        if let Some(place) =
            place.filter(|place| matches!(&place.value, Yaml::List(items) if items.is_empty()))
        {
            let diagnostic =
                cx.at("empty_contract", place.span, "`key` names no field").fix("name one, or remove `key`");
            cx.push(diagnostic);
        }
        let mut one = |key: &str, takes: fn(&FieldType) -> bool, wanted: &str| {
            known.field(cx, key, node.get(key)?, takes, wanted)
        };
        Self { key, time: one("time", instant, "a timestamp field"), id: one("id", plain, "a plain field") }
    }
}

/// The declared fields; not `typed`: some of them are broken, and that has been reported.
struct Known<'a> {
    fields: &'a [Field],
    typed: bool,
}

impl Known<'_> {
    /// The field that `place` names under `key`.
    fn field(
        &self,
        cx: &mut Cx<'_>,
        key: &str,
        place: &Node,
        takes: fn(&FieldType) -> bool,
        wanted: &str,
    ) -> Option<String> {
        let name = place.scalar()?;
        match self.fields.iter().find(|field| field.name == name) {
            Some(field) if takes(&field.ty) => return Some(name.to_string()),
            Some(field) => {
                let message = format!("`{key}` names `{name}`, which is {}", with_article(&field.ty));
                let diagnostic = cx.at("wrong_type", place.span, message).found(name).allowed(wanted);
                cx.push(diagnostic);
            }
            None if self.typed => {
                let names = self.fields.iter().map(|field| field.name.as_str());
                let message = format!("`{key}` names `{name}`, which is not a field");
                let diagnostic = cx.at("unknown_name", place.span, message).names(name, names);
                cx.push(diagnostic);
            }
            None => {}
        }
        None
    }
}

/// A change stream needs to know what names a row.
fn change_stream(cx: &mut Cx<'_>, node: &Node, named: &Named) {
    let span = node.entry("changelog").map(|entry| entry.key_span).unwrap_or_default();
    if named.key.is_empty() && node.get("key").is_none() {
        let diagnostic = cx
            .at("missing_key", span, "a change stream must say what names a row")
            .fix("add `key: <field>`: the primary key");
        cx.push(diagnostic);
    }
    if let Some(dedupe) = node.entry("dedupe") {
        let diagnostic = cx
            .at("option_not_used", dedupe.key_span, "`dedupe` does nothing for a change stream")
            .fix("remove it: a version that comes again changes nothing");
        cx.push(diagnostic);
    }
}

/// Few-valued text is interned: enumerations, and what metrics split by; never keys and ids.
fn interned(event: &str, field: &Field, named: &Named, world: &World) -> bool {
    let unique = named.key == [field.name.clone()] || named.id.as_ref() == Some(&field.name);
    let used = |name: String| world.few_valued.contains(&(event.to_string(), name));
    let dimension = used(field.name.clone()) || used(field.path.join("."));
    field.ty == FieldType::String
        && !unique
        && field.checks.pattern.is_none()
        && (field.checks.one_of.is_some() || dimension)
}

/// `time` is the event time's column: a field of that name must be it.
fn reserved_time(cx: &mut Cx<'_>, node: &Node, fields: &[Field], named: &Named) {
    if named.time.as_deref() == Some(TIME) || !fields.iter().any(|field| field.name == TIME) {
        return;
    }
    let span = node
        .get("fields")
        .and_then(|fields| fields.entry(TIME))
        .map(|entry| entry.key_span)
        .unwrap_or_default();
    let diagnostic = cx
        .at("reserved_name", span, "`time` is the column of the event time")
        .fix("add `time: time` to the event if this field is its time, else rename it and keep `from: time`");
    cx.push(diagnostic);
}

/// Two fields from one place of the payload are likely a slip.
fn paths_differ(cx: &mut Cx<'_>, node: &Node, fields: &[Field]) {
    for (index, field) in fields.iter().enumerate() {
        let Some(other) = fields[..index].iter().find(|other| other.path == field.path) else {
            continue;
        };
        let span = node
            .get("fields")
            .and_then(|fields| fields.entry(&field.name))
            .map(|entry| entry.key_span)
            .unwrap_or_default();
        let message = format!("`{}` reads the same payload path as `{}`", field.name, other.name);
        let diagnostic = cx
            .at("duplicate_value", span, message)
            .found(field.path.join("."))
            .fix("use a computed column under `enrich` for a second name");
        cx.push(diagnostic);
    }
}

pub(crate) fn decoded_schema(fields: &[Field], time: Option<&str>) -> SchemaRef {
    let mut columns: Vec<ArrowField> = fields
        .iter()
        .map(|field| {
            let is_time = time == Some(TIME) && field.name == TIME;
            ArrowField::new(&field.name, field.ty.arrow(field.dictionary), !is_time)
        })
        .collect();
    if !fields.iter().any(|field| field.name == TIME) {
        columns.push(ArrowField::new(TIME, timestamp_type(), false));
    }
    Arc::new(Schema::new(columns))
}

/// The computed columns, the schema with them, and whether all of them compile.
fn enrich(
    cx: &mut Cx<'_>,
    node: &Node,
    fields: &[Field],
    decoded: &SchemaRef,
    typed: bool,
) -> (Vec<Computed>, SchemaRef, bool) {
    let mut schema = Arc::clone(decoded);
    let mut computed = Vec::new();
    let mut complete = true;
    for entry in node.get("enrich").map(Node::entries).unwrap_or_default() {
        if schema.column_with_name(&entry.key).is_some() {
            let what = if fields.iter().any(|f| f.name == entry.key) { "a field" } else { "taken" };
            let message = format!("`{}` is {what} already", entry.key);
            let diagnostic =
                cx.at("reserved_name", entry.key_span, message).fix("give the computed column another name");
            cx.push(diagnostic);
            complete = false;
            continue;
        }
        if !typed {
            // The columns are not all known; only the grammar can be checked.
            cx.mentions(&entry.value);
            continue;
        }
        let Some(expr) = cx.compile(&entry.value, &scope(&schema)) else {
            complete = false;
            continue;
        };
        let column = ArrowField::new(&entry.key, expr.ty.arrow().unwrap_or(DataType::Null), true);
        schema = with_columns(&schema, [column]);
        computed.push(Computed { name: entry.key.clone(), expr });
    }
    (computed, schema, complete)
}

fn rules(cx: &mut Cx<'_>, node: &Node, admitted: &SchemaRef, typed: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    for entry in node.get("rules").map(Node::entries).unwrap_or_default() {
        let Some(check) = entry.value.get("check") else { continue };
        if !typed {
            cx.mentions(check);
            continue;
        }
        let what = format!("the rule `{}`", entry.key);
        let Some(check) = cx.condition(check, &scope(admitted), &what) else { continue };
        let warning = entry.value.get("severity").and_then(Node::scalar) == Some("warning");
        rules.push(Rule {
            name: entry.key.clone(),
            check,
            severity: if warning { Severity::Warning } else { Severity::Error },
        });
    }
    rules
}

/// A scope of nothing but columns.
pub(crate) fn scope(schema: &SchemaRef) -> Scope {
    Scope {
        schema: Arc::clone(schema),
        qualifiers: vec!["row".to_string()],
        absent: Default::default(),
        renames: Default::default(),
        parts: Default::default(),
    }
}

/// `schema` with more columns at its end.
pub(crate) fn with_columns(schema: &SchemaRef, columns: impl IntoIterator<Item = ArrowField>) -> SchemaRef {
    let old = schema.fields().iter().map(|field| field.as_ref().clone());
    Arc::new(Schema::new(old.chain(columns).collect::<Vec<_>>()))
}
