//! Which copies of an id did not count: written with each round, told to whoever reads its rows again.
//!
//! *In*: the duplicates of ticks; plans of rounds. *Out*: verdicts on all rows that the lake has been offered, as far back as
//! plans are kept and the contracts of events were the same. *Never*: a verdict that other contracts have given. Rules 3
//! and 7 of decision 0014.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use contracts::Catalog;
use contracts::batch::{Decided, Partition, Positions};
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::rounds::{self, Plan, PlanError};
use super::{Fed, Lake, LakeError, Offsets};

/// So many plans more than one are read at once: an object store takes its time for each.
const AT_ONCE: u64 = 15;

/// Rows of one partition that were duplicates, as a plan holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dropped {
    source: Arc<str>,
    topic: Arc<str>,
    number: i32,
    /// Index inside their record.
    part: u32,
    /// Their offsets: a roaring bitmap of 64 bits, base64.
    offsets: String,
}

/// What was judged since the last plan.
#[derive(Debug, Default)]
pub(super) struct Judged {
    dropped: Positions,
    /// The first row of partitions that were never fed before.
    began: Offsets,
    /// Hash of the contracts that judged last, and what they mean for state; an event whose contract has changed since
    /// the last plan is not among them.
    by: Option<(String, BTreeMap<String, String>)>,
}

impl Judged {
    /// Takes the duplicates of a tick, but for those that were `before`.
    pub(super) fn take(&mut self, contracts: &Catalog, fed: &Fed, before: &Offsets) {
        match &mut self.by {
            Some((hash, _)) if *hash == contracts.hash => {}
            Some((hash, events)) => {
                let now = states(contracts);
                events.retain(|event, state| now.get(event) == Some(state));
                hash.clone_from(&contracts.hash);
            }
            None => self.by = Some((contracts.hash.clone(), states(contracts))),
        }
        for (partition, next) in
            fed.offsets.0.iter().filter(|(partition, _)| !before.0.contains_key(partition))
        {
            self.began.0.insert(partition.clone(), fed.first(partition).unwrap_or(*next));
        }
        let new = |(partition, offset, _): &&(Partition, i64, u32)| *offset >= before.next(partition);
        for (partition, offset, part) in fed.duplicates.iter().filter(new) {
            self.dropped.insert(partition, *offset, *part);
        }
    }

    /// As a plan holds it.
    pub(super) fn planned(self) -> (Vec<Dropped>, String, BTreeMap<String, String>) {
        let dropped = self.dropped.bitmaps().map(|(partition, part, bytes)| Dropped {
            source: Arc::clone(&partition.source),
            topic: Arc::clone(&partition.topic),
            number: partition.number,
            part,
            offsets: BASE64_STANDARD.encode(bytes),
        });
        let dropped = dropped.filter(|_| !faults::bug("forget_duplicates")).collect();
        (dropped, self.began.to_text(), self.by.map(|(_, events)| events).unwrap_or_default())
    }
}

impl Fed {
    /// The first row of a partition.
    fn first(&self, of: &Partition) -> Option<i64> {
        let admitted = self.admitted.iter().filter(|(partition, _)| partition == of);
        let admitted = admitted.filter_map(|(_, batch)| batch.offsets.first().copied());
        let refused = self.refused.iter().filter(|row| row.partition == *of).map(|row| row.offset);
        let duplicates = self.duplicates.iter().filter(|(partition, ..)| partition == of);
        admitted.chain(refused).chain(duplicates.map(|(_, offset, _)| *offset)).min()
    }
}

fn states(contracts: &Catalog) -> BTreeMap<String, String> {
    let events = contracts.events.iter();
    events.map(|event| (event.head.name.clone(), event.head.state.clone())).collect()
}

impl Plan {
    fn add_dropped(&self, to: &mut Positions) -> Result<(), PlanError> {
        for dropped in &self.dropped {
            let (source, topic) = (Arc::clone(&dropped.source), Arc::clone(&dropped.topic));
            let partition = Partition { source, topic, number: dropped.number };
            let bytes = BASE64_STANDARD.decode(&dropped.offsets).map_err(std::io::Error::other);
            let added = bytes.and_then(|bytes| to.add_bitmap(partition, dropped.part, &bytes));
            added.map_err(|error| PlanError::Damaged {
                name: format!("the duplicates of round {}", self.number),
                message: error.to_string(),
            })?;
        }
        Ok(())
    }
}

impl Lake {
    /// Which rows were duplicates, of all that has been fed; plans that end before `since` are not read.
    ///
    /// # Errors
    /// A plan cannot be read.
    pub async fn decided(&self, since: &Offsets) -> Result<Decided, LakeError> {
        let mut decided = Decided { until: self.fed.0.clone(), ..Decided::default() };
        decided.dropped.extend(&self.judged.dropped);
        // Everything is known of what came after the last plan; before it plan by plan.
        let mut from =
            self.pending.as_ref().map_or_else(|| Ok(self.complete.clone()), |plan| offsets(&plan.to))?;
        let mut events = self.judged.by.as_ref().map(|(_, events)| events.clone());
        let mut began = self.judged.began.clone();
        let mut next = self.pending.clone();
        let mut read = VecDeque::new();
        let mut number = next.as_ref().map_or(self.number, |plan| plan.number);
        loop {
            let plan = match next.take() {
                Some(plan) => plan,
                None if number == 0 || since.contains(&from) => break,
                None => {
                    if read.is_empty() {
                        let numbers = (number.saturating_sub(AT_ONCE).max(1)..=number).rev();
                        read = join_all(numbers.map(|number| self.rounds.get(number))).await.into();
                    }
                    let plan = read.pop_front().transpose().map_err(LakeError::plan)?;
                    let Some(plan) = plan.flatten() else { break };
                    plan
                }
            };
            // Plans of before this was known name no events.
            if plan.events.is_empty() || events.get_or_insert_with(|| plan.events.clone()) != &plan.events {
                break;
            }
            plan.add_dropped(&mut decided.dropped).map_err(LakeError::plan)?;
            began.0.extend(offsets(&plan.began)?.0);
            from = offsets(&plan.from)?;
            number = plan.number - 1;
        }
        // A lake may be younger than what is read.
        began.0.extend(from.0);
        (decided.from, decided.events) = (began.0, events.unwrap_or_default());
        Ok(decided)
    }
}

fn offsets(text: &str) -> Result<Offsets, LakeError> {
    rounds::offsets(text).map_err(LakeError::plan)
}
