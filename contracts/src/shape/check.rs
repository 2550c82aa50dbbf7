//! Checks a document against its shape.
//!
//! *In*: a node and a [`Shape`]. *Out*: diagnostics for unknown, missing and wrongly typed keys. *Never*:
//! stopping at the first one; looking at what names mean.

use crate::diagnostic::Diagnostic;
use crate::duration::{DURATION_HELP, parse_duration, parse_share, parse_version};
use crate::yaml::{Node, Yaml};

use super::{Names, Shape, Ty};

/// Adds to `out` all that is wrong with the shape of `node`.
pub(crate) fn check(node: &Node, shape: &'static Shape, file: &str, out: &mut Vec<Diagnostic>) {
    Checker { file, out }.object(node, shape, "");
}

struct Checker<'a> {
    file: &'a str,
    out: &'a mut Vec<Diagnostic>,
}

impl Checker<'_> {
    fn object(&mut self, node: &Node, shape: &'static Shape, path: &str) {
        for entry in node.entries() {
            match shape.keys().find(|key| key.name == entry.key) {
                Some(key) => self.value(&entry.value, &key.ty, &join(path, &entry.key)),
                None => {
                    let message = format!("`{}` is not a key of {}", entry.key, shape.name);
                    let names = shape.keys().map(|key| key.name);
                    self.out.push(
                        Diagnostic::error("unknown_key", self.file, entry.key_span, message)
                            .names(&entry.key, names),
                    );
                }
            }
        }
        for key in shape.keys().filter(|key| key.required && node.get(key.name).is_none()) {
            let message = format!("`{}` is missing", join(path, key.name));
            let allowed = expected(&key.ty);
            self.out.push(
                Diagnostic::error("missing_key", self.file, node.span, message)
                    .allowed(allowed)
                    .fix(format!("add `{}: ...`: {}", key.name, plain(key.doc))),
            );
        }
    }

    fn value(&mut self, node: &Node, ty: &'static Ty, path: &str) {
        if !fits(node, ty) {
            let message = format!("`{path}` must be {}, not {}", expected(ty), node.kind());
            self.out.push(Diagnostic::error("wrong_type", self.file, node.span, message).found(node.shown()));
            return;
        }
        match ty {
            Ty::List(item) => {
                for (index, node) in node.items().iter().enumerate() {
                    self.value(node, item, &format!("{path}[{index}]"));
                }
            }
            Ty::Map(names, item) => {
                for entry in node.entries() {
                    if *names == Names::Column {
                        self.column(&entry.key, entry.key_span, path);
                    }
                    self.value(&entry.value, item, &join(path, &entry.key));
                }
            }
            Ty::Object(shape) => self.object(node, shape, path),
            Ty::Either(types) => {
                if let Some(ty) = types.iter().find(|ty| fits(node, ty)) {
                    self.value(node, ty, path);
                }
            }
            _ => self.scalar(node, ty, path),
        }
    }

    /// The text of a scalar that has the right YAML type.
    fn scalar(&mut self, node: &Node, ty: &'static Ty, path: &str) {
        let text = node.scalar().unwrap_or_default();
        let wrong =
            |code, message: String| Diagnostic::error(code, self.file, node.span, message).found(text);
        let diagnostic = match ty {
            Ty::OneOf(words) if !words.contains(&text) => {
                let message = format!("`{text}` is not a value of `{path}`");
                wrong("not_allowed", message).names(text, words.iter().copied())
            }
            Ty::Duration if parse_duration(text).is_none() => {
                wrong("bad_duration", format!("`{path}` is not a duration")).allowed(DURATION_HELP)
            }
            Ty::Version if parse_version(text).is_none() => {
                wrong("bad_version", format!("`{path}` is not a semantic version"))
                    .allowed("major.minor.patch, e.g. 1.0.0")
            }
            Ty::Share if parse_share(text).is_none() => {
                wrong("bad_share", format!("`{path}` is not a share"))
                    .allowed("a percentage like 1% or a number from 0 to 1")
            }
            Ty::Name if !is_contract_name(text) => wrong("bad_name", format!("`{path}` is not a name"))
                .allowed("letters, digits, `_`, `-`, `.`, `/`, beginning with a letter or digit"),
            Ty::Expr if text.trim().is_empty() => {
                wrong("empty_expression", format!("`{path}` is empty")).allowed("an SQL expression")
            }
            _ => return,
        };
        self.out.push(diagnostic);
    }

    fn column(&mut self, name: &str, span: crate::text::Span, path: &str) {
        if is_column_name(name) {
            return;
        }
        let suggestion: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let message = format!("`{name}` under `{path}` cannot be used in expressions");
        let mut diagnostic = Diagnostic::error("bad_name", self.file, span, message)
            .found(name)
            .allowed("letters, digits and `_`, not beginning with a digit, `__` or `$`");
        if is_column_name(&suggestion) {
            diagnostic = diagnostic.fix(format!("rename it, e.g. to `{suggestion}`"));
        }
        self.out.push(diagnostic);
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

/// A doc text without its markup and closing dot.
fn plain(doc: &str) -> String {
    doc.trim_end_matches('.').replace('`', "")
}

fn is_contract_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && text.len() <= 200
}

fn is_column_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && !text.starts_with("__")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether the YAML type of `node` is one `ty` takes.
fn fits(node: &Node, ty: &Ty) -> bool {
    let scalar = node.scalar().is_some();
    match ty {
        Ty::Text | Ty::Name | Ty::Duration | Ty::Version | Ty::Expr | Ty::OneOf(_) | Ty::Share => scalar,
        Ty::Bool => matches!(node.value, Yaml::Bool(_)),
        Ty::Count => matches!(node.value, Yaml::Int(v, _) if v >= 0),
        Ty::Number => matches!(node.value, Yaml::Int(..) | Yaml::Float(..)),
        Ty::List(_) => matches!(node.value, Yaml::List(_)),
        Ty::Map(..) | Ty::Object(_) => matches!(node.value, Yaml::Map(_)),
        Ty::Either(types) => types.iter().any(|ty| fits(node, ty)),
        Ty::Scalar => scalar || node.value == Yaml::Null,
        Ty::Any => true,
    }
}

/// What `ty` takes, for people.
pub(super) fn expected(ty: &Ty) -> String {
    match ty {
        Ty::Text => "text".to_string(),
        Ty::Name => "a name".to_string(),
        Ty::Bool => "true or false".to_string(),
        Ty::Count => "a whole number of at least 0".to_string(),
        Ty::Number => "a number".to_string(),
        Ty::Share => "a share like 1% or 0.01".to_string(),
        Ty::Duration => "a duration like 30s".to_string(),
        Ty::Version => "a version like 1.0.0".to_string(),
        Ty::Expr => "an SQL expression".to_string(),
        Ty::OneOf(words) => match words {
            [word] => format!("`{word}`"),
            _ => format!("one of {}", words.join(", ")),
        },
        Ty::List(_) => "a list".to_string(),
        Ty::Map(..) => "a mapping of names".to_string(),
        Ty::Object(shape) => {
            let keys: Vec<&str> = shape.keys().map(|key| key.name).collect();
            format!("a mapping with the keys {}", keys.join(", "))
        }
        Ty::Either(types) => types.iter().map(expected).collect::<Vec<_>>().join(" or "),
        Ty::Scalar => "a plain value".to_string(),
        Ty::Any => "anything".to_string(),
    }
}
