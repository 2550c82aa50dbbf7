//! GET /v1/metrics, /v1/metrics/{name}, /series.

use serde_json::{Value, json};

use server::Limits;

use crate::site::{CONTRACTS, Site, order, order_at};

fn filled() -> Site {
    let site = Site::start();
    site.push(&[order("A", "10.00", "north"), order("B", "20.50", "north"), order("C", "100.00", "south")]);
    site
}

#[test]
fn a_read_has_the_promised_shape() {
    let site = filled();
    let answer = site.get("/v1/metrics/revenue").ok();
    assert_eq!(answer["metric_name"], "revenue");
    assert_eq!(answer["value"], "130.50");
    assert_eq!(answer["unit"], "RUB");
    assert_eq!(answer["window"], "all");
    for member in [
        "window_start",
        "window_end",
        "computed_at",
        "as_of",
        "fresh_ms",
        "complete",
        "rows",
        "contract",
        "token",
        "meta",
    ] {
        assert!(answer.get(member).is_some(), "{member} is missing in {answer}");
    }
    assert_eq!(answer["rows"], json!([{ "total": "130.50", "orders": 3, "average": "43.50" }]));
    assert_eq!(answer["contract"]["version"], "1.2.0");
    assert!(answer["contract"]["hash"].as_str().is_some_and(|h| !h.is_empty()));
    assert!(answer["fresh_ms"].as_f64().is_some_and(|ms| ms >= 0.0), "{answer}");
    assert!(answer["meta"]["newest_event"]["time"].is_string(), "{answer}");
    let hour = site.get("/v1/metrics/revenue?window=1h").ok();
    assert!(hour["window_start"].is_string() && hour["window_end"].is_string(), "{hour}");
}

#[test]
fn by_where_and_measures() {
    let site = filled();
    let rows = |path: &str| site.get(path).ok()["rows"].clone();
    assert_eq!(
        rows("/v1/metrics/revenue?by=region&measure=total"),
        json!([{ "region": "north", "total": "30.50" }, { "region": "south", "total": "100.00" }])
    );
    assert_eq!(
        rows("/v1/metrics/revenue?by=region,size&measure=orders&where=region%20%3D%20%27north%27"),
        json!([{ "region": "north", "size": "small", "orders": 2 }])
    );
    assert_eq!(
        rows("/v1/metrics/revenue?measure=largest&measure=orders"),
        json!([{ "largest": "100.00", "orders": 3 }])
    );
    assert_eq!(site.get("/v1/metrics/revenue?where=region%20%3D%20%27south%27").ok()["value"], "100.00");
}

#[test]
fn pages_follow_each_other() {
    let site = Site::start();
    let events: Vec<Value> = (0..5).map(|i| order(&format!("P{i}"), "1.00", &format!("r{i}"))).collect();
    site.push(&events);
    let mut seen = Vec::new();
    let mut path = "/v1/metrics/revenue?by=region&limit=2".to_owned();
    loop {
        let page = site.get(&path).ok();
        assert_eq!(page["total_count"], 5);
        seen.extend(
            page["rows"].as_array().unwrap().iter().map(|r| r["region"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/metrics/revenue?by=region&limit=2&cursor={cursor}");
    }
    assert_eq!(seen, ["r0", "r1", "r2", "r3", "r4"]);
    site.get("/v1/metrics/revenue?by=size&cursor=abc").problem(422, "invalid_parameter");
}

#[test]
fn rows_without_room_in_a_dimension_are_lost_and_counted() {
    let few = CONTRACTS.replace("max: 10, overflow: other", "max: 2, overflow: refuse");
    let site = Site::with(&few, Limits::default());
    let now = jiff::Timestamp::now();
    let at = |n: i64, region: &str| {
        order_at(&format!("O{n}"), "1.00", region, now - jiff::SignedDuration::from_secs(n))
    };
    site.push(&[at(10, "north"), at(9, "south"), at(8, "east"), at(7, "east"), at(6, "west")]);
    let lost = || site.get("/v1/metrics/revenue").ok()["meta"]["lost"]["dimension_overflow"].clone();
    assert_eq!((site.get("/v1/metrics/revenue").ok()["value"].clone(), lost()), (json!("2.00"), json!(3)));
    // An older order makes room for its region, at the cost of another.
    site.push(&[at(20, "east")]);
    assert_eq!((site.get("/v1/metrics/revenue").ok()["value"].clone(), lost()), (json!("4.00"), json!(2)));
    let line = r#"streamgauge_metric_lost_total{metric="revenue",reason="dimension_overflow"} 2"#;
    assert!(site.get("/metrics").text.contains(line));
    assert_eq!(site.get("/v1/metrics/order_count").ok()["meta"]["lost"], json!({}), "it has no dimension");
}

#[test]
fn names_that_do_not_exist() {
    let site = filled();
    let problem = site.get("/v1/metrics/revenu").problem(404, "unknown_metric");
    assert_eq!(problem["errors"][0]["allowed"][0], "revenue", "{problem}");
    let problem = site.get("/v1/metrics/revenue?window=7d").problem(422, "unknown_window");
    assert!(problem["detail"].as_str().unwrap().contains("1h"), "{problem}");
    site.get("/v1/metrics/revenue?measure=profit").problem(422, "unknown_measure");
    site.get("/v1/metrics/revenue?by=planet").problem(422, "unknown_dimension");
    site.get("/v1/metrics/revenue?where=planet%20%3D%201").problem(422, "invalid_where");
    site.get("/v1/metrics/revenue?windw=1h").problem(422, "unknown_parameter");
    site.get("/v1/metrics/revenue?limit=0").problem(422, "invalid_parameter");
    site.get("/v1/metrics/revenue@2").problem(404, "unknown_metric");
    assert_eq!(site.get("/v1/metrics/revenue@1").ok()["value"], "130.50");
}

#[test]
fn as_of_reaches_back_but_not_forward() {
    let site = Site::start();
    let hour = jiff::SignedDuration::from_hours(1);
    site.push(&[
        order_at("old", "5.00", "north", jiff::Timestamp::now() - hour * 3),
        order("new", "7.00", "north"),
    ]);
    assert_eq!(site.get("/v1/metrics/revenue").ok()["value"], "12.00");
    let past = site.get("/v1/metrics/revenue?as_of=-2h").ok();
    assert_eq!(past["value"], "5.00", "{past}");
    assert_eq!(past["meta"]["is_historical"], true);
    let at = (jiff::Timestamp::now() - hour * 2).to_string();
    assert_eq!(site.get(&format!("/v1/metrics/revenue?as_of={at}")).ok()["value"], "5.00");
    let future = (jiff::Timestamp::now() + hour).to_string();
    site.get(&format!("/v1/metrics/revenue?as_of={future}")).problem(422, "as_of_in_future");
    site.get("/v1/metrics/revenue?as_of=yesterday").problem(422, "invalid_parameter");
}

#[test]
fn a_token_that_is_not_contained() {
    let site = filled();
    // An offset far ahead of the log.
    let token = "eyJ2IjoxLCJvIjpbWyJwdXNoIiwibG9nIiwwLDk5OTk5OV1dfQ";
    site.get(&format!("/v1/metrics/revenue?after={token}")).problem(412, "not_contained");
    site.get(&format!("/v1/metrics/revenue?after={token}&wait=50ms")).problem(504, "not_contained_in_time");
    site.get("/v1/metrics/revenue?after=garbage").problem(422, "invalid_parameter");
    let own = site.get("/v1/metrics/revenue").ok()["token"].as_str().unwrap().to_owned();
    assert_eq!(site.get(&format!("/v1/metrics/revenue?after={own}")).status, 200);
}

#[test]
fn the_list_describes_every_metric() {
    let site = filled();
    let list = site.get("/v1/metrics").ok();
    let metrics = list["metrics"].as_array().unwrap();
    assert_eq!(
        metrics.iter().map(|m| m["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["order_count", "revenue"]
    );
    let revenue = &metrics[1];
    assert_eq!(revenue["title"], "Revenue");
    assert_eq!(revenue["value"], "130.50");
    assert_eq!(
        revenue["windows"][1],
        json!({ "name": "1h", "kind": "sliding", "size_seconds": 3600, "every_seconds": 60 })
    );
    assert_eq!(revenue["dimensions"][0]["name"], "region");
    assert_eq!(
        revenue["measures"][3],
        json!({ "name": "largest", "type": "decimal(18,2)", "unit": "", "hidden": true, "agg": "max" })
    );
    assert_eq!(revenue["source_events"], json!(["order.created"]));
    assert_eq!(revenue["freshness"]["p95_budget_ms"], 1000.0);
}

#[test]
fn a_series_has_one_point_per_step() {
    let site = Site::start();
    let minute = jiff::SignedDuration::from_mins(1);
    let now = jiff::Timestamp::now();
    site.push(&[
        order_at("s1", "1.00", "north", now - minute * 10),
        order_at("s2", "2.00", "south", now - minute * 5),
    ]);
    let series = site.get("/v1/metrics/revenue/series?from=-20m&step=1m").ok();
    let points = series["points"].as_array().unwrap();
    assert!((19..=20).contains(&points.len()), "{}", points.len());
    assert_eq!(points[0]["value"], Value::Null);
    assert_eq!(points.last().unwrap()["value"], "3.00");
    let by = site.get("/v1/metrics/revenue/series?from=-2m&step=1m&by=region").ok();
    assert_eq!(by["points"][0]["rows"].as_array().unwrap().len(), 2, "{by}");
    assert_eq!(site.get("/v1/metrics/revenue/series").ok()["points"].as_array().unwrap().len(), 60);
    site.get("/v1/metrics/revenue/series?from=-7d&step=1s").problem(422, "invalid_parameter");
    site.get("/v1/metrics/revenue/series?from=now&to=-1h").problem(422, "invalid_parameter");
    site.get("/v1/metrics/revenue/series?step=0").problem(422, "invalid_parameter");
}
