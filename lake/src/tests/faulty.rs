//! A catalog that loses replies, refuses, or holds a request until later.

use std::collections::VecDeque;

use super::*;
use iceberg::NamespaceIdent;

/// What happens to the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Pass,
    /// It is done, and the answer is an error that looks as if it were not.
    LoseReply,
    /// It is not done.
    Refuse,
    /// It is not done now, but when released.
    Hold,
}

#[derive(Debug)]
pub(super) struct Faulty {
    inner: Arc<dyn Iceberg>,
    acts: Mutex<VecDeque<Act>>,
    held: Mutex<Option<TableCommit>>,
    pub(super) commits: AtomicU32,
}

impl Faulty {
    /// Puts itself between the lake and its catalog.
    pub(super) fn put(lake: &mut Lake) -> Arc<Self> {
        let inner = Arc::clone(&lake.catalog);
        let faulty = Arc::new(Self {
            inner,
            acts: Mutex::default(),
            held: Mutex::default(),
            commits: AtomicU32::new(0),
        });
        lake.catalog = Arc::<Self>::clone(&faulty);
        faulty
    }

    pub(super) fn next(&self, acts: Vec<Act>) {
        *self.acts.lock() = acts.into();
    }

    /// The held request arrives.
    pub(super) async fn release(&self) -> Result<Table> {
        let commit = self.held.lock().take().expect("a commit is held");
        self.inner.update_table(commit).await
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Unexpected, "connection reset by peer").with_retryable(true)
}

#[async_trait]
impl Iceberg for Faulty {
    async fn update_table(&self, commit: TableCommit) -> Result<Table> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let act = self.acts.lock().pop_front().unwrap_or(Act::Pass);
        match act {
            Act::Pass => self.inner.update_table(commit).await,
            Act::LoseReply => {
                self.inner.update_table(commit).await?;
                Err(lost())
            }
            Act::Refuse => Err(lost().with_retryable(false)),
            Act::Hold => {
                *self.held.lock() = Some(commit);
                Err(lost().with_retryable(false))
            }
        }
    }

    async fn load_table(&self, table: &TableIdent) -> Result<Table> {
        self.inner.load_table(table).await
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
