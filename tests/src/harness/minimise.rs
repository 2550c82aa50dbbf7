//! The smallest case that still fails.
//!
//! *In*: a failing case and its road. *Out*: the same with fewer segments, records and contracts.
//! *Never*: a case that fails in another way only because it was cut: the kind of the first difference
//! (a metric, an entity, counters, a panic, ...) stays the same.

use crate::generate::Case;

use super::run::{Road, differences};

/// Tries at most this often, so that a failure is reported soon.
const TRIES: usize = 600;

/// Drops whole contracts, then records, then lines of contracts, then contracts that are not read any more,
/// while the case still fails.
pub fn minimise(case: &Case, road: Road, found: &[String]) -> Case {
    let mut best = case.clone();
    let wanted = kind(found);
    let mut tries = 0;
    // A case that fails now and then only gets several chances.
    let chances = if kind(&differences(case, road)) == wanted { 1 } else { 6 };
    let mut fails = |case: &Case| {
        (0..chances).any(|_| {
            tries += 1;
            tries <= TRIES && kind(&differences(case, road)) == wanted
        })
    };
    drop_documents(&mut best, &mut fails);
    for segment in 0..best.segments.len() {
        let mut step = best.segments[segment].records.len();
        while step > 0 {
            let mut at = 0;
            while at < best.segments[segment].records.len() {
                let mut smaller = best.clone();
                let records = &mut smaller.segments[segment].records;
                records.drain(at..(at + step).min(records.len()));
                if fails(&smaller) { best = smaller } else { at += step }
            }
            step /= 2;
        }
    }
    drop_lines(&mut best, &mut fails);
    drop_documents(&mut best, &mut fails);
    best
}

fn drop_documents(best: &mut Case, fails: &mut impl FnMut(&Case) -> bool) {
    let mut doc = 0;
    while doc < documents(best).len() {
        let mut kept = documents(best);
        kept.remove(doc);
        let smaller = Case { yaml: kept.join("---\n"), ..best.clone() };
        if kept.is_empty() || !fails(&smaller) {
            doc += 1;
        } else {
            *best = smaller;
        }
    }
}

/// Entries of maps and lists that stand on a line of their own, the last first: what is read is declared
/// before what reads it.
fn drop_lines(best: &mut Case, fails: &mut impl FnMut(&Case) -> bool) {
    for at in (0..best.yaml.lines().count()).rev() {
        let mut lines: Vec<&str> = best.yaml.lines().collect();
        let lonely =
            !lines[at].starts_with("  ") && lines.get(at + 1).is_some_and(|next| next.starts_with("  "));
        if lonely || lines[at] == "---" {
            continue;
        }
        lines.remove(at);
        let smaller = Case { yaml: lines.iter().map(|line| format!("{line}\n")).collect(), ..best.clone() };
        if fails(&smaller) {
            *best = smaller;
        }
    }
}

/// The first word of the first difference.
fn kind(found: &[String]) -> Option<String> {
    let line = found.iter().find(|line| !line.starts_with("after segment"))?;
    line.split(|c: char| !c.is_alphabetic() && c != '`').next().map(str::to_string)
}

fn documents(case: &Case) -> Vec<String> {
    case.yaml.split("---\n").map(str::to_string).collect()
}
