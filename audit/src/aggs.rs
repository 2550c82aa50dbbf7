//! Folds as SQL.
//!
//! *In*: a fold of the metric, the groups. *Out*: expressions for one `SELECT ... GROUP BY`, statements for quantiles,
//! and values from what they give. *Never*: a number that depends on the order of rows.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal256Type, Float64Type, Int64Type};
use contracts::catalog::{Agg, Fold, Metric};
use contracts::value::{Value, ValueType};

use crate::numbers::{NANO, between, divide};
use crate::rows::{fold_name, value_of};
use crate::sql::quoted;

/// What a fold came to in one group, as SQL gave it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folded {
    /// Values folded.
    pub(crate) n: i64,
    /// An exact sum.
    pub(crate) sum: Option<i128>,
    /// A sum or deviation of floats.
    pub(crate) float: Option<f64>,
    /// An extreme, an end, the lower neighbour of a quantile.
    pub(crate) value: Value,
    /// The upper neighbour of a quantile.
    pub(crate) high: Value,
    /// Buckets of a histogram.
    pub(crate) buckets: Vec<u64>,
    /// The most frequent values, the first most often.
    pub(crate) ranking: Vec<(Value, u64)>,
}

/// The columns of fold `index`, named `n<index>`, `x<index>`, `b<index>_<bucket>`.
pub(crate) fn columns(metric: &Metric, index: usize) -> Vec<String> {
    let name = fold_name(metric, index);
    columns_of(&metric.folds[index], index, &quoted(&format!("v_{name}")), &quoted(&format!("if_{name}")))
}

/// The same of any fold, over the column `value` of rows for which `sees` is true.
pub(crate) fn columns_of(fold: &Fold, index: usize, value: &str, sees: &str) -> Vec<String> {
    if fold.agg.is_span() {
        return Vec::new();
    }
    let filter = format!("FILTER (WHERE {sees})");
    let mut columns = vec![format!("COUNT(*) {filter} AS n{index}")];
    let own = match &fold.agg {
        Agg::Count | Agg::Quantile { .. } | Agg::QuantileSketch { .. } | Agg::Top { .. } => None,
        // See `lasting`.
        Agg::Concurrent | Agg::DurationInState => None,
        Agg::Sum | Agg::Avg | Agg::Rate { .. } => Some(total(fold, value)),
        Agg::Stddev => Some(format!("exact_stddev(CAST({value} AS DOUBLE))")),
        Agg::Min => Some(format!("MIN({value})")),
        Agg::Max => Some(format!("MAX({value})")),
        Agg::First => Some(format!("FIRST_VALUE({value} ORDER BY at, id NULLS FIRST, {value})")),
        Agg::Last => Some(format!("FIRST_VALUE({value} ORDER BY at DESC, id DESC NULLS LAST, {value} DESC)")),
        Agg::Distinct | Agg::DistinctApprox => Some(format!("COUNT(DISTINCT {value})")),
        Agg::Histogram { bounds } => {
            columns.extend(buckets(fold, value, sees, bounds, index));
            None
        }
    };
    columns.extend(own.map(|own| format!("{own} {filter} AS x{index}")));
    columns
}

/// Exact: integers of 76 digits, floats by a fold that rounds once.
fn total(fold: &Fold, value: &str) -> String {
    match &fold.input {
        ValueType::Float => format!("exact_sum({value})"),
        ValueType::Decimal { scale, .. } => format!("SUM(CAST({value} AS DECIMAL(76, {scale})))"),
        ValueType::Int | ValueType::Duration => format!("SUM(CAST({value} AS DECIMAL(76, 0)))"),
        _ => format!("SUM(CAST(CAST({value} AS BIGINT) AS DECIMAL(76, 0)))"),
    }
}

fn buckets(fold: &Fold, value: &str, sees: &str, bounds: &[f64], index: usize) -> Vec<String> {
    let number = match fold.input {
        ValueType::Duration => format!("CAST({value} AS DOUBLE) / 1000000"),
        _ => format!("CAST({value} AS DOUBLE)"),
    };
    let exact = |bound: f64| format!("CAST({bound:?} AS DOUBLE)");
    let bucket = |bucket: usize| {
        let above = bucket.checked_sub(1).map(|below| format!(" AND {number} > {}", exact(bounds[below])));
        let upto = bounds.get(bucket).map(|bound| format!(" AND {number} <= {}", exact(*bound)));
        let (above, upto) = (above.unwrap_or_default(), upto.unwrap_or_default());
        format!("COUNT(*) FILTER (WHERE {sees}{above}{upto}) AS b{index}_{bucket}")
    };
    (0..=bounds.len()).map(bucket).collect()
}

/// The quantile of a fold, in billionths; `None`: the fold is none.
pub(crate) fn quantile(agg: &Agg) -> Option<i64> {
    match agg {
        Agg::Quantile { q, .. } | Agg::QuantileSketch { q, .. } => Some((q * NANO as f64).round() as i64),
        _ => None,
    }
}

/// The neighbours of a quantile in each group: `v` at positions `i` of `n`.
pub(crate) fn quantile_sql(metric: &Metric, index: usize, keys: &[String]) -> Option<String> {
    let nano = quantile(&metric.folds[index].agg)?;
    let name = fold_name(metric, index);
    let (value, sees) = (quoted(&format!("v_{name}")), quoted(&format!("if_{name}")));
    let split: String = keys.iter().map(|key| format!("{key}, ")).collect();
    let over = match keys.is_empty() {
        true => String::new(),
        false => format!("PARTITION BY {} ", keys.join(", ")),
    };
    Some(format!(
        "SELECT {split}v, i, n FROM (\n  SELECT {split}{value} AS v, \
         CAST(ROW_NUMBER() OVER ({over}ORDER BY {value}) AS BIGINT) - 1 AS i, COUNT(*) OVER ({over}) AS n\n  \
         FROM {{from}} WHERE {sees}\n) WHERE i BETWEEN {nano} * (n - 1) / {NANO} AND {nano} * (n - 1) / {NANO} + 1"
    ))
}

/// The most frequent values of each group: `v` with how often, `n`.
pub(crate) fn top_sql(metric: &Metric, index: usize, keys: &[String]) -> Option<String> {
    let Agg::Top { n: most } = &metric.folds[index].agg else { return None };
    let name = fold_name(metric, index);
    let (value, sees) = (quoted(&format!("v_{name}")), quoted(&format!("if_{name}")));
    let split: String = keys.iter().map(|key| format!("{key}, ")).collect();
    let over = match keys.is_empty() {
        true => String::new(),
        false => format!("PARTITION BY {} ", keys.join(", ")),
    };
    Some(format!(
        "SELECT {split}v, n FROM (\n  SELECT {split}v, n, ROW_NUMBER() OVER ({over}ORDER BY n DESC, v) AS place FROM (\n    \
         SELECT {split}{value} AS v, COUNT(*) AS n FROM {{from}} WHERE {sees} GROUP BY {split}{value}\n  )\n\
         ) WHERE place <= {most} ORDER BY {split}place"
    ))
}

/// Reads the columns of a fold back.
pub(crate) fn read(batch: &RecordBatch, row: usize, fold: &Fold, index: usize) -> Folded {
    let mut folded = Folded { n: count(batch, &format!("n{index}"), row), ..Folded::default() };
    if let Agg::Histogram { bounds } = &fold.agg {
        let bucket = |bucket| count(batch, &format!("b{index}_{bucket}"), row).unsigned_abs();
        folded.buckets = (0..=bounds.len()).map(bucket).collect();
    }
    let Some(column) = batch.column_by_name(&format!("x{index}")) else { return folded };
    if column.is_null(row) {
        return folded;
    }
    if let Some(sums) = column.as_primitive_opt::<Decimal256Type>() {
        folded.sum = sums.value(row).to_i128();
    } else if let (Some(floats), false) = (column.as_primitive_opt::<Float64Type>(), is_pick(&fold.agg)) {
        folded.float = Some(floats.value(row));
    } else {
        let counts = matches!(fold.agg, Agg::Distinct | Agg::DistinctApprox);
        let ty = if counts { &ValueType::Int } else { &fold.input };
        folded.value = value_of(column, row, ty);
    }
    folded
}

/// One of the values themselves.
fn is_pick(agg: &Agg) -> bool {
    matches!(agg, Agg::Min | Agg::Max | Agg::First | Agg::Last)
}

pub(crate) fn count(batch: &RecordBatch, name: &str, row: usize) -> i64 {
    let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
    column.filter(|column| column.is_valid(row)).map_or(0, |column| column.value(row))
}

/// The answer of a fold. `covered`: microseconds from the window's start to where the answer ends.
pub(crate) fn finish(fold: &Fold, folded: &Folded, covered: Option<i64>) -> Value {
    match &fold.agg {
        Agg::Count => Value::Int(folded.n),
        Agg::Distinct | Agg::DistinctApprox => match &folded.value {
            Value::Null => Value::Int(0),
            value => value.clone(),
        },
        Agg::Sum => sum(fold, folded),
        Agg::Avg => average(fold, folded),
        Agg::Min | Agg::Max | Agg::First | Agg::Last => folded.value.clone(),
        Agg::Stddev => folded.float.map_or(Value::Null, |value| match fold.input {
            ValueType::Duration => Value::Float(value / 1e6),
            _ => Value::Float(value),
        }),
        Agg::Histogram { bounds } => {
            let bounds = bounds.iter().copied().map(Some).chain([None]);
            let counts = folded.buckets.iter().copied().chain(std::iter::repeat(0));
            Value::Histogram(bounds.zip(counts).collect())
        }
        Agg::Quantile { q, linear } => at_quantile(folded, *q, *linear),
        Agg::QuantileSketch { q, .. } => match at_quantile(folded, *q, false) {
            value @ (Value::Null | Value::Duration(_)) => value,
            value => value.as_f64().map_or(Value::Null, Value::Float),
        },
        Agg::Rate { per } => rate(fold, folded, *per, covered),
        Agg::Top { .. } => Value::Ranking(folded.ranking.clone().into()),
        Agg::Concurrent => Value::Int(folded.n),
        Agg::DurationInState => i64::try_from(folded.sum.unwrap_or(0)).map_or(Value::Null, Value::Duration),
    }
}

fn sum(fold: &Fold, folded: &Folded) -> Value {
    let narrow = |sum: i128| i64::try_from(sum).ok();
    let value = match (&fold.input, folded.sum) {
        (ValueType::Float, _) => folded.float.map(Value::Float),
        (ValueType::Decimal { scale, .. }, Some(sum)) => Some(Value::Decimal(sum, *scale)),
        (ValueType::Duration, Some(sum)) => narrow(sum).map(Value::Duration),
        (_, Some(sum)) => narrow(sum).map(Value::Int),
        (_, None) => None,
    };
    value.unwrap_or(Value::Null)
}

fn average(fold: &Fold, folded: &Folded) -> Value {
    let n = folded.n;
    let exact = || divide(folded.sum?, i128::from(n));
    let value = match &fold.input {
        ValueType::Float => folded.float.map(|sum| Value::Float(sum / n as f64)),
        ValueType::Decimal { scale, .. } => exact().map(|v| Value::Decimal(v, *scale)),
        ValueType::Duration => exact().and_then(|v| i64::try_from(v).ok()).map(Value::Duration),
        _ => folded.sum.map(|sum| Value::Float(sum as f64 / n as f64)),
    };
    value.unwrap_or(Value::Null)
}

fn at_quantile(folded: &Folded, q: f64, linear: bool) -> Value {
    if folded.n == 0 {
        return Value::Null;
    }
    let nano = i128::from((q * NANO as f64).round() as i64);
    let rest = (nano * i128::from(folded.n - 1) % i128::from(NANO)) as i64;
    match (linear, rest) {
        (false, _) => folded.value.clone(),
        (true, 0) => between(&folded.value, &folded.value, 0),
        (true, rest) => between(&folded.value, &folded.high, rest),
    }
}

fn rate(fold: &Fold, folded: &Folded, per: i64, covered: Option<i64>) -> Value {
    let Some(covered) = covered.filter(|covered| *covered > 0) else { return Value::Null };
    let amount = match (&fold.input, folded.sum, folded.float) {
        _ if folded.n == 0 => 0.0,
        (_, None, Some(sum)) => sum,
        (ValueType::Decimal { scale, .. }, Some(sum), _) => sum as f64 / 10f64.powi(i32::from(*scale)),
        (ValueType::Duration, Some(sum), _) => sum as f64 / 1e6,
        (_, Some(sum), _) => sum as f64,
        // Rows are counted where there is no value.
        (_, None, None) => folded.n as f64,
    };
    Value::Float(amount / covered as f64 * per as f64)
}
