//! `streamgauge backfill`: a running server reads history.
//!
//! *In*: the lake or what is retained (the server reads), or files (sent from here). *Out*: progress, and what became of
//! it. *Never*: an event sent faster than `--rate`; an event without an id sent without one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::client::{Client, Server};
use super::exit::{Exit, Failure, Outcome};
use super::ingest::{self, Ids, Sending, Totals, rows};
use super::out::thousands;
use crate::pace::Pace;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The server reads beside live traffic, at most `limits.backfill` rows per second, and answers with the new state once\n\
    that has everything the old one had. Without arguments: how the last backfill went or goes.\n\n\
    Examples:\n  streamgauge backfill --from lake          # the lake, then what Kafka and the log keep\n  streamgauge backfill --from beginning     # only what Kafka and the log keep\n  streamgauge backfill 2025/*.parquet --rate 20000"
)]
pub struct Args {
    /// Files of events: .csv, .parquet, anything else is NDJSON
    #[arg(value_name = "FILE", conflicts_with = "from")]
    files: Vec<PathBuf>,
    /// Where the server is to read from
    #[arg(long, value_name = "WHERE", value_parser = ["lake", "beginning"])]
    from: Option<String>,
    /// Do not wait for the end of what the server reads
    #[arg(long, requires = "from")]
    detach: bool,
    /// Events per second sent from files; 0: as fast as the server takes them
    #[arg(long, default_value_t = 50_000, value_name = "EVENTS")]
    rate: u64,
    /// Source of the server that takes the events of files; default: its first http source
    #[arg(long, value_name = "NAME", requires = "files")]
    source: Option<String>,
    /// Where in an event its id is; default: where the server's settings say
    #[arg(long, value_name = "PATH", requires = "files")]
    id: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Events per request.
const BATCH: u32 = 1_000;
/// How often the server is asked.
const LOOK: Duration = Duration::from_millis(500);

/// Starts or shows a backfill, or sends files.
pub fn run(args: Args) -> Outcome {
    let client = Client::new(&args.server);
    match &args.from {
        Some(from) => {
            client.post("/v1/backfill", &json!({ "from": from }))?;
            match args.detach {
                true => show(&client, args.json),
                false => follow(&client, args.json),
            }
        }
        None if args.files.is_empty() => show(&client, args.json),
        None => send(&args, &client),
    }
}

/// How the last one went or goes.
fn show(client: &Client, as_json: bool) -> Outcome {
    let told = client.get("/v1/backfill", &[])?;
    Ok(tell(&told, as_json))
}

fn tell(told: &Value, as_json: bool) -> Exit {
    let one = &told["backfill"];
    let text = |key: &str| one[key].as_str().unwrap_or_default();
    match (as_json, one.is_null()) {
        (true, _) => super::out::json(told),
        (false, true) => crate::say!("there was no backfill since the server started"),
        (false, false) => {
            crate::say!(
                "backfill {} from {}: {}: {}",
                one["number"],
                text("from"),
                text("state"),
                text("message")
            );
        }
    }
    if text("state") == "failed" { Exit::Failed } else { Exit::Ok }
}

/// Waits for its end.
fn follow(client: &Client, as_json: bool) -> Outcome {
    let bar = ProgressBar::new_spinner();
    loop {
        let told = client.get("/v1/backfill", &[]).map_err(|failure| {
            let help =
                "a backfill ends with its server, and the numbers stay as they were; ask again once it runs";
            Failure { help: Some(help.into()), ..failure }
        })?;
        if !matches!(told["backfill"]["state"].as_str(), Some("waiting" | "running")) {
            bar.finish_and_clear();
            return Ok(tell(&told, as_json));
        }
        bar.set_message(told["backfill"]["message"].as_str().unwrap_or_default().to_owned());
        bar.tick();
        // The server does the work.
        std::thread::sleep(LOOK);
    }
}

fn send(args: &Args, client: &Client) -> Outcome {
    // Before anything is sent: a name that is wrong must not be found in the middle.
    for file in &args.files {
        if let Err(error) = std::fs::File::open(file) {
            let failure = Failure::new(Exit::Usage, format!("cannot read {}: {error}", file.display()));
            return Err(failure.help("nothing was sent; name files that are there, or `--from lake`"));
        }
    }
    let ids = match &args.id {
        Some(path) => Ids::at(path),
        None => Ids::at(&id_path(client, args.source.as_deref())?),
    };
    let types = rows::FieldTypes::fetch(client, &args.files)?;
    let before = lost(client)?;
    let started = Instant::now();
    let sending =
        Sending { source: args.source.clone(), batch: BATCH, pace: Pace::new(args.rate), ids: Some(ids) };
    let mut totals = Totals::default();
    for file in &args.files {
        ingest::send_file(file, &sending, client, &types, &mut totals)?;
    }
    settle(client, &totals)?;
    let mut late = lost(client)?;
    for (of, count) in &mut late {
        *count = count.saturating_sub(before.get(of).copied().unwrap_or(0));
    }
    late.retain(|_, count| *count > 0);
    let told: Vec<Value> = late
        .iter()
        .map(|((metric, reason), count)| json!({ "metric": metric, "reason": reason, "events": count }))
        .collect();
    ingest::report(args.json, &totals, started.elapsed().as_secs_f64(), &json!({ "not_counted": told }));
    if !args.json {
        for ((metric, reason), count) in &late {
            crate::say!(
                "metric {metric} did not count {} of the admitted events: {reason}",
                thousands(*count)
            );
        }
    }
    Ok(Exit::Ok)
}

/// Where the settings of the server say that ids are.
fn id_path(client: &Client, source: Option<&str>) -> Result<String, Failure> {
    let ready = client.get_any("/readyz?verbose")?;
    let settings = ready["settings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted =
        source.map_or_else(|| ".envelope.id".to_owned(), |name| format!("sources.{name}.envelope.id"));
    let is_id = |one: &&Value| one["setting"].as_str().is_some_and(|setting| setting.ends_with(&wanted));
    let paths: BTreeSet<&str> =
        settings.iter().filter(is_id).filter_map(|one| one["value"].as_str()).collect();
    match paths.iter().next() {
        Some(path) if paths.len() == 1 => Ok((*path).to_owned()),
        _ => Err(Failure::new(Exit::Usage, "the sources of the server have their ids in different places")
            .help("say where the id of these events is: --id PATH")),
    }
}

/// Waits until what was sent is in the numbers.
fn settle(client: &Client, totals: &Totals) -> Result<(), Failure> {
    let Some(token) = &totals.token else { return Ok(()) };
    let metrics = client.get("/v1/metrics", &[])?;
    let Some(name) = metrics["metrics"][0]["name"].as_str() else { return Ok(()) };
    let query = [("after", token.clone()), ("wait", "30s".to_owned())];
    client.get(&format!("/v1/metrics/{name}"), &query).map(drop)
}

/// Admitted events that metrics did not count so far, by metric and reason.
fn lost(client: &Client) -> Result<BTreeMap<(String, String), u64>, Failure> {
    let text = client.text("/metrics")?;
    let mut found = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("streamgauge_metric_lost_total{")) {
        let Some((labels, count)) = line.rsplit_once("} ") else { continue };
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        if let (Some(metric), Some(reason), Ok(count)) = (label("metric"), label("reason"), count.parse()) {
            found.insert((metric, reason), count);
        }
    }
    Ok(found)
}
