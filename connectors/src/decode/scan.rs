//! The JSON grammar (RFC 8259), strictly.
//!
//! *In*: bytes and a position. *Out*: what stands there and where it ends, or what is wrong.
//! *Never*: recursion deeper than [`MAX_DEPTH`], a copy, a value taken apart.
//!
//! Accepts exactly what `serde_json::Value` accepts: no lone surrogates, no number beyond `f64`, no more
//! than 127 open containers. So whatever is admitted can be read again by any JSON reader.

/// Most containers open at once: `serde_json`'s limit, so that a stored payload can always be read.
pub(super) const MAX_DEPTH: u32 = 127;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    True,
    False,
    /// A number without fraction and exponent.
    Integer,
    /// Any other number.
    Number,
    /// A string without escapes.
    Text,
    /// A string with at least one backslash.
    Escaped,
    Object,
    Array,
}

/// Where and why bytes are not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    /// Byte position.
    pub(super) at: usize,
    /// What is wrong there.
    pub(super) what: &'static str,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// A reader of one text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan<'a> {
    pub(super) buf: &'a [u8],
    /// Every byte seen in strings, or-ed together (and some that follow them): tells whether UTF-8 must
    /// be checked at all.
    pub(super) seen: u64,
}

impl<'a> Scan<'a> {
    pub(super) fn new(buf: &'a [u8]) -> Self {
        Self { buf, seen: 0 }
    }

    /// The position of the first byte from `at` that is not white space.
    #[inline]
    pub(super) fn space(&self, mut at: usize) -> usize {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.buf.get(at) {
            at += 1;
        }
        at
    }

    /// Scans the value at `at`; `depth` containers are open around it. Returns its kind and its end.
    #[inline]
    pub(super) fn value(&mut self, at: usize, depth: u32) -> Result<(Kind, usize), Syntax> {
        match self.buf.get(at) {
            Some(b'"') => self.string(at + 1),
            Some(b'0'..=b'9' | b'-') => self.number(at),
            Some(b'{') => Ok((Kind::Object, self.object(at + 1, depth + 1)?)),
            Some(b'[') => Ok((Kind::Array, self.array(at + 1, depth + 1)?)),
            Some(b't') => self.word(at, b"true", Kind::True),
            Some(b'f') => self.word(at, b"false", Kind::False),
            Some(b'n') => self.word(at, b"null", Kind::Null),
            Some(_) => Err(Syntax { at, what: "expected a value" }),
            None => Err(Syntax { at, what: "ends where a value is expected" }),
        }
    }

    /// Nothing but white space from `at` to the end, and all of it UTF-8.
    #[inline]
    pub(super) fn finish(&self, at: usize) -> Result<(), Syntax> {
        let end = self.space(at);
        if end < self.buf.len() {
            return Err(Syntax { at: end, what: "expected the end, found more" });
        }
        self.utf8()
    }

    /// All strings scanned so far are UTF-8.
    #[inline]
    pub(super) fn utf8(&self) -> Result<(), Syntax> {
        if self.seen & HIGH != 0 && simdutf8::basic::from_utf8(self.buf).is_err() {
            let at = std::str::from_utf8(self.buf).map_or_else(|e| e.valid_up_to(), str::len);
            return Err(Syntax { at, what: "not UTF-8" });
        }
        Ok(())
    }

    /// The end of the string whose first byte after the quote is at `at`, behind its closing quote.
    #[inline]
    pub(super) fn string(&mut self, mut at: usize) -> Result<(Kind, usize), Syntax> {
        let mut kind = Kind::Text;
        loop {
            let stop = self.plain(at);
            match self.buf.get(stop) {
                Some(b'"') => return Ok((kind, stop + 1)),
                Some(b'\\') => {
                    kind = Kind::Escaped;
                    at = self.escape(stop + 1)?;
                }
                Some(_) => return Err(Syntax { at: stop, what: "a control character in a string" }),
                None => return Err(Syntax { at: stop, what: "ends inside a string" }),
            }
        }
    }

    /// The first quote, backslash or control byte from `at`, else the end. Eight bytes at a time.
    #[inline]
    fn plain(&mut self, mut at: usize) -> usize {
        while let Some(chunk) = self.buf.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_le_bytes(*chunk);
            self.seen |= word;
            // Each term has the high bit of its lowest true byte set; wrong ones can only stand above it.
            let quote = word ^ (ONES * b'"' as u64);
            let slash = word ^ (ONES * b'\\' as u64);
            let stop = (quote.wrapping_sub(ONES) & !quote)
                | (slash.wrapping_sub(ONES) & !slash)
                | (word.wrapping_sub(ONES * 0x20) & !word);
            let stop = stop & HIGH;
            if stop != 0 {
                return at + (stop.trailing_zeros() / 8) as usize;
            }
            at += 8;
        }
        while let Some(&byte) = self.buf.get(at) {
            if byte == b'"' || byte == b'\\' || byte < 0x20 {
                return at;
            }
            self.seen |= u64::from(byte);
            at += 1;
        }
        at
    }

    /// The end of the escape whose letter is at `at`.
    #[cold]
    fn escape(&self, at: usize) -> Result<usize, Syntax> {
        match self.buf.get(at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 1),
            Some(b'u') => match self.hex(at + 1)? {
                0xD800..=0xDBFF => {
                    let pair = self.buf.get(at + 5..at + 7) == Some(b"\\u");
                    if pair && matches!(self.hex(at + 7)?, 0xDC00..=0xDFFF) {
                        Ok(at + 11)
                    } else {
                        Err(Syntax { at, what: "half of a surrogate pair" })
                    }
                }
                0xDC00..=0xDFFF => Err(Syntax { at, what: "half of a surrogate pair" }),
                _ => Ok(at + 5),
            },
            Some(_) => Err(Syntax { at, what: "an unknown escape" }),
            None => Err(Syntax { at, what: "ends inside a string" }),
        }
    }

    fn hex(&self, at: usize) -> Result<u32, Syntax> {
        let wrong = Syntax { at, what: "`\\u` without four hexadecimal digits" };
        let digits = self.buf.get(at..at + 4).ok_or(wrong)?;
        digits.iter().try_fold(0, |code, byte| {
            (*byte as char).to_digit(16).map(|digit| code << 4 | digit).ok_or(wrong)
        })
    }

    /// The end of the number that starts at `at`.
    #[inline]
    pub(super) fn number(&self, at: usize) -> Result<(Kind, usize), Syntax> {
        let byte = |at: usize| self.buf.get(at).copied().unwrap_or(0);
        let mut end = at + usize::from(byte(at) == b'-');
        match byte(end) {
            b'0' => end += 1,
            b'1'..=b'9' => end = self.digits(end + 1),
            _ => return Err(Syntax { at: end, what: "a number without digits" }),
        }
        let mut kind = Kind::Integer;
        if byte(end) == b'.' {
            kind = Kind::Number;
            if !byte(end + 1).is_ascii_digit() {
                return Err(Syntax { at: end + 1, what: "a number without digits after the point" });
            }
            end = self.digits(end + 2);
        }
        if matches!(byte(end), b'e' | b'E') {
            kind = Kind::Number;
            let sign = usize::from(matches!(byte(end + 1), b'+' | b'-'));
            if !byte(end + 1 + sign).is_ascii_digit() {
                return Err(Syntax { at: end, what: "a number without digits in its exponent" });
            }
            let small = byte(end + 1) == b'-';
            end = self.digits(end + 2 + sign);
            if !small {
                self.finite(at, end)?;
            }
        }
        // Below 300 characters and without an exponent no number leaves the range of f64.
        if end - at > 300 {
            self.finite(at, end)?;
        }
        Ok((kind, end))
    }

    #[inline]
    fn digits(&self, mut at: usize) -> usize {
        while let Some(b'0'..=b'9') = self.buf.get(at) {
            at += 1;
        }
        at
    }

    /// `serde_json` decides what is still a number for `f64`: then both say the same.
    #[cold]
    fn finite(&self, at: usize, end: usize) -> Result<(), Syntax> {
        match serde_json::from_slice::<f64>(&self.buf[at..end]) {
            Ok(_) => Ok(()),
            Err(_) => Err(Syntax { at, what: "a number out of range (at most about 1.8e308)" }),
        }
    }

    fn word(&self, at: usize, word: &'static [u8], kind: Kind) -> Result<(Kind, usize), Syntax> {
        if self.buf.get(at..at + word.len()) == Some(word) {
            Ok((kind, at + word.len()))
        } else {
            Err(Syntax { at, what: "expected a value" })
        }
    }

    /// The end of the object whose first byte after the brace is at `at`.
    fn object(&mut self, at: usize, depth: u32) -> Result<usize, Syntax> {
        deep(at, depth)?;
        let mut at = self.space(at);
        if self.buf.get(at) == Some(&b'}') {
            return Ok(at + 1);
        }
        loop {
            let (_, end) = self.key(at)?;
            let value = self.colon(end)?;
            let (_, end) = self.value(value, depth)?;
            at = self.space(end);
            match self.buf.get(at) {
                Some(b',') => at = self.space(at + 1),
                Some(b'}') => return Ok(at + 1),
                _ => return Err(Syntax { at, what: "expected `,` or `}`" }),
            }
        }
    }

    /// Scans the key that must start at `at`; its end is behind the closing quote.
    #[inline]
    pub(super) fn key(&mut self, at: usize) -> Result<(Kind, usize), Syntax> {
        match self.buf.get(at) {
            Some(b'"') => self.string(at + 1),
            _ => Err(Syntax { at, what: "expected a key in double quotes" }),
        }
    }

    /// Passes the colon after a key that ended at `at`; returns where the value starts.
    #[inline]
    pub(super) fn colon(&self, at: usize) -> Result<usize, Syntax> {
        let at = self.space(at);
        match self.buf.get(at) {
            Some(b':') => Ok(self.space(at + 1)),
            _ => Err(Syntax { at, what: "expected `:` after a key" }),
        }
    }

    fn array(&mut self, at: usize, depth: u32) -> Result<usize, Syntax> {
        deep(at, depth)?;
        let mut elements = Elements::new(at);
        while elements.next(self, depth)?.is_some() {}
        Ok(elements.at)
    }
}

/// Fails when `depth` containers are too many.
#[inline]
pub(super) fn deep(at: usize, depth: u32) -> Result<(), Syntax> {
    if depth > MAX_DEPTH {
        return Err(Syntax { at, what: "nested deeper than 127 levels" });
    }
    Ok(())
}

/// Walks the elements of an array.
#[derive(Debug)]
pub(super) struct Elements {
    /// After the last element: behind the closing bracket.
    pub(super) at: usize,
    first: bool,
}

impl Elements {
    /// `at` is behind the opening bracket.
    pub(super) fn new(at: usize) -> Self {
        Self { at, first: true }
    }

    /// Kind, start and end of the next element; `None` when the array has ended. `depth` counts the
    /// array itself.
    #[inline]
    pub(super) fn next(
        &mut self,
        scan: &mut Scan<'_>,
        depth: u32,
    ) -> Result<Option<(Kind, usize, usize)>, Syntax> {
        let mut start = scan.space(self.at);
        match scan.buf.get(start) {
            Some(b']') => {
                self.at = start + 1;
                return Ok(None);
            }
            Some(b',') if !self.first => start = scan.space(start + 1),
            Some(_) if self.first => {}
            _ => return Err(Syntax { at: start, what: "expected `,` or `]`" }),
        }
        let (kind, end) = scan.value(start, depth)?;
        self.first = false;
        self.at = end;
        Ok(Some((kind, start, end)))
    }
}
