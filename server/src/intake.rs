//! From the body of a push to durable records and their verdicts.
//!
//! *In*: the bytes and headers of POST `/v1/events`. *Out*: records in the embedded log, then what
//! the engine made of each event. *Never*: an acknowledgement before the records are durable; anything
//! stored while the intake is paused, but deliveries of webhooks, which nobody sends again by himself.
//!
//! `body` cuts the request into records; this file appends them and waits for the verdicts.

mod body;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use connectors::receive::log::{Idempotent, IdempotentRequest, LogError, LogRecord, PushLog, TOPIC};
use contracts::batch::{Partition, Reason};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

pub use body::{Outgoing, split};

use crate::answer::token::Token;
use crate::app::App;
use crate::error::{Problem, Result};
use crate::pulse::{Ticket, Verdict, VerdictKind};
use crate::serve::pressure;

/// Refusals named in an answer; the rest is in the dead letters.
const MAX_ERRORS: usize = 100;

/// What became of a push.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PushAnswer {
    /// Events admitted.
    pub accepted: u64,
    /// Events refused; each is in the dead letters.
    pub refused: u64,
    /// Events seen before, by their id.
    pub duplicate: u64,
    /// Events that are durable but not folded yet.
    pub pending: u64,
    /// Read with `after=<token>` to see these events.
    pub token: String,
    /// The first 100 refusals.
    pub errors: Vec<PushError>,
}

/// One refused event of a push.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PushError {
    /// Index of the event in the request, from 0.
    pub index: u64,
    /// Offset in the log of the source.
    pub offset: i64,
    /// Index inside its record.
    pub part: u32,
    /// Why; at least one.
    pub reasons: Vec<ReasonBody>,
}

/// Why an event was refused.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ReasonBody {
    /// Stable name: `missing`, `wrong_type`, `rule:<name>`, ...
    pub code: String,
    /// Where in the event; empty for the event as a whole.
    pub path: String,
    /// What was found and what is allowed.
    pub message: String,
}

impl From<&Reason> for ReasonBody {
    fn from(reason: &Reason) -> ReasonBody {
        ReasonBody { code: reason.code.clone(), path: reason.path.clone(), message: reason.message.clone() }
    }
}

/// Where the events of one push are.
#[derive(Debug)]
struct Placed {
    /// First offset.
    from: i64,
    /// Events per record, in offset order.
    parts: Vec<u32>,
}

impl Placed {
    fn to(&self) -> i64 {
        self.from + i64::try_from(self.parts.len()).unwrap_or(i64::MAX)
    }
}

/// What a request with an `Idempotency-Key` got.
#[derive(Debug)]
pub(crate) enum Once {
    /// The key is new; the answer is kept for it.
    Fresh(PushAnswer),
    /// The stored answer, as JSON.
    Repeated(Bytes),
}

/// Appends `records` to the log of `source`, waits for the verdicts at most `wait`.
pub async fn push(
    app: &Arc<App>,
    source: &str,
    records: Vec<Outgoing>,
    wait: Duration,
) -> Result<PushAnswer> {
    pressure::takes(app, source, false)?;
    let pushed = append(app, source, records).await?;
    Ok(verdicts(app, &pushed, wait).await)
}

/// As [`push`], unless the same request with the same key came in the last day: it gets its answer again, even while the
/// intake is paused.
pub(crate) async fn push_once(
    app: &Arc<App>,
    source: &str,
    key: &str,
    body: &[u8],
    records: Vec<Outgoing>,
    wait: Duration,
) -> Result<Once> {
    let ready = Ready::new(app, source, records)?;
    let fingerprint: [u8; 32] = Sha256::digest(body).into();
    if let Err(paused) = pressure::takes(app, source, false) {
        return answered(&ready.log, key, fingerprint).await?.map(Once::Repeated).ok_or(paused);
    }
    let (partition, parts) = (ready.partition.clone(), ready.parts.clone());
    let request = IdempotentRequest {
        key: key.to_owned(),
        fingerprint,
        // What is known once the records are durable; the verdicts replace it below.
        answer: Box::new(move |range| {
            let placed = Placed { from: range.start, parts };
            serde_json::to_vec(&undecided(&partition, &placed)).unwrap_or_default().into()
        }),
    };
    let (done, durable) = tokio::sync::oneshot::channel();
    let forward = move |outcome| drop(done.send(outcome));
    ready.log.append_idempotent(ready.records, request, Box::new(forward));
    let range = match settled(durable.await)? {
        Idempotent::Fresh { range, .. } => range,
        Idempotent::Repeated { answer } => return Ok(Once::Repeated(answer)),
        Idempotent::OtherRequest => return Err(other_request()),
    };
    let pushed = Pushed {
        partition: ready.partition,
        placed: Placed { from: range.start, parts: ready.parts },
        _ticket: ready.ticket,
    };
    let answer = verdicts(app, &pushed, wait).await;
    let kept = serde_json::to_vec(&answer).unwrap_or_default();
    if let Err(error) = ready.log.idempotent_put(key, kept.into()) {
        tracing::warn!(%error, "the answer of an idempotent push was not updated");
    }
    Ok(Once::Fresh(answer))
}

/// The answer that is kept for `key`; nothing is appended.
async fn answered(log: &Arc<PushLog>, key: &str, fingerprint: [u8; 32]) -> Result<Option<Bytes>> {
    let (log, key) = (log.clone(), key.to_owned());
    let kept = tokio::task::spawn_blocking(move || log.idempotent_get(&key)).await;
    let kept = kept.map_err(|e| Problem::internal(format!("The log was not read: {e}.")))?;
    match kept.map_err(|e| log_problem(&e))? {
        Some((answer, of)) if of == fingerprint => Ok(Some(answer)),
        Some(_) => Err(other_request()),
        None => Ok(None),
    }
}

fn other_request() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency_key_reused",
        "This Idempotency-Key was used with another body. Use a new key for new events.",
    )
}

/// Appends one delivery of a webhook, unless the same one (by its name, where it has one, and its bytes) came
/// in the last day. Returns its token, and whether it came before.
pub(crate) async fn deliver(
    app: &Arc<App>,
    source: &str,
    name: Option<&str>,
    record: Outgoing,
) -> Result<(String, bool)> {
    pressure::takes(app, source, true)?;
    let fingerprint: [u8; 32] = Sha256::digest(&record.value).into();
    // The bytes are part of the key: a name is not signed, and must not hide another delivery.
    let digest =
        Sha256::new().chain_update(name.unwrap_or_default()).chain_update([0]).chain_update(fingerprint);
    let key: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let ready = Ready::new(app, source, vec![record])?;
    let partition = ready.partition.clone();
    let request = IdempotentRequest {
        key: format!("hook/{key}"),
        fingerprint,
        answer: Box::new(move |range| Token::single(&partition, range.end).encode().into()),
    };
    let (done, durable) = tokio::sync::oneshot::channel();
    let forward = move |outcome| drop(done.send(outcome));
    ready.log.append_idempotent(ready.records, request, Box::new(forward));
    let (answer, duplicate) = match settled(durable.await)? {
        Idempotent::Fresh { answer, .. } => (answer, false),
        Idempotent::Repeated { answer } => (answer, true),
        Idempotent::OtherRequest => return Err(Problem::internal("Two deliveries have one digest.")),
    };
    Ok((String::from_utf8_lossy(&answer).into_owned(), duplicate))
}

/// Appends one record, unless it came under the same key in the last day: then it is where it was put that time, which
/// is told by `true`.
pub(crate) async fn append_once(
    app: &Arc<App>,
    source: &str,
    key: String,
    record: Outgoing,
) -> Result<(Pushed, bool)> {
    pressure::takes(app, source, false)?;
    let fingerprint: [u8; 32] = Sha256::digest(&record.value).into();
    let ready = Ready::new(app, source, vec![record])?;
    let answer = Box::new(|range: &std::ops::Range<i64>| range.start.to_string().into());
    let request = IdempotentRequest { key, fingerprint, answer };
    let (done, durable) = tokio::sync::oneshot::channel();
    let forward = move |outcome| drop(done.send(outcome));
    ready.log.append_idempotent(ready.records, request, Box::new(forward));
    let (from, before) = match settled(durable.await)? {
        Idempotent::Fresh { range, .. } => (range.start, false),
        Idempotent::Repeated { answer } => {
            let at = std::str::from_utf8(&answer).ok().and_then(|text| text.parse().ok());
            (at.ok_or_else(|| Problem::internal("The log has forgotten where a record is."))?, true)
        }
        Idempotent::OtherRequest => return Err(Problem::internal("Two records have one key.")),
    };
    let placed = Placed { from, parts: ready.parts };
    Ok((Pushed { partition: ready.partition, placed, _ticket: ready.ticket }, before))
}

/// A durable push whose verdicts are waited for.
#[derive(Debug)]
pub(crate) struct Pushed {
    partition: Partition,
    placed: Placed,
    _ticket: Ticket,
}

impl Pushed {
    /// First offset.
    pub(crate) fn offset(&self) -> i64 {
        self.placed.from
    }

    /// Where it was appended.
    pub(crate) fn partition(&self) -> &Partition {
        &self.partition
    }
}

/// Records on their way to the log.
struct Ready {
    log: Arc<PushLog>,
    partition: Partition,
    ticket: Ticket,
    parts: Vec<u32>,
    records: Vec<LogRecord>,
}

impl Ready {
    fn new(app: &Arc<App>, source: &str, records: Vec<Outgoing>) -> Result<Ready> {
        if app.draining() {
            return Err(Problem::unavailable(
                "draining",
                "This server is shutting down; send to another one or retry.",
                5,
            ));
        }
        let log = log_of(app, source)?.clone();
        let partition = Partition { source: source.into(), topic: TOPIC.into(), number: 0 };
        // Nothing of this push can lie below the log's end as of now.
        let ticket = app.pulse.ticket(partition.clone(), log.end());
        let parts = records.iter().map(|r| r.parts).collect();
        let records = records.into_iter().map(|r| LogRecord { value: r.value, headers: r.headers }).collect();
        Ok(Ready { log, partition, ticket, parts, records })
    }
}

/// The durable half of a push.
#[tracing::instrument(name = "receive", skip_all, fields(source, records = records.len()))]
pub(crate) async fn append(app: &Arc<App>, source: &str, records: Vec<Outgoing>) -> Result<Pushed> {
    let ready = Ready::new(app, source, records)?;
    let (done, durable) = tokio::sync::oneshot::channel();
    // The other end is gone only when the request was cancelled.
    ready.log.append(ready.records, Box::new(move |outcome| drop(done.send(outcome))));
    let range = settled(durable.await)?;
    Ok(Pushed {
        partition: ready.partition,
        placed: Placed { from: range.start, parts: ready.parts },
        _ticket: ready.ticket,
    })
}

fn settled<T>(
    outcome: std::result::Result<std::result::Result<T, LogError>, tokio::sync::oneshot::error::RecvError>,
) -> Result<T> {
    outcome
        .map_err(|_| Problem::internal("The log stopped before it answered."))?
        .map_err(|e| log_problem(&e))
}

fn log_of<'a>(app: &'a App, source: &str) -> Result<&'a Arc<PushLog>> {
    app.logs.get(source).ok_or_else(|| {
        Problem::unknown(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unknown_source",
            "http source",
            source,
            app.logs.keys().cloned().collect(),
        )
    })
}

fn log_problem(error: &LogError) -> Problem {
    match error {
        LogError::TooLarge(_) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "record_too_large", format!("{error}."))
        }
        LogError::Key { .. } => Problem::bad_request("invalid_idempotency_key", format!("{error}.")),
        LogError::Full { .. } | LogError::Needed { .. } => {
            Problem::unavailable("log_full", format!("The events were not stored: {error}."), 1)
        }
        _ => Problem::unavailable("log_unavailable", format!("The events were not stored: {error}."), 5),
    }
}

/// The answer while nothing is known but the offsets.
fn undecided(partition: &Partition, placed: &Placed) -> PushAnswer {
    PushAnswer {
        accepted: 0,
        refused: 0,
        duplicate: 0,
        pending: placed.parts.iter().map(|n| u64::from(*n)).sum(),
        token: Token::single(partition, placed.to()).encode(),
        errors: Vec::new(),
    }
}

/// Waits until the published state contains the push, at most `wait`, and counts.
#[tracing::instrument(name = "admit", skip_all)]
pub(crate) async fn verdicts(app: &Arc<App>, pushed: &Pushed, wait: Duration) -> PushAnswer {
    let deadline = tokio::time::Instant::now() + wait;
    let mut ticks = app.ticks();
    loop {
        ticks.borrow_and_update();
        let answer = count(app, pushed);
        if answer.pending == 0 {
            return answer;
        }
        tokio::select! {
            changed = ticks.changed() => if changed.is_err() { return answer },
            () = tokio::time::sleep_until(deadline) => return count(app, pushed),
        }
    }
}

fn count(app: &App, pushed: &Pushed) -> PushAnswer {
    let Pushed { partition, placed, .. } = pushed;
    let mut answer = undecided(partition, placed);
    let total = answer.pending;
    let Ok(live) = app.live() else { return answer };
    let Some(published) = live.hook.latest() else { return answer };
    let next = published.offsets.get(partition).map_or(i64::MIN, |p| p.next).min(placed.to());
    if next <= placed.from {
        return answer;
    }
    let Some(verdicts) = live.hook.verdicts(partition, placed.from, next) else { return answer };
    let decided = usize::try_from(next - placed.from).unwrap_or(0);
    let known: u64 = placed.parts[..decided].iter().map(|n| u64::from(*n)).sum();
    let mut first = vec![0u64; placed.parts.len()];
    let mut sum = 0u64;
    for (start, parts) in first.iter_mut().zip(&placed.parts) {
        *start = sum;
        sum += u64::from(*parts);
    }
    for verdict in verdicts {
        match &verdict.kind {
            VerdictKind::Duplicate => answer.duplicate += 1,
            VerdictKind::Refused(reasons) => {
                answer.refused += 1;
                if answer.errors.len() < MAX_ERRORS {
                    answer.errors.push(push_error(&verdict, reasons.as_deref(), placed, &first));
                }
            }
        }
    }
    answer.errors.sort_by_key(|e| e.index);
    answer.accepted = known.saturating_sub(answer.refused + answer.duplicate);
    answer.pending = total - known;
    answer
}

fn push_error(verdict: &Verdict, reasons: Option<&[Reason]>, placed: &Placed, first: &[u64]) -> PushError {
    let record = usize::try_from(verdict.offset - placed.from).unwrap_or(0);
    PushError {
        index: first.get(record).copied().unwrap_or(0) + u64::from(verdict.part),
        offset: verdict.offset,
        part: verdict.part,
        reasons: reasons.unwrap_or_default().iter().map(ReasonBody::from).collect(),
    }
}
