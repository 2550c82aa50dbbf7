//! Folds over the items of list columns: `sum_of(items, quantity * unit_price)`.
//!
//! *In*: a batch with a list column. *Out*: one value per row. *Never*: a loop over rows that
//! evaluates: the item expression runs once over all items of the batch.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch,
    RecordBatchOptions, StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Decimal128Type, DurationMicrosecondType, Field, Float64Type, Int64Type, Schema,
};
use contracts::Value;
use contracts::expr::{ListAgg, ListFold};
use contracts::value::{decimal, to_arrow};

use super::{Compiled, PlanError};

/// A [`ListFold`] ready to run.
#[derive(Debug)]
pub(super) struct CompiledFold {
    fold: ListAgg,
    list: String,
    path: Vec<String>,
    item: Option<Compiled>,
    ty: DataType,
}

/// Rows that failed, with why.
type Errors = Vec<(usize, String)>;

impl CompiledFold {
    /// Plans the item expression; `ty` is the type of the fold's column.
    pub(super) fn new(fold: &ListFold, ty: DataType) -> Result<Self, PlanError> {
        let item = fold.item.as_deref().map(Compiled::new).transpose()?;
        Ok(Self { fold: fold.fold, list: fold.list.clone(), path: fold.path.clone(), item, ty })
    }

    /// One value per row of `batch`; rows that fail are added to `errors`.
    pub(super) fn evaluate(&self, batch: &RecordBatch, errors: &mut Errors) -> Result<ArrayRef, String> {
        let lists = self.lists(batch)?;
        let lists = lists.as_list_opt::<i32>().ok_or_else(|| format!("column `{}` is no list", self.list))?;
        let segments = Segments::new(lists);
        let failed_before = errors.len();
        let items = match &self.item {
            Some(item) => {
                let evaluated = item.evaluate(&segments.items);
                segments.blame(evaluated.errors, errors);
                evaluated.values
            }
            None => Arc::clone(&segments.raw),
        };
        let mut overflow = Vec::new();
        let values = self.fold(&segments, &items, &mut overflow)?;
        let known: HashSet<usize> = errors[failed_before..].iter().map(|(row, _)| *row).collect();
        errors.extend(overflow.into_iter().filter(|(row, _)| !known.contains(row)));
        Ok(values)
    }

    fn lists(&self, batch: &RecordBatch) -> Result<ArrayRef, String> {
        let missing = || format!("the batch has no column `{}`", self.list);
        let mut column = Arc::clone(batch.column_by_name(&self.list).ok_or_else(missing)?);
        for field in &self.path {
            let parent = column.as_struct_opt().ok_or_else(missing)?;
            let child = parent.column_by_name(field).ok_or_else(missing)?;
            column = with_nulls(child, parent.nulls());
        }
        Ok(column)
    }

    fn fold(&self, segments: &Segments, items: &ArrayRef, overflow: &mut Errors) -> Result<ArrayRef, String> {
        match self.fold {
            ListAgg::Count => Ok(Arc::new(Int64Array::from(match self.item {
                Some(_) => count_true(segments, items),
                None => segments.counts(items),
            }))),
            ListAgg::Sum => self.sum(segments, items, overflow),
            ListAgg::Avg => self.avg(segments, items, overflow),
            ListAgg::Any => Ok(quantify(segments, items, true)),
            ListAgg::All => Ok(quantify(segments, items, false)),
            ListAgg::Min | ListAgg::Max | ListAgg::Distinct => self.by_value(segments, items),
        }
    }

    fn sum(&self, segments: &Segments, items: &ArrayRef, overflow: &mut Errors) -> Result<ArrayRef, String> {
        Ok(match &self.ty {
            DataType::Int64 => {
                let values = items.as_primitive::<Int64Type>().values();
                let sums = segments.sums(items, overflow, |a: i64, i| a.checked_add(values[i]));
                Arc::new(Int64Array::from(sums))
            }
            DataType::Float64 => {
                let values = items.as_primitive::<Float64Type>().values();
                let sums = segments.sums(items, overflow, |a: f64, i| Some(a + values[i]));
                Arc::new(Float64Array::from(sums))
            }
            DataType::Decimal128(precision, scale) => {
                let sums = decimal_sums(segments, items, overflow);
                let sums = sums.into_iter().enumerate().map(|(row, sum)| {
                    let fits = sum.filter(|sum| decimal::fits(*sum, *precision));
                    if fits.is_none() && sum.is_some() {
                        overflow.push((row, overflow_message()));
                    }
                    fits
                });
                let sums = sums.collect::<arrow::array::Decimal128Array>();
                Arc::new(sums.with_precision_and_scale(*precision, *scale).map_err(|e| e.to_string())?)
            }
            _ => {
                let values = items.as_primitive::<DurationMicrosecondType>().values();
                let sums = segments.sums(items, overflow, |a: i64, i| a.checked_add(values[i]));
                Arc::new(arrow::array::DurationMicrosecondArray::from(sums))
            }
        })
    }

    fn avg(&self, segments: &Segments, items: &ArrayRef, overflow: &mut Errors) -> Result<ArrayRef, String> {
        let counts = segments.counts(items);
        let mean = |(sum, count): (Option<i128>, &i64)| {
            sum.filter(|_| *count > 0).and_then(|sum| decimal::div_round(sum, i128::from(*count)))
        };
        Ok(match (&self.ty, items.data_type()) {
            (DataType::Decimal128(precision, scale), _) => {
                let sums = decimal_sums(segments, items, overflow);
                let means = sums.into_iter().zip(&counts).map(mean);
                let means = means.collect::<arrow::array::Decimal128Array>();
                Arc::new(means.with_precision_and_scale(*precision, *scale).map_err(|e| e.to_string())?)
            }
            (DataType::Float64, DataType::Int64) => {
                let values = items.as_primitive::<Int64Type>().values();
                let sums = segments.sums(items, overflow, |a: i128, i| a.checked_add(i128::from(values[i])));
                let means = sums.into_iter().zip(&counts);
                let mean = |(sum, count): (Option<i128>, &i64)| {
                    sum.filter(|_| *count > 0).map(|sum| sum as f64 / *count as f64)
                };
                Arc::new(means.map(mean).collect::<Float64Array>())
            }
            (DataType::Float64, _) => {
                let values = items.as_primitive::<Float64Type>().values();
                let sums = segments.sums(items, overflow, |a: f64, i| Some(a + values[i]));
                let means = sums
                    .into_iter()
                    .zip(&counts)
                    .map(|(sum, count)| sum.filter(|_| *count > 0).map(|sum| sum / *count as f64));
                Arc::new(means.collect::<Float64Array>())
            }
            _ => {
                let values = items.as_primitive::<DurationMicrosecondType>().values();
                let sums = segments.sums(items, overflow, |a: i128, i| a.checked_add(i128::from(values[i])));
                let means = sums.into_iter().zip(&counts).map(mean);
                let means = means.map(|mean| mean.and_then(|mean| i64::try_from(mean).ok()));
                Arc::new(means.collect::<arrow::array::DurationMicrosecondArray>())
            }
        })
    }

    /// Folds that only compare.
    fn by_value(&self, segments: &Segments, items: &ArrayRef) -> Result<ArrayRef, String> {
        let folded = segments.rows(items).map(|rows| {
            let values = rows.map(|row| Value::from_arrow(items.as_ref(), row));
            match self.fold {
                ListAgg::Min => values.min().unwrap_or(Value::Null),
                ListAgg::Max => values.max().unwrap_or(Value::Null),
                _ => match values.collect::<HashSet<Value>>().len() {
                    0 => Value::Null,
                    different => Value::Int(different as i64),
                },
            }
        });
        let folded: Vec<Value> = folded.collect();
        to_arrow(&folded, &self.ty).map_err(|error| error.to_string())
    }
}

fn overflow_message() -> String {
    "overflow in a sum over a list".to_owned()
}

fn decimal_sums(segments: &Segments, items: &ArrayRef, overflow: &mut Errors) -> Vec<Option<i128>> {
    let values = items.as_primitive::<Decimal128Type>().values();
    segments.sums(items, overflow, |a: i128, i| a.checked_add(values[i]))
}

/// Items for which the condition is true.
fn count_true(segments: &Segments, condition: &ArrayRef) -> Vec<i64> {
    let holds = condition.as_boolean();
    let rows = segments.rows(condition);
    rows.map(|items| items.filter(|item| holds.value(*item)).count() as i64).collect()
}

/// Whether the condition is `wanted` for any item (`any_of`), or else for none (`all_of`).
fn quantify(segments: &Segments, items: &ArrayRef, wanted: bool) -> ArrayRef {
    let condition = items.as_boolean();
    let folded = segments.rows(items).map(|mut rows| {
        let first = rows.next()?;
        let met = condition.value(first) == wanted || rows.any(|row| condition.value(row) == wanted);
        Some(met == wanted)
    });
    Arc::new(folded.collect::<BooleanArray>())
}

/// The items of all rows, one after the other, and which belong to which row.
struct Segments {
    /// First item of each row, and the end of the last; counted in `items`.
    offsets: Vec<usize>,
    /// Row is a list at all.
    present: Option<NullBuffer>,
    /// The items as columns of the item expression.
    items: RecordBatch,
    /// The items as they are.
    raw: ArrayRef,
}

impl Segments {
    fn new(lists: &ListArray) -> Self {
        let offsets = lists.value_offsets();
        let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
        let raw = lists.values().slice(first, last - first);
        let items = match raw.as_struct_opt() {
            Some(fields) => struct_batch(fields),
            None => {
                let field = Field::new("item", raw.data_type().clone(), true);
                batch(Schema::new(vec![field]), vec![Arc::clone(&raw)], raw.len())
            }
        };
        let offsets = offsets.iter().map(|offset| *offset as usize - first).collect();
        Self { offsets, present: lists.nulls().cloned(), items, raw }
    }

    /// Items `a..b` of each row; none for a row that is null.
    fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.offsets.windows(2).enumerate().map(|(row, ends)| {
            let present = self.present.as_ref().is_none_or(|present| present.is_valid(row));
            if present { ends[0]..ends[1] } else { ends[0]..ends[0] }
        })
    }

    /// Per row, the items that count: neither the item nor its value is null.
    fn rows<'a>(
        &'a self,
        values: &'a ArrayRef,
    ) -> impl Iterator<Item = impl Iterator<Item = usize> + 'a> + 'a {
        let nulls = NullBuffer::union(values.nulls(), self.raw.nulls());
        let nulls = Arc::new(nulls);
        self.ranges().map(move |range| {
            let nulls = Arc::clone(&nulls);
            range.filter(move |item| nulls.as_ref().as_ref().is_none_or(|n| n.is_valid(*item)))
        })
    }

    fn counts(&self, values: &ArrayRef) -> Vec<i64> {
        self.rows(values).map(|rows| rows.count() as i64).collect()
    }

    /// Adds up each row's items; `add(sum, item)` is `None` on overflow.
    fn sums<T: Default>(
        &self,
        values: &ArrayRef,
        overflow: &mut Errors,
        add: impl Fn(T, usize) -> Option<T>,
    ) -> Vec<Option<T>> {
        let rows = self.rows(values).enumerate();
        rows.map(|(row, mut items)| {
            let sum = items.try_fold(T::default(), &add);
            if sum.is_none() {
                overflow.push((row, overflow_message()));
            }
            sum
        })
        .collect()
    }

    /// Errors of items become errors of their rows; items that do not count have none.
    fn blame(&self, items: Errors, errors: &mut Errors) {
        if items.is_empty() {
            return;
        }
        let mut items = items.into_iter().peekable();
        for (row, range) in self.ranges().enumerate() {
            while items.next_if(|(item, _)| *item < range.start).is_some() {}
            let mut blamed = false;
            while let Some((item, message)) = items.next_if(|(item, _)| *item < range.end) {
                if !blamed && self.raw.is_valid(item) {
                    let position = item - range.start;
                    errors.push((row, format!("item {position}: {message}")));
                    blamed = true;
                }
            }
        }
    }
}

fn struct_batch(items: &StructArray) -> RecordBatch {
    let schema = Schema::new(items.fields().clone());
    batch(schema, items.columns().to_vec(), items.len())
}

fn batch(schema: Schema, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options)
        .expect("the fields and columns of one struct array agree")
}

/// `array`, null also where its parent is.
fn with_nulls(array: &ArrayRef, parent: Option<&NullBuffer>) -> ArrayRef {
    let nulls = NullBuffer::union(array.nulls(), parent);
    match array.to_data().into_builder().nulls(nulls).build() {
        Ok(data) => arrow::array::make_array(data),
        Err(_) => Arc::clone(array),
    }
}
