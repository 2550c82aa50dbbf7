//! The store of kept events, small.

use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use contracts::batch::{Change, ChangeOp, EventBatch, Partition, Payloads};

use super::*;

fn kept(event: usize, tick: u64, first: i64, rows: i64) -> Kept {
    let numbers: ArrayRef = Arc::new((first..first + rows).collect::<Int64Array>());
    let times = TimestampMicrosecondArray::from_iter_values(first..first + rows).with_timezone("UTC");
    let batch = EventBatch {
        event,
        columns: RecordBatch::try_from_iter([("n", numbers), ("time", Arc::new(times) as ArrayRef)]).unwrap(),
        ids: (first..first + rows).map(|n| Some(n.to_string())).collect::<StringArray>(),
        offsets: (first..first + rows).collect(),
        parts: vec![0; rows as usize],
        received: (first..first + rows).collect(),
        payloads: Payloads::default(),
        changes: (event == 1)
            .then(|| (first..first + rows).map(|at| Change { op: ChangeOp::Delete, at }).collect()),
    };
    let partition = Partition { source: "push".into(), topic: "log".into(), number: 0 };
    Kept::new(tick, first, Arc::new(partition), batch)
}

fn limits(memory: usize, disk: u64) -> KeepLimits {
    KeepLimits { memory, disk, retain: BTreeMap::from([(0, i64::MAX), (1, i64::MAX)]) }
}

fn settled(store: &EventStore, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", store.size());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn numbers(found: &Found) -> Vec<i64> {
    let mut all: Vec<i64> = found.events.iter().flat_map(|kept| kept.batch.offsets.clone()).collect();
    all.sort_unstable();
    all
}

#[test]
fn a_tick_sees_no_later_one_and_nobody_keeps_what_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let store = EventStore::open(folder.path().join("events"), limits(1 << 20, 1 << 20)).unwrap();
    store.offer(1, 0, [kept(0, 1, 0, 3), kept(7, 1, 0, 3)].into_iter());
    store.offer(2, 0, std::iter::once(kept(0, 2, 3, 2)));
    assert_eq!(numbers(&store.read(&[0], 1, i64::MIN, 100).unwrap()), [0, 1, 2]);
    assert_eq!(numbers(&store.read(&[0, 7], 2, i64::MIN, 100).unwrap()), [0, 1, 2, 3, 4]);
    assert_eq!(numbers(&store.read(&[0], 2, 3, 100).unwrap()), [3, 4]);
    assert!(matches!(store.read(&[0], 2, i64::MIN, 4), Err(KeepError::TooMany { rows: 5, most: 4 })));
}

#[test]
fn what_memory_has_no_room_for_comes_back_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let store = EventStore::open(path.clone(), limits(60_000, 1 << 30)).unwrap();
    for tick in 0..200 {
        let event = (tick % 2) as usize;
        store.offer(tick, 0, std::iter::once(kept(event, tick, tick as i64 * 10, 10)));
        settled(&store, || store.size().1 <= 60_000);
    }
    assert!(store.size().2 > 0, "{:?}", store.size());
    let found = store.read(&[0, 1], 200, i64::MIN, 10_000).unwrap();
    assert_eq!(found.gone, None);
    assert_eq!(numbers(&found), (0..2_000).collect::<Vec<i64>>());
    let changes = found.events.iter().filter(|kept| kept.batch.event == 1);
    for kept in changes {
        let changes = kept.batch.changes.as_ref().unwrap();
        assert!(changes.iter().zip(&kept.batch.offsets).all(|(change, at)| change.at == *at));
        assert!(changes.iter().all(|change| change.op == ChangeOp::Delete));
    }
    drop(found);
    drop(store);
    assert!(!path.exists());
}

#[test]
fn what_there_is_no_room_for_at_all_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let store = EventStore::open(folder.path().join("events"), limits(20_000, 1)).unwrap();
    for tick in 0..400 {
        store.offer(tick, 0, std::iter::once(kept(0, tick, tick as i64 * 10, 10)));
    }
    settled(&store, || store.size().2 <= 1 && store.size().1 <= 40_000);
    let found = store.read(&[0], 400, i64::MIN, 10_000).unwrap();
    let gone = found.gone.expect("some are gone");
    let there = numbers(&found);
    assert!(there.len() < 4_000 && there.first().is_some_and(|first| *first == gone + 1), "{gone} {there:?}");
}

#[test]
fn what_nobody_asks_about_any_more_expires() {
    let folder = tempfile::tempdir().unwrap();
    let keep = KeepLimits { memory: 10_000, disk: 1 << 30, retain: BTreeMap::from([(0, 1_000)]) };
    let store = EventStore::open(folder.path().join("events"), keep).unwrap();
    for tick in 0..300 {
        store.offer(tick, tick as i64 * 100, std::iter::once(kept(0, tick, tick as i64 * 100, 10)));
        settled(&store, || store.size().1 <= 10_000);
    }
    let found = store.read(&[0], 300, i64::MIN, 100_000).unwrap();
    assert_eq!(found.gone, None, "what expires is not missed");
    assert!(numbers(&found).first().is_some_and(|first| *first > 20_000), "{:?}", numbers(&found).first());
}
