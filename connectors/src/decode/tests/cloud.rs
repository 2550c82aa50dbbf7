//! CloudEvents in all their forms.

use contracts::batch::Chunk;

use super::helper::*;
use crate::decode::{DecodeSpec, Decoder, Envelope, Format, Record};

const DATA: &str = r#"{"session_id":"s","viewport":{"width":375},"timestamp":5}"#;

fn structured(with: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"c1","source":"/web","type":"click","time":"2025-01-01T00:00:00Z",{with}}}"#
    )
}

fn decode(format: Format, value: &str, headers: &[(&str, &[u8])]) -> Chunk {
    let mut decoder = Decoder::new(commerce(), DecodeSpec { format, ..spec() });
    decoder.push(Record { value: value.as_bytes(), offset: 0, received: NOW, headers });
    finish(&mut decoder)
}

const ROW: &str = "session_id=s width=375 time=1735689600000000";

fn is_the_click(chunk: &Chunk) {
    assert_eq!(reasons(chunk), [""; 0]);
    assert_eq!(row(&chunk.batches[0], 0), ROW);
    assert_eq!(id(&chunk.batches[0], 0), Some("c1"));
}

#[test]
fn structured_events_by_format_or_by_header() {
    let event = structured(&format!(r#""data":{DATA}"#));
    is_the_click(&decode(Format::CloudEvents, &event, &[]));
    let header: &[(&str, &[u8])] = &[("Content-Type", b"application/cloudevents+json; charset=UTF-8")];
    is_the_click(&decode(Format::Json, &event, header));
}

#[test]
fn encoded_data_is_data() {
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.encode(DATA);
    is_the_click(&decode(Format::CloudEvents, &structured(&format!(r#""data_base64":"{data}""#)), &[]));
    let both = structured(&format!(r#""data":{{}},"data_base64":"{data}""#));
    assert_eq!(reasons(&decode(Format::CloudEvents, &both, &[])), ["wrong_type data_base64"]);
    let broken = structured(r#""data_base64":"?""#);
    assert_eq!(reasons(&decode(Format::CloudEvents, &broken, &[])), ["wrong_type data_base64"]);
    let no_json = structured(r#""data_base64":"aGk=""#);
    assert_eq!(reasons(&decode(Format::CloudEvents, &no_json, &[])), ["malformed_json"]);
}

#[test]
fn a_batch_is_several_events() {
    let event = structured(&format!(r#""data":{DATA}"#));
    let header: &[(&str, &[u8])] = &[("content-type", b"application/cloudevents-batch+json")];
    let chunk = decode(Format::Json, &format!("[{event},{{}},{event}]"), header);
    assert_eq!(chunk.batches[0].parts, [0, 2]);
    assert_eq!(reasons(&chunk), ["missing specversion; missing id; missing source; missing type"]);
}

#[test]
fn headers_that_carry_the_event_stay_with_it() {
    let headers: &[(&str, &[u8])] = &[
        ("ce_specversion", b"1.0"),
        ("authorization", b"secret"),
        ("CE-Id", b"c1"),
        ("ce_source", b"/web"),
        ("ce_type", b"click"),
        ("ce_time", b"2025-01-01T00:00:00Z"),
        ("traceparent", b"00-x"),
        ("content-type", b"application/json"),
    ];
    let mut decoder = Decoder::new(commerce(), spec());
    for (offset, value) in [DATA, "{", r#"{"timestamp":0}"#].into_iter().enumerate() {
        let offset = 2 * offset as i64;
        decoder.push(Record { value: value.as_bytes(), offset, received: NOW, headers });
        push(&mut decoder, b"{}", offset + 1);
    }
    let chunk = finish(&mut decoder);
    let names = |headers: contracts::batch::HeaderList| -> Vec<String> {
        headers.into_iter().map(|(name, _)| name).collect()
    };
    let kept = ["ce_specversion", "CE-Id", "ce_source", "ce_type", "ce_time", "content-type"];
    assert_eq!(names(chunk.batches[0].payloads.headers(0)), kept);
    assert_eq!(names(chunk.batches[0].payloads.headers(1)), [""; 0]);
    for refused in &chunk.refused {
        let expected = if refused.offset % 2 == 0 { &kept[..] } else { &[] };
        assert_eq!(names(refused.headers.clone()), expected, "{}", refused.offset);
    }
    assert!(finish(&mut decoder).refused.is_empty());
    let plain: &[(&str, &[u8])] = &[("content-type", b"application/json")];
    assert!(decode(Format::Json, "{", plain).refused[0].headers.is_empty());
}

#[test]
fn binary_mode_over_kafka_and_http() {
    let kafka: &[(&str, &[u8])] = &[
        ("ce_specversion", b"1.0"),
        ("ce_id", b"c1"),
        ("ce_source", b"/web"),
        ("ce_type", b"click"),
        ("ce_time", b"2025-01-01T00:00:00Z"),
        ("content-type", b"application/json"),
    ];
    is_the_click(&decode(Format::Json, DATA, kafka));
    let http: &[(&str, &[u8])] = &[
        ("CE-SpecVersion", b"1.0"),
        ("Ce-Id", b"%63%31"),
        ("ce-source", b"/web"),
        ("ce-type", b"click"),
        ("ce-time", b"2025-01-01T00:00:00Z"),
        ("Content-Type", b"application/vnd.shop+json; charset=utf-8"),
    ];
    is_the_click(&decode(Format::Json, DATA, http));
    let chunk = decode(Format::Json, DATA, &http[..1]);
    assert_eq!(reasons(&chunk), ["missing id; missing source; missing type"]);
    let chunk = decode(Format::Json, "[1]", kafka);
    assert_eq!(reasons(&chunk), ["malformed_json"]);
    assert_eq!(chunk.refused[0].event_id.as_deref(), Some("c1"));
    assert_eq!(chunk.refused[0].event_type.as_deref(), Some("click"));
}

#[test]
fn what_is_not_cloudevents_1_0_is_refused() {
    let bad = |from: &str, to: &str| {
        let event = structured(&format!(r#""data":{DATA}"#)).replace(from, to);
        reasons(&decode(Format::CloudEvents, &event, &[])).join("|")
    };
    assert_eq!(bad("\"1.0\"", "\"0.3\""), "not_in_enum specversion");
    assert_eq!(bad("\"1.0\"", "1.0"), "wrong_type specversion");
    assert_eq!(bad("\"/web\"", "\"\""), "missing source");
    assert_eq!(bad("\"id\":\"c1\"", "\"id\":\"c1\",\"id\":\"c2\""), "malformed_json id");
    assert_eq!(bad("\"source\"", "\"data\":1,\"source\""), "malformed_json data");
    assert_eq!(bad("click", "unknown"), "unknown_event_type type");
    assert_eq!(bad(DATA, "\"text\""), "wrong_type data");
    assert_eq!(bad(DATA, "null"), "missing session_id");
    assert_eq!(bad("2025-01-01T00:00:00Z", "2025"), "wrong_type time");
    let avro: &[(&str, &[u8])] = &[("content-type", b"application/cloudevents+avro")];
    assert_eq!(reasons(&decode(Format::Json, "x", avro)), ["unsupported_content_type content-type"]);
    let xml: &[(&str, &[u8])] = &[("ce_id", b"1"), ("content-type", b"application/xml")];
    assert_eq!(reasons(&decode(Format::Json, "x", xml)), ["unsupported_content_type content-type"]);
}

#[test]
fn other_headers_leave_the_format_alone_and_tenants_are_extensions() {
    let headers: &[(&str, &[u8])] = &[("traceparent", b"00-1"), ("content-type", b"text/plain")];
    let chunk = decode(Format::Json, r#"{"event_type":"click","timestamp":0,"session_id":"s"}"#, headers);
    assert_eq!(chunk.batches.len(), 1);
    let envelope = Envelope { tenant: Some(vec!["tenant".into()]), ..Envelope::default() };
    let spec = DecodeSpec { format: Format::CloudEvents, envelope, ..DecodeSpec::default() };
    let mut decoder = Decoder::new(commerce(), spec);
    push(&mut decoder, structured(&format!(r#""tenant":"a","data":{DATA}"#)).as_bytes(), 0);
    let headers: &[(&str, &[u8])] = &[
        ("ce_specversion", b"1.0"),
        ("ce_id", b"c1"),
        ("ce_source", b"/web"),
        ("ce_type", b"click"),
        ("ce_time", b"2025-01-01T00:00:00Z"),
        ("ce_tenant", b"b"),
    ];
    decoder.push(Record { value: DATA.as_bytes(), offset: 1, received: NOW, headers });
    let chunk = finish(&mut decoder);
    assert_eq!((id(&chunk.batches[0], 0), id(&chunk.batches[0], 1)), (Some("a/c1"), Some("b/c1")));
}
