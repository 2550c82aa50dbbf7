//! The server under test: `streamgauge serve` on a folder of its own.
//!
//! *In*: the binary. *Out*: its address and process. *Never*: settings from the environment, a process or
//! a file left behind.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::broker::Broker;
use super::{Options, PATIENCE};
use crate::answers::Cell;
use crate::error::Error;

/// What is asked for.
pub(crate) const METRIC: &str = "orders_live";
const CONTRACTS: &str = include_str!("../../contracts/freshness.yaml");

/// A running server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    url: String,
    errors: PathBuf,
}

impl Server {
    /// Starts it and waits until it answers.
    pub(crate) fn start(options: &Options, broker: Option<&Broker>, folder: &Path) -> Result<Self, Error> {
        Self::start_as(options, &settings(options, broker, folder), folder)
    }

    /// The same with settings of one's own.
    pub(crate) fn start_as(options: &Options, settings: &Value, folder: &Path) -> Result<Self, Error> {
        let contracts = folder.join("contracts");
        std::fs::create_dir_all(&contracts).map_err(Error::file("make", &contracts))?;
        write(&contracts.join("freshness.yaml"), CONTRACTS)?;
        // JSON is YAML.
        let text = settings.to_string();
        let settings = folder.join("streamgauge.yaml");
        write(&settings, &text)?;
        let (output, errors) = (folder.join("serve.out"), folder.join("serve.err"));
        let mut command = Command::new(&options.binary);
        command.arg("serve").arg("-c").arg(&settings).stdin(Stdio::null());
        command.stdout(File::create(&output).map_err(Error::file("write", &output))?);
        command.stderr(File::create(&errors).map_err(Error::file("write", &errors))?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STREAMGAUGE_") {
                command.env_remove(name);
            }
        }
        let child = command.spawn().map_err(Error::file("start", &options.binary))?;
        let mut server = Self { child, url: String::new(), errors };
        server.wait(options, &output)?;
        Ok(server)
    }

    fn wait(&mut self, options: &Options, output: &Path) -> Result<(), Error> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if options.stopped() {
                return Err(Error::Interrupted);
            }
            let ended = self.child.try_wait().map_err(|error| Error::Process(format!("`serve`: {error}")))?;
            if let Some(status) = ended {
                return Err(Error::Process(format!("`serve` ended with {status}: {}", self.last_words())));
            }
            let text = std::fs::read_to_string(output).unwrap_or_default();
            let address = text.split_once("listens on ").and_then(|(_, rest)| rest.split_once('\n'));
            if let Some((url, _)) = address {
                self.url = url.trim().to_owned();
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(Error::Unreachable(format!("`serve` did not listen within a minute: {}", self.last_words())))
    }

    /// The end of its standard error.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.errors).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with SIGTERM; how long that took.
    pub(crate) fn end(mut self) -> Result<Duration, Error> {
        let began = Instant::now();
        let sent = Command::new("kill").arg(self.child.id().to_string()).status();
        let sent = sent.map_err(|error| Error::Process(format!("`kill`: {error}")))?;
        let ended = self.child.wait().map_err(|error| Error::Process(format!("`serve`: {error}")))?;
        if sent.success() && ended.success() {
            return Ok(began.elapsed());
        }
        Err(Error::Process(format!("`serve` ended with {ended}: {}", self.last_words())))
    }

    /// The metric's answers by region must be the truth.
    pub(crate) fn check(&self, truth: &BTreeMap<&'static str, Cell>) -> Result<(), Error> {
        let url = format!("{}/v1/metrics/{METRIC}?window=all&by=region&limit=1000", self.url);
        let lost = |error: ureq::Error| Error::Unreachable(format!("{url}: {error}"));
        let mut response = agent(PATIENCE).get(&url).call().map_err(lost)?;
        let answer: Value = response.body_mut().read_json().map_err(lost)?;
        let differences = differences(truth, &answer);
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::Differs { program: "serve".to_owned(), differences })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its data is thrown away, so there is nothing to end in order. An error: it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection that is kept; an answer is an answer, whatever its status.
pub(crate) fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(timeout))
        .proxy(None)
        .no_delay(true)
        .build()
        .new_agent()
}

/// Pushes events to `url`; they are acknowledged once this returns.
pub(crate) fn push(agent: &ureq::Agent, url: &str, body: &[u8]) -> Result<(), Error> {
    let refused = |what: String| Error::Unreachable(format!("the server took no events: {what}"));
    let request = agent.post(url).content_type("application/x-ndjson");
    let mut answer = request.send(body).map_err(|error| refused(error.to_string()))?;
    // Read to the end, so that the connection is kept.
    let text = answer.body_mut().read_to_string().map_err(|error| refused(error.to_string()))?;
    if answer.status() == 202 { Ok(()) } else { Err(refused(text)) }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(Error::file("write", path))
}

/// Settings with one source, which is `broker` or HTTP.
pub(crate) fn settings(options: &Options, broker: Option<&Broker>, folder: &Path) -> Value {
    let envelope = json!({ "id": "event_id", "type": "event_type", "time": "ts" });
    let source = match broker {
        Some(broker) => json!({
            "name": "orders",
            "kafka": { "brokers": broker.brokers, "topics": [broker.topic], "group": broker.topic, "start": "earliest" },
            "format": "json",
            "envelope": envelope,
        }),
        None => json!({ "name": "push", "http": {}, "format": "json", "envelope": envelope }),
    };
    json!({
        "apiVersion": "streamgauge/v1",
        "kind": "Settings",
        "contracts": ["contracts"],
        "data": folder.join("data"),
        "workers": options.workers,
        "server": { "listen": "127.0.0.1:0" },
        "sources": [source],
    })
}

/// How an answer by region differs from what was sent.
fn differences(truth: &BTreeMap<&'static str, Cell>, answer: &Value) -> Vec<String> {
    let rows = answer["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found: BTreeMap<&str, &Value> =
        rows.iter().filter_map(|row| Some((row["region"].as_str()?, row))).collect();
    let mut differences = Vec::new();
    for (region, cell) in truth {
        let revenue = match cell.n {
            0 => Value::Null,
            _ => Value::from(format!("{}.{:02}", cell.revenue / 100, cell.revenue % 100)),
        };
        let wanted = [
            ("seen", Value::from(cell.events())),
            ("revenue", revenue),
            ("n", Value::from(cell.n)),
            ("bad_amount", Value::from(cell.bad_amount)),
            ("bad_status", Value::from(cell.bad_status)),
        ];
        let row = found.get(region).copied().unwrap_or(&Value::Null);
        for (measure, wanted) in wanted.iter().filter(|(measure, wanted)| row[*measure] != *wanted) {
            differences.push(format!("{region} {measure}: expected {wanted}, found {}", row[*measure]));
        }
    }
    if found.len() != truth.len() {
        differences.push(format!("{} regions instead of {}", found.len(), truth.len()));
    }
    differences.truncate(5);
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_are_sound() {
        let loaded = contracts::load(&[contracts::SourceFile::new("freshness.yaml", CONTRACTS)]);
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        let metric = loaded.catalog.metric_index(METRIC).map(|index| &loaded.catalog.metrics[index]).unwrap();
        assert_eq!(metric.measures.iter().find(|m| !m.hidden).unwrap().name, "seen");
    }

    #[test]
    fn answers_are_held_against_the_truth() {
        let cell = Cell { revenue: 1050, n: 2, bad_amount: 1, bad_status: 0, avg: None };
        let truth = BTreeMap::from([("eu", cell)]);
        let row = json!({ "region": "eu", "seen": 3, "revenue": "10.50", "n": 2, "bad_amount": 1, "bad_status": 0 });
        assert!(differences(&truth, &json!({ "rows": [row] })).is_empty());
        let mut other = row;
        other["revenue"] = json!("10.51");
        let found = differences(&truth, &json!({ "rows": [other] }));
        assert_eq!(found, ["eu revenue: expected \"10.50\", found \"10.51\""]);
        assert!(!differences(&truth, &json!({ "rows": [] })).is_empty());
    }
}
