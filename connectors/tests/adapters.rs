//! Adapters on deliveries as tools send them: the canonical events against text files.
//!
//! *In*: `adapters/*.http` (deliveries by the vendors' documentation, cited in each), GitHub's own examples from the npm
//! package `@octokit/webhooks-examples`. *Out*: `adapters/*.txt`. *Never*: an event that its contract was not asked for.
//!
//! `STREAMGAUGE_UPDATE=1 cargo test -p connectors --test adapters` writes the text files again.
#![allow(clippy::unwrap_used)] // A test fails where it unwraps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use connectors::decode::adapt::{adapter, adapter_names};
use connectors::decode::{DecodeSpec, Decoder, Record};
use contracts::Catalog;
use contracts::batch::{Chunk, Partition};
use serde_json::Value;

/// 2026-03-02T12:00:00Z.
const NOW: i64 = 1_772_452_800_000_000;

struct Delivery {
    name: String,
    headers: Vec<(String, String)>,
    body: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/adapters")
}

fn catalog() -> Arc<Catalog> {
    let loaded = contracts::load(&contracts::pack("delivery").unwrap());
    assert!(!loaded.has_errors(), "{}", contracts::diagnostic::render(&loaded.diagnostics));
    Arc::new(loaded.catalog)
}

fn decoder(catalog: &Arc<Catalog>, name: &str) -> Decoder {
    let spec = DecodeSpec { adapter: adapter(name), max_record_bytes: 16 << 20, ..DecodeSpec::default() };
    assert!(spec.adapter.is_some(), "{name}");
    Decoder::new(catalog.clone(), spec)
}

/// Decodes one delivery; every part of it is in one place.
fn decode(decoder: &mut Decoder, delivery: &Delivery) -> Chunk {
    let headers: Vec<(&str, &[u8])> =
        delivery.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    decoder.push(Record { value: delivery.body.as_bytes(), offset: 0, received: NOW, headers: &headers });
    let partition = Partition { source: "hook".into(), topic: "log".into(), number: 0 };
    let chunk = decoder.finish(&partition, 1, None);
    let rows: usize = chunk.batches.iter().map(|batch| batch.columns.num_rows()).sum();
    assert_eq!(chunk.received, rows as u64 + chunk.refused.len() as u64 + chunk.skipped, "{}", delivery.name);
    assert!(chunk.received > 0, "{}", delivery.name);
    chunk
}

/// The canonical events of a chunk in the order of its parts, as the columns will hold them.
fn events(catalog: &Catalog, chunk: &Chunk) -> Vec<(String, Value)> {
    let mut events = BTreeMap::new();
    for batch in &chunk.batches {
        let name = &catalog.events[batch.event].head.name;
        for row in 0..batch.columns.num_rows() {
            let event: Value = serde_json::from_slice(&batch.payloads.get(row)).unwrap();
            assert_eq!(event["event_type"], name.as_str());
            assert_eq!(event["event_id"], batch.ids.value(row));
            let known = |field: &str| catalog.events[batch.event].fields.iter().any(|f| f.name == field);
            for field in event.as_object().unwrap().keys() {
                assert!(known(field) || field == "event_type", "{name} has no field {field}");
            }
            events.insert(batch.parts[row], (name.clone(), event));
        }
    }
    events.into_values().collect()
}

fn show(catalog: &Catalog, chunk: &Chunk, out: &mut String) {
    for (name, event) in events(catalog, chunk) {
        writeln!(out, "  {name}").unwrap();
        for (field, value) in event.as_object().unwrap().iter().filter(|(field, _)| *field != "event_type") {
            writeln!(out, "    {field}: {value}").unwrap();
        }
    }
    for refused in &chunk.refused {
        let kind = refused.event_type.as_deref().unwrap_or("delivery");
        let reasons = refused.reasons.iter().map(|r| format!("{} {}: {}", r.code, r.path, r.message));
        writeln!(out, "  refused {kind}: {}", reasons.collect::<Vec<_>>().join("; ")).unwrap();
    }
    if chunk.skipped > 0 {
        writeln!(out, "  skipped").unwrap();
    }
}

fn hold(file: &str, text: &str) {
    let path = folder().join(file);
    if std::env::var_os("STREAMGAUGE_UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    if wanted != text {
        let at = wanted.lines().zip(text.lines()).position(|(a, b)| a != b).unwrap_or_default();
        let line = |text: &str| text.lines().nth(at).unwrap_or("(end)").to_owned();
        panic!(
            "{file}:{}: wanted\n{}\nfound\n{}\n(STREAMGAUGE_UPDATE=1 writes it again)",
            at + 1,
            line(&wanted),
            line(text)
        );
    }
}

fn deliveries(name: &str) -> Vec<Delivery> {
    let text = std::fs::read_to_string(folder().join(format!("{name}.http"))).unwrap();
    assert!(text.starts_with("# "), "{name}.http does not say where its deliveries come from");
    let parts = text.split("\n=== ").skip(1);
    parts
        .map(|part| {
            let (head, body) = part.split_once("\n\n").unwrap();
            let mut lines = head.lines();
            let name = lines.next().unwrap().to_owned();
            let headers =
                lines.map(|line| line.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap());
            Delivery { name, headers: headers.collect(), body: body.trim().to_owned() }
        })
        .collect()
}

#[test]
fn what_tools_send_becomes_canonical_events() {
    let catalog = catalog();
    for name in adapter_names().filter(|name| *name != "github") {
        let mut decoder = decoder(&catalog, name);
        let mut text = String::new();
        for delivery in deliveries(name) {
            writeln!(text, "{}", delivery.name).unwrap();
            show(&catalog, &decode(&mut decoder, &delivery), &mut text);
        }
        hold(&format!("{name}.txt"), &text);
    }
}

/// All examples of GitHub, by event.
fn octokit() -> Vec<Delivery> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/fixtures.sh");
    let output = Command::new(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let index = folder.join("@octokit/webhooks-examples/api.github.com/index.json");
    let kinds: Vec<Value> = serde_json::from_slice(&std::fs::read(index).unwrap()).unwrap();
    let mut all = Vec::new();
    for kind in &kinds {
        let event = kind["name"].as_str().unwrap();
        for (i, example) in kind["examples"].as_array().unwrap().iter().enumerate() {
            let action = example["action"].as_str().unwrap_or("-");
            all.push(Delivery {
                name: format!("{event}[{i}] {action}"),
                headers: vec![("x-github-event".into(), event.into())],
                body: example.to_string(),
            });
        }
    }
    all
}

#[test]
fn every_example_of_github_is_taken_skipped_or_refused_with_a_reason() {
    let catalog = catalog();
    let mut decoder = decoder(&catalog, "github");
    let (mut list, mut full) = (String::new(), String::new());
    let mut seen = BTreeSet::new();
    for delivery in octokit() {
        let chunk = decode(&mut decoder, &delivery);
        let types: Vec<String> = events(&catalog, &chunk).into_iter().map(|(name, _)| name).collect();
        let mut verdict = types.join(" ");
        for refused in &chunk.refused {
            let reason = &refused.reasons[0];
            write!(verdict, " refused({} {})", reason.code, reason.path).unwrap();
        }
        if chunk.skipped > 0 {
            verdict += "skipped";
        }
        writeln!(list, "{}: {}", delivery.name, verdict.trim()).unwrap();
        let kind = delivery.name.split('[').next().unwrap().to_owned();
        let action = delivery.name.rsplit(' ').next().unwrap().to_owned();
        if (!types.is_empty() || !chunk.refused.is_empty()) && seen.insert((kind.clone(), action))
            || kind == "push"
        {
            writeln!(full, "{}", delivery.name).unwrap();
            show(&catalog, &chunk, &mut full);
        }
    }
    hold("github.list.txt", &list);
    hold("github.txt", &full);
}

#[test]
fn the_same_delivery_again_has_the_same_ids_and_another_content_has_others() {
    let catalog = catalog();
    let mut all = BTreeMap::new();
    for name in adapter_names() {
        let (mut first, mut second) = (decoder(&catalog, name), decoder(&catalog, name));
        let deliveries = if name == "github" { octokit() } else { deliveries(name) };
        for delivery in &deliveries {
            let once = events(&catalog, &decode(&mut first, delivery));
            assert_eq!(once, events(&catalog, &decode(&mut second, delivery)), "{name}: {}", delivery.name);
            for (kind, event) in once {
                let id = event["event_id"].as_str().unwrap().to_owned();
                let text = event.to_string();
                let before = all.insert((kind.clone(), id.clone()), text.clone());
                assert!(
                    before.is_none_or(|before| before == text),
                    "{name}: {}: {kind} {id} has two contents",
                    delivery.name
                );
            }
        }
    }
}

/// Takes something away, or puts something else in its place, somewhere in `value`.
fn spoil(value: &mut Value, random: &mut fastrand::Rng) {
    let inside = match value {
        Value::Object(map) if !map.is_empty() => {
            let key = map.keys().nth(random.usize(..map.len())).unwrap().clone();
            if random.u8(..4) == 0 {
                map.remove(&key);
                return;
            }
            map.get_mut(&key)
        }
        Value::Array(items) if !items.is_empty() => {
            let at = random.usize(..items.len());
            items.get_mut(at)
        }
        _ => None,
    };
    match inside {
        Some(inside) if random.u8(..4) > 0 => spoil(inside, random),
        Some(inside) => {
            let odd = [
                Value::Null,
                Value::from(-1),
                Value::from(1e300),
                Value::from("\u{1F980}\n"),
                Value::from(""),
                Value::Array(vec![Value::Null, Value::from(u64::MAX)]),
                serde_json::json!({"": {"id": []}}),
                Value::Bool(true),
            ];
            *inside = odd[random.usize(..odd.len())].clone();
        }
        None => *value = Value::Null,
    }
}

#[test]
fn spoiled_deliveries_are_taken_skipped_or_refused_and_never_lost() {
    let catalog = catalog();
    for name in adapter_names() {
        let mut decoder = decoder(&catalog, name);
        let mut random = fastrand::Rng::with_seed(7);
        for delivery in if name == "github" { octokit() } else { deliveries(name) } {
            let Ok(body) = serde_json::from_str::<Value>(&delivery.body) else { continue };
            for _ in 0..20 {
                let mut body = body.clone();
                (0..random.u8(1..4)).for_each(|_| spoil(&mut body, &mut random));
                let spoiled = Delivery {
                    name: delivery.name.clone(),
                    headers: delivery.headers.clone(),
                    body: body.to_string(),
                };
                // `decode` holds that every part is in one place.
                let chunk = decode(&mut decoder, &spoiled);
                assert!(chunk.refused.iter().all(|refused| !refused.reasons.is_empty()), "{}", spoiled.body);
            }
        }
    }
}

#[test]
fn hostile_bodies_are_refused_or_skipped() {
    let catalog = catalog();
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let bodies =
        ["{", "[]", "null", "\"x\"", "[1,2]", "{}", "\u{feff}{}", "[{},{}]", deep.as_str(), "{\"a\":1e999}"];
    for name in adapter_names() {
        let mut decoder = decoder(&catalog, name);
        for body in bodies {
            let delivery =
                Delivery { name: format!("{name}: {body:.20}"), headers: Vec::new(), body: body.to_owned() };
            let chunk = decode(&mut decoder, &delivery);
            assert!(chunk.batches.is_empty(), "{}", delivery.name);
        }
    }
}
