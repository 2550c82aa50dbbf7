//! Results of metrics in the lake of a shop that was killed.
//!
//! *In*: its folder, what was acknowledged. *Out*: a panic where the newest revisions are not what plain sums give, or where a
//! revision is missing or there twice. *Never*: a look at what the server says.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::oracle::{self, Numbers};
use super::{CALM, lake, log, wait};

/// Metrics with a table, and their measures as text.
const TABLES: [(&str, &str); 2] = [
    (
        "revenue",
        "revenue::varchar as revenue, orders, dearest::varchar as dearest, newest::varchar as newest, customers",
    ),
    ("paid", "paid, amount::varchar as amount"),
];

fn sql(folder: &Path, table: &str, query: &str) -> Option<Vec<Value>> {
    // Nobody may have written a row yet.
    let rows = lake(folder, "sql", &[&format!("streamgauge.{table}"), query]).ok()?;
    Some(serde_json::from_value(rows).expect("JSON"))
}

fn newest(folder: &Path) -> Numbers {
    let mut numbers = Numbers::new();
    for (metric, measures) in TABLES {
        let query = format!(
            "select epoch(_window_start)::bigint as start, region, {measures} from metric_{metric} qualify row_number() \
             over (partition by _window, _window_start, region order by _revision desc) = 1 and not _retracted"
        );
        for mut row in sql(folder, &format!("metric_{metric}"), &query).unwrap_or_default() {
            let start = row.as_object_mut().and_then(|row| row.remove("start")).expect("a start");
            let at = format!("{metric} {}", oracle::hour_of(start.as_i64().expect("seconds")));
            oracle::told(&at, &json!({ "rows": [row] }), &mut numbers);
        }
    }
    numbers
}

/// Waits until the newest revisions are what the acknowledged events give; how many numbers that are.
pub(crate) fn verify(folder: &Path, acked: &BTreeSet<u64>) -> usize {
    let wanted = oracle::results(acked);
    if wait(CALM, || newest(folder) == wanted).is_err() {
        let found = newest(folder);
        let keys: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
        let differ = keys.into_iter().filter(|key| wanted.get(*key) != found.get(*key));
        let differ: Vec<String> =
            differ.map(|key| format!("{key}: {:?} not {:?}", found.get(key), wanted.get(key))).collect();
        panic!("{} wrong results: {}\n{}", differ.len(), differ.join("; "), log(folder));
    }
    for (metric, _) in TABLES {
        let query = format!(
            "select _window_start, region from metric_{metric} group by all having count(*) <> max(_revision) \
             or min(_revision) <> 1 or count(distinct _revision) <> count(*)"
        );
        let gaps = sql(folder, &format!("metric_{metric}"), &query).unwrap_or_default();
        assert!(gaps.is_empty(), "revisions of {metric} that are left out or twice: {gaps:?}");
    }
    wanted.len()
}
