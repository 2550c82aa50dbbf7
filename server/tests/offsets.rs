//! Records that a start needs are kept; where they are gone all the same, it stops and says so.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Server, exits, shop, streamgauge};

const AT_THE_END: (&str, &str) = ("STREAMGAUGE_CHECKPOINTS__EVERY", "1h");
const SMALL: (&str, &str) = ("STREAMGAUGE_LIMITS__LOG", "300KiB");

fn orders(ids: std::ops::Range<u32>) -> String {
    support::orders(ids, |_| "1.25".to_owned())
}

fn total(server: &Server, token: &Value) -> Value {
    let token = token.as_str().unwrap_or_default();
    server.get(&format!("/v1/metrics/sales?window=24h&after={token}&wait=10s"))["value"].clone()
}

fn term(server: Server) {
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
}

/// The exit code and the words of a start that does not come about.
fn refused(folder: &Path, variables: &[(&str, &str)]) -> String {
    let mut command = streamgauge();
    command.arg("serve").current_dir(folder).env("STREAMGAUGE_SERVER__LISTEN", "127.0.0.1:0");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    said
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Pushes batches of 100 until the log has let go of its first events; how many were acknowledged.
fn fill(server: &Server, first: u32) -> (u32, u32, Value) {
    let (mut next, mut full, mut token) = (first, 0, Value::Null);
    let started = Instant::now();
    while next < first + 6_000 {
        let answer = server.push(&orders(next..next + 100));
        if answer["code"] == "log_full" {
            full += 1;
            std::thread::sleep(Duration::from_millis(50));
        } else {
            assert_eq!(answer["accepted"], 100, "{answer}");
            token = answer["token"].clone();
            next += 100;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "the log does not go on by itself");
    }
    (next, full, token)
}

#[test]
fn a_full_log_keeps_what_checkpoints_need_and_goes_on_by_itself() {
    let folder = shop();
    let server = Server::start_with(folder.path(), &[AT_THE_END, SMALL]);
    let (next, full, token) = fill(&server, 0);
    assert!(full > 0, "a log of 300 KiB never was full of {next} events");
    assert_eq!(total(&server, &token), "7500.00");
    server.signal("KILL");
    drop(server);
    let server = Server::start_with(folder.path(), &[AT_THE_END, SMALL]);
    assert_eq!(total(&server, &token), "7500.00", "what the log let go is in a checkpoint");
}

#[test]
fn a_gap_is_a_stop_until_its_loss_is_accepted() {
    let folder = shop();
    let path = folder.path();
    let server = Server::start_with(path, &[AT_THE_END, SMALL]);
    assert_eq!(server.push(&orders(0..100))["accepted"], 100);
    term(server);
    let parts = ["data/checkpoints", "data/lake"];
    parts.iter().for_each(|part| copy(&path.join(part), &path.join(part.replace('/', "."))));
    let server = Server::start_with(path, &[AT_THE_END, SMALL]);
    fill(&server, 100);
    term(server);
    // The state goes back, the log does not.
    parts.iter().for_each(|part| copy(&path.join(part.replace('/', ".")), &path.join(part)));
    let said = refused(path, &[AT_THE_END, SMALL]);
    assert!(said.contains("offset_gap: source `push`, topic `log`, partition 0"), "{said}");
    let loss = said.split("accept_loss: [\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let (from, to) = loss.strip_prefix("log[0] ").unwrap().split_once("..").unwrap();
    assert_eq!(from, "100");
    let to: u32 = to.parse().unwrap();
    assert!(said.contains(&format!("{} records are gone", to - 100)), "{said}");
    let other = ("STREAMGAUGE_SOURCES__PUSH__ACCEPT_LOSS", "['log[0] 100..101']");
    refused(path, &[AT_THE_END, SMALL, other]);
    let accepted = format!("['{loss}']");
    let server =
        Server::start_with(path, &[AT_THE_END, SMALL, ("STREAMGAUGE_SOURCES__PUSH__ACCEPT_LOSS", &accepted)]);
    let cents = u64::from(6_100 - (to - 100)) * 125;
    assert_eq!(total(&server, &Value::Null), format!("{}.{:02}", cents / 100, cents % 100));
    term(server);
    // From now on nothing is missing.
    Server::start_with(path, &[AT_THE_END, SMALL]);
}

#[test]
fn another_log_is_a_stop() {
    let folder = shop();
    let path = folder.path();
    let server = Server::start_with(path, &[AT_THE_END]);
    assert_eq!(server.push(&orders(0..100))["accepted"], 100);
    term(server);
    std::fs::remove_dir_all(path.join("data/log")).unwrap();
    let said = refused(path, &[AT_THE_END]);
    let found = "topic_regressed: source `push`, topic `log`, partition 0: it was read up to offset 100, but it ends at offset 0";
    assert!(said.replace("\n", " ").contains(found), "{said}");
    // The lake alone knows it, too.
    std::fs::rename(path.join("data/checkpoints"), path.join("aside")).unwrap();
    assert!(refused(path, &[AT_THE_END]).contains("topic_regressed"));
    // Under another name it is another log.
    let settings = std::fs::read_to_string(path.join("streamgauge.yaml")).unwrap();
    std::fs::write(path.join("streamgauge.yaml"), settings.replace("name: push,", "name: push2,")).unwrap();
    let server = Server::start_with(path, &[AT_THE_END]);
    assert_eq!(server.push(&orders(100..200))["accepted"], 100);
}

#[test]
fn settings_name_what_is_wrong_with_a_loss() {
    let folder = shop();
    let settings = folder.path().join("streamgauge.yaml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace("name: push,", "name: push, accept_loss: [all],")).unwrap();
    let (_, said) = exits(folder.path(), &["serve"], 78);
    assert!(said.contains("`all` names no records") && said.contains("TOPIC[PARTITION] FROM..TO"), "{said}");
}
