//! `serve` and the commands that talk to it: the journeys of a user.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

mod support;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Server, exits, log, ok, run, streamgauge, wait, with_input};

fn shop() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["init"]);
    folder
}

fn order(id: &str, country: &str, amount: &str) -> String {
    let now = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(1);
    json!({"event_id": id, "event_type": "order.placed", "timestamp": now.to_string(), "order_id": id,
        "country": country, "amount": amount})
    .to_string()
}

fn amount(server: &Server, token: &Value) -> Value {
    let token = token.as_str().unwrap_or_default();
    server.get(&format!("/v1/metrics/sales?window=24h&after={token}&wait=5s"))["value"].clone()
}

#[test]
fn events_in_numbers_out_and_all_of_it_again_after_kill_9() {
    let folder = shop();
    let server = Server::start(folder.path());
    let answer = server.push(&format!("{}\n{}\n", order("a", "de", "10.50"), order("b", "fr", "20.00")));
    assert_eq!(answer["accepted"], 2, "{answer}");
    assert_eq!(amount(&server, &answer["token"]), "30.50");
    let answer = server.push(&order("a", "de", "10.50"));
    assert_eq!(answer["duplicate"], 1, "{answer}");
    let answer = server.push(&order("c", "es", "1.00"));
    assert_eq!(answer["refused"], 1, "{answer}");
    server.signal("KILL");
    drop(server);
    let server = Server::start(folder.path());
    assert_eq!(amount(&server, &answer["token"]), "30.50");
    let answer = server.push(&order("b", "fr", "20.00"));
    assert_eq!(answer["duplicate"], 1, "{answer}");
}

#[test]
fn sigterm_drains_and_ends_with_0_sigint_with_130() {
    let folder = shop();
    for (signal, code) in [("TERM", 0), ("INT", 130)] {
        let server = Server::start(folder.path());
        server.push(&order(signal, "de", "1.00"));
        server.signal(signal);
        assert_eq!(server.end(), Some(code), "{}", log(folder.path()));
    }
    assert!(log(folder.path()).contains("stopped"), "{}", log(folder.path()));
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let folder = shop();
    let server = Server::start(folder.path());
    let output = streamgauge()
        .arg("serve")
        .current_dir(folder.path())
        .env("STREAMGAUGE_SERVER__LISTEN", "127.0.0.1:0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("is in use by another streamgauge") && said.contains(&server.child.id().to_string()),
        "{said}"
    );
}

#[test]
fn a_port_that_is_taken_is_named() {
    let folder = shop();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = streamgauge()
        .arg("serve")
        .current_dir(folder.path())
        .env("STREAMGAUGE_SERVER__LISTEN", &address)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&address));
}

#[test]
fn ingest_counts_what_became_of_the_events() {
    let folder = shop();
    let server = Server::start(folder.path());
    let at = ["--url", &server.url];
    let call = |more: &[&str]| ok(folder.path(), &[more, &at].concat());
    assert_eq!(call(&["ingest", "events.ndjson"]).trim(), "accepted 40, refused 0, duplicate 0");
    assert_eq!(
        call(&["ingest", "events.ndjson", "--batch", "7"]).trim(),
        "accepted 0, refused 0, duplicate 40"
    );

    std::fs::write(folder.path().join("more.csv"), csv()).unwrap();
    let out = call(&["ingest", "more.csv", "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["accepted"], &json["refused"]), (&json!(1), &json!(1)), "{json}");
    assert!(json["errors"][0].as_str().unwrap().contains("country"), "{json}");
    exits(folder.path(), &[&["ingest", "more.csv", "--strict"][..], &at].concat(), 1);

    let output =
        with_input(folder.path(), &["ingest", "-", "--url", &server.url], &order("stdin", "uk", "3.00"));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "accepted 1, refused 0, duplicate 0");
}

fn csv() -> String {
    let now = jiff::Timestamp::now();
    format!(
        "event_id,event_type,timestamp,order_id,country,amount\n007,order.placed,{now},07,de,4.00\n008,order.placed,{now},08,xx,4.00\n"
    )
}

#[test]
fn query_top_and_tap_show_what_the_server_knows() {
    let folder = shop();
    let server = Server::start(folder.path());
    server.push(&format!("{}\n{}\n", order("a", "de", "10.50"), order("b", "fr", "20.00")));
    let at = ["--url", &server.url];
    let call = |more: &[&str]| ok(folder.path(), &[more, &at].concat());
    let out = call(&["query", "sales", "--window", "24h", "--by", "country"]);
    assert!(
        out.starts_with("sales (24h) = 30.50 EUR") && out.contains("de") && out.contains("20.00"),
        "{out}"
    );
    let json: Value = serde_json::from_str(&call(&[
        "query",
        "sales",
        "--where",
        "country = 'fr'",
        "--measure",
        "orders",
        "--json",
    ]))
    .unwrap();
    assert_eq!(json["rows"][0]["orders"], 1, "{json}");
    let top = call(&["top", "--once"]);
    assert!(top.contains("sales") && top.contains("30.50") && top.contains("push"), "{top}");
    let (_, said) = exits(folder.path(), &[&["query", "sale"][..], &at].concat(), 1);
    assert!(said.contains("sales"), "{said}");

    let child = streamgauge()
        .args(["tap", "order.placed", "--count", "1", "--json", "--url", &server.url])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The tap shows what is admitted from now on: push until it has seen one.
    let child = std::cell::RefCell::new(child);
    let seen = || {
        server.push(&order(&format!("tap-{}", jiff::Timestamp::now().as_nanosecond()), "uk", "1.00"));
        child.borrow_mut().try_wait().unwrap().is_some()
    };
    wait(Duration::from_secs(20), seen).expect("the tap ends after one event");
    let output = child.into_inner().wait_with_output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["event_type"], "order.placed", "{json}");
}

#[test]
fn nobody_listens_is_69() {
    let folder = tempfile::tempdir().unwrap();
    for command in [&["query", "x"][..], &["top", "--once"], &["tap"]] {
        let (_, said) = exits(folder.path(), &[command, &["--url", "http://127.0.0.1:1"]].concat(), 69);
        assert!(said.contains("streamgauge serve"), "{said}");
    }
}

fn change(folder: &Path, from: &str, to: &str) {
    let path = folder.join("contracts/sales.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from));
    std::fs::write(&path, text.replace(from, to)).unwrap();
}

#[test]
fn contracts_are_reloaded_and_a_bad_one_changes_nothing() {
    let folder = shop();
    let server = Server::start(folder.path());
    let answer = server.push(&format!("{}\n{}\n", order("a", "de", "10.50"), order("b", "fr", "20.00")));
    assert_eq!(amount(&server, &answer["token"]), "30.50");
    let state = |path: &str| server.get("/readyz?verbose")["reload"][path].clone();

    change(folder.path(), "agg: max", "agg: maxx");
    wait(Duration::from_secs(20), || state("failed") == 1)
        .unwrap_or_else(|()| panic!("{}", log(folder.path())));
    assert!(state("error").as_str().unwrap().contains("sales.yaml:"), "{}", state("error"));
    assert_eq!(amount(&server, &answer["token"]), "30.50");

    change(folder.path(), "largest: { agg: maxx", "smallest: { agg: min");
    change(folder.path(), ", largest: \"10.50\"", "");
    change(folder.path(), ", largest: \"20.00\"", "");
    server.signal("HUP");
    let smallest =
        || server.get("/v1/metrics/sales?window=24h&measure=smallest")["rows"][0]["smallest"].clone();
    wait(Duration::from_secs(20), || smallest() == "10.50")
        .unwrap_or_else(|()| panic!("{}", log(folder.path())));
    assert_eq!(amount(&server, &answer["token"]), "30.50");
    wait(Duration::from_secs(5), || state("error").is_null())
        .unwrap_or_else(|()| panic!("{}", state("error")));
    let answer = server.push(&order("a", "de", "10.50"));
    assert_eq!(answer["duplicate"], 1, "{answer}");
}

#[test]
fn the_demo_agrees_with_its_generator() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(
        folder.path(),
        &[
            "demo",
            "--for",
            "3s",
            "--rate",
            "200",
            "--history",
            "5",
            "--listen",
            "127.0.0.1:0",
            "--workers",
            "2",
            "--json",
        ],
    );
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{out}\n{said}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["equal"], true, "{json}");
    assert!(json["truth"]["emitted"].as_u64().unwrap() > 500, "{json}");
}
