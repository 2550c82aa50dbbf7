//! Why a row is refused, and where in the event.
//!
//! *In*: a code, a place, words. *Out*: [`Reason`]s of one row, all of them. *Never*: more than 80
//! characters of a value, or any of a value declared `pii`.

use std::fmt;

use contracts::batch::Reason;

use super::raw::Raw;
use super::scan::Syntax;
use super::text;
use super::walk::Walker;

/// A place in the event; built only by reference, shown only when something is wrong there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path<'p> {
    /// The event, or a top-level path.
    Top(&'p str),
    /// A key below.
    Key(&'p Path<'p>, &'p str),
    /// A list item.
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top(path) => f.write_str(path),
            Self::Key(above, key) => write!(f, "{above}.{key}"),
            Self::Item(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

/// What reading a row needs beside its bytes.
#[derive(Debug)]
pub(super) struct Row<'r> {
    /// The row's reasons; none: it is decoded.
    pub(super) reasons: Vec<Reason>,
    /// The field at hand is personal data.
    pub(super) hide: bool,
    /// Walks objects inside of list and struct fields.
    pub(super) nested: &'r mut Walker,
}

impl Row<'_> {
    #[cold]
    pub(super) fn refuse(&mut self, code: &str, at: &Path<'_>, message: String) {
        self.reasons.push(reason(code, at.to_string(), message));
    }

    #[cold]
    pub(super) fn missing(&mut self, at: &Path<'_>, raw: Raw<'_>) {
        let found = if matches!(raw, Raw::Absent) { "is absent" } else { "is null" };
        self.refuse("missing", at, format!("required, but {found}"));
    }

    #[cold]
    pub(super) fn wrong_type(&mut self, at: &Path<'_>, expected: &str, raw: Raw<'_>) {
        let found = if self.hide { "a hidden value".to_owned() } else { raw.found() };
        self.refuse("wrong_type", at, format!("found {found}, expected {expected}"));
    }

    /// Text as a message shows it.
    pub(super) fn shown(&self, value: &[u8]) -> String {
        if self.hide { "a hidden value".to_owned() } else { format!("\"{}\"", text::clip(value)) }
    }
}

pub(super) fn reason(code: &str, path: String, message: String) -> Reason {
    Reason { code: code.to_owned(), path, message }
}

/// The one reason of a record that is not JSON.
pub(super) fn malformed(syntax: Syntax) -> Reason {
    let message = format!("byte {}: {}", syntax.at, syntax.what);
    reason("malformed_json", String::new(), message)
}
