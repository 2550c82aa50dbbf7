//! What a contract may look like: one declaration per kind, from which checking, the editors' JSON
//! Schema and the reference are derived.
//!
//! *In*: nothing; it is a declaration. *Out*: [`Shape`]s, [`json_schema`], [`reference`], and the check of
//! a document against its shape. *Never*: a key that is checked but not documented, or the other way
//! round; meaning (names that resolve, expressions that type-check), which is `lower`'s part.

mod check;
mod entity;
mod event;
mod head;
mod metric;
mod reference;
mod schema;
mod table;

pub(crate) use check::check;
pub(crate) use entity::FOLDS;
pub(crate) use event::FIELD_TYPES;
pub(crate) use metric::AGGS;
pub use reference::reference;
pub use schema::json_schema;

/// The kinds of contracts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[allow(missing_docs)]
pub enum Kind {
    Event,
    Entity,
    Table,
    Metric,
}

impl Kind {
    /// All kinds, in the order they depend on each other.
    pub const ALL: [Kind; 4] = [Kind::Event, Kind::Entity, Kind::Table, Kind::Metric];

    /// The text after `kind:`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Event => "Event",
            Kind::Entity => "Entity",
            Kind::Table => "Table",
            Kind::Metric => "Metric",
        }
    }

    /// The kind of the text after `kind:`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == text)
    }

    /// Its declared shape.
    pub fn shape(self) -> &'static Shape {
        match self {
            Kind::Event => &event::EVENT,
            Kind::Entity => &entity::ENTITY,
            Kind::Table => &table::TABLE,
            Kind::Metric => &metric::METRIC,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A mapping with known keys.
#[derive(Debug)]
pub struct Shape {
    /// Name in the schema and the reference.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Its keys, in groups that shapes share.
    pub groups: &'static [&'static [Key]],
}

impl Shape {
    /// All keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.groups.iter().flat_map(|group| group.iter())
    }
}

/// One key of a [`Shape`].
#[derive(Debug)]
pub struct Key {
    /// As written.
    pub name: &'static str,
    /// What may stand after it.
    pub ty: Ty,
    /// Whether it must be there.
    pub required: bool,
    /// What holds without it, for people; empty: nothing.
    pub default: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// An optional key.
const fn key(name: &'static str, ty: Ty, doc: &'static str) -> Key {
    Key { name, ty, required: false, default: "", doc }
}

impl Key {
    /// The same key, required.
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }
    /// The same key with a default for the reference.
    const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }
}

/// What may stand after a key.
#[derive(Debug, Clone, Copy)]
pub enum Ty {
    /// Any text; plain numbers are taken as text.
    Text,
    /// The name of a contract: letters, digits, `_`, `-`, `.`, `/`.
    Name,
    /// `true` or `false`.
    Bool,
    /// A whole number of at least 0.
    Count,
    /// A number.
    Number,
    /// `1%` or `0.01`.
    Share,
    /// `500ms`, `30s`, `5m`, `24h`, `7d`.
    Duration,
    /// `1.2.3`.
    Version,
    /// An SQL expression.
    Expr,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list.
    List(&'static Ty),
    /// A mapping with names that the contract chooses.
    Map(Names, &'static Ty),
    /// A mapping with known keys.
    Object(&'static Shape),
    /// One of several.
    Either(&'static [Ty]),
    /// A number, text, boolean or null.
    Scalar,
    /// Anything.
    Any,
}

/// Which names a [`Ty::Map`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Names that expressions can use: letters, digits and `_`, not beginning with a digit.
    Column,
    /// Any text.
    Any,
}
