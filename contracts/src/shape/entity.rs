//! Shape of `kind: Entity`.
//!
//! *In*: nothing. *Out*: declared keys. *Never*: meaning.

use super::head::HEAD;
use super::{Key, Names, Shape, Ty, key};

pub(super) static ENTITY: Shape = Shape {
    name: "Entity",
    doc: "The live row per key, folded from events in event-time order.",
    groups: &[&HEAD, &ENTITY_KEYS],
};

static ENTITY_KEYS: [Key; 4] = [
    key("key", Ty::Text, "Name of the key: a column (or expression) of every event.").required(),
    key("events", Ty::Either(&[Ty::Name, Ty::List(&Ty::Name)]), "The event types that move it.").required(),
    key(
        "fields",
        Ty::Map(Names::Column, &Ty::Object(&ENTITY_FIELD)),
        "How each field of the row follows its events; exactly one fold per field.",
    )
    .required(),
    key("history", Ty::Count, "How many events are remembered per key for `as_of` reads.").default("1000"),
];

/// The folds of an entity field.
pub(crate) const FOLDS: [&str; 7] = ["first", "last", "count", "sum", "min", "max", "set"];

static ENTITY_FIELD: Shape = Shape {
    name: "EntityField",
    doc: "One field of the live row. An event type that lacks a column of the expression does not touch the field.",
    groups: &[&[
        key("first", Ty::Expr, "The earliest non-null value."),
        key("last", Ty::Expr, "The latest non-null value; a late event never overwrites newer state."),
        key("count", Ty::Expr, "Number of non-null values; `*` counts events."),
        key("sum", Ty::Expr, "Exact sum."),
        key("min", Ty::Expr, "Least value."),
        key("max", Ty::Expr, "Greatest value."),
        key("set", Ty::Expr, "Distinct values, sorted."),
        key(
            "events",
            Ty::Either(&[Ty::Name, Ty::List(&Ty::Name)]),
            "Only these of the entity's events touch the field.",
        )
        .default("all"),
        key("description", Ty::Text, "For people."),
    ]],
};
