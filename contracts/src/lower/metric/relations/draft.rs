//! A part of a relation while its cells are gathered.
//!
//! *In*: columns and sides of equalities. *Out*: one expression per cell and source. *Never*: a cell that is no plain value.

use std::collections::BTreeSet;

use arrow::datatypes::Field as ArrowField;

use crate::lower::Cx;
use crate::lower::metric::inputs::{Inputs, PerSource};
use crate::value::{ValueType, type_name};
use crate::yaml::{Node, Yaml};

/// A part under construction.
pub(super) struct Draft<'a> {
    pub(super) name: String,
    /// Plain inputs, or tables.
    pub(super) inputs: &'a Inputs,
    /// The part's sources among them.
    pub(super) sources: Vec<usize>,
    pub(super) fields: Vec<ArrowField>,
    pub(super) cells: Vec<PerSource>,
    /// Paths of columns that are lists, per source; cells after `cells`.
    pub(super) lists: Vec<Vec<Option<Vec<String>>>>,
}

impl Draft<'_> {
    /// Adds a cell; its number and type.
    pub(super) fn cell(&mut self, cx: &mut Cx<'_>, place: &Node) -> Option<(usize, ValueType)> {
        let (cell, ty) = self.inputs.value(cx, place, &self.sources)?;
        self.cells.push(cell);
        Some((self.cells.len() - 1, ty))
    }

    /// Adds the columns that show.
    pub(super) fn columns(&mut self, cx: &mut Cx<'_>, place: &Node, names: &BTreeSet<String>) -> Option<()> {
        let known = self.inputs.columns_of(&self.name);
        for name in names {
            let Some((_, ty)) = known.iter().find(|(known, _)| known == name) else { continue };
            if ValueType::from_arrow(ty).is_none() {
                let message =
                    format!("`{}.{name}` is a {}: such rows keep plain values", self.name, type_name(ty));
                let diagnostic = cx.at("wrong_type", place.span, message).allowed("plain fields").fix(
                    "compute what you need under `enrich` of the event, or name the inner field under the alias's \
                     `fields`",
                );
                cx.push(diagnostic);
                return None;
            }
            let (_, ty) = self.cell(cx, &text(place, &format!("\"{name}\"")))?;
            self.fields.push(ArrowField::new(name, ty.arrow()?, true));
        }
        Some(())
    }
}

/// A node at the place of another one.
pub(super) fn text(place: &Node, sql: &str) -> Node {
    Node { span: place.span, value: Yaml::Text(sql.to_string()) }
}
