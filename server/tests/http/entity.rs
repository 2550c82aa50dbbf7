//! GET /v1/entity/{type}/{id}, /v1/catalog, /v1/lineage.

use serde_json::{Value, json};

use crate::site::{Site, order, order_at};

#[test]
fn the_row_follows_its_events_and_late_ones_do_not_spoil_it() {
    let site = Site::start();
    let minute = jiff::SignedDuration::from_mins(1);
    let now = jiff::Timestamp::now();
    let mut newer = order_at("E1", "20.00", "north", now - minute);
    newer["event_id"] = json!("e-new");
    newer["status"] = json!("shipped");
    let mut late = order_at("E1", "10.00", "north", now - minute * 10);
    late["event_id"] = json!("e-late");
    site.push(&[newer]);
    site.push(&[late]);
    let row = site.get("/v1/entity/order/E1").ok();
    assert_eq!(row["entity_type"], "order");
    assert_eq!(row["entity_id"], "E1");
    assert_eq!(row["data"]["order_id"], "E1");
    assert_eq!(
        (&row["data"]["status"], &row["data"]["amount"]),
        (&json!("shipped"), &json!("20.00")),
        "{row}"
    );
    assert_eq!(row["meta"]["events"], 2);
    assert!(row["freshness_seconds"].as_f64().is_some_and(|s| (50.0..600.0).contains(&s)), "{row}");
    assert!(row["last_updated"].is_string());
    let past = site.get("/v1/entity/order/E1?as_of=-5m").ok();
    assert_eq!(
        (&past["data"]["status"], &past["data"]["amount"]),
        (&json!("pending"), &json!("10.00")),
        "{past}"
    );
    site.get("/v1/entity/order/E1?as_of=-1h").problem(404, "unknown_entity");
}

#[test]
fn what_does_not_exist_is_told() {
    let site = Site::start();
    let problem = site.get("/v1/entity/ordr/X").problem(404, "unknown_entity_type");
    assert_eq!(problem["errors"][0]["allowed"], json!(["order"]));
    site.get("/v1/entity/order/X").problem(404, "unknown_entity");
}

#[test]
fn the_catalog_names_everything() {
    let site = Site::start();
    let catalog = site.get("/v1/catalog").ok();
    assert_eq!(catalog["entities"]["order"]["primary_key"], "order_id");
    assert_eq!(catalog["metrics"]["revenue"]["available_windows"], json!(["all", "1h"]));
    assert_eq!(catalog["metrics"]["revenue"]["unit"], "RUB");
    assert_eq!(catalog["metrics"]["revenue"]["source_events"], json!(["order.created"]));
    assert!(catalog["events"]["order.created"].is_object());
    assert_eq!(catalog["streaming_sources"]["push"]["kind"], "log");
}

#[test]
fn lineage_has_real_counters() {
    let site = Site::start();
    site.push(&[order("L1", "1.00", "north"), json!({"event_type": "order.created", "event_id": "bad"})]);
    let lineage = site.get("/v1/lineage/metric/revenue").ok();
    let node = |id: &str| -> Value {
        let found = lineage["lineage"].as_array().unwrap().iter().find(|n| n["id"] == id).cloned();
        found.unwrap_or_else(|| panic!("{id} is not in {lineage}"))
    };
    assert_eq!(node("source:push")["counts"]["received"], 2);
    assert_eq!(node("source:push")["offsets"][0]["next"], 2);
    assert_eq!(node("event:order.created")["counts"]["admitted"], 1);
    assert_eq!(node("event:order.created")["counts"]["refused"], 1);
    assert_eq!(node("metric:revenue")["feeds"][0]["from"], "event:order.created");
    let edges = lineage["edges"].as_array().unwrap();
    assert!(edges.contains(&json!({ "from": "source:push", "to": "event:order.created" })), "{lineage}");
    assert!(edges.contains(&json!({ "from": "event:order.created", "to": "metric:revenue" })));
    let source = site.get("/v1/lineage/source/push").ok();
    assert!(source["lineage"].as_array().unwrap().iter().any(|n| n["id"] == "entity:order"), "{source}");
    site.get("/v1/lineage/metric/nope").problem(404, "unknown_name");
    site.get("/v1/lineage/galaxy/nope").problem(404, "unknown_kind");
}
