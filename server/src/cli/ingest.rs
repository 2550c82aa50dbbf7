//! `streamgauge ingest FILE...`: files of events to a running server.
//!
//! *In*: NDJSON, CSV, Parquet, or NDJSON from standard input. *Out*: pushes to `POST /v1/events`, a
//! progress bar with rate and time left, and what became of the events. *Never*: an event in memory
//! beyond the batch that is being sent; a batch sent twice unless the server said it stored nothing.

mod ids;
pub mod rows;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::client::{Client, Server};
use super::exit::{Exit, Failure, Outcome};
use super::out::{on_terminal, thousands};
use crate::pace::Pace;
pub(super) use ids::Ids;
use rows::Rows;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The kind of a file follows from its name: .csv, .parquet, anything else is NDJSON; `-` reads NDJSON from\n\
    standard input. Event ids make it safe to send a file again: what is there already counts as duplicate.\n\n\
    Examples:\n  streamgauge ingest events.ndjson\n  streamgauge ingest history/*.parquet --source history\n  zcat big.ndjson.gz | streamgauge ingest -"
)]
pub struct Args {
    /// Files, or `-`
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Source of the server that takes the events; default: its first http source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Events per request
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// Exit with 1 when an event was refused
    #[arg(long)]
    strict: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// A request stays below the usual `limits.body` of 1 MiB.
const BATCH_BYTES: usize = 768 << 10;

/// Refusals shown one by one.
const SHOWN: usize = 5;

/// What became of events.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) sent: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) duplicate: u64,
    pub(super) pending: u64,
    pub(super) token: Option<String>,
    pub(super) errors: Vec<String>,
}

/// How events are sent.
#[derive(Debug)]
pub(super) struct Sending {
    /// Source of the server; `None`: its first.
    pub(super) source: Option<String>,
    /// Events per request.
    pub(super) batch: u32,
    /// The bound on events per second.
    pub(super) pace: Pace,
    /// Gives events without an id one that is the same each time.
    pub(super) ids: Option<Ids>,
}

/// Sends the files.
pub fn run(args: Args) -> Outcome {
    let client = Client::new(&args.server);
    let types = rows::FieldTypes::fetch(&client, &args.files)?;
    let started = Instant::now();
    let mut totals = Totals::default();
    let sending = Sending { source: args.source.clone(), batch: args.batch, pace: Pace::new(0), ids: None };
    for file in &args.files {
        send_file(file, &sending, &client, &types, &mut totals)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    report(args.json, &totals, seconds, &json!({}));
    Ok(if args.strict && totals.refused > 0 { Exit::Failed } else { Exit::Ok })
}

/// Sends one file.
pub(super) fn send_file(
    file: &std::path::Path,
    sending: &Sending,
    client: &Client,
    types: &rows::FieldTypes,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let mut rows = Rows::open(file, types)?;
    let bar = bar(&rows, file);
    let mut body = Vec::with_capacity(BATCH_BYTES);
    let mut held = 0;
    let (mut row, mut number) = (Vec::new(), 0);
    loop {
        row.clear();
        let more = rows.next(&mut row)?;
        if let Some(ids) = sending.ids.as_ref().filter(|_| more) {
            number += 1;
            ids.complete(file, number, &mut row);
        }
        let full = held >= sending.batch || (held > 0 && body.len() + row.len() + 1 > BATCH_BYTES);
        if full || (!more && held > 0) {
            push(sending, client, &body, held, totals)?;
            bar.set_position(rows.done());
            bar.set_message(format!(
                "{} events, {} refused",
                thousands(totals.sent),
                thousands(totals.refused)
            ));
            body.clear();
            held = 0;
        }
        if !more {
            break;
        }
        body.extend_from_slice(&row);
        body.push(b'\n');
        held += 1;
    }
    bar.finish_and_clear();
    Ok(())
}

fn bar(rows: &Rows<'_>, file: &std::path::Path) -> ProgressBar {
    let bar = match rows.total() {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let unit = if rows.counts_bytes() {
        "{bytes}/{total_bytes} {bytes_per_sec}"
    } else {
        "{pos}/{len} rows {per_sec}"
    };
    let template = match rows.total() {
        Some(_) => format!("{{prefix}} {{bar:30}} {unit} ETA {{eta}}  {{msg}}"),
        None => "{prefix} {spinner} {bytes} {bytes_per_sec}  {msg}".to_owned(),
    };
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.set_prefix(file.file_name().map_or_else(|| "-".into(), |n| n.to_string_lossy().into_owned()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn push(
    sending: &Sending,
    client: &Client,
    body: &[u8],
    held: u32,
    totals: &mut Totals,
) -> Result<(), Failure> {
    sending.pace.pass(u64::from(held));
    let query: Vec<(&str, String)> = sending.source.iter().map(|s| ("source", s.clone())).collect();
    let answer = client.push(&query, "application/x-ndjson", body).map_err(|mut failure| {
        if totals.sent > 0 {
            failure.message.push_str(&format!(
                "; {} events were acknowledged before. Send the files again: those will count as duplicates",
                thousands(totals.sent)
            ));
        }
        failure
    })?;
    let count = |key: &str| answer[key].as_u64().unwrap_or(0);
    for error in answer["errors"].as_array().into_iter().flatten() {
        if totals.errors.len() < SHOWN {
            let event = totals.sent + error["index"].as_u64().unwrap_or(0) + 1;
            totals.errors.push(format!("event {event}: {}", reasons(error)));
        }
    }
    totals.sent += u64::from(held);
    totals.accepted += count("accepted");
    totals.refused += count("refused");
    totals.duplicate += count("duplicate");
    totals.pending += count("pending");
    totals.token = answer["token"].as_str().map(str::to_owned).or(totals.token.take());
    Ok(())
}

fn reasons(error: &Value) -> String {
    let reasons = error["reasons"].as_array().map(Vec::as_slice).unwrap_or_default();
    reasons
        .iter()
        .map(|r| {
            let text = |key: &str| r[key].as_str().unwrap_or_default();
            let path = if text("path").is_empty() { String::new() } else { format!(" {}", text("path")) };
            format!("{}{path}: {}", text("code"), text("message"))
        })
        .collect::<Vec<_>>()
        .join("; ")
}

/// Says what became of the events; `more` is added to the JSON.
pub(super) fn report(as_json: bool, totals: &Totals, seconds: f64, more: &Value) {
    let rate = if seconds > 0.0 { totals.sent as f64 / seconds } else { 0.0 };
    if as_json {
        let mut told = json!({
            "sent": totals.sent,
            "accepted": totals.accepted,
            "refused": totals.refused,
            "duplicate": totals.duplicate,
            "pending": totals.pending,
            "seconds": seconds,
            "events_per_second": rate,
            "token": totals.token,
            "errors": totals.errors,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            told[key] = value.clone();
        }
        super::out::json(&told);
        return;
    }
    for error in &totals.errors {
        eprintln!("refused: {error}");
    }
    if totals.refused > totals.errors.len() as u64 {
        eprintln!(
            "refused: {} in all; GET /v1/deadletter has them with their reasons",
            thousands(totals.refused)
        );
    }
    let pending = match totals.pending {
        0 => String::new(),
        n => format!(", pending {}", thousands(n)),
    };
    crate::say!(
        "accepted {}, refused {}, duplicate {}{pending}",
        thousands(totals.accepted),
        thousands(totals.refused),
        thousands(totals.duplicate)
    );
    if on_terminal() {
        eprintln!("{} events in {seconds:.1} s, {rate:.0} events/s", thousands(totals.sent));
    }
}
