//! How a source says what its records are.
//!
//! *In*: `format:` and `envelope:` of a source. *Out*: [`DecodeSpec`]. *Never*: a default that guesses the
//! type of an event.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the bytes of a record are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON object, or an array of them; the envelope says where id, type and time are.
    #[default]
    Json,
    /// CloudEvents 1.0: structured JSON where no header says otherwise.
    CloudEvents,
    /// One line of comma-separated values (RFC 4180); see [`super::Decoder::csv`].
    Csv,
    /// Change events of Debezium as JSON; the contract is found by topic or table.
    Debezium,
    /// Avro in the wire format of Confluent's Schema Registry.
    Avro,
    /// Protobuf in the same wire format.
    Protobuf,
}

/// Where an event says what it is: paths of keys, written with dots (`subject.id`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The event's id, unless its contract names a field.
    #[serde(default, with = "dotted", skip_serializing_if = "Option::is_none")]
    pub id: Option<Vec<String>>,
    /// The event's type: the name of its contract.
    #[serde(default, with = "dotted", rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<Vec<String>>,
    /// The event's time, unless its contract names a field.
    #[serde(default, with = "dotted", skip_serializing_if = "Option::is_none")]
    pub time: Option<Vec<String>>,
    /// Whose event it is. Ids count per tenant: the id of a row is then `tenant/id`.
    #[serde(default, with = "dotted", skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Vec<String>>,
}

/// All a [`super::Decoder`] needs to know beside the contracts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeSpec {
    /// What the bytes of a record are.
    #[serde(default)]
    pub format: Format,
    /// Where an event says what it is.
    #[serde(default)]
    pub envelope: Envelope,
    /// The type of events that do not say theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_type: Option<String>,
    /// The records are deliveries of webhooks, and this makes canonical events of them; format, envelope and
    /// `fixed_type` do not count then.
    #[serde(skip)]
    pub adapter: Option<Arc<super::adapt::Adapter>>,
    /// Takes events that only the engine makes (`streamgauge.*`): for the tests of contracts that read them.
    #[serde(skip)]
    pub own_events: bool,
    /// Of records that are versions of a row (`changelog: true`) and no change events of Debezium: path of
    /// the operation, one of c, r, u (the default), d, t.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<Vec<String>>,
    /// How change events without a schema write decimals and times.
    #[serde(default)]
    pub debezium: super::debezium::DebeziumSpec,
    /// Where the schemas of records in the registry's wire format are. JSON records may have its header, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<super::registry::RegistrySpec>,
    /// A longer record is refused (`oversize`) unread.
    #[serde(default = "max_record_bytes")]
    pub max_record_bytes: usize,
}

impl Default for DecodeSpec {
    fn default() -> Self {
        Self {
            format: Format::Json,
            envelope: Envelope::default(),
            fixed_type: None,
            adapter: None,
            own_events: false,
            op: None,
            debezium: super::debezium::DebeziumSpec::default(),
            registry: None,
            max_record_bytes: max_record_bytes(),
        }
    }
}

/// 1 MiB: the limit of a request body, and Kafka's default for a message.
fn max_record_bytes() -> usize {
    1 << 20
}

mod dotted {
    use super::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Option<Vec<String>>, to: S) -> Result<S::Ok, S::Error> {
        match path {
            Some(path) => to.serialize_some(&path.join(".")),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
        let text: Option<String> = Deserialize::deserialize(from)?;
        let Some(text) = text else { return Ok(None) };
        let path: Vec<String> = text.split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            let message =
                format!("`{text}` is not a path: expected keys with dots between, like `subject.id`");
            return Err(serde::de::Error::custom(message));
        }
        Ok(Some(path))
    }
}
