//! Do a served answer and a recomputed one agree?
//!
//! *In*: both. *Out*: the first difference. *Never*: a tolerance wider than 1e-9, but for sketches, which promise no
//! more than their `error`.

use contracts::catalog::{Agg, MeasureKind, Metric};
use contracts::value::{Value, format_timestamp};

use crate::ask::{Question, Recomputed};

/// A served answer.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// The window; `None` for `all` and sessions.
    pub span: Option<(i64, i64)>,
    /// The first visible measure over all rows.
    pub value: Value,
    /// Its rows.
    pub rows: Vec<ServedRow>,
}

/// A row of it.
#[derive(Debug, Clone)]
pub struct ServedRow {
    /// Dimension values.
    pub key: Vec<Value>,
    /// One per [`Question::measures`].
    pub values: Vec<Value>,
    /// For sessions: start and end.
    pub session: Option<(i64, i64)>,
}

/// How far a measure may be off.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Slack {
    /// Not at all; floats by 1e-9.
    Exact,
    /// By this share of the exact value, and by so many.
    Share(f64, f64),
    /// Nothing is promised.
    Any,
}

/// Of `distinct_approx`: four standard errors of a HyperLogLog of 4,096 registers, and a few of few.
const RANKS: Slack = Slack::Share(4.0 * 0.016_25, 3.0);

/// Floats may differ by this share of their size.
const FLOATS: f64 = 1e-9;

/// The first difference, in words; `None`: they agree.
pub fn disagreement(
    metric: &Metric,
    question: &Question,
    served: &Served,
    again: &Recomputed,
) -> Option<String> {
    if served.span != again.span {
        return Some(format!("the window is {}, served {}", span(again.span), span(served.span)));
    }
    if let Some(first) = metric.measures.iter().position(|measure| !measure.hidden)
        && !alike(&served.value, &again.value, slack(metric, first))
    {
        return Some(format!("value is {}, served {}", show(&again.value), show(&served.value)));
    }
    let missing = again.rows.iter().find(|row| !served.rows.iter().any(|other| other.key == row.key));
    if let Some(row) = missing {
        return Some(format!("row {} is not served", key(&row.key)));
    }
    for row in &served.rows {
        let Some(other) = again.rows.iter().find(|other| other.key == row.key) else {
            return Some(format!("row {} is served, and is not there", key(&row.key)));
        };
        if row.session != other.session {
            let (again, served) = (span(other.session), span(row.session));
            return Some(format!("the session of {} is {again}, served {served}", key(&row.key)));
        }
        for (position, measure) in question.measures.iter().enumerate() {
            let (served, again) = (&row.values[position], &other.values[position]);
            if !alike(served, again, slack(metric, *measure)) {
                let name = &metric.measures[*measure].name;
                let (again, served) = (show(again), show(served));
                return Some(format!("{name} of {} is {again}, served {served}", key(&row.key)));
            }
        }
    }
    None
}

fn slack(metric: &Metric, measure: usize) -> Slack {
    let both = |a, b| match (a, b) {
        (Slack::Exact, Slack::Exact) => Slack::Exact,
        _ => Slack::Any,
    };
    match &metric.measures[measure].kind {
        MeasureKind::Fold(fold) => of_fold(&metric.folds[*fold].agg),
        MeasureKind::Shift { of, .. } => slack(metric, *of),
        MeasureKind::Over { of, agg, .. } => match slack(metric, *of) {
            Slack::Exact => of_fold(agg),
            _ => Slack::Any,
        },
        MeasureKind::Ratio(a, b) => both(slack(metric, *a), slack(metric, *b)),
        MeasureKind::Expr { inputs, .. } => {
            inputs.iter().map(|input| slack(metric, *input)).fold(Slack::Exact, both)
        }
    }
}

fn of_fold(agg: &Agg) -> Slack {
    match agg {
        Agg::QuantileSketch { error, .. } => Slack::Share(*error, 0.0),
        Agg::DistinctApprox => RANKS,
        _ => Slack::Exact,
    }
}

fn alike(served: &Value, again: &Value, slack: Slack) -> bool {
    let near = |a: f64, b: f64, share: f64| {
        let size = a.abs().max(b.abs());
        (a - b).abs() <= share * size.max(1e-12)
    };
    match (served, again, slack) {
        (_, _, Slack::Any) => true,
        (a, b, _) if a == b => true,
        (Value::Null, _, _) | (_, Value::Null, _) => false,
        (Value::Float(a), Value::Float(b), Slack::Exact) => near(*a, *b, FLOATS),
        (Value::Duration(a), Value::Duration(b), Slack::Share(share, _)) => {
            (a - b).abs() as f64 <= (*b as f64).abs() * share * (1.0 + FLOATS) + 1.0
        }
        (a, b, Slack::Share(share, plus)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= b.abs() * share * (1.0 + FLOATS) + plus + 1e-12,
            _ => false,
        },
        _ => false,
    }
}

fn span(span: Option<(i64, i64)>) -> String {
    span.map_or("none".to_owned(), |(start, end)| {
        format!("{} to {}", format_timestamp(start), format_timestamp(end))
    })
}

fn key(key: &[Value]) -> String {
    if key.is_empty() {
        return "all".to_owned();
    }
    key.iter().map(show).collect::<Vec<_>>().join(", ")
}

fn show(value: &Value) -> String {
    value.to_json(None).to_string()
}

#[cfg(test)]
mod tests {
    use contracts::SourceFile;

    use super::*;
    use crate::ask::Row;

    const YAML: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: e
version: 1.0.0
fields: { k: { type: string }, v: { type: float } }
---
apiVersion: streamgauge/v1
kind: Metric
name: m
version: 1.0.0
events: { e: { type: e } }
dimensions: { k: { max: 9 } }
measures:
  total: { agg: sum, value: e.v }
  near: { agg: quantile, q: 0.5, method: sketch, error: 1%, value: e.v }
  half: { expr: near / 2 }
"#;

    /// What differs between a served and a recomputed row of `total`, `near`, `half`.
    fn differs(served: [f64; 3], again: [f64; 3]) -> Option<String> {
        let loaded = contracts::load(&[SourceFile::new("case.yaml", YAML)]);
        let question = Question {
            metric: 0,
            window: 0,
            by: vec![0],
            measures: vec![0, 1, 2],
            explain: None,
            filter: None,
            as_of: 0,
            now: 0,
        };
        let key = vec![Value::Text("a".into())];
        let values = |floats: [f64; 3]| floats.map(Value::Float).to_vec();
        let served = Served {
            span: None,
            value: Value::Float(served[0]),
            rows: vec![ServedRow { key: key.clone(), values: values(served), session: None }],
        };
        let again = Recomputed {
            value: Value::Float(again[0]),
            rows: vec![Row { key, values: values(again), session: None }],
            ..Recomputed::default()
        };
        disagreement(&loaded.catalog.metrics[0], &question, &served, &again)
    }

    #[test]
    fn what_agrees_and_what_does_not() {
        assert_eq!(differs([3.0, 100.0, 50.0], [3.0, 100.0, 50.0]), None);
        assert_eq!(differs([3.0 + 1e-12, 100.0, 50.0], [3.0, 100.0, 50.0]), None);
        assert_eq!(differs([3.0, 100.9, 70.0], [3.0, 100.0, 50.0]), None, "a sketch, and what is made of it");
        let value = differs([3.000_001, 100.0, 50.0], [3.0, 100.0, 50.0]);
        assert_eq!(value.as_deref(), Some("value is 3.0, served 3.000001"));
        let sketch = differs([3.0, 101.1, 50.0], [3.0, 100.0, 50.0]);
        assert_eq!(sketch.as_deref(), Some("near of \"a\" is 100.0, served 101.1"));
    }
}
