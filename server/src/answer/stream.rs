//! GET `/v1/metrics/{name}/stream`: a metric as server-sent events.
//!
//! *In*: ticks. *Out*: `snapshot`, then `change` whenever the answer is another one, with ids
//! `<generation>-<tick>`. *Never*: an event without news; a wait of anybody for a slow client (the
//! client takes the newest state when it is ready for it).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use contracts::catalog::{Metric, WindowKind};
use contracts::value::Value;
use engine::{Answer, MetricQuery, Published, Row};
use futures::stream::Stream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::metrics::{self, Page, find, question, served};
use super::params::Params;
use crate::app::{App, Live};
use crate::error::{Path, Problem, ProblemBody, Result};

/// Time between comments that keep a quiet connection open.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(15);

/// Least time between two events for one client when it does not say.
const EVERY: Duration = Duration::from_millis(100);

/// Without new events an answer is asked for again after this long: rates, shifted measures and
/// `complete` change with the clock alone.
const ASK: Duration = Duration::from_secs(1);

/// A client is woken for ticks at most this often (with `every=0` at each): thousands of clients and a
/// thousand ticks a second would be all the machine does.
const LOOK: Duration = Duration::from_millis(5);

/// A metric, pushed whenever its answer changes.
#[utoipa::path(
    get, path = "/v1/metrics/{name}/stream", tag = "metrics", operation_id = "streamMetric",
    params(
        ("name" = String, Path, description = "Metric name, or `name@major`"),
        ("window" = Option<String>, Query, description = "Window name"),
        ("measure" = Option<Vec<String>>, Query, description = "Measures"),
        ("by" = Option<Vec<String>>, Query, description = "Dimensions"),
        ("where" = Option<String>, Query, description = "SQL condition over the dimensions"),
        ("every" = Option<String>, Query, description = "Least time between two events, default `100ms`; `0`: every tick"),
        ("Last-Event-ID" = Option<String>, Header, description = "Id of the last event seen: a snapshot follows only when something changed since"),
    ),
    responses(
        (status = 200, description = "Events `snapshot`, `change`, `error`, `drain`; data as of GET /v1/metrics/{name}", content_type = "text/event-stream", body = String),
        (status = 404, description = "No such metric", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Unknown window, measure or dimension", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Too many streams", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response> {
    params.only(&["window", "measure", "by", "where", "every", "last_event_id"])?;
    let every = every(&params)?;
    let live = app.live()?;
    let index = find(&live, &name)?;
    let published = live.reader.load();
    let query = question(&params, &published)?;
    // A wrong question is an error answer, not an event in a stream.
    published.metric(index, &query)?;
    let seen = last_event_id(&headers, &params)?.as_deref().and_then(Id::parse);
    Follow::start(app, vec![Watch::new(name, query, seen)], false, every)
}

/// Several metrics in one connection (browsers allow few connections per host).
#[utoipa::path(
    get, path = "/v1/stream/metrics", tag = "metrics", operation_id = "streamMetrics",
    params(
        ("metric" = Option<Vec<String>>, Query, description = "`name` or `name:window`, repeated or separated by commas; default: all metrics in their first window"),
        ("every" = Option<String>, Query, description = "Least time between two rounds of events, default `100ms`; `0`: every tick"),
        ("Last-Event-ID" = Option<String>, Header, description = "Id of the last event seen: snapshots follow only for what changed since"),
    ),
    responses(
        (status = 200, description = "Events as of GET /v1/metrics/{name}/stream; `metric_name` in the data tells them apart", content_type = "text/event-stream", body = String),
        (status = 404, description = "No such metric", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Unknown window", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Too many streams", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn stream_many(
    State(app): State<Arc<App>>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response> {
    params.only(&["metric", "every", "last_event_id"])?;
    let every = every(&params)?;
    let live = app.live()?;
    let published = live.reader.load();
    let seen = last_event_id(&headers, &params)?.as_deref().and_then(Id::parse);
    let asked = params.many("metric");
    if asked.is_empty() {
        let watches = watch_all(&live, seen);
        return Follow::start(app, watches, true, every);
    }
    let mut watches = Vec::new();
    for item in asked {
        let (name, window) = match item.split_once(':') {
            Some((name, window)) => (name.to_owned(), Some(window.to_owned())),
            None => (item, None),
        };
        let query = MetricQuery { window, ..MetricQuery::default() };
        published.metric(find(&live, &name)?, &query)?;
        watches.push(Watch::new(name, query, seen));
    }
    Follow::start(app, watches, false, every)
}

fn every(params: &Params) -> Result<Duration> {
    Ok(params.duration("every")?.map_or(EVERY, |m| Duration::from_micros(u64::try_from(m).unwrap_or(0))))
}

/// Room for one more stream.
pub(crate) fn permit(app: &App) -> Result<OwnedSemaphorePermit> {
    if app.draining() {
        return Err(Problem::unavailable("draining", "This server is shutting down.", 5));
    }
    app.streams.clone().try_acquire_owned().map_err(|_| {
        Problem::unavailable(
            "too_many_streams",
            format!("There are {} open streams, which is the limit.", app.limits.streams),
            5,
        )
    })
}

/// `Last-Event-ID`, or the parameter of that name for clients that cannot set headers.
pub(crate) fn last_event_id(headers: &HeaderMap, params: &Params) -> Result<Option<String>> {
    let header = headers.get("last-event-id").and_then(|v| v.to_str().ok()).map(str::to_owned);
    Ok(match header {
        Some(id) => Some(id),
        None => params.one("last_event_id")?.map(str::to_owned),
    })
}

/// An event stream with its headers and heartbeat.
pub(crate) fn respond(
    events: impl Stream<Item = std::result::Result<Event, Infallible>> + Send + 'static,
) -> Response {
    let mut response =
        Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("heartbeat")).into_response();
    // Proxies must not collect the stream.
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
        .headers_mut()
        .insert(axum::http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    response
}

/// `<generation>-<tick>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    generation: u64,
    tick: u64,
}

impl Id {
    fn parse(text: &str) -> Option<Id> {
        let (generation, tick) = text.split_once('-')?;
        Some(Id { generation: generation.parse().ok()?, tick: tick.parse().ok()? })
    }
}

/// What makes an answer another one.
#[derive(Debug, PartialEq)]
struct Content {
    /// Start of the window; none for sliding ones, whose bounds move all the time without news.
    start: Option<i64>,
    complete: bool,
    value: Value,
    level: Option<String>,
    rows: Vec<Row>,
}

impl Content {
    fn of(metric: &Metric, answer: &Answer) -> Content {
        let window = metric.windows.iter().find(|w| w.name == answer.window);
        let slides = window.is_some_and(|w| matches!(w.kind, WindowKind::Sliding { .. }));
        Content {
            start: if slides { None } else { answer.start },
            complete: answer.complete,
            value: answer.value.clone(),
            level: answer.level.clone(),
            rows: answer.rows.clone(),
        }
    }
}

/// One question whose answer is followed.
struct Watch {
    name: String,
    query: MetricQuery,
    sent: Option<Content>,
    /// Revision of the metric when it was last asked, and when that was.
    asked: Option<(u64, Instant)>,
    resumed: Option<Id>,
}

impl Watch {
    fn new(name: String, query: MetricQuery, resumed: Option<Id>) -> Watch {
        Watch { name, query, sent: None, asked: None, resumed }
    }

    /// Forgets what was sent: the contracts are others now.
    fn restart(&mut self) {
        (self.sent, self.asked, self.resumed) = (None, None, None);
    }

    /// The next event, if there is news.
    fn step(&mut self, app: &App, live: &Live, published: &Published) -> Result<Option<Event>> {
        let index = find(live, &self.name)?;
        let revision = published.metric_revision(index);
        if self.asked.is_some_and(|(before, at)| before == revision && at.elapsed() < ASK) {
            return Ok(None);
        }
        let mut answer = published.metric(index, &self.query)?;
        answer.complete &= app.settled(published);
        let content = Content::of(&published.catalog.metrics[index], &answer);
        self.asked = Some((revision, Instant::now()));
        if self.sent.as_ref() == Some(&content) {
            return Ok(None);
        }
        let first = self.sent.replace(content).is_none();
        let id = app.generation_id(live);
        if first && self.up_to_date(id, live, index) {
            return Ok(None);
        }
        let body = metrics::shape(
            published,
            index,
            &self.query,
            &answer,
            &Page::first(&answer, app.limits.max_rows),
        );
        let event = Event::default()
            .event(if first { "snapshot" } else { "change" })
            .id(format!("{id}-{}", published.tick))
            .data(serde_json::to_string(&body).unwrap_or_default());
        Ok(Some(event))
    }

    /// The client has seen this very answer before it lost its connection.
    fn up_to_date(&mut self, generation: u64, live: &Live, index: usize) -> bool {
        let Some(seen) = self.resumed.take() else { return false };
        seen.generation == generation && live.hook.changed_at(index).is_some_and(|tick| tick <= seen.tick)
    }
}

/// One client.
struct Follow {
    app: Arc<App>,
    ticks: watch::Receiver<u64>,
    swaps: u64,
    watches: Vec<Watch>,
    /// Follow the metrics of new contracts, too.
    all: bool,
    every: Duration,
    ready: VecDeque<Event>,
    sent_at: Option<Instant>,
    looked_at: Option<Instant>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

type Step = Option<(std::result::Result<Event, Infallible>, Follow)>;

impl Follow {
    fn start(app: Arc<App>, watches: Vec<Watch>, all: bool, every: Duration) -> Result<Response> {
        let permit = permit(&app)?;
        let follow = Follow {
            ticks: app.ticks(),
            swaps: app.swaps(),
            watches,
            all,
            every,
            ready: VecDeque::new(),
            sent_at: None,
            looked_at: None,
            ended: false,
            app,
            _permit: permit,
        };
        Ok(respond(futures::stream::unfold(follow, Follow::next)))
    }

    async fn next(mut self) -> Step {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            if self.ended {
                return None;
            }
            self.rest().await;
            self.ticks.borrow_and_update();
            if self.app.draining() {
                self.ended = true;
                self.ready.push_back(drained());
                continue;
            }
            self.collect();
            if !self.ready.is_empty() {
                self.sent_at = Some(Instant::now());
                continue;
            }
            if self.ticks.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Keeps the distances between two events and between two looks.
    async fn rest(&mut self) {
        if self.every.is_zero() {
            return;
        }
        let sent = self.sent_at.map(|at| at + self.every);
        let looked = self.looked_at.map(|at| at + LOOK.min(self.every));
        if let Some(until) = sent.max(looked) {
            tokio::time::sleep_until(until).await;
        }
        self.looked_at = Some(Instant::now());
    }

    /// Puts the news of one whole tick into `ready`.
    fn collect(&mut self) {
        // None between two engines: the next swap wakes us.
        let Ok(live) = self.app.live() else { return };
        let swaps = self.app.swaps();
        if swaps != self.swaps {
            self.swaps = swaps;
            self.watches.iter_mut().for_each(Watch::restart);
            if self.all {
                self.watches = watch_all(&live, None);
            }
        }
        let published = live.reader.load();
        for watch in &mut self.watches {
            match watch.step(&self.app, &live, &published) {
                Ok(event) => self.ready.extend(event),
                Err(problem) => {
                    self.ready.push_back(problem_event(&problem));
                    self.ended = true;
                    return;
                }
            }
        }
    }
}

fn watch_all(live: &Live, resumed: Option<Id>) -> Vec<Watch> {
    served(live).map(|m| Watch::new(m.head.name.clone(), MetricQuery::default(), resumed)).collect()
}

/// The last event of a stream at shutdown.
pub(crate) fn drained() -> Event {
    Event::default().event("drain").data("{\"reason\":\"the server is shutting down\"}")
}

/// The last event of a stream that cannot go on.
pub(crate) fn problem_event(problem: &Problem) -> Event {
    Event::default().event("error").data(serde_json::to_string(&problem.body()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        assert_eq!(Id::parse("7-42"), Some(Id { generation: 7, tick: 42 }));
        for text in ["", "7", "x-1", "1-", "-1"] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }
}
