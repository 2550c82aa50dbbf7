//! What must be true in every state, and what must be able to happen (else the model would prove nothing).
//!
//! *In*: a state. *Out*: yes or no. *Never*: a look at how the state came about, but for who rolled a table back.

use stateright::{Model, Property};

use super::model::Commits;
use super::world::{Plan, Rows, TABLES, World};
use super::writer::{Phase, Reply, Why, bit, learn, rows_below};

pub(crate) const TWICE: &str = "a row is in the lake at most once";
pub(crate) const GAP: &str = "below the offsets that recovery takes no row is missing, or recovery stops";
pub(crate) const ALARM: &str = "a stop has a reason";
pub(crate) const AHEAD: &str = "a checkpoint is never ahead of what is decided";
pub(crate) const COPY: &str = "a checkpoint has counted the copy that the lake holds";
pub(crate) const FILES: &str = "no table names a deleted file";
pub(crate) const LOG: &str = "the log holds what the newest good checkpoint needs";
pub(crate) const END: &str = "when nothing can happen any more, every row is stored";

pub(crate) fn all() -> Vec<Property<Commits>> {
    vec![
        Property::<Commits>::always(TWICE, once),
        Property::<Commits>::always(GAP, no_gap),
        Property::<Commits>::always(ALARM, no_false_alarm),
        Property::<Commits>::always(AHEAD, checkpoints_behind),
        Property::<Commits>::always(COPY, same_copy),
        Property::<Commits>::always(FILES, |_, world| !world.unreadable),
        Property::<Commits>::always(LOG, log_is_kept),
        Property::<Commits>::always(END, complete_in_the_end),
        Property::<Commits>::sometimes(
            "all rows are stored, after every fault there may be",
            |model, world| world.faults == 0 && stored(model, &contents(world)),
        ),
        Property::<Commits>::sometimes("two writers are up", |_, world| {
            world.writers.iter().all(|w| w.phase == Phase::Up)
        }),
        Property::<Commits>::sometimes("a zombie may land", |model, world| {
            world.requests.iter().any(|r| !r.awaited && world.lands(&model.rules, r))
        }),
        Property::<Commits>::sometimes("the reply of a commit that landed is lost", |_, world| {
            world.writers.iter().any(|w| {
                let mark = w.round.map(|round| round.mark);
                w.reply == Reply::Unknown && world.tables.iter().any(|t| t.property.map(|p| p.mark) == mark)
            })
        }),
        Property::<Commits>::sometimes("a rollback stops a writer", |_, world| {
            world.writers.iter().any(|w| w.phase == Phase::Stopped(Why::LakeRollbackDetected))
        }),
        Property::<Commits>::sometimes("a crashed writer left a round half done", |_, world| {
            let half = |plan: &Plan| {
                let held = |t: usize| world.tables[t].property.map(|seal| seal.mark) == Some(plan.mark);
                TABLES.iter().any(|&t| held(t)) && TABLES.iter().any(|&t| plan.rows[t] != 0 && !held(t))
            };
            world.writers.iter().all(|w| w.phase == Phase::Down) && half(&world.plan)
        }),
    ]
}

fn contents(world: &World) -> [Rows; 3] {
    TABLES.map(|t| world.tables[t].rows())
}

/// How often an id is in the lake.
fn times(model: &Commits, contents: &[Rows; 3], id: u8) -> usize {
    let rows = rows_below(lengths(model)).filter(|&(p, o)| model.bound.rows[p][o].id == id);
    rows.map(|(p, o)| contents.iter().filter(|rows| **rows & bit(p, o) != 0).count()).sum()
}

fn lengths(model: &Commits) -> [u8; 2] {
    [model.bound.rows[0].len() as u8, model.bound.rows[1].len() as u8]
}

fn ids(model: &Commits) -> impl Iterator<Item = u8> {
    model.bound.rows.iter().flatten().map(|row| row.id)
}

fn stored(model: &Commits, contents: &[Rows; 3]) -> bool {
    ids(model).all(|id| times(model, contents, id) == 1)
}

/// What a writer that starts now would take for true: offsets of each table, and their contents after it has
/// finished the last plan. `None`: it would stop.
fn recovery(model: &Commits, world: &World) -> Option<([[u8; 2]; 3], [Rows; 3], bool)> {
    let mut offsets = [[0; 2]; 3];
    let mut contents = contents(world);
    let mut twice = false;
    for t in TABLES {
        let (stored, _, due) = learn(&model.rules, &world.plan, t, &world.tables[t]).ok()?;
        offsets[t] = stored;
        if due {
            twice |= contents[t] & world.plan.rows[t] != 0;
            contents[t] |= world.plan.rows[t];
        }
    }
    Some((offsets, contents, twice))
}

fn once(model: &Commits, world: &World) -> bool {
    let twice = |t: usize| world.tables[t].snapshot(world.tables[t].head).is_some_and(|s| s.twice);
    let contents = contents(world);
    !TABLES.into_iter().any(twice) && ids(model).all(|id| times(model, &contents, id) <= 1)
}

fn no_gap(model: &Commits, world: &World) -> bool {
    let Some((offsets, contents, twice)) = recovery(model, world) else { return true };
    !twice
        && TABLES.into_iter().all(|t| {
            rows_below(offsets[t]).all(|(p, o)| {
                let Some(row) = model.bound.rows[p].get(o) else { return true };
                row.home[world.contract] != t || times(model, &contents, row.id) == 1
            })
        })
}

fn no_false_alarm(_: &Commits, world: &World) -> bool {
    let alarm = |w: &super::writer::Writer| w.phase == Phase::Stopped(Why::LakeRollbackDetected);
    world.rolled_back || !world.writers.iter().any(alarm)
}

fn checkpoints_behind(_: &Commits, world: &World) -> bool {
    world.checkpoints.iter().all(|c| super::writer::below(c.v, world.plan.mark.v))
}

fn same_copy(model: &Commits, world: &World) -> bool {
    let lake = contents(world).into_iter().fold(0, |all, rows| all | rows);
    let other = |(p, o): (usize, usize), (q, r): (usize, usize)| {
        (p, o) != (q, r) && model.bound.rows[p][o].id == model.bound.rows[q][r].id
    };
    world.checkpoints.iter().all(|c| {
        rows_below(c.v)
            .filter(|&(p, o)| c.admitted & bit(p, o) != 0 && lake & bit(p, o) == 0)
            .all(|a| !rows_below(lengths(model)).any(|b| lake & bit(b.0, b.1) != 0 && other(a, b)))
    })
}

fn log_is_kept(_: &Commits, world: &World) -> bool {
    let from = world.checkpoints.last().copied().unwrap_or_default();
    (0..2).all(|p| from.v[p] >= world.log_start[p])
}

fn complete_in_the_end(model: &Commits, world: &World) -> bool {
    // Quick: somebody can still do something.
    if world.requests.iter().any(|r| r.awaited) || world.writers.iter().any(|w| w.round.is_some()) {
        return true;
    }
    let mut steps = Vec::new();
    model.actions(world, &mut steps);
    let stopped = world.writers.iter().any(|w| matches!(w.phase, Phase::Stopped(_)));
    !steps.is_empty()
        || match recovery(model, world) {
            // What was taken away from the last round comes back when somebody starts.
            Some((_, contents, twice)) => stored(model, &contents) && !twice,
            None => world.rolled_back,
        }
        || (world.rolled_back && stopped)
}
