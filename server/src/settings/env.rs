//! Environment variables over the file: `STREAMGAUGE_SERVER__LISTEN=127.0.0.1:9000`.
//!
//! *In*: the tree of the file and the variables of the process. *Out*: the same tree with values
//! replaced or added, and notices about variables that name no setting. *Never*: a setting's meaning.
//!
//! `__` goes one level down. In a list a level is an index or the `name` of an element, so
//! `STREAMGAUGE_SOURCES__ORDERS__KAFKA__BROKERS` reaches the source named `orders`. A dot or dash in a
//! key is written `_`. Values are text or YAML flow (`[a, b]`, `{ mode: open }`).

use contracts::diagnostic::Diagnostic;

use super::tree::{Data, Node, Origin, parse_env};

/// What all variables of ours start with.
pub const PREFIX: &str = "STREAMGAUGE_";

/// Variables that are not settings but belong to the commands.
const OTHERS: &[&str] = &[
    "STREAMGAUGE_URL",
    "STREAMGAUGE_LOG",
    "STREAMGAUGE_CONFIG",
    "STREAMGAUGE_UPDATE",
    "STREAMGAUGE_FAULT",
    "STREAMGAUGE_BUG",
];

/// Applies every variable that starts with [`PREFIX`] to `root`. `top` are the names of the top-level
/// settings: a variable without `__` that is none of them is not ours to judge and becomes a notice.
pub fn overlay(
    root: &mut Node,
    variables: impl IntoIterator<Item = (String, String)>,
    top: &[&str],
) -> (Vec<String>, Vec<Diagnostic>) {
    let mut notices = Vec::new();
    let mut broken = Vec::new();
    let mut ours: Vec<_> = variables
        .into_iter()
        .filter(|(k, _)| k.starts_with(PREFIX) && !OTHERS.contains(&k.as_str()))
        .collect();
    // Parents before children, so that `SOURCES=[...]` does not wipe out `SOURCES__0__NAME`.
    ours.sort();
    for (name, value) in ours {
        let segments: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
        let known = segments.first().is_some_and(|first| top.contains(&first.as_str()));
        if !known && segments.len() == 1 {
            notices.push(format!("environment {name} names no setting and is ignored"));
            continue;
        }
        match parse_env(&name, &value) {
            Ok(node) => set(root, &segments, node),
            Err(error) => broken.push(error),
        }
    }
    (notices, broken)
}

fn set(at: &mut Node, path: &[String], value: Node) {
    let Some((first, rest)) = path.split_first() else {
        *at = value;
        return;
    };
    let origin = value.origin.clone();
    if let Data::List(items) = &mut at.data {
        if let Some(item) = pick(items, first) {
            return set(item, rest, value);
        }
        items.push(Node { data: Data::Map(vec![]), origin });
        let last = items.last_mut().expect("just pushed");
        return set(last, rest, value);
    }
    if !matches!(at.data, Data::Map(_)) {
        at.data = Data::Map(vec![]);
        at.origin = origin.clone();
    }
    let Data::Map(entries) = &mut at.data else { return };
    let index = entries.iter().position(|(key, _, _)| same(key, first)).unwrap_or_else(|| {
        entries.push((first.clone(), origin.clone(), Node { data: Data::Null, origin: origin.clone() }));
        entries.len() - 1
    });
    let (_, key_origin, child) = &mut entries[index];
    if rest.is_empty() {
        *key_origin = origin;
    }
    set(child, rest, value);
}

fn pick<'a>(items: &'a mut [Node], segment: &str) -> Option<&'a mut Node> {
    if let Ok(index) = segment.parse::<usize>() {
        return items.get_mut(index);
    }
    items.iter_mut().find(|item| match &item.data {
        Data::Map(entries) => {
            entries.iter().any(|(key, _, value)| key == "name" && same(&value.show(), segment))
        }
        _ => false,
    })
}

/// Compares a key as written with a variable's segment: letters without case, anything else as `_`.
fn same(key: &str, segment: &str) -> bool {
    key.len() == segment.len()
        && key.bytes().zip(segment.bytes()).all(|(k, s)| {
            let plain = |b: u8| if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'_' };
            plain(k) == plain(s)
        })
}

/// An empty mapping, for a run without a file.
pub fn empty() -> Node {
    Node { data: Data::Map(vec![]), origin: Origin::Default }
}

#[cfg(test)]
mod tests {
    use super::super::tree::parse;
    use super::*;

    fn over(text: &str, variables: &[(&str, &str)]) -> (String, Vec<String>) {
        let mut root = parse(&contracts::text::SourceFile::new("s.yaml", text)).0.remove(0);
        let variables = variables.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let (notices, broken) = overlay(&mut root, variables, &["server", "sources", "workers"]);
        assert!(broken.is_empty());
        (root.show(), notices)
    }

    #[test]
    fn replaces_adds_and_reaches_into_lists() {
        let text = "server: { listen: a }\nsources: [{ name: shop-cdc, kafka: { brokers: b } }]";
        let (shown, notices) = over(
            text,
            &[
                ("STREAMGAUGE_SERVER__LISTEN", "x:1"),
                ("STREAMGAUGE_WORKERS", "4"),
                ("STREAMGAUGE_SOURCES__SHOP_CDC__KAFKA__BROKERS", "k:9092"),
                ("STREAMGAUGE_SOURCES__0__FORMAT", "json"),
                ("STREAMGAUGE_WHATEVER", "1"),
                ("OTHER", "1"),
            ],
        );
        assert_eq!(
            shown,
            "{server: {listen: x:1}, sources: [{name: shop-cdc, kafka: {brokers: k:9092}, format: json}], workers: 4}"
        );
        assert_eq!(notices, ["environment STREAMGAUGE_WHATEVER names no setting and is ignored"]);
    }
}
