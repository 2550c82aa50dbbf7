//! Commits that the iceberg crate has no transaction for: table updates of our own, on one snapshot.
//!
//! *In*: a table as it was loaded, and updates. *Out*: they are committed, or the table has moved. *Never*: on anything
//! but the snapshot that was loaded. Through what is public: the one row of a SQL catalog that names the newest metadata
//! (its form is shared with the Java and Python implementations), or the commit request of the REST protocol.

use std::str::FromStr;

use iceberg::table::Table;
use iceberg::{MetadataLocation, TableRequirement, TableUpdate};
use serde_json::{Value as JsonValue, json};
use sqlx::AnyPool;
use sqlx::any::{AnyPoolOptions, install_default_drivers};

use super::catalog::{CATALOG_NAME, CatalogKind};

/// Why nothing was committed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SwapError {
    /// Somebody else has committed since.
    #[error("the table has changed meanwhile")]
    Moved,
    /// It failed, or it is not known whether it did.
    #[error("{0}")]
    Failed(String),
}

impl From<iceberg::Error> for SwapError {
    fn from(error: iceberg::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<sqlx::Error> for SwapError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// How to commit.
#[derive(Debug)]
pub(super) enum Swap {
    /// By one row of a database.
    Sql {
        /// Its connection.
        pool: AnyPool,
        /// `UPDATE` with the placeholders of that database.
        update: String,
    },
    /// By a request.
    Rest {
        /// `https://catalog/v1/prefix`.
        base: String,
        /// `Bearer …`.
        authorization: Option<String>,
    },
}

impl Swap {
    pub(super) async fn open(kind: &CatalogKind) -> Result<Self, SwapError> {
        let sql = async |uri: String, mark: fn(usize) -> String| -> Result<Self, SwapError> {
            install_default_drivers();
            let pool = AnyPoolOptions::new().max_connections(1).connect(&uri).await?;
            let update = format!(
                "UPDATE iceberg_tables SET metadata_location = {}, previous_metadata_location = {} \
                 WHERE catalog_name = {} AND table_namespace = {} AND table_name = {} AND metadata_location = {}",
                mark(1),
                mark(2),
                mark(3),
                mark(4),
                mark(5),
                mark(6)
            );
            Ok(Self::Sql { pool, update })
        };
        match kind {
            CatalogKind::Sqlite(file) => {
                sql(format!("sqlite://{}?mode=rwc", file.display()), |_| "?".to_owned()).await
            }
            CatalogKind::Postgres(url) => sql(url.clone(), |n| format!("${n}")).await,
            CatalogKind::Rest { uri, warehouse, properties } => rest(uri, warehouse.as_deref(), properties),
        }
    }

    pub(super) async fn commit(&self, table: &Table, updates: Vec<TableUpdate>) -> Result<(), SwapError> {
        match self {
            Self::Sql { pool, update } => by_row(pool, update, table, updates).await,
            Self::Rest { base, authorization } => by_request(base, authorization.as_deref(), table, updates),
        }
    }
}

async fn by_row(
    pool: &AnyPool,
    update: &str,
    table: &Table,
    updates: Vec<TableUpdate>,
) -> Result<(), SwapError> {
    let current = table.metadata_location_result()?.to_owned();
    let mut builder = table.metadata().clone().into_builder(Some(current.clone()));
    for update in updates {
        builder = update.apply(builder)?;
    }
    let metadata = builder.build()?.metadata;
    let next = MetadataLocation::from_str(&current)?.with_next_version().with_new_metadata(&metadata);
    metadata.write_to(table.file_io(), &next).await?;
    let name = table.identifier();
    let done = sqlx::query(update)
        .bind(next.to_string())
        .bind(&current)
        .bind(CATALOG_NAME)
        .bind(name.namespace().join("."))
        .bind(name.name())
        .bind(&current)
        .execute(pool)
        .await?;
    if done.rows_affected() == 0 { Err(SwapError::Moved) } else { Ok(()) }
}

fn by_request(
    base: &str,
    authorization: Option<&str>,
    table: &Table,
    updates: Vec<TableUpdate>,
) -> Result<(), SwapError> {
    let metadata = table.metadata();
    let requirements = [
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        TableRequirement::RefSnapshotIdMatch {
            r#ref: "main".to_owned(),
            snapshot_id: metadata.current_snapshot_id(),
        },
    ];
    let name = table.identifier();
    // Levels of a namespace are parted by the unit separator.
    let namespace = name.namespace().join("%1F");
    let url = format!("{base}/namespaces/{namespace}/tables/{}", name.name());
    let mut request = agent().post(url).header("content-type", "application/json");
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let body = json!({ "requirements": requirements, "updates": updates }).to_string();
    match request.send(body) {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) if answer.status() == 409 => Err(SwapError::Moved),
        Ok(mut answer) => {
            let text = answer.body_mut().read_to_string().unwrap_or_default();
            Err(SwapError::Failed(format!("the catalog answered {}: {text}", answer.status())))
        }
        Err(error) => Err(SwapError::Failed(error.to_string())),
    }
}

/// What the iceberg crate's client does at its start, too: asks for the prefix, and for a token where there is a credential.
fn rest(uri: &str, warehouse: Option<&str>, properties: &[(String, String)]) -> Result<Swap, SwapError> {
    let failed = |error: ureq::Error| SwapError::Failed(error.to_string());
    let property =
        |name: &str| properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let uri = uri.trim_end_matches('/');
    let read = |mut answer: ureq::http::Response<ureq::Body>| -> Result<JsonValue, SwapError> {
        let text = answer.body_mut().read_to_string().map_err(failed)?;
        serde_json::from_str(&text).map_err(|_| SwapError::Failed(format!("the catalog answered {text}")))
    };
    let token = match (property("token"), property("credential")) {
        (Some(token), _) => Some(token.to_owned()),
        (None, Some(credential)) => {
            let (id, secret) = credential.split_once(':').unwrap_or(("", credential));
            let scope = property("scope").unwrap_or("catalog");
            let form = [
                ("grant_type", "client_credentials"),
                ("client_id", id),
                ("client_secret", secret),
                ("scope", scope),
            ];
            let server =
                property("oauth2-server-uri").map_or_else(|| format!("{uri}/v1/oauth/tokens"), str::to_owned);
            let answer = read(agent().post(server).send_form(form).map_err(failed)?)?;
            answer["access_token"].as_str().map(str::to_owned)
        }
        (None, None) => None,
    };
    let authorization = token.map(|token| format!("Bearer {token}"));
    let mut request = agent().get(format!("{uri}/v1/config"));
    if let Some(warehouse) = warehouse {
        request = request.query("warehouse", warehouse);
    }
    if let Some(authorization) = &authorization {
        request = request.header("authorization", authorization);
    }
    let config = read(request.call().map_err(failed)?)?;
    let prefix = ["overrides", "defaults"].iter().find_map(|part| config[*part]["prefix"].as_str());
    let prefix = prefix.or_else(|| property("prefix")).map(|prefix| format!("/{prefix}")).unwrap_or_default();
    Ok(Swap::Rest { base: format!("{uri}/v1{prefix}"), authorization })
}

fn agent() -> ureq::Agent {
    let patience = Some(std::time::Duration::from_secs(30));
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(patience).build().new_agent()
}
