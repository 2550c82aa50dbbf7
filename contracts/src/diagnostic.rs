//! What is wrong with contracts, for people, programs and editors.
//!
//! *In*: a place, a code, and what was found and is allowed. *Out*: a [`Diagnostic`], its plain text
//! (stable, golden-tested), its JSON, and a `miette` report. *Never*: colours or widths (the terminal view
//! of `miette` does that).

use std::fmt;
use std::sync::Arc;

use crate::text::{SourceFile, Span};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The contract is not run.
    Error,
    /// The contract is run; something in it deserves a look.
    Warning,
}

/// One mistake in a contract file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// Stable name of the kind of mistake: `unknown_key`, `wrong_type`, ...
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// The file as given to [`crate::load`].
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Length of the place in characters.
    pub length: usize,
    /// One sentence.
    pub message: String,
    /// What stands there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What could stand there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// The nearest name that exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Place in the file in characters, for the terminal view.
    #[serde(skip)]
    pub offset: usize,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(code: &'static str, file: &str, span: Span, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            file: file.to_string(),
            line: span.line,
            column: span.column,
            length: span.length,
            message: message.into(),
            found: None,
            allowed: None,
            nearest: None,
            fix: None,
            offset: span.offset,
        }
    }

    /// Makes it a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// What stands there.
    #[must_use]
    pub fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(shorten(&found.into()));
        self
    }

    /// What could stand there.
    #[must_use]
    pub fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    /// The names that could stand there, and the nearest of them to `found`.
    #[must_use]
    pub fn names<'a>(mut self, found: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        self.found = Some(shorten(found));
        self.nearest = crate::text::nearest(found, names.iter().copied());
        self.allowed = Some(list(&names));
        self
    }

    /// What to do.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// True for errors.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The fancy terminal view: `miette` prints it with the lines of `file`.
    pub fn report(&self, file: &SourceFile) -> miette::Report {
        let (offset, length) = byte_range(&file.text, self.offset, self.length);
        miette::Report::new(Shown {
            diagnostic: self.clone(),
            source: miette::NamedSource::new(&self.file, Arc::clone(&file.text)),
            span: miette::SourceSpan::new(offset.into(), length),
        })
    }
}

/// Names for people: all of them, or the first twenty.
fn list(names: &[&str]) -> String {
    const MOST: usize = 20;
    if names.is_empty() {
        return "nothing (none is defined)".to_string();
    }
    let mut text = names[..names.len().min(MOST)].join(", ");
    if names.len() > MOST {
        text.push_str(&format!(", and {} more", names.len() - MOST));
    }
    text
}

/// One line of at most 120 characters.
fn shorten(text: &str) -> String {
    const MOST: usize = 120;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MOST {
        return line;
    }
    line.chars().take(MOST - 3).chain("...".chars()).collect()
}

fn byte_range(text: &str, offset: usize, length: usize) -> (usize, usize) {
    let mut starts = text.char_indices().map(|(at, _)| at).skip(offset);
    let start = starts.next().unwrap_or(text.len());
    let end = match length {
        0 => start,
        _ => starts.nth(length - 1).unwrap_or(text.len()),
    };
    (start, end - start)
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(
            f,
            "{}:{}:{}: {severity}[{}]: {}",
            self.file, self.line, self.column, self.code, self.message
        )?;
        let rows = [
            ("found", &self.found),
            ("allowed", &self.allowed),
            ("did you mean", &self.nearest),
            ("fix", &self.fix),
        ];
        for (label, text) in rows {
            if let Some(text) = text {
                write!(f, "\n  {label}: {text}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// All diagnostics as plain text, one block each.
pub fn render(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|d| format!("{d}\n")).collect()
}

/// A [`Diagnostic`] with its source, for `miette`.
#[derive(Debug)]
struct Shown {
    diagnostic: Diagnostic,
    source: miette::NamedSource<Arc<str>>,
    span: miette::SourceSpan,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Shown {}

impl miette::Diagnostic for Shown {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.diagnostic.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let d = &self.diagnostic;
        let mut lines = Vec::new();
        for (label, text) in [("allowed", &d.allowed), ("did you mean", &d.nearest), ("fix", &d.fix)] {
            if let Some(text) = text {
                lines.push(format!("{label}: {text}"));
            }
        }
        (!lines.is_empty()).then(|| Box::new(lines.join("\n")) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let label = self.diagnostic.found.as_ref().map(|found| format!("found: {found}"));
        let span = miette::LabeledSpan::new_with_span(label, self.span);
        Some(Box::new(std::iter::once(span)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_fancy() {
        let file = SourceFile::new("a.yaml", "kiñd: Event\nname: x\n");
        let span = Span { offset: 12, line: 2, column: 1, length: 4 };
        let d = Diagnostic::error("unknown_key", "a.yaml", span, "unknown key").names("nam", ["name"]);
        assert_eq!(
            d.to_string(),
            "a.yaml:2:1: error[unknown_key]: unknown key\n  found: nam\n  allowed: name\n  did you mean: name"
        );
        let fancy = format!("{:?}", d.report(&file));
        assert!(fancy.contains("a.yaml") && fancy.contains("name: x"), "{fancy}");
    }

    #[test]
    fn byte_range_counts_characters() {
        assert_eq!(byte_range("éa", 1, 1), (2, 1));
        assert_eq!(byte_range("éa", 0, 1), (0, 2));
        assert_eq!(byte_range("éa", 9, 3), (3, 0));
    }
}
