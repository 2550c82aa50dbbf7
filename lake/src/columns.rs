//! Columns of the lake's tables, and batches in that form.
//!
//! *In*: event contracts and admitted batches. *Out*: Arrow schemas, Iceberg schemas, batches of a table's current
//! schema. *Never*: a row without its place (source, topic, partition, offset, part): it is what tells rows apart.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use contracts::batch::{ChangeOp, EventBatch, Partition, Refused};
use contracts::catalog::{Event, Metric};
use contracts::value::timestamp_type;
use iceberg::arrow::arrow_schema_to_schema_auto_assign_ids;
use iceberg::spec::{NestedFieldRef, Schema as IcebergSchema, Transform, Type, UnboundPartitionSpec};
use iceberg::transaction::AddColumn;

use super::results;

/// The table of refused rows.
pub const REFUSED: &str = "dead_letters";

/// The event time, by which tables are split into days.
const TIME: &str = "time";
/// Name and type of the columns beside the event's own; those of [`PLACE`] are never null.
const BESIDE: [(&str, fn() -> DataType); 9] = [
    ("_id", || DataType::Utf8),
    ("_received", timestamp_type),
    ("_source", || DataType::Utf8),
    ("_topic", || DataType::Utf8),
    ("_topic_partition", || DataType::Int32),
    ("_offset", || DataType::Int64),
    ("_part", || DataType::Int32),
    ("_op", || DataType::Utf8),
    ("_committed", timestamp_type),
];
/// Names of the partitions; a column may not have them.
const DAY: &str = "_day";
const BUCKET: &str = "_bucket";
/// The columns that say where a row came from.
const PLACE: [&str; 6] = ["_received", "_source", "_topic", "_topic_partition", "_offset", "_part"];
/// The last two are there for change streams only.
const OF_CHANGES: usize = 2;

/// `order.created` is `order_created`.
pub(super) fn table_name(event: &str) -> String {
    event.replace('.', "_")
}

/// A table and what it is made of.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Name in the namespace.
    pub(super) name: String,
    /// Columns as a contract wants them.
    pub(super) columns: SchemaRef,
    /// Column by whose day rows are kept apart.
    day: &'static str,
    /// Column by whose hash they are, too.
    bucket: Option<&'static str>,
}

impl Shape {
    /// The table of an event type: `order.created` is `order_created`.
    ///
    /// # Errors
    /// The column that the contract and the lake both want.
    pub(super) fn of_event(event: &Event) -> Result<Self, String> {
        let own = event.admitted.fields();
        let beside = BESIDE.len() - if event.changelog { 0 } else { OF_CHANGES };
        let names = BESIDE.iter().map(|(name, _)| *name).chain([DAY, BUCKET]);
        if let Some(taken) = own.iter().find(|field| names.clone().any(|name| name == field.name())) {
            return Err(taken.name().clone());
        }
        let own = own.iter().map(|field| {
            let required = field.name() == TIME;
            Field::new(field.name(), plain(field.data_type()), !required)
        });
        let beside = BESIDE[..beside].iter().map(|(name, ty)| Field::new(*name, ty(), !PLACE.contains(name)));
        let columns = Arc::new(Schema::new(own.chain(beside).collect::<Fields>()));
        Ok(Self { name: table_name(&event.head.name), columns, day: TIME, bucket: Some("_id") })
    }

    /// The table of a metric's results; `None`: the contract asks for none.
    ///
    /// # Errors
    /// The dimension or measure that has the name of one of the lake's columns.
    pub(super) fn of_results(metric: &Metric) -> Result<Option<Self>, String> {
        let Some(name) = results::table_name(metric) else { return Ok(None) };
        let columns = results::columns(metric);
        let mut seen = std::collections::BTreeSet::from([DAY]);
        if let Some(twice) = columns.fields().iter().find(|field| !seen.insert(field.name())) {
            return Err(twice.name().clone());
        }
        Ok(Some(Self { name, columns, day: results::START, bucket: None }))
    }

    /// The table of refused rows.
    pub(super) fn of_refused() -> Self {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let place = BESIDE[1..BESIDE.len() - OF_CHANGES].iter();
        let mut fields: Vec<Field> = place.map(|(name, ty)| Field::new(*name, ty(), false)).collect();
        fields.extend([text("event_type"), text("event_id"), text("reasons"), text("headers")]);
        fields.push(Field::new("payload", DataType::Binary, true));
        let columns = Arc::new(Schema::new(fields));
        Self { name: REFUSED.to_owned(), columns, day: "_received", bucket: None }
    }

    /// The columns as an Iceberg schema of a new table.
    pub(super) fn schema(&self) -> iceberg::Result<IcebergSchema> {
        arrow_schema_to_schema_auto_assign_ids(&self.columns)
    }

    /// By day and, with more than one bucket, by bucket.
    pub(super) fn partitions(
        &self,
        schema: &IcebergSchema,
        buckets: u32,
    ) -> iceberg::Result<UnboundPartitionSpec> {
        let id = |name: &str| schema.field_id_by_name(name).unwrap_or_default();
        // Catalogs in Java do not take a spec without a number.
        let spec = UnboundPartitionSpec::builder().with_spec_id(0);
        let spec = spec.add_partition_field(id(self.day), DAY, Transform::Day)?;
        Ok(match self.bucket.filter(|_| buckets > 1) {
            Some(column) => spec.add_partition_field(id(column), BUCKET, Transform::Bucket(buckets))?.build(),
            None => spec.build(),
        })
    }

    /// Columns that `table` lacks.
    ///
    /// # Errors
    /// The column that the lake has with another type.
    pub(super) fn lacking(&self, table: &IcebergSchema) -> Result<Vec<AddColumn>, Conflict> {
        let wanted = self.schema().map_err(|error| Conflict {
            column: String::new(),
            here: error.to_string(),
            there: String::new(),
        })?;
        let mut lacking = Vec::new();
        compare("", wanted.as_struct().fields(), table.as_struct().fields(), &mut lacking)?;
        Ok(lacking)
    }
}

/// A column that cannot be stored as the contract has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conflict {
    /// Its path.
    pub(super) column: String,
    /// Type in the contract.
    pub(super) here: String,
    /// Type in the lake.
    pub(super) there: String,
}

fn compare(
    path: &str,
    wanted: &[NestedFieldRef],
    there: &[NestedFieldRef],
    lacking: &mut Vec<AddColumn>,
) -> Result<(), Conflict> {
    for want in wanted {
        let name = if path.is_empty() { want.name.clone() } else { format!("{path}.{}", want.name) };
        let Some(found) = there.iter().find(|field| field.name == want.name) else {
            let add = AddColumn::builder().name(&want.name).field_type((*want.field_type).clone());
            lacking.push(if path.is_empty() { add.build() } else { add.parent(path).build() });
            continue;
        };
        match (want.field_type.as_ref(), found.field_type.as_ref()) {
            (Type::Struct(want), Type::Struct(found)) => {
                compare(&name, want.fields(), found.fields(), lacking)?;
            }
            (Type::List(want), Type::List(found)) => {
                let (want, found) = (&want.element_field, &found.element_field);
                let one = |field: &NestedFieldRef| vec![Arc::clone(field)];
                compare(&name, &one(want), &one(found), lacking)?;
            }
            (want, found) if want == found => {}
            (want, found) => {
                return Err(Conflict { column: name, here: want.to_string(), there: found.to_string() });
            }
        }
    }
    Ok(())
}

/// As it is stored: without dictionaries.
pub(super) fn plain(ty: &DataType) -> DataType {
    match ty {
        DataType::Dictionary(_, value) => plain(value),
        DataType::Null => DataType::Utf8,
        DataType::Duration(_) => DataType::Int64,
        other => other.clone(),
    }
}

/// Rows of a batch in the columns of `target`, which is a table's current schema; columns that the batch lacks are null.
pub(super) fn of_event(
    partition: &Partition,
    batch: &EventBatch,
    target: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let rows = batch.columns.num_rows();
    let change = |of: fn(&contracts::batch::Change) -> &'static str| {
        // A slice: Arrow wants to know how many there are.
        let texts = batch.changes.as_deref().unwrap_or_default().iter().map(of);
        Arc::new(StringArray::from_iter_values(texts)) as ArrayRef
    };
    let column = |name: &str| -> Option<ArrayRef> {
        Some(match name {
            "_id" => Arc::new(batch.ids.clone()),
            "_op" if batch.changes.is_some() => change(|change| op_name(change.op)),
            "_committed" => Arc::new(TimestampMicrosecondArray::from(
                batch.changes.as_ref()?.iter().map(|change| change.at).collect::<Vec<_>>(),
            )),
            _ => match place(name, partition, rows, &batch.received, &batch.offsets, &batch.parts) {
                Some(column) => column,
                None => Arc::clone(batch.columns.column_by_name(name)?),
            },
        })
    };
    table(target, rows, column)
}

/// Refused rows of one partition in the columns of `target`.
pub(super) fn of_refused(rows: &[Refused], target: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let json = |value: serde_json::Result<String>| value.unwrap_or_default();
    let column = |name: &str| -> Option<ArrayRef> {
        Some(match name {
            "event_type" => {
                Arc::new(rows.iter().map(|row| row.event_type.as_deref()).collect::<StringArray>())
            }
            "event_id" => Arc::new(rows.iter().map(|row| row.event_id.as_deref()).collect::<StringArray>()),
            "reasons" => Arc::new(StringArray::from_iter_values(
                rows.iter().map(|row| json(serde_json::to_string(&row.reasons))),
            )),
            "headers" => Arc::new(StringArray::from_iter_values(
                rows.iter().map(|row| json(serde_json::to_string(&row.headers))),
            )),
            "payload" => Arc::new(arrow::array::BinaryArray::from_iter_values(
                rows.iter().map(|row| row.payload.as_ref()),
            )),
            "_source" => text(rows, |row| &row.partition.source),
            "_topic" => text(rows, |row| &row.partition.topic),
            "_topic_partition" => {
                Arc::new(rows.iter().map(|row| Some(row.partition.number)).collect::<Int32Array>())
            }
            "_received" => {
                Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.received)))
            }
            "_offset" => Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.offset))),
            "_part" => Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.part.cast_signed()))),
            _ => return None,
        })
    };
    table(target, rows.len(), column)
}

fn text(rows: &[Refused], of: fn(&Refused) -> &Arc<str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
}

/// Results in the columns of `target`.
pub(super) fn of_results(batch: &RecordBatch, target: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    table(target, batch.num_rows(), |name| batch.column_by_name(name).cloned())
}

/// A column that says where rows came from.
fn place(
    name: &str,
    partition: &Partition,
    rows: usize,
    received: &[i64],
    offsets: &[i64],
    parts: &[u32],
) -> Option<ArrayRef> {
    let same = |text: &str| Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, rows)));
    Some(match name {
        "_received" => Arc::new(TimestampMicrosecondArray::from(received.to_vec())),
        "_source" => same(&partition.source),
        "_topic" => same(&partition.topic),
        "_topic_partition" => Arc::new(Int32Array::from_value(partition.number, rows)),
        "_offset" => Arc::new(Int64Array::from(offsets.to_vec())),
        "_part" => Arc::new(Int32Array::from_iter_values(parts.iter().map(|part| part.cast_signed()))),
        _ => return None,
    })
}

fn op_name(op: ChangeOp) -> &'static str {
    match op {
        ChangeOp::Upsert => "upsert",
        ChangeOp::Delete => "delete",
        ChangeOp::Truncate => "truncate",
    }
}

fn table(
    target: &SchemaRef,
    rows: usize,
    column: impl Fn(&str) -> Option<ArrayRef>,
) -> Result<RecordBatch, ArrowError> {
    let columns = target.fields().iter().map(|field| match column(field.name()) {
        Some(column) => as_type(&column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), rows)),
    });
    let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(target), columns, &options)
}

fn as_type(column: &ArrayRef, ty: &DataType) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        same if same == ty => Ok(Arc::clone(column)),
        DataType::Null => Ok(new_null_array(ty, column.len())),
        _ => cast(column, ty),
    }
}
