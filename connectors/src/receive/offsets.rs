//! Whether a partition still holds what is known to come next of it.
//!
//! *In*: the offsets that checkpoints and the lake stand at, the first and the last offset a partition has, losses that
//! the settings accept. *Out*: where to go on reading, or an error that names both offsets and what to do. *Never*: a
//! jump over records that nobody has accepted; a guess.

use contracts::batch::Partition;

use super::Offsets;

/// Why a partition cannot be read from where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OffsetError {
    /// Records that were not read yet are gone.
    #[error(
        "offset_gap: source `{}`, topic `{}`, partition {}: reading goes on at offset {next}, but the oldest record \
         kept has offset {first}: {} records are gone. Bring them back, or accept their loss: \
         `accept_loss: [\"{}\"]` in the settings of the source",
        .at.source, .at.topic, .at.number, .first - .next, Accepted::of(.at, *.next, *.first)
    )]
    Gap {
        /// Which.
        at: Partition,
        /// Where reading goes on.
        next: i64,
        /// Oldest offset kept.
        first: i64,
    },
    /// It is not the partition that was read.
    #[error(
        "topic_regressed: source `{}`, topic `{}`, partition {}: it was read up to offset {reached}, but {found}: it was \
         deleted and made again, or has lost records. Bring the old one back; or, to read this one from its beginning \
         as a new one, give the source another `name`: what the old one held and had not been read is lost then \
         ({} records that had been read are no longer there)",
        .at.source, .at.topic, .at.number, .reached - .end.min(.reached)
    )]
    Regressed {
        /// Which.
        at: Partition,
        /// The offset that was reached.
        reached: i64,
        /// Its end.
        end: i64,
        /// What is there instead.
        found: String,
    },
}

/// A gap that somebody has accepted: the records `next..first` of a partition. It holds for these offsets and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    topic: String,
    number: i32,
    next: i64,
    first: i64,
}

impl Accepted {
    fn of(at: &Partition, next: i64, first: i64) -> Self {
        Self { topic: at.topic.to_string(), number: at.number, next, first }
    }

    /// Reads what [`OffsetError::Gap`] proposes: `TOPIC[PARTITION] FROM..TO`.
    pub fn parse(text: &str) -> Option<Self> {
        let (place, range) = text.trim().rsplit_once(' ')?;
        let (topic, number) = place.trim_end().strip_suffix(']')?.rsplit_once('[')?;
        let (next, first) = range.split_once("..")?;
        let accepted = Self {
            topic: topic.to_owned(),
            number: number.parse().ok()?,
            next: next.parse().ok()?,
            first: first.parse().ok()?,
        };
        (!accepted.topic.is_empty() && accepted.next < accepted.first).then_some(accepted)
    }
}

impl std::fmt::Display for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}] {}..{}", self.topic, self.number, self.next, self.first)
    }
}

/// What a source must find in its partitions.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Up to where the lake is complete: records below were read, whatever a checkpoint says.
    pub reached: Offsets,
    /// Losses that the settings accept.
    pub accepted: Vec<Accepted>,
}

impl Known {
    /// Where to go on reading a partition that holds `first..end`: `from`, unless a loss was accepted; `None` when nothing
    /// is known of it.
    ///
    /// # Errors
    /// [`OffsetError`].
    pub fn stand(
        &self,
        at: &Partition,
        from: Option<i64>,
        first: i64,
        end: i64,
    ) -> Result<Option<i64>, OffsetError> {
        let reached = self.reached.get(at).copied();
        if let Some(reached) = from.max(reached).filter(|reached| *reached > end) {
            let found = format!("it ends at offset {end}");
            return Err(OffsetError::Regressed { at: at.clone(), reached, end, found });
        }
        // Without a checkpoint everything kept is read again, which must meet the lake's end.
        match from.or(reached).filter(|next| *next < first) {
            None => Ok(from),
            Some(next) if self.accepted.contains(&Accepted::of(at, next, first)) => Ok(Some(first)),
            Some(next) => Err(OffsetError::Gap { at: at.clone(), next, first }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Partition {
        Partition { source: "shop".into(), topic: "orders.raw".into(), number: 3 }
    }

    #[test]
    fn gaps_and_regressions_are_named() {
        let known = Known { reached: [(at(), 150)].into(), accepted: Vec::new() };
        assert_eq!(known.stand(&at(), Some(100), 100, 150), Ok(Some(100)));
        assert_eq!(known.stand(&at(), None, 150, 150), Ok(None));
        assert_eq!(Known::default().stand(&at(), None, 150, 150), Ok(None), "nothing is known");
        let gap = known.stand(&at(), Some(100), 120, 200).unwrap_err();
        assert_eq!(
            gap.to_string(),
            "offset_gap: source `shop`, topic `orders.raw`, partition 3: reading goes on at offset 100, but the oldest \
             record kept has offset 120: 20 records are gone. Bring them back, or accept their loss: \
             `accept_loss: [\"orders.raw[3] 100..120\"]` in the settings of the source"
        );
        assert!(matches!(
            known.stand(&at(), None, 151, 200),
            Err(OffsetError::Gap { next: 150, first: 151, .. })
        ));
        let accepted = vec![Accepted::parse("orders.raw[3] 100..120").unwrap()];
        let known = Known { accepted, ..known };
        assert_eq!(known.stand(&at(), Some(100), 120, 200), Ok(Some(120)));
        assert!(known.stand(&at(), Some(100), 121, 200).is_err(), "one more is gone");
        assert!(known.stand(&at(), Some(99), 120, 200).is_err());
        let gone = known.stand(&at(), Some(100), 0, 140).unwrap_err().to_string();
        assert!(gone.contains("read up to offset 150, but it ends at offset 140"), "{gone}");
        assert!(gone.contains("(10 records that had been read"), "{gone}");
    }

    #[test]
    fn only_what_is_meant_is_accepted() {
        let text = "a topic[x][0] 5..9";
        assert_eq!(Accepted::parse(text).unwrap().to_string(), text);
        for wrong in ["", "t 1..2", "t[0]", "t[0] 2..1", "t[0] 1..1", "[0] 1..2", "t[x] 1..2", "t[0] ..2"] {
            assert_eq!(Accepted::parse(wrong), None, "{wrong}");
        }
    }
}
