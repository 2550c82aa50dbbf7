//! `serve.lake` of a metric: the table its results go to.
//!
//! *In*: the document, the windows. *Out*: the table's name. *Never*: a table for a metric none of whose windows ends.

use crate::catalog::{Head, Window, WindowKind};
use crate::lower::Cx;
use crate::yaml::Node;

/// `true` is `metric_NAME` in the lake's namespace.
pub(super) fn read(cx: &mut Cx<'_>, node: &Node, head: &Head, windows: &[Window]) -> Option<String> {
    let serve = node.get("serve")?;
    let entry = serve.entry("lake")?;
    let name = match entry.value.scalar() {
        Some("true") => format!("metric_{}", head.name.replace('.', "_")),
        Some(_) => return None,
        None => entry.value.get("iceberg")?.scalar()?.to_owned(),
    };
    let plain = |part: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        !part.is_empty() && part.chars().all(plain)
    };
    if name.split('.').count() > 2 || !name.split('.').all(plain) {
        let message =
            format!("`{name}` is no table: `table` or `namespace.table` of small letters, digits and `_`");
        let diagnostic =
            cx.at("not_allowed", entry.value.span, message).fix("for example `iceberg: metrics.revenue`");
        cx.push(diagnostic);
        return None;
    }
    if let Some(entity) = node.entry("entity") {
        cx.not_yet(entity.key_span, "`serve.lake` of a metric over an entity", "remove `serve.lake`");
        return None;
    }
    let ends = |window: &Window| {
        !matches!(window.kind, WindowKind::Sliding { .. } | WindowKind::Session { .. } | WindowKind::All)
    };
    if !windows.is_empty() && !windows.iter().any(ends) {
        let message = "none of the windows ends for good, so nothing would ever be written";
        let diagnostic = cx
            .at("option_not_used", entry.key_span, message)
            .fix("add a `tumbling` or `to_date` window, or remove `serve.lake`");
        cx.push(diagnostic);
        return None;
    }
    Some(name)
}
