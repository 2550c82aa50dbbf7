//! A server ends, or is ended, and starts again: it goes on from its newest checkpoint.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Server, log, shop, streamgauge, wait};

const SOMETIMES: (&str, &str) = ("STREAMGAUGE_CHECKPOINTS__EVERY", "1s");
const AT_THE_END: (&str, &str) = ("STREAMGAUGE_CHECKPOINTS__EVERY", "1h");

fn orders(ids: std::ops::Range<u32>) -> String {
    support::orders(ids, |_| "1.25".to_owned())
}

/// Everything an answer says that a restart must not change.
fn answer(server: &Server, token: &Value) -> (Value, Value) {
    let token = token.as_str().unwrap_or_default();
    let answer = server.get(&format!("/v1/metrics/sales?window=24h&by=country&after={token}&wait=10s"));
    (answer["value"].clone(), answer["rows"].clone())
}

fn verbose(server: &Server) -> Value {
    server.get("/readyz?verbose")
}

fn behind(server: &Server) -> u64 {
    verbose(server)["sources"][0]["behind_at_start"].as_u64().unwrap()
}

fn counts(server: &Server) -> Vec<String> {
    let text = server.text("/metrics");
    let events = text.lines().filter(|line| line.starts_with("streamgauge_events_total"));
    let mut events: Vec<String> = events.map(str::to_owned).collect();
    events.sort();
    events
}

fn files(folder: &Path, what: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder.join("data/checkpoints")).unwrap();
    let mut all: Vec<PathBuf> = all.map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with(what));
    all.sort();
    all
}

/// A stop that keeps the state; how long it took.
fn term(server: Server) -> Duration {
    let started = Instant::now();
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    started.elapsed()
}

#[test]
fn after_sigterm_nothing_is_read_again() {
    let folder = shop();
    let server = Server::start_with(folder.path(), &[AT_THE_END]);
    let pushed = server.push(&orders(0..3_000));
    assert_eq!(pushed["accepted"], 3_000, "{pushed}");
    let refused = server.push("{\"event_type\": \"order.placed\", \"event_id\": \"bad\"}\n");
    assert_eq!(refused["refused"], 1, "{refused}");
    let before = (answer(&server, &refused["token"]), counts(&server));
    assert_eq!(before.0.0, "3750.00");
    let took = term(server);
    assert!(took < Duration::from_secs(5), "{took:?}");
    let server = Server::start_with(folder.path(), &[AT_THE_END]);
    assert_eq!(behind(&server), 0, "{}", verbose(&server));
    assert_eq!((answer(&server, &Value::Null), counts(&server)), before);
    let restored = &verbose(&server)["checkpoints"]["restored"];
    assert!(restored["records"].as_u64().unwrap() >= 3_000, "{restored}");
    // What was known is known.
    let again = server.push(&orders(0..10));
    assert_eq!(again["duplicate"], 10, "{again}");
    let more = server.push(&orders(3_000..3_004));
    assert_eq!(answer(&server, &more["token"]).0, "3755.00");
    assert_eq!(server.get("/v1/deadletter")["pagination"]["total"], 1);
    // Its events before the restart are not kept: nothing is said that was not recomputed.
    let why = server.text("/v1/metrics/sales/why?window=24h");
    assert!(why.contains("no longer kept"), "{why}");
    term(server);
    let server = Server::start_with(folder.path(), &[AT_THE_END, ("STREAMGAUGE_WORKERS", "3")]);
    assert_eq!(
        (behind(&server), answer(&server, &Value::Null).0),
        (0, json!("3755.00")),
        "with more workers"
    );
}

#[test]
fn after_kill_9_only_the_tail_is_read_again() {
    let folder = shop();
    let server = Server::start_with(folder.path(), &[SOMETIMES]);
    server.push(&orders(0..500));
    let kept = |server: &Server| verbose(server)["checkpoints"]["newest"]["checkpoint"].as_u64();
    wait(Duration::from_secs(20), || kept(&server).is_some()).unwrap();
    server.signal("KILL");
    drop(server);
    let server = Server::start_with(folder.path(), &[AT_THE_END]);
    assert_eq!((behind(&server), answer(&server, &Value::Null).0), (0, json!("625.00")));
    let tail = server.push(&orders(500..520));
    assert_eq!(tail["accepted"], 20, "{tail}");
    server.signal("KILL");
    drop(server);
    let server = Server::start_with(folder.path(), &[AT_THE_END]);
    assert_eq!(behind(&server), 20);
    assert_eq!(answer(&server, &tail["token"]).0, "650.00");
    assert_eq!(server.push(&orders(495..525))["duplicate"], 25);
}

#[test]
fn a_damaged_checkpoint_is_told_of_and_the_one_before_taken() {
    let folder = shop();
    for part in 0..2 {
        let server = Server::start_with(folder.path(), &[AT_THE_END]);
        server.push(&orders(part * 100..part * 100 + 100));
        term(server);
    }
    let newest = files(folder.path(), "manifest").pop().unwrap();
    let text = std::fs::read_to_string(&newest).unwrap();
    std::fs::write(&newest, text.replace("\"tick\": ", "\"tick\": 1")).unwrap();
    let server = Server::start_with(folder.path(), &[AT_THE_END]);
    assert_eq!(answer(&server, &Value::Null).0, "250.00");
    let told = verbose(&server)["checkpoints"].clone();
    assert!(told["damaged"][0].as_str().unwrap().contains("its checksum is"), "{told}");
    assert_eq!(behind(&server), 100);
    assert!(log(folder.path()).contains("passed over"), "{}", log(folder.path()));
    drop(server);
    // None is left: it does not start from nothing.
    for file in files(folder.path(), "manifest") {
        std::fs::write(file, "rubbish").unwrap();
    }
    let start = || {
        let mut command = streamgauge();
        command.arg("serve").current_dir(folder.path()).env("STREAMGAUGE_SERVER__LISTEN", "127.0.0.1:0");
        command.output().unwrap()
    };
    let output = start();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("no checkpoint can be read") && said.contains("move them away"), "{said}");
    let aside = folder.path().join("data/checkpoints");
    std::fs::rename(&aside, folder.path().join("aside")).unwrap();
    let server = Server::start_with(folder.path(), &[AT_THE_END]);
    assert_eq!((behind(&server), answer(&server, &Value::Null).0), (200, json!("250.00")));
}
