//! Avro, Protobuf and JSON Schema by a real registry (`scripts/registry.sh`) over Apache Kafka: references,
//! schemas that change mid-stream, ids that nobody knows, a registry that is away.
//!
//! Skipped only with `KAFKA_TESTS=0`.

#![allow(clippy::unwrap_used)] // a test fails where it unwraps
#![allow(clippy::zombie_processes)] // the watching shell outlives the test program on purpose

#[allow(dead_code)]
mod common;

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, TimestampMicrosecondType};
use common::Broker;
use connectors::decode::{DecodeSpec, Envelope, Format, RegistrySpec};
use connectors::receive::kafka::{self, KafkaSource};
use connectors::receive::{Feed, Offsets, Receiver, State, wall_clock};
use contracts::SourceFile;
use contracts::batch::Chunk;
use crossbeam_channel::Receiver as Chunks;
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};

const PATIENCE: Duration = Duration::from_secs(60);

const CONTRACTS: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: shop.Order
version: 1.0.0
time: at
id: id
fields:
  id: { type: string, required: true }
  at: { type: timestamp, required: true }
  total: { type: "decimal(12,2)", from: money.amount }
  note: { type: string, default: none }
  lines: { type: int }
---
apiVersion: streamgauge/v1
kind: Event
name: cdc.stock
version: 1.0.0
changelog: true
key: sku
fields:
  sku: { type: string, required: true }
  left: { type: int }
"#;

struct Registry {
    folder: PathBuf,
    /// Where it is.
    url: String,
    /// Where the receiver looks for it.
    door: Door,
}

/// A port in front of the registry: while it is shut, whoever connects gets no answer. The registry itself keeps
/// its schemas in memory, so that stopping it would lose them.
struct Door {
    open: Arc<AtomicBool>,
    port: u16,
}

impl Door {
    fn new(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let door =
            Self { open: Arc::new(AtomicBool::new(true)), port: listener.local_addr().unwrap().port() };
        let open = door.open.clone();
        std::thread::spawn(move || {
            for from in listener.incoming() {
                let Ok(mut from) = from else { continue };
                if !open.load(Ordering::Acquire) {
                    continue;
                }
                let mut to = TcpStream::connect(&to).unwrap();
                let (mut back_from, mut back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        });
        door
    }
}

impl Registry {
    fn script(&self, args: &[&str]) -> String {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/registry.sh");
        let run = Command::new(path).args(args).arg("--dir").arg(&self.folder).output().unwrap();
        assert!(run.status.success(), "registry.sh {args:?}: {}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).unwrap()
    }

    fn start() -> Self {
        let door = Door { open: Arc::default(), port: 0 };
        let mut registry = Self { folder: tempfile::tempdir().unwrap().keep(), url: String::new(), door };
        registry.url = registry.script(&["start"]).trim().strip_prefix("url=").unwrap().to_owned();
        let address = registry.url.split('/').nth(2).unwrap().to_owned();
        registry.door = Door::new(address);
        registry
    }

    /// The address the receiver knows.
    fn door(&self) -> String {
        let path: Vec<&str> = self.url.splitn(4, '/').collect();
        format!("http://127.0.0.1:{}/{}", self.door.port, path[3])
    }

    fn away(&self, away: bool) {
        self.door.open.store(!away, Ordering::Release);
    }

    /// Registers a schema; the id it got.
    fn register(&self, subject: &str, kind: &str, schema: &str, references: &[(&str, &str)]) -> u32 {
        let references: Vec<_> = references
            .iter()
            .map(|(name, subject)| serde_json::json!({ "name": name, "subject": subject, "version": 1 }))
            .collect();
        let body = serde_json::json!({ "schemaType": kind, "schema": schema, "references": references });
        let answer = ureq::post(format!("{}/subjects/{subject}/versions", self.url))
            .header("content-type", "application/vnd.schemaregistry.v1+json")
            .send(body.to_string())
            .unwrap_or_else(|error| panic!("{subject}: {error}"))
            .body_mut()
            .read_to_string()
            .unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        u32::try_from(answer["id"].as_u64().unwrap()).unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.script(&["stop", "--now"]);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A record in the wire format.
fn framed(id: u32, data: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], data].concat()
}

/// Avro's numbers and texts.
fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn text(value: &str) -> Vec<u8> {
    [long(value.len() as i64), value.as_bytes().to_vec()].concat()
}

fn start(broker: &Broker, registry: &Registry, topic: &str, format: Format) -> (Receiver, Chunks<Chunk>) {
    let loaded = contracts::load(&[SourceFile::new("shop.yaml", CONTRACTS)]);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let (chunks, out) = crossbeam_channel::bounded(1000);
    let decode = DecodeSpec {
        format,
        envelope: Envelope { event_type: Some(vec!["type".into()]), ..Envelope::default() },
        registry: Some(RegistrySpec { url: registry.door(), login: None }),
        ..DecodeSpec::default()
    };
    let feed =
        Feed { source: "r".into(), catalog: Arc::new(loaded.catalog), decode, chunks, clock: wall_clock() };
    let source = KafkaSource::new(broker.bootstrap.clone(), [topic]);
    (kafka::start(&source, &Offsets::new(), feed).unwrap(), out)
}

/// Takes chunks until `count` records have come; rows and refusals as text, by offset.
fn collect(chunks: &Chunks<Chunk>, count: u64) -> Vec<String> {
    let (mut lines, mut have) = (Vec::new(), 0);
    while have < count {
        let chunk = chunks.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{have} of {count}: {lines:?}"));
        have += chunk.received;
        for batch in &chunk.batches {
            for (row, offset) in batch.offsets.iter().enumerate() {
                let op = batch.changes.as_ref().map(|changes| format!("{:?} ", changes[row].op));
                let schema = batch.columns.schema();
                let cells = schema.fields().iter().zip(batch.columns.columns());
                let cells = cells.filter(|(field, array)| !array.is_null(row) && field.name() != "time");
                let cells: Vec<String> =
                    cells.map(|(field, array)| format!("{}={}", field.name(), cell(array, row))).collect();
                lines.push((*offset, format!("{}{}", op.unwrap_or_default(), cells.join(" "))));
            }
        }
        for refused in &chunk.refused {
            lines.push((
                refused.offset,
                format!("refused {}: {}", refused.reasons[0].code, refused.reasons[0].message),
            ));
        }
    }
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

fn cell(array: &dyn Array, row: usize) -> String {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value(row).to_string(),
        DataType::Timestamp(..) => array.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        other => panic!("no such column type: {other}"),
    }
}

fn wait_for(receiver: &Receiver, what: &str, ok: impl Fn(&State) -> bool) {
    let began = Instant::now();
    while !ok(&receiver.status().state) {
        assert!(began.elapsed() < PATIENCE, "waited for {what}: {:#?}", receiver.status());
        std::thread::sleep(Duration::from_millis(20));
    }
}

const AT: i64 = 1_767_225_600_000_001;
const MONEY: &str = r#"{"type":"record","name":"Money","namespace":"shop","fields":[{"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}}]}"#;
const ORDER: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"string"},{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"money","type":["null","shop.Money"],"default":null}]}"#;
/// A field more, in the middle.
const ORDER_2: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"string"},{"name":"note","type":"string","default":""},{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"money","type":["null","shop.Money"],"default":null}]}"#;

const JSON_SCHEMA: &str = r#"{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","properties":{"id":{"type":"string"}}}"#;

/// Registers all of Avro's; the ids of both versions.
fn avro(registry: &Registry) -> (u32, u32) {
    registry.register("money", "AVRO", MONEY, &[]);
    let first = registry.register("orders-value", "AVRO", ORDER, &[("shop.Money", "money")]);
    (first, registry.register("orders-value", "AVRO", ORDER_2, &[("shop.Money", "money")]))
}

#[test]
fn schemas_change_go_missing_and_come_late() {
    let Some(broker) = Broker::shared() else { return };
    let registry = Registry::start();
    let (one, two) = avro(&registry);
    assert_ne!(one, two);

    // The registry is away when the first record comes: the source says so and waits.
    registry.away(true);
    broker.create("avro", 1, &[]);
    let first = [text("o1"), long(AT), long(1), text("\x30\x39")].concat();
    broker.send("avro", 0, Some(&framed(one, &first)), None);
    let (receiver, out) = start(broker, &registry, "avro", Format::Avro);
    let away = |state: &State| matches!(state, State::Waiting(why) if why.contains(&registry.door()));
    wait_for(&receiver, "the registry to be missed", away);
    assert!(receiver.status().last_error.is_some_and(|error| error.contains("does not answer")));
    registry.away(false);
    assert_eq!(collect(&out, 1), [format!("id=o1 at={AT} total=12345 note=none")]);
    wait_for(&receiver, "the rest to be read", |state| *state == State::Running);

    // A new version mid-stream, an old record after it, and what cannot be read.
    let second = [text("o2"), text("new"), long(AT + 1), long(0)].concat();
    let third = [text("o3"), long(AT + 2), long(1), text("\u{7f}")].concat();
    let cut = framed(two, &second[..4]);
    for value in
        [framed(two, &second), framed(one, &third), framed(4711, &first), cut, b"{\"id\":1}".to_vec()]
    {
        broker.send("avro", 0, Some(&value), None);
    }
    let lines = collect(&out, 5);
    assert_eq!(lines[0], format!("id=o2 at={} note=new", AT + 1));
    assert_eq!(lines[1], format!("id=o3 at={} total=127 note=none", AT + 2));
    assert!(
        lines[2].starts_with("refused unknown_schema: the registry at http") && lines[2].contains("4711"),
        "{}",
        lines[2]
    );
    assert!(lines[3].starts_with(&format!("refused malformed_avro: schema {two}: byte")), "{}", lines[3]);
    assert!(lines[4].starts_with("refused no_schema_id"), "{}", lines[4]);

    // What is known is not asked for again.
    registry.away(true);
    broker.send("avro", 0, Some(&framed(one, &third)), None);
    assert_eq!(collect(&out, 1), [format!("id=o3 at={} total=127 note=none", AT + 2)]);
    receiver.stop();
    assert_eq!(receiver.join().state, State::Finished);
}

#[test]
fn protobuf_json_schema_and_rows_by_their_key() {
    let Some(broker) = Broker::shared() else { return };
    let registry = Registry::start();
    let money = r#"syntax = "proto3"; package shop; message Money { string amount = 1; }"#;
    let order = r#"
        syntax = "proto3";
        package shop;
        import "google/protobuf/timestamp.proto";
        import "shop/money.proto";
        message Unused { int32 n = 1; }
        message Order {
          string id = 1;
          google.protobuf.Timestamp at = 2;
          Money money = 3;
          optional string note = 4;
          int64 lines = 5;
        }
    "#;
    registry.register("money", "PROTOBUF", money, &[]);
    let id = registry.register("orders-value", "PROTOBUF", order, &[("shop/money.proto", "money")]);
    broker.create("protobuf", 1, &[]);
    broker.send("protobuf", 0, Some(&framed(id, &[&[2, 2][..], &message(order, money)].concat())), None);
    broker.send("protobuf", 0, Some(&framed(id, &[4, 2, 8])), None);
    let (receiver, out) = start(broker, &registry, "protobuf", Format::Protobuf);
    let lines = collect(&out, 2);
    assert_eq!(lines[0], "id=o1 at=1767225600000001 total=1250 note=none lines=9007199254740993");
    assert!(lines[1].starts_with("refused malformed_protobuf"), "{}", lines[1]);
    drop(receiver);

    let json = registry.register("json-value", "JSON", JSON_SCHEMA, &[]);
    broker.create("json", 1, &[]);
    let data = br#"{"type":"shop.Order","id":"o1","at":"2026-01-01T00:00:00Z"}"#;
    broker.send("json", 0, Some(&framed(json, data)), None);
    broker.send("json", 0, Some(data), None);
    let (receiver, out) = start(broker, &registry, "json", Format::Json);
    assert_eq!(collect(&out, 2), ["id=o1 at=1767225600000000 note=none"; 2]);
    drop(receiver);

    // An upsert topic: a tombstone names its row by a key in Avro.
    let key = registry.register(
        "stock-key",
        "AVRO",
        r#"{"type":"record","name":"Key","fields":[{"name":"sku","type":"string"}]}"#,
        &[],
    );
    let row = r#"{"type":"record","name":"Row","fields":[{"name":"sku","type":"string"},{"name":"left","type":["null","int"]}]}"#;
    let value = registry.register("stock-value", "AVRO", row, &[]);
    broker.create("stock", 1, &[]);
    let key = framed(key, &text("a"));
    broker.send_keyed("stock", &key, Some(&framed(value, &[text("a"), long(1), long(7)].concat())));
    broker.send_keyed("stock", &key, None);
    let (receiver, out) = start(broker, &registry, "stock", Format::Avro);
    assert_eq!(collect(&out, 2), ["Upsert sku=a left=7", "Delete sku=a"]);
    drop(receiver);
}

/// A `shop.Order` as the reference implementation encodes it.
fn message(order: &str, money: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("shop")).unwrap();
    std::fs::write(folder.path().join("order.proto"), order).unwrap();
    std::fs::write(folder.path().join("shop/money.proto"), money).unwrap();
    let set = protox::compile(["order.proto"], [folder.path()]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
    let mut message = DynamicMessage::new(pool.get_message_by_name("shop.Order").unwrap());
    let inner = |name: &str, fields: &[(&str, prost_reflect::Value)]| {
        let mut message = DynamicMessage::new(pool.get_message_by_name(name).unwrap());
        fields.iter().for_each(|(name, value)| message.set_field_by_name(name, value.clone()));
        prost_reflect::Value::Message(message)
    };
    use prost_reflect::Value::{I32, I64, String};
    message.set_field_by_name("id", String("o1".into()));
    let at = inner("google.protobuf.Timestamp", &[("seconds", I64(1_767_225_600)), ("nanos", I32(1_999))]);
    message.set_field_by_name("at", at);
    message.set_field_by_name("money", inner("shop.Money", &[("amount", String("12.50".into()))]));
    message.set_field_by_name("lines", I64(9_007_199_254_740_993));
    message.encode_to_vec()
}
