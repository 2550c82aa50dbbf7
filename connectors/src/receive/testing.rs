//! What the tests of several receivers share.

use std::sync::Arc;
use std::time::Duration;

use contracts::batch::Chunk;
use contracts::{Catalog, SourceFile};
use crossbeam_channel::Receiver as Chunks;

use super::{Clock, Feed};
use crate::decode::{DecodeSpec, Envelope};

const CONTRACTS: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: reading
version: 1.0.0
fields:
  n: { type: int, required: true }
  place: { type: string }
"#;

pub(crate) fn catalog() -> Arc<Catalog> {
    let loaded = contracts::load(&[SourceFile::new("reading.yaml", CONTRACTS)]);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    Arc::new(loaded.catalog)
}

/// One hour into 2026.
pub(crate) const NOW: i64 = 1_767_225_600_000_000 + 3_600_000_000;

pub(crate) fn feed(source: &str, room: usize) -> (Feed, Chunks<Chunk>) {
    let path = |name: &str| Some(vec![name.to_owned()]);
    let envelope = Envelope { id: path("id"), event_type: None, time: path("at"), tenant: None };
    let decode = DecodeSpec { envelope, fixed_type: Some("reading".into()), ..DecodeSpec::default() };
    let (chunks, out) = crossbeam_channel::bounded(room);
    let clock: Clock = Arc::new(|| NOW);
    (Feed { source: source.into(), catalog: catalog(), decode, chunks, clock }, out)
}

/// `{"id": ..., "at": ..., "n": n}`.
pub(crate) fn event(n: i64) -> String {
    format!(r#"{{"id":"e{n}","at":"2026-01-01T00:30:00Z","n":{n}}}"#)
}

/// The `n` of all rows, with their offsets.
pub(crate) fn rows(chunk: &Chunk) -> Vec<(i64, i64)> {
    use arrow::array::AsArray;
    let mut out = Vec::new();
    for batch in &chunk.batches {
        let n = batch.columns.column_by_name("n").unwrap();
        let n = n.as_primitive::<arrow::datatypes::Int64Type>();
        out.extend(batch.offsets.iter().copied().zip(n.values().iter().copied()));
    }
    out
}

/// Takes chunks until `count` rows, refused ones included, have come; those that only say where a partition
/// stands are passed over.
pub(crate) fn collect(chunks: &Chunks<Chunk>, count: u64) -> Vec<Chunk> {
    let (mut out, mut have) = (Vec::new(), 0);
    while have < count {
        let chunk = chunks.recv_timeout(Duration::from_secs(10)).expect("more chunks within 10 s");
        have += chunk.received;
        if chunk.received > 0 {
            out.push(chunk);
        }
    }
    out
}
