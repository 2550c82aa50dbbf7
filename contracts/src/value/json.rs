//! Values as JSON cells and as text for people.
//!
//! *In*: a [`Value`] and the unit its answer is in. *Out*: JSON as docs/reference/semantics.md
//! "Cells" promises. *Never*: a decimal as a JSON number, a NaN.

use std::fmt;

use serde_json::{Number, Value as Json, json};

use super::{Value, decimal, time};

impl Value {
    /// The cell as JSON. `unit` matters for durations only: `us`, `ms`, `m`, `h`, `d`; anything
    /// else means seconds. Floats that are not finite are `null`.
    pub fn to_json(&self, unit: Option<&str>) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(v) => Json::Bool(*v),
            Self::Int(v) => Json::from(*v),
            Self::Float(v) => float(*v),
            Self::Decimal(unscaled, scale) => Json::from(decimal::format_decimal(*unscaled, *scale)),
            Self::Text(v) => Json::from(v.as_ref()),
            Self::Timestamp(v) => Json::from(time::format_timestamp(*v)),
            Self::Date(v) => Json::from(time::format_date(*v)),
            Self::Duration(v) => float(duration_in(*v, unit)),
            Self::List(items) => items.iter().map(|item| item.to_json(unit)).collect(),
            Self::Histogram(rows) => rows
                .iter()
                .map(|(le, count)| json!({"le": le.map_or(Json::Null, float), "count": count}))
                .collect(),
            Self::Ranking(rows) => rows
                .iter()
                .map(|(value, count)| json!({"value": value.to_json(unit), "count": count}))
                .collect(),
        }
    }
}

fn float(value: f64) -> Json {
    Number::from_f64(value).map_or(Json::Null, Json::Number)
}

/// Microseconds in `unit` (see [`Value::to_json`]).
pub fn duration_in(micros: i64, unit: Option<&str>) -> f64 {
    let per = match unit {
        Some("us") => 1.0,
        Some("ms") => 1e3,
        Some("m") => 60e6,
        Some("h") => 3600e6,
        Some("d") => 86_400e6,
        _ => 1e6,
    };
    micros as f64 / per
}

/// As in JSON, without the quotes; lists, histograms and rankings as JSON.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::Int(v) => write!(f, "{v}"),
            Self::Float(v) => write!(f, "{v}"),
            Self::Decimal(unscaled, scale) => f.write_str(&decimal::format_decimal(*unscaled, *scale)),
            Self::Text(v) => f.write_str(v),
            Self::Timestamp(v) => f.write_str(&time::format_timestamp(*v)),
            Self::Date(v) => f.write_str(&time::format_date(*v)),
            Self::Duration(v) => write!(f, "{}s", duration_in(*v, None)),
            Self::List(_) | Self::Histogram(_) | Self::Ranking(_) => write!(f, "{}", self.to_json(None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_look_as_promised() {
        for (value, unit, expected) in [
            (Value::Null, None, json!(null)),
            (Value::Int(i64::MAX), None, json!(9_223_372_036_854_775_807i64)),
            (Value::Float(0.5), None, json!(0.5)),
            (Value::Float(f64::INFINITY), None, json!(null)),
            (Value::Decimal(11_000, 2), Some("USD"), json!("110.00")),
            (Value::Timestamp(1_500), None, json!("1970-01-01T00:00:00.001500Z")),
            (Value::Date(1), None, json!("1970-01-02")),
            (Value::Duration(5_400_000_000), None, json!(5400.0)),
            (Value::Duration(5_400_000_000), Some("s"), json!(5400.0)),
            (Value::Duration(5_400_000_000), Some("ms"), json!(5_400_000.0)),
            (Value::Duration(5_400_000_000), Some("m"), json!(90.0)),
            (Value::Duration(5_400_000_000), Some("h"), json!(1.5)),
            (Value::Duration(43_200_000_000), Some("d"), json!(0.5)),
            (Value::List([Value::Text("a".into()), Value::Null].into()), None, json!(["a", null])),
            (
                Value::Histogram([(Some(1.0), 2), (None, 0)].into()),
                None,
                json!([{"le": 1.0, "count": 2}, {"le": null, "count": 0}]),
            ),
            (
                Value::Ranking([(Value::Decimal(150, 2), 3), (Value::Decimal(20, 2), 1)].into()),
                None,
                json!([{"value": "1.50", "count": 3}, {"value": "0.20", "count": 1}]),
            ),
        ] {
            assert_eq!(value.to_json(unit), expected);
        }
        assert_eq!(Value::Decimal(-5, 1).to_string(), "-0.5");
        assert_eq!(Value::Duration(1_500_000).to_string(), "1.5s");
    }
}
