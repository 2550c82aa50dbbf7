//! The state of a metric as bytes, and back.
//!
//! *In*: cells and what waits for the clock. *Out*: their records; from these the same state on any number of
//! workers. *Never*: a running total in a record: it is the sum of panes, and made again from them.

use std::collections::BTreeSet;
use std::sync::Arc;

use contracts::value::Value;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{Cell, Key, MetricState, Pane, Running};
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
        shard_of(self.hash)
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
        for _ in 0..take::<usize>(from)? {
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
        for mut section in found.of(CELLS) {
            while !section.is_empty() {
                let (key, cell) = state::take_record::<Key, Cell>(&mut section)?;
                match cell {
                    Some(cell) => self.shard.cells.insert(key, Arc::new(cell)),
                    None => self.shard.cells.remove(&key),
                };
            }
        }
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
        self.rebuild(found.now);
        Ok(())
    }
}

impl MetricState {
    /// Makes what follows from the cells: which pane has which keys, running totals, the total over all keys.
    fn rebuild(&mut self, now: i64) {
        self.now = now;
        for window in 0..self.running.len() {
            self.running[window] = self.plan.extents[window].at(now).map(|bounds| self.in_panes(bounds));
        }
        let plan = Arc::clone(&self.plan);
        let oldest = plan.oldest_pane(now);
        self.shard.oldest = oldest;
        let mut total = plan.keeps_total.then(|| Cell::new(0));
        let mut empty: Vec<Key> = Vec::new();
        for (key, cell) in self.shard.cells.iter_mut() {
            let cell = Arc::make_mut(cell);
            // Cells are not written again when panes fall out of retention.
            cell.let_go(&plan.specs, plan.keeps_base, oldest);
            if cell.is_empty() {
                empty.push(key.clone());
                continue;
            }
            let until = cell.edges.remembered().keys().map(|(_, until)| until);
            for pane in cell.panes.keys().chain(cell.edges.parts().0.keys()).chain(until) {
                self.by_pane.entry(*pane).or_default().insert(key.clone());
            }
            cell.total_up(&plan.specs, &self.running);
            if let Some(total) = &mut total {
                total.add_cell(&plan.specs, cell);
            }
        }
        for key in empty {
            self.shard.cells.remove(&key);
        }
        let Some(mut total) = total.filter(|_| !self.shard.cells.is_empty()) else { return };
        total.total_up(&plan.specs, &self.running);
        let all = Key::new(std::iter::empty::<Value>());
        for pane in total.panes.keys().chain(total.edges.parts().0.keys()) {
            self.by_pane.entry(*pane).or_default().insert(all.clone());
        }
        self.shard.total = Some(Arc::new(total));
    }
}

impl Cell {
    /// Makes the running totals from the panes.
    fn total_up(&mut self, specs: &[crate::fold::acc::FoldSpec], running: &[Option<Running>]) {
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
    fn let_go(&mut self, specs: &[crate::fold::acc::FoldSpec], keeps_base: bool, oldest: i64) {
        while let Some((number, pane)) = self.panes.get_min().filter(|(number, _)| *number < oldest).cloned()
        {
            self.panes.remove(&number);
            if keeps_base {
                self.add_base(specs, &pane);
            }
        }
        let until = self.edges.remembered().keys().map(|(_, until)| until);
        let panes = self.edges.parts().0.keys().chain(until).copied();
        let old: BTreeSet<i64> = panes.filter(|pane| *pane < oldest).collect();
        old.into_iter().for_each(|pane| self.edges.forget(pane, keeps_base));
    }

    /// Adds all panes of another cell.
    fn add_cell(&mut self, specs: &[crate::fold::acc::FoldSpec], other: &Cell) {
        for (number, pane) in &other.panes {
            self.add(specs, *number, pane);
        }
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
}

#[cfg(test)]
mod tests {
    use twox_hash::XxHash64;

    use super::*;
    use crate::fold::acc::{Acc, Placed, Sketch};
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
        let accs = vec![
            Acc::Count(-3),
            Acc::Sum { n: 2, sum: Wide::float(-1.25).unwrap() },
            Acc::Moments { n: 2, sum: Wide::int(3), squares: Wide::int(5) },
            Acc::Extreme(Some(Value::Int(9))),
            Acc::End(Some(placed.clone())),
            Acc::Bag(values.into_iter().map(|value| (value, 2)).collect()),
            Acc::Ends([(placed, 1)].into_iter().collect()),
            Acc::Sketch(Sketch { negative: OrdMap::unit(-2, 1), zero: 3, positive: OrdMap::unit(8, 1) }),
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
