//! Which events a question needs.
//!
//! *In*: a question. *Out*: event types, and how far back. *Never*: fewer than the answer depends on.

use std::collections::{BTreeMap, BTreeSet};

use contracts::Catalog;
use contracts::catalog::{Input, MeasureKind, Metric, Micros, Missing, Overflow, Relation, WindowKind};

use crate::ask::{AuditError, Question};
use crate::window;

/// A day over: panes, time zones and rows ahead of the clock need more than `retain` says.
const SLACK: Micros = 24 * 3_600_000_000;

/// The event types that move a metric, as indexes into the catalog's events.
pub fn reads(catalog: &Catalog, metric: &Metric) -> BTreeSet<usize> {
    let events = |input: &Input| match input {
        Input::Event(event) => BTreeSet::from([*event]),
        Input::Entity(entity) => catalog.entities[*entity].feeds.iter().map(|feed| feed.event).collect(),
        Input::Relation(relation) => metric.relations[*relation].events(),
    };
    metric.feeds.iter().flat_map(|feed| events(&feed.input)).collect()
}

/// The event types whose events are counted on the way to a number: those of its aliases, or of its entity. Types that
/// only tables or commit graphs are made of are looked up and not counted.
pub fn counted(catalog: &Catalog, metric: &Metric) -> BTreeSet<usize> {
    let events = |input: &Input| match input {
        Input::Event(event) => BTreeSet::from([*event]),
        Input::Entity(entity) => catalog.entities[*entity].feeds.iter().map(|feed| feed.event).collect(),
        Input::Relation(relation) => {
            let relation = &metric.relations[*relation];
            let parts = relation.parts.iter().enumerate();
            let own = parts.filter(|(part, _)| is_alias(relation, *part)).map(|(_, part)| part);
            own.flat_map(|part| &part.feeds).map(|feed| feed.event).collect()
        }
    };
    metric.feeds.iter().flat_map(|feed| events(&feed.input)).collect()
}

/// Whether part `index` holds rows of an alias, not of a table.
pub(crate) fn is_alias(relation: &Relation, index: usize) -> bool {
    index == 0 || relation.steps[index - 1].missing == Missing::Wait
}

/// How far back the events of each type matter to any metric, microseconds; types that none reads are left out.
pub fn kept(catalog: &Catalog) -> BTreeMap<usize, Micros> {
    let mut kept = BTreeMap::new();
    for metric in &catalog.metrics {
        let back = match is_bounded(metric) {
            true => metric.retain.saturating_add(SLACK),
            false => Micros::MAX,
        };
        for event in reads(catalog, metric) {
            let known = kept.entry(event).or_insert(back);
            *known = back.max(*known);
        }
    }
    kept
}

/// Whether events older than `retain` matter no more.
fn is_bounded(metric: &Metric) -> bool {
    let plain = metric.feeds.iter().all(|feed| matches!(feed.input, Input::Event(_)));
    plain && where_it_was(metric) && metric.windows.iter().all(|window| window.kind != WindowKind::All)
}

/// Whether rows count at their own times and then only.
fn where_it_was(metric: &Metric) -> bool {
    let lasts = metric.folds.iter().any(|fold| fold.agg.is_span());
    !lasts && metric.feeds.iter().all(|feed| feed.moment.is_none())
}

/// The first instant whose events the answer depends on.
///
/// # Errors
/// A window beyond the calendar.
pub fn needs_from(metric: &Metric, question: &Question) -> Result<Micros, AuditError> {
    let plain = metric.feeds.iter().all(|feed| matches!(feed.input, Input::Event(_)));
    let all = metric.windows.iter().any(|window| window.kind == WindowKind::All);
    let refuses = metric.dimensions.iter().any(|dimension| dimension.overflow == Overflow::Refuse);
    let kind = &metric.windows[question.window].kind;
    let named = refuses || question.filter.is_some() || !question.by.is_empty();
    let oldest =
        if all { Micros::MIN } else { question.now.saturating_sub(metric.retain).saturating_sub(SLACK) };
    // A row may count long after its own time, where the contract says when.
    let elsewhere = !where_it_was(metric);
    if !plain || elsewhere || *kind == WindowKind::All {
        return Ok(Micros::MIN);
    }
    // What windows of windows look back to depends on the first row of a group.
    let named =
        named || metric.measures.iter().any(|measure| matches!(measure.kind, MeasureKind::Over { .. }));
    // Which values keep their name, and where a session began, depends on all that is retained.
    if named || matches!(kind, WindowKind::Session { .. }) {
        return Ok(oldest);
    }
    let back = metric.measures.iter().map(|measure| match measure.kind {
        MeasureKind::Shift { by, .. } => by,
        _ => 0,
    });
    // Shifts of shifts add up.
    let back = back.sum::<Micros>().saturating_add(window::step(metric)?);
    let first = window::span(kind, question.as_of.saturating_sub(back))?;
    Ok(first.map_or(oldest, |(start, _)| start))
}
