//! POST and GET `/v1/backfill`: read everything again beside the running engine.
//!
//! *In*: from where. *Out*: how the backfill goes. *Never*: two backfills at a time.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use connectors::receive::SourceStatus;
use serde::Deserialize;
use serde_json::{Value as JsonValue, json};

use super::params::Params;
use crate::app::App;
use crate::backfill::Reading;
use crate::error::{Problem, ProblemBody, Result, read_body};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    from: String,
}

/// Read history again.
///
/// A new engine with the same contracts reads everything from its beginning, at most `limits.backfill` rows per second on
/// top of what arrives, while the running one answers. Once it has read what that one has, it takes its place.
#[utoipa::path(
    post, path = "/v1/backfill", tag = "health", operation_id = "startBackfill",
    request_body(content = Object, description = "`{from}`: `lake` (the lake, then what the log and Kafka keep) or `beginning` (only what they keep)"),
    responses(
        (status = 202, description = "It has begun: the answer of GET", body = Object),
        (status = 409, description = "One runs; how it goes", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Not a place to read from, or there is no lake", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Starting or shutting down", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn start(
    State(app): State<Arc<App>>,
    params: Params,
    request: Request,
) -> Result<(StatusCode, Json<JsonValue>)> {
    params.only(&[])?;
    app.live()?;
    let body = read_body(request, app.limits.body).await?;
    let allowed = "Send {\"from\": \"lake\"} or {\"from\": \"beginning\"}.";
    let wish: Wish = serde_json::from_slice(&body).map_err(|e| {
        Problem::bad_request("malformed_json", format!("The body cannot be used: {e}. {allowed}"))
    })?;
    let reading = Reading::of(&wish.from).ok_or_else(|| {
        Problem::parameter(
            "from",
            &wish.from,
            "allowed are `lake` and `beginning`; files are sent by `streamgauge backfill FILE`",
        )
    })?;
    if reading == Reading::Everything && app.lake.is_none() {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no_lake",
            "The settings have no lake (`lake: { catalog: none }`), so there is no history in it. Read what the log and \
             Kafka keep with `beginning`, or give the server a lake.",
        ));
    }
    if let Err(running) = app.backfills.ask(reading) {
        let told = running["message"].as_str().unwrap_or_default();
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "backfill_running",
            format!(
                "Backfill {} from `{}` is {}: {told}. Ask again when it has ended; GET /v1/backfill says how it goes.",
                running["number"],
                running["from"].as_str().unwrap_or_default(),
                running["state"].as_str().unwrap_or_default(),
            ),
        ));
    }
    Ok((StatusCode::ACCEPTED, Json(told(&app))))
}

/// How the last backfill went or goes.
#[utoipa::path(
    get, path = "/v1/backfill", tag = "health", operation_id = "getBackfill",
    responses((status = 200, description = "`{backfill: {number, from, state, asked_at, ended_at, message}, catching_up: [source]}`; `state` is waiting, running, done or failed", body = Object))
)]
pub(crate) async fn read(State(app): State<Arc<App>>, params: Params) -> Result<Json<JsonValue>> {
    params.only(&[])?;
    Ok(Json(told(&app)))
}

/// The same for `/readyz?verbose`: `catching_up` are the sources of a generation beside the one that answers.
pub(super) fn told(app: &App) -> JsonValue {
    let behind = app.backfills.behind();
    let told = |source: &SourceStatus| {
        let mut told = super::source(source, None);
        // Nothing of it is published before it answers: what counts is what was read.
        let left = source.lag.and_then(|lag| u64::try_from(lag).ok());
        told["published_lag"] = json!(left);
        told["progress"] = json!(left.map(|left| source.read as f64 / (source.read + left).max(1) as f64));
        told
    };
    json!({ "backfill": app.backfills.told(), "catching_up": behind.iter().map(told).collect::<Vec<_>>() })
}
