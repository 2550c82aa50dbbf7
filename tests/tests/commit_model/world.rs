//! What there is: tables with their snapshots, the plan (or ledger), checkpoints, requests under way, two writers.
//!
//! *In*: commits, plans, foreign actions. *Out*: the tables after them. *Never*: what a writer decides (writer.rs).

use super::rules::{A, DEAD, Rules};

pub(crate) type Offsets = [u8; 2];
/// A set of rows: bit `4 * partition + offset`.
pub(crate) type Rows = u8;

pub(crate) const TABLES: [usize; 3] = [A, 1, DEAD];

/// Who committed what: the round, the start of the writer it was decided by, and the offsets it reaches (exclusive).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub n: u8,
    pub start: u8,
    pub v: Offsets,
}

/// The property of a table: the mark, and the sequence number of the snapshot that was committed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Seal {
    pub mark: Mark,
    pub seq: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Snapshot {
    pub id: u8,
    pub seq: u8,
    /// 0: none.
    pub parent: u8,
    pub rows: Rows,
    /// Holds a row twice.
    pub twice: bool,
    /// What the summary says; a foreign snapshot says nothing.
    pub summary: Option<Mark>,
    /// The property beside it, for those who restore old metadata.
    pub property: Option<Seal>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Table {
    pub snapshots: Vec<Snapshot>,
    /// 0: no snapshot yet.
    pub head: u8,
    pub property: Option<Seal>,
    /// Snapshots there were, ever.
    pub made: u8,
}

impl Table {
    pub(crate) fn snapshot(&self, id: u8) -> Option<&Snapshot> {
        self.snapshots.iter().find(|s| s.id == id)
    }

    pub(crate) fn rows(&self) -> Rows {
        self.snapshot(self.head).map_or(0, |s| s.rows)
    }

    /// The nearest summary of ours, from the head on.
    pub(crate) fn summary(&self) -> Option<Seal> {
        let mut at = self.snapshot(self.head);
        while let Some(snapshot) = at {
            if let Some(mark) = snapshot.summary {
                return Some(Seal { mark, seq: snapshot.seq });
            }
            at = self.snapshot(snapshot.parent);
        }
        None
    }

    pub(crate) fn add(&mut self, rows: Rows, seq: u8, summary: Option<Mark>) {
        self.made += 1;
        let twice = self.snapshot(self.head).is_some_and(|s| s.twice) || self.rows() & rows != 0;
        if let Some(mark) = summary {
            self.property = Some(Seal { mark, seq });
        }
        self.snapshots.push(Snapshot {
            id: self.made,
            seq,
            parent: self.head,
            rows: self.rows() | rows,
            twice,
            summary,
            property: self.property,
        });
        self.head = self.made;
    }

    /// Makes an older snapshot the head; what came after it can not be reached any more.
    pub(crate) fn back_to(&mut self, id: u8) {
        self.head = id;
        let mut kept = Vec::new();
        let mut at = self.snapshot(id);
        while let Some(snapshot) = at {
            kept.push(*snapshot);
            at = self.snapshot(snapshot.parent);
        }
        kept.reverse();
        self.snapshots = kept;
    }
}

/// The plan of the last round (or the ledger after it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Plan {
    pub mark: Mark,
    /// The files of each table, by the rows in them.
    pub rows: [Rows; 3],
    /// All rows so far that were dropped as duplicates.
    pub dropped: Rows,
    /// What each table held before.
    pub before: [Option<Mark>; 3],
}

impl Plan {
    /// What each table must hold after it.
    pub(crate) fn after(&self) -> [Option<Mark>; 3] {
        TABLES.map(|t| if self.rows[t] != 0 { Some(self.mark) } else { self.before[t] })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Checkpoint {
    pub n: u8,
    pub v: Offsets,
    pub admitted: Rows,
    pub dropped: Rows,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Target {
    Plan,
    Table(usize),
}

/// A request that is with a catalog or a store and may be carried out at any time, or never.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Request {
    pub from: usize,
    /// Its sender waits for the reply; else it is a zombie.
    pub awaited: bool,
    pub target: Target,
    pub base: u8,
    pub seq: u8,
    pub rows: Rows,
    pub plan: Plan,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub tables: [Table; 3],
    pub plan: Plan,
    /// All plans there were.
    pub decided: Vec<Mark>,
    /// At most two, newest last.
    pub checkpoints: Vec<Checkpoint>,
    /// The first offset that the log still holds.
    pub log_start: Offsets,
    /// Files that were deleted, by the round they were written for.
    pub swept: Vec<Mark>,
    /// A table names a file that is deleted.
    pub unreadable: bool,
    /// Somebody rolled a table back or restored old metadata of it.
    pub rolled_back: bool,
    pub requests: Vec<Request>,
    pub writers: [super::writer::Writer; 2],
    pub starts: u8,
    pub contract: usize,
    /// A checkpoint was damaged.
    pub damaged: bool,
    pub faults: u8,
    pub foreign: u8,
}

impl World {
    /// Whether the request would change anything now.
    pub(crate) fn lands(&self, rules: &Rules, request: &Request) -> bool {
        match request.target {
            Target::Plan => !rules.plan_condition || self.plan.mark.n + 1 == request.plan.mark.n,
            Target::Table(t) => !rules.pin || self.tables[t].head == request.base,
        }
    }

    pub(crate) fn carry_out(&mut self, rules: &Rules, request: &Request) {
        let mark = request.plan.mark;
        match request.target {
            Target::Plan => {
                self.plan = request.plan;
                self.decided.push(mark);
            }
            Target::Table(t) => {
                self.unreadable |= self.swept.contains(&mark);
                let table = &mut self.tables[t];
                let seq = if rules.pin { request.seq } else { table.made + 1 };
                table.add(request.rows, seq, Some(mark));
            }
        }
    }

    /// Deletes files of rounds that no table names. Done once by each writer when it has recovered.
    pub(crate) fn sweep(&mut self, rules: &Rules) {
        let mut files: Vec<Mark> = self.requests.iter().map(|r| r.plan.mark).collect();
        files.extend(self.writers.iter().filter_map(|w| w.round.map(|round| round.mark)));
        for mark in files {
            let named = self.tables.iter().any(|t| t.snapshots.iter().any(|s| s.summary == Some(mark)));
            let may_come = mark.n > self.plan.mark.n || self.decided.contains(&mark);
            let spared = named || (rules.careful_sweep && may_come) || self.swept.contains(&mark);
            if !spared {
                self.swept.push(mark);
                self.swept.sort();
            }
        }
    }
}
