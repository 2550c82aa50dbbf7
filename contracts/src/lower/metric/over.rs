//! Expressions over the inputs of a metric: whose columns they see, and nulls where an input lacks one.
//!
//! *In*: an expression and the sources it is applied to. *Out*: one [`Typed`] per source. *Never*: an alias-qualified
//! name that silently means another alias; the same mistake reported once per source.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Schema};
use datafusion_common::ScalarValue;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_expr::Expr;

use crate::expr::{self, Scope, Typed};
use crate::lower::Cx;
use crate::lower::entity::{cast, unify};
use crate::lower::event::with_columns;
use crate::value::ValueType;
use crate::yaml::Node;

use super::inputs::{Inputs, PerSource, Source, type_at};

impl Source {
    /// Columns and renames with their types.
    pub(super) fn columns(&self) -> Vec<(String, DataType)> {
        let renamed =
            self.renames.iter().filter_map(|(name, path)| Some((name.clone(), type_at(&self.schema, path)?)));
        let own = self
            .schema
            .fields()
            .iter()
            .filter(|field| !self.renames.contains_key(field.name()) && !field.name().starts_with('@'))
            .map(|field| (field.name().clone(), field.data_type().clone()));
        renamed.chain(own).collect()
    }
}

impl Inputs {
    /// All sources.
    pub(super) fn all(&self) -> Vec<usize> {
        (0..self.sources.len()).collect()
    }

    /// The sources of one alias.
    pub(super) fn of(&self, alias: &str) -> Vec<usize> {
        self.all().into_iter().filter(|&s| self.sources[s].alias == alias).collect()
    }

    /// `where` of each source.
    pub(super) fn filters(&self, cx: &mut Cx<'_>, node: &Node) -> PerSource {
        let mut filters: PerSource = vec![None; self.sources.len()];
        let mut add = |cx: &mut Cx<'_>, place: &Node, targets: &[usize]| {
            if let Some(compiled) = self.condition(cx, place, targets, "`where`") {
                for (filter, typed) in filters.iter_mut().zip(compiled) {
                    *filter = typed.or(filter.take());
                }
            }
        };
        if let Some(place) = node.get("where").filter(|_| node.get("entity").is_some()) {
            add(cx, place, &self.all());
        }
        for entry in node.get("events").map(Node::entries).unwrap_or_default() {
            if let Some(place) = entry.value.get("where") {
                add(cx, place, &self.of(&entry.key));
            }
        }
        filters
    }

    /// `time.column` of a metric over events, for each source that it is about: when a row counts.
    pub(super) fn moments(&self, cx: &mut Cx<'_>, node: &Node) -> PerSource {
        let place = node.get("time").and_then(|time| time.get("column"));
        let Some(place) = place.filter(|_| node.get("entity").is_none()) else { return Vec::new() };
        let Some((moments, ty)) = self.value(cx, place, &self.all()) else { return Vec::new() };
        if ty != ValueType::Timestamp {
            let message = format!("`time.column` is {ty}, not an instant");
            let diagnostic = cx
                .at("wrong_type", place.span, message)
                .found(place.shown())
                .allowed("a timestamp: a column, or an expression over the columns of a row");
            cx.push(diagnostic);
            return Vec::new();
        }
        // Rows that it says nothing about count at their own time.
        moments.into_iter().map(|moment| moment.filter(|typed| !always_null(typed))).collect()
    }

    /// The aliases an expression names.
    pub(super) fn mentioned(&self, cx: &mut Cx<'_>, node: &Node) -> Option<BTreeSet<String>> {
        let paths = cx.mentions(node)?;
        let named = paths.iter().filter(|path| path.len() > 1).map(|path| &path[0]);
        Some(named.filter(|name| self.aliases.contains(name)).cloned().collect())
    }

    /// Compiles a condition over `targets`.
    pub(super) fn condition(
        &self,
        cx: &mut Cx<'_>,
        node: &Node,
        targets: &[usize],
        what: &str,
    ) -> Option<PerSource> {
        let compiled = self.compile(cx, node, targets)?;
        let wrong = compiled.iter().flatten().find(|typed| typed.ty != ValueType::Bool).cloned();
        match wrong {
            Some(typed) => {
                cx.require_bool(node, typed, what);
                None
            }
            None => Some(compiled),
        }
    }

    /// Compiles a value over `targets`, of one type everywhere.
    pub(super) fn value(
        &self,
        cx: &mut Cx<'_>,
        node: &Node,
        targets: &[usize],
    ) -> Option<(PerSource, ValueType)> {
        let mut compiled = self.compile(cx, node, targets)?;
        let mut ty: Option<ValueType> = None;
        for typed in compiled.iter().flatten().filter(|typed| !always_null(typed)) {
            ty = match &ty {
                None => Some(typed.ty.clone()),
                Some(before) => match unify(before, &typed.ty) {
                    Some(both) => Some(both),
                    None => {
                        let message =
                            format!("the events disagree about the type: {before} and {}", typed.ty);
                        let diagnostic = cx
                            .at("type_conflict", node.span, message)
                            .found(node.shown())
                            .fix("CAST it to one type, or use one alias per type");
                        cx.push(diagnostic);
                        return None;
                    }
                },
            };
        }
        let ty = ty.or_else(|| compiled.iter().flatten().next().map(|typed| typed.ty.clone()))?;
        for (source, typed) in compiled.iter_mut().enumerate() {
            if let Some(typed) = typed
                && typed.ty != ty
                && let Some(cast) = self.cast(node, source, targets, &ty)
            {
                *typed = cast;
            }
        }
        Some((compiled, ty))
    }

    fn cast(&self, node: &Node, source: usize, targets: &[usize], ty: &ValueType) -> Option<Typed> {
        let (scope, missing) = self.scope(source, targets);
        let typed = cast(node.scalar()?, ty, &scope)?;
        self.without(source, typed, &missing)
    }

    /// Compiles `node` over each of `targets`; one report per expression.
    pub(super) fn compile(&self, cx: &mut Cx<'_>, node: &Node, targets: &[usize]) -> Option<PerSource> {
        let paths = cx.mentions(node)?;
        let broken = |path: &Vec<String>| path.iter().take(2).any(|part| self.broken.contains(part));
        if !self.typed || targets.is_empty() || paths.iter().any(broken) {
            return None;
        }
        self.qualified(cx, node, &paths)?;
        let sql = node.scalar()?;
        let mut compiled: PerSource = vec![None; self.sources.len()];
        for &source in targets {
            let (scope, missing) = self.scope(source, targets);
            match expr::compile(sql, &scope) {
                Ok(typed) => compiled[source] = Some(self.without(source, typed, &missing)?),
                Err(error) => {
                    let diagnostic = cx.expression_error(node, sql, error);
                    cx.push(diagnostic);
                    return None;
                }
            }
        }
        if !paths.is_empty() && compiled.iter().flatten().all(always_null) {
            let diagnostic = cx
                .at("always_null", node.span, "this is null for every event")
                .found(node.shown())
                .allowed("columns of one event, or of events that `join` puts beside each other")
                .fix("use columns of one alias, `join` the aliases, or follow the events with an entity");
            cx.push(diagnostic);
            return None;
        }
        Some(compiled)
    }

    /// `alias.column` must be a column of that alias.
    fn qualified(&self, cx: &mut Cx<'_>, node: &Node, paths: &[Vec<String>]) -> Option<()> {
        for path in paths.iter().filter(|path| path.len() > 1) {
            let Some(columns) = self.names.get(&path[0]) else { continue };
            let columns: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
            if !columns.contains(&path[1]) {
                let message = format!("`{}` has no column `{}`", path[0], path[1]);
                let span = cx.place_of(node, &path.join("."));
                let unique: BTreeSet<&str> = columns.iter().map(String::as_str).collect();
                let diagnostic = cx.at("unknown_name", span, message).names(&path[1], unique);
                cx.push(diagnostic);
                return None;
            }
        }
        Some(())
    }

    /// The scope of one source among `targets`, and the columns in it that only other targets have.
    fn scope(&self, source: usize, targets: &[usize]) -> (Scope, BTreeSet<String>) {
        let own = &self.sources[source];
        let mut known: BTreeSet<String> = own.columns().into_iter().map(|(name, _)| name).collect();
        known.extend(own.schema.fields().iter().map(|field| field.name().clone()));
        let mut missing = BTreeSet::new();
        let mut columns = Vec::new();
        for &other in targets.iter().filter(|&&other| other != source) {
            for (name, ty) in self.sources[other].columns() {
                if !known.contains(&name) && missing.insert(name.clone()) {
                    columns.push(ArrowField::new(name, ty, true));
                }
            }
        }
        let elsewhere = |name: &&String| **name != own.alias && !own.parts.contains_key(*name);
        let absent = self.names.keys().filter(elsewhere);
        let absent = absent.map(|name| (name.clone(), self.names[name].clone())).collect();
        // Columns that only other event types of the same alias have are null here, also if this
        // expression is for this event type alone.
        for other in self.sources.iter().filter(|other| other.alias == own.alias) {
            for (name, ty) in other.columns() {
                if !known.contains(&name) && missing.insert(name.clone()) {
                    columns.push(ArrowField::new(name, ty, true));
                }
            }
        }
        let scope = Scope {
            schema: with_columns(&own.schema, columns),
            qualifiers: vec![own.alias.clone(), "row".to_string()],
            absent,
            renames: own.renames.clone(),
            parts: own.parts.clone(),
        };
        (scope, missing)
    }

    /// Puts nulls in place of columns that the source does not have.
    fn without(&self, source: usize, typed: Typed, missing: &BTreeSet<String>) -> Option<Typed> {
        if missing.is_empty() {
            return Some(typed);
        }
        let own = &self.sources[source].schema;
        let extended = Arc::clone(&typed.schema);
        let expr = typed
            .expr
            .transform(|expr| {
                if let Expr::Column(column) = &expr
                    && missing.contains(&column.name)
                    && let Ok(field) = extended.field_with_name(&column.name)
                    && let Ok(null) = ScalarValue::try_from(field.data_type())
                {
                    return Ok(Transformed::yes(Expr::Literal(null, None)));
                }
                Ok(Transformed::no(expr))
            })
            .ok()?
            .data;
        let lists = typed.schema.fields().iter().skip(typed.schema.fields().len() - typed.lists.len());
        let columns = own.fields().iter().chain(lists).cloned().collect::<Vec<_>>();
        Some(Typed { expr, schema: Arc::new(Schema::new(columns)), ..typed })
    }
}

fn always_null(typed: &Typed) -> bool {
    let mut expr = &typed.expr;
    loop {
        match expr {
            Expr::Literal(value, _) => return value.is_null(),
            Expr::Cast(cast) => expr = &cast.expr,
            Expr::TryCast(cast) => expr = &cast.expr,
            Expr::Alias(alias) => expr = &alias.expr,
            _ => return false,
        }
    }
}
