//! Damaged checkpoints: told of and passed over, never taken for what they are not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use contracts::Catalog;
use engine::checkpoint::{Checkpoints, Open, Restored, Vault};
use engine::{Clock, Engine, EngineError, MetricQuery, NoHook, Options, Published};
use tests::generate::{RELATED, RICH, SEQUENCED, SHIPPED, case};
use tests::harness::vault::Memory;
use tests::harness::{Rig, catalog};

/// Everything that readers see but the tick.
fn digest(published: &Published) -> String {
    let mut out = format!("{:?}\n", published.counters);
    for (number, metric) in published.catalog.metrics.iter().enumerate() {
        let _ = writeln!(out, "{} {:?}", metric.head.name, published.lost(number));
        for window in &metric.windows {
            let by: Vec<String> = metric.dimensions.iter().map(|d| d.name.clone()).collect();
            for by in [Vec::new(), by] {
                let query = MetricQuery {
                    window: Some(window.name.clone()),
                    measures: None,
                    by,
                    filter: None,
                    as_of: None,
                };
                let _ = writeln!(out, "{} {:?}", window.name, published.metric(number, &query));
            }
        }
    }
    for (number, entity) in published.catalog.entities.iter().enumerate() {
        let _ = writeln!(out, "{} {}", entity.head.name, published.entity_rows(number));
    }
    out
}

fn start(catalog: &Arc<Catalog>, vault: Memory, workers: usize) -> Result<(Engine, Restored), EngineError> {
    let options = Options { workers, keys_per_metric: 100_000, clock: Clock::Manual(i64::MIN) };
    let checkpoints = Checkpoints {
        vault: Arc::new(vault) as Arc<dyn Vault>,
        every: None,
        keep: 2,
        gate: Arc::new(Open),
        restore: true,
        sources: None,
        resume_until: BTreeMap::new(),
    };
    Engine::start_from(catalog.clone(), options, Arc::new(NoHook), checkpoints)
}

/// The files of two checkpoints of a case, and what was seen at each, by its number.
fn kept(seed: u64) -> (Arc<Catalog>, Memory, BTreeMap<u64, String>) {
    let case = case(seed);
    let catalog = catalog(&case.yaml).expect("a good contract");
    let mut rig = Rig::start(&catalog, 2, case.partitions, &case.topics, case.start).expect("a rig");
    let mut seen = BTreeMap::new();
    for (number, segment) in case.segments.iter().filter(|segment| !segment.far).enumerate() {
        rig.clock(segment.clock);
        rig.expect(&segment.records);
        segment.records.iter().for_each(|raw| rig.send(&[raw]));
        rig.settle(segment.clock);
        rig.checkpoint().expect("a checkpoint");
        seen.insert(number as u64 + 1, digest(&rig.published()));
    }
    let vault = rig.vault().copy();
    rig.stop();
    (catalog, vault, seen)
}

/// One way to damage a file.
fn damage(bytes: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut fastrand::Rng) {
    let at = rng.usize(..bytes.len().max(1));
    match rng.u8(..7) {
        0 => bytes[at] ^= 1 << rng.u8(..8),
        1 => bytes.truncate(at),
        2 => {
            let end = (at + rng.usize(1..64)).min(bytes.len());
            bytes[at..end].fill(0);
        }
        3 => bytes.extend([0; 9]),
        4 => bytes.clear(),
        5 => *bytes = others[rng.usize(..others.len())].clone(),
        _ => bytes.insert(at, rng.u8(..)),
    }
}

#[test]
fn damage_is_told_of_and_never_served() {
    let mut rng = fastrand::Rng::with_seed(11);
    let (mut older, mut refused) = (0, 0);
    for seed in [RICH + 3, RICH + 9, RELATED + 4, RELATED + 8, SHIPPED + 2, SEQUENCED + 5] {
        let (catalog, vault, seen) = kept(seed);
        let files: Vec<(String, Vec<u8>)> = vault.files().clone().into_iter().collect();
        let bytes: Vec<Vec<u8>> = files.iter().map(|(_, bytes)| bytes.clone()).collect();
        let newest = *seen.keys().next_back().expect("a checkpoint");
        for (name, _) in files.iter().cycle().take(120.max(files.len())) {
            let vault = vault.copy();
            let whole = vault.files()[name].clone();
            let gone = rng.u8(..8) == 0;
            match gone {
                true => drop(vault.files().remove(name)),
                false => damage(vault.files().get_mut(name).expect("the file"), &bytes, &mut rng),
            }
            let same = vault.files().get(name) == Some(&whole);
            let started = catch_unwind(AssertUnwindSafe(|| start(&catalog, vault, rng.usize(1..=3))));
            let started = started.unwrap_or_else(|_| panic!("seed {seed}, {name}: a panic"));
            match started {
                Ok((engine, restored)) => {
                    engine.flush();
                    let Some(id) = restored.id else {
                        let only = gone && newest == 1 && restored.rebuild.is_some();
                        assert!(only, "seed {seed}, {name}: an empty start");
                        continue;
                    };
                    assert_eq!(digest(&engine.reader().load()), seen[&id], "seed {seed}, {name}");
                    let passed_over = id < newest;
                    assert!(!passed_over || gone || !restored.skipped.is_empty(), "{name}: {restored:?}");
                    older += usize::from(passed_over);
                    assert!(!(same && passed_over), "{name} is whole");
                }
                Err(EngineError::Restore(error)) => {
                    assert!(error.to_string().contains("move them away"), "{error}");
                    refused += 1;
                }
                Err(other) => panic!("seed {seed}, {name}: {other}"),
            }
        }
    }
    assert!(older > 50 && refused > 0, "{older} older ones, {refused} refusals");
}

#[test]
fn what_could_not_be_written_is_written_later() {
    let (mut failed, mut written) = (0, 0);
    for seed in [RICH + 1, RICH + 17, RELATED + 2, SHIPPED + 6, SEQUENCED + 3] {
        let case = case(seed);
        let catalog = catalog(&case.yaml).expect("a good contract");
        let mut rig = Rig::start(&catalog, 2, case.partitions, &case.topics, case.start).expect("a rig");
        rig.vault().fail(Some(seed));
        for segment in case.segments.iter().filter(|segment| !segment.far) {
            rig.clock(segment.clock);
            rig.expect(&segment.records);
            for raw in &segment.records {
                rig.send(&[raw]);
                // Many, so that files of ids become one and tables are written whole again.
                match rig.checkpoint() {
                    Ok(_) => written += 1,
                    Err(_) => failed += 1,
                }
            }
            rig.settle(segment.clock);
        }
        rig.vault().fail(None);
        rig.checkpoint().expect("a checkpoint");
        let seen = digest(&rig.published());
        let vault = rig.vault().copy();
        rig.stop();
        let (files, manifests) = {
            let files = vault.files();
            (files.len(), files.keys().filter(|name| name.starts_with("manifest")).count())
        };
        assert!(manifests <= 2, "{manifests} are kept");
        let (engine, restored) = start(&catalog, vault, 3).expect("a start");
        engine.flush();
        assert_eq!(digest(&engine.reader().load()), seen, "seed {seed}, {files} files, {restored:?}");
        assert!(restored.skipped.is_empty(), "{restored:?}");
    }
    assert!(failed > 20 && written > 20, "{failed} failed, {written} written");
}
