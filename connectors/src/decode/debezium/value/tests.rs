//! Values by hand: decimals in all modes, instants in all units, what must never be guessed.

use super::*;

fn read(raw: Raw<'_>, shape: Shape, ty: FieldType, spec: Debezium) -> String {
    match Rules::new(&spec, Raw::Text(b"postgresql")).cell(raw, &shape, &ty) {
        Ok(cell) => match cell.raw() {
            Raw::Array(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            raw => raw.found().trim_matches('"').to_owned(),
        },
        Err(Fault::Unavailable) => "unavailable".to_owned(),
        Err(Fault::WrongType(expected)) => format!("! {expected}"),
    }
}

fn money() -> FieldType {
    FieldType::Decimal { precision: 18, scale: 2 }
}

#[test]
fn twos_complement_of_any_length() {
    assert_eq!(unscaled(&[0x30, 0x39]), Some(12345));
    assert_eq!(unscaled(&[0xFF]), Some(-1));
    assert_eq!(unscaled(&[0x00, 0xFF]), Some(255));
    assert_eq!(unscaled(&[0x80]), Some(-128));
    assert_eq!(unscaled(&i128::MIN.to_be_bytes()), Some(i128::MIN));
    assert_eq!(unscaled(&[&[0xFF; 5][..], &i128::MIN.to_be_bytes()].concat()), Some(i128::MIN));
    assert_eq!(unscaled(&[&[0x00][..], &[0x80; 16]].concat()), None, "needs 129 bits");
    assert_eq!(unscaled(&[1; 17]), None);
    assert_eq!(unscaled(&[]), None);
}

#[test]
fn decimals_with_a_schema_in_all_three_modes() {
    let with = |raw, shape| read(raw, shape, money(), Debezium::default());
    assert_eq!(with(Raw::Text(b"MDk="), Shape::Decimal { scale: 2 }), "123.45");
    assert_eq!(with(Raw::Text(b"MDk="), Shape::Decimal { scale: 0 }), "12345");
    assert_eq!(with(Raw::Text(b"MDk="), Shape::Decimal { scale: -2 }), "1234500");
    assert_eq!(with(Raw::Text(b"123.45"), Shape::Plain), "123.45");
    assert_eq!(with(Raw::Number(b"123.45"), Shape::Double { single: false }), "123.45");
    assert_eq!(with(Raw::Object(br#"{"scale":1,"value":"MDk="}"#), Shape::VariableDecimal), "1234.5");
    let bad = with(Raw::Text(b"12.3"), Shape::Decimal { scale: 2 });
    assert!(bad.contains("decimal.handling.mode=precise"), "{bad}");
}

#[test]
fn a_double_that_may_have_been_rounded_is_refused() {
    let with = |text: &'static [u8], single| {
        read(Raw::Number(text), Shape::Double { single }, money(), Debezium::default())
    };
    assert_eq!(with(b"9999999999999.99", false), "9999999999999.99");
    for (text, single) in [
        (&b"12345678901234.56"[..], false),
        (b"0.125", false),
        (b"1.2345678901234568E16", false),
        (b"12345.67", true),
    ] {
        let refused = with(text, single);
        assert!(refused.contains("decimal.handling.mode=string"), "{refused}");
    }
}

#[test]
fn decimals_without_a_schema_are_never_guessed() {
    let with = |text: &'static [u8], decimals| {
        read(Raw::Text(text), Shape::Unknown, money(), Debezium { decimals, times: None })
    };
    assert_eq!(with(b"123.45", None), "123.45");
    assert_eq!(with(b"-5", None), "-5");
    assert_eq!(with(b"MDk=", None), "123.45");
    assert_eq!(with(b"AOTh", None), "585.93");
    assert!(with(b"1234", None).contains("decimals: precise"), "a number and base64");
    assert_eq!(with(b"1234", Some(Decimals::String)), "1234");
    assert_eq!(with(b"1234", Some(Decimals::Precise)), "-26588.24");
    assert!(with(b"12.3", Some(Decimals::Precise)).contains("decimals: string"));
    assert!(
        read(Raw::Number(b"0.125"), Shape::Unknown, money(), Debezium::default()).contains("mode=string")
    );
    assert_eq!(read(Raw::Integer(b"7"), Shape::Unknown, money(), Debezium::default()), "7");
}

#[test]
fn instants_by_schema_settings_and_connector_never_by_size() {
    let at = |digits: &'static [u8], shape, times| {
        read(Raw::Integer(digits), shape, FieldType::Timestamp, Debezium { decimals: None, times })
    };
    let expected = "2026-01-01T00:00:00Z";
    assert_eq!(at(b"1767225600000", Shape::Instant(Unit::Millis), None), expected);
    assert_eq!(at(b"1767225600000000", Shape::Instant(Unit::Micros), None), expected);
    assert_eq!(at(b"1767225600000000999", Shape::Instant(Unit::Nanos), None), expected);
    assert_eq!(at(b"20454", Shape::Day, None), expected);
    assert_eq!(at(b"1767225600000000", Shape::Unknown, None), expected, "PostgreSQL's usual unit");
    assert_eq!(at(b"1767225600000", Shape::Unknown, Some(Unit::Millis)), expected);
    assert!(
        at(b"1767225600000", Shape::Unknown, None).contains("1970-01-21"),
        "milliseconds as microseconds"
    );
    assert_eq!(at(b"1767225600000", Shape::Unknown, Some(Unit::Micros)), "1970-01-21T10:53:45.6Z");
    assert_eq!(at(b"-1", Shape::Instant(Unit::Nanos), None), "1969-12-31T23:59:59.999999Z");
    assert!(at(b"9223372036825200000", Shape::Instant(Unit::Micros), None).starts_with('!'), "infinity");
    let none = Rules::new(&Debezium::default(), Raw::Text(b"oracle"));
    assert!(none.cell(Raw::Integer(b"1"), &Shape::Unknown, &FieldType::Timestamp).is_err());
}

#[test]
fn days_times_and_the_rest() {
    let spec = Debezium::default();
    assert_eq!(read(Raw::Integer(b"16436"), Shape::Unknown, FieldType::Date, spec), "2015-01-01");
    assert_eq!(read(Raw::Integer(b"-1"), Shape::Day, FieldType::Date, spec), "1969-12-31");
    assert!(read(Raw::Integer(b"2147483647"), Shape::Day, FieldType::Date, spec).starts_with('!'));
    assert_eq!(read(Raw::Text(b"2015-01-01Z"), Shape::Plain, FieldType::Date, spec), "2015-01-01");
    let noon = Shape::TimeOfDay(Unit::Micros);
    assert_eq!(read(Raw::Integer(b"43200000001"), noon, FieldType::String, spec), "12:00:00.000001");
    assert_eq!(read(Raw::Integer(b"1"), Shape::Plain, FieldType::Bool, spec), "true");
    assert_eq!(
        read(Raw::Text(b"AP//////////"), Shape::Decimal { scale: 0 }, FieldType::Int, spec),
        "18446744073709551615"
    );
    let list = FieldType::List(Box::new(money()));
    let shape = Shape::List(Box::new(Shape::Decimal { scale: 2 }));
    assert_eq!(read(Raw::Array(br#"["MDk=",null]"#), shape, list, spec), r#"["123.45",null]"#);
    for raw in [
        Raw::Text(UNAVAILABLE),
        Raw::Text(UNAVAILABLE_BASE64),
        Raw::Array(br#"["__debezium_unavailable_value"]"#),
        Raw::Object(br#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#),
    ] {
        assert_eq!(read(raw, Shape::Unknown, FieldType::String, spec), "unavailable");
    }
}
