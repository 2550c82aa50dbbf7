//! Shipped sets: a row about a commit meets, per line, the first deployment that contains the commit.
//!
//! *In*: rows, deployments and edges of the commit graph that come (+) and go (-), a tick at a time. *Out*: rows with
//! the deployment beside them, in the same way. *Never*: a partner that depends on arrival order; work for commits
//! whose label stays; a graph that a cycle in broken data keeps from ending.
//!
//! The first deployment whose shipped set (ancestors of its commit less those of the deployment before it) has a
//! commit is the first one, by (time, id), whose ancestors have it: so each commit is labelled with the least
//! deployment that reaches it (`graph`), and only commits whose label changes are looked at again.

mod graph;
mod held;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::{HashMap, HashSet};
use contracts::catalog::{HistoryKind, Ships, Step};
use contracts::value::Value;
use imbl::OrdMap;

use self::held::{Held, Said, Told};
use super::step::{Alone, Input, with};
use super::{PartRow, Row};
use crate::fold::group::Lost;
use crate::fold::panes::Key;
use crate::state::Keyed;

mod stored;

/// A commit and one of its parents.
pub type Edge = (Arc<str>, Arc<str>);

/// The edges that a row of history tells; none where it says nothing.
pub(super) fn edges(kind: HistoryKind, row: &PartRow) -> Vec<Edge> {
    let texts = |cell: usize| match &row.cells[cell] {
        Value::List(items) => items.iter().filter_map(name).collect(),
        _ => Vec::new(),
    };
    let mut edges = match kind {
        HistoryKind::Parents { sha, parents } => match name(&row.cells[sha]) {
            Some(sha) => texts(parents).into_iter().map(|parent| (Arc::clone(&sha), parent)).collect(),
            None => Vec::new(),
        },
        HistoryKind::Chain { before, commits } => {
            let before = before.and_then(|cell| name(&row.cells[cell]));
            let chain: Vec<Arc<str>> = before.into_iter().chain(texts(commits)).collect();
            chain.windows(2).map(|pair| (Arc::clone(&pair[1]), Arc::clone(&pair[0]))).collect()
        }
    };
    edges.retain(|(commit, parent)| commit != parent);
    edges
}

fn name(value: &Value) -> Option<Arc<str>> {
    match value {
        Value::Text(name) => Some(Arc::clone(name)),
        _ => None,
    }
}

/// The graphs of one step on one worker.
#[derive(Debug)]
pub struct ShipsState {
    step: Step,
    ships: Ships,
    within: i64,
    graphs: Keyed<Key, Held>,
    /// Rows, commits, edges, deployments, labels and lines.
    held: usize,
    max_held: usize,
    now: i64,
    alone: Alone,
    /// Waiting rows by the instant after which they are unmatched.
    deadlines: OrdMap<i64, i64>,
    /// Graphs that hold something of a stretch of time, by its number.
    ages: BTreeMap<i64, HashSet<Key>>,
    /// How long a stretch is.
    stretch: i64,
    retain: i64,
    /// What was dropped: too much, or too old.
    pub lost: Lost,
}

impl ShipsState {
    /// No graphs yet.
    pub fn new(step: Step, ships: Ships, retain: i64, max_held: usize) -> Self {
        Self {
            within: step.within.unwrap_or(i64::MAX),
            step,
            ships,
            graphs: Keyed::default(),
            held: 0,
            max_held,
            now: i64::MIN,
            alone: Alone::default(),
            deadlines: OrdMap::new(),
            ages: BTreeMap::new(),
            stretch: (retain / 64).max(1),
            retain,
            lost: Lost::new(),
        }
    }

    /// Rows, commits, edges, deployments, labels and lines held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The step.
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// Rows without a partner.
    pub fn alone(&self) -> Alone {
        Alone { waiting: self.deadlines.values().sum(), ..self.alone.clone() }
    }

    /// Applies the inputs of a tick; `give` is called with each change of a row.
    pub fn apply(&mut self, inputs: Vec<Input>, mut give: impl FnMut(Row, i64)) {
        let mut by_graph: HashMap<Key, Said> = HashMap::default();
        let mut taken = 0;
        for input in inputs {
            self.sort(input, &mut by_graph, &mut taken);
        }
        for (key, said) in by_graph {
            let mut graph = self.graphs.borrow(&key);
            let before = graph.held();
            let touched = graph.take(&self.ships, said);
            for number in touched {
                self.tell(&mut graph, number, &mut give);
            }
            self.held = self.held + graph.held() - before;
            let left = (!graph.is_empty()).then_some(graph);
            self.graphs.put_back(key, left);
        }
    }

    /// Puts an input with its graph, unless it is too old or one too many.
    fn sort(&mut self, input: Input, by_graph: &mut HashMap<Key, Said>, taken: &mut usize) {
        match input {
            Input::Left(Some(key), row, weight) if held::commits(&self.ships, &row).next().is_some() => {
                let anchor = self.anchor(&row);
                if anchor < self.rows_since() {
                    self.too_old(weight);
                } else if self.fits(weight, taken) {
                    self.age(anchor, &key);
                    *by_graph.entry(key).or_default().rows.entry((anchor, row)).or_default() += weight;
                }
            }
            Input::Left(_, _, weight) => self.alone.unmatched += weight,
            Input::Right(key, row, weight) => {
                if !matches!(row.cells[self.ships.head], Value::Text(_)) {
                    return; // It runs no commit: it is of no graph.
                }
                if row.time < self.rest_since() {
                    self.begin(key, row, weight, by_graph, taken);
                } else if self.fits(weight, taken) {
                    self.age(row.time, &key);
                    *by_graph.entry(key).or_default().deployments.entry(row).or_default() += weight;
                }
            }
            Input::Edges(_, time, _, weight) if time < self.rest_since() => self.too_old(weight),
            Input::Edges(key, time, edges, weight) => {
                for edge in edges.iter() {
                    if self.fits(weight, taken) {
                        self.age(time, &key);
                        let said = by_graph.entry(key.clone()).or_default();
                        let (sum, newest) = said.edges.entry(edge.clone()).or_insert((0, time));
                        *sum += weight;
                        *newest = time.max(*newest);
                    }
                }
            }
        }
    }

    /// A deployment before all that is held says that its line had begun, and nothing else.
    fn begin(
        &mut self,
        key: Key,
        row: Arc<PartRow>,
        weight: i64,
        by_graph: &mut HashMap<Key, Said>,
        taken: &mut usize,
    ) {
        self.too_old(weight);
        if weight > 0 && self.fits(weight, taken) {
            by_graph.entry(key).or_default().begun.push(row);
        }
    }

    fn too_old(&mut self, weight: i64) {
        if weight > 0 {
            *self.lost.entry("beyond_retention").or_default() += 1;
        }
    }

    /// Whether one more fits; what goes always does.
    fn fits(&mut self, weight: i64, taken: &mut usize) -> bool {
        let fits = weight < 0 || self.held + *taken < self.max_held;
        if fits {
            *taken += usize::from(weight > 0);
        } else {
            *self.lost.entry("join_overflow").or_default() += 1;
        }
        fits
    }

    /// The instant of a row that deployments are compared with.
    fn anchor(&self, row: &Row) -> i64 {
        match self.step.from {
            Some(part) => row.parts[part].as_ref().map_or(row.time, |part| part.time),
            None => row.time,
        }
    }

    /// Tells what changed about a row.
    fn tell(&mut self, graph: &mut Held, number: u32, give: &mut impl FnMut(Row, i64)) {
        let found = graph.found(&self.ships, self.within, number);
        let Some(held) = graph.row(number) else { return };
        let new = Told { weight: held.weight, found };
        if new != held.told {
            for (partner, change) in changed(&held.told, &new) {
                give(with(&self.step, &held.row, Some(partner)), change);
            }
            self.alone.cold_start += new.found.cold * new.weight - held.told.found.cold * held.told.weight;
            let change = alone(&new) - alone(&held.told);
            let anchor = held.anchor;
            held.told = new;
            self.count_alone(anchor, change);
        }
        if graph.row(number).is_some_and(|held| held.weight == 0) {
            graph.drop_row(number);
        }
    }

    fn count_alone(&mut self, anchor: i64, change: i64) {
        let deadline = anchor.saturating_add(self.within);
        if deadline < self.now {
            self.alone.unmatched += change;
            return;
        }
        let waiting = self.deadlines.entry(deadline).or_default();
        *waiting += change;
        if *waiting == 0 {
            self.deadlines.remove(&deadline);
        }
    }

    /// Moves the clock: bounds pass, and what can no longer matter is let go.
    pub fn turn(&mut self, now: i64) {
        self.now = now;
        while let Some((deadline, waiting)) = self.deadlines.get_min().filter(|(at, _)| *at < now).copied() {
            self.alone.unmatched += waiting;
            self.deadlines.remove(&deadline);
        }
        let (rows, rest) = (self.rows_since(), self.rest_since());
        while let Some(entry) = self.ages.first_entry() {
            if (entry.key() + 1).saturating_mul(self.stretch) > rest {
                break;
            }
            for key in entry.remove() {
                let Some(graph) = self.graphs.get_mut(&key) else { continue };
                let before = graph.held();
                graph.forget(rows, rest);
                self.held = self.held + graph.held() - before;
                if graph.is_empty() {
                    self.graphs.remove(&key);
                }
            }
        }
    }

    /// Rows before this instant can no longer move a number.
    fn rows_since(&self) -> i64 {
        self.now.saturating_sub(self.retain).saturating_sub(self.within)
    }

    /// Deployments and edges before this instant are no longer any row's.
    fn rest_since(&self) -> i64 {
        self.rows_since().saturating_sub(self.within)
    }

    fn age(&mut self, time: i64, key: &Key) {
        let keys = self.ages.entry(time.div_euclid(self.stretch)).or_default();
        if !keys.contains(key) {
            keys.insert(key.clone());
        }
    }
}

/// How often a row counts as one that nothing ships.
fn alone(told: &Told) -> i64 {
    let none = told.found.partners.is_empty() && told.found.cold == 0;
    if none { told.weight } else { 0 }
}

/// What turns the deployments told of into the new ones.
fn changed(old: &Told, new: &Told) -> Vec<(Arc<PartRow>, i64)> {
    let mut changes: BTreeMap<&Arc<PartRow>, i64> = BTreeMap::new();
    for (told, sign) in [(old, -1), (new, 1)] {
        for partner in &told.found.partners {
            *changes.entry(partner).or_default() += sign * told.weight;
        }
    }
    let changed = changes.into_iter().filter(|(_, change)| *change != 0);
    changed.map(|(partner, change)| (Arc::clone(partner), change)).collect()
}
