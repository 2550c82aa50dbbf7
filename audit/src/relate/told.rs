//! How the parts of a relation read in the statement that is shown.
//!
//! *In*: a relation of the contract. *Out*: SQL for people; expressions stand as the contract writes them. *Never*: a
//! statement that is run.

use contracts::Catalog;
use contracts::catalog::{Missing, Part, Relation, Sequence, Step};

use crate::sql::quoted;

/// The rows of a part: cells `c0`, `c1`, ...
pub(super) fn part(catalog: &Catalog, (relation, index): (usize, usize), part: &Part) -> String {
    let feeds = part.feeds.iter().enumerate().map(|(turn, feed)| {
        let time = feed.time.as_ref().map_or("NULL", |time| time.sql.as_str());
        let mut columns = vec!["n".to_owned(), "id".to_owned(), format!("{time} AS at")];
        let cells = feed.cells.iter().enumerate();
        columns.extend(cells.map(|(cell, typed)| format!("{} AS c{cell}", typed.sql)));
        let from = quoted(&catalog.events[feed.event].head.name);
        let filter = feed.filter.as_ref().map(|filter| format!("({})", filter.sql));
        let current = (!feed.identity.is_empty())
            .then(|| format!("n IN (SELECT n FROM current_{relation}_{index}_{turn})"));
        let both: Vec<String> = filter.into_iter().chain(current).collect();
        let filter = if both.is_empty() { String::new() } else { format!("\nWHERE {}", both.join(" AND ")) };
        format!("SELECT {}\nFROM {from} AS {}{filter}", columns.join(", "), quoted(&part.name))
    });
    feeds.collect::<Vec<_>>().join("\nUNION ALL\n")
}

/// The rows so far, with their side of the equalities.
pub(super) fn left(relation: usize, index: usize, step: &Step) -> String {
    let keys = step.left.iter().enumerate().map(|(k, (part, cell))| format!("p{part}.c{cell} AS k{k}"));
    let at = match (index, step.from) {
        (0, _) => "p0.at".to_owned(),
        (_, Some(part)) => format!("p{part}.at"),
        (_, None) => "at".to_owned(),
    };
    let columns: Vec<String> = ["n".to_owned(), at].into_iter().chain(keys).collect();
    format!("SELECT {}\n{}", columns.join(", "), joins(relation, index, |_| "JOIN"))
}

/// The partners.
pub(super) fn right(relation: usize, index: usize, step: &Step) -> String {
    let mut columns = vec!["n".to_owned(), "at".to_owned(), "id".to_owned()];
    columns.extend(step.right.iter().enumerate().map(|(k, cell)| format!("c{cell} AS k{k}")));
    columns.extend(step.valid_to.map(|cell| format!("c{cell} AS until")));
    format!("SELECT {} FROM part_{relation}_{}", columns.join(", "), index + 1)
}

/// The rows.
pub(super) fn relation(number: usize, relation: &Relation) -> String {
    let keeps = |step: usize| match relation.steps[step].missing {
        Missing::Keep => "LEFT JOIN",
        _ => "JOIN",
    };
    let names = relation.parts.iter().enumerate();
    let names: Vec<String> = names.map(|(p, part)| format!("p{p}.* AS {}", quoted(&part.name))).collect();
    format!("SELECT {}\n{}", names.join(", "), joins(number, relation.steps.len(), keeps))
}

/// The rows that intervals are made of: those of a key in order, each until the next.
pub(super) fn sequence(number: usize, sequence: &Sequence) -> String {
    let sql = |typed: &Option<contracts::expr::Typed>, otherwise: &str| {
        typed.as_ref().map_or_else(|| otherwise.to_owned(), |typed| typed.sql.clone())
    };
    let key = &sequence.key.sql;
    let (state, start, end) =
        (sql(&sequence.state, "NULL"), sql(&sequence.start, "TRUE"), sql(&sequence.end, "FALSE"));
    format!(
        "SELECT *, {key} AS key, {state} AS state, {start} AS starts, {end} AS ends,\n  \
         LEAD(time) OVER (PARTITION BY {key} ORDER BY time, id) AS until\nFROM relation_{number}"
    )
}

/// The first `steps` steps.
fn joins(relation: usize, steps: usize, kind: impl Fn(usize) -> &'static str) -> String {
    let mut text = format!("FROM part_{relation}_0 AS p0");
    for step in 0..steps {
        let (kind, part) = (kind(step), step + 1);
        text += &format!(
            "\n{kind} pairs_{relation}_{step} AS s{step} ON s{step}.l = n \
             {kind} part_{relation}_{part} AS p{part} ON p{part}.n = s{step}.r"
        );
    }
    text
}
