//! Reading the lake back: the rows of a source's partition, slice by slice.
//!
//! *In*: a partition and the offsets wanted. *Out*: its admitted rows as the batches they were admitted from, its refused
//! ones with their payloads. *Never*: a row of another partition or at another offset; more than a slice in memory; a
//! write.
//!
//! A slice is cut so that the files' own statistics let about [`SLICE_ROWS`] rows expect; the predicate of a scan passes
//! over all files and row groups that lie elsewhere.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use bytes::Bytes;
use contracts::Catalog;
use contracts::batch::{Change, ChangeOp, EventBatch, Partition, Payloads, Refused};
use contracts::catalog::{Event, Status};
use futures::{StreamExt, TryStreamExt};
use iceberg::expr::{Bind, Predicate, Reference};
use iceberg::scan::FileScanTask;
use iceberg::spec::{DataFile, Datum, ManifestContentType, PrimitiveLiteral, Schema as IcebergSchema};
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableIdent};

use super::columns::{REFUSED, plain, table_name};
use super::{LakeConfig, LakeError, catalog, reading};
use crate::place::Place;

/// Rows a slice is meant to have.
const SLICE_ROWS: f64 = if cfg!(test) { 16.0 } else { 65_536.0 };
/// What a slice may take, whatever the files' statistics promised; beyond it is cut in half.
const MOST_ROWS: usize = 4 * SLICE_ROWS as usize;
const MOST_BYTES: usize = 128 << 20;
/// Files read at a time: one is waited for while another is decoded.
const FILES: usize = 4;
/// A text of fewer bytes is whole in the files' statistics (other programs cut them at 16).
const CUT: usize = 16;

/// The rows of a partition between two offsets.
#[derive(Debug, Default)]
pub struct Slice {
    /// Everything asked for below this is in this slice or an earlier one.
    pub next: i64,
    /// Admitted rows, one batch per event type, in the order of their offsets. Columns are those of [`Event::decoded`]:
    /// a field that the lake does not know is null. There are no payloads.
    pub batches: Vec<EventBatch>,
    /// Refused rows, in the order of their offsets.
    pub refused: Vec<Refused>,
}

/// Reads a lake beside whoever writes it.
pub struct LakeReader {
    runtime: tokio::runtime::Runtime,
    catalog: Arc<dyn iceberg::Catalog>,
    namespace: NamespaceIdent,
    contracts: Arc<Catalog>,
    tables: Vec<Open>,
}

impl std::fmt::Debug for LakeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LakeReader").field("tables", &self.tables.len()).finish_non_exhaustive()
    }
}

/// A table as of the last look.
struct Open {
    /// Index of the event; `None`: the refused rows.
    event: Option<usize>,
    name: String,
    table: Table,
    /// What each says of itself, and how it is read as a whole.
    files: Vec<(Span, FileScanTask)>,
    /// The columns wanted, in the types wanted.
    wanted: SchemaRef,
}

/// What a data file says of itself.
struct Span {
    source: Bounds<String>,
    topic: Bounds<String>,
    number: Bounds<i32>,
    /// Least and greatest offset.
    offsets: (i64, i64),
    rows: u64,
}

/// Least and greatest value; `None`: not known.
type Bounds<T> = (Option<T>, Option<T>);

impl LakeReader {
    /// Opens the lake for the events of `contracts`; [`LakeReader::look`] comes next.
    ///
    /// # Errors
    /// The catalog or the files cannot be reached.
    pub fn open(config: &LakeConfig, contracts: Arc<Catalog>) -> Result<Self, LakeError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| LakeError::unreachable("a runtime", error))?;
        let place = Place::open(&config.warehouse).map_err(|error| LakeError::unreachable("lake", error))?;
        let opened = runtime.block_on(catalog::open(&config.catalog, &place));
        let catalog = opened.map_err(|error| LakeError::unreachable("the catalog of the lake", error))?;
        let namespace = NamespaceIdent::new(config.namespace.clone());
        Ok(Self { runtime, catalog, namespace, contracts, tables: Vec::new() })
    }

    /// Takes the newest state of all tables: what is complete before this call is seen after it.
    ///
    /// # Errors
    /// The catalog or the files cannot be reached.
    pub fn look(&mut self) -> Result<(), LakeError> {
        let events = self.contracts.events.iter().enumerate();
        // Of a draft or a retired type nothing is taken from elsewhere, either.
        let runs = |status| matches!(status, Status::Active | Status::Deprecated);
        let events = events.filter(|(_, event)| {
            runs(event.head.status) && !event.head.name.starts_with(contracts::RESERVED)
        });
        let mut wanted: Vec<(Option<usize>, String)> =
            events.map(|(index, event)| (Some(index), table_name(&event.head.name))).collect();
        wanted.push((None, REFUSED.to_owned()));
        let mut tables = Vec::new();
        for (event, name) in wanted {
            let failed = |error: iceberg::Error| LakeError::unreachable(&name, error);
            let wanted = wanted_columns(event.map(|event| self.contracts.events[event].as_ref()));
            let ident = TableIdent::new(self.namespace.clone(), name.clone());
            let opened =
                self.runtime.block_on(open(self.catalog.as_ref(), &ident, &wanted)).map_err(failed)?;
            tables.extend(opened.map(|(table, files)| Open { event, name, table, files, wanted }));
        }
        self.tables = tables;
        Ok(())
    }

    /// The rows of `partition` from `from` on; how far, its `next` says: at most `until`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn slice(&self, partition: &Partition, from: i64, until: i64) -> Result<Slice, LakeError> {
        let files = self.tables.iter().flat_map(|open| &open.files).map(|(span, _)| span);
        let files: Vec<&Span> = files.filter(|span| span.may_hold(partition, from, until)).collect();
        let Some(start) = files.iter().map(|span| span.offsets.0.max(from)).min() else {
            return Ok(Slice { next: until, ..Slice::default() });
        };
        let mut to = cut(&files, start, until);
        loop {
            if let Some(slice) = self.read(partition, start, to)? {
                return Ok(slice);
            }
            to = start + (to - start) / 2;
        }
    }

    /// `None`: that is too much.
    fn read(&self, partition: &Partition, from: i64, to: i64) -> Result<Option<Slice>, LakeError> {
        let mut slice = Slice { next: to, ..Slice::default() };
        let mut budget = Budget { single: to - from <= 1, ..Budget::default() };
        for open in &self.tables {
            let failed = |error: iceberg::Error| LakeError::unreachable(&open.name, error);
            let tasks = open.tasks(partition, from, to).map_err(failed)?;
            let found = self.runtime.block_on(open.rows(tasks, &mut budget)).map_err(failed)?;
            let Some(found) = found else { return Ok(None) };
            let Some(all) = in_order(&found).map_err(|error| LakeError::unreachable(&open.name, error))?
            else {
                continue;
            };
            let told = |error: ArrowError| LakeError::unreachable(&open.name, error);
            match open.event {
                Some(event) => {
                    slice.batches.push(admitted(event, &self.contracts.events[event], &all).map_err(told)?);
                }
                None => slice.refused = refused(partition, &all).map_err(told)?,
            }
        }
        Ok(Some(slice))
    }
}

/// The columns of an event's table, or of the table of refused rows, as they are wanted.
fn wanted_columns(event: Option<&Event>) -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let instant = |name: &str| Field::new(name, contracts::value::timestamp_type(), true);
    let mut fields: Vec<Field> = match event {
        Some(event) => {
            // As they are stored: what is asked for is made of a whole slice at once.
            let own = event.decoded.fields().iter();
            let own = own.map(|field| Field::new(field.name(), plain(field.data_type()), true));
            own.chain([text("_id"), text("_op"), instant("_committed")]).collect()
        }
        None => ["event_type", "event_id", "reasons", "headers"].map(text).to_vec(),
    };
    if event.is_none() {
        fields.push(Field::new("payload", DataType::Binary, true));
    }
    fields.push(instant("_received"));
    fields.push(Field::new("_offset", DataType::Int64, true));
    fields.push(Field::new("_part", DataType::Int32, true));
    Arc::new(Schema::new(fields))
}

impl Open {
    /// What may hold rows of the partition between two offsets, and is to be read of it.
    fn tasks(&self, partition: &Partition, from: i64, to: i64) -> iceberg::Result<Vec<FileScanTask>> {
        let mut bound = None;
        let mut tasks = Vec::new();
        for (span, task) in self.files.iter().filter(|(span, _)| span.may_hold(partition, from, to)) {
            let mut task = task.clone();
            if !span.is_within(partition, from, to) {
                if bound.is_none() {
                    bound = Some(filter(partition, from, to).bind(Arc::clone(&task.schema), true)?);
                }
                task.predicate.clone_from(&bound);
            }
            tasks.push(task);
        }
        Ok(tasks)
    }

    /// Their rows, as much as a slice may have; `None`: that is too much, and there are several offsets.
    async fn rows(
        &self,
        tasks: Vec<FileScanTask>,
        budget: &mut Budget,
    ) -> iceberg::Result<Option<Vec<RecordBatch>>> {
        let single = budget.single;
        let mut files = futures::stream::iter(tasks).map(|task| self.file(task, single)).buffered(FILES);
        let mut found = Vec::new();
        while let Some(batches) = files.try_next().await? {
            if !batches.iter().all(|batch| budget.takes(batch)) {
                return Ok(None);
            }
            found.extend(batches);
        }
        Ok(Some(found))
    }

    /// The rows of one file, or the first of them that are too much for a slice.
    async fn file(&self, task: FileScanTask, single: bool) -> iceberg::Result<Vec<RecordBatch>> {
        let (mut found, mut budget) = (Vec::new(), Budget { single, ..Budget::default() });
        let mut rows = reading::rows(&self.table, task).await?;
        while let Some(batch) = rows.try_next().await? {
            let more = budget.takes(&batch);
            found.push(reading::fields(&batch, &self.wanted).map_err(super::told)?);
            if !more {
                break;
            }
        }
        Ok(found)
    }
}

/// What a slice has so far.
#[derive(Debug, Default)]
struct Budget {
    /// It is of one offset only: then it is as large as it is.
    single: bool,
    rows: usize,
    bytes: usize,
}

impl Budget {
    /// Counts a batch; `false`: it is too much.
    fn takes(&mut self, batch: &RecordBatch) -> bool {
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        self.single || (self.rows <= MOST_ROWS && self.bytes <= MOST_BYTES)
    }
}

async fn open(
    catalog: &dyn iceberg::Catalog,
    ident: &TableIdent,
    wanted: &SchemaRef,
) -> iceberg::Result<Option<(Table, Vec<(Span, FileScanTask)>)>> {
    if !catalog.namespace_exists(ident.namespace()).await? || !catalog.table_exists(ident).await? {
        return Ok(None);
    }
    let table = catalog.load_table(ident).await?;
    let Some(snapshot) = table.metadata().current_snapshot() else { return Ok(None) };
    // A column that is newer than the snapshot is in none of its files, and a scan does not know it.
    let schema = snapshot.schema(table.metadata())?;
    let names = wanted.fields().iter().map(|field| field.name());
    let scan = table.scan().select(names.filter(|name| schema.field_by_name(name).is_some())).build()?;
    let tasks: Vec<FileScanTask> = scan.plan_files().await?.try_collect().await?;
    let mut tasks: HashMap<String, FileScanTask> =
        tasks.into_iter().map(|task| (task.data_file_path.clone(), task)).collect();
    let list = table.manifest_list_reader(snapshot).load().await?;
    let mut files = Vec::new();
    for manifest in list.entries().iter().filter(|manifest| manifest.content == ManifestContentType::Data) {
        let manifest = manifest.load_manifest(table.file_io()).await?;
        for entry in manifest.entries().iter().filter(|entry| entry.is_alive()) {
            let task = tasks.remove(entry.file_path()).ok_or_else(|| {
                let words = format!("{} is in the manifest and not in the scan", entry.file_path());
                iceberg::Error::new(iceberg::ErrorKind::Unexpected, words)
            })?;
            files.push((Span::of(entry.data_file(), &schema), task));
        }
    }
    Ok(Some((table, files)))
}

impl Span {
    fn of(file: &DataFile, schema: &IcebergSchema) -> Self {
        let bounds = |name: &str| {
            let id = schema.field_id_by_name(name).unwrap_or_default();
            let literal = |datum: &Datum| datum.literal().clone();
            (file.lower_bounds().get(&id).map(literal), file.upper_bounds().get(&id).map(literal))
        };
        let text = |name: &str| {
            let (low, high) = bounds(name);
            let text = |literal| match literal {
                PrimitiveLiteral::String(text) => Some(text),
                _ => None,
            };
            (low.and_then(text), high.and_then(text))
        };
        let int = |literal| match literal {
            PrimitiveLiteral::Int(number) => Some(number),
            _ => None,
        };
        let long = |literal| match literal {
            PrimitiveLiteral::Long(number) => Some(number),
            _ => None,
        };
        let (number, offset) = (bounds("_topic_partition"), bounds("_offset"));
        Self {
            source: text("_source"),
            topic: text("_topic"),
            number: (number.0.and_then(int), number.1.and_then(int)),
            offsets: (offset.0.and_then(long).unwrap_or(0), offset.1.and_then(long).unwrap_or(i64::MAX - 1)),
            rows: file.record_count(),
        }
    }

    /// All its rows are of the partition and between the offsets: nothing has to be looked at for that.
    fn is_within(&self, partition: &Partition, from: i64, to: i64) -> bool {
        // Of long texts only the beginning may be known.
        let same = |(low, high): &Bounds<String>, text: &str| {
            text.len() < CUT && low.as_deref() == Some(text) && high.as_deref() == Some(text)
        };
        self.offsets.0 >= from
            && self.offsets.1 < to
            && self.number == (Some(partition.number), Some(partition.number))
            && same(&self.source, &partition.source)
            && same(&self.topic, &partition.topic)
    }

    fn may_hold(&self, partition: &Partition, from: i64, until: i64) -> bool {
        let text = |(low, high): &Bounds<String>, wanted: &str| {
            // Long texts are cut: of the greatest only the beginning may be known.
            low.as_ref().is_none_or(|low| low.as_str() <= wanted)
                && high
                    .as_ref()
                    .is_none_or(|high| wanted <= high.as_str() || wanted.starts_with(high.as_str()))
        };
        self.offsets.1 >= from
            && self.offsets.0 < until
            && text(&self.source, &partition.source)
            && text(&self.topic, &partition.topic)
            && self.number.0.is_none_or(|low| low <= partition.number)
            && self.number.1.is_none_or(|high| partition.number <= high)
    }

    /// Rows to be expected between two offsets.
    fn share(&self, from: i64, to: i64) -> f64 {
        let (low, high) =
            (self.offsets.0.max(from) as f64, (self.offsets.1.saturating_add(1)).min(to) as f64);
        let all = (self.offsets.1 as f64 - self.offsets.0 as f64 + 1.0).max(1.0);
        self.rows as f64 * ((high - low) / all).clamp(0.0, 1.0)
    }
}

/// The farthest end of a slice that begins at `start`.
fn cut(files: &[&Span], start: i64, until: i64) -> i64 {
    let rows = |to: i64| files.iter().map(|span| span.share(start, to)).sum::<f64>();
    if rows(until) <= SLICE_ROWS {
        return until;
    }
    // Holds less than a slice, holds more.
    let (mut low, mut high) = (start + 1, until);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match rows(middle) <= SLICE_ROWS {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}

fn filter(partition: &Partition, from: i64, to: i64) -> Predicate {
    let same = |name: &str, text: &str| Reference::new(name).equal_to(Datum::string(text));
    same("_source", &partition.source)
        .and(same("_topic", &partition.topic))
        .and(Reference::new("_topic_partition").equal_to(Datum::int(partition.number)))
        .and(Reference::new("_offset").greater_than_or_equal_to(Datum::long(from)))
        .and(Reference::new("_offset").less_than(Datum::long(to)))
}

/// All rows in the order of their places; `None`: there are none.
fn in_order(batches: &[RecordBatch]) -> Result<Option<RecordBatch>, ArrowError> {
    let Some(first) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(None) };
    let all = concat_batches(&first.schema(), batches)?;
    let (offsets, parts) = (longs(&all, "_offset")?, ints(&all, "_part")?);
    let places: Vec<(i64, i32)> = offsets.into_iter().zip(parts).collect();
    if places.is_sorted() {
        return Ok(Some(all));
    }
    let mut order: Vec<u32> = (0..u32::try_from(places.len()).unwrap_or(u32::MAX)).collect();
    order.sort_unstable_by_key(|row| places[*row as usize]);
    take_record_batch(&all, &UInt32Array::from(order)).map(Some)
}

fn admitted(index: usize, event: &Event, rows: &RecordBatch) -> Result<EventBatch, ArrowError> {
    let received = instants(rows, "_received")?;
    let ids = match rows.column_by_name("_id").filter(|_| event.needs_id) {
        Some(ids) => ids.as_string::<i32>().clone(),
        None => StringArray::new_null(rows.num_rows()),
    };
    let changes = event.changelog.then(|| changes(rows, &received));
    Ok(EventBatch {
        event: index,
        columns: reading::fields(rows, &event.decoded)?,
        ids,
        offsets: longs(rows, "_offset")?,
        parts: ints(rows, "_part")?.into_iter().map(i32::cast_unsigned).collect(),
        received,
        payloads: Payloads { ranges: vec![(0, 0); rows.num_rows()], ..Payloads::default() },
        changes,
    })
}

/// What rows did to the row of their key. Those of a time before the event was a change stream are its newest versions.
fn changes(rows: &RecordBatch, received: &[i64]) -> Vec<Change> {
    let (ops, at) = (texts(rows, "_op"), rows.column_by_name("_committed"));
    let at = at.map(|column| column.as_primitive::<TimestampMicrosecondType>());
    let one = |row: usize| Change {
        op: match ops.and_then(|ops| ops.is_valid(row).then(|| ops.value(row))) {
            Some("delete") => ChangeOp::Delete,
            Some("truncate") => ChangeOp::Truncate,
            _ => ChangeOp::Upsert,
        },
        at: at.filter(|at| at.is_valid(row)).map_or(received[row], |at| at.value(row)),
    };
    (0..rows.num_rows()).map(one).collect()
}

fn refused(partition: &Partition, rows: &RecordBatch) -> Result<Vec<Refused>, ArrowError> {
    let (offsets, parts, received) =
        (longs(rows, "_offset")?, ints(rows, "_part")?, instants(rows, "_received")?);
    let some = |name: &str, row: usize| {
        let column = texts(rows, name)?;
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let payload = rows.column_by_name("payload").map(|column| column.as_binary::<i32>());
    let one = |row: usize| Refused {
        partition: partition.clone(),
        offset: offsets[row],
        part: parts[row].cast_unsigned(),
        received: received[row],
        event_type: some("event_type", row),
        event_id: some("event_id", row),
        payload: payload.map(|all| Bytes::copy_from_slice(all.value(row))).unwrap_or_default(),
        headers: some("headers", row).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
        reasons: some("reasons", row).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
    };
    Ok((0..rows.num_rows()).map(one).collect())
}

fn texts<'a>(rows: &'a RecordBatch, name: &str) -> Option<&'a StringArray> {
    rows.column_by_name(name).map(|column| column.as_string::<i32>())
}

fn needed(rows: &RecordBatch, name: &str, ty: &DataType) -> Result<ArrayRef, ArrowError> {
    let column = rows.column_by_name(name);
    let column = column.ok_or_else(|| ArrowError::SchemaError(format!("there is no column `{name}`")))?;
    cast(column, ty)
}

fn longs(rows: &RecordBatch, name: &str) -> Result<Vec<i64>, ArrowError> {
    Ok(needed(rows, name, &DataType::Int64)?.as_primitive::<Int64Type>().values().to_vec())
}

fn ints(rows: &RecordBatch, name: &str) -> Result<Vec<i32>, ArrowError> {
    Ok(needed(rows, name, &DataType::Int32)?.as_primitive::<Int32Type>().values().to_vec())
}

fn instants(rows: &RecordBatch, name: &str) -> Result<Vec<i64>, ArrowError> {
    let instants = needed(rows, name, &contracts::value::timestamp_type())?;
    Ok(instants.as_primitive::<TimestampMicrosecondType>().values().to_vec())
}
