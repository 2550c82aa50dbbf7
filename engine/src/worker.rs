//! The workers: one timely dataflow, the same on each, fed one tick at a time.
//!
//! *In*: ticks. *Out*: per tick, the worker's share of the published state. *Never*: a state that holds half a
//! tick; all changes of a tick are applied when the whole dataflow has passed it.
//!
//! admit → (entity touches → exchange by key → rows) → group → exchange by key → panes.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use contracts::batch::{EventBatch, Partition, Refused};
use crossbeam_channel::{Receiver, Sender, bounded};
use operators::admit::dedupe::IdHash;
use operators::admit::{Admit, Outcome, split_future};
use operators::entity::{Changes, EntityShard, EntityState, Touch};
use operators::fold::group::{Delta, Lost};
use operators::fold::panes::{MetricState, Shard};
use operators::relate::versions::Versions;
use operators::state::{Cut, State};
use parking_lot::Mutex;

use crate::api::{Admitted, EngineError, Options};
use crate::checkpoint::WorkerCut;
use crate::coordinator::Tick;
use crate::plan::{EnginePlan, expression};
use crate::publish::{Counts, Publisher};
use crate::resume::Decisions;

mod dataflow;
pub(crate) mod grow;
mod relate;
mod rows;
mod streams;

use dataflow::Inputs;
use relate::RelationState;
use rows::Fate;

/// Ticks handed to a worker before the coordinator waits.
const TICKS_WAITING: usize = 2;

/// Rows of one partition.
pub(crate) type Rowset = (Arc<Partition>, EventBatch);

/// A row that decode refused, as far as the engine's own event tells of it.
#[derive(Debug, Clone)]
pub(crate) struct RefusedRow {
    pub(crate) partition: Arc<Partition>,
    pub(crate) event_type: Option<String>,
    pub(crate) received: i64,
}

/// A worker looks this often whether another one has panicked, which no progress would tell it.
const PARK_MOST: Duration = Duration::from_millis(100);

/// Tells everybody when its worker unwinds.
struct Broken<'a>(&'a Publisher);

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        self.0.break_down();
    }
}

/// What a worker adds to a published tick.
#[derive(Debug, Default)]
pub(crate) struct Share {
    /// One per metric.
    pub(crate) metrics: Vec<Shard>,
    /// One per entity.
    pub(crate) entities: Vec<EntityShard>,
    /// One per relation: rows without a partner, by reason.
    pub(crate) alone: Vec<Alone>,
    /// Changes of the counters.
    pub(crate) counters: BTreeMap<(Arc<str>, String), Counts>,
    /// Rows refused by admit.
    pub(crate) refused: Vec<Refused>,
    /// Duplicates dropped.
    pub(crate) duplicates: Vec<(Partition, i64, u32)>,
    /// Admitted rows, when tapped.
    pub(crate) admitted: Vec<Admitted>,
    /// The state, when it is to be kept.
    pub(crate) cut: Option<WorkerCut>,
}

/// Rows of a relation that are not counted, by reason. Of one worker they may be negative.
pub(crate) type Alone = BTreeMap<&'static str, i64>;

/// What operators and the worker's loop share. Everything runs on the worker's thread.
pub(crate) struct Local {
    plan: Arc<EnginePlan>,
    now: i64,
    tap: bool,
    admits: Vec<Admit>,
    /// Admitted rows ahead of the clock, by event time of their first row.
    held: BTreeMap<i64, Vec<Arc<Rowset>>>,
    entities: Vec<EntityState>,
    /// One per entity: the current rows of the change streams behind it.
    streams: Vec<Versions<Touch>>,
    metrics: Vec<MetricState>,
    relations: Vec<RelationState>,
    /// Changes that arrived for a tick that is not closed.
    stash: BTreeMap<u64, BTreeMap<usize, Vec<Delta>>>,
    lost: BTreeMap<usize, Lost>,
    newest: BTreeMap<usize, (i64, i64)>,
    /// Index of the engine's own event, when a metric reads it.
    row_event: Option<usize>,
    /// What others have decided of the rows of this tick.
    decisions: Option<Arc<Decisions>>,
    share: Share,
}

type SharedLocal = Rc<RefCell<Local>>;

/// One set of admit steps per worker; compiled before the threads start, so that errors show.
pub(crate) fn admits(
    plan: &EnginePlan,
    workers: usize,
    ids: &Arc<IdHash>,
) -> Result<Vec<Vec<Admit>>, EngineError> {
    let admit = |event: &Arc<contracts::catalog::Event>| {
        Admit::new(Arc::clone(event), Arc::clone(ids))
            .map_err(|(sql, error)| expression(&event.head.name, &sql, &error))
    };
    (0..workers).map(|_| plan.catalog.events.iter().map(admit).collect()).collect()
}

/// Workers without state.
pub(crate) fn locals(
    plan: &Arc<EnginePlan>,
    options: &Options,
    ids: &Arc<IdHash>,
) -> Result<Vec<Local>, EngineError> {
    let workers = options.workers.max(1);
    let max_keys = options.keys_per_metric.div_ceil(workers);
    let local = |admits| Local::new(Arc::clone(plan), admits, max_keys);
    Ok(admits(plan, workers, ids)?.into_iter().map(local).collect())
}

/// Starts the workers; the join handle ends when all have ended.
pub(crate) fn start(
    locals: Vec<Local>,
    publisher: &Arc<Publisher>,
) -> Result<(Vec<Sender<Tick>>, JoinHandle<()>), EngineError> {
    let workers = locals.len();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| bounded(TICKS_WAITING)).unzip();
    let seats: Vec<_> = locals.into_iter().zip(receivers).map(|seat| Mutex::new(Some(seat))).collect();
    let publisher = Arc::clone(publisher);
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let (local, ticks) =
            seats[worker.index()].lock().take().expect("each worker takes its own seat once");
        let local = Rc::new(RefCell::new(local));
        let broken = Broken(&publisher);
        run(worker, &local, &ticks, &publisher);
        std::mem::forget(broken);
    })
    .map_err(EngineError::Workers)?;
    let crew = std::thread::Builder::new().name("workers".to_owned()).spawn(move || {
        for result in guards.join() {
            if let Err(message) = result {
                tracing::error!(message, "a worker panicked");
            }
        }
    })?;
    Ok((senders, crew))
}

fn run(
    worker: &mut timely::worker::Worker,
    local: &SharedLocal,
    ticks: &Receiver<Tick>,
    publisher: &Publisher,
) {
    let index = worker.index();
    let (mut inputs, probe) = dataflow::build(worker, local);
    while let Ok(tick) = ticks.recv() {
        let (number, cut) = (tick.number, tick.cut);
        feed(local, &mut inputs, tick);
        inputs.advance_to(number + 1);
        while probe.less_than(&(number + 1)) {
            if publisher.is_broken() {
                return;
            }
            worker.step_or_park(Some(PARK_MOST));
        }
        let mut share = local.borrow_mut().close(number);
        share.cut = cut.map(|all| local.borrow_mut().cut(all));
        publisher.deposit(number, index, share);
    }
}

/// Hands a tick to the dataflow: first the rows whose time has come, then the new ones.
fn feed(local: &SharedLocal, inputs: &mut Inputs, tick: Tick) {
    let released = {
        let mut local = local.borrow_mut();
        local.now = tick.now;
        local.relations.iter_mut().for_each(|relation| relation.turn(tick.now));
        local.streams.iter_mut().for_each(|versions| versions.turn(tick.now));
        (local.tap, local.decisions) = (tick.tap, tick.decisions);
        local.admits.iter_mut().for_each(|admit| admit.age(tick.floor));
        local.tell_refused(&tick.refused);
        local.release()
    };
    // Ticks count from 1, inputs stand at 0 when they are new.
    inputs.advance_to(tick.number);
    released.into_iter().for_each(|rows| inputs.released.send(rows));
    tick.work.into_iter().for_each(|work| inputs.decoded.send(work));
}

impl Local {
    fn new(plan: Arc<EnginePlan>, admits: Vec<Admit>, max_keys: usize) -> Self {
        let entity = |entity| EntityState::new(Arc::clone(entity), max_keys);
        let metric = |metric| MetricState::new(Arc::clone(metric), max_keys);
        Self {
            now: i64::MIN,
            tap: false,
            held: BTreeMap::new(),
            entities: plan.entities.iter().map(entity).collect(),
            streams: plan.entities.iter().map(|_| Versions::new(max_keys)).collect(),
            metrics: plan.metrics.iter().map(metric).collect(),
            relations: plan.relations.iter().map(|r| RelationState::new(&r.plan, max_keys)).collect(),
            stash: BTreeMap::new(),
            lost: BTreeMap::new(),
            newest: BTreeMap::new(),
            share: Share::default(),
            row_event: rows::row_event(&plan.catalog),
            decisions: None,
            admits,
            plan,
        }
    }

    /// Admits a batch: what passes and lies before the clock goes on, the rest is kept or recorded.
    fn admit(&mut self, partition: Arc<Partition>, batch: EventBatch) -> Vec<Rowset> {
        let event = batch.event;
        let told = self.row_event.filter(|own| *own != event).map(|own| (own, Fates::new(&batch)));
        let decided = self.decisions.as_ref().map(|decisions| decisions.read());
        let outcome = self.admits[event].admit(&partition, batch, decided.as_deref());
        drop(decided);
        let name = self.plan.catalog.events[event].head.name.clone();
        let counts = self.share.counters.entry((Arc::clone(&partition.source), name)).or_default();
        let admitted = outcome.admitted.as_ref().map_or(0, |batch| batch.columns.num_rows());
        counts.admitted += admitted as u64;
        counts.refused += outcome.refused.len() as u64;
        counts.duplicate += outcome.duplicates.len() as u64;
        counts.warned += outcome.warned;
        let mut past: Vec<Rowset> = Vec::new();
        if let Some((own, fates)) = told {
            let name = &self.plan.catalog.events[event].head.name;
            let fates = fates.after(&outcome);
            let batch = rows::batch(&self.plan.catalog, own, &partition.source, Some(name), &fates);
            self.tapped(&partition, &batch);
            past.extend(self.before_the_clock(&partition, batch));
        }
        self.share.refused.extend(outcome.refused);
        let place = |(offset, part)| (Partition::clone(&partition), offset, part);
        self.share.duplicates.extend(outcome.duplicates.into_iter().map(place));
        let Some(batch) = outcome.admitted else { return past };
        self.tapped(&partition, &batch);
        past.extend(self.before_the_clock(&partition, batch));
        past
    }

    /// Hands rows over to whoever taps, those of the engine's own event, too.
    fn tapped(&mut self, partition: &Partition, batch: &EventBatch) {
        if self.tap {
            self.share.admitted.push(Admitted { partition: partition.clone(), batch: batch.clone() });
        }
    }

    /// The rows that lie before the clock; the others are held.
    fn before_the_clock(&mut self, partition: &Arc<Partition>, batch: EventBatch) -> Option<Rowset> {
        let (past, future) = split_future(batch, self.now);
        if let Some(future) = future {
            self.hold(partition, future);
        }
        past.map(|past| (Arc::clone(partition), past))
    }

    /// Makes rows of the engine's own event of what decode refused; they go on with the released rows.
    fn tell_refused(&mut self, refused: &[RefusedRow]) {
        let Some(own) = self.row_event else { return };
        for row in refused {
            let fates = [(row.received, Fate::Refused)];
            let (source, name) = (&row.partition.source, row.event_type.as_deref());
            let batch = rows::batch(&self.plan.catalog, own, source, name, &fates);
            self.tapped(&row.partition, &batch);
            self.hold(&row.partition, batch);
        }
    }

    /// Rows are admitted at most five minutes ahead of the clock (decode), which bounds what is held.
    pub(crate) fn hold(&mut self, partition: &Arc<Partition>, batch: EventBatch) {
        let times = operators::admit::event_times(&batch.columns);
        let first = times.values().iter().min().copied().unwrap_or(self.now);
        self.held.entry(first).or_default().push(Arc::new((Arc::clone(partition), batch)));
    }

    /// Rows whose time has come.
    fn release(&mut self) -> Vec<Rowset> {
        let mut released = Vec::new();
        while let Some(entry) = self.held.first_entry() {
            if *entry.key() >= self.now {
                break;
            }
            for rows in entry.remove() {
                let (partition, batch) = Arc::unwrap_or_clone(rows);
                released.extend(self.before_the_clock(&partition, batch));
            }
        }
        released
    }

    /// All state that is kept, with its names; the same on every worker.
    pub(crate) fn states(&mut self) -> Vec<(String, &mut dyn State)> {
        let catalog = &self.plan.catalog;
        let mut states: Vec<(String, &mut dyn State)> = Vec::new();
        for (event, admit) in catalog.events.iter().zip(&mut self.admits) {
            states.push((format!("ids/{}", event.head.name), admit.dedupe()));
        }
        let entities = catalog.entities.iter().zip(&mut self.entities).zip(&mut self.streams);
        for ((entity, rows), streams) in entities {
            states.push((format!("entity/{}", entity.head.name), rows));
            states.push((format!("stream/{}", entity.head.name), streams));
        }
        for (metric, state) in catalog.metrics.iter().zip(&mut self.metrics) {
            states.push((format!("metric/{}", metric.head.name), state));
        }
        for (number, (relation, state)) in self.plan.relations.iter().zip(&mut self.relations).enumerate() {
            let metric = &catalog.metrics[relation.metric].head.name;
            // By its number within the metric: that of all relations moves when another metric comes or goes.
            let first = self.plan.relations.iter().position(|first| first.metric == relation.metric);
            let number = number - first.unwrap_or_default();
            let named = state.states().into_iter();
            states.extend(named.map(|(name, state)| (format!("relation/{metric}.{number}.{name}"), state)));
        }
        states
    }

    /// Number of event types.
    pub(crate) fn events(&self) -> usize {
        self.plan.catalog.events.len()
    }

    /// Notes from now on what changes; with `from_now` there is nothing before.
    pub(crate) fn note(&mut self, from_now: bool) {
        for (_, state) in self.states() {
            match from_now {
                true => state.changed().loaded(),
                false => {
                    state.changed().note();
                    // What was loaded is in checkpoints of somebody else.
                    state.changed().forget();
                }
            }
        }
    }

    /// The state at the end of a tick: roots of maps, nothing is copied. `all`: what changed is not enough.
    fn cut(&mut self, all: bool) -> WorkerCut {
        let mut cut =
            WorkerCut { held: self.held.values().flatten().cloned().collect(), ..WorkerCut::default() };
        for (name, state) in self.states() {
            if all {
                state.changed().forget();
            }
            let Cut { tables, loose } = state.cut();
            cut.tables.extend(tables.into_iter().map(|(table, cut)| (format!("{name}/{table}"), cut)));
            cut.loose.push((name, loose));
        }
        cut
    }

    /// Applies what the tick brought and hands over what readers will see.
    fn close(&mut self, tick: u64) -> Share {
        let mut deltas = self.stash.remove(&tick).unwrap_or_default();
        let (now, lost, newest) = (self.now, &mut self.lost, &mut self.newest);
        for (index, metric) in self.metrics.iter_mut().enumerate() {
            metric.turn(now);
            if let Some(lost) = lost.remove(&index) {
                metric.lose(&lost);
            }
            if let Some(newest) = newest.remove(&index) {
                metric.saw(newest);
            }
            metric.apply(deltas.remove(&index).unwrap_or_default());
        }
        let mut share = std::mem::take(&mut self.share);
        share.alone = self.relations.iter().map(RelationState::alone).collect();
        share.metrics = self.metrics.iter().map(MetricState::shard).collect();
        share.entities = self.entities.iter().map(EntityState::shard).collect();
        share
    }
}

/// What feeds the metrics.
#[derive(Debug, Clone)]
pub(crate) enum Fed {
    /// Admitted rows.
    Events(EventBatch),
    /// Changed rows of an entity.
    Entity(usize, Changes),
    /// Changed rows of a relation.
    Relation(usize, Changes),
}

/// What became of each row of a batch.
struct Fates {
    places: Vec<(i64, u32)>,
    received: Vec<i64>,
}

impl Fates {
    fn new(batch: &EventBatch) -> Self {
        let places = batch.offsets.iter().copied().zip(batch.parts.iter().copied()).collect();
        Self { places, received: batch.received.clone() }
    }

    fn after(self, outcome: &Outcome) -> Vec<(i64, Fate)> {
        let refused: HashSet<(i64, u32)> = outcome.refused.iter().map(|row| (row.offset, row.part)).collect();
        let duplicates: HashSet<&(i64, u32)> = outcome.duplicates.iter().collect();
        let fate = |place: &(i64, u32)| match place {
            place if refused.contains(place) => Fate::Refused,
            place if duplicates.contains(place) => Fate::Duplicate,
            _ => Fate::Admitted,
        };
        self.received.into_iter().zip(self.places.iter().map(fate)).collect()
    }
}
