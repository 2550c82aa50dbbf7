//! The common head, and the hash of a contract's meaning.
//!
//! *In*: a document. *Out*: [`Head`]. *Never*: layout, comments, texts for people or tests in the hash.

use sha2::{Digest, Sha256};

use crate::catalog::{Head, Status};
use crate::duration::parse_version;
use crate::shape::{Kind, Ty};
use crate::yaml::{Node, Yaml};

use super::Cx;

/// The head of `node`; what is wrong with it is the shape's to report.
pub(crate) fn head(cx: &Cx<'_>, node: &Node) -> Head {
    let text = |key: &str| node.get(key).and_then(Node::scalar).map(str::to_string);
    let name = text("name").unwrap_or_default();
    let owner =
        |key: &str| node.get("owner").and_then(|o| o.get(key)).and_then(Node::scalar).map(str::to_string);
    Head {
        version: text("version").and_then(|v| parse_version(&v)).unwrap_or_default(),
        status: match text("status").as_deref() {
            Some("draft") => Status::Draft,
            Some("deprecated") => Status::Deprecated,
            Some("retired") => Status::Retired,
            _ => Status::Active,
        },
        title: text("title").unwrap_or_else(|| name.clone()),
        description: text("description").unwrap_or_default(),
        team: owner("team"),
        contact: owner("contact"),
        labels: node
            .get("labels")
            .map(Node::entries)
            .unwrap_or_default()
            .iter()
            .filter_map(|e| Some((e.key.clone(), e.value.scalar()?.to_string())))
            .collect(),
        hash: String::new(),
        state: String::new(),
        file: cx.file.path.clone(),
        line: node.span.line,
        name,
    }
}

/// Keys that say nothing about what is computed. The version is a promise about it, not a part of it.
const NOT_MEANING: [&str; 10] = [
    "version",
    "title",
    "description",
    "owner",
    "labels",
    "tests",
    "status",
    "compat",
    "replaces",
    "apiVersion",
];

/// Keys that say nothing about the state that is held: they show it, judge it or say who may read it.
const NOT_STATE: [&str; 7] = ["better", "freshness", "levels", "slo", "alerts", "serve", "access"];

/// [`digest`] of what state is made of, in short; what it stands on is not in it.
pub(crate) fn of_state(node: &Node, kind: Kind) -> String {
    let skipped: Vec<&str> = NOT_MEANING.iter().chain(&NOT_STATE).copied().collect();
    let mut text = String::new();
    canonical(node, &Ty::Object(kind.shape()), &skipped, &mut text);
    short(&hex(&Sha256::digest(text.as_bytes())))
}

/// Hex SHA-256 of a document's meaning and of the hashes it stands on.
pub(crate) fn digest(node: &Node, kind: Kind, dependencies: &[&str]) -> String {
    let mut text = String::new();
    canonical(node, &Ty::Object(kind.shape()), &NOT_MEANING, &mut text);
    for hash in dependencies {
        text.push('\n');
        text.push_str(hash);
    }
    hex(&Sha256::digest(text.as_bytes()))
}

/// The first 16 digits, as heads carry them.
pub(crate) fn short(hash: &str) -> String {
    hash.chars().take(16).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One text per meaning. The order of declared keys does not count; the order of names that the contract chooses
/// does: it is the order of columns and answers. Keys named `out` are left out, at the top only.
fn canonical(node: &Node, ty: &Ty, out: &[&str], text: &mut String) {
    match (&node.value, ty) {
        (Yaml::Map(entries), Ty::Object(shape)) => {
            text.push('{');
            for key in shape.keys() {
                let skipped = key.name == "description" || out.contains(&key.name);
                if let Some(entry) = entries.iter().find(|e| e.key == key.name && !skipped) {
                    text.push_str(&format!("{:?}:", entry.key));
                    canonical(&entry.value, &key.ty, &[], text);
                    text.push(',');
                }
            }
            text.push('}');
        }
        (Yaml::Map(entries), _) => {
            let item = match ty {
                Ty::Map(_, item) => item,
                other => alternative(other, |ty| matches!(ty, Ty::Object(_) | Ty::Map(..))),
            };
            if matches!(item, Ty::Object(_)) && !matches!(ty, Ty::Map(..)) {
                return canonical(node, item, &[], text);
            }
            text.push('{');
            for entry in entries {
                text.push_str(&format!("{:?}:", entry.key));
                canonical(&entry.value, item, &[], text);
                text.push(',');
            }
            text.push('}');
        }
        (Yaml::List(items), _) => {
            let item = match alternative(ty, |ty| matches!(ty, Ty::List(_))) {
                Ty::List(item) => item,
                other => other,
            };
            text.push('[');
            for node in items {
                canonical(node, item, &[], text);
                text.push(',');
            }
            text.push(']');
        }
        (Yaml::Null, _) => text.push_str("null"),
        (Yaml::Text(value), _) => text.push_str(&format!("{:?}", value.trim())),
        _ => text.push_str(node.scalar().unwrap_or_default()),
    }
}

/// The one of several types that `fits`, or the type itself.
fn alternative(ty: &Ty, fits: fn(&Ty) -> bool) -> &Ty {
    match ty {
        Ty::Either(types) => types.iter().find(|ty| fits(ty)).unwrap_or(ty),
        other => other,
    }
}
