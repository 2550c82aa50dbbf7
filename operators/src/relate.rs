//! Relate: rows that must remember other rows, before they are folded.
//!
//! *In*: admitted batches. *Out*: joined rows, rows with tables beside them, current rows of change streams, each
//! with +1 when it comes and -1 when it goes. *Never*: a row that depends on arrival order.
//!
//! Modules in the order a row meets them: part (a batch becomes rows of a part), versions (a newer version
//! replaces the one before), history (a version holds until the next), adding (step or ships: a part is added),
//! sequence (rows become intervals; spans: to it and from it), rows (rows become a batch again).

pub mod adding;
pub mod history;
pub mod part;
pub mod rows;
pub mod sequence;
pub mod ships;
pub mod spans;
pub mod step;
pub mod versions;

use std::collections::BTreeSet;
use std::sync::Arc;

use contracts::batch::Partition;
use contracts::catalog::Relation;
use contracts::value::Value;
use serde::{Deserialize, Serialize};

use crate::eval::PlanError;
use crate::fold::panes::{Key, route_hash};

use self::part::FeedPlan;
use self::sequence::{Span, Stay};
use self::ships::Edge;
use self::spans::SequencePlan;
use self::versions::Place;

/// Where an event stands: what never changes about it, whatever a metric reads of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// Its partition.
    pub partition: Arc<Partition>,
    /// Offset in the partition.
    pub offset: i64,
    /// Index inside the record.
    pub part: u32,
}

/// One row of a part: an event or a row of a table, as far as the metric reads it. Its order is that of partners: by
/// time, id, event type and origin; cells only make equality whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartRow {
    /// Its time, microseconds; the least instant for what holds since ever.
    pub time: i64,
    /// Event id.
    pub id: Option<Arc<str>>,
    /// The place of its event among those that the relation reads, by name.
    pub event: u32,
    /// Tells events alike in time and id apart. `None`: it starts a row, or its id is the key of a change stream.
    pub origin: Option<Origin>,
    /// Columns that show, then keys of steps.
    pub cells: Arc<[Value]>,
}

/// A row so far.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    /// The greatest time of its joined parts.
    pub time: i64,
    /// Id of the part joined last.
    pub id: Option<Arc<str>>,
    /// One per part so far; `None`: a table had nothing to say.
    pub parts: Vec<Option<Arc<PartRow>>>,
}

/// What travels between the operators of a relation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Message {
    /// A version of the row that `identity` names; `None`: it is gone.
    Version {
        /// Part.
        part: usize,
        /// What names the row.
        identity: Key,
        /// Where in its stream it stands.
        place: Place,
        /// From when on it holds (or is gone), microseconds.
        time: i64,
        /// The row.
        row: Option<Arc<PartRow>>,
    },
    /// All rows committed before are gone. One for each worker.
    Truncate {
        /// Part.
        part: usize,
        /// First value of the names it is about.
        family: Value,
        /// The worker it is for.
        worker: u64,
        /// Where in its stream it stands.
        place: Place,
        /// When they went, microseconds.
        time: i64,
    },
    /// A row that step `step` adds a part to. `None`: a null matches nothing.
    Left {
        /// Step.
        step: usize,
        /// The row's side of the equalities.
        key: Option<Key>,
        /// The row.
        row: Row,
        /// How often it comes (or goes).
        weight: i64,
    },
    /// A row of the part that step `step` adds.
    Right {
        /// Step.
        step: usize,
        /// The part's side of the equalities.
        key: Key,
        /// The row.
        row: Arc<PartRow>,
        /// How often it comes (or goes).
        weight: i64,
    },
    /// Edges of the commit graph of step `step`.
    Edges {
        /// Step.
        step: usize,
        /// The graph.
        key: Key,
        /// Time of the row that tells them.
        time: i64,
        /// Commits and parents.
        edges: Arc<[Edge]>,
        /// How often they come (or go).
        weight: i64,
    },
    /// What a whole row says about the key of a sequence.
    Stay {
        /// The key.
        key: Key,
        /// The row and what it says.
        stay: Arc<Stay>,
        /// How often it comes (or goes).
        weight: i64,
    },
    /// A row of a sequence.
    Span {
        /// The row that opened the interval.
        row: Row,
        /// The interval.
        span: Span,
        /// How often it comes (or goes).
        weight: i64,
    },
    /// A whole row.
    Out {
        /// The row.
        row: Row,
        /// How often it comes (or goes).
        weight: i64,
    },
}

impl Message {
    /// By which worker it is handled.
    pub fn route(&self) -> u64 {
        match self {
            Self::Version { identity, .. } => identity.hash64(),
            Self::Truncate { worker, .. } => *worker,
            Self::Left { key: Some(key), .. } | Self::Right { key, .. } | Self::Edges { key, .. } => {
                key.hash64()
            }
            Self::Stay { key, .. } => key.hash64(),
            Self::Left { row, .. } | Self::Out { row, .. } | Self::Span { row, .. } => route_hash(&row.time),
        }
    }

    /// The step it is for; `None`: it is for none.
    pub fn step(&self) -> Option<usize> {
        match self {
            Self::Left { step, .. } | Self::Right { step, .. } | Self::Edges { step, .. } => Some(*step),
            _ => None,
        }
    }

    /// Whether it is about a version.
    pub fn is_version(&self) -> bool {
        matches!(self, Self::Version { .. } | Self::Truncate { .. })
    }

    /// Whether it is a whole row.
    pub fn is_out(&self) -> bool {
        matches!(self, Self::Out { .. })
    }

    /// Whether it is for a sequence.
    pub fn is_stay(&self) -> bool {
        matches!(self, Self::Stay { .. })
    }
}

/// A relation compiled.
#[derive(Debug)]
pub struct RelationPlan {
    /// The contract's.
    pub relation: Relation,
    /// Per part, one per feed; after the parts of rows those of history, in the order of [`Relation::history`].
    pub parts: Vec<Vec<FeedPlan>>,
    /// What becomes of whole rows.
    pub sequence: Option<SequencePlan>,
    /// How far back rows matter, microseconds.
    pub retain: i64,
}

impl RelationPlan {
    /// Compiles a relation; the error names the expression.
    pub fn new(relation: &Relation, retain: i64) -> Result<Self, (String, PlanError)> {
        let events: BTreeSet<usize> = relation.feeds().map(|feed| feed.event).collect();
        let rank = |event: usize| events.range(..event).count();
        let feed = |feed: &contracts::catalog::PartFeed| FeedPlan::new(feed, rank(feed.event));
        let feeds = |part: &contracts::catalog::Part| part.feeds.iter().map(feed).collect();
        let parts = relation.parts.iter().chain(relation.history().map(|(_, history)| &history.part));
        Ok(Self {
            parts: parts.map(feeds).collect::<Result<_, _>>()?,
            sequence: relation.sequence.as_ref().map(SequencePlan::new).transpose()?,
            relation: relation.clone(),
            retain,
        })
    }

    /// What a row of a part means to the relation: it starts a row, it is a partner, or it tells
    /// edges. `None`: its side of the equality is null, or it tells none.
    pub fn enter(&self, part: usize, row: Arc<PartRow>, weight: i64) -> Option<Message> {
        if part == 0 {
            let row = Row { time: row.time, id: row.id.clone(), parts: vec![Some(row)] };
            return Some(self.onward(row, weight));
        }
        if part >= self.relation.parts.len() {
            return self.history(part - self.relation.parts.len(), &row, weight);
        }
        let step = part - 1;
        let cells = self.relation.steps[step].right.iter().map(|cell| &row.cells[*cell]);
        let key = key(cells)?;
        Some(Message::Right { step, key, row, weight })
    }

    /// What a row of history means: edges.
    fn history(&self, number: usize, row: &PartRow, weight: i64) -> Option<Message> {
        let (step, history) = self.relation.history().nth(number)?;
        let key = key(history.graph.iter().map(|cell| &row.cells[*cell]))?;
        let edges: Arc<[Edge]> = ships::edges(history.kind, row).into();
        (!edges.is_empty()).then_some(Message::Edges { step, key, time: row.time, edges, weight })
    }

    /// A row with all parts so far goes to the step that adds the next one, or out.
    pub fn onward(&self, row: Row, weight: i64) -> Message {
        let step = row.parts.len() - 1;
        let Some(plan) = self.relation.steps.get(step) else { return Message::Out { row, weight } };
        const NULL: Value = Value::Null;
        let cell = |(part, cell): &(usize, usize)| match &row.parts[*part] {
            Some(part) => &part.cells[*cell],
            None => &NULL,
        };
        let key = key(plan.left.iter().map(cell));
        Message::Left { step, key, row, weight }
    }
}

/// The key of some cells; `None` when one is null.
fn key<'a>(cells: impl Iterator<Item = &'a Value>) -> Option<Key> {
    let cells: Vec<Value> = cells.cloned().collect();
    (!cells.iter().any(Value::is_null)).then(|| Key::new(cells.into_iter()))
}
