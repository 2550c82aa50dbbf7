//! `sequence:` per key, consecutive rows of an alias become intervals.
//!
//! *In*: the document, the alias with tables beside it. *Out*: a [`Relation`] with a [`Sequence`], one [`Source`] per
//! kind of row that measures read. *Never*: rows of a kind that nothing reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema, TimeUnit};

use crate::catalog::{Input, SPAN, SPAN_KIND, Sequence, SpanKind};
use crate::expr::{self, Scope, Typed};
use crate::lower::Cx;
use crate::lower::metric::inputs::{Inputs, PerSource, Source};
use crate::value::{ValueType, timestamp_type};
use crate::yaml::{Entry, Node};

use super::{Builder, Growing, PART};

/// The kinds of rows that measures read.
pub(super) fn kinds(node: &Node) -> Vec<SpanKind> {
    let mut found = BTreeSet::new();
    for measure in node.get("measures").map(Node::entries).unwrap_or_default() {
        if measure.value.get("agg").is_none() || measure.value.get("over").is_some() {
            continue;
        }
        if let Some(of) = measure.value.get("of").and_then(Node::scalar) {
            found.extend(SpanKind::ALL.into_iter().filter(|kind| kind.alias() == of));
            continue;
        }
        let texts = ["value", "where", "start", "end"].into_iter();
        let texts = texts.filter_map(|key| measure.value.get(key)?.scalar());
        let heads: BTreeSet<String> = texts
            .filter_map(|sql| expr::mentions(sql).ok())
            .flatten()
            .filter(|path| path.len() > 1)
            .map(|path| path[0].clone())
            .collect();
        let named: Vec<SpanKind> = SpanKind::ALL.into_iter().filter(|k| heads.contains(k.alias())).collect();
        match named.is_empty() {
            true => found.extend([SpanKind::Interval]),
            false => found.extend(named),
        }
    }
    found.into_iter().collect()
}

/// The rows of a sequence as measures see them.
pub(super) struct Sequenced {
    pub(super) sources: Vec<Source>,
    /// What selects the rows of each source.
    pub(super) filters: PerSource,
    /// Columns of each alias.
    pub(super) names: BTreeMap<String, Vec<(String, DataType)>>,
}

impl<'a> Builder<'a> {
    /// The intervals of `sequence`.
    pub(super) fn sequence(&mut self, cx: &mut Cx<'_>, entry: &'a Entry) -> Option<Sequenced> {
        let of = self.sequence_of(cx, entry)?;
        if !self.plain.typed || !self.tables.typed {
            return None;
        }
        let root = self.draft(cx, of, false)?;
        let mut growing = Growing { flat: false, parts: vec![root], steps: Vec::new() };
        self.enrich(cx, &mut growing)?;
        let before = self.finish(cx, of, growing)?;
        let sequence = self.read_sequence(cx, entry, of, &before)?;
        let kinds = sequence.kinds.clone();
        let schema = Arc::clone(&sequence.schema);
        let Input::Relation(number) = before.input else { return None };
        self.relations[number].sequence = Some(sequence);
        let mut out = Sequenced { sources: Vec::new(), filters: Vec::new(), names: BTreeMap::new() };
        let columns = span_columns(&schema);
        for kind in SpanKind::ALL {
            let own = columns.iter().filter(|(name, _)| kind.columns().contains(&name.as_str()));
            out.names.insert(kind.alias().to_string(), own.cloned().collect());
        }
        for kind in kinds {
            let mut parts = before.parts.clone();
            parts.insert(kind.alias().to_string(), SPAN.to_string());
            let scope = Scope { parts: parts.clone(), ..Scope::new(Arc::clone(&schema)) };
            let sql = format!("{}.\"{SPAN_KIND}\" = {}", kind.alias(), kind as i64);
            out.filters.push(Some(expr::compile_bool(&sql, &scope).ok()?));
            out.sources.push(Source {
                alias: kind.alias().to_string(),
                schema: Arc::clone(&schema),
                parts,
                ..before.clone()
            });
        }
        Some(out)
    }

    /// The alias whose rows are followed.
    fn sequence_of(&self, cx: &mut Cx<'_>, entry: &Entry) -> Option<&'a str> {
        for (key, why) in [
            ("join", "rows that are joined cannot be followed yet"),
            ("entity", "an entity has one row per key already"),
        ] {
            if let Some(other) = self.node.entry(key) {
                let message = format!("`sequence` beside `{key}`: {why}");
                let diagnostic = cx
                    .at("not_yet", other.key_span, message)
                    .fix("follow one alias of `events`; what tables know goes under `enrich`");
                cx.push(diagnostic);
                return None;
            }
        }
        for kind in SpanKind::ALL {
            let taken = self.plain.aliases.iter().chain(&self.tables.aliases).any(|a| a == kind.alias());
            if taken {
                let message = format!("`{}` is what `sequence` calls its rows", kind.alias());
                let diagnostic = cx
                    .at("reserved_name", entry.key_span, message)
                    .fix("give the alias or table of that name another one");
                cx.push(diagnostic);
                return None;
            }
        }
        if let Some(place) = entry.value.get("of") {
            return self.alias_at(cx, self.node.get("sequence")?, "of").filter(|_| place.scalar().is_some());
        }
        if let [only] = self.plain.aliases.as_slice() {
            return Some(only);
        }
        let names: Vec<&str> = self.plain.aliases.iter().map(String::as_str).collect();
        let diagnostic = cx
            .at("missing_key", entry.key_span, "`sequence` does not say which alias it follows")
            .allowed(names.join(", "))
            .fix("add `of: <alias>`");
        cx.push(diagnostic);
        None
    }

    fn read_sequence(&self, cx: &mut Cx<'_>, entry: &Entry, of: &str, before: &Source) -> Option<Sequence> {
        let mut inputs = Inputs { sources: vec![before.clone()], typed: true, ..self.plain.clone_names() };
        inputs.aliases = vec![of.to_string()];
        let node = &entry.value;
        let value = |cx: &mut Cx<'_>, key: &str| -> Option<Option<(Typed, ValueType)>> {
            let Some(place) = node.get(key) else { return Some(None) };
            let (typed, ty) = inputs.value(cx, place, &[0])?;
            Some(Some((typed.into_iter().next()??, ty)))
        };
        let condition = |cx: &mut Cx<'_>, key: &str| -> Option<Option<Typed>> {
            let Some(place) = node.get(key) else { return Some(None) };
            let typed = inputs.condition(cx, place, &[0], &format!("`{key}`"))?;
            Some(Some(typed.into_iter().next()??))
        };
        let key = value(cx, "key")?;
        let state = value(cx, "state")?;
        let (start, end) = (condition(cx, "start")?, condition(cx, "end")?);
        let (key, key_type) = key?;
        if state.is_none() && (start.is_none() || end.is_none()) {
            let diagnostic = cx
                .at("missing_key", entry.key_span, "`sequence` does not say when an interval begins and ends")
                .allowed("`state`, or both `start` and `end`")
                .fix("add `state: <column>`, or `start: <condition>` and `end: <condition>`");
            cx.push(diagnostic);
            return None;
        }
        let state_type = state.as_ref().map_or(ValueType::Text, |(_, ty)| ty.clone());
        Some(Sequence {
            schema: span_schema(before, &key_type, &state_type)?,
            key,
            state: state.map(|(state, _)| state),
            start,
            end,
            kinds: kinds(self.node),
        })
    }
}

/// The columns of the rows before, and what there is to know about an interval.
fn span_schema(before: &Source, key: &ValueType, state: &ValueType) -> Option<Arc<Schema>> {
    let (key, state) = (key.arrow()?, state.arrow()?);
    let duration = DataType::Duration(TimeUnit::Microsecond);
    let span = [
        (SPAN_KIND, DataType::Int64),
        ("key", key),
        ("state", state.clone()),
        ("next", state),
        ("start", timestamp_type()),
        ("end", timestamp_type()),
        ("dwell", duration),
        ("entered", timestamp_type()),
        ("done", timestamp_type()),
    ];
    let span: Fields = span.into_iter().map(|(name, ty)| ArrowField::new(name, ty, true)).collect();
    let parts = before.schema.fields().iter().filter(|field| field.name().starts_with(PART));
    let mut columns: Vec<ArrowField> = parts.map(|field| field.as_ref().clone()).collect();
    columns.push(ArrowField::new(SPAN, DataType::Struct(span), false));
    columns.push(ArrowField::new("time", timestamp_type(), false));
    Some(Arc::new(Schema::new(columns)))
}

fn span_columns(schema: &Schema) -> Vec<(String, DataType)> {
    let Ok(field) = schema.field_with_name(SPAN) else { return Vec::new() };
    let DataType::Struct(fields) = field.data_type() else { return Vec::new() };
    fields.iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
}
