//! The keys all contracts share.
//!
//! *In*: nothing. *Out*: declared keys. *Never*: meaning.

use super::{Key, Names, Shape, Ty, key};

/// The only `apiVersion` there is.
const API_VERSION: &str = "streamgauge/v1";

pub(super) static HEAD: [Key; 11] = [
    key("apiVersion", Ty::OneOf(&[API_VERSION]), "Version of this language.").required(),
    key("kind", Ty::OneOf(&["Event", "Entity", "Table", "Metric"]), "What the document describes.")
        .required(),
    key("name", Ty::Name, "Name, unique within its kind; for an event the type in its envelope.").required(),
    key("version", Ty::Version, "Semantic version of the meaning, e.g. `1.0.0`.").required(),
    key(
        "status",
        Ty::OneOf(&["draft", "active", "deprecated", "retired"]),
        "Life cycle; `draft` and `retired` contracts are checked but not run.",
    )
    .default("active"),
    key("title", Ty::Text, "Short name for people.").default("the name"),
    key("description", Ty::Text, "What it says and how to read it."),
    key("owner", Ty::Object(&OWNER), "Who answers questions about it."),
    key("labels", Ty::Map(Names::Any, &Ty::Text), "Free labels."),
    key(
        "compat",
        Ty::OneOf(&["none", "backward", "forward", "full"]),
        "Which changes CI lets through without a new major version.",
    )
    .default("backward"),
    key("replaces", Ty::Text, "The contract this one takes over from: `name` or `name@1`."),
];

static OWNER: Shape = Shape {
    name: "Owner",
    doc: "Who answers questions.",
    groups: &[&[key("team", Ty::Text, "Team."), key("contact", Ty::Text, "Channel, address or page.")]],
};
