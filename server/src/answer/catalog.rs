//! GET `/v1/catalog`: everything that can be asked for, in one answer.
//!
//! *In*: the live catalog. *Out*: entities, metrics, events and sources by name. *Never*: a thing
//! that is not there.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value as JsonValue, json};

use super::describe;
use super::metrics::served;
use super::params::Params;
use crate::app::{App, Live};
use crate::error::Result;

/// Everything there is, by name.
#[utoipa::path(
    get, path = "/v1/catalog", tag = "catalog", operation_id = "getCatalog",
    responses((status = 200, description = "`{entities, metrics, events, streaming_sources, hash, generation}`", body = Object))
)]
#[tracing::instrument(name = "answer", skip_all)]
pub(crate) async fn read(State(app): State<Arc<App>>, params: Params) -> Result<Json<JsonValue>> {
    params.only(&[])?;
    let live = app.live()?;
    Ok(Json(json!({
        "entities": entities(&live),
        "metrics": metrics(&live),
        "events": events(&live),
        "streaming_sources": sources(&app),
        "audit_sources": {
            "deadletter": { "path": "/v1/deadletter", "description": "Refused events with their reasons" },
            "lineage": { "path": "/v1/lineage/{kind}/{name}", "description": "What moves what, with counters" },
        },
        "hash": live.catalog.hash,
        "generation": live.generation,
    })))
}

fn entities(live: &Live) -> JsonValue {
    let mut out = Map::new();
    for entity in &live.catalog.entities {
        let fields: Map<String, JsonValue> =
            entity.fields.iter().map(|f| (f.name.clone(), json!({ "type": f.ty.to_string() }))).collect();
        out.insert(
            entity.head.name.clone(),
            json!({
                "title": entity.head.title,
                "description": entity.head.description,
                "fields": fields,
                "primary_key": entity.key,
                "contract_version": describe::version(&entity.head),
                "source_events": entity.feeds.iter()
                    .filter_map(|f| live.catalog.events.get(f.event))
                    .map(|e| &e.head.name)
                    .collect::<Vec<_>>(),
            }),
        );
    }
    JsonValue::Object(out)
}

fn metrics(live: &Live) -> JsonValue {
    let mut out = Map::new();
    for metric in served(live) {
        out.insert(
            metric.head.name.clone(),
            json!({
                "title": metric.head.title,
                "description": metric.head.description,
                "unit": describe::metric_unit(metric),
                "available_windows": metric.windows.iter().map(|w| &w.name).collect::<Vec<_>>(),
                "dimensions": metric.dimensions.iter().map(|d| &d.name).collect::<Vec<_>>(),
                "measures": metric.measures.iter().filter(|m| !m.hidden).map(|m| &m.name).collect::<Vec<_>>(),
                "contract_version": describe::version(&metric.head),
                "source_events": describe::source_events(&live.catalog, metric),
            }),
        );
    }
    JsonValue::Object(out)
}

fn events(live: &Live) -> JsonValue {
    let mut out = Map::new();
    for event in &live.catalog.events {
        out.insert(
            event.head.name.clone(),
            json!({
                "title": event.head.title,
                "description": event.head.description,
                "contract_version": describe::version(&event.head),
                "key": describe::key(event),
                "fields": event.fields.iter().map(|f| &f.name).collect::<Vec<_>>(),
            }),
        );
    }
    JsonValue::Object(out)
}

fn sources(app: &App) -> JsonValue {
    let mut out = Map::new();
    for source in app.sources() {
        let topics: std::collections::BTreeSet<String> =
            source.partitions.iter().map(|p| p.topic.to_string()).collect();
        out.insert(
            source.name.clone(),
            json!({
                "kind": source.kind, "topics": topics, "status": source.state,
                "message": super::health::words(&source),
            }),
        );
    }
    JsonValue::Object(out)
}
