//! Instants and days as text.
//!
//! *In*: RFC 3339 text, microseconds and days since the Unix epoch. *Out*: the same the other way
//! round. *Never*: the clock, a local time zone.

use jiff::civil::{Date, Time};

/// `2026-03-02T09:00:00Z` as microseconds since the Unix epoch.
///
/// RFC 3339 with `T`, `t` or a space between day and time; no offset means UTC; digits finer than a
/// microsecond are cut; a leap second counts as the second before it. `None`: not such a text.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 19 || !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let date = parse_civil_date(&text[..10])?;
    if bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let (hour, minute, second) = (digits(&text[11..13])?, digits(&text[14..16])?, digits(&text[17..19])?);
    let second = if second == 60 { 59 } else { second };
    let (micros, rest) = parse_fraction(&text[19..])?;
    let offset = parse_offset(rest)?;
    // Checks the ranges of hour, minute and second. jiff's own instants end in the last hours of the
    // year 9999, so the arithmetic is ours.
    let (hour, minute, second) =
        (i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, i8::try_from(second).ok()?);
    let clock = Time::new(hour, minute, second, 0).ok()?;
    let seconds = i64::from(days(date)) * 86_400
        + i64::from(clock.hour()) * 3_600
        + i64::from(clock.minute()) * 60
        + i64::from(clock.second())
        - i64::from(offset);
    let at = seconds * 1_000_000 + i64::from(micros);
    (FIRST..=LAST).contains(&at).then_some(at)
}

/// The instants RFC 3339 can write: years 0000 to 9999.
const FIRST: i64 = -62_167_219_200_000_000;
const LAST: i64 = 253_402_300_799_999_999;

/// `.123456789` is 123456 microseconds.
fn parse_fraction(text: &str) -> Option<(u32, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    if length == 0 {
        return None;
    }
    let mut micros = 0;
    for position in 0..6 {
        let digit = rest.as_bytes()[..length].get(position).map_or(0, |b| b - b'0');
        micros = micros * 10 + u32::from(digit);
    }
    Some((micros, &rest[length..]))
}

/// Seconds east of UTC.
fn parse_offset(text: &str) -> Option<i32> {
    match text.as_bytes() {
        [] | [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (digits(&text[1..3])?, digits(&text[4..6])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn digits(text: &str) -> Option<i32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// RFC 3339 in UTC with as many fraction digits as needed: none, 3 or 6.
pub fn format_timestamp(micros: i64) -> String {
    if !(FIRST..=LAST).contains(&micros) {
        // Beyond the years 0000 to 9999 there is no RFC 3339 text.
        return format!("{micros}us");
    }
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let date = i32::try_from(day).map_or_else(|_| day.to_string(), format_date);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    match fraction {
        0 => format!("{date}T{hour:02}:{minute:02}:{second:02}Z"),
        _ if fraction % 1_000 == 0 => {
            format!("{date}T{hour:02}:{minute:02}:{second:02}.{:03}Z", fraction / 1_000)
        }
        _ => format!("{date}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z"),
    }
}

/// `YYYY-MM-DD` as days since the Unix epoch.
pub fn parse_date(text: &str) -> Option<i32> {
    parse_civil_date(text).map(days)
}

fn days(date: Date) -> i32 {
    let seconds = date.duration_since(EPOCH).as_secs();
    i32::try_from(seconds / 86_400).expect("years of four digits have fewer than 2^31 days")
}

/// Days since the Unix epoch as `YYYY-MM-DD`.
pub fn format_date(days: i32) -> String {
    match EPOCH.checked_add(jiff::SignedDuration::from_hours(i64::from(days) * 24)) {
        Ok(date) => date.to_string(),
        Err(_) => format!("{days}d"),
    }
}

const EPOCH: Date = Date::constant(1970, 1, 1);

fn parse_civil_date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || !text.is_ascii() || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    Date::new(
        i16::try_from(digits(&text[..4])?).ok()?,
        i8::try_from(digits(&text[5..7])?).ok()?,
        i8::try_from(digits(&text[8..])?).ok()?,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_both_ways() {
        for (text, micros, back) in [
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
            ("1970-01-01t00:00:00z", 0, "1970-01-01T00:00:00Z"),
            ("1970-01-01 00:00:01", 1_000_000, "1970-01-01T00:00:01Z"),
            ("1970-01-01T02:00:00.5+02:00", 500_000, "1970-01-01T00:00:00.500Z"),
            ("1969-12-31T23:59:59.9999999Z", -1, "1969-12-31T23:59:59.999999Z"),
            ("1970-01-01T00:00:00.0000019999Z", 1, "1970-01-01T00:00:00.000001Z"),
            ("2026-03-02T09:00:00-05:30", 1_772_461_800_000_000, "2026-03-02T14:30:00Z"),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000_000, "2016-12-31T23:59:59Z"),
            ("9999-12-31T23:59:59.999999Z", LAST, "9999-12-31T23:59:59.999999Z"),
            ("0000-01-01T00:00:00Z", FIRST, "0000-01-01T00:00:00Z"),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000_000, "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(parse_timestamp(text), Some(micros), "{text}");
            assert_eq!(format_timestamp(micros), back, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_timestamp() {
        for text in [
            "",
            "2026-03-02",
            "2026-03-02T09:00Z",
            "2026-02-30T09:00:00Z",
            "2026-03-02T24:00:00Z",
            "2026-03-02T09:00:00.Z",
            "2026-03-02T09:00:00+0200",
            "2026-03-02T09:00:00+99:00",
            "2026-03-02T09:00:00Z ",
            "2026-03-02T09:00:00[Europe/London]",
            "9999-12-31T23:59:59-01:00",
            "0000-01-01T00:00:00+01:00",
            "20260302T090000Z",
            "2026-03-02T0９:00:00",
            "+026-03-02T09:00:00Z",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
        assert_eq!(format_timestamp(i64::MAX), "9223372036854775807us");
    }

    #[test]
    fn dates_both_ways() {
        for (text, days) in
            [("1970-01-01", 0), ("1969-12-31", -1), ("2024-02-29", 19_782), ("0001-01-01", -719_162)]
        {
            assert_eq!(parse_date(text), Some(days));
            assert_eq!(format_date(days), text);
        }
        for text in ["2023-02-29", "2023-2-01", "2023-02-01T", "x"] {
            assert_eq!(parse_date(text), None, "{text}");
        }
        assert_eq!(format_date(i32::MAX), "2147483647d");
    }
}
