//! Rows that must remember other rows: `join`, `enrich` with tables, change streams.
//!
//! *In*: the document and its plain inputs. *Out*: [`Relation`]s, and the inputs that measures are compiled over.
//! *Never*: a cell that no expression reads; a row's side of an equality that could mean two aliases.

mod draft;
mod sequence;
mod ships;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema};

use crate::catalog::{Input, Missing, Order, Part, PartFeed, Pick, Relation, Step};
use crate::expr::{self, Side};
use crate::lower::{Cx, World, one_or_many};
use crate::value::timestamp_type;
use crate::yaml::{Entry, Node, Yaml};

use self::draft::{Draft, text};
use super::inputs::{Inputs, PerSource, Source};

/// Prefix of the struct column of a part: no name of a contract begins with it.
const PART: char = '@';

/// What measures and dimensions are compiled over.
pub(super) struct Related {
    pub(super) inputs: Inputs,
    /// `where` of each source of `inputs`.
    pub(super) filters: PerSource,
    pub(super) relations: Vec<Relation>,
}

/// Reads `join`, `enrich` and what of `events` is a change stream.
pub(super) fn read(cx: &mut Cx<'_>, node: &Node, world: &World, plain: &mut Inputs) -> Related {
    let filters = plain.filters(cx, node);
    let tables = tables::read(cx, node, world);
    for name in &tables.aliases {
        plain.names.insert(name.clone(), tables.columns_of(name));
    }
    let mut builder = Builder {
        node,
        world,
        plain,
        filters: &filters,
        tables: &tables,
        mentions: mentions(node),
        relations: Vec::new(),
    };
    let sequenced = node.entry("sequence").map(|sequence| builder.sequence(cx, sequence));
    let joined = match sequenced {
        Some(_) => None,
        None => node.entry("join").map(|join| builder.joined(cx, join)),
    };
    let apart = joined.is_some() || sequenced.is_some();
    let wanted: BTreeSet<&str> = measures_of(node);
    let enriched = !node.get("enrich").map(Node::entries).unwrap_or_default().is_empty();
    let mut out = Inputs { sources: Vec::new(), joined: None, ..plain.clone_names() };
    out.typed &= tables.typed;
    let mut kept: PerSource = Vec::new();
    for alias in &plain.aliases {
        if apart && !wanted.contains(alias.as_str()) {
            continue;
        }
        let sources = plain.of(alias);
        if enriched || sources.iter().any(|source| builder.versioned(*source)) {
            match builder.own(cx, alias) {
                Some(source) => {
                    out.sources.push(source);
                    kept.push(None);
                }
                None => out.typed = false,
            }
        } else {
            for source in sources {
                out.sources.push(plain.sources[source].clone());
                kept.push(filters.get(source).cloned().flatten());
            }
        }
    }
    if let Some(joined) = joined {
        match joined {
            Some(source) => {
                out.joined = Some(out.sources.len());
                out.sources.push(source);
                kept.push(None);
            }
            None => out.typed = false,
        }
    }
    if let Some(sequenced) = sequenced {
        out.sequenced = true;
        match sequenced {
            Some(rows) => {
                out.aliases.extend(rows.names.keys().cloned());
                out.names.extend(rows.names);
                out.sources.extend(rows.sources);
                kept.extend(rows.filters);
            }
            None => out.typed = false,
        }
    }
    Related { relations: builder.relations, inputs: out, filters: kept }
}

/// The aliases that some measure folds by `of`.
fn measures_of(node: &Node) -> BTreeSet<&str> {
    let measures = node.get("measures").map(Node::entries).unwrap_or_default();
    measures.iter().filter_map(|measure| measure.value.get("of")?.scalar()).collect()
}

/// Every path that an expression of the metric mentions; mistakes are reported where they are compiled.
fn mentions(node: &Node) -> BTreeSet<Vec<String>> {
    let mut texts: Vec<&str> = Vec::new();
    let entries = |key: &str| node.get(key).map(Node::entries).unwrap_or_default();
    for dimension in entries("dimensions") {
        texts.push(dimension.value.get("from").and_then(Node::scalar).unwrap_or(&dimension.key));
    }
    for measure in entries("measures") {
        let keys = ["value", "where", "start", "end"];
        texts.extend(keys.iter().filter_map(|key| measure.value.get(key)?.scalar()));
    }
    if let Some(sequence) = node.get("sequence") {
        texts.extend(["key", "state", "start", "end"].iter().filter_map(|key| sequence.get(key)?.scalar()));
    }
    texts.extend(node.get("time").and_then(|time| time.get("column")).and_then(Node::scalar));
    texts.iter().filter_map(|sql| expr::mentions(sql).ok()).flatten().collect()
}

struct Builder<'a> {
    node: &'a Node,
    world: &'a World,
    plain: &'a Inputs,
    filters: &'a PerSource,
    tables: &'a Inputs,
    mentions: BTreeSet<Vec<String>>,
    relations: Vec<Relation>,
}

/// A relation under construction.
struct Growing<'a> {
    flat: bool,
    parts: Vec<Draft<'a>>,
    steps: Vec<Step>,
}

impl Growing<'_> {
    fn position(&self, name: &str) -> Option<usize> {
        self.parts.iter().position(|part| part.name == name)
    }
}

impl<'a> Builder<'a> {
    /// Whether a source is a change stream.
    fn versioned(&self, source: usize) -> bool {
        let source = &self.plain.sources[source];
        let said = self.alias(&source.alias).and_then(|alias| alias.get("changelog"));
        let of_event = match source.input {
            Input::Event(event) => self.world.events[event].item.changelog,
            Input::Entity(_) | Input::Relation(_) => false,
        };
        of_event || said.is_some_and(|said| said.value == Yaml::Bool(true))
    }

    fn alias(&self, name: &str) -> Option<&'a Node> {
        self.node.get("events")?.get(name)
    }

    /// Columns of a part that expressions read; `bare`: unqualified names and `row.` are meant, too.
    fn needed(&self, name: &str, bare: bool) -> BTreeSet<String> {
        let of_part = |path: &Vec<String>| match path.as_slice() {
            [head, column, ..] if head == name || (bare && head == "row") => Some(column.clone()),
            [column] if bare => Some(column.clone()),
            _ => None,
        };
        self.mentions.iter().filter_map(of_part).collect()
    }

    fn draft(&self, cx: &mut Cx<'_>, name: &str, bare: bool) -> Option<Draft<'a>> {
        let inputs =
            if self.plain.aliases.iter().any(|alias| alias == name) { self.plain } else { self.tables };
        let mut draft = Draft {
            name: name.to_string(),
            inputs,
            sources: inputs.of(name),
            fields: Vec::new(),
            cells: Vec::new(),
            lists: Vec::new(),
            history: None,
        };
        let columns = self.needed(name, bare);
        draft.columns(cx, self.node, &columns)?;
        Some(draft)
    }

    /// The rows of one alias, with tables beside them.
    fn own(&mut self, cx: &mut Cx<'_>, alias: &str) -> Option<Source> {
        if !self.plain.typed || !self.tables.typed {
            return None;
        }
        let root = self.draft(cx, alias, true)?;
        let mut growing = Growing { flat: true, parts: vec![root], steps: Vec::new() };
        self.enrich(cx, &mut growing)?;
        self.finish(cx, alias, growing)
    }

    /// The joined rows, with tables beside them.
    fn joined(&mut self, cx: &mut Cx<'_>, join: &'a Entry) -> Option<Source> {
        if !self.plain.typed || !self.tables.typed {
            return None;
        }
        let items = join.value.items();
        if items.is_empty() {
            let diagnostic =
                cx.at("empty_contract", join.key_span, "no join is named").fix("add one, or remove `join`");
            cx.push(diagnostic);
            return None;
        }
        let mut growing = Growing { flat: false, parts: Vec::new(), steps: Vec::new() };
        for (number, item) in items.iter().enumerate() {
            let (from, to) = (self.alias_at(cx, item, "from")?, self.alias_at(cx, item, "to")?);
            if number == 0 {
                growing.parts.push(self.draft(cx, from, false)?);
            }
            self.join(cx, item, from, to, &mut growing)?;
        }
        self.enrich(cx, &mut growing)?;
        self.finish(cx, "", growing)
    }

    /// The alias that `from` or `to` names.
    fn alias_at(&self, cx: &mut Cx<'_>, item: &'a Node, key: &str) -> Option<&'a str> {
        let place = item.get(key)?;
        let name = place.scalar()?;
        if self.plain.aliases.iter().any(|alias| alias == name) {
            return Some(name);
        }
        let message = format!("`{key}` names `{name}`, which is not an alias of this metric");
        let names = self.plain.aliases.iter().map(String::as_str);
        let diagnostic = cx.at("unknown_name", place.span, message).names(name, names);
        cx.push(diagnostic);
        None
    }

    fn join(
        &self,
        cx: &mut Cx<'_>,
        item: &'a Node,
        from: &str,
        to: &str,
        growing: &mut Growing<'a>,
    ) -> Option<()> {
        let Some(from_part) = growing.position(from) else {
            let place = item.get("from")?;
            let message = format!("`{from}` is not among the rows so far");
            let names = growing.parts.iter().map(|part| part.name.as_str());
            let diagnostic = cx.at("join_order", place.span, message).found(from).allowed(list(names));
            cx.push(diagnostic.fix("put the join that adds it before this one"));
            return None;
        };
        if growing.position(to).is_some() {
            let place = item.get("to")?;
            let diagnostic = cx
                .at("join_order", place.span, format!("`{to}` is among the rows already"))
                .fix("declare a second alias of the same event type to join it twice");
            cx.push(diagnostic);
            return None;
        }
        let mut added = self.draft(cx, to, false)?;
        let (left, right) = self.sides(cx, item, &mut added, growing)?;
        let ships = self.ships(cx, item, &mut added, growing)?;
        let within = cx.duration(item, "within")?;
        let word = |key: &str| item.get(key).and_then(Node::scalar);
        growing.steps.push(Step {
            name: format!("{from} to {to}"),
            from: Some(from_part),
            left,
            right,
            pick: match word("pick") {
                Some("last") => Pick::Last,
                Some("each") => Pick::Each,
                _ => Pick::First,
            },
            order: match word("order") {
                Some("before") => Order::Before,
                Some("any") => Order::Any,
                _ => Order::After,
            },
            strict: item.get("strict").is_some_and(|strict| strict.value == Yaml::Bool(true)),
            within: Some(within),
            valid_to: None,
            missing: Missing::Wait,
            ships,
        });
        growing.parts.push(added);
        Some(())
    }

    /// Adds the tables of `enrich` that the relation's rows can be matched with.
    fn enrich(&self, cx: &mut Cx<'_>, growing: &mut Growing<'a>) -> Option<()> {
        for entry in self.node.get("enrich").map(Node::entries).unwrap_or_default() {
            let item = &entry.value;
            if !self.applies(item, &entry.key, growing) {
                continue;
            }
            let Some(table) = item.get("table").and_then(Node::scalar) else { continue };
            let table = self.world.tables.iter().find(|known| known.item.head.name == table)?;
            let mut added = self.draft(cx, &entry.key, false)?;
            let (left, right) = self.sides(cx, item, &mut added, growing)?;
            let valid_to = match &table.item.valid_to {
                Some(name) => Some(added.cell(cx, &text(item, &format!("\"{name}\"")))?.0),
                None => None,
            };
            let word = |key: &str| item.get(key).and_then(Node::scalar);
            let of_event = word("as_of") == Some("event");
            let valid_to = match of_event
                && table.item.valid_from.is_none()
                && table.item.fed_by.is_some_and(|event| self.is_stream(&table.item, event))
            {
                // Each version holds until the next: its end is found by those who keep the versions.
                true => {
                    let open =
                        text(item, "CASE WHEN \"time\" > TIMESTAMP '9999-12-31T23:59:59Z' THEN \"time\" END");
                    added.history = Some(match valid_to {
                        Some(cell) => cell,
                        None => added.cell(cx, &open)?.0,
                    });
                    added.history
                }
                false => valid_to,
            };
            growing.steps.push(Step {
                name: format!("table {}", entry.key),
                from: None,
                left,
                right,
                pick: Pick::Last,
                order: if of_event { Order::Before } else { Order::Any },
                strict: false,
                within: None,
                valid_to: valid_to.filter(|_| of_event),
                missing: match word("missing") {
                    Some("drop") => Missing::Drop,
                    Some("hold") => Missing::Hold,
                    Some("fail") => Missing::Fail,
                    _ => Missing::Keep,
                },
                ships: None,
            });
            growing.parts.push(added);
        }
        Some(())
    }

    /// Whether the row's side of a table's match is about a part of the relation.
    fn applies(&self, item: &Node, name: &str, growing: &Growing<'_>) -> bool {
        let Some(pairs) = item.get("match").and_then(Node::scalar).map(expr::equalities) else { return true };
        let heads = |side: &Side| -> BTreeSet<String> {
            side.mentions.iter().filter(|path| path.len() > 1).map(|path| path[0].clone()).collect()
        };
        let known = |head: &String| self.plain.aliases.contains(head) || self.tables.aliases.contains(head);
        let missing = |head: &String| head != name && known(head) && growing.position(head).is_none();
        let sides = pairs.into_iter().flatten().flat_map(|(a, b)| [a, b]);
        !sides.flat_map(|side| heads(&side)).any(|head| missing(&head))
    }

    /// The equalities of `match`: `(part, cell)` of the row's side, cell of the added part's side.
    #[allow(clippy::type_complexity)]
    fn sides(
        &self,
        cx: &mut Cx<'_>,
        item: &Node,
        added: &mut Draft<'a>,
        growing: &mut Growing<'a>,
    ) -> Option<(Vec<(usize, usize)>, Vec<usize>)> {
        let place = item.get("match")?;
        let sql = place.scalar()?;
        let pairs = match expr::equalities(sql) {
            Ok(pairs) => pairs,
            Err(error) => {
                let diagnostic = cx.expression_error(place, sql, error);
                cx.push(diagnostic);
                return None;
            }
        };
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for (a, b) in pairs {
            let about_added =
                |side: &Side| side.mentions.iter().all(|path| path[0] == added.name && path.len() > 1);
            let (row, own) = match (about_added(&a), about_added(&b)) {
                (false, true) => (a, b),
                (true, false) => (b, a),
                _ => {
                    let message = format!("one side must be about `{}`, the other about the row", added.name);
                    let diagnostic = cx.at("join_sides", place.span, message).found(sql);
                    cx.push(diagnostic.fix(format!("write `alias.column = {}.column`", added.name)));
                    return None;
                }
            };
            let part = self.part_of(cx, place, &row, growing)?;
            let (row_cell, row_type) = growing.parts[part].cell(cx, &text(place, &row.sql))?;
            let (cell, ty) = added.cell(cx, &text(place, &own.sql))?;
            if row_type != ty {
                let message = format!("`{}` is {row_type}, `{}` is {ty}", row.sql, own.sql);
                let diagnostic = cx
                    .at("type_conflict", place.span, message)
                    .found(sql)
                    .fix("CAST one of them to the other's type");
                cx.push(diagnostic);
                return None;
            }
            left.push((part, row_cell));
            right.push(cell);
        }
        Some((left, right))
    }

    /// The one part that the row's side of an equality is about.
    fn part_of(&self, cx: &mut Cx<'_>, place: &Node, side: &Side, growing: &Growing<'_>) -> Option<usize> {
        let part = |path: &Vec<String>| match path.as_slice() {
            [head, _, ..] if head != "row" => growing.position(head),
            _ if growing.flat => Some(0),
            _ => None,
        };
        let parts: BTreeSet<Option<usize>> = side.mentions.iter().map(part).collect();
        if let [Some(part)] = parts.iter().copied().collect::<Vec<_>>()[..] {
            return Some(part);
        }
        let message = format!("`{}` is not about one part of the row", side.sql);
        let names = growing.parts.iter().map(|part| part.name.as_str());
        let diagnostic = cx.at("join_sides", place.span, message).found(&side.sql).allowed(list(names));
        cx.push(diagnostic.fix("use columns of one alias, written `alias.column`"));
        None
    }

    fn finish(&mut self, cx: &mut Cx<'_>, alias: &str, growing: Growing<'a>) -> Option<Source> {
        let struct_of = |part: &Draft<'_>| {
            let ty = DataType::Struct(Fields::from(part.fields.clone()));
            ArrowField::new(format!("{PART}{}", part.name), ty, true)
        };
        let flat = growing.flat;
        let mut columns: Vec<ArrowField> = Vec::new();
        if flat {
            let root = growing.parts[0].fields.iter().filter(|field| field.name() != "time");
            columns.extend(root.cloned());
        }
        columns.extend(growing.parts.iter().skip(usize::from(flat)).map(struct_of));
        columns.push(ArrowField::new("time", timestamp_type(), false));
        let named = growing.parts.iter().skip(usize::from(flat));
        let names = named.map(|part| (part.name.clone(), format!("{PART}{}", part.name))).collect();
        let schema = Arc::new(Schema::new(columns));
        let mut parts = Vec::new();
        for draft in growing.parts {
            parts.push(self.part(cx, draft)?);
        }
        let (schema_of, steps) = (Arc::clone(&schema), growing.steps);
        self.relations.push(Relation { schema: schema_of, flat, parts, steps, sequence: None });
        Some(Source {
            alias: alias.to_string(),
            input: Input::Relation(self.relations.len() - 1),
            schema,
            time: "time".to_string(),
            renames: BTreeMap::new(),
            parts: names,
        })
    }

    fn part(&self, cx: &mut Cx<'_>, draft: Draft<'_>) -> Option<Part> {
        let mut feeds = Vec::new();
        for &source in &draft.sources {
            let Input::Event(event) = draft.inputs.sources[source].input else { continue };
            let cells = draft.cells.iter().map(|cell| cell[source].clone()).collect::<Option<Vec<_>>>()?;
            let column = |cx: &mut Cx<'_>, name: &str| -> Option<crate::expr::Typed> {
                let place = text(self.node, &format!("\"{name}\""));
                draft.inputs.compile(cx, &place, &[source])?.swap_remove(source)
            };
            let of_table = self.tables.aliases.contains(&draft.name);
            let stream = self.table(&draft.name).is_some_and(|table| self.is_stream(table, event));
            let (time, identity) = match of_table {
                true => self.table_names(&draft.name, event),
                false => self.alias_names(cx, &draft.name, source, event)?,
            };
            let filter = match of_table {
                true => None,
                false => self.filters.get(source).cloned().flatten(),
            };
            feeds.push(PartFeed {
                event,
                filter,
                cells,
                lists: draft.lists.iter().map(|list| list[source].clone().unwrap_or_default()).collect(),
                of_table: of_table && !stream,
                time: match time {
                    Some(name) => Some(column(cx, &name)?),
                    None => None,
                },
                identity: identity.iter().map(|name| column(cx, name)).collect::<Option<_>>()?,
            });
        }
        Some(Part { name: draft.name, fields: Fields::from(draft.fields), feeds, history: draft.history })
    }

    /// The table that a name under `enrich` stands for.
    fn table(&self, name: &str) -> Option<&'a crate::catalog::Table> {
        let declared = self.node.get("enrich")?.get(name)?.get("table")?.scalar()?;
        let table = self.world.tables.iter().find(|table| table.item.head.name == declared);
        table.map(|table| &table.item)
    }

    /// Whether the table follows this event type as a change stream.
    fn is_stream(&self, table: &crate::catalog::Table, event: usize) -> bool {
        table.fed_by == Some(event) && self.world.events[event].item.changelog
    }

    /// Columns that are a table row's time and name it.
    fn table_names(&self, name: &str, event: usize) -> (Option<String>, Vec<String>) {
        let Some(table) = self.table(name) else { return (None, Vec::new()) };
        let time = match &table.valid_from {
            Some(from) => Some(from.clone()),
            None => table.fed_by.filter(|fed| *fed == event).map(|_| "time".to_string()),
        };
        if self.is_stream(table, event) {
            return (time, self.world.events[event].item.key.clone());
        }
        let identity = std::iter::once(table.key.clone()).chain(time.clone()).collect();
        (time, identity)
    }

    /// Columns that are a row's time and, for a change stream, name it.
    fn alias_names(
        &self,
        cx: &mut Cx<'_>,
        alias: &str,
        source: usize,
        event: usize,
    ) -> Option<(Option<String>, Vec<String>)> {
        let node = self.alias(alias)?;
        let option = |key: &str| node.get(key).and_then(Node::scalar).map(str::to_string);
        let time = option("time").unwrap_or_else(|| "time".to_string());
        if !self.versioned(source) {
            return Some((Some(time), Vec::new()));
        }
        let own = node.get("key").map(one_or_many).unwrap_or_default();
        let own: Vec<String> = own.iter().filter_map(|part| part.scalar()).map(str::to_string).collect();
        let of_event = || self.world.events[event].item.key.clone();
        match if own.is_empty() { of_event() } else { own } {
            key if !key.is_empty() => Some((Some(time), key)),
            _ => {
                let message = format!("nothing says what names a row of `{alias}`");
                let diagnostic = cx
                    .at("missing_key", node.span, message)
                    .fix("add `key: <field>` to the event contract, or to this alias");
                cx.push(diagnostic);
                None
            }
        }
    }
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
