//! Entities over change streams, beside plain events.
//!
//! *In*: models of events. *Out*: YAML of an entity and of a metric over it. *Never*: a column of two types.

use super::super::contract::head;
use super::super::entity::EntityModel;
use super::super::{Column, T, Theme, chance, pick};
use super::Model;

/// Perhaps an entity, and perhaps a metric over it.
pub(super) fn entity(rng: &mut fastrand::Rng, theme: &Theme, models: &[Model], yaml: &mut String) {
    let streams: Vec<&Model> = models.iter().filter(|model| !model.columns.is_empty()).collect();
    if !streams.iter().any(|model| model.versioned()) || !chance(rng, 60) {
        return;
    }
    let kept: Vec<&Model> =
        streams.iter().copied().filter(|model| model.versioned() || chance(rng, 50)).collect();
    let names: Vec<&str> = kept.iter().map(|model| model.name.as_str()).collect();
    let key = *pick(rng, &["k1", "k1", "k2", "n"]);
    head(yaml, "Entity", "thing");
    *yaml += &format!("key: {key}\nevents: [{}]\n", names.join(", "));
    // Rows of change streams are all remembered; of plain events only so many can be asked about the past.
    if kept.iter().all(|model| model.versioned()) && chance(rng, 50) {
        *yaml += &format!("history: {}\n", pick(rng, &[1, 3, 20]));
    }
    *yaml += "fields:\n";
    let mut columns = vec![Column { name: key.to_string(), t: T::Text }];
    let mut known: Vec<&Column> = kept.iter().flat_map(|model| &model.columns).collect();
    known.sort_by(|a, b| a.name.cmp(&b.name));
    known.dedup();
    for (i, column) in known.iter().enumerate() {
        let alone = known.iter().filter(|other| other.name == column.name).count() == 1;
        if !alone || !chance(rng, 60) {
            continue;
        }
        let folds: &[&str] = match column.t {
            T::Int | T::Dec | T::Float => &["first", "last", "sum", "sum", "min", "max", "count", "set"],
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
    if chance(rng, 70) {
        let model = EntityModel { name: "thing".to_string(), columns };
        super::super::metric::entity_metric(rng, theme, &model, yaml);
    }
}
