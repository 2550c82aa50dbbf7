//! GET /v1/metrics/{name}/why.

use serde_json::{Value, json};

use crate::site::{Site, order};

fn filled() -> Site {
    let site = Site::start();
    let pushed = site.push(&[
        order("A", "10.00", "north"),
        order("B", "20.50", "north"),
        order("C", "100.00", "south"),
        order("D", "100001.00", "south"),
    ]);
    assert_eq!(pushed["refused"], 1, "{pushed}");
    site.app.flush_dead_letters();
    site
}

fn lost<'a>(answer: &'a Value, reason: &str) -> Option<&'a Value> {
    answer["lost"].as_array()?.iter().find(|one| one["reason"] == reason)
}

#[test]
fn a_number_its_second_truth_and_its_events() {
    let site = filled();
    let answer = site.get("/v1/metrics/revenue/why").ok();
    assert_eq!(
        (&answer["value"], &answer["recomputed"], &answer["agrees"]),
        (&json!("130.50"), &json!("130.50"), &json!(true)),
        "{answer:#}"
    );
    for (step, n) in [("received", 4), ("admitted", 3), ("matched", 3), ("counted", 3)] {
        assert_eq!(answer[step], n, "{step} of {answer:#}");
    }
    assert_eq!(answer["joined"], Value::Null);
    let mut ids: Vec<&str> = answer["samples"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    ids.sort_unstable();
    assert_eq!(ids.len(), 3, "{answer:#}");
    let refused = lost(&answer, "refused: rule:not_huge").unwrap_or_else(|| panic!("{answer:#}"));
    assert_eq!(refused["count"], 1);
    assert_eq!(refused["samples"].as_array().map(Vec::len), Some(1));
    let sql = answer["sql"].as_str().unwrap();
    assert!(sql.starts_with("WITH rows AS (") && sql.contains("FROM counted"), "{sql}");
}

#[test]
fn the_extreme_is_named_and_rows_stand_side_by_side() {
    let site = filled();
    let answer = site.get("/v1/metrics/revenue/why?measure=largest").ok();
    assert_eq!(answer["value"], "100.00", "{answer:#}");
    let it = &answer["sample_values"][0];
    assert_eq!((&it["value"], &it["is_it"]), (&json!("100.00"), &json!(true)), "{answer:#}");
    let split = site.get("/v1/metrics/revenue/why?by=region&measure=total").ok();
    assert_eq!(
        split["rows"],
        json!([
            { "region": "north", "value": { "total": "30.50" }, "recomputed": { "total": "30.50" } },
            { "region": "south", "value": { "total": "100.00" }, "recomputed": { "total": "100.00" } },
        ]),
        "{split:#}"
    );
    let hour = site.get("/v1/metrics/revenue/why?window=1h&where=region%20%3D%20%27south%27").ok();
    assert_eq!((&hour["value"], &hour["agrees"]), (&json!("100.00"), &json!(true)), "{hour:#}");
    assert!(hour["window_start"].is_string());
}

#[test]
fn questions_are_checked_as_everywhere() {
    let site = filled();
    assert_eq!(site.get("/v1/metrics/nothing/why").status, 404);
    assert_eq!(site.get("/v1/metrics/revenue/why?window=9h").status, 422);
    assert_eq!(site.get("/v1/metrics/revenue/why?limit=1").status, 422);
}

const LEAD: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: change.merged
version: 1.0.0
time: timestamp
id: event_id
fields: { event_id: { type: string }, timestamp: { type: timestamp, required: true }, change: { type: string, required: true } }
---
apiVersion: streamgauge/v1
kind: Event
name: deployed
version: 1.0.0
time: timestamp
id: event_id
fields: { event_id: { type: string }, timestamp: { type: timestamp, required: true }, change: { type: string }, environment: { type: string } }
---
apiVersion: streamgauge/v1
kind: Metric
name: lead_time
version: 1.0.0
events:
  merge: { type: change.merged }
  deploy: { type: deployed, where: deploy.environment = 'production' }
join:
  - { from: merge, to: deploy, match: merge.change = deploy.change, pick: first, within: 90d }
measures:
  median: { agg: quantile, q: 0.5, method: lower, value: deploy.time - merge.time, unit: s }
  changes: { agg: count }
windows:
  7d: { sliding: 7d, every: 1m }
"#;

#[test]
fn a_join_says_who_waits() {
    let site = Site::with(LEAD, server::Limits::default());
    let at = |seconds: i64| {
        let now = jiff::Timestamp::now().as_second();
        jiff::Timestamp::from_second(now - 3_600 + seconds).unwrap().to_string()
    };
    let merge = |id: &str, seconds: i64| {
        json!({ "type": "change.merged", "event_id": format!("m-{id}"), "event_type": "change.merged",
            "timestamp": at(seconds), "change": id })
    };
    let deploy = |id: &str, seconds: i64, to: &str| {
        json!({ "event_id": format!("d-{id}-{to}"), "event_type": "deployed",
            "timestamp": at(seconds), "change": id, "environment": to })
    };
    let pushed = site.push(&[
        merge("a", 0),
        merge("b", 10),
        merge("c", 20),
        deploy("a", 100, "production"),
        deploy("b", 50, "production"),
        deploy("c", 60, "staging"),
    ]);
    assert_eq!(pushed["accepted"], 6, "{pushed}");
    let answer = site.get("/v1/metrics/lead_time/why").ok();
    assert_eq!(answer["agrees"], true, "{answer:#}");
    assert_eq!((&answer["value"], &answer["recomputed"]), (&json!(40.0), &json!(40.0)), "{answer:#}");
    for (step, n) in [("received", 6), ("admitted", 6), ("matched", 5), ("joined", 2), ("counted", 2)] {
        assert_eq!(answer[step], n, "{step} of {answer:#}");
    }
    assert_eq!(answer["sample_values"][0]["id"], "m-b + d-b-production", "{answer:#}");
    assert_eq!(answer["sample_values"][0]["is_it"], true);
    assert_eq!(
        lost(&answer, "waiting"),
        Some(&json!({ "reason": "waiting", "count": 1, "samples": ["m-c"] }))
    );
}
