//! From the resolved syntax tree to a typed logical expression.
//!
//! *In*: a syntax tree, the text it is from, a [`Scope`]. *Out*: a [`Typed`]. *Never*: rows.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, DFSchemaRef, Result};
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{Cast, Expr, ExprSchemable};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast;

use super::fault::Fault;
use super::functions::CONTEXT;
use super::resolve::{self, Name, Resolved};
use super::rewrite;
use super::{ExprError, Scope, Typed, checks, locate, source::Source};
use crate::value::{ValueType, type_name};

/// Compiles one expression of `source` in `scope`.
pub(super) fn compile(source: &Source, mut tree: ast::Expr, scope: &Scope) -> Result<Typed, ExprError> {
    let place = match &tree {
        whole if source.parse().is_ok_and(|parsed| parsed == *whole) => 0..source.sql.len(),
        part => source.expr_range(part),
    };
    let resolved = resolve::resolve(&mut tree, source, scope)?;
    let planner = Planner::new(scope, resolved)?;
    let expr = planner.logical(&tree).map_err(|fault| locate::smallest(&planner, &tree, source, fault))?;
    let whole = |fault: Fault| fault.at(place.clone());
    let (expr, ty) = guarded(|| planner.finish(expr)).map_err(whole)?;
    let sql = source.text(place.clone()).trim().to_owned();
    let lists = planner.resolved.lists.into_iter().map(|(fold, _)| fold).collect();
    Ok(Typed { sql, schema: planner.schema, expr, lists, ty })
}

/// Plans trees over one scope.
pub(super) struct Planner {
    resolved: Resolved,
    /// The names of the tree as columns: what SQL planning sees.
    named: DFSchema,
    /// The scope's columns and the list folds: what the result is over.
    schema: SchemaRef,
    df_schema: DFSchemaRef,
    simplifier: ExprSimplifier,
}

impl Planner {
    fn new(scope: &Scope, resolved: Resolved) -> Result<Self, ExprError> {
        let internal =
            |error: datafusion_common::DataFusionError| ExprError::new("type", 0..0, error.strip_backtrace());
        let names = resolved.names.iter();
        let named: Vec<Field> = names.map(|Name { key, ty, .. }| Field::new(key, ty.clone(), true)).collect();
        let named = DFSchema::try_from(Schema::new(named)).map_err(internal)?;
        let mut columns: Vec<Arc<Field>> = scope.schema.fields().iter().cloned().collect();
        for (index, (_, ty)) in resolved.lists.iter().enumerate() {
            columns.push(Arc::new(Field::new(resolve::list_column(index), ty.clone(), true)));
        }
        let schema: SchemaRef = Arc::new(Schema::new(columns));
        let df_schema = DFSchema::try_from(schema.as_ref().clone()).map_err(internal)?;
        let df_schema: DFSchemaRef = Arc::new(df_schema);
        let context = SimplifyContext::default().with_schema(Arc::clone(&df_schema));
        let simplifier = ExprSimplifier::new(context);
        Ok(Self { resolved, named, schema, df_schema, simplifier })
    }

    /// The coerced expression a resolved tree means.
    pub(super) fn logical(&self, tree: &ast::Expr) -> Result<Expr, Fault> {
        guarded(|| self.plan(tree))
    }

    fn plan(&self, tree: &ast::Expr) -> Result<Expr, Fault> {
        let options = ParserOptions::new()
            .with_parse_float_as_decimal(true)
            .with_enable_ident_normalization(false)
            .with_map_string_types_to_utf8view(false);
        let sql = SqlToRel::new_with_options(&*CONTEXT, options);
        let expr = sql.sql_to_expr(tree.clone(), &self.named, &mut PlannerContext::new())?;
        let expr = self.substitute(expr)?;
        let expr = rewrite::harmonise(expr, &self.df_schema)?;
        let expr = self.simplifier.coerce(expr, &self.df_schema)?;
        let expr = checks::arithmetic(expr)?;
        expr.get_type(&self.df_schema)?;
        Ok(expr)
    }

    /// Type of a resolved tree.
    pub(super) fn type_of(&self, tree: &ast::Expr) -> Option<DataType> {
        self.logical(tree).ok().and_then(|expr| expr.get_type(&self.df_schema).ok())
    }

    /// Keys become what they stand for.
    fn substitute(&self, expr: Expr) -> Result<Expr> {
        let expr = expr.transform_up(|node| {
            let Expr::Column(column) = &node else { return Ok(Transformed::no(node)) };
            match self.resolved.names.iter().find(|name| name.key == column.name) {
                Some(name) => Ok(Transformed::yes(name.expr.clone())),
                None => Ok(Transformed::no(node)),
            }
        })?;
        Ok(expr.data)
    }

    /// Simplifies, and makes the result one of our types.
    fn finish(&self, expr: Expr) -> Result<(Expr, ValueType), Fault> {
        let found = expr.get_type(&self.df_schema)?;
        let ty = value_type(&found)?;
        let expr = self.simplifier.simplify(self.cast(expr, &ty)?)?;
        // Simplification may change the type, but only to one that casts to the same.
        Ok((self.cast(expr, &ty)?, ty))
    }

    fn cast(&self, expr: Expr, ty: &ValueType) -> Result<Expr, Fault> {
        let found = expr.get_type(&self.df_schema)?;
        let interned = matches!(&found, DataType::Dictionary(key, value)
            if **key == DataType::Int32 && **value == DataType::Utf8);
        match ty.arrow() {
            Some(wanted) if wanted != found && !interned => Ok(Expr::Cast(Cast::new(Box::new(expr), wanted))),
            _ => Ok(expr),
        }
    }
}

/// DataFusion's planner unwraps here and there; a contract must not bring the program down.
fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    crate::guard::guarded(work).unwrap_or_else(|_| Err(Fault::new("type", "DataFusion cannot plan this")))
}

fn value_type(found: &DataType) -> Result<ValueType, Fault> {
    let fault = |message: &str, fix: &str| Err(Fault::new("type", message).found(type_name(found)).fix(fix));
    match found {
        DataType::Null => fault("a bare null has no type", "write CAST(NULL AS ...)"),
        DataType::Interval(_) => {
            fault("an interval of months has no fixed length", "use days, hours, minutes, seconds")
        }
        DataType::List(_) => {
            fault("the result is a list", "use a list function: sum_of(list, ...), count_of(list)")
        }
        DataType::Struct(_) => fault("the result is a struct", "name one of its fields: `a.b`"),
        _ => match ValueType::from_arrow(found) {
            Some(ty) => Ok(ty),
            None => fault("the result has no type that an answer can show", "cast it"),
        },
    }
}
