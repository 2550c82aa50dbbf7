//! Backfill: the same contracts read everything again, from history on, beside the engine that answers.
//!
//! *In*: somebody's wish. *Out*: a new generation in place of the running one once it has read what that one has; how it
//! goes. *Never*: two at a time, a moment without answers, contracts that changed meanwhile left waiting.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use connectors::receive::{SourceStatus, wall_clock};
use contracts::value::time::format_timestamp;
use crossbeam_channel::Receiver as Channel;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value as JsonValue, json};

use crate::app::SourceProbe;
use crate::reload::{self, Trigger};
use crate::serve::{Begins, Contracts, Shared};

/// Why the trigger was pulled.
pub(crate) const WHY: &str = "a backfill was asked for";

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The lake, then what the log and Kafka keep from there on.
    Everything,
    /// What the log and Kafka keep, from its beginning.
    Retained,
}

impl Reading {
    /// `lake`, `beginning`.
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "lake" => Some(Self::Everything),
            "beginning" => Some(Self::Retained),
            _ => None,
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Everything => "lake",
            Self::Retained => "beginning",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Done,
    Failed,
}

/// One backfill.
#[derive(Debug, Clone)]
struct One {
    number: u64,
    reading: Reading,
    state: State,
    asked: i64,
    ended: Option<i64>,
    message: String,
}

/// The last backfill, and whatever catches up beside the running engine.
#[derive(Debug, Default)]
pub struct Backfills {
    last: Mutex<Option<One>>,
    trigger: OnceLock<Trigger>,
    /// The sources of the generation that catches up.
    behind: RwLock<Vec<SourceProbe>>,
}

impl Backfills {
    /// Whoever takes wishes.
    pub(crate) fn set_trigger(&self, trigger: Trigger) {
        // There is one reload thread per process.
        let _ = self.trigger.set(trigger);
    }

    /// Asks for one.
    ///
    /// # Errors
    /// One waits or runs: how it goes.
    pub fn ask(&self, reading: Reading) -> Result<(), JsonValue> {
        let mut last = self.last.lock();
        if last.as_ref().is_some_and(|one| matches!(one.state, State::Waiting | State::Running)) {
            drop(last);
            return Err(self.told());
        }
        let number = last.as_ref().map_or(1, |one| one.number + 1);
        let (asked, message) = (wall_clock()(), "waits for its turn".to_owned());
        *last = Some(One { number, reading, state: State::Waiting, asked, ended: None, message });
        drop(last);
        self.pull(WHY);
        Ok(())
    }

    /// How the last one went or goes; null: there was none.
    pub fn told(&self) -> JsonValue {
        let Some(one) = self.last.lock().clone() else { return JsonValue::Null };
        let running = one.state == State::Running;
        json!({
            "number": one.number,
            "from": one.reading.word(),
            "state": match one.state {
                State::Waiting => "waiting",
                State::Running => "running",
                State::Done => "done",
                State::Failed => "failed",
            },
            "asked_at": format_timestamp(one.asked),
            "ended_at": one.ended.map(format_timestamp),
            "message": if running { crate::serve::progress::line(&self.behind()) } else { one.message },
        })
    }

    /// The sources of the generation that catches up beside the running one; none: nothing does.
    pub fn behind(&self) -> Vec<SourceStatus> {
        self.behind.read().iter().map(SourceProbe::status).collect()
    }

    pub(crate) fn set_behind(&self, sources: Vec<SourceProbe>) {
        *self.behind.write() = sources;
    }

    /// Asks for another look, also at contracts.
    pub(crate) fn pull(&self, why: &'static str) {
        if let Some(trigger) = self.trigger.get() {
            trigger.pull(why);
        }
    }

    fn take(&self) -> Option<Reading> {
        let mut last = self.last.lock();
        let one = last.as_mut().filter(|one| one.state == State::Waiting)?;
        one.state = State::Running;
        Some(one.reading)
    }

    fn end(&self, outcome: Result<String, String>) {
        if let Some(one) = self.last.lock().as_mut() {
            one.ended = Some(wall_clock()());
            (one.state, one.message) = match outcome {
                Ok(message) => (State::Done, message),
                Err(message) => (State::Failed, message),
            };
        }
    }
}

/// Does what was asked for, if anything was.
pub(crate) fn run(shared: &Arc<Shared>, triggers: &Channel<&'static str>) {
    let Some(reading) = shared.app.backfills.take() else { return };
    tracing::info!(from = reading.word(), "a backfill begins");
    let outcome = backfill(shared, triggers, reading);
    match &outcome {
        Ok(message) => tracing::info!("{message}"),
        Err(message) => tracing::error!("the backfill has ended, the numbers stay as they were: {message}"),
    }
    shared.app.backfills.end(outcome);
}

fn backfill(
    shared: &Arc<Shared>,
    triggers: &Channel<&'static str>,
    reading: Reading,
) -> Result<String, String> {
    let running = shared.app.live().map_err(|_| "the engine is not running".to_owned())?;
    let contracts = Contracts { catalog: running.catalog.clone(), texts: running.texts.clone() };
    let number = running.generation + 1;
    drop(running);
    let started = Instant::now();
    let hash = contracts.catalog.hash.clone();
    let given_up = || {
        let Ok(why) = triggers.try_recv() else { return false };
        match shared.load_contracts() {
            Ok(contracts) if contracts.catalog.hash == hash => {
                shared.app.reloaded(Ok(()));
                false
            }
            Ok(_) => {
                // Its turn comes next.
                shared.app.backfills.pull(why);
                true
            }
            Err(error) => {
                tracing::error!("contracts are not reloaded, the last good ones stay:\n{error}");
                shared.app.reloaded(Err(error));
                false
            }
        }
    };
    let next = shared.start_generation(contracts, number, Begins::Reading(reading));
    let next = next.map_err(|failure| failure.message)?;
    match reload::take_over(shared, next, given_up) {
        Some(number) => Ok(reload::answers(number, started)),
        None if shared.stopping() => Err("the server was stopped; ask again after its start".into()),
        None => Err("the contracts have changed meanwhile; ask again when they answer".into()),
    }
}
