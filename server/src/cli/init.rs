//! `streamgauge init [DIR]`: a starter folder that runs.
//!
//! *In*: a folder that does not exist or holds none of the files. *Out*: settings, contracts, sample
//! events of the last hour, JSON Schemas for the editor. *Never*: a file of the user's overwritten.

use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure, Outcome, io};
use super::schema::{self, Kind};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  streamgauge init shop\n  streamgauge init shop --pack commerce")]
pub struct Args {
    /// The folder; default: the working folder
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Start from contracts that come with the program
    #[arg(long)]
    pack: Option<String>,
}

const SETTINGS: &str = include_str!("starter/streamgauge.yaml");
const EVENT: &str = include_str!("starter/event.yaml");
const METRIC: &str = include_str!("starter/metric.yaml");

/// Writes the folder.
pub fn run(args: Args) -> Outcome {
    let files = plan(args.pack.as_deref())?;
    let taken: Vec<String> = files
        .iter()
        .map(|(path, _)| args.dir.join(path))
        .filter(|p| p.exists())
        .map(|p| p.display().to_string())
        .collect();
    if !taken.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("already there: {}", taken.join(", ")))
            .help("name an empty folder: streamgauge init FOLDER"));
    }
    for (path, text) in &files {
        write(&args.dir.join(path), text)?;
    }
    let shown =
        if args.dir == Path::new(".") { String::new() } else { format!("cd {}\n  ", args.dir.display()) };
    let query = metric(&files).map(|metric| format!("\n  streamgauge query {metric}")).unwrap_or_default();
    crate::say!("made {}:", args.dir.display());
    for (path, _) in files.iter().filter(|(path, _)| !path.starts_with('.')) {
        crate::say!("  {path}");
    }
    crate::say!(
        "\nnext:\n  {shown}streamgauge test\n  streamgauge serve &\n  streamgauge ingest events.ndjson{query}"
    );
    Ok(Exit::Ok)
}

/// A metric to ask for: the first that the files describe.
fn metric(files: &[(String, String)]) -> Option<String> {
    let contracts = files.iter().filter(|(path, _)| path.starts_with("contracts/"));
    let mut kinds =
        contracts.flat_map(|(_, text)| text.split("\n---")).filter(|text| text.contains("\nkind: Metric"));
    let name = kinds.next()?.lines().find_map(|line| line.strip_prefix("name: "))?;
    Some(name.trim().to_owned())
}

fn plan(pack: Option<&str>) -> Result<Vec<(String, String)>, Failure> {
    let mut files = Vec::new();
    match pack {
        None => {
            files.push(("streamgauge.yaml".into(), SETTINGS.replace("@CONTRACTS@", "contracts/")));
            files.push(("contracts/order-placed.yaml".into(), EVENT.to_owned()));
            files.push(("contracts/sales.yaml".into(), METRIC.to_owned()));
            files.push(("events.ndjson".into(), sample()));
        }
        Some(name) => {
            let contracts = super::files::read_pack(name)?;
            files.push(("streamgauge.yaml".into(), SETTINGS.replace("@CONTRACTS@", "contracts/")));
            for file in contracts {
                // A file of another pack that this one needs keeps the name of its pack.
                let path = file.path.strip_prefix("pack:").unwrap_or(&file.path);
                let base = match path.split_once('/') {
                    Some((pack, base)) if pack == name => base.to_owned(),
                    _ => path.replace('/', "-"),
                };
                files.push((format!("contracts/{base}"), file.text.to_string()));
            }
            files.push(("events.ndjson".into(), super::demo::sample(name, 200)?));
        }
    }
    for kind in Kind::ALL {
        let text = serde_json::to_string_pretty(&schema::of(kind)).expect("a schema has text keys");
        files.push((format!(".schema/{}.v1.json", kind.word()), text + "\n"));
    }
    files.push((".gitignore".into(), "/data/\n".into()));
    Ok(files)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| io(Exit::Failed, "make", folder, &error))?;
    }
    std::fs::write(path, text).map_err(|error| io(Exit::Failed, "write", path, &error))
}

/// Forty orders of the last forty minutes.
fn sample() -> String {
    let now = jiff::Timestamp::now();
    let mut text = String::new();
    for index in 0..40_i64 {
        let time = now - jiff::SignedDuration::from_secs((40 - index) * 60);
        let country = ["de", "fr", "uk"][usize::try_from(index % 3).unwrap_or_default()];
        let cents = 500 + (index * 737) % 9_500;
        text.push_str(&format!(
            "{{\"event_id\":\"e{index}\",\"event_type\":\"order.placed\",\"timestamp\":\"{time:.0}\",\"order_id\":\"o{index}\",\"country\":\"{country}\",\"amount\":\"{}.{:02}\"}}\n",
            cents / 100,
            cents % 100
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_starter_contracts_have_no_mistakes() {
        let files: Vec<_> = plan(None)
            .unwrap()
            .into_iter()
            .filter(|(path, _)| path.starts_with("contracts/"))
            .map(|(path, text)| contracts::text::SourceFile::new(path, text))
            .collect();
        let loaded = contracts::load(&files);
        assert!(loaded.diagnostics.is_empty(), "{}", contracts::diagnostic::render(&loaded.diagnostics));
    }

    #[test]
    fn sample_events_are_json_lines_of_the_last_hour() {
        let text = sample();
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["event_type"], "order.placed");
        assert!(first["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(text.lines().count(), 40);
    }
}
