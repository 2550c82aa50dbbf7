//! The checked catalog: everything resolved, typed and indexed, ready for the engine.
//!
//! *In*: lowered contracts. *Out*: plain data. *Never*: a name that does not resolve, an expression
//! that does not type-check, text that still has to be parsed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

mod relation;
mod ships;
mod test;
mod window;

pub use relation::{
    Missing, Order, Part, PartFeed, Pick, Relation, SPAN, SPAN_KIND, Sequence, SpanKind, Step,
};
pub use ships::{ColdStart, History, HistoryKind, Ships};
pub use test::{Expected, ExpectedRefusal, ExpectedRow, Given, TEST_ENVELOPE, TEST_OP, Test};

use crate::expr::Typed;
use crate::value::{FieldType, Value, ValueType};

/// Microseconds: the unit of every duration and instant in the catalog.
pub type Micros = i64;

/// All contracts of a run.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Events, sorted by name.
    pub events: Vec<Arc<Event>>,
    /// Entities, sorted by name.
    pub entities: Vec<Arc<Entity>>,
    /// Tables, sorted by name.
    pub tables: Vec<Arc<Table>>,
    /// Metrics, sorted by name.
    pub metrics: Vec<Arc<Metric>>,
    /// Hex SHA-256 over all contract hashes: changes when anything that matters changes.
    pub hash: String,
}

impl Catalog {
    /// Index of the event contract `name`.
    pub fn event_index(&self, name: &str) -> Option<usize> {
        self.events.binary_search_by(|e| e.head.name.as_str().cmp(name)).ok()
    }
    /// Index of the entity `name`.
    pub fn entity_index(&self, name: &str) -> Option<usize> {
        self.entities.binary_search_by(|e| e.head.name.as_str().cmp(name)).ok()
    }
    /// Index of the metric `name`.
    pub fn metric_index(&self, name: &str) -> Option<usize> {
        self.metrics.binary_search_by(|m| m.head.name.as_str().cmp(name)).ok()
    }
}

/// The common head of all contracts.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// Unique within its kind.
    pub name: String,
    /// Semantic version of the meaning: `major.minor.patch`.
    pub version: (u64, u64, u64),
    /// Life cycle.
    pub status: Status,
    /// For people; the name where not given.
    pub title: String,
    /// For people.
    pub description: String,
    /// `owner.team`.
    pub team: Option<String>,
    /// `owner.contact`.
    pub contact: Option<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// First 16 hex digits of the SHA-256 over the document's meaning (not its layout or comments).
    pub hash: String,
    /// The same of what state is made of: without what only shows it, and without what it stands on.
    pub state: String,
    /// File it came from, as given by the caller.
    pub file: String,
    /// Line of the document's first key, from 1.
    pub line: usize,
}

/// `status:` of a contract. `draft` and `retired` contracts are checked but not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum Status {
    Draft,
    #[default]
    Active,
    Deprecated,
    Retired,
}

/// `kind: Event`.
#[derive(Debug, Clone)]
pub struct Event {
    /// Common head; `head.name` is the event type in the envelope.
    pub head: Head,
    /// Fields that are the partition and entity key, and name the row of a change stream; empty: none is.
    pub key: Vec<String>,
    /// Field that is the event time; `None`: the envelope's time.
    pub time: Option<String>,
    /// Field that is the dedupe id; `None`: the envelope's id.
    pub id: Option<String>,
    /// How long an id is remembered, counted in received time. 0: no dedupe.
    pub dedupe: Micros,
    /// Declared fields in contract order.
    pub fields: Vec<Field>,
    /// Semantic rules in contract order.
    pub rules: Vec<Rule>,
    /// Computed columns in contract order; a later one may use an earlier one.
    pub enrich: Vec<Computed>,
    /// Schema of a decoded batch: the declared fields in order, then `time` (the event time,
    /// [`crate::value::timestamp_type`], never null) unless a field of that name is declared as the
    /// event time itself.
    pub decoded: SchemaRef,
    /// Schema of an admitted batch: `decoded`, then one column per `enrich`.
    pub admitted: SchemaRef,
    /// A change stream: each row is the newest version of the row of its `key`, or says that it is gone
    /// ([`crate::batch::Change`]). Such rows are not deduplicated; their ids are the text of their key.
    pub changelog: bool,
    /// Somebody reads the ids: `dedupe` > 0, a change stream, or a `first`/`last` fold or an entity follows this event.
    pub needs_id: bool,
}

/// One declared field.
#[derive(Debug, Clone)]
pub struct Field {
    /// Column name.
    pub name: String,
    /// Declared type.
    pub ty: FieldType,
    /// Path of keys in the payload's JSON object; `[name]` unless `from: a.b.c` says otherwise.
    pub path: Vec<String>,
    /// Refuse the event when the field is absent or null.
    pub required: bool,
    /// Used when the field is absent or null.
    pub default: Option<Value>,
    /// Personal data: masked in logs, dead-letter lists and taps.
    pub pii: bool,
    /// Checks on the value, applied by decode.
    pub checks: Checks,
    /// Checks of nested fields, by path below this field (`quantity` for items of a list).
    pub nested: Vec<NestedField>,
    /// The column is dictionary encoded (see [`FieldType::arrow`]).
    pub dictionary: bool,
}

/// A field inside a list's items or a struct.
#[derive(Debug, Clone)]
pub struct NestedField {
    /// Path below the top field, without list indexes: `["quantity"]`.
    pub path: Vec<String>,
    /// Refuse the event when absent or null.
    pub required: bool,
    /// Checks on each value.
    pub checks: Checks,
}

/// What a value must keep; `None` means unchecked. `Value`s have the field's type.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    /// Allowed texts.
    pub one_of: Option<Vec<String>>,
    /// A regular expression (crate `regex`) that must match.
    pub pattern: Option<String>,
    /// Least allowed value.
    pub min: Option<Value>,
    /// Greatest allowed value.
    pub max: Option<Value>,
    /// Least number of characters or items.
    pub min_length: Option<u64>,
    /// Greatest number of characters or items.
    pub max_length: Option<u64>,
}

/// A semantic rule: `check` must not be false (null passes, as in SQL CHECK constraints).
#[derive(Debug, Clone)]
pub struct Rule {
    /// Name in the contract.
    pub name: String,
    /// Boolean over the `decoded` schema plus the enrich columns.
    pub check: Typed,
    /// What breaking it does.
    pub severity: Severity,
}

/// `severity:` of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The event is refused.
    Error,
    /// The event is admitted; the warning is counted and kept on the row.
    Warning,
}

/// `name: expression`.
#[derive(Debug, Clone)]
pub struct Computed {
    /// Column name.
    pub name: String,
    /// The expression.
    pub expr: Typed,
}

/// `kind: Entity`: the live row per key.
#[derive(Debug, Clone)]
pub struct Entity {
    /// Common head.
    pub head: Head,
    /// Name of the key.
    pub key: String,
    /// The events that move it.
    pub feeds: Vec<EntityFeed>,
    /// Fields in contract order.
    pub fields: Vec<EntityField>,
    /// Schema of an entity row: the key (Utf8), the fields, then `first_time` and `time` (the
    /// earliest and latest event time that touched the row). A field of one of those two names
    /// takes its place.
    pub schema: SchemaRef,
    /// How many events are remembered per key beyond which the oldest are folded together
    /// (`history:`); `as_of` reads are exact back to the oldest remembered one.
    pub history: usize,
}

/// How one event type feeds an entity.
#[derive(Debug, Clone)]
pub struct EntityFeed {
    /// Index into [`Catalog::events`].
    pub event: usize,
    /// The event is a change stream: its current rows are what the entity folds.
    pub changelog: bool,
    /// The key, over the event's `admitted` schema; events whose key is null are not about a row.
    pub key: Typed,
    /// One per entity field; `None`: this event type does not touch the field.
    pub values: Vec<Option<Typed>>,
}

/// One field of an entity.
#[derive(Debug, Clone)]
pub struct EntityField {
    /// Column name.
    pub name: String,
    /// How it follows its events.
    pub fold: EntityFold,
    /// Type of the folded value.
    pub ty: ValueType,
}

/// Field folds of an entity, in event-time order (ties by event id).
/// `first`, `last`, `min`, `max` pass over nulls; `set` collects distinct non-null values, sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EntityFold {
    First,
    Last,
    Count,
    Sum,
    Min,
    Max,
    Set,
}

/// `kind: Table`: reference data.
#[derive(Debug, Clone)]
pub struct Table {
    /// Common head.
    pub head: Head,
    /// Key field.
    pub key: String,
    /// Fields.
    pub fields: Vec<Field>,
    /// Index into [`Catalog::events`]: the change stream that carries rows read from files and given by tests,
    /// named [`table_event`].
    pub event: usize,
    /// Index into [`Catalog::events`]: events whose rows are the table's (`source.event`).
    pub fed_by: Option<usize>,
    /// Field from which on a version holds.
    pub valid_from: Option<String>,
    /// Field until which a version holds (exclusive).
    pub valid_to: Option<String>,
    /// `source.file`, as written.
    pub file: Option<String>,
    /// `source.every`.
    pub every: Option<Micros>,
}

/// The event type that carries the rows of a table.
pub fn table_event(table: &str) -> String {
    format!("streamgauge.table.{table}")
}

/// `kind: Metric`, compiled.
#[derive(Debug, Clone)]
pub struct Metric {
    /// Common head.
    pub head: Head,
    /// `better: higher|lower`.
    pub better: Option<Better>,
    /// What moves it: one feed per (alias, event type), or one for an entity.
    pub feeds: Vec<Feed>,
    /// Rows that must remember others.
    pub relations: Vec<Relation>,
    /// Dimensions in contract order.
    pub dimensions: Vec<Dimension>,
    /// The accumulators behind the measures.
    pub folds: Vec<Fold>,
    /// Measures in contract order.
    pub measures: Vec<Measure>,
    /// Windows in contract order; never empty.
    pub windows: Vec<Window>,
    /// `time.lateness`: a window counts as complete this long after its end.
    pub lateness: Micros,
    /// `time.idle`: a source silent this long no longer holds `complete` back.
    pub idle: Micros,
    /// `time.future`: rows further ahead of the clock than this are lost with reason `future`.
    pub future: Micros,
    /// `freshness.p95`.
    pub freshness: Option<Micros>,
    /// `levels`: bands of the first visible measure, best first.
    pub levels: Vec<Level>,
    /// Source of the bands (`levels.source`).
    pub levels_source: Option<String>,
    /// `retain.live`: how far back answers and restating reach.
    pub retain: Micros,
    /// `serve.lake`: table of results, with its namespace before a dot where the contract names one.
    pub lake: Option<String>,
    /// `tests:`.
    pub tests: Vec<Test>,
}

/// Direction of improvement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Better {
    Higher,
    Lower,
}

/// What a feed reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// Admitted events, index into [`Catalog::events`]; expressions are over `admitted`.
    Event(usize),
    /// Changes of an entity's rows, index into [`Catalog::entities`]; expressions are over `schema`.
    Entity(usize),
    /// Rows of a relation, index into [`Metric::relations`]; expressions are over its `schema`.
    Relation(usize),
}

/// One stream of rows into a metric.
#[derive(Debug, Clone)]
pub struct Feed {
    /// Alias in the contract; the entity's name for an entity metric.
    pub alias: String,
    /// What it reads.
    pub input: Input,
    /// Column of the input that is the row's time: `time` for events and relations; for an entity the column
    /// named by the metric's `time.column`, default `first_time`.
    pub time: String,
    /// When a row counts, instead of at its time: `time.column` of a metric over events. Null: it does not count.
    pub moment: Option<Typed>,
    /// `where`; a row counts only when it is true.
    pub filter: Option<Typed>,
    /// One per dimension.
    pub dimensions: Vec<Typed>,
    /// One per fold; `None`: this feed does not move the fold.
    pub folds: Vec<Option<FoldInput>>,
}

/// How a feed moves one fold.
#[derive(Debug, Clone)]
pub struct FoldInput {
    /// The value; `None` only for `count` (and `rate` of rows).
    pub value: Option<Typed>,
    /// The measure's own `where`.
    pub filter: Option<Typed>,
    /// `concurrent` and `duration_in_state`: from when to when the row lasts; an end of null: still.
    pub span: Option<(Typed, Typed)>,
}

/// One dimension.
#[derive(Debug, Clone)]
pub struct Dimension {
    /// Name in answers.
    pub name: String,
    /// Type of its values.
    pub ty: ValueType,
    /// Replaces null.
    pub default: Value,
    /// At most this many values are shown in a window. Values are ranked by the earliest event
    /// time they were seen with in the retained history (ties by value), so the choice does not
    /// depend on arrival order.
    pub max: usize,
    /// What becomes of values beyond `max`.
    pub overflow: Overflow,
}

/// `overflow:` of a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// They are summed up as `other`.
    Other,
    /// The row is not counted by this metric: lost with reason `dimension_overflow`.
    Refuse,
}

/// One accumulator.
#[derive(Debug, Clone)]
pub struct Fold {
    /// What it accumulates.
    pub agg: Agg,
    /// Type of its input values (`Int` for a plain count).
    pub input: ValueType,
}

/// `agg:` with its options, as far as the accumulator must know them.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Agg {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    First,
    Last,
    Distinct,
    /// HyperLogLog over rows that are never taken back.
    DistinctApprox,
    /// The `n` most frequent values with how often they occur.
    Top {
        n: usize,
    },
    /// Exact quantile: index `q * (n - 1)` of the sorted values, lower neighbour or interpolated.
    Quantile {
        q: f64,
        linear: bool,
    },
    /// DDSketch (Masson et al., VLDB 2019) with relative error `error`.
    QuantileSketch {
        q: f64,
        error: f64,
    },
    /// Upper bounds of the buckets, ascending; a last one to infinity is implied.
    Histogram {
        bounds: Vec<f64>,
    },
    /// Sample standard deviation.
    Stddev,
    /// Per second, over the part of the window before `as_of`.
    Rate {
        per: Micros,
    },
    /// How many rows last at the end of the window (at `as_of` where that is earlier).
    Concurrent,
    /// How long rows last inside of the window, summed up.
    DurationInState,
}

impl Agg {
    /// Whether it is about how long rows last, not about when they are.
    pub fn is_span(&self) -> bool {
        matches!(self, Self::Concurrent | Self::DurationInState)
    }
}

/// One measure.
#[derive(Debug, Clone)]
pub struct Measure {
    /// Name in answers.
    pub name: String,
    /// `unit:`.
    pub unit: Option<String>,
    /// Type of the answer cell, after `type:`.
    pub ty: ValueType,
    /// Not in answers unless asked for by name.
    pub hidden: bool,
    /// What an empty measure shows instead of null.
    pub empty: Value,
    /// How it is computed.
    pub kind: MeasureKind,
}

/// How a measure is computed from folds or other measures (indexes; no cycles, operands first in
/// evaluation order by [`Metric::measures`] resolution).
#[derive(Debug, Clone)]
pub enum MeasureKind {
    /// The result of a fold.
    Fold(usize),
    /// `num / den`; null when `den` is 0 or null.
    Ratio(usize, usize),
    /// An expression over the measures named in `inputs`, in that order, as columns.
    Expr {
        /// The expression, over a schema with one column per input.
        expr: Typed,
        /// Measure indexes.
        inputs: Vec<usize>,
    },
    /// Another measure, with the window moved back.
    Shift {
        /// Measure index.
        of: usize,
        /// How far back.
        by: Micros,
    },
    /// The values of another measure in the last complete windows of a kind, folded.
    Over {
        /// Measure index.
        of: usize,
        /// Index into [`Metric::windows`]; no session.
        window: usize,
        /// How many windows.
        last: u32,
        /// The running window is one of them.
        running: bool,
        /// Windows before the first row count, too.
        zeros: bool,
        /// How their values are folded.
        agg: Agg,
        /// Type of the values.
        input: ValueType,
    },
}

/// One named window.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Name in queries.
    pub name: String,
    /// Its extent.
    pub kind: WindowKind,
}

/// The extent of a window; all are half-open `[start, end)` in event time.
#[derive(Debug, Clone, PartialEq)]
pub enum WindowKind {
    /// Fixed length below a day, aligned to the Unix epoch.
    Tumbling {
        /// Length.
        size: Micros,
    },
    /// `days` local days in `tz`, each from midnight to midnight (23 or 25 hours at DST changes).
    /// Multiples of 7 start on Mondays, others count from 1970-01-01.
    Days {
        /// Number of local days.
        days: u32,
        /// IANA zone name.
        tz: String,
    },
    /// The last `size`, moving by `every`; `size` is a multiple of `every`.
    Sliding {
        /// Length.
        size: Micros,
        /// Step.
        every: Micros,
    },
    /// Rows less than `gap` apart belong together; a session ends `gap` after its last row.
    Session {
        /// Inactivity gap.
        gap: Micros,
    },
    /// From the start of the running calendar unit in `tz`.
    ToDate {
        /// The unit.
        unit: CalendarUnit,
        /// IANA zone name.
        tz: String,
    },
    /// Everything since the beginning.
    All,
}

/// Units of `to_date`. Weeks start on Mondays (ISO 8601).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CalendarUnit {
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

/// A named band.
#[derive(Debug, Clone)]
pub struct Level {
    /// `elite`, `high`, ...
    pub name: String,
    /// SQL condition over the visible measures, true when the band holds.
    pub when: Typed,
    /// Measure indexes that are the columns of `when`.
    pub inputs: Vec<usize>,
}
