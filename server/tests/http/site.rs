//! A running server for one test.
//!
//! *In*: contracts as text. *Out*: its address, and its parts for what HTTP cannot do (drain, swap).
//! *Never*: anything left running after the test.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use connectors::decode::{DecodeSpec, Envelope};
use connectors::receive::log::{self, LogOptions, PushLog};
use connectors::receive::{Feed, Offsets, Receiver, wall_clock};
use connectors::store::dead_letters::{DeadLetters, Limits as DeadLimits};
use contracts::text::SourceFile;
use engine::{Clock, Engine, Options};
use serde_json::{Value, json};
use server::history::History;
use server::second::Keeper;
use server::settings::Audit;
use server::{App, Limits, Live, Parts, SourceProbe, router};

pub(crate) const CONTRACTS: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: order.created
version: 1.0.0
key: order_id
time: timestamp
id: event_id
fields:
  event_id: { type: string, required: true }
  timestamp: { type: timestamp, required: true }
  order_id: { type: string, required: true }
  user_id: { type: string, pii: true }
  region: { type: string }
  status: { type: string, enum: [pending, shipped, cancelled], default: pending }
  amount: { type: "decimal(18,2)", required: true, min: "0" }
rules:
  not_huge: { check: "amount <= 100000", severity: error }
enrich:
  size: "CASE WHEN amount < 50 THEN 'small' ELSE 'large' END"
---
# The live row of an order.
apiVersion: streamgauge/v1
kind: Entity
name: order
version: 1.0.0
key: order_id
events: [order.created]
fields:
  status: { last: status }
  amount: { last: amount }
  created_at: { first: time }
  seen: { count: true }
---
apiVersion: streamgauge/v1
kind: Metric
name: revenue
version: 1.2.0
title: Revenue
description: Money of orders that were not cancelled
owner: { team: shop }
events:
  orders: { type: order.created, where: "status <> 'cancelled'" }
dimensions:
  region: { from: region, default: none, max: 10, overflow: other }
  size: { from: size, max: 4, overflow: other }
measures:
  total: { agg: sum, value: amount, unit: RUB }
  orders: { agg: count }
  average: { ratio: [total, orders], unit: RUB }
  largest: { agg: max, value: amount, hidden: true }
windows:
  all: { all: true }
  1h: { sliding: 1h, every: 1m }
freshness: { p95: 1s, basis: "test" }
---
apiVersion: streamgauge/v1
kind: Metric
name: order_count
version: 1.0.0
events:
  orders: { type: order.created }
measures:
  orders: { agg: count }
windows:
  all: { all: true }
"#;

/// A server with its parts. Dropping it stops everything.
pub(crate) struct Site {
    pub(crate) app: Arc<App>,
    pub(crate) base: String,
    pub(crate) log: Arc<PushLog>,
    receiver: Option<Arc<Receiver>>,
    runtime: Option<tokio::runtime::Runtime>,
    _dir: tempfile::TempDir,
}

impl Site {
    pub(crate) fn start() -> Site {
        Site::with(CONTRACTS, Limits::default())
    }

    pub(crate) fn with(text: &str, limits: Limits) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let (app, log) = app(dir.path(), limits);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let service = router(app.clone());
        runtime.spawn(async move { axum::serve(listener, service).await });
        let mut site = Site { app, base, log, receiver: None, runtime: Some(runtime), _dir: dir };
        site.swap(text, 1);
        site
    }

    /// Runs other contracts from now on, as a reload does once the new engine has caught up.
    pub(crate) fn swap(&mut self, text: &str, generation: u64) {
        let (live, receiver) = live(&self.app, &self.log, text, generation);
        let reader = live.reader.clone();
        let end = self.log.end();
        wait_until("the engine has read the log", || {
            end == 0 || reader.load().offsets.values().any(|p| p.next >= end)
        });
        let receiver = Arc::new(receiver);
        let probe = receiver.clone();
        self.app.set_sources(vec![SourceProbe::new(move || probe.status())]);
        drop(self.app.swap(live));
        self.receiver = Some(receiver);
        let live = self.app.live().unwrap();
        wait_until("the first tick", || live.reader.load().tick > 0);
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        reply(agent().get(format!("{}{path}", self.base)).call().unwrap())
    }

    pub(crate) fn post(&self, path: &str, content_type: &str, body: &str) -> Reply {
        self.post_with(path, &[("content-type", content_type)], body)
    }

    pub(crate) fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        self.post_bytes(path, headers, body.as_bytes())
    }

    pub(crate) fn post_bytes(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = agent().post(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        reply(request.send(body).unwrap())
    }

    /// Pushes JSON events; the answer must be 202.
    pub(crate) fn push(&self, events: &[Value]) -> Value {
        let lines: String = events.iter().map(|e| format!("{e}\n")).collect();
        let reply = self.post("/v1/events", "application/x-ndjson", &lines);
        assert_eq!(reply.status, 202, "{}", reply.text);
        reply.json()
    }

    pub(crate) fn events(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        let mut request = agent().get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.call().unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events::read(response.into_body().into_reader())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.app.drain();
        if let Some(receiver) = &self.receiver {
            receiver.stop();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
        drop(self.app.take());
    }
}

fn app(dir: &Path, limits: Limits) -> (Arc<App>, Arc<PushLog>) {
    let log = PushLog::open(&dir.join("push.log"), "push", LogOptions::new(wall_clock())).unwrap();
    let dead = DeadLetters::open(&dir.join("dead"), DeadLimits::default(), wall_clock()).unwrap();
    let app = App::new(Parts {
        logs: BTreeMap::from([("push".to_owned(), log.clone())]),
        hooks: BTreeMap::from([("hook".to_owned(), open_hook())]),
        default_source: Some("push".into()),
        dead: Arc::new(dead),
        lake: None,
        history: History::open(&dir.join("contracts")),
        limits,
        settings: json!({ "workers": 1 }),
        contracts: Vec::new(),
    })
    .unwrap();
    (app, log)
}

/// A source of webhooks that takes anything, and has no log.
fn open_hook() -> Arc<server::hooks::Webhook> {
    let settings = server::settings::HookSettings {
        kind: server::settings::HookKind::Token,
        secrets: Vec::new(),
        tolerance: Duration::from_secs(300),
        adapter: None,
    };
    Arc::new(server::hooks::Webhook::new(&settings).unwrap())
}

/// A folder that no other test has; the store removes it.
fn keep_folder() -> std::path::PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("streamgauge-kept-{}-{number}", std::process::id()))
}

fn live(app: &Arc<App>, log: &Arc<PushLog>, text: &str, generation: u64) -> (Live, Receiver) {
    let texts = vec![SourceFile::new("contracts/shop.yaml", text)];
    let loaded = contracts::load(&texts);
    assert!(!loaded.has_errors(), "{}", contracts::diagnostic::render(&loaded.diagnostics));
    let catalog = Arc::new(loaded.catalog);
    let keeper = Keeper::open(&keep_folder(), generation, &catalog, &Audit::default()).unwrap();
    let hook = app.hook_with(keeper);
    let options = Options { workers: 1, keys_per_metric: 10_000, clock: Clock::Wall };
    let engine = Engine::start(catalog.clone(), options, hook.clone()).unwrap();
    engine.tap(true);
    engine.flush();
    let path = |name: &str| Some(vec![name.to_owned()]);
    let envelope = Envelope {
        id: path("event_id"),
        event_type: path("event_type"),
        time: path("timestamp"),
        tenant: None,
    };
    let feed = Feed {
        source: "push".into(),
        catalog: catalog.clone(),
        decode: DecodeSpec { envelope, ..DecodeSpec::default() },
        chunks: engine.sender(),
        clock: wall_clock(),
    };
    let receiver = log::start(log, &Offsets::new(), feed).unwrap();
    let reader = engine.reader();
    let (restored, follows) = Default::default();
    (Live { catalog, engine, reader, hook, generation, texts, restored, follows }, receiver)
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(5)))
        .build()
        .into()
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// A problem document with this status and code.
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let body = self.json();
        for member in ["type", "title", "status", "detail", "code", "errors"] {
            assert!(body.get(member).is_some(), "{member} is missing in {body}");
        }
        assert_eq!(body["code"], code, "{body}");
        body
    }

    /// The body of a 200.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }
}

fn reply(mut response: ureq::http::Response<ureq::Body>) -> Reply {
    let headers = response.headers().iter();
    let headers =
        headers.map(|(n, v)| (n.as_str().to_owned(), v.to_str().unwrap_or("").to_owned())).collect();
    let status = response.status().as_u16();
    Reply { status, headers, text: response.body_mut().read_to_string().unwrap() }
}

/// One server-sent event.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) data: String,
}

impl Message {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// Server-sent events as they come.
pub(crate) struct Events(mpsc::Receiver<Message>);

impl Events {
    fn read(from: impl std::io::Read + Send + 'static) -> Events {
        let (to, events) = mpsc::channel();
        std::thread::spawn(move || {
            let mut message = Message::default();
            for line in std::io::BufReader::new(from).lines() {
                let Ok(line) = line else { return };
                if line.is_empty() {
                    let done = std::mem::take(&mut message);
                    if !done.data.is_empty() && to.send(done).is_err() {
                        return;
                    }
                    continue;
                }
                let (field, value) = line.split_once(": ").unwrap_or((&line, ""));
                match field {
                    "event" => message.event = value.to_owned(),
                    "id" => message.id = value.to_owned(),
                    "data" => message.data.push_str(value),
                    _ => {}
                }
            }
        });
        Events(events)
    }

    /// The next event, within 5 s.
    pub(crate) fn next(&self) -> Message {
        self.0.recv_timeout(Duration::from_secs(5)).expect("an event within 5 s")
    }

    /// The next event that `wanted` accepts, within 5 s each.
    pub(crate) fn until(&self, wanted: impl Fn(&Message) -> bool) -> Message {
        loop {
            let message = self.next();
            if wanted(&message) {
                return message;
            }
        }
    }

    /// No event comes for `time`.
    pub(crate) fn silent(&self, time: Duration) {
        if let Ok(message) = self.0.recv_timeout(time) {
            panic!("unexpected event {message:?}");
        }
    }

    /// The stream has ended (within 5 s).
    pub(crate) fn ended(&self) {
        match self.0.recv_timeout(Duration::from_secs(5)) {
            Err(mpsc::RecvTimeoutError::Disconnected) => {}
            other => panic!("the stream goes on: {other:?}"),
        }
    }
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within 10 s: {what}");
}

/// An order of now.
pub(crate) fn order(id: &str, amount: &str, region: &str) -> Value {
    order_at(id, amount, region, jiff::Timestamp::now())
}

pub(crate) fn order_at(id: &str, amount: &str, region: &str, at: jiff::Timestamp) -> Value {
    json!({
        "event_id": format!("evt-{id}"),
        "event_type": "order.created",
        "timestamp": at.to_string(),
        "order_id": id,
        "user_id": "user-7",
        "region": region,
        "status": "pending",
        "amount": amount,
    })
}
