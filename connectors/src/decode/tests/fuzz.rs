//! Many random records through the decoder and the reference: the same answers.

use std::collections::HashMap;

use fastrand::Rng;

use super::helper::*;
use super::reference::{self, Outcome};
use crate::decode::Decoder;

const CASES: usize = 240_000;
const PER_CHUNK: usize = 400;

const KEYS: &[&str] = &[
    "event_type",
    "event_id",
    "timestamp",
    "order_id",
    "currency",
    "total_amount",
    "items",
    "session_id",
    "viewport",
    "ratio",
    "bot",
    "day",
    "page",
    "geo",
    "wide",
    "other",
    "a_rather_long_key_that_nobody_wants",
    "ключ",
    "",
    "width",
    "quantity",
    "product_id",
];

const ODD: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-1",
    "12",
    "1.0",
    "1.10",
    "1.100",
    "1.101",
    "1e2",
    "1E+2",
    "125e-2",
    "1e-400",
    "0e400",
    "1e400",
    "-1e400",
    "1e308",
    "17976931348623157e292",
    "179769313486231581e291",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "99999999999999999999999999999999999999",
    "1234567890123456.78",
    "12345678901234567.89",
    "0.1234567890",
    "9999999999999999999999999999.9999999999",
    "01",
    "1.",
    ".5",
    "-",
    "+1",
    "1e",
    "0x1",
    "NaN",
    "Infinity",
    "\"\"",
    "\"1.50\"",
    "\"1e2\"",
    "\"-7\"",
    "\" 1\"",
    "\"01\"",
    "\"x\"",
    "\"USD\"",
    "\"U\\u0053D\"",
    "\"EUR\"",
    "\"order.created\"",
    "\"click\"",
    "\"cl\\u0069ck\"",
    "\"ORD-20260101-0001\"",
    "\"ORD-2026\"",
    "\"2026-01-01T00:00:00Z\"",
    "\"2026-01-01T00:00:00\"",
    "\"2026-01-01 00:00:00.1234567+02:00\"",
    "\"2026-01-01T00:10:00Z\"",
    "\"2026-01-01\"",
    "\"2024-02-29\"",
    "\"2025-02-29\"",
    "1767225600000",
    "1767225600000000",
    "1767225999999",
    "{}",
    "[]",
    "[[]]",
    "{\"a\":1}",
    "{\"width\":3}",
    "{\"url\":{\"path\":\"/x\"}}",
    "{\"city\":\"K\\u00f6ln\",\"tags\":[\"a\",null]}",
    "{\"city\":1,\"tags\":[1,{}],\"tags\":[]}",
    "[{\"product_id\":\"p\",\"quantity\":1,\"unit_price\":\"1.00\"}]",
    "[{\"product_id\":\"p\",\"quantity\":0}]",
    "[{\"quantity\":2,\"quantity\":3,\"x\":{\"quantity\":1}}, null, 5]",
    "[1,2,3,4]",
    "\"\\ud83d\\ude00\"",
    "\"\\ud83d\"",
    "\"\\ude00x\"",
    "\"\\u12\"",
    "\"\\x\"",
    "\"a\\\"b\\\\\"",
    "\"\\u0000\"",
    "\"ü\"",
    "\"日本語のテキスト\"",
    "\"tab\there\"",
    "\"long text of more than sixteen bytes\"",
    "nul",
    "tru",
    "\"unterminated",
];

/// Something a key like this may hold, mostly of the right kind.
fn value(key: &str, random: &mut Rng) -> String {
    if random.u8(0..10) == 0 {
        return ODD[random.usize(0..ODD.len())].to_owned();
    }
    match key {
        "event_type" => ["\"order.created\"", "\"click\"", "\"click\""][random.usize(0..3)].to_owned(),
        "event_id" => format!("\"e{}\"", random.u16(..)),
        "timestamp" => match random.u8(0..3) {
            0 => format!("{}", 1_767_225_600_000i64 - i64::from(random.u32(..))),
            1 => format!(
                "\"2025-{:02}-{:02}T0{}:00:00.{}Z\"",
                random.u8(1..13),
                random.u8(1..31),
                random.u8(0..10),
                random.u16(..)
            ),
            _ => format!("\"2025-12-{:02}T00:00:00+0{}:00\"", random.u8(1..32), random.u8(0..10)),
        },
        "order_id" => format!("\"ORD-20260101-{:05}\"", random.u16(..)),
        "currency" => ["\"RUB\"", "\"USD\"", "\"EUR\""][random.usize(0..3)].to_owned(),
        "total_amount" => format!("{}.{:02}", random.u16(..), random.u8(0..100)),
        "items" => {
            let item = |random: &mut Rng| {
                format!(
                    "{{\"product_id\":\"p{}\",\"quantity\":{},\"unit_price\":\"{}.5\"}}",
                    random.u8(..),
                    random.u16(1..1002),
                    random.u8(..)
                )
            };
            let items: Vec<String> = (0..random.usize(0..4)).map(|_| item(random)).collect();
            format!("[{}]", items.join(","))
        }
        "session_id" => format!("\"s{}\"", random.u8(..)),
        "viewport" => format!("{{\"height\":{},\"width\":{}}}", random.u8(..), random.u16(..)),
        "ratio" => format!("{}", f64::from(random.i32(..)) / 1000.0),
        "bot" => random.bool().to_string(),
        "day" => format!("\"20{:02}-{:02}-{:02}\"", random.u8(0..100), random.u8(1..13), random.u8(1..32)),
        "page" => format!("{{\"q\":[1],\"url\":{{\"path\":\"/{}\"}}}}", random.u8(0..40)),
        "geo" => "{\"tags\":[\"x\"],\"city\":\"c\"}".to_owned(),
        "wide" => format!("-{}.{}", random.u64(..), random.u32(..)),
        _ => ODD[random.usize(0..40)].to_owned(),
    }
}

fn escaped(key: &str, random: &mut Rng) -> String {
    match (key.bytes().next(), random.u8(0..40)) {
        (Some(first), 0) if first.is_ascii() => format!("\\u{:04x}{}", first, &key[1..]),
        _ => key.to_owned(),
    }
}

fn event(random: &mut Rng) -> String {
    let order = random.bool();
    let usual: &[&str] = if order {
        &["event_type", "event_id", "timestamp", "order_id", "currency", "total_amount", "items"]
    } else {
        &[
            "event_id",
            "event_type",
            "timestamp",
            "session_id",
            "viewport",
            "ratio",
            "bot",
            "day",
            "page",
            "geo",
            "wide",
        ]
    };
    let mut keys: Vec<&str> = usual.to_vec();
    match random.u8(0..6) {
        0 => random.shuffle(&mut keys),
        1 => keys.retain(|_| random.u8(0..6) > 0),
        2 => keys.insert(random.usize(0..keys.len()), KEYS[random.usize(0..KEYS.len())]),
        3 => keys.push("other"),
        _ => {}
    }
    let (colon, comma, pad) = match random.u8(0..8) {
        0 => (": ", ", ", ""),
        1 => (" :\n", "\t,\r\n", " "),
        2 if random.bool() => (":  ", ",", "\n"),
        _ => (":", ",", ""),
    };
    let kind = if order { "\"order.created\"" } else { "\"click\"" };
    let pairs: Vec<String> = keys
        .iter()
        .map(|key| {
            let held = if *key == "event_type" && random.u8(0..30) > 0 {
                kind.to_owned()
            } else {
                value(key, random)
            };
            format!("\"{}\"{colon}{held}", escaped(key, random))
        })
        .collect();
    format!("{pad}{{{pad}{}{pad}}}{pad}", pairs.join(comma))
}

fn record(random: &mut Rng) -> Vec<u8> {
    let mut text = match random.u8(0..24) {
        0 => {
            let events: Vec<String> = (0..random.usize(0..4)).map(|_| event(random)).collect();
            format!("[{}]", events.join(","))
        }
        1 => format!("[{},{}]", event(random), ODD[random.usize(0..ODD.len())]),
        2 => ODD[random.usize(0..ODD.len())].to_owned(),
        3 => format!("{}{}", event(random), ODD[random.usize(0..ODD.len())]),
        4 => {
            let deep = random.usize(120..132);
            let inner = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
            let key = KEYS[random.usize(0..KEYS.len())];
            format!("{{\"{key}\":{inner},{}", &event(random).trim_start()[1..])
        }
        _ => event(random),
    }
    .into_bytes();
    if random.u8(0..4) == 0 {
        mutate(&mut text, random);
    }
    text
}

fn mutate(text: &mut Vec<u8>, random: &mut Rng) {
    const BYTES: &[u8] = b"\"\\{}[]:,0123456789.-+eEtfnu \n\r\t\0\x1f\x7f\x80\xc3\xe2\xf0\xff";
    for _ in 0..random.usize(1..4) {
        if text.is_empty() {
            return;
        }
        let at = random.usize(0..text.len());
        let byte = BYTES[random.usize(0..BYTES.len())];
        match random.u8(0..6) {
            0 => text.truncate(at),
            1 => text[at] = byte,
            2 => text.insert(at, byte),
            3 => drop(text.remove(at)),
            4 => text[at] ^= 1 << random.u8(0..8),
            _ => {
                let end = (at + random.usize(1..30)).min(text.len());
                let part = text[at..end].to_vec();
                let to = random.usize(0..text.len());
                text.splice(to..to, part);
            }
        }
    }
}

/// What the real decoder says, by offset and part.
fn real(decoder: &mut Decoder, records: &[Vec<u8>]) -> HashMap<(i64, u32), Outcome> {
    for (offset, record) in records.iter().enumerate() {
        push(decoder, record, offset as i64);
    }
    let chunk = finish(decoder);
    let mut outcomes = HashMap::new();
    for batch in &chunk.batches {
        for at in 0..batch.offsets.len() {
            let row = row(batch, at);
            let id = id(batch, at).map(str::to_owned);
            let outcome = Outcome::Row { event: batch.event, row, id };
            assert_eq!(outcomes.insert((batch.offsets[at], batch.parts[at]), outcome), None);
        }
    }
    for (refused, reasons) in chunk.refused.iter().zip(reasons(&chunk)) {
        let outcome = Outcome::Refused(reasons);
        assert_eq!(outcomes.insert((refused.offset, refused.part), outcome), None);
    }
    outcomes
}

#[test]
fn same_answers_as_serde_json_on_random_records() {
    let mut random = Rng::with_seed(20_260_101);
    let catalog = commerce();
    let mut decoder = Decoder::new(catalog.clone(), spec());
    let (mut rows, mut malformed) = (0, 0);
    for _ in 0..CASES / PER_CHUNK {
        let records: Vec<Vec<u8>> = (0..PER_CHUNK).map(|_| record(&mut random)).collect();
        let outcomes = real(&mut decoder, &records);
        for (offset, record) in records.iter().enumerate() {
            for (part, expected) in reference::decode(record, &catalog).into_iter().enumerate() {
                let got = outcomes.get(&(offset as i64, part as u32)).unwrap_or(&Outcome::Skipped);
                assert_eq!(*got, expected, "{}", String::from_utf8_lossy(record));
                rows += usize::from(matches!(expected, Outcome::Row { .. }));
                malformed += usize::from(expected == Outcome::Refused("malformed_json".to_owned()));
            }
        }
    }
    // The corpus must not be one-sided.
    assert!(rows > CASES / 4 && malformed > CASES / 10, "{rows} rows, {malformed} malformed");
}
