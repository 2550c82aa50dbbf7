//! Every error an HTTP client can see, in one place.
//!
//! *In*: what went wrong, as a code, a sentence and the places. *Out*: RFC 9457
//! `application/problem+json` with `type`, `title`, `status`, `detail`, `code`, `errors[]`.
//! *Never*: a plain-text error, a stack trace, a secret.

use std::convert::Infallible;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, OriginalUri, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::QueryError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

/// A refused request. Becomes an `application/problem+json` answer.
#[derive(Debug, Clone)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable name of the mistake, `snake_case`.
    pub code: &'static str,
    /// What happened and what to do about it, one or two sentences.
    pub detail: String,
    /// Places in the input, where there are any.
    pub errors: Vec<ProblemItem>,
    /// Seconds for the `Retry-After` header.
    pub retry_after: Option<u64>,
    /// Value of the `Allow` header (405).
    pub allow: Option<HeaderValue>,
}

/// One place of a mistake.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct ProblemItem {
    /// Where: a parameter name, a field path, `file:line:column`.
    #[serde(rename = "in")]
    pub place: String,
    /// Stable name of the mistake.
    pub code: String,
    /// What was found and what is allowed.
    pub message: String,
    /// The value as given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What is allowed, where that is a list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// The fix, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// The body of every error answer (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemBody {
    /// `urn:streamgauge:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened and what to do about it.
    pub detail: String,
    /// Stable name of the mistake.
    pub code: String,
    /// Places in the input.
    pub errors: Vec<ProblemItem>,
}

/// What handlers return.
pub type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    /// A problem without places.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem { status, code, detail: detail.into(), errors: Vec::new(), retry_after: None, allow: None }
    }

    /// 400.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 404.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 422 about one parameter.
    pub fn parameter(name: &str, found: &str, message: impl Into<String>) -> Problem {
        let message = message.into();
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_parameter", format!("{name}: {message}"))
            .item(ProblemItem {
                place: name.into(),
                code: "invalid_parameter".into(),
                message,
                found: Some(found.into()),
                ..ProblemItem::default()
            })
    }

    /// 503 with `Retry-After`.
    pub fn unavailable(code: &'static str, detail: impl Into<String>, seconds: u64) -> Problem {
        let mut problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        problem.retry_after = Some(seconds);
        problem
    }

    /// 500: our mistake.
    pub fn internal(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// Adds a place.
    pub fn item(mut self, item: ProblemItem) -> Problem {
        self.errors.push(item);
        self
    }

    /// A name that does not exist: `status`, the names there are (nearest first) and a hint.
    pub fn unknown(
        status: StatusCode,
        code: &'static str,
        what: &str,
        found: &str,
        allowed: Vec<String>,
    ) -> Problem {
        let allowed = nearest(found, allowed);
        let detail = match allowed.first() {
            None => format!("There is no {what} `{found}`; there is none at all."),
            Some(near) if similar(found, near) => {
                format!(
                    "There is no {what} `{found}`. Did you mean `{near}`? There are: {}.",
                    allowed.join(", ")
                )
            }
            Some(_) => format!("There is no {what} `{found}`. There are: {}.", allowed.join(", ")),
        };
        Problem::new(status, code, detail.clone()).item(ProblemItem {
            place: what.into(),
            code: code.into(),
            message: detail,
            found: Some(found.into()),
            allowed,
            help: None,
        })
    }

    /// The JSON body.
    pub fn body(&self) -> ProblemBody {
        ProblemBody {
            kind: format!("urn:streamgauge:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            code: self.code.to_owned(),
            errors: self.errors.clone(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.body()).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Problem {
        let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
        match error {
            QueryError::Unknown { what, found, allowed } => {
                let code = match what {
                    "window" => "unknown_window",
                    "measure" => "unknown_measure",
                    "dimension" => "unknown_dimension",
                    _ => "unknown_name",
                };
                Problem::unknown(unprocessable, code, what, &found, allowed)
            }
            QueryError::AsOf { ref found, .. } => {
                let mut problem = Problem::parameter("as_of", found, error.to_string());
                problem.code = "as_of_out_of_range";
                problem
            }
            QueryError::Filter(message) => {
                let mut problem = Problem::parameter("where", "", message);
                problem.code = "invalid_where";
                problem
            }
            QueryError::Series(message) => {
                let mut problem = Problem::parameter("step", "", message);
                problem.code = "invalid_series";
                problem
            }
        }
    }
}

impl From<Infallible> for Problem {
    fn from(never: Infallible) -> Problem {
        match never {}
    }
}

/// `allowed`, the names nearest to `found` first.
fn nearest(found: &str, mut allowed: Vec<String>) -> Vec<String> {
    let found = found.to_lowercase();
    allowed.sort_by_cached_key(|name| (distance(&found, &name.to_lowercase()), name.clone()));
    allowed
}

fn similar(found: &str, near: &str) -> bool {
    distance(&found.to_lowercase(), &near.to_lowercase()) <= (near.chars().count() / 3).max(1)
}

fn distance(a: &str, b: &str) -> usize {
    strsim::osa_distance(a, b)
}

/// 404 for paths that are no route.
pub async fn no_route(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::not_found(
        "no_route",
        format!("There is nothing at `{}`. The paths are listed at /openapi.json and /docs.", uri.path()),
    )
}

/// 405 for methods that a route does not have.
pub async fn no_method(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{method} is not allowed on `{}`. The methods of each path are at /docs.", uri.path()),
    )
}

/// 500 for a handler that panicked; the panic itself is in the log.
pub fn panicked(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = message, "a request handler panicked");
    Problem::internal("A bug in streamgauge stopped this request; its cause is in the server's log.")
        .into_response()
}

/// Path parameters whose rejection is a problem answer.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Path(value)),
            Err(rejection) => Err(path_problem(&rejection)),
        }
    }
}

fn path_problem(rejection: &PathRejection) -> Problem {
    Problem::bad_request("invalid_path", rejection.body_text())
}

/// Reads a whole body of at most `limit` bytes: 413 above it.
pub async fn read_body(request: Request, limit: usize) -> Result<bytes::Bytes> {
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    if declared.is_some_and(|n| n > limit as u64) {
        return Err(too_large(limit));
    }
    axum::body::to_bytes(request.into_body(), limit).await.map_err(|error| {
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        while let Some(inner) = source {
            if inner.to_string().contains("length limit exceeded") {
                return too_large(limit);
            }
            source = inner.source();
        }
        Problem::bad_request("unreadable_body", format!("The body could not be read: {error}."))
    })
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("The body is larger than {limit} bytes (limits.body). Send fewer events per request."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_list_the_nearest_first() {
        let problem = Problem::unknown(
            StatusCode::NOT_FOUND,
            "unknown_metric",
            "metric",
            "revenu",
            vec!["order_count".into(), "revenue".into()],
        );
        assert_eq!(problem.errors[0].allowed, ["revenue", "order_count"]);
        assert!(problem.detail.contains("Did you mean `revenue`?"), "{}", problem.detail);
    }

    #[test]
    fn the_body_has_the_promised_members() {
        let body = serde_json::to_value(Problem::parameter("window", "7d", "not one of 1h").body()).unwrap();
        for member in ["type", "title", "status", "detail", "code", "errors"] {
            assert!(body.get(member).is_some(), "{member}");
        }
        assert_eq!(body["status"], 422);
        assert_eq!(body["errors"][0]["in"], "window");
    }

    #[test]
    fn a_panic_is_a_problem_without_its_text() {
        let response = panicked(Box::new("secret".to_owned()));
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
