//! The statements that a contract becomes, held against files; `UPDATE=1` writes them anew.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

use std::path::PathBuf;

use audit::{Question, recompute};
use contracts::SourceFile;

/// 2026-03-02T10:00:00Z
const NOON: i64 = 1_772_445_600_000_000;

fn check(name: &str, yaml: &str, by: &[usize], window: usize) {
    let loaded = contracts::load(&[SourceFile::new("case.yaml", yaml)]);
    let mistakes: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    assert!(!loaded.has_errors(), "{}", mistakes.join("\n"));
    let question = Question {
        metric: 0,
        window,
        by: by.to_vec(),
        measures: (0..loaded.catalog.metrics[0].measures.len()).collect(),
        explain: Some(0),
        filter: None,
        as_of: NOON,
        now: NOON,
    };
    let again = recompute(&loaded.catalog, &question, &[]).unwrap();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.sql"));
    let sql = format!("{}\n", again.sql);
    if std::env::var("UPDATE").is_ok() {
        std::fs::write(&path, &sql).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(sql, wanted, "{} differs; UPDATE=1 writes it anew", path.display());
}

const ORDER: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: order.created
version: 1.0.0
fields:
  order: { type: string, required: true }
  region: { type: string }
  amount: { type: "decimal(18,2)" }
  paid: { type: bool }
  items: { type: list, fields: { price: { type: "decimal(18,2)" }, n: { type: int } } }
"#;

#[test]
fn a_plain_metric() {
    let metric = r#"---
apiVersion: streamgauge/v1
kind: Metric
name: revenue
version: 1.0.0
events: { order: { type: order.created, where: order.paid } }
dimensions: { region: { default: nowhere, max: 3 } }
measures:
  total: { agg: sum, value: order.amount }
  goods: { agg: sum, value: "sum_of(order.items, price * n)" }
  p90: { agg: quantile, q: 0.9, value: order.amount }
  sizes: { agg: histogram, value: order.amount, buckets: [10, 100] }
  last: { agg: last, value: order.amount, where: "order.amount > 1" }
  before: { shift: total, by: 1h }
windows:
  1h: { sliding: 1h, every: 1m }
  visit: { session: 30m }
"#;
    check("plain", &format!("{ORDER}{metric}"), &[0], 0);
    check("session", &format!("{ORDER}{metric}"), &[0], 1);
}

#[test]
fn a_metric_over_an_entity() {
    let more = r#"---
apiVersion: streamgauge/v1
kind: Entity
name: order
version: 1.0.0
key: order
events: [order.created]
fields: { amount: { last: amount }, seen: { count: "*" } }
---
apiVersion: streamgauge/v1
kind: Metric
name: open
version: 1.0.0
entity: order
measures: { value: { agg: sum, value: amount } }
windows: { all: { all: true } }
"#;
    check("entity", &format!("{ORDER}{more}"), &[], 0);
}

#[test]
fn a_join() {
    let more = r#"---
apiVersion: streamgauge/v1
kind: Event
name: order.shipped
version: 1.0.0
fields: { order: { type: string, required: true } }
---
apiVersion: streamgauge/v1
kind: Metric
name: lead
version: 1.0.0
events: { order: { type: order.created }, ship: { type: order.shipped } }
join: [{ from: order, to: ship, match: order.order = ship.order, pick: first, within: 2d }]
measures: { median: { agg: quantile, q: 0.5, value: ship.time - order.time, unit: h } }
windows: { day: { tumbling: 1d, tz: Europe/London } }
"#;
    check("join", &format!("{ORDER}{more}"), &[], 0);
}

#[test]
fn a_shipped_set() {
    let more = r#"
apiVersion: streamgauge/v1
kind: Event
name: commit
version: 1.0.0
fields: { repo: { type: string }, sha: { type: string }, parents: { type: list, items: string } }
---
apiVersion: streamgauge/v1
kind: Event
name: deployed
version: 1.0.0
fields: { repo: { type: string }, sha: { type: string }, service: { type: string } }
---
apiVersion: streamgauge/v1
kind: Metric
name: lead
version: 1.0.0
events: { commit: { type: commit }, deploy: { type: deployed } }
join:
  - from: commit
    to: deploy
    match: commit.repo = deploy.repo
    within: 9d
    ships:
      commit: commit.sha
      head: deploy.sha
      line: [deploy.service]
      history: [{ of: commit, sha: commit.sha, parents: commit.parents }]
measures: { median: { agg: quantile, q: 0.5, value: deploy.time - commit.time, unit: h } }
windows: { day: { tumbling: 1d, tz: Europe/London } }
"#;
    check("shipped", more, &[], 0);
}

#[test]
fn a_sequence_and_what_is_made_of_windows() {
    let more = r#"---
apiVersion: streamgauge/v1
kind: Metric
name: flow
version: 1.0.0
events: { order: { type: order.created } }
sequence: { of: order, key: order.order, state: order.region, end: order.paid }
measures:
  open: { agg: concurrent }
  spent: { agg: duration_in_state, state: eu }
  done: { of: item, agg: count }
  regions: { agg: top, n: 2, value: interval.state }
  mean: { over: done, window: day, last: 3, agg: avg }
windows: { day: { tumbling: 1d, tz: Europe/London } }
"#;
    check("sequence", &format!("{ORDER}{more}"), &[], 0);
}
