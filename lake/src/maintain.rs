//! Care for tables: small files become large ones, old snapshots expire, what belongs to no snapshot is removed.
//!
//! *In*: a table, between two rounds. *Out*: the same rows in fewer files. *Never*: a row changed, lost or doubled; a file
//! removed that a snapshot names or that a commit on its way may name (files are left alone until they are old); care
//! for a table in which somebody deletes rows: that one's tool looks after it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::{StreamExt, TryStreamExt};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::scan::FileScanTask;
use iceberg::spec::{
    DataFile, Datum, MAIN_BRANCH, ManifestContentType, ManifestEntryRef, ManifestFile, ManifestListWriter,
    ManifestWriterBuilder, Operation, PrimitiveLiteral, Snapshot, SnapshotReference, SnapshotRetention,
    Struct, Summary,
};
use iceberg::table::Table;
use iceberg::{ErrorKind, TableUpdate};
use uuid::Uuid;

use super::swap::{Swap, SwapError};
use super::{files, reading};
use crate::place::{Place, PlaceError};

/// How care is taken.
#[derive(Debug, Clone, Copy)]
pub struct Care {
    /// Tables are looked at this often; zero: never.
    pub every: Duration,
    /// Files below this are small.
    pub small: u64,
    /// So many small files of one partition are put together.
    pub least: usize,
    /// Bytes of small files put together in one go.
    pub most_bytes: u64,
    /// Snapshots older than this expire, but for the newest [`Care::keep`].
    pub snapshots: Duration,
    /// Snapshots that stay.
    pub keep: usize,
    /// Files that belong to no snapshot are removed when they are older than this.
    pub orphans: Duration,
}

impl Default for Care {
    /// Every 5 minutes; 16 files below 64 MiB, 1 GiB in one go; 7 days of snapshots; orphans of 3 days.
    fn default() -> Self {
        let days = |n: u64| Duration::from_secs(n * 24 * 3600);
        Self {
            every: Duration::from_secs(300),
            small: 64 << 20,
            least: 16,
            most_bytes: 1 << 30,
            snapshots: days(7),
            keep: 100,
            orphans: days(3),
        }
    }
}

/// What care has done, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cared {
    /// Files put together, and into how many.
    pub compacted: (u64, u64),
    /// Snapshots expired.
    pub expired: u64,
    /// Files removed.
    pub removed: u64,
    /// Attempts that failed; they are made again the next time.
    pub failures: u64,
}

/// Puts the small files of one partition together; the number of files before and after, or `None`: nothing to do.
pub(super) async fn compact(
    table: &Table,
    swap: &Swap,
    care: &Care,
) -> Result<Option<(u64, u64)>, SwapError> {
    let Some(snapshot) = table.metadata().current_snapshot() else { return Ok(None) };
    let list = table.manifest_list_reader(snapshot).load().await?;
    if list.entries().iter().any(|manifest| manifest.content != ManifestContentType::Data) {
        return Ok(None);
    }
    let mut manifests = Vec::new();
    for file in list.entries() {
        let manifest = file.load_manifest(table.file_io()).await?;
        manifests.push((file, manifest.entries().to_vec()));
    }
    let chosen = choose(table, &manifests, care);
    if chosen.is_empty() {
        return Ok(None);
    }
    let id = Uuid::now_v7();
    let added = rewrite(table, &chosen, id).await?;
    let rows = |files: &mut dyn Iterator<Item = &DataFile>| files.map(DataFile::record_count).sum::<u64>();
    let removed = || manifests.iter().flat_map(|(_, entries)| entries).filter(|entry| is_in(entry, &chosen));
    let before = rows(&mut removed().map(|entry| entry.data_file()));
    if before != rows(&mut added.iter()) {
        return Err(SwapError::Failed(format!("{before} rows were read, others were written; given up")));
    }
    let counts = (chosen.len() as u64, added.len() as u64);
    let updates = replace(table, &manifests, &chosen, added, id).await?;
    faults::point("lake.before_compact");
    swap.commit(table, updates).await?;
    faults::point("lake.after_compact");
    Ok(Some(counts))
}

/// Files by their paths, with the instant from which on their rows were received (0: of rows without one).
type Chosen = HashMap<String, i64>;

fn is_in(entry: &ManifestEntryRef, chosen: &Chosen) -> bool {
    entry.is_alive() && chosen.contains_key(entry.file_path())
}

/// The small files of the partition that has most of them, the oldest first.
fn choose(table: &Table, manifests: &[(&ManifestFile, Vec<ManifestEntryRef>)], care: &Care) -> Chosen {
    let column = table.metadata().current_schema().field_id_by_name("_received").unwrap_or_default();
    let received = |file: &DataFile| match file.lower_bounds().get(&column).map(Datum::literal) {
        Some(PrimitiveLiteral::Long(micros)) => *micros,
        _ => 0,
    };
    let spec = table.metadata().default_partition_spec_id();
    let mut small = HashMap::<&Struct, Vec<&DataFile>>::new();
    for entry in manifests.iter().filter(|(file, _)| file.partition_spec_id == spec).flat_map(|(_, all)| all)
    {
        let file = entry.data_file();
        if entry.is_alive() && file.file_size_in_bytes() < care.small {
            small.entry(file.partition()).or_default().push(file);
        }
    }
    let mut fullest = small.into_values().max_by_key(Vec::len).unwrap_or_default();
    if fullest.len() < care.least.max(2) {
        return Chosen::new();
    }
    fullest.sort_by_key(|file| received(file));
    let mut bytes = 0;
    let room = |file: &&DataFile| {
        bytes += file.file_size_in_bytes();
        bytes <= care.most_bytes
    };
    fullest.into_iter().take_while(room).map(|file| (file.file_path().to_owned(), received(file))).collect()
}

/// The rows of the chosen files in new ones, which have all columns of now. The oldest file comes first, so that rows of
/// about the same offsets stay together and reading back finds them in few pages.
async fn rewrite(table: &Table, chosen: &Chosen, id: Uuid) -> Result<Vec<DataFile>, SwapError> {
    let scan = table.scan().build()?;
    let tasks: Vec<FileScanTask> = scan.plan_files().await?.try_collect().await?;
    let mut tasks: Vec<(i64, FileScanTask)> =
        tasks.into_iter().filter_map(|task| Some((*chosen.get(task.data_file_path())?, task))).collect();
    tasks.sort_by_key(|(received, _)| *received);
    let schema = Arc::new(schema_to_arrow_schema(table.metadata().current_schema())?);
    let files = futures::stream::iter(tasks).then(|(_, task)| reading::rows(table, task)).try_flatten();
    let rows =
        files.and_then(|rows| futures::future::ready(reading::fields(&rows, &schema).map_err(super::told)));
    Ok(files::write_stream(table, &format!("compact-{id}"), Box::pin(rows)).await?)
}

/// The table with `added` in place of the chosen files, as updates.
async fn replace(
    table: &Table,
    manifests: &[(&ManifestFile, Vec<ManifestEntryRef>)],
    chosen: &Chosen,
    added: Vec<DataFile>,
    id: Uuid,
) -> Result<Vec<TableUpdate>, SwapError> {
    let metadata = table.metadata();
    let (parent, sequence) = (metadata.current_snapshot_id(), metadata.next_sequence_number());
    let number = (id.as_u128() >> 65) as i64 ^ (id.as_u128() as i64 & i64::MAX);
    let location = format!("{}/metadata", metadata.location());
    let output = table.file_io().new_output(format!("{location}/{id}-m0.avro"))?;
    let spec = metadata.default_partition_spec().as_ref().clone();
    let schema = metadata.current_schema().clone();
    let mut writer = ManifestWriterBuilder::new(output, Some(number), schema, spec).build_v2_data();
    let mut kept = Vec::new();
    for (file, entries) in manifests {
        if !entries.iter().any(|entry| is_in(entry, chosen)) {
            kept.push((*file).clone());
            continue;
        }
        for entry in entries.iter().filter(|entry| entry.is_alive()) {
            let data = entry.data_file().clone();
            let order = entry.sequence_number().unwrap_or(0);
            match chosen.contains_key(entry.file_path()) {
                true => writer.add_delete_file(data, order, entry.file_sequence_number)?,
                false => {
                    let snapshot = entry.snapshot_id().unwrap_or(number);
                    writer.add_existing_file(data, snapshot, order, entry.file_sequence_number)?;
                }
            }
        }
    }
    let files = (added.len(), chosen.len());
    for file in added {
        writer.add_file(file, sequence)?;
    }
    kept.push(writer.write_manifest_file().await?);
    let list = format!("{location}/snap-{number}-0-{id}.avro");
    let output = table.file_io().new_output(&list)?.writer().await?;
    let mut writer = ManifestListWriter::v2(output, number, parent, sequence);
    writer.add_manifests(kept.into_iter())?;
    writer.close().await?;
    let snapshot = Snapshot::builder()
        .with_snapshot_id(number)
        .with_parent_snapshot_id(parent)
        .with_sequence_number(sequence)
        .with_timestamp_ms(now_ms().max(metadata.last_updated_ms()))
        .with_manifest_list(list)
        .with_summary(Summary { operation: Operation::Replace, additional_properties: totals(table, files) })
        .with_schema_id(metadata.current_schema_id())
        .build();
    let branch = SnapshotReference::new(number, SnapshotRetention::branch(None, None, None));
    Ok(vec![
        TableUpdate::AddSnapshot { snapshot },
        TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference: branch },
    ])
}

/// The summary: the rows are the same, files are fewer.
fn totals(table: &Table, (added, removed): (usize, usize)) -> HashMap<String, String> {
    let before =
        table.metadata().current_snapshot().map(|snapshot| &snapshot.summary().additional_properties);
    let mut all = HashMap::new();
    for key in ["total-records", "total-delete-files", "total-position-deletes", "total-equality-deletes"] {
        let value = before.and_then(|before| before.get(key));
        all.extend(value.map(|value| (key.to_owned(), value.clone())));
    }
    let files = before.and_then(|before| before.get("total-data-files")?.parse::<usize>().ok());
    let files = files.map(|files| (files + added).saturating_sub(removed).to_string());
    all.extend(files.map(|files| ("total-data-files".to_owned(), files)));
    all.insert("added-data-files".to_owned(), added.to_string());
    all.insert("deleted-data-files".to_owned(), removed.to_string());
    all
}

/// Lets old snapshots expire; how many. Their files stay until they are swept.
pub(super) async fn expire(
    table: &Table,
    catalog: &dyn iceberg::Catalog,
    care: &Care,
) -> iceberg::Result<u64> {
    use iceberg::transaction::{ApplyTransactionAction, Transaction};
    let metadata = table.metadata();
    let oldest = now_ms() - i64::try_from(care.snapshots.as_millis()).unwrap_or(i64::MAX);
    let old = metadata.snapshots().filter(|snapshot| snapshot.timestamp_ms() < oldest).count();
    let all = metadata.snapshots().count();
    if old == 0 || all <= care.keep {
        return Ok(0);
    }
    let transaction = Transaction::new(table);
    let action = transaction.expire_snapshots().expire_older_than_ms(oldest).retain_last(care.keep);
    let after = action.apply(transaction)?.commit(catalog).await?;
    Ok((all - after.metadata().snapshots().count().min(all)) as u64)
}

/// Removes old files below the table that no snapshot names; how many.
///
/// A data file of the newest round or a later one is left alone, however old: its commit may be on its way.
pub(super) async fn sweep(table: &Table, place: &Place, newest: u64, care: &Care) -> iceberg::Result<u64> {
    let unexpected = |error: PlaceError| iceberg::Error::new(ErrorKind::Unexpected, error.to_string());
    let addresses = named(table).await?;
    let names = addresses.iter().map(|address| place.name_of(address).map_err(unexpected));
    let named = names.collect::<iceberg::Result<BTreeSet<String>>>()?;
    let root = place.name_of(table.metadata().location()).map_err(unexpected)?;
    let Some(oldest) = now().checked_sub(care.orphans) else { return Ok(0) };
    let mut removed = 0;
    for file in place.list(&root).await.map_err(unexpected)? {
        let round = file.name.rsplit('/').next().and_then(files::round_of);
        let is_settled = round.is_none_or(|round| round < newest);
        if file.modified < oldest && is_settled && !named.contains(&file.name) {
            place.delete(&file.name).await.map_err(unexpected)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Addresses of all files that the table's metadata leads to.
async fn named(table: &Table) -> iceberg::Result<Vec<String>> {
    let metadata = table.metadata();
    let mut all: Vec<String> = metadata.metadata_log().iter().map(|log| log.metadata_file.clone()).collect();
    all.push(table.metadata_location_result()?.to_owned());
    all.extend(metadata.statistics_iter().map(|file| file.statistics_path.clone()));
    let mut seen = HashSet::new();
    for snapshot in metadata.snapshots() {
        all.push(snapshot.manifest_list().to_owned());
        for manifest in table.manifest_list_reader(snapshot).load().await?.entries() {
            if !seen.insert(manifest.manifest_path.clone()) {
                continue;
            }
            all.push(manifest.manifest_path.clone());
            // Files that a snapshot has taken out are named by the one before it, as long as that is kept.
            let entries = manifest.load_manifest(table.file_io()).await?;
            let alive = entries.entries().iter().filter(|entry| entry.is_alive());
            all.extend(alive.map(|entry| entry.file_path().to_owned()));
        }
    }
    Ok(all)
}

/// Ages of snapshots and files; no row depends on it.
#[allow(clippy::disallowed_methods)]
fn now() -> SystemTime {
    SystemTime::now()
}

fn now_ms() -> i64 {
    let since = now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
