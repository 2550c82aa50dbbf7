//! What a metric says of windows that are over.
//!
//! *In*: a published tick, and an earlier one of the same engine. *Out*: one row per window and group, but for those that
//! cannot have changed since. *Never*: a row that differs from what a reader is told of the window as of its end (of a
//! metric over an entity: with the rows of the entity as they are now).

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::HashMap;
use contracts::value::Value;
use operators::fold::acc::FoldSpec;
use operators::fold::panes::{Cell, Key, Shard};
use operators::fold::window::{Bounds, Extent};

use super::blocks::Blocks;
use super::cells::{Cells, Gathered, kept_of, name_of};
use super::measures::{Find, Measures};
use super::{Published, Shards};
use operators::fold::plan::MetricPlan;

mod ends;

use self::ends::{Ends, Moved};

/// One group in a window that is over.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Name of the window.
    pub window: Arc<str>,
    /// Its first instant, microseconds.
    pub start: i64,
    /// Exclusive end.
    pub end: i64,
    /// No further event is expected to change it.
    pub complete: bool,
    /// Values of all dimensions.
    pub key: Vec<Value>,
    /// Values of all measures that are not hidden; `None`: the group has no rows there.
    pub values: Option<Vec<Value>>,
}

/// A group's cells, now and before, and what differs between them.
#[derive(Default)]
struct Group<'a> {
    now: Vec<&'a Cell>,
    then: Vec<&'a Cell>,
    moved: Vec<Moved>,
}

impl Published {
    /// Tells of the windows of `metric` that are over: their end and the lateness have passed, and all that they are
    /// about is retained. Only of those that may differ from what `before` would tell. `true`: `before` is none or says
    /// nothing about this tick, so all were told: what was not told has no rows.
    pub fn closed(&self, metric: usize, before: Option<&Self>, tell: &mut dyn FnMut(Ended)) -> bool {
        if self.shards.is_empty() {
            return false;
        }
        let kept = kept_of(self, metric);
        let before = before.filter(|before| {
            Arc::ptr_eq(&before.plan, &self.plan)
                && before.shards.len() == self.shards.len()
                // Values of dimensions give way to earlier ones, or take their place.
                && kept_of(before, metric) == kept
        });
        let teller = Teller::new(self, metric, before);
        let overflows = kept.iter().any(Option::is_some);
        let plan = teller.ends.plan;
        let mut groups: HashMap<Vec<Value>, Group<'_>> = HashMap::default();
        for (worker, shards) in self.shards.iter().enumerate() {
            let then = before.map(|before| &before.shards[worker]);
            pairs(
                &shards.metrics[metric],
                then.map(|then: &Shards| &then.metrics[metric]),
                |key, then, now| {
                    let moved = if before.is_some() { teller.ends.moved(then, now) } else { Vec::new() };
                    if !overflows {
                        let group =
                            Group { now: now.into_iter().collect(), then: then.into_iter().collect(), moved };
                        teller.group(key, &group, tell);
                    } else if let Some(name) = name_of(plan, &kept, key) {
                        let group = groups.entry(name).or_default();
                        group.now.extend(now);
                        group.then.extend(then);
                        group.moved.extend(moved);
                    }
                },
            );
        }
        for (name, group) in groups {
            teller.group(&Key::new(name.into_iter()), &group, tell);
        }
        before.is_none()
    }

    /// Whether [`Self::closed`] would tell of this window if there were rows in it.
    pub fn tells(&self, metric: usize, window: &str, start: i64, end: i64) -> bool {
        let plan = self.plan.metrics[metric].as_ref();
        let place = plan.metric.windows.iter().position(|one| one.name == window && one.kind.ends());
        let ends = Ends::new(plan, self.as_of, None);
        place.is_some_and(|window| ends.tells(window, Bounds { start, end }))
    }

    /// Windows of `metric` that begin earlier are not told of any more.
    pub fn kept_from(&self, metric: usize) -> i64 {
        let plan = self.plan.metrics[metric].as_ref();
        plan.oldest_pane(self.as_of).saturating_mul(plan.step)
    }
}

/// The keys of a shard, and those it had before, each with its cells then and now.
fn pairs<'a>(
    now: &'a Shard,
    then: Option<&'a Shard>,
    mut visit: impl FnMut(&'a Key, Option<&'a Cell>, Option<&'a Cell>),
) {
    for (key, cell) in &now.cells {
        let before = then.and_then(|then| then.cells.get(key));
        visit(key, before.map(AsRef::as_ref), Some(cell.as_ref()));
    }
    for (key, cell) in then.iter().flat_map(|then| &then.cells) {
        if !now.cells.contains_key(key) {
            visit(key, Some(cell.as_ref()), None);
        }
    }
}

/// Tells of the groups of one metric, one after the other.
struct Teller<'a> {
    tick: &'a Published,
    metric: usize,
    ends: Ends<'a>,
    names: Vec<Arc<str>>,
    /// All dimensions.
    by: Vec<usize>,
}

impl<'a> Teller<'a> {
    fn new(tick: &'a Published, metric: usize, before: Option<&Published>) -> Self {
        let plan = tick.plan.metrics[metric].as_ref();
        let names = plan.metric.windows.iter().map(|window| Arc::from(window.name.as_str())).collect();
        let ends = Ends::new(plan, tick.as_of, before.map(|before| before.as_of));
        Self { tick, metric, ends, names, by: (0..plan.metric.dimensions.len()).collect() }
    }

    fn group(&self, key: &Key, group: &Group<'_>, tell: &mut dyn FnMut(Ended)) {
        let Ends { plan, .. } = self.ends;
        let (now, then) = (OnceCell::new(), OnceCell::new());
        for (window, extent) in plan.extents.iter().enumerate() {
            let (mut ends, mut gone) = (BTreeMap::new(), BTreeMap::new());
            match extent {
                Extent::All => continue,
                Extent::Session(gap) if self.ends.session_moved(*gap, &group.now, &group.moved) => {
                    let now = whole(&plan.specs, &group.now, &now);
                    let before = whole(&plan.specs, &group.then, &then);
                    let before = (!group.moved.is_empty()).then_some(before);
                    (ends, gone) = self.ends.sessions((window, *gap), now, before);
                }
                Extent::Session(_) => continue,
                _ => {
                    group.now.iter().for_each(|cell| self.ends.present(window, cell, &mut ends));
                    group.moved.iter().for_each(|moved| self.ends.seen(window, *moved, &mut ends));
                }
            }
            for (start, end) in gone {
                tell(self.told(key, window, Bounds { start, end }, None));
            }
            // Windows of a kind overlap where one begins before the one before it has ended.
            let overlap = ends.iter().zip(ends.keys().skip(1)).any(|((_, end), next)| next < end);
            let blocks = Blocks::new(overlap);
            for (start, end) in ends {
                let cell = whole(&plan.specs, &group.now, &now);
                let found = Alone { plan, by: &self.by, group: (key, cell), blocks: &blocks };
                tell(self.ended(&found, window, Bounds { start, end }));
            }
        }
    }

    fn ended(&self, found: &Alone<'_>, window: usize, bounds: Bounds) -> Ended {
        let answers = &self.tick.plan.answers[self.metric];
        let (then, gathered) = found.at(window, bounds.end);
        let values = (!gathered.groups.is_empty()).then(|| {
            let mut measures = Measures::new(found.plan, answers, found, (window, then), gathered);
            self.ends.visible().map(|measure| measures.values(measure, 0)[0].clone()).collect()
        });
        self.told(found.group.0, window, bounds, values)
    }

    fn told(&self, key: &Key, window: usize, bounds: Bounds, values: Option<Vec<Value>>) -> Ended {
        let Bounds { start, end } = bounds;
        let complete = self.tick.is_complete(&self.ends.plan.metric, bounds);
        let (window, key) = (Arc::clone(&self.names[window]), key.values.to_vec());
        Ended { window, start, end, complete, key, values }
    }
}

/// One cell for all of a group's: what a dimension calls `other` is many.
fn whole<'b>(specs: &[FoldSpec], cells: &'b [&Cell], made: &'b OnceCell<Cell>) -> &'b Cell {
    if let [only] = cells {
        return only;
    }
    made.get_or_init(|| {
        let mut all = Cell::empty();
        for cell in cells {
            cell.panes.iter().for_each(|(number, pane)| all.add(specs, number, pane));
            all.add_rest(specs, cell);
        }
        all
    })
}

/// One group under its name.
struct Alone<'a> {
    plan: &'a MetricPlan,
    by: &'a [usize],
    group: (&'a Key, &'a Cell),
    blocks: &'a Blocks,
}

impl Alone<'_> {
    /// The sums of a window as of an instant, on the grid.
    fn at(&self, window: usize, as_of: i64) -> (i64, Gathered) {
        let then = self.plan.pane(as_of).saturating_mul(self.plan.step);
        (then, Cells::alone(self.plan, self.group, then, self.blocks).gather(window, self.by))
    }
}

impl Find for Alone<'_> {
    fn find(&self, window: usize, as_of: i64) -> Option<(i64, Gathered)> {
        Some(self.at(window, as_of))
    }

    fn firsts(&self) -> BTreeMap<Vec<Value>, i64> {
        Cells::alone(self.plan, self.group, 0, self.blocks).firsts(self.by)
    }
}
