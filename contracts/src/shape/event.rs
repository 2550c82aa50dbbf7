//! Shape of `kind: Event`.
//!
//! *In*: nothing. *Out*: declared keys. *Never*: meaning.

use super::head::HEAD;
use super::{Key, Names, Shape, Ty, key};

pub(super) static EVENT: Shape = Shape {
    name: "Event",
    doc: "What may enter: the fields, checks, rules and computed columns of one event type.",
    groups: &[&HEAD, &EVENT_KEYS],
};

static EVENT_KEYS: [Key; 8] = [
    key(
        "key",
        Ty::Either(&[Ty::Text, Ty::List(&Ty::Text)]),
        "Field that is the partition and entity key; of a change stream the primary key, also of several fields.",
    ),
    key("time", Ty::Text, "Field that is the event time.").default("the envelope's time"),
    key("id", Ty::Text, "Field that is the dedupe key.").default("the envelope's id"),
    key("dedupe", Ty::Duration, "How long an id is remembered; `0s` turns it off.").default("24h"),
    key("fields", Ty::Map(Names::Column, &Ty::Object(&FIELD)), "The declared fields.").required(),
    key("rules", Ty::Map(Names::Column, &Ty::Object(&RULE)), "Semantic rules."),
    key("enrich", Ty::Map(Names::Column, &Ty::Expr), "Computed columns, usable everywhere below."),
    key("changelog", Ty::Bool, "A change stream: `before` retracts, `after` applies.").default("false"),
];

/// Names of the field types, for messages.
pub(crate) const FIELD_TYPES: &str =
    "string, bool, int, float, decimal(p,s), timestamp, date, list, struct, json";

pub(crate) static FIELD: Shape = Shape {
    name: "Field",
    doc: "One declared field.",
    groups: &[&[
        key(
            "type",
            Ty::Text,
            "`string`, `bool`, `int`, `float`, `decimal(p,s)`, `timestamp`, `date`, `list`, `struct` or `json`.",
        )
        .required(),
        key("required", Ty::Bool, "Refuse the event when the field is absent or null.")
            .default("false"),
        key("default", Ty::Scalar, "Used when the field is absent or null."),
        key("from", Ty::Text, "Path in the payload, e.g. `data.order.id`.").default("the name"),
        key("enum", Ty::List(&Ty::Text), "Allowed texts."),
        key("pattern", Ty::Text, "Regular expression the text must match (syntax of crate regex)."),
        key("min", Ty::Scalar, "Least allowed value; decimals are quoted."),
        key("max", Ty::Scalar, "Greatest allowed value; decimals are quoted."),
        key("min_length", Ty::Count, "Least number of characters or items."),
        key("max_length", Ty::Count, "Greatest number of characters or items."),
        key("fields", Ty::Map(Names::Column, &Ty::Object(&FIELD)), "Fields of a struct or of the items of a list."),
        key("items", Ty::Either(&[Ty::Text, Ty::Object(&FIELD)]), "Type of the items of a list of plain values."),
        key("pii", Ty::Bool, "Personal data: masked in logs, dead-letter lists and taps.")
            .default("false"),
        key("description", Ty::Text, "For people."),
        key("unit", Ty::Text, "For people."),
    ]],
};

static RULE: Shape = Shape {
    name: "Rule",
    doc: "A condition that no event may break; null passes.",
    groups: &[&[
        key("check", Ty::Expr, "Must not be false.").required(),
        key(
            "severity",
            Ty::OneOf(&["error", "warning"]),
            "`error` refuses the event, `warning` is counted and kept on the row.",
        )
        .default("error"),
        key("description", Ty::Text, "For people."),
    ]],
};
