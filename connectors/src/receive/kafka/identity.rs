//! Whether a partition is still the one that was read: one record of it is remembered and looked at again.
//!
//! *In*: now and then a record that is read. *Out*: a file of marks; at a start, the partitions in which another record
//! stands at the mark's offset. *Never*: a verdict without a record to look at: retention or compaction may have taken it.
//!
//! Kafka gives a topic that is made again another id, but the client library does not tell it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How long the records may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) topic: String,
    pub(super) number: i32,
    pub(super) offset: i64,
    /// SHA-256 of its timestamp, key and value.
    hash: String,
}

impl Mark {
    pub(super) fn of(message: &impl Message) -> Self {
        let mut hash = Sha256::new();
        hash.update(message.timestamp().to_millis().unwrap_or(0).to_le_bytes());
        for part in [message.key(), message.payload()] {
            hash.update(part.map_or(-1, |bytes| bytes.len() as i64).to_le_bytes());
            hash.update(part.unwrap_or_default());
        }
        let hash = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            topic: message.topic().to_owned(),
            number: message.partition(),
            offset: message.offset(),
            hash,
        }
    }
}

/// The newest mark of each partition.
#[derive(Debug)]
pub(super) struct Marks {
    path: Option<PathBuf>,
    marks: BTreeMap<(String, i32), Mark>,
    fresh: bool,
}

impl Marks {
    /// Reads a file; one that is not there is empty.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn load(path: Option<PathBuf>) -> Result<Self, String> {
        let text = match path.as_ref().map(std::fs::read_to_string) {
            Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            Some(Ok(text)) => Ok(text),
            _ => Ok("[]".to_owned()),
        };
        let marks = text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
        let marks: Vec<Mark> = marks.map_err(|error| {
            let path = path.as_deref().map(Path::display);
            format!(
                "{}: {error}; move it away to go on without it",
                path.map_or_else(String::new, |p| p.to_string())
            )
        })?;
        let marks = marks.into_iter().map(|mark| ((mark.topic.clone(), mark.number), mark)).collect();
        Ok(Self { path, marks, fresh: false })
    }

    pub(super) fn all(&self) -> Vec<Mark> {
        self.marks.values().cloned().collect()
    }

    pub(super) fn put(&mut self, mark: Mark) {
        self.marks.insert((mark.topic.clone(), mark.number), mark);
        self.fresh = true;
    }

    /// Writes the file if there is something new. Without it less is noticed, nothing is lost.
    pub(super) fn save(&mut self) -> std::io::Result<()> {
        let Some(path) = self.path.as_ref().filter(|_| self.fresh) else { return Ok(()) };
        let temporary = path.with_extension("tmp");
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&self.all())?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        self.fresh = false;
        Ok(())
    }
}

/// Of `marks`, whose offsets are there, those at which another record stands.
pub(super) fn changed(probe: &BaseConsumer, marks: &[Mark]) -> Result<Vec<Mark>, KafkaError> {
    let mut list = TopicPartitionList::new();
    for mark in marks {
        list.add_partition_offset(&mark.topic, mark.number, Offset::Offset(mark.offset))?;
    }
    probe.assign(&list)?;
    let started = Instant::now();
    let (mut open, mut changed) = (marks.to_vec(), Vec::new());
    while !open.is_empty() && started.elapsed() < PATIENCE {
        match probe.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                let is = |mark: &Mark| mark.topic == message.topic() && mark.number == message.partition();
                if let Some(at) = open.iter().position(is) {
                    let mark = open.swap_remove(at);
                    // A later record: compaction has taken ours.
                    if message.offset() == mark.offset && Mark::of(&message) != mark {
                        changed.push(mark);
                    }
                }
            }
            // Only what is no record comes any more: nothing to compare.
            Some(Err(KafkaError::PartitionEOF(number))) => {
                let same = open.iter().filter(|mark| mark.number == number).count();
                open.retain(|mark| mark.number != number || same > 1);
            }
            Some(Err(error)) => return Err(error),
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_kept_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.json");
        let mut marks = Marks::load(Some(path.clone())).unwrap();
        let mark = |number, offset| Mark { topic: "t".into(), number, offset, hash: "00".into() };
        for mark in [mark(0, 1), mark(1, 5), mark(0, 9)] {
            marks.put(mark);
        }
        marks.save().unwrap();
        assert_eq!(Marks::load(Some(path.clone())).unwrap().all(), [mark(0, 9), mark(1, 5)]);
        std::fs::write(&path, "{").unwrap();
        assert!(Marks::load(Some(path)).unwrap_err().contains("orders.json"));
        assert_eq!(Marks::load(None).unwrap().all(), []);
    }
}
