//! A log that is damaged, by a disk that does not keep what it said or by somebody else: the process ends with words, or
//! refuses to start, or takes no pushes. It never hangs, and never acknowledges what nobody will read.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use support::{Server, agent, log, shop};

const PAGE: usize = 4096;
const LONG: Duration = Duration::from_secs(30);
/// Everything is read from the log, and from nothing else.
const ALONE: [(&str, &str); 2] =
    [("STREAMGAUGE_LAKE__CATALOG", "none"), ("STREAMGAUGE_CHECKPOINTS__EVERY", "0")];

fn orders(ids: std::ops::Range<u32>) -> String {
    support::orders(ids, |_| "1.00".to_owned())
}

fn ended(server: Server, folder: &Path) {
    server.signal("TERM");
    assert_eq!(server.end(), Some(0), "{}", log(folder));
}

/// The log as it was in the middle and at the end, and how many orders it holds then.
fn two_logs(folder: &Path) -> (Vec<u8>, Vec<u8>, u32) {
    let path = folder.join("data/log/push");
    let mut logs = Vec::new();
    for part in 0..2 {
        let server = Server::start_with(folder, &ALONE);
        for batch in part * 20..part * 20 + 20 {
            assert_eq!(server.push(&orders(batch * 50..batch * 50 + 50))["accepted"], 50);
        }
        ended(server, folder);
        logs.push(std::fs::read(&path).unwrap());
    }
    let end = logs.pop().unwrap();
    (logs.pop().unwrap(), end, 2_000)
}

/// Damage number `one`.
fn damaged(rng: &mut fastrand::Rng, one: u32, before: &[u8], whole: &[u8]) -> Vec<u8> {
    let mut bad = whole.to_vec();
    let pages = before.len().min(whole.len()) / PAGE;
    let page = |rng: &mut fastrand::Rng| rng.usize(0..pages) * PAGE;
    match one % 5 {
        // Pages of before: writes that were said to be on the disk.
        0 => (0..pages / 4).for_each(|_| {
            let at = page(rng);
            bad[at..at + PAGE].copy_from_slice(&before[at..at + PAGE]);
        }),
        // All but the first page, which is of before.
        1 => bad[..PAGE].copy_from_slice(&before[..PAGE]),
        2 => (0..8).for_each(|_| {
            let at = page(rng);
            bad[at..at + PAGE].fill(0);
        }),
        3 => bad.truncate(rng.usize(PAGE..whole.len())),
        _ => (0..64).for_each(|_| {
            let at = rng.usize(0..whole.len());
            bad[at] ^= 1 << rng.u8(0..8);
        }),
    }
    bad
}

/// What became of a server on a damaged log.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Refused,
    Stopped,
    TakesNothing,
    /// It is a whole log of before: without a checkpoint or a lake nobody can know of more.
    Older,
    Harmless,
}

fn outcome(folder: &Path, orders_before: u32) -> Outcome {
    let from = log(folder).len();
    let mut server = Server::spawn(folder, &ALONE);
    let (until, mut taken) = (Instant::now() + LONG, 0);
    while Instant::now() < until {
        if let Some(status) = server.child.try_wait().unwrap() {
            let said = log(folder)[from..].to_owned();
            assert!(said.contains("data/log"), "{status}: it does not say what is damaged: {said}");
            return if status.code() == Some(78) { Outcome::Refused } else { Outcome::Stopped };
        }
        let push = agent().post(format!("{}/v1/events", server.url)).send(orders(0..1));
        let status = push.map_or(0, |answer| answer.status().as_u16());
        if status == 503 && server.text("/readyz").contains("pushes are refused with 503") {
            return Outcome::TakesNothing;
        }
        taken += u64::from(status == 202);
        if status == 202 && server.status("/readyz") == 200 {
            let total = server.get("/v1/metrics/sales?window=24h")["value"].clone();
            let end = server.get("/readyz?verbose")["sources"][0]["partitions"][0]["end"].as_u64();
            match end.map(|end| end - taken) {
                _ if total == format!("{orders_before}.00") => return Outcome::Harmless,
                Some(before) if total == format!("{before}.00") => return Outcome::Older,
                _ => {}
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it goes on as if nothing were: {}\n{}", server.text("/readyz?verbose"), &log(folder)[from..]);
}

#[test]
fn a_damaged_log_is_never_written_on_in_silence() {
    let folder = shop();
    let (before, whole, orders_before) = two_logs(folder.path());
    let path = folder.path().join("data/log/push");
    let mut rng = fastrand::Rng::with_seed(11);
    let mut outcomes = Vec::new();
    for one in 0..15 {
        std::fs::write(&path, damaged(&mut rng, one, &before, &whole)).unwrap();
        outcomes.push(outcome(folder.path(), orders_before));
    }
    assert!(outcomes.iter().any(|outcome| *outcome != Outcome::Harmless), "{outcomes:?}");
    eprintln!("{outcomes:?}");
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(outcome(folder.path(), orders_before), Outcome::Harmless);
}
