//! A writer: recovers, reads rows in ticks, and brings each round to the tables.
//!
//! *In*: what it reads of the world. *Out*: requests, checkpoints, its own next step. *Never*: knowledge of what it
//! has not read, such as the fate of a request.

use super::rules::{Bound, DEAD, Rules};
use super::world::{Checkpoint, Mark, Offsets, Plan, Request, Rows, TABLES, Table, Target, World};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    #[default]
    Down,
    /// Has read the plan and a checkpoint, and this many tables.
    Reading(usize),
    Up,
    /// For good: somebody has to look.
    Stopped(Why),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Why {
    LakeRollbackDetected,
    OffsetGap,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    /// Nothing is asked.
    #[default]
    None,
    Awaited,
    /// Refused, lost or late: read again.
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub phase: Phase,
    pub start: u8,
    pub contract: usize,
    /// The last plan it knows.
    pub last: Plan,
    pub from: Checkpoint,
    /// Snapshot and number of snapshots of each table when it was read.
    pub head: [u8; 3],
    pub made: [u8; 3],
    /// The mark each table must hold before the next commit.
    pub before: [Option<Mark>; 3],
    /// Rows of a table below these offsets are in the lake.
    pub stored: [Offsets; 3],
    /// Where the catching up ends.
    pub limit: Offsets,
    pub read: Offsets,
    pub admitted: Rows,
    pub dropped: Rows,
    pub pending: [Rows; 3],
    pub round: Option<Plan>,
    /// What of the round is still to do.
    pub plan_due: bool,
    pub due: [bool; 3],
    pub reply: Reply,
}

/// What a table says about a commit that is wanted on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is there.
    Done,
    /// It is not there; the head holds what came before, so this is the snapshot to commit on.
    Missing,
    /// Another writer has gone on.
    Fenced,
    RolledBack,
}

/// The one place where the state of a table is judged: in recovery, after a conflict and after a lost reply.
pub(crate) fn judge(
    rules: &Rules,
    table: &Table,
    before: Option<Mark>,
    mine: Option<Mark>,
    n: u8,
) -> Verdict {
    let summary = table.summary();
    let seal = if rules.property { table.property } else { summary };
    if rules.detect_rollback && rules.property {
        let seq = table.snapshot(table.head).map_or(0, |s| s.seq);
        let older = seal.is_some_and(|seal| seq < seal.seq);
        let other = summary.is_some_and(|s| Some(s.mark) != seal.map(|seal| seal.mark));
        if older || other {
            return Verdict::RolledBack;
        }
    }
    let holds = seal.map(|seal| seal.mark);
    let lesser = |mark: Mark| mine.is_some_and(|mine| mark.v != mine.v && below(mark.v, mine.v));
    if mine.is_some() && holds == mine {
        Verdict::Done
    } else if holds == before || (!rules.exact && holds.is_none_or(lesser)) {
        Verdict::Missing
    } else if holds.is_some_and(|mark| mark.n > n || (mark.n == n && !rules.plan_first)) {
        Verdict::Fenced
    } else if rules.detect_rollback {
        Verdict::RolledBack
    } else {
        Verdict::Missing
    }
}

pub(crate) fn below(a: Offsets, b: Offsets) -> bool {
    a[0] <= b[0] && a[1] <= b[1]
}

fn max(a: Offsets, b: Offsets) -> Offsets {
    [a[0].max(b[0]), a[1].max(b[1])]
}

pub(crate) fn bit(partition: usize, offset: usize) -> Rows {
    1 << (4 * partition + offset)
}

/// Partition and offset of each row below `v`.
pub(crate) fn rows_below(v: Offsets) -> impl Iterator<Item = (usize, usize)> {
    (0..2).flat_map(move |p| (0..usize::from(v[p])).map(move |o| (p, o)))
}

/// What one table means to a writer that recovers after `plan`: offsets, mark, whether files of the plan are missing.
/// `Err(None)`: another writer has gone on, start again.
pub(crate) fn learn(
    rules: &Rules,
    plan: &Plan,
    t: usize,
    table: &Table,
) -> Result<(Offsets, Option<Mark>, bool), Option<Why>> {
    let n = plan.mark.n;
    if rules.plan_first {
        let mine = (plan.rows[t] != 0).then_some(plan.mark);
        return match judge(rules, table, plan.before[t], mine, n) {
            Verdict::Done => Ok((plan.mark.v, plan.mark.into(), false)),
            Verdict::Missing => Ok((plan.mark.v, plan.before[t], mine.is_some() && rules.finish)),
            Verdict::Fenced => Err(None),
            Verdict::RolledBack => Err(Some(Why::LakeRollbackDetected)),
        };
    }
    let holds = if rules.property { table.property } else { table.summary() }.map(|seal| seal.mark);
    // Without marks in the ledger nobody can say what a table without rows in the last round must hold.
    let newer = holds.is_some_and(|mark| mark.n > n);
    let expected = if rules.ledger_marks && !newer { plan.before[t] } else { holds };
    match judge(rules, table, expected, None, n) {
        Verdict::RolledBack => Err(Some(Why::LakeRollbackDetected)),
        Verdict::Fenced => Err(None),
        _ => Ok((max(holds.map_or([0, 0], |mark| mark.v), plan.mark.v), holds, false)),
    }
}

impl Writer {
    pub(crate) fn idle(&self) -> bool {
        self.phase == Phase::Up && self.round.is_none()
    }

    /// The first step of recovery: the plan and the newest checkpoint.
    pub(crate) fn start(world: &World) -> Writer {
        let from = world.checkpoints.last().copied().unwrap_or_default();
        let gap = (0..2).any(|p| from.v[p] < world.log_start[p]);
        Writer {
            phase: if gap { Phase::Stopped(Why::OffsetGap) } else { Phase::Reading(0) },
            start: world.starts,
            contract: world.contract,
            last: world.plan,
            from,
            ..Writer::default()
        }
    }

    /// The next ones: a table each.
    pub(crate) fn read_table(&mut self, rules: &Rules, t: usize, table: &Table) {
        match learn(rules, &self.last, t, table) {
            Ok((stored, before, due)) => {
                (self.head[t], self.made[t]) = (table.head, table.made);
                (self.stored[t], self.before[t], self.due[t]) = (stored, before, due);
                self.phase = Phase::Reading(t + 1);
            }
            Err(None) => *self = Writer::default(),
            Err(Some(why)) => *self = Writer { phase: Phase::Stopped(why), ..Writer::default() },
        }
    }

    /// The last one: where to read on, and what of the last plan is left to do.
    pub(crate) fn recovered(&mut self, rules: &Rules) {
        self.phase = Phase::Up;
        self.limit = TABLES.iter().fold([0, 0], |v, &t| max(v, self.stored[t]));
        self.read = self.from.v;
        (self.admitted, self.dropped) = (self.from.admitted, self.from.dropped);
        if rules.decisions && rules.catch_up {
            self.read = max(self.read, self.limit);
            self.dropped |= self.last.dropped;
            for (p, o) in rows_below(self.limit) {
                self.admitted |= bit(p, o) & !self.last.dropped;
            }
        }
        self.round = self.due.contains(&true).then_some(self.last);
    }

    /// Whether the next row of the partition may be taken now.
    pub(crate) fn may_read(&self, rules: &Rules, bound: &Bound, p: usize) -> bool {
        let behind = |p: usize| self.read[p] < self.limit[p];
        let free = !rules.catch_up || behind(p) || !(behind(0) || behind(1));
        self.idle() && usize::from(self.read[p]) < bound.rows[p].len() && free
    }

    pub(crate) fn tick(&mut self, bound: &Bound, p: usize) {
        let o = usize::from(self.read[p]);
        self.read[p] += 1;
        let row = bound.rows[p][o];
        let home = row.home[self.contract];
        let copy = rows_below([4, 4]).any(|(p, o)| {
            self.admitted & bit(p, o) != 0 && bound.rows[p].get(o).is_some_and(|other| other.id == row.id)
        });
        if copy && home != DEAD {
            self.dropped |= bit(p, o);
            return;
        }
        self.admitted |= bit(p, o);
        if o >= usize::from(self.stored[home][p]) {
            self.pending[home] |= bit(p, o);
        }
    }

    pub(crate) fn may_begin_round(&self) -> bool {
        let moved = self.read != self.last.mark.v && below(self.last.mark.v, self.read);
        self.idle() && moved && below(self.limit, self.read)
    }

    pub(crate) fn begin_round(&mut self, rules: &Rules, bound: &Bound) {
        let mut v = self.read;
        if rules.offset_plus_one {
            v[0] = (v[0] + 1).min(bound.rows[0].len() as u8);
        }
        let mut rows = std::mem::take(&mut self.pending);
        if !rules.dead_letters {
            rows[DEAD] = 0;
        }
        let mark = Mark { n: self.last.mark.n + 1, start: self.start, v };
        self.round = Some(Plan { mark, rows, dropped: self.dropped, before: self.before });
        self.plan_due = true;
        self.due = rows.map(|rows| rows != 0);
    }

    /// What the round needs next.
    pub(crate) fn target(&self, rules: &Rules) -> Option<Target> {
        let table = TABLES.into_iter().find(|&t| self.due[t]).map(Target::Table);
        let last = self.due.iter().filter(|due| **due).count() < 2;
        let plan_now = rules.plan_first || table.is_none() || (rules.early_ledger && last);
        if self.plan_due && plan_now { Some(Target::Plan) } else { table }
    }

    pub(crate) fn request(&mut self, rules: &Rules, from: usize) -> Option<Request> {
        let (target, round) = (self.target(rules)?, self.round?);
        self.reply = Reply::Awaited;
        let request = Request { from, awaited: true, target, base: 0, seq: 0, rows: 0, plan: round };
        Some(match target {
            // The ledger holds no files, and what the tables hold after the round.
            Target::Plan if !rules.plan_first => {
                let plan = Plan { rows: [0; 3], before: round.after(), dropped: 0, ..round };
                Request { plan, ..request }
            }
            Target::Plan => request,
            Target::Table(t) => Request {
                base: self.head[t],
                seq: self.made[t] + 1,
                rows: round.rows[t],
                plan: Plan { mark: round.mark, ..Plan::default() },
                ..request
            },
        })
    }

    /// The step of the round is done: on to the next.
    pub(crate) fn done(&mut self, rules: &Rules) {
        self.reply = Reply::None;
        match self.target(rules) {
            Some(Target::Plan) => self.plan_due = false,
            Some(Target::Table(t)) => self.due[t] = false,
            None => {}
        }
        if self.target(rules).is_none()
            && let Some(round) = self.round.take()
        {
            self.before = round.after();
            self.last = round;
        }
    }

    /// After a conflict or without a reply: reads the target again and decides.
    pub(crate) fn reload(&mut self, rules: &Rules, world: &World) {
        let (Some(target), Some(round)) = (self.target(rules), self.round) else { return };
        self.reply = Reply::None;
        match target {
            Target::Plan if world.plan.mark == round.mark => self.done(rules),
            Target::Plan if world.plan.mark.n + 1 == round.mark.n => {}
            Target::Plan => *self = Writer::default(),
            Target::Table(t) => {
                let table = &world.tables[t];
                let verdict = if rules.lookup {
                    judge(rules, table, round.before[t], Some(round.mark), round.mark.n)
                } else {
                    Verdict::Missing
                };
                match verdict {
                    Verdict::Done => self.committed(rules, t, table),
                    Verdict::Missing => (self.head[t], self.made[t]) = (table.head, table.made),
                    Verdict::Fenced => *self = Writer::default(),
                    Verdict::RolledBack => {
                        *self =
                            Writer { phase: Phase::Stopped(Why::LakeRollbackDetected), ..Writer::default() };
                    }
                }
            }
        }
    }

    /// The commit on the table is there: pin what it left.
    pub(crate) fn committed(&mut self, rules: &Rules, t: usize, table: &Table) {
        (self.head[t], self.made[t]) = (table.head, table.made);
        self.done(rules);
    }

    pub(crate) fn may_checkpoint(&self, rules: &Rules, world: &World) -> bool {
        let newest = world.checkpoints.last().copied().unwrap_or_default();
        if rules.early_checkpoint {
            return self.idle() && self.read != newest.v && below(newest.v, self.read);
        }
        self.idle() && self.last.mark.n > newest.n && self.read == self.last.mark.v
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint { n: self.last.mark.n, v: self.read, admitted: self.admitted, dropped: self.dropped }
    }
}
