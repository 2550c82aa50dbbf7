//! Contracts and answers as JSON, the same everywhere they are shown.
//!
//! *In*: the catalog and the engine's answers. *Out*: JSON objects with the promised names.
//! *Never*: a number that the engine did not give.

use contracts::Catalog;
use contracts::catalog::{
    Agg, CalendarUnit, Event, Field, Head, Input, Measure, MeasureKind, Metric, Micros, Overflow, Status,
    Window, WindowKind,
};
use contracts::value::ValueType;
use contracts::value::time::format_timestamp;
use engine::{Answer, Published, Row};
use serde_json::{Map, Value as Json, json};

use super::params::{age_ms, age_seconds};

/// `major.minor.patch`.
pub(crate) fn version(head: &Head) -> String {
    let (major, minor, patch) = head.version;
    format!("{major}.{minor}.{patch}")
}

/// `status:` as written in contracts.
pub(crate) fn status(status: Status) -> &'static str {
    match status {
        Status::Draft => "draft",
        Status::Active => "active",
        Status::Deprecated => "deprecated",
        Status::Retired => "retired",
    }
}

/// `{version, hash}`.
pub(crate) fn contract(head: &Head) -> Json {
    json!({ "version": version(head), "hash": head.hash })
}

/// `owner`, null where there is none.
pub(crate) fn owner(head: &Head) -> Json {
    match (&head.team, &head.contact) {
        (None, None) => Json::Null,
        (team, contact) => json!({ "team": team, "contact": contact }),
    }
}

/// The first measure that is shown, which `value` is about.
pub(crate) fn main_measure(metric: &Metric) -> Option<&Measure> {
    metric.measures.iter().find(|m| !m.hidden)
}

/// The unit of a measure: as declared, else what follows from how it is computed.
pub(crate) fn unit(metric: &Metric, measure: &Measure) -> String {
    if let Some(unit) = &measure.unit {
        return unit.clone();
    }
    let by_kind = match &measure.kind {
        MeasureKind::Ratio(..) => "ratio",
        MeasureKind::Fold(fold) => match metric.folds.get(*fold).map(|f| &f.agg) {
            Some(
                Agg::Count | Agg::Distinct | Agg::DistinctApprox | Agg::Concurrent | Agg::Histogram { .. },
            ) => "count",
            Some(Agg::Rate { .. }) => "per_second",
            _ => "",
        },
        MeasureKind::Expr { .. } => "",
        MeasureKind::Shift { of, .. } => {
            return metric.measures.get(*of).map_or_else(String::new, |m| unit(metric, m));
        }
        MeasureKind::Over { agg: Agg::Count, .. } => "count",
        MeasureKind::Over { of, .. } => {
            return metric.measures.get(*of).map_or_else(String::new, |m| unit(metric, m));
        }
    };
    if measure.ty == ValueType::Duration { "s".to_owned() } else { by_kind.to_owned() }
}

/// Unit of the metric: that of its first visible measure.
pub(crate) fn metric_unit(metric: &Metric) -> String {
    main_measure(metric).map_or_else(String::new, |m| unit(metric, m))
}

fn seconds(micros: Micros) -> Json {
    if micros % 1_000_000 == 0 { json!(micros / 1_000_000) } else { json!(micros as f64 / 1e6) }
}

fn calendar(unit: CalendarUnit) -> &'static str {
    match unit {
        CalendarUnit::Hour => "hour",
        CalendarUnit::Day => "day",
        CalendarUnit::Week => "week",
        CalendarUnit::Month => "month",
        CalendarUnit::Quarter => "quarter",
        CalendarUnit::Year => "year",
    }
}

/// `{name, kind, ...}`.
pub(crate) fn window(window: &Window) -> Json {
    let name = &window.name;
    match &window.kind {
        WindowKind::Tumbling { size } => {
            json!({ "name": name, "kind": "tumbling", "size_seconds": seconds(*size) })
        }
        WindowKind::Days { days, tz } => json!({ "name": name, "kind": "tumbling", "days": days, "tz": tz }),
        WindowKind::Sliding { size, every } => {
            json!({ "name": name, "kind": "sliding", "size_seconds": seconds(*size), "every_seconds": seconds(*every) })
        }
        WindowKind::Session { gap } => {
            json!({ "name": name, "kind": "session", "gap_seconds": seconds(*gap) })
        }
        WindowKind::ToDate { unit, tz } => {
            json!({ "name": name, "kind": "to_date", "unit": calendar(*unit), "tz": tz })
        }
        WindowKind::All => json!({ "name": name, "kind": "all" }),
    }
}

/// How a measure is computed, in contract words.
fn kind(metric: &Metric, measure: &Measure) -> Json {
    let name = |index: &usize| metric.measures.get(*index).map(|m| m.name.clone());
    match &measure.kind {
        MeasureKind::Fold(fold) => json!({ "agg": metric.folds.get(*fold).map(|f| agg(&f.agg)) }),
        MeasureKind::Ratio(a, b) => json!({ "ratio": [name(a), name(b)] }),
        MeasureKind::Expr { expr, .. } => json!({ "expr": expr.sql }),
        MeasureKind::Shift { of, by } => json!({ "shift": name(of), "by_seconds": seconds(*by) }),
        MeasureKind::Over { of, window, last, running, agg: folds, .. } => json!({
            "over": name(of),
            "window": metric.windows.get(*window).map(|window| window.name.clone()),
            "last": last,
            "running": running,
            "agg": agg(folds),
        }),
    }
}

fn agg(agg: &Agg) -> &'static str {
    match agg {
        Agg::Count => "count",
        Agg::Sum => "sum",
        Agg::Avg => "avg",
        Agg::Min => "min",
        Agg::Max => "max",
        Agg::First => "first",
        Agg::Last => "last",
        Agg::Distinct => "distinct",
        Agg::DistinctApprox => "distinct_approx",
        Agg::Top { .. } => "top",
        Agg::Quantile { .. } | Agg::QuantileSketch { .. } => "quantile",
        Agg::Histogram { .. } => "histogram",
        Agg::Stddev => "stddev",
        Agg::Rate { .. } => "rate",
        Agg::Concurrent => "concurrent",
        Agg::DurationInState => "duration_in_state",
    }
}

/// The measures of a metric.
pub(crate) fn measures(metric: &Metric) -> Json {
    metric
        .measures
        .iter()
        .map(|m| {
            let mut out = json!({
                "name": m.name,
                "type": m.ty.to_string(),
                "unit": unit(metric, m),
                "hidden": m.hidden,
            });
            if let (Some(out), Json::Object(kind)) = (out.as_object_mut(), kind(metric, m)) {
                out.extend(kind);
            }
            out
        })
        .collect()
}

/// The dimensions of a metric.
pub(crate) fn dimensions(metric: &Metric) -> Json {
    metric
        .dimensions
        .iter()
        .map(|d| {
            json!({
                "name": d.name,
                "type": d.ty.to_string(),
                "default": d.default.to_json(None),
                "max": d.max,
                "overflow": match d.overflow { Overflow::Other => "other", Overflow::Refuse => "refuse" },
            })
        })
        .collect()
}

/// Names of the event contracts that move a metric, through its entity where it has one.
pub(crate) fn source_events(catalog: &Catalog, metric: &Metric) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for feed in &metric.feeds {
        match feed.input {
            Input::Event(e) => names.extend(catalog.events.get(e).map(|e| e.head.name.clone())),
            Input::Entity(e) => {
                for feed in catalog.entities.get(e).iter().flat_map(|e| &e.feeds) {
                    names.extend(catalog.events.get(feed.event).map(|e| e.head.name.clone()));
                }
            }
            Input::Relation(r) => {
                let events = metric.relations.get(r).map(contracts::catalog::Relation::events);
                let events = events.unwrap_or_default().into_iter();
                names.extend(events.filter_map(|e| Some(catalog.events.get(e)?.head.name.clone())));
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

/// One declared field.
pub(crate) fn field(field: &Field) -> Json {
    let checks = &field.checks;
    let mut out = Map::new();
    out.insert("name".into(), json!(field.name));
    out.insert("type".into(), json!(field.ty.to_string()));
    out.insert("required".into(), json!(field.required));
    let mut put = |key: &str, value: Option<Json>| {
        if let Some(value) = value {
            out.insert(key.into(), value);
        }
    };
    put("default", field.default.as_ref().map(|v| v.to_json(None)));
    put("pii", field.pii.then_some(Json::Bool(true)));
    put("from", (field.path.len() != 1 || field.path[0] != field.name).then(|| json!(field.path.join("."))));
    put("enum", checks.one_of.as_ref().map(|v| json!(v)));
    put("pattern", checks.pattern.as_ref().map(|v| json!(v)));
    put("min", checks.min.as_ref().map(|v| v.to_json(None)));
    put("max", checks.max.as_ref().map(|v| v.to_json(None)));
    put("min_length", checks.min_length.map(|v| json!(v)));
    put("max_length", checks.max_length.map(|v| json!(v)));
    Json::Object(out)
}

/// The key as declared: a field, several, none.
pub(crate) fn key(event: &Event) -> Json {
    match event.key.as_slice() {
        [] => Json::Null,
        [only] => json!(only),
        several => json!(several),
    }
}

/// The key, time and id of an event contract.
pub(crate) fn event_keys(event: &Event) -> Json {
    json!({
        "key": key(event),
        "time": event.time,
        "id": event.id,
        "dedupe_seconds": seconds(event.dedupe),
    })
}

/// Freshness of a metric: how old the published tick is, and the newest event that moved it.
pub(crate) fn freshness(published: &Published, index: usize, metric: &Metric, wall: Micros) -> Json {
    let newest = published.newest(index);
    json!({
        "fresh_ms": age_ms(wall, published.as_of),
        "p95_budget_ms": metric.freshness.map(|f| f as f64 / 1_000.0),
        "newest_event": newest_event(newest, wall),
    })
}

/// `{time, received, lag_ms, age_seconds}`: `lag_ms` is received minus event time.
pub(crate) fn newest_event(newest: Option<engine::Newest>, wall: Micros) -> Json {
    newest.map_or(Json::Null, |n| {
        json!({
            "time": format_timestamp(n.time),
            "received": format_timestamp(n.received),
            "lag_ms": (n.received - n.time) as f64 / 1_000.0,
            "age_seconds": age_seconds(wall, n.received),
        })
    })
}

/// One row: its dimensions, then its measures, then the session it is about.
pub(crate) fn row(metric: &Metric, answer: &Answer, row: &Row) -> Json {
    let mut out = Map::new();
    for (name, value) in answer.dimensions.iter().zip(&row.key) {
        out.insert(name.clone(), value.to_json(None));
    }
    for (name, value) in answer.measures.iter().zip(&row.values) {
        let unit = metric.measures.iter().find(|m| m.name == *name).and_then(|m| m.unit.as_deref());
        out.insert(name.clone(), value.to_json(unit));
    }
    if let Some((start, end)) = row.session {
        out.insert("session_start".into(), json!(format_timestamp(start)));
        out.insert("session_end".into(), json!(format_timestamp(end)));
    }
    Json::Object(out)
}

/// The headline cell of an answer.
pub(crate) fn value(metric: &Metric, answer: &Answer) -> Json {
    answer.value.to_json(main_measure(metric).and_then(|m| m.unit.as_deref()))
}
