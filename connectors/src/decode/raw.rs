//! A value as it stands in the input, not yet taken apart.
//!
//! *In*: a checked JSON value, a CSV or Arrow cell. *Out*: its reading as a declared type, exactly.
//! *Never*: a coercion that loses something; what does not fit is an error of the caller's words.

use std::borrow::Cow;

use super::number::{self, NotExact};
use super::scan::Kind;
use super::{text, time};

/// See the module's words. Slices are checked UTF-8.
#[derive(Debug, Clone, Copy)]
pub(super) enum Raw<'a> {
    /// The key is not there.
    Absent,
    /// JSON null, an empty cell.
    Null,
    Bool(bool),
    /// A JSON number without fraction and exponent.
    Integer(&'a [u8]),
    /// Any other JSON number.
    Number(&'a [u8]),
    /// A string's text.
    Text(&'a [u8]),
    /// A string with escapes, as between its quotes.
    Escaped(&'a [u8]),
    /// From brace to brace.
    Object(&'a [u8]),
    /// From bracket to bracket.
    Array(&'a [u8]),
    /// A cell of a format without types of its own: the declared type reads it.
    Cell(&'a [u8]),
}

impl<'a> Raw<'a> {
    #[inline(always)]
    pub(super) fn of(kind: Kind, bytes: &'a [u8]) -> Self {
        match kind {
            Kind::Null => Self::Null,
            Kind::True => Self::Bool(true),
            Kind::False => Self::Bool(false),
            Kind::Integer => Self::Integer(bytes),
            Kind::Number => Self::Number(bytes),
            Kind::Text => Self::Text(bytes),
            Kind::Escaped => Self::Escaped(bytes),
            Kind::Object => Self::Object(bytes),
            Kind::Array => Self::Array(bytes),
        }
    }

    /// Neither a key nor a value worth naming.
    #[inline]
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Absent | Self::Null)
    }

    /// The text of a string.
    #[inline]
    pub(super) fn text(self) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Text(text) | Self::Cell(text) => Some(Cow::Borrowed(text)),
            Self::Escaped(inside) => text::unescape(inside),
            _ => None,
        }
    }

    /// The text of an id: a string or an integer.
    #[inline]
    pub(super) fn id(self) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Integer(digits) => Some(Cow::Borrowed(digits)),
            raw => raw.text(),
        }
    }

    #[inline]
    pub(super) fn integer(self) -> Option<i64> {
        match self {
            Self::Integer(text) | Self::Cell(text) => number::integer(text),
            _ => None,
        }
    }

    pub(super) fn float(self) -> Option<f64> {
        match self {
            Self::Integer(text) | Self::Number(text) | Self::Cell(text) => number::float(text),
            _ => None,
        }
    }

    pub(super) fn boolean(self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(value),
            Self::Cell(cell) if cell.eq_ignore_ascii_case(b"true") => Some(true),
            Self::Cell(cell) if cell.eq_ignore_ascii_case(b"false") => Some(false),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn decimal(self, precision: u8, scale: i8) -> Result<i128, NotExact> {
        match self {
            Self::Integer(text) | Self::Number(text) | Self::Text(text) | Self::Cell(text) => {
                number::decimal(text, precision, scale)
            }
            Self::Escaped(inside) => text::unescape(inside)
                .ok_or(NotExact::NotANumber)
                .and_then(|text| number::decimal(&text, precision, scale)),
            _ => Err(NotExact::NotANumber),
        }
    }

    /// Microseconds since the epoch.
    #[inline]
    pub(super) fn instant(self) -> Option<i64> {
        match self {
            Self::Integer(text) => time::millis(number::integer(text)?),
            Self::Text(text) => time::instant(text),
            Self::Escaped(inside) => time::instant(&text::unescape(inside)?),
            Self::Cell(cell) => time::instant(cell).or_else(|| time::millis(number::integer(cell)?)),
            _ => None,
        }
    }

    /// Days since the epoch.
    pub(super) fn date(self) -> Option<i32> {
        time::date(&match self {
            Self::Integer(_) => return None,
            raw => raw.text()?,
        })
    }

    /// The value as a message shows it, at most about 80 characters.
    pub(super) fn found(self) -> String {
        match self {
            Self::Absent => "nothing".to_owned(),
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Integer(text) | Self::Number(text) | Self::Cell(text) => text::clip(text),
            Self::Text(text) => format!("\"{}\"", text::clip(text)),
            Self::Escaped(inside) => format!("\"{}\"", text::clip(inside)),
            Self::Object(_) => "an object".to_owned(),
            Self::Array(_) => "an array".to_owned(),
        }
    }
}
