//! The smallest part of an expression that does not type-check, and what is wrong with it.
//!
//! *In*: a resolved tree that failed. *Out*: an [`ExprError`] at the innermost node that fails while
//! all its parts are right. *Never*: called for expressions that are right (it plans every part).

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{self, Visit, Visitor};

use super::fault::Fault;
use super::plan::Planner;
use super::{ExprError, source::Source};
use crate::value::type_name;

pub(super) fn smallest(planner: &Planner, tree: &ast::Expr, source: &Source, fault: Fault) -> ExprError {
    for child in children(tree) {
        if let Err(fault) = planner.logical(&child) {
            return smallest(planner, &child, source, fault);
        }
    }
    let place = source.expr_range(tree);
    if fault.is_ours() {
        return fault.at(place);
    }
    describe(planner, tree, source, &fault).at(place)
}

/// What DataFusion refuses, in the words of contracts.
fn describe(planner: &Planner, tree: &ast::Expr, source: &Source, fault: &Fault) -> Fault {
    let parts = children(tree);
    let named = |part: &ast::Expr| {
        let ty = planner.type_of(part).map_or_else(|| "?".to_owned(), |ty| type_name(&ty));
        (source.text(source.expr_range(part)).to_owned(), ty)
    };
    match tree {
        ast::Expr::BinaryOp { left, op, right } => {
            let ((left, left_type), (right, right_type)) = (named(left), named(right));
            let message = format!(
                "`{op}` does not go between {} (`{left}`) and {} (`{right}`)",
                super::a(&left_type),
                super::a(&right_type),
            );
            Fault::new("type", message).found(format!("{left_type} {op} {right_type}"))
        }
        ast::Expr::Function(function) => {
            let types: Vec<String> = parts.iter().map(|part| named(part).1).collect();
            let name = function.name.to_string().to_lowercase();
            let message = format!("`{name}` does not take ({})", types.join(", "));
            let found = format!("{name}({})", types.join(", "));
            let described = Fault::new("type", message).found(found);
            match candidates(&fault.message) {
                Some(allowed) => described.allowed(allowed),
                None => described,
            }
        }
        _ => fault.clone(),
    }
}

/// The signatures DataFusion lists at the end of its message.
fn candidates(message: &str) -> Option<String> {
    let (_, list) = message.split_once("Candidate functions:")?;
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty());
    let shown: Vec<&str> = lines.take(4).collect();
    (!shown.is_empty()).then(|| shown.join("; "))
}

/// The expressions directly below a node.
fn children(tree: &ast::Expr) -> Vec<ast::Expr> {
    struct Children {
        depth: usize,
        found: Vec<ast::Expr>,
    }
    impl Visitor for Children {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
            self.depth += 1;
            if self.depth == 2 {
                self.found.push(expr.clone());
            }
            ControlFlow::Continue(())
        }
        fn post_visit_expr(&mut self, _: &ast::Expr) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
    }
    let mut children = Children { depth: 0, found: Vec::new() };
    let _: ControlFlow<()> = tree.visit(&mut children);
    children.found
}
