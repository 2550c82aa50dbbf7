//! From rows to counted rows: one SQL statement per stage.
//!
//! *In*: a question, the table of rows. *Out*: the answer. *Never*: state from the question before.
//!
//! rows → admitted (before the instant) → matched (`where`, retention) → named (dimensions that overflow) → asked (the
//! question's condition) → counted (the window) → groups. A shifted measure goes the same way as of its own instant.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema};
use contracts::Catalog;
use contracts::catalog::{Input, Metric, Overflow, WindowKind};
use contracts::expr::{Scope, compile_bool};
use contracts::value::{Value, ValueType, format_timestamp};
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::Expr;

use crate::aggs;
use crate::ask::{AuditError, Events, Lost, Question, Recomputed, Row};
use crate::groups::{Group, Key, key_columns};
use crate::measure::Measures;
use crate::rows::{Source, dimension_column, of_feed, schema};
use crate::sql::{Sql, literal, quoted};
use crate::{entity, lasting, relate, samples, window};

/// What sums rows beyond a dimension's `max`.
pub(crate) const OTHER: &str = "other";

/// One question at work.
pub(crate) struct Work<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) question: &'a Question,
    pub(crate) metric: &'a Metric,
    pub(crate) events: Events<'a>,
    pub(crate) sql: Sql,
    /// How answers of the past are cut.
    pub(crate) step: i64,
    /// Groups by window and instant, and whether they are split.
    moments: BTreeMap<(usize, i64, bool), Option<Arc<Moment>>>,
    /// The first instant of each group, not split and split.
    firsts: [Option<Arc<BTreeMap<Vec<Value>, i64>>>; 2],
    /// Last statements, for the text.
    pub(crate) last: Vec<String>,
    /// The rows of the window.
    pub(crate) counted: String,
    /// Rows that relations have left out.
    pub(crate) alone: Vec<Lost>,
    /// Of relations: events admitted, and events of them that are rows of a part.
    pub(crate) parts: Option<(u64, u64)>,
    /// Some relation joins.
    pub(crate) joins: bool,
}

/// The groups of an instant.
#[derive(Debug)]
pub(crate) struct Moment {
    pub(crate) as_of: i64,
    pub(crate) span: Option<(i64, i64)>,
    pub(crate) groups: BTreeMap<Vec<Value>, Group>,
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        catalog: &'a Catalog,
        question: &'a Question,
        events: Events<'a>,
    ) -> Result<Self, AuditError> {
        let metric = catalog.metrics[question.metric].as_ref();
        Ok(Self {
            catalog,
            question,
            metric,
            events,
            sql: Sql::new()?,
            step: window::step(metric)?,
            moments: BTreeMap::new(),
            firsts: [None, None],
            last: Vec::new(),
            counted: "counted".to_owned(),
            alone: Vec::new(),
            parts: None,
            joins: false,
        })
    }

    pub(crate) fn answer(mut self) -> Result<Recomputed, AuditError> {
        let (now, wanted) = (self.question.as_of, &self.question.measures);
        let split = !self.question.by.is_empty();
        let first = self.metric.measures.iter().position(|measure| !measure.hidden);
        let moment = self.moment(self.question.window, now, split)?.ok_or_else(|| beyond("the window"))?;
        let mut recomputed = Recomputed { span: moment.span, ..Recomputed::default() };
        let mut keys: Vec<Vec<Value>> = moment.groups.keys().cloned().collect();
        if !split && keys.is_empty() {
            keys.push(Vec::new());
        }
        for key in keys {
            let session = moment.groups.get(&key).and_then(|group| group.session);
            let mut measures = Measures::new(&mut self, &key, split);
            let values = wanted.iter().map(|measure| measures.value(*measure, now));
            let values = values.collect::<Result<_, _>>()?;
            recomputed.rows.push(Row { key, values, session });
        }
        if let Some(first) = first {
            recomputed.value = Measures::new(&mut self, &[], false).value(first, now)?;
        }
        samples::explain(&mut self, &mut recomputed)?;
        recomputed.sql = self.sql.told(&self.last);
        Ok(recomputed)
    }

    /// The groups of a window as of an instant; `None`: it is not kept any more.
    pub(crate) fn moment(
        &mut self,
        window: usize,
        as_of: i64,
        split: bool,
    ) -> Result<Option<Arc<Moment>>, AuditError> {
        if let Some(known) = self.moments.get(&(window, as_of, split)) {
            return Ok(known.clone());
        }
        let made = self.make(window, as_of, split)?.map(Arc::new);
        self.moments.insert((window, as_of, split), made.clone());
        Ok(made)
    }

    /// The first instant of each group, in all that is retained now.
    pub(crate) fn firsts(&mut self, split: bool) -> Result<Arc<BTreeMap<Vec<Value>, i64>>, AuditError> {
        if let Some(known) = &self.firsts[usize::from(split)] {
            return Ok(Arc::clone(known));
        }
        let mut asked = self.asked(self.question.now)?;
        let mut seen = "at";
        if !lasting::folds(self.metric).is_empty() {
            (asked, seen) = (self.name("asked_lasting", self.lasting_at(self.question.now)), "first");
        }
        let keys = self.keys(split, &asked)?;
        let columns = key_columns(&keys);
        let group =
            if columns.is_empty() { String::new() } else { format!(" GROUP BY {}", columns.join(", ")) };
        let selected: String = columns.iter().map(|column| format!("{column}, ")).collect();
        let batch = self.sql.run(&format!("SELECT {selected}MIN({seen}) AS first FROM {asked}{group}"))?;
        let is_there = |row: &usize| {
            batch.column_by_name("first").is_some_and(|column| arrow::array::Array::is_valid(column, *row))
        };
        let rows = (0..batch.num_rows()).filter(is_there);
        let firsts = rows.map(|row| Ok((self.key(&batch, row, &keys)?, aggs::count(&batch, "first", row))));
        let firsts = Arc::new(firsts.collect::<Result<_, AuditError>>()?);
        self.firsts[usize::from(split)] = Some(Arc::clone(&firsts));
        Ok(firsts)
    }

    /// The instant that a measure shifted to `asked` is about.
    pub(crate) fn cut(&self, asked: i64) -> i64 {
        if self.over_entity() || asked == self.question.now {
            return asked;
        }
        asked.div_euclid(self.step) * self.step
    }

    pub(crate) fn over_entity(&self) -> bool {
        self.metric.feeds.iter().any(|feed| matches!(feed.input, Input::Entity(_)))
    }

    pub(crate) fn keeps_everything(&self) -> bool {
        self.metric.windows.iter().any(|window| window.kind == WindowKind::All)
    }

    /// The first instant that live answers still know.
    pub(crate) fn oldest(&self) -> i64 {
        let oldest = self.question.now.saturating_sub(self.metric.retain);
        oldest.div_euclid(self.step).saturating_mul(self.step)
    }

    /// Tables of shifted instants have their number in their names.
    pub(crate) fn name(&self, stage: &str, as_of: i64) -> String {
        match as_of == self.question.as_of {
            true => stage.to_owned(),
            false => format!("{stage}_{}", self.question.as_of.abs_diff(as_of)),
        }
    }

    fn make(&mut self, window: usize, as_of: i64, split: bool) -> Result<Option<Moment>, AuditError> {
        let kind = &self.metric.windows[window].kind;
        let span = window::span(kind, as_of)?;
        let start = span.map_or(as_of, |(start, _)| start);
        let is_past = as_of != self.question.now && !self.over_entity();
        if is_past && *kind != WindowKind::All && start < self.oldest() {
            return Ok(None);
        }
        let asked = self.asked(as_of)?;
        let keys = self.keys(split, &asked)?;
        let own = window == self.question.window;
        let of_window = if own { String::new() } else { format!("_w{window}") };
        let counted = match kind {
            WindowKind::Session { gap } => {
                let name = if split { "counted_by" } else { "counted" };
                self.session(*gap, (as_of, &format!("{name}{of_window}")), &asked, &keys)?
            }
            _ => self.windowed(span, (as_of, &format!("counted{of_window}")), &asked)?,
        };
        if own && as_of == self.question.as_of {
            self.counted.clone_from(&counted);
        }
        let mut groups = self.groups(&counted, &keys, kind)?;
        if !matches!(kind, WindowKind::Session { .. }) {
            let extent = (span.map(|(start, _)| start), span.map_or(as_of, |(_, end)| end.min(as_of)));
            self.outlasting(extent, as_of, split, &mut groups)?;
        }
        Ok(Some(Moment { as_of, span, groups }))
    }

    /// The rows that a question as of an instant is about, made once.
    fn asked(&mut self, as_of: i64) -> Result<String, AuditError> {
        let asked = self.name("asked", as_of);
        if !self.sql.has(&asked) {
            self.until_asked(as_of, &asked)?;
        }
        Ok(asked)
    }

    /// Everything before the window.
    fn until_asked(&mut self, as_of: i64, asked: &str) -> Result<(), AuditError> {
        let rows = self.rows(as_of)?;
        let admitted = self.name("admitted", as_of);
        self.sql.stage(&admitted, format!("SELECT * FROM {rows} WHERE at < {}", instant(as_of)))?;
        let matched = self.name("matched", as_of);
        let mut sql = format!("SELECT * FROM {admitted} WHERE passed AND lost IS NULL");
        if !self.keeps_everything() {
            sql += &format!(" AND at >= {} -- retain", instant(self.oldest()));
        }
        self.sql.stage(&matched, sql)?;
        self.all_retained(&matched)?;
        let lasting = self.lasting(&rows, as_of)?;
        let ranks = lasting.as_deref().map_or((matched.as_str(), "at"), |lasting| (lasting, "ranked"));
        let named = self.named((as_of, "named"), &matched, ranks)?;
        self.ask(&named, asked)?;
        if let Some(lasting) = &lasting {
            let then = self.lasting_at(as_of);
            let asked = self.name("asked_lasting", then);
            if !self.sql.has(&asked) {
                let named = self.named((then, "named_lasting"), lasting, (lasting, "ranked"))?;
                self.ask(&named, &asked)?;
            }
        }
        Ok(())
    }

    /// What relations have let go still counts in `all` windows, and nothing tells what it was.
    fn all_retained(&self, matched: &str) -> Result<(), AuditError> {
        let related = self.metric.feeds.iter().any(|feed| matches!(feed.input, Input::Relation(_)));
        if !related || !self.keeps_everything() {
            return Ok(());
        }
        let sql = format!("SELECT COUNT(*) AS n FROM {matched} WHERE at < {}", instant(self.oldest()));
        match aggs::count(&self.sql.run(&sql)?, "n", 0) {
            0 => Ok(()),
            rows => {
                Err(AuditError::NotRecomputed(format!("{rows} joined rows are older than `retain.live`")))
            }
        }
    }

    /// The table of rows, made once; of an entity, once per instant.
    fn rows(&mut self, as_of: i64) -> Result<String, AuditError> {
        let name = if self.over_entity() { self.name("rows", as_of) } else { "rows".to_owned() };
        if self.sql.has(&name) {
            return Ok(name);
        }
        let mut batches = Vec::new();
        let mut told = Vec::new();
        // Several kinds of rows of one sequence are several feeds of one relation.
        let mut related: BTreeMap<usize, Source> = BTreeMap::new();
        for feed in &self.metric.feeds {
            let made;
            let source = match feed.input {
                Input::Event(event) => {
                    // Events ahead of the clock wait, whenever they will count.
                    made = events_of(self.catalog, self.events, event)?.before(self.question.now)?;
                    &made
                }
                Input::Entity(entity) => {
                    made = entity::rows(self, entity, as_of)?;
                    &made
                }
                Input::Relation(relation) => match related.entry(relation) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(free) => free.insert(relate::rows(self, relation)?),
                },
            };
            batches.push(of_feed(self.metric, feed, source)?);
            told.push(self.told(feed));
        }
        let schema = schema(self.metric);
        let batch = concat_batches(&schema, &batches).map_err(AuditError::arrow)?;
        self.sql.table(&name, batch, Some(told.join("\nUNION ALL\n")))?;
        Ok(name)
    }

    /// A feed in the contract's own words.
    fn told(&self, feed: &contracts::catalog::Feed) -> String {
        let from = match feed.input {
            Input::Event(event) => quoted(&self.catalog.events[event].head.name),
            Input::Entity(entity) => quoted(&format!("entity_{}", self.catalog.entities[entity].head.name)),
            Input::Relation(relation) if self.metric.relations[relation].sequence.is_some() => {
                format!("sequence_{relation}")
            }
            Input::Relation(relation) => format!("relation_{relation}"),
        };
        let mut columns = vec![
            format!("{} AS alias", literal(if feed.alias.is_empty() { "joined" } else { &feed.alias })),
            "event".to_owned(),
            "id".to_owned(),
            format!("{} AS at", feed.moment.as_ref().map_or_else(|| quoted(&feed.time), |at| at.sql.clone())),
        ];
        let passed = feed.filter.as_ref().map_or("TRUE", |filter| filter.sql.as_str());
        columns.push(format!("{passed} AS passed"));
        columns.push("lost".to_owned());
        for (index, dimension) in feed.dimensions.iter().enumerate() {
            let default = &self.metric.dimensions[index].default;
            let value = match default {
                Value::Null => dimension.sql.clone(),
                Value::Text(text) => format!("COALESCE({}, {})", dimension.sql, literal(text)),
                other => format!("COALESCE({}, {})", dimension.sql, other.to_json(None)),
            };
            columns.push(format!("{value} AS {}", quoted(&dimension_column(self.metric, index))));
        }
        for (index, fold) in self.metric.folds.iter().enumerate() {
            let name = crate::rows::fold_name(self.metric, index);
            let input = feed.folds[index].as_ref();
            let value = input.and_then(|input| input.value.as_ref()).map(|value| value.sql.as_str());
            if aggs_value(fold) {
                columns.push(format!("{} AS {}", value.unwrap_or("NULL"), quoted(&format!("v_{name}"))));
            }
            if fold.agg.is_span() {
                let span = input.and_then(|input| input.span.as_ref());
                let (from, until) = span.map_or(("NULL", "NULL"), |(from, until)| (&from.sql, &until.sql));
                columns.push(format!("{from} AS {}", quoted(&format!("from_{name}"))));
                columns.push(format!("{until} AS {}", quoted(&format!("until_{name}"))));
            }
            let filter = input.and_then(|input| input.filter.as_ref()).map(|filter| filter.sql.clone());
            let there = value.map(|value| format!("({value}) IS NOT NULL"));
            let both: Vec<String> = filter.into_iter().map(|f| format!("({f})")).chain(there).collect();
            let sees = match (input, both.is_empty()) {
                (None, _) => "FALSE".to_owned(),
                (_, true) => "TRUE".to_owned(),
                _ => both.join(" AND "),
            };
            columns.push(format!("{sees} AS {}", quoted(&format!("if_{name}"))));
        }
        let alias =
            if feed.alias.is_empty() { String::new() } else { format!(" AS {}", quoted(&feed.alias)) };
        format!("SELECT {}\nFROM {from}{alias}", columns.join(",\n  "))
    }

    /// Values beyond a dimension's `max` lose their name, or do not count.
    fn named(
        &mut self,
        (as_of, stage): (i64, &str),
        matched: &str,
        (ranks, seen): (&str, &str),
    ) -> Result<String, AuditError> {
        let mut from = matched.to_owned();
        for (index, dimension) in self.metric.dimensions.iter().enumerate() {
            let refuses = dimension.overflow == Overflow::Refuse;
            if !refuses && self.question.filter.is_none() && !self.question.by.contains(&index) {
                continue;
            }
            let column = quoted(&dimension_column(self.metric, index));
            let rank = format!(
                "SELECT {column} AS v, TRUE AS kept FROM {ranks} WHERE {seen} IS NOT NULL GROUP BY {column}\n\
                 ORDER BY MIN({seen}), {column} NULLS FIRST LIMIT "
            );
            let max = dimension.max;
            if self.sql.run(&format!("{rank}{}", max.saturating_add(1)))?.num_rows() <= max {
                continue;
            }
            let kept = self.name(&format!("kept_{index}"), as_of);
            if !self.sql.has(&kept) {
                self.sql.stage(&kept, format!("{rank}{max}"))?;
            }
            let named = self.name(&format!("{stage}_{index}"), as_of);
            let joined =
                format!("FROM {from} AS r LEFT JOIN {kept} AS k ON r.{column} IS NOT DISTINCT FROM k.v");
            let columns = self.columns_but(&from, &column)?;
            let text = dimension.ty == ValueType::Text;
            let (value, other) = match text {
                true => (format!("CASE WHEN k.kept THEN r.{column} ELSE '{OTHER}' END"), "FALSE"),
                false => (format!("CASE WHEN k.kept THEN r.{column} END"), "k.kept IS NULL"),
            };
            let mut sql = format!(
                "SELECT {columns}, {value} AS {column}, {other} AS \"o_{}\"\n{joined}",
                dimension.name
            );
            if refuses {
                sql += "\nWHERE k.kept";
            }
            self.sql.stage(&named, sql)?;
            from = named;
        }
        Ok(from)
    }

    fn columns_but(&self, table: &str, but: &str) -> Result<String, AuditError> {
        let schema = self.sql.schema(table);
        let names = schema.fields().iter().map(|field| quoted(field.name())).filter(|name| name != but);
        Ok(names.map(|name| format!("r.{name}")).collect::<Vec<_>>().join(", "))
    }

    /// The question's own condition, over dimensions as answers show them.
    fn ask(&mut self, from: &str, to: &str) -> Result<(), AuditError> {
        let Some(filter) = &self.question.filter else {
            self.sql.stage(to, format!("SELECT * FROM {from}"))?;
            return Ok(());
        };
        let dimensions = &self.metric.dimensions;
        let ty = |ty: &ValueType| ty.arrow().unwrap_or(arrow::datatypes::DataType::Utf8);
        let fields: Vec<Field> = dimensions.iter().map(|d| Field::new(&d.name, ty(&d.ty), true)).collect();
        let scope = Scope::new(Arc::new(Schema::new(fields)));
        let typed = compile_bool(filter, &scope).map_err(|error| AuditError::Inner(error.to_string()))?;
        let condition = typed.expr.transform_up(|node| {
            let Expr::Column(column) = &node else { return Ok(Transformed::no(node)) };
            let Some(dimension) = dimensions.iter().find(|d| d.name == column.name) else {
                return Ok(Transformed::no(node));
            };
            let named = Expr::Column(Column::new_unqualified(format!("d_{}", dimension.name)));
            Ok(Transformed::yes(datafusion::logical_expr::cast(named, ty(&dimension.ty))))
        });
        let condition = condition.map_err(|error| AuditError::sql(filter, &error))?.data;
        self.sql.filtered((from, to), condition, format!("SELECT * FROM {from} WHERE {filter}"))
    }

    fn windowed(
        &mut self,
        span: Option<(i64, i64)>,
        (as_of, stage): (i64, &str),
        asked: &str,
    ) -> Result<String, AuditError> {
        let counted = self.name(stage, as_of);
        if self.sql.has(&counted) {
            return Ok(counted);
        }
        let within =
            span.map(|(start, end)| format!(" WHERE at >= {}\n  AND at < {}", instant(start), instant(end)));
        let sql = format!("SELECT * FROM {asked}{}", within.unwrap_or_default());
        self.sql.stage(&counted, sql)?;
        Ok(counted)
    }

    /// The rows of each group's last session.
    fn session(
        &mut self,
        gap: i64,
        (as_of, stage): (i64, &str),
        asked: &str,
        keys: &[Key],
    ) -> Result<String, AuditError> {
        let counted = self.name(stage, as_of);
        let columns = key_columns(keys);
        let over = match columns.is_empty() {
            true => String::new(),
            false => format!("PARTITION BY {} ", columns.join(", ")),
        };
        // Retention holds for sessions whatever other windows the metric has.
        let recent = instant(self.oldest());
        let sql = format!(
            "SELECT * FROM (\n  SELECT *, MAX(session) OVER ({over}) AS newest FROM (\n    \
             SELECT *, SUM(begins) OVER ({over}ORDER BY at ROWS UNBOUNDED PRECEDING) AS session FROM (\n      \
             SELECT *, CASE WHEN at - LAG(at) OVER ({over}ORDER BY at) < {gap} THEN 0 ELSE 1 END AS begins\n      \
             FROM {asked} WHERE at >= {recent}\n    )\n  )\n) WHERE session = newest"
        );
        self.sql.stage(&counted, sql)?;
        Ok(counted)
    }

    /// The columns to group by.
    pub(crate) fn keys(&self, split: bool, table: &str) -> Result<Vec<Key>, AuditError> {
        let schema = self.sql.schema(table);
        let by = if split { self.question.by.as_slice() } else { &[] };
        let key = |dimension: &usize| {
            let other = format!("o_{}", self.metric.dimensions[*dimension].name);
            Key {
                dimension: *dimension,
                value: quoted(&dimension_column(self.metric, *dimension)),
                other: schema.index_of(&other).is_ok().then(|| quoted(&other)),
            }
        };
        Ok(by.iter().map(key).collect())
    }
}

fn aggs_value(fold: &contracts::catalog::Fold) -> bool {
    crate::rows::has_value(&fold.agg)
}

/// Microseconds, with the instant for people beside them.
pub(crate) fn instant(micros: i64) -> String {
    format!("{micros} /* {} */", format_timestamp(micros))
}

fn beyond(what: &str) -> AuditError {
    AuditError::NotRecomputed(format!("{what} reaches beyond what the metric retains"))
}

/// The admitted rows of one event type.
pub(crate) fn events_of(catalog: &Catalog, events: Events<'_>, event: usize) -> Result<Source, AuditError> {
    let kept = || events.iter().filter(|kept| kept.batch.event == event);
    let schema = &catalog.events[event].admitted;
    let batch = concat_batches(schema, kept().map(|kept| &kept.batch.columns)).map_err(AuditError::arrow)?;
    let ids = kept().flat_map(|kept| kept.batch.ids.iter());
    let place = |kept: &contracts::batch::Kept, row: usize| {
        let (topic, number) = (&kept.partition.topic, kept.partition.number);
        let (offset, part) = (kept.batch.offsets[row], kept.batch.parts[row]);
        if part == 0 {
            format!("{topic}/{number}/{offset}")
        } else {
            format!("{topic}/{number}/{offset}/{part}")
        }
    };
    let names = kept().flat_map(|kept| {
        kept.batch.ids.iter().enumerate().map(move |(row, id)| match id {
            Some(id) => id.to_owned(),
            None => place(kept, row),
        })
    });
    Ok(Source {
        batch,
        ids: ids.collect(),
        names: names.map(Some).collect(),
        received: Some(kept().flat_map(|kept| kept.batch.received.iter().copied()).collect()),
    })
}
