//! Rows of a change stream on their way through enrich, rules and dedupe.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use contracts::SourceFile;
use contracts::batch::{Change, ChangeOp, EventBatch, Partition, Payloads};

use super::dedupe::{IdHash, Secret};
use super::{Admit, Outcome, select};

const CONTRACT: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: cdc.stock
version: 1.0.0
changelog: true
key: id
fields:
  id: { type: string, required: true }
  left: { type: int }
enrich:
  size: CASE WHEN left < 10 THEN 'few' ELSE 'many' END
  share: 100 / left
rules:
  not_negative: { check: left >= 0, severity: error }
  known: { check: "coalesce(left, -1) >= 0", severity: error }
  some: { check: "coalesce(left, 0) > 0", severity: warning }
"#;

fn admit(rows: &[(ChangeOp, Option<&str>, Option<i64>)]) -> Outcome {
    let loaded = contracts::load(&[SourceFile::new("stock.yaml", CONTRACT)]);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let event = loaded.catalog.events[loaded.catalog.event_index("cdc.stock").unwrap()].clone();
    let ids: StringArray = rows.iter().map(|(_, id, _)| *id).collect();
    let left: Int64Array = rows.iter().map(|(_, _, left)| *left).collect();
    let times = TimestampMicrosecondArray::from(vec![1; rows.len()]).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![Arc::new(ids.clone()), Arc::new(left), Arc::new(times)];
    let batch = EventBatch {
        event: 0,
        columns: RecordBatch::try_new(event.decoded.clone(), columns).unwrap(),
        ids,
        offsets: (0..rows.len() as i64).collect(),
        parts: vec![0; rows.len()],
        received: vec![1; rows.len()],
        payloads: Payloads { ranges: vec![(0, 0); rows.len()], ..Payloads::default() },
        changes: Some(rows.iter().map(|(op, _, _)| Change { op: *op, at: 1 }).collect()),
    };
    let partition = Partition { source: "s".into(), topic: "t".into(), number: 0 };
    Admit::new(event, Arc::new(IdHash::new(&Secret::new()))).unwrap().admit(&partition, batch, None)
}

#[test]
fn versions_of_one_key_are_no_duplicates_and_the_end_of_a_row_is_never_refused() {
    use ChangeOp::{Delete, Truncate, Upsert};
    let outcome = admit(&[
        (Upsert, Some("a"), Some(5)),
        (Upsert, Some("a"), Some(5)),
        (Upsert, Some("b"), Some(-1)),
        (Upsert, Some("c"), Some(0)),
        (Upsert, Some("d"), None),
        (Delete, Some("a"), None),
        (Truncate, None, None),
    ]);
    assert!(outcome.duplicates.is_empty());
    let refused: Vec<_> = outcome
        .refused
        .iter()
        .map(|row| (row.offset, row.reasons.iter().map(|reason| reason.code.as_str()).collect::<Vec<_>>()))
        .collect();
    assert_eq!(
        refused,
        [(2, vec!["rule:not_negative", "rule:known"]), (3, vec!["evaluation"]), (4, vec!["rule:known"])]
    );
    assert_eq!(outcome.warned, 0, "the rows that broke it were refused; a delete breaks nothing");
    let batch = outcome.admitted.unwrap();
    assert_eq!(batch.offsets, [0, 1, 5, 6]);
    let ops: Vec<ChangeOp> = batch.changes.as_ref().unwrap().iter().map(|change| change.op).collect();
    assert_eq!(ops, [Upsert, Upsert, Delete, Truncate]);
    let size = batch.columns.column_by_name("size").unwrap();
    let size = arrow::compute::cast(size, &arrow::datatypes::DataType::Utf8).unwrap();
    let size: Vec<_> = size.as_string::<i32>().iter().collect();
    assert_eq!(size, [Some("few"), Some("few"), None, None], "nothing is computed of a row that is gone");
    let share: Vec<_> =
        batch.columns.column_by_name("share").unwrap().as_primitive::<Int64Type>().iter().collect();
    assert_eq!(share, [Some(20), Some(20), None, None]);
    assert_eq!(select(&batch, &[false, false, true, false]).changes.unwrap()[0].op, Delete);
}
