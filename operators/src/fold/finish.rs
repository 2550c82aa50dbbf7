//! From an accumulator to the cell of an answer.
//!
//! *In*: an accumulator and the seconds its window covers. *Out*: a [`Value`]. *Never*: a 0 where there
//! is nothing to say.

use contracts::catalog::Agg;
use contracts::value::decimal::div_round;
use contracts::value::{Value, ValueType};
use imbl::OrdMap;
use num_bigint::BigInt;
use num_traits::ToPrimitive;

use super::acc::{Acc, FoldSpec, Sketch};
use super::wide::Wide;

/// Quantile ranks are computed in billionths, so that `q: 0.29` of 101 values is exactly rank 29.
const NANO: i128 = 1_000_000_000;

impl FoldSpec {
    /// The answer cell. `covered`: microseconds from the window's start to where the answer ends,
    /// `None` when the window has no start.
    pub fn finish(&self, acc: &Acc, covered: Option<i64>) -> Value {
        match (acc, &self.agg) {
            (Acc::Count(n), _) => Value::Int(*n),
            (Acc::Sum { n, sum }, Agg::Rate { per }) => self.rate(*n, *sum, *per, covered),
            (Acc::Sum { n: 0, .. }, _) => Value::Null,
            (Acc::Sum { n, sum }, Agg::Avg) => self.average(*n, *sum),
            (Acc::Sum { sum, .. }, _) => self.total(*sum),
            (Acc::Moments(moments), _) => deviation(moments.n, moments.sum, moments.squares),
            (Acc::Extreme(best), _) => best.clone().unwrap_or(Value::Null),
            (Acc::End(best), _) => best.as_ref().map_or(Value::Null, |end| end.value.clone()),
            (Acc::Ends(bag), Agg::First) => bag.get_min().map_or(Value::Null, |(end, _)| end.value.clone()),
            (Acc::Ends(bag), _) => bag.get_max().map_or(Value::Null, |(end, _)| end.value.clone()),
            (Acc::Bag(bag), Agg::Distinct) => Value::Int(bag.len() as i64),
            (Acc::Bag(bag), Agg::Top { n }) => ranking(bag, *n),
            (Acc::Bag(bag), Agg::Quantile { q, linear }) => self.quantile(bag, *q, *linear),
            (Acc::Bag(bag), Agg::Max) => bag.get_max().map_or(Value::Null, |(v, _)| v.clone()),
            (Acc::Bag(bag), _) => bag.get_min().map_or(Value::Null, |(v, _)| v.clone()),
            (Acc::Sketch(sketch), Agg::QuantileSketch { q, .. }) => self.sketched(sketch, *q),
            (Acc::Sketch(_), _) => Value::Null,
            (Acc::Histogram(counts), _) => self.histogram(counts),
            (Acc::Ranks(ranks), _) => Value::Int(ranks.estimate()),
        }
    }

    fn total(&self, sum: Wide) -> Value {
        match &self.input {
            ValueType::Float => Value::Float(sum.to_f64()),
            ValueType::Decimal { scale, .. } => {
                sum.to_i128().map_or(Value::Null, |v| Value::Decimal(v, *scale))
            }
            ValueType::Duration => narrow(sum).map_or(Value::Null, Value::Duration),
            _ => narrow(sum).map_or(Value::Null, Value::Int),
        }
    }

    fn average(&self, n: i64, sum: Wide) -> Value {
        let exact = |sum: Wide| sum.to_i128().and_then(|s| div_round(s, i128::from(n)));
        match &self.input {
            ValueType::Float => Value::Float(sum.to_f64() / n as f64),
            ValueType::Decimal { scale, .. } => exact(sum).map_or(Value::Null, |v| Value::Decimal(v, *scale)),
            ValueType::Duration => {
                exact(sum).and_then(|v| i64::try_from(v).ok()).map_or(Value::Null, Value::Duration)
            }
            _ => sum.to_i128().map_or(Value::Null, |s| Value::Float(s as f64 / n as f64)),
        }
    }

    fn rate(&self, n: i64, sum: Wide, per: i64, covered: Option<i64>) -> Value {
        let Some(covered) = covered.filter(|micros| *micros > 0) else { return Value::Null };
        let amount = match (&self.input, n) {
            (_, 0) => 0.0,
            (ValueType::Float, _) => sum.to_f64(),
            (ValueType::Decimal { scale, .. }, _) => {
                big_to_f64(&sum.to_big()) / 10f64.powi(i32::from(*scale))
            }
            (ValueType::Duration, _) => big_to_f64(&sum.to_big()) / 1e6,
            _ => big_to_f64(&sum.to_big()),
        };
        Value::Float(amount / covered as f64 * per as f64)
    }

    fn quantile(&self, bag: &OrdMap<Value, i64>, q: f64, linear: bool) -> Value {
        let n: i64 = bag.values().sum();
        if n <= 0 {
            return Value::Null;
        }
        let rank = (q * NANO as f64).round() as i128 * i128::from(n - 1);
        let (index, rest) = ((rank / NANO) as i64, rank % NANO);
        let low = at_rank(bag, index);
        if !linear {
            return low.clone();
        }
        let high = if rest == 0 { low } else { at_rank(bag, index + 1) };
        interpolate(low, high, rest)
    }

    fn sketched(&self, sketch: &Sketch, q: f64) -> Value {
        let gamma = self.gamma();
        let centre = |bucket: i32| 2.0 * gamma.powi(bucket) / (gamma + 1.0);
        let counts = sketch
            .negative
            .iter()
            .rev()
            .map(|(bucket, count)| (-centre(*bucket), *count))
            .chain([(0.0, sketch.zero)])
            .chain(sketch.positive.iter().map(|(bucket, count)| (centre(*bucket), *count)));
        let n: i64 = counts.clone().map(|(_, count)| count).sum();
        if n <= 0 {
            return Value::Null;
        }
        let rank = ((q * NANO as f64).round() as i128 * i128::from(n - 1) / NANO) as i64;
        let mut seen = 0;
        for (value, count) in counts {
            seen += count;
            if seen > rank {
                return self.estimate(value);
            }
        }
        Value::Null
    }

    fn estimate(&self, value: f64) -> Value {
        match self.input {
            // Sketches see durations in seconds.
            ValueType::Duration => Value::Duration((value * 1e6).round() as i64),
            _ => Value::Float(value),
        }
    }

    fn histogram(&self, counts: &[i64]) -> Value {
        let Agg::Histogram { bounds } = &self.agg else { return Value::Null };
        let bounds = bounds.iter().copied().map(Some).chain([None]);
        Value::Histogram(bounds.zip(counts.iter().map(|n| (*n).max(0) as u64)).collect())
    }
}

fn narrow(sum: Wide) -> Option<i64> {
    sum.to_i128().and_then(|v| i64::try_from(v).ok())
}

fn big_to_f64(value: &BigInt) -> f64 {
    value.to_f64().unwrap_or(f64::NAN)
}

/// The `n` most frequent values, ties by value.
fn ranking(bag: &OrdMap<Value, i64>, n: usize) -> Value {
    let order = |a: &(&Value, u64), b: &(&Value, u64)| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0));
    let mut rows: Vec<(&Value, u64)> =
        bag.iter().filter_map(|(value, count)| Some((value, u64::try_from(*count).ok()?))).collect();
    if rows.len() > n {
        rows.select_nth_unstable_by(n, order);
        rows.truncate(n);
    }
    rows.sort_unstable_by(order);
    Value::Ranking(rows.into_iter().map(|(value, count)| (value.clone(), count)).collect())
}

/// The value at `index` (from 0) of the sorted multiset; `index` is below its size.
fn at_rank(bag: &OrdMap<Value, i64>, index: i64) -> &Value {
    let mut seen = 0;
    for (value, count) in bag {
        seen += count;
        if seen > index {
            return value;
        }
    }
    &Value::Null
}

/// `low + (high - low) * rest / 10^9`, exact and rounded once, half away from zero.
fn interpolate(low: &Value, high: &Value, rest: i128) -> Value {
    let exact = |a: i128, b: i128| {
        let scaled = BigInt::from(a) * NANO + (BigInt::from(b) - a) * rest;
        let half = if scaled < BigInt::ZERO { -NANO / 2 } else { NANO / 2 };
        ((scaled + half) / NANO).to_i128()
    };
    let narrow = |a: i64, b: i64| exact(i128::from(a), i128::from(b)).and_then(|v| i64::try_from(v).ok());
    match (low, high) {
        (Value::Decimal(a, scale), Value::Decimal(b, _)) => {
            exact(*a, *b).map_or(Value::Null, |v| Value::Decimal(v, *scale))
        }
        (Value::Duration(a), Value::Duration(b)) => narrow(*a, *b).map_or(Value::Null, Value::Duration),
        (Value::Timestamp(a), Value::Timestamp(b)) => narrow(*a, *b).map_or(Value::Null, Value::Timestamp),
        (a, b) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => Value::Float(a + (b - a) * (rest as f64 / NANO as f64)),
            _ => Value::Null,
        },
    }
}

/// Sample standard deviation from exact sums in units of 2^-128, so that nothing cancels.
fn deviation(n: i64, sum: Wide, squares: Wide) -> Value {
    if n < 2 {
        return Value::Null;
    }
    let sum = sum.to_big();
    let spread = ((squares.to_big() * n) << 128u32) - &sum * &sum;
    let scaled = big_to_f64(&spread) * 2f64.powi(-256);
    Value::Float((scaled.max(0.0) / (n as f64 * (n - 1) as f64)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::super::acc::Update;
    use super::*;

    fn fold(agg: Agg, input: ValueType, values: &[Value]) -> Value {
        let spec = FoldSpec { agg, input, retracts: false };
        let mut acc = spec.zero();
        for (i, value) in values.iter().enumerate() {
            let row = Update { value: Some(value), weight: 1, time: i as i64, id: None };
            spec.update(&mut acc, row).unwrap();
        }
        spec.finish(&acc, Some(10_000_000))
    }

    fn ints(values: &[i64]) -> Vec<Value> {
        values.iter().copied().map(Value::Int).collect()
    }

    #[test]
    fn quantiles() {
        let q = |q, linear| Agg::Quantile { q, linear };
        let four = ints(&[4, 1, 3, 2]);
        assert_eq!(fold(q(0.5, false), ValueType::Int, &four), Value::Int(2));
        assert_eq!(fold(q(0.5, true), ValueType::Int, &four), Value::Float(2.5));
        let hundred = ints(&(0..=100).collect::<Vec<_>>());
        assert_eq!(fold(q(0.29, false), ValueType::Int, &hundred), Value::Int(29));
        let money = [Value::Decimal(100, 2), Value::Decimal(201, 2)];
        let decimal = ValueType::Decimal { precision: 18, scale: 2 };
        assert_eq!(fold(q(0.5, true), decimal, &money), Value::Decimal(151, 2));
        assert_eq!(fold(q(0.5, true), ValueType::Int, &[]), Value::Null);
    }

    #[test]
    fn sketch_is_within_its_error() {
        let values: Vec<i64> = (1..=1000).map(|i| i * i - 300_000).collect();
        for q in [0.0, 0.1, 0.5, 0.9, 0.99, 1.0] {
            let agg = Agg::QuantileSketch { q, error: 0.01 };
            let Value::Float(got) = fold(agg, ValueType::Int, &ints(&values)) else { panic!() };
            let want = values[(q * 999.0).floor() as usize] as f64;
            assert!((got - want).abs() <= want.abs() * 0.0100001, "{q}: {got} {want}");
        }
    }

    #[test]
    fn averages_round_half_away() {
        let decimal = ValueType::Decimal { precision: 18, scale: 2 };
        let values = |cents: &[i128]| cents.iter().map(|c| Value::Decimal(*c, 2)).collect::<Vec<_>>();
        let avg = |cents| fold(Agg::Avg, decimal.clone(), &values(cents));
        assert_eq!(avg(&[1, 2]), Value::Decimal(2, 2));
        assert_eq!(avg(&[-1, -2]), Value::Decimal(-2, 2));
        assert_eq!(avg(&[1, 1, 2]), Value::Decimal(1, 2));
    }

    #[test]
    fn deviation_does_not_cancel() {
        let values: Vec<Value> = [1e9, 1e9 + 1.0, 1e9 + 2.0].map(Value::Float).to_vec();
        assert_eq!(fold(Agg::Stddev, ValueType::Float, &values), Value::Float(1.0));
        assert_eq!(fold(Agg::Stddev, ValueType::Float, &values[..1]), Value::Null);
    }

    #[test]
    fn the_most_frequent_come_first() {
        let rows = |rows: &[(i64, u64)]| {
            Value::Ranking(rows.iter().map(|(value, count)| (Value::Int(*value), *count)).collect())
        };
        let values = ints(&[5, 3, 3, 9, 5, 1, 7]);
        assert_eq!(fold(Agg::Top { n: 3 }, ValueType::Int, &values), rows(&[(3, 2), (5, 2), (1, 1)]));
        assert_eq!(
            fold(Agg::Top { n: 9 }, ValueType::Int, &values),
            rows(&[(3, 2), (5, 2), (1, 1), (7, 1), (9, 1)])
        );
        assert_eq!(fold(Agg::Top { n: 3 }, ValueType::Int, &[]), rows(&[]));
    }

    #[test]
    fn rate_and_histogram() {
        let rate = Agg::Rate { per: 60_000_000 };
        assert_eq!(fold(rate, ValueType::Int, &ints(&[5, 5])), Value::Float(60.0));
        let agg = Agg::Histogram { bounds: vec![1.0, 5.0] };
        let want = [(Some(1.0), 2), (Some(5.0), 1), (None, 1)];
        let got = fold(agg, ValueType::Int, &ints(&[0, 1, 5, 6]));
        assert_eq!(got, Value::Histogram(want.into()));
    }
}
