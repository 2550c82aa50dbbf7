//! The file of a table: read whole, and again when it changes.
//!
//! *In*: a CSV, NDJSON or Parquet file. *Out*: per reading one chunk: what was there is gone, these are the rows.
//! *Never*: half a reading; rows that vanish because the file is away or being written.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use contracts::batch::{Chunk, Partition};
use contracts::catalog::table_event;

use super::file::{self, FileSource};
use super::{Feed, Port, ReceiveError, Receiver, State, Stop};
use crate::decode::{DecodeSpec, Decoder, Envelope, Record};

/// How often the file is looked at unless the contract says otherwise.
const EVERY: Duration = Duration::from_secs(5);
/// Path of the operation in the one record that is not from the file.
const OP: &str = "$op";

/// A table and its file.
#[derive(Debug, Clone)]
pub struct TableFile {
    /// Name of the table.
    pub table: String,
    /// Its file.
    pub path: String,
    /// How often it is looked at; by default every 5 seconds.
    pub every: Option<Duration>,
}

/// Starts reading. The file may be away: then the receiver is [`State::Connecting`] and looks again.
pub fn start(source: TableFile, feed: Feed) -> Result<Receiver, ReceiveError> {
    let decode = DecodeSpec {
        fixed_type: Some(table_event(&source.table)),
        envelope: Envelope::default(),
        own_events: true,
        op: Some(vec![OP.to_owned()]),
        ..feed.decode.clone()
    };
    Receiver::spawn("table", Feed { decode, ..feed }, move |port| follow(port, &source))
}

/// What tells one state of a file from the next.
type Mark = (Option<SystemTime>, u64);

fn mark(path: &str) -> std::io::Result<Mark> {
    let meta = std::fs::metadata(path)?;
    Ok((meta.modified().ok(), meta.len()))
}

fn follow(port: &Port, source: &TableFile) -> Result<(), Stop> {
    let partition = port.feed.partition(&source.path, 0);
    let (mut known, mut base) = (None, 0_i64);
    port.status.set_state(State::Connecting);
    while !port.stopped() {
        match mark(&source.path) {
            Ok(found) if known == Some(found) => {}
            // Offsets grow from reading to reading, also after a restart.
            Ok(found) => match read(port, source, &partition, base.max((port.feed.clock)())) {
                Ok(chunk) => {
                    base = chunk.next_offset;
                    port.status.partition(&partition, base, Some(base));
                    port.deliver(chunk)?;
                    port.status.set_state(State::Running);
                    known = Some(found);
                }
                Err(Stop::Failed(message)) => {
                    port.status.error(format!("{message}; the rows read before stay"))
                }
                Err(stop) => return Err(stop),
            },
            Err(error) => {
                let kept = if known.is_some() { "; the rows read before stay" } else { "" };
                port.status.error(format!("cannot read `{}`: {error}{kept}", source.path));
            }
        }
        pause(port, source.every.unwrap_or(EVERY));
    }
    Err(Stop::Asked)
}

fn pause(port: &Port, every: Duration) {
    const STEP: Duration = Duration::from_millis(50);
    let mut left = every;
    while !left.is_zero() && !port.stopped() {
        std::thread::sleep(left.min(STEP));
        left = left.saturating_sub(STEP);
    }
}

/// One reading as one chunk, with offsets from `base` on.
fn read(port: &Port, source: &TableFile, partition: &Partition, base: i64) -> Result<Chunk, Stop> {
    let (chunks, read) = crossbeam_channel::unbounded();
    let inner = Port {
        feed: Feed { chunks, ..port.feed.clone() },
        status: Arc::new(super::StatusCell::new(String::new(), "table", port.feed.clock.clone())),
        stop: Arc::new(AtomicBool::new(false)),
    };
    file::read_once(&inner, FileSource::new(&source.path))?;
    drop(inner);
    let now = (port.feed.clock)();
    let mut decoder = Decoder::new(port.feed.catalog.clone(), port.feed.decode.clone());
    let truncate = format!("{{\"{OP}\":\"t\"}}");
    decoder.push(Record { value: truncate.as_bytes(), offset: base, received: now, headers: &[] });
    let mut whole = decoder.finish(partition, base + 1, None);
    for mut chunk in read {
        whole.next_offset = whole.next_offset.max(base + 1 + chunk.next_offset);
        for batch in &mut chunk.batches {
            batch.offsets.iter_mut().for_each(|offset| *offset += base + 1);
            batch.received.fill(now);
            for change in batch.changes.iter_mut().flatten() {
                change.at = now;
            }
        }
        for refused in &mut chunk.refused {
            refused.offset += base + 1;
        }
        whole.batches.append(&mut chunk.batches);
        whole.refused.append(&mut chunk.refused);
        whole.skipped += chunk.skipped;
        whole.received += chunk.received;
        whole.bytes += chunk.bytes;
    }
    whole.end_offset = Some(whole.next_offset);
    Ok(whole.settled(i64::MAX))
}

/// The path of a table's file: beside the contract that names it, unless it is absolute.
pub fn beside(contract: &str, path: &str) -> String {
    match Path::new(contract).parent() {
        Some(folder) => folder.join(path).to_string_lossy().into_owned(),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::testing::NOW;
    use contracts::SourceFile;
    use contracts::batch::ChangeOp;

    const CONTRACT: &str = "apiVersion: streamgauge/v1\nkind: Table\nname: owners\nversion: 1.0.0\nkey: service\n\
        fields: { service: { type: string, required: true }, team: { type: string } }\n";

    fn ops(chunk: &Chunk) -> Vec<ChangeOp> {
        let mut rows: Vec<(i64, ChangeOp)> = Vec::new();
        for batch in &chunk.batches {
            let changes = batch.changes.iter().flatten().map(|change| change.op);
            rows.extend(batch.offsets.iter().copied().zip(changes));
        }
        rows.sort_by_key(|(offset, _)| *offset);
        rows.into_iter().map(|(_, op)| op).collect()
    }

    #[test]
    fn a_reading_replaces_the_one_before() {
        let loaded = contracts::load(&[SourceFile::new("owners.yaml", CONTRACT)]);
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owners.csv").to_str().unwrap().to_owned();
        let (chunks, out) = crossbeam_channel::bounded(8);
        let feed = Feed {
            source: "table owners".into(),
            catalog: Arc::new(loaded.catalog),
            decode: DecodeSpec::default(),
            chunks,
            clock: Arc::new(|| NOW),
        };
        let file =
            TableFile { table: "owners".into(), path: path.clone(), every: Some(Duration::from_millis(10)) };
        let receiver = start(file, feed).unwrap();
        std::fs::write(&path, "service,team\nshop,core\n,nobody\npay,money\n").unwrap();
        let take = || out.recv_timeout(Duration::from_secs(10)).expect("a reading within 10 s");
        let first = take();
        assert_eq!(ops(&first), [ChangeOp::Truncate, ChangeOp::Upsert, ChangeOp::Upsert]);
        assert_eq!((first.refused.len(), first.received), (1, 4), "a row without a key is refused");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "service,team\nshop,payments\n").unwrap();
        let second = take();
        assert_eq!(ops(&second), [ChangeOp::Truncate, ChangeOp::Upsert]);
        assert!(second.batches[0].offsets[0] >= first.next_offset);
        receiver.stop();
    }
}
