//! The settings as a tree of values that remember where they were written.
//!
//! *In*: YAML text, environment variables. *Out*: [`Node`]s with an [`Origin`] each.
//! *Never*: what a setting means (the parts beside this file know that).

use std::fmt;
use std::sync::Arc;

use contracts::diagnostic::Diagnostic;
use contracts::text::{SourceFile, Span};
use contracts::yaml::{self, Yaml};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the default holds.
    Default,
    /// In a file.
    File {
        /// As given on the command line.
        file: Arc<str>,
        /// The place in it.
        span: Span,
    },
    /// In this environment variable.
    Env(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, span } => write!(f, "{file}:{}:{}", span.line, span.column),
            Self::Env(name) => write!(f, "environment {name}"),
        }
    }
}

/// One value with its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// The value.
    pub data: Data,
    /// Where it was written.
    pub origin: Origin,
}

/// The shapes YAML has.
#[derive(Debug, Clone)]
pub enum Data {
    /// Empty or `null`.
    Null,
    /// Text, number or boolean, as written.
    Scalar {
        /// The text.
        text: String,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping in written order: key, place of the key, value.
    Map(Vec<(String, Origin, Node)>),
}

impl Node {
    /// What kind of thing it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.data {
            Data::Null => "nothing",
            Data::Scalar { .. } => "a value",
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
        }
    }

    /// A short rendering for messages and `doctor`.
    pub fn show(&self) -> String {
        match &self.data {
            Data::Null => "null".into(),
            Data::Scalar { text } => text.clone(),
            Data::List(items) => format!("[{}]", items.iter().map(Node::show).collect::<Vec<_>>().join(", ")),
            Data::Map(entries) => format!(
                "{{{}}}",
                entries.iter().map(|(k, _, v)| format!("{k}: {}", v.show())).collect::<Vec<_>>().join(", ")
            ),
        }
    }
}

impl Origin {
    /// A mistake at this place.
    pub fn error(&self, code: &'static str, message: impl Into<String>) -> Diagnostic {
        match self {
            Self::File { file, span } => Diagnostic::error(code, file, *span, message),
            Self::Env(name) => Diagnostic::error(code, &format!("${name}"), FIRST, message),
            Self::Default => Diagnostic::error(code, "settings", FIRST, message),
        }
    }
}

/// The place of what is written in no file.
const FIRST: Span = Span { offset: 0, line: 1, column: 1, length: 0 };

/// Reads all documents of `file`, and what is wrong with the rest of it.
pub fn parse(file: &SourceFile) -> (Vec<Node>, Vec<Diagnostic>) {
    let path: Arc<str> = file.path.as_str().into();
    let (documents, mistakes) = yaml::documents(file);
    (documents.iter().map(|node| convert(&path, node)).collect(), mistakes)
}

/// Reads the value of an environment variable: YAML flow style (`[a, b]`, `{ a: b }`), else text as it is.
pub fn parse_env(name: &str, text: &str) -> Result<Node, Diagnostic> {
    let origin = Origin::Env(name.into());
    let trimmed = text.trim();
    if !(trimmed.starts_with('[') || trimmed.starts_with('{')) {
        return Ok(Node { data: Data::Scalar { text: trimmed.to_owned() }, origin });
    }
    let (mut nodes, mistakes) = parse(&SourceFile::new(format!("${name}"), trimmed));
    if let Some(mistake) = mistakes.into_iter().next() {
        return Err(mistake);
    }
    let mut node = nodes.pop().unwrap_or(Node { data: Data::Null, origin: origin.clone() });
    relocate(&mut node, &origin);
    Ok(node)
}

fn relocate(node: &mut Node, origin: &Origin) {
    node.origin = origin.clone();
    match &mut node.data {
        Data::List(items) => items.iter_mut().for_each(|n| relocate(n, origin)),
        Data::Map(entries) => {
            for (_, at, value) in entries {
                *at = origin.clone();
                relocate(value, origin);
            }
        }
        Data::Null | Data::Scalar { .. } => {}
    }
}

fn convert(file: &Arc<str>, node: &yaml::Node) -> Node {
    let at = |span| Origin::File { file: file.clone(), span };
    let data = match &node.value {
        Yaml::Null => Data::Null,
        Yaml::List(items) => Data::List(items.iter().map(|item| convert(file, item)).collect()),
        Yaml::Map(entries) => Data::Map(
            entries.iter().map(|e| (e.key.clone(), at(e.key_span), convert(file, &e.value))).collect(),
        ),
        _ => Data::Scalar { text: node.scalar().unwrap_or_default().to_owned() },
    };
    Node { data, origin: at(node.span) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_one() {
        let nodes = parse(&SourceFile::new("s.yaml", "a: 1\nb:\n  c: [x, 2]\n")).0;
        let Data::Map(entries) = &nodes[0].data else { panic!("a mapping") };
        assert_eq!(entries[1].1.to_string(), "s.yaml:2:1");
        let Data::Map(inner) = &entries[1].2.data else { panic!("a mapping") };
        assert_eq!(inner[0].2.show(), "[x, 2]");
        assert_eq!(inner[0].2.origin.to_string(), "s.yaml:3:6");
    }

    #[test]
    fn an_environment_value_may_be_a_list() {
        assert_eq!(parse_env("X", "[a, b]").unwrap().show(), "[a, b]");
        assert_eq!(parse_env("X", "0.0.0.0:80").unwrap().show(), "0.0.0.0:80");
        assert!(parse_env("X", "[a, b").is_err());
    }
}
