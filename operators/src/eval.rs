//! Expressions over batches, row by row as far as mistakes go.
//!
//! *In*: a checked expression of a contract and a batch. *Out*: one column, and the rows that failed
//! with why. *Never*: one bad row that spoils a batch; arithmetic that wraps; a panic.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, concat, nullif};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Schema, SchemaRef};
use contracts::expr::Typed;
use contracts::guard::guarded;
use contracts::value::decimal;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, DataFusionError};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_physical_expr::expressions::BinaryExpr;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};

mod list;
#[cfg(test)]
mod tests;

/// A checked expression that has no physical plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{sql}` cannot be run: {message}")]
pub struct PlanError {
    /// The expression's text.
    pub sql: String,
    /// Why.
    pub message: String,
}

/// What became of a batch.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// One value per row, of [`Compiled::data_type`]; null in the rows of `errors`.
    pub values: ArrayRef,
    /// Rows that failed, ascending, each once, with why: division by zero, overflow, a cast that
    /// does not fit.
    pub errors: Vec<(usize, String)>,
}

/// An expression ready to run. Cheap to share between threads.
#[derive(Debug)]
pub struct Compiled {
    sql: String,
    expr: Arc<dyn PhysicalExpr>,
    /// The columns the expression reads, and nothing else.
    schema: SchemaRef,
    /// Per column of `schema`: where it comes from.
    inputs: Vec<Input>,
    lists: Vec<list::CompiledFold>,
    ty: DataType,
    /// Batch columns of the first batch's schema, per column of `schema`.
    matched: OnceLock<(SchemaRef, Vec<Option<usize>>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Batch,
    List(usize),
}

impl Compiled {
    /// Plans an expression.
    ///
    /// # Errors
    /// When DataFusion has no physical form for it; `compile` of contracts lets none through that
    /// we know of.
    pub fn new(typed: &Typed) -> Result<Self, PlanError> {
        let fail =
            |error: DataFusionError| PlanError { sql: typed.sql.clone(), message: error.strip_backtrace() };
        let used = typed.expr.column_refs();
        let base = typed.schema.fields().len() - typed.lists.len();
        let (mut fields, mut inputs, mut folds) = (Vec::new(), Vec::new(), Vec::new());
        for (index, field) in typed.schema.fields().iter().enumerate() {
            if !used.contains(&Column::new_unqualified(field.name())) {
                continue;
            }
            fields.push(field.as_ref().clone().with_nullable(true));
            match index.checked_sub(base) {
                Some(fold) => {
                    inputs.push(Input::List(folds.len()));
                    let ty = field.data_type().clone();
                    folds.push(list::CompiledFold::new(&typed.lists[fold], ty)?);
                }
                None => inputs.push(Input::Batch),
            }
        }
        let schema = Arc::new(Schema::new(fields));
        let df_schema = DFSchema::try_from(schema.as_ref().clone()).map_err(fail)?;
        let expr = create_physical_expr(&typed.expr, &df_schema, &ExecutionProps::new());
        let expr = expr.and_then(checked).map_err(fail)?;
        let ty = expr.data_type(&schema).map_err(fail)?;
        let sql = typed.sql.clone();
        Ok(Self { sql, expr, schema, inputs, lists: folds, ty, matched: OnceLock::new() })
    }

    /// The text it was compiled from.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Type of the evaluated column.
    pub fn data_type(&self) -> &DataType {
        &self.ty
    }

    /// Evaluates every row of `batch`, whose columns are found by name; it may have more than the
    /// expression needs. A column of another type than planned is cast, one that is absent makes
    /// every row an error.
    pub fn evaluate(&self, batch: &RecordBatch) -> Evaluated {
        let (input, mut errors) = match self.input(batch) {
            Ok(input) => input,
            Err(message) => return self.all_failed(batch.num_rows(), &message),
        };
        let mut values = match self.run(&input) {
            Ok(values) => values,
            Err(_) => self.isolate(&input, &mut errors),
        };
        errors.extend(out_of_range(&values));
        if !errors.is_empty() {
            errors.sort_by_key(|(row, _)| *row);
            errors.dedup_by_key(|(row, _)| *row);
            values = without(&values, &errors);
        }
        Evaluated { values, errors }
    }

    /// [`Compiled::evaluate`] of a condition: null in the rows that failed.
    ///
    /// An expression that is no condition fails in every row.
    pub fn evaluate_bool(&self, batch: &RecordBatch) -> (BooleanArray, Vec<(usize, String)>) {
        let evaluated = self.evaluate(batch);
        match evaluated.values.as_boolean_opt() {
            Some(values) => (values.clone(), evaluated.errors),
            None => {
                let failed = self.all_failed(batch.num_rows(), "not a condition");
                (BooleanArray::new_null(batch.num_rows()), failed.errors)
            }
        }
    }

    fn all_failed(&self, rows: usize, message: &str) -> Evaluated {
        let errors = (0..rows).map(|row| (row, message.to_owned())).collect();
        Evaluated { values: new_null_array(&self.ty, rows), errors }
    }

    /// The columns the expression reads, list folds computed, and the rows whose folds failed.
    fn input(&self, batch: &RecordBatch) -> Result<(RecordBatch, Vec<(usize, String)>), String> {
        let mut errors = Vec::new();
        let mut columns = Vec::with_capacity(self.inputs.len());
        let first = self.matched.get_or_init(|| (batch.schema(), self.match_columns(batch)));
        let same = Arc::ptr_eq(&first.0, batch.schema_ref()) || first.0 == batch.schema();
        let fresh = (!same).then(|| self.match_columns(batch));
        let matched = fresh.as_ref().unwrap_or(&first.1);
        for (index, field) in self.schema.fields().iter().enumerate() {
            columns.push(match self.inputs[index] {
                Input::List(fold) => self.lists[fold].evaluate(batch, &mut errors)?,
                Input::Batch => {
                    let missing = || format!("the batch has no column `{}`", field.name());
                    let column = batch.column(matched[index].ok_or_else(missing)?);
                    if column.data_type() == field.data_type() {
                        Arc::clone(column)
                    } else {
                        cast(column, field.data_type()).map_err(|error| error.to_string())?
                    }
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map(|input| (input, errors))
            .map_err(|error| error.to_string())
    }

    fn match_columns(&self, batch: &RecordBatch) -> Vec<Option<usize>> {
        let fields = self.schema.fields().iter();
        fields.map(|field| batch.schema_ref().index_of(field.name()).ok()).collect()
    }

    /// The whole batch at once.
    fn run(&self, input: &RecordBatch) -> Result<ArrayRef, String> {
        let rows = input.num_rows();
        // DataFusion's functions should not panic; if one does, it is a bad row, not a dead worker.
        match guarded(|| self.expr.evaluate(input).and_then(|values| values.into_array(rows))) {
            Ok(Ok(values)) => Ok(values),
            Ok(Err(error)) => Err(reason(&error)),
            Err(_) => Err("the function broke on this value".to_owned()),
        }
    }

    /// Halves a failing batch until only the bad rows are left, which become null.
    ///
    /// Right for short-circuit AND, OR and CASE too: a row that evaluates alone also evaluates in
    /// any half that does not fail.
    fn isolate(&self, input: &RecordBatch, errors: &mut Vec<(usize, String)>) -> ArrayRef {
        let mut parts: Vec<ArrayRef> = Vec::new();
        // Depth first, left half on top, so that the parts come in row order.
        let mut pending = vec![(0, input.num_rows())];
        while let Some((start, length)) = pending.pop() {
            match self.run(&input.slice(start, length)) {
                Ok(values) => parts.push(values),
                Err(message) if length <= 1 => {
                    errors.push((start, message));
                    parts.push(new_null_array(&self.ty, length));
                }
                Err(_) => {
                    let half = length / 2;
                    pending.push((start + half, length - half));
                    pending.push((start, half));
                }
            }
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        match concat(&parts) {
            Ok(values) => values,
            Err(error) => {
                let rows = input.num_rows();
                errors.extend((0..rows).map(|row| (row, error.to_string())));
                new_null_array(&self.ty, rows)
            }
        }
    }
}

/// Integer arithmetic that fails instead of wrapping.
fn checked(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let done = expr.transform_up(|node| match node.as_any().downcast_ref::<BinaryExpr>() {
        Some(binary) => {
            let binary = binary.clone().with_fail_on_overflow(true);
            Ok(Transformed::yes(Arc::new(binary) as Arc<dyn PhysicalExpr>))
        }
        None => Ok(Transformed::no(node)),
    })?;
    Ok(done.data)
}

/// Results that no answer can carry: floats that are not finite (a division by zero), decimals of
/// more than 38 digits (Arrow checks 128 bits only).
fn out_of_range(values: &ArrayRef) -> Vec<(usize, String)> {
    let valid = |row: &usize| values.is_valid(*row);
    match values.data_type() {
        DataType::Float64 => {
            let floats = values.as_primitive::<Float64Type>().values();
            if floats.iter().all(|value| value.is_finite()) {
                return Vec::new();
            }
            let bad = (0..floats.len()).filter(valid).filter(|row| !floats[*row].is_finite());
            bad.map(|row| (row, "the result is not a finite number".to_owned())).collect()
        }
        DataType::Decimal128(decimal::MAX_DIGITS, _) => {
            let limit = decimal::pow10(u32::from(decimal::MAX_DIGITS)).unwrap_or(i128::MAX).unsigned_abs();
            let decimals = values.as_primitive::<Decimal128Type>().values();
            if decimals.iter().all(|value| value.unsigned_abs() < limit) {
                return Vec::new();
            }
            let bad = (0..decimals.len()).filter(valid).filter(|row| decimals[*row].unsigned_abs() >= limit);
            bad.map(|row| (row, "overflow: the result has more than 38 digits".to_owned())).collect()
        }
        _ => Vec::new(),
    }
}

/// `values` with the failed rows null.
fn without(values: &ArrayRef, errors: &[(usize, String)]) -> ArrayRef {
    let mut failed = vec![false; values.len()];
    for (row, _) in errors {
        failed[*row] = true;
    }
    match nullif(values, &BooleanArray::from(failed.clone())) {
        Ok(values) => values,
        // Types that `nullif` does not take: rebuild with fewer valid rows.
        Err(_) => {
            let kept: NullBuffer = failed.iter().map(|failed| !failed).collect();
            let nulls = NullBuffer::union(values.nulls(), Some(&kept));
            match values.to_data().into_builder().nulls(nulls).build() {
                Ok(data) => arrow::array::make_array(data),
                Err(_) => new_null_array(values.data_type(), values.len()),
            }
        }
    }
}

/// DataFusion's reason without its wrapping.
fn reason(error: &DataFusionError) -> String {
    let text = error.find_root().strip_backtrace();
    let prefixes =
        ["Arrow error: ", "Cast error: ", "Execution error: ", "Compute error: ", "Arithmetic overflow: "];
    let text = prefixes.iter().fold(text.as_str(), |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
    match text {
        text if text.starts_with("Divide by zero") => "division by zero".to_owned(),
        text if text.starts_with("Overflow happened on") => {
            format!("overflow: {}", text.trim_start_matches("Overflow happened on: "))
        }
        text => text.lines().next().unwrap_or_default().to_owned(),
    }
}
