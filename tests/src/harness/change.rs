//! A rig goes over to other contracts, as a reload does.
//!
//! *In*: a rig, a catalog, the records so far and some beyond. *Out*: a rig of that catalog with the state that may be kept, and
//! what had to be made again from the records. *Never*: a record beyond where the first rig stood in what is made again.

use std::sync::Arc;

use contracts::{Catalog, StatePlan};
use engine::checkpoint::{Base, Checkpoints, Open, Parts, Vault};
use engine::{Beside, Clock, Engine, Options};

use super::vault::Memory;
use super::{Make, Rig, Told};
use crate::oracle::admit::Raw;

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
