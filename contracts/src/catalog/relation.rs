//! Relations: joins, tables and change streams of a metric, resolved.
//!
//! *In*: lowered metrics. *Out*: plain data. *Never*: text that still has to be parsed.

use arrow::datatypes::{Fields, SchemaRef};

use super::{Micros, Ships};
use crate::expr::Typed;

/// Rows that must remember other rows: joined ones, those with rows of tables beside them, the current rows of
/// a change stream.
#[derive(Debug, Clone)]
pub struct Relation {
    /// Columns of a row. `flat`: the columns of the first part, then one struct column per further part; else
    /// one struct column per part. Then `time`.
    pub schema: SchemaRef,
    /// See `schema`.
    pub flat: bool,
    /// What rows are made of. The first starts a row, each further one is added by the step before it.
    pub parts: Vec<Part>,
    /// `steps[i]` adds `parts[i + 1]`.
    pub steps: Vec<Step>,
}

impl Relation {
    /// The event types that bring its rows, as indexes into [`Catalog::events`], each once.
    pub fn events(&self) -> std::collections::BTreeSet<usize> {
        self.feeds().map(|feed| feed.event).collect()
    }

    /// The feeds of all parts, those of history included.
    pub fn feeds(&self) -> impl Iterator<Item = &PartFeed> {
        let history = self.history().map(|(_, history)| &history.part);
        self.parts.iter().chain(history).flat_map(|part| &part.feeds)
    }

    /// The same, to change them.
    pub(crate) fn feeds_mut(&mut self) -> impl Iterator<Item = &mut PartFeed> {
        let ships = self.steps.iter_mut().filter_map(|step| step.ships.as_mut());
        let history = ships.flat_map(|ships| &mut ships.history).map(|history| &mut history.part);
        self.parts.iter_mut().chain(history).flat_map(|part| &mut part.feeds)
    }

    /// What tells parents of commits, with the step it is for.
    pub fn history(&self) -> impl Iterator<Item = (usize, &super::History)> {
        let steps = self.steps.iter().enumerate();
        let shipped = steps.filter_map(|(number, step)| Some((number, step.ships.as_ref()?)));
        shipped.flat_map(|(number, ships)| ships.history.iter().map(move |history| (number, history)))
    }
}

/// The rows of one alias or table.
#[derive(Debug, Clone)]
pub struct Part {
    /// Alias, or name under `enrich`.
    pub name: String,
    /// Columns that show, and their types; the first cells of a row.
    pub fields: Fields,
    /// One per event type that brings rows.
    pub feeds: Vec<PartFeed>,
}

/// How one event type brings rows of a part.
#[derive(Debug, Clone)]
pub struct PartFeed {
    /// Index into [`Catalog::events`]; all expressions are over its `admitted` schema.
    pub event: usize,
    /// `where`.
    pub filter: Option<Typed>,
    /// The cells of a row: one per field of the part, then the keys of the steps (see [`Step`]).
    pub cells: Vec<Typed>,
    /// Columns that are lists of text, as paths below the event's columns; cells after `cells`. Empty: no such column.
    pub lists: Vec<Vec<String>>,
    /// The row's time; `None`: since ever.
    pub time: Option<Typed>,
    /// What names a row, where a newer version replaces the one before; empty: every event is a row.
    pub identity: Vec<Typed>,
    /// Names are of the table, whichever event type brings them; else of this event type.
    pub of_table: bool,
}

/// Adds a part to each row.
#[derive(Debug, Clone)]
pub struct Step {
    /// For people: `change to artifact`.
    pub name: String,
    /// The part whose time counts; `None`: the time of the row so far.
    pub from: Option<usize>,
    /// `(part, cell)` of the row's side of each equality.
    pub left: Vec<(usize, usize)>,
    /// Cell of the added part's side of each equality.
    pub right: Vec<usize>,
    /// Which partner.
    pub pick: Pick,
    /// When the partner happened.
    pub order: Order,
    /// Not at the same instant.
    pub strict: bool,
    /// At most this far apart; `None`: however far.
    pub within: Option<Micros>,
    /// Cell of the added part that holds the instant from which on its row is no longer valid.
    pub valid_to: Option<usize>,
    /// What becomes of rows without a partner.
    pub missing: Missing,
    /// Partners are deployments that ship the row's commit; `pick`, `order` and `strict` then say nothing.
    pub ships: Option<Ships>,
}

/// `pick:` of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Pick {
    First,
    Last,
    Each,
}

/// `order:` of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Order {
    After,
    Before,
    Any,
}

/// What becomes of rows without a partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A join: they wait, then count as unmatched.
    Wait,
    /// `keep`: the partner's columns are null.
    Keep,
    /// `drop`: left out, counted as `missing`.
    Drop,
    /// `hold`: left out, counted as `held`.
    Hold,
    /// `fail`: left out, counted as `failed`.
    Fail,
}
