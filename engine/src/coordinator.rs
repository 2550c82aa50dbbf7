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
use operators::admit::select as select_rows;
use operators::fold::panes::route_hash;

use crate::api::Clock;
use crate::clock::Now;
use crate::publish::{Counts, Opened, Progress, Publisher};
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
    /// Fold what was sent, answer, end.
    Stop(Sender<()>),
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
    stop: bool,
}

impl Coordinator {
    pub(crate) fn new(
        clock: &Clock,
        chunks: Receiver<Chunk>,
        control: Receiver<Control>,
        workers: Vec<Sender<Tick>>,
        publisher: Arc<Publisher>,
    ) -> Self {
        Self {
            clock: Now::new(clock),
            chunks,
            control,
            workers,
            publisher,
            number: 0,
            tap: false,
            last_tick: start_of_time(),
            partitions: BTreeMap::new(),
            counters: BTreeMap::new(),
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
        let (chunks, control) = (self.chunks.clone(), self.control.clone());
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

    /// Takes more, until the tick is full or nothing waits and the last tick is long enough ago.
    fn gather(&mut self, gathered: &mut Gathered) {
        while gathered.rows < TICK_ROWS {
            while let Ok(message) = self.control.try_recv() {
                self.obey(message, gathered);
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
        while let Ok(chunk) = self.chunks.try_recv() {
            self.take(chunk, gathered);
        }
        match message {
            Control::Clock(now, done) => {
                self.clock.set(now);
                gathered.acks.push(done);
            }
            Control::Flush(done) => gathered.acks.push(done),
            Control::Tap(on) => self.tap = on,
            Control::Stop(done) => {
                gathered.acks.push(done);
                gathered.stop = true;
            }
        }
    }

    fn take(&mut self, chunk: Chunk, gathered: &mut Gathered) {
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
        self.last_tick = start_of_time_or_now();
        let now = self.clock.read();
        let mut refused = self.refused_rows(&gathered.refused);
        let offsets = self.partitions.iter().map(|(p, known)| (p.clone(), known.progress));
        self.publisher.open(
            self.number,
            Opened {
                now,
                offsets: offsets.collect(),
                counters: std::mem::take(&mut self.counters),
                refused: gathered.refused,
                acks: gathered.acks,
            },
        );
        let floor = self.floor(now);
        let mut shares = self.route(gathered.work);
        let (number, tap) = (self.number, self.tap);
        self.workers.iter().zip(shares.drain(..)).all(|(to, work)| {
            let refused = std::mem::take(&mut refused);
            to.send(Tick { number, now, floor, tap, work, refused }).is_ok()
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
                .map(|row| (row_hash(&batch, row) % workers as u64) as usize)
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

fn row_hash(batch: &EventBatch, row: usize) -> u64 {
    if batch.ids.is_valid(row) {
        route_hash(&batch.ids.value(row))
    } else {
        route_hash(&(batch.offsets[row], batch.parts[row]))
    }
}

/// Monotonic time is used only to space ticks; no answer depends on it.
#[allow(clippy::disallowed_methods)]
fn start_of_time_or_now() -> Instant {
    Instant::now()
}

fn start_of_time() -> Instant {
    let now = start_of_time_or_now();
    now.checked_sub(TICK_LEAST).unwrap_or(now)
}
