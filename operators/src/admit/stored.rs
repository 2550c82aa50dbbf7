//! Admitted rows as bytes, and back.
//!
//! *In*: a batch of admitted rows. *Out*: an Arrow stream behind a short head; the same batch. *Never*: payloads: what
//! is admitted is no longer refused.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int8Array, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::datatypes::{Field, Int8Type, Int64Type, Schema, TimestampMicrosecondType, UInt32Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use contracts::batch::{Change, ChangeOp, EventBatch, Partition, Payloads};

use crate::state::{StateError, put, take};

/// Columns beside the event's own: id, offset, part, received; of a change stream, operation and commit.
const BESIDE: usize = 6;

/// What can be done to a row of a change stream, by number.
const OPS: [ChangeOp; 3] = [ChangeOp::Upsert, ChangeOp::Delete, ChangeOp::Truncate];

/// Adds the rows of a partition to `out`.
pub fn put_rows(partition: &Partition, batch: &EventBatch, out: &mut Vec<u8>) -> Result<(), StateError> {
    let wrong = |error: ArrowError| StateError::Write(error.to_string());
    let whole = whole(batch).map_err(wrong)?;
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &whole.schema()).map_err(wrong)?;
    writer.write(&whole).and_then(|()| writer.finish()).map_err(wrong)?;
    drop(writer);
    put(&(partition, batch.event, bytes), out)
}

/// Takes the rows of a partition from the front of `from`; their event is one of `events`.
pub fn take_rows(from: &mut &[u8], events: usize) -> Result<(Arc<Partition>, EventBatch), StateError> {
    let (partition, event, bytes): (Partition, usize, Vec<u8>) = take(from)?;
    if event >= events {
        return Err(StateError::Read(format!("event {event} of {events}")));
    }
    let wrong = |error: ArrowError| StateError::Read(error.to_string());
    let mut reader = StreamReader::try_new(bytes.as_slice(), None).map_err(wrong)?;
    let batch = reader.next().transpose().map_err(wrong)?;
    let batch = batch.ok_or_else(|| StateError::Read("no batch".to_owned()))?;
    Ok((Arc::new(partition), apart(event, &batch)?))
}

fn whole(batch: &EventBatch) -> Result<RecordBatch, ArrowError> {
    let rows = batch.columns.num_rows();
    let changes = batch.changes.as_ref();
    let number = |op: ChangeOp| OPS.iter().position(|known| *known == op).and_then(|n| i8::try_from(n).ok());
    let op = |row: usize| changes.and_then(|changes| number(changes[row].op));
    let commit = |row: usize| changes.map(|changes| changes[row].at);
    let beside: [ArrayRef; BESIDE] = [
        Arc::new(batch.ids.clone()),
        Arc::new(Int64Array::from(batch.offsets.clone())),
        Arc::new(UInt32Array::from(batch.parts.clone())),
        Arc::new(Int64Array::from(batch.received.clone())),
        Arc::new((0..rows).map(op).collect::<Int8Array>()),
        Arc::new((0..rows).map(commit).collect::<Int64Array>()),
    ];
    let schema = batch.columns.schema();
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    let mut columns = batch.columns.columns().to_vec();
    for (number, column) in beside.into_iter().enumerate() {
        fields.push(Arc::new(Field::new(format!("__{number}"), column.data_type().clone(), true)));
        columns.push(column);
    }
    let schema = Schema::new(fields).with_metadata(schema.metadata().clone());
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)
}

fn apart(event: usize, batch: &RecordBatch) -> Result<EventBatch, StateError> {
    let wrong = || StateError::Read("columns of other types".to_owned());
    let own = batch.num_columns().checked_sub(BESIDE).ok_or_else(wrong)?;
    let columns = batch.project(&(0..own).collect::<Vec<_>>()).map_err(|_| wrong())?;
    let beside = |index: usize| batch.column(own + index);
    let numbers = |index: usize| beside(index).as_primitive_opt::<Int64Type>().ok_or_else(wrong);
    let ids = beside(0).as_string_opt::<i32>().ok_or_else(wrong)?;
    let parts = beside(2).as_primitive_opt::<UInt32Type>().ok_or_else(wrong)?;
    let ops = beside(4).as_primitive_opt::<Int8Type>().ok_or_else(wrong)?;
    let commits = numbers(5)?;
    let time = columns.column_by_name("time").ok_or_else(wrong)?;
    if time.as_primitive_opt::<TimestampMicrosecondType>().is_none() {
        return Err(wrong());
    }
    let is_changelog = !ops.is_empty() && ops.null_count() == 0;
    let change = |row: usize| {
        let op = usize::try_from(ops.value(row)).ok().and_then(|op| OPS.get(op)).ok_or_else(wrong)?;
        Ok(Change { op: *op, at: commits.value(row) })
    };
    let changes: Option<Result<Vec<Change>, StateError>> =
        is_changelog.then(|| (0..ops.len()).map(change).collect());
    Ok(EventBatch {
        event,
        ids: ids.clone(),
        offsets: numbers(1)?.values().to_vec(),
        parts: parts.values().to_vec(),
        received: numbers(3)?.values().to_vec(),
        payloads: Payloads { ranges: vec![(0, 0); batch.num_rows()], ..Payloads::default() },
        changes: changes.transpose()?,
        columns,
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn rows_come_back() {
        let time = TimestampMicrosecondArray::from(vec![1, 2]).with_timezone("UTC");
        let kind: DictionaryArray<Int32Type> = vec![Some("a"), None].into_iter().collect();
        let fields = vec![
            Field::new("kind", kind.data_type().clone(), true),
            Field::new("time", time.data_type().clone(), false),
        ];
        let schema = Arc::new(Schema::new(fields));
        let batch = EventBatch {
            event: 1,
            columns: RecordBatch::try_new(schema, vec![Arc::new(kind), Arc::new(time)]).unwrap(),
            ids: StringArray::from(vec![Some("x"), None]),
            offsets: vec![7, 8],
            parts: vec![0, 3],
            received: vec![10, 11],
            payloads: Payloads::default(),
            changes: Some(vec![
                Change { op: ChangeOp::Upsert, at: 5 },
                Change { op: ChangeOp::Delete, at: 6 },
            ]),
        };
        let partition = Partition { source: "s".into(), topic: "t".into(), number: 2 };
        let mut bytes = Vec::new();
        put_rows(&partition, &batch, &mut bytes).unwrap();
        let (same, again) = take_rows(&mut bytes.as_slice(), 2).unwrap();
        assert_eq!(*same, partition);
        assert_eq!((&again.columns, &again.ids), (&batch.columns, &batch.ids));
        assert_eq!(
            (again.offsets, again.parts, again.received),
            (batch.offsets, batch.parts, batch.received)
        );
        assert_eq!(again.changes, batch.changes);
        assert!(take_rows(&mut bytes.as_slice(), 1).is_err(), "no such event");
        assert!(take_rows(&mut &bytes[..bytes.len() / 2], 2).is_err(), "cut off");
    }
}
