//! Following the log.

use std::sync::mpsc;

use super::*;
use crate::receive::testing::{NOW, collect, event, feed, rows};

fn open(folder: &tempfile::TempDir, max_bytes: u64) -> Arc<PushLog> {
    let options = LogOptions { max_bytes, ..LogOptions::new(Arc::new(|| NOW)) };
    PushLog::open(&folder.path().join("push.redb"), "push", options).unwrap()
}

fn push(log: &PushLog, numbers: std::ops::Range<i64>) {
    let records = numbers.map(|n| LogRecord::new(event(n))).collect();
    let (tell, told) = mpsc::channel();
    log.append(records, Box::new(move |result| tell.send(result).unwrap()));
    told.recv().unwrap().unwrap();
}

#[test]
fn it_catches_up_follows_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder, u64::MAX);
    push(&log, 0..10_000);
    let (feed_, out) = feed("push", 100);
    let receiver = start(&log, &Offsets::new(), feed_).unwrap();
    let all: Vec<_> = collect(&out, 10_000).iter().flat_map(rows).collect();
    assert_eq!(all, (0..10_000).map(|n| (n, n)).collect::<Vec<_>>());
    push(&log, 10_000..10_001);
    let chunk = &collect(&out, 1)[0];
    assert_eq!(
        (rows(chunk), chunk.next_offset, chunk.end_offset),
        (vec![(10_000, 10_000)], 10_001, Some(10_001))
    );
    assert_eq!(chunk.batches[0].received, [NOW]);
    let status = receiver.status();
    assert_eq!((status.state, status.caught_up), (State::Running, true));
    receiver.stop();
    assert_eq!(receiver.join().state, State::Finished);
    let (feed_, out) = feed("push", 100);
    let from = Offsets::from([(feed_.partition(TOPIC, 0), 9_999)]);
    let receiver = start(&log, &from, feed_).unwrap();
    assert_eq!(
        collect(&out, 2).iter().flat_map(rows).collect::<Vec<_>>(),
        [(9_999, 9_999), (10_000, 10_000)]
    );
    drop(receiver);
}

#[test]
fn headers_and_refused_events_come_through() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder, u64::MAX);
    let (feed, out) = feed("push", 8);
    let receiver = start(&log, &Offsets::new(), feed).unwrap();
    let header =
        |name: &str, value: &'static str| (name.to_owned(), bytes::Bytes::from_static(value.as_bytes()));
    let headers = vec![
        header("ce-specversion", "1.0"),
        header("ce-id", "e1"),
        header("ce-source", "test"),
        header("ce-type", "reading"),
        header("ce-time", "2026-01-01T00:00:00Z"),
        header("content-type", "application/json"),
    ];
    let binary = LogRecord { value: r#"{"n":7}"#.into(), headers };
    log.append(vec![LogRecord::new("nonsense"), binary], Box::new(|result| assert!(result.is_ok())));
    let chunks = collect(&out, 2);
    assert_eq!(chunks.iter().flat_map(rows).collect::<Vec<_>>(), [(1, 7)]);
    assert_eq!(chunks[0].refused[0].reasons[0].code, "malformed_json");
    drop(receiver);
}

#[test]
fn what_retention_took_is_counted_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder, 70_000);
    for i in 0..20 {
        push(&log, i * 1000..(i + 1) * 1000);
    }
    let start_at = log.start();
    assert!(start_at > 0);
    let (feed, out) = feed("push", 100);
    let from = Offsets::from([(feed.partition(TOPIC, 0), 5)]);
    let receiver = start(&log, &from, feed).unwrap();
    let all: Vec<_> = collect(&out, (20_000 - start_at) as u64).iter().flat_map(rows).collect();
    assert_eq!(all[0].0, start_at);
    let status = receiver.status();
    assert_eq!((status.gap, status.errors), ((start_at - 5) as u64, 1));
    assert!(status.last_error.unwrap().contains("are gone (retention passed them)"));
}
