//! Values out of Arrow arrays and Arrow arrays out of values.
//!
//! *In*: a cell of any Arrow array, or a slice of [`Value`]s of one type. *Out*: the other.
//! *Never*: a lossy conversion without an error.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, DurationMicrosecondArray,
    Float64Array, Int64Array, ListArray, StringArray, StructArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, TimeUnit};

use super::{Value, ValueType, decimal};

mod cell;

/// A value that does not belong into a column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row {row}: {value} is not a value of type {expected}")]
pub struct WrongType {
    /// Index in the slice.
    pub row: usize,
    /// The value found.
    pub value: String,
    /// The column's type.
    pub expected: String,
}

impl Value {
    /// The cell `row` of `array`: null where it is null, dictionaries by their value, instants and
    /// durations in microseconds (finer digits are cut downwards). Intervals with months, structs
    /// and other types that no cell has become their text.
    ///
    /// # Panics
    /// When `row` is not below `array.len()`.
    pub fn from_arrow(array: &dyn Array, row: usize) -> Self {
        cell::read(array, row)
    }

    /// Whether there is nothing to say.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Numbers (and durations in seconds) as the nearest float: for levels, plots and statistics,
    /// never for money.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(v) => Some(*v as f64),
            Self::Float(v) => Some(*v),
            Self::Decimal(unscaled, scale) => Some(decimal::to_f64(*unscaled, *scale)),
            Self::Duration(v) => Some(*v as f64 / 1e6),
            _ => None,
        }
    }
}

impl ValueType {
    /// The value type of an expression result of Arrow type `ty`; `None` for types no cell can
    /// have (structs, binary, times of day, ...).
    pub fn from_arrow(ty: &DataType) -> Option<Self> {
        Some(match ty {
            DataType::Boolean => Self::Bool,
            ty if ty.is_integer() => Self::Int,
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Self::Float,
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
                Self::Decimal { precision: *p, scale: *s }
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Dictionary(_, value) => return Self::from_arrow(value),
            DataType::Timestamp(..) => Self::Timestamp,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Duration(_)
            | DataType::Interval(IntervalUnit::MonthDayNano | IntervalUnit::DayTime) => Self::Duration,
            ty if *ty == histogram_type() => Self::Histogram,
            _ => return None,
        })
    }

    /// A column of `values`, see [`to_arrow`].
    pub fn array(&self, values: &[Value]) -> Result<ArrayRef, WrongType> {
        to_arrow(values, &self.arrow().unwrap_or_else(histogram_type))
    }

    /// Whether sums, averages and comparisons by size make sense as numbers.
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Float | Self::Decimal { .. })
    }
}

/// How contracts call an Arrow type: `string`, `decimal(18,2)`, `list`, ...
pub fn type_name(ty: &DataType) -> String {
    if let Some(ty) = ValueType::from_arrow(ty) {
        return ty.to_string();
    }
    match ty {
        DataType::Null => "null".to_owned(),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "list".to_owned(),
        DataType::Struct(_) => "struct".to_owned(),
        DataType::Interval(_) => "interval".to_owned(),
        DataType::Decimal256(p, s) => format!("decimal({p},{s})"),
        other => other.to_string().to_lowercase(),
    }
}

fn histogram_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Struct(histogram_fields()), true)))
}

fn histogram_fields() -> Fields {
    Fields::from(vec![Field::new("le", DataType::Float64, true), Field::new("count", DataType::Int64, false)])
}

/// A column of Arrow type `ty` from `values`; nulls stay null. Integers fit decimal and float
/// columns, decimals of another scale fit where they are exact. Lists take `List` types;
/// dictionary types take text.
pub fn to_arrow(values: &[Value], ty: &DataType) -> Result<ArrayRef, WrongType> {
    Ok(match ty {
        DataType::Null => new_null_array(ty, values.len()),
        DataType::Boolean => Arc::new(
            cells(values, ty, |v| match v {
                Value::Bool(v) => Some(*v),
                _ => None,
            })?
            .collect::<BooleanArray>(),
        ),
        DataType::Int64 => Arc::new(
            cells(values, ty, |v| match v {
                Value::Int(v) => Some(*v),
                _ => None,
            })?
            .collect::<Int64Array>(),
        ),
        DataType::Float64 => Arc::new(
            cells(values, ty, |v| match v {
                Value::Float(v) => Some(*v),
                Value::Int(v) => Some(*v as f64),
                _ => None,
            })?
            .collect::<Float64Array>(),
        ),
        DataType::Decimal128(precision, scale) => {
            let column = cells(values, ty, |v| as_decimal(v, *precision, *scale))?;
            let column = column.collect::<Decimal128Array>();
            Arc::new(column.with_precision_and_scale(*precision, *scale).map_err(|e| WrongType {
                row: 0,
                value: e.to_string(),
                expected: type_name(ty),
            })?)
        }
        DataType::Utf8 => Arc::new(
            cells(values, ty, |v| match v {
                Value::Text(v) => Some(v.as_ref()),
                _ => None,
            })?
            .collect::<StringArray>(),
        ),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let column = cells(values, ty, |v| match v {
                Value::Timestamp(v) => Some(*v),
                _ => None,
            })?
            .collect::<TimestampMicrosecondArray>();
            Arc::new(column.with_timezone_opt(zone.clone()))
        }
        DataType::Date32 => Arc::new(
            cells(values, ty, |v| match v {
                Value::Date(v) => Some(*v),
                _ => None,
            })?
            .collect::<Date32Array>(),
        ),
        DataType::Duration(TimeUnit::Microsecond) => Arc::new(
            cells(values, ty, |v| match v {
                Value::Duration(v) => Some(*v),
                _ => None,
            })?
            .collect::<DurationMicrosecondArray>(),
        ),
        DataType::List(_) if *ty == histogram_type() => histograms(values)?,
        DataType::List(item) => lists(values, item)?,
        DataType::Dictionary(_, inner) => {
            let plain = to_arrow(values, inner)?;
            cast(&plain, ty).map_err(|_| wrong(values, 0, ty))?
        }
        _ => match values.iter().position(|v| !v.is_null()) {
            Some(row) => return Err(wrong(values, row, ty)),
            None => new_null_array(ty, values.len()),
        },
    })
}

fn wrong(values: &[Value], row: usize, ty: &DataType) -> WrongType {
    WrongType {
        row,
        value: values.get(row).map_or_else(String::new, Value::to_string),
        expected: type_name(ty),
    }
}

/// All cells as `Option<T>`, or the first that `read` does not take.
fn cells<'a, T: 'a>(
    values: &'a [Value],
    ty: &DataType,
    read: impl Fn(&'a Value) -> Option<T>,
) -> Result<std::vec::IntoIter<Option<T>>, WrongType> {
    let mut column = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        let cell = read(value);
        if cell.is_none() && !value.is_null() {
            return Err(wrong(values, row, ty));
        }
        column.push(cell);
    }
    Ok(column.into_iter())
}

fn as_decimal(value: &Value, precision: u8, scale: i8) -> Option<i128> {
    let (unscaled, from) = match value {
        Value::Decimal(unscaled, from) => (*unscaled, *from),
        Value::Int(v) => (i128::from(*v), 0),
        _ => return None,
    };
    decimal::rescale_exact(unscaled, from, scale).filter(|v| decimal::fits(*v, precision))
}

fn lists(values: &[Value], item: &Arc<Field>) -> Result<ArrayRef, WrongType> {
    let ty = DataType::List(Arc::clone(item));
    let mut flat = Vec::new();
    let mut lengths = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        match value {
            Value::List(items) => {
                flat.extend(items.iter().cloned());
                lengths.push(items.len());
            }
            Value::Null => lengths.push(0),
            _ => return Err(wrong(values, row, &ty)),
        }
    }
    let flat = to_arrow(&flat, item.data_type())?;
    let nulls: NullBuffer = values.iter().map(|v| !v.is_null()).collect();
    Ok(Arc::new(ListArray::new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), flat, Some(nulls))))
}

fn histograms(values: &[Value]) -> Result<ArrayRef, WrongType> {
    let ty = histogram_type();
    let (mut bounds, mut counts) = (Vec::new(), Vec::new());
    let mut lengths = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        match value {
            Value::Histogram(rows) => {
                for (le, count) in rows.iter() {
                    bounds.push(*le);
                    counts.push(i64::try_from(*count).map_err(|_| wrong(values, row, &ty))?);
                }
                lengths.push(rows.len());
            }
            Value::Null => lengths.push(0),
            _ => return Err(wrong(values, row, &ty)),
        }
    }
    let rows = StructArray::new(
        histogram_fields(),
        vec![Arc::new(Float64Array::from(bounds)), Arc::new(Int64Array::from(counts))],
        None,
    );
    let nulls: NullBuffer = values.iter().map(|v| !v.is_null()).collect();
    Ok(Arc::new(ListArray::new(
        Arc::new(Field::new("item", DataType::Struct(histogram_fields()), true)),
        OffsetBuffer::from_lengths(lengths),
        Arc::new(rows),
        Some(nulls),
    )))
}

/// The histogram of a list array's row, if the array is of [`histogram_type`].
fn histogram_at(array: &ListArray, row: usize) -> Option<Value> {
    if *array.data_type() != histogram_type() {
        return None;
    }
    let rows = array.value(row);
    let rows = rows.as_struct();
    let bounds = rows.column(0).as_primitive::<arrow::datatypes::Float64Type>();
    let counts = rows.column(1).as_primitive::<arrow::datatypes::Int64Type>();
    let cells = bounds.iter().zip(counts.values());
    Some(Value::Histogram(cells.map(|(le, count)| (le, count.unsigned_abs())).collect()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, IntervalMonthDayNanoArray, UInt64Array};
    use arrow::datatypes::{Int32Type, IntervalMonthDayNano};

    use super::*;

    fn round_trip(values: &[Value], ty: &DataType) {
        let array = to_arrow(values, ty).unwrap();
        assert_eq!(array.data_type(), ty);
        for (row, value) in values.iter().enumerate() {
            assert_eq!(&Value::from_arrow(&array, row), value, "{ty} row {row}");
        }
    }

    #[test]
    fn every_type_survives_a_round_trip() {
        let text = |t: &str| Value::Text(t.into());
        for (ty, value) in [
            (ValueType::Bool, Value::Bool(true)),
            (ValueType::Int, Value::Int(i64::MIN)),
            (ValueType::Float, Value::Float(0.1)),
            (ValueType::Decimal { precision: 38, scale: 2 }, Value::Decimal(10i128.pow(37), 2)),
            (ValueType::Text, text("héllo")),
            (ValueType::Timestamp, Value::Timestamp(-1)),
            (ValueType::Date, Value::Date(-719_162)),
            (ValueType::Duration, Value::Duration(-5)),
            (ValueType::Histogram, Value::Histogram([(Some(0.5), 3), (None, 0)].into())),
        ] {
            round_trip(&[value.clone(), Value::Null, value], &ty.arrow().unwrap_or_else(histogram_type));
            round_trip(&[Value::Null], &ty.arrow().unwrap_or_else(histogram_type));
            round_trip(&[], &ty.arrow().unwrap_or_else(histogram_type));
            assert_eq!(ValueType::from_arrow(&ty.arrow().unwrap_or_else(histogram_type)), Some(ty));
        }
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        round_trip(&[text("a"), Value::Null, text("a"), text("b")], &dictionary);
        let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
        round_trip(
            &[Value::List([text("a"), Value::Null].into()), Value::Null, Value::List([].into())],
            &list,
        );
    }

    #[test]
    fn reads_foreign_types() {
        let unsigned = UInt64Array::from(vec![1, u64::MAX]);
        assert_eq!(Value::from_arrow(&unsigned, 0), Value::Int(1));
        assert_eq!(Value::from_arrow(&unsigned, 1), Value::Decimal(i128::from(u64::MAX), 0));
        assert_eq!(Value::from_arrow(&Int32Array::from(vec![7]), 0), Value::Int(7));
        let nanos = arrow::array::TimestampNanosecondArray::from(vec![1_999, -1]);
        assert_eq!(Value::from_arrow(&nanos, 0), Value::Timestamp(1));
        assert_eq!(Value::from_arrow(&nanos, 1), Value::Timestamp(-1));
        let intervals = IntervalMonthDayNanoArray::from(vec![
            IntervalMonthDayNano::new(0, 1, 1_000),
            IntervalMonthDayNano::new(1, 0, 0),
        ]);
        assert_eq!(Value::from_arrow(&intervals, 0), Value::Duration(86_400_000_001));
        assert!(matches!(Value::from_arrow(&intervals, 1), Value::Text(_)));
        let dictionary: arrow::array::DictionaryArray<Int32Type> =
            vec![Some("a"), None, Some("b")].into_iter().collect();
        assert_eq!(Value::from_arrow(&dictionary, 2), Value::Text("b".into()));
        assert_eq!(Value::from_arrow(&dictionary, 1), Value::Null);
    }

    #[test]
    fn a_value_of_another_type_is_named() {
        let error = to_arrow(&[Value::Int(1), Value::Text("x".into())], &DataType::Int64).unwrap_err();
        assert_eq!(error.to_string(), "row 1: x is not a value of type int");
        let cents = DataType::Decimal128(5, 2);
        let array = to_arrow(&[Value::Int(7), Value::Decimal(1500, 3)], &cents).unwrap();
        assert_eq!(Value::from_arrow(&array, 1).to_string(), "1.50");
        assert!(to_arrow(&[Value::Decimal(1501, 3)], &cents).is_err());
        assert!(to_arrow(&[Value::Int(1000)], &cents).is_err());
    }
}
