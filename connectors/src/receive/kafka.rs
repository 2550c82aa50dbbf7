//! Apache Kafka: every partition of the named topics, from given offsets, for ever.
//!
//! *In*: topics (names, globs, regular expressions), offsets. *Out*: chunks in offset order per
//! partition. *Never*: a consumer-group rebalance, an offset taken from the broker's memory of a
//! group, a jump over records that nobody has accepted to lose.
//!
//! Files beside this one: `client` (librdkafka's settings and callbacks), `watch` (a thread
//! that asks for topics, partitions and their ends), `topics` (which topics are meant), `identity` (whether
//! a topic is still the one that was read). This file
//! holds the reading thread.

mod client;
mod identity;
mod parts;
mod schemas;
mod topics;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contracts::batch::Chunk;
use crossbeam_channel::Receiver as ChannelReceiver;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message, OwnedMessage, Timestamp};

use self::client::{Client, Note};
use self::identity::{Mark, Marks};
use self::parts::Parts;
use self::topics::TopicPattern;
use self::watch::{Found, News, Watcher};
use super::offsets::Known;
use super::past::{self, Past};
use super::{BATCH_BYTES, BATCH_ROWS, Feed, LINGER, Offsets, PAUSE_AFTER, Port, ReceiveError};
use super::{Receiver, State, Stop};
use crate::decode::{Decoder, Record};

/// Where to start in a partition that no offset is known for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At the oldest record that is kept.
    #[default]
    Earliest,
    /// At the end, for partitions that exist at the start; a partition that appears later is read
    /// from its beginning, so that nothing is lost between its creation and its discovery.
    Latest,
}

/// A Kafka source, as the settings describe it.
#[derive(Debug, Clone)]
pub struct KafkaSource {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// Topic names; globs (`shop.*`, with `*`, `?`, `[ab]`); regular expressions (starting with `^`).
    pub topics: Vec<String>,
    /// Commit progress to this group, for lag tools only; nothing is ever read back from it.
    pub group: Option<String>,
    /// Where to start without an offset.
    pub start: Start,
    /// How often topics and partitions are looked up again.
    pub metadata_refresh: Duration,
    /// Further librdkafka properties (`security.protocol`, `sasl.*`, ...).
    pub options: BTreeMap<String, String>,
    /// What must be found in partitions.
    pub known: Known,
    /// A file that remembers a record of each partition, to know a topic again.
    pub marks: Option<PathBuf>,
}

impl KafkaSource {
    /// All topics of `topics` on `brokers` from the beginning, everything else by default.
    pub fn new(brokers: impl Into<String>, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            brokers: brokers.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            group: None,
            start: Start::Earliest,
            metadata_refresh: DEFAULT_METADATA_REFRESH,
            options: BTreeMap::new(),
            known: Known::default(),
            marks: None,
        }
    }
}

/// Default of [`KafkaSource::metadata_refresh`].
pub const DEFAULT_METADATA_REFRESH: Duration = Duration::from_secs(5);

/// How long one poll waits when nothing comes.
const POLL: Duration = Duration::from_millis(50);
/// How long after a pause librdkafka's statistics are not believed; two of their intervals.
const SETTLED: Duration = Duration::from_millis(1000);
/// How long the last commit may take.
const LAST_COMMIT: Duration = Duration::from_millis(500);
/// How often progress is committed to the group.
const COMMIT_EVERY: Duration = Duration::from_secs(5);

/// Starts reading. Wrong settings are an error here; an unreachable broker is not: the receiver is
/// then [`State::Connecting`] and retries until it is stopped.
pub fn start(source: &KafkaSource, from: &Offsets, feed: Feed) -> Result<Receiver, ReceiveError> {
    let patterns = topics::parse(&feed.source, &source.topics)?;
    let client = Arc::new(client::connect(&feed.source, source)?);
    let (source, from) = (source.clone(), from.clone());
    Receiver::spawn("kafka", feed, move |port| Reader::new(port, source, &from, patterns, client)?.run())
}

/// Reads what `past` has from before the oldest records the brokers keep, then goes on from there. With
/// [`Start::Latest`] all of it: the brokers' older records are not meant.
///
/// # Errors
/// As [`start`].
pub fn start_after(past: Box<dyn Past>, source: &KafkaSource, feed: Feed) -> Result<Receiver, ReceiveError> {
    let patterns = topics::parse(&feed.source, &source.topics)?;
    let client = Arc::new(client::connect(&feed.source, source)?);
    let source = source.clone();
    Receiver::spawn("kafka", feed, move |port| {
        let from = past::read(port, past, |ends| {
            let found = watch::partitions(&client, &patterns, &port.feed.clock)?;
            let begin = |found: Found| {
                let partition = port.feed.partition(&found.topic, found.number);
                let begin = match source.start {
                    Start::Earliest => found.low,
                    Start::Latest => ends.get(&partition).copied()?,
                };
                Some((partition, (begin, found.high)))
            };
            Ok(found.into_iter().filter_map(begin).collect())
        })?;
        Reader::new(port, source, &from, patterns, client)?.run()
    })
}

/// The batch being filled: rows of one partition.
struct Batch {
    part: usize,
    records: usize,
    bytes: usize,
    tombstones: u64,
    since: Instant,
    /// Its records were folded before; the decoder reads them again for what it remembers of them.
    warms: bool,
}

struct Reader<'a> {
    port: &'a Port,
    source: KafkaSource,
    client: Arc<Client>,
    watcher: Watcher,
    news: ChannelReceiver<News>,
    parts: Parts,
    decoder: Decoder,
    /// The decoder wants topics and keys: tombstones are its matter then.
    keyed: bool,
    batch: Option<Batch>,
    /// Messages that came while the partitions were being paused.
    stash: VecDeque<OwnedMessage>,
    connected: bool,
    /// Named topics that do not exist (yet).
    missing: Vec<String>,
    marks: Marks,
    /// librdkafka said that some partition's offset does not exist (any more).
    lost_offset: bool,
    committed_at: Instant,
    /// When partitions were last resumed after a pause.
    resumed_at: Option<Instant>,
}

impl<'a> Reader<'a> {
    fn new(
        port: &'a Port,
        source: KafkaSource,
        from: &Offsets,
        patterns: Vec<TopicPattern>,
        client: Arc<Client>,
    ) -> Result<Self, Stop> {
        let marks = Marks::load(source.marks.clone()).map_err(Stop::Failed)?;
        let (watcher, news) = Watcher::start(
            &client,
            patterns,
            (&source, marks.all()),
            port.feed.clock.clone(),
            port.stop_flag(),
        )
        .map_err(|e| Stop::Failed(format!("cannot start a thread: {e}")))?;
        let decoder = port.feed.decoder();
        Ok(Self {
            parts: Parts::new(port, &source, from, decoder.remembers()),
            keyed: decoder.wants_keys(),
            decoder,
            port,
            source,
            client,
            watcher,
            news,
            batch: None,
            stash: VecDeque::new(),
            connected: false,
            missing: Vec::new(),
            marks,
            lost_offset: false,
            committed_at: Instant::now(),
            resumed_at: None,
        })
    }

    fn run(mut self) -> Result<(), Stop> {
        while !self.port.stopped() {
            self.take_news()?;
            self.collect()?;
            self.take_notes()?;
            self.commit(false);
        }
        self.commit(true);
        Err(Stop::Asked)
    }

    /// Reads until a batch closes, or nothing came for [`POLL`].
    fn collect(&mut self) -> Result<(), Stop> {
        let client = self.client.clone();
        let mut wait = POLL;
        loop {
            // Older than anything the client still has, so always before it: a later message would
            // move the position past these, and they would be taken for repeated ones.
            if let Some(message) = self.stash.pop_front() {
                if self.take(&message)? {
                    return Ok(());
                }
                continue;
            }
            match client.poll(wait) {
                Some(Ok(message)) => {
                    if self.take(&message)? {
                        return Ok(());
                    }
                }
                Some(Err(error)) => self.broker_error(&error),
                None => {
                    self.close()?;
                    self.mend_lost_offsets();
                    return Ok(());
                }
            }
            match &self.batch {
                // Fresh rows do not wait; rows of the past may as well travel in full batches.
                Some(batch) if batch.since.elapsed() >= LINGER && !self.parts.behind(batch.part) => {
                    return self.close();
                }
                Some(_) => wait = Duration::ZERO,
                None => return Ok(()),
            }
        }
    }

    /// Decodes one message into the open batch; true when that closed it.
    fn take(&mut self, message: &impl Message) -> Result<bool, Stop> {
        self.connected = true;
        let Some(part) = self.parts.find(message.topic(), message.partition()) else {
            return Ok(false); // a partition we have given up
        };
        let offset = message.offset();
        if offset < self.parts.next(part) + i64::from(faults::bug("kafka_up_to")) {
            return Ok(false); // delivered before a pause, and again after it
        }
        let warms = self.parts.warms(part, offset);
        if self.batch.as_ref().is_some_and(|b| b.part != part || b.warms != warms) {
            self.close()?;
        }
        self.await_schemas(message)?;
        let received = self.received(message.timestamp());
        let batch = self.batch.get_or_insert_with(|| Batch {
            part,
            records: 0,
            bytes: 0,
            tombstones: 0,
            since: Instant::now(),
            warms,
        });
        batch.records += 1;
        match message.payload() {
            None if !self.keyed => batch.tombstones += 1,
            value => {
                let value = value.unwrap_or_default();
                batch.bytes += value.len();
                let headers = headers(message);
                let record = Record { value, offset, received, headers: &headers };
                if self.keyed {
                    self.decoder.push_keyed(record, message.topic(), message.key());
                } else {
                    self.decoder.push(record);
                }
            }
        }
        if !warms && self.parts.wants_mark(part) {
            self.marks.put(Mark::of(message));
        }
        self.parts.advance(part, offset + 1);
        faults::point("kafka.after_poll");
        if batch.records >= BATCH_ROWS || batch.bytes >= BATCH_BYTES {
            self.close()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Microseconds: the broker's time as it is, the producer's at most now, and now if there is none.
    fn received(&self, timestamp: Timestamp) -> i64 {
        let now = (self.port.feed.clock)();
        match timestamp {
            Timestamp::LogAppendTime(ms) if ms > 0 => ms.saturating_mul(1000),
            Timestamp::CreateTime(ms) if ms > 0 => ms.saturating_mul(1000).min(now),
            _ => now,
        }
    }

    /// Closes the open batch and hands it on.
    fn close(&mut self) -> Result<(), Stop> {
        let Some(batch) = self.batch.take() else { return Ok(()) };
        let (partition, next, end) = self.parts.position(batch.part);
        let mut chunk = self.decoder.finish(&partition, next, end);
        chunk.skipped += batch.tombstones;
        chunk.received += batch.tombstones;
        if !batch.warms {
            faults::point("kafka.before_hand_on");
            self.hand_on(chunk)?;
        }
        self.parts.report(batch.part);
        self.set_state();
        Ok(())
    }

    /// Hands a chunk on. While the engine is busy the partitions are paused and the client is still
    /// polled, so that its own queue stays small and its connections alive.
    fn hand_on(&mut self, chunk: Chunk) -> Result<(), Stop> {
        let Some(mut chunk) = self.port.offer(chunk, PAUSE_AFTER)? else { return Ok(()) };
        let assigned = self.parts.assigned();
        if let Err(error) = self.client.pause(&assigned) {
            self.port.status.error(format!("cannot pause: {error}"));
        }
        self.port.status.set_state(State::Paused);
        let client = self.client.clone();
        loop {
            match self.port.offer(chunk, Duration::from_millis(20))? {
                None => break,
                Some(back) => chunk = back,
            }
            if self.port.stopped() {
                return Err(Stop::Asked);
            }
            if self.stash.len() >= BATCH_ROWS {
                continue; // more than a paused client can have left
            }
            match client.poll(Duration::from_millis(1)) {
                Some(Ok(message)) => self.stash.push_back(message.detach()),
                Some(Err(error)) => self.broker_error(&error),
                None => {}
            }
        }
        if let Err(error) = self.client.resume(&assigned) {
            self.port.status.error(format!("cannot resume: {error}"));
        }
        self.resumed_at = Some(Instant::now());
        Ok(())
    }

    fn broker_error(&mut self, error: &KafkaError) {
        use RDKafkaErrorCode as Code;
        let KafkaError::MessageConsumption(code) = error else {
            return self.port.status.error(format!("Kafka: {error}"));
        };
        match code {
            Code::PartitionEOF | Code::NoError => {}
            Code::AutoOffsetReset | Code::OffsetOutOfRange => {
                self.lost_offset = true;
                self.watcher.hurry();
            }
            Code::AllBrokersDown => {
                self.connected = false;
                self.watcher.hurry();
                self.lost_contact(format!("no broker of `{}` answers", self.source.brokers));
            }
            Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut => {
                self.watcher.hurry();
                self.port.status.error(self.client.reason(*code));
            }
            _ => self.port.status.error(self.client.reason(*code)),
        }
    }

    fn lost_contact(&mut self, message: String) {
        self.connected = false;
        self.port.status.error(message);
        self.set_state();
    }

    fn take_news(&mut self) -> Result<(), Stop> {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Partitions { found, missing } => {
                    self.connected = true;
                    for topic in &missing {
                        self.port.status.error(absent(topic));
                    }
                    self.missing = missing;
                    for part in self.parts.update(self.port, &self.client, &found) {
                        // Known from the start, so that nothing is forgotten that its first records may repeat.
                        self.tell(part, None)?;
                    }
                    self.settle(&found)?;
                }
                News::Unreachable(message) => self.lost_contact(message),
            }
            self.set_state();
        }
        Ok(())
    }

    /// Says of partitions that have been read to the end the brokers just named that nothing older comes.
    fn settle(&mut self, found: &[Found]) -> Result<(), Stop> {
        for found in found {
            let Some(part) = self.parts.find(&found.topic, found.number) else { continue };
            let open = !self.stash.is_empty() || self.batch.as_ref().is_some_and(|batch| batch.part == part);
            if !open && self.parts.next(part) >= found.high && self.parts.settles(part, found.asked) {
                self.tell(part, Some(found.asked))?;
            }
        }
        Ok(())
    }

    /// Hands on where a partition stands, without a record.
    fn tell(&mut self, part: usize, settled: Option<i64>) -> Result<(), Stop> {
        let (partition, next, end) = self.parts.position(part);
        let chunk = self.decoder.finish(&partition, next, end);
        self.hand_on(Chunk { settled, ..chunk })
    }

    /// Positions that moved without a record (control records of transactions, aborted records), and
    /// ends, from librdkafka's statistics.
    fn take_notes(&mut self) -> Result<(), Stop> {
        // A pause empties librdkafka's queue without handing it over; statistics from then, or from
        // before the fetcher went back, must not be read as "everything was handed over".
        let settled = self.resumed_at.is_none_or(|at| at.elapsed() >= SETTLED);
        for note in self.client.take_notes() {
            let settled = settled && self.stash.is_empty();
            let Note { topic, number, end, drained_to } = note;
            let Some(part) = self.parts.find(&topic, number) else { continue };
            self.parts.set_end(part, end);
            if let Some(to) = drained_to.filter(|to| settled && *to > self.parts.next(part)) {
                self.parts.advance(part, to);
                self.tell(part, None)?;
            }
            self.parts.report(part);
        }
        self.set_state();
        Ok(())
    }

    /// After librdkafka reported a lost offset, and once everything it had fetched is taken.
    fn mend_lost_offsets(&mut self) {
        if self.lost_offset && self.parts.mend(self.port, &self.client) {
            self.lost_offset = false;
            self.set_state();
        }
    }

    fn set_state(&self) {
        let state = match (self.parts.halted(), self.connected) {
            (Some(why), _) => State::Failed(why),
            (None, false) => State::Connecting,
            // Never "running": nobody would look for the slip in the topic's name.
            (None, true) if !self.missing.is_empty() => {
                State::Waiting(self.missing.iter().map(|t| absent(t)).collect::<Vec<_>>().join("; "))
            }
            (None, true) if self.parts.caught_up() => State::Running,
            (None, true) => State::CatchingUp,
        };
        self.port.status.set_state(state);
    }

    /// Remembers what was read last; a disk that is full for a moment is tried again.
    fn keep_marks(&mut self) {
        if let Err(error) = self.marks.save() {
            tracing::warn!(source = %self.port.feed.source, %error, "the marks of topics cannot be kept");
        }
        self.parts.want_marks();
    }

    fn commit(&mut self, last: bool) {
        if !last && self.committed_at.elapsed() < COMMIT_EVERY {
            return;
        }
        self.committed_at = Instant::now();
        self.keep_marks();
        if self.source.group.is_none() {
            return;
        }
        let positions = self.parts.moved();
        if positions.count() > 0 {
            faults::point("kafka.before_commit");
            // Never a synchronous commit: with the broker gone it would hold the end of the program.
            if let Err(error) = self.client.commit(&positions, CommitMode::Async) {
                tracing::debug!(source = %self.port.feed.source, "commit for lag tools: {error}");
            }
            faults::point("kafka.after_commit");
            if last && self.connected {
                self.client.poll(LAST_COMMIT);
            }
        }
    }
}

fn absent(topic: &str) -> String {
    format!("topic `{topic}` does not exist (yet)")
}

/// The headers a CloudEvent in binary mode carries its attributes in.
fn headers<M: Message>(message: &M) -> Vec<(&str, &[u8])> {
    let Some(headers) = message.headers() else { return Vec::new() };
    headers.iter().filter_map(|h| Some((h.key, h.value?))).collect()
}
