//! `dimensions:` by which answers can be split.
//!
//! *In*: the document and its inputs. *Out*: [`Dimension`]s and their expression per source. *Never*: a dimension
//! without a bound.

use crate::catalog::{Dimension, Overflow};
use crate::lower::Cx;
use crate::lower::literal::literal;
use crate::value::{Value, ValueType};
use crate::yaml::{Entry, Node, Yaml};

use super::inputs::{Inputs, PerSource};

/// The dimensions and, for each, its expression over each source.
pub(super) fn read(cx: &mut Cx<'_>, node: &Node, inputs: &Inputs) -> (Vec<Dimension>, Vec<PerSource>) {
    let (mut dimensions, mut columns) = (Vec::new(), Vec::new());
    for entry in node.get("dimensions").map(Node::entries).unwrap_or_default() {
        let max = bound(cx, entry);
        let from = match entry.value.get("from") {
            Some(from) => from.clone(),
            // Its own name is the column.
            None => Node { span: entry.key_span, value: Yaml::Text(entry.key.clone()) },
        };
        let Some((column, ty)) = inputs.value(cx, &from, &inputs.all()) else { continue };
        let default = match entry.value.get("default") {
            Some(default) => {
                let what = format!("the default of `{}`", entry.key);
                literal(cx, default, &ty, &what).unwrap_or(Value::Null)
            }
            None => Value::Null,
        };
        let refuse = entry.value.get("overflow").and_then(Node::scalar) == Some("refuse");
        shown_as_other(cx, entry, &ty, refuse);
        dimensions.push(Dimension {
            name: entry.key.clone(),
            ty,
            default,
            max,
            overflow: if refuse { Overflow::Refuse } else { Overflow::Other },
        });
        columns.push(column);
    }
    (dimensions, columns)
}

fn bound(cx: &mut Cx<'_>, entry: &Entry) -> usize {
    /// Beyond this a dimension is a key, and an entity the better answer.
    const MOST: i64 = 1_000_000;
    let Some(node) = entry.value.get("max") else { return 0 };
    let Yaml::Int(max, _) = node.value else { return 0 };
    if !(1..=MOST).contains(&max) {
        let message = format!("`max` of `{}` is out of range", entry.key);
        let diagnostic =
            cx.at("out_of_range", node.span, message).found(node.shown()).allowed("1 to 1000000");
        cx.push(diagnostic);
    }
    usize::try_from(max).unwrap_or(0)
}

/// What goes beyond `max` is shown under the text `other`, which only text can be.
fn shown_as_other(cx: &mut Cx<'_>, entry: &Entry, ty: &ValueType, refuse: bool) {
    if *ty == ValueType::Histogram {
        let message = format!("`{}` cannot be split by", entry.key);
        let diagnostic = cx.at("wrong_type", entry.key_span, message).allowed("a plain value");
        cx.push(diagnostic);
    }
    let Some(overflow) = entry.value.entry("overflow").filter(|_| !refuse) else { return };
    if *ty != ValueType::Text {
        let message = format!("`{}` is {ty}: its overflow cannot be called `other`", entry.key);
        let diagnostic = cx
            .at("wrong_type", overflow.value.span, message)
            .fix("use `overflow: refuse`, or CAST the dimension to VARCHAR");
        cx.push(diagnostic);
    }
}
