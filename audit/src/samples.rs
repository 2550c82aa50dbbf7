//! The events behind a number.
//!
//! *In*: the stages of a question. *Out*: how many rows came how far, which events they are. *Never*: more than a few.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use contracts::catalog::{Agg, MeasureKind, Metric, Overflow, WindowKind};
use contracts::value::Value;

use crate::aggs::{count, quantile};
use crate::ask::{AuditError, Counts, Lost, Recomputed, Sample};
use crate::lasting;
use crate::numbers::NANO;
use crate::rows::{fold_name, has_value, value_of};
use crate::sql::quoted;
use crate::stages::Work;

/// Newest events shown where none is *the* event.
const NEWEST: usize = 10;
/// Events shown on each side of the one.
const AROUND: i64 = 2;
/// Ids per reason.
const IDS: usize = 5;

/// Fills counts, samples and losses where they are asked for.
pub(crate) fn explain(work: &mut Work<'_>, to: &mut Recomputed) -> Result<(), AuditError> {
    let Some(measure) = work.question.explain else { return Ok(()) };
    let fold = fold_of(work.metric, measure);
    let within = to.span.map(|(start, end)| format!(" AND at >= {start} AND at < {end}")).unwrap_or_default();
    let number = |sql: String| Ok::<_, AuditError>(count(&work.sql.run(&sql)?, "n", 0).unsigned_abs());
    let mut counted = work.counted.clone();
    let sees = fold.map(|fold| quoted(&format!("if_{}", fold_name(work.metric, fold))));
    let mut sees = sees.unwrap_or_else(|| "TRUE".to_owned());
    let kind = &work.metric.windows[work.question.window].kind;
    if let (Some(fold), false) = (fold, matches!(kind, WindowKind::Session { .. }))
        && work.metric.folds[fold].agg.is_span()
    {
        let as_of = work.question.as_of;
        let extent = (to.span.map(|(start, _)| start), to.span.map_or(as_of, |(_, end)| end.min(as_of)));
        counted = work.name("asked_lasting", work.lasting_at(as_of));
        sees = lasting::counts(work.metric, fold, extent);
    }
    to.counts = Counts {
        admitted: number(format!("SELECT COUNT(*) AS n FROM admitted WHERE TRUE{within}"))?,
        matched: number(format!("SELECT COUNT(*) AS n FROM matched WHERE TRUE{within}"))?,
        joined: None,
        counted: number(format!("SELECT COUNT(*) AS n FROM {counted} WHERE {sees}"))?,
    };
    if let Some(parts) = work.parts {
        to.counts.joined = work.joins.then_some(to.counts.matched);
        (to.counts.admitted, to.counts.matched) = parts;
    }
    to.samples = samples(work, fold, &counted, &sees)?;
    to.lost = lost(work, to.span)?;
    Ok(())
}

/// The fold that a measure is made of first.
fn fold_of(metric: &Metric, measure: usize) -> Option<usize> {
    match &metric.measures[measure].kind {
        MeasureKind::Fold(fold) => Some(*fold),
        MeasureKind::Ratio(of, _) | MeasureKind::Shift { of, .. } | MeasureKind::Over { of, .. } => {
            fold_of(metric, *of)
        }
        MeasureKind::Expr { inputs, .. } => inputs.first().and_then(|input| fold_of(metric, *input)),
    }
}

fn samples(
    work: &Work<'_>,
    fold: Option<usize>,
    counted: &str,
    sees: &str,
) -> Result<Vec<Sample>, AuditError> {
    let agg = fold.map(|fold| &work.metric.folds[fold].agg);
    let with_value = agg.is_some_and(has_value);
    let value = match fold {
        Some(fold) if with_value => quoted(&format!("v_{}", fold_name(work.metric, fold))),
        _ => "NULL".to_owned(),
    };
    let chosen = format!("SELECT event, at, {value} AS v, ");
    let from = format!("FROM {counted} WHERE {sees}");
    let newest = "ORDER BY at DESC, id DESC NULLS LAST";
    let first = |order: &str, most: usize| {
        format!("{chosen}ROW_NUMBER() OVER ({order}) = 1 AS it {from} {order} LIMIT {most}")
    };
    let sql = match agg {
        Some(agg) if quantile(agg).is_some() => {
            let nano = quantile(agg).unwrap_or(0);
            let low = format!("{nano} * (n - 1) / {NANO}");
            format!(
                "SELECT event, at, v, i = {low} AS it FROM (\n  {chosen}\
                 CAST(ROW_NUMBER() OVER (ORDER BY {value}, at, id NULLS FIRST) AS BIGINT) - 1 AS i, \
                 COUNT(*) OVER () AS n {from}\n) WHERE i BETWEEN {low} - {AROUND} AND {low} + {} ORDER BY i",
                AROUND + 1
            )
        }
        Some(Agg::Min) => first(&format!("ORDER BY {value}, at, id NULLS FIRST"), 3),
        Some(Agg::Max) => first(&format!("ORDER BY {value} DESC, at, id NULLS FIRST"), 3),
        Some(Agg::First) => first("ORDER BY at, id NULLS FIRST", 3),
        Some(Agg::Last) => first(newest, 3),
        _ => format!("{chosen}FALSE AS it {from} {newest} LIMIT {NEWEST}"),
    };
    let batch = work.sql.run(&sql)?;
    let values = batch.column_by_name("v").filter(|_| with_value);
    let its = batch.column_by_name("it").and_then(|column| column.as_boolean_opt());
    let is_it = |its: &BooleanArray, row: usize| its.is_valid(row) && its.value(row);
    let sample = |(row, id): (usize, String)| Sample {
        id,
        time: count(&batch, "at", row),
        value: match (values, fold) {
            (Some(values), Some(fold)) => value_of(values, row, &work.metric.folds[fold].input),
            _ => Value::Null,
        },
        is_it: its.is_some_and(|its| is_it(its, row)),
    };
    Ok(ids(&batch).into_iter().enumerate().map(sample).collect())
}

/// The column `event`.
fn ids(batch: &RecordBatch) -> Vec<String> {
    let column = batch.column_by_name("event").and_then(|column| column.as_string_opt::<i32>());
    let ids = column.map(|column| column.iter().map(|id| id.unwrap_or_default().to_owned()).collect());
    ids.unwrap_or_default()
}

fn lost(work: &mut Work<'_>, span: Option<(i64, i64)>) -> Result<Vec<Lost>, AuditError> {
    let mut reasons = work.alone.clone();
    let broken = work.sql.run("SELECT lost FROM admitted WHERE passed AND lost IS NOT NULL GROUP BY lost")?;
    let column = broken.column_by_name("lost").and_then(|column| column.as_string_opt::<i32>());
    let mut asked: Vec<(String, String)> = Vec::new();
    for reason in column.into_iter().flat_map(|column| column.iter().flatten()) {
        let rows = format!("admitted WHERE passed AND lost = {}", crate::sql::literal(reason));
        asked.push((reason.to_owned(), rows));
    }
    let oldest = work.oldest();
    if !work.keeps_everything() {
        let rows = format!("admitted WHERE passed AND lost IS NULL AND at < {oldest}");
        asked.push(("beyond_retention".to_owned(), rows));
    }
    if let Some((start, end)) = span {
        let rows = format!("matched WHERE at < {start} OR at >= {end}");
        asked.push(("outside_window".to_owned(), rows));
    }
    let refuses = work.metric.dimensions.iter().any(|d| d.overflow == Overflow::Refuse);
    if refuses && work.question.filter.is_none() {
        let rows = "matched WHERE event NOT IN (SELECT event FROM asked)".to_owned();
        asked.push(("dimension_overflow".to_owned(), rows));
    }
    for (reason, rows) in asked {
        let counted = count(&work.sql.run(&format!("SELECT COUNT(*) AS n FROM {rows}"))?, "n", 0);
        if counted > 0 {
            let newest = work.sql.run(&format!("SELECT event FROM {rows} ORDER BY at DESC LIMIT {IDS}"))?;
            reasons.push(Lost { reason, count: counted.unsigned_abs(), samples: ids(&newest) });
        }
    }
    Ok(reasons)
}
