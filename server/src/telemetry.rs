//! What we count about ourselves, and what wraps every request.
//!
//! *In*: requests. *Out*: request ids, spans, security headers, counters and latencies per route.
//! *Never*: a path with a user's value in it as a label (routes are).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tracing::Instrument;

use crate::app::App;
use crate::error::Problem;

/// Upper bounds of the request latency buckets, seconds.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Everything the pages of this server need is its own; nothing else may load or run.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                   base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Labels of the request counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

/// Labels of the latency histogram.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RouteLabels {
    method: String,
    route: String,
}

/// Labels of the webhook counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct HookLabels {
    source: String,
    outcome: String,
}

type Latency = Family<RouteLabels, Histogram, fn() -> Histogram>;

/// Counters of the HTTP side.
#[derive(Debug, Clone)]
pub(crate) struct Telemetry {
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) latency: Latency,
    /// Deliveries of webhooks by source and outcome.
    pub(crate) hooks: Family<HookLabels, Counter>,
    /// Ticks are counted by the pulse; this counts panics of handlers.
    pub(crate) panics: Arc<AtomicU64>,
}

impl Default for Telemetry {
    fn default() -> Telemetry {
        Telemetry {
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            hooks: Family::default(),
            panics: Arc::default(),
        }
    }
}

impl Telemetry {
    /// Counts one delivery; sources are those of the settings, outcomes a handful of words.
    pub(crate) fn delivery(&self, source: &str, outcome: &'static str) {
        let labels = HookLabels { source: source.to_owned(), outcome: outcome.to_owned() };
        self.hooks.get_or_create(&labels).inc();
    }
}

/// Wraps every request.
pub(crate) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let method = request.method().as_str().to_owned();
    // Only paths of our routes become labels; everything else is one.
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("http", %method, %route, request_id = %id);
    let limit = app.limits.request;
    let mut response = match tokio::time::timeout(limit, next.run(request).instrument(span.clone())).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            axum::http::StatusCode::GATEWAY_TIMEOUT,
            "timeout",
            format!("The answer was not ready within {} s.", limit.as_secs()),
        )
        .into_response(),
    };
    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    span.in_scope(|| tracing::debug!(status, ms = elapsed.as_secs_f64() * 1e3, "answered"));
    if status == 500 {
        app.telemetry.panics.fetch_add(1, Ordering::Relaxed);
    }
    app.telemetry
        .requests
        .get_or_create(&RequestLabels { method: method.clone(), route: route.clone(), status })
        .inc();
    app.telemetry.latency.get_or_create(&RouteLabels { method, route }).observe(elapsed.as_secs_f64());
    headers(&mut response, &id);
    response
}

/// The caller's id when it is harmless, else a new one.
fn request_id(request: &Request) -> String {
    let given = ["x-request-id", "x-correlation-id"]
        .iter()
        .find_map(|name| request.headers().get(*name)?.to_str().ok());
    match given {
        Some(id) if (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()) => {
            id.to_owned()
        }
        _ => uuid::Uuid::new_v4().to_string(),
    }
}

fn headers(response: &mut Response, id: &str) {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
