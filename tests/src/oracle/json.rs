//! JSON as the oracle reads it: numbers keep their text, objects keep duplicate keys.
//!
//! *In*: payload bytes. *Out*: [`Json`], or nothing when the bytes are not JSON. *Never*: a number
//! as a float before its type is known.

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number's text.
    Num(String),
    /// A string, unescaped.
    Str(String),
    /// An array.
    Arr(Vec<Json>),
    /// An object, duplicates kept, in order.
    Obj(Vec<(String, Json)>),
}

impl Json {
    /// Parses a whole text.
    pub fn parse(bytes: &[u8]) -> Option<Json> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0)?;
        reader.space();
        (reader.at == text.len()).then_some(value)
    }

    /// All values of a key of an object.
    pub fn all<'a>(&'a self, key: &str) -> Vec<&'a Json> {
        match self {
            Json::Obj(entries) => entries.iter().filter(|(k, _)| k == key).map(|(_, v)| v).collect(),
            _ => Vec::new(),
        }
    }

    /// The value at a path of keys, absent and null alike as `None`.
    pub fn at(&self, path: &[String]) -> Option<&Json> {
        let mut here = self;
        for key in path {
            here = here.all(key).last().copied()?;
        }
        (*here != Json::Null).then_some(here)
    }

    /// Does any key along the path occur twice?
    pub fn duplicated(&self, path: &[String]) -> bool {
        let mut here = self;
        for key in path {
            let found = here.all(key);
            if found.len() > 1 {
                return true;
            }
            match found.first() {
                Some(next) => here = next,
                None => return false,
            }
        }
        false
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    fn word(&mut self, word: &str, value: Json) -> Option<Json> {
        self.text[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            value
        })
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > 100 {
            return None;
        }
        self.space();
        match self.peek()? {
            b'n' => self.word("null", Json::Null),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'"' => self.string().map(Json::Str),
            b'[' => self.array(depth),
            b'{' => self.object(depth),
            _ => self.number(),
        }
    }

    fn array(&mut self, depth: usize) -> Option<Json> {
        self.eat(b'[')?;
        let mut items = Vec::new();
        self.space();
        if self.eat(b']').is_some() {
            return Some(Json::Arr(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            if self.eat(b']').is_some() {
                return Some(Json::Arr(items));
            }
            self.eat(b',')?;
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.eat(b'{')?;
        let mut entries = Vec::new();
        self.space();
        if self.eat(b'}').is_some() {
            return Some(Json::Obj(entries));
        }
        loop {
            self.space();
            let key = self.string()?;
            self.space();
            self.eat(b':')?;
            entries.push((key, self.value(depth + 1)?));
            self.space();
            if self.eat(b'}').is_some() {
                return Some(Json::Obj(entries));
            }
            self.eat(b',')?;
        }
    }

    fn number(&mut self) -> Option<Json> {
        let start = self.at;
        let _ = self.eat(b'-');
        let whole = self.digits();
        if whole == 0 || (whole > 1 && self.text.as_bytes()[self.at - whole] == b'0') {
            return None;
        }
        if self.eat(b'.').is_some() && self.digits() == 0 {
            return None;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return None;
            }
        }
        Some(Json::Num(self.text[start..self.at].to_string()))
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    fn string(&mut self) -> Option<String> {
        self.eat(b'"')?;
        let mut out = String::new();
        loop {
            let c = self.text[self.at..].chars().next()?;
            self.at += c.len_utf8();
            match c {
                '"' => return Some(out),
                '\\' => out.push(self.escape()?),
                c if (c as u32) < 0x20 => return None,
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let byte = self.peek()?;
        self.at += 1;
        Some(match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex()?;
                if (0xd800..0xdc00).contains(&high) {
                    self.eat(b'\\')?;
                    self.eat(b'u')?;
                    let low = self.hex()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return None;
                    }
                    char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?
                } else {
                    char::from_u32(high)?
                }
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_json_is() {
        let json = Json::parse(br#" {"a": [1, -2.50e3, "x\u00e9\ud83d\ude00\n"], "b": null, "a": true} "#)
            .expect("valid");
        assert_eq!(json.all("a").len(), 2);
        assert_eq!(
            json.all("a")[0],
            &Json::Arr(vec![Json::Num("1".into()), Json::Num("-2.50e3".into()), Json::Str("xé😀\n".into())])
        );
        assert!(json.duplicated(&["a".to_string()]));
        assert!(json.at(&["b".to_string()]).is_none());
    }

    #[test]
    fn refuses_what_json_is_not() {
        for bad in [
            "",
            "{",
            "{\"a\":1,}",
            "[1 2]",
            "01",
            "1.",
            "nul",
            "\"\u{1}\"",
            "\"\\ud800\"",
            "{} x",
            "+1",
            ".5",
            "NaN",
            "{a:1}",
        ] {
            assert_eq!(Json::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Json::parse(b"\"\xff\""), None);
    }
}
