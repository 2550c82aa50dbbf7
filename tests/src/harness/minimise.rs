//! The smallest case that still fails.
//!
//! *In*: a failing case and its road. *Out*: the same with fewer segments, records and contracts.
//! *Never*: a case that fails in another way only because it was cut: the kind of the first difference
//! (a metric, an entity, counters, a panic, ...) stays the same.

use crate::generate::Case;

use super::run::{Road, differences};

/// Tries at most this often, so that a failure is reported soon.
const TRIES: usize = 250;

/// Drops whole metrics, then records, while the case still fails.
pub fn minimise(case: &Case, road: Road) -> Case {
    let mut best = case.clone();
    let wanted = kind(&differences(case, road));
    let mut tries = 0;
    let mut fails = |case: &Case| {
        tries += 1;
        tries <= TRIES && kind(&differences(case, road)) == wanted
    };
    let mut doc = 0;
    while doc < documents(&best).len() {
        let mut kept = documents(&best);
        kept.remove(doc);
        let smaller = Case { yaml: kept.join("---\n"), ..best.clone() };
        if kept.is_empty() || !fails(&smaller) {
            doc += 1;
        } else {
            best = smaller;
        }
    }
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
    best
}

/// The first word of the first difference.
fn kind(found: &[String]) -> Option<String> {
    let line = found.iter().find(|line| !line.starts_with("after segment"))?;
    line.split(|c: char| !c.is_alphabetic() && c != '`').next().map(str::to_string)
}

fn documents(case: &Case) -> Vec<String> {
    case.yaml.split("---\n").map(str::to_string).collect()
}
