//! The coordinator: takes what all sources have, cuts it into ticks, keeps offsets and counts.
//!
//! *In*: chunks, control messages, the clock. *Out*: one [`Tick`] per worker and tick; the tick's offsets to
//! the publisher. *Never*: looks into a row beyond its id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::Array;
use contracts::batch::{Chunk, EventBatch, Partition, Refused};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select};
use operators::admit::dedupe::IdHash;
use operators::admit::select as select_rows;
use operators::fold::panes::route_hash;
use operators::state::shard_of;

use crate::api::Clock;
use crate::checkpoint::manifest::Stand;
use crate::checkpoint::{CheckpointError, Writer, Written};
use crate::clock::{Now, monotonic};
use crate::publish::{Before, Counts, CutOf, Opened, Progress, Publisher};
use crate::resume::{Decisions, Resume};
use crate::worker::{RefusedRow, Rowset};

/// What the engine is asked to do besides folding.
#[derive(Debug)]
pub(crate) enum Control {
    /// Move a manual clock; answer when visible.
    Clock(i64, Sender<()>),
    /// Answer when everything sent before is visible.
    Flush(Sender<()>),
    /// Keep admitted rows for the hook, or stop doing so.
    Tap(bool),
    /// Keep the state after the next tick; answer when that is done.
    Checkpoint(Sender<Result<Written, CheckpointError>>),
    /// Write checkpoints as the settings say, or none.
    Keep(bool),
    /// What others have decided of rows that come now; before the first one comes.
    Follow(Arc<Decisions>, Sender<()>),
    /// What becomes of chunks.
    Intake(Intake),
    /// Fold what was sent, answer, end.
    Stop(Sender<()>),
}

/// What becomes of chunks that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intake {
    /// They are taken.
    Open,
    /// They wait, and so do the sources.
    Shut,
    /// Nobody will ever ask for them.
    Discard,
}

/// One worker's share of a tick.
#[derive(Debug)]
pub(crate) struct Tick {
    /// Number, growing by one.
    pub(crate) number: u64,
    /// The instant of the tick.
    pub(crate) now: i64,
    /// No row of this tick or still to come was received before this instant.
    pub(crate) floor: i64,
    /// Admitted rows are wanted by the hook.
    pub(crate) tap: bool,
    /// Rows decoded, by partition.
    pub(crate) work: Vec<Rowset>,
    /// Rows that decode refused; only the first worker is told.
    pub(crate) refused: Vec<RefusedRow>,
    /// The state after this tick is to be kept; true: all of it, not only what changed.
    pub(crate) cut: Option<bool>,
    /// What others have decided of its rows.
    pub(crate) decisions: Option<Arc<Decisions>>,
}

/// Rows after which a tick is closed.
const TICK_ROWS: u64 = 65_536;
/// Received times of one partition are this much out of order at most: the clocks of brokers and producers
/// differ. Beyond it a duplicate may be told from an id that is no longer remembered.
const SKEW: i64 = 10 * 60 * 1_000_000;
/// Ticks are at least this far apart, so that a trickle does not become a flood of ticks.
const TICK_LEAST: Duration = Duration::from_millis(1);
/// Without data the clock ticks this often.
const TICK_IDLE: Duration = Duration::from_millis(50);

pub(crate) struct Coordinator {
    clock: Now,
    chunks: Receiver<Chunk>,
    control: Receiver<Control>,
    workers: Vec<Sender<Tick>>,
    publisher: Arc<Publisher>,
    number: u64,
    tap: bool,
    last_tick: Instant,
    partitions: BTreeMap<Partition, Known>,
    counters: BTreeMap<(Arc<str>, String), Counts>,
    ids: Arc<IdHash>,
    keeping: Keeping,
    resume: Resume,
    decisions: Option<Arc<Decisions>>,
    intake: Intake,
}

/// When the state is to be kept.
pub(crate) struct Keeping {
    /// `None`: never.
    pub(crate) writer: Option<Arc<Writer>>,
    /// How often; `None`: when somebody asks.
    pub(crate) every: Option<Duration>,
    /// Another engine writes where this one would.
    pub(crate) on: bool,
    /// The last cut, and whether there is anything new since.
    pub(crate) last: Instant,
    pub(crate) news: bool,
}

impl Keeping {
    /// Whoever begins to write has something new: what was written before is of another engine.
    fn turn(&mut self, on: bool) {
        if on && !self.on {
            let every = self.every.unwrap_or_default();
            (self.news, self.last) = (true, self.last.checked_sub(every).unwrap_or(self.last));
        }
        self.on = on;
    }

    fn is_due(&self) -> bool {
        let Some(writer) = &self.writer else { return false };
        let due = self.every.is_some_and(|every| self.last.elapsed() >= every);
        self.on && self.news && due && !writer.is_busy()
    }
}

struct Known {
    shared: Arc<Partition>,
    progress: Progress,
    /// What is still to come was received after this instant, but for [`SKEW`].
    settled: i64,
    /// The same when the last tick was closed: what this tick brings was received after it.
    before: i64,
}

/// What is gathered for the next tick.
#[derive(Default)]
struct Gathered {
    rows: u64,
    work: Vec<Rowset>,
    refused: Vec<Refused>,
    acks: Vec<Sender<()>>,
    /// Somebody waits for a checkpoint.
    asked: Option<Sender<Result<Written, CheckpointError>>>,
    stop: bool,
}

impl Coordinator {
    pub(crate) fn new(
        clock: &Clock,
        chunks: Receiver<Chunk>,
        control: Receiver<Control>,
        workers: Vec<Sender<Tick>>,
        publisher: Arc<Publisher>,
        begin: Begin,
    ) -> Self {
        let mut now = Now::new(clock);
        now.resume(begin.before.now);
        let known = begin.before.partitions.iter().map(|stand| {
            let known = Known {
                shared: Arc::new(stand.partition.clone()),
                progress: stand.progress(),
                settled: stand.settled,
                before: stand.settled,
            };
            (stand.partition.clone(), known)
        });
        Self {
            clock: now,
            chunks,
            control,
            workers,
            publisher,
            number: begin.before.tick,
            tap: false,
            last_tick: start_of_time(),
            partitions: known.collect(),
            counters: BTreeMap::new(),
            ids: begin.ids,
            keeping: begin.keeping,
            resume: begin.resume,
            decisions: None,
            intake: Intake::Open,
        }
    }

    /// Runs until told to stop or until nobody can send any more.
    pub(crate) fn run(mut self) {
        loop {
            let mut gathered = Gathered::default();
            if !self.wait(&mut gathered) {
                return;
            }
            self.gather(&mut gathered);
            let stop = gathered.stop;
            if !self.close_tick(gathered) {
                self.publisher.break_down();
                return;
            }
            if stop {
                return;
            }
        }
    }

    /// Waits for the first thing to do; `false` when the engine was dropped.
    fn wait(&mut self, gathered: &mut Gathered) -> bool {
        let idle = if self.clock.is_manual() { Duration::from_secs(3600) } else { TICK_IDLE };
        let chunks = if self.takes() { self.chunks.clone() } else { crossbeam_channel::never() };
        let control = self.control.clone();
        select! {
            recv(control) -> message => match message {
                Ok(message) => self.obey(message, gathered),
                Err(_) => return false,
            },
            recv(chunks) -> chunk => if let Ok(chunk) = chunk { self.take(chunk, gathered) },
            default(idle) => {}
        }
        true
    }

    fn takes(&self) -> bool {
        self.intake != Intake::Shut && !self.resume.is_full()
    }

    /// Takes more, until the tick is full or nothing waits and the last tick is long enough ago.
    fn gather(&mut self, gathered: &mut Gathered) {
        while gathered.rows < TICK_ROWS {
            while let Ok(message) = self.control.try_recv() {
                self.obey(message, gathered);
            }
            for chunk in self.resume.turn() {
                self.take_now(chunk, gathered);
            }
            if !self.takes() {
                return;
            }
            let left = TICK_LEAST.saturating_sub(self.last_tick.elapsed());
            let next = match left.is_zero() || self.clock.is_manual() || !gathered.acks.is_empty() {
                true => self.chunks.try_recv().map_err(|_| RecvTimeoutError::Timeout),
                false => self.chunks.recv_timeout(left),
            };
            match next {
                Ok(chunk) => self.take(chunk, gathered),
                Err(_) => return,
            }
        }
    }

    /// Control messages speak of everything sent before them, so the channel is emptied first.
    fn obey(&mut self, message: Control, gathered: &mut Gathered) {
        while self.takes()
            && let Ok(chunk) = self.chunks.try_recv()
        {
            self.take(chunk, gathered);
        }
        match message {
            Control::Clock(now, done) => {
                self.clock.set(now);
                gathered.acks.push(done);
            }
            Control::Flush(done) => gathered.acks.push(done),
            Control::Tap(on) => self.tap = on,
            Control::Keep(on) => self.keeping.turn(on),
            Control::Follow(decisions, done) => {
                self.resume.follow(&decisions);
                self.decisions = Some(decisions);
                gathered.acks.push(done);
            }
            Control::Intake(intake) => self.intake = intake,
            Control::Checkpoint(done) if self.keeping.writer.is_none() => {
                // Whoever asked may have given up waiting.
                let _ = done.send(Err(CheckpointError::Off));
            }
            Control::Checkpoint(done) => gathered.asked = Some(done),
            Control::Stop(done) => {
                gathered.acks.push(done);
                gathered.stop = true;
            }
        }
    }

    /// Takes a chunk, or what of it may be admitted now.
    fn take(&mut self, chunk: Chunk, gathered: &mut Gathered) {
        if self.intake == Intake::Discard {
            return;
        }
        for chunk in self.resume.admit(chunk) {
            self.take_now(chunk, gathered);
        }
    }

    fn take_now(&mut self, chunk: Chunk, gathered: &mut Gathered) {
        self.keeping.news |= chunk.received > 0;
        gathered.rows += chunk.received.max(1);
        let newest = chunk.batches.iter().flat_map(|batch| batch.received.last()).max().copied();
        let known = self.partitions.entry(chunk.partition.clone()).or_insert_with(|| Known {
            shared: Arc::new(chunk.partition.clone()),
            progress: Progress { next: 0, end: None },
            settled: i64::MIN,
            before: i64::MIN,
        });
        known.progress = Progress { next: chunk.next_offset, end: chunk.end_offset };
        known.settled = known.settled.max(newest.max(chunk.settled).unwrap_or(i64::MIN));
        let partition = Arc::clone(&known.shared);
        self.count(&chunk);
        gathered.refused.extend(chunk.refused);
        gathered.work.extend(chunk.batches.into_iter().map(|batch| (Arc::clone(&partition), batch)));
    }

    fn count(&mut self, chunk: &Chunk) {
        let source = &chunk.partition.source;
        let events = self.publisher.catalog();
        for batch in &chunk.batches {
            let name = events.events[batch.event].head.name.clone();
            let counts = self.counters.entry((Arc::clone(source), name)).or_default();
            counts.received += batch.columns.num_rows() as u64;
        }
        for refused in &chunk.refused {
            let name = refused.event_type.as_deref().filter(|name| events.event_index(name).is_some());
            let key = (Arc::clone(source), name.unwrap_or_default().to_owned());
            let counts = self.counters.entry(key).or_default();
            counts.received += 1;
            counts.refused += 1;
        }
        if chunk.skipped > 0 {
            let counts = self.counters.entry((Arc::clone(source), String::new())).or_default();
            counts.received += chunk.skipped;
            counts.skipped += chunk.skipped;
        }
    }

    /// Hands the tick to the publisher and the workers; `false` when a worker is gone.
    fn close_tick(&mut self, gathered: Gathered) -> bool {
        self.number += 1;
        self.last_tick = monotonic();
        let now = self.clock.read();
        let mut refused = self.refused_rows(&gathered.refused);
        let floor = self.floor(now);
        let offsets = self.partitions.iter().map(|(p, known)| (p.clone(), known.progress));
        let asked = gathered.asked;
        let cut = (asked.is_some() || self.keeping.is_due()).then(|| CutOf {
            floor,
            partitions: self.partitions.values().map(Known::stand).collect(),
            reply: asked,
        });
        let all = || self.keeping.writer.as_ref().is_some_and(|writer| writer.wants_all());
        let cut_all = cut.is_some().then(all);
        if cut_all.is_some() {
            (self.keeping.last, self.keeping.news) = (monotonic(), false);
        }
        self.publisher.open(
            self.number,
            Opened {
                now,
                offsets: offsets.collect(),
                counters: std::mem::take(&mut self.counters),
                refused: gathered.refused,
                acks: gathered.acks,
                cut,
            },
        );
        let mut shares = self.route(gathered.work);
        faults::point("tick.before_workers");
        let (number, tap) = (self.number, self.tap);
        self.workers.iter().zip(shares.drain(..)).all(|(to, work)| {
            let refused = std::mem::take(&mut refused);
            let decisions = self.decisions.clone();
            to.send(Tick { number, now, floor, tap, work, refused, cut: cut_all, decisions }).is_ok()
        })
    }

    fn refused_rows(&self, refused: &[Refused]) -> Vec<RefusedRow> {
        let known = |name: &String| self.publisher.catalog().event_index(name).is_some();
        let row = |refused: &Refused| RefusedRow {
            partition: Arc::clone(&self.partitions[&refused.partition].shared),
            event_type: refused.event_type.clone().filter(known),
            received: refused.received,
        };
        refused.iter().map(row).collect()
    }

    /// Rows of this tick and all still to come were received after this. It follows what partitions have shown
    /// before, not the clock: a broker that was away brings rows of hours ago, and one tick many of them.
    fn floor(&mut self, now: i64) -> i64 {
        let slowest = self.partitions.values().map(|known| known.before).min();
        self.partitions.values_mut().for_each(|known| known.before = known.settled);
        slowest.unwrap_or(i64::MIN).min(now).saturating_sub(SKEW)
    }

    fn shard(&self, batch: &EventBatch, row: usize) -> u8 {
        match batch.ids.is_valid(row) {
            true => self.ids.shard(batch.ids.value(row)),
            false => shard_of(route_hash(&(batch.offsets[row], batch.parts[row]))),
        }
    }

    /// Rows with the same id go to the same worker, so that each can tell duplicates alone.
    fn route(&self, work: Vec<Rowset>) -> Vec<Vec<Rowset>> {
        let workers = self.workers.len();
        let mut shares: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        if workers == 1 {
            shares[0] = work;
            return shares;
        }
        for (partition, batch) in work {
            let home: Vec<usize> = (0..batch.columns.num_rows())
                .map(|row| usize::from(self.shard(&batch, row)) % workers)
                .collect();
            for (worker, share) in shares.iter_mut().enumerate() {
                let mine: Vec<bool> = home.iter().map(|home| *home == worker).collect();
                if mine.contains(&true) {
                    share.push((Arc::clone(&partition), select_rows(&batch, &mine)));
                }
            }
        }
        shares
    }
}

/// What a coordinator begins with.
pub(crate) struct Begin {
    pub(crate) before: Before,
    pub(crate) ids: Arc<IdHash>,
    pub(crate) keeping: Keeping,
    pub(crate) resume: Resume,
}

impl Known {
    fn stand(&self) -> Stand {
        let Progress { next, end } = self.progress;
        Stand { partition: Partition::clone(&self.shared), next, end, settled: self.settled }
    }
}

fn start_of_time() -> Instant {
    let now = monotonic();
    now.checked_sub(TICK_LEAST).unwrap_or(now)
}
