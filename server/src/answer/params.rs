//! Query parameters, read strictly.
//!
//! *In*: the query string. *Out*: texts, instants, durations, numbers. *Never*: an unknown or
//! repeated parameter passed over in silence.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use contracts::catalog::Micros;
use contracts::value::time::{format_timestamp, parse_timestamp};

use crate::error::{Problem, ProblemItem, Result};

/// All parameters of a request, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Params> {
        axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map(|query| Params(query.0))
            .map_err(|e| Problem::bad_request("invalid_query", e.body_text()))
    }
}

impl Params {
    /// 422 when there is a parameter that the endpoint does not know.
    pub(crate) fn only(&self, allowed: &[&str]) -> Result<()> {
        match self.0.iter().find(|(name, _)| !allowed.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => Err(Problem::unknown(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unknown_parameter",
                "parameter",
                name,
                allowed.iter().map(|a| (*a).to_owned()).collect(),
            )),
        }
    }

    /// The one value of `name`; an empty value counts as not given.
    pub(crate) fn one(&self, name: &str) -> Result<Option<&str>> {
        let mut found = self.0.iter().filter(|(n, v)| n == name && !v.trim().is_empty());
        let first = found.next();
        if let Some((_, second)) = found.next() {
            return Err(Problem::parameter(name, second, "is given more than once"));
        }
        Ok(first.map(|(_, v)| v.trim()))
    }

    /// `name` is there, with or without a value (and not `false`).
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, v)| n == name && !matches!(v.as_str(), "false" | "0"))
    }

    /// All values of `name`, given repeatedly or separated by commas.
    pub(crate) fn many(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(n, _)| n == name)
            .flat_map(|(_, v)| v.split(','))
            .map(str::trim)
            .filter(|v| !v.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// A whole number in `range`.
    pub(crate) fn number(&self, name: &str, range: std::ops::RangeInclusive<usize>) -> Result<Option<usize>> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        match text.parse::<usize>() {
            Ok(n) if range.contains(&n) => Ok(Some(n)),
            _ => Err(Problem::parameter(
                name,
                text,
                format!("`{text}` is not a whole number from {} to {}", range.start(), range.end()),
            )),
        }
    }

    /// A duration in microseconds.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Micros>> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        parse_duration(text).map(Some).ok_or_else(|| {
            Problem::parameter(
                name,
                text,
                format!("`{text}` is not a duration such as 500ms, 30s, 5m, 24h or 7d"),
            )
        })
    }

    /// `wait=`, at most `max`.
    pub(crate) fn wait(&self, max: Duration) -> Result<Option<Duration>> {
        let Some(micros) = self.duration("wait")? else { return Ok(None) };
        let wait = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        if wait > max {
            let text = self.one("wait")?.unwrap_or_default();
            return Err(Problem::parameter("wait", text, format!("is longer than {} s", max.as_secs())));
        }
        Ok(Some(wait))
    }

    /// An instant: RFC 3339, `now`, or relative to `now` such as `-2h` or `now-2h`.
    pub(crate) fn instant(&self, name: &str, now: Micros) -> Result<Option<Micros>> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        parse_instant(text, now).map(Some).ok_or_else(|| {
            Problem::parameter(
                name,
                text,
                format!("`{text}` is not an instant such as 2026-03-02T09:00:00Z, now, -2h or now-90s"),
            )
        })
    }

    /// `as_of`: an instant that is not in the future of `wall`; `None` also when it is not before
    /// `published` (then the newest tick is the answer).
    pub(crate) fn as_of(&self, published: Micros, wall: Micros) -> Result<Option<Micros>> {
        /// Clocks of clients may be a little ahead of ours.
        const SKEW: Micros = 1_000_000;
        let Some(at) = self.instant("as_of", published)? else { return Ok(None) };
        let newest = published.max(wall);
        if at > newest.saturating_add(SKEW) {
            let text = self.one("as_of")?.unwrap_or_default().to_owned();
            let message = format!("`{text}` is in the future; now is {}", format_timestamp(newest));
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "as_of_in_future",
                format!("as_of: {message}"),
            )
            .item(ProblemItem {
                place: "as_of".into(),
                code: "as_of_in_future".into(),
                message,
                found: Some(text),
                ..ProblemItem::default()
            }));
        }
        Ok((at < published).then_some(at))
    }
}

fn parse_instant(text: &str, now: Micros) -> Option<Micros> {
    if let Some(rest) = text.strip_prefix("now") {
        return if rest.is_empty() { Some(now) } else { relative(rest, now) };
    }
    if text.starts_with(['-', '+', ' ']) {
        return relative(text, now);
    }
    // An unescaped `+` of a query string arrives as a space.
    parse_timestamp(text).or_else(|| {
        let (head, zone) = text.rsplit_once(' ')?;
        parse_timestamp(&format!("{head}+{zone}"))
    })
}

fn relative(text: &str, now: Micros) -> Option<Micros> {
    if let Some(back) = text.strip_prefix('-') {
        return now.checked_sub(parse_duration(back)?);
    }
    now.checked_add(parse_duration(text.trim_start_matches(['+', ' ']))?)
}

/// `1h30m`, `500ms`, `7d`; a bare number counts seconds.
pub(crate) fn parse_duration(text: &str) -> Option<Micros> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Micros::from(seconds) * 1_000_000);
    }
    let mut total: Micros = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: Micros = rest.get(..digits)?.parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit: Micros = match &rest[..letters] {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            "w" => 604_800_000_000,
            _ => return None,
        };
        rest = &rest[letters..];
        total = total.checked_add(number.checked_mul(unit)?)?;
    }
    (!text.is_empty()).then_some(total)
}

/// The machine's clock in microseconds since the Unix epoch.
pub(crate) fn wall_now() -> Micros {
    jiff::Timestamp::now().as_microsecond()
}

/// Milliseconds from `then` to `now`, with a fraction, never below 0.
pub(crate) fn age_ms(now: Micros, then: Micros) -> f64 {
    (now - then).max(0) as f64 / 1_000.0
}

/// Seconds from `then` to `now`, never below 0.
pub(crate) fn age_seconds(now: Micros, then: Micros) -> f64 {
    (now - then).max(0) as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("90s"), Some(90_000_000));
        assert_eq!(parse_duration("1h30m"), Some(5_400_000_000));
        assert_eq!(parse_duration("500ms"), Some(500_000));
        assert_eq!(parse_duration("5"), Some(5_000_000));
        assert_eq!(parse_duration("0"), Some(0));
        for text in ["", "h", "5x", "-1s", "1.5s", "99999999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn instants() {
        let now = 1_000_000_000_000;
        for (text, at) in [
            ("now", Some(now)),
            ("-2h", Some(now - 7_200_000_000)),
            ("now-1m", Some(now - 60_000_000)),
            ("1970-01-01T00:00:01Z", Some(1_000_000)),
            ("1970-01-01T02:00:01 02:00", Some(1_000_000)),
            ("yesterday", None),
        ] {
            assert_eq!(parse_instant(text, now), at, "{text}");
        }
    }

    #[test]
    fn as_of_never_in_the_future() {
        let now = 1_000_000_000_000;
        let at = |text| params(&[("as_of", text)]).as_of(now, now);
        assert_eq!(at("+1h").unwrap_err().code, "as_of_in_future");
        assert_eq!(at("-1h").unwrap(), Some(now - 3_600_000_000));
        assert_eq!(at("now").unwrap(), None);
    }

    #[test]
    fn strict_about_names_and_repeats() {
        let given = params(&[("windw", "1h"), ("by", "a,b"), ("by", "c"), ("limit", "0")]);
        let problem = given.only(&["window", "by", "limit"]).unwrap_err();
        assert!(problem.detail.contains("Did you mean `window`?"), "{}", problem.detail);
        assert_eq!(given.many("by"), ["a", "b", "c"]);
        assert_eq!(given.one("by").unwrap_err().status.as_u16(), 422);
        assert_eq!(given.number("limit", 1..=10).unwrap_err().status.as_u16(), 422);
    }
}
