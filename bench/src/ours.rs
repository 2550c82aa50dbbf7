//! The engine on a file of W1: receive, decode, admit, fold, publish, and the answers read back.
//!
//! *In*: the file. *Out*: its groups. *Never*: a short cut past the connectors or the published state.

use std::path::Path;
use std::sync::Arc;

use connectors::decode::{DecodeSpec, Envelope};
use connectors::receive::file::{FileSource, start};
use connectors::receive::{Clock as ReceiveClock, Feed, Offsets, State};
use contracts::batch::Chunk;
use contracts::{Catalog, SourceFile, Value};
use crossbeam_channel::{Sender, bounded};
use engine::{Answer, Clock, Engine, MetricQuery, NoHook, Options, Published, Row};

use crate::answers::{Cell, Groups};
use crate::error::Error;
use crate::w1::{MINUTE, T0};

/// W1 as contracts.
pub const CONTRACTS: &str = include_str!("../contracts/w1.yaml");
const METRIC: &str = "w1";
const EVENT: &str = "order.created";
const SOURCE: &str = "w1";
const MEASURES: [&str; 5] = ["revenue", "n", "avg", "bad_amount", "bad_status"];

/// Microseconds of a millisecond.
const MS: i64 = 1_000;

/// How events find their contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Types {
    /// All are of one type, without looking: W1 does not use the field `event_type`.
    One,
    /// The field is read; there is a contract for each of its three values.
    Three,
}

/// What happens at the milestones of a run: `ready` before the first byte is read, `visible` when all
/// events are published and before the answers are read.
pub trait Marks {
    /// Everything is loaded and planned.
    fn ready(&mut self);
    /// All events are visible.
    fn visible(&mut self);
}

/// Nobody is interested.
impl Marks for () {
    fn ready(&mut self) {}
    fn visible(&mut self) {}
}

/// Runs the engine with `workers` workers over the `events` events of the file.
///
/// # Errors
/// The file cannot be read; an event is refused; the engine does not start.
pub fn run(
    path: &Path,
    events: u64,
    types: Types,
    workers: usize,
    marks: &mut dyn Marks,
) -> Result<Groups, Error> {
    let catalog = catalog(types)?;
    // The data's end, and then to the end of its last minute.
    let end = (T0 + events as i64 + MINUTE - 1) / MINUTE * MINUTE * MS;
    let options = Options { workers, keys_per_metric: 1_000_000, clock: Clock::Manual(end) };
    let engine = Engine::start(catalog.clone(), options, Arc::new(NoHook)).map_err(engine_error)?;
    marks.ready();
    receive(path, &catalog, types, end, engine.sender())?;
    engine.set_clock(end);
    marks.visible();
    let published = engine.reader().load();
    admitted(&published, events)?;
    let groups = answers(&published, end)?;
    engine.stop();
    Ok(groups)
}

/// Receives and decodes the file and drops the columns; the number of rows.
///
/// # Errors
/// The file cannot be read; an event is refused.
pub fn decode(path: &Path, events: u64, marks: &mut dyn Marks) -> Result<u64, Error> {
    let catalog = catalog(Types::One)?;
    let (chunks, decoded) = bounded::<Chunk>(8);
    let count = std::thread::spawn(move || {
        let rows = |chunk: &Chunk| chunk.batches.iter().map(|b| b.columns.num_rows() as u64).sum::<u64>();
        decoded.iter().map(|chunk| rows(&chunk)).sum::<u64>()
    });
    marks.ready();
    receive(path, &catalog, Types::One, i64::MAX, chunks)?;
    let rows = count.join().map_err(|_| Error::Engine("the counting thread panicked".to_owned()))?;
    marks.visible();
    if rows != events {
        return Err(Error::Engine(format!("{rows} of {events} events were decoded")));
    }
    Ok(rows)
}

/// The checked contracts.
fn catalog(types: Types) -> Result<Arc<Catalog>, Error> {
    let text = match types {
        Types::One => CONTRACTS.to_owned(),
        Types::Three => three_types(CONTRACTS),
    };
    let loaded = contracts::load(&[SourceFile::new("bench/contracts/w1.yaml", text)]);
    if loaded.has_errors() {
        let mistakes: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
        return Err(Error::Engine(mistakes.join("\n")));
    }
    Ok(Arc::new(loaded.catalog))
}

/// The same contracts for three event types.
fn three_types(text: &str) -> String {
    let others = ["order.updated", "order.paid"];
    let mut documents: Vec<String> = text.split("\n---\n").map(str::to_owned).collect();
    let events: Vec<String> = documents.iter().filter(|d| d.contains("kind: Event")).cloned().collect();
    for document in &mut documents {
        *document =
            document.replace(&format!("type: {EVENT} "), &format!("type: [{EVENT}, {}] ", others.join(", ")));
    }
    for other in others {
        documents.extend(events.iter().map(|event| event.replace(EVENT, other)));
    }
    documents.join("\n---\n")
}

fn receive(
    path: &Path,
    catalog: &Arc<Catalog>,
    types: Types,
    now: i64,
    chunks: Sender<Chunk>,
) -> Result<(), Error> {
    let mut decode = DecodeSpec::default();
    match types {
        Types::One => decode.fixed_type = Some(EVENT.to_owned()),
        Types::Three => {
            decode.envelope =
                Envelope { event_type: Some(vec!["event_type".to_owned()]), ..Envelope::default() };
        }
    }
    let clock: ReceiveClock = Arc::new(move || now);
    let feed = Feed { source: SOURCE.into(), catalog: catalog.clone(), decode, chunks, clock };
    let source = FileSource::new(path.to_string_lossy());
    let receiver = start(source, &Offsets::new(), feed).map_err(|error| Error::Process(error.to_string()))?;
    match receiver.join().state {
        State::Finished => Ok(()),
        State::Failed(message) => Err(Error::Process(message)),
        other => Err(Error::Engine(format!("the file was not read to its end: {other:?}"))),
    }
}

/// Every event must have been admitted.
fn admitted(published: &Published, events: u64) -> Result<(), Error> {
    let sum = |of: fn(&engine::Counts) -> u64| published.counters.values().map(of).sum::<u64>();
    let found = (sum(|c| c.received), sum(|c| c.admitted));
    if found == (events, events) {
        return Ok(());
    }
    Err(Error::Engine(format!("of {events} events {} were received and {} admitted", found.0, found.1)))
}

/// Every minute, by region.
fn answers(published: &Published, end: i64) -> Result<Groups, Error> {
    let metric = published.catalog.metric_index(METRIC);
    let metric = metric.ok_or_else(|| Error::Engine(format!("there is no metric `{METRIC}`")))?;
    let query = MetricQuery {
        window: Some("1m".to_owned()),
        measures: Some(MEASURES.map(str::to_owned).to_vec()),
        by: vec!["region".to_owned()],
        ..MetricQuery::default()
    };
    let answers = published.series(metric, &query, T0 * MS, end, MINUTE * MS).map_err(engine_error)?;
    let mut groups = Groups::default();
    for answer in answers {
        collect(&answer, &mut groups)?;
    }
    Ok(groups)
}

fn collect(answer: &Answer, groups: &mut Groups) -> Result<(), Error> {
    let start = answer.start.ok_or_else(|| Error::Engine("a minute without a start".to_owned()))?;
    for row in &answer.rows {
        let (region, cell) = cell(row)?;
        groups.0.insert((region, start / MS / MINUTE), cell);
    }
    Ok(())
}

fn cell(row: &Row) -> Result<(String, Cell), Error> {
    let wrong = || Error::Engine(format!("an answer has an unexpected row: {row:?}"));
    let [Value::Text(region)] = &row.key[..] else { return Err(wrong()) };
    let [revenue, n, avg, bad_amount, bad_status] = &row.values[..] else { return Err(wrong()) };
    let money = |value: &Value| match value {
        Value::Decimal(cents, 2) => i64::try_from(*cents).map(Some).map_err(|_| wrong()),
        Value::Null => Ok(None),
        _ => Err(wrong()),
    };
    let count = |value: &Value| match value {
        Value::Int(count) => u64::try_from(*count).map_err(|_| wrong()),
        _ => Err(wrong()),
    };
    let cell = Cell {
        revenue: money(revenue)?.unwrap_or(0),
        n: count(n)?,
        bad_amount: count(bad_amount)?,
        bad_status: count(bad_status)?,
        avg: money(avg)?,
    };
    Ok((region.to_string(), cell))
}

fn engine_error(error: impl std::fmt::Display) -> Error {
    Error::Engine(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_agrees_with_the_oracle() {
        let events = 130_000; // more than two minutes, and a tick of 65,536 rows
        let data = crate::w1::make(events, None, |_| true).unwrap();
        for (types, workers) in [(Types::One, 1), (Types::Three, 2)] {
            let found = run(&data.path, events, types, workers, &mut ()).unwrap();
            assert_eq!(data.oracle.differences(&found), Vec::<String>::new(), "{types:?}");
            assert!(found.0.values().all(|cell| cell.avg.is_some()));
        }
        assert_eq!(decode(&data.path, events, &mut ()).unwrap(), events);
    }

    #[test]
    fn refused_events_are_no_result() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ndjson");
        std::fs::write(
            &path,
            "{\"region\":\"eu\",\"status\":\"pending\",\"amount\":1.005,\"ts\":1767225600000}\n",
        )
        .unwrap();
        let error = run(&path, 1, Types::One, 1, &mut ()).unwrap_err();
        assert!(error.to_string().contains("1 were received and 0 admitted"), "{error}");
    }
}
