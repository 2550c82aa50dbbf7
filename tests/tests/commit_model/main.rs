//! The commit protocol of the lake, every state of it to a bound (decision 0014).
//!
//! *In*: rules, a bound (env BOUND: faults in all; FOREIGN: foreign ones among them; SLOW=0: all tables are read at one instant). *Out*: no counterexample for
//! the rules that hold, one for each rule that is taken away. *Never*: code of the lake: the model came first.

mod model;
mod properties;
mod rules;
mod seeded;
mod world;
mod writer;

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use model::{Commits, Step};
use rules::{Bound, Rules, four_rows, one_table, three_rows};

fn number(name: &str) -> Option<u8> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number from 0 to 255 is wanted")))
}

/// Visits every state within the bound; prints how many. Returns what was seen to happen.
#[allow(clippy::print_stdout)]
fn exhaust(rules: Rules, bound: &Bound) -> BTreeSet<&'static str> {
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
    let mut seen = BTreeSet::new();
    for (name, path) in checker.discoveries() {
        let example = checker.discovery_classification(name).to_string() == "example";
        assert!(example, "not true: {name}\n{}", trace(&path.into_actions()));
        seen.insert(name);
    }
    seen
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

/// What CI looks at: each set of rows with as many faults of any kind as half a minute allows.
#[test]
fn the_rules_hold() {
    let mut seen = BTreeSet::new();
    for (rows, faults) in [(four_rows(), 1), (three_rows(), 2), (one_table(), 2)] {
        seen.extend(exhaust(Rules::DECIDED, &Bound { faults, foreign: faults, slow_reads: false, rows }));
    }
    // A model in which nothing goes wrong would prove nothing.
    let possible = properties::all().into_iter().filter(|p| p.expectation == Expectation::Sometimes);
    let unseen: Vec<_> = possible.map(|p| p.name).filter(|name| !seen.contains(name)).collect();
    assert!(unseen.is_empty(), "never happens: {unseen:?}");
}

/// `make model BOUND=2`: all of it with more faults, and tables that are read one by one. Minutes to hours.
#[test]
fn the_rules_hold_to_a_bound_of_your_own() {
    let Some(faults) = number("BOUND") else { return };
    let foreign = number("FOREIGN").unwrap_or(faults).min(faults);
    for rows in [one_table(), three_rows(), four_rows()] {
        exhaust(Rules::DECIDED, &Bound { faults, foreign, slow_reads: number("SLOW") != Some(0), rows });
    }
}

/// Each rule is there for a reason, and the model is able to fail.
#[test]
fn without_a_rule_something_breaks() {
    let mut silent = Vec::new();
    for bug in seeded::all() {
        let bound =
            Bound { faults: bug.faults, foreign: bug.foreign, slow_reads: false, rows: bug.rows.clone() };
        match broken(bug.rules, &bound, bug.breaks) {
            Some(steps) => println!("{}\n  breaks: {}\n{}", bug.name, bug.breaks, trace(&steps)),
            None => silent.push(bug.name),
        }
    }
    assert!(silent.is_empty(), "the checker finds nothing wrong with: {silent:?}");
}
