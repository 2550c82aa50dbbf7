//! Which stretch of event time an answer is about (docs/reference/semantics.md, Windows).
//!
//! *In*: a window of the contract, an instant. *Out*: `[start, end)` in microseconds. *Never*: rows; sessions are in
//! `stages`, because only rows decide them.

use contracts::catalog::{CalendarUnit, MeasureKind, Metric, Micros, WindowKind};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::ask::AuditError;

const SECOND: Micros = 1_000_000;
const MINUTE: Micros = 60 * SECOND;
const HOUR: Micros = 60 * MINUTE;

/// The window an answer at `t` is about; `None` for `all` and sessions.
pub(crate) fn span(kind: &WindowKind, t: Micros) -> Result<Option<(Micros, Micros)>, AuditError> {
    let last = t - 1;
    Ok(Some(match kind {
        WindowKind::Tumbling { size } => {
            let start = last.div_euclid(*size) * size;
            (start, start + size)
        }
        WindowKind::Sliding { size, every } => {
            let end = (last.div_euclid(*every) + 1) * every;
            (end - size, end)
        }
        WindowKind::Days { days, tz } => local_days(i64::from(*days), &zone(tz)?, last)?,
        WindowKind::ToDate { unit: CalendarUnit::Hour, tz } => {
            let offset = i64::from(zone(tz)?.to_offset(stamp(last)?).seconds()) * SECOND;
            let start = (last + offset).div_euclid(HOUR) * HOUR - offset;
            (start, start + HOUR)
        }
        WindowKind::ToDate { unit, tz } => {
            let zone = zone(tz)?;
            let (first, next) = unit_around(*unit, local_date(&zone, last)?)?;
            (midnight(&zone, first)?, midnight(&zone, next)?)
        }
        WindowKind::Session { .. } | WindowKind::All => return Ok(None),
    }))
}

/// The greatest common step of a metric's windows and shifts: history is kept in panes of this length.
pub(crate) fn step(metric: &Metric) -> Result<Micros, AuditError> {
    let mut step = None;
    for window in &metric.windows {
        let own = match &window.kind {
            WindowKind::Tumbling { size } => *size,
            WindowKind::Sliding { size, every } => gcd(*size, *every),
            WindowKind::Days { tz, .. } | WindowKind::ToDate { tz, .. } => zone_step(&zone(tz)?)?,
            WindowKind::Session { gap } => session_step(*gap),
            WindowKind::All => continue,
        };
        step = Some(step.map_or(own, |step| gcd(step, own)));
    }
    let shifts = metric.measures.iter().filter_map(|measure| match measure.kind {
        MeasureKind::Shift { by, .. } => Some(by),
        _ => None,
    });
    Ok(shifts.fold(step.unwrap_or(MINUTE), gcd))
}

fn gcd(a: Micros, b: Micros) -> Micros {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn session_step(gap: Micros) -> Micros {
    let nice = [HOUR, 15 * MINUTE, 5 * MINUTE, MINUTE, 15 * SECOND, 5 * SECOND, SECOND, SECOND / 10];
    nice.into_iter().find(|step| step * 30 <= gap && gap % step == 0).unwrap_or(gap)
}

/// An hour where the zone is whole hours from UTC in every winter and summer.
fn zone_step(zone: &TimeZone) -> Result<Micros, AuditError> {
    for year in 1970..2070 {
        for month in [1, 7] {
            let zoned = Date::constant(year, month, 15).to_zoned(zone.clone()).map_err(AuditError::time)?;
            if zoned.offset().seconds() % 3600 != 0 {
                return Ok(15 * MINUTE);
            }
        }
    }
    Ok(HOUR)
}

fn local_days(days: i64, zone: &TimeZone, last: Micros) -> Result<(Micros, Micros), AuditError> {
    // 1970-01-01 was a Thursday: the Monday of its week is day -3.
    let origin = if days % 7 == 0 { -3 } else { 0 };
    let today = day_number(local_date(zone, last)?)?;
    let first = origin + (today - origin).div_euclid(days) * days;
    Ok((midnight(zone, date_of(first)?)?, midnight(zone, date_of(first + days)?)?))
}

/// First date of the unit that contains `today`, and of the unit after it.
fn unit_around(unit: CalendarUnit, today: Date) -> Result<(Date, Date), AuditError> {
    let plus = |date: Date, span: Span| date.checked_add(span).map_err(AuditError::time);
    let months = |first: Date, count: i64| Ok((first, plus(first, Span::new().months(count))?));
    match unit {
        CalendarUnit::Hour | CalendarUnit::Day => Ok((today, plus(today, Span::new().days(1))?)),
        CalendarUnit::Week => {
            let back = i64::from(today.weekday().to_monday_zero_offset());
            let monday = plus(today, Span::new().days(-back))?;
            Ok((monday, plus(monday, Span::new().days(7))?))
        }
        CalendarUnit::Month => months(today.first_of_month(), 1),
        CalendarUnit::Quarter => months(Date::constant(today.year(), (today.month() - 1) / 3 * 3 + 1, 1), 3),
        CalendarUnit::Year => months(Date::constant(today.year(), 1, 1), 12),
    }
}

fn zone(name: &str) -> Result<TimeZone, AuditError> {
    TimeZone::get(name).map_err(AuditError::time)
}

fn stamp(micros: Micros) -> Result<Timestamp, AuditError> {
    Timestamp::from_microsecond(micros).map_err(AuditError::time)
}

fn local_date(zone: &TimeZone, at: Micros) -> Result<Date, AuditError> {
    Ok(stamp(at)?.to_zoned(zone.clone()).date())
}

/// The first instant of a local day.
fn midnight(zone: &TimeZone, date: Date) -> Result<Micros, AuditError> {
    let zoned = date.to_zoned(zone.clone()).and_then(|day| day.start_of_day()).map_err(AuditError::time)?;
    Ok(zoned.timestamp().as_microsecond())
}

fn day_number(date: Date) -> Result<i64, AuditError> {
    let since = date.since(Date::constant(1970, 1, 1)).map_err(AuditError::time)?;
    Ok(i64::from(since.get_days()))
}

fn date_of(day: i64) -> Result<Date, AuditError> {
    Date::constant(1970, 1, 1).checked_add(Span::new().days(day)).map_err(AuditError::time)
}
