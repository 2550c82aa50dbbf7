//! The engine's own event: one `streamgauge.row` per received row, with what became of it.
//!
//! *In*: outcomes of admit and decode. *Out*: batches that metrics read like any other event. *Never*: a row
//! about a row of this event.

use std::sync::Arc;

use arrow::array::TimestampMicrosecondArray;
use arrow::array::{ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use contracts::Catalog;
use contracts::batch::{EventBatch, Payloads};

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Admitted,
    Refused,
    Duplicate,
}

const FATES: [&str; 3] = ["admitted", "refused", "duplicate"];

/// Where the event stands in the catalog; `None` when no metric reads it.
pub(crate) fn row_event(catalog: &Catalog) -> Option<usize> {
    catalog.event_index(contracts::ROW_EVENT)
}

/// Rows of one source and event type: received time and fate of each.
pub(crate) fn batch(
    catalog: &Catalog,
    event: usize,
    source: &str,
    event_type: Option<&str>,
    rows: &[(i64, Fate)],
) -> EventBatch {
    let schema = &catalog.events[event].admitted;
    let column = |name: &str, ty: &DataType| -> ArrayRef {
        match name {
            "source" => one_text(Some(source), rows.len(), ty),
            "event_type" => one_text(event_type, rows.len(), ty),
            "outcome" => texts(rows.iter().map(|(_, fate)| Some(*fate as i32)), &FATES, ty),
            _ => {
                let times = rows.iter().map(|(received, _)| *received);
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
        }
    };
    let columns = schema.fields().iter().map(|field| column(field.name(), field.data_type()));
    let columns =
        RecordBatch::try_new(schema.clone(), columns.collect()).expect("pack:builtin declares these columns");
    EventBatch {
        event,
        columns,
        ids: StringArray::new_null(rows.len()),
        offsets: vec![0; rows.len()],
        parts: vec![0; rows.len()],
        received: rows.iter().map(|(received, _)| *received).collect(),
        payloads: Payloads { ranges: vec![(0, 0); rows.len()], ..Payloads::default() },
        changes: None,
    }
}

fn one_text(text: Option<&str>, rows: usize, ty: &DataType) -> ArrayRef {
    let code = text.map(|_| 0);
    texts(std::iter::repeat_n(code, rows), &[text.unwrap_or_default()], ty)
}

fn texts(codes: impl Iterator<Item = Option<i32>>, values: &[&str], ty: &DataType) -> ArrayRef {
    let values = Arc::new(StringArray::from(values.to_vec()));
    let codes: Int32Array = codes.collect();
    let coded = DictionaryArray::<Int32Type>::try_new(codes, values).expect("codes are indexes");
    cast(&coded, ty).expect("the columns are text")
}
