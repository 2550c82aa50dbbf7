//! Contracts as the oracle reads them.
//!
//! *In*: valid contract YAML. *Out*: [`Contracts`]. *Never*: a message about a mistake; `contracts`
//! checks, the oracle panics.

use super::fold::Agg;
use super::num::Rat;
use super::relation::{Join, Lookup, Table, joins, lookups, table};
use super::sequence::{Sequence, sequence};
use super::sql::{Ex, Op, parse};
use super::val::Val;
use super::window::Kind;
use super::yaml::Node;
use super::zone::{DAY, parse_date, parse_duration, parse_instant};

/// All contracts of a run.
#[derive(Debug, Default)]
pub struct Contracts {
    /// `kind: Event`.
    pub events: Vec<Event>,
    /// `kind: Entity`.
    pub entities: Vec<Entity>,
    /// `kind: Table`.
    pub tables: Vec<Table>,
    /// `kind: Metric`.
    pub metrics: Vec<Metric>,
}

/// An event contract.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Event {
    pub name: String,
    pub key: Vec<String>,
    pub changelog: bool,
    pub time: Option<String>,
    pub id: Option<String>,
    pub dedupe: i64,
    pub fields: Vec<Field>,
    /// Name, check, does breaking it refuse?
    pub rules: Vec<(String, Ex, bool)>,
    pub enrich: Vec<(String, Ex)>,
}

/// A declared type.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Ty {
    Text,
    Bool,
    Int,
    Float,
    Dec(u8, u8),
    Ts,
    Date,
    List(Box<Field>),
    Struct(Vec<Field>),
    Json,
}

/// A declared field.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Field {
    pub name: String,
    pub ty: Ty,
    pub path: Vec<String>,
    pub required: bool,
    pub default: Option<Val>,
    pub one_of: Option<Vec<String>>,
    pub pattern: Option<regex::Regex>,
    pub min: Option<Val>,
    pub max: Option<Val>,
    pub min_length: Option<usize>,
    pub max_length: Option<usize>,
}

/// An entity contract.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Entity {
    pub name: String,
    pub key: Ex,
    pub key_name: String,
    pub events: Vec<String>,
    pub fields: Vec<EntityField>,
}

/// A field of an entity.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct EntityField {
    pub name: String,
    /// `first`, `last`, ...
    pub fold: String,
    /// `None`: `count: "*"`.
    pub ex: Option<Ex>,
    pub events: Option<Vec<String>>,
}

/// A metric contract.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Metric {
    pub name: String,
    pub aliases: Vec<Alias>,
    pub joins: Vec<Join>,
    pub lookups: Vec<Lookup>,
    pub sequence: Option<Sequence>,
    /// Over events: when a row counts, where not at its time.
    pub moment: Option<Ex>,
    pub dimensions: Vec<Dimension>,
    pub measures: Vec<Measure>,
    pub windows: Vec<(String, Kind)>,
    pub retain: i64,
}

/// An input of a metric.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Alias {
    pub name: String,
    /// Event types, or the one entity.
    pub types: Vec<String>,
    pub entity: bool,
    pub filter: Option<Ex>,
    pub renames: Vec<(String, String)>,
    /// Entity metrics: the row's time.
    pub time: Option<String>,
}

/// A dimension.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Dimension {
    pub name: String,
    pub from: Ex,
    pub default: Option<Val>,
    pub max: usize,
    pub refuse: bool,
}

/// A measure.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Measure {
    pub name: String,
    pub kind: MeasureKind,
    pub hidden: bool,
    pub empty: Option<Val>,
    /// `type: decimal(p,s)`: s.
    pub scale: Option<u8>,
    /// `type:` as written.
    pub ty: Option<String>,
}

/// How a measure is computed.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum MeasureKind {
    Fold { agg: Agg, of: Option<Vec<String>>, value: Option<Ex>, filter: Option<Ex> },
    Lasting(Lasting),
    Over(Over),
    Ratio(String, String),
    Expr(Ex),
    Shift(String, i64),
}

/// How many rows last, or for how long.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Lasting {
    /// Time spent; else the number at the end.
    pub spent: bool,
    pub of: Option<Vec<String>>,
    pub start: Ex,
    pub end: Ex,
    pub filter: Option<Ex>,
}

/// Another measure in the last windows of a kind.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Over {
    pub of: String,
    pub window: String,
    pub last: usize,
    pub running: bool,
    pub zeros: bool,
    pub agg: Agg,
}

impl Metric {
    /// Is there a measure about rows that last?
    pub fn lasts(&self) -> bool {
        self.measures.iter().any(|measure| matches!(measure.kind, MeasureKind::Lasting(_)))
    }

    /// Is there a measure `of` this alias?
    pub fn folds(&self, alias: &str) -> bool {
        self.measures.iter().any(|measure| match &measure.kind {
            MeasureKind::Fold { of: Some(of), .. } | MeasureKind::Lasting(Lasting { of: Some(of), .. }) => {
                of.iter().any(|name| name == alias)
            }
            _ => false,
        })
    }
}

impl Contracts {
    /// Reads all documents of a text.
    pub fn read(text: &str) -> Contracts {
        let mut all = Contracts::default();
        for doc in Node::load(text) {
            if matches!(doc.str("status"), Some("draft" | "retired")) {
                continue;
            }
            match doc.str("kind") {
                Some("Event") => all.events.push(event(&doc)),
                Some("Entity") => all.entities.push(entity(&doc)),
                Some("Table") => all.tables.push(table(&doc)),
                Some("Metric") => all.metrics.push(metric(&doc)),
                _ => {}
            }
        }
        all
    }

    /// The event contract of that name.
    pub fn event(&self, name: &str) -> Option<&Event> {
        self.events.iter().find(|e| e.name == name)
    }
}

fn name(doc: &Node) -> String {
    doc.str("name").expect("a name").to_string()
}

fn duration(node: &Node, key: &str) -> Option<i64> {
    node.str(key).map(|text| parse_duration(text).unwrap_or_else(|| panic!("duration {text}")))
}

fn ex(node: &Node, key: &str) -> Option<Ex> {
    node.str(key).map(parse)
}

fn event(doc: &Node) -> Event {
    Event {
        name: name(doc),
        key: doc.get("key").map(Node::texts).unwrap_or_default(),
        changelog: doc.is_true("changelog"),
        time: doc.str("time").map(str::to_string),
        id: doc.str("id").map(str::to_string),
        dedupe: duration(doc, "dedupe").unwrap_or(DAY),
        fields: fields(doc),
        rules: doc
            .entries("rules")
            .iter()
            .map(|(name, rule)| {
                let check = ex(rule, "check").expect("a check");
                (name.clone(), check, rule.str("severity") != Some("warning"))
            })
            .collect(),
        enrich: doc.entries("enrich").iter().map(|(name, e)| (name.clone(), parse(e.text()))).collect(),
    }
}

fn fields(doc: &Node) -> Vec<Field> {
    doc.entries("fields").iter().map(|(name, node)| field(name, node)).collect()
}

fn field(name: &str, node: &Node) -> Field {
    let ty = field_type(node);
    let value = |key: &str| node.str(key).map(|text| scalar(text, &ty));
    let count = |key: &str| node.str(key).map(|text| text.parse().expect("a count"));
    let path = node.str("from").unwrap_or(name).split('.').map(str::to_string).collect();
    Field {
        name: name.to_string(),
        path,
        required: node.is_true("required"),
        default: value("default"),
        one_of: node.get("enum").map(Node::texts),
        pattern: node.str("pattern").map(|p| regex::Regex::new(p).expect("a valid pattern")),
        min: value("min"),
        max: value("max"),
        min_length: count("min_length"),
        max_length: count("max_length"),
        ty,
    }
}

fn field_type(node: &Node) -> Ty {
    let text = node.str("type").expect("a type");
    match text {
        "string" => Ty::Text,
        "bool" => Ty::Bool,
        "int" => Ty::Int,
        "float" => Ty::Float,
        "timestamp" => Ty::Ts,
        "date" => Ty::Date,
        "json" => Ty::Json,
        "struct" => Ty::Struct(fields(node)),
        "list" => Ty::List(Box::new(match node.get("items") {
            Some(Node::Text(ty)) => {
                let plain = Node::Map(vec![("type".to_string(), Node::Text(ty.clone()))]);
                field("", &plain)
            }
            Some(items) => field("", items),
            None => {
                let item = Node::Map(vec![("type".to_string(), Node::Text("struct".to_string()))]);
                Field { ty: Ty::Struct(fields(node)), ..field("", &item) }
            }
        })),
        _ => {
            let (p, s) = decimal(text).unwrap_or_else(|| panic!("type {text}"));
            Ty::Dec(p, s)
        }
    }
}

/// `decimal(18,2)`.
fn decimal(text: &str) -> Option<(u8, u8)> {
    let (p, s) = text.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    Some((p.trim().parse().ok()?, s.trim().parse().ok()?))
}

/// A literal of a contract in a field's type.
fn scalar(text: &str, ty: &Ty) -> Val {
    let value = match ty {
        Ty::Text | Ty::Json => Some(Val::Text(text.to_string())),
        Ty::Bool => text.parse().ok().map(Val::Bool),
        Ty::Int => text.parse().ok().map(Val::Int),
        Ty::Float => text.parse().ok().map(Val::Float),
        Ty::Dec(_, s) => Rat::parse(text).and_then(|r| r.round(*s)).map(|v| Val::Dec(v, *s)),
        Ty::Ts => parse_instant(text).map(Val::Ts),
        Ty::Date => parse_date(text).map(Val::Date),
        Ty::List(_) | Ty::Struct(_) => None,
    };
    value.unwrap_or_else(|| panic!("`{text}` is no {ty:?}"))
}

/// A literal of a contract whose type shows only in its looks.
fn loose(text: &str) -> Val {
    if let Ok(v) = text.parse::<i64>() {
        return Val::Int(v);
    }
    match (Rat::parse(text), text.split_once('.')) {
        (Some(value), Some((_, fraction))) if !text.contains(['e', 'E']) => {
            let scale = fraction.len() as u8;
            Val::Dec(value.round(scale).expect("a short literal"), scale)
        }
        _ => Val::Text(text.to_string()),
    }
}

fn entity(doc: &Node) -> Entity {
    let key_name = doc.str("key").expect("a key").to_string();
    let fields = doc.entries("fields").iter().map(|(name, node)| {
        let folds = ["first", "last", "count", "sum", "min", "max", "set"];
        let fold = folds.into_iter().find(|fold| node.get(fold).is_some()).expect("a fold");
        let text = node.str(fold).expect("an expression");
        EntityField {
            name: name.clone(),
            fold: fold.to_string(),
            ex: (text != "*").then(|| parse(text)),
            events: node.get("events").map(Node::texts),
        }
    });
    Entity {
        name: name(doc),
        key: parse(&key_name),
        events: doc.get("events").map(Node::texts).unwrap_or_default(),
        fields: fields.collect(),
        key_name,
    }
}

fn metric(doc: &Node) -> Metric {
    let aliases = match doc.str("entity") {
        Some(entity) => vec![Alias {
            name: entity.to_string(),
            types: vec![entity.to_string()],
            entity: true,
            filter: ex(doc, "where"),
            renames: Vec::new(),
            time: doc.get("time").and_then(|t| t.str("column")).map(str::to_string),
        }],
        None => doc.entries("events").iter().map(|(name, node)| alias(name, node)).collect(),
    };
    let mut windows: Vec<(String, Kind)> =
        doc.entries("windows").iter().map(|(name, node)| (name.clone(), window(node))).collect();
    if windows.is_empty() {
        windows.push(("all".to_string(), Kind::All));
    }
    let dimensions = doc.entries("dimensions").iter().map(|(name, node)| Dimension {
        name: name.clone(),
        from: ex(node, "from").unwrap_or_else(|| Ex::Col(vec![name.clone()])),
        default: node.str("default").map(loose),
        max: node.str("max").and_then(|m| m.parse().ok()).expect("a max"),
        refuse: node.str("overflow") == Some("refuse"),
    });
    let moment = doc.get("time").and_then(|time| time.str("column")).filter(|_| doc.str("entity").is_none());
    let longest = windows.iter().map(|(_, kind)| length(kind)).max().unwrap_or(0);
    let retain = doc.get("retain").and_then(|r| duration(r, "live"));
    let joins = joins(doc);
    // With a join, a measure without `of` folds the joined rows, whatever it mentions.
    let implied: Vec<String> =
        if joins.is_empty() { aliases.iter().map(|alias| alias.name.clone()).collect() } else { Vec::new() };
    let mut sequence = sequence(doc);
    let sequenced = sequence.is_some();
    let read = |(name, node): &(String, Node)| measure(name, node, &implied, sequenced);
    let measures: Vec<Measure> = doc.entries("measures").iter().map(read).collect();
    if let Some(sequence) = &mut sequence {
        sequence.kinds = super::sequence::kinds(&measures);
    }
    Metric {
        name: name(doc),
        dimensions: dimensions.collect(),
        measures,
        sequence,
        moment: moment.map(parse),
        joins,
        lookups: lookups(doc),
        retain: retain.unwrap_or((2 * longest).max(7 * DAY)),
        windows,
        aliases,
    }
}

fn alias(name: &str, node: &Node) -> Alias {
    let renames = node.entries("fields").iter().map(|(new, old)| (new.clone(), old.text().to_string()));
    Alias {
        name: name.to_string(),
        types: node.get("type").map(Node::texts).unwrap_or_default(),
        entity: false,
        filter: ex(node, "where"),
        renames: renames.collect(),
        time: None,
    }
}

fn window(node: &Node) -> Kind {
    let tz = || node.str("tz").unwrap_or("Etc/UTC").to_string();
    if let Some(size) = duration(node, "tumbling") {
        return if size >= DAY { Kind::Days((size / DAY) as i32, tz()) } else { Kind::Tumbling(size) };
    }
    if let Some(size) = duration(node, "sliding") {
        return Kind::Sliding { size, every: duration(node, "every").expect("the oracle wants `every`") };
    }
    if let Some(gap) = duration(node, "session") {
        return Kind::Session(gap);
    }
    match node.str("to_date") {
        Some(unit) => Kind::ToDate(unit.to_string(), tz()),
        None => Kind::All,
    }
}

/// How long a window can be, in microseconds; 0 for `all`.
fn length(kind: &Kind) -> i64 {
    match kind {
        Kind::Tumbling(size) | Kind::Sliding { size, .. } | Kind::Session(size) => *size,
        Kind::Days(days, _) => i64::from(*days) * DAY,
        Kind::ToDate(unit, _) => {
            DAY * match unit.as_str() {
                "hour" | "day" => 1,
                "week" => 7,
                "month" => 31,
                "quarter" => 92,
                _ => 366,
            }
        }
        Kind::All => 0,
    }
}

/// The rows a measure is about: `of`, else what it mentions; of a sequence its kinds of rows, else intervals.
fn rows_of(node: &Node, aliases: &[String], sequenced: bool) -> Option<Vec<String>> {
    if let Some(alias) = node.str("of") {
        return Some(vec![alias.to_string()]);
    }
    let mut found = Vec::new();
    for ex in ["value", "where", "start", "end"].iter().filter_map(|key| ex(node, key)) {
        ex.qualifiers(&mut found);
    }
    if sequenced {
        let kinds = super::sequence::KINDS.iter().map(|kind| kind.to_string());
        let named: Vec<String> = kinds.filter(|kind| found.contains(kind)).collect();
        return Some(if named.is_empty() { vec!["interval".to_string()] } else { named });
    }
    let names: Vec<String> = aliases.iter().filter(|alias| found.contains(alias)).cloned().collect();
    Some(names).filter(|names| !names.is_empty())
}

fn lasting(agg: &str, node: &Node, of: Option<Vec<String>>) -> Lasting {
    let about = node.str("of").unwrap_or("interval");
    let side = |key: &str| ex(node, key).unwrap_or_else(|| Ex::Col(vec![about.to_string(), key.to_string()]));
    let state = |state: &str| {
        let column = Ex::Col(vec!["interval".to_string(), "state".to_string()]);
        Ex::Bin(Op::Eq, Box::new(column), Box::new(Ex::Lit(Val::Text(state.to_string()))))
    };
    let filter = match (ex(node, "where"), node.str("state").map(state)) {
        (Some(a), Some(b)) => Some(Ex::Bin(Op::And, Box::new(a), Box::new(b))),
        (a, b) => a.or(b),
    };
    Lasting { spent: agg == "duration_in_state", of, start: side("start"), end: side("end"), filter }
}

fn over(of: &str, node: &Node) -> Over {
    Over {
        of: of.to_string(),
        window: node.str("window").expect("`window`").to_string(),
        last: node.str("last").and_then(|last| last.parse().ok()).expect("`last`"),
        running: node.is_true("running"),
        zeros: node.str("before") == Some("zero"),
        agg: aggregate(node.str("agg").expect("`agg`"), node),
    }
}

fn measure(name: &str, node: &Node, aliases: &[String], sequenced: bool) -> Measure {
    let kind = if let Some(of) = node.str("over") {
        MeasureKind::Over(over(of, node))
    } else if let Some(agg @ ("concurrent" | "duration_in_state")) = node.str("agg") {
        MeasureKind::Lasting(lasting(agg, node, rows_of(node, aliases, sequenced)))
    } else if let Some(agg) = node.str("agg") {
        let (value, filter) = (ex(node, "value"), ex(node, "where"));
        let of = rows_of(node, aliases, sequenced);
        MeasureKind::Fold { agg: aggregate(agg, node), of, value, filter }
    } else if let Some(pair) = node.get("ratio") {
        let names = pair.texts();
        MeasureKind::Ratio(names[0].clone(), names[1].clone())
    } else if let Some(of) = node.str("shift") {
        MeasureKind::Shift(of.to_string(), duration(node, "by").expect("`by`"))
    } else {
        MeasureKind::Expr(ex(node, "expr").expect("one of agg, ratio, expr, shift"))
    };
    Measure {
        name: name.to_string(),
        kind,
        hidden: node.is_true("hidden"),
        empty: node.str("empty").map(loose),
        scale: node.str("type").and_then(decimal).map(|(_, s)| s),
        ty: node.str("type").map(str::to_string),
    }
}

fn aggregate(agg: &str, node: &Node) -> Agg {
    let rat = |text: &str| Rat::parse(text).unwrap_or_else(|| panic!("number {text}"));
    match agg {
        "count" => Agg::Count,
        "sum" => Agg::Sum,
        "avg" => Agg::Avg,
        "min" => Agg::Min,
        "max" => Agg::Max,
        "first" => Agg::First,
        "last" => Agg::Last,
        "distinct" => Agg::Distinct,
        "distinct_approx" => Agg::Approx,
        "top" => Agg::Top(node.str("n").map_or(10, |n| n.parse().expect("a count"))),
        "stddev" => Agg::Stddev,
        "rate" => Agg::Rate(duration(node, "per").unwrap_or(super::zone::SECOND)),
        "histogram" => {
            Agg::Histogram(node.get("buckets").expect("buckets").texts().iter().map(|b| rat(b)).collect())
        }
        "quantile" => {
            let q = rat(node.str("q").expect("q"));
            let error = node.str("error").map_or(0.01, |text| match text.strip_suffix('%') {
                Some(percent) => percent.parse::<f64>().expect("a percentage") / 100.0,
                None => text.parse().expect("a share"),
            });
            match node.str("method") {
                Some("lower") => Agg::Lower(q),
                Some("sketch") => Agg::Sketch(q, error),
                None if node.get("error").is_some() => Agg::Sketch(q, error),
                _ => Agg::Linear(q),
            }
        }
        other => panic!("the oracle has no agg {other}"),
    }
}
