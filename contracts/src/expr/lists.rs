//! The list functions: `sum_of(items, quantity * unit_price)` and its siblings.
//!
//! *In*: a call in the syntax tree, the scope. *Out*: a [`ListFold`] over the items, and the type of
//! its column. *Never*: columns of the row inside an item expression.

use std::ops::Range;

use arrow::datatypes::{DataType, FieldRef};
use datafusion_sql::sqlparser::ast;

use super::names::{self, Target};
use super::{ExprError, ListAgg, ListFold, Scope, Typed, plan, source::Source};
use crate::value::{ValueType, type_name};

const NAMES: [(&str, ListAgg); 8] = [
    ("sum_of", ListAgg::Sum),
    ("count_of", ListAgg::Count),
    ("min_of", ListAgg::Min),
    ("max_of", ListAgg::Max),
    ("avg_of", ListAgg::Avg),
    ("distinct_of", ListAgg::Distinct),
    ("any_of", ListAgg::Any),
    ("all_of", ListAgg::All),
];

/// Names of the list functions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// A call of a list function, as written.
pub(super) struct Call<'a> {
    pub(super) name: &'static str,
    pub(super) fold: ListAgg,
    pub(super) list: Option<&'a ast::Expr>,
    pub(super) items: Vec<&'a ast::Expr>,
    /// Nothing but plain arguments.
    plain: bool,
}

/// The call a node is, if it is one of a list function.
pub(super) fn as_call(expr: &ast::Expr) -> Option<Call<'_>> {
    let ast::Expr::Function(function) = expr else { return None };
    let [ast::ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return None };
    let name = name.value.to_lowercase();
    let (name, fold) = *NAMES.iter().find(|(known, _)| *known == name)?;
    let mut call = Call { name, fold, list: None, items: Vec::new(), plain: true };
    let ast::FunctionArguments::List(arguments) = &function.args else {
        return Some(Call { plain: false, ..call });
    };
    call.plain = function.over.is_none()
        && function.filter.is_none()
        && arguments.clauses.is_empty()
        && arguments.duplicate_treatment.is_none();
    for argument in &arguments.args {
        match argument {
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) if call.list.is_none() => {
                call.list = Some(expr);
            }
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => call.items.push(expr),
            _ => call.plain = false,
        }
    }
    Some(call)
}

/// Compiles a call into the fold and the Arrow type of its column.
pub(super) fn compile(
    call: &Call<'_>,
    place: Range<usize>,
    source: &Source,
    scope: &Scope,
) -> Result<(ListFold, DataType), ExprError> {
    let list = call.list.ok_or_else(|| usage(call, place.clone()))?;
    let optional = call.fold == ListAgg::Count;
    if !call.plain || call.items.len() > 1 || (call.items.is_empty() && !optional) {
        return Err(usage(call, place));
    }
    let (path, spans) = names::path_of(list, source).ok_or_else(|| usage(call, place.clone()))?;
    let target = scope.resolve(&path, &spans)?;
    let whole = spans.first().zip(spans.last()).map_or(place, |(a, b)| a.start..b.end);
    let (column, fields, item) = match target {
        Target::Column { column, fields, ty } => match list_item(&ty) {
            Some(item) => (column, fields, item),
            None => return Err(not_a_list(call, whole, &path.join("."), &ty, scope)),
        },
        Target::Null(_) => {
            let message = format!("`{}` is not a list of these rows", path.join("."));
            return Err(ExprError::new("not_allowed", whole, message));
        }
    };
    let item = match call.items.first() {
        Some(expr) => {
            let compiled = compile_item(expr, source, &path, &item);
            Some(compiled.map_err(|error| of_the_row(call, error, scope))?)
        }
        None => None,
    };
    let item_place = |source: &Source| match call.items.first() {
        Some(expr) => source.expr_range(expr),
        None => whole.clone(),
    };
    let ty = result_type(call, item.as_ref()).map_err(|allowed| {
        let found = item.as_ref().map_or_else(String::new, |item| item.ty.to_string());
        let message = format!("{} of {} makes no sense", call.name, super::a(&found));
        ExprError::new("type", item_place(source), message).found(found).allowed(allowed)
    })?;
    let fold = ListFold { fold: call.fold, list: column, path: fields, item: item.map(Box::new) };
    Ok((fold, ty))
}

fn compile_item(
    expr: &ast::Expr,
    source: &Source,
    path: &[String],
    item: &FieldRef,
) -> Result<Typed, ExprError> {
    let mut scope = Scope::new(names::item_schema(item));
    if matches!(item.data_type(), DataType::Struct(_)) {
        scope.qualifiers = path.last().cloned().into_iter().chain(["item".to_owned()]).collect();
    }
    plan::compile(source, expr.clone(), &scope)
}

/// A name that is no field of the items may well be a column of the row.
fn of_the_row(call: &Call<'_>, error: ExprError, scope: &Scope) -> ExprError {
    let known = |name: &String| scope.resolve(std::slice::from_ref(name), &[]).is_ok();
    match &error.found {
        Some(name) if error.code == "unknown_name" && known(name) => {
            let fix =
                format!("`{name}` is a column of the row; `{}` sees the fields of its items", call.name);
            error.fix(fix)
        }
        _ => error,
    }
}

fn list_item(ty: &DataType) -> Option<FieldRef> {
    match ty {
        DataType::List(item) => Some(item.clone()),
        _ => None,
    }
}

fn usage(call: &Call<'_>, place: Range<usize>) -> ExprError {
    let form = match call.fold {
        ListAgg::Count => "count_of(list) or count_of(list, condition)".to_owned(),
        ListAgg::Any | ListAgg::All => format!("{}(list, condition)", call.name),
        _ => format!("{}(list, expression)", call.name),
    };
    let message = format!("`{}` takes a list and an expression over its items", call.name);
    ExprError::new("type", place, message).allowed(form)
}

fn not_a_list(call: &Call<'_>, place: Range<usize>, path: &str, ty: &DataType, scope: &Scope) -> ExprError {
    let found = type_name(ty);
    let message = format!("`{}` needs a list, `{path}` is {}", call.name, super::a(&found));
    let columns = scope.schema.fields().iter();
    let lists = columns.filter(|field| list_item(field.data_type()).is_some());
    let lists = lists.map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
    let error = ExprError::new("type", place, message).found(found);
    if lists.is_empty() { error } else { error.allowed(lists) }
}

/// Digits a sum may need beyond its items': 10^10 items fit no list.
const SUM_DIGITS: u8 = 10;

/// The Arrow type of the fold's column, or what is allowed.
fn result_type(call: &Call<'_>, item: Option<&Typed>) -> Result<DataType, &'static str> {
    const NUMBERS: &str = "int, float, decimal or duration";
    let Some(item) = item else { return Ok(DataType::Int64) };
    let same = item.ty.arrow().ok_or(NUMBERS);
    match (call.fold, &item.ty) {
        (ListAgg::Count | ListAgg::Any | ListAgg::All, ValueType::Bool) => Ok(match call.fold {
            ListAgg::Count => DataType::Int64,
            _ => DataType::Boolean,
        }),
        (ListAgg::Count | ListAgg::Any | ListAgg::All, _) => Err("a condition"),
        (ListAgg::Distinct, _) => Ok(DataType::Int64),
        (ListAgg::Min | ListAgg::Max, _) => same,
        (ListAgg::Sum, ValueType::Decimal { precision, scale }) => Ok(DataType::Decimal128(
            precision.saturating_add(SUM_DIGITS).min(crate::value::decimal::MAX_DIGITS),
            *scale,
        )),
        (ListAgg::Avg, ValueType::Int) => Ok(DataType::Float64),
        (ListAgg::Sum | ListAgg::Avg, ty) if ty.is_number() || *ty == ValueType::Duration => same,
        (ListAgg::Sum | ListAgg::Avg, _) => Err(NUMBERS),
    }
}
