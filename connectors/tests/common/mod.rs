//! A real Kafka broker, a plain producer, and a feed with one small contract.

use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use connectors::decode::{DecodeSpec, Envelope};
use connectors::receive::{Feed, wall_clock};
use contracts::SourceFile;
use contracts::batch::Chunk;
use crossbeam_channel::Receiver as Chunks;
use futures::executor::block_on;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::Offset;

const CONTRACTS: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: reading
version: 1.0.0
fields:
  n: { type: int, required: true }
  place: { type: string }
"#;
const LONG: Duration = Duration::from_secs(20);

/// A feed named `source` whose channel holds `room` chunks.
pub(crate) fn feed(source: &str, room: usize) -> (Feed, Chunks<Chunk>) {
    let loaded = contracts::load(&[SourceFile::new("reading.yaml", CONTRACTS)]);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let path = |name: &str| Some(vec![name.to_owned()]);
    let envelope = Envelope { id: path("id"), event_type: None, time: path("at"), tenant: None };
    let decode = DecodeSpec { envelope, fixed_type: Some("reading".into()), ..DecodeSpec::default() };
    let (chunks, out) = crossbeam_channel::bounded(room);
    let catalog = Arc::new(loaded.catalog);
    (Feed { source: source.into(), catalog, decode, chunks, clock: wall_clock() }, out)
}

pub(crate) fn now_ms() -> i64 {
    wall_clock()() / 1000
}

pub(crate) fn event(n: i64) -> String {
    format!(r#"{{"id":"e{n}","at":"2025-12-01T00:30:00Z","n":{n}}}"#)
}

/// (offset, n) of all rows.
pub(crate) fn rows(chunk: &Chunk) -> Vec<(i64, i64)> {
    use arrow::array::AsArray;
    let mut out = Vec::new();
    for batch in &chunk.batches {
        let n = batch.columns.column_by_name("n").unwrap();
        let n = n.as_primitive::<arrow::datatypes::Int64Type>();
        out.extend(batch.offsets.iter().copied().zip(n.values().iter().copied()));
    }
    out
}

/// Takes chunks until `count` rows have come.
pub(crate) fn collect(chunks: &Chunks<Chunk>, count: u64) -> Vec<Chunk> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let (mut out, mut have) = (Vec::new(), 0);
    // Where partitions stand is told again and again: only rows are waited for.
    let mut until = Instant::now() + PATIENCE;
    while have < count {
        let got = chunks.recv_deadline(until);
        let chunk = got.unwrap_or_else(|_| panic!("{have} of {count} rows came, then nothing for 30 s"));
        have += chunk.received;
        if chunk.received > 0 {
            until = Instant::now() + PATIENCE;
        }
        out.push(chunk);
    }
    assert_eq!(have, count, "no more than there are");
    out
}

/// Apache Kafka, started by `scripts/kafka.sh`.
pub(crate) struct Broker {
    pub(crate) bootstrap: String,
    folder: PathBuf,
    /// Stopped and removed at the end; the shared one is, by a watching shell.
    own: bool,
}

fn script(args: &[&str]) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/kafka.sh");
    let run = Command::new(path).args(args).output().expect("scripts/kafka.sh can be run");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "scripts/kafka.sh {args:?}: {said}");
    String::from_utf8_lossy(&run.stdout).into_owned()
}

fn wanted() -> bool {
    let wanted = std::env::var("KAFKA_TESTS").as_deref() != Ok("0");
    if !wanted {
        eprintln!("skipped: KAFKA_TESTS=0");
    }
    wanted
}

impl Broker {
    fn started(mut self) -> Broker {
        self.restart();
        self
    }

    /// One broker for all tests of the program; a watching shell stops it when the program ends,
    /// however it ends.
    pub(crate) fn shared() -> Option<&'static Broker> {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        wanted().then(|| {
            SHARED.get_or_init(|| {
                let folder = tempfile::tempdir().unwrap().keep();
                let broker = Broker { bootstrap: String::new(), folder: folder.clone(), own: false }.started();
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/kafka.sh");
                let watch = r#"while kill -0 "$0" 2>/dev/null; do sleep 0.5; done; "$1" stop --now --dir "$2"; rm -rf "$2""#;
                Command::new("setsid")
                    .args(["bash", "-c", watch, &std::process::id().to_string(), script])
                    .arg(&folder)
                    .stdin(std::process::Stdio::null())
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null())
                    .spawn()
                    .unwrap();
                broker
            })
        })
    }

    /// A broker that a test may kill.
    pub(crate) fn of_its_own() -> Option<Broker> {
        wanted().then(|| {
            let folder = tempfile::tempdir().unwrap().keep();
            Broker { bootstrap: String::new(), folder, own: true }.started()
        })
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        script(&["stop", "--now", "--dir", self.folder.to_str().unwrap()]);
    }

    /// Starts it again on the same port and data.
    pub(crate) fn restart(&mut self) {
        let said = script(&["start", "--dir", self.folder.to_str().unwrap()]);
        self.bootstrap = said.trim().strip_prefix("bootstrap=").expect("bootstrap=...").to_owned();
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("message.max.bytes", "40000000");
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }

    pub(crate) fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        let made = block_on(self.admin().create_topics(&[new], &AdminOptions::new())).unwrap();
        assert_eq!(made, [Ok(topic.to_owned())]);
    }

    /// Deletes a topic; returns once no broker knows it.
    pub(crate) fn delete(&self, topic: &str) {
        let gone = block_on(self.admin().delete_topics(&[topic], &AdminOptions::new())).unwrap();
        assert_eq!(gone, [Ok(topic.to_owned())]);
        let consumer: BaseConsumer = self.config().create().unwrap();
        let known = || {
            let all = consumer.fetch_metadata(None, LONG).unwrap();
            all.topics().iter().any(|known| known.name() == topic)
        };
        while known() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn add_partitions(&self, topic: &str, count: usize) {
        let new = NewPartitions::new(topic, count);
        let made = block_on(self.admin().create_partitions(&[new], &AdminOptions::new())).unwrap();
        assert_eq!(made, [Ok(topic.to_owned())]);
    }

    /// What retention does: records before `offset` are gone.
    pub(crate) fn delete_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        block_on(self.admin().delete_records(&list, &AdminOptions::new())).unwrap();
    }

    /// Events with these numbers, spread over the topic's partitions.
    pub(crate) fn produce(&self, topic: &str, numbers: Range<i64>) {
        let producer: BaseProducer = self.config().set("linger.ms", "5").create().unwrap();
        for n in numbers {
            let (key, value) = (n.to_string(), event(n));
            push(&producer, BaseRecord::to(topic).key(&key).payload(&value));
        }
        producer.flush(LONG).unwrap();
    }

    pub(crate) fn produce_to(&self, topic: &str, partition: i32, numbers: Range<i64>) {
        for n in numbers {
            self.send(topic, partition, Some(event(n).as_bytes()), None);
        }
    }

    /// One record, waited for.
    pub(crate) fn send(&self, topic: &str, partition: i32, value: Option<&[u8]>, timestamp_ms: Option<i64>) {
        static PRODUCERS: OnceLock<parking_lot::Mutex<std::collections::HashMap<String, Arc<BaseProducer>>>> =
            OnceLock::new();
        let producer = {
            let mut producers = PRODUCERS.get_or_init(Default::default).lock();
            let made = || Arc::new(self.config().set("linger.ms", "0").create().unwrap());
            producers.entry(self.bootstrap.clone()).or_insert_with(made).clone()
        };
        let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition);
        record.payload = value;
        record.timestamp = timestamp_ms;
        push(&producer, record);
        producer.flush(LONG).unwrap();
    }

    /// One record with a key to partition 0, waited for; nothing is a tombstone.
    #[allow(dead_code)] // not every test file has keys
    pub(crate) fn send_keyed(&self, topic: &str, key: &[u8], value: Option<&[u8]>) {
        let producer: BaseProducer = self.config().set("linger.ms", "0").create().unwrap();
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).key(key);
        record.payload = value;
        push(&producer, record);
        producer.flush(LONG).unwrap();
    }

    /// The same value `count` times to partition 0.
    pub(crate) fn send_many(&self, topic: &str, value: &[u8], count: usize) {
        let producer: BaseProducer = self.config().set("linger.ms", "5").create().unwrap();
        for _ in 0..count {
            push(&producer, BaseRecord::<(), [u8]>::to(topic).partition(0).payload(value));
        }
        producer.flush(LONG).unwrap();
    }

    /// Events of one transaction, committed or aborted.
    pub(crate) fn produce_transaction(&self, topic: &str, numbers: Range<i64>, commit: bool) {
        let id = format!("tx-{}", numbers.start);
        let producer: BaseProducer = self.config().set("transactional.id", id).create().unwrap();
        producer.init_transactions(LONG).unwrap();
        producer.begin_transaction().unwrap();
        for n in numbers {
            let value = event(n);
            push(&producer, BaseRecord::<(), str>::to(topic).payload(&value));
        }
        producer.flush(LONG).unwrap();
        let end = if commit { producer.commit_transaction(LONG) } else { producer.abort_transaction(LONG) };
        end.unwrap();
    }

    /// What lag tools see.
    pub(crate) fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let consumer: BaseConsumer = self.config().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let committed = consumer.committed_offsets(list, LONG).unwrap();
        committed.elements()[0].offset().to_raw().filter(|o| *o >= 0)
    }
}

/// Queues a record, waiting while the producer's queue is full.
fn push<K: rdkafka::message::ToBytes + ?Sized, P: rdkafka::message::ToBytes + ?Sized>(
    producer: &BaseProducer,
    record: BaseRecord<'_, K, P>,
) {
    let mut record = record;
    loop {
        match producer.send(record) {
            Ok(()) => break,
            Err((KafkaError::MessageProduction(rdkafka::error::RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => panic!("{error}"),
        }
    }
    producer.poll(Duration::ZERO);
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.own {
            script(&["stop", "--now", "--dir", self.folder.to_str().unwrap()]);
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
