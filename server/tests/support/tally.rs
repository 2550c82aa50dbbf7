//! What the server says it has received, and what became of it.
//!
//! *In*: the text of GET `/metrics`. *Out*: counts by source, event type and outcome, their sum checked.
//! *Never*: a count taken from inside the server.
#![allow(dead_code)] // Each test file uses its part.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Outcomes of one source and event type.
pub(crate) type Tally = BTreeMap<String, u64>;

/// By source and event type (`unknown` for types without a contract).
pub(crate) fn tallies(metrics: &str) -> BTreeMap<(String, String), Tally> {
    let mut found: BTreeMap<(String, String), Tally> = BTreeMap::new();
    for line in metrics.lines().filter(|l| l.starts_with("streamgauge_events_total{")) {
        let (labels, count) = line.rsplit_once("} ").unwrap();
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\"")).unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        };
        let of = found.entry((label("source"), label("event_type"))).or_default();
        *of.entry(label("outcome")).or_default() += count.parse::<u64>().unwrap();
    }
    for (of, tally) in &found {
        let sum = ["admitted", "refused", "duplicate", "skipped"].map(|outcome| tally[outcome]);
        assert_eq!(tally["received"], sum.iter().sum::<u64>(), "{of:?}: {tally:?}");
    }
    found
}

/// The sum over all sources and types.
pub(crate) fn total(metrics: &str) -> Tally {
    let mut all = Tally::new();
    for tally in tallies(metrics).into_values() {
        for (outcome, count) in tally {
            *all.entry(outcome).or_default() += count;
        }
    }
    all
}

/// A file of the npm packages that `scripts/fixtures.sh` pins and installs.
pub(crate) fn fixture(path: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/fixtures.sh");
    let output = Command::new(&script).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", script.display());
    let folder = String::from_utf8(output.stdout).unwrap();
    Path::new(folder.trim()).join(path)
}
