//! Which stretch of event time an answer is about.
//!
//! *In*: a window's kind and `as_of`. *Out*: `[start, end)`. *Never*: rows (sessions are in
//! `metric`, because only rows decide them).

use jiff::civil::Date;

use super::zone::{date_of, day_number, local_date, midnight, stamp, zone};

/// A window's kind.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Kind {
    /// Below a day, aligned to the epoch.
    Tumbling(i64),
    /// Local days.
    Days(i32, String),
    Sliding {
        size: i64,
        every: i64,
    },
    /// Gap.
    Session(i64),
    /// Unit, zone.
    ToDate(String, String),
    All,
}

/// `[start, end)` of the window an answer at `t` is about; none for `all` and sessions.
pub fn span(kind: &Kind, t: i64) -> Option<(i64, i64)> {
    match kind {
        Kind::Tumbling(size) => {
            let start = (t - 1).div_euclid(*size) * size;
            Some((start, start + size))
        }
        Kind::Days(days, tz) => Some(days_span(*days, tz, t)),
        Kind::Sliding { size, every } => {
            let end = -(-t).div_euclid(*every) * every;
            Some((end - size, end))
        }
        Kind::ToDate(unit, tz) => Some(to_date(unit, tz, t)),
        Kind::Session(_) | Kind::All => None,
    }
}

fn days_span(days: i32, tz: &str, t: i64) -> (i64, i64) {
    let zone = zone(tz);
    let today = day_number(local_date(&zone, t - 1));
    // 1970-01-01 was a Thursday: the Monday of its week is day -3.
    let origin = if days % 7 == 0 { -3 } else { 0 };
    let first = origin + (today - origin).div_euclid(days) * days;
    (midnight(&zone, date_of(first)), midnight(&zone, date_of(first + days)))
}

fn to_date(unit: &str, tz: &str, t: i64) -> (i64, i64) {
    let zone = zone(tz);
    if unit == "hour" {
        // The hour on the wall clock, at the offset in force.
        let offset = i64::from(zone.to_offset(stamp(t - 1)).seconds()) * super::zone::SECOND;
        let start = (t - 1 + offset).div_euclid(super::zone::HOUR) * super::zone::HOUR - offset;
        return (start, start + super::zone::HOUR);
    }
    let today = local_date(&zone, t - 1);
    let (first, next) = unit_dates(unit, today);
    (midnight(&zone, first), midnight(&zone, next))
}

/// First date of the unit that contains `today`, and of the unit after it.
fn unit_dates(unit: &str, today: Date) -> (Date, Date) {
    let plus = |date: Date, span: jiff::Span| date.checked_add(span).expect("a date within jiff's range");
    let month = |date: Date, count: i32| plus(date, jiff::Span::new().months(count));
    match unit {
        "day" => (today, plus(today, jiff::Span::new().days(1))),
        "week" => {
            let back = i64::from(today.weekday().to_monday_zero_offset());
            let monday = plus(today, jiff::Span::new().days(-back));
            (monday, plus(monday, jiff::Span::new().days(7)))
        }
        "month" => (today.first_of_month(), month(today.first_of_month(), 1)),
        "quarter" => {
            let first = Date::constant(today.year(), (today.month() - 1) / 3 * 3 + 1, 1);
            (first, month(first, 3))
        }
        "year" => {
            let first = Date::constant(today.year(), 1, 1);
            (first, month(first, 12))
        }
        other => panic!("no unit {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::val::instant;
    use crate::oracle::zone::{DAY, HOUR, MINUTE, parse_instant};

    #[track_caller]
    fn check(kind: Kind, t: &str, wanted: &str) {
        let t = parse_instant(t).expect("an instant");
        let (start, end) = span(&kind, t).expect("a fixed window");
        assert_eq!(format!("{} {}", instant(start), instant(end)), wanted, "{kind:?}");
    }

    fn days(n: i32, tz: &str) -> Kind {
        Kind::Days(n, tz.to_string())
    }

    fn unit(unit: &str, tz: &str) -> Kind {
        Kind::ToDate(unit.to_string(), tz.to_string())
    }

    #[test]
    fn tumbling() {
        let five = Kind::Tumbling(5 * MINUTE);
        check(five.clone(), "2026-01-01T00:02:00Z", "2026-01-01T00:00:00Z 2026-01-01T00:05:00Z");
        check(five.clone(), "2026-01-01T00:05:00Z", "2026-01-01T00:00:00Z 2026-01-01T00:05:00Z");
        check(five, "2026-01-01T00:05:00.000001Z", "2026-01-01T00:05:00Z 2026-01-01T00:10:00Z");
    }

    #[test]
    fn local_days() {
        check(days(1, "Europe/London"), "2026-03-29T12:00:00Z", "2026-03-29T00:00:00Z 2026-03-29T23:00:00Z");
        check(days(1, "Europe/London"), "2026-03-29T23:00:00Z", "2026-03-29T00:00:00Z 2026-03-29T23:00:00Z");
        check(days(1, "Europe/London"), "2026-10-25T12:00:00Z", "2026-10-24T23:00:00Z 2026-10-26T00:00:00Z");
        check(
            days(1, "Asia/Kolkata"),
            "2026-03-29T18:30:00.000001Z",
            "2026-03-29T18:30:00Z 2026-03-30T18:30:00Z",
        );
        // Weeks start on Mondays; 2026-03-29 is a Sunday.
        check(days(7, "Europe/London"), "2026-03-29T12:00:00Z", "2026-03-23T00:00:00Z 2026-03-29T23:00:00Z");
        // 2026-03-29 is day 20541 = 2 * 10270 + 1.
        check(days(2, "Etc/UTC"), "2026-03-29T12:00:00Z", "2026-03-28T00:00:00Z 2026-03-30T00:00:00Z");
    }

    #[test]
    fn sliding() {
        let hour = Kind::Sliding { size: HOUR, every: MINUTE };
        check(hour.clone(), "2026-01-01T01:00:00Z", "2026-01-01T00:00:00Z 2026-01-01T01:00:00Z");
        check(hour, "2026-01-01T01:00:01Z", "2026-01-01T00:01:00Z 2026-01-01T01:01:00Z");
        let week = Kind::Sliding { size: 7 * DAY, every: DAY };
        check(week, "1969-12-31T12:00:00Z", "1969-12-25T00:00:00Z 1970-01-01T00:00:00Z");
    }

    #[test]
    fn to_date() {
        let at = "2026-03-29T12:20:00Z";
        check(unit("hour", "Asia/Kolkata"), at, "2026-03-29T11:30:00Z 2026-03-29T12:30:00Z");
        check(unit("day", "Europe/London"), at, "2026-03-29T00:00:00Z 2026-03-29T23:00:00Z");
        check(unit("week", "Europe/London"), at, "2026-03-23T00:00:00Z 2026-03-29T23:00:00Z");
        check(unit("month", "Europe/London"), at, "2026-03-01T00:00:00Z 2026-03-31T23:00:00Z");
        check(unit("quarter", "Europe/London"), at, "2026-01-01T00:00:00Z 2026-03-31T23:00:00Z");
        check(unit("year", "America/New_York"), at, "2026-01-01T05:00:00Z 2027-01-01T05:00:00Z");
        check(unit("month", "Etc/UTC"), "2026-04-01T00:00:00Z", "2026-03-01T00:00:00Z 2026-04-01T00:00:00Z");
    }
}
