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
use lake::{LakeConfig, LakeError, LakeReader, LakeWriter, Slice};

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
            looked: false,
        })
    }
}

struct FromLake {
    history: History,
    source: Arc<str>,
    catalog: Arc<Catalog>,
    /// Opened on the thread that reads, and only if there is something to read.
    reader: Option<LakeReader>,
    /// The reader has seen the tables since the ends were told.
    looked: bool,
}

impl FromLake {
    fn reader(&mut self) -> Result<&mut LakeReader, LakeError> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => LakeReader::open(&self.history.config, Arc::clone(&self.catalog))?,
        };
        let reader = self.reader.insert(reader);
        if !self.looked {
            reader.look()?;
            self.looked = true;
        }
        Ok(reader)
    }
}

impl Past for FromLake {
    fn ends(&mut self) -> Result<Offsets, String> {
        // First how far it is, then what is there: so all of it is.
        self.looked = false;
        let mut ends = self.history.lake.status().complete.0;
        ends.retain(|partition, _| partition.source == self.source);
        Ok(ends)
    }

    fn rows(&mut self, partition: &Partition, from: i64, until: i64) -> Result<PastRows, String> {
        let slice = self.reader().and_then(|reader| reader.slice(partition, from, until));
        let Slice { next, batches, refused } = slice.map_err(|error| {
            // Files go away some days after they were compacted: with the newest state it may work.
            self.looked = false;
            error.to_string()
        })?;
        Ok(PastRows { next, batches, refused })
    }
}
