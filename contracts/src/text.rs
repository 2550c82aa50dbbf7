//! The text of contract files and places in it.
//!
//! *In*: paths and text as the caller read them. *Out*: [`SourceFile`] and [`Span`]. *Never*: I/O.

use std::sync::Arc;

/// One file, as the caller read it.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Shown in diagnostics exactly as given.
    pub path: String,
    /// The whole text.
    pub text: Arc<str>,
}

impl SourceFile {
    /// A file from its path and text.
    pub fn new(path: impl Into<String>, text: impl Into<Arc<str>>) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}

/// A place in a file, all in characters (not bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Characters before the place in the file.
    pub offset: usize,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// Length; 0 for an empty node.
    pub length: usize,
}

impl Span {
    /// The place `skip` characters after the start of this span in `text`, `length` long.
    pub fn within(self, text: &str, skip: usize, length: usize) -> Self {
        let (mut line, mut column) = (self.line, self.column);
        for c in text.chars().skip(self.offset).take(skip) {
            if c == '\n' {
                line += 1;
                column = 1;
            } else {
                column += 1;
            }
        }
        Self { offset: self.offset + skip, line, column, length }
    }

    /// The characters of the span.
    pub fn slice(self, text: &str) -> String {
        text.chars().skip(self.offset).take(self.length).collect()
    }
}

/// The name of `names` nearest to `found`, if one is near enough to be meant.
pub fn nearest<'a>(found: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let found_low = found.to_lowercase();
    names
        .into_iter()
        .filter(|name| *name != found)
        .map(|name| (strsim::damerau_levenshtein(&found_low, &name.to_lowercase()), name))
        .filter(|(distance, name)| {
            let longest = found.chars().count().max(name.chars().count());
            // A third of the letters may differ: catches slips, not other words.
            *distance <= (longest / 3).max(1) && *distance < longest
        })
        .min_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(b.1)))
        .map(|(_, name)| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_catches_slips_only() {
        let names = ["order.created", "order.updated", "click"];
        assert_eq!(nearest("order.craeted", names).as_deref(), Some("order.created"));
        assert_eq!(nearest("Click", names).as_deref(), Some("click"));
        assert_eq!(nearest("payment", names), None);
        assert_eq!(nearest("x", ["y"]), None);
    }

    #[test]
    fn within_crosses_lines() {
        let span = Span { offset: 2, line: 1, column: 3, length: 5 };
        let place = span.within("abcdé\nfgh", 4, 2);
        assert_eq!((place.offset, place.line, place.column), (6, 2, 1));
        assert_eq!(place.slice("abcdé\nfgh"), "fg");
    }
}
