//! One test of a contract, through the real decoder and a fresh engine.
//!
//! *In*: the catalog and a [`Test`]. *Out*: what did not hold. *Never*: the machine's clock: an event is
//! received when its own time says, or at the test's `at` where that is earlier.

use std::collections::BTreeMap;
use std::sync::Arc;

use connectors::decode::{DecodeSpec, Decoder, Envelope, Format, Record};
use contracts::Catalog;
use contracts::batch::{Partition, Refused};
use contracts::catalog::{ExpectedRefusal, ExpectedRow, Given, Metric, Micros, TEST_ENVELOPE, TEST_OP, Test};
use contracts::value::time::{format_timestamp, parse_timestamp};
use engine::{Clock, Engine, MetricQuery, Options, Published, TickHook, TickOutcome};
use parking_lot::Mutex;

use super::compare;
use crate::cli::exit::{Exit, Failure};

/// What a test came to.
#[derive(Debug, Default)]
pub struct Result {
    /// What did not hold.
    pub differences: Vec<String>,
    /// Refused and dropped events.
    pub notes: Vec<String>,
}

/// Keeps what became of the rows.
#[derive(Debug, Default)]
struct Outcomes {
    refused: Mutex<Vec<Refused>>,
    duplicates: Mutex<Vec<i64>>,
}

impl TickHook for Outcomes {
    fn tick(&self, _: &Arc<Published>, outcome: TickOutcome) {
        self.refused.lock().extend(outcome.refused);
        self.duplicates.lock().extend(outcome.duplicates.into_iter().map(|(_, offset, _)| offset));
    }
}

/// Runs `test` of metric `metric` (index into the catalog).
pub fn one(catalog: &Arc<Catalog>, metric: usize, test: &Test) -> std::result::Result<Result, Failure> {
    let outcomes = Arc::new(Outcomes::default());
    let options = Options { workers: 1, keys_per_metric: 100_000, clock: Clock::Manual(test.at) };
    let engine = Engine::start(catalog.clone(), options, outcomes.clone())
        .map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
    send(catalog, test, &engine)?;
    engine.flush();
    engine.set_clock(test.at);
    let published = engine.reader().load();
    let mut result = Result::default();
    let contract = &catalog.metrics[metric];
    for (window, expected) in &test.expect {
        check_window(&published, metric, contract, window, expected, &mut result.differences);
    }
    // The hook hears of a tick after its readers do.
    engine.stop();
    let refused = outcomes.refused.lock();
    if let Some(expected) = &test.expect_refused {
        check_refused(expected, &refused, test, &mut result.differences);
    }
    notes(test, catalog, &refused, &outcomes.duplicates.lock(), &mut result.notes);
    Ok(result)
}

/// The partition the events of a test come from; an event's offset is its index in `given`.
fn partition() -> Partition {
    Partition { source: "test".into(), topic: "given".into(), number: 0 }
}

fn send(catalog: &Arc<Catalog>, test: &Test, engine: &Engine) -> std::result::Result<(), Failure> {
    let (id, event_type, time) = TEST_ENVELOPE;
    let path = |key: &str| Some(vec![key.to_owned()]);
    let spec = DecodeSpec {
        format: Format::Json,
        envelope: Envelope { id: path(id), event_type: path(event_type), time: path(time), tenant: None },
        own_events: true,
        op: path(TEST_OP),
        ..DecodeSpec::default()
    };
    let mut decoder = Decoder::new(catalog.clone(), spec);
    let chunks = engine.sender();
    let stopped = |_| Failure::new(Exit::Bug, "the engine stopped during a test");
    let tables = Partition { topic: "tables".into(), ..partition() };
    for (offset, given) in (0_i64..).zip(&test.tables) {
        let payload = given.payload.to_string();
        decoder.push(Record { value: payload.as_bytes(), offset, received: test.at, headers: &[] });
        chunks.send(decoder.finish(&tables, offset + 1, None)).map_err(stopped)?;
    }
    let partition = partition();
    let mut received = Micros::MIN;
    for (offset, given) in (0_i64..).zip(&test.given) {
        received = received.max(time_of(catalog, given).unwrap_or(test.at).min(test.at));
        let payload = given.payload.to_string();
        decoder.push(Record { value: payload.as_bytes(), offset, received, headers: &[] });
        let chunk = decoder.finish(&partition, offset + 1, None);
        chunks.send(chunk).map_err(stopped)?;
    }
    Ok(())
}

/// The event time, as far as it can be read before decode.
fn time_of(catalog: &Catalog, given: &Given) -> Option<Micros> {
    let event = &catalog.events[given.event];
    let declared = event.time.as_ref().and_then(|name| event.fields.iter().find(|f| f.name == *name));
    let envelope = [TEST_ENVELOPE.2.to_owned()];
    let path = declared.map_or(envelope.as_slice(), |field| field.path.as_slice());
    let value = path.iter().try_fold(&given.payload, |at, key| at.get(key))?;
    match value {
        serde_json::Value::String(text) => parse_timestamp(text),
        serde_json::Value::Number(millis) => millis.as_i64()?.checked_mul(1000),
        _ => None,
    }
}

fn check_window(
    published: &Published,
    index: usize,
    metric: &Metric,
    window: &str,
    expected: &[ExpectedRow],
    differences: &mut Vec<String>,
) {
    let mentioned = |name: &str| expected.iter().any(|row| row.cells.iter().any(|(cell, _)| cell == name));
    // No row expected means: none at all, whatever the dimensions.
    let by: Vec<String> = metric
        .dimensions
        .iter()
        .filter(|d| expected.is_empty() || mentioned(&d.name))
        .map(|d| d.name.clone())
        .collect();
    let measures: Vec<String> =
        metric.measures.iter().filter(|m| mentioned(&m.name)).map(|m| m.name.clone()).collect();
    let query = MetricQuery {
        window: Some(window.to_owned()),
        measures: (!measures.is_empty()).then_some(measures),
        by,
        filter: None,
        as_of: None,
    };
    match published.metric(index, &query) {
        Ok(answer) => compare::rows(metric, window, expected, &answer, differences),
        Err(error) => differences.push(format!("{window}: {error}")),
    }
}

fn check_refused(
    expected: &[ExpectedRefusal],
    refused: &[Refused],
    test: &Test,
    differences: &mut Vec<String>,
) {
    let mut found: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for row in refused {
        let given = usize::try_from(row.offset).unwrap_or(usize::MAX);
        found.entry(given).or_default().extend(row.reasons.iter().map(|r| r.code.as_str()));
    }
    for wanted in expected {
        let place = event(test, wanted.given);
        match (found.get(&wanted.given), &wanted.reason) {
            (None, _) => differences.push(format!("{place}: expected to be refused, got admitted")),
            (Some(codes), Some(reason)) if !codes.contains(&reason.as_str()) => {
                differences
                    .push(format!("{place}: expected to be refused as {reason}, got {}", codes.join(", ")));
            }
            _ => {}
        }
    }
    for (given, codes) in &found {
        if !expected.iter().any(|e| e.given == *given) {
            differences.push(format!(
                "{}: expected to be admitted, got refused as {}",
                event(test, *given),
                codes.join(", ")
            ));
        }
    }
}

fn event(test: &Test, index: usize) -> String {
    match test.given.get(index) {
        Some(given) => format!("given[{index}] (line {})", given.line),
        None => format!("given[{index}]"),
    }
}

fn notes(test: &Test, catalog: &Catalog, refused: &[Refused], duplicates: &[i64], notes: &mut Vec<String>) {
    for row in refused {
        let index = usize::try_from(row.offset).unwrap_or(usize::MAX);
        for reason in &row.reasons {
            let path = if reason.path.is_empty() { String::new() } else { format!(" {}", reason.path) };
            notes.push(format!(
                "{} was refused: {}{path}: {}",
                event(test, index),
                reason.code,
                reason.message
            ));
        }
    }
    for offset in duplicates {
        let index = usize::try_from(*offset).unwrap_or(usize::MAX);
        notes.push(format!("{} was dropped as a duplicate", event(test, index)));
    }
    for (index, given) in test.given.iter().enumerate() {
        if let Some(time) = time_of(catalog, given).filter(|time| *time >= test.at) {
            let at = format_timestamp(test.at);
            notes.push(format!(
                "{} happens at {}, which is not before `at` {at}",
                event(test, index),
                format_timestamp(time)
            ));
        }
    }
}
