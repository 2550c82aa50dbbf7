//! What came before a source's own memory begins: history that is kept elsewhere (the lake), read before the source.
//!
//! *In*: a [`Past`], and where the source's own memory begins. *Out*: chunks like those the source once made, and the
//! offsets from which the source goes on. *Never*: a row of history that the source still has; an offset at which
//! neither of the two reads.
//!
//! Retention goes on while history is read: where the source begins is asked again until history has reached it.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::batch::{Chunk, EventBatch, Partition, Payloads, Refused};

use super::{BATCH_ROWS, Feed, Offsets, Port, ReceiveError, Receiver, State, Stop};
use crate::decode::{Again, Decoder};

/// Rows of a partition, in the order of their offsets.
#[derive(Debug, Default)]
pub struct PastRows {
    /// Everything asked for below this is in these rows or earlier ones.
    pub next: i64,
    /// Admitted rows.
    pub batches: Vec<EventBatch>,
    /// Rows that were refused, with their payloads: they are decoded again.
    pub refused: Vec<Refused>,
}

/// History of one source. Errors pass: what failed is asked again.
pub trait Past: Send {
    /// Up to where the history of each partition is complete, as of now.
    ///
    /// # Errors
    /// It cannot be reached; in words.
    fn ends(&mut self) -> Result<Offsets, String>;

    /// Rows of a partition from `from` on, at most up to `until`, which is not beyond its end.
    ///
    /// # Errors
    /// It cannot be read; in words.
    fn rows(&mut self, partition: &Partition, from: i64, until: i64) -> Result<PastRows, String>;
}

/// Where the partitions that a source has begin and end by now.
pub(crate) type Lives = BTreeMap<Partition, (i64, i64)>;

/// How soon something that failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Reads the history of a source that is no more. Nobody knows how its payloads were decoded: what was refused stays so.
///
/// # Errors
/// No thread.
pub fn start(past: Box<dyn Past>, feed: Feed) -> Result<Receiver, ReceiveError> {
    Receiver::spawn("lake", feed, move |port| read_as(port, past, |_| Ok(Lives::new()), false).map(drop))
}

/// Where a partition stands.
struct Part {
    next: i64,
    until: i64,
    /// Received time of the newest row so far.
    received: i64,
    /// The source goes on with it, up to here.
    lives: Option<i64>,
    decoder: Decoder,
}

impl Part {
    fn tell(&self, port: &Port, partition: &Partition) {
        port.status.partition(partition, self.next, Some(self.lives.unwrap_or(self.until)));
    }
}

/// Reads history up to where the source begins: `begins` says that of those partitions that the source has, the others
/// are read to the end of their history. Returns where the source goes on.
pub(crate) fn read(
    port: &Port,
    past: Box<dyn Past>,
    begins: impl Fn(&Offsets) -> Result<Lives, String>,
) -> Result<Offsets, Stop> {
    read_as(port, past, begins, true)
}

/// `known`: the settings say how payloads are decoded.
fn read_as(
    port: &Port,
    mut past: Box<dyn Past>,
    begins: impl Fn(&Offsets) -> Result<Lives, String>,
    known: bool,
) -> Result<Offsets, Stop> {
    let mut parts = BTreeMap::<Partition, Part>::new();
    loop {
        let ends = patiently(port, || past.ends())?;
        let begin = patiently(port, || begins(&ends))?;
        for (partition, end) in &ends {
            let part = match parts.get_mut(partition) {
                Some(part) => part,
                None => {
                    let part = Part {
                        next: 0,
                        until: 0,
                        received: i64::MIN,
                        lives: None,
                        decoder: port.feed.decoder(),
                    };
                    // Known from the start, so that nothing is forgotten that its first records may repeat.
                    port.deliver(standing(partition, 0))?;
                    parts.entry(partition.clone()).or_insert(part)
                }
            };
            let lives = begin.get(partition);
            part.lives = lives.map(|(_, end)| *end);
            part.until = lives.map_or(*end, |(begin, _)| (*begin).min(*end)).max(part.next);
            part.tell(port, partition);
        }
        if parts.values().all(|part| part.next >= part.until) {
            break;
        }
        port.status.set_state(State::CatchingUp);
        // The oldest first: ids are forgotten by the received time of the partition that lies behind most.
        while let Some((partition, part)) =
            parts.iter_mut().filter(|(_, part)| part.next < part.until).min_by_key(|(_, part)| part.received)
        {
            let rows = patiently(port, || past.rows(partition, part.next, part.until))?;
            hand_on(port, partition, part, rows, known)?;
        }
    }
    let mut from = Offsets::new();
    for (partition, part) in parts {
        if part.lives.is_some() {
            from.insert(partition, part.next);
        } else {
            // Nothing more comes from it: it holds nobody back.
            port.status.partition(&partition, part.next, Some(part.next));
            port.deliver(standing(&partition, part.next).settled(i64::MAX))?;
        }
    }
    Ok(from)
}

/// Tries until it works or the receiver is stopped.
fn patiently<T>(port: &Port, mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, Stop> {
    loop {
        if port.stopped() {
            return Err(Stop::Asked);
        }
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => port.status.error(format!("history: {error}")),
        }
        // Whatever is away may come back.
        std::thread::sleep(AGAIN);
    }
}

fn hand_on(
    port: &Port,
    partition: &Partition,
    part: &mut Part,
    rows: PastRows,
    known: bool,
) -> Result<(), Stop> {
    let newest = rows.batches.iter().flat_map(|batch| &batch.received);
    let newest = newest.chain(rows.refused.iter().map(|row| &row.received)).max();
    part.received = newest.copied().unwrap_or(part.received).max(part.received.saturating_add(1));
    let cuts = cuts(&rows.batches, rows.next);
    let (mut batches, mut refused) = (Vec::new(), Vec::new());
    for batch in rows.batches {
        let (batch, not) = part.decoder.recheck(partition, batch);
        batches.push(batch);
        refused.extend(not.into_iter().map(Again::Refused));
    }
    for row in rows.refused {
        refused.push(if known { again(port, &mut part.decoder, row)? } else { Again::Refused(row) });
    }
    refused.sort_by_key(place);
    let (mut refused, mut from) = (refused.into_iter().peekable(), i64::MIN);
    for next in cuts {
        let mut chunk = standing(partition, next);
        chunk.batches = batches.iter().filter_map(|batch| between(batch, from, next)).collect();
        while let Some(row) = refused.next_if(|row| place(row).0 < next) {
            match row {
                Again::Taken(batch) => chunk.batches.push(batch),
                Again::Refused(row) => chunk.refused.push(row),
            }
        }
        let admitted: usize = chunk.batches.iter().map(|batch| batch.columns.num_rows()).sum();
        chunk.received = (admitted + chunk.refused.len()) as u64;
        chunk.end_offset = Some(part.lives.unwrap_or(part.until));
        (from, part.next) = (next, next);
        port.deliver(chunk)?;
        part.tell(port, partition);
    }
    Ok(())
}

/// Offset and part.
fn place(row: &Again) -> (i64, u32) {
    match row {
        Again::Taken(batch) => (batch.offsets[0], batch.parts[0]),
        Again::Refused(row) => (row.offset, row.part),
    }
}

/// Decodes a refused row once more: the contract may admit it now.
fn again(port: &Port, decoder: &mut Decoder, row: Refused) -> Result<Again, Stop> {
    patiently(port, || decoder.prepare(&row.payload, None))?;
    Ok(decoder.again(row))
}

/// Where chunks of about [`BATCH_ROWS`] rows end; the last one ends at `next`.
fn cuts(batches: &[EventBatch], next: i64) -> Vec<i64> {
    let mut offsets: Vec<i64> = batches.iter().flat_map(|batch| &batch.offsets).copied().collect();
    offsets.sort_unstable();
    let mut cuts: Vec<i64> = offsets.into_iter().step_by(BATCH_ROWS).skip(1).chain([next]).collect();
    // Rows of one record stay together.
    cuts.dedup();
    cuts
}

/// The rows of a batch, which is in the order of its offsets, from one offset up to before another.
fn between(batch: &EventBatch, from: i64, to: i64) -> Option<EventBatch> {
    let start = batch.offsets.partition_point(|offset| *offset < from);
    let end = batch.offsets.partition_point(|offset| *offset < to);
    (start < end).then(|| EventBatch {
        event: batch.event,
        columns: batch.columns.slice(start, end - start),
        ids: batch.ids.slice(start, end - start),
        offsets: batch.offsets[start..end].to_vec(),
        parts: batch.parts[start..end].to_vec(),
        received: batch.received[start..end].to_vec(),
        payloads: Payloads { ranges: batch.payloads.ranges[start..end].to_vec(), ..batch.payloads.clone() },
        changes: batch.changes.as_ref().map(|changes| changes[start..end].to_vec()),
    })
}

/// A chunk that says where a partition stands, without a row.
pub fn standing(partition: &Partition, next: i64) -> Chunk {
    Chunk {
        partition: partition.clone(),
        next_offset: next,
        end_offset: None,
        settled: None,
        batches: Vec::new(),
        refused: Vec::new(),
        skipped: 0,
        received: 0,
        bytes: 0,
    }
}

#[cfg(test)]
mod tests;
