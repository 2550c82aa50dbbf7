//! Change events as Debezium's connectors write them, against rows written by hand.

use std::sync::Arc;

use contracts::Catalog;
use contracts::batch::Chunk;
use contracts::catalog::{Event, Field};
use contracts::value::FieldType;

use super::helper::{FieldExt, NOW, event, field, id, money, partition, reasons, row, texts};
use crate::decode::{DebeziumSpec, Decimals, DecodeSpec, Decoder, Envelope, Format, Record, Unit};

const TOPIC: &str = "shop.public.orders";
/// 2025-12-31T23:00:00.123456Z
const AT: i64 = 1_767_222_000_123_456;

fn stream(name: &str, key: &str, time: Option<&str>, fields: Vec<Field>) -> Arc<Event> {
    let event = event(name, time, None, fields);
    Arc::new(Event { key: key.split(',').map(str::to_owned).collect(), changelog: true, ..(*event).clone() })
}

fn catalog() -> Arc<Catalog> {
    let status = contracts::catalog::Checks { one_of: texts(&["new", "paid"]), ..Default::default() };
    let orders = stream(
        "cdc.shop.public.orders",
        "id",
        None,
        vec![
            field("id", FieldType::Int).required(),
            field("status", FieldType::String).dictionary().checks(status),
            field("total", money()),
            field("placed", FieldType::Timestamp).at("placed_at"),
            field("due", FieldType::Date),
            field("vip", FieldType::Bool),
            field("note", FieldType::String),
            field("extra", FieldType::Json),
            field("prices", FieldType::List(Box::new(money()))),
        ],
    );
    let lines = stream(
        "cdc.inventory.lines",
        "sku",
        Some("shipped_at"),
        vec![
            field("sku", FieldType::String),
            field("shipped_at", FieldType::Timestamp),
            field("price", FieldType::Decimal { precision: 10, scale: 2 }),
        ],
    );
    let boxes = stream(
        "cdc.shop.public.boxes",
        "order_id,line",
        None,
        vec![
            field("order_id", FieldType::Int),
            field("line", FieldType::String),
            field("qty", FieldType::Int),
        ],
    );
    let plain = event("cdc.shop.public.plain", None, None, vec![field("id", FieldType::Int)]);
    Arc::new(Catalog { events: vec![lines, boxes, orders, plain], ..Catalog::default() })
}

fn spec() -> DecodeSpec {
    DecodeSpec { format: Format::Debezium, ..DecodeSpec::default() }
}

struct Feed {
    decoder: Decoder,
    offset: i64,
}

impl Feed {
    fn new(spec: DecodeSpec) -> Self {
        Self { decoder: Decoder::new(catalog(), spec), offset: 0 }
    }

    fn push(&mut self, topic: &str, key: Option<&str>, value: &str) -> &mut Self {
        let record = Record { value: value.as_bytes(), offset: self.offset, received: NOW, headers: &[] };
        self.decoder.push_keyed(record, topic, key.map(str::as_bytes));
        self.offset += 1;
        self
    }

    fn chunk(&mut self) -> Chunk {
        self.decoder.finish(&partition(), 0, None)
    }

    fn text(&mut self) -> String {
        shown(&self.chunk())
    }
}

/// `op key: columns @commit` of each row, then refusals and the number skipped.
fn shown(chunk: &Chunk) -> String {
    let rows: usize = chunk.batches.iter().map(|batch| batch.columns.num_rows()).sum();
    assert_eq!(chunk.received, rows as u64 + chunk.refused.len() as u64 + chunk.skipped);
    let mut lines = Vec::new();
    for batch in &chunk.batches {
        let changes = batch.changes.as_ref().expect("a change stream");
        assert_eq!(changes.len(), batch.columns.num_rows());
        for (i, change) in changes.iter().enumerate() {
            let op = format!("{:?}", change.op).to_lowercase();
            lines.push(format!("{op} {}: {} @{}", id(batch, i).unwrap_or("-"), row(batch, i), change.at));
        }
    }
    lines.extend(reasons(chunk).into_iter().map(|reasons| format!("refused {reasons}")));
    if chunk.skipped > 0 {
        lines.push(format!("skipped {}", chunk.skipped));
    }
    lines.join("\n")
}

fn envelope(op: &str, before: &str, after: &str) -> String {
    format!(
        r#"{{"before":{before},"after":{after},"source":{{"version":"3.6.3.Final","connector":"postgresql","name":"shop","ts_ms":1767222000123,"snapshot":"false","db":"shop","sequence":"[null,\"24023128\"]","ts_us":1767222000123456,"ts_ns":1767222000123456000,"schema":"public","table":"orders","txId":555,"lsn":24023128,"xmin":null}},"transaction":null,"op":"{op}","ts_ms":1767222000512,"ts_us":1767222000512873,"ts_ns":1767222000512873000}}"#
    )
}

const COLUMNS: &str = r#"[
    {"type":"int64","optional":false,"field":"id"},
    {"type":"string","optional":true,"field":"status"},
    {"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"2","connect.decimal.precision":"18"},"field":"total"},
    {"type":"int64","optional":true,"name":"io.debezium.time.MicroTimestamp","version":1,"field":"placed_at"},
    {"type":"int32","optional":true,"name":"io.debezium.time.Date","version":1,"field":"due"},
    {"type":"boolean","optional":true,"field":"vip"},
    {"type":"string","optional":true,"field":"note"},
    {"type":"string","optional":true,"name":"io.debezium.data.Json","version":1,"field":"extra"},
    {"type":"array","items":{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"2"}},"optional":true,"field":"prices"}]"#;

/// An envelope in its wrapper.
fn wrapped(op: &str, before: &str, after: &str) -> String {
    let payload = envelope(op, before, after);
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{{"type":"struct","fields":{COLUMNS},"optional":true,"name":"shop.public.orders.Value","field":"before"}},{{"type":"struct","fields":{COLUMNS},"optional":true,"name":"shop.public.orders.Value","field":"after"}}],"optional":false,"name":"shop.public.orders.Envelope"}},"payload":{payload}}}"#
    )
}

const FULL: &str = r#"{"id":1,"status":"new","total":"MDk=","placed_at":1767222000000001,"due":20454,"vip":true,"note":"a \"b\"","extra":"{\"a\": [1, 2]}","prices":["MDk=","AQ=="]}"#;
const FULL_ROW: &str = "id=1 status=new total=12345 placed=1767222000000001 due=20454 vip=true note=a \"b\" \
                        extra={\"a\": [1, 2]} prices=[12345,1]";

#[test]
fn every_operation_with_the_schema() {
    let mut feed = Feed::new(spec());
    feed.push(TOPIC, Some(r#"{"id":1}"#), &wrapped("r", "null", FULL))
        .push(TOPIC, Some(r#"{"id":2}"#), &wrapped("c", "null", r#"{"id":2,"total":"/w=="}"#))
        .push(TOPIC, Some(r#"{"id":1}"#), &wrapped("u", "null", r#"{"id":1,"status":"paid","total":"AA=="}"#))
        .push(TOPIC, Some(r#"{"id":2}"#), &wrapped("d", r#"{"id":2,"status":null,"total":null}"#, "null"))
        .push(TOPIC, Some(r#"{"id":2}"#), "")
        .push(TOPIC, None, &wrapped("t", "null", "null"))
        .push(TOPIC, None, &wrapped("m", "null", "null"));
    let expected = format!(
        "upsert 1: {FULL_ROW} time=0 @{AT}\n\
         upsert 2: id=2 total=-1 time={AT} @{AT}\n\
         upsert 1: id=1 status=paid total=0 time={AT} @{AT}\n\
         delete 2: id=2 time={AT} @{AT}\n\
         truncate -: time={AT} @{AT}\n\
         skipped 2"
    );
    assert_eq!(feed.text(), expected);
}

#[test]
fn without_the_schema_the_contract_decides() {
    let mut feed = Feed::new(spec());
    feed.push(TOPIC, None, &envelope("c", "null", FULL));
    assert_eq!(feed.text(), format!("upsert 1: {FULL_ROW} time={AT} @{AT}"));
    let numbers = r#"{"id":3,"total":1.5,"placed_at":"2026-01-01T00:00:00Z","vip":0,"extra":"{}"}"#;
    feed.push(TOPIC, None, &envelope("c", "null", numbers));
    let placed = 1_767_225_600_000_000i64;
    assert_eq!(
        feed.text(),
        format!("upsert 3: id=3 total=150 placed={placed} vip=false extra={{}} time={AT} @{AT}")
    );
    let ambiguous = r#"{"id":4,"total":"1234","placed_at":1767225600000}"#;
    feed.push(TOPIC, None, &envelope("c", "null", ambiguous));
    assert_eq!(feed.text(), "refused wrong_type total; wrong_type placed_at");
    let debezium = DebeziumSpec { decimals: Some(Decimals::String), times: Some(Unit::Millis) };
    let mut told = Feed::new(DecodeSpec { debezium, ..spec() });
    told.push(TOPIC, None, &envelope("c", "null", ambiguous));
    assert_eq!(told.text(), format!("upsert 4: id=4 total=123400 placed={placed} time={AT} @{AT}"));
}

/// MySQL: database and table, `TINYINT(1)`, `DATETIME` in milliseconds, `TIMESTAMP` as text, snapshots by table.
#[test]
fn mysql() {
    let source = r#"{"version":"3.6.3.Final","connector":"mysql","name":"dbserver1","ts_ms":1767222000000,"snapshot":"first","db":"inventory","sequence":null,"ts_us":1767222000000000,"ts_ns":1767222000000000000,"table":"lines","server_id":223344,"gtid":null,"file":"mysql-bin.000003","pos":154,"row":0,"thread":7,"query":null}"#;
    let record = |op: &str, before: &str, after: &str| {
        format!(
            r#"{{"before":{before},"after":{after},"source":{source},"op":"{op}","ts_ms":1767222000900,"transaction":null}}"#
        )
    };
    let mut feed = Feed::new(spec());
    let topic = "dbserver1.inventory.lines";
    let row = r#"{"sku":"a-1","shipped_at":1767225600000,"price":"AN4="}"#;
    feed.push(topic, None, &record("r", "null", row))
        .push(topic, None, &record("u", row, r#"{"sku":"a-1","shipped_at":null,"price":"3.00"}"#))
        .push(
            topic,
            None,
            &record("u", row, r#"{"sku":"b-1","shipped_at":"2026-01-01T00:00:00Z","price":3.5}"#),
        )
        .push(topic, Some(r#"{"sku":"b-1"}"#), &record("d", r#"{"sku":"b-1"}"#, "null"));
    let at = 1_767_222_000_000_000i64;
    let placed = 1_767_225_600_000_000i64;
    assert_eq!(
        feed.text(),
        format!(
            "upsert a-1: sku=a-1 shipped_at={placed} price=222 time={placed} @{at}\n\
             upsert a-1: sku=a-1 price=300 time={at} @{at}\n\
             delete a-1: sku=a-1 time={at} @{at}\n\
             upsert b-1: sku=b-1 shipped_at={placed} price=350 time={placed} @{at}\n\
             delete b-1: sku=b-1 time={at} @{at}"
        )
    );
}

#[test]
fn flattened_rows() {
    let mut feed = Feed::new(spec());
    feed.push(
        TOPIC,
        Some(r#"{"id":1}"#),
        r#"{"id":1,"total":"1.50","__op":"c","__source_ts_ms":1767222000123}"#,
    )
    .push(TOPIC, Some(r#"{"id":2}"#), r#"{"id":2,"total":"2.50"}"#)
    .push(TOPIC, Some(r#"{"id":3}"#), r#"{"id":3,"__op":"r","__ts_ms":1767222000123}"#)
    .push(
        TOPIC,
        Some(r#"{"id":1}"#),
        r#"{"id":1,"total":null,"__op":"d","__deleted":"true","__ts_ms":1767222000123}"#,
    )
    .push(
        TOPIC,
        Some(r#"{"schema":{"type":"struct","fields":[{"type":"int32","field":"id"}]},"payload":{"id":2}}"#),
        "",
    )
    .push(TOPIC, Some("3"), r#"{"schema":{"type":"struct","fields":[]},"payload":null}"#)
    .push(TOPIC, Some("4"), "null")
    .push(TOPIC, None, "");
    let at = 1_767_222_000_123_000i64;
    assert_eq!(
        feed.text(),
        format!(
            "upsert 1: id=1 total=150 time={at} @{at}\n\
             upsert 2: id=2 total=250 time={NOW} @{NOW}\n\
             upsert 3: id=3 time=0 @{at}\n\
             delete 1: id=1 time={at} @{at}\n\
             delete 2: id=2 time={NOW} @{NOW}\n\
             delete 3: id=3 time={NOW} @{NOW}\n\
             delete 4: id=4 time={NOW} @{NOW}\n\
             skipped 1"
        )
    );
    let schema =
        format!(r#"{{"schema":{{"type":"struct","fields":{COLUMNS},"optional":false}},"payload":{FULL}}}"#);
    feed.push(TOPIC, None, &schema);
    assert_eq!(feed.text(), format!("upsert 1: {FULL_ROW} time={NOW} @{NOW}"));
}

#[test]
fn upsert_topics_of_plain_json() {
    let mut feed = Feed::new(DecodeSpec { op: Some(vec!["op".into()]), ..DecodeSpec::default() });
    for (key, value) in [
        (Some("7"), r#"{"id":7,"total":"1.00"}"#),
        (Some(r#""8""#), r#"{"id":8}"#),
        (Some("7"), ""),
        (Some(r#"{"id":8}"#), ""),
        (None, ""),
        (Some(r#"{"nr":9}"#), ""),
        (Some("seven"), ""),
        (None, r#"{"id":5,"op":"d"}"#),
        (None, r#"{"op":"t"}"#),
        (None, r#"{"id":6,"op":"x"}"#),
        (None, r#"{"total":"1.00"}"#),
    ] {
        feed.push(TOPIC, key, value);
    }
    feed.push("other", Some("1"), "");
    assert_eq!(
        feed.text(),
        format!(
            "upsert 7: id=7 total=100 time={NOW} @{NOW}\n\
             upsert 8: id=8 time={NOW} @{NOW}\n\
             delete 7: id=7 time={NOW} @{NOW}\n\
             delete 8: id=8 time={NOW} @{NOW}\n\
             delete 5: id=5 time={NOW} @{NOW}\n\
             truncate -: time={NOW} @{NOW}\n\
             refused missing id\n\
             refused wrong_type id\n\
             refused not_in_enum op\n\
             refused missing id\n\
             skipped 2"
        )
    );
    let envelope = Envelope { time: Some(vec!["at".into()]), ..Envelope::default() };
    let mut timed = Feed::new(DecodeSpec {
        envelope,
        fixed_type: Some("cdc.shop.public.orders".into()),
        ..DecodeSpec::default()
    });
    timed.push("any", None, r#"{"id":7,"at":"2025-12-31T23:00:00Z"}"#);
    let at = 1_767_222_000_000_000i64;
    assert_eq!(timed.text(), format!("upsert 7: id=7 time={at} @{at}"));
}

#[test]
fn a_value_that_is_left_out_is_the_one_before() {
    const NOTE: &str = "a text of more than twenty-four \\\"bytes\\\"";
    let mut feed = Feed::new(spec());
    let row = |rest: &str| format!(r#"{{"id":1,{rest}}}"#);
    let left_out = row(r#""total":"MDk=","note":"__debezium_unavailable_value""#);
    feed.push(TOPIC, None, &wrapped("c", "null", &row(&format!(r#""total":"AQ==","note":"{NOTE}""#))))
        .push(TOPIC, None, &wrapped("u", "null", &left_out))
        // A version that is refused for another column was the row all the same.
        .push(TOPIC, None, &wrapped("u", "null", &row(&format!(r#""status":"lost","note":"newer: {NOTE}""#))))
        .push(TOPIC, None, &wrapped("u", "null", &left_out))
        // A short value is never left out: what stands before it is not known.
        .push(TOPIC, None, &wrapped("u", "null", &row(r#""note":"short""#)))
        .push(TOPIC, None, &wrapped("u", "null", &left_out))
        .push(TOPIC, None, &wrapped("u", "null", &row(&format!(r#""note":"{NOTE}""#))))
        .push(TOPIC, None, &wrapped("d", r#"{"id":1}"#, "null"))
        .push(TOPIC, None, &wrapped("u", "null", &left_out));
    let at = AT;
    let text = NOTE.replace('\\', "");
    let rest = |said: &str| format!("upsert 1: id=1 {said} time={at} @{at}");
    let wanted = [
        rest(&format!("total=1 note={text}")),
        rest(&format!("total=12345 note={text}")),
        rest(&format!("total=12345 note=newer: {text}")),
        rest("note=short"),
        rest(&format!("note={text}")),
        format!("delete 1: id=1 time={at} @{at}"),
        "refused not_in_enum status".to_owned(),
        "refused unavailable note".to_owned(),
        "refused unavailable note".to_owned(),
    ];
    assert_eq!(feed.text(), wanted.join("\n"));
}

#[test]
fn keys_of_several_fields() {
    const BOXES: &str = "shop.public.boxes";
    let mut feed = Feed::new(spec());
    let key = r#"{"order_id":7,"line":"a|b"}"#;
    feed.push(BOXES, Some(key), &envelope("c", "null", r#"{"order_id":7,"line":"a|b","qty":2}"#))
        .push(BOXES, Some(key), &envelope("u", key, r#"{"order_id":7,"line":"c","qty":2}"#))
        .push(BOXES, Some(key), &envelope("d", "null", "null"))
        .push(BOXES, None, &envelope("d", r#"{"order_id":7}"#, "null"))
        .push(BOXES, Some("7"), &envelope("d", "null", "null"))
        .push(BOXES, None, &envelope("c", "null", r#"{"line":"x"}"#));
    let at = AT;
    let time = format!("time={at} @{at}");
    let wanted = [
        format!("upsert 7|a\\|b: order_id=7 line=a|b qty=2 {time}"),
        format!("delete 7|a\\|b: order_id=7 line=a|b {time}"),
        format!("upsert 7|c: order_id=7 line=c qty=2 {time}"),
        format!("delete 7|a\\|b: order_id=7 line=a|b {time}"),
        "refused missing order_id".to_owned(),
        "refused missing order_id".to_owned(),
        "refused missing order_id".to_owned(),
    ];
    assert_eq!(feed.text(), wanted.join("\n"));
}

#[test]
fn what_is_refused_and_why() {
    let mut feed = Feed::new(spec());
    let unavailable = r#"{"id":1,"note":"__debezium_unavailable_value"}"#;
    for value in [
        envelope("u", "null", unavailable),
        envelope("c", "null", r#"{"id":1,"status":"lost","total":"1.234"}"#),
        envelope("c", "null", "null"),
        envelope("x", "null", r#"{"id":1}"#),
        envelope("d", "null", "null"),
        envelope("d", r#"{"status":"lost"}"#, "null"),
        envelope("c", "null", r#"{"total":"1.00"}"#),
        envelope("c", "null", r#"{"id":1,"id":2}"#),
        r#"{"before":null,"after":{"id":1},"source":{"table":"orders"}}"#.to_owned(),
        r#"{"before":null,"after":{"id":1},"op":"c","op":"u","source":{}}"#.to_owned(),
        r#"{"op":"c","after":{"id":1}"#.to_owned(),
        "[]".to_owned(),
        "7".to_owned(),
    ] {
        feed.push(TOPIC, None, &value);
    }
    feed.push("shop.public.plain", None, &envelope("c", "null", r#"{"id":1}"#));
    feed.push("shop.public.other", None, r#"{"op":"c","before":null,"after":{"id":1},"source":{"name":"shop","schema":"public","table":"other"}}"#);
    let chunk = feed.chunk();
    assert_eq!(
        shown(&chunk),
        "refused unavailable note\n\
         refused not_in_enum status; wrong_type total\n\
         refused missing after\n\
         refused not_in_enum op\n\
         refused missing id\n\
         refused missing id\n\
         refused missing id\n\
         refused malformed_json id\n\
         refused missing op\n\
         refused malformed_json op\n\
         refused malformed_json\n\
         refused malformed_json\n\
         refused not_a_changelog\n\
         refused unknown_event_type\n\
         skipped 1"
    );
    let last = &chunk.refused.last().expect("refused").reasons[0].message;
    assert_eq!(
        last,
        "no contract for this table: declare one of the events `cdc.shop.public.other`, `cdc.public.other`"
    );
}

/// A delete frees its key whatever the contract's checks say of it, and however wrong the source's clock is.
#[test]
fn a_delete_is_never_held_up() {
    let mut feed = Feed::new(spec());
    let late = envelope("d", r#"{"id":1}"#, "null").replace("1767222000123456", "1967222000123456");
    feed.push(TOPIC, None, &late);
    assert_eq!(feed.text(), format!("delete 1: id=1 time={NOW} @1967222000123456"));
    let early = envelope("c", "null", r#"{"id":1}"#).replace("1767222000123456", "1967222000123456");
    feed.push(TOPIC, None, &early);
    assert_eq!(feed.text(), "refused time_in_future source.ts_ms");
}

/// A topic routed elsewhere is found by its source.
#[test]
fn contracts_are_found_by_topic_or_table() {
    for topic in [TOPIC, "all", ""] {
        let mut feed = Feed::new(spec());
        feed.push(topic, None, &envelope("c", "null", r#"{"id":1}"#));
        assert_eq!(feed.text(), format!("upsert 1: id=1 time={AT} @{AT}"), "{topic}");
    }
}

/// Whatever bytes come, every record ends in one place and nothing panics.
#[test]
fn mutated_records_end_somewhere() {
    let seeds = [
        wrapped("c", "null", FULL),
        wrapped("u", FULL, FULL),
        envelope("d", r#"{"id":2}"#, "null"),
        envelope("c", "null", FULL),
        r#"{"id":1,"total":"1.50","__op":"c","__source_ts_ms":1767222000123}"#.to_owned(),
        r#"{"schema":{"type":"struct","fields":[]},"payload":null}"#.to_owned(),
    ];
    let keys = [r#"{"id":1}"#, r#"{"schema":{"type":"int64"},"payload":7}"#, "9", "\u{1}", ""];
    let mut random = fastrand::Rng::with_seed(11);
    let mut feed = Feed::new(spec());
    for _ in 0..20_000 {
        let mut value = random.choice(&seeds).map(|seed| seed.clone().into_bytes()).unwrap_or_default();
        for _ in 0..random.usize(0..4) {
            let at = random.usize(0..value.len());
            match random.u8(0..4) {
                0 => value[at] = random.u8(..),
                1 => value.truncate(at.max(1)),
                2 => value.insert(at, *random.choice(br#"{}[]",:0-.en\"#).unwrap_or(&b'{')),
                _ => drop(value.remove(at)),
            }
            if value.is_empty() {
                break;
            }
        }
        let key = random.choice(&keys).copied().filter(|_| random.bool());
        let record = Record { value: &value, offset: feed.offset, received: NOW, headers: &[] };
        feed.decoder.push_keyed(record, TOPIC, key.map(str::as_bytes));
        feed.offset += 1;
        if feed.offset % 500 == 0 {
            let chunk = feed.chunk();
            shown(&chunk);
            assert_eq!(chunk.received - keys_moved(&chunk), 500);
        }
    }
}

/// Deletes that an update of the key brought along: a record more than came.
fn keys_moved(chunk: &Chunk) -> u64 {
    let parts =
        chunk.batches.iter().flat_map(|batch| &batch.parts).chain(chunk.refused.iter().map(|row| &row.part));
    parts.filter(|part| **part >= 1 << 31).count() as u64
}

/// The types of the MySQL connector, with the schema: each column says what it is.
#[test]
fn mysql_with_the_schema() {
    let column = |name: &str, ty: &str, meaning: &str| {
        let meaning =
            if meaning.is_empty() { String::new() } else { format!(r#","name":"{meaning}","version":1"#) };
        format!(r#"{{"type":"{ty}","optional":true{meaning},"field":"{name}"}}"#)
    };
    let columns = [
        column("id", "int64", ""),
        column("status", "string", "io.debezium.data.Enum"),
        r#"{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"0"},"field":"total"}"#.to_owned(),
        column("placed_at", "int64", "io.debezium.time.Timestamp"),
        column("due", "int32", "io.debezium.time.Date"),
        column("vip", "int16", ""),
        column("note", "int64", "io.debezium.time.MicroTime"),
        column("extra", "string", "io.debezium.data.Json"),
    ]
    .join(",");
    let value = format!(r#"{{"type":"struct","fields":[{columns}],"optional":true,"field":"after"}}"#);
    let source = r#"{"connector":"mysql","name":"shop","ts_ms":1767222000000,"snapshot":"last","db":"public","table":"orders"}"#;
    let row = r#"{"id":9,"status":"paid","total":"AP//////////","placed_at":1767225600000,"due":20454,"vip":1,"note":43200000000,"extra":"[1]"}"#;
    let record = |op: &str, row: &str| {
        format!(
            r#"{{"schema":{{"type":"struct","fields":[{value}]}},"payload":{{"before":null,"after":{row},"source":{source},"op":"{op}"}}}}"#
        )
    };
    let mut feed = Feed::new(spec());
    feed.push(TOPIC, None, &record("r", row));
    let expected = "upsert 9: id=9 status=paid total=1844674407370955161500 placed=1767225600000000 due=20454 vip=true \
                    note=12:00:00 extra=[1] time=0 @1767222000000000";
    assert_eq!(feed.text(), "refused wrong_type total", "2^64 - 1 has more than 18 digits with its scale");
    feed.push(TOPIC, None, &record("r", &row.replace("AP//////////", "Jw==")));
    assert_eq!(feed.text(), expected.replace("1844674407370955161500", "3900"));
    // The schema changes: the table was altered.
    let altered = record("c", r#"{"id":9,"total":7}"#).replace(
        r#""type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal""#,
        r#""type":"int32","optional":true,"name":"x""#,
    );
    feed.push(TOPIC, None, &altered);
    assert_eq!(feed.text(), "upsert 9: id=9 total=700 time=1767222000000000 @1767222000000000");
}
