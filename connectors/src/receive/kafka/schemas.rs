//! Waiting for a schema registry that does not answer.
//!
//! *In*: a message whose schema is not known. *Out*: the moment when it is. *Never*: a message passed over
//! or refused because the registry was away; a wait that nobody can see or stop.

use std::time::{Duration, Instant};

use rdkafka::message::Message;

use super::{Reader, State, Stop};

/// Between two questions at first, and at most.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// How quickly a stop is seen.
const SLICE: Duration = Duration::from_millis(50);

impl Reader<'_> {
    /// Returns when the schemas of `message` and of its key are known; at once where there are none.
    pub(super) fn await_schemas(&mut self, message: &impl Message) -> Result<(), Stop> {
        let (value, key) = (message.payload().unwrap_or_default(), message.key());
        let mut wait = FIRST;
        let mut waited = false;
        while let Err(why) = self.decoder.prepare(value, key) {
            if !std::mem::replace(&mut waited, true) {
                // What was read before need not wait.
                self.close()?;
                self.port.status.error(why.clone());
            }
            self.port.status.set_state(State::Waiting(why));
            let until = Instant::now() + wait;
            while Instant::now() < until {
                if self.port.stopped() {
                    return Err(Stop::Asked);
                }
                std::thread::sleep(SLICE);
            }
            wait = (wait * 2).min(LONGEST);
        }
        if waited {
            self.set_state();
        }
        Ok(())
    }
}
