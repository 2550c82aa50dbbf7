//! Commit graphs as bytes, and back.
//!
//! *In*: graphs with their deployments and rows. *Out*: their records; from these the same on any number of workers.
//! *Never*: a label: it follows from the deployments and the edges; a deployment more than once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::ShipsState;
use super::graph::{Bare, Graph, Line, Node};
use super::held::{Deployments, Found as Partners, Held, HeldRow, Label, Told};
use crate::fold::panes::Key;
use crate::relate::Row;
use crate::relate::step::stored::Rest;
use crate::state::{Cut, Found, Noted, State, StateError, Stored, put, take};

/// Name of the table.
const GRAPHS: &str = "graphs";

/// Number of a deployment in its record.
type Number = u32;

/// A line: its key, its deployments with commit and weight, the first of those let go.
type StoredLine = (Key, Vec<(Number, Node, i64)>, Option<Number>);

/// A row about commits.
#[derive(Debug, Serialize, Deserialize)]
struct StoredRow {
    anchor: i64,
    row: Arc<Row>,
    weight: i64,
    commits: Vec<Node>,
    told: i64,
    partners: Vec<Number>,
    cold: i64,
}

/// Numbers deployments as they are met.
#[derive(Default)]
struct Labels {
    numbers: BTreeMap<Label, Number>,
    all: Vec<Label>,
}

impl Labels {
    fn number(&mut self, label: &Label) -> Number {
        let all = &mut self.all;
        *self.numbers.entry(Arc::clone(label)).or_insert_with(|| {
            all.push(Arc::clone(label));
            Number::try_from(all.len() - 1).unwrap_or(Number::MAX)
        })
    }
}

impl Stored for Held {
    fn store(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
        let mut labels = Labels::default();
        let (bare, numbers) = self.graph.bare();
        let of = |node: &Node| numbers.get(node).copied().unwrap_or(Node::MAX);
        let kept = |(line, label): &(Line, Label), labels: &mut Labels| (*line, labels.number(label));
        let commits: Vec<(Arc<str>, i64, Vec<(Line, Number)>)> = bare
            .commits
            .iter()
            .map(|(name, last, all)| {
                (Arc::clone(name), *last, all.iter().map(|one| kept(one, &mut labels)).collect())
            })
            .collect();
        let mut keys: Vec<(&Key, Line)> = self.numbers.iter().map(|(key, line)| (key, *line)).collect();
        keys.sort_by_key(|(_, line)| *line);
        let mut lines: Vec<StoredLine> = Vec::new();
        for ((key, _), line) in keys.into_iter().zip(&self.lines) {
            let held = line.held.iter();
            let held =
                held.map(|(label, (node, weight))| (labels.number(label), of(node), *weight)).collect();
            lines.push((key.clone(), held, line.gone.as_ref().map(|label| labels.number(label))));
        }
        let rows: Vec<StoredRow> = self
            .rows
            .iter()
            .flatten()
            .map(|row| StoredRow {
                anchor: row.anchor,
                row: Arc::clone(&row.row),
                weight: row.weight,
                commits: row.commits.iter().map(of).collect(),
                told: row.told.weight,
                partners: row.told.found.partners.iter().map(|label| labels.number(label)).collect(),
                cold: row.told.found.cold,
            })
            .collect();
        put(&labels.all, out)?;
        put(&commits, out)?;
        put(&bare.edges, out)?;
        put(&lines, out)?;
        put(&rows, out)
    }

    fn load(from: &mut &[u8]) -> Result<Self, StateError> {
        let labels: Vec<Label> = take(from)?;
        let label = |number: Number| {
            let wrong = || StateError::Read(format!("deployment {number} of {}", labels.len()));
            labels.get(number as usize).cloned().ok_or_else(wrong)
        };
        let mut bare = Bare { commits: Vec::new(), edges: Vec::new() };
        for (name, last, kept) in take::<Vec<(Arc<str>, i64, Vec<(Line, Number)>)>>(from)? {
            let kept = kept.into_iter().map(|(line, number)| Ok((line, label(number)?)));
            bare.commits.push((name, last, kept.collect::<Result<_, StateError>>()?));
        }
        bare.edges = take(from)?;
        let commits = bare.commits.len();
        let mut held = Held::default();
        let mut heads: Vec<(Node, Line, Label)> = Vec::new();
        for (key, deployments, gone) in take::<Vec<StoredLine>>(from)? {
            let line = Line::try_from(held.lines.len()).unwrap_or(Line::MAX);
            let mut known = Deployments { gone: gone.map(label).transpose()?, ..Deployments::default() };
            for (number, node, weight) in deployments {
                heads.push((node, line, label(number)?));
                known.held.insert(label(number)?, (node, weight));
            }
            held.heads += known.held.len();
            held.numbers.insert(key, line);
            held.lines.push(known);
        }
        let no_commit = || StateError::Read(format!("a commit beyond the {commits} there are"));
        held.graph = Graph::of(bare, heads).ok_or_else(no_commit)?;
        for row in take::<Vec<StoredRow>>(from)? {
            let number = u32::try_from(held.rows.len()).unwrap_or(u32::MAX);
            let nodes: SmallVec<[Node; 2]> = row.commits.into();
            for node in &nodes {
                if *node as usize >= commits {
                    return Err(no_commit());
                }
                held.graph.add_row(*node, number);
            }
            let partners = row.partners.into_iter().map(label).collect::<Result<_, _>>()?;
            let told = Told { weight: row.told, found: Partners { partners, cold: row.cold } };
            held.order.insert((row.anchor, Arc::clone(&row.row)), number);
            let (anchor, weight) = (row.anchor, row.weight);
            held.rows.push(Some(HeldRow { anchor, row: row.row, weight, commits: nodes, told }));
        }
        Ok(held)
    }
}

impl State for ShipsState {
    fn changed(&mut self) -> &mut dyn Noted {
        self.graphs.changed()
    }

    fn cut(&mut self) -> Cut {
        let rest =
            Rest { alone: self.alone.clone(), deadlines: self.deadlines.clone(), lost: self.lost.clone() };
        Cut { tables: vec![(GRAPHS, self.graphs.cut())], loose: Box::new(rest) }
    }

    fn restore(&mut self, found: &Found<'_>) -> Result<(), StateError> {
        for section in found.of(GRAPHS) {
            self.graphs.load(section)?;
        }
        self.now = found.now;
        let mut ages: Vec<(i64, Key)> = Vec::new();
        for (key, graph) in self.graphs.iter() {
            self.held += graph.held();
            ages.extend(graph.times().into_iter().map(|time| (time, key.clone())));
        }
        ages.into_iter().for_each(|(time, key)| self.age(time, &key));
        let Rest { alone, deadlines, lost } = Rest::sum(found)?;
        (self.alone, self.deadlines, self.lost) = (alone, deadlines, lost);
        Ok(())
    }
}
