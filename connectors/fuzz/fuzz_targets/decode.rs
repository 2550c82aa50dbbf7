//! Any bytes as records of any format.
//!
//! *In*: a byte that chooses the form, then the record. *Out*: nothing. *Never*: a panic, an event in two places or in
//! none, a record that serde_json and we do not both take for JSON, another answer the second time.
#![no_main]

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use connectors::decode::{DecodeSpec, Decoder, Envelope, Format, Record, csv_record_end};
use contracts::Catalog;
use contracts::batch::{Chunk, Partition};
use contracts::text::SourceFile;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// One field of each type.
static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(|| {
    let text = include_str!("../../../server/tests/malformed/contracts.yaml");
    let loaded = contracts::load(&[SourceFile::new("contracts.yaml", text)]);
    assert!(!loaded.has_errors());
    Arc::new(loaded.catalog)
});

/// When every record is received: 2026-01-01T00:00:00Z.
const NOW: i64 = 1_767_225_600_000_000;

fn spec(format: Format) -> DecodeSpec {
    let path = |key: &str| Some(vec![key.to_owned()]);
    let envelope = Envelope {
        id: path("event_id"),
        event_type: path("event_type"),
        time: path("timestamp"),
        tenant: path("tenant"),
    };
    DecodeSpec { format, envelope, max_record_bytes: 1 << 16, ..DecodeSpec::default() }
}

/// The chunk, after checking that every event of it is in one place.
fn finish(decoder: &mut Decoder) -> Chunk {
    let partition = Partition { source: "fuzz".into(), topic: "log".into(), number: 0 };
    let chunk = decoder.finish(&partition, 0, None);
    let rows: usize = chunk.batches.iter().map(|batch| batch.columns.num_rows()).sum();
    assert_eq!(chunk.received, rows as u64 + chunk.refused.len() as u64 + chunk.skipped);
    for batch in &chunk.batches {
        let rows = batch.columns.num_rows();
        assert!([batch.offsets.len(), batch.parts.len(), batch.received.len()].iter().all(|n| *n == rows));
        (0..rows).for_each(|row| drop(batch.payloads.get(row)));
    }
    assert!(chunk.refused.iter().all(|refused| !refused.reasons.is_empty()));
    chunk
}

/// What became of a chunk, as text.
fn outcome(chunk: &Chunk) -> String {
    let rows: Vec<_> = chunk.batches.iter().map(|b| (b.event, &b.columns, &b.ids, &b.parts)).collect();
    let refused: Vec<_> =
        chunk.refused.iter().map(|r| (&r.event_type, &r.event_id, &r.payload, &r.reasons, r.part)).collect();
    format!("{rows:?} {refused:?} {}", chunk.skipped)
}

/// The record alone, and again with the same decoder, which has seen its shape by then.
fn twice(decoder: &mut Decoder, value: &[u8], headers: &[(&str, &[u8])]) -> Chunk {
    let mut once = || {
        decoder.push(Record { value, offset: 7, received: NOW, headers });
        finish(decoder)
    };
    let (first, second) = (once(), once());
    assert_eq!(outcome(&first), outcome(&second));
    first
}

/// serde_json takes for JSON what we take for JSON.
fn agrees(chunk: &Chunk, value: &[u8]) {
    let broken = |r: &contracts::batch::Reason| r.code == "malformed_json" && r.path.is_empty();
    let refused = chunk.refused.iter().filter(|r| r.reasons.iter().any(broken)).count();
    match serde_json::from_slice::<Value>(value) {
        Err(_) if value.is_empty() => assert_eq!(chunk.skipped, 1),
        Err(error) => assert_eq!((chunk.received, refused), (1, 1), "{error}"),
        Ok(Value::Object(_)) => assert_eq!((chunk.received, refused), (1, 0)),
        Ok(Value::Array(items)) => {
            assert_eq!(chunk.received, items.len().max(1) as u64);
            assert_eq!(refused, items.iter().filter(|item| !item.is_object()).count());
        }
        Ok(_) => assert_eq!((chunk.received, refused), (1, 1)),
    }
}

/// `name: value` lines up to an empty one, then the record.
fn split_headers(input: &[u8]) -> (Vec<(&str, &[u8])>, &[u8]) {
    let mut rest = input;
    let mut headers = Vec::new();
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        headers.push((std::str::from_utf8(&line[..colon]).unwrap_or("ce-type"), value));
    }
    (headers, rest)
}

/// Lines of one shared buffer: each comes to what it comes to alone.
fn lines(input: &[u8], together: &mut Decoder, alone: &mut Decoder) {
    let buffer = Bytes::copy_from_slice(input);
    let (mut start, mut sum) = (0, [0, 0, 0]);
    together.share(&buffer);
    for line in input.split(|b| *b == b'\n') {
        together.push_shared(&buffer, start..start + line.len(), start as i64, NOW);
        start += line.len() + 1;
        alone.push(Record { value: line, offset: 0, received: NOW, headers: &[] });
        let chunk = finish(alone);
        sum = [sum[0] + chunk.received, sum[1] + chunk.refused.len() as u64, sum[2] + chunk.skipped];
    }
    let chunk = finish(together);
    assert_eq!([chunk.received, chunk.refused.len() as u64, chunk.skipped], sum);
}

thread_local! {
    // Kept from input to input: making one takes longer than all it decodes, and a decoder that lives long has seen
    // more shapes.
    static JSON: RefCell<Decoder> = RefCell::new(new(Format::Json));
    static CLOUD: RefCell<Decoder> = RefCell::new(new(Format::CloudEvents));
    static TOGETHER: RefCell<Decoder> = RefCell::new(new(Format::Json));
}

fn new(format: Format) -> Decoder {
    Decoder::new(CATALOG.clone(), spec(format))
}

fuzz_target!(|input: &[u8]| {
    let Some((form, input)) = input.split_first() else { return };
    match form % 5 {
        0 => JSON.with_borrow_mut(|json| agrees(&twice(json, input, &[]), input)),
        1 => CLOUD.with_borrow_mut(|cloud| drop(twice(cloud, input, &[]))),
        2 => {
            let (headers, value) = split_headers(input);
            JSON.with_borrow_mut(|json| drop(twice(json, value, &headers)));
        }
        3 => JSON.with_borrow_mut(|alone| TOGETHER.with_borrow_mut(|together| lines(input, together, alone))),
        _ => {
            let end = input.iter().position(|b| *b == b'\n').unwrap_or(input.len());
            let names: Vec<_> = input[..end].split(|b| *b == b',').map(String::from_utf8_lossy).collect();
            let Ok(mut decoder) = Decoder::csv(CATALOG.clone(), spec(Format::Csv), &names) else { return };
            let mut rest = input.get(end + 1..).unwrap_or_default();
            while !rest.is_empty() {
                let record = csv_record_end(rest).unwrap_or(rest.len());
                twice(&mut decoder, &rest[..record], &[]);
                rest = &rest[record..];
            }
        }
    }
});
