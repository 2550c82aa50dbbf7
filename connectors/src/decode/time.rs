//! Instants and days from their text.
//!
//! *In*: RFC 3339 text, milliseconds, `YYYY-MM-DD`. *Out*: microseconds or days since the Unix epoch.
//! *Never*: a time zone other than the written offset (none = UTC), a clock, an instant outside of the years
//! 0 to 9999 UTC.

use contracts::value::time::format_timestamp;

/// 0000-01-01T00:00:00Z.
const MIN: i64 = -62_167_219_200_000_000;
/// 9999-12-31T23:59:59.999999Z: what databases write for "for ever" is an instant like any other.
const MAX: i64 = 253_402_300_799_999_999;
const DAY: i64 = 86_400;

/// Microseconds of an RFC 3339 text. Digits beyond the microsecond are cut; second 60 counts as 59;
/// the offset may lack (UTC), and be written `+hh:mm`, `+hhmm` or `+hh`.
pub(super) fn instant(text: &[u8]) -> Option<i64> {
    let (head, mut rest) = text.split_at_checked(19)?;
    if !matches!(head[10], b'T' | b't' | b' ') || head[13] != b':' || head[16] != b':' {
        return None;
    }
    let days = i64::from(date(&head[..10])?);
    let hour = two(&head[11..13])?;
    let minute = two(&head[14..16])?;
    let second = two(&head[17..19])?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut micros = 0;
    if let [b'.', tail @ ..] = rest {
        let digits = tail.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        let first_six = tail[..digits].iter().copied().chain(std::iter::repeat(b'0')).take(6);
        for digit in first_six {
            micros = micros * 10 + i64::from(digit - b'0');
        }
        rest = &tail[digits..];
    }
    let seconds = days * DAY + hour * 3600 + minute * 60 + second.min(59) - offset(rest)?;
    in_range(seconds * 1_000_000 + micros)
}

/// Seconds east of UTC.
fn offset(text: &[u8]) -> Option<i64> {
    let (sign, hour, minute) = match text {
        [] | [b'Z' | b'z'] => return Some(0),
        [sign, h1, h2] => (sign, [*h1, *h2], [b'0'; 2]),
        [sign, h1, h2, m1, m2] | [sign, h1, h2, b':', m1, m2] => (sign, [*h1, *h2], [*m1, *m2]),
        _ => return None,
    };
    let (hour, minute) = (two(&hour)?, two(&minute)?);
    if hour > 23 || minute > 59 {
        return None;
    }
    match sign {
        b'+' => Some(hour * 3600 + minute * 60),
        b'-' => Some(-hour * 3600 - minute * 60),
        _ => None,
    }
}

/// Microseconds of milliseconds since the epoch.
pub(super) fn millis(value: i64) -> Option<i64> {
    in_range(value.checked_mul(1000)?)
}

fn in_range(micros: i64) -> Option<i64> {
    (MIN..=MAX).contains(&micros).then_some(micros)
}

/// Days since the epoch of `YYYY-MM-DD`.
pub(super) fn date(text: &[u8]) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = two(&[*y1, *y2])? * 100 + two(&[*y3, *y4])?;
    let (month, day) = (two(&[*m1, *m2])?, two(&[*d1, *d2])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if day < 1 || day > length {
        return None;
    }
    Some(days(year, month, day))
}

/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": days from the civil date, years 0 on.
fn days(year: i64, month: i64, day: i64) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468) as i32
}

#[inline]
fn two(digits: &[u8]) -> Option<i64> {
    match digits {
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some(i64::from((a - b'0') * 10 + (b - b'0'))),
        _ => None,
    }
}

/// `micros` as RFC 3339 UTC with as many fraction digits as needed (none, 3 or 6), for messages.
pub(super) fn show(micros: i64) -> String {
    format_timestamp(micros)
}

#[cfg(test)]
mod tests {
    use super::{date, instant, millis};

    #[test]
    fn instants_agree_with_jiff() {
        for text in [
            "2026-01-01T00:00:00.000Z",
            "1969-12-31T23:59:59.999999Z",
            "2024-02-29T12:30:45+02:00",
            "0000-01-01T00:00:00Z",
            "9999-12-30T21:59:59Z",
            "2026-11-20t23:35:00z",
            "2016-12-31T23:59:60Z",
            "2026-01-01T00:00:00.123456-11:30",
        ] {
            let jiff: jiff::Timestamp = text.parse().unwrap();
            assert_eq!(instant(text.as_bytes()), Some(jiff.as_microsecond()), "{text}");
        }
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let micros = random.i64(super::MIN..jiff::Timestamp::MAX.as_microsecond());
            let text = jiff::Timestamp::from_microsecond(micros).unwrap().to_string();
            assert_eq!(instant(text.as_bytes()), Some(micros), "{text}");
            let days = micros.div_euclid(86_400_000_000);
            assert_eq!(date(&text.as_bytes()[..10]), Some(days as i32), "{text}");
        }
    }

    #[test]
    fn no_offset_is_utc_and_finer_than_a_microsecond_is_cut() {
        assert_eq!(instant(b"1970-01-01T00:00:01"), Some(1_000_000));
        assert_eq!(instant(b"1970-01-01 00:00:01.0000019Z"), Some(1_000_001));
        assert_eq!(instant(b"1970-01-01T00:00:01.5+0030"), Some(1_500_000 - 1_800_000_000));
        assert_eq!(instant(b"1970-01-01T00:00:01-01"), Some(3_601_000_000));
    }

    #[test]
    fn what_is_not_an_instant() {
        for text in [
            "",
            "2026-01-01",
            "2026-01-01T00:00Z",
            "2026-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:61Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00 Z",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+1",
            "9999-12-31T23:59:59-00:01",
            "0000-01-01T00:00:00+01:00",
            "2026-1-1T00:00:00Z",
            "+2026-01-01T00:00:00Z",
            "2026-01-01T00:00:00ZZ",
        ] {
            assert_eq!(instant(text.as_bytes()), None, "{text}");
        }
        assert_eq!(instant(b"9999-12-31T23:59:59.999999Z"), Some(super::MAX));
        assert_eq!(instant(b"0000-01-01T00:00:00Z"), Some(super::MIN));
        assert_eq!(millis(1_767_225_600_000), Some(1_767_225_600_000_000));
        assert_eq!(millis(i64::MAX), None);
        assert_eq!(millis(1_767_225_600_000_000), None);
    }
}
