//! The lake beside other people's programs: PyIceberg compacts, expires and rolls back between two starts of the server.
#![allow(clippy::unwrap_used)] // a test fails where it unwraps

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

mod support;
use support::{Server, log, run, streamgauge};

const CONTRACT: &str = "apiVersion: streamgauge/v1\nkind: Event\nname: shop.order\nversion: 1.0.0\n\
    fields: { amount: { type: \"decimal(18,2)\", required: true } }\n";

const SETTINGS: &str = "apiVersion: streamgauge/v1\nkind: Settings\ncontracts: [contracts/]\ndata: data/\n\
    sources:\n  - { name: push, http: {}, format: json, envelope: { id: id, type: type, time: time } }\n\
    lake: { commit_every: 50ms }\n";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("contracts")).unwrap();
    std::fs::write(folder.path().join("contracts/order.yaml"), CONTRACT).unwrap();
    std::fs::write(folder.path().join("streamgauge.yaml"), SETTINGS).unwrap();
    folder
}

/// Pushes orders `from..to`, a few at a time, each few committed alone; ends the server in order.
fn push(folder: &Path, from: u64, to: u64) {
    let server = Server::start(folder);
    for first in (from..to).step_by(10) {
        let event = |n| {
            format!(r#"{{"id":"o{n}","type":"shop.order","time":"2026-11-01T00:00:00Z","amount":"{n}.50"}}"#)
        };
        server.push(&(first..to.min(first + 10)).map(event).collect::<Vec<_>>().join("\n"));
        let committed = || server.get("/readyz?verbose")["lake"]["waiting_rows"] == 0;
        support::wait(Duration::from_secs(20), committed).unwrap_or_else(|()| panic!("{}", log(folder)));
        std::thread::sleep(Duration::from_millis(80));
    }
    server.signal("TERM");
    assert_eq!(server.end(), Some(0), "{}", log(folder));
}

fn lake(folder: &Path, command: &str, more: &[&str]) -> Value {
    support::lake(folder, command, more).unwrap()
}

fn holds(folder: &Path, rows: u64) {
    let found = lake(folder, "read", &["--snapshots"]);
    let table = &found["shop_order"];
    assert_eq!((table["rows"].as_u64(), table["ids"].as_u64()), (Some(rows), Some(rows)), "{found}");
}

#[test]
fn other_programs_may_compact_and_expire_but_not_roll_back() {
    let folder = folder();
    let folder = folder.path();
    push(folder, 0, 40);
    holds(folder, 40);
    lake(folder, "compact", &["shop_order"]);
    push(folder, 40, 60);
    holds(folder, 60);
    lake(folder, "expire", &["shop_order"]);
    push(folder, 60, 80);
    holds(folder, 80);
    lake(folder, "rollback", &["shop_order"]);
    let (out, started) = (run(folder, &["serve"]), Instant::now());
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("lake_rollback_detected: shop_order"), "{said}");
    assert_eq!(out.status.code(), Some(78), "{said}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let folder = folder();
    let server = Server::start(folder.path());
    let mut second = streamgauge();
    second.arg("serve").current_dir(folder.path()).env("STREAMGAUGE_SERVER__LISTEN", "127.0.0.1:0");
    let out = second.output().unwrap();
    assert_eq!(out.status.code(), Some(78), "{}", String::from_utf8_lossy(&out.stderr));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("data") && said.contains("another"), "{said}");
    drop(server);
}

/// Active and standby with folders of their own on one lake: whoever commits second stops, and nothing comes twice.
#[test]
fn of_two_servers_on_one_lake_one_stops() {
    let (one, two) = (folder(), folder());
    let database = one.path().join("data/lake");
    let settings = format!("{SETTINGS}\n").replace(
        "lake: { commit_every: 50ms }",
        &format!("lake: {{ commit_every: 50ms, warehouse: \"{}\" }}", database.display()),
    );
    std::fs::write(two.path().join("streamgauge.yaml"), settings).unwrap();
    std::fs::create_dir_all(two.path().join("data/lake")).unwrap();
    std::fs::create_dir_all(&database).unwrap();
    // The catalog is one, too.
    std::fs::File::create(database.join("catalog.db")).unwrap();
    std::fs::hard_link(database.join("catalog.db"), two.path().join("data/lake/catalog.db")).unwrap();
    let (first, second) = (Server::start(one.path()), Server::start(two.path()));
    let event = r#"{"id":"a","type":"shop.order","time":"2026-11-01T00:00:00Z","amount":"1.00"}"#;
    first.push(event);
    let committed = || first.get("/readyz?verbose")["lake"]["rows"] == 1;
    support::wait(Duration::from_secs(20), committed).unwrap();
    second.push(event);
    let stopped = || second.text("/readyz?verbose").contains("lake_fenced");
    support::wait(Duration::from_secs(20), stopped).unwrap_or_else(|()| panic!("{}", log(two.path())));
    assert_eq!(second.status("/readyz"), 503);
    drop((first, second));
    holds(one.path(), 1);
}
