//! Expected rows against an answer.
//!
//! *In*: rows of a contract's test, an [`Answer`]. *Out*: one line per difference, expected and got.
//! *Never*: a difference in notation (`110` and `"110.00"` are equal, `"110.001"` is not).

use contracts::catalog::{Expected, ExpectedRow, Metric};
use contracts::value::decimal;
use contracts::value::time::parse_timestamp;
use engine::Answer;
use serde_json::{Map, Value};

use crate::answer::describe;

/// Floats that differ by less than this share are equal: they went through different orders of rounding.
const FLOAT: f64 = 1e-9;

/// Appends what differs.
pub fn rows(
    metric: &Metric,
    window: &str,
    expected: &[ExpectedRow],
    answer: &Answer,
    differences: &mut Vec<String>,
) {
    let got: Vec<Map<String, Value>> = answer
        .rows
        .iter()
        .filter_map(|row| match describe::row(metric, answer, row) {
            Value::Object(cells) => Some(cells),
            _ => None,
        })
        .collect();
    let is_key = |name: &str| answer.dimensions.iter().any(|d| d == name);
    let mut used = vec![false; got.len()];
    for row in expected {
        let matches = |cells: &Map<String, Value>| {
            row.cells.iter().filter(|(name, _)| is_key(name)).all(|(name, want)| holds(want, &cells[name]))
        };
        let found = (0..got.len()).find(|i| !used[*i] && matches(&got[*i]));
        let Some(index) = found else {
            differences.push(format!("{window}: expected {}", show_row(row)));
            differences.push(format!("{window}: got no such row"));
            continue;
        };
        used[index] = true;
        for (name, want) in row.cells.iter().filter(|(name, _)| !is_key(name)) {
            let cell = got[index].get(name).unwrap_or(&Value::Null);
            if !holds(want, cell) {
                let place = key(&answer.dimensions, &got[index]);
                differences.push(format!("{window}{place} {name}: expected {}, got {}", show(want), cell));
            }
        }
    }
    for (cells, _) in got.iter().zip(&used).filter(|(_, used)| !**used) {
        differences.push(format!("{window}: not expected, got {}", Value::Object(cells.clone())));
    }
}

fn key(dimensions: &[String], cells: &Map<String, Value>) -> String {
    if dimensions.is_empty() {
        return String::new();
    }
    let parts: Vec<String> =
        dimensions.iter().map(|d| format!("{d}={}", crate::cli::out::cell(&cells[d]))).collect();
    format!(" [{}]", parts.join(", "))
}

fn show_row(row: &ExpectedRow) -> String {
    let cells: Vec<String> = row.cells.iter().map(|(name, want)| format!("{name}: {}", show(want))).collect();
    format!("{{ {} }} (line {})", cells.join(", "), row.line)
}

fn show(expected: &Expected) -> String {
    match expected {
        Expected::Equal(value) => value.to_string(),
        Expected::Near { value, within } => format!("{value} within {}%", within * 100.0),
    }
}

fn holds(expected: &Expected, got: &Value) -> bool {
    match expected {
        Expected::Equal(want) => equal(want, got),
        Expected::Near { value, within } => {
            number(got).is_some_and(|got| (got - value).abs() <= within * value.abs().max(f64::MIN_POSITIVE))
        }
    }
}

fn equal(want: &Value, got: &Value) -> bool {
    match (want, got) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| equal(v, w)))
        }
        _ if want == got => true,
        _ => equal_scalar(want, got),
    }
}

fn equal_scalar(want: &Value, got: &Value) -> bool {
    // A float cell: close enough. Anything else: digit by digit.
    if got.is_f64() {
        return match (number(want), got.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= FLOAT * a.abs().max(b.abs()),
            _ => false,
        };
    }
    if let (Some(a), Some(b)) = (exact(want), exact(got)) {
        return decimal::compare(a, b).is_eq();
    }
    match (want.as_str().and_then(parse_timestamp), got.as_str().and_then(parse_timestamp)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// The text of a number, in a JSON number or string.
fn digits(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    digits(value)?.parse().ok()
}

fn exact(value: &Value) -> Option<(i128, i8)> {
    const SCALE: i8 = 18;
    let unscaled = decimal::parse_decimal(&digits(value)?, decimal::MAX_DIGITS, SCALE)?;
    Some((unscaled, SCALE))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_equal_by_value() {
        for (want, got) in [
            (json!("110.00"), json!("110")),
            (json!(110), json!("110.00")),
            (json!(110.5), json!("110.50")),
            (json!(1), json!(1.0)),
            (json!("0.3"), json!(0.300_000_000_000_000_04)),
            (json!(null), json!(null)),
            (json!("2026-01-01T00:00:00Z"), json!("2026-01-01T00:00:00.000Z")),
            (json!([{"le": 1, "count": 2}]), json!([{"le": 1.0, "count": 2}])),
        ] {
            assert!(equal(&want, &got), "{want} {got}");
        }
        for (want, got) in [
            (json!("110.01"), json!("110.00")),
            (json!(0), json!(null)),
            (json!("a"), json!("b")),
            (json!(1.01), json!(1.0)),
        ] {
            assert!(!equal(&want, &got), "{want} {got}");
        }
    }

    #[test]
    fn near_is_relative() {
        let near = Expected::Near { value: 5400.0, within: 0.01 };
        assert!(holds(&near, &json!(5446.0)));
        assert!(!holds(&near, &json!(5455.0)));
        assert!(!holds(&near, &json!(null)));
    }
}
