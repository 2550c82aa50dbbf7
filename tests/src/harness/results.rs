//! What metrics say of windows that are over, gathered as the lake does, against the oracle.
//!
//! *In*: published ticks, one after the other. *Out*: one line per difference. *Never*: a look at which windows the engine
//! took for changed: the oracle answers as of their end from all records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contracts::value::Value;
use engine::{Ended, Published};

use super::compare::{grid, same, shift_cut, tolerance};
use crate::oracle::contract::Metric;
use crate::oracle::metric::View;
use crate::oracle::val::instant;
use crate::oracle::window::{Kind, span};
use crate::oracle::zone::DAY;
use crate::oracle::{Oracle, Val};

/// Windows of a kind that the oracle is asked about, at most.
const ASKED: usize = 8;

/// Window, start, dimensions.
type Key = (String, i64, Vec<Value>);

/// End, and the newest values.
type Newest = (i64, Vec<Value>);

/// The newest rows of all metrics that are not retracted.
#[derive(Debug, Default)]
pub struct Ledger {
    rows: BTreeMap<String, BTreeMap<Key, Newest>>,
    before: Option<Before>,
}

/// The tick that everything was told of.
struct Before(Arc<Published>);

impl std::fmt::Debug for Before {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tick {}", self.0.tick)
    }
}

impl Ledger {
    /// Takes what has changed since the last time.
    pub fn tell(&mut self, published: &Arc<Published>) {
        let before = self.before.take();
        for (index, metric) in published.catalog.metrics.iter().enumerate() {
            let rows = self.rows.entry(metric.head.name.clone()).or_default();
            let mut there = BTreeSet::new();
            let all =
                published.closed(index, before.as_ref().map(|before| before.0.as_ref()), &mut |ended| {
                    let Ended { window, start, end, key, values, .. } = ended;
                    let key = (window.to_string(), start, key);
                    there.insert(key.clone());
                    match values {
                        Some(values) => rows.insert(key, (end, values)),
                        None => rows.remove(&key),
                    };
                });
            if all {
                rows.retain(|key, (end, _)| {
                    there.contains(key) || !published.tells(index, &key.0, key.1, *end)
                });
            }
        }
        self.before = Some(Before(published.clone()));
    }

    /// The process has ended: what was told is in the table, and nothing else is known.
    pub fn restart(&mut self) {
        self.before = None;
    }

    /// Rows held.
    pub fn len(&self) -> usize {
        self.rows.values().map(BTreeMap::len).sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that is told of `published` alone against what is held, and some windows against the oracle, which
    /// knows the same records.
    pub fn differences(
        &self,
        oracle: &mut Oracle,
        published: &Published,
        rng: &mut fastrand::Rng,
    ) -> Vec<String> {
        let mut found = Vec::new();
        // A row of an entity counts in its window as it is now.
        oracle.entities_as_now = true;
        for metric in &oracle.contracts.metrics {
            let Some(index) = published.catalog.metric_index(&metric.name) else { continue };
            let Some(rows) = self.rows.get(&metric.name) else { continue };
            let told = |key: &Key, end: i64| published.tells(index, &key.0, key.1, end);
            let held: BTreeMap<&Key, &Newest> =
                rows.iter().filter(|(key, (end, _))| told(key, *end)).collect();
            found.extend(from_nothing(&metric.name, published, index, &held));
            let view = View::new(oracle, metric, shift_cut(metric));
            for (window, kind) in &metric.windows {
                for (start, end) in candidates(oracle, &held, (window, kind), rng) {
                    if published.tells(index, window, start, end) {
                        found.extend(against(&view, metric, &held, (window, kind), (start, end)));
                    }
                }
            }
        }
        oracle.entities_as_now = false;
        found
    }
}

/// All that is told without anything before.
fn from_nothing(
    name: &str,
    published: &Published,
    index: usize,
    held: &BTreeMap<&Key, &Newest>,
) -> Option<String> {
    let mut whole: BTreeMap<Key, Newest> = BTreeMap::new();
    published.closed(index, None, &mut |ended| {
        if let Some(values) = ended.values {
            whole.insert((ended.window.to_string(), ended.start, ended.key), (ended.end, values));
        }
    });
    let keys: BTreeSet<&Key> = whole.keys().chain(held.keys().copied()).collect();
    let differs = keys.into_iter().find(|key| whole.get(*key) != held.get(*key).copied())?;
    let (window, start, key) = differs;
    Some(format!(
        "results of {name}, {window} from {} {key:?}: held {:?} instead of {:?}",
        instant(*start),
        held.get(differs),
        whole.get(differs)
    ))
}

/// Windows that hold rows, and windows around instants that events name.
fn candidates(
    oracle: &Oracle,
    held: &BTreeMap<&Key, &Newest>,
    (window, kind): (&String, &Kind),
    rng: &mut fastrand::Rng,
) -> Vec<(i64, i64)> {
    let of_window = held.iter().filter(|(key, _)| key.0 == *window);
    let mut windows: BTreeSet<(i64, i64)> = of_window.map(|(key, (end, _))| (key.1, *end)).collect();
    let mut picked: Vec<(i64, i64)> = windows.iter().copied().collect();
    rng.shuffle(&mut picked);
    picked.truncate(ASKED);
    let stamps = oracle.admitted.iter().flat_map(|row| {
        let named =
            row.cols.values().filter_map(|value| if let Val::Ts(at) = value { Some(*at) } else { None });
        named.chain([row.time])
    });
    // Nobody is told of others.
    let recent = |at: &i64| (oracle.now - 800 * DAY..oracle.now).contains(at);
    let around = stamps.filter(recent).filter_map(|at| {
        let (start, end) = span(kind, at + 1)?;
        // A sliding window that sees the instant.
        let later =
            if let Kind::Sliding { size, every } = kind { rng.i64(0..size / every) * every } else { 0 };
        Some((start + later, end + later))
    });
    let mut around: Vec<(i64, i64)> = around.filter(|one| windows.insert(*one)).collect();
    rng.shuffle(&mut around);
    picked.extend(around.into_iter().take(ASKED));
    picked
}

/// One window against the oracle's answer as of its end.
fn against(
    view: &View<'_>,
    metric: &Metric,
    held: &BTreeMap<&Key, &Newest>,
    (window, kind): (&String, &Kind),
    (start, end): (i64, i64),
) -> Option<String> {
    let place = format!("results of {}, {window} {} to {}", metric.name, instant(start), instant(end));
    let by: Vec<String> = metric.dimensions.iter().map(|dimension| dimension.name.clone()).collect();
    // A session may end between two pane boundaries.
    let at = end.div_euclid(grid(metric)) * grid(metric);
    let answer = view.ask(window, &by, None, at);
    let session = matches!(kind, Kind::Session(_));
    let groups = view.groups(window, &by, at);
    let is_there = |key: &Vec<Val>, session_of: Option<(i64, i64)>| {
        groups.contains(key) && (!session || session_of == Some((start, end)))
    };
    let wanted: BTreeMap<Vec<Val>, _> =
        answer.rows.into_iter().filter(|(key, cells)| is_there(key, cells.session)).collect();
    let got: BTreeMap<Vec<Val>, &Vec<Value>> = held
        .iter()
        .filter(|(key, (until, _))| (&key.0, key.1, *until) == (window, start, end))
        .map(|(key, (_, values))| (key.2.iter().map(Val::from).collect(), values))
        .collect();
    if !got.keys().eq(wanted.keys()) {
        return Some(format!("{place}: rows of {:?} instead of {:?}", got.keys(), wanted.keys()));
    }
    for (key, cells) in &wanted {
        let all = metric.measures.iter().zip(&cells.values).filter(|(measure, _)| !measure.hidden);
        for ((measure, wanted), got) in all.zip(got[key]) {
            let got = Val::from(got);
            if !same(wanted, &got, tolerance(metric, measure)) {
                return Some(format!("{place} {key:?}: {} is {got} instead of {wanted}", measure.name));
            }
        }
    }
    None
}
