//! The commit protocol of the lake, every state of it to a bound (decision 0014).
//!
//! *In*: rules, a bound (env BOUND: faults). *Out*: no counterexample for the rules that hold, one for each rule that
//! is taken away. *Never*: code of the lake: the model came first.

mod model;
mod properties;
mod rules;
mod world;
mod writer;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use model::Commits;
use rules::{Bound, Rules, four_rows};

fn check(rules: Rules, bound: Bound) -> Vec<(&'static str, usize)> {
    let begun = Instant::now();
    let checker = Commits { rules, bound: bound.clone() }
        .checker()
        .threads(get_threads())
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    println!(
        "faults {} foreign {}: {} states, {} unique, depth {}, {:.1} s",
        bound.faults,
        bound.foreign,
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed().as_secs_f64()
    );
    let mut out = Vec::new();
    for (name, path) in checker.discoveries() {
        let actions = path.into_actions();
        if checker.discovery_classification(name).to_string() == "counterexample" {
            println!("  {name}: {actions:?}");
        } else {
            println!("  ok: {name}");
        }
        out.push((name, actions.len()));
    }
    out
}

#[test]
fn probe() {
    let get =
        |name: &str, default: u8| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (d, p) = (Rules::DECIDED, Rules::PLANNED);
    let rules = match std::env::var("RULES").as_deref() {
        Ok("planned") => p,
        Ok("planned+marks") => Rules { ledger_marks: true, ..p },
        Ok("no-decisions") => Rules { decisions: false, ..d },
        Ok("blind") => Rules { lookup: false, ..d },
        Ok("rebase") => Rules { pin: false, ..d },
        Ok("lesser") => Rules { exact: false, ..d },
        Ok("summary") => Rules { property: false, ..d },
        Ok("catch_up") => Rules { catch_up: false, ..d },
        Ok("early_checkpoint") => Rules { early_checkpoint: true, ..d },
        Ok("early_ledger") => Rules { early_ledger: true, ledger_marks: true, ..p },
        Ok("finish") => Rules { finish: false, ..d },
        Ok("plus") => Rules { offset_plus_one: true, ..d },
        Ok("dead") => Rules { dead_letters: false, ..d },
        Ok("sweep") => Rules { careful_sweep: false, ..d },
        Ok("rollback") => Rules { detect_rollback: false, ..d },
        Ok("condition") => Rules { plan_condition: false, ..d },
        Ok("log") => Rules { keep_log: false, ..d },
        _ => d,
    };
    let slow_reads = get("SLOW", 0) == 1;
    println!("{:?}", std::env::var("RULES"));
    check(
        rules,
        Bound { faults: get("FAULTS", 2), foreign: get("FOREIGN", 1), slow_reads, rows: four_rows() },
    );
}

fn get_threads() -> usize {
    std::env::var("THREADS").ok().and_then(|v| v.parse().ok()).unwrap_or(2)
}
