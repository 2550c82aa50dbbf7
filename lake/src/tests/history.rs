//! What the lake gives back is what was put in, whatever was done to its files.

use contracts::batch::{Change, ChangeOp};

use super::*;
use crate::history::{LakeReader, Slice};

const STREAM: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: cdc.stock
version: 1.0.0
changelog: true
key: sku
fields: { sku: { type: string }, pieces: { type: int } }
"#;

/// All slices of a partition between two offsets.
fn read(
    config: &LakeConfig,
    contracts: &Arc<Catalog>,
    partition: &Partition,
    from: i64,
    until: i64,
) -> Vec<Slice> {
    let mut reader = LakeReader::open(config, Arc::clone(contracts)).unwrap();
    reader.look().unwrap();
    let (mut slices, mut next) = (Vec::new(), from);
    while next < until {
        let slice = reader.slice(partition, next, until).unwrap();
        assert!(slice.next > next && slice.next <= until, "{} after {next}", slice.next);
        let places = slice.batches.iter().flat_map(|batch| &batch.offsets);
        let mut places = places.chain(slice.refused.iter().map(|row| &row.offset));
        assert!(places.all(|offset| (next..slice.next).contains(offset)));
        next = slice.next;
        slices.push(slice);
    }
    slices
}

/// The same on a thread of its own: a runtime within a runtime is not allowed.
pub(super) async fn slices(
    config: &LakeConfig,
    contracts: &Arc<Catalog>,
    partition: Partition,
    from: i64,
    until: i64,
) -> Vec<Slice> {
    let (config, contracts) = (config.clone(), Arc::clone(contracts));
    let read = move || read(&config, &contracts, &partition, from, until);
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// Batches as texts, row by row.
pub(super) fn texts<'a>(batches: impl IntoIterator<Item = &'a EventBatch>) -> Vec<String> {
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    let options = FormatOptions::default().with_null("null");
    let mut all = Vec::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        let ids = ArrayFormatter::try_new(&batch.ids, &options).unwrap();
        for row in 0..batch.columns.num_rows() {
            let cells: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            let change = batch.changes.as_ref().map(|changes| changes[row]);
            let place = (batch.event, batch.offsets[row], batch.parts[row], batch.received[row]);
            all.push(format!("{place:?} {} {change:?} {}", ids.value(row), cells.join(" | ")));
        }
    }
    all
}

pub(super) fn refused(rows: &[Refused]) -> Vec<String> {
    rows.iter().map(|row| serde_json::to_string(row).unwrap()).collect()
}

#[tokio::test]
async fn a_partition_comes_back_as_it_was_offered() {
    let home = Home::new(None);
    let config = home.fresh();
    let contracts = contracts(CONTRACT);
    let care = Care { least: 4, ..Care::default() };
    let config = LakeConfig { care, ..config };
    let mut lake = Lake::open(config.clone(), &contracts).await.unwrap();
    for n in 0..12 {
        lake.feed(&contracts, tick(&contracts, 0, n * 10, n * 10 + 10));
        lake.feed(&contracts, tick(&contracts, 1, n * 100, n * 100 + 100));
        lake.round().await.unwrap();
        if n == 8 {
            assert!(lake.care().await.compacted.0 > 0);
        }
    }
    for (number, from, until) in [(0, 0, 120), (1, 0, 1200), (1, 333, 777), (2, 0, 50)] {
        let wanted = match number {
            2 => Fed::default(),
            number => tick(&contracts, number, from, until),
        };
        let got = slices(&config, &contracts, partition(number), from, until).await;
        assert!(number == 2 || got.len() > 4, "{} slices", got.len());
        let batches = || got.iter().flat_map(|slice| &slice.batches);
        assert_eq!(texts(batches()), texts(wanted.admitted.iter().map(|(_, batch)| batch)));
        let schema = &contracts.events[0].decoded;
        assert!(batches().all(|batch| batch.columns.schema() == *schema));
        assert!(batches().all(|batch| batch.payloads.ranges.len() == batch.offsets.len()));
        let got: Vec<String> = got.iter().flat_map(|slice| refused(&slice.refused)).collect();
        assert_eq!(got, refused(&wanted.refused));
    }
}

#[tokio::test]
async fn rows_of_an_older_contract_have_nulls_for_what_is_new() {
    let home = Home::new(None);
    let config = home.fresh();
    let before = contracts(CONTRACT);
    let mut lake = Lake::open(config.clone(), &before).await.unwrap();
    lake.feed(&before, tick(&before, 0, 0, 10));
    lake.round().await.unwrap();
    let more = CONTRACT
        .replace("  n: { type: int }\n", "  n: { type: int }\n  note: { type: string }\n")
        .replace("quantity: { type: int }", "quantity: { type: int }, price: { type: \"decimal(9,2)\" }");
    let after = contracts(&more);
    lake.declare(&after).await.unwrap();
    // Before anything is committed with the new columns, and after.
    let got = slices(&config, &after, partition(0), 0, 10).await;
    let batches = got.iter().flat_map(|slice| &slice.batches);
    assert_eq!(texts(batches), texts(tick(&after, 0, 0, 10).admitted.iter().map(|(_, batch)| batch)));
    lake.feed(&after, tick(&after, 0, 10, 20));
    lake.round().await.unwrap();
    let got = slices(&config, &after, partition(0), 0, 20).await;
    // As if the events had come only now: none of them has the new fields.
    let wanted = tick(&after, 0, 0, 20);
    let batches = got.iter().flat_map(|slice| &slice.batches);
    assert_eq!(texts(batches), texts(wanted.admitted.iter().map(|(_, batch)| batch)));
    // A field that is gone is not asked for.
    let less = contracts(&CONTRACT.replace("  ratio: { type: float }\n", ""));
    let got = slices(&config, &less, partition(0), 0, 20).await;
    let wanted = tick(&less, 0, 0, 20);
    let batches = got.iter().flat_map(|slice| &slice.batches);
    assert_eq!(texts(batches), texts(wanted.admitted.iter().map(|(_, batch)| batch)));
}

#[tokio::test]
async fn files_older_than_a_nested_column_are_put_together_too() {
    let home = Home::new(None);
    let care = Care { least: 4, ..Care::default() };
    let config = LakeConfig { care, ..home.fresh() };
    let before = contracts(CONTRACT);
    let mut lake = Lake::open(config.clone(), &before).await.unwrap();
    for n in 0..6 {
        lake.feed(&before, tick(&before, 0, n * 10, n * 10 + 10));
        lake.round().await.unwrap();
    }
    let more = CONTRACT
        .replace("quantity: { type: int }", "quantity: { type: int }, price: { type: \"decimal(9,2)\" }");
    let after = contracts(&more);
    lake.declare(&after).await.unwrap();
    let cared = lake.care().await;
    assert!(cared.failures == 0 && cared.compacted.0 >= 4, "before a commit with the new column: {cared:?}");
    for n in 6..12 {
        lake.feed(&after, tick(&after, 0, n * 10, n * 10 + 10));
        lake.round().await.unwrap();
    }
    let again = lake.care().await;
    assert!(again.failures == 0 && again.compacted.0 >= cared.compacted.0 + 4, "{again:?}");
    scenarios::holds(&lake, &[(0, 120)]).await;
    let got = slices(&config, &after, partition(0), 0, 120).await;
    let batches = got.iter().flat_map(|slice| &slice.batches);
    assert_eq!(texts(batches), texts(tick(&after, 0, 0, 120).admitted.iter().map(|(_, batch)| batch)));
}

#[tokio::test]
async fn change_streams_come_back_with_what_they_did() {
    let home = Home::new(None);
    let config = home.fresh();
    let contracts = contracts(STREAM);
    let mut lake = Lake::open(config.clone(), &contracts).await.unwrap();
    let path = |name: &str| Some(vec![name.to_owned()]);
    let envelope =
        Envelope { id: path("id"), event_type: path("type"), time: path("time"), ..Envelope::default() };
    let spec = DecodeSpec { envelope, op: path("op"), ..DecodeSpec::default() };
    let mut decoder = Decoder::new(Arc::clone(&contracts), spec);
    for (n, op) in ["c", "u", "d", "c", "t", "r"].iter().enumerate() {
        let text = format!(
            r#"{{"type":"cdc.stock","id":"{n}","time":"2026-11-01T00:00:0{n}Z","op":"{op}","sku":"s{}","pieces":{n}}}"#,
            n % 2
        );
        let (value, offset) = (text.as_bytes(), n as i64);
        decoder.push(Record { value, offset, received: 1_800_000_000_000_000 + offset, headers: &[] });
    }
    let chunk = decoder.finish(&partition(0), 6, None);
    assert!(chunk.refused.is_empty(), "{:?}", chunk.refused);
    let mut batch = chunk.batches[0].clone();
    // Committed at an instant of their own.
    let changes: &mut Vec<Change> = batch.changes.as_mut().unwrap();
    changes.iter_mut().enumerate().for_each(|(n, change)| change.at = 1_700_000_000_000_000 + n as i64);
    let kinds: Vec<ChangeOp> = changes.iter().map(|change| change.op).collect();
    assert!(kinds.contains(&ChangeOp::Delete) && kinds.contains(&ChangeOp::Truncate), "{kinds:?}");
    let offsets = Offsets(BTreeMap::from([(partition(0), 6)]));
    let admitted = vec![(partition(0), batch.clone())];
    lake.feed(&contracts, Fed { offsets, admitted, refused: Vec::new(), ..Fed::default() });
    lake.round().await.unwrap();
    let got = slices(&config, &contracts, partition(0), 0, 6).await;
    assert_eq!(texts(got.iter().flat_map(|slice| &slice.batches)), texts([&batch]));
}
