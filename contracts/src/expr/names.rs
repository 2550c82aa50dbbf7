//! What a name in an expression stands for.
//!
//! *In*: an identifier path as written. *Out*: the column and struct fields, a typed null, or the
//! nearest name that exists. *Never*: a guess.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_sql::sqlparser::ast::{self, Visit, Visitor};

use super::{ExprError, Scope, lists, source::Source};

/// What a path resolves to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Target {
    /// A column of the schema, and the struct fields below it.
    Column {
        /// Column name.
        column: String,
        /// Struct fields, outermost first.
        fields: Vec<String>,
        /// Type of the innermost.
        ty: DataType,
    },
    /// A column of another alias: null in these rows.
    Null(DataType),
}

impl Target {
    /// Type of the values.
    pub(super) fn ty(&self) -> &DataType {
        match self {
            Self::Column { ty, .. } | Self::Null(ty) => ty,
        }
    }
}

/// Where resolution stopped: which part of the path is unknown, and what could stand there.
struct Unknown {
    part: usize,
    names: Vec<String>,
}

impl Scope {
    /// Resolves `path`; `spans` are the byte ranges of its parts.
    pub(super) fn resolve(
        &self,
        path: &[String],
        spans: &[std::ops::Range<usize>],
    ) -> Result<Target, ExprError> {
        let unknown = match self.lookup(path) {
            Ok(target) => return Ok(target),
            Err(unknown) => unknown,
        };
        let found = path[unknown.part].as_str();
        let place = spans.get(unknown.part).or(spans.last()).cloned().unwrap_or(0..0);
        let message = match path[..unknown.part].join(".").as_str() {
            "" => format!("no column is called `{found}`"),
            head => format!("`{head}` has no field `{found}`"),
        };
        let mut error = ExprError::new("unknown_name", place, message)
            .names(found, unknown.names.iter().map(String::as_str));
        if let Some(alias) = self.alias_with(found).filter(|_| unknown.part == 0) {
            error.fix = Some(format!("`{found}` belongs to `{alias}`: write `{alias}.{found}`"));
        } else if error.nearest.is_none() && unknown.part == 0 && spans.len() == 1 {
            error.fix = Some(format!("for a text write it in single quotes: '{found}'"));
        }
        Err(error)
    }

    fn lookup(&self, path: &[String]) -> Result<Target, Unknown> {
        if path.len() > 1 {
            if let Some(column) = self.parts.get(&path[0]) {
                return self.below(column, path[1..].to_vec());
            }
            if self.qualifiers.contains(&path[0]) {
                let below = self.column(&path[1..]).map_err(|unknown| shift(unknown, 1));
                // A struct column may share the alias's name.
                return below.or_else(|unknown| self.column(path).map_err(|_| unknown));
            }
            if let Some(columns) = self.absent.get(&path[0]) {
                return absent_column(columns, &path[1..]).map_err(|unknown| shift(unknown, 1));
            }
        }
        self.column(path)
    }

    fn column(&self, path: &[String]) -> Result<Target, Unknown> {
        let Some((first, rest)) = path.split_first() else {
            return Err(Unknown { part: 0, names: self.names(false) });
        };
        if let Some(renamed) = self.renames.get(first)
            && let Some((column, fields)) = renamed.split_first()
        {
            let fields: Vec<String> = fields.iter().chain(rest).cloned().collect();
            let skipped = fields.len() - rest.len();
            return self.below(column, fields).map_err(|mut unknown| {
                unknown.part = unknown.part.saturating_sub(skipped);
                unknown
            });
        }
        self.below(first, rest.to_vec()).map_err(|unknown| match unknown.part {
            0 => Unknown { part: 0, names: self.names(!rest.is_empty()) },
            _ => unknown,
        })
    }

    fn below(&self, column: &str, fields: Vec<String>) -> Result<Target, Unknown> {
        let Ok(field) = self.schema.field_with_name(column) else {
            return Err(Unknown { part: 0, names: self.names(!fields.is_empty()) });
        };
        let ty = descend(field.data_type(), &fields).map_err(|unknown| shift(unknown, 1))?;
        Ok(Target::Column { column: column.to_owned(), fields, ty })
    }

    /// Names that can start a path; `qualified`: something follows after a dot.
    fn names(&self, qualified: bool) -> Vec<String> {
        let columns = self
            .schema
            .fields()
            .iter()
            .filter(|field| !qualified || matches!(field.data_type(), DataType::Struct(_)))
            .filter(|field| !self.parts.values().any(|part| part == field.name()));
        let mut names: Vec<String> = columns.map(|field| field.name().clone()).collect();
        if qualified {
            names.extend(self.parts.keys().cloned());
            names.extend(self.qualifiers.iter().cloned());
            names.extend(self.absent.keys().cloned());
        }
        names.extend(self.renames.keys().cloned());
        names
    }

    fn alias_with(&self, column: &str) -> Option<&str> {
        let mut aliases = self.absent.iter();
        aliases
            .find(|(_, columns)| columns.iter().any(|(name, _)| name == column))
            .map(|(alias, _)| alias.as_str())
    }
}

fn shift(mut unknown: Unknown, by: usize) -> Unknown {
    unknown.part += by;
    unknown
}

fn absent_column(columns: &[(String, DataType)], path: &[String]) -> Result<Target, Unknown> {
    match columns.iter().find(|(name, _)| *name == path[0]) {
        Some((_, ty)) => descend(ty, &path[1..]).map(Target::Null).map_err(|unknown| shift(unknown, 1)),
        None => Err(Unknown { part: 0, names: columns.iter().map(|(name, _)| name.clone()).collect() }),
    }
}

fn descend(ty: &DataType, fields: &[String]) -> Result<DataType, Unknown> {
    let mut ty = ty.clone();
    for (part, name) in fields.iter().enumerate() {
        let DataType::Struct(children) = &ty else {
            return Err(Unknown { part, names: Vec::new() });
        };
        match children.find(name) {
            Some((_, child)) => ty = child.data_type().clone(),
            None => {
                let names = children.iter().map(|child| child.name().clone()).collect();
                return Err(Unknown { part, names });
            }
        }
    }
    Ok(ty)
}

/// The path an expression is, with the byte ranges of its parts; `None` for anything else.
pub(super) fn path_of(
    expr: &ast::Expr,
    source: &Source,
) -> Option<(Vec<String>, Vec<std::ops::Range<usize>>)> {
    let mut idents = Vec::new();
    collect_path(expr, &mut idents).then(|| {
        let parts = idents.iter().map(|ident| ident.value.clone()).collect();
        (parts, idents.iter().map(|ident| source.range(ident.span)).collect())
    })
}

/// Collects `a.b.c`, `a['b'].c`; false for what is no path.
fn collect_path(expr: &ast::Expr, idents: &mut Vec<ast::Ident>) -> bool {
    match expr {
        ast::Expr::Identifier(ident) => idents.push(ident.clone()),
        ast::Expr::CompoundIdentifier(parts) => idents.extend(parts.iter().cloned()),
        ast::Expr::CompoundFieldAccess { root, access_chain } => {
            return collect_path(root, idents)
                && access_chain.iter().all(|access| match access {
                    ast::AccessExpr::Dot(name) => collect_path(name, idents),
                    ast::AccessExpr::Subscript(ast::Subscript::Index { index: ast::Expr::Value(value) }) => {
                        match &value.value {
                            ast::Value::SingleQuotedString(name) => {
                                idents.push(ast::Ident::with_span(value.span, name.clone()));
                                true
                            }
                            _ => false,
                        }
                    }
                    ast::AccessExpr::Subscript(_) => false,
                });
        }
        _ => return false,
    }
    true
}

/// The paths mentioned in a tree, see [`super::mentions`].
pub(super) fn mentioned(ast: &ast::Expr) -> Vec<Vec<String>> {
    let mut mentions = Mentions { paths: Vec::new(), skip: 0 };
    let _: ControlFlow<()> = ast.visit(&mut mentions);
    mentions.paths
}

struct Mentions {
    paths: Vec<Vec<String>>,
    /// Depth inside what has been dealt with.
    skip: usize,
}

impl Mentions {
    fn add(&mut self, expr: &ast::Expr) -> bool {
        let mut idents = Vec::new();
        if !collect_path(expr, &mut idents) {
            return false;
        }
        let path = idents.into_iter().map(|ident| ident.value).collect();
        if !self.paths.contains(&path) {
            self.paths.push(path);
        }
        true
    }
}

impl Visitor for Mentions {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        if self.skip > 0 {
            self.skip += 1;
        } else if let Some(call) = lists::as_call(expr) {
            if let Some(list) = call.list {
                self.add(list);
            }
            self.skip = 1;
        } else if self.add(expr) {
            self.skip = 1;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &ast::Expr) -> ControlFlow<()> {
        self.skip = self.skip.saturating_sub(1);
        ControlFlow::Continue(())
    }
}

/// The columns of a list's items: the fields of a struct, or the one column `item`.
pub(super) fn item_schema(item: &arrow::datatypes::FieldRef) -> SchemaRef {
    use arrow::datatypes::{Field, Schema};
    match item.data_type() {
        DataType::Struct(fields) => std::sync::Arc::new(Schema::new(fields.clone())),
        other => std::sync::Arc::new(Schema::new(vec![Field::new("item", other.clone(), true)])),
    }
}
