//! What contracts mean where plain DataFusion means something else.
//!
//! *In*: a logical expression before and after type coercion. *Out*: the same with 64-bit integers,
//! instants in microseconds UTC, durations instead of intervals, one kind of value on both sides of
//! a comparison. *Never*: a text compared with a number as text, a decimal that becomes a float
//! unless a float is beside it, constant arithmetic that wraps.

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion_expr::expr::{InList, ScalarFunction};
use datafusion_expr::{Between, BinaryExpr, Case, Cast, Expr, ExprSchemable, Operator, TryCast, lit};

use super::fault::Fault;
use super::{checks, instant};
use crate::value::{parse_date, parse_timestamp, timestamp_type, type_name};

/// Before coercion.
pub(super) fn harmonise(expr: Expr, schema: &DFSchema) -> Result<Expr, Fault> {
    let done = expr.transform_up(|node| {
        Ok(Transformed::yes(match node {
            Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) => interval(value)?,
            Expr::Cast(cast) => harmonise_cast(cast, schema)?,
            Expr::TryCast(TryCast { expr, data_type }) => {
                Expr::TryCast(TryCast::new(expr, our_type(data_type)))
            }
            Expr::BinaryExpr(binary) => harmonise_binary(binary, schema)?,
            Expr::Negative(inner) => negate(*inner, schema)?,
            Expr::Between(between) => harmonise_between(between, schema)?,
            Expr::InList(list) => harmonise_in(list, schema)?,
            Expr::Case(case) => harmonise_case(case, schema)?,
            Expr::ScalarFunction(call) => harmonise_call(call, schema)?,
            other => return Ok(Transformed::no(other)),
        }))
    })?;
    Ok(done.data)
}

/// Intervals without months are durations: both compare and subtract, and a day is 24 hours in UTC.
fn interval(value: IntervalMonthDayNano) -> Result<Expr> {
    if value.months != 0 {
        return Ok(lit(ScalarValue::IntervalMonthDayNano(Some(value))));
    }
    let too_fine = || Fault::new("type", "an interval finer than a microsecond, or far too long");
    if value.nanoseconds % 1_000 != 0 {
        return Err(too_fine().into());
    }
    let days = i64::from(value.days) * MICROS_PER_DAY;
    let micros = days.checked_add(value.nanoseconds / 1_000).ok_or_else(too_fine)?;
    Ok(lit(ScalarValue::DurationMicrosecond(Some(micros))))
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// The interval again, for what takes no durations: days of a date, functions of intervals.
fn as_interval(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::DurationMicrosecond(Some(micros)), _) => {
            let days = i32::try_from(micros / MICROS_PER_DAY);
            let (days, rest) = match days {
                Ok(days) => (days, micros % MICROS_PER_DAY),
                Err(_) => (0, micros),
            };
            let value = IntervalMonthDayNano::new(0, days, rest.saturating_mul(1_000));
            lit(ScalarValue::IntervalMonthDayNano(Some(value)))
        }
        other => other,
    }
}

/// The one width we have of each kind.
fn our_type(ty: DataType) -> DataType {
    match ty {
        ty if ty.is_integer() => DataType::Int64,
        DataType::Float16 | DataType::Float32 => DataType::Float64,
        DataType::Timestamp(_, None) => timestamp_type(),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone),
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::Date64 => DataType::Date32,
        ty => ty,
    }
}

fn harmonise_cast(Cast { expr, data_type }: Cast, schema: &DFSchema) -> Result<Expr> {
    let wanted = our_type(data_type);
    if let Some(text) = text_literal(&expr)
        && matches!(wanted, DataType::Timestamp(..) | DataType::Date32)
    {
        let instant = instant_literal(text, &wanted)?;
        return match wanted == timestamp_type() || wanted == DataType::Date32 {
            true => Ok(instant),
            false => Ok(Expr::Cast(Cast::new(Box::new(instant), wanted))),
        };
    }
    let found = expr.get_type(schema)?;
    if found == wanted {
        return Ok(*expr);
    }
    let fix = match (kind(&found), kind(&wanted)) {
        (Kind::Number, Kind::Instant) => Some("to_timestamp_millis(x), or to_timestamp(x) for seconds"),
        (Kind::Instant | Kind::Duration, Kind::Number) => Some("extract(epoch from x) gives seconds"),
        _ => None,
    };
    if let Some(fix) = fix {
        let message = format!("a cast from {} to {} has no unit", type_name(&found), type_name(&wanted));
        return Err(Fault::new("type", message).found(type_name(&found)).fix(fix).into());
    }
    Ok(Expr::Cast(Cast::new(expr, wanted)))
}

pub(super) fn text_literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(text),
        _ => None,
    }
}

/// `'2026-03-02T09:00:00Z'` or `'2026-03-02'` where an instant or a day is wanted.
fn instant_literal(text: &str, wanted: &DataType) -> Result<Expr> {
    let day = parse_date(text);
    if *wanted == DataType::Date32 {
        return match day {
            Some(day) => Ok(lit(ScalarValue::Date32(Some(day)))),
            None => Err(Fault::new("type", format!("'{text}' is not a date"))
                .found(format!("'{text}'"))
                .allowed("YYYY-MM-DD")
                .into()),
        };
    }
    let midnight = day.map(|day| i64::from(day) * MICROS_PER_DAY);
    match parse_timestamp(text).or(midnight) {
        Some(micros) => Ok(lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())))),
        None => Err(Fault::new("type", format!("'{text}' is not a timestamp"))
            .found(format!("'{text}'"))
            .allowed("RFC 3339, as in '2026-03-02T09:00:00Z'")
            .into()),
    }
}

/// What can stand beside what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Number,
    Text,
    Instant,
    Duration,
    Other,
}

fn kind(ty: &DataType) -> Kind {
    match ty {
        DataType::Dictionary(_, value) => kind(value),
        DataType::Null => Kind::Null,
        DataType::Boolean => Kind::Bool,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Kind::Instant,
        DataType::Duration(_) | DataType::Interval(_) => Kind::Duration,
        ty if ty.is_numeric() => Kind::Number,
        _ => Kind::Other,
    }
}

fn is_float(ty: &DataType) -> bool {
    matches!(ty, DataType::Float64)
}

/// Values that are compared or alternatives of one result: the same kind, texts beside instants
/// read as instants, decimals beside floats as floats.
fn align(exprs: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
    let types = exprs.iter().map(|expr| expr.get_type(schema)).collect::<Result<Vec<_>>>()?;
    let instant = types.iter().find(|ty| kind(ty) == Kind::Instant);
    let float = types.iter().any(is_float);
    let mut wanted: Option<&DataType> = None;
    let mut aligned = Vec::with_capacity(exprs.len());
    for (expr, ty) in exprs.into_iter().zip(&types) {
        if let (Some(instant), Some(text)) = (instant, text_literal(&expr)) {
            let wanted = if *instant == DataType::Date32 { instant } else { &timestamp_type() };
            aligned.push(instant_literal(text, wanted)?);
            continue;
        }
        if kind(ty) != Kind::Null {
            match wanted {
                Some(other) if kind(other) != kind(ty) => return Err(mixed(other, ty).into()),
                Some(_) => {}
                None => wanted = Some(ty),
            }
        }
        aligned.push(match float && ty.is_decimal() {
            true => Expr::Cast(Cast::new(Box::new(expr), DataType::Float64)),
            false => expr,
        });
    }
    Ok(aligned)
}

fn mixed(a: &DataType, b: &DataType) -> Fault {
    let (a_name, b_name) = (type_name(a), type_name(b));
    let message = format!("{} and {} do not compare", super::a(&a_name), super::a(&b_name));
    let fault = Fault::new("type", message).found(format!("{a_name}, {b_name}"));
    match (kind(a), kind(b)) {
        (Kind::Text, Kind::Number) | (Kind::Number, Kind::Text) => {
            fault.fix("write numbers without quotes, or cast: CAST(x AS DECIMAL(18,2))")
        }
        (Kind::Text, Kind::Instant) | (Kind::Instant, Kind::Text) => {
            fault.fix("cast the text: CAST(x AS TIMESTAMP)")
        }
        (Kind::Duration, Kind::Number) | (Kind::Number, Kind::Duration) => {
            fault.fix("write the length of time as INTERVAL '90 seconds'")
        }
        _ => fault,
    }
}

fn pair(a: Expr, b: Expr, schema: &DFSchema) -> Result<(Box<Expr>, Box<Expr>)> {
    let mut both = align(vec![a, b], schema)?.into_iter();
    match (both.next(), both.next()) {
        (Some(a), Some(b)) => Ok((Box::new(a), Box::new(b))),
        _ => Err(DataFusionError::Internal("two in, two out".to_owned())),
    }
}

fn harmonise_binary(binary: BinaryExpr, schema: &DFSchema) -> Result<Expr> {
    let BinaryExpr { left, op, right } = binary;
    let (left, right) = match op {
        Operator::Eq
        | Operator::NotEq
        | Operator::Lt
        | Operator::LtEq
        | Operator::Gt
        | Operator::GtEq
        | Operator::IsDistinctFrom
        | Operator::IsNotDistinctFrom => pair(*left, *right, schema)?,
        Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo => {
            arithmetic(left, op, right, schema)?
        }
        Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch => {
            checks::pattern(&right)?;
            (left, right)
        }
        _ => (left, right),
    };
    Ok(Expr::BinaryExpr(BinaryExpr::new(left, op, right)))
}

fn arithmetic(
    left: Box<Expr>,
    op: Operator,
    right: Box<Expr>,
    schema: &DFSchema,
) -> Result<(Box<Expr>, Box<Expr>)> {
    let (lt, rt) = (left.get_type(schema)?, right.get_type(schema)?);
    if [&lt, &rt].into_iter().any(|ty| kind(ty) == Kind::Text) {
        let found = format!("{} {op} {}", type_name(&lt), type_name(&rt));
        return Err(Fault::new("type", format!("`{op}` does not work on texts"))
            .found(found)
            .fix("cast to a number: CAST(x AS DECIMAL(18,2)); texts are joined by ||")
            .into());
    }
    let day = |ty: &DataType| *ty == DataType::Date32;
    if day(&lt) || day(&rt) {
        return Ok((Box::new(as_interval(*left)), Box::new(as_interval(*right))));
    }
    if (is_float(&lt) && rt.is_decimal()) || (lt.is_decimal() && is_float(&rt)) {
        return pair(*left, *right, schema);
    }
    Ok((left, right))
}

/// `0 - x` is checked for overflow, `-x` is not.
fn negate(inner: Expr, schema: &DFSchema) -> Result<Expr> {
    let zero = match (&inner, inner.get_type(schema)?) {
        (Expr::Literal(..), _) => return Ok(Expr::Negative(Box::new(inner))),
        (_, DataType::Int64) => ScalarValue::Int64(Some(0)),
        (_, DataType::Duration(TimeUnit::Microsecond)) => ScalarValue::DurationMicrosecond(Some(0)),
        _ => return Ok(Expr::Negative(Box::new(inner))),
    };
    let zero = Box::new(lit(zero));
    Ok(Expr::BinaryExpr(BinaryExpr::new(zero, Operator::Minus, Box::new(inner))))
}

fn harmonise_between(between: Between, schema: &DFSchema) -> Result<Expr> {
    let Between { expr, negated, low, high } = between;
    let mut parts = align(vec![*expr, *low, *high], schema)?.into_iter().map(Box::new);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(expr), Some(low), Some(high)) => Ok(Expr::Between(Between::new(expr, negated, low, high))),
        _ => Err(DataFusionError::Internal("three in, three out".to_owned())),
    }
}

fn harmonise_in(InList { expr, list, negated }: InList, schema: &DFSchema) -> Result<Expr> {
    let mut parts = vec![*expr];
    parts.extend(list);
    let mut parts = align(parts, schema)?;
    let expr = Box::new(parts.remove(0));
    Ok(Expr::InList(InList::new(expr, parts, negated)))
}

fn harmonise_case(case: Case, schema: &DFSchema) -> Result<Expr> {
    let Case { expr, when_then_expr, else_expr } = case;
    let (whens, thens): (Vec<Expr>, Vec<Expr>) =
        when_then_expr.into_iter().map(|(when, then)| (*when, *then)).unzip();
    let (expr, whens) = match expr {
        Some(operand) => {
            let mut parts = vec![*operand];
            parts.extend(whens);
            let mut parts = align(parts, schema)?;
            (Some(Box::new(parts.remove(0))), parts)
        }
        None => (None, whens),
    };
    let mut results = thens;
    let has_else = else_expr.is_some();
    results.extend(else_expr.map(|expr| *expr));
    let mut results = align(results, schema)?;
    let else_expr = if has_else { results.pop().map(Box::new) } else { None };
    let pairs = whens.into_iter().map(Box::new).zip(results.into_iter().map(Box::new));
    Ok(Expr::Case(Case::new(expr, pairs.collect(), else_expr)))
}

/// Functions whose arguments are alternatives of one result.
const ALTERNATIVES: [&str; 6] = ["coalesce", "nvl", "nvl2", "nullif", "greatest", "least"];
fn harmonise_call(call: ScalarFunction, schema: &DFSchema) -> Result<Expr> {
    let ScalarFunction { func, mut args } = call;
    let name = func.name();
    if ALTERNATIVES.contains(&name) {
        let condition = (name == "nvl2").then(|| args.remove(0));
        args = condition.into_iter().chain(align(args, schema)?).collect();
    } else {
        args = args.into_iter().map(as_interval).collect();
    }
    checks::call(name, &args, schema)?;
    if name == "date_trunc" && args.len() == 2 {
        let ty = args[1].get_type(schema)?;
        if let Some(truncated) =
            text_literal(&args[0]).and_then(|unit| instant::truncated(unit, &args[1], &ty))
        {
            return Ok(truncated);
        }
        if matches!(ty, DataType::Timestamp(TimeUnit::Microsecond, _)) {
            args[1] = instant::within_nanoseconds(args[1].clone());
        }
    }
    // Its result type depends on this literal, which coercion would hide in a cast.
    if name == "round"
        && let Some(Expr::Literal(places, _)) = args.get_mut(1)
        && let ScalarValue::Int64(Some(digits)) = places
    {
        let digits = i32::try_from(*digits)
            .map_err(|_| Fault::new("type", format!("round to {digits} places makes no sense")))?;
        *places = ScalarValue::Int32(Some(digits));
    }
    let expr = Expr::ScalarFunction(ScalarFunction { func, args });
    // Lengths, parts of dates and the like come as 32 bits, where arithmetic would overflow.
    let ty = expr.get_type(schema)?;
    let wide = our_type(ty.clone());
    let keeps_zone = matches!(ty, DataType::Timestamp(..));
    if wide != ty && (keeps_zone || ty.is_integer() || ty.is_floating()) {
        return Ok(Expr::Cast(Cast::new(Box::new(expr), wide)));
    }
    Ok(expr)
}
