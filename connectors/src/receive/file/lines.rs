//! Cuts a stream of bytes into records.
//!
//! *In*: bytes as they come. *Out*: whole records, as ranges of one shared buffer. *Never*: more than
//! the record limit (and one buffer) in memory, however long a line is.

use std::io::{self, Read};

use bytes::Bytes;

use crate::decode::csv_record_end;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// What ends a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    /// A line break.
    Lines,
    /// A line break outside of quotes.
    Csv,
}

/// A record's place in [`Whole::bytes`], its line break included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Line breaks in it.
    pub(super) lines: i64,
}

/// The whole records of one read.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    pub(super) ranges: Vec<Range>,
    /// The head of a record that is longer than allowed, following those of `ranges`.
    pub(super) oversize: Option<Bytes>,
    /// Its line breaks, as far as they have been read.
    pub(super) oversize_lines: i64,
}

pub(super) struct Buffer {
    split: Split,
    limit: usize,
    /// The start of a record whose end has not been read yet, then what was read.
    bytes: Vec<u8>,
    /// The rest of an oversize record is being passed over.
    skipping: bool,
}

impl Buffer {
    pub(super) fn new(split: Split, limit: usize) -> Self {
        Self { split, limit, bytes: Vec::new(), skipping: false }
    }

    /// Reads once; 0 at the end. Waits only for the first byte, so that a pipe is read as it flows.
    pub(super) fn fill(&mut self, input: &mut impl Read) -> io::Result<usize> {
        let old = self.bytes.len();
        self.bytes.resize(old + READ_BYTES, 0);
        let read = loop {
            match input.read(&mut self.bytes[old..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.bytes.truncate(old + read.as_ref().map_or(0, |n| *n));
        read
    }

    /// Takes the whole records; at the `end` also the last one, which may have no line break.
    pub(super) fn take_whole(&mut self, end: bool) -> Whole {
        let mut whole = Whole::default();
        let mut at = 0;
        if self.skipping {
            match self.bytes.iter().position(|b| *b == b'\n') {
                Some(stop) => {
                    at = stop + 1;
                    whole.oversize_lines = 1;
                    self.skipping = false;
                }
                None => at = self.bytes.len(),
            }
            if at > 0 && whole.oversize_lines == 1 {
                // Those lines come before the records below: count them first.
                whole.ranges.push(Range { start: at, end: at, lines: 1 });
                whole.oversize_lines = 0;
            }
        }
        while let Some(len) = self.record_end(&self.bytes[at..]) {
            let lines = match self.split {
                Split::Lines => 1,
                Split::Csv => memchr::memchr_iter(b'\n', &self.bytes[at..at + len]).count() as i64,
            };
            whole.ranges.push(Range { start: at, end: at + len, lines });
            at += len;
        }
        if end && at < self.bytes.len() && !self.skipping {
            let lines = memchr::memchr_iter(b'\n', &self.bytes[at..]).count() as i64;
            whole.ranges.push(Range { start: at, end: self.bytes.len(), lines: lines.max(1) });
            at = self.bytes.len();
        }
        let mut rest = self.bytes.split_off(at);
        if rest.len() > self.limit {
            whole.oversize_lines = match self.split {
                Split::Lines => 0, // its line break is still to come
                Split::Csv => memchr::memchr_iter(b'\n', &rest).count() as i64,
            };
            rest.truncate(self.limit + 1);
            whole.oversize = Some(std::mem::take(&mut rest).into());
            self.skipping = true;
        }
        whole.bytes = std::mem::replace(&mut self.bytes, rest).into();
        whole
    }

    fn record_end(&self, bytes: &[u8]) -> Option<usize> {
        match self.split {
            Split::Lines => memchr::memchr(b'\n', bytes).map(|at| at + 1),
            Split::Csv => csv_record_end(bytes),
        }
    }
}

/// The cells of a CSV header.
pub(super) fn csv_cells(line: &[u8]) -> Result<Vec<String>, String> {
    let text = std::str::from_utf8(line).map_err(|_| "the header line is not UTF-8".to_owned())?;
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let cell = cells.last_mut().expect("there is always a last cell");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            c => cell.push(c),
        }
    }
    if quoted {
        return Err("the header line has a quote that does not end".into());
    }
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `input` in steps of `step` bytes and returns (line, text or `oversize`).
    fn cut(input: &[u8], split: Split, limit: usize, step: usize) -> Vec<(i64, String)> {
        let mut buffer = Buffer::new(split, limit);
        let (mut out, mut line) = (Vec::new(), 1);
        let mut chunks = input.chunks(step);
        loop {
            let mut next = chunks.next().unwrap_or(&[]);
            let read = buffer.fill(&mut next).unwrap();
            let whole = buffer.take_whole(read == 0);
            for r in &whole.ranges {
                let text = String::from_utf8_lossy(&whole.bytes[r.start..r.end]).trim().to_owned();
                if !text.is_empty() {
                    out.push((line, text));
                }
                line += r.lines;
            }
            if whole.oversize.is_some() {
                out.push((line, "oversize".into()));
            }
            line += whole.oversize_lines;
            if read == 0 {
                return out;
            }
        }
    }

    #[test]
    fn lines_come_out_whole_however_they_are_read() {
        let input = b"a\n\nbb\r\nccc\n\xc3\xa9\nlast";
        let want: Vec<(i64, String)> =
            [(1, "a"), (3, "bb"), (4, "ccc"), (5, "\u{e9}"), (6, "last")].map(|(n, t)| (n, t.into())).into();
        for step in 1..input.len() {
            assert_eq!(cut(input, Split::Lines, 100, step), want, "step {step}");
        }
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_lines_keep_their_numbers() {
        let input = format!("a\n{}\nb\n", "x".repeat(1000));
        for step in [1, 7, 64] {
            let got = cut(input.as_bytes(), Split::Lines, 50, step);
            let want = [(1, "a"), (2, "oversize"), (3, "b")].map(|(n, t)| (n, t.to_owned()));
            assert_eq!(got, want, "step {step}");
        }
    }

    #[test]
    fn csv_records_may_hold_line_breaks() {
        let input = b"h1,h2\n1,\"x\ny\"\n2,z\n";
        for step in 1..input.len() {
            let got = cut(input, Split::Csv, 100, step);
            let want = [(1, "h1,h2"), (2, "1,\"x\ny\""), (4, "2,z")].map(|(n, t)| (n, t.to_owned()));
            assert_eq!(got, want, "step {step}");
        }
    }

    #[test]
    fn header_cells() {
        assert_eq!(csv_cells(b"a,\"b,c\",\"d\"\"e\",").unwrap(), ["a", "b,c", "d\"e", ""]);
        assert!(csv_cells(b"a,\"b").is_err());
    }
}
