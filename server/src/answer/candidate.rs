//! POST `/v1/contracts/{name}/validate` and `/diff`: what a change of a contract would mean.
//!
//! *In*: the live contracts and a candidate text. *Out*: mistakes and changes. *Never*: a change of the
//! live contracts (files and reload do that).

use std::sync::Arc;

use ::contracts::catalog::Head;
use ::contracts::diagnostic::Diagnostic;
use ::contracts::text::SourceFile;
use ::contracts::{Change, Class, Kind};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Value as JsonValue, json};

use super::contracts::{all, document, find, word};
use super::describe;
use super::params::Params;
use crate::app::{App, Live};
use crate::error::{Path, Problem, ProblemBody, ProblemItem, Result, read_body};

/// File name of a candidate in diagnostics.
const CANDIDATE: &str = "candidate";

/// The live files with `candidate` in the place of the contract's document.
fn with_candidate(live: &Live, head: &Head, candidate: &str) -> Vec<SourceFile> {
    let place = document(&live.texts, head).map(|(_, place)| place);
    let mut files: Vec<SourceFile> = live
        .texts
        .iter()
        .map(|file| match place {
            Some((cut, start, end)) if cut.path == file.path => {
                // Emptied lines keep the numbers of the others.
                let lines = file.text.lines().enumerate();
                let kept: Vec<&str> =
                    lines.map(|(i, l)| if (start..end).contains(&i) { "" } else { l }).collect();
                SourceFile::new(file.path.clone(), kept.join("\n"))
            }
            _ => file.clone(),
        })
        .collect();
    files.push(SourceFile::new(CANDIDATE, candidate));
    files
}

/// A candidate that was read: the catalog it would make, and all mistakes.
struct Candidate {
    loaded: ::contracts::Loaded,
}

impl Candidate {
    async fn read(app: &App, live: &Live, head: &Head, request: Request) -> Result<Candidate> {
        let body = read_body(request, app.limits.body).await?;
        let text = std::str::from_utf8(&body)
            .map_err(|e| Problem::bad_request("not_utf8", format!("The body is not UTF-8: {e}.")))?;
        if text.trim().is_empty() {
            return Err(Problem::bad_request("empty_body", "Send the candidate contract as YAML or JSON."));
        }
        let loaded = ::contracts::load(&with_candidate(live, head, text));
        Ok(Candidate { loaded })
    }

    /// The head of the contract in the candidate's catalog.
    fn head(&self, kind: Kind, name: &str) -> Option<&Head> {
        all(&self.loaded.catalog)
            .into_iter()
            .find(|((k, _), head)| *k == kind && head.name == name)
            .map(|(_, head)| head)
    }

    /// 400 when the candidate is about something else.
    fn about(&self, kind: Kind, head: &Head) -> Result<()> {
        let other = all(&self.loaded.catalog)
            .into_iter()
            .find(|((k, _), h)| h.file == CANDIDATE && (*k != kind || h.name != head.name))
            .map(|((k, _), h)| format!("{} `{}`", word(k), h.name));
        // A contract that is there already stands in its own file, so the candidate's is a second one.
        let second =
            self.loaded.diagnostics.iter().find(|d| d.code == "duplicate_contract" && d.file == CANDIDATE);
        match other.or_else(|| second.map(|d| format!("another one ({})", d.message))) {
            None => Ok(()),
            Some(other) => Err(Problem::bad_request(
                "other_contract",
                format!("The candidate is about {other}, not about {} `{}`.", word(kind), head.name),
            )),
        }
    }
}

fn mistake(diagnostic: &Diagnostic) -> JsonValue {
    let mut out = serde_json::to_value(diagnostic).unwrap_or_default();
    out["text"] = json!(diagnostic.to_string());
    out
}

/// Check a candidate (YAML or JSON) in the place of the live contract.
#[utoipa::path(
    post, path = "/v1/contracts/{name}/validate", tag = "contracts", operation_id = "validateContract",
    params(("name" = String, Path, description = "Name of the live contract")),
    request_body(content = String, description = "The candidate contract, YAML or JSON", content_type = "application/yaml"),
    responses(
        (status = 200, description = "`{valid, errors, warnings, base_version, candidate_version, breaking_changes, safe_changes, is_breaking, requires_version_bump}`", body = Object),
        (status = 400, description = "Empty, or about another contract", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such contract", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn validate(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    params: Params,
    request: Request,
) -> Result<Json<JsonValue>> {
    params.only(&[])?;
    let live = app.live()?;
    let ((kind, _), head) = find(&live, &name)?;
    let candidate = Candidate::read(&app, &live, head, request).await?;
    candidate.about(kind, head)?;
    let (errors, warnings): (Vec<_>, Vec<_>) =
        candidate.loaded.diagnostics.iter().partition(|d| d.is_error());
    let mut out = changes(&live, kind, head, &candidate);
    out["valid"] = json!(errors.is_empty());
    out["errors"] = errors.into_iter().map(mistake).collect();
    out["warnings"] = warnings.into_iter().map(mistake).collect();
    Ok(Json(out))
}

/// What a candidate would change, for readers and for state.
#[utoipa::path(
    post, path = "/v1/contracts/{name}/diff", tag = "contracts", operation_id = "diffContract",
    params(("name" = String, Path, description = "Name of the live contract")),
    request_body(content = String, description = "The candidate contract, YAML or JSON", content_type = "application/yaml"),
    responses(
        (status = 200, description = "`{from_version, to_version, is_breaking, requires_version_bump, breaking_changes, additive_changes}`", body = Object),
        (status = 404, description = "No such contract", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "The candidate has mistakes", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn diff(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    params: Params,
    request: Request,
) -> Result<Json<JsonValue>> {
    params.only(&[])?;
    let live = app.live()?;
    let ((kind, _), head) = find(&live, &name)?;
    let candidate = Candidate::read(&app, &live, head, request).await?;
    candidate.about(kind, head)?;
    if candidate.loaded.has_errors() {
        let mut problem = Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_contract",
            "The candidate has mistakes, so it cannot be compared.",
        );
        problem.errors = candidate.loaded.diagnostics.iter().filter(|d| d.is_error()).map(item).collect();
        return Err(problem);
    }
    Ok(Json(changes(&live, kind, head, &candidate)))
}

fn item(diagnostic: &Diagnostic) -> ProblemItem {
    ProblemItem {
        place: format!("{}:{}:{}", diagnostic.file, diagnostic.line, diagnostic.column),
        code: diagnostic.code.to_owned(),
        message: diagnostic.message.clone(),
        found: diagnostic.found.clone(),
        allowed: diagnostic.allowed.iter().cloned().collect(),
        help: diagnostic.fix.clone(),
    }
}

/// What the candidate changes (also in contracts that stand on it), as `streamgauge diff` says it.
fn changes(live: &Live, kind: Kind, head: &Head, candidate: &Candidate) -> JsonValue {
    let base = describe::version(head);
    let version = candidate.head(kind, &head.name).map(describe::version);
    // A candidate with mistakes is not in its catalog: that is not a removal.
    let changes = match version {
        Some(_) => ::contracts::diff(&live.catalog, &candidate.loaded.catalog),
        None => Vec::new(),
    };
    let shown = |breaking: bool| -> Vec<JsonValue> {
        changes.iter().filter(|c| (c.class == Class::Breaking) == breaking).map(change).collect()
    };
    let (breaking, additive) = (shown(true), shown(false));
    json!({
        "entity": head.name,
        "kind": word(kind),
        "base_version": base,
        "candidate_version": version,
        "from_version": base,
        "to_version": version,
        "is_breaking": !breaking.is_empty(),
        "requires_version_bump": changes.iter().any(|c| !c.version_ok),
        "safe_changes": additive,
        "additive_changes": additive,
        "breaking_changes": breaking,
    })
}

/// A change as JSON.
pub(super) fn change(change: &Change) -> JsonValue {
    let mut out = serde_json::to_value(change).unwrap_or_default();
    out["kind"] = json!(word(change.kind));
    out["type"] = json!(change.what);
    out["severity"] = json!(if change.class == Class::Breaking { "breaking" } else { "non_breaking" });
    out
}
