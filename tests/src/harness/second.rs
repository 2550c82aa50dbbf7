//! The engine's answers against the second truth: SQL over the events it admitted.
//!
//! *In*: a published tick, the admitted events up to it. *Out*: one line per difference. *Never*: a question that
//! the second truth silently passes over: what it cannot recompute is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use contracts::batch::Kept;
use contracts::catalog::{Dimension, Metric};
use contracts::value::Value;
use engine::{MetricQuery, Published};

use crate::oracle::val::instant;

/// Questions recomputed, and questions that could not be, in this process.
pub static RECOMPUTED: AtomicU64 = AtomicU64::new(0);
/// See [`RECOMPUTED`].
pub static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Questions per metric in every fourth case; in the others it is one.
const MORE: usize = 2;

/// How many questions per metric of the case `seed` are recomputed: `AUDIT=0` none, `AUDIT=all` all after every
/// segment, else one at the end, and more in every fourth case.
pub fn questions(seed: u64) -> usize {
    match std::env::var("AUDIT").as_deref() {
        Ok("all") => usize::MAX,
        Ok(number) => number.parse().expect("AUDIT is a number or `all`"),
        // Seeds of the kinds of cases take turns by fours: a hash picks across all kinds.
        Err(_) if seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62 == 0 => MORE,
        Err(_) => 1,
    }
}

/// Differences for `most` questions per metric, picked at random.
pub fn differences(
    published: &Published,
    kept: &[Arc<Kept>],
    instants: &[i64],
    (most, rng): (usize, &mut fastrand::Rng),
) -> Vec<String> {
    let mut found = Vec::new();
    for (index, metric) in published.catalog.metrics.iter().enumerate() {
        let mut queries = queries(metric, published, index, instants);
        rng.shuffle(&mut queries);
        let mut asked = Vec::new();
        for query in queries.into_iter().take(most) {
            // Counts and samples ask as much again: now and then.
            let explain = rng.u8(..4) == 0;
            match Asked::new(published, (index, explain), &query) {
                Ok(one) => asked.push(one),
                Err(difference) => found.push(difference),
            }
        }
        let questions: Vec<audit::Question> = asked.iter().map(|one| one.question.clone()).collect();
        let again = audit::recompute_all(&published.catalog, &questions, kept);
        found.extend(asked.iter().zip(again).filter_map(|(one, again)| one.compare(metric, again)));
    }
    found
}

fn queries(metric: &Metric, published: &Published, index: usize, instants: &[i64]) -> Vec<MetricQuery> {
    let names: Vec<String> = metric.dimensions.iter().map(|d| d.name.clone()).collect();
    let mut splits = vec![Vec::new()];
    splits.extend(names.iter().map(|name| vec![name.clone()]));
    splits.extend((names.len() > 1).then_some(names));
    let past = instants.iter().copied().filter(|t| *t < published.as_of).map(Some);
    let times: Vec<Option<i64>> = std::iter::once(None).chain(past).collect();
    let mut queries = Vec::new();
    for window in &metric.windows {
        for by in &splits {
            for as_of in &times {
                let measures = metric.measures.iter().map(|m| m.name.clone()).collect();
                let query = MetricQuery {
                    window: Some(window.name.clone()),
                    measures: Some(measures),
                    by: by.clone(),
                    filter: None,
                    as_of: *as_of,
                };
                if by.len() == 1 {
                    let filter = condition(published, index, &query, &metric.dimensions);
                    queries
                        .extend(filter.map(|filter| MetricQuery { filter: Some(filter), ..query.clone() }));
                }
                queries.push(query);
            }
        }
    }
    queries
}

/// A condition that some rows of the answer meet.
fn condition(
    published: &Published,
    index: usize,
    query: &MetricQuery,
    dimensions: &[Dimension],
) -> Option<String> {
    let answer = published.metric(index, query).ok()?;
    let name = &dimensions.iter().find(|d| d.name == query.by[0])?.name;
    match answer.rows.first()?.key.first()? {
        Value::Null => Some(format!("{name} IS NULL")),
        Value::Text(text) => Some(format!("{name} = '{}'", text.replace('\'', "''"))),
        Value::Int(value) => Some(format!("{name} = {value}")),
        _ => None,
    }
}

/// A question that the engine has answered.
struct Asked {
    place: String,
    question: audit::Question,
    served: audit::Served,
}

impl Asked {
    fn new(
        published: &Published,
        (index, explain): (usize, bool),
        query: &MetricQuery,
    ) -> Result<Asked, String> {
        let metric = &published.catalog.metrics[index];
        let place = format!(
            "second truth: metric {} window {} by {:?} where {} as of {}",
            metric.head.name,
            query.window.as_deref().unwrap_or("-"),
            query.by,
            query.filter.as_deref().unwrap_or("-"),
            query.as_of.map_or("now".to_string(), instant),
        );
        let answer = published.metric(index, query).map_err(|e| format!("{place}: {e}"))?;
        let position = |name: &String| metric.dimensions.iter().position(|d| d.name == *name);
        let window = metric.windows.iter().position(|w| Some(&w.name) == query.window.as_ref());
        let question = audit::Question {
            metric: index,
            window: window.expect("a window"),
            by: query.by.iter().filter_map(position).collect(),
            measures: (0..metric.measures.len()).collect(),
            explain: explain.then_some(0),
            filter: query.filter.clone(),
            as_of: answer.as_of,
            now: published.as_of,
        };
        let rows = answer.rows.into_iter();
        let rows =
            rows.map(|row| audit::ServedRow { key: row.key, values: row.values, session: row.session });
        let span = answer.start.zip(answer.end);
        let served = audit::Served { span, value: answer.value, rows: rows.collect() };
        Ok(Asked { place, question, served })
    }

    fn compare(
        &self,
        metric: &Metric,
        again: Result<audit::Recomputed, audit::AuditError>,
    ) -> Option<String> {
        let Asked { place, question, served } = self;
        match again {
            Ok(again) => {
                RECOMPUTED.fetch_add(1, Ordering::Relaxed);
                let difference = audit::disagreement(metric, question, served, &again)?;
                let sql = if std::env::var("SQL").is_ok() { again.sql } else { String::new() };
                Some(format!("{place}: {difference}\n{sql}"))
            }
            Err(audit::AuditError::NotRecomputed(_)) => {
                REFUSED.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(error) => Some(format!("{place}: {error}")),
        }
    }
}
