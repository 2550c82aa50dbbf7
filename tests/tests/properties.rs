//! Random contracts and random events: the engine answers as the oracle does, and as the second truth does.
//!
//! `make property CASES=500000` for many: cases run on all cores (`JOBS=n`), a line every ten seconds says where the run
//! is and which `START=n` goes on from there, failing seeds are told at the end with what was drawn. `SURVEY=1` for one
//! line per failing seed; `SEED=n make property` for one case.
//! `RELATED=1` for joins, tables and change streams alone, `FRESH=1` and `LATER=1` for what came later, `SHIPPED=1` for shipped sets,
//! `SEQUENCED=1` for sequences. `ROADS=all`: each case on all roads (forward, reordered, reversed, doubled, noise,
//! restarted; 1, 2 and 4 workers), not on two of them. The second truth (crate `audit`) is asked in every case: `AUDIT=0` not,
//! `AUDIT=all` all of its questions, `AUDIT=n` so many per metric. A seed that failed once goes to
//! `tests/golden/seeds.txt` (or `related.txt` beside it) and runs first ever after.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tests::generate::{Case, FRESH, LATER, RELATED, RICH, SEQUENCED, SHIPPED, case};
use tests::harness::drawn;
use tests::harness::many::Many;
use tests::harness::minimise::minimise;
use tests::harness::run::{Road, all_roads, differences, roads};
use tests::harness::second::{RECOMPUTED, REFUSED};
use tests::oracle::val::instant;

/// Planning statements is mostly small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Cases of a run that nobody sized.
const CASES: u64 = 2_000;

/// Failures told in full; a run that nobody sized gives up then.
const SHOWN: usize = 3;

#[test]
fn engine_and_oracle_agree() {
    let start = number("START").unwrap_or(0);
    let sized = number("CASES").or_else(|| number("STREAMGAUGE_CASES"));
    let golden = if start == 0 { golden_seeds() } else { Vec::new() };
    let count = golden.len();
    let seeds: Vec<u64> = match number("SEED") {
        Some(seed) => vec![seed],
        None => golden.into_iter().chain((start..start + sized.unwrap_or(CASES)).map(seed)).collect(),
    };
    let jobs = number("JOBS").map_or_else(cores, |jobs| jobs as usize);
    let patience = if sized.is_some() || is_set("SURVEY") { usize::MAX } else { SHOWN };
    let told = AtomicUsize::new(0);
    // Reports of cases that fail at the same time do not mix.
    let one = Mutex::new(());
    let failures = Many { seeds: &seeds, golden: count, start, patience }.run(jobs, |seed| {
        check(seed, &told).map_err(|report| {
            let _alone = one.lock();
            eprintln!("{report}");
        })
    });
    eprintln!("{}", drawn::table());
    let (recomputed, refused) = (RECOMPUTED.load(Ordering::Relaxed), REFUSED.load(Ordering::Relaxed));
    eprintln!("second truth: {recomputed} answers recomputed, {refused} not");
    assert!(refused * 20 <= recomputed, "the second truth leaves out more than one answer in twenty");
    assert!(
        failures.is_empty(),
        "{} seeds fail: {failures:?}; add them to tests/golden/seeds.txt once understood",
        failures.len()
    );
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`: give a whole number")))
}

fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Golden seeds of the kinds that are run.
fn golden_seeds() -> Vec<u64> {
    let related = golden(include_str!("../golden/related.txt"));
    match ["LATER", "SEQUENCED", "SHIPPED", "FRESH", "RELATED"].map(is_set) {
        [false, false, false, false, false] => {
            golden(include_str!("../golden/seeds.txt")).chain(related).collect()
        }
        [false, false, false, false, true] => related.collect(),
        _ => Vec::new(),
    }
}

/// The seed of the case `n`: every other case draws on all of the generator, every fourth is about rows that relate,
/// another fourth has what was added to the generator last.
fn seed(n: u64) -> u64 {
    match n {
        _ if is_set("LATER") => LATER + n,
        _ if is_set("SEQUENCED") => SEQUENCED + n,
        _ if is_set("SHIPPED") => SHIPPED + n,
        _ if is_set("FRESH") => FRESH + n,
        _ if is_set("RELATED") => RELATED + n,
        _ if n % 16 == 15 => SHIPPED + n,
        _ if n % 16 == 7 => SEQUENCED + n,
        _ if n % 4 == 3 => RELATED + n,
        _ if n % 16 == 6 => LATER + n / 16,
        _ if n % 4 == 2 => FRESH + n / 4,
        _ if n.is_multiple_of(4) => n,
        _ => RICH + n,
    }
}

fn golden(lines: &str) -> impl Iterator<Item = u64> {
    lines.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

fn check(seed: u64, told: &AtomicUsize) -> Result<(), String> {
    let case = case(seed);
    let roads = if is_set("ROADS") { all_roads(seed) } else { roads(seed) };
    for road in &roads {
        let found = differences(&case, *road);
        if !found.is_empty() {
            let short = is_set("SURVEY") || told.fetch_add(1, Ordering::Relaxed) >= SHOWN;
            return Err(report(&case, *road, &found, short));
        }
    }
    drawn::note(&case, &roads);
    Ok(())
}

fn report(case: &Case, road: Road, found: &[String], short: bool) -> String {
    if short {
        // The first line of each difference; of a refused contract, all of them.
        let all = found[0].starts_with('`');
        let lines = found.iter().flat_map(|line| line.lines().take(if all { 9 } else { 1 }));
        let lines: Vec<&str> = lines.take(if all { 9 } else { 3 }).collect();
        return format!("seed {}: {}", case.seed, lines.join(" ;; "));
    }
    let hangs = found[0].starts_with("hangs");
    let small =
        if hangs || std::env::var("WHOLE").is_ok() { case.clone() } else { minimise(case, road, found) };
    let differences = if hangs { found.to_vec() } else { differences(&small, road) };
    let mut text =
        format!("=== seed {} ===\n{}\n--- records, from {}\n", case.seed, small.yaml, instant(small.start));
    for segment in &small.segments {
        text += &format!("@clock {}\n", instant(segment.clock));
        for raw in &segment.records {
            let payload = String::from_utf8_lossy(&raw.payload).replace('\n', " ");
            text += &format!("{}/{} {} {payload}\n", raw.partition, raw.offset, instant(raw.received));
        }
    }
    // A case that fails now and then only may pass when it is asked again.
    let (title, lines) = match differences.is_empty() {
        true => ("differences, not seen again", found),
        false => ("differences", differences.as_slice()),
    };
    text += &format!("--- {title}\n");
    for line in lines.iter().take(6) {
        text += &format!("{line}\n");
    }
    text
}
