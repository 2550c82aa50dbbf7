//! Types, names and mistakes of expressions. What they evaluate to is tested in operators.

use std::sync::Arc;

use arrow::datatypes::{Field, Fields, Schema, TimeUnit};

use super::*;
use crate::value::timestamp_type;

mod mistakes;

fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn scope() -> Scope {
    let item = DataType::Struct(Fields::from(vec![
        Field::new("product_id", DataType::Utf8, true),
        Field::new("quantity", DataType::Int64, true),
        Field::new("unit_price", DataType::Decimal128(18, 2), true),
    ]));
    let repository = DataType::Struct(Fields::from(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("stars", DataType::Int64, true),
    ]));
    let schema = Schema::new(vec![
        Field::new("order_id", DataType::Utf8, true),
        Field::new("status", dictionary(), true),
        Field::new("currency", dictionary(), true),
        Field::new("url", DataType::Utf8, true),
        Field::new("total_amount", DataType::Decimal128(18, 2), true),
        Field::new("amount", DataType::Decimal128(18, 2), true),
        Field::new("score", DataType::Float64, true),
        Field::new("viewport", DataType::Int64, true),
        Field::new("paid", DataType::Boolean, true),
        Field::new("day", DataType::Date32, true),
        Field::new("items", DataType::List(Arc::new(Field::new("item", item, true))), true),
        Field::new("tags", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
        Field::new("repository", repository, true),
        Field::new("time", timestamp_type(), false),
        Field::new("created_at", timestamp_type(), true),
    ]);
    Scope {
        schema: Arc::new(schema),
        qualifiers: vec!["order".to_owned(), "row".to_owned()],
        absent: [(
            "deploy".to_owned(),
            vec![("env".to_owned(), dictionary()), ("time".to_owned(), timestamp_type())],
        )]
        .into(),
        parts: BTreeMap::new(),
        renames: [
            ("repo".to_owned(), vec!["repository".to_owned(), "id".to_owned()]),
            ("lines".to_owned(), vec!["items".to_owned()]),
        ]
        .into(),
    }
}

const INT: ValueType = ValueType::Int;
const FLOAT: ValueType = ValueType::Float;
const BOOL: ValueType = ValueType::Bool;
const TEXT: ValueType = ValueType::Text;
const DURATION: ValueType = ValueType::Duration;
const TIMESTAMP: ValueType = ValueType::Timestamp;

fn decimal(precision: u8, scale: i8) -> ValueType {
    ValueType::Decimal { precision, scale }
}

#[test]
fn types() {
    let mut wrong = Vec::new();
    for (sql, ty) in [
        // The rules and enrichments of the commerce events.
        ("abs(total_amount - sum_of(items, quantity * unit_price)) <= 0.01", BOOL),
        ("amount >= 0.50", BOOL),
        ("amount <= 50000", BOOL),
        ("status <> 'failed' OR currency IS NOT NULL", BOOL),
        ("order_id <> ''", BOOL),
        ("sum_of(items, quantity)", INT),
        ("distinct_of(items, product_id)", INT),
        ("round(total_amount / 3, 2) = round(amount, 2)", BOOL),
        ("round(total_amount / nullif(sum_of(items, quantity), 0), 2)", decimal(22, 2)),
        (
            "CASE WHEN total_amount < 50 THEN 'small' WHEN total_amount < 200 THEN 'medium' \
             WHEN total_amount < 1000 THEN 'large' ELSE 'whale' END",
            TEXT,
        ),
        (
            "CASE WHEN url LIKE '%/products/%' THEN 'product_detail' WHEN url LIKE '%/cart%' THEN 'cart' \
             WHEN url = '/' THEN 'home' ELSE 'other' END",
            TEXT,
        ),
        ("viewport IS NOT NULL AND viewport < 768", BOOL),
        (
            "least(1.0, CASE WHEN amount > 500 THEN 0.3 WHEN amount > 200 THEN 0.1 ELSE 0 END \
             + CASE status WHEN 'card' THEN 0.1 WHEN 'wallet' THEN 0.15 ELSE 0 END)",
            decimal(23, 2),
        ),
        // interfaces.md and the two examples.
        ("deploy.env = 'prod'", BOOL),
        ("order.status IN ('paid', 'shipped')", BOOL),
        ("deploy.time - order.time <= INTERVAL '24 hours'", BOOL),
        ("deploy.time - order.time", DURATION),
        ("time - created_at", DURATION),
        ("time - created_at > INTERVAL '24' HOUR AND viewport >= 5", BOOL),
        ("row.currency", TEXT),
        // Names.
        ("total_amount", decimal(18, 2)),
        ("row.total_amount", decimal(18, 2)),
        ("repository.stars", INT),
        ("order.repository.stars", INT),
        ("repository['stars']", INT),
        ("repo", TEXT),
        ("order.repo", TEXT),
        ("count_of(lines)", INT),
        ("\"status\"", TEXT),
        // Arithmetic.
        ("1", INT),
        ("viewport + 1", INT),
        ("viewport / 2", INT),
        ("-viewport", INT),
        ("viewport * total_amount", decimal(38, 2)),
        ("total_amount * 0.01", decimal(21, 4)),
        ("total_amount - 1", decimal(23, 2)),
        ("total_amount / amount", decimal(24, 6)),
        ("1e3", decimal(4, 0)),
        ("1.5e-3", decimal(4, 4)),
        ("9223372036854775808", decimal(19, 0)),
        ("score * 0.5", FLOAT),
        ("score + total_amount", FLOAT),
        ("CASE WHEN paid THEN score ELSE 0.5 END", FLOAT),
        ("sqrt(viewport)", FLOAT),
        ("abs(total_amount)", decimal(18, 2)),
        ("ceil(total_amount)", decimal(18, 2)),
        // Text, pattern, dates.
        ("lower(url) || '-' || upper(status)", TEXT),
        ("url ~ '^/products/[0-9]+$'", BOOL),
        ("regexp_like(url, '^/cart')", BOOL),
        ("split_part(url, '/', 2)", TEXT),
        ("length(url)", INT),
        ("substring(url from 2 for 3)", TEXT),
        ("coalesce(status, 'none')", TEXT),
        ("date_trunc('hour', time)", TIMESTAMP),
        ("date_trunc('day', time AT TIME ZONE 'Europe/London')", TIMESTAMP),
        ("extract(hour from time)", INT),
        ("extract(epoch from time - created_at)", FLOAT),
        ("time + INTERVAL '1 day'", TIMESTAMP),
        ("time + INTERVAL '1 month'", TIMESTAMP),
        ("day + INTERVAL '1 day'", ValueType::Date),
        ("day - DATE '2026-01-01'", INT),
        ("CAST(time AS DATE)", ValueType::Date),
        ("date_bin(INTERVAL '15 minutes', time)", TIMESTAMP),
        ("time > '2026-03-02'", BOOL),
        ("time > TIMESTAMP '2026-03-02T09:00:00Z'", BOOL),
        ("time BETWEEN '2026-03-02' AND '2026-03-03T12:00:00+01:00'", BOOL),
        ("INTERVAL '90 minutes'", DURATION),
        ("to_timestamp(viewport)", TIMESTAMP),
        ("CAST(url AS INT)", INT),
        ("CAST(url AS DECIMAL(10,2))", decimal(10, 2)),
        ("CAST(NULL AS DOUBLE)", FLOAT),
        // Lists.
        ("count_of(items)", INT),
        ("count_of(items, quantity > 1)", INT),
        ("sum_of(items, unit_price)", decimal(28, 2)),
        ("sum_of(items, items.quantity * item.unit_price)", decimal(38, 2)),
        ("max_of(items, unit_price)", decimal(18, 2)),
        ("avg_of(items, quantity)", FLOAT),
        ("avg_of(items, unit_price)", decimal(18, 2)),
        ("any_of(tags, item = 'bug')", BOOL),
        ("all_of(items, quantity > 0)", BOOL),
        ("min_of(tags, item)", TEXT),
        ("CASE WHEN count_of(items) > 0 THEN total_amount / count_of(items) END", decimal(22, 6)),
    ] {
        match compile(sql, &scope()) {
            Ok(typed) => {
                let column = typed.data_type();
                let fits = column == dictionary() || Some(&column) == ty.arrow().as_ref();
                if typed.ty != ty || typed.sql != sql || !fits {
                    wrong.push(format!("{sql}: {:?} as {column}", typed.ty));
                }
            }
            Err(error) => wrong.push(format!("{sql}: {error:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unknown_names_come_with_what_there_is() {
    let error = compile("amuont", &Scope::new(scope().schema)).unwrap_err();
    assert_eq!(error.nearest.as_deref(), Some("amount"));
    assert!(error.allowed.unwrap().starts_with("order_id, status, currency"));
    let error = compile("order.amuont", &scope()).unwrap_err();
    assert_eq!((error.start, error.end), (6, 12));
}

#[test]
fn what_is_too_much_is_refused_without_a_crash() {
    let chain = |n: usize| vec!["viewport"; n].join(" + ");
    assert!(compile(&chain(100), &scope()).is_ok());
    assert_eq!(compile(&chain(102), &scope()).unwrap_err().code, "too_complex");
    let nested = format!("{}viewport{}", "(".repeat(200), ")".repeat(200));
    assert_eq!(compile(&nested, &scope()).unwrap_err().code, "too_complex");
    let long = format!("order_id IN ({})", vec!["'x'"; 2_000].join(", "));
    assert!(compile(&long, &scope()).is_ok());
    assert_eq!(compile(&"x".repeat(70_000), &scope()).unwrap_err().code, "too_complex");
}

#[test]
fn conditions_must_be_conditions() {
    assert!(compile_bool("paid", &scope()).is_ok());
    assert!(compile_bool("deploy.env = 'prod'", &scope()).is_ok());
    let error = compile_bool("amount", &scope()).unwrap_err();
    assert_eq!(error.message, "a condition must be true or false, this is a decimal(18,2)");
}

#[test]
fn mentions_names_but_not_those_of_items() {
    let paths = |sql: &str| {
        let paths = mentions(sql).unwrap().into_iter();
        paths.map(|path| path.join(".")).collect::<Vec<_>>()
    };
    assert_eq!(paths("order.amount * fx.usd"), ["order.amount", "fx.usd"]);
    assert_eq!(paths("a + a + b.c.d"), ["a", "b.c.d"]);
    assert_eq!(
        paths("abs(total - sum_of(order.items, quantity * price)) <= 0.01 AND time > INTERVAL '1 day'"),
        ["total", "order.items", "time"]
    );
    assert_eq!(paths("CASE WHEN x['y'] IS NULL THEN 1 END"), ["x.y"]);
    assert_eq!(mentions("1 +").unwrap_err().code, "syntax");
}

#[test]
fn any_word_is_a_name_beside_a_dot() {
    let schema = Schema::new(vec![Field::new("end", DataType::Int64, true)]);
    let mut scope = Scope::new(Arc::new(schema)).with_qualifier("case");
    scope.qualifiers.push("interval".to_owned());
    assert_eq!(compile("case.end + interval.end", &scope).unwrap().ty, INT);
    assert_eq!(compile("\"end\" + 1", &scope).unwrap().ty, INT);
}

#[test]
fn the_schema_has_a_column_per_list_function() {
    let typed = compile("sum_of(items, quantity) + count_of(tags)", &scope()).unwrap();
    let columns = typed.schema.fields().len();
    assert_eq!(columns, scope().schema.fields().len() + 2);
    assert_eq!(typed.schema.field(columns - 1).name(), "__list_1");
    assert_eq!(typed.lists[0].fold, ListAgg::Sum);
    let item = typed.lists[0].item.as_ref().unwrap();
    assert_eq!((item.sql.as_str(), &item.ty), ("quantity", &INT));
    assert_eq!(typed.lists[1].list, "tags");
    assert!(typed.lists[1].item.is_none());
    let twice = compile("sum_of(items, quantity) * sum_of(items, quantity)", &scope()).unwrap();
    assert_eq!(twice.lists.len(), 1);
}

#[test]
fn a_name_with_a_dot_is_not_a_path() {
    let inner = Fields::from(vec![Field::new("b", DataType::Int64, true)]);
    let schema = Schema::new(vec![
        Field::new("a", DataType::Struct(inner), true),
        Field::new("a.b", DataType::Boolean, true),
    ]);
    let scope = Scope::new(Arc::new(schema));
    let typed = compile("CASE WHEN \"a.b\" THEN a.b END", &scope).unwrap();
    assert_eq!(typed.ty, INT);
    assert_eq!(typed.expr.column_refs().len(), 2);
}

#[test]
fn durations_are_microseconds() {
    let typed = compile("time - created_at", &scope()).unwrap();
    assert_eq!(typed.data_type(), DataType::Duration(TimeUnit::Microsecond));
}
