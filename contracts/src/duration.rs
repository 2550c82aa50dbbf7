//! Durations, versions and shares as contracts write them.
//!
//! *In*: `500ms 30s 5m 24h 7d`, `1.2.3`, `1%`. *Out*: microseconds, triples, fractions. *Never*: calendar units: a
//! day is 24 hours here, a year 365 days.

use crate::catalog::Micros;

/// What [`parse_duration`] takes, for messages.
pub const DURATION_HELP: &str = "a number with a unit: 500ms, 30s, 5m, 24h, 7d";

const UNITS: [(&str, Micros); 8] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
    ("w", 604_800_000_000),
    ("y", 31_536_000_000_000),
];

/// Microseconds of `30s`, `1h30m`, ...; `None` when it is not a duration or longer than 10,000 years.
pub fn parse_duration(text: &str) -> Option<Micros> {
    let mut rest = text.trim();
    let mut total: Micros = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &after[..letters])?;
        total = total.checked_add(number.checked_mul(*unit)?)?;
        rest = &after[letters..];
    }
    (total <= 10_000 * UNITS[7].1).then_some(total)
}

/// The shortest way to write `micros` with one unit, at most days.
pub fn format_duration(micros: Micros) -> String {
    if micros == 0 {
        return "0s".to_string();
    }
    let (name, unit) =
        UNITS[..6].iter().rev().find(|(_, unit)| micros % unit == 0).copied().unwrap_or(UNITS[0]);
    format!("{}{name}", micros / unit)
}

/// The three numbers of `1.2.3`.
pub fn parse_version(text: &str) -> Option<(u64, u64, u64)> {
    let mut parts = text.split('.').map(|part| {
        let plain = !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'));
        if plain { part.parse::<u64>().ok() } else { None }
    });
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}

/// The fraction of `1%` or `0.01`, from 0 to 1.
pub fn parse_share(text: &str) -> Option<f64> {
    let share = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.trim().parse::<f64>().ok()?,
    };
    (0.0..=1.0).contains(&share).then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Some(500_000));
        assert_eq!(parse_duration("1h30m"), Some(5_400_000_000));
        assert_eq!(parse_duration("7d"), Some(604_800_000_000));
        for wrong in ["", "5", "m", "5 m", "5x", "-5m", "1.5h", "99999999999999999999s", "99999y"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        assert_eq!(format_duration(5_400_000_000), "90m");
        assert_eq!(format_duration(604_800_000_000), "7d");
    }

    #[test]
    fn versions_and_shares() {
        assert_eq!(parse_version("1.20.3"), Some((1, 20, 3)));
        for wrong in ["1.0", "1.0.0.0", "1.0.x", "01.0.0", "1.0.0-rc1", ""] {
            assert_eq!(parse_version(wrong), None, "{wrong}");
        }
        assert_eq!(parse_share("1%"), Some(0.01));
        assert_eq!(parse_share("0.5"), Some(0.5));
        assert_eq!(parse_share("101%"), None);
    }
}
