//! What has no second truth yet.
//!
//! *In*: a metric. *Out*: why it cannot be recomputed. *Never*: a number that agrees because nobody looked.

use contracts::catalog::{Agg, Catalog, Input, Metric};

use crate::ask::AuditError;

/// Refuses a metric with a part that is folded but not recomputed.
pub(crate) fn check(catalog: &Catalog, metric: &Metric) -> Result<(), AuditError> {
    match uncovered(catalog, metric) {
        Some(what) => Err(AuditError::NotRecomputed(format!("{what} have no second truth yet"))),
        None => Ok(()),
    }
}

fn uncovered(catalog: &Catalog, metric: &Metric) -> Option<&'static str> {
    let relations = || metric.relations.iter();
    if relations().any(|relation| relation.steps.iter().any(|step| step.ships.is_some())) {
        return Some("shipped sets");
    }
    if relations().any(|relation| relation.sequence.is_some()) {
        return Some("sequences");
    }
    if relations().any(|relation| relation.parts.iter().any(|part| part.history.is_some())) {
        return Some("tables over change streams");
    }
    let streamed = |feed: &contracts::catalog::Feed| match feed.input {
        Input::Entity(entity) => catalog.entities[entity].feeds.iter().any(|feed| feed.changelog),
        _ => false,
    };
    if metric.feeds.iter().any(streamed) {
        return Some("entities over change streams");
    }
    for fold in &metric.folds {
        match fold.agg {
            Agg::Concurrent | Agg::DurationInState => return Some("measures of what lasts"),
            _ => {}
        }
    }
    None
}
