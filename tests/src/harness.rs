//! A real engine under test, fed through the real decoder.
//!
//! *In*: contract YAML, records, the clock. *Out*: published state, and what the hook was told.
//! *Never*: sleeps or timeouts; every step waits for the engine itself.

pub mod change;
pub mod compare;
pub mod drawn;
pub mod journey;
pub mod many;
pub mod minimise;
pub mod results;
pub mod run;
pub mod second;
pub mod vault;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use connectors::decode::{DebeziumSpec, Decimals, DecodeSpec, Decoder, Envelope, Format, Record, Unit};
use contracts::Catalog;
use contracts::SourceFile;
use contracts::batch::{Chunk, Kept, Partition, Refused};
use engine::checkpoint::{Checkpoints, Open, Restored, Vault};
use engine::{Clock, Decisions, Engine, Options, Published, TickHook, TickOutcome};

use self::vault::Memory;

use crate::oracle::admit;
use crate::oracle::admit::Raw;

/// Collects what ticks told.
#[derive(Debug, Default)]
pub struct Told {
    /// Refused rows by partition, offset and part.
    pub refused: Mutex<BTreeMap<(i32, i64, u32), Refused>>,
    /// Duplicates: partition, offset, part.
    pub duplicates: Mutex<Vec<(Partition, i64, u32)>>,
    /// Admitted events, while somebody taps.
    pub kept: Mutex<Vec<Arc<Kept>>>,
    /// An engine that judges rows alike.
    pub follower: Mutex<Option<Arc<Decisions>>>,
}

impl Told {
    /// What was told so far, apart from what will be.
    pub fn copy(&self) -> Self {
        Self {
            refused: Mutex::new(self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            duplicates: Mutex::new(self.duplicates.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            kept: Mutex::new(self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            follower: Mutex::default(),
        }
    }
}

impl TickHook for Told {
    fn tick(&self, published: &Arc<Published>, outcome: TickOutcome) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(outcome.admitted.into_iter().map(|admitted| {
            let (tick, now) = (published.tick, published.as_of);
            Arc::new(Kept::new(tick, now, Arc::new(admitted.partition), admitted.batch))
        }));
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        for row in outcome.refused {
            refused.insert((row.partition.number, row.offset, row.part), row);
        }
        if let Some(follower) = &*self.follower.lock().unwrap_or_else(PoisonError::into_inner) {
            let next = published.offsets.iter().map(|(partition, at)| (partition.clone(), at.next));
            follower.tell(next, &outcome.duplicates);
        }
        self.duplicates.lock().unwrap_or_else(PoisonError::into_inner).extend(outcome.duplicates);
    }
}

/// The envelope of all random cases and journeys.
pub fn envelope() -> admit::Envelope {
    admit::Envelope { id: "event_id".into(), kind: "type".into(), time: "at".into() }
}

/// Catalogs of the cases at work: both roads of a case have one.
static KNOWN: Mutex<VecDeque<(String, Arc<Catalog>)>> = Mutex::new(VecDeque::new());

/// The catalog of a text, or every mistake in it.
pub fn catalog(yaml: &str) -> Result<Arc<Catalog>, String> {
    const MOST: usize = 16;
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, catalog)) = known().iter().find(|(of, _)| of == yaml) {
        return Ok(catalog.clone());
    }
    let made = load(yaml)?;
    let mut known = known();
    known.push_front((yaml.to_string(), made.clone()));
    known.truncate(MOST);
    Ok(made)
}

fn load(yaml: &str) -> Result<Arc<Catalog>, String> {
    let loaded = contracts::load(&[SourceFile::new("case.yaml", yaml)]);
    if loaded.has_errors() {
        let mistakes: Vec<String> = loaded.diagnostics.iter().map(|d| format!("{d}")).collect();
        return Err(format!("`contracts` refuses the contract:\n{}", mistakes.join("\n")));
    }
    Ok(Arc::new(loaded.catalog))
}

/// Events with the envelope of all random cases.
fn plain() -> DecodeSpec {
    let names = envelope();
    DecodeSpec {
        format: Format::Json,
        envelope: Envelope {
            id: Some(vec![names.id]),
            event_type: Some(vec![names.kind]),
            time: Some(vec![names.time]),
            tenant: None,
        },
        op: Some(vec!["op".into()]),
        ..DecodeSpec::default()
    }
}

/// Change events without a schema.
fn debezium() -> DecodeSpec {
    let debezium = DebeziumSpec { decimals: Some(Decimals::String), times: Some(Unit::Micros) };
    DecodeSpec { format: Format::Debezium, debezium, ..DecodeSpec::default() }
}

/// A running engine with one decoder per partition.
pub struct Rig {
    engine: Engine,
    decoders: Vec<(Partition, Decoder)>,
    /// Per partition: the offset after the last record that has been sent or will be sent at this clock.
    ends: Vec<i64>,
    /// What the hook was told.
    pub told: Arc<Told>,
    vault: Arc<Memory>,
    make: Make,
}

/// What a rig is made of.
#[derive(Clone)]
struct Make {
    catalog: Arc<Catalog>,
    partitions: usize,
    tables: Vec<String>,
}

impl Make {
    /// Partitions with decoders that know nothing.
    fn decoders(&self) -> Vec<(Partition, Decoder)> {
        let plain = (0..self.partitions).map(|number| {
            let partition = Partition { source: "test".into(), topic: "t".into(), number: number as i32 };
            (partition, Decoder::new(self.catalog.clone(), plain()))
        });
        // Partition numbers go on counting, so that a number alone tells which partition it is.
        let streams = self.tables.iter().enumerate().map(|(i, table)| {
            let topic = table.strip_prefix("cdc.").expect("the event type of a topic");
            let number = (self.partitions + i) as i32;
            let partition = Partition { source: "cdc".into(), topic: topic.into(), number };
            (partition, Decoder::new(self.catalog.clone(), debezium()))
        });
        plain.chain(streams).collect()
    }

    /// An engine with the newest state of the vault, if there is one.
    fn engine(
        &self,
        workers: usize,
        now: i64,
        told: &Arc<Told>,
        vault: &Arc<Memory>,
    ) -> Result<(Engine, Restored), String> {
        let options = Options { workers, keys_per_metric: 100_000, clock: Clock::Manual(now) };
        let checkpoints = Checkpoints {
            vault: Arc::clone(vault) as Arc<dyn Vault>,
            every: None,
            keep: 2,
            gate: Arc::new(Open),
            restore: true,
            sources: None,
            resume_until: BTreeMap::new(),
        };
        let started = Engine::start_from(self.catalog.clone(), options, told.clone(), checkpoints);
        let (engine, restored) = started.map_err(|e| format!("engine: {e}"))?;
        // The tap is open before anything flows.
        engine.tap(true);
        engine.flush();
        Ok((engine, restored))
    }
}

/// What a rig goes back to.
pub struct Saved {
    told: Told,
    offsets: BTreeMap<Partition, i64>,
}

impl Rig {
    /// Starts an engine at the instant `now`, with `partitions` of plain events, then one partition of
    /// Debezium envelopes per entry of `tables`: the event type of its topic.
    pub fn start(
        catalog: &Arc<Catalog>,
        workers: usize,
        partitions: usize,
        tables: &[String],
        now: i64,
    ) -> Result<Rig, String> {
        let (told, vault) = (Arc::new(Told::default()), Arc::new(Memory::default()));
        let make = Make { catalog: catalog.clone(), partitions, tables: tables.to_vec() };
        let (engine, _) = make.engine(workers, now, &told, &vault)?;
        let decoders = make.decoders();
        let mut rig = Rig { ends: vec![0; decoders.len()], decoders, engine, told, vault, make };
        rig.announce();
        Ok(rig)
    }

    /// Receivers tell the engine of every partition before its first record.
    fn announce(&mut self) {
        for (partition, decoder) in &mut self.decoders {
            self.engine.sender().send(decoder.finish(partition, 0, Some(0))).expect("the engine runs");
        }
    }

    /// Keeps the state as it is after all that was sent.
    pub fn checkpoint(&self) -> Result<Saved, String> {
        let written = self.engine.checkpoint().map_err(|e| format!("checkpoint: {e}"))?;
        self.engine.flush();
        Ok(Saved { told: self.told.copy(), offsets: written.offsets })
    }

    /// Where checkpoints are.
    pub fn vault(&self) -> &Arc<Memory> {
        &self.vault
    }

    /// Loses the engine and starts another one from the last checkpoint; its decoders have read `before`.
    pub fn restart(self, workers: usize, saved: Saved, before: &[&Raw]) -> Result<Rig, String> {
        let Rig { engine, ends, vault, make, .. } = self;
        engine.stop();
        let told = Arc::new(saved.told);
        let (engine, restored) = make.engine(workers, i64::MIN, &told, &vault)?;
        if restored.id.is_none() || restored.offsets != saved.offsets || !restored.skipped.is_empty() {
            return Err(format!("restored {restored:?}, not {:?}", saved.offsets));
        }
        let mut rig = Rig { decoders: make.decoders(), engine, ends, told, vault, make };
        // What decoders remember of earlier records.
        before.iter().for_each(|raw| drop(rig.decode(&[raw])));
        Ok(rig)
    }

    /// These records will come next: ends of partitions move.
    pub fn expect(&mut self, records: &[Raw]) {
        for raw in records {
            self.ends[raw.partition] = self.ends[raw.partition].max(raw.offset + 1);
        }
    }

    /// Says, as a receiver at the end of its partitions does, that everything received before now is sent.
    pub fn settle(&mut self, now: i64) {
        for ((partition, decoder), end) in self.decoders.iter_mut().zip(&self.ends) {
            let chunk = decoder.finish(partition, *end, Some(*end)).settled(now);
            self.engine.sender().send(chunk).expect("the engine runs");
        }
    }

    /// Sends records of one partition as one chunk.
    pub fn send(&mut self, records: &[&Raw]) {
        if let Some(chunk) = self.decode(records) {
            self.engine.sender().send(chunk).expect("the engine runs");
        }
    }

    fn decode(&mut self, records: &[&Raw]) -> Option<Chunk> {
        let (first, last) = (records.first()?, records.last()?);
        let (partition, decoder) = &mut self.decoders[first.partition];
        for raw in records {
            let record =
                Record { value: &raw.payload, offset: raw.offset, received: raw.received, headers: &[] };
            if decoder.wants_keys() {
                decoder.push_keyed(record, &partition.topic, raw.key.as_deref());
            } else {
                decoder.push(record);
            }
        }
        let end = self.ends[first.partition].max(last.offset + 1);
        Some(decoder.finish(partition, last.offset + 1, Some(end)))
    }

    /// Judges rows as another engine judges them.
    pub fn follow(&self, decisions: &Arc<Decisions>) {
        self.engine.follow(decisions);
    }

    /// Moves the clock and waits until that shows.
    pub fn clock(&self, now: i64) {
        self.engine.set_clock(now);
    }

    /// What is published once everything sent is in.
    pub fn published(&self) -> Arc<Published> {
        self.engine.flush();
        self.engine.reader().load()
    }

    /// Ends the engine.
    pub fn stop(self) {
        self.engine.stop();
    }
}
