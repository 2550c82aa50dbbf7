//! Hand-computed cases of joins, tables and change streams.

use super::super::zone::parse_instant;
use super::super::*;
use super::{envelope, show};

/// Contracts and records: partition, key or nothing, payload. Offsets count up within each partition;
/// everything is received at `now`.
pub(super) fn told(yaml: &str, records: &[(usize, &str)], now: &str) -> Oracle {
    let now = parse_instant(now).expect("an instant");
    let mut ends = [0; 4];
    let raws = records.iter().map(|(partition, text)| {
        let offset = ends[*partition];
        ends[*partition] += 1;
        // `key -> ` before nothing: a tombstone. `table!` before a payload: an envelope of that topic.
        let (key, payload) = match text.strip_suffix(" ->") {
            Some(key) => (Some(key.as_bytes().to_vec()), ""),
            None => (None, *text),
        };
        let (table, payload) = match payload.split_once('!') {
            Some((table, rest)) if !table.contains('{') => (Some(table.to_string()), rest),
            _ => (None, payload),
        };
        let raw = Raw { partition: *partition, offset, received: now, payload: payload.into(), key, table };
        (raw, now)
    });
    let oracle = Oracle::new(yaml, &envelope(), &raws.collect::<Vec<_>>(), now);
    for (_, _, fate) in &oracle.fates {
        assert!(matches!(fate, Fate::Admitted(_) | Fate::Duplicate { .. }), "{fate:?}");
    }
    oracle
}

#[track_caller]
pub(super) fn ask(oracle: &Oracle, metric: &str, window: &str, by: &[&str], wanted: &str) {
    let metric = oracle.contracts.metrics.iter().find(|m| m.name == metric).expect("a metric");
    let by: Vec<String> = by.iter().map(|name| (*name).to_string()).collect();
    let answer = View::new(oracle, metric, 1).ask(window, &by, None, oracle.now);
    assert_eq!(show(&answer), wanted);
}

#[track_caller]
pub(super) fn lost(oracle: &Oracle, metric: &str, wanted: &[(&str, u64)]) {
    let metric = oracle.contracts.metrics.iter().find(|m| m.name == metric).expect("a metric");
    let lost = rows::rows(oracle, metric, oracle.now).lost;
    let wanted = wanted.iter().map(|(reason, count)| ((*reason).to_string(), *count)).collect();
    assert_eq!(lost, wanted);
}

/// The first example of the design, its events with fields for what they nest.
const LEAD: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: merged
version: 1.0.0
fields: { subject: { type: struct, fields: { id: { type: string } } }, repo: { type: string, from: subject.content.repository.id } }
---
apiVersion: streamgauge/v1
kind: Event
name: packaged
version: 1.0.0
fields: { id: { type: string, from: subject.id }, change: { type: string, from: subject.content.change.id } }
---
apiVersion: streamgauge/v1
kind: Event
name: deployed
version: 1.0.0
fields: { id: { type: string }, env: { type: string }, artifact: { type: string } }
---
apiVersion: streamgauge/v1
kind: Event
name: upgraded
version: 1.0.0
fields: { id: { type: string }, env: { type: string }, artifact: { type: string } }
---
apiVersion: streamgauge/v1
kind: Event
name: owner
version: 1.0.0
fields: { service: { type: string }, team: { type: string } }
---
apiVersion: streamgauge/v1
kind: Table
name: service_owners
version: 1.0.0
key: service
fields: { service: { type: string }, team: { type: string } }
source: { event: owner }
---
apiVersion: streamgauge/v1
kind: Metric
name: lead
version: 1.0.0
events:
  change: { type: merged, fields: { id: subject.id, repo: subject.content.repository.id } }
  artifact: { type: packaged, fields: { id: subject.id, change_id: subject.content.change.id } }
  deploy: { type: [deployed, upgraded], fields: { service: id, artifact_id: artifact }, where: deploy.env = 'prod' }
join:
  - { from: change, to: artifact, match: change.id = artifact.change_id, pick: first, within: 7d }
  - { from: artifact, to: deploy, match: artifact.id = deploy.artifact_id, pick: first, within: 90d }
enrich:
  owners: { table: service_owners, match: deploy.service = owners.service, as_of: event, missing: keep }
dimensions:
  service: { from: deploy.service, max: 500 }
  team: { from: owners.team, default: unowned, max: 50 }
measures:
  changes: { agg: count }
  p50: { agg: quantile, q: 0.5, value: deploy.time - change.time, unit: s }
  slowest: { agg: max, value: deploy.time - change.time, unit: s }
  deploys: { of: deploy, agg: count }
  in_a_day: { agg: count, where: deploy.time - change.time <= INTERVAL '24 hours', hidden: true }
  share_in_a_day: { ratio: [in_a_day, changes], empty: null }
windows: { 7d: { sliding: 7d, every: 1m } }
"#;

const SHIPPED: [(usize, &str); 10] = [
    (0, r#"{"type":"owner","event_id":"t","at":"2026-01-01T00:00:00Z","service":"shop","team":"core"}"#),
    (0, r#"{"type":"merged","event_id":"1","at":"2026-03-02T09:00:00Z","subject":{"id":"c1"}}"#),
    (0, r#"{"type":"merged","event_id":"2","at":"2026-03-02T09:30:00Z","subject":{"id":"c2"}}"#),
    (0, r#"{"type":"merged","event_id":"3","at":"2026-03-02T10:00:00Z","subject":{"id":"c3"}}"#),
    (
        0,
        r#"[{"type":"packaged","event_id":"4","at":"2026-03-02T10:10:00Z","subject":{"id":"a1","content":{"change":{"id":"c1"}}}},
            {"type":"packaged","event_id":"5","at":"2026-03-02T10:10:00Z","subject":{"id":"a1","content":{"change":{"id":"c2"}}}}]"#,
    ),
    (
        1,
        r#"{"type":"packaged","event_id":"6","at":"2026-03-02T10:10:00Z","subject":{"id":"a1","content":{"change":{"id":"c3"}}}}"#,
    ),
    (
        1,
        r#"{"type":"deployed","event_id":"e1","at":"2026-03-02T10:30:00Z","id":"shop","env":"staging","artifact":"a1"}"#,
    ),
    (
        1,
        r#"{"type":"upgraded","event_id":"e2","at":"2026-03-02T11:00:00Z","id":"shop","env":"prod","artifact":"a1"}"#,
    ),
    (
        1,
        r#"{"type":"upgraded","event_id":"e2","at":"2026-03-02T11:00:00Z","id":"shop","env":"prod","artifact":"a1"}"#,
    ),
    (1, r#"{"type":"merged","event_id":"9","at":"2026-03-02T11:01:00Z","subject":{"id":"c9"}}"#),
];

#[test]
fn three_merges_ship_in_one_deploy() {
    let oracle = told(LEAD, &SHIPPED, "2026-03-02T11:05:00Z");
    let all = "\"shop\" \"core\": 3 5400000000us 7200000000us 1 3 1.0";
    ask(&oracle, "lead", "7d", &["service", "team"], all);
    lost(&oracle, "lead", &[("waiting", 1)]);
    // Seven days and a minute later the ninth change was not packaged in time; the others left the window.
    let oracle = told(LEAD, &SHIPPED, "2026-03-09T11:01:00.000001Z");
    lost(&oracle, "lead", &[("unmatched", 1)]);
    let oracle = told(LEAD, &SHIPPED, "2026-03-09T11:01:00Z");
    lost(&oracle, "lead", &[("waiting", 1)]);
    ask(&oracle, "lead", "7d", &["service"], "");
    let oracle = told(LEAD, &SHIPPED[1..2], "2026-03-02T12:00:00Z");
    ask(&oracle, "lead", "7d", &["service"], "");
    ask(&oracle, "lead", "7d", &[], ": 0 null null 0 0 null");
}

#[test]
fn rows_of_an_alias_lack_what_the_others_have() {
    let text = LEAD.replace("deploys: { of: deploy, agg: count }", "merges: { of: change, agg: count }");
    let oracle = told(&text, &SHIPPED, "2026-03-02T11:05:00Z");
    // The merges have no service, and no table is asked for them.
    ask(
        &oracle,
        "lead",
        "7d",
        &["service", "team"],
        "null \"unowned\": 0 null null 4 0 null\n\"shop\" \"core\": 3 5400000000us 7200000000us 0 3 1.0",
    );
}

/// The second example, its tables fed by events.
const REVENUE: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: cdc.shop.orders
version: 1.0.0
changelog: true
key: id
time: created_at
fields: { id: { type: string }, store_id: { type: string }, status: { type: string }, total: { type: "decimal(10,2)" }, currency: { type: string }, created_at: { type: timestamp } }
---
apiVersion: streamgauge/v1
kind: Event
name: refund
version: 1.0.0
fields: { store: { type: string, from: data.store_id }, amount: { type: "decimal(10,2)", from: data.amount }, currency: { type: string, from: data.currency } }
---
apiVersion: streamgauge/v1
kind: Event
name: store
version: 1.0.0
fields: { id: { type: string }, region: { type: string } }
---
apiVersion: streamgauge/v1
kind: Event
name: rate
version: 1.0.0
fields: { currency: { type: string }, usd: { type: "decimal(8,2)" }, day: { type: date }, until: { type: date } }
---
apiVersion: streamgauge/v1
kind: Table
name: stores
version: 1.0.0
key: id
fields: { id: { type: string }, region: { type: string } }
source: { event: store }
---
apiVersion: streamgauge/v1
kind: Table
name: fx_daily
version: 1.0.0
key: currency
valid_from: day
valid_to: until
fields: { currency: { type: string }, usd: { type: "decimal(8,2)" }, day: { type: date }, until: { type: date } }
source: { event: rate }
---
apiVersion: streamgauge/v1
kind: Metric
name: revenue
version: 1.0.0
events:
  order:
    type: cdc.shop.orders
    fields: { store: store_id, amount: total }
    where: order.status IN ('paid', 'shipped')
  refund: { type: refund }
enrich:
  store: { table: stores, match: row.store = store.id, as_of: event, missing: keep }
  fx: { table: fx_daily, match: row.currency = fx.currency, as_of: event, missing: hold }
dimensions:
  region: { from: store.region, default: unknown, max: 100, overflow: other }
measures:
  gross: { of: order, agg: sum, value: order.amount * fx.usd, type: "decimal(18,2)" }
  refunds: { of: refund, agg: sum, value: refund.amount * fx.usd, type: "decimal(18,2)", empty: "0.00" }
  orders: { of: order, agg: count }
  net: { expr: gross - refunds }
  aov: { ratio: [gross, orders], empty: null }
  dearest: { agg: max, value: order.amount }
windows: { day: { tumbling: 1d, tz: Etc/UTC } }
"#;

const REFERENCE: [(usize, &str); 4] = [
    (1, r#"{"type":"store","at":"2026-01-01T00:00:00Z","id":"s1","region":"eu"}"#),
    (1, r#"{"type":"store","at":"2026-01-01T00:00:00Z","id":"s2","region":"us"}"#),
    (
        1,
        r#"{"type":"rate","at":"2026-01-01T00:00:00Z","currency":"EUR","usd":"1.10","day":"2026-03-02","until":"2026-03-03"}"#,
    ),
    (1, r#"{"type":"rate","at":"2026-01-01T00:00:00Z","currency":"USD","usd":"1.00","day":"2026-01-01"}"#),
];

fn order(op: &str, id: &str, row: &str) -> String {
    let body = match op {
        "d" => format!(r#""before":{{"id":"{id}"}},"after":null"#),
        "t" => r#""before":null,"after":null"#.to_string(),
        _ => format!(r#""before":null,"after":{{"id":"{id}",{row}}}"#),
    };
    format!(r#"cdc.shop.orders!{{{body},"source":{{"ts_ms":1772442000000}},"op":"{op}"}}"#)
}

fn paid(op: &str, id: &str, status: &str, store: &str, total: &str, currency: &str, at: &str) -> String {
    order(
        op,
        id,
        &format!(
            r#""store_id":"{store}","status":"{status}","total":"{total}","currency":"{currency}","created_at":"2026-03-02T{at}Z""#
        ),
    )
}

fn revenue(orders: &[String], others: &[(usize, &str)]) -> Oracle {
    let orders = orders.iter().map(|text| (2, text.as_str()));
    let records: Vec<(usize, &str)> =
        REFERENCE.into_iter().chain(others.iter().copied()).chain(orders).collect();
    told(REVENUE, &records, "2026-03-02T09:15:00Z")
}

#[test]
fn cancelled_orders_retract_refunds_subtract_currencies_convert() {
    let orders = [
        paid("c", "o1", "paid", "s1", "100.00", "EUR", "09:00:00"),
        paid("c", "o2", "paid", "s2", "50.00", "USD", "09:01:00"),
        paid("c", "o3", "paid", "s1", "40.00", "EUR", "09:02:00"),
        paid("u", "o3", "cancelled", "s1", "40.00", "EUR", "09:02:00"),
    ];
    let refund = r#"{"type":"refund","at":"2026-03-02T09:10:00Z","data":{"store_id":"s1","amount":"10.00","currency":"EUR"}}"#;
    let oracle = revenue(&orders, &[(0, refund)]);
    let wanted = "\"eu\": 110.00 11.00 1 99.00 110.00 100.00\n\"us\": 50.00 0.00 1 50.00 50.00 50.00";
    ask(&oracle, "revenue", "day", &["region"], wanted);
}

#[test]
fn an_amended_order_replaces_its_old_amount_an_unmapped_store_is_visible() {
    let orders = [
        paid("c", "o1", "paid", "s1", "100.00", "EUR", "09:00:00"),
        paid("u", "o1", "shipped", "s1", "120.00", "EUR", "09:00:00"),
        paid("c", "o7", "paid", "s99", "5.00", "USD", "09:05:00"),
        paid("c", "o8", "paid", "s1", "7.00", "GBP", "09:05:00"),
    ];
    let oracle = revenue(&orders, &[]);
    let wanted = "\"eu\": 132.00 0.00 1 132.00 132.00 120.00\n\"unknown\": 5.00 0.00 1 5.00 5.00 5.00";
    ask(&oracle, "revenue", "day", &["region"], wanted);
    lost(&oracle, "revenue", &[("held", 1)]);
    // A rate for pounds lets the held order in; without the order before, the day ends earlier.
    let pounds =
        r#"{"type":"rate","at":"2026-03-02T09:11:00Z","currency":"GBP","usd":"2.00","day":"2026-03-02"}"#;
    let late = revenue(&orders, &[(0, pounds)]);
    ask(&late, "revenue", "day", &[], ": 151.00 0.00 3 151.00 50.33 120.00");
}

#[test]
fn versions_of_a_row() {
    let first = paid("c", "o1", "paid", "s1", "100.00", "USD", "09:00:00");
    let second = paid("u", "o1", "paid", "s1", "30.00", "USD", "08:00:00");
    let other = paid("r", "o2", "paid", "s1", "5.00", "USD", "09:00:00");
    let gone = order("d", "o1", "");
    let all = order("t", "", "");
    let sum = |records: &[&String], wanted: &str| {
        let records: Vec<String> = records.iter().map(|text| (*text).clone()).collect();
        ask(&revenue(&records, &[]), "revenue", "day", &[], wanted);
    };
    // The newest is the row, whatever its time.
    sum(&[&first, &second, &other], ": 35.00 0.00 2 35.00 17.50 30.00");
    sum(&[&second, &first], ": 100.00 0.00 1 100.00 100.00 100.00");
    sum(&[&first, &gone, &other], ": 5.00 0.00 1 5.00 5.00 5.00");
    // Again after the delete; a truncate takes what was before it only.
    sum(&[&first, &gone, &second], ": 30.00 0.00 1 30.00 30.00 30.00");
    sum(&[&first, &other, &all, &second], ": 30.00 0.00 1 30.00 30.00 30.00");
    sum(&[&first, &other, &all], ": null 0.00 0 null null null");
}

#[test]
fn a_row_may_move_to_another_key() {
    let first = paid("c", "o1", "paid", "s1", "100.00", "USD", "09:00:00");
    let moved = paid("u", "o2", "paid", "s1", "30.00", "USD", "08:00:00");
    let moved = moved.replace(r#""before":null"#, r#""before":{"id":"o1"}"#);
    ask(&revenue(&[first, moved], &[]), "revenue", "day", &[], ": 30.00 0.00 1 30.00 30.00 30.00");
}

/// Two streams `a` and `b` and a join of the given options.
fn pairs(options: &str, measures: &str) -> String {
    format!(
        r#"
apiVersion: streamgauge/v1
kind: Event
name: a
version: 1.0.0
fields: {{ k: {{ type: string }}, n: {{ type: int }} }}
---
apiVersion: streamgauge/v1
kind: Event
name: b
version: 1.0.0
fields: {{ k: {{ type: string }}, v: {{ type: int }} }}
---
apiVersion: streamgauge/v1
kind: Event
name: fact
version: 1.0.0
fields: {{ k: {{ type: string }}, w: {{ type: int }}, since: {{ type: timestamp }}, until: {{ type: timestamp }} }}
---
apiVersion: streamgauge/v1
kind: Table
name: facts
version: 1.0.0
key: k
valid_from: since
valid_to: until
fields: {{ k: {{ type: string }}, w: {{ type: int }}, since: {{ type: timestamp }}, until: {{ type: timestamp }} }}
source: {{ event: fact }}
---
apiVersion: streamgauge/v1
kind: Metric
name: m
version: 1.0.0
events: {{ a: {{ type: a }}, b: {{ type: b, where: b.v < 90 }} }}
{options}
measures: {{ {measures} }}
"#
    )
}

fn minute(kind: &str, at: u32, id: &str, rest: &str) -> String {
    format!(r#"{{"type":"{kind}","event_id":"{id}","at":"2026-03-02T10:{at:02}:00Z","k":"x",{rest}}}"#)
}

fn joined(options: &str, wanted: &str, lost_rows: &[(&str, u64)]) {
    let yaml = pairs(
        &format!("join: [{{ from: a, to: b, match: a.k = b.k, within: 5m, {options} }}]"),
        "rows: { agg: count }, v: { agg: sum, value: b.v }, gap: { agg: sum, value: b.time - a.time }, bs: { of: b, agg: count }",
    );
    let records = [
        minute("a", 10, "a1", r#""n":1"#),
        minute("b", 4, "b1", r#""v":1"#),
        minute("b", 5, "b2", r#""v":2"#),
        minute("b", 10, "b4", r#""v":8"#),
        minute("b", 10, "b3", r#""v":4"#),
        minute("b", 15, "b5", r#""v":16"#),
        minute("b", 16, "b6", r#""v":32"#),
        minute("b", 11, "b7", r#""v":99"#),
        r#"{"type":"a","event_id":"a2","at":"2026-03-02T10:10:00Z","n":5}"#.to_string(),
    ];
    let records: Vec<(usize, &str)> = records.iter().map(|text| (0, text.as_str())).collect();
    let oracle = told(&yaml, &records, "2026-03-02T10:15:00.000001Z");
    // b6 is not known yet, b7 does not pass its `where`, a2 has no key.
    ask(&oracle, "m", "all", &[], wanted);
    lost(&oracle, "m", lost_rows);
}

#[test]
fn partners() {
    let one = [("unmatched", 1)];
    joined("pick: first", ": 1 4 0us 5", &one);
    joined("pick: last", ": 1 16 300000000us 5", &one);
    joined("pick: each", ": 3 28 300000000us 5", &one);
    joined("pick: first, strict: true", ": 1 16 300000000us 5", &one);
    joined("pick: first, order: before", ": 1 2 -300000000us 5", &one);
    joined("pick: last, order: before", ": 1 8 0us 5", &one);
    joined("pick: each, order: before, strict: true", ": 1 2 -300000000us 5", &one);
    joined("pick: each, order: any", ": 4 30 0us 5", &one);
    joined("pick: each, order: any, strict: true", ": 2 18 0us 5", &one);
}

fn looked_up(options: &str, at: u32, wanted: &str, lost_rows: &[(&str, u64)]) {
    let yaml = pairs(
        &format!("enrich: {{ f: {{ table: facts, match: row.k = f.k, {options} }} }}"),
        "rows: { agg: count }, w: { agg: sum, value: f.w }",
    );
    let fact = |id: &str, w: u32, since: u32, until: &str| {
        let since = format!(r#""since":"2026-03-02T10:{since:02}:00Z""#);
        minute("fact", 1, id, &format!(r#""w":{w},{since},"until":{until}"#))
    };
    let records = [
        fact("f1", 1, 10, "null"),
        fact("f2", 2, 20, r#""2026-03-02T10:30:00Z""#),
        fact("f3", 4, 40, "null"),
        // A correction of the second.
        fact("f4", 8, 20, r#""2026-03-02T10:25:00Z""#),
        minute("a", at, "a1", r#""n":1"#),
    ];
    let records: Vec<(usize, &str)> = records.iter().map(|text| (0, text.as_str())).collect();
    let oracle = told(&yaml, &records, "2026-03-02T11:00:00Z");
    ask(&oracle, "m", "all", &[], wanted);
    lost(&oracle, "m", lost_rows);
}

#[test]
fn tables() {
    looked_up("as_of: event", 9, ": 1 null", &[]);
    looked_up("as_of: event", 10, ": 1 1", &[]);
    looked_up("as_of: event", 20, ": 1 8", &[]);
    // The version of 10:20 ended, so the one before holds again.
    looked_up("as_of: event", 25, ": 1 1", &[]);
    looked_up("as_of: event", 40, ": 1 4", &[]);
    looked_up("as_of: now", 9, ": 1 4", &[]);
    looked_up("as_of: event, missing: drop", 9, ": 0 null", &[("missing", 1)]);
    looked_up("as_of: event, missing: hold", 9, ": 0 null", &[("held", 1)]);
    looked_up("as_of: event, missing: fail", 9, ": 0 null", &[("failed", 1)]);
}

#[test]
fn tombstones_end_rows_of_the_plain_topic() {
    let yaml = r#"
apiVersion: streamgauge/v1
kind: Event
name: cdc.t
version: 1.0.0
changelog: true
key: id
fields: { id: { type: int }, v: { type: int } }
---
apiVersion: streamgauge/v1
kind: Metric
name: m
version: 1.0.0
events: { r: { type: cdc.t } }
measures: { rows: { agg: count }, v: { agg: sum, value: v } }
"#;
    let row =
        |id: u32, v: u32| format!(r#"{{"type":"cdc.t","at":"2026-03-02T10:00:00Z","id":{id},"v":{v}}}"#);
    let (a, b, c) = (row(1, 1), row(2, 2), row(1, 4));
    let sum = |records: &[&str], wanted: &str| {
        let records: Vec<(usize, &str)> = records.iter().map(|text| (0, *text)).collect();
        ask(&told(yaml, &records, "2026-03-02T11:00:00Z"), "m", "all", &[], wanted);
    };
    sum(&[&a, &b, &c], ": 2 6");
    // A tombstone is received at the clock: it counts a moment later.
    let mut oracle = told(yaml, &[(0, &a), (0, &b), (0, r#"{"id":1} ->"#)], "2026-03-02T11:00:00Z");
    oracle.now += 1;
    ask(&oracle, "m", "all", &[], ": 1 2");
}
