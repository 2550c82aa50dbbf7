//! What arrives in the very first tick counts like everything else.
//!
//! *In*: an engine that has just been started and gets its rows at once. *Out*: the right count, many times over,
//! because it is a race. *Never*: a wait between the start and the rows.

use std::sync::Arc;

use connectors::decode::{DecodeSpec, Decoder, Envelope, Record};
use contracts::Value;
use contracts::batch::{Chunk, Partition};
use contracts::text::SourceFile;
use engine::{Clock, Engine, MetricQuery, NoHook, Options};

const CONTRACTS: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: click
version: 1.0.0
key: who
fields:
  who: { type: string, required: true }
---
apiVersion: streamgauge/v1
kind: Entity
name: person
version: 1.0.0
key: who
events: [click]
fields: { clicks: { count: "*" } }
---
apiVersion: streamgauge/v1
kind: Metric
name: clicks
version: 1.0.0
events: { click: { type: click } }
measures: { clicks: { agg: count }, people: { agg: distinct, value: who } }
windows: { ever: { all: true }, day: { tumbling: 1d, tz: UTC } }
---
apiVersion: streamgauge/v1
kind: Metric
name: persons
version: 1.0.0
entity: person
measures: { persons: { agg: count }, clicks: { agg: sum, value: clicks } }
windows: { ever: { all: true } }
"#;

const ROWS: i64 = 40;
/// 2026-03-02T12:00:00Z.
const NOW: i64 = 1_772_452_800_000_000;

fn chunk(catalog: &Arc<contracts::Catalog>) -> Chunk {
    let path = |key: &str| Some(vec![key.to_owned()]);
    let envelope =
        Envelope { id: path("id"), event_type: path("type"), time: path("at"), ..Envelope::default() };
    let mut decoder = Decoder::new(catalog.clone(), DecodeSpec { envelope, ..DecodeSpec::default() });
    for offset in 0..ROWS {
        let at = NOW / 1000 - 1000 - offset;
        let text = format!(r#"{{"type":"click","id":"{offset}","at":{at},"who":"w{}"}}"#, offset % 10);
        decoder.push(Record { value: text.as_bytes(), offset, received: NOW, headers: &[] });
    }
    let partition = Partition { source: "push".into(), topic: "log".into(), number: 0 };
    decoder.finish(&partition, ROWS, Some(ROWS))
}

#[test]
fn rows_of_the_first_tick_count() {
    let loaded = contracts::load(&[SourceFile::new("clicks.yaml", CONTRACTS)]);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let catalog = Arc::new(loaded.catalog);
    for round in 0..60 {
        let workers = [1, 2, 4][round % 3];
        let clock = if round % 2 == 0 { Clock::Manual(NOW) } else { Clock::Wall };
        let options = Options { workers, keys_per_metric: 1000, clock };
        let rows = chunk(&catalog);
        let engine = Engine::start(catalog.clone(), options, Arc::new(NoHook)).expect("it starts");
        engine.sender().send(rows).expect("it runs");
        engine.flush();
        let published = engine.reader().load();
        let place = format!("round {round}, {workers} workers, tick {}", published.tick);
        let counts: Vec<_> = published.counters.values().map(|c| (c.received, c.admitted)).collect();
        assert_eq!(counts, [(ROWS as u64, ROWS as u64)], "{place}");
        let row = |name: &str, window: &str| {
            let index = catalog.metric_index(name).expect("it is there");
            let query = MetricQuery { window: Some(window.to_owned()), ..MetricQuery::default() };
            let answer = published.metric(index, &query).expect("an answer");
            answer.rows[0].values.clone()
        };
        let expected = [Value::Int(ROWS), Value::Int(10)];
        assert_eq!(row("clicks", "ever"), expected, "{place}");
        if round % 2 == 0 {
            assert_eq!(row("clicks", "day"), expected, "{place}");
        }
        assert_eq!(row("persons", "ever"), [Value::Int(10), Value::Int(ROWS)], "{place}");
        engine.stop();
    }
}
