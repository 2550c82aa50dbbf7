//! Which event is due when.
//!
//! *In*: rates. *Out*: events per tick of 1 ms, and the tick of every event. *Never*: a clock.

/// Ticks a second.
const TICKS: u64 = 1000;

/// A warm-up at a tenth of the rate, then the rate. Event 0 comes before the schedule begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    warm_rate: u64,
    warm_ticks: u64,
    rate: u64,
    ticks: u64,
}

impl Schedule {
    pub(crate) fn new(rate: u32, warm_up: u32, seconds: u32) -> Self {
        Self {
            warm_rate: u64::from(rate) / 10,
            warm_ticks: u64::from(warm_up) * TICKS,
            rate: u64::from(rate),
            ticks: u64::from(seconds) * TICKS,
        }
    }

    /// Ticks of warm-up and measurement.
    pub(crate) fn ticks(&self) -> u64 {
        self.warm_ticks + self.ticks
    }

    /// All events, the one before the schedule included.
    pub(crate) fn events(&self) -> u64 {
        self.due_before(self.ticks())
    }

    /// Number of the first event that is scored.
    pub(crate) fn first_scored(&self) -> u64 {
        self.due_before(self.warm_ticks)
    }

    /// Events due before tick `tick`, the one before the schedule included.
    pub(crate) fn due_before(&self, tick: u64) -> u64 {
        let warm = tick.min(self.warm_ticks);
        let rest = tick.min(self.ticks()) - warm;
        1 + self.warm_rate * warm / TICKS + self.rate * rest / TICKS
    }

    /// The tick in which event number `event` (from 0) is due; 0 for the one before the schedule.
    pub(crate) fn tick_of(&self, event: u64) -> u64 {
        let Some(index) = event.checked_sub(1) else { return 0 };
        // The least tick with rate * (tick + 1) / TICKS > index.
        let tick = |index: u64, rate: u64| ((index + 1) * TICKS).div_ceil(rate) - 1;
        let warm = self.warm_rate * self.warm_ticks / TICKS;
        match index.checked_sub(warm) {
            None => tick(index, self.warm_rate),
            Some(index) => self.warm_ticks + tick(index, self.rate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_due_in_its_tick() {
        for (rate, warm_up, seconds) in [(10_000, 3, 2), (10, 1, 3), (777, 2, 2), (1500, 0, 1)] {
            let schedule = Schedule::new(rate, warm_up, seconds);
            assert_eq!(schedule.due_before(0), 1);
            assert_eq!(schedule.events() - schedule.first_scored(), u64::from(rate * seconds));
            let mut event = 1;
            for tick in 0..schedule.ticks() {
                while event < schedule.due_before(tick + 1) {
                    assert_eq!(schedule.tick_of(event), tick, "event {event} at {rate}/s");
                    event += 1;
                }
            }
            assert_eq!(event, schedule.events());
        }
    }
}
