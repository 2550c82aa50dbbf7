//! How rows relate to each other, as the oracle reads it: tables, joins, lookups.
//!
//! *In*: valid contract YAML. *Out*: [`Table`], [`Join`], [`Lookup`]. *Never*: rows (see `rows`).

use super::ships::{Ships, ships};
use super::sql::{Ex, Op, parse};
use super::yaml::Node;
use super::zone::parse_duration;

/// `kind: Table`.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Table {
    pub name: String,
    pub key: String,
    pub fields: Vec<String>,
    pub valid_from: Option<String>,
    pub valid_to: Option<String>,
    /// The event type that feeds it.
    pub event: Option<String>,
}

/// Which partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Pick {
    First,
    Last,
    Each,
}

/// When the partner happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Order {
    After,
    Before,
    Any,
}

/// A step of `join`.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Join {
    pub from: String,
    pub to: String,
    /// What is equal: an expression over an alias that is there, one over `to`.
    pub pairs: Vec<(Ex, Ex)>,
    pub pick: Pick,
    pub order: Order,
    pub strict: bool,
    /// Microseconds.
    pub within: i64,
    pub ships: Option<Ships>,
}

/// What becomes of a row without a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Missing {
    Keep,
    Drop,
    Hold,
    Fail,
}

/// An entry of a metric's `enrich`.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Lookup {
    pub name: String,
    pub table: String,
    /// What is equal: an expression over the row so far, one over the table.
    pub pairs: Vec<(Ex, Ex)>,
    /// Else `as_of: now`.
    pub as_of_event: bool,
    pub missing: Missing,
}

/// A table document.
pub fn table(doc: &Node) -> Table {
    let text = |key: &str| doc.str(key).map(str::to_string);
    Table {
        name: text("name").expect("a name"),
        key: text("key").expect("a key"),
        fields: doc.entries("fields").iter().map(|(name, _)| name.clone()).collect(),
        valid_from: text("valid_from"),
        valid_to: text("valid_to"),
        event: doc.get("source").and_then(|source| source.str("event")).map(str::to_string),
    }
}

/// The steps of a metric document.
pub fn joins(doc: &Node) -> Vec<Join> {
    let Some(Node::Seq(steps)) = doc.get("join") else { return Vec::new() };
    steps.iter().map(join).collect()
}

fn join(node: &Node) -> Join {
    let to = node.str("to").expect("`to`").to_string();
    let within = node.str("within").and_then(parse_duration).expect("`within`");
    let pairs = pairs(node, &to);
    Join {
        from: node.str("from").expect("`from`").to_string(),
        ships: ships(node, &pairs),
        pairs,
        pick: match node.str("pick") {
            Some("last") => Pick::Last,
            Some("each") => Pick::Each,
            _ => Pick::First,
        },
        order: match node.str("order") {
            Some("before") => Order::Before,
            Some("any") => Order::Any,
            _ => Order::After,
        },
        strict: node.is_true("strict"),
        within,
        to,
    }
}

/// The lookups of a metric document, in contract order.
pub fn lookups(doc: &Node) -> Vec<Lookup> {
    doc.entries("enrich").iter().map(|(name, node)| lookup(name, node)).collect()
}

fn lookup(name: &str, node: &Node) -> Lookup {
    Lookup {
        name: name.to_string(),
        table: node.str("table").expect("`table`").to_string(),
        pairs: pairs(node, name),
        as_of_event: node.str("as_of") == Some("event"),
        missing: match node.str("missing") {
            Some("drop") => Missing::Drop,
            Some("hold") => Missing::Hold,
            Some("fail") => Missing::Fail,
            _ => Missing::Keep,
        },
    }
}

/// The equalities of `match`, each with the side over `name` second.
fn pairs(node: &Node, name: &str) -> Vec<(Ex, Ex)> {
    let mut equalities = Vec::new();
    conjuncts(parse(node.str("match").expect("`match`")), &mut equalities);
    equalities.into_iter().map(|ex| sides(ex, name)).collect()
}

fn conjuncts(ex: Ex, found: &mut Vec<Ex>) {
    match ex {
        Ex::Bin(Op::And, a, b) => {
            conjuncts(*a, found);
            conjuncts(*b, found);
        }
        other => found.push(other),
    }
}

/// The other side of an equality, and the one over `name`.
fn sides(equality: Ex, name: &str) -> (Ex, Ex) {
    let Ex::Bin(Op::Eq, a, b) = equality else { panic!("`match` is an equality, not {equality:?}") };
    let over = |ex: &Ex| {
        let mut found = Vec::new();
        ex.qualifiers(&mut found);
        found.iter().any(|qualifier| qualifier == name)
    };
    match (over(&a), over(&b)) {
        (false, true) => (*a, *b),
        (true, false) => (*b, *a),
        _ => panic!("one side of `match` is over {name}"),
    }
}
