//! Contracts change again and again while two sources bring copies of the same events that say different things.
//!
//! *In*: two sources of pushes, changes of contracts. *Out*: of each id one copy counts, and it is the one in the lake. *Never*:
//! a moment at which two engines choose, each for itself.
#![allow(clippy::unwrap_used)] // a test fails where it unwraps

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

mod support;
use support::{Server, agent, lake, log, wait};

const LONG: Duration = Duration::from_secs(60);
/// Contracts change so often.
const CHANGES: u64 = 6;
/// Claims of one request.
const BATCH: u64 = 20;

const CONTRACTS: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: shop.claim
version: 1.0.0
fields: { amount: { type: "decimal(18,2)", required: true } }
---
apiVersion: streamgauge/v1
kind: Metric
name: claims
version: 1.0.0
events: { claim: { type: shop.claim } }
measures: { claims: { agg: count }, said: { agg: sum, value: amount } }
windows: { all: { all: true } }
retain: { live: 3650d }
"#;

fn shop(folder: &Path) {
    let source = |name: &str| {
        format!(
            "  - {{ name: {name}, http: {{}}, format: json, envelope: {{ id: id, type: type, time: time }} }}\n"
        )
    };
    let settings = format!(
        "apiVersion: streamgauge/v1\nkind: Settings\ncontracts: [contracts/]\ndata: data/\nworkers: 2\nsources:\n{}{}\
         lake: {{ commit_every: 200ms }}\ncheckpoints: {{ every: 1h }}\n",
        source("one"),
        source("two")
    );
    std::fs::create_dir_all(folder.join("contracts")).unwrap();
    std::fs::write(folder.join("contracts/claims.yaml"), CONTRACTS).unwrap();
    std::fs::write(folder.join("streamgauge.yaml"), settings).unwrap();
}

/// Claims `from..` as the source of this number tells them.
fn claims(source: u64, from: u64) -> String {
    let one = |n: u64| {
        let amount = source * 1_000 + n % 997;
        format!(r#"{{"type":"shop.claim","id":"c{n}","time":"2026-11-01T00:00:00Z","amount":"{amount}.25"}}"#)
    };
    (from..from + BATCH).map(one).collect::<Vec<_>>().join("\n")
}

/// A metric of its own, that means something else each time.
fn change(folder: &Path, server: &Server, number: u64) {
    let measure = if number.is_multiple_of(2) { "{ agg: count }" } else { "{ agg: max, value: amount }" };
    let text = format!(
        "apiVersion: streamgauge/v1\nkind: Metric\nname: other\nversion: 1.0.0\nevents: {{ c: {{ type: shop.claim }} }}\n\
         measures: {{ it: {measure} }}\nwindows: {{ all: {{ all: true }} }}\n"
    );
    std::fs::write(folder.join("contracts/other.yaml"), text).unwrap();
    server.signal("HUP");
    let answers = || {
        let told = server.get("/readyz?verbose");
        told["engine"]["generation"] == number + 2 && told["reload"]["building"].is_null()
    };
    wait(LONG, answers).unwrap_or_else(|()| panic!("change {number}: {}", log(folder)));
}

#[test]
fn the_copy_that_counts_is_the_one_in_the_lake() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shop(folder);
    let server = Server::start(folder);
    let (stop, sent) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    std::thread::scope(|scope| {
        for (source, sent) in sent.iter().enumerate() {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let url = format!("{}/v1/events?source={}", server.url, ["one", "two"][source]);
                while !stop.load(Ordering::Relaxed) {
                    let from = sent.load(Ordering::Relaxed);
                    let answer = agent().post(&url).send(claims(source as u64, from)).unwrap();
                    assert_eq!(answer.status(), 202);
                    sent.store(from + BATCH, Ordering::Relaxed);
                }
            });
        }
        (0..CHANGES).for_each(|number| change(folder, &server, number));
        // Some rounds of the lake beyond the last checkpoint.
        std::thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
    });
    let sent = sent.map(AtomicU64::into_inner).into_iter().max().unwrap();
    // What the lake has and no checkpoint is read again, and judged as before.
    server.signal("KILL");
    server.end();
    let server = Server::start(folder);
    let said = || server.get("/v1/metrics/claims?window=all")["rows"][0].clone();
    wait(LONG, || said()["claims"] == sent).unwrap_or_else(|()| panic!("{sent}: {}", said()));
    let said = said();
    server.signal("TERM");
    assert_eq!(server.end(), Some(0), "{}", log(folder));
    let found = lake(folder, "read", &[]).unwrap()["shop_claim"].clone();
    let stored = (&found["rows"], &found["ids"], &found["sums"]["amount"]);
    assert_eq!(stored, (&said["claims"], &said["claims"], &said["said"]), "of {sent}");
    // The same after a restart that reads everything again.
    std::fs::remove_dir_all(folder.join("data/checkpoints")).unwrap();
    let server = Server::start(folder);
    let again = || server.get("/v1/metrics/claims?window=all")["rows"][0].clone();
    wait(LONG, || again() == said).unwrap_or_else(|()| panic!("{said}: {}", again()));
}
