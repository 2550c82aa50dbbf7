//! Files of events: NDJSON, CSV with a header line, Parquet; and NDJSON on standard input.
//!
//! *In*: a path, or `-`. *Out*: chunks until the end; the offset of a record is the number of its
//! first line (its row, in Parquet), from 1, as an editor counts. *Never*: a copy of a line that fits
//! the read buffer; more memory for a line than the record limit.

mod lines;
mod parquet;

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use contracts::batch::Partition;

use self::lines::{Buffer, Split};
use super::{BATCH_ROWS, Feed, Offsets, Port, ReceiveError, Receiver, State, Stop};
use crate::decode::{Decoder, Format, Record};

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// One JSON object per line.
    Ndjson,
    /// RFC 4180, the first line names the columns.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// Told how far a file has been read: bytes done, and bytes in all where known.
pub type Progress = Box<dyn FnMut(u64, Option<u64>) + Send>;

/// A file to read once.
pub struct FileSource {
    /// Path as given; `-` is standard input.
    pub path: String,
    /// What it holds.
    pub format: FileFormat,
    /// Called after every chunk.
    pub progress: Option<Progress>,
}

impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileSource({}, {:?})", self.path, self.format)
    }
}

impl FileSource {
    /// The format follows the name: `.csv`, `.parquet`, anything else (and `-`) is NDJSON.
    pub fn new(path: impl Into<String>) -> Self {
        let path = path.into();
        let extension = PathBuf::from(&path).extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        let format = match extension.as_deref() {
            Some("csv") => FileFormat::Csv,
            Some("parquet") => FileFormat::Parquet,
            _ => FileFormat::Ndjson,
        };
        Self { path, format, progress: None }
    }
}

/// Starts reading. A file that cannot be opened is an error here; a damaged one is found while
/// reading, and then the receiver is [`State::Failed`].
pub fn start(source: FileSource, from: &Offsets, feed: Feed) -> Result<Receiver, ReceiveError> {
    let partition = feed.partition(&source.path, 0);
    let first = from.get(&partition).copied().unwrap_or(1);
    let input = Input::open(&source).map_err(|error| ReceiveError::File {
        source_name: feed.source.to_string(),
        path: source.path.clone(),
        message: error.to_string(),
    })?;
    Receiver::spawn("file", feed, move |port| {
        let mut reader = Reader { port, partition, first, next: first, input, source, done: 0 };
        reader.port.status.set_state(State::CatchingUp);
        reader.all()?;
        // A file at its end brings nothing more: it holds nobody back.
        reader.end()
    })
}

/// Reads a file from its beginning to its end, on this thread.
pub(super) fn read_once(port: &Port, source: FileSource) -> Result<(), Stop> {
    let failed = |error: io::Error| Stop::Failed(format!("cannot read `{}`: {error}", source.path));
    let input = Input::open(&source).map_err(failed)?;
    let partition = port.feed.partition(&source.path, 0);
    Reader { port, partition, first: 1, next: 1, input, source, done: 0 }.all()
}

/// An open input.
struct Input {
    read: Box<dyn Read + Send>,
    /// For Parquet, which is not read from front to back.
    file: Option<File>,
    bytes: Option<u64>,
    /// Last change of the file, microseconds since the Unix epoch.
    changed: Option<i64>,
}

impl Input {
    fn open(source: &FileSource) -> io::Result<Input> {
        if source.path == "-" {
            if source.format == FileFormat::Parquet {
                return Err(io::Error::other("Parquet cannot be read from standard input: give a file"));
            }
            return Ok(Input { read: Box::new(io::stdin()), file: None, bytes: None, changed: None });
        }
        let file = File::open(&source.path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::Error::other("it is a folder: name its files"));
        }
        let changed = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Ok(Input {
            read: Box::new(file.try_clone()?),
            file: Some(file),
            bytes: meta.is_file().then_some(meta.len()),
            changed: changed.and_then(|d| i64::try_from(d.as_micros()).ok()),
        })
    }
}

/// The thread's state.
struct Reader<'a> {
    port: &'a Port,
    partition: Partition,
    /// Records before this line or row have been taken before.
    first: i64,
    /// Where reading would go on.
    next: i64,
    input: Input,
    source: FileSource,
    done: u64,
}

impl Reader<'_> {
    /// When the records were received: when the file was last changed, so that a second reading
    /// decides alike; now, for standard input.
    fn received(&self) -> i64 {
        let now = (self.port.feed.clock)();
        self.input.changed.map_or(now, |at| at.min(now))
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Stop {
        Stop::Failed(format!("cannot read `{}`: {error}", self.source.path))
    }

    fn all(&mut self) -> Result<(), Stop> {
        match self.source.format {
            FileFormat::Ndjson | FileFormat::Csv => self.text(),
            FileFormat::Parquet => parquet::read(self),
        }
    }

    /// The last chunk: nothing more will come.
    fn end(&self) -> Result<(), Stop> {
        let mut decoder = self.port.feed.decoder();
        self.port.deliver(decoder.finish(&self.partition, self.next, None).settled(i64::MAX))
    }

    /// Hands on what the decoder holds.
    fn close(&mut self, decoder: &mut Decoder, next: i64) -> Result<(), Stop> {
        self.port.deliver(decoder.finish(&self.partition, next, None))?;
        self.next = next;
        self.port.status.partition(&self.partition, next, None);
        self.port.status.progress(self.done, self.input.bytes);
        if let Some(progress) = &mut self.source.progress {
            progress(self.done, self.input.bytes);
        }
        Ok(())
    }

    fn text(&mut self) -> Result<(), Stop> {
        let csv = self.source.format == FileFormat::Csv;
        let limit = self.port.feed.decode.max_record_bytes;
        let mut buffer = Buffer::new(if csv { Split::Csv } else { Split::Lines }, limit);
        let mut decoder = None;
        let mut line = 1_i64;
        loop {
            if self.port.stopped() {
                return Err(Stop::Asked);
            }
            let read = buffer.fill(&mut self.input.read).map_err(|e| self.failed(&e))?;
            self.done += read as u64;
            let whole = buffer.take_whole(read == 0);
            self.records(&whole, &mut decoder, &mut line)?;
            if read == 0 {
                return Ok(());
            }
        }
    }

    /// Decodes the whole records of one read.
    fn records(
        &mut self,
        whole: &lines::Whole,
        decoder: &mut Option<Decoder>,
        line: &mut i64,
    ) -> Result<(), Stop> {
        let bytes = &whole.bytes;
        let mut ranges = whole.ranges.iter();
        let mut next = *line;
        let mut rows = 0;
        let received = self.received();
        #[allow(clippy::while_let_on_iterator)] // the rest is counted after a stop
        while let Some(range) = ranges.next() {
            let at = next;
            next += range.lines;
            let text = trim(bytes, range.start, range.end, at == 1);
            if text.is_empty() {
                continue;
            }
            let decoder = match decoder {
                Some(decoder) => decoder,
                None => match self.first_decoder(&bytes[text.clone()])? {
                    (made, false) => decoder.insert(made),
                    (made, true) => {
                        *decoder = Some(made);
                        continue; // it was the header
                    }
                },
            };
            if at < self.first {
                continue;
            }
            if rows == 0 {
                decoder.share(bytes);
            }
            decoder.push_shared(bytes, text, at, received);
            rows += 1;
            if rows == BATCH_ROWS {
                self.close(decoder, next)?;
                rows = 0;
            }
        }
        if let Some(large) = &whole.oversize {
            // Longer than allowed: the head of it is enough to be refused and looked at.
            let decoder = match decoder {
                Some(decoder) => decoder,
                None => decoder.insert(self.first_decoder(b"")?.0),
            };
            if next >= self.first {
                decoder.push(Record { value: large, offset: next, received, headers: &[] });
                rows += 1;
            }
        }
        next += whole.oversize_lines;
        *line = next;
        match decoder {
            Some(decoder) if rows > 0 => self.close(decoder, next),
            _ => Ok(()),
        }
    }

    /// The decoder, made at the first record; true when that record was a CSV header.
    fn first_decoder(&self, first: &[u8]) -> Result<(Decoder, bool), Stop> {
        let feed = &self.port.feed;
        let mut spec = feed.decode.clone();
        if self.source.format != FileFormat::Csv {
            if spec.format == Format::Csv {
                spec.format = Format::Json;
            }
            return Ok((Decoder::new(feed.catalog.clone(), spec), false));
        }
        spec.format = Format::Csv;
        let names = lines::csv_cells(first).map_err(|e| self.failed(&e))?;
        let made = Decoder::csv(feed.catalog.clone(), spec, &names);
        Ok((made.map_err(|e| self.failed(&e))?, true))
    }
}

/// The record without surrounding white space and line break; the first one of a file without a byte order mark.
fn trim(bytes: &Bytes, start: usize, end: usize, first: bool) -> std::ops::Range<usize> {
    let text = &bytes[start..end];
    let text = text.strip_prefix(b"\xef\xbb\xbf").filter(|_| first).unwrap_or(text);
    let left = end - text.trim_ascii_start().len();
    let len = text.trim_ascii().len();
    left..left + len
}

#[cfg(test)]
mod tests;
