//! Shape of `kind: Metric`.
//!
//! *In*: nothing. *Out*: declared keys. *Never*: meaning.

use super::head::HEAD;
use super::{Key, Names, Shape, Ty, key};

pub(super) static METRIC: Shape = Shape {
    name: "Metric",
    doc: "A live number: what moves it, by what it is split, how it is computed, over which time.",
    groups: &[&HEAD, &INPUT_KEYS, &VALUE_KEYS, &CARE_KEYS],
};

static INPUT_KEYS: [Key; 6] = [
    key(
        "events",
        Ty::Map(Names::Column, &Ty::Object(&ALIAS)),
        "Aliases of the events that move it; nothing else does. Either this or `entity`.",
    ),
    key("entity", Ty::Name, "The metric is over the live rows of this entity."),
    key("where", Ty::Expr, "With `entity`: which rows."),
    key("join", Ty::List(&Ty::Object(&JOIN)), "Rows of several aliases become one, step by step."),
    key("sequence", Ty::Object(&SEQUENCE), "Per key, consecutive events become intervals."),
    key(
        "enrich",
        Ty::Map(Names::Column, &Ty::Object(&ENRICH)),
        "Rows of tables beside the rows of the metric.",
    ),
];

static VALUE_KEYS: [Key; 4] = [
    key("dimensions", Ty::Map(Names::Column, &Ty::Object(&DIMENSION)), "By what answers can be split."),
    key(
        "measures",
        Ty::Map(Names::Column, &Ty::Object(&MEASURE)),
        "What is computed; the first visible one is the answer's `value`.",
    )
    .required(),
    key("windows", Ty::Map(Names::Any, &Ty::Object(&WINDOW)), "Over which time.")
        .default("`all`: everything"),
    key("time", Ty::Object(&TIME), "Late, idle and future events."),
];

static CARE_KEYS: [Key; 9] = [
    key("better", Ty::OneOf(&["higher", "lower"]), "Direction of improvement."),
    key("freshness", Ty::Object(&FRESHNESS), "Budget of staleness, measured and shown."),
    key("levels", Ty::Object(&LEVELS), "Named bands of the value."),
    key("slo", Ty::List(&Ty::Object(&SLO)), "Objectives. Checked, do not run yet."),
    key("alerts", Ty::List(&Ty::Object(&ALERT)), "Rules that notify. Checked, do not run yet."),
    key("retain", Ty::Object(&RETAIN), "How long history is kept."),
    key("serve", Ty::Object(&SERVE), "Where it can be read.").default("everywhere"),
    key("access", Ty::Object(&ACCESS), "Who may read it.").default("everyone"),
    key("tests", Ty::List(&Ty::Object(&TEST)), "Events and the answers they must give."),
];

static ALIAS: Shape = Shape {
    name: "Alias",
    doc: "One input of a metric.",
    groups: &[&[
        key("type", Ty::Either(&[Ty::Name, Ty::List(&Ty::Name)]), "Event type, or a list.").required(),
        key("where", Ty::Expr, "Only rows for which this is true."),
        key("fields", Ty::Map(Names::Column, &Ty::Text), "Renames: `new: path.of.old`."),
        key("changelog", Ty::Bool, "A change stream: an event is a version of the row its key names.")
            .default("false"),
        key(
            "key",
            Ty::Either(&[Ty::Text, Ty::List(&Ty::Text)]),
            "With `changelog`: the field, or the fields, that name a row.",
        ),
        key("time", Ty::Text, "The field that is a row's time.").default("the event's time"),
    ]],
};

static JOIN: Shape = Shape {
    name: "Join",
    doc: "Rows of two aliases become one.",
    groups: &[&[
        key("from", Ty::Text, "Alias.").required(),
        key("to", Ty::Text, "Alias.").required(),
        key("match", Ty::Expr, "Equality of columns of both.").required(),
        key("pick", Ty::OneOf(&["first", "last", "each"]), "Which partner.").default("first"),
        key("order", Ty::OneOf(&["after", "before", "any"]), "When the partner happened.").default("after"),
        key("strict", Ty::Bool, "Not at the same instant.").default("false"),
        key("within", Ty::Duration, "At most this far apart; bounds the state.").required(),
        key(
            "ships",
            Ty::Object(&SHIPS),
            "The partner is, per line, the first deployment that contains the row's commit.",
        ),
    ]],
};

static SHIPS: Shape = Shape {
    name: "Ships",
    doc: "Which commits a deployment ships: those reachable from its commit, not from the deployment before it.",
    groups: &[&[
        key(
            "commit",
            EXPRS,
            "The row's commit; of a list the first that a deployment of the line contains (squash, rebase).",
        )
        .required(),
        key("head", Ty::Expr, "The commit that `to` runs.").required(),
        key("line", EXPRS, "What tells lines apart: a commit counts once per line.")
            .default("one line per value of `match`"),
        key("history", Ty::List(&Ty::Object(&HISTORY)), "Where parents come from; at least one.").required(),
        key(
            "cold_start",
            Ty::Text,
            "What the first deployment of a line ships: `skip`, `all`, or a duration such as 30d.",
        )
        .default("skip"),
    ]],
};

static HISTORY: Shape = Shape {
    name: "History",
    doc: "Rows that tell parents of commits: `sha` with `parents`, or `commits`.",
    groups: &[&[
        key("of", Ty::Text, "Alias.").required(),
        key("graph", EXPRS, "What `match` compares, over this alias.")
            .default("the side of `match` that is about this alias"),
        key("sha", Ty::Expr, "A commit."),
        key("parents", Ty::Text, "Its parents: a column that is a list of strings."),
        key("before", Ty::Expr, "With `commits`: the commit that the first of them contains; null: unknown."),
        key(
            "commits",
            Ty::Text,
            "Oldest first, each contains the one before: a column that is a list of strings.",
        ),
    ]],
};

/// An expression, or several.
const EXPRS: Ty = Ty::Either(&[Ty::Expr, Ty::List(&Ty::Expr)]);

static SEQUENCE: Shape = Shape {
    name: "Sequence",
    doc: "Per key, consecutive events become intervals: the aliases `interval`, `item` and `passed`.",
    groups: &[&[
        key("of", Ty::Text, "Alias.").default("the only alias"),
        key("key", Ty::Expr, "What the events are about.").required(),
        key("state", Ty::Expr, "State an event leads into; null: it says nothing about the state."),
        key(
            "start",
            Ty::Expr,
            "With `state`: from the first such event on the key counts as entered. Else: opens an interval.",
        ),
        key("end", Ty::Expr, "Closes an interval without opening another: the key is done."),
    ]],
};

static ENRICH: Shape = Shape {
    name: "Enrich",
    doc: "A row of a table beside each event.",
    groups: &[&[
        key("table", Ty::Name, "Table contract.").required(),
        key("match", Ty::Expr, "Equality of an event's column and the table's key.").required(),
        key("as_of", Ty::OneOf(&["event", "now"]), "Which version of the row.").default("now"),
        key("missing", Ty::OneOf(&["keep", "drop", "hold", "fail"]), "What becomes of unmatched events.")
            .default("keep"),
    ]],
};

static DIMENSION: Shape = Shape {
    name: "Dimension",
    doc: "By what answers can be split.",
    groups: &[&[
        key("from", Ty::Expr, "Expression over a row.").default("the column of the dimension's name"),
        key("default", Ty::Scalar, "Replaces null."),
        key("max", Ty::Count, "At most this many values are shown.").required(),
        key("overflow", Ty::OneOf(&["other", "refuse"]), "What becomes of values beyond `max`.")
            .default("other"),
        key("description", Ty::Text, "For people."),
    ]],
};

/// Every `agg`.
pub(crate) const AGGS: [&str; 16] = [
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "first",
    "last",
    "distinct",
    "distinct_approx",
    "quantile",
    "histogram",
    "stddev",
    "rate",
    "top",
    "concurrent",
    "duration_in_state",
];

static MEASURE: Shape = Shape {
    name: "Measure",
    doc: "One number; exactly one of `agg`, `ratio`, `expr`, `shift`, `over`.",
    groups: &[&[
        key("agg", Ty::OneOf(&AGGS), "A fold over rows."),
        key("ratio", Ty::List(&Ty::Text), "`[numerator, denominator]`: names of measures."),
        key("expr", Ty::Expr, "SQL over other measures."),
        key("shift", Ty::Text, "Another measure, with the window moved back by `by`."),
        key("by", Ty::Duration, "How far `shift` moves back."),
        key(
            "over",
            Ty::Text,
            "Another measure, in each of the last complete windows; `agg` folds its values.",
        ),
        key("window", Ty::Text, "`over`: which window of this metric."),
        key("last", Ty::Count, "`over`: how many of them."),
        key("running", Ty::Bool, "`over`: the running window is one of them.").default("false"),
        key("before", Ty::OneOf(&["absent", "zero"]), "`over`: windows that ended before the first row.")
            .default("absent"),
        key("of", Ty::Text, "Alias whose rows it folds.")
            .default("the aliases that `value` and `where` mention, else all"),
        key("value", Ty::Expr, "What is folded."),
        key("where", Ty::Expr, "Only rows for which this is true."),
        key("q", Ty::Number, "`quantile`: above 0 and below 1."),
        key("method", Ty::OneOf(&["lower", "linear", "sketch"]), "`quantile`: how.")
            .default("linear, or sketch where `error` is given"),
        key("error", Ty::Share, "`quantile` by sketch: relative error, e.g. `1%`.").default("1%"),
        key("buckets", Ty::List(&Ty::Number), "`histogram`: ascending upper bounds."),
        key("per", Ty::Duration, "`rate`: per how much time.").default("1s"),
        key("n", Ty::Count, "`top`: how many, 1 to 1000.").default("10"),
        key("state", Ty::Text, "`duration_in_state`: which state of the sequence.").default("all"),
        key("start", Ty::Expr, "`concurrent`, `duration_in_state`: from when a row lasts.")
            .default("the interval's start"),
        key("end", Ty::Expr, "`concurrent`, `duration_in_state`: until when, null while it lasts.")
            .default("the interval's end"),
        key("unit", Ty::Text, "For people; `ms`, `s`, `m`, `h`, `d` also scale durations."),
        key("type", Ty::Text, "Type of the answer: `decimal(p,s)`, `int`, `float`."),
        key("empty", Ty::Scalar, "Shown instead of null."),
        key("hidden", Ty::Bool, "Not in answers unless asked for by name.").default("false"),
        key("description", Ty::Text, "For people."),
    ]],
};

static WINDOW: Shape = Shape {
    name: "Window",
    doc: "Half-open [start, end) in event time; exactly one of `tumbling`, `sliding`, `session`, `to_date`, `all`.",
    groups: &[&[
        key("tumbling", Ty::Duration, "Fixed length; whole days need `tz`."),
        key("sliding", Ty::Duration, "The last so much."),
        key("every", Ty::Duration, "`sliding`: the step.").default("about a sixtieth of the size"),
        key("session", Ty::Duration, "Rows less than this apart belong together."),
        key(
            "to_date",
            Ty::OneOf(&["hour", "day", "week", "month", "quarter", "year"]),
            "From the start of the running calendar unit; needs `tz`.",
        ),
        key("all", Ty::Bool, "Everything since the beginning."),
        key("tz", Ty::Text, "IANA time zone, e.g. `Europe/London`."),
    ]],
};

static TIME: Shape = Shape {
    name: "Time",
    doc: "Late, idle and future events.",
    groups: &[&[
        key("lateness", Ty::Duration, "A window counts as complete this long after its end.").default("0s"),
        key("late", Ty::OneOf(&["restate", "drop", "side"]), "What late events do; only `restate` runs yet.")
            .default("restate"),
        key("idle", Ty::Duration, "A source silent this long no longer holds `complete` back.").default("1m"),
        key("future", Ty::Duration, "Rows further ahead of the clock are lost.").default("5m"),
        key(
            "column",
            Ty::Text,
            "When a row counts. With `entity` the field that is its time; else an SQL expression over a row and what is \
             beside it (null: the row does not count).",
        )
        .default("the row's time; of an entity the earliest event time"),
    ]],
};

static FRESHNESS: Shape = Shape {
    name: "Freshness",
    doc: "Budget of staleness.",
    groups: &[&[
        key("p95", Ty::Duration, "95 % of changes are visible within this.").required(),
        key("basis", Ty::Text, "Where the budget comes from."),
    ]],
};

static LEVELS: Shape = Shape {
    name: "Levels",
    doc: "Named bands, best first; the first that holds is the answer's `level`.",
    groups: &[&[
        key("source", Ty::Text, "Where the bands come from, with the year."),
        key("bands", Ty::Map(Names::Any, &Ty::Expr), "`name: condition over measures`.").required(),
    ]],
};

static SLO: Shape = Shape {
    name: "Slo",
    doc: "An objective over a measure or over freshness.",
    groups: &[&[
        key("name", Ty::Text, "Name.").required(),
        key("measure", Ty::Text, "Measure that is a share of good."),
        key("window", Ty::Text, "Window of the measure."),
        key("freshness", Ty::Duration, "Instead of a measure: how stale is still good."),
        key("objective", Ty::Share, "Share of good wanted.").required(),
        key("over", Ty::Duration, "Period of the error budget.").required(),
        key("description", Ty::Text, "For people."),
    ]],
};

static ALERT: Shape = Shape {
    name: "Alert",
    doc: "A condition over measures that notifies.",
    groups: &[&[
        key("name", Ty::Text, "Name.").required(),
        key("when", Ty::Expr, "SQL condition over measures.").required(),
        key("window", Ty::Text, "Window of the measures."),
        key("for", Ty::Duration, "It must hold this long.").default("0s"),
        key("notify", Ty::List(&Ty::Text), "Whom."),
        key("severity", Ty::Text, "For people."),
        key("description", Ty::Text, "For people."),
    ]],
};

static RETAIN: Shape = Shape {
    name: "Retain",
    doc: "How long history is kept.",
    groups: &[&[
        key("live", Ty::Duration, "How far back live answers and restating reach.")
            .default("the longest of 7d and twice the longest window"),
        key("lake", Ty::Duration, "How long the lake keeps it."),
    ]],
};

static SERVE: Shape = Shape {
    name: "Serve",
    doc: "Where the metric can be read.",
    groups: &[&[
        key("http", Ty::Bool, "HTTP API.").default("true"),
        key("prometheus", Ty::Bool, "Prometheus API.").default("true"),
        key("sql", Ty::Bool, "SQL.").default("true"),
        key("lake", Ty::Either(&[Ty::Bool, Ty::Object(&LAKE)]), "The lake."),
    ]],
};

static LAKE: Shape = Shape {
    name: "Lake",
    doc: "A table of the lake.",
    groups: &[&[key("iceberg", Ty::Text, "`namespace.table`.").required()]],
};

static ACCESS: Shape = Shape {
    name: "Access",
    doc: "Who may read it.",
    groups: &[&[key("read", Ty::List(&Ty::Text), "Roles.")]],
};

static TEST: Shape = Shape {
    name: "Test",
    doc: "Events in arrival order and the answers they must give.",
    groups: &[&[
        key("name", Ty::Text, "What it shows.").required(),
        key(
            "given",
            Ty::List(&Ty::Map(Names::Any, &Ty::Any)),
            "Events: `- alias: {field: value}`; `time`, `event_id` and `type` stand for the envelope.",
        )
        .required(),
        key("tables", Ty::Map(Names::Any, &Ty::Any), "Rows of tables."),
        key("at", Ty::Text, "The clock at the end, RFC 3339.").required(),
        key(
            "expect",
            Ty::Map(Names::Any, &Ty::List(&Ty::Map(Names::Any, &Ty::Any))),
            "Rows per window; a cell is a value or `{near: 5400, within: 1%}`.",
        ),
        key(
            "expect_refused",
            Ty::List(&Ty::Either(&[Ty::Count, Ty::Object(&REFUSAL)])),
            "Which of `given` (from 0) are refused.",
        ),
        key("expect_alerts", Ty::Any, "Alerts that fire. Does not run yet."),
    ]],
};

static REFUSAL: Shape = Shape {
    name: "Refusal",
    doc: "One expected refusal.",
    groups: &[&[
        key("given", Ty::Count, "Index into `given`, from 0.").required(),
        key("reason", Ty::Text, "Reason code, e.g. `missing`, `rule:order_total_consistency`."),
    ]],
};
