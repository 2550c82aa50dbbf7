//! /v1/deadletter: refused, corrected, replayed, dismissed.

use serde_json::{Value, json};

use crate::site::{Site, order, wait_until};

/// Pushes one refused order and returns its dead letter.
fn refused(site: &Site, id: &str) -> Value {
    let mut wrong = order(id, "12.30", "north");
    wrong["status"] = json!("lost");
    assert_eq!(site.push(&[wrong])["refused"], 1);
    let mut found = Value::Null;
    wait_until("the dead letter is listed", || {
        let list = site.get("/v1/deadletter").ok();
        let items = list["items"].as_array().unwrap();
        found =
            items.iter().find(|i| i["original_event_id"] == format!("evt-{id}")).cloned().unwrap_or_default();
        found.is_object()
    });
    found
}

#[test]
fn a_replayed_event_moves_the_metric() {
    let site = Site::start();
    let item = refused(&site, "D1");
    assert_eq!(
        (&item["failure_reason"], &item["status"]),
        (&json!("not_in_enum"), &json!("failed")),
        "{item}"
    );
    assert_eq!(item["event_type"], "order.created");
    let id = item["event_id"].as_str().unwrap();
    let detail = site.get(&format!("/v1/deadletter/{id}")).ok();
    assert_eq!(detail["payload"]["status"], "lost");
    assert_eq!(detail["payload_encoding"], "text");
    assert_eq!(site.get("/v1/metrics/order_count").ok()["value"], 0);

    let still = json!({ "corrected_payload": { "status": "gone" } }).to_string();
    let problem = site
        .post(&format!("/v1/deadletter/{id}/replay"), "application/json", &still)
        .problem(422, "still_refused");
    assert_eq!(problem["errors"][0]["code"], "not_in_enum", "{problem}");
    let detail = site.get(&format!("/v1/deadletter/{id}")).ok();
    assert_eq!((&detail["status"], &detail["retry_count"]), (&json!("failed"), &json!(1)));
    let open = site.get("/v1/deadletter?status=failed").ok();
    assert_eq!(open["pagination"]["total"], 1, "the refused replay is not a second open item: {open}");

    let good = json!({ "corrected_payload": { "status": "shipped" } }).to_string();
    let answer = site.post(&format!("/v1/deadletter/{id}/replay"), "application/json", &good).ok();
    assert_eq!(
        (&answer["status"], &answer["retry_count"], &answer["event_id"]),
        (&json!("replayed"), &json!(2), &json!(id))
    );
    let token = answer["token"].as_str().unwrap();
    assert_eq!(site.get(&format!("/v1/metrics/revenue?after={token}&wait=5s")).ok()["value"], "12.30");
    site.post(&format!("/v1/deadletter/{id}/replay"), "application/json", &good)
        .problem(409, "already_replayed");
    assert_eq!(site.get("/v1/deadletter?status=replayed").ok()["pagination"]["total"], 1);
}

#[test]
fn payloads_that_are_no_text() {
    let site = Site::start();
    let answer = site.post("/v1/events", "application/json", "{broken").json();
    assert_eq!(answer["refused"], 1);
    let mut items = Value::Null;
    wait_until("the dead letter is listed", || {
        items = site.get("/v1/deadletter?reason=malformed_json").ok()["items"].clone();
        items.as_array().is_some_and(|i| !i.is_empty())
    });
    let id = items[0]["event_id"].as_str().unwrap().to_owned();
    let detail = site.get(&format!("/v1/deadletter/{id}")).ok();
    assert_eq!(detail["payload_text"], "{broken");
    let merge = json!({ "corrected_payload": {} }).to_string();
    site.post(&format!("/v1/deadletter/{id}/replay"), "application/json", &merge)
        .problem(422, "invalid_replay");
    let whole = json!({ "payload": order("D2", "1.00", "north") }).to_string();
    assert_eq!(
        site.post(&format!("/v1/deadletter/{id}/replay"), "application/json", &whole).ok()["status"],
        "replayed"
    );
    assert_eq!(site.get("/v1/metrics/order_count").ok()["value"], 1);
}

#[test]
fn a_cloud_event_in_binary_mode_is_replayed_with_its_headers() {
    let site = Site::start();
    let time = (jiff::Timestamp::now() - jiff::SignedDuration::from_secs(5)).to_string();
    let headers = [
        ("content-type", "application/json"),
        ("authorization", "secret"),
        ("ce-specversion", "1.0"),
        ("ce-id", "b-1"),
        ("ce-type", "order.created"),
        ("ce-source", "/test"),
        ("ce-time", time.as_str()),
    ];
    // Refused by decode (a type) and by admit (a rule): both know nothing of their event but its data.
    let data = |amount: &str| json!({ "event_id": format!("e{amount}"), "timestamp": time, "order_id": "B1", "amount": amount });
    for amount in ["oops", "100001.00"] {
        let refused = site.post_with("/v1/events", &headers, &data(amount).to_string()).json();
        assert_eq!(refused["refused"], 1, "{refused}");
    }
    let mut items = Value::Null;
    wait_until("the dead letters are listed", || {
        items = site.get("/v1/deadletter").ok()["items"].clone();
        items.as_array().is_some_and(|i| i.len() == 2)
    });
    for item in items.as_array().unwrap() {
        let path = format!("/v1/deadletter/{}", item["event_id"].as_str().unwrap());
        let kept = site.get(&path).ok()["headers"].clone();
        assert_eq!((&kept["ce-type"], &kept["ce-time"]), (&json!("order.created"), &json!(time)), "{kept}");
        assert_eq!(kept.as_object().unwrap().len(), 6, "no secret: {kept}");
        let good = json!({ "corrected_payload": { "amount": "3.00" } }).to_string();
        let answer = site.post(&format!("{path}/replay"), "application/json", &good).ok();
        assert_eq!(answer["status"], "replayed");
    }
    assert_eq!(site.get("/v1/metrics/revenue").ok()["value"], "6.00");
}

#[test]
fn dismissing_filtering_and_counting() {
    let site = Site::start();
    let first = refused(&site, "F1");
    refused(&site, "F2");
    let id = first["event_id"].as_str().unwrap();
    let dismissed = site.post(&format!("/v1/deadletter/{id}/dismiss"), "application/json", "").ok();
    assert_eq!((&dismissed["event_id"], &dismissed["status"]), (&json!(id), &json!("dismissed")));
    let total =
        |query: &str| site.get(&format!("/v1/deadletter?{query}")).ok()["pagination"]["total"].clone();
    assert_eq!(total("status=dismissed"), 1);
    assert_eq!(total("status=failed"), 1);
    assert_eq!(total("source=push&event_type=order.created&reason=not_in_enum"), 2);
    assert_eq!(total("reason=missing"), 0);
    let page = site.get("/v1/deadletter?page=2&page_size=1").ok();
    assert_eq!(page["pagination"], json!({ "page": 2, "page_size": 1, "total": 2, "pages": 2 }));
    let stats = site.get("/v1/deadletter/stats").ok();
    assert_eq!(
        (&stats["counts"]["failed"], &stats["counts"]["dismissed"]),
        (&json!(1), &json!(1)),
        "{stats}"
    );
    assert_eq!((&stats["last_24h"], &stats["by_reason"]["not_in_enum"]), (&json!(2), &json!(2)), "{stats}");
    site.get("/v1/deadletter?page_size=101").problem(422, "invalid_parameter");
    site.get("/v1/deadletter?status=open").problem(422, "unknown_status");
    site.get("/v1/deadletter/dl_0000000000000000").problem(404, "unknown_dead_letter");
    site.post("/v1/deadletter/nope/dismiss", "application/json", "").problem(404, "unknown_dead_letter");
}
