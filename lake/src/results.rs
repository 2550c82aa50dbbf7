//! Results of metrics: one row per window that is over, and again when it is restated.
//!
//! *In*: what a metric says of windows that are over, as of a tick. *Out*: rows that are new or differ from the newest
//! revision in the table, with their revision. *Never*: a revision twice or left out: the newest ones are read from the
//! table, which says what was committed.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::array::{TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use contracts::catalog::{Head, Metric};
use contracts::value::{Value, ValueType, timestamp_type, to_arrow};
use futures::TryStreamExt;
use iceberg::expr::Reference;
use iceberg::spec::Datum;
use iceberg::table::Table;

/// The state of all metrics at a tick.
pub trait AtTick: Send + Sync + std::fmt::Debug {
    /// What `metric` says of windows that are over; of those that cannot have changed since `before` nothing.
    fn closed(&self, metric: &str, before: Option<&dyn AtTick>) -> Vec<Closed>;
    /// Windows of `metric` that begin earlier are not told of any more.
    fn kept_from(&self, metric: &str) -> i64;
    /// The instant of the tick.
    fn as_of(&self) -> i64;
    /// For an implementation to know its own.
    fn as_any(&self) -> &dyn Any;
}

/// A window that is over.
#[derive(Debug, Clone)]
pub struct Closed {
    /// Its name.
    pub window: String,
    /// First instant, microseconds.
    pub start: i64,
    /// Exclusive end.
    pub end: i64,
    /// No further event is expected to change it.
    pub complete: bool,
    /// Values of all dimensions, and of all measures that are not hidden, in the order of the contract.
    pub rows: Vec<(Vec<Value>, Vec<Value>)>,
}

/// Columns beside dimensions and measures; of `_start` the day splits the table.
const OWN: [(&str, fn() -> DataType); 9] = [
    ("_window", || DataType::Utf8),
    (START, timestamp_type),
    ("_window_end", timestamp_type),
    ("_revision", || DataType::Int32),
    ("_computed_at", timestamp_type),
    ("_complete", || DataType::Boolean),
    ("_retracted", || DataType::Boolean),
    ("_contract", || DataType::Utf8),
    ("_digest", || DataType::Int64),
];
pub(super) const START: &str = "_window_start";

/// The table of a metric; `None`: the contract asks for none.
pub(super) fn table_name(metric: &Metric) -> Option<String> {
    metric.lake.clone()
}

/// Its columns.
pub(super) fn columns(metric: &Metric) -> SchemaRef {
    let own = OWN.iter().map(|(name, ty)| Field::new(*name, ty(), false));
    let dimensions = metric.dimensions.iter().map(|one| Field::new(&one.name, column_type(&one.ty), true));
    let measures = shown(metric).map(|(name, ty)| Field::new(name, column_type(ty), true));
    Arc::new(Schema::new(own.chain(dimensions).chain(measures).collect::<Vec<_>>()))
}

fn shown(metric: &Metric) -> impl Iterator<Item = (&str, &ValueType)> {
    metric.measures.iter().filter(|one| !one.hidden).map(|one| (one.name.as_str(), &one.ty))
}

/// Histograms and rankings are JSON, durations microseconds.
fn column_type(ty: &ValueType) -> DataType {
    match ty.arrow() {
        Some(DataType::Duration(_)) => DataType::Int64,
        Some(ty) => ty,
        None => DataType::Utf8,
    }
}

/// A window and the values of its dimensions.
type Key = (i64, Arc<str>, Vec<Value>);

/// The newest revision of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Newest {
    revision: i32,
    digest: i64,
    complete: bool,
    retracted: bool,
    end: i64,
}

/// What a table holds of windows that may still be restated.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<Key, Newest>);

/// Rows to be written; once they are part of a plan they are held.
#[derive(Debug)]
pub(super) struct Fresh {
    rows: Vec<(Key, Newest, Vec<Value>)>,
}

impl Held {
    /// Reads the newest revisions of windows that begin at `from` or later.
    pub(super) async fn read(table: &Table, metric: &Metric, from: i64) -> iceberg::Result<Self> {
        let own = ["_window", START, "_window_end", "_revision", "_complete", "_retracted", "_digest"];
        let there = table.metadata().current_schema().clone();
        let dimensions = || metric.dimensions.iter().filter(|one| there.field_by_name(&one.name).is_some());
        let select = own.into_iter().map(str::to_owned).chain(dimensions().map(|one| one.name.clone()));
        let recent = Reference::new(START).greater_than_or_equal_to(Datum::timestamptz_micros(from));
        let scan = table.scan().select(select).with_filter(recent).build()?;
        let mut batches = scan.to_arrow().await?;
        let mut held = Self::default();
        while let Some(batch) = batches.try_next().await? {
            held.take(&batch, metric);
        }
        Ok(held)
    }

    fn take(&mut self, batch: &RecordBatch, metric: &Metric) {
        let column = |name: &str| batch.column_by_name(name);
        let micros = |name| Some(column(name)?.as_primitive_opt::<TimestampMicrosecondType>()?.values());
        let flags = |name| column(name)?.as_boolean_opt();
        let found = (|| {
            let windows = column("_window")?.as_string_opt::<i32>()?;
            let revisions = column("_revision")?.as_primitive_opt::<Int32Type>()?.values();
            let digests = column("_digest")?.as_primitive_opt::<Int64Type>()?.values();
            let (starts, ends) = (micros(START)?, micros("_window_end")?);
            Some((windows, revisions, digests, starts, ends, flags("_complete")?, flags("_retracted")?))
        })();
        let Some((windows, revisions, digests, starts, ends, complete, retracted)) = found else { return };
        for row in 0..batch.num_rows() {
            let value =
                |name: &str| column(name).map_or(Value::Null, |column| Value::from_arrow(column, row));
            let dimensions = metric.dimensions.iter().map(|one| value(&one.name)).collect();
            let newest = Newest {
                revision: revisions[row],
                digest: digests[row],
                complete: complete.value(row),
                retracted: retracted.value(row),
                end: ends[row],
            };
            let key = (starts[row], Arc::from(windows.value(row)), dimensions);
            let known = self.0.entry(key).or_insert(newest);
            if known.revision < newest.revision {
                *known = newest;
            }
        }
    }

    /// Which rows of `closed` are to be written.
    pub(super) fn fresh(&self, metric: &Metric, closed: Vec<Closed>) -> Fresh {
        let mut rows = Vec::new();
        for Closed { window, start, end, complete, rows: told } in closed {
            let window: Arc<str> = window.into();
            let mut there = BTreeSet::new();
            for (dimensions, measures) in told {
                let key = (start, Arc::clone(&window), normal(metric, dimensions));
                let wanted =
                    Newest { revision: 1, digest: digest(&measures), complete, retracted: false, end };
                rows.extend(self.next(&key, wanted).map(|newest| (key.clone(), newest, measures)));
                there.insert(key);
            }
            // What an earlier revision told and is not so any more.
            let whole =
                (start, Arc::from(""), Vec::new())..(start.saturating_add(1), Arc::from(""), Vec::new());
            for (key, _) in self.0.range(whole).filter(|(key, _)| key.1 == window && !there.contains(*key)) {
                let nothing = Newest { revision: 1, digest: 0, complete, retracted: true, end };
                rows.extend(self.next(key, nothing).map(|newest| (key.clone(), newest, Vec::new())));
            }
        }
        Fresh { rows }
    }

    /// `wanted` with its revision, if it says something new.
    fn next(&self, key: &Key, wanted: Newest) -> Option<Newest> {
        let Some(known) = self.0.get(key) else { return Some(wanted) };
        let same = known.digest == wanted.digest && known.retracted == wanted.retracted;
        let final_now = wanted.complete && !known.complete;
        (!same || final_now).then(|| Newest { revision: known.revision.saturating_add(1), ..wanted })
    }

    /// These rows are decided; windows that begin before `from` are not told of any more.
    pub(super) fn put(&mut self, fresh: Fresh, from: i64) {
        self.0.extend(fresh.rows.into_iter().map(|(key, newest, _)| (key, newest)));
        self.0 = self.0.split_off(&(from, Arc::from(""), Vec::new()));
    }
}

impl Fresh {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// As columns of [`columns`].
    pub(super) fn batch(
        &self,
        metric: &Metric,
        computed_at: i64,
    ) -> Result<RecordBatch, arrow::error::ArrowError> {
        let rows = &self.rows;
        let micros = |of: fn(&(Key, Newest, Vec<Value>)) -> i64| {
            let array = TimestampMicrosecondArray::from_iter_values(rows.iter().map(of));
            Arc::new(array.with_timezone("UTC")) as ArrayRef
        };
        let flags = |of: fn(&Newest) -> bool| {
            Arc::new(rows.iter().map(|(_, newest, _)| Some(of(newest))).collect::<BooleanArray>()) as ArrayRef
        };
        let contract = contract(&metric.head);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|((_, window, _), _, _)| window))),
            micros(|((start, _, _), _, _)| *start),
            micros(|(_, newest, _)| newest.end),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, newest, _)| newest.revision))),
            Arc::new(TimestampMicrosecondArray::from_value(computed_at, rows.len()).with_timezone("UTC")),
            flags(|newest| newest.complete),
            flags(|newest| newest.retracted),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|_| &contract))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, newest, _)| newest.digest))),
        ];
        for (index, dimension) in metric.dimensions.iter().enumerate() {
            let values = rows.iter().map(|((_, _, values), _, _)| values[index].clone()).collect();
            columns.push(column(&dimension.name, &dimension.ty, values));
        }
        for (index, (name, ty)) in shown(metric).enumerate() {
            let value = |values: &Vec<Value>| values.get(index).cloned().unwrap_or_default();
            columns.push(column(name, ty, rows.iter().map(|(_, _, values)| value(values)).collect()));
        }
        RecordBatch::try_new(self::columns(metric), columns)
    }
}

fn column(name: &str, ty: &ValueType, values: Vec<Value>) -> ArrayRef {
    let wanted = column_type(ty);
    let plain = |value: Value| match value {
        Value::Duration(micros) => Value::Int(micros),
        Value::Histogram(_) | Value::Ranking(_) => Value::Text(value.to_json(None).to_string().into()),
        other => other,
    };
    let values: Vec<Value> = values.into_iter().map(plain).collect();
    to_arrow(&values, &wanted).unwrap_or_else(|error| {
        // The engine has checked the types: this would be a mistake of ours, and no reason to hold the lake up.
        tracing::error!(column = name, %error, "values of a metric are not of its type and stay null in the lake");
        new_null_array(&wanted, values.len())
    })
}

/// Values beyond the `max` of a dimension are called `other`, which only a text can say; else they are null.
fn normal(metric: &Metric, dimensions: Vec<Value>) -> Vec<Value> {
    let one = |(value, dimension): (Value, &contracts::catalog::Dimension)| match (&value, &dimension.ty) {
        (Value::Text(_), ty) if *ty != ValueType::Text => Value::Null,
        _ => value,
    };
    dimensions.into_iter().zip(&metric.dimensions).map(one).collect()
}

/// `1.2.0 HASH`.
fn contract(head: &Head) -> String {
    let (major, minor, patch) = head.version;
    format!("{major}.{minor}.{patch} {}", head.hash)
}

/// FNV-1a (Fowler, Noll, Vo) of the values as JSON: the same in every process.
fn digest(values: &[Value]) -> i64 {
    let text: Vec<_> = values.iter().map(|value| value.to_json(None)).collect();
    let text = serde_json::to_string(&text).unwrap_or_default();
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    text.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::text::SourceFile;

    const CONTRACT: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: shop.order
version: 1.0.0
fields: { region: { type: string }, amount: { type: "decimal(18,2)" } }
---
apiVersion: streamgauge/v1
kind: Metric
name: revenue
version: 1.0.0
events: { order: { type: shop.order } }
dimensions: { region: { from: order.region, max: 10 } }
measures: { revenue: { agg: sum, value: order.amount }, orders: { agg: count } }
windows: { 1m: { tumbling: 1m } }
serve: { lake: true }
"#;

    fn metric() -> Arc<Metric> {
        let loaded = contracts::load(&[SourceFile::new("c.yaml", CONTRACT)]);
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        Arc::clone(&loaded.catalog.metrics[0])
    }

    fn closed(start: i64, complete: bool, rows: &[(&str, i128)]) -> Closed {
        let row = |(region, cents): &(&str, i128)| {
            (vec![Value::Text((*region).into())], vec![Value::Decimal(*cents, 2), Value::Int(1)])
        };
        let rows = rows.iter().map(row).collect();
        Closed { window: "1m".into(), start, end: start + 60, complete, rows }
    }

    /// (start, revision, retracted) of what is written, which counts as written then.
    fn write(held: &mut Held, metric: &Metric, told: Vec<Closed>) -> Vec<(i64, i32, bool)> {
        let fresh = held.fresh(metric, told);
        let batch = fresh.batch(metric, 7).unwrap();
        assert_eq!(batch.num_rows(), fresh.len());
        // What a restart reads from the table is what was held.
        let mut again = Held(held.0.clone());
        again.take(&batch, metric);
        let told =
            fresh.rows.iter().map(|((start, ..), newest, _)| (*start, newest.revision, newest.retracted));
        let told = told.collect();
        held.put(fresh, i64::MIN);
        assert_eq!(again.0, held.0);
        told
    }

    #[test]
    fn a_revision_is_written_when_something_is_new() {
        let (metric, mut held) = (metric(), Held::default());
        assert_eq!(metric.lake.as_deref(), Some("metric_revenue"));
        let first = || vec![closed(0, true, &[("eu", 150), ("us", 200)]), closed(60, false, &[("eu", 1)])];
        assert_eq!(write(&mut held, &metric, first()), [(0, 1, false), (0, 1, false), (60, 1, false)]);
        assert_eq!(write(&mut held, &metric, first()), [], "nothing is new");
        // Final now; of the first window a row is gone and another one is there.
        let second = || vec![closed(60, true, &[("eu", 1)]), closed(0, true, &[("eu", 150), ("asia", 200)])];
        assert_eq!(write(&mut held, &metric, second()), [(60, 2, false), (0, 1, false), (0, 2, true)]);
        assert_eq!(write(&mut held, &metric, second()), [], "what is gone stays gone");
        assert_eq!(write(&mut held, &metric, vec![closed(60, false, &[("eu", 1)])]), [], "final stays final");
        let back = vec![closed(0, true, &[("eu", 151), ("asia", 200), ("us", 200)])];
        assert_eq!(write(&mut held, &metric, back), [(0, 2, false), (0, 3, false)]);
        held.put(Fresh { rows: Vec::new() }, 60);
        assert_eq!(held.0.len(), 1, "windows that are not told of any more are let go");
    }
}
