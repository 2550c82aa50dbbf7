//! answer: everything that can be asked over HTTP, one group of endpoints per file.
//!
//! *In*: HTTP requests. *Out*: answers from what is published. *Never*: a route that is not in the
//! OpenAPI document, an error that is not a problem document.

mod backfill;
mod candidate;
mod catalog;
mod cells;
mod checkpoints;
mod contracts;
mod deadletter;
pub(crate) mod describe;
mod docs;
mod entity;
mod events;
mod health;
mod hooks;
mod lineage;
mod linger;
mod metrics;
mod page;
mod params;
mod replay;
mod selfmetrics;
mod series;
mod stream;
mod taps;
pub(crate) mod token;
mod versions;
mod why;

use std::sync::Arc;

use axum::Router;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use health::{CaughtUp, source};
pub(crate) use params::wall_now;

use crate::app::App;
use crate::{error, telemetry};

/// The documented routes.
fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(docs::head())
        .routes(routes!(events::push))
        .routes(routes!(hooks::deliver))
        .routes(routes!(metrics::list))
        .routes(routes!(metrics::read))
        .routes(routes!(why::read))
        .routes(routes!(series::series))
        .routes(routes!(stream::stream))
        .routes(routes!(stream::stream_many))
        .routes(routes!(entity::read))
        .routes(routes!(taps::stream))
        .routes(routes!(catalog::read))
        .routes(routes!(contracts::list))
        .routes(routes!(contracts::read))
        .routes(routes!(versions::read))
        .routes(routes!(versions::diff))
        .routes(routes!(candidate::validate))
        .routes(routes!(candidate::diff))
        .routes(routes!(lineage::read))
        .routes(routes!(deadletter::list))
        .routes(routes!(deadletter::stats))
        .routes(routes!(deadletter::read))
        .routes(routes!(replay::replay))
        .routes(routes!(replay::dismiss))
        .routes(routes!(backfill::start, backfill::read))
        .routes(routes!(health::health))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(selfmetrics::metrics))
        .routes(routes!(docs::openapi))
        .routes(routes!(docs::docs))
        .routes(routes!(docs::script))
        .routes(routes!(page::page))
        .routes(routes!(page::script))
        .routes(routes!(page::style))
}

/// The OpenAPI 3.1 document of this server.
pub fn openapi() -> OpenApi {
    routes().into_openapi()
}

/// All routes, with their limits, headers, spans and counters.
pub fn router(app: Arc<App>) -> Router {
    let (routes, _) = routes().split_for_parts();
    routes
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(CompressionLayer::new().gzip(true))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(axum::middleware::from_fn_with_state(app.clone(), telemetry::observe))
        .layer(axum::middleware::map_request(async |request| linger::linger(request)))
        .with_state(app)
}
