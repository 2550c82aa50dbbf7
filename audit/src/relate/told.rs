//! How the parts of a relation read in the statement that is shown.
//!
//! *In*: a relation of the contract. *Out*: SQL for people; expressions stand as the contract writes them. *Never*: a
//! statement that is run.

use contracts::Catalog;
use contracts::catalog::{HistoryKind, Missing, Part, Relation, Sequence, Ships, Step};

use crate::sql::quoted;

/// The rows of a part: cells `c0`, `c1`, ...
pub(super) fn part(catalog: &Catalog, (relation, index): (usize, usize), part: &Part) -> String {
    let feeds = part.feeds.iter().enumerate().map(|(turn, feed)| {
        let time = feed.time.as_ref().map_or("NULL", |time| time.sql.as_str());
        let mut columns = vec!["n".to_owned(), "id".to_owned(), format!("{time} AS at")];
        let cells = feed.cells.iter().enumerate();
        columns.extend(cells.map(|(cell, typed)| format!("{} AS c{cell}", typed.sql)));
        let lists = feed.lists.iter().enumerate();
        columns
            .extend(lists.map(|(list, path)| format!("{} AS c{}", path.join("."), feed.cells.len() + list)));
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

/// The deployments that ship each row; parts of history have the numbers from `first` on.
pub(super) fn ships((relation, index): (usize, usize), ships: &Ships, first: usize) -> String {
    let edges = ships.history.iter().enumerate().map(|(number, history)| {
        let graph: Vec<String> = history.graph.iter().map(|cell| format!("c{cell}")).collect();
        let from = format!("part_{relation}_{}", first + number);
        match history.kind {
            HistoryKind::Parents { sha, parents } => {
                format!("SELECT [{}] AS graph, c{sha} AS sha, UNNEST(c{parents}) AS parent FROM {from}", graph.join(", "))
            }
            HistoryKind::Chain { before, commits } => {
                let before = before.map_or_else(|| "NULL".to_owned(), |cell| format!("c{cell}"));
                format!(
                    "SELECT [{}] AS graph, UNNEST(c{commits}) AS sha, UNNEST([{before}] || c{commits}) AS parent FROM {from}",
                    graph.join(", ")
                )
            }
        }
    });
    let edges = edges.collect::<Vec<_>>().join("\n  UNION ALL ");
    let line: Vec<String> = ships.line.iter().map(|cell| format!("c{cell}")).collect();
    let commits: Vec<String> = ships.commits.iter().map(|(part, cell)| format!("p{part}.c{cell}")).collect();
    format!(
        "-- ancestors by sets of our own; of each commit and line the first deployment that contains it\n\
         WITH RECURSIVE edges AS (\n  {edges}\n), shipped AS (\n  \
         SELECT n, at, id, [{}] AS line, c{} AS sha FROM part_{relation}_{}\n  \
         UNION SELECT s.n, s.at, s.id, s.line, e.parent FROM shipped AS s JOIN edges AS e USING (graph, sha)\n)\n\
         SELECT l, FIRST_VALUE(r ORDER BY at, id) AS r FROM shipped WHERE sha IN (COALESCE({})) GROUP BY l, line",
        line.join(", "),
        ships.head,
        index + 1,
        commits.join(", ")
    )
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
