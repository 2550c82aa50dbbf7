//! One cell of an Arrow array as a [`Value`].
//!
//! *In*: an array and a row. *Out*: the value, whatever the array's type. *Never*: a panic on a
//! type it does not know (its text is taken).

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType,
    IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::array_value_to_string;

use super::{Value, histogram_at};

const MICROS_PER_DAY: i64 = 86_400_000_000;

pub(super) fn read(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int64 => Value::Int(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Value::Float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, scale) => {
            Value::Decimal(array.as_primitive::<Decimal128Type>().value(row), *scale)
        }
        DataType::Utf8 => text(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(row)),
        DataType::Utf8View => text(array.as_string_view().value(row)),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            read(dictionary.values().as_ref(), dictionary.normalized_keys_at(row))
        }
        DataType::Timestamp(unit, _) => Value::Timestamp(timestamp(array, row, *unit)),
        DataType::Date32 => Value::Date(array.as_primitive::<Date32Type>().value(row)),
        DataType::Date64 => {
            let days = array.as_primitive::<Date64Type>().value(row).div_euclid(86_400_000);
            i32::try_from(days).map_or_else(|_| fallback(array, row), Value::Date)
        }
        DataType::Duration(unit) => Value::Duration(duration(array, row, *unit)),
        DataType::Interval(unit) => {
            interval(array, row, *unit).map_or_else(|| fallback(array, row), Value::Duration)
        }
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            histogram_at(lists, row).unwrap_or_else(|| items(lists.value(row).as_ref()))
        }
        DataType::LargeList(_) => items(array.as_list::<i64>().value(row).as_ref()),
        DataType::FixedSizeList(..) => items(array.as_fixed_size_list().value(row).as_ref()),
        _ => number(array, row).unwrap_or_else(|| fallback(array, row)),
    }
}

/// The key of one dictionary row, whatever the key type.
trait KeyAt {
    fn normalized_keys_at(&self, row: usize) -> usize;
}

impl KeyAt for dyn arrow::array::AnyDictionaryArray + '_ {
    fn normalized_keys_at(&self, row: usize) -> usize {
        let keys = self.keys();
        match read(keys, row) {
            Value::Int(key) => usize::try_from(key).unwrap_or(0),
            // Only a `UInt64` key above `i64::MAX` is no `Int`, and no dictionary is that long.
            _ => 0,
        }
    }
}

fn text(value: &str) -> Value {
    Value::Text(value.into())
}

fn items(list: &dyn Array) -> Value {
    Value::List((0..list.len()).map(|row| read(list, row)).collect())
}

fn fallback(array: &dyn Array, row: usize) -> Value {
    match array_value_to_string(array, row) {
        Ok(value) => Value::Text(value.into()),
        Err(error) => Value::Text(error.to_string().into()),
    }
}

fn number(array: &dyn Array, row: usize) -> Option<Value> {
    Some(match array.data_type() {
        DataType::Int8 => Value::Int(array.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => Value::Int(array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => Value::Int(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::UInt8 => Value::Int(array.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt16 => Value::Int(array.as_primitive::<UInt16Type>().value(row).into()),
        DataType::UInt32 => Value::Int(array.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => {
            let value = array.as_primitive::<UInt64Type>().value(row);
            i64::try_from(value).map_or(Value::Decimal(value.into(), 0), Value::Int)
        }
        DataType::Float16 => Value::Float(array.as_primitive::<Float16Type>().value(row).into()),
        DataType::Float32 => Value::Float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Decimal32(_, scale) => {
            Value::Decimal(array.as_primitive::<Decimal32Type>().value(row).into(), *scale)
        }
        DataType::Decimal64(_, scale) => {
            Value::Decimal(array.as_primitive::<Decimal64Type>().value(row).into(), *scale)
        }
        DataType::Decimal256(_, scale) => {
            Value::Decimal(array.as_primitive::<Decimal256Type>().value(row).to_i128()?, *scale)
        }
        _ => return None,
    })
}

fn timestamp(array: &dyn Array, row: usize, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row).saturating_mul(1_000_000),
        TimeUnit::Millisecond => {
            array.as_primitive::<TimestampMillisecondType>().value(row).saturating_mul(1_000)
        }
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1_000),
    }
}

fn duration(array: &dyn Array, row: usize, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => array.as_primitive::<DurationSecondType>().value(row).saturating_mul(1_000_000),
        TimeUnit::Millisecond => {
            array.as_primitive::<DurationMillisecondType>().value(row).saturating_mul(1_000)
        }
        TimeUnit::Microsecond => array.as_primitive::<DurationMicrosecondType>().value(row),
        TimeUnit::Nanosecond => array.as_primitive::<DurationNanosecondType>().value(row).div_euclid(1_000),
    }
}

/// Days are 24 hours (all instants are UTC); `None` for months, whose length varies.
fn interval(array: &dyn Array, row: usize, unit: IntervalUnit) -> Option<i64> {
    let (days, micros) = match unit {
        IntervalUnit::MonthDayNano => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            if value.months != 0 {
                return None;
            }
            (value.days, value.nanoseconds.div_euclid(1_000))
        }
        IntervalUnit::DayTime => {
            let value = array.as_primitive::<IntervalDayTimeType>().value(row);
            (value.days, i64::from(value.milliseconds) * 1_000)
        }
        IntervalUnit::YearMonth => return None,
    };
    i64::from(days).checked_mul(MICROS_PER_DAY)?.checked_add(micros)
}
