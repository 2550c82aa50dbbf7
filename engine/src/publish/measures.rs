//! From accumulators to the cells of an answer.
//!
//! *In*: one sum per group. *Out*: one value per group and measure. *Never*: a measure computed from rounded
//! values where exact ones exist; rounding is the last step.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use contracts::catalog::{MeasureKind, Metric};
use contracts::expr::Typed;
use contracts::value::{Value, ValueType, to_arrow};
use num_bigint::BigInt;
use num_traits::{ToPrimitive, Zero};
use operators::eval::Compiled;
use operators::fold::acc::{FoldSpec, Update};
use operators::fold::panes::Pane;
use operators::fold::window::{Bounds, Extent};

use super::cells::{Gathered, Group};
use crate::plan::AnswerPlan;
use operators::fold::plan::MetricPlan;

/// Where sums are found.
pub(super) trait Find {
    /// The sums of a window as of an instant, and that instant on the grid; `None`: not kept any more.
    fn find(&self, window: usize, as_of: i64) -> Option<(i64, Gathered)>;
    /// The first instant of each group in the retained history.
    fn firsts(&self) -> BTreeMap<Vec<Value>, i64>;
}

/// Computes measures for the groups of one answer.
pub(super) struct Measures<'a> {
    pub(super) plan: &'a MetricPlan,
    pub(super) answers: &'a AnswerPlan,
    pub(super) found: &'a dyn Find,
    /// The question's window and instant.
    pub(super) window: usize,
    pub(super) as_of: i64,
    /// Groups, in order.
    pub(super) keys: Vec<Vec<Value>>,
    /// Sums by how far the instant was moved back.
    pub(super) moments: BTreeMap<i64, Option<(i64, Gathered)>>,
    pub(super) done: BTreeMap<(usize, i64), Arc<Vec<Value>>>,
}

impl<'a> Measures<'a> {
    /// Prepares for the groups of `gathered`, answered as of `as_of`.
    pub(super) fn new(
        plan: &'a MetricPlan,
        answers: &'a AnswerPlan,
        found: &'a dyn Find,
        (window, as_of): (usize, i64),
        gathered: Gathered,
    ) -> Self {
        Self {
            plan,
            answers,
            found,
            window,
            as_of,
            keys: gathered.groups.keys().cloned().collect(),
            moments: BTreeMap::from([(0, Some((as_of, gathered)))]),
            done: BTreeMap::new(),
        }
    }

    fn metric(&self) -> &'a Metric {
        &self.plan.metric
    }

    /// The group's session, where the window is one.
    pub(super) fn session(&self, key: &[Value]) -> Option<(i64, i64)> {
        let (_, gathered) = self.moments.get(&0)?.as_ref()?;
        gathered.groups.get(key)?.session
    }

    /// The values of a measure, one per group, at the instant moved back by `back`.
    pub(super) fn values(&mut self, measure: usize, back: i64) -> Arc<Vec<Value>> {
        if let Some(done) = self.done.get(&(measure, back)) {
            return Arc::clone(done);
        }
        let contract = &self.metric().measures[measure];
        let raw = match &contract.kind {
            MeasureKind::Fold(fold) => self.folded(*fold, back),
            MeasureKind::Ratio(num, den) => {
                let (nums, dens) = (self.values(*num, back), self.values(*den, back));
                nums.iter().zip(dens.iter()).map(|(a, b)| ratio(a, b, &contract.ty)).collect()
            }
            MeasureKind::Expr { expr, inputs } => self.expression(measure, expr, inputs, back),
            MeasureKind::Shift { of, by } => self.values(*of, back + by).to_vec(),
            MeasureKind::Over { .. } => self.over(&contract.kind, back),
        };
        let finish = |value: Value| match coerce(value, &contract.ty) {
            Value::Null => coerce(contract.empty.clone(), &contract.ty),
            value => value,
        };
        let values = Arc::new(raw.into_iter().map(finish).collect::<Vec<_>>());
        self.done.insert((measure, back), Arc::clone(&values));
        values
    }

    fn folded(&mut self, fold: usize, back: i64) -> Vec<Value> {
        let (found, window, then) = (self.found, self.window, self.as_of.saturating_sub(back));
        let moment = self.moments.entry(back).or_insert_with(|| found.find(window, then));
        let spec = &self.plan.specs[fold];
        let Some((as_of, gathered)) = moment else { return vec![Value::Null; self.keys.len()] };
        let empty = Pane::zero(&self.plan.specs);
        let value = |key: &Vec<Value>| {
            let group = gathered.groups.get(key);
            let sum = group.map_or(&empty, |group| &group.sum);
            if spec.agg.is_span() {
                let (start, end) = extent(gathered, *as_of);
                let lasting = group.map(|group| group.lasting.clone()).unwrap_or_default();
                return lasting.finish(&spec.agg, fold, start, end);
            }
            spec.finish(&sum.accs[fold], covered(gathered, group, *as_of))
        };
        self.keys.iter().map(value).collect()
    }

    /// The values of a measure in the last windows of a kind, folded.
    fn over(&mut self, kind: &MeasureKind, back: i64) -> Vec<Value> {
        let MeasureKind::Over { of, window, last, running, zeros, agg, input } = kind else {
            return Vec::new();
        };
        let as_of = self.as_of.saturating_sub(back);
        let firsts = self.found.firsts();
        let spec = FoldSpec { agg: agg.clone(), input: input.clone(), retracts: false };
        let mut accs = vec![spec.zero(); self.keys.len()];
        let extent = &self.plan.extents[*window];
        let mut at = extent.at(as_of);
        // A sliding window ends after the instant it is asked for at, and `all` never.
        let follows = !matches!(extent, Extent::Sliding(..) | Extent::All);
        if follows && !running {
            at = at.and_then(|at| if at.end <= as_of { Some(at) } else { extent.at(at.start) });
        }
        for _ in 0..*last {
            let Some(bounds) = at else { break };
            let then = if follows { bounds.end.min(as_of) } else { as_of };
            let Some((then, gathered)) = self.found.find(*window, then) else { break };
            let mut then = Self::new(self.plan, self.answers, self.found, (*window, then), gathered);
            then.keys.clone_from(&self.keys);
            for ((value, key), acc) in then.values(*of, 0).iter().zip(&self.keys).zip(&mut accs) {
                let begun = *zeros || firsts.get(key).is_some_and(|first| *first < bounds.end);
                if begun && !value.is_null() {
                    let row = Update { value: Some(value), weight: 1, time: bounds.start, id: None };
                    // What is not finite says nothing.
                    let _ = spec.update(acc, row);
                }
            }
            at = extent.at(bounds.start);
        }
        accs.iter().map(|acc| spec.finish(acc, None)).collect()
    }

    fn expression(&mut self, measure: usize, expr: &Typed, inputs: &[usize], back: i64) -> Vec<Value> {
        let mut columns = inputs.iter().map(|input| self.values(*input, back)).collect::<Vec<_>>();
        let as_of = Value::Timestamp(self.as_of.saturating_sub(back));
        columns.push(Arc::new(vec![as_of; self.keys.len()]));
        match &self.answers.exprs[measure] {
            Some(compiled) => evaluate(compiled, expr, &columns, self.keys.len()),
            None => vec![Value::Null; self.keys.len()],
        }
    }

    /// The first level that holds for the first group.
    pub(super) fn level(&mut self) -> Option<String> {
        for (index, level) in self.metric().levels.iter().enumerate() {
            let columns: Vec<_> = level.inputs.iter().map(|input| self.values(*input, 0)).collect();
            let holds = evaluate(&self.answers.levels[index], &level.when, &columns, self.keys.len());
            if holds.first() == Some(&Value::Bool(true)) {
                return Some(level.name.clone());
            }
        }
        None
    }
}

/// Where the window starts, if it does, and where the answer ends.
fn extent(gathered: &Gathered, as_of: i64) -> (Option<i64>, i64) {
    let bounds = gathered.bounds.unwrap_or(Bounds { start: i64::MIN, end: i64::MAX });
    bounds.extent(as_of)
}

/// Microseconds from the start of the window to where the answer ends.
fn covered(gathered: &Gathered, group: Option<&Group>, as_of: i64) -> Option<i64> {
    let (start, end) = match (gathered.bounds, group.and_then(|group| group.session)) {
        (Some(bounds), _) => (bounds.start, bounds.end),
        (None, session) => session?,
    };
    (start != i64::MIN).then(|| end.min(as_of) - start)
}

/// An expression over measure values; a row that fails (division by zero) says nothing.
fn evaluate(compiled: &Compiled, typed: &Typed, columns: &[Arc<Vec<Value>>], rows: usize) -> Vec<Value> {
    let fields = typed.schema.fields();
    let arrays: Option<Vec<ArrayRef>> =
        fields.iter().zip(columns).map(|(field, values)| to_arrow(values, field.data_type()).ok()).collect();
    let nothing = || vec![Value::Null; rows];
    let Some(arrays) = arrays else { return nothing() };
    let fields: Vec<Arc<Field>> = fields.iter().take(arrays.len()).cloned().collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let schema = Arc::new(Schema::new(fields));
    let Ok(batch) = RecordBatch::try_new_with_options(schema, arrays, &options) else {
        return nothing();
    };
    let evaluated = compiled.evaluate(&batch);
    let value = |row| match Value::from_arrow(evaluated.values.as_ref(), row) {
        // Float division by zero gives no error but no number either.
        Value::Float(v) if !v.is_finite() => Value::Null,
        value => value,
    };
    (0..rows).map(value).collect()
}

/// `a / b`: exact for integers and decimals, null when there is nothing to divide (by).
fn ratio(a: &Value, b: &Value, ty: &ValueType) -> Value {
    if let (ValueType::Decimal { scale, .. }, Some((a, sa)), Some((b, sb))) = (ty, exact(a), exact(b)) {
        return exact_ratio((a, sa), (b, sb), *scale);
    }
    match (a.as_f64(), b.as_f64()) {
        (_, Some(0.0)) => Value::Null,
        (Some(a), Some(b)) => Value::Float(a / b),
        _ => Value::Null,
    }
}

/// Unscaled value and scale.
fn exact(value: &Value) -> Option<(i128, i8)> {
    match value {
        Value::Int(v) => Some((i128::from(*v), 0)),
        Value::Decimal(v, scale) => Some((*v, *scale)),
        _ => None,
    }
}

fn exact_ratio((a, sa): (i128, i8), (b, sb): (i128, i8), scale: i8) -> Value {
    let ten = |power: i32| BigInt::from(10).pow(power.max(0).unsigned_abs());
    let shift = i32::from(scale) + i32::from(sb) - i32::from(sa);
    let (num, den) = (BigInt::from(a) * ten(shift), BigInt::from(b) * ten(-shift));
    if den.is_zero() {
        return Value::Null;
    }
    let (two_num, two_den) = (&num * 2, &den * 2);
    // Half away from zero: add half of the divisor with the sign of the quotient, then cut.
    let negative = (num < BigInt::zero()) != (den < BigInt::zero());
    let half = if negative { -&den } else { den };
    let quotient: BigInt = (two_num + half) / two_den;
    quotient.to_i128().map_or(Value::Null, |v| Value::Decimal(v, scale))
}

/// A value as the measure's type; null where it does not fit.
pub(super) fn coerce(value: Value, ty: &ValueType) -> Value {
    match (ty, value) {
        (ValueType::Decimal { scale, .. }, Value::Decimal(v, from)) if *scale == from => {
            Value::Decimal(v, from)
        }
        (ValueType::Decimal { scale, .. }, Value::Float(v)) => {
            let scaled = (v * 10f64.powi(i32::from(*scale))).round();
            scaled.to_i128().map_or(Value::Null, |v| Value::Decimal(v, *scale))
        }
        (ValueType::Decimal { scale, .. }, value) => {
            exact(&value).map_or(Value::Null, |number| exact_ratio(number, (1, 0), *scale))
        }
        (ValueType::Float, value @ (Value::Int(_) | Value::Decimal(..))) => {
            value.as_f64().map_or(Value::Null, Value::Float)
        }
        (ValueType::Int, Value::Decimal(v, scale)) => {
            let whole = exact_ratio((v, scale), (1, 0), 0);
            match whole {
                Value::Decimal(v, _) => i64::try_from(v).map_or(Value::Null, Value::Int),
                _ => Value::Null,
            }
        }
        (ValueType::Int, Value::Float(v)) => v.round().to_i64().map_or(Value::Null, Value::Int),
        (ValueType::Duration, Value::Int(v)) => Value::Duration(v),
        (_, value) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios() {
        let money = ValueType::Decimal { precision: 18, scale: 2 };
        let d = |v| Value::Decimal(v, 2);
        assert_eq!(ratio(&d(11000), &Value::Int(1), &money), d(11000));
        assert_eq!(ratio(&d(10000), &Value::Int(3), &money), d(3333));
        assert_eq!(ratio(&d(-1), &Value::Int(2), &money), d(-1));
        assert_eq!(ratio(&d(5), &Value::Int(0), &money), Value::Null);
        assert_eq!(ratio(&Value::Int(1), &Value::Int(4), &ValueType::Float), Value::Float(0.25));
        let six = ValueType::Decimal { precision: 38, scale: 6 };
        assert_eq!(ratio(&d(100), &d(300), &six), Value::Decimal(333_333, 6));
    }
}
