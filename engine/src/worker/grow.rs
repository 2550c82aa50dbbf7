//! A new metric over an entity that is kept: its rows are the metric's history.
//!
//! *In*: workers with the rows of entities. *Out*: the state of metrics over them, as if each row had come as a change.
//! *Never*: a row of an entity twice; anything read again.

use contracts::catalog::Input;
use operators::fold::group::{Delta, Lost, group};
use operators::state::Sharded;

use super::Local;

/// Folds all rows of the entities behind `metrics`, which have no state until now.
pub(crate) fn from_entities(locals: &mut [Local], metrics: &[usize], now: i64) -> Result<(), String> {
    let workers = locals.len();
    for metric in metrics {
        let mut shares: Vec<Vec<Delta>> = (0..workers).map(|_| Vec::new()).collect();
        let mut lost: Vec<Lost> = vec![Lost::new(); workers];
        for (local, lost) in locals.iter().zip(&mut lost) {
            let compiled = &local.plan.metrics[*metric];
            for feed in &compiled.feeds {
                let Input::Entity(entity) = feed.input else { continue };
                let rows = local.entities[entity].shard().rows_at(i64::MAX);
                let rows = rows.map_err(|_| "rows of an entity lie beyond all time".to_owned())?;
                for delta in group(compiled, feed, rows.rows(), now, lost) {
                    shares[usize::from(delta.key.shard()) % workers].push(delta);
                }
            }
        }
        for ((local, share), lost) in locals.iter_mut().zip(shares).zip(lost) {
            let state = &mut local.metrics[*metric];
            state.turn(now);
            state.lose(&lost);
            state.apply(share);
        }
    }
    Ok(())
}
