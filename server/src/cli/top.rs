//! `streamgauge top`: all metrics and sources of a running server, refreshed in place.
//!
//! *In*: the server's lists of metrics and sources. *Out*: a table, again and again on a terminal, once in a
//! pipe. *Never*: a change of anything.

use std::time::Duration;

use serde_json::Value;

use super::client::{Client, Server};
use super::exit::{Exit, Failure, Outcome};
use super::out::{cell, on_terminal, table};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  streamgauge top\n  streamgauge top --once          # one picture, for pipes and scripts\n  streamgauge top --every 5"
)]
pub struct Args {
    /// Print one picture and stop; the default when standard output is not a terminal
    #[arg(long)]
    once: bool,
    /// Seconds between pictures
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds)]
    every: f64,
    /// Print one picture as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

fn seconds(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "a number of seconds is needed".to_owned())?;
    if (0.1..=3600.0).contains(&number) { Ok(number) } else { Err("from 0.1 to 3600 seconds".into()) }
}

/// Shows pictures until interrupted.
pub fn run(args: Args) -> Outcome {
    let client = Client::new(&args.server);
    if args.json {
        let (metrics, health) = fetch(&client)?;
        super::out::json(&serde_json::json!({ "metrics": metrics["metrics"], "health": health }));
        return Ok(Exit::Ok);
    }
    let once = args.once || !on_terminal();
    loop {
        let text = fetch(&client).map(|(metrics, health)| picture(client.base(), &metrics, &health));
        if once {
            crate::say!("{}", text?);
            return Ok(Exit::Ok);
        }
        // Home, then clear what is below: no flicker. A server that is away may come back.
        let text = text.unwrap_or_else(|failure| failure.message);
        crate::say!("\x1b[H\x1b[J{text}\n\nCtrl-C ends");
        // A terminal picture is refreshed by the clock.
        std::thread::sleep(Duration::from_secs_f64(args.every));
    }
}

fn fetch(client: &Client) -> Result<(Value, Value), Failure> {
    let mut catalog = client.get("/v1/catalog", &[])?;
    catalog["history"] = client.get("/v1/backfill", &[])?;
    Ok((client.get("/v1/metrics", &[])?, catalog))
}

fn picture(base: &str, metrics: &Value, catalog: &Value) -> String {
    let mut text = format!("{base}  as of {}", cell(&metrics["as_of"]));
    let rows: Vec<Vec<String>> =
        metrics["metrics"].as_array().into_iter().flatten().map(metric_row).collect();
    text.push_str("\n\n");
    if rows.is_empty() {
        text.push_str("no metrics: the contracts hold none\n");
    } else {
        text.push_str(&table(
            &["METRIC", "VALUE", "UNIT", "WINDOW", "NEWEST EVENT", "FRESH", "STATE"],
            rows,
            &[1],
        ));
        text.push('\n');
    }
    let sources: Vec<Vec<String>> = catalog["streaming_sources"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, source)| {
            let status = source["status"]["state"].as_str().or_else(|| source["status"].as_str());
            let message = source["status"]["message"].as_str().or_else(|| source["message"].as_str());
            vec![
                name.clone(),
                cell(&source["kind"]),
                status.unwrap_or("-").to_owned(),
                message.unwrap_or("").to_owned(),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(&["SOURCE", "KIND", "STATE", ""], sources, &[]));
    let behind = catalog["history"]["catching_up"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !behind.is_empty() {
        let row = |s: &Value| {
            let text = |key: &str| s[key].as_str().unwrap_or_default().to_owned();
            vec![text("name"), text("kind"), text("state"), text("message")]
        };
        text.push('\n');
        text.push_str(&table(&["CATCHING UP", "KIND", "STATE", ""], behind.iter().map(row).collect(), &[]));
    }
    text
}

fn metric_row(metric: &Value) -> Vec<String> {
    let age = metric["freshness"]["newest_event"]["age_seconds"].as_f64();
    let state = match (metric["error"].as_str(), metric["level"].as_str(), metric["complete"].as_bool()) {
        (Some(error), _, _) => error.to_owned(),
        (_, Some(level), _) => level.to_owned(),
        (_, _, Some(true)) => "complete".to_owned(),
        _ => "moving".to_owned(),
    };
    vec![
        cell(&metric["name"]),
        cell(&metric["value"]),
        metric["unit"].as_str().unwrap_or_default().to_owned(),
        cell(&metric["window"]),
        age.map_or_else(|| "none yet".into(), ago),
        metric["freshness"]["fresh_ms"].as_f64().map_or_else(|| "-".into(), |ms| format!("{ms:.0} ms")),
        state,
    ]
}

fn ago(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "now".into(),
        s if s < 120.0 => format!("{s:.0} s ago"),
        s if s < 7200.0 => format!("{:.0} min ago", s / 60.0),
        s => format!("{:.0} h ago", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn one_picture() {
        let metrics = json!({"as_of": "2026-03-02T10:00:00Z", "metrics": [{"name": "revenue", "value": "12.50",
            "unit": "RUB", "window": "1h", "complete": false, "level": null,
            "freshness": {"fresh_ms": 3.2, "newest_event": {"age_seconds": 5.0}}}]});
        let catalog = json!({"streaming_sources": {"push": {"kind": "log", "status": {"state": "running"}}}});
        let text = super::picture("http://x", &metrics, &catalog);
        for part in ["revenue", "12.50", "RUB", "5 s ago", "3 ms", "moving", "push", "running"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
