//! Protobuf by its own schema.
//!
//! *In*: `.proto` text with what it imports; the list of message indexes and the message. *Out*: JSON with the
//! fields' own names; unset fields without presence as their default, other unset fields not at all.
//! *Never*: a 64-bit integer as text, a name in camel case.

use std::collections::HashMap;

use prost_reflect::{
    Cardinality, DynamicMessage, FileDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::text::Text;
use crate::decode::debezium::shown;

/// Name of the registry's own text among its imports.
const MAIN: &str = "streamgauge-main.proto";
/// Most indexes in the header of a message: nesting of declarations.
const MOST_INDEXES: i64 = 64;

/// A compiled schema.
pub(super) struct Schema {
    file: FileDescriptor,
}

struct Texts(HashMap<String, String>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

impl Schema {
    /// Compiles `text`; `references` are files by the names they are imported by.
    pub(super) fn parse(text: &str, references: &[(String, String)]) -> Result<Self, String> {
        let mut texts: HashMap<String, String> = references.iter().cloned().collect();
        texts.insert(MAIN.to_owned(), text.to_owned());
        let mut files = ChainFileResolver::new();
        files.add(Texts(texts));
        files.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(files);
        compiler.include_imports(true);
        compiler.open_file(MAIN).map_err(|error| format!("its schema does not compile: {error}"))?;
        let file = compiler.descriptor_pool().get_file_by_name(MAIN);
        file.map(|file| Self { file }).ok_or_else(|| "its schema is empty".to_owned())
    }

    /// Writes the message in `data` and returns the name of its type.
    pub(super) fn write(&self, data: &[u8], out: &mut Text) -> Result<String, String> {
        let (descriptor, rest) = self.message(data)?;
        let name = descriptor.full_name().to_owned();
        let message = DynamicMessage::decode(descriptor, rest).map_err(|error| error.to_string())?;
        write_message(&message, out)?;
        Ok(name)
    }

    /// The message that the indexes in front of `data` name, and what follows them.
    fn message<'d>(&self, data: &'d [u8]) -> Result<(MessageDescriptor, &'d [u8]), String> {
        let (count, mut rest) = varint(data).ok_or("ends inside the message indexes")?;
        if !(0..=MOST_INDEXES).contains(&count) {
            return Err(format!("found {count} message indexes"));
        }
        // No index is short for the first message.
        let mut indexes = if count == 0 { vec![0] } else { Vec::new() };
        for _ in 0..count {
            let (index, after) = varint(rest).ok_or("ends inside the message indexes")?;
            indexes.push(index);
            rest = after;
        }
        let mut found: Option<MessageDescriptor> = None;
        for index in &indexes {
            let at = usize::try_from(*index).unwrap_or(usize::MAX);
            let next = match &found {
                None => self.file.messages().nth(at),
                Some(message) => message.child_messages().nth(at),
            };
            found =
                Some(next.ok_or_else(|| format!("the schema has no message with the indexes {indexes:?}"))?);
        }
        let found = found.ok_or("the record names no message")?;
        Ok((found, rest))
    }
}

/// A zigzag number, and what follows it.
fn varint(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7F).checked_shl(7 * at as u32)?;
        if byte & 0x80 == 0 {
            return Some(((value >> 1) as i64 ^ -((value & 1) as i64), &bytes[at + 1..]));
        }
    }
    None
}

fn write_message(message: &DynamicMessage, out: &mut Text) -> Result<(), String> {
    out.room()?;
    if write_known(message, out)? {
        return Ok(());
    }
    out.raw(b"{");
    let mut first = true;
    for field in message.descriptor().fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.raw(b",");
        }
        out.string(field.name());
        out.raw(b":");
        write_value(
            &message.get_field(&field),
            &field.kind(),
            field.cardinality() == Cardinality::Repeated,
            out,
        )?;
    }
    out.raw(b"}");
    Ok(())
}

fn write_value(value: &Value, kind: &Kind, repeated: bool, out: &mut Text) -> Result<(), String> {
    match value {
        Value::Bool(value) => out.raw(if *value { b"true" } else { b"false" }),
        Value::I32(value) => out.number(value),
        Value::I64(value) => out.number(value),
        Value::U32(value) => out.number(value),
        Value::U64(value) => out.number(value),
        Value::F32(value) => out.single(*value),
        Value::F64(value) => out.float(*value),
        Value::String(value) => out.string(value),
        Value::Bytes(value) => out.base64(value),
        Value::EnumNumber(number) => match kind.as_enum().and_then(|kind| kind.get_value(*number)) {
            Some(value) => out.string(value.name()),
            None => out.number(number),
        },
        Value::Message(message) => write_message(message, out)?,
        Value::List(values) => {
            debug_assert!(repeated, "only repeated fields are lists");
            out.raw(b"[");
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.raw(b",");
                }
                write_value(value, kind, false, out)?;
            }
            out.raw(b"]");
        }
        Value::Map(entries) => write_map(entries, kind, out)?,
    }
    out.room()
}

fn write_map(entries: &HashMap<MapKey, Value>, kind: &Kind, out: &mut Text) -> Result<(), String> {
    let inner =
        kind.as_message().and_then(|entry| entry.get_field_by_name("value")).map(|field| field.kind());
    let mut named: Vec<(String, &Value)> =
        entries.iter().map(|(key, value)| (key_text(key), value)).collect();
    // The order of a hash map is no order.
    named.sort_by(|a, b| a.0.cmp(&b.0));
    out.raw(b"{");
    for (at, (key, value)) in named.into_iter().enumerate() {
        if at > 0 {
            out.raw(b",");
        }
        out.string(&key);
        out.raw(b":");
        write_value(value, inner.as_ref().unwrap_or(&Kind::String), false, out)?;
    }
    out.raw(b"}");
    Ok(())
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

/// Types that have a form of their own; whether it was one.
fn write_known(message: &DynamicMessage, out: &mut Text) -> Result<bool, String> {
    let descriptor = message.descriptor();
    let int = |name: &str| {
        message
            .get_field_by_name(name)
            .and_then(|v| v.as_i64().or_else(|| v.as_i32().map(i64::from)))
            .unwrap_or(0)
    };
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            let micros = int("seconds").checked_mul(1_000_000);
            out.instant(micros.and_then(|micros| micros.checked_add(int("nanos").div_euclid(1000))));
        }
        "google.type.Date" if int("year") > 0 && int("month") > 0 && int("day") > 0 => {
            out.plain(&format!("{:04}-{:02}-{:02}", int("year"), int("month"), int("day")));
        }
        "confluent.type.Decimal" => {
            let value = message.get_field_by_name("value");
            let bytes = value.as_ref().and_then(|value| value.as_bytes());
            let unscaled = match bytes {
                Some(bytes) if !bytes.is_empty() => crate::decode::debezium::unscaled(bytes),
                _ => Some(0),
            };
            let text = unscaled.and_then(|unscaled| shown(unscaled, int("scale")));
            out.plain(&text.ok_or("a decimal of more than 38 digits")?);
        }
        name => {
            let wrapper = matches!(
                name.strip_prefix("google.protobuf."),
                Some(
                    "DoubleValue"
                        | "FloatValue"
                        | "Int64Value"
                        | "UInt64Value"
                        | "Int32Value"
                        | "UInt32Value"
                        | "BoolValue"
                        | "StringValue"
                        | "BytesValue"
                )
            );
            let Some(field) = descriptor.get_field_by_name("value").filter(|_| wrapper) else {
                return Ok(false);
            };
            write_value(&message.get_field(&field), &field.kind(), false, out)?;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = r#"
        syntax = "proto3";
        package shop;
        import "google/protobuf/timestamp.proto";
        import "money.proto";
        message Other { int32 n = 1; }
        message Order {
          enum Status { NEW = 0; PAID = 1; }
          message Line { string sku = 1; uint64 count = 2; }
          string order_id = 1;
          int64 big = 2;
          Status status = 3;
          google.protobuf.Timestamp placed_at = 4;
          money.Money total = 5;
          repeated Line lines = 6;
          optional string note = 7;
          map<string, int32> tags = 8;
          double weight = 9;
        }
    "#;
    const MONEY: &str = r#"syntax = "proto3"; package money; message Money { string amount = 1; }"#;

    fn write(data: &[u8]) -> Result<(String, String), String> {
        let schema = Schema::parse(ORDER, &[("money.proto".to_owned(), MONEY.to_owned())])?;
        let mut out = Text::default();
        let name = schema.write(data, &mut out)?;
        Ok((name, String::from_utf8_lossy(out.bytes()).into_owned()))
    }

    #[test]
    fn messages_by_their_indexes() {
        // [1]: the second message; fields 1, 2 (negative), 3, 4, 5, 6, 8, 9.
        let mut data = vec![2, 2];
        data.extend(b"\x0a\x02o1");
        data.extend(b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
        data.extend(b"\x18\x01");
        data.extend(b"\x22\x0a\x08\x80\xf2\xd6\xca\x06\x10\xc0\x84=");
        data.extend(b"\x2a\x06\x0a\x041.50");
        data.extend(b"\x32\x05\x0a\x01a\x10\x02");
        data.extend(b"\x42\x05\x0a\x01k\x10\x07");
        let (name, text) = write(&data).unwrap();
        assert_eq!(name, "shop.Order");
        assert_eq!(
            text,
            r#"{"order_id":"o1","big":-1,"status":"PAID","placed_at":"2026-01-01T00:00:00.001Z","total":{"amount":"1.50"},"lines":[{"sku":"a","count":2}],"tags":{"k":7},"weight":0.0}"#
        );
        assert_eq!(write(b"\x00\x08\x05").unwrap(), ("shop.Other".to_owned(), r#"{"n":5}"#.to_owned()));
        let (name, text) = write(b"\x04\x02\x00\x0a\x01z").unwrap();
        assert_eq!((name.as_str(), text.as_str()), ("shop.Order.Line", r#"{"sku":"z","count":0}"#));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(write(b"").unwrap_err().contains("indexes"));
        assert!(write(b"\x02\x08").unwrap_err().contains("no message with the indexes [4]"));
        assert!(write(b"\x01").unwrap_err().contains("-1 message indexes"));
        assert!(write(b"\x00\x0a\xff").is_err());
        assert!(Schema::parse(ORDER, &[]).err().unwrap().contains("money.proto"));
        assert!(Schema::parse("message", &[]).is_err());
    }
}
