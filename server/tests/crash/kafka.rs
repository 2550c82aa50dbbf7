//! A real Kafka that outlives the servers, and what it acknowledged.
//!
//! *In*: numbers of events. *Out*: records in two partitions, some of them twice. *Never*: a record that counts before
//! the broker has acknowledged it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::oracle::{self, Rng};

const PATIENCE: Duration = Duration::from_secs(90);

fn script(args: &[&str], folder: &Path) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/kafka.sh");
    let run = Command::new(script).args(args).arg("--dir").arg(folder).output().unwrap();
    assert!(run.status.success(), "kafka.sh {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// A broker; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    folder: PathBuf,
    /// `127.0.0.1:PORT`.
    pub(crate) bootstrap: String,
}

impl Broker {
    /// Starts one; `None` with `KAFKA_TESTS=0`.
    pub(crate) fn start(folder: &Path) -> Option<Self> {
        if std::env::var("KAFKA_TESTS").as_deref() == Ok("0") {
            eprintln!("KAFKA_TESTS=0: no events come from Kafka");
            return None;
        }
        let folder = folder.to_owned();
        let said = script(&["start"], &folder);
        let bootstrap = said.lines().find_map(|line| line.strip_prefix("bootstrap=")).unwrap().to_owned();
        Some(Self { folder, bootstrap })
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// A topic of two partitions, and a producer for it.
    pub(crate) fn topic(&self, name: &str) -> Topic {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let new = NewTopic::new(name, 2, TopicReplication::Fixed(1));
        let made = futures::executor::block_on(admin.create_topics(&[new], &AdminOptions::new())).unwrap();
        made[0].as_ref().unwrap();
        let producer = self
            .config()
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            // A broker that is away is waited for.
            .set("message.timeout.ms", "600000")
            .create_with_context(Acks::default())
            .unwrap();
        Topic { name: name.to_owned(), bootstrap: self.bootstrap.clone(), producer, next: 0 }
    }

    /// Kills the broker and starts it again, beside what goes on.
    pub(crate) fn bounce(&self) -> JoinHandle<()> {
        let folder = self.folder.clone();
        std::thread::spawn(move || {
            script(&["stop", "--now"], &folder);
            // The port of a killed broker may answer for a moment.
            std::thread::sleep(Duration::from_secs(2));
            script(&["start"], &folder);
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        script(&["stop", "--now"], &self.folder);
    }
}

/// What the broker acknowledged.
#[derive(Debug, Default)]
struct Acks(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// Numbers, one per record.
    records: Vec<u64>,
    failed: Vec<String>,
}

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let mut told = self.0.lock().unwrap();
        match result {
            Ok(_) => told.records.push(number as u64),
            Err((error, _)) => told.failed.push(error.to_string()),
        }
    }
}

/// A topic that is written to.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) bootstrap: String,
    producer: BaseProducer<Acks>,
    next: u64,
}

impl Topic {
    /// Hands some events to the producer; the broker acknowledges them when it can.
    pub(crate) fn send(&mut self, rng: &mut Rng) {
        for _ in 0..1 + rng.next(30) {
            let one = self.next;
            self.next += 1;
            self.produce(one, one % 2);
            if one % 13 == 3 {
                self.produce(one, (one + 1) % 2);
            }
            if let Some(before) = one.checked_sub(19).filter(|_| one % 19 == 7) {
                // The other partition than the first time, and long after.
                self.produce(before, one % 2);
            }
            if one % 11 == 4 {
                (0..2).for_each(|copy| self.put(oracle::claim(one / 11, copy), copy));
            }
        }
        self.producer.poll(Duration::ZERO);
    }

    fn produce(&self, one: u64, partition: u64) {
        self.put(2 * one + 1, partition);
    }

    fn put(&self, number: u64, partition: u64) {
        let event = oracle::event(number);
        let record = BaseRecord::<(), str, usize>::with_opaque_to(&self.name, number as usize);
        let record = record.partition(partition as i32).payload(&event);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    /// Waits until all is acknowledged: the good ones, records in all, refused records.
    pub(crate) fn acknowledged(&self) -> (BTreeSet<u64>, u64, u64) {
        self.producer.flush(PATIENCE).unwrap();
        let told = self.producer.context().0.lock().unwrap();
        assert!(told.failed.is_empty(), "the broker did not take records: {:?}", told.failed);
        let bad = told.records.iter().filter(|n| oracle::is_bad(**n)).count() as u64;
        let good = told.records.iter().copied().filter(|n| !oracle::is_bad(*n)).collect();
        (good, told.records.len() as u64, bad)
    }
}
