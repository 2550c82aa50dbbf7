//! Results in the lake over changes of their contract: what the table says of windows that are over is what the contract of now says.
#![allow(clippy::unwrap_used)] // a test fails where it unwraps

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

mod support;
use support::{Server, lake, log, wait};

const EVENT: &str = "apiVersion: streamgauge/v1\nkind: Event\nname: shop.order\nversion: 1.0.0\nfields:\n  \
    region: { type: string }\n  kind: { type: string }\n  pieces: { type: int }\n---\n";

const METRIC: &str = "apiVersion: streamgauge/v1\nkind: Metric\nname: sold\nversion: 1.0.0\n\
    events: { order: { type: shop.order } }\nserve: { lake: { iceberg: metrics.sold } }\n";

const SETTINGS: &str = "apiVersion: streamgauge/v1\nkind: Settings\ncontracts: [contracts/]\ndata: data/\n\
    sources:\n  - { name: push, http: {}, format: json, envelope: { id: id, type: type, time: time } }\n\
    lake: { commit_every: 100ms }\n";

/// A contract: dimensions, name of the measure, minutes of the window.
struct Version {
    dimensions: &'static [&'static str],
    measure: &'static str,
    minutes: i64,
}

const VERSIONS: [Version; 5] = [
    Version { dimensions: &["region"], measure: "pieces", minutes: 1 },
    Version { dimensions: &["region"], measure: "sold", minutes: 1 },
    Version { dimensions: &["region", "kind"], measure: "sold", minutes: 1 },
    Version { dimensions: &["kind"], measure: "sold", minutes: 1 },
    Version { dimensions: &["kind"], measure: "sold", minutes: 2 },
];

impl Version {
    fn write(&self, folder: &Path) {
        let one = |name: &&str| format!("{name}: {{ from: order.{name}, max: 100 }}");
        let dimensions: Vec<String> = self.dimensions.iter().map(one).collect();
        let text = format!(
            "{EVENT}{METRIC}dimensions: {{ {} }}\nmeasures: {{ {}: {{ agg: sum, value: order.pieces }} }}\n\
             windows: {{ w: {{ tumbling: {}m }} }}\n",
            dimensions.join(", "),
            self.measure,
            self.minutes
        );
        std::fs::write(folder.join("contracts/all.yaml"), text).unwrap();
    }

    /// Plain loops over the orders.
    fn expected(&self, orders: i64) -> Told {
        let mut told = Told::new();
        for n in 0..orders {
            let value = |name: &&str| if *name == "region" { region(n) } else { kind(n) }.to_owned();
            let start = minute(n) / self.minutes * self.minutes * 60 + hour();
            *told.entry((start, self.dimensions.iter().map(value).collect())).or_default() += n % 5;
        }
        told
    }

    fn read(&self, folder: &Path) -> Told {
        let names = self.dimensions.join(", ");
        let query = format!(
            "select epoch(_window_start)::bigint as start, {names}, {} as n from sold qualify row_number() over \
             (partition by _window, _window_start, {names} order by _revision desc) = 1 and not _retracted",
            self.measure
        );
        let row = |row: &Value| {
            let text = |name: &&str| row[*name].as_str().unwrap_or("null").to_owned();
            let key = (row["start"].as_i64().unwrap(), self.dimensions.iter().map(text).collect());
            (key, row["n"].as_i64().unwrap_or(-1))
        };
        sql(folder, &query).unwrap_or_default().iter().map(row).collect()
    }
}

/// (start, dimensions) -> pieces
type Told = BTreeMap<(i64, Vec<String>), i64>;

fn hour() -> i64 {
    jiff::Timestamp::now().as_second() / 3600 * 3600 - 5 * 3600
}

fn minute(n: i64) -> i64 {
    n % 4
}

fn region(n: i64) -> &'static str {
    ["eu", "us", "asia"][(n % 3) as usize]
}

/// Of `other` there are only rows without a piece.
fn kind(n: i64) -> &'static str {
    if n % 5 == 0 { "other" } else { "book" }
}

fn order(n: i64) -> String {
    let time = jiff::Timestamp::from_second(hour() + minute(n) * 60 + n % 60).unwrap().to_string();
    json!({ "id": format!("o{n}"), "type": "shop.order", "time": time, "region": region(n), "kind": kind(n),
        "pieces": n % 5 })
    .to_string()
        + "\n"
}

/// `None`: the table or a column of it is not there yet.
fn sql(folder: &Path, query: &str) -> Option<Vec<Value>> {
    Some(serde_json::from_value(lake(folder, "sql", &["metrics.sold", query]).ok()?).unwrap())
}

#[test]
fn the_table_follows_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("contracts")).unwrap();
    std::fs::write(path.join("streamgauge.yaml"), SETTINGS).unwrap();
    let mut orders = 0;
    for (number, version) in VERSIONS.iter().enumerate() {
        version.write(path);
        let server = Server::start(path);
        if number != 2 {
            server.push(&(orders..orders + 40).map(order).collect::<String>());
            orders += 40;
        }
        let wanted = version.expected(orders);
        if wait(Duration::from_secs(60), || version.read(path) == wanted).is_err() {
            assert_eq!(version.read(path), wanted, "contract {number}: {}", log(path));
        }
        server.signal(if number % 2 == 0 { "TERM" } else { "KILL" });
    }
}
