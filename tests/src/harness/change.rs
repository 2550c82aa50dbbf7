//! A rig goes over to other contracts, as a reload does.
//!
//! *In*: a rig, a catalog, the records so far and some beyond. *Out*: a rig of that catalog with the state that may be kept, and
//! what had to be made again from the records. *Never*: a record beyond where the first rig stood in what is made again.

use std::sync::Arc;

use contracts::{Catalog, StatePlan};
use engine::checkpoint::{Base, Checkpoints, Open, Parts, Vault};
use engine::{Beside, Clock, Engine, Options};

use super::vault::Memory;
use super::{Make, Rig, Told, catalog};
use crate::oracle::admit::Raw;

/// Ways in which old contracts may have been others: the text of a document, and what it was.
const OTHER: [(&str, &str, &str); 12] = [
    ("kind: Event", "fields:\n", "fields:\n  zz: { type: int }\n"),
    ("kind: Event", "version: 1.0.0\n", "version: 1.0.0\ndedupe: 7s\n"),
    ("kind: Event", "severity: error", "severity: warning"),
    ("kind: Event", "max: 1000", "max: 3"),
    ("kind: Entity", "fields:\n", "history: 2\nfields:\n"),
    ("kind: Metric", "measures:\n", "measures:\n  zz: { agg: count }\n"),
    ("kind: Metric", "windows:\n", "windows:\n  zz: { tumbling: 2h }\n"),
    ("kind: Metric", "name: m", "name: n"),
    ("kind: Metric", "within: ", "within: 1"),
    ("kind: ", "version: 1.0.0\n", "version: 1.0.0\ntitle: Another\n"),
    ("kind: Metric", "where: ", "where: 1 = 1 AND "),
    ("kind: Metric", "version: 1.0.0\n", "version: 1.0.0\nretain: { live: 800d }\n"),
];

/// An event that only the old contracts know: with it, all others have other places in the catalog.
const BEFORE_ALL: &str =
    "apiVersion: streamgauge/v1\nkind: Event\nname: aaa.first\nversion: 1.0.0\nfields:\n  x: { type: int }\n";

/// Other contracts than these, and without mistakes.
pub fn others(yaml: &str, rng: &mut fastrand::Rng) -> String {
    for _ in 0..200 {
        let mut docs: Vec<String> = yaml.split("---\n").map(str::to_owned).collect();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..docs.len());
            match rng.u8(..10) {
                0..2 if docs.len() > 1 => drop(docs.remove(at)),
                2 if !docs.iter().any(|doc| doc == BEFORE_ALL) => docs.push(BEFORE_ALL.to_owned()),
                _ => {
                    let (kind, is, was) = OTHER[rng.usize(..OTHER.len())];
                    if docs[at].contains(kind) {
                        docs[at] = docs[at].replacen(is, was, 1);
                    }
                }
            }
        }
        let old = docs.join("---\n");
        if old != yaml && catalog(&old).is_ok() {
            return old;
        }
    }
    yaml.to_owned()
}

/// The sources of all rigs.
const SOURCES: [&str; 2] = ["test", "cdc"];

impl Rig {
    /// Runs `catalog` from now on; `before` are the records so far, `beyond` some that come after them, which whoever reads
    /// history meets, too.
    pub fn change(
        self,
        catalog: &Arc<Catalog>,
        workers: usize,
        before: &[&Raw],
        beyond: &[Raw],
    ) -> Result<Rig, String> {
        let written = self.engine.checkpoint().map_err(|e| format!("checkpoint: {e}"))?;
        let Rig { engine, ends, vault, make, told, .. } = self;
        let plan = StatePlan::new(&make.catalog, catalog);
        let of = |e: &dyn std::fmt::Display| format!("change: {e}");
        let kept: Arc<dyn Vault> = vault.clone();
        let base = Base::read(&kept, written.id).map_err(|e| of(&e))?;
        let options = Options { workers, keys_per_metric: 100_000, clock: Clock::Manual(i64::MIN) };
        let again = match plan.history(catalog) {
            None => None,
            Some(history) => {
                let vault: Arc<dyn Vault> = Arc::new(Memory::default());
                let side = Make { catalog: history.catalog.clone(), ..make.clone() };
                let sources = SOURCES.map(str::to_owned).into();
                let beside =
                    Beside { base: base.clone(), vault: vault.clone(), sources, events: history.events };
                let hook = Arc::new(Told::default());
                let reads = Engine::start_beside(history.catalog, &options, hook.clone(), beside)
                    .map_err(|e| of(&e))?;
                let ends = vec![0; ends.len()];
                let mut rig = Rig {
                    decoders: side.decoders(),
                    engine: reads,
                    ends,
                    told: hook,
                    vault: Arc::new(Memory::default()),
                    make: side,
                };
                rig.announce();
                before.iter().for_each(|raw| rig.send(&[raw]));
                beyond.iter().for_each(|raw| rig.send(&[raw]));
                let written = rig.engine.checkpoint().map_err(|e| of(&e))?;
                rig.stop();
                Some(Base::read(&vault, written.id).map_err(|e| of(&e))?)
            }
        };
        engine.stop();
        let checkpoints = Checkpoints {
            vault: kept,
            every: None,
            keep: 2,
            gate: Arc::new(Open),
            restore: true,
            sources: None,
            resume_until: written.offsets,
        };
        let told = Arc::new(told.copy());
        let parts = Parts { base, again, plan };
        let (engine, _) = Engine::start_with(catalog.clone(), &options, told.clone(), &checkpoints, parts)
            .map_err(|e| of(&e))?;
        let make = Make { catalog: catalog.clone(), ..make };
        let mut rig = Rig { decoders: make.decoders(), engine, ends, told, vault, make };
        rig.engine.tap(true);
        rig.engine.keep_checkpoints(true);
        rig.engine.flush();
        before.iter().for_each(|raw| drop(rig.decode(&[raw])));
        Ok(rig)
    }
}
