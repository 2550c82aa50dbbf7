//! The generator against a plain reading of its own events.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value as Json;

use super::*;

const START: i64 = 1_780_000_000 * SECOND;

fn cents(text: &Json) -> i64 {
    let (whole, part) = text.as_str().unwrap().split_once('.').unwrap();
    assert_eq!(part.len(), 2);
    whole.parse::<i64>().unwrap() * 100 + part.parse::<i64>().unwrap()
}

#[test]
fn the_same_seed_gives_the_same_events_however_it_is_asked() {
    let spec = GeneratorSpec::new(7, START, 50.0);
    let mut a = Generator::new(spec.clone());
    let mut b = Generator::new(spec.clone());
    let whole = a.until(START + 120 * SECOND);
    let pieces: Vec<Bytes> = (1..=1200).flat_map(|i| b.until(START + i * SECOND / 10)).collect();
    assert_eq!(whole, pieces);
    assert_eq!(a.truth(), b.truth());
    let other = Generator::new(GeneratorSpec { seed: 8, ..spec }).take(20);
    assert_ne!(whole[..20], other.into_iter().map(|(_, e)| e).collect::<Vec<_>>());
}

#[test]
fn the_rate_is_met_once_orders_complete() {
    let mut generator = Generator::new(GeneratorSpec::new(1, START, 200.0));
    generator.until(START + 2400 * SECOND);
    let events = generator.until(START + 3000 * SECOND).len() as f64 / 600.0;
    assert!((180.0..220.0).contains(&events), "{events}");
}

/// Reads the events back as an engine would and compares with the books.
#[test]
fn the_truth_is_what_a_plain_reading_of_the_events_finds() {
    let spec =
        GeneratorSpec { bad: 0.03, duplicates: 0.03, late: 0.05, ..GeneratorSpec::new(3, START, 100.0) };
    let mut generator = Generator::new(spec);
    for minutes in [3, 10, 40] {
        let mut reading = Reading::default();
        let mut again = Generator::new(generator.spec.clone());
        for event in again.until(START + minutes * 60 * SECOND) {
            reading.take(&event);
        }
        generator.until(START + minutes * 60 * SECOND);
        let truth = generator.truth();
        assert_eq!(truth.emitted, truth.accepted + truth.refused + truth.duplicates);
        assert_eq!(truth.accepted, reading.accepted, "{minutes} minutes");
        assert_eq!(truth.duplicates, reading.duplicates);
        let (orders, cancelled, revenue) = reading.orders(i64::MIN, i64::MAX);
        assert_eq!((truth.orders, truth.cancelled, &truth.revenue), (orders, cancelled, &revenue));
        assert_eq!(truth.sessions, reading.sessions.len() as u64);
        assert_eq!(truth.conversions, reading.converted.len() as u64);
        assert!(truth.late > 0 && truth.out_of_order > 0 && truth.orders > 0);
        let (from, to) = (START + 60 * SECOND, START + 120 * SECOND);
        let window = generator.truth_between(from, to);
        assert_eq!((window.orders, window.cancelled, window.revenue), reading.orders(from, to));
    }
    assert_eq!(generator.truth().refused_by_reason.len(), Bad::ALL.len(), "every kind of broken event");
    assert_eq!(generator.truth().by_type.len(), 10, "every type of event");
}

#[derive(Default)]
struct Reading {
    seen: HashSet<String>,
    accepted: u64,
    duplicates: u64,
    /// Order -> (first time, latest (time, id), status, total, currency).
    orders: HashMap<String, (String, (String, String), String, i64, String)>,
    sessions: HashSet<String>,
    converted: HashSet<String>,
}

impl Reading {
    fn take(&mut self, event: &Bytes) {
        let Ok(event) = serde_json::from_slice::<Json>(event) else { return };
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let broken = text("order_id").contains("20000101")
            || text("order_id") == "order-1"
            || text("user_agent") == "broken"
            || text("timestamp").starts_with("203");
        if broken {
            return;
        }
        if !self.seen.insert(text("event_id")) {
            self.duplicates += 1;
            return;
        }
        self.accepted += 1;
        // Instants of equal layout compare as text; jiff leaves out trailing zeros.
        let time = format!(
            "{:0<24}",
            text("timestamp").replace('Z', if text("timestamp").contains('.') { "" } else { "." })
        );
        if !text("session_id").is_empty() {
            self.sessions.insert(text("session_id"));
            if text("page_url") == "/checkout" {
                self.converted.insert(text("session_id"));
            }
        }
        if text("event_type").starts_with("order.") {
            let total = cents(&event["total_amount"]);
            let items = event["items"].as_array().unwrap();
            let sum: i64 =
                items.iter().map(|i| i["quantity"].as_i64().unwrap() * cents(&i["unit_price"])).sum();
            assert_eq!(total, sum);
            let newest = (time.clone(), text("event_id"));
            let fresh = (time.clone(), newest.clone(), text("status"), total, text("currency"));
            let known = self.orders.entry(text("order_id")).or_insert_with(|| fresh.clone());
            known.0 = known.0.clone().min(time);
            if known.1 < newest {
                *known = (known.0.clone(), fresh.1, fresh.2, fresh.3, fresh.4);
            }
        }
    }

    fn orders(&self, from: i64, to: i64) -> (u64, u64, BTreeMap<String, i64>) {
        let text = |t: i64| {
            jiff::Timestamp::from_microsecond(t).map_or_else(
                |_| if t < 0 { String::new() } else { "9".into() },
                |t| {
                    format!(
                        "{:0<24}",
                        t.to_string().replace('Z', if t.to_string().contains('.') { "" } else { "." })
                    )
                },
            )
        };
        let (from, to) = (text(from), text(to));
        let (mut live, mut cancelled, mut revenue) = (0, 0, BTreeMap::new());
        for (first, _, status, total, currency) in self.orders.values() {
            if !(from.as_str()..to.as_str()).contains(&first.as_str()) {
                continue;
            }
            if status == "cancelled" {
                cancelled += 1;
            } else {
                live += 1;
                *revenue.entry(currency.clone()).or_default() += total;
            }
        }
        (live, cancelled, revenue)
    }
}

#[test]
fn cents_are_written_with_two_places() {
    let texts: Vec<String> = [0, 5, 99, 100, 123_456, -7].into_iter().map(format_cents).collect();
    assert_eq!(texts, ["0.00", "0.05", "0.99", "1.00", "1234.56", "-0.07"]);
}
