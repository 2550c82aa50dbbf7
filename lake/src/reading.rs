//! A data file as rows, whatever the schema of its time.
//!
//! *In*: a file of a table, as a scan names it. *Out*: its rows, in the columns that the file has of those asked for.
//! *Never*: a column guessed; rows of a file that cannot be read passed over.
//!
//! The iceberg crate cannot read a file that is older than a nested field of the schema it is read by: such a file is read
//! by the newest schema of the table that works, and lacks the field.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::scan::{FileScanTask, FileScanTaskStream};
use iceberg::table::Table;

/// Rows of a batch.
const BATCH_ROWS: usize = 16_384;

/// Rows as they come.
pub(super) type Rows = BoxStream<'static, iceberg::Result<RecordBatch>>;

/// The rows of one file.
///
/// # Errors
/// By no schema of the table it can be read.
pub(super) async fn rows(table: &Table, task: FileScanTask) -> iceberg::Result<Rows> {
    let own = task.schema.schema_id();
    let error = match by(table, task.clone()).await {
        Ok(rows) => return Ok(rows),
        Err(error) => error,
    };
    let schemas = table.metadata().schemas_iter().filter(|schema| schema.schema_id() != own);
    let mut older: Vec<_> = schemas.collect();
    older.sort_by_key(|schema| std::cmp::Reverse(schema.schema_id()));
    for schema in older {
        let mut task = task.clone();
        task.project_field_ids.retain(|id| schema.field_by_id(*id).is_some());
        task.schema = Arc::clone(schema);
        if let Ok(rows) = by(table, task).await {
            return Ok(rows);
        }
    }
    Err(error)
}

/// By the schema that the task names; that it does not fit shows with the first rows.
async fn by(table: &Table, task: FileScanTask) -> iceberg::Result<Rows> {
    let one: FileScanTaskStream = Box::pin(futures::stream::iter([Ok(task)]));
    // Pages that a predicate excludes are not read.
    let reader = table.reader_builder().with_batch_size(BATCH_ROWS).with_row_selection_enabled(true);
    let mut rows = reader.build().read(one)?.stream();
    let first = rows.try_next().await?;
    Ok(Box::pin(futures::stream::iter(first.map(Ok)).chain(rows)))
}

/// The columns of `target`; those that `rows` lacks are null.
pub(super) fn fields(rows: &RecordBatch, target: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = target.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        Some(column) => fit(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    });
    let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(target), columns, &options)
}

/// The same values as another type; nested fields go by their names, those that are not there are null.
fn fit(column: &ArrayRef, ty: &DataType) -> Result<ArrayRef, ArrowError> {
    match (column.data_type(), ty) {
        (same, ty) if same == ty => Ok(Arc::clone(column)),
        (_, DataType::Null) => Ok(new_null_array(ty, column.len())),
        (DataType::List(_), DataType::List(field)) => {
            let list = column.as_list::<i32>();
            let values = fit(list.values(), field.data_type())?;
            let nulls = list.nulls().cloned();
            Ok(Arc::new(ListArray::try_new(Arc::clone(field), list.offsets().clone(), values, nulls)?))
        }
        (DataType::Struct(_), DataType::Struct(wanted)) => {
            let row = column.as_struct();
            let columns = wanted.iter().map(|field| match row.column_by_name(field.name()) {
                Some(column) => fit(column, field.data_type()),
                None => Ok(new_null_array(field.data_type(), row.len())),
            });
            let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
            Ok(Arc::new(StructArray::try_new(wanted.clone(), columns, row.nulls().cloned())?))
        }
        _ => cast(column, ty),
    }
}
