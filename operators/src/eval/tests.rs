//! Expressions of contracts over real batches: values, nulls, exactness, bad rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array,
    ListArray, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Field, Fields, Int32Type};
use contracts::Value;
use contracts::expr::{Scope, compile};
use contracts::value::parse_timestamp;

use super::*;

mod random;

const ROWS: usize = 4;

fn decimals(values: [Option<i128>; ROWS]) -> ArrayRef {
    let array = Decimal128Array::from(values.to_vec());
    Arc::new(array.with_precision_and_scale(18, 2).unwrap())
}

fn times(values: [&str; ROWS]) -> ArrayRef {
    let micros = values.map(parse_timestamp);
    Arc::new(TimestampMicrosecondArray::from(micros.to_vec()).with_timezone("UTC"))
}

fn interned(values: [Option<&str>; ROWS]) -> ArrayRef {
    Arc::new(values.into_iter().collect::<DictionaryArray<Int32Type>>())
}

/// Orders: three items, none, an absent list, one item with nulls in it.
fn items() -> ArrayRef {
    let fields = Fields::from(vec![
        Field::new("product_id", DataType::Utf8, true),
        Field::new("quantity", DataType::Int64, true),
        Field::new("unit_price", DataType::Decimal128(18, 2), true),
    ]);
    let prices = Decimal128Array::from(vec![Some(1999), Some(500), Some(1), None, Some(100)]);
    let rows = StructArray::new(
        fields.clone(),
        vec![
            Arc::new(StringArray::from(vec![Some("a"), Some("b"), Some("a"), None, Some("z")])),
            Arc::new(Int64Array::from(vec![Some(2), Some(1), Some(3), Some(7), Some(1)])),
            Arc::new(prices.with_precision_and_scale(18, 2).unwrap()),
        ],
        // The last item is null itself, whatever its fields hold.
        Some(vec![true, true, true, true, false].into()),
    );
    Arc::new(ListArray::new(
        Arc::new(Field::new("item", DataType::Struct(fields), true)),
        OffsetBuffer::from_lengths([3, 0, 0, 2]),
        Arc::new(rows),
        Some(vec![true, true, false, true].into()),
    ))
}

fn tags() -> ArrayRef {
    let texts = StringArray::from(vec![Some("bug"), Some("ui"), None]);
    Arc::new(ListArray::new(
        Arc::new(Field::new("item", DataType::Utf8, true)),
        OffsetBuffer::from_lengths([2, 0, 1, 0]),
        Arc::new(texts),
        Some(vec![true, true, true, false].into()),
    ))
}

fn orders() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(StringArray::from(vec!["o1", "o2", "o3", "o4"]))),
        ("status", interned([Some("paid"), Some("cancelled"), None, Some("paid")])),
        ("total", decimals([Some(4501), Some(20_000), Some(100_000), None])),
        ("count", Arc::new(Int64Array::from(vec![Some(2), Some(0), None, Some(-7)]))),
        ("score", Arc::new(Float64Array::from(vec![Some(0.5), Some(-2.0), None, Some(1e30)]))),
        ("paid", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]))),
        (
            "url",
            Arc::new(StringArray::from(vec![
                Some("https://x/products/7"),
                Some("/"),
                None,
                Some("/cart?x=1"),
            ])),
        ),
        ("day", Arc::new(Date32Array::from(vec![Some(0), Some(20_000), None, Some(-1)]))),
        (
            "time",
            times([
                "2026-03-02T09:00:00Z",
                "2026-03-29T00:30:00Z",
                "2026-06-30T23:59:59.999999Z",
                "1969-12-31T23:59:59.5Z",
            ]),
        ),
        (
            "merged",
            times([
                "2026-03-01T09:00:00Z",
                "2026-03-27T00:30:00Z",
                "2026-06-30T23:59:59.999998Z",
                "1969-12-31T23:59:59.5Z",
            ]),
        ),
        ("items", items()),
        ("tags", tags()),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

fn run(sql: &str, batch: &RecordBatch) -> Evaluated {
    let scope = Scope::new(batch.schema()).with_qualifier("order");
    let typed = compile(sql, &scope).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let compiled = Compiled::new(&typed).unwrap();
    let evaluated = compiled.evaluate(batch);
    assert_eq!(evaluated.values.len(), batch.num_rows(), "{sql}");
    assert_eq!(evaluated.values.data_type(), &typed.data_type(), "{sql}");
    evaluated
}

/// Values as text, failed rows as `!reason`.
fn shown(evaluated: &Evaluated) -> Vec<String> {
    (0..evaluated.values.len())
        .map(|row| match evaluated.errors.iter().find(|(failed, _)| *failed == row) {
            Some((_, reason)) => format!("!{reason}"),
            None => Value::from_arrow(&evaluated.values, row).to_string(),
        })
        .collect()
}

/// Expressions with their values over [`orders`].
const CASES: &[(&str, [&str; ROWS])] = &[
    // Enrichments and rules of the commerce pack.
    (
        "CASE WHEN total < 50 THEN 'small' WHEN total < 200 THEN 'medium' WHEN total < 1000 THEN 'large' ELSE 'whale' END",
        ["small", "large", "whale", "whale"],
    ),
    ("abs(total - sum_of(items, quantity * unit_price)) <= 0.01", ["true", "false", "false", "null"]),
    ("sum_of(items, quantity)", ["6", "0", "0", "7"]),
    ("count_of(items)", ["3", "0", "0", "1"]),
    ("count_of(items, quantity > 1)", ["2", "0", "0", "1"]),
    ("distinct_of(items, product_id)", ["2", "null", "null", "null"]),
    ("round(total / nullif(sum_of(items, quantity), 0), 2)", ["7.50", "null", "null", "null"]),
    ("coalesce(round(total / nullif(sum_of(items, quantity), 0), 2), 0)", ["7.50", "0.00", "0.00", "0.00"]),
    (
        "CASE WHEN url LIKE '%/products/%' THEN 'product_detail' WHEN url LIKE '%/cart%' THEN 'cart' WHEN url = '/' THEN 'home' ELSE 'other' END",
        ["product_detail", "home", "other", "cart"],
    ),
    (
        "least(1.0, CASE WHEN total > 500 THEN 0.3 WHEN total > 100 THEN 0.1 ELSE 0 END + CASE status WHEN 'paid' THEN 0.1 WHEN 'wallet' THEN 0.15 ELSE 0 END)",
        ["0.10", "0.10", "0.30", "0.10"],
    ),
    // The two examples.
    ("order.status IN ('paid', 'shipped')", ["true", "false", "null", "true"]),
    ("status NOT IN ('paid')", ["false", "true", "null", "false"]),
    ("status = 'paid'", ["true", "false", "null", "true"]),
    ("status <> 'paid' AND total > 1", ["false", "true", "null", "false"]),
    ("time - merged", ["86400s", "172800s", "0.000001s", "0s"]),
    ("time - merged <= INTERVAL '24 hours'", ["true", "false", "true", "true"]),
    ("time - merged > INTERVAL '1 day'", ["false", "true", "false", "false"]),
    ("time - merged BETWEEN INTERVAL '1 day' AND INTERVAL '2 days'", ["true", "true", "false", "false"]),
    ("extract(epoch from time - merged) / 3600", ["24", "48", "0.00000000027777777777777777", "0"]),
    // Lists.
    ("sum_of(items, quantity * unit_price)", ["45.01", "0.00", "0.00", "0.00"]),
    ("max_of(items, unit_price)", ["19.99", "null", "null", "null"]),
    ("min_of(items, quantity)", ["1", "null", "null", "7"]),
    ("avg_of(items, quantity)", ["2", "null", "null", "7"]),
    ("avg_of(items, unit_price)", ["8.33", "null", "null", "null"]),
    ("any_of(items, quantity > 2)", ["true", "null", "null", "true"]),
    ("all_of(items, quantity > 2)", ["false", "null", "null", "true"]),
    ("any_of(tags, item = 'bug')", ["true", "null", "null", "null"]),
    ("count_of(tags)", ["2", "0", "0", "0"]),
    ("min_of(tags, item)", ["bug", "null", "null", "null"]),
    ("max_of(tags, length(item))", ["3", "null", "null", "null"]),
    ("sum_of(items, 1) + count_of(items)", ["6", "0", "0", "2"]),
    // Decimals stay exact.
    ("total * 3", ["135.03", "600.00", "3000.00", "null"]),
    ("count * total", ["90.02", "0.00", "null", "null"]),
    ("total * 0.1", ["4.501", "20.000", "100.000", "null"]),
    ("total - 0.015", ["44.995", "199.985", "999.985", "null"]),
    ("total / 3", ["15.003333", "66.666666", "333.333333", "null"]),
    ("round(total * 0.055, 2)", ["2.48", "11.00", "55.00", "null"]),
    ("-total", ["-45.01", "-200.00", "-1000.00", "null"]),
    ("total > 45.005", ["true", "true", "true", "null"]),
    ("total = 200", ["false", "true", "false", "null"]),
    ("CAST(total AS DECIMAL(10,1))", ["45.0", "200.0", "1000.0", "null"]),
    ("total + score", ["45.51", "198", "null", "null"]),
    ("greatest(total, 100)", ["100.00", "200.00", "1000.00", "100.00"]),
    // Integers, floats.
    ("count / 2", ["1", "0", "null", "-3"]),
    ("count % 2", ["0", "0", "null", "-1"]),
    ("abs(count)", ["2", "0", "null", "7"]),
    ("score * 2", ["1", "-4", "null", "2000000000000000000000000000000"]),
    ("score > 0.3", ["true", "false", "null", "true"]),
    ("score > total", ["false", "false", "null", "null"]),
    // Nulls.
    ("paid AND total > 1", ["true", "false", "null", "null"]),
    ("paid OR total > 1", ["true", "true", "true", "true"]),
    ("NOT paid", ["false", "true", "null", "false"]),
    ("paid IS NOT TRUE", ["false", "true", "true", "false"]),
    ("status IS NULL", ["false", "false", "true", "false"]),
    ("coalesce(status, 'none')", ["paid", "cancelled", "none", "paid"]),
    ("status IS DISTINCT FROM 'paid'", ["false", "true", "true", "false"]),
    ("nullif(count, 0)", ["2", "null", "null", "-7"]),
    // Text.
    ("upper(status) || '!'", ["PAID!", "CANCELLED!", "null", "PAID!"]),
    ("status LIKE 'pa%'", ["true", "false", "null", "true"]),
    ("status ILIKE 'PA_D'", ["true", "false", "null", "true"]),
    ("url ~ '^/cart'", ["false", "false", "null", "true"]),
    ("regexp_like(url, 'products/[0-9]+$')", ["true", "false", "null", "false"]),
    ("regexp_like(status, '^pa')", ["true", "false", "null", "true"]),
    ("regexp_replace(url, '[0-9]+', 'N')", ["https://x/products/N", "/", "null", "/cart?x=N"]),
    ("split_part(url, '/', 2)", ["", "", "null", "cart?x=1"]),
    ("length(status)", ["4", "9", "null", "4"]),
    ("substring(url from 1 for 2)", ["ht", "/", "null", "/c"]),
    ("lpad(id, 5, '0')", ["000o1", "000o2", "000o3", "000o4"]),
    ("status", ["paid", "cancelled", "null", "paid"]),
    // Time.
    (
        "date_trunc('hour', time)",
        ["2026-03-02T09:00:00Z", "2026-03-29T00:00:00Z", "2026-06-30T23:00:00Z", "1969-12-31T23:00:00Z"],
    ),
    (
        "date_trunc('day', time AT TIME ZONE 'Europe/London')",
        ["2026-03-02T00:00:00Z", "2026-03-29T00:00:00Z", "2026-06-30T23:00:00Z", "1969-12-31T23:00:00Z"],
    ),
    ("extract(hour from time)", ["9", "0", "23", "23"]),
    ("extract(hour from time AT TIME ZONE 'Europe/London')", ["9", "0", "0", "0"]),
    ("extract(dow from time)", ["1", "0", "2", "3"]),
    (
        "date_bin(INTERVAL '15 minutes', time)",
        ["2026-03-02T09:00:00Z", "2026-03-29T00:30:00Z", "2026-06-30T23:45:00Z", "1969-12-31T23:45:00Z"],
    ),
    (
        "time + INTERVAL '1 month'",
        [
            "2026-04-02T09:00:00Z",
            "2026-04-29T00:30:00Z",
            "2026-07-30T23:59:59.999999Z",
            "1970-01-31T23:59:59.500Z",
        ],
    ),
    (
        "time - INTERVAL '90 minutes'",
        [
            "2026-03-02T07:30:00Z",
            "2026-03-28T23:00:00Z",
            "2026-06-30T22:29:59.999999Z",
            "1969-12-31T22:29:59.500Z",
        ],
    ),
    ("time >= '2026-03-29'", ["false", "true", "true", "false"]),
    ("CAST(time AS DATE)", ["2026-03-02", "2026-03-29", "2026-06-30", "1969-12-31"]),
    ("day + INTERVAL '2 days'", ["1970-01-03", "2024-10-06", "null", "1970-01-02"]),
    ("day - DATE '1970-01-01'", ["0", "20000", "null", "-1"]),
    ("day = '1970-01-01'", ["true", "false", "null", "false"]),
    ("to_char(time, '%Y-%m')", ["2026-03", "2026-03", "2026-06", "1969-12"]),
    // Constants.
    ("1 + 1", ["2", "2", "2", "2"]),
    ("'x'", ["x", "x", "x", "x"]),
    ("INTERVAL '90 seconds'", ["90s", "90s", "90s", "90s"]),
    // Bad rows.
    ("100 / count", ["50", "!division by zero", "null", "-14"]),
    ("total / count", ["22.505000", "!division by zero", "null", "null"]),
    ("total % count", ["1.01", "!division by zero", "null", "null"]),
    ("total / CAST(count AS DOUBLE)", ["22.505", "!the result is not a finite number", "null", "null"]),
    ("CAST(substr(id, 2) AS INT) * 10", ["10", "20", "30", "40"]),
    (
        "CAST(url AS INT)",
        [
            "!Cannot cast string 'https://x/products/7' to value of Int64 type",
            "!Cannot cast string '/' to value of Int64 type",
            "null",
            "!Cannot cast string '/cart?x=1' to value of Int64 type",
        ],
    ),
    ("TRY_CAST(url AS INT)", ["null"; 4]),
    ("power(score, 20) > 1", ["false", "true", "null", "true"]),
    ("power(score, 20)", ["0.00000095367431640625", "1048576", "null", "!the result is not a finite number"]),
    // What is not reached does not fail.
    ("CASE WHEN count = 0 THEN 0 ELSE 100 / count END", ["50", "0", "null", "-14"]),
    ("count <> 0 AND 100 / count > 1", ["true", "false", "null", "false"]),
    ("count = 0 OR 100 / count > 1", ["true", "true", "null", "false"]),
];

#[test]
fn values() {
    let batch = orders();
    let mut wrong = Vec::new();
    for (sql, expected) in CASES {
        let found = shown(&run(sql, &batch));
        if found != expected {
            wrong.push(format!("{sql}\n   found    {found:?}\n   expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where a batch is cut, and what else is in it, changes no row.
#[test]
fn every_row_alone_says_the_same() {
    let batch = orders();
    for (sql, expected) in CASES {
        for (row, expected) in expected.iter().enumerate() {
            assert_eq!(shown(&run(sql, &batch.slice(row, 1))), [*expected], "{sql} row {row}");
        }
        let halves = [batch.slice(0, 1), batch.slice(1, 3)];
        let cut: Vec<String> = halves.iter().flat_map(|half| shown(&run(sql, half))).collect();
        assert_eq!(cut, expected, "{sql}");
    }
}

#[test]
fn a_batch_may_have_other_columns_in_another_order_and_type() {
    let batch = orders();
    let scope = Scope::new(batch.schema());
    let compiled = Compiled::new(&compile("status = 'paid' AND count > 0", &scope).unwrap()).unwrap();
    assert_eq!(compiled.evaluate_bool(&batch).0.true_count(), 1);
    let plain = StringArray::from(vec![Some("paid"), None, Some("paid")]);
    let counts = Int64Array::from(vec![1, 1, 0]);
    let other = RecordBatch::try_from_iter_with_nullable([
        ("extra", Arc::new(Int64Array::from(vec![9, 9, 9])) as ArrayRef, true),
        ("count", Arc::new(counts) as ArrayRef, true),
        ("status", Arc::new(plain) as ArrayRef, true),
    ])
    .unwrap();
    let (values, errors) = compiled.evaluate_bool(&other);
    assert_eq!(values, BooleanArray::from(vec![Some(true), None, Some(false)]));
    assert!(errors.is_empty());
    let without = other.project(&[0, 1]).unwrap();
    let (_, errors) = compiled.evaluate_bool(&without);
    assert_eq!(errors.len(), 3);
    assert_eq!(errors[0].1, "the batch has no column `status`");
}

#[test]
fn an_empty_batch_and_a_slice_are_fine() {
    let batch = orders();
    for sql in ["sum_of(items, quantity)", "total / count", "1", "status", "100 / count"] {
        assert!(run(sql, &batch.slice(0, 0)).errors.is_empty());
    }
    let last = run("sum_of(items, quantity * 2)", &batch.slice(3, 1));
    assert_eq!(shown(&last), ["14"]);
    let middle = run("count_of(tags) + count", &batch.slice(1, 2));
    assert_eq!(shown(&middle), ["0", "null"]);
    assert_eq!(shown(&run("100 / count", &batch.slice(1, 2))), ["!division by zero", "null"]);
}

#[test]
fn only_the_bad_rows_of_a_large_batch_fail() {
    let rows = 4096;
    let mut numbers: Vec<i64> = (0..rows).collect();
    numbers[1234] = i64::MAX;
    numbers[4095] = i64::MIN;
    let column: ArrayRef = Arc::new(Int64Array::from(numbers));
    let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let evaluated = run("n + 1", &batch);
    assert_eq!(evaluated.errors.len(), 1);
    assert_eq!(evaluated.errors[0].0, 1234);
    assert!(evaluated.errors[0].1.starts_with("overflow: "), "{:?}", evaluated.errors);
    assert_eq!(evaluated.values.null_count(), 1);
    assert_eq!(Value::from_arrow(&evaluated.values, 4094), Value::Int(4095));
    let failed: Vec<usize> = run("n * 2 - n * 2", &batch).errors.iter().map(|(row, _)| *row).collect();
    assert_eq!(failed, [1234, 4095]);
    assert_eq!(run("-n", &batch).errors.len(), 1);
    assert_eq!(run("abs(n)", &batch).errors.len(), 1);
    let all = run("n / (n - n)", &batch);
    assert_eq!((all.errors.len(), all.values.null_count()), (4096, 4096));
}

#[test]
fn decimals_near_their_limits() {
    let limit = 10i128.pow(38) - 1;
    let wide = Decimal128Array::from(vec![Some(limit), Some(-limit), Some(1), None]);
    let column: ArrayRef = Arc::new(wide.with_precision_and_scale(38, 2).unwrap());
    let batch = RecordBatch::try_from_iter([("d", column)]).unwrap();
    let overflow = "!overflow: the result has more than 38 digits";
    assert_eq!(
        shown(&run("d + 0.01", &batch)),
        [overflow, "-999999999999999999999999999999999999.98", "0.02", "null"]
    );
    assert_eq!(
        shown(&run("d", &batch)),
        [
            "999999999999999999999999999999999999.99",
            "-999999999999999999999999999999999999.99",
            "0.01",
            "null"
        ]
    );
    let product = run("d * d", &batch);
    assert_eq!(product.errors.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(Value::from_arrow(&product.values, 2).to_string(), "0.0001");
    assert_eq!(shown(&run("d > 0.001", &batch))[2], "true");
}

#[test]
fn sums_over_lists_do_not_wrap() {
    let numbers = Int64Array::from(vec![i64::MAX, 1, 5, i64::MAX]);
    let lists = ListArray::new(
        Arc::new(Field::new("item", DataType::Int64, true)),
        OffsetBuffer::from_lengths([2, 1, 1]),
        Arc::new(numbers),
        None,
    );
    let batch = RecordBatch::try_from_iter([("l", Arc::new(lists) as ArrayRef)]).unwrap();
    let overflow = "!overflow in a sum over a list";
    assert_eq!(shown(&run("sum_of(l, item)", &batch)), [overflow, "5", "9223372036854775807"]);
    assert_eq!(shown(&run("avg_of(l, item)", &batch))[1], "5");
    let items = shown(&run("sum_of(l, 10 / (item - 5))", &batch));
    assert_eq!(items[1], "!item 0: division by zero");
    let items = shown(&run("sum_of(l, item * 2)", &batch));
    assert!(items[0].starts_with("!item 0: overflow"), "{items:?}");
    assert_eq!(items[1], "10");
}

#[test]
fn typed_nulls_of_other_aliases() {
    let batch = orders();
    let mut scope = Scope::new(batch.schema());
    let columns = vec![("env".to_owned(), DataType::Utf8)];
    scope.absent.insert("deploy".to_owned(), columns);
    let compiled = Compiled::new(&compile("deploy.env = 'prod'", &scope).unwrap()).unwrap();
    assert_eq!(compiled.evaluate_bool(&batch).0.null_count(), ROWS);
}

#[test]
fn structs_below_a_null_are_null() {
    let inner = Fields::from(vec![Field::new("n", DataType::Int64, true)]);
    let child: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let parent = StructArray::new(inner, vec![child], Some(vec![true, false].into()));
    let batch =
        RecordBatch::try_from_iter_with_nullable([("s", Arc::new(parent) as ArrayRef, true)]).unwrap();
    assert_eq!(shown(&run("s.n + 1", &batch)), ["2", "null"]);
}

/// `=` and `IN` on interned text compare each dictionary value once, not each row.
#[test]
fn dictionaries_keep_their_fast_path() {
    let scope = Scope::new(orders().schema());
    for sql in ["status = 'paid'", "status IN ('paid', 'shipped', 'a', 'b', 'c')"] {
        let compiled = Compiled::new(&compile(sql, &scope).unwrap()).unwrap();
        let plan = compiled.expr.to_string();
        assert!(!plan.contains("CAST(status"), "{plan}");
    }
}

/// Beyond the years 1677 to 2262 nanoseconds do not fit 64 bits.
#[test]
fn far_times_are_right_or_an_error() {
    let far = [
        "0001-01-01T00:30:00Z",
        "9999-12-31T23:59:59.999999Z",
        "2262-05-01T10:30:00Z",
        "1600-01-01T10:30:00Z",
    ];
    let batch = RecordBatch::try_from_iter([("time", times(far))]).unwrap();
    let hours =
        ["0001-01-01T00:00:00Z", "9999-12-31T23:00:00Z", "2262-05-01T10:00:00Z", "1600-01-01T10:00:00Z"];
    assert_eq!(shown(&run("date_trunc('hour', time)", &batch)), hours);
    let weeks =
        ["0001-01-01T00:00:00Z", "9999-12-27T00:00:00Z", "2262-04-28T00:00:00Z", "1599-12-27T00:00:00Z"];
    assert_eq!(shown(&run("date_trunc('week', time)", &batch)), weeks);
    assert_eq!(shown(&run("extract(year from time)", &batch)), ["1", "9999", "2262", "1600"]);
    assert_eq!(shown(&run("time > '2026-01-01'", &batch)), ["false", "true", "true", "false"]);
    for sql in ["date_trunc('month', time)", "date_bin(INTERVAL '15 minutes', time)", "to_char(time, '%Y')"] {
        assert_eq!(run(sql, &batch).errors.len(), 4, "{sql}");
    }
    let error = &run("date_trunc('year', time)", &batch).errors[3].1;
    assert_eq!(error, "1600-01-01T10:30:00Z is outside of the years 1678 to 2261");
}
