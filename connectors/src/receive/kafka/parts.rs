//! The partitions being read: where each stands, where it ends, and what became of lost offsets.
//!
//! *In*: what the watcher found, what the reader took. *Out*: assignments, positions, lag.
//! *Never*: a position that moves backwards.

use std::collections::HashMap;

use contracts::batch::Partition;
use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::Client;
use super::watch::Found;
use super::{KafkaSource, Start};
use crate::receive::offsets::{Known, OffsetError};
use crate::receive::{BATCH_ROWS, Offsets, Port, SETTLED_EVERY};

struct Part {
    partition: Partition,
    /// Next offset to be read.
    next: i64,
    /// Records before this one are only read for what the decoder remembers of them.
    begin: i64,
    /// Exclusive end as last known.
    end: i64,
    /// The end when we began: up to here is catching up.
    target: i64,
    /// Oldest and newest offsets the broker said last.
    low: i64,
    high: i64,
    /// `next` when it was last committed.
    committed: i64,
    /// The instant before which all records were last said to be handed on.
    settled: i64,
    halted: Option<String>,
    /// Where reading began, and the offset it was asked to begin at.
    born: i64,
    from: Option<i64>,
    /// Another topic has taken the place of the one that was read up to this offset.
    changed: Option<i64>,
    /// The next record is to be remembered.
    wants_mark: bool,
}

pub(super) struct Parts {
    start: Start,
    from: Offsets,
    known: Known,
    /// The decoder must have read everything: it remembers values that later records leave out.
    remembers: bool,
    list: Vec<Part>,
    index: HashMap<String, HashMap<i32, usize>>,
    last: usize,
    /// The brokers have been asked at least once.
    looked: bool,
    status: std::sync::Arc<crate::receive::StatusCell>,
}

impl Parts {
    pub(super) fn new(port: &Port, source: &KafkaSource, from: &Offsets, remembers: bool) -> Self {
        let mine = from.iter().filter(|(p, _)| p.source == port.feed.source);
        Self {
            start: source.start,
            known: source.known.clone(),
            remembers,
            from: mine.map(|(p, o)| (p.clone(), *o)).collect(),
            list: Vec::new(),
            index: HashMap::new(),
            last: 0,
            looked: false,
            status: port.status.clone(),
        }
    }

    /// The index of a partition that is being read. Messages come in runs, so the last one is tried first.
    pub(super) fn find(&mut self, topic: &str, number: i32) -> Option<usize> {
        let hit = |p: &Part| p.partition.number == number && *p.partition.topic == *topic;
        if !self.list.get(self.last).is_some_and(hit) {
            self.last = *self.index.get(topic)?.get(&number)?;
        }
        self.list[self.last].halted.is_none().then_some(self.last)
    }

    pub(super) fn next(&self, part: usize) -> i64 {
        self.list[part].next
    }

    pub(super) fn advance(&mut self, part: usize, next: i64) {
        let part = &mut self.list[part];
        part.next = part.next.max(next);
        part.end = part.end.max(next);
    }

    /// Whether the next record is to be remembered; said once for each [`Parts::want_marks`].
    pub(super) fn wants_mark(&mut self, part: usize) -> bool {
        std::mem::take(&mut self.list[part].wants_mark)
    }

    pub(super) fn want_marks(&mut self) {
        self.list.iter_mut().for_each(|part| part.wants_mark = true);
    }

    pub(super) fn set_end(&mut self, part: usize, end: Option<i64>) {
        let part = &mut self.list[part];
        if let Some(end) = end {
            part.end = end.max(part.next);
        }
    }

    pub(super) fn position(&self, part: usize) -> (Partition, i64, Option<i64>) {
        let part = &self.list[part];
        (part.partition.clone(), part.next.max(part.begin), Some(part.end))
    }

    /// Whether a record was folded before, and is read again for the decoder alone.
    pub(super) fn warms(&self, part: usize, offset: i64) -> bool {
        offset < self.list[part].begin
    }

    /// More than a batch is waiting at the broker.
    pub(super) fn behind(&self, part: usize) -> bool {
        let part = &self.list[part];
        part.end - part.next > BATCH_ROWS as i64
    }

    pub(super) fn report(&self, part: usize) {
        let part = &self.list[part];
        self.status.partition(&part.partition, part.next, Some(part.end));
    }

    pub(super) fn caught_up(&self) -> bool {
        self.looked && self.list.iter().all(|p| p.next >= p.target)
    }

    pub(super) fn halted(&self) -> Option<String> {
        self.list.iter().find_map(|p| p.halted.clone())
    }

    pub(super) fn assigned(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for part in self.list.iter().filter(|p| p.halted.is_none()) {
            list.add_partition(&part.partition.topic, part.partition.number);
        }
        list
    }

    /// Positions that moved since they were last asked for.
    pub(super) fn moved(&mut self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for part in self.list.iter_mut().filter(|p| p.next > p.committed) {
            let at = Offset::Offset(part.next);
            if list.add_partition_offset(&part.partition.topic, part.partition.number, at).is_ok() {
                part.committed = part.next;
            }
        }
        list
    }

    /// Whether it is time to say again that all records before `instant` are handed on; then it counts as said.
    pub(super) fn settles(&mut self, part: usize, instant: i64) -> bool {
        let due = instant.saturating_sub(self.list[part].settled) >= SETTLED_EVERY;
        if due {
            self.list[part].settled = instant;
        }
        due
    }

    /// Takes in what the brokers have: ends are updated, and new partitions, which are returned, are read from
    /// now on.
    pub(super) fn update(&mut self, port: &Port, client: &Client, found: &[Found]) -> Vec<usize> {
        let first_look = !std::mem::replace(&mut self.looked, true);
        let mut fresh = Vec::new();
        for f in found {
            let known = self.index.get(&*f.topic).and_then(|m| m.get(&f.number)).copied();
            let part = known.unwrap_or_else(|| {
                let part = self.add(port, f, first_look);
                fresh.push(part);
                part
            });
            let p = &mut self.list[part];
            (p.low, p.high) = (f.low, f.high);
            p.end = p.end.max(f.high);
        }
        let fresh: Vec<usize> = fresh.into_iter().filter(|p| self.in_range(port, *p)).collect();
        if let Err(error) = self.assign(client, &fresh) {
            port.status.error(format!("cannot assign partitions: {error}"));
        }
        for part in 0..self.list.len() {
            self.report(part);
        }
        fresh
    }

    fn add(&mut self, port: &Port, found: &Found, first_look: bool) -> usize {
        let partition = port.feed.partition(&found.topic, found.number);
        let from = self.from.get(&partition).copied();
        let next = match (from, self.start) {
            (Some(offset), _) if self.remembers && offset <= found.high => offset.min(found.low),
            (Some(offset), _) => offset,
            // What the lake has ends there: from then on nothing may be left out.
            (None, Start::Latest) if first_look => {
                self.known.reached.get(&partition).copied().unwrap_or(found.high)
            }
            (None, _) => found.low,
        };
        let index = self.list.len();
        self.list.push(Part {
            partition,
            next,
            begin: from.unwrap_or(next),
            end: found.high,
            target: found.high,
            low: found.low,
            high: found.high,
            committed: -1,
            settled: i64::MIN,
            halted: None,
            born: next,
            from,
            changed: found.changed.then_some(found.mark).flatten(),
            wants_mark: true,
        });
        self.index.entry(found.topic.to_string()).or_default().insert(found.number, index);
        index
    }

    /// Whether a partition can be read from where it stands; one that cannot is given up, and says why. Only where
    /// nothing was read yet, or the loss was accepted, reading goes on at the oldest record.
    fn in_range(&mut self, port: &Port, part: usize) -> bool {
        let p = &mut self.list[part];
        let promised = p.from.is_some() || p.next > p.born;
        let next = promised.then_some(p.next.max(p.begin));
        let stands = match self.known.stand(&p.partition, next, p.low, p.high) {
            Ok(_) if p.changed.is_some() && (promised || self.known.reached.contains_key(&p.partition)) => {
                let found = format!("another record has offset {} now", p.changed.unwrap_or(0));
                let reached = p.changed.map_or(p.next, |mark| mark + 1);
                Err(OffsetError::Regressed { at: p.partition.clone(), reached, end: p.high, found })
            }
            stands => stands,
        };
        if let Err(error) = stands {
            let why = error.to_string();
            port.status.error(why.clone());
            port.status.halt(&p.partition, why.clone());
            p.halted = Some(why);
            return false;
        }
        let begin = next.unwrap_or(p.next);
        if begin < p.low {
            let gone = p.low - begin;
            port.status.add_gap(gone.unsigned_abs());
            port.status.error(format!(
                "{}[{}]: offsets {begin} to {} are gone (retention passed them): {gone} were not read; going on at {}",
                p.partition.topic,
                p.partition.number,
                p.low - 1,
                p.low
            ));
            p.begin = p.low;
        }
        p.next = p.next.max(p.low);
        true
    }

    /// Puts partitions whose offset the broker no longer has back on their feet. False when the
    /// watcher has not brought the facts yet.
    pub(super) fn mend(&mut self, port: &Port, client: &Client) -> bool {
        let out = |p: &Part| p.halted.is_none() && (p.next < p.low || p.next > p.high);
        let lost: Vec<usize> = (0..self.list.len()).filter(|i| out(&self.list[*i])).collect();
        if lost.is_empty() {
            return false;
        }
        let mut list = TopicPartitionList::new();
        for part in &lost {
            let partition = &self.list[*part].partition;
            list.add_partition(&partition.topic, partition.number);
        }
        let readable: Vec<usize> = lost.into_iter().filter(|p| self.in_range(port, *p)).collect();
        let done = client.incremental_unassign(&list).and_then(|()| self.assign(client, &readable));
        if let Err(error) = done {
            port.status.error(format!("cannot go on after lost offsets: {error}"));
        }
        true
    }

    fn assign(&self, client: &Client, parts: &[usize]) -> rdkafka::error::KafkaResult<()> {
        if parts.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for part in parts {
            let part = &self.list[*part];
            let at = Offset::Offset(part.next);
            list.add_partition_offset(&part.partition.topic, part.partition.number, at)?;
        }
        client.incremental_assign(&list)
    }
}
