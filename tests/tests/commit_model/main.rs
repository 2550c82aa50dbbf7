//! The commit protocol of the lake, every state of it to a bound (decision 0014).
//!
//! *In*: rules, a bound (env BOUND: faults in all; SLOW=1: tables are read one by one). *Out*: no counterexample for
//! the rules that hold, one for each rule that is taken away. *Never*: code of the lake: the model came first.

mod model;
mod properties;
mod rules;
mod seeded;
mod world;
mod writer;

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use model::{Commits, Step};
use properties as p;
use rules::{Bound, Rules, four_rows, three_rows};

fn number(name: &str) -> Option<u8> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number from 0 to 255 is wanted")))
}

/// Visits every state within the bound; prints how many, and what was found.
fn exhaust(rules: Rules, bound: &Bound) {
    let begun = Instant::now();
    let model = Commits { rules, bound: bound.clone() };
    let checker = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!(
        "faults {} (foreign {}), rows {} + {}: {} states, {} different, {} steps deep, {:.1} s",
        bound.faults,
        bound.foreign,
        bound.rows[0].len(),
        bound.rows[1].len(),
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed().as_secs_f64()
    );
    for (name, path) in checker.discoveries() {
        if checker.discovery_classification(name).to_string() == "counterexample" {
            println!("{name}: no.\n{}", trace(&path.into_actions()));
        }
    }
    checker.assert_properties();
}

/// The shortest way to break the property, with these rules.
fn broken(rules: Rules, bound: &Bound, property: &'static str) -> Option<Vec<Step>> {
    let model = Commits { rules, bound: bound.clone() };
    let wanted = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = model.checker().threads(1).finish_when(wanted).spawn_bfs().join();
    checker.discovery(property).map(|path| path.into_actions())
}

fn trace(steps: &[Step]) -> String {
    steps.iter().enumerate().map(|(i, step)| format!("  {:2}. {step:?}\n", i + 1)).collect()
}

/// What CI looks at. The copies in both partitions, a refused row and a row of another table; two faults, one foreign.
#[test]
fn the_rules_hold() {
    let bound = Bound { faults: 2, foreign: 1, slow_reads: false, rows: four_rows() };
    exhaust(Rules::DECIDED, &bound);
}

/// Three faults of any kind over fewer rows.
#[test]
fn the_rules_hold_under_three_faults() {
    let bound = Bound { faults: 3, foreign: 1, slow_reads: false, rows: three_rows() };
    exhaust(Rules::DECIDED, &bound);
}

/// `make model BOUND=3`: minutes to hours.
#[test]
fn the_rules_hold_to_a_bound_of_your_own() {
    let Some(faults) = number("BOUND") else { return };
    let foreign = number("FOREIGN").unwrap_or(faults).min(faults);
    let rows = if number("ROWS") == Some(3) { three_rows() } else { four_rows() };
    exhaust(Rules::DECIDED, &Bound { faults, foreign, slow_reads: number("SLOW") == Some(1), rows });
}

/// Each rule is there for a reason, and the model is able to fail.
#[test]
fn without_a_rule_something_breaks() {
    let mut silent = Vec::new();
    for bug in seeded::all() {
        let bound = Bound { faults: bug.faults, foreign: bug.foreign, slow_reads: false, rows: four_rows() };
        match broken(bug.rules, &bound, bug.breaks) {
            Some(steps) => println!("{}\n  breaks: {}\n{}", bug.name, bug.breaks, trace(&steps)),
            None => silent.push(bug.name),
        }
    }
    assert!(silent.is_empty(), "the checker finds nothing wrong with: {silent:?}");
    assert!(seeded::all().iter().any(|bug| bug.breaks == p::TWICE));
}
