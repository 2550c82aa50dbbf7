//! Files as rows of JSON, one event each.
//!
//! *In*: NDJSON (passed on as it is), CSV (cells typed by the server's contracts), Parquet (typed by its
//! schema). *Out*: one JSON text per row, how far the file is read. *Never*: a whole file in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::{Map, Value};

use crate::cli::client::Client;
use crate::cli::exit::{Exit, Failure, io};

/// A line of NDJSON longer than this cannot be an event (the server's body limit is far below).
const MAX_LINE: usize = 64 << 20;
/// Rows read at once from CSV and Parquet.
const ROWS: usize = 1024;

/// How a CSV cell becomes JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// As text.
    Text,
    /// As a number or boolean where it looks like one.
    Bare,
    /// As JSON (lists, structs).
    Nested,
}

/// Types of the declared fields of the server's events, by field name, for CSV.
#[derive(Debug, Default)]
pub struct FieldTypes {
    fields: BTreeMap<String, Cell>,
}

impl FieldTypes {
    /// Asks the server, when one of `files` is CSV.
    pub fn fetch(client: &Client, files: &[PathBuf]) -> Result<Self, Failure> {
        if !files.iter().any(|f| kind(f) == Kind::Csv) {
            return Ok(Self::default());
        }
        Ok(Self::read(&client.get("/v1/contracts", &[])?, client))
    }

    fn read(list: &Value, client: &Client) -> Self {
        let mut types = Self::default();
        let contracts = list["contracts"].as_array().map(Vec::as_slice).unwrap_or_default();
        for contract in
            contracts.iter().filter(|c| c["kind"].as_str().is_some_and(|k| k.eq_ignore_ascii_case("event")))
        {
            let full = match contract["fields"].as_array() {
                Some(_) => contract.clone(),
                None => {
                    let name = contract["name"].as_str().unwrap_or_default();
                    client.get(&format!("/v1/contracts/{name}"), &[]).unwrap_or_default()
                }
            };
            types.add(&full);
        }
        types
    }

    fn add(&mut self, contract: &Value) {
        for field in contract["fields"].as_array().into_iter().flatten() {
            let (Some(name), Some(ty)) = (field["name"].as_str(), field["type"].as_str()) else { continue };
            let cell = match ty.split(['(', '<']).next().unwrap_or(ty) {
                // A decimal as text never passes through a float; a timestamp may be text or milliseconds.
                "string" | "date" | "decimal" => Cell::Text,
                "list" | "struct" | "json" => Cell::Nested,
                _ => Cell::Bare,
            };
            // Two events that disagree about a name: text is what both can be made of.
            let known = self.fields.entry(name.to_owned()).or_insert(cell);
            if *known != cell {
                *known = Cell::Text;
            }
        }
    }

    fn json(&self, column: &str, text: &str) -> Value {
        let bare = || {
            let value = serde_json::from_str::<Value>(text).ok();
            value.filter(|v| v.is_number() || v.is_boolean()).unwrap_or_else(|| Value::from(text))
        };
        match self.fields.get(column) {
            Some(Cell::Bare) => bare(),
            Some(Cell::Nested) => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
            // A column no contract declares is read by nobody, or it is the envelope, which is text.
            Some(Cell::Text) | None => Value::from(text),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lines,
    Csv,
    Parquet,
}

fn kind(path: &Path) -> Kind {
    match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("csv") => Kind::Csv,
        Some("parquet" | "pq") => Kind::Parquet,
        _ => Kind::Lines,
    }
}

/// A file being read.
pub struct Rows<'a> {
    path: PathBuf,
    total: Option<u64>,
    from: From<'a>,
}

enum From<'a> {
    Lines { reader: Box<dyn BufRead>, done: u64 },
    Csv { reader: Box<arrow::csv::Reader<Counted>>, types: &'a FieldTypes, done: Arc<AtomicU64>, held: Held },
    Parquet { reader: parquet::arrow::arrow_reader::ParquetRecordBatchReader, held: Held, done: u64 },
}

/// Rows of a batch, already JSON.
#[derive(Default)]
struct Held {
    rows: std::vec::IntoIter<Vec<u8>>,
}

impl<'a> Rows<'a> {
    /// Opens a file; `-` is standard input.
    pub fn open(path: &Path, types: &'a FieldTypes) -> Result<Self, Failure> {
        if path == Path::new("-") {
            let reader: Box<dyn BufRead> = Box::new(BufReader::with_capacity(1 << 16, std::io::stdin()));
            return Ok(Self { path: path.into(), total: None, from: From::Lines { reader, done: 0 } });
        }
        let file = File::open(path).map_err(|error| io(Exit::Usage, "read", path, &error))?;
        let size = file.metadata().map(|m| m.len()).ok();
        let (total, from) = match kind(path) {
            Kind::Lines => {
                (size, From::Lines { reader: Box::new(BufReader::with_capacity(1 << 16, file)), done: 0 })
            }
            Kind::Csv => (size, open_csv(path, file, types)?),
            Kind::Parquet => open_parquet(path, file)?,
        };
        Ok(Self { path: path.into(), total, from })
    }

    /// Bytes or rows in all, where known.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Is progress counted in bytes?
    pub fn counts_bytes(&self) -> bool {
        !matches!(self.from, From::Parquet { .. })
    }

    /// Bytes or rows read.
    pub fn done(&self) -> u64 {
        match &self.from {
            From::Lines { done, .. } | From::Parquet { done, .. } => *done,
            From::Csv { done, .. } => done.load(Ordering::Relaxed),
        }
    }

    /// Appends the next row to `into`; false at the end.
    pub fn next(&mut self, into: &mut Vec<u8>) -> Result<bool, Failure> {
        let path = &self.path;
        let broken = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
        };
        match &mut self.from {
            From::Lines { reader, done } => next_line(reader, into, done).map_err(|e| broken(&e)),
            From::Csv { reader, types, held, .. } => loop {
                if let Some(row) = held.rows.next() {
                    into.extend(row);
                    return Ok(true);
                }
                match reader.next() {
                    None => return Ok(false),
                    Some(batch) => held.rows = csv_rows(&batch.map_err(|e| broken(&e))?, types).into_iter(),
                }
            },
            From::Parquet { reader, held, done } => loop {
                if let Some(row) = held.rows.next() {
                    into.extend(row);
                    *done += 1;
                    return Ok(true);
                }
                match reader.next() {
                    None => return Ok(false),
                    Some(batch) => {
                        let batch = batch.map_err(|e| broken(&e))?;
                        held.rows = json_rows(&batch).map_err(|e| broken(&e))?.into_iter();
                    }
                }
            },
        }
    }
}

fn next_line(reader: &mut dyn BufRead, into: &mut Vec<u8>, done: &mut u64) -> std::io::Result<bool> {
    loop {
        into.clear();
        let read = Read::take(&mut *reader, MAX_LINE as u64).read_until(b'\n', into)?;
        *done += read as u64;
        if read == 0 {
            return Ok(false);
        }
        if read == MAX_LINE && into.last() != Some(&b'\n') {
            return Err(std::io::Error::other("a line is longer than 64 MiB; is this NDJSON?"));
        }
        while into.last().is_some_and(u8::is_ascii_whitespace) {
            into.pop();
        }
        if !into.is_empty() {
            return Ok(true);
        }
    }
}

/// Counts the bytes that pass.
pub struct Counted {
    file: File,
    done: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(into)?;
        self.done.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

fn open_csv<'a>(path: &Path, mut file: File, types: &'a FieldTypes) -> Result<From<'a>, Failure> {
    use std::io::{Seek, SeekFrom};
    let broken =
        |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("{}: {error}", path.display()));
    // Only the header is looked at: every column is read as text and typed by the contracts.
    let format = arrow::csv::reader::Format::default().with_header(true);
    let (schema, _) = format.infer_schema(&mut file, Some(0)).map_err(|e| broken(&e))?;
    file.seek(SeekFrom::Start(0)).map_err(|e| broken(&e))?;
    let fields: Vec<Field> =
        schema.fields().iter().map(|f| Field::new(f.name().trim(), DataType::Utf8, true)).collect();
    let done = Arc::new(AtomicU64::new(0));
    let reader = arrow::csv::ReaderBuilder::new(Arc::new(Schema::new(fields)))
        .with_header(true)
        .with_batch_size(ROWS)
        .build(Counted { file, done: done.clone() })
        .map_err(|e| broken(&e))?;
    Ok(From::Csv { reader: Box::new(reader), types, done, held: Held::default() })
}

fn open_parquet<'a>(path: &Path, file: File) -> Result<(Option<u64>, From<'a>), Failure> {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let broken =
        |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("{}: {error}", path.display()));
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| broken(&e))?;
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).ok();
    let reader = builder.with_batch_size(ROWS).build().map_err(|e| broken(&e))?;
    Ok((rows, From::Parquet { reader, held: Held::default(), done: 0 }))
}

fn csv_rows(batch: &RecordBatch, types: &FieldTypes) -> Vec<Vec<u8>> {
    let schema = batch.schema();
    let columns: Vec<(&str, &StringArray)> = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .filter_map(|(f, c)| Some((f.name().as_str(), c.as_any().downcast_ref::<StringArray>()?)))
        .collect();
    (0..batch.num_rows())
        .map(|row| {
            let mut object = Map::new();
            for (name, column) in &columns {
                // An empty cell is an absent field.
                if column.is_valid(row) && !column.value(row).is_empty() {
                    place(&mut object, name, types.json(name, column.value(row)));
                }
            }
            serde_json::to_vec(&object).expect("text keys")
        })
        .collect()
}

/// A dotted column name is a path: `meta.id` becomes `{"meta": {"id": ...}}`.
fn place(object: &mut Map<String, Value>, name: &str, value: Value) {
    let Some((first, rest)) = name.split_once('.') else {
        object.insert(name.to_owned(), value);
        return;
    };
    let inner = object.entry(first).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(inner) = inner {
        place(inner, rest, value);
    }
}

fn json_rows(batch: &RecordBatch) -> Result<Vec<Vec<u8>>, arrow::error::ArrowError> {
    let mut text = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut text);
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    Ok(text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(path: &Path, types: &FieldTypes) -> Vec<String> {
        let mut rows = Rows::open(path, types).unwrap();
        let mut found = Vec::new();
        let mut row = Vec::new();
        loop {
            row.clear();
            if !rows.next(&mut row).unwrap() {
                break;
            }
            found.push(String::from_utf8(row.clone()).unwrap());
        }
        found
    }

    #[test]
    fn csv_cells_follow_the_contracts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "id,n,amount,meta.x,note\n01,12,10.50,true,\n\"a,b\",x,1e3,\"q\"\"q\",n\n")
            .unwrap();
        let mut types = FieldTypes::default();
        types.add(&serde_json::json!({"fields": [
            {"name": "id", "type": "string"}, {"name": "n", "type": "int"}, {"name": "amount", "type": "decimal(9,2)"}]}));
        assert_eq!(
            all(&path, &types),
            [
                r#"{"id":"01","n":12,"amount":"10.50","meta":{"x":"true"}}"#,
                r#"{"id":"a,b","n":"x","amount":"1e3","meta":{"x":"q\"q"},"note":"n"}"#
            ]
        );
    }

    #[test]
    fn parquet_rows_keep_their_decimals() {
        use arrow::array::{Decimal128Array, StringArray, TimestampMicrosecondArray};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let amount = Decimal128Array::from(vec![1050_i128]).with_precision_and_scale(12, 2).unwrap();
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(StringArray::from(vec!["a"])) as Arc<dyn Array>),
            ("amount", Arc::new(amount)),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![1_000_000]).with_timezone("UTC"))),
        ])
        .unwrap();
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let rows = all(&path, &FieldTypes::default());
        let row: Value = serde_json::from_str(&rows[0]).unwrap();
        assert!(rows[0].contains("\"amount\":10.50"), "{}", rows[0]);
        assert_eq!(row["at"], "1970-01-01T00:00:01Z");
    }

    #[test]
    fn lines_are_passed_on_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ndjson");
        std::fs::write(&path, "{\"a\": 1}\r\n\n  \nnot json\n{\"b\":2}").unwrap();
        assert_eq!(all(&path, &FieldTypes::default()), ["{\"a\": 1}", "not json", "{\"b\":2}"]);
    }
}
