//! The lake as the history of sources: what a new generation reads before the log and Kafka.
//!
//! *In*: the running lake, the contracts to read for. *Out*: a [`Past`] per source. *Never*: a row that the lake has not
//! yet wholly committed; a wait on the lake's own thread.

use std::collections::BTreeSet;
use std::sync::Arc;

use connectors::receive::Offsets;
use connectors::receive::past::{Past, PastRows};
use contracts::Catalog;
use contracts::batch::Partition;
use lake::{LakeConfig, LakeReader, LakeWriter, Slice};

/// The history that a lake holds.
#[derive(Debug, Clone)]
pub struct History {
    lake: Arc<LakeWriter>,
    config: LakeConfig,
}

impl History {
    /// What `lake`, which is kept as `config` says, holds.
    pub fn new(lake: Arc<LakeWriter>, config: LakeConfig) -> Self {
        Self { lake, config }
    }

    /// Names of the sources whose rows it holds.
    pub fn sources(&self) -> BTreeSet<Arc<str>> {
        self.lake.status().complete.0.into_keys().map(|partition| partition.source).collect()
    }

    /// Partitions of which it holds rows.
    pub fn partitions(&self) -> BTreeSet<Partition> {
        self.lake.status().complete.0.into_keys().collect()
    }

    /// The history of one source, for the events of `catalog`.
    pub fn of(&self, source: &Arc<str>, catalog: &Arc<Catalog>) -> Box<dyn Past> {
        Box::new(FromLake {
            history: self.clone(),
            source: Arc::clone(source),
            catalog: Arc::clone(catalog),
            reader: None,
        })
    }
}

struct FromLake {
    history: History,
    source: Arc<str>,
    catalog: Arc<Catalog>,
    /// Opened on the thread that reads.
    reader: Option<LakeReader>,
}

impl Past for FromLake {
    fn ends(&mut self) -> Result<Offsets, String> {
        // First how far it is, then what is there: so all of it is.
        let mut ends = self.history.lake.status().complete.0;
        ends.retain(|partition, _| partition.source == self.source);
        let told = |error: lake::LakeError| error.to_string();
        if self.reader.is_none() {
            let reader = LakeReader::open(&self.history.config, Arc::clone(&self.catalog));
            self.reader = Some(reader.map_err(told)?);
        }
        if let Some(reader) = &mut self.reader {
            reader.look().map_err(told)?;
        }
        Ok(ends)
    }

    fn rows(&mut self, partition: &Partition, from: i64, until: i64) -> Result<PastRows, String> {
        let reader = self.reader.as_mut().ok_or("the lake is not open")?;
        match reader.slice(partition, from, until) {
            Ok(Slice { next, batches, refused }) => Ok(PastRows { next, batches, refused }),
            Err(error) => {
                // Files go away some days after they were compacted: with the newest state it may work.
                let _ = reader.look();
                Err(error.to_string())
            }
        }
    }
}
