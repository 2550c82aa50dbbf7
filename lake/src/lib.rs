//! The lake: admitted rows as Iceberg tables of Parquet files, one per event type; refused ones in a table of their own.
//!
//! *In*: what ticks admitted and refused, with the tick's offsets. *Out*: rounds: all rows up to a tick are committed, each
//! table once, with the offsets they reach. *Never*: a row twice, a row lost between two rounds, a fresh start where a
//! table cannot be read.
//!
//! `place` is where files are; `storage` and `catalog` connect the iceberg crate to it; `columns` and
//! `files` make Parquet of batches; `rounds` are the plans, `commit` is what one plan does to one table (decision 0014);
//! `results` are those of metrics, `tell` what a round writes of them; `history` reads back, `reading` one file;
//! `maintain` and `swap` look after files and snapshots, `writer` is the thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use contracts::Catalog;
use contracts::batch::{EventBatch, Partition, Payloads, Refused};
use iceberg::spec::serialize_data_file_to_json;
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableCreation, TableIdent};
use uuid::Uuid;

mod catalog;
mod columns;
mod commit;
mod decided;
mod error;
mod files;
mod history;
mod maintain;
mod offsets;
mod reading;
mod results;
mod rounds;
mod storage;
mod swap;
mod tell;
#[cfg(test)]
mod tests;
mod writer;

pub mod place;

pub use catalog::{CATALOG_NAME, CatalogKind};
pub use columns::REFUSED;
pub use commit::{OFFSETS, ROUND, WRITER};
pub use error::LakeError;
pub use history::{LakeReader, Slice};
pub use maintain::{Care, Cared};
pub use offsets::Offsets;
pub use results::{AtTick, Closed};
pub use writer::{LakeStatus, LakeWriter};

use self::catalog::{Pin, Pinned};
use self::columns::Shape;
use self::decided::Judged;
use self::rounds::{Mark, Part, Plan, Rounds};
use self::swap::{Swap, SwapError};
use self::tell::Told;
use crate::place::{Place, PlaceError};

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

/// What one tick brings.
#[derive(Debug, Default)]
pub struct Fed {
    /// The tick's offsets.
    pub offsets: Offsets,
    /// Admitted rows.
    pub admitted: Vec<(Partition, EventBatch)>,
    /// Refused rows.
    pub refused: Vec<Refused>,
    /// Rows that were duplicates: partition, offset, part.
    pub duplicates: Vec<(Partition, i64, u32)>,
    /// The state of metrics, when all that was read before is in it; only of interest where a metric has a table.
    pub state: Option<Arc<dyn AtTick>>,
}

/// An open lake. All its calls are made from one thread.
#[derive(Debug)]
pub struct Lake {
    config: LakeConfig,
    catalog: Arc<dyn iceberg::Catalog>,
    place: Place,
    namespace: NamespaceIdent,
    rounds: Rounds,
    /// This process.
    writer: Uuid,
    tables: BTreeMap<String, Lane>,
    /// Number of the last round that is done.
    number: u64,
    /// Everything below is in the lake.
    complete: Offsets,
    /// Up to where ticks have been fed.
    fed: Offsets,
    /// A round that is not known to be done.
    pending: Option<Plan>,
    /// Bytes and rows in the lanes.
    waiting: (usize, u64),
    /// Opened when there is first something to do.
    swap: Option<Swap>,
    cared: Cared,
    told: Told,
    /// Duplicates since the last plan.
    judged: Judged,
}

/// One table, and the rows on their way into it.
#[derive(Debug)]
struct Lane {
    /// `None`: no contract knows it any more.
    shape: Option<Shape>,
    /// As of the last commit; `None`: there is no table yet.
    table: Option<Table>,
    /// The last round that had rows for it.
    mark: Option<Mark>,
    rows: Vec<(Partition, EventBatch)>,
    refused: Vec<Refused>,
    /// Results that the round at hand is to write.
    results: Option<RecordBatch>,
}

impl Lake {
    /// Opens the catalog, finishes the round that was planned last, and opens the tables.
    ///
    /// # Errors
    /// All of [`LakeError`].
    pub async fn open(config: LakeConfig, contracts: &Catalog) -> Result<Self, LakeError> {
        let place = Place::open(&config.warehouse).map_err(|error| LakeError::unreachable("lake", error))?;
        let catalog = catalog::open(&config.catalog, &place).await;
        let catalog = catalog.map_err(|error| LakeError::unreachable("the catalog of the lake", error))?;
        let mut lake = Self {
            namespace: NamespaceIdent::new(config.namespace.clone()),
            rounds: Rounds::new(&place, &config.namespace),
            writer: Uuid::new_v4(),
            tables: BTreeMap::new(),
            number: 0,
            complete: Offsets::default(),
            fed: Offsets::default(),
            pending: None,
            waiting: (0, 0),
            swap: None,
            cared: Cared::default(),
            told: Told::default(),
            judged: Judged::default(),
            config,
            catalog,
            place,
        };
        lake.recover().await?;
        lake.declare(contracts).await?;
        Ok(lake)
    }

    /// Finishes what was decided: afterwards all tables are complete up to the same offsets.
    async fn recover(&mut self) -> Result<(), LakeError> {
        let Some(plan) = self.rounds.newest().await.map_err(LakeError::plan)? else { return Ok(()) };
        for (name, part) in &plan.tables {
            let lane = Lane {
                shape: None,
                table: self.load(name).await?,
                mark: part.before.clone(),
                rows: Vec::new(),
                refused: Vec::new(),
                results: None,
            };
            self.tables.insert(name.clone(), lane);
        }
        faults::point("lake.recover");
        if faults::bug("skip_recovery") {
            self.number = plan.number;
            self.complete = rounds::offsets(&plan.to).map_err(LakeError::plan)?;
            return Ok(());
        }
        self.finish(&plan).await
    }

    /// Makes a lane for each event of `contracts`; new columns become part of their tables.
    ///
    /// # Errors
    /// A table that cannot take what the contracts say; nothing has been changed then.
    pub async fn declare(&mut self, contracts: &Catalog) -> Result<(), LakeError> {
        let mut shapes = vec![Shape::of_refused()];
        for event in contracts.events.iter().filter(|event| !event.head.name.starts_with(contracts::RESERVED))
        {
            let taken = |column| LakeError::Taken { event: event.head.name.clone(), column };
            shapes.push(Shape::of_event(event).map_err(taken)?);
        }
        Self::add_results(contracts, &mut shapes)?;
        for shape in shapes {
            let known = self.tables.get(&shape.name).and_then(|lane| lane.table.clone());
            let table = match known {
                Some(table) => Some(table),
                None => self.load(&shape.name).await?,
            };
            let table = match table {
                Some(table) => Some(self.widen(table, &shape).await?),
                None => None,
            };
            if let Some(lane) = self.tables.get_mut(&shape.name) {
                (lane.shape, lane.table) = (Some(shape), table);
                continue;
            }
            // No plan knows the table: rows of ours in it are somebody else's.
            let said = table.as_ref().map(|table| commit::said(table.metadata()));
            if let Some(said) = said {
                let stranger = |message| LakeError::RolledBack { table: shape.name.clone(), message };
                if let Some(mark) = said.map_err(stranger)? {
                    let message = format!("it holds round {}, but no plan of a round knows it", mark.round);
                    return Err(stranger(message));
                }
            }
            let name = shape.name.clone();
            let (rows, refused) = (Vec::new(), Vec::new());
            let lane = Lane { shape: Some(shape), table, mark: None, rows, refused, results: None };
            self.tables.insert(name, lane);
        }
        Ok(())
    }

    /// Everything below is in the lake.
    pub fn complete(&self) -> &Offsets {
        &self.complete
    }

    /// Bytes and rows that wait.
    pub fn waiting(&self) -> (usize, u64) {
        self.waiting
    }

    /// Takes what a tick brought, but for rows that were fed before: an engine that takes the place of another, and one
    /// after a restart, offer them again.
    pub fn feed(&mut self, contracts: &Catalog, fed: Fed) {
        self.judged.take(contracts, &fed, &self.fed);
        for (partition, mut batch) in fed.admitted {
            let name = columns::table_name(&contracts.events[batch.event].head.name);
            let Some(lane) = self.tables.get_mut(&name) else { continue };
            let next = self.fed.next(&partition).saturating_add(i64::from(faults::bug("skip_one")));
            if batch.offsets.first().is_some_and(|first| *first < next) {
                let Some(rest) = above(&batch, next) else { continue };
                batch = rest;
            }
            self.waiting.0 += batch_bytes(&batch);
            self.waiting.1 += batch.columns.num_rows() as u64;
            lane.rows.push((partition, batch));
        }
        if let Some(lane) = self.tables.get_mut(REFUSED)
            && !faults::bug("drop_refused")
        {
            let before = &self.fed;
            for row in fed.refused.into_iter().filter(|row| row.offset >= before.next(&row.partition)) {
                self.waiting.0 += refused_bytes(&row);
                self.waiting.1 += 1;
                lane.refused.push(row);
            }
        }
        self.fed.advance(&fed.offsets);
        if let Some(state) = fed.state {
            self.told.follow(contracts, state);
        }
    }

    /// Commits everything that was fed. After a passing error it is called again and goes on where it stopped.
    /// Returns the rows committed.
    ///
    /// # Errors
    /// All of [`LakeError`]; only [`LakeError::is_passing`] ones may be tried again.
    pub async fn round(&mut self) -> Result<u64, LakeError> {
        let plan = match self.pending.take() {
            Some(plan) => plan,
            None => {
                let told = self.tell().await?;
                if told.is_empty() && self.waiting().1 == 0 && self.complete.contains(&self.fed) {
                    return Ok(0);
                }
                let plan = self.plan().await?;
                self.told.put(told);
                plan
            }
        };
        let rows = plan.tables.values().map(|part| part.rows).sum();
        let done = async {
            self.rounds.write(&plan).await.map_err(LakeError::plan)?;
            self.finish(&plan).await
        };
        match done.await {
            Ok(()) => Ok(rows),
            Err(error) => {
                self.pending = Some(plan);
                Err(error)
            }
        }
    }

    /// Writes the files of a round; on an error the rows wait on.
    async fn plan(&mut self) -> Result<Plan, LakeError> {
        let (number, id) = (self.number + 1, Uuid::now_v7());
        let mut tables = BTreeMap::new();
        let names: Vec<String> = self.tables.keys().cloned().collect();
        for name in names {
            if self.tables[&name].waiting() > 0 && self.tables[&name].table.is_none() {
                let table = self.create(&name).await?;
                self.tables.get_mut(&name).expect("just seen").table = Some(table);
            }
            faults::point("lake.before_files");
            let part = self.tables[&name].part(&files::prefix(number, id)).await;
            let part = part.map_err(|error| LakeError::unreachable(&name, error))?;
            tables.insert(name, part);
        }
        faults::point("lake.after_files");
        for lane in self.tables.values_mut() {
            lane.rows.clear();
            lane.refused.clear();
            lane.results = None;
        }
        self.waiting = (0, 0);
        let mut to = self.complete.clone();
        to.advance(&self.fed);
        if faults::bug("offset_plus_one") {
            to.0.values_mut().for_each(|next| *next += 1);
        }
        let (from, to) = (self.complete.to_text(), to.to_text());
        let (dropped, began, events) = std::mem::take(&mut self.judged).planned();
        Ok(Plan { number, id, writer: self.writer, from, to, tables, dropped, began, events })
    }

    /// Does what a plan says, where it has not been done.
    async fn finish(&mut self, plan: &Plan) -> Result<(), LakeError> {
        for (name, part) in &plan.tables {
            let ident = self.ident(name);
            if part.table.is_none() && part.files.is_empty() {
                continue;
            }
            if let Some(file) = self.gone(name, part).await? {
                return Err(LakeError::FileMissing { table: name.clone(), file, round: plan.number });
            }
            let table = commit::finish(&self.catalog, &ident, plan, part).await;
            let table = table.map_err(|error| LakeError::not_committed(name, error))?;
            faults::point("lake.between_tables");
            if let Some(lane) = self.tables.get_mut(name) {
                lane.table = Some(table);
                if !part.files.is_empty() {
                    lane.mark = Some(plan.mark());
                }
            }
        }
        faults::point("lake.after_round");
        self.number = plan.number;
        self.complete = rounds::offsets(&plan.to).map_err(LakeError::plan)?;
        let complete = self.complete.clone();
        self.fed.advance(&complete);
        Ok(())
    }

    /// A file of a plan that is not there, and not in the table either.
    async fn gone(&self, name: &str, part: &Part) -> Result<Option<String>, LakeError> {
        let Some(table) = self.tables.get(name).and_then(|lane| lane.table.as_ref()) else {
            return Ok(None);
        };
        let failed = |error: &dyn std::fmt::Display| LakeError::unreachable(name, error);
        // A round that is done may have been compacted since: then its files may be gone.
        if commit::said(table.metadata()).ok().flatten() != part.before {
            return Ok(None);
        }
        for file in commit::files(table.metadata(), part).map_err(|error| failed(&error))? {
            let found = self.place.name_of(file.file_path()).map_err(|error| failed(&error))?;
            match self.place.size(&found).await {
                Ok(_) => {}
                Err(PlaceError::Missing(_)) => return Ok(Some(found)),
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(None)
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
        if self.tables[name].table.is_none() || self.pending.is_some() {
            return Ok(());
        }
        let care = self.config.care;
        let swap = match self.swap.take() {
            Some(swap) => swap,
            None => Swap::open(&self.config.catalog).await?,
        };
        let ident = self.ident(name);
        let swap = self.swap.insert(swap);
        let mut table = self.catalog.load_table(&ident).await?;
        while let Some((before, after)) = maintain::compact(&table, swap, &care).await? {
            self.cared.compacted.0 += before;
            self.cared.compacted.1 += after;
            table = self.catalog.load_table(&ident).await?;
        }
        let pinned = Pinned::new(Arc::clone(&self.catalog), Pin::of(table.metadata()));
        self.cared.expired += maintain::expire(&table, &pinned, &care).await?;
        let table = self.catalog.load_table(&ident).await?;
        self.cared.removed += maintain::sweep(&table, &self.place, self.number, &care).await?;
        Ok(())
    }

    fn ident(&self, name: &str) -> TableIdent {
        let (namespace, name) = self.split(name);
        TableIdent::new(namespace, name.to_owned())
    }

    /// A contract may name the namespace of its results.
    fn split<'a>(&self, name: &'a str) -> (NamespaceIdent, &'a str) {
        match name.split_once('.') {
            Some((namespace, name)) => (NamespaceIdent::new(namespace.to_owned()), name),
            None => (self.namespace.clone(), name),
        }
    }

    async fn load(&self, name: &str) -> Result<Option<Table>, LakeError> {
        let ident = self.ident(name);
        let failed = |error: iceberg::Error| LakeError::unreachable(name, error);
        // A namespace that is not there has no tables; asking for one of its tables would be an error.
        if !self.catalog.namespace_exists(ident.namespace()).await.map_err(failed)?
            || !self.catalog.table_exists(&ident).await.map_err(failed)?
        {
            return Ok(None);
        }
        self.catalog.load_table(&ident).await.map(Some).map_err(failed)
    }

    async fn create(&self, name: &str) -> Result<Table, LakeError> {
        let failed = |error: iceberg::Error| LakeError::unreachable(name, error);
        let Some(shape) = &self.tables[name].shape else {
            return Err(LakeError::unreachable(name, "no contract knows the table"));
        };
        let (namespace, short) = self.split(name);
        if !self.catalog.namespace_exists(&namespace).await.map_err(failed)? {
            let made = self.catalog.create_namespace(&namespace, Default::default()).await;
            if let Err(error) = made
                && error.kind() != iceberg::ErrorKind::NamespaceAlreadyExists
            {
                return Err(failed(error));
            }
        }
        let schema = shape.schema().map_err(failed)?;
        let partitions = shape.partitions(&schema, self.config.buckets).map_err(failed)?;
        let creation = TableCreation::builder()
            .name(short.to_owned())
            .location(format!("{}/{}/{short}", self.place.url(), namespace.to_url_string()))
            .schema(schema)
            .partition_spec(partitions)
            .properties([("write.parquet.compression-codec".to_owned(), "zstd".to_owned())])
            .build();
        match self.catalog.create_table(&namespace, creation).await {
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
        let update =
            lacking.into_iter().fold(transaction.update_schema(), |update, add| update.add_column(add));
        let pinned = Pinned::new(Arc::clone(&self.catalog), Pin::of(table.metadata()));
        update.apply(transaction).map_err(failed)?.commit(&pinned).await.map_err(failed)
    }
}

impl Lane {
    /// Makes files of what waits.
    async fn part(&self, prefix: &str) -> iceberg::Result<Part> {
        let before = self.mark.clone();
        let Some(table) = &self.table else {
            return Ok(Part { table: None, before, files: Vec::new(), rows: 0 });
        };
        let metadata = table.metadata();
        let mut part = Part { table: Some(metadata.uuid()), before, files: Vec::new(), rows: self.waiting() };
        if part.rows == 0 {
            return Ok(part);
        }
        let schema = Arc::new(iceberg::arrow::schema_to_arrow_schema(metadata.current_schema())?);
        let mut batches = Vec::with_capacity(self.rows.len() + 1);
        for (partition, batch) in &self.rows {
            batches.push(columns::of_event(partition, batch, &schema).map_err(told)?);
        }
        if !self.refused.is_empty() {
            batches.push(columns::of_refused(&self.refused, &schema).map_err(told)?);
        }
        if let Some(results) = &self.results {
            batches.push(columns::of_results(results, &schema).map_err(told)?);
        }
        for file in files::write(table, prefix, batches).await? {
            let kind = metadata.default_partition_type();
            part.files.push(serialize_data_file_to_json(file, kind, metadata.format_version())?);
        }
        Ok(part)
    }

    fn waiting(&self) -> u64 {
        let rows = self.rows.iter().map(|(_, batch)| batch.columns.num_rows() as u64);
        let results = self.results.as_ref().map_or(0, |results| results.num_rows() as u64);
        rows.sum::<u64>() + self.refused.len() as u64 + results
    }
}

fn told(error: arrow::error::ArrowError) -> iceberg::Error {
    iceberg::Error::new(iceberg::ErrorKind::DataInvalid, error.to_string())
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
