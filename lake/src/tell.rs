//! What a round writes of metrics.
//!
//! *In*: the state of metrics at the newest tick. *Out*: for each table of results the rows that are new. *Never*: a row
//! that counts as written before it is part of a plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use contracts::Catalog;
use contracts::catalog::Metric;

use super::columns::Shape;
use super::results::{AtTick, Fresh, Held};
use super::{Lake, LakeError};

/// What has been told of metrics, and what there is to tell.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Hash of the contracts of `state`.
    contracts: String,
    /// Those of its metrics that have a table.
    metrics: Vec<Arc<Metric>>,
    /// Of the newest tick.
    state: Option<Arc<dyn AtTick>>,
    /// Per table.
    held: BTreeMap<String, Held>,
    /// The state that everything was told of.
    before: Option<Arc<dyn AtTick>>,
}

/// Rows of one round.
#[derive(Debug, Default)]
pub(super) struct Telling {
    state: Option<Arc<dyn AtTick>>,
    fresh: Vec<(String, Fresh, i64)>,
}

impl Telling {
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.iter().all(|(_, fresh, _)| fresh.len() == 0)
    }
}

impl Told {
    /// Takes the state of a tick. Other contracts than before may say something else of every window.
    pub(super) fn follow(&mut self, contracts: &Catalog, state: Arc<dyn AtTick>) {
        if self.contracts != contracts.hash {
            self.contracts.clone_from(&contracts.hash);
            self.metrics = contracts.metrics.iter().filter(|metric| metric.lake.is_some()).cloned().collect();
            self.before = None;
            self.held.clear();
        }
        self.state = Some(state);
    }

    /// These rows are part of a plan.
    pub(super) fn put(&mut self, telling: Telling) {
        for (table, fresh, from) in telling.fresh {
            self.held.entry(table).or_default().put(fresh, from);
        }
        self.before = telling.state.or(self.before.take());
    }
}

impl Lake {
    /// Adds the tables of results that contracts ask for.
    pub(super) fn add_results(contracts: &Catalog, shapes: &mut Vec<Shape>) -> Result<(), LakeError> {
        for metric in &contracts.metrics {
            let name = || metric.head.name.clone();
            let taken = |column| LakeError::Taken { event: format!("the metric {}", name()), column };
            let Some(shape) = Shape::of_results(metric).map_err(taken)? else { continue };
            if shapes.iter().any(|other| other.name == shape.name) {
                return Err(LakeError::Shared { table: shape.name, metric: name() });
            }
            shapes.push(shape);
        }
        Ok(())
    }

    /// Puts the rows that a round is to write into their lanes.
    pub(super) async fn tell(&mut self) -> Result<Telling, LakeError> {
        let Some(state) = self.told.state.clone() else { return Ok(Telling::default()) };
        let mut telling = Telling { state: Some(Arc::clone(&state)), fresh: Vec::new() };
        for metric in self.told.metrics.clone() {
            let Some(name) = metric.lake.clone() else { continue };
            let from = state.kept_from(&metric.head.name);
            let unreachable = |error: iceberg::Error| LakeError::unreachable(&name, error);
            if !self.told.held.contains_key(&name) {
                let table = self.tables.get(&name).and_then(|lane| lane.table.as_ref());
                let held = match table {
                    // A mistake for tests: what a process before this one has told.
                    Some(_) if faults::bug("forget_results") => Held::default(),
                    Some(table) => Held::read(table, &metric, from).await.map_err(unreachable)?,
                    None => Held::default(),
                };
                self.told.held.insert(name.clone(), held);
            }
            let fresh = self.told.held[&name].fresh(&metric, state.as_ref(), self.told.before.as_deref());
            let batch = match fresh.len() {
                0 => None,
                _ => Some(
                    fresh
                        .batch(&metric, state.as_of())
                        .map_err(|error| LakeError::unreachable(&name, error))?,
                ),
            };
            if let Some(lane) = self.tables.get_mut(&name) {
                lane.results = batch;
            }
            telling.fresh.push((name, fresh, from));
        }
        Ok(telling)
    }
}
