//! Hand-computed cases for the oracle itself.

mod related;
mod sequence;

use super::zone::{DAY, HOUR, MINUTE, SECOND, parse_instant};
use super::*;

const SHOP: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: order
version: 1.0.0
dedupe: 1h
fields:
  id: { type: string, required: true }
  amount: { type: "decimal(10,2)", min: "0" }
  region: { type: string, enum: [eu, us, asia] }
  n: { type: int, default: 1 }
  items: { type: list, fields: { q: { type: int, max: 9 } } }
rules:
  not_odd: { check: "n % 2 = 0 OR n = 1", severity: error }
  cheap: { check: "amount < 1000", severity: warning }
enrich:
  units: sum_of(items, q)
  share: 100 / n
id: id
---
apiVersion: streamgauge/v1
kind: Entity
name: place
version: 1.0.0
key: region
events: [order]
fields:
  latest: { last: amount }
  total: { sum: amount }
  orders: { count: "*" }
  seen: { set: n }
---
apiVersion: streamgauge/v1
kind: Metric
name: revenue
version: 1.0.0
events: { order: { type: order, where: "order.n < 50" } }
dimensions:
  region: { max: 2, default: none }
measures:
  total: { agg: sum, value: amount, empty: "0.00" }
  orders: { agg: count }
  mean: { ratio: [total, orders] }
  odd: { agg: count, where: "n % 2 = 1" }
  twice: { expr: "total * 2 / odd" }
  before: { shift: orders, by: 1h }
  speed: { agg: rate, per: 1m }
windows:
  hour: { tumbling: 1h }
  visit: { session: 10m }
  ever: { all: true }
---
apiVersion: streamgauge/v1
kind: Metric
name: places
version: 1.0.0
entity: place
measures: { places: { agg: count }, total: { agg: sum, value: total } }
"#;

fn envelope() -> Envelope {
    Envelope { id: "event_id".into(), kind: "type".into(), time: "at".into() }
}

fn t(text: &str) -> i64 {
    parse_instant(&format!("2026-03-02T{text}Z")).expect("an instant")
}

/// `rows`: received, then the members of the payload but type and time, then its event time.
fn oracle(rows: &[(&str, &str, &str)], now: &str) -> Oracle {
    let records: Vec<(Raw, i64)> = rows
        .iter()
        .enumerate()
        .map(|(i, (received, body, at))| {
            let payload = format!(r#"{{"type":"order","at":"2026-03-02T{at}Z",{body}}}"#).into_bytes();
            (
                Raw {
                    partition: 0,
                    offset: i as i64,
                    received: t(received),
                    payload,
                    key: None,
                    table: None,
                },
                t(received),
            )
        })
        .collect();
    Oracle::new(SHOP, &envelope(), &records, t(now))
}

fn fates(oracle: &Oracle) -> Vec<String> {
    let show = |fate: &Fate| match fate {
        Fate::Admitted(_) => "admitted".to_string(),
        Fate::Duplicate { .. } => "duplicate".to_string(),
        Fate::Skipped => "skipped".to_string(),
        Fate::Refused { reasons, .. } => reasons.iter().cloned().collect::<Vec<_>>().join(" "),
    };
    oracle.fates.iter().map(|(_, _, fate)| show(fate)).collect()
}

#[test]
fn admission() {
    let oracle = oracle(
        &[
            ("10:00:00", r#""id":"a","amount":"1.50","region":"eu""#, "10:00:00"),
            ("10:01:00", r#""id":"a","amount":"9.99","region":"us""#, "10:01:00"),
            ("11:00:00", r#""id":"a","amount":"2.50","region":"us""#, "10:59:00"),
            ("11:00:00.000001", r#""id":"a","amount":2.5"#, "11:00:00"),
            ("11:00:00", r#""amount":"1.505","region":"mars","n":1.0"#, "11:00:00"),
            ("11:00:00", r#""id":"b","amount":-1"#, "11:05:00"),
            ("11:00:00", r#""id":"c""#, "11:05:00.000001"),
            ("11:00:00", r#""id":"d","n":3"#, "11:00:00"),
            ("11:00:00", r#""id":"e","n":0"#, "11:00:00"),
            ("11:00:00", r#""id":"f","items":[{"q":10}]"#, "11:00:00"),
            ("11:00:00", r#""id":"g","amount":1000"#, "11:00:00"),
            ("11:00:00", r#""id":"h","id":"i""#, "11:00:00"),
        ],
        "12:00:00",
    );
    assert_eq!(
        fates(&oracle),
        [
            "admitted",
            "duplicate",
            "duplicate",
            "admitted",
            "missing not_in_enum wrong_type",
            "min",
            "time_in_future",
            "rule:not_odd",
            "evaluation",
            "max",
            "admitted",
            "malformed_json",
        ]
    );
    let tally = oracle.tallies()["order"];
    // The record with two ids is malformed, so its type is not known and it counts under none.
    assert_eq!(tally, Tally { received: 11, admitted: 3, refused: 6, duplicate: 2, warned: 1, skipped: 0 });
}

fn trade() -> Oracle {
    oracle(
        &[
            ("10:05:00", r#""id":"a","amount":"1.00","region":"us""#, "10:05:00"),
            ("10:06:00", r#""id":"b","amount":"2.00","region":"eu","n":2"#, "10:06:00"),
            ("10:15:59", r#""id":"c","amount":"4.00","region":"asia""#, "10:15:59"),
            ("10:26:00", r#""id":"d","amount":"8.00""#, "10:26:00"),
            ("11:10:00", r#""id":"e","amount":"16.00","region":"eu","n":4"#, "11:10:00"),
            ("11:12:00", r#""id":"f","amount":"32.00","region":"eu","n":60"#, "11:12:00"),
            ("11:13:00", r#""id":"g","amount":"64.00","region":"eu""#, "10:01:00"),
        ],
        "11:30:00",
    )
}

fn show(answer: &Answer) -> String {
    let cells = |cells: &Cells| cells.values.iter().map(Val::to_string).collect::<Vec<_>>().join(" ");
    let rows = answer.rows.iter().map(|(key, row)| {
        let key: Vec<String> = key.iter().map(Val::to_string).collect();
        format!("{}: {}", key.join(" "), cells(row))
    });
    rows.collect::<Vec<_>>().join("\n")
}

use super::metric::Cells;

#[test]
fn metrics_by_dimension() {
    let oracle = trade();
    let view = View::new(&oracle, &oracle.contracts.metrics[0], 1);
    // g (10:01) makes eu the first region, us (10:05) the second; asia and none are `other`.
    let by = ["region".to_string()];
    let answer = view.ask("hour", &by, None, t("11:00:00"));
    assert_eq!(answer.span, Some((t("10:00:00"), t("11:00:00"))));
    assert_eq!(
        show(&answer),
        "\"eu\": 66.00 2 33.00 1 132.000000 0 0.03333333333333333\n\
         \"other\": 12.00 2 6.00 2 12.000000 0 0.03333333333333333\n\
         \"us\": 1.00 1 1.00 1 2.000000 0 0.016666666666666666"
    );
    assert_eq!(answer.value, Val::Dec(7900, 2));
    // The hour of 11: f does not pass the alias's `where`; without odd rows `twice` divides by 0.
    let answer = view.ask("hour", &by, None, t("11:30:00"));
    assert_eq!(show(&answer), "\"eu\": 16.00 1 16.00 0 null 2 0.03333333333333333");
    let answer = view.ask("hour", &[], Some("region = 'us'"), t("11:30:00"));
    assert_eq!(show(&answer), ": 0.00 0 null 0 null 1 0.0");
    // Until 10:06, exclusive: g and a.
    let answer = view.ask("ever", &[], None, t("10:06:00"));
    assert_eq!(show(&answer), ": 65.00 2 32.50 2 65.000000 0 null");
}

#[test]
fn sessions() {
    let oracle = trade();
    let view = View::new(&oracle, &oracle.contracts.metrics[0], 1);
    // 10:05, 10:06 and 10:15:59 are less than 10 minutes apart; 10:26 is not (10:01 is, to 10:05).
    let answer = view.ask("visit", &[], None, t("10:26:00"));
    let row = &answer.rows[&Vec::new()];
    assert_eq!(row.session, Some((t("10:01:00"), t("10:25:59"))));
    assert_eq!(row.values[1], Val::Int(4));
    let answer = view.ask("visit", &["region".to_string()], None, t("11:30:00"));
    let spans: Vec<_> = answer.rows.values().map(|row| row.session.expect("a session")).collect();
    assert_eq!(
        spans,
        [(t("11:10:00"), t("11:20:00")), (t("10:26:00"), t("10:36:00")), (t("10:05:00"), t("10:15:00"))]
    );
    assert_eq!(view.ask("visit", &[], None, t("09:00:00")).rows[&Vec::new()].session, None);
}

#[test]
fn rows_exactly_a_gap_apart_are_two_sessions() {
    let body = |id: &str| format!(r#""id":"{id}""#);
    let (a, b) = (body("a"), body("b"));
    let oracle = oracle(&[("10:00:00", &a, "10:00:00"), ("10:10:00", &b, "10:10:00")], "11:00:00");
    let view = View::new(&oracle, &oracle.contracts.metrics[0], 1);
    let answer = view.ask("visit", &[], None, t("11:00:00"));
    assert_eq!(answer.rows[&Vec::new()].session, Some((t("10:10:00"), t("10:20:00"))));
}

#[test]
fn entities() {
    let oracle = trade();
    let rows = oracle.entity("place", t("11:30:00"));
    assert_eq!(rows.keys().map(String::as_str).collect::<Vec<_>>(), ["asia", "eu", "us"]);
    let eu = &rows["eu"];
    // g came last but happened first.
    let shown: Vec<String> = eu.fields.iter().map(|(name, v)| format!("{name}={v}")).collect();
    assert_eq!(shown, ["latest=32.00", "total=114.00", "orders=4", "seen=[1, 2, 4, 60]"]);
    assert_eq!((eu.first, eu.last, eu.events), (t("10:01:00"), t("11:12:00"), 4));
    assert_eq!(oracle.entity("place", t("10:06:00")).len(), 2);
    let view = View::new(&oracle, &oracle.contracts.metrics[1], 1);
    assert_eq!(show(&view.ask("all", &[], None, t("11:30:00"))), ": 3 119.00");
}

#[test]
fn older_than_retention_moves_nothing() {
    let rows = [("10:00:00", r#""id":"a","amount":1"#, "10:00:00")];
    let mut oracle = oracle(&rows, "10:00:00");
    let count = |oracle: &Oracle| {
        let view = View::new(oracle, &oracle.contracts.metrics[0], 1);
        let orders = |window| view.ask(window, &[], None, t("11:00:00")).rows[&Vec::new()].values[1].clone();
        (orders("visit"), orders("ever"))
    };
    assert_eq!(count(&oracle), (Val::Int(1), Val::Int(1)));
    // `ever` is everything all the same.
    oracle.clocks[0] += 7 * DAY + HOUR + MINUTE + SECOND;
    assert_eq!(count(&oracle), (Val::Int(0), Val::Int(1)));
}
