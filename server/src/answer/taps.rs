//! GET `/v1/stream/events`: admitted events as server-sent events.
//!
//! *In*: the ring of newest admitted rows. *Out*: one `event` per row in order, with ids to resume
//! from; `missed` when rows were gone before the client came for them. *Never*: personal data, a row
//! left out in silence.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use contracts::catalog::Event as EventContract;
use contracts::value::time::format_timestamp;
use engine::Admitted;
use serde_json::{Map, Value as Json, json};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::cells;
use super::params::Params;
use super::stream::{drained, last_event_id, permit, respond};
use crate::app::App;
use crate::error::{ProblemBody, Result};
use crate::ring::{Kept, LINGER, Reading};

/// Batches taken from the ring at a time.
const TAKE: usize = 64;

/// Events made ahead for one client.
const READY: usize = 512;

/// Admitted events as they are folded, enriched columns included, personal data masked.
#[utoipa::path(
    get, path = "/v1/stream/events", tag = "events", operation_id = "streamEvents",
    params(
        ("type" = Option<Vec<String>>, Query, description = "Event types, exact or a dotted prefix (`order` for `order.created`)"),
        ("key" = Option<String>, Query, description = "Only events with this key"),
        ("Last-Event-ID" = Option<String>, Header, description = "Resume after this event"),
    ),
    responses(
        (status = 200, description = "Events `event`, `missed`, `drain`", content_type = "text/event-stream", body = String),
        (status = 503, description = "Too many streams", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response> {
    params.only(&["type", "event_type", "key", "entity_id", "last_event_id"])?;
    app.live()?;
    let permit = permit(&app)?;
    let mut types = params.many("type");
    types.extend(params.many("event_type"));
    let key = match params.one("key")? {
        Some(key) => Some(key.to_owned()),
        None => params.one("entity_id")?.map(str::to_owned),
    };
    let reading = app.ring.enter();
    app.tune_tap();
    let resumed = last_event_id(&headers, &params)?;
    let mut ready = VecDeque::new();
    let next = match resumed.as_deref() {
        None => app.ring.next(),
        Some(id) => match id.split_once('-').map(|(boot, n)| (boot.parse::<u64>(), n.parse::<u64>())) {
            Some((Ok(boot), Ok(n))) if boot == app.boot => n + 1,
            _ => {
                ready.push_back(missed(None, "the id is from another run of the server"));
                app.ring.next()
            }
        },
    };
    let follow = Follow {
        ticks: app.ticks(),
        filter: Filter { types, key },
        next,
        ready,
        ended: false,
        _leave: Leave { app: app.clone(), _reading: reading },
        _permit: permit,
        app,
    };
    Ok(respond(futures::stream::unfold(follow, Follow::next)))
}

fn missed(rows: Option<u64>, reason: &str) -> Event {
    Event::default().event("missed").data(json!({ "at_least": rows, "reason": reason }).to_string())
}

/// Which rows a client wants.
#[derive(Debug)]
struct Filter {
    types: Vec<String>,
    key: Option<String>,
}

impl Filter {
    fn takes_type(&self, name: &str) -> bool {
        let takes =
            |t: &String| name == t || name.strip_prefix(t.as_str()).is_some_and(|rest| rest.starts_with('.'));
        self.types.is_empty() || self.types.iter().any(takes)
    }
}

/// Turns the hand-over of admitted rows off a while after the last reader left.
struct Leave {
    app: Arc<App>,
    _reading: Reading,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let app = Arc::downgrade(&self.app);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(LINGER + Duration::from_secs(1)).await;
                if let Some(app) = app.upgrade() {
                    app.tune_tap();
                }
            });
        }
    }
}

/// One client.
struct Follow {
    app: Arc<App>,
    ticks: watch::Receiver<u64>,
    filter: Filter,
    next: u64,
    ready: VecDeque<Event>,
    ended: bool,
    _leave: Leave,
    _permit: OwnedSemaphorePermit,
}

type Step = Option<(std::result::Result<Event, Infallible>, Follow)>;

impl Follow {
    async fn next(mut self) -> Step {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            if self.ended {
                return None;
            }
            self.ticks.borrow_and_update();
            if self.take() {
                continue;
            }
            if self.app.draining() {
                self.ended = true;
                return Some((Ok(drained()), self));
            }
            if self.ticks.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Takes rows from the ring; false when there are none.
    fn take(&mut self) -> bool {
        let found = self.app.ring.since(self.next, TAKE);
        if found.missed > 0 {
            self.ready.push_back(missed(Some(found.missed), "the client was slower than the events"));
            self.next += found.missed;
        }
        for kept in &found.batches {
            self.rows(kept);
            if self.ready.len() >= READY {
                break;
            }
        }
        found.missed > 0 || !found.batches.is_empty()
    }

    /// Makes events of the rows of `kept` from `next` on, until enough are ready.
    fn rows(&mut self, kept: &Kept) {
        let start = usize::try_from(self.next.saturating_sub(kept.first)).unwrap_or(0);
        self.next = kept.end();
        let batch = &kept.admitted.batch;
        let Some(contract) = kept.catalog.events.get(batch.event) else { return };
        if !self.filter.takes_type(&contract.head.name) {
            return;
        }
        for row in start..batch.columns.num_rows() {
            if self.ready.len() >= READY {
                self.next = kept.first + row as u64;
                return;
            }
            let key = key_of(contract, &kept.admitted, row);
            if self.filter.key.as_ref().is_some_and(|wanted| key.as_str() != Some(wanted)) {
                continue;
            }
            let id = format!("{}-{}", self.app.boot, kept.first + row as u64);
            let body = body(contract, &kept.admitted, row, key);
            self.ready.push_back(Event::default().event("event").id(id).data(body.to_string()));
        }
    }
}

/// The key of a row as text, whatever its type; of several fields, the id of a change stream's row.
fn key_of(contract: &EventContract, admitted: &Admitted, row: usize) -> Json {
    let [key] = contract.key.as_slice() else {
        let ids = &admitted.batch.ids;
        let whole = contract.changelog && !contract.key.is_empty() && !ids.is_null(row);
        return if whole { Json::from(ids.value(row)) } else { Json::Null };
    };
    let column = admitted.batch.columns.column_by_name(key);
    match column.map(|c| cells::cell(c.as_ref(), row)) {
        None | Some(Json::Null) => Json::Null,
        Some(Json::String(text)) => Json::String(text),
        Some(other) => Json::String(other.to_string()),
    }
}

fn body(contract: &EventContract, admitted: &Admitted, row: usize, key: Json) -> Json {
    let batch = &admitted.batch;
    let masked = |name: &str| contract.fields.iter().any(|f| f.pii && f.name == name);
    let mut data = Map::new();
    for (field, column) in batch.columns.schema().fields().iter().zip(batch.columns.columns()) {
        let value = match masked(field.name()) && !column.is_null(row) {
            true => Json::String(cells::MASK.to_owned()),
            false => cells::cell(column.as_ref(), row),
        };
        data.insert(field.name().clone(), value);
    }
    let key_masked = contract.key.iter().any(|key| masked(key));
    json!({
        "event_id": (!batch.ids.is_null(row)).then(|| batch.ids.value(row)),
        "event_type": contract.head.name,
        "entity_id": if key_masked { Json::String(cells::MASK.to_owned()) } else { key },
        "time": time_of(contract, admitted, row),
        "received": batch.received.get(row).copied().map(format_timestamp),
        "source": admitted.partition.source,
        "topic": admitted.partition.topic,
        "partition": admitted.partition.number,
        "offset": batch.offsets.get(row),
        "part": batch.parts.get(row),
        "data": data,
    })
}

/// The event time: the declared field where the contract names one, else the column `time`.
fn time_of(contract: &EventContract, admitted: &Admitted, row: usize) -> Option<String> {
    let name = contract.time.as_deref().unwrap_or("time");
    let columns = &admitted.batch.columns;
    let column = columns.column_by_name("time").or_else(|| columns.column_by_name(name))?;
    let times = column.as_primitive_opt::<TimestampMicrosecondType>()?;
    (!times.is_null(row)).then(|| format_timestamp(times.value(row)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_match_exactly_or_by_dotted_prefix() {
        let filter = Filter { types: vec!["order".into(), "click".into()], key: None };
        assert!(filter.takes_type("order.created") && filter.takes_type("click"));
        assert!(!filter.takes_type("orders.created") && !filter.takes_type("payment"));
    }
}
