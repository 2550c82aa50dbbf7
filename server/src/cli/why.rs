//! `streamgauge why METRIC`: how a number of a running server comes about, and whether its events agree.
//!
//! *In*: a metric and a question. *Out*: the server's answer, for people or as JSON; exit code 1 on disagreement.
//! *Never*: a number of its own.

use serde_json::Value;

use super::client::{Client, Server};
use super::exit::{Exit, Failure, Outcome};
use super::out::{cell, table};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  streamgauge why revenue --window 1h\n  streamgauge why lead_time --measure median --window 7d\n  streamgauge why revenue --at 2026-03-02T10:00:00Z --json\n\nExit code 1: the number and its events disagree. A number that cannot be recomputed is no disagreement."
)]
pub struct Args {
    /// Name of the metric
    metric: String,
    /// Window of the contract; default: its first
    #[arg(long)]
    window: Option<String>,
    /// The measure to explain; default: the first visible one
    #[arg(long, value_delimiter = ',')]
    measure: Vec<String>,
    /// Dimensions to group by, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "DIMENSION")]
    by: Vec<String>,
    /// SQL condition over the dimensions
    #[arg(long = "where", value_name = "CONDITION")]
    filter: Option<String>,
    /// Answer as of this instant (RFC 3339), exclusive end in event time; default: now
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Show the statements that recompute it
    #[arg(long)]
    sql: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Asks and shows.
pub fn run(args: Args) -> Outcome {
    let client = Client::new(&args.server);
    let listed = |items: &[String]| (!items.is_empty()).then(|| items.join(","));
    let mut query = Vec::new();
    for (name, value) in [
        ("window", args.window),
        ("measure", listed(&args.measure)),
        ("by", listed(&args.by)),
        ("where", args.filter),
        ("as_of", args.at),
    ] {
        query.extend(value.map(|value| (name, value)));
    }
    let answer = client.get(&format!("/v1/metrics/{}/why", args.metric), &query);
    let answer = answer.map_err(|failure| match failure.exit {
        // 1 says that a number disagrees; a question that has no answer must not look like that.
        Exit::Failed => Failure { exit: Exit::Usage, ..failure },
        _ => failure,
    })?;
    if args.json {
        super::out::json(&answer);
    } else {
        crate::say!("{}", text(&answer));
        if args.sql && answer["sql"].is_string() {
            crate::say!("\n{}", answer["sql"].as_str().unwrap_or_default());
        }
    }
    Ok(if answer["agrees"] == Value::Bool(false) { Exit::Failed } else { Exit::Ok })
}

/// The answer for people.
fn text(answer: &Value) -> String {
    let of = |key: &str| answer[key].as_str().unwrap_or_default();
    let mut lines = vec![headline(answer)];
    if let (Some(start), Some(end)) = (answer["window_start"].as_str(), answer["window_end"].as_str()) {
        lines.push(format!("window      {start} to {end}, as of {}", of("as_of")));
    } else {
        lines.push(format!("as of       {}", of("as_of")));
    }
    let steps = ["received", "admitted", "matched", "joined", "counted"];
    let steps = steps.iter().filter(|step| !answer[**step].is_null());
    let steps: Vec<String> = steps.map(|step| format!("{} {step}", cell(&answer[*step]))).collect();
    lines.push(format!("events      {}", steps.join(", ")));
    for sample in answer["sample_values"].as_array().into_iter().flatten() {
        let mark = if sample["is_it"] == Value::Bool(true) { "  <- this one" } else { "" };
        let (id, time) =
            (sample["id"].as_str().unwrap_or_default(), sample["time"].as_str().unwrap_or_default());
        let value =
            if sample["value"].is_null() { String::new() } else { format!("  {}", cell(&sample["value"])) };
        lines.push(format!("  {id}  {time}{value}{mark}"));
    }
    let lost = answer["lost"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !lost.is_empty() {
        lines.push("not counted".to_owned());
        let ids = |one: &Value| {
            let ids = one["samples"].as_array().into_iter().flatten();
            ids.map(cell).collect::<Vec<_>>().join(", ")
        };
        // What is lost once events are admitted is of the metric, not of one type.
        let row = |one: &Value| {
            let of = one["event_type"].as_str().unwrap_or_default().to_owned();
            vec![cell(&one["reason"]), of, cell(&one["count"]), ids(one)]
        };
        lines.push(table(&["reason", "event type", "count", "newest"], lost.iter().map(row).collect(), &[2]));
    }
    lines.join("\n")
}

fn headline(answer: &Value) -> String {
    let of = |key: &str| answer[key].as_str().unwrap_or_default();
    let value = cell(&answer["value"]);
    let unit = if of("unit").is_empty() { String::new() } else { format!(" {}", of("unit")) };
    let verdict = match answer["agrees"].as_bool() {
        Some(true) => format!("its events give {}: agrees", cell(&answer["recomputed"])),
        Some(false) => {
            format!("its events give {}: DISAGREES ({})", cell(&answer["recomputed"]), of("reason"))
        }
        None => of("reason").to_owned(),
    };
    format!("{}.{} ({}) = {value}{unit}; {verdict}", of("metric_name"), of("measure"), of("window"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn the_text_says_how_it_came_about() {
        let answer = json!({
            "metric_name": "lead", "measure": "median", "window": "7d", "value": 3.0, "recomputed": 3.0,
            "agrees": true, "unit": "h", "as_of": "2026-03-02T13:00:00Z", "received": 5, "admitted": 5,
            "matched": 4, "joined": 2, "counted": 2,
            "sample_values": [{"id": "a", "time": "2026-03-02T12:00:00Z", "value": 3.0, "is_it": true}],
            "lost": [
                {"reason": "waiting", "count": 1, "samples": ["c3"]},
                {"reason": "duplicate", "event_type": "deploy", "count": 2, "samples": []}
            ]
        });
        let text = super::text(&answer);
        assert!(text.starts_with("lead.median (7d) = 3.0 h; its events give 3.0: agrees\n"), "{text}");
        assert!(text.contains("5 received, 5 admitted, 4 matched, 2 joined, 2 counted"), "{text}");
        assert!(text.contains("  a  2026-03-02T12:00:00Z  3.0  <- this one"), "{text}");
        assert!(text.contains("waiting") && text.contains("c3"), "{text}");
        assert!(text.lines().any(|line| line.contains("duplicate") && line.contains("deploy")), "{text}");
    }
}
