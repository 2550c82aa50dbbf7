//! The rows of a metric: of its aliases, joined, looked up.
//!
//! *In*: everything admitted, a metric, an instant. *Out*: [`Made`]: rows, and how many were lost on the
//! way. *Never*: an index, a hash, or anything kept from the question before: every row meets every other.

use std::collections::{BTreeMap, BTreeSet};

use super::Oracle;
use super::admit::{Admitted, ChangeOp};
use super::contract::{Alias, Event, Metric};
use super::eval::Env;
use super::relation::{Join, Lookup, Missing, Order, Pick, Table};
use super::ships::{Shipped, Ships, shipped};
use super::sql::Ex;
use super::val::Val;
use super::zone::DAY;

/// A row of a metric.
#[derive(Debug, Clone)]
pub struct Made {
    /// The alias it is of; none for a joined row.
    pub alias: Option<String>,
    /// Event time.
    pub time: i64,
    /// Tie-break.
    pub id: Option<String>,
    /// Its event type, and where it stands unless its id is the key of a change stream: tells partners alike in time
    /// and id apart.
    pub origin: (String, Option<(usize, i64, u32)>),
    /// Within `retain.live` when it arrived; older rows count in `all` windows only.
    pub recent: bool,
    /// What is read without a qualifier.
    pub cols: BTreeMap<String, Val>,
    /// What stands before a dot: aliases, `row`, tables. Null: not in this row.
    pub parts: BTreeMap<String, Val>,
    /// Which of the aliases and tables the row has.
    pub present: BTreeSet<String>,
}

impl Made {
    /// What expressions see of it.
    pub fn env(&self) -> Env<'_> {
        Env { cols: &self.cols, parts: &self.parts }
    }
}

/// Rows and losses.
#[derive(Debug, Default)]
pub struct Rows {
    /// All that the metric counts in some window.
    pub rows: Vec<Made>,
    /// `waiting`, `unmatched`, `missing`, `held`, `failed`: how many rows.
    pub lost: BTreeMap<String, u64>,
}

/// The rows of a metric over events, of everything admitted with a time before `now`.
pub fn rows(oracle: &Oracle, metric: &Metric, now: i64) -> Rows {
    let mut made = Rows::default();
    if let Some(sequence) = &metric.sequence {
        let folded = metric.aliases.iter().filter(|alias| metric.folds(&alias.name));
        let rows = folded.flat_map(|alias| of_alias(oracle, metric, alias, now)).collect();
        made.rows = looked_up(oracle, metric, now, rows, &mut made.lost);
        let followed = metric.aliases.iter().find(|alias| alias.name == sequence.of).expect("an alias");
        let rows = of_alias(oracle, metric, followed, now);
        let rows = looked_up(oracle, metric, now, rows, &mut made.lost);
        made.rows.extend(super::sequence::spans(sequence, rows, metric.retain, &mut made.lost));
        return made;
    }
    if metric.joins.is_empty() {
        made.rows = metric.aliases.iter().flat_map(|alias| of_alias(oracle, metric, alias, now)).collect();
    } else {
        let folded = metric.aliases.iter().filter(|alias| metric.folds(&alias.name));
        made.rows = folded.flat_map(|alias| of_alias(oracle, metric, alias, now)).collect();
        let joined = joined(oracle, metric, now, &mut made);
        made.rows.extend(joined);
    }
    let rows = std::mem::take(&mut made.rows);
    made.rows = looked_up(oracle, metric, now, rows, &mut made.lost);
    made
}

/// The rows with those of tables beside them.
fn looked_up(
    oracle: &Oracle,
    metric: &Metric,
    now: i64,
    mut rows: Vec<Made>,
    lost: &mut BTreeMap<String, u64>,
) -> Vec<Made> {
    for lookup in &metric.lookups {
        let table = oracle.contracts.tables.iter().find(|table| table.name == lookup.table);
        let table = table.expect("a table of the contracts");
        let today = versions(oracle, table, now, None);
        for row in std::mem::take(&mut rows) {
            // A version of a change stream holds until the next one.
            let then = (lookup.as_of_event && is_stream(oracle, table) && table.valid_from.is_none())
                .then(|| versions(oracle, table, now, Some(row.time)));
            rows.extend(look_up(lookup, then.as_ref().unwrap_or(&today), row, lost));
        }
    }
    rows
}

/// The rows of one alias.
fn of_alias(oracle: &Oracle, metric: &Metric, alias: &Alias, now: i64) -> Vec<Made> {
    let mut rows = Vec::new();
    for name in &alias.types {
        let event = oracle.contracts.event(name).expect("an event of the contracts");
        for at in current(oracle, event, now) {
            let row = &oracle.admitted[at];
            // What only other types of the metric have is null.
            let mut cols = columns(oracle, metric);
            cols.extend(row.cols.clone());
            for (new, path) in &alias.renames {
                cols.insert(new.clone(), at_path(event, &row.cols, path));
            }
            let mut parts = nothing(metric);
            let own = Val::Obj(cols.clone().into_iter().collect());
            parts.insert("row".to_string(), own.clone());
            parts.insert(alias.name.clone(), own);
            let recent = row.time >= oracle.clocks[at] - metric.retain;
            let made = Made {
                alias: Some(alias.name.clone()),
                time: row.time,
                id: row.id.clone(),
                origin: (name.clone(), row.change.is_none().then_some(row.place)),
                recent,
                cols,
                parts,
                present: BTreeSet::from([alias.name.clone()]),
            };
            if made.env().holds(alias.filter.as_ref()).expect("a condition of an alias has a value") {
                rows.push(made);
            }
        }
    }
    rows
}

/// The columns of every event type of the metric, null.
fn columns(oracle: &Oracle, metric: &Metric) -> BTreeMap<String, Val> {
    let types = metric.aliases.iter().flat_map(|alias| &alias.types);
    let events = types.filter_map(|name| oracle.contracts.event(name));
    let names = events.flat_map(|event| {
        event
            .fields
            .iter()
            .map(|field| field.name.clone())
            .chain(event.enrich.iter().map(|(name, _)| name.clone()))
    });
    let renames = metric.aliases.iter().flat_map(|alias| alias.renames.iter().map(|(new, _)| new.clone()));
    names.chain(renames).map(|name| (name, Val::Null)).collect()
}

/// Every alias as null. Tables come when they are looked up.
fn nothing(metric: &Metric) -> BTreeMap<String, Val> {
    let kinds = super::sequence::KINDS.iter().filter(|_| metric.sequence.is_some());
    let names = metric.aliases.iter().map(|alias| alias.name.clone()).chain(kinds.map(|k| k.to_string()));
    names.map(|name| (name, Val::Null)).collect()
}

/// What a rename means: a field by its place in the payload, a column, or a path into a column.
fn at_path(event: &Event, cols: &BTreeMap<String, Val>, path: &str) -> Val {
    let parts: Vec<String> = path.split('.').map(str::to_string).collect();
    if let Some(field) = event.fields.iter().find(|field| field.path == parts) {
        return cols[&field.name].clone();
    }
    if !cols.contains_key(&parts[0]) {
        return Val::Null;
    }
    Env::plain(cols).eval(&Ex::Col(parts)).expect("a path has a value")
}

/// The admitted rows of an event type that count at `now`; of a changelog, the newest version of each key
/// that was not taken away.
pub(super) fn current(oracle: &Oracle, event: &Event, now: i64) -> Vec<usize> {
    let known: Vec<usize> = (0..oracle.admitted.len())
        .filter(|&at| oracle.admitted[at].event == event.name && oracle.admitted[at].time < now)
        .collect();
    newest(oracle, event, known)
}

/// Of these rows those that are not replaced or taken away by another one of them.
fn newest(oracle: &Oracle, event: &Event, known: Vec<usize>) -> Vec<usize> {
    if !event.changelog {
        return known;
    }
    let op = |at: usize| oracle.admitted[at].change.expect("a changelog has changes").op;
    let mut newest: BTreeMap<(usize, Vec<&Val>), usize> = BTreeMap::new();
    for &at in known.iter().filter(|&&at| op(at) != ChangeOp::Truncate) {
        let row = &oracle.admitted[at];
        let key = event.key.iter().map(|key| &row.cols[key]).collect();
        let slot = newest.entry((row.place.0, key)).or_insert(at);
        if oracle.admitted[*slot].place < row.place {
            *slot = at;
        }
    }
    let truncates: Vec<&Admitted> =
        known.iter().filter(|&&at| op(at) == ChangeOp::Truncate).map(|&at| &oracle.admitted[at]).collect();
    let stays = |at: usize| {
        let row = &oracle.admitted[at];
        op(at) == ChangeOp::Upsert && !truncates.iter().any(|truncate| takes_away(truncate, row))
    };
    newest.into_values().filter(|&at| stays(at)).collect()
}

/// Within a partition the order of records decides, between partitions the time of commit.
fn takes_away(truncate: &Admitted, row: &Admitted) -> bool {
    let committed = |row: &Admitted| row.change.expect("a changelog has changes").at;
    if truncate.place.0 == row.place.0 {
        truncate.place > row.place
    } else {
        committed(truncate) >= committed(row)
    }
}

/// A joined row as it grows: the rows in it by alias.
#[derive(Debug, Clone)]
struct Chain {
    rows: Vec<Made>,
}

impl Chain {
    fn of(&self, alias: &str) -> &Made {
        let found = self.rows.iter().find(|row| row.alias.as_deref() == Some(alias));
        found.unwrap_or_else(|| panic!("`from` names {alias}, which is not there yet"))
    }

    /// The row that expressions see.
    fn made(&self, metric: &Metric) -> Made {
        let mut parts = nothing(metric);
        let mut cols = BTreeMap::new();
        let mut shared: Vec<String> = Vec::new();
        for row in &self.rows {
            let alias = row.alias.clone().expect("rows of aliases have one");
            parts.insert(alias.clone(), row.parts[&alias].clone());
            for (name, value) in &row.cols {
                if cols.insert(name.clone(), value.clone()).is_some() {
                    shared.push(name.clone());
                }
            }
        }
        // A bare name means the column of the one alias that has it.
        shared.iter().for_each(|name| {
            cols.remove(name);
        });
        Made {
            alias: None,
            time: self.rows.iter().map(|row| row.time).max().expect("a row has parts"),
            id: self.rows.last().expect("a row has parts").id.clone(),
            origin: (String::new(), None),
            recent: self.rows.iter().all(|row| row.recent),
            cols,
            parts,
            present: self.rows.iter().filter_map(|row| row.alias.clone()).collect(),
        }
    }
}

fn joined(oracle: &Oracle, metric: &Metric, now: i64, made: &mut Rows) -> Vec<Made> {
    let rows_of = |name: &str| {
        let alias = metric.aliases.iter().find(|alias| alias.name == name).expect("an alias");
        of_alias(oracle, metric, alias, now)
    };
    let start = rows_of(&metric.joins[0].from);
    let mut chains: Vec<Chain> = start.into_iter().map(|row| Chain { rows: vec![row] }).collect();
    for join in &metric.joins {
        let partners = rows_of(&join.to);
        if let Some(ships) = &join.ships {
            let shipped = shipped(join, ships, &partners, rows_of);
            let ship = |chain| ship(metric, join, ships, &shipped, chain, now, &mut made.lost);
            chains = chains.into_iter().flat_map(ship).collect();
            continue;
        }
        let mut longer = Vec::new();
        for chain in chains {
            let found = partners_of(metric, join, &chain, &partners);
            if found.is_empty() {
                let waits = is_waiting(join, &chain, now) && has_sides(metric, join, &chain);
                let reason = if waits { "waiting" } else { "unmatched" };
                *made.lost.entry(reason.to_string()).or_default() += 1;
            }
            for partner in picked(join, found) {
                let mut rows = chain.rows.clone();
                rows.push(partner.clone());
                longer.push(Chain { rows });
            }
        }
        chains = longer;
    }
    chains.iter().map(|chain| chain.made(metric)).collect()
}

/// The row with each deployment that shipped its commit.
fn ship(
    metric: &Metric,
    join: &Join,
    ships: &Ships,
    shipped: &Shipped<'_>,
    chain: Chain,
    now: i64,
    lost: &mut BTreeMap<String, u64>,
) -> Vec<Chain> {
    let row = chain.made(metric);
    let from = chain.of(&join.from).time;
    let found = shipped.of(join, ships, &row, from);
    if found.cold > 0 {
        *lost.entry("cold_start".to_string()).or_default() += found.cold;
    } else if found.partners.is_empty() {
        let waits = Shipped::asks(join, ships, &row) && now <= from + join.within;
        let reason = if waits { "waiting" } else { "unmatched" };
        *lost.entry(reason.to_string()).or_default() += 1;
    }
    let longer = |partner: &Made| {
        let mut rows = chain.rows.clone();
        rows.push(partner.clone());
        Chain { rows }
    };
    found.partners.into_iter().map(longer).collect()
}

/// May a partner still come in time?
fn is_waiting(join: &Join, chain: &Chain, now: i64) -> bool {
    let last = chain.of(&join.from).time + if join.order == Order::Before { 0 } else { join.within };
    now <= last
}

/// Null never matches, so nothing is worth waiting for.
fn has_sides(metric: &Metric, join: &Join, chain: &Chain) -> bool {
    let row = chain.made(metric);
    join.pairs.iter().all(|(ex, _)| !value(&row, ex).is_null())
}

/// The rows that match in time, the least (time, id, event type, place) first.
fn partners_of<'a>(metric: &Metric, join: &Join, chain: &Chain, partners: &'a [Made]) -> Vec<&'a Made> {
    let row = chain.made(metric);
    let left: Vec<Val> = join.pairs.iter().map(|(ex, _)| value(&row, ex)).collect();
    let from = chain.of(&join.from).time;
    let fits = |partner: &&Made| {
        let right = join.pairs.iter().map(|(_, ex)| value(partner, ex));
        is_near(join, from, partner.time) && left.iter().zip(right).all(|(a, b)| same(a, &b))
    };
    let mut found: Vec<&Made> = partners.iter().filter(fits).collect();
    found.sort_by_key(|row| (row.time, row.id.clone(), row.origin.clone()));
    found
}

fn picked<'a>(join: &Join, found: Vec<&'a Made>) -> Vec<&'a Made> {
    match join.pick {
        Pick::First => found.into_iter().take(1).collect(),
        Pick::Last => found.into_iter().next_back().into_iter().collect(),
        Pick::Each => found,
    }
}

fn is_near(join: &Join, l: i64, r: i64) -> bool {
    let near = match join.order {
        Order::After => l <= r && r <= l + join.within,
        Order::Before => l - join.within <= r && r <= l,
        Order::Any => (l - r).abs() <= join.within,
    };
    near && !(join.strict && l == r)
}

fn value(row: &Made, ex: &Ex) -> Val {
    row.env().eval(ex).expect("a side of `match` has a value")
}

fn same(a: &Val, b: &Val) -> bool {
    super::eval::binary(super::sql::Op::Eq, a, b) == Ok(Val::Bool(true))
}

/// A row of a table, and when it holds.
struct Version {
    /// Tells versions of one instant apart.
    tie: Val,
    /// None: since ever.
    from: Option<i64>,
    /// None: for ever.
    to: Option<i64>,
    cols: BTreeMap<String, Val>,
}

/// Does the table follow a change stream?
fn is_stream(oracle: &Oracle, table: &Table) -> bool {
    table.event.as_ref().is_some_and(|name| oracle.contracts.event(name).expect("an event").changelog)
}

/// The newest row of each name (key and `valid_from`); of a change stream its rows, at an instant or now.
fn versions(oracle: &Oracle, table: &Table, now: i64, then: Option<i64>) -> Vec<Version> {
    let Some(event) = &table.event else { return Vec::new() };
    let event = oracle.contracts.event(event).expect("the event that feeds a table");
    let rows = match then {
        None => current(oracle, event, now),
        Some(then) => {
            let known = (0..oracle.admitted.len()).filter(|&at| {
                let row = &oracle.admitted[at];
                row.event == event.name && row.time < now && row.time <= then
            });
            newest(oracle, event, known.collect())
        }
    };
    let mut named: BTreeMap<(Val, Option<i64>), &Admitted> = BTreeMap::new();
    for at in rows {
        let row = &oracle.admitted[at];
        let key = if event.changelog {
            Val::Text(row.id.clone().expect("a row of a change stream has a key"))
        } else {
            row.cols[&table.key].clone()
        };
        let from = valid_from(table, row);
        // What nobody can name is no row of the table.
        if key.is_null() || from.is_none() {
            continue;
        }
        let slot = named.entry((key, from)).or_insert(row);
        if is_newer(row, slot) {
            *slot = row;
        }
    }
    let version = |((tie, from), row): ((Val, Option<i64>), &Admitted)| {
        let cols = table.fields.iter().map(|name| (name.clone(), row.cols[name].clone()));
        let to = table.valid_to.as_ref().and_then(|name| moment(&row.cols[name]));
        Version { tie, from, to, cols: cols.collect() }
    };
    named.into_iter().map(version).collect()
}

/// Later in its partition; between partitions, later in event time, then by id.
fn is_newer(a: &Admitted, b: &Admitted) -> bool {
    if a.place.0 == b.place.0 { a.place > b.place } else { (a.time, &a.id) > (b.time, &b.id) }
}

fn valid_from(table: &Table, row: &Admitted) -> Option<i64> {
    match &table.valid_from {
        Some(name) => moment(&row.cols[name]),
        None => Some(row.time),
    }
}

/// A date means its midnight in UTC.
fn moment(value: &Val) -> Option<i64> {
    match value {
        Val::Ts(at) => Some(*at),
        Val::Date(day) => Some(i64::from(*day) * DAY),
        _ => None,
    }
}

/// The row with the table's columns beside it; none when it is left out.
fn look_up(
    lookup: &Lookup,
    versions: &[Version],
    mut row: Made,
    lost: &mut BTreeMap<String, u64>,
) -> Option<Made> {
    if !applies(lookup, &row) {
        row.parts.insert(lookup.name.clone(), Val::Null);
        return Some(row);
    }
    row.present.insert(lookup.name.clone());
    let left: Vec<Val> = lookup.pairs.iter().map(|(ex, _)| value(&row, ex)).collect();
    let fits = |version: &&Version| {
        let parts = BTreeMap::from([(lookup.name.clone(), object(version))]);
        let env = Env { cols: &version.cols, parts: &parts };
        let right = lookup.pairs.iter().map(|(_, ex)| env.eval(ex).expect("a side of `match` has a value"));
        let holds =
            version.from.is_none_or(|from| from <= row.time) && version.to.is_none_or(|to| row.time < to);
        left.iter().zip(right).all(|(a, b)| same(a, &b)) && (holds || !lookup.as_of_event)
    };
    let found = versions.iter().filter(fits).max_by_key(|version| (version.from, version.tie.clone()));
    let reason = match (found, lookup.missing) {
        (Some(_), _) | (None, Missing::Keep) => {
            row.parts.insert(lookup.name.clone(), found.map_or(Val::Null, object));
            return Some(row);
        }
        (None, Missing::Drop) => "missing",
        (None, Missing::Hold) => "held",
        (None, Missing::Fail) => "failed",
    };
    *lost.entry(reason.to_string()).or_default() += 1;
    None
}

/// A lookup is about the rows that have the alias (or the table) that its `match` names.
fn applies(lookup: &Lookup, row: &Made) -> bool {
    let mut named = Vec::new();
    lookup.pairs.iter().for_each(|(ex, _)| ex.qualifiers(&mut named));
    named.iter().all(|name| name == "row" || row.present.contains(name))
}

fn object(version: &Version) -> Val {
    Val::Obj(version.cols.clone().into_iter().collect())
}
