//! How far the partitions of all sources have been read.
//!
//! *In*: next offsets per partition. *Out*: their union, their order, their text. *Never*: a partition that is forgotten
//! because another writer does not know it.

use std::collections::BTreeMap;
use std::sync::Arc;

use contracts::batch::Partition;
use serde::{Deserialize, Serialize};

/// The next offset of each partition: everything below is contained. A partition that is not named is at its beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offsets(pub BTreeMap<Partition, i64>);

/// As text: source → topic → partition number → next offset.
#[derive(Serialize, Deserialize)]
struct Text(BTreeMap<Arc<str>, BTreeMap<Arc<str>, BTreeMap<i32, i64>>>);

impl Offsets {
    /// The next offset of `partition`; `i64::MIN` when it is not named.
    pub fn next(&self, partition: &Partition) -> i64 {
        self.0.get(partition).copied().unwrap_or(i64::MIN)
    }

    /// Takes the greater offset of each partition.
    pub fn advance(&mut self, other: &Self) {
        for (partition, next) in &other.0 {
            let own = self.0.entry(partition.clone()).or_insert(*next);
            *own = (*own).max(*next);
        }
    }

    /// Whether everything below `other` is below this, too.
    pub fn contains(&self, other: &Self) -> bool {
        other.0.iter().all(|(partition, next)| self.next(partition) >= *next)
    }

    /// As it is written into snapshots.
    pub fn to_text(&self) -> String {
        let mut text = BTreeMap::<_, BTreeMap<_, BTreeMap<_, _>>>::new();
        for (partition, next) in &self.0 {
            let topics = text.entry(Arc::clone(&partition.source)).or_default();
            topics.entry(Arc::clone(&partition.topic)).or_default().insert(partition.number, *next);
        }
        // Maps of texts and numbers cannot fail to be written.
        serde_json::to_string(&Text(text)).unwrap_or_default()
    }

    /// Reads [`Offsets::to_text`].
    ///
    /// # Errors
    /// The parser's words.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let Text(sources) = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut offsets = BTreeMap::new();
        for (source, topics) in sources {
            for (topic, numbers) in topics {
                for (number, next) in numbers {
                    let (source, topic) = (Arc::clone(&source), Arc::clone(&topic));
                    offsets.insert(Partition { source, topic, number }, next);
                }
            }
        }
        Ok(Self(offsets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let partition = |number| Partition { source: "s".into(), topic: "t.x".into(), number };
        let mut offsets = Offsets(BTreeMap::from([(partition(0), 7), (partition(3), 0)]));
        let text = offsets.to_text();
        assert_eq!(text, r#"{"s":{"t.x":{"0":7,"3":0}}}"#);
        assert_eq!(Offsets::from_text(&text).unwrap(), offsets);
        let more = Offsets(BTreeMap::from([(partition(0), 5), (partition(1), 2)]));
        assert!(!offsets.contains(&more));
        offsets.advance(&more);
        assert_eq!(offsets.to_text(), r#"{"s":{"t.x":{"0":7,"1":2,"3":0}}}"#);
        assert!(offsets.contains(&more));
        assert!(Offsets::from_text("{").is_err());
    }
}
