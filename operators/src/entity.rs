//! Entities: the live row per key, which a late event corrects but never corrupts.
//!
//! *In*: admitted batches of the events that feed an entity. *Out*: the row per key, now or as of an
//! instant, and each change of a row as old (-1) and new (+1) for the metrics over it. *Never*: a row that
//! depends on arrival order; every field is a fold in (event time, event id) order.
//!
//! Of a change stream the current rows are folded: a version that is replaced or ended is taken back
//! (`streams` turns versions into touches of weight +1 and -1).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use contracts::batch::EventBatch;
use contracts::catalog::{Entity, EntityFold};
use contracts::value::{Value, ValueType, to_arrow};
use imbl::{HashMap, OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::eval::PlanError;
use crate::fold::acc::{FoldSpec, Placed, weigh};
use crate::fold::group::Rows;
use crate::fold::wide::Wide;
use crate::state::Changed;

mod feed;
mod stored;
pub mod streams;
#[cfg(test)]
mod tests;

use feed::{FeedPlan, Seen};

/// An entity compiled.
#[derive(Debug)]
pub struct EntityPlan {
    /// The contract.
    pub entity: Arc<Entity>,
    /// One per feed of the contract.
    feeds: Vec<FeedPlan>,
    /// Where each column of the row comes from.
    columns: Vec<Source>,
}

/// Where a column of an entity row comes from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Key,
    Field(usize),
    FirstTime,
    LastTime,
}

/// One event's effect on one row; travels to the worker that owns the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    /// The row.
    pub key: Arc<str>,
    /// What the event says, in its place in event time.
    pub moment: Moment,
    /// +1, or -1 for a row of a change stream that is no longer so.
    pub weight: i64,
}

/// A place in the history of a row. Ordered by time, then id; the rest only tells equals apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    time: i64,
    id: Option<Arc<str>>,
    feed: u32,
    /// One per field; `None`: this event type does not touch the field.
    values: Arc<[Option<Value>]>,
}

/// The state of one field.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Folded {
    End(Option<Placed>),
    Count(i64),
    Sum { n: i64, sum: Wide },
    Extreme(Option<Value>),
    Set(OrdSet<Value>),
}

/// One row and its history.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    folded: Vec<Folded>,
    /// Remembered events, oldest first, with their multiplicity.
    history: OrdMap<Moment, u32>,
    /// Current rows of change streams, oldest first: all of them, for each may be taken back.
    live: OrdMap<Moment, i64>,
    /// Events folded together because there were more than the entity's `history`.
    base: Option<Arc<Base>>,
    /// Number of events behind the row.
    pub events: u64,
    /// Earliest and latest event time.
    pub span: (i64, i64),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Base {
    folded: Vec<Folded>,
    events: u64,
    span: (i64, i64),
}

/// `as_of` lies before the oldest remembered event of a row with a long history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOld {
    /// The row is exact for instants after this one, microseconds.
    pub exact_after: i64,
}

/// Changes of rows, for the metrics over the entity.
#[derive(Debug, Clone)]
pub struct Changes {
    /// Rows, schema [`Entity::schema`].
    pub batch: RecordBatch,
    /// -1 for a row as it was, +1 for a row as it is.
    pub weights: Vec<i64>,
    /// The key of each row: the tie-break of equal times.
    pub keys: StringArray,
}

/// The rows of one entity on one worker.
#[derive(Debug)]
pub struct EntityState {
    plan: Arc<EntityPlan>,
    rows: HashMap<Arc<str>, Arc<Row>>,
    max_keys: usize,
    /// Events dropped because the entity had `max_keys` rows.
    pub lost: u64,
    /// Keys whose rows are not as at the last cut.
    changed: Changed<Arc<str>>,
}

impl EntityPlan {
    /// Compiles an entity; the error names the expression.
    pub fn new(entity: Arc<Entity>) -> Result<Self, (String, PlanError)> {
        let feeds = entity.feeds.iter().map(FeedPlan::new).collect::<Result<_, _>>()?;
        let source = |name: &str| match entity.fields.iter().position(|f| f.name == name) {
            Some(field) => Source::Field(field),
            None if name == "first_time" => Source::FirstTime,
            None if name == "time" => Source::LastTime,
            None => Source::Key,
        };
        let columns = entity.schema.fields().iter().map(|f| source(f.name())).collect();
        Ok(Self { feeds, columns, entity })
    }

    /// The effects of a batch on the entity's rows. Rows whose key or values cannot be computed, or whose
    /// key is null, touch nothing; their number is the second result.
    pub fn touches(&self, batch: &EventBatch) -> (Vec<Touch>, u64) {
        let mut touches = Vec::new();
        let mut lost = 0;
        for (number, feed) in self.feeds.iter().enumerate() {
            if feed.event == batch.event && !feed.changelog {
                lost += feed.touches(number as u32, batch, &mut touches);
            }
        }
        (touches, lost)
    }

    /// A row's cells, in order of the entity's schema.
    fn cells(&self, key: &str, view: &View<'_>) -> Vec<Value> {
        let cell = |source: &Source| match source {
            Source::Key => Value::Text(Arc::from(key)),
            Source::Field(field) => self.finish(*field, &view.folded[*field]),
            Source::FirstTime => Value::Timestamp(view.span.0),
            Source::LastTime => Value::Timestamp(view.span.1),
        };
        self.columns.iter().map(cell).collect()
    }

    fn finish(&self, field: usize, folded: &Folded) -> Value {
        let sum = |n: i64, sum: Wide| {
            let agg = contracts::catalog::Agg::Sum;
            let input: ValueType = self.entity.fields[field].ty.clone();
            let spec = FoldSpec { agg, input, retracts: false };
            spec.finish(&crate::fold::acc::Acc::Sum { n, sum }, None)
        };
        match folded {
            Folded::End(end) => end.as_ref().map_or(Value::Null, |end| end.value.clone()),
            Folded::Count(n) => Value::Int(*n),
            Folded::Sum { n, sum: total } => sum(*n, *total),
            Folded::Extreme(value) => value.clone().unwrap_or(Value::Null),
            Folded::Set(set) => Value::List(set.iter().cloned().collect()),
        }
    }

    fn zero(&self) -> Vec<Folded> {
        self.entity.fields.iter().map(|field| Folded::zero(field.fold)).collect()
    }

    fn fold(&self, folded: &mut [Folded], moment: &Moment) {
        for ((field, state), value) in self.entity.fields.iter().zip(folded).zip(moment.values.iter()) {
            if let Some(value) = value.as_ref().filter(|value| !value.is_null()) {
                state.add(field.fold, moment, value);
            }
        }
    }
}

impl Folded {
    fn zero(fold: EntityFold) -> Self {
        match fold {
            EntityFold::First | EntityFold::Last => Self::End(None),
            EntityFold::Count => Self::Count(0),
            EntityFold::Sum => Self::Sum { n: 0, sum: Wide::default() },
            EntityFold::Min | EntityFold::Max => Self::Extreme(None),
            EntityFold::Set => Self::Set(OrdSet::new()),
        }
    }

    fn add(&mut self, fold: EntityFold, moment: &Moment, value: &Value) {
        match self {
            Self::End(best) => {
                let placed = Placed { time: moment.time, id: moment.id.clone(), value: value.clone() };
                let better = match best.as_ref() {
                    None => true,
                    Some(old) if fold == EntityFold::First => placed < *old,
                    Some(old) => placed > *old,
                };
                if better {
                    *best = Some(placed);
                }
            }
            Self::Count(n) => *n += 1,
            Self::Sum { n, sum } => {
                if let Some(wide) = exact(value) {
                    sum.add(wide, 1);
                    *n += 1;
                }
            }
            Self::Extreme(best) => {
                let better = match best.as_ref() {
                    None => true,
                    Some(old) if fold == EntityFold::Min => value < old,
                    Some(old) => value > old,
                };
                if better {
                    *best = Some(value.clone());
                }
            }
            Self::Set(set) => {
                set.insert(value.clone());
            }
        }
    }

    /// Takes a value back that is among those folded; `false`: what is left must be folded again.
    fn take_back(&mut self, moment: &Moment, value: &Value) -> bool {
        match self {
            Self::End(best) => {
                let place = |end: &Placed| (end.time, end.id.clone());
                best.as_ref().is_none_or(|best| place(best) != (moment.time, moment.id.clone()))
            }
            Self::Count(n) => {
                *n -= 1;
                true
            }
            Self::Sum { n, sum } => {
                if let Some(wide) = exact(value) {
                    sum.add(wide, -1);
                    *n -= 1;
                }
                true
            }
            Self::Extreme(best) => best.as_ref() != Some(value),
            Self::Set(_) => false,
        }
    }
}

/// The exact number behind a value.
fn exact(value: &Value) -> Option<Wide> {
    match value {
        Value::Int(v) | Value::Duration(v) => Some(Wide::int(i128::from(*v))),
        Value::Decimal(v, _) => Some(Wide::int(*v)),
        Value::Float(v) => Wide::float(*v),
        _ => None,
    }
}

/// A row at an instant.
struct View<'a> {
    folded: std::borrow::Cow<'a, [Folded]>,
    span: (i64, i64),
    events: u64,
}

impl Row {
    fn new(plan: &EntityPlan) -> Self {
        Self {
            folded: plan.zero(),
            history: OrdMap::new(),
            live: OrdMap::new(),
            base: None,
            events: 0,
            span: (i64::MAX, i64::MIN),
        }
    }

    /// Applies what a tick says about the row.
    fn apply(&mut self, plan: &EntityPlan, touches: Vec<(Moment, i64)>) {
        let mut again = std::collections::BTreeSet::new();
        for (moment, weight) in touches {
            match (plan.feeds[moment.feed as usize].changelog, weight) {
                (false, _) => self.add(plan, moment),
                (true, 1) => {
                    plan.fold(&mut self.folded, &moment);
                    self.events += 1;
                    weigh(&mut self.live, moment, 1);
                }
                // What came when there were too many rows was not folded.
                (true, _) if self.live.contains_key(&moment) => {
                    self.take_back(&moment, &mut again);
                    self.events -= 1;
                    weigh(&mut self.live, moment, -1);
                }
                (true, _) => {}
            }
        }
        for field in again {
            self.fold_again(plan, field);
        }
        self.measure();
    }

    fn add(&mut self, plan: &EntityPlan, moment: Moment) {
        plan.fold(&mut self.folded, &moment);
        self.events += 1;
        *self.history.entry(moment).or_insert(0) += 1;
        while self.history.len() > plan.entity.history.max(1) {
            self.compact(plan);
        }
    }

    /// Takes a row of a change stream out of the fields; those that must be folded again go to `again`.
    fn take_back(&mut self, moment: &Moment, again: &mut std::collections::BTreeSet<usize>) {
        for (field, (state, value)) in self.folded.iter_mut().zip(moment.values.iter()).enumerate() {
            if let Some(value) = value.as_ref().filter(|value| !value.is_null())
                && !state.take_back(moment, value)
            {
                again.insert(field);
            }
        }
    }

    /// Folds one field again, from everything that is known.
    fn fold_again(&mut self, plan: &EntityPlan, field: usize) {
        let fold = plan.entity.fields[field].fold;
        let mut state = match &self.base {
            Some(base) => base.folded[field].clone(),
            None => Folded::zero(fold),
        };
        let plain = self.history.iter().map(|(moment, count)| (moment, i64::from(*count)));
        for (moment, count) in plain.chain(self.live.iter().map(|(moment, count)| (moment, *count))) {
            if let Some(value) = moment.values[field].as_ref().filter(|value| !value.is_null()) {
                (0..count).for_each(|_| state.add(fold, moment, value));
            }
        }
        self.folded[field] = state;
    }

    /// Finds the first and the last instant behind the row.
    fn measure(&mut self) {
        let span = self.base.as_ref().map_or((i64::MAX, i64::MIN), |base| base.span);
        let firsts = [self.history.get_min().map(|(m, _)| m.time), self.live.get_min().map(|(m, _)| m.time)];
        let lasts = [self.history.get_max().map(|(m, _)| m.time), self.live.get_max().map(|(m, _)| m.time)];
        self.span.0 = firsts.into_iter().flatten().fold(span.0, i64::min);
        self.span.1 = lasts.into_iter().flatten().fold(span.1, i64::max);
    }

    /// Moves the oldest remembered event into the base.
    fn compact(&mut self, plan: &EntityPlan) {
        let Some((moment, count)) = self.history.get_min().cloned() else { return };
        self.history.remove(&moment);
        let base = self.base.get_or_insert_with(|| {
            Arc::new(Base { folded: plan.zero(), events: 0, span: (i64::MAX, i64::MIN) })
        });
        let base = Arc::make_mut(base);
        for _ in 0..count {
            plan.fold(&mut base.folded, &moment);
        }
        base.events += u64::from(count);
        base.span = (base.span.0.min(moment.time), base.span.1.max(moment.time));
    }

    fn now(&self) -> View<'_> {
        View { folded: self.folded.as_slice().into(), span: self.span, events: self.events }
    }

    /// The row of the events before `as_of`; `None` when there are none.
    fn at(&self, plan: &EntityPlan, as_of: i64) -> Result<Option<View<'_>>, TooOld> {
        if self.span.1 < as_of {
            return Ok(Some(self.now()));
        }
        let (mut folded, mut events, mut span) = match &self.base {
            None => (plan.zero(), 0, (i64::MAX, i64::MIN)),
            Some(base) if base.span.1 < as_of => (base.folded.clone(), base.events, base.span),
            Some(base) if base.span.0 >= as_of => return Ok(None),
            Some(base) => return Err(TooOld { exact_after: base.span.1 }),
        };
        let plain = self.history.iter().map(|(moment, count)| (moment, u64::from(*count)));
        let plain = plain.take_while(|(moment, _)| moment.time < as_of);
        let live = self.live.iter().map(|(moment, count)| (moment, u64::try_from(*count).unwrap_or(0)));
        for (moment, count) in plain.chain(live.take_while(|(moment, _)| moment.time < as_of)) {
            (0..count).for_each(|_| plan.fold(&mut folded, moment));
            events += count;
            span = (span.0.min(moment.time), span.1.max(moment.time));
        }
        Ok((events > 0).then_some(View { folded: folded.into(), span, events }))
    }
}

/// A row as readers see it.
#[derive(Debug, Clone)]
pub struct ReadRow {
    /// Cells in order of the entity's schema.
    pub cells: Vec<Value>,
    /// Latest event time behind it.
    pub last_time: i64,
    /// Number of events behind it.
    pub events: u64,
}

/// The rows of one entity on one worker at one tick, for readers.
#[derive(Debug, Clone)]
pub struct EntityShard {
    plan: Arc<EntityPlan>,
    rows: HashMap<Arc<str>, Arc<Row>>,
}

impl EntityShard {
    /// One row; `as_of: None` is now.
    pub fn row(&self, key: &str, as_of: Option<i64>) -> Result<Option<ReadRow>, TooOld> {
        let Some(row) = self.rows.get(key) else { return Ok(None) };
        let view = match as_of {
            None => Some(row.now()),
            Some(as_of) => row.at(&self.plan, as_of)?,
        };
        Ok(view.map(|view| ReadRow {
            cells: self.plan.cells(key, &view),
            last_time: view.span.1,
            events: view.events,
        }))
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows as of an instant, each with weight +1.
    pub fn rows_at(&self, as_of: i64) -> Result<Changes, TooOld> {
        let (mut cells, mut keys) = (Vec::with_capacity(self.rows.len()), Vec::new());
        for (key, row) in &self.rows {
            if let Some(view) = row.at(&self.plan, as_of)? {
                cells.push(self.plan.cells(key, &view));
                keys.push(Arc::clone(key));
            }
        }
        let weights = vec![1; cells.len()];
        Ok(Changes { batch: self.plan.batch(&cells), weights, keys: StringArray::from_iter_values(keys) })
    }
}

impl EntityPlan {
    fn batch(&self, rows: &[Vec<Value>]) -> RecordBatch {
        let schema = &self.entity.schema;
        let column = |(index, field): (usize, &Arc<arrow::datatypes::Field>)| {
            let values: Vec<Value> = rows.iter().map(|row| row[index].clone()).collect();
            to_arrow(&values, field.data_type()).expect("fields have the types of their folds")
        };
        let columns = schema.fields().iter().enumerate().map(column).collect();
        RecordBatch::try_new(schema.clone(), columns).expect("one column per field")
    }
}

impl EntityState {
    /// No rows yet.
    pub fn new(plan: Arc<EntityPlan>, max_keys: usize) -> Self {
        Self { plan, rows: HashMap::new(), max_keys, lost: 0, changed: Changed::default() }
    }

    /// What readers see.
    pub fn shard(&self) -> EntityShard {
        EntityShard { plan: Arc::clone(&self.plan), rows: self.rows.clone() }
    }

    /// Applies the effects of a tick; the result holds each changed row as it was and as it is.
    pub fn apply(&mut self, touches: Vec<Touch>) -> Option<Changes> {
        let mut by_key: BTreeMap<Arc<str>, Vec<(Moment, i64)>> = BTreeMap::new();
        for touch in touches {
            by_key.entry(touch.key).or_default().push((touch.moment, touch.weight));
        }
        let (mut cells, mut weights, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for (key, moments) in by_key {
            let known = self.rows.get(&key).map(|row| self.plan.cells(&key, &row.now()));
            if known.is_none() && self.rows.len() >= self.max_keys {
                self.lost += moments.len() as u64;
                continue;
            }
            self.changed.add(&key, self.rows.len());
            let plan = Arc::clone(&self.plan);
            let row = self.rows.entry(key.clone()).or_insert_with(|| Arc::new(Row::new(&plan)));
            let row = Arc::make_mut(row);
            row.apply(&plan, moments);
            // Nothing is left behind it: the row is gone.
            let after = (row.events > 0).then(|| plan.cells(&key, &row.now()));
            if after.is_none() {
                self.rows.remove(&key);
            }
            if known != after {
                for (row, weight) in [(known, -1), (after, 1)] {
                    let Some(row) = row else { continue };
                    weights.push(weight);
                    keys.push(Arc::clone(&key));
                    cells.push(row);
                }
            }
        }
        (!cells.is_empty()).then(|| Changes {
            batch: self.plan.batch(&cells),
            weights,
            keys: StringArray::from_iter_values(keys),
        })
    }
}

impl Changes {
    /// The rows as a metric's feed sees them.
    pub fn rows(&self) -> Rows<'_> {
        Rows { batch: &self.batch, received: None, ids: Some(&self.keys), weights: Some(&self.weights) }
    }
}
