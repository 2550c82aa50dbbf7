//! What DataFusion would notice only row by row, or not at all.
//!
//! *In*: calls and constants of an expression. *Out*: nothing, or a [`Fault`]. *Never*: a pattern, a
//! unit of time or constant arithmetic that fails on every event.

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, Operator, lit};

use super::fault::Fault;
use super::rewrite::text_literal;

/// A call of the function `name`.
pub(super) fn call(name: &str, args: &[Expr], schema: &DFSchema) -> Result<()> {
    if name.starts_with("regexp_")
        && let Some(second) = args.get(1)
    {
        pattern(second)?;
    }
    if let Some((_, fix)) = FLOAT_ONLY.iter().find(|(known, _)| *known == name)
        && args.iter().any(|arg| arg.get_type(schema).is_ok_and(|ty| ty.is_decimal()))
    {
        let message = format!("`{name}` would turn a decimal into a float");
        return Err(Fault::new("type", message).found("decimal").fix(*fix).into());
    }
    length(name, args)?;
    unit(name, args)
}

/// Functions that DataFusion computes in floats although the result reads as exact.
const FLOAT_ONLY: [(&str, &str); 2] =
    [("trunc", "use floor, ceil or round"), ("signum", "use CASE WHEN x < 0 THEN -1 ... END")];

/// Longest text that `repeat`, `lpad` and `rpad` may make of one value.
const MAX_MADE_TEXT: i64 = 10_000;

/// Functions that make a text as long as their second argument says: an event must not say it.
fn length(name: &str, args: &[Expr]) -> Result<()> {
    if !matches!(name, "repeat" | "lpad" | "rpad") {
        return Ok(());
    }
    match args.get(1) {
        Some(Expr::Literal(ScalarValue::Int64(Some(length)), _)) if *length <= MAX_MADE_TEXT => Ok(()),
        _ => {
            let message = format!("`{name}` of a length that is not fixed could fill the memory");
            Err(Fault::new("not_allowed", message)
                .fix(format!("write the length as a number up to {MAX_MADE_TEXT}"))
                .into())
        }
    }
}

pub(super) fn pattern(pattern: &Expr) -> Result<()> {
    let Some(text) = text_literal(pattern) else { return Ok(()) };
    match regex::Regex::new(text) {
        Ok(_) => Ok(()),
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            Err(Fault::new("pattern", format!("'{text}' is not a regular expression: {reason}"))
                .found(format!("'{text}'"))
                .into())
        }
    }
}

/// A literal 0, also below a cast that coercion put there.
fn is_zero(expr: &Expr) -> bool {
    match expr {
        Expr::Cast(cast) => is_zero(&cast.expr),
        Expr::Literal(ScalarValue::Float64(Some(value)), _) => *value == 0.0,
        Expr::Literal(ScalarValue::Int64(Some(value)), _) => *value == 0,
        Expr::Literal(ScalarValue::Decimal128(Some(value), ..), _) => *value == 0,
        _ => false,
    }
}

/// What `date_trunc` and `extract` take, whatever of it DataFusion accepts only at run time.
const TRUNCATIONS: [&str; 10] =
    ["microsecond", "millisecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year"];
const PARTS: [&str; 16] = [
    "year",
    "quarter",
    "month",
    "week",
    "day",
    "hour",
    "minute",
    "second",
    "millisecond",
    "microsecond",
    "nanosecond",
    "dow",
    "isodow",
    "doy",
    "epoch",
    "isoyear",
];

/// The name of a unit of time, where it is written out.
fn unit(name: &str, args: &[Expr]) -> Result<()> {
    let known: &[&str] = match name {
        "date_trunc" => &TRUNCATIONS,
        "date_part" => &PARTS,
        _ => return Ok(()),
    };
    let Some(unit) = args.first().and_then(text_literal) else { return Ok(()) };
    let plain = unit.trim_matches('\'').to_lowercase();
    let plain = plain.strip_suffix('s').unwrap_or(&plain);
    if known.contains(&plain) {
        return Ok(());
    }
    let fault = Fault::new("type", format!("'{unit}' is not a unit of `{name}`"));
    Err(fault.found(format!("'{unit}'")).allowed(known.join(", ")).into())
}

/// After coercion: constants are computed here, checked, before the simplifier would wrap them.
pub(super) fn arithmetic(expr: Expr) -> Result<Expr, Fault> {
    let done = expr.transform_up(|node| {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &node else {
            return Ok(Transformed::no(node));
        };
        if matches!(op, Operator::Divide | Operator::Modulo) && is_zero(right) {
            return Err(Fault::new("type", "division by a constant 0").into());
        }
        let (Expr::Literal(ScalarValue::Int64(Some(a)), _), Expr::Literal(ScalarValue::Int64(Some(b)), _)) =
            (left.as_ref(), right.as_ref())
        else {
            return Ok(Transformed::no(node));
        };
        let result = match op {
            Operator::Plus => a.checked_add(*b),
            Operator::Minus => a.checked_sub(*b),
            Operator::Multiply => a.checked_mul(*b),
            Operator::Divide => a.checked_div(*b),
            Operator::Modulo => a.checked_rem(*b),
            _ => return Ok(Transformed::no(node)),
        };
        match result {
            Some(value) => Ok(Transformed::yes(lit(value))),
            None => {
                let message = format!("{a} {op} {b} has no value");
                Err(Fault::new("type", message).allowed("64-bit integers").into())
            }
        }
    })?;
    Ok(done.data)
}
