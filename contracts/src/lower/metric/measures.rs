//! `measures:` that fold rows; the others are handed on to `derived`.
//!
//! *In*: the document and its inputs. *Out*: [`Fold`]s with their input per source. *Never*: an option that its
//! `agg` does not use.

use crate::catalog::{Agg, Fold, FoldInput, Input, Micros, SpanKind};
use crate::lower::Cx;
use crate::shape::AGGS;
use crate::value::ValueType;
use crate::yaml::{Entry, Node, Yaml};

use super::aggs::{options, result_type, takes};
use super::inputs::{Inputs, PerSource};

/// One measure, read but not yet resolved.
pub(super) struct Parsed<'n> {
    pub(super) entry: &'n Entry,
    pub(super) what: What<'n>,
}

/// How it is computed.
pub(super) enum What<'n> {
    /// Index of the fold and the type of its result.
    Fold(usize, ValueType),
    Ratio(&'n Node, &'n Node),
    Expr(&'n Node),
    Shift(&'n Node, Micros),
    Over(Over<'n>),
    /// Reported already.
    Broken,
}

/// Another measure in the last windows of a kind.
pub(super) struct Over<'n> {
    pub(super) of: &'n Node,
    pub(super) window: &'n Node,
    pub(super) last: u32,
    pub(super) running: bool,
    pub(super) zeros: bool,
    pub(super) agg: Agg,
    /// `agg` as written, and where.
    pub(super) name: &'n Node,
}

/// All measures, and the accumulators behind them.
pub(super) struct Folded<'n> {
    pub(super) parsed: Vec<Parsed<'n>>,
    pub(super) folds: Vec<Fold>,
    /// Per fold and source.
    pub(super) inputs: Vec<Vec<Option<FoldInput>>>,
}

const KINDS: [&str; 5] = ["over", "agg", "ratio", "expr", "shift"];
const ALWAYS: [&str; 6] = ["unit", "type", "empty", "hidden", "description", "agg"];

/// Reads all measures.
pub(super) fn read<'n>(cx: &mut Cx<'_>, node: &'n Node, inputs: &Inputs) -> Folded<'n> {
    let mut folded = Folded { parsed: Vec::new(), folds: Vec::new(), inputs: Vec::new() };
    let Some(measures) = node.entry("measures") else { return folded };
    for entry in measures.value.entries() {
        let what = measure(cx, entry, inputs, &mut folded);
        folded.parsed.push(Parsed { entry, what });
    }
    let visible = |parsed: &Parsed<'_>| {
        parsed.entry.value.get("hidden").is_none_or(|hidden| hidden.value != Yaml::Bool(true))
    };
    if !folded.parsed.iter().any(visible) {
        let diagnostic = cx
            .at("empty_contract", measures.key_span, "no measure is visible")
            .fix("declare one without `hidden: true`, e.g. `count: { agg: count }`");
        cx.push(diagnostic);
    }
    folded
}

fn measure<'n>(cx: &mut Cx<'_>, entry: &'n Entry, inputs: &Inputs, folded: &mut Folded<'n>) -> What<'n> {
    let node = &entry.value;
    let over = node.get("over").is_some();
    // What `over` folds by is its `agg`.
    let given = |kind: &&str| node.get(kind).is_some() && !(over && *kind == "agg");
    let given: Vec<&str> = KINDS.into_iter().filter(given).collect();
    let [kind] = given[..] else {
        let found = if given.is_empty() { node.shown() } else { given.join(", ") };
        let message = format!("the measure `{}` needs exactly one way to be computed", entry.key);
        let diagnostic = cx
            .at("exactly_one", entry.key_span, message)
            .found(found)
            .allowed("agg, ratio, expr, shift or over");
        cx.push(diagnostic);
        return What::Broken;
    };
    match kind {
        "agg" => fold(cx, entry, inputs, folded).unwrap_or(What::Broken),
        "over" => over_windows(cx, entry).unwrap_or(What::Broken),
        "ratio" => {
            unused(cx, entry, "ratio", &["ratio"]);
            ratio(cx, node).unwrap_or(What::Broken)
        }
        "expr" => {
            unused(cx, entry, "expr", &["expr"]);
            node.get("expr").map_or(What::Broken, What::Expr)
        }
        _ => {
            unused(cx, entry, "shift", &["shift", "by"]);
            shift(cx, entry).unwrap_or(What::Broken)
        }
    }
}

/// Reports the options that `kind` does not use.
fn unused(cx: &mut Cx<'_>, entry: &Entry, kind: &str, used: &[&str]) {
    for option in entry.value.entries() {
        let key = option.key.as_str();
        let known = key == "agg" || ALWAYS.contains(&key) || used.contains(&key);
        // Unknown keys are the shape's to report, a second kind is reported as such.
        if known || KINDS.contains(&key) || !OPTIONS.contains(&key) {
            continue;
        }
        let message = format!("`{key}` does nothing for {kind}");
        let mut all: Vec<&str> = used.to_vec();
        all.extend(ALWAYS.iter().filter(|k| **k != "agg" && **k != "description"));
        let diagnostic = cx
            .at("option_not_used", option.key_span, message)
            .found(format!("{key}: {}", option.value.shown()))
            .allowed(all.join(", "))
            .fix("remove it");
        cx.push(diagnostic);
    }
}

const OPTIONS: [&str; 17] = [
    "running", "before", "by", "of", "value", "where", "q", "method", "error", "buckets", "per", "n",
    "state", "window", "last", "start", "end",
];

fn options_of(agg: &str) -> &'static [&'static str] {
    match agg {
        "quantile" => &["agg", "of", "value", "where", "q", "method", "error"],
        "histogram" => &["agg", "of", "value", "where", "buckets"],
        "rate" => &["agg", "of", "value", "where", "per"],
        "concurrent" => &["agg", "of", "where", "start", "end"],
        "duration_in_state" => &["agg", "of", "where", "start", "end", "state"],
        "top" => &["agg", "of", "value", "where", "n"],
        _ => &["agg", "of", "value", "where"],
    }
}

fn ratio<'n>(cx: &mut Cx<'_>, node: &'n Node) -> Option<What<'n>> {
    let list = node.get("ratio")?;
    if let [num, den] = list.items() {
        return Some(What::Ratio(num, den));
    }
    if matches!(list.value, Yaml::List(_)) {
        let diagnostic = cx
            .at("wrong_operands", list.span, "a ratio has two operands")
            .found(format!("{} operands", list.items().len()))
            .allowed("[numerator, denominator]: names of measures");
        cx.push(diagnostic);
    }
    None
}

fn shift<'n>(cx: &mut Cx<'_>, entry: &'n Entry) -> Option<What<'n>> {
    let operand = entry.value.get("shift")?;
    let Some(by) = entry.value.get("by") else {
        let diagnostic =
            cx.at("missing_key", entry.key_span, "a shift must say by how much").fix("add `by: 7d`");
        cx.push(diagnostic);
        return None;
    };
    let micros = by.scalar().and_then(crate::duration::parse_duration)?;
    if micros == 0 {
        let diagnostic = cx.at("out_of_range", by.span, "a shift by nothing").allowed("more than 0s");
        cx.push(diagnostic);
    }
    Some(What::Shift(operand, micros))
}

fn fold<'n>(cx: &mut Cx<'_>, entry: &'n Entry, inputs: &Inputs, folded: &mut Folded<'n>) -> Option<What<'n>> {
    let node = &entry.value;
    let agg_node = node.get("agg")?;
    let agg = agg_node.scalar()?;
    if !AGGS.contains(&agg) {
        return None;
    }
    unused(cx, entry, &format!("agg `{agg}`"), options_of(agg));
    let options = options(cx, entry, agg);
    let targets = targets(cx, node, inputs)?;
    if agg == "distinct_approx" {
        never_taken_back(cx, agg_node, inputs, &targets)?;
    }
    let lasting = matches!(agg, "concurrent" | "duration_in_state");
    let spans = match lasting {
        true => Some(spans(cx, entry, agg, inputs, &targets)?),
        false => None,
    };
    let (values, ty) = match node.get("value").filter(|_| !lasting) {
        Some(value) => {
            let (values, ty) = inputs.value(cx, value, &targets)?;
            takes(cx, value, agg, &ty)?;
            (Some(values), ty)
        }
        None if lasting || matches!(agg, "count" | "rate") => (None, ValueType::Int),
        None => {
            let diagnostic = cx
                .at("missing_key", entry.key_span, format!("agg `{agg}` needs a `value`"))
                .fix("add `value: <column or expression>`");
            cx.push(diagnostic);
            return None;
        }
    };
    let filters = match condition(cx, entry, inputs)? {
        Some(place) => inputs.condition(cx, &place, &targets, "`where`")?,
        None => vec![None; inputs.sources.len()],
    };
    let agg = options?;
    if !inputs.typed {
        return None;
    }
    let result = result_type(&agg, values.is_some(), &ty);
    folded.inputs.push(per_source(inputs, &targets, values, filters, spans));
    folded.folds.push(Fold { agg, input: ty });
    Some(What::Fold(folded.folds.len() - 1, result))
}

/// A sketch of distinct values cannot forget one.
fn never_taken_back(cx: &mut Cx<'_>, place: &Node, inputs: &Inputs, targets: &[usize]) -> Option<()> {
    let taken_back = targets.iter().map(|target| inputs.sources[*target].input);
    let Some(input) = taken_back.into_iter().find(|input| !matches!(input, Input::Event(_))) else {
        return Some(());
    };
    let rows = match input {
        Input::Entity(_) => "rows of an entity change",
        _ => "rows of joins, tables and change streams change",
    };
    let message = format!("{rows}, and `agg: distinct_approx` cannot take a value back");
    let diagnostic = cx.at("wrong_aggregate", place.span, message).fix("use `agg: distinct`, which is exact");
    cx.push(diagnostic);
    None
}

fn per_source(
    inputs: &Inputs,
    targets: &[usize],
    values: Option<PerSource>,
    filters: PerSource,
    spans: Option<(PerSource, PerSource)>,
) -> Vec<Option<FoldInput>> {
    let nothing = || vec![None; inputs.sources.len()];
    let mut values = values.unwrap_or_else(nothing);
    let mut filters = filters;
    let (mut starts, mut ends) = spans.unwrap_or_else(|| (nothing(), nothing()));
    let input = |source: usize| FoldInput {
        value: values[source].take(),
        filter: filters[source].take(),
        span: starts[source].take().zip(ends[source].take()),
    };
    let mut input = Some(input);
    (0..inputs.sources.len())
        .map(|source| targets.contains(&source).then(|| input.as_mut().map(|input| input(source))).flatten())
        .collect()
}

/// `where`, with the `state` of `duration_in_state`; `Some(None)`: there is none.
fn condition(cx: &mut Cx<'_>, entry: &Entry, inputs: &Inputs) -> Option<Option<Node>> {
    let node = &entry.value;
    let place = node.get("where").cloned();
    let Some(state) = node.get("state") else { return Some(place) };
    if !inputs.sequenced {
        let diagnostic = cx
            .at("option_not_used", state.span, "`state` is about a sequence, and this metric has none")
            .fix("add `sequence`, or write the condition under `where`");
        cx.push(diagnostic);
        return None;
    }
    let name = state.scalar()?.replace('\'', "''");
    let of = node.get("of").and_then(Node::scalar).unwrap_or(SpanKind::Interval.alias());
    let is = format!("CAST({of}.state AS VARCHAR) = '{name}'");
    let sql = match place.as_ref().and_then(Node::scalar) {
        Some(also) => format!("({also}) AND {is}"),
        None => is,
    };
    Some(Some(Node { span: place.map_or(state.span, |place| place.span), value: Yaml::Text(sql) }))
}

/// From when to when a row lasts.
fn spans(
    cx: &mut Cx<'_>,
    entry: &Entry,
    agg: &str,
    inputs: &Inputs,
    targets: &[usize],
) -> Option<(PerSource, PerSource)> {
    let mut side = |key: &str| -> Option<PerSource> {
        let place = match entry.value.get(key) {
            Some(place) => place.clone(),
            None if inputs.sequenced => {
                let of = entry.value.get("of").and_then(Node::scalar).unwrap_or("interval");
                Node { span: entry.key_span, value: Yaml::Text(format!("{of}.{key}")) }
            }
            None => {
                let message = format!("agg `{agg}` must say from when to when a row lasts");
                let diagnostic = cx
                    .at("missing_key", entry.key_span, message)
                    .fix(format!("add `{key}: <timestamp>`, or a `sequence` whose intervals it counts"));
                cx.push(diagnostic);
                return None;
            }
        };
        let (typed, ty) = inputs.value(cx, &place, targets)?;
        if ty == ValueType::Timestamp {
            return Some(typed);
        }
        let message = format!("`{key}` of `{}` is {ty}", entry.key);
        let diagnostic = cx.at("wrong_type", place.span, message).found(place.shown()).allowed("a timestamp");
        cx.push(diagnostic);
        None
    };
    Some((side("start")?, side("end")?))
}

/// `over`, `window`, `last`, and the `agg` that folds.
fn over_windows<'n>(cx: &mut Cx<'_>, entry: &'n Entry) -> Option<What<'n>> {
    const AGGS: [&str; 6] = ["quantile", "avg", "min", "max", "sum", "count"];
    const MOST: i64 = 1_000;
    let node = &entry.value;
    unused(cx, entry, "over", &["over", "window", "last", "running", "before", "agg", "q", "method"]);
    for (key, fix) in [
        ("agg", "add `agg: quantile` with `q: 0.5`"),
        ("window", "add `window: week`"),
        ("last", "add `last: 13`"),
    ] {
        if node.get(key).is_none() {
            let message = format!("`over` of `{}` needs `{key}`", entry.key);
            let diagnostic = cx.at("missing_key", entry.key_span, message).fix(fix);
            cx.push(diagnostic);
            return None;
        }
    }
    let (of, window, last, name) =
        (node.get("over")?, node.get("window")?, node.get("last")?, node.get("agg")?);
    if !AGGS.contains(&name.scalar()?) {
        let message = format!("agg `{}` does not fold the values of windows", name.shown());
        let diagnostic =
            cx.at("wrong_aggregate", name.span, message).found(name.shown()).allowed(AGGS.join(", "));
        cx.push(diagnostic);
        return None;
    }
    let Yaml::Int(count, _) = last.value else { return None };
    if !(1..=MOST).contains(&count) {
        let diagnostic = cx
            .at("out_of_range", last.span, "`last` is out of range")
            .found(last.shown())
            .allowed(format!("1 to {MOST}"));
        cx.push(diagnostic);
        return None;
    }
    let agg = options(cx, entry, name.scalar()?)?;
    let running = node.get("running").is_some_and(|running| running.value == Yaml::Bool(true));
    let zeros = node.get("before").and_then(Node::scalar) == Some("zero");
    let last = u32::try_from(count).ok()?;
    Some(What::Over(Over { of, window, last, running, zeros, agg, name }))
}

/// The sources whose rows a measure folds: `of`, else the aliases it mentions, else all.
fn targets(cx: &mut Cx<'_>, node: &Node, inputs: &Inputs) -> Option<Vec<usize>> {
    if let Some(of) = node.get("of") {
        let name = of.scalar()?;
        if inputs.aliases.iter().any(|alias| alias == name) {
            return Some(inputs.of(name));
        }
        let message = format!("`of` names `{name}`, which is not an alias of this metric");
        let names = inputs.aliases.iter().map(String::as_str);
        let diagnostic = cx.at("unknown_name", of.span, message).names(name, names);
        cx.push(diagnostic);
        return None;
    }
    if let Some(joined) = inputs.joined {
        return Some(vec![joined]);
    }
    let keys = ["value", "where", "start", "end"];
    let mut mentioned = std::collections::BTreeSet::new();
    for key in keys {
        if let Some(place) = node.get(key).filter(|place| place.scalar().is_some()) {
            mentioned.extend(inputs.mentioned(cx, place)?);
        }
    }
    if inputs.sequenced {
        mentioned.retain(|name| SpanKind::ALL.iter().any(|kind| kind.alias() == name));
        if mentioned.is_empty() {
            mentioned.insert(SpanKind::Interval.alias().to_string());
        }
    }
    if mentioned.is_empty() {
        return Some(inputs.all());
    }
    let named = |s: &usize| mentioned.contains(&inputs.sources[*s].alias);
    Some(inputs.all().into_iter().filter(named).collect())
}
