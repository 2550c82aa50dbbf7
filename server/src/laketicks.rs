//! The lake in a running server: what ticks bring is offered to it, and its state is shown.
//!
//! *In*: ticks. *Out*: rows on their way to the lake; what `/readyz`, `/v1/health` and `/metrics` say of it. *Never*: a wait
//! on the thread that publishes; the engine's own rows, or those of table files, which are no events.

use std::any::Any;
use std::sync::Arc;

use engine::{Ended, Published, TickOutcome};
use lake::{AtTick, Closed, Fed, LakeStatus, LakeWriter, Offsets};
use serde_json::{Value as JsonValue, json};

/// A tick as the lake asks it for results.
struct Tick(Arc<Published>);

impl std::fmt::Debug for Tick {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tick {}", self.0.tick)
    }
}

impl AtTick for Tick {
    fn closed(&self, metric: &str, before: Option<&dyn AtTick>, tell: &mut dyn FnMut(Closed)) -> bool {
        let before = before.and_then(|before| before.as_any().downcast_ref::<Self>());
        let Some(metric) = self.0.catalog.metric_index(metric) else { return false };
        self.0.closed(metric, before.map(|before| before.0.as_ref()), &mut |ended| {
            let Ended { window, start, end, complete, key, values } = ended;
            tell(Closed { window, start, end, complete, key, values });
        })
    }

    fn tells(&self, metric: &str, window: &str, start: i64, end: i64) -> bool {
        let metric = self.0.catalog.metric_index(metric);
        metric.is_some_and(|metric| self.0.tells(metric, window, start, end))
    }

    fn kept_from(&self, metric: &str) -> i64 {
        self.0.catalog.metric_index(metric).map_or(i64::MAX, |metric| self.0.kept_from(metric))
    }

    fn as_of(&self) -> i64 {
        self.0.as_of
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Offers a tick; `leads`: of the engine that answers.
pub(crate) fn offer(lake: &LakeWriter, published: &Arc<Published>, outcome: &TickOutcome, leads: bool) {
    let catalog = &published.catalog;
    let is_event = |event: usize| !catalog.events[event].head.name.starts_with(contracts::RESERVED);
    let admitted = outcome.admitted.iter().filter(|admitted| is_event(admitted.batch.event));
    let admitted = admitted.map(|admitted| (admitted.partition.clone(), admitted.batch.clone())).collect();
    let of_source = |source: &str| !source.starts_with(crate::sources::TABLE);
    let refused = outcome.refused.iter().filter(|row| of_source(&row.partition.source)).cloned().collect();
    let offsets = published.offsets.iter().filter(|(partition, _)| of_source(&partition.source));
    let offsets = Offsets(offsets.map(|(partition, progress)| (partition.clone(), progress.next)).collect());
    let wanted = leads && catalog.metrics.iter().any(|metric| metric.lake.is_some());
    let state = (wanted && lake.has_caught_up(&offsets))
        .then(|| Arc::new(Tick(Arc::clone(published))) as Arc<dyn AtTick>);
    let duplicates = outcome.duplicates.iter().filter(|(partition, ..)| of_source(&partition.source));
    let duplicates = duplicates.cloned().collect();
    lake.offer(catalog, Fed { offsets, admitted, refused, duplicates, state });
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
