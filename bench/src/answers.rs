//! The answer to W1: what every program must say, group by group.
//!
//! *In*: events or the output of a program. *Out*: [`Groups`], and how two of them differ. *Never*: a
//! comparison of sums only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One (region, minute).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Cents.
    pub revenue: i64,
    /// Good events.
    pub n: u64,
    /// Events whose amount is not above 0.
    pub bad_amount: u64,
    /// Other events whose status is not one of the five.
    pub bad_status: u64,
    /// Cents; `None` where a program does not compute it.
    pub avg: Option<i64>,
}

impl Cell {
    /// Counts one event.
    pub fn add(&mut self, cents: i64, good_status: bool) {
        if cents <= 0 {
            self.bad_amount += 1;
        } else if !good_status {
            self.bad_status += 1;
        } else {
            self.revenue += cents;
            self.n += 1;
        }
    }

    /// Revenue per good event in cents, rounded half away from zero (revenue is never negative here).
    pub fn average(&self) -> Option<i64> {
        let n = i64::try_from(self.n).ok().filter(|n| *n > 0)?;
        Some((2 * self.revenue + n) / (2 * n))
    }

    /// All events.
    pub fn events(&self) -> u64 {
        self.n + self.bad_amount + self.bad_status
    }

    fn agrees(&self, other: &Self) -> bool {
        let without = |cell: &Self| Self { avg: None, ..*cell };
        let averages = self.avg.zip(other.avg).is_none_or(|(a, b)| a == b);
        without(self) == without(other) && averages
    }
}

/// Cells by region and minute since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Groups(#[serde(with = "rows")] pub BTreeMap<(String, i64), Cell>);

/// Differences that are shown.
const SHOWN: usize = 5;

impl Groups {
    /// The sum of all cells.
    pub fn total(&self) -> Cell {
        self.0.values().fold(Cell::default(), |sum, cell| Cell {
            revenue: sum.revenue + cell.revenue,
            n: sum.n + cell.n,
            bad_amount: sum.bad_amount + cell.bad_amount,
            bad_status: sum.bad_status + cell.bad_status,
            avg: None,
        })
    }

    /// How `found` differs from `self`, the first few; empty when they agree.
    pub fn differences(&self, found: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut count = 0_usize;
        let mut tell = |text: String| {
            count += 1;
            if differences.len() < SHOWN {
                differences.push(text);
            }
        };
        for ((region, minute), want) in &self.0 {
            match found.0.get(&(region.clone(), *minute)) {
                Some(got) if want.agrees(got) => {}
                Some(got) => tell(format!("{region} minute {minute}: expected {want:?}, found {got:?}")),
                None => tell(format!("{region} minute {minute}: expected {want:?}, found nothing")),
            }
        }
        for (region, minute) in found.0.keys().filter(|key| !self.0.contains_key(*key)) {
            tell(format!("{region} minute {minute}: not expected"));
        }
        if count > SHOWN {
            differences.push(format!("and {} more groups", count - SHOWN));
        }
        differences
    }
}

/// JSON has no pairs as keys: a list of rows instead.
mod rows {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::Cell;

    type Map = BTreeMap<(String, i64), Cell>;

    pub(super) fn serialize<S: Serializer>(map: &Map, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(map.iter().map(|((region, minute), cell)| (region, minute, cell)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Map, D::Error> {
        let rows: Vec<(String, i64, Cell)> = Deserialize::deserialize(from)?;
        Ok(rows.into_iter().map(|(region, minute, cell)| ((region, minute), cell)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(revenue: i64, avg: Option<i64>) -> Groups {
        let cell = Cell { revenue, n: 2, bad_amount: 1, bad_status: 0, avg };
        Groups([(("eu".to_owned(), 7), cell)].into())
    }

    #[test]
    fn differences_name_the_group() {
        assert!(groups(5, Some(3)).differences(&groups(5, None)).is_empty());
        assert_eq!(groups(5, Some(3)).differences(&groups(5, Some(2))).len(), 1);
        let found = groups(5, None).differences(&groups(6, None));
        assert!(found[0].starts_with("eu minute 7: expected"), "{found:?}");
        assert_eq!(groups(5, None).differences(&Groups::default()).len(), 1);
        assert_eq!(Groups::default().differences(&groups(5, None)), ["eu minute 7: not expected"]);
    }

    #[test]
    fn averages_round_half_away_from_zero() {
        let average = |revenue, n| Cell { revenue, n, ..Cell::default() }.average();
        assert_eq!((average(5, 2), average(4, 3), average(5, 3)), (Some(3), Some(1), Some(2)));
        assert_eq!(average(0, 0), None);
    }

    #[test]
    fn json_and_back() {
        let text = serde_json::to_string(&groups(5, Some(3))).unwrap();
        assert_eq!(serde_json::from_str::<Groups>(&text).unwrap(), groups(5, Some(3)));
    }
}
