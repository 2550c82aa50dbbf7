//! The embedded durable log of pushed events, and the receiver that reads it.
//!
//! *In*: records pushed over HTTP or by the generator. *Out*: chunks, in append order, from any offset
//! that is kept. *Never*: an acknowledgement before the record is on disk, a fresh start over a log
//! that cannot be read.
//!
//! `store` appends and reads, `block` is how records lie on disk, `idempotency` remembers the answers
//! to requests that carried an `Idempotency-Key`. This file holds the receiver.

mod block;
mod idempotency;
mod store;

use std::sync::Arc;
use std::time::Duration;

use super::past::{self, Past};
use super::{
    BATCH_BYTES, BATCH_ROWS, Feed, Offsets, Port, ReceiveError, Receiver, SETTLED_EVERY, State, Stop,
};
use crate::decode::{Decoder, Record};

pub use block::{LogRecord, StoredRecord};
pub use idempotency::{Idempotent, IdempotentRequest};
pub use store::{LogError, LogOptions, PushLog};

/// [`contracts::batch::Partition::topic`] of every embedded log.
pub const TOPIC: &str = "log";

/// Bytes taken from the log at once.
const READ_BYTES: usize = 1 << 20;

/// Reads `log` from the given offset, or from its oldest record, and follows it.
pub fn start(log: &Arc<PushLog>, from: &Offsets, feed: Feed) -> Result<Receiver, ReceiveError> {
    let partition = feed.partition(TOPIC, 0);
    let next = from.get(&partition).copied().unwrap_or_else(|| log.start());
    let log = log.clone();
    Receiver::spawn("log", feed, move |port| follow(port, &log, next))
}

/// Reads what `past` has from before the oldest record of `log`, then `log` from there, and follows it.
///
/// # Errors
/// No thread.
pub fn start_after(past: Box<dyn Past>, log: &Arc<PushLog>, feed: Feed) -> Result<Receiver, ReceiveError> {
    let log = log.clone();
    Receiver::spawn("log", feed, move |port| {
        let partition = port.feed.partition(TOPIC, 0);
        let lives = || past::Lives::from([(partition.clone(), (log.start(), log.end()))]);
        let from = past::read(port, past, |_| Ok(lives()))?;
        let next = from.get(&partition).copied().unwrap_or_else(|| log.start());
        follow(port, &log, next)
    })
}

fn follow(port: &Port, log: &PushLog, mut next: i64) -> Result<(), Stop> {
    let partition = port.feed.partition(TOPIC, 0);
    let mut decoder = port.feed.decoder();
    let target = log.end();
    port.status.set_state(State::CatchingUp);
    // Known from the start, so that nothing is forgotten that its first records may repeat.
    port.deliver(decoder.finish(&partition, next, Some(target)))?;
    let mut told = i64::MIN;
    while !port.stopped() {
        let asked = (port.feed.clock)();
        port.status.partition(&partition, next, Some(log.end()));
        if next >= target {
            port.status.set_state(State::Running);
        }
        match log.read(next, READ_BYTES) {
            Ok(records) if records.is_empty() => {
                if asked.saturating_sub(told) >= SETTLED_EVERY {
                    told = asked;
                    port.deliver(decoder.finish(&partition, next, Some(next)).settled(asked))?;
                }
                log.wait(next, Duration::from_millis(50));
            }
            Ok(records) => {
                faults::point("log.after_read");
                for batch in batches(&records) {
                    next = hand_on(port, log, &mut decoder, batch)?;
                }
            }
            Err(LogError::Gone { start, .. }) => {
                let gone = start - next;
                port.status.add_gap(gone.unsigned_abs());
                port.status.error(format!(
                    "offsets {next} to {} are gone (retention passed them): {gone} events were not read; \
                     going on at {start}",
                    start - 1
                ));
                next = start;
            }
            // A disk that is full or away for a moment: the log reopens itself.
            Err(error @ LogError::Io { .. }) => {
                port.status.error(error.to_string());
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(error) => return Err(Stop::Failed(error.to_string())),
        }
    }
    Err(Stop::Asked)
}

/// Cuts records into batches of at most [`BATCH_ROWS`] records and about [`BATCH_BYTES`] bytes.
fn batches(records: &[StoredRecord]) -> impl Iterator<Item = &[StoredRecord]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let full = |r: &StoredRecord| {
            bytes += r.value.len();
            bytes > BATCH_BYTES
        };
        let cut = rest.iter().position(full).map_or(rest.len(), |i| i + 1).min(BATCH_ROWS);
        let (batch, after) = rest.split_at(cut);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

fn hand_on(port: &Port, log: &PushLog, decoder: &mut Decoder, records: &[StoredRecord]) -> Result<i64, Stop> {
    let mut next = 0;
    for record in records {
        let headers: Vec<(&str, &[u8])> =
            record.headers.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
        decoder.push(Record {
            value: &record.value,
            offset: record.offset,
            received: record.received,
            headers: &headers,
        });
        next = record.offset + 1;
    }
    let partition = port.feed.partition(TOPIC, 0);
    port.deliver(decoder.finish(&partition, next, Some(log.end())))?;
    Ok(next)
}

#[cfg(test)]
mod tests;
