//! Measures from folds.
//!
//! *In*: the groups of an instant. *Out*: a measure's value in one group. *Never*: a value kept from another group.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use contracts::catalog::{Agg, Fold, MeasureKind, WindowKind};
use contracts::expr::Typed;
use contracts::value::{Value, ValueType, to_arrow};

use crate::aggs::{Folded, finish, quantile};
use crate::ask::AuditError;
use crate::eval::evaluate;
use crate::numbers::{NANO, exact_sum, ratio, typed};
use crate::stages::Work;
use crate::window;

/// The measures of one group.
pub(crate) struct Measures<'w, 'a> {
    work: &'w mut Work<'a>,
    key: Vec<Value>,
    split: bool,
    window: usize,
}

impl<'w, 'a> Measures<'w, 'a> {
    pub(crate) fn new(work: &'w mut Work<'a>, key: &[Value], split: bool) -> Self {
        let window = work.question.window;
        Self { work, key: key.to_vec(), split, window }
    }

    /// The value of a measure as of an instant.
    pub(crate) fn value(&mut self, measure: usize, as_of: i64) -> Result<Value, AuditError> {
        let contract = &self.work.metric.measures[measure];
        let raw = match &contract.kind {
            MeasureKind::Fold(fold) => self.folded(*fold, as_of)?,
            MeasureKind::Ratio(a, b) => ratio(&self.value(*a, as_of)?, &self.value(*b, as_of)?, &contract.ty),
            MeasureKind::Expr { expr, inputs } => {
                let inputs = inputs.iter().map(|input| self.value(*input, as_of));
                let mut values = inputs.collect::<Result<Vec<_>, _>>()?;
                // The last column is what `as_of()` means.
                values.push(Value::Timestamp(as_of));
                expression(expr, &values)?
            }
            kind @ MeasureKind::Over { .. } => self.over(kind, as_of)?,
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

    /// The values of a measure in the last windows of a kind, folded. The running window is the first of them where
    /// it counts; a window that ends before the group's first row counts where `before: zero` says so.
    fn over(&mut self, kind: &MeasureKind, as_of: i64) -> Result<Value, AuditError> {
        let MeasureKind::Over { of, window, last, running, zeros, agg, input } = kind else {
            return Ok(Value::Null);
        };
        let extent = &self.work.metric.windows[*window].kind;
        let first = self.work.firsts(self.split)?.get(&self.key).copied();
        // A sliding window ends after the instant it is asked for at, and `all` never: there is one of them.
        let one = matches!(extent, WindowKind::Sliding { .. } | WindowKind::All);
        let mut span = window::span(extent, as_of)?.unwrap_or((i64::MIN, i64::MAX));
        if !one && !running && span.1 > as_of {
            span = window::span(extent, span.0)?.unwrap_or(span);
        }
        let mut values = Vec::new();
        for _ in 0..*last {
            let then = if one { as_of } else { span.1.min(as_of) };
            let then = if then == self.work.question.as_of { then } else { self.work.cut(then) };
            if self.work.moment(*window, then, self.split)?.is_none() {
                break;
            }
            let mut there =
                Measures { work: self.work, key: self.key.clone(), split: self.split, window: *window };
            let value = there.value(*of, then)?;
            if !value.is_null() && (*zeros || first.is_some_and(|first| first < span.1)) {
                values.push(value);
            }
            if one {
                break;
            }
            span = window::span(extent, span.0)?.unwrap_or(span);
        }
        Ok(fold_values(agg, input, values))
    }

    fn folded(&mut self, fold: usize, as_of: i64) -> Result<Value, AuditError> {
        let cut = if as_of == self.work.question.as_of { as_of } else { self.work.cut(as_of) };
        let Some(moment) = self.work.moment(self.window, cut, self.split)? else { return Ok(Value::Null) };
        let group = moment.groups.get(&self.key);
        let span = moment.span.or_else(|| group.and_then(|group| group.session));
        let covered = span.map(|(start, end)| end.min(moment.as_of) - start);
        let nothing = Folded::default();
        let folded = group.map_or(&nothing, |group| &group.folds[fold]);
        Ok(finish(&self.work.metric.folds[fold], folded, covered))
    }
}

/// What values come to.
fn fold_values(agg: &Agg, input: &ValueType, mut values: Vec<Value>) -> Value {
    let fold = Fold { agg: agg.clone(), input: input.clone() };
    values.sort();
    let n = values.len();
    let mut folded = Folded { n: n as i64, ..Folded::default() };
    let whole = |value: &Value| match value {
        Value::Int(v) | Value::Duration(v) | Value::Timestamp(v) => Some(i128::from(*v)),
        Value::Decimal(v, _) => Some(*v),
        _ => None,
    };
    match agg {
        Agg::Sum | Agg::Avg if n > 0 && *input == ValueType::Float => {
            folded.float = Some(exact_sum(values.iter().filter_map(Value::as_f64)));
        }
        Agg::Sum | Agg::Avg if n > 0 => folded.sum = values.iter().map(whole).sum(),
        Agg::Min => folded.value = values.first().cloned().unwrap_or_default(),
        Agg::Max => folded.value = values.last().cloned().unwrap_or_default(),
        _ => {}
    }
    if let (Some(nano), Some(last)) = (quantile(agg), n.checked_sub(1)) {
        let low = (i128::from(nano) * last as i128 / i128::from(NANO)) as usize;
        folded.value = values[low].clone();
        folded.high = values[(low + 1).min(last)].clone();
    }
    finish(&fold, &folded, None)
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
