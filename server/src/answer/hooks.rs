//! POST `/v1/hooks/{source}`.
//!
//! *In*: a signed delivery of a tool. *Out*: 202 once it is durable, as it came; its events are made of it at
//! decode. *Never*: a delivery looked into before its signature holds, an acknowledgement that a crash could
//! take back, a hint which part of a signature was wrong.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::params::wall_now;
use crate::app::App;
use crate::error::{Path, Problem, ProblemBody, Result, read_body};
use crate::hooks::Webhook;
use crate::intake::{self, Outgoing};
use crate::settings::HookKind;

/// What became of a delivery.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HookAnswer {
    /// Name of the delivery, where the tool gives it one.
    delivery: Option<String>,
    /// The same delivery came in the last 24 hours: nothing was stored and nothing moves.
    duplicate: bool,
    /// Read with `after=<token>` to see its events.
    token: String,
}

/// Deliver a webhook.
///
/// The signature is checked on the raw bytes, the delivery is stored as it came, and its events are made by
/// the adapter of the source when it is decoded. The answer comes after it is durable. What of it was
/// admitted or refused shows in `/v1/deadletter` and in the counters of the source. Parameters of the URL
/// are not looked at: some tools add their own.
#[utoipa::path(
    post, path = "/v1/hooks/{source}", tag = "events", operation_id = "deliverWebhook",
    params(("source" = String, Path, description = "A source of the settings with `hook:`")),
    request_body(content((Object = "application/json"), (String = "application/x-www-form-urlencoded"), (Object = "application/cloudevents+json"))),
    responses(
        (status = 202, description = "Durable, or known already (`duplicate`)", body = HookAnswer),
        (status = 200, description = "Slack asked whether this is its endpoint: the challenge", body = Object),
        (status = 400, description = "Empty body", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No signature, a wrong one, or too old", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such hook", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Body larger than `limits.body`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Neither JSON nor a form, or compressed", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Log full, or shutting down; see Retry-After", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn deliver(
    State(app): State<Arc<App>>,
    Path(source): Path<String>,
    request: Request,
) -> Result<Response> {
    let hook = hook(&app, &source)?;
    let outcome = taken(&app, &hook, &source, request).await;
    let word = match &outcome {
        Ok(Taken::Stored(answer)) if answer.duplicate => "duplicate",
        Ok(Taken::Stored(_)) => "stored",
        Ok(Taken::Challenge(_)) => "challenge",
        Err(problem) if problem.status == StatusCode::UNAUTHORIZED => "denied",
        Err(problem) if problem.status == StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        Err(_) => "refused",
    };
    app.telemetry.delivery(&source, word);
    Ok(match outcome? {
        Taken::Stored(answer) => (StatusCode::ACCEPTED, Json(answer)).into_response(),
        Taken::Challenge(challenge) => Json(serde_json::json!({ "challenge": challenge })).into_response(),
    })
}

enum Taken {
    Stored(HookAnswer),
    Challenge(String),
}

fn hook(app: &App, source: &str) -> Result<Arc<Webhook>> {
    app.hooks.get(source).cloned().ok_or_else(|| {
        Problem::unknown(
            StatusCode::NOT_FOUND,
            "unknown_source",
            "hook source",
            source,
            app.hooks.keys().cloned().collect(),
        )
    })
}

#[tracing::instrument(name = "receive", skip_all, fields(source))]
async fn taken(app: &Arc<App>, hook: &Webhook, source: &str, request: Request) -> Result<Taken> {
    let headers = request.headers().clone();
    let media = media(hook, &headers)?;
    let body = read_body(request, app.limits.body).await?;
    let now = wall_now().div_euclid(1_000_000);
    if hook.verify(&headers, &body, now).is_err() {
        return Err(denied());
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::bad_request("empty_body", "The body is empty."));
    }
    if let Some(challenge) = challenge(hook.kind, &body) {
        return Ok(Taken::Challenge(challenge));
    }
    let name = hook.delivery(&headers, &body);
    let record = Outgoing { value: body, headers: hook.kept(&headers, &media), parts: 1 };
    let (token, duplicate) = intake::deliver(app, source, name.as_deref(), record).await?;
    Ok(Taken::Stored(HookAnswer { delivery: name, duplicate, token }))
}

fn denied() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "bad_signature",
        "The delivery is not signed with a secret of this source, or it is too old.",
    )
}

/// The media type, which must be one that is read: what is not JSON could never become an event.
fn media(hook: &Webhook, headers: &HeaderMap) -> Result<String> {
    let text = |name| headers.get(name).and_then(|v: &axum::http::HeaderValue| v.to_str().ok()).unwrap_or("");
    let unsupported = |code, detail: String| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code, detail);
    let encoding = text(header::CONTENT_ENCODING);
    if !matches!(encoding, "" | "identity") {
        let detail =
            format!("Content-Encoding `{encoding}` is not taken: the signature is of the plain bytes.");
        return Err(unsupported("unsupported_encoding", detail));
    }
    let media = text(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    // A canonical event could otherwise be smuggled in under a signature that does not cover the header.
    let own = media.starts_with("application/vnd.streamgauge");
    match media.as_str() {
        "" => Ok("application/json".to_owned()),
        "application/json" | "text/json" => Ok(media),
        "application/x-www-form-urlencoded" if hook.adapter.is_some() => Ok(media),
        other if other.ends_with("+json") && !own => Ok(media),
        other => {
            let detail =
                format!("Content-Type `{other}` is not taken. Let the webhook send application/json.");
            Err(unsupported("unsupported_media_type", detail))
        }
    }
}

/// Slack asks once, when the URL is entered, whether its owner answers.
fn challenge(kind: HookKind, body: &Bytes) -> Option<String> {
    #[derive(Deserialize)]
    struct Asked {
        #[serde(rename = "type")]
        kind: String,
        challenge: String,
    }
    if kind != HookKind::Slack {
        return None;
    }
    let asked: Asked = serde_json::from_slice(body).ok()?;
    (asked.kind == "url_verification").then_some(asked.challenge)
}
