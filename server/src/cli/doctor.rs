//! `streamgauge doctor`: the effective settings with their origin, and whether what they need is there.
//!
//! *In*: the settings. *Out*: a table, a list of checks, an exit code. *Never*: a change of anything; a
//! secret in clear.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use connectors::decode::DecodeSpec;
use connectors::receive::{self, Feed, Offsets, SourceStatus, State};
use serde::Serialize;
use serde_json::json;

use super::exit::{Exit, Failure, Outcome, diagnostics, io};
use super::files;
use super::out::table;
use crate::settings::{self, Settings, Transport};
use crate::sources;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 78 settings or contracts are wrong, 69 Kafka cannot be reached.")]
pub struct Args {
    /// Settings file
    #[arg(short, long, env = "STREAMGAUGE_CONFIG", default_value = settings::DEFAULT_FILE, value_name = "FILE")]
    config: PathBuf,
    /// How long a broker may take to answer, seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    Warning,
    Unreachable,
    Wrong,
}

#[derive(Debug, Serialize)]
struct Check {
    check: String,
    grade: Grade,
    detail: String,
}

impl Check {
    fn new(check: impl Into<String>, grade: Grade, detail: impl Into<String>) -> Self {
        Self { check: check.into(), grade, detail: detail.into() }
    }
}

/// Prints and checks.
pub fn run(args: Args) -> Outcome {
    let loaded = settings::load(&args.config)
        .map_err(|error| io(Exit::Config, "read the settings", &args.config, &error))?;
    let Some(settings) = &loaded.settings else {
        diagnostics(&loaded.mistakes, std::slice::from_ref(&loaded.file));
        let count = files::plural(loaded.mistakes.len(), "mistake");
        return Err(Failure::new(Exit::Config, format!("{count} in the settings")));
    };
    let mut checks = vec![Check::new("settings", Grade::Ok, args.config.display().to_string())];
    checks.extend(loaded.notices.iter().map(|n| Check::new("settings", Grade::Warning, n)));
    checks.push(check_contracts(settings));
    checks.push(check_data(&settings.data));
    checks.push(check_listen(settings));
    checks.extend(check_sources(settings, Duration::from_secs(args.timeout)));
    let exit = worst(&checks);
    if args.json {
        super::out::json(&json!({ "ok": exit == Exit::Ok, "settings": loaded.effective, "checks": checks }));
        return Ok(exit);
    }
    let rows =
        loaded.effective.iter().map(|e| vec![e.setting.clone(), e.value.clone(), e.origin.clone()]).collect();
    crate::say!("{}\n", table(&["SETTING", "VALUE", "FROM"], rows, &[]));
    for check in &checks {
        let mark = match check.grade {
            Grade::Ok => "ok  ",
            Grade::Warning => "note",
            Grade::Unreachable | Grade::Wrong => "FAIL",
        };
        crate::say!("{mark}  {}: {}", check.check, check.detail);
    }
    Ok(exit)
}

fn worst(checks: &[Check]) -> Exit {
    if checks.iter().any(|c| c.grade == Grade::Wrong) {
        Exit::Config
    } else if checks.iter().any(|c| c.grade == Grade::Unreachable) {
        Exit::Unreachable
    } else {
        Exit::Ok
    }
}

fn check_contracts(settings: &Settings) -> Check {
    let files = match files::read_all(&settings.contracts) {
        Ok(files) => files,
        Err(failure) => return Check::new("contracts", Grade::Wrong, failure.message),
    };
    let loaded = contracts::load(&files);
    let errors = loaded.diagnostics.iter().filter(|d| d.is_error()).count();
    if errors > 0 {
        let detail = format!("{}; `streamgauge check` shows them", files::summary(errors, files.len()));
        return Check::new("contracts", Grade::Wrong, detail);
    }
    if files.is_empty() {
        return Check::new("contracts", Grade::Warning, "no contract files were found");
    }
    let catalog = &loaded.catalog;
    if let Some((source, missing)) = sources::without_contract(&settings.sources, catalog).into_iter().next()
    {
        let detail = format!(
            "webhooks of source {source} make {}, which no contract takes; add pack:delivery to `contracts`",
            missing.join(", ")
        );
        return Check::new("contracts", Grade::Warning, detail);
    }
    let detail = format!(
        "{} events, {} entities, {} metrics in {} files",
        catalog.events.len(),
        catalog.entities.len(),
        catalog.metrics.len(),
        files.len()
    );
    Check::new("contracts", Grade::Ok, detail)
}

fn check_data(data: &Path) -> Check {
    let shown = data.display();
    if !data.exists() {
        let parent = data.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return match tempfile::NamedTempFile::new_in(parent) {
            Ok(_) => Check::new("data", Grade::Ok, format!("{shown} will be made at the first start")),
            Err(error) => Check::new("data", Grade::Wrong, format!("{shown} cannot be made: {error}")),
        };
    }
    if let Err(error) = tempfile::NamedTempFile::new_in(data) {
        return Check::new("data", Grade::Wrong, format!("{shown} cannot be written: {error}"));
    }
    match crate::serve::lock::Lock::take(data) {
        Ok(lock) => {
            lock.release();
            Check::new("data", Grade::Ok, format!("{shown} can be written"))
        }
        Err(failure) => Check::new("data", Grade::Warning, failure.message),
    }
}

fn check_listen(settings: &Settings) -> Check {
    let listen = settings.server.listen;
    match TcpListener::bind(listen) {
        Ok(_) => Check::new("server.listen", Grade::Ok, format!("{listen} is free")),
        Err(error) => {
            Check::new("server.listen", Grade::Warning, format!("{listen}: {error} (is a server running?)"))
        }
    }
}

fn check_sources(settings: &Settings, timeout: Duration) -> Vec<Check> {
    let mut checks = Vec::new();
    for source in &settings.sources {
        let name = format!("source {}", source.name);
        checks.push(match &source.transport {
            Transport::Http => Check::new(name, Grade::Ok, "takes POST /v1/events"),
            Transport::Hook(hook) => {
                let open = if hook.secrets.is_empty() { ", from anybody (verify: none)" } else { "" };
                let detail =
                    format!("takes {} webhooks at POST /v1/hooks/{}{open}", hook.kind.name(), source.name);
                Check::new(name, Grade::Ok, detail)
            }
            Transport::File { path } => match std::fs::File::open(path) {
                Ok(_) => Check::new(name, Grade::Ok, format!("{} can be read", path.display())),
                Err(error) => Check::new(name, Grade::Wrong, format!("{}: {error}", path.display())),
            },
            Transport::Kafka(kafka) => check_kafka(&name, kafka, timeout),
        });
    }
    checks
}

/// Connects as a source would, at the end of the topics so that nothing is read.
fn check_kafka(name: &str, kafka: &settings::Kafka, timeout: Duration) -> Check {
    let mut source = sources::kafka_source(kafka);
    source.start = connectors::receive::kafka::Start::Latest;
    source.group = None;
    let (chunks, _taken) = crossbeam_channel::bounded(1);
    let feed = Feed {
        source: name.into(),
        catalog: Arc::default(),
        decode: DecodeSpec::default(),
        chunks,
        clock: receive::wall_clock(),
    };
    let receiver = match receive::kafka::start(&source, &Offsets::new(), feed) {
        Ok(receiver) => receiver,
        Err(error) => return Check::new(name, Grade::Wrong, error.to_string()),
    };
    let started = Instant::now();
    let mut status = receiver.status();
    while status.state == State::Connecting && started.elapsed() < timeout {
        // Waiting for a real broker.
        std::thread::sleep(Duration::from_millis(50));
        status = receiver.status();
    }
    receiver.stop();
    match status.state {
        State::Connecting => {
            let error =
                status.last_error.unwrap_or_else(|| format!("no answer within {} s", timeout.as_secs()));
            Check::new(name, Grade::Unreachable, format!("{}: {error}", kafka.brokers))
        }
        State::Waiting(what) => {
            Check::new(name, Grade::Warning, format!("{} answers, but {what}", kafka.brokers))
        }
        State::Failed(error) => Check::new(name, Grade::Wrong, format!("{}: {error}", kafka.brokers)),
        _ => found(name, kafka, &status),
    }
}

fn found(name: &str, kafka: &settings::Kafka, status: &SourceStatus) -> Check {
    let mut topics: BTreeMap<&str, usize> = BTreeMap::new();
    for partition in &status.partitions {
        *topics.entry(&partition.topic).or_default() += 1;
    }
    if topics.is_empty() {
        let detail =
            format!("{} answers, but no topic matches {} yet", kafka.brokers, kafka.topics.join(", "));
        return Check::new(name, Grade::Warning, detail);
    }
    let list: Vec<String> =
        topics.iter().map(|(topic, n)| format!("{topic} ({})", files::plural(*n, "partition"))).collect();
    Check::new(name, Grade::Ok, format!("{} answers: {}", kafka.brokers, list.join(", ")))
}
