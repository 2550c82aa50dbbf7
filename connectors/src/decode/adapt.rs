//! Adapters: what a tool really sends becomes canonical events.
//!
//! *In*: one delivery of a webhook as it was stored, body and headers, and the [`Adapter`] of its source.
//! *Out*: the canonical events it speaks of (none, one or several; parts of the record), each decoded by
//! its contract like any other event. *Never*: a delivery without a verdict: understood but of no use is
//! skipped, not understood is refused; an event whose id does not tell its content.
//!
//! An adapter is a YAML file (`connectors/adapters/`, docs/reference/adapters.md): `read` parses and
//! checks it, `spec` is what it means, `path` and `eval` read a delivery by it, `native` holds the few things
//! YAML cannot say, one file per source.

mod body;
mod eval;
mod native;
mod path;
mod read;
mod registry;
mod spec;

use serde_json::{Map, Value};

use super::Decoder;
use super::json;
use super::raw::Raw;
use super::reason::reason;
use super::rows::Origin;
use super::sink::Payload;
use super::text::clip;
use body::Body;
use eval::Delivery;

pub use registry::{adapter, adapter_names};
pub use spec::Adapter;

/// `content-type` of a record that is a canonical event already: a refused one that comes back corrected.
pub const CANONICAL: &str = "application/vnd.streamgauge.event+json";

/// A delivery of more events than this is refused: GitHub's largest push has 2,048 commits.
const MAX_EVENTS: usize = 10_000;

/// The envelope of canonical events.
pub(super) fn envelope() -> super::Envelope {
    let path = |key: &str| Some(vec![key.to_owned()]);
    super::Envelope {
        id: path("event_id"),
        event_type: path("event_type"),
        time: path("timestamp"),
        tenant: None,
    }
}

/// What became of one delivery.
#[derive(Debug)]
enum Outcome {
    Events(Vec<Map<String, Value>>),
    /// Understood, and nothing in it that anybody asks for.
    Skipped,
    /// Code and words.
    Refused(&'static str, String),
}

/// Decodes one delivery.
pub(super) fn delivery(
    decoder: &mut Decoder,
    adapter: &Adapter,
    payload: Payload<'_>,
    origin: &Origin,
    headers: &[(&str, &[u8])],
) {
    let canonical_header = [("content-type", CANONICAL.as_bytes())];
    if header(headers, "content-type").is_some_and(|value| value == CANONICAL.as_bytes()) {
        decoder.sink.keep_delivery(origin.offset, canonical_header.into_iter());
        return json::record(decoder, payload, origin, json::event);
    }
    let outcomes = match body::read(payload.bytes, headers, adapter.unwrap.as_deref()) {
        Ok(bodies) => bodies.iter().map(|body| one(adapter, body, headers, origin.received)).collect(),
        Err(message) => vec![Outcome::Refused("malformed_json", message)],
    };
    // A refused event is replayed as what it is, a refused delivery as it came.
    if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Refused(..))) {
        decoder.sink.keep_delivery(origin.offset, headers.iter().copied());
    } else {
        decoder.sink.keep_delivery(origin.offset, canonical_header.into_iter());
    }
    let mut part = 0;
    for outcome in outcomes {
        let events = match outcome {
            Outcome::Skipped => continue,
            Outcome::Refused(code, message) => {
                refuse(decoder, payload, &Origin { part, ..*origin }, code, message);
                part += 1;
                continue;
            }
            Outcome::Events(events) => events,
        };
        for event in events {
            canonical(decoder, &event, &Origin { part, ..*origin });
            part += 1;
        }
    }
    if part == 0 {
        decoder.sink.skip();
    }
}

/// One event on its way to its contract.
fn canonical(decoder: &mut Decoder, event: &Map<String, Value>, origin: &Origin) {
    // Maps of strings and numbers always have a JSON form.
    let bytes = serde_json::to_vec(event).unwrap_or_default();
    json::event(decoder, Payload { bytes: &bytes, shared: None }, origin);
}

#[cold]
fn refuse(decoder: &mut Decoder, payload: Payload<'_>, origin: &Origin, code: &str, message: String) {
    let reason = reason(code, String::new(), message);
    decoder.sink.refuse(origin, payload.bytes, None, Raw::Absent, vec![reason]);
}

fn header<'a>(headers: &[(&str, &'a [u8])], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

/// Applies all rules of `adapter` to one body.
fn one(adapter: &Adapter, body: &Body, headers: &[(&str, &[u8])], received: i64) -> Outcome {
    let delivery = Delivery::new(adapter, &body.value, headers, received);
    if adapter.skip.iter().any(|skip| delivery.holds(&skip.when)) {
        return Outcome::Skipped;
    }
    let mut events = Vec::new();
    let mut fits = false;
    for rule in adapter.rules.iter().filter(|rule| delivery.holds(&rule.when)) {
        fits = true;
        delivery.emit(rule, &mut events);
        if events.len() > MAX_EVENTS {
            let message = format!("one delivery makes at most {MAX_EVENTS} events");
            return Outcome::Refused("too_many_events", message);
        }
    }
    if fits {
        return if events.is_empty() { Outcome::Skipped } else { Outcome::Events(events) };
    }
    if adapter.otherwise.iter().any(|skip| delivery.holds(&skip.when)) {
        return Outcome::Skipped;
    }
    Outcome::Refused("unknown_delivery", unknown(adapter, &delivery, body))
}

/// What was found of that which tells deliveries apart.
fn unknown(adapter: &Adapter, delivery: &Delivery<'_>, body: &Body) -> String {
    let found = adapter.about.iter().map(|(name, value)| match delivery.text(value) {
        Some(text) => format!("{name} is \"{}\"", clip(text.as_bytes())),
        None => format!("{name} is absent"),
    });
    let keys: Vec<&str> = body
        .value
        .as_object()
        .map(|map| map.keys().take(10).map(String::as_str).collect())
        .unwrap_or_default();
    format!(
        "this is not a delivery of {}: {}; the body has {}",
        adapter.name,
        found.collect::<Vec<_>>().join(", "),
        if keys.is_empty() { "no keys".to_owned() } else { keys.join(", ") }
    )
}

#[cfg(test)]
mod tests;
