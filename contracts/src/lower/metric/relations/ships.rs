//! `ships:` of a join: the partner is the first deployment that contains the row's commit.
//!
//! *In*: a step of `join` and the rows so far. *Out*: [`Ships`]. *Never*: a hash that is not text; parents whose
//! graph is guessed.

use arrow::datatypes::DataType;

use crate::catalog::{ColdStart, History, HistoryKind, Ships};
use crate::duration::{DURATION_HELP, parse_duration};
use crate::expr::{self, Side};
use crate::lower::{Cx, one_or_many};
use crate::value::{ValueType, type_name};
use crate::yaml::Node;

use super::super::inputs::type_at;
use super::draft::{Draft, text};
use super::{Builder, Growing, list};

/// One equality of `match`: the row's side, the type of both.
struct Equal {
    row: Side,
    own: Side,
    ty: ValueType,
}

impl<'a> Builder<'a> {
    /// `ships` of a join step; `Some(None)`: it has none.
    pub(super) fn ships(
        &self,
        cx: &mut Cx<'_>,
        item: &'a Node,
        added: &mut Draft<'a>,
        growing: &mut Growing<'a>,
    ) -> Option<Option<Ships>> {
        let Some(ships) = item.get("ships") else { return Some(None) };
        let errors = cx.out.len();
        for key in ["pick", "order", "strict"] {
            if let Some(place) = item.entry(key) {
                let message = format!("`{key}` beside `ships` selects nothing");
                let diagnostic = cx
                    .at("option_not_used", place.key_span, message)
                    .fix("remove it: the first deployment of a line that contains the commit is taken");
                cx.push(diagnostic);
            }
        }
        let mut commits = Vec::new();
        for place in one_or_many(ships.get("commit")?) {
            let side = Side { sql: place.scalar()?.to_string(), mentions: cx.mentions(place)? };
            let part = self.part_of(cx, place, &side, growing)?;
            commits.push((part, hash(cx, &mut growing.parts[part], place, "commit")?));
        }
        if commits.is_empty() {
            let message = "`commit` names no commit of the row";
            let diagnostic = cx.at("empty_contract", ships.get("commit")?.span, message);
            cx.push(diagnostic.fix("name a column, as in `commit: commit.sha`"));
        }
        let place = ships.get("head")?;
        about(cx, place, "head", &added.name)?;
        let head = hash(cx, added, place, "head")?;
        let mut line = Vec::new();
        for place in ships.get("line").map(one_or_many).unwrap_or_default() {
            about(cx, place, "line", &added.name)?;
            line.push(added.cell(cx, place)?.0);
        }
        let equals = self.equals(cx, item, added)?;
        let mut history = Vec::new();
        for item in ships.get("history")?.items() {
            history.push(self.history(cx, item, &equals)?);
        }
        if history.is_empty() {
            let message = "nothing says which commit contains which";
            let diagnostic = cx
                .at("empty_contract", ships.get("history")?.span, message)
                .allowed("at least one alias with `sha` and `parents`, or with `commits`")
                .fix("history: [{ of: commit, sha: commit.sha, parents: commit.parents }]");
            cx.push(diagnostic);
        }
        let cold_start = cold_start(cx, ships)?;
        (cx.out.len() == errors).then_some(Some(Ships { commits, head, line, history, cold_start }))
    }

    /// The equalities of `match`, which are sound.
    fn equals(&self, cx: &mut Cx<'_>, item: &Node, added: &Draft<'a>) -> Option<Vec<Equal>> {
        let place = item.get("match")?;
        let mut equals = Vec::new();
        for (a, b) in expr::equalities(place.scalar()?).ok()? {
            let is_own = |side: &Side| side.mentions.iter().all(|path| path[0] == added.name);
            let (row, own) = if is_own(&a) { (b, a) } else { (a, b) };
            let (_, ty) = added.inputs.value(cx, &text(place, &own.sql), &added.sources)?;
            equals.push(Equal { row, own, ty });
        }
        Some(equals)
    }

    fn history(&self, cx: &mut Cx<'_>, item: &'a Node, equals: &[Equal]) -> Option<History> {
        let alias = self.alias_at(cx, item, "of")?;
        let mut draft = Draft {
            name: alias.to_string(),
            inputs: self.plain,
            sources: self.plain.of(alias),
            fields: Vec::new(),
            cells: Vec::new(),
            lists: Vec::new(),
        };
        let graph = graph(cx, item, alias, equals, &mut draft)?;
        let given = |key: &str| item.get(key).is_some();
        let kind = match (given("sha") && given("parents"), given("commits")) {
            (true, false) if !given("before") => {
                let place = item.get("sha")?;
                about(cx, place, "sha", alias)?;
                let sha = hash(cx, &mut draft, place, "sha")?;
                let parents = hashes(cx, &mut draft, item.get("parents")?, "parents")?;
                HistoryKind::Parents { sha, parents: draft.cells.len() + parents }
            }
            (false, true) if !given("sha") && !given("parents") => {
                let before = match item.get("before") {
                    Some(place) => {
                        about(cx, place, "before", alias)?;
                        Some(hash(cx, &mut draft, place, "before")?)
                    }
                    None => None,
                };
                let commits = hashes(cx, &mut draft, item.get("commits")?, "commits")?;
                HistoryKind::Chain { before, commits: draft.cells.len() + commits }
            }
            _ => {
                let diagnostic = cx
                    .at(
                        "exactly_one",
                        item.span,
                        "a row of history tells the parents of a commit, or a chain of commits",
                    )
                    .allowed("`sha` with `parents`, or `commits` with or without `before`")
                    .fix(format!("{{ of: {alias}, sha: {alias}.sha, parents: {alias}.parents }}"));
                cx.push(diagnostic);
                return None;
            }
        };
        Some(History { part: self.part(cx, draft)?, graph, kind })
    }
}

/// What names the graph of a row of history: `graph`, or the row's side of `match` where it is about this alias.
fn graph(
    cx: &mut Cx<'_>,
    item: &Node,
    alias: &str,
    equals: &[Equal],
    draft: &mut Draft<'_>,
) -> Option<Vec<usize>> {
    let of_alias = |side: &Side| {
        let mut heads = side.mentions.iter().filter(|path| path.len() > 1).map(|path| path[0].as_str());
        !side.mentions.is_empty() && heads.all(|head| head == alias)
    };
    let places: Vec<Node> = match item.get("graph") {
        Some(place) => one_or_many(place).into_iter().cloned().collect(),
        None => {
            let side =
                |equal: &Equal| [&equal.row, &equal.own].into_iter().find(|side| of_alias(side)).cloned();
            let sides: Option<Vec<Side>> = equals.iter().map(side).collect();
            sides.unwrap_or_default().iter().map(|side| text(item, &side.sql)).collect()
        }
    };
    if places.len() != equals.len() {
        let sides: Vec<&str> = equals.iter().map(|equal| equal.own.sql.as_str()).collect();
        let message = format!("nothing says to which graph a row of `{alias}` belongs");
        let place = item.get("graph").unwrap_or(item);
        let diagnostic = cx
            .at("join_sides", place.span, message)
            .allowed(format!("one expression over `{alias}` for each of: {}", list(sides.into_iter())))
            .fix(format!("add `graph: {alias}.column`, equal to what `match` compares"));
        cx.push(diagnostic);
        return None;
    }
    let mut cells = Vec::new();
    for (place, equal) in places.iter().zip(equals) {
        about(cx, place, "graph", alias)?;
        let (cell, ty) = draft.cell(cx, place)?;
        if ty != equal.ty {
            let message = format!("`graph` is {ty}, `{}` is {}", equal.own.sql, equal.ty);
            let diagnostic = cx.at("type_conflict", place.span, message).found(place.shown());
            cx.push(diagnostic.fix("CAST it to the other's type"));
            return None;
        }
        cells.push(cell);
    }
    Some(cells)
}

/// An expression under `key` must be about one alias.
fn about(cx: &mut Cx<'_>, place: &Node, key: &str, alias: &str) -> Option<()> {
    let paths = cx.mentions(place)?;
    let own = |path: &Vec<String>| path.len() > 1 && path[0] == alias;
    if !paths.is_empty() && paths.iter().all(own) {
        return Some(());
    }
    let message = format!("`{key}` must be about `{alias}`");
    let diagnostic = cx.at("join_sides", place.span, message).found(place.shown());
    cx.push(diagnostic.fix(format!("use columns of `{alias}`, written `{alias}.column`")));
    None
}

/// A cell that is a hash.
fn hash(cx: &mut Cx<'_>, draft: &mut Draft<'_>, place: &Node, key: &str) -> Option<usize> {
    let (cell, ty) = draft.cell(cx, place)?;
    if ty == ValueType::Text {
        return Some(cell);
    }
    let message = format!("`{key}` must be the hash of a commit, a string, but this is {ty}");
    let diagnostic = cx.at("wrong_type", place.span, message).found(place.shown()).allowed("string");
    cx.push(diagnostic);
    None
}

/// A column that is a list of hashes; its number among the lists of the part.
fn hashes(cx: &mut Cx<'_>, draft: &mut Draft<'_>, place: &Node, key: &str) -> Option<usize> {
    let paths = cx.mentions(place)?;
    let sql = place.scalar()?;
    let plain = match paths.as_slice() {
        [path] if path.join(".") == sql.replace(['"', ' '], "") => path.as_slice(),
        _ => &[],
    };
    let path = match plain {
        [head, path @ ..] if !path.is_empty() && (*head == draft.name || head == "row") => path,
        path => path,
    };
    let is_list = |ty: &DataType| matches!(ty, DataType::List(item) if *item.data_type() == DataType::Utf8);
    let mut found: Vec<Option<Vec<String>>> = vec![None; draft.inputs.sources.len()];
    let mut wrong = None;
    for &source in &draft.sources {
        let source_of = &draft.inputs.sources[source];
        let Some((first, rest)) = path.split_first() else { break };
        let renamed = source_of.renames.get(first).cloned().unwrap_or_else(|| vec![first.clone()]);
        let column: Vec<String> = renamed.into_iter().chain(rest.iter().cloned()).collect();
        match type_at(&source_of.schema, &column) {
            Some(ty) if is_list(&ty) => found[source] = Some(column),
            Some(ty) => wrong = Some(ty),
            None => {}
        }
    }
    if wrong.is_none() && found.iter().any(Option::is_some) {
        draft.lists.push(found);
        return Some(draft.lists.len() - 1);
    }
    let known = draft.inputs.columns_of(&draft.name);
    let lists: Vec<String> = known
        .iter()
        .filter(|(_, ty)| is_list(ty))
        .map(|(name, _)| format!("{}.{name}", draft.name))
        .collect();
    let message = match &wrong {
        Some(ty) => {
            format!("`{key}` must be a column that is a list of strings, but this is {}", type_name(ty))
        }
        None => format!("`{key}` must be a column of `{}` that is a list of strings", draft.name),
    };
    let mut diagnostic = cx.at("wrong_type", place.span, message).found(place.shown());
    if !lists.is_empty() {
        diagnostic = diagnostic.names(sql, lists.iter().map(String::as_str));
    }
    cx.push(diagnostic);
    None
}

fn cold_start(cx: &mut Cx<'_>, ships: &Node) -> Option<ColdStart> {
    let Some(place) = ships.get("cold_start") else { return Some(ColdStart::Skip) };
    match place.scalar()? {
        "skip" => Some(ColdStart::Skip),
        "all" => Some(ColdStart::All),
        word => match parse_duration(word) {
            Some(most) => Some(ColdStart::Within(most)),
            None => {
                let message = format!("`{word}` is not a value of `cold_start`");
                let diagnostic = cx
                    .at("not_allowed", place.span, message)
                    .found(word)
                    .allowed(format!("skip, all, or a duration ({DURATION_HELP})"));
                cx.push(diagnostic);
                None
            }
        },
    }
}
