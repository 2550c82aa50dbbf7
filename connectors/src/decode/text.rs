//! Text as JSON writes it.
//!
//! *In*: the bytes between the quotes of a checked JSON string. *Out*: the text. *Never*: own unescaping:
//! `serde_json` does it.

use std::borrow::Cow;

/// The text of an escaped JSON string (without its quotes). `None` only if it is not a JSON string.
#[cold]
pub(super) fn unescape(inside: &[u8]) -> Option<Cow<'static, [u8]>> {
    let mut quoted = Vec::with_capacity(inside.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(inside);
    quoted.push(b'"');
    let text: String = serde_json::from_slice(&quoted).ok()?;
    Some(Cow::Owned(text.into_bytes()))
}

/// At most 80 characters of `bytes`, on one line.
pub(super) fn clip(bytes: &[u8]) -> String {
    const MOST: usize = 80;
    // Four bytes a character at most: no need to look at more.
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST * 4 + 4)]);
    let one_line = |c: char| if c.is_control() { ' ' } else { c };
    if head.chars().count() <= MOST {
        return head.chars().map(one_line).collect();
    }
    head.chars().take(MOST - 3).map(one_line).chain("...".chars()).collect()
}
