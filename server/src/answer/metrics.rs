//! GET `/v1/metrics` and `/v1/metrics/{name}`.
//!
//! *In*: a metric's name and a question. *Out*: the number with everything needed to trust it.
//! *Never*: a cached answer; an answer that mixes two ticks.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contracts::catalog::{Metric, Micros};
use contracts::value::Value;
use contracts::value::time::format_timestamp;
use engine::{Answer, MetricQuery, Published, Row};
use serde::{Deserialize, Serialize};
use serde_json::{Value as JsonValue, json};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::describe;
use super::params::{Params, age_ms, wall_now};
use super::token::{Token, published_after};
use crate::app::{App, Live};
use crate::error::{Path, Problem, ProblemBody, Result};

/// A number, and what it is about.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MetricAnswer {
    /// Name of the metric.
    pub metric_name: String,
    /// The first visible measure over all rows; `null` is "nothing to say" and never 0.
    #[schema(value_type = Object, nullable)]
    pub value: JsonValue,
    /// Unit of `value`.
    pub unit: String,
    /// Window name.
    pub window: String,
    /// Start, RFC 3339 UTC; null for `all` and sessions.
    pub window_start: Option<String>,
    /// Exclusive end, RFC 3339 UTC; null for `all` and sessions.
    pub window_end: Option<String>,
    /// The machine's clock when the answer was made.
    pub computed_at: String,
    /// Events with time < `as_of` count.
    pub as_of: String,
    /// Age of the published tick behind the answer, milliseconds.
    pub fresh_ms: f64,
    /// No further event is expected to change it; never while the server reads what was there when it started.
    pub complete: bool,
    /// The band that holds, for metrics with levels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Dimensions and measures; without `by` exactly one.
    #[schema(value_type = Vec<Object>)]
    pub rows: Vec<JsonValue>,
    /// The contract that defines it.
    pub contract: ContractRef,
    /// The offsets this answer contains; `after=<token>` elsewhere waits for them.
    pub token: String,
    /// Rows on all pages.
    pub total_count: usize,
    /// There are rows after these.
    pub has_more: bool,
    /// Give as `cursor=` for the rows after these.
    pub next_cursor: Option<String>,
    /// Units, the newest event, lost rows, tick.
    #[schema(value_type = Object)]
    pub meta: JsonValue,
}

/// Version and hash of a contract.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ContractRef {
    /// Semantic version.
    pub version: String,
    /// Hash of its meaning.
    pub hash: String,
}

/// The index of metric `name` (or `name@major`) in the catalog.
pub(crate) fn find(live: &Live, name: &str) -> Result<usize> {
    let catalog = &live.catalog;
    let (base, major) = match name.split_once('@') {
        Some((base, major)) => (base, Some(major)),
        None => (name, None),
    };
    let unknown =
        |names: Vec<String>| Problem::unknown(StatusCode::NOT_FOUND, "unknown_metric", "metric", name, names);
    let Some(index) = catalog.metric_index(base) else {
        return Err(unknown(served(live).map(|m| m.head.name.clone()).collect()));
    };
    let served_major = catalog.metrics[index].head.version.0;
    match major.map(str::parse::<u64>) {
        None => Ok(index),
        Some(Ok(major)) if major == served_major => Ok(index),
        Some(_) => Err(unknown(vec![format!("{base}@{served_major}")])),
    }
}

/// The metrics that are answered.
pub(crate) fn served(live: &Live) -> impl Iterator<Item = &Arc<Metric>> {
    live.catalog.metrics.iter()
}

/// The question in the parameters.
pub(crate) fn question(params: &Params, published: &Published) -> Result<MetricQuery> {
    let measures = params.many("measure");
    Ok(MetricQuery {
        window: params.one("window")?.map(str::to_owned),
        measures: (!measures.is_empty()).then_some(measures),
        by: params.many("by"),
        filter: params.one("where")?.map(str::to_owned),
        as_of: params.as_of(published.as_of, wall_now())?,
    })
}

/// Answers off the async threads when history must be summed.
pub(crate) async fn ask(published: &Arc<Published>, metric: usize, query: &MetricQuery) -> Result<Answer> {
    if query.as_of.is_none() {
        return Ok(published.metric(metric, query)?);
    }
    let (published, query) = (published.clone(), query.clone());
    tokio::task::spawn_blocking(move || published.metric(metric, &query))
        .await
        .map_err(|e| Problem::internal(format!("The answer was not finished: {e}.")))?
        .map_err(Problem::from)
}

/// A page of an answer's rows.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    rows: &'a [Row],
    next_cursor: Option<String>,
}

impl<'a> Page<'a> {
    /// All rows up to `limit`.
    pub(crate) fn first(answer: &'a Answer, limit: usize) -> Page<'a> {
        Page { rows: &answer.rows[..answer.rows.len().min(limit)], next_cursor: None }
    }
}

/// Where a page ended: the question it belongs to and its last key.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    q: String,
    k: Vec<Value>,
}

fn fingerprint(name: &str, query: &MetricQuery) -> String {
    let mut hash = Sha256::new();
    hash.update(format!(
        "{name}\0{:?}\0{:?}\0{:?}\0{:?}",
        query.window, query.measures, query.by, query.filter
    ));
    URL_SAFE_NO_PAD.encode(&hash.finalize()[..9])
}

fn page<'a>(
    name: &str,
    query: &MetricQuery,
    answer: &'a Answer,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page<'a>> {
    let q = fingerprint(name, query);
    let start = match cursor {
        None => 0,
        Some(text) => {
            let cursor = URL_SAFE_NO_PAD
                .decode(text)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Cursor>(&bytes).ok())
                .filter(|c| c.q == q)
                .ok_or_else(|| Problem::parameter("cursor", text, "is not a cursor of this question"))?;
            answer.rows.partition_point(|row| row.key <= cursor.k)
        }
    };
    let end = answer.rows.len().min(start.saturating_add(limit));
    let next_cursor = (end < answer.rows.len()).then(|| {
        let cursor = Cursor { q, k: answer.rows[end - 1].key.clone() };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
    });
    Ok(Page { rows: &answer.rows[start..end], next_cursor })
}

/// The promised shape.
pub(crate) fn shape(
    published: &Published,
    index: usize,
    query: &MetricQuery,
    answer: &Answer,
    page: &Page<'_>,
) -> MetricAnswer {
    let metric = &published.catalog.metrics[index];
    let wall = wall_now();
    let rows: Vec<JsonValue> = page.rows.iter().map(|row| describe::row(metric, answer, row)).collect();
    let units: serde_json::Map<String, JsonValue> = answer
        .measures
        .iter()
        .filter_map(|name| metric.measures.iter().find(|m| m.name == *name))
        .map(|m| (m.name.clone(), json!(describe::unit(metric, m))))
        .collect();
    MetricAnswer {
        metric_name: metric.head.name.clone(),
        value: describe::value(metric, answer),
        unit: describe::metric_unit(metric),
        window: answer.window.clone(),
        window_start: answer.start.map(format_timestamp),
        window_end: answer.end.map(format_timestamp),
        computed_at: format_timestamp(wall),
        as_of: format_timestamp(answer.as_of),
        fresh_ms: age_ms(wall, published.as_of),
        complete: answer.complete,
        level: answer.level.clone(),
        rows,
        contract: ContractRef { version: describe::version(&metric.head), hash: metric.head.hash.clone() },
        token: Token::of(published).encode(),
        total_count: answer.rows.len(),
        has_more: page.next_cursor.is_some(),
        next_cursor: page.next_cursor.clone(),
        meta: json!({
            "as_of": format_timestamp(answer.as_of),
            "is_historical": query.as_of.is_some(),
            "tick": published.tick,
            "units": units,
            "dimensions": answer.dimensions,
            "newest_event": describe::newest_event(published.newest(index), wall),
            "freshness_seconds": age_ms(wall, published.as_of) / 1_000.0,
            "freshness_budget_ms": metric.freshness.map(|f| f as f64 / 1_000.0),
            "lost": published.lost(index),
            "status": describe::status(metric.head.status),
        }),
    }
}

/// The number of a metric now, or as of an instant.
#[utoipa::path(
    get, path = "/v1/metrics/{name}", tag = "metrics", operation_id = "getMetric",
    params(
        ("name" = String, Path, description = "Metric name, or `name@major`"),
        ("window" = Option<String>, Query, description = "Window name; default: the contract's first"),
        ("measure" = Option<Vec<String>>, Query, description = "Measures, repeated or separated by commas; hidden ones allowed; default: all visible"),
        ("by" = Option<Vec<String>>, Query, description = "Dimensions to group by, repeated or separated by commas"),
        ("where" = Option<String>, Query, description = "SQL condition over the dimensions"),
        ("as_of" = Option<String>, Query, description = "Exclusive end in event time: RFC 3339, or relative such as `-2h`; default: now"),
        ("after" = Option<String>, Query, description = "Token of a push or an answer: answer only with its events contained"),
        ("wait" = Option<String>, Query, description = "How long `after` may wait, e.g. `5s`"),
        ("limit" = Option<usize>, Query, description = "Rows per page"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "The number", body = MetricAnswer),
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
) -> Result<Json<MetricAnswer>> {
    params.only(&["window", "measure", "by", "where", "as_of", "after", "wait", "limit", "cursor"])?;
    let limit = params.number("limit", 1..=app.limits.max_rows)?.unwrap_or(app.limits.rows);
    let wait = params.wait(app.limits.max_wait)?;
    // The name is checked before a wait for `after`.
    find(&*app.live()?, &name)?;
    let (live, published) = published_after(&app, params.one("after")?, wait).await?;
    let index = find(&live, &name)?;
    let query = question(&params, &published)?;
    let mut answer = ask(&published, index, &query).await?;
    answer.complete &= app.settled(&published);
    let page = page(&name, &query, &answer, params.one("cursor")?, limit)?;
    Ok(Json(shape(&published, index, &query, &answer, &page)))
}

/// All metrics with their present values.
#[utoipa::path(
    get, path = "/v1/metrics", tag = "metrics", operation_id = "listMetrics",
    responses((status = 200, description = "`{metrics: [...], as_of, fresh_ms}`", body = Object))
)]
#[tracing::instrument(name = "answer", skip_all)]
pub(crate) async fn list(State(app): State<Arc<App>>, params: Params) -> Result<Json<JsonValue>> {
    params.only(&["after", "wait"])?;
    let wait = params.wait(app.limits.max_wait)?;
    let (live, published) = published_after(&app, params.one("after")?, wait).await?;
    let (wall, settled) = (wall_now(), app.settled(&published));
    let metrics: Vec<JsonValue> = served(&live)
        .filter_map(|metric| {
            let index = published.catalog.metric_index(&metric.head.name)?;
            Some(summary(&published, index, wall, settled))
        })
        .collect();
    Ok(Json(json!({
        "metrics": metrics,
        "as_of": format_timestamp(published.as_of),
        "fresh_ms": age_ms(wall, published.as_of),
        "token": Token::of(&published).encode(),
    })))
}

fn summary(published: &Published, index: usize, wall: Micros, settled: bool) -> JsonValue {
    let metric = &published.catalog.metrics[index];
    let head = &metric.head;
    let answer = published.metric(index, &MetricQuery::default());
    let (value, window, complete, level, error) = match &answer {
        Ok(a) => {
            let complete = json!(a.complete && settled);
            (describe::value(metric, a), json!(a.window), complete, json!(a.level), JsonValue::Null)
        }
        Err(e) => (JsonValue::Null, JsonValue::Null, JsonValue::Null, JsonValue::Null, json!(e.to_string())),
    };
    let mut out = json!({
        "name": head.name,
        "title": if head.title.is_empty() { &head.name } else { &head.title },
        "description": head.description,
        "unit": describe::metric_unit(metric),
        "value": value,
        "window": window,
        "complete": complete,
        "level": level,
        "windows": metric.windows.iter().map(describe::window).collect::<Vec<_>>(),
        "dimensions": describe::dimensions(metric),
        "measures": describe::measures(metric),
        "freshness": describe::freshness(published, index, metric, wall),
        "source_events": describe::source_events(&published.catalog, metric),
        "status": describe::status(head.status),
        "owner": describe::owner(head),
        "contract": describe::contract(head),
        "links": {
            "self": format!("/v1/metrics/{}", head.name),
            "series": format!("/v1/metrics/{}/series", head.name),
            "why": format!("/v1/metrics/{}/why", head.name),
            "stream": format!("/v1/metrics/{}/stream", head.name),
            "lineage": format!("/v1/lineage/metric/{}", head.name),
        },
    });
    if !error.is_null() {
        out["error"] = error;
    }
    out
}
