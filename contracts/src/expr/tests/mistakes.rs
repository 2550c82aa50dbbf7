//! Every kind of mistake, with its place, its words and its help.

use super::*;

#[test]
fn mistakes_are_told_with_their_place() {
    let mut wrong = Vec::new();
    for (sql, code, place, message, help) in [
        ("", "syntax", "", "an expression is expected, found nothing", ""),
        ("amount >", "syntax", "", "expected an expression, found the end", ""),
        ("amount > 1 1", "syntax", "1", "the expression should end before `1`", ""),
        ("amount ) 1", "syntax", ")", "the expression should end before `)`", ""),
        ("amount = 'x", "syntax", "'x", "unterminated string literal", ""),
        ("amuont > 1", "unknown_name", "amuont", "no column is called `amuont`", "did you mean `amount`?"),
        (
            "amount > 1\n AND statsu = 'x'",
            "unknown_name",
            "statsu",
            "no column is called `statsu`",
            "did you mean `status`?",
        ),
        ("Status = 'x'", "unknown_name", "Status", "no column is called `Status`", "did you mean `status`?"),
        ("ordr.amount > 1", "unknown_name", "ordr", "no column is called `ordr`", "did you mean `order`?"),
        ("order.amuont", "unknown_name", "amuont", "`order` has no field `amuont`", "did you mean `amount`?"),
        ("repository.name", "unknown_name", "name", "`repository` has no field `name`", ""),
        (
            "env = 'prod'",
            "unknown_name",
            "env",
            "no column is called `env`",
            "`env` belongs to `deploy`: write `deploy.env`",
        ),
        ("status = paid_", "unknown_name", "paid_", "no column is called `paid_`", "did you mean `paid`?"),
        (
            "status = 'x' AND tolower(url) = 'y'",
            "unknown_function",
            "tolower",
            "no function is called `tolower`",
            "did you mean `lower`?",
        ),
        ("abs(status) > 1", "type", "abs(status)", "`abs` does not take (string)", ""),
        (
            "paid AND (amount + url) > 3",
            "type",
            "amount + url",
            "`+` does not work on texts",
            "cast to a number: CAST(x AS DECIMAL(18,2)); texts are joined by ||",
        ),
        (
            "amount > '50'",
            "type",
            "amount > '50'",
            "a decimal(18,2) and a string do not compare",
            "write numbers without quotes, or cast: CAST(x AS DECIMAL(18,2))",
        ),
        (
            "status IN ('a', 1)",
            "type",
            "status IN ('a', 1",
            "a string and an int do not compare",
            "write numbers without quotes, or cast: CAST(x AS DECIMAL(18,2))",
        ),
        (
            "CASE WHEN paid THEN 1 ELSE 'a' END",
            "type",
            "CASE WHEN paid THEN 1 ELSE 'a' END",
            "an int and a string do not compare",
            "write numbers without quotes, or cast: CAST(x AS DECIMAL(18,2))",
        ),
        ("time > 'yesterday'", "type", "time > 'yesterday'", "'yesterday' is not a timestamp", ""),
        (
            "time - created_at > 90",
            "type",
            "time - created_at > 90",
            "a duration and an int do not compare",
            "write the length of time as INTERVAL '90 seconds'",
        ),
        ("paid + 1", "type", "paid + 1", "`+` does not go between a bool (`paid`) and an int (`1`)", ""),
        (
            "amount AND paid",
            "type",
            "amount AND paid",
            "`AND` does not go between a decimal(18,2) (`amount`) and a bool (`paid`)",
            "",
        ),
        (
            "now() > time",
            "not_allowed",
            "now",
            "`now` gives another answer every time, so a replay could not agree",
            "use a time or id column of the event",
        ),
        (
            "current_date = day",
            "not_allowed",
            "current_date",
            "`current_date` gives another answer every time, so a replay could not agree",
            "use a time or id column of the event",
        ),
        (
            "random() < 0.5",
            "not_allowed",
            "random",
            "`random` gives another answer every time, so a replay could not agree",
            "use a time or id column of the event",
        ),
        (
            "sum(amount)",
            "not_allowed",
            "sum",
            "`sum` is over many rows, an expression is over one",
            "use `agg: sum` in a measure; over the items of a list, `sum_of(list, ...)`",
        ),
        (
            "row_number() OVER (ORDER BY time)",
            "not_allowed",
            "row_number()",
            "window functions are over many rows, an expression is over one",
            "use `agg:` in a measure",
        ),
        (
            "amount > (SELECT 1)",
            "not_allowed",
            "SELECT 1",
            "a query inside an expression is not allowed",
            "declare what it looks up as a Table and an enrich",
        ),
        (
            "status IN (SELECT 'a')",
            "not_allowed",
            "SELECT 'a'",
            "a query inside an expression is not allowed",
            "declare what it looks up as a Table and an enrich",
        ),
        ("amount > $1", "not_allowed", "$1", "there is nothing to put in the place of `$1`", ""),
        (
            "items[1].quantity",
            "not_allowed",
            "items[1].quantity",
            "subscripts into lists are not for expressions of contracts",
            "use a list function: max_of(list, ...), any_of(list, ...)",
        ),
        ("ARRAY[1, 2]", "not_allowed", "1, 2", "this kind of SQL is not for expressions of contracts", ""),
        ("NULL", "type", "NULL", "a bare null has no type", "write CAST(NULL AS ...)"),
        (
            "items",
            "type",
            "items",
            "the result is a list",
            "use a list function: sum_of(list, ...), count_of(list)",
        ),
        (
            "INTERVAL '1 month'",
            "type",
            "INTERVAL '1 month'",
            "an interval of months has no fixed length",
            "use days, hours, minutes, seconds",
        ),
        (
            "9223372036854775807 + 1",
            "type",
            "9223372036854775807 + 1",
            "9223372036854775807 + 1 has no value",
            "",
        ),
        ("1 / 0", "type", "1 / 0", "division by a constant 0", ""),
        ("score / 0", "type", "score / 0", "division by a constant 0", ""),
        ("1 + amount % 0.00", "type", "amount % 0.00", "division by a constant 0", ""),
        (
            "date_trunc('fortnight', time)",
            "type",
            "date_trunc('fortnight', time)",
            "'fortnight' is not a unit of `date_trunc`",
            "",
        ),
        (
            "CAST(viewport AS TIMESTAMP)",
            "type",
            "viewport",
            "a cast from int to timestamp has no unit",
            "to_timestamp_millis(x), or to_timestamp(x) for seconds",
        ),
        (
            "CAST(time - created_at AS BIGINT)",
            "type",
            "time - created_at",
            "a cast from duration to int has no unit",
            "extract(epoch from x) gives seconds",
        ),
        (
            "url LIKE 'a!%' ESCAPE '!'",
            "not_allowed",
            "url LIKE 'a!%'",
            "LIKE takes one pattern and escapes by a backslash only",
            "",
        ),
        (
            "url SIMILAR TO 'a'",
            "not_allowed",
            "url SIMILAR TO 'a'",
            "this kind of SQL is not for expressions of contracts",
            "use LIKE, or ~ for a regular expression",
        ),
        (
            "url -> 'a'",
            "not_allowed",
            "url -> 'a'",
            "this kind of SQL is not for expressions of contracts",
            "",
        ),
        (
            "regexp_like(url, '(')",
            "pattern",
            "regexp_like(url, '(')",
            "'(' is not a regular expression: unclosed group",
            "",
        ),
        (
            "trunc(amount)",
            "type",
            "trunc(amount)",
            "`trunc` would turn a decimal into a float",
            "use floor, ceil or round",
        ),
        ("sum_of(amount, 1)", "type", "amount", "`sum_of` needs a list, `amount` is a decimal(18,2)", ""),
        (
            "sum_of(items, amount)",
            "unknown_name",
            "amount",
            "no column is called `amount`",
            "`amount` is a column of the row; `sum_of` sees the fields of its items",
        ),
        ("sum_of(items, product_id)", "type", "product_id", "sum_of of a string makes no sense", ""),
        (
            "sum_of(items)",
            "type",
            "sum_of(items)",
            "`sum_of` takes a list and an expression over its items",
            "",
        ),
        (
            "sum_of(items, quantity + product_id)",
            "type",
            "quantity + product_id",
            "`+` does not work on texts",
            "cast to a number: CAST(x AS DECIMAL(18,2)); texts are joined by ||",
        ),
        ("any_of(items, quantity)", "type", "quantity", "any_of of an int makes no sense", ""),
        (
            "sum_of(itmes, quantity)",
            "unknown_name",
            "itmes",
            "no column is called `itmes`",
            "did you mean `items`?",
        ),
        (
            "repeat('x', viewport)",
            "not_allowed",
            "repeat('x', viewport)",
            "`repeat` of a length that is not fixed could fill the memory",
            "write the length as a number up to 10000",
        ),
    ] {
        match compile(sql, &scope()) {
            Ok(typed) => wrong.push(format!("{sql} compiles to {:?}", typed.expr)),
            Err(error) => {
                let found = (
                    error.code,
                    &sql[error.start..error.end],
                    error.message.as_str(),
                    error.fix.as_deref().unwrap_or(""),
                );
                if found != (code, place, message, help) {
                    wrong.push(format!("{sql}: {found:?} {error:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Random token soup: an error with a place inside the text, or an expression; never a panic.
#[test]
fn nonsense_is_an_error_not_a_crash() {
    const TOKENS: [&str; 78] = [
        "amount",
        "status",
        "score",
        "items",
        "tags",
        "time",
        "day",
        "paid",
        "url",
        "order",
        "row",
        "deploy",
        "repository",
        "env",
        "quantity",
        "item",
        "(",
        ")",
        "(",
        ")",
        ",",
        ".",
        "+",
        "-",
        "*",
        "/",
        "%",
        "=",
        "<",
        "<=",
        "<>",
        "||",
        "~",
        "!",
        "->",
        "::",
        "[",
        "]",
        "AND",
        "OR",
        "NOT",
        "IN",
        "IS",
        "NULL",
        "LIKE",
        "ILIKE",
        "BETWEEN",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "END",
        "CAST(",
        "AS",
        "INT",
        "TIMESTAMP",
        "DECIMAL(10,2)",
        "INTERVAL",
        "'1 day'",
        "'x'",
        "'é'",
        "1",
        "0",
        "0.01",
        "1e400",
        "99999999999999999999999999999999999999999",
        "sum_of(",
        "count_of(items)",
        "abs(",
        "round(",
        "coalesce(",
        "date_trunc('day',",
        "extract(hour from",
        "substring(",
        "\"é\"",
        "\n",
        "/* c */",
        "$1",
    ];
    let (scope, mut state) = (scope(), 7u64);
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut compiled = 0;
    for _ in 0..4_000 {
        let length = 1 + next(9);
        let words: Vec<&str> = (0..length).map(|_| TOKENS[next(TOKENS.len())]).collect();
        let sql = words.join(" ");
        let _ = mentions(&sql);
        match compile(&sql, &scope) {
            Ok(_) => compiled += 1,
            Err(error) => {
                assert!(sql.get(error.start..error.end).is_some(), "{sql}: {error:?}");
                assert!(
                    !error.message.is_empty() && !error.message.contains("Internal error"),
                    "{sql}: {error:?}"
                );
            }
        }
    }
    assert!(compiled > 50, "{compiled}");
}
