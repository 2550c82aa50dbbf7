//! `kind: Entity` into the catalog.
//!
//! *In*: an entity document and the lowered events. *Out*: [`Entity`] with its row schema. *Never*: rows.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};

use crate::catalog::{Entity, EntityFeed, EntityField, EntityFold};
use crate::expr::{self, Typed};
use crate::shape::FOLDS;
use crate::value::{ValueType, timestamp_type};
use crate::yaml::{Entry, Node, Yaml};

use super::event::scope;
use super::head::head;
use super::{Cx, Lowered, World, one_or_many};

const FIRST_TIME: &str = "first_time";
const TIME: &str = "time";

/// Lowers the entity of `node`.
pub(crate) fn entity(cx: &mut Cx<'_>, node: &Node, world: &World) -> Lowered<Entity> {
    let head = head(cx, node);
    let events = events(cx, node, world, &head);
    let key = node.get("key").and_then(Node::scalar).unwrap_or_default().to_string();
    let named = node.get("events").map(one_or_many).unwrap_or_default().len();
    let known = events.len() == named && events.iter().all(|&e| world.events[e].typed);
    let mut typed = known;
    let mut feeds: Vec<EntityFeed> = Vec::new();
    if known {
        for &event in &events {
            match row_key(cx, node, world, event) {
                Some(key) => {
                    let changelog = world.events[event].item.changelog;
                    feeds.push(EntityFeed { event, changelog, key, values: Vec::new() });
                }
                None => typed = false,
            }
        }
    }
    let mut fields = Vec::new();
    for entry in node.get("fields").map(Node::entries).unwrap_or_default() {
        let Some((fold, place)) = fold_of(cx, entry) else {
            typed = false;
            continue;
        };
        if entry.key == key {
            let message = format!("`{key}` is the key and a field of the row already");
            let diagnostic = cx.at("reserved_name", entry.key_span, message).fix("remove the field");
            cx.push(diagnostic);
            continue;
        }
        if !known || feeds.len() != events.len() {
            cx.mentions(place);
            continue;
        }
        let only = only(cx, entry, world, &events);
        match values(cx, place, fold, world, &events, &only) {
            Some((values, ty)) => {
                for (feed, value) in feeds.iter_mut().zip(values) {
                    feed.values.push(value);
                }
                fields.push(EntityField { name: entry.key.clone(), fold, ty });
            }
            None => typed = false,
        }
    }
    let schema = row_schema(&key, &fields);
    let history = match node.get("history").map(|n| &n.value) {
        Some(Yaml::Int(value, _)) => usize::try_from(*value).unwrap_or(1).max(1),
        _ => 1000,
    };
    let item = Entity { head, key, feeds, fields, schema, history };
    Lowered { item, sound: cx.out.iter().all(|d| !d.is_error()), typed }
}

fn events(cx: &mut Cx<'_>, node: &Node, world: &World, head: &crate::catalog::Head) -> Vec<usize> {
    let mut events = Vec::new();
    let Some(list) = node.get("events") else { return events };
    let names = one_or_many(list);
    if names.is_empty() {
        let diagnostic = cx
            .at("empty_contract", list.span, "nothing moves this entity")
            .fix("name at least one event type");
        cx.push(diagnostic);
    }
    for name in names {
        let Some(event) = cx.event(name, world) else { continue };
        if events.contains(&event) {
            let message = format!("`{}` stands twice in `events`", name.shown());
            let diagnostic = cx.at("duplicate_value", name.span, message).fix("remove one of them");
            cx.push(diagnostic);
            continue;
        }
        cx.depends(name.span, head.status, &world.event_dependency(event));
        events.push(event);
    }
    events
}

/// The key over one event, as text.
fn row_key(cx: &mut Cx<'_>, node: &Node, world: &World, event: usize) -> Option<Typed> {
    let place = node.get("key")?;
    let sql = place.scalar()?;
    let event = &world.events[event].item;
    let scope = scope(&event.admitted);
    if event.admitted.column_with_name(sql).is_none() {
        let names = event.admitted.fields().iter().map(|f| f.name().as_str());
        let message = format!("the key `{sql}` is not a column of {}", event.head.name);
        let diagnostic = cx
            .at("unknown_name", place.span, message)
            .names(sql, names)
            .fix(format!("add it to {} under `fields` or `enrich`", event.head.name));
        cx.push(diagnostic);
        return None;
    }
    let typed = cx.compile(place, &scope)?;
    if typed.ty == ValueType::Text {
        return Some(typed);
    }
    expr::compile(&format!("CAST({sql} AS VARCHAR)"), &scope).ok()
}

fn fold_of<'n>(cx: &mut Cx<'_>, entry: &'n Entry) -> Option<(EntityFold, &'n Node)> {
    let given: Vec<&Entry> =
        entry.value.entries().iter().filter(|e| FOLDS.contains(&e.key.as_str())).collect();
    let [only] = given[..] else {
        let message = format!("the field `{}` needs exactly one fold", entry.key);
        let diagnostic = cx
            .at("exactly_one", entry.key_span, message)
            .found(entry.value.shown())
            .allowed(FOLDS.join(", "));
        cx.push(diagnostic);
        return None;
    };
    let fold = match only.key.as_str() {
        "first" => EntityFold::First,
        "last" => EntityFold::Last,
        "count" => EntityFold::Count,
        "sum" => EntityFold::Sum,
        "min" => EntityFold::Min,
        "max" => EntityFold::Max,
        _ => EntityFold::Set,
    };
    only.value.scalar().map(|_| (fold, &only.value))
}

/// Whether each event may touch the field.
fn only(cx: &mut Cx<'_>, entry: &Entry, world: &World, events: &[usize]) -> Vec<bool> {
    let Some(list) = entry.value.get("events") else { return vec![true; events.len()] };
    let names: Vec<&str> = events.iter().map(|&e| world.events[e].item.head.name.as_str()).collect();
    let wanted = one_or_many(list);
    for node in &wanted {
        let name = node.scalar().unwrap_or_default();
        if !names.contains(&name) {
            let message = format!("`{name}` is not among the entity's events");
            let diagnostic = cx.at("unknown_event", node.span, message).names(name, names.iter().copied());
            cx.push(diagnostic);
        }
    }
    names.iter().map(|name| wanted.iter().any(|node| node.scalar() == Some(name))).collect()
}

/// The field's expression over each event and the type of its fold.
fn values(
    cx: &mut Cx<'_>,
    place: &Node,
    fold: EntityFold,
    world: &World,
    events: &[usize],
    only: &[bool],
) -> Option<(Vec<Option<Typed>>, ValueType)> {
    let rows = fold == EntityFold::Count && place.scalar() == Some("*");
    let sql = if rows { "true" } else { place.scalar()? };
    let mentioned = if rows { Vec::new() } else { cx.mentions(place)? };
    let touched: Vec<bool> = events
        .iter()
        .zip(only)
        .map(|(&event, allowed)| {
            let schema = &world.events[event].item.admitted;
            *allowed && mentioned.iter().all(|path| has_column(schema, path))
        })
        .collect();
    if !touched.contains(&true) {
        unknown_column(cx, place, world, events, only, &mentioned);
        return None;
    }
    let mut values: Vec<Option<Typed>> = Vec::new();
    for (&event, touched) in events.iter().zip(&touched) {
        if !touched {
            values.push(None);
            continue;
        }
        let scope = scope(&world.events[event].item.admitted);
        values.push(Some(if rows { expr::compile(sql, &scope).ok()? } else { cx.compile(place, &scope)? }));
    }
    let ty = unified(cx, place, &values)?;
    for (&event, value) in events.iter().zip(&mut values) {
        if let Some(typed) = value
            && typed.ty != ty
        {
            *typed = cast(sql, &ty, &scope(&world.events[event].item.admitted))?;
        }
    }
    let ty = folded(cx, place, fold, ty)?;
    Some((values, ty))
}

fn has_column(schema: &SchemaRef, path: &[String]) -> bool {
    let name = match path {
        [first, second, ..] if first == "row" => second,
        [first, ..] => first,
        [] => return true,
    };
    schema.column_with_name(name).is_some()
}

fn unknown_column(
    cx: &mut Cx<'_>,
    place: &Node,
    world: &World,
    events: &[usize],
    only: &[bool],
    mentioned: &[Vec<String>],
) {
    let mut columns: Vec<&str> = Vec::new();
    for (&event, _) in events.iter().zip(only).filter(|(_, allowed)| **allowed) {
        for field in world.events[event].item.admitted.fields() {
            if !columns.contains(&field.name().as_str()) {
                columns.push(field.name());
            }
        }
    }
    let missing = mentioned.iter().map(|path| path[0].as_str()).find(|n| !columns.contains(n));
    let diagnostic = match missing {
        Some(name) => {
            let message = format!("none of the entity's events has a column `{name}`");
            cx.at("unknown_name", cx.place_of(place, name), message).names(name, columns)
        }
        None => cx
            .at("unknown_name", place.span, "no single event has all these columns")
            .found(place.shown())
            .fix("use columns that occur together in one event, or fold them as fields of their own"),
    };
    cx.push(diagnostic);
}

/// The one type all events give the field.
fn unified(cx: &mut Cx<'_>, place: &Node, values: &[Option<Typed>]) -> Option<ValueType> {
    let mut types = values.iter().flatten().map(|typed| typed.ty.clone());
    let first = types.next()?;
    types.try_fold(first, |a, b| match unify(&a, &b) {
        Some(ty) => Some(ty),
        None => {
            let message = format!("the events disagree about the type: {a} and {b}");
            let diagnostic =
                cx.at("type_conflict", place.span, message).found(place.shown()).fix("CAST it to one type");
            cx.push(diagnostic);
            None
        }
    })
}

/// The type that holds the values of both exactly.
pub(crate) fn unify(a: &ValueType, b: &ValueType) -> Option<ValueType> {
    use ValueType::{Decimal, Float, Int};
    match (a, b) {
        (a, b) if a == b => Some(a.clone()),
        (Int, Float) | (Float, Int) => Some(Float),
        (Int, Decimal { scale, .. }) | (Decimal { scale, .. }, Int) => {
            Some(Decimal { precision: 38, scale: *scale })
        }
        (Decimal { precision: p, scale: s }, Decimal { precision: q, scale: t }) => {
            let scale = *s.max(t);
            let whole = (*p as i8 - s).max(*q as i8 - t);
            let precision = u8::try_from(whole + scale).unwrap_or(38).min(38);
            Some(Decimal { precision, scale })
        }
        _ => None,
    }
}

/// `sql` as a `ty`.
pub(crate) fn cast(sql: &str, ty: &ValueType, scope: &expr::Scope) -> Option<Typed> {
    let target = match ty {
        ValueType::Float => "DOUBLE".to_string(),
        ValueType::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
        ValueType::Int => "BIGINT".to_string(),
        _ => return None,
    };
    let mut typed = expr::compile(&format!("CAST(({sql}) AS {target})"), scope).ok()?;
    typed.sql = sql.to_string();
    Some(typed)
}

/// The type of the folded value; for `set` that of its items.
fn folded(cx: &mut Cx<'_>, place: &Node, fold: EntityFold, ty: ValueType) -> Option<ValueType> {
    match (fold, ty) {
        (EntityFold::Count, _) => Some(ValueType::Int),
        (EntityFold::Sum, ValueType::Decimal { scale, .. }) => {
            Some(ValueType::Decimal { precision: 38, scale })
        }
        (EntityFold::Sum, ty @ (ValueType::Int | ValueType::Float | ValueType::Duration)) => Some(ty),
        (EntityFold::Sum, ty) => {
            let message = format!("`sum` adds numbers, but this is {ty}");
            let diagnostic = cx
                .at("wrong_aggregate", place.span, message)
                .found(place.shown())
                .allowed("int, float, decimal or duration");
            cx.push(diagnostic);
            None
        }
        (_, ty) => Some(ty),
    }
}

fn row_schema(key: &str, fields: &[EntityField]) -> SchemaRef {
    let mut columns = vec![ArrowField::new(key, DataType::Utf8, false)];
    for field in fields {
        let value = field.ty.arrow().unwrap_or(DataType::Null);
        let ty = match field.fold {
            EntityFold::Set => DataType::List(Arc::new(ArrowField::new("item", value, true))),
            _ => value,
        };
        columns.push(ArrowField::new(&field.name, ty, true));
    }
    for name in [FIRST_TIME, TIME] {
        if !columns.iter().any(|column| column.name() == name) {
            columns.push(ArrowField::new(name, timestamp_type(), false));
        }
    }
    Arc::new(Schema::new(columns))
}
