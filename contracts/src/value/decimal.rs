//! Exact decimals: text to unscaled integer and back, rescaling, rounding.
//!
//! *In*: decimal text, `i128` unscaled values with their scale. *Out*: the same, exactly.
//! *Never*: a float, a silently dropped digit.

use std::cmp::Ordering;

/// Digits that fit a decimal in all (Arrow's `Decimal128`).
pub const MAX_DIGITS: u8 = 38;

/// Why a text is not a decimal of the wanted precision and scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not the grammar `[+-]digits[.digits][e[+-]digits]`.
    #[error("not a decimal number")]
    NotANumber,
    /// More digits after the point than the scale holds.
    #[error("has more than {0} digits after the point")]
    NotExact(i8),
    /// More digits in all than the precision holds.
    #[error("has more digits than decimal({0},{1}) holds")]
    TooLarge(u8, i8),
}

/// `10^n`, `None` above `10^38`.
pub fn pow10(n: u32) -> Option<i128> {
    10i128.checked_pow(n)
}

/// The unscaled value of `text` in `decimal(precision, scale)`, exactly: `"1.5"` at scale 2 is 150,
/// `"1.505"` is [`DecimalError::NotExact`]. Exponents are by value: `1.5e1` is 15.
pub fn parse(text: &str, precision: u8, scale: i8) -> Result<i128, DecimalError> {
    let (negative, digits, exponent) = digits_of(text)?;
    // value = digits * 10^exponent; unscaled = digits * 10^(exponent + scale)
    let mut digits = digits.as_slice();
    let mut shift = exponent + i64::from(scale);
    while shift < 0 {
        match digits.split_last() {
            Some((0, rest)) => digits = rest,
            Some(_) => return Err(DecimalError::NotExact(scale)),
            None => break,
        }
        shift += 1;
    }
    let too_large = DecimalError::TooLarge(precision, scale);
    let mut unscaled: i128 = 0;
    if !digits.is_empty() {
        if digits.len() as i64 + shift > i64::from(precision) {
            return Err(too_large);
        }
        for digit in digits {
            unscaled = unscaled * 10 + i128::from(*digit);
        }
        // At most `precision` <= 38 digits, so neither step can leave i128.
        unscaled *= pow10(u32::try_from(shift).unwrap_or(0)).ok_or(too_large)?;
    }
    Ok(if negative { -unscaled } else { unscaled })
}

/// [`parse`] for callers that do not ask why not.
pub fn parse_decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    parse(text, precision, scale).ok()
}

/// Significant digits without leading zeros, and the exponent of the last one.
fn digits_of(text: &str) -> Result<(bool, Vec<u8>, i64), DecimalError> {
    let (negative, rest) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, mut exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], parse_exponent(&rest[at + 1..])?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() || (mantissa.contains('.') && fraction.is_empty()) {
        return Err(DecimalError::NotANumber);
    }
    let mut digits = Vec::with_capacity(mantissa.len());
    for byte in whole.bytes().chain(fraction.bytes()) {
        match byte {
            b'0' if digits.is_empty() => {}
            b'0'..=b'9' => digits.push(byte - b'0'),
            _ => return Err(DecimalError::NotANumber),
        }
    }
    exponent -= fraction.len() as i64;
    Ok((negative, digits, exponent))
}

/// Exponents beyond any decimal are cut to +-1,000,000: they are too large or not exact anyway.
fn parse_exponent(text: &str) -> Result<i64, DecimalError> {
    let (sign, digits) = match text.as_bytes() {
        [b'-', ..] => (-1, &text[1..]),
        [b'+', ..] => (1, &text[1..]),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DecimalError::NotANumber);
    }
    Ok(sign * digits.parse::<i64>().unwrap_or(1_000_000).min(1_000_000))
}

/// `unscaled / 10^scale` as text with `scale` digits after the point.
pub fn format_decimal(unscaled: i128, scale: i8) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = unscaled.unsigned_abs().to_string();
    if scale <= 0 {
        let zeros = if unscaled == 0 { 0 } else { usize::from(scale.unsigned_abs()) };
        return format!("{sign}{digits}{}", "0".repeat(zeros));
    }
    let scale = usize::from(scale.unsigned_abs());
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// `unscaled` of scale `from` at scale `to`; digits that do not fit are rounded half away from
/// zero. `None`: it leaves `i128`.
pub fn rescale(unscaled: i128, from: i8, to: i8) -> Option<i128> {
    let steps = i32::from(to) - i32::from(from);
    if steps >= 0 {
        if unscaled == 0 {
            return Some(0);
        }
        return unscaled.checked_mul(pow10(steps.unsigned_abs())?);
    }
    match pow10(steps.unsigned_abs()) {
        Some(divisor) => div_round(unscaled, divisor),
        // A divisor above 10^38 is more than twice any i128.
        None => Some(0),
    }
}

/// `unscaled` of scale `from` at scale `to`, `None` when a digit would be lost or it leaves `i128`.
pub fn rescale_exact(unscaled: i128, from: i8, to: i8) -> Option<i128> {
    let steps = i32::from(to) - i32::from(from);
    if steps >= 0 || unscaled == 0 {
        return rescale(unscaled, from, to);
    }
    let divisor = pow10(steps.unsigned_abs())?;
    (unscaled % divisor == 0).then(|| unscaled / divisor)
}

/// `a / b`, rounded half away from zero. `None`: `b` is 0, or the quotient leaves `i128`.
pub fn div_round(a: i128, b: i128) -> Option<i128> {
    let quotient = a.checked_div(b)?;
    let remainder = a.checked_rem(b)?.unsigned_abs();
    if remainder >= b.unsigned_abs() - remainder {
        if (a < 0) == (b < 0) { quotient.checked_add(1) } else { quotient.checked_sub(1) }
    } else {
        Some(quotient)
    }
}

/// Whether `unscaled` has at most `precision` digits.
pub fn fits(unscaled: i128, precision: u8) -> bool {
    pow10(u32::from(precision)).is_none_or(|limit| unscaled.unsigned_abs() < limit.unsigned_abs())
}

/// The same value with no trailing zero digits: what equality and hashes go by.
pub fn normalized(mut unscaled: i128, mut scale: i8) -> (i128, i8) {
    if unscaled == 0 {
        return (0, 0);
    }
    while unscaled % 10 == 0 && scale > i8::MIN {
        unscaled /= 10;
        scale -= 1;
    }
    (unscaled, scale)
}

/// Compares by value, whatever the scales.
pub fn compare(a: (i128, i8), b: (i128, i8)) -> Ordering {
    if a.1 == b.1 {
        return a.0.cmp(&b.0);
    }
    let scale = a.1.max(b.1);
    match (rescale(a.0, a.1, scale), rescale(b.0, b.1, scale)) {
        (Some(x), Some(y)) => x.cmp(&y),
        // Only the one of the smaller scale is multiplied, so at most one leaves i128; it is then
        // greater in size than the other.
        (None, _) => a.0.cmp(&0),
        (_, None) => 0.cmp(&b.0),
    }
}

/// The nearest float: for statistics and plots, never for money.
pub fn to_f64(unscaled: i128, scale: i8) -> f64 {
    // Through text, so that it is rounded once: 0.1 becomes the float 0.1.
    format_decimal(unscaled, scale).parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_exactly_or_says_why() {
        for (text, precision, scale, expected) in [
            ("1.5", 18, 2, Ok(150)),
            ("-0.01", 18, 2, Ok(-1)),
            ("1.500", 18, 2, Ok(150)),
            ("1.505", 18, 2, Err(DecimalError::NotExact(2))),
            ("1e3", 18, 2, Ok(100_000)),
            ("12.5e-1", 18, 2, Ok(125)),
            ("0e999999999999", 18, 2, Ok(0)),
            ("1e999999999999", 18, 2, Err(DecimalError::TooLarge(18, 2))),
            ("1e-999999999999", 18, 2, Err(DecimalError::NotExact(2))),
            ("9999999999999999.99", 18, 2, Ok(999_999_999_999_999_999)),
            ("10000000000000000", 18, 2, Err(DecimalError::TooLarge(18, 2))),
            ("99999999999999999999999999999999999999", 38, 0, Ok(10i128.pow(38) - 1)),
            ("", 18, 2, Err(DecimalError::NotANumber)),
            ("-", 18, 2, Err(DecimalError::NotANumber)),
            (".5", 18, 2, Err(DecimalError::NotANumber)),
            ("5.", 18, 2, Err(DecimalError::NotANumber)),
            ("1e", 18, 2, Err(DecimalError::NotANumber)),
            ("0x10", 18, 2, Err(DecimalError::NotANumber)),
            ("1_000", 18, 2, Err(DecimalError::NotANumber)),
            ("NaN", 18, 2, Err(DecimalError::NotANumber)),
            ("٣", 18, 2, Err(DecimalError::NotANumber)),
        ] {
            assert_eq!(parse(text, precision, scale), expected, "{text}");
        }
    }

    #[test]
    fn formats_with_all_digits_of_the_scale() {
        for (unscaled, scale, text) in [
            (150, 2, "1.50"),
            (-1, 2, "-0.01"),
            (0, 2, "0.00"),
            (5, 0, "5"),
            (5, -2, "500"),
            (i128::MIN, 0, "-170141183460469231731687303715884105728"),
        ] {
            assert_eq!(format_decimal(unscaled, scale), text);
        }
    }

    #[test]
    fn rounds_half_away_from_zero() {
        for (a, b, expected) in [
            (5, 2, Some(3)),
            (-5, 2, Some(-3)),
            (5, -2, Some(-3)),
            (4, 3, Some(1)),
            (-5, 3, Some(-2)),
            (1, 0, None),
            (i128::MIN, -1, None),
            (i128::MAX, i128::MAX, Some(1)),
        ] {
            assert_eq!(div_round(a, b), expected, "{a}/{b}");
        }
        assert_eq!(rescale(12345, 3, 2), Some(1235));
        assert_eq!(rescale(-12345, 3, 2), Some(-1235));
        assert_eq!(rescale_exact(12345, 3, 2), None);
        assert_eq!(rescale_exact(12340, 3, 2), Some(1234));
        assert_eq!(rescale(i128::MAX, 0, 1), None);
    }

    #[test]
    fn compares_by_value_even_where_rescaling_overflows() {
        assert_eq!(compare((10, 1), (1, 0)), Ordering::Equal);
        assert_eq!(compare((i128::MAX, 0), (1, 38)), Ordering::Greater);
        assert_eq!(compare((1, 38), (i128::MAX, 0)), Ordering::Less);
        assert_eq!(compare((i128::MIN, 0), (1, 38)), Ordering::Less);
        assert_eq!(normalized(1500, 3), (15, 1));
        assert_eq!(normalized(0, 9), (0, 0));
    }
}
