//! Kept events as one Arrow file.
//!
//! *In*: kept batches of one partition. *Out*: a file, and the same batch read back. *Never*: a file that stays when
//! nobody holds it any more.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int8Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
    UInt32Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int8Type, Int64Type, Schema, TimestampMicrosecondType, UInt32Type};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use contracts::batch::{Change, ChangeOp, EventBatch, Kept, Partition, Payloads};

use super::KeepError;

/// A file with one batch.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    tick: u64,
    now: i64,
    event: usize,
    partition: Arc<Partition>,
    /// Length of the file.
    pub(super) bytes: usize,
}

/// Columns beside the event's own: id, offset, part, received; of a change stream, operation and commit.
const BESIDE: usize = 6;

impl Segment {
    pub(super) fn write(folder: &Path, number: u64, kept: &Kept) -> Result<Self, KeepError> {
        let path = folder.join(format!("{number}.arrow"));
        let batch = whole(kept)?;
        let mut writer = FileWriter::try_new(io::BufWriter::new(File::create(&path)?), &batch.schema())?;
        writer.write(&batch)?;
        writer.finish()?;
        drop(writer);
        let bytes = usize::try_from(std::fs::metadata(&path)?.len()).unwrap_or(usize::MAX);
        let partition = Arc::clone(&kept.partition);
        Ok(Self { path, tick: kept.tick, now: kept.now, event: kept.batch.event, partition, bytes })
    }

    pub(super) fn read(&self) -> Result<Kept, KeepError> {
        let mut reader = FileReader::try_new(io::BufReader::new(File::open(&self.path)?), None)?;
        let schema = reader.schema();
        let batch = reader.next().transpose()?.unwrap_or_else(|| RecordBatch::new_empty(schema));
        let own = batch.num_columns() - BESIDE;
        let columns = batch.project(&(0..own).collect::<Vec<_>>())?;
        let beside = |index: usize| batch.column(own + index);
        let numbers = |index: usize| beside(index).as_primitive::<Int64Type>().values().to_vec();
        let ops = beside(4).as_primitive::<Int8Type>();
        let commits = beside(5).as_primitive::<Int64Type>();
        let change = |row: usize| Change { op: op_of(ops.value(row)), at: commits.value(row) };
        let is_changelog = !ops.is_empty() && ops.null_count() == 0;
        let batch = EventBatch {
            event: self.event,
            ids: beside(0).as_string::<i32>().clone(),
            offsets: numbers(1),
            parts: beside(2).as_primitive::<UInt32Type>().values().to_vec(),
            received: numbers(3),
            payloads: Payloads::default(),
            changes: is_changelog.then(|| (0..ops.len()).map(change).collect()),
            columns,
        };
        Ok(Kept::new(self.tick, self.now, Arc::clone(&self.partition), batch))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // A file that cannot be removed goes with the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn whole(kept: &Kept) -> Result<RecordBatch, KeepError> {
    let batch = &kept.batch;
    let rows = batch.columns.num_rows();
    let changes = batch.changes.as_ref();
    let ops = |row: usize| changes.map(|changes| op_number(changes[row].op));
    let commits = |row: usize| changes.map(|changes| changes[row].at);
    let beside: [(&str, DataType, ArrayRef); BESIDE] = [
        ("id", DataType::Utf8, Arc::new(batch.ids.clone())),
        ("offset", DataType::Int64, Arc::new(Int64Array::from(batch.offsets.clone()))),
        ("part", DataType::UInt32, Arc::new(UInt32Array::from(batch.parts.clone()))),
        ("received", DataType::Int64, Arc::new(Int64Array::from(batch.received.clone()))),
        ("op", DataType::Int8, Arc::new((0..rows).map(ops).collect::<Int8Array>())),
        ("commit", DataType::Int64, Arc::new((0..rows).map(commits).collect::<Int64Array>())),
    ];
    let mut fields: Vec<Arc<Field>> = batch.columns.schema().fields().iter().cloned().collect();
    let mut columns = batch.columns.columns().to_vec();
    for (name, ty, column) in beside {
        fields.push(Arc::new(Field::new(format!("__{name}"), ty, true)));
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

fn op_number(op: ChangeOp) -> i8 {
    match op {
        ChangeOp::Upsert => 0,
        ChangeOp::Delete => 1,
        ChangeOp::Truncate => 2,
    }
}

fn op_of(number: i8) -> ChangeOp {
    match number {
        0 => ChangeOp::Upsert,
        1 => ChangeOp::Delete,
        _ => ChangeOp::Truncate,
    }
}

/// Batches of one type and partition as one, which is as new as the newest of them.
pub(super) fn joined(kept: &[Arc<Kept>]) -> Result<Option<Kept>, KeepError> {
    let (Some(first), Some(last)) = (kept.first(), kept.last()) else { return Ok(None) };
    let columns =
        concat_batches(first.batch.columns.schema_ref(), kept.iter().map(|one| &one.batch.columns))?;
    let changes = kept.iter().filter_map(|one| one.batch.changes.as_ref());
    let changes: Vec<Change> = changes.flatten().copied().collect();
    let batch = EventBatch {
        event: first.batch.event,
        ids: kept.iter().flat_map(|one| one.batch.ids.iter()).collect::<StringArray>(),
        offsets: kept.iter().flat_map(|one| one.batch.offsets.iter().copied()).collect(),
        parts: kept.iter().flat_map(|one| one.batch.parts.iter().copied()).collect(),
        received: kept.iter().flat_map(|one| one.batch.received.iter().copied()).collect(),
        payloads: Payloads::default(),
        changes: first.batch.changes.is_some().then_some(changes),
        columns,
    };
    let tick = kept.iter().map(|one| one.tick).max().unwrap_or(last.tick);
    Ok(Some(Kept::new(tick, last.now, Arc::clone(&first.partition), batch)))
}

/// Least and greatest event time.
pub(super) fn times(kept: &Kept) -> (i64, i64) {
    let column = kept.batch.columns.column_by_name("time");
    let times = column.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let Some(times) = times else { return (i64::MIN, i64::MAX) };
    let values = times.values().iter().copied();
    (values.clone().min().unwrap_or(i64::MIN), values.max().unwrap_or(i64::MAX))
}
