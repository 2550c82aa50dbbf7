//! Reading one section of the settings: typed values out of the tree, with every mistake kept.
//!
//! *In*: a mapping of the tree. *Out*: typed values with defaults, [`Diagnostic`]s, and the list of
//! effective settings with their origin. *Never*: stops at the first mistake.

use std::collections::BTreeSet;

use contracts::diagnostic::Diagnostic;

use super::tree::{Data, Node, Origin};

/// One setting as it holds, for `streamgauge doctor`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Effective {
    /// Dotted path: `server.listen`, `sources.orders.kafka.brokers`.
    pub setting: String,
    /// The value; secrets are `***`.
    pub value: String,
    /// `default`, `file:line:column` or `environment NAME`.
    pub origin: String,
}

/// What reading collects on its way.
#[derive(Debug, Default)]
pub struct Report {
    /// All mistakes, in reading order.
    pub mistakes: Vec<Diagnostic>,
    /// Things to know that stop nothing.
    pub notices: Vec<String>,
    /// Every setting that was asked for.
    pub effective: Vec<Effective>,
}

impl Report {
    /// Adds a mistake; an empty `fix` is left out.
    pub fn mistake(
        &mut self,
        code: &'static str,
        origin: &Origin,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let fix = fix.into();
        let mistake = origin.error(code, message);
        self.mistakes.push(if fix.is_empty() { mistake } else { mistake.fix(fix) });
    }

    fn note(&mut self, setting: &str, value: impl Into<String>, origin: &Origin) {
        self.effective.push(Effective {
            setting: setting.to_owned(),
            value: value.into(),
            origin: origin.to_string(),
        });
    }
}

/// One mapping being read. Call the readers for every key it may have, then [`Section::done`].
pub struct Section<'a> {
    path: String,
    origin: Origin,
    entries: &'a [(String, Origin, Node)],
    asked: BTreeSet<&'static str>,
}

impl<'a> Section<'a> {
    /// Opens `node` as a mapping; anything else is a mistake and reads as empty.
    pub fn open(path: &str, node: Option<&'a Node>, report: &mut Report) -> Self {
        let (entries, origin): (&[_], _) = match node {
            None => (&[], Origin::Default),
            Some(node) => match &node.data {
                Data::Map(entries) => (entries, node.origin.clone()),
                Data::Null => (&[], node.origin.clone()),
                _ => {
                    report.mistake(
                        "wrong_type",
                        &node.origin,
                        format!("`{path}` is {} (`{}`), but a mapping is needed", node.kind(), node.show()),
                        format!("write `{path}: {{ key: value }}`"),
                    );
                    (&[], node.origin.clone())
                }
            },
        };
        Self { path: path.to_owned(), origin, entries, asked: BTreeSet::new() }
    }

    /// Where the section is written.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The dotted path of `key` here.
    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The raw node of `key`; absent and null are both `None`.
    pub fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        self.asked.insert(key);
        let node = self.entries.iter().find(|(k, _, _)| k == key).map(|(_, _, node)| node)?;
        (!matches!(node.data, Data::Null)).then_some(node)
    }

    /// Is `key` written at all, be it empty (`http:`)?
    pub fn has(&mut self, key: &'static str) -> bool {
        self.asked.insert(key);
        self.entries.iter().any(|(k, _, _)| k == key)
    }

    /// Opens `key` as a section below this one.
    pub fn section(&mut self, key: &'static str, report: &mut Report) -> Section<'a> {
        let path = self.path(key);
        let node = self.node(key);
        let mut section = Section::open(&path, node, report);
        if let Some((_, at, _)) = self.entries.iter().find(|(k, _, _)| k == key) {
            section.origin = at.clone();
        }
        section
    }

    /// The text of `key` and its place.
    pub fn text(&mut self, key: &'static str, report: &mut Report) -> Option<(String, Origin)> {
        let node = self.node(key)?;
        match &node.data {
            Data::Scalar { text, .. } => Some((text.clone(), node.origin.clone())),
            _ => {
                let path = self.path(key);
                report.mistake(
                    "wrong_type",
                    &node.origin,
                    format!("`{path}` is {}, but one value is needed", node.kind()),
                    format!("write `{key}: value`"),
                );
                None
            }
        }
    }

    /// A value read by `parse`, or `default`. `allowed` is what the message says is allowed.
    pub fn value<T>(
        &mut self,
        key: &'static str,
        default: (&str, T),
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
        report: &mut Report,
    ) -> T {
        let path = self.path(key);
        let Some((text, origin)) = self.text(key, report) else {
            report.note(&path, default.0, &Origin::Default);
            return default.1;
        };
        if let Some(value) = parse(&text) {
            report.note(&path, text, &origin);
            return value;
        }
        report.mistake(
            "not_allowed",
            &origin,
            format!("`{path}` is `{text}`, but {allowed} is needed"),
            format!("for example `{key}: {}`", default.0),
        );
        default.1
    }

    /// One of some words.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        default: &str,
        choices: &[(&str, T)],
        report: &mut Report,
    ) -> T {
        let fallback = choices.iter().find(|(word, _)| *word == default).expect("the default is a choice").1;
        let path = self.path(key);
        let Some((text, origin)) = self.text(key, report) else {
            report.note(&path, default, &Origin::Default);
            return fallback;
        };
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            report.note(&path, text, &origin);
            return *value;
        }
        let words = choices.iter().map(|(word, _)| *word);
        let mistake = origin.error("not_allowed", format!("`{path}` cannot be `{text}`")).names(&text, words);
        report.mistakes.push(mistake);
        fallback
    }

    /// Where files are: an address with `://` as it is, or a folder.
    pub fn place(&mut self, key: &'static str, base: &super::Base, report: &mut Report) -> Option<String> {
        let (text, origin) = self.text(key, report)?;
        self.effective(key, &text, &origin, report);
        Some(if text.contains("://") { text } else { base.resolve(&text, &origin).display().to_string() })
    }

    /// A list of texts; one text counts as a list of one.
    pub fn texts(
        &mut self,
        key: &'static str,
        default: &[&str],
        report: &mut Report,
    ) -> Vec<(String, Origin)> {
        let path = self.path(key);
        let Some(node) = self.node(key) else {
            report.note(&path, format!("[{}]", default.join(", ")), &Origin::Default);
            return default.iter().map(|t| ((*t).to_owned(), Origin::Default)).collect();
        };
        let items = match &node.data {
            Data::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut texts = Vec::new();
        for item in items {
            match &item.data {
                Data::Scalar { text, .. } => texts.push((text.clone(), item.origin.clone())),
                _ => report.mistake(
                    "wrong_type",
                    &item.origin,
                    format!("an entry of `{path}` is {}, but a text is needed", item.kind()),
                    format!("write `{key}: [first, second]`"),
                ),
            }
        }
        report.note(&path, node.show(), &node.origin);
        texts
    }

    /// Records a value this section's owner read by itself.
    pub fn effective(&self, key: &str, value: &str, origin: &Origin, report: &mut Report) {
        report.note(&self.path(key), value, origin);
    }

    /// All entries, for free mappings (`properties`).
    pub fn entries(&self) -> &'a [(String, Origin, Node)] {
        self.entries
    }

    /// Reports the keys nobody asked for.
    pub fn done(self, report: &mut Report) {
        let known: Vec<&str> = self.asked.iter().copied().collect();
        let mut seen = BTreeSet::new();
        for (key, origin, _) in self.entries {
            let path = self.path(key);
            if !seen.insert(key.as_str()) {
                report.mistake("twice", origin, format!("`{path}` is written twice"), "keep one of them");
            }
            if known.contains(&key.as_str()) {
                continue;
            }
            let mistake = origin.error("unknown_setting", format!("there is no setting `{path}`"));
            report.mistakes.push(mistake.names(key, known.iter().copied()));
        }
    }
}

/// `1MiB`, `10MB`, `4096`: bytes.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '_')).unwrap_or(text.len());
    let number: u64 = whole(&text[..split])?;
    let unit: u64 = match text[split..].trim() {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit).filter(|n| *n > 0)
}

/// `1_000_000`: a whole number.
pub fn whole(text: &str) -> Option<u64> {
    text.replace('_', "").parse().ok()
}

/// `500ms`, `30s`, `5m`, `24h`, `7d`: a length of time.
pub fn duration(text: &str) -> Option<std::time::Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..split].parse().ok()?;
    let millis = match &text[split..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(std::time::Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(bytes("1MiB"), Some(1 << 20));
        assert_eq!(bytes("1_000"), Some(1000));
        assert_eq!(bytes("1 GiB"), Some(1 << 30));
        assert_eq!(bytes("much"), None);
        assert_eq!(bytes("0"), None);
        assert_eq!(duration("24h").unwrap().as_secs(), 86_400);
        assert_eq!(duration("10"), None);
    }
}
