//! A shop that is killed: its folder, what feeds it, and the comparison in the calm.
//!
//! *In*: a folder, perhaps a Kafka topic. *Out*: events on their way; a verdict. *Never*: an obligation that nobody
//! acknowledged.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Server, agent, lake, log, wait};

pub(crate) mod kafka;
pub(crate) mod oracle;
mod results;
#[path = "../support/tally.rs"]
mod tally;

use kafka::Topic;
use oracle::{Numbers, Rng, Stored};

/// How long a number may take in the calm.
const CALM: Duration = Duration::from_secs(60);
const SIGABRT: i32 = 6;

/// Events of one request.
#[derive(Debug)]
struct Batch {
    /// `Idempotency-Key`: however often it is sent, its refused rows come once.
    key: Option<String>,
    numbers: Vec<u64>,
}

/// What is pushed.
#[derive(Debug, Default)]
struct Pushed {
    next: u64,
    claims: u64,
    batches: u64,
    /// Sent, the answer did not come: sent again later.
    open: Vec<Batch>,
    acked: BTreeSet<u64>,
    refused: u64,
    /// Of the last answer.
    last: Option<Answered>,
}

/// What an answer says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
}

/// A shop, and what it was told.
pub(crate) struct Shop {
    pub(crate) folder: PathBuf,
    pushed: Pushed,
    topic: Option<Topic>,
}

/// What a calm has found right.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) acknowledged: usize,
    pub(crate) numbers: usize,
    pub(crate) refused: u64,
}

impl Shop {
    /// Makes the folder; nothing of `data/` is touched.
    pub(crate) fn new(folder: &Path, topic: Option<Topic>) -> Self {
        std::fs::create_dir_all(folder.join("contracts")).unwrap();
        std::fs::write(folder.join("contracts/all.yaml"), oracle::CONTRACTS).unwrap();
        let kafka = topic.as_ref().map_or_else(String::new, |topic| {
            format!(
                "  - {{ name: broker, kafka: {{ brokers: \"{}\", topics: [{}], group: {}, start: earliest }}, \
                 format: json, envelope: {{ id: id, type: type, time: time }} }}\n",
                topic.bootstrap, topic.name, topic.name
            )
        });
        let settings = format!(
            "apiVersion: streamgauge/v1\nkind: Settings\ncontracts: [contracts/]\ndata: data/\nworkers: 2\nsources:\n  \
             - {{ name: push, http: {{}}, format: json, envelope: {{ id: id, type: type, time: time }} }}\n{kafka}\
             lake: {{ commit_every: 100ms, buckets: 2 }}\ncheckpoints: {{ every: 1s }}\naudit: {{ every: 1h }}\n"
        );
        std::fs::write(folder.join("streamgauge.yaml"), settings).unwrap();
        Self { folder: folder.to_owned(), pushed: Pushed::default(), topic }
    }

    /// Sends something; false when the server is gone.
    pub(crate) fn send(&mut self, server: &Server, rng: &mut Rng) -> bool {
        if rng.next(2) == 0
            && let Some(topic) = &mut self.topic
        {
            topic.send(rng);
        }
        let open = self.pushed.open.len() as u64;
        match open > 0 && rng.next(3) == 0 {
            true => {
                let again = self.pushed.open.swap_remove(rng.next(open) as usize);
                self.pushed.post(server, again)
            }
            false => {
                let batch = self.pushed.fresh(rng);
                self.pushed.post(server, batch)
            }
        }
    }

    /// What the last request was answered; nothing when it was not.
    pub(crate) fn answered(&self) -> Option<&Answered> {
        self.pushed.last.as_ref()
    }

    /// Every published state adds up: received = admitted + refused + duplicate + skipped, per source and type.
    pub(crate) fn adds_up(&self, server: &Server) {
        let metrics = server.text("/metrics");
        if metrics.contains("streamgauge_events_total") {
            tally::tallies(&metrics);
        }
    }

    /// Calm: open requests are sent again, everything is waited for, and compared.
    pub(crate) fn verify(&mut self, bug: &str) -> Verdict {
        let server = Server::start_with(&self.folder, &[("STREAMGAUGE_BUG", bug)]);
        for batch in std::mem::take(&mut self.pushed.open) {
            assert!(self.pushed.post(&server, batch), "calm");
        }
        assert!(self.pushed.open.is_empty(), "a calm server does not take events: {}", log(&self.folder));
        let (kafka, records, bad) = self.topic.as_ref().map(Topic::acknowledged).unwrap_or_default();
        let mut acked: BTreeSet<u64> = self.pushed.acked.union(&kafka).copied().collect();
        let claims = oracle::claims(&mut acked).len();
        let refused = self.pushed.refused + bad;
        let numbers = self.numbers(&server, &acked);
        self.counts(&server, (acked.len() + claims) as u64, refused, records);
        let said = server.get("/v1/metrics/claims?window=all")["rows"][0].clone();
        let settled = wait(CALM, || {
            let lake = &server.get("/readyz?verbose")["lake"];
            lake["waiting_rows"] == 0 && lake["trouble"].is_null() && lake["rounds"].as_u64().is_some()
        });
        assert!(settled.is_ok(), "the lake: {}", server.text("/readyz?verbose"));
        let numbers = numbers + results::verify(&self.folder, &acked);
        let damaged = server.get("/readyz?verbose")["checkpoints"]["damaged"].clone();
        assert!(damaged.as_array().is_none_or(Vec::is_empty), "damaged checkpoints: {damaged}");
        server.signal("TERM");
        assert_eq!(server.end(), Some(0), "{}", log(&self.folder));
        self.lake(&acked, refused, &said);
        assert!(claims == 0 || said["claims"] == claims, "{claims} claims: {said}");
        Verdict { acknowledged: acked.len(), numbers, refused }
    }

    /// Every number is what the acknowledged events give.
    fn numbers(&self, server: &Server, acked: &BTreeSet<u64>) -> usize {
        let (expected, questions) = (oracle::expected(acked), oracle::questions(acked));
        let served = || {
            let mut numbers = Numbers::new();
            for (at, path) in &questions {
                oracle::told(at, &server.get(path), &mut numbers);
            }
            numbers
        };
        if wait(CALM, || served() == expected).is_err() {
            let served = served();
            let keys: BTreeSet<&String> = expected.keys().chain(served.keys()).collect();
            let show = |one: Option<&String>| one.cloned().unwrap_or_else(|| "nothing".to_owned());
            let wrong: Vec<String> = keys
                .into_iter()
                .filter(|key| expected.get(*key) != served.get(*key))
                .map(|key| format!("{key}: {} instead of {}", show(served.get(key)), show(expected.get(key))))
                .collect();
            panic!("{} wrong numbers: {}\n{}", wrong.len(), wrong.join("; "), log(&self.folder));
        }
        expected.len()
    }

    /// What `/metrics` and the dead letters say.
    fn counts(&self, server: &Server, admitted: u64, refused: u64, records: u64) {
        let total = || tally::total(&server.text("/metrics"));
        let count = |what: &str| total().get(what).copied().unwrap_or(0);
        let right = wait(CALM, || count("admitted") == admitted && count("refused") == refused);
        assert!(right.is_ok(), "admitted {admitted}, refused {refused} expected: {:?}", total());
        let dead = || server.get("/v1/deadletter/stats");
        let right = wait(CALM, || dead()["total"] == refused);
        assert!(right.is_ok(), "{refused} dead letters expected: {}", dead());
        let of_kafka = tally::tallies(&server.text("/metrics")).into_iter();
        let received: u64 =
            of_kafka.filter(|((source, _), _)| source == "broker").map(|(_, tally)| tally["received"]).sum();
        assert_eq!(received, records, "records of Kafka");
    }

    /// PyIceberg and DuckDB find every row in the lake once.
    fn lake(&self, acked: &BTreeSet<u64>, refused: u64, said: &Value) {
        let found = lake(&self.folder, "read", &[]).unwrap();
        if !said.is_null() {
            let stored = &found["shop_claim"];
            let (rows, sum) = (&stored["rows"], &stored["sums"]["amount"]);
            assert_eq!(
                (rows, sum),
                (&said["claims"], &said["said"]),
                "the lake holds other copies than count"
            );
        }
        for (table, Stored { rows, cents }) in oracle::stored(acked) {
            let found = &found[table];
            assert_eq!(found["rows"], rows, "{table}: lost or twice: {found}");
            assert_eq!(found["ids"], rows, "{table}: {found}");
            if cents > 0 {
                let sum = found["sums"]["amount"].as_str().unwrap_or_default();
                assert_eq!(sum.replace('.', ""), cents.to_string(), "{table}: {found}");
            }
        }
        let dead = &found["dead_letters"];
        assert_eq!(dead["rows"].as_u64().unwrap_or(0), refused, "refused rows in the lake");
        assert_eq!(dead["places"].as_u64().unwrap_or(0), refused, "a refused row twice in the lake");
    }
}

impl Pushed {
    /// A request with a key may hold rows that are refused; one without may hold what came before.
    fn fresh(&mut self, rng: &mut Rng) -> Batch {
        let from = self.next;
        self.next += 1 + rng.next(40);
        let numbers = (from..self.next).map(|one| 2 * one);
        self.batches += 1;
        if rng.next(2) == 0 {
            return Batch { key: Some(format!("batch-{}", self.batches)), numbers: numbers.collect() };
        }
        let before = self.acked.range(..oracle::CLAIMS);
        let again: Vec<u64> = before.rev().step_by(7).take(3).copied().collect();
        let good = numbers.filter(|n| !oracle::is_bad(*n));
        let from = self.claims;
        self.claims += rng.next(4);
        let claims = (from..self.claims).map(|one| oracle::claim(one, 2));
        Batch { key: None, numbers: good.chain(again).chain(claims).collect() }
    }

    /// Sends a request; one without an answer is kept. False: the server is gone.
    fn post(&mut self, server: &Server, batch: Batch) -> bool {
        let body: Vec<String> = batch.numbers.iter().map(|n| oracle::event(*n)).collect();
        let mut post = agent().post(format!("{}/v1/events", server.url));
        if let Some(key) = &batch.key {
            post = post.header("Idempotency-Key", key);
        }
        let answer = post.send(body.join("\n"));
        self.last = answer.as_ref().ok().map(|answer| Answered {
            status: answer.status().as_u16(),
            retry_after: answer.headers().get("retry-after").map(|text| text.to_str().unwrap().to_owned()),
        });
        match answer {
            Ok(answer) if answer.status() == 202 => {
                let (bad, good): (Vec<u64>, Vec<u64>) =
                    batch.numbers.into_iter().partition(|n| oracle::is_bad(*n));
                self.refused += bad.len() as u64;
                self.acked.extend(good);
                true
            }
            answer => {
                self.open.push(batch);
                answer.is_ok()
            }
        }
    }
}

/// Waits a moment for the end of a process that does not answer any more; whether it ended by a point of its own code.
///
/// # Panics
/// When it ended in any other way: nobody had asked it to.
pub(crate) fn aborted(server: &mut Server, gone: bool, folder: &Path) -> bool {
    let until = Instant::now() + Duration::from_secs(if gone { 10 } else { 0 });
    let mut ended: Option<ExitStatus> = server.child.try_wait().unwrap();
    while ended.is_none() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
        ended = server.child.try_wait().unwrap();
    }
    let by_itself = ended.filter(|status| status.signal() != Some(SIGABRT));
    assert!(by_itself.is_none(), "the server ended by itself: {by_itself:?}\n{}", log(folder));
    ended.is_some()
}

/// A number from the environment.
pub(crate) fn number(name: &str, or: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or)
}
