//! `sum_of(items, quantity * unit_price)` and its siblings, row by row.
//!
//! *In*: a list function, a batch. *Out*: one value per row. *Never*: an item of another row.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use contracts::expr::{ListAgg, ListFold};
use contracts::value::{Value, decimal, to_arrow};

use super::evaluate;
use crate::ask::AuditError;

/// The column of one list function.
pub(super) fn fold(
    fold: &ListFold,
    ty: &DataType,
    batch: &RecordBatch,
    failed: &mut [bool],
) -> Result<ArrayRef, AuditError> {
    let mut cells = Vec::with_capacity(batch.num_rows());
    for (row, failed) in failed.iter_mut().enumerate() {
        let cell = match items(fold, batch, row) {
            Some(items) => of_items(fold, ty, &items)?,
            None => over(fold.fold, ty, &[]),
        };
        *failed |= cell.is_none();
        cells.push(cell.unwrap_or(Value::Null));
    }
    to_arrow(&cells, ty).map_err(|error| AuditError::Inner(error.to_string()))
}

/// The items of one row; `None`: it has no list.
fn items(fold: &ListFold, batch: &RecordBatch, row: usize) -> Option<ArrayRef> {
    let mut column = Arc::clone(batch.column_by_name(&fold.list)?);
    for name in &fold.path {
        if column.is_null(row) {
            return None;
        }
        column = Arc::clone(column.as_struct_opt()?.column_by_name(name)?);
    }
    let lists = column.as_list_opt::<i32>()?;
    lists.is_valid(row).then(|| lists.value(row))
}

/// `None`: it has no value, an item fails or the sum overflows.
fn of_items(fold: &ListFold, ty: &DataType, items: &ArrayRef) -> Result<Option<Value>, AuditError> {
    let values = match &fold.item {
        Some(item) => {
            let evaluated = evaluate(item, &batch_of(items)?)?;
            if (0..items.len()).any(|item| evaluated.failed[item] && items.is_valid(item)) {
                return Ok(None);
            }
            evaluated.values
        }
        None => Arc::clone(items),
    };
    let valid = (0..values.len()).filter(|row| values.is_valid(*row) && items.is_valid(*row));
    let values: Vec<Value> = match &fold.item {
        // Only `count_of(list)` goes without: every item counts.
        None => valid.map(|_| Value::Bool(true)).collect(),
        Some(_) => valid.map(|row| Value::from_arrow(values.as_ref(), row)).collect(),
    };
    Ok(over(fold.fold, ty, &values))
}

/// Items as rows: one column per field, or the one column `item`.
fn batch_of(items: &ArrayRef) -> Result<RecordBatch, AuditError> {
    let options = RecordBatchOptions::new().with_row_count(Some(items.len()));
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = match items.as_struct_opt() {
        Some(items) => {
            let fields = items.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
            let whole = |column: &ArrayRef| mask(column, items);
            (fields.collect(), items.columns().iter().map(whole).collect())
        }
        None => (vec![Field::new("item", items.data_type().clone(), true)], vec![Arc::clone(items)]),
    };
    let schema = Arc::new(Schema::new(fields));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(AuditError::arrow)
}

/// A field of an item that is null is null.
fn mask(column: &ArrayRef, items: &arrow::array::StructArray) -> ArrayRef {
    let gone = arrow::compute::is_null(items).ok();
    let masked = gone.and_then(|gone| arrow::compute::nullif(column, &gone).ok());
    masked.unwrap_or_else(|| Arc::clone(column))
}

fn over(fold: ListAgg, ty: &DataType, values: &[Value]) -> Option<Value> {
    let is_true = |value: &Value| *value == Value::Bool(true);
    let quantified = |holds: bool| if values.is_empty() { Value::Null } else { Value::Bool(holds) };
    Some(match fold {
        ListAgg::Count => Value::Int(values.iter().filter(|value| is_true(value)).count() as i64),
        ListAgg::Min => values.iter().min().cloned().unwrap_or(Value::Null),
        ListAgg::Max => values.iter().max().cloned().unwrap_or(Value::Null),
        ListAgg::Distinct if values.is_empty() => Value::Null,
        ListAgg::Distinct => Value::Int(values.iter().collect::<BTreeSet<_>>().len() as i64),
        ListAgg::Any => quantified(values.iter().any(is_true)),
        ListAgg::All => quantified(values.iter().all(is_true)),
        ListAgg::Sum => total(ty, values)?,
        ListAgg::Avg if values.is_empty() => Value::Null,
        ListAgg::Avg => mean(ty, values)?,
    })
}

fn total(ty: &DataType, values: &[Value]) -> Option<Value> {
    Some(match ty {
        DataType::Float64 => Value::Float(values.iter().filter_map(Value::as_f64).sum()),
        DataType::Decimal128(precision, scale) => {
            let sum = whole(values)?;
            Value::Decimal(decimal::fits(sum, *precision).then_some(sum)?, *scale)
        }
        DataType::Duration(_) => Value::Duration(i64::try_from(whole(values)?).ok()?),
        _ => Value::Int(i64::try_from(whole(values)?).ok()?),
    })
}

fn mean(ty: &DataType, values: &[Value]) -> Option<Value> {
    let count = values.len() as i128;
    Some(match (ty, values.first()) {
        (DataType::Decimal128(_, scale), _) => {
            Value::Decimal(crate::numbers::divide(whole(values)?, count)?, *scale)
        }
        (DataType::Float64, Some(Value::Int(_))) => Value::Float(whole(values)? as f64 / count as f64),
        (DataType::Float64, _) => {
            Value::Float(values.iter().filter_map(Value::as_f64).sum::<f64>() / count as f64)
        }
        _ => Value::Duration(i64::try_from(crate::numbers::divide(whole(values)?, count)?).ok()?),
    })
}

/// The exact sum of integers, decimals (unscaled) or microseconds.
fn whole(values: &[Value]) -> Option<i128> {
    values.iter().try_fold(0i128, |sum, value| match value {
        Value::Int(v) | Value::Duration(v) => sum.checked_add(i128::from(*v)),
        Value::Decimal(v, _) => sum.checked_add(*v),
        _ => None,
    })
}
