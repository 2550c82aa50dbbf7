//! Cuts the body of a push into records of the log.
//!
//! *In*: bytes and headers. *Out*: [`Outgoing`] records with the number of events in each. *Never*: a
//! judgement of an event (decode judges); a header kept that could be a secret.

use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::error::{Problem, Result};

/// Deeper JSON is refused as a whole, by decode as by serde_json.
const MAX_DEPTH: u32 = 127;

/// One record for the log, with the number of events it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The bytes.
    pub value: Bytes,
    /// Headers that decode needs: CloudEvents attributes and content types.
    pub headers: Vec<(String, Bytes)>,
    /// Events in it: 1 unless it is a JSON array.
    pub parts: u32,
}

/// Cuts a body into records.
pub fn split(headers: &HeaderMap, body: &Bytes) -> Result<Vec<Outgoing>> {
    let text = |name| headers.get(name).and_then(|v: &axum::http::HeaderValue| v.to_str().ok()).unwrap_or("");
    if !matches!(text(header::CONTENT_ENCODING), "" | "identity") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            "The body has a Content-Encoding; send it uncompressed.",
        ));
    }
    let content_type = text(header::CONTENT_TYPE);
    let mime = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    // What some editors write at the start of a file is no part of its first event.
    let body = &body.strip_prefix(b"\xef\xbb\xbf").map_or_else(|| body.clone(), |rest| body.slice_ref(rest));
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(empty());
    }
    if mime.starts_with("application/cloudevents") {
        let headers = vec![("content-type".to_owned(), Bytes::from(mime))];
        return some(vec![Outgoing { value: body.clone(), headers, parts: parts(body) }]);
    }
    if BINARY.iter().any(|name| headers.contains_key(*name)) {
        return Ok(vec![Outgoing { value: body.clone(), headers: binary_headers(headers), parts: 1 }]);
    }
    let records = match mime.as_str() {
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/json-lines"
        | "application/x-jsonlines" => lines(body),
        mime if mime.starts_with("multipart/") => {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                format!(
                    "Content-Type `{mime}` is not taken. Send application/json, application/x-ndjson or application/cloudevents+json."
                ),
            ));
        }
        // Also what clients send who say nothing (curl: application/x-www-form-urlencoded).
        _ => json_or_lines(body),
    };
    some(records)
}

/// The attributes that make a request a CloudEvent in binary mode.
const BINARY: [&str; 4] = ["ce-specversion", "ce-id", "ce-source", "ce-type"];

fn some(records: Vec<Outgoing>) -> Result<Vec<Outgoing>> {
    if records.iter().all(|r| r.parts == 0) { Err(empty()) } else { Ok(records) }
}

fn empty() -> Problem {
    Problem::bad_request(
        "empty_body",
        "The body holds no event. Send a JSON object, an array, or one JSON object per line.",
    )
}

/// What decode needs to see that it is a CloudEvent, and nothing that could be a secret.
fn binary_headers(headers: &HeaderMap) -> Vec<(String, Bytes)> {
    headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("ce-") || *name == header::CONTENT_TYPE)
        .map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes())))
        .collect()
}

/// Events in one record as decode will count them: the elements of an array that is JSON to its end,
/// else 1 (what is not JSON is refused as one event).
fn parts(record: &[u8]) -> u32 {
    if record.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'[') || std::str::from_utf8(record).is_err()
    {
        return 1;
    }
    if depth(record) > MAX_DEPTH {
        return 1;
    }
    serde_json::from_slice::<Vec<IgnoredAny>>(record)
        .map_or(1, |items| u32::try_from(items.len()).unwrap_or(u32::MAX))
}

/// Containers open around the innermost value, at most.
fn depth(record: &[u8]) -> u32 {
    let (mut depth, mut most, mut text, mut escaped) = (0u32, 0u32, false, false);
    for byte in record {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b'[' | b'{' if !text => {
                depth += 1;
                most = most.max(depth);
            }
            b']' | b'}' if !text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    most
}

fn json_or_lines(body: &Bytes) -> Vec<Outgoing> {
    if serde_json::from_slice::<IgnoredAny>(body).is_ok() {
        return vec![Outgoing { value: body.clone(), headers: Vec::new(), parts: parts(body) }];
    }
    let first = body.split(|b| *b == b'\n').find(|l| !l.iter().all(u8::is_ascii_whitespace)).unwrap_or(b"");
    if serde_json::from_slice::<IgnoredAny>(first).is_ok() {
        lines(body)
    } else {
        vec![Outgoing { value: body.clone(), headers: Vec::new(), parts: 1 }]
    }
}

fn lines(body: &Bytes) -> Vec<Outgoing> {
    let mut records = Vec::new();
    for line in body.split(|b| *b == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        records.push(Outgoing { value: body.slice_ref(line), headers: Vec::new(), parts: parts(line) });
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn cut(content_type: &str, body: &str) -> Vec<(String, u32)> {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        }
        split(&headers, &Bytes::copy_from_slice(body.as_bytes()))
            .unwrap()
            .into_iter()
            .map(|r| (String::from_utf8(r.value.to_vec()).unwrap(), r.parts))
            .collect()
    }

    #[test]
    fn lines_become_records_and_arrays_parts() {
        let two = vec![("{\"a\":1}".to_owned(), 1), ("{\"a\":2}".to_owned(), 1)];
        assert_eq!(cut("application/x-ndjson", "{\"a\":1}\r\n\n{\"a\":2}\n"), two);
        assert_eq!(cut("", "{\"a\":1}\n{\"a\":2}"), two);
        assert_eq!(cut("application/json", "[{},{},{}]"), vec![("[{},{},{}]".to_owned(), 3)]);
        assert_eq!(cut("application/json", "{\n \"a\": 1\n}").len(), 1);
        assert_eq!(cut("application/json", "{\n \"a\": 1\n").len(), 1, "broken JSON is one record");
        assert_eq!(cut("application/x-ndjson", "{\"a\":1}\n{broken\n").len(), 2);
        let deep = format!("[1,{}{}]", "[".repeat(127), "]".repeat(127));
        assert_eq!(cut("application/json", &deep)[0].1, 1, "decode refuses it as one");
        assert_eq!(cut("application/json", "[1e999,2]")[0].1, 2);
    }

    #[test]
    fn nothing_is_an_error() {
        let headers = HeaderMap::new();
        for body in ["", " \n\t", "[]", "[ ]"] {
            let problem = split(&headers, &Bytes::copy_from_slice(body.as_bytes())).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.code), (400, "empty_body"), "{body:?}");
        }
    }

    #[test]
    fn binary_cloud_events_keep_their_attributes() {
        let mut headers = HeaderMap::new();
        headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
        headers.insert("ce-type", HeaderValue::from_static("order.created"));
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("authorization", HeaderValue::from_static("secret"));
        let records = split(&headers, &Bytes::from_static(b"{}")).unwrap();
        let mut names: Vec<&str> = records[0].headers.iter().map(|(n, _)| n.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["ce-specversion", "ce-type", "content-type"]);
    }
}
