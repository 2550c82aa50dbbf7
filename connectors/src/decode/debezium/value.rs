//! A value of a change event in the contract's type.
//!
//! *In*: a raw value, what the schema says of it, the declared type. *Out*: a [`Cell`] that the columns read
//! as they read any event's value. *Never*: a decimal that a double may have rounded, a unit chosen by
//! the size of a number.

use base64::Engine as _;
use contracts::value::FieldType;
use jiff::Timestamp;
use jiff::civil::Date;

use super::schema::Shape;
use super::spec::{Debezium, Decimals, Unit};
use crate::decode::raw::Raw;
use crate::decode::scan::{Elements, Kind, Scan};
use crate::decode::{nested, number};

/// What a connector writes for a large value that did not change and was not in the log.
const UNAVAILABLE: &[u8] = b"__debezium_unavailable_value";
/// The same in base64.
const UNAVAILABLE_BASE64: &[u8] = b"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";
/// Decimal digits that every double, and every float of 32 bits, carries exactly.
const DOUBLE_DIGITS: usize = 15;
const SINGLE_DIGITS: usize = 6;
/// Read by a connector's usual unit, no instant this near to 1970 is believed: it is likely of another unit.
const TOO_NEAR: i64 = 31 * 86_400 * 1_000_000;

/// A value ready for its column.
#[derive(Debug)]
pub(super) enum Cell<'a> {
    /// As it stands.
    Raw(Raw<'a>),
    /// Text that the declared type reads.
    Text(String),
    /// A JSON array.
    Array(Vec<u8>),
}

impl Cell<'_> {
    pub(super) fn raw(&self) -> Raw<'_> {
        match self {
            Self::Raw(raw) => *raw,
            Self::Text(text) => Raw::Cell(text.as_bytes()),
            Self::Array(bytes) => Raw::Array(bytes),
        }
    }
}

/// Why a value cannot be read.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// What was expected.
    WrongType(String),
    /// A placeholder stands there.
    Unavailable,
}

/// How values without a schema are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    spec: Debezium,
    /// The unit of integer timestamps that the settings name, or else the connector's usual one.
    unit: Option<Unit>,
}

impl Rules {
    /// `connector` is `source.connector` of the record.
    pub(super) fn new(spec: &Debezium, connector: Raw<'_>) -> Self {
        let usual = match connector.text().as_deref() {
            // `timestamp` is `timestamp(6)` there, and `DATETIME` is `DATETIME(0)`.
            Some(b"postgresql") => Some(Unit::Micros),
            Some(b"mysql" | b"mariadb") => Some(Unit::Millis),
            _ => None,
        };
        Self { spec: *spec, unit: spec.times.or(usual) }
    }

    /// Reads `raw` as `ty`.
    pub(super) fn cell<'a>(&self, raw: Raw<'a>, shape: &Shape, ty: &FieldType) -> Result<Cell<'a>, Fault> {
        if raw.is_nothing() {
            return Ok(Cell::Raw(raw));
        }
        if unavailable(raw, shape) {
            return Err(Fault::Unavailable);
        }
        match ty {
            FieldType::Decimal { precision, scale } => self.decimal(raw, shape, *precision, *scale),
            FieldType::Timestamp => self.timestamp(raw, shape),
            FieldType::Date => date(raw, shape),
            FieldType::Bool => Ok(Cell::Raw(boolean(raw))),
            FieldType::Int | FieldType::Float => number_of(raw, shape),
            FieldType::String => text(raw, shape),
            FieldType::Json | FieldType::Struct(_) => Ok(parsed(raw)),
            FieldType::List(item) => self.list(raw, shape, item),
        }
    }

    fn decimal<'a>(&self, raw: Raw<'a>, shape: &Shape, precision: u8, scale: i8) -> Result<Cell<'a>, Fault> {
        let wanted = || format!("a decimal({precision},{scale})");
        match (shape, raw) {
            (Shape::Decimal { scale }, raw) => precise(raw, *scale).map(Cell::Text).ok_or_else(|| {
                Fault::WrongType(format!(
                    "{} as base64 of its bytes (decimal.handling.mode=precise)",
                    wanted()
                ))
            }),
            (Shape::VariableDecimal | Shape::Unknown, Raw::Object(object)) => {
                let text = variable(object).map(Cell::Text);
                text.ok_or_else(|| {
                    Fault::WrongType(format!("{} as an object of `scale` and `value`", wanted()))
                })
            }
            (Shape::Double { single }, raw) => double(raw, *single, precision, scale),
            (Shape::Unknown | Shape::Canonical, Raw::Number(_)) => double(raw, false, precision, scale),
            (Shape::Unknown, Raw::Text(text)) => self.decimal_text(raw, text, precision, scale),
            _ => Ok(Cell::Raw(raw)),
        }
    }

    /// A decimal's text without a schema: base64 or digits?
    fn decimal_text<'a>(
        &self,
        raw: Raw<'a>,
        text: &[u8],
        precision: u8,
        scale: i8,
    ) -> Result<Cell<'a>, Fault> {
        let plain = match self.spec.decimals {
            Some(Decimals::Precise) => false,
            Some(Decimals::String | Decimals::Double) => true,
            // Neither a point nor a minus is a sign of base64.
            None if text.iter().any(|byte| matches!(byte, b'.' | b'-')) => true,
            None if !text.len().is_multiple_of(4) => true,
            None if text.iter().all(u8::is_ascii_digit) => {
                return Err(Fault::WrongType(format!(
                    "a decimal({precision},{scale}) that is not both a number and base64: without a schema this may \
                     be either; set `debezium: {{ decimals: precise }}` or `string` on the source, as the \
                     connector's decimal.handling.mode is"
                )));
            }
            None => false,
        };
        if plain {
            return Ok(Cell::Raw(raw));
        }
        precise(raw, scale.into()).map(Cell::Text).ok_or_else(|| {
            Fault::WrongType(format!(
                "a decimal({precision},{scale}) as base64 of its bytes; if the connector's decimal.handling.mode is \
                 string, set `debezium: {{ decimals: string }}` on the source"
            ))
        })
    }

    fn timestamp<'a>(&self, raw: Raw<'a>, shape: &Shape) -> Result<Cell<'a>, Fault> {
        let Raw::Integer(digits) = raw else { return Ok(Cell::Raw(raw)) };
        let count = number::integer(digits);
        let told = "a timestamp of the years 0 to 9999".to_owned();
        let (micros, sure) = match shape {
            Shape::Instant(unit) => (count.and_then(|count| unit.micros(count)), true),
            Shape::Day => (count.and_then(|days| days.checked_mul(86_400_000_000)), true),
            Shape::Unknown => match self.unit {
                Some(unit) => (count.and_then(|count| unit.micros(count)), self.spec.times.is_some()),
                None => {
                    return Err(Fault::WrongType(
                        "a timestamp as text: without a schema the unit of an integer is unknown; set `debezium: { \
                         times: millis }`, `micros` or `nanos` on the source, as the connector's \
                         time.precision.mode is"
                            .to_owned(),
                    ));
                }
            },
            _ => return Ok(Cell::Raw(raw)),
        };
        if let Some(micros) = micros.filter(|micros| !sure && *micros != 0 && micros.abs() < TOO_NEAR) {
            let read = instant(micros).unwrap_or_default();
            return Err(Fault::WrongType(format!(
                "a timestamp; in this connector's usual unit it would be {read}, which is likely another unit: set \
                 `debezium: {{ times: millis }}`, `micros` or `nanos` on the source, or send schemas"
            )));
        }
        micros.and_then(instant).map(Cell::Text).ok_or(Fault::WrongType(told))
    }

    fn list<'a>(&self, raw: Raw<'a>, shape: &Shape, item: &FieldType) -> Result<Cell<'a>, Fault> {
        let Raw::Array(bytes) = raw else { return Ok(parsed(raw)) };
        let shape = match shape {
            Shape::List(item) => item,
            Shape::Unknown => &Shape::Unknown,
            _ => return Ok(Cell::Raw(raw)),
        };
        let mut out = vec![b'['];
        let mut scan = Scan::new(bytes);
        let mut elements = Elements::new(1);
        // The array is checked: an error cannot come.
        while let Ok(Some((kind, start, end))) = elements.next(&mut scan, 1) {
            let value = Raw::of(kind, nested::unquoted(kind, bytes, start, end));
            if out.len() > 1 {
                out.push(b',');
            }
            match self.cell(value, shape, item)? {
                Cell::Raw(Raw::Bool(value)) if !matches!(kind, Kind::True | Kind::False) => {
                    out.extend_from_slice(if value { b"true" } else { b"false" });
                }
                Cell::Raw(_) => out.extend_from_slice(&bytes[start..end]),
                // Converted texts are digits and ASCII signs: nothing to escape; a number stays one.
                Cell::Text(text) if matches!(item, FieldType::Int | FieldType::Float) => {
                    out.extend_from_slice(text.as_bytes());
                }
                Cell::Text(text) => {
                    out.push(b'"');
                    out.extend_from_slice(text.as_bytes());
                    out.push(b'"');
                }
                Cell::Array(array) => out.extend_from_slice(&array),
            }
        }
        out.push(b']');
        Ok(Cell::Array(out))
    }
}

/// Whether a placeholder stands there.
pub(super) fn unavailable(raw: Raw<'_>, shape: &Shape) -> bool {
    match raw {
        Raw::Text(text) => {
            text == UNAVAILABLE
                || (matches!(shape, Shape::Bytes | Shape::Unknown) && text == UNAVAILABLE_BASE64)
        }
        // Arrays and maps of the placeholder.
        Raw::Array(bytes) | Raw::Object(bytes) if bytes.len() <= UNAVAILABLE.len() * 2 + 12 => {
            let inside = bytes.get(1..bytes.len() - 1).unwrap_or_default().trim_ascii();
            inside.strip_prefix(b"\"").is_some_and(|rest| rest.starts_with(UNAVAILABLE))
        }
        _ => false,
    }
}

/// The decimal text of an unscaled value in base64.
fn precise(raw: Raw<'_>, scale: i64) -> Option<String> {
    let text = raw.text()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(&*text).ok()?;
    shown(unscaled(&bytes)?, scale)
}

/// Big-endian two's complement of up to 16 significant bytes; no bytes are 0 by no connector, hence nothing.
pub(in crate::decode) fn unscaled(bytes: &[u8]) -> Option<i128> {
    let first = *bytes.first()?;
    let fill = if first & 0x80 == 0 { 0 } else { 0xFF };
    let (extra, low) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut all = [fill; 16];
    all[16 - low.len()..].copy_from_slice(low);
    let value = i128::from_be_bytes(all);
    let same_sign = (value < 0) == (fill == 0xFF);
    (extra.iter().all(|byte| *byte == fill) && same_sign).then_some(value)
}

/// `unscaled / 10^scale` as text; scales may be negative.
pub(in crate::decode) fn shown(unscaled: i128, scale: i64) -> Option<String> {
    if scale < 0 {
        let factor = number::ten(usize::try_from(-scale).ok()?)?;
        return Some(unscaled.checked_mul(factor)?.to_string());
    }
    // `show` counts places in a byte; no decimal of Arrow has more.
    let scale = i8::try_from(scale).ok()?;
    Some(number::show(unscaled, scale))
}

/// `{"scale": 2, "value": "<base64>"}`.
fn variable(object: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Variable {
        scale: i64,
        value: String,
    }
    let Variable { scale, value } = serde_json::from_slice(object).ok()?;
    precise(Raw::Text(value.as_bytes()), scale)
}

/// A double as a decimal: only where no other decimal of the scale could have become the same double.
fn double(raw: Raw<'_>, single: bool, precision: u8, scale: i8) -> Result<Cell<'_>, Fault> {
    let digits = if single { SINGLE_DIGITS } else { DOUBLE_DIGITS };
    let most = number::ten(digits).unwrap_or(i128::MAX);
    let exact = matches!(raw.decimal(precision, scale), Ok(value) if value.abs() < most);
    if exact {
        return Ok(Cell::Raw(raw));
    }
    Err(Fault::WrongType(format!(
        "a decimal({precision},{scale}) that a float cannot have rounded (at most {digits} digits, {scale} after the \
         point); set decimal.handling.mode=string on the connector"
    )))
}

fn date<'a>(raw: Raw<'a>, shape: &Shape) -> Result<Cell<'a>, Fault> {
    match (raw, shape) {
        (Raw::Integer(digits), Shape::Day | Shape::Unknown) => {
            let days = number::integer(digits).and_then(day);
            days.map(Cell::Text)
                .ok_or_else(|| Fault::WrongType("days since 1970 of the years 0 to 9999".to_owned()))
        }
        // `io.debezium.time.IsoDate`
        (Raw::Text(text), _) => match text.strip_suffix(b"Z") {
            Some(date) => Ok(Cell::Raw(Raw::Text(date))),
            None => Ok(Cell::Raw(raw)),
        },
        _ => Ok(Cell::Raw(raw)),
    }
}

/// `YYYY-MM-DD` of days since the epoch.
fn day(days: i64) -> Option<String> {
    let days = i32::try_from(days).ok()?;
    let date = Date::constant(1970, 1, 1).checked_add(jiff::Span::new().try_days(days).ok()?).ok()?;
    (date.year() >= 0).then(|| date.to_string())
}

/// RFC 3339 text of microseconds since the epoch.
fn instant(micros: i64) -> Option<String> {
    let instant = Timestamp::from_microsecond(micros).ok()?;
    (micros >= -62_167_219_200_000_000).then(|| instant.to_string())
}

/// MySQL's `TINYINT(1)` is a number.
fn boolean(raw: Raw<'_>) -> Raw<'_> {
    match raw {
        Raw::Integer(b"0") => Raw::Bool(false),
        Raw::Integer(b"1") => Raw::Bool(true),
        other => other,
    }
}

/// `BIGINT UNSIGNED` and `numeric(20,0)` come as decimals.
fn number_of<'a>(raw: Raw<'a>, shape: &Shape) -> Result<Cell<'a>, Fault> {
    let text = match (shape, raw) {
        (Shape::Decimal { scale }, raw) => precise(raw, *scale),
        (Shape::VariableDecimal, Raw::Object(object)) => variable(object),
        _ => return Ok(Cell::Raw(raw)),
    };
    text.map(Cell::Text).ok_or_else(|| Fault::WrongType("a decimal as base64 of its bytes".to_owned()))
}

/// What has a canonical text is read as that.
fn text<'a>(raw: Raw<'a>, shape: &Shape) -> Result<Cell<'a>, Fault> {
    let count = match raw {
        Raw::Integer(digits) => number::integer(digits),
        _ => None,
    };
    let text = match (shape, raw, count) {
        (Shape::Decimal { scale }, raw, _) => precise(raw, *scale),
        (Shape::VariableDecimal, Raw::Object(object), _) => variable(object),
        (Shape::Instant(unit), _, Some(count)) => unit.micros(count).and_then(instant),
        (Shape::Day, _, Some(days)) => day(days),
        (Shape::TimeOfDay(unit), _, Some(count)) => unit.micros(count).and_then(time_of_day),
        _ => return Ok(Cell::Raw(raw)),
    };
    text.map(Cell::Text).ok_or_else(|| Fault::WrongType("a value of the type its schema names".to_owned()))
}

/// `HH:MM:SS` with as many fraction digits as needed; 24:00:00 is PostgreSQL's.
fn time_of_day(micros: i64) -> Option<String> {
    if !(0..=86_400_000_000).contains(&micros) {
        return None;
    }
    let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
    let whole = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    Some(if rest == 0 { whole } else { format!("{whole}.{rest:06}") })
}

/// JSON columns come as text.
fn parsed(raw: Raw<'_>) -> Cell<'_> {
    match raw {
        Raw::Text(text) => Cell::Raw(Raw::Cell(text)),
        Raw::Escaped(_) => match raw.text().and_then(|text| String::from_utf8(text.into_owned()).ok()) {
            Some(text) => Cell::Text(text),
            None => Cell::Raw(raw),
        },
        raw => Cell::Raw(raw),
    }
}

#[cfg(test)]
mod tests;
