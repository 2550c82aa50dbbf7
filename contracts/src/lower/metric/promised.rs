//! What the language promises and this version does not run.
//!
//! *In*: the document. *Out*: errors and warnings `not_yet`. *Never*: a part that is ignored without a word.

use crate::lower::{Cx, World, one_or_many};
use crate::yaml::{Entry, Node, Yaml};

/// Reports.
pub(super) fn report(cx: &mut Cx<'_>, node: &Node, world: &World) {
    if let (Some(enrich), Some(_)) = (node.entry("enrich"), node.get("entity")) {
        cx.not_yet(
            enrich.key_span,
            "`enrich` beside `entity`",
            "put what the table knows on the events: use `events`",
        );
    }
    for alias in node.get("events").map(Node::entries).unwrap_or_default() {
        alias_parts(cx, alias, world);
    }
    if let Some(late) = node.get("time").and_then(|time| time.get("late"))
        && matches!(late.scalar(), Some("drop" | "side"))
    {
        let what = format!("`late: {}`", late.shown());
        cx.not_yet(late.span, &what, "use `late: restate`, which corrects the number");
    }
    for (key, what) in [("slo", "`slo`"), ("alerts", "`alerts`"), ("access", "`access`")] {
        if let Some(entry) = node.entry(key) {
            cx.idle(entry.key_span, what);
        }
    }
    // `serve.lake` runs.
    if let Some(serve) = node.entry("serve")
        && serve.value.entries().iter().any(|entry| entry.key != "lake")
    {
        cx.idle(serve.key_span, "`serve`");
    }
}

fn alias_parts(cx: &mut Cx<'_>, alias: &Entry, world: &World) {
    let said = alias.value.get("changelog").is_some_and(|said| said.value == Yaml::Bool(true));
    let types = alias.value.get("type").map(one_or_many).unwrap_or_default();
    let streams = world.events.iter().filter(|event| event.item.changelog);
    let names: Vec<&str> = streams.map(|event| event.item.head.name.as_str()).collect();
    if said || types.iter().any(|name| name.scalar().is_some_and(|name| names.contains(&name))) {
        return;
    }
    if let Some(entry) = alias.value.entry("key") {
        let diagnostic = cx
            .at("option_not_used", entry.key_span, "`key` of an alias is for change streams")
            .fix("remove it: `key` of the event contract counts");
        cx.push(diagnostic);
    }
}
