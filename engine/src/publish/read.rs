//! Reading a published tick.
//!
//! *In*: a [`Published`] and a question. *Out*: an answer about that tick and no other. *Never*: a lock, a wait,
//! a look at a newer tick.

use std::collections::BTreeMap;

use contracts::catalog::{Input, Metric, Overflow};
use contracts::value::{Value, format_timestamp};
use operators::entity::TooOld;
use operators::fold::panes::route_hash;
use operators::fold::plan::MetricPlan;
use operators::fold::window::Bounds;
use operators::state::shard_of;

use super::cells::{At, Cells, Gathered, Group, Made, entity_cells};
use super::measures::{Find, Measures};
use super::{Answer, EntityRow, MetricQuery, Newest, Published, QueryError, Row};

/// Points of a series at most.
const SERIES_POINTS: i64 = 10_000;

impl Published {
    /// Answers `query` about metric `metric` (index into the catalog).
    pub fn metric(&self, metric: usize, query: &MetricQuery) -> Result<Answer, QueryError> {
        let plan = self.plan.metrics[metric].as_ref();
        let names = Names::resolve(&plan.metric, query)?;
        let at = self.instant(plan, names.window, query.as_of)?;
        let made = self.made(plan, at)?;
        let filter = query.filter.as_deref();
        let cells = Cells::new(self, metric, at, made.as_ref(), filter)?;
        let as_of = match at {
            At::Now => self.as_of,
            At::Then(then) => then,
        };
        let gathered = cells.gather(names.window, &names.by);
        let bounds = gathered.bounds.filter(|bounds| bounds.start != i64::MIN);
        let rows = self.rows(metric, &names, as_of, gathered, filter);
        let all = self.rows_of_all(metric, &names, as_of, &cells, filter);
        Ok(Answer {
            window: plan.metric.windows[names.window].name.clone(),
            start: bounds.map(|bounds| bounds.start),
            end: bounds.map(|bounds| bounds.end),
            as_of,
            complete: bounds.is_some_and(|bounds| self.is_complete(&plan.metric, bounds)),
            value: all.value,
            level: all.level,
            dimensions: query.by.clone(),
            measures: names.measure_names(&plan.metric),
            rows,
        })
    }

    /// One answer per instant `from + step, from + 2 * step, ... <= to` as `as_of` (at most 10,000).
    pub fn series(
        &self,
        metric: usize,
        query: &MetricQuery,
        from: i64,
        to: i64,
        step: i64,
    ) -> Result<Vec<Answer>, QueryError> {
        if step <= 0 {
            return Err(QueryError::Series("`step` must be more than 0".to_owned()));
        }
        let points = to.saturating_sub(from) / step;
        if points > SERIES_POINTS {
            return Err(QueryError::Series(format!(
                "{points} points asked for, at most {SERIES_POINTS} are given; use a larger `step`"
            )));
        }
        let at = |point: i64| MetricQuery { as_of: Some(from + point * step), ..query.clone() };
        (1..=points).map(|point| self.metric(metric, &at(point))).collect()
    }

    /// Grows when anything `metric` could answer changed: what SSE watches.
    pub fn metric_revision(&self, metric: usize) -> u64 {
        self.shards.iter().map(|shards| shards.metrics[metric].revision).sum()
    }

    /// The row of an entity, now or as of an instant. `None`: no such key (then).
    pub fn entity(
        &self,
        entity: usize,
        key: &str,
        as_of: Option<i64>,
    ) -> Result<Option<EntityRow>, QueryError> {
        if self.shards.is_empty() {
            return Ok(None);
        }
        if let Some(as_of) = as_of.filter(|as_of| *as_of > self.as_of) {
            return Err(out_of_range(as_of, i64::MIN, self.as_of));
        }
        let home = usize::from(shard_of(route_hash(&key))) % self.shards.len();
        let shard = &self.shards[home].entities[entity];
        let row = shard.row(key, as_of).map_err(|TooOld { exact_after }| {
            out_of_range(as_of.unwrap_or(self.as_of), exact_after, self.as_of)
        })?;
        let fields = self.catalog.entities[entity].schema.fields();
        Ok(row.map(|row| EntityRow {
            fields: fields.iter().map(|f| f.name().clone()).zip(row.cells).collect(),
            last_time: row.last_time,
            events: row.events,
        }))
    }

    /// Rows of an entity that exist.
    pub fn entity_rows(&self, entity: usize) -> usize {
        self.shards.iter().map(|shards| shards.entities[entity].len()).sum()
    }

    /// Rows that an admitted event brought but that a metric does not count: reason to count. `waiting`,
    /// `unmatched`, `cold_start`, `missing`, `held` and `failed` may sink again: a late partner or row of a table comes. So may
    /// `dimension_overflow`: it is about the retained history, and a late event can make room for its value.
    pub fn lost(&self, metric: usize) -> BTreeMap<&'static str, u64> {
        let mut lost: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut relations_lost: BTreeMap<&'static str, i64> = BTreeMap::new();
        for shards in &self.shards {
            for (reason, count) in shards.metrics[metric].lost.iter() {
                *lost.entry(*reason).or_default() += count;
            }
            let relations = self.plan.relations.iter().zip(&shards.alone);
            for (_, alone) in relations.filter(|(relation, _)| relation.metric == metric) {
                for (reason, count) in alone {
                    *relations_lost.entry(*reason).or_default() += count;
                }
            }
        }
        for (reason, count) in relations_lost {
            // Of one worker a number may be negative: another one has told the row that is taken back here.
            if let Ok(count @ 1..) = u64::try_from(count) {
                *lost.entry(reason).or_default() += count;
            }
        }
        match self.overflowing(metric) {
            0 => {}
            rows => {
                lost.insert("dimension_overflow", rows);
            }
        }
        lost
    }

    /// Rows that a dimension with `overflow: refuse` has no room for. Which these are is decided by reading; once
    /// per tick, and only if somebody asks.
    fn overflowing(&self, metric: usize) -> u64 {
        let dimensions = &self.plan.metrics[metric].metric.dimensions;
        if dimensions.iter().all(|dimension| dimension.overflow != Overflow::Refuse) {
            return 0;
        }
        let count = || Cells::new(self, metric, At::Now, None, None).map_or(0, |cells| cells.refused_rows());
        *self.overflowing[metric].get_or_init(count)
    }

    /// Groups a metric holds, over all workers.
    pub fn keys(&self, metric: usize) -> usize {
        self.shards.iter().map(|shards| shards.metrics[metric].cells.len()).sum()
    }

    /// Newest event that has moved `metric` (or an entity it is over).
    pub fn newest(&self, metric: usize) -> Option<Newest> {
        let newest = self.shards.iter().filter_map(|shards| shards.metrics[metric].newest).max();
        newest.map(|(time, received)| Newest { time, received })
    }

    /// Whether every partition has been read to its end as last known.
    pub fn caught_up(&self) -> bool {
        self.offsets.values().all(|progress| progress.end.is_none_or(|end| progress.next >= end))
    }

    pub(super) fn is_complete(&self, metric: &Metric, bounds: Bounds) -> bool {
        bounds.end.saturating_add(metric.lateness) <= self.as_of && self.caught_up()
    }

    /// The instant an answer can be given for: a pane boundary at or before the asked one.
    fn instant(&self, plan: &MetricPlan, window: usize, asked: Option<i64>) -> Result<At, QueryError> {
        let Some(asked) = asked.filter(|asked| *asked != self.as_of) else { return Ok(At::Now) };
        if asked > self.as_of {
            return Err(out_of_range(asked, self.earliest(plan, window), self.as_of));
        }
        if over_entity(plan) {
            return Ok(At::Then(asked));
        }
        let then = plan.pane(asked) * plan.step;
        let oldest = self.oldest(plan);
        let start = plan.extents[window].at(then).map_or(then, |bounds| bounds.start);
        if oldest != i64::MIN && start != i64::MIN && start < oldest {
            return Err(out_of_range(asked, self.earliest(plan, window), self.as_of));
        }
        Ok(At::Then(then))
    }

    /// First instant that is still kept in panes.
    fn oldest(&self, plan: &MetricPlan) -> i64 {
        match self.shards.is_empty() {
            true => i64::MIN,
            false => plan.oldest_pane(self.as_of).saturating_mul(plan.step),
        }
    }

    fn earliest(&self, plan: &MetricPlan, window: usize) -> i64 {
        let length = match plan.extents[window].at(self.as_of) {
            Some(bounds) if bounds.start != i64::MIN => bounds.end - bounds.start,
            _ => 0,
        };
        self.oldest(plan).saturating_add(length)
    }

    fn made(&self, plan: &MetricPlan, at: At) -> Result<Option<Made>, QueryError> {
        let At::Then(then) = at else { return Ok(None) };
        entity_cells(self, plan, then)
            .map_err(|TooOld { exact_after }| out_of_range(then, exact_after, self.as_of))
    }

    fn rows(
        &self,
        metric: usize,
        names: &Names,
        as_of: i64,
        mut gathered: Gathered,
        filter: Option<&str>,
    ) -> Vec<Row> {
        if names.by.is_empty() {
            let plan = self.plan.metrics[metric].as_ref();
            let nothing = || Group::nothing(plan);
            gathered.groups.entry(Vec::new()).or_insert_with(nothing);
        }
        self.with_measures(metric, names, as_of, gathered, filter, &names.by, |measures| {
            let columns: Vec<_> = names.measures.iter().map(|measure| measures.values(*measure, 0)).collect();
            let row = |(index, key): (usize, &Vec<Value>)| Row {
                key: key.clone(),
                values: columns.iter().map(|column| column[index].clone()).collect(),
                session: measures.session(key),
            };
            measures.keys.iter().enumerate().map(row).collect()
        })
    }

    /// `value` and `level`: over all rows, whatever `by` says.
    fn rows_of_all(
        &self,
        metric: usize,
        names: &Names,
        as_of: i64,
        cells: &Cells<'_>,
        filter: Option<&str>,
    ) -> All {
        let plan = self.plan.metrics[metric].as_ref();
        let mut gathered = cells.gather(names.window, &[]);
        let nothing = || Group::nothing(plan);
        gathered.groups.entry(Vec::new()).or_insert_with(nothing);
        let first = plan.metric.measures.iter().position(|measure| !measure.hidden);
        self.with_measures(metric, names, as_of, gathered, filter, &[], |measures| All {
            value: first.map_or(Value::Null, |first| measures.values(first, 0)[0].clone()),
            level: measures.level(),
        })
    }

    #[allow(clippy::too_many_arguments)] // one call site per shape of answer; a struct would only rename them
    fn with_measures<T>(
        &self,
        metric: usize,
        names: &Names,
        as_of: i64,
        gathered: Gathered,
        filter: Option<&str>,
        by: &[usize],
        with: impl FnOnce(&mut Measures<'_>) -> T,
    ) -> T {
        let plan = self.plan.metrics[metric].as_ref();
        let found = Question { published: self, metric, filter, by };
        let answers = &self.plan.answers[metric];
        with(&mut Measures::new(plan, answers, &found, (names.window, as_of), gathered))
    }
}

/// Finds the sums of other windows and instants for the same groups.
struct Question<'a> {
    published: &'a Published,
    metric: usize,
    filter: Option<&'a str>,
    by: &'a [usize],
}

impl Find for Question<'_> {
    fn find(&self, window: usize, as_of: i64) -> Option<(i64, Gathered)> {
        let (published, plan) = (self.published, self.published.plan.metrics[self.metric].as_ref());
        let at = published.instant(plan, window, Some(as_of)).ok()?;
        let made = published.made(plan, at).ok()?;
        let cells = Cells::new(published, self.metric, at, made.as_ref(), self.filter).ok()?;
        let then = if let At::Then(then) = at { then } else { published.as_of };
        Some((then, cells.gather(window, self.by)))
    }

    fn firsts(&self) -> BTreeMap<Vec<Value>, i64> {
        let cells = Cells::new(self.published, self.metric, At::Now, None, self.filter);
        cells.map_or_else(|_| BTreeMap::new(), |cells| cells.firsts(self.by))
    }
}

struct All {
    value: Value,
    level: Option<String>,
}

fn over_entity(plan: &MetricPlan) -> bool {
    plan.feeds.iter().any(|feed| matches!(feed.input, Input::Entity(_)))
}

fn out_of_range(found: i64, from: i64, to: i64) -> QueryError {
    let text = |micros: i64| if micros == i64::MIN { "-".to_owned() } else { format_timestamp(micros) };
    QueryError::AsOf { found: text(found), from: text(from), to: text(to) }
}

/// Names of a query as indexes.
struct Names {
    window: usize,
    by: Vec<usize>,
    measures: Vec<usize>,
}

impl Names {
    fn resolve(metric: &Metric, query: &MetricQuery) -> Result<Self, QueryError> {
        let windows: Vec<&str> = metric.windows.iter().map(|w| w.name.as_str()).collect();
        let dimensions: Vec<&str> = metric.dimensions.iter().map(|d| d.name.as_str()).collect();
        let all: Vec<&str> = metric.measures.iter().map(|m| m.name.as_str()).collect();
        let window = match &query.window {
            Some(name) => find("window", name, &windows)?,
            None => 0,
        };
        let by = query.by.iter().map(|name| find("dimension", name, &dimensions));
        let measures = match &query.measures {
            Some(names) => names.iter().map(|name| find("measure", name, &all)).collect::<Result<_, _>>()?,
            None => (0..all.len()).filter(|index| !metric.measures[*index].hidden).collect(),
        };
        Ok(Self { window, by: by.collect::<Result<_, _>>()?, measures })
    }

    fn measure_names(&self, metric: &Metric) -> Vec<String> {
        self.measures.iter().map(|index| metric.measures[*index].name.clone()).collect()
    }
}

fn find(what: &'static str, name: &str, allowed: &[&str]) -> Result<usize, QueryError> {
    allowed.iter().position(|known| *known == name).ok_or_else(|| QueryError::Unknown {
        what,
        found: name.to_owned(),
        allowed: allowed.iter().map(|name| (*name).to_owned()).collect(),
    })
}
