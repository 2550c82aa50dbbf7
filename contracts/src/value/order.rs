//! Equality, order and hash of values: they are group keys and multiset elements.
//!
//! *In*: two [`Value`]s. *Out*: a total order that agrees with equality and hash. *Never*: a
//! comparison that depends on the scale of a decimal or loses a NaN.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use super::{Value, decimal};

impl Value {
    /// Order of the kinds; null comes first. Values of different kinds are never equal.
    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) => 2,
            Self::Float(_) => 3,
            Self::Decimal(..) => 4,
            Self::Text(_) => 5,
            Self::Timestamp(_) => 6,
            Self::Date(_) => 7,
            Self::Duration(_) => 8,
            Self::List(_) => 9,
            Self::Histogram(_) => 10,
            Self::Ranking(_) => 11,
        }
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Null, Self::Null) => Ordering::Equal,
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b))
            | (Self::Timestamp(a), Self::Timestamp(b))
            | (Self::Duration(a), Self::Duration(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Decimal(a, sa), Self::Decimal(b, sb)) => decimal::compare((*a, *sa), (*b, *sb)),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Date(a), Self::Date(b)) => a.cmp(b),
            (Self::List(a), Self::List(b)) => a.cmp(b),
            (Self::Histogram(a), Self::Histogram(b)) => compare_histograms(a, b),
            (Self::Ranking(a), Self::Ranking(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

fn compare_histograms(a: &[(Option<f64>, u64)], b: &[(Option<f64>, u64)]) -> Ordering {
    for ((le_a, count_a), (le_b, count_b)) in a.iter().zip(b) {
        // `None` is infinity.
        let bounds = match (le_a, le_b) {
            (Some(x), Some(y)) => x.total_cmp(y),
            (x, y) => y.is_some().cmp(&x.is_some()),
        };
        let order = bounds.then(count_a.cmp(count_b));
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
        match self {
            Self::Null => {}
            Self::Bool(v) => v.hash(state),
            Self::Int(v) | Self::Timestamp(v) | Self::Duration(v) => v.hash(state),
            Self::Float(v) => v.to_bits().hash(state),
            Self::Decimal(unscaled, scale) => decimal::normalized(*unscaled, *scale).hash(state),
            Self::Text(v) => v.hash(state),
            Self::Date(v) => v.hash(state),
            Self::List(v) => v.hash(state),
            Self::Histogram(rows) => {
                for (le, count) in rows.iter() {
                    (le.map(f64::to_bits), count).hash(state);
                }
            }
            Self::Ranking(rows) => rows.hash(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn decimals_are_equal_by_value_whatever_the_scale() {
        let same: HashSet<Value> =
            [Value::Decimal(150, 2), Value::Decimal(15, 1), Value::Decimal(1500, 3)].into();
        assert_eq!(same.len(), 1);
        assert!(Value::Decimal(-1, 38) < Value::Decimal(0, 0));
        assert_ne!(Value::Int(1), Value::Decimal(1, 0));
    }

    #[test]
    fn the_order_is_total() {
        let sorted = [
            Value::Null,
            Value::Bool(false),
            Value::Int(-1),
            Value::Int(7),
            Value::Float(f64::NEG_INFINITY),
            Value::Float(-0.0),
            Value::Float(0.0),
            Value::Float(f64::NAN),
            Value::Decimal(1, 1),
            Value::Text("a".into()),
            Value::Timestamp(0),
            Value::Date(0),
            Value::Duration(0),
            Value::List([].into()),
            Value::List([Value::Null].into()),
            Value::Histogram([(Some(1.0), 2)].into()),
            Value::Histogram([(None, 2)].into()),
            Value::Ranking([(Value::Int(1), 2)].into()),
            Value::Ranking([(Value::Int(1), 3)].into()),
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }
}
