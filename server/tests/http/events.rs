//! POST /v1/events.

use serde_json::{Value, json};
use server::Limits;
use server::serve::pressure::Pressure;

use crate::site::{CONTRACTS, Site, order};

#[test]
fn a_pushed_event_is_counted_and_read_after_its_token() {
    let site = Site::start();
    let answer = site.push(&[order("A1", "10.50", "north"), order("A2", "4.50", "south")]);
    assert_eq!(
        (&answer["accepted"], &answer["refused"], &answer["pending"]),
        (&json!(2), &json!(0), &json!(0)),
        "{answer}"
    );
    let token = answer["token"].as_str().unwrap();
    let metric = site.get(&format!("/v1/metrics/revenue?after={token}&wait=5s")).ok();
    assert_eq!(metric["value"], "15.00");
}

#[test]
fn refused_and_duplicate_events_are_told_apart() {
    let site = Site::start();
    let mut wrong = order("B2", "oops", "north");
    wrong["status"] = json!("lost");
    let answer = site.push(&[
        order("B1", "1.00", "north"),
        wrong,
        order("B1", "1.00", "north"),
        json!({"event_type": "nope"}),
    ]);
    assert_eq!(answer["accepted"], 1, "{answer}");
    assert_eq!(answer["duplicate"], 1);
    assert_eq!(answer["refused"], 2);
    assert_eq!(answer["pending"], 0);
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2);
    assert_eq!((&errors[0]["index"], &errors[1]["index"]), (&json!(1), &json!(3)));
    let codes = |e: &Value| -> Vec<String> {
        e["reasons"].as_array().unwrap().iter().map(|r| r["code"].as_str().unwrap().to_owned()).collect()
    };
    assert!(codes(&errors[0]).contains(&"wrong_type".to_owned()), "{answer}");
    assert!(codes(&errors[0]).contains(&"not_in_enum".to_owned()), "{answer}");
    assert_eq!(codes(&errors[1]), ["unknown_event_type"]);
    assert_eq!(site.get("/v1/metrics/order_count").ok()["value"], 1);
}

#[test]
fn every_form_of_body() {
    let site = Site::start();
    let one = order("C1", "1.00", "north").to_string();
    let answer = site.post("/v1/events", "application/json", &one);
    assert_eq!((answer.status, &answer.json()["accepted"]), (202, &json!(1)), "{}", answer.text);

    let array = json!([order("C2", "1.00", "north"), {"event_type": "nope"}, order("C3", "1.00", "north")]);
    let answer = site.post("/v1/events", "application/json", &array.to_string()).json();
    assert_eq!((&answer["accepted"], &answer["refused"]), (&json!(2), &json!(1)), "{answer}");
    assert_eq!((&answer["errors"][0]["index"], &answer["errors"][0]["part"]), (&json!(1), &json!(1)));

    let cloud = |id: &str| {
        json!({
            "specversion": "1.0", "id": format!("ce-{id}"), "type": "order.created", "source": "/test",
            "time": jiff::Timestamp::now().to_string(), "data": order(id, "1.00", "north"),
        })
    };
    let answer = site.post("/v1/events", "application/cloudevents+json", &cloud("C4").to_string()).json();
    assert_eq!(answer["accepted"], 1, "{answer}");
    let batch = json!([cloud("C5"), cloud("C6")]).to_string();
    let answer = site.post("/v1/events", "application/cloudevents-batch+json", &batch).json();
    assert_eq!(answer["accepted"], 2, "{answer}");
    let time = jiff::Timestamp::now().to_string();
    let headers = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "ce-C7"),
        ("ce-type", "order.created"),
        ("ce-source", "/test"),
        ("ce-time", time.as_str()),
    ];
    let answer = site.post_with("/v1/events", &headers, &order("C7", "1.00", "north").to_string()).json();
    assert_eq!(answer["accepted"], 1, "{answer}");
    assert_eq!(site.get("/v1/metrics/order_count").ok()["value"], 7);
}

#[test]
fn broken_input_is_counted_never_a_crash() {
    let site = Site::start();
    let deep = "[".repeat(50_000);
    for (body, refused) in
        [("{broken", 1), ("\"text\"", 1), ("{\"a\":1}\n{broken\n42\n", 3), (deep.as_str(), 1)]
    {
        let reply = site.post("/v1/events", "application/json", body);
        assert_eq!(reply.status, 202, "{}", reply.text);
        let answer = reply.json();
        assert_eq!(
            (&answer["refused"], &answer["accepted"], &answer["pending"]),
            (&json!(refused), &json!(0), &json!(0)),
            "{answer}"
        );
    }
}

#[test]
fn bodies_that_are_no_events() {
    let limits = Limits { body: 2_000, ..Limits::default() };
    let site = Site::with(CONTRACTS, limits);
    site.post("/v1/events", "application/json", "").problem(400, "empty_body");
    site.post("/v1/events", "application/json", " \n ").problem(400, "empty_body");
    site.post("/v1/events", "application/json", "[]").problem(400, "empty_body");
    site.post("/v1/events", "application/json", &"x".repeat(2_001)).problem(413, "body_too_large");
    site.post("/v1/events", "multipart/form-data; boundary=x", "x").problem(415, "unsupported_media_type");
    site.post("/v1/events?source=nope", "application/json", "{}").problem(422, "unknown_source");
    site.post("/v1/events?sorce=push", "application/json", "{}").problem(422, "unknown_parameter");
    site.post("/v1/events?wait=soon", "application/json", "{}").problem(422, "invalid_parameter");
}

/// A client that is still sending must see the answer, not a broken pipe.
#[test]
fn answers_that_come_before_the_body_is_sent() {
    let site = Site::start();
    let body = "x".repeat(16 << 20);
    for _ in 0..10 {
        site.post("/v1/events", "application/json", &body).problem(413, "body_too_large");
        site.post("/v1/events?sorce=push", "application/json", &body).problem(422, "unknown_parameter");
        site.post("/v1/nowhere", "application/json", &body).problem(404, "no_route");
    }
}

#[test]
fn the_same_key_gives_the_same_answer() {
    let site = Site::start();
    let body = json!({
        "event_type": "order.created", "event_id": "k1", "timestamp": jiff::Timestamp::now().to_string(),
        "order_id": "K1", "amount": "2.00",
    })
    .to_string();
    let headers = [("content-type", "application/json"), ("idempotency-key", "abc")];
    let first = site.post_with("/v1/events", &headers, &body);
    assert_eq!(first.status, 202);
    assert_eq!(first.json()["accepted"], 1);
    crate::site::wait_until("the stored answer is the same", || {
        let second = site.post_with("/v1/events", &headers, &body);
        assert_eq!((second.status, second.headers["idempotency-replayed"].as_str()), (202, "true"));
        second.json() == first.json()
    });
    site.post_with("/v1/events", &headers, "{}").problem(422, "idempotency_key_reused");
    let received = site.log.end();
    assert_eq!(received, 1, "nothing was appended twice");
}

#[test]
fn without_waiting_everything_is_pending() {
    let site = Site::start();
    let answer =
        site.post("/v1/events?wait=0", "application/json", &order("W1", "1.00", "north").to_string()).json();
    let total: u64 =
        ["accepted", "refused", "duplicate", "pending"].iter().map(|n| answer[*n].as_u64().unwrap()).sum();
    assert_eq!(total, 1, "{answer}");
    let token = answer["token"].as_str().unwrap();
    assert_eq!(site.get(&format!("/v1/metrics/order_count?after={token}&wait=5s")).ok()["value"], 1);
}

/// What the watcher says when the memory limit is reached.
fn pressure(source: Option<&str>) -> Pressure {
    Pressure {
        code: if source.is_some() { "source_failed" } else { "memory_limit" },
        message: "limits.memory is reached (1 MiB)".into(),
        help: "more memory",
        retry_after: 5,
        source: source.map(str::to_owned),
    }
}

#[test]
fn while_the_intake_is_paused_nothing_is_stored_and_known_keys_are_answered() {
    let site = Site::start();
    let body = order("P1", "1.00", "north").to_string();
    let keyed = |key: &str, body: &str| {
        site.post_with("/v1/events", &[("content-type", "application/json"), ("idempotency-key", key)], body)
    };
    assert_eq!(keyed("known", &body).json()["accepted"], 1);
    let mut wrong = order("P2", "1.00", "north");
    wrong["status"] = json!("lost");
    assert_eq!(site.push(&[wrong])["refused"], 1);
    let mut letters = Value::Null;
    crate::site::wait_until("the dead letter is listed", || {
        letters = site.get("/v1/deadletter").ok()["items"].clone();
        letters.as_array().is_some_and(|letters| !letters.is_empty())
    });
    let replay = format!("/v1/deadletter/{}/replay", letters[0]["event_id"].as_str().unwrap());
    let correction = json!({ "corrected_payload": { "status": "shipped" } }).to_string();
    site.app.pause(vec![pressure(None)]);
    let stored = site.log.end();
    let other = order("P3", "1.00", "north").to_string();
    for reply in [
        site.post("/v1/events", "application/json", &other),
        keyed("new", &other),
        site.post(&replay, "application/json", &correction),
    ] {
        let problem = reply.problem(503, "intake_paused");
        assert_eq!(reply.headers["retry-after"], "5");
        assert!(problem["detail"].as_str().unwrap().contains("limits.memory is reached"), "{problem}");
        assert_eq!(problem["errors"][0]["code"], "memory_limit");
        assert_eq!(problem["errors"][0]["help"], "more memory");
    }
    let again = keyed("known", &body);
    assert_eq!((again.status, again.headers["idempotency-replayed"].as_str()), (202, "true"));
    keyed("known", &other).problem(422, "idempotency_key_reused");
    let ready = site.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("sources wait, pushes are refused with 503: limits.memory is reached"));
    assert_eq!(site.get("/v1/metrics/order_count").ok()["value"], 1, "numbers go on");
    let metrics = site.get("/metrics").text;
    assert!(metrics.contains(r#"streamgauge_intake_paused{reason="memory_limit"} 1.0"#), "{metrics}");
    assert!(metrics.contains(r#"streamgauge_intake_paused{reason="lake_full"} 0.0"#), "{metrics}");
    let health = site.get("/v1/health").ok();
    assert_eq!(health["status"], "degraded", "{health}");
    assert!(health.to_string().contains("pushes are refused with 503"), "{health}");
    assert_eq!(site.log.end(), stored, "nothing was stored");
    // A source of its own that has failed takes nothing, others do.
    site.app.pause(vec![pressure(Some("elsewhere"))]);
    assert_eq!(site.post("/v1/events", "application/json", &other).json()["accepted"], 1);
    site.app.pause(vec![pressure(Some("push"))]);
    site.post("/v1/events", "application/json", &other).problem(503, "intake_paused");
    site.app.pause(Vec::new());
    assert_eq!(keyed("new", &other).json()["duplicate"], 1);
    assert_eq!(site.post(&replay, "application/json", &correction).ok()["status"], "replayed");
    assert_eq!(site.get("/v1/metrics/order_count").ok()["value"], 3);
}

#[test]
fn draining_refuses_pushes_with_retry_after() {
    let site = Site::start();
    site.app.drain();
    let reply = site.post("/v1/events", "application/json", "{}");
    reply.problem(503, "draining");
    assert!(reply.headers["retry-after"].parse::<u32>().is_ok());
    let reply = site.post("/v1/hooks/hook", "application/json", "{}");
    reply.problem(503, "draining");
    assert!(reply.headers["retry-after"].parse::<u32>().is_ok());
}
