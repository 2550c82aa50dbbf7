//! `sources:` - where events come from.
//!
//! *In*: the list. *Out*: [`Source`]s, one of which takes pushes. *Never*: two of one name, a secret in the
//! file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use connectors::receive::offsets::Accepted;

use super::hook::{self, HookSettings};
use super::read::{Report, Section};
use super::secret::{self, Secret};
use super::tree::{Data, Node, Origin};

/// One source.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name: in answers, counters, tokens and the names of its log.
    pub name: String,
    /// Transport.
    pub transport: Transport,
    /// How bytes become events.
    pub format: Format,
    /// Where the id, type and time of an event are.
    pub envelope: Envelope,
    /// What it says of change streams.
    pub stream: super::stream::Stream,
    /// Records that are gone and may be.
    pub accept_loss: Vec<Accepted>,
}

/// How bytes arrive.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Apache Kafka.
    Kafka(Kafka),
    /// `POST /v1/events`, kept in the embedded log.
    Http,
    /// `POST /v1/hooks/NAME`, kept in the embedded log as delivered.
    Hook(HookSettings),
    /// A file, read once from its beginning.
    File {
        /// The file.
        path: PathBuf,
    },
}

/// `kafka:` of a source.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `host:port,host:port`.
    pub brokers: String,
    /// Topic names; a `*` matches any characters.
    pub topics: Vec<String>,
    /// Progress is committed to this group for lag tools; nothing is read back.
    pub group: String,
    /// Where a partition starts.
    pub start: Start,
    /// Further librdkafka properties.
    pub properties: BTreeMap<String, Secret>,
}

/// `start:` of a Kafka source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From what is retained: state is rebuilt on each start.
    Earliest,
    /// Only what arrives from now on.
    Latest,
}

/// `format:` of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON objects with the envelope's paths.
    Json,
    /// CloudEvents 1.0.
    CloudEvents,
    /// Debezium change events.
    Debezium,
    /// Avro by the schemas of a registry.
    Avro,
    /// Protobuf by the schemas of a registry.
    Protobuf,
}

/// `envelope:` of a source: dotted paths into the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The event's id.
    pub id: String,
    /// The event's type.
    pub event_type: String,
    /// The event's time.
    pub time: String,
    /// The tenant: ids count per tenant.
    pub tenant: Option<String>,
    /// Of versions of rows: what they do.
    pub op: Option<String>,
}

impl Default for Envelope {
    fn default() -> Self {
        Self {
            id: "event_id".into(),
            event_type: "event_type".into(),
            time: "timestamp".into(),
            tenant: None,
            op: None,
        }
    }
}

impl Source {
    /// The source that takes pushed events when the settings name none.
    pub fn push() -> Self {
        Self {
            name: "push".into(),
            transport: Transport::Http,
            format: Format::Json,
            envelope: Envelope::default(),
            stream: super::stream::Stream::default(),
            accept_loss: Vec::new(),
        }
    }
}

/// Reads the list. Without any `http: {}` source the default [`Source::push`] is added.
pub fn read(root: &mut Section<'_>, base: &super::Base, loopback: bool, report: &mut Report) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut names = BTreeSet::new();
    let empty = Vec::new();
    let items = match root.node("sources") {
        None => &empty,
        Some(Node { data: Data::List(items), .. }) => items,
        Some(node) => {
            report.mistake(
                "wrong_type",
                &node.origin,
                format!("`sources` is {}, but a list is needed", node.kind()),
                "write `sources:` and one `- { name: ..., kafka: {...} }` per source",
            );
            &empty
        }
    };
    for (index, item) in items.iter().enumerate() {
        let (name, source) = read_one(index, item, (base, loopback), report);
        if let Some(name) = name.filter(|name| !names.insert(name.clone())) {
            report.mistake(
                "twice",
                &item.origin,
                format!("two sources are named `{name}`"),
                "offsets and counters are kept by name: give each its own",
            );
        }
        sources.extend(source);
    }
    if !sources.iter().any(|s| matches!(s.transport, Transport::Http)) && !names.contains("push") {
        let at = Section::open("sources.push", None, report);
        at.effective("http", "{}", &Origin::Default, report);
        sources.push(Source::push());
    }
    sources
}

/// The name, where it can be read, and the source, where it has no mistakes of its own.
fn read_one(
    index: usize,
    item: &Node,
    around: (&super::Base, bool),
    report: &mut Report,
) -> (Option<String>, Option<Source>) {
    let before = report.mistakes.len();
    let path = format!("sources[{index}]");
    let mut probe = Section::open(&path, Some(item), &mut Report::default());
    let name = probe.text("name", &mut Report::default()).map(|(name, _)| name);
    let path = name.as_ref().map_or(path, |name| format!("sources.{name}"));
    let mut section = Section::open(&path, Some(item), report);
    let name = read_name(&mut section, &item.origin, report);
    let transport = read_transport(&mut section, around, report);
    let format = section.choice(
        "format",
        "json",
        &[
            ("json", Format::Json),
            ("cloudevents", Format::CloudEvents),
            ("debezium", Format::Debezium),
            ("avro", Format::Avro),
            ("protobuf", Format::Protobuf),
        ],
        report,
    );
    let stream = super::stream::read(&mut section, (format, &item.origin), report);
    let envelope = read_envelope(&mut section, report);
    let accept_loss = read_accepted(&mut section, report);
    section.done(report);
    let source = match (&name, transport) {
        (Some(name), Some(transport)) if report.mistakes.len() == before => {
            Some(Source { name: name.clone(), transport, format, envelope, stream, accept_loss })
        }
        _ => None,
    };
    (name, source)
}

fn read_name(section: &mut Section<'_>, origin: &Origin, report: &mut Report) -> Option<String> {
    let Some((name, at)) = section.text("name", report) else {
        report.mistake("missing", origin, "a source needs a `name`", "for example `name: orders`");
        return None;
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) || name.starts_with('.') {
        report.mistake(
            "not_allowed",
            &at,
            format!("the source name `{name}` is not allowed"),
            "use 1 to 64 letters, digits, `-`, `_`, `.`: it becomes a folder name",
        );
        return None;
    }
    Some(name)
}

fn read_transport(
    section: &mut Section<'_>,
    (base, loopback): (&super::Base, bool),
    report: &mut Report,
) -> Option<Transport> {
    let (kafka, http, file) = (section.has("kafka"), section.has("http"), section.has("file"));
    let hook = section.has("hook");
    let origin = section.origin().clone();
    if [kafka, http, file, hook].iter().filter(|has| **has).count() != 1 {
        report.mistake(
            "missing",
            &origin,
            "a source has exactly one of `kafka`, `http`, `hook`, `file`",
            "for example `http: {}` or `kafka: { brokers: localhost:9092, topics: [orders.raw] }`",
        );
        return None;
    }
    if http {
        let inner = section.section("http", report);
        inner.effective("listen", "POST /v1/events", inner.origin(), report);
        inner.done(report);
        return Some(Transport::Http);
    }
    if hook {
        return hook::read(section, base, loopback, report).map(Transport::Hook);
    }
    if file {
        let mut inner = section.section("file", report);
        let path = inner.text("path", report);
        if let Some((text, at)) = &path {
            inner.effective("path", text, at, report);
        } else {
            report.mistake(
                "missing",
                inner.origin(),
                "`file` needs a `path`",
                "for example `file: { path: orders.ndjson }`",
            );
        }
        inner.done(report);
        let (text, at) = path?;
        return Some(Transport::File { path: base.resolve(&text, &at) });
    }
    read_kafka(section, report).map(Transport::Kafka)
}

fn read_kafka(section: &mut Section<'_>, report: &mut Report) -> Option<Kafka> {
    let mut inner = section.section("kafka", report);
    let origin = inner.origin().clone();
    let brokers: Vec<String> = inner.texts("brokers", &[], report).into_iter().map(|(t, _)| t).collect();
    let topics: Vec<String> = inner.texts("topics", &[], report).into_iter().map(|(t, _)| t).collect();
    let group = inner.value(
        "group",
        ("streamgauge", "streamgauge".to_owned()),
        "a text",
        |t| Some(t.to_owned()),
        report,
    );
    let start = inner.choice(
        "start",
        "earliest",
        &[("earliest", Start::Earliest), ("latest", Start::Latest)],
        report,
    );
    let properties = secret::read_properties(&mut inner, report);
    if brokers.is_empty() {
        report.mistake(
            "missing",
            &origin,
            "`kafka` needs `brokers`",
            "for example `brokers: localhost:9092`",
        );
    }
    if topics.is_empty() {
        report.mistake("missing", &origin, "`kafka` needs `topics`", "for example `topics: [orders.raw]`");
    }
    inner.done(report);
    Some(Kafka { brokers: brokers.join(","), topics, group, start, properties })
}

/// Losses that are accepted; nothing is noted of a source that has none.
fn read_accepted(section: &mut Section<'_>, report: &mut Report) -> Vec<Accepted> {
    if !section.has("accept_loss") {
        return Vec::new();
    }
    let mut accepted = Vec::new();
    for (text, at) in section.texts("accept_loss", &[], report) {
        section.effective("accept_loss", &text, &at, report);
        match Accepted::parse(&text) {
            Some(loss) => accepted.push(loss),
            None => report.mistake(
                "not_allowed",
                &at,
                format!("`accept_loss`: `{text}` names no records"),
                "write what the error `offset_gap` proposes: TOPIC[PARTITION] FROM..TO, for example `orders.raw[0] 100..250`",
            ),
        }
    }
    accepted
}

fn read_envelope(section: &mut Section<'_>, report: &mut Report) -> Envelope {
    let usual = Envelope::default();
    let mut inner = section.section("envelope", report);
    let mut path = |key: &'static str, default: &str| {
        inner.value(
            key,
            (default, default.to_owned()),
            "a dotted path such as meta.id",
            |text| text.split('.').all(|part| !part.is_empty()).then(|| text.to_owned()),
            report,
        )
    };
    let id = path("id", &usual.id);
    let event_type = path("type", &usual.event_type);
    let time = path("time", &usual.time);
    let tenant = inner.text("tenant", report).map(|(text, _)| text);
    let op = inner.text("op", report).map(|(text, _)| text);
    inner.done(report);
    Envelope { id, event_type, time, tenant, op }
}
