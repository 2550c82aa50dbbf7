//! Random event contracts.
//!
//! *In*: a generator. *Out*: YAML of one to four event types, and their models. *Never*: a contract
//! that `check` refuses.

use super::{Column, EventModel, FieldModel, T, chance, pick};
use crate::oracle::zone::{DAY, HOUR, SECOND};

/// A field of the pool: name, kind (see `events::value`), type of its column.
type Pool = (&'static str, &'static str, T);

const POOL: [Pool; 16] = [
    ("region", "region", T::Text),
    ("user_id", "user", T::Text),
    ("status", "status", T::Text),
    ("qty", "qty", T::Int),
    ("bonus", "bonus", T::Int),
    ("big", "big", T::Big),
    ("score", "score", T::Float),
    ("price", "price", T::Dec),
    ("fee", "fee", T::Dec),
    ("huge", "huge", T::Huge),
    ("flag", "flag", T::Bool),
    ("day", "day", T::Date),
    ("started", "started", T::Ts),
    ("items", "items", T::Nested),
    ("tags", "tags", T::Nested),
    ("address", "address", T::Nested),
];

/// An enrich column of the pool: name, expression, fields it reads, type.
type Computed = (&'static str, &'static str, &'static [&'static str], T);

const ENRICH: [Computed; 13] = [
    ("units", "sum_of(items, q)", &["items"], T::Int),
    ("worth", "sum_of(items, q * p)", &["items"], T::Dec),
    ("lines", "count_of(items)", &["items"], T::Int),
    ("dearest", "max_of(items, p)", &["items"], T::Dec),
    ("total", "qty * price", &["qty", "price"], T::Dec),
    (
        "size",
        "CASE WHEN price < 50 THEN 'small' WHEN price < 200.00 THEN 'medium' ELSE 'large' END",
        &["price"],
        T::Text,
    ),
    ("per", "1000 / qty", &["qty"], T::Int),
    ("doubled", "big * 2", &["big"], T::Big),
    ("label", "upper(coalesce(region, 'none')) || '-' || status", &["region", "status"], T::Text),
    ("wait", "time - started", &["started"], T::Dur),
    ("safe", "qty <> 0 AND 100 / qty > 3", &["qty"], T::Bool),
    ("weighed", "score * 0.5 + qty", &["score", "qty"], T::Float),
    ("city", "address['city']", &["address"], T::Text),
];

/// A rule of the pool: name, check, fields it reads.
const RULES: [(&str, &str, &[&str]); 9] = [
    ("qty_low", "qty > -50", &["qty"]),
    ("dear", "price < 900.00", &["price"]),
    ("fits", "abs(price - sum_of(items, q * p)) <= 5000.50", &["price", "items"]),
    ("scored", "score IS NULL OR score > -5", &["score"]),
    ("tenth", "10 / qty < 100", &["qty"]),
    ("ordered", "started <= time", &["started"]),
    ("short", "length(status) < 9 OR status LIKE '%é%'", &["status"]),
    ("regional", "region IN ('eu', 'us', 'asia') OR region IS NULL", &["region"]),
    ("sane", "NOT (flag AND bonus < 0)", &["flag", "bonus"]),
];

/// One to four event types.
pub(super) fn events(rng: &mut fastrand::Rng, yaml: &mut String) -> Vec<EventModel> {
    let count = rng.usize(1..5);
    (0..count).map(|i| event(rng, i, yaml)).collect()
}

fn event(rng: &mut fastrand::Rng, index: usize, yaml: &mut String) -> EventModel {
    let name = ["shop.order", "shop.refund", "visit", "ticket/closed"][index].to_string();
    let dedupe = *pick(rng, &[DAY, DAY, HOUR, 10 * SECOND, 0]);
    let mut lines = String::new();
    let mut model =
        EventModel { name, fields: Vec::new(), time: None, id: None, dedupe, columns: Vec::new() };
    if chance(rng, 50) {
        model.id = Some("eid".to_string());
        let required = chance(rng, 70);
        lines += &format!("  eid: {{ type: string, required: {required} }}\n");
        model.fields.push(FieldModel { path: vec!["eid".into()], kind: "id", required });
    }
    if chance(rng, 40) {
        model.time = Some("ts".to_string());
        let required = chance(rng, 70);
        lines += &format!("  ts: {{ type: timestamp, required: {required} }}\n");
        model.fields.push(FieldModel { path: vec!["ts".into()], kind: "time", required });
    }
    for (name, kind, t) in POOL {
        if chance(rng, 65) {
            field(rng, name, kind, t, &mut model, &mut lines);
        }
    }
    if !model.columns.iter().any(|c| c.name == "qty") {
        field(rng, "qty", "qty", T::Int, &mut model, &mut lines);
    }
    model.columns.push(Column { name: "time".into(), t: T::Ts });
    head(yaml, "Event", &model.name);
    for (key, value) in [("time", &model.time), ("id", &model.id)] {
        if let Some(value) = value {
            *yaml += &format!("{key}: {value}\n");
        }
    }
    if dedupe != DAY || chance(rng, 30) {
        *yaml += &format!("dedupe: {}s\n", dedupe / SECOND);
    }
    *yaml += "fields:\n";
    *yaml += &lines;
    rules(rng, &model, yaml);
    enrich(rng, &mut model, yaml);
    model
}

/// `apiVersion`, `kind`, `name`, `version` of a new document.
pub(super) fn head(yaml: &mut String, kind: &str, name: &str) {
    if !yaml.is_empty() {
        *yaml += "---\n";
    }
    *yaml += &format!("apiVersion: streamgauge/v1\nkind: {kind}\nname: {name}\nversion: 1.0.0\n");
}

fn field(
    rng: &mut fastrand::Rng,
    name: &str,
    kind: &'static str,
    t: T,
    model: &mut EventModel,
    lines: &mut String,
) {
    let mut options = match kind {
        "region" | "user" | "status" => vec!["type: string".to_string()],
        "qty" | "bonus" | "big" => vec!["type: int".to_string()],
        "score" => vec!["type: float".to_string()],
        "price" => vec!["type: \"decimal(10,2)\"".to_string()],
        "fee" => vec!["type: \"decimal(18,4)\"".to_string()],
        "huge" => vec!["type: \"decimal(38,6)\"".to_string()],
        "flag" => vec!["type: bool".to_string()],
        "day" => vec!["type: date".to_string()],
        "started" => vec!["type: timestamp".to_string()],
        "items" => {
            let max = if chance(rng, 50) { ", max: 100" } else { "" };
            vec![
                "type: list".to_string(),
                format!(
                    "fields: {{ q: {{ type: int{max} }}, p: {{ type: \"decimal(10,2)\", min: \"-10\" }}, product: {{ type: string }} }}"
                ),
            ]
        }
        "tags" => vec!["type: list".to_string(), "items: string".to_string()],
        _ => vec![
            "type: struct".to_string(),
            "fields: { city: { type: string, max_length: 12 }, zip: { type: int } }".to_string(),
        ],
    };
    for (percent, option) in checks(kind) {
        if chance(rng, *percent) {
            options.push((*option).to_string());
        }
    }
    let required = chance(rng, 15);
    if required {
        options.push("required: true".to_string());
    }
    let path =
        if chance(rng, 15) { vec!["data".to_string(), name.to_string()] } else { vec![name.to_string()] };
    if path.len() > 1 {
        options.push(format!("from: {}", path.join(".")));
    }
    *lines += &format!("  {name}: {{ {} }}\n", options.join(", "));
    model.fields.push(FieldModel { path, kind, required });
    model.columns.push(Column { name: name.into(), t });
}

/// Options that a field of a kind may have, with how often.
fn checks(kind: &str) -> &'static [(u32, &'static str)] {
    match kind {
        "region" => &[(40, "enum: [eu, us, asia, 日本, '']"), (20, "default: eu")],
        "user" => &[(40, "pattern: \"^u[0-9]+$\"")],
        "status" => &[(30, "min_length: 1"), (30, "max_length: 12"), (20, "default: open")],
        "qty" => &[(30, "min: -100"), (30, "max: 1000"), (20, "default: 1")],
        "bonus" => &[(20, "min: 0")],
        "score" => &[(20, "min: -100.5"), (20, "max: 1000000.25"), (20, "default: 0.5")],
        "price" => &[(30, "min: \"0\""), (20, "max: \"9999.99\""), (20, "default: \"9.90\"")],
        "fee" => &[(20, "max: \"1000.5\"")],
        "flag" => &[(20, "default: false")],
        "items" => &[(20, "min_length: 1"), (20, "max_length: 3")],
        "tags" => &[(20, "max_length: 2")],
        _ => &[],
    }
}

fn has(model: &EventModel, names: &[&str]) -> bool {
    names.iter().all(|name| model.columns.iter().any(|c| c.name == *name))
}

fn rules(rng: &mut fastrand::Rng, model: &EventModel, yaml: &mut String) {
    let mut lines = String::new();
    for (name, check, reads) in RULES {
        if has(model, reads) && chance(rng, 20) {
            let severity = *pick(rng, &["error", "error", "warning"]);
            lines += &format!("  {name}: {{ check: \"{check}\", severity: {severity} }}\n");
        }
    }
    if !lines.is_empty() {
        *yaml += &format!("rules:\n{lines}");
    }
}

fn enrich(rng: &mut fastrand::Rng, model: &mut EventModel, yaml: &mut String) {
    let mut lines = String::new();
    for (name, ex, reads, t) in ENRICH {
        if has(model, reads) && chance(rng, 35) {
            lines += &format!("  {name}: \"{ex}\"\n");
            model.columns.push(Column { name: name.into(), t });
        }
    }
    if !lines.is_empty() {
        *yaml += &format!("enrich:\n{lines}");
    }
}
