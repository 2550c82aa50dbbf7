//! The reference of the contract language in Markdown, derived from the shapes.
//!
//! *In*: nothing. *Out*: Markdown. *Never*: a sentence that is not in a shape.

use std::fmt::Write as _;

use super::check::expected;
use super::{Kind, Shape, Ty};

/// One section per kind, one table per mapping.
pub fn reference() -> String {
    let mut text = String::from("# Contract reference\n\nGenerated from the code; do not edit.\n");
    let mut written: Vec<&'static str> = Vec::new();
    for kind in Kind::ALL {
        let shape = kind.shape();
        let mut waiting = vec![(shape, format!("## `kind: {}`", shape.name))];
        while let Some((shape, heading)) = waiting.pop() {
            if written.contains(&shape.name) {
                continue;
            }
            written.push(shape.name);
            section(&mut text, shape, &heading);
            let mut nested: Vec<_> = shape.keys().flat_map(|key| objects(&key.ty)).collect();
            nested.reverse();
            waiting.extend(nested.into_iter().map(|s| (s, format!("### {}", s.name))));
        }
    }
    text
}

fn section(text: &mut String, shape: &'static Shape, heading: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\n{heading}\n\n{}\n", shape.doc);
    text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in shape.keys() {
        let default = if key.required { "required" } else { key.default };
        let _ = writeln!(
            text,
            "| `{}` | {} | {default} | {} |",
            key.name,
            written(&key.ty).replace('|', "\\|"),
            key.doc.replace('|', "\\|"),
        );
    }
}

/// What a value is, with the names of nested mappings in place of their keys.
fn written(ty: &Ty) -> String {
    match ty {
        Ty::Object(shape) => format!("[{}](#{})", shape.name, shape.name.to_lowercase()),
        Ty::List(item) => format!("list of {}", written(item)),
        Ty::Map(_, item) => format!("name: {}", written(item)),
        Ty::Either(types) => types.iter().map(written).collect::<Vec<_>>().join(" or "),
        Ty::OneOf(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(" "),
        _ => expected(ty),
    }
}

fn objects(ty: &'static Ty) -> Vec<&'static Shape> {
    match ty {
        Ty::Object(shape) => vec![*shape],
        Ty::List(item) | Ty::Map(_, item) => objects(item),
        Ty::Either(types) => types.iter().flat_map(objects).collect(),
        _ => Vec::new(),
    }
}
