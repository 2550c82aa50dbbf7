//! Asking a Schema Registry.
//!
//! *In*: a schema's id. *Out*: its text with the texts it refers to; or that the registry does not know it.
//! *Never*: an answer that means "ask later" taken for "there is none".

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;

use super::spec::Registry;

/// One answer may take this long: a receiver that is asked to stop waits for it.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A schema may refer to this many others, directly or not.
const MOST_REFERENCES: usize = 200;
/// Longer answers are no schemas.
const MOST_BYTES: u64 = 16 << 20;

/// A schema and what it refers to.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: u32,
    /// `AVRO`, `PROTOBUF`, `JSON`.
    pub(super) kind: String,
    pub(super) text: String,
    /// Names and texts; what is referred to comes before what refers to it.
    pub(super) references: Vec<(String, String)>,
}

/// What a registry says of an id.
#[derive(Debug)]
pub(super) enum Answer {
    Found(Found),
    /// It does not know it.
    Missing(String),
}

#[derive(Deserialize)]
struct Schema {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: i64,
}

/// See the module's words.
pub(super) struct Client {
    url: String,
    authorization: Option<String>,
    agent: ureq::Agent,
}

impl Client {
    pub(super) fn new(spec: &Registry) -> Self {
        let tls = ureq::tls::TlsConfig::builder()
            .provider(ureq::tls::TlsProvider::NativeTls)
            .root_certs(ureq::tls::RootCerts::PlatformVerifier)
            .build();
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .tls_config(tls)
            .proxy(None)
            .build();
        let login = |login: &String| {
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login.as_bytes()))
        };
        Self {
            url: spec.url.trim_end_matches('/').to_owned(),
            authorization: spec.login.as_ref().map(login),
            agent: agent.into(),
        }
    }

    /// The schema of `id`.
    ///
    /// # Errors
    /// The registry gives no answer, or one that says nothing about the schema.
    pub(super) fn schema(&self, id: u32) -> Result<Answer, String> {
        let found = match self.get(&format!("/schemas/ids/{id}"))? {
            Ok(found) => found,
            Err(said) => {
                return Ok(Answer::Missing(format!(
                    "the registry at {} has no schema {id}: {said}",
                    self.url
                )));
            }
        };
        let mut references = Vec::new();
        let mut seen = HashSet::new();
        if let Err(said) = self.collect(&found.references, &mut seen, &mut references)? {
            return Ok(Answer::Missing(format!("schema {id} of {} refers to {said}", self.url)));
        }
        let kind = found.kind.unwrap_or_else(|| "AVRO".to_owned());
        Ok(Answer::Found(Found { id, kind, text: found.schema, references }))
    }

    /// Adds the texts of `wanted` and of what they refer to.
    fn collect(
        &self,
        wanted: &[Reference],
        seen: &mut HashSet<(String, i64)>,
        out: &mut Vec<(String, String)>,
    ) -> Result<Result<(), String>, String> {
        for Reference { name, subject, version } in wanted {
            if !seen.insert((subject.clone(), *version)) {
                continue;
            }
            if seen.len() > MOST_REFERENCES {
                return Ok(Err(format!("more than {MOST_REFERENCES} others")));
            }
            let found = match self.get(&format!("/subjects/{}/versions/{version}", escaped(subject)))? {
                Ok(found) => found,
                Err(said) => {
                    return Ok(Err(format!("version {version} of {subject}, which is not there: {said}")));
                }
            };
            if let Err(said) = self.collect(&found.references, seen, out)? {
                return Ok(Err(said));
            }
            out.push((name.clone(), found.schema));
        }
        Ok(Ok(()))
    }

    /// The answer to a path; the inner error is what a 404 says.
    fn get(&self, path: &str) -> Result<Result<Schema, String>, String> {
        let away = |why: String| format!("the schema registry at {} does not answer: {why}", self.url);
        let mut request = self.agent.get(format!("{}{path}", self.url));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let accepted = "application/vnd.schemaregistry.v1+json, application/json";
        let mut response =
            request.header("accept", accepted).call().map_err(|error| away(error.to_string()))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MOST_BYTES).read_to_string();
        let body = body.map_err(|error| away(error.to_string()))?;
        match status {
            200 => serde_json::from_str(&body)
                .map(Ok)
                .map_err(|error| away(format!("its answer to {path} is no schema: {error}"))),
            404 => Ok(Err(message(&body))),
            _ => Err(away(format!("status {status} to {path}: {}", message(&body)))),
        }
    }
}

/// The message of an error's body.
fn message(body: &str) -> String {
    #[derive(Deserialize)]
    struct Error {
        message: String,
    }
    match serde_json::from_str::<Error>(body) {
        Ok(error) => error.message,
        Err(_) => crate::decode::text::clip(body.as_bytes()),
    }
}

/// A path's part: everything but unreserved characters percent-encoded (RFC 3986).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody listens on port 1: plain or with TLS, that is no answer, and no reason to give up a record.
    #[test]
    fn nobody_there_is_no_answer() {
        for url in ["http://127.0.0.1:1", "https://127.0.0.1:1/"] {
            let client = Client::new(&Registry { url: url.to_owned(), login: Some("me:hunter2".to_owned()) });
            let why = client.schema(7).expect_err("no answer");
            assert!(why.contains("127.0.0.1:1 does not answer") && !why.contains("hunter2"), "{why}");
        }
        assert_eq!(escaped("shop/orders-value"), "shop%2Forders-value");
        assert_eq!(message(r#"{"error_code":40403,"message":"not found"}"#), "not found");
    }
}
