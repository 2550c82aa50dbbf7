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
    /// Tells what `metric` says of windows that are over, but for what cannot have changed since `before`. `true`: all
    /// was told, because there is no `before` or it has nothing to do with this tick.
    fn closed(&self, metric: &str, before: Option<&dyn AtTick>, tell: &mut dyn FnMut(Closed)) -> bool;
    /// Whether a window of `metric` (its name, start and end) would be told of if there were rows in it.
    fn tells(&self, metric: &str, window: &str, start: i64, end: i64) -> bool;
    /// Windows of `metric` that begin earlier are not told of any more.
    fn kept_from(&self, metric: &str) -> i64;
    /// The instant of the tick.
    fn as_of(&self) -> i64;
    /// For an implementation to know its own.
    fn as_any(&self) -> &dyn Any;
}

/// One row of a window that is over.
#[derive(Debug, Clone)]
pub struct Closed {
    /// Name of the window.
    pub window: Arc<str>,
    /// First instant, microseconds.
    pub start: i64,
    /// Exclusive end.
    pub end: i64,
    /// No further event is expected to change it.
    pub complete: bool,
    /// Values of all dimensions, in the order of the contract.
    pub key: Vec<Value>,
    /// Values of all measures that are not hidden, in the order of the contract; `None`: there is no such row.
    pub values: Option<Vec<Value>>,
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
    /// `None`: there are several, of a contract with other dimensions.
    digest: Option<i64>,
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
        // What was written last: a column that has come since is in no file yet, and a scan refuses its name.
        let Some(snapshot) = table.metadata().current_snapshot() else { return Ok(Self::default()) };
        let there = snapshot.schema(table.metadata())?;
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
                digest: Some(digests[row]),
                complete: complete.value(row),
                retracted: retracted.value(row),
                end: ends[row],
            };
            let key = (starts[row], Arc::from(windows.value(row)), dimensions);
            let known = self.0.entry(key).or_insert(newest);
            if known.revision < newest.revision {
                *known = newest;
            } else if known.revision == newest.revision && known.digest != newest.digest {
                (known.digest, known.retracted) = (None, false);
            }
        }
    }

    /// Which rows of what `state` tells are to be written.
    pub(super) fn fresh(&self, metric: &Metric, state: &dyn AtTick, before: Option<&dyn AtTick>) -> Fresh {
        let name = metric.head.name.as_str();
        let mut rows = Vec::new();
        let mut there = BTreeSet::new();
        let all = state.closed(name, before, &mut |closed| {
            let Closed { window, start, end, complete, key, values } = closed;
            let key = (start, window, normal(metric, key));
            if self.0.contains_key(&key) {
                there.insert(key.clone());
            }
            rows.extend(self.next(metric, key, (end, complete), values));
        });
        // What an earlier revision told and is not so any more.
        let gone = self.0.iter().filter(|(key, newest)| {
            all && !newest.retracted && !there.contains(*key) && state.tells(name, &key.1, key.0, newest.end)
        });
        let gone: Vec<_> = gone.map(|(key, newest)| (key.clone(), (newest.end, true))).collect();
        rows.extend(gone.into_iter().filter_map(|(key, end)| self.next(metric, key, end, None)));
        Fresh { rows }
    }

    /// The next revision of a row, if it says something new.
    fn next(
        &self,
        metric: &Metric,
        key: Key,
        (end, complete): (i64, bool),
        values: Option<Vec<Value>>,
    ) -> Option<(Key, Newest, Vec<Value>)> {
        let retracted = values.is_none();
        let values = values.unwrap_or_default();
        let digest = Some(if retracted { 0 } else { digest(metric, &values) });
        let wanted = Newest { revision: 1, digest, complete, retracted, end };
        let newest = match self.0.get(&key) {
            None if retracted => return None,
            None => wanted,
            Some(known) => {
                let same = known.retracted && retracted
                    || known.digest == wanted.digest && known.retracted == retracted && known.end == end;
                if same && (known.complete || !complete || retracted) {
                    return None;
                }
                Newest { revision: known.revision.saturating_add(1), ..wanted }
            }
        };
        Some((key, newest, values))
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
            Arc::new(Int64Array::from_iter_values(
                rows.iter().map(|(_, newest, _)| newest.digest.unwrap_or(0)),
            )),
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

/// FNV-1a (Fowler, Noll, Vo) of the measures' names and values as JSON: the same in every process.
fn digest(metric: &Metric, values: &[Value]) -> i64 {
    let names = shown(metric).map(|(name, _)| name);
    let text: Vec<_> = names.zip(values).map(|(name, value)| (name, value.to_json(None))).collect();
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

    /// Rows by start: final or not, regions with cents. Windows of a minute, in seconds.
    #[derive(Debug)]
    struct Says(Vec<(i64, bool, Vec<(&'static str, i128)>)>);

    impl AtTick for Says {
        fn closed(&self, _: &str, before: Option<&dyn AtTick>, tell: &mut dyn FnMut(Closed)) -> bool {
            for (start, complete, rows) in &self.0 {
                for (region, cents) in rows {
                    let values = (*cents != 0).then(|| vec![Value::Decimal(*cents, 2), Value::Int(1)]);
                    let (window, key) = ("1m".into(), vec![Value::Text((*region).into())]);
                    tell(Closed { window, start: *start, end: start + 60, complete: *complete, key, values });
                }
            }
            before.is_none()
        }
        fn tells(&self, _: &str, window: &str, start: i64, _: i64) -> bool {
            window == "1m" && start >= 0
        }
        fn kept_from(&self, _: &str) -> i64 {
            i64::MIN
        }
        fn as_of(&self) -> i64 {
            7
        }
        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    /// (start, revision, retracted) of what is written, which counts as written then. `all`: what is not told is gone.
    fn write(held: &mut Held, metric: &Metric, says: &Says, all: bool) -> Vec<(i64, i32, bool)> {
        let fresh = held.fresh(metric, says, (!all).then_some(says as &dyn AtTick));
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
        let first =
            Says(vec![(0, true, vec![("eu", 150), ("us", 200), ("asia", 0)]), (60, false, vec![("eu", 1)])]);
        assert_eq!(write(&mut held, &metric, &first, true), [(0, 1, false), (0, 1, false), (60, 1, false)]);
        assert_eq!(write(&mut held, &metric, &first, false), [], "nothing is new");
        // Final now; of the first window a row is gone and another one is there.
        let second = Says(vec![(60, true, vec![("eu", 1)]), (0, true, vec![("us", 0), ("asia", 200)])]);
        assert_eq!(write(&mut held, &metric, &second, false), [(60, 2, false), (0, 2, true), (0, 1, false)]);
        assert_eq!(write(&mut held, &metric, &second, false), [], "what is gone stays gone");
        let open = Says(vec![(60, false, vec![("eu", 1)])]);
        assert_eq!(write(&mut held, &metric, &open, false), [], "final stays final");
        let back = Says(vec![(0, true, vec![("us", 200), ("asia", 201)])]);
        assert_eq!(write(&mut held, &metric, &back, false), [(0, 3, false), (0, 2, false)]);
        // After a restart everything is told: what is not has no rows any more.
        let left = Says(vec![(0, true, vec![("us", 200)])]);
        let gone = [(0, 3, true), (0, 2, true), (60, 3, true)];
        assert_eq!(write(&mut held, &metric, &left, true), gone);
        assert_eq!(write(&mut held, &metric, &left, true), [], "once");
        held.put(Fresh { rows: Vec::new() }, 60);
        assert_eq!(held.0.len(), 1, "windows that are not told of any more are let go");
    }

    #[test]
    fn names_of_measures_and_lost_dimensions_make_a_row_new() {
        let (metric, mut held) = (metric(), Held::default());
        let says = Says(vec![(0, true, vec![("eu", 150), ("us", 200)])]);
        write(&mut held, &metric, &says, true);
        let other = |from: &str, to: &str| {
            let loaded = contracts::load(&[SourceFile::new("c.yaml", CONTRACT.replace(from, to))]);
            assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
            Arc::clone(&loaded.catalog.metrics[0])
        };
        let renamed = other("orders: {", "sold: {");
        assert_eq!(write(&mut held, &renamed, &says, true), [(0, 2, false), (0, 2, false)]);
        // Without the dimension two rows have one name: neither is the sum of both, even where it looks alike.
        let alone = other("dimensions: { region: { from: order.region, max: 10 } }\n", "");
        let values = vec![Value::Decimal(150, 2), Value::Int(1)];
        let row = |region: &str| ((0, Arc::from("1m"), vec![Value::Text(region.into())]), values.clone());
        let newest = |revision, values: &[Value]| Newest {
            revision,
            digest: Some(digest(&alone, values)),
            complete: true,
            retracted: false,
            end: 60,
        };
        let rows = vec![
            (row("eu").0, newest(1, &values), values.clone()),
            (row("us").0, newest(1, &[]), Vec::new()),
        ];
        let batch = Fresh { rows }.batch(&metric, 7).unwrap();
        let mut held = Held::default();
        held.take(&batch, &alone);
        let next = held.next(&alone, (0, Arc::from("1m"), Vec::new()), (60, true), Some(values.clone()));
        assert_eq!(next.map(|(_, newest, _)| newest.revision), Some(2));
    }
}
