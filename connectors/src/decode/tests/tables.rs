//! CSV lines and Arrow batches.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array, ListArray,
    RecordBatch, StringArray, StringViewArray, StructArray, TimestampMillisecondArray,
};
use arrow::datatypes::{Field, Int8Type, Int64Type, Schema};

use super::helper::*;
use crate::decode::{DecodeSpec, Decoder, csv_record_end, from_record_batch};

fn csv(header: &str, lines: &[&str]) -> contracts::batch::Chunk {
    let header: Vec<&str> = header.split(',').collect();
    let mut decoder = Decoder::csv(commerce(), spec(), &header).unwrap();
    for (offset, line) in lines.iter().enumerate() {
        push(&mut decoder, line.as_bytes(), offset as i64);
    }
    finish(&mut decoder)
}

#[test]
fn csv_cells_are_read_as_their_fields_say() {
    let chunk = csv(
        "\u{feff}event_type,timestamp,session_id,viewport.width,ratio,bot,day,geo,wide,extra",
        &[
            "click,2025-01-01T00:00:00Z,\"a,\"\"b\"\"\n\",375,1.5,TRUE,2025-02-01,\"{\"\"city\"\":\"\"x\"\"}\",0.5,?\r\n",
            "click,1735689600000,s,,,,,,,",
            "click,1735689600000,,x,nan,1,2025-02-30,[],1e-11,",
            "click,1735689600000",
            "click,1735689600000,s,,,,,,,,",
            "other,1735689600000,s,,,,,,,",
        ],
    );
    assert_eq!(
        row(&chunk.batches[0], 0),
        "session_id=a,\"b\"\n width=375 ratio=1.5 bot=true day=20120 geo={city:x,tags:null} wide=5000000000 \
         time=1735689600000000"
    );
    assert_eq!(row(&chunk.batches[0], 1), "session_id=s time=1735689600000000");
    assert_eq!(
        reasons(&chunk),
        [
            "missing session_id; wrong_type viewport.width; wrong_type ratio; wrong_type bot; wrong_type day; \
             wrong_type geo; wrong_type wide",
            "malformed_csv",
            "malformed_csv",
            "unknown_event_type event_type"
        ]
    );
    assert_eq!(chunk.refused[1].reasons[0].message, "found 2 cells, expected 10 as in the header");
}

#[test]
fn csv_that_is_not_text_and_headers_that_are_not_clear() {
    let mut decoder = Decoder::csv(commerce(), spec(), &["event_type", "session_id"]).unwrap();
    push(&mut decoder, b"click,\xff", 0);
    assert_eq!(reasons(&finish(&mut decoder)), ["malformed_csv"]);
    assert!(Decoder::csv(commerce(), spec(), &["session_id", "session_id"]).is_err());
    assert!(Decoder::csv(commerce(), spec(), &["x", "x"]).is_ok());
    let format = crate::decode::Format::Csv;
    let mut decoder = Decoder::new(commerce(), DecodeSpec { format, ..spec() });
    push(&mut decoder, b"a,b", 0);
    assert_eq!(reasons(&finish(&mut decoder)), ["malformed_csv"]);
}

#[test]
fn csv_records_end_at_line_breaks_outside_of_quotes() {
    assert_eq!(csv_record_end(b"a,b\nc"), Some(4));
    assert_eq!(csv_record_end(b"\"a\n\"\"\n\",b\r\nc"), Some(11));
    assert_eq!(csv_record_end(b"\"a\n"), None);
}

#[test]
fn arrow_columns_are_cast_without_loss() {
    let dictionary: DictionaryArray<Int8Type> = vec!["click", "click", "click"].into_iter().collect();
    let inner: ArrayRef = Arc::new(Int64Array::from(vec![Some(375), Some(1), None]));
    let viewport = StructArray::new(
        vec![Field::new("width", inner.data_type().clone(), true)].into(),
        vec![inner],
        Some(vec![true, false, true].into()),
    );
    let tags = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), None, None]);
    let geo = StructArray::from(vec![
        (
            Arc::new(Field::new("city", arrow::datatypes::DataType::Utf8, true)),
            Arc::new(StringArray::from(vec!["x"; 3])) as ArrayRef,
        ),
        (Arc::new(Field::new("tags", tags.data_type().clone(), true)), Arc::new(tags) as ArrayRef),
    ]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("event_type", Arc::new(dictionary)),
        ("timestamp", Arc::new(TimestampMillisecondArray::from(vec![1_735_689_600_000; 3]))),
        ("event_id", Arc::new(Int64Array::from(vec![7, 8, 9]))),
        ("session_id", Arc::new(StringViewArray::from(vec![Some("s"), Some("t"), None]))),
        ("viewport", Arc::new(viewport)),
        ("ratio", Arc::new(Float64Array::from(vec![Some(0.1), Some(f64::NAN), None]))),
        ("day", Arc::new(Date32Array::from(vec![1, 2, 3]))),
        ("wide", Arc::new(Decimal128Array::from(vec![-15, 0, 1]).with_precision_and_scale(20, 1).unwrap())),
        ("geo", Arc::new(geo)),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
    let chunk = from_record_batch(commerce(), spec(), &batch, &partition(), 100, NOW).unwrap();
    assert_eq!((chunk.received, chunk.next_offset), (3, 103));
    assert_eq!(reasons(&chunk), ["wrong_type geo.tags[0]", "wrong_type ratio", "missing session_id"]);
    assert_eq!(chunk.refused[0].event_id.as_deref(), Some("7"));
    assert!(
        chunk.refused[0]
            .payload
            .starts_with(b"{\"event_type\":\"click\",\"timestamp\":\"2025-01-01T00:00:00\"")
    );

    let good = batch.project(&[0, 1, 2, 3, 4, 6, 7]).unwrap().slice(0, 2);
    let chunk = from_record_batch(commerce(), spec(), &good, &partition(), 100, NOW).unwrap();
    assert_eq!(chunk.batches[0].offsets, [100, 101]);
    assert_eq!(id(&chunk.batches[0], 0), Some("7"));
    assert_eq!(
        row(&chunk.batches[0], 0),
        "session_id=s width=375 day=1 wide=-15000000000 time=1735689600000000"
    );
    assert_eq!(row(&chunk.batches[0], 1), "session_id=t day=2 wide=0 time=1735689600000000");
}
