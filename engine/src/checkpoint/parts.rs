//! State put together from two checkpoints: what a change of contracts keeps, and what was made again beside it.
//!
//! *In*: the checkpoint of the engine that runs, one of an engine that has read history up to the very same place and
//! instant, and what is of whom. *Out*: workers with the state of both. *Never*: a piece of state from both or from
//! none; two that were cut at different places.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use contracts::batch::{EventBatch, Partition};
use contracts::{Catalog, Effect, StatePlan};
use operators::admit::dedupe::Secret;
use operators::admit::stored::take_rows;

use super::manifest::{self, Manifest};
use super::restore::{Loaded, RestoreError, Restored, load_states, offsets};
use super::{Offsets, Vault};
use crate::clock::monotonic;
use crate::publish::Counts;
use crate::worker::{Local, grow};

/// A checkpoint that can be read.
#[derive(Debug, Clone)]
pub struct Base {
    vault: Arc<dyn Vault>,
    pub(crate) manifest: Manifest,
}

impl Base {
    /// The checkpoint of a number.
    ///
    /// # Errors
    /// It is not there, or damaged.
    pub fn read(vault: &Arc<dyn Vault>, id: u64) -> Result<Self, RestoreError> {
        let name = manifest::name(id);
        let bytes = vault.get(&name)?;
        let wrong = |problem| RestoreError::NoneReadable(vec![format!("{name}: {problem}")]);
        Ok(Self { vault: Arc::clone(vault), manifest: Manifest::of(&bytes).map_err(wrong)? })
    }

    /// The newest one whose manifest is whole and whose keys this machine finds; `None`: there is none.
    ///
    /// # Errors
    /// The store does not answer.
    pub fn newest(vault: &Arc<dyn Vault>) -> Result<Option<Self>, RestoreError> {
        let mut ids: Vec<u64> = vault.list()?.iter().filter_map(|s| manifest::number(&s.name)).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        let read = ids.into_iter().find_map(|id| Self::read(vault, id).ok());
        Ok(read.filter(|base| base.manifest.proof == base.manifest.secret.proof()))
    }

    /// Hash of the catalog whose state it is.
    pub fn catalog(&self) -> &str {
        &self.manifest.catalog
    }

    /// The names of its files.
    pub fn files(&self) -> Vec<String> {
        let own = std::iter::once(manifest::name(self.manifest.id));
        own.chain(self.manifest.blobs().map(|blob| blob.name.clone())).collect()
    }

    /// Where it stands.
    pub fn offsets(&self) -> Offsets {
        offsets(&self.manifest)
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.manifest.secret
    }
}

/// What an engine's state is put together from.
#[derive(Debug)]
pub struct Parts {
    /// State of the engine that runs.
    pub base: Base,
    /// State that was made again from history; `None`: nothing had to be.
    pub again: Option<Base>,
    /// What is of whom.
    pub plan: StatePlan,
}

impl Parts {
    /// Gives the state to workers that have none; the error says which file is damaged, and how.
    pub(crate) fn load(&self, catalog: &Catalog, locals: &mut [Local]) -> Result<Restored, String> {
        let started = monotonic();
        let kept = self.kept(catalog);
        let manifest = &self.base.manifest;
        let base = load_states(self.base.vault.as_ref(), manifest, locals, |name| is_of(&kept, name))?;
        let mut rows = base.rows;
        self.hold(catalog, &base, &events_of(manifest), Effect::Keep, locals)?;
        if let Some(again) = &self.again {
            if again.manifest.now != manifest.now {
                return Err("its parts are of different instants".to_owned());
            }
            let names: Vec<String> = catalog.events.iter().map(|event| event.head.name.clone()).collect();
            let of_history = |name: &str| !is_of(&kept, name);
            let loaded = load_states(again.vault.as_ref(), &again.manifest, locals, of_history)?;
            rows += loaded.rows;
            self.hold(catalog, &loaded, &names, Effect::Replay, locals)?;
        }
        let from_entities: Vec<usize> = self.plan.from_entities(catalog).collect();
        grow::from_entities(locals, &from_entities, manifest.now)?;
        Ok(Restored {
            id: Some(manifest.id),
            offsets: self.base.offsets(),
            now: manifest.now,
            admitted_until: manifest.admitted_until,
            rows,
            took: started.elapsed(),
            ..Restored::default()
        })
    }

    /// Counters of rows: those of events that were read again are of the second reading. Rows of an event that is new
    /// were refused without one, and those of one that is gone are from now on.
    pub(crate) fn counters(&self, catalog: &Catalog) -> BTreeMap<(Arc<str>, String), Counts> {
        let before = super::counters(&self.base.manifest);
        let again = self.again.as_ref().map(|second| super::counters(&second.manifest)).unwrap_or_default();
        let old = events_of(&self.base.manifest);
        let mut counters = before.clone();
        for ((source, event), counts) in &before {
            match catalog.event_index(event) {
                _ if event.is_empty() => continue,
                Some(index) if self.plan.events[index] == Effect::Keep => continue,
                Some(_) => {}
                None => {
                    let unknown = counters.entry((Arc::clone(source), String::new())).or_default();
                    unknown.received += counts.received;
                    unknown.refused += counts.received;
                }
            }
            counters.remove(&(Arc::clone(source), event.clone()));
        }
        for ((source, event), counts) in again {
            let Some(index) = catalog.event_index(&event) else { continue };
            if self.plan.events[index] == Effect::Keep {
                continue;
            }
            if !old.contains(&event) {
                let unknown = counters.entry((Arc::clone(&source), String::new())).or_default();
                unknown.received = unknown.received.saturating_sub(counts.received);
                unknown.refused = unknown.refused.saturating_sub(counts.received);
            }
            counters.insert((source, event), counts);
        }
        counters
    }

    /// What the names of states that are kept begin with, and whether that is all of the name.
    fn kept(&self, catalog: &Catalog) -> Vec<(String, bool)> {
        let keep = |(_, effect): &(String, &Effect)| **effect == Effect::Keep;
        let events = catalog.events.iter().map(|event| format!("ids/{}", event.head.name));
        let events = events.zip(&self.plan.events).filter(keep).map(|(name, _)| (name, true));
        let entities = catalog.entities.iter().map(|entity| entity.head.name.clone());
        let entities = entities.zip(&self.plan.entities).filter(keep);
        let entities = entities
            .flat_map(|(name, _)| [(format!("entity/{name}"), true), (format!("stream/{name}"), true)]);
        let metrics = catalog.metrics.iter().map(|metric| metric.head.name.clone());
        let metrics = metrics.zip(&self.plan.metrics).filter(keep);
        let metrics = metrics
            .flat_map(|(name, _)| [(format!("metric/{name}"), true), (format!("relation/{name}"), false)]);
        events.chain(entities).chain(metrics).collect()
    }

    /// Rows ahead of the clock of events with one effect. `names` are the events by the index that the rows carry.
    fn hold(
        &self,
        catalog: &Catalog,
        loaded: &Loaded,
        names: &[String],
        of: Effect,
        locals: &mut [Local],
    ) -> Result<(), String> {
        let workers = locals.len();
        for (number, bytes) in loaded.held.iter().enumerate() {
            let (partition, mut batch) =
                take_rows(&mut bytes.as_slice(), names.len()).map_err(|error| format!("held: {error}"))?;
            let Some(event) = catalog.event_index(&names[batch.event]) else { continue };
            // Somebody reads ids now that nobody read before: only the second reading has them.
            let second = self.plan.events[event] == Effect::Replay
                || (self.again.is_some() && self.plan.ids_new.contains(&event));
            if second == (of == Effect::Keep) {
                continue;
            }
            batch.event = event;
            let batch = conform(batch, &catalog.events[event].admitted)?;
            let partition: Arc<Partition> = partition;
            locals[number % workers].hold(&partition, batch);
        }
        Ok(())
    }
}

/// The events of the catalog that a checkpoint is of, by index: by name.
fn events_of(manifest: &Manifest) -> Vec<String> {
    manifest.contracts.keys().filter_map(|name| name.strip_prefix("event ")).map(str::to_owned).collect()
}

/// A state's name is `kind/name`, of relations `relation/name.number.what`.
fn is_of(kept: &[(String, bool)], state: &str) -> bool {
    let relation = state.starts_with("relation/").then(|| state.rsplitn(3, '.').nth(2)).flatten();
    kept.iter().any(|(name, whole)| if *whole { name == state } else { relation == Some(name.as_str()) })
}

/// Columns as this catalog has them: whether texts are numbered (dictionaries) depends on who reads them.
fn conform(batch: EventBatch, schema: &SchemaRef) -> Result<EventBatch, String> {
    if batch.columns.schema() == *schema {
        return Ok(batch);
    }
    let column = |field: &Arc<arrow::datatypes::Field>| {
        let column = batch.columns.column_by_name(field.name());
        let column = column.ok_or_else(|| format!("held: no column `{}`", field.name()))?;
        if column.data_type() == field.data_type() {
            return Ok(Arc::clone(column));
        }
        arrow::compute::cast(column, field.data_type()).map_err(|error| format!("held: {error}"))
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, String>>()?;
    let columns = RecordBatch::try_new(schema.clone(), columns).map_err(|error| format!("held: {error}"))?;
    Ok(EventBatch { columns, ..batch })
}
