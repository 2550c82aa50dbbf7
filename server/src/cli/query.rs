//! `streamgauge query METRIC`: one answer of a running server.
//!
//! *In*: a metric and a question. *Out*: the server's answer, for people or as JSON. *Never*: a number of its
//! own.

use serde_json::Value;

use super::client::{Client, Server};
use super::exit::{Exit, Outcome};
use super::out::{cell, table};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  streamgauge query revenue --window 1h\n  streamgauge query revenue --by currency --where \"currency <> 'RUB'\"\n  streamgauge query revenue --at 2026-03-02T10:00:00Z --json"
)]
pub struct Args {
    /// Name of the metric
    metric: String,
    /// Window of the contract; default: its first
    #[arg(long)]
    window: Option<String>,
    /// Dimensions to group by, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "DIMENSION")]
    by: Vec<String>,
    /// SQL condition over the dimensions
    #[arg(long = "where", value_name = "CONDITION")]
    filter: Option<String>,
    /// Answer as of this instant (RFC 3339), exclusive end in event time; default: now
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Measures, separated by commas; default: all visible
    #[arg(long, value_delimiter = ',')]
    measure: Vec<String>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Asks and shows.
pub fn run(args: Args) -> Outcome {
    let client = Client::new(&args.server);
    let mut query = Vec::new();
    let listed = |items: &[String]| (!items.is_empty()).then(|| items.join(","));
    for (name, value) in [
        ("window", args.window),
        ("by", listed(&args.by)),
        ("where", args.filter),
        ("as_of", args.at),
        ("measure", listed(&args.measure)),
    ] {
        if let Some(value) = value {
            query.push((name, value));
        }
    }
    let answer = client.get(&format!("/v1/metrics/{}", args.metric), &query)?;
    if args.json {
        super::out::json(&answer);
    } else {
        show(&answer);
    }
    Ok(Exit::Ok)
}

fn show(answer: &Value) {
    crate::say!("{}", headline(answer));
    let rows = answer["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(columns) = rows.first().and_then(Value::as_object).map(|row| row.keys().collect::<Vec<_>>())
    else {
        crate::say!("no rows");
        return;
    };
    // One value alone stands in the headline already.
    if columns.len() < 2 && rows.len() < 2 && rows[0][columns[0].as_str()] == answer["value"] {
        return;
    }
    let header: Vec<&str> = columns.iter().map(|c| c.as_str()).collect();
    let right: Vec<usize> =
        (0..header.len()).filter(|i| rows.iter().any(|row| row[header[*i]].is_number())).collect();
    let cells = rows.iter().map(|row| header.iter().map(|c| cell(&row[*c])).collect()).collect();
    crate::say!("{}", table(&header, cells, &right));
}

fn headline(answer: &Value) -> String {
    let text = |key: &str| answer[key].as_str().unwrap_or_default();
    let mut line = format!("{} ({}) = {}", text("metric_name"), text("window"), cell(&answer["value"]));
    if let Some(unit) = answer["unit"].as_str() {
        line.push_str(&format!(" {unit}"));
    }
    if let Some(level) = answer["level"].as_str() {
        line.push_str(&format!(" [{level}]"));
    }
    if let (Some(start), Some(end)) = (answer["window_start"].as_str(), answer["window_end"].as_str()) {
        line.push_str(&format!(", {start} to {end}"));
    }
    line.push_str(&format!(", as of {}", text("as_of")));
    if let Some(fresh) = answer["fresh_ms"].as_f64() {
        line.push_str(&format!(", {fresh:.0} ms old"));
    }
    if answer["complete"] == Value::Bool(false) {
        line.push_str(", still moving");
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn the_headline_says_what_is_known() {
        let answer = json!({"metric_name": "revenue", "window": "1h", "value": "12.50", "unit": "RUB",
            "window_start": "2026-03-02T09:00:00Z", "window_end": "2026-03-02T10:00:00Z",
            "as_of": "2026-03-02T10:00:00Z", "fresh_ms": 12, "complete": false});
        assert_eq!(
            super::headline(&answer),
            "revenue (1h) = 12.50 RUB, 2026-03-02T09:00:00Z to 2026-03-02T10:00:00Z, \
             as of 2026-03-02T10:00:00Z, 12 ms old, still moving"
        );
    }
}
