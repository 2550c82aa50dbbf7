//! Input made to break a decoder: nothing panics, everything is counted once.

use super::helper::*;
use crate::decode::{DecodeSpec, Decoder};

fn event(with: &str) -> Vec<u8> {
    format!(r#"{{"event_type":"click","event_id":"e","timestamp":0,"session_id":"s",{with}}}"#).into_bytes()
}

fn corpus() -> Vec<(Vec<u8>, &'static str)> {
    let nest = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    let mut corpus = vec![
        (b"".to_vec(), "skipped"),
        (b" \n".to_vec(), "malformed_json"),
        (b"[]".to_vec(), "skipped"),
        (b"\xEF\xBB\xBF{}".to_vec(), "malformed_json"),
        (b"null".to_vec(), "malformed_json"),
        (b"{".to_vec(), "malformed_json"),
        (b"{}{}".to_vec(), "malformed_json"),
        (b"{}".to_vec(), "missing event_type"),
        (b"\0".to_vec(), "malformed_json"),
        (b"\xff\xfe{\0}\0".to_vec(), "malformed_json"),
        (vec![b'['; 1_000_000], "malformed_json"),
        (b"{\"a\":".repeat(200_000), "malformed_json"),
        (nest("[", "]", 128).into_bytes(), "malformed_json"),
        (event(&format!(r#""x":{}"#, nest("[", "]", 126))), "row"),
        (event(&format!(r#""x":{}"#, nest("[", "]", 127))), "malformed_json"),
        (event(&format!(r#""page":{}1{}"#, "{\"url\":".repeat(126), "}".repeat(126))), "row"),
        (event(&format!(r#""page":{}1{}"#, "{\"url\":".repeat(127), "}".repeat(127))), "malformed_json"),
        (event(&format!(r#""geo":{{"tags":{}}}"#, nest("[", "]", 125))), "wrong_type geo.tags[0]"),
        (event(r#""ratio":1e400"#), "malformed_json"),
        (event(r#""x":-1e400"#), "malformed_json"),
        (event(r#""wide":1e-400"#), "wrong_type wide"),
        (event(&format!(r#""wide":1{}"#, "0".repeat(100))), "wrong_type wide"),
        (event(&format!(r#""viewport":{{"width":{}}}"#, "9".repeat(300))), "wrong_type viewport.width"),
        (event(&format!(r#""x":{}"#, "9".repeat(400))), "malformed_json"),
        (event(r#""x":"\ud800""#), "malformed_json"),
        (event(r#""x":"\ud800\u0041""#), "malformed_json"),
        (event(r#""geo":{"city":"\u0000"}"#), "row"),
        (event("\"x\":\"a\0b\""), "malformed_json"),
        (event("\"x\":\"\u{7f}\u{2028}\u{10ffff}\""), "row"),
        (event(r#""timestamp ":0,"day":"0000-00-00""#), "wrong_type day"),
        (event(r#""__proto__":{"session_id":1},"constructor":null"#), "row"),
        (event(r#""$serde_json::private::RawValue":1"#), "row"),
        (event(r#""x":{"":{"":{"":""}}}"#), "row"),
        (event(r#""x":1,"x":2,"x":3"#), "row"),
        (event(r#""session_id":"t""#), "malformed_json session_id"),
        (event(r#""order_id":1,"order_id":2"#), "row"),
        (event("\"x\":\"\u{202e}'; DROP TABLE orders;--\""), "row"),
        (vec![b'7'; 3 << 20], "oversize"),
    ];
    let mut bad = event(r#""x":"?""#);
    let at = bad.iter().position(|b| *b == b'?').unwrap();
    for broken in [&b"\x80"[..], b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"] {
        let mut record = bad.clone();
        record.splice(at..=at, broken.iter().copied());
        corpus.push((record, "malformed_json"));
    }
    bad[at] = b'\\';
    corpus.push((bad, "malformed_json"));
    corpus
}

#[test]
fn every_hostile_record_is_counted_in_exactly_one_place() {
    let corpus = corpus();
    let mut decoder = Decoder::new(commerce(), DecodeSpec { max_record_bytes: 2 << 20, ..spec() });
    for together in [false, true] {
        for (record, expected) in &corpus {
            if together {
                push(&mut decoder, record, 0);
                continue;
            }
            push(&mut decoder, record, 0);
            let chunk = finish(&mut decoder);
            let reasons = reasons(&chunk);
            let got = match (&chunk.batches[..], &reasons[..], chunk.skipped) {
                ([_], [], 0) => "row",
                ([], [reasons], 0) => reasons.as_str(),
                ([], [], 1) => "skipped",
                other => panic!("{other:?}"),
            };
            assert_eq!(got, *expected, "{}", String::from_utf8_lossy(&record[..record.len().min(300)]));
        }
    }
    assert_eq!(finish(&mut decoder).received, corpus.len() as u64);
}

#[test]
fn every_prefix_of_an_event_is_refused() {
    let whole = event(r#""geo":{"city":"K\u00f6ln","tags":["ü"]},"wide":-1.5e3,"bot":true"#);
    let mut decoder = Decoder::new(commerce(), spec());
    for end in 1..whole.len() {
        push(&mut decoder, &whole[..end], end as i64);
    }
    push(&mut decoder, &whole, 0);
    let chunk = finish(&mut decoder);
    assert_eq!((chunk.refused.len(), chunk.batches[0].offsets.len()), (whole.len() - 1, 1));
    assert!(reasons(&chunk).iter().all(|reasons| reasons == "malformed_json"));
}

#[test]
fn ever_new_shapes_do_not_grow_memory_or_break_answers() {
    let mut decoder = Decoder::new(commerce(), spec());
    for n in 0..20_000 {
        let record = event(&format!(r#""k{n}":1, "viewport" : {{"k{n}":{{}},"width":{n}}}"#));
        push(&mut decoder, &record, n);
        if n % 1000 == 999 {
            let chunk = finish(&mut decoder);
            assert_eq!(row(&chunk.batches[0], 999), format!("session_id=s width={n} time=0"));
        }
    }
}
