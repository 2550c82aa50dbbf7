//! What an adapter file may say, and what is said of one with mistakes.
#![allow(clippy::unwrap_used)] // a test fails where it unwraps

use contracts::diagnostic::render;
use contracts::text::SourceFile;
use serde_json::{Value, json};

use super::eval::Delivery;
use super::read::read;
use super::spec::Adapter;
use super::{Outcome, body, one};

fn adapter(text: &str) -> Adapter {
    read(&SourceFile::new("tool.yaml", text)).unwrap_or_else(|mistakes| panic!("{}", render(&mistakes)))
}

fn mistakes(text: &str) -> String {
    render(&read(&SourceFile::new("tool.yaml", text)).unwrap_err())
}

const HEAD: &str = "adapter: tool\ndescription: A tool.\nheaders: [x-event]\n";

/// The events of a body with the header `x-event: made`.
fn made(adapter: &Adapter, body: Value) -> Vec<Value> {
    let bytes = body.to_string();
    let headers: [(&str, &[u8]); 1] = [("x-event", b"made")];
    let bodies = body::read(bytes.as_bytes(), &headers, None).unwrap();
    match one(adapter, &bodies[0], &headers, 1_772_452_800_000_000) {
        Outcome::Events(events) => events.into_iter().map(Value::Object).collect(),
        outcome => panic!("{outcome:?}"),
    }
}

/// The field `x` of one event, made by an expression.
fn field(expr: &str, body: Value) -> Value {
    let text = format!(
        "{HEAD}let:\n  name: [a.name, {{ const: nobody }}]\nrules:\n  - emit: e\n    fields:\n      event_id: {{ const: i }}\n      timestamp: received\n      x: {expr}\n"
    );
    made(&adapter(&text), body)[0]["x"].clone()
}

#[test]
fn functions() {
    for (expr, body, wanted) in [
        ("a.b", json!({"a": {"b": [1]}}), json!([1])),
        ("$name", json!({}), json!("nobody")),
        ("[a.z, '$name']", json!({"a": {"z": "", "name": "jo"}}), json!("jo")),
        ("header.x-event", json!({}), json!("made")),
        ("received", json!({}), json!("2026-03-02T12:00:00Z")),
        ("{ const: 1.5 }", json!({}), json!(1.5)),
        ("{ time: t }", json!({"t": 1_772_452_800}), json!("2026-03-02T12:00:00Z")),
        ("{ match: \"^v([0-9]+)\", in: t }", json!({"t": "v12.3"}), json!("12")),
        ("{ match: \"x+\", in: \"t[]\" }", json!({"t": ["a", "bxxb"]}), json!("xx")),
        ("{ match: \"^v\", in: t }", json!({"t": "w"}), Value::Null),
        ("{ has: \"(?i)BUG\", in: \"t[].n\" }", json!({"t": [{"n": "a bug"}]}), json!(true)),
        ("{ has: bug, in: t }", json!({}), json!(false)),
        ("{ lower: t }", json!({"t": "ÄB"}), json!("äb")),
        ("{ map: { YES: 1, No: false }, of: t }", json!({"t": "yes"}), json!(1)),
        ("{ map: { a: b }, of: t, else: t }", json!({"t": "c"}), json!("c")),
        ("{ map: { a: b }, of: t, else: { const: d } }", json!({}), Value::Null),
        ("{ join: [a, b], with: / }", json!({"a": 1, "b": true}), json!("1/true")),
        ("{ join: [a, b] }", json!({"a": 1}), Value::Null),
        ("{ list: [a, b, c], without: b }", json!({"a": 1, "b": 2, "c": [2, 3, null]}), json!([1, 3])),
        ("{ same: [a, b] }", json!({"a": 7, "b": "7"}), json!(true)),
        ("{ same: [a, b] }", json!({"a": 7}), Value::Null),
        (
            "{ if: { a: { present: true } }, then: { const: t }, else: { const: f } }",
            json!({"a": 1}),
            json!("t"),
        ),
        ("{ if: { a: [1, 2], b: { not: x } }, then: true }", json!({"a": 2}), json!(true)),
        ("{ if: { a: [1, 2], b: { not: x } }, then: true }", json!({"a": 2, "b": "x"}), Value::Null),
        ("{ if: [{ a: 1 }, { a: { matches: z } }], then: true }", json!({"a": "xyz"}), json!(true)),
        ("{ sum: [a, b] }", json!({"a": 1, "b": 2}), json!(3)),
        ("{ minus: [a, b] }", json!({"a": 1, "b": 2}), json!(-1)),
        ("{ minus: [a, b] }", json!({"a": 1, "b": "2"}), Value::Null),
        ("{ number: a }", json!({"a": "007"}), json!(7)),
        ("{ pad: a, to: 5 }", json!({"a": 42}), json!("00042")),
    ] {
        assert_eq!(field(expr, body.clone()), wanted, "{expr} of {body}");
    }
}

#[test]
fn each_item_is_an_event_and_an_id_tells_the_content() {
    let text = format!(
        "{HEAD}rules:\n  - when: {{ header.x-event: made }}\n    each: items\n    only: {{ item.on: true }}\n    emit: e\n    fields:\n      event_id: {{ versioned: item.id }}\n      timestamp: at\n      n: item.n\n"
    );
    let adapter = adapter(&text);
    let of = |n: u32| json!({"at": "t", "items": [{"id": "a", "on": true, "n": n}, {"id": "b", "on": false}, {"id": "c", "on": true}]});
    let (first, again, other) = (made(&adapter, of(1)), made(&adapter, of(1)), made(&adapter, of(2)));
    assert_eq!(first, again);
    assert_eq!(first.len(), 2);
    assert_eq!(first[0]["n"], 1);
    assert!(first[0]["event_id"].as_str().unwrap().starts_with("a@"));
    assert_ne!(first[0]["event_id"], other[0]["event_id"]);
    assert_eq!(first[1], other[1]);
    // Nothing in the list: understood, and nothing to tell.
    let empty = body::read(br#"{"items":[]}"#, &[], None).unwrap();
    assert!(matches!(one(&adapter, &empty[0], &[("x-event", b"made")], 0), Outcome::Skipped));
}

#[test]
fn a_delivery_has_the_name_of_its_redeliveries() {
    let text = format!(
        "{HEAD}delivery: [header.x-event, id]\nrules: [{{ emit: e, fields: {{ event_id: a, timestamp: b }} }}]\n"
    );
    let adapter = adapter(&text);
    assert_eq!(adapter.delivery_name(b"{}", &[("X-Event", b"7")]).as_deref(), Some("7"));
    assert_eq!(adapter.delivery_name(br#"{"id":"8"}"#, &[]).as_deref(), Some("8"));
    assert_eq!(adapter.delivery_name(b"{", &[]), None);
    assert_eq!(adapter.emits(), ["e"]);
    assert!(Delivery::new(&adapter, &json!({}), &[], 0).holds(&adapter.rules[0].when));
}

#[test]
fn mistakes_have_a_place_and_the_nearest_name() {
    let text = "adaptor: tool
description: A tool.
headers: [X-Event]
let:
  a: $b
  b: a..c
rules:
  - when: { header.x-other: y, z: { equals: 1 } }
    emit: e
    fields:
      event_id: { joyn: [a] }
      x: { map: { a: 1, A: 2 }, off: a }
      y: { match: \"(\", in: a }
      z: { pad: a, to: 100 }
      n: { native: argocd_atempt }
      o: ~
  - emit: e
    only: { item.a: 1 }
  - each: a
otherwise: [{ when: { a: 1 } }]
";
    let said = mistakes(text);
    for line in [
        "tool.yaml:1:1: error[unknown_key]: an adapter has no key `adaptor`",
        "did you mean: adapter",
        "error[missing]: `adapter` is missing",
        "tool.yaml:3:11: error[wrong_type]: the name of a header in lower case is needed",
        "tool.yaml:5:6: error[unknown_name]: there is no `let` named `b` above",
        "tool.yaml:6:6: error[path]: `a..c` is not a path",
        "tool.yaml:8:13: error[unknown_header]: `header.x-other` is read, but `headers` does not keep it",
        "tool.yaml:8:35: error[wrong_type]: a test is a value",
        "tool.yaml:11:19: error[unknown_function]: there is no function `joyn`",
        "did you mean: join",
        "tool.yaml:12:25: error[twice]: `A` stands twice",
        "tool.yaml:12:33: error[unknown_key]: `map` has no key `off`",
        "error[missing]: `of` is missing",
        "tool.yaml:13:19: error[regex]: not a regular expression",
        "`pad` needs `to`, a number from 1 to 64",
        "did you mean: argocd_attempt",
        "tool.yaml:16:10: error[wrong_type]: a path, a number, a list or a function is needed",
        "the fields of `e` lack `timestamp`",
        "`only` picks items of `each`, which is missing",
        "error[missing]: `emit` is missing",
        "error[missing]: a rule needs `fields`",
        "error[missing]: `why` is missing",
    ] {
        assert!(said.contains(line), "{line}\nis not in\n{said}");
    }
    assert!(mistakes("").contains("tool.yaml:1:1: error[documents]"));
    assert!(mistakes("a: [").contains("tool.yaml:1:"));
}

#[test]
fn the_example_of_the_reference_page_reads_clean() {
    let page = include_str!("../../../../docs/reference/adapters.md");
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(adapter(example).emits(), ["delivery.deployment"]);
    // Every function is on the page.
    for name in super::read::functions() {
        assert!(page.contains(&format!("{{ {name}: ")), "{name}");
    }
}
