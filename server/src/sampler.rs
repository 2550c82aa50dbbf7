//! A few numbers a minute, picked at random and computed again.
//!
//! *In*: the running generation, chance. *Out*: counters of ourselves, a warning in the log on disagreement.
//! *Never*: more work than the settings say; two comparisons at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use contracts::value::format_timestamp;
use engine::{MetricQuery, Published};
use parking_lot::Mutex;
use serde_json::{Value as JsonValue, json};

use crate::app::{App, Live};
use crate::second::{Compared, compare};
use crate::settings::Audit;

/// Events that a sample may read: it must stay cheap where a number is made of millions.
const MOST: usize = 200_000;
/// How often the thread looks whether the process ends.
const LOOK: Duration = Duration::from_millis(100);

/// What the sampler has found.
#[derive(Debug, Default)]
pub(crate) struct Sampled {
    /// Numbers compared.
    pub(crate) checked: AtomicU64,
    /// Numbers that could not be recomputed.
    pub(crate) skipped: AtomicU64,
    /// Disagreements by metric.
    disagreed: Mutex<BTreeMap<String, u64>>,
    /// The last disagreement.
    last: Mutex<Option<JsonValue>>,
}

impl Sampled {
    /// Disagreements by metric.
    pub(crate) fn disagreed(&self) -> BTreeMap<String, u64> {
        self.disagreed.lock().clone()
    }

    /// For `/v1/health`.
    pub(crate) fn health(&self) -> JsonValue {
        let disagreed = self.disagreed();
        json!({
            "status": if disagreed.is_empty() { "agrees" } else { "disagrees" },
            "checked": self.checked.load(Ordering::Relaxed),
            "not_recomputed": self.skipped.load(Ordering::Relaxed),
            "disagreed": disagreed,
            "last_disagreement": *self.last.lock(),
        })
    }

    fn note(&self, name: &str, compared: &Compared) {
        let Some(agrees) = compared.agrees() else {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.checked.fetch_add(1, Ordering::Relaxed);
        if agrees {
            return;
        }
        *self.disagreed.lock().entry(name.to_owned()).or_default() += 1;
        let difference = compared.difference.clone().unwrap_or_default();
        let as_of = format_timestamp(compared.answer.as_of);
        let (window, by) = (&compared.answer.window, compared.answer.dimensions.join(","));
        tracing::warn!(
            metric = name,
            window,
            by,
            as_of,
            tick = compared.published.tick,
            "a number and its second truth disagree: {difference}"
        );
        *self.last.lock() = Some(json!({
            "metric": name, "window": window, "by": compared.answer.dimensions, "as_of": as_of,
            "difference": difference,
        }));
    }
}

/// The thread: compares until `stopping`.
pub(crate) fn run(app: &App, audit: Audit, stopping: impl Fn() -> bool) {
    if audit.numbers == 0 || audit.memory == 0 {
        return;
    }
    let mut chance = fastrand::Rng::new();
    let mut last = Instant::now();
    while !stopping() {
        std::thread::sleep(LOOK.min(audit.every));
        if last.elapsed() < audit.every {
            continue;
        }
        for _ in 0..audit.numbers {
            if stopping() {
                return;
            }
            once(app, &mut chance);
        }
        last = Instant::now();
    }
}

fn once(app: &App, chance: &mut fastrand::Rng) {
    let Ok((live, published)) = app.published() else { return };
    if published.catalog.metrics.is_empty() {
        return;
    }
    let index = chance.usize(..published.catalog.metrics.len());
    let query = pick(&published, index, chance);
    check(app, &live, &published, index, &query);
}

fn check(app: &App, live: &Live, published: &std::sync::Arc<Published>, index: usize, query: &MetricQuery) {
    let name = &published.catalog.metrics[index].head.name;
    match compare(live, published, index, query, MOST) {
        Ok(compared) => app.sampled.note(name, &compared),
        Err(error) => tracing::debug!(metric = name, %error, "no sample: the question has no answer"),
    }
}

/// A window, and no split or one dimension, at random; a group of it now and then.
fn pick(published: &Published, index: usize, chance: &mut fastrand::Rng) -> MetricQuery {
    let metric = &published.catalog.metrics[index];
    let window = metric.windows[chance.usize(..metric.windows.len())].name.clone();
    let measures = metric.measures.iter().map(|measure| measure.name.clone()).collect();
    let dimension = chance.choice(&metric.dimensions).filter(|_| chance.bool());
    MetricQuery {
        window: Some(window),
        measures: Some(measures),
        by: dimension.map(|dimension| dimension.name.clone()).into_iter().collect(),
        ..MetricQuery::default()
    }
}
