//! The JSON grammar (RFC 8259), strictly.
//!
//! *In*: bytes and a position. *Out*: what stands there and where it ends, or what is wrong.
//! *Never*: recursion deeper than [`MAX_DEPTH`], a copy, a value taken apart.
//!
//! Accepts exactly what `serde_json::Value` accepts: no lone surrogates, no number beyond `f64`, no more
//! than 127 open containers. So whatever is admitted can be read again by any JSON reader.

use wide::u8x16;

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

/// The text is not JSON; [`Scan::fault`] says where and why. Small, because every step returns it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bad;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Bytes looked at together.
const LANES: usize = 16;

/// What of sixteen bytes ends the plain part of a string: bit i is about byte i.
#[derive(Clone, Copy)]
struct Stops {
    quotes: u32,
    /// Quotes, backslashes and control bytes.
    all: u32,
}

#[inline(always)]
fn stops(bytes: [u8; LANES]) -> Stops {
    let bytes = u8x16::new(bytes);
    let quotes = bytes.cmp_eq(u8x16::splat(b'"'));
    let slashes = bytes.cmp_eq(u8x16::splat(b'\\'));
    // The least of a byte and 0x1F is the byte itself: it is at most 0x1F.
    let controls = bytes.min(u8x16::splat(0x1F)).cmp_eq(bytes);
    let all = quotes | slashes | controls;
    Stops { quotes: quotes.move_mask() as u32, all: all.move_mask() as u32 }
}

/// A reader of one text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan<'a> {
    pub(super) buf: &'a [u8],
    /// Every byte seen in strings, or-ed together (and some that follow them): tells whether UTF-8 must
    /// be checked at all.
    pub(super) seen: u64,
    /// After [`Bad`]: what is wrong.
    pub(super) fault: Syntax,
}

impl<'a> Scan<'a> {
    pub(super) fn new(buf: &'a [u8]) -> Self {
        Self { buf, seen: 0, fault: Syntax { at: 0, what: "" } }
    }

    #[cold]
    pub(super) fn fail<T>(&mut self, at: usize, what: &'static str) -> Result<T, Bad> {
        self.fault = Syntax { at, what };
        Err(Bad)
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
    pub(super) fn value(&mut self, at: usize, depth: u32) -> Result<(Kind, usize), Bad> {
        match self.buf.get(at) {
            Some(b'"') => self.string(at + 1),
            Some(b'0'..=b'9' | b'-') => self.number(at),
            Some(b'{') => Ok((Kind::Object, self.object(at + 1, depth + 1)?)),
            Some(b'[') => Ok((Kind::Array, self.array(at + 1, depth + 1)?)),
            Some(b't') => self.word(at, b"true", Kind::True),
            Some(b'f') => self.word(at, b"false", Kind::False),
            Some(b'n') => self.word(at, b"null", Kind::Null),
            Some(_) => self.fail(at, "expected a value"),
            None => self.fail(at, "ends where a value is expected"),
        }
    }

    /// Nothing but white space from `at` to the end, and all of it UTF-8.
    #[inline]
    pub(super) fn finish(&mut self, at: usize) -> Result<(), Bad> {
        let end = self.space(at);
        if end < self.buf.len() {
            return self.fail(end, "expected the end, found more");
        }
        self.utf8()
    }

    /// All strings scanned so far are UTF-8.
    #[inline]
    pub(super) fn utf8(&mut self) -> Result<(), Bad> {
        if self.seen & HIGH != 0 && simdutf8::basic::from_utf8(self.buf).is_err() {
            let at = std::str::from_utf8(self.buf).map_or_else(|e| e.valid_up_to(), str::len);
            return self.fail(at, "not UTF-8");
        }
        Ok(())
    }

    /// The end of the string whose first byte after the quote is at `at`, behind its closing quote.
    #[inline(always)]
    pub(super) fn string(&mut self, mut at: usize) -> Result<(Kind, usize), Bad> {
        while let Some(chunk) = self.buf.get(at..).and_then(|rest| rest.first_chunk::<LANES>()) {
            self.see(chunk);
            let stops = stops(*chunk);
            if stops.all != 0 {
                let first = stops.all.trailing_zeros();
                let stop = at + first as usize;
                // Whether it is a quote is known without another look at the text.
                return if stops.quotes >> first & 1 == 1 {
                    Ok((Kind::Text, stop + 1))
                } else {
                    self.rest(stop)
                };
            }
            at += LANES;
        }
        self.rest(at)
    }

    /// [`Self::string`] from the first byte on that is not plain, or near the end.
    #[cold]
    fn rest(&mut self, mut at: usize) -> Result<(Kind, usize), Bad> {
        let mut kind = Kind::Text;
        loop {
            match self.buf.get(at) {
                Some(b'"') => return Ok((kind, at + 1)),
                Some(b'\\') => {
                    kind = Kind::Escaped;
                    at = self.escape(at + 1)?;
                }
                Some(0..0x20) => return self.fail(at, "a control character in a string"),
                Some(byte) => {
                    self.seen |= u64::from(*byte);
                    at = self.plain(at + 1);
                }
                None => return self.fail(at, "ends inside a string"),
            }
        }
    }

    /// The first quote, backslash or control byte from `at`, else the end.
    fn plain(&mut self, mut at: usize) -> usize {
        while let Some(chunk) = self.buf.get(at..).and_then(|rest| rest.first_chunk::<LANES>()) {
            self.see(chunk);
            let stops = stops(*chunk);
            if stops.all != 0 {
                return at + stops.all.trailing_zeros() as usize;
            }
            at += LANES;
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

    #[inline(always)]
    fn see(&mut self, chunk: &[u8; LANES]) {
        let both = u128::from_le_bytes(*chunk);
        self.seen |= both as u64 | (both >> 64) as u64;
    }

    /// The end of the escape whose letter is at `at`.
    #[cold]
    fn escape(&mut self, at: usize) -> Result<usize, Bad> {
        match self.buf.get(at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 1),
            Some(b'u') => match self.hex(at + 1)? {
                0xD800..=0xDBFF => {
                    let pair = self.buf.get(at + 5..at + 7) == Some(b"\\u");
                    if pair && matches!(self.hex(at + 7)?, 0xDC00..=0xDFFF) {
                        Ok(at + 11)
                    } else {
                        self.fail(at, "half of a surrogate pair")
                    }
                }
                0xDC00..=0xDFFF => self.fail(at, "half of a surrogate pair"),
                _ => Ok(at + 5),
            },
            Some(_) => self.fail(at, "an unknown escape"),
            None => self.fail(at, "ends inside a string"),
        }
    }

    fn hex(&mut self, at: usize) -> Result<u32, Bad> {
        let digits = self.buf.get(at..at + 4);
        let digit = |code, byte: &u8| (*byte as char).to_digit(16).map(|digit| code << 4 | digit);
        match digits.and_then(|digits| digits.iter().try_fold(0, digit)) {
            Some(code) => Ok(code),
            None => self.fail(at, "`\\u` without four hexadecimal digits"),
        }
    }

    /// The end of the number that starts at `at`.
    #[inline]
    pub(super) fn number(&mut self, at: usize) -> Result<(Kind, usize), Bad> {
        let buf = self.buf;
        let byte = |at: usize| buf.get(at).copied().unwrap_or(0);
        let mut end = at + usize::from(byte(at) == b'-');
        match byte(end) {
            b'0' => end += 1,
            b'1'..=b'9' => end = self.digits(end + 1),
            _ => return self.fail(end, "a number without digits"),
        }
        let mut kind = Kind::Integer;
        if byte(end) == b'.' {
            kind = Kind::Number;
            if !byte(end + 1).is_ascii_digit() {
                return self.fail(end + 1, "a number without digits after the point");
            }
            end = self.digits(end + 2);
        }
        if matches!(byte(end), b'e' | b'E') {
            kind = Kind::Number;
            let sign = usize::from(matches!(byte(end + 1), b'+' | b'-'));
            if !byte(end + 1 + sign).is_ascii_digit() {
                return self.fail(end, "a number without digits in its exponent");
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

    /// The first byte from `at` that is no digit. Eight at a time, so that it takes no longer to end
    /// after three digits than after two.
    #[inline]
    fn digits(&self, mut at: usize) -> usize {
        while let Some(chunk) = self.buf.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_le_bytes(*chunk) ^ (ONES * b'0' as u64);
            // The lowest byte above 9 has its high bit set; wrong ones can only stand above it.
            let stop = (word.wrapping_add(ONES * (0x80 - 10)) | word) & HIGH;
            if stop != 0 {
                return at + (stop.trailing_zeros() / 8) as usize;
            }
            at += 8;
        }
        while let Some(b'0'..=b'9') = self.buf.get(at) {
            at += 1;
        }
        at
    }

    /// `serde_json` decides what is still a number for `f64`: then both say the same.
    #[cold]
    fn finite(&mut self, at: usize, end: usize) -> Result<(), Bad> {
        match serde_json::from_slice::<f64>(&self.buf[at..end]) {
            Ok(_) => Ok(()),
            Err(_) => self.fail(at, "a number out of range (at most about 1.8e308)"),
        }
    }

    fn word(&mut self, at: usize, word: &'static [u8], kind: Kind) -> Result<(Kind, usize), Bad> {
        if self.buf.get(at..at + word.len()) == Some(word) {
            Ok((kind, at + word.len()))
        } else {
            self.fail(at, "expected a value")
        }
    }

    /// The end of the object whose first byte after the brace is at `at`.
    fn object(&mut self, at: usize, depth: u32) -> Result<usize, Bad> {
        deep(self, at, depth)?;
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
                _ => return self.fail(at, "expected `,` or `}`"),
            }
        }
    }

    /// Scans the key that must start at `at`; its end is behind the closing quote.
    #[inline]
    pub(super) fn key(&mut self, at: usize) -> Result<(Kind, usize), Bad> {
        match self.buf.get(at) {
            Some(b'"') => self.string(at + 1),
            _ => self.fail(at, "expected a key in double quotes"),
        }
    }

    /// Passes the colon after a key that ended at `at`; returns where the value starts.
    #[inline]
    pub(super) fn colon(&mut self, at: usize) -> Result<usize, Bad> {
        let at = self.space(at);
        match self.buf.get(at) {
            Some(b':') => Ok(self.space(at + 1)),
            _ => self.fail(at, "expected `:` after a key"),
        }
    }

    fn array(&mut self, at: usize, depth: u32) -> Result<usize, Bad> {
        deep(self, at, depth)?;
        let mut elements = Elements::new(at);
        while elements.next(self, depth)?.is_some() {}
        Ok(elements.at)
    }
}

/// Fails when `depth` containers are too many.
#[inline]
pub(super) fn deep(scan: &mut Scan<'_>, at: usize, depth: u32) -> Result<(), Bad> {
    if depth > MAX_DEPTH {
        return scan.fail(at, "nested deeper than 127 levels");
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
    ) -> Result<Option<(Kind, usize, usize)>, Bad> {
        let mut start = scan.space(self.at);
        match scan.buf.get(start) {
            Some(b']') => {
                self.at = start + 1;
                return Ok(None);
            }
            Some(b',') if !self.first => start = scan.space(start + 1),
            Some(_) if self.first => {}
            _ => return scan.fail(start, "expected `,` or `]`"),
        }
        let (kind, end) = scan.value(start, depth)?;
        self.first = false;
        self.at = end;
        Ok(Some((kind, start, end)))
    }
}
