//! Accumulators: what a fold keeps per key and pane.
//!
//! *In*: values with a weight (+1, or -1 for a row taken back), other accumulators. *Out*: the state
//! `finish` turns into a cell. *Never*: a dependence on the order of updates; every accumulator is a
//! commutative monoid under [`FoldSpec::merge`], and those of retracting inputs form a group.

use std::sync::Arc;

use contracts::catalog::Agg;
use contracts::value::{Value, ValueType};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::ranks::Ranks;
use super::wide::Wide;

/// What a fold accumulates, over values of which type, and whether rows can be taken back.
#[derive(Debug, Clone)]
pub struct FoldSpec {
    /// The aggregate and its options.
    pub agg: Agg,
    /// Type of the values.
    pub input: ValueType,
    /// Rows can be taken back (entity inputs), so every value must be remembered where needed.
    pub retracts: bool,
}

/// A value with its place in event time: what `first` and `last` compare by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Placed {
    /// Event time, microseconds.
    pub time: i64,
    /// Event id; rows without one come first.
    pub id: Option<Arc<str>>,
    /// The value.
    pub value: Value,
}

/// The state of one fold. Counts are signed so that a retraction may arrive before its insertion. There are as many as
/// keys, panes and folds: what is large and rare lies elsewhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Acc {
    /// Number of rows or non-null values.
    Count(i64),
    /// Count and exact sum: integers, decimals (unscaled), durations (µs), floats (2^-128).
    Sum {
        /// Values summed.
        n: i64,
        /// Their sum.
        sum: Wide,
    },
    /// For the standard deviation.
    Moments(Box<Moments>),
    /// Least or greatest value of rows that are never taken back.
    Extreme(Option<Value>),
    /// First or last value of rows that are never taken back.
    End(Option<Box<Placed>>),
    /// Every value with its multiplicity.
    Bag(OrdMap<Value, i64>),
    /// Every placed value with its multiplicity.
    Ends(OrdMap<Placed, i64>),
    /// DDSketch: counts of the logarithmic buckets.
    Sketch(Box<Sketch>),
    /// Counts per bucket, the last one above all bounds.
    Histogram(Vec<i64>),
    /// HyperLogLog of distinct values.
    Ranks(Ranks),
}

const _: () = assert!(size_of::<Acc>() == 48);

/// What a standard deviation is made of.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Moments {
    /// Values.
    pub n: i64,
    /// Their sum.
    pub sum: Wide,
    /// Sum of their squares.
    pub squares: Wide,
}

/// DDSketch (Masson, Rim, Lee: "DDSketch", VLDB 2019): bucket i holds values in (g^(i-1), g^i] with
/// g = (1 + error) / (1 - error). Mergeable and subtractable.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sketch {
    /// Buckets of negative values, by the bucket of their magnitude.
    pub negative: OrdMap<i32, i64>,
    /// Zeros (and magnitudes below 1e-12).
    pub zero: i64,
    /// Buckets of positive values.
    pub positive: OrdMap<i32, i64>,
}

/// One row's contribution to one fold.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// The value; `None` only when the fold counts rows.
    pub value: Option<&'a Value>,
    /// +1 or -1.
    pub weight: i64,
    /// Event time, microseconds.
    pub time: i64,
    /// Event id.
    pub id: Option<&'a str>,
}

/// The value was not finite, or too large for the exact sum (|v| >= 2^126, for stddev 2^63).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotFinite;

impl FoldSpec {
    /// The accumulator of no rows.
    pub fn zero(&self) -> Acc {
        match &self.agg {
            // What lasts is kept as edges beside the panes.
            Agg::Count | Agg::Concurrent | Agg::DurationInState => Acc::Count(0),
            Agg::Sum | Agg::Avg | Agg::Rate { .. } => Acc::Sum { n: 0, sum: Wide::default() },
            Agg::Stddev => Acc::Moments(Box::default()),
            Agg::Min | Agg::Max if !self.retracts => Acc::Extreme(None),
            Agg::First | Agg::Last if !self.retracts => Acc::End(None),
            Agg::First | Agg::Last => Acc::Ends(OrdMap::new()),
            Agg::Min | Agg::Max | Agg::Distinct | Agg::Top { .. } | Agg::Quantile { .. } => {
                Acc::Bag(OrdMap::new())
            }
            Agg::DistinctApprox => Acc::Ranks(Ranks::default()),
            Agg::QuantileSketch { .. } => Acc::Sketch(Box::default()),
            Agg::Histogram { bounds } => Acc::Histogram(vec![0; bounds.len() + 1]),
        }
    }

    /// Adds one row. Null values must have been passed over by the caller.
    pub fn update(&self, acc: &mut Acc, row: Update<'_>) -> Result<(), NotFinite> {
        match acc {
            Acc::Count(n) => *n += row.weight,
            Acc::Sum { n, sum } => {
                // Without a value (`rate` of rows) every row is one.
                let one = Wide::int(1);
                let amount = row.value.map_or(Some(one), wide).ok_or(NotFinite)?;
                sum.add(amount, row.weight);
                *n += row.weight;
            }
            Acc::Moments(moments) => {
                let value = row.value.and_then(Value::as_f64).ok_or(NotFinite)?;
                let square = Wide::square(value).ok_or(NotFinite)?;
                moments.sum.add(Wide::float(value).ok_or(NotFinite)?, row.weight);
                moments.squares.add(square, row.weight);
                moments.n += row.weight;
            }
            Acc::Extreme(best) => {
                if let Some(value) = row.value {
                    self.keep_extreme(best, value);
                }
            }
            Acc::End(best) => {
                if let Some(value) = row.value {
                    self.keep_end(best, &placed(row, value));
                }
            }
            Acc::Bag(bag) => {
                if let Some(value) = row.value {
                    weigh(bag, value.clone(), row.weight);
                }
            }
            Acc::Ends(bag) => {
                if let Some(value) = row.value {
                    weigh(bag, placed(row, value), row.weight);
                }
            }
            Acc::Sketch(sketch) => {
                let value = row.value.and_then(Value::as_f64).ok_or(NotFinite)?;
                sketch.add(value, self.gamma(), row.weight)?;
            }
            Acc::Ranks(ranks) => {
                if let Some(value) = row.value {
                    ranks.add(value, row.weight);
                }
            }
            Acc::Histogram(counts) => {
                let value = row.value.and_then(Value::as_f64).ok_or(NotFinite)?;
                let bucket = self.bounds().partition_point(|bound| *bound < value);
                counts[bucket] += row.weight;
            }
        }
        Ok(())
    }

    /// `acc += other`.
    pub fn merge(&self, acc: &mut Acc, other: &Acc) {
        match (acc, other) {
            (Acc::Extreme(best), Acc::Extreme(Some(value))) => self.keep_extreme(best, value),
            (Acc::End(best), Acc::End(Some(value))) => self.keep_end(best, value),
            (Acc::Extreme(_), Acc::Extreme(None)) | (Acc::End(_), Acc::End(None)) => {}
            (acc, other) => combine(acc, other, 1),
        }
    }

    /// `acc -= other`, where `other` is contained in `acc`. `false`: it cannot be taken out (the extreme
    /// itself leaves), `acc` must be rebuilt from its panes.
    pub fn subtract(&self, acc: &mut Acc, other: &Acc) -> bool {
        match (&*acc, other) {
            (_, Acc::Extreme(None) | Acc::End(None)) => true,
            (Acc::Extreme(best), Acc::Extreme(value)) => best != value,
            (Acc::End(best), Acc::End(value)) => best != value,
            _ => {
                combine(acc, other, -1);
                true
            }
        }
    }

    fn keep_extreme(&self, best: &mut Option<Value>, value: &Value) {
        let better = match (best.as_ref(), &self.agg) {
            (None, _) => true,
            (Some(old), Agg::Max) => value > old,
            (Some(old), _) => value < old,
        };
        if better {
            *best = Some(value.clone());
        }
    }

    fn keep_end(&self, best: &mut Option<Box<Placed>>, placed: &Placed) {
        let better = match (best.as_deref(), &self.agg) {
            (None, _) => true,
            (Some(old), Agg::Last) => placed > old,
            (Some(old), _) => placed < old,
        };
        if better {
            *best = Some(Box::new(placed.clone()));
        }
    }

    /// Growth of the sketch's buckets.
    pub fn gamma(&self) -> f64 {
        match self.agg {
            Agg::QuantileSketch { error, .. } => (1.0 + error) / (1.0 - error),
            _ => 1.0,
        }
    }

    fn bounds(&self) -> &[f64] {
        match &self.agg {
            Agg::Histogram { bounds } => bounds,
            _ => &[],
        }
    }
}

/// Magnitudes below this count as zero in a sketch.
const SKETCH_LEAST: f64 = 1e-12;

impl Sketch {
    fn add(&mut self, value: f64, gamma: f64, weight: i64) -> Result<(), NotFinite> {
        if !value.is_finite() {
            return Err(NotFinite);
        }
        if value.abs() < SKETCH_LEAST {
            self.zero += weight;
            return Ok(());
        }
        let bucket = (value.abs().ln() / gamma.ln()).ceil() as i32;
        let side = if value > 0.0 { &mut self.positive } else { &mut self.negative };
        weigh(side, bucket, weight);
        Ok(())
    }
}

fn placed(row: Update<'_>, value: &Value) -> Placed {
    Placed { time: row.time, id: row.id.map(Arc::from), value: value.clone() }
}

/// The exact number behind a value: unscaled decimals, microseconds, floats in 2^-128.
fn wide(value: &Value) -> Option<Wide> {
    match value {
        Value::Int(v) | Value::Duration(v) | Value::Timestamp(v) => Some(Wide::int(i128::from(*v))),
        Value::Bool(v) => Some(Wide::int(i128::from(*v))),
        Value::Decimal(v, _) => Some(Wide::int(*v)),
        Value::Float(v) => Wide::float(*v),
        _ => None,
    }
}

/// Adds a multiplicity; an element of multiplicity 0 is not kept.
pub fn weigh<K: Ord + Clone>(bag: &mut OrdMap<K, i64>, key: K, weight: i64) {
    if let Some(count) = bag.get_mut(&key) {
        *count += weight;
        if *count != 0 {
            return;
        }
        bag.remove(&key);
    } else if weight != 0 {
        bag.insert(key, weight);
    }
}

pub(super) fn combine_bags<K: Ord + Clone>(bag: &mut OrdMap<K, i64>, other: &OrdMap<K, i64>, sign: i64) {
    if bag.is_empty() && sign == 1 {
        *bag = other.clone();
        return;
    }
    for (key, count) in other {
        weigh(bag, key.clone(), count * sign);
    }
}

/// `acc += sign * other` for the accumulators that form a group.
fn combine(acc: &mut Acc, other: &Acc, sign: i64) {
    match (acc, other) {
        (Acc::Count(n), Acc::Count(m)) => *n += sign * m,
        (Acc::Sum { n, sum }, Acc::Sum { n: m, sum: more }) => {
            *n += sign * m;
            sum.add(*more, sign);
        }
        (Acc::Moments(moments), Acc::Moments(more)) => {
            moments.n += sign * more.n;
            moments.sum.add(more.sum, sign);
            moments.squares.add(more.squares, sign);
        }
        (Acc::Bag(bag), Acc::Bag(more)) => combine_bags(bag, more, sign),
        (Acc::Ends(bag), Acc::Ends(more)) => combine_bags(bag, more, sign),
        (Acc::Sketch(sketch), Acc::Sketch(more)) => {
            combine_bags(&mut sketch.negative, &more.negative, sign);
            combine_bags(&mut sketch.positive, &more.positive, sign);
            sketch.zero += sign * more.zero;
        }
        (Acc::Histogram(counts), Acc::Histogram(more)) => {
            counts.iter_mut().zip(more).for_each(|(count, add)| *count += sign * add);
        }
        (Acc::Ranks(ranks), Acc::Ranks(more)) => ranks.merge(more, sign),
        // Folds of one metric always meet their own kind; extremes and ends are handled by the caller.
        (_, _) => debug_assert!(false, "accumulators of different kinds"),
    }
}
