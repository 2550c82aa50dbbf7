//! Killed again and again: nothing lost, nothing twice, no number wrong.
//!
//! A server is fed over HTTP and from a real Kafka, and killed at a named point of its own code or at any moment, started
//! again, and so on. What it (or the broker) acknowledged is an obligation: at the end of a calm phase every row is in the
//! lake or among the refused ones exactly once, and every number is what the acknowledged events give. The lake is read
//! by PyIceberg and DuckDB.
//!
//! `make crashloop CYCLES=1000` is the long run; `SEED=n` repeats one. Without them a short slice runs.

#![allow(clippy::unwrap_used)] // a test fails where it unwraps
#![allow(clippy::print_stdout)] // `--nocapture` shows the figures

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

mod crash;
mod support;
use crash::kafka::Broker;
use crash::oracle::Rng;
use crash::{Shop, aborted, number};
use support::{Server, log};

/// Where the process can be made to die: at which of the first passages, and how long it may take to come by
/// (milliseconds). A run of [`ALL`] cycles or more must come by each of them.
const POINTS: [(&str, u64, u64); 40] = [
    ("store.before_name", 2, 3_000),
    ("log.before_sync", 40, 3_000),
    ("log.after_sync", 40, 3_000),
    ("log.before_answer", 40, 3_000),
    ("log.after_read", 40, 3_000),
    ("kafka.after_poll", 200, 3_000),
    ("kafka.before_hand_on", 20, 3_000),
    ("kafka.before_commit", 1, 9_000),
    ("kafka.after_commit", 1, 9_000),
    ("tick.before_workers", 60, 3_000),
    ("tick.before_publish", 60, 3_000),
    ("tick.after_publish", 60, 3_000),
    ("dead.before_sync", 6, 3_000),
    ("dead.after_sync", 6, 3_000),
    ("lake.recover", 1, 3_000),
    ("lake.before_files", 4, 3_000),
    ("lake.before_sync", 12, 3_000),
    ("lake.before_name", 12, 3_000),
    ("lake.after_name", 12, 3_000),
    ("lake.after_files", 4, 3_000),
    ("lake.before_plan", 4, 3_000),
    ("lake.after_plan", 4, 3_000),
    ("lake.before_commit", 4, 3_000),
    ("lake.after_commit", 4, 3_000),
    ("lake.between_tables", 4, 3_000),
    ("lake.after_round", 4, 3_000),
    ("lake.before_compact", 2, 6_000),
    ("lake.after_compact", 2, 6_000),
    ("checkpoint.mid_file", 40, 4_000),
    ("checkpoint.before_sync", 8, 4_000),
    ("checkpoint.before_name", 8, 4_000),
    ("checkpoint.after_name", 8, 4_000),
    ("checkpoint.between_blobs", 8, 4_000),
    ("checkpoint.before_gate", 2, 4_000),
    ("checkpoint.before_manifest", 2, 4_000),
    ("checkpoint.after_manifest", 2, 4_000),
    ("checkpoint.pruning", 2, 6_000),
    ("checkpoint.restoring", 6, 3_000),
    ("checkpoint.restored", 1, 3_000),
    // Only counted: it does not end the process.
    (ANY, 1, 800),
];
const ANY: &str = "any moment";
/// From so many cycles on every point must have been hit.
const ALL: usize = 100;
/// A server that starts is ready after this, or something is wrong; the broker may have to come back first.
const READY: Duration = Duration::from_secs(40);
/// So often all is compared.
const CALM_EVERY: usize = 25;

/// Mistakes that can be switched on, and where to kill so that they matter. All but the first are tried with `BUGS=all`.
const BUGS: [(&str, &[&str]); 18] = [
    ("retry_blindly", &[ANY]),
    ("drop_refused", &[ANY]),
    ("offset_plus_one", &["lake.after_round", ANY]),
    ("skip_recovery", &["lake.after_plan", "lake.between_tables"]),
    ("skip_one", &[ANY]),
    ("checkpoint_early", &["lake.before_plan", "lake.before_files"]),
    ("judge_up_to", &["lake.after_commit", "lake.between_tables", "lake.after_round"]),
    ("log_not_durable", &["log.before_answer", ANY]),
    ("forget_keys", &["log.after_sync"]),
    ("restore_plus_one", &["checkpoint.after_manifest", ANY]),
    ("forget_ids", &["checkpoint.after_manifest", "log.after_sync"]),
    ("forget_changes", &["checkpoint.after_manifest"]),
    ("prune_named", &["checkpoint.pruning", "checkpoint.after_manifest"]),
    ("resume_unordered", &["lake.after_round", ANY]),
    ("kafka_up_to", &[ANY]),
    ("dead_letter_dropped", &[ANY]),
    ("forget_duplicates", &["lake.after_round", ANY]),
    ("forget_results", &[ANY]),
];

#[test]
fn nothing_is_lost_nothing_comes_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::var("KEEP").map_or_else(|_| folder.path().join("shop"), PathBuf::from);
    let cycles = number("CYCLES", 12) as usize;
    let broker = Broker::start(&folder.path().join("kafka"));
    let plan = Plan { cycles, seed: number("SEED", 1), bug: "", points: &POINTS, bounces: cycles >= ALL };
    let mut told = Told::default();
    plan.run(&path, broker.as_ref(), &mut told);
    told.print();
    if cycles >= ALL {
        let of_kafka = |point: &str| point.starts_with("kafka.") && broker.is_none();
        let missed: Vec<_> =
            POINTS.iter().filter(|(point, ..)| !told.hits.contains_key(point) && !of_kafka(point)).collect();
        assert!(missed.is_empty(), "never killed at {missed:?}");
    }
}

/// Each mistake is found, or the loop proves nothing: all of them with `BUGS=all`, one with `BUGS=name`, otherwise the
/// first.
#[test]
fn seeded_mistakes_are_caught() {
    let which = std::env::var("BUGS").unwrap_or_else(|_| BUGS[0].0.to_owned());
    let wanted: Vec<_> = BUGS.iter().filter(|(bug, _)| which == "all" || which == *bug).collect();
    assert!(!wanted.is_empty(), "BUGS is `{which}`; known are all, {}", BUGS.map(|(bug, _)| bug).join(", "));
    let folder = tempfile::tempdir().unwrap();
    let with_kafka = wanted.len() > 1 || wanted[0].0 != BUGS[0].0;
    let broker = with_kafka.then(|| Broker::start(&folder.path().join("kafka"))).flatten();
    let mut missed = Vec::new();
    for (bug, at) in wanted {
        let points: Vec<_> = POINTS.iter().filter(|(point, ..)| at.contains(point)).copied().collect();
        let attempt = |seed| {
            let plan = Plan { cycles: 10, seed, bug, points: &points, bounces: false };
            plan.run(&folder.path().join(bug), broker.as_ref(), &mut Told::default());
        };
        match std::panic::catch_unwind(|| (1..6).for_each(attempt)) {
            Ok(()) => missed.push(*bug),
            Err(caught) => {
                let text = caught.downcast_ref::<String>().map(String::as_str);
                let text = text.or(caught.downcast_ref::<&str>().copied()).unwrap_or_default();
                println!("{bug}: {}", text.lines().next().unwrap_or_default());
            }
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[derive(Default)]
struct Told {
    acknowledged: usize,
    refused: u64,
    numbers: usize,
    calms: usize,
    hits: BTreeMap<&'static str, u64>,
    bounces: u64,
    stops: u64,
    ready_again: Vec<Duration>,
}

impl Told {
    fn print(&mut self) {
        self.ready_again.sort_unstable();
        let quantile = |q: usize| self.ready_again[(self.ready_again.len() - 1) * q / 100].as_millis();
        println!(
            "{} kills, {} of the broker, {} times held, {} events acknowledged, {} rows refused, {} numbers compared in {} calms: 0 \
             lost, 0 twice, 0 wrong; ready again after {} ms (p50), {} ms (p99), {} starts",
            self.hits.values().sum::<u64>(),
            self.bounces,
            self.stops,
            self.acknowledged,
            self.refused,
            self.numbers,
            self.calms,
            quantile(50),
            quantile(99),
            self.ready_again.len()
        );
        self.hits.iter().for_each(|(point, hits)| println!("  killed {point}: {hits}"));
    }
}

/// A run of the loop.
struct Plan<'a> {
    cycles: usize,
    seed: u64,
    bug: &'a str,
    points: &'a [(&'static str, u64, u64)],
    /// The broker is killed, too.
    bounces: bool,
}

impl Plan<'_> {
    fn run(&self, path: &Path, broker: Option<&Broker>, told: &mut Told) {
        // What an earlier run has left; there may be nothing.
        let _ = std::fs::remove_dir_all(path.join("data"));
        let mut rng = Rng(self.seed);
        let name = format!("shop-{}{}-{}", self.bug, self.seed, std::process::id());
        let mut shop = Shop::new(path, broker.map(|broker| broker.topic(&name)));
        for cycle in 0..self.cycles {
            let away = broker.filter(|_| self.bounces && cycle % 40 == 20).map(Broker::bounce);
            self.cycle(cycle, &mut shop, &mut rng, told);
            if let Some(away) = away {
                told.bounces += 1;
                away.join().unwrap();
            }
            if cycle % CALM_EVERY == CALM_EVERY - 1 || cycle + 1 == self.cycles {
                let verdict = shop.verify(self.bug);
                told.calms += 1;
                told.numbers += verdict.numbers;
                (told.acknowledged, told.refused) = (verdict.acknowledged, verdict.refused);
                println!("cycle {}: {} events", cycle + 1, verdict.acknowledged);
            }
        }
    }

    /// The point of a cycle: the first is met by a new folder only, then all in turn, and chance between.
    fn point(&self, cycle: usize, rng: &mut Rng) -> (&'static str, u64, u64) {
        match (cycle, cycle % 2) {
            (0, _) => self.points[0],
            (_, 0) => self.points[(cycle / 2) % self.points.len()],
            _ if self.bug.is_empty() && rng.next(2) == 0 => POINTS[POINTS.len() - 1],
            _ => self.points[rng.next(self.points.len() as u64) as usize],
        }
    }

    fn cycle(&self, cycle: usize, shop: &mut Shop, rng: &mut Rng, told: &mut Told) {
        let (point, passages, most) = self.point(cycle, rng);
        let mut fault = format!("{point}=abort@{}", 1 + rng.next(passages));
        if rng.next(2) == 0 {
            fault += &format!(",lake.lost_reply=error@{}", 1 + rng.next(6));
        }
        if point.ends_with("_compact") {
            fault += ",lake.care_often=error";
        }
        // Sometimes the lake is far behind, so that checkpoints have to wait for it.
        let late = rng.next(3) == 0 && !point.starts_with("lake.");
        let every = if late { "2s" } else { "100ms" };
        let variables = [
            ("STREAMGAUGE_FAULT", fault.as_str()),
            ("STREAMGAUGE_BUG", self.bug),
            ("STREAMGAUGE_LAKE__COMMIT_EVERY", every),
        ];
        let started = Instant::now();
        let mut server = Server::spawn(&shop.folder, &variables);
        if server.ready(READY) {
            told.ready_again.push(started.elapsed());
            shop.adds_up(&server);
        } else if server.child.try_wait().unwrap().is_none() {
            panic!("cycle {cycle}: not ready: {}\n{}", server.text("/readyz"), log(&shop.folder));
        }
        // A machine that sleeps for a while.
        if rng.next(12) == 0 && server.child.try_wait().unwrap().is_none() {
            server.signal("STOP");
            std::thread::sleep(Duration::from_millis(500 + rng.next(2_500)));
            server.signal("CONT");
            told.stops += 1;
        }
        let least = if point == ANY { 20 + rng.next(most) } else { most };
        let end = Instant::now() + Duration::from_millis(least);
        let mut gone = false;
        while Instant::now() < end && !gone {
            gone = !shop.send(&server, rng);
            std::thread::sleep(Duration::from_millis(rng.next(20)));
        }
        let met = aborted(&mut server, gone, &shop.folder);
        assert!(met || !gone, "cycle {cycle}: it runs and does not answer\n{}", log(&shop.folder));
        *told.hits.entry(if met { point } else { ANY }).or_default() += 1;
    }
}
