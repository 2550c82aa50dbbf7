//! Disks that are full, stores that are away, memory at its limit: nothing acknowledged is lost, reads go on, and it goes on
//! by itself. Small file systems are mounted for it, which root may do; elsewhere these tests are skipped, loudly.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Server, agent, log, ok, shop, wait};

const LONG: Duration = Duration::from_secs(60);
/// More may wait than between two rounds that go well.
const SMALL_LAKE: [(&str, &str); 2] =
    [("STREAMGAUGE_LAKE__COMMIT_EVERY", "100ms"), ("STREAMGAUGE_LAKE__MEMORY", "1MiB")];

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

/// Pushes batches of so many until one is not acknowledged; how many were.
fn until_refused(
    server: &Server,
    from: u32,
    many: u32,
    body: impl Fn(std::ops::Range<u32>) -> String,
) -> (u32, Value) {
    for next in (from..from + 40_000).step_by(many as usize) {
        let (status, again, answer) = push(server, &body(next..next + many));
        if status != 202 {
            assert_eq!(status, 503, "{answer}");
            let seconds = again.and_then(|seconds| seconds.parse::<u64>().ok());
            assert!(seconds.is_some_and(|seconds| seconds > 0), "when to try again: {answer}");
            return (next, answer);
        }
    }
    panic!("every push was acknowledged");
}

fn push_until_refused(server: &Server, from: u32) -> (u32, Value) {
    until_refused(server, from, 100, orders)
}

/// Pushes 20 orders as a client that tries again does.
fn taken(server: &Server, from: u32) {
    let taken = wait(LONG, || push(server, &orders(from..from + 20)).0 == 202);
    assert!(taken.is_ok(), "{}", server.text("/readyz"));
}

/// Records in the log: what was stored, acknowledged or not.
fn stored(server: &Server) -> u64 {
    let told = server.get("/readyz?verbose");
    told["sources"][0]["partitions"][0]["end"].as_u64().unwrap_or_else(|| panic!("{told}"))
}

/// The intake is paused for this reason: pushes are refused with words, nothing of them is stored, numbers are answered.
fn paused(server: &Server, answer: &Value, code: &str, words: &str) {
    assert_eq!((&answer["code"], &answer["status"]), (&json!("intake_paused"), &json!(503)), "{answer}");
    let told = answer["errors"].as_array().unwrap();
    assert!(told.iter().any(|one| one["code"] == code && one["help"].is_string()), "{code}: {answer}");
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.starts_with("Nothing of this request was stored"), "{detail}");
    not_ready(server, words);
    not_ready(server, "sources wait, pushes are refused with 503");
    let before = stored(server);
    let (status, _, answer) = push(server, &orders(1_000_000..1_000_020));
    assert_eq!((status, &answer["code"]), (503, &json!("intake_paused")), "{answer}");
    assert_eq!(stored(server), before);
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
    let (acknowledged, answer) = until_refused(&server, 20, 20, orders);
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
    let (acknowledged, _) = until_refused(&server, 20, 20, orders);
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
    let server = Server::start_with(folder.path(), &SMALL_LAKE);
    assert_eq!(push(&server, &orders(0..20)).0, 202);
    let filler = fill(&data);
    let (all, answer) = push_until_refused(&server, 20);
    paused(&server, &answer, "lake_full", "rows wait for the lake");
    std::fs::remove_file(filler).unwrap();
    ready_again(&server, folder.path());
    goes_on(folder.path(), server, all);
}

/// What was acknowledged counts once, in the numbers and in the lake, and nothing else is there; pushes are taken again.
fn goes_on(folder: &Path, server: Server, acknowledged: u32) {
    assert_eq!(stored(&server), u64::from(acknowledged), "nothing of what was refused");
    counts(&server, acknowledged);
    taken(&server, acknowledged);
    let all = acknowledged + 20;
    counts(&server, all);
    let rows = || server.get("/readyz?verbose")["lake"]["rows"].as_u64() == Some(u64::from(all));
    assert!(wait(LONG, rows).is_ok(), "{}", server.text("/readyz?verbose"));
    killed(server);
    let server = Server::start(folder);
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

/// The dead letters are on a file system of so many MiB.
fn dead_letters_on(folder: &Path, mib: u32) -> Option<(Mounted, PathBuf)> {
    let small = folder.join("small");
    let mounted = tmpfs(&small, mib)?;
    std::fs::create_dir_all(folder.join("data")).unwrap();
    drop(Server::start(folder));
    // Another file system: copied.
    std::fs::copy(folder.join("data/deadletter"), small.join("file")).unwrap();
    std::fs::remove_file(folder.join("data/deadletter")).unwrap();
    std::os::unix::fs::symlink(small.join("file"), folder.join("data/deadletter")).unwrap();
    Some((mounted, small))
}

fn bad(numbers: std::ops::Range<u32>) -> String {
    let filling = "y".repeat(9_000);
    let one =
        |n| format!("{{\"event_type\": \"order.placed\", \"event_id\": \"bad{n}\", \"x\": \"{filling}\"}}\n");
    numbers.map(one).collect()
}

/// Each refused row is kept, or was let go because there were too many.
fn all_kept(server: &Server, refused: u32) {
    let kept = || {
        let stats = server.get("/v1/deadletter/stats");
        stats["total"].as_u64().unwrap_or(0) + stats["dropped"].as_u64().unwrap_or(0) == u64::from(refused)
    };
    assert!(wait(LONG, kept).is_ok(), "{refused}: {}", server.text("/v1/deadletter/stats"));
}

#[test]
fn the_disk_of_the_dead_letters_is_full() {
    let folder = shop();
    let Some((_mounted, small)) = dead_letters_on(folder.path(), 8) else { return };
    let server = Server::start_with(folder.path(), &[("STREAMGAUGE_CHECKPOINTS__EVERY", "1s")]);
    let filler = fill(&small);
    let mut refused = 0;
    while refused < 3_000 && server.status("/readyz") == 200 {
        assert_eq!(push(&server, &bad(refused..refused + 50)).0, 202);
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
    all_kept(&server, refused);
}

#[test]
fn dead_letters_that_wait_pause_the_intake_and_it_goes_on_by_itself() {
    let folder = shop();
    let Some((_mounted, small)) = dead_letters_on(folder.path(), 200) else { return };
    let server = Server::start(folder.path());
    let filler = fill(&small);
    let (refused, answer) = until_refused(&server, 0, 50, bad);
    paused(&server, &answer, "dead_letters_full", "refused events wait for the disk");
    std::fs::remove_file(filler).unwrap();
    ready_again(&server, folder.path());
    assert_eq!(stored(&server), u64::from(refused), "nothing of what was refused with 503");
    taken(&server, 0);
    counts(&server, 20);
    all_kept(&server, refused);
    killed(server);
    let server = Server::start(folder.path());
    counts(&server, 20);
    all_kept(&server, refused);
}

/// Resident bytes of the server.
fn resident(server: &Server) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", server.child.id())).unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Begins a request that takes so many bytes of the server's memory until it is dropped.
fn half_a_request(server: &Server, bytes: usize) -> TcpStream {
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    let length = bytes + 1;
    write!(stream, "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n").unwrap();
    let part = vec![b' '; 1 << 20];
    (0..bytes / part.len()).for_each(|_| stream.write_all(&part).unwrap());
    stream
}

#[test]
fn memory_at_its_limit_pauses_the_intake_and_it_goes_on_by_itself() {
    let folder = shop();
    let server = Server::start(folder.path());
    assert_eq!(push(&server, &orders(0..20)).0, 202);
    let before = resident(&server);
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    let limit = (before + (128 << 20)).to_string();
    let variables = [("STREAMGAUGE_LIMITS__MEMORY", limit.as_str()), ("STREAMGAUGE_LIMITS__BODY", "1GiB")];
    let server = Server::start_with(folder.path(), &variables);
    assert_eq!(push(&server, &orders(20..40)).0, 202);
    let large = half_a_request(&server, 256 << 20);
    let (acknowledged, answer) = push_until_refused(&server, 40);
    paused(&server, &answer, "memory_limit", "limits.memory is reached");
    drop(large);
    ready_again(&server, folder.path());
    assert_eq!(stored(&server), u64::from(acknowledged), "nothing of what was refused");
    taken(&server, acknowledged);
    counts(&server, acknowledged + 20);
    killed(server);
    let server = Server::start(folder.path());
    counts(&server, acknowledged + 20);
}

#[test]
fn memory_at_its_limit_from_the_start_stores_nothing_but_webhooks() {
    let folder = shop();
    let sources = "[{ name: push, http: {}, format: json }, \
                   { name: tool, hook: { kind: token, verify: none }, format: json }]";
    let sources = ("STREAMGAUGE_SOURCES", sources);
    let server = Server::start_with(folder.path(), &[sources]);
    assert_eq!(push(&server, &orders(0..20)).0, 202);
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    let server = Server::spawn(folder.path(), &[sources, ("STREAMGAUGE_LIMITS__MEMORY", "1MiB")]);
    not_ready(&server, "limits.memory is reached");
    let (status, _, answer) = push(&server, &orders(20..40));
    assert_eq!(status, 503, "{answer}");
    paused(&server, &answer, "memory_limit", "limits.memory is reached");
    // GitHub does not deliver again by itself: the log has room, so it is stored.
    let deliver = || {
        let post = agent().post(format!("{}/v1/hooks/tool", server.url));
        post.header("Content-Type", "application/json").send(orders(50..51)).unwrap().status().as_u16()
    };
    assert_eq!((deliver(), deliver()), (202, 202));
    assert_eq!(total(&server), "20.00", "numbers go on");
    killed(server);
    let server = Server::start_with(folder.path(), &[sources]);
    assert_eq!(stored(&server), 20);
    counts(&server, 21);
}

#[test]
fn a_lake_that_is_slow_pauses_the_intake_and_it_goes_on_by_itself() {
    let folder = shop();
    let variables = [SMALL_LAKE[0], SMALL_LAKE[1], ("STREAMGAUGE_FAULT", "lake.before_files=sleep:15000@3")];
    let server = Server::start_with(folder.path(), &variables);
    let (acknowledged, answer) = push_until_refused(&server, 0);
    paused(&server, &answer, "lake_full", "it is slower than the sources");
    // A command waits as it is told to, and sends again.
    std::fs::write(folder.path().join("more.ndjson"), orders(acknowledged..acknowledged + 500)).unwrap();
    ok(folder.path(), &["ingest", "more.ndjson", "--batch", "50", "--url", &server.url]);
    ready_again(&server, folder.path());
    goes_on(folder.path(), server, acknowledged + 500);
}

/// Holds the catalog's database, so that nobody can write to it.
struct Held(Child);

impl Held {
    fn new(database: &Path) -> Self {
        let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)\n\
                      c.execute('BEGIN EXCLUSIVE')\nprint('held', flush=True)\nsys.stdin.read()";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(database).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().expect("python3 is there");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "held");
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_lake_that_is_down_pauses_the_intake_and_it_goes_on_by_itself() {
    let folder = shop();
    let server = Server::start_with(folder.path(), &SMALL_LAKE);
    assert_eq!(push(&server, &orders(0..20)).0, 202);
    let down = Held::new(&folder.path().join("data/lake/catalog.db"));
    let (acknowledged, answer) = push_until_refused(&server, 20);
    paused(&server, &answer, "lake_full", "rows wait for the lake");
    // Not only slow: it has been tried, and failed.
    not_ready(&server, "locked");
    drop(down);
    ready_again(&server, folder.path());
    goes_on(folder.path(), server, acknowledged);
}
