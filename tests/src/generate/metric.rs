//! Random metrics.
//!
//! *In*: event and entity models. *Out*: YAML of one to three metrics. *Never*: sums that could leave
//! their type; windows longer than what is retained.

use super::contract::head;
use super::entity::EntityModel;
use super::measure::measures;
use super::{Column, EventModel, T, Theme, chance, pick};

/// What a metric reads: prefix for its columns (`order.` or nothing), the columns.
pub(super) struct Scope {
    /// Alias, when there is exactly one to qualify with.
    pub(super) alias: Option<String>,
    /// What a measure over this scope is `of`.
    pub(super) of: Option<String>,
    /// Columns that every row has.
    pub(super) columns: Vec<Column>,
}

impl Scope {
    /// A column of one of the types, as an expression.
    pub(super) fn column(&self, rng: &mut fastrand::Rng, types: &[T]) -> Option<(String, T)> {
        let fit: Vec<&Column> = self.columns.iter().filter(|c| types.contains(&c.t)).collect();
        if fit.is_empty() {
            return None;
        }
        let column = *pick(rng, &fit);
        let name = match &self.alias {
            Some(alias) if chance(rng, 30) => format!("{alias}.{}", column.name),
            _ => column.name.clone(),
        };
        Some((name, column.t))
    }

    /// A condition over the columns.
    pub(super) fn condition(&self, rng: &mut fastrand::Rng) -> Option<String> {
        let (name, t) =
            self.column(rng, &[T::Text, T::Int, T::Dec, T::Float, T::Bool, T::Dur, T::Date, T::Ts])?;
        let fit: &[&str] = match t {
            T::Text => &[
                "{} IN ('eu', 'us', 'open')",
                "{} <> 'eu'",
                "{} LIKE '%u%'",
                "{} IS NOT NULL",
                "length({}) > 2",
            ],
            T::Int => &["{} > 3", "{} % 2 = 0", "{} BETWEEN 0 AND 50", "{} IS NULL OR {} < 7"],
            T::Dec => &["{} > 10.5", "{} * 2 < 150", "NOT {} = 9.90", "abs({}) >= 1"],
            T::Float => &["{} > 0.25", "{} <= 2"],
            T::Bool => &["{}", "NOT {}", "{} IS NULL"],
            T::Dur => &["{} <= INTERVAL '10 minutes'", "{} > INTERVAL '1 hour'"],
            T::Date => &["{} >= DATE '2026-06-01'"],
            _ => &["{} >= TIMESTAMP '2026-06-01T00:00:00Z'", "{} IS NOT NULL"],
        };
        Some(pick(rng, fit).replace("{}", &name))
    }
}

/// One to three metrics over events, and perhaps one over each entity.
pub(super) fn metrics(
    rng: &mut fastrand::Rng,
    theme: &Theme,
    models: &[EventModel],
    entities: &[EntityModel],
    yaml: &mut String,
) {
    for i in 0..rng.usize(1..4) {
        event_metric(rng, theme, models, i, yaml);
    }
    for entity in entities {
        if chance(rng, 70) {
            entity_metric(rng, theme, entity, yaml);
        }
    }
}

fn event_metric(
    rng: &mut fastrand::Rng,
    theme: &Theme,
    models: &[EventModel],
    index: usize,
    yaml: &mut String,
) {
    head(yaml, "Metric", &format!("m{index}"));
    *yaml += "events:\n";
    let count = rng.usize(1..=models.len().min(3));
    let mut order: Vec<usize> = (0..models.len()).collect();
    rng.shuffle(&mut order);
    let mut scopes = Vec::new();
    for (i, &m) in order[..count].iter().enumerate() {
        let alias = ["a", "b", "c"][i].to_string();
        // The last alias sometimes reads all remaining types.
        let types: Vec<&EventModel> = if i + 1 == count && chance(rng, 25) {
            order[i..].iter().map(|&m| &models[m]).collect()
        } else {
            vec![&models[m]]
        };
        let names: Vec<&str> = types.iter().map(|m| m.name.as_str()).collect();
        let mut columns = common(types.iter().map(|m| m.columns.as_slice()));
        let renames = if theme.rich { rename(rng, &types, &mut columns) } else { String::new() };
        let scope = Scope { alias: Some(alias.clone()), of: Some(alias.clone()), columns };
        let filter = chance(rng, 30).then(|| scope.condition(rng)).flatten();
        let filter = filter.map_or(String::new(), |f| format!(", where: \"{f}\""));
        let types = if names.len() == 1 { names[0].to_string() } else { format!("[{}]", names.join(", ")) };
        *yaml += &format!("  {alias}: {{ type: {types}{filter}{renames} }}\n");
        scopes.push(scope);
    }
    let columns = common(scopes.iter().map(|s| s.columns.as_slice()));
    let alias = if count == 1 { Some("a".to_string()) } else { None };
    let all = Scope { alias, of: None, columns };
    dimensions(rng, &all, yaml);
    let windows = windows(rng, theme);
    measures(rng, theme, &all, &scopes, yaml);
    finish(rng, theme, &windows, yaml);
    if theme.later && chance(rng, 40) {
        let at = all.column(rng, &[T::Ts]).map_or("time".to_string(), |(name, _)| name);
        let sql = pick(
            rng,
            &["{} + INTERVAL '10 minutes'", "{} + INTERVAL '1 hour'", "{}", "{} - INTERVAL '2 minutes'"],
        );
        counts_at(&format!("\"{}\", future: 900d", sql.replace("{}", &at)), yaml);
    }
}

/// Writes `time.column`.
fn counts_at(column: &str, yaml: &mut String) {
    // `finish` may have written the key already.
    match yaml.strip_suffix("time: { lateness: 1h, late: restate }\n").map(str::to_string) {
        Some(before) => {
            *yaml = format!("{before}time: {{ lateness: 1h, late: restate, column: {column} }}\n")
        }
        None => *yaml += &format!("time: {{ column: {column} }}\n"),
    }
}

pub(super) fn entity_metric(rng: &mut fastrand::Rng, theme: &Theme, entity: &EntityModel, yaml: &mut String) {
    head(yaml, "Metric", &format!("{}s", entity.name));
    *yaml += &format!("entity: {}\n", entity.name);
    let scope = Scope { alias: None, of: None, columns: entity.columns.clone() };
    if chance(rng, 30)
        && let Some(filter) = scope.condition(rng)
    {
        *yaml += &format!("where: \"{filter}\"\n");
    }
    dimensions(rng, &scope, yaml);
    let windows = windows(rng, theme);
    let theme = &Theme { approx: false, ..theme.clone() };
    measures(rng, theme, &scope, &[], yaml);
    let own = if theme.later { chance(rng, 50) } else { theme.rich && !theme.fresh && chance(rng, 30) };
    let column = if own { scope.column(rng, &[T::Ts]) } else { None };
    finish(rng, theme, &windows, yaml);
    // A field of the row rather than the times of its events, where there is one.
    let field =
        scope.columns.iter().find(|c| c.t == T::Ts && !["time", "first_time"].contains(&c.name.as_str()));
    let field = field.filter(|_| theme.later).map(|field| field.name.clone());
    if let Some((name, _)) = column {
        counts_at(&field.unwrap_or(name), yaml);
    }
}

/// Another name for a field that stands at the top of the payload, sometimes.
fn rename(rng: &mut fastrand::Rng, types: &[&EventModel], columns: &mut Vec<Column>) -> String {
    let plain = |column: &Column| {
        let at_top = |m: &&EventModel| m.fields.iter().any(|f| f.path == [column.name.clone()]);
        column.t != T::Nested && types.iter().all(at_top)
    };
    let fit: Vec<Column> = columns.iter().filter(|c| plain(c)).cloned().collect();
    if fit.is_empty() || !chance(rng, 30) {
        return String::new();
    }
    let column = pick(rng, &fit);
    let new = format!("also_{}", column.name);
    columns.push(Column { name: new.clone(), t: column.t });
    format!(", fields: {{ {new}: {} }}", column.name)
}

/// Columns that all of the sets have, with the same type.
pub(super) fn common<'a>(mut sets: impl Iterator<Item = &'a [Column]>) -> Vec<Column> {
    let first = sets.next().expect("at least one set").to_vec();
    sets.fold(first, |kept, set| kept.into_iter().filter(|c| set.contains(c)).collect())
}

pub(super) fn dimensions(rng: &mut fastrand::Rng, scope: &Scope, yaml: &mut String) {
    let mut lines = String::new();
    for i in 0..rng.usize(..4) {
        let Some((name, t)) = scope.column(rng, &[T::Text, T::Text, T::Bool, T::Int, T::Date]) else { break };
        let from = match t {
            T::Text => {
                pick(rng, &["{}", "{}", "{}", "lower({})", "coalesce({}, 'nobody')"]).replace("{}", &name)
            }
            T::Int => pick(rng, &["{}", "{} % 3", "CASE WHEN {} > 5 THEN 'many' ELSE 'few' END"])
                .replace("{}", &name),
            _ => name,
        };
        let text = t == T::Text || from.starts_with("CASE");
        let mut options = vec![format!("from: \"{from}\"")];
        if text && chance(rng, 50) {
            options.push(format!("max: {}", rng.usize(1..4)));
            options.push(format!("overflow: {}", pick(rng, &["other", "other", "refuse"])));
        } else {
            options.push("max: 1000".to_string());
            if !text {
                options.push("overflow: refuse".to_string());
            }
        }
        if text && chance(rng, 30) {
            options.push("default: none".to_string());
        }
        lines += &format!("  d{i}: {{ {} }}\n", options.join(", "));
    }
    if !lines.is_empty() {
        *yaml += &format!("dimensions:\n{lines}");
    }
}

/// One to four windows, as YAML lines.
pub(super) fn windows(rng: &mut fastrand::Rng, theme: &Theme) -> String {
    const ZONES: [&str; 6] = [
        "Europe/London",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Kolkata",
        "Pacific/Auckland",
        "Etc/UTC",
    ];
    let mut lines = String::new();
    for i in 0..rng.usize(1..5) {
        let zone = if chance(rng, 70) { theme.zone } else { pick(rng, &ZONES) };
        let window = match rng.u8(..7) {
            0 if theme.rich && chance(rng, 40) => {
                format!("tumbling: {}", pick(rng, &["10s", "90s", "2h", "12h", "11m", "250ms"]))
            }
            1 if theme.rich && chance(rng, 30) => {
                format!("tumbling: {}, tz: {zone}", pick(rng, &["5d", "14d", "30d", "28d"]))
            }
            2 if theme.rich && chance(rng, 40) => (*pick(
                rng,
                &[
                    "sliding: 91m, every: 7m",
                    "sliding: 1h, every: 1h",
                    "sliding: 30d, every: 6h",
                    "sliding: 5s, every: 500ms",
                ],
            ))
            .to_string(),
            3 if theme.rich && chance(rng, 40) => {
                format!("session: {}", pick(rng, &["1s", "45s", "24h", "7m", "3d"]))
            }
            0 => format!("tumbling: {}", pick(rng, &["1m", "5m", "15m", "1h", "6h", "7m"])),
            1 => format!("tumbling: {}, tz: {zone}", pick(rng, &["1d", "1d", "2d", "3d", "7d"])),
            2 => (*pick(
                rng,
                &[
                    "sliding: 1h, every: 1m",
                    "sliding: 24h, every: 1h",
                    "sliding: 7d, every: 1d",
                    "sliding: 10m, every: 10s",
                    "sliding: 36h, every: 30m",
                ],
            ))
            .to_string(),
            3 => format!("session: {}", pick(rng, &["5m", "30m", "2h"])),
            4 | 5 => format!(
                "to_date: {}, tz: {zone}",
                pick(rng, &["hour", "day", "week", "month", "quarter", "year"])
            ),
            _ => "all: true".to_string(),
        };
        lines += &format!("  w{i}: {{ {window} }}\n");
    }
    lines
}

pub(super) fn finish(rng: &mut fastrand::Rng, theme: &Theme, windows: &str, yaml: &mut String) {
    *yaml += &format!("windows:\n{windows}");
    if let Some(days) = theme.retain {
        *yaml += &format!("retain: {{ live: {days}d }}\n");
    }
    if chance(rng, 20) {
        *yaml += "time: { lateness: 1h, late: restate }\n";
    }
}
