//! One commit: the files that a plan has for a table become part of it, once.
//!
//! *In*: a plan, and a table as the catalog has it. *Out*: the table with the plan's files. *Never*: the same files twice: a
//! commit goes on the state that was judged or nowhere, and after a lost reply the table is judged again before anything
//! is repeated. Rules 4 and 5 of decision 0014.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use iceberg::spec::{DataFile, Snapshot, TableMetadata, deserialize_data_file_from_json};
use iceberg::table::Table;
use iceberg::transaction::{ApplyTransactionAction, Transaction};
use iceberg::{Catalog, Error, ErrorKind, TableIdent};
use uuid::Uuid;

use super::catalog::{Pin, Pinned};
use super::rounds::{Mark, Part, Plan};

/// Table property and snapshot summary: the round, its id, and the sequence number of the commit.
pub const ROUND: &str = "streamgauge.round";
/// Table property and snapshot summary: offsets below which the table was complete then.
pub const OFFSETS: &str = "streamgauge.offsets";
/// Snapshot summary: the process that wrote.
pub const WRITER: &str = "streamgauge.writer";

/// A catalog that does not answer for so long is asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no commit.
#[derive(Debug)]
pub(super) enum NotCommitted {
    /// A later round of another process is in the table.
    Fenced(String),
    /// The table is not what the plan was made for.
    RolledBack(String),
    /// It failed, or the answer did not come: to be tried again.
    Failed(Error),
}

/// Where a table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The plan's files are in it, or it has none for it.
    Done,
    /// They are not.
    Missing,
}

/// Brings the files of `plan` into table `name`, unless they are in it.
pub(super) async fn finish(
    catalog: &Arc<dyn Catalog>,
    name: &TableIdent,
    plan: &Plan,
    part: &Part,
) -> Result<Table, NotCommitted> {
    let table = load(catalog, name).await?;
    if judge(table.metadata(), part, plan)? == Standing::Done {
        return Ok(table);
    }
    faults::point("lake.before_commit");
    let pinned = Pinned::new(Arc::clone(catalog), Pin::of(table.metadata()));
    let transaction = transaction(&table, plan, part).map_err(NotCommitted::Failed)?;
    let committed = within(name, transaction.commit(&pinned)).await;
    faults::point("lake.after_commit");
    let committed = match faults::fails("lake.lost_reply") {
        true => Err(Error::new(ErrorKind::Unexpected, "a test has lost the reply")),
        false => committed,
    };
    match committed {
        Ok(table) => Ok(table),
        Err(error) => {
            if faults::bug("retry_blindly") {
                let table = load(catalog, name).await?;
                let again = self::transaction(&table, plan, part).map_err(NotCommitted::Failed)?;
                return again.commit(catalog.as_ref()).await.map_err(NotCommitted::Failed);
            }
            // It may have landed all the same.
            let table = load(catalog, name).await?;
            match judge(table.metadata(), part, plan)? {
                Standing::Done => Ok(table),
                Standing::Missing => Err(NotCommitted::Failed(error)),
            }
        }
    }
}

async fn load(catalog: &Arc<dyn Catalog>, name: &TableIdent) -> Result<Table, NotCommitted> {
    match within(name, catalog.load_table(name)).await {
        Err(error) if error.kind() == ErrorKind::TableNotFound => {
            Err(NotCommitted::RolledBack("there is no such table any more".to_owned()))
        }
        loaded => loaded.map_err(NotCommitted::Failed),
    }
}

async fn within<T>(
    name: &TableIdent,
    answer: impl Future<Output = iceberg::Result<T>>,
) -> iceberg::Result<T> {
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| {
        let message = format!("{name}: the catalog did not answer within {} s", PATIENCE.as_secs());
        Err(Error::new(ErrorKind::Unexpected, message))
    })
}

fn transaction(table: &Table, plan: &Plan, part: &Part) -> iceberg::Result<Transaction> {
    let metadata = table.metadata();
    let mark = Said { mark: plan.mark(), sequence: metadata.next_sequence_number() }.to_text();
    let summary = [(ROUND, &mark), (OFFSETS, &plan.to), (WRITER, &plan.writer.to_string())];
    let summary: HashMap<String, String> =
        summary.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
    let transaction = Transaction::new(table);
    let append = transaction
        .fast_append()
        // Names hold the round; comparing them with all files of the table would read all manifests.
        .with_check_duplicate(false)
        .set_commit_uuid(plan.id)
        .set_snapshot_properties(summary)
        .add_data_files(files(metadata, part)?);
    let properties = transaction
        .update_table_properties()
        .set(OFFSETS.to_owned(), plan.to.clone())
        .set(ROUND.to_owned(), mark);
    properties.apply(append.apply(transaction)?)
}

/// The data files of a plan.
pub(super) fn files(metadata: &TableMetadata, part: &Part) -> iceberg::Result<Vec<DataFile>> {
    let spec = metadata.default_partition_spec_id();
    let (kind, schema) = (metadata.default_partition_type(), metadata.current_schema());
    part.files.iter().map(|file| deserialize_data_file_from_json(file, spec, kind, schema)).collect()
}

/// What a table says of the last round that had rows for it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    mark: Mark,
    /// Of the snapshot.
    sequence: i64,
}

impl Said {
    fn to_text(&self) -> String {
        format!("{} {} {}", self.mark.round, self.mark.id, self.sequence)
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let (round, id) = (parts.next()?.parse().ok()?, Uuid::parse_str(parts.next()?).ok()?);
        Some(Self { mark: Mark { round, id }, sequence: parts.next()?.parse().ok()? })
    }
}

/// The one function that says where a table stands: in recovery, after a conflict, after a lost reply.
pub(super) fn judge(now: &TableMetadata, part: &Part, plan: &Plan) -> Result<Standing, NotCommitted> {
    if part.table.is_some_and(|table| table != now.uuid()) {
        let message = format!("it is another table: {} instead of {:?}", now.uuid(), part.table);
        return Err(NotCommitted::RolledBack(message));
    }
    let said = said(now).map_err(NotCommitted::RolledBack)?;
    if part.files.is_empty() && said == part.before {
        return Ok(Standing::Done);
    }
    let mine = plan.mark();
    let shown = |mark: &Option<Mark>| {
        mark.as_ref().map_or_else(|| "none".to_owned(), |mark| format!("{} ({})", mark.round, mark.id))
    };
    let found = format!("it is at round {}, expected was {}", shown(&said), shown(&part.before));
    match said {
        Some(said) if faults::bug("judge_up_to") && said.round <= mine.round => Ok(Standing::Missing),
        Some(said) if said == mine && !part.files.is_empty() => Ok(Standing::Done),
        said if said == part.before => Ok(Standing::Missing),
        Some(said) if said.round > mine.round => {
            let writer = lineage(now).find_map(|snapshot| summary(snapshot, WRITER));
            let writer = writer.map_or("an unknown process", String::as_str);
            Err(NotCommitted::Fenced(format!("{found}; written by {writer}")))
        }
        _ => Err(NotCommitted::RolledBack(found)),
    }
}

/// The last round of ours in a table.
///
/// # Errors
/// In what way the table contradicts itself. Compaction and expiry by others keep the property and take summaries away,
/// from the oldest on; a rollback keeps the property, but neither the sequence number nor the lineage.
pub(super) fn said(metadata: &TableMetadata) -> Result<Option<Mark>, String> {
    let newest = lineage(metadata).find_map(|snapshot| summary(snapshot, ROUND));
    let Some(text) = metadata.properties().get(ROUND) else {
        return match newest {
            Some(newest) => {
                Err(format!("the property `{ROUND}` is gone; the newest snapshot of ours says {newest}"))
            }
            None => Ok(None),
        };
    };
    let Some(said) = Said::from_text(text) else { return Err(format!("`{ROUND}` is `{text}`")) };
    let sequence = metadata.current_snapshot().map(|snapshot| snapshot.sequence_number());
    if sequence.is_none_or(|sequence| sequence < said.sequence) {
        return Err(format!("its current snapshot is older than round {}", said.mark.round));
    }
    if let Some(newest) = newest.filter(|newest| *newest != text) {
        return Err(format!("its last round is {text}, but the newest in its history is {newest}"));
    }
    Ok(Some(said.mark))
}

/// From the current snapshot to its oldest ancestor that is known.
fn lineage(metadata: &TableMetadata) -> impl Iterator<Item = &Snapshot> {
    let first = metadata.current_snapshot();
    std::iter::successors(first, |snapshot| {
        snapshot.parent_snapshot_id().and_then(|parent| metadata.snapshot_by_id(parent))
    })
    .map(AsRef::as_ref)
}

/// A property of a snapshot's summary.
fn summary<'a>(snapshot: &'a Snapshot, key: &str) -> Option<&'a String> {
    snapshot.summary().additional_properties.get(key)
}
