//! End to end on a real Kafka: a million events, the broker and the server killed in between, and every
//! number equal to the oracle's. `E2E_EVENTS` sets the number of events; `KAFKA_TESTS=0` skips.

#![allow(clippy::zombie_processes)] // a failing test leaves its server to the test runner
#![allow(clippy::unwrap_used)] // a test fails where it unwraps

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bench::answers::{Cell, Groups};
use bench::w1::{MINUTE, Oracle, T0, W1};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

const TYPES: [&str; 3] = ["order.created", "order.updated", "order.paid"];
const PATIENCE: Duration = Duration::from_secs(300);

/// The data is of January 2026, so live answers must reach back a few years.
fn contracts() -> String {
    let event = |name: &str| {
        format!(
            "---\napiVersion: streamgauge/v1\nkind: Event\nname: {name}\nversion: 1.0.0\ntime: ts\nid: event_id\n\
             fields:\n  event_id: {{ type: string, required: true }}\n  region: {{ type: string, required: true }}\n  \
             status: {{ type: string, required: true }}\n  amount: {{ type: \"decimal(18,2)\", required: true }}\n  \
             ts: {{ type: timestamp, required: true }}\n"
        )
    };
    let good = "amount > 0 AND status <> 'unknown'";
    let metric = format!(
        "---\napiVersion: streamgauge/v1\nkind: Metric\nname: w1\nversion: 1.0.0\n\
         events: {{ order: {{ type: [{}] }} }}\ndimensions: {{ region: {{ from: region, max: 100 }} }}\nmeasures:\n  \
         revenue: {{ agg: sum, value: amount, where: \"{good}\" }}\n  n: {{ agg: count, where: \"{good}\" }}\n  \
         avg: {{ ratio: [revenue, n] }}\n  bad_amount: {{ agg: count, where: \"amount <= 0\" }}\n  \
         bad_status: {{ agg: count, where: \"amount > 0 AND status = 'unknown'\" }}\n  events: {{ agg: count }}\n\
         windows: {{ 1m: {{ tumbling: 1m }}, all: {{ all: true }} }}\nretain: {{ live: 3650d }}\n",
        TYPES.join(", ")
    );
    TYPES.map(event).concat() + &metric
}

fn kafka(args: &[&str], folder: &Path) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/kafka.sh");
    let run = Command::new(script).args(args).arg("--dir").arg(folder).output().unwrap();
    assert!(run.status.success(), "kafka.sh {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// The server's process; killed when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(folder: &Path, workers: usize) -> Self {
        let output = folder.join("serve.out");
        let child = Command::new(env!("CARGO_BIN_EXE_streamgauge"))
            .args(["serve", "-c"])
            .arg(folder.join("streamgauge.yaml"))
            .env("STREAMGAUGE_WORKERS", workers.to_string())
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&output).unwrap())
            .stderr(std::fs::File::create(folder.join("serve.err")).unwrap())
            .spawn()
            .unwrap();
        let began = Instant::now();
        loop {
            let text = std::fs::read_to_string(&output).unwrap();
            if let Some((_, rest)) = text.split_once("listens on ")
                && let Some((url, _)) = rest.split_once('\n')
            {
                return Self { child, url: url.trim().to_owned() };
            }
            let said = || std::fs::read_to_string(folder.join("serve.err")).unwrap();
            assert!(began.elapsed() < PATIENCE, "the server did not listen: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn get(&self, path: &str) -> Option<Value> {
        let body = ureq::get(format!("{}{path}", self.url)).call().ok()?.body_mut().read_to_string();
        serde_json::from_str(&body.ok()?).ok()
    }

    /// Events counted so far.
    fn counted(&self) -> u64 {
        let answer = self.get("/v1/metrics/w1?window=all&measure=events");
        answer.and_then(|a| a["rows"][0]["events"].as_u64()).unwrap_or(0)
    }

    fn wait_for(&self, events: u64) {
        let began = Instant::now();
        while self.counted() < events {
            assert!(began.elapsed() < PATIENCE, "{} of {events} events after 5 minutes", self.counted());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stops the broker when the test ends, however it ends.
struct Broker(PathBuf);

impl Drop for Broker {
    fn drop(&mut self) {
        kafka(&["stop", "--now"], &self.0);
    }
}

fn produce(bootstrap: &str, events: std::ops::Range<u64>, source: &mut W1, oracle: &mut Oracle) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "100000")
        .create()
        .unwrap();
    let mut line = Vec::new();
    for (number, event) in events.zip(source) {
        oracle.add(&event);
        line.clear();
        event.write(None, &mut line);
        let key = number.to_le_bytes();
        loop {
            let record = BaseRecord::to("orders.raw").key(&key).payload(&line);
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => panic!("{error}"),
            }
        }
    }
    producer.flush(PATIENCE).unwrap();
}

/// All groups, read over HTTP minute by minute.
fn groups(server: &Server, minutes: i64) -> Groups {
    let mut groups = BTreeMap::new();
    for minute in 0..minutes {
        let end = T0 / MINUTE + minute + 1;
        let end = jiff::Timestamp::from_second(end * 60).unwrap();
        let answer = server.get(&format!("/v1/metrics/w1?window=1m&by=region&as_of={end}")).unwrap();
        for row in answer["rows"].as_array().unwrap() {
            let count = |name: &str| row[name].as_u64().unwrap();
            let cents = |name: &str| row[name].as_str().map(|text| text.replace('.', "").parse().unwrap());
            let cell = Cell {
                revenue: cents("revenue").unwrap_or(0),
                n: count("n"),
                bad_amount: count("bad_amount"),
                bad_status: count("bad_status"),
                avg: cents("avg"),
            };
            let region = row["region"].as_str().unwrap().to_owned();
            groups.insert((region, T0 / MINUTE + minute), cell);
        }
    }
    Groups(groups)
}

#[test]
fn a_million_events_survive_the_broker_and_the_server() {
    if std::env::var("KAFKA_TESTS").as_deref() == Ok("0") {
        eprintln!("skipped: KAFKA_TESTS=0");
        return;
    }
    let events: u64 = std::env::var("E2E_EVENTS").map_or(1_000_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let kafka_folder = folder.path().join("kafka");
    let broker = Broker(kafka_folder.clone());
    let said = kafka(&["start"], &kafka_folder);
    let bootstrap = said.lines().find_map(|line| line.strip_prefix("bootstrap=")).unwrap();
    kafka(&["topics", "--create", "--topic", "orders.raw", "--partitions", "3"], &kafka_folder);
    std::fs::write(folder.path().join("contracts.yaml"), contracts()).unwrap();
    let settings = format!(
        "apiVersion: streamgauge/v1\nkind: Settings\ncontracts: [contracts.yaml]\ndata: data/\n\
         server: {{ listen: \"127.0.0.1:0\" }}\nsources:\n  - {{ name: orders, kafka: {{ brokers: \"{bootstrap}\", \
         topics: [orders.raw], start: earliest }}, format: json, \
         envelope: {{ id: event_id, type: event_type, time: created_at }} }}\n"
    );
    std::fs::write(folder.path().join("streamgauge.yaml"), settings).unwrap();

    let server = Server::start(folder.path(), 2);
    let (mut source, mut oracle) = (W1::default(), Oracle::default());
    produce(bootstrap, 0..events / 3, &mut source, &mut oracle);
    // The broker dies and comes back while events are produced.
    let again = kafka_folder;
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        kafka(&["stop", "--now"], &again);
        // The port of a killed broker may answer for a moment.
        std::thread::sleep(Duration::from_secs(2));
        kafka(&["start"], &again);
    });
    produce(bootstrap, events / 3..events * 2 / 3, &mut source, &mut oracle);
    killer.join().unwrap();
    // The server dies and comes back with another number of workers.
    server.kill();
    let server = Server::start(folder.path(), 1);
    produce(bootstrap, events * 2 / 3..events, &mut source, &mut oracle);
    server.wait_for(events);
    let differences = oracle.finish().differences(&groups(&server, events as i64 / MINUTE + 1));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(server.counted(), events);
    drop(server);
    drop(broker);
}
