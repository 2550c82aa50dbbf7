//! YAML 1.2 documents in which every node knows its place.
//!
//! *In*: the text of one file. *Out*: its documents and the syntax errors of the others. *Never*: a
//! broken document that hides the ones around it, a duplicate key, a node without a place, recursion
//! over the input's depth.

mod node;

pub use node::{Entry, Node, Yaml};

use std::collections::HashMap;

use saphyr::{Scalar, ScalarStyle};
use saphyr_parser::{Event, Parser, Span as RawSpan};

use crate::diagnostic::Diagnostic;
use crate::text::{SourceFile, Span};

/// Nesting deeper than this is refused: no contract needs it and later passes recurse.
const MAX_DEPTH: usize = 64;
/// Nodes of a document after aliases are expanded: stops a "billion laughs" document.
const MAX_NODES: usize = 200_000;

/// All documents of a file that parse; for the others, what is wrong.
pub fn documents(file: &SourceFile) -> (Vec<Node>, Vec<Diagnostic>) {
    let (mut documents, mut diagnostics) = (Vec::new(), Vec::new());
    for piece in pieces(&file.text) {
        let mut reader = Reader::new(file, &piece);
        reader.read(piece.text);
        documents.append(&mut reader.documents);
        diagnostics.append(&mut reader.diagnostics);
    }
    (documents, diagnostics)
}

/// A part of a file between document markers, parsed on its own.
struct Piece<'a> {
    text: &'a str,
    /// Characters and lines of the file before it.
    offset: usize,
    line: usize,
}

/// Cuts at lines that begin with `---`: YAML allows such a line nowhere inside a document.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let skipped = usize::from(body.len() != text.len());
    let mut cuts = vec![(0, skipped, 0)];
    let (mut byte, mut chars, mut lines) = (0, skipped, 0);
    // Directives (`%YAML 1.2`) belong to the document after the marker.
    let mut only_directives = true;
    for row in body.split_inclusive('\n') {
        let marker = row
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker {
            if !only_directives {
                cuts.push((byte, chars, lines));
            }
            only_directives = false;
        } else if !(row.trim().is_empty() || row.starts_with(['#', '%'])) {
            only_directives = false;
        }
        byte += row.len();
        chars += row.chars().count();
        lines += 1;
    }
    let ends = cuts.iter().skip(1).map(|cut| cut.0).chain([body.len()]);
    cuts.iter()
        .zip(ends)
        .map(|(&(start, offset, line), end)| Piece { text: &body[start..end], offset, line })
        .collect()
}

/// A collection that is being filled.
enum Open {
    List(Vec<Node>),
    Map(Vec<Entry>, Option<(String, Span)>),
}

struct Frame {
    open: Open,
    span: Span,
    anchor: usize,
}

struct Reader<'a> {
    file: &'a SourceFile,
    offset: usize,
    line: usize,
    /// Characters before each line of the piece.
    line_starts: Vec<usize>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    broken: bool,
    documents: Vec<Node>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a SourceFile, piece: &Piece<'_>) -> Self {
        let mut line_starts = vec![0];
        let mut chars = 0;
        for row in piece.text.split_inclusive('\n') {
            chars += row.chars().count();
            line_starts.push(chars);
        }
        Self {
            file,
            offset: piece.offset,
            line: piece.line,
            line_starts,
            stack: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            broken: false,
            documents: Vec::new(),
            diagnostics: Vec::new(),
        }
    }

    fn span(&self, raw: RawSpan) -> Span {
        let line = raw.start.line().max(1);
        let column = raw.start.col();
        let start = self.line_starts.get(line - 1).copied().unwrap_or_default() + column;
        let end_line = raw.end.line().max(1);
        let end = self.line_starts.get(end_line - 1).copied().unwrap_or_default() + raw.end.col();
        Span {
            offset: self.offset + start,
            line: self.line + line,
            column: column + 1,
            length: end.saturating_sub(start),
        }
    }

    /// One syntax error per document: what follows it is guesswork.
    fn refuse(&mut self, span: Span, message: impl Into<String>, fix: Option<&str>) {
        if self.broken {
            return;
        }
        let mut diagnostic = Diagnostic::error("syntax", &self.file.path, span, message);
        diagnostic.fix = fix.map(str::to_string);
        self.diagnostics.push(diagnostic);
        self.broken = true;
    }

    fn read(&mut self, text: &str) {
        let mut parser = Parser::new_from_str(text);
        while let Some(step) = parser.next_event() {
            match step {
                Ok((event, raw)) => self.event(event, raw),
                Err(error) => {
                    let at = *error.marker();
                    let mut span = self.span(RawSpan::empty(at));
                    span.length = 1;
                    let fix = "check the indentation, and quote text that holds `: `, ` #` or begins with one of `{[&*!|>%@`";
                    self.refuse(span, format!("not YAML: {}", error.info()), Some(fix));
                    return;
                }
            }
        }
    }

    fn event(&mut self, event: Event<'_>, raw: RawSpan) {
        let span = self.span(raw);
        match event {
            Event::DocumentStart(_) => {
                self.anchors.clear();
                self.stack.clear();
                self.nodes = 0;
                self.broken = false;
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((mut node, size)) => {
                    node.span = span;
                    self.add(node, size, 0);
                }
                None => {
                    self.refuse(span, "an alias of an anchor that contains it", None);
                    self.add(Node { span, value: Yaml::Null }, 1, 0);
                }
            },
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_ref().map(|t| t.suffix.as_str()));
                self.add(Node { span, value }, 1, anchor);
            }
            Event::SequenceStart(anchor, _) => self.open(Open::List(Vec::new()), span, anchor),
            Event::MappingStart(anchor, _) => {
                self.open(Open::Map(Vec::new(), None), span, anchor);
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }

    fn open(&mut self, open: Open, span: Span, anchor: usize) {
        if self.stack.len() == MAX_DEPTH && !self.broken {
            self.refuse(span, format!("nested deeper than {MAX_DEPTH} levels"), None);
        }
        // The length of a collection would be all of its text: point to its first character.
        let span = Span { length: 1, ..span };
        self.stack.push(Frame { open, span, anchor });
    }

    fn close(&mut self) {
        let Some(frame) = self.stack.pop() else { return };
        let value = match frame.open {
            Open::List(items) => Yaml::List(items),
            Open::Map(entries, _) => Yaml::Map(entries),
        };
        self.add(Node { span: frame.span, value }, 1, frame.anchor);
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Node, size: usize, anchor: usize) {
        self.nodes += size;
        if self.nodes > MAX_NODES && !self.broken {
            let message = format!("more than {MAX_NODES} values once aliases are written out");
            self.refuse(node.span, message, None);
        }
        if self.broken {
            // Only the shape of the rest is followed, so that the next document is found.
            if let Some(Frame { open: Open::Map(_, key), .. }) = self.stack.last_mut() {
                *key = match key.take() {
                    Some(_) => None,
                    None => Some((String::new(), node.span)),
                };
            }
            return;
        }
        if anchor > 0 {
            let size = count(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.stack.last_mut().map(|frame| &mut frame.open) {
            None => self.documents.push(node),
            Some(Open::List(items)) => items.push(node),
            Some(Open::Map(_, key)) => match key.take() {
                None => match node.scalar() {
                    Some(text) => *key = Some((text.to_string(), node.span)),
                    None => {
                        *key = Some((String::new(), node.span));
                        let found = node.kind();
                        let message = format!("a key must be text, not {found}");
                        self.refuse(node.span, message, None);
                    }
                },
                Some((key, key_span)) => self.entry(key, key_span, node),
            },
        }
    }

    fn entry(&mut self, key: String, key_span: Span, value: Node) {
        let Some(Frame { open: Open::Map(entries, _), .. }) = self.stack.last_mut() else { return };
        match entries.iter().find(|entry| entry.key == key) {
            None => entries.push(Entry { key, key_span, value }),
            Some(first) => {
                let message = format!("the key `{key}` stands twice");
                let first = first.key_span;
                self.diagnostics.push(
                    Diagnostic::error("duplicate_key", &self.file.path, key_span, message)
                        .found(format!("first at line {}, column {}", first.line, first.column))
                        .fix("remove or rename one of them"),
                );
            }
        }
    }
}

fn count(node: &Node) -> usize {
    match &node.value {
        Yaml::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Yaml::Map(entries) => 1 + entries.iter().map(|e| count(&e.value)).sum::<usize>(),
        _ => 1,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&str>) -> Yaml {
    if style != ScalarStyle::Plain || tag == Some("str") {
        return Yaml::Text(text.to_string());
    }
    if text.is_empty() {
        return Yaml::Null;
    }
    match Scalar::parse_from_cow(text.into()) {
        Scalar::Null => Yaml::Null,
        Scalar::Boolean(v) => Yaml::Bool(v),
        Scalar::Integer(v) => Yaml::Int(v, text.to_string()),
        Scalar::FloatingPoint(v) => Yaml::Float(v.into_inner(), text.to_string()),
        Scalar::String(_) => Yaml::Text(text.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Node>, Vec<Diagnostic>) {
        documents(&SourceFile::new("t.yaml", text))
    }

    #[test]
    fn places_are_in_characters() {
        let (docs, errors) = read("# ü\na: 'ü'\nb: {c: [1, 2.50]}\n---\nd: x\n");
        assert!(errors.is_empty());
        let number = &docs[0].get("b").unwrap().get("c").unwrap().items()[1];
        assert_eq!(number.scalar(), Some("2.50"));
        assert_eq!((number.span.line, number.span.column, number.span.length), (3, 12, 4));
        let d = docs[1].entry("d").unwrap();
        assert_eq!((d.key_span.line, d.key_span.column), (5, 1));
        assert_eq!(docs[0].get("a").unwrap().span.slice("# ü\na: 'ü'\n"), "'ü'");
    }

    #[test]
    fn a_broken_document_hides_nothing() {
        let (docs, errors) = read("a: 1\n---\nb: [1\nc: }\n---\nd: 2\nd: 3\n");
        assert_eq!(docs.len(), 2);
        let codes: Vec<_> = errors.iter().map(|e| (e.code, e.line)).collect();
        assert_eq!(codes.len(), 2, "{errors:?}");
        assert_eq!(codes[1], ("duplicate_key", 7));
    }

    #[test]
    fn aliases_and_their_bounds() {
        let (docs, errors) = read("a: &x {b: 1}\nc: *x\n");
        assert!(errors.is_empty());
        assert_eq!(docs[0].get("c"), docs[0].get("a"));
        let mut text = String::from("l0: &l0 [x]\n");
        for i in 1..9 {
            let refs = vec![format!("*l{}", i - 1); 9].join(", ");
            text.push_str(&format!("l{i}: &l{i} [{refs}]\n"));
        }
        let (_, errors) = read(&text);
        assert!(errors.iter().any(|e| e.message.contains("aliases")), "{errors:?}");
        let deep = "[".repeat(100_000);
        assert!(!read(&deep).1.is_empty());
        assert!(!read("*nope").1.is_empty());
    }

    #[test]
    fn directives_comments_and_empty_files() {
        assert!(read("").0.is_empty() && read("# nothing\n").1.is_empty());
        let (docs, errors) = read("%YAML 1.2\n---\na: yes\n...\n");
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(docs[0].get("a").unwrap().text(), Some("yes"));
    }
}
