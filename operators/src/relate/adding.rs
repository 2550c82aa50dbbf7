//! The two ways a step finds the partners of a row: by ranges of time, or by what a deployment ships.
//!
//! *In*: a step of the contract, inputs of a tick. *Out*: what [`StepState`] or [`ShipsState`] gives. *Never*: a
//! decision of its own.

use contracts::catalog::Step;

use super::Row;
use super::ships::ShipsState;
use super::step::{Alone, Input, StepState};
use crate::fold::group::Lost;
use crate::state::State;

/// What one step holds on one worker.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Adding {
    Range(StepState),
    Ships(ShipsState),
}

impl Adding {
    /// Nothing yet; `retain` is how far back rows matter in microseconds, `max_held` bounds what is held.
    pub fn new(step: &Step, retain: i64, max_held: usize) -> Self {
        match &step.ships {
            Some(ships) => Self::Ships(ShipsState::new(step.clone(), ships.clone(), retain, max_held)),
            None => Self::Range(StepState::new(step.clone(), retain, max_held)),
        }
    }

    /// Applies the inputs of a tick; `give` is called with each change of a row.
    pub fn apply(&mut self, inputs: Vec<Input>, give: impl FnMut(Row, i64)) {
        match self {
            Self::Range(state) => state.apply(inputs, give),
            Self::Ships(state) => state.apply(inputs, give),
        }
    }

    /// Moves the clock.
    pub fn turn(&mut self, now: i64) {
        match self {
            Self::Range(state) => state.turn(now),
            Self::Ships(state) => state.turn(now),
        }
    }

    /// Its state, to be cut and restored.
    pub fn state(&mut self) -> &mut dyn State {
        match self {
            Self::Range(state) => state,
            Self::Ships(state) => state,
        }
    }

    /// The step.
    pub fn step(&self) -> &Step {
        match self {
            Self::Range(state) => state.step(),
            Self::Ships(state) => state.step(),
        }
    }

    /// Rows without a partner.
    pub fn alone(&self) -> Alone {
        match self {
            Self::Range(state) => state.alone(),
            Self::Ships(state) => state.alone(),
        }
    }

    /// What was dropped, by reason.
    pub fn lost(&self) -> &Lost {
        match self {
            Self::Range(state) => &state.lost,
            Self::Ships(state) => &state.lost,
        }
    }
}
