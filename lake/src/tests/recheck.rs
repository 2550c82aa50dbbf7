//! Rows of the lake under contracts that have changed since: they are what decoding makes of their payloads now.

use connectors::decode::Again;

use super::history::{refused, slices, texts};
use super::*;

/// What everything was taken by.
const WIDE: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: shop.order
version: 1.0.0
dedupe: 24h
fields:
  region: { type: string }
  code: { type: string }
  amount: { type: "decimal(18,2)" }
  n: { type: int }
  ok: { type: bool }
  ratio: { type: float }
  at: { type: timestamp }
  day: { type: date }
  tags: { type: list, items: string }
  items:
    type: list
    fields: { product: { type: string }, quantity: { type: int } }
  address:
    type: struct
    fields: { city: { type: string }, zip: { type: string } }
"#;

/// What is asked now: checks of every kind, at the top and inside, defaults, another time and another id.
const NARROW: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: shop.order
version: 1.1.0
dedupe: 24h
time: at
id: code
fields:
  region: { type: string, enum: [eu, us], required: true }
  code: { type: string, pattern: "^[a-z]+-[0-9]+$", max_length: 6 }
  amount: { type: "decimal(18,2)", min: "10", max: "900.5", default: "12.00" }
  n: { type: int, min: 5, required: true }
  ok: { type: bool, required: true }
  ratio: { type: float, max: 0.8, pii: true }
  at: { type: timestamp, min: "2026-10-01T00:00:00Z" }
  day: { type: date, min: "2026-11-02" }
  tags: { type: list, items: { type: string, enum: [a, b] }, min_length: 1, max_length: 2 }
  items:
    type: list
    min_length: 1
    fields: { product: { type: string, required: true, min_length: 2 }, quantity: { type: int, max: 9 } }
  address:
    type: struct
    fields: { city: { type: string, required: true }, zip: { type: string, pattern: "^[0-9]{5}$" } }
  fresh: { type: string, default: new }
  more: { type: int }
"#;

fn spec() -> DecodeSpec {
    let path = |name: &str| Some(vec![name.to_owned()]);
    let envelope =
        Envelope { id: path("id"), event_type: path("type"), time: path("time"), ..Envelope::default() };
    DecodeSpec { envelope, op: path("op"), ..DecodeSpec::default() }
}

/// A drawn number below `most`.
fn draw(state: &mut u64, most: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % most
}

/// An event of which each field is often good, sometimes wrong for now, sometimes absent.
fn event(n: i64) -> String {
    let mut state = n as u64 + 1;
    let mut text = format!(r#"{{"type":"shop.order","id":"e{n}","time":"2026-11-05T10:00:00Z""#);
    let mut field = |name: &str, values: &[&str]| {
        // The first value twice as often; one in eight is absent.
        let at = draw(&mut state, values.len() as u64 * 2 + 2) as usize;
        let value = values.get(at.saturating_sub(2)).filter(|_| at != 1 || values.len() < 3);
        if let Some(value) = value {
            text += &format!(r#","{name}":{value}"#);
        }
    };
    field("region", &[r#""eu""#, r#""us""#, r#""moon""#]);
    field("code", &[r#""a-1""#, r#""b-22""#, r#""A-1""#, r#""toolong-1""#]);
    field("amount", &[r#""10.00""#, "900.50", "9.99", "900.51"]);
    field("n", &["5", "100", "4"]);
    field("ok", &["true", "false"]);
    field("ratio", &["0.8", "0.1", "0.9"]);
    field("at", &[r#""2026-11-05T09:00:00Z""#, r#""2026-09-01T00:00:00Z""#, r#""2049-01-01T00:00:00Z""#]);
    field("day", &[r#""2026-11-02""#, r#""2026-11-01""#]);
    field("tags", &[r#"["a"]"#, r#"["b","a"]"#, "[]", r#"["c"]"#, r#"["a","b","a"]"#]);
    field(
        "items",
        &[
            r#"[{"product":"pp","quantity":9}]"#,
            r#"[{"product":"pp"},{"product":"q","quantity":10}]"#,
            r#"[{"quantity":1}]"#,
            "[]",
        ],
    );
    field("address", &[r#"{"city":"x","zip":"12345"}"#, r#"{"zip":"1"}"#, r#"{"city":"x"}"#]);
    text + "}"
}

fn decoded(contracts: &Arc<Catalog>, events: &[String]) -> Chunk {
    let mut decoder = Decoder::new(Arc::clone(contracts), spec());
    for (n, text) in events.iter().enumerate() {
        let (value, offset) = (text.as_bytes(), n as i64);
        decoder.push(Record { value, offset, received: 1_800_000_000_000_000 + offset, headers: &[] });
    }
    decoder.finish(&partition(0), events.len() as i64, None)
}

/// Puts events into a lake under one contract, and takes them out under another.
async fn through_the_lake(
    before: &Arc<Catalog>,
    now: &Arc<Catalog>,
    events: &[String],
) -> (Vec<EventBatch>, Vec<Refused>) {
    let home = Home::new(None);
    let config = home.fresh();
    let mut lake = Lake::open(config.clone(), before).await.unwrap();
    let chunk = decoded(before, events);
    let end = events.len() as i64;
    let admitted = chunk.batches.into_iter().map(|batch| (partition(0), batch)).collect();
    let offsets = Offsets(BTreeMap::from([(partition(0), end)]));
    lake.feed(before, Fed { offsets, admitted, refused: chunk.refused, ..Fed::default() });
    lake.round().await.unwrap();
    lake.declare(now).await.unwrap();
    // Nothing was committed since the contract changed: the newest snapshot does not know its columns.
    let (mut taken, mut not) = (Vec::new(), Vec::new());
    let mut decoder = Decoder::new(Arc::clone(now), spec());
    for slice in slices(&config, now, partition(0), 0, end).await {
        for batch in slice.batches {
            let (batch, refused) = decoder.recheck(&partition(0), batch);
            taken.push(batch);
            not.extend(refused);
        }
        for row in slice.refused {
            match decoder.again(row) {
                Again::Taken(batch) => taken.push(batch),
                Again::Refused(row) => not.push(row),
            }
        }
    }
    (taken, not)
}

/// Without what the lake does not keep: payloads, and whether a field was absent or null.
fn shown(rows: &[Refused]) -> Vec<String> {
    let plain = |row: &Refused| {
        let mut row = Refused { payload: Default::default(), headers: Vec::new(), ..row.clone() };
        row.event_id = None;
        row
    };
    let mut all = refused(&rows.iter().map(plain).collect::<Vec<_>>());
    all.sort();
    all
}

fn sorted<'a>(batches: impl IntoIterator<Item = &'a EventBatch>) -> Vec<String> {
    let mut all = texts(batches);
    all.sort();
    all
}

#[tokio::test]
async fn rows_are_held_against_the_contract_of_now() {
    let (before, now) = (contracts(WIDE), contracts(NARROW));
    let events: Vec<String> = (0..3_000).map(event).collect();
    let (taken, not) = through_the_lake(&before, &now, &events).await;
    let wanted = decoded(&now, &events);
    let rows = |batches: &[EventBatch]| batches.iter().map(|b| b.columns.num_rows()).sum::<usize>();
    let codes: std::collections::BTreeSet<&str> =
        wanted.refused.iter().flat_map(|row| &row.reasons).map(|reason| reason.code.as_str()).collect();
    let all =
        ["max", "max_length", "min", "min_length", "missing", "not_in_enum", "pattern", "time_in_future"];
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), all);
    assert!(rows(&wanted.batches) > 20 && wanted.refused.len() > 1_000, "{} taken", rows(&wanted.batches));
    assert_eq!(shown(&not), shown(&wanted.refused));
    assert_eq!(sorted(&taken), sorted(&wanted.batches));
    assert!(taken.iter().all(|batch| batch.columns.schema() == now.events[0].decoded));
    assert!(not.iter().all(|row| row.event_type.as_deref() == Some("shop.order")));
    // The other way round: what was refused is in the lake with its payload, and is admitted.
    let (taken, not) = through_the_lake(&now, &before, &events).await;
    assert!(not.is_empty(), "{not:?}");
    let wanted = decoded(&before, &events);
    let ids = |batches: &[EventBatch]| {
        let mut all: Vec<i64> = batches.iter().flat_map(|batch| batch.offsets.clone()).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(ids(&taken), ids(&wanted.batches));
}

#[tokio::test]
async fn a_required_field_that_is_newer_than_the_rows_is_missing() {
    let before = contracts(WIDE);
    let now = contracts(&WIDE.replace("  ok: {", "  newer: { type: int, required: true }\n  ok: {"));
    let events: Vec<String> = (0..50).map(event).collect();
    let (taken, not) = through_the_lake(&before, &now, &events).await;
    assert_eq!(taken.iter().map(|batch| batch.columns.num_rows()).sum::<usize>(), 0);
    assert_eq!(shown(&not), shown(&decoded(&now, &events).refused));
    assert_eq!(not.len(), 50);
}

/// Versions of rows; a third of them ends one, and one in thirty all.
fn version(n: i64) -> String {
    let op = match n % 30 {
        29 => "t",
        m if m % 3 == 2 => "d",
        _ => "u",
    };
    let shelf = if n % 5 == 0 { String::new() } else { format!(r#","shelf":"s{}""#, n % 4) };
    format!(
        r#"{{"type":"cdc.stock","id":"{n}","time":"2026-11-01T00:00:{:02}Z","op":"{op}","sku":"k{}","pieces":{}{shelf}}}"#,
        n % 60,
        n % 7,
        n % 11,
    )
}

#[tokio::test]
async fn of_a_change_stream_ends_are_not_checked_and_keys_are() {
    let stream = |fields: &str| {
        contracts(&format!(
            "apiVersion: streamgauge/v1\nkind: Event\nname: cdc.stock\nversion: 1.0.0\nchangelog: true\n{fields}"
        ))
    };
    let before = stream(
        "key: sku\nfields: { sku: { type: string }, pieces: { type: int }, shelf: { type: string } }\n",
    );
    let now = stream(
        "key: sku\nfields: { sku: { type: string, enum: [k0, k1, k2, k3, k4, k5] }, pieces: { type: int, min: 2 }, \
         shelf: { type: string, default: none } }\n",
    );
    let events: Vec<String> = (0..400).map(version).collect();
    let (taken, not) = through_the_lake(&before, &now, &events).await;
    let wanted = decoded(&now, &events);
    assert!(wanted.refused.len() > 50 && wanted.batches[0].columns.num_rows() > 100);
    assert_eq!(shown(&not), shown(&wanted.refused));
    assert_eq!(sorted(&taken), sorted(&wanted.batches));
}
