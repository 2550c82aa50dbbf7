//! Hand-computed cases of sequences, of what lasts, and of windows of windows.

use super::related::{ask, lost, told};

const FLOW: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: item
version: 1.0.0
fields: { item_id: { type: string }, state: { type: string }, class: { type: string } }
---
apiVersion: streamgauge/v1
kind: Metric
name: flow
version: 1.0.0
events: { s: { type: item } }
sequence: { of: s, key: s.item_id, state: s.state, start: s.state <> 'backlog', end: s.class = 'done' }
measures:
  velocity: { of: item, agg: count }
  flow_time: { of: item, agg: max, value: item.dwell }
  active: { of: passed, agg: sum, value: passed.dwell, where: passed.state = 'dev' }
  wip: { agg: concurrent, where: interval.state <> 'backlog' }
  in_dev: { agg: duration_in_state, state: dev }
  oldest: { agg: min, value: interval.start, where: interval.end IS NULL }
  age: { expr: as_of() - oldest }
  moves: { of: s, agg: count }
windows: { hour: { tumbling: 1h }, all: { all: true } }
---
apiVersion: streamgauge/v1
kind: Metric
name: runs
version: 1.0.0
events: { s: { type: item } }
sequence: { key: s.item_id, start: s.state = 'dev', end: s.class = 'done' }
measures:
  open: { agg: count, value: interval.start, where: interval.end IS NULL }
  over: { agg: count, value: interval.end }
  done: { of: item, agg: count }
  longest: { agg: max, value: interval.dwell }
windows: { all: { all: true } }
---
apiVersion: streamgauge/v1
kind: Metric
name: hours
version: 1.0.0
events: { s: { type: item } }
dimensions: { class: { from: s.class, max: 9 } }
measures:
  n: { agg: count }
  most: { over: n, window: hour, last: 3, agg: max }
  sum: { over: n, window: hour, last: 3, agg: sum, running: true }
  windows: { over: n, window: hour, last: 3, agg: count }
  zeros: { over: n, window: hour, last: 3, agg: count, before: zero }
windows: { hour: { tumbling: 1h }, all: { all: true } }
"#;

const MOVES: [(usize, &str); 8] = [
    (
        0,
        r#"{"type":"item","event_id":"4","at":"2026-03-02T12:00:00Z","item_id":"A","state":"review","class":"wait"}"#,
    ),
    (
        0,
        r#"{"type":"item","event_id":"1","at":"2026-03-02T08:00:00Z","item_id":"A","state":"backlog","class":"wait"}"#,
    ),
    (
        1,
        r#"{"type":"item","event_id":"2","at":"2026-03-02T09:30:00Z","item_id":"A","state":"dev","class":"active"}"#,
    ),
    (
        0,
        r#"{"type":"item","event_id":"3","at":"2026-03-02T10:00:00Z","item_id":"A","state":"dev","class":"active"}"#,
    ),
    (
        0,
        r#"{"type":"item","event_id":"5","at":"2026-03-02T12:20:00Z","item_id":"A","state":"live","class":"done"}"#,
    ),
    (
        0,
        r#"{"type":"item","event_id":"6","at":"2026-03-02T12:25:00Z","item_id":"A","state":"live","class":"done"}"#,
    ),
    (
        1,
        r#"{"type":"item","event_id":"7","at":"2026-03-02T11:50:00Z","item_id":"B","state":"dev","class":"active"}"#,
    ),
    (0, r#"{"type":"item","event_id":"8","at":"2026-03-02T12:01:00Z","item_id":"B","class":"active"}"#),
];

/// A: backlog 8:00 to 9:30, dev to 12:00, review to 12:20, done then. B: dev since 11:50.
#[test]
fn an_item_flows() {
    let oracle = told(FLOW, &MOVES, "2026-03-02T12:30:00Z");
    let minutes = |n: i64| format!("{}us", n * 60_000_000);
    let rest = format!("2026-03-02T11:50:00Z {}", minutes(40));
    let all = format!(": 1 {} {} 1 {} {rest} 8", minutes(170), minutes(150), minutes(190));
    ask(&oracle, "flow", "all", &[], &all);
    // Of dev, the hour from 12:00 has B alone; the open interval's row is in the hour before.
    let hour = format!(": 1 {} {} 1 {} null null 4", minutes(170), minutes(150), minutes(30));
    ask(&oracle, "flow", "hour", &[], &hour);
    lost(&oracle, "flow", &[("no_state", 1)]);
}

#[test]
fn without_states_there_is_open_and_not() {
    let oracle = told(FLOW, &MOVES, "2026-03-02T12:30:00Z");
    ask(&oracle, "runs", "all", &[], &format!(": 1 1 1 {}us", 170 * 60_000_000_i64));
    lost(&oracle, "runs", &[]);
}

/// Hours from 9:00 to 12:00 are complete: `wait` has 0 0 0 after its 8:00, `active` 1 1 1, `done` began later.
#[test]
fn windows_of_windows() {
    let oracle = told(FLOW, &MOVES, "2026-03-02T12:30:00Z");
    let wanted = "\"active\": 4 1 3 3 3\n\"done\": 2 null 2 0 3\n\"wait\": 2 0 1 3 3";
    ask(&oracle, "hours", "all", &["class"], wanted);
}
