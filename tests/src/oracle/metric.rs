//! Answers about metrics.
//!
//! *In*: admitted rows, a metric, an instant, what to split by. *Out*: [`Answer`]. *Never*: panes,
//! wheels, or anything kept from the answer before.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::Oracle;
use super::contract::{Alias, Lasting, Measure, MeasureKind, Metric, Over};
use super::eval::Env;
use super::fold::{Item, fold};
use super::num::Rat;
use super::rows::Made;
use super::sql::Ex;
use super::val::Val;
use super::window::{Kind, span};

/// A row that a metric sees.
#[derive(Debug)]
struct Row {
    time: i64,
    /// Within `retain.live` when it arrived; older rows count in `all` windows only.
    recent: bool,
    id: Option<String>,
    /// The alias it is of; none for a joined row.
    alias: Option<String>,
    cols: BTreeMap<String, Val>,
    parts: BTreeMap<String, Val>,
    dims: Vec<Val>,
    /// Dimensions as a condition of the question sees them.
    asked: Vec<Val>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// `[start, end)`; none for `all` and sessions.
    pub span: Option<(i64, i64)>,
    /// Measure names of the cells.
    pub measures: Vec<String>,
    /// The first visible measure over all rows.
    pub value: Val,
    /// Rows by their dimension values.
    pub rows: BTreeMap<Vec<Val>, Cells>,
}

/// A row of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Cells {
    /// One per measure.
    pub values: Vec<Val>,
    /// The session.
    pub session: Option<(i64, i64)>,
}

/// Which rows of a metric belong to one cell.
struct Scope<'a> {
    window: &'a Kind,
    by: &'a [usize],
    key: Option<&'a [Val]>,
    filter: Option<&'a Ex>,
}

/// A metric over all that an oracle has admitted.
pub struct View<'a> {
    oracle: &'a Oracle,
    /// The contract.
    pub metric: &'a Metric,
    /// How `as_of` of a shifted measure is cut: to a multiple of this (1: not at all).
    shift_step: i64,
    /// Rows as made at an instant, and as seen from one.
    made: RefCell<BTreeMap<i64, Rc<Vec<Made>>>>,
    rows: RefCell<BTreeMap<i64, Rc<Vec<Row>>>>,
}

impl<'a> View<'a> {
    /// Nothing computed yet.
    pub fn new(oracle: &'a Oracle, metric: &'a Metric, shift_step: i64) -> View<'a> {
        View { oracle, metric, shift_step, made: RefCell::default(), rows: RefCell::default() }
    }

    /// The answer for window `window` at `t`, split by the dimensions `by`; hidden measures too.
    pub fn ask(&self, window: &str, by: &[String], filter: Option<&str>, t: i64) -> Answer {
        let metric = self.metric;
        let kind = &metric.windows.iter().find(|(name, _)| name == window).expect("a window").1;
        let position =
            |name: &String| metric.dimensions.iter().position(|d| d.name == *name).expect("a dimension");
        let by: Vec<usize> = by.iter().map(position).collect();
        let filter = filter.map(super::sql::parse);
        let whole = Scope { window: kind, by: &by, key: None, filter: filter.as_ref() };
        let first = metric.measures.iter().find(|m| !m.hidden).expect("a visible measure");
        let mut rows = BTreeMap::new();
        if by.is_empty() {
            rows.insert(Vec::new(), self.cells(&whole, t));
        } else {
            for key in self.keys(&whole, t) {
                rows.insert(key.clone(), self.cells(&Scope { key: Some(&key), ..whole }, t));
            }
        }
        Answer {
            span: span(kind, t),
            measures: metric.measures.iter().map(|m| m.name.clone()).collect(),
            value: self.measure(first, &Scope { by: &[], ..whole }, t),
            rows,
        }
    }

    /// The combinations that have rows in window `window` at `t`, or in which something lasts.
    pub fn groups(&self, window: &str, by: &[String], t: i64) -> BTreeSet<Vec<Val>> {
        let kind = &self.metric.windows.iter().find(|(name, _)| name == window).expect("a window").1;
        let position = |name: &String| self.metric.dimensions.iter().position(|d| d.name == *name);
        let by: Vec<usize> = by.iter().filter_map(position).collect();
        self.keys(&Scope { window: kind, by: &by, key: None, filter: None }, t)
    }

    fn cells(&self, scope: &Scope<'_>, t: i64) -> Cells {
        Cells {
            values: self.metric.measures.iter().map(|m| self.measure(m, scope, t)).collect(),
            session: match scope.window {
                Kind::Session(_) => self.extent(scope, t).filter(|(start, end)| start < end),
                _ => None,
            },
        }
    }

    /// Combinations with at least one row in the window.
    fn keys(&self, scope: &Scope<'_>, t: i64) -> BTreeSet<Vec<Val>> {
        let extent = match scope.window {
            Kind::Session(_) => None,
            kind => span(kind, t),
        };
        let rows = self.rows(t);
        let inside = rows.iter().filter(|row| self.counts(row, extent, t) || self.lasts(row, extent, t));
        let counted = inside.filter(|row| self.passes(scope, row));
        counted.map(|row| scope.by.iter().map(|&d| row.dims[d].clone()).collect()).collect()
    }

    /// Is the row in the window?
    fn counts(&self, row: &Row, extent: Option<(i64, i64)>, t: i64) -> bool {
        row.time < t && extent.is_none_or(|(start, end)| start <= row.time && row.time < end)
    }

    /// Does some measure see the row last in the window, or where it ends?
    fn lasts(&self, row: &Row, extent: Option<(i64, i64)>, t: i64) -> bool {
        let until = extent.map_or(t, |(_, end)| end.min(t));
        self.metric.measures.iter().any(|measure| {
            let MeasureKind::Lasting(lasting) = &measure.kind else { return false };
            stretch(lasting, row).is_some_and(|(start, end)| {
                start < until && end.is_none_or(|end| extent.is_none_or(|(from, _)| end > from))
            })
        })
    }

    fn passes(&self, scope: &Scope<'_>, row: &Row) -> bool {
        if !row.recent && *scope.window != Kind::All {
            return false;
        }
        if let Some(key) = scope.key
            && !scope.by.iter().zip(key).all(|(&d, wanted)| row.dims[d] == *wanted)
        {
            return false;
        }
        let Some(filter) = scope.filter else { return true };
        let names = self.metric.dimensions.iter().map(|d| d.name.clone());
        let cols = names.zip(row.asked.iter().cloned()).collect();
        Env::plain(&cols).holds(Some(filter)).expect("a filter over dimensions")
    }

    /// `[start, end)` of the cell's window; an empty one when a session has no rows.
    fn extent(&self, scope: &Scope<'_>, t: i64) -> Option<(i64, i64)> {
        let Kind::Session(gap) = scope.window else { return span(scope.window, t) };
        let rows = self.rows(t);
        let mut times: Vec<i64> =
            rows.iter().filter(|row| row.time < t && self.passes(scope, row)).map(|row| row.time).collect();
        times.sort_unstable();
        let Some(&last) = times.last() else { return Some((t, t)) };
        let mut start = last;
        for &time in times.iter().rev() {
            if start - time >= *gap {
                break;
            }
            start = time;
        }
        Some((start, last + gap))
    }

    fn measure(&self, measure: &Measure, scope: &Scope<'_>, t: i64) -> Val {
        let named = |name: &String| {
            let found = self.metric.measures.iter().find(|m| m.name == *name);
            found.unwrap_or_else(|| panic!("no measure {name}"))
        };
        let value = match &measure.kind {
            MeasureKind::Fold { .. } => self.folded(measure, scope, t),
            MeasureKind::Lasting(lasting) => self.lasting(lasting, scope, t),
            MeasureKind::Over(over) => self.over(over, named(&over.of), scope, t),
            MeasureKind::Ratio(a, b) => {
                ratio(&self.measure(named(a), scope, t), &self.measure(named(b), scope, t))
            }
            MeasureKind::Expr(ex) => {
                let mut inputs = Vec::new();
                ex.columns(&mut inputs);
                let values = inputs.iter().map(|name| (name.clone(), self.measure(named(name), scope, t)));
                let mut cols: BTreeMap<String, Val> = values.collect();
                cols.insert("as_of()".to_string(), Val::Ts(t));
                Env::plain(&cols).eval(ex).unwrap_or(Val::Null)
            }
            MeasureKind::Shift(of, by) => {
                let back = (t - by).div_euclid(self.shift_step) * self.shift_step;
                self.measure(named(of), scope, back)
            }
        };
        let value = match (measure.scale, measure.ty.as_deref()) {
            (Some(scale), _) => match value.rat().and_then(|r| r.round(scale)) {
                Some(unscaled) => Val::Dec(unscaled, scale),
                None => Val::Null,
            },
            (None, Some("float")) => value.f64().map_or(Val::Null, Val::Float),
            _ => value,
        };
        match &measure.empty {
            Some(empty) if value.is_null() => empty.clone(),
            _ => value,
        }
    }

    /// How many rows last where the answer ends, or for how long they did in the window.
    fn lasting(&self, lasting: &Lasting, scope: &Scope<'_>, t: i64) -> Val {
        let extent = self.extent(scope, t);
        let until = extent.map_or(t, |(_, end)| end.min(t));
        let from = extent.map_or(i64::MIN, |(start, _)| start);
        let (mut count, mut spent) = (0, 0);
        for row in self.rows(t).iter().filter(|row| self.passes(scope, row)) {
            let Some((start, end)) = stretch(lasting, row) else { continue };
            if start < until && end.is_none_or(|end| end >= until) {
                count += 1;
            }
            spent += (end.unwrap_or(until).min(until) - start.max(from)).max(0);
        }
        if lasting.spent { Val::Dur(spent) } else { Val::Int(count) }
    }

    /// A measure in each of the last windows, folded.
    fn over(&self, over: &Over, of: &Measure, scope: &Scope<'_>, t: i64) -> Val {
        let kind = &self.metric.windows.iter().find(|(name, _)| *name == over.window).expect("a window").1;
        let wide = Scope { window: kind, ..*scope };
        let Some(first) = self.first(&Scope { window: &Kind::All, ..*scope }, t) else {
            return self.over_values(over, of, &wide, t, i64::MAX);
        };
        self.over_values(over, of, &wide, t, first)
    }

    fn over_values(&self, over: &Over, of: &Measure, scope: &Scope<'_>, t: i64, first: i64) -> Val {
        let mut items = Vec::new();
        let mut at = t;
        while items.len() < over.last {
            let window = span(scope.window, at);
            let follows = !matches!(scope.window, Kind::All | Kind::Sliding { .. });
            let (start, end) = window.unwrap_or((i64::MIN, i64::MAX));
            if follows && end > t && !over.running {
                at = start;
                continue;
            }
            let value = self.measure(of, scope, if follows { end.min(t) } else { t });
            let begun = over.zeros || first < end;
            items.push(Item { time: start, id: None, value: if begun { value } else { Val::Null } });
            at = start;
        }
        items.retain(|item| !item.value.is_null());
        fold(&over.agg, &items, true, None)
    }

    /// The group's first instant of all that is known.
    fn first(&self, scope: &Scope<'_>, t: i64) -> Option<i64> {
        let rows = self.rows(t);
        let begins = |row: &Row| {
            self.begins(row).into_iter().chain([row.time]).filter(|at| *at < self.oracle.now).min()
        };
        rows.iter().filter(|row| self.passes(scope, row)).filter_map(begins).min()
    }

    /// When the row begins to last, if some measure is about that.
    fn begins(&self, row: &Row) -> Option<i64> {
        let stretches = self.metric.measures.iter().filter_map(|measure| match &measure.kind {
            MeasureKind::Lasting(lasting) => stretch(lasting, row).map(|(start, _)| start),
            _ => None,
        });
        stretches.min()
    }

    fn folded(&self, measure: &Measure, scope: &Scope<'_>, t: i64) -> Val {
        let MeasureKind::Fold { agg, of, value, filter } = &measure.kind else { panic!("not a fold") };
        let extent = self.extent(scope, t);
        let rows = self.rows(t);
        let mut items = Vec::new();
        for row in rows.iter() {
            let inside = self.counts(row, extent, t);
            let aliased = match of {
                Some(of) => row.alias.as_ref().is_some_and(|alias| of.contains(alias)),
                None => self.metric.joins.is_empty() || row.alias.is_none(),
            };
            if !inside || !aliased || !self.passes(scope, row) {
                continue;
            }
            let env = Env { cols: &row.cols, parts: &row.parts };
            if !env.holds(filter.as_ref()).expect("a condition of a measure has a value") {
                continue;
            }
            let value = match value {
                Some(ex) => env.eval(ex).expect("a value of a measure"),
                None => Val::Bool(true),
            };
            if !value.is_null() {
                items.push(Item { time: row.time, id: row.id.clone(), value });
            }
        }
        let elapsed = extent.map(|(start, end)| end.min(t) - start);
        fold(agg, &items, value.is_some(), elapsed)
    }

    /// All rows with time < `t` that the metric counts in some window, dimensions named.
    fn rows(&self, t: i64) -> Rc<Vec<Row>> {
        if let Some(rows) = self.rows.borrow().get(&t) {
            return rows.clone();
        }
        let made = match self.metric.aliases.first() {
            Some(alias) if alias.entity => Rc::new(self.entity_rows(alias, t)),
            // Rows are made from everything known now, whatever instant is asked about.
            _ => self.made(t.max(self.oracle.now)),
        };
        // What lasts at `t` may count as a row later; groups begin with the first row known.
        let over = self.metric.measures.iter().any(|measure| matches!(measure.kind, MeasureKind::Over(_)));
        let all = over || self.metric.lasts();
        let known = made.iter().filter(|row| all || row.time < t);
        let mut rows: Vec<Row> = known.map(|row| self.split(row)).collect();
        let everything = self.metric.windows.iter().any(|(_, kind)| *kind == Kind::All);
        rows.retain(|row| row.recent || everything);
        self.overflow(&mut rows, t);
        let rows = Rc::new(rows);
        self.rows.borrow_mut().insert(t, rows.clone());
        rows
    }

    fn made(&self, now: i64) -> Rc<Vec<Made>> {
        let mut all = self.made.borrow_mut();
        let made = || {
            let rows = super::rows::rows(self.oracle, self.metric, now).rows;
            Rc::new(rows.into_iter().filter_map(|row| self.counting(row)).collect())
        };
        all.entry(now).or_insert_with(made).clone()
    }

    /// The row at the instant at which it counts; none: it does not.
    fn counting(&self, row: Made) -> Option<Made> {
        let Some(moment) = &self.metric.moment else { return Some(row) };
        match row.env().eval(moment).expect("an instant") {
            Val::Ts(time) => Some(Made { time, ..row }),
            _ => None,
        }
    }

    fn entity_rows(&self, alias: &Alias, t: i64) -> Vec<Made> {
        let entity =
            self.oracle.contracts.entities.iter().find(|e| e.name == alias.types[0]).expect("an entity");
        let live = super::entity::rows(self.oracle, entity, self.oracle.entity_instant(t));
        let mut rows = Vec::new();
        for (key, row) in live {
            let mut cols: BTreeMap<String, Val> = row.fields.into_iter().collect();
            cols.insert(entity.key_name.clone(), Val::Text(key.clone()));
            cols.entry("first_time".to_string()).or_insert(Val::Ts(row.first));
            cols.entry("time".to_string()).or_insert(Val::Ts(row.last));
            let Val::Ts(time) = cols[alias.time.as_deref().unwrap_or("first_time")] else { continue };
            let own = Val::Obj(cols.clone().into_iter().collect());
            let parts = BTreeMap::from([("row".to_string(), own.clone()), (alias.name.clone(), own)]);
            let passes = Env { cols: &cols, parts: &parts }.holds(alias.filter.as_ref());
            if passes.expect("a condition of an alias has a value") {
                let recent = time >= self.oracle.now - self.metric.retain;
                let (alias, present) = (Some(alias.name.clone()), BTreeSet::new());
                let origin = (String::new(), None);
                rows.push(Made { alias, time, id: Some(key), origin, recent, cols, parts, present });
            }
        }
        rows
    }

    /// The row with its dimensions.
    fn split(&self, row: &Made) -> Row {
        let env = Env { cols: &row.cols, parts: &row.parts };
        let dims = self.metric.dimensions.iter().map(|d| {
            let value = env.eval(&d.from).expect("a dimension has a value");
            if value.is_null() { d.default.clone().unwrap_or(Val::Null) } else { value }
        });
        let dims: Vec<Val> = dims.collect();
        let Made { alias, time, id, recent, cols, parts, .. } = row.clone();
        Row { time, recent, id, alias, asked: dims.clone(), dims, cols, parts }
    }

    /// The `max` values with the earliest time keep their name. A row ahead of the clock does not occur yet, unless it
    /// lasts already.
    fn overflow(&self, rows: &mut Vec<Row>, t: i64) {
        let entity = self.metric.aliases.first().is_some_and(|alias| alias.entity);
        let now = if entity { t } else { self.oracle.now };
        let occurs = |row: &&Row| row.time < now || self.begins(row).is_some();
        let mut allowed = Vec::new();
        for (d, dimension) in self.metric.dimensions.iter().enumerate() {
            let mut earliest: BTreeMap<Val, i64> = BTreeMap::new();
            for row in rows.iter().filter(occurs) {
                let seen = earliest.entry(row.dims[d].clone()).or_insert(row.time);
                *seen = row.time.min(*seen);
            }
            let mut ranked: Vec<(i64, Val)> =
                earliest.into_iter().map(|(value, time)| (time, value)).collect();
            let text = ranked.iter().any(|(_, value)| matches!(value, Val::Text(_)));
            ranked.sort();
            let kept: BTreeSet<Val> =
                ranked.into_iter().take(dimension.max).map(|(_, value)| value).collect();
            allowed.push((kept, text));
        }
        rows.retain_mut(|row| {
            for (d, dimension) in self.metric.dimensions.iter().enumerate() {
                let (kept, text) = &allowed[d];
                if !kept.contains(&row.dims[d]) {
                    if dimension.refuse {
                        return false;
                    }
                    row.dims[d] = Val::Text("other".to_string());
                    row.asked[d] = if *text { row.dims[d].clone() } else { Val::Null };
                }
            }
            true
        });
    }
}

/// From when to when the row lasts (none: still); one that ends before it starts does not.
fn stretch(lasting: &Lasting, row: &Row) -> Option<(i64, Option<i64>)> {
    let of = lasting.of.as_ref().is_none_or(|of| row.alias.as_ref().is_some_and(|alias| of.contains(alias)));
    let env = Env { cols: &row.cols, parts: &row.parts };
    if !of || !env.holds(lasting.filter.as_ref()).expect("a condition of a measure has a value") {
        return None;
    }
    let at = |ex: &Ex| match env.eval(ex).expect("an end of a stretch") {
        Val::Ts(at) => Some(at),
        _ => None,
    };
    let (start, end) = (at(&lasting.start)?, at(&lasting.end));
    end.is_none_or(|end| start < end).then_some((start, end))
}

fn ratio(a: &Val, b: &Val) -> Val {
    let (Some(x), Some(y)) = (a.rat(), b.rat()) else { return Val::Null };
    let Some(quotient) = x.div(&y) else { return Val::Null };
    let decimal = |scale: u8| quotient.round(scale).map_or(Val::Null, |v| Val::Dec(v, scale));
    match (a, b) {
        (Val::Dec(_, scale), Val::Int(_)) => decimal(*scale),
        (Val::Dec(..), Val::Dec(..)) => decimal(6),
        _ => Val::Float(Rat::to_f64(&quotient)),
    }
}
