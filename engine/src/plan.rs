//! From a catalog to what the workers run.
//!
//! *In*: a checked catalog. *Out*: an [`EnginePlan`], compiled once and shared by all workers and readers.
//! *Never*: an expression planned on a worker.

use std::sync::Arc;

use contracts::Catalog;
use contracts::catalog::{Input, MeasureKind};
use contracts::expr::Typed;
use operators::entity::EntityPlan;
use operators::eval::{Compiled, PlanError};
use operators::fold::plan::{MetricPlan, MetricPlanError};

use crate::api::EngineError;

/// A feed of a metric: indexes into [`EnginePlan::metrics`] and its feeds.
pub(crate) type FeedRef = (usize, usize);

#[derive(Debug)]
pub(crate) struct EnginePlan {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) entities: Vec<Arc<EntityPlan>>,
    pub(crate) metrics: Vec<Arc<MetricPlan>>,
    pub(crate) answers: Vec<AnswerPlan>,
    /// Per event type: the metric feeds that read it.
    pub(crate) feeds_of_event: Vec<Vec<FeedRef>>,
    /// Per event type: the entities it feeds.
    pub(crate) entities_of_event: Vec<Vec<usize>>,
    /// Per entity: the metric feeds that read its rows.
    pub(crate) feeds_of_entity: Vec<Vec<FeedRef>>,
}

/// The compiled measure expressions and level conditions of a metric.
#[derive(Debug)]
pub(crate) struct AnswerPlan {
    /// One per measure; `Some` for `expr` measures.
    pub(crate) exprs: Vec<Option<Compiled>>,
    /// One per level.
    pub(crate) levels: Vec<Compiled>,
}

impl EnginePlan {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Result<Self, EngineError> {
        let entities = catalog.entities.iter().map(|entity| {
            EntityPlan::new(Arc::clone(entity))
                .map(Arc::new)
                .map_err(|(sql, error)| expression(&entity.head.name, &sql, &error))
        });
        let entities = entities.collect::<Result<Vec<_>, _>>()?;
        let mut plan = Self {
            entities_of_event: entities_of_event(&catalog),
            feeds_of_event: vec![Vec::new(); catalog.events.len()],
            feeds_of_entity: vec![Vec::new(); catalog.entities.len()],
            metrics: Vec::new(),
            answers: Vec::new(),
            entities,
            catalog: Arc::clone(&catalog),
        };
        for metric in &catalog.metrics {
            let name = &metric.head.name;
            let compiled = MetricPlan::new(Arc::clone(metric)).map_err(|e| metric_error(name, e))?;
            plan.register(&compiled);
            plan.metrics.push(Arc::new(compiled));
            plan.answers.push(AnswerPlan::new(metric)?);
        }
        Ok(plan)
    }

    /// Metrics that an event type moves, by itself or through an entity.
    pub(crate) fn metrics_of_event(&self, event: usize) -> impl Iterator<Item = usize> + '_ {
        let through = self.entities_of_event[event].iter().flat_map(|e| &self.feeds_of_entity[*e]);
        self.feeds_of_event[event].iter().chain(through).map(|(metric, _)| *metric)
    }

    fn register(&mut self, metric: &MetricPlan) {
        for (number, feed) in metric.feeds.iter().enumerate() {
            let feeds = match feed.input {
                Input::Event(event) => &mut self.feeds_of_event[event],
                Input::Entity(entity) => &mut self.feeds_of_entity[entity],
            };
            feeds.push((self.metrics.len(), number));
        }
    }
}

impl AnswerPlan {
    fn new(metric: &contracts::catalog::Metric) -> Result<Self, EngineError> {
        let compile = |typed: &Typed| {
            Compiled::new(typed).map_err(|error| expression(&metric.head.name, &typed.sql, &error))
        };
        let exprs = metric.measures.iter().map(|measure| match &measure.kind {
            MeasureKind::Expr { expr, .. } => compile(expr).map(Some),
            _ => Ok(None),
        });
        let exprs = exprs.collect::<Result<_, _>>()?;
        let levels = metric.levels.iter().map(|level| compile(&level.when));
        Ok(Self { exprs, levels: levels.collect::<Result<_, _>>()? })
    }
}

fn entities_of_event(catalog: &Catalog) -> Vec<Vec<usize>> {
    let feeds = |event: usize| {
        let fed = |entity: &&usize| catalog.entities[**entity].feeds.iter().any(|feed| feed.event == event);
        (0..catalog.entities.len()).collect::<Vec<_>>().iter().filter(fed).copied().collect()
    };
    (0..catalog.events.len()).map(feeds).collect()
}

fn metric_error(name: &str, error: MetricPlanError) -> EngineError {
    match error {
        MetricPlanError::Expression { sql, source } => expression(name, &sql, &source),
        MetricPlanError::Zone(zone) => {
            EngineError::Plan { contract: name.to_owned(), sql: zone.0.clone(), message: zone.to_string() }
        }
    }
}

pub(crate) fn expression(contract: &str, sql: &str, error: &PlanError) -> EngineError {
    EngineError::Plan { contract: contract.to_owned(), sql: sql.to_owned(), message: error.to_string() }
}
