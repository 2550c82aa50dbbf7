//! What the cases that came last must reach.
//!
//! *In*: seeds from `LATER` on. *Out*: how often what is new occurs. *Never*: an engine; the oracle alone tells.

use std::collections::BTreeMap;

use super::{Case, LATER, case, relates};
use crate::harness::envelope;
use crate::oracle::admit::Raw;
use crate::oracle::contract::MeasureKind;
use crate::oracle::{Oracle, Val};

fn told(case: &Case) -> Oracle {
    let records = case.segments.iter().flat_map(|s| s.records.iter().map(|raw| (raw.clone(), s.clock)));
    let now = case.segments.last().map_or(case.start, |s| s.clock);
    Oracle::new(&case.yaml, &envelope(), &records.collect::<Vec<(Raw, i64)>>(), now)
}

#[test]
fn later_cases_reach_what_is_new() {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for n in 0..300 {
        let case = case(LATER + n);
        let oracle = told(&case);
        let mut count = |what, n: u64| *seen.entry(what).or_default() += n;
        let mut counted: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
        for row in oracle.admitted.iter().filter(|row| row.id.is_some() && !relates(case.seed)) {
            let id = row.id.as_deref().unwrap_or_default();
            counted.entry((&row.event, id)).or_default().push(row.place.0);
        }
        let several = |places: &&Vec<usize>| places.iter().any(|place| *place != places[0]);
        count("ids that count in several partitions", counted.values().filter(several).count() as u64);
        for metric in &oracle.contracts.metrics {
            let lasts = metric.measures.iter().any(|measure| matches!(measure.kind, MeasureKind::Lasting(_)));
            let narrow = metric.dimensions.iter().any(|dimension| dimension.max < 10);
            count("little room where something lasts", u64::from(lasts && narrow));
            if metric.aliases.iter().all(|alias| !alias.entity) {
                let Some(moment) = &metric.moment else { continue };
                let made = crate::oracle::rows::rows(&oracle, metric, oracle.now).rows;
                let ahead = made
                    .iter()
                    .filter(|row| matches!(row.env().eval(moment), Ok(Val::Ts(time)) if time >= oracle.now));
                count("rows of events ahead of the clock", ahead.count() as u64);
            } else if let Some(column) = &metric.aliases[0].time {
                for row in oracle.entity(&metric.aliases[0].types[0], oracle.now).into_values() {
                    let planned = |(name, value): &(String, Val)| {
                        name == column && matches!(value, Val::Ts(time) if *time > row.last)
                    };
                    count("rows of entities with a time of their own", 1);
                    count("rows of entities that are planned", u64::from(row.fields.iter().any(planned)));
                }
            }
        }
    }
    let wanted = [
        ("ids that count in several partitions", 20),
        ("little room where something lasts", 60),
        ("rows of events ahead of the clock", 50),
        ("rows of entities with a time of their own", 60),
        ("rows of entities that are planned", 8),
    ];
    let of = |what: &str| seen.get(what).copied().unwrap_or(0);
    let rare: Vec<_> = wanted.iter().filter(|(what, least)| of(what) < *least).collect();
    assert!(rare.is_empty(), "hardly ever: {rare:?} of {seen:?}");
}
