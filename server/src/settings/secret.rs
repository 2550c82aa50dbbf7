//! Values that must not stand in a file: `{ env: NAME }` and `{ file: PATH }`.
//!
//! *In*: the `properties` of a Kafka source. *Out*: [`Secret`]s that show as `***`.
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
    ["password", "secret", "passphrase", "token", ".pem"].iter().any(|word| key.contains(word))
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
