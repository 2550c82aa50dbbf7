//! What one graph holds: its commits, its lines with their deployments, the rows about its commits.
//!
//! *In*: what a tick says about one graph. *Out*: the rows whose partners may be others now, and the partners of a
//! row. *Never*: an answer that depends on the order within a tick.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ahash::HashMap;
use contracts::catalog::{ColdStart, Micros, Ships};
use contracts::value::Value;
use smallvec::SmallVec;

use super::graph::{Batch, Graph, Line, Node};
use crate::fold::panes::Key;
use crate::relate::{PartRow, Row};

/// A deployment; ordered by time, then id.
pub(super) type Label = Arc<PartRow>;

/// One graph.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    pub(super) graph: Graph<Label>,
    pub(super) lines: Vec<Deployments>,
    pub(super) numbers: HashMap<Key, Line>,
    /// Rows by the instant that deployments are compared with.
    pub(super) order: BTreeMap<(i64, Arc<Row>), u32>,
    pub(super) rows: Vec<Option<HeldRow>>,
    free: Vec<u32>,
    /// Deployments held.
    pub(super) heads: usize,
}

/// The deployments of a line.
#[derive(Debug, Clone, Default)]
pub(super) struct Deployments {
    pub(super) held: BTreeMap<Label, (Node, i64)>,
    /// The first of those let go.
    pub(super) gone: Option<Label>,
}

impl Deployments {
    fn first(&self) -> Option<&Label> {
        let held = self.held.first_key_value().map(|(label, _)| label);
        [self.gone.as_ref(), held].into_iter().flatten().min()
    }

    fn begin(&mut self, label: &Label) {
        if self.gone.as_ref().is_none_or(|known| known > label) {
            self.gone = Some(Arc::clone(label));
        }
    }
}

/// A row about a commit.
#[derive(Debug, Clone)]
pub(super) struct HeldRow {
    pub(super) anchor: i64,
    pub(super) row: Arc<Row>,
    pub(super) weight: i64,
    /// Its commits, the one that counts first.
    pub(super) commits: SmallVec<[Node; 2]>,
    /// What has been told.
    pub(super) told: Told,
}

/// What has been told of a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) weight: i64,
    pub(super) found: Found,
}

/// What ships a row's commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// One per line.
    pub(super) partners: Vec<Label>,
    /// Lines whose first deployment it was, which ships nothing.
    pub(super) cold: i64,
}

/// What a tick says about one graph.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Commit and parent: change of weight, newest time.
    pub(super) edges: BTreeMap<(Arc<str>, Arc<str>), (i64, i64)>,
    pub(super) deployments: BTreeMap<Label, i64>,
    /// Deployments before all that is held: they say that their line had begun.
    pub(super) begun: Vec<Label>,
    pub(super) rows: BTreeMap<(i64, Row), i64>,
}

impl Held {
    /// Rows, commits, edges, deployments, labels and lines.
    pub(super) fn held(&self) -> usize {
        self.order.len() + self.graph.held() + self.heads + self.lines.len()
    }

    /// The instants of all that is held, some of them more than once.
    pub(super) fn times(&self) -> Vec<i64> {
        let deployments = self.lines.iter().flat_map(|line| line.held.keys());
        let deployments = deployments.map(|label| label.time);
        self.order.keys().map(|(anchor, _)| *anchor).chain(deployments).chain(self.graph.times()).collect()
    }

    /// Takes in a tick; the rows that may have other partners now.
    pub(super) fn take(&mut self, ships: &Ships, said: Said) -> BTreeSet<u32> {
        let mut touched: BTreeSet<u32> = BTreeSet::new();
        for ((anchor, row), change) in said.rows {
            touched.extend(self.weigh_row(ships, anchor, row, change));
        }
        let mut nodes: BTreeSet<Node> = BTreeSet::new();
        let mut firsts: BTreeMap<Line, Option<Label>> = BTreeMap::new();
        let mut batch = Batch::default();
        for label in said.begun {
            let line = self.line(ships, &label);
            let deployments = &mut self.lines[line as usize];
            firsts.entry(line).or_insert_with(|| deployments.first().cloned());
            deployments.begin(&label);
        }
        for (label, change) in said.deployments {
            let line = self.line(ships, &label);
            let deployments = &self.lines[line as usize];
            firsts.entry(line).or_insert_with(|| deployments.first().cloned());
            self.weigh_deployment(ships, line, label, change, &mut batch);
        }
        let mut rim: Vec<Node> = Vec::new();
        for ((commit, parent), (change, time)) in said.edges {
            if change < 0 && (self.graph.find(&commit).is_none() || self.graph.find(&parent).is_none()) {
                continue;
            }
            let (commit, parent) = (self.graph.node(&commit, time), self.graph.node(&parent, time));
            rim.extend([commit, parent]);
            batch.edges.push((commit, parent, change));
        }
        rim.extend(batch.go.iter().map(|(node, _, _)| *node));
        self.graph.apply(batch, &mut nodes);
        for (line, old) in firsts {
            self.retell(line, old.as_ref(), &mut nodes);
        }
        for node in nodes {
            touched.extend(self.graph.rows(node));
        }
        rim.into_iter().for_each(|node| self.graph.tidy(node));
        touched
    }

    /// Adds the commits of the first deployment of a line, and of the one that was, when it changed.
    fn retell(&self, line: Line, old: Option<&Label>, nodes: &mut BTreeSet<Node>) {
        let deployments = &self.lines[line as usize];
        let new = deployments.first();
        if new == old {
            return;
        }
        for label in [new, old].into_iter().flatten() {
            if let Some((node, _)) = deployments.held.get(label)
                && self.graph.label(*node, line) == Some(label)
            {
                self.graph.region(*node, line, nodes);
            }
        }
    }

    fn line(&mut self, ships: &Ships, label: &Label) -> Line {
        let key = Key::new(ships.line.iter().map(|cell| label.cells[*cell].clone()));
        let lines = &mut self.lines;
        *self.numbers.entry(key).or_insert_with(|| {
            lines.push(Deployments::default());
            Line::try_from(lines.len() - 1).unwrap_or(Line::MAX)
        })
    }

    fn weigh_deployment(
        &mut self,
        ships: &Ships,
        line: Line,
        label: Label,
        change: i64,
        batch: &mut Batch<Label>,
    ) {
        let Value::Text(head) = &label.cells[ships.head] else { return };
        let deployments = &mut self.lines[line as usize];
        let old = deployments.held.get(&label).map_or(0, |(_, weight)| *weight);
        let new = (old + change).max(0);
        match (old > 0, new > 0) {
            (false, true) => {
                let node = self.graph.node(head, label.time);
                deployments.held.insert(Arc::clone(&label), (node, new));
                self.heads += 1;
                batch.come.push((node, line, label));
            }
            (true, false) => {
                if let Some((node, _)) = deployments.held.remove(&label) {
                    self.heads -= 1;
                    batch.go.push((node, line, label));
                }
            }
            _ => {
                if let Some((_, weight)) = deployments.held.get_mut(&label) {
                    *weight = new;
                }
            }
        }
    }

    /// Changes the weight of a row; its number, if it is held.
    fn weigh_row(&mut self, ships: &Ships, anchor: i64, row: Row, change: i64) -> Option<u32> {
        let row = Arc::new(row);
        if let Some(&number) = self.order.get(&(anchor, Arc::clone(&row))) {
            if let Some(held) = self.rows[number as usize].as_mut() {
                held.weight = (held.weight + change).max(0);
            }
            return Some(number);
        }
        if change <= 0 {
            return None; // It was too old or one too many.
        }
        let names: SmallVec<[Arc<str>; 2]> = commits(ships, &row).collect();
        let mut commits: SmallVec<[Node; 2]> = SmallVec::new();
        for name in names {
            let node = self.graph.node(&name, anchor);
            if !commits.contains(&node) {
                commits.push(node);
            }
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.rows.push(None);
            u32::try_from(self.rows.len() - 1).unwrap_or(u32::MAX)
        });
        commits.iter().for_each(|node| self.graph.add_row(*node, number));
        self.order.insert((anchor, Arc::clone(&row)), number);
        let held = HeldRow { anchor, row, weight: change, commits, told: Told::default() };
        self.rows[number as usize] = Some(held);
        Some(number)
    }

    /// A row by its number.
    pub(super) fn row(&mut self, number: u32) -> Option<&mut HeldRow> {
        self.rows[number as usize].as_mut()
    }

    /// What ships the commits of a row, at most `within` before or after it.
    pub(super) fn found(&self, ships: &Ships, within: Micros, number: u32) -> Found {
        let Some(row) = &self.rows[number as usize] else { return Found::default() };
        let mut by_line: BTreeMap<Line, &Label> = BTreeMap::new();
        for commit in &row.commits {
            for (line, label) in self.graph.labels(*commit) {
                by_line.entry(*line).or_insert(label);
            }
        }
        let mut found = Found::default();
        for (line, label) in by_line {
            let age = label.time.saturating_sub(row.anchor);
            let ships_all = match ships.cold_start {
                ColdStart::All => true,
                ColdStart::Skip => false,
                ColdStart::Within(most) => age <= most,
            };
            if !ships_all && self.lines[line as usize].first() == Some(label) {
                found.cold += 1;
            } else if age.saturating_abs() <= within {
                found.partners.push(Arc::clone(label));
            }
        }
        found
    }

    /// Lets go of a row that has been told away.
    pub(super) fn drop_row(&mut self, number: u32) {
        let Some(held) = self.rows[number as usize].take() else { return };
        self.order.remove(&(held.anchor, held.row));
        for node in held.commits {
            self.graph.remove_row(node, number);
            self.graph.tidy(node);
        }
        self.free.push(number);
    }

    /// Lets go of rows before `rows` and of all else before `rest`. What they had moved stays.
    pub(super) fn forget(&mut self, rows: i64, rest: i64) {
        while let Some(entry) = self.order.first_entry() {
            if entry.key().0 >= rows {
                break;
            }
            let number = entry.remove();
            if let Some(held) = self.rows[number as usize].take() {
                held.commits.iter().for_each(|node| self.graph.remove_row(*node, number));
                self.free.push(number);
            }
        }
        for (line, deployments) in self.lines.iter_mut().enumerate() {
            while let Some(entry) = deployments.held.first_entry() {
                if entry.key().time >= rest {
                    break;
                }
                let (label, (node, _)) = entry.remove_entry();
                self.heads -= 1;
                self.graph.keep(node, Line::try_from(line).unwrap_or(Line::MAX), &label);
                deployments.begin(&label);
            }
        }
        self.graph.forget(rest);
    }

    /// Nothing is held, and no line has begun.
    pub(super) fn is_empty(&self) -> bool {
        self.held() == 0
    }
}

/// The commits of a row, the one that counts first; nulls are none.
pub(super) fn commits<'a>(ships: &'a Ships, row: &'a Row) -> impl Iterator<Item = Arc<str>> + 'a {
    ships.commits.iter().filter_map(|(part, cell)| match &row.parts[*part].as_ref()?.cells[*cell] {
        Value::Text(name) => Some(Arc::clone(name)),
        _ => None,
    })
}
