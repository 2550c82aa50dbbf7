//! POST `/v1/events`.
//!
//! *In*: events in any of their usual forms. *Out*: 202 after they are durable, with what became of
//! each. *Never*: an acknowledgement that a crash could take back.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::params::Params;
use crate::app::App;
use crate::error::{Problem, ProblemBody, Result, read_body};
use crate::intake::{self, Once, PushAnswer};

/// Longest `Idempotency-Key`.
const MAX_KEY: usize = 255;

/// Push events.
///
/// NDJSON (one log record per line), a JSON object or array (one record), CloudEvents structured,
/// batch or binary. The answer comes after the events are durable and, within `wait`, folded: a read
/// with `after=<token>` sees them. `Idempotency-Key` is remembered for a day, across restarts.
#[utoipa::path(
    post, path = "/v1/events", tag = "events", operation_id = "pushEvents",
    params(
        ("source" = Option<String>, Query, description = "The http source of the settings; default: the first"),
        ("wait" = Option<String>, Query, description = "How long to wait for the verdicts, default `2s`; `0`: not at all"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body give the stored answer again"),
    ),
    request_body(content(
        (Object = "application/json"),
        (String = "application/x-ndjson"),
        (Object = "application/cloudevents+json"),
        (Object = "application/cloudevents-batch+json"),
    )),
    responses(
        (status = 202, description = "Durable; what became of each event", body = PushAnswer),
        (status = 400, description = "No event in the body", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Body larger than `limits.body`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Compressed or multipart body", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Unknown source; key used with another body", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Nothing was stored: events are not taken for now (memory, lake, dead letters), the log is full, or the server is shutting down; see Retry-After", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn push(State(app): State<Arc<App>>, params: Params, request: Request) -> Result<Response> {
    params.only(&["source", "wait"])?;
    let wait = params.wait(app.limits.max_wait)?.unwrap_or(app.limits.push_wait);
    let source = source(&app, &params)?;
    let key = idempotency_key(&request)?;
    let headers = request.headers().clone();
    let body = read_body(request, app.limits.body).await?;
    let records = intake::split(&headers, &body)?;
    let Some(key) = key else {
        let answer = intake::push(&app, &source, records, wait).await?;
        return Ok((StatusCode::ACCEPTED, Json(answer)).into_response());
    };
    // On a task of its own: a client that goes away must not lose the answer that is kept for its key.
    let once =
        tokio::spawn(async move { intake::push_once(&app, &source, &key, &body, records, wait).await })
            .await
            .map_err(|e| Problem::internal(format!("The push was not finished: {e}.")))??;
    Ok(match once {
        Once::Fresh(answer) => (StatusCode::ACCEPTED, Json(answer)).into_response(),
        Once::Repeated(answer) => repeated(answer),
    })
}

fn source(app: &App, params: &Params) -> Result<String> {
    if let Some(name) = params.one("source")? {
        if app.hooks.contains_key(name) {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "signed_source",
                format!("`{name}` takes signed webhooks only, at POST /v1/hooks/{name}."),
            ));
        }
        return Ok(name.to_owned());
    }
    app.default_source.clone().ok_or_else(|| {
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no_http_source",
            "No source of the settings takes pushed events. Add one: `sources: [{ name: push, http: {}, format: json }]`.",
        )
    })
}

fn idempotency_key(request: &Request) -> Result<Option<String>> {
    let Some(value) = request.headers().get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= MAX_KEY => Ok(Some(key.to_owned())),
        _ => Err(Problem::bad_request(
            "invalid_idempotency_key",
            format!("Idempotency-Key must be 1 to {MAX_KEY} visible ASCII characters."),
        )),
    }
}

/// The stored answer of an earlier request.
fn repeated(answer: Bytes) -> Response {
    let mut response = (StatusCode::ACCEPTED, answer).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));
    response
}
