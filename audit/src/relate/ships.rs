//! Shipped sets: a row about a commit meets, per line, the first deployment that contains the commit.
//!
//! *In*: rows, deployments, rows of history. *Out*: rows with the deployments beside them. *Never*: a label that is
//! passed on; the ancestors of each deployment are walked, by sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use contracts::catalog::{ColdStart, History, HistoryKind, Ships, Step};
use contracts::value::Value;

use super::part::{self, PartRows};
use super::{Row, anchor, name_of, tell, told, with};
use crate::ask::AuditError;
use crate::stages::Work;

/// The values of `match` that name a graph.
type Name = Vec<Value>;

/// Commits and their parents.
type Parents = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

/// The deployments of a line.
#[derive(Debug, Default)]
struct Line {
    /// Rows of the added part in order of time, id and place.
    deployments: Vec<usize>,
    /// Which of them ships a commit: the first that contains it.
    ships: BTreeMap<Arc<str>, usize>,
}

/// Lines of the graphs.
type Lines = BTreeMap<Name, BTreeMap<Name, Line>>;

/// Parts of history have numbers of their own in names of tables.
const HISTORY: usize = 100;

/// The rows with what ships them.
pub(super) fn add(
    work: &mut Work<'_>,
    (relation, index): (usize, usize),
    (step, ships): (&Step, &Ships),
    rows: Vec<Row>,
    made: &[PartRows],
) -> Result<Vec<Row>, AuditError> {
    // All fields by name: what is added to a step or to `ships` must be looked at here.
    let Step {
        name: _,
        from,
        left,
        right,
        pick: _,
        order: _,
        strict: _,
        within,
        valid_to: _,
        missing,
        ships: _,
    } = step;
    let Ships { commits, head, line, history, cold_start } = ships;
    let partner = &made[index + 1];
    let types = right.iter().map(|cell| Ok(partner.cell(*cell)?.data_type().clone()));
    let types = types.collect::<Result<Vec<_>, AuditError>>()?;
    let reach = within.unwrap_or(i64::MAX);
    let bound = work.metric.retain.saturating_add(reach.saturating_mul(2));
    let first = HISTORY * (index + 1);
    let graphs = graphs(work, (relation, first), history, &types, bound)?;
    let deployed = names(partner, right, &types)?;
    let lines = lines(partner, (*head, line), &deployed, bound, &graphs)?;
    let mut longer = Vec::new();
    let mut lost: Vec<(&'static str, i64, String)> = Vec::new();
    let sides = left.iter().zip(&types).map(|((part, cell), ty)| {
        cast(&made[*part].cell(*cell)?, ty).map(|column| (*part, column)).map_err(AuditError::arrow)
    });
    let sides = sides.collect::<Result<Vec<_>, _>>()?;
    let commits = commits.iter().map(|(part, cell)| Ok((*part, made[*part].cell(*cell)?)));
    let commits = commits.collect::<Result<Vec<_>, AuditError>>()?;
    for row in rows {
        let at = anchor(&row, *from, made);
        let cell = |part: usize, column: &ArrayRef| {
            row.parts[part].map_or(Value::Null, |at| Value::from_arrow(column.as_ref(), at))
        };
        let name: Name = sides.iter().map(|(part, column)| cell(*part, column)).collect();
        let name = (!name.iter().any(Value::is_null)).then_some(name);
        let wanted = commits.iter().map(|(part, column)| cell(*part, column));
        let wanted: Vec<Arc<str>> = wanted.filter_map(|value| as_text(&value)).collect();
        let own = name.as_ref().filter(|_| !wanted.is_empty());
        let none = BTreeMap::new();
        let lines = own.and_then(|name| lines.get(name)).unwrap_or(&none);
        let found = shipped(lines, &wanted, *cold_start, |by| partner.at[by].saturating_sub(at));
        let near = |by: &usize| partner.at[*by].saturating_sub(at).saturating_abs() <= reach;
        let by: Vec<usize> = found.partners.into_iter().filter(near).collect();
        longer.extend(by.iter().map(|by| with(&row, Some(*by), *missing, partner)));
        lost.extend((0..found.cold).map(|_| ("cold_start", row.time, name_of(&row, made))));
        if by.is_empty() && found.cold == 0 {
            let late = own.is_none() || at.saturating_add(reach) < work.question.now;
            lost.push((if late { "unmatched" } else { "waiting" }, row.time, name_of(&row, made)));
        }
    }
    for reason in lost.iter().map(|(reason, ..)| *reason).collect::<BTreeSet<_>>() {
        tell(work, reason, &lost);
    }
    let told = told::ships((relation, index), ships, first);
    work.sql.tell(&format!("pairs_{relation}_{index}"), told);
    Ok(longer)
}

/// What ships a row's commits.
#[derive(Debug, Default)]
struct Found {
    /// One deployment per line.
    partners: Vec<usize>,
    /// Lines whose first deployment it was, which does not ship it.
    cold: usize,
}

/// Per line the deployment that counts for the first of the commits that the line ships; `age` is how much later
/// than the row a deployment is.
fn shipped(
    lines: &BTreeMap<Name, Line>,
    commits: &[Arc<str>],
    cold_start: ColdStart,
    age: impl Fn(usize) -> i64,
) -> Found {
    let mut found = Found::default();
    for line in lines.values() {
        let Some(by) = commits.iter().find_map(|commit| line.ships.get(commit)).copied() else { continue };
        let counts = match cold_start {
            ColdStart::All => true,
            ColdStart::Skip => false,
            ColdStart::Within(most) => age(by) <= most,
        };
        if counts || line.deployments.first() != Some(&by) {
            found.partners.push(by);
        } else {
            found.cold += 1;
        }
    }
    found
}

/// Parents of commits, by graph; parts of history have the numbers from `first` on.
fn graphs(
    work: &mut Work<'_>,
    (relation, first): (usize, usize),
    history: &[History],
    types: &[DataType],
    bound: i64,
) -> Result<BTreeMap<Name, Parents>, AuditError> {
    let mut graphs = BTreeMap::new();
    for (number, history) in history.iter().enumerate() {
        let History { part, graph, kind } = history;
        let place = (relation, first + number);
        let rows = part::rows(work, place, part)?;
        work.sql.tell(&format!("part_{}_{}", place.0, place.1), told::part(work.catalog, place, part));
        edges(&rows, *kind, &names(&rows, graph, types)?, bound, &mut graphs)?;
    }
    Ok(graphs)
}

/// Per row the graph that it is of; `None`: a null is of none.
fn names(part: &PartRows, cells: &[usize], types: &[DataType]) -> Result<Vec<Option<Name>>, AuditError> {
    let columns = cells.iter().zip(types);
    let columns = columns.map(|(cell, ty)| cast(&part.cell(*cell)?, ty).map_err(AuditError::arrow));
    Ok(whole(&columns.collect::<Result<Vec<_>, _>>()?, part.len()))
}

/// Per row the values of all columns; `None`: one is null.
fn whole(columns: &[ArrayRef], rows: usize) -> Vec<Option<Name>> {
    let name = |row: usize| {
        let values: Name = columns.iter().map(|column| Value::from_arrow(column.as_ref(), row)).collect();
        (!values.iter().any(Value::is_null)).then_some(values)
    };
    (0..rows).map(name).collect()
}

fn as_text(value: &Value) -> Option<Arc<str>> {
    if let Value::Text(text) = value { Some(Arc::clone(text)) } else { None }
}

fn text(column: &ArrayRef, row: usize) -> Option<Arc<str>> {
    as_text(&Value::from_arrow(column.as_ref(), row))
}

fn texts(column: &ArrayRef, row: usize) -> Vec<Arc<str>> {
    let Value::List(items) = Value::from_arrow(column.as_ref(), row) else { return Vec::new() };
    items.iter().filter_map(as_text).collect()
}

/// Whether a row was older than anything it could move when it came.
fn too_old(part: &PartRows, row: usize, bound: i64) -> bool {
    part.at[row] < part.arrived[row].1.saturating_sub(bound)
}

/// What rows of history say about parents.
fn edges(
    part: &PartRows,
    kind: HistoryKind,
    names: &[Option<Name>],
    bound: i64,
    graphs: &mut BTreeMap<Name, Parents>,
) -> Result<(), AuditError> {
    let (single, list) = match kind {
        HistoryKind::Parents { sha, parents } => (Some(part.cell(sha)?), part.cell(parents)?),
        HistoryKind::Chain { before, commits } => {
            (before.map(|cell| part.cell(cell)).transpose()?, part.cell(commits)?)
        }
    };
    for (row, name) in names.iter().enumerate() {
        let Some(name) = name.as_ref().filter(|_| !too_old(part, row, bound)) else { continue };
        let parents = graphs.entry(name.clone()).or_default();
        let single = single.as_ref().and_then(|column| text(column, row));
        let list = texts(&list, row);
        match (kind, single) {
            (HistoryKind::Parents { .. }, None) => {}
            (HistoryKind::Parents { .. }, Some(sha)) => parents.entry(sha).or_default().extend(list),
            (HistoryKind::Chain { .. }, mut last) => {
                for commit in list {
                    if let Some(parent) = last.replace(Arc::clone(&commit)) {
                        parents.entry(commit).or_default().insert(parent);
                    }
                }
            }
        }
    }
    Ok(())
}

/// The deployments by graph and line, and what each line ships.
fn lines(
    partner: &PartRows,
    (head, line): (usize, &[usize]),
    names: &[Option<Name>],
    bound: i64,
    graphs: &BTreeMap<Name, Parents>,
) -> Result<Lines, AuditError> {
    let heads = partner.cell(head)?;
    let columns = line.iter().map(|cell| partner.cell(*cell)).collect::<Result<Vec<_>, _>>()?;
    let ties = partner.ties();
    let mut order: Vec<usize> = (0..partner.len()).collect();
    order.sort_by_key(|row| (partner.at[*row], partner.id(*row), ties[*row]));
    let mut lines = Lines::new();
    let none = Parents::new();
    for row in order {
        let (Some(name), Some(head)) = (&names[row], text(&heads, row)) else { continue };
        let of: Name = columns.iter().map(|column| Value::from_arrow(column.as_ref(), row)).collect();
        let line = lines.entry(name.clone()).or_default().entry(of).or_default();
        line.deployments.push(row);
        if too_old(partner, row, bound) {
            continue; // It says that its line had begun, and nothing else.
        }
        let parents = graphs.get(name).unwrap_or(&none);
        let mut rest = vec![head];
        while let Some(commit) = rest.pop() {
            // What an earlier deployment contains, it contains with all ancestors.
            if line.ships.contains_key(&commit) {
                continue;
            }
            rest.extend(parents.get(&commit).into_iter().flatten().cloned());
            line.ships.insert(commit, row);
        }
    }
    Ok(lines)
}
