//! Values and conditions of an adapter.
//!
//! *In*: a YAML node. *Out*: an [`Expr`] or a [`When`]. *Never*: a function with a wrong argument.
//!
//! A text is a path (`$name`: a `let`), a number or boolean itself, a list the first of its items that is
//! there, and a mapping a call: its first key is the function.

use contracts::diagnostic::Diagnostic;
use contracts::yaml::{Node, Yaml};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::super::native::NATIVES;
use super::super::spec::{Clause, Expr, Test, When};
use super::Reader;

/// Function and its options.
pub(super) const FUNCTIONS: [(&str, &[&str]); 17] = [
    ("const", &[]),
    ("first", &[]),
    ("time", &[]),
    ("match", &["in"]),
    ("has", &["in"]),
    ("lower", &[]),
    ("map", &["of", "else"]),
    ("join", &["with"]),
    ("list", &["without"]),
    ("number", &[]),
    ("same", &[]),
    ("if", &["then", "else"]),
    ("sum", &[]),
    ("minus", &[]),
    ("pad", &["to"]),
    ("versioned", &[]),
    ("native", &[]),
];

/// A compiled expression takes at most this much memory.
const REGEX_SIZE: usize = 1 << 20;

const NOTHING: Expr = Expr::Const(Value::Null);

impl Reader<'_> {
    pub(super) fn expr(&mut self, node: &Node) -> Expr {
        match &node.value {
            Yaml::Text(text) => self.name(text, node),
            Yaml::Int(..) | Yaml::Float(..) | Yaml::Bool(_) => Expr::Const(node.json()),
            Yaml::List(items) => Expr::First(items.iter().map(|item| self.expr(item)).collect()),
            Yaml::Map(_) => self.call(node),
            Yaml::Null => {
                self.wrong("wrong_type", node.span, "a path, a number, a list or a function is needed");
                NOTHING
            }
        }
    }

    /// A path, or `$name`.
    fn name(&mut self, text: &str, node: &Node) -> Expr {
        let Some(name) = text.strip_prefix('$') else {
            return self.path(text, node.span).map_or(NOTHING, Expr::Path);
        };
        if let Some(index) = self.lets.iter().position(|known| known == name) {
            return Expr::Let(index);
        }
        let known = self.lets.clone();
        let mistake = Diagnostic::error(
            "unknown_name",
            self.file,
            node.span,
            format!("there is no `let` named `{name}` above"),
        );
        self.mistakes.push(mistake.names(name, known.iter().map(String::as_str)));
        NOTHING
    }

    fn call(&mut self, node: &Node) -> Expr {
        let Some(first) = node.entries().first() else {
            self.wrong("wrong_type", node.span, "an empty mapping is no function");
            return NOTHING;
        };
        let Some((function, options)) = FUNCTIONS.iter().find(|(name, _)| *name == first.key) else {
            let mistake = Diagnostic::error(
                "unknown_function",
                self.file,
                first.key_span,
                format!("there is no function `{}`", first.key),
            );
            self.mistakes.push(mistake.names(&first.key, FUNCTIONS.iter().map(|(name, _)| *name)));
            return NOTHING;
        };
        let keys: Vec<&'static str> = std::iter::once(*function).chain(options.iter().copied()).collect();
        self.known(node, &format!("`{function}`"), &keys);
        let of = &first.value;
        match *function {
            "const" => Expr::Const(of.json()),
            "first" => Expr::First(self.exprs(of)),
            "time" => Expr::Time(self.boxed(of)),
            "match" => {
                self.regex(of).map_or(NOTHING, |regex| Expr::Match { regex, of: self.option(node, "in") })
            }
            "has" => self.regex(of).map_or(NOTHING, |regex| Expr::Has { regex, of: self.option(node, "in") }),
            "lower" => Expr::Lower(self.boxed(of)),
            "map" => self.map(of, node),
            "join" => self.join(of, node),
            "list" => Expr::List {
                parts: self.exprs(of),
                without: node.get("without").map(|without| self.boxed(without)),
            },
            "number" => Expr::Number(self.boxed(of)),
            "same" => Expr::Same(self.exprs(of)),
            "if" => Expr::If {
                when: self.condition(of),
                then: self.option(node, "then"),
                otherwise: node.get("else").map(|otherwise| self.boxed(otherwise)),
            },
            "sum" => Expr::Sum(self.exprs(of)),
            "minus" => Expr::Minus(self.exprs(of)),
            "pad" => self.pad(of, node),
            "versioned" => Expr::Versioned(self.boxed(of)),
            _ => self.native(of),
        }
    }

    fn boxed(&mut self, node: &Node) -> Box<Expr> {
        Box::new(self.expr(node))
    }

    fn exprs(&mut self, node: &Node) -> Vec<Expr> {
        if !matches!(node.value, Yaml::List(_)) {
            self.wrong("wrong_type", node.span, format!("a list is needed, not {}", node.kind()));
        }
        node.items().iter().map(|item| self.expr(item)).collect()
    }

    fn option(&mut self, node: &Node, key: &str) -> Box<Expr> {
        match node.get(key) {
            Some(value) => self.boxed(value),
            None => {
                self.wrong("missing", node.span, format!("`{key}` is missing"));
                Box::new(NOTHING)
            }
        }
    }

    fn regex(&mut self, node: &Node) -> Option<Regex> {
        let text = node.scalar().unwrap_or_default();
        match RegexBuilder::new(text).size_limit(REGEX_SIZE).build() {
            Ok(regex) if !text.is_empty() => Some(regex),
            Ok(_) => {
                self.wrong("regex", node.span, "a regular expression is needed");
                None
            }
            Err(error) => {
                self.wrong("regex", node.span, format!("not a regular expression: {error}"));
                None
            }
        }
    }

    fn map(&mut self, table: &Node, node: &Node) -> Expr {
        let mut rows: Vec<(String, Value)> = Vec::new();
        for entry in table.entries() {
            if matches!(entry.value.value, Yaml::List(_) | Yaml::Map(_)) {
                self.wrong("wrong_type", entry.value.span, "a plain value is needed");
            }
            if rows.iter().any(|(key, _)| key.eq_ignore_ascii_case(&entry.key)) {
                self.wrong(
                    "twice",
                    entry.key_span,
                    format!("`{}` stands twice (case does not count)", entry.key),
                );
            }
            rows.push((entry.key.clone(), entry.value.json()));
        }
        if rows.is_empty() {
            self.wrong("wrong_type", table.span, "`map` needs a mapping of found value to value");
        }
        Expr::Map {
            of: self.option(node, "of"),
            table: rows,
            otherwise: node.get("else").map(|otherwise| self.boxed(otherwise)),
        }
    }

    fn join(&mut self, parts: &Node, node: &Node) -> Expr {
        let with = match node.get("with") {
            None => String::new(),
            Some(with) => with.scalar().unwrap_or_default().to_owned(),
        };
        Expr::Join { parts: self.exprs(parts), with }
    }

    fn pad(&mut self, of: &Node, node: &Node) -> Expr {
        let to = match node.get("to").map(|to| &to.value) {
            Some(Yaml::Int(to @ 1..=64, _)) => *to as usize,
            _ => {
                self.wrong("missing", node.span, "`pad` needs `to`, a number from 1 to 64");
                0
            }
        };
        Expr::Pad { of: self.boxed(of), to }
    }

    fn native(&mut self, node: &Node) -> Expr {
        let name = node.scalar().unwrap_or_default();
        if let Some(native) = NATIVES.iter().find(|native| native.name == name) {
            return Expr::Native(*native);
        }
        let mistake = Diagnostic::error(
            "unknown_function",
            self.file,
            node.span,
            "there is no native function of this name",
        );
        self.mistakes.push(mistake.names(name, NATIVES.iter().map(|native| native.name)));
        NOTHING
    }

    /// `{ path: test, ... }`: all of them; a list of such: any of them.
    pub(super) fn condition(&mut self, node: &Node) -> When {
        let alternatives = match &node.value {
            Yaml::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut any = Vec::with_capacity(alternatives.len());
        for all in alternatives {
            if !matches!(all.value, Yaml::Map(_)) {
                self.wrong("wrong_type", all.span, "a condition is a mapping of path to test");
            }
            let clauses = all.entries().iter().map(|entry| {
                let key = Node { span: entry.key_span, value: Yaml::Text(entry.key.clone()) };
                Clause { of: self.name(&entry.key, &key), test: self.test(&entry.value) }
            });
            any.push(clauses.collect());
        }
        When(any)
    }

    fn test(&mut self, node: &Node) -> Test {
        match &node.value {
            Yaml::List(items) => Test::OneOf(self.words(items)),
            Yaml::Map(entries) => match entries.as_slice() {
                [entry] if entry.key == "present" => Test::Present(entry.value.value == Yaml::Bool(true)),
                [entry] if entry.key == "matches" => match self.regex(&entry.value) {
                    Some(regex) => Test::Matches(regex),
                    None => Test::Present(true),
                },
                [entry] if entry.key == "not" => match &entry.value.value {
                    Yaml::List(items) => Test::NoneOf(self.words(items)),
                    _ => Test::NoneOf(self.words(std::slice::from_ref(&entry.value))),
                },
                _ => {
                    self.wrong(
                        "wrong_type",
                        node.span,
                        "a test is a value, a list of values, or one of `present`, `matches`, `not`",
                    );
                    Test::Present(true)
                }
            },
            _ => Test::OneOf(self.words(std::slice::from_ref(node))),
        }
    }

    fn words(&mut self, items: &[Node]) -> Vec<String> {
        let mut words = Vec::with_capacity(items.len());
        for item in items {
            match item.scalar() {
                Some(text) => words.push(text.to_owned()),
                None => self.wrong("wrong_type", item.span, "a plain value is needed"),
            }
        }
        words
    }
}
