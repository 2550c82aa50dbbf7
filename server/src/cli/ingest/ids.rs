//! Ids for events that have none, the same each time the same file is sent.
//!
//! *In*: an event as JSON, its file and number. *Out*: the event with an id. *Never*: an id that was there changed; two
//! events of a file with one id.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// Where the id of an event is: a dotted path of keys.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Ids {
    path: Vec<String>,
}

impl Ids {
    /// `event_id`, `meta.id`.
    pub(in crate::cli) fn at(path: &str) -> Self {
        Self { path: path.split('.').map(str::to_owned).collect() }
    }

    /// Gives the event an id made of the file's name, its number in the file and its text, unless it has one. What is
    /// not a JSON object, or holds something else on the way to the id, stays as it is: the server says what is wrong.
    pub(in crate::cli) fn complete(&self, file: &Path, number: u64, event: &mut Vec<u8>) {
        let Some((first, rest)) = self.path.split_first() else { return };
        let Ok(object) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(event) else { return };
        // Null is no id, but a key that comes twice would be worse.
        if object.contains_key(first) {
            return;
        }
        let mut id = String::with_capacity(2 * 16);
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        let mut hash = Sha256::new();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(number.to_le_bytes());
        hash.update(&event);
        for byte in hash.finalize().iter().take(16) {
            // A text takes everything.
            let _ = write!(id, "{byte:02x}");
        }
        let value =
            rest.iter().rev().fold(serde_json::json!(id), |inner, key| serde_json::json!({ key: inner }));
        let comma = if object.is_empty() { "" } else { "," };
        let added = format!("{}:{value}{comma}", serde_json::json!(first));
        let Some(open) = event.iter().position(|byte| *byte == b'{') else { return };
        event.splice(open + 1..open + 1, added.into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(path: &str, file: &str, number: u64, event: &str) -> String {
        let mut event = event.as_bytes().to_vec();
        Ids::at(path).complete(Path::new(file), number, &mut event);
        String::from_utf8(event).unwrap()
    }

    #[test]
    fn who_has_an_id_keeps_it_and_the_others_get_the_same_each_time() {
        for same in [r#"{"id":"a","n":1.10}"#, r#"{"n":1,"id":7}"#, "[1]", "nonsense"] {
            assert_eq!(complete("id", "a.ndjson", 1, same), same);
        }
        let once = complete("id", "x/a.ndjson", 1, r#" {"n":1.10}"#);
        assert!(once.starts_with(r#" {"id":""#) && once.ends_with(r#"","n":1.10}"#), "{once}");
        assert_eq!(once, complete("id", "y/a.ndjson", 1, r#" {"n":1.10}"#));
        let others = [
            complete("id", "a.ndjson", 2, r#" {"n":1.10}"#),
            complete("id", "b.ndjson", 1, r#" {"n":1.10}"#),
            complete("id", "a.ndjson", 1, r#" {"n":1.1}"#),
        ];
        assert!(others.iter().all(|other| *other != once));
        let nested = complete("meta.id", "a", 1, "{}");
        let nested: serde_json::Value = serde_json::from_str(&nested).unwrap();
        assert_eq!(nested["meta"]["id"].as_str().unwrap().len(), 32);
    }
}
