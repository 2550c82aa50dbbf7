//! The beat of the engine as the server hears it.
//!
//! *In*: ticks with their outcomes, on the publisher's thread. *Out*: woken waiters, verdicts of
//! pushed records, refused rows on their way to the dead letters, admitted rows for taps.
//! *Never*: waiting, I/O, work that grows with the state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use connectors::store::dead_letters::DeadLetters;
use contracts::batch::{Partition, Reason};
use engine::{Decisions, Published, TickHook, TickOutcome};
use lake::LakeWriter;
use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::watch;

use crate::answer::wall_now;
use crate::ring::Ring;
use crate::second::Keeper;

/// Verdicts kept for waiting pushes; beyond that the oldest are dropped and their pushes answer
/// `pending` (a push of 1 MiB holds at most half a million records).
const MAX_VERDICTS: usize = 2_000_000;

/// Verdicts kept together with their reasons: answers name the first 100 only.
const MAX_REASONED: usize = 20_000;

/// Reason codes counted one by one (they are ours, or rules of contracts).
const MAX_CODES: usize = 2_000;

/// What all engines of an app share.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// Grows at every tick of any engine and at every swap and drain.
    pub(crate) ticks: watch::Sender<u64>,
    /// Lowest offset a waiting push can have, per partition, with the number of pushes.
    floors: Mutex<BTreeMap<Partition, BTreeMap<i64, usize>>>,
    /// Takes refused rows (without waiting: it has a thread of its own).
    dead: Arc<DeadLetters>,
    /// Takes admitted rows.
    pub(crate) ring: Arc<Ring>,
    /// Ticks seen.
    pub(crate) beats: AtomicU64,
    /// From a tick's instant to its being visible, seconds.
    pub(crate) delay: Histogram,
    /// Received events that the newest tick has no outcome for; 0, or something is wrong with us.
    pub(crate) unaccounted: AtomicI64,
    /// Ticks at which that was not 0.
    pub(crate) unbalanced: AtomicU64,
}

impl Pulse {
    pub(crate) fn new(dead: Arc<DeadLetters>, ring: Arc<Ring>) -> Arc<Pulse> {
        Arc::new(Pulse {
            ticks: watch::Sender::new(0),
            floors: Mutex::default(),
            dead,
            ring,
            beats: AtomicU64::new(0),
            unaccounted: AtomicI64::new(0),
            unbalanced: AtomicU64::new(0),
            delay: Histogram::new([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0]),
        })
    }

    /// Wakes everybody who waits for something to change.
    pub(crate) fn wake(&self) {
        self.ticks.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Keeps the verdicts of `partition` from `floor` on while the ticket lives.
    pub(crate) fn ticket(self: &Arc<Self>, partition: Partition, floor: i64) -> Ticket {
        *self.floors.lock().entry(partition.clone()).or_default().entry(floor).or_insert(0) += 1;
        Ticket { pulse: self.clone(), partition, floor }
    }

    fn floor(&self, partition: &Partition) -> Option<i64> {
        self.floors.lock().get(partition).and_then(|f| f.keys().next().copied())
    }
}

/// Somebody waits for verdicts.
#[derive(Debug)]
pub(crate) struct Ticket {
    pulse: Arc<Pulse>,
    partition: Partition,
    floor: i64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut floors = self.pulse.floors.lock();
        let Some(of_partition) = floors.get_mut(&self.partition) else { return };
        if let Some(count) = of_partition.get_mut(&self.floor) {
            *count -= 1;
            if *count == 0 {
                of_partition.remove(&self.floor);
            }
        }
        if of_partition.is_empty() {
            floors.remove(&self.partition);
        }
    }
}

/// What became of one row that was not admitted.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) offset: i64,
    pub(crate) part: u32,
    pub(crate) kind: VerdictKind,
}

/// How a row was not admitted.
#[derive(Debug, Clone)]
pub(crate) enum VerdictKind {
    /// Refused; the reasons, unless too many verdicts are kept.
    Refused(Option<Arc<[Reason]>>),
    /// Seen before.
    Duplicate,
}

/// Received events without an outcome, and outcomes without an event: of each source and type on its own, so that one too
/// many does not make up for one too few elsewhere.
fn unaccounted<'a>(counts: impl Iterator<Item = &'a engine::Counts>) -> i64 {
    let of = |counts: &engine::Counts| {
        let outcomes = counts.admitted + counts.refused + counts.duplicate + counts.skipped;
        (counts.received.cast_signed() - outcomes.cast_signed()).abs()
    };
    counts.map(of).sum()
}

/// The part of the pulse that belongs to one engine (one generation of contracts).
#[derive(Debug)]
pub struct Hook {
    pulse: Arc<Pulse>,
    latest: LatestCell,
    verdicts: Mutex<BTreeMap<Partition, Verdicts>>,
    changes: Mutex<Vec<(u64, u64)>>,
    reasons: Mutex<BTreeMap<String, u64>>,
    keeper: Option<Keeper>,
    lake: Option<Arc<LakeWriter>>,
    /// Its engine is the one that answers.
    leads: AtomicBool,
    /// An engine that reads the same rows and judges them alike.
    follower: Mutex<Weak<Decisions>>,
}

#[derive(Default)]
struct LatestCell(ArcSwapOption<Published>);

impl std::fmt::Debug for LatestCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Published")
    }
}

#[derive(Debug, Default)]
struct Verdicts {
    rows: VecDeque<Verdict>,
    /// Verdicts below this offset may be missing.
    lost_below: i64,
}

impl Hook {
    pub(crate) fn new(pulse: Arc<Pulse>, keeper: Option<Keeper>, lake: Option<Arc<LakeWriter>>) -> Arc<Hook> {
        Arc::new(Hook {
            keeper,
            lake,
            pulse,
            latest: LatestCell::default(),
            verdicts: Mutex::default(),
            changes: Mutex::default(),
            reasons: Mutex::default(),
            leads: AtomicBool::new(false),
            follower: Mutex::default(),
        })
    }

    /// Its engine answers from now on, or no longer.
    pub(crate) fn lead(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
    }

    /// Who is told from the next tick on how rows were judged.
    pub(crate) fn followed_by(&self, follower: &Arc<Decisions>) {
        *self.follower.lock() = Arc::downgrade(follower);
    }

    fn tell_follower(&self, published: &Published, outcome: &TickOutcome) {
        if let Some(follower) = self.follower.lock().upgrade() {
            let next = published.offsets.iter().map(|(partition, at)| (partition.clone(), at.next));
            follower.tell(next, &outcome.duplicates);
        }
    }

    /// Admitted rows are wanted, whether or not somebody streams them.
    pub(crate) fn wants_rows(&self) -> bool {
        self.keeper.is_some() || self.lake.is_some()
    }

    /// Where the engine's admitted events are kept.
    pub(crate) fn keeper(&self) -> Option<&Keeper> {
        self.keeper.as_ref()
    }

    /// The newest tick whose outcome has been taken in.
    pub(crate) fn latest(&self) -> Option<Arc<Published>> {
        self.latest.0.load_full()
    }

    /// Verdicts of the rows in `[from, to)`; `None` when some may have been dropped.
    pub(crate) fn verdicts(&self, partition: &Partition, from: i64, to: i64) -> Option<Vec<Verdict>> {
        let verdicts = self.verdicts.lock();
        let Some(of_partition) = verdicts.get(partition) else { return Some(Vec::new()) };
        if of_partition.lost_below > from {
            return None;
        }
        Some(of_partition.rows.iter().filter(|v| v.offset >= from && v.offset < to).cloned().collect())
    }

    /// The tick at which `metric` last changed, as far as this engine's ticks tell.
    pub(crate) fn changed_at(&self, metric: usize) -> Option<u64> {
        self.changes.lock().get(metric).map(|(_, tick)| *tick)
    }

    /// Refused rows by their first reason, since this engine started.
    pub(crate) fn refused_by_reason(&self) -> Vec<(String, u64)> {
        self.reasons.lock().iter().map(|(code, n)| (code.clone(), *n)).collect()
    }

    fn count_reasons(&self, outcome: &TickOutcome) {
        let mut reasons = self.reasons.lock();
        for row in &outcome.refused {
            let code = row.reasons.first().map_or("unknown", |r| r.code.as_str());
            if let Some(n) = reasons.get_mut(code) {
                *n += 1;
            } else if reasons.len() < MAX_CODES {
                reasons.insert(code.to_owned(), 1);
            }
        }
    }

    fn keep_verdicts(&self, outcome: &TickOutcome) {
        let mut verdicts = self.verdicts.lock();
        verdicts.retain(|partition, kept| {
            let Some(floor) = self.pulse.floor(partition) else { return false };
            kept.rows.retain(|v| v.offset >= floor);
            !kept.rows.is_empty() || kept.lost_below > floor
        });
        for row in &outcome.refused {
            self.keep(&mut verdicts, &row.partition, row.offset, row.part, |reasons| {
                VerdictKind::Refused(reasons.then(|| row.reasons.clone().into()))
            });
        }
        for (partition, offset, part) in &outcome.duplicates {
            self.keep(&mut verdicts, partition, *offset, *part, |_| VerdictKind::Duplicate);
        }
    }

    /// Keeps a verdict when somebody waits for it; `kind` is told whether there is room for reasons.
    fn keep(
        &self,
        verdicts: &mut BTreeMap<Partition, Verdicts>,
        partition: &Partition,
        offset: i64,
        part: u32,
        kind: impl FnOnce(bool) -> VerdictKind,
    ) {
        if self.pulse.floor(partition).is_none_or(|floor| offset < floor) {
            return;
        }
        let kept = match verdicts.get_mut(partition) {
            Some(kept) => kept,
            None => verdicts.entry(partition.clone()).or_default(),
        };
        let kind = kind(kept.rows.len() < MAX_REASONED);
        kept.rows.push_back(Verdict { offset, part, kind });
        if kept.rows.len() > MAX_VERDICTS
            && let Some(dropped) = kept.rows.pop_front()
        {
            kept.lost_below = kept.lost_below.max(dropped.offset + 1);
        }
    }

    /// Each event that came has exactly one outcome, at every tick.
    fn check_balance(&self, published: &Published) {
        let open = unaccounted(published.counters.values());
        if open != 0 && self.pulse.unbalanced.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!(
                open,
                tick = published.tick,
                "received events have no outcome, or two: this is our bug"
            );
        }
        self.pulse.unaccounted.store(open, Ordering::Relaxed);
    }

    fn keep_changes(&self, published: &Published) {
        let mut changes = self.changes.lock();
        changes.resize(published.catalog.metrics.len(), (0, 0));
        for (metric, (revision, tick)) in changes.iter_mut().enumerate() {
            let now = published.metric_revision(metric);
            if now != *revision {
                (*revision, *tick) = (now, published.tick);
            }
        }
    }
}

impl TickHook for Hook {
    fn tick(&self, published: &Arc<Published>, mut outcome: TickOutcome) {
        if !outcome.refused.is_empty() || !outcome.duplicates.is_empty() {
            self.count_reasons(&outcome);
            self.keep_verdicts(&outcome);
        }
        self.keep_changes(published);
        self.check_balance(published);
        if let Some(keeper) = &self.keeper {
            keeper.offer(published, &outcome.admitted);
        }
        if let Some(lake) = &self.lake {
            crate::laketicks::offer(lake, published, &outcome, self.leads.load(Ordering::Relaxed));
        }
        // Only now: the lake takes rows from whoever comes first.
        self.tell_follower(published, &outcome);
        if !outcome.admitted.is_empty() && self.pulse.ring.wanted() {
            // The engine's own rows about rows are nobody's events.
            let own = published.catalog.event_index(contracts::ROW_EVENT);
            outcome.admitted.retain(|admitted| Some(admitted.batch.event) != own);
            self.pulse.ring.push(&published.catalog, outcome.admitted);
        }
        if !outcome.refused.is_empty() {
            self.pulse.dead.record(outcome.refused);
        }
        self.latest.0.store(Some(published.clone()));
        let delay = wall_now().saturating_sub(published.as_of);
        self.pulse.delay.observe(delay.max(0) as f64 / 1e6);
        self.pulse.beats.fetch_add(1, Ordering::Relaxed);
        self.pulse.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_does_not_make_up_for_one_too_few() {
        let counts = |received, admitted| engine::Counts { received, admitted, ..engine::Counts::default() };
        assert_eq!(unaccounted([counts(3, 3), counts(0, 0)].iter()), 0);
        assert_eq!(unaccounted([counts(3, 2), counts(3, 4)].iter()), 2);
        let duplicate = engine::Counts { duplicate: 1, refused: 2, skipped: 1, ..counts(5, 1) };
        assert_eq!(unaccounted([duplicate].iter()), 0);
    }
}
