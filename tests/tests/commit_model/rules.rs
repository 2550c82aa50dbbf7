//! The rules of the commit protocol as switches, so that the checker can be asked what each of them is for.
//!
//! *In*: nothing. *Out*: `Rules`: the protocol of decision 0014, the one that was planned before it, and each of
//! them with one rule taken away. *Never*: a rule that only the model knows.

/// What the writers, and the catalog, do. `true` is right everywhere but in `early_*`, `offset_plus_one`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// A round is decided by one conditional write (the plan) before the first table is committed; else each table
    /// is committed first and a ledger is written after the last.
    pub plan_first: bool,
    /// The plan (ledger) is created only where its number is free.
    pub plan_condition: bool,
    /// Recovery commits what the last plan names and a table lacks.
    pub finish: bool,
    /// The plan records which rows were dropped as duplicates, and a replay takes its decisions from there.
    pub decisions: bool,
    /// Nothing beyond the last round is admitted before all partitions have reached it.
    pub catch_up: bool,
    /// A commit lands only on the snapshot it was made for.
    pub pin: bool,
    /// Without a reply the table is read again and judged; else the commit is made again on what is there.
    pub lookup: bool,
    /// A table must hold exactly the mark that came before; else any mark with lesser offsets is good enough.
    pub exact: bool,
    /// Offsets are kept in a table property as well as in the summary of the snapshot.
    pub property: bool,
    /// A head that is older than the property says, or less than the plan wants, is a stop.
    pub detect_rollback: bool,
    /// The ledger says which commit each table must hold.
    pub ledger_marks: bool,
    /// Refused rows are committed, too.
    pub dead_letters: bool,
    /// A sweep spares what the last plan, or a plan to come, may name; else it deletes what no table names now.
    pub careful_sweep: bool,
    /// The log keeps what the oldest kept checkpoint needs; else what the newest needs.
    pub keep_log: bool,
    /// A checkpoint of rows that no plan (ledger) covers.
    pub early_checkpoint: bool,
    /// The ledger is written before the last table is committed.
    pub early_ledger: bool,
    /// Offsets name the next row but one.
    pub offset_plus_one: bool,
}

impl Rules {
    /// The protocol of decision 0014.
    pub(crate) const DECIDED: Rules = Rules {
        plan_first: true,
        plan_condition: true,
        finish: true,
        decisions: true,
        catch_up: true,
        pin: true,
        lookup: true,
        exact: true,
        property: true,
        detect_rollback: true,
        ledger_marks: true,
        dead_letters: true,
        careful_sweep: true,
        keep_log: true,
        early_checkpoint: false,
        early_ledger: false,
        offset_plus_one: false,
    };

    /// The protocol as it was planned before there was a model: tables first, then a ledger of offsets.
    pub(crate) const PLANNED: Rules =
        Rules { plan_first: false, decisions: false, ledger_marks: false, ..Rules::DECIDED };
}

/// How far the checker looks. All orders of all steps within it are tried.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    /// Crashes, lost replies, delays, second active writers, foreign commits, corruptions, new contracts: in all.
    pub faults: u8,
    /// Foreign commits, corruptions and new contracts among them.
    pub foreign: u8,
    /// A writer that recovers reads the tables one by one, not all at one instant.
    pub slow_reads: bool,
    /// The rows of each partition.
    pub rows: [Vec<Row>; 2],
}

/// A row of a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Two rows with one id are copies of each other: at most one is admitted.
    pub id: u8,
    /// The table it belongs into, under the first and under the second contract.
    pub home: [usize; 2],
}

/// A table of events of one type.
pub(crate) const A: usize = 0;
/// Another one.
pub(crate) const B: usize = 1;
/// The table of refused rows.
pub(crate) const DEAD: usize = 2;

/// A row of A in both partitions (two copies), a refused one that the second contract admits, and a row of B.
pub(crate) fn four_rows() -> [Vec<Row>; 2] {
    let copy = Row { id: 0, home: [A, A] };
    [vec![copy, Row { id: 1, home: [DEAD, B] }], vec![copy, Row { id: 2, home: [B, B] }]]
}

/// The copies, and a refused row that the second contract admits.
pub(crate) fn three_rows() -> [Vec<Row>; 2] {
    let copy = Row { id: 0, home: [A, A] };
    [vec![copy, Row { id: 1, home: [DEAD, B] }], vec![copy]]
}

/// The copies, and another row of their table: it is committed twice, so that there is something to roll back to.
pub(crate) fn one_table() -> [Vec<Row>; 2] {
    let copy = Row { id: 0, home: [A, A] };
    [vec![copy], vec![copy, Row { id: 1, home: [A, A] }]]
}
