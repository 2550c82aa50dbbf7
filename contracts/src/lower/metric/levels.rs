//! `levels:`, and the conditions of `slo:` and `alerts:`, over measures.
//!
//! *In*: the document and its measures. *Out*: [`Level`]s. *Never*: bands that are not conditions.

use crate::catalog::{Level, Measure, MeasureKind, Window};
use crate::lower::Cx;
use crate::value::ValueType;
use crate::yaml::{Node, Yaml};

use super::derived::over_measures;

/// The bands and where they come from.
pub(super) struct Levels {
    pub(super) bands: Vec<Level>,
    pub(super) source: Option<String>,
}

/// Reads `levels`, and checks `slo` and `alerts`.
pub(super) fn read(cx: &mut Cx<'_>, node: &Node, measures: &[Measure], windows: &[Window]) -> Levels {
    let mut levels = Levels { bands: Vec::new(), source: None };
    if let Some(declared) = node.get("levels") {
        levels.source = declared.get("source").and_then(Node::scalar).map(str::to_string);
        for entry in declared.get("bands").map(Node::entries).unwrap_or_default() {
            if let Some((when, inputs)) = condition(cx, &entry.value, measures) {
                levels.bands.push(Level { name: entry.key.clone(), when, inputs });
            }
        }
    }
    for slo in node.get("slo").map(Node::items).unwrap_or_default() {
        objective(cx, slo, measures, windows);
    }
    for alert in node.get("alerts").map(Node::items).unwrap_or_default() {
        if let Some(when) = alert.get("when") {
            condition(cx, when, measures);
        }
        window(cx, alert, windows);
    }
    levels
}

fn objective(cx: &mut Cx<'_>, slo: &Node, measures: &[Measure], windows: &[Window]) {
    match (slo.get("measure"), slo.get("freshness")) {
        (Some(measure), None) => {
            let name = measure.scalar().unwrap_or_default();
            if !measures.iter().any(|m| m.name == name) {
                let names = measures.iter().map(|m| m.name.as_str());
                let message = format!("there is no measure `{name}`");
                let diagnostic = cx.at("unknown_name", measure.span, message).names(name, names);
                cx.push(diagnostic);
            }
        }
        (None, Some(_)) => {}
        _ if matches!(slo.value, Yaml::Map(_)) => {
            let diagnostic = cx
                .at("exactly_one", slo.span, "an objective is over a measure or over freshness")
                .found(slo.shown())
                .allowed("measure or freshness");
            cx.push(diagnostic);
        }
        _ => {}
    }
    window(cx, slo, windows);
}

/// The window that `node` names must be declared.
fn window(cx: &mut Cx<'_>, node: &Node, windows: &[Window]) {
    let Some(place) = node.get("window") else { return };
    let name = place.scalar().unwrap_or_default();
    if !windows.iter().any(|window| window.name == name) {
        let names = windows.iter().map(|window| window.name.as_str());
        let message = format!("there is no window `{name}`");
        let diagnostic = cx.at("unknown_name", place.span, message).names(name, names);
        cx.push(diagnostic);
    }
}

/// A condition over measures and the indexes of those it reads.
fn condition(
    cx: &mut Cx<'_>,
    place: &Node,
    measures: &[Measure],
) -> Option<(crate::expr::Typed, Vec<usize>)> {
    let mut operands: Vec<(usize, &str, &ValueType)> = Vec::new();
    let mut complete = true;
    for path in cx.mentions(place)? {
        let Some(name) = path.first() else { continue };
        match measures.iter().position(|m| m.name == *name) {
            // A broken measure has been reported where it stands.
            Some(index) if matches!(measures[index].kind, MeasureKind::Fold(usize::MAX)) => {
                complete = false;
            }
            Some(index) => operands.push((index, &measures[index].name, &measures[index].ty)),
            None => {
                complete = false;
                let names = measures.iter().map(|m| m.name.as_str());
                let message = format!("there is no measure `{name}`");
                let diagnostic = cx.at("unknown_name", cx.place_of(place, name), message).names(name, names);
                cx.push(diagnostic);
            }
        }
    }
    if !complete {
        return None;
    }
    let typed = over_measures(cx, place, &operands)?;
    let typed = cx.require_bool(place, typed, "this")?;
    Some((typed, operands.iter().map(|(index, _, _)| *index).collect()))
}
