//! Metrics over sequences: intervals of keys, what lasts, windows of windows.
//!
//! *In*: models of events and tables. *Out*: YAML of one or two metrics. *Never*: sessions.

use super::super::contract::head;
use super::super::measure::measures;
use super::super::metric::{Scope, finish, windows};
use super::super::{Column, T, Theme};
use super::{Feed, Model, TableModel, chance, contracts as any, pick, word};

/// Event types and tables; `plain`: one event type at least is plain, and there are no tables.
pub(super) fn contracts(
    rng: &mut fastrand::Rng,
    plain: bool,
    yaml: &mut String,
) -> (Vec<Model>, Vec<TableModel>) {
    loop {
        let mut text = String::new();
        let (models, tables) = any::contracts(rng, false, &mut text);
        let streams = || models.iter().filter(|model| !model.columns.is_empty());
        let fits = !plain || streams().any(|model| model.feed == Feed::Plain) && tables.is_empty();
        // Few types, so that keys move often.
        if fits && (streams().count() == 1 || chance(rng, 15)) {
            *yaml += &text;
            return (models, tables);
        }
    }
}

/// One or two metrics.
pub(super) fn metrics(
    rng: &mut fastrand::Rng,
    theme: &Theme,
    models: &[Model],
    tables: &[TableModel],
    yaml: &mut String,
) {
    let streams: Vec<&Model> = models.iter().filter(|model| !model.columns.is_empty()).collect();
    let plain: Vec<&Model> = streams.iter().filter(|model| !model.versioned()).copied().collect();
    let streams = if tables.is_empty() && !plain.is_empty() { plain } else { streams };
    for i in 0..rng.usize(1..3) {
        let model = *pick(rng, &streams);
        match rng.u8(..10) {
            0 => apart(rng, theme, i, &streams, yaml),
            1 => over_entity(rng, theme, i, model, yaml),
            _ => metric(rng, theme, i, model, tables, yaml),
        }
    }
}

fn metric(
    rng: &mut fastrand::Rng,
    theme: &Theme,
    index: usize,
    model: &Model,
    tables: &[TableModel],
    yaml: &mut String,
) {
    head(yaml, "Metric", &format!("m{index}"));
    let filter = if chance(rng, 20) { ", where: \"s.n < 3\"" } else { "" };
    *yaml += &format!("events:\n  s: {{ type: {}{filter} }}\n", model.name);
    let mut columns = qualified("s", &model.columns);
    if chance(rng, 60) {
        enrich(rng, tables, &mut columns, yaml);
    }
    let (key, state) = sequence(rng, &columns, yaml);
    let kinds = kinds(key, state);
    let scope = |of: Option<&str>, own: &[Column]| {
        let mut all = columns.clone();
        all.extend(own.iter().cloned());
        Scope { alias: None, of: of.map(str::to_string), columns: all }
    };
    let mut scopes: Vec<Scope> = kinds.iter().map(|(kind, own)| scope(Some(kind), own)).collect();
    scopes.push(scope(Some("s"), &[]));
    let intervals = scope(None, &kinds[0].1);
    let last = rng.usize(..4);
    let by_state = dimensions(rng, &columns, (state, last == 0 || theme.later), yaml);
    let windows = lasting_windows(rng, theme);
    measures(rng, theme, &intervals, &scopes, yaml);
    // A dimension must say something about some row.
    if by_state {
        *yaml += "  kept: { agg: count, of: interval, hidden: true }\n";
    }
    lasting(rng, theme, &intervals, (state, last), yaml);
    if chance(rng, 60) {
        *yaml += "  rows: { agg: count }\n";
        *yaml += "  dwelt: { agg: max, value: interval.dwell }\n";
        over(rng, &windows, "dwelt", yaml);
    }
    finish(rng, theme, &windows, yaml);
}

/// What lasts without a sequence: rows of one type, or of two that are joined.
fn apart(rng: &mut fastrand::Rng, theme: &Theme, index: usize, streams: &[&Model], yaml: &mut String) {
    head(yaml, "Metric", &format!("m{index}"));
    let (a, b) = (*pick(rng, streams), *pick(rng, streams));
    *yaml += &format!("events:\n  a: {{ type: {} }}\n  b: {{ type: {} }}\n", a.name, b.name);
    let joined = chance(rng, 50);
    if joined {
        let pick = word(rng, &["first", "last", "each"]);
        *yaml += &format!("join:\n  - {{ from: a, to: b, match: a.k1 = b.k1, within: 20m, pick: {pick} }}\n");
    }
    if chance(rng, 60) {
        let from = if joined { "a.k2" } else { "k2" };
        *yaml += &format!("dimensions:\n  d0: {{ from: {from}, max: {} }}\n", room(rng, theme));
    }
    let windows = lasting_windows(rng, theme);
    *yaml += "measures:\n";
    let spans: &[&str] = match joined {
        true => {
            &["start: a.time, end: b.time", "of: b, start: \"b.time - INTERVAL '3 minutes'\", end: b.time"]
        }
        false => &[
            "of: a, start: \"a.time - INTERVAL '10 minutes'\", end: a.time",
            "start: \"b.time - INTERVAL '1 hour'\", end: \"b.time - INTERVAL '5 minutes'\"",
            "of: b, start: b.time, end: \"CASE WHEN b.qty > 5 THEN b.time END\"",
            "of: a, start: \"CASE WHEN a.n > 0 THEN a.time END\", end: \"nullif(a.time, a.time)\"",
        ],
    };
    for i in 0..rng.usize(1..4) {
        let agg = word(rng, &["concurrent", "duration_in_state"]);
        *yaml += &format!("  c{i}: {{ agg: {agg}, {} }}\n", pick(rng, spans));
    }
    *yaml += "  rows: { agg: count }\n";
    if chance(rng, 60) {
        over(rng, &windows, "rows", yaml);
    }
    finish(rng, theme, &windows, yaml);
}

/// Rows of an entity, which last from their first event to their last.
fn over_entity(rng: &mut fastrand::Rng, theme: &Theme, index: usize, model: &Model, yaml: &mut String) {
    let key = word(rng, &["k1", "k2", "n"]);
    head(yaml, "Entity", &format!("thing{index}"));
    *yaml += &format!("key: {key}\nevents: [{}]\nfields:\n  touched: {{ count: \"*\" }}\n", model.name);
    head(yaml, "Metric", &format!("m{index}"));
    *yaml += &format!("entity: thing{index}\n");
    if chance(rng, 40) {
        let max = room(rng, theme);
        *yaml += &format!("dimensions:\n  d0: {{ from: {key}, max: {max}, overflow: refuse }}\n");
    }
    let windows = lasting_windows(rng, theme);
    *yaml += "measures:\n  c0: { agg: concurrent, start: first_time, end: \"nullif(time, first_time)\" }\n";
    *yaml += "  c1: { agg: duration_in_state, start: first_time, end: time, where: touched > 1 }\n";
    *yaml += "  rows: { agg: count }\n";
    finish(rng, theme, &windows, yaml);
}

/// A `max`: little, sometimes.
fn room(rng: &mut fastrand::Rng, theme: &Theme) -> usize {
    if theme.later && chance(rng, 60) { rng.usize(1..4) } else { 1000 }
}

fn qualified(name: &str, columns: &[Column]) -> Vec<Column> {
    columns.iter().map(|column| Column { name: format!("{name}.{}", column.name), t: column.t }).collect()
}

fn enrich(rng: &mut fastrand::Rng, tables: &[TableModel], columns: &mut Vec<Column>, yaml: &mut String) {
    let mut lines = String::new();
    for table in tables {
        let mut options = format!("table: {0}, match: \"s.{1} = {0}.{1}\"", table.name, table.key);
        for (key, words) in
            [("as_of", &["event", "now", "now"][..]), ("missing", &["keep", "keep", "drop", "hold"])]
        {
            if chance(rng, 80) {
                options += &format!(", {key}: {}", word(rng, words));
            }
        }
        lines += &format!("  {}: {{ {options} }}\n", table.name);
        columns.extend(qualified(table.name, &table.columns));
    }
    if !lines.is_empty() {
        *yaml += &format!("enrich:\n{lines}");
    }
}

/// What key and state are, if there is a state.
fn sequence(rng: &mut fastrand::Rng, columns: &[Column], yaml: &mut String) -> (T, Option<T>) {
    let has = |name: &str| columns.iter().any(|column| column.name == name);
    let fit = |all: &[(&'static str, T)]| -> Vec<(&'static str, T)> {
        all.iter().filter(|(sql, _)| has(sql.split(' ').next().unwrap_or(sql))).copied().collect()
    };
    let keys =
        fit(&[("s.k1", T::Text), ("s.k1", T::Text), ("s.k2", T::Text), ("s.n", T::Int), ("s.flag", T::Bool)]);
    let states = fit(&[
        ("s.k2", T::Text),
        ("s.k2", T::Text),
        ("s.region", T::Text),
        ("s.n", T::Int),
        ("s.k1", T::Text),
        ("owners.team", T::Text),
        ("owners.team", T::Text),
        ("teams.org", T::Text),
    ]);
    let conditions = fit(&[
        ("s.qty > 6", T::Bool),
        ("s.qty % 3 = 0", T::Bool),
        ("s.k2 = 'x'", T::Bool),
        ("s.k2 = 'b'", T::Bool),
        ("s.flag", T::Bool),
        ("s.n = 0", T::Bool),
        ("s.k1 IS NULL OR s.n = 1", T::Bool),
        ("owners.weight > 5", T::Bool),
        ("owners.team = 'x'", T::Bool),
        ("teams.org IS NULL", T::Bool),
    ]);
    let (key, key_type) = *pick(rng, &keys);
    let mut options = format!("key: {key}");
    if chance(rng, 50) {
        options = format!("of: s, {options}");
    }
    let state = chance(rng, 75).then(|| *pick(rng, &states));
    if let Some((state, _)) = state {
        options += &format!(", state: {state}");
    }
    for side in ["start", "end"] {
        if state.is_none() || chance(rng, if side == "end" { 85 } else { 60 }) {
            options += &format!(", {side}: \"{}\"", pick(rng, &conditions).0);
        }
    }
    *yaml += &format!("sequence: {{ {options} }}\n");
    (key_type, state.map(|(_, t)| t))
}

/// The columns of each kind of row.
fn kinds(key: T, state: Option<T>) -> Vec<(&'static str, Vec<Column>)> {
    const ALL: [(&str, &[&str]); 3] = [
        ("interval", &["key", "state", "next", "start", "end", "dwell", "entered"]),
        ("item", &["key", "dwell", "entered", "done"]),
        ("passed", &["key", "state", "next", "start", "end", "dwell", "entered", "done"]),
    ];
    let of = |kind: &str, names: &[&str]| {
        let column = |name: &&str| {
            let t = match *name {
                "key" => Some(key),
                "state" | "next" => state,
                "dwell" => Some(T::Dur),
                _ => Some(T::Ts),
            };
            Some(Column { name: format!("{kind}.{name}"), t: t? })
        };
        names.iter().filter_map(column).collect()
    };
    ALL.iter().map(|(kind, names)| (*kind, of(kind, names))).collect()
}

/// Is one of them the state?
fn dimensions(
    rng: &mut fastrand::Rng,
    columns: &[Column],
    (state, narrow): (Option<T>, bool),
    yaml: &mut String,
) -> bool {
    let mut lines = String::new();
    let mut by_state = false;
    for i in 0..rng.usize(..3) {
        let fit: Vec<&Column> = columns.iter().filter(|c| matches!(c.t, T::Text | T::Int)).collect();
        let mut column = (*pick(rng, &fit)).clone();
        if let Some(t) = state
            && chance(rng, 25)
        {
            column = Column { name: "interval.state".into(), t };
            by_state = true;
        }
        let max = if narrow && chance(rng, 50) { rng.usize(1..4) } else { 1000 };
        let overflow = if column.t == T::Text { "" } else { ", overflow: refuse" };
        lines += &format!("  d{i}: {{ from: {}, max: {max}{overflow} }}\n", column.name);
    }
    if !lines.is_empty() {
        *yaml += &format!("dimensions:\n{lines}");
    }
    by_state
}

fn lasting_windows(rng: &mut fastrand::Rng, theme: &Theme) -> String {
    loop {
        let all = windows(rng, theme);
        let kept: String =
            all.lines().filter(|line| !line.contains("session")).map(|l| format!("{l}\n")).collect();
        if !kept.is_empty() {
            return kept;
        }
    }
}

fn lasting(
    rng: &mut fastrand::Rng,
    theme: &Theme,
    scope: &Scope,
    (state, last): (Option<T>, usize),
    yaml: &mut String,
) {
    let mut counts = 0;
    for i in 0..last {
        let agg = word(rng, &["concurrent", "duration_in_state"]);
        let mut options = format!("agg: {agg}");
        if chance(rng, 40)
            && let Some(filter) = scope.condition(rng)
        {
            options += &format!(", where: \"{filter}\"");
        }
        match rng.u8(..8) {
            0 => options += ", of: passed",
            1 => options += ", of: item, start: item.entered, end: item.done",
            2 if theme.later => {
                let ends = [
                    "start: s.time, end: \"s.time + INTERVAL '10 minutes'\"",
                    "start: \"s.time + INTERVAL '5 minutes'\", end: \"s.time + INTERVAL '1 day'\"",
                    "start: \"s.time - INTERVAL '10 days'\", end: \"nullif(s.time, s.time)\"",
                ];
                options += &format!(", of: s, {}", pick(rng, &ends));
            }
            2 => options += ", of: s, start: \"s.time - INTERVAL '10 minutes'\", end: s.time",
            3 => options += ", start: interval.entered",
            4 | 5 if state == Some(T::Text) && agg == "duration_in_state" => options += ", state: a",
            _ => {}
        }
        // A condition over intervals says nothing about rows of another kind.
        if options.contains("of:") && options.contains("where") {
            options =
                options.replace("interval.", if options.contains("of: passed") { "passed." } else { "s." });
            if options.contains("of: item") || options.contains("of: s,") {
                let (head, tail) = options.split_once(", where").expect("a condition");
                let of = tail.find(", of:").expect("`of`");
                options = format!("{head}{}", &tail[of..]);
            }
        }
        *yaml += &format!("  c{i}: {{ {options} }}\n");
        if agg == "concurrent" {
            counts += 1;
            if counts == 1 {
                *yaml += &format!("  ago: {{ shift: c{i}, by: {} }}\n", pick(rng, &["1h", "30m", "1d"]));
            }
        }
    }
    if chance(rng, 50) {
        *yaml +=
            "  oldest: { agg: min, value: interval.start, where: \"interval.end IS NULL\", hidden: true }\n";
        *yaml += "  age: { expr: \"as_of() - oldest\" }\n";
    }
}

/// One or two measures over the last windows of a kind.
fn over(rng: &mut fastrand::Rng, windows: &str, also: &'static str, yaml: &mut String) {
    for i in 0..rng.usize(1..3) {
        let lines: Vec<&str> = windows.lines().collect();
        let window = *pick(rng, &lines);
        let name = window.trim().split(':').next().expect("a name");
        let follows = window.contains("tumbling") || window.contains("to_date");
        let last = if follows { rng.usize(1..6) } else { 1 };
        let lasting = yaml.rfind("  c0: {").is_some_and(|at| !yaml[at..].contains("kind: "));
        let of = if lasting && chance(rng, 30) { "c0" } else { word(rng, &["rows", "rows", also]) };
        let agg = word(
            rng,
            &["quantile, q: 0.5", "quantile, q: 0.9, method: lower", "avg", "min", "max", "sum", "count"],
        );
        let mut options = format!("over: {of}, window: {name}, last: {last}, agg: {agg}");
        if chance(rng, 30) {
            options += ", running: true";
        }
        if chance(rng, 40) {
            options += &format!(", before: {}", word(rng, &["zero", "absent"]));
        }
        *yaml += &format!("  o{i}: {{ {options} }}\n");
    }
}
