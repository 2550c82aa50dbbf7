//! Events become rows of a metric: the columns that SQL sees.
//!
//! *In*: a feed of the metric, its events. *Out*: one table of rows: `alias`, `event` (what to call the row), `id`, `at`
//! (its time, microseconds), `passed` (its alias's `where`), `lost` (why it cannot count), a column `d_<dimension>` per
//! dimension and `v_<measure>`, `if_<measure>` per fold. *Never*: a row left out; stages do that, one by one.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, Scalar, StringArray, new_null_array,
};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast, filter, filter_record_batch, is_not_null};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use contracts::catalog::{Agg, Feed, FoldInput, MeasureKind, Metric};
use contracts::value::{Value, ValueType, to_arrow};

use crate::ask::AuditError;
use crate::eval::{evaluate, holds};

/// What a feed reads, in one batch.
pub(crate) struct Source {
    /// The columns that the feed's expressions are over.
    pub(crate) batch: RecordBatch,
    /// Tie-break of equal times.
    pub(crate) ids: StringArray,
    /// What to call each row.
    pub(crate) names: StringArray,
    /// When each was received; `None` for rows that are no events.
    pub(crate) received: Option<Vec<i64>>,
}

impl Source {
    /// The rows whose own time is before `now`.
    pub(crate) fn before(self, now: i64) -> Result<Self, AuditError> {
        let times = self.batch.column_by_name("time");
        let times = times.and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(|| AuditError::Inner("events without a time".to_owned()))?;
        let known: BooleanArray = times.values().iter().map(|time| Some(*time < now)).collect();
        if known.false_count() == 0 {
            return Ok(self);
        }
        let texts = |array: &StringArray| filter(array, &known).map(|array| array.as_string::<i32>().clone());
        let kept = |(row, at): (usize, &i64)| known.value(row).then_some(*at);
        Ok(Self {
            batch: filter_record_batch(&self.batch, &known).map_err(AuditError::arrow)?,
            ids: texts(&self.ids).map_err(AuditError::arrow)?,
            names: texts(&self.names).map_err(AuditError::arrow)?,
            received: self.received.map(|all| all.iter().enumerate().filter_map(kept).collect()),
        })
    }
}

/// Names of columns in SQL.
pub(crate) fn dimension_column(metric: &Metric, dimension: usize) -> String {
    format!("d_{}", metric.dimensions[dimension].name)
}

/// The first measure that is this fold gives it its name.
pub(crate) fn fold_name(metric: &Metric, fold: usize) -> String {
    let is_it = |kind: &MeasureKind| matches!(kind, MeasureKind::Fold(of) if *of == fold);
    let named = metric.measures.iter().find(|measure| is_it(&measure.kind));
    named.map_or_else(|| format!("fold {fold}"), |measure| measure.name.clone())
}

/// The type of a column in SQL: instants and durations are microseconds, dates are days.
pub(crate) fn sql_type(ty: &ValueType) -> DataType {
    match ty {
        ValueType::Timestamp | ValueType::Duration => DataType::Int64,
        ValueType::Date => DataType::Int32,
        other => other.arrow().unwrap_or(DataType::Utf8),
    }
}

/// A cell of such a column as a value again.
pub(crate) fn value_of(array: &ArrayRef, row: usize, ty: &ValueType) -> Value {
    match (ty, Value::from_arrow(array.as_ref(), row)) {
        (ValueType::Timestamp, Value::Int(v)) => Value::Timestamp(v),
        (ValueType::Duration, Value::Int(v)) => Value::Duration(v),
        (ValueType::Date, Value::Int(v)) => i32::try_from(v).map_or(Value::Null, Value::Date),
        (_, value) => value,
    }
}

/// The columns of the table of rows.
pub(crate) fn schema(metric: &Metric) -> SchemaRef {
    let field = |name: &str, ty: DataType| Field::new(name, ty, true);
    let mut fields = vec![
        field("alias", DataType::Utf8),
        field("event", DataType::Utf8),
        field("id", DataType::Utf8),
        field("at", DataType::Int64),
        field("passed", DataType::Boolean),
        field("lost", DataType::Utf8),
    ];
    for (index, dimension) in metric.dimensions.iter().enumerate() {
        fields.push(field(&dimension_column(metric, index), sql_type(&dimension.ty)));
    }
    for (index, fold) in metric.folds.iter().enumerate() {
        let name = fold_name(metric, index);
        if has_value(&fold.agg) {
            fields.push(field(&format!("v_{name}"), sql_type(&fold.input)));
        }
        if fold.agg.is_span() {
            fields.push(field(&format!("from_{name}"), DataType::Int64));
            fields.push(field(&format!("until_{name}"), DataType::Int64));
        }
        fields.push(field(&format!("if_{name}"), DataType::Boolean));
    }
    Arc::new(Schema::new(fields))
}

/// Whether the values of a fold matter, beyond being there.
pub(crate) fn has_value(agg: &Agg) -> bool {
    *agg != Agg::Count && !agg.is_span()
}

/// The rows of one feed.
pub(crate) fn of_feed(metric: &Metric, feed: &Feed, source: &Source) -> Result<RecordBatch, AuditError> {
    let rows = source.batch.num_rows();
    let mut failed = vec![false; rows];
    let moments = feed.moment.as_ref().map(|moment| evaluate(moment, &source.batch)).transpose()?;
    let moments = moments.map(|evaluated| {
        either(&mut failed, &evaluated.failed);
        evaluated.values
    });
    let times = moments.as_ref().or_else(|| source.batch.column_by_name(&feed.time));
    let times = times.and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
    let times = times.ok_or_else(|| AuditError::Inner(format!("no time column `{}`", feed.time)))?;
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![feed.alias.as_str(); rows])),
        Arc::new(source.names.clone()),
        Arc::new(source.ids.clone()),
        Arc::new(Int64Array::new(times.values().clone(), times.nulls().cloned())),
    ];
    let (mut passed, filter_failed) = match &feed.filter {
        Some(filter) => holds(filter, &source.batch)?,
        None => (vec![true; rows], vec![false; rows]),
    };
    let mut cells = Vec::new();
    for (dimension, expr) in metric.dimensions.iter().zip(&feed.dimensions) {
        let evaluated = evaluate(expr, &source.batch)?;
        either(&mut failed, &evaluated.failed);
        cells.push(or_default(
            &as_sql(&evaluated.values, &dimension.ty)?,
            &dimension.default,
            &dimension.ty,
        )?);
    }
    for (fold, input) in metric.folds.iter().zip(&feed.folds) {
        let (value, counts) = fold_columns(fold, input.as_ref(), &source.batch, &mut failed)?;
        cells.extend(value);
        if fold.agg.is_span() {
            cells.extend(span_columns(input.as_ref(), &source.batch)?);
        }
        cells.push(counts);
    }
    let lost = (0..rows).map(|row| {
        let ahead = |received: &Vec<i64>| times.value(row).saturating_sub(received[row]) > metric.future;
        match () {
            () if filter_failed[row] || (moments.is_some() && failed[row]) => Some("evaluation"),
            // A moment of null: the row does not count, and nothing is lost.
            () if times.is_null(row) && moments.is_some() => None,
            () if times.is_null(row) => Some("no_time"),
            () if source.received.as_ref().is_some_and(ahead) => Some("future"),
            () if failed[row] => Some("evaluation"),
            () => None,
        }
    });
    let lost: StringArray = lost.collect();
    if moments.is_some() {
        passed
            .iter_mut()
            .enumerate()
            .for_each(|(row, passed)| *passed &= times.is_valid(row) || !lost.is_null(row));
    }
    columns.push(Arc::new(BooleanArray::from(passed)));
    columns.push(Arc::new(lost));
    columns.extend(cells);
    RecordBatch::try_new(schema(metric), columns).map_err(AuditError::arrow)
}

/// The value of a fold, and whether the fold sees the row.
fn fold_columns(
    fold: &contracts::catalog::Fold,
    input: Option<&FoldInput>,
    batch: &RecordBatch,
    failed: &mut [bool],
) -> Result<(Option<ArrayRef>, ArrayRef), AuditError> {
    let rows = batch.num_rows();
    let ty = sql_type(&fold.input);
    let wanted = has_value(&fold.agg);
    let Some(input) = input else {
        let nothing: ArrayRef = Arc::new(BooleanArray::from(vec![false; rows]));
        return Ok((wanted.then(|| new_null_array(&ty, rows)), nothing));
    };
    let mut sees = vec![true; rows];
    if let Some(filter) = &input.filter {
        let (passed, broken) = holds(filter, batch)?;
        sees = passed;
        either(failed, &broken);
    }
    let mut value = None;
    if let Some(expr) = &input.value {
        let evaluated = evaluate(expr, batch)?;
        either(failed, &evaluated.failed);
        let there = is_not_null(&evaluated.values).map_err(AuditError::arrow)?;
        sees.iter_mut().zip(there.values()).for_each(|(sees, there)| *sees &= there);
        if wanted {
            value = Some(as_sql(&evaluated.values, &fold.input)?);
        }
    }
    let value = wanted.then(|| value.unwrap_or_else(|| new_null_array(&ty, rows)));
    Ok((value, Arc::new(BooleanArray::from(sees))))
}

/// From when and until when each row lasts; null where that cannot be said.
fn span_columns(input: Option<&FoldInput>, batch: &RecordBatch) -> Result<[ArrayRef; 2], AuditError> {
    let Some((start, end)) = input.and_then(|input| input.span.as_ref()) else {
        let nothing = new_null_array(&DataType::Int64, batch.num_rows());
        return Ok([Arc::clone(&nothing), nothing]);
    };
    let side = |typed| as_sql(&evaluate(typed, batch)?.values, &ValueType::Timestamp);
    Ok([side(start)?, side(end)?])
}

fn either(failed: &mut [bool], more: &[bool]) {
    failed.iter_mut().zip(more).for_each(|(failed, more)| *failed |= more);
}

fn as_sql(values: &ArrayRef, ty: &ValueType) -> Result<ArrayRef, AuditError> {
    let plain = match ty.arrow() {
        Some(exact) if exact != *values.data_type() => cast(values, &exact).map_err(AuditError::arrow)?,
        _ => Arc::clone(values),
    };
    cast(&plain, &sql_type(ty)).map_err(AuditError::arrow)
}

fn or_default(values: &ArrayRef, default: &Value, ty: &ValueType) -> Result<ArrayRef, AuditError> {
    if default.is_null() || values.null_count() == 0 {
        return Ok(Arc::clone(values));
    }
    let exact = ty.arrow().unwrap_or(DataType::Utf8);
    let one = to_arrow(std::slice::from_ref(default), &exact);
    let one = one.map_err(|error| AuditError::Inner(error.to_string()))?;
    let there = is_not_null(values).map_err(AuditError::arrow)?;
    zip(&there, values, &Scalar::new(as_sql(&one, ty)?)).map_err(AuditError::arrow)
}
