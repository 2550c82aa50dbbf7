//! End to end on a real change stream: PostgreSQL → Debezium → Kafka → the server, and every answer equal to
//! SQL on PostgreSQL itself. `KAFKA_TESTS=0` skips; everything is started by `scripts/debezium.sh`.

#![allow(clippy::unwrap_used)] // a test fails where it unwraps

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::Server;

const PATIENCE: Duration = Duration::from_secs(90);

/// PostgreSQL, Kafka and Kafka Connect; removed when dropped.
struct Stack {
    folder: PathBuf,
    bootstrap: String,
}

impl Stack {
    fn start(folder: &Path) -> Self {
        let mut stack = Self { folder: folder.to_owned(), bootstrap: String::new() };
        let said = stack.script(&["start"], "");
        let at = said.split_whitespace().find_map(|part| part.strip_prefix("bootstrap="));
        stack.bootstrap = at.unwrap_or_else(|| panic!("no address: {said}")).to_owned();
        stack
    }

    fn script(&self, args: &[&str], stdin: &str) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/debezium.sh");
        let mut command = Command::new(script);
        command.args(args).arg("--dir").arg(&self.folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let run = child.wait_with_output().unwrap();
        assert!(run.status.success(), "debezium.sh {args:?}: {}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).unwrap()
    }

    fn sql(&self, text: &str) -> String {
        self.script(&["psql", "-qtA"], text)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.script(&["clean"], "");
    }
}

const TABLES: &str = "
CREATE TABLE orders (
  id bigint PRIMARY KEY, status text, region text, total numeric(12,2), placed_at timestamptz NOT NULL
);
INSERT INTO orders
SELECT n, (ARRAY['new','paid','shipped'])[1 + n % 3], (ARRAY['eu','us'])[1 + n % 2], (n * 7919 % 100000) / 100.0 - 200,
       now() - n * interval '17 minutes'
FROM generate_series(1, 300) AS n;
CREATE TABLE lines (
  order_id bigint, line text, sku text, qty bigint, note text, PRIMARY KEY (order_id, line)
);
ALTER TABLE lines ALTER note SET STORAGE EXTERNAL;
INSERT INTO lines
SELECT n, 'line|' || m, 'sku' || (n * m % 7), n % 5 + m, CASE WHEN n % 4 = 0 THEN repeat('large ', 2000) ELSE 'small' END
FROM generate_series(1, 40) AS n, generate_series(1, 3) AS m;
CREATE TABLE signups (id text PRIMARY KEY, plan text);
INSERT INTO signups SELECT 's' || n, 'free' FROM generate_series(1, 50) AS n;
";

const CONTRACTS: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: cdc.shop.public.orders
version: 1.0.0
changelog: true
key: id
time: placed_at
fields:
  id: { type: int, required: true }
  status: { type: string }
  region: { type: string }
  total: { type: "decimal(12,2)", max: "5000" }
  placed_at: { type: timestamp, required: true }
---
apiVersion: streamgauge/v1
kind: Event
name: cdc.shop.public.signups
version: 1.0.0
changelog: true
key: id
fields:
  id: { type: string, required: true }
  plan: { type: string }
---
apiVersion: streamgauge/v1
kind: Event
name: cdc.shop.public.lines
version: 1.0.0
changelog: true
key: [order_id, line]
fields:
  order_id: { type: int, required: true }
  line: { type: string, required: true }
  sku: { type: string }
  qty: { type: int }
  note: { type: string }
---
apiVersion: streamgauge/v1
kind: Entity
name: article
version: 1.0.0
key: sku
events: [cdc.shop.public.lines]
fields:
  qty: { sum: qty }
  least: { min: qty }
  lines: { count: "*" }
---
apiVersion: streamgauge/v1
kind: Metric
name: lines
version: 1.0.0
events:
  line: { type: cdc.shop.public.lines }
measures:
  n: { agg: count }
  qty: { agg: sum, value: line.qty }
  skus: { agg: top, value: line.sku, n: 3 }
  large: { agg: count, where: line.note LIKE 'large%' }
windows:
  all: { all: true }
---
apiVersion: streamgauge/v1
kind: Metric
name: articles
version: 1.0.0
entity: article
measures:
  n: { agg: count }
  most: { agg: max, value: qty }
  least: { agg: min, value: least }
  lines: { agg: sum, value: lines }
windows:
  all: { all: true }
---
apiVersion: streamgauge/v1
kind: Metric
name: orders
version: 1.0.0
events:
  order: { type: cdc.shop.public.orders, changelog: true }
dimensions:
  status: { from: status, max: 20, default: none }
measures:
  n: { agg: count }
  total: { agg: sum, value: order.total }
  least: { agg: min, value: order.total }
  most: { agg: max, value: order.total }
  regions: { agg: distinct, value: order.region }
windows:
  all: { all: true }
---
apiVersion: streamgauge/v1
kind: Metric
name: paid
version: 1.0.0
events:
  order: { type: cdc.shop.public.orders, changelog: true, where: "order.status = 'paid'" }
measures:
  n: { agg: count }
  total: { agg: sum, value: order.total, empty: 0 }
windows:
  all: { all: true }
---
apiVersion: streamgauge/v1
kind: Metric
name: signups
version: 1.0.0
events:
  signup: { type: cdc.shop.public.signups, changelog: true }
measures:
  n: { agg: count }
windows:
  all: { all: true }
  day: { sliding: 24h, every: 1h }
"#;

/// The rows of `orders` by status, as the answer of the metric writes them.
const BY_STATUS: &str = "
SELECT coalesce(json_agg(r ORDER BY r.status), '[]') FROM (
  SELECT coalesce(status, 'none') AS status, count(*) AS n, sum(total)::text AS total, min(total)::text AS least,
         max(total)::text AS most, count(DISTINCT region) AS regions
  FROM orders GROUP BY 1) r;
";
const PAID: &str = "SELECT json_build_array(json_build_object('n', count(*), 'total', coalesce(sum(total), 0)::numeric(12,2)::text))
                    FROM orders WHERE status = 'paid';";
const SIGNUPS: &str = "SELECT json_build_array(json_build_object('n', count(*))) FROM signups;";

const LINES: &str = "
SELECT json_build_array(json_build_object('n', count(*), 'qty', sum(qty), 'large', count(*) FILTER (WHERE note LIKE 'large%'),
  'skus', (SELECT coalesce(json_agg(json_build_object('value', sku, 'count', c) ORDER BY c DESC, sku COLLATE \"C\"), '[]') FROM
    (SELECT sku, count(*) AS c FROM lines WHERE sku IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, sku COLLATE \"C\" LIMIT 3) t)))
FROM lines;";
const ARTICLES: &str = "
SELECT json_build_array(json_build_object('n', count(*), 'most', max(q), 'least', min(m), 'lines', sum(l)))
FROM (SELECT sum(qty) AS q, min(qty) AS m, count(*) AS l FROM lines WHERE sku IS NOT NULL GROUP BY sku) t;";

fn rows(answer: &Value) -> Value {
    let mut rows = answer["rows"].as_array().cloned().unwrap_or_default();
    rows.sort_by_key(|row| row["status"].as_str().unwrap_or_default().to_owned());
    rows.into()
}

/// Waits until the answers are those of SQL.
fn same(server: &Server, stack: &Stack, when: &str) {
    let sql = |text: &str| serde_json::from_str::<Value>(stack.sql(text).trim()).unwrap();
    let expected = [sql(BY_STATUS), sql(PAID), sql(SIGNUPS), sql(LINES), sql(ARTICLES)];
    let began = Instant::now();
    loop {
        let found = [
            rows(&server.get("/v1/metrics/orders?window=all&by=status")),
            rows(&server.get("/v1/metrics/paid?window=all")),
            rows(&server.get("/v1/metrics/signups?window=all")),
            rows(&server.get("/v1/metrics/lines?window=all")),
            rows(&server.get("/v1/metrics/articles?window=all")),
        ];
        if found == expected {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{when}: found\n{found:#?}\nPostgreSQL has\n{expected:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn signups_today(server: &Server) -> Value {
    server.get("/v1/metrics/signups?window=day")["rows"][0]["n"].clone()
}

#[test]
fn metrics_of_a_change_stream_are_those_of_sql() {
    if std::env::var("KAFKA_TESTS").as_deref() == Ok("0") {
        eprintln!("skipped: KAFKA_TESTS=0");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let stack = Stack::start(&folder.path().join("stack"));
    stack.sql(TABLES);
    let port = std::fs::read_to_string(stack.folder.join("pg_port")).unwrap();
    let connector = serde_json::json!({
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "plugin.name": "pgoutput",
        "database.hostname": "127.0.0.1",
        "database.port": port.trim(),
        "database.user": "shop",
        "database.password": "none",
        "database.dbname": "shop",
        "topic.prefix": "shop",
        "publication.autocreate.mode": "filtered",
        "table.include.list": "public.orders,public.signups,public.lines",
        "skipped.operations": "none",
    });
    stack.script(&["connector", "shop"], &connector.to_string());

    std::fs::create_dir(folder.path().join("contracts")).unwrap();
    std::fs::write(folder.path().join("contracts/shop.yaml"), CONTRACTS).unwrap();
    let settings = format!(
        "apiVersion: streamgauge/v1\nkind: Settings\nsources:\n  - {{ name: shop-cdc, kafka: {{ brokers: \"{}\", topics: \
         [\"shop.public.*\"] }}, format: debezium }}\n",
        stack.bootstrap
    );
    std::fs::write(folder.path().join("streamgauge.yaml"), settings).unwrap();
    let server = Server::start_with(folder.path(), &[("STREAMGAUGE_WORKERS", "2")]);
    same(&server, &stack, "the snapshot");
    assert_eq!(signups_today(&server), 0, "what was there before is no new business");

    for (when, change) in [
        ("inserts", "INSERT INTO orders SELECT n, 'new', 'asia', n / 100.0, now() FROM generate_series(1001, 1100) AS n;
                     INSERT INTO signups SELECT 't' || n, 'paid' FROM generate_series(1, 3) AS n;"),
        ("updates", "UPDATE orders SET status = 'paid', total = total * 2 WHERE id % 5 = 0 AND total < 2000;
                     UPDATE orders SET status = NULL WHERE id = 7; UPDATE orders SET region = 'moon' WHERE id < 30;
                     UPDATE signups SET plan = 'paid' WHERE id = 's1';"),
        ("deletes", "DELETE FROM orders WHERE id % 7 = 0; DELETE FROM signups WHERE id IN ('s1', 't1');"),
        ("the greatest and the least leave",
         "DELETE FROM orders WHERE id IN (SELECT id FROM orders ORDER BY total DESC LIMIT 3);
          DELETE FROM orders WHERE id IN (SELECT id FROM orders ORDER BY total LIMIT 3);"),
        ("keys change", "UPDATE orders SET id = id + 10000 WHERE id % 11 = 0;
                         UPDATE lines SET line = 'moved' WHERE order_id < 3 AND line = 'line|1';"),
        ("large values that are left out",
         "UPDATE lines SET qty = qty + 100 WHERE order_id % 8 = 0; UPDATE lines SET sku = 'sku9' WHERE order_id = 4;
          UPDATE lines SET note = NULL WHERE order_id = 12 AND line = 'line|2'; UPDATE lines SET qty = 1 WHERE order_id = 12;
          DELETE FROM lines WHERE qty IN (SELECT max(qty) FROM lines) OR order_id = 7;"),
        ("a rollback", "BEGIN; DELETE FROM orders; ROLLBACK; UPDATE orders SET total = 0 WHERE id = 1;"),
        ("a full identity", "ALTER TABLE orders REPLICA IDENTITY FULL; UPDATE orders SET status = 'shipped' WHERE id % 3 = 0;
                             UPDATE lines SET qty = qty + 1 WHERE order_id = 16; ALTER TABLE lines REPLICA IDENTITY FULL;
                             UPDATE lines SET sku = 'sku1', qty = 2 WHERE order_id IN (16, 20); DELETE FROM lines WHERE order_id = 20;
                             DELETE FROM orders WHERE id % 13 = 0;"),
    ] {
        stack.sql(change);
        same(&server, &stack, when);
    }
    assert_eq!(signups_today(&server), 2, "t2 and t3; t1 and s1 are gone");

    // The worker is killed while changes go on, and the server, too: all is read again.
    stack.script(&["worker", "stop", "--now"], "");
    stack
        .sql("UPDATE orders SET total = -total WHERE id % 2 = 0; INSERT INTO signups VALUES ('u1', 'free');");
    drop(server);
    stack.script(&["worker", "start"], "");
    let server = Server::start_with(folder.path(), &[("STREAMGAUGE_WORKERS", "1")]);
    same(&server, &stack, "after the kill");

    // A version that is refused leaves the one before.
    stack.sql("UPDATE orders SET total = 5001 WHERE id = 1;");
    let refused = || server.get("/v1/deadletter")["items"].as_array().map_or(0, Vec::len);
    support::wait(PATIENCE, || refused() == 1)
        .unwrap_or_else(|()| panic!("{}", server.text("/v1/deadletter")));
    assert_eq!(server.get("/v1/metrics/paid?window=all")["rows"][0]["n"], before_refused(&stack));
    stack.sql("UPDATE orders SET total = 4999 WHERE id = 1;");
    same(&server, &stack, "corrected");

    stack.sql("TRUNCATE orders; TRUNCATE lines; INSERT INTO lines VALUES (1, 'x', 'sku1', 3, NULL); INSERT INTO orders VALUES (1, 'paid', 'eu', 1.10, now());");
    same(&server, &stack, "truncated");
    stack.sql("DELETE FROM orders; DELETE FROM signups; DELETE FROM lines;");
    same(&server, &stack, "nothing left");
}

/// The refused row was not paid, so the number of paid orders is PostgreSQL's all the same.
fn before_refused(stack: &Stack) -> Value {
    serde_json::from_str(stack.sql("SELECT count(*) FROM orders WHERE status = 'paid';").trim()).unwrap()
}
