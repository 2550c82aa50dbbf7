//! Declared fields: types, defaults, checks.
//!
//! *In*: one entry of `fields:`. *Out*: a [`Field`]. *Never*: expressions.

use crate::catalog::{Checks, Field, NestedField};
use crate::shape::FIELD_TYPES;
use crate::value::{FieldType, Value, ValueType};
use crate::yaml::{Entry, Node, Yaml};

use super::Cx;
use super::literal::{literal, with_article};

/// The field of `entry`; `None` when its type is not known.
pub(crate) fn field(cx: &mut Cx<'_>, entry: &Entry) -> Option<Field> {
    let node = &entry.value;
    let ty = field_type(cx, node)?;
    let checks = checks(cx, node, &ty, &entry.key);
    let mut nested = Vec::new();
    collect_nested(cx, node, &ty, &mut Vec::new(), &mut nested);
    let default = default(cx, node, &ty, &checks, &entry.key);
    Some(Field {
        name: entry.key.clone(),
        path: path(cx, node).unwrap_or_else(|| vec![entry.key.clone()]),
        required: flag(node, "required"),
        default,
        pii: flag(node, "pii"),
        checks,
        nested,
        dictionary: false,
        ty,
    })
}

fn flag(node: &Node, key: &str) -> bool {
    matches!(node.get(key).map(|n| &n.value), Some(Yaml::Bool(true)))
}

fn path(cx: &mut Cx<'_>, node: &Node) -> Option<Vec<String>> {
    let from = node.get("from")?;
    let parts: Vec<String> = from.scalar()?.split('.').map(str::to_string).collect();
    if parts.iter().any(String::is_empty) {
        let diagnostic = cx
            .at("bad_path", from.span, "`from` is not a path of keys")
            .found(from.shown())
            .allowed("keys joined by dots, e.g. data.order.id");
        cx.push(diagnostic);
    }
    Some(parts)
}

/// The declared type, with the types of nested fields.
fn field_type(cx: &mut Cx<'_>, node: &Node) -> Option<FieldType> {
    let type_node = node.get("type")?;
    let text = type_node.scalar()?.trim();
    let nested = node.entry("fields");
    let items = node.entry("items");
    if !matches!(text, "list" | "struct") && nested.is_some() {
        let message = format!("`fields` belongs to list and struct, not to {text}");
        let span = nested.map(|e| e.key_span).unwrap_or_default();
        let diagnostic = cx.at("option_not_used", span, message).fix("remove it or change `type`");
        cx.push(diagnostic);
    }
    match text {
        "list" => match (nested, items) {
            (Some(nested), None) => {
                Some(FieldType::List(Box::new(FieldType::Struct(members(cx, &nested.value)?))))
            }
            (None, Some(items)) => Some(FieldType::List(Box::new(item_type(cx, &items.value)?))),
            _ => {
                let diagnostic = cx
                    .at("incomplete_type", type_node.span, "a list must say what its items are")
                    .allowed("`fields: {...}` for items with fields, `items: string` for plain values")
                    .fix("add one of the two");
                cx.push(diagnostic);
                None
            }
        },
        "struct" => match nested {
            Some(nested) => Some(FieldType::Struct(members(cx, &nested.value)?)),
            None => {
                let diagnostic = cx
                    .at("incomplete_type", type_node.span, "a struct must say which fields it has")
                    .fix("add `fields: {...}`, or use `type: json`");
                cx.push(diagnostic);
                None
            }
        },
        _ => plain_type(cx, type_node),
    }
}

fn item_type(cx: &mut Cx<'_>, node: &Node) -> Option<FieldType> {
    if node.entries().is_empty() { plain_type(cx, node) } else { field_type(cx, node) }
}

fn members(cx: &mut Cx<'_>, node: &Node) -> Option<Vec<(String, FieldType)>> {
    let types: Vec<_> = node.entries().iter().map(|e| (e.key.clone(), field_type(cx, &e.value))).collect();
    types.into_iter().map(|(name, ty)| ty.map(|ty| (name, ty))).collect()
}

/// A type without nested fields, from its text.
fn plain_type(cx: &mut Cx<'_>, node: &Node) -> Option<FieldType> {
    let text = node.scalar()?.trim();
    if let Some(parsed) = parse_type(text) {
        return Some(parsed);
    }
    let names =
        ["string", "bool", "int", "float", "decimal(18,2)", "timestamp", "date", "list", "struct", "json"];
    let diagnostic = if text.starts_with("decimal") {
        cx.at("bad_type", node.span, format!("`{text}` is not a decimal type"))
            .found(text)
            .allowed("decimal(p,s) with 1 to 38 digits, s of them after the point")
            .fix("e.g. \"decimal(18,2)\" for money")
    } else {
        cx.at("bad_type", node.span, format!("`{text}` is not a field type"))
            .names(text, names)
            .allowed(FIELD_TYPES)
    };
    cx.push(diagnostic);
    None
}

/// A scalar type's text: `string`, `decimal(18,2)`, ...
pub(crate) fn parse_type(text: &str) -> Option<FieldType> {
    Some(match text {
        "string" => FieldType::String,
        "bool" => FieldType::Bool,
        "int" => FieldType::Int,
        "float" => FieldType::Float,
        "timestamp" => FieldType::Timestamp,
        "date" => FieldType::Date,
        "json" => FieldType::Json,
        _ => {
            let inside = text.strip_prefix("decimal(")?.strip_suffix(')')?;
            let (precision, scale) = inside.split_once(',').unwrap_or((inside, "0"));
            let precision: u8 = precision.trim().parse().ok()?;
            let scale: i8 = scale.trim().parse().ok()?;
            let fits = (1..=38).contains(&precision) && (0..=precision as i8).contains(&scale);
            return fits.then_some(FieldType::Decimal { precision, scale });
        }
    })
}

fn default(cx: &mut Cx<'_>, node: &Node, ty: &FieldType, checks: &Checks, name: &str) -> Option<Value> {
    let default = node.get("default")?;
    let Some(cell) = ValueType::of_field(ty) else {
        let diagnostic = cx
            .at("option_not_used", default.span, format!("{} cannot have a default", with_article(ty)))
            .fix("remove it");
        cx.push(diagnostic);
        return None;
    };
    let value = literal(cx, default, &cell, &format!("the default of `{name}`"))?;
    if value == Value::Null {
        return None;
    }
    let broken = match (&value, &checks.one_of) {
        (Value::Text(text), Some(words)) if !words.iter().any(|w| **w == **text) => {
            Some(format!("one of {}", words.join(", ")))
        }
        _ if checks.min.as_ref().is_some_and(|min| value < *min) => Some("at least `min`".into()),
        _ if checks.max.as_ref().is_some_and(|max| value > *max) => Some("at most `max`".into()),
        _ => None,
    };
    if let Some(allowed) = broken {
        let message = format!("the default of `{name}` breaks the field's own checks");
        let diagnostic = cx.at("bad_default", default.span, message).found(default.shown()).allowed(allowed);
        cx.push(diagnostic);
    }
    Some(value)
}

fn checks(cx: &mut Cx<'_>, node: &Node, ty: &FieldType, name: &str) -> Checks {
    let mut checks = Checks::default();
    let text = matches!(ty, FieldType::String);
    for key in ["enum", "pattern"] {
        if let Some(entry) = node.entry(key)
            && !text
        {
            let message = format!("`{key}` is for strings, but `{name}` is {}", with_article(ty));
            let diagnostic = cx.at("option_not_used", entry.key_span, message).fix("remove it");
            cx.push(diagnostic);
        }
    }
    if let Some(words) = node.get("enum").filter(|_| text) {
        checks.one_of = Some(one_of(cx, words));
    }
    if let Some(pattern) = node.get("pattern").filter(|_| text) {
        checks.pattern = regex(cx, pattern);
    }
    (checks.min, checks.max) = bounds(cx, node, ty, name);
    let sized = matches!(ty, FieldType::String | FieldType::List(_) | FieldType::Json);
    let mut length = |key: &str| {
        let entry = node.entry(key)?;
        if !sized {
            let message = format!("`{key}` is for strings and lists, but `{name}` is {}", with_article(ty));
            let diagnostic = cx.at("option_not_used", entry.key_span, message).fix("remove it");
            cx.push(diagnostic);
            return None;
        }
        match entry.value.value {
            Yaml::Int(value, _) => u64::try_from(value).ok(),
            _ => None,
        }
    };
    checks.min_length = length("min_length");
    checks.max_length = length("max_length");
    if let (Some(min), Some(max), Some(place)) =
        (checks.min_length, checks.max_length, node.get("min_length"))
        && min > max
    {
        let diagnostic = cx
            .at("empty_range", place.span, format!("no length of `{name}` can be allowed"))
            .found(format!("min_length {min} is above max_length {max}"));
        cx.push(diagnostic);
    }
    checks
}

fn one_of(cx: &mut Cx<'_>, node: &Node) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for item in node.items() {
        let Some(word) = item.scalar() else { continue };
        if words.iter().any(|w| w == word) {
            let message = format!("`{word}` stands twice in `enum`");
            let diagnostic = cx.at("duplicate_value", item.span, message).fix("remove one of them");
            cx.push(diagnostic);
        } else {
            words.push(word.to_string());
        }
    }
    if words.is_empty() {
        let diagnostic = cx
            .at("empty_range", node.span, "`enum` allows no value at all")
            .fix("list the allowed texts, or remove it");
        cx.push(diagnostic);
    }
    words
}

fn regex(cx: &mut Cx<'_>, node: &Node) -> Option<String> {
    let pattern = node.scalar()?;
    match regex::Regex::new(pattern) {
        Ok(_) => Some(pattern.to_string()),
        Err(error) => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            let message = format!("`pattern` is not a regular expression: {reason}");
            let diagnostic = cx
                .at("bad_pattern", node.span, message)
                .found(pattern)
                .allowed("the syntax of crate regex: no look-around, no back-references");
            cx.push(diagnostic);
            None
        }
    }
}

fn bounds(cx: &mut Cx<'_>, node: &Node, ty: &FieldType, name: &str) -> (Option<Value>, Option<Value>) {
    let ordered = matches!(
        ty,
        FieldType::Int
            | FieldType::Float
            | FieldType::Decimal { .. }
            | FieldType::Timestamp
            | FieldType::Date
    );
    let mut bound = |key: &str| {
        let entry = node.entry(key)?;
        if !ordered {
            let message = format!("`{key}` is for numbers and times, but `{name}` is {}", with_article(ty));
            let fix = match ty {
                FieldType::String | FieldType::List(_) => format!("use `{key}_length`"),
                _ => "remove it".to_string(),
            };
            let diagnostic = cx.at("option_not_used", entry.key_span, message).fix(fix);
            cx.push(diagnostic);
            return None;
        }
        let cell = ValueType::of_field(ty)?;
        literal(cx, &entry.value, &cell, &format!("`{key}` of `{name}`")).filter(|v| *v != Value::Null)
    };
    let (min, max) = (bound("min"), bound("max"));
    if let (Some(least), Some(most), Some(place)) = (&min, &max, node.get("min"))
        && least > most
    {
        let diagnostic =
            cx.at("empty_range", place.span, format!("no value of `{name}` can be allowed")).found(format!(
                "min {} is above max {}",
                place.shown(),
                node.get("max").map(Node::shown).unwrap_or_default()
            ));
        cx.push(diagnostic);
    }
    (min, max)
}

/// The checks of fields inside structs and list items, by path below the top field.
fn collect_nested(
    cx: &mut Cx<'_>,
    node: &Node,
    ty: &FieldType,
    path: &mut Vec<String>,
    out: &mut Vec<NestedField>,
) {
    let inner = match ty {
        FieldType::List(item) => item.as_ref(),
        other => other,
    };
    if let (FieldType::List(_), Some(items)) = (ty, node.get("items"))
        && !items.entries().is_empty()
    {
        let checks = checks(cx, items, inner, "items");
        out.push(NestedField { path: path.clone(), required: flag(items, "required"), checks });
        return;
    }
    let FieldType::Struct(members) = inner else { return };
    let Some(fields) = node.get("fields") else { return };
    for ((name, ty), entry) in members.iter().zip(fields.entries()) {
        path.push(name.clone());
        for key in ["default", "from", "pii"] {
            if let Some(used) = entry.value.entry(key) {
                let message = format!("`{key}` is for top-level fields, not for `{}`", path.join("."));
                let diagnostic = cx
                    .at("option_not_used", used.key_span, message)
                    .fix("remove it, or declare the value as a top-level field with `from`");
                cx.push(diagnostic);
            }
        }
        let checks = checks(cx, &entry.value, ty, name);
        out.push(NestedField { path: path.clone(), required: flag(&entry.value, "required"), checks });
        collect_nested(cx, &entry.value, ty, path, out);
        path.pop();
    }
}
