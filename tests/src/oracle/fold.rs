//! What a set of values comes to.
//!
//! *In*: the non-null values of a fold, with time and id where order matters. *Out*: one value.
//! *Never*: an accumulator; every answer starts from all values again.

use std::collections::BTreeSet;

use super::num::Rat;
use super::val::Val;

/// An `agg` with its options.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Agg {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    First,
    Last,
    Distinct,
    /// Near `Distinct`.
    Approx,
    /// How many.
    Top(usize),
    /// `q` exactly as written.
    Lower(Rat),
    Linear(Rat),
    /// Within relative `error` of `Lower`.
    Sketch(Rat, f64),
    /// Bounds exactly as written.
    Histogram(Vec<Rat>),
    Stddev,
    /// Microseconds.
    Rate(i64),
}

/// A row as a fold sees it.
#[derive(Debug, Clone)]
pub struct Item {
    /// Event time.
    pub time: i64,
    /// Event id; none sorts first.
    pub id: Option<String>,
    /// The value; null only when the fold has no value and counts rows.
    pub value: Val,
}

/// The result of `agg` over `items` (null values already left out), for a window of which
/// `elapsed` microseconds have passed.
pub fn fold(agg: &Agg, items: &[Item], valued: bool, elapsed: Option<i64>) -> Val {
    let values: Vec<Val> = items.iter().map(|item| item.value.clone()).collect();
    match agg {
        Agg::Count => Val::Int(items.len() as i64),
        Agg::Sum if values.is_empty() => Val::Null,
        Agg::Sum => sum(&values).unwrap_or_else(|| panic!("a sum beyond its type: {values:?}")),
        Agg::Avg => avg(&values),
        Agg::Min => values.into_iter().min().unwrap_or(Val::Null),
        Agg::Max => values.into_iter().max().unwrap_or(Val::Null),
        Agg::First => ordered(items).first().map_or(Val::Null, |item| item.value.clone()),
        Agg::Last => ordered(items).last().map_or(Val::Null, |item| item.value.clone()),
        Agg::Top(n) => top(&values, *n),
        Agg::Distinct | Agg::Approx => Val::Int(values.iter().collect::<BTreeSet<_>>().len() as i64),
        Agg::Lower(q) | Agg::Sketch(q, _) => lower(&values, q),
        Agg::Linear(q) => linear(&values, q),
        Agg::Histogram(bounds) => histogram(&values, bounds),
        Agg::Stddev => stddev(&values),
        Agg::Rate(per) => rate(&values, valued, *per, elapsed),
    }
}

/// Rows by (time, id); rows alike in both by value, so that the order of arrival never matters.
fn ordered(items: &[Item]) -> Vec<&Item> {
    let mut sorted: Vec<&Item> = items.iter().collect();
    sorted.sort_by(|a, b| (a.time, &a.id, &a.value).cmp(&(b.time, &b.id, &b.value)));
    sorted
}

fn exact(values: &[Val]) -> Rat {
    values.iter().fold(Rat::int(0), |sum, v| sum.add(&v.rat().unwrap_or_else(|| panic!("{v} is no number"))))
}

fn scale(values: &[Val]) -> Option<u8> {
    values.iter().filter_map(|v| if let Val::Dec(_, s) = v { Some(*s) } else { None }).max()
}

/// Exact sum of at least one value; `None` when it does not fit its type.
pub fn sum(values: &[Val]) -> Option<Val> {
    let total = exact(values);
    if values.iter().any(|v| matches!(v, Val::Float(_))) {
        return Some(Val::Float(total.to_f64()));
    }
    if let Some(scale) = scale(values) {
        return total.round(scale).map(|v| Val::Dec(v, scale));
    }
    let whole = total.round(0).and_then(|v| i64::try_from(v).ok())?;
    Some(if matches!(values[0], Val::Dur(_)) { Val::Dur(whole) } else { Val::Int(whole) })
}

/// Decimals and durations stay what they are, rounded half away from zero.
pub fn avg(values: &[Val]) -> Val {
    let Some(mean) = exact(values).div(&Rat::int(values.len() as i64)) else { return Val::Null };
    shaped(&mean, values)
}

/// `value` in the type that numbers computed from `values` have.
fn shaped(value: &Rat, values: &[Val]) -> Val {
    if let Some(scale) = scale(values) {
        return Val::Dec(value.round(scale).expect("between two values"), scale);
    }
    if values.iter().all(|v| matches!(v, Val::Dur(_))) {
        return Val::Dur(value.round(0).and_then(|v| i64::try_from(v).ok()).expect("between two values"));
    }
    Val::Float(value.to_f64())
}

fn lower(values: &[Val], q: &Rat) -> Val {
    let mut sorted = values.to_vec();
    sorted.sort();
    let Some(last) = sorted.len().checked_sub(1) else { return Val::Null };
    let at = usize::try_from(q.mul(&Rat::int(last as i64)).floor()).expect("0 <= q <= 1");
    sorted[at].clone()
}

fn linear(values: &[Val], q: &Rat) -> Val {
    let mut sorted = values.to_vec();
    sorted.sort();
    let Some(last) = sorted.len().checked_sub(1) else { return Val::Null };
    let position = q.mul(&Rat::int(last as i64));
    let at = usize::try_from(position.floor()).expect("0 <= q <= 1");
    let below = sorted[at].rat().expect("a number");
    let above = sorted[(at + 1).min(last)].rat().expect("a number");
    let share = position.sub(&Rat::int(at as i64));
    shaped(&below.add(&share.mul(&above.sub(&below))), values)
}

fn histogram(values: &[Val], bounds: &[Rat]) -> Val {
    let mut counts = vec![0u64; bounds.len() + 1];
    for value in values {
        let value = value.rat().expect("a number");
        counts[bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len())] += 1;
    }
    let edges = bounds.iter().map(|bound| Some(bound.to_f64())).chain([None]);
    Val::Hist(edges.zip(counts).collect())
}

/// The most frequent values, each with how often it occurs; of equals the lesser first.
fn top(values: &[Val], n: usize) -> Val {
    let mut rows: Vec<(usize, &Val)> = Vec::new();
    for value in values.iter().collect::<BTreeSet<_>>() {
        rows.push((values.iter().filter(|other| *other == value).count(), value));
    }
    rows.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let row = |(count, value): &(usize, &Val)| Val::List(vec![(*value).clone(), Val::Int(*count as i64)]);
    Val::List(rows.iter().take(n).map(row).collect())
}

fn stddev(values: &[Val]) -> Val {
    if values.len() < 2 {
        return Val::Null;
    }
    let n = Rat::int(values.len() as i64);
    let mean = exact(values).div(&n).expect("n > 0");
    let squares = values.iter().fold(Rat::int(0), |sum, v| {
        let off = v.rat().expect("a number").sub(&mean);
        sum.add(&off.mul(&off))
    });
    let variance = squares.div(&n.sub(&Rat::int(1))).expect("n > 1");
    Val::Float(variance.to_f64().sqrt())
}

fn rate(values: &[Val], valued: bool, per: i64, elapsed: Option<i64>) -> Val {
    let total = if valued { exact(values) } else { Rat::int(values.len() as i64) };
    match elapsed {
        Some(elapsed) if elapsed > 0 => {
            let share = Rat::int(per).div(&Rat::int(elapsed)).expect("elapsed > 0");
            Val::Float(total.mul(&share).to_f64())
        }
        _ => Val::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(values: &[Val]) -> Vec<Item> {
        values
            .iter()
            .enumerate()
            .map(|(i, value)| Item { time: i as i64, id: Some(i.to_string()), value: value.clone() })
            .collect()
    }

    #[track_caller]
    fn check(agg: Agg, values: &[Val], wanted: &str) {
        assert_eq!(fold(&agg, &items(values), true, Some(10_000_000)).to_string(), wanted, "{agg:?}");
    }

    fn q(text: &str) -> Rat {
        Rat::parse(text).expect("a number")
    }

    #[test]
    fn over_numbers() {
        let ints = [3, 1, 2, 10].map(Val::Int);
        check(Agg::Count, &ints, "4");
        check(Agg::Sum, &ints, "16");
        check(Agg::Avg, &ints, "4.0");
        check(Agg::Min, &ints, "1");
        check(Agg::Max, &ints, "10");
        check(Agg::First, &ints, "3");
        check(Agg::Last, &ints, "10");
        check(Agg::Distinct, &[1, 1, 2].map(Val::Int), "2");
        check(Agg::Top(2), &[4, 1, 2, 2, 1, 2].map(Val::Int), "[[2, 3], [1, 2]]");
        check(Agg::Top(2), &[4, 1].map(Val::Int), "[[1, 1], [4, 1]]");
        check(Agg::Lower(q("0.5")), &ints, "2");
        check(Agg::Linear(q("0.5")), &ints, "2.5");
        check(Agg::Lower(q("1")), &ints, "10");
        check(Agg::Histogram(vec![q("1"), q("2.5")]), &ints, "[<=1: 1, <=2.5: 1, rest: 2]");
        check(Agg::Stddev, &[2, 4, 4, 4, 5, 5, 7, 9].map(Val::Int), "2.138089935299395");
        check(Agg::Rate(60_000_000), &ints, "96.0");
    }

    #[test]
    fn decimals_keep_their_scale() {
        let decimals = [100, 101, 101].map(|v| Val::Dec(v, 2));
        check(Agg::Sum, &decimals, "3.02");
        check(Agg::Avg, &decimals, "1.01");
        check(Agg::Avg, &[Val::Dec(-1, 2), Val::Dec(0, 2)], "-0.01");
        check(Agg::Linear(q("0.5")), &[Val::Dec(1, 2), Val::Dec(2, 2)], "0.02");
        check(Agg::Linear(q("0.25")), &[Val::Dec(100, 2), Val::Dec(200, 2)], "1.25");
    }

    #[test]
    fn floats_do_not_depend_on_order() {
        check(Agg::Sum, &[1e16, 1.0, -1e16].map(Val::Float), "1.0");
        check(Agg::Sum, &[1.0, 1e16, -1e16].map(Val::Float), "1.0");
    }

    #[test]
    fn quantile_positions_are_exact() {
        let hundred_one: Vec<Val> = (0..=100).map(Val::Int).collect();
        check(Agg::Lower(q("0.29")), &hundred_one, "29");
        let fifty_one: Vec<Val> = (0..=50).map(Val::Int).collect();
        check(Agg::Lower(q("0.58")), &fifty_one, "29");
    }

    #[test]
    fn over_nothing() {
        check(Agg::Count, &[], "0");
        check(Agg::Distinct, &[], "0");
        check(Agg::Top(3), &[], "[]");
        for agg in [Agg::Sum, Agg::Avg, Agg::Min, Agg::First, Agg::Lower(q("0.5")), Agg::Linear(q("0.5"))] {
            check(agg, &[], "null");
        }
        check(Agg::Stddev, &[Val::Int(1)], "null");
        check(Agg::Histogram(vec![q("1")]), &[], "[<=1: 0, rest: 0]");
        check(Agg::Rate(1_000_000), &[], "0.0");
    }

    #[test]
    fn ties_go_to_the_id() {
        let at = |id: &str, value| Item { time: 5, id: Some(id.into()), value: Val::Int(value) };
        let rows = [at("b", 1), at("a", 2), at("c", 3)];
        assert_eq!(fold(&Agg::First, &rows, true, None), Val::Int(2));
        assert_eq!(fold(&Agg::Last, &rows, true, None), Val::Int(3));
    }
}
