//! The second truth in a running server: kept events, and numbers recomputed from them.
//!
//! *In*: a question and the tick that answered it. *Out*: both numbers, and whether they agree. *Never*: a comparison
//! of two ticks; "agrees" where nothing was recomputed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit::{AuditError, Question, Recomputed, Served, ServedRow};
use connectors::store::events::{EventStore, KeepError, KeepLimits};
use contracts::Catalog;
use contracts::batch::Kept;
use contracts::value::format_timestamp;
use engine::{Admitted, Answer, MetricQuery, Published, QueryError};

use crate::app::Live;
use crate::settings::Audit;

/// Events that one question may read again.
pub(crate) const MOST: usize = 5_000_000;

/// A tick's events are kept right after it is published; this long a question waits for that.
const BEHIND: Duration = Duration::from_secs(2);

/// The events of one engine.
#[derive(Debug)]
pub struct Keeper {
    store: EventStore,
}

impl Keeper {
    /// A store for what the metrics of `catalog` read; `None`: it is turned off.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn open(
        data: &Path,
        generation: u64,
        catalog: &Catalog,
        audit: &Audit,
    ) -> std::io::Result<Option<Self>> {
        let Some(memory) = usize::try_from(audit.memory).ok().filter(|memory| *memory > 0) else {
            return Ok(None);
        };
        let limits = KeepLimits { memory, disk: audit.disk, retain: audit::kept(catalog) };
        let all = data.join("kept");
        if generation == 1 {
            // What a process that was killed has left.
            match std::fs::remove_dir_all(&all) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let folder = all.join(generation.to_string());
        Ok(Some(Self { store: EventStore::open(folder, limits)? }))
    }

    /// Events up to this instant were admitted before a restart, and are not kept.
    pub(crate) fn begin(&self, until: i64) {
        self.store.begin(until);
    }

    /// Takes the admitted rows of a tick.
    pub(crate) fn offer(&self, published: &Published, admitted: &[Admitted]) {
        let (tick, now) = (published.tick, published.as_of);
        let kept = admitted.iter().map(|admitted| {
            Kept::new(tick, now, Arc::new(admitted.partition.clone()), admitted.batch.clone())
        });
        self.store.offer(tick, now, kept);
    }

    /// Events kept, bytes in memory, bytes in files.
    pub(crate) fn size(&self) -> (usize, usize, u64) {
        self.store.size()
    }
}

/// A served number and the recomputed one.
pub(crate) struct Compared {
    /// The tick both are about.
    pub(crate) published: Arc<Published>,
    /// As served.
    pub(crate) answer: Answer,
    /// What was asked of the second truth.
    pub(crate) question: Question,
    /// As recomputed, or why it was not.
    pub(crate) again: Result<Recomputed, String>,
    /// The first difference; `None`: they agree, or nothing was recomputed.
    pub(crate) difference: Option<String>,
}

impl Compared {
    /// `None`: nothing was recomputed.
    pub(crate) fn agrees(&self) -> Option<bool> {
        self.again.is_ok().then_some(self.difference.is_none())
    }
}

/// Answers `query` twice: from the engine's state and from the kept events of the same tick, of at most `most`. Takes as long as a batch
/// evaluation takes; must not be called on a thread of a tokio runtime.
pub(crate) fn compare(
    live: &Live,
    published: &Arc<Published>,
    metric: usize,
    query: &MetricQuery,
    most: usize,
) -> Result<Compared, QueryError> {
    let answer = published.metric(metric, query)?;
    let contract = &published.catalog.metrics[metric];
    let position = |name: &String| contract.dimensions.iter().position(|d| d.name == *name);
    let measure = |name: &String| contract.measures.iter().position(|m| m.name == *name);
    let measures: Vec<usize> = answer.measures.iter().filter_map(measure).collect();
    let question = Question {
        metric,
        window: contract.windows.iter().position(|w| w.name == answer.window).unwrap_or(0),
        by: query.by.iter().filter_map(position).collect(),
        explain: measures.first().copied(),
        measures,
        filter: query.filter.clone(),
        as_of: answer.as_of,
        now: published.as_of,
    };
    let again = again(live, published, &question, most);
    let served = Served {
        span: answer.start.zip(answer.end),
        value: answer.value.clone(),
        rows: answer
            .rows
            .iter()
            .map(|row| ServedRow { key: row.key.clone(), values: row.values.clone(), session: row.session })
            .collect(),
    };
    let difference = match &again {
        Ok(again) => audit::disagreement(contract, &question, &served, again),
        Err(_) => None,
    };
    Ok(Compared { published: Arc::clone(published), answer, question, again, difference })
}

fn again(
    live: &Live,
    published: &Arc<Published>,
    question: &Question,
    most: usize,
) -> Result<Recomputed, String> {
    let Some(keeper) = live.hook.keeper() else {
        return Err("not recomputed: events are not kept (`audit.memory` is 0)".to_owned());
    };
    wait(live, published.tick)?;
    let contract = &published.catalog.metrics[question.metric];
    let types: Vec<usize> = audit::reads(&published.catalog, contract).into_iter().collect();
    let from = audit::needs_from(contract, question).map_err(|error| error.to_string())?;
    let found = match keeper.store.read(&types, published.tick, from, most) {
        Ok(found) => found,
        Err(error @ KeepError::TooMany { .. }) => return Err(format!("not recomputed: {error}")),
        Err(error) => return Err(error.to_string()),
    };
    if let Some(gone) = found.gone.filter(|gone| *gone >= from) {
        let gone = format_timestamp(gone);
        return Err(format!(
            "not recomputed: events until {gone} are no longer kept (`audit.memory`, `audit.disk`)"
        ));
    }
    audit::recompute(&published.catalog, question, &found.events).map_err(|error| match error {
        AuditError::NotRecomputed(_) => error.to_string(),
        _ => format!("not recomputed: {error}"),
    })
}

/// Until the store has what the tick admitted.
fn wait(live: &Live, tick: u64) -> Result<(), String> {
    let started = Instant::now();
    while live.hook.latest().is_none_or(|latest| latest.tick < tick) {
        if started.elapsed() > BEHIND {
            return Err("not recomputed: the kept events are behind the answer; ask again".to_owned());
        }
        // The hook runs on the thread that publishes; it is a moment behind at most.
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
