//! Refused rows under the contracts of now: what is made of their payloads, and what stays as it was.

use std::sync::Arc;

use contracts::batch::{Partition, Reason, Refused};
use contracts::{Catalog, SourceFile};

use super::helper::{NOW, id, row};
use crate::decode::{Again, DecodeSpec, Decoder, Envelope, Format};

const CONTRACTS: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: order
version: 1.0.0
fields: { n: { type: int, required: true } }
---
apiVersion: streamgauge/v1
kind: Event
name: cdc.shop.public.stock
version: 1.0.0
changelog: true
key: sku
fields: { sku: { type: string }, left: { type: int, min: 0 } }
"#;

fn catalog() -> Arc<Catalog> {
    let loaded = contracts::load(&[SourceFile::new("c.yaml", CONTRACTS)]);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    Arc::new(loaded.catalog)
}

fn refused(payload: &str, event_type: Option<&str>, code: &str) -> Refused {
    Refused {
        partition: Partition { source: "s".into(), topic: "shop.public.stock".into(), number: 3 },
        offset: 77,
        part: 2,
        received: NOW,
        event_type: event_type.map(str::to_owned),
        event_id: None,
        payload: payload.to_owned().into(),
        headers: Vec::new(),
        reasons: vec![Reason { code: code.to_owned(), path: String::new(), message: "then".to_owned() }],
    }
}

/// `id: columns` of an admitted row, or the codes of the reasons.
fn again(spec: DecodeSpec, row_of: Refused) -> String {
    let mut decoder = Decoder::new(catalog(), spec);
    match decoder.again(row_of) {
        Again::Taken(batch) => {
            assert_eq!((batch.offsets[0], batch.parts[0], batch.received[0]), (77, 2, NOW));
            format!("{}: {}", id(&batch, 0).unwrap_or("-"), row(&batch, 0))
        }
        Again::Refused(row) => {
            assert_eq!((row.offset, row.part), (77, 2));
            let codes: Vec<&str> = row.reasons.iter().map(|reason| reason.code.as_str()).collect();
            format!("refused {}", codes.join(" "))
        }
    }
}

fn json() -> DecodeSpec {
    let path = |name: &str| Some(vec![name.to_owned()]);
    let envelope =
        Envelope { id: path("id"), event_type: path("type"), time: path("time"), ..Envelope::default() };
    DecodeSpec { envelope, op: path("op"), ..DecodeSpec::default() }
}

const ORDER: &str = r#"{"type":"order","id":"a","time":"2025-12-31T00:00:00Z","n":5}"#;
const STOCK: &str = r#"{"type":"cdc.shop.public.stock","time":"2025-12-31T00:00:00Z","sku":"k","left":5}"#;

#[test]
fn json_beside_change_streams_is_decoded_again() {
    assert_eq!(again(json(), refused(ORDER, None, "unknown_event_type")), "a: n=5 time=1767139200000000");
    let wrong = ORDER.replace("\"n\":5", "\"n\":\"x\"");
    assert_eq!(again(json(), refused(&wrong, None, "min")), "refused wrong_type");
    let two = format!("[{ORDER},{ORDER}]");
    assert_eq!(again(json(), refused(&two, None, "then")), "refused then");
    assert_eq!(again(json(), refused("", None, "then")), "refused then");
}

#[test]
fn versions_of_rows_are_taken_unless_their_ends_were_passed_over() {
    let known = refused(STOCK, Some("cdc.shop.public.stock"), "max");
    assert!(again(json(), known).starts_with("k: sku=k left=5"));
    assert_eq!(again(json(), refused(STOCK, None, "unknown_event_type")), "refused unknown_event_type");
    let debezium = DecodeSpec { format: Format::Debezium, ..DecodeSpec::default() };
    let change = r#"{"before":null,"after":{"sku":"k","left":5},"source":{"ts_ms":1},"op":"c","ts_ms":1}"#;
    let then = || refused(change, Some("cdc.shop.public.stock"), "unknown_event_type");
    assert!(again(debezium.clone(), then()).starts_with("k: sku=k left=5"));
    // Of rows that come flattened a tombstone is the only end.
    let flat = refused(r#"{"sku":"k","left":5}"#, None, "unknown_event_type");
    assert_eq!(again(debezium.clone(), flat), "refused unknown_event_type");
    // Only its key said which row was gone, and that is not kept.
    let gone =
        refused(r#"{"before":null,"after":null,"source":{"ts_ms":1},"op":"d","ts_ms":1}"#, None, "then");
    assert_eq!(again(debezium, gone), "refused then");
}

#[test]
fn records_of_a_registry_that_had_been_read_are_decoded_again() {
    let avro = || DecodeSpec { format: Format::Avro, ..json() };
    let mut order = refused(ORDER, Some("order"), "max");
    order.partition.topic = "orders".into();
    assert!(again(avro(), order).starts_with("a: n=5"));
    let change = r#"{"before":null,"after":{"sku":"k","left":5},"source":{"ts_ms":1},"op":"u","ts_ms":1}"#;
    assert!(
        again(avro(), refused(change, Some("cdc.shop.public.stock"), "min")).starts_with("k: sku=k left=5")
    );
    // The bytes that no schema could be found for: no registry here, either.
    let raw = Refused { payload: vec![0, 0, 0, 0, 9, 1].into(), ..refused("", None, "unknown_schema") };
    assert_eq!(again(avro(), raw), "refused unknown_schema");
}
