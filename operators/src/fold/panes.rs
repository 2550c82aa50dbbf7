//! Panes and wheels: the state of one metric on one worker, and what readers see of it.
//!
//! *In*: [`Delta`]s of a tick and the tick's instant. *Out*: a [`Shard`], shared with readers by
//! reference; a tick copies only what it changes. *Never*: a pane beyond retention, a running total that
//! differs from the sum of its panes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::shared_ptr::DefaultSharedPtr;
use imbl::{GenericHashMap, OrdMap};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::acc::{Acc, FoldSpec, weigh};
use super::edges::{EdgeCell, is_zero, merge};
use super::group::{Delta, Lost};
use super::plan::MetricPlan;
use super::window::Bounds;
use crate::state::Changed;

mod few;
mod keys;
mod stored;

pub use few::Panes;
use keys::ByPane;
pub use keys::{ByShard, Key, route_hash};

/// Cells by key.
pub type Cells = GenericHashMap<Key, Arc<Cell>, ByShard, DefaultSharedPtr>;

/// The accumulators of a pane: two lie in it.
pub type Accs = SmallVec<[Acc; 2]>;

/// What the rows of one pane add up to; also the sum of several panes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pane {
    /// Rows counted.
    pub rows: i64,
    /// Least event time of the rows; `i64::MAX` without rows.
    pub first: i64,
    /// Greatest event time of the rows; `i64::MIN` without rows.
    pub last: i64,
    /// Every event time with its multiplicity, where rows can be taken back.
    pub times: Option<OrdMap<i64, i64>>,
    /// One per fold.
    pub accs: Accs,
}

impl Pane {
    /// A pane of no rows with the zero of each fold.
    pub fn zero(specs: &[FoldSpec]) -> Self {
        let retracts = specs.iter().any(|spec| spec.retracts);
        Self {
            rows: 0,
            first: i64::MAX,
            last: i64::MIN,
            times: retracts.then(OrdMap::new),
            accs: specs.iter().map(FoldSpec::zero).collect(),
        }
    }

    /// Counts a row (not its values).
    pub fn touch(&mut self, time: i64, weight: i64) {
        self.rows += weight;
        match &mut self.times {
            Some(times) => {
                weigh(times, time, weight);
                self.span_from_times();
            }
            None => self.widen(time, time),
        }
    }

    fn widen(&mut self, first: i64, last: i64) {
        self.first = self.first.min(first);
        self.last = self.last.max(last);
    }

    fn span_from_times(&mut self) {
        let Some(times) = &self.times else { return };
        self.first = times.get_min().map_or(i64::MAX, |(time, _)| *time);
        self.last = times.get_max().map_or(i64::MIN, |(time, _)| *time);
    }

    fn add_times(&mut self, other: &Pane, sign: i64) {
        match (&mut self.times, &other.times) {
            (Some(times), Some(more)) => {
                for (time, count) in more {
                    weigh(times, *time, sign * count);
                }
                self.span_from_times();
            }
            _ if sign > 0 => self.widen(other.first, other.last),
            _ => {}
        }
    }

    /// `self += other`.
    pub fn merge(&mut self, specs: &[FoldSpec], other: &Pane) {
        self.rows += other.rows;
        self.add_times(other, 1);
        for ((spec, acc), more) in specs.iter().zip(&mut self.accs).zip(&other.accs) {
            spec.merge(acc, more);
        }
    }

    /// `self -= other`; `false` when it must be rebuilt from its panes.
    fn subtract(&mut self, specs: &[FoldSpec], other: &Pane) -> bool {
        self.rows -= other.rows;
        self.add_times(other, -1);
        let mut exact = true;
        for ((spec, acc), less) in specs.iter().zip(&mut self.accs).zip(&other.accs) {
            exact &= spec.subtract(acc, less);
        }
        exact
    }
}

/// One key's state.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Panes within retention, by number.
    pub panes: Panes,
    /// Sum of the panes that fell out of retention, kept for `all` windows.
    pub base: Option<Arc<Pane>>,
    /// One per window: the running total at the shard's instant. `None` for session windows and where
    /// nothing was counted yet. Empty: not made, the sum of the panes tells.
    pub totals: SmallVec<[Option<Arc<Pane>>; 4]>,
    /// Beginnings and ends of rows that last.
    pub edges: EdgeCell,
}

impl Cell {
    fn new(windows: usize) -> Self {
        let totals = smallvec::smallvec![None; windows];
        Self { panes: Panes::default(), base: None, totals, edges: EdgeCell::default() }
    }

    /// Whether nothing is left of all rows.
    pub fn is_empty(&self) -> bool {
        self.panes.is_empty() && self.base.is_none() && self.edges.is_empty()
    }

    /// A cell without running totals, for sums made on demand.
    pub fn empty() -> Self {
        Self::new(0)
    }

    /// Sum of the panes numbered `from..to`, with what fell out of retention when `from` is unbounded.
    pub fn sum(&self, specs: &[FoldSpec], from: i64, to: i64) -> Option<Pane> {
        let base = self.base.as_ref().filter(|_| from == i64::MIN);
        let panes = self.panes.range(from..to).map(|(_, pane)| pane);
        base.into_iter().chain(panes).fold(None, |sum: Option<Pane>, pane| match sum {
            None => Some(Pane::clone(pane)),
            Some(mut sum) => {
                sum.merge(specs, pane);
                Some(sum)
            }
        })
    }

    /// Adds a change to a pane (not to the running totals).
    pub fn add(&mut self, specs: &[FoldSpec], number: i64, change: &Pane) {
        let left = match self.panes.get_mut(number) {
            Some(pane) => {
                let pane = Arc::make_mut(pane);
                pane.merge(specs, change);
                pane.rows
            }
            None => {
                self.panes.insert(number, Arc::new(change.clone()));
                change.rows
            }
        };
        if left == 0 {
            self.panes.remove(number);
        }
    }

    /// Adds a change that is older than retention.
    pub fn add_base(&mut self, specs: &[FoldSpec], change: &Pane) {
        match &mut self.base {
            Some(base) => Arc::make_mut(base).merge(specs, change),
            empty => *empty = Some(Arc::new(change.clone())),
        }
    }

    /// Adds another cell, all but its panes.
    pub fn add_rest(&mut self, specs: &[FoldSpec], other: &Cell) {
        if let Some(base) = &other.base {
            self.add_base(specs, base);
        }
        let (panes, base) = other.edges.parts();
        for (number, edges) in panes {
            self.edges.add(*number, i64::MIN, edges);
        }
        if let Some(edges) = base {
            self.edges.add(i64::MIN, i64::MAX, edges);
        }
    }

    /// Running totals that are not made are left alone.
    fn add_total(&mut self, specs: &[FoldSpec], window: usize, change: &Pane) {
        match self.totals.get_mut(window) {
            Some(Some(total)) => Arc::make_mut(total).merge(specs, change),
            Some(empty) => *empty = Some(Arc::new(change.clone())),
            None => {}
        }
    }

    /// Takes expired panes out of a running total; rebuilds it from `from..to` where that is not exact.
    fn expire(&mut self, specs: &[FoldSpec], window: usize, gone: &[i64], from: i64, to: i64) {
        let Some(Some(total)) = self.totals.get_mut(window) else { return };
        let total = Arc::make_mut(total);
        let exact =
            gone.iter().filter_map(|number| self.panes.get(*number)).all(|pane| total.subtract(specs, pane));
        let rows = total.rows;
        if !exact {
            self.totals[window] = self.sum(specs, from, to).map(Arc::new);
        } else if rows == 0 {
            self.totals[window] = None;
        }
    }
}

/// What readers see of a metric on one worker, at one tick.
#[derive(Debug, Clone, Default)]
pub struct Shard {
    /// State per key.
    pub cells: Cells,
    /// State over all keys (when the plan keeps it).
    pub total: Option<Arc<Cell>>,
    /// Grows with every visible change.
    pub revision: u64,
    /// Rows not counted, by reason.
    pub lost: Arc<Lost>,
    /// Newest event time counted and when it was received.
    pub newest: Option<(i64, i64)>,
    /// Oldest pane kept.
    pub oldest: i64,
}

/// The running window in panes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Running {
    from: i64,
    to: i64,
}

/// The state of one metric on one worker.
#[derive(Debug)]
pub struct MetricState {
    plan: Arc<MetricPlan>,
    shard: Shard,
    /// Keys that have a pane, by pane: what the wheels turn over.
    by_pane: ByPane,
    /// One per window, `None` for sessions.
    running: Vec<Option<Running>>,
    /// Changes ahead of the clock, by their instant.
    waiting: OrdMap<i64, Arc<Vec<Delta>>>,
    /// How many wait.
    waits: usize,
    now: i64,
    /// At most this many keys; further ones are lost with reason `too_many_keys`.
    max_keys: usize,
    /// Keys whose panes are not as at the last cut, but for those that retention let go.
    changed: Changed<Key>,
}

impl MetricState {
    /// An empty state.
    pub fn new(plan: Arc<MetricPlan>, max_keys: usize) -> Self {
        let running = vec![None; plan.extents.len()];
        let shard = Shard { oldest: i64::MIN, ..Shard::default() };
        let (by_pane, waiting) = (BTreeMap::new(), OrdMap::new());
        let changed = Changed::default();
        Self { plan, shard, by_pane, running, waiting, waits: 0, now: i64::MIN, max_keys, changed }
    }

    /// What readers see.
    pub fn shard(&self) -> Shard {
        self.shard.clone()
    }

    /// Counts rows lost before they came here.
    pub fn lose(&mut self, lost: &Lost) {
        if lost.is_empty() {
            return;
        }
        let mine = Arc::make_mut(&mut self.shard.lost);
        for (reason, count) in lost {
            *mine.entry(reason).or_default() += count;
        }
    }

    /// Remembers the newest event seen: event time and received time.
    pub fn saw(&mut self, newest: (i64, i64)) {
        self.shard.newest = self.shard.newest.max(Some(newest));
    }

    /// Turns all wheels to `now` and drops what retention no longer covers. Call before [`Self::apply`].
    pub fn turn(&mut self, now: i64) {
        for window in 0..self.running.len() {
            let Some(bounds) = self.plan.extents[window].at(now) else { continue };
            let next = self.in_panes(bounds);
            let before = self.running[window].replace(next);
            if before != Some(next) {
                self.turn_window(window, before.unwrap_or(Running { from: next.from, to: next.from }), next);
            }
        }
        self.forget(self.plan.oldest_pane(now));
        self.now = now;
        let mut come = Vec::new();
        while let Some((at, deltas)) = self.waiting.get_min().filter(|(at, _)| *at < now).cloned() {
            self.waiting.remove(&at);
            come.extend(Arc::unwrap_or_clone(deltas));
        }
        self.waits -= come.len();
        self.apply(come);
    }

    fn in_panes(&self, bounds: Bounds) -> Running {
        let from = if bounds.start == i64::MIN { i64::MIN } else { self.plan.pane(bounds.start) };
        let to = if bounds.end == i64::MAX { i64::MAX } else { self.plan.pane(bounds.end) };
        Running { from, to }
    }

    fn turn_window(&mut self, window: usize, before: Running, next: Running) {
        let plan = Arc::clone(&self.plan);
        let leaving = self.keys_of(before.from..before.to.min(next.from));
        let entering = self.keys_of(before.to.max(next.from)..next.to);
        if !leaving.is_empty() || !entering.is_empty() {
            self.shard.revision += 1;
        }
        for (key, panes) in leaving {
            self.each_cell(&key, |cell| {
                cell.expire(&plan.specs, window, &panes, next.from, before.to);
            });
        }
        for (key, panes) in entering {
            self.each_cell(&key, |cell| {
                for pane in &panes {
                    if let Some(come) = cell.panes.get(*pane).cloned() {
                        cell.add_total(&plan.specs, window, &come);
                    }
                }
            });
        }
    }

    /// Keys that have panes in a range, with those panes.
    fn keys_of(&self, range: std::ops::Range<i64>) -> ahash::HashMap<Key, Vec<i64>> {
        let mut found = ahash::HashMap::default();
        if range.start < range.end {
            for (pane, keys) in self.by_pane.range(range) {
                for key in keys.iter() {
                    let panes: &mut Vec<i64> = found.entry(key.clone()).or_default();
                    if panes.last() != Some(pane) {
                        panes.push(*pane);
                    }
                }
            }
        }
        found
    }

    /// Visits the key's cell. The total over all keys is turned by its own entry in `by_pane`.
    fn each_cell(&mut self, key: &Key, visit: impl Fn(&mut Cell)) {
        let cell = match key.values.is_empty() && self.plan.keeps_total {
            true => self.shard.total.as_mut(),
            false => self.shard.cells.get_mut(key),
        };
        if let Some(cell) = cell {
            visit(Arc::make_mut(cell));
        }
    }

    /// Drops panes below `oldest`; an `all` window keeps their sum.
    fn forget(&mut self, oldest: i64) {
        self.shard.oldest = oldest;
        while let Some(entry) = self.by_pane.first_entry() {
            if *entry.key() >= oldest {
                break;
            }
            let (pane, keys) = entry.remove_entry();
            for key in keys.iter() {
                self.forget_pane(key, pane);
            }
        }
    }

    fn forget_pane(&mut self, key: &Key, pane: i64) {
        let plan = Arc::clone(&self.plan);
        self.each_cell(key, |cell| {
            cell.edges.forget(pane, plan.keeps_base);
            let Some(gone) = cell.panes.remove(pane) else { return };
            if !plan.keeps_base {
                return;
            }
            match &mut cell.base {
                Some(base) => Arc::make_mut(base).merge(&plan.specs, &gone),
                empty => *empty = Some(gone),
            }
        });
        let empty = self.shard.cells.get(key).is_some_and(|cell| cell.is_empty());
        if empty {
            self.shard.cells.remove(key);
        }
    }

    /// Applies the changes of a tick; [`Self::turn`] has been called with its instant.
    pub fn apply(&mut self, deltas: Vec<Delta>) {
        if deltas.is_empty() {
            return;
        }
        self.shard.revision += 1;
        let mut lost = Lost::new();
        let ahead = deltas.iter().map(|delta| delta.at).filter(|at| *at >= self.now).collect();
        for delta in deltas {
            self.apply_one(delta, &mut lost);
        }
        self.settle(&ahead);
        self.lose(&lost);
    }

    /// Forgets changes ahead of the clock that others have taken back.
    fn settle(&mut self, instants: &BTreeSet<i64>) {
        for at in instants {
            let Some(waiting) = self.waiting.get_mut(at).map(Arc::make_mut) else { continue };
            let before = waiting.len();
            waiting.retain(|delta| match &delta.edges {
                Some(edges) => !is_zero(edges),
                None => delta.change.rows != 0,
            });
            self.waits -= before - waiting.len();
            if waiting.is_empty() {
                self.waiting.remove(at);
            }
        }
    }

    /// Keeps a change until its instant, in one with those of the same rows.
    fn wait(&mut self, delta: Delta, lost: &mut Lost) {
        let alike = |known: &Delta| known.key == delta.key && known.edges.is_some() == delta.edges.is_some();
        let waiting = Arc::make_mut(self.waiting.entry(delta.at).or_default());
        if let Some(place) = waiting.iter().position(alike) {
            let known = &mut waiting[place];
            known.change.merge(&self.plan.specs, &delta.change);
            if let (Some(edges), Some(more)) = (&mut known.edges, &delta.edges) {
                merge(edges, more);
            }
        } else if self.waits >= self.max_keys {
            *lost.entry("too_many_waiting").or_default() += 1;
        } else {
            self.waits += 1;
            waiting.push(delta);
        }
    }

    fn apply_one(&mut self, delta: Delta, lost: &mut Lost) {
        if delta.at >= self.now {
            return self.wait(delta, lost);
        }
        let rows = delta.change.rows.unsigned_abs();
        let beyond = delta.pane < self.shard.oldest;
        if beyond && delta.lasting.is_some() {
            return;
        }
        if beyond && !self.plan.keeps_base && delta.edges.is_none() {
            *lost.entry("beyond_retention").or_default() += rows;
            return;
        }
        if !self.shard.cells.contains_key(&delta.key) && self.shard.cells.len() >= self.max_keys {
            *lost.entry("too_many_keys").or_default() += rows;
            return;
        }
        let windows = self.running.len();
        self.changed.add(&delta.key, self.shard.cells.len());
        if self.plan.keeps_total && delta.lasting.is_none() {
            let total = self.shard.total.get_or_insert_with(|| Arc::new(Cell::new(windows)));
            let mut place = Place {
                plan: &self.plan,
                oldest: self.shard.oldest,
                running: &self.running,
                by_pane: &mut self.by_pane,
            };
            place.apply(Arc::make_mut(total), &Key::new(std::iter::empty()), &delta);
        }
        let cell = self.shard.cells.entry(delta.key.clone()).or_insert_with(|| Arc::new(Cell::new(windows)));
        let cell = Arc::make_mut(cell);
        let mut place = Place {
            plan: &self.plan,
            oldest: self.shard.oldest,
            running: &self.running,
            by_pane: &mut self.by_pane,
        };
        place.apply(cell, &delta.key, &delta);
        if cell.is_empty() {
            self.shard.cells.remove(&delta.key);
        }
    }
}

/// What a change of one cell also touches.
struct Place<'a> {
    plan: &'a MetricPlan,
    oldest: i64,
    running: &'a [Option<Running>],
    by_pane: &'a mut ByPane,
}

impl Place<'_> {
    fn apply(&mut self, cell: &mut Cell, key: &Key, delta: &Delta) {
        let (specs, pane, change) = (&self.plan.specs, delta.pane, &delta.change);
        if cell.totals.is_empty() {
            cell.total_up(specs, self.running);
        }
        if let Some(rows) = &delta.lasting {
            cell.edges.remember(pane, rows);
            if pane != i64::MAX {
                self.by_pane.entry(pane).or_default().insert(key.clone());
            }
            return;
        }
        if let Some(edges) = &delta.edges {
            cell.edges.add(pane, self.oldest, edges);
            if pane >= self.oldest {
                self.by_pane.entry(pane).or_default().insert(key.clone());
            }
            return;
        }
        if pane < self.oldest {
            return self.apply_base(cell, change);
        }
        let known = cell.panes.get(pane).is_some();
        cell.add(specs, pane, change);
        if !known {
            self.by_pane.entry(pane).or_default().insert(key.clone());
        }
        for (window, running) in self.running.iter().enumerate() {
            if running.is_some_and(|running| (running.from..running.to).contains(&pane)) {
                cell.add_total(specs, window, change);
            }
        }
    }

    /// A change older than retention moves only what has no beginning: `all` windows.
    fn apply_base(&mut self, cell: &mut Cell, change: &Pane) {
        let specs = &self.plan.specs;
        cell.add_base(specs, change);
        for (window, running) in self.running.iter().enumerate() {
            if running.is_some_and(|running| running.from == i64::MIN) {
                cell.add_total(specs, window, change);
            }
        }
        if cell.base.as_ref().is_some_and(|base| base.rows == 0) {
            cell.base = None;
        }
    }
}
