//! Admitted events that are kept, so that any number can be computed again from them.
//!
//! *In*: what ticks have admitted. *Out*: the events of some types up to a tick. *Never*: a wait for whoever offers:
//! what cannot be kept is let go, oldest first, and the store says from which event time on it is complete.
//!
//! In memory up to a budget; beyond it a thread writes the oldest to files (`segment`), as much as may be on disk.
//! Nothing here outlives the process: what was admitted before a restart is gone, and the store says so.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use contracts::batch::Kept;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

mod segment;
#[cfg(test)]
mod tests;

use segment::{Segment, joined, times};

/// How much is kept.
#[derive(Debug, Clone)]
pub struct KeepLimits {
    /// Bytes in memory.
    pub memory: usize,
    /// Bytes in files.
    pub disk: u64,
    /// Per event type that is kept: how far back from the clock, microseconds.
    pub retain: BTreeMap<usize, i64>,
}

/// Small batches are joined once there are more than this many of a type.
const BATCHES: usize = 512;
/// Only ticks this many behind the newest are joined: a reader may still be at an earlier one.
const TICKS_APART: u64 = 1_000;
/// Bytes of one file, about.
const SEGMENT: usize = 16 << 20;

/// The store of one engine. Dropping it removes its files.
#[derive(Debug)]
pub struct EventStore {
    shared: Arc<Shared>,
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    limits: KeepLimits,
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    types: BTreeMap<usize, Type>,
    /// Bytes in memory, and in files.
    memory: usize,
    disk: u64,
    /// The newest tick and its clock.
    tick: u64,
    now: i64,
    next: u64,
}

/// The events of one type, oldest first.
#[derive(Debug, Default)]
struct Type {
    entries: VecDeque<Entry>,
    /// The greatest event time among those let go for want of room.
    gone: Option<i64>,
}

#[derive(Debug, Clone)]
struct Entry {
    number: u64,
    tick: u64,
    bytes: usize,
    /// Least and greatest event time.
    times: (i64, i64),
    rows: usize,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Memory(Arc<Kept>),
    File(Arc<Segment>),
}

/// What a question finds.
#[derive(Debug, Default)]
pub struct Found {
    /// Events, in no order between batches.
    pub events: Vec<Arc<Kept>>,
    /// The greatest event time among events that are gone; `None`: all are there.
    pub gone: Option<i64>,
}

/// Events cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// More than a question may hold.
    #[error("the number is made of {rows} events, more than {most} are not read again")]
    TooMany {
        /// Events in question.
        rows: usize,
        /// How many may be.
        most: usize,
    },
    /// A file.
    #[error("kept events cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A file's content.
    #[error("kept events cannot be read: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

impl EventStore {
    /// An empty store; files of an earlier process in `folder` are removed.
    ///
    /// # Errors
    /// When the folder cannot be made or the thread not be started.
    pub fn open(folder: PathBuf, limits: KeepLimits) -> io::Result<Self> {
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir_all(&folder)?,
        }
        let shared = Arc::new(Shared { limits, folder, state: Mutex::default() });
        let (wake, woken) = bounded(1);
        let own = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("kept-events".to_owned()).spawn(move || own.work(&woken))?;
        Ok(Self { shared, wake: Some(wake), thread: Some(thread) })
    }

    /// Says that events up to this instant were admitted before, and are not here.
    pub fn begin(&self, until: i64) {
        let mut state = self.shared.state.lock();
        for event in self.shared.limits.retain.keys() {
            let one = state.types.entry(*event).or_default();
            one.gone = one.gone.max(Some(until));
        }
    }

    /// Takes what a tick has admitted; types that nobody reads are passed over.
    pub fn offer(&self, tick: u64, now: i64, batches: impl Iterator<Item = Kept>) {
        let limits = &self.shared.limits;
        let mut state = self.shared.state.lock();
        (state.tick, state.now) = (tick, now);
        for kept in batches.filter(|kept| limits.retain.contains_key(&kept.batch.event)) {
            state.add(kept);
        }
        while state.memory > limits.memory.saturating_mul(2) && state.let_go() {}
        let crowded = state.types.values().any(|one| one.entries.len() > BATCHES);
        if (state.memory > limits.memory || crowded)
            && let Some(wake) = &self.wake
        {
            // A thread that is awake already will see this, too.
            let _ = wake.try_send(());
        }
    }

    /// The events of `types` that were admitted up to `tick`; of those with a greatest event time before `from`,
    /// whole batches may be missing.
    ///
    /// # Errors
    /// More than `most` events, or files that cannot be read.
    pub fn read(&self, types: &[usize], tick: u64, from: i64, most: usize) -> Result<Found, KeepError> {
        let mut found = Found::default();
        let mut entries: Vec<Entry> = Vec::new();
        {
            let state = self.shared.state.lock();
            for one in types.iter().filter_map(|event| state.types.get(event)) {
                found.gone = found.gone.max(one.gone);
                let wanted = |entry: &&Entry| entry.tick <= tick && entry.times.1 >= from;
                entries.extend(one.entries.iter().filter(wanted).cloned());
            }
        }
        let rows = entries.iter().map(|entry| entry.rows).sum();
        if rows > most {
            return Err(KeepError::TooMany { rows, most });
        }
        for entry in entries {
            found.events.push(match entry.place {
                Place::Memory(kept) => kept,
                Place::File(segment) => Arc::new(segment.read()?),
            });
        }
        Ok(found)
    }

    /// Events kept, bytes in memory, bytes in files.
    pub fn size(&self) -> (usize, usize, u64) {
        let state = self.shared.state.lock();
        let rows = state.types.values().flat_map(|one| &one.entries).map(|entry| entry.rows).sum();
        (rows, state.memory, state.disk)
    }
}

impl Drop for EventStore {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
        // Readers may hold files; the folder goes with the next start then.
        let _ = std::fs::remove_dir_all(&self.shared.folder);
    }
}

impl State {
    fn add(&mut self, kept: Kept) {
        let rows = kept.batch.columns.num_rows();
        if rows == 0 {
            return;
        }
        let entry = Entry {
            number: self.next,
            tick: kept.tick,
            bytes: kept.bytes(),
            times: times(&kept),
            rows,
            place: Place::Memory(Arc::new(kept)),
        };
        self.next += 1;
        self.memory += entry.bytes;
        let Place::Memory(kept) = &entry.place else { return };
        self.types.entry(kept.batch.event).or_default().entries.push_back(entry);
    }

    /// Lets the oldest entry of all go; `false` when there is none.
    fn let_go(&mut self) -> bool {
        let oldest = self.types.values_mut().filter(|one| !one.entries.is_empty());
        let oldest = oldest.min_by_key(|one| one.entries.front().map(|entry| entry.number));
        let Some(one) = oldest else { return false };
        let Some(entry) = one.entries.pop_front() else { return false };
        one.gone = one.gone.max(Some(entry.times.1));
        match entry.place {
            Place::Memory(_) => self.memory = self.memory.saturating_sub(entry.bytes),
            Place::File(_) => self.disk = self.disk.saturating_sub(entry.bytes as u64),
        }
        true
    }

    /// Drops what is older than what anybody asks about.
    fn expire(&mut self, retain: &BTreeMap<usize, i64>) {
        let now = self.now;
        for (event, one) in &mut self.types {
            let oldest = now.saturating_sub(retain.get(event).copied().unwrap_or(i64::MAX));
            one.entries.retain(|entry| {
                let stays = entry.times.1 >= oldest;
                match (&entry.place, stays) {
                    (_, true) => {}
                    (Place::Memory(_), false) => self.memory = self.memory.saturating_sub(entry.bytes),
                    (Place::File(_), false) => self.disk = self.disk.saturating_sub(entry.bytes as u64),
                }
                stays
            });
        }
    }

    /// Entries in memory of one type and partition that belong together: too many small ones, or the oldest when
    /// there is too much.
    fn crowd(&self, memory: usize) -> Option<(Vec<Entry>, bool)> {
        let spill = self.memory > memory / 4 * 3;
        let weight = |one: &&Type| if spill { one.memory() } else { one.entries.len() };
        let one = self.types.values().max_by_key(weight)?;
        let newest = if spill { u64::MAX } else { self.tick.saturating_sub(TICKS_APART) };
        let small = |entry: &&Entry| entry.tick <= newest && (spill || entry.bytes < SEGMENT / 16);
        let mut wanted: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for entry in one.entries.iter().filter(small) {
            let Place::Memory(kept) = &entry.place else { continue };
            let fits = match wanted.first().map(|first| &first.place) {
                Some(Place::Memory(first)) => first.partition == kept.partition,
                _ => true,
            };
            if fits && bytes < SEGMENT {
                bytes += entry.bytes;
                wanted.push(entry.clone());
            }
        }
        let worth = if spill { !wanted.is_empty() } else { one.entries.len() > BATCHES && wanted.len() > 16 };
        worth.then_some((wanted, spill))
    }

    /// Puts one entry in the place of several.
    fn replace(&mut self, event: usize, old: &[Entry], place: Place, bytes: usize, in_memory: bool) {
        let Some(one) = self.types.get_mut(&event) else { return };
        let known = |entry: &Entry| old.iter().any(|old| old.number == entry.number);
        let there: Vec<Entry> = one.entries.iter().filter(|entry| known(entry)).cloned().collect();
        // What was let go meanwhile must not come back.
        let (Some(first), true) = (there.first(), there.len() == old.len()) else { return };
        let entry = Entry {
            number: first.number,
            tick: old.iter().map(|entry| entry.tick).max().unwrap_or(first.tick),
            bytes,
            times: old.iter().fold((i64::MAX, i64::MIN), |(least, most), entry| {
                (least.min(entry.times.0), most.max(entry.times.1))
            }),
            rows: old.iter().map(|entry| entry.rows).sum(),
            place,
        };
        one.entries.retain(|entry| !known(entry));
        let at = one.entries.partition_point(|other| other.number < entry.number);
        one.entries.insert(at, entry);
        self.memory = self.memory.saturating_sub(old.iter().map(|entry| entry.bytes).sum());
        match in_memory {
            true => self.memory += bytes,
            false => self.disk += bytes as u64,
        }
    }
}

impl Type {
    fn memory(&self) -> usize {
        let in_memory = self.entries.iter().filter(|entry| matches!(entry.place, Place::Memory(_)));
        in_memory.map(|entry| entry.bytes).sum()
    }
}

impl Shared {
    /// The thread: until nobody can wake it any more.
    fn work(&self, woken: &Receiver<()>) {
        while woken.recv().is_ok() {
            self.state.lock().expire(&self.limits.retain);
            while let Some((entries, spill)) = self.crowded() {
                if let Err(error) = self.pack(&entries, spill) {
                    tracing::warn!(%error, "kept events are let go: they cannot be written");
                    self.state.lock().let_go();
                }
            }
            let mut state = self.state.lock();
            while state.disk > self.limits.disk && state.let_go() {}
        }
    }

    fn crowded(&self) -> Option<(Vec<Entry>, bool)> {
        self.state.lock().crowd(self.limits.memory)
    }

    /// Joins entries, and writes them to a file where memory is short.
    fn pack(&self, entries: &[Entry], spill: bool) -> Result<(), KeepError> {
        let kept: Vec<Arc<Kept>> = entries
            .iter()
            .filter_map(|entry| match &entry.place {
                Place::Memory(kept) => Some(Arc::clone(kept)),
                Place::File(_) => None,
            })
            .collect();
        let Some(one) = joined(&kept)? else { return Ok(()) };
        let event = one.batch.event;
        let number = entries.first().map_or(0, |entry| entry.number);
        let (place, bytes) = match spill {
            true => {
                let segment = Segment::write(&self.folder, number, &one)?;
                let bytes = segment.bytes;
                (Place::File(Arc::new(segment)), bytes)
            }
            false => {
                let bytes = one.bytes();
                (Place::Memory(Arc::new(one)), bytes)
            }
        };
        self.state.lock().replace(event, entries, place, bytes, !spill);
        Ok(())
    }
}
