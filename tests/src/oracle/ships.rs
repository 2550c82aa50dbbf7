//! Which deployment shipped a commit, by the definition and with sets.
//!
//! *In*: a join with `ships`, all rows of all aliases. *Out*: per row the deployments that shipped its commit, one per line at
//! most. *Never*: a label, an order of work, anything kept: for each deployment all ancestors of its commit less all
//! ancestors of the commit deployed before.

use std::collections::{BTreeMap, BTreeSet};

use super::relation::Join;
use super::rows::Made;
use super::sql::{Ex, parse};
use super::val::Val;
use super::yaml::Node;
use super::zone::parse_duration;

/// `ships` of a join.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Ships {
    /// The first of them that a line ships counts there.
    pub commits: Vec<Ex>,
    pub head: Ex,
    pub line: Vec<Ex>,
    pub history: Vec<History>,
    /// None: `all`; how much older a commit of the first deployment may be; `skip` is never.
    pub cold_start: Option<i64>,
}

/// An alias that tells parents.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct History {
    pub of: String,
    /// What names the graph, one for each equality of `match`.
    pub graph: Vec<Ex>,
    /// `sha` and `parents`.
    pub parents: Option<(Ex, Ex)>,
    /// `before` and `commits`.
    pub chain: Option<(Option<Ex>, Ex)>,
}

/// `cold_start: skip`: nothing is so young.
const NEVER: i64 = i64::MIN;

/// `ships` of a step; `pairs` are its equalities.
pub fn ships(join: &Node, pairs: &[(Ex, Ex)]) -> Option<Ships> {
    let node = join.get("ships")?;
    let all = |node: &Node, key: &str| -> Vec<Ex> {
        node.get(key).map(Node::texts).unwrap_or_default().iter().map(|text| parse(text)).collect()
    };
    let one = |node: &Node, key: &str| node.str(key).map(parse);
    let Some(Node::Seq(history)) = node.get("history") else { panic!("`history` is a list") };
    let history = history.iter().map(|item| {
        let of = item.str("of").expect("`of`").to_string();
        let mut graph = all(item, "graph");
        if graph.is_empty() {
            let sides = pairs.iter().map(|(a, b)| if is_about(a, &of) { a.clone() } else { b.clone() });
            graph = sides.collect();
        }
        History {
            of,
            graph,
            parents: one(item, "sha").zip(one(item, "parents")),
            chain: one(item, "commits").map(|commits| (one(item, "before"), commits)),
        }
    });
    Some(Ships {
        commits: all(node, "commit"),
        head: one(node, "head").expect("`head`"),
        line: all(node, "line"),
        history: history.collect(),
        cold_start: match node.str("cold_start") {
            None | Some("skip") => Some(NEVER),
            Some("all") => None,
            Some(text) => Some(parse_duration(text).expect("a duration")),
        },
    })
}

fn is_about(ex: &Ex, alias: &str) -> bool {
    let mut found = Vec::new();
    ex.qualifiers(&mut found);
    found.iter().any(|name| name == alias)
}

/// What one line of a graph shipped: its deployments in order, each with its set.
struct Line<'a> {
    deployments: Vec<(&'a Made, BTreeSet<String>)>,
}

/// The lines of each graph.
pub struct Shipped<'a> {
    lines: BTreeMap<Vec<Val>, Vec<Line<'a>>>,
}

/// What ships a row.
pub struct Found<'a> {
    /// Near enough in time, one per line.
    pub partners: Vec<&'a Made>,
    /// Lines whose first deployment shipped it, which does not count.
    pub cold: u64,
}

/// What was shipped, of the rows of every alias.
pub fn shipped<'a>(
    join: &Join,
    ships: &Ships,
    partners: &'a [Made],
    rows_of: impl Fn(&str) -> Vec<Made>,
) -> Shipped<'a> {
    let mut parents: BTreeMap<(Vec<Val>, String), BTreeSet<String>> = BTreeMap::new();
    for history in &ships.history {
        for row in rows_of(&history.of) {
            let Some(graph) = values(&row, history.graph.iter()) else { continue };
            for (commit, parent) in edges(history, &row) {
                parents.entry((graph.clone(), commit)).or_default().insert(parent);
            }
        }
    }
    let mut lines: BTreeMap<(Vec<Val>, Vec<Val>), Vec<&Made>> = BTreeMap::new();
    for partner in partners {
        let Some(graph) = values(partner, join.pairs.iter().map(|(_, ex)| ex)) else { continue };
        if text(&value(partner, &ships.head)).is_none() {
            continue;
        }
        let line = ships.line.iter().map(|ex| value(partner, ex)).collect();
        lines.entry((graph, line)).or_default().push(partner);
    }
    let mut shipped = Shipped { lines: BTreeMap::new() };
    for ((graph, _), mut deployments) in lines {
        deployments.sort_by_key(|row| (row.time, row.id.clone(), row.origin.clone(), row.cols.clone()));
        let mut line = Line { deployments: Vec::new() };
        let mut before = BTreeSet::new();
        for row in deployments {
            let head = text(&value(row, &ships.head)).expect("checked above");
            let all = ancestors(&graph, head, &parents);
            line.deployments.push((row, all.difference(&before).cloned().collect()));
            before = all;
        }
        shipped.lines.entry(graph).or_default().push(line);
    }
    shipped
}

/// The commit and all that it was made from.
fn ancestors(
    graph: &[Val],
    head: String,
    parents: &BTreeMap<(Vec<Val>, String), BTreeSet<String>>,
) -> BTreeSet<String> {
    let (mut all, mut next) = (BTreeSet::new(), vec![head]);
    while let Some(commit) = next.pop() {
        if all.insert(commit.clone()) {
            next.extend(parents.get(&(graph.to_vec(), commit)).into_iter().flatten().cloned());
        }
    }
    all
}

fn edges(history: &History, row: &Made) -> Vec<(String, String)> {
    let list = |ex: &Ex| match value(row, ex) {
        Val::List(items) => items.iter().filter_map(text).collect(),
        _ => Vec::new(),
    };
    let mut found = Vec::new();
    if let Some((sha, parents)) = &history.parents
        && let Some(sha) = text(&value(row, sha))
    {
        found.extend(list(parents).into_iter().map(|parent| (sha.clone(), parent)));
    }
    if let Some((before, commits)) = &history.chain {
        let mut last = before.as_ref().and_then(|ex| text(&value(row, ex)));
        for commit in list(commits) {
            found.extend(last.map(|last| (commit.clone(), last)));
            last = Some(commit);
        }
    }
    found
}

impl<'a> Shipped<'a> {
    /// Whether the row says a commit and its graph.
    pub fn asks(join: &Join, ships: &Ships, row: &Made) -> bool {
        values(row, join.pairs.iter().map(|(ex, _)| ex)).is_some()
            && ships.commits.iter().any(|ex| text(&value(row, ex)).is_some())
    }

    /// The deployments that shipped the row's commit; `from` is the time of its `from` part.
    pub fn of(&self, join: &Join, ships: &Ships, row: &Made, from: i64) -> Found<'a> {
        let mut found = Found { partners: Vec::new(), cold: 0 };
        let graph = values(row, join.pairs.iter().map(|(ex, _)| ex));
        let lines = graph.and_then(|graph| self.lines.get(&graph));
        for line in lines.into_iter().flatten() {
            let first = |ex: &Ex| {
                let commit = text(&value(row, ex))?;
                line.deployments.iter().position(|(_, set)| set.contains(&commit))
            };
            let Some(at) = ships.commits.iter().find_map(first) else { continue };
            let (deployment, _) = &line.deployments[at];
            // The first deployment and others alike in everything are one.
            let begins = (deployment.time, &deployment.id, &deployment.cols)
                == (line.deployments[0].0.time, &line.deployments[0].0.id, &line.deployments[0].0.cols);
            if begins && ships.cold_start.is_some_and(|most| deployment.time - from > most) {
                found.cold += 1;
            } else if (deployment.time - from).abs() <= join.within {
                found.partners.push(deployment);
            }
        }
        found
    }
}

fn value(row: &Made, ex: &Ex) -> Val {
    row.env().eval(ex).expect("an expression of a join has a value")
}

/// None: one is null, which matches nothing.
fn values<'e>(row: &Made, exs: impl Iterator<Item = &'e Ex>) -> Option<Vec<Val>> {
    let values: Vec<Val> = exs.map(|ex| value(row, ex)).collect();
    (!values.iter().any(Val::is_null)).then_some(values)
}

fn text(value: &Val) -> Option<String> {
    match value {
        Val::Text(text) => Some(text.clone()),
        _ => None,
    }
}
