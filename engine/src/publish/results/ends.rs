//! Which windows that are over may say something else than before.
//!
//! *In*: cells of a group, now and then. *Out*: starts and ends of windows. *Never*: a window left out that differs; one too many
//! is only looked at.
//!
//! What an answer of a window says as of an instant `t` depends on panes. What moved is a stretch of instants; the instants `t`
//! whose answers see it are a stretch `(after, until]` again, and measures that look elsewhere move that on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contracts::catalog::{MeasureKind, WindowKind};
use operators::fold::edges::{Edge, EdgeCell};
use operators::fold::panes::Cell;
use operators::fold::plan::MetricPlan;
use operators::fold::window::{Bounds, Extent};

use super::super::cells::first_time;

/// Instants after the first and up to the second.
type Stretch = (i64, i64);

/// What differs between two ticks, of one key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Moved {
    /// Panes that begin from the first to the second instant (both among them), or sums up to instants after the first
    /// and up to the second.
    Rows(i64, i64),
    /// When the key began, in the retained history.
    First(i64, i64),
}

/// Windows of one metric at a tick.
pub(super) struct Ends<'a> {
    pub(super) plan: &'a MetricPlan,
    /// First instant that is retained.
    oldest: i64,
    /// Beyond their window, measures look back at most so far.
    back: i64,
    /// Windows that end later are not over.
    over: i64,
    /// Windows that ended no later were over before.
    after: i64,
    /// A measure looks at everything there was.
    ever: bool,
}

impl<'a> Ends<'a> {
    pub(super) fn new(plan: &'a MetricPlan, as_of: i64, before: Option<i64>) -> Self {
        let lateness = plan.metric.lateness;
        let over = |as_of: i64| as_of.saturating_sub(lateness);
        let oldest = plan.oldest_pane(as_of).saturating_mul(plan.step);
        let all = |kind: &MeasureKind| match kind {
            MeasureKind::Over { window, .. } => plan.metric.windows[*window].kind == WindowKind::All,
            _ => false,
        };
        let ever = plan.metric.measures.iter().any(|measure| all(&measure.kind));
        let after = before.map_or(i64::MIN, over);
        let mut ends = Self { plan, oldest, back: 0, over: over(as_of), after, ever };
        ends.back = ends.visible().map(|measure| ends.back(measure)).max().unwrap_or(0);
        ends
    }

    /// Measures that are not hidden.
    pub(super) fn visible(&self) -> impl Iterator<Item = usize> + use<'a> {
        let measures = &self.plan.metric.measures;
        (0..measures.len()).filter(move |index| !measures[*index].hidden)
    }

    /// How far a measure looks back beyond its window.
    fn back(&self, measure: usize) -> i64 {
        match &self.plan.metric.measures[measure].kind {
            MeasureKind::Fold(_) => 0,
            MeasureKind::Ratio(a, b) => self.back(*a).max(self.back(*b)),
            MeasureKind::Expr { inputs, .. } => {
                inputs.iter().map(|input| self.back(*input)).max().unwrap_or(0)
            }
            MeasureKind::Shift { of, by } => by.saturating_add(self.back(*of)),
            MeasureKind::Over { of, window, last, .. } => {
                let longest = self.plan.metric.windows[*window].kind.longest();
                longest.saturating_mul(i64::from(*last) + 1).saturating_add(self.back(*of))
            }
        }
    }

    /// Whether a window is over and all that its answer is about is retained.
    pub(super) fn tells(&self, window: usize, bounds: Bounds) -> bool {
        // Rows before it may have been let go that belonged to it.
        let gap = if let Extent::Session(gap) = &self.plan.extents[window] { *gap } else { 0 };
        bounds.end <= self.over && bounds.start >= self.oldest.saturating_add(self.back).saturating_add(gap)
    }

    /// Windows whose end is one of the instants.
    fn add(&self, window: usize, (after, until): Stretch, ends: &mut BTreeMap<i64, i64>) {
        let extent = &self.plan.extents[window];
        let mut at = after.max(self.oldest.saturating_add(self.back));
        while let Some(bounds) = extent.at(at.saturating_add(1)) {
            if bounds.end > until.min(self.over) {
                break;
            }
            if self.tells(window, bounds) {
                ends.insert(bounds.start, bounds.end);
            }
            at = bounds.end;
        }
    }

    /// The last instant as of which an answer sees `instant` in its window.
    fn last_seeing(&self, window: usize, instant: i64) -> i64 {
        if instant >= self.over {
            return i64::MAX;
        }
        match &self.plan.extents[window] {
            Extent::Sliding(size, every) => instant.saturating_add(*size).div_euclid(*every) * every,
            Extent::All | Extent::Session(_) => i64::MAX,
            extent => extent.at(instant.saturating_add(1)).map_or(i64::MAX, |bounds| bounds.end),
        }
    }

    /// Windows with rows that were not over before.
    pub(super) fn present(&self, window: usize, cell: &Cell, ends: &mut BTreeMap<i64, i64>) {
        let step = self.plan.step;
        let after = self.after.max(self.oldest.saturating_add(self.back));
        let Some(first) = self.plan.extents[window].at(after.saturating_add(1)) else { return };
        let mut open: Option<Stretch> = None;
        let panes = cell.panes.range(self.plan.pane(first.start)..).map(|(number, _)| number * step);
        for start in panes {
            let until = self.last_seeing(window, start);
            open = match open {
                Some((from, to)) if start <= to => Some((from, to.max(until))),
                done => {
                    done.into_iter().for_each(|(from, to)| self.add(window, (from.max(after), to), ends));
                    Some((start, until))
                }
            };
        }
        let lasts = cell.edges.first().map(|pane| (pane.saturating_mul(step), i64::MAX));
        for (from, to) in open.into_iter().chain(lasts) {
            self.add(window, (from.max(after), to), ends);
        }
    }

    /// Windows that see what has moved, themselves or through a measure.
    pub(super) fn seen(&self, window: usize, moved: Moved, ends: &mut BTreeMap<i64, i64>) {
        if let Moved::Rows(from, to) = moved {
            self.add(window, (from, self.last_seeing(window, to)), ends);
        }
        for measure in self.visible().filter(|_| self.back > 0 || self.ever) {
            if let Some(stretch) = self.reads(measure, window, moved) {
                self.add(window, stretch, ends);
            }
        }
    }

    /// The instants as of which `measure` of `window` sees what has moved.
    fn reads(&self, measure: usize, window: usize, moved: Moved) -> Option<Stretch> {
        match &self.plan.metric.measures[measure].kind {
            MeasureKind::Fold(_) => match moved {
                Moved::Rows(from, to) => Some((from, self.last_seeing(window, to))),
                Moved::First(..) => None,
            },
            MeasureKind::Ratio(a, b) => {
                hull([*a, *b].into_iter().filter_map(|of| self.reads(of, window, moved)))
            }
            MeasureKind::Expr { inputs, .. } => {
                hull(inputs.iter().filter_map(|of| self.reads(*of, window, moved)))
            }
            MeasureKind::Shift { of, by } => {
                let (after, until) = self.reads(*of, window, moved)?;
                Some((after.saturating_add(*by), until.saturating_add(*by)))
            }
            MeasureKind::Over { of, window: inner, last, zeros, .. } => {
                let began = match moved {
                    Moved::First(from, to) if !zeros => Some((from, to)),
                    _ => None,
                };
                let (after, until) = hull(self.reads(*of, *inner, moved).into_iter().chain(began))?;
                Some((after, self.followed(*inner, until, *last)))
            }
        }
    }

    /// The last instant as of which one of the last `last` windows ended at or before `until`.
    fn followed(&self, window: usize, until: i64, last: u32) -> i64 {
        let extent = &self.plan.extents[window];
        if matches!(extent, Extent::Sliding(..) | Extent::All) {
            return until; // asked as of the same instant
        }
        let mut until = until;
        for _ in 0..last {
            let next = if until < self.over { extent.at(until.saturating_add(1)) } else { None };
            match next {
                Some(bounds) => until = bounds.end,
                None => return i64::MAX,
            }
        }
        until
    }

    /// What differs between two cells of a key.
    pub(super) fn moved(&self, then: Option<&Cell>, now: Option<&Cell>) -> Vec<Moved> {
        if then.zip(now).is_some_and(|(then, now)| std::ptr::eq(then, now)) {
            return Vec::new();
        }
        let empty = Cell::empty();
        let (then, now) = (then.unwrap_or(&empty), now.unwrap_or(&empty));
        let mut moved = self.panes(then, now);
        self.edges(&then.edges, &now.edges, &mut moved);
        let base = |cell: &Cell| cell.base.as_ref().map(Arc::as_ptr);
        if self.ever && base(then) != base(now) {
            moved.push(Moved::Rows(self.oldest, i64::MAX));
        }
        let first = |cell: &Cell| first_time(cell, self.plan.step).unwrap_or(i64::MAX);
        let (a, b) = (first(then), first(now));
        if a != b {
            moved.push(Moved::First(a.min(b), a.max(b)));
        }
        moved
    }

    fn panes(&self, then: &Cell, now: &Cell) -> Vec<Moved> {
        let oldest = self.plan.pane(self.oldest);
        let (mut then, mut now) =
            (then.panes.range(oldest..).peekable(), now.panes.range(oldest..).peekable());
        let mut runs: Vec<(i64, i64)> = Vec::new();
        loop {
            let number = match (then.peek(), now.peek()) {
                (None, None) => break,
                (Some((a, _)), Some((b, _))) => *a.min(b),
                (Some((number, _)), None) | (None, Some((number, _))) => *number,
            };
            let before = then.next_if(|(at, _)| *at == number);
            let after = now.next_if(|(at, _)| *at == number);
            if before.zip(after).is_some_and(|((_, one), (_, other))| Arc::ptr_eq(one, other)) {
                continue;
            }
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        runs.into_iter().map(|(a, b)| Moved::Rows(a * self.plan.step, b * self.plan.step)).collect()
    }

    /// Of rows that last, answers see the sums up to both ends of a window; of moments only how far these differ.
    fn edges(&self, then: &EdgeCell, now: &EdgeCell, moved: &mut Vec<Moved>) {
        if then.is_empty() && now.is_empty() {
            return;
        }
        let oldest = self.plan.pane(self.oldest);
        let (mut before, mut sums) = (Vec::new(), Vec::new());
        then.sum(oldest, &mut before);
        now.sum(oldest, &mut sums);
        let folds = self.plan.specs.len();
        before.resize(folds, Edge::default());
        sums.resize(folds, Edge::default());
        let counts = sums.iter().zip(&before).map(|(now, then)| now.count - then.count);
        let mut differ: Vec<Edge> = counts.map(|count| Edge { count, moment: 0 }).collect();
        let same = |differ: &[Edge]| differ.iter().all(|edge| *edge == Edge::default());
        let mut since = (!same(&differ)).then_some(self.oldest);
        let ((then, _), (now, _)) = (then.parts(), now.parts());
        let numbers: BTreeSet<i64> =
            then.range(oldest..).chain(now.range(oldest..)).map(|(n, _)| *n).collect();
        for number in numbers {
            for (edges, sign) in [(now.get(&number), 1), (then.get(&number), -1)] {
                for (sum, edge) in differ.iter_mut().zip(edges.iter().flat_map(|edges| edges.iter())) {
                    sum.count += sign * edge.count;
                    sum.moment += i128::from(sign) * edge.moment;
                }
            }
            let at = number.saturating_mul(self.plan.step);
            since = match (since, same(&differ)) {
                (None, false) => Some(at),
                (Some(from), true) => {
                    moved.push(Moved::Rows(from, at));
                    None
                }
                (since, _) => since,
            };
        }
        moved.extend(since.map(|from| Moved::Rows(from, i64::MAX)));
    }

    /// Whether a session of the group may be new or another one.
    pub(super) fn session_moved(&self, gap: i64, now: &[&Cell], moved: &[Moved]) -> bool {
        let last = now.iter().filter_map(|cell| cell.panes.last()).map(|(_, pane)| pane.last).max();
        !moved.is_empty() || last.is_some_and(|last| last.saturating_add(gap) > self.after)
    }

    /// Sessions of a group that were not over before; with `then` all that are over, and those of then that are not any
    /// more. Start to end.
    pub(super) fn sessions(
        &self,
        (window, gap): (usize, i64),
        now: &Cell,
        then: Option<&Cell>,
    ) -> (BTreeMap<i64, i64>, BTreeMap<i64, i64>) {
        let after = if then.is_some() { i64::MIN } else { self.after };
        let is_over = |(start, end): &(i64, i64)| {
            *end > after && self.tells(window, Bounds { start: *start, end: *end })
        };
        let told: BTreeMap<i64, i64> = sessions(now, gap).into_iter().filter(is_over).collect();
        let before = then.map(|then| sessions(then, gap)).unwrap_or_default();
        let gone = before.into_iter().filter(|one| is_over(one) && !told.contains_key(&one.0)).collect();
        (told, gone)
    }
}

/// Starts and ends of the sessions of a group, as far as it is retained.
fn sessions(cell: &Cell, gap: i64) -> Vec<(i64, i64)> {
    let mut found: Vec<(i64, i64)> = Vec::new();
    for pane in cell.panes.values() {
        let end = pane.last.saturating_add(gap);
        match found.last_mut() {
            Some((_, until)) if pane.first < *until => *until = end,
            _ => found.push((pane.first, end)),
        }
    }
    found
}

/// The stretch that covers all.
fn hull(stretches: impl Iterator<Item = Stretch>) -> Option<Stretch> {
    stretches.reduce(|(a, b), (c, d)| (a.min(c), b.max(d)))
}
