//! Data files: batches become Parquet.
//!
//! *In*: batches in a table's current schema. *Out*: data files, one or more per partition, safe and not yet in the
//! table. *Never*: a file name used twice: each begins with the round it is for, or with the id of a compaction.

use arrow::array::RecordBatch;
use futures::{Stream, TryStreamExt};
use iceberg::arrow::RecordBatchPartitionSplitter;
use iceberg::spec::{DataFile, DataFileFormat};
use iceberg::table::Table;
use iceberg::writer::base_writer::data_file_writer::DataFileWriterBuilder;
use iceberg::writer::file_writer::ParquetWriterBuilder;
use iceberg::writer::file_writer::location_generator::{DefaultFileNameGenerator, DefaultLocationGenerator};
use iceberg::writer::file_writer::rolling_writer::RollingFileWriterBuilder;
use iceberg::writer::partitioning::PartitioningWriter;
use iceberg::writer::partitioning::fanout_writer::FanoutWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// Begin of the names of a round's files.
pub(super) fn prefix(round: u64, id: uuid::Uuid) -> String {
    format!("{round:012}-{id}")
}

/// The round of a file of that name; `None`: it is not of a round.
pub(super) fn round_of(name: &str) -> Option<u64> {
    let (round, _) = name.split_once('-')?;
    (round.len() == 12).then(|| round.parse().ok()).flatten()
}

/// A file that grows beyond this is followed by another.
const FILE_BYTES: usize = 256 << 20;

/// Writes `batches` as the data files of one commit; their names begin with `prefix`.
///
/// # Errors
/// When a file is not safe. Files that are there already belong to no snapshot and are swept by age.
pub(super) async fn write(
    table: &Table,
    prefix: &str,
    batches: Vec<RecordBatch>,
) -> iceberg::Result<Vec<DataFile>> {
    write_stream(table, prefix, futures::stream::iter(batches.into_iter().map(Ok))).await
}

/// The same with batches that come one by one.
pub(super) async fn write_stream(
    table: &Table,
    prefix: &str,
    batches: impl Stream<Item = iceberg::Result<RecordBatch>> + Unpin,
) -> iceberg::Result<Vec<DataFile>> {
    let mut batches = batches;
    let metadata = table.metadata();
    let schema = metadata.current_schema();
    let level = ZstdLevel::try_new(3).unwrap_or_default();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by(concat!("streamgauge ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let rolling = RollingFileWriterBuilder::new(
        ParquetWriterBuilder::new(properties, schema.clone()),
        FILE_BYTES,
        table.file_io().clone(),
        DefaultLocationGenerator::new(metadata)?,
        DefaultFileNameGenerator::new(prefix.to_owned(), None, DataFileFormat::Parquet),
    );
    let mut writer = FanoutWriter::new(DataFileWriterBuilder::new(rolling));
    let spec = metadata.default_partition_spec().clone();
    let splitter = RecordBatchPartitionSplitter::try_new_with_computed_values(schema.clone(), spec)?;
    while let Some(batch) = batches.try_next().await? {
        for (partition, rows) in splitter.split(&batch)? {
            writer.write(partition, rows).await?;
        }
    }
    writer.close().await
}
