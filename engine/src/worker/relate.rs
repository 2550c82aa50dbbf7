//! The part of the dataflow that makes rows which remember other rows.
//!
//! *In*: admitted rows. *Out*: changes of the rows of all relations. *Never*: a change before its tick is complete,
//! so that a row changes at most once per tick and step.
//!
//! read → (exchange by name → versions) → (exchange by key → step)* → rows. A step takes rows, partners and, for
//! shipped sets, edges of the commit graph. All relations share the operators.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use contracts::catalog::Missing;
use operators::relate::adding::Adding;
use operators::relate::history::Kept;
use operators::relate::sequence::{SequenceState, Span};
use operators::relate::step::Input;
use operators::relate::versions::Version;
use operators::relate::{Message, RelationPlan, Row};
use operators::state::{State, shard_of};
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Filter;
use timely::dataflow::operators::{Capability, Concat};

use super::dataflow::Container;
use super::{Alone, Fed, Local, Rowset, SharedLocal};

/// What one relation holds on one worker.
#[derive(Debug)]
pub(super) struct RelationState {
    /// One per part.
    versions: Vec<Kept>,
    /// One per step.
    steps: Vec<Adding>,
    sequence: Option<SequenceState>,
}

impl RelationState {
    pub(super) fn new(plan: &RelationPlan, max_keys: usize) -> Self {
        let step = |step: &contracts::catalog::Step| Adding::new(step, plan.retain, max_keys);
        let history = plan.relation.history().map(|(_, history)| &history.part);
        let sequence = plan.sequence.as_ref();
        let kept = |part: &contracts::catalog::Part| Kept::new(part.history, plan.retain, max_keys);
        Self {
            versions: plan.relation.parts.iter().chain(history).map(kept).collect(),
            sequence: sequence.map(|s| SequenceState::new(&s.sequence, plan.retain, max_keys)),
            steps: plan.relation.steps.iter().map(step).collect(),
        }
    }

    pub(super) fn turn(&mut self, now: i64) {
        self.versions.iter_mut().for_each(|versions| versions.turn(now));
        self.steps.iter_mut().for_each(|step| step.turn(now));
        self.sequence.iter_mut().for_each(|sequence| sequence.turn(now));
    }

    /// Its states, with what names them among themselves.
    pub(super) fn states(&mut self) -> Vec<(String, &mut dyn State)> {
        let mut states: Vec<(String, &mut dyn State)> = Vec::new();
        for (number, versions) in self.versions.iter_mut().enumerate() {
            states.push((format!("part{number}"), versions.state()));
        }
        for (number, step) in self.steps.iter_mut().enumerate() {
            states.push((format!("step{number}"), step.state()));
        }
        if let Some(sequence) = &mut self.sequence {
            states.push(("sequence".to_owned(), sequence));
        }
        states
    }

    /// Rows that are not counted, by reason; the sum over all workers counts.
    pub(super) fn alone(&self) -> Alone {
        let mut lost = Alone::new();
        let mut add = |reason, count: i64| {
            if count != 0 {
                *lost.entry(reason).or_default() += count;
            }
        };
        for versions in &self.versions {
            add("keys", i64::try_from(versions.lost()).unwrap_or(i64::MAX));
        }
        for step in &self.steps {
            let alone = step.alone();
            add("waiting", alone.waiting);
            add("unmatched", alone.unmatched);
            let reason = match step.step().missing {
                Missing::Hold => "held",
                Missing::Fail => "failed",
                Missing::Drop | Missing::Wait | Missing::Keep => "missing",
            };
            add(reason, alone.missing);
            add("cold_start", alone.cold_start);
            for (reason, count) in step.lost() {
                add(reason, i64::try_from(*count).unwrap_or(i64::MAX));
            }
        }
        for (reason, count) in self.sequence.iter().flat_map(|sequence| &sequence.lost) {
            add(reason, i64::try_from(*count).unwrap_or(i64::MAX));
        }
        lost
    }
}

/// A message and the relation it is about.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Related {
    relation: usize,
    message: Message,
}

type Messages<'s> = StreamVec<'s, u64, Related>;

/// The changes of the rows of all relations.
pub(super) fn rows<'s>(admitted: StreamVec<'s, u64, Rowset>, local: &SharedLocal) -> StreamVec<'s, u64, Fed> {
    let read = read(admitted, local);
    let versioned = versions(read.clone().filter(|related| related.message.is_version()), local);
    let entered = read.filter(|related| !related.message.is_version()).concat(versioned);
    let mut out = entered.clone().filter(|related| related.message.is_out());
    let mut before: Option<Messages<'s>> = None;
    let steps = local.borrow().plan.most_steps();
    for number in 0..steps {
        let is_for = move |related: &Related| related.message.step() == Some(number);
        let mut input = entered.clone().filter(is_for);
        if let Some(before) = before {
            input = input.concat(before.filter(is_for));
        }
        let after = step(number, input, local);
        out = out.concat(after.clone().filter(|related| related.message.is_out()));
        before = Some(after);
    }
    let sequenced = local.borrow().plan.relations.iter().any(|relation| relation.plan.sequence.is_some());
    match sequenced {
        true => changes(sequence(out, local), local),
        false => changes(out, local),
    }
}

fn read<'s>(admitted: StreamVec<'s, u64, Rowset>, local: &SharedLocal) -> Messages<'s> {
    let workers = admitted.scope().peers();
    let local = Rc::clone(local);
    admitted.unary::<Container<Related>, _, _, _>(Pipeline, "relate: read", |_, _| {
        move |input, output| {
            input.for_each(|time, data| {
                let mut local = local.borrow_mut();
                let mut session = output.session(&time);
                for (partition, batch) in data.drain(..) {
                    let plan = Arc::clone(&local.plan);
                    for relation in &plan.relations_of_event[batch.event] {
                        let known = &plan.relations[*relation];
                        let lost = local.lost.entry(known.metric).or_default();
                        known.plan.read(&partition, &batch, workers, lost, |message| {
                            session.give(Related { relation: *relation, message });
                        });
                    }
                }
            });
        }
    })
}

/// Runs `apply` once per tick, when the tick is complete.
fn per_tick<'s>(
    name: &str,
    input: Messages<'s>,
    local: &SharedLocal,
    apply: impl Fn(&mut Local, usize, Vec<Message>, &mut dyn FnMut(Message)) + 'static,
) -> Messages<'s> {
    let local = Rc::clone(local);
    let route = Exchange::new(|related: &Related| u64::from(shard_of(related.message.route())));
    input.unary_frontier::<Container<Related>, _, _, _>(route, name, |_, _| {
        let mut waiting: BTreeMap<u64, (Capability<u64>, Vec<Related>)> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|time, data| {
                let tick = *time.time();
                let (_, messages) = waiting.entry(tick).or_insert_with(|| (time.retain(0), Vec::new()));
                messages.append(data);
            });
            while let Some(entry) = waiting.first_entry() {
                if frontier.less_equal(entry.key()) {
                    break;
                }
                let (capability, messages) = entry.remove();
                let mut session = output.session(&capability);
                let mut by_relation: BTreeMap<usize, Vec<Message>> = BTreeMap::new();
                for Related { relation, message } in messages {
                    by_relation.entry(relation).or_default().push(message);
                }
                for (relation, messages) in by_relation {
                    apply(&mut local.borrow_mut(), relation, messages, &mut |message| {
                        session.give(Related { relation, message });
                    });
                }
            }
        }
    })
}

fn versions<'s>(input: Messages<'s>, local: &SharedLocal) -> Messages<'s> {
    per_tick("relate: versions", input, local, |local, relation, messages, give| {
        let plan = Arc::clone(&local.plan);
        let known = &plan.relations[relation].plan;
        let mut by_part: BTreeMap<usize, Vec<Version>> = BTreeMap::new();
        for message in messages {
            match message {
                Message::Version { part, identity, place, time, row } => {
                    by_part.entry(part).or_default().push(Version::Of(identity, place, time, row));
                }
                Message::Truncate { part, family, place, time, .. } => {
                    by_part.entry(part).or_default().push(Version::Truncate(family, place, time));
                }
                _ => {}
            }
        }
        let now = local.now;
        for (part, versions) in by_part {
            local.relations[relation].versions[part].apply(now, versions, |row, weight| {
                known.enter(part, row, weight).into_iter().for_each(&mut *give);
            });
        }
    })
}

fn step<'s>(number: usize, input: Messages<'s>, local: &SharedLocal) -> Messages<'s> {
    per_tick("relate: step", input, local, move |local, relation, messages, give| {
        let plan = Arc::clone(&local.plan);
        let known = &plan.relations[relation].plan;
        let input = |message| match message {
            Message::Left { key, row, weight, .. } => Some(Input::Left(key, row, weight)),
            Message::Right { key, row, weight, .. } => Some(Input::Right(key, row, weight)),
            Message::Edges { key, time, edges, weight, .. } => Some(Input::Edges(key, time, edges, weight)),
            _ => None,
        };
        let inputs = messages.into_iter().filter_map(input).collect();
        local.relations[relation].steps[number].apply(inputs, |row, weight| give(known.onward(row, weight)));
    })
}

/// Whole rows of sequences become spans; the others pass.
fn sequence<'s>(out: Messages<'s>, local: &SharedLocal) -> Messages<'s> {
    let shared = Rc::clone(local);
    let read = out.unary::<Container<Related>, _, _, _>(Pipeline, "relate: stays", |_, _| {
        move |input, output| {
            input.for_each(|time, data| {
                let mut local = shared.borrow_mut();
                let plan = Arc::clone(&local.plan);
                let mut session = output.session(&time);
                let mut rows: BTreeMap<usize, Vec<(Row, i64)>> = BTreeMap::new();
                for Related { relation, message } in data.drain(..) {
                    match message {
                        Message::Out { row, weight } if plan.relations[relation].plan.sequence.is_some() => {
                            rows.entry(relation).or_default().push((row, weight));
                        }
                        message => session.give(Related { relation, message }),
                    }
                }
                for (relation, rows) in rows {
                    let known = &plan.relations[relation];
                    let lost = local.lost.entry(known.metric).or_default();
                    known.plan.stays(&rows, lost, |key, stay, weight| {
                        session.give(Related { relation, message: Message::Stay { key, stay, weight } });
                    });
                }
            });
        }
    });
    let stays = read.clone().filter(|related| related.message.is_stay());
    let spans = per_tick("relate: sequence", stays, local, |local, relation, messages, give| {
        let Some(state) = &mut local.relations[relation].sequence else { return };
        let stay = |message| match message {
            Message::Stay { key, stay, weight } => Some((key, stay, weight)),
            _ => None,
        };
        state.apply(messages.into_iter().filter_map(stay).collect(), |row, span, weight| {
            give(Message::Span { row: row.clone(), span, weight });
        });
    });
    read.filter(|related| !related.message.is_stay()).concat(spans)
}

/// Whole rows become batches.
fn changes<'s>(out: Messages<'s>, local: &SharedLocal) -> StreamVec<'s, u64, Fed> {
    let plan = Arc::clone(&local.borrow().plan);
    out.unary::<Container<Fed>, _, _, _>(Pipeline, "relate: rows", |_, _| {
        move |input, output| {
            input.for_each(|time, data| {
                let mut by_relation: BTreeMap<usize, Vec<(Row, i64)>> = BTreeMap::new();
                let mut spans: BTreeMap<usize, Vec<(Row, Span, i64)>> = BTreeMap::new();
                for Related { relation, message } in data.drain(..) {
                    match message {
                        Message::Out { row, weight } => {
                            by_relation.entry(relation).or_default().push((row, weight));
                        }
                        Message::Span { row, span, weight } => {
                            spans.entry(relation).or_default().push((row, span, weight));
                        }
                        _ => {}
                    }
                }
                let mut session = output.session(&time);
                for (relation, spans) in spans {
                    if let Some(changes) = plan.relations[relation].plan.span_changes(&spans) {
                        session.give(Fed::Relation(relation, changes));
                    }
                }
                for (relation, rows) in by_relation {
                    session.give(Fed::Relation(relation, plan.relations[relation].plan.changes(&rows)));
                }
            });
        }
    })
}
