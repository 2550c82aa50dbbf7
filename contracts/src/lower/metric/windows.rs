//! `windows:` over which time.
//!
//! *In*: the document. *Out*: [`Window`]s, at least one. *Never*: a step that does not divide its window; a local
//! day without its time zone.

use crate::catalog::{CalendarUnit, Micros, Window, WindowKind};
use crate::duration::{format_duration, parse_duration};
use crate::lower::Cx;
use crate::yaml::{Entry, Node, Yaml};

const SECOND: Micros = 1_000_000;
const MINUTE: Micros = 60 * SECOND;
const HOUR: Micros = 60 * MINUTE;
const DAY: Micros = 24 * HOUR;

/// Steps that `every` defaults to: they divide hours and days.
const STEPS: [Micros; 13] = [
    SECOND,
    5 * SECOND,
    10 * SECOND,
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    6 * HOUR,
    DAY,
];

/// Panes of a sliding window are kept per key: more steps than this is a mistake of units.
const MAX_STEPS: Micros = 100_000;

const KINDS: [&str; 5] = ["tumbling", "sliding", "session", "to_date", "all"];

/// The windows in contract order; `all` where none is given.
pub(super) fn read(cx: &mut Cx<'_>, node: &Node) -> Vec<Window> {
    let Some(windows) = node.entry("windows") else {
        return vec![Window { name: "all".to_string(), kind: WindowKind::All }];
    };
    if windows.value.entries().is_empty() {
        let diagnostic = cx
            .at("empty_contract", windows.key_span, "no window is declared")
            .fix("remove `windows` for everything since the beginning, or add e.g. `1h: { sliding: 1h }`");
        cx.push(diagnostic);
    }
    windows
        .value
        .entries()
        .iter()
        .filter_map(|entry| Some(Window { name: entry.key.clone(), kind: window(cx, entry)? }))
        .collect()
}

fn window(cx: &mut Cx<'_>, entry: &Entry) -> Option<WindowKind> {
    let given: Vec<&Entry> = KINDS.into_iter().filter_map(|kind| entry.value.entry(kind)).collect();
    let [only] = given[..] else {
        let message = format!("the window `{}` needs exactly one kind", entry.key);
        let diagnostic = cx
            .at("exactly_one", entry.key_span, message)
            .found(entry.value.shown())
            .allowed(KINDS.join(", "));
        cx.push(diagnostic);
        return None;
    };
    let kind = only.key.as_str();
    let zoned = kind == "to_date" || kind == "tumbling";
    if let Some(every) = entry.value.entry("every").filter(|_| kind != "sliding") {
        unused(cx, every, kind);
    }
    if let Some(tz) = entry.value.entry("tz").filter(|_| !zoned) {
        unused(cx, tz, kind);
    }
    match kind {
        "tumbling" => tumbling(cx, entry, &only.value),
        "sliding" => sliding(cx, entry, &only.value),
        "session" => Some(WindowKind::Session { gap: positive(cx, &only.value)? }),
        "to_date" => {
            let unit = unit(&only.value)?;
            Some(WindowKind::ToDate { unit, tz: zone(cx, entry, "`to_date`")? })
        }
        _ => match only.value.value {
            Yaml::Bool(true) => Some(WindowKind::All),
            Yaml::Bool(false) => {
                let diagnostic = cx
                    .at("not_allowed", only.value.span, "`all: false` is no window")
                    .found("false")
                    .allowed("true");
                cx.push(diagnostic);
                None
            }
            _ => None,
        },
    }
}

fn unused(cx: &mut Cx<'_>, option: &Entry, kind: &str) {
    let message = format!("`{}` does nothing for a {kind} window", option.key);
    let diagnostic = cx.at("option_not_used", option.key_span, message).fix("remove it");
    cx.push(diagnostic);
}

fn positive(cx: &mut Cx<'_>, node: &Node) -> Option<Micros> {
    let size = parse_duration(node.scalar()?)?;
    if size >= 1_000 {
        return Some(size);
    }
    let diagnostic = cx
        .at("out_of_range", node.span, "a window must have a length")
        .found(node.shown())
        .allowed("at least 1ms");
    cx.push(diagnostic);
    None
}

fn tumbling(cx: &mut Cx<'_>, entry: &Entry, node: &Node) -> Option<WindowKind> {
    let size = positive(cx, node)?;
    if size < DAY {
        if let Some(tz) = entry.value.entry("tz") {
            let diagnostic = cx
                .at("option_not_used", tz.key_span, "`tz` does nothing below a day")
                .fix("remove it: windows below a day are aligned to UTC");
            cx.push(diagnostic);
        }
        return Some(WindowKind::Tumbling { size });
    }
    let tz = zone(cx, entry, "a tumbling window of a day or more");
    if size % DAY != 0 {
        let diagnostic = cx
            .at("bad_window", node.span, "a tumbling window beyond a day is whole local days")
            .found(node.shown())
            .allowed("1d, 2d, 7d, ...")
            .fix(format!("e.g. {}", format_duration((size / DAY).max(1) * DAY)));
        cx.push(diagnostic);
        return None;
    }
    let days = u32::try_from(size / DAY).ok()?;
    Some(WindowKind::Days { days, tz: tz? })
}

fn sliding(cx: &mut Cx<'_>, entry: &Entry, node: &Node) -> Option<WindowKind> {
    let size = positive(cx, node)?;
    let Some(place) = entry.value.get("every") else {
        let fits = |step: &&Micros| size % **step == 0;
        let default = STEPS
            .iter()
            .rev()
            .filter(fits)
            .find(|step| **step <= size / 60)
            // Below a minute there is no sixtieth: the finest step that fits.
            .or_else(|| STEPS.iter().find(fits));
        let Some(every) = default else {
            let message = format!("the window `{}` needs a step of its own", entry.key);
            let diagnostic = cx
                .at("missing_key", entry.key_span, message)
                .found(format!("sliding: {}", node.shown()))
                .fix("add `every`, which must divide the size");
            cx.push(diagnostic);
            return None;
        };
        return Some(WindowKind::Sliding { size, every: *every });
    };
    let every = positive(cx, place)?;
    if size % every != 0 || every > size {
        let near: Vec<String> = STEPS
            .iter()
            .filter(|step| size % **step == 0 && size / **step <= MAX_STEPS)
            .map(|step| format_duration(*step))
            .collect();
        let diagnostic = cx
            .at("bad_window", place.span, "`every` does not divide the window")
            .found(format!("sliding: {}, every: {}", node.shown(), place.shown()))
            .allowed(near.join(", "));
        cx.push(diagnostic);
        return None;
    }
    if size / every > MAX_STEPS {
        let diagnostic = cx
            .at("out_of_range", place.span, "`every` is too fine for the window")
            .found(format!("{} steps", size / every))
            .allowed(format!("at most {MAX_STEPS} steps"));
        cx.push(diagnostic);
        return None;
    }
    Some(WindowKind::Sliding { size, every })
}

fn unit(node: &Node) -> Option<CalendarUnit> {
    Some(match node.scalar()? {
        "hour" => CalendarUnit::Hour,
        "day" => CalendarUnit::Day,
        "week" => CalendarUnit::Week,
        "month" => CalendarUnit::Month,
        "quarter" => CalendarUnit::Quarter,
        "year" => CalendarUnit::Year,
        _ => return None,
    })
}

fn zone(cx: &mut Cx<'_>, entry: &Entry, what: &str) -> Option<String> {
    let Some(place) = entry.value.get("tz") else {
        let message = format!("{what} needs a time zone");
        let diagnostic =
            cx.at("missing_key", entry.key_span, message).fix("add e.g. `tz: Europe/London` or `tz: UTC`");
        cx.push(diagnostic);
        return None;
    };
    let name = place.scalar()?;
    if jiff::tz::TimeZone::get(name).is_ok() {
        return Some(name.to_string());
    }
    let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    let mut diagnostic = cx
        .at("unknown_time_zone", place.span, format!("there is no time zone `{name}`"))
        .names(name, names.iter().map(String::as_str));
    diagnostic.allowed = Some("an IANA name, e.g. Europe/London, America/New_York, UTC".into());
    cx.push(diagnostic);
    None
}
