//! Avro schemas.
//!
//! *In*: a schema's JSON and those it refers to. *Out*: [`Schema`]: a list of nodes that name each other by
//! their place, so that a type may hold itself. *Never*: a name that does not resolve.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::decode::debezium::{Shape, Unit};

/// Types inside of types.
const MOST_DEPTH: u32 = 64;

/// A type.
#[derive(Debug)]
pub(in super::super) enum Node {
    Null,
    Bool,
    /// `int` and `long`.
    Integer,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Enum(Vec<String>),
    Array(u32),
    Map(u32),
    Union(Vec<u32>),
    /// `"name":` of each field, and its type.
    Record(Vec<(Vec<u8>, u32)>),
    /// A primitive that stands for something else; the size, where it is fixed.
    Meaning(Shape, Option<usize>),
}

/// All types of a schema.
pub(super) type Nodes = [Node];

/// A parsed schema.
#[derive(Debug)]
pub(in super::super) struct Schema {
    nodes: Vec<Node>,
    root: u32,
    name: Option<String>,
}

impl Schema {
    /// Parses `text`; `references` declare names that it uses.
    pub(in super::super) fn parse(text: &str, references: &[(String, String)]) -> Result<Self, String> {
        let mut parser = Parser { nodes: Vec::new(), names: HashMap::new() };
        for (name, text) in references {
            parser.document(text).map_err(|why| format!("the schema of `{name}`: {why}"))?;
        }
        let document = parser.document(text)?;
        let name = parser.names.iter().find(|(_, node)| **node == document).map(|(name, _)| name.clone());
        Ok(Self { nodes: parser.nodes, root: document, name })
    }

    /// Full name of the schema's own type.
    pub(in super::super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    pub(super) fn root(&self) -> u32 {
        self.root
    }
}

struct Parser {
    nodes: Vec<Node>,
    /// Full names of records, enums and fixed types.
    names: HashMap<String, u32>,
}

impl Parser {
    fn document(&mut self, text: &str) -> Result<u32, String> {
        let value: Value = serde_json::from_str(text)
            .or_else(|error| {
                // A primitive's name may stand without quotes.
                let bare = text.trim();
                if bare.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !bare.is_empty() {
                    return Ok(Value::String(bare.to_owned()));
                }
                Err(error)
            })
            .map_err(|error: serde_json::Error| format!("its schema is not JSON: {error}"))?;
        self.node(&value, "", 0)
    }

    fn add(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    fn node(&mut self, schema: &Value, space: &str, depth: u32) -> Result<u32, String> {
        if depth > MOST_DEPTH {
            return Err(format!("its schema is nested deeper than {MOST_DEPTH} levels"));
        }
        match schema {
            Value::String(name) => self.named(name, space),
            Value::Array(branches) => {
                let branches: Result<Vec<u32>, String> =
                    branches.iter().map(|branch| self.node(branch, space, depth + 1)).collect();
                Ok(self.add(Node::Union(branches?)))
            }
            Value::Object(object) => self.object(object, space, depth),
            other => Err(format!("its schema has `{other}` where a type is expected")),
        }
    }

    /// A primitive, or a type declared before.
    fn named(&mut self, name: &str, space: &str) -> Result<u32, String> {
        let primitive = match name {
            "null" => Node::Null,
            "boolean" => Node::Bool,
            "int" | "long" => Node::Integer,
            "float" => Node::Float,
            "double" => Node::Double,
            "bytes" => Node::Bytes,
            "string" => Node::Text,
            _ => {
                let full = full_name(name, space);
                let found = self.names.get(&full).or_else(|| self.names.get(name));
                return found
                    .copied()
                    .ok_or_else(|| format!("its schema uses `{full}`, which nothing declares"));
            }
        };
        Ok(self.add(primitive))
    }

    fn object(&mut self, object: &Map<String, Value>, space: &str, depth: u32) -> Result<u32, String> {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let kind = match object.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            // `{"type": {...}}` and `{"type": [...]}`
            Some(inner) => return self.node(inner, space, depth + 1),
            None => return Err("its schema has a type without `type`".to_owned()),
        };
        let space = text("namespace").unwrap_or(space);
        let full = text("name").map(|name| full_name(name, space));
        let inner_space =
            full.as_deref().and_then(|full| full.rsplit_once('.')).map_or("", |(space, _)| space);
        match kind {
            "record" | "error" => {
                // Declared before its fields are read: they may be of its own type.
                let node = self.add(Node::Null);
                self.declare(full.clone(), node)?;
                let fields = self.fields(object, inner_space, depth)?;
                self.nodes[node as usize] = match meaning(object, kind) {
                    Some(Shape::VariableDecimal) => Node::Meaning(Shape::VariableDecimal, None),
                    _ => Node::Record(fields),
                };
                Ok(node)
            }
            "enum" => {
                let symbols =
                    object.get("symbols").and_then(Value::as_array).ok_or("an enum without `symbols`")?;
                let symbols = symbols.iter().filter_map(|s| s.as_str().map(str::to_owned)).collect();
                let node = self.add(Node::Enum(symbols));
                self.declare(full, node)?;
                Ok(node)
            }
            "fixed" => {
                let size =
                    object.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or("a fixed type without a `size`")?;
                let node = match meaning(object, kind) {
                    Some(shape @ Shape::Decimal { .. }) => Node::Meaning(shape, Some(size)),
                    _ => Node::Fixed(size),
                };
                let node = self.add(node);
                self.declare(full, node)?;
                Ok(node)
            }
            "array" => {
                let item =
                    self.node(object.get("items").ok_or("an array without `items`")?, space, depth + 1)?;
                Ok(self.add(Node::Array(item)))
            }
            "map" => {
                let item =
                    self.node(object.get("values").ok_or("a map without `values`")?, space, depth + 1)?;
                Ok(self.add(Node::Map(item)))
            }
            primitive => match meaning(object, primitive) {
                Some(shape) => Ok(self.add(Node::Meaning(shape, None))),
                None => self.named(primitive, space),
            },
        }
    }

    fn declare(&mut self, name: Option<String>, node: u32) -> Result<(), String> {
        self.names.insert(name.ok_or("its schema declares a type without `name`")?, node);
        Ok(())
    }

    fn fields(
        &mut self,
        object: &Map<String, Value>,
        space: &str,
        depth: u32,
    ) -> Result<Vec<(Vec<u8>, u32)>, String> {
        let fields = object.get("fields").and_then(Value::as_array).ok_or("a record without `fields`")?;
        fields
            .iter()
            .map(|field| {
                let name = field.get("name").and_then(Value::as_str).ok_or("a field without `name`")?;
                let ty = field.get("type").ok_or_else(|| format!("the field `{name}` has no `type`"))?;
                Ok((format!("{}:", Value::from(name)).into_bytes(), self.node(ty, space, depth + 1)?))
            })
            .collect()
    }
}

fn full_name(name: &str, space: &str) -> String {
    if name.contains('.') || space.is_empty() { name.to_owned() } else { format!("{space}.{name}") }
}

/// What a type stands for, by its logical type or by the name that Kafka Connect gave it.
fn meaning(object: &Map<String, Value>, kind: &str) -> Option<Shape> {
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let number = matches!(kind, "int" | "long");
    let logical = match (text("logicalType"), kind) {
        (Some("decimal"), "bytes" | "fixed") => {
            Some(Shape::Decimal { scale: object.get("scale").and_then(Value::as_i64).unwrap_or(0) })
        }
        (Some("date"), _) if number => Some(Shape::Day),
        (Some("time-millis"), _) if number => Some(Shape::TimeOfDay(Unit::Millis)),
        (Some("time-micros"), _) if number => Some(Shape::TimeOfDay(Unit::Micros)),
        (Some("timestamp-millis" | "local-timestamp-millis"), _) if number => {
            Some(Shape::Instant(Unit::Millis))
        }
        (Some("timestamp-micros" | "local-timestamp-micros"), _) if number => {
            Some(Shape::Instant(Unit::Micros))
        }
        (Some("timestamp-nanos" | "local-timestamp-nanos"), _) if number => Some(Shape::Instant(Unit::Nanos)),
        _ => None,
    };
    if logical.is_some() {
        return logical;
    }
    let parameters = object.get("connect.parameters").cloned().unwrap_or(Value::Null);
    let shape = Shape::named(text("connect.name")?, &serde_json::json!({ "parameters": parameters }))?;
    let fits = match shape {
        Shape::Decimal { .. } => matches!(kind, "bytes" | "fixed"),
        Shape::Instant(_) | Shape::Day | Shape::TimeOfDay(_) => number,
        Shape::VariableDecimal => kind == "record",
        Shape::Json => kind == "string",
        _ => false,
    };
    fits.then_some(shape)
}
