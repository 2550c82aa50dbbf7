//! Contracts change while an engine runs: every answer is that of an engine which never knew the old ones.
//!
//! *In*: random cases, told by an engine of other contracts first. *Out*: agreement with the oracle of the new ones,
//! which has read everything. *Never*: state that the change touched and that stayed.

use std::sync::atomic::{AtomicUsize, Ordering};

use contracts::{Effect, StatePlan};
use engine::MetricQuery;
use tests::generate::{Case, Segment};
use tests::harness::change::others;
use tests::harness::compare::compare;
use tests::harness::many::{each_kind, number};
use tests::harness::{Rig, catalog, envelope};
use tests::oracle::Oracle;
use tests::oracle::admit::Raw;

static KEPT: AtomicUsize = AtomicUsize::new(0);
static AGAIN: AtomicUsize = AtomicUsize::new(0);

fn walk(case: &Case, rng: &mut fastrand::Rng) -> Result<(), String> {
    let segments: Vec<&Segment> = case.segments.iter().filter(|segment| !segment.far).collect();
    let change = rng.usize(..segments.len());
    let start = segments[change].clock;
    let mut ways = vec![others(&case.yaml, rng)];
    if rng.u8(..4) == 0 {
        ways.push(others(&case.yaml, rng));
    }
    let told = |what: &str| {
        let (old, new) = (catalog(&ways[ways.len() - 1]), catalog(&case.yaml));
        let plan = old.ok().zip(new.ok());
        let plan = plan.map(|(old, new)| format!("{:?}", StatePlan::new(&old, &new).contracts(&new)));
        let old = ways.join("\n####\n");
        format!(
            "{what}, change in segment {change}: {}\nold:\n{old}\nnew:\n{}",
            plan.unwrap_or_default(),
            case.yaml
        )
    };
    let workers = |rng: &mut fastrand::Rng| [1, 2, 4][rng.usize(..3)];
    let first = catalog(&ways[0])?;
    let mut rig = Rig::start(&first, workers(rng), case.partitions, &case.topics, start)?;
    let mut arrived: Vec<(Raw, i64)> = Vec::new();
    for (number, segment) in segments.iter().enumerate() {
        let clock = segment.clock.max(start);
        rig.clock(clock);
        rig.expect(&segment.records);
        segment.records.iter().for_each(|raw| rig.send(&[raw]));
        rig.settle(segment.clock);
        arrived.extend(segment.records.iter().map(|raw| (raw.clone(), clock)));
        if number < change {
            continue;
        }
        if number == change {
            let before: Vec<&Raw> = arrived.iter().map(|(raw, _)| raw).collect();
            let beyond = segments.get(number + 1).map(|next| next.records.as_slice()).unwrap_or_default();
            let new = catalog(&case.yaml)?;
            let mut last = first.clone();
            for next in ways[1..].iter().map(String::as_str).chain([case.yaml.as_str()]) {
                let next = catalog(next)?;
                count(&StatePlan::new(&last, &next));
                rig = rig.change(&next, workers(rng), &before, beyond).map_err(|error| told(&error))?;
                last = next;
            }
            assert_eq!(last.hash, new.hash);
            if rng.bool() {
                // Its first checkpoint holds all of it.
                let saved = rig.checkpoint()?;
                rig = rig.restart(workers(rng), saved, &before)?;
            }
        }
        let published = rig.published();
        let mut oracle = Oracle::new(&case.yaml, &envelope(), &arrived, segment.clock);
        let found = compare(&mut oracle, &published, &segment.instants);
        if !found.is_empty() {
            rig.stop();
            return Err(told(&format!("after segment {number}:\n{}", found.join("\n"))));
        }
    }
    rig.stop();
    Ok(())
}

fn count(plan: &StatePlan) {
    for effect in plan.metrics.iter().chain(&plan.entities) {
        let counter = if *effect == Effect::Keep { &KEPT } else { &AGAIN };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn answers_are_those_of_who_never_knew_the_old_contracts() {
    each_kind(number("CHANGES").unwrap_or(25), 7_000, walk, || {
        let (kept, again) = (KEPT.load(Ordering::Relaxed), AGAIN.load(Ordering::Relaxed));
        format!("{kept} metrics and entities kept, {again} made again")
    });
}

const SHOP: &str = "apiVersion: streamgauge/v1
kind: Event
name: order
version: 1.0.0
fields:
  n: { type: int }
  who: { type: string }
---
apiVersion: streamgauge/v1
kind: Entity
name: buyer
version: 1.0.0
key: who
events: order
fields:
  bought: { sum: n }
---
apiVersion: streamgauge/v1
kind: Metric
name: kept
version: 1.0.0
events:
  a: { type: order }
measures:
  total: { agg: sum, value: n }
windows:
  ever: { all: true }
";

const ADDED: &str = "---
apiVersion: streamgauge/v1
kind: Metric
name: added
version: 1.0.0
events:
  a: { type: order }
measures:
  rows: { agg: count }
windows:
  ever: { all: true }
---
apiVersion: streamgauge/v1
kind: Metric
name: buyers
version: 1.0.0
entity: buyer
measures:
  bought: { agg: sum, value: bought }
windows:
  ever: { all: true }
";

fn orders(offsets: std::ops::Range<i64>, now: i64) -> Vec<Raw> {
    let order = |offset: i64| {
        Raw {
        partition: 0,
        offset,
        received: now,
        key: None,
        table: None,
        payload: format!(
            "{{\"event_id\":\"e{offset}\",\"type\":\"order\",\"at\":\"2026-11-21T00:00:00Z\",\"n\":1,\"who\":\"w{}\"}}",
            offset % 3
        )
        .into_bytes(),
    }
    };
    offsets.map(order).collect()
}

fn value(rig: &Rig, metric: &str) -> String {
    let published = rig.published();
    let index = published.catalog.metric_index(metric).expect("the metric");
    let query = MetricQuery { window: None, measures: None, by: Vec::new(), filter: None, as_of: None };
    format!("{:?}", published.metric(index, &query).expect("an answer").value)
}

#[test]
fn what_the_log_has_lost_stays_in_what_is_kept() {
    let now = 1_795_219_200_000_000 + 3_600_000_000; // 2026-11-21T01:00:00Z
    let all = orders(0..10, now);
    let new = format!("{SHOP}{ADDED}");
    let (old, new) = (catalog(SHOP).expect("good"), catalog(&new).expect("good"));
    for workers in [1, 2, 4] {
        let mut rig = Rig::start(&old, workers, 1, &[], now).expect("a rig");
        rig.clock(now);
        rig.expect(&all);
        all.iter().for_each(|raw| rig.send(&[raw]));
        assert!(value(&rig, "kept").contains("10"), "{}", value(&rig, "kept"));
        // Retention has taken the first six.
        let left: Vec<&Raw> = all[6..].iter().collect();
        let mut rig = rig.change(&new, workers, &left, &orders(10..12, now)).expect("a change");
        orders(10..12, now).iter().for_each(|raw| rig.send(&[raw]));
        let values: Vec<String> = ["kept", "added", "buyers"].map(|metric| value(&rig, metric)).into();
        let wanted = |n: i64| format!("{:?}", contracts::Value::Int(n));
        assert!(values[0].contains(&wanted(12)), "kept: {values:?}");
        assert!(values[1].contains(&wanted(6)), "what is left, and what came: {values:?}");
        assert!(values[2].contains(&wanted(12)), "the rows of a kept entity: {values:?}");
        rig.stop();
    }
}
