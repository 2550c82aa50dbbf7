//! A step adds a part to each row: the partner that matches by key and time.
//!
//! *In*: rows and partners that come (+) and go (-), a tick at a time. *Out*: rows with one part more, in the same
//! way. *Never*: a partner that depends on arrival order; a row that waits and is not counted.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ahash::HashMap;
use contracts::catalog::{Missing, Order, Pick, Step};
use contracts::value::Value;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::ships::Edge;
use super::{PartRow, Row};
use crate::fold::group::Lost;
use crate::fold::panes::Key;
use crate::state::Keyed;

pub(super) mod stored;

/// Numbers of rows that have no partner. Of one worker they may be negative: they are sums over all workers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alone {
    /// They may still find one.
    pub waiting: i64,
    /// Their bound has passed, or their side of the equality is null.
    pub unmatched: i64,
    /// Left out because a table has no row for them.
    pub missing: i64,
    /// Shipped by the first deployment of a line; once per line.
    pub cold_start: i64,
}

/// One input of a step.
#[derive(Debug)]
pub enum Input {
    /// A row; `None`: its side of the equality is null.
    Left(Option<Key>, Row, i64),
    /// A partner.
    Right(Key, Arc<PartRow>, i64),
    /// Edges of a commit graph that something of this time tells ([`super::ships`]).
    Edges(Key, i64, Arc<[Edge]>, i64),
}

/// The rows and partners of one step on one worker.
#[derive(Debug)]
pub struct StepState {
    step: Step,
    keys: Keyed<Key, Rows>,
    /// Rows and partners held.
    held: usize,
    max_held: usize,
    now: i64,
    alone: Alone,
    /// Waiting rows by the instant after which they are unmatched.
    deadlines: OrdMap<i64, i64>,
    /// Keys that hold rows of a stretch of time, by its number.
    ages: BTreeMap<i64, Vec<Key>>,
    /// How long a stretch is.
    stretch: i64,
    retain: i64,
    /// Rows and partners dropped: too many, or too old.
    pub lost: Lost,
}

/// What one key holds, by time.
#[derive(Debug, Clone, Default)]
struct Rows {
    left: BTreeMap<i64, Vec<Left>>,
    right: BTreeMap<i64, Vec<(Arc<PartRow>, i64)>>,
}

#[derive(Debug, Clone)]
struct Left {
    row: Row,
    weight: i64,
    /// What has been told: weight and partners.
    told: (i64, Partners),
}

/// Partners with their weights, in order.
type Partners = Vec<(Arc<PartRow>, i64)>;

impl StepState {
    /// No rows yet.
    pub fn new(step: Step, retain: i64, max_held: usize) -> Self {
        Self {
            step,
            keys: Keyed::default(),
            held: 0,
            max_held,
            now: i64::MIN,
            alone: Alone::default(),
            deadlines: OrdMap::new(),
            ages: BTreeMap::new(),
            stretch: (retain / 64).max(1),
            retain,
            lost: Lost::new(),
        }
    }

    /// Rows and partners held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The step.
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// Rows without a partner.
    pub fn alone(&self) -> Alone {
        let waiting = self.deadlines.values().sum();
        Alone { waiting, ..self.alone.clone() }
    }

    /// Applies the inputs of a tick; `give` is called with each change of a row.
    pub fn apply(&mut self, inputs: Vec<Input>, mut give: impl FnMut(Row, i64)) {
        let mut by_key: HashMap<Key, Vec<Input>> = HashMap::default();
        for input in inputs {
            match input {
                Input::Left(None, row, weight) => self.without_key(row, weight, &mut give),
                Input::Left(Some(ref key), ..) | Input::Right(ref key, ..) => {
                    by_key.entry(key.clone()).or_default().push(input);
                }
                Input::Edges(..) => {} // No graph here.
            }
        }
        for (key, inputs) in by_key {
            self.apply_key(key, inputs, &mut give);
        }
    }

    fn without_key(&mut self, row: Row, weight: i64, give: &mut impl FnMut(Row, i64)) {
        match self.step.missing {
            Missing::Keep => give(with(&self.step, &row, None), weight),
            Missing::Wait => self.alone.unmatched += weight,
            Missing::Drop | Missing::Hold | Missing::Fail => self.alone.missing += weight,
        }
    }

    fn apply_key(&mut self, key: Key, inputs: Vec<Input>, give: &mut impl FnMut(Row, i64)) {
        let mut rows = self.keys.borrow(&key);
        let mut touched: Vec<RangeInclusive<i64>> = Vec::new();
        for input in inputs {
            match input {
                Input::Left(_, row, weight) => {
                    let anchor = self.anchor(&row);
                    if self.too_old(anchor, self.left_bound()) || !self.room(weight) {
                        continue;
                    }
                    self.age(anchor, &key);
                    self.held += rows.add_left(anchor, row, weight);
                    touched.push(anchor..=anchor);
                }
                Input::Right(_, row, weight) => {
                    let time = row.time;
                    if self.step.within.is_some()
                        && (self.too_old(time, self.right_bound()) || !self.room(weight))
                    {
                        continue;
                    }
                    let until = self.until(&row);
                    self.age(until.unwrap_or(time), &key);
                    touched.push(self.reach(time, until, &rows));
                    let held = self.held as i64 + rows.add_right(row, weight);
                    self.held = usize::try_from(held).unwrap_or(0);
                }
                Input::Edges(..) => {}
            }
        }
        for range in merged(touched) {
            self.recompute(&mut rows, range, give);
        }
        let left = (!rows.left.is_empty() || !rows.right.is_empty()).then_some(rows);
        self.keys.put_back(key, left);
    }

    /// The instant of a row that partners are compared with.
    fn anchor(&self, row: &Row) -> i64 {
        match self.step.from {
            Some(part) => row.parts[part].as_ref().map_or(row.time, |part| part.time),
            None => row.time,
        }
    }

    /// The instants within reach of one.
    fn around(&self, time: i64) -> (i64, i64) {
        match self.step.within {
            Some(within) => (time.saturating_sub(within), time.saturating_add(within)),
            None => (i64::MIN, i64::MAX),
        }
    }

    /// Anchors of the rows whose partners may change when a partner that holds from `time` to `until` comes or goes.
    fn reach(&self, time: i64, until: Option<i64>, rows: &Rows) -> RangeInclusive<i64> {
        let (first, last) = self.around(time);
        let simple = self.step.valid_to.is_none();
        match (self.step.order, self.step.pick) {
            // Rows before an earlier partner have that one.
            (Order::After, Pick::First) if simple => {
                let before = rows.right.range(..time).next_back().map_or(first, |(time, _)| *time);
                before.max(first)..=time
            }
            (Order::After, _) => first..=time,
            // Rows after a later partner have that one.
            (Order::Before, Pick::Last) if simple => {
                let after = rows.right.range(time.saturating_add(1)..).next().map_or(last, |(time, _)| *time);
                time..=after.min(last)
            }
            (Order::Before, _) => {
                time..=until.map_or(last, |until| last.min(until.saturating_sub(1)).max(time))
            }
            (Order::Any, _) => first..=last,
        }
    }

    /// From when on a partner is no longer valid.
    fn until(&self, row: &PartRow) -> Option<i64> {
        until(row, self.step.valid_to?)
    }

    fn recompute(&mut self, rows: &mut Rows, range: RangeInclusive<i64>, give: &mut impl FnMut(Row, i64)) {
        let Rows { left, right } = rows;
        let mut empty = Vec::new();
        for (anchor, lefts) in left.range_mut(range) {
            let partners = self.partners(*anchor, right);
            for left in &mut *lefts {
                // A row that goes without having come was too old or one too many.
                left.weight = left.weight.max(0);
                self.tell(*anchor, left, &partners, give);
            }
            let before = lefts.len();
            lefts.retain(|left| left.weight != 0);
            self.held -= before - lefts.len();
            if lefts.is_empty() {
                empty.push(*anchor);
            }
        }
        for anchor in empty {
            left.remove(&anchor);
        }
    }

    /// The partners of rows at `anchor`.
    fn partners(&self, anchor: i64, right: &BTreeMap<i64, Vec<(Arc<PartRow>, i64)>>) -> Partners {
        let (first, last) = self.around(anchor);
        let range = match self.step.order {
            Order::After => anchor..=last,
            Order::Before => first..=anchor,
            Order::Any => first..=last,
        };
        let fits = |(row, weight): &&(Arc<PartRow>, i64)| {
            let valid = self.until(row).is_none_or(|until| until > anchor);
            *weight > 0 && valid && !(self.step.strict && row.time == anchor)
        };
        let mut all = right.range(range).flat_map(|(_, rows)| rows).filter(fits);
        let one = |(row, _): &(Arc<PartRow>, i64)| (Arc::clone(row), 1);
        match self.step.pick {
            Pick::First => all.next().map(one).into_iter().collect(),
            Pick::Last => all.next_back().map(one).into_iter().collect(),
            Pick::Each => all.cloned().collect(),
        }
    }

    /// Tells what changed about a row.
    fn tell(&mut self, anchor: i64, left: &mut Left, partners: &Partners, give: &mut impl FnMut(Row, i64)) {
        let (old_weight, old) = &left.told;
        if *old_weight == left.weight && old == partners {
            return;
        }
        let keeps = self.step.missing == Missing::Keep;
        for (partner, weight) in changed(old, *old_weight, partners, left.weight) {
            give(with(&self.step, &left.row, Some(partner)), weight);
        }
        let alone = |weight: i64, partners: &Partners| if partners.is_empty() { weight } else { 0 };
        let change = alone(left.weight, partners) - alone(*old_weight, old);
        if change != 0 && keeps {
            give(with(&self.step, &left.row, None), change);
        } else if change != 0 {
            self.count_alone(anchor, change);
        }
        left.told = (left.weight, partners.clone());
    }

    fn count_alone(&mut self, anchor: i64, change: i64) {
        if self.step.missing != Missing::Wait {
            self.alone.missing += change;
            return;
        }
        let deadline = match self.step.order {
            Order::Before => anchor,
            Order::After | Order::Any => anchor.saturating_add(self.step.within.unwrap_or(i64::MAX)),
        };
        if deadline < self.now {
            self.alone.unmatched += change;
            return;
        }
        let waiting = self.deadlines.entry(deadline).or_default();
        *waiting += change;
        if *waiting == 0 {
            self.deadlines.remove(&deadline);
        }
    }

    /// Moves the clock: bounds pass, and what can no longer matter is let go.
    pub fn turn(&mut self, now: i64) {
        self.now = now;
        while let Some((deadline, waiting)) = self.deadlines.get_min().filter(|(at, _)| *at < now).copied() {
            self.alone.unmatched += waiting;
            self.deadlines.remove(&deadline);
        }
        let (left, right) = (self.left_bound(), self.right_bound());
        while let Some(entry) = self.ages.first_entry() {
            if (entry.key() + 1).saturating_mul(self.stretch) > right {
                break;
            }
            for key in entry.remove() {
                self.forget(&key, left, right);
            }
        }
    }

    /// Rows before this instant can no longer move a number.
    fn left_bound(&self) -> i64 {
        let back = match self.step.order {
            Order::Before => 0,
            Order::After | Order::Any => self.step.within.unwrap_or(0),
        };
        self.now.saturating_sub(self.retain).saturating_sub(back)
    }

    /// Partners before this instant are no longer any row's.
    fn right_bound(&self) -> i64 {
        let back = match self.step.order {
            Order::After => 0,
            Order::Before | Order::Any => self.step.within.unwrap_or(0),
        };
        self.left_bound().saturating_sub(back)
    }

    fn forget(&mut self, key: &Key, left: i64, right: i64) {
        let Some(rows) = self.keys.get_mut(key) else { return };
        let young = rows.left.split_off(&left);
        let old = std::mem::replace(&mut rows.left, young);
        self.held -= old.values().map(Vec::len).sum::<usize>();
        if self.step.within.is_some() {
            let young = rows.right.split_off(&right);
            let old = std::mem::replace(&mut rows.right, young);
            self.held -= old.values().map(Vec::len).sum::<usize>();
        } else if let Some(cell) = self.step.valid_to {
            // A row may be held for a stretch longer than it can be moved: it keeps its partner until then.
            let bound = left.saturating_sub(2 * self.stretch);
            self.held -= rows.forget_ended(cell, bound);
        }
        if rows.left.is_empty() && rows.right.is_empty() {
            self.keys.remove(key);
        }
    }

    fn age(&mut self, time: i64, key: &Key) {
        let keys = self.ages.entry(time.div_euclid(self.stretch)).or_default();
        if keys.last() != Some(key) {
            keys.push(key.clone());
        }
    }

    fn too_old(&mut self, time: i64, bound: i64) -> bool {
        let old = time < bound;
        if old {
            *self.lost.entry("beyond_retention").or_default() += 1;
        }
        old
    }

    /// Whether one more fits; what goes always does.
    fn room(&mut self, weight: i64) -> bool {
        let fits = weight < 0 || self.held < self.max_held;
        if !fits {
            *self.lost.entry("join_overflow").or_default() += 1;
        }
        fits
    }
}

impl Rows {
    /// Adds to the weight of a row; how many rows more are held.
    fn add_left(&mut self, anchor: i64, row: Row, weight: i64) -> usize {
        let lefts = self.left.entry(anchor).or_default();
        if let Some(left) = lefts.iter_mut().find(|left| left.row == row) {
            left.weight += weight;
            return 0;
        }
        lefts.push(Left { row, weight, told: (0, Vec::new()) });
        1
    }

    /// Lets partners go that ended before `bound`; how many.
    fn forget_ended(&mut self, cell: usize, bound: i64) -> usize {
        let mut gone = 0;
        self.right.retain(|_, rights| {
            let before = rights.len();
            rights.retain(|(row, _)| until(row, cell).is_none_or(|until| until > bound));
            gone += before - rights.len();
            !rights.is_empty()
        });
        gone
    }

    /// Adds to the weight of a partner; how many partners more (or fewer) are held.
    fn add_right(&mut self, row: Arc<PartRow>, weight: i64) -> i64 {
        let rights = self.right.entry(row.time).or_default();
        match rights.binary_search_by(|(known, _)| known.cmp(&row)) {
            Ok(at) => {
                rights[at].1 += weight;
                if rights[at].1 != 0 {
                    return 0;
                }
                let time = row.time;
                rights.remove(at);
                if rights.is_empty() {
                    self.right.remove(&time);
                }
                -1
            }
            // What goes without being there was too old, one too many, or let go.
            Err(_) if weight < 0 => {
                let time = row.time;
                if rights.is_empty() {
                    self.right.remove(&time);
                }
                0
            }
            Err(at) => {
                rights.insert(at, (row, weight));
                1
            }
        }
    }
}

/// The instant in a cell.
pub(super) fn until(row: &PartRow, cell: usize) -> Option<i64> {
    match &row.cells[cell] {
        Value::Timestamp(until) => Some(*until),
        Value::Date(day) => Some(i64::from(*day) * 86_400_000_000),
        _ => None,
    }
}

/// The row with one part more. A table says nothing about when the row happened.
pub(super) fn with(step: &Step, row: &Row, partner: Option<Arc<PartRow>>) -> Row {
    let mut more = row.clone();
    if let (Missing::Wait, Some(partner)) = (step.missing, &partner) {
        more.time = more.time.max(partner.time);
        more.id.clone_from(&partner.id);
    }
    more.parts.push(partner);
    more
}

/// What turns the old partners into the new ones.
fn changed(old: &Partners, old_weight: i64, new: &Partners, new_weight: i64) -> Vec<(Arc<PartRow>, i64)> {
    let mut changes: BTreeMap<&Arc<PartRow>, i64> = BTreeMap::new();
    for (partner, weight) in old {
        *changes.entry(partner).or_default() -= weight * old_weight;
    }
    for (partner, weight) in new {
        *changes.entry(partner).or_default() += weight * new_weight;
    }
    changes
        .into_iter()
        .filter(|(_, change)| *change != 0)
        .map(|(row, change)| (Arc::clone(row), change))
        .collect()
}

/// The same instants in ranges that do not overlap.
fn merged(mut ranges: Vec<RangeInclusive<i64>>) -> Vec<RangeInclusive<i64>> {
    ranges.sort_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<i64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start() <= last.end() => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}
