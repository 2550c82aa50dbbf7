//! Hand-made event contracts, and chunks made easy to look at.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field as ArrowField, Int32Type, Schema};
use contracts::Catalog;
use contracts::batch::{Chunk, EventBatch, Partition};
use contracts::catalog::{Checks, Event, Field, Head, NestedField};
use contracts::value::{FieldType, Value, timestamp_type};

use crate::decode::{DecodeSpec, Decoder, Envelope, Record};

pub(super) const NOW: i64 = 1_767_225_600_000_000;

pub(super) fn field(name: &str, ty: FieldType) -> Field {
    Field {
        name: name.to_owned(),
        ty,
        path: vec![name.to_owned()],
        required: false,
        default: None,
        pii: false,
        checks: Checks::default(),
        nested: Vec::new(),
        dictionary: false,
    }
}

pub(super) trait FieldExt {
    fn required(self) -> Self;
    fn dictionary(self) -> Self;
    fn at(self, path: &str) -> Self;
    fn checks(self, checks: Checks) -> Self;
    fn default_to(self, value: Value) -> Self;
}

impl FieldExt for Field {
    fn required(mut self) -> Self {
        self.required = true;
        self
    }
    fn dictionary(mut self) -> Self {
        self.dictionary = true;
        self
    }
    fn at(mut self, path: &str) -> Self {
        self.path = path.split('.').map(str::to_owned).collect();
        self
    }
    fn checks(mut self, checks: Checks) -> Self {
        self.checks = checks;
        self
    }
    fn default_to(mut self, value: Value) -> Self {
        self.default = Some(value);
        self
    }
}

pub(super) fn texts(values: &[&str]) -> Option<Vec<String>> {
    Some(values.iter().map(|v| (*v).to_owned()).collect())
}

pub(super) fn money() -> FieldType {
    FieldType::Decimal { precision: 18, scale: 2 }
}

pub(super) fn event(name: &str, time: Option<&str>, id: Option<&str>, fields: Vec<Field>) -> Arc<Event> {
    let mut columns: Vec<ArrowField> =
        fields.iter().map(|f| ArrowField::new(&f.name, f.ty.arrow(f.dictionary), true)).collect();
    if !fields.iter().any(|f| f.name == "time") {
        columns.push(ArrowField::new("time", timestamp_type(), false));
    }
    let schema = Arc::new(Schema::new(columns));
    Arc::new(Event {
        head: Head { name: name.to_owned(), ..Head::default() },
        key: Vec::new(),
        time: time.map(str::to_owned),
        id: id.map(str::to_owned),
        dedupe: 86_400_000_000,
        fields,
        rules: Vec::new(),
        enrich: Vec::new(),
        decoded: schema.clone(),
        admitted: schema,
        changelog: false,
        needs_id: true,
    })
}

/// `order.created` of the interfaces, and its small siblings.
pub(super) fn commerce() -> Arc<Catalog> {
    let item = FieldType::Struct(vec![
        ("product_id".into(), FieldType::String),
        ("quantity".into(), FieldType::Int),
        ("unit_price".into(), money()),
    ]);
    let mut items = field("items", FieldType::List(Box::new(item)));
    let range = Checks { min: Some(Value::Int(1)), max: Some(Value::Int(1000)), ..Checks::default() };
    items.nested = vec![
        NestedField { path: vec!["quantity".into()], required: false, checks: range },
        NestedField { path: vec!["product_id".into()], required: true, checks: Checks::default() },
    ];
    items.checks = Checks { max_length: Some(3), ..Checks::default() };
    let pattern = Checks { pattern: Some("^ORD-[0-9]{8}-[0-9]{4,}$".into()), ..Checks::default() };
    let currency = Checks { one_of: texts(&["RUB", "USD", "EUR"]), ..Checks::default() };
    let positive = Checks { min: Some(Value::Decimal(0, 2)), ..Checks::default() };
    let order = event(
        "order.created",
        Some("timestamp"),
        Some("event_id"),
        vec![
            field("event_id", FieldType::String).required(),
            field("timestamp", FieldType::Timestamp).required(),
            field("order_id", FieldType::String).required().checks(pattern),
            field("currency", FieldType::String)
                .dictionary()
                .checks(currency)
                .default_to(Value::Text("RUB".into())),
            field("total_amount", money()).required().checks(positive),
            items,
        ],
    );
    let geo = FieldType::Struct(vec![
        ("city".into(), FieldType::String),
        ("tags".into(), FieldType::List(Box::new(FieldType::String))),
    ]);
    let click = event(
        "click",
        None,
        None,
        vec![
            field("session_id", FieldType::String).required(),
            field("width", FieldType::Int).at("viewport.width"),
            field("ratio", FieldType::Float),
            field("bot", FieldType::Bool),
            field("day", FieldType::Date),
            field("page", FieldType::String).at("page.url.path").dictionary(),
            field("raw", FieldType::Json).at("page"),
            field("geo", geo),
            field("wide", FieldType::Decimal { precision: 38, scale: 10 }),
        ],
    );
    Arc::new(Catalog { events: vec![click, order], ..Catalog::default() })
}

pub(super) fn spec() -> DecodeSpec {
    let path = |text: &str| Some(text.split('.').map(str::to_owned).collect());
    DecodeSpec {
        envelope: Envelope {
            id: path("event_id"),
            event_type: path("event_type"),
            time: path("timestamp"),
            tenant: None,
        },
        ..DecodeSpec::default()
    }
}

pub(super) fn partition() -> Partition {
    Partition { source: "orders".into(), topic: "orders.raw".into(), number: 0 }
}

pub(super) fn push(decoder: &mut Decoder, value: &[u8], offset: i64) {
    decoder.push(Record { value, offset, received: NOW, headers: &[] });
}

/// Decodes records with the offsets 0, 1, ...
pub(super) fn decode(records: &[&str]) -> Chunk {
    let mut decoder = Decoder::new(commerce(), spec());
    for (offset, record) in records.iter().enumerate() {
        push(&mut decoder, record.as_bytes(), offset as i64);
    }
    finish(&mut decoder)
}

/// A finished chunk of which every event is in one place.
pub(super) fn finish(decoder: &mut Decoder) -> Chunk {
    let chunk = decoder.finish(&partition(), 0, None);
    let rows: usize = chunk.batches.iter().map(|b| b.columns.num_rows()).sum();
    assert_eq!(chunk.received, rows as u64 + chunk.refused.len() as u64 + chunk.skipped);
    for batch in &chunk.batches {
        let rows = batch.columns.num_rows();
        assert_eq!(batch.ids.len(), rows);
        assert_eq!(batch.offsets.len(), rows);
        assert_eq!(batch.parts.len(), rows);
        assert_eq!(batch.received.len(), rows);
        assert_eq!(batch.payloads.ranges.len(), rows);
        (0..rows).for_each(|row| assert!(!batch.payloads.get(row).is_empty()));
    }
    assert!(chunk.refused.iter().all(|refused| !refused.reasons.is_empty()));
    chunk
}

/// `code path` of each reason of each refused event, in order.
pub(super) fn reasons(chunk: &Chunk) -> Vec<String> {
    let one = |r: &contracts::batch::Refused| {
        r.reasons.iter().map(|r| format!("{} {}", r.code, r.path).trim().to_owned()).collect::<Vec<_>>()
    };
    chunk.refused.iter().map(|refused| one(refused).join("; ")).collect()
}

/// The one reason of a lone record.
pub(super) fn refusal(record: &str) -> String {
    let chunk = decode(&[record]);
    assert_eq!(chunk.batches.len(), 0, "decoded: {record}");
    reasons(&chunk).join("|")
}

/// A cell as text: JSON-like for lists and structs.
pub(super) fn cell(array: &dyn Array, row: usize) -> String {
    use arrow::datatypes::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
    if array.is_null(row) {
        return "null".to_owned();
    }
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Dictionary(..) => {
            let array = array.as_dictionary::<Int32Type>();
            let code = array.keys().value(row) as usize;
            array.values().as_string::<i32>().value(code).to_owned()
        }
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value(row).to_string(),
        DataType::Timestamp(..) => array.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        DataType::Date32 => array.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            let items: Vec<String> = (0..items.len()).map(|i| cell(&items, i)).collect();
            format!("[{}]", items.join(","))
        }
        DataType::Struct(fields) => {
            let array = array.as_struct();
            let inner = fields.iter().zip(array.columns());
            let inner: Vec<String> =
                inner.map(|(field, column)| format!("{}:{}", field.name(), cell(column, row))).collect();
            format!("{{{}}}", inner.join(","))
        }
        other => panic!("no such column type: {other}"),
    }
}

/// A row as `name=value` of its non-null columns.
pub(super) fn row(batch: &EventBatch, row: usize) -> String {
    let schema = batch.columns.schema();
    let cells = schema.fields().iter().zip(batch.columns.columns());
    let cells = cells.filter(|(_, column)| !column.is_null(row));
    cells.map(|(f, column)| format!("{}={}", f.name(), cell(column, row))).collect::<Vec<_>>().join(" ")
}

pub(super) fn id(batch: &EventBatch, row: usize) -> Option<&str> {
    (!batch.ids.is_null(row)).then(|| batch.ids.value(row))
}
