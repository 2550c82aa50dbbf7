//! A replay that is killed halfway is finished by asking for it again, and counts once.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

mod support;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Server, agent, shop, wait};

/// A server with one refused event; its id among the dead letters.
fn with_a_dead_letter(folder: &Path, fault: &str) -> (Server, String) {
    let server = Server::start_with(folder, &[("STREAMGAUGE_FAULT", fault)]);
    let now = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(1);
    let bad = json!({"event_id": "e1", "event_type": "order.placed", "timestamp": now.to_string(), "order_id": "1",
        "country": "de", "amount": "much"});
    assert_eq!(server.push(&bad.to_string())["refused"], 1);
    let items = || server.get("/v1/deadletter")["items"].as_array().cloned().unwrap_or_default();
    assert!(wait(Duration::from_secs(20), || !items().is_empty()).is_ok());
    let id = items()[0]["event_id"].as_str().unwrap().to_owned();
    (server, id)
}

/// The status and the answer; 0 when the process ended instead.
fn replay(server: &Server, id: &str, amount: &str) -> (u16, Value) {
    let url = format!("{}/v1/deadletter/{id}/replay", server.url);
    let body = json!({"corrected_payload": {"amount": amount}}).to_string();
    match agent().post(url).send(body) {
        Err(_) => (0, Value::Null),
        Ok(mut answer) => {
            let text = answer.body_mut().read_to_string().unwrap_or_default();
            (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or_default())
        }
    }
}

fn pushed(server: &Server) -> Value {
    server.get("/readyz?verbose")["sources"][0]["partitions"][0]["end"].clone()
}

fn statuses(server: &Server) -> Value {
    let mut counts = server.get("/v1/deadletter/stats")["counts"].clone();
    counts.as_object_mut().unwrap().retain(|_, n| *n != 0);
    counts
}

#[test]
fn an_admitted_correction_counts_once() {
    let folder = shop();
    let (server, id) = with_a_dead_letter(folder.path(), "replay.before_note=abort@1");
    assert_eq!(replay(&server, &id, "7.50").0, 0, "killed before it was noted");
    drop(server);
    let server = Server::start(folder.path());
    assert_eq!(statuses(&server), json!({"failed": 1}));
    let (status, answer) = replay(&server, &id, "7.50");
    assert_eq!((status, &answer["status"]), (200, &json!("replayed")), "{answer}");
    assert_eq!(pushed(&server), 2, "it was not sent again");
    assert_eq!(statuses(&server), json!({"replayed": 1}));
    assert_eq!(server.get("/v1/metrics/sales?window=24h")["value"], "7.50");
    assert_eq!(replay(&server, &id, "7.50").0, 409);
}

#[test]
fn a_refused_correction_is_put_aside_once() {
    for point in ["replay.before_refusal=abort@1", "replay.between=abort@1"] {
        let folder = shop();
        let (server, id) = with_a_dead_letter(folder.path(), point);
        assert_eq!(replay(&server, &id, "lots").0, 0, "killed halfway");
        drop(server);
        let server = Server::start(folder.path());
        let (status, answer) = replay(&server, &id, "lots");
        assert_eq!((status, &answer["code"]), (422, &json!("still_refused")), "{answer}");
        assert_eq!(pushed(&server), 2, "it was not sent again");
        assert_eq!(statuses(&server), json!({"failed": 1, "dismissed": 1}), "{point}");
        assert_eq!(server.get(&format!("/v1/deadletter/{id}"))["retry_count"], 1);
        // Another try is another one.
        assert_eq!(replay(&server, &id, "7.50").0, 200);
        assert_eq!(statuses(&server), json!({"replayed": 1, "dismissed": 1}));
    }
}
