//! One walk over an event: every declared path is found, everything else is only checked.
//!
//! *In*: the union of the paths wanted by the envelope and by all event types, as a tree of keys; an
//! object's bytes. *Out*: per node, what stands there and where ([`Capture`]). *Never*: a second pass, a
//! value taken apart, a key found inside a string or in a nested object of the same name.

use super::raw::Raw;
use super::scan::{Bad, Kind, Scan, Syntax, deep};
use super::shapes::Shapes;
use super::text;
use super::words::WordMap;

/// A key nobody wants.
const IGNORED: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    keys: WordMap,
    /// Node of each key, by its number in `keys`.
    children: Vec<u32>,
}

/// What stands at a node.
#[derive(Debug, Clone, Copy)]
struct Capture {
    /// The walk that found it; of another walk it says nothing.
    walk: u32,
    /// Strings: inside the quotes.
    start: u32,
    end: u32,
    kind: Kind,
    /// The key came twice.
    twice: bool,
}

const NOTHING: Capture = Capture { walk: 0, twice: false, kind: Kind::Null, start: 0, end: 0 };

/// Names one finished walk, so that captures of another are not taken for its.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walk(u32);

/// See the module's words.
#[derive(Debug)]
pub(super) struct Walker {
    nodes: Vec<Node>,
    captures: Vec<Capture>,
    walk: u32,
    /// Some wanted key came twice in this walk.
    twice: bool,
    shapes: Shapes,
    /// Nodes were added: `shapes` is of another tree.
    stale: bool,
}

enum Member {
    Key { child: u32, at: usize },
    End(usize),
}

impl Walker {
    pub(super) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            captures: Vec::new(),
            walk: 0,
            twice: false,
            shapes: Shapes::new(),
            stale: false,
        }
    }

    /// A new tree. Trees are built before the first walk.
    pub(super) fn root(&mut self) -> u32 {
        self.nodes.push(Node { keys: WordMap::new(), children: Vec::new() });
        self.captures.push(NOTHING);
        self.stale = true;
        (self.nodes.len() - 1) as u32
    }

    /// Wants `path` below `root`. Returns the nodes of its keys, the wanted one last.
    pub(super) fn want(&mut self, root: u32, path: &[String]) -> Vec<u32> {
        let mut node = root;
        let mut way = Vec::with_capacity(path.len());
        for key in path {
            node = match self.nodes[node as usize].keys.get(key.as_bytes()) {
                Some(id) => self.nodes[node as usize].children[id as usize],
                None => {
                    let child = self.root();
                    let parent = &mut self.nodes[node as usize];
                    parent.keys.add(key.as_bytes());
                    parent.children.push(child);
                    child
                }
            };
            way.push(node);
        }
        way
    }

    /// Walks the object that starts at `at` (on its brace). Returns the walk and the object's end.
    #[inline]
    pub(super) fn walk(
        &mut self,
        root: u32,
        scan: &mut Scan<'_>,
        at: usize,
    ) -> Result<(Walk, usize), Syntax> {
        if self.stale {
            self.shapes.reset(self.nodes.len());
            self.stale = false;
        }
        if self.walk == u32::MAX {
            self.captures.fill(NOTHING);
            self.walk = 0;
        }
        self.walk += 1;
        self.twice = false;
        let end = self.object(scan, root, at, 1).map_err(|Bad| scan.fault)?;
        Ok((Walk(self.walk), end))
    }

    /// What stands at `node`; `buf` is what was walked.
    #[inline(always)]
    pub(super) fn raw<'a>(&self, walk: Walk, node: u32, buf: &'a [u8]) -> Raw<'a> {
        let capture = &self.captures[node as usize];
        if capture.walk != walk.0 {
            return Raw::Absent;
        }
        Raw::of(capture.kind, &buf[capture.start as usize..capture.end as usize])
    }

    /// A key on the way `way` came twice in the last walk.
    #[inline]
    pub(super) fn twice(&self, walk: Walk, way: &[u32]) -> bool {
        self.twice
            && way.iter().any(|node| {
                let capture = &self.captures[*node as usize];
                capture.walk == walk.0 && capture.twice
            })
    }

    /// Some wanted key came twice in the last walk.
    #[inline]
    pub(super) fn any_twice(&self) -> bool {
        self.twice
    }

    /// Between chunks: makes room when too many shapes were learned.
    pub(super) fn settle(&mut self) {
        if self.shapes.is_full() {
            self.stale = true;
        }
    }

    fn object(&mut self, scan: &mut Scan<'_>, node: u32, start: usize, depth: u32) -> Result<usize, Bad> {
        deep(scan, start, depth)?;
        let mut state = self.shapes.start(node);
        let mut at = start;
        loop {
            // A run reaches from one value's end to the next value's start; the first includes the brace.
            let (child, value) = if let Some(followed) = self.shapes.follow(state, scan.buf, at) {
                state = followed.state;
                scan.seen |= followed.seen;
                (followed.child, followed.at)
            } else {
                match self.member(scan, node, at, at == start)? {
                    Member::End(end) => return Ok(end),
                    Member::Key { child, at: value } => {
                        state = self.shapes.learn(state, node, &scan.buf[at..value], child);
                        (child, value)
                    }
                }
            };
            let mut value = value;
            let (kind, end) = loop {
                match scan.buf.get(value) {
                    Some(b'"') => break scan.string(value + 1)?,
                    Some(b'{') if self.goes_into(child) => {
                        break (Kind::Object, self.object(scan, child, value, depth + 1)?);
                    }
                    // More white space than the run had.
                    Some(b' ' | b'\t' | b'\n' | b'\r') => value = scan.space(value),
                    _ => break scan.value(value, depth)?,
                }
            };
            if child != IGNORED {
                self.capture(child, kind, value, end);
            }
            at = end;
            if scan.buf.get(at) == Some(&b'}') {
                return Ok(at + 1);
            }
        }
    }

    /// The slow way to the next value: white space, comma, key, colon.
    fn member(&self, scan: &mut Scan<'_>, node: u32, at: usize, first: bool) -> Result<Member, Bad> {
        let mut at = scan.space(at + usize::from(first));
        match scan.buf.get(at) {
            Some(b'}') => return Ok(Member::End(at + 1)),
            Some(b',') if !first => at = scan.space(at + 1),
            _ if first => {}
            _ => return scan.fail(at, "expected `,` or `}`"),
        }
        let (kind, end) = scan.key(at)?;
        let Node { keys, children } = &self.nodes[node as usize];
        let id = match kind {
            Kind::Escaped => text::unescape(&scan.buf[at + 1..end - 1]).and_then(|key| keys.get(&key)),
            _ => keys.get(&scan.buf[at + 1..end - 1]),
        };
        let child = id.map_or(IGNORED, |id| children[id as usize]);
        Ok(Member::Key { child, at: scan.colon(end)? })
    }

    /// Something below `child` is wanted.
    fn goes_into(&self, child: u32) -> bool {
        child != IGNORED && !self.nodes[child as usize].children.is_empty()
    }

    #[inline]
    fn capture(&mut self, child: u32, kind: Kind, at: usize, end: usize) {
        let quote = usize::from(matches!(kind, Kind::Text | Kind::Escaped));
        let capture = &mut self.captures[child as usize];
        if capture.walk == self.walk {
            capture.twice = true;
            self.twice = true;
            return;
        }
        *capture = Capture {
            walk: self.walk,
            twice: false,
            kind,
            start: (at + quote) as u32,
            end: (end - quote) as u32,
        };
    }
}
