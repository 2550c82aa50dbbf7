//! Random entities.
//!
//! *In*: event models. *Out*: YAML of up to two entities, and their columns. *Never*: a field that
//! mixes types.

use super::contract::head;
use super::{Column, EventModel, T, chance, pick};

/// An entity and the columns of its rows.
#[derive(Debug, Clone)]
pub(super) struct EntityModel {
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
}

/// Up to two entities.
pub(super) fn entities(
    rng: &mut fastrand::Rng,
    models: &[EventModel],
    yaml: &mut String,
) -> Vec<EntityModel> {
    let mut all = Vec::new();
    for (name, key) in [("person", "user_id"), ("amount", "qty")] {
        let feeds: Vec<&EventModel> =
            models.iter().filter(|m| m.columns.iter().any(|c| c.name == key)).collect();
        if !feeds.is_empty() && chance(rng, 35) {
            all.push(entity(rng, name, key, &feeds, yaml));
        }
    }
    all
}

fn entity(
    rng: &mut fastrand::Rng,
    name: &str,
    key: &str,
    feeds: &[&EventModel],
    yaml: &mut String,
) -> EntityModel {
    let types: Vec<&str> = feeds.iter().map(|m| m.name.as_str()).collect();
    head(yaml, "Entity", name);
    *yaml += &format!("key: {key}\nevents: [{}]\nfields:\n", types.join(", "));
    let mut columns = vec![Column { name: key.to_string(), t: T::Text }];
    let mut names: Vec<&Column> =
        feeds.iter().flat_map(|m| &m.columns).filter(|c| c.t != T::Nested).collect();
    names.sort_by(|a, b| a.name.cmp(&b.name));
    names.dedup();
    for (i, column) in names.into_iter().enumerate() {
        if !chance(rng, 45) {
            continue;
        }
        let folds: &[&str] = match column.t {
            T::Int | T::Dec | T::Float => &["first", "last", "sum", "min", "max", "count", "set"],
            T::Bool => &["first", "last", "count"],
            _ => &["first", "last", "min", "max", "count", "set"],
        };
        let fold = *pick(rng, folds);
        let field = format!("f{i}_{}", column.name);
        *yaml += &format!("  {field}: {{ {fold}: {} }}\n", column.name);
        let t = match fold {
            "count" => T::Int,
            "set" => T::Nested,
            _ => column.t,
        };
        columns.push(Column { name: field, t });
    }
    *yaml += "  touched: { count: \"*\" }\n";
    columns.push(Column { name: "touched".into(), t: T::Int });
    columns.push(Column { name: "first_time".into(), t: T::Ts });
    columns.push(Column { name: "time".into(), t: T::Ts });
    EntityModel { name: name.to_string(), columns }
}
