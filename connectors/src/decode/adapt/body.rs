//! The body of a delivery as JSON.
//!
//! *In*: its bytes and content type. *Out*: one value, or several where the body is an array. *Never*: a
//! guess about bytes that are not JSON.

use serde_json::Value;

/// One JSON object of a delivery.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) value: Value,
}

/// Reads the bodies of a delivery; `unwrap` names the key of an object that stands for the body.
pub(super) fn read(
    bytes: &[u8],
    headers: &[(&str, &[u8])],
    unwrap: Option<&str>,
) -> Result<Vec<Body>, String> {
    let form = super::header(headers, "content-type")
        .is_some_and(|value| value.to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded"));
    let value: Value = if form {
        let payload = field(bytes, b"payload").ok_or("the form has no field `payload` with the JSON")?;
        parse(&payload)?
    } else {
        parse(bytes)?
    };
    let values = match value {
        Value::Array(items) => items,
        value => vec![value],
    };
    if let Some(found) = values.iter().find(|value| !value.is_object()) {
        let kind = match found {
            Value::Array(_) => "an array",
            Value::String(_) => "a string",
            Value::Number(_) => "a number",
            Value::Bool(_) => "a boolean",
            _ => "null",
        };
        return Err(format!("found {kind}, expected an object"));
    }
    Ok(values.into_iter().map(|value| Body { value: unwrapped(value, unwrap) }).collect())
}

fn parse(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

fn unwrapped(mut value: Value, key: Option<&str>) -> Value {
    match key.and_then(|key| value.get_mut(key)) {
        Some(inner) if inner.is_object() => inner.take(),
        _ => value,
    }
}

/// The value of a form's field, percent-decoded (WHATWG URL, application/x-www-form-urlencoded).
fn field(form: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    form.split(|byte| *byte == b'&').find_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        (pair[..at] == *name).then(|| decoded(&pair[at + 1..]))
    })
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let digit = |at: usize| text.get(at).and_then(|byte| (*byte as char).to_digit(16));
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                at += 3;
            }
            (byte, ..) => {
                bytes.push(if *byte == b'+' { b' ' } else { *byte });
                at += 1;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_arrays_and_wrappers() {
        let form: [(&str, &[u8]); 1] = [("Content-Type", b"application/x-www-form-urlencoded")];
        let bodies = read(b"x=1&payload=%7B%22a%22%3A%22b+c%22%7D", &form, None).unwrap();
        assert_eq!(bodies[0].value["a"], "b c");
        assert!(read(b"x=1", &form, None).is_err());
        let bodies = read(br#"[{"data":{"a":1}},{"a":2}]"#, &[], Some("data")).unwrap();
        assert_eq!((&bodies[0].value["a"], &bodies[1].value["a"]), (&Value::from(1), &Value::from(2)));
        for wrong in ["", "{", "1", "[1]", "\"a\"", "null"] {
            assert!(read(wrong.as_bytes(), &[], None).is_err(), "{wrong}");
        }
    }
}
