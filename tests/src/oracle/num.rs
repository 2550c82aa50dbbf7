//! Exact numbers: a fraction of two big integers.
//!
//! *In*: integers, decimal texts, floats (each float is a fraction). *Out*: sums, products,
//! quotients, and one rounding at the very end. *Never*: a rounding in between.

use std::cmp::Ordering;

use num_bigint::{BigInt, Sign};

/// `num / den` with `den > 0`; not kept in lowest terms.
#[derive(Debug, Clone)]
pub struct Rat {
    num: BigInt,
    den: BigInt,
}

/// 10^n.
pub fn ten(n: u32) -> BigInt {
    BigInt::from(10).pow(n)
}

impl Rat {
    /// A whole number.
    pub fn int(value: impl Into<BigInt>) -> Rat {
        Rat { num: value.into(), den: BigInt::from(1) }
    }

    /// `unscaled / 10^scale`.
    pub fn dec(unscaled: i128, scale: u8) -> Rat {
        Rat { num: BigInt::from(unscaled), den: ten(u32::from(scale)) }
    }

    /// The exact value of a finite float.
    pub fn float(value: f64) -> Rat {
        let bits = value.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as i64;
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, exponent) =
            if exponent == 0 { (fraction, -1074) } else { (fraction | (1 << 52), exponent - 1075) };
        let mut mantissa = BigInt::from(mantissa);
        if value.is_sign_negative() {
            mantissa = -mantissa;
        }
        if exponent >= 0 {
            Rat::int(mantissa << (exponent as usize))
        } else {
            Rat { num: mantissa, den: BigInt::from(1) << ((-exponent) as usize) }
        }
    }

    /// `-12.50`, `3`, `1.5e-3`; `None` when the text is not a plain number.
    pub fn parse(text: &str) -> Option<Rat> {
        let (body, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, body) = match body.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, body),
        };
        let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
        let digits = format!("{whole}{fraction}");
        if whole.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let mut num: BigInt = digits.parse().ok()?;
        if negative {
            num = -num;
        }
        let shift = i64::from(exponent) - fraction.len() as i64;
        if shift.abs() > 2_000 {
            return None;
        }
        Some(if shift >= 0 {
            Rat::int(num * ten(shift as u32))
        } else {
            Rat { num, den: ten(-shift as u32) }
        })
    }

    /// Sum.
    pub fn add(&self, other: &Rat) -> Rat {
        let zero = BigInt::from(0);
        if self.den == other.den {
            return Rat { num: &self.num + &other.num, den: self.den.clone() };
        }
        let (big, small) = if self.den > other.den { (self, other) } else { (other, self) };
        if &big.den % &small.den == zero {
            let factor = &big.den / &small.den;
            return Rat { num: &big.num + &small.num * factor, den: big.den.clone() };
        }
        Rat { num: &self.num * &other.den + &other.num * &self.den, den: &self.den * &other.den }
    }

    /// Difference.
    pub fn sub(&self, other: &Rat) -> Rat {
        self.add(&Rat { num: -&other.num, den: other.den.clone() })
    }

    /// Product.
    pub fn mul(&self, other: &Rat) -> Rat {
        Rat { num: &self.num * &other.num, den: &self.den * &other.den }
    }

    /// Quotient; `None` when `other` is 0.
    pub fn div(&self, other: &Rat) -> Option<Rat> {
        if other.is_zero() {
            return None;
        }
        let mut num = &self.num * &other.den;
        let mut den = &self.den * &other.num;
        if den.sign() == Sign::Minus {
            num = -num;
            den = -den;
        }
        Some(Rat { num, den })
    }

    /// Is it 0?
    pub fn is_zero(&self) -> bool {
        self.num.sign() == Sign::NoSign
    }

    /// Absolute value.
    pub fn abs(&self) -> Rat {
        Rat { num: BigInt::from(self.num.magnitude().clone()), den: self.den.clone() }
    }

    /// Greatest whole number not above it.
    pub fn floor(&self) -> BigInt {
        let quotient = &self.num / &self.den;
        if self.num.sign() == Sign::Minus && &quotient * &self.den != self.num {
            quotient - 1
        } else {
            quotient
        }
    }

    /// Nearest multiple of 10^-scale, half away from zero, in units of 10^-scale; `None` beyond
    /// 128 bits.
    pub fn round(&self, scale: u8) -> Option<i128> {
        let scaled = self.num.magnitude() * ten(u32::from(scale)).magnitude();
        let den = self.den.magnitude();
        let twice = scaled * 2u32 + den;
        let quotient = BigInt::from(twice / (den * 2u32));
        let quotient = if self.num.sign() == Sign::Minus { -quotient } else { quotient };
        i128::try_from(quotient).ok()
    }

    /// The value in units of 10^-scale when that is exact.
    pub fn exact(&self, scale: u8) -> Option<BigInt> {
        let scaled = &self.num * ten(u32::from(scale));
        let quotient = &scaled / &self.den;
        (&quotient * &self.den == scaled).then_some(quotient)
    }

    /// The nearest float, ties to even.
    pub fn to_f64(&self) -> f64 {
        if self.is_zero() {
            return 0.0;
        }
        let negative = self.num.sign() == Sign::Minus;
        let num = self.num.magnitude();
        let den = self.den.magnitude();
        // Enough bits that the last one kept can carry "something was cut off".
        let shift = 66 - (num.bits() as i64 - den.bits() as i64);
        let (top, bottom) = if shift >= 0 {
            (num << shift as usize, den.clone())
        } else {
            (num.clone(), den << (-shift) as usize)
        };
        let quotient = &top / &bottom;
        let sticky = &quotient * &bottom != top;
        let mut mantissa = u128::try_from(quotient).expect("the quotient has 66 or 67 bits");
        let mut exponent = -shift;
        // Bits to drop so that 53 remain, or fewer where the result is subnormal.
        let length = 128 - i64::from(mantissa.leading_zeros());
        let drop = (length - 53).max(-1074 - exponent);
        let half = 1u128 << (drop - 1);
        let rest = mantissa & ((1u128 << drop) - 1);
        mantissa >>= drop;
        exponent += drop;
        if rest > half || (rest == half && (sticky || mantissa & 1 == 1)) {
            mantissa += 1;
        }
        let value = scale_up(mantissa as f64, exponent);
        if negative { -value } else { value }
    }
}

/// `value * 2^exponent` in steps that stay exact.
fn scale_up(mut value: f64, mut exponent: i64) -> f64 {
    while exponent > 0 {
        let step = exponent.min(1000);
        value *= 2f64.powi(step as i32);
        exponent -= step;
    }
    while exponent < 0 {
        let step = (-exponent).min(1000);
        value /= 2f64.powi(step as i32);
        exponent += step;
    }
    value
}

impl PartialEq for Rat {
    fn eq(&self, other: &Rat) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Rat {}

impl PartialOrd for Rat {
    fn partial_cmp(&self, other: &Rat) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rat {
    fn cmp(&self, other: &Rat) -> Ordering {
        (&self.num * &other.den).cmp(&(&other.num * &self.den))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)] // exactness is what is tested
    use super::*;

    #[test]
    fn floats_come_back_unchanged() {
        for value in [
            0.1,
            -0.1,
            1.0,
            1e300,
            -1e-300,
            f64::MIN_POSITIVE,
            5e-324,
            f64::MAX,
            123.456,
            2f64.powi(-1070) * 3.0,
        ] {
            assert_eq!(Rat::float(value).to_f64(), value, "{value}");
        }
    }

    #[test]
    fn sums_are_exact_and_rounded_once() {
        let values = [1e16, 1.0, -1e16, 0.5];
        let sum = values.iter().fold(Rat::int(0), |sum, v| sum.add(&Rat::float(*v)));
        assert_eq!(sum.to_f64(), 1.5);
        let tenths = (0..10).fold(Rat::int(0), |sum, _| sum.add(&Rat::float(0.1)));
        assert_eq!(tenths.to_f64(), 1.0);
    }

    #[test]
    fn rounding_is_half_away_from_zero() {
        let round = |text: &str, scale| Rat::parse(text).expect("a number").round(scale);
        assert_eq!(round("1.005", 2), Some(101));
        assert_eq!(round("-1.005", 2), Some(-101));
        assert_eq!(round("-1.0049", 2), Some(-100));
        assert_eq!(round("2.5", 0), Some(3));
        assert_eq!(Rat::int(1).div(&Rat::int(3)).expect("3 is not 0").round(2), Some(33));
        assert_eq!(Rat::int(-7).floor(), BigInt::from(-7));
        assert_eq!(Rat::parse("-7.1").expect("a number").floor(), BigInt::from(-8));
    }

    #[test]
    fn texts() {
        assert_eq!(Rat::parse("1.5e-3"), Rat::parse("0.0015"));
        assert_eq!(Rat::parse("1e2"), Some(Rat::int(100)));
        for bad in ["", "-", ".5", "a", "1.2.3", "+1", " 1"] {
            assert_eq!(Rat::parse(bad), None, "{bad}");
        }
        assert_eq!(Rat::parse("1.230").and_then(|r| r.exact(2)), Some(BigInt::from(123)));
        assert_eq!(Rat::parse("1.234").and_then(|r| r.exact(2)), None);
    }
}
