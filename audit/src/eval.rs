//! Expressions of contracts over batches of events.
//!
//! *In*: a checked expression, a batch. *Out*: a column, and which rows failed. *Never*: one bad row that spoils the
//! others: a batch that fails is asked again row by row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Schema, SchemaRef};
use contracts::expr::Typed;
use contracts::guard::guarded;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::expressions::BinaryExpr;

use crate::ask::AuditError;

mod list;

/// A column, and the rows for which the expression has no value: a division by zero, an overflow.
#[derive(Debug)]
pub(crate) struct Evaluated {
    /// Null in the rows that failed.
    pub(crate) values: ArrayRef,
    /// One per row.
    pub(crate) failed: Vec<bool>,
}

/// Evaluates `typed` over every row of `batch`.
pub(crate) fn evaluate(typed: &Typed, batch: &RecordBatch) -> Result<Evaluated, AuditError> {
    let rows = batch.num_rows();
    let mut failed = vec![false; rows];
    let input = input(typed, batch, &mut failed)?;
    let plan = plan(typed, input.schema()).map_err(|error| AuditError::sql(&typed.sql, &error))?;
    let values = match run(&plan, &input) {
        Some(values) => values,
        None => one_by_one(&plan, &input, &mut failed).map_err(|e| AuditError::Inner(e.to_string()))?,
    };
    for (row, failed) in failed.iter_mut().enumerate() {
        *failed |= values.is_valid(row) && !is_representable(&values, row);
    }
    Ok(Evaluated { values: without(&values, &failed), failed })
}

/// A condition: true, or not.
pub(crate) fn holds(typed: &Typed, batch: &RecordBatch) -> Result<(Vec<bool>, Vec<bool>), AuditError> {
    let Evaluated { values, failed } = evaluate(typed, batch)?;
    let values =
        values.as_boolean_opt().ok_or_else(|| AuditError::Inner(format!("{}: no condition", typed.sql)))?;
    let holds = (0..values.len()).map(|row| values.is_valid(row) && values.value(row));
    Ok((holds.collect(), failed))
}

/// The columns that the expression may name: those of the batch, then one per list function.
fn input(typed: &Typed, batch: &RecordBatch, failed: &mut [bool]) -> Result<RecordBatch, AuditError> {
    let base = typed.schema.fields().len() - typed.lists.len();
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (index, field) in typed.schema.fields().iter().enumerate() {
        let column = match index.checked_sub(base) {
            Some(fold) => list::fold(&typed.lists[fold], field.data_type(), batch, failed)?,
            None => match batch.column_by_name(field.name()) {
                Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
                Some(column) => cast(column, field.data_type()).map_err(AuditError::arrow)?,
                None => new_null_array(field.data_type(), batch.num_rows()),
            },
        };
        fields.push(field.as_ref().clone().with_nullable(true));
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let schema = Arc::new(Schema::new(fields));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(AuditError::arrow)
}

fn plan(typed: &Typed, schema: SchemaRef) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let schema = DFSchema::try_from(schema.as_ref().clone())?;
    let expr = create_physical_expr(&typed.expr, &schema, &ExecutionProps::new())?;
    // Contracts promise that arithmetic fails and does not wrap.
    let strict = expr.transform_up(|node| match node.as_any().downcast_ref::<BinaryExpr>() {
        Some(binary) => {
            let strict: Arc<dyn PhysicalExpr> = Arc::new(binary.clone().with_fail_on_overflow(true));
            Ok(Transformed::yes(strict))
        }
        None => Ok(Transformed::no(node)),
    })?;
    Ok(strict.data)
}

/// `None`: a row fails, or breaks the function.
fn run(plan: &Arc<dyn PhysicalExpr>, input: &RecordBatch) -> Option<ArrayRef> {
    let rows = input.num_rows();
    let run = || plan.evaluate(input).and_then(|values| values.into_array(rows));
    guarded(run).ok()?.ok()
}

fn one_by_one(
    plan: &Arc<dyn PhysicalExpr>,
    input: &RecordBatch,
    failed: &mut [bool],
) -> Result<ArrayRef, DataFusionError> {
    let ty = plan.data_type(input.schema_ref())?;
    let mut parts: Vec<ArrayRef> = Vec::with_capacity(input.num_rows());
    for (row, failed) in failed.iter_mut().enumerate() {
        let value = run(plan, &input.slice(row, 1));
        *failed |= value.is_none();
        parts.push(value.unwrap_or_else(|| new_null_array(&ty, 1)));
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    if parts.is_empty() {
        return Ok(new_null_array(&ty, 0));
    }
    Ok(concat(&parts)?)
}

/// Floats that are finite, decimals of at most 38 digits.
fn is_representable(values: &ArrayRef, row: usize) -> bool {
    const DIGITS: u128 = 10u128.pow(38);
    match values.data_type() {
        DataType::Float64 => values.as_primitive::<Float64Type>().value(row).is_finite(),
        DataType::Decimal128(38, _) => {
            values.as_primitive::<Decimal128Type>().value(row).unsigned_abs() < DIGITS
        }
        _ => true,
    }
}

fn without(values: &ArrayRef, failed: &[bool]) -> ArrayRef {
    if !failed.contains(&true) {
        return Arc::clone(values);
    }
    let kept = BooleanArray::from(failed.iter().map(|failed| !failed).collect::<Vec<_>>());
    let nulls = new_null_array(values.data_type(), 1);
    let nothing = arrow::array::Scalar::new(nulls);
    // Both sides have one type, so `zip` has nothing to refuse.
    arrow::compute::kernels::zip::zip(&kept, values, &nothing).unwrap_or_else(|_| Arc::clone(values))
}
