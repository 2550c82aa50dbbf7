//! Changes of a metric.
//!
//! *In*: two versions with their catalogs. *Out*: changes. *Never*: state.

use std::sync::Arc;

use crate::catalog::{
    Catalog, Feed, Fold, FoldInput, Input, Measure, MeasureKind, Metric, Overflow, Part, Relation,
};
use crate::duration::format_duration;
use crate::expr::Typed;

use super::{ADDED, CHANGED, Changes, Class, Effect, GONE, Level, QUIET, SHOWN, same, same_option, shown};

/// Compares two versions of a metric.
pub(super) fn compare(
    (old, a): (&Catalog, &Arc<Metric>),
    (new, b): (&Catalog, &Arc<Metric>),
    out: &mut Changes,
) {
    let before: Vec<String> = a.feeds.iter().map(|feed| source(old, feed)).collect();
    let after: Vec<String> = b.feeds.iter().map(|feed| source(new, feed)).collect();
    for gone in before.iter().filter(|s| !after.contains(s)) {
        out.add("events", "input_removed", CHANGED, format!("{gone} no longer moves it"));
    }
    for added in after.iter().filter(|s| !before.contains(s)) {
        out.add("events", "input_added", CHANGED, format!("{added} now moves it"));
    }
    let twins: Vec<(&Feed, &Feed)> = a
        .feeds
        .iter()
        .zip(&before)
        .filter_map(|(feed, name)| Some((feed, &b.feeds[after.iter().position(|other| other == name)?])))
        .collect();
    for (x, y) in &twins {
        if !same_option(x.filter.as_ref(), y.filter.as_ref()) {
            let text = |feed: &Feed| shown(feed.filter.as_ref().map(|f| f.sql.clone()));
            let message = format!("`where` was {}, is {}", text(x), text(y));
            out.add(format!("events.{}.where", x.alias), "filter_changed", CHANGED, message);
        }
        if x.time != y.time {
            let message = format!("the time was `{}`, is `{}`", x.time, y.time);
            out.add("time.column", "time_changed", CHANGED, message);
        }
        if !same_option(x.moment.as_ref(), y.moment.as_ref()) {
            let text = |feed: &Feed| shown(feed.moment.as_ref().map(|moment| moment.sql.clone()));
            let message = format!("rows counted at {}, they count at {}", text(x), text(y));
            out.add("time.column", "time_changed", CHANGED, message);
        }
    }
    if relations(old, a) != relations(new, b) {
        let message = "which rows belong together means something else".to_owned();
        out.add("join", "join_changed", CHANGED, message);
    }
    dimensions(a, b, &twins, out);
    measures(a, b, &twins, out);
    windows(a, b, out);
    rest(a, b, out);
}

fn source(catalog: &Catalog, feed: &Feed) -> String {
    match feed.input {
        Input::Event(event) => format!("`{}` ({})", catalog.events[event].head.name, feed.alias),
        Input::Entity(entity) => format!("the entity `{}`", catalog.entities[entity].head.name),
        Input::Relation(_) if feed.alias.is_empty() => "the joined rows".to_owned(),
        Input::Relation(_) => format!("the rows of `{}`", feed.alias),
    }
}

/// What joins, tables and change streams mean, as text.
fn relations(catalog: &Catalog, metric: &Metric) -> Vec<String> {
    let sql = |typed: &Typed| typed.sql.clone();
    let part = |part: &Part| -> String {
        let feeds = part.feeds.iter().map(|feed| {
            let event = &catalog.events[feed.event].head.name;
            let cells: Vec<String> = feed.cells.iter().map(sql).collect();
            let names: Vec<String> =
                feed.identity.iter().chain(&feed.time).chain(&feed.filter).map(sql).collect();
            format!("{event} {cells:?} {:?} {names:?}", feed.lists)
        });
        format!("{} {:?}", part.name, feeds.collect::<Vec<_>>())
    };
    let text = |relation: &Relation| {
        let parts: Vec<String> = relation.parts.iter().map(part).collect();
        // Of history, what it says and not where its event types stand in the catalog.
        let history = relation.history().map(|(step, history)| {
            format!("{step} {} {:?} {:?}", part(&history.part), history.graph, history.kind)
        });
        let history: Vec<String> = history.collect();
        let mut steps = relation.steps.clone();
        for ships in steps.iter_mut().filter_map(|step| step.ships.as_mut()) {
            ships.history.clear();
        }
        format!("{parts:?} {steps:?} {history:?}")
    };
    metric.relations.iter().map(text).collect()
}

fn dimensions(a: &Metric, b: &Metric, twins: &[(&Feed, &Feed)], out: &mut Changes) {
    for (i, x) in a.dimensions.iter().enumerate() {
        let path = format!("dimensions.{}", x.name);
        let Some(j) = b.dimensions.iter().position(|y| y.name == x.name) else {
            out.add(path, "dimension_removed", GONE, format!("the dimension `{}` is gone", x.name));
            continue;
        };
        let y = &b.dimensions[j];
        let moved = twins.iter().any(|(p, q)| !same(&p.dimensions[i], &q.dimensions[j]));
        if x.ty != y.ty || moved || x.default != y.default {
            let message = format!("the values of `{}` mean something else", x.name);
            out.add(path.clone(), "dimension_changed", CHANGED, message);
        }
        if x.max != y.max || x.overflow != y.overflow {
            let narrower = y.max < x.max || y.overflow == Overflow::Refuse;
            let weight = if narrower { CHANGED } else { ADDED };
            let message = format!("`max` was {}, is {}", x.max, y.max);
            out.add(format!("{path}.max"), "dimension_bound_changed", weight, message);
        }
    }
    for y in b.dimensions.iter().filter(|y| !a.dimensions.iter().any(|x| x.name == y.name)) {
        let message = format!("the dimension `{}` is new", y.name);
        out.add(format!("dimensions.{}", y.name), "dimension_added", ADDED, message);
    }
}

fn measures(a: &Metric, b: &Metric, twins: &[(&Feed, &Feed)], out: &mut Changes) {
    for x in &a.measures {
        let path = format!("measures.{}", x.name);
        let Some(y) = b.measures.iter().find(|y| y.name == x.name) else {
            out.add(path, "measure_removed", GONE, format!("the measure `{}` is gone", x.name));
            continue;
        };
        if x.ty != y.ty {
            let message = format!("the type was {}, is {}", x.ty, y.ty);
            out.add(format!("{path}.type"), "measure_type_changed", CHANGED, message);
        }
        if !same_measure((a, x), (b, y), twins) {
            let message = format!("`{}` is computed differently", x.name);
            out.add(path.clone(), "measure_changed", CHANGED, message);
        }
        if x.unit != y.unit {
            let message = format!("the unit was {}, is {}", shown(x.unit.as_ref()), shown(y.unit.as_ref()));
            let weight = (Class::Breaking, Effect::Keep, Level::Major);
            out.add(format!("{path}.unit"), "unit_changed", weight, message);
        }
        if x.empty != y.empty {
            let weight = (Class::Breaking, Effect::Keep, Level::Major);
            out.add(format!("{path}.empty"), "empty_changed", weight, "what stands for nothing changed");
        }
        match (x.hidden, y.hidden) {
            (false, true) => out.add(format!("{path}.hidden"), "measure_hidden", GONE, "it is hidden now"),
            (true, false) => out.add(format!("{path}.hidden"), "measure_shown", SHOWN, "it is visible now"),
            _ => {}
        }
    }
    for y in b.measures.iter().filter(|y| !a.measures.iter().any(|x| x.name == y.name)) {
        let message = format!("the measure `{}` is new", y.name);
        out.add(format!("measures.{}", y.name), "measure_added", ADDED, message);
    }
    let first = |m: &Metric| m.measures.iter().find(|x| !x.hidden).map(|x| x.name.clone());
    if first(a) != first(b) {
        let message = format!("`value` was {}, is {}", shown(first(a)), shown(first(b)));
        let weight = (Class::Breaking, Effect::Keep, Level::Major);
        out.add("measures", "value_changed", weight, message);
    }
}

/// The same computation, whatever the indexes.
fn same_measure((a, x): (&Metric, &Measure), (b, y): (&Metric, &Measure), twins: &[(&Feed, &Feed)]) -> bool {
    let name = |metric: &Metric, index: usize| metric.measures[index].name.clone();
    match (&x.kind, &y.kind) {
        (MeasureKind::Fold(i), MeasureKind::Fold(j)) => {
            same_fold(&a.folds[*i], &b.folds[*j])
                && twins.iter().all(|(p, q)| same_input(p.folds[*i].as_ref(), q.folds[*j].as_ref()))
        }
        (MeasureKind::Ratio(n, d), MeasureKind::Ratio(m, e)) => {
            name(a, *n) == name(b, *m) && name(a, *d) == name(b, *e)
        }
        (MeasureKind::Expr { expr: p, .. }, MeasureKind::Expr { expr: q, .. }) => same(p, q),
        (MeasureKind::Shift { of: p, by: s }, MeasureKind::Shift { of: q, by: t }) => {
            name(a, *p) == name(b, *q) && s == t
        }
        _ => false,
    }
}

fn same_fold(a: &Fold, b: &Fold) -> bool {
    a.agg == b.agg && a.input == b.input
}

fn same_input(a: Option<&FoldInput>, b: Option<&FoldInput>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => {
            same_option(a.value.as_ref(), b.value.as_ref())
                && same_option(a.filter.as_ref(), b.filter.as_ref())
        }
        (None, None) => true,
        _ => false,
    }
}

fn windows(a: &Metric, b: &Metric, out: &mut Changes) {
    for x in &a.windows {
        let path = format!("windows.{}", x.name);
        match b.windows.iter().find(|y| y.name == x.name) {
            None => out.add(path, "window_removed", GONE, format!("the window `{}` is gone", x.name)),
            Some(y) if x.kind != y.kind => {
                let message = format!("the window `{}` spans something else", x.name);
                out.add(path, "window_changed", CHANGED, message);
            }
            Some(_) => {}
        }
    }
    for y in b.windows.iter().filter(|y| !a.windows.iter().any(|x| x.name == y.name)) {
        let message = format!("the window `{}` is new", y.name);
        out.add(format!("windows.{}", y.name), "window_added", ADDED, message);
    }
    let first = |m: &Metric| m.windows.first().map(|w| w.name.clone());
    if first(a) != first(b) {
        let message = format!("the default window was {}, is {}", shown(first(a)), shown(first(b)));
        let weight = (Class::Breaking, Effect::Keep, Level::Major);
        out.add("windows", "default_window_changed", weight, message);
    }
}

fn rest(a: &Metric, b: &Metric, out: &mut Changes) {
    let durations = [
        ("time.lateness", a.lateness, b.lateness),
        ("time.idle", a.idle, b.idle),
        ("time.future", a.future, b.future),
    ];
    for (path, before, after) in durations {
        if before != after {
            let message = format!("it was {}, is {}", format_duration(before), format_duration(after));
            out.add(path, "time_policy_changed", QUIET, message);
        }
    }
    if a.retain != b.retain {
        let (before, after) = (format_duration(a.retain), format_duration(b.retain));
        let weight = match b.retain > a.retain {
            true => (Class::Compatible, Effect::Replay, Level::None),
            false => QUIET,
        };
        out.add("retain.live", "retention_changed", weight, format!("it was {before}, is {after}"));
    }
    if a.freshness != b.freshness {
        out.add("freshness.p95", "freshness_changed", QUIET, "the budget of staleness changed");
    }
    if a.better != b.better {
        out.add("better", "better_changed", QUIET, "the direction of improvement changed");
    }
    match (&a.lake, &b.lake) {
        (None, Some(table)) => {
            out.add(
                "serve.lake",
                "results_added",
                SHOWN,
                format!("its results go to the table `{table}` now"),
            );
        }
        (Some(table), None) => {
            out.add(
                "serve.lake",
                "results_removed",
                GONE,
                format!("no results go to the table `{table}` any more"),
            );
        }
        (Some(x), Some(y)) if x != y => {
            let message = format!("its results went to the table `{x}`, they go to `{y}`");
            out.add("serve.lake", "results_moved", GONE, message);
        }
        _ => {}
    }
    let bands = |m: &Metric| -> Vec<(String, String)> {
        m.levels.iter().map(|l| (l.name.clone(), l.when.sql.clone())).collect()
    };
    if bands(a) != bands(b) || a.levels_source != b.levels_source {
        out.add("levels", "levels_changed", SHOWN, "the bands changed");
    }
}
