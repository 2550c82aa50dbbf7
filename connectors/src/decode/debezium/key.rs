//! The contract's key in a Kafka key.
//!
//! *In*: the bytes of a Kafka key: JSON with or without a schema, a lone value, plain text. *Out*: the key
//! field's value, one after the other. *Never*: a member of another name taken for the key; a lone value taken for a
//! part of it.

use contracts::batch::Reason;
use contracts::catalog::Field;
use serde_json::Value;

use super::schema::Shape;
use super::value::{Cell, Rules};
use crate::decode::raw::Raw;
use crate::decode::reason::reason;

/// The value of `field` in `key`; `lone`: it is all of the key.
pub(super) fn read(
    key: Option<&[u8]>,
    field: &Field,
    lone: bool,
    rules: &Rules,
) -> Result<Cell<'static>, Reason> {
    let path = field.path.join(".");
    let missing = |message: String| reason("missing", path.clone(), message);
    let Some(bytes) = key else {
        return Err(missing(format!(
            "nothing says which row is gone: neither the row before nor the Kafka key has `{path}`; give the table a \
             primary key or `REPLICA IDENTITY FULL`"
        )));
    };
    let (value, shape) = match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(object)) => {
            let (inner, schema) = unwrapped(Value::Object(object));
            match inner {
                Value::Object(_) => (member(&inner, &field.path), member_shape(schema.as_ref(), &field.path)),
                value => (Some(value).filter(|_| lone), schema.as_ref().map_or(Shape::Unknown, Shape::of)),
            }
        }
        Ok(value @ (Value::Number(_) | Value::String(_))) => (Some(value).filter(|_| lone), Shape::Unknown),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => (Some(Value::String(text.to_owned())).filter(|_| lone), Shape::Unknown),
            Err(_) => return Err(missing("the Kafka key is neither JSON nor text".to_owned())),
        },
    };
    let value = value.filter(|value| !value.is_null());
    let value = value.ok_or_else(|| missing(format!("the Kafka key has no `{path}`")))?;
    let fault = |fault: super::value::Fault, raw| fault.reason(path.clone(), raw, field.pii);
    match &value {
        Value::Number(number) => {
            let text = number.to_string();
            let raw =
                if number.is_f64() { Raw::Number(text.as_bytes()) } else { Raw::Integer(text.as_bytes()) };
            let cell = rules.cell(raw, &shape, &field.ty).map_err(|found| fault(found, raw))?;
            Ok(owned(&cell, &text))
        }
        Value::String(text) => {
            let raw = Raw::Text(text.as_bytes());
            let cell = rules.cell(raw, &shape, &field.ty).map_err(|found| fault(found, raw))?;
            Ok(owned(&cell, text))
        }
        other => Ok(Cell::Text(other.to_string())),
    }
}

/// The text that the key's type reads.
fn owned(cell: &Cell<'_>, text: &str) -> Cell<'static> {
    match cell {
        Cell::Text(converted) => Cell::Text(converted.clone()),
        _ => Cell::Text(text.to_owned()),
    }
}

/// The key without its wrapper, and the wrapper's schema.
fn unwrapped(key: Value) -> (Value, Option<Value>) {
    let Value::Object(mut object) = key else { return (key, None) };
    let wrapper = object.len() == 2
        && object.contains_key("payload")
        && object.get("schema").is_some_and(|schema| schema.is_object() || schema.is_null());
    if !wrapper {
        return (Value::Object(object), None);
    }
    let payload = object.remove("payload").unwrap_or(Value::Null);
    (payload, object.remove("schema").filter(Value::is_object))
}

fn member(object: &Value, path: &[String]) -> Option<Value> {
    let found = path.iter().try_fold(object, |value, key| value.get(key));
    found.or_else(|| object.get(path.last()?)).cloned()
}

fn member_shape(schema: Option<&Value>, path: &[String]) -> Shape {
    let Some(schema) = schema else { return Shape::Unknown };
    match (Shape::of(schema), path.last()) {
        (Shape::Struct(fields), Some(name)) => {
            fields.into_iter().find(|(known, _)| known == name).map_or(Shape::Plain, |(_, shape)| shape)
        }
        _ => Shape::Plain,
    }
}
