//! What says which blobs belong together, and what they are the state of.
//!
//! *In*: a checkpoint whose blobs are durable. *Out*: a text: one line with a checksum, then JSON. *Never*: a
//! manifest that is believed before its checksum holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use contracts::Catalog;
use contracts::batch::Partition;
use operators::admit::dedupe::Secret;
use serde::{Deserialize, Serialize};

use super::blob::checksum;
use crate::publish::{Counts, Progress};

/// The version of the layout of state. It grows when the bytes of any state mean something else.
pub(super) const FORMAT: u32 = 2;

/// A file of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobRef {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Of the whole file.
    pub(super) checksum: String,
    pub(super) rows: u64,
    /// How many times it was put together from smaller ones.
    pub(super) level: u32,
}

/// The files of one table, the oldest first: all of its records, then those that changed.
pub(crate) type Chain = Vec<BlobRef>;

/// Where a partition stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stand {
    pub(crate) partition: Partition,
    pub(crate) next: i64,
    pub(crate) end: Option<i64>,
    pub(crate) settled: i64,
}

/// Counts of a source and event type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) source: Arc<str>,
    pub(crate) event: String,
    pub(crate) counts: Counts,
}

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(super) format: u32,
    pub(crate) id: u64,
    /// The program that wrote it.
    pub(super) written_by: String,
    pub(crate) tick: u64,
    /// The instant of the tick.
    pub(crate) now: i64,
    /// No event admitted so far is later than this.
    pub(super) admitted_until: i64,
    pub(super) workers: usize,
    /// Hash of all contracts.
    pub(super) catalog: String,
    /// Hash of each contract.
    pub(super) contracts: BTreeMap<String, String>,
    pub(crate) secret: Secret,
    /// What the secret makes of a text: hashes differ between kinds of processors.
    pub(super) proof: u64,
    pub(crate) partitions: Vec<Stand>,
    pub(super) counters: Vec<Counted>,
    pub(super) chains: BTreeMap<String, Chain>,
    /// What belongs to no key.
    pub(super) rest: BlobRef,
}

/// The hash of each contract, by kind and name.
pub(super) fn contracts_of(catalog: &Catalog) -> BTreeMap<String, String> {
    let head =
        |kind: &str, head: &contracts::catalog::Head| (format!("{kind} {}", head.name), head.hash.clone());
    let events = catalog.events.iter().map(|event| head("event", &event.head));
    let entities = catalog.entities.iter().map(|entity| head("entity", &entity.head));
    let tables = catalog.tables.iter().map(|table| head("table", &table.head));
    let metrics = catalog.metrics.iter().map(|metric| head("metric", &metric.head));
    events.chain(entities).chain(tables).chain(metrics).collect()
}

/// What a manifest's file is called.
pub(super) fn name(id: u64) -> String {
    format!("manifest-{id:012}.json")
}

/// The number in a manifest's name.
pub(super) fn number(name: &str) -> Option<u64> {
    name.strip_prefix("manifest-")?.strip_suffix(".json")?.parse().ok()
}

/// What a blob's file is called.
pub(super) fn blob_name(id: u64, number: usize) -> String {
    format!("state-{id:012}-{number:05}.bin")
}

/// The number of the checkpoint that a blob was written for.
pub(super) fn blob_number(name: &str) -> Option<u64> {
    name.strip_prefix("state-")?.strip_suffix(".bin")?.split_once('-')?.0.parse().ok()
}

impl Manifest {
    /// As bytes.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, String> {
        let body = serde_json::to_vec_pretty(self).map_err(|error| error.to_string())?;
        let mut bytes = format!("streamgauge checkpoint {:016x}\n", checksum(&[&body])).into_bytes();
        bytes.extend(body);
        Ok(bytes)
    }

    /// From bytes; the error says what is wrong with them.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, String> {
        let line = bytes.iter().position(|byte| *byte == b'\n').ok_or("it has no first line")?;
        let (line, body) = (&bytes[..line], &bytes[line + 1..]);
        let said =
            std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("streamgauge checkpoint "));
        let said = said.ok_or("its first line is not that of a checkpoint")?;
        let is = format!("{:016x}", checksum(&[body]));
        if said != is {
            return Err(format!("its checksum is {is}, not {said}"));
        }
        // The version first: a later one may look quite different.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Version = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if version.format != FORMAT {
            return Err(format!("its format is {}, this program reads {FORMAT}", version.format));
        }
        serde_json::from_slice(body).map_err(|error| error.to_string())
    }

    /// All files it names.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        self.chains.values().flatten().chain(std::iter::once(&self.rest))
    }
}

impl Stand {
    pub(crate) fn progress(&self) -> Progress {
        Progress { next: self.next, end: self.end }
    }
}
