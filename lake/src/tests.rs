//! The lake under faults: lost replies, zombies, rivals, rollbacks, restarts at any moment; and what other programs read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use contracts::batch::{Chunk, Decided};
use contracts::text::SourceFile;
use iceberg::{Catalog as Iceberg, Error, ErrorKind, Namespace, Result, TableCommit};
use parking_lot::Mutex;

use super::*;
use connectors::decode::{DecodeSpec, Decoder, Envelope, Record};

mod decided;
mod faulty;
mod history;
mod proxy;
mod real;
mod recheck;
mod scenarios;

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
    Fed { offsets: Offsets(BTreeMap::from([(partition, to)])), admitted, refused, ..Fed::default() }
}

/// Where the lakes of a test are.
#[derive(Debug)]
struct Home {
    /// `None`: SQLite and files, a folder for each lake.
    real: Option<(CatalogKind, String)>,
    folder: tempfile::TempDir,
    made: AtomicU32,
}

impl Home {
    fn new(real: Option<(CatalogKind, String)>) -> Self {
        Self { real, folder: tempfile::tempdir().unwrap(), made: AtomicU32::new(0) }
    }

    /// A lake that nobody has used.
    fn fresh(&self) -> LakeConfig {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.path().join(number.to_string());
        let here = || {
            (CatalogKind::Sqlite(folder.join("new/catalog.db")), folder.join("lake").display().to_string())
        };
        let (catalog, warehouse) = self.real.clone().unwrap_or_else(here);
        LakeConfig {
            catalog,
            warehouse,
            namespace: match self.real {
                Some(_) => format!("n{}", Uuid::new_v4().simple()),
                None => "streamgauge".to_owned(),
            },
            buckets: 2,
            commit_every: Duration::from_millis(50),
            commit_bytes: 1 << 20,
            most_bytes: 1 << 30,
            care: Care { every: Duration::ZERO, ..Care::default() },
        }
    }
}

/// `TIMES=n`: so many times as often.
fn times(often: i64) -> i64 {
    often * std::env::var("TIMES").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                scenarios::$name(&Home::new(None)).await;
            }
        )*

        /// All of them, one after the other.
        async fn all(home: &Home) {
            $(
                eprintln!("  {}", stringify!($name));
                scenarios::$name(home).await;
            )*
        }
    };
}

scenarios! {
    rows_come_once_over_restarts
    what_is_offered_twice_comes_once
    a_lost_reply_is_looked_up
    a_zombie_lands_or_we_do
    of_two_writers_one_stops
    four_writers_race
    a_rollback_is_seen
    contracts_grow
    care_changes_files_and_no_row
}

#[test]
fn the_thread_commits_by_itself() {
    let home = Home::new(None);
    let config = home.fresh();
    let contracts = contracts(CONTRACT);
    let writer = LakeWriter::start(config.clone(), Arc::clone(&contracts)).unwrap();
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
        let lake = Lake::open(config.clone(), &contracts).await.unwrap();
        scenarios::holds(&lake, &[(0, 210)]).await;
    });
}
