//! One declared field as a growing column.
//!
//! *In*: raw values, one per row. *Out*: an Arrow array of exactly the declared type; reasons for what
//! does not fit. *Never*: a row more or less than its siblings: a wrong value becomes a null, and the
//! caller takes the whole row back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use contracts::catalog::{Checks, Field, NestedField};
use contracts::value::{FieldType, Value};

use super::cells::{Cells, Codes, Texts};
use super::check::{Ready, Unit};
use super::nested::{List, Struct};
use super::number::NotExact;
use super::raw::Raw;
use super::reason::{Path, Row};
use super::walk::Walker;

/// See the module's words.
#[derive(Debug)]
pub(super) struct Column {
    cells: Kinds,
    checks: Ready,
}

#[derive(Debug)]
enum Kinds {
    Codes(Codes),
    Text(Texts),
    /// Any JSON as its text.
    Json(Texts),
    Bool(Cells<bool>),
    Int(Cells<i64>),
    Float(Cells<f64>),
    Decimal(Cells<i128>, u8, i8),
    Timestamp(Cells<i64>),
    Date(Cells<i32>),
    List(Box<List>),
    Struct(Struct),
}

impl Column {
    /// The column of a declared field; its nested objects are walked by `walker`.
    pub(super) fn of(field: &Field, walker: &mut Walker) -> Self {
        let checks = Ready::new(&field.checks, &field.ty);
        if field.dictionary && field.ty == FieldType::String {
            return Self { cells: Kinds::Codes(Codes::new()), checks };
        }
        let cells = Kinds::of(&field.ty, &field.checks, &field.nested, &mut Vec::new(), walker);
        Self { cells, checks }
    }

    /// A column inside of a list or struct, at `path` below the field.
    pub(super) fn inside(
        ty: &FieldType,
        checks: &Checks,
        nested: &[NestedField],
        path: &mut Vec<String>,
        walker: &mut Walker,
    ) -> Self {
        Self { cells: Kinds::of(ty, checks, nested, path, walker), checks: Ready::new(checks, ty) }
    }

    /// Adds a row. Nulls and absent values are null; the caller knows whether they may be.
    #[inline]
    pub(super) fn push(&mut self, raw: Raw<'_>, at: &Path<'_>, row: &mut Row<'_>) {
        if raw.is_nothing() {
            return self.push_null();
        }
        let expected = match &mut self.cells {
            Kinds::Codes(cells) => match raw {
                Raw::Text(text) => return code(cells, &self.checks, text, at, row),
                raw => match raw.text() {
                    Some(text) => return code(cells, &self.checks, &text, at, row),
                    None => "a string",
                },
            },
            Kinds::Text(cells) => match raw {
                Raw::Text(text) => {
                    self.checks.text(text, at, row);
                    return cells.push(text);
                }
                raw => match raw.text() {
                    Some(text) => {
                        self.checks.text(&text, at, row);
                        return cells.push(&text);
                    }
                    None => "a string",
                },
            },
            Kinds::Int(cells) => match raw.integer() {
                Some(value) => {
                    self.checks.exact(value.into(), Unit::Int, at, row);
                    return cells.push(value);
                }
                None => "an integer (no fraction, no exponent, 64 bits)",
            },
            Kinds::Decimal(cells, precision, scale) => match raw.decimal(*precision, *scale) {
                Ok(value) => {
                    self.checks.exact(value, Unit::Decimal(*scale), at, row);
                    return cells.push(value);
                }
                Err(why) => {
                    row.wrong_type(at, &not_exact(why, *precision, *scale), raw);
                    return cells.push_null();
                }
            },
            Kinds::Timestamp(cells) => match raw.instant() {
                Some(value) => {
                    self.checks.exact(value.into(), Unit::Instant, at, row);
                    return cells.push(value);
                }
                None => "RFC 3339 text or integer milliseconds since 1970, years 0 to 9999",
            },
            _ => return self.push_rare(raw, at, row),
        };
        row.wrong_type(at, expected, raw);
        self.push_null();
    }

    fn push_rare(&mut self, raw: Raw<'_>, at: &Path<'_>, row: &mut Row<'_>) {
        let expected = match &mut self.cells {
            Kinds::Bool(cells) => match raw.boolean() {
                Some(value) => return cells.push(value),
                None => "true or false",
            },
            Kinds::Float(cells) => match raw.float() {
                Some(value) => {
                    self.checks.float(value, at, row);
                    return cells.push(value);
                }
                None => "a number",
            },
            Kinds::Date(cells) => match raw.date() {
                Some(value) => {
                    self.checks.exact(value.into(), Unit::Day, at, row);
                    return cells.push(value);
                }
                None => "a date YYYY-MM-DD",
            },
            Kinds::Json(cells) => match json(raw) {
                Some(text) => return cells.push(&text),
                None => "JSON",
            },
            Kinds::List(list) => return list.push(raw, &self.checks, at, row),
            Kinds::Struct(fields) => return fields.push(raw, at, row),
            _ => return,
        };
        row.wrong_type(at, expected, raw);
        self.push_null();
    }

    /// No value of the column's type breaks a check of it or of what is inside.
    pub(super) fn takes_all(&self) -> bool {
        let inside = match &self.cells {
            Kinds::List(list) => list.takes_all(),
            Kinds::Struct(fields) => fields.takes_all(),
            _ => true,
        };
        inside && self.checks.is_none()
    }

    /// Holds the value at `i` of an array of the column's type, which is not null, against the checks.
    pub(super) fn recheck(&self, array: &dyn Array, i: usize, at: &Path<'_>, row: &mut Row<'_>) {
        let text = |array: &StringArray, row: &mut Row<'_>| {
            self.checks.text(array.value(i).as_bytes(), at, row);
        };
        match &self.cells {
            Kinds::Codes(_) => {
                let codes = array.as_dictionary::<Int32Type>();
                let value = codes.key(i).map(|code| codes.values().as_string::<i32>().value(code));
                self.checks.text(value.unwrap_or_default().as_bytes(), at, row);
            }
            Kinds::Text(_) => text(array.as_string(), row),
            Kinds::Int(_) => {
                self.checks.exact(array.as_primitive::<Int64Type>().value(i).into(), Unit::Int, at, row);
            }
            Kinds::Decimal(.., scale) => {
                let value = array.as_primitive::<Decimal128Type>().value(i);
                self.checks.exact(value, Unit::Decimal(*scale), at, row);
            }
            Kinds::Timestamp(_) => {
                let value = array.as_primitive::<TimestampMicrosecondType>().value(i);
                self.checks.exact(value.into(), Unit::Instant, at, row);
            }
            Kinds::Date(_) => {
                self.checks.exact(array.as_primitive::<Date32Type>().value(i).into(), Unit::Day, at, row);
            }
            Kinds::Float(_) => self.checks.float(array.as_primitive::<Float64Type>().value(i), at, row),
            Kinds::List(list) => list.recheck(&array.as_list::<i32>().value(i), &self.checks, at, row),
            Kinds::Struct(fields) => fields.recheck(array.as_struct(), i, at, row),
            Kinds::Bool(_) | Kinds::Json(_) => {}
        }
    }

    /// Adds a null row.
    pub(super) fn push_null(&mut self) {
        match &mut self.cells {
            Kinds::Codes(cells) => cells.push_null(),
            Kinds::Text(cells) | Kinds::Json(cells) => cells.push_null(),
            Kinds::Bool(cells) => cells.push_null(),
            Kinds::Int(cells) | Kinds::Timestamp(cells) => cells.push_null(),
            Kinds::Float(cells) => cells.push_null(),
            Kinds::Decimal(cells, ..) => cells.push_null(),
            Kinds::Date(cells) => cells.push_null(),
            Kinds::List(list) => list.push_null(),
            Kinds::Struct(fields) => fields.push_null(),
        }
    }

    /// Adds a row of a default; a value of another type than the column's is null.
    pub(super) fn push_value(&mut self, value: &Value) {
        match (&mut self.cells, value) {
            (Kinds::Codes(cells), Value::Text(text)) => {
                if cells.push(text.as_bytes()).is_none() {
                    // The contract's own default need not be in its enum; as an event's value it must.
                    let good = self.checks.holds(text.as_bytes());
                    cells.judge(good);
                }
            }
            (Kinds::Text(cells) | Kinds::Json(cells), Value::Text(text)) => {
                cells.push(text.as_bytes());
            }
            (Kinds::Bool(cells), Value::Bool(value)) => cells.push(*value),
            (Kinds::Int(cells), Value::Int(value)) => cells.push(*value),
            (Kinds::Float(cells), Value::Float(value)) => cells.push(*value),
            (Kinds::Float(cells), Value::Int(value)) => cells.push(*value as f64),
            (Kinds::Decimal(cells, _, scale), Value::Decimal(unscaled, has)) => {
                match super::check::exact(&Value::Decimal(*unscaled, *has), *scale, false) {
                    Some(value) => cells.push(value),
                    None => cells.push_null(),
                }
            }
            (Kinds::Decimal(cells, _, scale), Value::Int(value)) => {
                match super::check::exact(&Value::Int(*value), *scale, false) {
                    Some(value) => cells.push(value),
                    None => cells.push_null(),
                }
            }
            (Kinds::Timestamp(cells), Value::Timestamp(value)) => cells.push(*value),
            (Kinds::Date(cells), Value::Date(value)) => cells.push(*value),
            (Kinds::List(list), Value::List(values)) => list.push_values(values),
            _ => self.push_null(),
        }
    }

    /// Takes rows back until `len` are left.
    #[inline]
    pub(super) fn truncate(&mut self, len: usize) {
        match &mut self.cells {
            Kinds::Codes(cells) => cells.truncate(len),
            Kinds::Text(cells) | Kinds::Json(cells) => cells.truncate(len),
            Kinds::Bool(cells) => cells.truncate(len),
            Kinds::Int(cells) | Kinds::Timestamp(cells) => cells.truncate(len),
            Kinds::Float(cells) => cells.truncate(len),
            Kinds::Decimal(cells, ..) => cells.truncate(len),
            Kinds::Date(cells) => cells.truncate(len),
            Kinds::List(list) => list.truncate(len),
            Kinds::Struct(fields) => fields.truncate(len),
        }
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        match &self.cells {
            Kinds::Codes(cells) => cells.len(),
            Kinds::Text(cells) | Kinds::Json(cells) => cells.len(),
            Kinds::Bool(cells) => cells.len(),
            Kinds::Int(cells) | Kinds::Timestamp(cells) => cells.len(),
            Kinds::Float(cells) => cells.len(),
            Kinds::Decimal(cells, ..) => cells.len(),
            Kinds::Date(cells) => cells.len(),
            Kinds::List(list) => list.len(),
            Kinds::Struct(fields) => fields.len(),
        }
    }

    /// The last row as an instant, where the column is one of instants or days.
    #[inline]
    pub(super) fn last_instant(&self) -> Option<i64> {
        match &self.cells {
            Kinds::Timestamp(cells) => cells.last(),
            Kinds::Date(cells) => Some(i64::from(cells.last()?) * 86_400_000_000),
            _ => None,
        }
    }

    /// Gives the last row an instant if it is null and the column is one of instants.
    pub(super) fn fill_instant(&mut self, micros: i64) {
        if let Kinds::Timestamp(cells) = &mut self.cells {
            cells.fill_last(micros);
        }
    }

    /// The rows as an array of type `ty`, which is that of the field; the column is empty again.
    pub(super) fn take(&mut self, ty: &DataType) -> ArrayRef {
        match &mut self.cells {
            Kinds::Codes(cells) => cells.take(),
            Kinds::Text(cells) | Kinds::Json(cells) => Arc::new(cells.take()),
            Kinds::Bool(cells) => {
                let (values, nulls) = cells.take();
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            Kinds::Int(cells) => {
                let (values, nulls) = cells.take();
                Arc::new(Int64Array::new(ScalarBuffer::from(values), nulls))
            }
            Kinds::Float(cells) => {
                let (values, nulls) = cells.take();
                Arc::new(Float64Array::new(ScalarBuffer::from(values), nulls))
            }
            Kinds::Decimal(cells, precision, scale) => {
                let (values, nulls) = cells.take();
                let array = Decimal128Array::new(ScalarBuffer::from(values), nulls)
                    .with_precision_and_scale(*precision, *scale)
                    .expect("the contract's decimal type is one of Arrow's");
                Arc::new(array)
            }
            Kinds::Timestamp(cells) => {
                let (values, nulls) = cells.take();
                Arc::new(instants(values, nulls))
            }
            Kinds::Date(cells) => {
                let (values, nulls) = cells.take();
                Arc::new(Date32Array::new(ScalarBuffer::from(values), nulls))
            }
            Kinds::List(list) => list.take(ty),
            Kinds::Struct(fields) => fields.take(ty),
        }
    }
}

/// Adds text by its code; its checks are made once per value.
#[inline]
fn code(cells: &mut Codes, checks: &Ready, text: &[u8], at: &Path<'_>, row: &mut Row<'_>) {
    match cells.push(text) {
        Some(true) => {}
        Some(false) => {
            checks.text(text, at, row);
        }
        None => {
            let good = checks.text(text, at, row);
            cells.judge(good);
        }
    }
}

/// An array of the system's timestamp type.
pub(super) fn instants(
    values: Vec<i64>,
    nulls: Option<arrow::buffer::NullBuffer>,
) -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::new(ScalarBuffer::from(values), nulls).with_timezone("UTC")
}

impl Kinds {
    fn of(
        ty: &FieldType,
        checks: &Checks,
        nested: &[NestedField],
        path: &mut Vec<String>,
        walker: &mut Walker,
    ) -> Self {
        match ty {
            FieldType::String => Self::Text(Texts::new()),
            FieldType::Json => Self::Json(Texts::new()),
            FieldType::Bool => Self::Bool(Cells::default()),
            FieldType::Int => Self::Int(Cells::default()),
            FieldType::Float => Self::Float(Cells::default()),
            FieldType::Decimal { precision, scale } => Self::Decimal(Cells::default(), *precision, *scale),
            FieldType::Timestamp => Self::Timestamp(Cells::default()),
            FieldType::Date => Self::Date(Cells::default()),
            FieldType::List(item) => Self::List(Box::new(List::of(item, checks, nested, path, walker))),
            FieldType::Struct(fields) => Self::Struct(Struct::of(fields, nested, path, walker)),
        }
    }
}

#[cold]
fn not_exact(why: NotExact, precision: u8, scale: i8) -> String {
    match why {
        NotExact::NotANumber => {
            format!("a decimal({precision},{scale}) as a number or a quoted number")
        }
        NotExact::Scale => format!("at most {scale} digits after the point (decimal({precision},{scale}))"),
        NotExact::Precision => format!(
            "at most {} digits before the point (decimal({precision},{scale}))",
            i16::from(precision) - i16::from(scale)
        ),
    }
}

/// Any value as its JSON text.
fn json(raw: Raw<'_>) -> Option<std::borrow::Cow<'_, [u8]>> {
    use std::borrow::Cow;
    match raw {
        Raw::Bool(true) => Some(Cow::Borrowed(b"true".as_slice())),
        Raw::Bool(false) => Some(Cow::Borrowed(b"false".as_slice())),
        Raw::Integer(text) | Raw::Number(text) | Raw::Object(text) | Raw::Array(text) => {
            Some(Cow::Borrowed(text))
        }
        Raw::Text(inside) | Raw::Escaped(inside) => {
            Some(Cow::Owned([b"\"".as_slice(), inside, b"\""].concat()))
        }
        Raw::Cell(cell) => super::nested::parse(cell).map(|_| Cow::Borrowed(cell)),
        Raw::Absent | Raw::Null => None,
    }
}
