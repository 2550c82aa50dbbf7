//! YAML documents as plain trees.
//!
//! *In*: the text of contract files. *Out*: [`Node`] per document. *Never*: error messages for
//! users; only valid contracts are read.

use saphyr::{Scalar, Yaml, YamlLoader};

/// A YAML value; scalars keep their text.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// A plain `null`, `~` or nothing.
    Null,
    /// Any other scalar.
    Text(String),
    /// A sequence.
    Seq(Vec<Node>),
    /// A mapping, in order.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// All documents of a text.
    pub fn load(text: &str) -> Vec<Node> {
        let mut loader = YamlLoader::<Yaml<'_>>::default();
        loader.early_parse(false);
        let mut parser = saphyr_parser::Parser::new_from_str(text);
        parser.load(&mut loader, true).unwrap_or_else(|e| panic!("YAML: {e}\n{text}"));
        if let Some(e) = loader.error() {
            panic!("YAML: {e}\n{text}");
        }
        loader.into_documents().iter().map(Node::of).filter(|node| *node != Node::Null).collect()
    }

    fn of(yaml: &Yaml<'_>) -> Node {
        match yaml {
            Yaml::Representation(text, style, _) => match (text.as_ref(), style) {
                ("" | "~" | "null", saphyr_parser::ScalarStyle::Plain) => Node::Null,
                (text, _) => Node::Text(text.to_string()),
            },
            Yaml::Value(Scalar::Null) => Node::Null,
            Yaml::Value(value) => Node::Text(format!("{value:?}")),
            Yaml::Sequence(items) => Node::Seq(items.iter().map(Node::of).collect()),
            Yaml::Mapping(map) => Node::Map(
                map.iter().map(|(key, value)| (Node::of(key).text().to_string(), Node::of(value))).collect(),
            ),
            Yaml::Tagged(_, inner) => Node::of(inner),
            other => panic!("YAML: {other:?}"),
        }
    }

    /// The value of a key; `None` when absent or null.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Node::Map(entries) => entries.iter().find(|(k, v)| k == key && *v != Node::Null).map(|(_, v)| v),
            _ => None,
        }
    }

    /// A scalar's text.
    pub fn text(&self) -> &str {
        match self {
            Node::Text(text) => text,
            Node::Null => "null",
            other => panic!("not a scalar: {other:?}"),
        }
    }

    /// The text of a key.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key).map(Node::text)
    }

    /// `true`?
    pub fn is_true(&self, key: &str) -> bool {
        self.str(key) == Some("true")
    }

    /// The entries of a mapping under a key, none when absent.
    pub fn entries(&self, key: &str) -> &[(String, Node)] {
        match self.get(key) {
            Some(Node::Map(entries)) => entries,
            _ => &[],
        }
    }

    /// The texts of a sequence, or of a single scalar.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Node::Seq(items) => items.iter().map(|item| item.text().to_string()).collect(),
            Node::Text(text) => vec![text.clone()],
            _ => Vec::new(),
        }
    }
}
