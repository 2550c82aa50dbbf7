//! `a.x = b.y AND a.z = b.w`: the equalities a join matches by.
//!
//! *In*: the text of a `match`. *Out*: its two sides, pair by pair, as texts of their own. *Never*: names or types.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr, Spanned, Value, visit_expressions};

use super::{ExprError, names, source::Source};

/// One side of an equality.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Its text.
    pub sql: String,
    /// The paths it mentions.
    pub mentions: Vec<Vec<String>>,
}

/// The pairs of sides of the equalities joined by AND.
///
/// # Errors
/// `syntax` and `too_complex`; `not_allowed` for anything but equalities joined by AND.
pub fn equalities(sql: &str) -> Result<Vec<(Side, Side)>, ExprError> {
    let source = Source::read(sql)?;
    let ast = source.parse()?;
    let mut pairs = Vec::new();
    collect(&source, &ast, &mut pairs).then_some(pairs).ok_or_else(|| {
        let mut error = ExprError::new("not_allowed", 0..sql.len(), "rows are matched by equality only");
        error.found = Some(sql.to_owned());
        error.allowed = Some("`a.x = b.y`, several joined by AND".to_owned());
        error.fix = Some("put other conditions into the `where` of an alias or of a measure".to_owned());
        error
    })
}

fn collect(source: &Source, ast: &Expr, pairs: &mut Vec<(Side, Side)>) -> bool {
    match ast {
        Expr::Nested(inner) => collect(source, inner, pairs),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            collect(source, left, pairs) && collect(source, right, pairs)
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            let side = |ast: &Expr| Side { sql: text(source, ast), mentions: names::mentioned(ast) };
            pairs.push((side(left), side(right)));
            true
        }
        _ => false,
    }
}

/// The paths that are compared with texts (`status = 'new'`, `status IN ('new', 'paid')`); none for what does not
/// parse.
pub fn compared_with_texts(sql: &str) -> Vec<Vec<String>> {
    let Ok(source) = Source::read(sql) else { return Vec::new() };
    let Ok(ast) = source.parse() else { return Vec::new() };
    let mut paths = Vec::new();
    let _: ControlFlow<()> = visit_expressions(&ast, |expr| {
        let compared = match expr {
            Expr::BinaryOp { left, op: BinaryOperator::Eq | BinaryOperator::NotEq, right } => {
                match is_text(right) {
                    true => Some(left),
                    false => is_text(left).then_some(right),
                }
            }
            Expr::InList { expr, list, .. } => list.iter().all(is_text).then_some(expr),
            _ => None,
        };
        let path = compared.and_then(|compared| names::path_of(compared, &source));
        paths.extend(path.map(|(path, _)| path));
        ControlFlow::Continue(())
    });
    paths
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
}

/// The text of a part; the parser's spans of calls end before the closing parenthesis.
fn text(source: &Source, ast: &Expr) -> String {
    let range = source.range(ast.span());
    let mut end = range.end;
    let open = |text: &str| text.matches('(').count() > text.matches(')').count();
    while open(&source.sql[range.start..end])
        && let Some(next) = source.sql[end..].find(')')
    {
        end += next + 1;
    }
    source.sql[range.start..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_with_texts() {
        let paths =
            compared_with_texts("a.x = 'p' AND 'q' <> y OR z IN ('r', 's') AND n = 5 AND m IN (1) AND x = w");
        assert_eq!(paths, [vec!["a", "x"], vec!["y"], vec!["z"]]);
        assert!(compared_with_texts("a = ").is_empty());
    }

    #[test]
    fn pairs_of_an_and() {
        let pairs = equalities("a.x = b.y AND (lower(a.z) = b.w)").unwrap();
        let texts: Vec<_> = pairs.iter().map(|(l, r)| (l.sql.as_str(), r.sql.as_str())).collect();
        assert_eq!(texts, [("a.x", "b.y"), ("lower(a.z)", "b.w")]);
        assert_eq!(pairs[1].0.mentions, [["a", "z"]]);
        for wrong in ["a.x < b.y", "a.x = b.y OR a.z = b.w", "a.x"] {
            assert_eq!(equalities(wrong).unwrap_err().code, "not_allowed", "{wrong}");
        }
    }
}
