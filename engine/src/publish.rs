//! Publish: all changes of a tick become visible at once.
//!
//! *In*: the workers' shares of a tick. *Out*: a [`Published`], swapped in by one atomic store; readers are
//! wait-free. *Never*: a tick of which only some workers' shares are visible.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use contracts::Catalog;
use contracts::batch::{Partition, Refused};
use crossbeam_channel::Sender;
use operators::entity::EntityShard;
use operators::fold::panes::Shard;
use parking_lot::Mutex;

use crate::api::{Clock, TickHook, TickOutcome};
use crate::checkpoint::manifest::{Counted, Stand};
use crate::checkpoint::{CheckpointError, Snapshot, Writer, Written};
use crate::plan::EnginePlan;
use crate::worker::{Alone, Share};

mod blocks;
mod cells;
mod measures;
mod query;
mod read;
mod results;

pub use query::{Answer, EntityRow, MetricQuery, Newest, QueryError, Row};
pub use results::Ended;

/// One whole tick: immutable, shared.
pub struct Published {
    /// The catalog all answers are about.
    pub catalog: Arc<Catalog>,
    /// Tick number, growing.
    pub tick: u64,
    /// The clock at the tick, microseconds since the Unix epoch: answers are as of this instant.
    pub as_of: i64,
    /// Next offset per partition: everything below is contained.
    pub offsets: BTreeMap<Partition, Progress>,
    /// Counters per source and event type (`""`: the type is unknown or could not be read).
    pub counters: BTreeMap<(Arc<str>, String), Counts>,
    pub(crate) plan: Arc<EnginePlan>,
    /// One per worker.
    pub(crate) shards: Vec<Shards>,
    /// Per metric: rows that a dimension with `overflow: refuse` has no room for, once somebody has asked.
    overflowing: Vec<OnceLock<u64>>,
}

/// One worker's part of the state.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    pub(crate) metrics: Vec<Shard>,
    pub(crate) entities: Vec<EntityShard>,
    /// One per relation.
    pub(crate) alone: Vec<Alone>,
}

/// How far a partition has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Next offset to be folded.
    pub next: i64,
    /// End of the partition as last known (exclusive).
    pub end: Option<i64>,
}

/// The identity `received == admitted + refused + duplicate + skipped` holds at every tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Rows received.
    pub received: u64,
    /// Rows admitted.
    pub admitted: u64,
    /// Rows refused.
    pub refused: u64,
    /// Rows dropped as duplicates.
    pub duplicate: u64,
    /// Records that carry no event by design.
    pub skipped: u64,
    /// Admitted rows that broke a rule of severity warning.
    pub warned: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.admitted += other.admitted;
        self.refused += other.refused;
        self.duplicate += other.duplicate;
        self.skipped += other.skipped;
        self.warned += other.warned;
    }
}

/// What the coordinator knows of a tick when it hands it to the workers.
pub(crate) struct Opened {
    pub(crate) now: i64,
    pub(crate) offsets: BTreeMap<Partition, Progress>,
    pub(crate) counters: BTreeMap<(Arc<str>, String), Counts>,
    pub(crate) refused: Vec<Refused>,
    pub(crate) acks: Vec<Sender<()>>,
    /// The state is kept after this tick.
    pub(crate) cut: Option<CutOf>,
}

/// What a checkpoint must know beside the state.
pub(crate) struct CutOf {
    /// No row still to come was received before this.
    pub(crate) floor: i64,
    pub(crate) partitions: Vec<Stand>,
    /// Whoever waits for it.
    pub(crate) reply: Option<Sender<Result<Written, CheckpointError>>>,
}

/// Puts ticks together and swaps them in.
pub(crate) struct Publisher {
    plan: Arc<EnginePlan>,
    workers: usize,
    live: Arc<ArcSwap<Published>>,
    open: Mutex<BTreeMap<u64, Pending>>,
    hook: Arc<dyn TickHook>,
    writer: Option<Arc<Writer>>,
    broken: AtomicBool,
}

struct Pending {
    opened: Opened,
    shares: BTreeMap<usize, Share>,
}

/// Room for what is computed when it is asked for.
fn unasked(plan: &EnginePlan) -> Vec<OnceLock<u64>> {
    plan.metrics.iter().map(|_| OnceLock::new()).collect()
}

/// What an engine starts with beside the state of its workers.
#[derive(Debug, Default)]
pub(crate) struct Before {
    pub(crate) tick: u64,
    pub(crate) now: i64,
    pub(crate) partitions: Vec<Stand>,
    pub(crate) counters: BTreeMap<(Arc<str>, String), Counts>,
}

impl Publisher {
    pub(crate) fn new(
        plan: Arc<EnginePlan>,
        workers: usize,
        hook: Arc<dyn TickHook>,
        clock: &Clock,
        before: &Before,
        writer: Option<Arc<Writer>>,
    ) -> Self {
        let as_of = match clock {
            Clock::Manual(start) => *start,
            Clock::Wall => 0,
        };
        let first = Published {
            catalog: Arc::clone(&plan.catalog),
            tick: 0,
            as_of,
            offsets: BTreeMap::new(),
            counters: before.counters.clone(),
            plan: Arc::clone(&plan),
            shards: Vec::new(),
            overflowing: unasked(&plan),
        };
        let live = Arc::new(ArcSwap::from_pointee(first));
        let (open, broken) = Default::default();
        Self { plan, workers, live, open, hook, writer, broken }
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.plan.catalog
    }

    pub(crate) fn live(&self) -> Arc<ArcSwap<Published>> {
        Arc::clone(&self.live)
    }

    /// A worker has panicked: nothing more will be published, and nobody waits for it any longer.
    pub(crate) fn break_down(&self) {
        self.broken.store(true, Ordering::Release);
        self.open.lock().clear();
    }

    /// Whether a worker has panicked.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// The coordinator announces a tick, before any worker can finish it.
    pub(crate) fn open(&self, tick: u64, opened: Opened) {
        self.open.lock().insert(tick, Pending { opened, shares: BTreeMap::new() });
    }

    /// A worker has closed a tick; the last one makes it visible.
    pub(crate) fn deposit(&self, tick: u64, worker: usize, share: Share) {
        let complete = {
            let mut open = self.open.lock();
            // A tick is opened before workers see it; it is gone when a worker broke down.
            let Some(pending) = open.get_mut(&tick) else { return };
            pending.shares.insert(worker, share);
            if pending.shares.len() < self.workers {
                return;
            }
            open.remove(&tick)
        };
        if let Some(pending) = complete {
            self.publish(tick, pending);
        }
    }

    fn publish(&self, tick: u64, pending: Pending) {
        let Pending { opened, shares } = pending;
        let before = self.live.load_full();
        let mut counters = before.counters.clone();
        let mut outcome = TickOutcome { refused: opened.refused, ..TickOutcome::default() };
        let mut add = |more: BTreeMap<(Arc<str>, String), Counts>| {
            more.into_iter().for_each(|(key, counts)| counters.entry(key).or_default().add(&counts));
        };
        add(opened.counters);
        let mut shards = Vec::with_capacity(shares.len());
        let mut cuts = Vec::new();
        for (_, share) in shares {
            add(share.counters);
            cuts.extend(share.cut);
            outcome.refused.extend(share.refused);
            outcome.duplicates.extend(share.duplicates);
            outcome.admitted.extend(share.admitted);
            shards.push(Shards { metrics: share.metrics, entities: share.entities, alone: share.alone });
        }
        let published = Arc::new(Published {
            catalog: Arc::clone(&self.plan.catalog),
            tick,
            as_of: opened.now,
            offsets: opened.offsets,
            counters,
            plan: Arc::clone(&self.plan),
            shards,
            overflowing: unasked(&self.plan),
        });
        faults::point("tick.before_publish");
        self.live.store(Arc::clone(&published));
        faults::point("tick.after_publish");
        self.hook.tick(&published, outcome);
        if let (Some(cut), Some(writer)) = (opened.cut, &self.writer) {
            let counted = |((source, event), counts): (&(Arc<str>, String), &Counts)| Counted {
                source: Arc::clone(source),
                event: event.clone(),
                counts: *counts,
            };
            writer.hand_over(Snapshot {
                tick,
                now: published.as_of,
                floor: cut.floor,
                partitions: cut.partitions,
                counters: published.counters.iter().map(counted).collect(),
                workers: cuts,
                reply: cut.reply,
            });
        }
        for ack in opened.acks {
            // Whoever asked may have given up waiting.
            let _ = ack.send(());
        }
    }
}
