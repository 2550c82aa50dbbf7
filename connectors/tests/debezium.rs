//! A real change stream: what our decoder yields from Debezium, folded to the last version per key, against
//! `SELECT` on the PostgreSQL it came from. Inserts, updates, deletes, truncates, a changed replica identity,
//! keys that change, large values, and a worker of Kafka Connect that is killed.
//!
//! Skipped only with `KAFKA_TESTS=0`; everything is started by `scripts/debezium.sh`.

#![allow(clippy::unwrap_used)] // a test fails where it unwraps

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use connectors::decode::{DebeziumSpec, Decimals, DecodeSpec, Format, RegistrySpec, Unit};
use connectors::receive::kafka::{self, KafkaSource};
use connectors::receive::{Feed, Offsets, Receiver, wall_clock};
use contracts::batch::{ChangeOp, Chunk, EventBatch};
use contracts::{Catalog, SourceFile};
use crossbeam_channel::Receiver as Chunks;

const PATIENCE: Duration = Duration::from_secs(120);

/// PostgreSQL, Kafka, Kafka Connect and a schema registry of one test; removed at its end, however it ends.
struct Stack {
    folder: PathBuf,
    bootstrap: String,
    /// Address of the registry, without the path of an interface.
    registry: String,
}

fn run(script: &str, args: &[&str], folder: &Path, stdin: &str) -> String {
    let mut command = Command::new(format!("{}/../scripts/{script}", env!("CARGO_MANIFEST_DIR")));
    command.args(args).arg("--dir").arg(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let run = child.wait_with_output().unwrap();
    assert!(run.status.success(), "{script} {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

impl Stack {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        let mut stack = Self { folder, bootstrap: String::new(), registry: String::new() };
        let said = run("registry.sh", &["start"], &stack.folder.join("registry"), "");
        stack.registry =
            said.trim().strip_prefix("url=").unwrap().strip_suffix("/apis/ccompat/v7").unwrap().to_owned();
        let said = stack.script(&["start"], "");
        let at = said.split_whitespace().find_map(|part| part.strip_prefix("bootstrap="));
        stack.bootstrap = at.unwrap_or_else(|| panic!("no address: {said}")).to_owned();
        stack
    }

    fn script(&self, args: &[&str], stdin: &str) -> String {
        run("debezium.sh", args, &self.folder, stdin)
    }

    fn sql(&self, text: &str) -> String {
        self.script(&["psql", "-qtA"], text)
    }

    /// A connector of its own slot and topics `<prefix>.public.orders`.
    fn connector(&self, prefix: &str, more: &[(&str, &str)]) {
        let port = std::fs::read_to_string(self.folder.join("pg_port")).unwrap();
        let mut settings = serde_json::json!({
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "plugin.name": "pgoutput",
            "database.hostname": "127.0.0.1",
            "database.port": port.trim(),
            "database.user": "shop",
            "database.password": "none",
            "database.dbname": "shop",
            "topic.prefix": prefix,
            "slot.name": prefix,
            "publication.name": prefix,
            "publication.autocreate.mode": "filtered",
            "table.include.list": "public.orders",
            "skipped.operations": "none",
        });
        for (key, value) in more {
            settings[*key] = (*value).into();
        }
        self.script(&["connector", prefix], &settings.to_string());
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        run("registry.sh", &["stop", "--now"], &self.folder.join("registry"), "");
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.folder.display());
            self.script(&["stop", "--now"], "");
        } else {
            self.script(&["clean"], "");
        }
    }
}

const TABLE: &str = "
CREATE TABLE orders (
  id bigint PRIMARY KEY,
  status text,
  total numeric(12,2),
  loose numeric,
  placed_at timestamptz,
  local_at timestamp,
  due date,
  at_time time,
  vip boolean,
  weight double precision,
  note text,
  tags text[],
  prices numeric(8,2)[],
  extra jsonb,
  uid uuid
);
INSERT INTO orders
SELECT n, (ARRAY['new','paid','shipped'])[1 + n % 3], (n * 37 % 1000) / 100.0 - 3, n * 1.5,
       timestamptz '2026-01-01 00:00:00.123456+00' + n * interval '61 minutes', timestamp '2025-12-31 23:59:59.999999' - n * interval '1 day',
       date '2026-01-01' - n::int, time '00:00:01' + n * interval '1 second', n % 2 = 0, n / 8.0, 'note ' || n || ' \"quoted\" é',
       ARRAY['a', 'b' || n], ARRAY[n, n / 4.0]::numeric(8,2)[], jsonb_build_object('n', n), md5(n::text)::uuid
FROM generate_series(1, 40) AS n;
INSERT INTO orders (id) VALUES (41);
";

/// The contract of the table as connector `prefix` writes it.
fn contract(prefix: &str) -> String {
    format!(
        "---\napiVersion: streamgauge/v1\nkind: Event\nname: cdc.{prefix}.public.orders\nversion: 1.0.0\nkey: id\n\
         changelog: true\nfields:\n  id: {{ type: int, required: true }}\n  status: {{ type: string }}\n  \
         total: {{ type: \"decimal(12,2)\", max: \"9999.99\" }}\n  loose: {{ type: \"decimal(20,3)\" }}\n  placed_at: {{ type: timestamp }}\n  \
         local_at: {{ type: timestamp }}\n  due: {{ type: date }}\n  vip: {{ type: bool }}\n  \
         weight: {{ type: float }}\n  note: {{ type: string }}\n  tags: {{ type: list, items: {{ type: string }} }}\n  \
         prices: {{ type: list, items: {{ type: \"decimal(8,2)\" }} }}\n  extra: {{ type: json }}\n  uid: {{ type: string }}\n"
    )
}

/// The same columns from PostgreSQL: decimals unscaled, instants as microseconds.
const SELECT: &str = r"
SELECT concat_ws('|', id, coalesce(status, 'null'), coalesce((total * 100)::bigint::text, 'null'),
  coalesce((loose * 1000)::bigint::text, 'null'), coalesce((extract(epoch FROM placed_at) * 1000000)::bigint::text, 'null'),
  coalesce((extract(epoch FROM date_trunc($T$TRUNC$T$, local_at)) * 1000000)::bigint::text, 'null'), coalesce((due - date '1970-01-01')::text, 'null'),
  coalesce(vip::text, 'null'), coalesce(weight::text, 'null'), coalesce(md5(note), 'null'), coalesce('[' || array_to_string(tags, ',') || ']', 'null'),
  CASE WHEN prices IS NULL THEN 'null' ELSE '[' || array_to_string(ARRAY(SELECT (p * 100)::bigint FROM unnest(prices) WITH ORDINALITY AS u(p, i) ORDER BY i), ',') || ']' END,
  coalesce((extra -> 'n')::text, 'null'), coalesce(uid::text, 'null'))
FROM orders ORDER BY id;
";

fn cell(name: &str, array: &dyn Array, row: usize) -> String {
    if array.is_null(row) {
        return "null".to_owned();
    }
    let text = match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Dictionary(..) => {
            let array = array.as_dictionary::<Int32Type>();
            array.values().as_string::<i32>().value(array.keys().value(row) as usize).to_owned()
        }
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value(row).to_string(),
        DataType::Timestamp(..) => array.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        DataType::Date32 => array.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            let items: Vec<String> = (0..items.len()).map(|i| cell("", &items, i)).collect();
            format!("[{}]", items.join(","))
        }
        other => panic!("no such column type: {other}"),
    };
    match name {
        "note" => md5(&text),
        "extra" => serde_json::from_str::<serde_json::Value>(&text).unwrap()["n"].to_string(),
        _ => text,
    }
}

/// PostgreSQL's `md5`, by the machine's own tool, so that large texts need not be compared as such.
fn md5(text: &str) -> String {
    let mut child = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()[..32].to_owned()
}

/// The table as one stream tells it.
struct Follower {
    receiver: Receiver,
    chunks: Chunks<Chunk>,
    rows: BTreeMap<i64, String>,
    refused: Vec<(Option<String>, String)>,
    /// Event time and commit time of each version, with its operation.
    versions: Vec<(ChangeOp, i64, i64)>,
}

impl Follower {
    fn start(stack: &Stack, catalog: &Arc<Catalog>, prefix: &str, decode: DecodeSpec) -> Self {
        let (chunks, out) = crossbeam_channel::bounded(1000);
        let decode = DecodeSpec { max_record_bytes: 4 << 20, ..decode };
        let feed =
            Feed { source: prefix.into(), catalog: catalog.clone(), decode, chunks, clock: wall_clock() };
        let mut source = KafkaSource::new(stack.bootstrap.clone(), [format!("{prefix}.public.*")]);
        source.metadata_refresh = Duration::from_millis(300);
        let receiver = kafka::start(&source, &Offsets::new(), feed).unwrap();
        Self { receiver, chunks: out, rows: BTreeMap::new(), refused: Vec::new(), versions: Vec::new() }
    }

    /// Follows the stream until the row `id` is there.
    fn until(&mut self, id: i64) {
        let began = Instant::now();
        while !self.rows.contains_key(&id) {
            assert!(
                began.elapsed() < PATIENCE,
                "row {id} does not come; {:?} {:?}",
                self.refused,
                self.receiver.status()
            );
            let Ok(chunk) = self.chunks.recv_timeout(Duration::from_secs(1)) else { continue };
            let rows: usize = chunk.batches.iter().map(|batch| batch.columns.num_rows()).sum();
            assert_eq!(chunk.received, rows as u64 + chunk.refused.len() as u64 + chunk.skipped);
            for refused in &chunk.refused {
                for reason in &refused.reasons {
                    self.refused.push((refused.event_id.clone(), format!("{} {}", reason.code, reason.path)));
                }
            }
            chunk.batches.iter().for_each(|batch| self.fold(batch));
        }
    }

    fn fold(&mut self, batch: &EventBatch) {
        let schema = batch.columns.schema();
        let time = batch.columns.column_by_name("time").unwrap().as_primitive::<TimestampMicrosecondType>();
        for (row, change) in batch.changes.as_ref().unwrap().iter().enumerate() {
            self.versions.push((change.op, time.value(row), change.at));
            let key = || batch.ids.value(row).parse::<i64>().unwrap();
            match change.op {
                ChangeOp::Truncate => self.rows.clear(),
                ChangeOp::Delete => drop(self.rows.remove(&key())),
                ChangeOp::Upsert => {
                    let cells = schema.fields().iter().zip(batch.columns.columns());
                    let cells = cells.filter(|(field, _)| field.name() != "time");
                    let cells: Vec<String> =
                        cells.map(|(field, array)| cell(field.name(), array, row)).collect();
                    self.rows.insert(key(), cells.join("|"));
                }
            }
        }
    }

    fn text(&self) -> String {
        self.rows.values().map(|row| format!("{row}\n")).collect()
    }
}

/// The streams of four connectors, each with another way to write values.
fn follow(stack: &Stack) -> [(Follower, &'static str); 4] {
    let yaml: String = ["shop", "texts", "flat", "avro"].map(contract).concat();
    let loaded = contracts::load(&[SourceFile::new("orders.yaml", yaml.as_str())]);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let catalog = Arc::new(loaded.catalog);
    // Debezium's defaults: schemas, decimals as bytes, times in microseconds.
    stack.connector("shop", &[]);
    // A worker's converter can only be changed as a whole.
    const JSON: &str = "org.apache.kafka.connect.json.JsonConverter";
    let converter = ("value.converter", JSON);
    let no_schema = ("value.converter.schemas.enable", "false");
    stack.connector(
        "texts",
        &[
            converter,
            no_schema,
            ("key.converter", JSON),
            ("key.converter.schemas.enable", "false"),
            ("decimal.handling.mode", "string"),
            ("time.precision.mode", "connect"),
        ],
    );
    stack.connector(
        "flat",
        &[
            converter,
            no_schema,
            ("decimal.handling.mode", "double"),
            ("transforms", "flat"),
            ("transforms.flat.type", "io.debezium.transforms.ExtractNewRecordState"),
            ("transforms.flat.add.fields", "op,source.ts_us,connector"),
        ],
    );
    let url = format!("{}/apis/registry/v2", stack.registry);
    let avro = ["key", "value"].map(|of| {
        let set = |name: &str, value: &str| (format!("{of}.converter{name}"), value.to_owned());
        [
            set("", "io.apicurio.registry.utils.converter.AvroConverter"),
            set(".apicurio.registry.url", &url),
            set(".apicurio.registry.auto-register", "true"),
            set(".apicurio.registry.as-confluent", "true"),
            set(".apicurio.registry.headers.enabled", "false"),
            set(".apicurio.registry.use-id", "contentId"),
        ]
    });
    let avro: Vec<(&str, &str)> =
        avro.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    stack.connector("avro", &avro);
    let json = |decimals, times| {
        let debezium = DebeziumSpec { decimals, times };
        DecodeSpec { format: Format::Debezium, debezium, ..DecodeSpec::default() }
    };
    let registry = RegistrySpec { url: format!("{}/apis/ccompat/v7", stack.registry), login: None };
    let registry = DecodeSpec { format: Format::Avro, registry: Some(registry), ..DecodeSpec::default() };
    let start = |prefix, spec| Follower::start(stack, &catalog, prefix, spec);
    [
        (start("shop", json(None, None)), "microseconds"),
        (start("texts", json(Some(Decimals::String), Some(Unit::Millis))), "milliseconds"),
        (start("avro", registry), "microseconds"),
        (start("flat", json(None, Some(Unit::Micros))), "microseconds"),
    ]
}

/// Inserts a row that says "so far", and compares all streams with the table at that point.
fn compare(stack: &Stack, followers: &mut [(Follower, &'static str)], id: i64) {
    stack.sql(&format!("INSERT INTO orders (id, status) VALUES ({id}, 'so far');"));
    for (follower, precision) in followers {
        follower.until(id);
        let expected = stack.sql(&SELECT.replace("$T$TRUNC$T$", &format!("'{precision}'")));
        same(&follower.text(), &expected, &format!("{} at {id}", follower.receiver.status().name));
    }
}

#[test]
fn our_rows_are_postgresql_s_rows() {
    if std::env::var("KAFKA_TESTS").as_deref() == Ok("0") {
        eprintln!("skipped: KAFKA_TESTS=0");
        return;
    }
    let stack = Stack::start();
    stack.sql(TABLE);
    let began = wall_clock()();
    let mut all = follow(&stack);
    compare(&stack, &mut all, 1_000_001);
    for (follower, _) in &all {
        let name = follower.receiver.status().name;
        let snapshot: Vec<_> = follower.versions.iter().filter(|(_, time, _)| *time == 0).collect();
        assert_eq!(snapshot.len(), 41, "{name}: the snapshot is no new business");
        let (op, time, at) = follower.versions.last().unwrap();
        assert_eq!((*op, time), (ChangeOp::Upsert, at), "{name}");
        assert!((began..wall_clock()()).contains(at), "{name}: the commit's own time");
    }

    // Without an identity: a delete has its key and nothing else.
    stack.sql(
        "UPDATE orders SET status = 'paid', total = total + 0.01 WHERE id <= 10;
         UPDATE orders SET status = NULL, tags = NULL, prices = '{}', extra = NULL WHERE id = 11;
         DELETE FROM orders WHERE id BETWEEN 12 AND 15;
         INSERT INTO orders (id, total) VALUES (12, 1.10);
         UPDATE orders SET id = id + 500 WHERE id BETWEEN 16 AND 18;
         BEGIN; UPDATE orders SET status = 'lost' WHERE id = 20; DELETE FROM orders; ROLLBACK;",
    );
    compare(&stack, &mut all, 1_000_002);
    assert!(all.iter().all(|(follower, _)| follower.refused.is_empty()));

    // Large values that do not change are not in the log: they are those of the version before. What cannot be read
    // leaves the old version.
    stack.sql(
        "ALTER TABLE orders ALTER note SET STORAGE EXTERNAL;
         UPDATE orders SET note = repeat('large ', 5000) WHERE id = 1;",
    );
    compare(&stack, &mut all, 1_000_003);
    stack.sql(
        "UPDATE orders SET status = 'unseen' WHERE id = 1; UPDATE orders SET total = 10000 WHERE id = 2;",
    );
    stack.sql("INSERT INTO orders (id) VALUES (1000004);");
    for (follower, _) in &mut all {
        follower.until(1_000_004);
        let name = follower.receiver.status().name;
        let refused: Vec<_> =
            follower.refused.iter().map(|(id, why)| (id.as_deref(), why.as_str())).collect();
        assert_eq!(refused, [(Some("2"), "max total")], "{name}");
        assert!(follower.rows[&1].contains("|unseen|"), "{name}: {}", follower.rows[&1]);
    }
    stack.sql(
        "ALTER TABLE orders REPLICA IDENTITY FULL;
         UPDATE orders SET status = 'seen' WHERE id = 1; UPDATE orders SET total = 9999.99 WHERE id = 2;",
    );
    compare(&stack, &mut all, 1_000_005);

    // With a full identity.
    stack.sql(
        "UPDATE orders SET status = 'full', weight = weight * 2 WHERE id <= 30;
         DELETE FROM orders WHERE id BETWEEN 21 AND 25;
         UPDATE orders SET id = id + 500 WHERE id = 26;",
    );
    compare(&stack, &mut all, 1_000_006);

    // The worker is killed while changes go on: what was not yet noted as sent is sent again.
    stack.script(&["worker", "stop", "--now"], "");
    stack.sql("UPDATE orders SET total = -total WHERE id > 2; DELETE FROM orders WHERE id = 30;");
    stack.script(&["worker", "start"], "");
    compare(&stack, &mut all, 1_000_007);
    stack.script(&["restart", "shop"], "");
    stack.sql("UPDATE orders SET status = 'again' WHERE id < 1000;");
    compare(&stack, &mut all, 1_000_008);

    // A column comes, one goes: the contract's others are untouched.
    stack.sql("ALTER TABLE orders ADD COLUMN colour text DEFAULT 'blue', DROP COLUMN at_time; UPDATE orders SET status = 'wide' WHERE id = 5;");
    compare(&stack, &mut all, 1_000_009);

    stack.sql("TRUNCATE orders; INSERT INTO orders (id, total, due) VALUES (1, 0.05, '1969-12-31');");
    for (follower, _) in &mut all[..3] {
        compare_one(&stack, follower, 1_000_010);
    }
}

/// Flattened streams carry no truncate: `ExtractNewRecordState` drops it.
fn compare_one(stack: &Stack, follower: &mut Follower, id: i64) {
    stack.sql(&format!("INSERT INTO orders (id) VALUES ({id}) ON CONFLICT DO NOTHING;"));
    follower.until(id);
    let expected = stack.sql(&SELECT.replace("$T$TRUNC$T$", "'microseconds'"));
    same(&follower.text(), &expected, "truncated");
}

/// Says which rows differ, not all there are.
fn same(ours: &str, theirs: &str, what: &str) {
    let other = |a: &str, b: &str| {
        let b: BTreeSet<&str> = b.lines().collect();
        a.lines().filter(|line| !b.contains(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(other(ours, theirs), other(theirs, ours), "{what}: ours, then PostgreSQL's");
    assert_eq!(ours, theirs, "{what}");
}
