//! What a source says of change streams: the type of its records, and how change events are written.
//!
//! *In*: `type:`, `debezium:` and `registry:` of a source. *Out*: [`Stream`]. *Never*: a guess at what only
//! the connector's own settings can tell, a password in the file.

use connectors::decode::{DebeziumSpec, Decimals, RegistrySpec, Unit};

use super::read::{Report, Section};
use super::source::Format;
use super::{secret, tree::Origin};

/// See the module's words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stream {
    /// `type`: the type of records that do not say theirs.
    pub event_type: Option<String>,
    /// `debezium`: how change events without a schema are written.
    pub debezium: DebeziumSpec,
    /// `registry`: where the schemas are.
    pub registry: Option<RegistrySpec>,
}

/// Reads `type`, `debezium` and `registry` of a source; `format` stands at `at`.
pub fn read(section: &mut Section<'_>, format: (Format, &Origin), report: &mut Report) -> Stream {
    let some = |text: &str| (!text.is_empty()).then(|| Some(text.to_owned()));
    let event_type = section.value("type", ("", None), "the name of an event contract", some, report);
    let mut inner = section.section("debezium", report);
    let decimals = [
        ("auto", None),
        ("precise", Some(Decimals::Precise)),
        ("string", Some(Decimals::String)),
        ("double", Some(Decimals::Double)),
    ];
    let decimals = inner.choice("decimals", "auto", &decimals, report);
    let times = [
        ("auto", None),
        ("millis", Some(Unit::Millis)),
        ("micros", Some(Unit::Micros)),
        ("nanos", Some(Unit::Nanos)),
    ];
    let times = inner.choice("times", "auto", &times, report);
    inner.done(report);
    let registry = read_registry(section, report);
    if registry.is_none() && matches!(format.0, Format::Avro | Format::Protobuf) && !section.has("registry") {
        report.mistake(
            "missing",
            format.1,
            "Avro and Protobuf records are read by the schemas of a registry, and the source names none",
            "add for example `registry: { url: http://localhost:8081 }`",
        );
    }
    if section.has("registry") && !section.has("kafka") {
        report.mistake(
            "not_allowed",
            section.origin(),
            "only a Kafka source has a `registry`: it alone can wait for one that is away",
            "remove `registry`, and use `format: json` or `cloudevents` here",
        );
    }
    Stream { event_type, debezium: DebeziumSpec { decimals, times }, registry }
}

fn read_registry(section: &mut Section<'_>, report: &mut Report) -> Option<RegistrySpec> {
    if !section.has("registry") {
        return None;
    }
    let mut inner = section.section("registry", report);
    let web = |text: &str| {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        rest.is_some_and(|host| !host.is_empty()).then(|| Some(text.to_owned()))
    };
    let allowed = "the address of a schema registry";
    let url = inner.value("url", ("http://localhost:8081", None), allowed, web, report);
    let user = inner.text("user", report).map(|(text, _)| text);
    let password = secret::read_password(&mut inner, report);
    if url.is_none() && inner.node("url").is_none() {
        let at = inner.origin().clone();
        report.mistake(
            "missing",
            &at,
            "`registry` needs a `url`",
            "for example `url: http://localhost:8081`",
        );
    }
    inner.done(report);
    let login =
        user.map(|user| format!("{user}:{}", password.as_ref().map_or("", |password| password.reveal())));
    Some(RegistrySpec { url: url?, login })
}
