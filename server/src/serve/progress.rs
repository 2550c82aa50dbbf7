//! What a server says while it rebuilds its state.
//!
//! *In*: the status of the sources. *Out*: a bar on a terminal, log lines otherwise. *Never*: output on
//! standard output (that is the commands' own).

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use connectors::receive::{SourceStatus, State};
use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::EnvFilter;

use super::Running;
use crate::cli::out::thousands;

/// Sources that have caught up within this time are not worth a bar.
const QUIET: Duration = Duration::from_millis(300);
/// Between two log lines.
const EVERY: Duration = Duration::from_secs(5);

/// Log lines go to standard error; `STREAMGAUGE_LOG=debug` says more.
pub fn log_to_stderr() {
    log_to_stderr_at("info");
}

/// The same with another level where `STREAMGAUGE_LOG` does not say.
pub fn log_to_stderr_at(level: &str) {
    let filter = EnvFilter::try_from_env("STREAMGAUGE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // A second call in one process (tests) keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}

/// Shows progress on a thread until everything that was there has been read.
pub fn show(running: &Running) {
    let shared = running.shared.clone();
    let body = move || {
        let started = Instant::now();
        let mut bar: Option<ProgressBar> = None;
        let mut told = Instant::now();
        loop {
            let statuses = shared.statuses();
            if shared.stopping() || statuses.is_empty() {
                break;
            }
            if let Some(end) = ended(&statuses, started.elapsed()) {
                match end {
                    Ok(ready) => tracing::info!("{ready}"),
                    Err(failed) => tracing::error!("{failed}"),
                }
                break;
            }
            if started.elapsed() > QUIET {
                if std::io::stderr().is_terminal() {
                    draw(bar.get_or_insert_with(new_bar), &statuses);
                } else if told.elapsed() > EVERY {
                    told = Instant::now();
                    tracing::info!("{}", line(&statuses));
                }
            }
            // A picture for people.
            std::thread::sleep(Duration::from_millis(50));
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("progress".into()).spawn(body) {
        tracing::warn!(%error, "no progress is shown");
    }
}

/// What is said at the end, or what failed; `None` while something is being read.
fn ended(statuses: &[SourceStatus], took: Duration) -> Option<Result<String, String>> {
    let failed = |s: &SourceStatus| match &s.state {
        State::Failed(why) => Some(format!("source `{}` has failed: {why}", s.name)),
        _ => None,
    };
    if !statuses.iter().all(|s| s.caught_up || failed(s).is_some()) {
        return None;
    }
    let events: u64 = statuses.iter().map(|s| s.received).sum();
    let read = format!("{} events read in {:.1} s", thousands(events), took.as_secs_f64());
    let why: Vec<String> = statuses.iter().filter_map(failed).collect();
    Some(match why.is_empty() {
        true => Ok(format!("ready: {read}")),
        false => Err(format!("not ready: {}; {read}", why.join("; "))),
    })
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template("reading {bar:30} {percent}% {per_sec} ETA {eta}  {msg}")
    {
        bar.set_style(style);
    }
    bar
}

fn draw(bar: &ProgressBar, statuses: &[SourceStatus]) {
    let read: u64 = statuses.iter().map(|s| s.received).sum();
    let left: u64 = statuses.iter().filter_map(|s| s.lag).map(|lag| u64::try_from(lag).unwrap_or(0)).sum();
    bar.set_length((read + left).max(1));
    bar.set_position(read);
    bar.set_message(waiting(statuses));
}

fn waiting(statuses: &[SourceStatus]) -> String {
    let open: Vec<&str> = statuses.iter().filter(|s| !s.caught_up).map(|s| s.name.as_str()).collect();
    open.join(", ")
}

/// `reading orders: 12,000 read, 38,000 left, 2,000/s, 19 s to go (connecting)`.
pub fn line(statuses: &[SourceStatus]) -> String {
    let open: Vec<String> = statuses
        .iter()
        .filter(|s| !s.caught_up)
        .map(|s| {
            let left = s
                .lag
                .and_then(|l| u64::try_from(l).ok())
                .map_or_else(|| "end not known".into(), |l| format!("{} left", thousands(l)));
            let error = s.last_error.as_ref().map(|e| format!(" ({e})")).unwrap_or_default();
            let speed = match s.seconds_left {
                Some(seconds) => format!(", {}/s, {seconds} s to go", thousands(s.per_second)),
                None => format!(", {}/s", thousands(s.per_second)),
            };
            format!("{}: {} read, {left}{speed}{error}", s.name, thousands(s.read.max(s.received)))
        })
        .collect();
    match open.is_empty() {
        true => "everything is read; the numbers are being brought up to date".to_owned(),
        false => format!("reading {}", open.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, state: State, caught_up: bool) -> SourceStatus {
        SourceStatus {
            name: name.into(),
            kind: "log",
            state,
            caught_up,
            received: 1_000,
            ..SourceStatus::default()
        }
    }

    #[test]
    fn a_source_that_failed_is_not_ready() {
        let running = || source("push", State::Running, true);
        let failed = |caught_up| source("orders", State::Failed("offset_gap".into()), caught_up);
        let end = |statuses: &[SourceStatus]| ended(statuses, Duration::from_secs(2));
        assert_eq!(end(&[running(), source("orders", State::CatchingUp, false)]), None);
        assert_eq!(end(&[running()]), Some(Ok("ready: 1,000 events read in 2.0 s".to_owned())));
        for caught_up in [false, true] {
            let told = end(&[running(), failed(caught_up)]).unwrap().unwrap_err();
            let wanted = "not ready: source `orders` has failed: offset_gap; 2,000 events read in 2.0 s";
            assert_eq!(told, wanted);
        }
    }
}
