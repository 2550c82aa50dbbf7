//! Metrics over rows that relate.
//!
//! *In*: models of events and tables. *Out*: YAML of one to three metrics. *Never*: a name that could
//! mean two aliases; a partner that comes before the one it is joined to.

use super::super::contract::head;
use super::super::measure::measures;
use super::super::metric::{Scope, common, dimensions, finish, windows};
use super::super::{Column, T, Theme};
use super::{Grid, Model, TableModel, chance, pick, word};
use crate::oracle::zone::SECOND;

/// Conditions that most rows pass, and rows pass and fail as they change: a column, a condition.
const FILTERS: [(&str, &str); 8] = [
    ("k1", "{}k1 <> 'c'"),
    ("k2", "{}k2 IS NOT NULL"),
    ("n", "{}n < 3"),
    ("qty", "{}qty > 2"),
    ("qty", "{}qty % 3 <> 0 OR {}qty IS NULL"),
    ("flag", "NOT {}flag"),
    ("region", "{}region <> 'eu'"),
    ("time", "{}time IS NOT NULL"),
];

/// An alias under construction.
struct Alias {
    name: &'static str,
    /// Without a qualifier.
    columns: Vec<Column>,
}

/// An entry of `enrich`.
struct Lookup {
    /// Its name and the alias, `row` or table that its match is about.
    name: &'static str,
    about: String,
    columns: Vec<Column>,
}

/// One to three metrics.
pub(super) fn metrics(
    rng: &mut fastrand::Rng,
    theme: &Theme,
    grid: Grid,
    models: &[Model],
    tables: &[TableModel],
    yaml: &mut String,
) {
    for i in 0..rng.usize(1..4) {
        metric(rng, theme, grid, i, models, tables, yaml);
    }
}

fn metric(
    rng: &mut fastrand::Rng,
    theme: &Theme,
    grid: Grid,
    index: usize,
    models: &[Model],
    tables: &[TableModel],
    yaml: &mut String,
) {
    head(yaml, "Metric", &format!("m{index}"));
    *yaml += "events:\n";
    let streams: Vec<&Model> = models.iter().filter(|model| !model.columns.is_empty()).collect();
    let aliases: Vec<Alias> = ["a", "b", "c", "d"]
        .into_iter()
        .take(rng.usize(1..5))
        .map(|name| alias(rng, name, &streams, yaml))
        .collect();
    let joined =
        if aliases.len() > 1 && chance(rng, 75) { join(rng, grid, &aliases, yaml) } else { Vec::new() };
    let lookups = enrich(rng, &aliases, &joined, tables, yaml);
    let scopes: Vec<Scope> = aliases
        .iter()
        .map(|alias| Scope {
            alias: None,
            of: Some(alias.name.to_string()),
            columns: with_tables(qualified(&[alias]), &[alias.name, "row"], &lookups),
        })
        .collect();
    let all = if joined.is_empty() {
        let columns = match aliases.as_slice() {
            [one] if chance(rng, 50) => qualified(&[one]),
            _ => common(aliases.iter().map(|alias| alias.columns.as_slice())),
        };
        // Rows of one alias have nulls for the columns of the others.
        let columns = if chance(rng, 30) { qualified(&aliases.iter().collect::<Vec<_>>()) } else { columns };
        let heads: Vec<&str> = if aliases.len() == 1 { vec![aliases[0].name, "row"] } else { vec!["row"] };
        Scope { alias: None, of: None, columns: with_tables(columns, &heads, &lookups) }
    } else {
        let parts: Vec<&Alias> = aliases.iter().filter(|alias| joined.contains(&alias.name)).collect();
        let mut columns = qualified(&parts);
        for pair in joined.windows(2) {
            columns.push(Column { name: format!("({}.time - {}.time)", pair[1], pair[0]), t: T::Dur });
        }
        Scope { alias: None, of: None, columns: with_tables(columns, &joined, &lookups) }
    };
    dimensions(rng, &all, yaml);
    let windows = windows(rng, theme);
    measures(rng, theme, &all, &scopes, yaml);
    finish(rng, theme, &windows, yaml);
}

fn alias(rng: &mut fastrand::Rng, name: &'static str, streams: &[&Model], yaml: &mut String) -> Alias {
    let first = *pick(rng, streams);
    let mut models = vec![first];
    if chance(rng, 20) {
        models.extend(streams.iter().filter(|model| model.name != first.name).take(1));
    }
    let mut columns =
        if chance(rng, 50) { union(&models) } else { common(models.iter().map(|m| m.columns.as_slice())) };
    let mut options = match models.as_slice() {
        [one] => format!("type: {}", one.name),
        several => {
            let names: Vec<&str> = several.iter().map(|model| model.name.as_str()).collect();
            format!("type: [{}]", names.join(", "))
        }
    };
    if models.iter().all(|model| model.versioned()) && chance(rng, 30) {
        options += ", changelog: true";
    }
    if chance(rng, 20) {
        options += ", fields: { also_n: n }";
        columns.push(Column { name: "also_n".into(), t: T::Int });
    }
    if chance(rng, 40) {
        let fit: Vec<&str> =
            FILTERS.iter().filter(|(of, _)| columns.iter().any(|c| c.name == *of)).map(|f| f.1).collect();
        let prefix = if chance(rng, 50) { format!("{name}.") } else { String::new() };
        options += &format!(", where: \"{}\"", pick(rng, &fit).replace("{}", &prefix));
    }
    *yaml += &format!("  {name}: {{ {options} }}\n");
    Alias { name, columns }
}

/// Columns that some of the models have, and none in another type.
fn union(models: &[&Model]) -> Vec<Column> {
    let mut all: Vec<Column> = Vec::new();
    for column in models.iter().flat_map(|model| &model.columns) {
        if !all.contains(column) {
            all.push(column.clone());
        }
    }
    let names: Vec<String> = all.iter().map(|column| column.name.clone()).collect();
    all.retain(|column| names.iter().filter(|name| **name == column.name).count() == 1);
    all
}

/// The aliases that are joined, in order.
fn join(rng: &mut fastrand::Rng, grid: Grid, aliases: &[Alias], yaml: &mut String) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = aliases.iter().map(|alias| alias.name).collect();
    rng.shuffle(&mut names);
    if names.len() > 2 && chance(rng, 30) {
        names.pop();
    }
    *yaml += "join:\n";
    for at in 1..names.len() {
        let from = if chance(rng, 70) { names[at - 1] } else { word(rng, &names[..at]) };
        let to = names[at];
        let mut equal = equality(rng, from, to);
        if chance(rng, 20) {
            let other = word(rng, &names[..at]);
            equal = format!("{equal} AND {}", equality(rng, other, to));
        }
        let steps = *pick(rng, &[1, 2, 3, 6, 6, 20, 100]);
        let mut options =
            format!("from: {from}, to: {to}, match: \"{equal}\", within: {}s", grid.step * steps / SECOND);
        for (key, words) in [("pick", ["first", "last", "each"]), ("order", ["after", "before", "any"])] {
            if chance(rng, 75) {
                options += &format!(", {key}: {}", word(rng, &words));
            }
        }
        if chance(rng, 30) {
            options += ", strict: true";
        }
        *yaml += &format!("  - {{ {options} }}\n");
    }
    names
}

fn equality(rng: &mut fastrand::Rng, row: &str, to: &str) -> String {
    const SIDES: [(&str, &str); 8] = [
        ("{}.k1", "{}.k1"),
        ("{}.k1", "{}.k1"),
        ("{}.k2", "{}.k2"),
        ("{}.k2", "{}.k1"),
        ("lower({}.k1)", "{}.k1"),
        ("coalesce({}.k1, 'b')", "{}.k2"),
        ("{}.n", "{}.n"),
        ("{}.n + 1", "{}.n"),
    ];
    let (left, right) = *pick(rng, &SIDES);
    let (left, right) = (left.replace("{}", row), right.replace("{}", to));
    if chance(rng, 30) { format!("{right} = {left}") } else { format!("{left} = {right}") }
}

fn enrich(
    rng: &mut fastrand::Rng,
    aliases: &[Alias],
    joined: &[&'static str],
    tables: &[TableModel],
    yaml: &mut String,
) -> Vec<Lookup> {
    let mut lookups: Vec<Lookup> = Vec::new();
    let mut lines = String::new();
    for table in tables {
        if !chance(rng, 75) {
            continue;
        }
        let chained = table.name == "teams" && lookups.iter().any(|lookup| lookup.name == "owners");
        let (about, column) = if chained && chance(rng, 60) {
            ("owners".to_string(), "team")
        } else if joined.is_empty() && chance(rng, 60) {
            ("row".to_string(), table.key)
        } else {
            (pick(rng, aliases).name.to_string(), table.key)
        };
        let side = word(rng, &["{}", "{}", "lower({})"]).replace("{}", &format!("{about}.{column}"));
        let mut equal = format!("{side} = {}.{}", table.name, table.key);
        if about != "owners" && table.name == "owners" && chance(rng, 10) {
            equal += &format!(" AND {about}.n = owners.weight");
        }
        let mut options = format!("table: {}, match: \"{equal}\"", table.name);
        for (key, words) in
            [("as_of", &["event", "event", "now"][..]), ("missing", &["keep", "drop", "hold", "fail"])]
        {
            if chance(rng, 80) {
                options += &format!(", {key}: {}", word(rng, words));
            }
        }
        lines += &format!("  {}: {{ {options} }}\n", table.name);
        lookups.push(Lookup { name: table.name, about, columns: table.columns.clone() });
    }
    if !lines.is_empty() {
        *yaml += &format!("enrich:\n{lines}");
    }
    lookups
}

fn qualified(aliases: &[&Alias]) -> Vec<Column> {
    let columns = aliases.iter().flat_map(|alias| {
        alias
            .columns
            .iter()
            .map(move |column| Column { name: format!("{}.{}", alias.name, column.name), t: column.t })
    });
    columns.collect()
}

/// The columns, and those of the tables that rows of `heads` are matched with.
fn with_tables(mut columns: Vec<Column>, heads: &[&str], lookups: &[Lookup]) -> Vec<Column> {
    let mut known: Vec<&str> = heads.to_vec();
    for lookup in lookups {
        if known.contains(&lookup.about.as_str()) {
            known.push(lookup.name);
            let own = lookup.columns.iter();
            columns.extend(
                own.map(|column| Column { name: format!("{}.{}", lookup.name, column.name), t: column.t }),
            );
        }
    }
    columns
}
