//! Protocols with one rule less, and what must break in each.
//!
//! *In*: the rules. *Out*: a list of bugs. *Never*: a bug that needs more than the bound of its line.

use super::properties::{AHEAD, COPY, END, FILES, GAP, LOG, TWICE};
use super::rules::{Row, Rules, four_rows, one_table};

pub(crate) struct Bug {
    pub name: &'static str,
    pub rules: Rules,
    /// The property that fails.
    pub breaks: &'static str,
    pub faults: u8,
    pub foreign: u8,
    pub rows: [Vec<Row>; 2],
}

pub(crate) fn all() -> Vec<Bug> {
    let (d, p) = (Rules::DECIDED, Rules::PLANNED);
    let marks = Rules { ledger_marks: true, ..p };
    let bug = |name, rules, breaks, faults, foreign| Bug {
        name,
        rules,
        breaks,
        faults,
        foreign,
        rows: four_rows(),
    };
    let small = |bug: Bug| Bug { rows: one_table(), ..bug };
    vec![
        bug("a lost reply is retried blindly", Rules { lookup: false, ..d }, TWICE, 1, 0),
        bug("a commit is rebased onto whatever is there", Rules { pin: false, ..d }, TWICE, 1, 0),
        bug("head < batch instead of head == start", Rules { exact: false, ..d }, GAP, 1, 1),
        bug("the same, tables before the ledger", Rules { exact: false, ..marks }, TWICE, 2, 0),
        bug("offsets in the summary only", Rules { property: false, ..d }, GAP, 2, 2),
        bug("no catching up", Rules { catch_up: false, ..d }, TWICE, 2, 0),
        bug("a checkpoint before the plan", Rules { early_checkpoint: true, ..d }, AHEAD, 0, 0),
        bug("the same, as what it loses", Rules { early_checkpoint: true, ..d }, END, 1, 0),
        bug("the ledger before the last table", Rules { early_ledger: true, ..marks }, GAP, 1, 0),
        bug("the last plan is not finished", Rules { finish: false, ..d }, GAP, 1, 0),
        bug("offset + 1", Rules { offset_plus_one: true, ..d }, GAP, 0, 0),
        bug("dead letters are dropped", Rules { dead_letters: false, ..d }, GAP, 0, 0),
        bug("a sweep of what no table names", Rules { careful_sweep: false, ..d }, FILES, 1, 0),
        bug("a rollback is not detected", Rules { detect_rollback: false, ..d }, GAP, 1, 1),
        small(bug(
            "a rollback of a snapshot is not detected",
            Rules { detect_rollback: false, ..d },
            GAP,
            1,
            1,
        )),
        bug("two plans of one number", Rules { plan_condition: false, ..d }, AHEAD, 1, 0),
        bug("a replay decides anew", Rules { decisions: false, ..d }, COPY, 1, 0),
        bug("the log keeps what the newest checkpoint needs", Rules { keep_log: false, ..d }, LOG, 1, 1),
        // A known limit: rolled back, compacted, and all else expired. Marks alone can not tell.
        small(bug("a hidden rollback", d, GAP, 3, 3)),
        // What was planned, with the holes in it.
        bug("planned: a ledger of offsets only", p, GAP, 1, 1),
        bug("planned: another contract after half a round", marks, TWICE, 2, 1),
        bug("planned: one catching up for all tables", marks, TWICE, 3, 0),
        bug("planned: a replay decides anew", marks, COPY, 1, 0),
        bug("planned: a zombie on an idle table", marks, FILES, 3, 0),
    ]
}
