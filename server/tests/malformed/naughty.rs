//! Texts that break programs, as values, keys, ids, types and dimension values: they come back as they went in.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::site::{Reply, Site, wait_until};
use crate::{CONTRACTS, patient, tally};

/// What the Big List lacks.
const MORE: [&str; 16] = [
    "\0",
    "a\0b",
    "\u{feff}",
    "\u{ffff}",
    "\u{10ffff}",
    "e\u{301}",
    "\u{e9}",
    "other",
    "note",
    "a/b",
    "..",
    ".",
    "%2F",
    "100%",
    "a,b",
    "' OR author IS NOT NULL --",
];

fn strings() -> Vec<String> {
    let path = tally::fixture("big-list-of-naughty-strings/blns.json");
    let list: Vec<String> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let long = "長い".repeat(20_000);
    let all = list.into_iter().chain(MORE.map(str::to_owned)).chain([long]);
    let all: BTreeSet<String> = all.collect();
    assert!(all.len() > 450);
    all.into_iter().collect()
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// An event that is this text wherever it can be.
fn note(text: &str) -> Value {
    let mut event = json!({ "extra": { text: [text] } });
    event[text] = json!({ text: text });
    let own = [("event_type", "note"), ("event_id", text), ("author", text), ("text", text)];
    own.iter().for_each(|(key, value)| event[*key] = json!(value));
    event["timestamp"] = json!(now());
    event
}

fn percent(text: &str) -> String {
    let byte = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(b).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn site(strings: &[String]) -> Site {
    let site = Site::with(CONTRACTS, patient());
    for some in strings.chunks(100) {
        let answer = site.push(&some.iter().map(|text| note(text)).collect::<Vec<_>>());
        assert_eq!(answer["accepted"], some.len(), "{answer}");
    }
    site
}

#[test]
fn naughty_texts_come_back_as_they_went_in() {
    let strings = strings();
    let site = site(&strings);
    let wanted: BTreeSet<&str> = strings.iter().map(String::as_str).collect();
    for dimension in ["author", "text"] {
        let answer = site.get(&format!("/v1/metrics/notes?by={dimension}&limit=10000")).ok();
        let rows = answer["rows"].as_array().unwrap();
        let got: BTreeSet<&str> = rows.iter().map(|row| row[dimension].as_str().unwrap()).collect();
        assert_eq!(got, wanted, "{dimension}");
        for row in rows {
            assert_eq!((&row["notes"], &row["newest"]), (&json!(1), &row[dimension]));
        }
    }
    let answer = site.get("/v1/metrics/notes").ok();
    assert_eq!(answer["rows"][0]["ids"], strings.len(), "{answer}");
    for text in strings.iter().filter(|text| text.len() < 5_000) {
        let quoted = percent(&text.replace('\'', "''"));
        let answer = site.get(&format!("/v1/metrics/notes?where=author%20%3D%20%27{quoted}%27"));
        assert_eq!(answer.ok()["value"], 1, "{text:?}");
        if !text.is_empty() {
            let row = site.get(&format!("/v1/entity/author/{}", percent(text))).ok();
            assert_eq!((&row["entity_id"], &row["data"]["text"]), (&json!(text), &json!(text)));
        }
    }
}

#[test]
fn naughty_ids_are_the_same_id_in_every_form() {
    let strings = strings();
    let site = site(&strings);
    let verdict = |text: &str, reply: &Reply| {
        let answer = reply.json();
        // A CloudEvent must have an id.
        let expected = if text.is_empty() { "refused" } else { "duplicate" };
        assert_eq!(answer[expected], 1, "{text:?}: {answer}");
    };
    for text in strings.iter().filter(|text| text.len() < 5_000) {
        let time = now();
        let event = json!({
            "specversion": "1.0", "id": text, "type": "note", "source": "/", "time": time,
            "data": { "timestamp": time, "text": text },
        });
        verdict(text, &site.post("/v1/events", "application/cloudevents+json", &event.to_string()));
        let id = percent(text);
        let headers = [
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", id.as_str()),
            ("ce-type", "note"),
            ("ce-source", "/"),
        ];
        let data = json!({ "timestamp": time, "text": text });
        verdict(text, &site.post_with("/v1/events", &headers, &data.to_string()));
    }
}

#[test]
fn naughty_types_are_refused_and_named() {
    let site = Site::with(CONTRACTS, patient());
    let strings: Vec<String> = strings().into_iter().filter(|text| text != "note").collect();
    for some in strings.chunks(100) {
        let events = some.iter().map(|text| json!({ "event_type": text, "event_id": text }));
        let answer = site.push(&events.collect::<Vec<_>>());
        assert_eq!(answer["refused"], some.len(), "{answer}");
    }
    let list = |page: usize| site.get(&format!("/v1/deadletter?page_size=100&page={page}")).ok();
    wait_until("all dead letters are kept", || list(1)["pagination"]["total"] == strings.len());
    let mut seen = BTreeSet::new();
    for page in 1..=strings.len().div_ceil(100) {
        for item in list(page)["items"].as_array().unwrap() {
            assert_eq!(item["failure_reason"], "unknown_event_type", "{item}");
            assert_eq!(item["event_type"], item["original_event_id"], "{item}");
            seen.insert(item["event_type"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(seen, strings.into_iter().collect());
    // Types come from outside: no series of our own metrics for each.
    let tallies = tally::tallies(&site.get("/metrics").text);
    assert_eq!(tallies.len(), 1, "{tallies:?}");
}
