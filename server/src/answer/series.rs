//! GET `/v1/metrics/{name}/series`.
//!
//! *In*: a metric, a stretch of event time, a step. *Out*: one answer per instant. *Never*: more
//! than 10,000 points.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use contracts::catalog::{CalendarUnit, Metric, Micros, WindowKind};
use contracts::value::time::format_timestamp;
use engine::{Answer, MetricQuery};
use serde_json::{Value as JsonValue, json};

use super::describe;
use super::metrics::{find, question};
use super::params::{Params, age_ms, wall_now};
use super::token::published_after;
use crate::app::App;
use crate::error::{Path, Problem, ProblemBody, Result};

/// Points of one answer.
const MAX_POINTS: Micros = 10_000;

/// Points when only the step is known.
const DEFAULT_POINTS: Micros = 60;

const MINUTE: Micros = 60_000_000;
const DAY: Micros = 86_400_000_000;

/// A metric over time.
#[utoipa::path(
    get, path = "/v1/metrics/{name}/series", tag = "metrics", operation_id = "getMetricSeries",
    params(
        ("name" = String, Path, description = "Metric name, or `name@major`"),
        ("from" = Option<String>, Query, description = "Exclusive start: RFC 3339 or relative; default: 60 steps before `to`"),
        ("to" = Option<String>, Query, description = "Inclusive end: RFC 3339 or relative; default: the last whole step"),
        ("step" = Option<String>, Query, description = "Distance of the points, e.g. `1m`; default: the window's step"),
        ("window" = Option<String>, Query, description = "Window name"),
        ("measure" = Option<Vec<String>>, Query, description = "Measures"),
        ("by" = Option<Vec<String>>, Query, description = "Dimensions"),
        ("where" = Option<String>, Query, description = "SQL condition over the dimensions"),
        ("after" = Option<String>, Query, description = "Token"),
        ("wait" = Option<String>, Query, description = "How long `after` may wait"),
    ),
    responses(
        (status = 200, description = "`{metric_name, window, unit, from, to, step_seconds, points: [{t, window_start, window_end, value, complete, rows}]}`", body = Object),
        (status = 404, description = "No such metric", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Bad parameter, too many points", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[tracing::instrument(name = "answer", skip_all, fields(metric = %name))]
pub(crate) async fn series(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<JsonValue>> {
    params.only(&["from", "to", "step", "window", "measure", "by", "where", "after", "wait"])?;
    let wait = params.wait(app.limits.max_wait)?;
    find(&*app.live()?, &name)?;
    let (live, published) = published_after(&app, params.one("after")?, wait).await?;
    let index = find(&live, &name)?;
    let query = question(&params, &published)?;
    let metric = published.catalog.metrics[index].clone();
    let span = span(&params, &metric, &query, published.as_of)?;
    let asked = published.clone();
    let mut answers =
        tokio::task::spawn_blocking(move || asked.series(index, &query, span.from, span.to, span.step))
            .await
            .map_err(|e| Problem::internal(format!("The series was not finished: {e}.")))??;
    let settled = app.settled(&published);
    answers.iter_mut().for_each(|answer| answer.complete &= settled);
    Ok(Json(json!({
        "metric_name": metric.head.name,
        "window": answers.first().map(|a| a.window.clone()),
        "unit": describe::metric_unit(&metric),
        "from": format_timestamp(span.from),
        "to": format_timestamp(span.to),
        "step_seconds": span.step as f64 / 1e6,
        "fresh_ms": age_ms(wall_now(), published.as_of),
        "contract": describe::contract(&metric.head),
        "points": answers.iter().map(|a| point(&metric, a)).collect::<Vec<_>>(),
    })))
}

fn point(metric: &Metric, answer: &Answer) -> JsonValue {
    json!({
        "t": format_timestamp(answer.as_of),
        "window_start": answer.start.map(format_timestamp),
        "window_end": answer.end.map(format_timestamp),
        "value": describe::value(metric, answer),
        "complete": answer.complete,
        "rows": answer.rows.iter().map(|row| describe::row(metric, answer, row)).collect::<Vec<_>>(),
    })
}

#[derive(Debug, Clone, Copy)]
struct Span {
    from: Micros,
    to: Micros,
    step: Micros,
}

fn span(params: &Params, metric: &Metric, query: &MetricQuery, now: Micros) -> Result<Span> {
    let window = match &query.window {
        None => metric.windows.first(),
        Some(name) => metric.windows.iter().find(|w| w.name == *name),
    };
    let step = params.duration("step")?.unwrap_or_else(|| window.map_or(MINUTE, |w| default_step(&w.kind)));
    if step <= 0 {
        return Err(Problem::parameter("step", "0", "must be longer than 0"));
    }
    let to = match params.instant("to", now)? {
        Some(to) if to > now => {
            return Err(Problem::parameter("to", &format_timestamp(to), "is in the future"));
        }
        Some(to) => to,
        None => now - now.rem_euclid(step),
    };
    let from = params
        .instant("from", now)?
        .unwrap_or_else(|| to.saturating_sub(step.saturating_mul(DEFAULT_POINTS)));
    if from >= to {
        let text = format_timestamp(from);
        return Err(Problem::parameter(
            "from",
            &text,
            format!("`{text}` is not before `to`, {}", format_timestamp(to)),
        ));
    }
    if to.saturating_sub(from) / step > MAX_POINTS {
        return Err(Problem::parameter(
            "step",
            &format!("{}s", step as f64 / 1e6),
            format!("gives more than {MAX_POINTS} points; take a longer step or a shorter stretch"),
        ));
    }
    Ok(Span { from, to, step })
}

fn default_step(kind: &WindowKind) -> Micros {
    match kind {
        WindowKind::Tumbling { size } => *size,
        WindowKind::Sliding { every, .. } => (*every).max(1_000_000),
        WindowKind::Days { days, .. } => DAY * Micros::from(*days),
        WindowKind::ToDate { unit: CalendarUnit::Hour, .. } => MINUTE,
        WindowKind::ToDate { unit: CalendarUnit::Day, .. } => 60 * MINUTE,
        WindowKind::ToDate { .. } => DAY,
        WindowKind::Session { .. } | WindowKind::All => MINUTE,
    }
}
