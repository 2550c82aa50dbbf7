//! Results of metrics in the lake: what other programs read is what HTTP answers, restated, once, whatever is killed.
#![allow(clippy::unwrap_used)] // a test fails where it unwraps

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

mod support;
use support::{Server, lake, log, wait};

const CONTRACTS: &str = r#"apiVersion: streamgauge/v1
kind: Event
name: shop.order
version: 1.0.0
fields:
  region: { type: string }
  amount: { type: "decimal(18,2)", required: true }
---
apiVersion: streamgauge/v1
kind: Metric
name: revenue
version: 1.2.0
events: { order: { type: shop.order } }
dimensions: { region: { from: order.region, max: 100 } }
measures:
  revenue: { agg: sum, value: order.amount }
  orders: { agg: count }
  mean: { agg: avg, value: order.amount }
windows: { 1m: { tumbling: 1m }, 5m: { sliding: 5m, every: 1m }, hour: { to_date: hour, tz: UTC } }
serve: { lake: { iceberg: metrics.revenue } }
"#;

const SETTINGS: &str = "apiVersion: streamgauge/v1\nkind: Settings\ncontracts: [contracts/]\ndata: data/\n\
    sources:\n  - { name: push, http: {}, format: json, envelope: { id: id, type: type, time: time } }\n\
    lake: { commit_every: 100ms }\n";

/// The SQL of docs/how-to/lake.md.
const NEWEST: &str = "select * from revenue qualify row_number() over \
    (partition by _window, _window_start, region order by _revision desc) = 1";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("contracts")).unwrap();
    std::fs::write(folder.path().join("contracts/shop.yaml"), CONTRACTS).unwrap();
    std::fs::write(folder.path().join("streamgauge.yaml"), SETTINGS).unwrap();
    folder
}

/// An hour that was over long ago, and minutes of it.
fn hour() -> jiff::Timestamp {
    let now = jiff::Timestamp::now().as_second();
    jiff::Timestamp::from_second(now / 3600 * 3600 - 5 * 3600).unwrap()
}

/// Orders `ids`, spread over five minutes and three regions.
fn orders(ids: std::ops::Range<i64>) -> String {
    let one = |n: i64| {
        let time = hour() + jiff::SignedDuration::from_secs(n % 5 * 60 + n % 60);
        let region = ["eu", "us", "asia"][(n % 3) as usize];
        format!(
            r#"{{"id":"o{n}","type":"shop.order","time":"{time}","region":"{region}","amount":"{n}.50"}}"#
        ) + "\n"
    };
    ids.map(one).collect()
}

fn sql(folder: &Path, query: &str) -> Vec<Value> {
    serde_json::from_value(lake(folder, "sql", &["metrics.revenue", query]).unwrap()).unwrap()
}

type Told = BTreeMap<(String, String, String), (String, i64)>;

/// (window, start, region) -> (revenue, orders), as HTTP answers it.
fn answers(server: &Server) -> Told {
    let mut told = Told::new();
    let minute = |n: i64| ("1m", hour() + jiff::SignedDuration::from_mins(n), 1);
    let sliding = |end: i64| ("5m", hour() + jiff::SignedDuration::from_mins(end - 5), 5);
    let windows = (0..6).map(minute).chain((1..11).map(sliding)).chain([("hour", hour(), 60)]);
    for (window, start, minutes) in windows {
        let end = start + jiff::SignedDuration::from_mins(minutes);
        let path = format!("/v1/metrics/revenue?window={window}&by=region&as_of={end}");
        let answer = server.get(&path);
        for row in answer["rows"].as_array().unwrap_or_else(|| panic!("{answer}")) {
            let key = (window.to_owned(), start.to_string(), row["region"].as_str().unwrap().to_owned());
            told.insert(key, (row["revenue"].as_str().unwrap().to_owned(), row["orders"].as_i64().unwrap()));
        }
    }
    told
}

/// The same, as DuckDB reads it.
fn read(folder: &Path) -> Told {
    let found = sql(
        folder,
        &format!(
            "select _window, strftime(_window_start at time zone 'UTC', '%Y-%m-%dT%H:%M:%SZ') as start, region, \
             revenue::varchar as revenue, orders, _retracted from ({NEWEST}) order by all"
        ),
    );
    let key = |row: &Value| {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        ((text("_window"), text("start"), text("region")), (text("revenue"), row["orders"].as_i64().unwrap()))
    };
    found.iter().filter(|row| row["_retracted"] == false).map(key).collect()
}

/// Revisions follow each other from 1 on; how many rows there are of each.
fn revisions(folder: &Path) -> Vec<(i64, i64)> {
    let gaps = sql(
        folder,
        "select _window, _window_start, region from revenue group by all \
         having count(*) <> max(_revision) or min(_revision) <> 1 or count(distinct _revision) <> count(*)",
    );
    assert_eq!(gaps, Vec::<Value>::new(), "revisions that are left out or twice");
    let found = sql(folder, "select _revision, count(*) as n from revenue group by all order by 1");
    found.iter().map(|row| (row["_revision"].as_i64().unwrap(), row["n"].as_i64().unwrap())).collect()
}

fn push(server: &Server, ids: std::ops::Range<i64>) -> Value {
    let n = ids.end - ids.start;
    let answer = server.push(&orders(ids));
    assert_eq!(answer["accepted"], n, "{answer}");
    answer["token"].clone()
}

/// Waits until the lake holds what HTTP answers.
fn agree(folder: &Path, server: &Server, token: &Value) {
    server.get(&format!("/v1/metrics/revenue?after={}&wait=10s", token.as_str().unwrap()));
    let wanted = answers(server);
    assert!(!wanted.is_empty());
    let exists = folder.join("data/lake/metrics/revenue/metadata");
    let same = || {
        exists.exists() && sql(folder, "select 1 from revenue limit 1").len() == 1 && read(folder) == wanted
    };
    if wait(Duration::from_secs(40), same).is_err() {
        assert_eq!(read(folder), wanted, "{}", log(folder));
    }
}

#[test]
fn other_programs_read_what_http_answers_and_late_rows_restate_it() {
    let folder = folder();
    let server = Server::start(folder.path());
    let token = push(&server, 0..300);
    agree(folder.path(), &server, &token);
    assert_eq!(
        revisions(folder.path()),
        [(1, 45)],
        "5 minutes, 9 steps that see them, an hour, of 3 regions"
    );
    let types =
        sql(folder.path(), "select distinct typeof(revenue) as t, typeof(_window_start) as w from revenue");
    assert_eq!(types[0]["w"], "TIMESTAMP WITH TIME ZONE");
    assert!(types[0]["t"].as_str().unwrap().starts_with("DECIMAL(") && types.len() == 1, "{types:?}");
    let head = sql(folder.path(), "select distinct _complete, _contract, _retracted from revenue");
    assert!(head.len() == 1 && head[0]["_contract"].as_str().unwrap().starts_with("1.2.0 "), "{head:?}");
    assert_eq!((&head[0]["_complete"], &head[0]["_retracted"]), (&Value::Bool(true), &Value::Bool(false)));
    // One late row: its minute, its hour and the 5 steps that see it, of its region, again.
    let token = push(&server, 300..301);
    agree(folder.path(), &server, &token);
    assert_eq!(revisions(folder.path()), [(1, 45), (2, 7)]);
    // A restart tells nothing twice.
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    let server = Server::start(folder.path());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(revisions(folder.path()), [(1, 45), (2, 7)]);
    let token = push(&server, 301..302);
    agree(folder.path(), &server, &token);
    assert_eq!(revisions(folder.path()), [(1, 45), (2, 14)]);
}

#[test]
fn no_revision_is_left_out_or_told_twice_when_the_process_is_killed() {
    let folder = folder();
    let mut sent = 0;
    let points = [
        "lake.after_files=abort@2",
        "lake.after_plan=abort@2",
        "lake.before_commit=abort@3",
        "lake.after_commit=abort@3",
        "lake.between_tables=abort@2",
        "lake.after_round=abort@2",
    ];
    for (number, point) in points.into_iter().enumerate() {
        // Every second time without the newest checkpoint: everything is read again.
        let every = ["1h", "1s"][number % 2];
        let variables = [("STREAMGAUGE_FAULT", point), ("STREAMGAUGE_CHECKPOINTS__EVERY", every)];
        // It may end before it is ready.
        let mut server = Server::spawn(folder.path(), &variables);
        server.ready(Duration::from_secs(30));
        for _ in 0..200 {
            if server.child.try_wait().unwrap().is_some() {
                break;
            }
            // The push that meets the end of the process has no answer; its events may be there or not.
            let body = orders(sent..sent + 7);
            sent += 7;
            let url = format!("{}/v1/events", server.url);
            let _ = support::agent().post(url).send(&body);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(server.child.try_wait().unwrap().is_some(), "{point} was not met");
        let server = Server::start(folder.path());
        let answer = server.push(&orders(0..sent));
        agree(folder.path(), &server, &answer["token"]);
        revisions(folder.path());
        server.signal("KILL");
    }
}
