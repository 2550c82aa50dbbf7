//! `serve.lake` of a metric: the table its results go to.
//!
//! *In*: the document, the windows, how long rows are retained. *Out*: the table's name. *Never*: a table for a metric
//! none of whose windows would ever be written.

use crate::catalog::{Head, Micros, Window, WindowKind};
use crate::duration::format_duration;
use crate::lower::Cx;
use crate::yaml::{Entry, Node};

/// One late row restates every step of a sliding window that sees it, each as a row: a week of minutes.
const MAX_STEPS: Micros = 10_080;

/// A window must be retained for so long after it is over, or nobody would come to write it.
const MARGIN: Micros = 3_600_000_000;

/// `true` is `metric_NAME` in the lake's namespace. `retain`: how long rows are kept; `needs`: for how long a window
/// needs them, until it is over.
pub(super) fn read(
    cx: &mut Cx<'_>,
    node: &Node,
    head: &Head,
    windows: &[Window],
    (retain, needs): (Micros, Micros),
) -> Option<String> {
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
    windows_end(cx, entry, node, windows)?;
    let needs = needs.saturating_add(MARGIN);
    if retain < needs {
        let needs = format_duration(needs);
        let message = "results would be forgotten before their windows are over: `retain.live` is too short";
        let diagnostic = cx
            .at("retain_too_short", entry.key_span, message)
            .found(format_duration(retain))
            .allowed(format!("at least {needs}: the longest window, its shift, `time.lateness`, and an hour"))
            .fix(format!("retain: {{ live: {needs} }}"));
        cx.push(diagnostic);
        return None;
    }
    Some(name)
}

/// There is a window that ends, and none would be written all the time.
fn windows_end(cx: &mut Cx<'_>, entry: &Entry, node: &Node, windows: &[Window]) -> Option<()> {
    if !windows.is_empty() && !windows.iter().any(|window| window.kind.ends()) {
        let message = "none of the windows ends for good, so nothing would ever be written";
        let diagnostic = cx
            .at("option_not_used", entry.key_span, message)
            .fix("add a window with an end, e.g. `day: { tumbling: 1d, tz: UTC }`, or remove `serve.lake`");
        cx.push(diagnostic);
        return None;
    }
    for window in windows {
        let WindowKind::Sliding { size, every } = window.kind else { continue };
        let steps = size / every.max(1);
        if steps <= MAX_STEPS {
            continue;
        }
        let place = node.get("windows").and_then(|windows| windows.entry(&window.name));
        let message =
            format!("`{}` has {steps} steps, and `serve.lake` writes the result of each", window.name);
        let diagnostic = cx
            .at("out_of_range", place.map_or(entry.key_span, |place| place.key_span), message)
            .found(format!("sliding: {}, every: {}", format_duration(size), format_duration(every)))
            .allowed(format!("at most {MAX_STEPS} steps in a metric with `serve.lake`"))
            .fix("a longer `every`, or put this window into a metric without `serve.lake`");
        cx.push(diagnostic);
        return None;
    }
    Some(())
}
