//! CloudEvents 1.0.1 (JSON event format, HTTP and Kafka protocol bindings).
//!
//! *In*: a record and its headers. *Out*: id, type and time from the attributes, the fields from `data`.
//! *Never*: an event of another specversion, or without a required attribute.

use std::borrow::Cow;

use base64::Engine as _;
use contracts::Catalog;
use contracts::batch::Reason;

use super::plan::Plan;
use super::raw::Raw;
use super::reason::{malformed, reason};
use super::rows::{Envelope, Origin};
use super::sink::Payload;
use super::text::clip;
use super::walk::Walk;
use super::{DecodeSpec, Decoder, Format, json};

/// Which form a record has.
pub(super) enum Form<'a> {
    Json,
    /// A JSON object of attributes and data, or an array of them.
    Structured,
    /// Attributes in headers, data in the value.
    Binary(Attributes<'a>),
    Csv,
    /// A change event.
    Debezium,
    /// In the wire format of a schema registry.
    Registry,
    Unsupported(Reason),
}

/// Attributes from headers.
#[derive(Default)]
pub(super) struct Attributes<'a> {
    specversion: Option<Cow<'a, [u8]>>,
    id: Option<Cow<'a, [u8]>>,
    source: Option<Cow<'a, [u8]>>,
    event_type: Option<Cow<'a, [u8]>>,
    time: Option<Cow<'a, [u8]>>,
    tenant: Option<Cow<'a, [u8]>>,
}

impl<'a> Form<'a> {
    pub(super) fn by_format(format: Format) -> Self {
        match format {
            Format::Json => Self::Json,
            Format::CloudEvents => Self::Structured,
            Format::Csv => Self::Csv,
            Format::Debezium => Self::Debezium,
            Format::Avro | Format::Protobuf => Self::Registry,
        }
    }

    pub(super) fn by_headers(headers: &[(&'a str, &'a [u8])], spec: &DecodeSpec) -> Self {
        let is = |name: &str| name.eq_ignore_ascii_case("content-type");
        let content = headers.iter().find(|(name, _)| is(name)).map(|(_, value)| media_type(value));
        let content = content.as_deref().unwrap_or_default();
        match content {
            "application/cloudevents+json" | "application/cloudevents-batch+json" => {
                return Self::Structured;
            }
            other if other.starts_with("application/cloudevents") => return unsupported(other),
            _ => {}
        }
        let mut attributes = Attributes::default();
        let mut binary = false;
        for (name, value) in headers {
            // Kafka writes `ce_`, HTTP `ce-` and percent-encodes.
            let (name, value) = match (attribute(name, "ce_"), attribute(name, "ce-")) {
                (Some(name), _) => (name, Cow::Borrowed(*value)),
                (None, Some(name)) => (name, percent_decoded(value)),
                (None, None) => continue,
            };
            binary |= attributes.set(&name, value, spec);
        }
        if !binary {
            return Self::by_format(spec.format);
        }
        let json = matches!(content, "" | "application/json" | "text/json") || content.ends_with("+json");
        if json { Self::Binary(attributes) } else { unsupported(content) }
    }
}

impl<'a> Attributes<'a> {
    /// Remembers an attribute; whether it is one that makes a CloudEvent.
    fn set(&mut self, name: &str, value: Cow<'a, [u8]>, spec: &DecodeSpec) -> bool {
        match name {
            "specversion" => self.specversion = Some(value),
            "id" => self.id = Some(value),
            "source" => self.source = Some(value),
            "type" => self.event_type = Some(value),
            "time" => {
                self.time = Some(value);
                return false;
            }
            other => {
                if matches!(spec.envelope.tenant.as_deref(), Some([tenant]) if tenant == other) {
                    self.tenant = Some(value);
                }
                return false;
            }
        }
        true
    }
}

fn unsupported<'a>(content: &str) -> Form<'a> {
    let message = format!("found {}, expected JSON data", clip(content.as_bytes()));
    Form::Unsupported(reason("unsupported_content_type", "content-type".to_owned(), message))
}

/// The media type in lower case, without parameters.
fn media_type(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn attribute(header: &str, prefix: &str) -> Option<String> {
    let (start, name) = header.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| name.to_ascii_lowercase())
}

/// `%` and two hexadecimal digits are a byte (CloudEvents HTTP binding 3.1.3.2).
fn percent_decoded(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.contains(&b'%') {
        return Cow::Borrowed(value);
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(byte) = value.get(at) {
        let digit = |at: usize| value.get(at).and_then(|b| (*b as char).to_digit(16));
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                bytes.push(*byte);
                at += 1;
            }
        }
    }
    Cow::Owned(bytes)
}

/// The plan of the structured form.
pub(super) struct Structured {
    pub(super) plan: Plan,
    specversion: Option<Vec<u32>>,
    source: Option<Vec<u32>>,
    data: Option<Vec<u32>>,
    data_base64: Option<Vec<u32>>,
}

impl Structured {
    fn new(catalog: &Catalog, spec: &DecodeSpec) -> Self {
        let mut plan = Plan::new(catalog, &attributes_of(spec), Some("data"));
        let root = plan.root;
        let mut want = |key: &str| Some(plan.walker.want(root, &[key.to_owned()]));
        let specversion = want("specversion");
        let source = want("source");
        let data = want("data");
        let data_base64 = want("data_base64");
        Self { plan, specversion, source, data, data_base64 }
    }

    /// The first attribute that came twice.
    fn twice(&self, walk: Walk) -> Option<String> {
        let own = [
            (&self.specversion, "specversion"),
            (&self.source, "source"),
            (&self.data, "data"),
            (&self.data_base64, "data_base64"),
        ];
        let mut own = own.into_iter().filter_map(|(way, name)| Some((way.as_ref()?, name)));
        let own = own.find(|(way, _)| self.plan.walker.twice(walk, way)).map(|(_, name)| name);
        self.plan.envelope_twice(walk).or(own).map(str::to_owned)
    }
}

/// The attributes as an envelope.
fn attributes_of(spec: &DecodeSpec) -> super::Envelope {
    let path = |key: &str| Some(vec![key.to_owned()]);
    super::Envelope {
        id: path("id"),
        event_type: path("type"),
        time: path("time"),
        tenant: spec.envelope.tenant.clone(),
    }
}

/// Reasons of the attributes every CloudEvent must have.
fn required(specversion: Raw<'_>, id: Raw<'_>, source: Raw<'_>, event_type: Raw<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let all = [("specversion", specversion), ("id", id), ("source", source), ("type", event_type)];
    for (name, raw) in all {
        let mut add = |code, message| reasons.push(reason(code, name.to_owned(), message));
        match raw.text() {
            Some(text) if text.is_empty() => {
                add("missing", "a CloudEvent needs it, but it is empty".to_owned());
            }
            Some(text) if name == "specversion" && *text != *b"1.0" => {
                add("not_in_enum", format!("found \"{}\", allowed: 1.0", clip(&text)));
            }
            Some(text) if std::str::from_utf8(&text).is_err() => {
                add("wrong_type", "not UTF-8".to_owned());
            }
            Some(_) => {}
            None if raw.is_nothing() => {
                add("missing", "a CloudEvent needs it".to_owned());
            }
            None => add("wrong_type", format!("found {}, expected a string", raw.found())),
        }
    }
    reasons
}

fn owned(raw: Raw<'_>) -> Option<String> {
    raw.text().map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// One structured event.
pub(super) fn structured(decoder: &mut Decoder, payload: Payload<'_>, origin: &Origin) {
    let Decoder { spec, structured, data, sink, .. } = decoder;
    let form = structured.get_or_insert_with(|| Box::new(Structured::new(sink.catalog(), spec)));
    let bytes = payload.bytes;
    let walk = match json::walk(&mut form.plan, bytes) {
        Ok(walk) => walk,
        Err(syntax) => return sink.refuse(origin, bytes, None, Raw::Absent, vec![malformed(syntax)]),
    };
    if form.plan.walker.any_twice()
        && let Some(name) = form.twice(walk)
    {
        return json::twice(sink, name, origin, bytes);
    }
    let plan = &form.plan;
    let envelope = plan.envelope(walk, bytes);
    let at = |way| plan.at(walk, way, bytes);
    let (version, source) = (at(&form.specversion), at(&form.source));
    let mut reasons = required(version, envelope.id, source, envelope.event_type);
    let encoded = at(&form.data_base64);
    let content = match (at(&form.data), encoded) {
        (Raw::Object(_) | Raw::Absent | Raw::Null, Raw::Absent | Raw::Null) => None,
        (Raw::Absent | Raw::Null, encoded) => match base64(encoded) {
            Some(content) => Some(content),
            None => {
                let message = format!("found {}, expected base64 (RFC 4648)", encoded.found());
                reasons.push(reason("wrong_type", "data_base64".to_owned(), message));
                None
            }
        },
        (_, Raw::Absent | Raw::Null) => {
            let message = format!("found {}, expected an object", at(&form.data).found());
            reasons.push(reason("wrong_type", "data".to_owned(), message));
            None
        }
        _ => {
            let message = "`data` and `data_base64` exclude each other".to_owned();
            reasons.push(reason("wrong_type", "data_base64".to_owned(), message));
            None
        }
    };
    let mut known = None;
    if reasons.is_empty() {
        match sink.event(envelope.event_type, None, &plan.names) {
            Ok(event) => known = Some(event),
            Err(reason) => reasons.push(reason),
        }
    }
    let Some(event) = known else {
        return sink.refuse(origin, bytes, owned(envelope.event_type), envelope.id, reasons);
    };
    if let Some(content) = content {
        let plan = data.get_or_insert_with(|| data_plan(sink.catalog()));
        return apart(plan, sink, event, &content, &envelope, origin, payload);
    }
    if let Some(field) = plan.field_twice(walk, event) {
        let name = sink.catalog().events[event].fields[field].path.join(".");
        return json::twice(sink, name, origin, bytes);
    }
    let cells = plan.fields_of(walk, event, bytes);
    sink.take(event, cells, &envelope, &plan.names, origin, payload);
}

fn base64(raw: Raw<'_>) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(&*raw.text()?).ok()
}

/// The fields at the top, no envelope.
fn data_plan(catalog: &Catalog) -> Box<Plan> {
    let mut plan = Plan::new(catalog, &super::Envelope::default(), None);
    plan.names.event_type = "type".to_owned();
    Box::new(plan)
}

/// One event in binary mode: the record's value is the data.
pub(super) fn binary(
    decoder: &mut Decoder,
    attributes: &Attributes<'_>,
    payload: Payload<'_>,
    origin: &Origin,
) {
    fn text<'a>(value: &'a Option<Cow<'_, [u8]>>) -> Raw<'a> {
        value.as_deref().map_or(Raw::Absent, Raw::Text)
    }
    let Decoder { data, sink, .. } = decoder;
    let mut envelope = Envelope {
        event_type: text(&attributes.event_type),
        id: text(&attributes.id),
        time: text(&attributes.time),
        tenant: text(&attributes.tenant),
    };
    if attributes.tenant.as_deref().is_some_and(|tenant| std::str::from_utf8(tenant).is_err()) {
        envelope.tenant = Raw::Absent;
    }
    let (version, source) = (text(&attributes.specversion), text(&attributes.source));
    let mut reasons = required(version, envelope.id, source, envelope.event_type);
    let plan = data.get_or_insert_with(|| data_plan(sink.catalog()));
    if reasons.is_empty() {
        match sink.event(envelope.event_type, None, &plan.names) {
            Ok(event) => return apart(plan, sink, event, payload.bytes, &envelope, origin, payload),
            Err(reason) => reasons.push(reason),
        }
    }
    sink.refuse(origin, payload.bytes, owned(envelope.event_type), envelope.id, reasons);
}

/// An event whose data stands apart from its attributes.
fn apart(
    plan: &mut Plan,
    sink: &mut super::sink::Sink,
    event: usize,
    content: &[u8],
    envelope: &Envelope<'_>,
    origin: &Origin,
    payload: Payload<'_>,
) {
    let start = super::scan::Scan::new(content).space(0);
    let content = &content[start..];
    let walked = match content.first() {
        Some(b'{') => json::walk(plan, content),
        _ => Err(super::scan::Syntax { at: 0, what: "expected an object as the event's data" }),
    };
    let walk = match walked {
        Ok(walk) => walk,
        Err(syntax) => {
            let (event_type, id) = (owned(envelope.event_type), envelope.id);
            return sink.refuse(origin, payload.bytes, event_type, id, vec![malformed(syntax)]);
        }
    };
    if let Some(field) = plan.field_twice(walk, event) {
        let name = sink.catalog().events[event].fields[field].path.join(".");
        return json::twice(sink, name, origin, payload.bytes);
    }
    let cells = plan.fields_of(walk, event, content);
    sink.take(event, cells, envelope, &plan.names, origin, payload);
}
