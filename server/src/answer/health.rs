//! GET `/livez`, `/readyz`, `/v1/health`.
//!
//! *In*: sources, engine, reloads. *Out*: alive, ready, healthy, with the reasons. *Never*: "ready"
//! before everything that was there at the start is in the numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use connectors::receive::{SourceStatus, State as SourceState};
use contracts::batch::Partition;
use contracts::value::time::format_timestamp;
use engine::Published;
use parking_lot::Mutex;
use serde_json::{Value as JsonValue, json};

use super::params::{Params, age_ms, age_seconds, wall_now};
use crate::app::App;
use crate::error::Result;

/// A published tick older than this means that the engine is stuck (it ticks at least every second).
const STUCK_MS: f64 = 10_000.0;

/// Which sources have caught up once since the start.
#[derive(Debug, Default)]
pub(crate) struct CaughtUp {
    sources: Mutex<BTreeMap<String, Progress>>,
}

#[derive(Debug)]
enum Progress {
    /// The source has read up to here; the engine must follow.
    Target(Vec<(Partition, i64)>),
    /// Once is enough: later lag is shown, not unreadiness.
    Done,
}

impl CaughtUp {
    /// True once everything that was there at the start of `source` is published.
    pub(crate) fn check(&self, source: &SourceStatus, published: Option<&Published>) -> bool {
        let mut sources = self.sources.lock();
        if let Some(Progress::Done) = sources.get(&source.name) {
            return true;
        }
        if !sources.contains_key(&source.name) {
            if !source.caught_up {
                return false;
            }
            let name: Arc<str> = source.name.as_str().into();
            let target = source.partitions.iter().map(|p| {
                (Partition { source: name.clone(), topic: p.topic.clone(), number: p.number }, p.next)
            });
            sources.insert(source.name.clone(), Progress::Target(target.collect()));
        }
        let reached = match (sources.get(&source.name), published) {
            (Some(Progress::Target(target)), Some(published)) => target.iter().all(|(p, next)| {
                *next <= 0 || published.offsets.get(p).is_some_and(|progress| progress.next >= *next)
            }),
            _ => false,
        };
        if reached {
            sources.insert(source.name.clone(), Progress::Done);
        }
        reached
    }
}

/// The process runs.
#[utoipa::path(
    get, path = "/livez", tag = "health", operation_id = "livez",
    responses((status = 200, description = "`{status: \"alive\"}`", body = Object))
)]
pub(crate) async fn livez() -> Json<JsonValue> {
    Json(json!({ "status": "alive" }))
}

/// One check of readiness.
struct Check {
    name: String,
    ok: bool,
    message: String,
}

/// Answers may be relied on; `?verbose` tells about every source.
#[utoipa::path(
    get, path = "/readyz", tag = "health", operation_id = "readyz",
    params(("verbose" = Option<String>, Query, description = "Also sources, lag, progress, settings")),
    responses(
        (status = 200, description = "`{status: \"ready\", checks: [...]}`", body = Object),
        (status = 503, description = "`{status: \"not_ready\", checks: [...]}`: starting, catching up or shutting down", body = Object),
    )
)]
pub(crate) async fn readyz(State(app): State<Arc<App>>, params: Params) -> Result<Response> {
    params.only(&["verbose"])?;
    let published = app.published().ok().map(|(_, p)| p);
    let sources = app.sources();
    let checks = checks(&app, published.as_deref(), &sources);
    let ready = checks.iter().all(|c| c.ok);
    let mut body = json!({
        "status": if ready { "ready" } else { "not_ready" },
        "checks": checks.iter().map(|c| json!({
            "name": c.name, "status": if c.ok { "ok" } else { "failed" }, "message": c.message,
        })).collect::<Vec<_>>(),
    });
    if params.has("verbose") {
        body["sources"] = sources.iter().map(|s| source(s, published.as_deref())).collect();
        body["lake"] = app.lake.as_ref().map(|lake| crate::laketicks::shown(&lake.status())).into();
        body["engine"] = engine(&app, published.as_deref());
        body["contracts"] = app.contracts.iter().map(|p| p.display().to_string()).collect();
        body["reload"] = json!(app.reload_state());
        body["history"] = super::backfill::told(&app);
        body["checkpoints"] = super::checkpoints::told(&app);
        body["settings"] = app.settings.clone();
        body["uptime_seconds"] = json!(app.uptime().as_secs_f64());
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = (status, Json(body)).into_response();
    if !ready {
        response
            .headers_mut()
            .insert(axum::http::header::RETRY_AFTER, axum::http::HeaderValue::from_static("1"));
    }
    Ok(response)
}

fn checks(app: &App, published: Option<&Published>, sources: &[SourceStatus]) -> Vec<Check> {
    let mut checks = vec![Check {
        name: "draining".into(),
        ok: !app.draining(),
        message: if app.draining() {
            "the server is shutting down".into()
        } else {
            "accepting requests".into()
        },
    }];
    checks.push(Check {
        name: "engine".into(),
        ok: published.is_some(),
        message: if published.is_some() { "publishing".into() } else { "the engine is starting".into() },
    });
    if let Some(lake) = &app.lake {
        let (ok, message) = crate::laketicks::words(&lake.status());
        checks.push(Check { name: "lake".into(), ok, message });
    }
    if let Some(message) = pressure(app) {
        checks.push(Check { name: "pressure".into(), ok: false, message });
    }
    let kept = app.live().ok().and_then(|live| live.engine.checkpoints());
    if let Some(error) = kept.and_then(|health| health.error) {
        checks.push(Check { name: "checkpoints".into(), ok: false, message: error });
    }
    for name in app.logs.keys() {
        if let Some(message) = refuses(app, name) {
            checks.push(Check { name: format!("log:{name}"), ok: false, message });
        }
    }
    if let Some(trouble) = app.dead.trouble() {
        let message = format!("refused events cannot be written, sources pause when much waits: {trouble}");
        checks.push(Check { name: "deadletters".into(), ok: false, message });
    }
    for (name, log) in app.logs.iter().filter(|(_, log)| log.is_held()) {
        let message = format!(
            "full: {} bytes, all of which checkpoints or the lake still need; pushes are refused until a newer checkpoint",
            log.bytes()
        );
        checks.push(Check { name: format!("log:{name}"), ok: false, message });
    }
    for source in sources {
        let failed = matches!(source.state, SourceState::Failed(_));
        let ok = app.caught_up.check(source, published) && !failed;
        checks.push(Check { name: format!("source:{}", source.name), ok, message: words(source) });
    }
    checks
}

/// Why events are not taken for now, where they are not.
fn pressure(app: &App) -> Option<String> {
    let paused = app.paused();
    let wait = if paused.iter().any(|one| one.source.is_none()) { "sources wait, " } else { "" };
    let why: Vec<String> = paused.iter().map(|one| format!("{} ({})", one.message, one.help)).collect();
    (!why.is_empty()).then(|| format!("{wait}pushes are refused with 503: {}", why.join("; ")))
}

/// Why pushes to a source are refused.
fn refuses(app: &App, source: &str) -> Option<String> {
    let trouble = app.logs.get(source)?.trouble()?;
    Some(format!("pushes are refused with 503 until they can be stored: {trouble}"))
}

/// The state of a source in words.
pub(super) fn words(source: &SourceStatus) -> String {
    let lag = source.lag.map_or_else(String::new, |n| format!(", {n} behind"));
    let read = match (source.caught_up, source.seconds_left) {
        (true, _) => lag.clone(),
        (false, None) => format!(", {} read{lag}, {} records/s", source.read, source.per_second),
        (false, Some(left)) => {
            let left = duration(left);
            format!(", {} read{lag}, {} records/s, {left} left", source.read, source.per_second)
        }
    };
    match &source.state {
        SourceState::Connecting => match &source.last_error {
            Some(error) => format!("connecting: {error}"),
            None => "connecting".to_owned(),
        },
        SourceState::CatchingUp => format!("catching up{read}"),
        SourceState::Running => format!("running{lag}"),
        SourceState::Paused => format!("paused: the engine takes no more for now{read}"),
        SourceState::Waiting(why) => format!("waiting: {why}{lag}"),
        SourceState::Failed(why) => format!("failed: {why}"),
        SourceState::Finished => "finished".to_owned(),
    }
}

/// `40 s`, `12 min`, `3 h`.
fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// A source with how far the published numbers are behind it.
pub(crate) fn source(source: &SourceStatus, published: Option<&Published>) -> JsonValue {
    let mut out = serde_json::to_value(source).unwrap_or_default();
    let name: Arc<str> = source.name.as_str().into();
    let (mut done, mut all) = (0i64, 0i64);
    for p in &source.partitions {
        let partition = Partition { source: name.clone(), topic: p.topic.clone(), number: p.number };
        let next = published.and_then(|x| x.offsets.get(&partition)).map_or(0, |x| x.next);
        let end = p.end.unwrap_or(p.next);
        done = done.saturating_add(next.min(end).max(0));
        all = all.saturating_add(end.max(0));
    }
    out["caught_up"] = json!(source.caught_up);
    out["published_lag"] = json!((all - done).max(0));
    out["progress"] = match (source.total_bytes, all) {
        (Some(total), _) if total > 0 => json!(source.done_bytes as f64 / total as f64),
        (_, 0) => JsonValue::Null,
        _ => json!(done as f64 / all as f64),
    };
    out["message"] = json!(words(source));
    out
}

fn engine(app: &App, published: Option<&Published>) -> JsonValue {
    let Some(published) = published else { return JsonValue::Null };
    json!({
        "tick": published.tick,
        "as_of": format_timestamp(published.as_of),
        "fresh_ms": age_ms(wall_now(), published.as_of),
        "generation": app.live().map(|l| l.generation).ok(),
        "contracts": published.catalog.hash,
    })
}

/// How everything is doing; always 200.
#[utoipa::path(
    get, path = "/v1/health", tag = "health", operation_id = "getHealth",
    responses((status = 200, description = "`{status, checked_at, components: [{name, status, message, source, metrics}]}`", body = Object))
)]
pub(crate) async fn health(State(app): State<Arc<App>>, params: Params) -> Result<Json<JsonValue>> {
    params.only(&[])?;
    let published = app.published().ok().map(|(_, p)| p);
    let mut components = vec![freshness(published.as_deref()), contracts(&app)];
    components.extend(app.sources().iter().map(|s| source_component(&app, s, published.as_deref())));
    components.extend(pressure(&app).map(|why| component("pressure", "degraded", why, json!({}))));
    components.extend(history(&app));
    components.push(dead_letters(&app));
    components.push(audit(&app));
    components.extend(app.lake.as_ref().map(|lake| {
        let status = lake.status();
        let (ok, message) = crate::laketicks::words(&status);
        let word = match (ok, &status.trouble) {
            (false, _) => "unhealthy",
            (true, Some(_)) => "degraded",
            (true, None) => "healthy",
        };
        component("lake", word, message, crate::laketicks::shown(&status))
    }));
    let worst = ["unhealthy", "degraded"].into_iter().find(|w| components.iter().any(|c| c["status"] == *w));
    let status = if app.draining() { "draining" } else { worst.unwrap_or("healthy") };
    Ok(Json(json!({
        "status": status,
        "checked_at": format_timestamp(wall_now()),
        "components": components,
    })))
}

/// Only once a backfill has been asked for, or while a generation catches up beside the one that answers.
fn history(app: &App) -> Option<JsonValue> {
    let told = super::backfill::told(app);
    let behind = app.backfills.behind();
    let word = if told["backfill"]["state"] == "failed" { "degraded" } else { "healthy" };
    let message = match (behind.is_empty(), told["backfill"]["message"].as_str()) {
        (true, None) => return None,
        (true, Some(message)) => message.to_owned(),
        (false, _) => crate::serve::progress::line(&behind),
    };
    Some(component("history", word, message, told))
}

fn component(name: &str, status: &str, message: String, metrics: JsonValue) -> JsonValue {
    json!({ "name": name, "status": status, "message": message, "source": "live", "metrics": metrics })
}

/// Numbers compared with their second truth.
fn audit(app: &App) -> JsonValue {
    let found = app.sampled.health();
    let agrees = found["status"] == "agrees";
    let message = match agrees {
        true => format!("{} numbers compared with their events, all agree", found["checked"]),
        false => "a number and its events disagree; see /v1/metrics/{name}/why".to_owned(),
    };
    component("audit", if agrees { "healthy" } else { "degraded" }, message, found)
}

fn freshness(published: Option<&Published>) -> JsonValue {
    let Some(published) = published else {
        return component(
            "freshness",
            "unhealthy",
            "the engine is starting".into(),
            json!({ "last_event_age_seconds": null }),
        );
    };
    let wall = wall_now();
    let fresh_ms = age_ms(wall, published.as_of);
    let newest =
        (0..published.catalog.metrics.len()).filter_map(|m| published.newest(m)).max_by_key(|n| n.received);
    let (status, message) = match newest {
        _ if fresh_ms > STUCK_MS => {
            ("unhealthy", format!("the engine has not published for {:.0} s", fresh_ms / 1e3))
        }
        None => ("healthy", "no event has moved a metric yet".to_owned()),
        Some(n) => ("healthy", format!("newest event received {}", format_timestamp(n.received))),
    };
    component(
        "freshness",
        status,
        message,
        json!({
            "last_event_age_seconds": newest.map(|n| age_seconds(wall, n.received)),
            "last_event_time": newest.map(|n| format_timestamp(n.time)),
            "fresh_ms": fresh_ms,
            "tick": published.tick,
        }),
    )
}

fn contracts(app: &App) -> JsonValue {
    let state = app.reload_state();
    let (status, message) = match &state.error {
        Some(error) => {
            ("degraded", format!("the last reload was refused, the contracts before it stay: {error}"))
        }
        None => ("healthy", "the contracts on disk are the ones that run".to_owned()),
    };
    component(
        "contracts",
        status,
        message,
        json!({ "reloads": state.succeeded, "refused_reloads": state.failed }),
    )
}

fn source_component(app: &App, status: &SourceStatus, published: Option<&Published>) -> JsonValue {
    let refuses = refuses(app, &status.name);
    let word = match &status.state {
        SourceState::Running | SourceState::Finished if refuses.is_some() => "degraded",
        SourceState::Running | SourceState::Finished => "healthy",
        SourceState::Failed(_) => "unhealthy",
        SourceState::Connecting | SourceState::CatchingUp | SourceState::Paused | SourceState::Waiting(_) => {
            "degraded"
        }
    };
    let halted = status.partitions.iter().any(|p| p.halted.is_some());
    let word = if halted { "unhealthy" } else { word };
    let message = refuses.map_or_else(|| words(status), |why| format!("{}; {why}", words(status)));
    component(&format!("source:{}", status.name), word, message, source(status, published))
}

fn dead_letters(app: &App) -> JsonValue {
    let stats = app.dead.stats();
    let (status, message) = match stats.overflowed {
        0 => ("healthy", "refused events are kept".to_owned()),
        n => (
            "degraded",
            format!("{n} refused events are not on disk yet: they are read again at the next start"),
        ),
    };
    component(
        "deadletters",
        status,
        message,
        json!({ "counts": stats.by_status, "total": stats.total, "dropped": stats.dropped, "overflowed": stats.overflowed }),
    )
}
