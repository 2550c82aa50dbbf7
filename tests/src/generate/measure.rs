//! Random measures.
//!
//! *In*: the columns of a metric. *Out*: YAML of its measures. *Never*: a sum over values near the
//! limits of their type.

use super::metric::Scope;
use super::{T, Theme, chance, pick};

/// A measure that others can use.
struct Made {
    name: String,
    t: T,
}

/// Two to six folds, then up to three measures over them. `aliases`: the scope of each alias.
pub(super) fn measures(
    rng: &mut fastrand::Rng,
    theme: &Theme,
    all: &Scope,
    aliases: &[Scope],
    yaml: &mut String,
) {
    *yaml += "measures:\n";
    let mut made: Vec<Made> = Vec::new();
    for i in 0..rng.usize(2..7) {
        let single = (!aliases.is_empty() && chance(rng, 50)).then(|| pick(rng, aliases));
        let scope = single.unwrap_or(all);
        let Some((mut options, t)) = fold(rng, theme, scope) else { continue };
        if chance(rng, 25)
            && let Some(filter) = scope.condition(rng)
        {
            options.push(format!("where: \"{filter}\""));
        }
        if let Some(alias) = single.and_then(|s| s.of.as_ref()) {
            options.push(format!("of: {alias}"));
        }
        finish(rng, t, i > 0, &mut options);
        *yaml += &format!("  v{i}: {{ {} }}\n", options.join(", "));
        made.push(Made { name: format!("v{i}"), t });
    }
    if made.is_empty() {
        *yaml += "  v0: { agg: count }\n";
        made.push(Made { name: "v0".into(), t: T::Int });
    }
    for i in 0..rng.usize(..4) {
        if let Some((options, t)) = derived(rng, theme, &made) {
            *yaml += &format!("  x{i}: {{ {} }}\n", options.join(", "));
            made.push(Made { name: format!("x{i}"), t });
        }
    }
}

fn finish(rng: &mut fastrand::Rng, t: T, may_hide: bool, options: &mut Vec<String>) {
    if may_hide && chance(rng, 10) {
        options.push("hidden: true".into());
    }
    match t {
        T::Int if chance(rng, 10) => options.push("empty: 0".into()),
        T::Dec if chance(rng, 10) => options.push("empty: \"0.00\"".into()),
        T::Dec if chance(rng, 10) => options.push("type: \"decimal(30,4)\"".into()),
        _ => {}
    }
}

/// Options of a random fold, and the type of its result.
fn fold(rng: &mut fastrand::Rng, theme: &Theme, scope: &Scope) -> Option<(Vec<String>, T)> {
    const ANY: [T; 10] =
        [T::Text, T::Bool, T::Int, T::Big, T::Float, T::Dec, T::Huge, T::Ts, T::Date, T::Dur];
    const SUMS: [T; 4] = [T::Int, T::Float, T::Dec, T::Dur];
    const NUMBERS: [T; 3] = [T::Int, T::Float, T::Dec];
    const RANKED: [T; 9] = [T::Text, T::Int, T::Big, T::Float, T::Dec, T::Huge, T::Ts, T::Date, T::Dur];
    let agg = *match theme.fresh && chance(rng, 35) {
        true if theme.approx => pick(rng, &["top", "top", "distinct_approx"]),
        true => &"top",
        false => pick(
            rng,
            &[
                "count",
                "count_of",
                "sum",
                "sum",
                "avg",
                "min",
                "max",
                "first",
                "last",
                "distinct",
                "quantile",
                "quantile",
                "histogram",
                "stddev",
                "rate",
            ],
        ),
    };
    let types: &[T] = match agg {
        "count" => return Some((vec!["agg: count".into()], T::Int)),
        "rate" if chance(rng, 50) => {
            return Some((
                vec!["agg: rate".into(), format!("per: {}", pick(rng, &["1s", "1m", "1h"]))],
                T::Float,
            ));
        }
        "count_of" | "first" | "last" => &ANY,
        "distinct" | "distinct_approx" | "top" => {
            &[T::Text, T::Bool, T::Int, T::Big, T::Dec, T::Huge, T::Ts, T::Date, T::Dur]
        }
        "sum" | "avg" | "quantile" => &SUMS,
        "min" | "max" => &RANKED,
        _ => &NUMBERS,
    };
    let (column, t) = scope.column(rng, types)?;
    let value = match t {
        T::Dec if chance(rng, 20) => format!("{column} - 1.50"),
        T::Int if chance(rng, 20) => format!("{column} * 2 - 1"),
        T::Float if chance(rng, 20) => format!("{column} + 0.1"),
        T::Text if chance(rng, 20) => format!("lower({column})"),
        _ => column,
    };
    let name = agg.trim_end_matches("_of");
    let mut options = vec![format!("agg: {name}"), format!("value: \"{value}\"")];
    let result = match agg {
        "count_of" | "distinct" => T::Int,
        // Near the truth only.
        "distinct_approx" => T::Nested,
        "top" => {
            if chance(rng, 80) {
                options.push(format!("n: {}", pick(rng, &["1", "2", "3", "7", "1000"])));
            }
            T::Nested
        }
        "avg" if t == T::Int => T::Float,
        "stddev" | "rate" => T::Float,
        "histogram" => {
            options.push(format!("buckets: {}", pick(rng, &["[0, 1, 10, 100]", "[-5, 0.5, 9.9]", "[7]"])));
            T::Nested
        }
        "quantile" => {
            options.push(format!("q: {}", pick(rng, &["0.5", "0.9", "0.99", "0.25", "0.58", "0.07"])));
            match rng.u8(..4) {
                0 => options.push("method: lower".into()),
                1 => options.push("method: linear".into()),
                2 => options.push(format!("error: {}", pick(rng, &["1%", "0.05"]))),
                _ => {}
            }
            let sketch = options.iter().any(|o| o.starts_with("error"));
            let linear = !options.iter().any(|o| o == "method: lower" || o.starts_with("error"));
            // A sketch is only near the truth, so nothing is computed from it.
            if sketch {
                T::Nested
            } else if linear && t == T::Int {
                T::Float
            } else {
                t
            }
        }
        _ => t,
    };
    Some((options, result))
}

/// Options of a ratio, expression or shift, and the type of its result.
fn derived(rng: &mut fastrand::Rng, theme: &Theme, made: &[Made]) -> Option<(Vec<String>, T)> {
    let numbers: Vec<&Made> = made.iter().filter(|m| matches!(m.t, T::Int | T::Dec | T::Float)).collect();
    if rng.u8(..3) == 0 {
        let of = pick(rng, made);
        // A week back is retained only where retention is said to be long.
        let far = if theme.retain.is_some() { "7d" } else { "2h" };
        let by = *pick(rng, &["1h", "1d", "30m", far, "6h"]);
        return Some((vec![format!("shift: {}", of.name), format!("by: {by}")], of.t));
    }
    if numbers.is_empty() {
        return None;
    }
    let (a, b) = (*pick(rng, &numbers), *pick(rng, &numbers));
    if chance(rng, 45) {
        let t = if a.t == T::Dec && b.t != T::Float { T::Dec } else { T::Float };
        return Some((vec![format!("ratio: [{}, {}]", a.name, b.name)], t));
    }
    let both = match (a.t, b.t) {
        (T::Float, _) | (_, T::Float) => T::Float,
        (T::Dec, _) | (_, T::Dec) => T::Dec,
        _ => T::Int,
    };
    let (text, t) = match rng.u8(..6) {
        0 => (format!("{} + {}", a.name, b.name), both),
        1 => (format!("{} - {}", a.name, b.name), both),
        2 => (format!("{} * 2", a.name), a.t),
        3 => (format!("CASE WHEN {} > 0 THEN {} END", a.name, b.name), b.t),
        4 if both != T::Dec => (format!("{} / {}", a.name, b.name), both),
        _ => (format!("coalesce({}, {})", a.name, a.name), a.t),
    };
    let mut options = vec![format!("expr: \"{text}\"")];
    if t == T::Dec && chance(rng, 30) {
        options.push("type: \"decimal(30,2)\"".into());
    }
    Some((options, t))
}
