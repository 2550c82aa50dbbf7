//! HyperLogLog: how many different values there are, nearly.
//!
//! *In*: values with a weight. *Out*: an estimate, standard error 1.6 %; a few values are counted nearly exactly.
//! *Never*: a hash that depends on the process or the machine; more than [`REGISTERS`] times 53 numbers.
//!
//! A plain register keeps the greatest rank it has seen, which cannot be taken out of a sliding window again. Here
//! each register counts the rows of each rank: panes are added and subtracted, and nothing is rebuilt.
//! Flajolet, Fusy, Gandouet, Meunier: "HyperLogLog", AofA 2007; the estimator is that of Ertl: "New cardinality
//! estimation algorithms for HyperLogLog sketches", arXiv 1702.01284, algorithm 6.

use contracts::value::{Value, decimal};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

use super::acc::{combine_bags, weigh};

/// Bits of a hash that pick the register.
const BITS: u32 = 12;

/// Registers: 1.04 / sqrt(4096) is a standard error of 1.6 %.
const REGISTERS: u32 = 1 << BITS;

/// The greatest rank: all other bits are zero.
const RANKS: usize = 64 - BITS as usize + 1;

/// Rows by register and rank (`register * 64 + rank`, rank from 1).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ranks(OrdMap<u32, i64>);

impl Ranks {
    /// Adds a row.
    pub fn add(&mut self, value: &Value, weight: i64) {
        let hash = hash(value);
        let register = (hash >> (64 - BITS)) as u32;
        let rank = (hash << BITS).leading_zeros().min(64 - BITS) + 1;
        weigh(&mut self.0, register * 64 + rank, weight);
    }

    /// `self += sign * other`.
    pub fn merge(&mut self, other: &Self, sign: i64) {
        combine_bags(&mut self.0, &other.0, sign);
    }

    /// How many different values there are.
    pub fn estimate(&self) -> i64 {
        // Registers by their greatest rank; 0: nothing was seen.
        let mut registers = [0u32; RANKS + 1];
        let mut cells = self.0.iter().filter(|(_, rows)| **rows > 0).map(|(cell, _)| *cell).peekable();
        while let Some(cell) = cells.next() {
            if cells.peek().is_none_or(|next| next / 64 != cell / 64) {
                registers[(cell % 64) as usize] += 1;
            }
        }
        registers[0] = REGISTERS - registers.iter().sum::<u32>();
        let m = f64::from(REGISTERS);
        let mut z = m * tau(1.0 - f64::from(registers[RANKS]) / m);
        for count in registers[1..RANKS].iter().rev() {
            z = 0.5 * (z + f64::from(*count));
        }
        z += m * sigma(f64::from(registers[0]) / m);
        (m * m / (2.0 * std::f64::consts::LN_2 * z)).round() as i64
    }
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z <= before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z >= before {
            return z / 3.0;
        }
    }
}

/// The same number for equal values, everywhere and for ever.
fn hash(value: &Value) -> u64 {
    let mut bytes = Vec::with_capacity(24);
    write(value, &mut bytes);
    XxHash64::oneshot(0, &bytes)
}

fn write(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Null => bytes.push(0),
        Value::Bool(v) => bytes.extend([1, u8::from(*v)]),
        Value::Int(v) | Value::Timestamp(v) | Value::Duration(v) => bytes.extend(v.to_le_bytes()),
        Value::Float(v) => bytes.extend(v.to_bits().to_le_bytes()),
        Value::Decimal(unscaled, scale) => {
            let (unscaled, scale) = decimal::normalized(*unscaled, *scale);
            bytes.extend(unscaled.to_le_bytes());
            bytes.extend(scale.to_le_bytes());
        }
        Value::Text(v) => bytes.extend(v.as_bytes()),
        Value::Date(v) => bytes.extend(v.to_le_bytes()),
        // No aggregate folds these.
        Value::List(_) | Value::Histogram(_) | Value::Ranking(_) => bytes.extend(value.to_string().bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: std::ops::Range<i64>) -> Ranks {
        let mut ranks = Ranks::default();
        values.for_each(|value| ranks.add(&Value::Int(value), 1));
        ranks
    }

    #[test]
    fn near_the_truth_at_every_size() {
        assert_eq!(Ranks::default().estimate(), 0);
        for n in [1, 10, 100] {
            assert!((of(0..n).estimate() - n).abs() <= 1, "{n}: {}", of(0..n).estimate());
        }
        for n in [1_000, 5_000, 20_000, 300_000] {
            let off = (of(0..n).estimate() - n).abs() as f64 / n as f64;
            assert!(off < 0.05, "{n}: {off}");
        }
    }

    #[test]
    fn panes_come_and_go_in_any_order() {
        let mut sum = of(0..500);
        sum.merge(&of(300..900), 1);
        sum.merge(&of(0..500), -1);
        assert_eq!(sum.0, of(300..900).0);
        sum.merge(&of(300..900), 1);
        assert_eq!(sum.estimate(), of(300..900).estimate());
    }

    #[test]
    fn the_hash_is_a_promise() {
        assert_eq!(hash(&Value::Text("a".into())), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(hash(&Value::Int(1)), XxHash64::oneshot(0, &[1, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(hash(&Value::Decimal(150, 2)), hash(&Value::Decimal(15, 1)));
    }
}
