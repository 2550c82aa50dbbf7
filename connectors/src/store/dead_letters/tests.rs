//! What somebody who looks after refused events notices.

use std::sync::atomic::AtomicI64;

use super::*;

struct Bench {
    folder: tempfile::TempDir,
    now: Arc<AtomicI64>,
}

const HOUR: i64 = 3_600_000_000;

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), now: Arc::new(AtomicI64::new(1_000 * HOUR)) }
    }
    fn path(&self) -> PathBuf {
        self.folder.path().join("dead.redb")
    }
    fn open(&self, limits: Limits) -> DeadLetters {
        let now = self.now.clone();
        let clock: Clock = Arc::new(move || now.load(Ordering::Relaxed));
        DeadLetters::open(&self.path(), limits, clock).unwrap()
    }
}

fn row(source: &str, offset: i64, code: &str, payload: &str) -> Refused {
    let partition = Partition { source: source.into(), topic: "log".into(), number: 0 };
    let reason = Reason { code: code.into(), path: "a.b".into(), message: "is wrong".into() };
    Refused {
        partition,
        offset,
        part: 0,
        received: 999 * HOUR + offset,
        event_type: Some(format!("type.{}", offset % 2)),
        event_id: None,
        payload: payload.to_owned().into(),
        headers: vec![("ce-id".to_owned(), Bytes::from_static(b"\xff"))],
        reasons: vec![reason],
    }
}

fn offsets(letters: &DeadLetters, filter: &Filter) -> Vec<i64> {
    let (rows, total) = letters.list(filter, 1, 1000).unwrap();
    assert_eq!(rows.len() as u64, total);
    rows.iter().map(|r| r.offset).collect()
}

#[test]
fn rows_are_listed_newest_first_by_page_and_by_filter() {
    let bench = Bench::new();
    let letters = bench.open(Limits::default());
    letters.record((0..10).map(|i| row("push", i, if i < 3 { "missing" } else { "min" }, "{}")).collect());
    letters.record(vec![row("orders", 20, "min", "{}")]);
    letters.flush();
    assert_eq!(offsets(&letters, &Filter::default()), [20, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    let (page, total) = letters.list(&Filter::default(), 2, 4).unwrap();
    assert_eq!((page.iter().map(|r| r.offset).collect::<Vec<_>>(), total), (vec![6, 5, 4, 3], 11));
    let filter = Filter { reason: Some("missing".into()), ..Filter::default() };
    assert_eq!(offsets(&letters, &filter), [2, 1, 0]);
    let filter =
        Filter { event_type: Some("type.1".into()), source: Some("push".into()), ..Filter::default() };
    assert_eq!(offsets(&letters, &filter), [9, 7, 5, 3, 1]);
    let filter = Filter { reason: Some("unheard of".into()), ..Filter::default() };
    assert_eq!(letters.list(&filter, 1, 10).unwrap(), (vec![], 0));
}

#[test]
fn a_row_has_a_stable_id_and_its_payload() {
    let bench = Bench::new();
    let letters = bench.open(Limits::default());
    letters.record(vec![row("push", 7, "missing", "{\"a\":1}")]);
    letters.flush();
    let id = letters.list(&Filter::default(), 1, 1).unwrap().0[0].id.clone();
    drop(letters);
    let letters = bench.open(Limits::default());
    let letter = letters.get(&id).unwrap();
    assert_eq!(letter.payload.as_deref(), Some(&b"{\"a\":1}"[..]));
    assert_eq!((letter.offset, letter.payload_len, letter.status), (7, 7, Status::Failed));
    assert_eq!(letter.reasons[0].path, "a.b");
    assert_eq!(letter.headers, row("", 0, "", "").headers);
    for wrong in ["", "7", "dl_", "dl_zzzzzzzzzzzzzzzz", "dl_0000000000000000", "dl_+000000000000001"] {
        assert_eq!(letters.get(wrong), Err(DeadLetterError::Unknown(wrong.into())));
    }
}

#[test]
fn a_restart_neither_doubles_nor_reopens() {
    let bench = Bench::new();
    let rows: Vec<Refused> = (0..4).map(|i| row("push", i, "min", "{}")).collect();
    let letters = bench.open(Limits::default());
    letters.record(rows.clone());
    letters.record(rows.clone());
    letters.flush();
    let ids: Vec<String> =
        letters.list(&Filter::default(), 1, 9).unwrap().0.into_iter().map(|r| r.id).collect();
    assert_eq!(ids.len(), 4);
    let replayed = letters.mark_replayed(&ids[0], "corrected a.b").unwrap();
    assert_eq!((replayed.status, replayed.retry_count), (Status::Replayed, 1));
    assert_eq!(replayed.last_retried_at, Some(1_000 * HOUR));
    let still = letters.mark_still_refused(&ids[1], "min").unwrap();
    assert_eq!((still.status, still.retry_count), (Status::Failed, 1));
    assert_eq!(letters.dismiss(&ids[2]).unwrap().status, Status::Dismissed);
    drop(letters);
    let letters = bench.open(Limits::default());
    letters.record(rows);
    letters.flush();
    let (list, _) = letters.list(&Filter::default(), 1, 9).unwrap();
    let states: Vec<Status> = list.iter().map(|r| r.status).collect();
    assert_eq!(states, [Status::Replayed, Status::Failed, Status::Dismissed, Status::Failed]);
    assert_eq!(list[0].note.as_deref(), Some("corrected a.b"));
    let filter = Filter { status: Some(Status::Failed), ..Filter::default() };
    assert_eq!(offsets(&letters, &filter), [2, 0]);
}

#[test]
fn a_replaced_source_brings_new_rows_at_old_positions() {
    let bench = Bench::new();
    let letters = bench.open(Limits::default());
    letters.record(vec![row("push", 0, "min", "old")]);
    letters.flush();
    letters.record(vec![Refused { received: 999 * HOUR + 5, ..row("push", 0, "max", "new") }]);
    letters.flush();
    let (list, total) = letters.list(&Filter::default(), 1, 9).unwrap();
    assert_eq!((total, list[0].reasons[0].code.as_str()), (1, "max"));
    assert_eq!(letters.get(&list[0].id).unwrap().payload.as_deref(), Some(&b"new"[..]));
    assert_eq!(letters.stats().bytes, 3);
}

#[test]
fn limits_drop_the_oldest_for_good() {
    let bench = Bench::new();
    let limits = Limits { max_count: 3, ..Limits::default() };
    let rows: Vec<Refused> = (0..5).map(|i| row("push", i, "min", "{}")).collect();
    let letters = bench.open(limits);
    letters.record(rows[..4].to_vec());
    letters.flush();
    assert_eq!(offsets(&letters, &Filter::default()), [3, 2, 1]);
    letters.record(rows[4..].to_vec());
    letters.flush();
    assert_eq!(offsets(&letters, &Filter::default()), [4, 3, 2]);
    assert_eq!(letters.stats().dropped, 2);
    drop(letters);
    let letters = bench.open(limits);
    letters.record(rows); // read again after a restart
    letters.flush();
    assert_eq!(offsets(&letters, &Filter::default()), [4, 3, 2]);
    assert_eq!(letters.stats().dropped, 2);
    drop(letters);
    let letters = bench.open(Limits { max_bytes: 10, ..Limits::default() });
    letters.record(vec![row("push", 9, "min", "seven b")]);
    letters.flush();
    assert_eq!(offsets(&letters, &Filter::default()), [9, 4]);
    drop(letters);
    bench.now.store(1_100 * HOUR, Ordering::Relaxed);
    let letters = bench.open(Limits { max_age: Duration::from_secs(3600 * 50), ..Limits::default() });
    let fresh = Refused { received: 1_100 * HOUR, ..row("push", 10, "min", "") };
    letters.record(vec![fresh, row("push", 11, "min", "too old")]);
    letters.flush();
    assert_eq!(offsets(&letters, &Filter::default()), [10]);
}

#[test]
fn stats_count_by_status_reason_and_hour() {
    let bench = Bench::new();
    let letters = bench.open(Limits::default());
    let mut rows: Vec<Refused> = (0..3).map(|i| row("push", i, "min", "abc")).collect();
    rows[1].reasons.push(Reason { code: "missing".into(), path: String::new(), message: String::new() });
    rows[2].received = 900 * HOUR;
    letters.record(rows);
    letters.flush();
    let stats = letters.stats();
    assert_eq!((stats.total, stats.bytes, stats.last_24h), (3, 9, 2));
    assert_eq!(stats.by_reason.into_iter().collect::<Vec<_>>(), [("min".into(), 3), ("missing".into(), 1)]);
    assert_eq!(stats.by_status[&Status::Failed], 3);
    assert_eq!(stats.trend.len(), 24);
    assert_eq!(stats.trend[22], (999 * HOUR, 2));
    assert_eq!(stats.trend[23], (1_000 * HOUR, 0));
}

#[test]
fn it_is_on_disk_within_a_second_without_asking() {
    let bench = Bench::new();
    let letters = bench.open(Limits::default());
    letters.record(vec![row("push", 1, "min", "{}")]);
    let started = std::time::Instant::now();
    while letters.list(&Filter::default(), 1, 1).unwrap().1 == 0 {
        assert!(started.elapsed() < Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_second_opener_and_a_broken_file_are_named() {
    let bench = Bench::new();
    let letters = bench.open(Limits::default());
    let clock: Clock = Arc::new(|| 0);
    let error = DeadLetters::open(&bench.path(), Limits::default(), clock.clone()).unwrap_err();
    assert_eq!(error, DeadLetterError::Locked { path: bench.path() });
    drop(letters);
    std::fs::write(bench.path(), b"").unwrap();
    let error = DeadLetters::open(&bench.path(), Limits::default(), clock).unwrap_err();
    assert!(error.to_string().contains("cannot be read: the file is empty. Nothing was changed"), "{error}");
}
