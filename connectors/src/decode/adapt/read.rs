//! Reads an adapter's YAML.
//!
//! *In*: one file. *Out*: an [`Adapter`], or every mistake with file:line:column, what stands there and what
//! could. *Never*: an adapter with a mistake, a key that is passed over.
//!
//! `expr` reads values and conditions.

mod expr;

use contracts::diagnostic::Diagnostic;
use contracts::text::{SourceFile, Span};
use contracts::yaml::{self, Node, Yaml};

use super::path::{Path, Root};
use super::spec::{Adapter, Expr, Rule, Skip, When};

const KEYS: [&str; 11] = [
    "adapter",
    "description",
    "docs",
    "headers",
    "delivery",
    "unwrap",
    "about",
    "let",
    "skip",
    "rules",
    "otherwise",
];
const RULE_KEYS: [&str; 6] = ["when", "each", "only", "emit", "fields", "why"];
const SKIP_KEYS: [&str; 2] = ["when", "why"];

/// Reads one adapter.
pub(super) fn read(file: &SourceFile) -> Result<Adapter, Vec<Diagnostic>> {
    let (documents, mistakes) = yaml::documents(file);
    let mut reader = Reader { file: &file.path, lets: Vec::new(), headers: Vec::new(), mistakes };
    let adapter = match documents.as_slice() {
        [node] => Some(reader.adapter(node)),
        _ => {
            let start = Span { offset: 0, line: 1, column: 1, length: 0 };
            reader.wrong("documents", start, "an adapter is one YAML document");
            None
        }
    };
    match adapter {
        Some(adapter) if reader.mistakes.is_empty() => Ok(adapter),
        _ => {
            reader.mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
            Err(reader.mistakes)
        }
    }
}

/// The names of all functions.
#[cfg(test)]
pub(super) fn functions() -> impl Iterator<Item = &'static str> {
    expr::FUNCTIONS.iter().map(|(name, _)| *name).filter(|name| *name != "first")
}

struct Reader<'a> {
    file: &'a str,
    /// Names of `let`.
    lets: Vec<String>,
    /// Headers that are kept.
    headers: Vec<String>,
    mistakes: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn wrong(&mut self, code: &'static str, at: Span, message: impl Into<String>) {
        self.mistakes.push(Diagnostic::error(code, self.file, at, message));
    }

    /// Reports the keys of a mapping that mean nothing.
    fn known(&mut self, node: &Node, what: &str, keys: &[&'static str]) {
        if !matches!(node.value, Yaml::Map(_)) {
            let message = format!("{what} is {}, but a mapping is needed", node.kind());
            self.wrong("wrong_type", node.span, message);
        }
        for entry in node.entries() {
            if !keys.contains(&entry.key.as_str()) {
                let mistake = Diagnostic::error(
                    "unknown_key",
                    self.file,
                    entry.key_span,
                    format!("{what} has no key `{}`", entry.key),
                );
                self.mistakes.push(mistake.names(&entry.key, keys.iter().copied()));
            }
        }
    }

    /// The text of a key.
    fn text(&mut self, node: &Node, key: &'static str) -> Option<String> {
        let value = node.get(key)?;
        match value.text() {
            Some(text) if !text.is_empty() => Some(text.to_owned()),
            _ => {
                let message = format!("`{key}` is {}, but text is needed", value.kind());
                self.wrong("wrong_type", value.span, message);
                None
            }
        }
    }

    fn needed(&mut self, node: &Node, key: &'static str) -> String {
        if node.get(key).is_none() {
            self.wrong("missing", node.span, format!("`{key}` is missing"));
        }
        self.text(node, key).unwrap_or_default()
    }

    fn adapter(&mut self, node: &Node) -> Adapter {
        self.known(node, "an adapter", &KEYS);
        let name = self.needed(node, "adapter");
        let description = self.needed(node, "description");
        self.text(node, "docs");
        for header in self.items(node, "headers") {
            match header.text() {
                Some(text) if text == text.to_ascii_lowercase() && !text.is_empty() => {
                    self.headers.push(text.to_owned());
                }
                _ => self.wrong("wrong_type", header.span, "the name of a header in lower case is needed"),
            }
        }
        let lets: Vec<(&str, &Node)> = match node.get("let") {
            Some(all) => all.entries().iter().map(|entry| (entry.key.as_str(), &entry.value)).collect(),
            None => Vec::new(),
        };
        // A value may use those above it only: no circles.
        let mut values = Vec::with_capacity(lets.len());
        for (name, value) in lets {
            values.push(self.expr(value));
            self.lets.push(name.to_owned());
        }
        let delivery = node.get("delivery").map(|value| self.expr(value));
        let unwrap = self.text(node, "unwrap");
        let about = self.about(node);
        let skip = self.skips(node, "skip");
        let otherwise = self.skips(node, "otherwise");
        let rules = self.items(node, "rules").iter().map(|rule| self.rule(rule)).collect::<Vec<_>>();
        if rules.is_empty() {
            self.wrong("missing", node.span, "an adapter needs `rules`");
        }
        Adapter {
            name,
            file: self.file.to_owned(),
            description,
            headers: self.headers.clone(),
            delivery,
            unwrap,
            about,
            lets: values,
            skip,
            rules,
            otherwise,
        }
    }

    /// The items of a list; a mistake when it is none.
    fn items<'n>(&mut self, node: &'n Node, key: &'static str) -> &'n [Node] {
        let Some(value) = node.get(key) else { return &[] };
        if !matches!(value.value, Yaml::List(_)) {
            self.wrong(
                "wrong_type",
                value.span,
                format!("`{key}` is {}, but a list is needed", value.kind()),
            );
        }
        value.items()
    }

    fn about(&mut self, node: &Node) -> Vec<(String, Expr)> {
        let items = self.items(node, "about");
        items.iter().map(|item| (item.scalar().unwrap_or("value").to_owned(), self.expr(item))).collect()
    }

    fn skips(&mut self, node: &Node, key: &'static str) -> Vec<Skip> {
        let items = self.items(node, key);
        let mut skips = Vec::with_capacity(items.len());
        for item in items {
            self.known(item, "a skip", &SKIP_KEYS);
            // Why a delivery is of no use is for whoever reads the file.
            self.needed(item, "why");
            skips.push(Skip { when: self.when(item) });
        }
        skips
    }

    fn rule(&mut self, node: &Node) -> Rule {
        self.known(node, "a rule", &RULE_KEYS);
        let emit = self.needed(node, "emit");
        self.text(node, "why");
        let each = self.text(node, "each").and_then(|text| {
            let at = node.get("each").map_or(node.span, |each| each.span);
            self.path(&text, at)
        });
        let only = node.get("only").map(|only| self.condition(only)).unwrap_or_default();
        if each.is_none() && !only.0.is_empty() {
            self.wrong("missing", node.span, "`only` picks items of `each`, which is missing");
        }
        let mut fields = Vec::new();
        match node.get("fields") {
            Some(all) => {
                for entry in all.entries() {
                    fields.push((entry.key.clone(), self.expr(&entry.value)));
                }
            }
            None => self.wrong("missing", node.span, "a rule needs `fields`"),
        }
        for needed in ["event_id", "timestamp"] {
            if !fields.iter().any(|(name, _)| name == needed) {
                let message = format!("the fields of `{emit}` lack `{needed}`");
                self.wrong("missing", node.span, message);
            }
        }
        Rule { when: self.when(node), each, only, emit, fields }
    }

    fn when(&mut self, node: &Node) -> When {
        node.get("when").map(|when| self.condition(when)).unwrap_or_default()
    }

    fn path(&mut self, text: &str, at: Span) -> Option<Path> {
        match Path::parse(text) {
            Ok(path) => {
                if let Root::Header(name) = &path.root
                    && !self.headers.contains(name)
                {
                    let message = format!("`header.{name}` is read, but `headers` does not keep it");
                    let known: Vec<String> = self.headers.clone();
                    let mistake = Diagnostic::error("unknown_header", self.file, at, message);
                    self.mistakes.push(mistake.names(name, known.iter().map(String::as_str)));
                }
                Some(path)
            }
            Err(problem) => {
                self.wrong("path", at, format!("`{text}` is not a path: {problem}"));
                None
            }
        }
    }
}
