//! Results in the lake when what events are joined with changes: rows of tables, rows of entities. The newest revisions are what
//! HTTP answers of the past windows, and what plain loops over the events say.
#![allow(clippy::unwrap_used)] // a test fails where it unwraps

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

mod support;
use support::{Server, lake, log, wait};

const CONTRACTS: &str = r#"apiVersion: streamgauge/v1
kind: Event
name: shop.order
version: 1.0.0
fields:
  order: { type: string, required: true }
  region: { type: string, required: true }
  currency: { type: string, required: true }
  amount: { type: "decimal(18,2)", required: true }
---
apiVersion: streamgauge/v1
kind: Event
name: shop.shipped
version: 1.0.0
fields: { order: { type: string, required: true } }
---
apiVersion: streamgauge/v1
kind: Event
name: fx.rate
version: 1.0.0
fields: { currency: { type: string, required: true }, usd: { type: "decimal(8,2)", required: true } }
---
apiVersion: streamgauge/v1
kind: Table
name: rates
version: 1.0.0
key: currency
fields: { currency: { type: string, required: true }, usd: { type: "decimal(8,2)" } }
source: { event: fx.rate }
---
apiVersion: streamgauge/v1
kind: Table
name: zones
version: 1.0.0
key: region
fields: { region: { type: string, required: true }, zone: { type: string } }
source: { file: zones.csv, every: 1s }
---
apiVersion: streamgauge/v1
kind: Entity
name: bought
version: 1.0.0
key: order
events: [shop.order, shop.shipped]
fields:
  amount: { last: amount, events: shop.order }
  shipped: { count: "*", events: shop.shipped }
---
apiVersion: streamgauge/v1
kind: Metric
name: sales
version: 1.0.0
events: { order: { type: shop.order } }
enrich:
  rates: { table: rates, match: order.currency = rates.currency, as_of: event }
  zones: { table: zones, match: order.region = zones.region, as_of: now }
dimensions: { zone: { from: zones.zone, default: none, max: 100 } }
measures:
  usd: { agg: sum, value: order.amount * rates.usd }
  orders: { agg: count }
windows: { 1m: { tumbling: 1m }, 3m: { sliding: 3m, every: 1m }, visit: { session: 30s } }
serve: { lake: { iceberg: metrics.sales } }
---
apiVersion: streamgauge/v1
kind: Metric
name: left
version: 1.0.0
entity: bought
where: shipped = 0
measures: { amount: { agg: sum, value: amount }, orders: { agg: count } }
windows: { 1m: { tumbling: 1m } }
serve: { lake: { iceberg: metrics.left } }
"#;

const SETTINGS: &str = "apiVersion: streamgauge/v1\nkind: Settings\ncontracts: [contracts/]\ndata: data/\n\
    sources:\n  - { name: push, http: {}, format: json, envelope: { id: id, type: type, time: time } }\n\
    lake: { commit_every: 100ms }\n";

/// Orders, by number.
const ORDERS: i64 = 200;

/// What the test has told, and may tell otherwise later.
struct World {
    /// Cents of a dollar per unit.
    usd: BTreeMap<&'static str, i64>,
    zones: BTreeMap<&'static str, &'static str>,
    shipped: Vec<i64>,
}

fn hour() -> i64 {
    let now = jiff::Timestamp::now().as_second();
    now / 3600 * 3600 - 5 * 3600
}

/// Within seven minutes; the gaps of a region are sometimes longer than a session's.
fn second(n: i64) -> i64 {
    n * n * 31 % 420
}

fn region(n: i64) -> &'static str {
    ["eu", "us", "asia", "moon"][(n * 7 % 11 % 4) as usize]
}

fn currency(n: i64) -> &'static str {
    ["EUR", "USD"][(n % 3 / 2) as usize]
}

fn instant(second: i64) -> String {
    jiff::Timestamp::from_second(second).unwrap().to_string()
}

/// (window, start, zone) -> (end, usd, orders)
type Told = BTreeMap<(String, String, String), (String, String, i64)>;

impl World {
    /// Plain loops over the orders.
    fn expected(&self) -> Told {
        let mut rows: BTreeMap<(&str, i64, i64, &str), (i64, i64)> = BTreeMap::new();
        let mut of_zone: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        let zone = |n: i64| self.zones.get(region(n)).copied().unwrap_or("none");
        for n in 0..ORDERS {
            of_zone.entry(zone(n)).or_default().push(n);
        }
        for (zone, orders) in of_zone {
            let mut times: Vec<i64> = orders.iter().map(|n| second(*n)).collect();
            times.sort_unstable();
            let mut spans: Vec<(&str, i64, i64)> = (0..10).map(|m| ("1m", m * 60, m * 60 + 60)).collect();
            spans.extend((0..12).map(|m| ("3m", m * 60 - 120, m * 60 + 60)));
            for (at, time) in times.iter().enumerate() {
                if at == 0 || time - times[at - 1] >= 30 {
                    let last = times[at..].windows(2).find(|pair| pair[1] - pair[0] >= 30);
                    let last = last.map_or(times[times.len() - 1], |pair| pair[0]);
                    spans.push(("visit", *time, last + 30));
                }
            }
            for (window, start, end) in spans {
                for n in orders.iter().filter(|n| (start..end).contains(&second(**n))) {
                    let cell = rows.entry((window, start, end, zone)).or_default();
                    *cell = (cell.0 + (n * 100 + 50) * self.usd[currency(*n)], cell.1 + 1);
                }
            }
        }
        let row = |((window, start, end, zone), (money, orders)): (_, (i64, i64))| {
            let (window, zone): (&str, &str) = (window, zone);
            let (start, end): (i64, i64) = (start, end);
            let usd = format!("{}.{:04}", money / 10_000, money % 10_000);
            let at = |second: i64| instant(hour() + second);
            ((window.to_owned(), at(start), zone.to_owned()), (at(end), usd, orders))
        };
        rows.into_iter().map(row).collect()
    }

    /// The metric over the entity: orders that are not shipped.
    fn left(&self) -> BTreeMap<String, (String, i64)> {
        let mut rows: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for n in (0..ORDERS).filter(|n| !self.shipped.contains(n)) {
            let cell = rows.entry(second(n) / 60 * 60).or_default();
            *cell = (cell.0 + n * 100 + 50, cell.1 + 1);
        }
        let text = |cents: i64| format!("{}.{:02}", cents / 100, cents % 100);
        rows.into_iter().map(|(at, (cents, n))| (instant(hour() + at), (text(cents), n))).collect()
    }

    fn rate(&self, id: &str, currency: &str) -> String {
        let cents = self.usd[currency];
        json!({ "id": id, "type": "fx.rate", "time": instant(hour() - 3600), "currency": currency,
            "usd": format!("{}.{:02}", cents / 100, cents % 100) })
        .to_string()
            + "\n"
    }

    fn write_zones(&self, folder: &Path) {
        let rows: String = self.zones.iter().map(|(region, zone)| format!("{region},{zone}\n")).collect();
        let (new, name) = (folder.join("contracts/zones.new"), folder.join("contracts/zones.csv"));
        std::fs::write(&new, format!("region,zone\n{rows}")).unwrap();
        std::fs::rename(new, name).unwrap();
    }
}

fn order(n: i64) -> String {
    json!({ "id": format!("o{n}"), "type": "shop.order", "time": instant(hour() + second(n)),
        "order": format!("{n}"), "region": region(n), "currency": currency(n), "amount": format!("{n}.50") })
    .to_string()
        + "\n"
}

fn shipped(n: i64) -> String {
    let at = instant(hour() + second(n) + 600);
    json!({ "id": format!("s{n}"), "type": "shop.shipped", "time": at, "order": format!("{n}") }).to_string()
        + "\n"
}

fn sql(folder: &Path, table: &str, query: &str) -> Vec<Value> {
    serde_json::from_value(lake(folder, "sql", &[table, query]).unwrap()).unwrap()
}

const AT: &str = "at time zone 'UTC', '%Y-%m-%dT%H:%M:%SZ'";

fn read(folder: &Path) -> Told {
    let query = format!(
        "select _window, strftime(_window_start {AT}) as s, strftime(_window_end {AT}) as e, zone, usd::varchar as usd, \
         orders from sales qualify row_number() over (partition by _window, _window_start, zone order by _revision desc) \
         = 1 and not _retracted order by all"
    );
    let row = |row: &Value| {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        (
            (text("_window"), text("s"), text("zone")),
            (text("e"), text("usd"), row["orders"].as_i64().unwrap()),
        )
    };
    sql(folder, "metrics.sales", &query).iter().map(row).collect()
}

fn read_left(folder: &Path) -> BTreeMap<String, (String, i64)> {
    let query = format!(
        "select strftime(_window_start {AT}) as s, amount::varchar as amount, orders from \"left\" \
         qualify row_number() over (partition by _window_start order by _revision desc) = 1 and not _retracted"
    );
    let row = |row: &Value| {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        (text("s"), (text("amount"), row["orders"].as_i64().unwrap()))
    };
    sql(folder, "metrics.left", &query).iter().map(row).collect()
}

/// Waits until the lake says what the loops say; then HTTP says the same of each window as of its end.
fn agree(folder: &Path, server: &Server, world: &World, what: &str) {
    let there = || {
        ["sales", "left"]
            .iter()
            .all(|name| folder.join(format!("data/lake/metrics/{name}/metadata")).exists())
    };
    let (wanted, left) = (world.expected(), world.left());
    let same = || there() && read(folder) == wanted && read_left(folder) == left;
    if wait(Duration::from_secs(60), same).is_err() {
        assert_eq!(read(folder), wanted, "{what}: {}", log(folder));
        assert_eq!(read_left(folder), left, "{what}: {}", log(folder));
    }
    for ((window, start, zone), (end, usd, orders)) in &wanted {
        let answer = server.get(&format!("/v1/metrics/sales?window={window}&by=zone&as_of={end}"));
        let row = answer["rows"].as_array().unwrap().iter().find(|row| row["zone"] == **zone);
        let row = row.unwrap_or_else(|| panic!("{what}: {window} {start} {zone}: {answer}"));
        assert_eq!(
            (row["usd"].as_str(), row["orders"].as_i64()),
            (Some(usd.as_str()), Some(*orders)),
            "{what}"
        );
    }
    let gaps = sql(
        folder,
        "metrics.sales",
        "select _window, _window_start, zone from sales group by all \
         having count(*) <> max(_revision) or min(_revision) <> 1 or count(distinct _revision) <> count(*)",
    );
    assert_eq!(gaps, Vec::<Value>::new(), "{what}: revisions that are left out or twice");
}

#[test]
fn corrections_of_tables_and_changes_of_entities_restate_windows_that_are_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("contracts")).unwrap();
    std::fs::write(path.join("contracts/shop.yaml"), CONTRACTS).unwrap();
    std::fs::write(path.join("streamgauge.yaml"), SETTINGS).unwrap();
    let mut world = World {
        usd: BTreeMap::from([("EUR", 110), ("USD", 100)]),
        zones: BTreeMap::from([("eu", "east"), ("us", "west"), ("asia", "east")]),
        shipped: (0..ORDERS).filter(|n| n % 3 == 0).collect(),
    };
    world.write_zones(path);
    let server = Server::start(path);
    server.push(&["EUR", "USD"].map(|currency| world.rate(&format!("r-{currency}"), currency)).concat());
    server.push(&(0..ORDERS).map(order).collect::<String>());
    server.push(&world.shipped.iter().copied().map(shipped).collect::<String>());
    agree(path, &server, &world, "at first");
    // A row of the table was wrong.
    world.usd.insert("EUR", 125);
    server.push(&world.rate("r-EUR-2", "EUR"));
    agree(path, &server, &world, "another rate");
    // A row changes, one comes, one goes: groups move, sessions join and part.
    world.zones = BTreeMap::from([("eu", "north"), ("us", "west"), ("moon", "west")]);
    world.write_zones(path);
    agree(path, &server, &world, "other zones");
    // Rows of the entity leave their windows; all of one minute do.
    let more: Vec<i64> = (0..ORDERS).filter(|n| n % 3 != 0 && (n % 5 == 0 || second(*n) / 60 == 2)).collect();
    server.push(&more.iter().copied().map(shipped).collect::<String>());
    world.shipped.extend(more);
    agree(path, &server, &world, "more is shipped");
    // Corrected while nothing is told, and the process killed: the next one finds what is not so any more.
    server.signal("KILL");
    drop(server);
    let slow = Server::start_with(path, &[("STREAMGAUGE_LAKE__COMMIT_EVERY", "1h")]);
    world.usd.insert("USD", 90);
    slow.push(&world.rate("r-USD-2", "USD"));
    let rest: Vec<i64> = (0..ORDERS).filter(|n| second(*n) / 60 == 4 && !world.shipped.contains(n)).collect();
    slow.push(&rest.iter().copied().map(shipped).collect::<String>());
    world.shipped.extend(rest);
    slow.signal("KILL");
    drop(slow);
    world.zones.remove("moon");
    world.write_zones(path);
    let server = Server::start(path);
    agree(path, &server, &world, "after a kill");
}
