//! Checks of a value against its contract: enum, pattern, least and greatest, lengths.
//!
//! *In*: a value of the declared type. *Out*: a reason for each check it breaks. *Never*: a regular
//! expression compiled per row, a rounded bound.

use contracts::catalog::Checks;
use contracts::value::{FieldType, Value};
use regex::bytes::Regex;

use super::number::{show, ten};
use super::reason::{Path, Row};
use super::time;
use super::walk::Walker;

/// Checks made ready for one field. Exact values (int, decimal, timestamp, date) are compared as `i128`
/// in the column's unit.
#[derive(Debug, Default)]
pub(super) struct Ready {
    one_of: Option<Vec<String>>,
    pattern: Option<(String, Result<Regex, String>)>,
    min: Option<i128>,
    max: Option<i128>,
    float_min: Option<f64>,
    float_max: Option<f64>,
    text_min: Option<String>,
    text_max: Option<String>,
    min_length: Option<u64>,
    max_length: Option<u64>,
    /// Nothing to check.
    none: bool,
}

/// How an exact value is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    Int,
    Decimal(i8),
    Instant,
    Day,
}

impl Unit {
    fn show(self, value: i128) -> String {
        match self {
            Self::Int => value.to_string(),
            Self::Decimal(scale) => show(value, scale),
            Self::Instant => time::show(value as i64),
            Self::Day => {
                let instant = time::show((value as i64).saturating_mul(86_400_000_000));
                instant.split('T').next().unwrap_or_default().to_owned()
            }
        }
    }
}

impl Ready {
    pub(super) fn new(checks: &Checks, ty: &FieldType) -> Self {
        let scale = match ty {
            FieldType::Decimal { scale, .. } => *scale,
            _ => 0,
        };
        let bound = |value: &Option<Value>, up| value.as_ref().and_then(|v| exact(v, scale, up));
        let text = |value: &Option<Value>| match value {
            Some(Value::Text(text)) => Some(text.to_string()),
            _ => None,
        };
        let pattern = checks
            .pattern
            .as_ref()
            .map(|pattern| (pattern.clone(), Regex::new(pattern).map_err(|error| error.to_string())));
        Self {
            one_of: checks.one_of.clone(),
            pattern,
            min: bound(&checks.min, true),
            max: bound(&checks.max, false),
            float_min: checks.min.as_ref().and_then(float),
            float_max: checks.max.as_ref().and_then(float),
            text_min: text(&checks.min),
            text_max: text(&checks.max),
            min_length: checks.min_length,
            max_length: checks.max_length,
            none: checks.one_of.is_none()
                && checks.pattern.is_none()
                && checks.min.is_none()
                && checks.max.is_none()
                && checks.min_length.is_none()
                && checks.max_length.is_none(),
        }
    }

    /// There is nothing to check.
    pub(super) fn is_none(&self) -> bool {
        self.none
    }

    /// Checks text; true if all hold.
    #[inline]
    pub(super) fn text(&self, value: &[u8], at: &Path<'_>, row: &mut Row<'_>) -> bool {
        if self.none {
            return true;
        }
        let before = row.reasons.len();
        self.listed(value, at, row);
        match &self.pattern {
            Some((pattern, Ok(regex))) if !regex.is_match(value) => {
                let message = format!("found {}, must match {pattern}", row.shown(value));
                row.refuse("pattern", at, message);
            }
            Some((pattern, Err(error))) => {
                row.refuse("pattern", at, format!("the contract's pattern {pattern} is wrong: {error}"));
            }
            _ => {}
        }
        if let Some(min) = self.text_min.as_ref().filter(|min| value < min.as_bytes()) {
            row.refuse("min", at, format!("found {}, must be at least \"{min}\"", row.shown(value)));
        }
        if let Some(max) = self.text_max.as_ref().filter(|max| value > max.as_bytes()) {
            row.refuse("max", at, format!("found {}, must be at most \"{max}\"", row.shown(value)));
        }
        if self.min_length.is_some() || self.max_length.is_some() {
            // Characters: every byte but UTF-8 continuations.
            let characters = value.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
            self.length(characters, "characters", at, row);
        }
        row.reasons.len() == before
    }

    /// As [`Self::text`], without reasons.
    pub(super) fn holds(&self, value: &[u8]) -> bool {
        let mut walker = Walker::new();
        let mut row = Row { reasons: Vec::new(), hide: false, nested: &mut walker };
        self.text(value, &Path::Top(""), &mut row)
    }

    fn listed(&self, value: &[u8], at: &Path<'_>, row: &mut Row<'_>) {
        const SHOWN: usize = 20;
        let Some(allowed) = &self.one_of else { return };
        if allowed.iter().any(|text| text.as_bytes() == value) {
            return;
        }
        let mut list = allowed.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        if allowed.len() > SHOWN {
            list += &format!(" and {} more", allowed.len() - SHOWN);
        }
        row.refuse("not_in_enum", at, format!("found {}, allowed: {list}", row.shown(value)));
    }

    /// Checks a number of characters or items.
    pub(super) fn length(&self, length: usize, unit: &str, at: &Path<'_>, row: &mut Row<'_>) {
        if let Some(min) = self.min_length.filter(|min| (length as u64) < *min) {
            row.refuse("min_length", at, format!("has {length} {unit}, at least {min} are needed"));
        }
        if let Some(max) = self.max_length.filter(|max| length as u64 > *max) {
            row.refuse("max_length", at, format!("has {length} {unit}, at most {max} are allowed"));
        }
    }

    /// Checks an exact value in the column's unit.
    #[inline]
    pub(super) fn exact(&self, value: i128, unit: Unit, at: &Path<'_>, row: &mut Row<'_>) {
        if self.none {
            return;
        }
        if self.one_of.is_some() {
            self.listed(unit.show(value).as_bytes(), at, row);
        }
        if let Some(min) = self.min.filter(|min| value < *min) {
            self.outside("min", "at least", value, min, unit, at, row);
        }
        if let Some(max) = self.max.filter(|max| value > *max) {
            self.outside("max", "at most", value, max, unit, at, row);
        }
    }

    #[cold]
    #[allow(clippy::too_many_arguments)]
    fn outside(
        &self,
        code: &str,
        words: &str,
        value: i128,
        bound: i128,
        unit: Unit,
        at: &Path<'_>,
        row: &mut Row<'_>,
    ) {
        let found = if row.hide { "a hidden value".to_owned() } else { unit.show(value) };
        row.refuse(code, at, format!("found {found}, must be {words} {}", unit.show(bound)));
    }

    /// Checks a float.
    pub(super) fn float(&self, value: f64, at: &Path<'_>, row: &mut Row<'_>) {
        if self.none {
            return;
        }
        let found = |row: &Row<'_>| if row.hide { "a hidden value".to_owned() } else { value.to_string() };
        if let Some(min) = self.float_min.filter(|min| value < *min) {
            row.refuse("min", at, format!("found {}, must be at least {min}", found(row)));
        }
        if let Some(max) = self.float_max.filter(|max| value > *max) {
            row.refuse("max", at, format!("found {}, must be at most {max}", found(row)));
        }
    }
}

/// `value` in units of `10^-scale`; what does not fit is rounded towards the inside (`up` for least
/// values), so that the comparison stays exact.
pub(super) fn exact(value: &Value, scale: i8, up: bool) -> Option<i128> {
    let (unscaled, has) = match value {
        Value::Int(value) => (i128::from(*value), 0),
        Value::Decimal(unscaled, scale) => (*unscaled, *scale),
        Value::Timestamp(value) | Value::Duration(value) => (i128::from(*value), scale),
        Value::Date(value) => (i128::from(*value), scale),
        _ => return None,
    };
    if has <= scale {
        let factor = ten(usize::try_from(scale - has).ok()?)?;
        return Some(unscaled.saturating_mul(factor));
    }
    let divisor = ten(usize::try_from(has - scale).ok()?)?;
    let floor = unscaled.div_euclid(divisor);
    Some(floor + i128::from(up && unscaled.rem_euclid(divisor) != 0))
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        Value::Decimal(unscaled, scale) => show(*unscaled, *scale).parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::exact;
    use contracts::value::Value;

    #[test]
    fn bounds_of_another_scale_stay_exact() {
        assert_eq!(exact(&Value::Decimal(1, 3), 2, true), Some(1));
        assert_eq!(exact(&Value::Decimal(1, 3), 2, false), Some(0));
        assert_eq!(exact(&Value::Decimal(-1, 3), 2, true), Some(0));
        assert_eq!(exact(&Value::Decimal(-1, 3), 2, false), Some(-1));
        assert_eq!(exact(&Value::Int(5), 2, true), Some(500));
    }
}
