//! Shape of `kind: Table`.
//!
//! *In*: nothing. *Out*: declared keys. *Never*: meaning.

use super::event::FIELD;
use super::head::HEAD;
use super::{Key, Names, Shape, Ty, key};

pub(super) static TABLE: Shape = Shape {
    name: "Table",
    doc: "Reference data, to be put beside events by `enrich` of a metric.",
    groups: &[&HEAD, &TABLE_KEYS],
};

static TABLE_KEYS: [Key; 5] = [
    key("key", Ty::Text, "Field that identifies a row.").required(),
    key("fields", Ty::Map(Names::Column, &Ty::Object(&FIELD)), "The columns.").required(),
    key("source", Ty::Object(&SOURCE), "Where the rows come from."),
    key("valid_from", Ty::Text, "Field from which on a row holds, for `as_of: event`."),
    key("valid_to", Ty::Text, "Field until which a row holds (exclusive), for `as_of: event`."),
];

static SOURCE: Shape = Shape {
    name: "TableSource",
    doc: "Where a table's rows come from; exactly one of `file`, `event`, `http`.",
    groups: &[&[
        key("file", Ty::Text, "CSV, NDJSON or Parquet file."),
        key("event", Ty::Name, "Event contract whose events are the table's changes."),
        key("http", Ty::Text, "URL to fetch from."),
        key("every", Ty::Duration, "How often a file or URL is read again."),
    ]],
};
