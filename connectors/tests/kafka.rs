//! The Kafka receiver against Apache Kafka itself, started by `scripts/kafka.sh`.
//!
//! Skipped only with `KAFKA_TESTS=0`. One broker serves all tests; the ones that kill it run in one
//! function, so that no other test loses its broker.

#![allow(clippy::zombie_processes)] // the watching shell outlives the test program on purpose
#![allow(clippy::unwrap_used)] // a test fails where it unwraps

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{Broker, collect, event, feed, rows};
use connectors::decode::{Decoder, Record};
use connectors::receive::kafka::{self, KafkaSource, Start};
use connectors::receive::offsets::{Accepted, Known};
use connectors::receive::past::{Past, PastRows};
use connectors::receive::{Feed, Offsets, Receiver, SourceStatus, State};
use contracts::batch::{Chunk, Partition};
use crossbeam_channel::Receiver as Chunks;

const REFRESH: Duration = Duration::from_millis(300);

fn source(broker: &Broker, topics: &[&str]) -> KafkaSource {
    KafkaSource {
        metadata_refresh: REFRESH,
        ..KafkaSource::new(broker.bootstrap.clone(), topics.iter().copied())
    }
}

fn wait_for(receiver: &Receiver, what: &str, ok: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
    let started = Instant::now();
    loop {
        let status = receiver.status();
        if ok(&status) {
            return status;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "waited 30 s for {what}: {status:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// All `n` in order of arrival per partition; panics when offsets go back.
fn numbers(chunks: &[Chunk]) -> Vec<i64> {
    let mut next: BTreeMap<Partition, i64> = BTreeMap::new();
    let mut out = Vec::new();
    for chunk in chunks {
        for (offset, n) in rows(chunk) {
            let at = next.entry(chunk.partition.clone()).or_insert(0);
            assert!(offset >= *at, "{:?}: {offset} after {at}", chunk.partition);
            *at = offset + 1;
            out.push(n);
        }
        assert!(chunk.next_offset >= next.get(&chunk.partition).copied().unwrap_or(0));
    }
    out
}

/// No records any more; where the partitions stand may still be told.
fn nothing_more(out: &Chunks<Chunk>) {
    let until = Instant::now() + Duration::from_millis(500);
    while let Ok(chunk) = out.recv_deadline(until) {
        assert_eq!(chunk.received, 0, "nothing more");
    }
}

fn sorted(mut numbers: Vec<i64>) -> Vec<i64> {
    numbers.sort_unstable();
    numbers
}

#[test]
fn everything_once_then_resumed_from_offsets() {
    let Some(broker) = Broker::shared() else { return };
    broker.create("once", 4, &[]);
    broker.produce("once", 0..20_000);
    let (feed_, out) = feed("orders", 1000);
    let receiver = kafka::start(&source(broker, &["once"]), &Offsets::new(), feed_).unwrap();
    let chunks = collect(&out, 20_000);
    assert_eq!(sorted(numbers(&chunks)), (0..20_000).collect::<Vec<_>>());
    let status = wait_for(&receiver, "caught up", |s| s.state == State::Running);
    assert_eq!((status.lag, status.partitions.len(), status.received), (Some(0), 4, 20_000));
    let mut offsets = Offsets::new();
    for chunk in &chunks {
        offsets.insert(chunk.partition.clone(), chunk.next_offset);
    }
    receiver.stop();
    assert_eq!(receiver.join().state, State::Finished);
    broker.produce("once", 20_000..20_100);
    let (feed_, out) = feed("orders", 1000);
    let receiver = kafka::start(&source(broker, &["once"]), &offsets, feed_).unwrap();
    assert_eq!(sorted(numbers(&collect(&out, 100))), (20_000..20_100).collect::<Vec<_>>());
    nothing_more(&out);
    drop(receiver);
}

#[test]
fn a_single_event_goes_through_at_once() {
    let Some(broker) = Broker::shared() else { return };
    broker.create("single", 1, &[]);
    let (feed, out) = feed("orders", 1000);
    let receiver = kafka::start(&source(broker, &["single"]), &Offsets::new(), feed).unwrap();
    wait_for(&receiver, "running", |s| s.state == State::Running);
    let mut worst = Duration::ZERO;
    for n in 0..20 {
        let sent = Instant::now();
        broker.produce("single", n..n + 1);
        assert_eq!(numbers(&collect(&out, 1)), [n]);
        worst = worst.max(sent.elapsed());
    }
    assert!(worst < Duration::from_secs(2), "{worst:?}");
}

#[test]
fn new_partitions_and_new_topics_are_read_from_their_beginning() {
    let Some(broker) = Broker::shared() else { return };
    broker.create("grow.a", 1, &[]);
    broker.produce("grow.a", 0..10);
    let (feed, out) = feed("orders", 1000);
    let latest = KafkaSource { start: Start::Latest, ..source(broker, &["grow.*"]) };
    let receiver = kafka::start(&latest, &Offsets::new(), feed).unwrap();
    wait_for(&receiver, "running", |s| s.state == State::Running);
    broker.add_partitions("grow.a", 3);
    broker.produce_to("grow.a", 2, 10..20);
    assert_eq!(numbers(&collect(&out, 10)), (10..20).collect::<Vec<_>>());
    broker.create("grow.b", 2, &[]);
    broker.produce("grow.b", 20..40);
    assert_eq!(sorted(numbers(&collect(&out, 20))), (20..40).collect::<Vec<_>>());
    broker.produce_to("grow.a", 0, 40..41);
    assert_eq!(numbers(&collect(&out, 1)), [40]);
    assert_eq!(receiver.status().partitions.len(), 5);
}

#[test]
fn bad_records_survive_and_are_counted() {
    let Some(broker) = Broker::shared() else { return };
    broker.create("bad", 1, &[("max.message.bytes", "30000000")]);
    let huge = vec![b'x'; 20_000_000];
    broker.send("bad", 0, Some(event(1).as_bytes()), None);
    broker.send("bad", 0, Some(&huge), None);
    broker.send("bad", 0, None, None);
    broker.send("bad", 0, Some(b"\xff\xfe not json"), None);
    let soon = common::now_ms() + 1_800_000;
    broker.send("bad", 0, Some(event(2).as_bytes()), Some(soon));
    broker.send("bad", 0, Some(event(3).as_bytes()), Some(1_767_000_000_123));
    let (feed, out) = feed("orders", 1000);
    let receiver = kafka::start(&source(broker, &["bad"]), &Offsets::new(), feed).unwrap();
    let chunks = collect(&out, 6);
    assert_eq!(chunks.iter().flat_map(rows).collect::<Vec<_>>(), [(0, 1), (4, 2), (5, 3)]);
    let refused: Vec<(i64, &str)> =
        chunks.iter().flat_map(|c| &c.refused).map(|r| (r.offset, r.reasons[0].code.as_str())).collect();
    assert_eq!(refused, [(1, "oversize"), (3, "malformed_json")]);
    assert_eq!(chunks.iter().map(|c| c.skipped).sum::<u64>(), 1, "the tombstone");
    let received: Vec<i64> =
        chunks.iter().flat_map(|c| &c.batches).flat_map(|b| b.received.clone()).collect();
    assert!(received[1] <= (common::now_ms() + 1) * 1000, "a producer's clock ahead of ours is brought back");
    assert_eq!(received[2], 1_767_000_000_123_000);
    // A chunk is counted once it has been taken.
    wait_for(&receiver, "all counted", |status| status.received == 6);
}

#[test]
fn a_busy_engine_pauses_kafka_and_nothing_is_lost_or_doubled() {
    let Some(broker) = Broker::shared() else { return };
    broker.create("busy", 3, &[]);
    broker.produce("busy", 0..60_000);
    let (feed, out) = feed("orders", 1);
    let receiver = kafka::start(&source(broker, &["busy"]), &Offsets::new(), feed).unwrap();
    let mut chunks = Vec::new();
    let mut have = 0;
    for pause in 0..5 {
        wait_for(&receiver, "paused", |s| s.state == State::Paused);
        // Records that arrive meanwhile are not lost either.
        broker.produce("busy", 60_000 + pause * 100..60_000 + (pause + 1) * 100);
        std::thread::sleep(Duration::from_millis(200));
        for _ in 0..2 {
            let chunk = out.recv_timeout(Duration::from_secs(10)).unwrap();
            have += chunk.received;
            chunks.push(chunk);
        }
    }
    chunks.extend(collect(&out, 60_500 - have));
    assert_eq!(sorted(numbers(&chunks)), (0..60_500).collect::<Vec<_>>());
    wait_for(&receiver, "running again", |s| s.state == State::Running);
}

#[test]
fn offsets_that_retention_has_passed_are_a_stop_until_the_loss_is_accepted() {
    let Some(broker) = Broker::shared() else { return };
    broker.create("gone", 2, &[]);
    broker.produce_to("gone", 0, 0..100);
    broker.produce_to("gone", 1, 100..110);
    broker.delete_before("gone", 0, 60);
    let at = |offset| Offsets::from([(partition("orders", "gone", 0), offset)]);
    let go = |from: &Offsets, known: Known| {
        let (feed, out) = feed("orders", 1000);
        let receiver = kafka::start(&KafkaSource { known, ..source(broker, &["gone"]) }, from, feed).unwrap();
        (receiver, out)
    };
    let failed = |status: &SourceStatus, words: &str| match &status.state {
        State::Failed(message) => assert!(message.contains(words), "{message}"),
        other => panic!("{other:?}"),
    };
    let (receiver, out) = go(&at(10), Known::default());
    assert_eq!(numbers(&collect(&out, 10)), (100..110).collect::<Vec<_>>(), "the other partition goes on");
    nothing_more(&out);
    let gap = "offset_gap: source `orders`, topic `gone`, partition 0: reading goes on at offset 10, but the oldest \
               record kept has offset 60: 50 records are gone";
    failed(&receiver.status(), gap);
    failed(&receiver.status(), "accept_loss: [\"gone[0] 10..60\"]");
    // What the lake has already is no loss; what it has not, is one.
    let (receiver, out) = go(&Offsets::new(), Known { reached: at(60), ..Known::default() });
    assert_eq!(numbers(&collect(&out, 50)).len(), 50);
    assert_eq!(receiver.status().gap, 0);
    let (receiver, out) = go(&Offsets::new(), Known { reached: at(59), ..Known::default() });
    collect(&out, 10);
    failed(&receiver.status(), "offset_gap");
    // Accepted.
    let accepted = vec![Accepted::parse("gone[0] 10..60").unwrap()];
    let (receiver, out) = go(&at(10), Known { accepted, ..Known::default() });
    assert_eq!(sorted(numbers(&collect(&out, 50))), (60..110).collect::<Vec<_>>());
    let status = receiver.status();
    assert_eq!((status.gap, status.errors), (50, 1));
    let error = status.last_error.unwrap();
    assert!(
        error.contains("gone[0]: offsets 10 to 59 are gone") && error.contains("going on at 60"),
        "{error}"
    );
    // An offset beyond the end: the topic is another one now. Not read, and said so.
    for (from, known) in
        [(at(5_000), Known::default()), (at(70), Known { reached: at(5_000), ..Known::default() })]
    {
        let (receiver, out) = go(&from, known);
        assert_eq!(numbers(&collect(&out, 10)), (100..110).collect::<Vec<_>>());
        failed(
            &receiver.status(),
            "topic_regressed: source `orders`, topic `gone`, partition 0: it was read up to offset 5000, but it ends at offset 100",
        );
    }
}

/// What a lake would have: the first rows of `aged`, and of a topic that is no more.
struct Kept {
    feed: Feed,
    ends: Offsets,
}

impl Past for Kept {
    fn ends(&mut self) -> Result<Offsets, String> {
        Ok(self.ends.clone())
    }

    fn rows(&mut self, partition: &Partition, from: i64, until: i64) -> Result<PastRows, String> {
        let next = until.min(from + 7);
        let mut decoder = Decoder::new(self.feed.catalog.clone(), self.feed.decode.clone());
        for offset in from..next {
            let n =
                offset + if *partition.topic == *"aged" { i64::from(partition.number) * 100 } else { 1000 };
            // In 2027: later than the event's own time.
            let received = 1_800_000_000_000_000 + offset;
            decoder.push(Record { value: event(n).as_bytes(), offset, received, headers: &[] });
        }
        Ok(PastRows { next, batches: decoder.finish(partition, next, None).batches, ..PastRows::default() })
    }
}

#[test]
fn what_retention_took_comes_from_history_and_nothing_twice() {
    let Some(broker) = Broker::shared() else { return };
    broker.create("aged", 2, &[]);
    broker.produce_to("aged", 0, 0..100);
    broker.produce_to("aged", 1, 100..110);
    broker.delete_before("aged", 0, 60);
    let ends = [("aged", 0, 80), ("aged", 1, 5), ("no-more", 4, 3)];
    let ends = ends.map(|(topic, number, end)| {
        (Partition { source: "orders".into(), topic: topic.into(), number }, end)
    });
    // With `latest` the server had begun somewhere in between: Kafka goes on where history ends.
    for start in [Start::Earliest, Start::Latest] {
        let (feed, out) = feed("orders", 1000);
        let past = Box::new(Kept { feed: feed.clone(), ends: Offsets::from(ends.clone()) });
        let source = KafkaSource { start, ..source(broker, &["aged"]) };
        let receiver = kafka::start_after(past, &source, feed).unwrap();
        let wanted: Vec<i64> = (0..110).chain(1000..1003).collect();
        assert_eq!(sorted(numbers(&collect(&out, 113))), wanted, "{start:?}");
        nothing_more(&out);
        let status = wait_for(&receiver, "running", |s| s.state == State::Running);
        assert_eq!((status.gap, status.errors, status.lag), (0, 0, Some(0)), "{status:?}");
    }
}

#[test]
fn a_topic_that_was_made_again_is_known_by_its_records() {
    let Some(broker) = Broker::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let remembering =
        KafkaSource { marks: Some(folder.path().join("orders.json")), ..source(broker, &["again"]) };
    broker.create("again", 1, &[]);
    broker.produce("again", 0..100);
    let go = |from: &Offsets| {
        let (feed, out) = feed("orders", 1000);
        (kafka::start(&remembering, from, feed).unwrap(), out)
    };
    let (receiver, out) = go(&Offsets::new());
    collect(&out, 100);
    receiver.stop();
    receiver.join();
    // The same topic is the same, also when retention has taken a part.
    let at = Offsets::from([(partition("orders", "again", 0), 100)]);
    broker.produce("again", 100..110);
    let (receiver, out) = go(&at);
    assert_eq!(numbers(&collect(&out, 10)), (100..110).collect::<Vec<_>>());
    receiver.stop();
    receiver.join();
    broker.delete("again");
    broker.create("again", 1, &[]);
    // More than before: no offset tells it.
    broker.produce("again", 1_000..1_300);
    let (receiver, out) = go(&at);
    let status = wait_for(&receiver, "the word on the topic", |s| matches!(s.state, State::Failed(_)));
    let State::Failed(why) = &status.state else { panic!("{status:?}") };
    assert!(why.contains("topic_regressed") && why.contains("another record has offset 100 now"), "{why}");
    assert!(out.try_iter().all(|chunk| chunk.received == 0), "nothing of it is read");
    drop(receiver);
    // Nobody knows it any more: it is read as a new one.
    let (receiver, out) = go(&Offsets::new());
    assert_eq!(numbers(&collect(&out, 300)).len(), 300);
    drop(receiver);
}

#[test]
fn records_deleted_while_we_are_paused_are_a_stop_too() {
    let Some(broker) = Broker::shared() else { return };
    broker.create("midway", 1, &[("segment.bytes", "1048576")]);
    // Far more than is fetched ahead, so that most is still at the broker when it goes.
    let value = format!(r#"{{"id":"x","at":"2026-01-01T00:00:00Z","n":1,"place":"{}"}}"#, "p".repeat(10_000));
    broker.send_many("midway", value.as_bytes(), 12_000);
    let (feed_, out) = feed("orders", 1);
    let receiver = kafka::start(&source(broker, &["midway"]), &Offsets::new(), feed_).unwrap();
    wait_for(&receiver, "paused", |s| s.state == State::Paused);
    broker.delete_before("midway", 0, 11_900);
    let (mut have, mut end) = (0, 0);
    while !matches!(receiver.status().state, State::Failed(_)) {
        let Ok(chunk) = out.recv_timeout(Duration::from_millis(100)) else { continue };
        have += chunk.received;
        end = chunk.next_offset;
    }
    for chunk in out.try_iter() {
        have += chunk.received;
        end = chunk.next_offset;
    }
    assert_eq!(have as i64, end, "no jump");
    let State::Failed(why) = receiver.status().state else { panic!() };
    assert!(why.contains(&format!("reading goes on at offset {end}")), "{why}");
    let known = Known {
        accepted: vec![Accepted::parse(&format!("midway[0] {end}..11900")).unwrap()],
        ..Known::default()
    };
    let (feed_, out) = feed("orders", 100);
    let from = Offsets::from([(partition("orders", "midway", 0), end)]);
    let receiver = kafka::start(&KafkaSource { known, ..source(broker, &["midway"]) }, &from, feed_).unwrap();
    collect(&out, 100);
    assert_eq!(have + receiver.status().gap + 100, 12_000, "every record is counted: read or gone");
}

#[test]
fn aborted_transactions_are_not_read_and_do_not_hold_readiness_back() {
    let Some(broker) = Broker::shared() else { return };
    broker.create("tx", 1, &[]);
    broker.produce_transaction("tx", 0..5, true);
    broker.produce_transaction("tx", 5..10, false);
    let (feed, out) = feed("orders", 1000);
    let receiver = kafka::start(&source(broker, &["tx"]), &Offsets::new(), feed).unwrap();
    assert_eq!(numbers(&collect(&out, 5)), (0..5).collect::<Vec<_>>());
    let status = wait_for(&receiver, "the end behind the control records", |s| s.state == State::Running);
    assert_eq!((status.lag, status.received), (Some(0), 5));
    // The engine learns of it by a chunk without rows.
    let last = out.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!((last.received, Some(last.next_offset)), (0, last.end_offset));
}

#[test]
fn progress_is_committed_for_lag_tools_when_a_group_is_named() {
    let Some(broker) = Broker::shared() else { return };
    broker.create("lag", 1, &[]);
    broker.produce("lag", 0..30);
    let (feed, out) = feed("orders", 1000);
    let with_group = KafkaSource { group: Some("tools".into()), ..source(broker, &["lag"]) };
    let receiver = kafka::start(&with_group, &Offsets::new(), feed).unwrap();
    collect(&out, 30);
    receiver.stop();
    receiver.join();
    assert_eq!(broker.committed("tools", "lag", 0), Some(30));
}

#[test]
fn wrong_settings_are_errors_and_missing_topics_are_a_status() {
    let Some(broker) = Broker::shared() else { return };
    let (feed, _out) = feed("orders", 100);
    let start = |change: &dyn Fn(&mut KafkaSource)| {
        let mut source = source(broker, &["none"]);
        change(&mut source);
        kafka::start(&source, &Offsets::new(), feed.clone())
    };
    let error = |change: &dyn Fn(&mut KafkaSource)| start(change).unwrap_err().to_string();
    let option = |key: &str, value: &str| {
        let (key, value) = (key.to_owned(), value.to_owned());
        move |s: &mut KafkaSource| {
            s.options.insert(key.clone(), value.clone());
        }
    };
    let got = error(&option("no.such.property", "1"));
    assert!(got.starts_with("source `orders`: kafka.options.no.such.property: found `1`"), "{got}");
    let got = error(&option("security.protocol", "carrier_pigeon"));
    assert!(got.contains("kafka.options.security.protocol: found `carrier_pigeon`"), "{got}");
    let got = error(&option("auto.offset.reset", "latest"));
    assert!(got.contains("is not open: set `start`"), "{got}");
    assert!(error(&|s| s.brokers.clear()).contains("name at least one broker"));
    let receiver = start(&|_| {}).unwrap();
    let status = wait_for(&receiver, "the word on the topic", |s| s.errors > 0);
    let said = "topic `none` does not exist (yet)";
    assert_eq!(status.last_error.as_deref(), Some(said));
    assert_eq!((status.state, status.caught_up), (State::Waiting(said.to_owned()), false));
    broker.create("none", 1, &[]);
    wait_for(&receiver, "the topic that exists now", |s| s.state == State::Running && s.caught_up);
}

fn partition(source: &str, topic: &str, number: i32) -> Partition {
    Partition { source: source.into(), topic: topic.into(), number }
}

/// A broker of its own: unreachable at the start, killed in the middle, away for a while.
#[test]
fn the_broker_comes_late_dies_and_comes_back() {
    let Some(mut broker) = Broker::of_its_own() else { return };
    broker.create("orders", 3, &[]);
    broker.produce("orders", 0..1_000);
    broker.kill();
    let (feed, out) = feed("orders", 1000);
    let receiver = kafka::start(&source(&broker, &["orders"]), &Offsets::new(), feed).unwrap();
    let status = wait_for(&receiver, "the word on the broker", |s| s.errors > 0);
    assert_eq!((status.state, status.caught_up), (State::Connecting, false));
    assert!(status.last_error.unwrap().contains(&broker.bootstrap));
    broker.restart();
    let mut chunks = collect(&out, 1_000);
    wait_for(&receiver, "running", |s| s.state == State::Running);
    for round in 1..3 {
        broker.produce("orders", round * 1_000..round * 1_000 + 500);
        broker.kill();
        wait_for(&receiver, "the loss to be noticed", |s| s.state == State::Connecting);
        broker.restart();
        let back = Instant::now();
        broker.produce("orders", round * 1_000 + 500..(round + 1) * 1_000);
        chunks.extend(collect(&out, 1_000));
        println!("round {round}: all read {} ms after the restart", back.elapsed().as_millis());
        wait_for(&receiver, "running again", |s| s.state == State::Running);
    }
    assert_eq!(sorted(numbers(&chunks)), (0..3_000).collect::<Vec<_>>(), "each exactly once");
    nothing_more(&out);
    // Stopping does not hang on a broker that is away.
    broker.kill();
    wait_for(&receiver, "the loss to be noticed", |s| s.state == State::Connecting);
    receiver.stop();
    let asked = Instant::now();
    receiver.join();
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}
