//! From names in the syntax tree to columns.
//!
//! *In*: a parsed expression and a [`Scope`]. *Out*: the tree with every name replaced by a quoted
//! key, and what each key stands for; list functions compiled. *Never*: types of operators and
//! functions (plan looks at them).

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion_common::{Column, Result, ScalarValue};
use datafusion_expr::Expr;
use datafusion_sql::sqlparser::ast::{self, Spanned, VisitMut, VisitorMut};
use datafusion_sql::sqlparser::tokenizer::Span;

use super::names::{self, Target};
use super::{AS_OF, ExprError, ListFold, Scope, field, functions, lists, source::Source};
use crate::value::timestamp_type;

/// What the names of an expression stand for.
#[derive(Default)]
pub(super) struct Resolved {
    /// One per distinct name.
    pub(super) names: Vec<Name>,
    /// List functions, in order; the i-th is the column `__list_i` of the type beside it.
    pub(super) lists: Vec<(ListFold, DataType)>,
}

/// A name of the resolved tree.
pub(super) struct Name {
    /// The quoted identifier in the tree.
    pub(super) key: String,
    /// Its type.
    pub(super) ty: DataType,
    /// What it stands for.
    pub(super) expr: Expr,
}

/// Name of the column of the i-th list fold.
pub(super) fn list_column(index: usize) -> String {
    format!("__list_{index}")
}

/// Resolves all names of `tree` in place.
pub(super) fn resolve(tree: &mut ast::Expr, source: &Source, scope: &Scope) -> Result<Resolved, ExprError> {
    let mut resolver = Resolver { source, scope, resolved: Resolved::default() };
    match VisitMut::visit(tree, &mut resolver) {
        ControlFlow::Continue(()) => Ok(resolver.resolved),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Resolver<'a> {
    source: &'a Source,
    scope: &'a Scope,
    resolved: Resolved,
}

impl VisitorMut for Resolver<'_> {
    type Break = Box<ExprError>;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<Self::Break> {
        let place = self.source.range(query.span());
        ControlFlow::Break(Box::new(
            ExprError::new("not_allowed", place, "a query inside an expression is not allowed")
                .fix("declare what it looks up as a Table and an enrich"),
        ))
    }

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Self::Break> {
        match self.enter(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

impl Resolver<'_> {
    fn enter(&mut self, expr: &mut ast::Expr) -> Result<(), ExprError> {
        match expr {
            ast::Expr::Identifier(_)
            | ast::Expr::CompoundIdentifier(_)
            | ast::Expr::CompoundFieldAccess { .. } => self.name(expr),
            ast::Expr::Function(_) => self.function(expr),
            ast::Expr::Value(value) => self.literal(value),
            ast::Expr::IsNull(_)
            | ast::Expr::IsNotNull(_)
            | ast::Expr::IsTrue(_)
            | ast::Expr::IsNotTrue(_)
            | ast::Expr::IsFalse(_)
            | ast::Expr::IsNotFalse(_)
            | ast::Expr::IsUnknown(_)
            | ast::Expr::IsNotUnknown(_)
            | ast::Expr::IsDistinctFrom(..)
            | ast::Expr::IsNotDistinctFrom(..)
            | ast::Expr::InList { .. }
            | ast::Expr::Between { .. }
            | ast::Expr::UnaryOp { .. }
            | ast::Expr::Cast { .. }
            | ast::Expr::AtTimeZone { .. }
            | ast::Expr::Extract { .. }
            | ast::Expr::Ceil { .. }
            | ast::Expr::Floor { .. }
            | ast::Expr::Position { .. }
            | ast::Expr::Trim { .. }
            | ast::Expr::Overlay { .. }
            | ast::Expr::Nested(_)
            | ast::Expr::Case { .. }
            | ast::Expr::Interval(_) => Ok(()),
            ast::Expr::TypedString(typed) => match &typed.value.value {
                ast::Value::SingleQuotedString(_) => Ok(()),
                _ => {
                    let place = self.source.range(typed.value.span);
                    let message = format!("after {} a text in quotes is expected", typed.data_type);
                    Err(ExprError::new("syntax", place, message))
                }
            },
            ast::Expr::BinaryOp { op, .. } if is_ours(op) => Ok(()),
            ast::Expr::Like { any: false, escape_char, .. }
            | ast::Expr::ILike { any: false, escape_char, .. }
                if escape_char.as_ref().is_none_or(is_backslash) =>
            {
                Ok(())
            }
            ast::Expr::Like { .. } | ast::Expr::ILike { .. } => {
                let place = self.source.expr_range(expr);
                let message = "LIKE takes one pattern and escapes by a backslash only";
                Err(ExprError::new("not_allowed", place, message).allowed("\\% and \\_"))
            }
            ast::Expr::Substring { .. } => {
                substr_call(expr);
                Ok(())
            }
            // Their query is met next, with a better message.
            ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => Ok(()),
            other => {
                let place = self.source.expr_range(other);
                let found = self.source.text(place.clone()).to_owned();
                let message = "this kind of SQL is not for expressions of contracts";
                let error = ExprError::new("not_allowed", place, message).found(found);
                Err(match other {
                    ast::Expr::SimilarTo { .. } => error.fix("use LIKE, or ~ for a regular expression"),
                    _ => error,
                })
            }
        }
    }

    fn name(&mut self, expr: &mut ast::Expr) -> Result<(), ExprError> {
        let span = expr.span();
        let Some((path, spans)) = names::path_of(expr, self.source) else {
            let place = self.source.range(span);
            let message = "subscripts into lists are not for expressions of contracts";
            return Err(ExprError::new("not_allowed", place, message)
                .fix("use a list function: max_of(list, ...), any_of(list, ...)"));
        };
        let target = self.scope.resolve(&path, &spans)?;
        let ty = target.ty().clone();
        let value = match target {
            Target::Column { column, fields, .. } => column_expr(&column, &fields),
            Target::Null(ty) => null(&ty)
                .map_err(|error| ExprError::new("type", self.source.range(span), error.strip_backtrace()))?,
        };
        self.replace(expr, path.join("."), ty, value, span);
        Ok(())
    }

    fn function(&mut self, expr: &mut ast::Expr) -> Result<(), ExprError> {
        let span = expr.span();
        let place = self.source.call_range(span);
        if let Some(call) = lists::as_call(expr) {
            let key = self.source.text(place.clone()).to_owned();
            if self.resolved.names.iter().any(|name| name.key == key) {
                *expr = key_of(span, key);
                return Ok(());
            }
            let (fold, ty) = lists::compile(&call, place, self.source, self.scope)?;
            let column = list_column(self.resolved.lists.len());
            self.resolved.lists.push((fold, ty.clone()));
            let value = Expr::Column(Column::new_unqualified(column));
            self.replace(expr, key, ty, value, span);
            return Ok(());
        }
        let ast::Expr::Function(function) = expr else { return Ok(()) };
        let [ast::ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else {
            let found = function.name.to_string();
            let message = format!("no function is called `{found}`");
            return Err(ExprError::new("unknown_function", place, message).found(found));
        };
        if name.value.eq_ignore_ascii_case("as_of") && self.scope.schema.field_with_name(AS_OF).is_ok() {
            let value = Expr::Column(Column::new_unqualified(AS_OF));
            self.replace(expr, AS_OF.to_owned(), timestamp_type(), value, span);
            return Ok(());
        }
        if function.over.is_some() || function.filter.is_some() || !function.within_group.is_empty() {
            let message = "window functions are over many rows, an expression is over one";
            return Err(ExprError::new("not_allowed", place, message)
                .found(name.value.clone())
                .fix("use `agg:` in a measure"));
        }
        functions::check(&name.value, self.source.range(name.span))
    }

    /// Numbers keep their exact value: `1e3` and integers beyond 64 bits become decimals.
    fn literal(&self, value: &mut ast::ValueWithSpan) -> Result<(), ExprError> {
        let place = self.source.range(value.span);
        match &mut value.value {
            ast::Value::Number(digits, _) => {
                if let Some(plain) = plain_decimal(digits) {
                    *digits = plain;
                }
                Ok(())
            }
            ast::Value::Placeholder(name) => {
                let message = format!("there is nothing to put in the place of `{name}`");
                Err(ExprError::new("not_allowed", place, message).found(name.clone()))
            }
            ast::Value::SingleQuotedString(_)
            | ast::Value::EscapedStringLiteral(_)
            | ast::Value::Boolean(_)
            | ast::Value::Null => Ok(()),
            _ => {
                let found = self.source.text(place.clone()).to_owned();
                let message = "this kind of literal is not for expressions of contracts";
                Err(ExprError::new("not_allowed", place, message)
                    .found(found)
                    .allowed("'text', 1, 1.5, true, false, null"))
            }
        }
    }

    fn replace(&mut self, expr: &mut ast::Expr, mut key: String, ty: DataType, value: Expr, span: Span) {
        // A column may be called "a.b" beside a struct `a` with a field `b`.
        while self.resolved.names.iter().any(|name| name.key == key && name.expr != value) {
            key.push('\'');
        }
        *expr = key_of(span, key.clone());
        if !self.resolved.names.iter().any(|name| name.key == key) {
            self.resolved.names.push(Name { key, ty, expr: value });
        }
    }
}

fn is_backslash(escape: &ast::Value) -> bool {
    matches!(escape, ast::Value::SingleQuotedString(character) if character == "\\")
}

/// Operators that are planned and evaluated; the rest of SQL's are for JSON, arrays, geometry.
fn is_ours(op: &ast::BinaryOperator) -> bool {
    use ast::BinaryOperator as Op;
    matches!(
        op,
        Op::Plus
            | Op::Minus
            | Op::Multiply
            | Op::Divide
            | Op::Modulo
            | Op::Gt
            | Op::GtEq
            | Op::Lt
            | Op::LtEq
            | Op::Eq
            | Op::NotEq
            | Op::And
            | Op::Or
            | Op::StringConcat
            | Op::PGRegexMatch
            | Op::PGRegexIMatch
            | Op::PGRegexNotMatch
            | Op::PGRegexNotIMatch
            | Op::BitwiseAnd
            | Op::BitwiseOr
            | Op::BitwiseXor
    )
}

fn key_of(span: Span, key: String) -> ast::Expr {
    ast::Expr::Identifier(ast::Ident::with_quote_and_span('"', span, key))
}

/// `SUBSTRING(x FROM 2 FOR 3)` as the call `substr(x, 2, 3)`.
fn substr_call(expr: &mut ast::Expr) {
    let ast::Expr::Substring { expr: text, substring_from, substring_for, .. } = expr else { return };
    let one = || Box::new(ast::Expr::value(ast::Value::Number("1".to_owned(), false)));
    let from = substring_from.take().unwrap_or_else(one);
    let arguments = [Some(text.clone()), Some(from), substring_for.take()].into_iter().flatten();
    let arguments =
        arguments.map(|argument| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(*argument)));
    *expr = ast::Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![ast::Ident::new("substr")]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    });
}

/// Digits and a point for a number that is not a plain 64-bit integer or decimal already.
fn plain_decimal(text: &str) -> Option<String> {
    if text.contains(['e', 'E']) {
        for scale in 0..=38 {
            if let Some(unscaled) = crate::value::parse_decimal(text, 38, scale) {
                let plain = crate::value::format_decimal(unscaled, scale);
                return Some(if scale == 0 { format!("{plain}.") } else { plain });
            }
        }
        return None;
    }
    (!text.contains('.') && text.parse::<i64>().is_err()).then(|| format!("{text}."))
}

fn column_expr(column: &str, fields: &[String]) -> Expr {
    let root = Expr::Column(Column::new_unqualified(column));
    fields.iter().fold(root, |parent, name| field::field(parent, name))
}

fn null(ty: &DataType) -> Result<Expr> {
    Ok(Expr::Literal(ScalarValue::try_from(ty)?, None))
}
