//! librdkafka's settings and callbacks.
//!
//! *In*: a [`KafkaSource`]. *Out*: a consumer, the reason of its last error, and per partition what
//! its statistics say. *Never*: automatic commits, automatic offset resets, created topics.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;

use super::KafkaSource;
use crate::receive::ReceiveError;

/// How often librdkafka reports statistics: ends of partitions, and how far they are drained.
const STATISTICS: Duration = Duration::from_millis(500);

/// What the statistics say of one partition.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) topic: String,
    pub(super) number: i32,
    /// Exclusive end that a reader of committed records can reach.
    pub(super) end: Option<i64>,
    /// Every record below this offset has been handed to us.
    pub(super) drained_to: Option<i64>,
}

/// Receives librdkafka's callbacks; all of them run inside `poll` on the reading thread.
pub(super) struct Context {
    source: Arc<str>,
    notes: Mutex<Vec<Note>>,
    reason: Mutex<String>,
    logged: Mutex<HashMap<String, Instant>>,
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let mut notes = Vec::new();
        for topic in statistics.topics.into_values() {
            for (number, p) in topic.partitions {
                if number < 0 {
                    continue; // librdkafka's internal "unassigned" partition
                }
                let known = |offset: i64| (offset >= 0).then_some(offset);
                let end = known(p.ls_offset).or(known(p.hi_offset));
                // The fetcher stands at the end, and our queue is empty: all before it was taken.
                let drained = p.fetchq_cnt == 0 && known(p.eof_offset).is_some();
                let drained_to = (drained && p.eof_offset >= p.app_offset).then_some(p.eof_offset);
                notes.push(Note { topic: topic.topic.clone(), number, end, drained_to });
            }
        }
        *self.notes.lock() = notes;
    }

    fn error(&self, error: KafkaError, reason: &str) {
        *self.reason.lock() = format!("{error}: {reason}");
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // A broker that is down is said once a minute per kind of message, not at every attempt.
        let mut logged = self.logged.lock();
        let now = Instant::now();
        let quiet = logged.get(facility).is_some_and(|at| now - *at < Duration::from_secs(60));
        if !quiet {
            logged.insert(facility.to_owned(), now);
            tracing::debug!(source = %self.source, level = ?level, facility, "librdkafka: {message}");
        }
    }
}

impl ConsumerContext for Context {}

/// A consumer with our callbacks.
pub(super) struct Client {
    consumer: BaseConsumer<Context>,
}

impl std::ops::Deref for Client {
    type Target = BaseConsumer<Context>;
    fn deref(&self) -> &Self::Target {
        &self.consumer
    }
}

impl Client {
    /// Newest statistics, once each.
    pub(super) fn take_notes(&self) -> Vec<Note> {
        use rdkafka::consumer::Consumer;
        std::mem::take(&mut *self.consumer.context().notes.lock())
    }

    /// librdkafka's words for the error just polled.
    pub(super) fn reason(&self, code: RDKafkaErrorCode) -> String {
        use rdkafka::consumer::Consumer;
        let reason = self.consumer.context().reason.lock();
        if reason.is_empty() { format!("Kafka: {code}") } else { format!("Kafka: {reason}") }
    }
}

/// Properties that the receiver's correctness rests on, with what to do instead.
const OURS: [(&str, &str); 8] = [
    ("bootstrap.servers", "set `brokers`"),
    ("metadata.broker.list", "set `brokers`"),
    ("group.id", "set `group`"),
    ("auto.offset.reset", "set `start`"),
    ("enable.auto.commit", "offsets are kept by Streamgauge"),
    ("enable.auto.offset.store", "offsets are kept by Streamgauge"),
    ("enable.partition.eof", "it is not needed"),
    ("statistics.interval.ms", "lag is measured by it"),
];

pub(super) fn connect(name: &Arc<str>, source: &KafkaSource) -> Result<Client, ReceiveError> {
    let wrong = |setting: &str, found: &str, problem: String| ReceiveError::Setting {
        source_name: name.to_string(),
        setting: setting.into(),
        found: found.into(),
        problem,
    };
    if source.brokers.trim().is_empty() {
        return Err(wrong("kafka.brokers", "", "name at least one broker as host:port".into()));
    }
    let mut config = defaults(source);
    for (key, value) in &source.options {
        if let Some((_, instead)) = OURS.iter().find(|(ours, _)| ours == key) {
            return Err(wrong(&format!("kafka.options.{key}"), value, format!("is not open: {instead}")));
        }
        config.set(key, value);
    }
    let context = Context {
        source: name.clone(),
        notes: Mutex::default(),
        reason: Mutex::default(),
        logged: Mutex::default(),
    };
    let consumer = config.create_with_context(context).map_err(|error| match error {
        KafkaError::ClientConfig(_, description, key, value) => {
            wrong(&format!("kafka.options.{key}"), &value, description)
        }
        // librdkafka's sentence names the property ("ssl.ca.location failed: ...").
        other => wrong("kafka", &source.brokers, other.to_string()),
    })?;
    Ok(Client { consumer })
}

/// A consumer that is asked for single records; the properties have been checked by [`connect`].
pub(super) fn probe(source: &KafkaSource) -> Result<BaseConsumer, KafkaError> {
    let mut config = defaults(source);
    for (key, value) in &source.options {
        config.set(key, value);
    }
    config
        .set("enable.partition.eof", "true")
        .set("statistics.interval.ms", "0")
        .set("fetch.max.bytes", "1048576");
    config.create()
}

fn defaults(source: &KafkaSource) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &source.brokers)
        .set("client.id", "streamgauge")
        // librdkafka assigns partitions only to a consumer with a group name; it never joins it.
        .set("group.id", source.group.as_deref().unwrap_or("streamgauge"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        .set("statistics.interval.ms", STATISTICS.as_millis().to_string())
        // Bounds on what is fetched ahead of the decoder: 32 MiB over all partitions.
        .set("queued.max.messages.kbytes", "32768")
        .set("queued.min.messages", "50000")
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.max.bytes", "33554432")
        // Kafka sends at least one message, however large; up to here it is taken (and, above the
        // source's record limit, refused as `oversize`).
        .set("receive.message.max.bytes", "268435456")
        // Defaults of 1 s and 10 s would be seen as stale numbers after a busy moment or an outage.
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.error.backoff.ms", "50")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.nagle.disable", "true")
        .set("topic.metadata.refresh.interval.ms", source.metadata_refresh.as_millis().max(10).to_string());
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}
