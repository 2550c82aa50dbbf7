//! GET `/v1/deadletter...`: refused events, to be looked at.
//!
//! *In*: the store of refused rows. *Out*: pages, counts, one row with its payload. *Never*: a wait for the
//! disk on a thread that serves requests.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use connectors::store::dead_letters::{DeadLetter, DeadLetterError, Filter, Status};
use contracts::value::time::format_timestamp;
use serde_json::{Value as JsonValue, json};

use super::params::Params;
use crate::app::App;
use crate::error::{Path, Problem, ProblemBody, Result};

impl From<DeadLetterError> for Problem {
    fn from(error: DeadLetterError) -> Problem {
        match error {
            DeadLetterError::Unknown(_) => Problem::not_found(
                "unknown_dead_letter",
                format!("{error}. Ids are listed at /v1/deadletter."),
            ),
            _ => Problem::unavailable("dead_letters_unavailable", format!("{error}."), 5),
        }
    }
}

/// `failed`, `replayed`, `dismissed`.
pub(crate) fn word(status: Status) -> &'static str {
    match status {
        Status::Failed => "failed",
        Status::Replayed => "replayed",
        Status::Dismissed => "dismissed",
    }
}

/// Runs `work` where it may wait for the disk.
pub(super) async fn blocking<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&App) -> std::result::Result<T, DeadLetterError> + Send + 'static,
) -> Result<T> {
    let app = app.clone();
    tokio::task::spawn_blocking(move || work(&app))
        .await
        .map_err(|e| Problem::internal(format!("The dead letters were not read: {e}.")))?
        .map_err(Problem::from)
}

/// Refused events, newest first.
#[utoipa::path(
    get, path = "/v1/deadletter", tag = "dead letters", operation_id = "listDeadLetters",
    params(
        ("page" = Option<usize>, Query, description = "From 1"),
        ("page_size" = Option<usize>, Query, description = "1 to 100, default 20"),
        ("reason" = Option<String>, Query, description = "A reason code"),
        ("event_type" = Option<String>, Query, description = "An event type"),
        ("source" = Option<String>, Query, description = "A source"),
        ("status" = Option<String>, Query, description = "`failed`, `replayed` or `dismissed`"),
    ),
    responses(
        (status = 200, description = "`{items, pagination: {page, page_size, total, pages}}`", body = Object),
        (status = 422, description = "Bad parameter", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(State(app): State<Arc<App>>, params: Params) -> Result<Json<JsonValue>> {
    params.only(&["page", "page_size", "reason", "event_type", "source", "status"])?;
    let page = params.number("page", 1..=1_000_000)?.unwrap_or(1);
    let size = params.number("page_size", 1..=100)?.unwrap_or(20);
    let text = |name| Ok::<_, Problem>(params.one(name)?.map(str::to_owned));
    let status = match params.one("status")? {
        None => None,
        Some("failed") => Some(Status::Failed),
        Some("replayed") => Some(Status::Replayed),
        Some("dismissed") => Some(Status::Dismissed),
        Some(other) => {
            let allowed = ["failed", "replayed", "dismissed"].map(str::to_owned).to_vec();
            return Err(Problem::unknown(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unknown_status",
                "status",
                other,
                allowed,
            ));
        }
    };
    let filter =
        Filter { reason: text("reason")?, event_type: text("event_type")?, source: text("source")?, status };
    let (items, total) = blocking(&app, move |app| app.dead.list(&filter, page as u64, size as u64)).await?;
    Ok(Json(json!({
        "items": items.iter().map(item).collect::<Vec<_>>(),
        "pagination": {
            "page": page,
            "page_size": size,
            "total": total,
            "pages": total.div_ceil(size as u64),
        },
    })))
}

/// Counts by status, reason and hour.
#[utoipa::path(
    get, path = "/v1/deadletter/stats", tag = "dead letters", operation_id = "getDeadLetterStats",
    responses((status = 200, description = "`{counts, by_reason, total, last_24h, trend, dropped, overflowed}`", body = Object))
)]
pub(crate) async fn stats(State(app): State<Arc<App>>, params: Params) -> Result<Json<JsonValue>> {
    params.only(&[])?;
    let stats = app.dead.stats();
    let trend: Vec<JsonValue> =
        stats.trend.iter().map(|(hour, n)| json!({ "hour": format_timestamp(*hour), "count": n })).collect();
    Ok(Json(json!({
        "counts": stats.by_status,
        "by_reason": stats.by_reason,
        "total": stats.total,
        "bytes": stats.bytes,
        "last_24h": stats.last_24h,
        "trend": trend,
        "dropped": stats.dropped,
        "overflowed": stats.overflowed,
    })))
}

/// One refused event with its payload and all reasons.
#[utoipa::path(
    get, path = "/v1/deadletter/{id}", tag = "dead letters", operation_id = "getDeadLetter",
    params(("id" = String, Path, description = "Id from the list")),
    responses(
        (status = 200, description = "The item with `payload` (JSON, else text, else base64), `payload_encoding` and the `headers` that carry a part of it", body = Object),
        (status = 404, description = "No such dead letter", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<JsonValue>> {
    params.only(&[])?;
    let letter = blocking(&app, move |app| app.dead.get(&id)).await?;
    Ok(Json(detail(&letter)))
}

fn item(letter: &DeadLetter) -> JsonValue {
    let first = letter.reasons.first();
    json!({
        "event_id": letter.id,
        "event_type": letter.event_type,
        "original_event_id": letter.event_id,
        "failure_reason": first.map(|r| &r.code),
        "failure_detail": first.map(|r| if r.path.is_empty() { r.message.clone() } else { format!("{}: {}", r.path, r.message) }),
        "reasons": letter.reasons,
        "received_at": format_timestamp(letter.received),
        "retry_count": letter.retry_count,
        "last_retried_at": letter.last_retried_at.map(format_timestamp),
        "status": word(letter.status),
        "note": letter.note,
        "source": letter.partition.source,
        "position": {
            "topic": letter.partition.topic, "partition": letter.partition.number,
            "offset": letter.offset, "part": letter.part,
        },
        "payload_bytes": letter.payload_len,
    })
}

fn detail(letter: &DeadLetter) -> JsonValue {
    let mut out = item(letter);
    let (payload, encoding) = match &letter.payload {
        None => (JsonValue::Null, JsonValue::Null),
        Some(bytes) => match std::str::from_utf8(bytes) {
            // Text as it came: parsing would hide duplicate keys and the spelling of numbers.
            Ok(text) => (json!(text), json!("text")),
            Err(_) => (json!(STANDARD.encode(bytes)), json!("base64")),
        },
    };
    let parsed = letter.payload.as_ref().and_then(|bytes| serde_json::from_slice::<JsonValue>(bytes).ok());
    out["payload"] = parsed.unwrap_or_else(|| payload.clone());
    out["payload_text"] = payload;
    out["payload_encoding"] = encoding;
    out["headers"] = letter
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), json!(String::from_utf8_lossy(value))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    out
}
