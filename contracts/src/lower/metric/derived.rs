//! Measures over measures: `ratio`, `expr`, `shift`; the types of all.
//!
//! *In*: measures as read. *Out*: [`Measure`]s. *Never*: a cycle, an operand that does not exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field as ArrowField, Schema};

use crate::catalog::{Measure, MeasureKind, Micros, Window, WindowKind};
use crate::expr::{AS_OF, Scope, Typed};
use crate::lower::Cx;
use crate::lower::field::parse_type;
use crate::lower::literal::literal;
use crate::value::{Value, ValueType, timestamp_type};
use crate::yaml::{Node, Yaml};

use super::aggs::{result_type, takes};
use super::measures::{Over, Parsed, What};

/// The measures, and how far the longest chain of shifts reaches back.
pub(super) struct Derived {
    pub(super) measures: Vec<Measure>,
    pub(super) shift: Micros,
}

/// What is known of a measure.
#[derive(Clone)]
enum State {
    Unknown,
    /// Being resolved: meeting it again is a cycle.
    Open,
    /// `None`: it is broken, and that has been reported.
    Done(Option<Resolved>),
}

#[derive(Clone)]
struct Resolved {
    kind: MeasureKind,
    ty: ValueType,
    shift: Micros,
}

struct Resolver<'a, 'n> {
    parsed: &'a [Parsed<'n>],
    windows: &'a [Window],
    states: Vec<State>,
    /// Names on the way, for the message about a cycle.
    trail: Vec<usize>,
}

/// Resolves all measures. When one is broken the result lacks it, so it must not be run.
pub(super) fn resolve(cx: &mut Cx<'_>, parsed: &[Parsed<'_>], windows: &[Window]) -> Derived {
    let states = vec![State::Unknown; parsed.len()];
    let mut resolver = Resolver { parsed, windows, states, trail: Vec::new() };
    let mut derived = Derived { measures: Vec::new(), shift: 0 };
    for (index, measure) in parsed.iter().enumerate() {
        let name = measure.entry.key.clone();
        let resolved = resolver.resolve(cx, index);
        let (ty, kind) = match resolved {
            Some(resolved) => {
                derived.shift = derived.shift.max(resolved.shift);
                (resolved.ty, resolved.kind)
            }
            // Keeps the indexes of the others right; the metric is not run.
            None => (ValueType::Int, MeasureKind::Fold(usize::MAX)),
        };
        let value = &measure.entry.value;
        let empty = match value.get("empty") {
            Some(place) if !matches!(kind, MeasureKind::Fold(usize::MAX)) => {
                literal(cx, place, &ty, &format!("`empty` of `{name}`")).unwrap_or(Value::Null)
            }
            _ => Value::Null,
        };
        derived.measures.push(Measure {
            unit: value.get("unit").and_then(Node::scalar).map(str::to_string),
            ty,
            hidden: matches!(value.get("hidden").map(|n| &n.value), Some(Yaml::Bool(true))),
            empty,
            kind,
            name,
        });
    }
    derived
}

impl Resolver<'_, '_> {
    fn resolve(&mut self, cx: &mut Cx<'_>, index: usize) -> Option<Resolved> {
        match &self.states[index] {
            State::Done(resolved) => return resolved.clone(),
            State::Open => {
                self.cycle(cx, index);
                return None;
            }
            State::Unknown => {}
        }
        self.states[index] = State::Open;
        self.trail.push(index);
        let resolved = self.kind(cx, index).and_then(|resolved| self.typed(cx, index, resolved));
        self.trail.pop();
        self.states[index] = State::Done(resolved.clone());
        resolved
    }

    fn cycle(&self, cx: &mut Cx<'_>, index: usize) {
        let start = self.trail.iter().position(|&i| i == index).unwrap_or(0);
        let mut names: Vec<&str> =
            self.trail[start..].iter().map(|&i| self.parsed[i].entry.key.as_str()).collect();
        names.push(&self.parsed[index].entry.key);
        let diagnostic = cx
            .at("cycle", self.parsed[index].entry.key_span, "this measure is computed from itself")
            .found(names.join(" -> "))
            .fix("let one of them fold rows with `agg`");
        cx.push(diagnostic);
    }

    /// The measure that `place` names.
    fn operand(&mut self, cx: &mut Cx<'_>, place: &Node) -> Option<(usize, Resolved)> {
        let name = place.scalar()?;
        let index = self.index(cx, place, name)?;
        Some((index, self.resolve(cx, index)?))
    }

    fn index(&self, cx: &mut Cx<'_>, place: &Node, name: &str) -> Option<usize> {
        let found = self.parsed.iter().position(|parsed| parsed.entry.key == name);
        if found.is_none() {
            let names = self.parsed.iter().map(|parsed| parsed.entry.key.as_str());
            let message = format!("there is no measure `{name}`");
            let diagnostic = cx.at("unknown_name", cx.place_of(place, name), message).names(name, names);
            cx.push(diagnostic);
        }
        found
    }

    fn kind(&mut self, cx: &mut Cx<'_>, index: usize) -> Option<Resolved> {
        match &self.parsed[index].what {
            What::Broken => None,
            What::Fold(fold, ty) => {
                Some(Resolved { kind: MeasureKind::Fold(*fold), ty: ty.clone(), shift: 0 })
            }
            What::Ratio(num, den) => {
                let (num, den) = (*num, *den);
                let (a, b) = (self.operand(cx, num), self.operand(cx, den));
                let ((a, left), (b, right)) = (a?, b?);
                for (place, operand) in [(num, &left), (den, &right)] {
                    numeric(cx, place, &operand.ty)?;
                }
                Some(Resolved {
                    kind: MeasureKind::Ratio(a, b),
                    ty: ratio_type(&left.ty, &right.ty),
                    shift: left.shift.max(right.shift),
                })
            }
            What::Expr(place) => {
                let place = *place;
                let (expr, inputs, shift) = self.expr(cx, place)?;
                let ty = expr.ty.clone();
                Some(Resolved { kind: MeasureKind::Expr { expr, inputs }, ty, shift })
            }
            What::Shift(place, by) => {
                let (place, by) = (*place, *by);
                let (of, operand) = self.operand(cx, place)?;
                let shift = operand.shift.saturating_add(by);
                Some(Resolved { kind: MeasureKind::Shift { of, by }, ty: operand.ty, shift })
            }
            What::Over(over) => self.over(cx, over),
        }
    }

    fn over(&mut self, cx: &mut Cx<'_>, over: &Over<'_>) -> Option<Resolved> {
        let (of, operand) = self.operand(cx, over.of)?;
        takes(cx, over.of, over.name.scalar()?, &operand.ty)?;
        let name = over.window.scalar()?;
        let Some(window) = self.windows.iter().position(|window| window.name == name) else {
            let names = self.windows.iter().map(|window| window.name.as_str());
            let message = format!("there is no window `{name}`");
            let diagnostic = cx.at("unknown_name", over.window.span, message).names(name, names);
            cx.push(diagnostic);
            return None;
        };
        let kind = &self.windows[window].kind;
        let alone = matches!(kind, WindowKind::All | WindowKind::Sliding { .. }) && over.last > 1;
        if alone || matches!(kind, WindowKind::Session { .. }) {
            let message = format!("the window `{name}` does not follow another of its kind");
            let diagnostic = cx
                .at("wrong_operands", over.window.span, message)
                .allowed("a `tumbling` or `to_date` window; a `sliding` one or `all` with `last: 1`")
                .fix("declare one, e.g. `week: { tumbling: 7d, tz: UTC }`");
            cx.push(diagnostic);
            return None;
        }
        let reach = kind.longest().saturating_mul(i64::from(over.last) + 1);
        let ty = result_type(&over.agg, true, &operand.ty);
        let kind = MeasureKind::Over {
            of,
            window,
            last: over.last,
            running: over.running,
            zeros: over.zeros,
            agg: over.agg.clone(),
            input: operand.ty,
        };
        Some(Resolved { kind, ty, shift: operand.shift.saturating_add(reach) })
    }

    fn expr(&mut self, cx: &mut Cx<'_>, place: &Node) -> Option<(Typed, Vec<usize>, Micros)> {
        let mut operands: Vec<(usize, ValueType)> = Vec::new();
        let (mut shift, mut complete) = (0, true);
        for path in cx.mentions(place)? {
            let Some(name) = path.first() else { continue };
            let Some(index) = self.index(cx, place, name) else {
                complete = false;
                continue;
            };
            match self.resolve(cx, index) {
                Some(operand) => {
                    shift = shift.max(operand.shift);
                    operands.push((index, operand.ty));
                }
                None => complete = false,
            }
        }
        if !complete {
            return None;
        }
        let names: Vec<(usize, &str, &ValueType)> =
            operands.iter().map(|(index, ty)| (*index, self.parsed[*index].entry.key.as_str(), ty)).collect();
        let typed = over_measures(cx, place, &names)?;
        Some((typed, operands.iter().map(|(index, _)| *index).collect(), shift))
    }

    /// Applies `type:`.
    fn typed(&self, cx: &mut Cx<'_>, index: usize, resolved: Resolved) -> Option<Resolved> {
        use ValueType::{Decimal, Float, Int};
        let Some(place) = self.parsed[index].entry.value.get("type") else {
            return Some(resolved);
        };
        let text = place.scalar()?;
        let wanted = parse_type(text).and_then(|ty| ValueType::of_field(&ty));
        let allowed = match (&resolved.ty, &wanted) {
            (have, Some(want)) if have == want => true,
            (Int | Decimal { .. }, Some(Decimal { .. } | Float)) => true,
            _ => false,
        };
        if let Some(ty) = wanted.filter(|_| allowed) {
            return Some(Resolved { ty, ..resolved });
        }
        let message = format!("`type: {text}` does not fit a measure of type {}", resolved.ty);
        let mut diagnostic = cx.at("wrong_type", place.span, message).found(text);
        diagnostic = match resolved.ty {
            Float => diagnostic.allowed("float: exact decimals are never made from floats"),
            Int | Decimal { .. } => diagnostic.allowed("decimal(p,s), float, or its own type"),
            _ => diagnostic.allowed("its own type").fix("remove `type`"),
        };
        cx.push(diagnostic);
        None
    }
}

/// Compiles an expression whose columns are measures.
pub(super) fn over_measures(
    cx: &mut Cx<'_>,
    place: &Node,
    operands: &[(usize, &str, &ValueType)],
) -> Option<Typed> {
    let mut columns = Vec::new();
    for (_, name, ty) in operands {
        match ty.arrow() {
            Some(arrow) => columns.push(ArrowField::new(*name, arrow, true)),
            None => {
                let message = format!("`{name}` is a {ty} and cannot be computed with");
                let diagnostic = cx.at("wrong_operands", cx.place_of(place, name), message);
                cx.push(diagnostic);
                return None;
            }
        }
    }
    // The instant of the answer, see `Typed::as_of`.
    columns.push(ArrowField::new(AS_OF, timestamp_type(), false));
    let scope = Scope {
        schema: Arc::new(Schema::new(columns)),
        qualifiers: Vec::new(),
        absent: BTreeMap::new(),
        renames: BTreeMap::new(),
        parts: BTreeMap::new(),
    };
    cx.compile(place, &scope)
}

fn numeric(cx: &mut Cx<'_>, place: &Node, ty: &ValueType) -> Option<()> {
    use ValueType::{Decimal, Duration, Float, Int};
    if matches!(ty, Int | Float | Decimal { .. } | Duration) {
        return Some(());
    }
    let message = format!("`{}` is {ty} and cannot be divided", place.shown());
    let diagnostic = cx.at("wrong_operands", place.span, message).allowed("int, float, decimal or duration");
    cx.push(diagnostic);
    None
}

fn ratio_type(num: &ValueType, den: &ValueType) -> ValueType {
    use ValueType::{Decimal, Float, Int};
    match (num, den) {
        (Decimal { scale, .. }, Int) => Decimal { precision: 38, scale: *scale },
        (Decimal { .. }, Decimal { .. }) => Decimal { precision: 38, scale: 6 },
        _ => Float,
    }
}
