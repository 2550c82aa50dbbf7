//! What results in the lake cost: the time to find and compute what a round writes, beside the time to fold its events.
//!
//! *In*: metrics of several shapes over the same events. *Out*: a table of milliseconds, and that rounds tell something.
//! *Never*: an assertion about time.

use std::cell::Cell;
use std::time::{Duration, Instant};

use engine::Published;
use tests::harness::{Rig, catalog};
use tests::oracle::admit::Raw;

const EVENT: &str = "apiVersion: streamgauge/v1
kind: Event
name: order
version: 1.0.0
dedupe: 1s
fields:
  who: { type: string }
  amount: { type: \"decimal(18,2)\" }
---
apiVersion: streamgauge/v1
kind: Entity
name: buyer
version: 1.0.0
key: who
events: order
history: 2
fields: { spent: { sum: amount }, newest: { max: time } }
---
apiVersion: streamgauge/v1
kind: Metric
name: m
version: 1.0.0
";

const PLAIN: &str = "events: { a: { type: order } }
dimensions: { who: { from: who, max: 100000 } }
";

/// Name, and the metric.
const SHAPES: [(&str, &str, &str); 8] = [
    (
        "tumbling 1m",
        PLAIN,
        "measures: { n: { agg: count }, s: { agg: sum, value: amount } }\nwindows: { w: { tumbling: 1m } }\n",
    ),
    ("sliding 1h/1m", PLAIN, "measures: { n: { agg: count } }\nwindows: { w: { sliding: 1h, every: 1m } }\n"),
    ("session 45s", PLAIN, "measures: { n: { agg: count } }\nwindows: { w: { session: 45s } }\n"),
    (
        "shift 1h",
        PLAIN,
        "measures: { n: { agg: count }, was: { shift: n, by: 1h } }\nwindows: { w: { tumbling: 1m } }\n",
    ),
    (
        "over 5 x 1m",
        PLAIN,
        "measures: { n: { agg: count }, most: { over: n, agg: max, window: w, last: 5 } }\nwindows: { w: { tumbling: 1m } }\n",
    ),
    (
        "concurrent",
        PLAIN,
        "measures: { n: { agg: concurrent, start: time, end: \"time + INTERVAL '10 minutes'\" } }\nwindows: { w: { tumbling: 1m } }\n",
    ),
    (
        "overflowing",
        "events: { a: { type: order } }\ndimensions: { who: { from: who, max: 20 } }\n",
        "measures: { n: { agg: count } }\nwindows: { w: { tumbling: 1m } }\n",
    ),
    (
        "entity",
        "entity: buyer\ntime: { column: newest }\n",
        "measures: { n: { agg: count }, s: { agg: sum, value: spent } }\nwindows: { w: { tumbling: 1m } }\n",
    ),
];

const SECOND: i64 = 1_000_000;
/// 2026-11-21T00:00:00Z.
const START: i64 = 1_795_219_200 * SECOND;
const KEYS: i64 = 200;
/// Minutes of history; each key has an event in each.
const MINUTES: i64 = 120;
/// Rounds of ten seconds.
const ROUNDS: i64 = 12;

fn event(offset: i64, at: i64, key: i64) -> Raw {
    let time = jiff::Timestamp::from_microsecond(at).expect("an instant");
    let payload = format!(
        "{{\"event_id\":\"e{offset}\",\"type\":\"order\",\"at\":\"{time}\",\"who\":\"w{key}\",\"amount\":\"{key}.25\"}}"
    );
    Raw { partition: 0, offset, received: at, key: None, table: None, payload: payload.into_bytes() }
}

/// Time to tell, and the rows told.
fn tell(published: &Published, before: Option<&Published>) -> (Duration, usize) {
    let (started, mut rows) = (Instant::now(), 0);
    published.closed(0, before, &mut |_| rows += 1);
    (started.elapsed(), rows)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[test]
fn rounds_look_at_what_moved() {
    eprintln!(
        "{:>14} {:>11} {:>9} | per round of {KEYS} events: {:>9} {:>9} {:>6} | late: {:>9} {:>6}",
        "", "all windows", "rows", "fold", "tell", "rows", "tell", "rows"
    );
    for (name, head, body) in SHAPES {
        let yaml = format!("{EVENT}{head}{body}");
        let catalog = catalog(&yaml).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut rig = Rig::start(&catalog, 1, 1, &[], START).expect("a rig");
        let offset = Cell::new(0);
        let send = |rig: &mut Rig, at: &dyn Fn(i64) -> i64| {
            let events: Vec<Raw> = (0..KEYS).map(|key| event(offset.get() + key, at(key), key)).collect();
            offset.set(offset.get() + KEYS);
            rig.expect(&events);
            rig.send(&events.iter().collect::<Vec<_>>());
        };
        for minute in 0..MINUTES {
            rig.clock(START + (minute + 1) * 60 * SECOND);
            send(&mut rig, &|key| START + minute * 60 * SECOND + key * SECOND / 4);
        }
        let mut now = START + MINUTES * 60 * SECOND;
        let mut before = rig.published();
        let (whole, all) = tell(&before, None);
        let (mut fold, mut told, mut rows) = (Duration::ZERO, Duration::ZERO, 0);
        let (mut late, mut late_rows) = (Duration::ZERO, 0);
        for round in 0..ROUNDS {
            now += 10 * SECOND;
            rig.clock(now);
            let started = Instant::now();
            send(&mut rig, &|key| now - 1 - key * SECOND / 25);
            let published = rig.published();
            fold += started.elapsed();
            let (time, more) = tell(&published, Some(&before));
            (told, rows) = (told + time, rows + more);
            before = published;
            // One row of an hour ago.
            let one = event(1_000_000 + round, now - 3_600 * SECOND, round);
            rig.send(&[&Raw { offset: offset.get(), ..one }]);
            offset.set(offset.get() + 1);
            let published = rig.published();
            let (time, more) = tell(&published, Some(&before));
            (late, late_rows) = (late + time, late_rows + more);
            before = published;
        }
        let per = |time: Duration| ms(time) / ROUNDS as f64;
        eprintln!(
            "{name:>14} {:>8.1} ms {all:>9} | {:>26.2} ms {:>6.2} ms {:>6} | {:>9.2} ms {:>6}",
            ms(whole),
            per(fold),
            per(told),
            rows / ROUNDS as usize,
            per(late),
            late_rows / ROUNDS as usize
        );
        assert!(all > 0, "{name} tells of nothing");
        rig.stop();
    }
}
