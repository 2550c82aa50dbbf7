//! Sums of many windows of one group: each block of panes is summed up once, and so are the edges before each pane.
//!
//! *In*: panes of one cell, ranges of them. *Out*: the sum of a range, made of blocks of 1, 2, 4, ... panes. *Never*: a block of
//! another cell: there is one of these per group and call.

use std::cell::{OnceCell, RefCell};

use ahash::HashMap;
use operators::fold::acc::FoldSpec;
use operators::fold::edges::Edge;
use operators::fold::panes::{Cell, Pane};

/// Sums of blocks, by their size (a power of two) and place.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Windows of the question overlap; else blocks are not worth keeping.
    overlap: bool,
    sums: RefCell<HashMap<(u32, i64), Option<Pane>>>,
    /// Edges of all panes up to and with this one; before all panes those that are older than retention.
    edges: OnceCell<Vec<(i64, Vec<Edge>)>>,
}

impl Blocks {
    pub(super) fn new(overlap: bool) -> Self {
        Self { overlap, sums: RefCell::default(), edges: OnceCell::new() }
    }

    /// The edges before pane `to`: as `EdgeCell::sum` has it.
    pub(super) fn edges(&self, cell: &Cell, to: i64) -> Vec<Edge> {
        let sums = self.edges.get_or_init(|| {
            let (panes, base) = cell.edges.parts();
            let mut sum = base.as_ref().map(|base| base.to_vec()).unwrap_or_default();
            let mut sums = vec![(i64::MIN, sum.clone())];
            for (number, edges) in panes {
                sum.resize(sum.len().max(edges.len()), Edge::default());
                for (edge, more) in sum.iter_mut().zip(edges.iter()) {
                    edge.merge(more);
                }
                sums.push((*number, sum.clone()));
            }
            sums
        });
        let before = sums.partition_point(|(number, _)| *number < to);
        before.checked_sub(1).map(|last| sums[last].1.clone()).unwrap_or_default()
    }

    /// The sum of panes `from..to`: as [`Cell::sum`] has it, for sums do not depend on their order.
    pub(super) fn sum(&self, specs: &[FoldSpec], cell: &Cell, from: i64, to: i64) -> Option<Pane> {
        if !self.overlap || from == i64::MIN || to == i64::MAX {
            return cell.sum(specs, from, to);
        }
        let (mut sum, mut at) = (None, from);
        while at < to {
            // The largest block that begins here and does not end beyond.
            let fits = (to - at).ilog2();
            let level = if at == 0 { fits } else { at.trailing_zeros().min(fits) };
            self.add(specs, cell, (level, at >> level), &mut sum);
            at += 1 << level;
        }
        sum
    }

    fn add(&self, specs: &[FoldSpec], cell: &Cell, block: (u32, i64), sum: &mut Option<Pane>) {
        if !self.sums.borrow().contains_key(&block) {
            let made = self.make(specs, cell, block);
            self.sums.borrow_mut().insert(block, made);
        }
        if let Some(Some(more)) = self.sums.borrow().get(&block) {
            match sum {
                Some(sum) => sum.merge(specs, more),
                None => *sum = Some(more.clone()),
            }
        }
    }

    fn make(&self, specs: &[FoldSpec], cell: &Cell, (level, place): (u32, i64)) -> Option<Pane> {
        let Some(below) = level.checked_sub(1) else {
            return cell.panes.get(place).map(|pane| Pane::clone(pane));
        };
        cell.panes.range(place << level..(place + 1) << level).next()?;
        let mut sum = None;
        for half in [place * 2, place * 2 + 1] {
            self.add(specs, cell, (below, half), &mut sum);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_add_up_to_the_range() {
        let specs: Vec<FoldSpec> = Vec::new();
        let mut cell = Cell::empty();
        for (number, rows) in [(-70, 1), (-64, 2), (-1, 4), (0, 8), (1, 16), (63, 32), (64, 64)] {
            let mut pane = Pane::zero(&specs);
            (0..rows).for_each(|_| pane.touch(number, 1));
            cell.add(&specs, number, &pane);
        }
        let edges = |number: i64| [Edge { count: number, moment: 1 }].into();
        (-3..3).for_each(|number| cell.edges.add(number, -1, &edges(number)));
        let blocks = Blocks::new(true);
        for to in -5..5 {
            let mut sum = Vec::new();
            cell.edges.sum(to, &mut sum);
            assert_eq!(blocks.edges(&cell, to), sum, "edges before {to}");
        }
        for from in -72..66 {
            for to in from..67 {
                let rows = |sum: Option<Pane>| sum.map(|sum| (sum.rows, sum.first, sum.last));
                let wanted = rows(cell.sum(&specs, from, to));
                assert_eq!(rows(blocks.sum(&specs, &cell, from, to)), wanted, "{from}..{to}");
            }
        }
    }
}
