//! The dataflow graph.
//!
//! *In*: decoded batches, and admitted rows whose time has come. *Out*: changes of panes, stashed per tick.
//! *Never*: state of its own; operators borrow the worker's [`Local`] while they run.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use contracts::batch::EventBatch;
use operators::entity::Touch;
use operators::fold::group::{Delta, Rows, group};
use operators::fold::panes::route_hash;
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Capability, Concat, Input, Probe};
use timely::dataflow::{InputHandle, ProbeHandle, StreamVec};
use timely::worker::Worker;

use super::{Fed, Local, Rowset, SharedLocal, relate, streams};

pub(super) type Container<T> = CapacityContainerBuilder<Vec<T>>;

/// The dataflow's inputs.
pub(crate) struct Inputs {
    /// Decoded rows.
    pub(crate) decoded: InputHandle<u64, Container<Rowset>>,
    /// Admitted rows that waited for the clock.
    pub(crate) released: InputHandle<u64, Container<Rowset>>,
}

impl Inputs {
    /// Nothing more comes before `tick`.
    pub(crate) fn advance_to(&mut self, tick: u64) {
        self.decoded.advance_to(tick);
        self.released.advance_to(tick);
        self.decoded.flush();
        self.released.flush();
    }
}

/// A touch on its way to the worker that owns the row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Touched {
    pub(super) entity: usize,
    pub(super) touch: Touch,
}

/// A change on its way to the worker that owns the key.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Changed {
    metric: usize,
    delta: Delta,
}

/// Builds the same graph on every worker.
pub(crate) fn build(worker: &mut Worker, local: &SharedLocal) -> (Inputs, ProbeHandle<u64>) {
    let mut inputs = Inputs { decoded: InputHandle::new(), released: InputHandle::new() };
    let probe = ProbeHandle::new();
    worker.dataflow::<u64, _, _>(|scope| {
        let decoded = scope.input_from(&mut inputs.decoded);
        let released = scope.input_from(&mut inputs.released);
        let admitted = admit(decoded, local).concat(released);
        let mut touched = touch(admitted.clone(), local);
        if local.borrow().plan.entities_follow_streams() {
            touched = touched.concat(streams::touches(admitted.clone(), local));
        }
        let changes = entities(touched, local);
        let mut fed = changes;
        if !local.borrow().plan.relations.is_empty() {
            fed = fed.concat(relate::rows(admitted.clone(), local));
        }
        let fed = admitted.map(|(_, batch)| Fed::Events(batch)).concat(fed);
        let changed = group_rows(fed, local);
        stash(changed, local).probe_with(&probe);
    });
    (inputs, probe)
}

fn admit<'s>(rows: StreamVec<'s, u64, Rowset>, local: &SharedLocal) -> StreamVec<'s, u64, Rowset> {
    let local = Rc::clone(local);
    rows.unary::<Container<Rowset>, _, _, _>(Pipeline, "admit", |_, _| {
        move |input, output| {
            input.for_each(|time, data| {
                let mut local = local.borrow_mut();
                let mut session = output.session(&time);
                for (partition, batch) in data.drain(..) {
                    for rows in local.admit(partition, batch) {
                        session.give(rows);
                    }
                }
            });
        }
    })
}

fn touch<'s>(rows: StreamVec<'s, u64, Rowset>, local: &SharedLocal) -> StreamVec<'s, u64, Touched> {
    let plan = Arc::clone(&local.borrow().plan);
    rows.unary::<Container<Touched>, _, _, _>(Pipeline, "fold: touch entities", |_, _| {
        move |input, output| {
            input.for_each(|time, data| {
                let mut session = output.session(&time);
                for (_, batch) in data.drain(..) {
                    for entity in &plan.entities_of_event[batch.event] {
                        let (touches, _) = plan.entities[*entity].touches(&batch);
                        for touch in touches {
                            session.give(Touched { entity: *entity, touch });
                        }
                    }
                }
            });
        }
    })
}

/// Applies touches when their tick is complete, so that a row changes at most once per tick.
fn entities<'s>(touched: StreamVec<'s, u64, Touched>, local: &SharedLocal) -> StreamVec<'s, u64, Fed> {
    let local = Rc::clone(local);
    let by_key = Exchange::new(|touched: &Touched| route_hash(&touched.touch.key));
    touched.unary_frontier::<Container<Fed>, _, _, _>(by_key, "fold: entities", |_, _| {
        let mut waiting: BTreeMap<u64, (Capability<u64>, Vec<Touched>)> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|time, data| {
                let tick = *time.time();
                let (_, touches) = waiting.entry(tick).or_insert_with(|| (time.retain(0), Vec::new()));
                touches.append(data);
            });
            while let Some(entry) = waiting.first_entry() {
                if frontier.less_equal(entry.key()) {
                    break;
                }
                let (capability, touches) = entry.remove();
                let mut session = output.session(&capability);
                for fed in apply_touches(&mut local.borrow_mut(), touches) {
                    session.give(fed);
                }
            }
        }
    })
}

fn apply_touches(local: &mut Local, touched: Vec<Touched>) -> Vec<Fed> {
    let mut by_entity: BTreeMap<usize, Vec<Touch>> = BTreeMap::new();
    for Touched { entity, touch } in touched {
        by_entity.entry(entity).or_default().push(touch);
    }
    let entities = &mut local.entities;
    let changes = by_entity
        .into_iter()
        .filter_map(|(entity, touches)| Some(Fed::Entity(entity, entities[entity].apply(touches)?)));
    changes.collect()
}

fn group_rows<'s>(fed: StreamVec<'s, u64, Fed>, local: &SharedLocal) -> StreamVec<'s, u64, Changed> {
    let local = Rc::clone(local);
    fed.unary::<Container<Changed>, _, _, _>(Pipeline, "fold: group", |_, _| {
        move |input, output| {
            input.for_each(|time, data| {
                let mut local = local.borrow_mut();
                let mut session = output.session(&time);
                for fed in data.drain(..) {
                    local.group(&fed, |metric, delta| session.give(Changed { metric, delta }));
                }
            });
        }
    })
}

impl Local {
    fn group(&mut self, fed: &Fed, mut give: impl FnMut(usize, Delta)) {
        let plan = Arc::clone(&self.plan);
        let (rows, feeds) = match fed {
            Fed::Events(batch) => (event_rows(batch), &plan.feeds_of_event[batch.event]),
            Fed::Entity(entity, changes) => (changes.rows(), &plan.feeds_of_entity[*entity]),
            Fed::Relation(relation, changes) => (changes.rows(), &plan.relations[*relation].feeds),
        };
        let (newest, now) = (newest(fed), self.now);
        for (metric, feed) in feeds {
            let compiled = &plan.metrics[*metric];
            let lost = self.lost.entry(*metric).or_default();
            for delta in group(compiled, &compiled.feeds[*feed], rows, now, lost) {
                give(*metric, delta);
            }
        }
        if let (Fed::Events(batch), Some(newest)) = (fed, newest) {
            for metric in plan.metrics_of_event(batch.event) {
                let known = self.newest.entry(metric).or_insert(newest);
                *known = (*known).max(newest);
            }
        }
    }
}

fn event_rows(batch: &EventBatch) -> Rows<'_> {
    Rows { batch: &batch.columns, received: Some(&batch.received), ids: Some(&batch.ids), weights: None }
}

/// The newest event time of a batch with its received time.
fn newest(fed: &Fed) -> Option<(i64, i64)> {
    let Fed::Events(batch) = fed else { return None };
    let times = operators::admit::event_times(&batch.columns);
    times.values().iter().copied().zip(batch.received.iter().copied()).max()
}

/// Keeps the changes of a tick until it is closed.
fn stash<'s>(changed: StreamVec<'s, u64, Changed>, local: &SharedLocal) -> StreamVec<'s, u64, ()> {
    let local = Rc::clone(local);
    let by_key = Exchange::new(|changed: &Changed| changed.delta.key.hash64());
    changed.unary::<Container<()>, _, _, _>(by_key, "fold: panes", |_, _| {
        move |input, _output| {
            input.for_each(|time, data| {
                let mut local = local.borrow_mut();
                let tick = local.stash.entry(*time.time()).or_default();
                for Changed { metric, delta } in data.drain(..) {
                    tick.entry(metric).or_default().push(delta);
                }
            });
        }
    })
}
