//! Arithmetic on answers: rounding half away from zero, at the last step only.
//!
//! *In*: exact integers. *Out*: exact integers, or nothing where they do not fit. *Never*: money through floats.

use arrow::datatypes::i256;
use contracts::value::{Value, ValueType};

/// `a / b`, rounded half away from zero.
pub(crate) fn divide(a: i128, b: i128) -> Option<i128> {
    divide_wide(i256::from_i128(a), i256::from_i128(b))
}

fn divide_wide(a: i256, b: i256) -> Option<i128> {
    if b == i256::ZERO {
        return None;
    }
    let negative = (a < i256::ZERO) != (b < i256::ZERO);
    let (a, b) = (a.wrapping_abs(), b.wrapping_abs());
    let (quotient, rest) = (a.checked_div(b)?, a.checked_rem(b)?);
    // rest < b, so b - rest does not overflow where 2 * rest might.
    let up = rest >= b.checked_sub(rest)?;
    let rounded = if up { quotient.checked_add(i256::ONE)? } else { quotient };
    (if negative { i256::ZERO.checked_sub(rounded)? } else { rounded }).to_i128()
}

fn ten(power: i32) -> Option<i256> {
    i256::from_i128(10).checked_pow(u32::try_from(power).ok()?)
}

/// `(a / 10^sa) / (b / 10^sb)` at `scale` digits.
fn quotient((a, sa): (i128, i8), (b, sb): (i128, i8), scale: i8) -> Option<i128> {
    let shift = i32::from(scale) + i32::from(sb) - i32::from(sa);
    let (a, b) = (i256::from_i128(a), i256::from_i128(b));
    match shift >= 0 {
        true => divide_wide(a.checked_mul(ten(shift)?)?, b),
        false => divide_wide(a, b.checked_mul(ten(-shift)?)?),
    }
}

/// Unscaled value and scale of what is exact.
fn exact(value: &Value) -> Option<(i128, i8)> {
    match value {
        Value::Int(v) => Some((i128::from(*v), 0)),
        Value::Decimal(v, scale) => Some((*v, *scale)),
        _ => None,
    }
}

/// `a / b`; null where there is nothing to divide, or by.
pub(crate) fn ratio(a: &Value, b: &Value, ty: &ValueType) -> Value {
    let null = |value: Option<Value>| value.unwrap_or(Value::Null);
    if let (ValueType::Decimal { scale, .. }, Some(a), Some(b)) = (ty, exact(a), exact(b)) {
        return null(quotient(a, b, *scale).map(|v| Value::Decimal(v, *scale)));
    }
    let divisor = b.as_f64().filter(|b| *b != 0.0);
    null(a.as_f64().zip(divisor).map(|(a, b)| Value::Float(a / b)))
}

/// The value as a measure's type; null where it does not fit.
pub(crate) fn typed(value: Value, ty: &ValueType) -> Value {
    let fitted = match (ty, &value) {
        (ValueType::Decimal { scale, .. }, Value::Float(v)) => {
            let scaled = (v * 10f64.powi(i32::from(*scale))).round();
            (scaled.abs() < 1e38).then_some(Value::Decimal(scaled as i128, *scale))
        }
        (ValueType::Decimal { scale, .. }, Value::Int(_) | Value::Decimal(..)) => exact(&value)
            .and_then(|number| quotient(number, (1, 0), *scale))
            .map(|v| Value::Decimal(v, *scale)),
        (ValueType::Float, Value::Int(_) | Value::Decimal(..)) => value.as_f64().map(Value::Float),
        (ValueType::Int, Value::Decimal(..)) => exact(&value)
            .and_then(|number| quotient(number, (1, 0), 0))
            .and_then(|v| i64::try_from(v).ok())
            .map(Value::Int),
        (ValueType::Int, Value::Float(v)) => {
            let whole = v.round();
            (whole.abs() < 9.2e18).then_some(Value::Int(whole as i64))
        }
        (ValueType::Duration, Value::Int(v)) => Some(Value::Duration(*v)),
        _ => Some(value),
    };
    fitted.unwrap_or(Value::Null)
}

/// Ranks of quantiles are counted in billionths, so that `q: 0.29` of 101 values is rank 29.
pub(crate) const NANO: i64 = 1_000_000_000;

/// `low + (high - low) * rest / 10^9`.
pub(crate) fn between(low: &Value, high: &Value, rest: i64) -> Value {
    let part = |a: i128, b: i128| {
        let (a, b) = (i256::from_i128(a), i256::from_i128(b));
        let (nano, rest) = (i256::from_i128(i128::from(NANO)), i256::from_i128(i128::from(rest)));
        let scaled = a.checked_mul(nano)?.checked_add(b.checked_sub(a)?.checked_mul(rest)?)?;
        divide_wide(scaled, nano)
    };
    let narrow = |a: i64, b: i64| part(i128::from(a), i128::from(b)).and_then(|v| i64::try_from(v).ok());
    let value = match (low, high) {
        (Value::Decimal(a, scale), Value::Decimal(b, _)) => part(*a, *b).map(|v| Value::Decimal(v, *scale)),
        (Value::Duration(a), Value::Duration(b)) => narrow(*a, *b).map(Value::Duration),
        (Value::Timestamp(a), Value::Timestamp(b)) => narrow(*a, *b).map(Value::Timestamp),
        (a, b) => {
            a.as_f64().zip(b.as_f64()).map(|(a, b)| Value::Float(a + (b - a) * (rest as f64 / NANO as f64)))
        }
    };
    value.unwrap_or(Value::Null)
}

/// The float nearest to the exact sum (J. R. Shewchuk, "Adaptive Precision Floating-Point Arithmetic", 1997;
/// as Python's `math.fsum`).
pub(crate) fn exact_sum(values: impl Iterator<Item = f64>) -> f64 {
    let mut partials: Vec<f64> = Vec::new();
    for value in values {
        let mut x = value;
        let mut kept = 0;
        for at in 0..partials.len() {
            let mut y = partials[at];
            if x.abs() < y.abs() {
                std::mem::swap(&mut x, &mut y);
            }
            let high = x + y;
            let low = y - (high - x);
            if low != 0.0 {
                partials[kept] = low;
                kept += 1;
            }
            x = high;
        }
        partials.truncate(kept);
        partials.push(x);
    }
    rounded(&partials)
}

/// Partials ascend and do not overlap; a half-way case looks one further down.
fn rounded(partials: &[f64]) -> f64 {
    let mut rest = partials.iter().rev();
    let Some(mut high) = rest.next().copied() else { return 0.0 };
    while let Some(y) = rest.next() {
        let x = high;
        high = x + y;
        let low = y - (high - x);
        if low != 0.0 {
            if let Some(next) = rest.next()
                && (low < 0.0) == (*next < 0.0)
            {
                let (y, x) = (low * 2.0, high + low * 2.0);
                if (x - high - y).abs() == 0.0 {
                    high = x;
                }
            }
            break;
        }
    }
    high
}

/// Sample standard deviation, in two passes; nothing for fewer than two values.
pub(crate) fn deviation(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    if values.len() < 2 {
        return None;
    }
    let mean = exact_sum(values.iter().copied()) / n;
    let spread = exact_sum(values.iter().map(|v| (v - mean) * (v - mean)));
    // What rounding of the mean leaves behind.
    let slack = exact_sum(values.iter().map(|v| v - mean));
    Some(((spread - slack * slack / n).max(0.0) / (n - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_away_from_zero() {
        assert_eq!(divide(3, 2), Some(2));
        assert_eq!(divide(-3, 2), Some(-2));
        assert_eq!(divide(1, 3), Some(0));
        assert_eq!(divide(i128::MAX, 1), Some(i128::MAX));
        assert_eq!(divide(1, 0), None);
    }

    #[test]
    fn sums_do_not_depend_on_order() {
        for values in [vec![1e16, 1.0, -1e16], vec![1.0, 1e16, -1e16], vec![0.1; 10]] {
            assert_eq!(exact_sum(values.iter().copied()).to_bits(), 1f64.to_bits(), "{values:?}");
        }
        assert_eq!(deviation(&[1e9, 1e9 + 1.0, 1e9 + 2.0]), Some(1.0));
    }

    #[test]
    fn ratios_round_once() {
        let money = ValueType::Decimal { precision: 18, scale: 2 };
        assert_eq!(ratio(&Value::Decimal(10_000, 2), &Value::Int(3), &money), Value::Decimal(3_333, 2));
        assert_eq!(ratio(&Value::Decimal(-1, 2), &Value::Int(2), &money), Value::Decimal(-1, 2));
        assert_eq!(ratio(&Value::Int(1), &Value::Int(0), &ValueType::Float), Value::Null);
    }
}
