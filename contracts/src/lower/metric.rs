//! `kind: Metric` into the catalog.
//!
//! *In*: a metric document, the lowered events and entities. *Out*: [`Metric`]. *Never*: evaluation; a part of
//! the language that is silently ignored.
//!
//! Modules in the order of the document: promised, inputs, over, relations, dimensions, aggs, measures, derived, windows, results, levels, tests.

mod aggs;
mod derived;
mod dimensions;
mod inputs;
mod levels;
mod measures;
mod over;
mod promised;
mod relations;
mod results;
mod tests;
mod windows;

pub(crate) use inputs::few_valued_columns;

use crate::catalog::{Better, Feed, Fold, Metric, Micros, Window, WindowKind};
use crate::yaml::Node;

use self::relations::Related;
use super::head::head;
use super::{Cx, Lowered, World};

const MINUTE: Micros = 60_000_000;
const DAY: Micros = 86_400_000_000;

/// Lowers the metric of `node`.
pub(crate) fn metric(cx: &mut Cx<'_>, node: &Node, world: &World) -> Lowered<Metric> {
    let head = head(cx, node);
    promised::report(cx, node, world);
    let mut plain = inputs::read(cx, node, world, &head);
    let Related { inputs, filters, relations } = relations::read(cx, node, world, &mut plain);
    let (dimensions, columns) = dimensions::read(cx, node, &inputs);
    let moments = inputs.moments(cx, node);
    let folded = measures::read(cx, node, &inputs);
    let (folds, fold_inputs) = (folded.folds, folded.inputs);
    let windows = windows::read(cx, node);
    let derived = derived::resolve(cx, &folded.parsed, &windows);
    names_differ(cx, node);
    no_sessions_of_what_lasts(cx, node, &folds, &windows);
    let levels = levels::read(cx, node, &derived.measures, &windows);
    let tests = tests::read(cx, node, world, &plain, &windows);
    let time = |key: &str| node.get("time").and_then(|time| cx.duration(time, key));
    let (lateness, idle, future) = (time("lateness"), time("idle"), time("future"));
    let reach = windows.iter().map(|w| w.kind.longest()).max().unwrap_or(0) + derived.shift;
    let retain = retain(cx, node, reach);
    let needs = reach.saturating_add(lateness.unwrap_or(0));
    let lake = results::read(cx, node, &head, &windows, (retain, needs));
    let feeds = inputs
        .sources
        .iter()
        .enumerate()
        .map(|(source, input)| Feed {
            alias: input.alias.clone(),
            input: input.input,
            time: input.time.clone(),
            moment: moments.get(source).cloned().flatten(),
            filter: filters.get(source).cloned().flatten(),
            dimensions: columns.iter().filter_map(|column| column.get(source).cloned()?).collect(),
            folds: fold_inputs.iter().map(|fold| fold.get(source).cloned().flatten()).collect(),
        })
        .collect();
    let item = Metric {
        head,
        better: match node.get("better").and_then(Node::scalar) {
            Some("higher") => Some(Better::Higher),
            Some("lower") => Some(Better::Lower),
            _ => None,
        },
        feeds,
        relations,
        dimensions,
        folds,
        measures: derived.measures,
        windows,
        lateness: lateness.unwrap_or(0),
        idle: idle.unwrap_or(MINUTE),
        future: future.unwrap_or(5 * MINUTE),
        freshness: node.get("freshness").and_then(|f| cx.duration(f, "p95")),
        levels: levels.bands,
        levels_source: levels.source,
        retain,
        lake,
        tests,
    };
    let sound = cx.out.iter().all(|d| !d.is_error());
    Lowered { item, sound, typed: sound }
}

/// A session is made of rows, what lasts has only beginnings and ends.
fn no_sessions_of_what_lasts(cx: &mut Cx<'_>, node: &Node, folds: &[Fold], windows: &[Window]) {
    if !folds.iter().any(|fold| fold.agg.is_span()) {
        return;
    }
    for window in windows.iter().filter(|window| matches!(window.kind, WindowKind::Session { .. })) {
        let Some(entry) = node.get("windows").and_then(|windows| windows.entry(&window.name)) else {
            continue;
        };
        let message = format!("`{}` is a session, and this metric measures what lasts", window.name);
        let diagnostic = cx
            .at("wrong_operands", entry.key_span, message)
            .fix("put `concurrent` and `duration_in_state` into a metric without session windows");
        cx.push(diagnostic);
    }
}

/// Dimensions and measures are cells of the same rows.
fn names_differ(cx: &mut Cx<'_>, node: &Node) {
    let measures = node.get("measures").map(Node::entries).unwrap_or_default();
    for dimension in node.get("dimensions").map(Node::entries).unwrap_or_default() {
        if measures.iter().any(|measure| measure.key == dimension.key) {
            let message = format!("`{}` is a dimension and a measure", dimension.key);
            let diagnostic = cx
                .at("reserved_name", dimension.key_span, message)
                .fix("rename one of them: both are cells of the same rows");
            cx.push(diagnostic);
        }
    }
}

fn retain(cx: &mut Cx<'_>, node: &Node, reach: Micros) -> Micros {
    let Some(live) = node.get("retain").and_then(|r| r.get("live")) else {
        return (7 * DAY).max(reach.saturating_mul(2));
    };
    let Some(kept) = live.scalar().and_then(crate::duration::parse_duration) else {
        return 7 * DAY;
    };
    if kept < reach {
        let needed = crate::duration::format_duration(reach);
        let diagnostic = cx
            .at("retain_too_short", live.span, "`retain.live` is shorter than what answers need")
            .found(live.shown())
            .allowed(format!("at least {needed}: the longest window, with its shift"))
            .fix(format!("retain: {{ live: {needed} }}"));
        cx.push(diagnostic);
    }
    kept
}
