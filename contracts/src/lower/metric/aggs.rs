//! Each `agg`: what it folds, its options, the type of its result.
//!
//! *In*: a measure's options and the type of its value. *Out*: [`Agg`]. *Never*: which rows it folds.

use crate::catalog::{Agg, Micros};
use crate::duration::parse_share;
use crate::lower::Cx;
use crate::value::ValueType;
use crate::yaml::{Entry, Node, Yaml};

/// Whether `agg` can fold values of type `ty`.
pub(super) fn takes(cx: &mut Cx<'_>, place: &Node, agg: &str, ty: &ValueType) -> Option<()> {
    use ValueType::{Bool, Date, Decimal, Duration, Float, Histogram, Int, Timestamp};
    let number = matches!(ty, Int | Float | Decimal { .. });
    let (fits, allowed) = match agg {
        "sum" | "avg" => (number || *ty == Duration, "int, float, decimal or duration"),
        "quantile" => {
            (number || matches!(ty, Duration | Timestamp), "int, float, decimal, duration or timestamp")
        }
        "stddev" | "histogram" | "rate" => (number, "int, float or decimal"),
        "min" | "max" => (*ty != Bool && *ty != Histogram, "anything with an order"),
        _ => (*ty != Histogram, "any plain value"),
    };
    if fits {
        return Some(());
    }
    let message = format!("agg `{agg}` cannot fold {ty} values");
    let mut diagnostic = cx.at("wrong_aggregate", place.span, message).found(place.shown()).allowed(allowed);
    if matches!(ty, Timestamp | Date) {
        diagnostic = diagnostic.fix("subtract a time to get a duration");
    } else if *ty == Bool {
        diagnostic = diagnostic.fix("count the rows for which it is true: `agg: count` with `where`");
    } else if *ty == ValueType::Text {
        diagnostic = diagnostic.fix("declare the field as a number, or use `agg: distinct`");
    }
    cx.push(diagnostic);
    None
}

/// The accumulator of `agg` with its options.
pub(super) fn options(cx: &mut Cx<'_>, entry: &Entry, agg: &str) -> Option<Agg> {
    let node = &entry.value;
    Some(match agg {
        "count" => Agg::Count,
        "sum" => Agg::Sum,
        "avg" => Agg::Avg,
        "min" => Agg::Min,
        "max" => Agg::Max,
        "first" => Agg::First,
        "last" => Agg::Last,
        "distinct" => Agg::Distinct,
        "distinct_approx" => Agg::DistinctApprox,
        "top" => Agg::Top { n: most(cx, node)? },
        "stddev" => Agg::Stddev,
        "concurrent" => Agg::Concurrent,
        "duration_in_state" => Agg::DurationInState,
        "rate" => Agg::Rate { per: positive(cx, node, "per")?.unwrap_or(1_000_000) },
        "histogram" => Agg::Histogram { bounds: bounds(cx, entry)? },
        _ => quantile(cx, entry)?,
    })
}

/// A duration that must be more than 0; `Some(None)` where it is not given.
fn positive(cx: &mut Cx<'_>, node: &Node, key: &str) -> Option<Option<Micros>> {
    let Some(place) = node.get(key) else { return Some(None) };
    let micros = cx.duration(node, key)?;
    if micros > 0 {
        return Some(Some(micros));
    }
    let message = format!("`{key}` must be more than nothing");
    let diagnostic = cx.at("out_of_range", place.span, message).found(place.shown()).allowed("more than 0s");
    cx.push(diagnostic);
    None
}

/// `n` of `top`.
fn most(cx: &mut Cx<'_>, node: &Node) -> Option<usize> {
    /// An answer carries all of them in one cell.
    const MOST: i64 = 1_000;
    const USUAL: usize = 10;
    let Some(place) = node.get("n") else { return Some(USUAL) };
    let Yaml::Int(n, _) = place.value else { return None };
    if (1..=MOST).contains(&n) {
        return usize::try_from(n).ok();
    }
    let allowed = format!("1 to {MOST}");
    let diagnostic =
        cx.at("out_of_range", place.span, "`n` is out of range").found(place.shown()).allowed(allowed);
    cx.push(diagnostic);
    None
}

fn bounds(cx: &mut Cx<'_>, entry: &Entry) -> Option<Vec<f64>> {
    /// A histogram is kept per key and pane.
    const MOST: usize = 200;
    let Some(place) = entry.value.get("buckets") else {
        let diagnostic = cx
            .at("missing_key", entry.key_span, "agg `histogram` needs `buckets`")
            .fix("add `buckets: [0.1, 0.5, 1, 5]`: ascending upper bounds");
        cx.push(diagnostic);
        return None;
    };
    let bounds: Vec<f64> = place.items().iter().filter_map(number).collect();
    let ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    let finite = bounds.iter().all(|bound| bound.is_finite());
    if bounds.is_empty() || bounds.len() > MOST || !ascending || !finite {
        let found: Vec<String> = place.items().iter().map(Node::shown).collect();
        let diagnostic = cx
            .at("bad_buckets", place.span, "`buckets` are not ascending upper bounds")
            .found(format!("[{}]", found.join(", ")))
            .allowed(format!("1 to {MOST} finite numbers, each above the one before"));
        cx.push(diagnostic);
        return None;
    }
    Some(bounds)
}

fn number(node: &Node) -> Option<f64> {
    match node.value {
        Yaml::Int(value, _) => Some(value as f64),
        Yaml::Float(value, _) => Some(value),
        _ => None,
    }
}

fn quantile(cx: &mut Cx<'_>, entry: &Entry) -> Option<Agg> {
    let node = &entry.value;
    let Some(place) = node.get("q") else {
        let diagnostic =
            cx.at("missing_key", entry.key_span, "agg `quantile` needs `q`").fix("add `q: 0.95`");
        cx.push(diagnostic);
        return None;
    };
    let q = number(place)?;
    if !(q > 0.0 && q < 1.0) {
        let diagnostic = cx
            .at("out_of_range", place.span, "`q` is out of range")
            .found(place.shown())
            .allowed("above 0 and below 1; for the ends use `agg: min` and `agg: max`");
        cx.push(diagnostic);
        return None;
    }
    let error = node.entry("error");
    let method = node.get("method").and_then(Node::scalar);
    if let (Some(error), Some(exact @ ("lower" | "linear"))) = (error, method) {
        let message = format!("`error` does nothing for method `{exact}`, which is exact");
        let diagnostic =
            cx.at("option_not_used", error.key_span, message).fix("remove `error`, or use `method: sketch`");
        cx.push(diagnostic);
        return None;
    }
    if method == Some("sketch") || error.is_some() {
        let relative = match error {
            Some(error) => parse_share(error.value.scalar()?)?,
            None => 0.01,
        };
        if !(0.0001..=0.5).contains(&relative) {
            let span = error.map(|e| e.value.span).unwrap_or_default();
            let diagnostic = cx
                .at("out_of_range", span, "`error` of a sketch is out of range")
                .found(format!("{relative}"))
                .allowed("0.01% to 50%");
            cx.push(diagnostic);
            return None;
        }
        return Some(Agg::QuantileSketch { q, error: relative });
    }
    Some(Agg::Quantile { q, linear: method != Some("lower") })
}

/// The type of a fold's result, by docs/reference/semantics.md.
pub(super) fn result_type(agg: &Agg, valued: bool, input: &ValueType) -> ValueType {
    use ValueType::{Decimal, Duration, Float, Int};
    match (agg, input) {
        (Agg::Count | Agg::Distinct | Agg::DistinctApprox | Agg::Concurrent, _) => Int,
        (Agg::DurationInState, _) => Duration,
        (Agg::Top { .. }, _) => ValueType::Ranking,
        (Agg::Histogram { .. }, _) => ValueType::Histogram,
        (Agg::Stddev | Agg::Rate { .. }, _) => Float,
        (Agg::Sum | Agg::Avg, Decimal { scale, .. }) => Decimal { precision: 38, scale: *scale },
        (Agg::Sum, other) => other.clone(),
        (Agg::Avg, Duration) => Duration,
        (Agg::Avg, _) => Float,
        (Agg::Quantile { linear: true, .. } | Agg::QuantileSketch { .. }, Int) => Float,
        (_, other) if valued => other.clone(),
        _ => Int,
    }
}
