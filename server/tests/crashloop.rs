//! Killed again and again: nothing lost, nothing twice, no number wrong.
//!
//! A server is fed over HTTP and killed at a named point of its own code or at any moment, started again, and so on. What
//! it acknowledged is an obligation: at the end of a calm phase every row is in the lake or among the refused ones exactly
//! once, and every number is what the acknowledged events give. The lake is read by PyIceberg and DuckDB.
//!
//! `CYCLES=1000 cargo test -p server --test crashloop -- --nocapture` (`make crashloop`) is the long run; `SEED=n` repeats
//! one. Without them a short slice runs.

#![allow(clippy::unwrap_used)] // a test fails where it unwraps
#![allow(clippy::print_stdout)] // `--nocapture` shows the figures

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

mod support;
use support::{Server, log, wait};

/// Where the process can be made to die; a run of [`ALL`] cycles or more must come by each of them.
const POINTS: [&str; 9] = [
    "lake.before_files",
    "lake.after_files",
    "lake.before_plan",
    "lake.after_plan",
    "lake.before_commit",
    "lake.after_commit",
    "lake.between_tables",
    "lake.after_round",
    "lake.recover",
];
const ALL: usize = 100;
/// Mistakes that can be switched on.
const BUGS: [&str; 6] =
    ["retry_blindly", "drop_refused", "offset_plus_one", "skip_recovery", "skip_one", "checkpoint_early"];
const REGIONS: [&str; 3] = ["eu", "us", "asia"];

const CONTRACTS: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: shop.order
version: 1.0.0
fields:
  region: { type: string, required: true }
  amount: { type: "decimal(18,2)", required: true, min: "0" }
---
apiVersion: streamgauge/v1
kind: Event
name: shop.visit
version: 1.0.0
fields:
  region: { type: string, required: true }
---
apiVersion: streamgauge/v1
kind: Metric
name: revenue
version: 1.0.0
events: { order: { type: shop.order } }
dimensions: { region: { from: region, max: 10 } }
measures:
  revenue: { agg: sum, value: amount }
  orders: { agg: count }
  dearest: { agg: max, value: amount }
windows: { all: { all: true }, 1m: { tumbling: 1m } }
retain: { live: 3650d }
---
apiVersion: streamgauge/v1
kind: Metric
name: visits
version: 1.0.0
events: { visit: { type: shop.visit } }
dimensions: { region: { from: region, max: 10 } }
measures: { visits: { agg: count } }
windows: { all: { all: true } }
"#;

const SETTINGS: &str = "apiVersion: streamgauge/v1\nkind: Settings\ncontracts: [contracts/]\ndata: data/\nworkers: 2\n\
    sources:\n  - { name: push, http: {}, format: json, envelope: { id: id, type: type, time: time } }\n\
    lake: { commit_every: 100ms, buckets: 2 }\ncheckpoints: { every: 1s }\naudit: { every: 1h }\n";

/// Deterministic numbers.
struct Rng(u64);

impl Rng {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// What was sent, and what must come of it. Everything follows from the number of an event.
#[derive(Default)]
struct Sent {
    next: u64,
    /// Acknowledged.
    acked: BTreeSet<u64>,
    /// Sent, the answer did not come: sent again later, under the same id.
    open: BTreeSet<u64>,
    /// Copies of refused events that may have been taken: they have no identity, each is a row of its own.
    refused_least: u64,
    refused_most: u64,
}

fn is_bad(n: u64) -> bool {
    n % 17 == 5
}

fn is_visit(n: u64) -> bool {
    n % 3 == 1
}

fn cents(n: u64) -> u64 {
    n * 37 % 100_003
}

fn region(n: u64) -> &'static str {
    REGIONS[(n / 5 % 3) as usize]
}

fn event(n: u64) -> Value {
    let kind = if is_visit(n) { "shop.visit" } else { "shop.order" };
    let time = format!("2026-11-01T{:02}:{:02}:00Z", n / 60 % 24, n % 60);
    let amount = format!("{}.{:02}", cents(n) / 100, cents(n) % 100);
    let mut event =
        json!({ "id": format!("e{n}"), "type": kind, "time": time, "region": region(n), "amount": amount });
    if is_bad(n) {
        event["region"] = Value::Null;
    }
    event
}

impl Sent {
    /// Sends open events again, or new ones; false when the server is gone.
    fn send(&mut self, server: &Server, rng: &mut Rng) -> bool {
        let again = rng.next(3) == 0 && !self.open.is_empty();
        let batch: Vec<u64> = match again {
            true => self.open.iter().copied().take(40).collect(),
            false => {
                let from = self.next;
                self.next += 1 + rng.next(40);
                (from..self.next).collect()
            }
        };
        self.post(server, &batch)
    }

    fn post(&mut self, server: &Server, batch: &[u64]) -> bool {
        let body: Vec<String> = batch.iter().map(|n| event(*n).to_string()).collect();
        let bad = batch.iter().filter(|n| is_bad(**n)).count() as u64;
        self.open.extend(batch.iter().filter(|n| !is_bad(**n)));
        self.refused_most += bad;
        let answer = ureq::post(format!("{}/v1/events", server.url)).send(body.join("\n"));
        let Ok(answer) = answer else { return false };
        if answer.status() != 202 {
            return true;
        }
        self.refused_least += bad;
        for n in batch.iter().filter(|n| !is_bad(**n)) {
            self.open.remove(n);
            self.acked.insert(*n);
        }
        true
    }

    /// Per region: orders, cents, dearest, visits.
    fn expected(&self) -> BTreeMap<&'static str, (u64, u64, u64, u64)> {
        let mut all = BTreeMap::<_, (u64, u64, u64, u64)>::new();
        for n in &self.acked {
            let cell = all.entry(region(*n)).or_default();
            if is_visit(*n) {
                cell.3 += 1;
            } else {
                *cell = (cell.0 + 1, cell.1 + cents(*n), cell.2.max(cents(*n)), cell.3);
            }
        }
        all
    }
}

/// The numbers as served, in the same form.
fn served(server: &Server) -> BTreeMap<String, (u64, u64, u64, u64)> {
    let cents =
        |value: &Value| -> u64 { value.as_str().map_or(0, |text| text.replace('.', "").parse().unwrap()) };
    let mut all = BTreeMap::<String, (u64, u64, u64, u64)>::new();
    let rows = |path: &str| server.get(path)["rows"].as_array().cloned().unwrap_or_default();
    for row in rows("/v1/metrics/revenue?window=all&by=region") {
        let cell = all.entry(row["region"].as_str().unwrap().to_owned()).or_default();
        cell.0 = row["orders"].as_u64().unwrap();
        (cell.1, cell.2) = (cents(&row["revenue"]), cents(&row["dearest"]));
    }
    for row in rows("/v1/metrics/visits?window=all&by=region") {
        all.entry(row["region"].as_str().unwrap().to_owned()).or_default().3 =
            row["visits"].as_u64().unwrap();
    }
    all
}

fn lake(folder: &Path, flags: &[&str]) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/lake.sh");
    let data = folder.join("data/lake");
    let run = Command::new(script).arg("read").arg(data.join("catalog.db")).arg(&data).args(flags).output();
    let run = run.expect("the script runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).expect("JSON")
}

/// Calm: open events are sent again, everything is waited for, and compared.
fn verify(folder: &Path, sent: &mut Sent, bug: &str) {
    let server = Server::start_with(folder, &[("LAKE_BUG", bug)]);
    let open: Vec<u64> = sent.open.iter().copied().collect();
    for batch in open.chunks(100) {
        assert!(sent.post(&server, batch), "calm");
    }
    let expected: BTreeMap<String, _> =
        sent.expected().into_iter().map(|(region, cell)| (region.to_owned(), cell)).collect();
    let same = wait(Duration::from_secs(30), || served(&server) == expected);
    assert!(same.is_ok(), "wrong numbers: {:?} instead of {expected:?}\n{}", served(&server), log(folder));
    let settled = wait(Duration::from_secs(30), || {
        let lake = &server.get("/readyz?verbose")["lake"];
        lake["waiting_rows"] == 0 && lake["trouble"].is_null() && lake["rounds"].as_u64().is_some()
    });
    assert!(settled.is_ok(), "{}", server.text("/readyz?verbose"));
    server.signal("TERM");
    assert_eq!(server.end(), Some(0), "{}", log(folder));
    let found = lake(folder, &[]);
    let (mut orders, mut visits) = (0, 0);
    expected.values().for_each(|cell| (orders, visits) = (orders + cell.0, visits + cell.3));
    let cents: u64 = expected.values().map(|cell| cell.1).sum();
    for (table, rows) in [("shop_order", orders), ("shop_visit", visits)] {
        if rows > 0 {
            assert_eq!(found[table]["rows"], rows, "{table}: lost or twice: {found}");
            assert_eq!(found[table]["ids"], rows, "{table}: {found}");
        }
    }
    if orders > 0 {
        let sum = found["shop_order"]["sums"]["amount"].as_str().unwrap_or_default();
        assert_eq!(sum.replace('.', ""), cents.to_string(), "{found}");
    }
    let refused = found["dead_letters"]["rows"].as_u64().unwrap_or(0);
    let possible = sent.refused_least..=sent.refused_most;
    assert!(possible.contains(&refused), "{refused} refused rows, not {possible:?}");
    assert_eq!(found["dead_letters"]["places"].as_u64().unwrap_or(0), refused, "a refused row twice");
}

fn number(name: &str, or: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or)
}

#[test]
fn nothing_is_lost_nothing_comes_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::var("KEEP").map_or_else(|_| folder.path().to_owned(), PathBuf::from);
    let mut killed = Killed::default();
    let cycles = number("CYCLES", 12) as usize;
    run(&path, cycles, number("SEED", 1), "", &mut killed);
    killed.tell();
    if cycles >= ALL {
        let missed: Vec<_> = POINTS.iter().filter(|point| !killed.hits.contains_key(*point)).collect();
        assert!(missed.is_empty(), "never killed at {missed:?}");
    }
}

/// Each mistake is found, or the loop proves nothing: all of them with `BUGS=all`, otherwise the first.
#[test]
fn seeded_mistakes_are_caught() {
    let all = std::env::var("BUGS").is_ok_and(|which| which == "all");
    for bug in BUGS.iter().take(if all { BUGS.len() } else { 1 }) {
        let folder = tempfile::tempdir().unwrap();
        let run = |seed| run(folder.path(), 10, seed, bug, &mut Killed::default());
        let caught = std::panic::catch_unwind(|| (1..6).for_each(run));
        let message = caught.expect_err(&format!("`{bug}` was not caught"));
        let message = message.downcast_ref::<String>().map_or("", String::as_str);
        println!("{bug}: {}", message.lines().next().unwrap_or_default());
    }
}

#[derive(Default)]
struct Killed {
    acknowledged: usize,
    hits: BTreeMap<&'static str, u64>,
    ready_again: Vec<Duration>,
}

impl Killed {
    fn tell(&mut self) {
        self.ready_again.sort_unstable();
        let quantile = |q: usize| self.ready_again[(self.ready_again.len() - 1) * q / 100].as_millis();
        println!(
            "{} kills, {} events acknowledged: 0 lost, 0 twice, 0 wrong; ready again after {} ms (p50), {} ms (p99)",
            self.hits.values().sum::<u64>(),
            self.acknowledged,
            quantile(50),
            quantile(99)
        );
        self.hits.iter().for_each(|(point, hits)| println!("  killed {point}: {hits}"));
    }
}

fn run(path: &Path, cycles: usize, seed: u64, bug: &str, killed: &mut Killed) {
    // What an earlier run has left; there may be nothing.
    let _ = std::fs::remove_dir_all(path.join("data"));
    std::fs::create_dir_all(path.join("contracts")).unwrap();
    std::fs::write(path.join("contracts/all.yaml"), CONTRACTS).unwrap();
    std::fs::write(path.join("streamgauge.yaml"), SETTINGS).unwrap();
    let mut rng = Rng(seed);
    let mut sent = Sent::default();
    for cycle in 0..cycles {
        let point = (rng.next(3) > 0).then(|| POINTS[(rng.next(POINTS.len() as u64)) as usize]);
        let mut fault = point.map(|point| format!("{point}=abort@{}", 1 + rng.next(4))).unwrap_or_default();
        if rng.next(2) == 0 {
            fault += &format!(",lake.lost_reply=error@{}", 1 + rng.next(6));
        }
        let started = Instant::now();
        // Sometimes the lake is far behind, so that checkpoints have to wait for it.
        let every = if rng.next(3) == 0 { "2s" } else { "100ms" };
        let variables =
            [("LAKE_FAULT", fault.as_str()), ("LAKE_BUG", bug), ("STREAMGAUGE_LAKE__COMMIT_EVERY", every)];
        let mut server = Server::spawn(path, &variables);
        if server.ready(Duration::from_secs(60)) {
            killed.ready_again.push(started.elapsed());
        }
        let most = if point.is_some() { 3_200 } else { 800 };
        let end = Instant::now() + Duration::from_millis(20 + rng.next(most));
        let mut gone = false;
        while Instant::now() < end && !gone {
            gone = !sent.send(&server, &mut rng);
            std::thread::sleep(Duration::from_millis(rng.next(20)));
        }
        // A process that has died may take a moment to be seen dead.
        let died = Instant::now() + Duration::from_secs(if gone { 10 } else { 0 });
        let mut ended = server.child.try_wait().unwrap();
        while ended.is_none() && Instant::now() < died {
            std::thread::sleep(Duration::from_millis(5));
            ended = server.child.try_wait().unwrap();
        }
        let by = match (ended, point) {
            // Also while it was starting.
            (Some(_), Some(point)) => point,
            (Some(_), None) => panic!("cycle {cycle}: the server ended by itself\n{}", log(path)),
            (None, _) => "at any moment",
        };
        *killed.hits.entry(by).or_default() += 1;
        drop(server);
        if cycle % 25 == 24 {
            verify(path, &mut sent, bug);
        }
    }
    verify(path, &mut sent, bug);
    killed.acknowledged += sent.acked.len();
}
