//! Disks that are full, stores that are away, memory at its limit: nothing acknowledged is lost, reads go on, and it goes on
//! by itself. Small file systems are mounted for it, which root may do; elsewhere these tests are skipped, loudly.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

mod support;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Server, agent, log, shop, wait};

const LONG: Duration = Duration::from_secs(40);

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// A mounted file system; unmounted at the end, however it ends.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

fn skipped<T>() -> Option<T> {
    eprintln!("SKIPPED: file systems cannot be mounted here; run as root");
    None
}

/// A file system of so many MiB in memory, at `path`.
fn tmpfs(path: &Path, mib: u32) -> Option<Mounted> {
    std::fs::create_dir_all(path).unwrap();
    let size = format!("size={mib}m");
    match run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", path.to_str().unwrap()]) {
        true => Some(Mounted(path.to_path_buf())),
        false => skipped(),
    }
}

/// ext4 in a sparse file of a tmpfs that holds less: a write succeeds, and only fsync says that there is no room.
fn loop_device(below: &Path, path: &Path) -> Option<(Mounted, Mounted)> {
    let under = tmpfs(below, 12)?;
    let image = below.join("image");
    File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let image = image.to_str().unwrap();
    std::fs::create_dir_all(path).unwrap();
    let made = run("mkfs.ext4", &["-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=1", image])
        && run("mount", &["-o", "loop,errors=continue", image, path.to_str().unwrap()]);
    // The upper one is unmounted first.
    made.then(|| (Mounted(path.to_path_buf()), under)).or_else(skipped)
}

/// Takes all room of a file system.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = File::create(&path).unwrap();
    for size in [1 << 20, 4 << 10, 1] {
        let bytes = vec![7u8; size];
        while file.write_all(&bytes).is_ok() {}
    }
    path
}

fn orders(ids: std::ops::Range<u32>) -> String {
    let now = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(1);
    let order = |id: u32| {
        json!({"event_id": format!("e{id}"), "event_type": "order.placed", "timestamp": now.to_string(),
            "order_id": id.to_string(), "country": "de", "amount": "1.00", "note": "n".repeat(400)})
        .to_string()
            + "\n"
    };
    ids.map(order).collect()
}

/// The status, the seconds of `Retry-After`, the answer.
fn push(server: &Server, body: &str) -> (u16, Option<String>, Value) {
    let mut answer = agent().post(format!("{}/v1/events?wait=1s", server.url)).send(body).unwrap();
    let again = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), again, serde_json::from_str(&text).unwrap_or_default())
}

/// Pushes batches of 20 until one is not acknowledged; how many were.
fn push_until_refused(server: &Server, from: u32) -> (u32, Value) {
    for next in (from..from + 40_000).step_by(20) {
        let (status, again, answer) = push(server, &orders(next..next + 20));
        if status != 202 {
            assert_eq!(status, 503, "{answer}");
            assert!(again.is_some(), "when to try again: {answer}");
            return (next, answer);
        }
    }
    panic!("every push was acknowledged");
}

fn total(server: &Server) -> Value {
    server.get("/v1/metrics/sales?window=24h")["value"].clone()
}

fn counts(server: &Server, orders: u32) {
    let wanted = Value::String(format!("{orders}.00"));
    if wait(LONG, || total(server) == wanted).is_err() {
        assert_eq!(total(server), wanted);
    }
    let text = server.text("/metrics");
    assert!(text.contains("streamgauge_events_unaccounted{} 0.0"), "{text}");
    assert!(text.contains("streamgauge_ticks_unbalanced_total{} 0"), "{text}");
}

/// Not ready, for a reason that has these words; numbers are answered all the same.
fn not_ready(server: &Server, words: &str) {
    let says = || server.status("/readyz") == 503 && server.text("/readyz").contains(words);
    assert!(wait(LONG, says).is_ok(), "{words}: {}", server.text("/readyz"));
    assert_eq!(server.status("/v1/metrics/sales?window=24h"), 200);
}

fn ready_again(server: &Server, folder: &Path) {
    let ready = wait(LONG, || server.status("/readyz") == 200);
    assert!(ready.is_ok(), "{}\n{}", server.text("/readyz"), log(folder));
}

fn killed(server: Server) {
    server.signal("KILL");
    assert_eq!(server.end(), None);
}

#[test]
fn the_disk_of_the_log_is_full() {
    let folder = shop();
    let data = folder.path().join("data/log");
    let Some(_mounted) = tmpfs(&data, 12) else { return };
    let server = Server::start(folder.path());
    assert_eq!(push(&server, &orders(0..20)).0, 202);
    let filler = fill(&data);
    let (acknowledged, answer) = push_until_refused(&server, 20);
    assert_eq!(answer["code"], "log_unavailable", "{answer}");
    not_ready(&server, "pushes are refused with 503");
    std::fs::remove_file(filler).unwrap();
    ready_again(&server, folder.path());
    // What was refused may have reached the disk all the same: sent again it counts once.
    assert_eq!(push(&server, &orders(acknowledged..acknowledged + 20)).0, 202);
    counts(&server, acknowledged + 20);
    killed(server);
    let server = Server::start(folder.path());
    counts(&server, acknowledged + 20);
}

#[test]
fn the_disk_below_the_disk_of_the_log_is_full() {
    let folder = shop();
    let (below, data) = (folder.path().join("below"), folder.path().join("data/log"));
    let Some((_upper, _under)) = loop_device(&below, &data) else { return };
    let server = Server::start(folder.path());
    assert_eq!(push(&server, &orders(0..20)).0, 202);
    let filler = fill(&below);
    // Writes go on for a while: they are in memory until fsync.
    let (acknowledged, _) = push_until_refused(&server, 20);
    not_ready(&server, "pushes are refused with 503");
    killed(server);
    std::fs::remove_file(filler).unwrap();
    let server = Server::start(folder.path());
    assert_eq!(push(&server, &orders(acknowledged..acknowledged + 20)).0, 202);
    counts(&server, acknowledged + 20);
}

#[test]
fn the_disk_of_the_lake_is_full() {
    let folder = shop();
    let data = folder.path().join("data/lake");
    let Some(_mounted) = tmpfs(&data, 12) else { return };
    let variables = [("STREAMGAUGE_LAKE__COMMIT_EVERY", "100ms"), ("STREAMGAUGE_LAKE__MEMORY", "64KiB")];
    let server = Server::start_with(folder.path(), &variables);
    assert_eq!(push(&server, &orders(0..20)).0, 202);
    let filler = fill(&data);
    for next in (20..2_000).step_by(20) {
        assert_eq!(push(&server, &orders(next..next + 20)).0, 202, "the log takes them");
        if server.status("/readyz") == 503 && next > 400 {
            break;
        }
    }
    not_ready(&server, "rows wait for the lake");
    let offset = server.get("/readyz?verbose")["sources"][0]["partitions"][0]["end"].as_u64().unwrap();
    std::fs::remove_file(filler).unwrap();
    ready_again(&server, folder.path());
    let all = u32::try_from(offset).unwrap();
    counts(&server, all);
    let stored = || server.get("/readyz?verbose")["lake"]["rows"].as_u64() == Some(offset);
    assert!(wait(LONG, stored).is_ok(), "{}", server.text("/readyz?verbose"));
    killed(server);
    let server = Server::start(folder.path());
    counts(&server, all);
}

#[test]
fn the_disk_of_the_checkpoints_is_full() {
    let folder = shop();
    let data = folder.path().join("data/checkpoints");
    let Some(_mounted) = tmpfs(&data, 2) else { return };
    let variables = [("STREAMGAUGE_CHECKPOINTS__EVERY", "1s")];
    let server = Server::start_with(folder.path(), &variables);
    assert_eq!(push(&server, &orders(0..20)).0, 202);
    let filler = fill(&data);
    assert_eq!(push(&server, &orders(20..1_000)).0, 202);
    not_ready(&server, "the checkpoint cannot be written");
    std::fs::remove_file(filler).unwrap();
    ready_again(&server, folder.path());
    killed(server);
    let server = Server::start(folder.path());
    counts(&server, 1_000);
}

#[test]
fn the_disk_of_the_dead_letters_is_full() {
    let folder = shop();
    let small = folder.path().join("small");
    let Some(_mounted) = tmpfs(&small, 8) else { return };
    std::fs::create_dir_all(folder.path().join("data")).unwrap();
    drop(Server::start(folder.path()));
    std::fs::rename(folder.path().join("data/deadletter"), small.join("file"))
        .or_else(|_| {
            // Another file system: copied.
            std::fs::copy(folder.path().join("data/deadletter"), small.join("file")).map(drop)?;
            std::fs::remove_file(folder.path().join("data/deadletter"))
        })
        .unwrap();
    std::os::unix::fs::symlink(small.join("file"), folder.path().join("data/deadletter")).unwrap();
    let server = Server::start_with(folder.path(), &[("STREAMGAUGE_CHECKPOINTS__EVERY", "1s")]);
    let filler = fill(&small);
    let bad = |n: u32| {
        format!(
            "{{\"event_type\": \"order.placed\", \"event_id\": \"bad{n}\", \"x\": \"{}\"}}\n",
            "y".repeat(9_000)
        )
    };
    let mut refused = 0;
    while refused < 3_000 && server.status("/readyz") == 200 {
        let body: String = (refused..refused + 50).map(bad).collect();
        assert_eq!(push(&server, &body).0, 202);
        refused += 50;
    }
    not_ready(&server, "refused events cannot be written");
    // No checkpoint stands beyond them: killed now, they are met again.
    assert_eq!(push(&server, &orders(0..20)).0, 202);
    killed(server);
    std::fs::remove_file(filler).unwrap();
    let small_limit = [("STREAMGAUGE_LIMITS__DEAD_LETTERS", "3MiB")];
    let server = Server::start_with(folder.path(), &small_limit);
    counts(&server, 20);
    let kept = || {
        let stats = server.get("/v1/deadletter/stats");
        stats["total"].as_u64().unwrap_or(0) + stats["dropped"].as_u64().unwrap_or(0) == u64::from(refused)
    };
    assert!(wait(LONG, kept).is_ok(), "{refused}: {}", server.text("/v1/deadletter/stats"));
}

#[test]
fn memory_at_its_limit_pauses_sources_and_loses_nothing() {
    let folder = shop();
    let server = Server::start(folder.path());
    assert_eq!(push(&server, &orders(0..20)).0, 202);
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    let server = Server::spawn(folder.path(), &[("STREAMGAUGE_LIMITS__MEMORY", "1MiB")]);
    not_ready(&server, "limits.memory is reached");
    let (status, _, answer) = push(&server, &orders(20..40));
    // Durable, and not folded yet.
    assert_eq!((status, &answer["pending"]), (202, &json!(20)), "{answer}");
    assert_eq!(total(&server), "20.00");
    killed(server);
    let server = Server::start(folder.path());
    counts(&server, 40);
}

#[test]
fn a_lake_that_is_slow_pauses_sources_and_they_go_on_by_themselves() {
    let folder = shop();
    let variables = [
        ("STREAMGAUGE_LAKE__COMMIT_EVERY", "100ms"),
        ("STREAMGAUGE_LAKE__MEMORY", "64KiB"),
        ("STREAMGAUGE_FAULT", "lake.before_files=sleep:6000@5"),
    ];
    let server = Server::start_with(folder.path(), &variables);
    let mut next = 0;
    while next < 4_000 && server.status("/readyz") == 200 {
        assert_eq!(push(&server, &orders(next..next + 20)).0, 202, "the log takes them");
        next += 20;
    }
    not_ready(&server, "it is slower than the sources");
    ready_again(&server, folder.path());
    counts(&server, next);
    killed(server);
    let server = Server::start(folder.path());
    counts(&server, next);
}
