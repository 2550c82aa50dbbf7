//! From the shards of a tick to one sum per group.
//!
//! *In*: a metric, a window, an instant, the dimensions to group by. *Out*: the accumulators of each group.
//! *Never*: a group whose rows depend on which worker held them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ahash::HashMap;
use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{Field, Schema};
use contracts::catalog::{Input, Overflow};
use contracts::expr::{Scope, compile_bool};
use contracts::value::{Value, ValueType, to_arrow};
use operators::entity::TooOld;
use operators::eval::Compiled;
use operators::fold::edges::Lasting;
use operators::fold::group::{Lost, group};
use operators::fold::panes::{Cell, Key, Pane};
use operators::fold::plan::MetricPlan;
use operators::fold::window::{Bounds, Extent};

use super::blocks::Blocks;
use super::{Published, QueryError};

/// The instant of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum At {
    /// The tick's own instant: running totals serve.
    Now,
    /// An earlier instant, on a pane boundary.
    Then(i64),
}

/// The rows of an answer before measures are computed.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// The window; `None` for sessions.
    pub(super) bounds: Option<Bounds>,
    /// Per group: its sum and, for sessions, the session's extent.
    pub(super) groups: BTreeMap<Vec<Value>, Group>,
}

#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) sum: Pane,
    pub(super) session: Option<(i64, i64)>,
    /// Rows that last, where a fold is about them.
    pub(super) lasting: Lasting,
}

impl Group {
    /// No rows.
    pub(super) fn nothing(plan: &MetricPlan) -> Self {
        Self { sum: Pane::zero(&plan.specs), session: None, lasting: Lasting::default() }
    }
}

/// One metric of a tick, at one instant, with the keys that pass a filter.
pub(super) struct Cells<'a> {
    plan: &'a MetricPlan,
    as_of: i64,
    at: At,
    cells: Vec<(&'a Key, &'a Cell)>,
    /// Under a filter: the names among all cells, which those that are left cannot tell.
    kept: Option<Vec<Kept>>,
    total: Vec<&'a Cell>,
    filtered: bool,
    /// Sums that many windows share.
    blocks: Option<&'a Blocks>,
}

/// Cells made for one question (entity metrics in the past).
pub(super) type Made = HashMap<Key, Cell>;

/// The values of a dimension that keep their name; `None`: all do.
pub(super) type Kept = Option<HashSet<Value>>;

/// What names a value beyond a dimension's `max`.
const OTHER: &str = "other";

impl<'a> Cells<'a> {
    /// The cells of a metric; `made` stands in for the shards where given.
    pub(super) fn new(
        published: &'a Published,
        metric: usize,
        at: At,
        made: Option<&'a Made>,
        filter: Option<&str>,
    ) -> Result<Self, QueryError> {
        let plan = published.plan.metrics[metric].as_ref();
        let shards = || published.shards.iter().map(|shards| &shards.metrics[metric]);
        let mut cells: Vec<(&Key, &Cell)> = match made {
            Some(made) => made.iter().collect(),
            None => shards()
                .flat_map(|shard| shard.cells.iter().map(|(key, cell)| (key, cell.as_ref())))
                .collect(),
        };
        let total = match made {
            Some(_) => Vec::new(),
            None => shards().filter_map(|shard| shard.total.as_deref()).collect(),
        };
        let mut kept = None;
        if let Some(sql) = filter {
            let all = kept.insert(kept_values(plan, &cells, |_| true));
            let passing = passing(plan, &cells, all, sql)?;
            cells.retain(|(key, _)| passing.contains(*key));
        }
        let as_of = match at {
            At::Now => published.as_of,
            At::Then(then) => then,
        };
        let filtered = filter.is_some() || made.is_some();
        Ok(Self { plan, as_of, at, cells, kept, total, filtered, blocks: None })
    }

    /// One group alone, under the name it has: what is known of its rows before `then`, on a pane boundary.
    pub(super) fn alone(
        plan: &'a MetricPlan,
        group: (&'a Key, &'a Cell),
        then: i64,
        blocks: &'a Blocks,
    ) -> Self {
        let kept = Some(vec![None; plan.metric.dimensions.len()]);
        let (cells, total, blocks) = (vec![group], Vec::new(), Some(blocks));
        Self { plan, as_of: then, at: At::Then(then), cells, kept, total, filtered: true, blocks }
    }

    /// Rows of the retained history that do not count because a dimension has no room for their value
    /// (`overflow: refuse`).
    pub(super) fn refused_rows(&self) -> u64 {
        let names = Names::new(self, &[]);
        let rows = |cell: &Cell| -> i64 {
            let panes = cell.panes.values().chain(&cell.base);
            panes.map(|pane| pane.rows).sum()
        };
        let beyond = self.cells.iter().filter(|(key, _)| names.of(key).is_none());
        u64::try_from(beyond.map(|(_, cell)| rows(cell)).sum::<i64>()).unwrap_or(0)
    }

    /// The first instant of each group in the retained history.
    pub(super) fn firsts(&self, by: &[usize]) -> BTreeMap<Vec<Value>, i64> {
        let names = Names::new(self, by);
        let mut firsts: BTreeMap<Vec<Value>, i64> = BTreeMap::new();
        for (key, cell) in &self.cells {
            if let (Some(name), Some(first)) = (names.of(key), first_time(cell, self.plan.step)) {
                let known = firsts.entry(name).or_insert(first);
                *known = first.min(*known);
            }
        }
        firsts
    }

    /// The sums of window `window`, grouped by the dimensions numbered `by`.
    pub(super) fn gather(&self, window: usize, by: &[usize]) -> Gathered {
        let extent = &self.plan.extents[window];
        if let Extent::Session(gap) = extent {
            return self.gather_sessions(*gap, by);
        }
        let mut gathered = Gathered { bounds: extent.at(self.as_of), ..Gathered::default() };
        let Some(bounds) = gathered.bounds else { return gathered };
        if by.is_empty() && !self.filtered && self.plan.keeps_total {
            for cell in &self.total {
                self.add(&mut gathered, Vec::new(), cell, window, bounds);
            }
            return gathered;
        }
        let names = Names::new(self, by);
        for (key, cell) in &self.cells {
            if let Some(name) = names.of(key) {
                self.add(&mut gathered, name, cell, window, bounds);
            }
        }
        let (start, end) = bounds.extent(self.as_of);
        let aggs = || self.plan.specs.iter().map(|spec| spec.agg.clone());
        let counts = |group: &Group| group.sum.rows != 0 || !group.lasting.is_nothing(aggs(), start, end);
        gathered.groups.retain(|_, group| counts(group));
        gathered
    }

    fn add(&self, to: &mut Gathered, name: Vec<Value>, cell: &Cell, window: usize, bounds: Bounds) {
        let specs = &self.plan.specs;
        let made;
        let sum = match self.at {
            At::Now if !cell.totals.is_empty() => cell.totals[window].as_deref(),
            _ => {
                let (from, to) = (self.first_pane(bounds), self.end_pane(bounds));
                made = match self.blocks {
                    Some(blocks) => blocks.sum(specs, cell, from, to),
                    None => cell.sum(specs, from, to),
                };
                made.as_ref()
            }
        };
        if sum.is_none() && cell.edges.is_empty() {
            return;
        }
        let group = to.groups.entry(name).or_insert_with(|| Group::nothing(self.plan));
        if let Some(sum) = sum {
            group.sum.merge(specs, sum);
        }
        if !cell.edges.is_empty() {
            // What lies after now waits in the worker.
            let end = if self.at == At::Now { i64::MAX } else { self.end_pane(bounds) };
            let start = (bounds.start != i64::MIN).then(|| self.first_pane(bounds));
            if let Some(blocks) = self.blocks {
                group.lasting.end = blocks.edges(cell, end);
                group.lasting.start = start.map(|start| blocks.edges(cell, start)).unwrap_or_default();
                return;
            }
            cell.edges.sum(end, &mut group.lasting.end);
            if let Some(start) = start {
                cell.edges.sum(start, &mut group.lasting.start);
            }
        }
    }

    fn first_pane(&self, bounds: Bounds) -> i64 {
        if bounds.start == i64::MIN { i64::MIN } else { self.plan.pane(bounds.start) }
    }

    fn end_pane(&self, bounds: Bounds) -> i64 {
        match self.at {
            At::Now if bounds.end == i64::MAX => i64::MAX,
            At::Now => self.plan.pane(bounds.end),
            // `made` cells hold no later rows, so an instant within a pane takes the pane.
            At::Then(then) => {
                let last = self.plan.pane(then - 1) + 1;
                if bounds.end == i64::MAX { last } else { last.min(self.plan.pane(bounds.end)) }
            }
        }
    }

    fn gather_sessions(&self, gap: i64, by: &[usize]) -> Gathered {
        let specs = &self.plan.specs;
        let end = match self.at {
            At::Now => i64::MAX,
            At::Then(then) => self.plan.pane(then - 1) + 1,
        };
        let names = Names::new(self, by);
        let mut panes: BTreeMap<Vec<Value>, BTreeMap<i64, Pane>> = BTreeMap::new();
        for (key, cell) in &self.cells {
            let Some(name) = names.of(key) else { continue };
            let group = panes.entry(name).or_default();
            for (number, pane) in cell.panes.range(..end) {
                match group.get_mut(&number) {
                    Some(sum) => sum.merge(specs, pane),
                    None => {
                        group.insert(number, Pane::clone(pane));
                    }
                }
            }
        }
        let last = |panes: BTreeMap<i64, Pane>| {
            let mut newest_first = panes.into_values().rev();
            let mut sum = newest_first.next()?;
            let end = sum.last.saturating_add(gap);
            for pane in newest_first.take_while(|pane| pane.rows != 0) {
                if sum.first - pane.last >= gap {
                    break;
                }
                sum.merge(specs, &pane);
            }
            let session = Some((sum.first, end));
            Some(Group { sum, session, lasting: Lasting::default() })
        };
        let groups = panes.into_iter().filter_map(|(name, panes)| Some((name, last(panes)?)));
        Gathered { bounds: None, groups: groups.collect() }
    }
}

/// What each dimension value is called in an answer.
struct Names<'a> {
    by: &'a [usize],
    kept: Cow<'a, [Kept]>,
    overflow: Vec<Overflow>,
}

impl<'a> Names<'a> {
    fn new(cells: &'a Cells<'_>, by: &'a [usize]) -> Self {
        let dimensions = &cells.plan.metric.dimensions;
        let matters = |index| by.contains(&index) || dimensions[index].overflow == Overflow::Refuse;
        let kept = match &cells.kept {
            Some(kept) => Cow::Borrowed(kept.as_slice()),
            None => Cow::Owned(kept_values(cells.plan, &cells.cells, matters)),
        };
        let overflow = dimensions.iter().map(|dimension| dimension.overflow).collect();
        Self { by, kept, overflow }
    }

    /// The group of a key; `None` when the key does not count.
    fn of(&self, key: &Key) -> Option<Vec<Value>> {
        let beyond =
            |index: usize| self.kept[index].as_ref().is_some_and(|kept| !kept.contains(&key.values[index]));
        let refused =
            (0..self.kept.len()).any(|index| self.overflow[index] == Overflow::Refuse && beyond(index));
        if refused {
            return None;
        }
        let name = |index: &usize| match beyond(*index) {
            true => Value::Text(Arc::from(OTHER)),
            false => key.values[*index].clone(),
        };
        Some(self.by.iter().map(name).collect())
    }
}

/// Which values keep their name, of all dimensions.
pub(super) fn kept_of(published: &Published, metric: usize) -> Vec<Kept> {
    let plan = published.plan.metrics[metric].as_ref();
    let shards = published.shards.iter().map(|shards| &shards.metrics[metric].cells);
    let cells: Vec<(&Key, &Cell)> = shards.flatten().map(|(key, cell)| (key, cell.as_ref())).collect();
    kept_values(plan, &cells, |_| true)
}

/// What the group of `key` is called; `None`: it does not count.
pub(super) fn name_of(plan: &MetricPlan, kept: &[Kept], key: &Key) -> Option<Vec<Value>> {
    let by: Vec<usize> = (0..kept.len()).collect();
    let overflow = plan.metric.dimensions.iter().map(|dimension| dimension.overflow).collect();
    Names { by: &by, kept: Cow::Borrowed(kept), overflow }.of(key)
}

/// Per dimension that matters: the `max` values with the earliest event time (ties: lesser value).
fn kept_values(plan: &MetricPlan, cells: &[(&Key, &Cell)], matters: impl Fn(usize) -> bool) -> Vec<Kept> {
    let dimensions = plan.metric.dimensions.iter().enumerate();
    dimensions
        .map(|(index, dimension)| if matters(index) { earliest(cells, index, dimension.max) } else { None })
        .collect()
}

/// The first instant of a cell's rows, and of what lasts, by its pane.
pub(super) fn first_time(cell: &Cell, step: i64) -> Option<i64> {
    let edge = cell.edges.first().map(|pane| pane.saturating_mul(step));
    first_row(cell).into_iter().chain(edge).min()
}

/// The time of a cell's first row, exactly: of those that are retained, and of those that still last.
fn first_row(cell: &Cell) -> Option<i64> {
    let pane = cell.panes.first().map(|(_, pane)| pane.first);
    let base = cell.base.as_ref().map(|base| base.first);
    pane.into_iter().chain(base).chain(cell.edges.first_row()).min()
}

fn earliest(cells: &[(&Key, &Cell)], dimension: usize, max: usize) -> Kept {
    let mut first: HashMap<&Value, i64> = HashMap::default();
    for (key, cell) in cells {
        let Some(time) = first_row(cell) else { continue };
        let known = first.entry(&key.values[dimension]).or_insert(time);
        *known = (*known).min(time);
    }
    if first.len() <= max {
        return None;
    }
    let mut ranked: Vec<(i64, &Value)> = first.into_iter().map(|(v, time)| (time, v)).collect();
    ranked.sort();
    Some(ranked.into_iter().take(max).map(|(_, value)| value.clone()).collect())
}

/// Keys for which a condition over the dimensions, as the answer shows them, is true. What is summed as
/// `other` has that name in a dimension of text, and none (null) in any other.
fn passing(
    plan: &MetricPlan,
    cells: &[(&Key, &Cell)],
    kept: &[Kept],
    sql: &str,
) -> Result<HashSet<Key>, QueryError> {
    let fail = |message: String| QueryError::Filter(message);
    let dimensions = &plan.metric.dimensions;
    let ty = |ty: &ValueType| ty.arrow().unwrap_or(arrow::datatypes::DataType::Utf8);
    let fields: Vec<Field> = dimensions.iter().map(|d| Field::new(&d.name, ty(&d.ty), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let scope = Scope::new(schema.clone());
    let typed = compile_bool(sql, &scope).map_err(|error| fail(error.to_string()))?;
    let compiled = Compiled::new(&typed).map_err(|error| fail(error.to_string()))?;
    let columns = dimensions.iter().enumerate().map(|(index, dimension)| {
        let beyond = match dimension.ty {
            ValueType::Text => Value::Text(Arc::from(OTHER)),
            _ => Value::Null,
        };
        let shown = |value: &Value| match &kept[index] {
            Some(kept) if !kept.contains(value) => beyond.clone(),
            _ => value.clone(),
        };
        let values: Vec<Value> = cells.iter().map(|(key, _)| shown(&key.values[index])).collect();
        to_arrow(&values, &ty(&dimension.ty)).map_err(|error| fail(error.to_string()))
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(cells.len()));
    let batch = RecordBatch::try_new_with_options(schema, columns, &options)
        .map_err(|error| fail(error.to_string()))?;
    let (pass, _) = compiled.evaluate_bool(&batch);
    let passes = |row: &usize| pass.is_valid(*row) && pass.value(*row);
    Ok((0..cells.len()).filter(passes).map(|row| cells[row].0.clone()).collect())
}

/// Cells of a metric over an entity as of an earlier instant, from the rows as they were then.
pub(super) fn entity_cells(
    published: &Published,
    plan: &MetricPlan,
    then: i64,
) -> Result<Option<Made>, TooOld> {
    let mut made = Made::default();
    let mut over_entity = false;
    for feed in &plan.feeds {
        let Input::Entity(entity) = feed.input else { continue };
        over_entity = true;
        for shards in &published.shards {
            let rows = shards.entities[entity].rows_at(then)?;
            for delta in group(plan, feed, rows.rows(), then, &mut Lost::new()) {
                let beyond = delta.pane < plan.oldest_pane(published.as_of);
                let of_rows = delta.edges.is_none() && !plan.keeps_base || delta.lasting.is_some();
                // Not retained any more, or still to come as of then.
                if beyond && of_rows || delta.at >= then {
                    continue;
                }
                let cell = made.entry(delta.key).or_insert_with(Cell::empty);
                if let Some(rows) = &delta.lasting {
                    cell.edges.remember(delta.pane, rows);
                    continue;
                }
                if let Some(edges) = &delta.edges {
                    cell.edges.add(delta.pane, i64::MIN, edges);
                    continue;
                }
                match beyond {
                    true => cell.add_base(&plan.specs, &delta.change),
                    false => cell.add(&plan.specs, delta.pane, &delta.change),
                }
            }
        }
    }
    Ok(over_entity.then_some(made))
}
