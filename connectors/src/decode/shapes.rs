//! The template tier: what stood between two values the last time, expected again.
//!
//! *In*: the bytes from one value's end to the next value's start (`, "amount": `), seen once by the
//! scanner. *Out*: on the next event, one comparison instead of scanning and looking up the key.
//! *Never*: a guess that is taken on trust: a run holds only when every byte is equal, and the value
//! behind it is scanned in full, so a match proves what the scanner would have found.
//!
//! Runs are the states of a small learned machine; each remembers up to [`NEXT`] runs that followed it.

use super::words::WordMap;

/// Followers remembered per run. More (many event types on one topic) go through the scanner.
const NEXT: usize = 4;
/// Runs remembered in all; then they are learned anew from the next chunk on.
const MAX_RUNS: usize = 1024;
/// Longer runs (white space, long keys) are not learned.
const MAX_LEN: usize = 256;
/// No state: nothing is expected.
pub(super) const NONE: u16 = u16::MAX;

#[derive(Debug)]
struct Run {
    /// The first 16 bytes.
    word: u128,
    /// Ones where `word` counts.
    mask: u128,
    bytes: Box<[u8]>,
    /// The node of the key, see [`super::walk`].
    child: u32,
    /// The high bit, if a byte is not ASCII.
    seen: u64,
    next: [u16; NEXT],
}

/// A run that holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Followed {
    pub(super) state: u16,
    pub(super) child: u32,
    /// Where the value starts.
    pub(super) at: usize,
    /// To be or-ed into [`super::scan::Scan::seen`].
    pub(super) seen: u64,
}

/// See the module's words.
#[derive(Debug)]
pub(super) struct Shapes {
    /// First the start states, then the learned runs.
    runs: Vec<Run>,
    /// Node and bytes of each learned run: the same key in the same object is one state.
    known: WordMap,
    /// How many of `runs`, from the first, stand for "an object of node n begins".
    starts: usize,
}

impl Shapes {
    pub(super) fn new() -> Self {
        Self { runs: Vec::new(), known: WordMap::new(), starts: 0 }
    }

    /// Forgets everything and provides a start state for each of `nodes` nodes.
    pub(super) fn reset(&mut self, nodes: usize) {
        self.runs.clear();
        self.known.clear();
        self.starts = nodes.min(MAX_RUNS / 2);
        for _ in 0..self.starts {
            self.push(&[], 0);
        }
    }

    /// No more is learned until a reset.
    pub(super) fn is_full(&self) -> bool {
        self.runs.len() >= MAX_RUNS
    }

    /// The state in which an object of `node` begins.
    #[inline]
    pub(super) fn start(&self, node: u32) -> u16 {
        if (node as usize) < self.starts { node as u16 } else { NONE }
    }

    /// The expected run that stands at `at`, if any.
    #[inline]
    pub(super) fn follow(&self, state: u16, buf: &[u8], at: usize) -> Option<Followed> {
        let rest = buf.get(at..)?;
        let next = &self.runs.get(state as usize)?.next;
        let Some(chunk) = rest.first_chunk::<16>() else {
            return self.follow_slowly(next, rest, at);
        };
        let word = u128::from_le_bytes(*chunk);
        for &state in next {
            let run = self.runs.get(state as usize)?;
            if (word ^ run.word) & run.mask == 0 && (run.bytes.len() <= 16 || rest.starts_with(&run.bytes)) {
                let at = at + run.bytes.len();
                return Some(Followed { state, child: run.child, at, seen: run.seen });
            }
        }
        None
    }

    /// The same within 16 bytes of the end.
    #[cold]
    fn follow_slowly(&self, next: &[u16; NEXT], rest: &[u8], at: usize) -> Option<Followed> {
        for &state in next {
            let run = self.runs.get(state as usize)?;
            if rest.starts_with(&run.bytes) {
                let at = at + run.bytes.len();
                return Some(Followed { state, child: run.child, at, seen: run.seen });
            }
        }
        None
    }

    /// Remembers that `bytes`, whose key is `child`, followed `state` in an object of `node`. Returns
    /// the state after it.
    #[cold]
    pub(super) fn learn(&mut self, state: u16, node: u32, bytes: &[u8], child: u32) -> u16 {
        if bytes.len() > MAX_LEN {
            return NONE;
        }
        let name = [&node.to_le_bytes(), bytes].concat();
        let new = match self.known.get(&name) {
            Some(id) => (self.starts + id as usize) as u16,
            None if self.is_full() => return NONE,
            None => {
                self.known.add(&name);
                self.push(bytes, child)
            }
        };
        if let Some(from) = self.runs.get_mut(state as usize) {
            match from.next.iter().position(|n| *n == NONE) {
                Some(free) => from.next[free] = new,
                // The oldest but the first gives way.
                None => {
                    from.next[1..].rotate_left(1);
                    from.next[NEXT - 1] = new;
                }
            }
        }
        new
    }

    fn push(&mut self, bytes: &[u8], child: u32) -> u16 {
        let mut word = [0; 16];
        let mut mask = [0; 16];
        for (i, byte) in bytes.iter().take(16).enumerate() {
            word[i] = *byte;
            mask[i] = 0xFF;
        }
        let seen = bytes.iter().fold(0, |seen, byte| seen | u64::from(*byte));
        self.runs.push(Run {
            word: u128::from_le_bytes(word),
            mask: u128::from_le_bytes(mask),
            bytes: bytes.into(),
            child,
            seen,
            next: [NONE; NEXT],
        });
        (self.runs.len() - 1) as u16
    }
}
