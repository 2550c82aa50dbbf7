//! GET `/v1/entity/{type}/{id}`: the live row of a key.
//!
//! *In*: an entity's name and a key, perhaps an instant. *Out*: the row. *Never*: a row that a late
//! event has spoiled (the engine folds in event-time order).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use contracts::value::time::format_timestamp;
use engine::EntityRow;
use serde::Serialize;
use serde_json::{Map, Value as JsonValue, json};
use utoipa::ToSchema;

use super::describe;
use super::params::{Params, age_ms, age_seconds, wall_now};
use super::token::{Token, published_after};
use crate::app::{App, Live};
use crate::error::{Path, Problem, ProblemBody, Result};

/// The live row of a key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EntityAnswer {
    /// Name of the entity contract.
    pub entity_type: String,
    /// The key.
    pub entity_id: String,
    /// The key and the fields of the contract.
    #[schema(value_type = Object)]
    pub data: JsonValue,
    /// Latest event time that touched the row.
    pub last_updated: String,
    /// Seconds between `last_updated` and now.
    pub freshness_seconds: f64,
    /// `as_of`, `events`, contract, token.
    #[schema(value_type = Object)]
    pub meta: JsonValue,
}

fn find(live: &Live, name: &str) -> Result<usize> {
    live.catalog.entity_index(name).ok_or_else(|| {
        let names = live.catalog.entities.iter().map(|e| e.head.name.clone()).collect();
        Problem::unknown(StatusCode::NOT_FOUND, "unknown_entity_type", "entity type", name, names)
    })
}

/// The row of a key, now or as of an instant.
#[utoipa::path(
    get, path = "/v1/entity/{type}/{id}", tag = "entities", operation_id = "getEntity",
    params(
        ("type" = String, Path, description = "Name of the entity contract"),
        ("id" = String, Path, description = "The key"),
        ("as_of" = Option<String>, Query, description = "Only events before this instant: RFC 3339 or relative"),
        ("after" = Option<String>, Query, description = "Token"),
        ("wait" = Option<String>, Query, description = "How long `after` may wait"),
    ),
    responses(
        (status = 200, description = "The row", body = EntityAnswer),
        (status = 404, description = "No such entity type (the names there are) or no such key", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Bad parameter", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[tracing::instrument(name = "answer", skip_all, fields(entity = %kind))]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Path((kind, id)): Path<(String, String)>,
    params: Params,
) -> Result<Json<EntityAnswer>> {
    params.only(&["as_of", "after", "wait"])?;
    let wait = params.wait(app.limits.max_wait)?;
    find(&*app.live()?, &kind)?;
    let (live, published) = published_after(&app, params.one("after")?, wait).await?;
    let index = find(&live, &kind)?;
    let as_of = params.as_of(published.as_of, wall_now())?;
    let Some(row) = published.entity(index, &id, as_of)? else {
        let then = as_of.map_or_else(String::new, |t| format!(" before {}", format_timestamp(t)));
        return Err(Problem::not_found("unknown_entity", format!("There is no {kind} `{id}`{then}.")));
    };
    let entity = &published.catalog.entities[index];
    let wall = wall_now();
    let EntityRow { last_time, events, .. } = row;
    Ok(Json(EntityAnswer {
        entity_type: kind,
        data: data(&entity.key, &id, row),
        entity_id: id,
        last_updated: format_timestamp(last_time),
        freshness_seconds: age_seconds(wall, last_time),
        meta: json!({
            "as_of": format_timestamp(as_of.unwrap_or(published.as_of)),
            "is_historical": as_of.is_some(),
            "events": events,
            "fresh_ms": age_ms(wall, published.as_of),
            "contract": describe::contract(&entity.head),
            "token": Token::of(&published).encode(),
        }),
    }))
}

fn data(key: &str, id: &str, row: EntityRow) -> JsonValue {
    let mut data = Map::new();
    data.insert(key.to_owned(), json!(id));
    for (name, value) in row.fields {
        data.insert(name, value.to_json(None));
    }
    JsonValue::Object(data)
}
