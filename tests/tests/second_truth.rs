//! Sequences, what lasts, windows of windows: the engine, the second truth and numbers worked out by hand.
//!
//! *In*: contracts and events written here. *Out*: three times the same number. *Never*: a question that the second
//! truth refuses.

use std::sync::atomic::Ordering;

use engine::MetricQuery;
use tests::harness::second::{REFUSED, differences};
use tests::harness::{Rig, catalog};
use tests::oracle::admit::Raw;
use tests::oracle::val::instant;
use tests::oracle::zone::parse_instant;

/// 2026-03-<day> <hour>:00 in UTC.
fn at(day: u32, hour: u32) -> i64 {
    parse_instant(&format!("2026-03-{day:02}T{hour:02}:00:00Z")).expect("an instant")
}

/// One record per line: day, hour, payload without the envelope.
fn records(lines: &[(u32, u32, &str)], now: i64, from: i64) -> Vec<Raw> {
    let record = |(offset, (day, hour, fields)): (usize, &(u32, u32, &str))| {
        let offset = from + offset as i64;
        let payload =
            format!("{{\"event_id\": \"e-{offset}\", \"at\": \"{}\", {fields}}}", instant(at(*day, *hour)));
        Raw { partition: 0, offset, received: now, payload: payload.into_bytes(), key: None, table: None }
    };
    lines.iter().enumerate().map(record).collect()
}

/// The engine's answers to `asked` (metric 0: window, by, measures, where the answer stands), after all questions
/// about all windows and instants have been asked twice.
fn answers(yaml: &str, steps: &[(i64, Vec<Raw>)], asked: &[(&str, &[&str], i64)]) -> Vec<String> {
    let catalog = catalog(yaml).expect("contracts");
    let mut rig = Rig::start(&catalog, 2, 1, &[], steps[0].0).expect("an engine");
    for (clock, records) in steps {
        rig.clock(*clock);
        rig.expect(records);
        rig.send(&records.iter().collect::<Vec<_>>());
        rig.settle(*clock);
        let published = rig.published();
        let kept = rig.told.kept.lock().expect("no panic").clone();
        let instants: Vec<i64> = asked.iter().map(|(_, _, at)| *at).filter(|at| at < clock).collect();
        let mut rng = fastrand::Rng::with_seed(1);
        let found = differences(&published, &kept, &instants, (usize::MAX, &mut rng));
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
    assert_eq!(REFUSED.load(Ordering::Relaxed), 0, "all is recomputed");
    let published = rig.published();
    let answer = |(window, by, at): &(&str, &[&str], i64)| {
        let query = MetricQuery {
            window: Some((*window).to_owned()),
            measures: None,
            by: by.iter().map(|name| (*name).to_owned()).collect(),
            filter: None,
            as_of: (*at < published.as_of).then_some(*at),
        };
        let answer = published.metric(0, &query).expect("an answer");
        let rows = answer.rows.iter().map(|row| {
            let cells = row.key.iter().chain(&row.values).map(|cell| cell.to_json(None).to_string());
            cells.collect::<Vec<_>>().join(" ")
        });
        rows.collect::<Vec<_>>().join("; ")
    };
    let answers = asked.iter().map(answer).collect();
    rig.stop();
    answers
}

const MOVED: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: moved
version: 1.0.0
fields: { item: { type: string }, state: { type: string }, team: { type: string } }
"#;

#[test]
fn states_of_items() {
    let yaml = format!(
        "{MOVED}---{}",
        r#"
apiVersion: streamgauge/v1
kind: Metric
name: flow
version: 1.0.0
events: { move: { type: moved } }
sequence: { of: move, key: move.item, state: move.state, start: "move.state = 'doing'", end: "move.state = 'done'" }
dimensions: { team: { from: move.team, max: 9 } }
measures:
  closed: { of: interval, agg: count, where: interval.end IS NOT NULL }
  wip: { agg: concurrent, where: "interval.state = 'doing'" }
  doing: { agg: duration_in_state, state: doing, unit: h }
  items: { of: item, agg: count }
  lead: { of: item, agg: max, value: item.dwell, unit: h }
  passed: { of: passed, agg: sum, value: passed.dwell, unit: h }
  of_days: { over: items, window: day, last: 3, agg: sum }
  days_known: { over: wip, window: day, last: 9, agg: count }
windows:
  day: { tumbling: 1d, tz: UTC }
  2d: { sliding: 2d, every: 1h }
retain: { live: 30d }
"#
    );
    let moves = |lines: &[(u32, u32, &str, &str, &str)], now: i64, from: i64| {
        let fields: Vec<(u32, u32, String)> = lines
            .iter()
            .map(|(day, hour, item, state, team)| {
                let fields = format!(
                    "\"type\": \"moved\", \"item\": \"{item}\", \"state\": \"{state}\", \"team\": \"{team}\""
                );
                (*day, *hour, fields)
            })
            .collect();
        let lines: Vec<(u32, u32, &str)> = fields.iter().map(|(d, h, f)| (*d, *h, f.as_str())).collect();
        records(&lines, now, from)
    };
    let first = [
        (2, 10, "a", "todo", "x"),
        (2, 12, "a", "doing", "x"),
        (3, 12, "a", "review", "x"),
        (3, 18, "a", "done", "x"),
        (2, 20, "b", "doing", "y"),
        // Says nothing new.
        (3, 8, "b", "doing", "y"),
    ];
    // Late: `a` was in `doing` twice. `b` goes on, `c` is done without ever having been entered.
    let second = [
        (2, 18, "a", "todo", "x"),
        (2, 22, "a", "doing", "x"),
        (4, 6, "b", "done", "y"),
        (4, 7, "c", "done", "z"),
    ];
    let steps = [
        (at(3, 20), moves(&first, at(3, 20), 0)),
        (at(4, 12), moves(&second, at(4, 12), first.len() as i64)),
    ];
    let asked: [(&str, &[&str], i64); 4] = [
        ("day", &[], at(4, 12)),
        ("day", &["team"], at(4, 12)),
        ("day", &[], at(3, 0)),
        ("2d", &[], at(4, 12)),
    ];
    let found = answers(&yaml, &steps, &asked);
    // On the 4th: the interval of `b` ends (34 h, 6 of them on the 4th), `b` and `c` are done. Of the days before,
    // the 2nd had no item done and the 3rd one.
    let hours = |hours: i64| format!("{}.0", hours * 3_600);
    let (six, long) = (hours(6), hours(34));
    assert_eq!(found[0], format!("1 0 {six} 2 {long} {long} 1 2"));
    assert_eq!(found[1], format!("\"y\" 1 0 {six} 1 {long} {long} 0 2; \"z\" 0 0 0.0 1 null null null 0"),);
    // At the end of the 2nd `a` and `b` are in `doing`: 12 to 18 and 22 to 24, 20 to 24.
    assert_eq!(found[2], format!("3 2 {} 0 null null 0 1", hours(12)));
    // Since noon of the 2nd: `a` was in `doing` for 6 and 14 h, `b` for 34; `a` took 30 h, `b` 34.
    assert_eq!(found[3], format!("6 0 {} 3 {long} {} 1 2", hours(54), hours(64)));
}

#[test]
fn conditions_that_open_and_close() {
    let yaml = r#"
apiVersion: streamgauge/v1
kind: Event
name: door
version: 1.0.0
fields: { door: { type: int }, open: { type: bool }, who: { type: string } }
---
apiVersion: streamgauge/v1
kind: Metric
name: doors
version: 1.0.0
events: { d: { type: door } }
sequence: { of: d, key: d.door, start: d.open, end: NOT d.open }
dimensions: { who: { from: d.who, max: 1 } }
measures:
  open: { agg: concurrent }
  time: { agg: duration_in_state, unit: h }
  longest: { agg: max, value: interval.dwell, unit: h }
  rest: { expr: "as_of() - opened" }
  opened: { agg: last, value: interval.start }
windows: { day: { to_date: day, tz: Europe/London }, ever: { all: true } }
retain: { live: 30d }
"#;
    let door = |door: u32, open: bool, who: &str| {
        format!("\"type\": \"door\", \"door\": {door}, \"open\": {open}, \"who\": \"{who}\"")
    };
    let lines = [
        (2, 8, door(1, true, "ann")),
        // Open already, then closed by somebody else: the interval is of who opened it.
        (2, 9, door(1, true, "bob")),
        (2, 10, door(1, false, "bob")),
        (2, 23, door(2, true, "bob")),
        // Was not open.
        (3, 1, door(3, false, "cy")),
        (3, 4, door(1, true, "cy")),
    ];
    let lines: Vec<(u32, u32, &str)> = lines.iter().map(|(d, h, text)| (*d, *h, text.as_str())).collect();
    let steps = [(at(3, 6), records(&lines, at(3, 6), 0))];
    let asked: [(&str, &[&str], i64); 3] =
        [("day", &[], at(3, 6)), ("day", &["who"], at(3, 6)), ("ever", &[], at(3, 0))];
    let found = answers(yaml, &steps, &asked);
    // Door 2 since 23:00, door 1 since 4:00.
    let (four, two) = (instant(at(3, 4)), instant(at(2, 23)));
    assert_eq!(found[0], format!("2 {}.0 null 7200.0 \"{four}\"", 8 * 3_600));
    assert_eq!(
        found[1],
        format!("\"other\" 2 {}.0 null 7200.0 \"{four}\"", 8 * 3_600),
        "`ann` was first and keeps her name"
    );
    assert_eq!(found[2], format!("1 {}.0 7200.0 3600.0 \"{two}\"", 3 * 3_600));
}

#[test]
fn what_lasts_into_the_future_and_counts_elsewhere() {
    let yaml = r#"
apiVersion: streamgauge/v1
kind: Event
name: booking
version: 1.0.0
fields: { opens: { type: timestamp }, closes: { type: timestamp }, room: { type: string } }
---
apiVersion: streamgauge/v1
kind: Metric
name: bookings
version: 1.0.0
events: { b: { type: booking } }
time: { column: b.opens, future: 90d }
dimensions: { room: { from: b.room, max: 9 } }
measures:
  bookings: { agg: count }
  taken: { agg: concurrent, start: b.opens, end: b.closes }
  time: { agg: duration_in_state, start: b.opens, end: b.closes, unit: h }
windows: { day: { tumbling: 1d, tz: UTC } }
retain: { live: 30d }
"#;
    let booking = |opens: i64, closes: i64, room: &str| {
        let (opens, closes) = (instant(opens), instant(closes));
        format!(
            "\"type\": \"booking\", \"opens\": \"{opens}\", \"closes\": \"{closes}\", \"room\": \"{room}\""
        )
    };
    let lines = [
        (1, 9, booking(at(2, 10), at(2, 14), "a")),
        (2, 8, booking(at(2, 9), at(5, 9), "b")),
        (2, 9, booking(at(2, 11), at(2, 12), "a")),
    ];
    let lines: Vec<(u32, u32, &str)> = lines.iter().map(|(d, h, text)| (*d, *h, text.as_str())).collect();
    let steps = [(at(6, 13), records(&lines, at(6, 13), 0))];
    let asked: [(&str, &[&str], i64); 3] =
        [("day", &[], at(2, 13)), ("day", &["room"], at(2, 13)), ("day", &[], at(2, 12))];
    let found = answers(yaml, &steps, &asked);
    assert_eq!(found[0], format!("3 2 {}.0", (3 + 4 + 1) * 3_600));
    assert_eq!(found[1], format!("\"a\" 2 1 {}.0; \"b\" 1 1 {}.0", 4 * 3_600, 4 * 3_600));
    // What ends at noon lasts until then.
    assert_eq!(found[2], format!("3 3 {}.0", (2 + 3 + 1) * 3_600));
}

/// An end that is announced is still to come: the row lasts.
#[test]
fn an_announced_end_is_still_to_come() {
    let yaml = r#"
apiVersion: streamgauge/v1
kind: Event
name: booking
version: 1.0.0
fields: { opens: { type: timestamp }, closes: { type: timestamp } }
---
apiVersion: streamgauge/v1
kind: Metric
name: bookings
version: 1.0.0
events: { b: { type: booking } }
measures:
  taken: { agg: concurrent, start: b.opens, end: b.closes }
  time: { agg: duration_in_state, start: b.opens, end: b.closes, unit: h }
windows: { day: { tumbling: 1d, tz: UTC } }
"#;
    let catalog = catalog(yaml).expect("contracts");
    let booking = |opens: i64, closes: i64| {
        let (opens, closes) = (instant(opens), instant(closes));
        format!("\"type\": \"booking\", \"opens\": \"{opens}\", \"closes\": \"{closes}\"")
    };
    let (a, b) = (booking(at(2, 10), at(2, 14)), booking(at(2, 14), at(5, 9)));
    let now = at(2, 13);
    let mut rig = Rig::start(&catalog, 1, 1, &[], now).expect("an engine");
    rig.send(&records(&[(2, 8, &a), (2, 9, &b)], now, 0).iter().collect::<Vec<_>>());
    let published = rig.published();
    let kept = rig.told.kept.lock().expect("no panic").clone();
    let question = audit::Question {
        metric: 0,
        window: 0,
        by: Vec::new(),
        measures: vec![0, 1],
        explain: Some(0),
        filter: None,
        as_of: now,
        now,
    };
    let again = audit::recompute(&catalog, &question, &kept).expect("a number");
    let served = published.metric(0, &engine::MetricQuery::default()).expect("an answer");
    let wanted = ["1".to_owned(), format!("{}.0", 3 * 3_600)];
    for values in [&served.rows[0].values, &again.rows[0].values] {
        let cells: Vec<String> = values.iter().map(|value| value.to_json(None).to_string()).collect();
        assert_eq!(cells, wanted);
    }
    assert_eq!(again.counts.counted, 1, "the event behind the number is shown");
    rig.stop();
}

#[test]
fn values_of_windows() {
    let yaml = r#"
apiVersion: streamgauge/v1
kind: Event
name: sale
version: 1.0.0
fields: { amount: { type: "decimal(9,2)" }, shop: { type: string } }
---
apiVersion: streamgauge/v1
kind: Metric
name: sales
version: 1.0.0
events: { s: { type: sale } }
dimensions: { shop: { from: s.shop, max: 2 } }
measures:
  sales: { agg: count }
  sum: { agg: sum, value: s.amount, empty: "0.00" }
  mean: { over: sum, window: day, last: 3, agg: avg }
  with_today: { over: sum, window: day, last: 3, running: true, agg: sum }
  median: { over: sales, window: day, last: 4, before: zero, agg: quantile, q: 0.5 }
  most: { over: mean, window: day, last: 2, agg: max }
  earlier: { shift: with_today, by: 1d }
windows: { day: { tumbling: 1d, tz: Europe/London }, 6h: { tumbling: 6h } }
retain: { live: 30d }
"#;
    let sale = |amount: &str, shop: &str| {
        format!("\"type\": \"sale\", \"amount\": \"{amount}\", \"shop\": \"{shop}\"")
    };
    let lines = [
        (2, 8, sale("1.00", "a")),
        (2, 9, sale("2.01", "b")),
        (4, 10, sale("4.00", "a")),
        (5, 1, sale("8.00", "c")),
        (5, 8, sale("16.00", "a")),
    ];
    let lines: Vec<(u32, u32, &str)> = lines.iter().map(|(d, h, text)| (*d, *h, text.as_str())).collect();
    let steps =
        [(at(4, 12), records(&lines[..3], at(4, 12), 0)), (at(5, 10), records(&lines[3..], at(5, 10), 3))];
    let asked: [(&str, &[&str], i64); 3] =
        [("day", &[], at(5, 10)), ("day", &["shop"], at(5, 10)), ("6h", &[], at(4, 12))];
    let found = answers(yaml, &steps, &asked);
    // The days: 3.01, 0, 4.00, and 24.00 so far; sales 0 (before the first), 2, 0, 1.
    // `most`: the mean as of the ends of the 4th and the 3rd, which are of days that were over then.
    // `earlier` is of the 4th at 10:00, before the sale of that instant.
    assert_eq!(found[0], "2 \"24.00\" \"2.34\" \"28.00\" 0.5 \"2.34\" \"3.01\"");
    assert_eq!(
        found[1],
        "\"a\" 1 \"16.00\" \"1.67\" \"20.00\" 0.5 \"1.67\" \"1.00\"; \
         \"other\" 1 \"8.00\" null \"8.00\" 0.0 null null"
    );
    assert_eq!(found[2], "1 \"4.00\" \"1.51\" \"7.01\" 0.0 \"3.01\" \"3.01\"");
}

/// Stays of people, the first of whom alone keeps a name.
fn stays(windows: &str) -> String {
    format!(
        r#"
apiVersion: streamgauge/v1
kind: Event
name: stay
version: 1.0.0
fields: {{ who: {{ type: string }}, until: {{ type: timestamp }} }}
---
apiVersion: streamgauge/v1
kind: Metric
name: stays
version: 1.0.0
events: {{ s: {{ type: stay }} }}
dimensions: {{ who: {{ from: s.who, max: 1 }} }}
measures:
  there: {{ agg: concurrent, start: s.time, end: s.until }}
  rows: {{ agg: count }}
windows: {{ {windows} }}
retain: {{ live: 7d }}
"#
    )
}

#[test]
fn names_go_by_the_times_of_rows_whatever_the_panes() {
    for windows in
        ["now: { tumbling: 4h }", "now: { tumbling: 4h }, fine: { tumbling: 1h }", "now: { all: true }"]
    {
        // In one pane of four hours: bob came before ann.
        let lines =
            [(2, 9, "\"type\": \"stay\", \"who\": \"bob\""), (2, 10, "\"type\": \"stay\", \"who\": \"ann\"")];
        let steps = [(at(2, 11), records(&lines, at(2, 11), 0))];
        let asked: [(&str, &[&str], i64); 1] = [("now", &["who"], at(2, 11))];
        assert_eq!(answers(&stays(windows), &steps, &asked), ["\"bob\" 1 1; \"other\" 1 1"], "{windows}");
    }
}

/// Who came first keeps the name while the stay goes on, though its row is no longer retained, and until that has
/// ended before what is retained.
#[test]
fn what_still_lasts_keeps_its_name() {
    let until = format!("\"type\": \"stay\", \"who\": \"cy\", \"until\": \"{}\"", instant(at(4, 9)));
    let first = [(1, 9, "\"type\": \"stay\", \"who\": \"bob\""), (1, 8, until.as_str())];
    let steps = [
        (at(1, 11), records(&first, at(1, 11), 0)),
        (at(10, 11), records(&[(10, 9, "\"type\": \"stay\", \"who\": \"ann\"")], at(10, 11), 3)),
    ];
    let yaml = stays("now: { tumbling: 4h }");
    let asked: [(&str, &[&str], i64); 1] = [("now", &["who"], at(10, 11))];
    // The stay of cy ended within seven days: it was there first.
    assert_eq!(answers(&yaml, &steps, &asked), ["\"other\" 2 1"]);
    let later = [
        steps[0].clone(),
        (
            at(20, 11),
            records(&[(20, 9, first[1].2), (20, 10, "\"type\": \"stay\", \"who\": \"ann\"")], at(20, 11), 3),
        ),
    ];
    let asked: [(&str, &[&str], i64); 1] = [("now", &["who"], at(20, 11))];
    assert_eq!(answers(&yaml, &later, &asked), ["\"bob\" 1 0; \"other\" 1 2"]);
}

/// An event ahead of the clock waits, and only then the instant at which it counts is asked for.
#[test]
fn an_event_ahead_of_the_clock_waits_whenever_it_counts() {
    let yaml = r#"
apiVersion: streamgauge/v1
kind: Event
name: shift
version: 1.0.0
fields: { hours: { type: int } }
---
apiVersion: streamgauge/v1
kind: Metric
name: shifts
version: 1.0.0
events: { s: { type: shift } }
time: { column: "CASE WHEN s.hours > 0 THEN s.time + INTERVAL '3 hours' ELSE s.time - INTERVAL '3 hours' END", future: 1d }
measures:
  rows: { agg: count }
  gone: { agg: duration_in_state, start: "s.time - INTERVAL '2 hours'", end: "s.time - INTERVAL '1 hour'", unit: h }
windows: { day: { tumbling: 1d, tz: UTC } }
"#;
    let lines = [
        // Counts at six, at twelve.
        (2, 9, "\"type\": \"shift\", \"hours\": 0"),
        (2, 9, "\"type\": \"shift\", \"hours\": 1"),
    ];
    let minute = 60_000_000;
    let asked: [(&str, &[&str], i64); 1] = [("day", &[], at(3, 0))];
    let found = |now: i64| answers(yaml, &[(now, records(&lines, now, 0))], &asked);
    assert_eq!(found(at(2, 9) - minute), ["0 0.0"]);
    assert_eq!(found(at(2, 9) + minute), ["1 7200.0"]);
    assert_eq!(found(at(2, 12)), ["1 7200.0"]);
    assert_eq!(found(at(2, 12) + minute), ["2 7200.0"]);
}

/// A row of an entity whose time is announced counts when the clock has passed it, and not where it was before.
#[test]
fn a_row_of_an_entity_ahead_of_the_clock_waits() {
    let yaml = r#"
apiVersion: streamgauge/v1
kind: Event
name: planned
version: 1.0.0
fields: { release: { type: string }, due: { type: timestamp } }
---
apiVersion: streamgauge/v1
kind: Entity
name: release
version: 1.0.0
key: release
events: [planned]
fields: { due: { last: due } }
---
apiVersion: streamgauge/v1
kind: Metric
name: releases
version: 1.0.0
entity: release
time: { column: due }
measures: { due: { agg: count }, latest: { agg: max, value: due } }
windows: { day: { tumbling: 1d, tz: UTC } }
"#;
    let planned = |name: &str, due: i64| {
        format!("\"type\": \"planned\", \"release\": \"{name}\", \"due\": \"{}\"", instant(due))
    };
    let texts = [planned("a", at(2, 10)), planned("b", at(2, 12)), planned("b", at(2, 14))];
    let step = |offset: i64, line: usize, hour: u32| {
        let now = at(2, hour);
        (now, records(&[(2, hour - 1, texts[line].as_str())], now, offset))
    };
    // b is put off before its time comes.
    let mut steps = vec![step(0, 0, 9), step(1, 1, 10), step(2, 2, 11)];
    let all: [(&str, &[&str], i64); 2] = [("day", &[], at(3, 0)), ("day", &[], at(2, 10))];
    assert_eq!(answers(yaml, &steps, &all), [format!("1 \"{}\"", instant(at(2, 10))), "0 null".to_owned()]);
    steps.push((at(2, 13), Vec::new()));
    assert_eq!(answers(yaml, &steps, &all[..1]), [format!("1 \"{}\"", instant(at(2, 10)))]);
    steps.push((at(2, 15), Vec::new()));
    assert_eq!(answers(yaml, &steps, &all[..1]), [format!("2 \"{}\"", instant(at(2, 14)))]);
}
