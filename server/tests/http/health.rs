//! Probes, health, self-metrics, errors of the router.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use connectors::receive::{SourceStatus, State};
use serde_json::json;
use server::SourceProbe;

use crate::site::{Site, order, wait_until};

#[test]
fn probes_and_drain() {
    let site = Site::start();
    assert_eq!(site.get("/livez").ok(), json!({ "status": "alive" }));
    wait_until("ready", || site.get("/readyz").status == 200);
    site.push(&[order("H1", "1.00", "north")]);
    let verbose = site.get("/readyz?verbose").ok();
    assert_eq!(verbose["sources"][0]["name"], "push");
    assert_eq!(verbose["sources"][0]["published_lag"], 0, "{verbose}");
    assert_eq!(verbose["settings"]["workers"], 1);
    site.app.drain();
    let reply = site.get("/readyz");
    assert_eq!(reply.status, 503);
    assert_eq!(reply.json()["status"], "not_ready");
    assert_eq!(site.get("/livez").status, 200);
}

#[test]
fn health_carries_the_freshness_component() {
    let site = Site::start();
    let freshness = |site: &Site| {
        let health = site.get("/v1/health").ok();
        assert!(health["checked_at"].is_string());
        let components = health["components"].as_array().unwrap().clone();
        components.into_iter().find(|c| c["name"] == "freshness").unwrap()
    };
    assert_eq!(freshness(&site)["metrics"]["last_event_age_seconds"], json!(null));
    site.push(&[order("H2", "1.00", "north")]);
    let component = freshness(&site);
    assert_eq!((&component["status"], &component["source"]), (&json!("healthy"), &json!("live")));
    assert!(component["metrics"]["last_event_age_seconds"].as_f64().is_some_and(|s| s < 5.0), "{component}");
    assert!(component["message"].is_string());

    site.app.reloaded(Err("shop.yaml:3:1: error".into()));
    let health = site.get("/v1/health").ok();
    assert_eq!(health["status"], "degraded", "{health}");
    assert!(health.to_string().contains("shop.yaml:3:1"), "{health}");
}

/// A source that has read nothing.
fn shop(state: State) -> SourceStatus {
    SourceStatus {
        name: "shop".into(),
        kind: "kafka",
        state,
        last_error_at: Some(0),
        ..SourceStatus::default()
    }
}

#[test]
fn nothing_is_complete_before_everything_was_read() {
    let site = Site::start();
    let caught_up = Arc::new(AtomicBool::new(false));
    let own = caught_up.clone();
    let status = move || SourceStatus {
        caught_up: own.load(Ordering::Relaxed),
        read: 12_000,
        per_second: 300,
        lag: Some(36_000),
        seconds_left: Some(120),
        ..shop(State::CatchingUp)
    };
    site.app.set_sources(vec![SourceProbe::new(status)]);
    // The window has ended long ago, and the engine knows of nothing that is missing.
    let path = "/v1/metrics/revenue?window=1h&as_of=-90m";
    assert_eq!(site.get(path).ok()["complete"], json!(false));
    let message = site.get("/readyz?verbose").json()["sources"][0]["message"].clone();
    assert_eq!(message, "catching up, 12000 read, 36000 behind, 300 records/s, 2 min left");
    let text = site.get("/metrics").text;
    for line in [
        r#"streamgauge_source_records_per_second{source="shop"} 300"#,
        r#"streamgauge_source_seconds_left{source="shop"} 120"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    caught_up.store(true, Ordering::Relaxed);
    assert_eq!(site.get(path).ok()["complete"], json!(true));
}

#[test]
fn a_source_that_waits_for_its_topic_is_not_ready() {
    let site = Site::start();
    let said = "topic `orders` does not exist (yet)";
    let waiting =
        SourceStatus { errors: 1, last_error: Some(said.into()), ..shop(State::Waiting(said.into())) };
    site.app.set_sources(vec![SourceProbe::new(move || waiting.clone())]);
    let reply = site.get("/readyz?verbose");
    assert_eq!(reply.status, 503);
    let ready = reply.json();
    assert_eq!(ready["sources"][0]["state"], "waiting", "{ready}");
    let check = ready["checks"].as_array().unwrap().iter().find(|c| c["name"] == "source:shop").unwrap();
    let words = format!("waiting: {said}");
    assert_eq!((&check["status"], &check["message"]), (&json!("failed"), &json!(words)));
    let health = site.get("/v1/health").ok();
    let components = health["components"].as_array().unwrap();
    let component = components.iter().find(|c| c["name"] == "source:shop").unwrap();
    assert_eq!((&component["status"], &component["message"]), (&json!("degraded"), &json!(words)));
    assert!(site.get("/metrics").text.contains(r#"streamgauge_source_up{source="shop",kind="kafka"} 0"#));
}

#[test]
fn self_metrics_count_everything_once() {
    let site = Site::start();
    site.push(&[order("M1", "2.50", "north"), order("M1", "2.50", "north"), json!({ "event_type": "nope" })]);
    site.get("/v1/metrics/revenue");
    site.get("/v1/metrics/unknown");
    let reply = site.get("/metrics");
    assert!(reply.headers["content-type"].starts_with("application/openmetrics-text"));
    for line in [
        r#"streamgauge_events_total{source="push",event_type="order.created",outcome="admitted"} 1"#,
        r#"streamgauge_events_total{source="push",event_type="order.created",outcome="duplicate"} 1"#,
        r#"streamgauge_events_total{source="push",event_type="unknown",outcome="refused"} 1"#,
        r#"streamgauge_refused_total{reason="unknown_event_type"} 1"#,
        r#"streamgauge_metric_value{metric="revenue",measure="total",window="all"} 2.5"#,
        r#"streamgauge_http_requests_total{method="GET",route="/v1/metrics/{name}",status="200"} 1"#,
        r#"streamgauge_http_requests_total{method="GET",route="/v1/metrics/{name}",status="404"} 1"#,
        r#"streamgauge_build_info{version="#,
        r#"streamgauge_partition_lag{source="push",topic="log",partition="0"} 0"#,
        "# EOF",
    ] {
        assert!(reply.text.contains(line), "{line} is not in\n{}", reply.text);
    }
    for family in [
        "streamgauge_ticks_total",
        "streamgauge_publish_delay_seconds_bucket",
        "streamgauge_http_request_duration_seconds_bucket",
        "streamgauge_metric_newest_event_age_seconds",
    ] {
        assert!(reply.text.contains(family), "{family} is not in\n{}", reply.text);
    }
}

#[test]
fn every_error_is_a_problem_with_a_request_id_and_safe_headers() {
    let site = Site::start();
    let missing = site.get("/v2/nothing");
    missing.problem(404, "no_route");
    let method = site.post("/livez", "text/plain", "");
    method.problem(405, "method_not_allowed");
    assert_eq!(method.headers["allow"], "GET,HEAD");
    site.get("/v1/entity/order/%FF").problem(400, "invalid_path");
    for reply in [&missing, &method, &site.get("/")] {
        assert!(!reply.headers["x-request-id"].is_empty());
        assert_eq!(reply.headers["x-content-type-options"], "nosniff");
        assert!(reply.headers["content-security-policy"].contains("default-src 'none'"));
    }
    let own = site.post_with("/v1/events", &[("x-request-id", "mine-1")], "{}");
    assert_eq!(own.headers["x-request-id"], "mine-1");
}

#[test]
fn before_the_engine_runs_reads_say_so() {
    let site = Site::start();
    drop(site.app.take());
    site.get("/v1/metrics").problem(503, "starting");
    assert_eq!(site.get("/readyz").status, 503);
    assert_eq!(site.get("/v1/health").ok()["status"], "unhealthy");
}
