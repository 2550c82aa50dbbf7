//! The signature schemes of webhooks.
//!
//! *In*: keys, the headers, the raw bytes of a body, the time. *Out*: yes or [`Denied`]. *Never*: a reason
//! that helps a forger, a plain comparison of secrets, a JSON body read before its signature holds.
//!
//! | scheme | header | signed | replay window |
//! |---|---|---|---|
//! | GitHub, Jira | `X-Hub-Signature-256`, `X-Hub-Signature`: `sha256=` hex | body | none signed |
//! | Sentry | `Sentry-Hook-Signature`: hex | body | none signed |
//! | Linear | `Linear-Signature`: hex | body, in it `webhookTimestamp` | yes |
//! | PagerDuty | `X-PagerDuty-Signature`: `v1=` hex, several with commas | body | none signed |
//! | Slack | `X-Slack-Signature`: `v0=` hex | `v0:timestamp:body` | yes |
//! | Standard Webhooks, incident.io, newer GitLab | `webhook-signature`: `v1,` base64, several with spaces | `id.timestamp.body` | yes |
//! | GitLab's token | `X-Gitlab-Token` | nothing: the secret itself | none |
//! | Jenkins, Argo CD, Opsgenie, CDEvents, any other | `Authorization: Bearer` or `Basic`, `X-Webhook-Token` | nothing: the secret itself | none |

use std::time::Duration;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::settings::HookKind;

type HmacSha256 = Hmac<Sha256>;

/// Signatures of one header looked at, at most.
const MAX_SIGNATURES: usize = 16;

/// The delivery is not from somebody who knows a secret, or is too old. Which of it is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denied;

type Verdict = Result<(), Denied>;

/// One delivery.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
    /// Seconds since 1970.
    pub(super) now: i64,
    pub(super) tolerance: Duration,
}

/// How a tool proves that it is the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Hexadecimal HMAC-SHA256 of the body behind a prefix.
    Hex {
        header: &'static str,
        prefix: &'static str,
    },
    Linear,
    PagerDuty,
    Slack,
    Standard,
    /// Standard Webhooks where the delivery is signed, else the token.
    GitLab,
    /// A shared secret, sent as it is.
    Shared,
}

impl Scheme {
    pub(super) fn of(kind: HookKind) -> Self {
        match kind {
            HookKind::GitHub => Self::Hex { header: "x-hub-signature-256", prefix: "sha256=" },
            HookKind::Jira => Self::Hex { header: "x-hub-signature", prefix: "sha256=" },
            HookKind::Sentry => Self::Hex { header: "sentry-hook-signature", prefix: "" },
            HookKind::Linear => Self::Linear,
            HookKind::PagerDuty => Self::PagerDuty,
            HookKind::Slack => Self::Slack,
            HookKind::IncidentIo | HookKind::Standard => Self::Standard,
            HookKind::GitLab => Self::GitLab,
            HookKind::Jenkins
            | HookKind::ArgoCd
            | HookKind::Opsgenie
            | HookKind::CdEvents
            | HookKind::Token => Self::Shared,
        }
    }

    /// The key of a secret. Those of Standard Webhooks are base64, mostly behind `whsec_`.
    pub(super) fn key(self, secret: &str) -> Result<Vec<u8>, String> {
        if secret.is_empty() {
            return Err("it is empty".to_owned());
        }
        match (self, secret.strip_prefix("whsec_")) {
            (Self::Standard, encoded) => STANDARD
                .decode(encoded.unwrap_or(secret))
                .map_err(|_| "it is not base64, which a signing secret (`whsec_...`) is".to_owned()),
            _ => Ok(secret.as_bytes().to_vec()),
        }
    }

    pub(super) fn verify(self, keys: &[Vec<u8>], request: &Request<'_>) -> Verdict {
        match self {
            Self::Hex { header, prefix } => {
                let given = request.one(header)?.strip_prefix(prefix).ok_or(Denied)?;
                any(keys, &[request.body], &[hex(given).ok_or(Denied)?])
            }
            Self::Linear => linear(keys, request),
            Self::PagerDuty => {
                let given = request.one("x-pagerduty-signature")?.split(',').take(MAX_SIGNATURES);
                let given = given.filter_map(|one| hex(one.trim().strip_prefix("v1=")?));
                any(keys, &[request.body], &given.collect::<Vec<_>>())
            }
            Self::Slack => slack(keys, request),
            Self::Standard => standard(keys, request),
            Self::GitLab if request.headers.contains_key("webhook-signature") => gitlab(keys, request),
            Self::GitLab => shared(keys, request.one("x-gitlab-token")?.as_bytes()),
            Self::Shared => bearer(keys, request),
        }
    }
}

impl Request<'_> {
    /// The one header of a name: with two of them nobody knows which was meant.
    fn one(&self, name: &str) -> Result<&str, Denied> {
        let mut all = self.headers.get_all(name).iter();
        match (all.next(), all.next()) {
            (Some(value), None) => value.to_str().map_err(|_| Denied),
            _ => Err(Denied),
        }
    }

    /// A time in seconds is at most the tolerance away, in either direction.
    fn fresh(&self, seconds: i64) -> Verdict {
        let away = self.now.checked_sub(seconds).map(i64::unsigned_abs).ok_or(Denied)?;
        if away <= self.tolerance.as_secs() { Ok(()) } else { Err(Denied) }
    }
}

/// Some key made some of the signatures of `parts`, one behind the other. Every pair is looked at.
fn any(keys: &[Vec<u8>], parts: &[&[u8]], given: &[Vec<u8>]) -> Verdict {
    let mut holds = false;
    for key in keys {
        let mac = mac(key, parts);
        for signature in given {
            holds |= mac.clone().verify_slice(signature).is_ok();
        }
    }
    if holds { Ok(()) } else { Err(Denied) }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> HmacSha256 {
    let mut mac = HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

/// Equal secrets, compared by their digests: neither content nor length shows in the time it takes.
fn shared(keys: &[Vec<u8>], given: &[u8]) -> Verdict {
    let mut holds = false;
    for key in keys {
        let own = mac(b"streamgauge", &[key]).finalize().into_bytes();
        holds |= mac(b"streamgauge", &[given]).verify_slice(&own).is_ok();
    }
    if holds { Ok(()) } else { Err(Denied) }
}

fn linear(keys: &[Vec<u8>], request: &Request<'_>) -> Verdict {
    #[derive(serde::Deserialize)]
    struct Stamp {
        #[serde(rename = "webhookTimestamp")]
        millis: i64,
    }
    let given = hex(request.one("linear-signature")?).ok_or(Denied)?;
    any(keys, &[request.body], &[given])?;
    let stamp: Stamp = serde_json::from_slice(request.body).map_err(|_| Denied)?;
    request.fresh(stamp.millis.div_euclid(1000))
}

fn slack(keys: &[Vec<u8>], request: &Request<'_>) -> Verdict {
    let stamp = request.one("x-slack-request-timestamp")?;
    let given = request.one("x-slack-signature")?.strip_prefix("v0=").and_then(hex).ok_or(Denied)?;
    any(keys, &[b"v0:", stamp.as_bytes(), b":", request.body], &[given])?;
    request.fresh(seconds(stamp)?)
}

fn standard(keys: &[Vec<u8>], request: &Request<'_>) -> Verdict {
    // Svix, which many senders use, wrote its own name before there was a standard.
    let names = match request.headers.contains_key("webhook-signature") {
        true => ["webhook-id", "webhook-timestamp", "webhook-signature"],
        false => ["svix-id", "svix-timestamp", "svix-signature"],
    };
    let (id, stamp) = (request.one(names[0])?, request.one(names[1])?);
    let given = request.one(names[2])?.split(' ').take(MAX_SIGNATURES);
    // `v1a` is another scheme with other keys.
    let given = given.filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok());
    let parts = [id.as_bytes(), b".", stamp.as_bytes(), b".", request.body];
    any(keys, &parts, &given.collect::<Vec<_>>())?;
    request.fresh(seconds(stamp)?)
}

/// GitLab's signing token follows Standard Webhooks; the secret may be written `whsec_` and base64, or as it is.
fn gitlab(keys: &[Vec<u8>], request: &Request<'_>) -> Verdict {
    let decoded = |key: &Vec<u8>| STANDARD.decode(key.strip_prefix(b"whsec_")?).ok();
    let both: Vec<Vec<u8>> = keys.iter().filter_map(decoded).chain(keys.iter().cloned()).collect();
    standard(&both, request)
}

/// `Bearer TOKEN`, `Basic` with the secret as password or as `user:password`, or the token in a header.
fn bearer(keys: &[Vec<u8>], request: &Request<'_>) -> Verdict {
    if request.headers.contains_key("x-webhook-token") {
        return shared(keys, request.one("x-webhook-token")?.as_bytes());
    }
    let given = request.one("authorization")?;
    let (word, rest) = given.split_once(' ').ok_or(Denied)?;
    if word.eq_ignore_ascii_case("bearer") {
        return shared(keys, rest.trim().as_bytes());
    }
    if !word.eq_ignore_ascii_case("basic") {
        return Err(Denied);
    }
    let pair = STANDARD.decode(rest.trim()).map_err(|_| Denied)?;
    let password = pair.iter().position(|byte| *byte == b':').map_or(&[][..], |at| &pair[at + 1..]);
    // Both are looked at, whatever the first says.
    let (whole, password) = (shared(keys, &pair), shared(keys, password));
    whole.or(password)
}

/// Digits only: no sign, no white space.
fn seconds(text: &str) -> Result<i64, Denied> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Denied);
    }
    text.parse().map_err(|_| Denied)
}

/// The bytes of 64 hexadecimal digits.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let value = |digit: u8| (digit as char).to_digit(16).map(|value| value as u8);
    digits.chunks_exact(2).map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?)).collect()
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
