//! The lake in a running server: what ticks bring is offered to it, and its state is shown.
//!
//! *In*: ticks. *Out*: rows on their way to the lake; what `/readyz`, `/v1/health` and `/metrics` say of it. *Never*: a wait
//! on the thread that publishes; the engine's own rows, or those of table files, which are no events.

use engine::{Published, TickOutcome};
use lake::{Fed, LakeStatus, LakeWriter, Offsets};
use serde_json::{Value as JsonValue, json};

/// Offers a tick.
pub(crate) fn offer(lake: &LakeWriter, published: &Published, outcome: &TickOutcome) {
    let catalog = &published.catalog;
    let is_event = |event: usize| !catalog.events[event].head.name.starts_with(contracts::RESERVED);
    let admitted = outcome.admitted.iter().filter(|admitted| is_event(admitted.batch.event));
    let admitted = admitted.map(|admitted| (admitted.partition.clone(), admitted.batch.clone())).collect();
    let of_source = |source: &str| !source.starts_with(crate::sources::TABLE);
    let refused = outcome.refused.iter().filter(|row| of_source(&row.partition.source)).cloned().collect();
    let offsets = published.offsets.iter().filter(|(partition, _)| of_source(&partition.source));
    let offsets = Offsets(offsets.map(|(partition, progress)| (partition.clone(), progress.next)).collect());
    lake.offer(catalog, Fed { offsets, admitted, refused });
}

/// Whether it works, in words.
pub(crate) fn words(status: &LakeStatus) -> (bool, String) {
    match (&status.trouble, status.stopped) {
        (Some(trouble), true) => (false, format!("stopped: {trouble}")),
        (Some(trouble), false) => (true, format!("waits: {trouble}; {} rows wait", status.waiting_rows)),
        (None, _) => (true, format!("{} rows committed, {} wait", status.rows, status.waiting_rows)),
    }
}

/// As JSON.
pub(crate) fn shown(status: &LakeStatus) -> JsonValue {
    json!({
        "rounds": status.rounds,
        "rows": status.rows,
        "failures": status.failures,
        "waiting_rows": status.waiting_rows,
        "waiting_bytes": status.waiting_bytes,
        "complete": serde_json::from_str::<JsonValue>(&status.complete.to_text()).unwrap_or_default(),
        "trouble": status.trouble,
    })
}
