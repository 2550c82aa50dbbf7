//! The lake under faults: lost replies, zombies, rivals, rollbacks, restarts at any moment; and what other programs read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use contracts::batch::Chunk;
use contracts::text::SourceFile;
use futures::TryStreamExt;
use iceberg::{Catalog as Iceberg, Error, ErrorKind, Namespace, Result, TableCommit};
use parking_lot::Mutex;

use super::*;
use connectors::decode::{DecodeSpec, Decoder, Envelope, Record};

mod faulty;

use faulty::{Act, Faulty};

const CONTRACT: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: shop.order
version: 1.0.0
dedupe: 24h
fields:
  region: { type: string }
  amount: { type: "decimal(18,2)" }
  n: { type: int }
  ok: { type: bool }
  ratio: { type: float }
  day: { type: date }
  items:
    type: list
    fields: { product: { type: string }, quantity: { type: int } }
"#;

fn contracts(text: &str) -> Arc<Catalog> {
    let loaded = contracts::load(&[SourceFile::new("c.yaml", text)]);
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    Arc::new(loaded.catalog)
}

fn partition(number: i32) -> Partition {
    Partition { source: "orders".into(), topic: "orders.raw".into(), number }
}

/// Rows `from..to` of partition `number`; each eleventh is refused.
fn tick(contracts: &Arc<Catalog>, number: i32, from: i64, to: i64) -> Fed {
    let path = |name: &str| Some(vec![name.to_owned()]);
    let envelope =
        Envelope { id: path("id"), event_type: path("type"), time: path("time"), ..Envelope::default() };
    let spec = DecodeSpec { envelope, ..DecodeSpec::default() };
    let mut decoder = Decoder::new(Arc::clone(contracts), spec);
    for n in from..to {
        let wrong = if n % 11 == 10 { r#""n":"many""# } else { r#""ok":true"# };
        let day = 1 + n / 10 % 3;
        let text = format!(
            r#"{{"type":"shop.order","id":"{number}-{n}","time":"2026-11-{day:02}T10:00:00Z","region":"eu","amount":"{n}.25",
            "n":{n},"ratio":0.5,"day":"2026-11-{day:02}","items":[{{"product":"p{n}","quantity":{n}}}],{wrong}}}"#
        );
        let value = text.as_bytes();
        decoder.push(Record { value, offset: n, received: 1_800_000_000_000_000 + n, headers: &[] });
    }
    let partition = partition(number);
    let Chunk { batches, refused, .. } = decoder.finish(&partition, to, None);
    let admitted = batches.into_iter().map(|batch| (partition.clone(), batch)).collect();
    Fed { offsets: Offsets(BTreeMap::from([(partition, to)])), admitted, refused, state: None }
}

fn config(dir: &std::path::Path) -> LakeConfig {
    LakeConfig {
        catalog: CatalogKind::Sqlite(dir.join("new/catalog.db")),
        warehouse: dir.join("lake").display().to_string(),
        namespace: "streamgauge".to_owned(),
        buckets: 2,
        commit_every: Duration::from_millis(50),
        commit_bytes: 1 << 20,
        most_bytes: 1 << 30,
        care: Care { every: Duration::ZERO, ..Care::default() },
    }
}

/// (partition, offset) of all rows of a table, as the iceberg crate reads them.
async fn rows(lake: &Lake, table: &str) -> Vec<(i32, i64)> {
    let Some(table) = lake.load(table).await.unwrap() else { return Vec::new() };
    let scan = table.scan().select(["_topic_partition", "_offset"]).build().unwrap();
    let batches: Vec<_> = scan.to_arrow().await.unwrap().try_collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in batches {
        use arrow::array::AsArray;
        use arrow::datatypes::{Int32Type, Int64Type};
        let numbers = batch.column(0).as_primitive::<Int32Type>();
        let offsets = batch.column(1).as_primitive::<Int64Type>();
        rows.extend(numbers.values().iter().copied().zip(offsets.values().iter().copied()));
    }
    rows.sort_unstable();
    rows
}

async fn holds(lake: &Lake, until: &[(i32, i64)]) {
    let all = || until.iter().flat_map(|(number, to)| (0..*to).map(|n| (*number, n)));
    assert_eq!(rows(lake, "shop_order").await, all().filter(|(_, n)| n % 11 != 10).collect::<Vec<_>>());
    assert_eq!(rows(lake, REFUSED).await, all().filter(|(_, n)| n % 11 == 10).collect::<Vec<_>>());
}

#[tokio::test]
async fn rows_come_once_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let contracts = contracts(CONTRACT);
    let mut lake = Lake::open(config(dir.path()), &contracts).await.unwrap();
    assert_eq!(*lake.complete(), Offsets::default());
    lake.feed(&contracts, tick(&contracts, 0, 0, 30));
    assert_eq!(lake.round().await.unwrap(), 30);
    lake.feed(&contracts, tick(&contracts, 1, 0, 12));
    lake.feed(&contracts, tick(&contracts, 0, 30, 40));
    assert_eq!(lake.round().await.unwrap(), 22);
    holds(&lake, &[(0, 40), (1, 12)]).await;
    // Everything is read again from the beginning, and a little more.
    let mut lake = Lake::open(config(dir.path()), &contracts).await.unwrap();
    assert_eq!(lake.complete().to_text(), r#"{"orders":{"orders.raw":{"0":40,"1":12}}}"#);
    lake.feed(&contracts, tick(&contracts, 0, 0, 50));
    lake.feed(&contracts, tick(&contracts, 1, 0, 13));
    assert_eq!(lake.round().await.unwrap(), 11);
    holds(&lake, &[(0, 50), (1, 13)]).await;
    assert_eq!(lake.round().await.unwrap(), 0, "nothing to do");
}

/// Engines of two contracts offer the same rows while one takes the place of the other.
#[tokio::test]
async fn what_is_offered_twice_comes_once() {
    let dir = tempfile::tempdir().unwrap();
    let contracts = contracts(CONTRACT);
    let mut lake = Lake::open(config(dir.path()), &contracts).await.unwrap();
    lake.feed(&contracts, tick(&contracts, 0, 0, 30));
    lake.feed(&contracts, tick(&contracts, 0, 0, 20));
    lake.feed(&contracts, tick(&contracts, 0, 20, 40));
    assert_eq!(lake.waiting().1, 40);
    assert_eq!(lake.round().await.unwrap(), 40);
    assert_eq!(lake.waiting(), (0, 0));
    holds(&lake, &[(0, 40)]).await;
}

#[tokio::test]
async fn a_lost_reply_is_looked_up() {
    let dir = tempfile::tempdir().unwrap();
    let contracts = contracts(CONTRACT);
    let mut lake = Lake::open(config(dir.path()), &contracts).await.unwrap();
    let faulty = Faulty::put(&mut lake);
    for n in 0..12 {
        lake.feed(&contracts, tick(&contracts, 0, n * 20, n * 20 + 20));
        // Of both tables' commits, some are not done, some are done and not told.
        faulty.next(match n % 4 {
            0 => vec![],
            1 => vec![Act::LoseReply],
            2 => vec![Act::Refuse, Act::Pass, Act::LoseReply],
            _ => vec![Act::Pass, Act::Refuse],
        });
        let mut tries = 0;
        while let Err(error) = lake.round().await {
            assert!(error.is_passing(), "{error}");
            tries += 1;
            assert!(tries < 5, "{error}");
        }
    }
    holds(&lake, &[(0, 240)]).await;
}

#[tokio::test]
async fn a_zombie_lands_or_we_do() {
    let contracts = contracts(CONTRACT);
    for lands_first in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Lake::open(config(dir.path()), &contracts).await.unwrap();
        first.feed(&contracts, tick(&contracts, 0, 0, 10));
        first.round().await.unwrap();
        let held = Faulty::put(&mut first);
        held.next(vec![Act::Hold]);
        first.feed(&contracts, tick(&contracts, 0, 10, 20));
        // It dies with its request on the way.
        first.round().await.unwrap_err();
        if lands_first {
            held.release().await.unwrap();
        }
        // Whoever comes next finishes what was planned, or finds that it is done.
        let mut second = Lake::open(config(dir.path()), &contracts).await.unwrap();
        holds(&second, &[(0, 20)]).await;
        if !lands_first {
            held.release().await.unwrap_err();
        }
        second.feed(&contracts, tick(&contracts, 0, 0, 25));
        second.round().await.unwrap();
        holds(&second, &[(0, 25)]).await;
    }
}

#[tokio::test]
async fn of_two_writers_one_stops() {
    let dir = tempfile::tempdir().unwrap();
    let contracts = contracts(CONTRACT);
    let mut one = Lake::open(config(dir.path()), &contracts).await.unwrap();
    one.feed(&contracts, tick(&contracts, 0, 0, 10));
    one.round().await.unwrap();
    let mut two = Lake::open(config(dir.path()), &contracts).await.unwrap();
    one.feed(&contracts, tick(&contracts, 0, 10, 20));
    two.feed(&contracts, tick(&contracts, 0, 10, 15));
    one.round().await.unwrap();
    let fenced = two.round().await.unwrap_err();
    assert!(matches!(&fenced, LakeError::Fenced { .. }), "{fenced}");
    assert!(!fenced.is_passing());
    holds(&one, &[(0, 20)]).await;
    // Both on an empty lake: the one that is second with the first table stops, too.
    let dir = tempfile::tempdir().unwrap();
    let mut one = Lake::open(config(dir.path()), &contracts).await.unwrap();
    let mut two = Lake::open(config(dir.path()), &contracts).await.unwrap();
    one.feed(&contracts, tick(&contracts, 0, 0, 10));
    two.feed(&contracts, tick(&contracts, 0, 0, 20));
    two.round().await.unwrap();
    assert!(matches!(one.round().await.unwrap_err(), LakeError::Fenced { .. }));
    holds(&two, &[(0, 20)]).await;
}

#[tokio::test]
async fn four_writers_race() {
    let dir = tempfile::tempdir().unwrap();
    let contracts = contracts(CONTRACT);
    let mut fenced = 0;
    let mut at = 0;
    while at < 200 {
        let mut lakes = Vec::new();
        for _ in 0..4 {
            lakes.push(Lake::open(config(dir.path()), &contracts).await.unwrap());
        }
        let contracts = &contracts;
        let rounds = lakes.iter_mut().enumerate().map(|(index, lake)| async move {
            let done = lake.complete().next(&partition(0)).max(0);
            lake.feed(contracts, tick(contracts, 0, done, done + 5 + index as i64));
            lake.round().await
        });
        let outcomes = futures::future::join_all(rounds).await;
        fenced += outcomes.iter().filter(|one| one.is_err()).count();
        let lake = Lake::open(config(dir.path()), contracts).await.unwrap();
        at = lake.complete().next(&partition(0));
        holds(&lake, &[(0, at)]).await;
    }
    assert!(fenced > 0, "nobody raced");
}

#[tokio::test]
async fn a_rollback_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let contracts = contracts(CONTRACT);
    let mut lake = Lake::open(config(dir.path()), &contracts).await.unwrap();
    for n in 0..3 {
        lake.feed(&contracts, tick(&contracts, 0, n * 5, n * 5 + 5));
        lake.round().await.unwrap();
    }
    // Somebody drops the table; then somebody registers an old state of it.
    let ident = lake.ident("shop_order");
    let table = lake.load("shop_order").await.unwrap().unwrap();
    let old = table.metadata().metadata_log()[1].metadata_file.clone();
    lake.catalog.drop_table(&ident).await.unwrap();
    let gone = Lake::open(config(dir.path()), &contracts).await.unwrap_err();
    assert!(matches!(gone, LakeError::RolledBack { .. }), "{gone}");
    lake.catalog.register_table(&ident, old).await.unwrap();
    let older = Lake::open(config(dir.path()), &contracts).await.unwrap_err();
    assert!(older.to_string().starts_with("lake_rollback_detected: shop_order"), "{older}");
    lake.feed(&contracts, tick(&contracts, 0, 15, 20));
    let running = lake.round().await.unwrap_err();
    assert!(matches!(running, LakeError::RolledBack { .. }), "{running}");
}

#[tokio::test]
async fn contracts_grow() {
    let dir = tempfile::tempdir().unwrap();
    let before = contracts(CONTRACT);
    let mut lake = Lake::open(config(dir.path()), &before).await.unwrap();
    lake.feed(&before, tick(&before, 0, 0, 10));
    lake.round().await.unwrap();
    let more = CONTRACT
        .replace("  n: { type: int }\n", "  n: { type: int }\n  note: { type: string }\n")
        .replace("quantity: { type: int }", "quantity: { type: int }, price: { type: \"decimal(9,2)\" }");
    let after = contracts(&more);
    lake.declare(&after).await.unwrap();
    lake.feed(&after, tick(&after, 0, 10, 20));
    lake.round().await.unwrap();
    holds(&lake, &[(0, 20)]).await;
    let table = lake.load("shop_order").await.unwrap().unwrap();
    let schema = table.metadata().current_schema();
    assert!(schema.field_by_name("note").is_some() && schema.field_by_name("items.element.price").is_some());
    // The crate's reader cannot read old files with all columns once a nested one was added; PyIceberg can.
    let scan = table.scan().select(["note"]).build().unwrap();
    let batches: Vec<_> = scan.to_arrow().await.unwrap().try_collect().await.unwrap();
    assert!(batches.iter().all(|batch| batch.column_by_name("note").unwrap().null_count() > 0));
    // An older process goes on beside it with the columns it knows.
    let other = contracts(&CONTRACT.replace("n: { type: int }", "n: { type: string }"));
    let conflict = lake.declare(&other).await.unwrap_err();
    assert_eq!(
        conflict.to_string(),
        "lake_schema_conflict: shop_order.n is `long` in the lake and `string` in the contract; give the field \
         another name (`from:` keeps the place in the payload), or move the table away"
    );
    let taken = contracts(&CONTRACT.replace("ratio:", "_offset:"));
    let taken = Lake::open(config(&dir.path().join("other")), &taken).await.unwrap_err();
    assert!(matches!(taken, LakeError::Taken { .. }), "{taken}");
}

#[tokio::test]
async fn care_changes_files_and_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let contracts = contracts(CONTRACT);
    let care =
        Care { least: 4, keep: 2, snapshots: Duration::ZERO, orphans: Duration::ZERO, ..Care::default() };
    let config = LakeConfig { care, ..config(dir.path()) };
    let mut lake = Lake::open(config.clone(), &contracts).await.unwrap();
    for n in 0..20 {
        lake.feed(&contracts, tick(&contracts, 0, n * 10, n * 10 + 10));
        lake.round().await.unwrap();
    }
    let place = lake.place.clone();
    let before = place.list("streamgauge/shop_order/data").await.unwrap().len();
    place.put("streamgauge/shop_order/data/orphan.parquet", "x".into()).await.unwrap();
    let cared = lake.care().await;
    assert_eq!(cared.failures, 0, "{cared:?}");
    assert!(
        cared.compacted.0 >= 20 && cared.compacted.1 < 10 && cared.expired > 0 && cared.removed > 20,
        "{cared:?}"
    );
    holds(&lake, &[(0, 200)]).await;
    let after = place.list("streamgauge/shop_order/data").await.unwrap().len();
    assert!(after < before / 2, "{before} files, {after} after");
    // The next round goes on behind it; so does one that begins anew, and care finds nothing twice.
    lake.feed(&contracts, tick(&contracts, 0, 200, 210));
    lake.round().await.unwrap();
    let mut lake = Lake::open(config, &contracts).await.unwrap();
    lake.feed(&contracts, tick(&contracts, 0, 0, 220));
    lake.round().await.unwrap();
    lake.care().await;
    holds(&lake, &[(0, 220)]).await;
}

#[test]
fn the_thread_commits_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let contracts = contracts(CONTRACT);
    let writer = LakeWriter::start(config(dir.path()), Arc::clone(&contracts)).unwrap();
    let mut end = Offsets::default();
    for n in 0..20 {
        let fed = tick(&contracts, 0, n * 10, n * 10 + 10);
        end = fed.offsets.clone();
        writer.offer(&contracts, fed);
    }
    assert!(writer.wait_for(&end, Duration::from_secs(30)), "{:?}", writer.status());
    let status = writer.status();
    assert_eq!((status.rows, status.waiting_rows, status.trouble), (200, 0, None));
    writer.offer(&contracts, tick(&contracts, 0, 200, 210));
    drop(writer);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let lake = Lake::open(config(dir.path()), &contracts).await.unwrap();
        holds(&lake, &[(0, 210)]).await;
    });
}
