//! Random cases of rows that relate to each other: joins, tables, change streams.
//!
//! *In*: a seed from [`super::RELATED`] on. *Out*: a case. *Never*: rows near the edge of retention; keys
//! of a change stream in two partitions.

mod contracts;
mod entities;
mod metric;
mod records;
mod sequenced;
mod shipped;

use super::{Case, Column, chance, pick};
use crate::oracle::zone::{HOUR, MINUTE, SECOND};

/// How the events of a type come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    /// As events with the envelope of the source.
    Plain,
    /// Like that, but as versions of rows, and their ends as tombstones.
    Rows,
    /// As envelopes of Debezium in a topic of their own.
    Debezium,
}

/// An event contract, as far as the other generators must know it.
#[derive(Debug, Clone)]
struct Model {
    name: String,
    feed: Feed,
    /// Names of fields and what they hold (see `records::Maker::value`).
    fields: Vec<(&'static str, &'static str)>,
    /// The field that names a row of a change stream or of a table.
    key: Option<&'static str>,
    /// A second field of the key.
    also: Option<&'static str>,
    /// The event time is a field of the row.
    timed: bool,
    /// Its events have ids.
    ids: bool,
    /// Fields, `time` and enrich columns.
    columns: Vec<Column>,
}

impl Model {
    /// A change stream?
    fn versioned(&self) -> bool {
        self.feed != Feed::Plain
    }
}

/// A table and the model that feeds it.
#[derive(Debug, Clone)]
struct TableModel {
    name: &'static str,
    key: &'static str,
    columns: Vec<Column>,
}

/// What a case of relations is about, beside its theme.
#[derive(Debug, Clone, Copy)]
struct Grid {
    /// Event times are mostly multiples of this, so that they meet.
    step: i64,
}

/// Everything about a seed.
pub(super) fn case(seed: u64) -> Case {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut theme = super::theme(&mut rng);
    // All that happens is retained: what old rows may still join with is another matter.
    theme.span = *pick(&mut rng, &[10 * MINUTE, 2 * HOUR, 30 * HOUR]);
    theme.late = theme.span;
    theme.rich = true;
    theme.fresh = seed >= super::FRESH;
    let grid = Grid { step: (theme.span / *pick(&mut rng, &[8, 16, 40]) / SECOND).max(1) * SECOND };
    let mut yaml = String::new();
    let (models, tables) = contracts::contracts(&mut rng, theme.fresh, &mut yaml);
    metric::metrics(&mut rng, &theme, grid, &models, &tables, &mut yaml);
    if theme.fresh {
        entities::entity(&mut rng, &theme, &models, &mut yaml);
    }
    let partitions = rng.usize(1..4);
    let (topics, start, segments) = records::segments(&mut rng, &theme, grid, &models, partitions);
    Case { seed, yaml, start, segments, partitions, topics }
}

/// Everything about a seed of shipped sets.
pub(super) fn shipped_case(seed: u64) -> Case {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut theme = super::theme(&mut rng);
    theme.span = *pick(&mut rng, &[10 * MINUTE, 2 * HOUR, 30 * HOUR]);
    theme.late = theme.span;
    theme.rich = true;
    let grid = Grid { step: (theme.span / *pick(&mut rng, &[8, 16, 40]) / SECOND).max(1) * SECOND };
    let mut yaml = String::new();
    let models = shipped::contracts(&mut rng, &mut yaml);
    shipped::metrics(&mut rng, &theme, grid, &models, &mut yaml);
    let partitions = rng.usize(1..4);
    let (topics, start, segments) = records::segments(&mut rng, &theme, grid, &models, partitions);
    Case { seed, yaml, start, segments, partitions, topics }
}

/// Everything about a seed of sequences. Those that 3 divides have plain events alone.
pub(super) fn sequenced_case(seed: u64) -> Case {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut theme = super::theme(&mut rng);
    theme.span = *pick(&mut rng, &[10 * MINUTE, 2 * HOUR, 30 * HOUR]);
    theme.late = theme.span;
    theme.rich = true;
    // What is said to be retained would have to reach over the windows of `over`.
    theme.retain = None;
    theme.later = seed >= super::LATER;
    let grid = Grid { step: (theme.span / *pick(&mut rng, &[8, 16, 40]) / SECOND).max(1) * SECOND };
    let mut yaml = String::new();
    let (models, tables) = sequenced::contracts(&mut rng, seed.is_multiple_of(3), &mut yaml);
    sequenced::metrics(&mut rng, &theme, &models, &tables, &mut yaml);
    let partitions = rng.usize(1..4);
    let (topics, start, segments) = records::segments(&mut rng, &theme, grid, &models, partitions);
    Case { seed, yaml, start, segments, partitions, topics }
}

/// One of `words`.
fn word(rng: &mut fastrand::Rng, words: &[&'static str]) -> &'static str {
    words[rng.usize(..words.len())]
}
