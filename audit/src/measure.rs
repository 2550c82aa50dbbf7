//! Measures from folds.
//!
//! *In*: the groups of an instant. *Out*: a measure's value in one group. *Never*: a value kept from another group.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use contracts::catalog::MeasureKind;
use contracts::expr::Typed;
use contracts::value::{Value, to_arrow};

use crate::aggs::{Folded, finish};
use crate::ask::AuditError;
use crate::eval::evaluate;
use crate::numbers::{ratio, typed};
use crate::stages::Work;

/// The measures of one group.
pub(crate) struct Measures<'w, 'a> {
    work: &'w mut Work<'a>,
    key: Vec<Value>,
    split: bool,
}

impl<'w, 'a> Measures<'w, 'a> {
    pub(crate) fn new(work: &'w mut Work<'a>, key: &[Value], split: bool) -> Self {
        Self { work, key: key.to_vec(), split }
    }

    /// The value of a measure as of an instant.
    pub(crate) fn value(&mut self, measure: usize, as_of: i64) -> Result<Value, AuditError> {
        let contract = &self.work.metric.measures[measure];
        let raw = match &contract.kind {
            MeasureKind::Fold(fold) => self.folded(*fold, as_of)?,
            MeasureKind::Ratio(a, b) => ratio(&self.value(*a, as_of)?, &self.value(*b, as_of)?, &contract.ty),
            MeasureKind::Expr { expr, inputs } => {
                let inputs = inputs.iter().map(|input| self.value(*input, as_of));
                expression(expr, &inputs.collect::<Result<Vec<_>, _>>()?)?
            }
            MeasureKind::Over { .. } => Value::Null, // see `covered`
            MeasureKind::Shift { of, by } => {
                let of = *of;
                // Shifts add up before they are cut to what is kept.
                let back = as_of.saturating_sub(*by);
                self.value(of, back)?
            }
        };
        Ok(match typed(raw, &contract.ty) {
            Value::Null => typed(contract.empty.clone(), &contract.ty),
            value => value,
        })
    }

    fn folded(&mut self, fold: usize, as_of: i64) -> Result<Value, AuditError> {
        let cut = if as_of == self.work.question.as_of { as_of } else { self.work.cut(as_of) };
        let Some(moment) = self.work.moment(cut, self.split)? else { return Ok(Value::Null) };
        let group = moment.groups.get(&self.key);
        let span = moment.span.or_else(|| group.and_then(|group| group.session));
        let covered = span.map(|(start, end)| end.min(moment.as_of) - start);
        let nothing = Folded::default();
        let folded = group.map_or(&nothing, |group| &group.folds[fold]);
        Ok(finish(&self.work.metric.folds[fold], folded, covered))
    }
}

/// An expression over measures; one that fails has nothing to say.
fn expression(expr: &Typed, inputs: &[Value]) -> Result<Value, AuditError> {
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut fields: Vec<Arc<Field>> = Vec::new();
    for (field, value) in expr.schema.fields().iter().zip(inputs) {
        let Ok(column) = to_arrow(std::slice::from_ref(value), field.data_type()) else {
            return Ok(Value::Null);
        };
        columns.push(column);
        fields.push(Arc::clone(field));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new_with_options(schema, columns, &options).map_err(AuditError::arrow)?;
    let evaluated = evaluate(expr, &batch)?;
    Ok(Value::from_arrow(evaluated.values.as_ref(), 0))
}
