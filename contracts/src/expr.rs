//! SQL expressions of contracts: parsed, resolved, type-checked; evaluated elsewhere.
//!
//! *In*: SQL text (DataFusion dialect) and the columns in scope. *Out*: a [`Typed`] logical plan, or
//! an error with its place in the text. *Never*: evaluation over rows (operators does that).
//!
//! Modules in the order a text meets them: source, resolve (names, lists, functions), plan (rewrite,
//! checks), locate.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::DFSchema;
use datafusion_expr::{Expr, ExprSchemable};

use crate::value::ValueType;

mod checks;
mod equality;
mod error;
mod fault;
mod field;
mod functions;
mod instant;
mod lists;
mod locate;
mod names;
mod plan;
mod resolve;
mod rewrite;
mod source;
#[cfg(test)]
mod tests;

pub use equality::{Side, compared_with_texts, equalities};
pub use error::ExprError;

/// Column of the instant of an answer: what `as_of()` means where the scope has it.
pub const AS_OF: &str = "as_of()";

/// A type-checked expression.
#[derive(Debug, Clone)]
pub struct Typed {
    /// The text as written.
    pub sql: String,
    /// Columns the expression reads from: the scope's schema, then one column per entry of `lists`.
    pub schema: SchemaRef,
    /// Coerced and simplified logical expression over `schema`.
    pub expr: Expr,
    /// Folds over list columns that must be computed first; entry i is the column `__list_i`.
    pub lists: Vec<ListFold>,
    /// Type of the result.
    pub ty: ValueType,
}

impl Typed {
    /// The exact Arrow type of the evaluated column: that of [`ValueType::arrow`], except that text
    /// straight out of a dictionary column stays `Dictionary(Int32, Utf8)`.
    pub fn data_type(&self) -> DataType {
        DFSchema::try_from(self.schema.as_ref().clone())
            .and_then(|schema| self.expr.get_type(&schema))
            .ok()
            .or_else(|| self.ty.arrow())
            .unwrap_or(DataType::Null)
    }
}

/// `sum_of(items, quantity * unit_price)` and its siblings.
#[derive(Debug, Clone)]
pub struct ListFold {
    /// Which one.
    pub fold: ListAgg,
    /// The list column of the scope.
    pub list: String,
    /// Struct fields from that column down to the list; empty where the column is the list.
    pub path: Vec<String>,
    /// The expression over the list's items; `None` for `count_of(items)`. Its schema has one
    /// column per field of the items, or the one column `item` where they are no structs.
    pub item: Option<Box<Typed>>,
}

/// The list functions of contracts. Nulls are passed over; over an empty or absent list `sum_of`
/// and `count_of` are 0, the others null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ListAgg {
    Sum,
    Count,
    Min,
    Max,
    Avg,
    Distinct,
    Any,
    All,
}

/// The names an expression may use.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Columns of the rows the expression is over.
    pub schema: SchemaRef,
    /// Names accepted before a column: the alias and `row`, `["order", "row"]`.
    pub qualifiers: Vec<String>,
    /// Other aliases with their columns: typed nulls in these rows.
    pub absent: BTreeMap<String, Vec<(String, DataType)>>,
    /// Further names: the column and the struct fields below it that they stand for.
    pub renames: BTreeMap<String, Vec<String>>,
    /// Names accepted before a column, and the struct column they mean: the parts of a joined row.
    pub parts: BTreeMap<String, String>,
}

impl Scope {
    /// Just the columns of `schema`.
    pub fn new(schema: SchemaRef) -> Self {
        Self {
            schema,
            qualifiers: Vec::new(),
            absent: BTreeMap::new(),
            renames: BTreeMap::new(),
            parts: BTreeMap::new(),
        }
    }

    /// Accepts `name.` before a column.
    #[must_use]
    pub fn with_qualifier(mut self, name: impl Into<String>) -> Self {
        self.qualifiers.push(name.into());
        self
    }
}

/// Parses, resolves and type-checks one expression.
///
/// # Errors
/// The first mistake: its code is one of `syntax`, `too_complex`, `unknown_name`,
/// `unknown_function`, `not_allowed`, `type`, `pattern`.
pub fn compile(sql: &str, scope: &Scope) -> Result<Typed, ExprError> {
    let source = source::Source::read(sql)?;
    let ast = source.parse()?;
    plan::compile(&source, ast, scope)
}

/// [`compile`] of a condition: the result must be true or false (or null).
///
/// # Errors
/// As [`compile`]; `type` for a result that is not Boolean.
pub fn compile_bool(sql: &str, scope: &Scope) -> Result<Typed, ExprError> {
    let typed = compile(sql, scope)?;
    if typed.ty == ValueType::Bool {
        return Ok(typed);
    }
    let message = format!("a condition must be true or false, this is {}", a(&typed.ty.to_string()));
    let mut error = ExprError::new("type", 0..sql.len(), message);
    error.found = Some(typed.ty.to_string());
    error.allowed = Some("bool".to_owned());
    error.fix = Some("compare it with something, as in `x > 0`".to_owned());
    Err(error)
}

/// The identifier paths an expression mentions, in order, without repeats: `["order", "amount"]`
/// for `order.amount`. Of list functions only the list counts, not what is said about its items.
///
/// # Errors
/// `syntax` and `too_complex`.
pub fn mentions(sql: &str) -> Result<Vec<Vec<String>>, ExprError> {
    let source = source::Source::read(sql)?;
    Ok(names::mentioned(&source.parse()?))
}

/// `an int`, `a string`.
fn a(name: &str) -> String {
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {name}")
}
