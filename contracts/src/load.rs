//! All contract files become one catalog.
//!
//! *In*: the texts of all files. *Out*: [`Loaded`]: the contracts without errors, and every mistake of every file.
//! *Never*: a contract in the catalog that stands on one that is not.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::catalog::{Agg, Catalog, Entity, Event, Head, Input, Metric, Status};
use crate::diagnostic::Diagnostic;
use crate::lower::head::{digest, hex, of_state, short};
use crate::lower::{Cx, Lowered, World, entity, event, metric, one_or_many, table};
use crate::shape::{self, Kind};
use crate::text::{SourceFile, Span};
use crate::yaml::{Node, Yaml, documents};

/// What became of the files.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Every active contract without errors whose dependencies have none either.
    pub catalog: Catalog,
    /// By file, line and column.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// Whether any of the diagnostics is an error.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// The event type that the engine itself feeds: one row per received row, with what became of it.
pub const ROW_EVENT: &str = "streamgauge.row";

/// Names that begin so belong to the engine.
pub const RESERVED: &str = "streamgauge.";

/// A document with its kind.
struct Document<'a> {
    file: usize,
    source: &'a SourceFile,
    node: Node,
    kind: Kind,
}

/// Reads, checks and lowers all files.
pub fn load(files: &[SourceFile]) -> Loaded {
    let builtin = SourceFile::new("pack:builtin", include_str!("../packs/builtin.yaml"));
    let mut found: Vec<(usize, Diagnostic)> = Vec::new();
    let mut contracts: Vec<Document<'_>> = Vec::new();
    for (file, source) in files.iter().enumerate() {
        let (nodes, diagnostics) = documents(source);
        found.extend(diagnostics.into_iter().map(|d| (file, d)));
        for node in nodes {
            match kind(source, &node) {
                Ok(Some(kind)) => contracts.push(Document { file, source, node, kind }),
                Ok(None) => {}
                Err(diagnostic) => found.push((file, *diagnostic)),
            }
        }
    }
    let mentions_rows = contracts.iter().any(|doc| doc.kind == Kind::Metric && reads_rows(&doc.node));
    if mentions_rows {
        let nodes = documents(&builtin).0;
        let file = files.len();
        let source = &builtin;
        contracts.extend(nodes.into_iter().map(|node| Document { file, source, node, kind: Kind::Event }));
    }
    unique(&mut contracts, &mut found, files.len());
    let mut world = World::default();
    for doc in &contracts {
        if let Some(name) = doc.node.get("name").and_then(Node::scalar) {
            world.names.insert((doc.kind, name.to_string()));
        }
        if doc.kind == Kind::Metric {
            world.few_valued.extend(metric::few_valued_columns(&doc.node));
        }
    }
    for kind in Kind::ALL {
        for doc in contracts.iter().filter(|doc| doc.kind == kind) {
            let diagnostics = lower(doc, &mut world);
            found.extend(diagnostics.into_iter().map(|d| (doc.file, d)));
        }
    }
    found.sort_by_key(|(file, d)| (*file, d.line, d.column));
    let diagnostics = found.into_iter().map(|(_, d)| d).collect();
    Loaded { catalog: assemble(world), diagnostics }
}

/// The kind of a document; `None` for an empty one.
fn kind(source: &SourceFile, node: &Node) -> Result<Option<Kind>, Box<Diagnostic>> {
    let error = |code, span, message: &str| Diagnostic::error(code, &source.path, span, message);
    match &node.value {
        Yaml::Null => return Ok(None),
        Yaml::Map(_) => {}
        _ => {
            let diagnostic = error("wrong_type", node.span, "a contract must be a mapping of keys")
                .found(node.shown())
                .fix("begin with `apiVersion: streamgauge/v1`");
            return Err(Box::new(diagnostic));
        }
    }
    let kinds = Kind::ALL.map(Kind::name);
    match node.get("kind") {
        None => Err(Box::new(
            error("missing_key", node.span, "`kind` is missing")
                .allowed(kinds.join(", "))
                .fix("add `kind: ...`"),
        )),
        Some(place) => match place.scalar().and_then(Kind::parse) {
            Some(kind) => Ok(Some(kind)),
            None => {
                let message = format!("`{}` is not a kind of contract", place.shown());
                let diagnostic = error("unknown_kind", place.span, &message);
                Err(Box::new(diagnostic.names(&place.shown(), kinds)))
            }
        },
    }
}

/// Whether a metric reads [`ROW_EVENT`].
fn reads_rows(node: &Node) -> bool {
    let aliases = node.get("events").map(Node::entries).unwrap_or_default();
    aliases
        .iter()
        .filter_map(|alias| alias.value.get("type"))
        .flat_map(one_or_many)
        .any(|name| name.scalar() == Some(ROW_EVENT))
}

/// Reports names that are taken, and leaves the first of each.
fn unique(contracts: &mut Vec<Document<'_>>, found: &mut Vec<(usize, Diagnostic)>, builtin_file: usize) {
    let mut seen: BTreeMap<(Kind, String), (String, Span)> = BTreeMap::new();
    contracts.retain(|doc| {
        let Some(place) = doc.node.get("name") else { return true };
        let Some(name) = place.scalar() else { return true };
        let path = &doc.source.path;
        if doc.file != builtin_file && doc.kind == Kind::Event && name.starts_with(RESERVED) {
            let message = format!("names that begin with `{RESERVED}` belong to the engine");
            let diagnostic = Diagnostic::error("reserved_name", path, place.span, message)
                .found(name)
                .fix("give the event another name");
            found.push((doc.file, diagnostic));
            return false;
        }
        match seen.get(&(doc.kind, name.to_string())) {
            None => {
                seen.insert((doc.kind, name.to_string()), (path.clone(), place.span));
                true
            }
            Some((file, first)) => {
                let message = format!("there are two contracts {} `{name}`", doc.kind);
                let diagnostic = Diagnostic::error("duplicate_contract", path, place.span, message)
                    .found(format!("first at {file}:{}:{}", first.line, first.column))
                    .fix("remove or rename one of them");
                found.push((doc.file, diagnostic));
                false
            }
        }
    });
}

fn lower(doc: &Document<'_>, world: &mut World) -> Vec<Diagnostic> {
    let mut cx = Cx::new(doc.source);
    shape::check(&doc.node, doc.kind.shape(), &doc.source.path, &mut cx.out);
    match doc.kind {
        Kind::Event => {
            let mut lowered = event::event(&mut cx, &doc.node, world);
            lowered.item.head.hash = short(&digest(&doc.node, doc.kind, &[]));
            lowered.item.head.state = of_state(&doc.node, doc.kind);
            world.events.push(lowered);
        }
        Kind::Entity => {
            let mut lowered = entity::entity(&mut cx, &doc.node, world);
            let hashes: Vec<&str> = lowered
                .item
                .feeds
                .iter()
                .map(|feed| world.events[feed.event].item.head.hash.as_str())
                .collect();
            lowered.item.head.hash = short(&digest(&doc.node, doc.kind, &hashes));
            lowered.item.head.state = of_state(&doc.node, doc.kind);
            lowered.sound &= lowered.item.feeds.iter().all(|f| runs_event(world, f.event));
            world.entities.push(lowered);
        }
        Kind::Table => {
            let mut lowered = table::table(&mut cx, &doc.node, world);
            lowered.item.head.hash = short(&digest(&doc.node, doc.kind, &[]));
            lowered.item.head.state = of_state(&doc.node, doc.kind);
            lowered.sound &= lowered.item.fed_by.is_none_or(|event| runs_event(world, event));
            world.events.push(table::carrier(&lowered));
            world.tables.push(lowered);
        }
        Kind::Metric => {
            let mut lowered = metric::metric(&mut cx, &doc.node, world);
            let mut hashes = Vec::new();
            for feed in lowered.item.relations.iter().flat_map(|relation| relation.feeds()) {
                lowered.sound &= runs_event(world, feed.event);
                hashes.push(world.events[feed.event].item.head.hash.as_str());
            }
            for feed in &lowered.item.feeds {
                let (runs, hash) = match feed.input {
                    Input::Event(e) => (runs_event(world, e), &world.events[e].item.head.hash),
                    Input::Entity(e) => {
                        (runs(&world.entities[e], |x| &x.head), &world.entities[e].item.head.hash)
                    }
                    Input::Relation(_) => continue,
                };
                lowered.sound &= runs;
                hashes.push(hash.as_str());
            }
            lowered.item.head.hash = short(&digest(&doc.node, doc.kind, &hashes));
            lowered.item.head.state = of_state(&doc.node, doc.kind);
            let mentioned = lowered.item.tests.iter().flat_map(|test| test.tables.iter().chain(&test.given));
            let testable = mentioned.into_iter().all(|given| runs_event(world, given.event));
            lowered.sound &= testable;
            world.metrics.push(lowered);
        }
    }
    cx.out
}

fn runs<T>(lowered: &Lowered<T>, head: fn(&T) -> &Head) -> bool {
    lowered.sound && matches!(head(&lowered.item).status, Status::Active | Status::Deprecated)
}

fn runs_event(world: &World, event: usize) -> bool {
    runs(&world.events[event], |event| &event.head)
}

/// Keeps what runs, sorted by name, and lets the indexes follow.
fn assemble(world: World) -> Catalog {
    let (events, event_at) = kept(world.events, |event| &event.head);
    let (mut entities, entity_at) = kept(world.entities, |entity| &entity.head);
    let (mut tables, _) = kept(world.tables, |table| &table.head);
    let (mut metrics, _) = kept(world.metrics, |metric| &metric.head);
    for entity in &mut entities {
        for feed in &mut entity.feeds {
            feed.event = event_at[&feed.event];
        }
    }
    for table in &mut tables {
        table.event = event_at[&table.event];
        table.fed_by = table.fed_by.map(|event| event_at[&event]);
    }
    for metric in &mut metrics {
        for feed in &mut metric.feeds {
            feed.input = match feed.input {
                Input::Event(event) => Input::Event(event_at[&event]),
                Input::Entity(entity) => Input::Entity(entity_at[&entity]),
                Input::Relation(relation) => Input::Relation(relation),
            };
        }
        for feed in metric.relations.iter_mut().flat_map(|relation| relation.feeds_mut()) {
            feed.event = event_at[&feed.event];
        }
        for test in &mut metric.tests {
            for given in test.tables.iter_mut().chain(&mut test.given) {
                given.event = event_at[&given.event];
            }
        }
    }
    let events = with_ids(events, &entities, &metrics);
    let heads = events.iter().map(|e| ("Event", &e.head));
    let heads = heads.chain(entities.iter().map(|e| ("Entity", &e.head)));
    let heads = heads.chain(tables.iter().map(|t| ("Table", &t.head)));
    let heads = heads.chain(metrics.iter().map(|m| ("Metric", &m.head)));
    let mut hasher = Sha256::new();
    for (kind, head) in heads {
        let line = format!("{kind} {} {:?} {:?} {}\n", head.name, head.version, head.status, head.hash);
        hasher.update(line.as_bytes());
    }
    Catalog {
        events: events.into_iter().map(Arc::new).collect(),
        entities: entities.into_iter().map(Arc::new).collect(),
        tables: tables.into_iter().map(Arc::new).collect(),
        metrics: metrics.into_iter().map(Arc::new).collect(),
        hash: hex(&hasher.finalize()),
    }
}

/// The items that run, sorted by name, and where each old index went.
fn kept<T>(lowered: Vec<Lowered<T>>, head: fn(&T) -> &Head) -> (Vec<T>, BTreeMap<usize, usize>) {
    let mut items: Vec<(usize, T)> = lowered
        .into_iter()
        .enumerate()
        .filter(|(_, lowered)| runs(lowered, head))
        .map(|(index, lowered)| (index, lowered.item))
        .collect();
    items.sort_by(|a, b| head(&a.1).name.cmp(&head(&b.1).name));
    let places = items.iter().enumerate().map(|(new, (old, _))| (*old, new)).collect();
    (items.into_iter().map(|(_, item)| item).collect(), places)
}

/// Marks the events whose ids somebody reads.
fn with_ids(mut events: Vec<Event>, entities: &[Entity], metrics: &[Metric]) -> Vec<Event> {
    for feed in entities.iter().flat_map(|entity| &entity.feeds) {
        events[feed.event].needs_id = true;
    }
    for metric in metrics {
        for feed in metric.relations.iter().flat_map(|relation| relation.feeds()) {
            events[feed.event].needs_id = true;
        }
        for feed in &metric.feeds {
            let Input::Event(event) = feed.input else { continue };
            let ordered = metric
                .folds
                .iter()
                .zip(&feed.folds)
                .any(|(fold, input)| input.is_some() && matches!(fold.agg, Agg::First | Agg::Last));
            events[event].needs_id |= ordered;
        }
    }
    events
}
