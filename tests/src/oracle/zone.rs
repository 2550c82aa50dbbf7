//! Instants, days and calendars.
//!
//! *In*: texts of instants, dates and durations; local midnights in IANA zones. *Out*: microseconds
//! and days since the Unix epoch. *Never*: a clock.

use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Microseconds in a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds in a minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Microseconds in an hour.
pub const HOUR: i64 = 60 * MINUTE;
/// Microseconds in 24 hours.
pub const DAY: i64 = 24 * HOUR;

/// RFC 3339 text; no offset = UTC; finer than a microsecond is cut.
pub fn parse_instant(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() < 19 || bytes[10] != b'T' || bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let days = i64::from(parse_date(text.get(..10)?)?);
    let (hour, minute, second) = (two(text, 11)?, two(text, 14)?, two(text, 17)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut micros = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        let padded = format!("{:0<6}", &fraction[..digits.min(6)]);
        micros = padded.parse::<i64>().ok()?;
        rest = &fraction[digits..];
    }
    let offset = match rest {
        "" | "Z" => 0,
        _ => {
            let sign = match rest.as_bytes()[0] {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            if rest.len() != 6 || rest.as_bytes()[3] != b':' {
                return None;
            }
            let (hours, minutes) = (two(rest, 1)?, two(rest, 4)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * HOUR + minutes * MINUTE)
        }
    };
    Some(days * DAY + hour * HOUR + minute * MINUTE + second * SECOND + micros - offset)
}

fn two(text: &str, at: usize) -> Option<i64> {
    let digits = text.get(at..at + 2)?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// `YYYY-MM-DD` as days since the epoch.
pub fn parse_date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let digits = |from: usize, to: usize| {
        let part = &text[from..to];
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<i16>().ok())?
    };
    if !text.is_ascii() {
        return None;
    }
    let date = Date::new(digits(0, 4)?, digits(5, 7)? as i8, digits(8, 10)? as i8).ok()?;
    Some(day_number(date))
}

/// Days since the epoch.
pub fn day_number(date: Date) -> i32 {
    let epoch = Date::constant(1970, 1, 1);
    (date - epoch).get_days()
}

/// The date `days` after the epoch.
pub fn date_of(days: i32) -> Date {
    Date::constant(1970, 1, 1)
        .checked_add(jiff::Span::new().days(days))
        .expect("days of values that came from dates")
}

/// `2026-03-29`.
pub fn date_text(days: i32) -> String {
    date_of(days).to_string()
}

/// The zone by its IANA name.
pub fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap_or_else(|e| panic!("zone {name}: {e}"))
}

/// The local date that contains the instant.
pub fn local_date(zone: &TimeZone, micros: i64) -> Date {
    stamp(micros).to_zoned(zone.clone()).date()
}

/// The first instant of a local date (not always 00:00).
pub fn midnight(zone: &TimeZone, date: Date) -> i64 {
    date.to_zoned(zone.clone()).expect("a date within jiff's range").timestamp().as_microsecond()
}

/// The instant as jiff's.
pub fn stamp(micros: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(micros).expect("an instant within jiff's range")
}

/// `500ms`, `30s`, `5m`, `24h`, `7d`, in microseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count: i64 = text[..split].parse().ok()?;
    let unit = match &text[split..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        "w" => 7 * DAY,
        "" if count == 0 => 1,
        _ => return None,
    };
    Some(count * unit)
}

/// `24 hours`, `1 day 2 hours`, `90 minutes`, in microseconds.
pub fn parse_interval(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut total = 0;
    for pair in words.chunks(2) {
        let [count, unit] = pair else { return None };
        let unit = match unit.trim_end_matches('s') {
            "microsecond" => 1,
            "millisecond" => 1_000,
            "second" => SECOND,
            "minute" => MINUTE,
            "hour" => HOUR,
            "day" => DAY,
            "week" => 7 * DAY,
            _ => return None,
        };
        total += count.parse::<i64>().ok()? * unit;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants() {
        assert_eq!(parse_instant("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_instant("1970-01-01T00:00:01.1234567"), Some(1_123_456));
        assert_eq!(parse_instant("1970-01-01T02:00:00+02:00"), Some(0));
        assert_eq!(parse_instant("1969-12-31T23:59:59.999999Z"), Some(-1));
        assert_eq!(parse_instant("2026-03-29T00:59:59Z"), Some(1_774_745_999 * SECOND));
        for bad in [
            "2026-02-30T00:00:00Z",
            "2026-03-29",
            "yesterday",
            "2026-03-29T25:00:00Z",
            "2026-03-29T00:00:00.Z",
            "2026-03-29T00:00:00+2",
        ] {
            assert_eq!(parse_instant(bad), None, "{bad}");
        }
    }

    #[test]
    fn midnights_in_zones() {
        let london = zone("Europe/London");
        let start = midnight(&london, Date::constant(2026, 3, 29));
        let end = midnight(&london, Date::constant(2026, 3, 30));
        assert_eq!(end - start, 23 * HOUR);
        let start = midnight(&london, Date::constant(2026, 10, 25));
        let end = midnight(&london, Date::constant(2026, 10, 26));
        assert_eq!(end - start, 25 * HOUR);
        let howe = zone("Australia/Lord_Howe");
        let start = midnight(&howe, Date::constant(2026, 4, 5));
        let end = midnight(&howe, Date::constant(2026, 4, 6));
        assert_eq!(end - start, 24 * HOUR + 30 * MINUTE);
        // Midnight does not exist in Cairo on 2026-04-24: the day starts at 01:00.
        let cairo = zone("Africa/Cairo");
        let start = midnight(&cairo, Date::constant(2026, 4, 24));
        let end = midnight(&cairo, Date::constant(2026, 4, 25));
        assert_eq!(end - start, 23 * HOUR);
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Some(500_000));
        assert_eq!(parse_duration("7d"), Some(7 * DAY));
        assert_eq!(parse_interval("1 day 2 hours"), Some(26 * HOUR));
        assert_eq!(parse_interval("90 minutes"), Some(90 * MINUTE));
    }
}
