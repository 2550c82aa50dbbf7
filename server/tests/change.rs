//! Contracts change, while the server runs or while it is down: what did not change stays, the rest is made again, and the
//! old contracts answer meanwhile.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

mod support;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use support::{Server, log, shop, wait};

/// The state is kept at the end of the process and when contracts change.
const AT_THE_END: (&str, &str) = ("STREAMGAUGE_CHECKPOINTS__EVERY", "1h");
const SOMETIMES: (&str, &str) = ("STREAMGAUGE_CHECKPOINTS__EVERY", "1s");
const LONG: Duration = Duration::from_secs(60);

fn orders(ids: std::ops::Range<u32>) -> String {
    support::orders(ids, |_| "1.25".to_owned())
}

/// A metric of its own in a file of its own.
fn write(folder: &Path, name: &str, measure: &str) {
    let text = format!(
        "apiVersion: streamgauge/v1\nkind: Metric\nname: {name}\nversion: 1.0.0\nevents:\n  a: {{ type: order.placed }}\n\
         measures:\n  it: {measure}\nwindows:\n  ever: {{ all: true }}\n"
    );
    std::fs::write(folder.join(format!("contracts/{name}.yaml")), text).unwrap();
}

fn number(server: &Server, metric: &str) -> String {
    let answer = server.get(&format!("/v1/metrics/{metric}"));
    answer["value"].as_str().map_or_else(|| answer["value"].to_string(), str::to_owned)
}

fn verbose(server: &Server) -> Value {
    server.get("/readyz?verbose")
}

/// Waits until the contracts of the folder answer, and nothing is being built.
fn changed(server: &Server, metric: &str, wanted: &str) {
    let done = wait(LONG, || {
        let reload = verbose(server)["reload"].clone();
        reload["building"].is_null()
            && server.status(&format!("/v1/metrics/{metric}")) == 200
            && number(server, metric) == wanted
    });
    done.unwrap_or_else(|()| {
        panic!("{metric}: {} {}", server.text(&format!("/v1/metrics/{metric}")), verbose(server))
    });
}

#[test]
fn a_change_is_taken_from_the_first_moment_on() {
    let folder = shop();
    let mut server = Server::spawn(folder.path(), &[AT_THE_END]);
    server.signal("HUP");
    write(folder.path(), "taken", "{ agg: count }");
    server.signal("HUP");
    assert!(server.ready(LONG), "{}", log(folder.path()));
    assert_eq!(server.push(&orders(0..3))["accepted"], 3);
    changed(&server, "taken", "3");
}

#[test]
fn what_is_new_is_made_from_history_and_the_rest_is_kept() {
    let folder = shop();
    let server = Server::start_with(folder.path(), &[AT_THE_END]);
    assert_eq!(server.push(&orders(0..300))["accepted"], 300);
    let sales = number(&server, "sales");
    write(folder.path(), "taken", "{ agg: count }");
    server.signal("HUP");
    changed(&server, "taken", "300");
    assert_eq!(number(&server, "sales"), sales);
    let told = verbose(&server);
    assert_eq!(told["sources"][0]["behind_at_start"], 0, "what is kept is not read again: {told}");
    let text = log(folder.path());
    assert!(text.contains("rebuild=\"metric taken\"") || text.contains("metric taken"), "{text}");
    assert!(!folder.path().join("data/rebuild").exists());
    // What was known is known, and both go on.
    assert_eq!(server.push(&orders(290..310))["duplicate"], 10);
    changed(&server, "taken", "310");
    // Only what nobody holds is gone: everything else is kept, nothing is read.
    std::fs::remove_file(folder.path().join("contracts/taken.yaml")).unwrap();
    server.signal("HUP");
    wait(LONG, || server.status("/v1/metrics/taken") == 404).unwrap();
    assert_eq!(verbose(&server)["sources"][0]["behind_at_start"], 0);
    assert_eq!(server.push(&orders(300..311))["duplicate"], 10);
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    let server = Server::start_with(folder.path(), &[AT_THE_END]);
    assert_eq!(
        verbose(&server)["sources"][0]["behind_at_start"],
        0,
        "the last checkpoint is of these contracts"
    );
    assert_eq!(server.push(&orders(0..312))["duplicate"], 311, "and holds all that was known");
}

#[test]
fn after_a_change_while_down_the_old_contracts_answer_at_once() {
    let folder = shop();
    let server = Server::start_with(folder.path(), &[AT_THE_END]);
    server.push(&orders(0..200));
    let sales = number(&server, "sales");
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    write(folder.path(), "taken", "{ agg: count }");
    let server = Server::start_with(folder.path(), &[AT_THE_END]);
    // Whoever answers now, old or new: it has not begun with nothing.
    assert_eq!(number(&server, "sales"), sales);
    changed(&server, "taken", "200");
    assert_eq!(number(&server, "sales"), sales);
    let text = log(folder.path());
    assert!(text.contains("those of the checkpoint answer"), "{text}");
    let told = verbose(&server);
    assert!(told["checkpoints"]["rebuild"].is_null(), "{told}");
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    // Their texts are gone: then everything is read again, as is said.
    std::fs::remove_dir_all(folder.path().join("data/contracts")).unwrap();
    write(folder.path(), "taken", "{ agg: sum, value: amount }");
    let server = Server::start_with(folder.path(), &[AT_THE_END]);
    changed(&server, "taken", "250.00");
    assert!(log(folder.path()).contains("are not known any more"), "{}", log(folder.path()));
    let told = verbose(&server);
    assert!(told["checkpoints"]["rebuild"].as_str().unwrap().contains("metric taken"), "{told}");
}

#[test]
fn killed_in_the_middle_of_a_change_it_begins_again() {
    let folder = shop();
    let server = Server::start_with(folder.path(), &[SOMETIMES]);
    (0..8).for_each(|part| drop(server.push(&orders(part * 2_000..part * 2_000 + 2_000))));
    wait(LONG, || verbose(&server)["checkpoints"]["newest"]["checkpoint"].is_u64()).unwrap();
    write(folder.path(), "taken", "{ agg: count }");
    server.signal("HUP");
    server.signal("KILL");
    drop(server);
    for pause in [0, 5, 60, 200] {
        let server = Server::start_with(folder.path(), &[SOMETIMES]);
        assert_eq!(number(&server, "sales"), "20000.00", "killed {pause}");
        std::thread::sleep(Duration::from_millis(pause));
        server.signal("KILL");
    }
    let server = Server::start_with(folder.path(), &[SOMETIMES]);
    changed(&server, "taken", "16000");
    assert_eq!(number(&server, "sales"), "20000.00");
}

#[test]
fn a_second_change_takes_the_place_of_the_first() {
    let folder = shop();
    let server = Server::start_with(folder.path(), &[AT_THE_END]);
    server.push(&orders(0..4_000));
    for measure in ["{ agg: count }", "{ agg: max, value: amount }", "{ agg: sum, value: amount }"] {
        write(folder.path(), "taken", measure);
        server.signal("HUP");
        std::thread::sleep(Duration::from_millis(30));
    }
    changed(&server, "taken", "5000.00");
    assert_eq!(number(&server, "sales"), "5000.00");
}

#[test]
fn asking_again_for_the_same_contracts_does_not_begin_the_change_again() {
    let folder = shop();
    // Four seconds of history.
    let server = Server::start_with(folder.path(), &[AT_THE_END, ("STREAMGAUGE_LIMITS__BACKFILL", "1000")]);
    (0..4).for_each(|part| drop(server.push(&orders(part * 1_000..part * 1_000 + 1_000))));
    write(folder.path(), "taken", "{ agg: count }");
    server.signal("HUP");
    let building = || !verbose(&server)["reload"]["building"].is_null();
    wait(LONG, building).unwrap();
    let file = folder.path().join("contracts/taken.yaml");
    while building() {
        // A comment is another file with the same meaning.
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(folder.path().join("new"), text + "# and so on\n").unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
        server.signal("HUP");
        std::thread::sleep(Duration::from_millis(50));
    }
    changed(&server, "taken", "4000");
    let text = log(folder.path());
    assert!(text.contains("these contracts are being built already"), "{text}");
    assert!(!text.contains("given up"), "{text}");
    assert_eq!(text.matches("contracts of generation 2 answer now").count(), 1, "{text}");
}

/// A partition of the state that no source reads any more, and of which the lake has nothing: here a file, as well a topic.
#[test]
fn what_nobody_reads_any_more_does_not_hold_a_change_up() {
    let folder = shop();
    std::fs::write(folder.path().join("old.ndjson"), orders(100..140)).unwrap();
    std::fs::write(folder.path().join("new.ndjson"), orders(140..150)).unwrap();
    let sources = |file: &str| {
        format!(
            "[{{ name: push, http: {{}}, format: json }}, {{ name: other, file: {{ path: {file} }}, format: json }}]"
        )
    };
    let lake = ("STREAMGAUGE_LAKE__CATALOG", "none");
    let old = sources("old.ndjson");
    let server = Server::start_with(folder.path(), &[AT_THE_END, lake, ("STREAMGAUGE_SOURCES", &old)]);
    server.push(&orders(0..100));
    assert_eq!(number(&server, "sales"), "175.00");
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    let new = sources("new.ndjson");
    let server = Server::start_with(folder.path(), &[AT_THE_END, lake, ("STREAMGAUGE_SOURCES", &new)]);
    assert_eq!(number(&server, "sales"), "187.50", "the state has both files");
    write(folder.path(), "taken", "{ agg: count }");
    server.signal("HUP");
    changed(&server, "taken", "110");
    assert_eq!(number(&server, "sales"), "187.50", "what did not change is kept");
    let text = log(folder.path());
    assert!(
        text.contains("no source reads this partition any more") && text.contains("old.ndjson"),
        "{text}"
    );
}
