//! 256-bit two's complement sums: exact for integers and decimals, and for floats as fixed point.
//!
//! *In*: `i128` values, or `f64` values (and their squares) as multiples of 2^-128. *Out*: a sum that is
//! the same in any order and can be taken back. *Never*: running `f64` addition.

use num_bigint::BigInt;
use num_traits::ToPrimitive;
use serde::{Deserialize, Serialize};

/// `hi * 2^128 + lo`. For floats the unit is 2^-128, so `hi` is the integer part. Packed: there are as many as keys and
/// panes, and the alignment of 128 bits would leave holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[repr(Rust, packed(8))]
pub struct Wide {
    hi: i128,
    lo: u128,
}

/// Floats of this magnitude or more have no place in the fixed point (8.5e37).
const FLOAT_LIMIT: f64 = (1u128 << 126) as f64;

impl Wide {
    /// An integer.
    pub fn int(value: i128) -> Self {
        Self { hi: value >> 127, lo: value as u128 }
    }

    /// A float in units of 2^-128; digits below are cut. `None` for NaN, infinities and |v| >= 2^126.
    pub fn float(value: f64) -> Option<Self> {
        let (mantissa, exponent) = parts(value)?;
        Some(Self::place(u128::from(mantissa), exponent).signed(value < 0.0))
    }

    /// The exact square of a float in units of 2^-128. `None` where it does not fit.
    pub fn square(value: f64) -> Option<Self> {
        let (mantissa, exponent) = parts(value)?;
        if value.abs() >= (1u64 << 63) as f64 {
            return None;
        }
        let product = u128::from(mantissa) * u128::from(mantissa);
        Some(Self::place(product, exponent * 2))
    }

    /// `bits * 2^exponent` as fixed point; the caller has checked that it fits.
    fn place(bits: u128, exponent: i32) -> Self {
        if exponent >= 0 {
            return Self { hi: (bits << exponent) as i128, lo: 0 };
        }
        let shift = exponent.unsigned_abs();
        let hi = bits.checked_shr(shift).unwrap_or(0) as i128;
        let lo = match shift {
            1..128 => bits << (128 - shift),
            _ => bits.checked_shr(shift - 128).unwrap_or(0),
        };
        Self { hi, lo }
    }

    fn signed(self, negative: bool) -> Self {
        if negative { self.negated() } else { self }
    }

    /// Adds `other * weight`.
    pub fn add(&mut self, other: Self, weight: i64) {
        match weight {
            1 => self.plus(other),
            -1 => self.plus(other.negated()),
            0 => {}
            _ => self.plus(other.times(weight)),
        }
    }

    fn plus(&mut self, other: Self) {
        let (lo, carry) = self.lo.overflowing_add(other.lo);
        self.lo = lo;
        self.hi = self.hi.wrapping_add(other.hi).wrapping_add(i128::from(carry));
    }

    /// The negative.
    pub fn negated(self) -> Self {
        let (lo, carry) = (!self.lo).overflowing_add(1);
        Self { hi: (!self.hi).wrapping_add(i128::from(carry)), lo }
    }

    fn times(self, weight: i64) -> Self {
        let mut result = Self::default();
        let mut step = self.signed(weight < 0);
        let mut left = weight.unsigned_abs();
        while left > 0 {
            if left & 1 == 1 {
                result.plus(step);
            }
            step.plus(step);
            left >>= 1;
        }
        result
    }

    /// The integer, if it fits.
    pub fn to_i128(self) -> Option<i128> {
        let narrow = self.lo as i128;
        (narrow >> 127 == self.hi).then_some(narrow)
    }

    /// All 256 bits.
    pub fn to_big(self) -> BigInt {
        (BigInt::from(self.hi) << 128) + BigInt::from(self.lo)
    }

    /// The float nearest to the fixed-point value.
    pub fn to_f64(self) -> f64 {
        self.to_big().to_f64().unwrap_or(f64::NAN) * 2f64.powi(-128)
    }
}

/// Mantissa and exponent of a finite float below [`FLOAT_LIMIT`].
fn parts(value: f64) -> Option<(u64, i32)> {
    if !value.is_finite() || value.abs() >= FLOAT_LIMIT {
        return None;
    }
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    Some(match exponent {
        0 => (fraction, -1074),
        _ => (fraction | (1 << 52), exponent - 1075),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)] // exactness is what is tested
    use super::*;

    #[test]
    fn integers_add_and_come_back() {
        let mut sum = Wide::default();
        for value in [i128::MAX, i128::MAX, -5, i128::MIN] {
            sum.add(Wide::int(value), 1);
        }
        assert_eq!(sum.to_i128(), Some(i128::MAX - 6));
        sum.add(Wide::int(i128::MAX), 1);
        assert_eq!(sum.to_i128(), None);
        sum.add(Wide::int(i128::MAX), -1);
        sum.add(Wide::int(7), -3);
        assert_eq!(sum.to_i128(), Some(i128::MAX - 6 - 21));
    }

    #[test]
    fn floats_sum_exactly_in_any_order() {
        let values = [1e16, 1.0, -1e16, 0.1, 0.2, -0.3, 1e-9, 3.5e20, -3.5e20];
        let sum = |order: &[f64]| {
            let mut sum = Wide::default();
            order.iter().for_each(|v| sum.add(Wide::float(*v).unwrap(), 1));
            sum.to_f64()
        };
        let mut reversed = values;
        reversed.reverse();
        assert_eq!(sum(&values).to_bits(), sum(&reversed).to_bits());
        assert!((sum(&values) - (1.0 + 1e-9)).abs() < 1e-15);
        assert_eq!(sum(&[0.1]), 0.1);
        assert_eq!(sum(&[-123.456]), -123.456);
    }

    #[test]
    fn squares_and_limits() {
        assert_eq!(Wide::square(-1.5).unwrap().to_f64(), 2.25);
        assert!(Wide::float(f64::NAN).is_none());
        assert!(Wide::float(1e38).is_none());
        assert!(Wide::square(1e20).is_none());
    }
}
