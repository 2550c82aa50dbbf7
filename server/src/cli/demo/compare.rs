//! The engine's answers beside the generator's truth.
//!
//! *In*: a running demo whose events are all folded, the truth. *Out*: one row per number. *Never*: a
//! tolerance: counts are integers, money is exact.

use std::collections::{BTreeMap, BTreeSet};

use connectors::receive::generator::{Truth, format_cents};
use contracts::catalog::Metric;
use engine::{Answer, MetricQuery, Published};
use serde::Serialize;

use super::SHOP;
use crate::answer::describe;
use crate::cli::exit::{Exit, Failure};
use crate::cli::out::{cell, table};
use crate::serve::Running;

/// The longest window of the pack: holds all events of a demo.
const WINDOW: &str = "24h";

/// One number.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What it is.
    pub what: String,
    /// The generator's books.
    pub truth: String,
    /// The engine's answer.
    pub engine: String,
}

impl Row {
    fn new(what: impl Into<String>, truth: impl ToString, engine: impl ToString) -> Self {
        Self { what: what.into(), truth: truth.to_string(), engine: engine.to_string() }
    }

    /// Do they agree?
    pub fn equal(&self) -> bool {
        self.truth == self.engine
    }
}

/// Asks the engine for everything the books hold.
pub fn rows(running: &Running, truth: &Truth) -> Result<Vec<Row>, Failure> {
    let live = running.shared.app.live().map_err(|_| Failure::new(Exit::Bug, "the engine is not running"))?;
    let published = live.reader.load();
    let mut rows = counts(&published, truth);
    rows.push(Row::new("order_count", truth.orders, headline(&published, "order_count")?));
    rows.extend(revenue(&published, truth)?);
    rows.push(Row::new(
        "conversion_rate",
        ratio(truth.conversions, truth.sessions),
        rounded(&headline(&published, "conversion_rate")?),
    ));
    Ok(rows)
}

fn counts(published: &Published, truth: &Truth) -> Vec<Row> {
    let mut sum = engine::Counts::default();
    for ((source, _), counts) in &published.counters {
        if &**source == SHOP {
            sum.received += counts.received;
            sum.admitted += counts.admitted;
            sum.refused += counts.refused;
            sum.duplicate += counts.duplicate;
        }
    }
    vec![
        Row::new("events received", truth.emitted, sum.received),
        Row::new("admitted", truth.accepted, sum.admitted),
        Row::new("refused", truth.refused, sum.refused),
        Row::new("duplicates", truth.duplicates, sum.duplicate),
    ]
}

/// Money, a row per currency.
fn revenue(published: &Published, truth: &Truth) -> Result<Vec<Row>, Failure> {
    let query = MetricQuery {
        window: Some(WINDOW.into()),
        measures: Some(vec!["amount".into()]),
        by: vec!["currency".into()],
        ..MetricQuery::default()
    };
    let (metric, answer) = ask(published, "revenue", &query)?;
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for row in &answer.rows {
        let cells = describe::row(metric, &answer, row);
        found.insert(cell(&cells["currency"]), cell(&cells["amount"]));
    }
    let currencies: BTreeSet<&String> = truth.revenue.keys().chain(found.keys()).collect();
    let nothing = "none".to_owned();
    Ok(currencies
        .into_iter()
        .map(|currency| {
            let books =
                truth.revenue.get(currency).map_or_else(|| nothing.clone(), |cents| format_cents(*cents));
            Row::new(format!("revenue {currency}"), books, found.get(currency).unwrap_or(&nothing))
        })
        .collect())
}

fn headline(published: &Published, metric: &str) -> Result<String, Failure> {
    let query = MetricQuery { window: Some(WINDOW.into()), ..MetricQuery::default() };
    let (metric, answer) = ask(published, metric, &query)?;
    Ok(cell(&describe::value(metric, &answer)))
}

fn ask<'p>(
    published: &'p Published,
    name: &str,
    query: &MetricQuery,
) -> Result<(&'p Metric, Answer), Failure> {
    let index = published
        .catalog
        .metric_index(name)
        .ok_or_else(|| Failure::new(Exit::Bug, format!("pack:commerce has no metric `{name}`")))?;
    let answer = published
        .metric(index, query)
        .map_err(|error| Failure::new(Exit::Bug, format!("{name}: {error}")))?;
    Ok((&published.catalog.metrics[index], answer))
}

/// Six places, as a ratio is shown.
fn ratio(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.6}", part as f64 / whole as f64) }
}

fn rounded(text: &str) -> String {
    text.parse::<f64>().map_or_else(|_| text.to_owned(), |x| format!("{x:.6}"))
}

/// A table for people.
pub fn show(rows: &[Row]) -> String {
    let cells = rows
        .iter()
        .map(|row| {
            let mark = if row.equal() { "equal" } else { "DIFFERENT" };
            vec![row.what.clone(), row.truth.clone(), row.engine.clone(), mark.to_owned()]
        })
        .collect();
    table(&["", "TRUTH", "ENGINE", ""], cells, &[1, 2])
}
