//! GET `/v1/contracts...`: what is promised, in YAML and in JSON.
//!
//! *In*: the live contracts. *Out*: descriptions, and the YAML as written. *Never*: a contract that does
//! not run.

use std::sync::Arc;

use ::contracts::catalog::{EntityFold, Event, Head, Severity};
use ::contracts::text::SourceFile;
use ::contracts::{Catalog, Kind};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value as JsonValue, json};

use super::describe;
use super::params::Params;
use crate::app::{App, Live};
use crate::error::{Path, Problem, ProblemBody, Result};

/// A contract of the catalog: its kind and its index.
pub(super) type Found = (Kind, usize);

pub(super) fn all(catalog: &Catalog) -> Vec<(Found, &Head)> {
    let events = catalog.events.iter().enumerate().map(|(i, c)| ((Kind::Event, i), &c.head));
    let entities = catalog.entities.iter().enumerate().map(|(i, c)| ((Kind::Entity, i), &c.head));
    let tables = catalog.tables.iter().enumerate().map(|(i, c)| ((Kind::Table, i), &c.head));
    let metrics = catalog.metrics.iter().enumerate().map(|(i, c)| ((Kind::Metric, i), &c.head));
    events.chain(entities).chain(tables).chain(metrics).collect()
}

/// `event`, `entity`, `table`, `metric`.
pub(super) fn word(kind: Kind) -> String {
    kind.name().to_lowercase()
}

/// The contract `name`, or `metric.name` where several kinds have one of that name.
pub(super) fn find<'a>(live: &'a Live, name: &str) -> Result<(Found, &'a Head)> {
    let contracts = all(&live.catalog);
    let matches: Vec<_> = contracts
        .iter()
        .filter(|((kind, _), head)| {
            head.name == name || name.strip_prefix(&format!("{}.", word(*kind))) == Some(&head.name)
        })
        .collect();
    match matches.as_slice() {
        [] => Err(Problem::unknown(
            StatusCode::NOT_FOUND,
            "unknown_contract",
            "contract",
            name,
            contracts.iter().map(|(_, head)| head.name.clone()).collect(),
        )),
        [one] => Ok((one.0, one.1)),
        several => Err(Problem::unknown(
            StatusCode::NOT_FOUND,
            "ambiguous_contract",
            "single contract",
            name,
            several.iter().map(|((kind, _), head)| format!("{}.{}", word(*kind), head.name)).collect(),
        )),
    }
}

fn summary(kind: Kind, head: &Head) -> Map<String, JsonValue> {
    let entity =
        if kind == Kind::Entity { head.name.clone() } else { format!("{}.{}", word(kind), head.name) };
    let value = json!({
        "entity": entity,
        "kind": word(kind),
        "name": head.name,
        "version": describe::version(head),
        "released": null,
        "status": describe::status(head.status),
        "title": head.title,
        "owner": describe::owner(head),
        "hash": head.hash,
        "file": head.file,
        "line": head.line,
    });
    match value {
        JsonValue::Object(map) => map,
        _ => Map::new(),
    }
}

/// All contracts that run.
#[utoipa::path(
    get, path = "/v1/contracts", tag = "contracts", operation_id = "listContracts",
    params(("kind" = Option<String>, Query, description = "`event`, `entity`, `table` or `metric`")),
    responses((status = 200, description = "`{contracts: [{kind, name, version, status, owner, hash, file, line}]}`", body = Object))
)]
pub(crate) async fn list(State(app): State<Arc<App>>, params: Params) -> Result<Json<JsonValue>> {
    params.only(&["kind"])?;
    let live = app.live()?;
    let wanted = match params.one("kind")? {
        None => None,
        Some(text) => {
            Some(Kind::ALL.into_iter().find(|k| word(*k) == text.to_lowercase()).ok_or_else(|| {
                let allowed = Kind::ALL.into_iter().map(word).collect();
                Problem::unknown(StatusCode::UNPROCESSABLE_ENTITY, "unknown_kind", "kind", text, allowed)
            })?)
        }
    };
    let contracts: Vec<JsonValue> = all(&live.catalog)
        .into_iter()
        .filter(|((kind, _), _)| wanted.is_none_or(|w| w == *kind))
        .map(|((kind, _), head)| JsonValue::Object(summary(kind, head)))
        .collect();
    Ok(Json(json!({ "contracts": contracts, "hash": live.catalog.hash, "generation": live.generation })))
}

/// One contract: its parts, and the YAML as written.
#[utoipa::path(
    get, path = "/v1/contracts/{name}", tag = "contracts", operation_id = "getContract",
    params(("name" = String, Path, description = "Name, or `kind.name` where several kinds have it")),
    responses(
        (status = 200, description = "Head, `fields`, `measures`, `windows`, ... and `yaml`", body = Object),
        (status = 404, description = "No such contract; the names there are", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<JsonValue>> {
    params.only(&[])?;
    let live = app.live()?;
    let (found, head) = find(&live, &name)?;
    Ok(Json(full(&live.catalog, &live.texts, found, head)))
}

/// All there is to say about a contract.
pub(super) fn full(catalog: &Catalog, texts: &[SourceFile], (kind, index): Found, head: &Head) -> JsonValue {
    let mut out = summary(kind, head);
    out.insert("description".into(), json!(head.description));
    out.insert("labels".into(), json!(head.labels));
    out.insert("breaking_changes".into(), json!([]));
    let parts = match kind {
        Kind::Event => event(&catalog.events[index]),
        Kind::Entity => entity(catalog, index),
        Kind::Table => json!({
            "key": catalog.tables[index].key,
            "fields": catalog.tables[index].fields.iter().map(describe::field).collect::<Vec<_>>(),
        }),
        Kind::Metric => metric(catalog, index),
    };
    if let JsonValue::Object(parts) = parts {
        out.extend(parts);
    }
    out.insert("yaml".into(), json!(document(texts, head).map(|(text, _)| text)));
    JsonValue::Object(out)
}

fn event(event: &Event) -> JsonValue {
    let mut out = describe::event_keys(event);
    out["fields"] = event.fields.iter().map(describe::field).collect();
    out["rules"] = event
        .rules
        .iter()
        .map(|r| {
            let severity = match r.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            json!({ "name": r.name, "check": r.check.sql, "severity": severity })
        })
        .collect();
    out["enrich"] = event
        .enrich
        .iter()
        .map(|c| json!({ "name": c.name, "expr": c.expr.sql, "type": c.expr.ty.to_string() }))
        .collect();
    out
}

fn entity(catalog: &Catalog, index: usize) -> JsonValue {
    let entity = &catalog.entities[index];
    let fold = |fold: EntityFold| match fold {
        EntityFold::First => "first",
        EntityFold::Last => "last",
        EntityFold::Count => "count",
        EntityFold::Sum => "sum",
        EntityFold::Min => "min",
        EntityFold::Max => "max",
        EntityFold::Set => "set",
    };
    let key = json!({ "name": entity.key, "type": "string", "required": true });
    let fields = entity.fields.iter().map(
        |f| json!({ "name": f.name, "type": f.ty.to_string(), "required": false, "fold": fold(f.fold) }),
    );
    let events: Vec<&str> = entity
        .feeds
        .iter()
        .filter_map(|f| catalog.events.get(f.event))
        .map(|e| e.head.name.as_str())
        .collect();
    json!({
        "key": entity.key,
        "fields": std::iter::once(key).chain(fields).collect::<Vec<_>>(),
        "source_events": events,
    })
}

fn metric(catalog: &Catalog, index: usize) -> JsonValue {
    let metric = &catalog.metrics[index];
    json!({
        "unit": describe::metric_unit(metric),
        "fields": describe::measures(metric),
        "measures": describe::measures(metric),
        "dimensions": describe::dimensions(metric),
        "windows": metric.windows.iter().map(describe::window).collect::<Vec<_>>(),
        "source_events": describe::source_events(catalog, metric),
        "freshness": metric.freshness.map(|f| json!({ "p95_staleness_budget_seconds": f as f64 / 1e6 })),
        "levels": metric.levels.iter().map(|l| json!({ "name": l.name, "when": l.when.sql })).collect::<Vec<_>>(),
    })
}

/// The YAML document of a contract: its text, and its lines in the file (from 0, end exclusive).
pub(super) fn document<'a>(
    texts: &'a [SourceFile],
    head: &Head,
) -> Option<(String, (&'a SourceFile, usize, usize))> {
    let file = texts.iter().find(|t| t.path == head.file)?;
    let lines: Vec<&str> = file.text.lines().collect();
    let at = head.line.checked_sub(1).filter(|at| *at < lines.len())?;
    let mark = |line: &&str| line.starts_with("---") || line.trim_end() == "...";
    // Comments above the first key belong to the document.
    let start = lines[..at].iter().rposition(mark).map_or(0, |i| i + 1);
    let end = lines[at..].iter().position(mark).map_or(lines.len(), |i| at + i);
    let text = format!("{}\n", lines[start..end].join("\n").trim_matches('\n'));
    Some((text, (file, start, end)))
}
