//! The state of a metric as bytes, and back.
//!
//! *In*: cells and what waits for the clock. *Out*: their records; from these the same state on any number of
//! workers. *Never*: a running total in a record: it is the sum of panes, and made again from them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contracts::value::Value;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{ByPane, Cell, Cells, Key, MetricState, Pane, Panes, Running};
use crate::fold::acc::FoldSpec;
use crate::fold::edges::{EdgeCell, Edges};
use crate::fold::group::{Delta, Lost};
use crate::state::{
    self, Cut, Found, KeyedCut, Noted, Sections, Sharded, State, StateError, Stored, Table, put, shard_of,
    take,
};

/// Names of the tables.
const CELLS: &str = "cells";
const WAITING: &str = "waiting";

impl Sharded for Key {
    fn shard(&self) -> u8 {
        shard_of(self.hash64())
    }
}

impl Stored for Cell {
    fn store(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        put(&self.panes.len(), out)?;
        for (number, pane) in &self.panes {
            put(&(number, pane.as_ref()), out)?;
        }
        put(&self.base, out)?;
        let (panes, base) = self.edges.parts();
        put(&panes.len(), out)?;
        for entry in panes {
            put(&entry, out)?;
        }
        put(&base, out)?;
        let rows = self.edges.remembered();
        put(&rows.len(), out)?;
        for entry in rows {
            put(&entry, out)?;
        }
        Ok(())
    }

    fn load(from: &mut &[u8]) -> Result<Self, StateError> {
        let mut cell = Cell::new(0);
        let count = take::<usize>(from)?;
        cell.panes = Panes::with_capacity(count);
        for _ in 0..count {
            let (number, pane): (i64, Pane) = take(from)?;
            cell.panes.insert(number, Arc::new(pane));
        }
        cell.base = take(from)?;
        let mut panes: OrdMap<i64, Edges> = OrdMap::new();
        for _ in 0..take::<usize>(from)? {
            let (number, edges) = take(from)?;
            panes.insert(number, edges);
        }
        let base = take(from)?;
        let mut rows = OrdMap::new();
        for _ in 0..take::<usize>(from)? {
            let (row, weight): ((i64, i64), i64) = take(from)?;
            rows.insert(row, weight);
        }
        cell.edges = EdgeCell::of(panes, base, rows);
        Ok(cell)
    }
}

/// Changes that wait for the clock, at one tick.
struct Waiting(OrdMap<i64, Arc<Vec<Delta>>>);

impl Table for Waiting {
    fn is_whole(&self) -> bool {
        true
    }

    fn write(&self, _whole: bool, to: &mut Sections) -> Result<(), StateError> {
        for delta in self.0.values().flat_map(|deltas| deltas.iter()) {
            to.add(delta.key.shard(), |out| put(delta, out))?;
        }
        Ok(())
    }
}

/// What of a metric belongs to no key.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Rest {
    revision: u64,
    #[serde(deserialize_with = "state::lost")]
    lost: Lost,
    newest: Option<(i64, i64)>,
}

impl State for MetricState {
    fn changed(&mut self) -> &mut dyn Noted {
        &mut self.changed
    }

    fn cut(&mut self) -> Cut {
        let cells = KeyedCut { map: self.shard.cells.clone(), changed: self.changed.cut() };
        let rest = Rest {
            revision: self.shard.revision,
            lost: Lost::clone(&self.shard.lost),
            newest: self.shard.newest,
        };
        Cut {
            tables: vec![(CELLS, Box::new(cells)), (WAITING, Box::new(Waiting(self.waiting.clone())))],
            loose: Box::new(rest),
        }
    }

    fn restore(&mut self, found: &Found<'_>) -> Result<(), StateError> {
        self.set(found.now);
        let parts = state::deal(found.sections(CELLS), found.parts);
        let of = &*self;
        let built = state::side_by_side(parts, |shards| {
            let mut built = Built::new(of);
            state::take_newest(shards, |key, cell| built.take(of, key, cell))?;
            Ok(built)
        })?;
        self.take(built);
        for mut section in found.of(WAITING) {
            while !section.is_empty() {
                let delta: Delta = take(&mut section)?;
                self.wait(delta, &mut Lost::default());
            }
        }
        for rest in found.loose::<Rest>()? {
            // A client that holds a revision must see another one.
            self.shard.revision = self.shard.revision.max(rest.revision + 1);
            self.shard.newest = self.shard.newest.max(rest.newest);
            if found.leads {
                self.lose(&rest.lost);
            }
        }
        Ok(())
    }
}

/// Cells of a checkpoint on their way into a metric, with what follows from them: which pane has which keys, running
/// totals, the total over all keys.
struct Built {
    cells: Cells,
    by_pane: ByPane,
    /// Over all keys: the panes, and all else.
    sums: BTreeMap<i64, Pane>,
    total: Cell,
}

/// The sum of so many panes is made when somebody asks; running totals wait until a key changes.
const SUMMED_WHEN_ASKED: usize = 4;

impl MetricState {
    /// Sets the wheels to an instant, before there is anything to turn.
    fn set(&mut self, now: i64) {
        self.now = now;
        for window in 0..self.running.len() {
            self.running[window] = self.plan.extents[window].at(now).map(|bounds| self.in_panes(bounds));
        }
        self.shard.oldest = self.plan.oldest_pane(now);
    }

    fn take(&mut self, parts: Vec<Built>) {
        let specs = &self.plan.specs;
        let parts = parts.into_iter().reduce(|mut all, part| {
            all.add(specs, part);
            all
        });
        let Some(Built { cells, by_pane, sums, mut total }) = parts else { return };
        self.shard.cells = cells;
        self.by_pane = by_pane;
        if self.shard.cells.is_empty() || !self.plan.keeps_total {
            return;
        }
        for (number, sum) in sums.into_iter().filter(|(_, sum)| sum.rows != 0) {
            total.panes.insert(number, Arc::new(sum));
        }
        total.total_up(specs, &self.running);
        let all = Key::new(std::iter::empty::<Value>());
        for pane in total.panes.keys().chain(total.edges.parts().0.keys().copied()) {
            self.by_pane.entry(pane).or_default().insert(all.clone());
        }
        self.shard.total = Some(Arc::new(total));
    }
}

impl Built {
    fn new(of: &MetricState) -> Self {
        let cells = Cells::with_hasher(of.shard.cells.hasher().clone());
        Self { cells, by_pane: ByPane::new(), sums: BTreeMap::new(), total: Cell::new(0) }
    }

    fn take(&mut self, of: &MetricState, key: Key, mut cell: Cell) {
        let (plan, specs) = (&of.plan, &of.plan.specs);
        // Cells are not written again when panes fall out of retention.
        cell.let_go(specs, plan.keeps_base, of.shard.oldest);
        if cell.is_empty() {
            return;
        }
        let mut note = |pane| self.by_pane.entry(pane).or_default().loaded.push(key.clone());
        cell.panes.keys().for_each(&mut note);
        if !cell.edges.is_empty() {
            let until = cell.edges.remembered().keys().map(|(_, until)| *until);
            cell.edges.parts().0.keys().copied().chain(until).for_each(note);
        }
        if cell.panes.len() > SUMMED_WHEN_ASKED {
            cell.total_up(specs, &of.running);
        }
        if plan.keeps_total {
            add_sums(
                specs,
                &mut self.sums,
                cell.panes.iter().map(|(number, pane)| (number, Cow::Borrowed(&**pane))),
            );
            self.total.add_rest(specs, &cell);
        }
        self.cells.insert(key, Arc::new(cell));
    }

    fn add(&mut self, specs: &[FoldSpec], part: Self) {
        // Parts have no key in common.
        self.cells.extend(part.cells);
        for (pane, keys) in part.by_pane {
            self.by_pane.entry(pane).or_default().loaded.extend(keys.loaded);
        }
        add_sums(specs, &mut self.sums, part.sums.into_iter().map(|(number, sum)| (number, Cow::Owned(sum))));
        self.total.add_rest(specs, &part.total);
    }
}

fn add_sums<'a>(
    specs: &[FoldSpec],
    sums: &mut BTreeMap<i64, Pane>,
    panes: impl Iterator<Item = (i64, Cow<'a, Pane>)>,
) {
    for (number, pane) in panes {
        match sums.get_mut(&number) {
            Some(sum) => sum.merge(specs, &pane),
            None => drop(sums.insert(number, pane.into_owned())),
        }
    }
}

impl Cell {
    /// Makes the running totals from the panes.
    pub(super) fn total_up(&mut self, specs: &[FoldSpec], running: &[Option<Running>]) {
        let of_window = |running: &Option<Running>| {
            let Running { from, to } = (*running)?;
            let mut panes = self.panes.range(from..to).map(|(_, pane)| pane);
            let base = self.base.as_ref().filter(|_| from == i64::MIN);
            match (base, panes.next(), panes.next()) {
                (None, Some(only), None) => Some(Arc::clone(only)),
                _ => self.sum(specs, from, to).map(Arc::new),
            }
        };
        self.totals = running.iter().map(of_window).collect();
    }

    /// Drops panes below `oldest`; an `all` window keeps their sum.
    fn let_go(&mut self, specs: &[FoldSpec], keeps_base: bool, oldest: i64) {
        while let Some((number, _)) = self.panes.first().filter(|(number, _)| *number < oldest) {
            let gone = self.panes.remove(number);
            gone.iter().filter(|_| keeps_base).for_each(|pane| self.add_base(specs, pane));
        }
        if self.edges.is_empty() {
            return;
        }
        let until = self.edges.remembered().keys().map(|(_, until)| until);
        let panes = self.edges.parts().0.keys().chain(until).copied();
        let old: BTreeSet<i64> = panes.filter(|pane| *pane < oldest).collect();
        old.into_iter().for_each(|pane| self.edges.forget(pane, keeps_base));
    }
}

#[cfg(test)]
mod tests {
    use twox_hash::XxHash64;

    use super::*;
    use crate::fold::acc::{Acc, Moments, Placed, Sketch};
    use crate::fold::edges::Edge;
    use crate::fold::ranks::Ranks;
    use crate::fold::wide::Wide;

    /// One of everything that a cell may hold.
    fn cell() -> Cell {
        let text = |text: &str| Value::Text(text.into());
        let values = [
            Value::Null,
            Value::Bool(true),
            Value::Int(-7),
            Value::Float(0.5),
            Value::Decimal(1250, 2),
            text("x"),
            Value::Timestamp(5),
            Value::Date(3),
            Value::Duration(9),
            Value::List([text("a"), Value::Int(1)].into()),
        ];
        let placed = Placed { time: 4, id: Some("id".into()), value: Value::Int(2) };
        let mut ranks = Ranks::default();
        ranks.add(&Value::Int(1), 2);
        let accs = smallvec::smallvec![
            Acc::Count(-3),
            Acc::Sum { n: 2, sum: Wide::float(-1.25).unwrap() },
            Acc::Moments(Box::new(Moments { n: 2, sum: Wide::int(3), squares: Wide::int(5) })),
            Acc::Extreme(Some(Value::Int(9))),
            Acc::End(Some(Box::new(placed.clone()))),
            Acc::Bag(values.into_iter().map(|value| (value, 2)).collect()),
            Acc::Ends([(placed, 1)].into_iter().collect()),
            Acc::Sketch(Box::new(Sketch {
                negative: OrdMap::unit(-2, 1),
                zero: 3,
                positive: OrdMap::unit(8, 1),
            })),
            Acc::Histogram(vec![1, 0, 4]),
            Acc::Ranks(ranks),
        ];
        let pane = Pane { rows: 3, first: 1, last: i64::MAX, times: Some(OrdMap::unit(1, 3)), accs };
        let mut cell = Cell::new(0);
        cell.panes.insert(-4, Arc::new(pane.clone()));
        cell.base = Some(Arc::new(pane));
        let edges: Edges = [Edge { count: 1, moment: i128::from(i64::MAX) * 9 }].into();
        let rows = OrdMap::unit((5, 7), 2);
        cell.edges = EdgeCell::of(OrdMap::unit(6, Arc::clone(&edges)), Some(edges), rows);
        cell
    }

    #[test]
    fn bytes_of_state_are_a_promise() {
        let mut bytes = Vec::new();
        put(&Key::new([Value::Int(1), Value::Text("eu".into())].into_iter()).values, &mut bytes).unwrap();
        cell().store(&mut bytes).unwrap();
        // Other bytes for the same state: `FORMAT` in engine/src/checkpoint/manifest.rs grows by one.
        assert_eq!((bytes.len(), XxHash64::oneshot(0, &bytes)), (311, 17_305_217_379_379_033_147));
    }

    #[test]
    fn a_cell_comes_back() {
        let mut bytes = Vec::new();
        cell().store(&mut bytes).unwrap();
        let mut from = bytes.as_slice();
        let again = Cell::load(&mut from).unwrap();
        assert!(from.is_empty());
        assert_eq!(format!("{again:?}"), format!("{:?}", cell()));
        for end in 0..bytes.len() {
            assert!(Cell::load(&mut &bytes[..end]).is_err(), "cut after {end}");
        }
    }
}
