//! Cases of shipped sets: commits, pushes, changes and deployments of few commits in few lines.
//!
//! *In*: a generator. *Out*: event types, metrics with `ships`, values of their fields. *Never*: a graph without
//! deployments; more commits than meet.

use super::super::contract::head;
use super::super::json::string;
use super::super::measure::measures;
use super::super::metric::{Scope, dimensions, finish, windows};
use super::super::{Column, T, Theme};
use super::{Feed, Grid, Model, chance, pick, word};
use crate::oracle::change::PLAIN;
use crate::oracle::zone::SECOND;

/// Commits are `c0` to this one; parents mostly have lesser numbers.
const COMMITS: u32 = 10;

type Fields = [(&'static str, &'static str, T)];

const COMMIT: [(&str, &str, T); 6] = [
    ("sha", "type: string", T::Text),
    ("other", "type: string", T::Text),
    ("repo", "type: string", T::Text),
    ("parents", "type: list, items: string", T::Nested),
    ("k1", "type: string", T::Text),
    ("qty", "type: int, max: 1000", T::Int),
];
const PUSH: [(&str, &str, T); 4] = [
    ("repo", "type: string", T::Text),
    ("before", "type: string", T::Text),
    ("shas", "type: list, items: string", T::Nested),
    ("qty", "type: int, max: 1000", T::Int),
];
const DEPLOY: [(&str, &str, T); 6] = [
    ("sha", "type: string", T::Text),
    ("repo", "type: string", T::Text),
    ("service", "type: string", T::Text),
    ("env", "type: string", T::Text),
    ("k1", "type: string", T::Text),
    ("flag", "type: bool", T::Bool),
];

/// Commits, pushes, deployments, and what follows a deployment: the aliases `a`, `p`, `b`, `d`.
pub(super) fn contracts(rng: &mut fastrand::Rng, yaml: &mut String) -> Vec<Model> {
    let commit = *pick(rng, &[("dev.commit", Feed::Plain), ("dev.commit", Feed::Plain), (PLAIN, Feed::Rows)]);
    let deploys =
        [("dev.deploy", Feed::Plain), ("dev.deploy", Feed::Plain), ("cdc.shop.public.jobs", Feed::Debezium)];
    let deploy = *pick(rng, &deploys);
    vec![
        model(rng, commit, &COMMIT, yaml),
        model(rng, ("dev.push", Feed::Plain), &PUSH, yaml),
        model(rng, deploy, &DEPLOY, yaml),
    ]
}

fn model(rng: &mut fastrand::Rng, (name, feed): (&str, Feed), own: &Fields, yaml: &mut String) -> Model {
    let mut model = Model {
        name: name.to_string(),
        feed,
        fields: Vec::new(),
        key: None,
        also: None,
        ids: true,
        timed: false,
        columns: Vec::new(),
    };
    head(yaml, "Event", name);
    let mut lines = String::new();
    if feed != Feed::Plain {
        model.key = Some("id");
        *yaml += "changelog: true\nkey: id\n";
        lines += "  id: { type: string, required: true }\n";
        model.fields.push(("id", "id"));
        if chance(rng, 60) {
            model.timed = true;
            *yaml += "time: created\n";
            lines += "  created: { type: timestamp }\n";
            model.fields.push(("created", "created"));
        }
    }
    for (name, options, t) in own {
        lines += &format!("  {name}: {{ {options} }}\n");
        model.fields.push((name, name));
        if *t != T::Nested {
            model.columns.push(Column { name: (*name).into(), t: *t });
        }
    }
    model.columns.push(Column { name: "time".into(), t: T::Ts });
    *yaml += &format!("fields:\n{lines}");
    model
}

/// The JSON text of a field of this kind, beside what the row has so far; none: it is of another kind.
pub(super) fn value(rng: &mut fastrand::Rng, kind: &str, row: &[(&'static str, String)]) -> Option<String> {
    let number = |name: &str| {
        let text = row.iter().find(|(own, _)| *own == name).map(|(_, text)| text.as_str());
        text.and_then(|text| text.trim_matches('"').strip_prefix('c')?.parse::<u32>().ok())
    };
    let commit = |number: u32| string(&format!("c{number}"));
    Some(match kind {
        "sha" | "other" | "before" => commit(rng.u32(..COMMITS)),
        "repo" => string(word(rng, &["r1", "r1", "r1", "r1", "r2"])),
        "service" => string(word(rng, &["s1", "s1", "s1", "s2"])),
        "env" => string(word(rng, &["prod", "prod", "prod", "eu"])),
        "parents" => {
            let own = number("sha").unwrap_or(5);
            let parent = |rng: &mut fastrand::Rng| match rng.u32(..40) {
                0 => commit(rng.u32(..COMMITS)),
                1 => "null".to_string(),
                _ => commit(own.saturating_sub(rng.u32(1..4))),
            };
            let parents: Vec<String> = (0..*pick(rng, &[0, 1, 1, 1, 2, 2, 3])).map(|_| parent(rng)).collect();
            format!("[{}]", parents.join(","))
        }
        "shas" => {
            let mut last = number("before").unwrap_or_else(|| rng.u32(..COMMITS));
            let mut shas = Vec::new();
            for _ in 0..rng.usize(..4) {
                last += rng.u32(1..3);
                shas.push(commit(last));
            }
            format!("[{}]", shas.join(","))
        }
        _ => return None,
    })
}

/// One or two metrics.
pub(super) fn metrics(
    rng: &mut fastrand::Rng,
    theme: &Theme,
    grid: Grid,
    models: &[Model],
    yaml: &mut String,
) {
    for i in 0..rng.usize(1..3) {
        metric(rng, theme, grid, i, models, yaml);
    }
}

fn metric(
    rng: &mut fastrand::Rng,
    theme: &Theme,
    grid: Grid,
    index: usize,
    models: &[Model],
    yaml: &mut String,
) {
    head(yaml, "Metric", &format!("m{index}"));
    let [commit, push, deploy] = models else { panic!("three event types") };
    let (has_push, follows, goes_before) = (chance(rng, 60), chance(rng, 30), chance(rng, 15));
    let mut aliases: Vec<(&str, &Model, &str)> = vec![
        ("a", commit, word(rng, &["", "", "", "a.qty <> 3", "sha <> 'c4'"])),
        ("b", deploy, word(rng, &["", "", "", "b.flag", "b.env <> 'eu'", "b.service IS NOT NULL"])),
    ];
    if has_push {
        aliases.push(("p", push, word(rng, &["", "", "p.qty % 3 <> 0"])));
    }
    if follows {
        aliases.push(("d", deploy, ""));
    }
    if goes_before {
        aliases.push(("e", commit, ""));
    }
    *yaml += "events:\n";
    for (name, model, filter) in &aliases {
        let filter = if filter.is_empty() { String::new() } else { format!(", where: \"{filter}\"") };
        *yaml += &format!("  {name}: {{ type: {}{filter} }}\n", model.name);
    }
    *yaml += "join:\n";
    let within = |rng: &mut fastrand::Rng| {
        let steps = *pick(rng, &[3, 6, 20, 100, 100]);
        format!("{}s", grid.step * steps / SECOND)
    };
    let mut joined = vec!["a", "b"];
    if goes_before {
        let within = within(rng);
        *yaml += &format!(
            "  - {{ from: e, to: a, match: e.k1 = a.k1, order: any, pick: last, within: {within} }}\n"
        );
        joined.insert(0, "e");
    }
    let near = within(rng);
    *yaml += &ship(rng, grid, has_push, &near);
    if follows {
        let within = within(rng);
        *yaml += &format!("  - {{ from: b, to: d, match: b.k1 = d.k1, strict: true, within: {within} }}\n");
        joined.push("d");
    }
    let (all, scopes) = scopes(&aliases, &joined);
    dimensions(rng, &all, yaml);
    let windows = windows(rng, theme);
    measures(rng, theme, &all, &scopes, yaml);
    *yaml += "  rows: { agg: count }\n";
    finish(rng, theme, &windows, yaml);
}

/// What measures of the joined rows see, and those of each alias.
fn scopes(aliases: &[(&str, &Model, &str)], joined: &[&str]) -> (Scope, Vec<Scope>) {
    let columns = |name: &str| -> Vec<Column> {
        let model = aliases.iter().find(|alias| alias.0 == name).expect("an alias").1;
        model.columns.iter().map(|c| Column { name: format!("{name}.{}", c.name), t: c.t }).collect()
    };
    let scope = |name: &str| Scope { alias: None, of: Some(name.to_string()), columns: columns(name) };
    let scopes: Vec<Scope> = aliases.iter().map(|(name, ..)| scope(name)).collect();
    let mut all: Vec<Column> = joined.iter().flat_map(|name| columns(name)).collect();
    all.push(Column { name: "(b.time - a.time)".into(), t: T::Dur });
    (Scope { alias: None, of: None, columns: all }, scopes)
}

fn ship(rng: &mut fastrand::Rng, grid: Grid, has_push: bool, within: &str) -> String {
    let own = "{ of: a, sha: a.sha, parents: a.parents }".to_string();
    let pushes = "{ of: p, graph: p.repo, before: p.before, commits: p.shas }".to_string();
    let history = match (has_push, rng.u32(..4)) {
        (false, _) => own,
        (true, 0) => pushes,
        (true, _) => format!("{own}, {pushes}"),
    };
    let commit = word(
        rng,
        &["a.sha", "a.sha", "[a.sha, a.other]", "[a.other, a.sha]", "\"coalesce(a.sha, a.other)\""],
    );
    let line = word(
        rng,
        &["[b.service, b.env]", "[b.service, b.env]", "b.service", "[]", "\"coalesce(b.env, 'none')\""],
    );
    let line = if chance(rng, 15) { String::new() } else { format!("line: {line}, ") };
    let cold = match rng.u32(..4) {
        0 => "cold_start: skip, ".to_string(),
        1 => "cold_start: all, ".to_string(),
        2 => format!("cold_start: {}s, ", grid.step * rng.i64(0..5) / SECOND),
        _ => String::new(),
    };
    let equal = word(
        rng,
        &["a.repo = b.repo", "a.repo = b.repo", "b.repo = a.repo", "a.repo = b.repo AND a.k1 = b.k1"],
    );
    // A push says nothing of `k1`: it is taken for one of the graph of `a`.
    let both = "graph: [p.repo, \"CASE WHEN p.repo IS NULL THEN 'b' ELSE 'a' END\"]";
    let history = if equal.contains("AND") { history.replace("graph: p.repo", both) } else { history };
    format!(
        "  - {{ from: a, to: b, match: \"{equal}\", within: {within}, ships: {{ commit: {commit}, head: b.sha, {line}{cold}history: [{history}] }} }}\n"
    )
}
