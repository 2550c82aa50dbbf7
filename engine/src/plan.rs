//! From a catalog to what the workers run.
//!
//! *In*: a checked catalog. *Out*: an [`EnginePlan`], compiled once and shared by all workers and readers.
//! *Never*: an expression planned on a worker.

use std::collections::BTreeSet;
use std::sync::Arc;

use contracts::Catalog;
use contracts::catalog::{Input, MeasureKind};
use contracts::expr::Typed;
use operators::entity::EntityPlan;
use operators::eval::{Compiled, PlanError};
use operators::fold::plan::{MetricPlan, MetricPlanError};
use operators::relate::RelationPlan;

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
    /// The relations of all metrics.
    pub(crate) relations: Vec<RelationRef>,
    /// Per event type: the relations that read it, as indexes into `relations`.
    pub(crate) relations_of_event: Vec<Vec<usize>>,
}

/// A relation and where its rows go.
#[derive(Debug)]
pub(crate) struct RelationRef {
    /// Index into [`EnginePlan::metrics`].
    pub(crate) metric: usize,
    pub(crate) plan: RelationPlan,
    /// The feeds of the metric that read its rows.
    pub(crate) feeds: Vec<FeedRef>,
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
            relations: Vec::new(),
            relations_of_event: vec![Vec::new(); catalog.events.len()],
            entities,
            catalog: Arc::clone(&catalog),
        };
        for metric in &catalog.metrics {
            let name = &metric.head.name;
            let compiled = MetricPlan::new(Arc::clone(metric)).map_err(|e| metric_error(name, e))?;
            plan.register_relations(metric)?;
            plan.register(&compiled);
            plan.metrics.push(Arc::new(compiled));
            plan.answers.push(AnswerPlan::new(metric)?);
        }
        Ok(plan)
    }

    /// Metrics that an event type moves, by itself or through an entity.
    pub(crate) fn metrics_of_event(&self, event: usize) -> impl Iterator<Item = usize> + '_ {
        let through = self.entities_of_event[event].iter().flat_map(|e| &self.feeds_of_entity[*e]);
        let fed = self.feeds_of_event[event].iter().chain(through).map(|(metric, _)| *metric);
        fed.chain(self.relations_of_event[event].iter().map(|relation| self.relations[*relation].metric))
    }

    /// Whether a change stream is behind an entity.
    pub(crate) fn entities_follow_streams(&self) -> bool {
        self.catalog.entities.iter().any(|entity| entity.feeds.iter().any(|feed| feed.changelog))
    }

    /// Steps of the longest relation.
    pub(crate) fn most_steps(&self) -> usize {
        self.relations.iter().map(|relation| relation.plan.relation.steps.len()).max().unwrap_or(0)
    }

    /// Compiles the relations of the metric that is registered next.
    fn register_relations(&mut self, metric: &contracts::catalog::Metric) -> Result<(), EngineError> {
        for (number, relation) in metric.relations.iter().enumerate() {
            let plan = RelationPlan::new(relation, metric.retain)
                .map_err(|(sql, error)| expression(&metric.head.name, &sql, &error))?;
            let events: BTreeSet<usize> = plan.parts.iter().flatten().map(|feed| feed.event).collect();
            for event in events {
                self.relations_of_event[event].push(self.relations.len());
            }
            let reads = |feed: &contracts::catalog::Feed| feed.input == Input::Relation(number);
            let feeds = (0..metric.feeds.len()).filter(|feed| reads(&metric.feeds[*feed]));
            let feeds = feeds.map(|feed| (self.metrics.len(), feed)).collect();
            self.relations.push(RelationRef { metric: self.metrics.len(), plan, feeds });
        }
        Ok(())
    }

    fn register(&mut self, metric: &MetricPlan) {
        for (number, feed) in metric.feeds.iter().enumerate() {
            let feeds = match feed.input {
                Input::Event(event) => &mut self.feeds_of_event[event],
                Input::Entity(entity) => &mut self.feeds_of_entity[entity],
                Input::Relation(_) => continue, // see `register_relations`
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
