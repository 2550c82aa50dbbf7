//! POST `/v1/deadletter/{id}/replay` and `/dismiss`: refused events, corrected and sent again.
//!
//! *In*: a dead letter, perhaps a correction. *Out*: the verdict of the engine on it. *Never*: an answer
//! "replayed" before the engine has admitted the event; a number of the original turned into a float.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use bytes::Bytes;
use connectors::store::dead_letters::{DeadLetter, DeadLetterError, Status};
use contracts::batch::{HeaderList, Partition};
use contracts::value::time::format_timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::deadletter::blocking;
use super::params::Params;
use crate::app::App;
use crate::error::{Path, Problem, ProblemBody, ProblemItem, Result, read_body};
use crate::intake::{self, Outgoing, PushAnswer, ReasonBody};

/// What became of a replay or a dismissal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplayAnswer {
    /// Id of the dead letter.
    pub event_id: String,
    /// `replayed`, `replay_pending`, `dismissed`.
    pub status: String,
    /// Replays tried.
    pub retry_count: u32,
    /// When the last one was.
    pub last_retried_at: Option<String>,
    /// Read with `after=<token>` to see the replayed event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The admitted event was one seen before, so it moves nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<bool>,
}

/// Correct an event and send it again.
///
/// The body is optional: `{"corrected_payload": {...}}` is merged over the top level of the original
/// JSON object, `{"payload": ...}` replaces it. A CloudEvent that came in binary mode keeps its `ce-*`
/// headers; `{"headers": {"ce-type": "..."}}` sets some anew, null takes one away. The event is appended
/// durably and its verdict awaited.
#[utoipa::path(
    post, path = "/v1/deadletter/{id}/replay", tag = "dead letters", operation_id = "replayDeadLetter",
    params(
        ("id" = String, Path, description = "Id from the list"),
        ("wait" = Option<String>, Query, description = "How long to wait for the verdict, default `2s`"),
    ),
    request_body(content = Object, description = "`{corrected_payload}` or `{payload}`; `{headers}`"),
    responses(
        (status = 200, description = "Admitted: `replayed`; not folded in time: `replay_pending`", body = ReplayAnswer),
        (status = 404, description = "No such dead letter", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Already replayed", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Still refused; the new reasons", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Events are not taken for now, the log is full, or the server is shutting down; see Retry-After", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[tracing::instrument(name = "receive", skip_all, fields(dead_letter = %id))]
pub(crate) async fn replay(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    params: Params,
    request: Request,
) -> Result<Json<ReplayAnswer>> {
    params.only(&["wait"])?;
    let wait = params.wait(app.limits.max_wait)?.unwrap_or(app.limits.push_wait);
    let body = read_body(request, app.limits.body).await?;
    let letter = {
        let id = id.clone();
        blocking(&app, move |app| app.dead.get(&id)).await?
    };
    if letter.status == Status::Replayed {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "already_replayed",
            format!("Dead letter `{id}` has been replayed already."),
        ));
    }
    let record = corrected(&letter, &body)?;
    let source = replay_source(&app, &letter.partition)?;
    // On a task of its own: once the record is durable its verdict must reach the store.
    tokio::spawn(async move { settle(&app, letter, &source, record, wait).await })
        .await
        .map_err(|e| Problem::internal(format!("The replay was not finished: {e}.")))?
}

/// Sends the record, waits for its verdict and notes it. A process that is killed in between has done a part: the same
/// replay, asked for again, finds the record that was sent and goes on from there.
async fn settle(
    app: &Arc<App>,
    letter: DeadLetter,
    source: &str,
    record: Outgoing,
    wait: Duration,
) -> Result<Json<ReplayAnswer>> {
    let id = letter.id.clone();
    let key = key(&letter, &record);
    let (pushed, before) = intake::append_once(app, source, key, record).await?;
    let verdict = intake::verdicts(app, &pushed, wait).await;
    let place = (pushed.partition().clone(), pushed.offset());
    drop(pushed);
    if verdict.pending > 0 {
        return Ok(Json(answer(letter, "replay_pending", &verdict)));
    }
    if verdict.refused > 0 {
        let reasons = verdict.errors.into_iter().flat_map(|error| error.reasons).collect();
        return Err(still_refused(app, id, place, reasons).await?);
    }
    if before {
        // Its verdict came when nobody waited for it any more.
        let at = place.clone();
        let refused = blocking(app, move |app| {
            on_disk(app)?;
            match app.dead.at(&at.0, at.1, 0) {
                Ok(letter) => Ok(Some(letter.reasons)),
                Err(DeadLetterError::Unknown(_)) => Ok(None),
                Err(error) => Err(error),
            }
        });
        if let Some(reasons) = refused.await? {
            let reasons = reasons.iter().map(ReasonBody::from).collect();
            return Err(still_refused(app, id, place, reasons).await?);
        }
    }
    faults::point("replay.before_note");
    let note = format!("replayed as {}/{} offset {}", place.0.source, place.0.topic, place.1);
    let letter = blocking(app, move |app| app.dead.mark_replayed(&id, &note)).await?;
    Ok(Json(answer(letter, "replayed", &verdict)))
}

/// The same for the same correction until its verdict is noted.
fn key(letter: &DeadLetter, record: &Outgoing) -> String {
    let mut digest = Sha256::new().chain_update(&record.value);
    for (name, value) in &record.headers {
        digest = digest.chain_update([0]).chain_update(name).chain_update([0]).chain_update(value);
    }
    let digest: String = digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("replay/{}/{}/{digest}", letter.id, letter.retry_count)
}

fn answer(letter: DeadLetter, status: &str, verdict: &PushAnswer) -> ReplayAnswer {
    ReplayAnswer {
        event_id: letter.id,
        status: status.to_owned(),
        retry_count: letter.retry_count,
        last_retried_at: letter.last_retried_at.map(format_timestamp),
        token: Some(verdict.token.clone()),
        duplicate: (verdict.duplicate > 0).then_some(true),
    }
}

/// Waits until the dead letters know of all refusals so far.
fn on_disk(app: &App) -> std::result::Result<(), DeadLetterError> {
    match app.dead.flush_for(Duration::from_secs(5)) {
        true => Ok(()),
        false => {
            let message = app.dead.trouble().unwrap_or_else(|| "the disk is slow".to_owned());
            Err(DeadLetterError::Io { path: app.dead.path().to_path_buf(), message })
        }
    }
}

/// Notes the refusal on the original, and puts aside the dead letter that the replayed record itself
/// has become, so that one event is not two open items.
async fn still_refused(
    app: &Arc<App>,
    id: String,
    place: (Partition, i64),
    reasons: Vec<ReasonBody>,
) -> Result<Problem> {
    let note = reasons.iter().map(|r| r.code.as_str()).collect::<Vec<_>>().join(", ");
    let note = format!("replay refused: {note}");
    blocking(app, move |app| {
        on_disk(app)?;
        faults::point("replay.before_refusal");
        // First this one: killed in between, the same replay does both.
        match app.dead.at(&place.0, place.1, 0) {
            Ok(letter) if letter.status == Status::Failed => drop(app.dead.dismiss(&letter.id)?),
            Ok(_) | Err(DeadLetterError::Unknown(_)) => {}
            Err(error) => return Err(error),
        }
        faults::point("replay.between");
        app.dead.mark_still_refused(&id, &note)?;
        Ok(())
    })
    .await?;
    let mut problem = Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "still_refused",
        format!(
            "The event is still refused: {}.",
            reasons.iter().map(|r| r.message.trim_end_matches('.')).collect::<Vec<_>>().join("; ")
        ),
    );
    problem.errors = reasons
        .into_iter()
        .map(|r| ProblemItem { place: r.path, code: r.code, message: r.message, ..ProblemItem::default() })
        .collect();
    Ok(problem)
}

/// Body of a replay. Raw JSON: a number must arrive as it was written, not as a float.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReplayBody {
    corrected_payload: Option<Box<RawValue>>,
    payload: Option<Box<RawValue>>,
    headers: BTreeMap<String, Option<String>>,
}

type RawObject = BTreeMap<String, Box<RawValue>>;

/// The record to send: the original, or what the body makes of it.
fn corrected(letter: &DeadLetter, body: &[u8]) -> Result<Outgoing> {
    let original = letter.payload.clone().unwrap_or_default();
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Outgoing { value: original, headers: letter.headers.clone(), parts: 1 });
    }
    let wrong = |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_replay", detail);
    let body: ReplayBody = serde_json::from_slice(body).map_err(|e| {
        let detail = format!("The body cannot be used: {e}. Send {{\"corrected_payload\": {{...}}}} (merged) or {{\"payload\": ...}} (whole).");
        if e.is_data() { wrong(detail) } else { Problem::bad_request("malformed_json", detail) }
    })?;
    let headers = headers(letter, body.headers).map_err(wrong)?;
    let value = match (body.corrected_payload, body.payload) {
        (Some(_), Some(_)) => return Err(wrong("Send `corrected_payload` or `payload`, not both.".into())),
        (None, None) => original,
        (None, Some(whole)) => match serde_json::from_str::<String>(whole.get()) {
            // Text: for payloads that are not JSON.
            Ok(text) => text.into_bytes().into(),
            Err(_) => Bytes::copy_from_slice(whole.get().as_bytes()),
        },
        (Some(changes), None) => {
            let changes: RawObject = serde_json::from_str(changes.get())
                .map_err(|_| wrong("`corrected_payload` must be a JSON object.".into()))?;
            let mut merged: RawObject = serde_json::from_slice(&original).map_err(|e| {
                wrong(format!("The original is not a JSON object ({e}), so nothing can be merged into it. Send it whole as `payload`."))
            })?;
            merged.extend(changes);
            serde_json::to_vec(&merged)
                .map(Bytes::from)
                .map_err(|e| Problem::internal(format!("The payload could not be written: {e}.")))?
        }
    };
    Ok(Outgoing { value, headers, parts: 1 })
}

/// The headers of the original with `changes`.
fn headers(
    letter: &DeadLetter,
    changes: BTreeMap<String, Option<String>>,
) -> std::result::Result<HeaderList, String> {
    let mut headers = letter.headers.clone();
    for (name, value) in changes {
        let name = name.to_ascii_lowercase();
        if !(name.starts_with("ce-") || name == "content-type") {
            return Err(format!("`{name}` is no header of an event. Allowed: content-type, ce-*."));
        }
        headers.retain(|(known, _)| known.to_ascii_lowercase().replacen("ce_", "ce-", 1) != name);
        headers.extend(value.map(|value| (name, Bytes::from(value))));
    }
    Ok(headers)
}

/// The http source that takes the replay: the one the event came from, else the default one.
fn replay_source(app: &App, partition: &Partition) -> Result<String> {
    if app.logs.contains_key(&*partition.source) {
        return Ok(partition.source.to_string());
    }
    app.default_source.clone().ok_or_else(|| {
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no_http_source",
            "A replay goes through an http source, and the settings have none. Add `{ name: push, http: {}, format: json }`.",
        )
    })
}

/// Put a refused event aside.
#[utoipa::path(
    post, path = "/v1/deadletter/{id}/dismiss", tag = "dead letters", operation_id = "dismissDeadLetter",
    params(("id" = String, Path, description = "Id from the list")),
    responses(
        (status = 200, description = "`dismissed`", body = ReplayAnswer),
        (status = 404, description = "No such dead letter", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn dismiss(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<ReplayAnswer>> {
    params.only(&[])?;
    let letter = blocking(&app, move |app| app.dead.dismiss(&id)).await?;
    Ok(Json(ReplayAnswer {
        event_id: letter.id,
        status: "dismissed".into(),
        retry_count: letter.retry_count,
        last_retried_at: letter.last_retried_at.map(format_timestamp),
        token: None,
        duplicate: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: &str) -> DeadLetter {
        DeadLetter {
            id: "dl_0000000000000001".into(),
            partition: Partition { source: "push".into(), topic: "log".into(), number: 0 },
            offset: 1,
            part: 0,
            received: 0,
            event_type: None,
            event_id: None,
            headers: vec![
                ("ce_type".to_owned(), Bytes::from_static(b"a")),
                ("ce-id".to_owned(), Bytes::from_static(b"1")),
            ],
            reasons: Vec::new(),
            status: Status::Failed,
            retry_count: 0,
            last_retried_at: None,
            note: None,
            payload_len: payload.len() as u64,
            payload: Some(Bytes::copy_from_slice(payload.as_bytes())),
        }
    }

    #[test]
    fn merging_keeps_numbers_as_written() {
        let letter = letter(r#"{"id":"a","total":123456789012345678901.10,"n":1}"#);
        let corrected = |body: &[u8]| corrected(&letter, body).unwrap().value;
        let sent = corrected(br#"{"corrected_payload":{"n":2,"x":0.10}}"#);
        assert_eq!(&sent[..], br#"{"id":"a","n":2,"total":123456789012345678901.10,"x":0.10}"#);
        assert_eq!(&corrected(b"")[..], &letter.payload.clone().unwrap()[..]);
        assert_eq!(&corrected(br#"{"payload":{"a":1}}"#)[..], br#"{"a":1}"#);
        assert_eq!(&corrected(br#"{"payload":"not json"}"#)[..], b"not json");
    }

    #[test]
    fn headers_stay_or_are_set_anew() {
        let letter = letter("{}");
        let corrected = |body: &[u8]| corrected(&letter, body).unwrap().headers;
        let list = |pairs: &[(&str, &'static str)]| -> HeaderList {
            pairs.iter().map(|(n, v)| ((*n).to_owned(), Bytes::from_static(v.as_bytes()))).collect()
        };
        assert_eq!(corrected(b""), letter.headers);
        assert_eq!(corrected(br#"{"payload":{}}"#), letter.headers);
        let sent = corrected(br#"{"headers":{"CE-Type":"b","ce-id":null,"ce-source":"s"}}"#);
        assert_eq!(sent, list(&[("ce-type", "b"), ("ce-source", "s")]));
    }

    #[test]
    fn wrong_bodies_say_what_is_wrong() {
        let original = letter("{}");
        for (body, status) in [
            ("{", 400),
            (r#"{"corrected_payload":{},"payload":{}}"#, 422),
            (r#"{"corrected":{}}"#, 422),
            (r#"{"corrected_payload":[1]}"#, 422),
            (r#"{"headers":{"authorization":"x"}}"#, 422),
        ] {
            assert_eq!(corrected(&original, body.as_bytes()).unwrap_err().status.as_u16(), status, "{body}");
        }
        let broken = letter("{broken");
        assert_eq!(corrected(&broken, br#"{"corrected_payload":{}}"#).unwrap_err().code, "invalid_replay");
    }
}
