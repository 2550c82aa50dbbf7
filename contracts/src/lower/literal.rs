//! Values written in contracts: defaults, bounds, `empty`.
//!
//! *In*: a YAML scalar and the type it must have. *Out*: a [`Value`] of that type. *Never*: a decimal that was
//! a float on the way.

use crate::diagnostic::Diagnostic;
use crate::duration::{DURATION_HELP, parse_duration};
use crate::value::{Value, ValueType, parse_date, parse_decimal, parse_timestamp};
use crate::yaml::{Node, Yaml};

use super::Cx;

/// The value of `node` as a `ty`; null stays null. `what` names it in the message.
pub(crate) fn literal(cx: &mut Cx<'_>, node: &Node, ty: &ValueType, what: &str) -> Option<Value> {
    match read(cx, node, ty, what) {
        Ok(value) => Some(value),
        Err(diagnostic) => {
            cx.push(*diagnostic);
            None
        }
    }
}

fn read(cx: &Cx<'_>, node: &Node, ty: &ValueType, what: &str) -> Result<Value, Box<Diagnostic>> {
    if node.value == Yaml::Null {
        return Ok(Value::Null);
    }
    let text = node.scalar().unwrap_or_default();
    let wrong = |allowed: String| {
        let message = format!("{what} must be {} here", with_article(ty));
        Box::new(cx.at("wrong_literal", node.span, message).found(node.shown()).allowed(allowed))
    };
    match ty {
        ValueType::Bool => match node.value {
            Yaml::Bool(value) => Ok(Value::Bool(value)),
            _ => Err(wrong("true or false".into())),
        },
        ValueType::Int => match node.value {
            Yaml::Int(value, _) => Ok(Value::Int(value)),
            _ => Err(wrong("a whole number".into())),
        },
        ValueType::Float => match node.value {
            Yaml::Int(value, _) => Ok(Value::Float(value as f64)),
            Yaml::Float(value, _) => Ok(Value::Float(value)),
            _ => Err(wrong("a number".into())),
        },
        ValueType::Decimal { precision, scale } => {
            if let Yaml::Float(..) = node.value {
                let message = format!("{what} is exact money or quantity, but this is a float");
                let diagnostic =
                    cx.at("float_money", node.span, message).found(text).fix(format!("quote it: \"{text}\""));
                return Err(Box::new(diagnostic));
            }
            match parse_decimal(text, *precision, *scale) {
                Some(value) => Ok(Value::Decimal(value, *scale)),
                None => Err(wrong(format!("at most {precision} digits, {scale} of them after the point"))),
            }
        }
        ValueType::Text => Ok(Value::Text(text.into())),
        ValueType::Timestamp => match parse_timestamp(text) {
            Some(value) => Ok(Value::Timestamp(value)),
            None => Err(wrong("RFC 3339, e.g. \"2026-03-02T09:00:00Z\"".into())),
        },
        ValueType::Date => match parse_date(text) {
            Some(value) => Ok(Value::Date(value)),
            None => Err(wrong("a day, e.g. \"2026-03-02\"".into())),
        },
        ValueType::Duration => match (&node.value, parse_duration(text)) {
            (_, Some(value)) => Ok(Value::Duration(value)),
            (Yaml::Int(0, _), None) => Ok(Value::Duration(0)),
            _ => Err(wrong(DURATION_HELP.into())),
        },
        ValueType::Histogram | ValueType::Ranking => Err(wrong("null".into())),
    }
}

/// `an int`, `a decimal(18,2)`.
pub(crate) fn with_article(ty: &dyn std::fmt::Display) -> String {
    let text = ty.to_string();
    let article = if text.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {text}")
}
