//! `measures:` that fold rows; the others are handed on to `derived`.
//!
//! *In*: the document and its inputs. *Out*: [`Fold`]s with their input per source. *Never*: an option that its
//! `agg` does not use.

use crate::catalog::{Fold, FoldInput, Input, Micros};
use crate::lower::Cx;
use crate::shape::{AGGS, AGGS_LATER};
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
    /// Reported already.
    Broken,
}

/// All measures, and the accumulators behind them.
pub(super) struct Folded<'n> {
    pub(super) parsed: Vec<Parsed<'n>>,
    pub(super) folds: Vec<Fold>,
    /// Per fold and source.
    pub(super) inputs: Vec<Vec<Option<FoldInput>>>,
}

const KINDS: [&str; 4] = ["agg", "ratio", "expr", "shift"];
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
    let given: Vec<&str> = KINDS.into_iter().filter(|kind| node.get(kind).is_some()).collect();
    let [kind] = given[..] else {
        let found = if given.is_empty() { node.shown() } else { given.join(", ") };
        let message = format!("the measure `{}` needs exactly one way to be computed", entry.key);
        let diagnostic =
            cx.at("exactly_one", entry.key_span, message).found(found).allowed("agg, ratio, expr or shift");
        cx.push(diagnostic);
        return What::Broken;
    };
    match kind {
        "agg" => fold(cx, entry, inputs, folded).unwrap_or(What::Broken),
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

const OPTIONS: [&str; 11] =
    ["by", "of", "value", "where", "q", "method", "error", "buckets", "per", "n", "state"];

fn options_of(agg: &str) -> &'static [&'static str] {
    match agg {
        "quantile" => &["agg", "of", "value", "where", "q", "method", "error"],
        "histogram" => &["agg", "of", "value", "where", "buckets"],
        "rate" => &["agg", "of", "value", "where", "per"],
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
    if AGGS_LATER.contains(&agg) {
        cx.not_yet(agg_node.span, &format!("agg `{agg}`"), instead(agg));
        for key in ["value", "where"] {
            node.get(key).and_then(|place| cx.mentions(place));
        }
        return None;
    }
    unused(cx, entry, &format!("agg `{agg}`"), options_of(agg));
    let options = options(cx, entry, agg);
    let targets = targets(cx, node, inputs)?;
    if agg == "distinct_approx" {
        never_taken_back(cx, agg_node, inputs, &targets)?;
    }
    let (values, ty) = match node.get("value") {
        Some(value) => {
            let (values, ty) = inputs.value(cx, value, &targets)?;
            takes(cx, value, agg, &ty)?;
            (Some(values), ty)
        }
        None if matches!(agg, "count" | "rate") => (None, ValueType::Int),
        None => {
            let diagnostic = cx
                .at("missing_key", entry.key_span, format!("agg `{agg}` needs a `value`"))
                .fix("add `value: <column or expression>`");
            cx.push(diagnostic);
            return None;
        }
    };
    let filters = match node.get("where") {
        Some(place) => inputs.condition(cx, place, &targets, "`where`")?,
        None => vec![None; inputs.sources.len()],
    };
    let agg = options?;
    if !inputs.typed {
        return None;
    }
    let result = result_type(&agg, values.is_some(), &ty);
    folded.inputs.push(per_source(inputs, &targets, values, filters));
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

fn instead(agg: &str) -> &'static str {
    match agg {
        "concurrent" => "follow the intervals with an entity and count its open rows",
        _ => "follow the state with an entity",
    }
}

fn per_source(
    inputs: &Inputs,
    targets: &[usize],
    values: Option<PerSource>,
    filters: PerSource,
) -> Vec<Option<FoldInput>> {
    let mut values = values.unwrap_or_else(|| vec![None; inputs.sources.len()]);
    let mut filters = filters;
    (0..inputs.sources.len())
        .map(|source| {
            targets
                .contains(&source)
                .then(|| FoldInput { value: values[source].take(), filter: filters[source].take() })
        })
        .collect()
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
    let mut mentioned = std::collections::BTreeSet::new();
    for key in ["value", "where"] {
        if let Some(place) = node.get(key).filter(|place| place.scalar().is_some()) {
            mentioned.extend(inputs.mentioned(cx, place)?);
        }
    }
    if mentioned.is_empty() {
        return Some(inputs.all());
    }
    let named = |s: &usize| mentioned.contains(&inputs.sources[*s].alias);
    Some(inputs.all().into_iter().filter(named).collect())
}
