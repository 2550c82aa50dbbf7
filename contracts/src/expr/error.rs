//! What is wrong with an expression, and where.
//!
//! *In*: a byte range and the mistake. *Out*: an [`ExprError`]. *Never*: a file name or a line (the
//! caller knows where the expression stands).

use std::ops::Range;

/// A mistake in an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// Stable name of the kind of mistake, see [`super::compile`].
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// First byte of the place in the text.
    pub start: usize,
    /// The byte after the last of the place in the text.
    pub end: usize,
    /// What stands there.
    pub found: Option<String>,
    /// What could stand there.
    pub allowed: Option<String>,
    /// The nearest name that exists.
    pub nearest: Option<String>,
    /// What to do.
    pub fix: Option<String>,
}

impl ExprError {
    pub(super) fn new(code: &'static str, place: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            start: place.start,
            end: place.end,
            found: None,
            allowed: None,
            nearest: None,
            fix: None,
        }
    }

    pub(super) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The names that could stand there, and the nearest of them to `found`.
    pub(super) fn names<'a>(mut self, found: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        self.found = Some(found.to_owned());
        self.nearest = nearest(found, &names);
        if let Some(nearest) = &self.nearest {
            self.fix = Some(format!("did you mean `{nearest}`?"));
        }
        self.allowed = (!names.is_empty()).then(|| list(&names));
        self
    }
}

/// Names shown in a list of what is allowed; beyond it they are counted.
const SHOWN_NAMES: usize = 40;

fn list(names: &[&str]) -> String {
    let shown = names.iter().take(SHOWN_NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN_NAMES) {
        Some(more @ 1..) => format!("{shown} and {more} more"),
        _ => shown,
    }
}

/// The name most like `found`, when it is alike enough to be a slip: Jaro-Winkler (Winkler 1990)
/// at 0.75 or above, letters compared without case.
fn nearest(found: &str, names: &[&str]) -> Option<String> {
    let found = found.to_lowercase();
    names
        .iter()
        .map(|name| (strsim::jaro_winkler(&found, &name.to_lowercase()), *name))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name.to_owned())
}
