//! Payload text.
//!
//! *In*: paths and JSON texts. *Out*: one object, keys in random order. *Never*: valid JSON only;
//! what is put in may be broken on purpose.

use super::chance;

/// A JSON string.
pub(super) fn string(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON")
}

/// An object with the members, those with a path of two under one inner object.
pub(super) fn object(rng: &mut fastrand::Rng, members: &[(Vec<String>, String)]) -> String {
    let mut outer: Vec<(String, String)> = Vec::new();
    let mut inner: Vec<(String, String)> = Vec::new();
    for (path, text) in members {
        match path.as_slice() {
            [name] => outer.push((name.clone(), text.clone())),
            [_, name] => inner.push((name.clone(), text.clone())),
            _ => panic!("paths have one or two keys"),
        }
    }
    if !inner.is_empty() {
        outer.push(("data".to_string(), flat(rng, inner)));
    }
    flat(rng, outer)
}

fn flat(rng: &mut fastrand::Rng, mut members: Vec<(String, String)>) -> String {
    if chance(rng, 50) {
        rng.shuffle(&mut members);
    }
    let gap = if chance(rng, 20) { " " } else { "" };
    let texts: Vec<String> =
        members.iter().map(|(key, text)| format!("{}:{gap}{text}", string(key))).collect();
    format!("{{{gap}{}{gap}}}", texts.join(if gap.is_empty() { "," } else { ",\n " }))
}
