//! History: what the log no longer has comes from the lake, what the server never saw from files.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use connectors::receive::log::{LogOptions, PushLog};
use connectors::receive::wall_clock;
use serde_json::{Value, json};
use support::{Server, exits, log, ok, run, shop, wait};

const LONG: Duration = Duration::from_secs(60);
/// Slow enough that something can happen meanwhile.
const SLOWLY: (&str, &str) = ("STREAMGAUGE_LIMITS__BACKFILL", "4000");

fn orders(ids: std::ops::Range<u32>) -> String {
    support::orders(ids, |id| format!("{}.25", id % 7))
}

/// Pushes orders in requests that the body limit allows; the last token.
fn push(server: &Server, ids: std::ops::Range<u32>) -> Value {
    let mut token = Value::Null;
    for first in ids.clone().step_by(1000) {
        let answer = server.push(&orders(first..ids.end.min(first + 1000)));
        assert_eq!(answer["refused"].as_u64().unwrap_or(0), 0, "{answer}");
        token = answer["token"].clone();
    }
    token
}

/// What orders with these ids must come to, by country, in hundredths: plain sums.
fn sums(ids: impl Iterator<Item = u32>) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for id in ids {
        let country = ["de", "fr", "uk"][id as usize % 3];
        *sums.entry(country.to_owned()).or_default() += i64::from(id % 7) * 100 + 25;
    }
    sums
}

fn numbers(server: &Server, token: &Value) -> BTreeMap<String, i64> {
    let after = token.as_str().map(|token| format!("&after={token}&wait=10s")).unwrap_or_default();
    let answer = server.get(&format!("/v1/metrics/sales?window=24h&by=country{after}"));
    let rows = answer["rows"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let cents = |value: &Value| {
        let (whole, hundredths) = value.as_str().unwrap().split_once('.').unwrap();
        whole.parse::<i64>().unwrap() * 100 + hundredths.parse::<i64>().unwrap()
    };
    rows.iter().map(|row| (row["country"].as_str().unwrap().to_owned(), cents(&row["amount"]))).collect()
}

fn stop(server: Server, folder: &Path) {
    server.signal("TERM");
    assert_eq!(server.end(), Some(0), "{}", log(folder));
}

/// Retention: what lies before about the last `bytes` of the log goes. Returns its first offset.
fn cut(folder: &Path, bytes: u64) -> i64 {
    let options = LogOptions { max_bytes: bytes, ..LogOptions::new(wall_clock()) };
    let log = PushLog::open(&folder.join("data/log/push"), "push", options).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let order = connectors::receive::log::LogRecord::new("{}".to_owned());
    log.append(vec![order], Box::new(move |result| tell.send(result).unwrap()));
    told.recv().unwrap().unwrap();
    assert!(wait(LONG, || log.start() > 0).is_ok());
    let start = log.start();
    drop(Arc::try_unwrap(log));
    start
}

fn state(server: &Server) -> Value {
    server.get("/v1/backfill")["backfill"].clone()
}

fn ended(server: &Server) -> Value {
    let over = || !matches!(state(server)["state"].as_str(), Some("waiting" | "running"));
    assert!(wait(LONG, over).is_ok(), "{}", state(server));
    state(server)
}

/// A shop with 20,000 orders, of which the log has lost the most.
fn cut_shop() -> (tempfile::TempDir, i64) {
    let folder = shop();
    let server = Server::start(folder.path());
    push(&server, 0..20_000);
    stop(server, folder.path());
    let start = cut(folder.path(), 200_000);
    assert!((1_000..20_000).contains(&start), "{start}");
    (folder, start)
}

#[test]
fn the_lake_gives_what_the_log_has_lost_while_events_come_in() {
    let (folder, start) = cut_shop();
    let folder = folder.path();
    let server = Server::start_with(folder, &[SLOWLY]);
    assert_eq!(numbers(&server, &Value::Null), sums(0..20_000), "from the checkpoint");
    let url = server.url.clone();
    let asked = ok(folder, &["backfill", "--from", "lake", "--detach", "--json", "--url", &url]);
    let asked: Value = serde_json::from_str(&asked).unwrap();
    assert!(matches!(asked["backfill"]["state"].as_str(), Some("waiting" | "running")), "{asked}");
    // One at a time; the error tells how it goes.
    let (_, said) = exits(folder, &["backfill", "--from", "lake", "--url", &url], 1);
    assert!(said.contains("409 backfill_running"), "{said}");
    // Progress stands where people look for it, and the old numbers are answered meanwhile.
    let told = || server.get("/readyz?verbose")["history"]["catching_up"][0].clone();
    assert!(wait(LONG, || told()["per_second"].as_u64() > Some(0)).is_ok(), "{}", told());
    assert!(told()["read"].as_u64() > Some(0) && told()["lag"].as_i64() > Some(0), "{}", told());
    assert!(ok(folder, &["top", "--once", "--url", &url]).contains("CATCHING UP"));
    assert!(server.text("/metrics").contains("streamgauge_catch_up_lag{source=\"push\"}"));
    assert_eq!(server.status("/readyz"), 200);
    let mut next = 20_000;
    while state(&server)["state"] == "running" {
        let token = push(&server, next..next + 50);
        next += 50;
        assert_eq!(numbers(&server, &token), sums(0..next));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(next > 20_100, "events came in meanwhile");
    let one = ended(&server);
    assert_eq!(one["state"], "done", "{one} {}", log(folder));
    assert_eq!(server.get("/readyz?verbose")["engine"]["generation"], 2);
    let token = push(&server, next..next + 10);
    assert_eq!(numbers(&server, &token), sums(0..next + 10), "the lake before {start}, the log after it");
    // A copy of what only the lake has is known as one.
    let again = server.push(&orders(0..100));
    assert_eq!((again["accepted"].as_u64(), again["duplicate"].as_u64()), (Some(0), Some(100)), "{again}");
    assert_eq!(numbers(&server, &again["token"]), sums(0..next + 10));
    stop(server, folder);
    // The new state is the one that is kept.
    let server = Server::start(folder);
    assert_eq!(numbers(&server, &Value::Null), sums(0..next + 10));
}

#[test]
fn a_backfill_that_is_killed_changes_nothing_and_may_be_asked_for_again() {
    let (folder, start) = cut_shop();
    let folder = folder.path();
    let mut server = Server::start_with(folder, &[SLOWLY]);
    ok(folder, &["backfill", "--from", "lake", "--detach", "--url", &server.url]);
    let half = || server.get("/readyz?verbose")["history"]["catching_up"][0]["read"].as_u64() > Some(2_000);
    assert!(wait(LONG, half).is_ok(), "{}", server.get("/v1/backfill"));
    push(&server, 20_000..20_100);
    server.child.kill().unwrap();
    drop(server);
    server = Server::start(folder);
    assert!(state(&server).is_null());
    assert_eq!(numbers(&server, &Value::Null), sums(0..20_100));
    let said = ok(folder, &["backfill", "--from", "lake", "--url", &server.url]);
    assert!(said.contains("from lake: done"), "{said}");
    assert_eq!(numbers(&server, &Value::Null), sums(0..20_100));
    // Without the lake only what the log keeps is there, which is what was asked for.
    let said = ok(folder, &["backfill", "--from", "beginning", "--url", &server.url]);
    assert!(said.contains("from beginning: done"), "{said}");
    let start = u32::try_from(start).unwrap();
    assert_eq!(numbers(&server, &Value::Null), sums(start..20_100));
    let said = ok(folder, &["backfill", "--url", &server.url]);
    assert!(said.contains("backfill 2 from beginning"), "{said}");
}

#[test]
fn contracts_that_change_are_read_from_the_lake_too() {
    let (folder, _) = cut_shop();
    let folder = folder.path();
    let server = Server::start(folder);
    let metric = folder.join("contracts/sales.yaml");
    let text = std::fs::read_to_string(&metric).unwrap();
    std::fs::write(&metric, text.replace("version: 1.0.0", "version: 1.0.1")).unwrap();
    let swapped = || server.get("/readyz?verbose")["engine"]["generation"] == 2;
    assert!(wait(LONG, swapped).is_ok(), "{}", log(folder));
    assert_eq!(numbers(&server, &Value::Null), sums(0..20_000));
}

#[test]
fn fields_that_are_checked_anew_refuse_rows_of_the_lake_once() {
    let (folder, _) = cut_shop();
    let folder = folder.path();
    let server = Server::start(folder);
    let event = folder.join("contracts/order-placed.yaml");
    let text = std::fs::read_to_string(&event).unwrap();
    let strict =
        text.replace("min: \"0.00\"", "min: \"1.00\"") + "  channel: { type: string, default: web }\n";
    std::fs::write(&event, strict).unwrap();
    let generation = |number: u64| {
        let swapped = || server.get("/readyz?verbose")["engine"]["generation"] == number;
        assert!(wait(LONG, swapped).is_ok(), "{}", log(folder));
    };
    generation(2);
    // Whether the log had them or only the lake: 0.25 is not enough any more.
    let wanted = || sums((0..20_000).filter(|id| id % 7 != 0));
    // One more is the record that `cut` appends.
    let too_low = u64::from(20_000_u32.div_ceil(7));
    let refused = || {
        let stats = server.get("/v1/deadletter/stats");
        (stats["total"].as_u64(), stats["by_reason"]["min"].as_u64())
    };
    assert_eq!(numbers(&server, &Value::Null), wanted());
    assert!(wait(LONG, || refused() == (Some(too_low + 1), Some(too_low))).is_ok(), "{:?}", refused());
    // Read once more, they are the same dead letters.
    let said = ok(folder, &["backfill", "--from", "lake", "--url", &server.url]);
    assert!(said.contains("from lake: done"), "{said}");
    assert_eq!(numbers(&server, &Value::Null), wanted());
    assert_eq!(refused(), (Some(too_low + 1), Some(too_low)));
    // The lake has admitted them all: under the contract of before they count again.
    std::fs::write(&event, text).unwrap();
    generation(4);
    assert_eq!(numbers(&server, &Value::Null), sums(0..20_000));
}

#[test]
fn a_start_without_checkpoints_reads_the_lake() {
    let (folder, _) = cut_shop();
    let folder = folder.path();
    std::fs::rename(folder.join("data/checkpoints"), folder.join("gone")).unwrap();
    let server = Server::start(folder);
    assert_eq!(numbers(&server, &Value::Null), sums(0..20_000));
}

/// A shop whose source has got another name; what the old one brought is in the lake alone.
fn renamed() -> (tempfile::TempDir, Server) {
    let (folder, _) = cut_shop();
    let settings = folder.path().join("streamgauge.yaml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace("name: push,", "name: intake,")).unwrap();
    let server = Server::start(folder.path());
    let token = push(&server, 20_000..20_100);
    assert_eq!(numbers(&server, &token), sums(0..20_100));
    (folder, server)
}

#[test]
fn a_source_with_another_name_keeps_its_history() {
    let (folder, server) = renamed();
    let folder = folder.path();
    let said = ok(folder, &["backfill", "--from", "lake", "--url", &server.url]);
    assert!(said.contains("from lake: done"), "{said}");
    assert_eq!(numbers(&server, &Value::Null), sums(0..20_100), "the lake has what `push` brought");
    raised(folder, &server, 3);
}

/// The contract asks for more: all orders are judged again, from wherever they are.
fn raised(folder: &Path, server: &Server, generation: u64) {
    let event = folder.join("contracts/order-placed.yaml");
    let text = std::fs::read_to_string(&event).unwrap();
    std::fs::write(&event, text.replace("min: \"0.00\"", "min: \"1.00\"")).unwrap();
    let swapped = || server.get("/readyz?verbose")["engine"]["generation"] == generation;
    assert!(wait(LONG, swapped).is_ok(), "{}", log(folder));
    assert_eq!(numbers(server, &Value::Null), sums((0..20_100).filter(|id| id % 7 != 0)));
}

#[test]
fn contracts_change_after_a_source_has_got_another_name() {
    let (folder, server) = renamed();
    raised(folder.path(), &server, 2);
}

const STREAM: &str = r#"apiVersion: streamgauge/v1
kind: Event
name: stock
version: 1.0.0
changelog: true
key: sku
fields: { sku: { type: string, required: true }, pieces: { type: int } }
---
apiVersion: streamgauge/v1
kind: Metric
name: in_stock
version: 1.0.0
events: { stock: { type: stock } }
measures: { pieces: { agg: sum, value: stock.pieces }, rows: { agg: count } }
windows: { all: { all: true } }
"#;

#[test]
fn change_streams_are_followed_from_the_lake_into_the_log() {
    let folder = shop();
    let folder = folder.path();
    std::fs::write(folder.join("contracts/stock.yaml"), STREAM).unwrap();
    let settings = folder.join("streamgauge.yaml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace("time: timestamp }", "time: timestamp, op: op }")).unwrap();
    // Versions of 300 rows, of which every fifth change is an end; what holds in the end is kept beside them.
    let mut held = BTreeMap::<u32, i64>::new();
    let mut changes = |numbers: std::ops::Range<u32>| -> String {
        let change = |n: u32| {
            let (sku, pieces) = (n * 7 % 300, i64::from(n % 1000));
            let op = if n % 5 == 4 { "d" } else { "u" };
            match op {
                "d" => held.remove(&sku),
                _ => held.insert(sku, pieces),
            };
            json!({"event_id": format!("c{n}"), "event_type": "stock", "timestamp": "2026-03-02T10:00:00Z",
                "op": op, "sku": format!("s{sku}"), "pieces": pieces})
            .to_string()
                + "\n"
        };
        numbers.map(change).collect()
    };
    let answer = |server: &Server, token: &Value| {
        let token = token.as_str().unwrap_or_default();
        let answer = server.get(&format!("/v1/metrics/in_stock?after={token}&wait=10s"));
        (answer["rows"][0]["pieces"].as_i64(), answer["rows"][0]["rows"].as_u64())
    };
    let mut server = Server::start(folder);
    let mut token = Value::Null;
    for first in (0..12_000).step_by(1000) {
        token = server.push(&changes(first..first + 1000))["token"].clone();
    }
    let before = answer(&server, &token);
    stop(server, folder);
    cut(folder, 100_000);
    server = Server::start(folder);
    let said = ok(folder, &["backfill", "--from", "lake", "--url", &server.url]);
    assert!(said.contains("from lake: done"), "{said}");
    assert_eq!(answer(&server, &token), before);
    let token = server.push(&changes(12_000..12_777))["token"].clone();
    let now = answer(&server, &token);
    assert_eq!(now, (Some(held.values().sum()), Some(held.len() as u64)));
}

#[test]
fn files_may_be_sent_twice() {
    let folder = shop();
    let folder = folder.path();
    let server = Server::start(folder);
    let with_ids: String = orders(0..2_500);
    std::fs::write(folder.join("a.ndjson"), with_ids).unwrap();
    // Two rows alike are two events.
    let now = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(1);
    let row = format!("order.placed,{now},7,de,1.00\n");
    let old = "order.placed,2001-01-01T00:00:00Z,8,de,1.00\n";
    let wrong = format!("order.placed,{now},9,de,much\n");
    let csv = format!("event_type,timestamp,order_id,country,amount\n{row}{row}{old}{wrong}");
    std::fs::write(folder.join("b.csv"), csv).unwrap();
    let send = || -> Value {
        let arguments = ["backfill", "a.ndjson", "b.csv", "--json", "--url", &server.url];
        serde_json::from_str(&ok(folder, &arguments)).unwrap()
    };
    let of = |told: &Value, key: &str| told[key].as_u64();
    let first = send();
    assert_eq!(
        (of(&first, "accepted"), of(&first, "refused"), of(&first, "duplicate")),
        (Some(2_503), Some(1), Some(0)),
        "{first}"
    );
    let late = first["not_counted"].as_array().unwrap();
    assert!(late.iter().any(|one| one["metric"] == "sales" && one["events"] == 1), "{first}");
    let mut wanted = sums(0..2_500);
    *wanted.get_mut("de").unwrap() += 200;
    assert_eq!(numbers(&server, &first["token"]), wanted);
    let second = send();
    assert_eq!((of(&second, "refused"), of(&second, "duplicate")), (Some(1), Some(2_503)), "{second}");
    assert_eq!(numbers(&server, &second["token"]), wanted);
    let (_, said) = exits(folder, &["backfill", "none.ndjson", "--url", &server.url], 2);
    assert!(said.contains("none.ndjson") && said.contains("nothing was sent"), "{said}");
}

#[test]
fn what_cannot_be_done_says_why() {
    let folder = shop();
    let folder = folder.path();
    let server = Server::start_with(folder, &[("STREAMGAUGE_LAKE__CATALOG", "none")]);
    let (_, said) = exits(folder, &["backfill", "--from", "lake", "--url", &server.url], 1);
    assert!(said.contains("422 no_lake") && said.contains("beginning"), "{said}");
    let (out, _) = exits(folder, &["backfill", "--url", &server.url], 0);
    assert!(out.contains("there was no backfill"), "{out}");
    let out = run(folder, &["backfill", "--from", "moon", "--url", &server.url]);
    assert_eq!(out.status.code(), Some(2));
    let url = server.url.clone();
    drop(server);
    let (_, said) = exits(folder, &["backfill", "--from", "lake", "--url", &url], 69);
    assert!(said.contains("no answer from"), "{said}");
}
