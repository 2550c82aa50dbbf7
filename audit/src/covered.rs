//! What has no second truth yet.
//!
//! *In*: a metric. *Out*: why it cannot be recomputed. *Never*: a number that agrees because nobody looked.

use contracts::catalog::Metric;

use crate::ask::AuditError;

/// Refuses a metric with a part that is folded but not recomputed.
pub(crate) fn check(metric: &Metric) -> Result<(), AuditError> {
    match uncovered(metric) {
        Some(what) => Err(AuditError::NotRecomputed(format!("{what} have no second truth yet"))),
        None => Ok(()),
    }
}

fn uncovered(metric: &Metric) -> Option<&'static str> {
    let relations = || metric.relations.iter();
    if relations().any(|relation| relation.steps.iter().any(|step| step.ships.is_some())) {
        return Some("shipped sets");
    }
    None
}
