//! Rows of the same key become intervals.
//!
//! *In*: rows with the state they lead into, which come (+) and go (-), a tick at a time. *Out*: intervals, keys that
//! are done and the intervals these have passed, in the same way. *Never*: an interval that depends on arrival order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ahash::HashMap;
use contracts::catalog::{Sequence, SpanKind};
use contracts::value::Value;
use serde::{Deserialize, Serialize};

use super::Row;
use crate::fold::group::Lost;
use crate::fold::panes::Key;
use crate::state::Keyed;

mod stored;

/// A row and what it says about its key. The order is that of the key's history: time, then id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stay {
    /// The row.
    pub row: Row,
    /// The state it leads into; null: it says nothing about it.
    pub state: Value,
    /// `start` holds (or is not asked for).
    pub start: bool,
    /// `end` holds.
    pub end: bool,
}

/// A row of a sequence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// What it is about.
    pub kind: SpanNumber,
    /// The row's time.
    pub time: i64,
    /// The key.
    pub key: Value,
    /// State of the interval; null for a key that is done.
    pub state: Value,
    /// The state after it.
    pub next: Value,
    /// From when; `None` for a key that is done.
    pub start: Option<i64>,
    /// Until when; `None`: it is open.
    pub end: Option<i64>,
    /// When the key entered.
    pub entered: Option<i64>,
    /// When the key was done.
    pub done: Option<i64>,
}

/// Index into [`SpanKind::ALL`].
pub type SpanNumber = u8;

impl Span {
    /// How long it lasted, microseconds.
    pub fn dwell(&self) -> Option<i64> {
        let (from, to) = match self.start {
            Some(start) => (Some(start), self.end),
            None => (self.entered, self.done),
        };
        Some(to?.saturating_sub(from?))
    }
}

/// A span with the row that opened it (or closed its key).
type Told = (Arc<Stay>, Span);

/// What is known of one key.
#[derive(Debug, Clone, Default)]
struct Held {
    stays: BTreeMap<Arc<Stay>, i64>,
    told: Vec<Told>,
    /// Entered before the first row that is still held.
    entered: Option<i64>,
    /// Rows up to here have been let go.
    settled: Option<i64>,
    /// When `settled` is forgotten, if nothing else is left.
    until: Option<i64>,
}

/// The keys of one sequence on one worker.
#[derive(Debug)]
pub struct SequenceState {
    by_state: bool,
    kinds: [bool; 3],
    retain: i64,
    max_held: usize,
    now: i64,
    keys: Keyed<Key, Held>,
    held: usize,
    /// Keys that hold rows of a stretch of time, by its number.
    ages: BTreeMap<i64, Vec<Key>>,
    stretch: i64,
    /// Keys of which nothing but `settled` is left, by when that is forgotten.
    gone: VecDeque<(i64, Key)>,
    /// Rows dropped, by reason.
    pub lost: Lost,
}

/// The intervals of a key in order, until it is done, and what holds for it as a whole.
struct Life {
    spans: Vec<Told>,
    entered: Option<i64>,
    done: Option<(i64, Arc<Stay>)>,
    /// Time of its last row.
    last: i64,
}

impl Life {
    fn new(entered: Option<i64>) -> Self {
        Self { spans: Vec::new(), entered, done: None, last: i64::MIN }
    }
}

/// A life with what is open of it.
struct Growing {
    name: Value,
    life: Life,
    open: Option<Arc<Stay>>,
}

impl Growing {
    /// A row that leads into a state.
    fn enter(&mut self, stay: &Arc<Stay>) {
        if stay.start && self.life.entered.is_none() {
            self.life.entered = Some(stay.row.time);
        }
        self.life.done = None;
        if self.open.as_ref().is_some_and(|open| open.state == stay.state) {
            return;
        }
        self.close(Some(stay.row.time), stay.state.clone());
        self.open = Some(Arc::clone(stay));
    }

    fn close(&mut self, end: Option<i64>, next: Value) {
        let Some(by) = self.open.take() else { return };
        let start = by.row.time;
        let span = Span {
            kind: SpanKind::Interval as SpanNumber,
            time: end.unwrap_or(start),
            key: self.name.clone(),
            state: by.state.clone(),
            next,
            start: Some(start),
            end,
            entered: self.life.entered,
            done: None,
        };
        self.life.spans.push((by, span));
    }
}

impl SequenceState {
    /// No keys yet.
    pub fn new(sequence: &Sequence, retain: i64, max_held: usize) -> Self {
        Self::with(sequence.state.is_some(), &sequence.kinds, retain, max_held)
    }

    /// The same by what matters of the contract: whether rows lead into states, and what is read.
    pub fn with(by_state: bool, kinds: &[SpanKind], retain: i64, max_held: usize) -> Self {
        let wanted = |kind: SpanKind| kinds.contains(&kind);
        Self {
            by_state,
            kinds: SpanKind::ALL.map(wanted),
            retain,
            max_held,
            now: i64::MIN,
            keys: Keyed::default(),
            held: 0,
            ages: BTreeMap::new(),
            stretch: (retain / 64).max(1),
            gone: VecDeque::new(),
            lost: Lost::new(),
        }
    }

    /// Rows held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Applies the rows of a tick; `give` is called with each change.
    pub fn apply(&mut self, stays: Vec<(Key, Arc<Stay>, i64)>, mut give: impl FnMut(&Row, Span, i64)) {
        let mut by_key: HashMap<Key, Vec<(Arc<Stay>, i64)>> = HashMap::default();
        for (key, stay, weight) in stays {
            by_key.entry(key).or_default().push((stay, weight));
        }
        for (key, stays) in by_key {
            let mut held = self.keys.borrow(&key);
            for (stay, weight) in stays {
                self.weigh(&key, &mut held, stay, weight);
            }
            let spans = self.spans(&key, &held);
            tell(&mut held, spans, &mut give);
            self.settle(&mut held);
            self.keep(key, held);
        }
    }

    fn weigh(&mut self, key: &Key, held: &mut Held, stay: Arc<Stay>, weight: i64) {
        let time = stay.row.time;
        if let Some(known) = held.stays.get_mut(&stay) {
            *known += weight;
            if *known == 0 {
                held.stays.remove(&stay);
                self.held -= 1;
            }
            return;
        }
        if held.settled.is_some_and(|settled| time <= settled) {
            if weight > 0 {
                *self.lost.entry("beyond_retention").or_default() += 1;
            }
            return;
        }
        if weight > 0 && self.held >= self.max_held {
            *self.lost.entry("sequence_overflow").or_default() += 1;
            return;
        }
        self.held += 1;
        held.stays.insert(stay, weight);
        let keys = self.ages.entry(time.div_euclid(self.stretch)).or_default();
        if keys.last() != Some(key) {
            keys.push(key.clone());
        }
    }

    /// Every row that the key makes, in order.
    fn spans(&self, key: &Key, held: &Held) -> Vec<Told> {
        let lives = self.lives(key, held);
        lives.into_iter().flat_map(|life| self.of_life(key, life)).collect()
    }

    /// The rows of one life, in order.
    fn of_life(&self, key: &Key, life: Life) -> Vec<Told> {
        let Life { mut spans, entered, done, .. } = life;
        let name = key.values.first().cloned().unwrap_or(Value::Null);
        let mut passed = Vec::new();
        if let Some((done, by)) = done {
            if let (true, Some(entered)) = (self.kinds[SpanKind::Passed as usize], entered) {
                let after = spans.iter().filter(|(_, span)| span.end.is_some_and(|end| end > entered));
                passed.extend(after.map(|(stay, span)| {
                    let start = span.start.map(|start| start.max(entered));
                    let kind = SpanKind::Passed as SpanNumber;
                    (Arc::clone(stay), Span { kind, time: done, start, done: Some(done), ..span.clone() })
                }));
            }
            if self.kinds[SpanKind::Item as usize] {
                let item = Span {
                    kind: SpanKind::Item as SpanNumber,
                    time: done,
                    key: name,
                    state: Value::Null,
                    next: Value::Null,
                    start: None,
                    end: None,
                    entered,
                    done: Some(done),
                };
                passed.push((by, item));
            }
        }
        if !self.kinds[SpanKind::Interval as usize] {
            spans.clear();
        }
        spans.extend(passed);
        spans
    }

    /// The lives of a key: one that comes back long after it was done begins anew.
    fn lives(&self, key: &Key, held: &Held) -> Vec<Life> {
        let mut lives: Vec<Life> = Vec::new();
        let name = key.values.first().cloned().unwrap_or(Value::Null);
        let mut growing = Growing { name, life: Life::new(held.entered), open: None };
        for stay in held.stays.iter().filter(|(_, weight)| **weight > 0).map(|(stay, _)| stay) {
            let time = stay.row.time;
            if stay.end {
                let was_open = growing.open.is_some();
                growing.close(Some(time), Value::Null);
                if growing.life.done.is_none() && (was_open || self.by_state) {
                    growing.life.done = Some((time, Arc::clone(stay)));
                }
            }
            let opens = match self.by_state {
                true => !stay.end && !stay.state.is_null(),
                false => stay.start && growing.open.is_none(),
            };
            if opens {
                let anew = |done: i64| time.saturating_sub(done) > self.retain;
                if growing.life.done.as_ref().is_some_and(|(done, _)| anew(*done)) {
                    lives.push(std::mem::replace(&mut growing.life, Life::new(None)));
                }
                growing.enter(stay);
            }
            growing.life.last = time;
        }
        growing.close(None, Value::Null);
        lives.push(growing.life);
        lives
    }

    /// Lets go what can no longer move a number. Twice the retention, so that a row that is late by less finds the key
    /// as it was.
    fn settle(&mut self, held: &mut Held) {
        let bound = self.now.saturating_sub(self.retain).saturating_sub(self.retain);
        if held.stays.first_key_value().is_none_or(|(stay, _)| stay.row.time >= bound) {
            return;
        }
        let key = Key::new([Value::Null].into_iter());
        let before = held.stays.len();
        for life in self.lives(&key, held) {
            if life.done.as_ref().is_some_and(|(done, _)| *done < bound) && life.last < bound {
                let last = life.last;
                let told = self.of_life(&key, life).len();
                held.told.drain(..told.min(held.told.len()));
                held.stays.retain(|stay, _| stay.row.time > last);
                held.settled = Some(last);
                held.entered = None;
                continue;
            }
            self.settle_part(held, &life, bound);
            break;
        }
        self.held -= before - held.stays.len();
    }

    /// Lets go the intervals of a life that ended long ago, where only intervals are read.
    fn settle_part(&self, held: &mut Held, life: &Life, bound: i64) {
        if self.kinds[SpanKind::Item as usize] || self.kinds[SpanKind::Passed as usize] {
            return;
        }
        let lasts = |(_, span): &Told| span.end.is_none_or(|end| end >= bound);
        let Some(first) = life.spans.iter().position(lasts).filter(|first| *first > 0) else { return };
        let opener = Arc::clone(&life.spans[first].0);
        held.stays = held.stays.split_off(&opener);
        held.told.drain(..first.min(held.told.len()));
        held.entered = life.entered.filter(|entered| *entered < opener.row.time);
        held.settled = Some(opener.row.time.saturating_sub(1));
    }

    /// Keeps a key; one that holds nothing but where it has been settled is forgotten a retention later.
    fn keep(&mut self, key: Key, mut held: Held) {
        held.until = None;
        if held.stays.is_empty() {
            if held.settled.is_none() {
                return self.keys.put_back(key, None);
            }
            let until = self.now.saturating_add(self.retain);
            held.until = Some(until);
            self.gone.push_back((until, key.clone()));
        }
        self.keys.put_back(key, Some(held));
    }

    /// Moves the clock: what can no longer move a number is let go.
    pub fn turn(&mut self, now: i64) {
        self.now = now;
        let bound = now.saturating_sub(self.retain);
        while let Some(entry) = self.ages.first_entry() {
            if (entry.key() + 1).saturating_mul(self.stretch) > bound {
                break;
            }
            for key in entry.remove() {
                if !self.keys.contains(&key) {
                    continue;
                }
                let mut held = self.keys.borrow(&key);
                self.settle(&mut held);
                self.keep(key, held);
            }
        }
        while self.gone.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, key)) = self.gone.pop_front()
                && self.keys.get(&key).is_some_and(|held| held.stays.is_empty())
            {
                self.keys.remove(&key);
            }
        }
    }
}

/// Gives what turns the rows told into the new ones.
fn tell(held: &mut Held, spans: Vec<Told>, give: &mut impl FnMut(&Row, Span, i64)) {
    let same = held.told.iter().zip(&spans).take_while(|(old, new)| old == new).count();
    let mut more: Vec<&Told> = spans[same..].iter().collect();
    for old in &held.told[same..] {
        match more.iter().position(|new| *new == old) {
            Some(at) => {
                more.remove(at);
            }
            None => give(&old.0.row, old.1.clone(), -1),
        }
    }
    for (stay, span) in more {
        give(&stay.row, span.clone(), 1);
    }
    held.told = spans;
}

#[cfg(test)]
mod tests;
