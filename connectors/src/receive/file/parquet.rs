//! Parquet files, by row groups.
//!
//! *In*: a Parquet file. *Out*: chunks of its rows. *Never*: more than a batch of rows in memory
//! beside what the column readers hold.

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Reader;
use crate::receive::{BATCH_ROWS, Stop};

pub(super) fn read(reader: &mut Reader<'_>) -> Result<(), Stop> {
    let Some(file) = reader.input.file.take() else {
        return Err(reader.failed(&"it is not a file"));
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| reader.failed(&e))?;
    let total = builder.metadata().file_metadata().num_rows();
    let batches = builder.with_batch_size(BATCH_ROWS).build().map_err(|e| reader.failed(&e))?;
    let mut decoder = reader.port.feed.decoder();
    let received = reader.received();
    let mut next = 1_i64;
    for batch in batches {
        if reader.port.stopped() {
            return Err(Stop::Asked);
        }
        let batch = batch.map_err(|e| reader.failed(&e))?;
        let rows = batch.num_rows() as i64;
        // Rows before the offset to resume from have been taken before.
        let skip = (reader.first - next).clamp(0, rows);
        let rest = batch.slice(skip as usize, (rows - skip) as usize);
        if rest.num_rows() > 0 {
            decoder.push_batch(&rest, next + skip, received).map_err(|e| reader.failed(&e))?;
        }
        next += rows;
        let share = if total > 0 { (next - 1) as f64 / total as f64 } else { 1.0 };
        reader.done = reader.input.bytes.map_or(0, |bytes| (bytes as f64 * share) as u64);
        if rest.num_rows() > 0 {
            reader.close(&mut decoder, next)?;
        }
    }
    Ok(())
}
