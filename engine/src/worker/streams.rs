//! Change streams behind entities: the newest versions of their rows become touches.
//!
//! *In*: admitted rows. *Out*: touches of entity rows, +1 for what is so now, -1 for what was. *Never*: a touch before
//! its tick is complete.
//!
//! read → exchange by the name of the row → versions.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use operators::entity::Touch;
use operators::entity::streams::Told;
use operators::relate::versions::Version;
use operators::state::shard_of;
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use super::dataflow::{Container, Touched};
use super::{Local, Rowset, SharedLocal};

/// What a row says, and the entity it is about.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tale {
    entity: usize,
    told: Told,
}

/// The touches of all entities that follow change streams.
pub(super) fn touches<'s>(
    admitted: StreamVec<'s, u64, Rowset>,
    local: &SharedLocal,
) -> StreamVec<'s, u64, Touched> {
    versions(read(admitted, local), local)
}

fn read<'s>(admitted: StreamVec<'s, u64, Rowset>, local: &SharedLocal) -> StreamVec<'s, u64, Tale> {
    let workers = admitted.scope().peers();
    let plan = Arc::clone(&local.borrow().plan);
    admitted.unary::<Container<Tale>, _, _, _>(Pipeline, "fold: read streams", |_, _| {
        move |input, output| {
            input.for_each(|time, data| {
                let mut session = output.session(&time);
                for (partition, batch) in data.drain(..) {
                    for entity in &plan.entities_of_event[batch.event] {
                        let give = |told| session.give(Tale { entity: *entity, told });
                        plan.entities[*entity].versions(&partition, &batch, workers, give);
                    }
                }
            });
        }
    })
}

fn versions<'s>(tales: StreamVec<'s, u64, Tale>, local: &SharedLocal) -> StreamVec<'s, u64, Touched> {
    let local = Rc::clone(local);
    let by_name = Exchange::new(|tale: &Tale| u64::from(shard_of(tale.told.route())));
    tales.unary_frontier::<Container<Touched>, _, _, _>(by_name, "fold: versions", |_, _| {
        let mut waiting: BTreeMap<u64, (Capability<u64>, Vec<Tale>)> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|time, data| {
                let tick = *time.time();
                let (_, tales) = waiting.entry(tick).or_insert_with(|| (time.retain(0), Vec::new()));
                tales.append(data);
            });
            while let Some(entry) = waiting.first_entry() {
                if frontier.less_equal(entry.key()) {
                    break;
                }
                let (capability, tales) = entry.remove();
                let mut session = output.session(&capability);
                apply(&mut local.borrow_mut(), tales, |touched| session.give(touched));
            }
        }
    })
}

fn apply(local: &mut Local, tales: Vec<Tale>, mut give: impl FnMut(Touched)) {
    let mut by_entity: BTreeMap<usize, Vec<Version<Touch>>> = BTreeMap::new();
    for Tale { entity, told } in tales {
        by_entity.entry(entity).or_default().push(told.version());
    }
    for (entity, versions) in by_entity {
        local.streams[entity].apply(local.now, versions, |touch, weight| {
            give(Touched { entity, touch: Touch { weight, ..touch } });
        });
    }
}
