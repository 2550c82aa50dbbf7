//! The JSON Schema editors use, derived from the shapes.
//!
//! *In*: a [`Kind`]. *Out*: draft 2020-12 with descriptions and defaults. *Never*: a key the checker does not
//! know.

use serde_json::{Map, Value, json};

use super::{Key, Kind, Names, Shape, Ty};

const DURATION: &str = "^([0-9]+(us|ms|s|m|h|d|w|y))+$";
const VERSION: &str = "^(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)$";
const COLUMN: &str = "^(?!__)[A-Za-z_][A-Za-z0-9_]*$";
const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9_./-]*$";

/// The schema of documents of `kind`, for `# yaml-language-server: $schema=...`.
pub fn json_schema(kind: Kind) -> Value {
    let mut definitions = Map::new();
    let mut root = object(kind.shape(), &mut definitions);
    if let Some(kind_key) = root.pointer_mut("/properties/kind") {
        *kind_key = json!({ "const": kind.name(), "description": "What the document describes." });
    }
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("streamgauge/v1/{}.json", kind.name().to_lowercase()),
        "title": format!("Streamgauge {}", kind.name()),
    });
    merge(&mut schema, root);
    merge(&mut schema, json!({ "$defs": definitions }));
    schema
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

fn object(shape: &'static Shape, definitions: &mut Map<String, Value>) -> Value {
    let mut properties = Map::new();
    for key in shape.keys() {
        properties.insert(key.name.to_string(), property(key, definitions));
    }
    let required: Vec<&str> = shape.keys().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": shape.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        merge(&mut schema, json!({ "required": required }));
    }
    schema
}

fn property(key: &'static Key, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = value(&key.ty, definitions);
    let description = match key.default {
        "" => key.doc.to_string(),
        default => format!("{} Default: {default}.", key.doc),
    };
    merge(&mut schema, json!({ "description": description }));
    schema
}

fn value(ty: &'static Ty, definitions: &mut Map<String, Value>) -> Value {
    let scalar = json!({ "type": ["string", "number", "boolean"] });
    match ty {
        Ty::Text | Ty::Expr => scalar,
        Ty::Name => json!({ "type": ["string", "number"], "pattern": NAME }),
        Ty::Bool => json!({ "type": "boolean" }),
        Ty::Count => json!({ "type": "integer", "minimum": 0 }),
        Ty::Number => json!({ "type": "number" }),
        Ty::Share => json!({ "anyOf": [
            { "type": "string", "pattern": "^[0-9.]+ *%?$" },
            { "type": "number", "minimum": 0, "maximum": 1 },
        ] }),
        Ty::Duration => json!({ "type": "string", "pattern": DURATION }),
        Ty::Version => json!({ "type": "string", "pattern": VERSION }),
        Ty::OneOf([word]) => json!({ "const": word }),
        Ty::OneOf(words) => json!({ "enum": words }),
        Ty::List(item) => json!({ "type": "array", "items": value(item, definitions) }),
        Ty::Map(names, item) => {
            let mut schema = json!({ "type": "object", "additionalProperties": value(item, definitions) });
            if *names == Names::Column {
                merge(&mut schema, json!({ "propertyNames": { "pattern": COLUMN } }));
            }
            schema
        }
        Ty::Object(shape) => {
            if !definitions.contains_key(shape.name) {
                // Claims the name first: shapes may contain themselves.
                definitions.insert(shape.name.to_string(), Value::Null);
                let schema = object(shape, definitions);
                definitions.insert(shape.name.to_string(), schema);
            }
            json!({ "$ref": format!("#/$defs/{}", shape.name) })
        }
        Ty::Either(types) => {
            let any: Vec<Value> = types.iter().map(|ty| value(ty, definitions)).collect();
            json!({ "anyOf": any })
        }
        Ty::Scalar => json!({ "type": ["string", "number", "boolean", "null"] }),
        Ty::Any => json!({}),
    }
}
