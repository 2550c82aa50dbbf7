//! A process that pushes is killed with SIGKILL: every acknowledged event is in the log exactly once.
//!
//! The child is this test program itself, started with `CHILD_LOG` set.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connectors::receive::log::{LogError, LogOptions, LogRecord, PushLog};
use connectors::receive::wall_clock;

const ROUNDS: u64 = 8;

fn open(path: &Path) -> Result<Arc<PushLog>, LogError> {
    PushLog::open(path, "push", LogOptions::new(wall_clock()))
}

/// Not a test of its own: pushes for ever, and writes `offset value` for each acknowledged event.
#[test]
fn child() {
    let Ok(path) = std::env::var("CHILD_LOG") else { return };
    let round = std::env::var("CHILD_ROUND").unwrap_or_default();
    let log = open(Path::new(&path)).unwrap();
    let out = Arc::new(Mutex::new(std::io::stdout()));
    for i in 0_u64.. {
        let values: Vec<String> = (0..=i % 5).map(|j| format!("r{round}-{i}-{j}")).collect();
        let records = values.iter().map(|v| LogRecord::new(v.clone())).collect();
        let out = out.clone();
        let done = move |result: Result<std::ops::Range<i64>, LogError>| {
            let Ok(range) = result else { return };
            let mut out = out.lock().unwrap();
            for (offset, value) in range.zip(&values) {
                let _ = writeln!(out, "ack {offset} {value}");
            }
            let _ = out.flush();
        };
        log.append(records, Box::new(done));
        if i % 16 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn acknowledged_events_survive_sigkill_exactly_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("push.redb");
    let mut acknowledged: Vec<(i64, String)> = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env("CHILD_LOG", &path)
            .env("CHILD_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pipe = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(pipe).lines().map_while(Result::ok);
            let acks = lines.filter_map(|line| {
                // The harness may write its own words in front of the first line.
                let (_, ack) = line.split_once("ack ")?;
                let (offset, value) = ack.split_once(' ')?;
                Some((offset.parse().ok()?, value.to_owned()))
            });
            acks.collect::<Vec<(i64, String)>>()
        });
        std::thread::sleep(Duration::from_millis(150 + 53 * round));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        let mut acks = reader.join().unwrap();
        acks.pop(); // the last line may be cut in the middle of its value
        assert!(!acks.is_empty(), "round {round}: the child got to work");
        acknowledged.extend(acks);
    }
    let log = open(&path).unwrap();
    let mut found = Vec::new();
    while (found.len() as i64) < log.end() {
        let records = log.read(found.len() as i64, 1 << 20).unwrap();
        found.extend(records.iter().map(|r| String::from_utf8(r.value.to_vec()).unwrap()));
    }
    for (offset, value) in &acknowledged {
        assert_eq!(&found[*offset as usize], value, "offset {offset}");
    }
    let mut unique = found.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), found.len(), "nothing twice");
    println!("{} acknowledged, {} in the log, {ROUNDS} kills", acknowledged.len(), found.len());
}
