//! Event types that can meet, and tables.
//!
//! *In*: a generator. *Out*: YAML of one to five event types and up to two tables, and their models.
//! *Never*: a contract that `check` refuses.

use super::super::contract::head;
use super::super::{Column, T};
use super::{Feed, Model, TableModel, chance, pick};
use crate::oracle::change::PLAIN;

/// Columns that rows meet by: the same few values everywhere.
const KEYS: [(&str, T); 3] = [("k1", T::Text), ("k2", T::Text), ("n", T::Int)];

/// Other columns: name (also its kind), options, type.
const VALUES: [(&str, &str, T); 7] = [
    ("region", "type: string, enum: [eu, us, asia, '']", T::Text),
    ("qty", "type: int, max: 1000", T::Int),
    ("price", "type: \"decimal(10,2)\", max: \"500.00\"", T::Dec),
    ("score", "type: float", T::Float),
    ("flag", "type: bool", T::Bool),
    ("day", "type: date", T::Date),
    ("started", "type: timestamp", T::Ts),
];

/// The event types, those that feed tables last, and the tables.
pub(super) fn contracts(
    rng: &mut fastrand::Rng,
    fresh: bool,
    yaml: &mut String,
) -> (Vec<Model>, Vec<TableModel>) {
    let mut names: [(&str, Feed); 6] = [
        ("dev.change", Feed::Plain),
        ("dev.build", Feed::Plain),
        ("dev.deploy", Feed::Plain),
        (PLAIN, Feed::Rows),
        ("cdc.shop.public.orders", Feed::Debezium),
        ("cdc.shop.public.jobs", Feed::Debezium),
    ];
    let mut models: Vec<Model> = Vec::new();
    rng.shuffle(&mut names);
    // Few types, so that their rows meet often.
    let most = rng.usize(1..4);
    for (name, feed) in names {
        if models.len() < most && chance(rng, 50) {
            models.push(stream(rng, name, feed, fresh, yaml));
        }
    }
    if models.is_empty() {
        models.push(stream(rng, "dev.change", Feed::Plain, fresh, yaml));
    }
    if fresh {
        for model in models.iter_mut().filter(|model| model.feed == Feed::Plain) {
            model.ids = chance(rng, 70);
        }
    }
    let mut tables = Vec::new();
    if fresh && chance(rng, 80) {
        tables.push(followed(rng, "owners", "k1", &OWNER, &mut models, yaml));
        if chance(rng, 60) {
            tables.push(followed(rng, "teams", "k2", &TEAM, &mut models, yaml));
        }
        return (models, tables);
    }
    if chance(rng, 60) {
        tables.push(table(rng, "owners", "ref.owner", "k1", &OWNER, &mut models, yaml));
    }
    if chance(rng, 40) {
        tables.push(table(rng, "teams", "ref.team", "k2", &TEAM, &mut models, yaml));
    }
    (models, tables)
}

fn stream(rng: &mut fastrand::Rng, name: &str, feed: Feed, fresh: bool, yaml: &mut String) -> Model {
    let mut model = Model {
        name: name.to_string(),
        feed,
        fields: Vec::new(),
        key: None,
        also: None,
        timed: false,
        ids: true,
        columns: Vec::new(),
    };
    let mut lines = String::new();
    let mut add = |name: &'static str, kind: &'static str, options: &str, t: Option<T>| {
        lines += &format!("  {name}: {{ {options} }}\n");
        model.fields.push((name, kind));
        model.columns.extend(t.map(|t| Column { name: name.into(), t }));
    };
    if feed != Feed::Plain {
        model.key = Some("id");
        let numbers = chance(rng, 30);
        let (options, kind) = if numbers { ("type: int", "number") } else { ("type: string", "id") };
        add("id", kind, &format!("{options}, required: true"), Some(if numbers { T::Int } else { T::Text }));
        if chance(rng, 60) {
            model.timed = true;
            add("created", "created", "type: timestamp", None);
        }
    }
    if fresh && feed == Feed::Debezium {
        if chance(rng, 40) {
            add("line", "line", "type: string, required: true", Some(T::Text));
        }
        if chance(rng, 60) {
            add("note", "note", "type: string", Some(T::Text));
        }
    }
    for (name, t) in KEYS {
        add(name, name, if t == T::Int { "type: int" } else { "type: string" }, Some(t));
    }
    for (name, options, t) in VALUES {
        if chance(rng, 60) || name == "qty" {
            add(name, name, options, Some(t));
        }
    }
    model.columns.push(Column { name: "time".into(), t: T::Ts });
    head(yaml, "Event", name);
    if feed != Feed::Plain {
        model.also = model.fields.iter().find(|(name, _)| *name == "line").map(|(name, _)| *name);
        let key = if model.also.is_some() { "[id, line]" } else { "id" };
        *yaml += &format!("changelog: true\nkey: {key}\n");
    }
    if model.timed {
        *yaml += "time: created\n";
    }
    *yaml += &format!("fields:\n{lines}");
    if chance(rng, 30) {
        *yaml += "enrich:\n  label: \"coalesce(k1, 'none') || '/' || coalesce(k2, 'none')\"\n";
        model.columns.push(Column { name: "label".into(), t: T::Text });
    }
    model
}

/// Columns of a table beside its key.
type Facts = [(&'static str, &'static str, T)];

const OWNER: [(&str, &str, T); 2] = [("team", "type: string", T::Text), ("weight", "type: int", T::Int)];
const TEAM: [(&str, &str, T); 2] =
    [("org", "type: string", T::Text), ("rate", "type: \"decimal(6,2)\"", T::Dec)];

/// A table that follows a change stream: by the stream's key, or by rows that say from when on they hold.
fn followed(
    rng: &mut fastrand::Rng,
    name: &'static str,
    key: &'static str,
    facts: &Facts,
    models: &mut Vec<Model>,
    yaml: &mut String,
) -> TableModel {
    let event = format!("cdc.ref.{name}");
    let valid = *pick(
        rng,
        &["", "", "", "valid_to: until\n", "valid_from: since\n", "valid_from: since\nvalid_to: until\n"],
    );
    let named = if valid.contains("since") { "id" } else { key };
    let mut lines = format!("  {named}: {{ type: string, required: true }}\n");
    let mut fields = vec![(named, named)];
    let mut columns = vec![Column { name: named.into(), t: T::Text }];
    let mut add = |name: &'static str, options: &str, t: T| {
        lines += &format!("  {name}: {{ {options} }}\n");
        fields.push((name, name));
        columns.push(Column { name: name.into(), t });
    };
    if named != key {
        add(key, "type: string", T::Text);
    }
    facts.iter().for_each(|(name, options, t)| add(name, options, *t));
    for field in ["since", "until"] {
        if valid.contains(field) {
            add(field, "type: timestamp", T::Ts);
        }
    }
    let timed = chance(rng, 50);
    head(yaml, "Event", &event);
    *yaml += &format!("changelog: true\nkey: {named}\n");
    *yaml += if timed { "time: created\nfields:\n  created: { type: timestamp }\n" } else { "fields:\n" };
    *yaml += &lines;
    head(yaml, "Table", name);
    *yaml += &format!("key: {key}\n{valid}source: {{ event: {event} }}\nfields:\n{lines}");
    if timed {
        fields.push(("created", "created"));
    }
    let feed = Feed::Debezium;
    models.push(Model {
        name: event,
        feed,
        fields,
        key: Some(named),
        also: None,
        timed,
        ids: true,
        columns: Vec::new(),
    });
    TableModel { name, key, columns }
}

fn table(
    rng: &mut fastrand::Rng,
    name: &'static str,
    event: &str,
    key: &'static str,
    facts: &Facts,
    models: &mut Vec<Model>,
    yaml: &mut String,
) -> TableModel {
    let mut lines = format!("  {key}: {{ type: string }}\n");
    let mut fields = vec![(key, key)];
    let mut columns = vec![Column { name: key.into(), t: T::Text }];
    for (name, options, t) in facts {
        lines += &format!("  {name}: {{ {options} }}\n");
        fields.push((*name, *name));
        columns.push(Column { name: (*name).into(), t: *t });
    }
    let valid = *pick(rng, &["", "", "valid_from: since\n", "valid_from: since\nvalid_to: until\n"]);
    let days = chance(rng, 15);
    for (field, day) in [("since", "since_day"), ("until", "until_day")] {
        if valid.contains(field) {
            lines += &format!("  {field}: {{ type: {} }}\n", if days { "date" } else { "timestamp" });
            fields.push((field, if days { day } else { field }));
            columns.push(Column { name: field.into(), t: if days { T::Date } else { T::Ts } });
        }
    }
    head(yaml, "Event", event);
    *yaml += &format!("fields:\n{lines}");
    head(yaml, "Table", name);
    *yaml += &format!("key: {key}\n{valid}source: {{ event: {event} }}\nfields:\n{lines}");
    models.push(Model {
        name: event.to_string(),
        feed: Feed::Plain,
        fields,
        key: Some(key),
        also: None,
        timed: false,
        ids: true,
        columns: Vec::new(),
    });
    TableModel { name, key, columns }
}
