//! A record of JSON: one event, or an array of events.
//!
//! *In*: a record's bytes. *Out*: each event walked once and given to the sink. *Never*: an array taken in
//! part: if it is not JSON to its end, the record is refused as a whole.

use super::Decoder;
use super::debezium;
use super::plan::Plan;
use super::raw::Raw;
use super::reason::{malformed, reason};
use super::rows::Origin;
use super::scan::{Bad, Elements, Kind, Scan, Syntax};
use super::sink::{Payload, Sink};
use super::walk::Walk;

/// Decodes one JSON object; its bytes start with the brace.
type Event = fn(&mut Decoder, Payload<'_>, &Origin);

/// Decodes a record, each of its events by `event`.
#[inline]
pub(super) fn record(decoder: &mut Decoder, payload: Payload<'_>, origin: &Origin, event: Event) {
    let bytes = payload.bytes;
    let start = Scan::new(bytes).space(0);
    match bytes.get(start) {
        Some(b'{') => event(decoder, payload.part(start, bytes.len()), origin),
        Some(b'[') => array(decoder, payload, start, origin, event),
        _ => {
            let at = start;
            let found = match bytes.get(start..) {
                None | Some([]) => Syntax { at, what: "nothing but white space" },
                Some([0xEF, 0xBB, 0xBF, ..]) => Syntax { at, what: "a byte order mark before the JSON" },
                Some(_) => {
                    let mut scan = Scan::new(bytes);
                    match scan.value(start, 0).and_then(|(_, end)| scan.finish(end)) {
                        Err(Bad) => scan.fault,
                        Ok(()) => Syntax { at, what: "expected an object or an array of objects" },
                    }
                }
            };
            decoder.sink.refuse(origin, bytes, None, Raw::Absent, vec![malformed(found)]);
        }
    }
}

#[cold]
fn array(decoder: &mut Decoder, payload: Payload<'_>, start: usize, origin: &Origin, event: Event) {
    let parts = match elements(payload.bytes, start) {
        Ok(parts) => parts,
        Err(syntax) => {
            return decoder.sink.refuse(origin, payload.bytes, None, Raw::Absent, vec![malformed(syntax)]);
        }
    };
    if parts.is_empty() {
        return decoder.sink.skip();
    }
    for (part, (kind, start, end)) in parts.into_iter().enumerate() {
        let payload = payload.part(start, end);
        let origin = Origin { part: part as u32, ..*origin };
        if kind == Kind::Object {
            event(decoder, payload, &origin);
        } else {
            let message = "expected an object in the array of events".to_owned();
            let reason = reason("malformed_json", String::new(), message);
            decoder.sink.refuse(&origin, payload.bytes, None, Raw::Absent, vec![reason]);
        }
    }
}

/// Kind, start and end of each element of the array at `start`, if all of `bytes` is JSON.
fn elements(bytes: &[u8], start: usize) -> Result<Vec<(Kind, usize, usize)>, Syntax> {
    let mut scan = Scan::new(bytes);
    let mut elements = Elements::new(start + 1);
    let mut parts = Vec::new();
    while let Some(part) = elements.next(&mut scan, 1).map_err(|Bad| scan.fault)? {
        parts.push(part);
    }
    scan.finish(elements.at).map_err(|Bad| scan.fault)?;
    Ok(parts)
}

/// Walks all of `bytes`, an object.
#[inline]
pub(super) fn walk(plan: &mut Plan, bytes: &[u8]) -> Result<Walk, Syntax> {
    let mut scan = Scan::new(bytes);
    let (walk, end) = plan.walker.walk(plan.root, &mut scan, 0)?;
    scan.finish(end).map_err(|Bad| scan.fault)?;
    Ok(walk)
}

/// An event with the declared envelope.
pub(super) fn event(decoder: &mut Decoder, payload: Payload<'_>, origin: &Origin) {
    let Decoder { spec, json: plan, stream, sink, .. } = decoder;
    let bytes = payload.bytes;
    let walk = match walk(plan, bytes) {
        Ok(walk) => walk,
        Err(syntax) => {
            return sink.refuse(origin, bytes, None, Raw::Absent, vec![malformed(syntax)]);
        }
    };
    let envelope = plan.envelope(walk, bytes);
    if plan.walker.any_twice()
        && let Some(name) = plan.envelope_twice(walk)
    {
        let name = name.to_owned();
        return twice(sink, name, origin, bytes);
    }
    let of_topic = || stream.as_ref()?.type_of_topic(sink.catalog());
    let fixed = spec.fixed_type.as_deref().or_else(of_topic);
    let event = match sink.event(envelope.event_type, fixed, &plan.names) {
        Ok(event) => event,
        Err(reason) => {
            let text = envelope.event_type.text();
            let event_type = text.map(|text| String::from_utf8_lossy(&text).into_owned());
            return sink.refuse(origin, bytes, event_type, envelope.id, vec![reason]);
        }
    };
    if let Some(field) = plan.field_twice(walk, event) {
        let name = sink.catalog().events[event].fields[field].path.join(".");
        return twice(sink, name, origin, bytes);
    }
    let cells = plan.fields_of(walk, event, bytes);
    if sink.rows[event].changelog() {
        let op = plan.at(walk, &plan.op, bytes);
        return debezium::plain(sink, event, cells, op, &envelope, &plan.names, origin, payload);
    }
    sink.take(event, cells, &envelope, &plan.names, origin, payload);
}

/// A wanted key came twice: which one holds is nobody's guess.
#[cold]
pub(super) fn twice(sink: &mut Sink, path: String, origin: &Origin, bytes: &[u8]) {
    let reason = reason("malformed_json", path, "the key comes twice".to_owned());
    sink.refuse(origin, bytes, None, Raw::Absent, vec![reason]);
}
