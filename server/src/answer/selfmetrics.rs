//! GET `/metrics`: what we count about ourselves, for Prometheus.
//!
//! *In*: the published counters, sources, the HTTP counters. *Out*: the text format. *Never*: more
//! than a bounded number of series.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use connectors::receive::State as SourceState;
use contracts::value::Value;
use engine::{MetricQuery, Published};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::describe;
use super::params::{age_seconds, wall_now};
use crate::app::App;
use crate::error::{Problem, Result};
use crate::serve::pressure::REASONS;

/// Series of one family at most; beyond that the rest is left out and counted.
const MAX_SERIES: usize = 2_000;

pub(super) type Labels = Vec<(String, String)>;
pub(super) type Counters = Family<Labels, Counter>;
pub(super) type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;

/// Self-metrics in the Prometheus text format.
#[utoipa::path(
    get, path = "/metrics", tag = "health", operation_id = "getPrometheusMetrics",
    responses((status = 200, description = "OpenMetrics text", content_type = "application/openmetrics-text", body = String))
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response> {
    let mut registry = Registry::with_prefix("streamgauge");
    process(&app, &mut registry);
    http(&app, &mut registry);
    intake(&app, &mut registry);
    sources(&app, &mut registry);
    behind(&app, &mut registry);
    if let Ok((live, published)) = app.published() {
        events(&published, &mut registry);
        balance(&app, &mut registry);
        refused(&live.hook.refused_by_reason(), &mut registry);
        ticks(&app, &published, &mut registry);
        values(&published, &mut registry);
    }
    dead_letters(&app, &mut registry);
    audit(&app, &mut registry);
    super::checkpoints::metrics(&app, &mut registry);
    lake(&app, &mut registry);
    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|e| Problem::internal(format!("The metrics could not be written: {e}.")))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
        .into_response())
}

fn audit(app: &App, registry: &mut Registry) {
    let checked = counters(registry, "audit_checked", "Numbers compared with their second truth");
    checked.get_or_create(&Vec::new()).inc_by(app.sampled.checked.load(Ordering::Relaxed));
    let skipped = counters(registry, "audit_not_recomputed", "Numbers that had no second truth");
    skipped.get_or_create(&Vec::new()).inc_by(app.sampled.skipped.load(Ordering::Relaxed));
    let disagreed = counters(registry, "audit_disagreed", "Numbers that their events do not give");
    for (metric, n) in app.sampled.disagreed().into_iter().take(MAX_SERIES) {
        disagreed.get_or_create(&labels(&[("metric", &metric)])).inc_by(n);
    }
    let Some(size) = app.live().ok().and_then(|live| live.hook.keeper().map(crate::second::Keeper::size))
    else {
        return;
    };
    let kept = gauges(registry, "audit_kept", "Admitted events kept, and their bytes");
    for (what, n) in
        [("events", size.0 as f64), ("memory_bytes", size.1 as f64), ("file_bytes", size.2 as f64)]
    {
        kept.get_or_create(&labels(&[("what", what)])).set(n);
    }
}

fn lake(app: &App, registry: &mut Registry) {
    let Some(status) = app.lake.as_ref().map(|lake| lake.status()) else { return };
    let none = Vec::new();
    counters(registry, "lake_rows", "Rows committed to the lake").get_or_create(&none).inc_by(status.rows);
    counters(registry, "lake_rounds", "Rounds of commits").get_or_create(&none).inc_by(status.rounds);
    counters(registry, "lake_failures", "Attempts that failed").get_or_create(&none).inc_by(status.failures);
    let up = gauges(registry, "lake_up", "1 unless the lake has stopped or its last attempt failed");
    up.get_or_create(&none).set(f64::from(u8::from(status.trouble.is_none())));
    let waiting = gauges(registry, "lake_waiting", "Rows that wait for their commit, and their bytes");
    waiting.get_or_create(&labels(&[("what", "rows")])).set(status.waiting_rows as f64);
    waiting.get_or_create(&labels(&[("what", "bytes")])).set(status.waiting_bytes as f64);
}

pub(super) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

pub(super) fn counters(registry: &mut Registry, name: &str, help: &str) -> Counters {
    let family = Counters::default();
    registry.register(name, help, family.clone());
    family
}

pub(super) fn gauges(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let family = Gauges::default();
    registry.register(name, help, family.clone());
    family
}

fn process(app: &App, registry: &mut Registry) {
    gauges(registry, "build_info", "The version that runs; always 1")
        .get_or_create(&labels(&[("version", env!("CARGO_PKG_VERSION"))]))
        .set(1.0);
    gauges(registry, "uptime_seconds", "Time since start")
        .get_or_create(&Vec::new())
        .set(app.uptime().as_secs_f64());
    gauges(registry, "draining", "1 while shutting down")
        .get_or_create(&Vec::new())
        .set(f64::from(u8::from(app.draining())));
    let reloads = counters(registry, "contract_reloads", "Contract reloads by outcome");
    let state = app.reload_state();
    reloads.get_or_create(&labels(&[("outcome", "succeeded")])).inc_by(state.succeeded);
    reloads.get_or_create(&labels(&[("outcome", "failed")])).inc_by(state.failed);
}

fn http(app: &App, registry: &mut Registry) {
    registry.register("http_requests", "Requests by route and status", app.telemetry.requests.clone());
    registry.register(
        "http_request_duration_seconds",
        "Time until the answer began",
        app.telemetry.latency.clone(),
    );
    registry.register(
        "hook_deliveries",
        "Deliveries of webhooks by outcome: stored, duplicate, denied, refused, unavailable, challenge",
        app.telemetry.hooks.clone(),
    );
    let open = app.limits.streams.saturating_sub(app.streams.available_permits());
    gauges(registry, "http_streams", "Open event streams").get_or_create(&Vec::new()).set(open as f64);
}

fn intake(app: &App, registry: &mut Registry) {
    let paused = gauges(registry, "intake_paused", "1 while pushes are refused with 503, by reason");
    let why = app.paused();
    for reason in REASONS {
        let is = why.iter().any(|one| one.code == reason);
        paused.get_or_create(&labels(&[("reason", reason)])).set(f64::from(u8::from(is)));
    }
}

fn sources(app: &App, registry: &mut Registry) {
    let up =
        gauges(registry, "source_up", "1 unless the source is not connected, not (all) there or has failed");
    let bytes = counters(registry, "source_bytes", "Payload bytes handed to the engine");
    let errors = counters(registry, "source_errors", "Errors of the source");
    let gaps = counters(registry, "source_gap_records", "Records that were gone before they could be read");
    let again = gauges(
        registry,
        "source_behind_at_start",
        "Records that were there and not in the restored state when reading began",
    );
    let lag = gauges(registry, "source_lag", "Records between the position of the source and its end");
    let speed =
        gauges(registry, "source_records_per_second", "Records read per second, over the last seconds");
    let left =
        gauges(registry, "source_seconds_left", "Seconds until the source has caught up, while it has not");
    for source in app.sources().into_iter().take(MAX_SERIES) {
        let name = labels(&[("source", &source.name)]);
        up.get_or_create(&labels(&[("source", &source.name), ("kind", source.kind)])).set(f64::from(
            u8::from(!matches!(
                source.state,
                SourceState::Connecting | SourceState::Waiting(_) | SourceState::Failed(_)
            )),
        ));
        bytes.get_or_create(&name).inc_by(source.bytes);
        errors.get_or_create(&name).inc_by(source.errors);
        gaps.get_or_create(&name).inc_by(source.gap);
        again.get_or_create(&name).set(source.behind_at_start as f64);
        speed.get_or_create(&name).set(source.per_second as f64);
        if let Some(seconds) = source.seconds_left {
            left.get_or_create(&name).set(seconds as f64);
        }
        if let Some(behind) = source.lag {
            lag.get_or_create(&name).set(behind as f64);
        }
    }
}

/// The generation that catches up beside the one that answers.
fn behind(app: &App, registry: &mut Registry) {
    let speed = gauges(
        registry,
        "catch_up_records_per_second",
        "Records read per second beside the running contracts",
    );
    let lag = gauges(registry, "catch_up_lag", "Records that a reload or a backfill has still to read");
    let left =
        gauges(registry, "catch_up_seconds_left", "Seconds until a reload or a backfill has read them");
    for source in app.backfills.behind().into_iter().take(MAX_SERIES) {
        let name = labels(&[("source", &source.name)]);
        speed.get_or_create(&name).set(source.per_second as f64);
        if let Some(behind) = source.lag {
            lag.get_or_create(&name).set(behind as f64);
        }
        if let Some(seconds) = source.seconds_left {
            left.get_or_create(&name).set(seconds as f64);
        }
    }
}

fn events(published: &Published, registry: &mut Registry) {
    let events = counters(
        registry,
        "events",
        "Events by source, type and outcome; received = admitted + refused + duplicate + skipped",
    );
    for ((source, name), counts) in &published.counters {
        // Types come from outside: only declared ones are labels.
        let known = published.catalog.event_index(name).is_some();
        let kind = if known { name.as_str() } else { "unknown" };
        let outcomes = [
            ("received", counts.received),
            ("admitted", counts.admitted),
            ("refused", counts.refused),
            ("duplicate", counts.duplicate),
            ("skipped", counts.skipped),
            ("warned", counts.warned),
        ];
        for (outcome, n) in outcomes {
            events
                .get_or_create(&labels(&[("source", source), ("event_type", kind), ("outcome", outcome)]))
                .inc_by(n);
        }
    }
}

fn balance(app: &App, registry: &mut Registry) {
    gauges(
        registry,
        "events_unaccounted",
        "received - admitted - refused - duplicate - skipped of the newest tick; always 0",
    )
    .get_or_create(&Vec::new())
    .set(app.pulse.unaccounted.load(Ordering::Relaxed) as f64);
    counters(registry, "ticks_unbalanced", "Ticks at which events had no outcome, or two; always 0")
        .get_or_create(&Vec::new())
        .inc_by(app.pulse.unbalanced.load(Ordering::Relaxed));
}

fn refused(by_reason: &[(String, u64)], registry: &mut Registry) {
    let refused = counters(registry, "refused", "Refused events by their first reason");
    for (reason, n) in by_reason.iter().take(MAX_SERIES) {
        refused.get_or_create(&labels(&[("reason", reason)])).inc_by(*n);
    }
}

fn ticks(app: &App, published: &Published, registry: &mut Registry) {
    counters(registry, "ticks", "Published ticks")
        .get_or_create(&Vec::new())
        .inc_by(app.pulse.beats.load(Ordering::Relaxed));
    registry.register(
        "publish_delay_seconds",
        "From a tick's instant to its being visible",
        app.pulse.delay.clone(),
    );
    gauges(registry, "publish_age_seconds", "Age of the published tick")
        .get_or_create(&Vec::new())
        .set(age_seconds(wall_now(), published.as_of));
    let lag =
        gauges(registry, "partition_lag", "Records between the published state and the partition's end");
    let offset = gauges(registry, "partition_offset", "Next offset of the published state");
    for (p, progress) in published.offsets.iter().take(MAX_SERIES) {
        let number = p.number.to_string();
        let labels = labels(&[("source", &p.source), ("topic", &p.topic), ("partition", &number)]);
        offset.get_or_create(&labels).set(progress.next as f64);
        if let Some(end) = progress.end {
            lag.get_or_create(&labels).set((end - progress.next).max(0) as f64);
        }
    }
}

fn values(published: &Published, registry: &mut Registry) {
    let value = gauges(
        registry,
        "metric_value",
        "Present value of each measure in the metric's first window (rounded to a float)",
    );
    let fresh =
        gauges(registry, "metric_newest_event_age_seconds", "Age of the newest event that moved the metric");
    let budget = gauges(registry, "metric_freshness_budget_seconds", "The contract's p95 budget");
    let lost = counters(registry, "metric_lost", "Admitted rows that a metric did not count, by reason");
    let wall = wall_now();
    let mut series = 0;
    for (index, metric) in published.catalog.metrics.iter().enumerate() {
        let name = metric.head.name.as_str();
        if let Some(newest) = published.newest(index) {
            fresh.get_or_create(&labels(&[("metric", name)])).set(age_seconds(wall, newest.received));
        }
        if let Some(micros) = metric.freshness {
            budget.get_or_create(&labels(&[("metric", name)])).set(micros as f64 / 1e6);
        }
        for (reason, n) in published.lost(index) {
            lost.get_or_create(&labels(&[("metric", name), ("reason", reason)])).inc_by(n);
        }
        let Ok(answer) = published.metric(index, &MetricQuery::default()) else { continue };
        let Some(row) = answer.rows.first().filter(|_| answer.rows.len() == 1) else { continue };
        for (measure, cell) in answer.measures.iter().zip(&row.values) {
            let unit = metric.measures.iter().find(|m| m.name == *measure).map(|m| describe::unit(metric, m));
            let Some(number) = number(cell, unit.as_deref()) else { continue };
            series += 1;
            if series > MAX_SERIES {
                return;
            }
            value
                .get_or_create(&labels(&[("metric", name), ("measure", measure), ("window", &answer.window)]))
                .set(number);
        }
    }
}

fn number(cell: &Value, unit: Option<&str>) -> Option<f64> {
    match cell {
        Value::Bool(v) => Some(f64::from(u8::from(*v))),
        Value::Int(v) => Some(*v as f64),
        Value::Float(v) => Some(*v),
        // Prometheus knows floats only; the exact value is in /v1/metrics.
        Value::Decimal(unscaled, scale) => Some(*unscaled as f64 / 10f64.powi(i32::from(*scale))),
        Value::Duration(_) => cell.to_json(unit).as_f64(),
        Value::Timestamp(micros) => Some(*micros as f64 / 1e6),
        _ => None,
    }
}

fn dead_letters(app: &App, registry: &mut Registry) {
    let stats = app.dead.stats();
    let by_status = gauges(registry, "deadletters", "Dead letters by status");
    for (status, n) in stats.by_status {
        by_status.get_or_create(&labels(&[("status", super::deadletter::word(status))])).set(n as f64);
    }
    counters(registry, "deadletters_dropped", "Dead letters dropped because of the limits")
        .get_or_create(&Vec::new())
        .inc_by(stats.dropped);
    counters(registry, "deadletters_overflowed", "Refused events that were counted but not kept")
        .get_or_create(&Vec::new())
        .inc_by(stats.overflowed);
}
