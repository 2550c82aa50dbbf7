//! What the language promises and this version does not run.
//!
//! *In*: the document. *Out*: errors and warnings `not_yet`. *Never*: a part that is ignored without a word.

use crate::lower::{Cx, World};
use crate::shape::Kind;
use crate::yaml::{Entry, Node, Yaml};

/// Reports; true when columns or rows depend on what does not run, so that expressions cannot be checked.
pub(super) fn report(cx: &mut Cx<'_>, node: &Node, world: &World) -> bool {
    let mut depends = false;
    if let Some(join) = node.entry("join") {
        cx.not_yet(
            join.key_span,
            "`join`",
            "follow the events with an entity whose key they share, and measure over its rows",
        );
        depends = true;
    }
    if let Some(sequence) = node.entry("sequence") {
        cx.not_yet(sequence.key_span, "`sequence`", "follow the states with an entity");
        depends = true;
    }
    if let Some(enrich) = node.entry("enrich") {
        cx.not_yet(
            enrich.key_span,
            "`enrich` with a table",
            "put the columns into the events, or compute them under the event's own `enrich`",
        );
        tables(cx, enrich, world);
        depends = true;
    }
    for alias in node.get("events").map(Node::entries).unwrap_or_default() {
        depends |= alias_parts(cx, alias);
    }
    if let Some(late) = node.get("time").and_then(|time| time.get("late"))
        && matches!(late.scalar(), Some("drop" | "side"))
    {
        let what = format!("`late: {}`", late.shown());
        cx.not_yet(late.span, &what, "use `late: restate`, which corrects the number");
    }
    if let Some(column) = node.get("time").and_then(|time| time.get("column"))
        && node.get("entity").is_none()
    {
        let diagnostic = cx
            .at("option_not_used", column.span, "`time.column` is for metrics over an entity")
            .fix("events move a metric at their event time: name it by `time` of the event contract");
        cx.push(diagnostic);
    }
    for (key, what) in
        [("slo", "`slo`"), ("alerts", "`alerts`"), ("access", "`access`"), ("serve", "`serve`")]
    {
        if let Some(entry) = node.entry(key) {
            cx.idle(entry.key_span, what);
        }
    }
    depends
}

fn tables(cx: &mut Cx<'_>, enrich: &Entry, world: &World) {
    for entry in enrich.value.entries() {
        let Some(table) = entry.value.get("table") else { continue };
        let Some(name) = table.scalar() else { continue };
        if !world.names.contains(&(Kind::Table, name.to_string())) {
            let names = world.names(Kind::Table);
            let message = format!("there is no table `{name}`");
            let diagnostic =
                cx.at("unknown_table", table.span, message).names(name, names.iter().map(String::as_str));
            cx.push(diagnostic);
        }
    }
}

fn alias_parts(cx: &mut Cx<'_>, alias: &Entry) -> bool {
    if let Some(changelog) = alias.value.entry("changelog")
        && changelog.value.value == Yaml::Bool(true)
    {
        cx.not_yet(
            changelog.key_span,
            "`changelog: true` (change-data capture)",
            "send each state of the row as an event, follow it with an entity, and use `entity`",
        );
        return true;
    }
    for key in ["key", "time"] {
        if let Some(entry) = alias.value.entry(key) {
            let message = format!("`{key}` of an alias is for change streams");
            let diagnostic = cx
                .at("option_not_used", entry.key_span, message)
                .fix(format!("remove it: `{key}` of the event contract counts"));
            cx.push(diagnostic);
        }
    }
    false
}
