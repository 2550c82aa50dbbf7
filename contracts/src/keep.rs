//! What a change of contracts does to the state that is held: what is kept, what is made again, and from what.
//!
//! *In*: the catalog that runs and the one that is to run. *Out*: an [`Effect`] per contract of the new one, and the
//! part of it that has to read history. *Never*: state that is kept although anything it was made of means something
//! else now; a second opinion: `streamgauge diff` and a reload both ask here.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::{Catalog, Entity, Event, Input, Metric};
use crate::diff::Effect;
use crate::load::ROW_EVENT;
use crate::shape::Kind;

/// What becomes of the state of each contract of a new catalog, by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePlan {
    /// Ids of events. `Keep` or `Replay`: rows that were decoded or admitted otherwise must be again.
    pub events: Vec<Effect>,
    /// Rows of entities.
    pub entities: Vec<Effect>,
    /// Everything a metric holds.
    pub metrics: Vec<Effect>,
    /// Events whose rows had no ids before, and have them now.
    pub ids_new: BTreeSet<usize>,
}

/// The part of a catalog that has to read history.
#[derive(Debug, Clone)]
pub struct History {
    /// All events, at their places, with the entities and metrics that are made again.
    pub catalog: Arc<Catalog>,
    /// Indexes of the events that are read; rows of others can be passed over.
    pub events: BTreeSet<usize>,
}

impl StatePlan {
    /// What going from `old` to `new` does.
    pub fn new(old: &Catalog, new: &Catalog) -> Self {
        let mut events: Vec<Effect> = new.events.iter().map(|event| of_event(old, event)).collect();
        // The engine's own event tells of all others.
        let same = old.events.len() == new.events.len() && events.iter().all(|e| *e == Effect::Keep);
        if let Some(rows) = new.event_index(ROW_EVENT).filter(|_| !same) {
            events[rows] = Effect::Replay;
        }
        let entities: Vec<Effect> =
            new.entities.iter().map(|entity| of_entity(old, entity, &events)).collect();
        let metrics = new.metrics.iter().map(|metric| of_metric(old, metric, &events, &entities)).collect();
        let ids_new = |(_, event): &(usize, &Arc<Event>)| {
            let before = old.event_index(&event.head.name).map(|index| old.events[index].needs_id);
            event.needs_id && before == Some(false)
        };
        let ids_new = new.events.iter().enumerate().filter(ids_new).map(|(index, _)| index).collect();
        Self { events, entities, metrics, ids_new }
    }

    /// Every contract of the new catalog with its effect, by kind and name. Carriers of tables are the tables.
    pub fn contracts<'a>(&self, new: &'a Catalog) -> Vec<(Kind, &'a str, Effect)> {
        let declared = |event: &&Event| !new.tables.iter().any(|table| names(new, table.event, event));
        let events = new.events.iter().map(Arc::as_ref).zip(&self.events).filter(|(e, _)| declared(e));
        let events = events.map(|(event, effect)| (Kind::Event, event.head.name.as_str(), *effect));
        let entities = new.entities.iter().zip(&self.entities);
        let entities = entities.map(|(entity, effect)| (Kind::Entity, entity.head.name.as_str(), *effect));
        let tables = new.tables.iter();
        let tables = tables.map(|table| (Kind::Table, table.head.name.as_str(), self.events[table.event]));
        let metrics = new.metrics.iter().zip(&self.metrics);
        let metrics = metrics.map(|(metric, effect)| (Kind::Metric, metric.head.name.as_str(), *effect));
        events.chain(entities).chain(tables).chain(metrics).collect()
    }

    /// Metrics that are made again from rows of entities which are kept: nothing has to be read for them.
    pub fn from_entities<'a>(&'a self, new: &'a Catalog) -> impl Iterator<Item = usize> + 'a {
        let kept = |input: Input| matches!(input, Input::Entity(e) if self.entities[e] == Effect::Keep);
        let fits = move |metric: &Metric| metric.feeds.iter().all(|feed| kept(feed.input));
        let again = self.metrics.iter().enumerate().filter(|(_, effect)| **effect != Effect::Keep);
        again.map(|(index, _)| index).filter(move |index| fits(&new.metrics[*index]))
    }

    /// What has to read history; `None`: nothing has to.
    pub fn history(&self, new: &Catalog) -> Option<History> {
        let told: BTreeSet<usize> = self.from_entities(new).collect();
        let again = |effects: &[Effect]| -> Vec<usize> {
            (0..effects.len()).filter(|index| effects[*index] != Effect::Keep).collect()
        };
        let entities = again(&self.entities);
        let metrics: Vec<usize> =
            again(&self.metrics).into_iter().filter(|index| !told.contains(index)).collect();
        let mut events: BTreeSet<usize> = again(&self.events).into_iter().collect();
        events.extend(entities.iter().flat_map(|entity| fed_by(&new.entities[*entity])));
        events.extend(metrics.iter().flat_map(|metric| reads(&new.metrics[*metric])));
        if new.event_index(ROW_EVENT).is_some_and(|rows| events.contains(&rows)) {
            events.extend(0..new.events.len());
        }
        if events.is_empty() {
            return None;
        }
        let metric = |index: &usize| {
            let mut metric = Metric::clone(&new.metrics[*index]);
            for feed in &mut metric.feeds {
                if let Input::Entity(entity) = feed.input {
                    // Those of kept entities alone are not here, and there is one entity at most.
                    let at = entities.iter().position(|again| *again == entity).unwrap_or_default();
                    feed.input = Input::Entity(at);
                }
            }
            Arc::new(metric)
        };
        let catalog = Catalog {
            events: new.events.clone(),
            entities: entities.iter().map(|index| Arc::clone(&new.entities[*index])).collect(),
            tables: new.tables.iter().filter(|table| events.contains(&table.event)).cloned().collect(),
            metrics: metrics.iter().map(metric).collect(),
            hash: format!("{} from history", new.hash),
        };
        Some(History { catalog: Arc::new(catalog), events })
    }
}

fn names(catalog: &Catalog, index: usize, event: &Event) -> bool {
    catalog.events[index].head.name == event.head.name
}

fn of_event(old: &Catalog, event: &Event) -> Effect {
    let before = old.event_index(&event.head.name).map(|index| &old.events[index]);
    let same = before.is_some_and(|before| before.head.state == event.head.state);
    if same { Effect::Keep } else { Effect::Replay }
}

fn fed_by(entity: &Entity) -> impl Iterator<Item = usize> + '_ {
    entity.feeds.iter().map(|feed| feed.event)
}

fn of_entity(old: &Catalog, entity: &Entity, events: &[Effect]) -> Effect {
    if fed_by(entity).any(|event| events[event] == Effect::Replay) {
        return Effect::Replay;
    }
    let before = old.entity_index(&entity.head.name).map(|index| &old.entities[index].head.state);
    if before == Some(&entity.head.state) { Effect::Keep } else { Effect::Rebuild }
}

/// The events that a metric reads without an entity between.
fn reads(metric: &Metric) -> impl Iterator<Item = usize> + '_ {
    let own = metric.feeds.iter().filter_map(|feed| match feed.input {
        Input::Event(event) => Some(event),
        Input::Entity(_) | Input::Relation(_) => None,
    });
    own.chain(metric.relations.iter().flat_map(|relation| relation.feeds()).map(|feed| feed.event))
}

fn of_metric(old: &Catalog, metric: &Metric, events: &[Effect], entities: &[Effect]) -> Effect {
    let over = metric.feeds.iter().filter_map(|feed| match feed.input {
        Input::Entity(entity) => Some(entities[entity]),
        Input::Event(_) | Input::Relation(_) => None,
    });
    let below = over.chain(reads(metric).map(|event| events[event])).max().unwrap_or(Effect::Keep);
    let before = old.metric_index(&metric.head.name).map(|index| &old.metrics[index].head.state);
    let own = if before == Some(&metric.head.state) { Effect::Keep } else { Effect::Rebuild };
    own.max(below)
}
