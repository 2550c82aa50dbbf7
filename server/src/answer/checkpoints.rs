//! How checkpoints are doing: for `/readyz?verbose` and `/metrics`.
//!
//! *In*: the engine that answers. *Out*: what it began with, what it has kept since. *Never*: a checkpoint that was
//! passed over and is not told of.

use contracts::value::format_timestamp;
use prometheus_client::registry::Registry;
use serde_json::{Value as JsonValue, json};

use super::params::{age_seconds, wall_now};
use super::selfmetrics::{counters, gauges, labels};
use crate::app::App;

/// What `/readyz?verbose` says.
pub(super) fn told(app: &App) -> JsonValue {
    let Ok(live) = app.live() else { return JsonValue::Null };
    let Some(health) = live.engine.checkpoints() else { return json!({ "kept": false }) };
    let restored = &live.restored;
    json!({
        "kept": true,
        "restored": restored.id.map(|id| json!({
            "checkpoint": id,
            "at": format_timestamp(restored.now),
            "records": restored.rows,
            "seconds": restored.took.as_secs_f64(),
        })),
        "rebuild": restored.rebuild,
        "damaged": restored.skipped,
        "newest": health.newest.map(|newest| json!({
            "checkpoint": newest.id,
            "at": format_timestamp(newest.now),
            "bytes": newest.bytes,
            "files": newest.files,
            "records": newest.rows,
            "seconds": health.took.as_secs_f64(),
        })),
        "written": health.written,
        "failed": health.failed,
        "error": health.error,
    })
}

/// The same, as numbers.
pub(super) fn metrics(app: &App, registry: &mut Registry) {
    let Ok(live) = app.live() else { return };
    let Some(health) = live.engine.checkpoints() else { return };
    let none = Vec::new();
    let attempts = counters(registry, "checkpoints", "Checkpoints since the start by outcome");
    for (outcome, n) in [("written", health.written), ("failed", health.failed)] {
        attempts.get_or_create(&labels(&[("outcome", outcome)])).inc_by(n);
    }
    let damaged = gauges(registry, "checkpoints_damaged", "Checkpoints passed over at the start");
    damaged.get_or_create(&none).set(live.restored.skipped.len() as f64);
    let restored = gauges(registry, "restored_records", "Records of state that the start began with");
    restored.get_or_create(&none).set(live.restored.rows as f64);
    let restoring = gauges(registry, "restore_seconds", "How long the start took to read them");
    restoring.get_or_create(&none).set(live.restored.took.as_secs_f64());
    let Some(newest) = health.newest else { return };
    gauges(registry, "checkpoint_age_seconds", "Age of the newest checkpoint")
        .get_or_create(&none)
        .set(age_seconds(wall_now(), newest.now));
    gauges(registry, "checkpoint_bytes", "Bytes written for the newest checkpoint")
        .get_or_create(&none)
        .set(newest.bytes as f64);
    gauges(registry, "checkpoint_seconds", "How long the newest checkpoint took to be written")
        .get_or_create(&none)
        .set(health.took.as_secs_f64());
}
