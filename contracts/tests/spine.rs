//! The contracts of the design page load whole, with the types that answers promise.

use contracts::catalog::{Agg, Input, MeasureKind, TEST_ENVELOPE, WindowKind};
use contracts::{Catalog, SourceFile, ValueType, load};

const SOUND: &str = include_str!("golden/sound/order.yaml");

fn catalog() -> Catalog {
    let loaded = load(&[SourceFile::new("order.yaml", SOUND)]);
    assert!(loaded.diagnostics.is_empty(), "{}", contracts::diagnostic::render(&loaded.diagnostics));
    loaded.catalog
}

fn decimal(scale: i8) -> ValueType {
    ValueType::Decimal { precision: 38, scale }
}

#[test]
fn events_and_entities() {
    let catalog = catalog();
    let created = &catalog.events[catalog.event_index("order.created").unwrap()];
    let names: Vec<&str> = created.admitted.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names[names.len() - 3..], ["time", "item_count", "order_size"]);
    let interned: Vec<&str> =
        created.fields.iter().filter(|f| f.dictionary).map(|f| f.name.as_str()).collect();
    assert_eq!(interned, ["status", "currency"]);
    assert!(created.needs_id && created.dedupe == 86_400_000_000);
    let cancelled = &catalog.events[catalog.event_index("order.cancelled").unwrap()];
    assert_eq!(cancelled.fields[2].path, ["data", "refund"]);
    let order = &catalog.entities[catalog.entity_index("order").unwrap()];
    let row: Vec<&str> = order.schema.fields().iter().map(|f| f.name().as_str()).collect();
    let wanted =
        ["order_id", "status", "total_amount", "user_id", "created_at", "updated_at", "first_time", "time"];
    assert_eq!(row, wanted);
    let touched: Vec<bool> = order.feeds.iter().map(|feed| feed.values[1].is_some()).collect();
    assert_eq!(touched, [true, false, false], "only order.created has total_amount");
}

#[test]
fn feeds_measures_and_windows() {
    let catalog = catalog();
    let metric = &catalog.metrics[0];
    let inputs: Vec<Input> = metric.feeds.iter().map(|feed| feed.input).collect();
    let index = |name| Input::Event(catalog.event_index(name).unwrap());
    assert_eq!(inputs, [index("order.created"), index("order.cancelled")]);
    assert!(metric.feeds[0].filter.is_some() && metric.feeds[1].filter.is_none());
    assert!(metric.feeds.iter().all(|f| f.dimensions.len() == 2 && f.folds.len() == metric.folds.len()));
    let types: Vec<(&str, &ValueType)> = metric.measures.iter().map(|m| (m.name.as_str(), &m.ty)).collect();
    assert_eq!(types[1], ("gross", &decimal(2)));
    assert_eq!(types[2], ("refunds", &ValueType::Decimal { precision: 18, scale: 2 }));
    assert_eq!(types[3], ("orders", &ValueType::Int));
    assert_eq!(types[4], ("average", &decimal(2)));
    assert!(matches!(metric.measures[0].kind, MeasureKind::Expr { ref inputs, .. } if *inputs == [1, 2]));
    // gross folds orders only, refunds folds refunds only.
    let MeasureKind::Fold(gross) = metric.measures[1].kind else { panic!() };
    assert_eq!(metric.folds[gross].agg, Agg::Sum);
    assert!(metric.feeds[0].folds[gross].is_some() && metric.feeds[1].folds[gross].is_none());
    let every = 5_000_000;
    assert_eq!(metric.windows[0].kind, WindowKind::Sliding { size: 300_000_000, every });
    // Twice the longest window with its shift: a month of 31 days and an hour, 7 days back.
    assert_eq!(metric.retain, 2 * (31 * 24 + 1 + 7 * 24) * 3_600_000_000);
}

#[test]
fn test_payloads_carry_their_envelope() {
    let catalog = catalog();
    let given = &catalog.metrics[0].tests[0].given;
    let (id, ty, time) = TEST_ENVELOPE;
    let order = &given[0].payload;
    assert_eq!(order["timestamp"], "2026-03-02T09:00:00Z", "`time` stands for the event's time field");
    assert_eq!(order[ty], "order.created");
    assert_eq!(order["event_id"], order[id]);
    let refund = &given[1].payload;
    assert_eq!(refund["data"]["refund"], "1.00", "renames are undone");
    assert_eq!(refund[time], "2026-03-02T09:00:01Z");
    assert_ne!(refund[id], order[id]);
}

#[test]
fn the_hash_is_about_meaning() {
    let hash = |text: &str| {
        let loaded = load(&[SourceFile::new("order.yaml", text)]);
        assert!(!loaded.has_errors());
        loaded.catalog.metrics[0].head.hash.clone()
    };
    let before = hash(SOUND);
    assert_eq!(before.len(), 16);
    let spelled = SOUND
        .replace("{ sliding: 5m }", "\n    sliding: 5m # the newest five minutes")
        .replace(
            "kind: Metric\nname: revenue\nversion: 1.0.0",
            "version: 1.0.1\nname: revenue\nkind: Metric\ntitle: Money",
        )
        .replace("name: one order", "name: a single order");
    assert_eq!(before, hash(&spelled));
    assert_ne!(before, hash(&SOUND.replace("q: 0.95", "q: 0.9")));
    assert_ne!(before, hash(&SOUND.replace("< 50 THEN", "< 60 THEN")), "an event below changed");
}

/// Several event types under one alias, and columns that not all of them have.
#[test]
fn columns_that_a_feed_lacks_are_null_there() {
    let text = include_str!("golden/sound/deploys.yaml");
    let loaded = load(&[SourceFile::new("deploys.yaml", text)]);
    assert!(loaded.diagnostics.is_empty(), "{}", contracts::diagnostic::render(&loaded.diagnostics));
    let catalog = loaded.catalog;
    let metric = &catalog.metrics[0];
    let aliases: Vec<&str> = metric.feeds.iter().map(|feed| feed.alias.as_str()).collect();
    assert_eq!(aliases, ["deploy", "deploy", "incident"]);
    let moved = |measure: usize| -> Vec<bool> {
        let MeasureKind::Fold(fold) = metric.measures[measure].kind else { panic!() };
        metric.feeds.iter().map(|feed| feed.folds[fold].is_some()).collect()
    };
    assert_eq!(moved(0), [true, true, false], "of: deploy");
    assert_eq!(moved(1), [false, false, true], "mentioned in where");
    assert_eq!(moved(2), [true, true, false], "mentioned in value");
    assert_eq!(moved(5), [true, true, true], "all");
    for feed in &metric.feeds {
        let Input::Event(event) = feed.input else { panic!() };
        let own = &catalog.events[event].admitted;
        let folds = feed.folds.iter().flatten().filter_map(|fold| fold.value.as_ref());
        for typed in feed.dimensions.iter().chain(folds).chain(&feed.filter) {
            assert_eq!(&typed.schema, own, "{} over {}", typed.sql, feed.alias);
        }
        assert!(feed.dimensions.iter().all(|typed| typed.ty == ValueType::Text));
    }
    // decimal(10,2) and decimal(12,4) are summed at four digits.
    assert_eq!(metric.measures[3].ty, decimal(4));
    let sliding = |name: &str| match metric.windows.iter().find(|w| w.name == name).unwrap().kind {
        WindowKind::Sliding { every, .. } => every / 1_000_000,
        _ => panic!(),
    };
    assert_eq!([sliding("30s"), sliding("1h"), sliding("7d")], [1, 60, 3600]);
}

/// A row of a change stream may be named by several fields, of the event or of the alias.
#[test]
fn keys_of_several_fields_name_rows() {
    let text = include_str!("golden/sound/streams.yaml");
    let loaded = load(&[SourceFile::new("streams.yaml", text)]);
    assert!(loaded.diagnostics.is_empty(), "{}", contracts::diagnostic::render(&loaded.diagnostics));
    let catalog = loaded.catalog;
    let names = |relation: usize| -> Vec<&str> {
        let feed = &catalog.metrics[0].relations[relation].parts[0].feeds[0];
        feed.identity.iter().map(|typed| typed.sql.as_str()).collect()
    };
    assert_eq!(names(0), ["\"order_id\"", "\"line\""]);
    assert_eq!(names(1), ["\"order_id\"", "\"box\""]);
    assert!(catalog.entities[0].feeds[0].changelog);
    assert_eq!(catalog.metrics[0].measures[0].ty, ValueType::Ranking);
}
