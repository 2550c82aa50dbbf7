//! One commit: files, and the offsets they reach, become part of a table together, once.
//!
//! *In*: the table as it was resumed, data files, offsets. *Out*: the table with them. *Never*: the same files twice: a
//! commit goes on the snapshot that was resumed from or nowhere, and after a lost reply its own id is looked for before
//! anything is tried again. Rules: decision 0014.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use iceberg::spec::{DataFile, Snapshot, TableMetadata};
use iceberg::table::Table;
use iceberg::transaction::{ApplyTransactionAction, Transaction};
use iceberg::{Catalog, TableIdent};
use uuid::Uuid;

use super::catalog::Pinned;
use super::offsets::Offsets;
use crate::fault;

/// Table property and snapshot summary: offsets up to which the table is complete.
pub const OFFSETS: &str = "streamgauge.offsets";
/// Summary: offsets from which on the snapshot's rows are.
pub const FROM: &str = "streamgauge.from";
/// Table property and summary: the id of the commit.
pub const COMMIT: &str = "streamgauge.commit";
/// Summary: rows added.
pub const ROWS: &str = "streamgauge.rows";
/// Summary: the process that wrote.
pub const WRITER: &str = "streamgauge.writer";

/// A catalog that does not answer for so long is asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one commit brings.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    /// Its id, which is in the names of its files, too.
    pub(super) id: Uuid,
    /// Rows below these offsets are in the table already.
    pub(super) from: Offsets,
    /// Rows below these are in the table afterwards.
    pub(super) to: Offsets,
    pub(super) files: Vec<DataFile>,
    pub(super) rows: u64,
    /// The process.
    pub(super) writer: Uuid,
}

/// Why there is no commit.
#[derive(Debug)]
pub(super) enum NotCommitted {
    /// Somebody else writes events into this table.
    Fenced(String),
    /// The table is older than it was.
    RolledBack(String),
    /// It failed, or the answer did not come: to be tried again, through [`append`] with the same batch.
    Failed(iceberg::Error),
}

/// Where a table stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// The batch is in it.
    Landed,
    /// It may be committed on this snapshot.
    Open(Option<i64>),
}

/// Commits `batch` to the table that was resumed as `resumed`. May be called again with the same batch after
/// [`NotCommitted::Failed`]: what has landed meanwhile is found.
pub(super) async fn append(
    catalog: &Arc<dyn Catalog>,
    resumed: &Table,
    batch: &Batch,
) -> Result<Table, NotCommitted> {
    let name = resumed.identifier();
    let loaded = load(catalog, name).await?;
    let pin = match stand(loaded.metadata(), resumed.metadata(), batch)? {
        Standing::Landed => return Ok(loaded),
        Standing::Open(pin) => pin,
    };
    fault::point("lake.before_commit");
    let pinned = Pinned::new(Arc::clone(catalog), pin);
    let transaction = transaction(&loaded, batch).map_err(NotCommitted::Failed)?;
    let committed = tokio::time::timeout(PATIENCE, transaction.commit(&pinned)).await;
    fault::point("lake.after_commit");
    match committed {
        Ok(Ok(table)) => Ok(table),
        Ok(Err(error)) if !Pinned::has_moved(&error) => {
            settle(catalog, resumed, batch, NotCommitted::Failed(error)).await
        }
        Ok(Err(error)) => settle(catalog, resumed, batch, NotCommitted::Failed(error)).await,
        Err(_) => {
            let message = format!("{name}: the catalog did not answer within {} s", PATIENCE.as_secs());
            let error = iceberg::Error::new(iceberg::ErrorKind::Unexpected, message);
            Err(NotCommitted::Failed(error))
        }
    }
}

/// After an error: the commit may have landed all the same.
async fn settle(
    catalog: &Arc<dyn Catalog>,
    resumed: &Table,
    batch: &Batch,
    error: NotCommitted,
) -> Result<Table, NotCommitted> {
    let loaded = load(catalog, resumed.identifier()).await?;
    match stand(loaded.metadata(), resumed.metadata(), batch)? {
        Standing::Landed => Ok(loaded),
        Standing::Open(_) => Err(error),
    }
}

async fn load(catalog: &Arc<dyn Catalog>, name: &TableIdent) -> Result<Table, NotCommitted> {
    match tokio::time::timeout(PATIENCE, catalog.load_table(name)).await {
        Ok(loaded) => loaded.map_err(NotCommitted::Failed),
        Err(_) => {
            let message = format!("{name}: the catalog did not answer within {} s", PATIENCE.as_secs());
            Err(NotCommitted::Failed(iceberg::Error::new(iceberg::ErrorKind::Unexpected, message)))
        }
    }
}

fn transaction(table: &Table, batch: &Batch) -> iceberg::Result<Transaction> {
    let offsets = batch.to.to_text();
    let summary = [
        (OFFSETS, offsets.clone()),
        (FROM, batch.from.to_text()),
        (COMMIT, batch.id.to_string()),
        (ROWS, batch.rows.to_string()),
        (WRITER, batch.writer.to_string()),
    ];
    let summary: HashMap<String, String> =
        summary.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let transaction = Transaction::new(table);
    let append = transaction
        .fast_append()
        // Names hold the commit's id; comparing them with all files of the table would read all manifests.
        .with_check_duplicate(false)
        .set_commit_uuid(batch.id)
        .set_snapshot_properties(summary)
        .add_data_files(batch.files.iter().cloned());
    let properties = transaction
        .update_table_properties()
        .set(OFFSETS.to_owned(), offsets)
        .set(COMMIT.to_owned(), batch.id.to_string());
    properties.apply(append.apply(transaction)?)
}

/// Where `now` stands for a batch made on `resumed`.
pub(super) fn stand(
    now: &TableMetadata,
    resumed: &TableMetadata,
    batch: &Batch,
) -> Result<Standing, NotCommitted> {
    if now.uuid() != resumed.uuid() {
        return Err(NotCommitted::RolledBack(format!(
            "it is another table: {} instead of {}",
            now.uuid(),
            resumed.uuid()
        )));
    }
    let own = batch.id.to_string();
    let property = |metadata: &TableMetadata, key: &str| metadata.properties().get(key).cloned();
    if lineage(now).any(|snapshot| summary(snapshot, COMMIT) == Some(&own)) {
        return Ok(Standing::Landed);
    }
    consistent(now).map_err(NotCommitted::RolledBack)?;
    let (before, after) = (property(resumed, OFFSETS), property(now, OFFSETS));
    if property(now, COMMIT).is_some_and(|commit| commit == own) {
        // It landed, and somebody has compacted it and expired its snapshot since.
        return Ok(Standing::Landed);
    }
    if property(now, COMMIT) != property(resumed, COMMIT) || before != after {
        let offsets = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
        let writer = lineage(now).find_map(|snapshot| summary(snapshot, WRITER)).cloned();
        let message = format!(
            "it holds offsets {} where {} were expected; written by {}",
            offsets(after),
            offsets(before),
            offsets(writer)
        );
        return Err(match older(&property(now, OFFSETS), &property(resumed, OFFSETS)) {
            true => NotCommitted::RolledBack(message),
            false => NotCommitted::Fenced(message),
        });
    }
    let head = now.current_snapshot_id();
    let base = resumed.current_snapshot_id();
    let reaches = base.is_none_or(|base| lineage(now).any(|snapshot| snapshot.snapshot_id() == base));
    let expired = base.is_some_and(|base| now.snapshot_by_id(base).is_none());
    if !reaches && !expired {
        return Err(NotCommitted::RolledBack(format!(
            "snapshot {} is no longer an ancestor of the current one",
            base.unwrap_or_default()
        )));
    }
    Ok(Standing::Open(head))
}

fn older(now: &Option<String>, resumed: &Option<String>) -> bool {
    let read = |text: &Option<String>| match text {
        Some(text) => Offsets::from_text(text).ok(),
        None => Some(Offsets::default()),
    };
    matches!((read(now), read(resumed)), (Some(now), Some(resumed)) if resumed.contains(&now) && now != resumed)
}

/// The offsets a table is complete up to.
///
/// # Errors
/// In what way the table contradicts itself: it was rolled back, or a property was changed by hand.
pub(super) fn offsets(metadata: &TableMetadata) -> Result<Offsets, String> {
    consistent(metadata)?;
    match metadata.properties().get(OFFSETS) {
        Some(text) => Offsets::from_text(text).map_err(|error| format!("`{OFFSETS}` is `{text}`: {error}")),
        None => Ok(Offsets::default()),
    }
}

/// The newest of our commits in the lineage is the one that the property names. Compaction and expiry by others keep
/// the property and may take summaries away, from the oldest on; a rollback keeps the property, but not the lineage.
fn consistent(metadata: &TableMetadata) -> Result<(), String> {
    let Some(commit) = metadata.properties().get(COMMIT) else { return Ok(()) };
    let newest = lineage(metadata).find_map(|snapshot| summary(snapshot, COMMIT));
    match newest {
        Some(newest) if newest == commit => Ok(()),
        Some(newest) => Err(format!(
            "the last commit is {commit}, but the newest in the current snapshot's history is {newest}"
        )),
        None => {
            let beside = metadata.snapshots().any(|snapshot| summary(snapshot, COMMIT) == Some(commit));
            match beside {
                true => Err(format!("commit {commit} is not in the current snapshot's history")),
                // All summaries have expired.
                false => Ok(()),
            }
        }
    }
}

/// From the current snapshot to its oldest ancestor that is known.
pub(super) fn lineage(metadata: &TableMetadata) -> impl Iterator<Item = &Snapshot> {
    let first = metadata.current_snapshot();
    std::iter::successors(first, |snapshot| {
        snapshot.parent_snapshot_id().and_then(|parent| metadata.snapshot_by_id(parent))
    })
    .map(AsRef::as_ref)
}

/// A property of a snapshot's summary.
pub(super) fn summary<'a>(snapshot: &'a Snapshot, key: &str) -> Option<&'a String> {
    snapshot.summary().additional_properties.get(key)
}
