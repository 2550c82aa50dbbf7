//! JSON events with a declared envelope: what is decoded, what is refused and why.

use contracts::batch::Chunk;
use contracts::catalog::Status;
use contracts::value::{FieldType, Value};
use std::sync::Arc;

use super::helper::*;
use crate::decode::{DecodeSpec, Decoder, Envelope, Record};

const ORDER: &str = r#"{"event_type":"order.created","event_id":"e1","timestamp":"2026-01-01T00:00:00Z","order_id":"ORD-20260101-0001","currency":"USD","total_amount":209.97,"items":[{"product_id":"a","quantity":2,"unit_price":"79.99"},{"product_id":"b","quantity":1,"unit_price":49.99}]}"#;

fn order(change: &[(&str, &str)]) -> String {
    change.iter().fold(ORDER.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

#[test]
fn an_order_becomes_columns() {
    let chunk = decode(&[ORDER]);
    assert_eq!(
        row(&chunk.batches[0], 0),
        "event_id=e1 timestamp=1767225600000000 order_id=ORD-20260101-0001 currency=USD total_amount=20997 \
         items=[{product_id:a,quantity:2,unit_price:7999},{product_id:b,quantity:1,unit_price:4999}] \
         time=1767225600000000"
    );
    assert_eq!(chunk.batches[0].event, 1);
    assert_eq!(id(&chunk.batches[0], 0), Some("e1"));
    assert_eq!(&chunk.batches[0].payloads.get(0)[..], ORDER.as_bytes());
    assert_eq!(chunk.bytes, ORDER.len() as u64);
}

#[test]
fn spaces_order_escapes_and_decoys_change_nothing() {
    let wild = r#" { "x": {"order_id": "decoy", "items": [1]}, "items": [ ], "total_\u0061mount" : "2.0997e2",
        "y":[{"currency":"EUR"}], "order_id":"\u004fRD-20260101-0001", "timestamp" : 1767225600000,
        "event_id":"e\"1", "event_type":"order\u002ecreated", "z": "\"currency\":\"EUR\"" } "#;
    let chunk = decode(&[wild, ORDER, wild]);
    for at in [0, 2] {
        assert_eq!(
            row(&chunk.batches[0], at),
            "event_id=e\"1 timestamp=1767225600000000 order_id=ORD-20260101-0001 currency=RUB \
             total_amount=20997 items=[] time=1767225600000000"
        );
        assert_eq!(id(&chunk.batches[0], at), Some("e\"1"));
    }
}

#[test]
fn every_kind_of_field_and_paths_into_objects() {
    let chunk = decode(&[
        r#"{"event_type":"click","timestamp":"2026-01-01T00:00:00.5Z","session_id":"s","viewport":{"height":1,"width":375},"ratio":1e-3,"bot":false,"day":"2026-02-28","page":{"url":{"path":"/a"},"n":[1, 2]},"geo":{"city":"Köln","tags":["x",null,"\u00fc"],"other":1},"wide":12345678901234567890.0123456789}"#,
        r#"{"event_type":"click","timestamp":0,"session_id":"s","viewport":null,"page":"text","geo":null}"#,
    ]);
    assert_eq!(
        row(&chunk.batches[0], 0),
        r#"session_id=s width=375 ratio=0.001 bot=false day=20512 page=/a raw={"url":{"path":"/a"},"n":[1, 2]} geo={city:Köln,tags:[x,null,ü]} wide=123456789012345678900123456789 time=1767225600500000"#
    );
    assert_eq!(row(&chunk.batches[0], 1), r#"session_id=s raw="text" time=0"#);
    assert_eq!(id(&chunk.batches[0], 0), None);
}

#[test]
fn each_broken_promise_is_named_with_its_place() {
    let refused = |from: &str, to: &str| refusal(&order(&[(from, to)]));
    assert_eq!(refused("\"USD\"", "\"JPY\""), "not_in_enum currency");
    assert_eq!(refused("\"quantity\":2", "\"quantity\":0"), "min items[0].quantity");
    assert_eq!(refused("\"quantity\":1", "\"quantity\":1001"), "max items[1].quantity");
    assert_eq!(refused("ORD-20260101-0001", "ORD-1"), "pattern order_id");
    assert_eq!(refused("209.97", "-209.97"), "min total_amount");
    assert_eq!(refused("209.97", "209.975"), "wrong_type total_amount");
    assert_eq!(refused("209.97", "null"), "missing total_amount");
    assert_eq!(refused("\"total_amount\"", "\"amount\""), "missing total_amount");
    assert_eq!(refused("\"product_id\":\"b\"", "\"product_id\":null"), "missing items[1].product_id");
    assert_eq!(refused("\"quantity\":2", "\"quantity\":2.0"), "wrong_type items[0].quantity");
    assert_eq!(
        refused("\"quantity\":2", "\"quantity\":2,\"quantity\":2"),
        "malformed_json items[0].quantity"
    );
    assert_eq!(
        refused("\"items\":[", "\"items\":[1,null,{},"),
        "wrong_type items[0]; missing items[2].product_id; max_length items"
    );
    assert_eq!(refused("2026-01-01T00:00:00Z", "yesterday"), "wrong_type timestamp");
    assert_eq!(refused("order.created", "unknown.event"), "unknown_event_type event_type");
    assert_eq!(refused("\"event_type\":\"order.created\",", ""), "missing event_type");
    assert_eq!(refused("\"order.created\"", "7"), "wrong_type event_type");
    assert_eq!(
        refused("\"currency\":\"USD\"", "\"currency\":\"USD\",\"currency\":\"USD\""),
        "malformed_json currency"
    );
    assert_eq!(
        refused("\"event_id\":\"e1\"", "\"event_id\":\"e1\",\"event\\u005fid\":\"e1\""),
        "malformed_json event_id"
    );
    let several = order(&[("\"USD\"", "\"JPY\""), ("209.97", "true"), ("\"quantity\":1", "\"quantity\":0")]);
    assert_eq!(refusal(&several), "not_in_enum currency; wrong_type total_amount; min items[1].quantity");
}

#[test]
fn a_refused_row_leaves_no_trace_and_says_whose_it_was() {
    let bad = order(&[("\"quantity\":1", "\"quantity\":0"), ("\"e1\"", "\"e2\""), ("USD", "EUR")]);
    let chunk = decode(&[ORDER, &bad, ORDER]);
    assert_eq!(chunk.batches[0].offsets, [0, 2]);
    assert_eq!(row(&chunk.batches[0], 0), row(&chunk.batches[0], 1));
    let refused = &chunk.refused[0];
    assert_eq!((refused.offset, refused.part, refused.received), (1, 0, NOW));
    assert_eq!(refused.event_type.as_deref(), Some("order.created"));
    assert_eq!(refused.event_id.as_deref(), Some("e2"));
    assert_eq!(&refused.payload[..], bad.as_bytes());
    assert_eq!(refused.reasons[0].message, "found 0, must be at least 1");
}

#[test]
fn event_time_may_be_five_minutes_ahead() {
    let at = |time: &str| decode(&[&order(&[("2026-01-01T00:00:00Z", time)])]);
    assert_eq!(at("2026-01-01T00:04:00Z").batches.len(), 1);
    assert_eq!(at("2026-01-01T00:05:00").batches.len(), 1);
    let chunk = at("2026-01-01T00:05:00.000001Z");
    assert_eq!(reasons(&chunk), ["time_in_future timestamp"]);
    assert_eq!(
        chunk.refused[0].reasons[0].message,
        "found 2026-01-01T00:05:00.000001Z, more than 5 minutes after it was received (2026-01-01T00:00:00Z)"
    );
    assert_eq!(refusal(r#"{"event_type":"click","session_id":"s"}"#), "missing timestamp");
    assert_eq!(refusal(r#"{"event_type":"click","session_id":"s","timestamp":"x"}"#), "wrong_type timestamp");
    assert_eq!(
        refusal(r#"{"event_type":"click","timestamp":1893456000000}"#),
        "missing session_id; time_in_future timestamp"
    );
}

#[test]
fn an_array_is_several_events_and_all_or_nothing() {
    let array = format!("[{ORDER}, 7,{} ]", order(&[("\"e1\"", "\"e2\"")]));
    let chunk = decode(&["", &array, "[]", &format!("[{ORDER},")]);
    assert_eq!((chunk.received, chunk.skipped), (6, 2));
    assert_eq!(chunk.batches[0].offsets, [1, 1]);
    assert_eq!(chunk.batches[0].parts, [0, 2]);
    assert_eq!(&chunk.batches[0].payloads.get(0)[..], ORDER.as_bytes());
    assert_eq!(reasons(&chunk), ["malformed_json", "malformed_json"]);
    assert_eq!((chunk.refused[0].part, &chunk.refused[0].payload[..]), (1, b"7".as_slice()));
    assert_eq!(chunk.refused[1].offset, 3);
}

#[test]
fn a_field_named_time_is_the_event_time_and_the_envelope_fills_in() {
    let event = event("e", Some("time"), None, vec![field("time", FieldType::Timestamp)]);
    let catalog = Arc::new(contracts::Catalog { events: vec![event], ..Default::default() });
    let envelope =
        Envelope { time: Some(vec!["at".into()]), id: Some(vec!["n".into()]), ..Default::default() };
    let spec = DecodeSpec { fixed_type: Some("e".into()), envelope, ..DecodeSpec::default() };
    let mut decoder = Decoder::new(catalog, spec);
    push(&mut decoder, br#"{"time":1,"at":2,"n":-7}"#, 0);
    push(&mut decoder, br#"{"at":2,"n":"x"}"#, 1);
    push(&mut decoder, br#"{"n":{}}"#, 2);
    let chunk = finish(&mut decoder);
    assert_eq!(row(&chunk.batches[0], 0), "time=1000");
    assert_eq!(row(&chunk.batches[0], 1), "time=2000");
    assert_eq!((id(&chunk.batches[0], 0), id(&chunk.batches[0], 1)), (Some("-7"), Some("x")));
    assert_eq!(reasons(&chunk), ["missing time; wrong_type n"]);
}

#[test]
fn ids_count_per_tenant_and_drafts_do_not_run() {
    let mut draft = (*event("draft", None, None, vec![])).clone();
    draft.head.status = Status::Draft;
    let events = vec![Arc::new(draft), event("e", None, None, vec![])];
    let catalog = Arc::new(contracts::Catalog { events, ..Default::default() });
    let path = |key: &str| Some(vec![key.to_owned()]);
    let envelope =
        Envelope { id: path("id"), event_type: path("type"), time: path("t"), tenant: path("who") };
    let mut decoder = Decoder::new(catalog, DecodeSpec { envelope, ..DecodeSpec::default() });
    push(&mut decoder, br#"{"type":"e","id":"1","t":0,"who":"a"}"#, 0);
    push(&mut decoder, br#"{"type":"e","id":"1","t":0}"#, 1);
    push(&mut decoder, br#"{"type":"draft","id":"1","t":0}"#, 2);
    let chunk = finish(&mut decoder);
    assert_eq!((id(&chunk.batches[0], 0), id(&chunk.batches[0], 1)), (Some("a/1"), Some("1")));
    assert_eq!(reasons(&chunk), ["unknown_event_type type"]);
    assert_eq!(chunk.refused[0].reasons[0].message, "the contract of `draft` is a draft or retired");
}

#[test]
fn events_of_the_engine_are_not_taken_from_outside() {
    let own = (*event("streamgauge.row", None, None, vec![])).clone();
    let events = vec![Arc::new(own), event("e", None, None, vec![])];
    let catalog = Arc::new(contracts::Catalog { events, ..Default::default() });
    let path = |key: &str| Some(vec![key.to_owned()]);
    let envelope = Envelope { event_type: path("type"), time: path("t"), ..Default::default() };
    for own_events in [false, true] {
        let spec = DecodeSpec { envelope: envelope.clone(), own_events, ..DecodeSpec::default() };
        let mut decoder = Decoder::new(catalog.clone(), spec);
        push(&mut decoder, br#"{"type":"streamgauge.row","t":0}"#, 0);
        push(&mut decoder, br#"{"type":"streamgauge.other","t":0}"#, 1);
        push(&mut decoder, br#"{"type":"x","t":0}"#, 2);
        let chunk = finish(&mut decoder);
        let (taken, refused) = if own_events { (1, 2) } else { (0, 3) };
        assert_eq!((chunk.batches.len(), chunk.refused.len()), (taken, refused));
        let own = "reserved_event_type type";
        assert_eq!(reasons(&chunk)[refused - 2..], [own, "unknown_event_type type"]);
        let message = &chunk.refused[refused - 1].reasons[0].message;
        assert_eq!(message.contains("streamgauge.row"), own_events, "{message}");
    }
}

#[test]
fn personal_data_and_long_values_stay_out_of_messages() {
    let mut secret = field("secret", FieldType::Int);
    secret.pii = true;
    let events = vec![event("e", None, None, vec![secret, field("open", FieldType::Int)])];
    let catalog = Arc::new(contracts::Catalog { events, ..Default::default() });
    let path = |key: &str| Some(vec![key.to_owned()]);
    let envelope = Envelope { time: path("t"), ..Default::default() };
    let spec = DecodeSpec { envelope, fixed_type: Some("e".into()), ..DecodeSpec::default() };
    let mut decoder = Decoder::new(catalog, spec);
    let record = format!(r#"{{"t":0,"secret":"4111","open":"{}"}}"#, "ü".repeat(500));
    push(&mut decoder, record.as_bytes(), 0);
    let reasons = &finish(&mut decoder).refused[0].reasons;
    assert_eq!(
        reasons[0].message,
        "found a hidden value, expected an integer (no fraction, no exponent, 64 bits)"
    );
    assert!(reasons[1].message.starts_with("found \"üüü") && reasons[1].message.chars().count() < 160);
}

#[test]
fn interned_values_keep_their_codes_across_chunks_and_start_anew_when_there_are_too_many() {
    let events = vec![event("e", None, None, vec![field("v", FieldType::String).dictionary()])];
    let catalog = Arc::new(contracts::Catalog { events, ..Default::default() });
    let envelope = Envelope { time: Some(vec!["t".into()]), ..Default::default() };
    let spec = DecodeSpec { fixed_type: Some("e".into()), envelope, ..DecodeSpec::default() };
    let mut decoder = Decoder::new(catalog, spec);
    let mut chunk_of = |values: &mut dyn Iterator<Item = String>| -> Chunk {
        values.for_each(|v| push(&mut decoder, format!(r#"{{"t":0,"v":"{v}"}}"#).as_bytes(), 0));
        finish(&mut decoder)
    };
    let codes = |chunk: &Chunk| {
        use arrow::array::AsArray;
        let column =
            chunk.batches[0].columns.column(0).as_dictionary::<arrow::datatypes::Int32Type>().clone();
        (column.keys().values().to_vec(), column.values().clone())
    };
    let (first, values) = codes(&chunk_of(&mut ["a", "b", "a"].into_iter().map(str::to_owned)));
    assert_eq!(first, [0, 1, 0]);
    let (second, same) = codes(&chunk_of(&mut ["b"].into_iter().map(str::to_owned)));
    assert_eq!(second, [1]);
    assert!(Arc::ptr_eq(&values, &same), "not grown: shared");
    let many = chunk_of(&mut (0..70_000).map(|n| n.to_string()));
    assert_eq!(row(&many.batches[0], 69_999), "v=69999 time=0");
    assert_eq!(codes(&chunk_of(&mut ["b"].into_iter().map(str::to_owned))).0, [0]);
}

#[test]
fn lists_of_scalars_defaults_and_float_bounds() {
    use contracts::catalog::Checks;
    let tags = field("tags", FieldType::List(Box::new(FieldType::String))).checks(Checks {
        one_of: texts(&["a", "b"]),
        min_length: Some(1),
        ..Checks::default()
    });
    let share = Checks { min: Some(Value::Float(0.0)), max: Some(Value::Int(1)), ..Checks::default() };
    let name = Checks { min_length: Some(2), max_length: Some(3), ..Checks::default() };
    let fields = vec![
        tags,
        field("share", FieldType::Float).checks(share),
        field("name", FieldType::String).checks(name),
        field("n", FieldType::Int).default_to(Value::Int(5)),
        field("d", money()).default_to(Value::Decimal(15, 1)),
    ];
    let catalog =
        Arc::new(contracts::Catalog { events: vec![event("e", None, None, fields)], ..Default::default() });
    let envelope = Envelope { time: Some(vec!["t".into()]), ..Default::default() };
    let spec = DecodeSpec { fixed_type: Some("e".into()), envelope, ..DecodeSpec::default() };
    let mut decoder = Decoder::new(catalog, spec);
    push(&mut decoder, r#"{"t":0,"tags":["a","b"],"share":1,"name":"öäü"}"#.as_bytes(), 0);
    push(&mut decoder, br#"{"t":0,"tags":["a","c"],"share":1.5,"name":"x"}"#, 1);
    push(&mut decoder, br#"{"t":0,"tags":[],"share":-1e-9,"name":"abcd"}"#, 2);
    let chunk = finish(&mut decoder);
    assert_eq!(row(&chunk.batches[0], 0), "tags=[a,b] share=1.0 name=öäü n=5 d=150 time=0");
    assert_eq!(
        reasons(&chunk),
        ["not_in_enum tags[1]; max share; min_length name", "min_length tags; min share; max_length name"]
    );
}

#[test]
fn checks_of_lists_and_of_their_items_are_told_apart() {
    use contracts::catalog::{Checks, NestedField};
    let length = |min, max| Checks { min_length: Some(min), max_length: Some(max), ..Checks::default() };
    let entry = |path: &[&str], required, checks| NestedField {
        path: path.iter().map(|key| (*key).to_owned()).collect(),
        required,
        checks,
    };
    let list = || FieldType::List(Box::new(FieldType::String));
    let mut top = field("top", list()).checks(length(1, 2));
    top.nested = vec![entry(&[], true, length(3, 9))];
    let mut inner = field("inner", FieldType::Struct(vec![("tags".into(), list())]));
    inner.nested = vec![entry(&["tags"], true, length(1, 2)), entry(&["tags"], false, length(3, 9))];
    let mut deep = field("deep", FieldType::List(Box::new(list()))).checks(length(1, 2));
    deep.nested = vec![entry(&[], false, length(2, 2))];
    let events = vec![event("e", None, None, vec![top, inner, deep])];
    let catalog = Arc::new(contracts::Catalog { events, ..Default::default() });
    let envelope = Envelope { time: Some(vec!["t".into()]), ..Default::default() };
    let spec = DecodeSpec { fixed_type: Some("e".into()), envelope, ..DecodeSpec::default() };
    let mut decoder = Decoder::new(catalog, spec);
    push(&mut decoder, br#"{"t":0,"top":["abc"],"inner":{"tags":["abc",null]},"deep":[["","x"]]}"#, 0);
    push(&mut decoder, br#"{"t":0,"top":["ab",null,"abc"],"inner":{"tags":[]},"deep":[["x"]]}"#, 1);
    push(&mut decoder, br#"{"t":0,"inner":{"tags":["abc","ab"]},"deep":[]}"#, 2);
    push(&mut decoder, br#"{"t":0,"inner":{}}"#, 3);
    let chunk = finish(&mut decoder);
    assert_eq!(row(&chunk.batches[0], 0), "top=[abc] inner={tags:[abc,null]} deep=[[,x]] time=0");
    assert_eq!(
        reasons(&chunk),
        [
            "min_length top[0]; missing top[1]; max_length top; min_length inner.tags; min_length deep[0]",
            "min_length inner.tags[1]; min_length deep",
            "missing inner.tags"
        ]
    );
}

#[test]
fn a_shared_buffer_is_not_copied_and_mixing_works() {
    let text = format!("{ORDER}\n{ORDER}\n");
    let buffer = bytes::Bytes::from(text);
    let mut decoder = Decoder::new(commerce(), spec());
    decoder.share(&buffer);
    decoder.push_shared(&buffer, 0..ORDER.len(), 0, NOW);
    decoder.push_shared(&buffer, ORDER.len() + 1..2 * ORDER.len() + 1, 1, NOW);
    let chunk = finish(&mut decoder);
    assert_eq!(chunk.batches[0].payloads.bytes.as_ptr(), buffer.as_ptr());
    assert_eq!(&chunk.batches[0].payloads.get(1)[..], ORDER.as_bytes());
    decoder.share(&buffer);
    decoder.push_shared(&buffer, 0..ORDER.len(), 0, NOW);
    decoder.push(Record { value: ORDER.as_bytes(), offset: 1, received: NOW, headers: &[] });
    decoder.push_shared(&buffer, ORDER.len() + 1..2 * ORDER.len() + 1, 2, NOW);
    let chunk = finish(&mut decoder);
    assert_eq!(chunk.batches[0].payloads.ranges.len(), 3);
    (0..3).for_each(|row| assert_eq!(&chunk.batches[0].payloads.get(row)[..], ORDER.as_bytes()));
}

#[test]
fn settings_speak_yaml_names() {
    let spec: DecodeSpec = serde_json::from_str(
        r#"{"format":"cloudevents","envelope":{"id":"event_id","type":"meta.type","time":"ts"}}"#,
    )
    .unwrap();
    assert_eq!(spec.envelope.event_type, Some(vec!["meta".to_owned(), "type".to_owned()]));
    assert_eq!(spec.format, crate::decode::Format::CloudEvents);
    assert!(serde_json::from_str::<Envelope>(r#"{"type":"a..b"}"#).is_err());
    assert_eq!(
        serde_json::to_string(&spec.envelope).unwrap(),
        r#"{"id":"event_id","type":"meta.type","time":"ts"}"#
    );
}
