//! Server-sent events: /v1/metrics/{name}/stream, /v1/stream/metrics, /v1/stream/events.

use std::time::Duration;

use serde_json::json;
use server::Limits;

use crate::site::{CONTRACTS, Site, order};

#[test]
fn a_snapshot_then_changes_only() {
    let site = Site::start();
    site.push(&[order("S1", "1.00", "north")]);
    let events = site.events("/v1/metrics/revenue/stream", &[]);
    let first = events.next();
    assert_eq!((first.event.as_str(), &first.json()["value"]), ("snapshot", &json!("1.00")));
    site.push(&[order("S2", "2.00", "north")]);
    let change = events.until(|m| m.json()["value"] == "3.00");
    assert_eq!(change.event, "change");
    assert_ne!(change.id, first.id);
    // A refused and a duplicate event change nothing.
    site.push(&[order("S2", "2.00", "north"), json!({ "event_type": "nope" })]);
    events.silent(Duration::from_millis(400));
}

#[test]
fn by_and_filters_stream_too() {
    let site = Site::start();
    let events = site.events("/v1/metrics/revenue/stream?by=region&measure=orders&every=0", &[]);
    assert_eq!(events.next().json()["rows"], json!([]));
    site.push(&[order("B1", "1.00", "north")]);
    let change = events.until(|m| m.event == "change");
    assert_eq!(change.json()["rows"], json!([{ "region": "north", "orders": 1 }]));
    site.get("/v1/metrics/revenue/stream?by=planet").problem(422, "unknown_dimension");
    site.get("/v1/metrics/nope/stream").problem(404, "unknown_metric");
}

#[test]
fn resuming_sends_a_snapshot_only_after_a_change() {
    let site = Site::start();
    site.push(&[order("R1", "1.00", "north")]);
    let first = site.events("/v1/metrics/revenue/stream", &[]).next();
    let again = site.events("/v1/metrics/revenue/stream", &[("last-event-id", &first.id)]);
    again.silent(Duration::from_millis(300));
    site.push(&[order("R2", "1.00", "north")]);
    assert_eq!(again.next().json()["value"], "2.00");
    let later = site.events("/v1/metrics/revenue/stream", &[("last-event-id", &first.id)]);
    let snapshot = later.next();
    assert_eq!((snapshot.event.as_str(), &snapshot.json()["value"]), ("snapshot", &json!("2.00")));
    let stranger = site.events("/v1/metrics/revenue/stream", &[("last-event-id", "1-1")]);
    assert_eq!(stranger.next().event, "snapshot");
}

#[test]
fn many_metrics_in_one_stream() {
    let site = Site::start();
    let events = site.events("/v1/stream/metrics?metric=revenue:1h&metric=order_count", &[]);
    let mut first =
        [events.next().json(), events.next().json()].map(|m| m["metric_name"].as_str().unwrap().to_owned());
    first.sort();
    assert_eq!(first, ["order_count", "revenue"]);
    site.push(&[order("M1", "5.00", "north")]);
    let change = events.until(|m| m.json()["metric_name"] == "revenue" && m.json()["value"] == "5.00");
    assert_eq!(change.json()["window"], "1h");
    site.get("/v1/stream/metrics?metric=nope").problem(404, "unknown_metric");
    site.get("/v1/stream/metrics?metric=revenue:9h").problem(422, "unknown_window");
}

#[test]
fn a_burst_of_admitted_events_arrives_whole_and_in_order() {
    let site = Site::start();
    let all = site.events("/v1/stream/events", &[]);
    let one_key = site.events("/v1/stream/events?type=order&key=T42", &[]);
    let none = site.events("/v1/stream/events?type=click", &[]);
    let orders: Vec<_> = (0..100).map(|i| order(&format!("T{i}"), "1.00", "north")).collect();
    // The engine hands rows over from the tick after it was asked to.
    std::thread::sleep(Duration::from_millis(200));
    site.push(&orders);
    let mut ids = Vec::new();
    for i in 0..100 {
        let message = all.next();
        let body = message.json();
        assert_eq!(message.event, "event");
        assert_eq!(body["entity_id"], format!("T{i}"));
        ids.push(message.id);
        if i == 0 {
            assert_eq!((&body["event_type"], &body["event_id"]), (&json!("order.created"), &json!("evt-T0")));
            assert_eq!((&body["data"]["amount"], &body["data"]["size"]), (&json!("1.00"), &json!("small")));
            assert_eq!(body["data"]["user_id"], "***", "personal data is masked");
            assert_eq!((&body["source"], &body["offset"]), (&json!("push"), &json!(0)));
        }
    }
    assert_eq!(one_key.next().json()["entity_id"], "T42");
    one_key.silent(Duration::from_millis(100));
    none.silent(Duration::from_millis(50));
    let resumed = site.events("/v1/stream/events", &[("last-event-id", &ids[97])]);
    assert_eq!(resumed.next().json()["entity_id"], "T98");
    assert_eq!(resumed.next().json()["entity_id"], "T99");
    let stranger = site.events("/v1/stream/events", &[("last-event-id", "1-1")]);
    assert_eq!(stranger.next().event, "missed");
}

#[test]
fn draining_ends_streams_with_an_event() {
    let site = Site::start();
    let metric = site.events("/v1/metrics/revenue/stream", &[]);
    let taps = site.events("/v1/stream/events", &[]);
    assert_eq!(metric.next().event, "snapshot");
    site.app.drain();
    assert_eq!(metric.until(|m| m.event == "drain").event, "drain");
    metric.ended();
    assert_eq!(taps.next().event, "drain");
    taps.ended();
    site.get("/v1/metrics/revenue/stream").problem(503, "draining");
}

#[test]
fn streams_are_bounded() {
    let site = Site::with(CONTRACTS, Limits { streams: 1, ..Limits::default() });
    let first = site.events("/v1/metrics/revenue/stream", &[]);
    first.next();
    site.get("/v1/metrics/revenue/stream").problem(503, "too_many_streams");
}
