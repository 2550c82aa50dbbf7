//! State and lake in an object store, tables in a REST catalog: all of it outside of the machine's own disk.
#![allow(clippy::unwrap_used)] // a test fails where it unwraps

use std::path::Path;
use std::process::Command;
use std::time::Duration;

mod support;
use support::{Server, log, wait};

const CONTRACTS: &str = "apiVersion: streamgauge/v1\nkind: Event\nname: shop.order\nversion: 1.0.0\n\
    fields: { amount: { type: \"decimal(18,2)\", required: true } }\n---\n\
    apiVersion: streamgauge/v1\nkind: Metric\nname: revenue\nversion: 1.0.0\nevents: { order: { type: shop.order } }\n\
    measures: { revenue: { agg: sum, value: amount } }\nwindows: { all: { all: true } }\n";

struct Components(tempfile::TempDir);

fn script(arguments: &[&str], dir: &Path) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/catalogs.sh");
    let run = Command::new(script).args(arguments).arg("--dir").arg(dir).output().expect("the script runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).into_owned()
}

impl Drop for Components {
    fn drop(&mut self) {
        script(&["clean"], self.0.path());
    }
}

fn events(from: u64, to: u64) -> String {
    let event =
        |n| format!(r#"{{"id":"o{n}","type":"shop.order","time":"2026-11-01T00:00:00Z","amount":"{n}.50"}}"#);
    (from..to).map(event).collect::<Vec<_>>().join("\n")
}

#[test]
fn state_and_lake_are_in_an_object_store() {
    let components = Components(tempfile::tempdir().unwrap());
    let said = script(&["start"], components.0.path());
    let of = |name: &str| {
        let word = said.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.unwrap_or_else(|| panic!("no `{name}` in {said}")).to_owned()
    };
    let (s3, rest) = (of("s3"), of("rest"));
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("contracts")).unwrap();
    std::fs::write(folder.join("contracts/all.yaml"), CONTRACTS).unwrap();
    let settings = format!(
        "apiVersion: streamgauge/v1\nkind: Settings\ncontracts: [contracts/]\ndata: data/\n\
         sources:\n  - {{ name: push, http: {{}}, format: json, envelope: {{ id: id, type: type, time: time }} }}\n\
         lake: {{ catalog: rest, uri: \"{rest}\", warehouse: \"s3://lake/rows\", commit_every: 50ms }}\n\
         checkpoints: {{ every: 1s, place: \"s3://lake/state\" }}\n"
    );
    std::fs::write(folder.join("streamgauge.yaml"), settings).unwrap();
    let variables = [
        ("AWS_ENDPOINT_URL", s3.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
    ];
    let start = || Server::start_with(folder, &variables);
    let shows = |server: &Server, sum: &str| {
        let path = "/v1/metrics/revenue?window=all";
        let there = wait(Duration::from_secs(20), || server.get(path)["value"] == sum);
        there.unwrap_or_else(|()| panic!("{}\n{}", server.text(path), log(folder)));
    };
    let server = start();
    server.push(&events(0, 100));
    shows(&server, "5000.00");
    let kept = || server.get("/readyz?verbose")["checkpoints"]["newest"]["checkpoint"].is_number();
    wait(Duration::from_secs(30), kept).unwrap_or_else(|()| panic!("{}", server.text("/readyz?verbose")));
    server.push(&events(100, 200));
    shows(&server, "20000.00");
    // Killed: the newest checkpoint is read from the store, and what came since from the log.
    server.signal("KILL");
    drop(server);
    let server = start();
    shows(&server, "20000.00");
    assert!(server.get("/readyz?verbose")["checkpoints"]["restored"].is_object(), "{}", log(folder));
    // The store is away for a while: answers go on, rows wait, and it goes on by itself. (moto forgets its objects, so
    // that it has to be the catalog that is away.)
    script(&["rest", "stop", "--now"], components.0.path());
    server.push(&events(200, 300));
    shows(&server, "45000.00");
    let told = || server.get("/readyz?verbose")["lake"]["trouble"].is_string();
    wait(Duration::from_secs(30), told).unwrap_or_else(|()| panic!("{}", server.text("/readyz?verbose")));
    script(&["rest", "start"], components.0.path());
    let settled = || {
        let lake = &server.get("/readyz?verbose")["lake"];
        lake["waiting_rows"] == 0 && lake["trouble"].is_null()
    };
    wait(Duration::from_secs(60), settled).unwrap_or_else(|()| panic!("{}", server.text("/readyz?verbose")));
    server.signal("TERM");
    assert_eq!(server.end(), Some(0), "{}", log(folder));
    let server = start();
    shows(&server, "45000.00");
    assert_eq!(
        server.get("/readyz?verbose")["sources"][0]["behind_at_start"],
        0,
        "{}",
        server.text("/readyz?verbose")
    );
    assert!(!folder.join("data/checkpoints").exists() && !folder.join("data/lake").exists());
}
