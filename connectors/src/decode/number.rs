//! Numbers from their text, exactly.
//!
//! *In*: text. *Out*: integers, floats, decimals as `unscaled / 10^scale`. *Never*: a decimal that passed
//! through a float, a rounded one, a leading zero or plus sign (the grammar is JSON's).

/// `text` as a 64-bit integer: digits with an optional minus.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || (digits.len() > 1 && digits[0] == b'0') {
        return None;
    }
    if digits.len() <= 18 {
        let mut value = 0i64;
        let (eights, rest) = digits.as_chunks::<8>();
        for eight in eights {
            value = value * 100_000_000 + i64::from(eight_digits(*eight)?);
        }
        for byte in rest {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            value = value * 10 + i64::from(digit);
        }
        return Some(if negative { -value } else { value });
    }
    let mut value = 0i128;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
    }
    i64::try_from(if negative { -value } else { value }).ok()
}

/// Eight digits in three multiplications (Johnny Lee, "Fast numeric string to int").
#[inline]
fn eight_digits(text: [u8; 8]) -> Option<u32> {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    let word = u64::from_le_bytes(text) ^ ZEROS;
    let over = word.wrapping_add(0x7676_7676_7676_7676) | word;
    if over & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let pairs = (word * 10 + (word >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_FFFF_0000_FFFF;
    Some((fours * 10_000 + (fours >> 32)) as u32)
}

/// `text`, a number by JSON's grammar, as the nearest float. `None`: no number, or infinite.
pub(super) fn float(text: &[u8]) -> Option<f64> {
    parts(text)?;
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}

/// Why a text is not a decimal of the declared type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotExact {
    /// Not a number by JSON's grammar.
    NotANumber,
    /// More digits after the point than the scale.
    Scale,
    /// More digits than the precision.
    Precision,
}

/// `text` as `unscaled / 10^scale`, of at most `precision` digits.
#[inline]
pub(super) fn decimal(text: &[u8], precision: u8, scale: i8) -> Result<i128, NotExact> {
    match short(text, precision, scale) {
        Some(value) => Ok(value),
        None => long(text, precision, scale),
    }
}

/// The usual case: no exponent, at most 18 digits.
#[inline]
fn short(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty()
        || digits.len() > 19
        || (digits[0] == b'0' && digits.get(1).is_some_and(|b| *b != b'.'))
    {
        return None;
    }
    let mut value = 0u64;
    let mut point = digits.len();
    for (i, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => value = value.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')),
            b'.' if point == digits.len() && i > 0 => point = i,
            _ => return None,
        }
    }
    let fraction = digits.len().saturating_sub(point + 1);
    // 19 bytes without a point are 19 digits: the long way; a point must have digits behind it.
    if (point == digits.len() && digits.len() > 18) || (point < digits.len() && fraction == 0) {
        return None;
    }
    let shift = usize::try_from(scale).ok()?.checked_sub(fraction)?;
    let value = i128::from(value) * ten(shift)?;
    (value < ten(precision.into())?).then_some(if negative { -value } else { value })
}

/// 10^n, up to n = 38.
#[inline]
pub(super) fn ten(n: usize) -> Option<i128> {
    const POWERS: [i128; 39] = {
        let mut powers = [1i128; 39];
        let mut i = 1;
        while i < 39 {
            powers[i] = powers[i - 1] * 10;
            i += 1;
        }
        powers
    };
    POWERS.get(n).copied()
}

/// Any number: exponents, leading and trailing zeros, long tails.
#[cold]
fn long(text: &[u8], precision: u8, scale: i8) -> Result<i128, NotExact> {
    let parts = parts(text).ok_or(NotExact::NotANumber)?;
    let digits = || parts.whole.iter().chain(parts.fraction);
    // value = digits * 10^shift / 10^scale
    let total = (parts.whole.len() + parts.fraction.len()) as i64;
    let mut shift = parts.exponent - parts.fraction.len() as i64 + i64::from(scale);
    let leading = digits().take_while(|d| **d == b'0').count() as i64;
    if leading == total {
        return Ok(0);
    }
    let trailing = digits().rev().take_while(|d| **d == b'0').count() as i64;
    shift += trailing;
    if shift < 0 {
        return Err(NotExact::Scale);
    }
    let kept = total - leading - trailing;
    if kept + shift > i64::from(precision) {
        return Err(NotExact::Precision);
    }
    let mut value = 0i128;
    for digit in digits().skip(leading as usize).take(kept as usize) {
        value = value * 10 + i128::from(digit - b'0');
    }
    let value = value * ten(shift as usize).ok_or(NotExact::Precision)?;
    Ok(if parts.negative { -value } else { value })
}

struct Parts<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    /// Cut at a million either way: far beyond any precision.
    exponent: i64,
}

/// Takes a number by JSON's grammar apart.
fn parts(text: &[u8]) -> Option<Parts<'_>> {
    let run = |at: usize| text[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    let negative = text.first() == Some(&b'-');
    let start = usize::from(negative);
    let mut at = start + run(start);
    let whole = &text[start..at];
    if whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
        return None;
    }
    let mut fraction: &[u8] = &[];
    if text.get(at) == Some(&b'.') {
        fraction = &text[at + 1..at + 1 + run(at + 1)];
        if fraction.is_empty() {
            return None;
        }
        at += 1 + fraction.len();
    }
    let mut exponent = 0;
    if let Some(b'e' | b'E') = text.get(at) {
        let sign = match text.get(at + 1) {
            Some(b'-') => Some(-1),
            Some(b'+') => Some(1),
            _ => None,
        };
        at += 1 + usize::from(sign.is_some());
        let digits = &text[at..at + run(at)];
        if digits.is_empty() {
            return None;
        }
        let size = digits.iter().fold(0i64, |e, d| (e * 10 + i64::from(d - b'0')).min(1_000_000));
        exponent = sign.unwrap_or(1) * size;
        at += digits.len();
    }
    (at == text.len()).then_some(Parts { negative, whole, fraction, exponent })
}

/// `unscaled / 10^scale` as text.
pub(super) fn show(unscaled: i128, scale: i8) -> String {
    let scale = usize::try_from(scale).unwrap_or(0);
    if scale == 0 {
        return unscaled.to_string();
    }
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{fraction}", if unscaled < 0 { "-" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::{NotExact, decimal, float, integer, show};

    #[test]
    fn decimals_are_exact_or_refused() {
        let ok = |text: &str, p, s| decimal(text.as_bytes(), p, s);
        assert_eq!(ok("332.96", 18, 2), Ok(33296));
        assert_eq!(ok("-0.00", 18, 2), Ok(0));
        assert_eq!(ok("1.100", 18, 2), Ok(110));
        assert_eq!(ok("1.001", 18, 2), Err(NotExact::Scale));
        assert_eq!(ok("1.5e2", 18, 2), Ok(15000));
        assert_eq!(ok("1500e-3", 18, 2), Ok(150));
        assert_eq!(ok("15e-3", 18, 2), Err(NotExact::Scale));
        assert_eq!(ok("0e999999999999999999999", 18, 2), Ok(0));
        assert_eq!(ok("1e999999999999999999999", 38, 0), Err(NotExact::Precision));
        assert_eq!(ok("1e-999999999999999999999", 38, 0), Err(NotExact::Scale));
        assert_eq!(ok("99.99", 4, 2), Ok(9999));
        assert_eq!(ok("100.00", 4, 2), Err(NotExact::Precision));
        assert_eq!(ok("9999999999999999999", 19, 0), Ok(9_999_999_999_999_999_999));
        assert_eq!(ok("0.9999999999999999999", 19, 19), Ok(9_999_999_999_999_999_999));
        assert_eq!(ok(&"9".repeat(38), 38, 0), Ok(10i128.pow(38) - 1));
        assert_eq!(ok(&"9".repeat(39), 38, 0), Err(NotExact::Precision));
        for text in [
            "", "-", "+1", ".5", "5.", "01", "1e", "1e+", " 1", "1 ", "0x10", "NaN", "1_0", "--1", "1.2.3",
            "٣",
        ] {
            assert_eq!(ok(text, 18, 2), Err(NotExact::NotANumber), "{text}");
        }
    }

    #[test]
    fn integers_and_floats() {
        assert_eq!(integer(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(integer(b"9223372036854775808"), None);
        assert_eq!(integer(b"-0"), Some(0));
        assert_eq!(integer(b"1767225600123"), Some(1_767_225_600_123));
        assert_eq!(integer(b"-99999999"), Some(-99_999_999));
        for wrong in 0..=255u8 {
            for at in 0..16 {
                let mut text = *b"1234567890123456";
                text[at] = wrong;
                let expected = std::str::from_utf8(&text)
                    .ok()
                    .filter(|t| !t.contains('+') && !t.starts_with("0") && !t.starts_with("-0"));
                assert_eq!(integer(&text), expected.and_then(|t| t.parse().ok()), "{text:?}");
            }
        }
        for text in ["", "-", "1.0", "1e3", "007", "a", "1234567890123456789012345678901234567890123"] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
        assert_eq!(float(b"2.5e-3"), Some(0.0025));
        assert_eq!(float(b"1e400"), None);
        assert_eq!(float(b"inf"), None);
    }

    #[test]
    fn shown_with_all_places() {
        assert_eq!(show(-5, 2), "-0.05");
        assert_eq!(show(123, 2), "1.23");
        assert_eq!(show(7, 0), "7");
    }
}
