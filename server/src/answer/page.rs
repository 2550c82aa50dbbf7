//! GET `/`: the first page.
//!
//! *In*: nothing. *Out*: HTML, CSS and JavaScript that are part of the binary. *Never*: a resource
//! from another host, a build step.

use axum::response::{Html, Response};

use super::docs::asset;

/// Live metrics, freshness and sources.
#[utoipa::path(
    get, path = "/", tag = "page", operation_id = "getPage",
    responses((status = 200, description = "HTML", content_type = "text/html", body = String))
)]
pub(crate) async fn page() -> Html<&'static str> {
    Html(include_str!("../page/index.html"))
}

/// The script of `/`.
#[utoipa::path(
    get, path = "/assets/app.js", tag = "page", operation_id = "getPageScript",
    responses((status = 200, description = "JavaScript", content_type = "text/javascript", body = String))
)]
pub(crate) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("../page/app.js"))
}

/// The style of both pages.
#[utoipa::path(
    get, path = "/assets/style.css", tag = "page", operation_id = "getPageStyle",
    responses((status = 200, description = "CSS", content_type = "text/css", body = String))
)]
pub(crate) async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("../page/style.css"))
}
