//! Webhooks: who may deliver to a source, and what of a delivery is kept.
//!
//! *In*: a hook of the settings; the raw body and headers of a delivery. *Out*: a verdict on its signature,
//! and the record for the log: the body as it came, with the headers that its adapter reads. *Never*: a
//! secret in a message or a log line, a byte parsed before the signature is checked, a comparison whose time
//! tells how much of a signature was right.
//!
//! `signature` has the schemes of the vendors.

mod signature;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use connectors::decode::adapt::Adapter;

pub(crate) use signature::Denied;

use crate::settings::{HookKind, HookSettings};
use signature::{Request, Scheme};

/// A source that takes webhooks.
pub struct Webhook {
    /// Whose webhooks.
    pub kind: HookKind,
    /// What makes canonical events of them; `None`: the source's format and envelope do.
    pub adapter: Option<Arc<Adapter>>,
    scheme: Scheme,
    /// Keys that hold, the newest first. None: `verify: none`.
    keys: Vec<Vec<u8>>,
    tolerance: Duration,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("kind", &self.kind)
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

impl Webhook {
    /// A hook as the settings describe it.
    ///
    /// # Errors
    /// A secret that cannot be a key of this scheme; the message says why, without the secret.
    pub fn new(settings: &HookSettings) -> Result<Webhook, String> {
        let scheme = Scheme::of(settings.kind);
        let keys = settings.secrets.iter().map(|secret| scheme.key(secret.reveal()));
        Ok(Webhook {
            kind: settings.kind,
            adapter: settings.adapter.clone(),
            scheme,
            keys: keys.collect::<Result<_, _>>()?,
            tolerance: settings.tolerance,
        })
    }

    /// Whether a delivery was sent by somebody who knows a secret, `now` being seconds since 1970.
    pub(crate) fn verify(&self, headers: &HeaderMap, body: &[u8], now: i64) -> Result<(), Denied> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let request = Request { headers, body, now, tolerance: self.tolerance };
        self.scheme.verify(&self.keys, &request)
    }

    /// The headers that are stored with a delivery: what its adapter reads, the media type, and the
    /// attributes of a CloudEvent.
    pub(crate) fn kept(&self, headers: &HeaderMap, media: &str) -> Vec<(String, Bytes)> {
        let wanted = self.adapter.as_ref().map(|adapter| adapter.headers.as_slice()).unwrap_or_default();
        let cloud = self.adapter.is_none();
        let mut kept = vec![(header::CONTENT_TYPE.as_str().to_owned(), Bytes::from(media.to_owned()))];
        for (name, value) in headers {
            let name = name.as_str();
            if wanted.iter().any(|wanted| wanted == name) || (cloud && name.starts_with("ce-")) {
                kept.push((name.to_owned(), Bytes::copy_from_slice(value.as_bytes())));
            }
        }
        kept
    }

    /// The name of a delivery, which its redeliveries share; `None`: this tool gives none.
    pub(crate) fn delivery(&self, headers: &HeaderMap, body: &[u8]) -> Option<String> {
        if let Some(adapter) = &self.adapter {
            let headers: Vec<(&str, &[u8])> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
            return adapter.delivery_name(body, &headers);
        }
        let named = headers
            .get("webhook-id")
            .or_else(|| headers.get("svix-id"))
            .and_then(|value| value.to_str().ok());
        named.map(str::to_owned)
    }
}
