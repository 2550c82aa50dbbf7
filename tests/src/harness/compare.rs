//! The engine's answers against the oracle's.
//!
//! *In*: a published tick, an oracle that knows the same records. *Out*: one line per difference.
//! *Never*: a tolerance wider than 1e-9 relative, but for sketches, which promise no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use engine::{MetricQuery, Published};

use super::Told;
use crate::oracle::admit::Fate;
use crate::oracle::contract::{Measure, MeasureKind, Metric};
use crate::oracle::fold::Agg;
use crate::oracle::metric::{Answer, Cells, View};
use crate::oracle::val::instant;
use crate::oracle::window::Kind;
use crate::oracle::zone::{DAY, HOUR, MINUTE, SECOND};
use crate::oracle::{Oracle, Tally, Val};

/// Every metric, window, split and instant; entities; counters.
pub fn compare(oracle: &mut Oracle, published: &Published, instants: &[i64]) -> Vec<String> {
    let mut found = counters(oracle, published);
    if published.as_of != oracle.now {
        found.push(format!(
            "published as of {}, the clock is {}",
            instant(published.as_of),
            instant(oracle.now)
        ));
    }
    // An answer of the future is refused; the HTTP tests cover that.
    let past: Vec<i64> = instants.iter().copied().filter(|t| *t <= oracle.now).collect();
    for metric in &oracle.contracts.metrics {
        let Some(index) = published.catalog.metric_index(&metric.name) else {
            found.push(format!("metric {} is not in the catalog", metric.name));
            continue;
        };
        let view = View::new(oracle, metric, shift_cut(metric));
        let asking = Asking { oracle, published, metric, index, view };
        for (window, _) in &metric.windows {
            for by in splits(metric) {
                found.extend(asking.one(window, &by, None, None));
                for t in &past {
                    found.extend(asking.one(window, &by, None, Some(*t)));
                }
            }
            found.extend(asking.filtered(window));
            found.extend(asking.series(window));
        }
        found.extend(asking.lost());
    }
    found.extend(entities(oracle, published, &past));
    found
}

/// After a jump of the clock over more than what is retained: windows that lie in the present, and
/// `all`. Which values a dimension names, sessions, shifts and when a group began depend on what is still retained.
pub fn compare_far(oracle: &Oracle, published: &Published) -> Vec<String> {
    let mut found = counters(oracle, published);
    for metric in &oracle.contracts.metrics {
        let named = metric.dimensions.iter().all(|d| d.max >= 1000);
        let reaches =
            |measure: &Measure| matches!(measure.kind, MeasureKind::Shift(..) | MeasureKind::Over(_));
        let shifts = metric.measures.iter().any(reaches);
        let entity = metric.aliases.iter().any(|alias| alias.entity);
        let (true, false, false, Some(index)) =
            (named, shifts, entity, published.catalog.metric_index(&metric.name))
        else {
            continue;
        };
        let view = View::new(oracle, metric, shift_cut(metric));
        let asking = Asking { oracle, published, metric, index, view };
        for (window, kind) in metric.windows.iter().filter(|(_, kind)| !matches!(kind, Kind::Session(_))) {
            let reach =
                crate::oracle::window::span(kind, oracle.now).map_or(0, |(start, _)| oracle.now - start);
            if reach < metric.retain {
                found.extend(splits(metric).iter().filter_map(|by| asking.one(window, by, None, None)));
            }
        }
    }
    found
}

/// No split, each dimension, all dimensions.
fn splits(metric: &Metric) -> Vec<Vec<String>> {
    let names: Vec<String> = metric.dimensions.iter().map(|d| d.name.clone()).collect();
    let mut all = vec![Vec::new()];
    all.extend(names.iter().map(|name| vec![name.clone()]));
    if names.len() > 1 {
        all.push(names);
    }
    all
}

struct Asking<'a> {
    oracle: &'a Oracle,
    published: &'a Published,
    metric: &'a Metric,
    index: usize,
    view: View<'a>,
}

impl Asking<'_> {
    /// The first row by each dimension, asked for alone.
    fn filtered(&self, window: &str) -> Option<String> {
        for dimension in &self.metric.dimensions {
            let by = [dimension.name.clone()];
            let wanted = self.view.ask(window, &by, None, self.oracle.now);
            let filter = match wanted.rows.keys().next()?.first()? {
                Val::Null => format!("{} IS NULL", dimension.name),
                Val::Text(text) => format!("{} = '{}'", dimension.name, text.replace('\'', "''")),
                Val::Int(value) => format!("{} = {value}", dimension.name),
                _ => continue,
            };
            let found = self.one(window, &[], Some(&filter), None);
            let found = found.or_else(|| self.one(window, &by, Some(&filter), None));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Rows without a partner or a row of a table, by reason.
    fn lost(&self) -> Option<String> {
        const REASONS: [&str; 8] =
            ["waiting", "unmatched", "cold_start", "missing", "held", "failed", "no_key", "no_state"];
        if self.metric.aliases.iter().any(|alias| alias.entity) {
            return None;
        }
        // Rows that change say what they lack more than once; a row of a table without its key has none either.
        let changes = |name: &String| self.oracle.contracts.event(name).is_some_and(|event| event.changelog);
        let once = self.metric.lookups.is_empty()
            && !self.metric.aliases.iter().flat_map(|alias| &alias.types).any(changes);
        let told = |reason: &str| REASONS.contains(&reason) && (once || !reason.starts_with("no_"));
        let mut wanted = crate::oracle::rows::rows(self.oracle, self.metric, self.oracle.now).lost;
        wanted.retain(|reason, _| told(reason));
        let got = self.published.lost(self.index).into_iter().filter(|(reason, _)| told(reason));
        let got: BTreeMap<String, u64> = got.map(|(reason, count)| (reason.to_string(), count)).collect();
        (wanted != got).then(|| format!("metric {} lost: {got:?} instead of {wanted:?}", self.metric.name))
    }

    /// A series is the answers at its instants, and visible measures are what is shown unasked.
    fn series(&self, window: &str) -> Option<String> {
        let query = MetricQuery { window: Some(window.to_string()), ..MetricQuery::default() };
        let place = format!("metric {} window {window} series", self.metric.name);
        let to = self.oracle.now.div_euclid(HOUR) * HOUR;
        let points = match self.published.series(self.index, &query, to - 3 * HOUR, to, HOUR) {
            Ok(points) => points,
            Err(e) => return Some(format!("{place}: {e}")),
        };
        let visible: Vec<&str> =
            self.metric.measures.iter().filter(|m| !m.hidden).map(|m| m.name.as_str()).collect();
        if points.len() != 3 || points[0].measures != visible {
            return Some(format!("{place}: {} points of {:?}", points.len(), points[0].measures));
        }
        for (i, point) in points.iter().enumerate() {
            let as_of = Some(to - (2 - i as i64) * HOUR);
            let alone = self.published.metric(self.index, &MetricQuery { as_of, ..query.clone() });
            let alone = alone.map(|answer| show_engine(&answer)).unwrap_or_else(|e| e.to_string());
            if alone != show_engine(point) {
                return Some(format!("{place}, point {i}: {}\n  alone {alone}", show_engine(point)));
            }
        }
        None
    }

    fn one(&self, window: &str, by: &[String], filter: Option<&str>, as_of: Option<i64>) -> Option<String> {
        let measures = self.metric.measures.iter().map(|m| m.name.clone()).collect();
        let query = MetricQuery {
            window: Some(window.to_string()),
            measures: Some(measures),
            by: by.to_vec(),
            filter: filter.map(str::to_string),
            as_of,
        };
        let place = format!(
            "metric {} window {window} by {by:?} where {} as of {}",
            self.metric.name,
            filter.unwrap_or("-"),
            as_of.map_or("now".to_string(), instant)
        );
        let got = match self.published.metric(self.index, &query) {
            Ok(got) => got,
            Err(e) => return Some(format!("{place}: {e}")),
        };
        let asked = as_of.unwrap_or(self.oracle.now);
        let step = pane_step(self.metric);
        if got.as_of > asked || asked - got.as_of >= step || (asked == self.oracle.now && got.as_of != asked)
        {
            return Some(format!("{place}: answered as of {}", instant(got.as_of)));
        }
        let wanted = self.view.ask(window, by, filter, got.as_of);
        let found = difference(self.metric, &wanted, &got)?;
        Some(format!("{place}: {found}\n  oracle {}\n  engine {}", show(&wanted), show_engine(&got)))
    }
}

/// The greatest distance between two pane boundaries that semantics.md allows.
fn pane_step(metric: &Metric) -> i64 {
    let step = |kind: &Kind| match kind {
        Kind::Tumbling(size) => Some(*size),
        Kind::Sliding { every, .. } => Some(*every),
        Kind::Days(..) => Some(DAY),
        Kind::ToDate(unit, _) => Some(if unit == "hour" { HOUR } else { DAY }),
        Kind::Session(_) | Kind::All => None,
    };
    metric.windows.iter().filter_map(|(_, kind)| step(kind)).min().unwrap_or(DAY)
}

/// The pane boundary a shifted instant is cut to: the greatest common step of windows and shifts that
/// semantics.md defines; metrics over entities are not cut.
pub(super) fn shift_cut(metric: &Metric) -> i64 {
    if metric.aliases.iter().any(|alias| alias.entity) { 1 } else { grid(metric) }
}

/// The greatest common step of windows and shifts.
pub(super) fn grid(metric: &Metric) -> i64 {
    let window = |kind: &Kind| match kind {
        Kind::Tumbling(size) => Some(*size),
        Kind::Sliding { size, every } => Some(gcd(*size, *every)),
        Kind::Days(_, zone) | Kind::ToDate(_, zone) => Some(zone_step(zone)),
        Kind::Session(gap) => Some(session_step(*gap)),
        Kind::All => None,
    };
    let shift = |measure: &Measure| match measure.kind {
        MeasureKind::Shift(_, by) => Some(by),
        _ => None,
    };
    let windows = metric.windows.iter().filter_map(|(_, kind)| window(kind));
    let windows = windows.reduce(gcd).unwrap_or(MINUTE);
    metric.measures.iter().filter_map(shift).fold(windows, gcd)
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn session_step(gap: i64) -> i64 {
    let nice = [HOUR, 15 * MINUTE, 5 * MINUTE, MINUTE, 15 * SECOND, 5 * SECOND, SECOND, SECOND / 10];
    nice.into_iter().find(|step| step * 30 <= gap && gap % step == 0).unwrap_or(gap)
}

/// An hour where the zone is whole hours from UTC all the time.
fn zone_step(zone: &str) -> i64 {
    let zone = jiff::tz::TimeZone::get(zone).expect("a known zone");
    let months = (1970..2070).flat_map(|year| [1, 7].map(|month| jiff::civil::date(year, month, 15)));
    let whole = |date: jiff::civil::Date| {
        date.to_zoned(zone.clone()).is_ok_and(|zoned| zoned.offset().seconds() % 3600 == 0)
    };
    if months.into_iter().all(whole) { HOUR } else { 15 * MINUTE }
}

fn difference(metric: &Metric, wanted: &Answer, got: &engine::Answer) -> Option<String> {
    let span = got.start.zip(got.end);
    if span != wanted.span {
        return Some(format!("window {}", show_span(span)));
    }
    if got.measures != wanted.measures {
        return Some(format!("measures {:?}", got.measures));
    }
    let keys: Vec<Vec<Val>> = got.rows.iter().map(|row| row.key.iter().map(Val::from).collect()).collect();
    let distinct: BTreeSet<&Vec<Val>> = keys.iter().collect();
    if distinct.len() != keys.len() || got.rows.windows(2).any(|pair| pair[0].key >= pair[1].key) {
        return Some("rows are not in order of their dimensions".to_string());
    }
    if keys.iter().cloned().collect::<BTreeSet<_>>() != wanted.rows.keys().cloned().collect() {
        return Some("other rows".to_string());
    }
    let first = metric.measures.iter().find(|m| !m.hidden).expect("a visible measure");
    if !same(&wanted.value, &Val::from(&got.value), tolerance(metric, first)) {
        return Some(format!("value {} instead of {}", Val::from(&got.value), wanted.value));
    }
    for (key, row) in keys.iter().zip(&got.rows) {
        let cells = &wanted.rows[key];
        if row.session != cells.session {
            return Some(format!("session of {} is {}", show_key(key), show_span(row.session)));
        }
        for ((measure, wanted), got) in metric.measures.iter().zip(&cells.values).zip(&row.values) {
            let got = Val::from(got);
            if !same(wanted, &got, tolerance(metric, measure)) {
                return Some(format!("{} of {} is {got} instead of {wanted}", measure.name, show_key(key)));
            }
        }
    }
    None
}

/// The relative error that a measure may have.
pub(super) fn tolerance(metric: &Metric, measure: &Measure) -> f64 {
    match &measure.kind {
        MeasureKind::Fold { agg: Agg::Sketch(_, error), .. } => *error,
        // Three standard errors of 4,096 registers; of few values, one may hide behind another.
        MeasureKind::Fold { agg: Agg::Approx, .. } => 0.05,
        MeasureKind::Shift(of, _) => {
            metric.measures.iter().find(|m| m.name == *of).map_or(0.0, |m| tolerance(metric, m))
        }
        _ => 0.0,
    }
}

/// Equal; floats to 1e-9; within `error` where a sketch promises no more.
pub fn same(wanted: &Val, got: &Val, error: f64) -> bool {
    match (wanted, got) {
        (Val::Null, Val::Null) => true,
        (Val::Null, _) | (_, Val::Null) => false,
        (Val::List(a), Val::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, error)),
        (Val::Float(_), _) | (_, Val::Float(_)) => near(wanted, got, error.max(1e-9)),
        _ if error > 0.0 => near(wanted, got, error),
        _ => wanted == got,
    }
}

fn near(wanted: &Val, got: &Val, error: f64) -> bool {
    // The nearest value of the type may be this far from what the sketch says.
    let unit = match got {
        Val::Dec(_, scale) => 10f64.powi(-i32::from(*scale)),
        Val::Int(_) | Val::Dur(_) => 1.0,
        _ => 0.0,
    };
    match (wanted.f64(), got.f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= error * 1.000_001 * a.abs().max(b.abs()) + unit,
        _ => false,
    }
}

fn entities(oracle: &Oracle, published: &Published, instants: &[i64]) -> Vec<String> {
    let mut found = Vec::new();
    for entity in &oracle.contracts.entities {
        let Some(index) = published.catalog.entity_index(&entity.name) else {
            found.push(format!("entity {} is not in the catalog", entity.name));
            continue;
        };
        let keys: BTreeSet<String> =
            oracle.entity(&entity.name, i64::MAX).into_keys().chain(["nobody".to_string()]).collect();
        for as_of in std::iter::once(None).chain(instants.iter().copied().map(Some)) {
            let wanted = oracle.entity(&entity.name, as_of.unwrap_or(oracle.now));
            for key in &keys {
                let place = format!(
                    "entity {} {key} as of {}",
                    entity.name,
                    as_of.map_or("now".to_string(), instant)
                );
                match published.entity(index, key, as_of) {
                    Ok(got) => {
                        if let Some(difference) = entity_difference(wanted.get(key), got.as_ref()) {
                            found.push(format!("{place}: {difference}"));
                        }
                    }
                    Err(e) => found.push(format!("{place}: {e}")),
                }
            }
        }
    }
    found
}

fn entity_difference(
    wanted: Option<&crate::oracle::entity::EntityRow>,
    got: Option<&engine::EntityRow>,
) -> Option<String> {
    let (wanted, got) = match (wanted, got) {
        (None, None) => return None,
        (Some(wanted), Some(got)) => (wanted, got),
        (Some(wanted), None) => return Some(format!("no row instead of {:?}", wanted.fields)),
        (None, Some(got)) => return Some(format!("{:?} instead of no row", got.fields)),
    };
    let cells: BTreeMap<&str, Val> =
        got.fields.iter().map(|(name, v)| (name.as_str(), Val::from(v))).collect();
    for (name, value) in &wanted.fields {
        match cells.get(name.as_str()) {
            Some(got) if same(value, got, 0.0) => {}
            Some(got) => return Some(format!("{name} is {got} instead of {value}")),
            None => return Some(format!("{name} is missing")),
        }
    }
    if (got.last_time, got.events) != (wanted.last, wanted.events) {
        let shown = |last: i64, events: u64| format!("{events} events until {}", instant(last));
        return Some(format!(
            "{} instead of {}",
            shown(got.last_time, got.events),
            shown(wanted.last, wanted.events)
        ));
    }
    None
}

fn counters(oracle: &Oracle, published: &Published) -> Vec<String> {
    let mut got: BTreeMap<String, Tally> = BTreeMap::new();
    for ((_, event), counts) in &published.counters {
        let known = oracle.contracts.event(event).is_some();
        let tally = got.entry(if known { event.clone() } else { String::new() }).or_default();
        tally.received += counts.received;
        tally.admitted += counts.admitted;
        tally.refused += counts.refused;
        tally.duplicate += counts.duplicate;
        tally.warned += counts.warned;
        tally.skipped += counts.skipped;
        if counts.received != counts.admitted + counts.refused + counts.duplicate + counts.skipped {
            return vec![format!("counters of {event:?} do not add up: {counts:?}")];
        }
    }
    let wanted = oracle.tallies();
    let names: BTreeSet<&String> = wanted.keys().chain(got.keys()).collect();
    let differ = names.into_iter().filter_map(|name| {
        let (wanted, got) =
            (wanted.get(name).copied().unwrap_or_default(), got.get(name).copied().unwrap_or_default());
        (wanted != got).then(|| format!("counters of {name:?}: {got:?} instead of {wanted:?}"))
    });
    differ.collect()
}

/// Every refused row must be told with its reasons, and no other row.
pub fn reasons(oracle: &Oracle, told: &Told) -> Vec<String> {
    let refused = told.refused.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Vec::new();
    let mut expected = 0;
    for (raw, part, fate) in &oracle.fates {
        let Fate::Refused { reasons, more, .. } = fate else { continue };
        expected += 1;
        let place = format!("partition {} offset {} part {part}", raw.partition, raw.offset);
        let Some(got) = refused.get(&(raw.partition as i32, raw.offset, *part)) else {
            found.push(format!("{place}: not refused; the oracle says {reasons:?}"));
            continue;
        };
        let codes: BTreeSet<String> = got.reasons.iter().map(|r| r.code.clone()).collect();
        if !codes.is_superset(reasons) || !codes.iter().all(|c| reasons.contains(c) || more.contains(c)) {
            found.push(format!("{place}: reasons {codes:?} instead of {reasons:?} (or with {more:?})"));
        }
    }
    if found.is_empty() && refused.len() != expected {
        found.push(format!("{} rows refused instead of {expected}", refused.len()));
    }
    found
}

fn show_key(key: &[Val]) -> String {
    key.iter().map(Val::to_string).collect::<Vec<_>>().join("/")
}

fn show_span(span: Option<(i64, i64)>) -> String {
    span.map_or("none".to_string(), |(start, end)| format!("{} to {}", instant(start), instant(end)))
}

fn show(answer: &Answer) -> String {
    let row = |key: &[Val], cells: &Cells| {
        let values: Vec<String> = cells.values.iter().map(Val::to_string).collect();
        let session = cells.session.map_or(String::new(), |s| format!(" ({})", show_span(Some(s))));
        format!("\n    {}{session}: {}", show_key(key), values.join(" | "))
    };
    let rows: String = answer.rows.iter().map(|(key, cells)| row(key, cells)).collect();
    format!("{} {:?}{rows}", show_span(answer.span), answer.measures)
}

fn show_engine(answer: &engine::Answer) -> String {
    let rows = answer.rows.iter().map(|row| {
        let key = row.key.iter().map(Val::from).collect();
        (key, Cells { values: row.values.iter().map(Val::from).collect(), session: row.session })
    });
    show(&Answer {
        span: answer.start.zip(answer.end),
        measures: answer.measures.clone(),
        value: Val::from(&answer.value),
        rows: rows.collect(),
    })
}
