//! GET `/v1/contracts/{name}/{version}` and `/v1/contracts/{name}/diff/{a}/{b}`: contracts as they once ran.
//!
//! *In*: the sets of contracts that have run here. *Out*: one of them, or what changed between two. *Never*: a version
//! that was only written and did not run.

use std::sync::Arc;

use ::contracts::catalog::Head;
use ::contracts::text::SourceFile;
use ::contracts::value::time::format_timestamp;
use ::contracts::{Catalog, Change, Class, Kind};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value as JsonValue, json};

use super::candidate::change;
use super::contracts::{all, find, full, word};
use super::params::Params;
use crate::app::App;
use crate::error::{Path, Problem, ProblemBody, Result};
use crate::history::Set;

/// A contract in one version, with all that ran beside it.
struct Version {
    text: String,
    since: i64,
    catalog: Catalog,
    texts: Vec<SourceFile>,
}

fn text((major, minor, patch): (u64, u64, u64)) -> String {
    format!("{major}.{minor}.{patch}")
}

/// The newest version that `asked` means: `1.2.0`, `1.2`, `1`, `v1`.
fn pick(versions: Vec<((u64, u64, u64), Set)>, asked: &str) -> Result<(String, Set)> {
    let wanted = asked.strip_prefix('v').unwrap_or(asked);
    let means = |version: &str| version == wanted || version.starts_with(&format!("{wanted}."));
    let known: Vec<String> = versions.iter().map(|(version, _)| text(*version)).collect();
    let mut found = versions.into_iter().map(|(version, set)| (text(version), set));
    found
        .find(|(version, _)| means(version))
        .ok_or_else(|| Problem::unknown(StatusCode::NOT_FOUND, "unknown_version", "version", asked, known))
}

impl Version {
    fn read(app: &App, kind: Kind, name: &str, asked: &str) -> Result<Version> {
        let (text, set) = pick(app.history.versions(kind, name), asked)?;
        let texts = set.texts();
        let loaded = ::contracts::load(&texts);
        if loaded.has_errors() {
            let detail = format!(
                "Version {text} ran with an earlier program; this one finds mistakes in it: {}",
                ::contracts::diagnostic::render(&loaded.diagnostics)
            );
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unreadable_version", detail));
        }
        Ok(Version { text, since: set.since, catalog: loaded.catalog, texts })
    }

    fn found(&self, kind: Kind, name: &str) -> Option<((Kind, usize), &Head)> {
        all(&self.catalog).into_iter().find(|((k, _), head)| *k == kind && head.name == name)
    }
}

/// One contract in a version that runs or has run.
#[utoipa::path(
    get, path = "/v1/contracts/{name}/{version}", tag = "contracts", operation_id = "getContractVersion",
    params(
        ("name" = String, Path, description = "Name of a contract that runs"),
        ("version" = String, Path, description = "`v1`, `1` or `1.2`: the newest of them; `1.2.0`"),
    ),
    responses(
        (status = 200, description = "As without the version, in the text that ran last with that version", body = Object),
        (status = 404, description = "No such contract, or not in this version; the versions there are", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Ran with an earlier program that took what this one does not", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Path((name, version)): Path<(String, String)>,
    params: Params,
) -> Result<Json<JsonValue>> {
    params.only(&[])?;
    let live = app.live()?;
    let ((kind, _), head) = find(&live, &name)?;
    let version = Version::read(&app, kind, &head.name, &version)?;
    let Some((found, head)) = version.found(kind, &head.name) else {
        return Err(Problem::internal("The contract is not in the set that its version is from."));
    };
    let mut out = full(&version.catalog, &version.texts, found, head);
    out["released"] = json!(format_timestamp(version.since));
    Ok(Json(out))
}

/// What changed between two versions of a contract that have run here.
///
/// The last 100 sets of contracts that have run are kept in the data folder, so a version can be compared
/// from the day this server first ran it.
#[utoipa::path(
    get, path = "/v1/contracts/{name}/diff/{a}/{b}", tag = "contracts", operation_id = "diffContractVersions",
    params(
        ("name" = String, Path, description = "Name of a contract that runs"),
        ("a" = String, Path, description = "The version before: `v1`, `1.2`, `1.2.0`"),
        ("b" = String, Path, description = "The version after"),
    ),
    responses(
        (status = 200, description = "`{entity, kind, from_version, to_version, from_released, to_released, is_breaking, requires_version_bump, breaking_changes, additive_changes}`", body = Object),
        (status = 404, description = "No such contract, or not in these versions; the versions there are", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Ran with an earlier program that took what this one does not", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn diff(
    State(app): State<Arc<App>>,
    Path((name, a, b)): Path<(String, String, String)>,
    params: Params,
) -> Result<Json<JsonValue>> {
    params.only(&[])?;
    let live = app.live()?;
    let ((kind, _), head) = find(&live, &name)?;
    let from = Version::read(&app, kind, &head.name, &a)?;
    let to = Version::read(&app, kind, &head.name, &b)?;
    // Whoever asks for the way back knows that the version is lower there.
    let own = |c: &Change| c.kind == kind && c.name == head.name && c.what != "version_lowered";
    let changes: Vec<Change> =
        ::contracts::diff(&from.catalog, &to.catalog).into_iter().filter(own).collect();
    let (breaking, additive): (Vec<_>, Vec<_>) = changes.iter().partition(|c| c.class == Class::Breaking);
    Ok(Json(json!({
        "entity": head.name,
        "kind": word(kind),
        "from_version": from.text,
        "to_version": to.text,
        "from_released": format_timestamp(from.since),
        "to_released": format_timestamp(to.since),
        "is_breaking": !breaking.is_empty(),
        "requires_version_bump": changes.iter().any(|c| !c.version_ok),
        "breaking_changes": breaking.into_iter().map(change).collect::<Vec<_>>(),
        "additive_changes": additive.into_iter().map(change).collect::<Vec<_>>(),
    })))
}
