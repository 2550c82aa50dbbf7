//! The sender: events of W2, each when it is due.
//!
//! *In*: the schedule. *Out*: events on Kafka or pushed, when each was acknowledged, the true answers.
//! *Never*: a wait for the server: what is late is sent at once, and its lateness counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::broker::Broker;
use super::schedule::Schedule;
use super::serve::Server;
use super::{FIRST, Options, PATIENCE, Start};
use crate::answers::Cell;
use crate::error::Error;
use crate::stats::Recorder;
use crate::w1::{Event, W2};

/// What was sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Per region.
    pub(crate) truth: BTreeMap<&'static str, Cell>,
    /// Due until handed to the client library or the socket.
    pub(crate) late: Recorder,
    /// Due until acknowledged.
    pub(crate) acknowledged: Recorder,
}

/// Pushes hold at most this many events, well below the usual `limits.body`.
const PUSH: u64 = 2_000;

/// The sender.
pub(crate) struct Sender {
    events: W2,
    truth: BTreeMap<&'static str, Cell>,
    line: Vec<u8>,
    road: Road,
}

enum Road {
    Kafka { producer: ThreadedProducer<Acks>, acks: Acks, brokers: String, topic: String },
    Push { agent: ureq::Agent, url: String },
}

impl Sender {
    /// Nothing is sent yet.
    pub(crate) fn new(broker: Option<&Broker>, schedule: &Schedule) -> Result<Self, Error> {
        let road = match broker {
            Some(broker) => {
                let acks = Acks(Arc::new(Mutex::new(Books::new(*schedule))));
                let producer = producer(&broker.brokers, acks.clone())?;
                Road::Kafka { producer, acks, brokers: broker.brokers.clone(), topic: broker.topic.clone() }
            }
            None => Road::Push { agent: super::serve::agent(PATIENCE), url: String::new() },
        };
        Ok(Self { events: W2::new(1), truth: BTreeMap::new(), line: Vec::new(), road })
    }

    /// Produces event 0 and waits until it is acknowledged. (A push needs the server first.)
    pub(crate) fn first(&mut self, options: &Options) -> Result<(), Error> {
        if let Road::Push { .. } = self.road {
            return Ok(());
        }
        self.produce(0, now_ms(), None)?;
        let Road::Kafka { acks, brokers, .. } = &self.road else { return Ok(()) };
        let began = Instant::now();
        loop {
            let books = acks.0.lock();
            match &books.failed {
                Some(error) => return Err(Error::Unreachable(format!("Kafka took no event: {error}"))),
                None if books.acknowledged > 0 => return Ok(()),
                None if began.elapsed() > FIRST => {
                    let what =
                        format!("Kafka at {brokers} acknowledged no event within {FIRST:?}{}", books.trouble);
                    return Err(Error::Unreachable(what));
                }
                None => drop(books),
            }
            if options.stopped() {
                return Err(Error::Interrupted);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Learns where the server is; on the road `push`, event 0 goes there now.
    pub(crate) fn server(&mut self, server: &Server) -> Result<(), Error> {
        let Road::Push { url, .. } = &mut self.road else { return Ok(()) };
        *url = format!("{}/v1/events?wait=0", server.url());
        let event = self.next(now_ms());
        self.line.clear();
        event.write(Some(0), &mut self.line);
        let body = std::mem::take(&mut self.line);
        self.push(&body)
    }

    /// Sends everything else, each event in its tick.
    pub(crate) fn run(mut self, options: &Options, schedule: &Schedule, start: Start) -> Result<Sent, Error> {
        let mut sent = Sent::default();
        if let Road::Kafka { acks, .. } = &self.road {
            acks.0.lock().start = Some(start);
        }
        let mut event = 1;
        for tick in 0..schedule.ticks() {
            if options.stopped() {
                return Err(Error::Interrupted);
            }
            let due = schedule.due_before(tick + 1);
            if due == event {
                continue;
            }
            std::thread::sleep(start.due(tick).saturating_duration_since(Instant::now()));
            match self.road {
                Road::Kafka { .. } => self.produce_tick(event..due, schedule, start, &mut sent)?,
                // A push that is late takes everything along that has become due meanwhile.
                Road::Push { .. }
                    if due < schedule.events() && is_past(start.due(tick + 1)) && due - event < PUSH =>
                {
                    continue;
                }
                Road::Push { .. } => self.push_ticks(event..due, schedule, start, &mut sent)?,
            }
            event = due;
        }
        self.finish(sent)
    }

    /// The next event, counted.
    fn next(&mut self, ts: i64) -> Event {
        let event = self.events.at(ts);
        self.truth.entry(event.region).or_default().add(event.cents, event.good_status());
        event
    }

    fn produce_tick(
        &mut self,
        events: std::ops::Range<u64>,
        schedule: &Schedule,
        start: Start,
        sent: &mut Sent,
    ) -> Result<(), Error> {
        for number in events {
            let tick = schedule.tick_of(number);
            self.produce(number, start.wall + tick as i64, Some(start.due(tick)))?;
            if number >= schedule.first_scored() {
                sent.late.add(start.due(tick).elapsed());
            }
        }
        Ok(())
    }

    /// Hands one event to the client library, waiting while its queue is full.
    fn produce(&mut self, number: u64, ts: i64, due: Option<Instant>) -> Result<(), Error> {
        let event = self.next(ts);
        self.line.clear();
        event.write(Some(number), &mut self.line);
        let Road::Kafka { producer, topic, .. } = &self.road else { return Ok(()) };
        let opaque = usize::try_from(number).unwrap_or(usize::MAX);
        let began = due.unwrap_or_else(Instant::now);
        let mut record =
            BaseRecord::<(), [u8], usize>::with_opaque_to(topic, opaque).partition(0).payload(&self.line[..]);
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if began.elapsed() < PATIENCE =>
                {
                    record = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(Error::Unreachable(format!("Kafka takes no event: {error}"))),
            }
        }
    }

    fn push_ticks(
        &mut self,
        events: std::ops::Range<u64>,
        schedule: &Schedule,
        start: Start,
        sent: &mut Sent,
    ) -> Result<(), Error> {
        let mut body = Vec::with_capacity((events.end - events.start) as usize * 300);
        for number in events.clone() {
            let event = self.next(start.wall + schedule.tick_of(number) as i64);
            event.write(Some(number), &mut body);
            body.push(b'\n');
        }
        let scored = events.filter(|number| *number >= schedule.first_scored());
        let dues: Vec<Instant> = scored.map(|number| start.due(schedule.tick_of(number))).collect();
        dues.iter().for_each(|due| sent.late.add(due.elapsed()));
        self.push(&body)?;
        dues.iter().for_each(|due| sent.acknowledged.add(due.elapsed()));
        Ok(())
    }

    fn push(&self, body: &[u8]) -> Result<(), Error> {
        let Road::Push { agent, url } = &self.road else { return Ok(()) };
        super::serve::push(agent, url, body)
    }

    fn finish(self, mut sent: Sent) -> Result<Sent, Error> {
        sent.truth = self.truth;
        if let Road::Kafka { producer, acks, .. } = self.road {
            let flushed = producer.flush(PATIENCE);
            flushed.map_err(|error| Error::Unreachable(format!("Kafka did not take all events: {error}")))?;
            let mut books = acks.0.lock();
            if let Some(error) = &books.failed {
                return Err(Error::Unreachable(format!("Kafka lost an event: {error}")));
            }
            sent.acknowledged = std::mem::take(&mut books.latency);
        }
        Ok(sent)
    }
}

fn is_past(instant: Instant) -> bool {
    instant <= Instant::now()
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Settings for low latency that keep the order and lose nothing.
fn producer(brokers: &str, acks: Acks) -> Result<ThreadedProducer<Acks>, Error> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("client.id", "streamgauge-bench")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // The events of one tick share a request; the next tick does not wait for them.
        .set("linger.ms", "0.1")
        .set("socket.nagle.disable", "true")
        .set("queue.buffering.max.messages", "1000000")
        .set("message.timeout.ms", "60000")
        .create_with_context(acks)
        .map_err(|error| Error::Usage(format!("--brokers {brokers}: {error}")))
}

/// Which events Kafka has, and how long after they were due.
struct Books {
    schedule: Schedule,
    start: Option<Start>,
    acknowledged: u64,
    latency: Recorder,
    failed: Option<String>,
    /// What librdkafka last said, for a message.
    trouble: String,
}

impl Books {
    fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            start: None,
            acknowledged: 0,
            latency: Recorder::default(),
            failed: None,
            trouble: String::new(),
        }
    }
}

#[derive(Clone)]
struct Acks(Arc<Mutex<Books>>);

impl ClientContext for Acks {
    fn error(&self, _error: KafkaError, reason: &str) {
        // A passing trouble; what stays shows as an event that is not acknowledged, and is told then.
        self.0.lock().trouble = format!(": {reason}");
    }
}

impl ProducerContext for Acks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let mut books = self.0.lock();
        match result {
            Err((error, message)) => {
                books.failed = Some(format!("{error} (topic {})", message.topic()));
            }
            Ok(_) => {
                books.acknowledged += 1;
                let number = opaque as u64;
                if let Some(start) = books.start.filter(|_| number >= books.schedule.first_scored()) {
                    let due = start.due(books.schedule.tick_of(number));
                    books.latency.add(due.elapsed());
                }
            }
        }
    }
}
