//! One engine decides at a time which copy of an event counts; others that read the same rows follow it.
//!
//! *In*: the engine that answers, the lake, an engine that begins. *Out*: what that engine is told of rows others have judged;
//! the moment at which it judges alone. *Never*: two engines that judge rows nobody has judged: each could take another
//! copy of an id, and the lake both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use contracts::batch::Decided;
use engine::checkpoint::Offsets;
use engine::{Decisions, Engine, Published};

use super::Shared;
use crate::app::Live;

/// The engine that answers takes nothing for so long at most, while the one that takes its place reads its last rows.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often that one is looked at.
const LOOK: Duration = Duration::from_millis(1);

impl Shared {
    /// An engine that begins at `from` beside the one that answers follows it.
    pub(super) fn follow(&self, engine: &Engine, from: &Offsets) -> Option<Arc<Decisions>> {
        let running = self.app.live().ok()?;
        let sources = self.settings.sources.iter().map(|source| source.name.clone()).collect();
        let decisions = Arc::new(Decisions::of_a_leader(sources));
        running.hook.followed_by(&decisions);
        // From this tick on it hears of everything; what was before is asked of the lake.
        running.engine.flush();
        decisions.add(self.decided(from));
        engine.follow(&decisions);
        Some(decisions)
    }

    /// An engine that begins at `from` judges the rows that the lake has as the process before did.
    pub(super) fn repeat(&self, engine: &Engine, from: &Offsets) {
        engine.follow(&Arc::new(Decisions::of_the_past(self.decided(from))));
    }

    /// Whether the lake had rows at the start that an engine which begins at `from` reads again.
    pub(super) fn reads_again(&self, from: &Offsets) -> bool {
        let ahead = |(partition, next): (_, &i64)| from.get(partition).is_none_or(|from| from < next);
        self.app.lake.as_ref().is_some_and(|lake| lake.reached().0.iter().any(ahead))
    }

    /// What the lake knows of duplicates from `since` on.
    fn decided(&self, since: &Offsets) -> Decided {
        let Some(lake) = &self.app.lake else { return Decided::default() };
        lake.decided(lake::Offsets(since.clone())).unwrap_or_else(|error| {
            tracing::warn!(%error, "it is not known which copies of an id counted: another one may count now");
            Decided::default()
        })
    }
}

/// Lets `live` judge alone once it `has_all` the running engine has (what is reached, what is wanted), which takes nothing
/// meanwhile; false: it does not get there in time, and the running one goes on.
pub(crate) fn hand_over(
    running: &Live,
    live: &Live,
    has_all: impl Fn(&Published, &Published) -> bool,
) -> bool {
    running.engine.hold(true);
    running.engine.flush();
    let wanted = running.reader.load();
    let begun = Instant::now();
    loop {
        live.engine.flush();
        if has_all(&live.reader.load(), &wanted) {
            if let Some(decisions) = &live.follows {
                decisions.end();
                live.engine.flush();
            }
            return true;
        }
        if begun.elapsed() > PATIENCE {
            running.engine.hold(false);
            return false;
        }
        // Waiting for real sources.
        std::thread::sleep(LOOK);
    }
}
