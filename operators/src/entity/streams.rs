//! Change streams behind an entity: versions of their rows become touches.
//!
//! *In*: admitted batches of change streams. *Out*: [`Told`]: versions that go to the worker of their row, by
//! whom they become touches of the entity's rows: +1 for the version that is the row, -1 for the one that was.
//! *Never*: a touch of a version that is not the newest.

use contracts::batch::{ChangeOp, EventBatch, Partition};
use contracts::value::Value;
use serde::{Deserialize, Serialize};

use super::{EntityPlan, Seen, Touch};
use crate::fold::panes::{Key, route_hash};
use crate::relate::versions::{Place, Version};

/// What an admitted row of a change stream says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Told {
    /// The row that `identity` names says this now; `None`: it is gone, or says nothing about the entity.
    Version {
        /// What names the row: the feed and the key's text.
        identity: Key,
        /// Where in its stream it stands.
        place: Place,
        /// What it says.
        touch: Option<Touch>,
    },
    /// All rows of the feed committed before are gone. One for each worker.
    Truncate {
        /// First value of the names it is about.
        family: Value,
        /// The worker it is for.
        worker: u64,
        /// Where in its stream it stands.
        place: Place,
    },
}

impl Told {
    /// By which worker it is handled.
    pub fn route(&self) -> u64 {
        match self {
            Self::Version { identity, .. } => identity.hash64(),
            Self::Truncate { worker, .. } => *worker,
        }
    }

    /// As those who keep the newest versions take it.
    pub fn version(self) -> Version<Touch> {
        match self {
            Self::Version { identity, place, touch } => Version::Of(identity, place, 0, touch),
            Self::Truncate { family, place, .. } => Version::Truncate(family, place, 0),
        }
    }
}

impl EntityPlan {
    /// What a batch of a change stream says about the entity; `workers` is how many there are. The result is
    /// the number of rows whose key or values cannot be computed: they say nothing.
    pub fn versions(
        &self,
        partition: &Partition,
        batch: &EventBatch,
        workers: usize,
        mut give: impl FnMut(Told),
    ) -> u64 {
        let mut lost = 0;
        let stream = route_hash(partition);
        for (number, feed) in self.feeds.iter().enumerate() {
            if feed.event != batch.event || !feed.changelog {
                continue;
            }
            let seen = Seen::new(feed, batch);
            let family = Value::Int(number as i64);
            for row in 0..batch.columns.num_rows() {
                let Some(change) = batch.changes.as_ref().map(|changes| changes[row]) else { continue };
                let (offset, part) = (batch.offsets[row], batch.parts[row]);
                let place = Place { stream, offset, part, at: change.at };
                if change.op == ChangeOp::Truncate {
                    let tell = |worker| Told::Truncate { family: family.clone(), worker, place };
                    (0..workers as u64).for_each(|worker| give(tell(worker)));
                    continue;
                }
                let upsert = change.op == ChangeOp::Upsert;
                lost += u64::from(upsert && seen.failed.contains(&row));
                let name = Value::Text(batch.ids.value(row).into());
                let identity = Key::new([family.clone(), name].into_iter());
                let touch = if upsert { seen.touch(number as u32, batch, row) } else { None };
                give(Told::Version { identity, place, touch });
            }
        }
        lost
    }
}
