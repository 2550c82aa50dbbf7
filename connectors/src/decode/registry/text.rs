//! JSON text being written.
//!
//! *In*: values one after the other. *Out*: JSON. *Never*: more than [`MOST`] bytes: a few bytes of Avro can
//! stand for a list without end.

use std::io::Write as _;

use base64::Engine as _;
use jiff::Timestamp;
use jiff::civil::Date;

/// Longest text of one record.
const MOST: usize = 64 << 20;

/// See the module's words.
#[derive(Debug, Default)]
pub(super) struct Text {
    bytes: Vec<u8>,
}

impl Text {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The buffer itself, to be put back.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    pub(super) fn put_back(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
    }

    /// Fails when the text has become too long.
    pub(super) fn room(&self) -> Result<(), String> {
        if self.bytes.len() > MOST {
            return Err(format!("as JSON it has more than {MOST} bytes"));
        }
        Ok(())
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn string(&mut self, text: &str) {
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(&mut self.bytes, text);
    }

    /// Text that needs no escape.
    pub(super) fn plain(&mut self, text: &str) {
        self.bytes.push(b'"');
        self.raw(text.as_bytes());
        self.bytes.push(b'"');
    }

    pub(super) fn number(&mut self, value: impl std::fmt::Display) {
        let _ = write!(self.bytes, "{value}");
    }

    /// With a point or an exponent, so that nobody takes it for an integer; what is no number, as text.
    pub(super) fn float(&mut self, value: f64) {
        if value.is_finite() {
            let _ = write!(self.bytes, "{value:?}");
        } else {
            self.plain(if value.is_nan() {
                "NaN"
            } else if value > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            });
        }
    }

    /// The shortest text of a float of 32 bits.
    pub(super) fn single(&mut self, value: f32) {
        if value.is_finite() {
            let _ = write!(self.bytes, "{value:?}");
        } else {
            self.float(value.into());
        }
    }

    pub(super) fn base64(&mut self, bytes: &[u8]) {
        self.plain(&base64::engine::general_purpose::STANDARD.encode(bytes));
    }

    /// RFC 3339; what no calendar of ours holds, as words that no type reads.
    pub(super) fn instant(&mut self, micros: Option<i64>) {
        match micros.and_then(|micros| Timestamp::from_microsecond(micros).ok()) {
            Some(instant) => self.plain(&instant.to_string()),
            None => self.plain("out of the years -9999 to 9999"),
        }
    }

    pub(super) fn day(&mut self, days: i64) {
        let span = i32::try_from(days).ok().and_then(|days| jiff::Span::new().try_days(days).ok());
        match span.and_then(|span| Date::constant(1970, 1, 1).checked_add(span).ok()) {
            Some(date) => self.plain(&date.to_string()),
            None => self.plain("out of the years -9999 to 9999"),
        }
    }

    /// `HH:MM:SS` with as many fraction digits as needed.
    pub(super) fn time_of_day(&mut self, micros: i64) {
        let (seconds, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
        let whole = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        if rest == 0 { self.plain(&whole) } else { self.plain(&format!("{whole}.{rest:06}")) }
    }
}
