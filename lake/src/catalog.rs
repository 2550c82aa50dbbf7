//! Catalogs: where the newest metadata of each table is named.
//!
//! *In*: which catalog, and the warehouse. *Out*: the iceberg crate's [`Catalog`], and one that is pinned to a snapshot.
//! *Never*: a commit on another snapshot than the pinned one. The crate's own commit reloads the table, puts the change
//! on top of whatever is there and tries again, which writes rows twice after a lost reply or beside another writer
//! (decision 0014).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use iceberg::{
    Catalog, CatalogBuilder, Error, ErrorKind, Namespace, NamespaceIdent, Result, TableCommit, TableCreation,
    TableIdent,
};
use iceberg_catalog_rest::{REST_CATALOG_PROP_URI, REST_CATALOG_PROP_WAREHOUSE, RestCatalogBuilder};
use iceberg_catalog_sql::{SqlBindStyle, SqlCatalogBuilder};

use uuid::Uuid;

use super::storage::Warehouse;
use crate::place::Place;

/// Which catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogKind {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database: `postgres://user:password@host/database`.
    Postgres(String),
    /// An Iceberg REST catalog.
    Rest {
        /// Its address.
        uri: String,
        /// The warehouse's name there, where it has several.
        warehouse: Option<String>,
        /// `token`, `credential`, `scope`, …, as the REST catalog calls them.
        properties: Vec<(String, String)>,
    },
}

/// The name under which tables are kept in a SQL catalog. Other programs that open the same database ask for it.
pub const CATALOG_NAME: &str = "streamgauge";

/// Opens a catalog over the files of `place`.
pub(super) async fn open(kind: &CatalogKind, place: &Place) -> Result<Arc<dyn Catalog>> {
    let files = Arc::new(Warehouse::new(place.clone()));
    let sql = |uri: String, style: SqlBindStyle| {
        let builder = SqlCatalogBuilder::default().uri(uri).warehouse_location(place.url());
        // A pool of one connection: SQLite has one writer anyway, and we are one thread.
        let builder = builder.sql_bind_style(style).prop("pool.max-connections", "1");
        builder.with_storage_factory(Arc::<Warehouse>::clone(&files)).load(CATALOG_NAME, HashMap::new())
    };
    Ok(match kind {
        CatalogKind::Sqlite(file) => {
            if let Some(folder) = file.parent() {
                let failed =
                    |error| Error::new(ErrorKind::Unexpected, format!("{}: {error}", folder.display()));
                std::fs::create_dir_all(folder).map_err(failed)?;
            }
            let uri = format!("sqlite://{}?mode=rwc", file.display());
            Arc::new(sql(uri, SqlBindStyle::QMark).await?)
        }
        CatalogKind::Postgres(url) => Arc::new(sql(url.clone(), SqlBindStyle::DollarNumeric).await?),
        CatalogKind::Rest { uri, warehouse, properties } => {
            let mut properties: HashMap<String, String> = properties.iter().cloned().collect();
            properties.insert(REST_CATALOG_PROP_URI.to_owned(), uri.clone());
            if let Some(warehouse) = warehouse {
                properties.insert(REST_CATALOG_PROP_WAREHOUSE.to_owned(), warehouse.clone());
            }
            let builder = RestCatalogBuilder::default().with_storage_factory(files);
            Arc::new(builder.load(CATALOG_NAME, properties).await?)
        }
    })
}

/// The state of a table that was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pin {
    table: Uuid,
    /// `None`: a table without a snapshot.
    snapshot: Option<i64>,
    sequence: i64,
}

impl Pin {
    pub(super) fn of(metadata: &TableMetadata) -> Self {
        let sequence = metadata.last_sequence_number();
        Self { table: metadata.uuid(), snapshot: metadata.current_snapshot_id(), sequence }
    }
}

/// A catalog through which the crate's transaction can commit on one state of a table only.
#[derive(Debug)]
pub(super) struct Pinned {
    inner: Arc<dyn Catalog>,
    pin: Pin,
}

impl Pinned {
    pub(super) fn new(inner: Arc<dyn Catalog>, pin: Pin) -> Self {
        Self { inner, pin }
    }
}

#[async_trait]
impl Catalog for Pinned {
    async fn load_table(&self, table: &TableIdent) -> Result<Table> {
        let loaded = self.inner.load_table(table).await?;
        let now = Pin::of(loaded.metadata());
        if now == self.pin {
            return Ok(loaded);
        }
        let message = format!("{table} has changed meanwhile: {now:?} instead of {:?}", self.pin);
        Err(Error::new(ErrorKind::CatalogCommitConflicts, message).with_retryable(false))
    }

    async fn update_table(&self, commit: TableCommit) -> Result<Table> {
        self.inner.update_table(commit).await
    }

    async fn list_namespaces(&self, parent: Option<&NamespaceIdent>) -> Result<Vec<NamespaceIdent>> {
        self.inner.list_namespaces(parent).await
    }

    async fn create_namespace(
        &self,
        namespace: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> Result<Namespace> {
        self.inner.create_namespace(namespace, properties).await
    }

    async fn get_namespace(&self, namespace: &NamespaceIdent) -> Result<Namespace> {
        self.inner.get_namespace(namespace).await
    }

    async fn namespace_exists(&self, namespace: &NamespaceIdent) -> Result<bool> {
        self.inner.namespace_exists(namespace).await
    }

    async fn update_namespace(
        &self,
        namespace: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> Result<()> {
        self.inner.update_namespace(namespace, properties).await
    }

    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        self.inner.drop_namespace(namespace).await
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.inner.list_tables(namespace).await
    }

    async fn create_table(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<Table> {
        self.inner.create_table(namespace, creation).await
    }

    async fn drop_table(&self, table: &TableIdent) -> Result<()> {
        self.inner.drop_table(table).await
    }

    async fn purge_table(&self, table: &TableIdent) -> Result<()> {
        self.inner.purge_table(table).await
    }

    async fn table_exists(&self, table: &TableIdent) -> Result<bool> {
        self.inner.table_exists(table).await
    }

    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        self.inner.rename_table(from, to).await
    }

    async fn register_table(&self, table: &TableIdent, metadata: String) -> Result<Table> {
        self.inner.register_table(table, metadata).await
    }
}
