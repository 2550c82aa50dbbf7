//! GET `/openapi.json` and `/docs`.
//!
//! *In*: the annotations of the endpoints. *Out*: the OpenAPI 3.1 document and a page that shows it.
//! *Never*: a resource from another host.

use std::sync::OnceLock;

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use utoipa::openapi::{ContactBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};

/// Title, version and licence.
pub(crate) fn head() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Streamgauge")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Live metrics from events. Every error is an RFC 9457 problem document. \
             Decimals are strings, instants RFC 3339 UTC, durations seconds; null is \"nothing to say\" and never 0.",
        ))
        .contact(Some(ContactBuilder::new().name(Some("Streamgauge")).build()))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    OpenApiBuilder::new().info(info).build()
}

/// The OpenAPI 3.1 document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "docs", operation_id = "getOpenApi",
    responses((status = 200, description = "This document", body = Object))
)]
pub(crate) async fn openapi() -> Response {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    let text = DOCUMENT.get_or_init(|| super::openapi().to_json().unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], text.as_str()).into_response()
}

/// The page that shows the OpenAPI document.
#[utoipa::path(
    get, path = "/docs", tag = "docs", operation_id = "getDocs",
    responses((status = 200, description = "HTML", content_type = "text/html", body = String))
)]
pub(crate) async fn docs() -> Html<&'static str> {
    Html(include_str!("../page/docs.html"))
}

/// The script of `/docs`.
#[utoipa::path(
    get, path = "/assets/docs.js", tag = "docs", operation_id = "getDocsScript",
    responses((status = 200, description = "JavaScript", content_type = "text/javascript", body = String))
)]
pub(crate) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("../page/docs.js"))
}

/// An embedded file; browsers ask again each time, so that an update is seen at once.
pub(crate) fn asset(content_type: &'static str, text: &'static str) -> Response {
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
