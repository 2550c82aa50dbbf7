//! Real events that nobody here wrote: every webhook example of GitHub, through a running server.
//!
//! *In*: the npm package `@octokit/webhooks-examples` (github.com and five versions of GitHub Enterprise Server), the
//! contracts of `github/`. *Out*: each example admitted, ignored or refused with a reason; counts and metrics equal to
//! those computed here from the JSON. *Never*: an expected number written down: the package brings its own.
#![allow(clippy::disallowed_types)] // As in `http.rs`: a test reads its own short stream.
#![allow(clippy::unwrap_used)] // A test fails where it unwraps.

#[allow(dead_code)] // Shared with the tests of HTTP; each uses its part.
#[path = "http/site.rs"]
mod site;
mod support;
#[path = "support/tally.rs"]
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use server::Limits;

use site::{Site, wait_until};

const SERVERS: [&str; 6] = ["api.github.com", "ghes-31", "ghes-32", "ghes-33", "ghes-34", "ghes-35"];
const CONTRACTS: [&str; 3] = [
    include_str!("github/push.yaml"),
    include_str!("github/pull_request.yaml"),
    include_str!("github/deployment.yaml"),
];
const TYPES: [&str; 3] = ["github.push", "github.pull_request", "github.deployment"];

#[derive(Deserialize)]
struct Kind {
    name: String,
    examples: Vec<Box<RawValue>>,
}

/// One webhook as GitHub would send it.
struct Delivery {
    id: String,
    event_type: String,
    /// When it was sent.
    time: String,
    /// As it stands in the package.
    raw: String,
    body: Value,
}

impl Delivery {
    fn known(&self) -> bool {
        TYPES.contains(&self.event_type.as_str())
    }

    fn text(&self, path: &str) -> &str {
        self.body.pointer(path).and_then(Value::as_str).unwrap()
    }
}

fn deliveries() -> Vec<Delivery> {
    let mut all = Vec::new();
    for server in SERVERS {
        let path = tally::fixture(&format!("@octokit/webhooks-examples/{server}/index.json"));
        let kinds: Vec<Kind> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for kind in kinds {
            for example in kind.examples {
                all.push(Delivery {
                    id: format!("d-{:04}", all.len()),
                    event_type: format!("github.{}", kind.name),
                    time: jiff::Timestamp::now().to_string(),
                    raw: example.get().to_owned(),
                    body: serde_json::from_str(example.get()).unwrap(),
                });
            }
        }
    }
    assert!(all.len() > 700, "{} examples", all.len());
    all
}

/// What one push came to.
#[derive(Debug, Default, PartialEq)]
struct Sum {
    accepted: u64,
    refused: u64,
    duplicate: u64,
}

impl Sum {
    fn add(&mut self, answer: &Value) {
        let count = |name: &str| answer[name].as_u64().unwrap();
        assert_eq!(count("pending"), 0, "{answer}");
        self.accepted += count("accepted");
        self.refused += count("refused");
        self.duplicate += count("duplicate");
    }
}

#[test]
fn every_github_webhook_is_admitted_ignored_or_refused_with_a_reason() {
    let limits = Limits { push_wait: Duration::from_secs(30), ..Limits::default() };
    let site = Site::with(&CONTRACTS.join("\n---\n"), limits);
    let deliveries = deliveries();
    let all = deliveries.len() as u64;
    let known = deliveries.iter().filter(|d| d.known()).count() as u64;
    assert!(known > 50, "{known} pushes, pull requests and deployments");

    // As GitHub sends them: one by one, what they are in the headers.
    let mut sum = Sum::default();
    for delivery in &deliveries {
        let answer = binary(&site, delivery);
        sum.add(&answer);
        verdict(delivery, &answer);
    }
    assert_eq!(sum, Sum { accepted: known, refused: all - known, duplicate: 0 });
    holds(&site, &deliveries, 1);

    // GitHub delivers again what it thinks has not arrived: now in batches of structured events.
    let mut sum = Sum::default();
    for some in deliveries.chunks(20) {
        sum.add(&structured(&site, some));
    }
    assert_eq!(sum, Sum { accepted: 0, refused: all - known, duplicate: known });
    holds(&site, &deliveries, 1);

    // Under new ids the same things happen once more: now as lines with the source's own envelope.
    let mut sum = Sum::default();
    for some in deliveries.chunks(20) {
        sum.add(&lines(&site, some));
    }
    assert_eq!(sum, Sum { accepted: known, refused: all - known, duplicate: 0 });
    holds(&site, &deliveries, 2);

    let text = site.get("/metrics").text;
    let tallies = tally::tallies(&text);
    for kind in TYPES {
        let here = deliveries.iter().filter(|d| d.event_type == kind).count() as u64;
        let tally = &tallies[&("push".to_owned(), kind.to_owned())];
        let got = ["received", "admitted", "refused", "duplicate"].map(|outcome| tally[outcome]);
        assert_eq!(got, [3 * here, 2 * here, 0, here], "{kind}");
    }
    let total = tally::total(&text);
    assert_eq!((total["received"], total["refused"]), (3 * all, 3 * (all - known)), "{total:?}");
    dead_letters(&site, &deliveries, 3 * (all - known));
}

fn binary(site: &Site, delivery: &Delivery) -> Value {
    let headers = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", delivery.id.as_str()),
        ("ce-type", delivery.event_type.as_str()),
        ("ce-source", "https://github.com/octokit/webhooks"),
        ("ce-time", delivery.time.as_str()),
    ];
    let reply = site.post_with("/v1/events", &headers, &delivery.raw);
    assert_eq!(reply.status, 202, "{}: {}", delivery.id, reply.text);
    reply.json()
}

fn structured(site: &Site, deliveries: &[Delivery]) -> Value {
    let events = deliveries.iter().map(|d| {
        json!({
            "specversion": "1.0", "id": d.id, "type": d.event_type, "time": d.time, "data": d.body,
            "source": "https://github.com/octokit/webhooks", "datacontenttype": "application/json",
        })
    });
    let body = Value::from_iter(events).to_string();
    let reply = site.post("/v1/events", "application/cloudevents-batch+json", &body);
    assert_eq!(reply.status, 202, "{}", reply.text);
    reply.json()
}

fn lines(site: &Site, deliveries: &[Delivery]) -> Value {
    let events = deliveries.iter().map(|d| {
        let mut event = d.body.clone();
        event["event_id"] = json!(format!("again-{}", d.id));
        event["event_type"] = json!(d.event_type);
        event["timestamp"] = json!(d.time);
        event
    });
    site.push(&events.collect::<Vec<_>>())
}

fn verdict(delivery: &Delivery, answer: &Value) {
    if delivery.known() {
        assert_eq!(answer["accepted"], 1, "{} {}: {answer}", delivery.id, delivery.event_type);
        return;
    }
    let reasons = answer["errors"][0]["reasons"].as_array().unwrap();
    assert_eq!(reasons.len(), 1, "{answer}");
    assert_eq!(reasons[0]["code"], "unknown_event_type", "{answer}");
    let message = reasons[0]["message"].as_str().unwrap();
    assert!(message.contains(&delivery.event_type) && message.contains("github.push"), "{message}");
}

/// The metrics over all deliveries, each counted `times`.
fn holds(site: &Site, deliveries: &[Delivery], times: u64) {
    let of = |kind: &str| -> Vec<&Delivery> {
        deliveries.iter().filter(|d| d.event_type == format!("github.{kind}")).collect()
    };
    pushes(site, &of("push"), times);
    pull_requests(site, &of("pull_request"), times);
    deployments(site, &of("deployment"), times);
}

fn rows(site: &Site, path: &str) -> Value {
    site.get(&format!("/v1/metrics/{path}")).ok()["rows"].clone()
}

fn pushes(site: &Site, pushes: &[&Delivery], times: u64) {
    let kept: Vec<_> = pushes.iter().filter(|d| d.body["deleted"] == false).collect();
    assert!(!kept.is_empty() && kept.len() < pushes.len());
    let commits: usize = kept.iter().map(|d| d.body["commits"].as_array().unwrap().len()).sum();
    let forced = kept.iter().filter(|d| d.body["forced"] == true).count();
    let refs: BTreeSet<_> = kept.iter().map(|d| (d.text("/repository/full_name"), d.text("/ref"))).collect();
    let expected = json!([{
        "pushes": kept.len() as u64 * times, "commits": commits as u64 * times,
        "forced": forced as u64 * times, "refs": refs.len(),
    }]);
    assert!(commits > 0);
    // They were all sent just now.
    for window in ["all", "1d"] {
        assert_eq!(rows(site, &format!("pushes?window={window}")), expected, "{window}");
    }
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for delivery in &kept {
        let kind = delivery.text("/ref").split('/').nth(1).unwrap();
        *kinds.entry(if kind == "heads" { "branch" } else { "tag" }).or_default() += times;
    }
    let expected: Vec<_> = kinds.iter().map(|(k, n)| json!({ "ref_kind": k, "pushes": n })).collect();
    assert_eq!(rows(site, "pushes?window=all&by=ref_kind&measure=pushes"), json!(expected));
}

fn pull_requests(site: &Site, requests: &[&Delivery], times: u64) {
    let mut actions: BTreeMap<&str, u64> = BTreeMap::new();
    for delivery in requests {
        *actions.entry(delivery.text("/action")).or_default() += times;
    }
    assert!(actions.len() > 5);
    let expected: Vec<_> = actions.iter().map(|(a, n)| json!({ "action": a, "actions": n })).collect();
    assert_eq!(rows(site, "pull_requests?window=all&by=action&measure=actions"), json!(expected));

    assert_eq!(rows(site, "pull_requests?window=all"), json!([request_row(requests, times)]));
    // What was true at the end of each day that something happened on.
    let mut days: BTreeMap<&str, Vec<&Delivery>> = BTreeMap::new();
    for delivery in requests {
        days.entry(&delivery.text("/pull_request/updated_at")[..10]).or_default().push(delivery);
    }
    for (day, requests) in days {
        let day: jiff::civil::Date = day.parse().unwrap();
        let path = format!("pull_requests?window=day&as_of={}T00:00:00Z", day.tomorrow().unwrap());
        assert_eq!(rows(site, &path), json!([request_row(&requests, times)]), "{day}");
    }
}

fn request_row(requests: &[&Delivery], times: u64) -> Value {
    let number = |d: &Delivery, path: &str| d.body.pointer(path).unwrap().as_u64().unwrap();
    let micros = |d: &Delivery, path: &str| d.text(path).parse::<jiff::Timestamp>().unwrap().as_microsecond();
    let opened = requests.iter().filter(|d| d.text("/action") == "opened").count() as u64 * times;
    let closed: Vec<_> = requests.iter().filter(|d| d.text("/action") == "closed").collect();
    let merged = closed.iter().filter(|d| d.body["pull_request"]["merged"] == true).count() as u64 * times;
    let lines: u64 = requests
        .iter()
        .map(|d| number(d, "/pull_request/additions") + number(d, "/pull_request/deletions"))
        .sum();
    let open: Vec<i64> = closed
        .iter()
        .map(|d| micros(d, "/pull_request/closed_at") - micros(d, "/pull_request/created_at"))
        .collect();
    let count = open.len() as f64;
    let open_for = (!open.is_empty()).then(|| (open.iter().sum::<i64>() as f64 / count).round() / 1e6);
    let closed = closed.len() as u64 * times;
    json!({
        "actions": requests.len() as u64 * times, "opened": opened, "closed": closed, "merged": merged,
        "merge_rate": (closed > 0).then(|| merged as f64 / closed as f64), "lines": lines * times,
        "open_for": open_for,
    })
}

fn deployments(site: &Site, deployments: &[&Delivery], times: u64) {
    let mut environments: BTreeMap<&str, Vec<&Delivery>> = BTreeMap::new();
    for delivery in deployments {
        environments.entry(delivery.text("/deployment/environment")).or_default().push(delivery);
    }
    assert!(environments.len() > 1);
    let row = |deployments: &[&Delivery]| {
        let shas: BTreeSet<_> = deployments.iter().map(|d| d.text("/deployment/sha")).collect();
        // All ids of one round sort alike, so the newest of them all is the newest here.
        let newest = deployments.iter().max_by_key(|d| (d.text("/deployment/created_at"), &d.id)).unwrap();
        json!({
            "deployments": deployments.len() as u64 * times, "commits": shas.len(),
            "newest": newest.text("/deployment/ref"),
        })
    };
    let expected = environments.iter().map(|(environment, deployments)| {
        let mut row = row(deployments);
        row["environment"] = json!(environment);
        row
    });
    assert_eq!(rows(site, "deployments?window=all&by=environment"), Value::from_iter(expected));

    let year = |d: &Delivery| d.text("/deployment/created_at")[..4].parse::<i16>().unwrap();
    let years: BTreeSet<i16> = deployments.iter().map(|d| year(d)).collect();
    for wanted in years {
        let in_year: Vec<_> = deployments.iter().copied().filter(|d| year(d) == wanted).collect();
        let path = format!("deployments?window=year&as_of={}-01-01T00:00:00Z", wanted + 1);
        assert_eq!(rows(site, &path), json!([row(&in_year)]), "{wanted}");
    }
}

/// Everything refused is kept, word for word, and can be found by its type.
fn dead_letters(site: &Site, deliveries: &[Delivery], expected: u64) {
    let total =
        |query: &str| site.get(&format!("/v1/deadletter?{query}")).ok()["pagination"]["total"].clone();
    wait_until("all dead letters are kept", || total("reason=unknown_event_type") == expected);
    assert_eq!(total("status=failed"), expected);
    let mut types: BTreeMap<&str, u64> = BTreeMap::new();
    for delivery in deliveries.iter().filter(|d| !d.known()) {
        *types.entry(&delivery.event_type).or_default() += 3;
    }
    for (event_type, n) in types {
        assert_eq!(total(&format!("event_type={event_type}")), n, "{event_type}");
    }
    let first = deliveries.iter().find(|d| d.event_type == "github.watch").unwrap();
    let list = site.get("/v1/deadletter?event_type=github.watch&page_size=100").ok();
    let item = list["items"].as_array().unwrap().iter().rfind(|i| i["original_event_id"] == *first.id);
    let id = item.unwrap()["event_id"].as_str().unwrap();
    assert_eq!(site.get(&format!("/v1/deadletter/{id}")).ok()["payload_text"], *first.raw);
}

#[test]
fn the_contracts_hold_what_their_tests_say() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    support::ok(&here, &["check", "github"]);
    let said = support::ok(&here, &["test", "github"]);
    assert!(said.contains("3 tests passed, 0 failed"), "{said}");
}
