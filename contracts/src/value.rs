//! Types and values that contracts speak of, and how they look as JSON.
//!
//! *In*: declared types, Arrow cells. *Out*: [`FieldType`], [`ValueType`], [`Value`].
//! *Never*: money through floats.

use std::sync::Arc;

pub mod columns;
pub mod decimal;
mod json;
mod order;
pub mod stored;
pub mod time;

pub use columns::{WrongType, to_arrow, type_name};
pub use decimal::{DecimalError, format_decimal, parse_decimal};
pub use json::duration_in;
pub use time::{format_date, format_timestamp, parse_date, parse_timestamp};

use arrow::datatypes::{DataType, Field as ArrowField, Fields, TimeUnit};

/// The type of a declared event field (`fields.<name>.type`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// UTF-8 text.
    String,
    /// `true` or `false`.
    Bool,
    /// 64-bit signed integer.
    Int,
    /// 64-bit IEEE 754; never for money.
    Float,
    /// Exact decimal with `precision` digits, `scale` of them after the point (precision <= 38).
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point, 0 to `precision`.
        scale: i8,
    },
    /// An instant, microseconds since the Unix epoch, UTC.
    Timestamp,
    /// A calendar day.
    Date,
    /// A list of one element type.
    List(Box<FieldType>),
    /// Named fields.
    Struct(Vec<(String, FieldType)>),
    /// Any JSON, kept as its text.
    Json,
}

impl FieldType {
    /// The Arrow type a decoded column of this field has.
    ///
    /// `dictionary` asks for interned text (`Dictionary(Int32, Utf8)`), used for top-level string
    /// fields of few values; it changes nothing for other types.
    pub fn arrow(&self, dictionary: bool) -> DataType {
        match self {
            Self::String if dictionary => {
                DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
            }
            Self::String | Self::Json => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
            Self::Timestamp => timestamp_type(),
            Self::Date => DataType::Date32,
            Self::List(item) => DataType::List(Arc::new(ArrowField::new("item", item.arrow(false), true))),
            Self::Struct(fields) => DataType::Struct(
                fields
                    .iter()
                    .map(|(name, ty)| ArrowField::new(name, ty.arrow(false), true))
                    .collect::<Fields>(),
            ),
        }
    }
}

/// Arrow type of every instant in the system: microseconds, UTC.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The type of an expression's result, a measure or a dimension: what a single answer cell can be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// `true` or `false`.
    Bool,
    /// 64-bit signed integer.
    Int,
    /// 64-bit IEEE 754.
    Float,
    /// Exact decimal; answers carry it as a string with `scale` digits after the point.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// UTF-8 text.
    Text,
    /// Microseconds since the Unix epoch, UTC.
    Timestamp,
    /// A calendar day.
    Date,
    /// A length of time in microseconds; answers carry seconds.
    Duration,
    /// A histogram: rows of `{le, count}`.
    Histogram,
    /// The most frequent values: rows of `{value, count}`.
    Ranking,
}

impl ValueType {
    /// The Arrow type of a column of such values; `None` for histograms and rankings, which are no column.
    pub fn arrow(&self) -> Option<DataType> {
        Some(match self {
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
            Self::Text => DataType::Utf8,
            Self::Timestamp => timestamp_type(),
            Self::Date => DataType::Date32,
            Self::Duration => DataType::Duration(TimeUnit::Microsecond),
            Self::Histogram | Self::Ranking => return None,
        })
    }

    /// The declared field type's cell type; `None` for lists and structs.
    pub fn of_field(ty: &FieldType) -> Option<Self> {
        Some(match ty {
            FieldType::String | FieldType::Json => Self::Text,
            FieldType::Bool => Self::Bool,
            FieldType::Int => Self::Int,
            FieldType::Float => Self::Float,
            FieldType::Decimal { precision, scale } => Self::Decimal { precision: *precision, scale: *scale },
            FieldType::Timestamp => Self::Timestamp,
            FieldType::Date => Self::Date,
            FieldType::List(_) | FieldType::Struct(_) => return None,
        })
    }
}

impl std::fmt::Display for ValueType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Float => f.write_str("float"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Text => f.write_str("string"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Date => f.write_str("date"),
            Self::Duration => f.write_str("duration"),
            Self::Histogram => f.write_str("histogram"),
            Self::Ranking => f.write_str("ranking"),
        }
    }
}

impl std::fmt::Display for FieldType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::String => f.write_str("string"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Float => f.write_str("float"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Date => f.write_str("date"),
            Self::List(item) => write!(f, "list of {item}"),
            Self::Struct(fields) => {
                f.write_str("struct {")?;
                for (i, (name, ty)) in fields.iter().enumerate() {
                    write!(f, "{}{name}: {ty}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
            Self::Json => f.write_str("json"),
        }
    }
}

/// One cell: what folds keep, entities show and answers carry. Ordered and hashable, so that it can
/// be a group key and a multiset element; floats compare by `f64::total_cmp`.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub enum Value {
    /// Nothing to say; never 0.
    #[default]
    Null,
    /// Boolean.
    Bool(bool),
    /// Integer.
    Int(i64),
    /// Float.
    Float(f64),
    /// `unscaled / 10^scale`.
    Decimal(i128, i8),
    /// Text.
    Text(#[serde(deserialize_with = "stored::text")] Arc<str>),
    /// Microseconds since the Unix epoch.
    Timestamp(i64),
    /// Days since the Unix epoch.
    Date(i32),
    /// Microseconds.
    Duration(i64),
    /// Several values (a `set` field of an entity).
    List(Arc<[Value]>),
    /// Histogram rows: upper bound (`None` = infinity) and count of values <= the bound and above
    /// the previous one.
    Histogram(Arc<[(Option<f64>, u64)]>),
    /// `top`: values with how often they occur, the most frequent first.
    Ranking(Arc<[(Value, u64)]>),
}
