//! Reading files as a user meets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use super::*;
use crate::receive::testing::{NOW, collect, event, feed, rows};

fn write(folder: &tempfile::TempDir, name: &str, content: &[u8]) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn ndjson_with_blank_and_broken_lines() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("\u{feff}{}\n\n{{broken\n{}\r\n{}", event(1), event(2), event(3));
    let path = write(&folder, "a.ndjson", text.as_bytes());
    let (feed, out) = feed("file", 8);
    let seen = Arc::new(AtomicU64::new(0));
    let told = seen.clone();
    let mut source = FileSource::new(&path);
    source.progress = Some(Box::new(move |done, _| told.store(done, Ordering::Relaxed)));
    let receiver = start(source, &Offsets::new(), feed).unwrap();
    let chunks = collect(&out, 4);
    let status = receiver.join();
    assert_eq!(
        chunks.iter().flat_map(rows).collect::<Vec<_>>(),
        [(1, 1), (4, 2), (5, 3)],
        "offsets are line numbers"
    );
    let refused: Vec<_> = chunks.iter().flat_map(|c| &c.refused).collect();
    assert_eq!((refused[0].offset, refused[0].reasons[0].code.as_str()), (3, "malformed_json"));
    assert_eq!((status.state, status.caught_up, status.received), (State::Finished, true, 4));
    assert_eq!(seen.load(Ordering::Relaxed), text.len() as u64);
    assert_eq!(status.total_bytes, Some(text.len() as u64));
}

#[test]
fn reading_goes_on_from_an_offset_and_received_is_the_files_time() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..10_000).map(|n| event(n) + "\n").collect();
    let path = write(&folder, "a.jsonl", text.as_bytes());
    let changed = std::time::UNIX_EPOCH + std::time::Duration::from_micros(NOW as u64 - 60_000_000);
    File::options().write(true).open(&path).unwrap().set_modified(changed).unwrap();
    let (feed, out) = feed("file", 100);
    let partition = feed.partition(&path, 0);
    let from = Offsets::from([(partition, 9_001)]);
    let receiver = start(FileSource::new(&path), &from, feed).unwrap();
    let chunks = collect(&out, 1_000);
    receiver.join();
    let all: Vec<_> = chunks.iter().flat_map(rows).collect();
    assert_eq!(all, (9_000..10_000).map(|n| (n + 1, n)).collect::<Vec<_>>());
    assert!(chunks.iter().flat_map(|c| &c.batches).all(|b| b.received[0] == NOW - 60_000_000));
    assert_eq!(chunks.last().unwrap().next_offset, 10_001);
}

#[test]
fn a_line_above_the_limit_is_refused_and_the_rest_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(5 << 20));
    let path = write(&folder, "a.ndjson", format!("{}\n{long}\n{}\n", event(1), event(2)).as_bytes());
    let (feed, out) = feed("file", 8);
    let receiver = start(FileSource::new(&path), &Offsets::new(), feed).unwrap();
    let chunks = collect(&out, 3);
    receiver.join();
    assert_eq!(chunks.iter().flat_map(rows).collect::<Vec<_>>(), [(1, 1), (3, 2)]);
    let refused: Vec<_> = chunks.iter().flat_map(|c| &c.refused).collect();
    assert_eq!((refused.len(), refused[0].offset, refused[0].reasons[0].code.as_str()), (1, 2, "oversize"));
}

#[test]
fn csv_has_a_header_and_quoted_cells() {
    let folder = tempfile::tempdir().unwrap();
    let text = "id,at,n,place\r\na,2026-01-01T00:00:00Z,1,\"Rome,\nItaly\"\r\nb,2026-01-01T00:00:00Z,x,\r\nc,2026-01-01T00:00:00Z,3,\r\n";
    let path = write(&folder, "a.csv", text.as_bytes());
    let (feed, out) = feed("file", 8);
    let receiver = start(FileSource::new(&path), &Offsets::new(), feed).unwrap();
    let chunks = collect(&out, 3);
    receiver.join();
    assert_eq!(chunks.iter().flat_map(rows).collect::<Vec<_>>(), [(2, 1), (5, 3)]);
    let refused: Vec<_> = chunks.iter().flat_map(|c| &c.refused).collect();
    assert_eq!((refused[0].offset, refused[0].reasons[0].code.as_str()), (4, "wrong_type"));
}

#[test]
fn parquet_rows_are_events() {
    let folder = tempfile::tempdir().unwrap();
    let count = 10_000_i64;
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values((0..count).map(|n| format!("e{n}"))));
    let at: ArrayRef = Arc::new(StringArray::from_iter_values((0..count).map(|_| "2026-01-01T00:00:00Z")));
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    let batch = RecordBatch::try_from_iter([("id", ids), ("at", at), ("n", n)]).unwrap();
    let path = folder.path().join("a.parquet");
    let file = File::create(&path).unwrap();
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let (feed, out) = feed("file", 100);
    let from = Offsets::from([(feed.partition(path.to_str().unwrap(), 0), 5_001)]);
    let receiver = start(FileSource::new(path.to_str().unwrap()), &from, feed).unwrap();
    let chunks = collect(&out, 5_000);
    let status = receiver.join();
    let all: Vec<_> = chunks.iter().flat_map(rows).collect();
    assert_eq!(all, (5_000..count).map(|n| (n + 1, n)).collect::<Vec<_>>());
    assert_eq!(Some(status.done_bytes), status.total_bytes);
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (feed, out) = feed("file", 8);
    let missing = folder.path().join("none.ndjson");
    let error = start(FileSource::new(missing.to_str().unwrap()), &Offsets::new(), feed.clone()).unwrap_err();
    assert!(error.to_string().starts_with("source `file`: cannot read `"), "{error}");
    let error =
        start(FileSource::new(folder.path().to_str().unwrap()), &Offsets::new(), feed.clone()).unwrap_err();
    assert!(error.to_string().contains("it is a folder: name its files"), "{error}");
    let path = write(&folder, "bad.parquet", b"PAR1 is not enough to be Parquet PAR1");
    let status = start(FileSource::new(&path), &Offsets::new(), feed).unwrap().join();
    assert!(matches!(&status.state, State::Failed(m) if m.starts_with("cannot read `")), "{status:?}");
    assert_eq!((status.errors, out.len()), (1, 0));
}

#[test]
fn a_busy_engine_pauses_the_file_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..20_000).map(|n| event(n) + "\n").collect();
    let path = write(&folder, "a.ndjson", text.as_bytes());
    let (feed, out) = feed("file", 1);
    let receiver = start(FileSource::new(&path), &Offsets::new(), feed).unwrap();
    let started = std::time::Instant::now();
    while receiver.status().state != State::Paused {
        assert!(started.elapsed() < std::time::Duration::from_secs(5));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let all: Vec<_> = collect(&out, 20_000).iter().flat_map(rows).collect();
    assert_eq!(all, (0..20_000).map(|n| (n + 1, n)).collect::<Vec<_>>());
    assert_eq!(receiver.join().state, State::Finished);
}
