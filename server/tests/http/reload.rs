//! What clients see when contracts are reloaded.

use serde_json::json;

use crate::site::{CONTRACTS, Site, order};

#[test]
fn after_a_reload_streams_send_a_new_snapshot() {
    let mut site = Site::start();
    site.push(&[order("X1", "3.00", "north")]);
    let events = site.events("/v1/metrics/revenue/stream", &[]);
    let first = events.next();
    let changed = CONTRACTS.replace("version: 1.2.0\ntitle: Revenue", "version: 1.3.0\ntitle: Turnover");
    assert_ne!(changed, CONTRACTS);
    site.swap(&changed, 2);
    let next = events.until(|m| m.event == "snapshot");
    assert_eq!(
        (&next.json()["contract"]["version"], &next.json()["value"]),
        (&json!("1.3.0"), &json!("3.00"))
    );
    assert_ne!(next.id.split('-').next(), first.id.split('-').next());
    assert_eq!(site.get("/v1/contracts").ok()["generation"], 2);
    // Pushes go to the engine that answers now.
    let answer = site.push(&[order("X2", "1.00", "north")]);
    assert_eq!((&answer["accepted"], &answer["pending"]), (&json!(1), &json!(0)));
    assert_eq!(site.get("/v1/metrics/revenue").ok()["value"], "4.00");
}

#[test]
fn a_metric_that_is_gone_ends_its_stream() {
    let mut site = Site::start();
    let events = site.events("/v1/metrics/order_count/stream", &[]);
    events.next();
    let start = CONTRACTS.find("---\napiVersion: streamgauge/v1\nkind: Metric\nname: order_count").unwrap();
    site.swap(&CONTRACTS[..start], 2);
    let last = events.until(|m| m.event == "error");
    assert_eq!(last.json()["code"], "unknown_metric");
    events.ended();
}
