//! Formats of rows and columns: CSV lines and Arrow batches.
//!
//! *In*: column names once, then rows of cells. *Out*: the same events, checks and reasons as JSON: the
//! declared type reads the cell. *Never*: a cast that loses something.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use contracts::Catalog;
use csv_core::ReadRecordResult;

use super::Decoder;
use super::raw::Raw;
use super::reason::reason;
use super::rows::{Envelope, Names, Origin};
use super::sink::{Payload, Sink};

/// A header that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column `{0}` comes twice in the header: rename one of them")]
pub struct HeaderError(
    /// The column's name.
    pub String,
);

/// Which column holds what.
pub(super) struct Table {
    columns: usize,
    event_type: Option<usize>,
    id: Option<usize>,
    time: Option<usize>,
    tenant: Option<usize>,
    /// By event, by field.
    fields: Vec<Vec<Option<usize>>>,
    names: Names,
    reader: csv_core::Reader,
    /// The text of the row's cells, and where each ends.
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Table {
    pub(super) fn new(
        catalog: &Catalog,
        envelope: &super::Envelope,
        header: &[&str],
    ) -> Result<Self, HeaderError> {
        let names: Vec<&str> =
            header.iter().map(|name| name.strip_prefix('\u{feff}').unwrap_or(name).trim()).collect();
        let find = |path: &[String]| {
            let path = path.join(".");
            let mut found = names.iter().enumerate().filter(|(_, name)| **name == path);
            match (found.next(), found.next()) {
                (Some(_), Some(_)) => Err(HeaderError(path)),
                (first, _) => Ok(first.map(|(column, _)| column)),
            }
        };
        let of = |path: &Option<Vec<String>>| path.as_deref().map_or(Ok(None), find);
        let mut fields = Vec::with_capacity(catalog.events.len());
        for event in &catalog.events {
            let columns: Result<Vec<_>, _> = event.fields.iter().map(|field| find(&field.path)).collect();
            fields.push(columns?);
        }
        let name = |path: &Option<Vec<String>>, default: &str| {
            path.as_ref().map_or_else(|| default.to_owned(), |path| path.join("."))
        };
        Ok(Self {
            columns: names.len(),
            event_type: of(&envelope.event_type)?,
            id: of(&envelope.id)?,
            time: of(&envelope.time)?,
            tenant: of(&envelope.tenant)?,
            fields,
            names: Names {
                event_type: name(&envelope.event_type, "type"),
                id: name(&envelope.id, "id"),
                time: name(&envelope.time, "time"),
            },
            reader: csv_core::Reader::new(),
            text: Vec::new(),
            ends: Vec::new(),
        })
    }

    /// Gives the row whose cells are `cell(column)` to the sink.
    fn row<'a>(
        &self,
        cell: impl Fn(usize) -> Raw<'a>,
        fixed: Option<&str>,
        sink: &mut Sink,
        origin: &Origin,
        payload: Payload<'_>,
    ) {
        let at = |column: Option<usize>| column.map_or(Raw::Absent, &cell);
        let envelope = Envelope {
            event_type: at(self.event_type),
            id: at(self.id),
            time: at(self.time),
            tenant: at(self.tenant),
        };
        match sink.event(envelope.event_type, fixed, &self.names) {
            Ok(event) => {
                let columns = &self.fields[event];
                sink.take(event, |field| at(columns[field]), &envelope, &self.names, origin, payload);
            }
            Err(reason) => {
                let text = envelope.event_type.text();
                let event_type = text.map(|text| String::from_utf8_lossy(&text).into_owned());
                sink.refuse(origin, payload.bytes, event_type, envelope.id, vec![reason]);
            }
        }
    }

    /// Takes the cells of one line apart. `None`: more than one record.
    fn split(&mut self, line: &[u8]) -> Option<()> {
        self.reader.reset();
        self.text.clear();
        // Unquoting only shortens.
        self.text.resize(line.len() + 1, 0);
        self.ends.clear();
        self.ends.resize(self.columns + 1, 0);
        let (mut input, mut written, mut cells) = (line, 0, 0);
        loop {
            let (result, read, wrote, ended) =
                self.reader.read_record(input, &mut self.text[written..], &mut self.ends[cells..]);
            (input, written, cells) = (&input[read..], written + wrote, cells + ended);
            match result {
                ReadRecordResult::InputEmpty if input.is_empty() => input = &[],
                ReadRecordResult::Record if input.iter().all(|b| matches!(b, b'\r' | b'\n')) => break,
                ReadRecordResult::End => break,
                // More cells than columns, or a second record.
                _ => {
                    cells = self.ends.len();
                    break;
                }
            }
        }
        self.ends.truncate(cells);
        (cells == self.columns).then_some(())
    }
}

/// Where the CSV record at the start of `bytes` ends, behind its line break; quotes can hold line
/// breaks. `None`: the record goes on beyond `bytes`.
pub fn csv_record_end(bytes: &[u8]) -> Option<usize> {
    let mut quoted = false;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            // A doubled quote toggles twice.
            b'"' => quoted = !quoted,
            b'\n' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// One CSV line of a decoder made by [`Decoder::csv`].
pub(super) fn line(decoder: &mut Decoder, payload: Payload<'_>, origin: &Origin) {
    let Decoder { spec, csv, sink, .. } = decoder;
    let bytes = payload.bytes;
    let refuse = |sink: &mut Sink, message: String| {
        let reason = reason("malformed_csv", String::new(), message);
        sink.refuse(origin, bytes, None, Raw::Absent, vec![reason]);
    };
    let Some(table) = csv else {
        return refuse(sink, "this source has no header line: its columns have no names".to_owned());
    };
    if simdutf8::basic::from_utf8(bytes).is_err() {
        return refuse(sink, "not UTF-8".to_owned());
    }
    if table.split(bytes).is_none() {
        let message = format!("found {} cells, expected {} as in the header", table.found(), table.columns);
        return refuse(sink, message);
    }
    let table = &*table;
    let cell = |column: usize| {
        let start = column.checked_sub(1).map_or(0, |before| table.ends[before]);
        match &table.text[start..table.ends[column]] {
            [] => Raw::Null,
            text => Raw::Cell(text),
        }
    };
    table.row(cell, spec.fixed_type.as_deref(), sink, origin, payload);
}

impl Table {
    fn found(&self) -> String {
        let cells = self.ends.len();
        if cells > self.columns { format!("more than {}", self.columns) } else { cells.to_string() }
    }
}

/// The rows of an Arrow batch, see [`Decoder::push_batch`].
pub(super) fn push_batch(
    decoder: &mut Decoder,
    batch: &RecordBatch,
    first_offset: i64,
    received: i64,
) -> Result<(), ArrowError> {
    let payloads = lines(batch)?;
    let mut columns = Vec::new();
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        flatten(field.name(), array, &mut columns)?;
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let Decoder { spec, sink, .. } = decoder;
    let table = Table::new(sink.catalog(), &spec.envelope, &names)
        .map_err(|error| ArrowError::SchemaError(error.to_string()))?;
    let mut at = 0;
    for row in 0..batch.num_rows() {
        let end = payloads[at..].iter().position(|b| *b == b'\n').map_or(payloads.len(), |n| at + n);
        let payload = Payload { bytes: &payloads[at..end], shared: None };
        let origin = Origin { offset: first_offset + row as i64, part: 0, received };
        let cell = |column: usize| {
            let array = &columns[column].1;
            if array.is_null(row) { Raw::Null } else { Raw::Cell(array.value(row).as_bytes()) }
        };
        if sink.admit(payload.bytes.len()) && payload.bytes.len() <= spec.max_record_bytes {
            table.row(cell, spec.fixed_type.as_deref(), sink, &origin, payload);
        } else {
            let message = format!("the row has {} bytes of JSON", payload.bytes.len());
            let reason = reason("oversize", String::new(), message);
            sink.refuse(&origin, payload.bytes, None, Raw::Absent, vec![reason]);
        }
        at = (end + 1).min(payloads.len());
    }
    Ok(())
}

/// Each row of a batch as a line of JSON.
fn lines(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

/// `array` as text columns: scalars by cast, lists and structs as JSON, and each struct's fields again
/// under `name.field`.
fn flatten(name: &str, array: &ArrayRef, columns: &mut Vec<(String, StringArray)>) -> Result<(), ArrowError> {
    if !array.data_type().is_nested() {
        let text = cast(array, &DataType::Utf8)?;
        columns.push((name.to_owned(), text.as_string::<i32>().clone()));
        return Ok(());
    }
    columns.push((name.to_owned(), json(array)?));
    let Some(fields) = array.as_any().downcast_ref::<arrow::array::StructArray>() else {
        return Ok(());
    };
    // The struct's own nulls are its fields' too.
    let (inner, arrays, nulls) = fields.clone().into_parts();
    for (field, child) in inner.iter().zip(arrays) {
        let nulls = arrow::buffer::NullBuffer::union(nulls.as_ref(), child.logical_nulls().as_ref());
        let child = match nulls {
            Some(nulls) => {
                let missing = arrow::array::BooleanArray::new(!nulls.inner(), None);
                arrow::compute::nullif(&child, &missing)?
            }
            None => child,
        };
        flatten(&format!("{name}.{}", field.name()), &child, columns)?;
    }
    Ok(())
}

/// A nested column as the JSON text of each row.
fn json(array: &ArrayRef) -> Result<StringArray, ArrowError> {
    let field = Field::new("v", array.data_type().clone(), true);
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array.clone()])?;
    let lines = lines(&batch)?;
    let mut rows = lines.split(|byte| *byte == b'\n');
    let texts = (0..array.len()).map(|row| {
        let line = rows.next().unwrap_or_default();
        if array.is_null(row) {
            return None;
        }
        // `{"v":...}`
        line.get(5..line.len().saturating_sub(1)).and_then(|text| std::str::from_utf8(text).ok())
    });
    Ok(texts.collect())
}
