//! Records in the wire format of Confluent's Schema Registry: a zero byte, the schema's id, the data.
//!
//! *In*: Avro, Protobuf and JSON Schema records; schemas by id from a registry. *Out*: each record as JSON
//! text in the contract's own forms (decimals and instants as text), which goes the way of any JSON.
//! *Never*: a record read by another schema than the one it names; a record refused because the registry
//! does not answer, as long as [`super::Decoder::prepare`] is asked first.
//!
//! `client` asks the registry, `avro` and `protobuf` read the data, `text` writes JSON.

mod avro;
mod client;
mod protobuf;
mod spec;
mod text;

pub use spec::Registry as RegistrySpec;

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use contracts::batch::Reason;

use self::client::{Answer, Client, Found};
use self::text::Text;
use super::raw::Raw;
use super::reason::reason;
use super::rows::Origin;
use super::sink::Payload;
use super::{Decoder, debezium, json};

/// How long an id that the registry does not know is not asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// The zero byte and the id.
const HEADER: usize = 5;

/// What reads the data of one schema.
enum Codec {
    Avro(avro::Schema),
    Protobuf(protobuf::Schema),
    /// The data is JSON text.
    Json,
}

enum Known {
    Codec(Box<Codec>),
    /// The registry does not know the id; ask again after the instant.
    Missing(String, Instant),
    /// The schema cannot be used.
    Broken(String),
}

/// Schemas by id. An id's schema never changes, so it is asked for once.
pub(super) struct Registry {
    client: Client,
    known: HashMap<u32, Known>,
    /// The last record as JSON.
    text: Text,
}

impl Registry {
    pub(super) fn new(spec: &RegistrySpec) -> Self {
        Self { client: Client::new(spec), known: HashMap::new(), text: Text::default() }
    }

    /// Fetches the schema that `bytes` name, if it is not known.
    ///
    /// # Errors
    /// The registry does not answer: in words, with its address.
    pub(super) fn prepare(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some(id) = id_of(bytes) else { return Ok(()) };
        match self.known.get(&id) {
            Some(Known::Codec(_) | Known::Broken(_)) => return Ok(()),
            Some(Known::Missing(_, until)) if *until > Instant::now() => return Ok(()),
            _ => {}
        }
        let known = match self.client.schema(id)? {
            Answer::Found(found) => match codec(&found) {
                Ok(codec) => Known::Codec(Box::new(codec)),
                Err(why) => Known::Broken(why),
            },
            Answer::Missing(why) => Known::Missing(why, Instant::now() + ASK_AGAIN),
        };
        self.known.insert(id, known);
        Ok(())
    }

    /// `bytes` as JSON, and the name of the record's type where the schema has one.
    fn read(&mut self, bytes: &[u8]) -> Result<(&[u8], Option<String>), Reason> {
        let refuse = |code: &str, message: String| Err(reason(code, String::new(), message));
        let Some(id) = id_of(bytes) else {
            let message =
                "expected a zero byte and a schema id of 4 bytes before the data (Confluent's wire format)";
            return refuse("no_schema_id", message.to_owned());
        };
        if let Err(why) = self.prepare(bytes) {
            return refuse("unknown_schema", why);
        }
        let codec = match self.known.get(&id) {
            Some(Known::Codec(codec)) => codec,
            Some(Known::Missing(why, _) | Known::Broken(why)) => {
                return refuse("unknown_schema", why.clone());
            }
            None => return refuse("unknown_schema", format!("schema {id} was not fetched")),
        };
        self.text.clear();
        let data = &bytes[HEADER..];
        let name = match &**codec {
            Codec::Avro(schema) => match schema.write(data, &mut self.text) {
                Ok(()) => schema.name().map(str::to_owned),
                Err(why) => return refuse("malformed_avro", format!("schema {id}: {why}")),
            },
            Codec::Protobuf(schema) => match schema.write(data, &mut self.text) {
                Ok(name) => Some(name),
                Err(why) => return refuse("malformed_protobuf", format!("schema {id}: {why}")),
            },
            Codec::Json => {
                self.text.raw(data);
                None
            }
        };
        Ok((self.text.bytes(), name))
    }

    /// A Kafka key as JSON, where it is in the wire format; else as it is.
    pub(super) fn key<'k>(&mut self, key: &'k [u8]) -> Cow<'k, [u8]> {
        if id_of(key).is_none() {
            return Cow::Borrowed(key);
        }
        match self.read(key) {
            Ok((text, _)) => Cow::Owned(text.to_vec()),
            Err(_) => Cow::Borrowed(key),
        }
    }
}

/// The id that `bytes` begin with.
pub(super) fn id_of(bytes: &[u8]) -> Option<u32> {
    match bytes {
        [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

fn codec(found: &Found) -> Result<Codec, String> {
    match found.kind.as_str() {
        "AVRO" => avro::Schema::parse(&found.text, &found.references).map(Codec::Avro),
        "PROTOBUF" => protobuf::Schema::parse(&found.text, &found.references).map(Codec::Protobuf),
        "JSON" => Ok(Codec::Json),
        other => Err(format!("schema {} is of type {other}; known are AVRO, PROTOBUF, JSON", found.id)),
    }
}

/// One record in the wire format.
pub(super) fn record(decoder: &mut Decoder, payload: Payload<'_>, origin: &Origin) {
    let Some(registry) = &mut decoder.registry else {
        let message = "this source has no `registry: { url: ... }`, without which the record cannot be read";
        let reason = reason("unknown_schema", String::new(), message.to_owned());
        return decoder.sink.refuse(origin, payload.bytes, None, Raw::Absent, vec![reason]);
    };
    let name = match registry.read(payload.bytes) {
        Ok((_, name)) => name,
        Err(reason) => return decoder.sink.refuse(origin, payload.bytes, None, Raw::Absent, vec![reason]),
    };
    let text = registry.text.take();
    let changes = debezium::expects_changes(decoder, name.as_deref());
    let read = Payload { bytes: &text, shared: None };
    if changes {
        json::record(decoder, read, origin, debezium::canonical);
    } else {
        json::record(decoder, read, origin, json::event);
    }
    if let Some(registry) = &mut decoder.registry {
        registry.text.put_back(text);
    }
}
