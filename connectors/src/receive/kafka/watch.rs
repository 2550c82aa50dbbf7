//! Asks the brokers, over and over, which partitions there are and where they begin and end.
//!
//! *In*: topic patterns. *Out*: [`News`]. *Never*: a wait on the reading thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::KafkaSource;
use super::client::{self, Client};
use super::identity::{self, Mark};
use super::topics::TopicPattern;
use crate::receive::Clock;

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How soon a failed question is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// A partition as the brokers describe it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) topic: Arc<str>,
    pub(super) number: i32,
    /// Offset of the oldest record kept.
    pub(super) low: i64,
    /// Offset after the newest record.
    pub(super) high: i64,
    /// When that was asked.
    pub(super) asked: i64,
    /// The record that was read last of it, as far as is known.
    pub(super) mark: Option<i64>,
    /// Another record stands there now.
    pub(super) changed: bool,
}

#[derive(Debug)]
pub(super) enum News {
    /// All partitions of the wanted topics, and the wanted names that do not exist.
    Partitions { found: Vec<Found>, missing: Vec<String> },
    /// No answer.
    Unreachable(String),
}

/// The asking thread's handle.
pub(super) struct Watcher {
    hurry: Sender<()>,
}

impl Watcher {
    pub(super) fn start(
        client: &Arc<Client>,
        patterns: Vec<TopicPattern>,
        (source, marks): (&KafkaSource, Vec<Mark>),
        clock: Clock,
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<(Watcher, Receiver<News>)> {
        // Unread news are few: the reader takes them at every turn, and this thread asks rarely.
        let (say, news) = unbounded();
        let (hurry, hurried) = bounded(1);
        let (every, brokers, source) = (source.metadata_refresh, source.brokers.clone(), source.clone());
        // Weak, so that the reader alone decides when the consumer closes.
        let client = Arc::downgrade(client);
        std::thread::Builder::new().name("receive-kafka-watch".into()).spawn(move || {
            let mut known = Vec::new();
            let mut marks = Compared { open: marks.clone(), all: marks, changed: Vec::new() };
            while !stop.load(Ordering::Acquire) {
                let Some(client) = client.upgrade() else { return };
                let told = ask(&client, &patterns, &clock, &mut known).and_then(|(mut found, missing)| {
                    marks.compare(&source, &mut found)?;
                    Ok(News::Partitions { found, missing })
                });
                drop(client);
                let answered = told.is_ok();
                let told = told.unwrap_or_else(|error| {
                    News::Unreachable(format!("no broker of `{brokers}` answers: {error}"))
                });
                if say.send(told).is_err() {
                    return;
                }
                let wait = if answered { every } else { RETRY.min(every) };
                if !pause(&hurried, wait, &stop) {
                    return;
                }
            }
        })?;
        Ok((Watcher { hurry }, news))
    }

    /// Ask again now.
    pub(super) fn hurry(&self) {
        let _ = self.hurry.try_send(()); // full: it has been asked to already
    }
}

/// Waits; false when the reader is gone.
fn pause(hurried: &Receiver<()>, wait: Duration, stop: &AtomicBool) -> bool {
    const STEP: Duration = Duration::from_millis(100);
    let mut left = wait;
    while !left.is_zero() && !stop.load(Ordering::Acquire) {
        match hurried.recv_timeout(left.min(STEP)) {
            // Not at once: what made the reader hurry comes in bursts.
            Ok(()) => {
                std::thread::sleep(Duration::from_millis(50));
                return true;
            }
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => left = left.saturating_sub(STEP),
        }
    }
    true
}

/// All partitions of the wanted topics, now. The error is the brokers' words.
pub(super) fn partitions(
    client: &Client,
    patterns: &[TopicPattern],
    clock: &Clock,
) -> Result<Vec<Found>, String> {
    let found = ask(client, patterns, clock, &mut Vec::new());
    found.map(|(found, _)| found).map_err(|error| error.to_string())
}

fn ask(
    client: &Client,
    patterns: &[TopicPattern],
    clock: &Clock,
    known: &mut Vec<Found>,
) -> Result<(Vec<Found>, Vec<String>), KafkaError> {
    let mut wanted: Vec<(Arc<str>, i32)> = Vec::new();
    let mut missing = Vec::new();
    if patterns.iter().any(|p| matches!(p, TopicPattern::Pattern(_))) {
        let all = client.fetch_metadata(None, TIMEOUT)?;
        for topic in all.topics().iter().filter(|t| patterns.iter().any(|p| p.matches(t.name()))) {
            let name: Arc<str> = topic.name().into();
            wanted.extend(topic.partitions().iter().map(|p| (name.clone(), p.id())));
        }
    }
    for pattern in patterns {
        let TopicPattern::Name(name) = pattern else { continue };
        if wanted.iter().any(|(topic, _)| **topic == **name) {
            continue;
        }
        let one = client.fetch_metadata(Some(name), TIMEOUT)?;
        let partitions = one.topics().first().map_or(&[][..], |t| t.partitions());
        if partitions.is_empty() {
            missing.push(name.clone());
        }
        let topic: Arc<str> = name.as_str().into();
        wanted.extend(partitions.iter().map(|p| (topic.clone(), p.id())));
    }
    wanted.sort();
    let mut found = Vec::with_capacity(wanted.len());
    for (topic, number) in wanted {
        let asked = clock();
        match client.fetch_watermarks(&topic, number, TIMEOUT) {
            Ok((low, high)) => {
                found.push(Found { topic, number, low, high, asked, mark: None, changed: false });
            }
            // A partition without a leader for the moment: it stays as it was.
            Err(error) if passing(&error) => {
                found.extend(known.iter().find(|f| f.topic == topic && f.number == number).cloned());
            }
            Err(error) => return Err(error),
        }
    }
    known.clone_from(&found);
    Ok((found, missing))
}

/// Marks, and what became of looking at them.
struct Compared {
    all: Vec<Mark>,
    open: Vec<Mark>,
    changed: Vec<Mark>,
}

impl Compared {
    /// Looks once at the marks of partitions that are found for the first time.
    fn compare(&mut self, source: &KafkaSource, found: &mut [Found]) -> Result<(), KafkaError> {
        let is = |mark: &Mark, found: &Found| *mark.topic == *found.topic && mark.number == found.number;
        let there =
            |mark: &&Mark| found.iter().any(|f| is(mark, f) && (f.low..f.high).contains(&mark.offset));
        let look: Vec<Mark> = self.open.iter().filter(there).cloned().collect();
        if !look.is_empty() {
            self.changed.extend(identity::changed(&client::probe(source)?, &look)?);
        }
        self.open.retain(|mark| !found.iter().any(|found| is(mark, found)));
        for found in found {
            found.mark = self.all.iter().find(|mark| is(mark, found)).map(|mark| mark.offset);
            found.changed = self.changed.iter().any(|mark| is(mark, found));
        }
        Ok(())
    }
}

fn passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
        )
    )
}
