//! From checked YAML to the catalog: names resolve, expressions type-check, defaults are filled in.
//!
//! *In*: documents that went through `shape`. *Out*: catalog types that still point into [`World`], with
//! diagnostics. *Never*: stopping at the first mistake; a key read that no shape declares.

pub(crate) mod entity;
pub(crate) mod event;
pub(crate) mod field;
pub(crate) mod head;
pub(crate) mod literal;
pub(crate) mod metric;
pub(crate) mod table;

use std::collections::BTreeSet;

use crate::catalog::{Entity, Event, Metric, Status, Table};
use crate::diagnostic::Diagnostic;
use crate::expr::{self, ExprError, Scope, Typed};
use crate::shape::Kind;
use crate::text::{SourceFile, Span};
use crate::value::ValueType;
use crate::yaml::{Node, Yaml};

/// A contract on its way into the catalog.
#[derive(Debug, Clone)]
pub(crate) struct Lowered<T> {
    /// The contract; its indexes of events and entities point into [`World`].
    pub(crate) item: T,
    /// It has no errors.
    pub(crate) sound: bool,
    /// Its columns are known, so that expressions over them can be checked even if it has errors.
    pub(crate) typed: bool,
}

/// Everything lowered so far, in the order of the files.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) events: Vec<Lowered<Event>>,
    pub(crate) entities: Vec<Lowered<Entity>>,
    pub(crate) tables: Vec<Lowered<Table>>,
    pub(crate) metrics: Vec<Lowered<Metric>>,
    /// `(event, field)` pairs that metrics split by or compare with texts: their columns are interned.
    pub(crate) few_valued: BTreeSet<(String, String)>,
    /// Names of all documents of a kind, also of those that could not be lowered.
    pub(crate) names: BTreeSet<(Kind, String)>,
}

/// What lowering one document needs and yields.
pub(crate) struct Cx<'a> {
    pub(crate) file: &'a SourceFile,
    pub(crate) out: Vec<Diagnostic>,
}

impl<'a> Cx<'a> {
    pub(crate) fn new(file: &'a SourceFile) -> Self {
        Self { file, out: Vec::new() }
    }

    /// An error that is not yet reported.
    pub(crate) fn at(&self, code: &'static str, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, &self.file.path, span, message)
    }

    /// Reports.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.out.push(diagnostic);
    }

    /// A feature of the language that does not run yet.
    pub(crate) fn not_yet(&mut self, span: Span, what: &str, instead: &str) {
        let message = format!("{what} does not run yet");
        let diagnostic = self.at("not_yet", span, message).fix(instead);
        self.push(diagnostic);
    }

    /// A part of the language that is accepted but does nothing yet.
    pub(crate) fn idle(&mut self, span: Span, what: &str) {
        let message = format!("{what} is checked but does not run yet");
        let diagnostic = self.at("not_yet", span, message).warning();
        self.push(diagnostic);
    }

    /// The duration under `key`; mistakes are the shape's to report.
    pub(crate) fn duration(&self, node: &Node, key: &str) -> Option<i64> {
        crate::duration::parse_duration(node.get(key)?.scalar()?)
    }

    /// Type-checks the expression of `node`.
    pub(crate) fn compile(&mut self, node: &Node, scope: &Scope) -> Option<Typed> {
        let sql = node.scalar()?;
        match expr::compile(sql, scope) {
            Ok(typed) => Some(typed),
            Err(error) => {
                let diagnostic = self.expression_error(node, sql, error);
                self.push(diagnostic);
                None
            }
        }
    }

    /// Type-checks a condition.
    pub(crate) fn condition(&mut self, node: &Node, scope: &Scope, what: &str) -> Option<Typed> {
        let typed = self.compile(node, scope)?;
        self.require_bool(node, typed, what)
    }

    /// Reports a condition that is no condition.
    pub(crate) fn require_bool(&mut self, node: &Node, typed: Typed, what: &str) -> Option<Typed> {
        if typed.ty == ValueType::Bool {
            return Some(typed);
        }
        let message = format!("{what} must be true or false, but this is {}", typed.ty);
        let diagnostic = self
            .at("not_a_condition", node.span, message)
            .found(&typed.sql)
            .allowed("a comparison, or several joined by AND and OR");
        self.push(diagnostic);
        None
    }

    /// The identifier paths an expression mentions; a syntax error is reported.
    pub(crate) fn mentions(&mut self, node: &Node) -> Option<Vec<Vec<String>>> {
        let sql = node.scalar()?;
        match expr::mentions(sql) {
            Ok(paths) => Some(paths),
            Err(error) => {
                let diagnostic = self.expression_error(node, sql, error);
                self.push(diagnostic);
                None
            }
        }
    }

    pub(crate) fn expression_error(&self, node: &Node, sql: &str, error: ExprError) -> Diagnostic {
        let span = self.place(node, sql, error.start, error.end);
        let mut diagnostic = self.at(error.code, span, error.message);
        diagnostic.found = error.found;
        diagnostic.allowed = error.allowed;
        diagnostic.nearest = error.nearest;
        // The nearest name has a line of its own.
        diagnostic.fix = error.fix.filter(|fix| !fix.starts_with("did you mean"));
        diagnostic
    }

    /// The place of the bytes `start..end` of the expression `sql` that `node` holds.
    pub(crate) fn place(&self, node: &Node, sql: &str, start: usize, end: usize) -> Span {
        let start = floor(sql, start);
        let end = floor(sql, end).max(start);
        let part = &sql[start..end];
        let raw = node.span.slice(&self.file.text);
        let byte = match raw.find(sql) {
            Some(base) => base + start,
            // Escapes, folded lines: the part itself is likely there all the same.
            None => match raw.find(part) {
                Some(at) if !part.is_empty() => at,
                _ => return node.span,
            },
        };
        let skip = raw[..byte].chars().count();
        node.span.within(&self.file.text, skip, part.chars().count().max(1))
    }

    /// The place of the text `part` inside the scalar `node`, else the node.
    pub(crate) fn place_of(&self, node: &Node, part: &str) -> Span {
        match node.scalar().and_then(|sql| sql.find(part).map(|at| (sql, at))) {
            Some((sql, at)) => self.place(node, sql, at, at + part.len()),
            None => node.span,
        }
    }

    /// Resolves the event type that `node` names.
    pub(crate) fn event(&mut self, node: &Node, world: &World) -> Option<usize> {
        let name = node.scalar()?;
        let found = world.events.iter().position(|e| e.item.head.name == name);
        if found.is_some() || world.names.contains(&(Kind::Event, name.to_string())) {
            return found;
        }
        let names = world.names(Kind::Event);
        let diagnostic = self
            .at("unknown_event", node.span, format!("there is no event contract `{name}`"))
            .names(name, names.iter().map(String::as_str));
        self.push(diagnostic);
        None
    }

    /// A dependency that is not run takes its dependents with it; says so.
    pub(crate) fn depends(&mut self, span: Span, status: Status, on: &Dependency<'_>) {
        let inactive = matches!(on.status, Status::Draft | Status::Retired);
        if inactive && matches!(status, Status::Active | Status::Deprecated) {
            let word = if on.status == Status::Draft { "a draft" } else { "retired" };
            let message = format!("{} `{}` is {word} and does not run", on.kind, on.name);
            let diagnostic = self
                .at("inactive_dependency", span, message)
                .fix("set its `status: active`, or make this contract a draft too");
            self.push(diagnostic);
        } else if !on.sound {
            let message = format!("left out because {} `{}` has errors", on.kind, on.name);
            let diagnostic = self.at("broken_dependency", span, message).warning();
            self.push(diagnostic);
        }
    }
}

/// What a contract stands on.
pub(crate) struct Dependency<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
    pub(crate) status: Status,
    pub(crate) sound: bool,
}

impl World {
    /// All names of a kind, sorted.
    pub(crate) fn names(&self, kind: Kind) -> Vec<String> {
        self.names.iter().filter(|(k, _)| *k == kind).map(|(_, name)| name.clone()).collect()
    }

    pub(crate) fn event_dependency(&self, event: usize) -> Dependency<'_> {
        let lowered = &self.events[event];
        let head = &lowered.item.head;
        Dependency { kind: Kind::Event, name: &head.name, status: head.status, sound: lowered.sound }
    }
}

/// The texts of a scalar or of a list of scalars.
pub(crate) fn one_or_many(node: &Node) -> Vec<&Node> {
    match &node.value {
        Yaml::List(items) => items.iter().filter(|item| item.scalar().is_some()).collect(),
        _ if node.scalar().is_some() => vec![node],
        _ => Vec::new(),
    }
}

/// The greatest character boundary of `text` not after `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
