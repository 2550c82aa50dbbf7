//! The lake: admitted rows as Iceberg tables of Parquet files, one per event type; refused ones in a table of their own.
//!
//! *In*: what ticks admitted and refused, with the tick's offsets. *Out*: rounds: all rows up to a tick are committed, each
//! table once, with the offsets they reach. *Never*: a row twice, a row lost between two rounds, a fresh start where a
//! table cannot be read.
//!
//! `place` (beside this) is where files are; `storage` and `catalog` connect the iceberg crate to it; `columns` and
//! `files` make Parquet of batches; `commit` is the protocol of one table (decision 0014), `ledger` what holds for all of
//! them, `maintain` and `swap` look after files and snapshots, `writer` is the thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use contracts::Catalog;
use contracts::batch::{EventBatch, Partition, Payloads, Refused};
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableCreation, TableIdent};
use uuid::Uuid;

mod catalog;
mod columns;
mod commit;
mod files;
mod ledger;
mod maintain;
mod offsets;
mod storage;
mod swap;
#[cfg(test)]
mod tests;
mod writer;

pub use catalog::{CATALOG_NAME, CatalogKind};
pub use columns::REFUSED;
pub use commit::{COMMIT, FROM, OFFSETS, ROWS, WRITER};
pub use maintain::{Care, Cared};
pub use offsets::Offsets;
pub use writer::{LakeStatus, LakeWriter};

use self::columns::Shape;
use self::commit::{Batch, NotCommitted};
use self::ledger::{Ledger, LedgerError};
use self::swap::{Swap, SwapError};
use super::place::{Place, PlaceError};
use crate::fault;

/// How the lake is kept.
#[derive(Debug, Clone)]
pub struct LakeConfig {
    /// Which catalog.
    pub catalog: CatalogKind,
    /// Where files are: a folder or `s3://bucket/prefix`.
    pub warehouse: String,
    /// The Iceberg namespace of all tables.
    pub namespace: String,
    /// Rows of a day are kept apart by the hash of their id into so many files; 1: not at all.
    pub buckets: u32,
    /// Rows wait at most so long for their commit.
    pub commit_every: std::time::Duration,
    /// With so many bytes waiting they are committed at once.
    pub commit_bytes: usize,
    /// With so many bytes waiting the sources pause.
    pub most_bytes: usize,
    /// How tables are looked after.
    pub care: Care,
}

/// Why the lake cannot be used, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The catalog or the files cannot be reached, or answer with an error.
    #[error("lake_unreachable: {what}: {message}")]
    Unreachable {
        /// What was tried.
        what: String,
        /// The words of whoever answered.
        message: String,
    },
    /// A column has another type in the lake than in the contract.
    #[error(
        "lake_schema_conflict: {table}.{column} is `{there}` in the lake and `{here}` in the contract; give the field another name (`from:` keeps the place in the payload), or move the table away"
    )]
    Schema {
        /// Table.
        table: String,
        /// Column path.
        column: String,
        /// Type in the contract.
        here: String,
        /// Type in the lake.
        there: String,
    },
    /// An event has a field that the lake needs for itself.
    #[error(
        "lake_name_taken: the event {event} has a column `{column}`, which the lake adds itself; give the field another name"
    )]
    Taken {
        /// Event type.
        event: String,
        /// Column.
        column: String,
    },
    /// Another process writes into this lake.
    #[error(
        "lake_fenced: {table}: another process has committed: {message}. Only one may write; this one stops. Stop the other, or start this one again to go on from there"
    )]
    Fenced {
        /// Table.
        table: String,
        /// What was found.
        message: String,
    },
    /// A table is older than it was.
    #[error(
        "lake_rollback_detected: {table}: {message}. Rows that had been committed are missing. Bring the snapshot back (`rollback` in the tool that made it), or move the table away to write it again from the sources"
    )]
    RolledBack {
        /// Table.
        table: String,
        /// What was found.
        message: String,
    },
}

impl LakeError {
    /// Whether trying again may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    fn unreachable(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Unreachable { what: what.to_owned(), message: error.to_string() }
    }

    fn ledger(error: LedgerError) -> Self {
        match error {
            LedgerError::Fenced { .. } => {
                Self::Fenced { table: "the ledger".to_owned(), message: error.to_string() }
            }
            error => Self::unreachable("the ledger", error),
        }
    }
}

/// What one tick brings.
#[derive(Debug, Default)]
pub struct Fed {
    /// The tick's offsets.
    pub offsets: Offsets,
    /// Admitted rows.
    pub admitted: Vec<(Partition, EventBatch)>,
    /// Refused rows.
    pub refused: Vec<Refused>,
}

/// An open lake. All its calls are made from one thread.
#[derive(Debug)]
pub struct Lake {
    config: LakeConfig,
    catalog: Arc<dyn iceberg::Catalog>,
    place: Place,
    namespace: NamespaceIdent,
    ledger: Ledger,
    /// This process.
    writer: Uuid,
    tables: BTreeMap<String, Lane>,
    /// Up to where ticks have been fed.
    fed: Offsets,
    /// Opened when there is first something to do.
    swap: Option<Swap>,
    cared: Cared,
}

/// One table, and the rows on their way into it.
#[derive(Debug)]
struct Lane {
    shape: Shape,
    /// As of the last commit; `None`: there is no table yet.
    table: Option<Table>,
    /// Rows below these are in the table.
    complete: Offsets,
    rows: Vec<(Partition, EventBatch)>,
    refused: Vec<Refused>,
    /// Files written, commit not known to have landed.
    pending: Option<Batch>,
}

impl Lake {
    /// Opens the catalog, the ledger, and the tables that are there.
    ///
    /// # Errors
    /// All of [`LakeError`].
    pub async fn open(config: LakeConfig, contracts: &Catalog) -> Result<Self, LakeError> {
        let place = Place::open(&config.warehouse).map_err(|error| LakeError::unreachable("lake", error))?;
        let catalog = catalog::open(&config.catalog, &place).await;
        let catalog = catalog.map_err(|error| LakeError::unreachable("the catalog of the lake", error))?;
        let namespace = NamespaceIdent::new(config.namespace.clone());
        let ledger = Ledger::open(&place, &config.namespace).await.map_err(LakeError::ledger)?;
        let fed = Offsets::default();
        let tables = BTreeMap::new();
        let writer = Uuid::new_v4();
        let mut lake = Self { config, catalog, place, namespace, ledger, writer, tables, fed, swap: None, cared: Cared::default() };
        lake.declare(contracts).await?;
        lake.fed = lake.reached();
        Ok(lake)
    }

    /// Makes a lane for each event of `contracts`; new columns become part of their tables.
    ///
    /// # Errors
    /// A table that cannot take what the contracts say; nothing has been changed then.
    pub async fn declare(&mut self, contracts: &Catalog) -> Result<(), LakeError> {
        let mut shapes = vec![Shape::of_refused()];
        for event in &contracts.events {
            let taken = |column| LakeError::Taken { event: event.head.name.clone(), column };
            shapes.push(Shape::of_event(event).map_err(taken)?);
        }
        let complete = self.ledger.complete().map_err(LakeError::ledger)?;
        for shape in shapes {
            let table = match self.tables.get(&shape.name) {
                Some(lane) => lane.table.clone(),
                None => self.load(&shape.name).await?,
            };
            let table = match table {
                Some(table) => Some(self.widen(table, &shape).await?),
                None => None,
            };
            let reached = self.resumed(&shape.name, table.as_ref(), &complete)?;
            match self.tables.get_mut(&shape.name) {
                Some(lane) => (lane.shape, lane.table) = (shape, table),
                None => {
                    let lane = Lane {
                        complete: reached,
                        table,
                        rows: Vec::new(),
                        refused: Vec::new(),
                        pending: None,
                        shape: shape.clone(),
                    };
                    self.tables.insert(shape.name, lane);
                }
            }
        }
        Ok(())
    }

    /// Up to where all tables are complete.
    ///
    /// # Errors
    /// A ledger that cannot be read.
    pub fn complete(&self) -> Result<Offsets, LakeError> {
        self.ledger.complete().map_err(LakeError::ledger)
    }

    /// Up to where some table is complete: rows below must be admitted again before any beyond, so that of two copies of
    /// an id the same one counts as before.
    pub fn reached(&self) -> Offsets {
        let mut reached = Offsets::default();
        self.tables.values().for_each(|lane| reached.advance(&lane.complete));
        reached
    }

    /// Bytes and rows that wait.
    pub fn waiting(&self) -> (usize, u64) {
        let bytes = self.tables.values().map(Lane::bytes).sum();
        let rows = self.tables.values().map(Lane::waiting).sum();
        (bytes, rows)
    }

    /// Takes what a tick brought, but for rows that their table has.
    pub fn feed(&mut self, contracts: &Catalog, fed: Fed) {
        for (partition, mut batch) in fed.admitted {
            let name = contracts.events[batch.event].head.name.replace('.', "_");
            let Some(lane) = self.tables.get_mut(&name) else { continue };
            let next = lane.complete.next(&partition);
            if batch.offsets.first().is_some_and(|first| *first < next) {
                let Some(rest) = above(&batch, next) else { continue };
                batch = rest;
            }
            batch.payloads = Payloads::default();
            lane.rows.push((partition, batch));
        }
        if let Some(lane) = self.tables.get_mut(REFUSED) {
            let complete = &lane.complete;
            let new = fed.refused.into_iter().filter(|row| row.offset >= complete.next(&row.partition));
            lane.refused.extend(new);
        }
        self.fed.advance(&fed.offsets);
    }

    /// Commits everything that was fed. After a passing error it is called again and goes on where it stopped.
    /// Returns the rows committed.
    ///
    /// # Errors
    /// All of [`LakeError`]; only [`LakeError::is_passing`] ones may be tried again.
    pub async fn round(&mut self) -> Result<u64, LakeError> {
        let mut rows = 0;
        let names: Vec<String> = self.tables.keys().cloned().collect();
        for name in &names {
            rows += self.commit(name).await?;
            fault::point("lake.between_tables");
        }
        let complete = self.ledger.complete().map_err(LakeError::ledger)?;
        if self.fed.contains(&complete) && self.fed != complete {
            fault::point("lake.before_ledger");
            let last = |lane: &Lane| {
                let properties = lane.table.as_ref()?.metadata().properties();
                Some((lane.shape.name.clone(), properties.get(COMMIT)?.clone()))
            };
            let tables = self.tables.values().filter_map(last).collect();
            self.ledger.write(self.writer, &self.fed, tables).await.map_err(LakeError::ledger)?;
            fault::point("lake.after_ledger");
        }
        for lane in self.tables.values_mut() {
            lane.complete.advance(&self.fed);
        }
        Ok(rows)
    }

    /// Looks after all tables; returns what care has done since the start. What fails is done the next time.
    pub async fn care(&mut self) -> Cared {
        let names: Vec<String> = self.tables.keys().cloned().collect();
        for name in names {
            if let Err(error) = self.care_for(&name).await {
                self.cared.failures += 1;
                tracing::warn!(table = name, %error, "the table could not be looked after");
            }
        }
        self.cared
    }

    async fn care_for(&mut self, name: &str) -> Result<(), SwapError> {
        let lane = &self.tables[name];
        if lane.table.is_none() || lane.pending.is_some() {
            return Ok(());
        }
        let care = self.config.care;
        let swap = match self.swap.take() {
            Some(swap) => swap,
            None => Swap::open(&self.config.catalog).await?,
        };
        let swap = self.swap.insert(swap);
        let ident = TableIdent::new(self.namespace.clone(), name.to_owned());
        let mut table = self.catalog.load_table(&ident).await?;
        while let Some((before, after)) = maintain::compact(&table, swap, &care).await? {
            self.cared.compacted.0 += before;
            self.cared.compacted.1 += after;
            table = self.catalog.load_table(&ident).await?;
        }
        let pinned =
            catalog::Pinned::new(Arc::clone(&self.catalog), table.metadata().current_snapshot_id());
        self.cared.expired += maintain::expire(&table, &pinned, &care).await?;
        let table = self.catalog.load_table(&ident).await?;
        self.cared.removed += maintain::sweep(&table, &self.place, &care).await?;
        Ok(())
    }

    async fn commit(&mut self, name: &str) -> Result<u64, LakeError> {
        if self.tables[name].pending.is_none() {
            if self.tables[name].waiting() == 0 {
                return Ok(0);
            }
            self.write_files(name).await?;
        }
        let Self { tables, catalog, .. } = self;
        let Some(lane) = tables.get_mut(name) else { return Ok(0) };
        let (Some(batch), Some(table)) = (&lane.pending, &lane.table) else { return Ok(0) };
        let table = commit::append(catalog, table, batch).await.map_err(|error| match error {
            NotCommitted::Fenced(message) => LakeError::Fenced { table: name.to_owned(), message },
            NotCommitted::RolledBack(message) => LakeError::RolledBack { table: name.to_owned(), message },
            NotCommitted::Failed(error) => LakeError::unreachable(name, error),
        })?;
        let rows = batch.rows;
        lane.complete.advance(&batch.to);
        (lane.table, lane.pending) = (Some(table), None);
        Ok(rows)
    }

    /// Makes files of what waits; on an error it waits on.
    async fn write_files(&mut self, name: &str) -> Result<(), LakeError> {
        let failed = |error: &dyn std::fmt::Display| LakeError::unreachable(name, error);
        if self.tables[name].table.is_none() {
            let table = self.create(name).await?;
            let Some(lane) = self.tables.get_mut(name) else { return Ok(()) };
            lane.table = Some(table);
        }
        let (to, writer) = (self.fed.clone(), self.writer);
        let Some(lane) = self.tables.get_mut(name) else { return Ok(()) };
        let Some(table) = lane.table.clone() else { return Ok(()) };
        let schema = iceberg::arrow::schema_to_arrow_schema(table.metadata().current_schema());
        let schema = Arc::new(schema.map_err(|error| failed(&error))?);
        let mut batches = Vec::with_capacity(lane.rows.len() + 1);
        for (partition, batch) in &lane.rows {
            batches.push(columns::of_event(partition, batch, &schema).map_err(|error| failed(&error))?);
        }
        if !lane.refused.is_empty() {
            batches.push(columns::of_refused(&lane.refused, &schema).map_err(|error| failed(&error))?);
        }
        let id = Uuid::now_v7();
        fault::point("lake.before_files");
        let files = files::write(&table, id, batches).await.map_err(|error| failed(&error))?;
        fault::point("lake.after_files");
        let (from, rows) = (lane.complete.clone(), lane.waiting());
        lane.pending = Some(Batch { id, from, to, files, rows, writer });
        lane.rows.clear();
        lane.refused.clear();
        Ok(())
    }

    fn ident(&self, name: &str) -> TableIdent {
        TableIdent::new(self.namespace.clone(), name.to_owned())
    }

    async fn load(&self, name: &str) -> Result<Option<Table>, LakeError> {
        let ident = self.ident(name);
        let failed = |error: iceberg::Error| LakeError::unreachable(name, error);
        // A namespace that is not there has no tables; asking for one of its tables would be an error.
        if !self.catalog.namespace_exists(&self.namespace).await.map_err(failed)?
            || !self.catalog.table_exists(&ident).await.map_err(failed)?
        {
            return Ok(None);
        }
        self.catalog.load_table(&ident).await.map(Some).map_err(failed)
    }

    async fn create(&self, name: &str) -> Result<Table, LakeError> {
        let shape = &self.tables[name].shape;
        let failed = |error: iceberg::Error| LakeError::unreachable(name, error);
        if !self.catalog.namespace_exists(&self.namespace).await.map_err(failed)? {
            let made = self.catalog.create_namespace(&self.namespace, Default::default()).await;
            if let Err(error) = made
                && error.kind() != iceberg::ErrorKind::NamespaceAlreadyExists
            {
                return Err(failed(error));
            }
        }
        let schema = shape.schema().map_err(failed)?;
        let partitions = shape.partitions(&schema, self.config.buckets).map_err(failed)?;
        let creation = TableCreation::builder()
            .name(name.to_owned())
            .location(format!("{}/{}/{name}", self.place.url(), self.config.namespace))
            .schema(schema)
            .partition_spec(partitions)
            .properties([("write.parquet.compression-codec".to_owned(), "zstd".to_owned())])
            .build();
        match self.catalog.create_table(&self.namespace, creation).await {
            Ok(table) => Ok(table),
            // Another process was faster, or our own request was answered too late.
            Err(error) if error.kind() == iceberg::ErrorKind::TableAlreadyExists => {
                self.load(name).await?.ok_or_else(|| failed(error))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Adds the columns that a table lacks.
    async fn widen(&self, table: Table, shape: &Shape) -> Result<Table, LakeError> {
        use iceberg::transaction::{ApplyTransactionAction, Transaction};
        let lacking = shape.lacking(table.metadata().current_schema()).map_err(|conflict| {
            let columns::Conflict { column, here, there } = conflict;
            LakeError::Schema { table: shape.name.clone(), column, here, there }
        })?;
        if lacking.is_empty() {
            return Ok(table);
        }
        let failed = |error: iceberg::Error| LakeError::unreachable(&shape.name, error);
        let transaction = Transaction::new(&table);
        let update = lacking.into_iter().fold(transaction.update_schema(), |update, add| update.add_column(add));
        let pinned =
            catalog::Pinned::new(Arc::clone(&self.catalog), table.metadata().current_snapshot_id());
        update.apply(transaction).map_err(failed)?.commit(&pinned).await.map_err(failed)
    }

    /// Up to where a table is complete when it is opened.
    fn resumed(
        &self,
        name: &str,
        table: Option<&Table>,
        complete: &Offsets,
    ) -> Result<Offsets, LakeError> {
        let rolled_back = |message| LakeError::RolledBack { table: name.to_owned(), message };
        let known = self.ledger.newest.as_ref().and_then(|entry| entry.tables.get(name));
        let Some(table) = table else {
            return match known {
                Some(commit) => Err(rolled_back(format!("there is no such table any more; the ledger knows commit {commit}"))),
                None => Ok(complete.clone()),
            };
        };
        let mut own = commit::offsets(table.metadata()).map_err(rolled_back)?;
        if let Some(commit) = known
            && table.metadata().properties().get(COMMIT) != Some(commit)
            && complete.contains(&own)
        {
            return Err(rolled_back(format!(
                "the ledger knows commit {commit}, the table's last one is older: {}",
                table.metadata().properties().get(COMMIT).map_or("none", String::as_str)
            )));
        }
        own.advance(complete);
        Ok(own)
    }
}

impl Lane {
    fn waiting(&self) -> u64 {
        let rows = self.rows.iter().map(|(_, batch)| batch.columns.num_rows() as u64);
        rows.sum::<u64>() + self.refused.len() as u64
    }

    fn bytes(&self) -> usize {
        let rows = self.rows.iter().map(|(_, batch)| batch_bytes(batch));
        let refused = self.refused.iter().map(refused_bytes);
        rows.sum::<usize>() + refused.sum::<usize>()
    }
}

fn batch_bytes(batch: &EventBatch) -> usize {
    batch.columns.get_array_memory_size() + batch.offsets.len() * 64
}

fn refused_bytes(row: &Refused) -> usize {
    row.payload.len() + row.reasons.iter().map(|reason| reason.message.len() + 64).sum::<usize>() + 200
}

/// The rows at or above `next`.
fn above(batch: &EventBatch, next: i64) -> Option<EventBatch> {
    let keep: Vec<bool> = batch.offsets.iter().map(|offset| *offset >= next).collect();
    let kept = || keep.iter();
    if kept().all(|keep| !keep) {
        return None;
    }
    let filter = arrow::array::BooleanArray::from(keep.clone());
    let ids = arrow::compute::filter(&batch.ids, &filter).ok()?;
    fn pick<T: Copy>(all: &[T], keep: &[bool]) -> Vec<T> {
        all.iter().zip(keep).filter(|(_, keep)| **keep).map(|(one, _)| *one).collect()
    }
    Some(EventBatch {
        event: batch.event,
        columns: arrow::compute::filter_record_batch(&batch.columns, &filter).ok()?,
        ids: arrow::array::AsArray::as_string::<i32>(&ids).clone(),
        offsets: pick(&batch.offsets, &keep),
        parts: pick(&batch.parts, &keep),
        received: pick(&batch.received, &keep),
        payloads: Payloads::default(),
        changes: batch.changes.as_ref().map(|changes| pick(changes, &keep)),
    })
}

impl From<PlaceError> for LakeError {
    fn from(error: PlaceError) -> Self {
        Self::unreachable("the files of the lake", error)
    }
}
