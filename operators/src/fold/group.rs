//! Group: the rows of one batch become one change per key and pane, before anything travels.
//!
//! *In*: a batch of admitted rows (or entity rows with weights) and a feed's plan. *Out*: [`Delta`]s:
//! thousands of rows become at most a few hundred. *Never*: a row counted twice or dropped without a
//! reason in [`Lost`].

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::{HashMap, HashMapExt};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int32Type, TimestampMicrosecondType};
use contracts::catalog::Agg;
use contracts::value::{Value, ValueType};
use serde::{Deserialize, Serialize};

use super::acc::{Acc, FoldSpec, Update};
use super::edges::Edges;
use super::panes::{Key, Pane};
use super::plan::{FeedPlan, MetricPlan};
use super::wide::Wide;

mod spans;

/// Rows that a metric did not count, by reason.
pub type Lost = BTreeMap<&'static str, u64>;

/// The change of one key's pane.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delta {
    /// The group.
    pub key: Key,
    /// Pane number: event time divided by the metric's step.
    pub pane: i64,
    /// What the rows add up to.
    pub change: Pane,
    /// Beginnings and ends of rows that last; then `change` is of no rows.
    pub edges: Option<Edges>,
    /// Of rows that last: their times, weighed. `pane` is that of their last end, `i64::MAX` while they last.
    pub lasting: Option<Arc<[(i64, i64)]>>,
    /// The instant of the rows or edges, where it may be ahead of the clock: they wait for it.
    pub at: i64,
}

/// The rows of one batch, as a feed sees them.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The columns.
    pub batch: &'a RecordBatch,
    /// When each row was received; `None` for entity rows.
    pub received: Option<&'a [i64]>,
    /// Ids of the rows.
    pub ids: Option<&'a StringArray>,
    /// +1 or -1 per row; `None`: all +1.
    pub weights: Option<&'a [i64]>,
}

/// Marks a row that belongs to no group.
const SKIP: u32 = u32::MAX;

/// Groups the rows of a batch for one feed of a metric. Rows whose time is not before `now` have a change of their
/// own, which waits.
pub fn group(plan: &MetricPlan, feed: &FeedPlan, rows: Rows<'_>, now: i64, lost: &mut Lost) -> Vec<Delta> {
    let mut kept = Kept::new(rows.batch.num_rows());
    if let Some(filter) = &feed.filter {
        let (pass, errors) = filter.evaluate_bool(rows.batch);
        kept.and(&pass);
        kept.lose(errors.iter().map(|(row, _)| *row), "evaluation", lost);
    }
    let Some(times) = times(rows.batch, feed, &mut kept, lost) else { return Vec::new() };
    if let Some(received) = rows.received {
        let future = |row: usize| times.value(row).saturating_sub(received[row]) > plan.metric.future;
        kept.lose((0..times.len()).filter(|row| future(*row)), "future", lost);
    }
    let dimensions = feed.dimensions.iter().map(|(expr, default)| {
        let evaluated = expr.evaluate(rows.batch);
        kept.lose(evaluated.errors.iter().map(|(row, _)| *row), "evaluation", lost);
        Codes::new(&evaluated.values, default)
    });
    let dimensions: Vec<Codes> = dimensions.collect();
    let inputs = Inputs::evaluate(feed, rows.batch, &mut kept, lost);
    let groups = Groups::new(plan, &dimensions, &times, &kept, now);
    let panes = groups.panes(plan, &times, rows.weights);
    let accs = fold_all(plan, feed, &inputs, &groups, &times, rows);
    let mut deltas = groups.deltas(&dimensions, panes, accs);
    if feed.spans.iter().any(Option::is_some) {
        let seen = spans::Seen { plan, feed, rows, times: &times, dimensions: &dimensions };
        deltas.extend(seen.deltas(&inputs, &groups));
    }
    deltas
}

/// Which rows still count.
struct Kept {
    rows: Vec<bool>,
}

impl Kept {
    fn new(rows: usize) -> Self {
        Self { rows: vec![true; rows] }
    }

    fn and(&mut self, pass: &BooleanArray) {
        for (row, kept) in self.rows.iter_mut().enumerate() {
            *kept &= pass.is_valid(row) && pass.value(row);
        }
    }

    /// Drops rows with a reason; a row is lost once, for the first reason.
    fn lose(&mut self, rows: impl Iterator<Item = usize>, reason: &'static str, lost: &mut Lost) {
        for row in rows {
            if std::mem::take(&mut self.rows[row]) {
                *lost.entry(reason).or_default() += 1;
            }
        }
    }
}

/// When rows count, as microseconds; rows without a time are lost, those for which `moment` is null do not count.
fn times(batch: &RecordBatch, feed: &FeedPlan, kept: &mut Kept, lost: &mut Lost) -> Option<Int64Array> {
    if let Some(moment) = &feed.moment {
        let evaluated = moment.evaluate(batch);
        kept.lose(evaluated.errors.iter().map(|(row, _)| *row), "evaluation", lost);
        kept.and(&arrow::compute::is_not_null(&evaluated.values).ok()?);
        return instants(&evaluated.values);
    }
    let array = batch.column_by_name(&feed.time)?;
    let missing = (0..array.len()).filter(|row| array.is_null(*row));
    kept.lose(missing, "no_time", lost);
    instants(array)
}

fn instants(array: &ArrayRef) -> Option<Int64Array> {
    let times = array.as_primitive_opt::<TimestampMicrosecondType>()?;
    Some(Int64Array::new(times.values().clone(), None))
}

/// Evaluated inputs of the folds.
struct Inputs {
    values: Vec<ArrayRef>,
    filters: Vec<BooleanArray>,
}

impl Inputs {
    fn evaluate(feed: &FeedPlan, batch: &RecordBatch, kept: &mut Kept, lost: &mut Lost) -> Self {
        let mut errors = |rows: &[(usize, String)]| {
            kept.lose(rows.iter().map(|(row, _)| *row), "evaluation", lost);
        };
        let values = feed.values.iter().map(|value| {
            let evaluated = value.evaluate(batch);
            errors(&evaluated.errors);
            evaluated.values
        });
        let values = values.collect();
        let filters = feed.filters.iter().map(|filter| {
            let (pass, failed) = filter.evaluate_bool(batch);
            errors(&failed);
            pass
        });
        Self { values, filters: filters.collect() }
    }
}

/// A dimension's values of one batch as small codes.
struct Codes {
    codes: Vec<u32>,
    values: Vec<Value>,
}

impl Codes {
    fn new(array: &ArrayRef, default: &Value) -> Self {
        match array.data_type() {
            DataType::Dictionary(key, _) if **key == DataType::Int32 => Self::of_dictionary(array, default),
            DataType::Utf8 => Self::of_text(array.as_string::<i32>(), default),
            _ => Self::of_any(array, default),
        }
    }

    /// The interned codes of the decoder serve as they are; only unseen ones are looked up.
    fn of_dictionary(array: &ArrayRef, default: &Value) -> Self {
        let dictionary = array.as_dictionary::<Int32Type>();
        let keys = dictionary.keys();
        let mut known = vec![SKIP; dictionary.values().len() + 1];
        let mut interner = Interner::default();
        let null = dictionary.values().len();
        let codes = (0..keys.len()).map(|row| {
            let slot = if keys.is_null(row) { null } else { keys.value(row) as usize };
            if known[slot] == SKIP {
                let value = match slot == null {
                    true => Value::Null,
                    false => Value::from_arrow(dictionary.values().as_ref(), slot),
                };
                known[slot] = interner.code(or_default(value, default));
            }
            known[slot]
        });
        let codes = codes.collect();
        Self { codes, values: interner.values }
    }

    fn of_text(array: &StringArray, default: &Value) -> Self {
        let mut known: HashMap<&str, u32> = HashMap::new();
        let mut interner = Interner::default();
        let codes = array.iter().map(|text| match text {
            Some(text) => *known.entry(text).or_insert_with(|| interner.code(Value::Text(Arc::from(text)))),
            None => interner.code(default.clone()),
        });
        let codes = codes.collect();
        Self { codes, values: interner.values }
    }

    fn of_any(array: &ArrayRef, default: &Value) -> Self {
        let mut interner = Interner::default();
        let value = |row| or_default(Value::from_arrow(array.as_ref(), row), default);
        let codes = (0..array.len()).map(|row| interner.code(value(row)));
        let codes = codes.collect();
        Self { codes, values: interner.values }
    }
}

fn or_default(value: Value, default: &Value) -> Value {
    if matches!(value, Value::Null) { default.clone() } else { value }
}

#[derive(Default)]
struct Interner {
    known: HashMap<Value, u32>,
    values: Vec<Value>,
}

impl Interner {
    fn code(&mut self, value: Value) -> u32 {
        if let Some(code) = self.known.get(&value) {
            return *code;
        }
        let code = self.values.len() as u32;
        self.values.push(value.clone());
        self.known.insert(value, code);
        code
    }
}

/// Rows assigned to groups: one group per key and pane.
struct Groups {
    /// Group of each row, or [`SKIP`].
    of_row: Vec<u32>,
    /// A row of each group (its codes stand for the key).
    sample: Vec<u32>,
    /// Pane of each group.
    pane: Vec<i64>,
    /// The instant that each group waits for; `i64::MIN`: none.
    at: Vec<i64>,
}

impl Groups {
    fn new(plan: &MetricPlan, dimensions: &[Codes], times: &Int64Array, kept: &Kept, now: i64) -> Self {
        let mut groups = Self { of_row: vec![SKIP; times.len()], sample: vec![], pane: vec![], at: vec![] };
        let mut known: HashMap<(u64, i64, i64), u32> = HashMap::new();
        let mut radix = Radix::new(dimensions);
        let mut last = None;
        for row in 0..times.len() {
            if !kept.rows[row] {
                continue;
            }
            let time = times.value(row);
            let at = if time < now { i64::MIN } else { time };
            let place = (radix.code(dimensions, row), plan.pane(time), at);
            let group = match last {
                Some((same, group)) if same == place => group,
                _ => *known.entry(place).or_insert_with(|| {
                    groups.sample.push(row as u32);
                    groups.pane.push(place.1);
                    groups.at.push(at);
                    groups.sample.len() as u32 - 1
                }),
            };
            last = Some((place, group));
            groups.of_row[row] = group;
        }
        groups
    }

    /// Row counts and time spans of the groups; the accumulators of the folds replace the zeros later.
    fn panes(&self, plan: &MetricPlan, times: &Int64Array, weights: Option<&[i64]>) -> Vec<Pane> {
        let mut panes = vec![Pane::zero(&plan.specs); self.sample.len()];
        for (row, group) in self.of_row.iter().enumerate() {
            if *group != SKIP {
                let weight = weights.map_or(1, |weights| weights[row]);
                panes[*group as usize].touch(times.value(row), weight);
            }
        }
        panes
    }

    fn deltas(&self, dimensions: &[Codes], panes: Vec<Pane>, accs: Vec<Vec<Acc>>) -> Vec<Delta> {
        let mut keys: HashMap<Vec<u32>, Key> = HashMap::new();
        let mut accs: Vec<_> = accs.into_iter().map(Vec::into_iter).collect();
        let deltas = panes.into_iter().enumerate().map(|(group, mut change)| {
            change.accs = accs.iter_mut().filter_map(Iterator::next).collect();
            let row = self.sample[group] as usize;
            let codes: Vec<u32> = dimensions.iter().map(|d| d.codes[row]).collect();
            let key = keys.entry(codes).or_insert_with_key(|codes| {
                Key::new(codes.iter().zip(dimensions).map(|(c, d)| d.values[*c as usize].clone()))
            });
            let (pane, at) = (self.pane[group], self.at[group]);
            Delta { key: key.clone(), pane, change, edges: None, lasting: None, at }
        });
        deltas.collect()
    }
}

/// Several codes as one number: mixed radix while it fits 64 bits, interned tuples beyond.
struct Radix {
    fits: bool,
    interned: HashMap<Vec<u32>, u64>,
}

impl Radix {
    fn new(dimensions: &[Codes]) -> Self {
        let product =
            dimensions.iter().try_fold(1u64, |product, d| product.checked_mul(d.values.len().max(1) as u64));
        Self { fits: product.is_some(), interned: HashMap::new() }
    }

    fn code(&mut self, dimensions: &[Codes], row: usize) -> u64 {
        if self.fits {
            return dimensions.iter().fold(0, |code, dimension| {
                code * dimension.values.len() as u64 + u64::from(dimension.codes[row])
            });
        }
        let codes: Vec<u32> = dimensions.iter().map(|d| d.codes[row]).collect();
        let next = self.interned.len() as u64;
        *self.interned.entry(codes).or_insert(next)
    }
}

/// All folds over all groups: one vector of accumulators per fold.
fn fold_all(
    plan: &MetricPlan,
    feed: &FeedPlan,
    inputs: &Inputs,
    groups: &Groups,
    times: &Int64Array,
    rows: Rows<'_>,
) -> Vec<Vec<Acc>> {
    let fold = |(spec, input): (&FoldSpec, &Option<(Option<usize>, Option<usize>)>)| {
        let mut accs = vec![spec.zero(); groups.sample.len()];
        if let Some((value, filter)) = input {
            let column = Column {
                values: value.map(|i| &inputs.values[i]),
                filter: filter.map(|i| &inputs.filters[i]),
                groups: &groups.of_row,
                times,
                rows,
            };
            column.fold(spec, &mut accs);
        }
        accs
    };
    plan.specs.iter().zip(&feed.folds).map(fold).collect()
}

/// One fold's input.
struct Column<'a> {
    values: Option<&'a ArrayRef>,
    filter: Option<&'a BooleanArray>,
    groups: &'a [u32],
    times: &'a Int64Array,
    rows: Rows<'a>,
}

impl Column<'_> {
    fn fold(&self, spec: &FoldSpec, accs: &mut [Acc]) {
        match (&spec.agg, self.values) {
            (Agg::Count, values) => self.count(values, accs),
            (Agg::Sum | Agg::Avg | Agg::Rate { .. }, Some(values)) => {
                self.sum(spec, values, accs);
            }
            (_, values) => self.update(spec, values, accs),
        }
    }

    /// Calls `visit(row, group, weight)` for each row that the fold sees.
    fn each(&self, mut visit: impl FnMut(usize, usize, i64)) {
        for (row, group) in self.groups.iter().enumerate() {
            let passes = *group != SKIP
                && self.filter.is_none_or(|f| f.is_valid(row) && f.value(row))
                && self.values.is_none_or(|v| v.is_valid(row));
            if passes {
                visit(row, *group as usize, self.rows.weights.map_or(1, |weights| weights[row]));
            }
        }
    }

    fn count(&self, _values: Option<&ArrayRef>, accs: &mut [Acc]) {
        self.each(|_, group, weight| {
            if let Acc::Count(n) = &mut accs[group] {
                *n += weight;
            }
        });
    }

    /// Sums in 128 bits and moves them to 256 when a batch would overflow.
    fn sum(&self, spec: &FoldSpec, values: &ArrayRef, accs: &mut [Acc]) {
        let Some(number) = numbers(&spec.input, values) else { return self.update(spec, Some(values), accs) };
        let mut partial = vec![(0i64, 0i128); accs.len()];
        let mut carried = vec![Wide::default(); accs.len()];
        self.each(|row, group, weight| {
            let (n, sum) = &mut partial[group];
            *n += weight;
            let value = number(row);
            match value.checked_mul(i128::from(weight)).and_then(|v| sum.checked_add(v)) {
                Some(more) => *sum = more,
                None => carried[group].add(Wide::int(value), weight),
            }
        });
        for ((acc, (m, sum)), more) in accs.iter_mut().zip(partial).zip(carried) {
            if let Acc::Sum { n, sum: total } = acc {
                *n += m;
                total.add(Wide::int(sum), 1);
                total.add(more, 1);
            }
        }
    }

    fn update(&self, spec: &FoldSpec, values: Option<&ArrayRef>, accs: &mut [Acc]) {
        let ids = self.rows.ids;
        self.each(|row, group, weight| {
            let value = values.map(|values| Value::from_arrow(values.as_ref(), row));
            let id = ids.filter(|ids| ids.is_valid(row)).map(|ids| ids.value(row));
            let update = Update { value: value.as_ref(), weight, time: self.times.value(row), id };
            // A value that is not finite cannot be summed; like null it has nothing to say.
            let _ = spec.update(&mut accs[group], update);
        });
    }
}

/// Access to the exact integers behind a column, where it has them.
fn numbers<'a>(ty: &ValueType, values: &'a ArrayRef) -> Option<Box<dyn Fn(usize) -> i128 + 'a>> {
    use arrow::datatypes::{Decimal128Type, DurationMicrosecondType, Int64Type};
    match ty {
        ValueType::Int => {
            let values = values.as_primitive_opt::<Int64Type>()?.values();
            Some(Box::new(|row| i128::from(values[row])))
        }
        ValueType::Decimal { .. } => {
            let values = values.as_primitive_opt::<Decimal128Type>()?.values();
            Some(Box::new(|row| values[row]))
        }
        ValueType::Duration => {
            let values = values.as_primitive_opt::<DurationMicrosecondType>()?.values();
            Some(Box::new(|row| i128::from(values[row])))
        }
        _ => None,
    }
}
