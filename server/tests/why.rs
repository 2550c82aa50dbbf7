//! `streamgauge why` as a user runs it, on the metrics of a shop.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

mod support;

use std::time::Duration;

use connectors::receive::generator::{Generator, GeneratorSpec};
use serde_json::Value;
use support::{Server, exits, ok, wait};

const SETTINGS: &str = "apiVersion: streamgauge/v1
kind: Settings
contracts: [pack:commerce]
sources:
  - { name: push, http: {}, format: json, envelope: { id: event_id, type: event_type, time: timestamp } }
audit: { every: 1s, numbers: 50 }
";

/// A shop in which an hour has happened.
fn shop(settings: &str) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("streamgauge.yaml"), settings).unwrap();
    let server = Server::start(folder.path());
    let start = (jiff::Timestamp::now().as_second() - 3_700) * 1_000_000;
    let spec = GeneratorSpec { bad: 0.03, duplicates: 0.03, late: 0.05, ..GeneratorSpec::new(5, start, 0.5) };
    let events = Generator::new(spec).until(start + 3_600_000_000);
    let lines: Vec<String> = events.iter().map(|e| String::from_utf8_lossy(e).replace('\n', " ")).collect();
    for lines in lines.chunks(500) {
        let answer = server.push(&lines.join("\n"));
        assert!(answer["accepted"].as_u64().is_some_and(|n| n > 0), "{answer}");
    }
    (folder, server)
}

#[test]
fn every_number_of_a_shop_agrees_with_its_events() {
    let (folder, server) = shop(SETTINGS);
    let metrics = server.get("/v1/metrics")["metrics"].clone();
    let mut asked = 0;
    for metric in metrics.as_array().unwrap() {
        let name = metric["name"].as_str().unwrap();
        let dimensions = metric["dimensions"].as_array().cloned().unwrap_or_default();
        let by = dimensions.first().and_then(|d| d["name"].as_str()).map(str::to_owned);
        for window in metric["windows"].as_array().unwrap() {
            let window = window["name"].as_str().unwrap();
            for by in [None, by.as_deref()].into_iter().take(1 + usize::from(by.is_some())) {
                let mut arguments =
                    vec!["why", name, "--window", window, "--json", "--url", server.url.as_str()];
                arguments.extend(by.into_iter().flat_map(|by| ["--by", by]));
                let answer: Value = serde_json::from_str(&ok(folder.path(), &arguments)).unwrap();
                assert_eq!(answer["agrees"], true, "{arguments:?}: {answer:#}");
                asked += 1;
            }
        }
    }
    assert!(asked >= 30, "{asked} questions");
    let text = ok(folder.path(), &["why", "revenue", "--sql", "--url", &server.url]);
    assert!(text.contains("agrees") && text.contains("counted") && text.contains("FROM counted"), "{text}");
    exits(folder.path(), &["why", "nothing", "--url", &server.url], 2);

    // The sampler has been at work meanwhile.
    let counted = |name: &str| -> f64 {
        let text = server.text("/metrics");
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().last().and_then(|n| n.parse().ok()).unwrap_or_default()
    };
    wait(Duration::from_secs(30), || counted("streamgauge_audit_checked_total") >= 50.0)
        .unwrap_or_else(|()| panic!("{}", server.text("/metrics")));
    let text = server.text("/metrics");
    assert!(!text.contains("streamgauge_audit_disagreed_total{"), "{text}");
    let health = server.get("/v1/health");
    let audit = health["components"].as_array().unwrap().iter().find(|c| c["name"] == "audit").unwrap();
    assert_eq!((&audit["status"], &audit["metrics"]["status"]), (&"healthy".into(), &"agrees".into()));
}

#[test]
fn events_that_are_not_kept_are_no_disagreement() {
    let (folder, server) = shop(&SETTINGS.replace("numbers: 50", "numbers: 50, memory: 0"));
    let out = ok(folder.path(), &["why", "revenue", "--url", &server.url]);
    assert!(out.contains("not recomputed: events are not kept"), "{out}");
    let (folder, server) = shop(&SETTINGS.replace("numbers: 50", "numbers: 0, memory: 64KiB, disk: 0"));
    let out = ok(folder.path(), &["why", "revenue", "--url", &server.url]);
    assert!(out.contains("are no longer kept"), "{out}");
}
