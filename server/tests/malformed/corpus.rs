//! `corpus.txt`, through POST /v1/events one by one and all at once, through `ingest` and through a file source.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use server::Limits;

use crate::site::{Site, wait_until};
use crate::{CONTRACTS, patient, support, tally};

/// One line of the corpus.
struct Case {
    content_type: String,
    /// As written.
    text: String,
    /// What becomes of its events, in order; or of the request.
    expected: Vec<String>,
}

impl Case {
    /// The bytes to send; `round` keeps the ids of several sendings apart.
    fn body(&self, number: usize, round: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (mut rest, mut events) = (self.text.as_str(), 0);
        while let Some(first) = rest.chars().next() {
            if let Some((times, text, after)) = repeated(rest) {
                bytes.extend(text.as_bytes().repeat(times));
                rest = after;
            } else if let Some(hex) = rest.strip_prefix("\\x") {
                bytes.push(u8::from_str_radix(&hex[..2], 16).unwrap());
                rest = &hex[2..];
            } else if let Some(after) = rest.strip_prefix('@').filter(|a| a.starts_with('"')) {
                let now = jiff::Timestamp::now();
                let id = format!("{round}-{number}-{events}");
                let envelope = format!(r#"{{"event_type":"note","event_id":"{id}","timestamp":"{now}","#);
                bytes.extend(envelope.as_bytes());
                events += 1;
                rest = after;
            } else {
                bytes.extend(first.to_string().as_bytes());
                rest = &rest[first.len_utf8()..];
            }
        }
        bytes
    }

    /// Whether it is the same one event however it comes, and can stand in a line.
    fn is_a_line(&self) -> bool {
        let one = self.expected.len() == 1 && !self.expected[0].starts_with(char::is_numeric);
        // At the start of a file or a body a byte order mark means nothing, elsewhere it is wrong.
        one && self.content_type == "application/json" && !self.text.starts_with("\\xef\\xbb\\xbf")
    }
}

/// `<<N*text>>` at the start of `text`.
fn repeated(text: &str) -> Option<(usize, &str, &str)> {
    let (inside, after) = text.strip_prefix("<<")?.split_once(">>")?;
    let (times, text) = inside.split_once('*')?;
    Some((times.parse().ok()?, text, after))
}

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/malformed/corpus.txt")
}

fn read() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut content_type = String::new();
    for line in std::fs::read_to_string(path()).unwrap().lines() {
        if let Some(named) = line.strip_prefix("== ") {
            content_type = named.to_owned();
        } else if let Some(expected) = line.strip_prefix("    ") {
            cases.last_mut().unwrap().expected.push(expected.to_owned());
        } else if !line.is_empty() && !line.starts_with("# ") && line != "#" {
            cases.push(Case {
                content_type: content_type.clone(),
                text: line.to_owned(),
                expected: Vec::new(),
            });
        }
    }
    cases
}

/// Writes the outcomes behind the bodies.
fn write(outcomes: &[Vec<String>]) {
    let text = std::fs::read_to_string(path()).unwrap();
    let mut outcomes = outcomes.iter();
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.starts_with("    ")) {
        out += &format!("{line}\n");
        if !line.is_empty() && !line.starts_with("# ") && line != "#" && !line.starts_with("== ") {
            out.extend(outcomes.next().unwrap().iter().map(|outcome| format!("    {outcome}\n")));
        }
    }
    std::fs::write(path(), out).unwrap();
}

/// A refused event as the answer to its push names it.
struct Refusal {
    case: usize,
    offset: i64,
    part: u64,
    reasons: Value,
}

#[test]
fn every_record_is_counted_in_exactly_one_place_and_kept_as_it_came() {
    let site = Site::with(CONTRACTS, patient());
    let cases = read();
    let (mut outcomes, mut refusals, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
    let mut sums = BTreeMap::from([("accepted", 0), ("refused", 0), ("duplicate", 0)]);
    for (number, case) in cases.iter().enumerate() {
        let body = case.body(number, "one");
        let reply = site.post_bytes("/v1/events", &[("content-type", &case.content_type)], &body);
        outcomes.push(match reply.status {
            202 => {
                let answer = reply.json();
                sums.iter_mut().for_each(|(name, sum)| *sum += answer[*name].as_u64().unwrap());
                assert_eq!(answer["pending"], 0, "{}: {answer}", case.text);
                refusals.extend(refused(number, &answer));
                of_events(&answer)
            }
            status => vec![format!("{status} {}", reply.json()["code"].as_str().unwrap())],
        });
        bodies.push(body);
    }
    if std::env::var_os("UPDATE").is_some() {
        write(&outcomes);
    } else {
        for (case, outcome) in cases.iter().zip(&outcomes) {
            assert_eq!(*outcome, case.expected, "{} {}", case.content_type, case.text);
        }
    }
    let total = tally::total(&site.get("/metrics").text);
    assert_eq!(total["received"], sums.values().sum::<u64>(), "{total:?} {sums:?}");
    assert_eq!(
        [total["admitted"], total["refused"], total["duplicate"], total["skipped"]],
        [sums["accepted"], sums["refused"], sums["duplicate"], 0]
    );
    assert_eq!(site.get("/v1/metrics/notes").ok()["value"], sums["accepted"]);
    let fates = json!([
        { "outcome": "admitted", "rows": sums["accepted"] },
        { "outcome": "refused", "rows": sums["refused"] },
    ]);
    assert_eq!(site.get("/v1/metrics/fates?by=outcome").ok()["rows"], fates);
    kept(&site, &cases, &bodies, &refusals);
}

fn refused(case: usize, answer: &Value) -> Vec<Refusal> {
    let refusal = |e: &Value| Refusal {
        case,
        offset: e["offset"].as_i64().unwrap(),
        part: e["part"].as_u64().unwrap(),
        reasons: e["reasons"].clone(),
    };
    answer["errors"].as_array().unwrap().iter().map(refusal).collect()
}

/// What became of each event of a push; ours are never refused and admitted at once.
fn of_events(answer: &Value) -> Vec<String> {
    let count = |name: &str| answer[name].as_u64().unwrap() as usize;
    let events = count("accepted") + count("refused") + count("duplicate");
    let other = if count("duplicate") > 0 { "duplicate" } else { "accepted" };
    let mut outcomes = vec![other.to_owned(); events];
    for error in answer["errors"].as_array().unwrap() {
        let reason = |r: &Value| {
            let (code, path) = (r["code"].as_str().unwrap(), r["path"].as_str().unwrap());
            format!("{code} {path}").trim_end().to_owned()
        };
        let reasons: Vec<String> = error["reasons"].as_array().unwrap().iter().map(reason).collect();
        outcomes[error["index"].as_u64().unwrap() as usize] = format!("refused: {}", reasons.join("; "));
    }
    assert_eq!(outcomes.iter().filter(|o| *o == other).count() + count("refused"), events, "{answer}");
    outcomes
}

/// Each refusal is one dead letter, with the same reasons and the bytes that were sent.
fn kept(site: &Site, cases: &[Case], bodies: &[Vec<u8>], refusals: &[Refusal]) {
    let letters = letters(site, refusals.len());
    for refusal in refusals {
        let item = &letters[&(refusal.offset, refusal.part)];
        let text = &cases[refusal.case].text;
        assert_eq!(item["reasons"], refusal.reasons, "{text}");
        let detail = site.get(&format!("/v1/deadletter/{}", item["event_id"].as_str().unwrap())).ok();
        let payload = detail["payload_text"].as_str().unwrap();
        let payload = match detail["payload_encoding"].as_str() {
            Some("text") => payload.as_bytes().to_vec(),
            _ => STANDARD.decode(payload).unwrap(),
        };
        let body = &bodies[refusal.case];
        let alone = refusals.iter().filter(|r| r.case == refusal.case).count() == 1;
        if alone && cases[refusal.case].expected.len() == 1 && !body.starts_with(b"[") {
            let sent = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
            assert_eq!(payload, sent.trim_ascii(), "{text}");
        }
        // Of several in one body, each is there as it stood.
        assert!(body.windows(payload.len()).any(|part| part == payload), "{text}: {payload:?}");
    }
}

/// All dead letters by offset and part; there must be `count`.
fn letters(site: &Site, count: usize) -> BTreeMap<(i64, u64), Value> {
    let list = |page: usize| site.get(&format!("/v1/deadletter?page_size=100&page={page}")).ok();
    wait_until("all dead letters are kept", || list(1)["pagination"]["total"] == count);
    let mut letters = BTreeMap::new();
    for page in 1..=count.div_ceil(100) {
        for item in list(page)["items"].as_array().unwrap() {
            let place = &item["position"];
            let place = (place["offset"].as_i64().unwrap(), place["part"].as_u64().unwrap());
            assert!(letters.insert(place, item.clone()).is_none(), "{place:?} twice");
        }
    }
    assert_eq!(letters.len(), count);
    letters
}

/// All cases that fit in a line, with what they must come to.
fn all_lines(cases: &[Case], round: &str) -> (Vec<u8>, BTreeMap<&'static str, u64>) {
    let mut lines = Vec::new();
    let mut expected = BTreeMap::from([("accepted", 0), ("refused", 0), ("duplicate", 0)]);
    for (number, case) in cases.iter().enumerate().filter(|(_, case)| case.is_a_line()) {
        let body = case.body(number, round);
        // An event's own id is no other in another round, and empty lines are no records.
        if body.contains(&b'\n') || (case.expected[0] == "accepted" && !case.text.starts_with('@')) {
            continue;
        }
        let outcome = if case.expected[0] == "accepted" { "accepted" } else { "refused" };
        *expected.get_mut(outcome).unwrap() += 1;
        lines.extend(body);
        lines.push(b'\n');
    }
    assert!(expected["accepted"] > 10 && expected["refused"] > 80, "{expected:?}");
    (lines, expected)
}

#[test]
fn all_lines_at_once_are_told_apart() {
    let site = Site::with(CONTRACTS, Limits { body: 8 << 20, ..patient() });
    let (lines, expected) = all_lines(&read(), "all");
    let reply = site.post_bytes("/v1/events", &[("content-type", "application/x-ndjson")], &lines);
    assert_eq!(reply.status, 202, "{}", reply.text);
    let answer = reply.json();
    for (name, count) in &expected {
        assert_eq!(answer[*name], json!(count), "{name}: {answer}");
    }
    assert_eq!((&answer["pending"], answer["errors"].as_array().unwrap().len()), (&json!(0), 100));
    letters(&site, expected["refused"] as usize);
}

const SETTINGS: &str = "
apiVersion: streamgauge/v1
kind: Settings
contracts: [contracts/]
sources:
  - { name: push, http: {} }
  - { name: history, file: { path: history.ndjson } }
limits: { body: 8MiB }
";

#[test]
fn a_file_source_and_ingest_count_alike() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("contracts")).unwrap();
    std::fs::write(folder.path().join("contracts/notes.yaml"), CONTRACTS).unwrap();
    std::fs::write(folder.path().join("streamgauge.yaml"), SETTINGS).unwrap();
    let cases = read();
    let (history, expected) = all_lines(&cases, "file");
    std::fs::write(folder.path().join("history.ndjson"), history).unwrap();
    let server = support::Server::start(folder.path());

    let (lines, _) = all_lines(&cases, "ingest");
    std::fs::write(folder.path().join("more.ndjson"), lines).unwrap();
    let said = support::ok(folder.path(), &["ingest", "more.ndjson", "--url", &server.url]);
    let counts = format!("accepted {}, refused {}, duplicate 0", expected["accepted"], expected["refused"]);
    assert_eq!(said.trim(), counts);

    for source in ["history", "push"] {
        let mut sum = tally::Tally::new();
        for ((_, _), tally) in
            tally::tallies(&server.text("/metrics")).iter().filter(|((s, _), _)| s == source)
        {
            tally.iter().for_each(|(outcome, n)| *sum.entry(outcome.clone()).or_default() += n);
        }
        let got = [sum["admitted"], sum["refused"], sum["duplicate"], sum["skipped"]];
        assert_eq!(got, [expected["accepted"], expected["refused"], 0, 0], "{source}");
        let total = || server.get(&format!("/v1/deadletter?source={source}"))["pagination"]["total"].clone();
        wait_until("all dead letters are kept", || total() == expected["refused"]);
    }
    assert_eq!(server.get("/v1/metrics/notes")["value"], 2 * expected["accepted"]);
}
