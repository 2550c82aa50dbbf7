//! GET `/v1/lineage/{kind}/{name}`: source → event → entity → metric, with real counters.
//!
//! *In*: the catalog, the counters and offsets of the published tick. *Out*: the layers above and
//! below a thing, and the edges between them. *Never*: a score, a guessed system name.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use contracts::Catalog;
use contracts::catalog::{Input, Metric};
use contracts::value::time::format_timestamp;
use engine::{Counts, Published};
use serde_json::{Value as JsonValue, json};

use super::describe;
use super::params::{Params, age_ms, wall_now};
use crate::app::App;
use crate::error::{Path, Problem, ProblemBody, Result};

/// A node: its layer and its name.
type Node = (Layer, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Source,
    Event,
    Entity,
    Metric,
}

impl Layer {
    fn name(self) -> &'static str {
        match self {
            Layer::Source => "source",
            Layer::Event => "event",
            Layer::Entity => "entity",
            Layer::Metric => "metric",
        }
    }

    fn parse(text: &str) -> Option<Layer> {
        [Layer::Source, Layer::Event, Layer::Entity, Layer::Metric].into_iter().find(|l| l.name() == text)
    }
}

/// What moves a metric or an entity, and what an event or a source moves.
#[utoipa::path(
    get, path = "/v1/lineage/{kind}/{name}", tag = "catalog", operation_id = "getLineage",
    params(
        ("kind" = String, Path, description = "`source`, `event`, `entity` or `metric`"),
        ("name" = String, Path, description = "Its name"),
    ),
    responses(
        (status = 200, description = "`{kind, name, lineage: [nodes], edges: [{from, to}]}`", body = Object),
        (status = 404, description = "No such thing; the names there are", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[tracing::instrument(name = "answer", skip_all)]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Path((kind, name)): Path<(String, String)>,
    params: Params,
) -> Result<Json<JsonValue>> {
    params.only(&[])?;
    let (_, published) = app.published()?;
    let layer = Layer::parse(&kind).ok_or_else(|| {
        let allowed = ["source", "event", "entity", "metric"].map(str::to_owned).to_vec();
        Problem::unknown(StatusCode::NOT_FOUND, "unknown_kind", "kind", &kind, allowed)
    })?;
    let edges = edges(&app, &published);
    let nodes = nodes(&app, &published.catalog, &edges);
    let start = (layer, name);
    if !nodes.contains(&start) {
        let names = nodes.iter().filter(|(l, _)| *l == layer).map(|(_, n)| n.clone()).collect();
        return Err(Problem::unknown(StatusCode::NOT_FOUND, "unknown_name", layer.name(), &start.1, names));
    }
    let mut reached: BTreeSet<Node> = reach(&start, &edges, false);
    reached.extend(reach(&start, &edges, true));
    let wall = wall_now();
    let lineage: Vec<JsonValue> =
        reached.iter().map(|node| describe_node(&app, &published, node, wall)).collect();
    let edges: Vec<JsonValue> = edges
        .iter()
        .filter(|(from, to)| reached.contains(from) && reached.contains(to))
        .map(|(from, to)| json!({ "from": id(from), "to": id(to) }))
        .collect();
    Ok(Json(json!({
        "kind": start.0.name(),
        "name": start.1,
        "lineage": lineage,
        "edges": edges,
        "as_of": format_timestamp(published.as_of),
        "fresh_ms": age_ms(wall, published.as_of),
    })))
}

fn id(node: &Node) -> String {
    format!("{}:{}", node.0.name(), node.1)
}

/// All edges: contracts give event → entity → metric, counters give source → event.
fn edges(app: &App, published: &Published) -> BTreeSet<(Node, Node)> {
    let catalog = &published.catalog;
    let event = |index: usize| catalog.events.get(index).map(|e| (Layer::Event, e.head.name.clone()));
    let mut edges = BTreeSet::new();
    for (source, name) in published.counters.keys() {
        if catalog.event_index(name).is_some() {
            edges.insert(((Layer::Source, source.to_string()), (Layer::Event, name.clone())));
        }
    }
    for entity in &catalog.entities {
        let to = (Layer::Entity, entity.head.name.clone());
        edges.extend(entity.feeds.iter().filter_map(|f| Some((event(f.event)?, to.clone()))));
    }
    for metric in &catalog.metrics {
        let to = (Layer::Metric, metric.head.name.clone());
        for feed in &metric.feeds {
            let from: Vec<Node> = match feed.input {
                Input::Event(index) => event(index).into_iter().collect(),
                Input::Entity(index) => {
                    let entity = catalog.entities.get(index);
                    entity.map(|e| (Layer::Entity, e.head.name.clone())).into_iter().collect()
                }
                Input::Relation(index) => {
                    let events = metric.relations.get(index).map(contracts::catalog::Relation::events);
                    events.unwrap_or_default().into_iter().filter_map(event).collect()
                }
            };
            edges.extend(from.into_iter().map(|from| (from, to.clone())));
        }
    }
    // A source that has brought nothing yet is a node without edges; see `nodes`.
    let _ = app;
    edges
}

fn nodes(app: &App, catalog: &Catalog, edges: &BTreeSet<(Node, Node)>) -> BTreeSet<Node> {
    let mut nodes: BTreeSet<Node> = edges.iter().flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
    nodes.extend(app.sources().into_iter().map(|s| (Layer::Source, s.name)));
    nodes.extend(app.logs.keys().map(|s| (Layer::Source, s.clone())));
    nodes.extend(catalog.events.iter().map(|e| (Layer::Event, e.head.name.clone())));
    nodes.extend(catalog.entities.iter().map(|e| (Layer::Entity, e.head.name.clone())));
    nodes.extend(catalog.metrics.iter().map(|m| (Layer::Metric, m.head.name.clone())));
    nodes
}

/// What can be reached from `start`, along the edges or against them.
fn reach(start: &Node, edges: &BTreeSet<(Node, Node)>, along: bool) -> BTreeSet<Node> {
    let mut reached = BTreeSet::from([start.clone()]);
    let mut open = vec![start.clone()];
    while let Some(node) = open.pop() {
        for (from, to) in edges {
            let (here, there) = if along { (from, to) } else { (to, from) };
            if *here == node && reached.insert(there.clone()) {
                open.push(there.clone());
            }
        }
    }
    reached
}

fn describe_node(app: &App, published: &Published, node: &Node, wall: i64) -> JsonValue {
    let (layer, name) = node;
    let catalog = &published.catalog;
    let mut out = json!({ "layer": layer.name(), "id": id(node), "name": name });
    let more = match layer {
        Layer::Source => source(app, published, name),
        Layer::Event => catalog.event_index(name).map(|i| {
            let counts = sum(published.counters.iter().filter(|((_, n), _)| n == name).map(|(_, c)| *c));
            json!({ "contract": describe::contract(&catalog.events[i].head), "counts": counts })
        }),
        Layer::Entity => catalog.entity_index(name).map(|i| {
            let entity = &catalog.entities[i];
            json!({ "contract": describe::contract(&entity.head), "key": entity.key })
        }),
        Layer::Metric => catalog.metric_index(name).map(|i| {
            let metric = &catalog.metrics[i];
            json!({
                "contract": describe::contract(&metric.head),
                "feeds": metric.feeds.iter().map(|f| feed(catalog, metric, f)).collect::<Vec<_>>(),
                "lost": published.lost(i),
                "newest_event": describe::newest_event(published.newest(i), wall),
            })
        }),
    };
    if let (Some(out), Some(JsonValue::Object(more))) = (out.as_object_mut(), more) {
        out.extend(more);
    }
    out
}

fn feed(catalog: &Catalog, metric: &Metric, feed: &contracts::catalog::Feed) -> JsonValue {
    let event = |i: usize| catalog.events.get(i).map(|e| id(&(Layer::Event, e.head.name.clone())));
    let from = match feed.input {
        Input::Event(i) => json!(event(i)),
        Input::Entity(i) => {
            json!(catalog.entities.get(i).map(|e| id(&(Layer::Entity, e.head.name.clone()))))
        }
        Input::Relation(i) => {
            let relation = metric.relations.get(i);
            let steps: Vec<&str> =
                relation.iter().flat_map(|relation| &relation.steps).map(|step| step.name.as_str()).collect();
            let events = relation.map(contracts::catalog::Relation::events).unwrap_or_default();
            let events: Vec<String> = events.into_iter().filter_map(event).collect();
            return json!({ "alias": feed.alias, "from": events, "steps": steps, "time": feed.time });
        }
    };
    json!({ "alias": feed.alias, "from": from, "where": feed.filter.as_ref().map(|f| &f.sql), "time": feed.time })
}

fn source(app: &App, published: &Published, name: &str) -> Option<JsonValue> {
    let status = app.sources().into_iter().find(|s| s.name == name);
    let counts = sum(published.counters.iter().filter(|((s, _), _)| &**s == name).map(|(_, c)| *c));
    let offsets: Vec<JsonValue> = published
        .offsets
        .iter()
        .filter(|(p, _)| &*p.source == name)
        .map(|(p, progress)| {
            json!({
                "topic": p.topic, "partition": p.number, "next": progress.next, "end": progress.end,
                "lag": progress.end.map(|end| (end - progress.next).max(0)),
            })
        })
        .collect();
    Some(json!({
        "system": status.as_ref().map(|s| s.kind),
        "status": status.as_ref().map(|s| &s.state),
        "counts": counts,
        "offsets": offsets,
    }))
}

/// The sum of several counters.
pub(crate) fn sum(counts: impl Iterator<Item = Counts>) -> Counts {
    counts.fold(Counts::default(), |mut all, c| {
        all.received += c.received;
        all.admitted += c.admitted;
        all.refused += c.refused;
        all.duplicate += c.duplicate;
        all.skipped += c.skipped;
        all.warned += c.warned;
        all
    })
}
