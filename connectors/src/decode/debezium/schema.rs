//! What a Kafka Connect schema says of the values beside it.
//!
//! *In*: the `schema` of a JSON record. *Out*: a [`Shape`] per declared field: how its values are encoded.
//! *Never*: a schema read again while the same bytes come.

use std::sync::Arc;

use contracts::catalog::Event;
use serde_json::Value;

use super::spec::Unit;

/// How values are encoded.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::decode) enum Shape {
    /// No schema: the contract's type and the settings decide.
    Unknown,
    /// As JSON has them.
    Plain,
    /// As contracts have them; only a float may be what was a decimal.
    Canonical,
    /// Base64.
    Bytes,
    /// A number that is a float of 64 bits, or of 32.
    Double {
        single: bool,
    },
    /// Base64 of the unscaled value.
    Decimal {
        scale: i64,
    },
    /// An object of `scale` and `value`, the latter in base64.
    VariableDecimal,
    /// A count since the epoch.
    Instant(Unit),
    /// Days since the epoch.
    Day,
    /// A count since midnight.
    TimeOfDay(Unit),
    /// JSON as text.
    Json,
    List(Box<Shape>),
    Struct(Vec<(String, Shape)>),
}

impl Shape {
    /// The shape of a Connect schema.
    pub(super) fn of(schema: &Value) -> Self {
        let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
        if let Some(shape) = Self::named(text("name"), schema) {
            return shape;
        }
        match text("type") {
            "double" | "float64" => Self::Double { single: false },
            "float" | "float32" => Self::Double { single: true },
            "bytes" => Self::Bytes,
            "array" => Self::List(Box::new(schema.get("items").map_or(Self::Plain, Self::of))),
            "struct" => {
                let fields =
                    schema.get("fields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let field = |field: &Value| Some((field.get("field")?.as_str()?.to_owned(), Self::of(field)));
                Self::Struct(fields.iter().filter_map(field).collect())
            }
            _ => Self::Plain,
        }
    }

    /// The shape of a value whose schema has a meaning by its name; `schema` holds its parameters.
    pub(in crate::decode) fn named(name: &str, schema: &Value) -> Option<Self> {
        Some(match name {
            "org.apache.kafka.connect.data.Decimal" => {
                let scale = schema.get("parameters").and_then(|p| p.get("scale"));
                let scale = scale.and_then(|s| s.as_i64().or_else(|| s.as_str()?.parse().ok()));
                Self::Decimal { scale: scale.unwrap_or(0) }
            }
            "io.debezium.data.VariableScaleDecimal" => Self::VariableDecimal,
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => {
                Self::Instant(Unit::Millis)
            }
            "io.debezium.time.MicroTimestamp" => Self::Instant(Unit::Micros),
            "io.debezium.time.NanoTimestamp" => Self::Instant(Unit::Nanos),
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Self::Day,
            "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => Self::TimeOfDay(Unit::Millis),
            "io.debezium.time.MicroTime" => Self::TimeOfDay(Unit::Micros),
            "io.debezium.time.NanoTime" => Self::TimeOfDay(Unit::Nanos),
            "io.debezium.data.Json" => Self::Json,
            _ => return None,
        })
    }

    /// The shape at `path` below.
    fn at(&self, path: &[String]) -> Self {
        let Some((first, rest)) = path.split_first() else { return self.clone() };
        match self {
            Self::Struct(fields) => match fields.iter().find(|(name, _)| name == first) {
                Some((_, shape)) => shape.at(rest),
                None => Self::Plain,
            },
            // Inside of a JSON text or a map.
            _ => Self::Plain,
        }
    }

    /// The shape of the row in the schema of an envelope or of a flattened record.
    fn row(&self, flat: bool) -> Self {
        if flat {
            return self.clone();
        }
        match self {
            Self::Struct(fields) => {
                let part = |wanted: &str| fields.iter().find(|(name, _)| name == wanted);
                part("after").or_else(|| part("before")).map_or(Self::Plain, |(_, shape)| shape.clone())
            }
            _ => Self::Plain,
        }
    }
}

/// Schemas remembered; more (a table altered again and again) are read anew.
const MOST: usize = 64;

#[derive(Debug)]
struct Known {
    event: usize,
    flat: bool,
    schema: Box<[u8]>,
    shapes: Arc<[Shape]>,
}

/// The shapes of schemas seen before. A connector sends the same bytes until its table changes.
#[derive(Debug, Default)]
pub(super) struct Cache {
    known: Vec<Known>,
}

impl Cache {
    /// The shape of each field of `contract` by `schema`, whose bytes are JSON.
    pub(super) fn of(&mut self, event: usize, contract: &Event, schema: &[u8], flat: bool) -> Arc<[Shape]> {
        let same = |known: &Known| known.event == event && known.flat == flat && *known.schema == *schema;
        if let Some(at) = self.known.iter().position(same) {
            return self.known[at].shapes.clone();
        }
        let row = match serde_json::from_slice::<Value>(schema) {
            Ok(schema) => Shape::of(&schema).row(flat),
            Err(_) => Shape::Unknown,
        };
        let shapes: Arc<[Shape]> = contract
            .fields
            .iter()
            .map(|field| if row == Shape::Unknown { Shape::Unknown } else { row.at(&field.path) })
            .collect();
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.known.push(Known { event, flat, schema: schema.into(), shapes: shapes.clone() });
        shapes
    }
}
