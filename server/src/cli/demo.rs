//! `streamgauge demo`: everything on embedded defaults, fed by a generator that knows the truth.
//!
//! *In*: a rate, a data folder or none. *Out*: a running server on the commerce pack, and with `--for` a
//! comparison of its answers with the generator's books. *Never*: a short cut: the events take the road
//! of pushed events, through the durable log.

pub mod compare;
mod delivery;
mod platform;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use connectors::receive::generator::{Generator, GeneratorSpec, Truth};
use connectors::receive::log::{LogRecord, PushLog};
use serde_json::json;

use super::exit::{Exit, Failure, Outcome};
use super::out::thousands;
use crate::serve::{Running, progress};
use crate::settings::{self, Settings};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  streamgauge demo\n  streamgauge demo --rate 2000 --for 10s")]
pub struct Args {
    /// Events per second
    #[arg(long, default_value_t = 50.0, value_parser = rate)]
    rate: f64,
    /// Stop after this long and compare the answers with the generator's truth; 1 when they differ
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    length: Option<Duration>,
    /// Address of the HTTP server
    #[arg(long, default_value = settings::server::DEFAULT_LISTEN, value_name = "ADDRESS")]
    listen: String,
    /// Keep the data here; default: a temporary folder
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Dataflow threads
    #[arg(long, default_value_t = 1)]
    workers: u8,
    /// Seed of the generator; default: another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// Minutes of history to begin with
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(0..=600))]
    history: u16,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "a number is needed".to_owned())?;
    if (0.1..=1_000_000.0).contains(&rate) {
        Ok(rate)
    } else {
        Err("from 0.1 to 1000000 events per second".into())
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    settings::read::duration(text).ok_or_else(|| "a duration such as 10s or 2m is needed".into())
}

/// Name of the source that the generator feeds.
const SHOP: &str = "shop";
/// How often the generator is asked for what has happened.
const STEP: Duration = Duration::from_millis(5);
/// Records appended at once.
const BATCH: usize = 2_000;

/// Runs the demo.
pub fn run(args: Args) -> Outcome {
    progress::log_to_stderr_at("warn");
    let folder = tempfile::tempdir()
        .map_err(|error| Failure::new(Exit::Failed, format!("no temporary folder: {error}")))?;
    let data = args.data.clone().unwrap_or_else(|| folder.path().to_path_buf());
    let (settings, effective) = settings(&args, &data)?;
    let running = Running::start(settings, effective)?;
    let log = running.shared.log(SHOP).ok_or_else(|| Failure::new(Exit::Bug, "the demo has no log"))?;
    let known = log.end() == 0;
    let pump = Pump::start(&args, log.clone())?;
    if !args.json {
        introduce(&running, &args);
    }
    let Some(length) = args.length else {
        let exit = running.wait();
        pump.stop();
        running.stop();
        return Ok(exit);
    };
    if let Some(exit) = running.wait_for(length) {
        pump.stop();
        running.stop();
        return Ok(exit);
    }
    let truth = pump.stop();
    let outcome = finish(&running, &log, &truth, known, args.json);
    running.stop();
    outcome
}

fn settings(args: &Args, data: &std::path::Path) -> Result<(Settings, serde_json::Value), Failure> {
    let text = json!({
        "apiVersion": "streamgauge/v1",
        "kind": "Settings",
        "contracts": ["pack:commerce"],
        "data": data,
        "workers": args.workers.max(1),
        "server": { "listen": args.listen },
        "sources": [{ "name": "push", "http": {} }, { "name": SHOP, "http": {} }],
    })
    .to_string();
    // JSON is YAML. The environment is left out: a demo is the same everywhere.
    let loaded = settings::load_text("demo", &text, std::path::Path::new(""), []);
    let Some(settings) = loaded.settings else {
        let text = contracts::diagnostic::render(&loaded.mistakes);
        return Err(Failure::new(Exit::Usage, text.trim_end()));
    };
    Ok((settings, serde_json::to_value(&loaded.effective).expect("settings have text keys")))
}

/// The thread that moves events from the generator to the log as they happen.
struct Pump {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Truth>,
}

impl Pump {
    fn start(args: &Args, log: Arc<PushLog>) -> Result<Self, Failure> {
        let clock = connectors::receive::wall_clock();
        let now = clock();
        let start = now - i64::from(args.history) * 60_000_000;
        let seed = args.seed.unwrap_or_else(|| now.unsigned_abs());
        let mut generator = Generator::new(GeneratorSpec::new(seed, start, args.rate));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let body = move || {
            while !stopped.load(Ordering::Acquire) {
                append(&log, generator.until(clock()), &stopped);
                // The generator follows the machine's clock.
                std::thread::sleep(STEP);
            }
            generator.truth()
        };
        let thread = std::thread::Builder::new()
            .name("generator".into())
            .spawn(body)
            .map_err(|error| Failure::new(Exit::Bug, format!("cannot start a thread: {error}")))?;
        Ok(Self { stop, thread })
    }

    fn stop(self) -> Truth {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap_or_default()
    }
}

/// Appends and waits until the events are durable; a batch that the log has no room for is offered again.
fn append(log: &PushLog, events: Vec<bytes::Bytes>, stopped: &AtomicBool) {
    for batch in events.chunks(BATCH) {
        loop {
            let records =
                batch.iter().map(|value| LogRecord { value: value.clone(), headers: Vec::new() }).collect();
            let (done, outcome) = crossbeam_channel::bounded(1);
            log.append(
                records,
                Box::new(move |result| {
                    // The receiver below waits for exactly this.
                    let _ = done.send(result.map(|_| ()));
                }),
            );
            match outcome.recv() {
                Ok(Ok(())) => break,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the log refused events of the generator; trying again")
                }
                Err(_) => return,
            }
            if stopped.load(Ordering::Acquire) {
                // The truth counts them, so the comparison will show that they are missing.
                return;
            }
            // Waiting for room on a real disk.
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn introduce(running: &Running, args: &Args) {
    let url = running.url();
    crate::say!(
        "Streamgauge {} runs the commerce pack on {} events per second.",
        env!("CARGO_PKG_VERSION"),
        args.rate
    );
    crate::say!("\n  page   {url}/\n  docs   {url}/docs\n  health {url}/readyz?verbose\n");
    crate::say!("Try:\n");
    crate::say!("  curl -s '{url}/v1/metrics/revenue?window=1h&by=currency&measure=amount'");
    crate::say!("  curl -sN '{url}/v1/metrics/order_count/stream?window=5m'");
    crate::say!("  curl -s {url}/v1/events -d '{}'", example_event());
    let option =
        if args.listen == settings::server::DEFAULT_LISTEN { String::new() } else { format!(" --url {url}") };
    crate::say!("\n  streamgauge top{option}\n");
    match args.length {
        Some(length) => {
            crate::say!("Stops after {length:?} and compares the answers with the generator's truth.")
        }
        None => crate::say!("Ctrl-C ends."),
    }
}

/// An order for the third example.
fn example_event() -> String {
    let now = jiff::Timestamp::now();
    format!(
        "{{\"event_id\":\"try-1\",\"event_type\":\"order.created\",\"timestamp\":\"{now:.0}\",\"order_id\":\"ORD-20260101-1001\",\
         \"user_id\":\"u-1\",\"status\":\"pending\",\"items\":[{{\"product_id\":\"P-1\",\"quantity\":2,\"unit_price\":\"10.00\"}}],\
         \"total_amount\":\"20.00\",\"currency\":\"USD\"}}"
    )
}

fn finish(running: &Running, log: &PushLog, truth: &Truth, known: bool, as_json: bool) -> Outcome {
    if !wait_for_fold(running, log.end()) {
        return Err(Failure::new(Exit::Failed, "the engine did not read all events within a minute"));
    }
    if !known {
        crate::say!("the data folder held events of an earlier run: nothing is compared");
        return Ok(Exit::Ok);
    }
    let rows = compare::rows(running, truth)?;
    let differences = rows.iter().filter(|row| !row.equal()).count();
    if as_json {
        super::out::json(&json!({ "equal": differences == 0, "truth": truth, "rows": rows }));
    } else {
        crate::say!("{}", compare::show(&rows));
        let events = thousands(truth.emitted);
        match differences {
            0 => {
                crate::say!("\n{events} events, {} answers, all equal to the generator's truth.", rows.len())
            }
            n => crate::say!(
                "\n{events} events: {n} of {} answers differ from the generator's truth.",
                rows.len()
            ),
        }
    }
    Ok(if differences == 0 { Exit::Ok } else { Exit::Failed })
}

/// Waits until everything of the shop's log is published, at most a minute.
fn wait_for_fold(running: &Running, end: i64) -> bool {
    let started = Instant::now();
    let folded = AtomicU64::new(0);
    while started.elapsed() < Duration::from_secs(60) {
        if let Ok(live) = running.shared.app.live() {
            let published = live.reader.load();
            let next =
                published.offsets.iter().filter(|(p, _)| &*p.source == SHOP).map(|(_, p)| p.next).max();
            folded.store(next.unwrap_or(0).unsigned_abs(), Ordering::Relaxed);
            // Counts of refused rows are complete when the tick's outcome is known, too.
            let known = live.hook.latest().is_some_and(|p| p.tick >= published.tick);
            if next.unwrap_or(0) >= end && known {
                return true;
            }
        }
        // Waiting for the real engine.
        std::thread::sleep(Duration::from_millis(5));
    }
    tracing::warn!("{} of {end} events were folded", folded.load(Ordering::Relaxed));
    false
}

/// Sample events for `streamgauge init --pack`: of the last hour, for `delivery` and `platform` of two weeks.
pub fn sample(pack: &str, count: u32) -> Result<String, Failure> {
    let now = connectors::receive::wall_clock()();
    match pack {
        "commerce" => {}
        "delivery" | "delivery-devlake" | "flow" => return Ok(delivery::sample(now)),
        "platform" => return Ok(platform::sample(now)),
        _ => return Err(Failure::new(Exit::Usage, format!("there are no sample events for pack `{pack}`"))),
    }
    const HOUR: i64 = 3_600_000_000;
    let quiet = GeneratorSpec::new(now.unsigned_abs(), now - HOUR, f64::from(count) / 3600.0);
    let spec = GeneratorSpec { late: 0.0, out_of_order: 0.0, duplicates: 0.0, bad: 0.0, ..quiet };
    let mut text = String::new();
    for event in Generator::new(spec).until(now) {
        text.push_str(&String::from_utf8_lossy(&event));
        text.push('\n');
    }
    Ok(text)
}
