//! Where windows start and end, and the pane grid below them.
//!
//! *In*: a window's kind and an instant. *Out*: bounds in microseconds, the greatest common step.
//! *Never*: a day that is 24 hours because days usually are.

use contracts::catalog::{CalendarUnit, Window, WindowKind};
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Half-open extent; `start == i64::MIN` and `end == i64::MAX` mean unbounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// First instant inside.
    pub start: i64,
    /// First instant after.
    pub end: i64,
}

impl Bounds {
    /// Where the window starts, if it does, and where an answer as of `as_of` about it ends.
    pub fn extent(self, as_of: i64) -> (Option<i64>, i64) {
        ((self.start != i64::MIN).then_some(self.start), self.end.min(as_of))
    }
}

/// A window ready to compute its bounds.
#[derive(Debug, Clone)]
pub enum Extent {
    /// Fixed length, epoch-aligned.
    Tumbling(i64),
    /// Local days.
    Days(i64, TimeZone),
    /// Length and step.
    Sliding(i64, i64),
    /// Inactivity gap; bounds depend on the rows.
    Session(i64),
    /// Running calendar unit.
    ToDate(CalendarUnit, TimeZone),
    /// Unbounded.
    All,
}

/// The zone is not in the bundled database; `contracts::load` refuses such windows.
#[derive(Debug, Clone, thiserror::Error)]
#[error("unknown time zone `{0}`")]
pub struct UnknownZone(pub String);

impl Extent {
    /// Resolves the zone.
    pub fn new(kind: &WindowKind) -> Result<Self, UnknownZone> {
        let zone = |tz: &str| TimeZone::get(tz).map_err(|_| UnknownZone(tz.to_owned()));
        Ok(match kind {
            WindowKind::Tumbling { size } => Self::Tumbling(*size),
            WindowKind::Days { days, tz } => Self::Days(i64::from(*days), zone(tz)?),
            WindowKind::Sliding { size, every } => Self::Sliding(*size, *every),
            WindowKind::Session { gap } => Self::Session(*gap),
            WindowKind::ToDate { unit, tz } => Self::ToDate(*unit, zone(tz)?),
            WindowKind::All => Self::All,
        })
    }

    /// The window an answer at `as_of` is about; `None` for sessions.
    pub fn at(&self, as_of: i64) -> Option<Bounds> {
        let last = as_of.saturating_sub(1);
        Some(match self {
            Self::Tumbling(size) => {
                let start = last.div_euclid(*size) * size;
                Bounds { start, end: start + size }
            }
            Self::Sliding(size, every) => {
                let end = last.div_euclid(*every) * every + every;
                Bounds { start: end - size, end }
            }
            Self::Days(days, zone) => days_around(last, *days, zone),
            Self::ToDate(unit, zone) => unit_around(last, *unit, zone),
            Self::All => Bounds { start: i64::MIN, end: i64::MAX },
            Self::Session(_) => return None,
        })
    }

    /// A step that divides every boundary of this window; `None` when any step will do.
    fn step(&self) -> Option<i64> {
        match self {
            Self::Tumbling(size) => Some(*size),
            Self::Sliding(size, every) => Some(gcd(*size, *every)),
            Self::Session(gap) => Some(session_step(*gap)),
            Self::Days(_, zone) | Self::ToDate(_, zone) => Some(zone_step(zone)),
            Self::All => None,
        }
    }
}

/// The pane width of a metric: the greatest common step of its windows and shifts; a minute when only
/// `all` is asked for.
pub fn grid(extents: &[Extent], shifts: impl Iterator<Item = i64>) -> i64 {
    let windows = extents.iter().filter_map(Extent::step).reduce(gcd).unwrap_or(MINUTE);
    shifts.fold(windows, gcd)
}

/// Extents of a metric's windows.
pub fn extents(windows: &[Window]) -> Result<Vec<Extent>, UnknownZone> {
    windows.iter().map(|window| Extent::new(&window.kind)).collect()
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Panes of a session window are at most a thirtieth of the gap, so that `as_of` is fine enough.
fn session_step(gap: i64) -> i64 {
    const NICE: [i64; 8] =
        [HOUR, 15 * MINUTE, 5 * MINUTE, MINUTE, 15 * SECOND, 5 * SECOND, SECOND, SECOND / 10];
    NICE.into_iter().find(|step| *step <= gap / 30 && gap % step == 0).unwrap_or(gap)
}

/// An hour where the zone's offsets are whole hours, else a quarter of an hour (all offsets of the
/// last decades are multiples of it).
fn zone_step(zone: &TimeZone) -> i64 {
    let whole = (1970..2070).all(|year| {
        [1, 7].into_iter().all(|month| {
            let Ok(zoned) = Date::constant(year, month, 15).to_zoned(zone.clone()) else { return false };
            zoned.offset().seconds() % 3600 == 0
        })
    });
    if whole { HOUR } else { 15 * MINUTE }
}

fn zoned(micros: i64, zone: &TimeZone) -> Zoned {
    let clamped = micros.clamp(Timestamp::MIN.as_microsecond(), Timestamp::MAX.as_microsecond());
    Timestamp::from_microsecond(clamped).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone())
}

/// Local midnight (or the first instant after it, where a DST gap swallows midnight).
fn midnight(date: Date, zone: &TimeZone) -> i64 {
    match date.to_zoned(zone.clone()) {
        Ok(start) => start.start_of_day().map_or(i64::MAX, |s| s.timestamp().as_microsecond()),
        Err(_) => i64::MAX,
    }
}

fn plus_days(date: Date, days: i64) -> Date {
    date.checked_add(days.days()).unwrap_or(Date::MAX)
}

fn days_around(last: i64, days: i64, zone: &TimeZone) -> Bounds {
    let date = zoned(last, zone).date();
    // 1969-12-29 was a Monday.
    let origin = if days % 7 == 0 { Date::constant(1969, 12, 29) } else { Date::constant(1970, 1, 1) };
    let number = date.since(origin).map_or(0, |span| i64::from(span.get_days()));
    let first = plus_days(origin, number.div_euclid(days) * days);
    Bounds { start: midnight(first, zone), end: midnight(plus_days(first, days), zone) }
}

fn unit_around(last: i64, unit: CalendarUnit, zone: &TimeZone) -> Bounds {
    let local = zoned(last, zone);
    let date = local.date();
    let (first, next) = match unit {
        CalendarUnit::Hour => return hour_around(last, &local),
        CalendarUnit::Day => (date, plus_days(date, 1)),
        CalendarUnit::Week => {
            let back = i64::from(date.weekday().since(Weekday::Monday));
            let first = plus_days(date, -back);
            (first, plus_days(first, 7))
        }
        CalendarUnit::Month => months(date.first_of_month(), 1),
        CalendarUnit::Quarter => {
            let month = (date.month() - 1) / 3 * 3 + 1;
            months(Date::constant(date.year(), month, 1), 3)
        }
        CalendarUnit::Year => months(Date::constant(date.year(), 1, 1), 12),
    };
    Bounds { start: midnight(first, zone), end: midnight(next, zone) }
}

fn months(first: Date, count: i64) -> (Date, Date) {
    (first, first.checked_add(count.months()).unwrap_or(Date::MAX))
}

/// Local hours by elapsed time, so that a repeated hour is two hours.
fn hour_around(last: i64, local: &Zoned) -> Bounds {
    let offset = i64::from(local.offset().seconds()) * SECOND;
    let start = (last + offset).div_euclid(HOUR) * HOUR - offset;
    Bounds { start, end: start + HOUR }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    fn show(bounds: Bounds) -> String {
        let text = |t| Timestamp::from_microsecond(t).unwrap().to_string();
        format!("{} {}", text(bounds.start), text(bounds.end))
    }

    #[test]
    fn days_are_local() {
        let day = Extent::Days(1, TimeZone::get("Europe/London").unwrap());
        // 29 March 2026 has 23 hours, 25 October 2026 has 25.
        let spring = day.at(us("2026-03-29T12:00:00Z")).unwrap();
        assert_eq!(show(spring), "2026-03-29T00:00:00Z 2026-03-29T23:00:00Z");
        let autumn = day.at(us("2026-10-25T12:00:00Z")).unwrap();
        assert_eq!(show(autumn), "2026-10-24T23:00:00Z 2026-10-26T00:00:00Z");
        // A boundary gives the whole window that ended there.
        assert_eq!(day.at(us("2026-03-29T23:00:00Z")).unwrap(), spring);
    }

    #[test]
    fn weeks_start_on_mondays() {
        let week = Extent::Days(7, TimeZone::UTC);
        assert_eq!(
            show(week.at(us("2026-11-20T10:00:00Z")).unwrap()),
            "2026-11-16T00:00:00Z 2026-11-23T00:00:00Z"
        );
        let to_date = Extent::ToDate(CalendarUnit::Week, TimeZone::UTC);
        assert_eq!(week.at(us("1969-12-30T10:00:00Z")), to_date.at(us("1969-12-30T10:00:00Z")));
    }

    #[test]
    fn calendar_units() {
        let at = us("2026-11-20T10:30:00Z");
        let unit = |unit| show(Extent::ToDate(unit, TimeZone::UTC).at(at).unwrap());
        assert_eq!(unit(CalendarUnit::Hour), "2026-11-20T10:00:00Z 2026-11-20T11:00:00Z");
        assert_eq!(unit(CalendarUnit::Month), "2026-11-01T00:00:00Z 2026-12-01T00:00:00Z");
        assert_eq!(unit(CalendarUnit::Quarter), "2026-10-01T00:00:00Z 2027-01-01T00:00:00Z");
        assert_eq!(unit(CalendarUnit::Year), "2026-01-01T00:00:00Z 2027-01-01T00:00:00Z");
    }

    #[test]
    fn sliding_includes_the_running_step() {
        let hour = Extent::Sliding(HOUR, MINUTE);
        assert_eq!(
            show(hour.at(us("2026-01-01T10:30:20Z")).unwrap()),
            "2026-01-01T09:31:00Z 2026-01-01T10:31:00Z"
        );
        assert_eq!(
            show(hour.at(us("2026-01-01T10:30:00Z")).unwrap()),
            "2026-01-01T09:30:00Z 2026-01-01T10:30:00Z"
        );
    }

    fn grid_of(extents: &[Extent]) -> i64 {
        grid(extents, std::iter::empty())
    }

    #[test]
    fn grids() {
        let zone = |name| TimeZone::get(name).unwrap();
        assert_eq!(grid_of(&[Extent::Sliding(HOUR, MINUTE), Extent::Tumbling(90 * SECOND)]), 30 * SECOND);
        assert_eq!(grid_of(&[Extent::Days(1, zone("Europe/London"))]), HOUR);
        assert_eq!(grid_of(&[Extent::Days(1, zone("Asia/Kolkata"))]), 15 * MINUTE);
        assert_eq!(grid_of(&[Extent::Days(1, zone("Australia/Lord_Howe"))]), 15 * MINUTE);
        assert_eq!(grid_of(&[Extent::Session(30 * MINUTE)]), MINUTE);
        assert_eq!(grid_of(&[Extent::All]), MINUTE);
    }
}
