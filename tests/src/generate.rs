//! Random contracts and random events, from a seed.
//!
//! *In*: a seed. *Out*: a [`Case`]: contract YAML, records in arrival order, a clock, instants to ask
//! about. *Never*: two different cases from one seed.

mod contract;
mod entity;
mod events;
mod json;
#[cfg(test)]
mod later;
mod measure;
mod metric;
mod related;
pub mod twist;

use crate::oracle::admit::Raw;

/// One random case.
#[derive(Debug, Clone)]
pub struct Case {
    /// Where it came from.
    pub seed: u64,
    /// All contracts.
    pub yaml: String,
    /// The clock before anything arrives.
    pub start: i64,
    /// What happens.
    pub segments: Vec<Segment>,
    /// Number of partitions with plain events.
    pub partitions: usize,
    /// The partitions after them: of each, the event type of its Debezium topic.
    pub topics: Vec<String>,
}

/// The clock moves, records arrive, questions are asked.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The clock is set to this first.
    pub clock: i64,
    /// Records in arrival order; order between partitions may be changed.
    pub records: Vec<Raw>,
    /// Historical instants to ask about, beside now.
    pub instants: Vec<i64>,
    /// The clock jumped so far that early rows are no longer retained.
    pub far: bool,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum T {
    Text,
    Bool,
    Int,
    /// An integer near the limits: never summed.
    Big,
    Float,
    /// A decimal that sums stay within.
    Dec,
    /// A decimal of 38 digits: never summed.
    Huge,
    Ts,
    Date,
    Dur,
    /// A list or struct: not a value of its own.
    Nested,
}

/// A column an expression can read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    t: T,
}

/// An event contract, as far as the other generators must know it.
#[derive(Debug, Clone)]
struct EventModel {
    name: String,
    fields: Vec<FieldModel>,
    /// Name of the time field; none: the envelope's.
    time: Option<String>,
    /// Name of the id field; none: the envelope's.
    id: Option<String>,
    dedupe: i64,
    /// Fields, `time` and enrich columns.
    columns: Vec<Column>,
}

/// A declared field.
#[derive(Debug, Clone)]
struct FieldModel {
    path: Vec<String>,
    kind: &'static str,
    required: bool,
}

/// What a case is about, drawn once.
#[derive(Debug, Clone)]
struct Theme {
    /// The interesting instant.
    base: i64,
    /// How long the case lasts, microseconds.
    span: i64,
    /// How late the latest event is.
    late: i64,
    /// Explicit retention in days, where needed.
    retain: Option<i64>,
    /// Zone that most windows use.
    zone: &'static str,
    /// Also what was added to the generator after the first golden seeds.
    rich: bool,
    /// Also what was added after those about relations.
    fresh: bool,
    /// Rows are never taken back, so that sketches may count them.
    approx: bool,
    /// Also what was added last.
    later: bool,
}

/// Seeds from here on use all of the generator. Those below stay as they were when the golden seeds
/// were found, so that a golden seed means the same case for ever.
pub const RICH: u64 = 1_000_000_000;

/// Seeds from here on are about rows that relate to each other: joins, tables, change streams.
pub const RELATED: u64 = 2_000_000_000;

/// Seeds from here on are about which deployment ships which commit.
pub const SHIPPED: u64 = 4_000_000_000;

/// Seeds from here on are about sequences: intervals, what lasts, windows of windows.
pub const SEQUENCED: u64 = 5_000_000_000;

/// Seeds from here on use what came later: `top`, `distinct_approx`, tables over change streams, events without ids.
/// Odd ones are about rows that relate.
pub const FRESH: u64 = 8_000_000_000;

/// Seeds from here on also have rows that count ahead of the clock, copies of events in any partition at any distance,
/// and dimensions without room where something lasts. Odd ones are about sequences.
pub const LATER: u64 = 9_000_000_000;

/// Is the seed about rows that relate?
pub fn relates(seed: u64) -> bool {
    if seed >= FRESH { seed % 2 == 1 } else { seed >= RELATED }
}

/// Everything about a seed.
pub fn case(seed: u64) -> Case {
    if (SEQUENCED..FRESH).contains(&seed) || seed >= LATER && relates(seed) {
        return related::sequenced_case(seed);
    }
    if (SHIPPED..SEQUENCED).contains(&seed) {
        return related::shipped_case(seed);
    }
    if relates(seed) {
        return related::case(seed);
    }
    let mut rng = fastrand::Rng::with_seed(seed);
    let fresh = seed >= FRESH;
    let theme = Theme { rich: seed >= RICH, fresh, approx: fresh, later: seed >= LATER, ..theme(&mut rng) };
    let mut yaml = String::new();
    let models = contract::events(&mut rng, &mut yaml);
    let entities = entity::entities(&mut rng, &models, &mut yaml);
    metric::metrics(&mut rng, &theme, &models, &entities, &mut yaml);
    let partitions = rng.usize(1..4);
    let (start, segments) = events::segments(&mut rng, &theme, &models, partitions);
    Case { seed, yaml, start, segments, partitions, topics: Vec::new() }
}

fn theme(rng: &mut fastrand::Rng) -> Theme {
    const MOMENTS: [(&str, &str); 17] = [
        ("2026-03-29T01:00:00Z", "Europe/London"),
        ("2026-10-25T01:00:00Z", "Europe/London"),
        ("2026-03-08T07:00:00Z", "America/New_York"),
        ("2026-11-01T06:00:00Z", "America/New_York"),
        ("2026-04-04T15:00:00Z", "Australia/Lord_Howe"),
        ("2026-10-03T15:30:00Z", "Australia/Lord_Howe"),
        ("2026-04-04T14:00:00Z", "Pacific/Auckland"),
        ("2026-09-26T14:00:00Z", "Pacific/Auckland"),
        ("2026-12-31T11:00:00Z", "Pacific/Auckland"),
        ("2026-12-31T18:30:00Z", "Asia/Kolkata"),
        ("2027-01-01T00:00:00Z", "Europe/London"),
        ("2028-02-29T00:00:00Z", "Etc/UTC"),
        ("2026-02-28T18:30:00Z", "Asia/Kolkata"),
        ("2026-06-30T23:00:00Z", "Europe/London"),
        ("2026-04-23T22:00:00Z", "Africa/Cairo"),
        ("2026-09-06T04:00:00Z", "America/Santiago"),
        ("2026-07-15T12:00:00Z", "America/Los_Angeles"),
    ];
    use crate::oracle::zone::{DAY, HOUR, MINUTE, parse_instant};
    let (moment, zone) = MOMENTS[rng.usize(..MOMENTS.len())];
    let span = [10 * MINUTE, 2 * HOUR, 30 * HOUR, 3 * DAY][rng.usize(..4)];
    let deep = rng.u8(..4) == 0;
    Theme {
        base: parse_instant(moment).expect("a moment"),
        span,
        late: if deep { 100 * DAY } else { 2 * DAY },
        retain: deep.then_some(900),
        zone,
        rich: false,
        fresh: false,
        approx: false,
        later: false,
    }
}

/// True in `percent` of 100 cases.
fn chance(rng: &mut fastrand::Rng, percent: u32) -> bool {
    rng.u32(..100) < percent
}

/// One of `items`.
fn pick<'a, X>(rng: &mut fastrand::Rng, items: &'a [X]) -> &'a X {
    &items[rng.usize(..items.len())]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::harness::envelope;
    use crate::oracle::Oracle;
    use crate::oracle::admit::Fate;

    /// A generator that reaches little proves little: what must occur in 400 cases, and how often.
    #[test]
    fn reaches_what_it_should() {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut count = |what: &str| *seen.entry(what.to_string()).or_default() += 1;
        let words = [
            "agg: count",
            "agg: sum",
            "agg: avg",
            "agg: min",
            "agg: max",
            "agg: first",
            "agg: last",
            "agg: distinct",
            "agg: quantile",
            "agg: histogram",
            "agg: stddev",
            "agg: rate",
            "ratio:",
            "expr:",
            "shift:",
            "tumbling:",
            "sliding:",
            "session:",
            "to_date:",
            "all: true",
            "overflow: refuse",
            "overflow: other",
            "kind: Entity",
            "entity:",
            "empty:",
            "hidden:",
            "lateness:",
            "fields: { also_",
            "column:",
        ];
        for n in 0..400 {
            let case = case(if n % 2 == 0 { n } else { RICH + n });
            words.iter().filter(|word| case.yaml.contains(*word)).for_each(|word| count(word));
            let records: Vec<(Raw, i64)> = case
                .segments
                .iter()
                .flat_map(|s| s.records.iter().map(|raw| (raw.clone(), s.clock)))
                .collect();
            let now = case.segments.last().map_or(case.start, |s| s.clock);
            for (_, _, fate) in &Oracle::new(&case.yaml, &envelope(), &records, now).fates {
                count("event");
                match fate {
                    Fate::Admitted(_) => count("admitted"),
                    Fate::Duplicate { .. } => count("duplicate"),
                    Fate::Skipped => count("skipped"),
                    Fate::Refused { reasons, .. } => reasons.iter().for_each(|r| {
                        count(if r.starts_with("rule:") { "rule" } else { r });
                    }),
                }
            }
        }
        let of = |what: &str| seen.get(what).copied().unwrap_or(0);
        let reasons = [
            "malformed_json",
            "unknown_event_type",
            "missing",
            "wrong_type",
            "not_in_enum",
            "pattern",
            "min",
            "max",
            "min_length",
            "max_length",
            "time_in_future",
            "evaluation",
            "rule",
            "duplicate",
            "skipped",
        ];
        let rare: Vec<_> = words.iter().chain(&reasons).filter(|what| of(what) < 15).collect();
        assert!(rare.is_empty(), "hardly ever: {rare:?} of {seen:?}");
        assert!(of("admitted") * 4 > of("event"), "hardly any event is admitted: {seen:?}");
    }

    /// What was added last must occur, too.
    #[test]
    fn fresh_cases_reach_what_is_new() {
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        for n in 0..300 {
            let case = case(FRESH + n);
            let mut count = |what: &str, n: u64| *seen.entry(what.to_string()).or_default() += n;
            let words = [
                "agg: top",
                "agg: distinct_approx",
                "source: { event: cdc.ref",
                "valid_from: since\nsource: { event: cdc.ref",
                "key: [id, line]",
                "name: thing",
                "entity: thing",
            ];
            words.iter().filter(|word| case.yaml.contains(**word)).for_each(|word| count(word, 1));
            if !relates(FRESH + n) {
                continue;
            }
            let oracle = told(&case);
            let payloads = case.segments.iter().flat_map(|segment| &segment.records);
            let placeholder = crate::oracle::change::LEFT_OUT;
            for raw in payloads {
                let text = String::from_utf8_lossy(&raw.payload);
                count("left out", u64::from(text.contains(placeholder)));
                count("without an id", u64::from(raw.table.is_none() && !text.contains("event_id")));
            }
            for (_, _, fate) in &oracle.fates {
                let Fate::Refused { reasons, .. } = fate else { continue };
                count("unavailable", u64::from(reasons.contains("unavailable")));
            }
            for row in &oracle.admitted {
                if let Some(change) = row.change.filter(|_| row.event.starts_with("cdc.ref")) {
                    count(&format!("{:?} of a table", change.op), 1);
                }
            }
            for entity in &oracle.contracts.entities {
                let now = oracle.entity(&entity.name, oracle.now);
                count("rows of entities", now.len() as u64);
                count("events behind them", now.values().map(|row| row.events).sum());
            }
        }
        let wanted = [
            ("agg: top", 100),
            ("agg: distinct_approx", 30),
            ("source: { event: cdc.ref", 60),
            ("valid_from: since\nsource: { event: cdc.ref", 10),
            ("key: [id, line]", 15),
            ("name: thing", 40),
            ("entity: thing", 25),
            ("left out", 20),
            ("unavailable", 3),
            ("without an id", 300),
            ("Upsert of a table", 500),
            ("Delete of a table", 60),
            ("Truncate of a table", 10),
            ("rows of entities", 80),
            ("events behind them", 200),
        ];
        let of = |what: &str| seen.get(what).copied().unwrap_or(0);
        let rare: Vec<_> = wanted.iter().filter(|(what, least)| of(what) < *least).collect();
        assert!(rare.is_empty(), "hardly ever: {rare:?} of {seen:?}");
    }

    fn told(case: &Case) -> Oracle {
        let records = case.segments.iter().flat_map(|s| s.records.iter().map(|raw| (raw.clone(), s.clock)));
        let now = case.segments.last().map_or(case.start, |s| s.clock);
        Oracle::new(&case.yaml, &envelope(), &records.collect::<Vec<_>>(), now)
    }

    /// Joins that join nothing prove nothing.
    #[test]
    fn rows_relate() {
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        for n in 0..300 {
            let case = case(RELATED + n);
            let mut count = |what: &str, n: u64| *seen.entry(what.to_string()).or_default() += n;
            let words = [
                "pick: last",
                "pick: each",
                "order: before",
                "order: any",
                "strict: true",
                "AND",
                "changelog: true",
                "enrich:",
                "as_of: event",
                "as_of: now",
                "valid_from:",
                "valid_to:",
                "missing: drop",
                "fields: { also_",
                "owners.team = teams.k2",
                "lower(owners.team) = teams.k2",
                "time - ",
                "of: b",
                "since: { type: date }",
            ];
            words.iter().filter(|word| case.yaml.contains(**word)).for_each(|word| count(word, 1));
            let oracle = told(&case);
            for row in &oracle.admitted {
                if let Some(change) = row.change {
                    count(&format!("{:?}", change.op), 1);
                }
            }
            for metric in &oracle.contracts.metrics {
                let made = crate::oracle::rows::rows(&oracle, metric, oracle.now);
                made.lost.iter().for_each(|(reason, n)| count(reason, *n));
                let joined = made.rows.iter().filter(|row| row.alias.is_none()).count();
                count("joined rows", joined as u64);
                count(&format!("chains of {}", metric.joins.len()), u64::from(joined > 0));
            }
        }
        let wanted = [
            ("joined rows", 1500),
            ("chains of 1", 40),
            ("chains of 2", 25),
            ("chains of 3", 15),
            ("waiting", 100),
            ("unmatched", 300),
            ("missing", 50),
            ("held", 50),
            ("failed", 50),
            ("Upsert", 1000),
            ("Delete", 100),
            ("Truncate", 15),
            ("owners.team = teams.k2", 5),
            ("since: { type: date }", 10),
            ("strict: true", 40),
        ];
        let rare: Vec<_> =
            wanted.iter().filter(|(what, least)| seen.get(*what).copied().unwrap_or(0) < *least).collect();
        assert!(rare.is_empty(), "hardly ever: {rare:?} of {seen:?}");
        assert!(seen.len() >= 30, "{seen:?}");
    }

    /// Deployments that ship nothing prove nothing.
    #[test]
    fn deployments_ship() {
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        for n in 0..300 {
            let case = case(SHIPPED + n);
            let mut count = |what: &str, n: u64| *seen.entry(what.to_string()).or_default() += n;
            let words = [
                "changelog: true",
                "of: p",
                "cold_start: all",
                "[a.sha, a.other]",
                "AND",
                "to: d",
                "from: e",
            ];
            words.iter().filter(|word| case.yaml.contains(**word)).for_each(|word| count(word, 1));
            let oracle = told(&case);
            for metric in &oracle.contracts.metrics {
                let made = crate::oracle::rows::rows(&oracle, metric, oracle.now);
                made.lost.iter().for_each(|(reason, n)| count(reason, *n));
                count("joined rows", made.rows.iter().filter(|row| row.alias.is_none()).count() as u64);
            }
        }
        let wanted = [
            ("joined rows", 900),
            ("cold_start", 500),
            ("waiting", 100),
            ("unmatched", 200),
            ("changelog: true", 80),
            ("of: p", 80),
            ("[a.sha, a.other]", 30),
            ("AND", 30),
            ("to: d", 50),
            ("from: e", 20),
        ];
        let rare: Vec<_> =
            wanted.iter().filter(|(what, least)| seen.get(*what).copied().unwrap_or(0) < *least).collect();
        assert!(rare.is_empty(), "hardly ever: {rare:?} of {seen:?}");
    }

    /// Keys that stay where they are prove nothing.
    #[test]
    fn keys_move() {
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        for n in 0..300 {
            let case = case(SEQUENCED + n);
            let mut count = |what: &str, n: u64| *seen.entry(what.to_string()).or_default() += n;
            let words = [
                "changelog: true",
                "enrich:",
                "agg: concurrent",
                "duration_in_state",
                "state: a }",
                "as_of()",
            ];
            let more = [
                "over:",
                "before: zero",
                "running: true",
                "shift: c",
                "of: passed",
                "of: item",
                "entity:",
                "join:",
            ];
            words
                .iter()
                .chain(&more)
                .filter(|word| case.yaml.contains(**word))
                .for_each(|word| count(word, 1));
            let oracle = told(&case);
            let over_events = |m: &&crate::oracle::contract::Metric| m.aliases.iter().all(|a| !a.entity);
            for metric in oracle.contracts.metrics.iter().filter(over_events) {
                let made = crate::oracle::rows::rows(&oracle, metric, oracle.now);
                made.lost.iter().for_each(|(reason, n)| count(reason, *n));
                for row in &made.rows {
                    let kind = row.alias.clone().unwrap_or_default();
                    let open =
                        kind == "interval" && row.parts["interval"].to_string().contains("\"end\", Null");
                    count(if open { "open" } else { &kind }, 1);
                }
            }
        }
        let wanted = [
            ("interval", 1200),
            ("open", 500),
            ("item", 90),
            ("passed", 100),
            ("no_key", 100),
            ("no_state", 100),
            ("changelog: true", 60),
            ("enrich:", 60),
            ("agg: concurrent", 100),
            ("duration_in_state", 100),
            ("state: a }", 15),
            ("as_of()", 100),
            ("over:", 100),
            ("before: zero", 30),
            ("running: true", 30),
            ("shift: c", 60),
            ("of: passed", 60),
            ("entity:", 20),
            ("join:", 8),
            ("of: item", 60),
        ];
        let rare: Vec<_> =
            wanted.iter().filter(|(what, least)| seen.get(*what).copied().unwrap_or(0) < *least).collect();
        assert!(rare.is_empty(), "hardly ever: {rare:?} of {seen:?}");
    }

    /// What is told twice, with noise or in another order is the same.
    #[test]
    fn twists_change_no_answer() {
        use crate::oracle::View;
        use twist::{Twist, twist};
        for n in (0..60)
            .map(|n| RELATED + n)
            .chain((0..60).map(|n| SHIPPED + n))
            .chain((0..60).map(|n| SEQUENCED + n))
        {
            let plain = case(n);
            let wanted = told(&plain);
            for how in [Twist::Doubled, Twist::Noise, Twist::Reversed] {
                let got = told(&twist(&plain, how));
                for (metric, same) in wanted.contracts.metrics.iter().zip(&got.contracts.metrics) {
                    let (a, b) = (View::new(&wanted, metric, 1), View::new(&got, same, 1));
                    for (window, _) in &metric.windows {
                        let by: Vec<String> = metric.dimensions.iter().map(|d| d.name.clone()).collect();
                        let (a, b) =
                            (a.ask(window, &by, None, wanted.now), b.ask(window, &by, None, got.now));
                        assert_eq!(
                            a, b,
                            "seed {} {how:?} metric {} window {window}",
                            plain.seed, metric.name
                        );
                    }
                }
            }
        }
    }
}
