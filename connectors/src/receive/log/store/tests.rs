//! What a pusher and a reader of the log notice.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};

use super::super::{Idempotent, IdempotentRequest};
use super::*;

/// A clock that tests set.
fn clock(at: &Arc<AtomicI64>) -> Clock {
    let at = at.clone();
    Arc::new(move || at.load(Ordering::Relaxed))
}

struct Bench {
    folder: tempfile::TempDir,
    now: Arc<AtomicI64>,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), now: Arc::new(AtomicI64::new(1_000)) }
    }
    fn path(&self) -> PathBuf {
        self.folder.path().join("push.redb")
    }
    fn options(&self) -> LogOptions {
        LogOptions::new(clock(&self.now))
    }
    fn open(&self) -> Result<Arc<PushLog>, LogError> {
        PushLog::open(&self.path(), "push", self.options())
    }
    fn set(&self, now: i64) {
        self.now.store(now, Ordering::Relaxed);
    }
}

fn push(log: &PushLog, values: &[&str]) -> Result<Range<i64>, LogError> {
    let records = values.iter().map(|v| LogRecord::new(v.as_bytes().to_vec())).collect();
    let (tell, told) = mpsc::channel();
    log.append(records, Box::new(move |result| tell.send(result).unwrap()));
    told.recv().unwrap()
}

fn texts(log: &PushLog, from: i64) -> Vec<String> {
    let records = log.read(from, usize::MAX).unwrap();
    records.iter().map(|r| String::from_utf8(r.value.to_vec()).unwrap()).collect()
}

#[test]
fn appended_records_are_numbered_and_survive_reopening() {
    let bench = Bench::new();
    let log = bench.open().unwrap();
    assert_eq!(push(&log, &["a", "b"]), Ok(0..2));
    assert_eq!(push(&log, &[]), Ok(2..2));
    assert_eq!(push(&log, &["c"]), Ok(2..3));
    drop(log);
    let log = bench.open().unwrap();
    assert_eq!((log.start(), log.end()), (0, 3));
    assert_eq!(push(&log, &["d"]), Ok(3..4));
    assert_eq!(texts(&log, 0), ["a", "b", "c", "d"]);
    assert_eq!(texts(&log, 1), ["b", "c", "d"]);
    assert_eq!(texts(&log, 4), [""; 0]);
    assert_eq!(log.read(5, 1), Err(LogError::BeyondEnd { from: 5, end: 4 }));
    assert_eq!(log.read(0, 1).unwrap().len(), 2, "a block at least");
}

#[test]
fn received_times_never_go_back() {
    let bench = Bench::new();
    let log = bench.open().unwrap();
    for (now, value) in [(5_000, "a"), (3_000, "b"), (7_000, "c")] {
        bench.set(now);
        push(&log, &[value]).unwrap();
    }
    drop(log);
    bench.set(1);
    let log = bench.open().unwrap();
    push(&log, &["d"]).unwrap();
    let times: Vec<i64> = log.read(0, usize::MAX).unwrap().iter().map(|r| r.received).collect();
    assert_eq!(times, [5_000, 5_000, 7_000, 7_000]);
}

#[test]
fn many_threads_share_commits_and_lose_nothing() {
    let bench = Bench::new();
    let log = bench.open().unwrap();
    let threads: Vec<_> = (0..8)
        .map(|t| {
            let log = log.clone();
            std::thread::spawn(move || {
                (0..50).map(|i| push(&log, &[&format!("{t}-{i}")]).unwrap().start).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut offsets: Vec<i64> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..400).collect::<Vec<_>>());
    let mut all = texts(&log, 0);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 400);
}

#[test]
fn large_and_many_records_go_into_several_blocks() {
    let bench = Bench::new();
    let log = bench.open().unwrap();
    let values: Vec<String> = (0..3000).map(|i| format!("{i:04}-{}", "x".repeat(100))).collect();
    let refs: Vec<&str> = values.iter().map(String::as_str).collect();
    push(&log, &refs).unwrap();
    let huge = "y".repeat(3 << 20);
    assert_eq!(push(&log, &[&huge]), Ok(3000..3001));
    assert_eq!(texts(&log, 0).len(), 3001);
    assert_eq!(texts(&log, 1777)[0], values[1777]);
    assert_eq!(texts(&log, 3000), [huge]);
    let first = log.read(0, 100_000).unwrap();
    assert!(first.len() > 500 && first.len() < 3000, "{}", first.len());
}

#[test]
fn retention_drops_the_oldest_by_size_and_by_age() {
    let bench = Bench::new();
    let options = LogOptions { max_bytes: 300_000, ..bench.options() };
    let log = PushLog::open(&bench.path(), "push", options).unwrap();
    let value = "x".repeat(50_000);
    for i in 0..20 {
        assert_eq!(push(&log, &[&value]), Ok(i..i + 1));
    }
    assert!(log.bytes() <= 300_000);
    assert_eq!((log.start(), log.end()), (15, 20));
    assert_eq!(log.read(3, 1), Err(LogError::Gone { from: 3, start: 15 }));
    drop(log);
    let options = LogOptions { max_age: Duration::from_secs(60), ..bench.options() };
    let log = PushLog::open(&bench.path(), "push", options).unwrap();
    assert_eq!(log.start(), 15);
    bench.set(120_000_000);
    push(&log, &["new"]).unwrap();
    assert_eq!((log.start(), texts(&log, 20)), (20, vec!["new".to_owned()]));
}

#[test]
fn what_is_held_stays_and_a_log_that_is_full_of_it_takes_no_more() {
    let bench = Bench::new();
    let options = LogOptions { max_bytes: 300_000, max_age: Duration::from_secs(60), ..bench.options() };
    let log = PushLog::open(&bench.path(), "push", options).unwrap();
    log.hold(2);
    let value = "x".repeat(50_000);
    let pushed = (0..20).take_while(|_| push(&log, &[&value]).is_ok()).count();
    assert!((6..12).contains(&pushed), "{pushed}");
    assert_eq!((log.start(), log.is_held()), (2, true), "what lies before is let go");
    let full = push(&log, &["more"]).unwrap_err();
    assert!(matches!(full, LogError::Needed { allowed: 300_000, start: 2, .. }), "{full}");
    assert_eq!(texts(&log, 2).len(), pushed - 2, "what was acknowledged is there");
    bench.set(120_000_000);
    log.hold(4);
    let started = std::time::Instant::now();
    while log.is_held() && started.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((log.start(), log.is_held()), (4, false), "it goes on by itself; age takes nothing held");
    push(&log, &["more"]).unwrap();
    assert_eq!(log.start(), 4);
}

#[test]
fn a_full_queue_says_so_at_once() {
    let bench = Bench::new();
    let options = LogOptions { max_queue_bytes: 1000, ..bench.options() };
    let log = PushLog::open(&bench.path(), "push", options).unwrap();
    let (tell, told) = mpsc::channel();
    for _ in 0..200 {
        let tell = tell.clone();
        let record = LogRecord::new(vec![b'x'; 400]);
        log.append(vec![record], Box::new(move |result| tell.send(result.is_ok()).unwrap()));
    }
    drop(tell);
    let results: Vec<bool> = told.iter().collect();
    let done = results.iter().filter(|ok| **ok).count();
    assert_eq!(results.len(), 200);
    assert!(done < 200, "some were refused");
    assert_eq!(texts(&log, 0).len(), done, "exactly the acknowledged ones are there");
}

#[test]
fn a_second_opener_is_told() {
    let bench = Bench::new();
    let log = bench.open().unwrap();
    let error = bench.open().unwrap_err();
    assert_eq!(error, LogError::Locked { path: bench.path() });
    assert!(error.to_string().contains("another process has this log open"), "{error}");
    drop(log);
    bench.open().unwrap();
}

#[test]
fn another_source_or_another_file_is_not_taken_for_the_log() {
    let bench = Bench::new();
    drop(bench.open().unwrap());
    let error = PushLog::open(&bench.path(), "pull", bench.options()).unwrap_err();
    assert!(error.to_string().contains("belongs to source `push`, not to `pull`"), "{error}");
    for content in [&b""[..], b"hello", &[0; 100_000], &[0xff; 5000]] {
        std::fs::write(bench.path(), content).unwrap();
        let error = bench.open().unwrap_err();
        assert!(matches!(error, LogError::Corrupted { .. }), "{error:?}");
        assert_eq!(std::fs::read(bench.path()).unwrap(), content, "left as it was");
    }
}

/// Whatever byte of the file is damaged: an error, or the records as they were. Never other records,
/// never a panic.
#[test]
fn damage_is_an_error_or_harmless() {
    let bench = Bench::new();
    let log = bench.open().unwrap();
    let values: Vec<String> = (0..200).map(|i| format!("event {i} {}", "z".repeat(500))).collect();
    for chunk in values.chunks(20) {
        push(&log, &chunk.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    }
    drop(log);
    let whole = std::fs::read(bench.path()).unwrap();
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut errors, mut harmless) = (0, 0);
    for i in 0..120 {
        let mut bad = whole.clone();
        if i % 10 == 0 {
            bad.truncate(rng.usize(1..whole.len()));
        } else {
            let at = if i % 3 == 0 { rng.usize(0..4096) } else { rng.usize(0..whole.len()) };
            bad[at] ^= 1 << rng.u8(0..8);
        }
        std::fs::write(bench.path(), &bad).unwrap();
        match bench.open().and_then(|log| Ok((log.start(), log.end(), log.read(log.start(), usize::MAX)?))) {
            Err(_) => errors += 1,
            Ok((start, end, records)) => {
                harmless += 1;
                // Going back to the commit before is what a torn commit looks like; nothing else may be.
                assert!((start, end) == (0, 200) || end < 200, "{i}: {start}..{end}");
                for record in records {
                    assert_eq!(record.value, values[record.offset as usize].as_bytes(), "{i}");
                }
            }
        }
    }
    assert!(errors > 0 && harmless > 0, "{errors} {harmless}");
}

fn request(key: &str, fingerprint: u8, answer: &'static str) -> IdempotentRequest {
    IdempotentRequest {
        key: key.into(),
        fingerprint: [fingerprint; 32],
        answer: Box::new(move |range| format!("{answer} {}", range.start).into()),
    }
}

fn push_once(log: &PushLog, value: &str, request: IdempotentRequest) -> Result<Idempotent, LogError> {
    let (tell, told) = mpsc::channel();
    let records = vec![LogRecord::new(value.as_bytes().to_vec())];
    log.append_idempotent(records, request, Box::new(move |result| tell.send(result).unwrap()));
    told.recv().unwrap()
}

#[test]
fn a_repeated_request_gets_its_answer_and_appends_nothing() {
    let bench = Bench::new();
    let log = bench.open().unwrap();
    push(&log, &["before"]).unwrap();
    let fresh = push_once(&log, "x", request("k", 1, "first")).unwrap();
    assert_eq!(fresh, Idempotent::Fresh { range: 1..2, answer: "first 1".into() });
    let repeated = Ok(Idempotent::Repeated { answer: "first 1".into() });
    assert_eq!(push_once(&log, "x", request("k", 1, "second")), repeated);
    assert_eq!(push_once(&log, "y", request("k", 2, "third")), Ok(Idempotent::OtherRequest));
    drop(log);
    let log = bench.open().unwrap();
    assert_eq!(push_once(&log, "x", request("k", 1, "fourth")), repeated, "after a restart, too");
    assert_eq!(log.idempotent_get("k").unwrap(), Some(("first 1".into(), [1; 32])));
    log.idempotent_put("k", "more is known".into()).unwrap();
    push(&log, &["after"]).unwrap();
    assert_eq!(log.idempotent_get("k").unwrap(), Some(("more is known".into(), [1; 32])));
    assert_eq!(texts(&log, 0), ["before", "x", "after"]);
    // A day later the key is free again.
    bench.set(1_000 + idempotency::KEEP_MICROS);
    assert_eq!(log.idempotent_get("k").unwrap(), None);
    assert!(matches!(push_once(&log, "x", request("k", 1, "new")), Ok(Idempotent::Fresh { .. })));
    let long = "k".repeat(256);
    assert_eq!(push_once(&log, "x", request(&long, 1, "")), Err(LogError::Key { found: 256, allowed: 255 }));
}

#[test]
fn the_same_key_at_the_same_time_appends_once() {
    let bench = Bench::new();
    let log = bench.open().unwrap();
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let log = log.clone();
            std::thread::spawn(move || push_once(&log, "x", request("k", 1, "a")).unwrap())
        })
        .collect();
    let fresh = threads.into_iter().map(|t| t.join().unwrap());
    assert_eq!(fresh.filter(|r| matches!(r, Idempotent::Fresh { .. })).count(), 1);
    assert_eq!(log.end(), 1);
}

#[test]
fn waiting_for_a_record_ends_when_it_comes() {
    let bench = Bench::new();
    let log = bench.open().unwrap();
    let waiter = {
        let log = log.clone();
        std::thread::spawn(move || {
            let started = std::time::Instant::now();
            while log.end() == 0 {
                log.wait(0, Duration::from_secs(10));
            }
            started.elapsed()
        })
    };
    std::thread::sleep(Duration::from_millis(50));
    push(&log, &["a"]).unwrap();
    assert!(waiter.join().unwrap() < Duration::from_secs(5));
}

#[test]
fn a_reader_never_runs_ahead_of_the_end() {
    let bench = Bench::new();
    let log = bench.open().unwrap();
    const PUSHES: i64 = 400;
    std::thread::scope(|scope| {
        scope.spawn(|| (0..PUSHES).for_each(|n| drop(push(&log, &[n.to_string().as_str()]))));
        let mut next = 0;
        while next < PUSHES {
            // A commit is there before the end says so: what is beyond must not be handed out yet.
            let read = log.read(next, usize::MAX).unwrap();
            assert!(read.iter().map(|record| record.offset).eq(next..next + read.len() as i64));
            next += read.len() as i64;
        }
    });
    assert_eq!(log.end(), PUSHES);
}
