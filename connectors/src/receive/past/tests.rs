//! History before a log whose beginning moves on.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::decode::Record;
use crate::receive::testing::{NOW, collect, event, feed, rows};

/// Numbers as rows: the history of partition `log`, complete up to `end`; each seventh was refused. It is told in slices
/// of 10 offsets, and meanwhile the source loses its oldest records.
struct Numbers {
    end: i64,
    feed: Feed,
    begin: Arc<AtomicI64>,
}

impl Past for Numbers {
    fn ends(&mut self) -> Result<Offsets, String> {
        Ok(Offsets::from([(self.feed.partition("log", 0), self.end), (self.feed.partition("gone", 3), 4)]))
    }

    fn rows(&mut self, partition: &Partition, from: i64, until: i64) -> Result<PastRows, String> {
        if from == 20 && self.begin.load(Ordering::Relaxed) == 40 {
            self.begin.store(75, Ordering::Relaxed);
            return Err("away for a moment".into());
        }
        let next = until.min(from + 10);
        let mut decoder = self.feed.decoder();
        let mut out = PastRows { next, ..PastRows::default() };
        for n in from..next {
            let text = event(n);
            if n % 7 == 6 {
                out.refused.push(Refused {
                    partition: partition.clone(),
                    offset: n,
                    part: 2,
                    received: NOW,
                    event_type: None,
                    event_id: None,
                    payload: if n == 6 { "nonsense".into() } else { text.into() },
                    headers: Vec::new(),
                    reasons: Vec::new(),
                });
                continue;
            }
            decoder.push(Record { value: text.as_bytes(), offset: n, received: NOW, headers: &[] });
        }
        out.batches = decoder.finish(partition, next, None).batches;
        Ok(out)
    }
}

#[test]
fn history_is_read_up_to_where_the_source_begins_by_then() {
    let (feed, out) = feed("push", 1000);
    let begin = Arc::new(AtomicI64::new(40));
    let past = Box::new(Numbers { end: 90, feed: feed.clone(), begin: begin.clone() });
    let partition = feed.partition("log", 0);
    let (tell, told) = std::sync::mpsc::channel();
    let own = partition.clone();
    let receiver = Receiver::spawn("log", feed, move |port| {
        let from =
            read(port, past, |_| Ok(Lives::from([(own.clone(), (begin.load(Ordering::Relaxed), 90))])))?;
        tell.send(from).unwrap();
        Ok(())
    });
    let receiver = receiver.unwrap();
    let chunks = collect(&out, 79);
    assert_eq!(told.recv().unwrap(), Offsets::from([(partition.clone(), 75)]), "`gone` lives no more");
    let status = receiver.join();
    assert_eq!((status.state, status.errors), (State::Finished, 1));
    let mut all: Vec<(i64, i64)> =
        chunks.iter().filter(|chunk| chunk.partition == partition).flat_map(rows).collect();
    all.sort_unstable();
    let wanted: Vec<(i64, i64)> = (0..75).filter(|n| *n != 6).map(|n| (n, n)).collect();
    assert_eq!(all, wanted, "each row once; what was refused is admitted where it can be");
    let refused: Vec<_> = chunks.iter().flat_map(|chunk| &chunk.refused).collect();
    assert_eq!(refused.len(), 1);
    assert_eq!((refused[0].offset, refused[0].part), (6, 2));
    assert_eq!(refused[0].reasons[0].code, "malformed_json");
    let parts = chunks.iter().flat_map(|chunk| &chunk.batches).flat_map(|batch| &batch.parts);
    assert_eq!(parts.filter(|part| **part == 2).count(), 9, "with the place they had");
    for chunk in &chunks {
        let rows: usize = chunk.batches.iter().map(|batch| batch.columns.num_rows()).sum();
        assert_eq!(chunk.received, (rows + chunk.refused.len()) as u64);
    }
}

#[test]
fn a_large_slice_comes_in_chunks_and_records_stay_whole() {
    let (feed, _) = feed("push", 1);
    let partition = feed.partition("log", 0);
    let mut decoder = feed.decoder();
    // Records of three events each.
    for offset in 0..5_000 {
        let text = format!("[{},{},{}]", event(offset), event(offset), event(offset));
        decoder.push(Record { value: text.as_bytes(), offset, received: NOW, headers: &[] });
    }
    let chunk = decoder.finish(&partition, 5_000, None);
    let all: Vec<(i64, i64)> = rows(&chunk);
    let (mut from, mut got) = (i64::MIN, Vec::new());
    let cuts = cuts(&chunk.batches, 5_000);
    assert_eq!(cuts.len(), 4, "{cuts:?}");
    for next in cuts {
        let batches: Vec<EventBatch> = chunk.batches.iter().filter_map(|b| between(b, from, next)).collect();
        let part = Chunk { batches, ..standing(&partition, next) };
        assert!(rows(&part).len() < BATCH_ROWS + 3);
        assert!(rows(&part).iter().all(|(offset, _)| *offset < next && *offset >= from));
        got.extend(rows(&part));
        from = next;
    }
    assert_eq!(got, all);
}

#[test]
fn of_a_source_that_is_no_more_what_was_refused_stays_so() {
    let (feed, out) = feed("push", 1000);
    let past = Numbers { end: 20, feed: feed.clone(), begin: Arc::default() };
    let receiver = start(Box::new(past), feed).unwrap();
    let chunks = collect(&out, 24);
    receiver.join();
    let refused: Vec<i64> = chunks.iter().flat_map(|chunk| &chunk.refused).map(|row| row.offset).collect();
    assert_eq!(refused, [6, 13], "the settings do not say any more how to decode them");
    assert_eq!(chunks.iter().map(|chunk| rows(chunk).len()).sum::<usize>(), 22);
}
