//! GET `/v1/metrics/{name}/why`: how a number comes about, and whether its events agree.
//!
//! *In*: a question as of GET `/v1/metrics/{name}`. *Out*: the number, the same number recomputed as SQL from the
//! kept events of the same tick, and what became of the rows on the way. *Never*: an agreement with nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use audit::{Lost, Row as Again};
use axum::Json;
use axum::extract::State;
use connectors::store::dead_letters::Filter;
use contracts::catalog::Metric;
use contracts::value::{Value, format_timestamp};
use engine::Published;
use serde::Serialize;
use serde_json::{Value as JsonValue, json};
use utoipa::ToSchema;

use super::describe;
use super::lineage;
use super::metrics::{find, question};
use super::params::Params;
use super::token::{Token, published_after};
use crate::app::App;
use crate::error::{Path, Problem, ProblemBody, Result};
use crate::second::{Compared, MOST, compare};

/// Rows shown at most.
const ROWS: usize = 100;
/// Ids per reason.
const IDS: u64 = 5;

/// A number, its second truth, and its events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WhyAnswer {
    /// Name of the metric.
    pub metric_name: String,
    /// The measure that is explained: the first one asked for.
    pub measure: String,
    /// Its value as served, over all rows.
    #[schema(value_type = Object, nullable)]
    pub value: JsonValue,
    /// The same recomputed from the kept events; null where it could not be, see `reason`.
    #[schema(value_type = Object, nullable)]
    pub recomputed: JsonValue,
    /// Whether all rows and measures of the answer agree; null where nothing was recomputed.
    pub agrees: Option<bool>,
    /// The first difference, or why nothing was recomputed.
    pub reason: Option<String>,
    /// Unit of `value`.
    pub unit: String,
    /// Window name.
    pub window: String,
    /// Start, RFC 3339 UTC; null for `all` and sessions.
    pub window_start: Option<String>,
    /// Exclusive end, RFC 3339 UTC; null for `all` and sessions.
    pub window_end: Option<String>,
    /// Events with time < `as_of` count.
    pub as_of: String,
    /// Events received of the types that the metric counts, since the start; what only its tables are made of aside.
    pub received: u64,
    /// Admitted ones in the window (of an entity: its rows).
    pub admitted: Option<u64>,
    /// Of them, those that pass the alias's `where`.
    pub matched: Option<u64>,
    /// Joined rows in the window; null without a join.
    pub joined: Option<u64>,
    /// Rows that the measure folds.
    pub counted: Option<u64>,
    /// Ids of the events at and around the number: of a quantile its neighbours, of an extreme the one it is, else the
    /// newest.
    pub samples: Vec<String>,
    /// The same with time, value, and which one it is.
    #[schema(value_type = Vec<Object>)]
    pub sample_values: Vec<JsonValue>,
    /// `{reason, count, samples}`: what was lost at each step.
    #[schema(value_type = Vec<Object>)]
    pub lost: Vec<JsonValue>,
    /// With `by`: dimensions, served and recomputed measures, whether they agree; the first 100.
    #[schema(value_type = Vec<Object>)]
    pub rows: Vec<JsonValue>,
    /// The statements behind `recomputed`.
    pub sql: Option<String>,
    /// The offsets both numbers contain.
    pub token: String,
}

/// How a number comes about, and whether it agrees with its events.
#[utoipa::path(
    get, path = "/v1/metrics/{name}/why", tag = "metrics", operation_id = "whyMetric",
    params(
        ("name" = String, Path, description = "Metric name, or `name@major`"),
        ("window" = Option<String>, Query, description = "Window name; default: the contract's first"),
        ("measure" = Option<Vec<String>>, Query, description = "Measures; the first one is explained, all are compared"),
        ("by" = Option<Vec<String>>, Query, description = "Dimensions to group by"),
        ("where" = Option<String>, Query, description = "SQL condition over the dimensions"),
        ("as_of" = Option<String>, Query, description = "Exclusive end in event time; default: now"),
        ("after" = Option<String>, Query, description = "Token of a push or an answer: answer only with its events contained"),
        ("wait" = Option<String>, Query, description = "How long `after` may wait, e.g. `5s`"),
    ),
    responses(
        (status = 200, description = "The number and its second truth", body = WhyAnswer),
        (status = 404, description = "No such metric; the names there are", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`after` is not contained yet", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Unknown window, measure or dimension; bad parameter", body = ProblemBody, content_type = "application/problem+json"),
        (status = 504, description = "`after` was not contained within `wait`", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[tracing::instrument(name = "answer", skip_all, fields(metric = %name))]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<WhyAnswer>> {
    params.only(&["window", "measure", "by", "where", "as_of", "after", "wait"])?;
    let wait = params.wait(app.limits.max_wait)?;
    find(&*app.live()?, &name)?;
    let (live, published) = published_after(&app, params.one("after")?, wait).await?;
    let index = find(&live, &name)?;
    let query = question(&params, &published)?;
    let shared = app.clone();
    // DataFusion has a runtime of its own there.
    let work =
        move || compare(&live, &published, index, &query, MOST).map(|compared| shape(&shared, &compared));
    let answer = tokio::task::spawn_blocking(work).await;
    Ok(Json(answer.map_err(|e| Problem::internal(format!("The answer was not finished: {e}.")))??))
}

fn shape(app: &App, compared: &Compared) -> WhyAnswer {
    let Compared { published, answer, question, again, difference } = compared;
    let metric = &published.catalog.metrics[question.metric];
    let explained = question.explain.unwrap_or(0);
    let measure = &metric.measures[explained];
    let show = |value: &Value| value.to_json(measure.unit.as_deref());
    let one = |rows: &[Value]| rows.first().map_or(JsonValue::Null, show);
    // Over all rows: the only row, or what the answer says beside its rows.
    let split = !question.by.is_empty();
    let (value, recomputed) = match split {
        false => (
            answer.rows.first().map_or(JsonValue::Null, |row| one(&row.values)),
            again
                .as_ref()
                .ok()
                .and_then(|again| again.rows.first())
                .map_or(JsonValue::Null, |r| one(&r.values)),
        ),
        true => (show(&answer.value), again.as_ref().map_or(JsonValue::Null, |again| show(&again.value))),
    };
    let known = again.as_ref().ok();
    let counts = known.map(|again| again.counts);
    let samples = known.map(|again| again.samples.as_slice()).unwrap_or_default();
    let ty = &measure.unit;
    WhyAnswer {
        metric_name: metric.head.name.clone(),
        measure: measure.name.clone(),
        value,
        recomputed,
        agrees: compared.agrees(),
        reason: again.as_ref().err().cloned().or_else(|| difference.clone()),
        unit: describe::unit(metric, measure),
        window: answer.window.clone(),
        window_start: answer.start.map(format_timestamp),
        window_end: answer.end.map(format_timestamp),
        as_of: format_timestamp(answer.as_of),
        received: received(published, metric),
        admitted: counts.map(|counts| counts.admitted),
        matched: counts.map(|counts| counts.matched),
        joined: counts.and_then(|counts| counts.joined),
        counted: counts.map(|counts| counts.counted),
        samples: samples.iter().map(|sample| sample.id.clone()).collect(),
        sample_values: samples
            .iter()
            .map(|sample| {
                json!({
                    "id": sample.id, "time": format_timestamp(sample.time),
                    "value": sample.value.to_json(ty.as_deref()), "is_it": sample.is_it,
                })
            })
            .collect(),
        lost: lost(
            app,
            published,
            question.metric,
            known.map(|again| again.lost.as_slice()).unwrap_or_default(),
        ),
        rows: if split { rows(compared, metric) } else { Vec::new() },
        sql: known.map(|again| again.sql.clone()),
        token: Token::of(published).encode(),
    }
}

/// Served and recomputed measures side by side.
fn rows(compared: &Compared, metric: &Metric) -> Vec<JsonValue> {
    let Compared { answer, question, again, .. } = compared;
    let measures = |values: &[Value]| -> JsonValue {
        let pairs = question.measures.iter().zip(values).map(|(measure, value)| {
            let measure = &metric.measures[*measure];
            (measure.name.clone(), value.to_json(measure.unit.as_deref()))
        });
        JsonValue::Object(pairs.collect())
    };
    let twin = |key: &[Value]| -> Option<&Again> {
        again.as_ref().ok().and_then(|again| again.rows.iter().find(|row| row.key == key))
    };
    let row = |row: &engine::Row| {
        let dimensions = answer.dimensions.iter().zip(&row.key);
        let dimensions = dimensions.map(|(name, value)| (name.clone(), value.to_json(None)));
        let mut out = JsonValue::Object(dimensions.collect());
        out["value"] = measures(&row.values);
        out["recomputed"] = twin(&row.key).map_or(JsonValue::Null, |again| measures(&again.values));
        out
    };
    answer.rows.iter().take(ROWS).map(row).collect()
}

fn names(published: &Published, events: BTreeSet<usize>) -> BTreeSet<&str> {
    events.into_iter().map(|event| published.catalog.events[event].head.name.as_str()).collect()
}

fn received(published: &Published, metric: &Metric) -> u64 {
    let types = names(published, audit::counted(&published.catalog, metric));
    let counts = published.counters.iter().filter(|((_, name), _)| types.contains(name.as_str()));
    lineage::sum(counts.map(|(_, counts)| *counts)).received
}

/// What was refused, by reason, with the newest of the dead letters; then what the metric leaves out.
fn lost(app: &App, published: &Published, index: usize, audited: &[Lost]) -> Vec<JsonValue> {
    let metric = &published.catalog.metrics[index];
    let mut lost = Vec::new();
    for name in names(published, audit::reads(&published.catalog, metric)) {
        let counts = published.counters.iter().filter(|((_, of), _)| of == name);
        let counts = lineage::sum(counts.map(|(_, counts)| *counts));
        if counts.refused > 0 {
            lost.extend(refused(app, name, counts.refused));
        }
        if counts.duplicate > 0 {
            lost.push(json!({ "reason": "duplicate", "event_type": name, "count": counts.duplicate, "samples": [] }));
        }
    }
    for one in audited {
        lost.push(json!({ "reason": one.reason, "count": one.count, "samples": one.samples }));
    }
    // What only the engine counts: limits it has reached.
    for (reason, count) in published.lost(index) {
        if !audited.iter().any(|one| one.reason == reason) {
            lost.push(json!({ "reason": reason, "count": count, "samples": [] }));
        }
    }
    lost
}

/// The dead letters follow a moment later and expire: what they do not hold (any more) has no reason and no samples.
fn refused(app: &App, event_type: &str, counted: u64) -> Vec<JsonValue> {
    let reasons = app.dead.stats().by_reason;
    let one = |reason: String| {
        let filter = Filter {
            reason: Some(reason.clone()),
            event_type: Some(event_type.to_owned()),
            ..Filter::default()
        };
        // A store that cannot be read says so at /v1/deadletter.
        let (letters, total) = app.dead.list(&filter, 1, IDS).unwrap_or_default();
        let id = |letter: &connectors::store::dead_letters::DeadLetter| {
            letter.event_id.clone().unwrap_or_else(|| letter.id.clone())
        };
        (total > 0).then(|| {
            json!({
                "reason": format!("refused: {reason}"), "event_type": event_type, "count": total,
                "samples": letters.iter().map(id).collect::<Vec<_>>(),
            })
        })
    };
    let mut lost: Vec<JsonValue> = reasons.into_keys().filter_map(one).collect();
    let told: u64 = lost.iter().filter_map(|one| one["count"].as_u64()).sum();
    if told < counted {
        let rest = counted - told;
        lost.push(json!({ "reason": "refused", "event_type": event_type, "count": rest, "samples": [] }));
    }
    lost
}
