//! Values that must not stand in a file: `{ env: NAME }` and `{ file: PATH }`.
//!
//! *In*: the `properties` of a Kafka source, the secrets of a hook. *Out*: [`Secret`]s that show as `***`.
//! *Never*: a secret in a message, a log line or `doctor`'s output.

use std::collections::BTreeMap;
use std::fmt;

use super::read::{Report, Section};
use super::tree::{Data, Node, Origin};

/// A value that is shown only when it is not secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: String,
    hidden: bool,
}

impl Secret {
    /// The value itself, for the client that needs it.
    pub fn reveal(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.hidden { "***" } else { &self.value })
    }
}

/// Properties whose value is a secret by their name.
fn is_secret(key: &str) -> bool {
    ["password", "secret", "passphrase", "token", "credential", ".pem"].iter().any(|word| key.contains(word))
}

/// Reads `properties: { security.protocol: SASL_SSL, sasl.password: { env: KAFKA_PASSWORD } }`.
pub fn read_properties(section: &mut Section<'_>, report: &mut Report) -> BTreeMap<String, Secret> {
    let inner = section.section("properties", report);
    let mut properties = BTreeMap::new();
    for (key, at, node) in inner.entries() {
        // A variable's segment cannot hold a dot: STREAMGAUGE_..._PROPERTIES__SASL_PASSWORD.
        let key = if matches!(at, Origin::Env(_)) { key.replace('_', ".") } else { key.clone() };
        if let Some(secret) = read_one(&key, node, report) {
            inner.effective(&key, &format!("{secret:?}"), &node.origin, report);
            properties.insert(key, secret);
        }
    }
    properties
}

/// Reads `password: { env: NAME }` or `{ file: PATH }`.
pub fn read_password(section: &mut Section<'_>, report: &mut Report) -> Option<Secret> {
    section.node("password").and_then(|node| read_one("password", node, report))
}

/// Reads `secret_env: NAME` and `secret_file: PATH` of a hook, each one or a list.
pub fn read_hook(section: &mut Section<'_>, base: &super::Base, report: &mut Report) -> Vec<Secret> {
    if let Some(node) = section.node("secret") {
        report.mistake(
            "secret_in_file",
            &node.origin,
            "a secret must not stand in the settings",
            "write `secret_env: NAME` or `secret_file: PATH`",
        );
    }
    let mut secrets = Vec::new();
    for (key, from) in [("secret_env", "env"), ("secret_file", "file")] {
        if section.node(key).is_none() {
            continue;
        }
        for (text, at) in section.texts(key, &[], report) {
            let text =
                if from == "file" { base.resolve(&text, &at).to_string_lossy().into_owned() } else { text };
            let name = Node { data: Data::Scalar { text }, origin: at.clone() };
            match fetch(key, from, &name, report) {
                Some(secret) if secret.value.is_empty() => {
                    report.mistake(
                        "secret_not_found",
                        &at,
                        format!("`{key}`: the secret is empty"),
                        "set it before the start",
                    );
                }
                Some(secret) => secrets.push(secret),
                None => {}
            }
        }
    }
    secrets
}

fn read_one(key: &str, node: &Node, report: &mut Report) -> Option<Secret> {
    match &node.data {
        Data::Scalar { text, .. } => {
            if is_secret(key) && !matches!(node.origin, Origin::Env(_)) {
                report.mistake(
                    "secret_in_file",
                    &node.origin,
                    format!("`{key}` is a secret and must not stand in the settings"),
                    format!("write `{key}: {{ env: NAME }}` or `{key}: {{ file: PATH }}`"),
                );
                return None;
            }
            Some(Secret { value: text.clone(), hidden: is_secret(key) })
        }
        Data::Map(entries) => match entries.as_slice() {
            [(from, _, value)] if from == "env" || from == "file" => fetch(key, from, value, report),
            _ => {
                report.mistake(
                    "not_allowed",
                    &node.origin,
                    format!("`{key}` is {}, which is not a reference", node.show()),
                    "write `{ env: NAME }` or `{ file: PATH }`",
                );
                None
            }
        },
        Data::Null | Data::List(_) => {
            report.mistake(
                "wrong_type",
                &node.origin,
                format!("`{key}` is {}, but one value is needed", node.kind()),
                format!("write `{key}: value`"),
            );
            None
        }
    }
}

fn fetch(key: &str, from: &str, value: &Node, report: &mut Report) -> Option<Secret> {
    let name = value.show();
    let found = match from {
        "env" => std::env::var(&name).map_err(|_| format!("the environment variable {name} is not set")),
        _ => std::fs::read_to_string(&name)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| format!("the file {name} cannot be read: {error}")),
    };
    match found {
        Ok(value) => Some(Secret { value, hidden: true }),
        Err(message) => {
            report.mistake(
                "secret_not_found",
                &value.origin,
                format!("`{key}`: {message}"),
                "set it before the start",
            );
            None
        }
    }
}
